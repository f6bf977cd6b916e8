//! The writes to one pod: 3 of a pod with a gate, 1 of any other; image and resources together one more. One that is
//! made anew is evicted, with 1.

use crate::differences::Differences;
use crate::machine::PodWrite;
use crate::names::{DELETION_COST, SPARED_COST};
use crate::verdict::Judgement;
use crate::wish::Wish;
use jiff::Timestamp;
use serde_json::{Value, json};
use springtide_plumbing::done_rule::{Base, Record};
use springtide_plumbing::key::Resource;
use springtide_plumbing::plan::{Action, Patch, Write, WriteClass};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::workloads::content::{Metadata, Role};
use springtide_plumbing::workloads::names::{CONTROLLER_REVISION_HASH, RECORD_ANNOTATION, UPGRADE_TRAFFIC};
use springtide_plumbing::workloads::pod::{PodView, container_now};
use springtide_plumbing::workloads::resize;
use springtide_plumbing::workloads::trace::{Kind, Trace};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Kind of the owner of pods that are deleted by their cost.
const REPLICA_SET_KIND: &str = "ReplicaSet";

/// A write to a pod; `None` where there is nothing to write: no lever to turn, or a record that would not fit.
pub fn write(
    pod: &PodView,
    judgement: &Judgement,
    wish: &Wish,
    what: PodWrite,
    now: Timestamp,
) -> Option<Write> {
    let uid = &pod.meta().uid;
    let action = match what {
        // For one UID and any version: whoever else resizes the pod has no business to.
        PodWrite::Resize => resize::patch(pod, &judgement.differences.amounts, None),
        PodWrite::TrafficOff => {
            UPGRADE_TRAFFIC.turn_off(judgement.lever?, uid, &pod.signals, wish.hash.as_str(), now)
        }
        PodWrite::TrafficOn => UPGRADE_TRAFFIC.turn_on(judgement.lever?, uid, &pod.signals, now),
        PodWrite::Patch => patch(pod, judgement, wish, now)?,
        PodWrite::Evict => Action::Evict { uid: uid.clone(), resource_version: None, grace_seconds: None },
    };
    let class = match what {
        PodWrite::TrafficOn => WriteClass::Protective,
        PodWrite::Resize | PodWrite::TrafficOff | PodWrite::Patch | PodWrite::Evict if wish.is_rollback => {
            WriteClass::Protective
        }
        PodWrite::Resize | PodWrite::TrafficOff | PodWrite::Patch | PodWrite::Evict => WriteClass::Spec,
    };
    Some(Write { resource: Resource::POD, key: pod.meta().key.clone(), class, action })
}

/// Makes a write one for the version of the pod that was looked at.
///
/// Whoever is unavailable takes nothing from anybody, and so starts whatever limits say: if that is no longer so, it is
/// to be looked at again. A gate is opened as nobody has closed it: the same.
pub fn pinned(mut write: Write, pod: &PodView) -> Write {
    let seen = pod.meta().resource_version;
    match &mut write.action {
        Action::Patch { patch: Patch::Strategic(fields), .. } => fields.resource_version = Some(seen),
        Action::Evict { resource_version, .. } => *resource_version = Some(seen),
        Action::Patch { patch: Patch::Json { operations }, .. } => {
            if let Some(operations) = operations.as_array_mut() {
                let first = usize::from(!operations.is_empty());
                operations.insert(first, test("/metadata/resourceVersion", json!(seen.to_string())));
            }
        }
        Action::Patch { patch: Patch::Merge(_), .. }
        | Action::Create { .. }
        | Action::Delete { .. }
        | Action::Apply { .. }
        | Action::Status { .. }
        | Action::DryRun { .. } => {}
    }
    write
}

