//! What a rollback goes back to: recorded before the first pod is changed, and found again by what was recorded.

use crate::target::Target;
use serde_json::{Map, Value, json};
use springtide_crds::in_place_upgrade::{CONTENT_MAX_BYTES, Previous};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::workloads::content::{Metadata, Role};
use springtide_plumbing::workloads::kinds::{ReplicaSetView, StatefulSetStrategy};
use springtide_plumbing::workloads::names::turns_traffic;
use springtide_plumbing::workloads::pod::PodView;
use springtide_plumbing::workloads::template::Template;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Why what a rollback would go back to cannot be recorded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotRecorded {
    /// There is no one revision that all pods are of.
    #[error(
        "the pods are not all of one revision, which a rollback would go back to: let the rollout end first"
    )]
    NoRevision,
    /// The old values do not fit into a status.
    #[error(
        "the old values of what the wish changes take {bytes} bytes of status.previous.content, of {max} at most: change \
         fewer containers, labels and annotations in one wish",
        max = CONTENT_MAX_BYTES
    )]
    TooLong {
        /// Bytes of their JSON form as a text.
        bytes: usize,
    },
}

/// What is recorded when a run opens.
///
/// `old` is what pods are made from, as far as they all are.
///
/// # Errors
/// Why it cannot be recorded.
pub fn record(
    target: &Target,
    pods: &[Arc<PodView>],
    old: Option<&Template>,
    wish: &Template,
) -> Result<Previous, NotRecorded> {
    let mut previous = Previous::default();
    match target {
        // It has no pods that could go back to anything.
        Target::Deployment { .. } if target.has_lost_its_replica_sets() => {}
        Target::Deployment { .. } => {
            let active = target.one_active().ok_or(NotRecorded::NoRevision)?;
            previous.revision = active.meta().key.name.to_string();
        }
        Target::StatefulSet { set, .. } => {
            previous.revision = if set.current_revision.is_empty() {
                most_named(target, pods).unwrap_or_default()
            } else {
                set.current_revision.to_string()
            };
            previous.partition = match set.strategy {
                StatefulSetStrategy::RollingUpdate { partition } => Some(partition),
                StatefulSetStrategy::OnDelete | StatefulSetStrategy::Other => None,
            };
        }
        Target::DaemonSet { .. } => previous.revision = most_named(target, pods).unwrap_or_default(),
        Target::ReplicaSet(_) => {
            let content = old_values(old.ok_or(NotRecorded::NoRevision)?, wish).to_string();
            // It is a text inside of a JSON text: quotes take two bytes.
            let bytes = Value::String(content.clone()).to_string().len();
            if bytes > CONTENT_MAX_BYTES {
                return Err(NotRecorded::TooLong { bytes });
            }
            previous.content = content;
        }
    }
    Ok(previous)
}

/// The template that a rollback goes back to; `None` where what was recorded is gone.
pub fn goal(target: &Target, previous: &Previous) -> Option<Arc<Template>> {
    match target {
        Target::ReplicaSet(set) => Some(laid_over(set, &previous.content)),
        Target::Deployment { .. } | Target::StatefulSet { .. } | Target::DaemonSet { .. } => {
            target.revision(&previous.revision).cloned()
        }
    }
}

/// The label of pods of the recorded revision, of the kinds whose pods bear one.
pub fn revision_label(target: &Target, previous: &Previous) -> Option<Arc<str>> {
    match target {
        Target::Deployment { .. } | Target::ReplicaSet(_) => None,
        Target::StatefulSet { revisions, .. } | Target::DaemonSet { revisions, .. } => {
            let found = revisions.iter().find(|revision| *revision.meta().key.name == *previous.revision);
            found.map(|revision| revision.pod_label().clone())
        }
    }
}

/// What the pods of a bare ReplicaSet are made from, as most ready ones are: the ReplicaSet itself knows its template
/// alone, which may be the wish.
pub fn content_of_pods(set: &ReplicaSetView, pods: &[Arc<PodView>]) -> Arc<Template> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| pod.is_live() && pod.is_ready()) {
        *counts.entry(pod_values(set, pod).to_string()).or_default() += 1;
    }
    // Of as many, the first in order: the same for whoever looks.
    let most = counts.into_iter().rev().max_by_key(|(_, count)| *count);
    most.map_or_else(|| Arc::clone(&set.template), |(values, _)| laid_over(set, &values))
}

