//! Every size of every pod that was seen: what its spec asks for, what its kubelet has allocated, and what is in force.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;
use springtide_plumbing::quantity::parse_amount;
use springtide_time_share_group::sizes::Demand;

use crate::oracle::feed::{Feed, Fold};
use crate::upgrade::pods::{Change, Identity, is_true};

/// A watch on pods, of a namespace or of all.
pub type SizeFeed = Feed<Sizes>;

/// Requests of a pod, all its containers together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodSize {
    /// What its spec asks for.
    pub asked: Demand,
    /// What its kubelet has allocated.
    pub allocated: Demand,
    /// What its kubelet reports as being in force.
    pub in_force: Demand,
}

impl PodSize {
    /// Of a pod as it is.
    #[must_use]
    pub fn of(pod: &Pod) -> Self {
        let mut sum = Self::default();
        let Some(spec) = &pod.spec else { return sum };
        let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        let statuses: BTreeMap<&str, &ContainerStatus> =
            statuses.map(|status| (status.name.as_str(), status)).collect();
        for container in &spec.containers {
            let asked = requests(container.resources.as_ref());
            // Before its containers are there, a pod holds what it has asked for.
            let status = statuses.get(container.name.as_str());
            let allocated = status.and_then(|status| status.allocated_resources.as_ref());
            let in_force = status.and_then(|status| status.resources.as_ref());
            sum.asked += asked;
            sum.allocated += allocated.map_or(asked, demand);
            sum.in_force += in_force.map_or(asked, |resources| requests(Some(resources)));
        }
        sum
    }

    /// What counts on the node, in the eyes of its kubelet.
    #[must_use]
    pub fn held(&self) -> Demand {
        self.allocated.max(self.in_force)
    }
}

fn requests(resources: Option<&ResourceRequirements>) -> Demand {
    resources.and_then(|resources| resources.requests.as_ref()).map_or(Demand::ZERO, demand)
}

/// An amount as lists of resources have it; what is not stated or not understood is nothing.
#[must_use]
pub fn demand(list: &BTreeMap<String, Quantity>) -> Demand {
    let amount =
        |name: &str| list.get(name).and_then(|amount| parse_amount(name, &amount.0)).unwrap_or_default();
    Demand { cpu: amount("cpu"), memory: amount("memory") }
}

/// A resize that is not allocated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// `Deferred` or `Infeasible`.
    pub reason: String,
    /// Since when, by the kubelet.
    pub since: Option<Timestamp>,
    /// What it says.
    pub message: String,
}

/// A pod as last seen.
#[derive(Clone, Debug)]
pub struct SizedPod {
    /// The pod.
    pub pod: Pod,
    /// Its requests.
    pub size: PodSize,
    /// The resize that its kubelet puts off or refuses.
    pub pending: Option<Pending>,
    /// Whether it is gone.
    pub gone: bool,
    /// Changes of the requests of its spec, the first one when it was first seen.
    pub asks: Vec<Ask>,
}

/// What the spec of a pod asked for from a version on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The requests.
    pub asked: Demand,
    /// The version of the pod.
    pub version: u64,
    /// When they were seen to be in force, if they were.
    pub in_force: Option<Timestamp>,
}

impl SizedPod {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> String {
        self.pod.name_any()
    }

    /// Present, and not being deleted.
    #[must_use]
    pub fn is_live(&self) -> bool {
        !self.gone && self.pod.metadata.deletion_timestamp.is_none()
    }

    /// Whether its containers are ready, whatever its gates say.
    #[must_use]
    pub fn is_up(&self) -> bool {
        is_true(&self.pod, "ContainersReady")
    }

    /// Whether what its spec asks for is in force, by all that its kubelet says of its present generation.
    #[must_use]
    pub fn is_resized(&self) -> bool {
        let observed = self.pod.status.as_ref().and_then(|status| status.observed_generation);
        self.pending.is_none()
            && !is_true(&self.pod, "PodResizeInProgress")
            && observed >= self.pod.metadata.generation
            && self.size.in_force == self.size.asked
            && self.size.allocated == self.size.asked
    }

