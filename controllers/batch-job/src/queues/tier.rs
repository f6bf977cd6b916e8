//! What a queue's tier makes of a pod: PriorityClass, scheduler, labels and the names of its resources.

use springtide_plumbing::resources::ResourceList;
use serde_json::{Map, Value, json};
use springtide_crds::batch_queue::TierMapping;
use std::collections::BTreeMap;

/// What resources of kubernetes.io have in their names: those may be requested below their limit, as cpu
/// and memory may, and without one. All others must be requested as they are limited
/// ([`IsNativeResource`](https://github.com/kubernetes/kubernetes/blob/v1.35.0/pkg/apis/core/v1/helper/helpers.go)).
const NATIVE: &str = "kubernetes.io/";

/// Changes a pod's spec as the mapping says. Labels are not in it: see [`add_labels`].
pub fn map_spec(spec: &mut Map<String, Value>, mapping: &TierMapping) {
    if let Some(class) = &mapping.priority_class_name {
        spec.insert("priorityClassName".to_owned(), json!(class));
        // The number behind another class would be refused beside this one.
        spec.remove("priority");
    }
    if let Some(scheduler) = &mapping.scheduler_name {
        spec.insert("schedulerName".to_owned(), json!(scheduler));
    }
    if mapping.resource_names.is_empty() {
        return;
    }
    for list in ["initContainers", "containers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            if let Some(resources) = container.get_mut("resources").and_then(Value::as_object_mut) {
                map_resources(resources, &mapping.resource_names);
            }
        }
    }
}

/// Adds the labels of the mapping; they take the place of the template's.
pub fn add_labels(labels: &mut Map<String, Value>, mapping: &TierMapping) {
    labels.extend(mapping.pod_labels.iter().map(|(name, value)| (name.clone(), json!(value))));
}

/// Renames resources in the requests and limits of one container.
fn map_resources(resources: &mut Map<String, Value>, names: &BTreeMap<String, String>) {
    for (from, to) in names {
        let mut take = |list: &str| {
            let amount = resources.get_mut(list)?.as_object_mut()?.remove(from)?;
            Some(in_units_of_the_new_name(from, amount))
        };
        let (request, limit) = (take("requests"), take("limits"));
        let (request, limit) = if to.contains(NATIVE) {
            (request, limit)
        } else {
            let both = request.or(limit);
            (both.clone(), both)
        };
        for (list, amount) in [("requests", request), ("limits", limit)] {
            let Some(amount) = amount else { continue };
            let held = resources.entry(list).or_insert_with(|| json!({}));
            if let Some(held) = held.as_object_mut() {
                held.insert(to.clone(), amount);
            }
        }
    }
}

/// Extended resources are whole numbers: those in the place of cpu count its thousandths. All other amounts
/// stay as they were written.
fn in_units_of_the_new_name(from: &str, amount: Value) -> Value {
    if from != "cpu" {
        return amount;
    }
    let list: ResourceList = serde_json::from_value(json!({"cpu": amount})).unwrap_or_default();
    json!(list.cpu.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(yaml: &str) -> TierMapping {
        serde_yaml::from_str(yaml).unwrap()
    }

    fn mapped(spec: &str, tier: &str) -> Value {
        let mut spec: Map<String, Value> = serde_yaml::from_str(spec).unwrap();
        map_spec(&mut spec, &mapping(tier));
        json!(spec)
    }

    #[test]
    fn a_tier_replaces_class_and_scheduler() {
        let pod = "{priorityClassName: own, priority: 5, schedulerName: s, containers: [{name: c}]}";
        assert_eq!(
            mapped(pod, "{name: BestEffort, priorityClassName: batch-low, schedulerName: koord-scheduler}"),
            json!({
                "priorityClassName": "batch-low", "schedulerName": "koord-scheduler", "containers": [{"name": "c"}],
            })
        );
        let untouched: Value = serde_yaml::from_str(pod).unwrap();
        assert_eq!(mapped(pod, "{name: Standard}"), untouched);
    }

    #[test]
    fn cpu_counts_in_thousandths_under_another_name() {
        let pod = "{initContainers: [{name: i, resources: {requests: {cpu: 1}}}], \
                   containers: [{name: c, resources: {requests: {cpu: 1500m, memory: 1Gi, x: 1}, limits: {cpu: 2, \
                   memory: 2Gi}}}, {name: without}]}";
        let tier = "{name: BestEffort, resourceNames: {cpu: kubernetes.io/batch-cpu, memory: kubernetes.io/batch-memory}}";
        assert_eq!(
            mapped(pod, tier),
            json!({
                "initContainers": [{"name": "i", "resources": {"requests": {"kubernetes.io/batch-cpu": "1000"}}}],
                "containers": [
                    {"name": "c", "resources": {
                        "requests": {
                            "kubernetes.io/batch-cpu": "1500", "kubernetes.io/batch-memory": "1Gi", "x": 1,
                        },
                        "limits": {"kubernetes.io/batch-cpu": "2000", "kubernetes.io/batch-memory": "2Gi"},
                    }},
                    {"name": "without"},
                ],
            })
        );
    }

    #[test]
    fn what_cannot_be_overcommitted_is_limited_to_what_it_requests() {
        let tier = "{name: BestEffort, resourceNames: {cpu: example.com/idle-cpu}}";
        let both = json!({"example.com/idle-cpu": "500"});
        for resources in
            ["{requests: {cpu: 500m}, limits: {cpu: 2}}", "{requests: {cpu: 0.5}}", "{limits: {cpu: 500m}}"]
        {
            let pod = format!("{{containers: [{{name: c, resources: {resources}}}]}}");
            let resources = &mapped(&pod, tier)["containers"][0]["resources"];
            assert_eq!((&resources["requests"], &resources["limits"]), (&both, &both));
        }
    }

    #[test]
    fn labels_of_the_tier_win() {
        let mut labels = json!({"a": "template", "b": "template"}).as_object().unwrap().clone();
        add_labels(&mut labels, &mapping("{name: BestEffort, podLabels: {a: tier, c: tier}}"));
        assert_eq!(json!(labels), json!({"a": "tier", "b": "template", "c": "tier"}));
    }
}
