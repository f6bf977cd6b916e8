//! The writes to one pod: 3 of a pod with a gate, 1 of any other; image and resources together one more.

use crate::content::Role;
use crate::machine::{PodWrite, container_now};
use crate::names::{CONTROLLER_REVISION_HASH, DELETION_COST, RECORD_ANNOTATION, SPARED_COST, TRAFFIC};
use crate::projections::pod::PodView;
use crate::verdict::Judgement;
use crate::wish::Wish;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use springtide_plumbing::done_rule::{Base, Record};
use springtide_plumbing::key::Resource;
use springtide_plumbing::plan::{Action, Fields, Part, Patch, Write, WriteClass};
use springtide_plumbing::projection::Projection;
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
        PodWrite::Resize => resize(pod, judgement, wish)?,
        PodWrite::TrafficOff => {
            TRAFFIC.turn_off(judgement.lever?, uid, &pod.signals, wish.hash.as_str(), now)
        }
        PodWrite::TrafficOn => TRAFFIC.turn_on(judgement.lever?, uid, &pod.signals, now),
        PodWrite::Patch => patch(pod, judgement, wish, now)?,
    };
    let class = match what {
        PodWrite::TrafficOn => WriteClass::Protective,
        PodWrite::Resize | PodWrite::TrafficOff | PodWrite::Patch if wish.is_rollback => {
            WriteClass::Protective
        }
        PodWrite::Resize | PodWrite::TrafficOff | PodWrite::Patch => WriteClass::Spec,
    };
    Some(Write { resource: Resource::POD, key: pod.meta().key.clone(), class, action })
}

/// Makes a write one for the version of the pod that was looked at.
///
/// Whoever is unavailable takes nothing from anybody, and so starts whatever limits say: if that is no longer so, it is
/// to be looked at again. A gate is opened as nobody has closed it: the same.
pub fn pinned(mut write: Write, pod: &PodView) -> Write {
    if let Action::Patch { patch: Patch::Strategic(fields), .. } = &mut write.action {
        fields.resource_version = Some(pod.meta().resource_version);
    }
    write
}

/// W0. It is for one UID and any version: whoever else resizes the pod has no business to.
fn resize(pod: &PodView, judgement: &Judgement, wish: &Wish) -> Option<Action> {
    let spec = containers(pod, &judgement.differences.amounts, |name| {
        let wished = wish.template.content.containers.get(name)?;
        Some(("resources", wished.amounts.to_json()))
    })?;
    let fields =
        Fields { uid: pod.meta().uid.clone(), resource_version: None, fields: json!({"spec": spec}) };
    Some(Action::Patch { part: Part::Resize, patch: Patch::Strategic(fields) })
}

/// W2. It is for the version that was looked at: the record has to be of the containers that are replaced.
fn patch(pod: &PodView, judgement: &Judgement, wish: &Wish, now: Timestamp) -> Option<Action> {
    let differences = &judgement.differences;
    let record = record(pod, judgement, wish, now).encode()?;
    let mut labels: Map<String, Value> = entries(&differences.labels).collect();
    labels.extend(differences.labels_removed.iter().map(|key| (key.to_string(), Value::Null)));
    if let Some(revision) = &differences.revision {
        labels.insert(CONTROLLER_REVISION_HASH.to_owned(), json!(revision));
    }
    let mut annotations: Map<String, Value> = entries(&differences.annotations).collect();
    annotations.extend(differences.annotations_removed.iter().map(|key| (key.to_string(), Value::Null)));
    annotations.insert(RECORD_ANNOTATION.to_owned(), json!(record));
    let owner = pod.meta().controller.as_ref().map(|owner| &*owner.kind);
    let is_spared = owner == Some(REPLICA_SET_KIND)
        && !differences.images.is_empty()
        && !pod.annotations.contains_key(DELETION_COST)
        && !annotations.contains_key(DELETION_COST);
    if is_spared {
        annotations.insert(DELETION_COST.to_owned(), json!(SPARED_COST));
    }
    let mut metadata = Map::new();
    metadata.insert("annotations".to_owned(), Value::Object(annotations));
    if !labels.is_empty() {
        metadata.insert("labels".to_owned(), Value::Object(labels));
    }
    let mut fields = json!({"metadata": metadata});
    let images: Vec<Arc<str>> = differences.images.iter().chain(&differences.init_images).cloned().collect();
    if !images.is_empty() {
        fields["spec"] = containers(pod, &images, |name| {
            let wished = wish.template.content.containers.get(name)?;
            Some(("image", json!(wished.image)))
        })?;
    }
    let meta = pod.meta();
    let fields = Fields { uid: meta.uid.clone(), resource_version: Some(meta.resource_version), fields };
    Some(Action::Patch { part: Part::Main, patch: Patch::Strategic(fields) })
}