    /// What makes it the same pod; `None` before it has started.
    #[must_use]
    pub fn identity(&self) -> Option<Identity> {
        Identity::of(&self.pod)
    }

    /// How often its containers were started anew, all together.
    #[must_use]
    pub fn restarts(&self) -> i32 {
        let statuses = self.pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        statuses.map(|status| status.restart_count).sum()
    }

    /// Whether the scheduler has found a node for it.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        self.node().is_some()
    }

    fn node(&self) -> Option<&str> {
        self.pod.spec.as_ref()?.node_name.as_deref()
    }

    /// Whether its kubelet says anything of its containers.
    fn is_admitted(&self) -> bool {
        let statuses = self.pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
        statuses.is_some_and(|statuses| !statuses.is_empty())
    }

    /// Takes room on its node: it is bound, and has not ended.
    fn takes_room(&self) -> bool {
        let phase = self.pod.status.as_ref().and_then(|status| status.phase.as_deref());
        !self.gone && self.node().is_some() && !matches!(phase, Some("Succeeded" | "Failed"))
    }
}

/// All pods seen so far, gone ones too.
#[derive(Debug, Default)]
pub struct Sizes {
    lists: usize,
    pods: BTreeMap<String, SizedPod>,
    /// The most that was allocated to all pods of a node at a time, of each resource.
    most_allocated: BTreeMap<String, Demand>,
}

impl Sizes {
    /// Pods of a workload that are there and are not being deleted, by name.
    #[must_use]
    pub fn of(&self, workload: &str) -> Vec<&SizedPod> {
        let is_of = |pod: &&SizedPod| pod.pod.labels().get("app").is_some_and(|app| app == workload);
        let mut live: Vec<_> = self.pods.values().filter(|pod| pod.is_live()).filter(is_of).collect();
        live.sort_by_key(|pod| pod.name());
        live
    }

    /// All pods that are there and are not being deleted.
    pub fn live(&self) -> impl Iterator<Item = &SizedPod> {
        self.pods.values().filter(|pod| pod.is_live())
    }

    /// All pods that are there, those that are being deleted too.
    pub fn present(&self) -> impl Iterator<Item = &SizedPod> {
        self.pods.values().filter(|pod| !pod.gone)
    }

