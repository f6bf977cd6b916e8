//! The part of a kubelet that answers resizes: which size each pod of its node has by an [`Allocator`], and what its
//! status says of that. Pods are read and told of as the API server has them.
//!
//! A size that is allocated is put in force by [`Kubelet::put_in_force`], so that whoever plays the node says how long that
//! takes. A new pod has its size at once. Containers that end before others start count for nothing.

use super::{Allocator, Answer, Holding, Pending, Rank};
use crate::sizes::Demand;
use jiff::Timestamp;
use serde_json::{Value, json};
use springtide_crds::common::whole_seconds;
use springtide_plumbing::workloads::amounts::Amounts;
use springtide_plumbing::workloads::content::QosClass;
use std::collections::BTreeMap;

/// What the kubelet says of a resize that it has put off.
const NO_ROOM: &str = "Node didn't have enough resource: cpu";
/// What it says of one that it never can carry out.
const TOO_LARGE: &str = "Node didn't have enough capacity: cpu";
/// Conditions that are the kubelet's alone.
const PENDING: &str = "PodResizePending";
const IN_PROGRESS: &str = "PodResizeInProgress";

/// `resources` of a pod's containers, by name.
type Resources = BTreeMap<String, Value>;

/// The kubelet of one node.
#[derive(Clone, Debug)]
pub struct Kubelet {
    node: Allocator,
    pods: BTreeMap<String, Sizes>,
}

/// What one pod has.
#[derive(Clone, Debug)]
struct Sizes {
    asked: Resources,
    allocated: Resources,
    in_force: Resources,
    /// When it was allocated what it has now.
    since: Timestamp,
}

impl Kubelet {
    /// The kubelet of a node that has so much for pods, and none yet.
    pub fn new(allocatable: Demand) -> Self {
        Self { node: Allocator::new(allocatable), pods: BTreeMap::new() }
    }

    /// Takes in a pod of its node as it is now. `false` for a new one for which there is no room: it is turned away, and
    /// nothing more is known of it.
    pub fn look(&mut self, pod: &Value, now: Timestamp) -> bool {
        let Some(uid) = pod["metadata"]["uid"].as_str() else { return false };
        let asked = resources(pod);
        let answer = self.node.offer(uid, requested(&asked), rank(pod), now);
        let is_allocated = match answer {
            Answer::Allocated => true,
            Answer::Deferred | Answer::Infeasible => false,
        };
        match self.pods.get_mut(uid) {
            Some(known) => {
                known.asked = asked;
                if is_allocated {
                    known.allocate(now);
                }
            }
            None if is_allocated => {
                let (allocated, in_force) = (asked.clone(), asked.clone());
                self.pods.insert(uid.to_owned(), Sizes { asked, allocated, in_force, since: now });
            }
            None => return false,
        }
        self.look_again(now);
        true
    }

    /// Looks again at those that wait, if something has happened or it is time; says who got what it waits for.
    pub fn look_again(&mut self, now: Timestamp) -> Vec<String> {
        let granted = self.node.retry(now);
        for uid in &granted {
            if let Some(known) = self.pods.get_mut(uid) {
                known.allocate(now);
            }
        }
        granted
    }

    /// Puts in force what was allocated to a pod; whether that changed anything.
    pub fn put_in_force(&mut self, uid: &str) -> bool {
        let Some(known) = self.pods.get_mut(uid) else { return false };
        let is_change = known.in_force != known.allocated;
        known.in_force.clone_from(&known.allocated);
        self.node.actuate(uid) || is_change
    }

    /// Pods to which something was allocated that is not in force.
    pub fn under_way(&self) -> Vec<String> {
        let under_way = self.pods.iter().filter(|(_, known)| known.in_force != known.allocated);
        under_way.map(|(uid, _)| uid.clone()).collect()
    }

    /// A pod has ended, or is gone.
    pub fn remove(&mut self, uid: &str) {
        self.node.remove(uid);
        self.pods.remove(uid);
    }

    /// UIDs of all its pods.
    pub fn pods(&self) -> impl Iterator<Item = &str> {
        self.pods.keys().map(String::as_str)
    }

    /// Misses what has happened since its last look; see [`Allocator::miss_news`].
    pub fn miss_news(&mut self) {
        self.node.miss_news();
    }

