//! A small cluster in memory: an API server that performs plans, a kubelet, and the Deployment controller. It knows what
//! these tests need, and time passes only when they say so.

use crate::fixtures::at;
use crate::machine::{Evidence, container_now};
use crate::names::TRAFFIC;
use crate::observed::Observed;
use crate::plan::plan;
use crate::projections::pod::PodView;
use crate::projections::template::Template;
use crate::projections::upgrade::UpgradeView;
use crate::target::Target;
use crate::trace::Trace;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use springtide_plumbing::dry_run::{Answer, Answers, Verdict};
use springtide_plumbing::first_seen::FirstSeen;
use springtide_plumbing::key::Uid;
use springtide_plumbing::plan::{Action, Fields, Patch, Plan, Write};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::traffic::{Exposure, Lever, Traffic};
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
    versions: i64,
    answers: Answers<()>,
    proofs: FirstSeen<Uid>,
    candidates: FirstSeen<(Uid, Arc<str>), String>,
}

impl World {
    /// A paused Deployment of so many pods of `app:1`, whose template asks for `app:2`.
    pub(super) fn new(replicas: usize, gated: bool, spec: Value) -> Self {
        let gates = if gated { json!([{"conditionType": TRAFFIC.gate}]) } else { json!([]) };
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

    /// Another pod of the active ReplicaSet.
    pub(super) fn add_pod(&mut self, name: &str) {
        let set = self
            .replica_sets
            .values()
            .find(|set| set["spec"]["replicas"].as_u64() > Some(0))
            .cloned()
            .unwrap();
        let template = &set["spec"]["template"];
        let pod = json!({
            "metadata": {
                "name": name, "namespace": "ns", "uid": name, "resourceVersion": "3", "generation": 1,
                "creationTimestamp": at(self.now).to_string(), "labels": template["metadata"]["labels"],
                "annotations": template["metadata"]["annotations"],
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": set["metadata"]["name"], "uid": set["metadata"]["uid"], "controller": true}],
            },
            "spec": template["spec"],
            "status": {"phase": "Running"},
        });
        let mut pod = without_nulls(pod);
        pod["spec"]["nodeName"] = json!(format!("node-{name}"));
        self.pods.insert(name.to_owned(), pod);
    }

    /// The kubelet and the Deployment's controller see what is there, and say so.
    pub(super) fn others_act(&mut self) {
        let names: Vec<String> = self.pods.keys().cloned().collect();
        for name in names {
            self.kubelet(&name);
        }
        self.deployment_controller();
    }

    fn kubelet(&mut self, name: &str) {
        let version = self.next_version();
        let now = at(self.now).to_string();
        let Some(pod) = self.pods.get_mut(name) else { return };
        let before = pod["status"].clone();
        let image = pod["spec"]["containers"][0]["image"].clone();
        let is_new = before["running"] != image;
        let is_bad = self.bad_images.iter().any(|bad| image == **bad);
        let mut status = json!({
            "phase": "Running", "running": image, "qosClass": "BestEffort",
            "observedGeneration": pod["metadata"]["generation"],
        });
        status["containerStatuses"] = if is_bad {
            json!([{"name": "app", "containerID": "", "imageID": "", "restartCount": 0,
                    "state": {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}}])
        } else if is_new {
            json!([{"name": "app", "containerID": format!("containerd://{version}"),
                    "imageID": format!("reg/{}@sha256:{}", image.as_str().unwrap(), image.as_str().unwrap()),
                    "ready": true, "restartCount": 0, "resources": {}, "state": {"running": {"startedAt": now}}}])
        } else {
            before["containerStatuses"].clone()
        };
        let ours = condition(&before, TRAFFIC.gate).cloned();
        let has_gate = pod["spec"]["readinessGates"].as_array().is_some_and(|gates| !gates.is_empty());
        let is_open = ours.as_ref().is_some_and(|gate| gate["status"] == "True");
        let mut conditions = Vec::new();
        for (type_, holds) in [("ContainersReady", !is_bad), ("Ready", !is_bad && (is_open || !has_gate))] {
            let word = if holds { "True" } else { "False" };
            let old = condition(&before, type_)
                .filter(|old| old["status"] == word && !(is_new && type_ == "ContainersReady"));
            let since = old.map_or_else(|| json!(now), |old| old["lastTransitionTime"].clone());
            conditions.push(json!({"type": type_, "status": word, "lastTransitionTime": since}));
        }
        conditions.extend(ours);
        status["conditions"] = Value::Array(conditions);
        if status != before {
            pod["status"] = status;
            pod["metadata"]["resourceVersion"] = json!(version);
        }
    }

    fn deployment_controller(&mut self) {
        let digest = |value: &Value| Template::shared(value).whole;
        let wished = digest(&self.deployment["spec"]["template"]);
        let mut sets: Vec<&Value> = self.replica_sets.values().collect();
        sets.sort_by_key(|set| set["metadata"]["creationTimestamp"].as_str().unwrap_or_default().to_owned());
        let new = sets.iter().find(|set| digest(&set["spec"]["template"]) == wished);
        let new = new.map(|set| set["metadata"]["name"].as_str().unwrap().to_owned());
        assert!(
            self.deployment["spec"]["paused"] == true || new.is_some(),
            "the Deployment's controller would make a ReplicaSet"
        );
        let revision = |set: &Value| -> i64 {
            let text = set["metadata"]["annotations"]["deployment.kubernetes.io/revision"].as_str();
            text.and_then(|text| text.parse().ok()).unwrap_or(0)
        };
        let mut updated = json!(0);
        if let Some(new) = new {
            let most = self
                .replica_sets
                .iter()
                .filter(|(name, _)| **name != new)
                .map(|(_, set)| revision(set))
                .max();
            let version = self.next_version();
            let set = self.replica_sets.get_mut(&new).unwrap();
            if let Some(most) = most.filter(|most| revision(set) <= *most) {
                set["metadata"]["annotations"]["deployment.kubernetes.io/revision"] =
                    json!((most + 1).to_string());
                set["metadata"]["resourceVersion"] = json!(version);
            }
            updated = set["spec"]["replicas"].clone();
        }
        let replicas = self.deployment["spec"]["replicas"].clone();
        let generation = self.deployment["metadata"]["generation"].clone();
        self.deployment["status"] =
            json!({"observedGeneration": generation, "replicas": replicas, "updatedReplicas": updated});
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
        let sets = self.replica_sets.values().map(view).collect();
        observed.target = Some(Target::deployment(view(&self.deployment), sets));
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

    fn perform(&mut self, write: &Write) -> Sent {
        let path = format!("{} {}", write.resource.kind, write.action.subresource());
        if !matches!(write.action, Action::DryRun { .. }) {
            self.written.push(path.trim_end().to_owned());
        }
        let (version, now) = (self.next_version(), at(self.now));
        if let Action::Create { manifest } = &write.action {
            let mut object = manifest.clone();
            let name = write.key.name.to_string();
            object["metadata"]["uid"] = json!(name);
            object["metadata"]["resourceVersion"] = json!(version);
            object["metadata"]["creationTimestamp"] = json!(now.to_string());
            object["status"] = json!({"replicas": 0});
            assert_eq!(write.resource.kind, "ReplicaSet");
            return match self.replica_sets.insert(name, object) {
                None => Sent::Stored,
                Some(_) => panic!("made twice"),
            };
        }
        if let Action::DryRun { question, .. } = &write.action {
            self.answers.insert(question.clone(), Answer { at: now, verdict: Verdict::Accepted(()) });
            return Sent::Stored;
        }
        let object = match write.resource.kind {
            "Pod" => self.pods.get_mut(&*write.key.name).unwrap(),
            "ReplicaSet" => self.replica_sets.get_mut(&*write.key.name).unwrap(),
            "Deployment" => &mut self.deployment,
            "InPlaceUpgrade" => &mut self.upgrade,
            other => panic!("{other}"),
        };
        assert_eq!(write.action.uid(), object["metadata"]["uid"].as_str(), "a write is for one incarnation");
        let wanted = write.action.resource_version();
        if wanted.is_some_and(|wanted| object["metadata"]["resourceVersion"] != wanted.to_string()) {
            return Sent::Conflict;
        }
        let before = object["spec"].clone();
        match &write.action {
            Action::Patch { patch: Patch::Strategic(Fields { fields, .. }), .. } => strategic(object, fields),
            Action::Patch { patch: Patch::Merge(Fields { fields, .. }), .. } => strategic(object, fields),
            Action::Patch { patch: Patch::Json { operations }, .. } => {
                if !json_patch(object, operations) {
                    return Sent::Conflict;
                }
            }
            Action::Apply { fields, .. } => {
                // What was applied before and is missing now is removed.
                let annotations = object["metadata"].get_mut("annotations").and_then(Value::as_object_mut);
                if fields["spec"].get("paused").is_none()
                    && let Some(annotations) = annotations
                    && annotations.remove("springtide.dev/paused-by-upgrade").is_some()
                {
                    object["spec"]["paused"] = json!(false);
                }
                strategic(object, fields);
            }
            Action::Status { status, .. } => object["status"] = status.clone(),
            other @ (Action::Create { .. }
            | Action::Delete { .. }
            | Action::Evict { .. }
            | Action::DryRun { .. }) => {
                panic!("{other:?}")
            }
        }
        if object["spec"] != before {
            let generation = object["metadata"]["generation"].as_i64().unwrap_or(0);
            object["metadata"]["generation"] = json!(generation + 1);
        }
        object["metadata"]["resourceVersion"] = json!(version);
        Sent::Stored
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
            condition(&pod["status"], TRAFFIC.gate).is_some_and(|gate| gate["status"] == "False")
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

/// A strategic merge: lists of containers and conditions by their keys, `null` removes.
fn strategic(under: &mut Value, over: &Value) {
    let Value::Object(over) = over else {
        *under = over.clone();
        return;
    };
    if !under.is_object() {
        *under = Value::Object(Map::new());
    }
    let Value::Object(fields) = under else { return };
    for (name, value) in over {
        let key = match name.as_str() {
            "containers" | "initContainers" => Some("name"),
            "conditions" => Some("type"),
            _ => None,
        };
        match (value, key) {
            (Value::Null, _) => {
                fields.remove(name);
            }
            (Value::Array(items), Some(key)) => {
                let list = fields.entry(name.clone()).or_insert_with(|| json!([])).as_array_mut().unwrap();
                for item in items {
                    match list.iter_mut().find(|own| own[key] == item[key]) {
                        Some(own) => strategic(own, item),
                        None => list.push(item.clone()),
                    }
                }
            }
            (value, _) => strategic(fields.entry(name.clone()).or_insert(Value::Null), value),
        }
    }
}

/// Tests, adds, replaces and removes; whether all tests passed.
fn json_patch(object: &mut Value, operations: &Value) -> bool {
    for operation in operations.as_array().unwrap() {
        let path = operation["path"].as_str().unwrap();
        match operation["op"].as_str().unwrap() {
            "test" => {
                if object.pointer(path) != Some(&operation["value"]) {
                    return false;
                }
            }
            op => {
                let (parent, last) = path.rsplit_once('/').unwrap();
                let last = last.replace("~1", "/");
                match object.pointer_mut(parent).unwrap() {
                    Value::Object(fields) if op == "remove" => drop(fields.remove(&last)),
                    Value::Object(fields) => drop(fields.insert(last, operation["value"].clone())),
                    Value::Array(items) if op == "remove" => drop(items.remove(last.parse().unwrap())),
                    Value::Array(items) => items.push(operation["value"].clone()),
                    scalar @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => {
                        panic!("{scalar}")
                    }
                }
            }
        }
    }
    true
}
