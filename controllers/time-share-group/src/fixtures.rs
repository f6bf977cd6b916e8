//! Objects for tests: short forms of what the API server serves, and what is observed of them.
//!
//! The group `double11` in namespace `shop` has members `pay` and `promo`, Deployments of these names. Their container
//! `app` has 4 cores at peak and a fifth of one at valley, and 1 GiB of memory at either; traffic is by label, and nobody
//! has the peak by schedule. A pod is named after its member: `pay-1` is one of `pay`.

use crate::observed::{Evidence, Member, MemberPod, Node, Observed, Selects, Workload};
use crate::projections::group::GroupView;
use crate::sizes::{Demand, Profile, Size, is_resized};
use crate::union::spec_demand;
use jiff::Timestamp;
use serde_json::{Value, json};
use springtide_plumbing::key::{ObjectKey, Uid};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::window::calendar::CalendarMemo;
use springtide_plumbing::workloads::amounts::{Amounts, Pair};
use springtide_plumbing::workloads::pod::PodView;
use springtide_plumbing::workloads::template::Template;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Namespace of the group and of its members.
pub(crate) const NAMESPACE: &str = "shop";
/// What a pod requests at peak.
pub(crate) const PEAK: Demand = Demand { cpu: 4000, memory: GIB };
/// What a pod requests at valley.
pub(crate) const VALLEY: Demand = Demand { cpu: 200, memory: GIB };
/// What a node has that nobody has said more of: room for any group of a test, all of it at peak.
pub(crate) const ROOMY: Demand = Demand { cpu: 1_000_000, memory: 1024 * GIB };

/// Bytes of a gibibyte.
pub(crate) const GIB: i64 = 1 << 30;

/// So many seconds after an instant that tests begin at.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_795_000_000 + seconds).unwrap()
}

/// Lays one tree over another: objects are merged, and so are lists whose items have a name or a type, item by item;
/// anything else is replaced.
pub(crate) fn overlay(under: &mut Value, over: Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (name, value) in over {
                overlay(under.entry(name).or_insert(Value::Null), value);
            }
        }
        (Value::Array(under), Value::Array(over)) if are_named(&over) => {
            for item in over {
                match under.iter_mut().find(|own| identity(own) == identity(&item)) {
                    Some(own) => overlay(own, item),
                    None => under.push(item),
                }
            }
        }
        (under, over) => *under = over,
    }
}

fn are_named(items: &[Value]) -> bool {
    !items.is_empty() && items.iter().all(|item| identity(item).is_some())
}

/// By what an item of a list is told from others.
fn identity(item: &Value) -> Option<&str> {
    item["name"].as_str().or_else(|| item["type"].as_str())
}

/// The one with the other laid over it.
pub(crate) fn overlaid(mut under: Value, over: Value) -> Value {
    overlay(&mut under, over);
    under
}

/// A member of the spec.
pub(crate) fn member(name: &str) -> Value {
    json!({
        "name": name,
        "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        "containers": [{
            "name": "app",
            "peak": {"cpu": "4", "memory": "1Gi"},
            "valley": {"cpu": "200m", "memory": "1Gi"},
        }],
        "traffic": {"mode": "ServiceLabel"},
    })
}

/// The group, with changes laid over the whole object.
pub(crate) fn group(over: Value) -> Arc<GroupView> {
    let whole = json!({
        "metadata": {
            "name": "double11", "namespace": NAMESPACE, "uid": "double11", "resourceVersion": "1", "generation": 1,
            "creationTimestamp": at(-7200).to_string(),
        },
        "spec": {"members": [member("pay"), member("promo")]},
    });
    Arc::new(serde_json::from_value(overlaid(whole, over)).unwrap())
}

/// A status with a transition that is open: its first step, begun at `at(0)`.
pub(crate) fn switching(id: u32, from: Option<&str>, to: Option<&str>) -> Value {
    json!({
        "observedGeneration": 1,
        "activeMember": from,
        "desiredMember": to,
        "transition": {
            "id": id, "from": from, "to": to, "cause": "Default", "startTime": at(0).to_string(), "step": 1,
        },
    })
}

