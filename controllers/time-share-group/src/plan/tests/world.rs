//! A small cluster in memory: an API server that performs plans, kubelets that have only so much, the controllers of
//! Deployments, a scheduler, and endpoint slices. Time passes only when a test says so, or when nothing else is left to do.

mod checks;
mod faults;
mod kubelets;
mod looks;
mod owners;
mod server;

pub(super) use checks::Stage;
pub(super) use faults::Fault;
pub(super) use owners::Deployment;

use crate::allocator::kubelet::Kubelet;
use crate::fixtures::{GIB, NAMESPACE, at, member, overlay};
use crate::memory::Memory;
use crate::plan::plan;
use crate::sizes::Demand;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use springtide_crds::time_share_group::TimeShareGroupStatus;
use springtide_plumbing::dry_run::Verdict;
use springtide_plumbing::error::WriteError;
use springtide_plumbing::executor::{Done, WriteResult};
use springtide_plumbing::key::ObjectKey;
use springtide_plumbing::plan::{Action, MAX_WRITES, Outcome, Plan, Step, Write};
use springtide_plumbing::workloads::amounts::Pair;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// So long nothing may have happened that a world counts as at rest, in seconds: longer than what is refused waits for its
/// next attempt.
const REST: i64 = 900;
/// Time is moved on by so much at most where nothing happens, in seconds.
const LEAP: i64 = 300;
/// Longest time that a world is given to come to something, in seconds.
const PATIENCE: i64 = 20_000;
/// Most passes that it is given.
const PASSES: usize = 20_000;

/// A write that was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Written {
    /// The kind, and the sub-resource behind it if it is of one.
    pub(super) what: String,
    /// Name of the object.
    pub(super) name: String,
    /// The size that a resize asks for, in thousandths of a core; of traffic 1 for on and 0 for off.
    pub(super) amount: Option<i64>,
}

/// What one pass came to.
pub(super) struct Passed {
    pub(super) plan: Plan,
    /// Writes that were sent.
    pub(super) sent: usize,
    /// Whether the process has ended before the last one.
    pub(super) is_cut: bool,
}

/// The cluster.
pub(super) struct World {
    /// Seconds since the beginning.
    pub(super) now: i64,
    /// The group as stored; `null` when it is gone.
    pub(super) group: Value,
    /// Deployments by name.
    pub(super) deployments: BTreeMap<String, Deployment>,
    /// All pods by name.
    pub(super) pods: BTreeMap<String, Value>,
    /// Kubelets by the name of their node.
    pub(super) nodes: BTreeMap<String, Kubelet>,
    /// What a node has for pods.
    pub(super) allocatable: Demand,
    /// UIDs of the pods that a Service lists as ready.
    pub(super) listed: BTreeSet<String>,
    /// Pods that an InPlaceUpgrade is at work on, by name.
    pub(super) upgrading: BTreeSet<String>,
    /// What goes otherwise than usual.
    pub(super) oddities: Oddities,
    /// All writes of ours that were stored, dry runs apart.
    pub(super) written: Vec<Written>,
    /// Dry runs that were answered.
    pub(super) asked: usize,
    /// What the next writes meet.
    pub(super) faults: VecDeque<Fault>,
    /// Names of pods of which a write of ours was refused, or its answer lost.
    pub(super) disturbed: BTreeSet<String>,
    /// Pods as resizes were stored, which their kubelets have yet to take in, in that order.
    resized: Vec<Value>,
    /// What the process remembers.
    memory: Memory,
    versions: i64,
    births: u32,
    /// Since when nothing has happened.
    quiet_since: i64,
}

/// What goes otherwise than usual; nothing as a rule.
#[derive(Debug, Default)]
pub(super) struct Oddities {
    /// Pods whose resizes admission refuses, by name.
    pub(super) denied: BTreeSet<String>,
    /// As those, but dry runs are accepted.
    pub(super) denied_later: BTreeSet<String>,
    /// Pods whose kubelet never puts in force what it has allocated.
    pub(super) slow: BTreeSet<String>,
    /// Deployments whose containers are not ready at any size below their peak that they did not start with.
    pub(super) fragile: BTreeSet<String>,
    /// Nodes whose kubelet misses that pods got smaller.
    pub(super) deaf: BTreeSet<String>,
    /// What a quota of the namespace has, in thousandths of a core.
    pub(super) quota: Option<i64>,
    /// Whether endpoint slices do not follow pods any more.
    pub(super) stale_slices: bool,
    /// Whether kubelets and others act between what a plan was made of and its first write.
    pub(super) is_late: bool,
}