    /// The live pod of a name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&SizedPod> {
        self.pods.values().find(|pod| pod.is_live() && pod.name() == name)
    }

    /// The pod of a UID, gone or not.
    #[must_use]
    pub fn get(&self, uid: &str) -> Option<&SizedPod> {
        self.pods.get(uid)
    }

    /// What makes each live pod of a workload the same, by its name.
    #[must_use]
    pub fn identities(&self, workload: &str) -> BTreeMap<String, Identity> {
        self.of(workload).into_iter().filter_map(|pod| Some((pod.name(), pod.identity()?))).collect()
    }

    /// What the specs of all pods of a node ask for that have not ended.
    #[must_use]
    pub fn asked(&self, node: &str) -> Demand {
        let there = self.pods.values().filter(|pod| pod.takes_room() && pod.node() == Some(node));
        there.map(|pod| pod.size.asked).sum()
    }

    /// The most that was allocated to all pods of a node at a time, of each resource.
    #[must_use]
    pub fn most_allocated(&self, node: &str) -> Demand {
        self.most_allocated.get(node).copied().unwrap_or_default()
    }

    /// Each time that the spec of a pod of a workload came to ask for less cpu, in the order of their versions.
    #[must_use]
    pub fn shrinks(&self, workload: &str) -> Vec<Change> {
        let shrinks = |pod: &&SizedPod| -> Vec<Change> {
            let pairs = pod.asks.windows(2).filter(|pair| pair[1].asked.cpu < pair[0].asked.cpu);
            let uid = pod.pod.uid().unwrap_or_default();
            pairs.map(|pair| Change { pod: pod.name(), uid: uid.clone(), version: pair[1].version }).collect()
        };
        let mut all: Vec<Change> = self.of(workload).iter().flat_map(shrinks).collect();
        all.sort_by_key(|change| change.version);
        all
    }

    /// How often the watch had to begin anew: versions in between were not seen.
    #[must_use]
    pub fn gaps(&self) -> usize {
        self.lists.saturating_sub(1)
    }

    /// # Errors
    /// The live pods of a workload are not the ones they were, a container was started anew, or the watch may have
    /// missed something.
    pub fn ensure_same(&self, workload: &str, before: &BTreeMap<String, Identity>) -> Result<()> {
        ensure!(self.gaps() == 0, "the oracle has missed events: it relisted {} times", self.gaps());
        let now = self.identities(workload);
        ensure!(now == *before, "pods of {workload} are not the same: {before:?} became {now:?}");
        for pod in self.of(workload) {
            ensure!(pod.restarts() == 0, "{} was started anew {} times", pod.name(), pod.restarts());
        }
        Ok(())
    }

    fn count(&mut self) {
        let mut sums: BTreeMap<&str, Demand> = BTreeMap::new();
        for pod in self.pods.values().filter(|pod| pod.takes_room() && pod.is_admitted()) {
            *sums.entry(pod.node().unwrap_or_default()).or_default() += pod.size.allocated;
        }
        for (node, sum) in sums {
            let most = self.most_allocated.entry(node.to_owned()).or_default();
            *most = most.max(sum);
        }
    }
}

impl Fold for Sizes {
    type Object = Pod;

    fn apply(&mut self, pod: Pod) {
        let Some(uid) = pod.uid() else { return };
        let size = PodSize::of(&pod);
        let mut asks = self.pods.remove(&uid).map(|before| before.asks).unwrap_or_default();
        if asks.last().is_none_or(|last| last.asked != size.asked) {
            let version = pod.resource_version().and_then(|version| version.parse().ok()).unwrap_or_default();
            asks.push(Ask { asked: size.asked, version, in_force: None });
        }
        let mut sized = SizedPod { size, pending: pending(&pod), gone: false, asks, pod };
        if sized.is_resized()
            && let Some(last) = sized.asks.last_mut()
        {
            last.in_force.get_or_insert_with(Timestamp::now);
        }
        self.pods.insert(uid, sized);
        self.count();
    }

    fn delete(&mut self, pod: &Pod) {
        if let Some(sized) = pod.uid().and_then(|uid| self.pods.get_mut(&uid)) {
            sized.gone = true;
        }
    }

    fn relisted(&mut self, present: &[Pod]) {
        self.lists += 1;
        for (uid, sized) in &mut self.pods {
            sized.gone |= !present.iter().any(|pod| pod.uid().as_ref() == Some(uid));
        }
    }

    fn describe(&self) -> String {
        let live = self.pods.values().filter(|pod| pod.is_live()).take(30);
        live.map(|pod| {
            let PodSize { asked, allocated, in_force } = pod.size;
            format!(
                "{}: asks for {asked:?}, has {allocated:?}, in force {in_force:?}, {:?}, up {}, {:?}\n",
                pod.name(),
                pod.pending,
                pod.is_up(),
                pod.pod.labels(),
            )
        })
        .collect()
    }
}