/// W2. It tests what the record says of the containers that are replaced, and no version of the pod: whoever writes its
/// status all the time does not come between.
fn patch(pod: &PodView, judgement: &Judgement, wish: &Wish, now: Timestamp) -> Option<Action> {
    let differences = &judgement.differences;
    let record = record(pod, judgement, wish, now);
    let meta = pod.meta();
    let mut operations = vec![test("/metadata/uid", json!(meta.uid))];
    if meta.generation > 0 {
        operations.push(test("/metadata/generation", json!(meta.generation)));
    }
    operations.extend(record.base.keys().filter_map(|name| same_container(pod, name)));
    let mut labels = Entries::of("labels", !meta.labels.is_empty());
    labels.set(&differences.labels);
    labels.remove(&differences.labels_removed);
    if let Some(revision) = &differences.revision {
        labels.add(CONTROLLER_REVISION_HASH, revision);
    }
    operations.extend(labels.operations());
    let mut annotations = Entries::of("annotations", !pod.annotations.is_empty() || pod.trace != Trace::None);
    annotations.set(&differences.annotations);
    annotations.remove(&differences.annotations_removed);
    annotations.add(RECORD_ANNOTATION, &record.encode()?);
    let owner = meta.controller.as_ref().map(|owner| &*owner.kind);
    let is_spared = owner == Some(REPLICA_SET_KIND)
        && differences.restarting().next().is_some()
        && !pod.annotations.contains_key(DELETION_COST)
        && !differences.annotations.contains_key(DELETION_COST);
    if is_spared {
        annotations.add_if_absent(DELETION_COST, SPARED_COST);
    }
    operations.extend(annotations.operations());
    for name in differences.images.iter().chain(&differences.init_images) {
        let wished = wish.template.content.containers.get(name)?;
        operations.push(replace_image(pod, name, &wished.image)?);
    }
    for (name, image) in &differences.flips {
        operations.push(replace_image(pod, name, image)?);
    }
    Some(Action::json_patch(Value::Array(operations)))
}

fn test(path: &str, value: Value) -> Value {
    json!({"op": "test", "path": path, "value": value})
}

/// That the container which runs is the one that was looked at. One that has not been started is known by nothing.
fn same_container(pod: &PodView, name: &str) -> Option<Value> {
    let container = pod.container(name)?;
    let status = container.status.as_ref().filter(|status| !status.container_id.is_empty())?;
    let list = match container.role {
        Role::Main => "containerStatuses",
        Role::Sidecar | Role::Init => "initContainerStatuses",
    };
    Some(test(&format!("/status/{list}/{}/containerID", status.place), json!(status.container_id)))
}

/// Containers of a pod are neither moved nor made, so that one is known by its place.
fn replace_image(pod: &PodView, name: &str, image: &str) -> Option<Value> {
    let list = pod.container(name)?.role.list();
    let mut of_list = pod.containers.iter().filter(|container| container.role.list() == list);
    let place = of_list.position(|container| &*container.name == name)?;
    Some(json!({"op": "replace", "path": format!("/spec/{list}/{place}/image"), "value": image}))
}

/// What is written to a pod's labels or annotations.
struct Entries {
    path: &'static str,
    is_there: bool,
    operations: Vec<Value>,
}

impl Entries {
    fn of(path: &'static str, is_there: bool) -> Self {
        Self { path, is_there, operations: Vec::new() }
    }

    fn path(&self, key: &str) -> String {
        format!("/metadata/{}/{}", self.path, key.replace('~', "~0").replace('/', "~1"))
    }

    fn add(&mut self, key: &str, value: &str) {
        self.operations.push(json!({"op": "add", "path": self.path(key), "value": value}));
    }

    /// The API server takes what is not there for `null`.
    fn add_if_absent(&mut self, key: &str, value: &str) {
        self.operations.push(test(&self.path(key), Value::Null));
        self.add(key, value);
    }

    fn set(&mut self, entries: &Metadata) {
        for (key, value) in entries {
            self.add(key, value);
        }
    }

    fn remove(&mut self, keys: &BTreeSet<Arc<str>>) {
        for key in keys {
            self.operations.push(json!({"op": "remove", "path": self.path(key)}));
        }
    }

