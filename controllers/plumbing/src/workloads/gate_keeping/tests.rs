//! Pods and their owners as stores have them, and gates that hold what a test says.

use super::*;
use crate::plan::{Fields, Part};
use crate::queue::Next;
use crate::store::StoreWriter;
use crate::traffic::Traffic;
use crate::workloads::fixtures::at;
use crate::workloads::names::TIME_SHARE_TRAFFIC;
use futures::FutureExt;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

/// Holds the workloads of a list; whatever of theirs is closed may be so.
struct Held {
    pods: Store<PodView>,
    replica_sets: Store<ReplicaSetView>,
    workloads: Mutex<BTreeSet<String>>,
    look_through: Mutex<Option<LookThrough>>,
}

impl Gates for Held {
    const NAME: &'static str = "test-gates";
    const RIGHTS: Rights = Rights { holder: "test", table: &[] };
    const NAMES: Names = TIME_SHARE_TRAFFIC;

    fn signals(pod: &PodView) -> &Signals {
        &pod.time_share
    }

    fn forgotten(signals: &Signals, is_held: impl FnOnce() -> bool) -> Option<Lever> {
        let is_closed = signals.has_gate && signals.traffic(Lever::ReadinessGate) != Traffic::On;
        (is_closed && !is_held()).then_some(Lever::ReadinessGate)
    }

    fn holds(&self, kind: TargetKind, workload: &ObjectKey) -> bool {
        self.workloads.lock().unwrap().contains(&format!("{}/{}", kind.as_str(), workload.name))
    }

    fn pods(&self) -> &Store<PodView> {
        &self.pods
    }

    fn replica_sets(&self) -> &Store<ReplicaSetView> {
        &self.replica_sets
    }

    fn views(&self) -> Vec<Arc<dyn StoreView>> {
        vec![Arc::new(self.pods.clone()), Arc::new(self.replica_sets.clone())]
    }

    fn listen(&self, look_through: LookThrough) {
        *self.look_through.lock().unwrap() = Some(look_through);
    }
}

/// A keeper over stores, and what fills them.
struct Bench {
    keeper: Arc<GateKeeper<Held>>,
    pods: StoreWriter<PodView>,
    replica_sets: StoreWriter<ReplicaSetView>,
    queue: WorkQueue<ObjectKey>,
}

impl Bench {
    fn new() -> Self {
        let (pods, of_pods) = Store::new(&[]);
        let (replica_sets, of_replica_sets) = Store::new(&[]);
        let held = Held { pods, replica_sets, workloads: Mutex::default(), look_through: Mutex::default() };
        Self {
            keeper: GateKeeper::new(held),
            pods: of_pods,
            replica_sets: of_replica_sets,
            queue: WorkQueue::new(1),
        }
    }

    fn hold(&self, workload: &str) {
        self.keeper.gates.workloads.lock().unwrap().insert(workload.to_owned());
    }

    /// Stores a pod that lists the gate and whose condition has this status, of an owner of this kind and name.
    fn pod(&mut self, name: &str, status: Option<&str>, owner: (&str, &str), phase: &str) {
        let conditions: Vec<Value> = status
            .map(|status| json!({"type": TIME_SHARE_TRAFFIC.gate, "status": status}))
            .into_iter()
            .collect();
        let pod = json!({
            "metadata": {
                "name": name, "namespace": "ns", "uid": name, "resourceVersion": "7",
                "ownerReferences": [{"kind": owner.0, "name": owner.1, "uid": owner.1, "controller": true}],
            },
            "spec": {"readinessGates": [{"conditionType": TIME_SHARE_TRAFFIC.gate}]},
            "status": {"phase": phase, "conditions": conditions},
        });
        self.pods.apply(serde_json::from_value(pod).unwrap());
    }

    fn replica_set(&mut self, name: &str, owner: Value) {
        let set = json!({
            "metadata": {"name": name, "namespace": "ns", "uid": name, "resourceVersion": "8", "ownerReferences": owner},
            "spec": {"template": {}},
        });
        self.replica_sets.apply(serde_json::from_value(set).unwrap());
    }

    fn plan(&self, pod: &str) -> Plan {
        let observed = self.keeper.observe(&ObjectKey::new("ns", pod), None, at(0)).unwrap();
        self.keeper.plan(&observed, at(0))
    }

