//! A small cluster in memory: an API server that performs plans, a kubelet, and the native controllers. It knows what these
//! tests need, and time passes only when they say so.

mod controllers;
mod server;

use crate::fixtures::at;
use crate::machine::Evidence;
use crate::observed::Observed;
use crate::plan::plan;
use crate::projections::upgrade::UpgradeView;
use crate::target::Target;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use springtide_plumbing::dry_run::Answers;
use springtide_plumbing::first_seen::FirstSeen;
use springtide_plumbing::key::Uid;
use springtide_plumbing::plan::Plan;
use springtide_plumbing::projection::Projection;
use springtide_plumbing::traffic::{Exposure, Lever, Traffic};
use springtide_plumbing::workloads::names::UPGRADE_TRAFFIC;
use springtide_plumbing::workloads::pod::{PodView, container_now};
use springtide_plumbing::workloads::trace::Trace;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// It was stored.
    Stored,
    /// Its precondition does not hold.
    Conflict,
}

/// The cluster.
#[derive(Debug)]
pub(super) struct World {
    /// Seconds since the beginning.
    pub(super) now: i64,
    pub(super) upgrade: Value,
    pub(super) deployment: Value,
    pub(super) replica_sets: BTreeMap<String, Value>,
    pub(super) pods: BTreeMap<String, Value>,
    /// Images that no registry has.
    pub(super) bad_images: Vec<String>,
    /// Verbs and kinds of all writes of ours.
    pub(super) written: Vec<String>,
    /// A StatefulSet in the place of the Deployment, and its revisions.
    pub(super) stateful_set: Option<Value>,
    pub(super) revisions: BTreeMap<String, Value>,
    /// Pods that its controller has deleted.
    pub(super) deleted_by_others: Vec<String>,
    /// Whether a PodDisruptionBudget allows no pod less.
    pub(super) refuses_evictions: bool,
    /// Pods that the ReplicaSets' controller has made.
    births: usize,
    /// How often a pod of a name has been made.
    incarnations: BTreeMap<String, usize>,
    versions: i64,
    answers: Answers<()>,
    proofs: FirstSeen<Uid>,
    candidates: FirstSeen<(Uid, Arc<str>), String>,
}

