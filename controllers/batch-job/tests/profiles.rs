//! What a profile recommends is what admission charges, what the pods get, and what the job's status tells.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail as a test does")]

use futures::FutureExt;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use springtide_batch_job::plan::{JobState, demand};
use springtide_batch_job::pods::PodFactory;
use springtide_batch_job::projections::job::JobView;
use springtide_batch_job::projections::node::NodeView;
use springtide_batch_job::projections::pod::PodView;
use springtide_batch_job::projections::profile::ProfileView;
use springtide_batch_job::projections::queue::QueueView;
use springtide_plumbing::resources::{PodSpecRequests, ResourceList};
use springtide_batch_job::shape::Shape;
use springtide_batch_job::watches::{JOBS_BY_PROFILE, PODS_BY_JOB};
use springtide_batch_job::{BatchJobReconciler, Stores};
use springtide_crds::batch_job::QueuedReason;
use springtide_plumbing::controller::Reconciler;
use springtide_plumbing::executor::{Done, WriteResult};
use springtide_plumbing::key::{ObjectKey, ResourceVersion};
use springtide_plumbing::plan::{Action, Plan};
use springtide_plumbing::queue::{Next, WorkQueue};
use springtide_plumbing::store::{Store, StoreWriter};
use springtide_plumbing::time_share::TimeShares;
use std::collections::BTreeMap;
use std::sync::Arc;

