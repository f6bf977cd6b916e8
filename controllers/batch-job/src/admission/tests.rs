mod claims;
mod fairness;
mod kept;
mod load;
mod loads;
mod long;
mod named;
mod pauses;
mod peaks;
mod preemption;
mod queues;
mod resizes;
mod shown;
mod starvation;
mod traps;
mod without_nodes;

use super::*;
use crate::projections::pod::PodView;
use jiff::SignedDuration;
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use springtide_crds::batch_job::PodTemplate;
use std::collections::BTreeMap;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn node(name: &str, cpu: &str, extra: Value) -> Change<NodeView> {
    let mut node = json!({
        "metadata": {"name": name, "uid": name, "resourceVersion": "1", "labels": {"zone": "a"}},
        "spec": {},
        "status": {
            "allocatable": {"cpu": cpu, "memory": "64Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    });
    for (key, value) in extra.as_object().unwrap() {
        node[key] = value.clone();
    }
    apply(node)
}

fn apply<P: DeserializeOwned>(object: Value) -> Change<P> {
    Change::Apply { old: None, new: Arc::new(serde_json::from_value(object).unwrap()), initial: false }
}

fn shape(cpu: &str, extra: Value) -> Arc<Shape> {
    let mut spec = json!({"containers": [{"name": "main", "resources": {"requests": {"cpu": cpu}}}]});
    for (key, value) in extra.as_object().unwrap() {
        spec[key] = value.clone();
    }
    let template: PodTemplate = serde_json::from_value(json!({"spec": spec})).unwrap();
    Arc::new(Shape::of_template(&template))
}

/// One pod of a job of low age and no priority.
fn demand(namespace: &str, name: &str, shape: &Arc<Shape>) -> Demand {
    Demand {
        job: ObjectKey::new(namespace, name),
        uid: Uid(format!("{namespace}-{name}").into()),
        created: at(0),
        queue: QueueId::BuiltIn,
        tier: Tier::BestEffort,
        priority: 0,
        shape: Arc::clone(shape),
        target: 1,
        min_parallelism: 1,
        interruption: Interruptibility::default(),
    }
}

/// A cluster as admission sees it: every granted pod is made, and bound where its grant was.
struct World {
    admission: Admission,
    pods: BTreeMap<String, (Uid, String, String, Option<String>)>,
    /// Labels of pods that are counted in a BatchQueue.
    labels: BTreeMap<String, Value>,
    /// When pods were created; in the first second of the era, unless a test puts the clock forward.
    born: BTreeMap<String, Timestamp>,
    clock: Timestamp,
    made: u32,
}

impl World {
    fn new(nodes: &[(&str, &str)]) -> Self {
        let mut admission = Admission::default();
        admission.set_ready(true, Staleness::Nowhere);
        for (name, cpu) in nodes {
            admission.node_changed(&node(name, cpu, json!({})));
        }
        Self {
            admission,
            pods: BTreeMap::new(),
            labels: BTreeMap::new(),
            born: BTreeMap::new(),
            clock: Timestamp::default(),
            made: 0,
        }
    }

    fn offer(&mut self, namespace: &str, name: &str, shape: &Arc<Shape>, target: u32) -> Uid {
        self.offer_gang(namespace, name, shape, target, 1)
    }

    fn offer_gang(&mut self, ns: &str, name: &str, shape: &Arc<Shape>, target: u32, gang: u32) -> Uid {
        self.ask(Demand { target, min_parallelism: gang, ..demand(ns, name, shape) })
    }

    fn ask(&mut self, demand: Demand) -> Uid {
        let uid = demand.uid.clone();
        self.admission.offer(demand);
        uid
    }

    fn pod(&self, name: &str, phase: &str) -> Change<PodView> {
        apply(self.manifest(name, phase))
    }

    fn manifest(&self, name: &str, phase: &str) -> Value {
        let (job, amount, namespace, node) = &self.pods[name];
        // Of cpu, unless another resource is named behind it; behind that, how much of memory.
        let mut words = amount.split(' ');
        let amount = words.next().unwrap();
        let (resource, memory) = (words.next().unwrap_or("cpu"), words.next().unwrap_or("200Mi"));
        let born = self.born.get(name).copied().unwrap_or_default();
        let mut pod = json!({
            "metadata": {
                "name": name, "namespace": namespace, "uid": name, "resourceVersion": "1",
                "creationTimestamp": born,
                "ownerReferences": [
                    {"kind": "BatchJob", "name": "j", "uid": job, "apiVersion": "x", "controller": true}
                ],
            },
            "spec": {"containers": [{"name": "main", "resources": {"requests": {resource: amount, "memory": memory}}}]},
            "status": {"phase": phase},
        });
        if let Some(node) = node {
            pod["spec"]["nodeName"] = node.as_str().into();
        }
        if let Some(labels) = self.labels.get(name) {
            pod["metadata"]["labels"] = labels.clone();
        }
        pod
    }

    fn name_pod(&mut self, job: &Uid, cpu: &str, namespace: &str) -> String {
        self.made += 1;
        let name = format!("p{}", self.made);
        self.pods.insert(name.clone(), (job.clone(), cpu.to_owned(), namespace.to_owned(), None));
        // The API server tells whole seconds.
        self.born.insert(name.clone(), Timestamp::from_second(self.clock.as_second()).unwrap());
        if let Some(class) = self.admission.jobs.get(job).map(|job| &job.class)
            && let Some(queue) = &class.line.queue
        {
            let tier = format!("{:?}", class.tier);
            let labels = json!({"springtide.dev/queue": queue.as_ref(), "springtide.dev/tier": tier});
            self.labels.insert(name.clone(), labels);
        }
        name
    }

    /// Makes one granted pod of the job, and binds it to the place of its grant.
    fn make(&mut self, job: &Uid, cpu: &str, namespace: &str) -> Option<String> {
        self.admission.jobs.get(job).filter(|job| !job.in_flight.is_empty())?;
        let name = self.name_pod(job, cpu, namespace);
        self.admission.pod_changed(&self.pod(&name, "Pending"));
        let slot = self.admission.pods.slot_of(&ObjectKey::new(namespace, name.as_str()))?;
        let node = self.admission.ledger.node(slot)?.view.meta().key.name.to_string();
        self.pods.get_mut(&name).unwrap().3 = Some(node);
        self.admission.pod_changed(&self.pod(&name, "Running"));
        Some(name)
    }

    /// Makes one granted pod of the job, which the scheduler has not bound yet.
    fn make_unbound(&mut self, job: &Uid, cpu: &str, namespace: &str) -> String {
        let name = self.name_pod(job, cpu, namespace);
        self.admission.pod_changed(&self.pod(&name, "Pending"));
        name
    }

    /// A pod that waits for a node is deleted, and a finalizer keeps it.
    fn mark_deleted(&mut self, name: &str) {
        let mut pod = self.manifest(name, "Pending");
        pod["metadata"]["deletionTimestamp"] = json!(at(0));
        self.admission.pod_changed(&apply(pod));
    }

    /// A pod that runs is deleted, and takes its time.
    fn delete(&mut self, name: &str) {
        let mut pod = self.manifest(name, "Running");
        pod["metadata"]["deletionTimestamp"] = json!(at(30));
        self.admission.pod_changed(&apply(pod));
    }

    fn queue(&mut self, name: &str, rules: &QueueRules) -> QueueId {
        let queue = QueueId::Object(ObjectKey::new("a", name));
        self.admission.queue_changed(&queue, Some(rules.clone()));
        queue
    }

    /// A pod is gone from the store.
    fn remove(&mut self, name: &str) {
        let Change::Apply { new, .. } = self.pod(name, "Pending") else { unreachable!() };
        self.admission.pod_changed(&Change::Delete { last: new });
        self.pods.remove(name);
    }

    fn bind(&mut self, name: &str, node: &str) {
        self.pods.get_mut(name).unwrap().3 = Some(node.to_owned());
        self.admission.pod_changed(&self.pod(name, "Running"));
    }

    fn end(&mut self, name: &str) {
        self.admission.pod_changed(&self.pod(name, "Succeeded"));
        self.pods.remove(name);
    }

    /// Passes and makes pods until nothing more is granted.
    fn settle(&mut self, jobs: &[(Uid, &str, &str)]) {
        loop {
            self.admission.pass(at(1));
            let mut made = 0;
            for (job, cpu, namespace) in jobs {
                while self.make(job, cpu, namespace).is_some() {
                    made += 1;
                }
            }
            if made == 0 {
                return;
            }
        }
    }

    fn nothing_overcommitted(&self) {
        for (_, node) in self.admission.ledger.nodes() {
            for (name, used) in node.used.iter() {
                assert!(used >= 0, "{name} of {} is negative", node.view.meta().key);
                assert!(used <= node.view.allocatable.get(name), "{name} of {}", node.view.meta().key);
            }
        }
    }
}

#[test]
fn grants_go_out_while_pods_fit_and_the_rest_waits_with_a_reason() {
    let mut world = World::new(&[("n1", "2"), ("n2", "2")]);
    let one = shape("1", json!({}));
    let job = world.offer("a", "j", &one, 6);
    world.settle(&[(job.clone(), "1", "a")]);
    let verdict = world.admission.verdict(&job);
    assert_eq!(verdict.granted, 4);
    let waiting = verdict.waiting.unwrap();
    assert_eq!(waiting.reason, QueuedReason::NoCapacity);
    assert!(
        waiting.message.contains("cpu 1") && waiting.message.contains("2 eligible nodes"),
        "{}",
        waiting.message
    );
    world.nothing_overcommitted();
    // A pod ends: its slot goes to the next at once, without a further word from the job.
    world.end("p1");
    world.offer("a", "j", &one, 6);
    assert_eq!(world.admission.pass(at(2)), [ObjectKey::new("a", "j")]);
    assert_eq!(world.admission.verdict(&job).granted, 4);
}

#[test]
fn a_gang_gets_its_minimum_or_nothing() {
    let mut world = World::new(&[("n1", "4"), ("n2", "4")]);
    let one = shape("1", json!({}));
    let small = world.offer("a", "small", &one, 2);
    world.settle(&[(small.clone(), "1", "a")]);
    let gang = world.offer_gang("a", "gang", &one, 7, 7);
    world.admission.pass(at(1));
    let verdict = world.admission.verdict(&gang);
    assert_eq!(verdict.granted, 0);
    assert!(verdict.waiting.unwrap().message.contains("7 pods of"));
    world.end("p1");
    world.admission.pass(at(1));
    assert_eq!(world.admission.verdict(&gang).granted, 7);
}

#[test]
fn what_is_too_large_says_so_and_recovers_with_a_larger_node() {
    let mut world = World::new(&[("n1", "2")]);
    let big = shape("8", json!({}));
    let job = world.offer("a", "j", &big, 1);
    world.admission.pass(at(1));
    assert_eq!(world.admission.verdict(&job).waiting.unwrap().reason, QueuedReason::NeverFits);
    world.admission.node_changed(&node("n2", "16", json!({})));
    assert_eq!(world.admission.pass(at(2)), [ObjectKey::new("a", "j")]);
    assert_eq!(world.admission.verdict(&job).granted, 1);
}

#[test]
fn selectors_taints_and_cordons_are_the_schedulers() {
    let cases = [
        (json!({}), json!({}), true),
        (json!({"spec": {"unschedulable": true}}), json!({}), false),
        (json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}}), json!({}), false),
        (json!({"spec": {"taints": [{"key": "k", "effect": "PreferNoSchedule"}]}}), json!({}), true),
        (
            json!({"spec": {"taints": [{"key": "k", "value": "v", "effect": "NoExecute"}]}}),
            json!({"tolerations": [{"key": "k", "value": "v"}]}),
            true,
        ),
        (
            json!({"spec": {"taints": [{"key": "k", "value": "v", "effect": "NoExecute"}]}}),
            json!({"tolerations": [{"key": "k", "operator": "Exists", "effect": "NoSchedule"}]}),
            false,
        ),
        (
            json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}}),
            json!({"tolerations": [{"operator": "Exists"}]}),
            true,
        ),
        (json!({}), json!({"nodeSelector": {"zone": "a"}}), true),
        (json!({}), json!({"nodeSelector": {"zone": "b"}}), false),
        (json!({}), affinity("zone", "NotIn", &["a"]), false),
        (json!({}), affinity("disk", "NotIn", &["ssd"]), true),
        (json!({}), affinity("zone", "Exists", &[]), true),
        (json!({}), affinity("disk", "DoesNotExist", &[]), true),
        (
            json!({"status": {"allocatable": {"cpu": "4", "memory": "4Gi", "pods": "10"}, "conditions": []}}),
            json!({}),
            false,
        ),
    ];
    for (number, (extra, constraints, fits)) in cases.into_iter().enumerate() {
        let mut world = World::new(&[]);
        world.admission.node_changed(&node("n1", "4", extra));
        let job = world.offer("a", "j", &shape("1", constraints), 1);
        world.admission.pass(at(1));
        assert_eq!(world.admission.verdict(&job).granted == 1, fits, "case {number}");
    }
}