    /// All of it; a list that is not there is made first, if it still is not.
    fn operations(self) -> Vec<Value> {
        if self.is_there || self.operations.is_empty() {
            return self.operations;
        }
        let path = format!("/metadata/{}", self.path);
        let made = [test(&path, Value::Null), json!({"op": "add", "path": path, "value": {}})];
        made.into_iter().chain(self.operations).collect()
    }
}

/// What the pod was before its patch, and what it bears of all patches so far.
fn record(pod: &PodView, judgement: &Judgement, wish: &Wish, now: Timestamp) -> Record {
    let differences = &judgement.differences;
    let base = differences.restarting().filter_map(|name| {
        let container = pod.container(name)?;
        let before = container_now(pod, container);
        let restarts = container.status.as_ref().map_or(0, |status| status.restarts);
        Some((name.clone(), Base::of(before.container_id, before.image_id).restarted(restarts)))
    });
    let last = pod.trace.record();
    let mut renamed = last.map(|last| last.renamed.clone()).unwrap_or_default();
    renamed.retain(|name| !differences.images.contains(name) && !differences.flips.contains_key(name));
    let is_renamed = |(name, image): &(&Arc<str>, &Arc<str>)| {
        wish.template.content.containers.get(*name).is_some_and(|wished| wished.image != **image)
    };
    renamed.extend(differences.flips.iter().filter(is_renamed).map(|(name, _)| name.clone()));
    Record {
        run: wish.hash.as_str().into(),
        at: Timestamp::from_second(now.as_second()).unwrap_or(now),
        generation: pod.meta().generation,
        base: base.collect(),
        restarted: differences.restart.or(pod.trace.restarted()),
        renamed,
        added: added(pod, differences),
    }
}