impl World {
    /// So many nodes, each with so many pods of members `pay` and `promo` at valley size, without traffic. A node has what
    /// all of one member need at peak beside all of the other at valley: nothing is left over.
    pub(super) fn new(nodes: usize, pods: [usize; 2], spec: Value) -> Self {
        let mut whole = json!({
            "members": [member("pay"), member("promo")],
            "switch": {"steps": [{"percent": 100}]},
            "schedule": {"defaultMember": "pay"},
        });
        overlay(&mut whole, spec);
        let mut world = Self {
            now: 0,
            group: json!({
                "metadata": {
                    "name": "double11", "namespace": NAMESPACE, "uid": "double11", "generation": 1,
                    "resourceVersion": "1", "creationTimestamp": at(-7200).to_string(),
                },
                "spec": whole,
            }),
            deployments: BTreeMap::new(),
            pods: BTreeMap::new(),
            nodes: BTreeMap::new(),
            allocatable: Demand::ZERO,
            listed: BTreeSet::new(),
            upgrading: BTreeSet::new(),
            oddities: Oddities::default(),
            written: Vec::new(),
            asked: 0,
            faults: VecDeque::new(),
            disturbed: BTreeSet::new(),
            resized: Vec::new(),
            memory: Memory::default(),
            versions: 10,
            births: 0,
            quiet_since: 0,
        };
        world.allocatable = world.needed(&pods);
        for number in 0..nodes {
            world.nodes.insert(format!("node-{number}"), Kubelet::new(world.allocatable));
        }
        for (number, count) in pods.into_iter().enumerate() {
            let member = world.group["spec"]["members"][number].clone();
            let deployment = Deployment::of(&member, count * nodes);
            world.deployments.insert(deployment.name.clone(), deployment);
        }
        for _ in 0..4 {
            world.others_act();
            world.now += 1;
        }
        world
    }

    /// The same with so much more cpu on each node, in thousandths of a core, and memory for any pods.
    pub(super) fn with_room(mut self, cpu: i64) -> Self {
        self.allocatable += Demand { cpu, memory: 64 * GIB };
        let names: Vec<String> = self.nodes.keys().cloned().collect();
        for name in names {
            let mut kubelet = Kubelet::new(self.allocatable);
            for pod in self.pods.values().filter(|pod| pod["spec"]["nodeName"] == *name) {
                assert!(kubelet.look(pod, at(self.now)), "a larger node has room for it");
            }
            self.nodes.insert(name, kubelet);
        }
        self
    }

    /// Another member comes, with so many pods in all.
    pub(super) fn add_member(&mut self, name: &str, replicas: usize, member: &Value) {
        let deployment = Deployment::of(member, replicas);
        self.deployments.insert(name.to_owned(), deployment);
        self.edit(json!({"members": [member]}));
    }

    /// As [`World::new`], when member `pay` has the peak. What it cost is not counted.
    pub(super) fn settled(nodes: usize, pods: [usize; 2], spec: Value) -> Self {
        Self::new(nodes, pods, spec).at_rest()
    }

    /// The same when it has come to rest. What that cost is not counted.
    pub(super) fn at_rest(mut self) -> Self {
        self.rest();
        assert_eq!(self.status().active_member.as_deref(), Some("pay"), "{:#}", self.group["status"]);
        self.written.clear();
        self.asked = 0;
        self
    }

    /// What a node needs that has so many pods of each member: of each resource, the most of any one at peak.
    fn needed(&self, pods: &[usize; 2]) -> Demand {
        let members = [0, 1].map(|number| {
            let count = i64::try_from(pods[number]).unwrap();
            let sum = |level: &str| {
                let spec = &self.group["spec"]["members"][number];
                let all = spec["containers"].as_array().unwrap().iter();
                let one: Demand = all.map(|container| Demand::from(Pair::read(&container[level]))).sum();
                Demand { cpu: one.cpu * count, memory: one.memory * count }
            };
            (sum("peak"), sum("valley"))
        });
        let [(pay, pay_valley), (promo, promo_valley)] = members;
        (pay + promo_valley).max(promo + pay_valley)
    }