fn affinity(key: &str, operator: &str, values: &[&str]) -> Value {
    json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{"matchExpressions": [{"key": key, "operator": operator, "values": values}]}]
    }}}})
}

#[test]
fn a_pod_bound_elsewhere_makes_no_room_that_is_not_there() {
    let mut world = World::new(&[("n1", "1"), ("n2", "1")]);
    let half = shape("500m", json!({}));
    let job = world.offer("a", "j", &half, 9);
    let mut names: Vec<String> = Vec::new();
    for _ in 0..4 {
        world.admission.pass(at(1));
        while !world.admission.jobs[&job].in_flight.is_empty() {
            names.push(world.make_unbound(&job, "500m", "a"));
        }
    }
    assert_eq!(names.len(), 4);
    // The scheduler fills the nodes in another order than the grants did.
    for (name, node) in names.iter().zip(["n2", "n2", "n1", "n1"]) {
        world.bind(name, node);
        world.admission.pass(at(2));
        assert_eq!(world.admission.verdict(&job).granted, 4);
        world.nothing_overcommitted();
    }
}

#[test]
fn nothing_is_granted_on_an_old_view() {
    let mut world = World::new(&[("n1", "4")]);
    let job = world.offer("a", "j", &shape("1", json!({})), 1);
    world.admission.set_ready(true, Staleness::Everywhere);
    world.admission.pass(at(1));
    let verdict = world.admission.verdict(&job);
    assert_eq!((verdict.granted, verdict.waiting.unwrap().reason), (0, QueuedReason::CapacityStale));
    world.admission.set_ready(true, Staleness::Nowhere);
    world.admission.pass(at(2));
    assert_eq!(world.admission.verdict(&job).granted, 1);
}

#[test]
fn a_node_that_goes_and_comes_back_keeps_its_pods_charged() {
    let mut world = World::new(&[("n1", "2")]);
    let job = world.offer("a", "j", &shape("1", json!({})), 2);
    world.settle(&[(job.clone(), "1", "a")]);
    let Change::Apply { new: last, .. } = node("n1", "2", json!({})) else { unreachable!() };
    world.admission.node_changed(&Change::Delete { last });
    world.admission.node_changed(&node("n1", "2", json!({})));
    let used = world.admission.ledger.nodes().next().unwrap().1.used.cpu;
    assert_eq!(used, 2000);
}