fn pending(pod: &Pod) -> Option<Pending> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let found =
        conditions.iter().find(|found| found.type_ == "PodResizePending" && found.status == "True")?;
    Some(Pending {
        reason: found.reason.clone().unwrap_or_default(),
        since: found.last_transition_time.as_ref().map(|time| time.0),
        message: found.message.clone().unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// A pod of two containers, of which one has these milli-cores in its spec, its allocation and its status.
    fn pod(uid: &str, version: u32, cpu: [u32; 3], conditions: &Value) -> Pod {
        let [asked, allocated, in_force] = cpu.map(|cpu| json!({"cpu": format!("{cpu}m"), "memory": "16Mi"}));
        let log = json!({"requests": {"cpu": "10m"}});
        serde_json::from_value(json!({
            "metadata": {
                "name": format!("pay-{uid}"), "uid": uid, "resourceVersion": version.to_string(), "generation": 1,
                "labels": {"app": "pay"},
            },
            "spec": {"nodeName": "node1", "containers": [
                {"name": "app", "resources": {"requests": asked}}, {"name": "log", "resources": log},
            ]},
            "status": {
                "phase": "Running", "podIP": "10.0.0.1", "observedGeneration": 1, "conditions": conditions,
                "containerStatuses": [
                    {"name": "app", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                        "allocatedResources": allocated, "resources": {"requests": in_force}},
                    {"name": "log", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                        "allocatedResources": {"cpu": "10m"}, "resources": log},
                ],
            },
        }))
        .unwrap()
    }

    fn cpu(cpu: i64) -> Demand {
        Demand { cpu, memory: 16 << 20 }
    }

    #[test]
    fn sizes_are_those_of_all_containers() {
        let size = PodSize::of(&pod("1", 1, [400, 300, 50], &json!([])));
        assert_eq!(size, PodSize { asked: cpu(410), allocated: cpu(310), in_force: cpu(60) });
        assert_eq!(size.held(), cpu(310));
    }

    #[test]
    fn a_resize_ends_when_the_kubelet_says_that_it_is_in_force() {
        let mut sizes = Sizes::default();
        sizes.relisted(&[]);
        let deferred = json!([{"type": "PodResizePending", "status": "True", "reason": "Deferred",
            "lastTransitionTime": "2026-01-01T00:00:00Z", "message": "no room"}]);
        let mut seen = |version, cpu, conditions: &Value| {
            sizes.apply(pod("1", version, cpu, conditions));
            let sized = sizes.get("1").unwrap().clone();
            (sized.is_resized(), sized.asks.len(), sized.asks.last().unwrap().in_force.is_some())
        };
        assert_eq!(seen(1, [50; 3], &json!([])), (true, 1, true));
        assert_eq!(seen(2, [400, 50, 50], &deferred), (false, 2, false));
        assert_eq!(seen(3, [400, 400, 50], &json!([])), (false, 2, false));
        assert_eq!(seen(4, [400; 3], &json!([])), (true, 2, true));
        assert_eq!(seen(5, [50, 400, 400], &json!([])), (false, 3, false));
        let shrinks = sizes.shrinks("pay");
        assert_eq!(shrinks, [Change { pod: "pay-1".into(), uid: "1".into(), version: 5 }]);
        sizes.ensure_same("pay", &sizes.identities("pay")).unwrap();
        sizes.relisted(&[]);
        sizes.ensure_same("pay", &BTreeMap::new()).unwrap_err();
        assert!(sizes.of("pay").is_empty() && sizes.named("pay-1").is_none());
    }

    #[test]
    fn the_most_of_a_node_is_kept() {
        let mut sizes = Sizes::default();
        sizes.apply(pod("1", 1, [400; 3], &json!([])));
        sizes.apply(pod("2", 2, [300; 3], &json!([])));
        sizes.apply(pod("1", 3, [50; 3], &json!([])));
        assert_eq!(sizes.most_allocated("node1").cpu, 720);
        sizes.delete(&pod("2", 2, [300; 3], &json!([])));
        sizes.apply(pod("1", 4, [500; 3], &json!([])));
        assert_eq!(sizes.most_allocated("node1").cpu, 720, "one is gone");
        assert_eq!(sizes.most_allocated("node2"), Demand::ZERO);
    }
}
