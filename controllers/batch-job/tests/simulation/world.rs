//! A controller process beside the cluster: it sees what its watches have delivered, plans when an
//! event or a point in time asks for it, and may die between any two writes.

// Its place is named for the other program that includes this file.
#[path = "world/process.rs"]
mod process;

use crate::cluster::{Cluster, NAMESPACE, NODE, attempt, is_deleting, is_terminal, text};
use futures::FutureExt;
use jiff::{SignedDuration, Timestamp};
use process::{Process, view};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use springtide_batch_job::Settings;
use springtide_batch_job::loads::NodeMetrics;
use springtide_plumbing::budget::WriteRates;
use springtide_plumbing::controller::{Reconciler, Settled};
use springtide_plumbing::error::WriteError;
use springtide_plumbing::executor::{Done, WriteResult};
use springtide_plumbing::failing::Failing;
use springtide_plumbing::key::{ObjectKey, Resource};
use springtide_plumbing::plan::{Action, MAX_WRITES, Plan, Step, Write};
use springtide_plumbing::queue::Next;
use springtide_plumbing::warrant::{Target, Warrants};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Passes without anything new after which a controller is in a hot loop.
const MAX_PASSES: usize = 300;

pub(crate) struct World {
    pub(crate) cluster: Cluster,
    process: Process,
    /// By name; what happens to them is seen at once.
    nodes: BTreeMap<String, Value>,
    /// BatchQueues by name, likewise.
    queues: BTreeMap<String, Value>,
    settings: Settings,
    /// By how much the clock of the process is ahead of the API server's.
    clock_ahead: SignedDuration,
    /// How often another process has taken over.
    pub(crate) restarts: usize,
}

/// What befalls the writes of a pass; the first one has number 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    None,
    /// The process dies before this write.
    Crash(usize),
    /// This write succeeds, and nobody hears of it.
    LostAnswer(usize),
    /// This write is not sent.
    NoBudget(usize),
}

