//! What a rollback goes back to: recorded before the first pod is changed, and found again by what was recorded.

use crate::content::Role;
use crate::projections::pod::PodView;
use crate::projections::template::Template;
use crate::projections::workloads::{ReplicaSetView, StatefulSetStrategy};
use crate::target::Target;
use serde_json::{Map, Value, json};
use springtide_crds::in_place_upgrade::{CONTENT_MAX_BYTES, Previous};
use springtide_plumbing::projection::Projection;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is recorded when a run opens; `None` where what is there cannot be recorded: too many values for a status.
///
/// `old` is what pods are made from, as far as they all are.
pub fn record(
    target: &Target,
    pods: &[Arc<PodView>],
    old: Option<&Template>,
    wish: &Template,
) -> Option<Previous> {
    let mut previous = Previous::default();
    match target {
        Target::Deployment { .. } => {
            previous.revision = target.one_active()?.meta().key.name.to_string();
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
            let content = old_values(old?, wish).to_string();
            // It is a text inside of a JSON text: quotes take two bytes.
            let bytes = Value::String(content.clone()).to_string().len();
            if bytes > CONTENT_MAX_BYTES {
                return None;
            }
            previous.content = content;
        }
    }
    Some(previous)
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
        let label = pod.meta().labels.get(crate::names::CONTROLLER_REVISION_HASH)?;
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
    in_lists(values)
}

/// The values of `old` that `wish` changes, in the form of a template. Labels and annotations that only `old` or only
/// the wish has are left out: what comes back by a rollback is what runs.
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
    let mut template = in_lists(values);
    let changed = |own: &crate::content::Metadata, other: &crate::content::Metadata| {
        let entries = own.iter().filter(|(key, value)| other.get(*key).is_some_and(|new| new != *value));
        entries.map(|(key, value)| (key.to_string(), json!(value))).collect::<Map<_, _>>()
    };
    let labels = changed(&from.labels, &to.labels);
    let annotations = changed(&from.annotations, &to.annotations);
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
            if let Some(entries) = entries.and_then(Value::as_object_mut) {
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
        assert_eq!(record(&target, &[], Some(&many("a")), &many("b")), None);
    }
}