/// Name of the revision that most pods name.
fn most_named(target: &Target, pods: &[Arc<PodView>]) -> Option<String> {
    let (Target::StatefulSet { revisions, .. } | Target::DaemonSet { revisions, .. }) = target else {
        return None;
    };
    let named = |pod: &PodView| {
        let label = pod.meta().labels.get(springtide_plumbing::workloads::names::CONTROLLER_REVISION_HASH)?;
        revisions.iter().position(|revision| revision.pod_label() == label)
    };
    let mut counts = vec![0_usize; revisions.len()];
    for place in pods.iter().filter_map(|pod| named(pod)) {
        counts[place] += 1;
    }
    let (place, _) = counts.iter().enumerate().max_by_key(|(_, count)| **count)?;
    Some(revisions.get(place)?.meta().key.name.to_string())
}

/// The values that a pod has of what can be changed in place, in the form of a template.
fn pod_values(set: &ReplicaSetView, pod: &PodView) -> Value {
    let values = set.template.content.containers.keys().filter_map(|name| {
        let container = pod.container(name)?;
        Some((
            container.role,
            json!({
                "name": name, "image": container.image, "resources": container.amounts.to_json(),
            }),
        ))
    });
    let labels = own_entries(&set.template.content.labels, |key, value| {
        let own = pod.meta().labels.get(key);
        // What turns traffic is as it is for now.
        (own.map(AsRef::as_ref) != Some(value) && !turns_traffic(key)).then(|| json!(own))
    });
    let annotations = own_entries(&set.template.content.annotations, |key, value| {
        match pod.annotations.get(key) {
            None => Some(Value::Null),
            Some(own) if own.is(value) => None,
            // Of a long one nobody knows what it says.
            Some(own) => own.text().map(|own| json!(own)),
        }
    });
    with_metadata(in_lists(values), labels, annotations)
}

/// What a pod has otherwise of the labels or annotations of its template; `null` where it has none.
fn own_entries(template: &Metadata, other: impl Fn(&Arc<str>, &str) -> Option<Value>) -> Map<String, Value> {
    template.iter().filter_map(|(key, value)| Some((key.to_string(), other(key, value)?))).collect()
}

/// The values of `old` that `wish` changes, in the form of a template; `null` for labels and annotations that only the
/// wish has.
fn old_values(old: &Template, wish: &Template) -> Value {
    let (from, to) = (&old.content, &wish.content);
    let values = from.containers.iter().filter_map(|(name, own)| {
        let other = to.containers.get(name)?;
        let mut fields = Map::from_iter([("name".to_owned(), json!(name))]);
        if own.image != other.image {
            fields.insert("image".to_owned(), json!(own.image));
        }
        if own.amounts != other.amounts {
            fields.insert("resources".to_owned(), own.amounts.to_json());
        }
        (fields.len() > 1).then_some((own.role, Value::Object(fields)))
    });
    let changed = |own: &Metadata, other: &Metadata| {
        let old = own.iter().filter(|(key, value)| other.get(*key) != Some(*value));
        let old = old.map(|(key, value)| (key.to_string(), json!(value)));
        let new = other.keys().filter(|key| !own.contains_key(*key));
        old.chain(new.map(|key| (key.to_string(), Value::Null))).collect::<Map<_, _>>()
    };
    let labels = changed(&from.labels, &to.labels);
    let annotations = changed(&from.annotations, &to.annotations);
    with_metadata(in_lists(values), labels, annotations)
}

fn with_metadata(mut template: Value, labels: Map<String, Value>, annotations: Map<String, Value>) -> Value {
    for (name, entries) in [("labels", labels), ("annotations", annotations)] {
        if !entries.is_empty() {
            template["metadata"][name] = Value::Object(entries);
        }
    }
    template
}

fn in_lists(containers: impl Iterator<Item = (Role, Value)>) -> Value {
    let mut spec = Map::new();
    for (role, container) in containers {
        let list = match role {
            Role::Main => "containers",
            Role::Sidecar | Role::Init => "initContainers",
        };
        if let Some(list) = spec.entry(list).or_insert_with(|| json!([])).as_array_mut() {
            list.push(container);
        }
    }
    json!({"spec": spec})
}