fn node(name: &str, cpu: &str, is_cordoned: bool) -> Value {
    json!({
        "metadata": {"name": name, "uid": name, "resourceVersion": "1"},
        "spec": {"unschedulable": is_cordoned},
        "status": {
            "allocatable": {"cpu": cpu, "memory": "64Gi", "pods": "1000"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    })
}

pub(crate) fn key(job: &str) -> ObjectKey {
    ObjectKey::new(NAMESPACE, job)
}

impl World {
    /// One node with so much cpu; pods without requests count as 100m.
    pub(crate) fn new(cpu: &str) -> Self {
        Self::with_settings(cpu, Settings::default())
    }

    /// The same under other bounds.
    pub(crate) fn with_settings(cpu: &str, settings: Settings) -> Self {
        let mut cluster = Cluster::new();
        let clock_ahead = SignedDuration::ZERO;
        let nodes = BTreeMap::from([(NODE.to_owned(), node(NODE, cpu, false))]);
        let queues = BTreeMap::new();
        let process = Process::start(&mut cluster, &nodes, &queues, settings, clock_ahead);
        Self { cluster, process, nodes, queues, settings, clock_ahead, restarts: 0 }
    }

    /// What the clock of the process shows.
    pub(crate) fn now(&self) -> Timestamp {
        self.cluster.now + self.clock_ahead
    }

    /// Somebody puts the clock of the process so far ahead of the API server's. Timers run on as they were.
    pub(crate) fn put_clock_ahead(&mut self, ahead: SignedDuration) {
        let step = ahead - self.clock_ahead;
        self.clock_ahead = ahead;
        self.process.wakes.values_mut().for_each(|at| *at += step);
    }

    /// The process dies, and another one starts from a list of everything.
    pub(crate) fn restart(&mut self) {
        let (nodes, queues) = (&self.nodes, &self.queues);
        self.restarts += 1;
        self.process = Process::start(&mut self.cluster, nodes, queues, self.settings, self.clock_ahead);
    }

    /// The process writes so fast into a namespace, until it dies.
    pub(crate) fn follow_budget(&self, rate: Arc<AtomicU32>) {
        let rates = move || {
            let rate = rate.load(Ordering::Relaxed);
            WriteRates { namespace: rate, controller: rate }
        };
        self.process.reconciler.follow_budget(Arc::new(rates));
    }

    /// A node comes, changes or goes.
    pub(crate) fn set_node(&mut self, name: &str, cpu: Option<&str>, is_cordoned: bool) {
        let before = self.nodes.remove(name);
        let writer = &mut self.process.nodes;
        match (cpu, before) {
            (Some(cpu), _) => {
                let mut node = node(name, cpu, is_cordoned);
                node["metadata"]["resourceVersion"] = json!(self.cluster.next_version().to_string());
                writer.apply(view(&node));
                self.nodes.insert(name.to_owned(), node);
            }
            (None, Some(mut last)) => {
                last["metadata"]["resourceVersion"] = json!(self.cluster.next_version().to_string());
                writer.delete(view(&last));
            }
            (None, None) => {}
        }
    }

    /// Whether there is a node of that name.
    pub(crate) fn has_node(&self, name: &str) -> bool {
        self.nodes.contains_key(name)
    }

    /// A node dies, and is deleted; its pods are removed by force.
    pub(crate) fn lose_node(&mut self, name: &str) {
        self.set_node(name, None, false);
        self.cluster.lose_pods_of(name);
    }

    /// The loop over BatchQueues looks at all of them, and writes their statuses.
    pub(crate) fn pass_queues(&mut self) {
        self.deliver(usize::MAX, usize::MAX);
        let now = self.now();
        let names: Vec<String> = self.queues.keys().cloned().collect();
        for name in names {
            let key = key(&name);
            let Some(observed) = self.process.queue_loop.observe(&key, None, now) else { continue };
            let plan = self.process.queue_loop.plan(&observed, now);
            let Some(write) = plan.status else { continue };
            let Action::Status { status, .. } = &write.action else { panic!("{write:?}") };
            let version = self.cluster.next_version().to_string();
            let queue = self.queues.get_mut(&name).unwrap();
            queue["status"] = status.clone();
            queue["metadata"]["resourceVersion"] = json!(version);
            self.process.queues.apply(view(queue));
            let done = Done::default();
            self.process.queue_loop.settle(&key, &[WriteResult { write, outcome: Ok(done) }], now);
        }
    }

    /// The stored status of a BatchQueue.
    pub(crate) fn queue_status(&self, name: &str) -> &Value {
        &self.queues[name]["status"]
    }

    /// An administrator writes a BatchQueue, or deletes it.
    pub(crate) fn set_queue(&mut self, name: &str, spec: Option<Value>) {
        let before = self.queues.remove(name);
        let version = self.cluster.next_version().to_string();
        let writer = &mut self.process.queues;
        match (spec, before) {
            (Some(spec), before) => {
                let new = || {
                    let created = self.cluster.now.to_string();
                    json!({"metadata": {"namespace": NAMESPACE, "name": name, "uid": format!("{name}-{version}"),
                        "creationTimestamp": created, "generation": 0}})
                };
                let mut queue = before.unwrap_or_else(new);
                let generation = queue["metadata"]["generation"].as_i64().unwrap() + 1;
                queue["metadata"]["generation"] = json!(generation);
                queue["metadata"]["resourceVersion"] = json!(version);
                queue["spec"] = spec;
                writer.apply(view(&queue));
                self.queues.insert(name.to_owned(), queue);
            }
            (None, Some(mut last)) => {
                last["metadata"]["resourceVersion"] = json!(version);
                writer.delete(view(&last));
            }
            (None, None) => {}
        }
    }

    /// A metrics server tells what is in use on each node.
    pub(crate) fn measure(&mut self, cpu: &str) {
        *self.process.time.lock().unwrap() = self.now();
        let (now, reconciler) = (self.now(), &self.process.reconciler);
        let told = self.nodes.keys().map(|name| {
            view::<NodeMetrics>(&json!({"metadata": {"name": name}, "timestamp": now, "usage": {"cpu": cpu}}))
        });
        reconciler.take_load(reconciler.load_usage().next(told.collect(), &HashMap::new(), now));
    }

    /// The watches show further events.
    pub(crate) fn deliver(&mut self, jobs: usize, pods: usize) {
        *self.process.time.lock().unwrap() = self.now();
        self.process.jobs.deliver(&mut self.cluster.jobs, jobs);
        self.process.pods.deliver(&mut self.cluster.pods, pods);
    }

    /// Watches are cut, and list anew: the events that they have not shown yet are lost.
    pub(crate) fn cut_watches(&mut self, of_jobs: bool, of_pods: bool) {
        *self.process.time.lock().unwrap() = self.now();
        let version = self.cluster.version();
        if of_jobs {
            self.process.jobs.relist(&mut self.cluster.jobs, version);
        }
        if of_pods {
            self.process.pods.relist(&mut self.cluster.pods, version);
        }
    }

    /// What the controller would do now about a job.
    pub(crate) fn plan(&self, job: &ObjectKey) -> Option<Plan> {
        self.plan_under(job, None)
    }

    /// The same while its writes fail.
    pub(crate) fn plan_under(&self, job: &ObjectKey, failing: Option<&Failing>) -> Option<Plan> {
        let observed = self.process.reconciler.observe(job, failing, self.now())?;
        Some(self.process.reconciler.plan(&observed, self.now()))
    }

    /// The loop has users told that writes fail. Returns whether the status tells.
    pub(crate) fn tell(&mut self, job: &ObjectKey, failing: &Failing) -> bool {
        let telling = self.process.reconciler.tell(job, failing, self.now()).unwrap();
        let told = telling.status.inspect(|write| assert!(self.cluster.perform(write).is_ok()));
        self.deliver(usize::MAX, usize::MAX);
        told.is_some()
    }

    /// One pass over a job, on what its watches have shown. Returns the number of writes that changed
    /// something.
    pub(crate) fn pass(&mut self, job: &ObjectKey, trouble: Trouble) -> usize {
        // The gate: its own writes have been seen.
        let owed = (self.process.jobs.owed, self.process.pods.owed);
        self.deliver(owed.0, owed.1);
        self.process.again.remove(job);
        self.process.wakes.remove(job);
        let Some(plan) = self.plan(job) else { return 0 };
        assert!(plan.writes() <= MAX_WRITES, "{} writes", plan.writes());
        if let Some(at) = plan.wake {
            self.process.wakes.insert(job.clone(), at);
        }
        let mut results: Vec<WriteResult> = Vec::new();
        let mut changes = 0;
        let mut failed = false;
        for stage in plan.stages.into_iter().chain(plan.status.map(|status| vec![status.into()])) {
            let skipped = failed;
            for write in stage.into_iter().flat_map(Step::into_writes) {
                if skipped {
                    results.push(WriteResult { write, outcome: Err(WriteError::Skipped) });
                    continue;
                }
                self.must_be_warranted(&write);
                let number = results.len();
                if trouble == Trouble::Crash(number) {
                    self.restart();
                    return changes;
                }
                let outcome = if trouble == Trouble::NoBudget(number) {
                    Err(WriteError::Busy { retry_after: Duration::from_secs(1) })
                } else {
                    self.cluster.perform(&write)
                };
                let outcome = match outcome {
                    Ok(done) if trouble == Trouble::LostAnswer(number) && !done.noop => {
                        changes += 1;
                        Err(WriteError::Unknown("connection reset".into()))
                    }
                    outcome => outcome,
                };
                let owed = if write.resource == Resource::POD {
                    (&mut self.process.pods.owed, self.cluster.pods.events.len())
                } else {
                    (&mut self.process.jobs.owed, self.cluster.jobs.events.len())
                };
                // Refused ones too, where somebody else's object has to be seen first.
                *owed.0 = owed.1;
                match &outcome {
                    Ok(done) => changes += usize::from(!done.noop),
                    Err(WriteError::Gone) => {}
                    Err(_) => failed = true,
                }
                results.push(WriteResult { write, outcome });
            }
        }
        let settled = self.process.reconciler.settle(job, &results, self.now());
        let refused = results.iter().any(|result| matches!(result.outcome, Err(WriteError::Refused(_))));
        if failed && (!refused || settled == Settled::Handled) {
            self.process.again.insert(job.clone());
        }
        changes
    }

    /// Everything that the planner destroys has a warrant, or the breaker would open for nothing.
    fn must_be_warranted(&self, write: &Write) {
        if !write.action.is_destructive() {
            return;
        }
        let (uid, is_delete) = (write.action.uid(), write.action.is_delete());
        let target = Target { resource: write.resource, key: &write.key, uid, is_delete };
        assert!(
            self.process.warrants.warrant(&target).is_some(),
            "no warrant for {write:?}\n{:#?}\n{:#?}",
            self.cluster.pods.objects.get(&*write.key.name),
            self.cluster.jobs.objects
        );
    }

    /// A job for which an event, a failure or the time asks for a pass.
    pub(crate) fn next_key(&mut self) -> Option<ObjectKey> {
        let now = self.now();
        let process = &mut self.process;
        if let Some(item) = process.queue.next().now_or_never().flatten() {
            process.queue.done(&item.key, Next::Success);
            return Some(item.key);
        }
        let due = process.wakes.iter().find(|(_, at)| **at <= now).map(|(key, _)| key.clone());
        due.or_else(|| process.again.first().cloned())
    }

    /// Shows everything to the controller and lets it work until it has nothing to do now.
    ///
    /// Returns the number of writes that changed something.
    pub(crate) fn settle(&mut self) -> usize {
        let (mut passes, mut changes) = (0, 0);
        loop {
            self.deliver(usize::MAX, usize::MAX);
            let Some(key) = self.next_key() else { return changes };
            let writes = self.pass(&key, Trouble::None);
            changes += writes;
            passes = if writes > 0 { 0 } else { passes + 1 };
            // A change of capacity wakes every job that waits for it.
            let most = MAX_PASSES.max(4 * self.cluster.jobs.objects.len());
            assert!(passes < most, "a hot loop over {key}: {:?}", self.plan(&key));
        }
    }

    /// When the controller wants to look again by itself, on its own clock.
    pub(crate) fn next_wake(&self) -> Option<Timestamp> {
        self.process.wakes.values().min().copied()
    }

    /// Moves the time to the next moment the controller asked for; `false` when it asked for none.
    pub(crate) fn sleep(&mut self) -> bool {
        let Some(at) = self.next_wake() else { return false };
        self.cluster.now = self.cluster.now.max(at - self.clock_ahead);
        true
    }

    /// Everything goes well from now on: pods start, succeed and are reaped, until the job has ended.
    pub(crate) fn run_to_the_end(&mut self, job: &str) -> Value {
        for _ in 0..10_000 {
            self.settle();
            let stored =
                self.cluster.jobs.objects.get(job).unwrap_or_else(|| panic!("{job} is gone")).clone();
            if is_finished(&stored) {
                return stored;
            }
            if !self.work() {
                self.cluster.pass_time(1);
                assert!(self.sleep(), "{job} waits for nothing: {:#}", json!(stored));
            }
        }
        panic!("{job} does not end: {:#?}", self.cluster.log)
    }

    /// Kubelet and garbage collector do the next thing for every pod; `false` when there was none.
    pub(crate) fn work(&mut self) -> bool {
        let before = self.cluster.version();
        self.cluster.collect_garbage();
        let pods: Vec<Value> = self.cluster.pods.objects.values().cloned().collect();
        for pod in pods {
            let name = text(&pod, "/metadata/name");
            if is_deleting(&pod) {
                self.cluster.reap(name);
            } else if text(&pod, "/status/phase") == "Pending" {
                self.cluster.start(name);
            } else if !is_terminal(&pod) && !text(&pod, "/metadata/ownerReferences/0/uid").is_empty() {
                self.cluster.finish(name, 0);
            }
        }
        self.cluster.version() != before
    }

    /// The kubelet starts what is to start.
    pub(crate) fn work_but_finish_nothing(&mut self) {
        for name in self.pod_names().into_iter().map(str::to_owned).collect::<Vec<_>>() {
            self.cluster.start(&name);
        }
    }

    /// What this process measured, in the text format.
    pub(crate) fn metrics(&self) -> String {
        let (mut registry, mut text) = (Registry::default(), String::new());
        self.process.reconciler.register(&mut registry);
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }

    /// Names of the pods there are, in order.
    pub(crate) fn pod_names(&self) -> Vec<&str> {
        self.cluster.pods.objects.keys().map(String::as_str).collect()
    }

    /// The stored status of a job.
    pub(crate) fn status(&self, job: &str) -> &Value {
        &self.cluster.jobs.objects[job]["status"]
    }

    /// Reason of a condition of a job, or nothing.
    pub(crate) fn reason(&self, job: &str, condition: &str) -> &str {
        let conditions = self.status(job)["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
        let found = conditions.iter().find(|found| found["type"] == condition);
        found.map_or("", |found| text(found, "/reason"))
    }

    /// Indexes of the pods that may run.
    pub(crate) fn live(&self) -> Vec<u32> {
        self.cluster.pods.objects.values().filter(|pod| !is_terminal(pod)).map(|pod| attempt(pod).0).collect()
    }
}

pub(crate) fn is_finished(job: &Value) -> bool {
    let conditions = job["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    conditions
        .iter()
        .any(|found| found["status"] == "True" && (found["type"] == "Complete" || found["type"] == "Failed"))
}