    /// What its pods have of the node.
    pub fn node(&self) -> &Allocator {
        &self.node
    }

    /// The status of a pod, which was looked at, with all that a kubelet says of its size. It is of the generation of `pod`.
    /// As given where the pod is not known.
    pub fn status(&self, pod: &Value) -> Value {
        let mut status = pod["status"].clone();
        let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
        let (Some(known), Some(holding)) = (self.pods.get(uid), self.node.pod(uid)) else { return status };
        let generation = &pod["metadata"]["generation"];
        let is_ours = |condition: &Value| [PENDING, IN_PROGRESS].iter().any(|own| condition["type"] == **own);
        let others = status["conditions"].as_array().into_iter().flatten().filter(|found| !is_ours(found));
        let conditions: Vec<Value> = others.cloned().chain(known.conditions(holding, generation)).collect();
        if !status.is_object() {
            status = json!({});
        }
        status["conditions"] = Value::Array(conditions);
        status["observedGeneration"] = generation.clone();
        for list in ["containerStatuses", "initContainerStatuses"] {
            let Some(containers) = status.get_mut(list).and_then(Value::as_array_mut) else { continue };
            for container in containers {
                known.tell(container);
            }
        }
        status
    }
}

impl Sizes {
    fn allocate(&mut self, now: Timestamp) {
        if self.allocated != self.asked {
            self.allocated.clone_from(&self.asked);
            self.since = now;
        }
    }

    fn conditions(&self, holding: &Holding, generation: &Value) -> Vec<Value> {
        let condition = |type_: &str, reason: &str, message: &str, since: Timestamp| {
            let since = whole_seconds(since).0.to_string();
            let mut condition = json!({
                "type": type_, "status": "True", "lastTransitionTime": since, "observedGeneration": generation,
            });
            if !reason.is_empty() {
                condition["reason"] = json!(reason);
                condition["message"] = json!(message);
            }
            condition
        };
        let pending = match holding.pending {
            Some(Pending::Deferred { since }) => Some(condition(PENDING, "Deferred", NO_ROOM, since)),
            Some(Pending::Infeasible) => Some(condition(PENDING, "Infeasible", TOO_LARGE, self.since)),
            None => None,
        };
        let is_under_way = self.in_force != self.allocated;
        let in_progress = is_under_way.then(|| condition(IN_PROGRESS, "", "", self.since));
        pending.into_iter().chain(in_progress).collect()
    }

    /// Says in the status of one container what it has.
    fn tell(&self, container: &mut Value) {
        let name = container["name"].as_str().unwrap_or_default().to_owned();
        if let Some(in_force) = self.in_force.get(&name) {
            container["resources"] = in_force.clone();
        }
        let Some(allocated) = self.allocated.get(&name) else { return };
        let requests = &allocated["requests"];
        if requests.as_object().is_some_and(|requests| !requests.is_empty()) {
            container["allocatedResources"] = requests.clone();
        } else if let Some(fields) = container.as_object_mut() {
            // The API server stores no empty list.
            fields.remove("allocatedResources");
        }
    }
}

/// What containers ask for that run as long as their pod.
fn resources(pod: &Value) -> Resources {
    let all = |list: &str| pod["spec"][list].as_array().into_iter().flatten();
    let sidecars = all("initContainers").filter(|container| container["restartPolicy"] == "Always");
    let named = |container: &Value| {
        let resources = container.get("resources").cloned().unwrap_or_else(|| json!({}));
        Some((container["name"].as_str()?.to_owned(), resources))
    };
    all("containers").chain(sidecars).filter_map(named).collect()
}

fn requested(resources: &Resources) -> Demand {
    resources.values().map(|own| Demand::from(Amounts::read(own).requests)).sum()
}

fn rank(pod: &Value) -> Rank {
    let qos = match pod["status"]["qosClass"].as_str() {
        Some("Guaranteed") => QosClass::Guaranteed,
        Some("BestEffort") => QosClass::BestEffort,
        Some(_) | None => QosClass::Burstable,
    };
    let priority = pod["spec"]["priority"].as_i64().and_then(|priority| i32::try_from(priority).ok());
    Rank { priority: priority.unwrap_or_default(), qos }
}

#[cfg(test)]
mod tests;