impl World {
    /// A paused Deployment of so many pods of `app:1`, whose template asks for `app:2`.
    pub(super) fn new(replicas: usize, gated: bool, spec: Value) -> Self {
        let gates = if gated { json!([{"conditionType": UPGRADE_TRAFFIC.gate}]) } else { json!([]) };
        let template = |image: &str| {
            json!({
                "metadata": {"labels": {"app": "web"}},
                "spec": {
                    "readinessGates": gates, "terminationGracePeriodSeconds": 5,
                    "containers": [{"name": "app", "image": image}],
                },
            })
        };
        let mut whole = json!({"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}});
        crate::fixtures::overlay(&mut whole, json!({"prePull": {"mode": "None"}}));
        crate::fixtures::overlay(&mut whole, spec);
        let mut world = Self {
            now: 0,
            upgrade: json!({
                "metadata": {"name": "web", "namespace": "ns", "uid": "ipu", "generation": 1, "resourceVersion": "1"},
                "spec": whole,
            }),
            deployment: json!({
                "metadata": {"name": "web", "namespace": "ns", "uid": "web", "generation": 1, "resourceVersion": "1"},
                "spec": {
                    "replicas": replicas, "paused": true, "selector": {"matchLabels": {"app": "web"}},
                    "template": template("app:2"),
                },
                "status": {},
            }),
            replica_sets: BTreeMap::new(),
            pods: BTreeMap::new(),
            bad_images: Vec::new(),
            written: Vec::new(),
            stateful_set: None,
            revisions: BTreeMap::new(),
            deleted_by_others: Vec::new(),
            refuses_evictions: false,
            births: 0,
            incarnations: BTreeMap::new(),
            versions: 10,
            answers: Answers::new(),
            proofs: FirstSeen::default(),
            candidates: FirstSeen::default(),
        };
        let mut old = template("app:1");
        old["metadata"]["labels"]["pod-template-hash"] = json!("rs");
        let set = json!({
            "metadata": {
                "name": "rs", "namespace": "ns", "uid": "rs", "resourceVersion": "2",
                "creationTimestamp": at(-9000).to_string(), "labels": {"app": "web", "pod-template-hash": "rs"},
                "annotations": {"deployment.kubernetes.io/revision": "1"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "web", "controller": true}],
            },
            "spec": {"replicas": replicas, "template": old},
            "status": {"replicas": replicas},
        });
        world.replica_sets.insert("rs".to_owned(), set);
        for number in 0..replicas {
            world.add_pod(&format!("web-{number:02}"));
        }
        world.others_act();
        world
    }

    /// A StatefulSet of so many pods of `app:1`, whose template asks for `app:2`, with a partition above them all.
    pub(super) fn stateful(replicas: usize, spec: Value) -> Self {
        let mut world = Self::new(0, false, spec);
        world.upgrade["spec"]["targetRef"] =
            json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db"});
        let template = world.deployment["spec"]["template"].clone();
        let mut old = template.clone();
        old["spec"]["containers"][0]["image"] = json!("app:1");
        world.replica_sets.clear();
        world.revisions = [("db-1", 1, &old), ("db-2", 2, &template)]
            .map(|(name, number, template)| (name.to_owned(), revision_json(name, number, template)))
            .into();
        world.stateful_set = Some(json!({
            "metadata": {"name": "db", "namespace": "ns", "uid": "db", "generation": 1, "resourceVersion": "1"},
            "spec": {
                "replicas": replicas, "template": template,
                "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 100_000}},
            },
            "status": {"currentRevision": "db-1"},
        }));
        world.others_act();
        world
    }

    /// Another pod of the active ReplicaSet.
    pub(super) fn add_pod(&mut self, name: &str) {
        let set = self
            .replica_sets
            .values()
            .find(|set| set["spec"]["replicas"].as_u64() > Some(0))
            .cloned()
            .unwrap();
        let owner = set["metadata"]["name"].as_str().unwrap().to_owned();
        self.make_pod(name, "ReplicaSet", &owner, &set["spec"]["template"]);
    }

    /// A pod of a workload whose UID is its name.
    fn make_pod(&mut self, name: &str, kind: &str, owner: &str, template: &Value) {
        let incarnation = self.incarnations.entry(name.to_owned()).or_default();
        *incarnation += 1;
        let uid = if *incarnation == 1 { name.to_owned() } else { format!("{name}/{incarnation}") };
        let pod = json!({
            "metadata": {
                "name": name, "namespace": "ns", "uid": uid, "resourceVersion": "3", "generation": 1,
                "creationTimestamp": at(self.now).to_string(), "labels": template["metadata"]["labels"],
                "annotations": template["metadata"]["annotations"],
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": kind, "name": owner, "uid": owner, "controller": true}],
            },
            "spec": template["spec"],
            "status": {"phase": "Running"},
        });
        let mut pod = without_nulls(pod);
        pod["spec"]["nodeName"] = json!(format!("node-{name}"));
        self.pods.insert(name.to_owned(), pod);
    }

    fn next_version(&mut self) -> String {
        self.versions += 1;
        self.versions.to_string()
    }

    /// What a controller sees, as the observer gathers it.
    pub(super) fn observe(&mut self) -> Observed {
        let now = at(self.now);
        let pods: Vec<Arc<PodView>> = self.pods.values().map(view).collect();
        let mut observed = Observed::of(view::<UpgradeView>(&self.upgrade));
        let mut evidence = HashMap::new();
        for pod in &pods {
            let uid = pod.meta().uid.clone();
            let mut exposure = Exposure::default();
            if pod.is_ready() {
                exposure.listed_by.insert("web".into());
            }
            let off = matches!(pod.signals.traffic(Lever::ReadinessGate), Traffic::Off { .. });
            let is_proved = off && !pod.is_ready();
            let proof = self.proofs.look(uid.clone(), is_proved.then_some(()), now);
            let mut candidates = BTreeMap::new();
            if let Trace::Record(record) = &pod.trace {
                for container in &pod.containers {
                    let status = container_now(pod, container);
                    let candidate = record.candidate(&container.name, &status).map(str::to_owned);
                    let key = (uid.clone(), container.name.clone());
                    if let Some(seen) = self.candidates.look(key, candidate, now) {
                        candidates.insert(container.name.clone(), seen);
                    }
                }
            }
            let proved_since = proof.map(|seen| seen.since);
            evidence.insert(uid, Evidence { exposure, proved_since, candidates, ..Evidence::default() });
        }
        observed.pods = pods;
        observed.evidence = evidence;
        observed.answers = self.answers.clone();
        observed.target = Some(match &self.stateful_set {
            Some(set) => Target::stateful_set(view(set), self.revisions.values().map(view).collect()),
            None => {
                let sets = self.replica_sets.values().map(view).collect();
                Target::deployment(view(&self.deployment), sets)
            }
        });
        observed
    }

    /// One pass: observes, plans, and performs as many writes as `most` says. Returns the plan, and how many were sent.
    pub(super) fn pass(&mut self, most: usize) -> (Plan, usize) {
        let observed = self.observe();
        let planned = plan(&observed, at(self.now));
        let mut sent = 0;
        let mut go_on = true;
        for stage in &planned.stages {
            if !go_on {
                break;
            }
            for write in stage.iter().flat_map(|step| step.writes()) {
                if sent >= most {
                    return (planned, sent);
                }
                sent += 1;
                go_on &= self.perform(write) == Sent::Stored;
            }
        }
        if let Some(status) =
            planned.status.as_ref().filter(|status| go_on && sent < most && !status.action.is_noop())
        {
            sent += 1;
            self.perform(status);
        }
        (planned, sent)
    }

    /// Reason of a condition of the object.
    pub(super) fn reason(&self, type_: &str) -> String {
        let found = condition(&self.upgrade["status"], type_);
        found.and_then(|found| found["reason"].as_str()).unwrap_or_default().to_owned()
    }

    /// Images of all pods.
    pub(super) fn images(&self) -> Vec<&str> {
        self.pods.values().map(|pod| pod["spec"]["containers"][0]["image"].as_str().unwrap()).collect()
    }

    /// Pods that are out of traffic by us.
    pub(super) fn out_of_traffic(&self) -> usize {
        let off = |pod: &&Value| {
            condition(&pod["status"], UPGRADE_TRAFFIC.gate).is_some_and(|gate| gate["status"] == "False")
        };
        self.pods.values().filter(off).count()
    }

    /// Lets everybody act until a reason of condition Ready is reached; `each` looks at the world after each pass.
    pub(super) fn run_until(&mut self, ready: &str, mut each: impl FnMut(&Self)) {
        for _ in 0..2000 {
            self.pass(usize::MAX);
            self.others_act();
            each(self);
            if self.reason("Ready") == ready {
                return;
            }
            self.now += 1;
        }
        panic!("not {ready}: {:#}", self.upgrade["status"]);
    }
}

/// A revision of the StatefulSet.
fn revision_json(name: &str, number: usize, template: &Value) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "ns", "uid": name},
        "revision": number,
        "data": {"spec": {"template": template}},
    })
}

fn view<P: DeserializeOwned>(value: &Value) -> Arc<P> {
    Arc::new(serde_json::from_value(value.clone()).unwrap())
}

fn condition<'a>(status: &'a Value, type_: &str) -> Option<&'a Value> {
    status["conditions"].as_array()?.iter().find(|condition| condition["type"] == type_)
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(
            fields
                .into_iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| (key, without_nulls(value)))
                .collect(),
        ),
        scalar @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
            scalar
        }
    }
}