    /// The status as stored.
    pub(super) fn status(&self) -> TimeShareGroupStatus {
        let stored = &self.group["status"];
        if stored.is_null() {
            return TimeShareGroupStatus::default();
        }
        serde_json::from_value(stored.clone()).unwrap()
    }

    /// Reason of a condition of the group; empty where it is not there.
    pub(super) fn reason(&self, type_: &str) -> String {
        let found = condition(&self.group["status"], type_);
        found.and_then(|found| found["reason"].as_str()).unwrap_or_default().to_owned()
    }

    /// Lays changes over the spec, as a user would.
    pub(super) fn edit(&mut self, spec: Value) {
        overlay(&mut self.group["spec"], spec);
        self.edited();
    }

    fn edited(&mut self) {
        let generation = self.group["metadata"]["generation"].as_i64().unwrap();
        self.group["metadata"]["generation"] = json!(generation + 1);
        self.group["metadata"]["resourceVersion"] = json!(self.next_version());
    }

    /// Gives a member the peak, or nobody, for longer than any test takes.
    pub(super) fn give(&mut self, member: Option<&str>) {
        self.give_until(member, 10_000_000);
    }

    /// Gives a member the peak until then.
    pub(super) fn give_until(&mut self, member: Option<&str>, until: i64) {
        let mut over = json!({"untilTime": at(until).to_string(), "reason": "a test"});
        if let Some(member) = member {
            over["member"] = json!(member);
        }
        self.group["spec"]["override"] = over;
        self.edited();
    }

    /// Deletes the group: it goes when nobody holds it any more.
    pub(super) fn delete_group(&mut self) {
        if self.group["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty) {
            self.group = Value::Null;
        } else if self.group["metadata"].get("deletionTimestamp").is_none() {
            self.group["metadata"]["deletionTimestamp"] = json!(at(self.now).to_string());
            self.edited();
        }
    }

    /// Another process takes over, which remembers nothing.
    pub(super) fn crash(&mut self) {
        self.memory = Memory::default();
    }

    /// One pass: what is seen is planned, and the plan is performed.
    pub(super) fn pass(&mut self) -> Passed {
        self.pass_until(usize::MAX)
    }

    /// One pass, in which the process ends after so many writes.
    pub(super) fn pass_until(&mut self, most: usize) -> Passed {
        if self.group.is_null() {
            let plan = Plan::idle(Outcome::Converged);
            return Passed { plan, sent: 0, is_cut: false };
        }
        let observed = self.observe();
        let plan = plan(&observed, at(self.now));
        assert!(plan.writes() <= MAX_WRITES, "{} writes in one plan", plan.writes());
        if self.oddities.is_late {
            self.others_act();
        }
        self.perform(plan, most)
    }

    /// Performs a plan as the executor does: what is in one stage is tried whatever becomes of the rest of it, but for what
    /// is behind in a chain, and nothing follows a stage in which something did not succeed.
    fn perform(&mut self, plan: Plan, most: usize) -> Passed {
        let status = plan.status.clone().map(|status| vec![Step::from(status)]);
        let stages: Vec<Vec<Step>> = plan.stages.iter().cloned().chain(status).collect();
        let mut sending = Sending { left: most, sent: 0, results: Vec::new() };
        let mut goes_on = true;
        for stage in stages {
            let mut succeeded = goes_on;
            for step in stage {
                let Some(ended) = self.send_step(step, goes_on, &mut sending) else {
                    self.crash();
                    return Passed { plan, sent: sending.sent, is_cut: true };
                };
                // Once nothing reaches the server, the rest of a stage is not tried.
                goes_on &= ended != Ended::Unreachable;
                succeeded &= ended == Ended::Well;
            }
            goes_on = succeeded;
        }
        let views = self.views();
        let pod = |key: &ObjectKey| views.get(&*key.name).cloned();
        self.memory.settle(&sending.results, pod, at(self.now));
        Passed { plan, sent: sending.sent, is_cut: false }
    }

    /// Sends the writes of a step, each when the one before it has succeeded; none where `goes_on` is not so. `None`: the
    /// process has ended.
    fn send_step(&mut self, step: Step, goes_on: bool, sending: &mut Sending) -> Option<Ended> {
        let mut ended = if goes_on { Ended::Well } else { Ended::Badly };
        for write in step.into_writes() {
            let outcome = if ended != Ended::Well {
                Err(WriteError::Skipped)
            } else if write.action.is_noop() {
                Ok(Done { noop: true, ..Done::default() })
            } else {
                sending.left = sending.left.checked_sub(1)?;
                sending.sent += 1;
                let outcome = self.send(&write);
                ended = Ended::of(&outcome);
                outcome
            };
            sending.results.push(WriteResult { write, outcome });
        }
        Some(ended)
    }

