//! What pods are to become.

use crate::restarts::is_of_main;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use springtide_crds::common::ResourceAmounts;
use springtide_crds::in_place_upgrade::{
    ContainerResources, InPlaceUpgradeSpec, Inline, Persist, Restart, SourceType, TARGET_HASH_LENGTH,
};
use springtide_plumbing::workloads::content::Digest;
use springtide_plumbing::workloads::template::Template;
use std::fmt;
use std::sync::Arc;

/// Names a wish: the wish itself with the attempt and the restart that are asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetHash(Arc<str>);

impl TargetHash {
    fn of(parts: &[&str]) -> Self {
        let digest = hex::encode(Sha256::digest(parts.join("\n")));
        Self(digest[..TARGET_HASH_LENGTH].into())
    }

    /// As it stands in the API.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TargetHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What pods are to become, as a template: whatever says so is laid over the workload's own.
#[derive(Clone, Debug, PartialEq)]
pub struct Wish {
    /// The template of a pod that is as it is wished.
    pub template: Arc<Template>,
    /// Its name.
    pub hash: TargetHash,
    /// Whether the workload's template is to become this one, or stays as it is.
    pub persist: Persist,
    /// What is to be restarted for its own sake.
    pub restart: Option<Restart>,
    /// Containers that the wish names, to be changed or restarted, and the workload has not.
    pub unknown_containers: Vec<String>,
    /// Whether it is what a rollback goes back to.
    pub is_rollback: bool,
}

impl Wish {
    /// The wish of a spec, for a workload with this template.
    pub fn of(spec: &InPlaceUpgradeSpec, template: &Arc<Template>) -> Self {
        let inline = match spec.source.type_ {
            SourceType::Template => None,
            SourceType::Inline => spec.source.inline.as_ref(),
        };
        let (wished, mut unknown_containers) = match inline {
            None => (Arc::clone(template), Vec::new()),
            Some(inline) => laid_over(template, inline),
        };
        let named = spec.restart.iter().flat_map(|restart| &restart.containers);
        unknown_containers.extend(named.filter(|name| !runs(&wished, name)).cloned());
        let restart = spec.restart.as_ref().map(|restart| {
            let before = restart.before_time.0.to_string();
            format!("{before} {}", restart.containers.join(","))
        });
        let hash = TargetHash::of(&[
            &wished.whole.to_string(),
            &spec.attempt.to_string(),
            &restart.unwrap_or_default(),
            &unknown_containers.join(","),
        ]);
        let persist = inline.map_or(Persist::Template, |inline| inline.persist);
        Self {
            template: wished,
            hash,
            persist,
            restart: spec.restart.clone(),
            unknown_containers,
            is_rollback: false,
        }
    }

    /// The wish to go back to a template from this one, under a name of its own: pods that were changed forth bear
    /// another.
    #[must_use]
    pub fn back_to(&self, template: &Arc<Template>) -> Self {
        Self {
            template: Arc::clone(template),
            hash: TargetHash::of(&[self.hash.as_str(), "rollback", &template.whole.to_string()]),
            persist: self.persist,
            // What was restarted is running again.
            restart: None,
            unknown_containers: Vec::new(),
            is_rollback: true,
        }
    }

    /// The same wish once more after a run of it came to its end at an instant, under a name of its own: what pods bear of
    /// that run says nothing of this one.
    #[must_use]
    pub fn again(&self, after: Timestamp) -> Self {
        Self { hash: TargetHash::of(&[self.hash.as_str(), "again", &after.to_string()]), ..self.clone() }
    }

