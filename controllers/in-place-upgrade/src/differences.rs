//! In what a live pod differs from the wish.
//!
//! Admission may write fields of a pod otherwise than its template has them: another registry, default amounts, labels
//! of its own. So what the wish leaves as it was is not held against a pod, unless it was us who changed it: the pod's
//! record says so, or (for amounts, which are resized without one) a run is open.

use crate::change::{Change, KeyChange};
use jiff::Timestamp;
use springtide_plumbing::projection::Projection;
use springtide_plumbing::workloads::amounts::Amounts;
use springtide_plumbing::workloads::claims::{Claim, share};
use springtide_plumbing::workloads::content::{ContainerContent, Metadata, Role};
use springtide_plumbing::workloads::names::{CONTROLLER_REVISION_HASH, turns_traffic};
use springtide_plumbing::workloads::pod::{ContainerView, PodView};
use springtide_plumbing::workloads::template::Template;
use springtide_plumbing::workloads::trace::{Kind, Trace};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What pods are held against.
#[derive(Clone, Copy, Debug)]
pub struct Against<'a> {
    /// The wish.
    pub wish: &'a Template,
    /// What it changes of the template that the pod was made from.
    pub change: &'a Change,
    /// The revision that the pod is to name, of the kinds whose pods name one.
    pub revision: Option<&'a Arc<str>>,
    /// Whether amounts that the wish leaves as they were are held against a pod all the same: a run is open.
    pub is_strict_on_amounts: bool,
    /// Amounts that somebody else decides: they are not held against a pod at all.
    pub claims: &'a [Claim],
}

/// What of a pod is not as it is wished.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// Containers that run beside one another with another image.
    pub images: Vec<Arc<str>>,
    /// Plain init containers with another image: nothing restarts them.
    pub init_images: Vec<Arc<str>>,
    /// Containers with other cpu or memory in the spec, and all that each is to have.
    pub amounts: BTreeMap<Arc<str>, Amounts>,
    /// Whether a container states amounts that the wish takes away, which no resize does.
    pub keeps_amounts: bool,
    /// Whether the resize of one of these restarts it.
    pub resize_restarts: bool,
    /// Whether what the kubelet has put in force is not what the spec asks for.
    pub is_resize_open: bool,
    /// Labels to set.
    pub labels: Metadata,
    /// Labels to take away.
    pub labels_removed: BTreeSet<Arc<str>>,
    /// Annotations to set.
    pub annotations: Metadata,
    /// Annotations to take away.
    pub annotations_removed: BTreeSet<Arc<str>>,
    /// The revision to name.
    pub revision: Option<Arc<str>>,
    /// Containers that the wish has and the pod has not.
    pub missing: Vec<Arc<str>>,
    /// The restart that it has yet to have; see [`restarts`](crate::restarts).
    pub restart: Option<Timestamp>,
    /// Containers that are restarted with the image that they have, and the other name of it.
    pub flips: BTreeMap<Arc<str>, Arc<str>>,
    /// Whether one is to be restarted of whose image no other name is known.
    pub is_digest_unknown: bool,
}

impl Differences {
    /// Whether it is as it is wished, by what its spec and metadata say.
    pub fn is_content_equal(&self) -> bool {
        self.missing.is_empty() && self.amounts.is_empty() && !self.needs_patch()
    }

    /// Whether the pod itself is to be patched: anything but a resize.
    pub fn needs_patch(&self) -> bool {
        !self.images.is_empty()
            || !self.init_images.is_empty()
            || !self.flips.is_empty()
            || self.has_metadata()
    }

    /// Containers that the patch restarts.
    pub fn restarting(&self) -> impl Iterator<Item = &Arc<str>> {
        self.images.iter().chain(self.flips.keys())
    }

    /// Whether labels, annotations or revision differ.
    pub fn has_metadata(&self) -> bool {
        !self.labels.is_empty()
            || !self.labels_removed.is_empty()
            || !self.annotations.is_empty()
            || !self.annotations_removed.is_empty()
            || self.revision.is_some()
    }
}