    /// Everybody acts once, and time passes: a second where something has happened, else until something is due. `false`
    /// when nothing has happened for a long time.
    pub(super) fn step(&mut self) -> bool {
        let passed = self.pass();
        self.go_on_after(&passed)
    }

    /// What follows a pass: see [`World::step`].
    pub(super) fn go_on_after(&mut self, passed: &Passed) -> bool {
        let has_acted = self.others_act();
        // Questions are asked again and again of what is refused.
        let questions = passed.plan.stages.iter().flatten().filter(|step| is_question(step)).count();
        let has_written = passed.sent > questions;
        if has_acted || has_written || passed.is_cut {
            self.quiet_since = self.now;
        }
        let soon = self.now + 1;
        self.now = if passed.sent > 0 || has_acted || passed.is_cut {
            soon
        } else {
            self.wake(&passed.plan).map_or(self.now + LEAP, |wake| wake.clamp(soon, self.now + LEAP))
        };
        self.now - self.quiet_since <= REST
    }

    /// When somebody looks again though nothing happens.
    fn wake(&self, plan: &Plan) -> Option<i64> {
        let kubelets = self.nodes.values().filter_map(|kubelet| kubelet.node().wake());
        let wakes = plan.wake.into_iter().chain(kubelets);
        wakes.map(|wake| wake.as_second() - at(0).as_second() + i64::from(wake.subsec_nanosecond() > 0)).min()
    }

    /// Lets everybody act until nothing happens any more; no rule is broken on the way.
    #[track_caller]
    pub(super) fn rest(&mut self) {
        let since = self.now;
        self.quiet_since = self.now;
        for _ in 0..PASSES {
            let goes_on = self.step();
            self.assert_sound();
            if !goes_on {
                return;
            }
            assert!(self.now - since < PATIENCE, "no rest: {:#}", self.group["status"]);
        }
        panic!("no rest after {PASSES} passes: {:#}", self.group["status"]);
    }

    /// Lets everybody act until the world is as `check` wants it.
    #[track_caller]
    pub(super) fn until(&mut self, what: &str, mut check: impl FnMut(&Self) -> bool) {
        let since = self.now;
        for _ in 0..PASSES {
            if check(self) {
                return;
            }
            self.step();
            self.assert_sound();
            if self.now - since >= PATIENCE {
                break;
            }
        }
        panic!("not {what}: {:#}", self.group["status"]);
    }

    /// Lets everybody act for so many seconds.
    pub(super) fn run_for(&mut self, seconds: i64) {
        let end = self.now + seconds;
        while self.now < end {
            self.step();
            self.now = self.now.min(end);
            self.assert_sound();
        }
    }

    fn next_version(&mut self) -> String {
        self.versions += 1;
        self.versions.to_string()
    }
}

/// Writes on their way.
struct Sending {
    /// So many more are sent before the process ends.
    left: usize,
    sent: usize,
    results: Vec<WriteResult>,
}

/// How a write has ended, as the executor takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// What is behind it may follow.
    Well,
    /// It may not.
    Badly,
    /// Nothing else would get further.
    Unreachable,
}

impl Ended {
    fn of(outcome: &Result<Done, WriteError>) -> Self {
        match outcome {
            Ok(done) if done.dry_run.as_ref().is_none_or(Verdict::is_accepted) => Self::Well,
            Err(WriteError::Gone) => Self::Well,
            Err(WriteError::NotSent(_)) => Self::Unreachable,
            Ok(_) | Err(_) => Self::Badly,
        }
    }
}

fn is_question(step: &Step) -> bool {
    let is = |write: &Write| matches!(write.action, Action::DryRun { .. });
    step.writes().iter().all(is)
}

fn view<P: DeserializeOwned>(value: &Value) -> Arc<P> {
    Arc::new(serde_json::from_value(value.clone()).unwrap())
}

fn condition<'a>(status: &'a Value, type_: &str) -> Option<&'a Value> {
    status["conditions"].as_array()?.iter().find(|condition| condition["type"] == type_)
}