struct Bench {
    reconciler: Arc<BatchJobReconciler>,
    stores: Stores,
    queue: WorkQueue<ObjectKey>,
    jobs: StoreWriter<JobView>,
    pods: StoreWriter<PodView>,
    profiles: StoreWriter<ProfileView>,
    queues: StoreWriter<QueueView>,
    version: u64,
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn key() -> ObjectKey {
    ObjectKey::new("ns", "a")
}

impl Bench {
    /// A node with four cores, and nothing on it.
    fn new() -> Self {
        let (jobs_store, mut jobs) = Store::new(&[JOBS_BY_PROFILE]);
        let (pods_store, mut pods) = Store::new(&[PODS_BY_JOB]);
        let (profiles_store, mut profiles) = Store::new(&[]);
        let (nodes_store, mut nodes) = Store::new(&[]);
        let node: NodeView = serde_json::from_value(json!({
            "metadata": {"name": "n", "uid": "n", "resourceVersion": "1"},
            "status": {
                "allocatable": {"cpu": "4", "memory": "64Gi", "pods": "100"},
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        }))
        .unwrap();
        nodes.replace(BTreeMap::from([(ObjectKey::new("", "n"), Arc::new(node))]), ResourceVersion(1));
        jobs.replace(BTreeMap::new(), ResourceVersion(1));
        pods.replace(BTreeMap::new(), ResourceVersion(1));
        profiles.replace(BTreeMap::new(), ResourceVersion(1));
        let (queues_store, mut queues) = Store::new(&[]);
        queues.replace(BTreeMap::new(), ResourceVersion(1));
        let stores = Stores {
            jobs: jobs_store,
            pods: pods_store,
            profiles: profiles_store,
            nodes: Some(nodes_store),
            queues: queues_store,
            priority_classes: None,
            time_shares: TimeShares::of(&[], &[]),
        };
        let reconciler = BatchJobReconciler::new(stores.clone());
        let queue = WorkQueue::new(1);
        reconciler.wire(&queue).now_or_never().unwrap();
        Self { reconciler, stores, queue, jobs, pods, profiles, queues, version: 1 }
    }

    fn meta(&mut self, name: &str) -> Value {
        self.version += 1;
        json!({
            "namespace": "ns", "name": name, "uid": format!("u-{name}"), "generation": 1,
            "resourceVersion": self.version.to_string(), "creationTimestamp": at(0),
        })
    }

    fn job(&mut self, mode: &str) {
        self.job_with(&json!({"profile": {"key": "etl", "mode": mode}}));
    }

    fn job_with(&mut self, fields: &Value) {
        let metadata = self.meta("a");
        let mut spec = json!({
            "completions": 4, "parallelism": 4, "template": {"spec": {"containers": [{"name": "main"}]}},
        });
        spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        self.jobs.apply(serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap());
    }

    fn profile(&mut self, cpu: &str) {
        let metadata = self.meta("etl");
        let status = json!({
            "samples": 40, "containers": [{"name": "main", "recommended": {"cpu": cpu, "memory": "64Mi"}}],
        });
        let profile = json!({"metadata": metadata, "spec": {}, "status": status});
        self.profiles.apply(serde_json::from_value(profile).unwrap());
    }

    /// What the same profile has learned of the run time.
    fn run_time(&mut self, p95_seconds: u32) {
        let metadata = self.meta("etl");
        let run_time = json!({"p50Seconds": 10, "p95Seconds": p95_seconds});
        let status = json!({"samples": 40, "runTime": run_time});
        let profile = json!({"metadata": metadata, "spec": {}, "status": status});
        self.profiles.apply(serde_json::from_value(profile).unwrap());
    }

    /// A queue that ends the pods of all jobs of BestEffort from second 3500 on, 100 seconds before a peak.
    fn peak(&mut self) {
        let metadata = self.meta("reports");
        let (start, end) = (time_of_day(at(3600)), time_of_day(at(7200)));
        let window = json!({
            "name": "noon", "window": {"start": start, "end": end, "timeZone": "UTC"}, "leadSeconds": 100,
            "actions": [{"tier": "BestEffort", "action": "Drain"}],
        });
        let queue = json!({"metadata": metadata, "spec": {"peakWindows": [window]}});
        self.queues.apply(serde_json::from_value(queue).unwrap());
    }

    /// A job of that queue whose tasks are not to be interrupted.
    fn job_that_finishes(&mut self, expected_seconds: u32) {
        self.job_with(&json!({
            "queueName": "reports", "expectedSeconds": expected_seconds,
            "interruption": {"policy": "FinishOrDontStart"}, "profile": {"key": "etl", "mode": "Observe"},
        }));
    }

    /// One pass over the job, whose writes all succeed. Pods that it creates show up.
    fn pass(&mut self, second: i64) -> Plan {
        let observed = self.reconciler.observe(&key(), None, at(second)).unwrap();
        let plan = self.reconciler.plan(&observed, at(second));
        let writes = plan.stages.iter().flatten().flat_map(|step| step.writes().to_vec());
        let results: Vec<WriteResult> =
            writes.map(|write| WriteResult { write, outcome: Ok(Done::default()) }).collect();
        self.reconciler.settle(&key(), &results, at(second));
        for manifest in manifests(&plan) {
            let mut pod = manifest;
            self.version += 1;
            pod["metadata"]["uid"] = pod["metadata"]["name"].clone();
            pod["metadata"]["resourceVersion"] = json!(self.version.to_string());
            pod["metadata"]["creationTimestamp"] = json!(at(second));
            pod["spec"]["nodeName"] = json!("n");
            self.pods.apply(serde_json::from_value(pod).unwrap());
        }
        plan
    }

    /// Another process over the same objects.
    fn successor(&self) -> Arc<BatchJobReconciler> {
        let reconciler = BatchJobReconciler::new(self.stores.clone());
        reconciler.wire(&WorkQueue::new(1)).now_or_never().unwrap();
        reconciler
    }

    fn woken(&self) -> Vec<ObjectKey> {
        let next = || self.queue.next().now_or_never().flatten();
        let keys: Vec<_> = std::iter::from_fn(next).map(|item| item.key).collect();
        keys.iter().for_each(|key| self.queue.done(key, Next::Success));
        keys
    }
}

fn time_of_day(at: Timestamp) -> String {
    at.to_string()[11..16].to_owned()
}

/// Why the job waits, as the status tells that a plan writes: the reason and the message.
fn told(plan: &Plan) -> (String, String) {
    let Action::Status { status, .. } = &plan.status.as_ref().unwrap().action else { panic!("{plan:?}") };
    let conditions = status["conditions"].as_array().unwrap();
    let queued = conditions.iter().find(|condition| condition["type"] == "Queued").unwrap();
    let text = |field: &str| queued[field].as_str().unwrap().to_owned();
    (text("reason"), text("message"))
}

fn manifests(plan: &Plan) -> Vec<Value> {
    let writes = plan.stages.iter().flatten().flat_map(|step| step.writes());
    writes
        .filter_map(|write| match &write.action {
            Action::Create { manifest } => Some(manifest.clone()),
            Action::Delete { .. }
            | Action::Patch { .. }
            | Action::Apply { .. }
            | Action::Evict { .. }
            | Action::Status { .. }
            | Action::DryRun { .. } => None,
        })
        .collect()
}

fn requests(plan: &Plan) -> Vec<Value> {
    manifests(plan).iter().map(|pod| pod["spec"]["containers"][0]["resources"]["requests"].clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn pods_are_charged_and_made_with_what_is_recommended() {
    let mut bench = Bench::new();
    bench.profile("1500m");
    bench.job("Auto");
    let expected = json!({"cpu": "1500m", "memory": "64Mi"});
    let mut made = Vec::new();
    for second in 1..4 {
        made.extend(requests(&bench.pass(second)));
    }
    assert_eq!(made, [expected.clone(), expected], "of four cores two pods of 1500m take three");
    let status = bench.pass(10).status.unwrap();
    let Action::Status { status, .. } = status.action else { panic!("{status:?}") };
    assert_eq!(status["profile"], json!({"samples": 40, "applied": {"cpu": "1500m", "memory": "64Mi"}}));
    let conditions = status["conditions"].as_array().unwrap();
    let admitted = conditions.iter().find(|condition| condition["type"] == "Admitted").unwrap();
    let message = admitted["message"].as_str().unwrap();
    assert!(
        message.ends_with("profile etl, p95+15% of 40 runs: main cpu 1500m, main memory 64Mi"),
        "{message}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_job_that_still_starts_pods_follows_its_profile() {
    let mut bench = Bench::new();
    bench.job("Initial");
    assert_eq!(requests(&bench.pass(1)), [json!(null)], "there is no profile yet");
    bench.woken();
    bench.profile("3");
    assert!(bench.woken().contains(&key()), "what is recommended concerns it");
    assert_eq!(requests(&bench.pass(2)), [json!({"cpu": "3", "memory": "64Mi"})]);
    bench.woken();
    bench.profile("3");
    assert!(!bench.woken().contains(&key()), "the same again does not");
}

#[tokio::test(start_paused = true)]
async fn who_only_observes_gets_what_the_template_says() {
    let mut bench = Bench::new();
    bench.profile("3");
    bench.job("Observe");
    let plan = bench.pass(1);
    assert_eq!(requests(&plan), [json!(null)]);
    assert_eq!(manifests(&plan)[0]["metadata"]["labels"]["springtide.dev/profile"], "etl", "it is measured");
}

#[tokio::test(start_paused = true)]
async fn a_key_without_a_mode_gets_what_the_queue_says() {
    for (mode, expected) in [("Observe", json!(null)), ("Auto", json!({"cpu": "3", "memory": "64Mi"}))] {
        let mut bench = Bench::new();
        let metadata = bench.meta("reports");
        let queue = json!({"metadata": metadata, "spec": {"defaultProfileMode": mode}});
        bench.queues.apply(serde_json::from_value(queue).unwrap());
        bench.profile("3");
        bench.job_with(&json!({"queueName": "reports", "profile": {"key": "etl"}}));
        assert_eq!(requests(&bench.pass(1)), [expected], "{mode}");
    }
}

/// What the next pod of a job is charged as, and its manifest.
fn next_pod(state: &JobState) -> (Arc<Shape>, Value) {
    let factory = PodFactory::new(&state.job, &state.placement, &state.fitting, &[]);
    let write = factory.create(&state.dispatch.startable[0]);
    let Action::Create { manifest } = write.action else { panic!("{write:?}") };
    (demand(state).unwrap().shape, manifest)
}

/// What a pod of a manifest is charged, as the scheduler counts it.
fn charged(pod: &Value) -> ResourceList {
    PodSpecRequests::deserialize(&pod["spec"]).unwrap().of_template()
}

#[tokio::test(start_paused = true)]
async fn a_task_that_ran_out_of_memory_grows_from_what_its_profile_gave_and_is_charged_so() {
    let mut bench = Bench::new();
    bench.profile("1");
    let limits = json!({"memory": "128Mi"});
    let container = json!({"name": "main", "resources": {"limits": limits, "requests": {"memory": "16Mi"}}});
    let metadata = bench.meta("a");
    let spec = json!({
        "completions": 1, "profile": {"key": "etl", "mode": "Auto"},
        "retry": {"initialBackoffSeconds": 0, "onOOM": {"memoryPercent": 200}},
        "template": {"spec": {"containers": [container]}},
    });
    let status = json!({
        "failed": 1, "exitCodes": [{"code": 137, "reason": "OOMKilled", "count": 1}],
        "admittedTime": at(0),
    });
    let job = json!({"metadata": metadata, "spec": spec, "status": status});
    bench.jobs.apply(serde_json::from_value(job).unwrap());
    let observed = bench.reconciler.observe(&key(), None, at(1000)).unwrap();
    let (shape, pod) = next_pod(observed.state.as_ref().unwrap());
    assert_eq!(
        pod["spec"]["containers"][0]["resources"],
        json!({"limits": {"memory": "256Mi"}, "requests": {"cpu": "1", "memory": "128Mi"}}),
        "twice the 64Mi of the profile, within twice the limit"
    );
    let charge = charged(&pod);
    assert_eq!((shape.requests.cpu, shape.requests.memory), (charge.cpu, charge.memory));
}

#[tokio::test(start_paused = true)]
async fn a_tier_that_renames_resources_renames_those_of_the_profile_and_charges_them() {
    let mut bench = Bench::new();
    let metadata = bench.meta("reports");
    let tiers = json!([{"name": "BestEffort", "resourceNames": {"cpu": "kubernetes.io/batch-cpu"}}]);
    let queue = json!({"metadata": metadata, "spec": {"tiers": tiers}});
    bench.queues.apply(serde_json::from_value(queue).unwrap());
    bench.profile("1500m");
    bench.job_with(&json!({"queueName": "reports", "profile": {"key": "etl", "mode": "Initial"}}));
    let observed = bench.reconciler.observe(&key(), None, at(1)).unwrap();
    let (shape, pod) = next_pod(observed.state.as_ref().unwrap());
    assert_eq!(
        (shape.requests.cpu, shape.requests.get("kubernetes.io/batch-cpu"), shape.requests.memory),
        (0, 1500, 64 << 20)
    );
    let charge = charged(&pod);
    assert_eq!(
        (charge.cpu, charge.get("kubernetes.io/batch-cpu"), charge.memory),
        (0, 1500, 64 << 20),
        "what is charged is what is made"
    );
}

#[tokio::test(start_paused = true)]
async fn who_asks_is_told_of_every_request_and_of_the_run_time() {
    let mut bench = Bench::new();
    bench.profile("1500m");
    bench.job_with(&json!({"expectedSeconds": 120, "profile": {"key": "etl", "mode": "Auto"}}));
    let whys = |plan: &Plan| -> Vec<String> {
        plan.why.iter().skip(1).map(|why| format!("{}: {}", why.reason, why.message)).collect()
    };
    let follows = "the template requests none: percentile 95 of 40 runs of profile etl and 15 %";
    assert_eq!(
        whys(&bench.pass(1)),
        [
            format!("ProfileRequest: container main requests cpu 1500m, {follows}"),
            format!("ProfileRequest: container main requests memory 64Mi, {follows}"),
            "ExpectedRunTime: a pod runs for 120 s, by spec.expectedSeconds".to_owned(),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn what_another_process_gave_is_told_as_it_was_written_whatever_is_learned_since() {
    let mut bench = Bench::new();
    bench.profile("1500m");
    bench.job("Auto");
    for second in 1..4 {
        bench.pass(second);
    }
    let written = bench.pass(10).status.unwrap();
    let Action::Status { status, .. } = written.action else { panic!("{written:?}") };
    let metadata = bench.meta("a");
    let spec = json!({
        "completions": 4, "parallelism": 4, "profile": {"key": "etl", "mode": "Auto"},
        "template": {"spec": {"containers": [{"name": "main"}]}},
    });
    let job = json!({"metadata": metadata, "spec": spec, "status": status});
    bench.jobs.apply(serde_json::from_value(job).unwrap());
    bench.profile("1600m");
    let next = bench.successor();
    let observed = next.observe(&key(), None, at(20)).unwrap();
    let state = observed.state.as_ref().unwrap();
    let outlook = springtide_batch_job::status::outlook(state, observed.verdict.as_ref(), at(20));
    assert_eq!(json!(outlook.status.profile), status["profile"]);
    let admitted = |conditions: &Value| {
        let all = conditions.as_array().unwrap().iter();
        all.clone().find(|condition| condition["type"] == "Admitted").unwrap()["message"].clone()
    };
    assert_eq!(admitted(&json!(outlook.status.conditions)), admitted(&status["conditions"]));
}

#[tokio::test(start_paused = true)]
async fn what_takes_longer_than_its_job_says_does_not_start_before_a_peak_until_it_is_known_to_take_less() {
    let mut bench = Bench::new();
    bench.peak();
    bench.run_time(1000);
    // By its own word it would be done long before the peak.
    bench.job_that_finishes(100);
    assert_eq!(manifests(&bench.pass(2600)), [] as [Value; 0], "there are 900 seconds");
    let plan = bench.pass(2640);
    assert_eq!(manifests(&plan), [] as [Value; 0]);
    let (reason, message) = told(&plan);
    assert_eq!(reason, "WouldNotFinish");
    assert!(message.starts_with("a task takes 1000 s, and pods of its tier are ended"), "{message}");
    bench.woken();
    bench.run_time(1000);
    assert!(!bench.woken().contains(&key()), "the same again is no news");
    // Of about the same length, so that it waits among those it waited with before.
    bench.run_time(860);
    assert!(bench.woken().contains(&key()), "it may start now");
    assert_eq!(manifests(&bench.pass(2640)).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_takes_less_than_its_job_says_starts_before_a_peak_until_it_is_known_to_take_longer() {
    let mut bench = Bench::new();
    bench.peak();
    bench.run_time(60);
    // By its own word it would be interrupted.
    bench.job_that_finishes(5000);
    assert_eq!(manifests(&bench.pass(2600)).len(), 1);
    bench.woken();
    bench.run_time(2000);
    assert!(bench.woken().contains(&key()), "the others may not start any more");
    let plan = bench.pass(2601);
    assert_eq!(manifests(&plan), [] as [Value; 0]);
    let observed = bench.reconciler.observe(&key(), None, at(2602)).unwrap();
    let waiting = observed.verdict.unwrap().waiting.unwrap();
    assert_eq!(waiting.reason, QueuedReason::WouldNotFinish);
    bench.run_time(60);
    assert!(!manifests(&bench.pass(2603)).is_empty());
}