/// In what a pod differs from the wish.
pub fn differences(pod: &PodView, against: &Against<'_>) -> Differences {
    let Against { wish, change, revision, is_strict_on_amounts, claims } = *against;
    let mut found = Differences::default();
    let mut changes_amounts = false;
    for (name, wished) in &wish.content.containers {
        let Some(own) = pod.container(name) else {
            found.missing.push(name.clone());
            continue;
        };
        let image_counts = change.images.contains(name) || pod.trace.has_changed_image_of(name);
        let is_other = own.image != wished.image && !pod.trace.is_renamed(name, &wished.image, &own.image);
        if image_counts && is_other {
            match own.role {
                Role::Main | Role::Sidecar => found.images.push(name.clone()),
                Role::Init => found.init_images.push(name.clone()),
            }
        }
        let claimed = share(claims, name, own.role);
        let amounts = claimed.rest(wished.amounts);
        found.keeps_amounts |=
            change.amounts_removed.contains(name) && claimed.rest(own.amounts).states_more_than(&amounts);
        let is_changed = change.amounts.contains(name);
        changes_amounts |= is_changed && !amounts.is_empty();
        if (is_changed || is_strict_on_amounts) && resizes(own, wished) {
            found.is_resize_open |= is_open(own, &amounts);
            if !own.amounts.has(&amounts) {
                let (cpu, memory) = own.amounts.changes_to(&amounts);
                found.resize_restarts |= (cpu && own.cpu_restarts) || (memory && own.memory_restarts);
                found.amounts.insert(name.clone(), amounts);
            }
        }
    }
    found.is_resize_open |=
        changes_amounts && (pod.resize_pending.is_some() || pod.resize_in_progress.is_some());
    let is_traced = pod.trace != Trace::None;
    let labels = |key: &str, value: &str| {
        // Its template says how a pod is born, and its controller turns it from then on.
        pod.meta().labels.get(key).is_some_and(|own| **own == *value || turns_traffic(key))
    };
    let has_label = |key: &str| pod.meta().labels.contains_key(key);
    (found.labels, found.labels_removed) =
        keys(&wish.content.labels, &change.labels, is_traced, labels, has_label);
    found.labels_removed.extend(added(&wish.content.labels, pod.meta().labels.keys(), pod, Kind::Label));
    let annotation = |key: &str, value: &str| pod.annotations.get(key).is_some_and(|own| own.is(value));
    let has_annotation = |key: &str| pod.annotations.contains_key(key);
    (found.annotations, found.annotations_removed) =
        keys(&wish.content.annotations, &change.annotations, is_traced, annotation, has_annotation);
    found.annotations_removed.extend(added(
        &wish.content.annotations,
        pod.annotations.keys(),
        pod,
        Kind::Annotation,
    ));
    let named = pod.meta().labels.get(CONTROLLER_REVISION_HASH);
    found.revision = revision.filter(|wished| named != Some(*wished)).cloned();
    found
}

/// Whether a container of the pod can be resized at all, by what it is.
fn resizes(own: &ContainerView, wished: &ContainerContent) -> bool {
    match (own.role, wished.role) {
        (Role::Main | Role::Sidecar, Role::Main | Role::Sidecar) => true,
        (Role::Init, _) | (_, Role::Init) => false,
    }
}

/// Whether the kubelet has yet to put in force what the spec of a running container asks for.
fn is_open(own: &ContainerView, wished: &Amounts) -> bool {
    let in_force = own.status.as_ref().filter(|status| !status.container_id.is_empty());
    let in_force = in_force.and_then(|status| status.amounts);
    in_force.is_some_and(|amounts| !amounts.has(wished))
}

fn keys(
    wished: &Metadata,
    change: &KeyChange,
    is_traced: bool,
    has: impl Fn(&str, &str) -> bool,
    is_there: impl Fn(&str) -> bool,
) -> (Metadata, BTreeSet<Arc<str>>) {
    let counts = |key: &Arc<str>| is_traced || change.set.contains(key);
    let set = wished.iter().filter(|(key, value)| counts(key) && !has(key, value));
    let removed = change.removed.iter().filter(|key| is_there(key));
    (set.map(|(key, value)| (key.clone(), value.clone())).collect(), removed.cloned().collect())
}