/// Keys that the pod has by us once it is patched.
fn added(pod: &PodView, differences: &Differences) -> BTreeSet<Box<str>> {
    let mut added = pod.trace.record().map(|last| last.added.clone()).unwrap_or_default();
    for (kind, set, removed) in [
        (Kind::Label, &differences.labels, &differences.labels_removed),
        (Kind::Annotation, &differences.annotations, &differences.annotations_removed),
    ] {
        for key in removed {
            added.remove(&kind.mark(key));
        }
        let is_new = |key: &&Arc<str>| match kind {
            Kind::Label => !pod.meta().labels.contains_key(*key),
            Kind::Annotation => !pod.annotations.contains_key(*key),
        };
        added.extend(set.keys().filter(is_new).map(|key| kind.mark(key)));
    }
    added
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::Change;
    use crate::fixtures::{at, pod, template};
    use crate::verdict::{Court, judge};
    use springtide_crds::in_place_upgrade::{InPlaceUpgradeSpec, Ineligible, TargetKind, TrafficMode};
    use springtide_plumbing::key::ResourceVersion;
    use springtide_plumbing::plan::{Fields, Part};
    use springtide_plumbing::workloads::template::Template;
    use springtide_plumbing::workloads::trace::Trace;

    fn written(old: &Arc<Template>, new: &Arc<Template>, pod: &PodView, what: PodWrite) -> Write {
        let wish = Wish::of(&InPlaceUpgradeSpec::new(TargetKind::Deployment, "web"), new);
        written_for(&wish, old, pod, what)
    }

    fn written_for(wish: &Wish, old: &Arc<Template>, pod: &PodView, what: PodWrite) -> Write {
        let change = Change::between(old, &wish.template);
        let revision = Arc::from("db-2");
        let court = Court {
            wish,
            change: &change,
            revision: pod.meta().labels.contains_key(CONTROLLER_REVISION_HASH).then_some(&revision),
            is_strict_on_amounts: true,
            claims: &[],
            traffic: TrafficMode::Auto,
            ineligible: Ineligible::Block,
            is_denied: false,
        };
        write(pod, &judge(pod, None, &court), wish, what, at(0)).unwrap()
    }

    fn operations(write: &Write) -> &[Value] {
        let Action::Patch { part: Part::Main, patch: Patch::Json { operations } } = &write.action else {
            panic!("{write:?}")
        };
        operations.as_array().unwrap()
    }

    /// What an operation sets or tests at a path; `None` where no such operation is.
    fn value<'a>(operations: &'a [Value], op: &str, path: &str) -> Option<&'a Value> {
        let found = operations.iter().find(|found| found["op"] == op && found["path"] == path)?;
        Some(&found["value"])
    }

    fn annotation(key: &str) -> String {
        format!("/metadata/annotations/{}", key.replace('/', "~1"))
    }

    fn record_in(operations: &[Value]) -> Record {
        let text = value(operations, "add", &annotation(RECORD_ANNOTATION)).unwrap();
        let Trace::Record(record) = Trace::read(text.as_str()) else { panic!("{text}") };
        *record
    }

    #[test]
    fn the_patch_sets_image_record_and_metadata_in_one_write_of_the_container_that_was_seen() {
        let old = template("app:1", json!({"metadata": {"annotations": {"gone": "x"}}}));
        let new = template("app:2", json!({"metadata": {"labels": {"v": "2"}}}));
        let over = json!({
            "metadata": {"annotations": {"gone": "x", "other": "y"}},
            "status": {"containerStatuses": [
                {"name": "another", "containerID": "containerd://0", "imageID": "i"},
                {"name": "app", "containerID": "containerd://1", "imageID": "reg/app@sha256:1"},
            ]},
        });
        let pod = pod("web-1", over);
        let written = written(&old, &new, &pod, PodWrite::Patch);
        let operations = operations(&written);
        let test = |path| value(operations, "test", path);
        assert_eq!(operations[0], json!({"op": "test", "path": "/metadata/uid", "value": "web-1"}));
        assert_eq!(test("/metadata/generation"), Some(&json!(1)));
        assert_eq!(test("/status/containerStatuses/1/containerID"), Some(&json!("containerd://1")));
        assert_eq!(
            test("/metadata/resourceVersion"),
            None,
            "a status that is written meanwhile is no conflict"
        );
        assert_eq!(value(operations, "replace", "/spec/containers/0/image"), Some(&json!("app:2")));
        assert_eq!(value(operations, "add", "/metadata/labels/v"), Some(&json!("2")));
        assert!(value(operations, "remove", "/metadata/annotations/gone").is_some());
        let cost = annotation(DELETION_COST);
        assert_eq!((test(&cost), value(operations, "add", &cost)), (Some(&Value::Null), Some(&json!("1"))));
        let record = record_in(operations);
        assert_eq!((record.generation, record.at), (1, at(0)));
        assert_eq!(record.base[&Arc::from("app")], Base::of("containerd://1", "reg/app@sha256:1"));
        assert_eq!(record.added, BTreeSet::from([Kind::Label.mark("v")]));
        assert_eq!(operations.len(), 9, "what others wrote is left alone: {operations:#?}");
        let pinned = pinned(written.clone(), &pod);
        let pinned = self::operations(&pinned);
        assert_eq!(value(pinned, "test", "/metadata/resourceVersion"), Some(&json!("10")));
        assert_eq!(pinned[0]["path"], "/metadata/uid");
    }

    #[test]
    fn lists_that_are_not_there_are_made_if_nobody_else_has_made_them() {
        let (old, new) = (template("app:1", json!({})), template("app:2", json!({})));
        let written = written(&old, &new, &pod("web-1", json!({})), PodWrite::Patch);
        let operations = operations(&written);
        let path = "/metadata/annotations";
        assert_eq!(value(operations, "test", path), Some(&Value::Null));
        assert_eq!(value(operations, "add", path), Some(&json!({})));
        let place = |wanted: &str| operations.iter().position(|found| found["path"] == wanted);
        assert!(place(path) < place(&annotation(RECORD_ANNOTATION)));
    }

    #[test]
    fn a_cost_that_somebody_has_set_stays_and_other_workloads_know_none() {
        let (old, new) = (template("app:1", json!({})), template("app:2", json!({})));
        let own = pod("web-1", json!({"metadata": {"annotations": {DELETION_COST: "-5"}}}));
        let of_own = written(&old, &new, &own, PodWrite::Patch);
        assert_eq!(value(operations(&of_own), "add", &annotation(DELETION_COST)), None);
        let owner = json!([{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "db", "controller": true}]);
        let labels = json!({CONTROLLER_REVISION_HASH: "db-1"});
        let of_set = pod("db-0", json!({"metadata": {"ownerReferences": owner, "labels": labels}}));
        let of_set = written(&old, &new, &of_set, PodWrite::Patch);
        assert_eq!(value(operations(&of_set), "add", &annotation(DELETION_COST)), None);
        let label = format!("/metadata/labels/{CONTROLLER_REVISION_HASH}");
        assert_eq!(value(operations(&of_set), "add", &label), Some(&json!("db-2")));
    }

    #[test]
    fn a_restart_is_one_patch_that_bears_what_earlier_ones_have_done() {
        let template = template("app:1", json!({}));
        let mut wish = Wish::of(&InPlaceUpgradeSpec::new(TargetKind::Deployment, "web"), &template);
        wish.restart = serde_json::from_value(json!({"beforeTime": at(1).to_string()})).unwrap();
        let digest = format!("sha256:{}", "0".repeat(64));
        let record = json!({
            "run": "7c9f21ab04de", "at": at(-60).to_string(), "g": 1, "base": {}, "renamed": ["other"], "added": ["x"],
        });
        let over = json!({
            "metadata": {"annotations": {RECORD_ANNOTATION: record.to_string()}},
            "status": {"containerStatuses": [{
                "name": "app", "containerID": "containerd://1", "imageID": format!("docker.io/library/app@{digest}"),
            }]},
        });
        let written = written_for(&wish, &template, &pod("web-1", over), PodWrite::Patch);
        let operations = operations(&written);
        let pinned = format!("app:1@{digest}");
        assert_eq!(value(operations, "replace", "/spec/containers/0/image"), Some(&json!(pinned)));
        let record = record_in(operations);
        assert_eq!((record.restarted, record.base.len()), (Some(at(1)), 1));
        assert_eq!(record.renamed, BTreeSet::from(["app", "other"].map(Arc::<str>::from)));
        assert_eq!(record.added, BTreeSet::from([Box::<str>::from("x")]));
    }

    #[test]
    fn who_is_made_anew_is_evicted_and_of_nobody_else() {
        let new = template("app:2", json!({}));
        let pod = pod("web-1", json!({}));
        let evicted = written(&new, &new, &pod, PodWrite::Evict);
        assert_eq!((evicted.action.uid(), evicted.action.subresource()), (Some("web-1"), "eviction"));
        assert_eq!(pinned(evicted, &pod).action.resource_version(), Some(ResourceVersion(10)));
    }

    #[test]
    fn a_resize_names_the_containers_that_differ_and_where_they_are() {
        let containers = |cpu: &str| {
            let resources = json!({"requests": {"cpu": cpu, "memory": "1Gi"}});
            json!({"spec": {
                "containers": [{"name": "app", "image": "app:1", "resources": resources}, {"name": "b", "image": "b:1"}],
                "initContainers": [
                    {"name": "proxy", "image": "p:1", "restartPolicy": "Always", "resources": {"limits": {"cpu": cpu}}},
                ],
            }})
        };
        let (old, new) = (template("app:1", containers("1")), template("app:1", containers("1500m")));
        let mut own = containers("1");
        own["status"] = json!({"containerStatuses": []});
        let written = written(&old, &new, &pod("web-1", own), PodWrite::Resize);
        let Action::Patch { part, patch: Patch::Strategic(Fields { resource_version, fields, .. }) } =
            written.action
        else {
            panic!("no resize")
        };
        assert_eq!((part, resource_version), (Part::Resize, None));
        assert_eq!(
            fields["spec"],
            json!({
                "containers": [{"name": "app", "resources": {"requests": {"cpu": "1500m", "memory": "1024Mi"}}}],
                "initContainers": [{"name": "proxy", "resources": {"limits": {"cpu": "1500m"}}}],
            })
        );
    }
}