/// A pod at valley size, in force and ready for an hour, without traffic; its UID is its name.
pub(crate) fn pod(name: &str, node: &str, over: Value) -> Arc<PodView> {
    let (member, since) = (member_of(name), at(-3600).to_string());
    let valley = json!({"requests": {"cpu": "200m", "memory": "1Gi"}});
    let whole = json!({
        "metadata": {
            "name": name, "namespace": NAMESPACE, "uid": name, "resourceVersion": "10", "generation": 1,
            "creationTimestamp": since,
            "labels": {"app": member, "springtide.dev/traffic-serving": "false"},
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{member}-1"),
                "uid": format!("{member}-1"), "controller": true,
            }],
        },
        "spec": {"nodeName": node, "containers": [{"name": "app", "image": "app:1", "resources": valley}]},
        "status": {
            "phase": "Running", "qosClass": "Burstable", "observedGeneration": 1,
            "conditions": [
                {"type": "ContainersReady", "status": "True", "lastTransitionTime": since},
                {"type": "Ready", "status": "True", "lastTransitionTime": since},
            ],
            "containerStatuses": [{
                "name": "app", "containerID": "containerd://1", "imageID": "reg/app@sha256:1", "ready": true,
                "restartCount": 0, "state": {"running": {"startedAt": since}},
                "resources": valley, "allocatedResources": valley["requests"],
            }],
        },
    });
    Arc::new(serde_json::from_value(overlaid(whole, over)).unwrap())
}

/// What to lay over a pod whose spec asks for so much cpu, and whose kubelet has put so much in force and allocated it.
pub(crate) fn sized(asked: &str, in_force: &str) -> Value {
    json!({
        "spec": {"containers": [{"name": "app", "resources": {"requests": {"cpu": asked}}}]},
        "status": {"containerStatuses": [{
            "name": "app", "resources": {"requests": {"cpu": in_force}}, "allocatedResources": {"cpu": in_force},
        }]},
    })
}

/// What to lay over a pod that has its peak size in force, and traffic.
pub(crate) fn on_stage() -> Value {
    overlaid(sized("4", "4"), serving("true"))
}

/// What to lay over a pod whose label of traffic has this value.
pub(crate) fn serving(label: &str) -> Value {
    json!({"metadata": {"labels": {"springtide.dev/traffic-serving": label}}})
}

/// What to lay over a pod of which the kubelet says so much of its resize: `Deferred` or `Infeasible`.
pub(crate) fn pending(reason: &str, since: Timestamp) -> Value {
    json!({"status": {"conditions": [{
        "type": "PodResizePending", "status": "True", "reason": reason, "message": "Node didn't have enough resource: cpu",
        "lastTransitionTime": since.to_string(),
    }]}})
}

/// What is observed of the group with changes laid over its spec, and of these pods by the members' names: workloads are
/// there with as many replicas as pods, a Service selects each member's pods by the label, and each node is
/// [`ROOMY`]. What has been so all along is known for an hour, and a resize that is open since `at(0)`.
pub(crate) fn observed(spec: Value, pods: &[(&str, Vec<Arc<PodView>>)]) -> Observed {
    observed_of(group(json!({"spec": spec})), pods)
}

/// The same of a group that has a status too.
pub(crate) fn observed_of(group: Arc<GroupView>, pods: &[(&str, Vec<Arc<PodView>>)]) -> Observed {
    let names: Vec<_> = group.spec.members.iter().map(|member| member.name.as_str()).collect();
    let calendar = CalendarMemo::default().get(&group.spec.schedule, &names, at(0));
    let mut observed = Observed::of(Arc::clone(&group), calendar);
    for spec in &group.spec.members {
        let own = pods.iter().filter(|(name, _)| *name == spec.name).flat_map(|(_, pods)| pods);
        let mut own: Vec<_> =
            own.map(|pod| MemberPod { pod: Arc::clone(pod), evidence: known(pod) }).collect();
        own.sort_by_key(|found| (found.pod.meta().creation_time, Arc::clone(&found.pod.meta().key.name)));
        let target = &spec.target_ref;
        let namespace: Arc<str> = target.namespace.as_deref().unwrap_or(NAMESPACE).into();
        observed.members.push(Member {
            workload: Some(Workload {
                kind: target.kind,
                key: ObjectKey::new(Arc::clone(&namespace), target.name.as_str()),
                uid: Uid(target.name.as_str().into()),
                replicas: u32::try_from(own.len()).unwrap(),
                selector: json!({"matchLabels": {"app": target.name}}),
                template: template(&target.name),
            }),
            services: BTreeMap::from([(target.name.as_str().into(), Selects::ByLabel)]),
            pods: own,
            ..Member::of(spec.name.as_str().into(), namespace)
        });
    }
    let nodes =
        observed.members.iter().flat_map(|member| &member.pods).filter_map(|found| found.pod.node.clone());
    observed.nodes = nodes.map(|name| (name, node(ROOMY))).collect();
    observed
}

/// A node that has so much, and none of it taken by pods of others.
pub(crate) fn node(allocatable: Demand) -> Node {
    Node { allocatable, ..Node::default() }
}