/// Keys that have come to the pod by us, and are not wished any more: what it was made from never had them.
fn added<'a>(
    wished: &'a Metadata,
    own: impl Iterator<Item = &'a Arc<str>> + 'a,
    pod: &'a PodView,
    kind: Kind,
) -> impl Iterator<Item = Arc<str>> + 'a {
    own.filter(move |key| !wished.contains_key(*key) && pod.trace.has_added(kind, key)).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{pod, template};
    use serde_json::{Value, json};
    use springtide_plumbing::workloads::names::RECORD_ANNOTATION;

    fn found(old: &Template, wish: &Template, over: Value) -> Differences {
        let change = Change::between(old, wish);
        let against =
            Against { wish, change: &change, revision: None, is_strict_on_amounts: false, claims: &[] };
        let pod = pod("web-1", over);
        differences(&pod, &against)
    }

    fn record(base: &[&str]) -> Value {
        let base: serde_json::Map<_, _> =
            base.iter().map(|name| ((*name).to_owned(), json!(["a", "b"]))).collect();
        let text =
            json!({"run": "7c9f21ab04de", "at": "2026-11-23T10:00:00Z", "g": 1, "base": base}).to_string();
        json!({"metadata": {"annotations": {RECORD_ANNOTATION: text}}})
    }

    #[test]
    fn what_the_wish_changes_is_held_against_every_pod() {
        let (old, wish) =
            (template("app:1", json!({})), template("app:2", json!({"metadata": {"labels": {"v": "2"}}})));
        let differs = found(&old, &wish, json!({}));
        assert_eq!(differs.images, [Arc::from("app")]);
        assert_eq!(differs.labels.len(), 1);
        let new = json!({
            "metadata": {"labels": {"v": "2"}},
            "spec": {"containers": [{"name": "app", "image": "app:2"}]},
        });
        assert!(found(&old, &wish, new).is_content_equal(), "however it came to be so");
    }

    #[test]
    fn what_the_wish_leaves_is_held_only_against_what_was_changed_by_us() {
        let (old, wish) = (
            template("app:1", json!({})),
            template("app:1", json!({"metadata": {"annotations": {"a": "b"}}})),
        );
        let mirrored = json!({"spec": {"containers": [{"name": "app", "image": "mirror/app:1"}]}});
        assert!(found(&old, &wish, mirrored.clone()).images.is_empty(), "admission has written it so");
        for (base, images) in [(&["app"][..], 1), (&["other"][..], 0)] {
            let mut over = record(base);
            crate::fixtures::overlay(&mut over, mirrored.clone());
            assert_eq!(found(&old, &wish, over).images.len(), images, "{base:?}");
        }
        let mut damaged = json!({"metadata": {"annotations": {RECORD_ANNOTATION: "{"}}});
        crate::fixtures::overlay(&mut damaged, mirrored);
        assert_eq!(found(&old, &wish, damaged).images.len(), 1, "nobody knows who has changed it");
    }

    #[test]
    fn amounts_that_the_wish_leaves_count_only_in_an_open_run() {
        let with = |cpu: &str| {
            let container = json!({"name": "app", "image": "app:1", "resources": {"requests": {"cpu": cpu}}});
            json!({"spec": {"containers": [container]}})
        };
        let wish = template("app:1", with("1"));
        let change = Change::default();
        let pod = pod("web-1", with("2"));
        let of = |is_strict_on_amounts| {
            let against =
                Against { wish: &wish, change: &change, revision: None, is_strict_on_amounts, claims: &[] };
            differences(&pod, &against).amounts.len()
        };
        assert_eq!((of(false), of(true)), (0, 1), "an autoscaler may have resized it");
    }

    #[test]
    fn a_resize_is_open_until_the_kubelet_has_put_it_in_force() {
        let with = |cpu: &str, in_force: &str| {
            let resources = |cpu: &str| json!({"requests": {"cpu": cpu}});
            let policy = json!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]);
            json!({
                "spec": {"containers": [
                    {"name": "app", "image": "app:1", "resources": resources(cpu), "resizePolicy": policy},
                ]},
                "status": {"containerStatuses": [
                    {"name": "app", "containerID": "c", "imageID": "i", "resources": resources(in_force)},
                ]},
            })
        };
        let template = |cpu: &str| {
            let resources = json!({"requests": {"cpu": cpu}});
            template(
                "app:1",
                json!({"spec": {"containers": [{"name": "app", "image": "app:1", "resources": resources}]}}),
            )
        };
        let (old, wish) = (template("1"), template("2"));
        let before = found(&old, &wish, with("1", "1"));
        assert!(before.amounts.len() == 1 && before.resize_restarts && before.is_resize_open);
        let during = found(&old, &wish, with("2", "1"));
        assert!(during.is_content_equal() && during.is_resize_open);
        let after = found(&old, &wish, with("2", "2"));
        assert_eq!(after, Differences::default());
        let mut pending = with("2", "2");
        pending["status"]["conditions"] = json!([{"type": "PodResizeInProgress", "status": "True"}]);
        assert!(found(&old, &wish, pending).is_resize_open);
    }

    #[test]
    fn keys_that_the_wish_takes_away_are_to_go() {
        let old = template("app:1", json!({"metadata": {"annotations": {"gone": "x"}}}));
        let differs =
            found(&old, &template("app:1", json!({})), json!({"metadata": {"annotations": {"gone": "y"}}}));
        assert_eq!(differs.annotations_removed, [Arc::from("gone")].into());
        assert!(differs.has_metadata() && !differs.is_content_equal());
    }

    #[test]
    fn a_container_that_the_pod_has_not_is_named() {
        let old = template("app:1", json!({}));
        let differs =
            found(&old, &old, json!({"spec": {"containers": [{"name": "other", "image": "app:1"}]}}));
        assert_eq!(differs.missing, [Arc::from("app")]);
    }
}