/// The ReplicaSet's template with recorded values; what is damaged changes nothing.
fn laid_over(set: &ReplicaSetView, values: &str) -> Arc<Template> {
    let values: Value = serde_json::from_str(values).unwrap_or_default();
    let mut template = set.template.value();
    for list in ["containers", "initContainers"] {
        let recorded = values["spec"][list].as_array().into_iter().flatten();
        for recorded in recorded {
            let path = format!("/spec/{list}");
            let own = template.pointer_mut(&path).and_then(Value::as_array_mut).into_iter().flatten();
            for container in own.filter(|container| container["name"] == recorded["name"]) {
                let Some(fields) = container.as_object_mut() else { continue };
                if let Some(image) = recorded.get("image") {
                    fields.insert("image".to_owned(), image.clone());
                }
                for (kind, amounts) in recorded["resources"].as_object().into_iter().flatten() {
                    let own = fields.entry("resources").or_insert_with(|| json!({})).as_object_mut();
                    let own = own.map(|own| own.entry(kind.clone()).or_insert_with(|| json!({})));
                    let Some(own) = own.and_then(Value::as_object_mut) else { continue };
                    for (name, amount) in amounts.as_object().into_iter().flatten() {
                        own.insert(name.clone(), amount.clone());
                    }
                }
            }
        }
    }
    for kind in ["labels", "annotations"] {
        for (key, value) in values["metadata"][kind].as_object().into_iter().flatten() {
            let metadata =
                template.as_object_mut().map(|fields| fields.entry("metadata").or_insert_with(|| json!({})));
            let entries = metadata.and_then(Value::as_object_mut);
            let entries = entries.map(|fields| fields.entry(kind).or_insert_with(|| json!({})));
            let Some(entries) = entries.and_then(Value::as_object_mut) else { continue };
            if value.is_null() {
                entries.remove(key);
            } else {
                entries.insert(key.clone(), value.clone());
            }
        }
    }
    Template::shared(&template)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{deployment, pod, replica_set, revision, stateful_set, template};

    #[test]
    fn a_revision_is_recorded_by_name_and_found_again() {
        let sets = vec![replica_set("rs", 4, 3, "app:1")];
        let target = Target::deployment(deployment(3, "app:2", json!({})), sets);
        let wish = template("app:2", json!({}));
        let previous = record(&target, &[], None, &wish).unwrap();
        assert_eq!((&*previous.revision, &*previous.content), ("rs", ""));
        assert_eq!(&*goal(&target, &previous).unwrap().content.containers["app"].image, "app:1");
        let set = stateful_set(3, "app:2", json!({}), json!({"currentRevision": "db-1"}));
        let target =
            Target::stateful_set(set, vec![revision("db-1", 1, "app:1"), revision("db-2", 2, "app:2")]);
        let previous = record(&target, &[], None, &wish).unwrap();
        assert_eq!((&*previous.revision, previous.partition), ("db-1", Some(100_000)));
        assert_eq!(revision_label(&target, &previous).as_deref(), Some("db-1"));
        let gone = Previous { revision: "db-0".to_owned(), ..previous };
        assert!(goal(&target, &gone).is_none());
    }

    #[test]
    fn a_bare_replica_set_records_the_values_that_its_pods_have() {
        let set = replica_set("rs", 0, 3, "app:2");
        let pods: Vec<_> = ["a", "b"].map(|name| pod(name, json!({}))).into_iter().collect();
        let old = content_of_pods(&set, &pods);
        assert_eq!(&*old.content.containers["app"].image, "app:1");
        let target = Target::ReplicaSet(Arc::clone(&set));
        let previous = record(&target, &pods, Some(&old), &set.template).unwrap();
        assert_eq!(previous.content, r#"{"spec":{"containers":[{"image":"app:1","name":"app"}]}}"#);
        let back = goal(&target, &previous).unwrap();
        assert_eq!((&*back.content.containers["app"].image, back.rest), ("app:1", set.template.rest));
        let damaged = Previous { content: "{".to_owned(), ..Previous::default() };
        assert_eq!(goal(&target, &damaged).unwrap().whole, set.template.whole);
    }

    #[test]
    fn labels_and_annotations_that_a_wish_adds_or_takes_away_are_recorded_and_found_again() {
        let set = |metadata: Value| {
            let mut set = ReplicaSetView::clone(&replica_set("rs", 0, 3, "app:1"));
            set.template = template("app:1", json!({"metadata": metadata}));
            Arc::new(set)
        };
        let old = set(json!({"labels": {"v": "1"}, "annotations": {"gone": "x", "kept": "y"}}));
        let new = set(json!({"labels": {"v": "2", "new": "z"}, "annotations": {"kept": "y"}}));
        let target = Target::ReplicaSet(Arc::clone(&new));
        let previous = record(&target, &[], Some(&old.template), &new.template).unwrap();
        let values: Value = serde_json::from_str(&previous.content).unwrap();
        let expected = json!({"labels": {"v": "1", "new": null}, "annotations": {"gone": "x"}});
        assert_eq!(values["metadata"], expected);
        assert_eq!(goal(&target, &previous).unwrap().content, old.template.content);
    }

    #[test]
    fn pods_of_a_bare_replica_set_have_labels_and_annotations_of_their_own() {
        let mut set = ReplicaSetView::clone(&replica_set("rs", 0, 1, "app:1"));
        let metadata = json!({
            "labels": {"v": "2", "new": "z", "springtide.dev/upgrade-serving": "true"},
            "annotations": {"config": "v2", "long": "x".repeat(2000)},
        });
        set.template = template("app:1", json!({"metadata": metadata}));
        let own = json!({
            "labels": {"v": "1", "springtide.dev/upgrade-serving": "false"}, "annotations": {"long": "y".repeat(2000)},
        });
        let content = content_of_pods(&set, &[pod("a", json!({"metadata": own}))]).content.clone();
        let labels: Vec<_> = content.labels.iter().map(|(key, value)| (&**key, &**value)).collect();
        assert_eq!(labels, [("app", "web"), ("springtide.dev/upgrade-serving", "true"), ("v", "1")]);
        assert_eq!(content.annotations.keys().map(AsRef::as_ref).collect::<Vec<&str>>(), ["long"]);
        assert_eq!(content_of_pods(&set, &[]).whole, set.template.whole);
    }

    #[test]
    fn of_pods_that_differ_the_content_of_most_ready_ones_counts() {
        let set = replica_set("rs", 0, 3, "app:3");
        let with = |name: &str, image: &str| {
            pod(name, json!({"spec": {"containers": [{"name": "app", "image": image}]}}))
        };
        let pods = [with("a", "app:1"), with("b", "app:2"), with("c", "app:2")];
        assert_eq!(&*content_of_pods(&set, &pods).content.containers["app"].image, "app:2");
        assert_eq!(content_of_pods(&set, &[]).whole, set.template.whole);
    }

    #[test]
    fn what_does_not_fit_a_status_is_not_recorded() {
        let many = |image: &str| {
            let containers: Vec<_> = (0..20)
                .map(|number| json!({"name": format!("c{number}"), "image": format!("{image}/{}", "x".repeat(200))}))
                .collect();
            template("app:1", json!({"spec": {"containers": containers}}))
        };
        let target = Target::ReplicaSet(replica_set("rs", 0, 3, "app:2"));
        let found = record(&target, &[], Some(&many("a")), &many("b"));
        let Err(error @ NotRecorded::TooLong { bytes }) = found else { panic!("{found:?}") };
        assert!(bytes > CONTENT_MAX_BYTES);
        let message = error.to_string();
        assert!(message.contains("status.previous.content") && message.contains("fewer"), "{message}");
    }

    #[test]
    fn pods_of_two_revisions_have_nothing_to_go_back_to() {
        let sets = vec![replica_set("a", 1, 1, "app:1"), replica_set("b", 2, 2, "app:2")];
        let target = Target::deployment(deployment(3, "app:2", json!({})), sets);
        let found = record(&target, &[], None, &template("app:2", json!({})));
        assert_eq!(found, Err(NotRecorded::NoRevision));
    }

    #[test]
    fn a_deployment_that_has_lost_its_replica_set_has_nothing_to_go_back_to_and_runs_all_the_same() {
        let over = json!({"metadata": {"annotations": {"deployment.kubernetes.io/revision": "4"}}});
        let target = Target::deployment(deployment(0, "app:2", over), Vec::new());
        let found = record(&target, &[], None, &template("app:2", json!({})));
        assert_eq!(found, Ok(Previous::default()));
    }
}