    fn woken(&self) -> Vec<String> {
        let mut woken = Vec::new();
        while let Some(item) = self.queue.next().now_or_never().flatten() {
            self.queue.done(&item.key, Next::Success);
            woken.push(item.key.name.to_string());
        }
        woken.sort();
        woken
    }
}

const SET: (&str, &str) = ("StatefulSet", "db");

fn of_deployment(name: &str) -> Value {
    json!([{"kind": "Deployment", "name": name, "uid": name, "controller": true}])
}

#[test]
fn what_nobody_holds_is_opened_in_the_version_that_was_looked_at() {
    let mut bench = Bench::new();
    bench.pod("unset", None, SET, "Running");
    bench.pod("closed", Some("False"), SET, "Running");
    bench.pod("open", Some("True"), SET, "Running");
    bench.pod("ended", Some("False"), SET, "Succeeded");
    assert_eq!((bench.plan("open").writes(), bench.plan("ended").writes()), (0, 0));
    for pod in ["unset", "closed"] {
        let plan = bench.plan(pod);
        let [write] = plan.stages[0][0].writes() else { panic!("{plan:?}") };
        assert_eq!((write.class, plan.outcome), (WriteClass::Protective, Outcome::Progressing));
        let Action::Patch { part: Part::Status, patch: Patch::Strategic(patch) } = &write.action else {
            panic!("{write:?}")
        };
        let Fields { uid, resource_version, fields } = patch;
        assert_eq!((&*uid.0, resource_version.map(|version| version.0)), (pod, Some(7)));
        assert_eq!(fields["status"]["conditions"][0]["status"], "True");
    }
    bench.hold("StatefulSet/db");
    for pod in ["unset", "closed"] {
        let plan = bench.plan(pod);
        assert_eq!((plan.writes(), plan.outcome, plan.wake), (0, Outcome::Converged, None));
    }
}

#[test]
fn a_pod_of_a_deployment_is_held_by_who_holds_the_deployment() {
    let mut bench = Bench::new();
    bench.replica_set("web-1", of_deployment("web"));
    bench.replica_set("alone", json!([]));
    bench.replica_set(
        "rollout-1",
        json!([{"kind": "Rollout", "name": "web", "uid": "r", "controller": true}]),
    );
    for (pod, set) in [("of-web", "web-1"), ("of-alone", "alone"), ("of-rollout", "rollout-1")] {
        bench.pod(pod, None, ("ReplicaSet", set), "Running");
    }
    bench.hold("Deployment/web");
    let writes = |bench: &Bench| ["of-web", "of-alone", "of-rollout"].map(|pod| bench.plan(pod).writes());
    assert_eq!(writes(&bench), [0, 1, 1]);
    bench.hold("ReplicaSet/alone");
    assert_eq!(writes(&bench), [0, 0, 1]);
}

#[test]
fn a_pod_whose_replica_set_has_not_been_seen_is_looked_at_again() {
    let mut bench = Bench::new();
    bench.pod("early", None, ("ReplicaSet", "web-1"), "Pending");
    let plan = bench.plan("early");
    assert_eq!((plan.writes(), plan.outcome, plan.wake), (0, Outcome::Waiting, Some(at(2))));
    bench.replica_set("web-1", of_deployment("web"));
    assert_eq!(bench.plan("early").writes(), 1);
    bench.pod("of-nothing-ours", None, ("Job", "batch"), "Pending");
    assert_eq!(bench.plan("of-nothing-ours").writes(), 1);
}

#[test]
fn pods_are_looked_at_when_they_change_and_when_their_workload_is_let_go() {
    let mut bench = Bench::new();
    bench.pods.replace(BTreeMap::new(), crate::key::ResourceVersion(1));
    bench.pod("closed", Some("False"), SET, "Running");
    bench.pod("open", Some("True"), SET, "Running");
    let wired = bench.keeper.wire(&bench.queue);
    let mut wired = std::pin::pin!(wired);
    assert!(wired.as_mut().now_or_never().is_none(), "ReplicaSets are not listed yet");
    bench.replica_sets.replace(BTreeMap::new(), crate::key::ResourceVersion(1));
    wired.now_or_never().unwrap();
    assert_eq!(bench.woken(), ["closed"]);
    bench.pod("unset", None, SET, "Running");
    assert_eq!(bench.woken(), ["unset"]);
    let look_through = bench.keeper.gates.look_through.lock().unwrap().clone().unwrap();
    look_through("elsewhere");
    assert!(bench.woken().is_empty());
    look_through("ns");
    assert_eq!(bench.woken(), ["closed", "unset"]);
}
