//! What a wish changes of a template: the kind of change, whatever pods look like.

use springtide_plumbing::workloads::content::Metadata;
use springtide_plumbing::workloads::template::Template;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The difference between the template that a pod was made from and the wish.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Containers that get another image.
    pub images: BTreeSet<Arc<str>>,
    /// Containers that get other cpu or memory.
    pub amounts: BTreeSet<Arc<str>>,
    /// Those of them of which a request or limit is taken away.
    pub amounts_removed: BTreeSet<Arc<str>>,
    /// Labels.
    pub labels: KeyChange,
    /// Annotations.
    pub annotations: KeyChange,
    /// Whether something changes that cannot be changed in place.
    pub rest: bool,
}

/// What changes of labels or annotations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyChange {
    /// Keys that come or get another value.
    pub set: BTreeSet<Arc<str>>,
    /// Keys that go.
    pub removed: BTreeSet<Arc<str>>,
}

impl KeyChange {
    fn between(old: &Metadata, wish: &Metadata) -> Self {
        let set =
            wish.iter().filter(|(key, value)| old.get(*key) != Some(*value)).map(|(key, _)| key.clone());
        let removed = old.keys().filter(|key| !wish.contains_key(*key)).cloned();
        Self { set: set.collect(), removed: removed.collect() }
    }

    fn is_empty(&self) -> bool {
        self.set.is_empty() && self.removed.is_empty()
    }
}

impl Change {
    /// What `wish` changes of `old`.
    pub fn between(old: &Template, wish: &Template) -> Self {
        let (from, to) = (&old.content, &wish.content);
        let amounts = from.amounts_changed(to);
        let removed = amounts.iter().filter(|name| {
            let (from, to) = (from.containers.get(*name), to.containers.get(*name));
            from.zip(to).is_some_and(|(from, to)| from.amounts.states_more_than(&to.amounts))
        });
        let amounts_removed = removed.cloned().collect();
        Self {
            images: from.images_changed(to),
            amounts,
            amounts_removed,
            labels: KeyChange::between(&from.labels, &to.labels),
            annotations: KeyChange::between(&from.annotations, &to.annotations),
            rest: old.rest != wish.rest,
        }
    }

    /// What `wish` may change of a template that nobody knows any more: everything that can be changed in place.
    pub fn of_unknown(wish: &Template) -> Self {
        let names: BTreeSet<Arc<str>> = wish.content.containers.keys().cloned().collect();
        let keys = |metadata: &Metadata| KeyChange {
            set: metadata.keys().cloned().collect(),
            removed: BTreeSet::new(),
        };
        Self {
            images: names.clone(),
            amounts: names,
            amounts_removed: BTreeSet::new(),
            labels: keys(&wish.content.labels),
            annotations: keys(&wish.content.annotations),
            rest: false,
        }
    }

    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.images.is_empty()
            && self.amounts.is_empty()
            && self.labels.is_empty()
            && self.annotations.is_empty()
            && !self.rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::template;
    use serde_json::{Value, json};

    fn names(set: &BTreeSet<Arc<str>>) -> Vec<&str> {
        set.iter().map(AsRef::as_ref).collect()
    }

    fn with_resources(resources: Value) -> Arc<Template> {
        let container = json!({"name": "app", "image": "app:1", "resources": resources});
        template("app:1", json!({"spec": {"containers": [container]}}))
    }

    #[test]
    fn each_kind_of_change_is_named() {
        let old = template("app:1", json!({"metadata": {"annotations": {"gone": "x", "kept": "y"}}}));
        let wish =
            template("app:2", json!({"metadata": {"labels": {"v": "2"}, "annotations": {"kept": "y"}}}));
        let change = Change::between(&old, &wish);
        assert_eq!(names(&change.images), ["app"]);
        assert_eq!((names(&change.labels.set), names(&change.labels.removed)), (vec!["v"], vec![]));
        assert_eq!(
            (names(&change.annotations.set), names(&change.annotations.removed)),
            (vec![], vec!["gone"])
        );
        assert!(!change.rest && change.amounts.is_empty() && !change.is_empty());
        assert!(Change::between(&wish, &wish).is_empty());
        let rest = template("app:1", json!({"spec": {"hostNetwork": true}}));
        assert!(Change::between(&template("app:1", json!({})), &rest).rest);
    }

    #[test]
    fn an_amount_that_is_taken_away_is_told_from_one_that_comes_or_changes() {
        let old = with_resources(json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}));
        for (resources, takes_away) in [
            (json!({"requests": {"cpu": "2"}, "limits": {"cpu": "2"}}), false),
            (json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "2"}}), false),
            (json!({"requests": {"cpu": "1"}}), true),
        ] {
            let change = Change::between(&old, &with_resources(resources.clone()));
            let removed = !change.amounts_removed.is_empty();
            assert_eq!((names(&change.amounts), removed), (vec!["app"], takes_away), "{resources}");
        }
        let same = with_resources(json!({"requests": {"cpu": "1000m"}, "limits": {"cpu": 2}}));
        assert!(Change::between(&old, &same).amounts.is_empty());
    }
}