/// Lets pods of others have all the room that the group's pods leave on their nodes by their specs, but for so much on
/// each.
pub(crate) fn fill(observed: &mut Observed, free: Demand) {
    let mut asked: HashMap<Arc<str>, Demand> = HashMap::new();
    for found in observed.members.iter().flat_map(|member| &member.pods) {
        if let Some(node) = &found.pod.node {
            *asked.entry(Arc::clone(node)).or_default() += spec_demand(&found.pod);
        }
    }
    for (name, node) in &mut observed.nodes {
        node.others = node.allocatable - asked.get(name).copied().unwrap_or_default() - free;
    }
}

/// The sizes of a member whose container `app` requests so much at peak and at valley.
pub(crate) fn profile(peak: Demand, valley: Demand) -> Profile {
    let size = |demand: Demand| {
        let requests = Pair { cpu: Some(demand.cpu), memory: Some(demand.memory) };
        Size::new([("app".into(), Amounts { requests, ..Amounts::default() })])
    };
    Profile { peak: size(peak), valley: size(valley) }
}

/// The sizes of members as [`member`] states them, of as many members as are observed.
pub(crate) fn profiles(observed: &Observed) -> Vec<Profile> {
    vec![profile(PEAK, VALLEY); observed.members.len()]
}

fn member_of(pod: &str) -> &str {
    pod.rsplit_once('-').map_or(pod, |(member, _)| member)
}

fn template(member: &str) -> Arc<Template> {
    Template::shared(&json!({
        "metadata": {"labels": {"app": member, "springtide.dev/traffic-serving": "false"}},
        "spec": {"containers": [{
            "name": "app", "image": "app:1", "resources": {"requests": {"cpu": "200m", "memory": "1Gi"}},
        }]},
    }))
}

/// What a process knows that has looked on for an hour.
fn known(pod: &PodView) -> Evidence {
    let is_in_force = is_resized(pod)
        && pod.containers.iter().all(|container| {
            container.status.as_ref().is_some_and(|status| status.amounts == Some(container.amounts))
        });
    Evidence {
        open_since: (!is_in_force).then(|| at(0)),
        warm_since: (is_in_force && pod.are_containers_ready()).then(|| at(-3600)),
        ..Evidence::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sizes::{Level, Scope, Standing};

    #[test]
    fn lists_of_things_with_names_are_merged_and_others_replaced() {
        let mut spec = json!({"members": [member("pay"), member("promo")], "steps": [1, 2]});
        overlay(
            &mut spec,
            json!({"members": [{"name": "promo", "memory": "Move"}, member("games")], "steps": [3]}),
        );
        let names: Vec<_> =
            spec["members"].as_array().unwrap().iter().map(|member| &member["name"]).collect();
        assert_eq!(names, ["pay", "promo", "games"]);
        assert_eq!((&spec["members"][1]["memory"], &spec["steps"]), (&json!("Move"), &json!([3])));
    }

    #[test]
    fn pods_are_of_the_sizes_that_the_group_states() {
        let made = |over: Value| pod("pay-1", "n1", over);
        let profile = profile(PEAK, VALLEY);
        let stands = |over: Value| profile.asked(&made(over), Level::Peak, Scope::Whole);
        assert_eq!(stands(json!({})), Standing::At(Level::Valley));
        assert_eq!(stands(on_stage()), Standing::At(Level::Peak));
        assert!(profile.peak.is_in_force(&made(on_stage())));
        assert!(!profile.peak.is_in_force(&made(sized("4", "200m"))));
    }

    #[test]
    fn what_is_filled_has_no_room_left() {
        let waiting = pod("pay-1", "n1", overlaid(sized("4", "200m"), pending("Deferred", at(-5))));
        let pods = [("pay", vec![waiting]), ("promo", vec![pod("promo-1", "n1", on_stage())])];
        let mut observed =
            observed_of(group(json!({"status": switching(7, Some("promo"), Some("pay"))})), &pods);
        fill(&mut observed, Demand { cpu: 100, memory: 0 });
        let Node { allocatable, others, .. } = &observed.nodes["n1"];
        assert_eq!(*allocatable - *others, PEAK.times(2) + Demand { cpu: 100, memory: 0 });
        let evidence = &observed.members[0].pods[0].evidence;
        assert_eq!((evidence.open_since, evidence.warm_since), (Some(at(0)), None));
        assert_eq!(observed.members[1].pods[0].evidence.warm_since, Some(at(-3600)));
        assert_eq!(
            (observed.group.status.transition.as_ref().unwrap().id, profiles(&observed).len()),
            (7, 2)
        );
        assert!(observed.calendar.is_ok());
        assert_eq!(observed.members[0].pods[0].time_share().label.as_deref(), Some("false"));
    }
}