    /// Digest of the template.
    pub fn whole(&self) -> Digest {
        self.template.whole
    }
}

/// Whether pods of a template have a container of this name that can be restarted.
fn runs(template: &Template, name: &str) -> bool {
    template.content.containers.get(name).is_some_and(|content| is_of_main(content.role))
}

/// The template with an inline patch laid over it, and the containers that it has not.
fn laid_over(template: &Template, inline: &Inline) -> (Arc<Template>, Vec<String>) {
    let mut value = template.value();
    let mut unknown = Vec::new();
    for patch in &inline.containers {
        let found = ["/spec/containers", "/spec/initContainers"].into_iter().find_map(|list| {
            let containers = value.pointer(list)?.as_array()?;
            let index = containers.iter().position(|container| container["name"] == *patch.name)?;
            Some(format!("{list}/{index}"))
        });
        let Some(container) = found.and_then(|path| value.pointer_mut(&path)?.as_object_mut()) else {
            unknown.push(patch.name.clone());
            continue;
        };
        if let Some(image) = &patch.image {
            container.insert("image".to_owned(), json!(image));
        }
        if let Some(resources) = &patch.resources {
            set_amounts(container, resources);
        }
    }
    if let Some(metadata) = &inline.metadata {
        for (list, entries) in [("labels", &metadata.labels), ("annotations", &metadata.annotations)] {
            for (key, text) in entries {
                if let Some(map) = object(&mut value, &["metadata", list]) {
                    map.insert(key.clone(), json!(text));
                }
            }
        }
    }
    (Template::shared(&value), unknown)
}

fn set_amounts(container: &mut Map<String, Value>, resources: &ContainerResources) {
    let own = container.entry("resources").or_insert_with(|| json!({}));
    for (list, amounts) in [("requests", &resources.requests), ("limits", &resources.limits)] {
        let Some(ResourceAmounts { cpu, memory }) = amounts else { continue };
        for (name, amount) in [("cpu", cpu), ("memory", memory)] {
            if let (Some(amount), Some(map)) = (amount, object(own, &[list])) {
                map.insert(name.to_owned(), json!(amount));
            }
        }
    }
}

/// The object under a path, made where it is missing; `None` where something else is there.
fn object<'a>(value: &'a mut Value, path: &[&str]) -> Option<&'a mut Map<String, Value>> {
    let mut at = value;
    for name in path {
        if at.is_null() {
            *at = json!({});
        }
        at = at.as_object_mut()?.entry(*name).or_insert_with(|| json!({}));
    }
    if at.is_null() {
        *at = json!({});
    }
    at.as_object_mut()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::template;
    use springtide_crds::in_place_upgrade::TargetKind;

    fn spec(source: Value) -> InPlaceUpgradeSpec {
        let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
        serde_json::from_value(json!({"targetRef": target, "source": source})).unwrap()
    }

    #[test]
    fn by_default_the_wish_is_the_template_of_the_workload() {
        let own = template("app:2", json!({}));
        let wish = Wish::of(&InPlaceUpgradeSpec::new(TargetKind::Deployment, "web"), &own);
        assert!(Arc::ptr_eq(&wish.template, &own));
        assert_eq!((wish.persist, wish.hash.as_str().len()), (Persist::Template, 12));
    }

    #[test]
    fn an_inline_wish_changes_what_it_names_and_nothing_else() {
        let own = template(
            "app:1",
            json!({"spec": {"initContainers": [{"name": "proxy", "image": "proxy:1", "restartPolicy": "Always"}]}}),
        );
        let wish = Wish::of(
            &spec(json!({"type": "Inline", "inline": {
                "persist": "PodsOnly",
                "containers": [
                    {"name": "app", "resources": {"requests": {"cpu": "2"}, "limits": {"memory": "1Gi"}}},
                    {"name": "proxy", "image": "proxy:2"},
                ],
                "metadata": {"annotations": {"config": "v2"}},
            }})),
            &own,
        );
        let value = wish.template.value();
        assert_eq!(value["spec"]["containers"][0]["image"], "app:1");
        assert_eq!(
            value["spec"]["containers"][0]["resources"],
            json!({"requests": {"cpu": "2"}, "limits": {"memory": "1Gi"}})
        );
        assert_eq!(value["spec"]["initContainers"][0]["image"], "proxy:2");
        assert_eq!(value["metadata"], json!({"labels": {"app": "web"}, "annotations": {"config": "v2"}}));
        assert_eq!((wish.template.rest, wish.persist), (own.rest, Persist::PodsOnly));
        assert!(wish.unknown_containers.is_empty());
    }

    #[test]
    fn a_container_that_the_workload_has_not_is_named() {
        let inline =
            json!({"type": "Inline", "inline": {"containers": [{"name": "nope", "image": "app:2"}]}});
        let own = template("app:1", json!({}));
        let wish = Wish::of(&spec(inline), &own);
        assert_eq!(wish.unknown_containers, ["nope"]);
        assert_eq!(wish.whole(), own.whole);
        assert_ne!(wish.hash, Wish::of(&spec(json!({})), &own).hash);
    }

    #[test]
    fn a_container_that_is_to_be_restarted_and_does_not_run_in_the_workload_is_named() {
        let own =
            template("app:1", json!({"spec": {"initContainers": [{"name": "setup", "image": "setup:1"}]}}));
        let mut restart = spec(json!({}));
        let unknown = |restart: &InPlaceUpgradeSpec| Wish::of(restart, &own).unknown_containers;
        restart.restart = serde_json::from_value(
            json!({"beforeTime": "2026-11-23T10:00:00Z", "containers": ["app", "setup", "nope"]}),
        )
        .unwrap();
        assert_eq!(unknown(&restart), ["setup", "nope"]);
        restart.restart.as_mut().unwrap().containers.clear();
        assert!(unknown(&restart).is_empty(), "those are all that run");
    }

    #[test]
    fn what_an_inline_wish_changes_of_a_plain_init_containers_amounts_is_not_in_place() {
        let own =
            template("app:1", json!({"spec": {"initContainers": [{"name": "setup", "image": "setup:1"}]}}));
        let inline = json!({"containers": [{"name": "setup", "resources": {"requests": {"cpu": "1"}}}]});
        let wish = Wish::of(&spec(json!({"type": "Inline", "inline": inline})), &own);
        assert_ne!(wish.template.rest, own.rest);
    }

    #[test]
    fn the_name_of_a_wish_changes_with_the_wish_the_attempt_and_the_restart_alone() {
        let own = template("app:1", json!({}));
        let hash = |spec: &InPlaceUpgradeSpec| Wish::of(spec, &own).hash;
        let base = spec(json!({}));
        let mut others = vec![base.clone(); 4];
        others[0].attempt = 1;
        others[1].restart = serde_json::from_value(json!({"beforeTime": "2026-11-23T10:00:00Z"})).unwrap();
        others[2].restart =
            serde_json::from_value(json!({"beforeTime": "2026-11-23T10:00:00Z", "containers": ["app"]}))
                .unwrap();
        let inline = json!({"type": "Inline", "inline": {"containers": [{"name": "app", "image": "app:2"}]}});
        others[3].source = serde_json::from_value(inline.clone()).unwrap();
        let mut names: Vec<_> = others.iter().map(&hash).chain([hash(&base)]).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 5);
        let mut same = base.clone();
        same.strategy.max_in_flight_per_node = 5;
        assert_eq!(hash(&same), hash(&base), "how it is done is not what is wished");
        let written = Wish::of(&base, &template("app:2", json!({}))).hash;
        assert_eq!(hash(&others[3]), written, "who says it does not matter either");
    }

    #[test]
    fn a_rollback_has_a_name_of_its_own() {
        let (old, new) = (template("app:1", json!({})), template("app:2", json!({})));
        let forth = Wish::of(&spec(json!({})), &new);
        let back = forth.back_to(&old);
        assert!(back.is_rollback && back.whole() == old.whole);
        assert_ne!(back.hash, forth.hash);
        assert_ne!(
            back.hash,
            Wish::of(&spec(json!({})), &old).hash,
            "the same template by a new wish is another run"
        );
        assert_eq!(back.hash, forth.back_to(&old).hash);
        assert_eq!(back.restart, None);
    }

    #[test]
    fn a_wish_that_comes_up_again_has_a_name_of_its_own_each_time() {
        let first = Wish::of(&spec(json!({})), &template("app:2", json!({})));
        let at = |second| Timestamp::from_second(second).unwrap();
        let (second, third) = (first.again(at(1)), first.again(at(2)));
        assert!(first.hash != second.hash && second.hash != third.hash);
        assert_eq!((second.hash.clone(), second.whole()), (first.again(at(1)).hash, first.whole()));
    }
}