/// What the pod was before its patch.
fn record(pod: &PodView, judgement: &Judgement, wish: &Wish, now: Timestamp) -> Record {
    let base = judgement.differences.images.iter().filter_map(|name| {
        let container = pod.container(name)?;
        let before = container_now(pod, container);
        let restarts = container.status.as_ref().map_or(0, |status| status.restarts);
        Some((name.clone(), Base::of(before.container_id, before.image_id).restarted(restarts)))
    });
    Record {
        run: wish.hash.as_str().into(),
        at: Timestamp::from_second(now.as_second()).unwrap_or(now),
        generation: pod.meta().generation,
        base: base.collect(),
    }
}

/// Lists of containers with one field each, main and init containers apart; `None` if one of them is not known.
fn containers(
    pod: &PodView,
    names: &[Arc<str>],
    field: impl Fn(&str) -> Option<(&'static str, Value)>,
) -> Option<Value> {
    let mut spec = Map::new();
    for name in names {
        let list = match pod.container(name)?.role {
            Role::Main => "containers",
            Role::Sidecar | Role::Init => "initContainers",
        };
        let (field, value) = field(name)?;
        let list = spec.entry(list).or_insert_with(|| json!([])).as_array_mut()?;
        list.push(json!({"name": name, field: value}));
    }
    Some(Value::Object(spec))
}

fn entries(metadata: &crate::content::Metadata) -> impl Iterator<Item = (String, Value)> {
    metadata.iter().map(|(key, value)| (key.to_string(), json!(value)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::Change;
    use crate::fixtures::{at, pod, template};
    use crate::projections::template::Template;
    use crate::trace::Trace;
    use crate::verdict::{Court, judge};
    use springtide_crds::in_place_upgrade::{InPlaceUpgradeSpec, Ineligible, TargetKind, TrafficMode};
    use springtide_plumbing::key::ResourceVersion;

    fn fields(old: &Arc<Template>, new: &Arc<Template>, pod: &PodView, what: PodWrite) -> (Part, Fields) {
        let wish = Wish::of(&InPlaceUpgradeSpec::new(TargetKind::Deployment, "web"), new);
        let change = Change::between(old, new);
        let revision = Arc::from("db-2");
        let court = Court {
            wish: &wish,
            change: &change,
            revision: pod.meta().labels.contains_key(CONTROLLER_REVISION_HASH).then_some(&revision),
            is_strict_on_amounts: true,
            traffic: TrafficMode::Auto,
            ineligible: Ineligible::Block,
            is_denied: false,
        };
        let written = write(pod, &judge(pod, None, &court), &wish, what, at(0)).unwrap();
        let Action::Patch { part, patch: Patch::Strategic(fields) } = written.action else { panic!() };
        (part, fields)
    }

    #[test]
    fn the_patch_sets_image_record_and_metadata_in_one_write_for_the_version_that_was_seen() {
        let old = template("app:1", json!({"metadata": {"annotations": {"gone": "x"}}}));
        let new = template("app:2", json!({"metadata": {"labels": {"v": "2"}}}));
        let pod = pod("web-1", json!({"metadata": {"annotations": {"gone": "x", "other": "y"}}}));
        let (part, Fields { uid, resource_version, fields }) = fields(&old, &new, &pod, PodWrite::Patch);
        assert_eq!((part, &*uid.0, resource_version), (Part::Main, "web-1", Some(ResourceVersion(10))));
        assert_eq!(fields["spec"], json!({"containers": [{"name": "app", "image": "app:2"}]}));
        assert_eq!(fields["metadata"]["labels"], json!({"v": "2"}));
        let annotations = fields["metadata"]["annotations"].as_object().unwrap();
        assert_eq!((&annotations["gone"], &annotations[DELETION_COST]), (&Value::Null, &json!("1")));
        let Trace::Record(record) = Trace::read(annotations[RECORD_ANNOTATION].as_str()) else { panic!() };
        assert_eq!((record.generation, record.at), (1, at(0)));
        assert_eq!(record.base[&Arc::from("app")], Base::of("containerd://1", "reg/app@sha256:1"));
        assert_eq!(annotations.len(), 3, "what others wrote is left alone");
    }

    #[test]
    fn a_cost_that_somebody_has_set_stays_and_other_workloads_know_none() {
        let (old, new) = (template("app:1", json!({})), template("app:2", json!({})));
        let own = pod("web-1", json!({"metadata": {"annotations": {DELETION_COST: "-5"}}}));
        let (_, written) = fields(&old, &new, &own, PodWrite::Patch);
        assert!(written.fields["metadata"]["annotations"].get(DELETION_COST).is_none());
        let owner = json!([{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "db", "controller": true}]);
        let labels = json!({CONTROLLER_REVISION_HASH: "db-1"});
        let of_set = pod("db-0", json!({"metadata": {"ownerReferences": owner, "labels": labels}}));
        let (_, written) = fields(&old, &new, &of_set, PodWrite::Patch);
        assert!(written.fields["metadata"]["annotations"].get(DELETION_COST).is_none());
        assert_eq!(written.fields["metadata"]["labels"], json!({CONTROLLER_REVISION_HASH: "db-2"}));
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
        let (part, Fields { resource_version, fields, .. }) =
            fields(&old, &new, &pod("web-1", own), PodWrite::Resize);
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
