use super::*;
use crate::profiles::usage::Usage;
use crate::watches::PODS_BY_JOB;
use futures::FutureExt;
use serde_json::{Value, json};
use springtide_plumbing::executor::Done;
use springtide_plumbing::key::ResourceVersion;
use springtide_plumbing::queue::Next;
use springtide_plumbing::store::{Store, StoreWriter};
use springtide_plumbing::time_share::TimeShares;
use std::collections::BTreeMap;

struct Bench {
    reconciler: Arc<ProfileReconciler>,
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

fn etl() -> ObjectKey {
    ObjectKey::new("ns", "etl")
}

impl Bench {
    fn new() -> Self {
        let (jobs_store, mut jobs) = Store::new(&[JOBS_BY_PROFILE]);
        let (pods_store, mut pods) = Store::new(&[PODS_BY_JOB]);
        let (profiles_store, mut profiles) = Store::new(&[]);
        jobs.replace(BTreeMap::new(), ResourceVersion(1));
        pods.replace(BTreeMap::new(), ResourceVersion(1));
        profiles.replace(BTreeMap::new(), ResourceVersion(1));
        let (queues_store, mut queues) = Store::new(&[]);
        queues.replace(BTreeMap::new(), ResourceVersion(1));
        let stores = Stores {
            jobs: jobs_store,
            pods: pods_store,
            profiles: profiles_store,
            nodes: None,
            queues: queues_store,
            priority_classes: None,
            time_shares: TimeShares::of(&[], &[]),
        };
        let reconciler = ProfileReconciler::new(stores, Clock::from_fn(|| at(1000)));
        let queue = WorkQueue::new(1);
        reconciler.wire(&queue).now_or_never().expect("all is listed");
        Self { reconciler, queue, jobs, pods, profiles, queues, version: 1 }
    }

    fn meta(&mut self, name: &str) -> Value {
        self.version += 1;
        json!({
            "namespace": "ns", "name": name, "uid": format!("u-{name}"), "resourceVersion": self.version.to_string(),
            "generation": 1, "creationTimestamp": at(0),
        })
    }

    /// A queue that says what a job gets without a mode.
    fn batch_queue(&mut self, name: &str, mode: &str) {
        let metadata = self.meta(name);
        let queue = json!({"metadata": metadata, "spec": {"defaultProfileMode": mode}});
        self.queues.apply(serde_json::from_value(queue).unwrap());
    }

    fn job(&mut self, name: &str, profile: Value) {
        self.job_in(name, None, profile);
    }

    fn job_in(&mut self, name: &str, queue: Option<&str>, profile: Value) {
        let metadata = self.meta(name);
        let template = json!({"spec": {"containers": [{"name": "main"}]}});
        let mut spec = json!({"profile": profile, "template": template});
        if let Some(queue) = queue {
            spec["queueName"] = json!(queue);
        }
        self.jobs.apply(serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap());
    }

    fn profile(&mut self, spec: Value, status: Value) {
        let metadata = self.meta("etl");
        let profile = json!({"metadata": metadata, "spec": spec, "status": status});
        self.profiles.apply(serde_json::from_value(profile).unwrap());
    }

    fn pod(&mut self, job: &str, index: u32, phase: &str, finished: i64) {
        let mut metadata = self.meta(&format!("{job}-{index}-0"));
        metadata["labels"] = json!({"springtide.dev/profile": "etl"});
        metadata["ownerReferences"] =
            json!([{"kind": "BatchJob", "name": job, "uid": format!("u-{job}"), "controller": true}]);
        let state = match phase {
            "Running" => json!({"running": {"startedAt": at(1)}}),
            _ => json!({"terminated": {"exitCode": 0, "startedAt": at(1), "finishedAt": at(finished)}}),
        };
        let status = json!({"phase": phase, "containerStatuses": [{"name": "main", "state": state}]});
        let pod = json!({"metadata": metadata, "spec": {"nodeName": "n"}, "status": status});
        self.pods.apply(serde_json::from_value(pod).unwrap());
    }

    /// Keys that are ready to be planned.
    fn woken(&self) -> Vec<ObjectKey> {
        let next = || self.queue.next().now_or_never().flatten();
        let keys: Vec<_> = std::iter::from_fn(next).map(|item| item.key).collect();
        keys.iter().for_each(|key| self.queue.done(key, Next::Success));
        keys
    }

    /// One pass; `stored` is whether what it writes is stored. Gives the status that it writes.
    fn pass(&mut self, now: Timestamp, stored: bool) -> Option<Value> {
        let status = self.perform(now, stored)?;
        if stored {
            self.profile(json!({}), status.clone());
        }
        Some(status)
    }

    /// One pass, of which the watch tells nothing yet.
    fn perform(&self, now: Timestamp, stored: bool) -> Option<Value> {
        let observed = self.reconciler.observe(&etl(), None, now)?;
        let plan = self.reconciler.plan(&observed, now);
        let results: Vec<WriteResult> = plan
            .status
            .into_iter()
            .map(|write| {
                let done = Done::default();
                let lost = springtide_plumbing::error::WriteError::Unknown("cut".to_owned());
                WriteResult { write, outcome: if stored { Ok(done) } else { Err(lost) } }
            })
            .collect();
        self.reconciler.settle(&etl(), &results, now);
        results.into_iter().find_map(|result| match result.write.action {
            Action::Status { status, .. } => Some(status),
            Action::Create { .. }
            | Action::Delete { .. }
            | Action::Patch { .. }
            | Action::Apply { .. }
            | Action::Evict { .. }
            | Action::DryRun { .. } => None,
        })
    }
}

#[test]
fn the_first_job_with_a_key_wakes_its_profile_and_no_other_job_does() {
    let mut bench = Bench::new();
    bench.job("plain", json!(null));
    bench.job("off", json!({"key": "etl", "mode": "Off"}));
    assert_eq!(bench.woken(), []);
    bench.job("a", json!({"key": "etl"}));
    assert_eq!(bench.woken(), [etl()]);
    let observed = bench.reconciler.observe(&etl(), None, at(0)).unwrap();
    assert!(observed.is_used && observed.stored.is_none());
    assert_eq!(bench.reconciler.plan(&observed, at(0)).stages.len(), 1);
    assert!(bench.reconciler.observe(&ObjectKey::new("ns", "other"), None, at(0)).is_none());
}

#[test]
fn each_run_is_learned_from_once_whatever_happens_to_the_write() {
    let mut bench = Bench::new();
    bench.profile(json!({}), json!({}));
    bench.job("a", json!({"key": "etl"}));
    for index in 0..3 {
        bench.pod("a", index, "Running", 0);
        bench.pod("a", index, "Succeeded", 100 + i64::from(index));
        bench.pod("a", index, "Succeeded", 100 + i64::from(index));
    }
    assert_eq!(bench.woken(), [etl()]);
    let lost = bench.pass(at(1000), false).unwrap();
    assert_eq!(lost["samples"], 3);
    // It was not stored after all: the runs come again.
    assert_eq!(bench.pass(at(1010), true).unwrap()["samples"], 3);
    assert_eq!(bench.pass(at(1100), true), None);
    bench.pod("a", 3, "Succeeded", 900);
    assert_eq!(bench.woken(), [etl()], "by the profile's change and the run");
    assert_eq!(bench.pass(at(1020), true), None, "within the minute");
    assert_eq!(bench.pass(at(1200), true).unwrap()["samples"], 4);
}

#[test]
fn a_run_that_ends_in_the_second_of_the_last_write_is_kept_though_the_watch_tells_late_of_that_write() {
    let mut bench = Bench::new();
    bench.profile(json!({}), json!({}));
    bench.job("a", json!({"key": "etl"}));
    bench.pod("a", 0, "Succeeded", 100);
    let written = bench.perform(at(1000), true).unwrap();
    // Both while the view still shows the status before.
    bench.pod("a", 1, "Succeeded", 100);
    bench.pod("a", 2, "Succeeded", 99);
    bench.profile(json!({}), written);
    assert_eq!(bench.pass(at(1100), true).unwrap()["samples"], 3);
}

#[test]
fn runs_whose_write_was_stored_though_nobody_said_so_do_not_come_again() {
    let mut bench = Bench::new();
    bench.profile(json!({}), json!({}));
    bench.job("a", json!({"key": "etl"}));
    bench.pod("a", 0, "Succeeded", 100);
    let lost = bench.pass(at(1000), false).unwrap();
    bench.profile(json!({}), lost);
    assert_eq!(bench.pass(at(1100), true), None);
}

#[test]
fn what_another_process_has_written_is_not_learned_twice() {
    let mut bench = Bench::new();
    bench.profile(json!({}), json!({}));
    bench.job("a", json!({"key": "etl"}));
    // A standby sees the runs; the leader writes the first two.
    for (index, finished) in [(0, 100), (1, 101), (2, 300)] {
        bench.pod("a", index, "Succeeded", finished);
    }
    bench.profile(
        json!({}),
        json!({"samples": 2, "lastSampleTime": at(101), "containers": [{"name": "main"}]}),
    );
    assert_eq!(bench.pass(at(1000), true).unwrap()["samples"], 3);
}

#[test]
fn a_new_process_passes_over_what_ended_before_the_last_sample() {
    let mut bench = Bench::new();
    bench.profile(
        json!({}),
        json!({"samples": 9, "lastSampleTime": at(500), "containers": [{"name": "main"}]}),
    );
    bench.job("a", json!({"key": "etl"}));
    bench.pod("a", 0, "Succeeded", 400);
    bench.pod("a", 1, "Succeeded", 600);
    assert_eq!(bench.pass(at(1000), true).unwrap()["samples"], 10);
}

#[test]
fn a_profile_that_is_off_learns_nothing_and_so_does_one_of_no_job() {
    let mut bench = Bench::new();
    bench.profile(json!({"maxMode": "Off"}), json!({}));
    bench.job("a", json!({"key": "etl", "mode": "Auto"}));
    bench.job("plain", json!(null));
    bench.pod("a", 0, "Succeeded", 100);
    bench.pod("plain", 0, "Succeeded", 100);
    bench.pod("gone", 0, "Succeeded", 100);
    assert!(lock(&bench.reconciler.records).values().all(|record| record.waiting.is_empty()));
}

#[test]
fn runs_of_another_task_do_not_pile_up() {
    let mut bench = Bench::new();
    let status = json!({"samples": 9, "containers": [{"name": "app"}]});
    bench.profile(json!({}), status);
    bench.job("a", json!({"key": "etl"}));
    bench.pod("a", 0, "Succeeded", 100);
    assert_eq!(bench.pass(at(1000), true).unwrap()["samples"], 9);
    bench.pod("a", 1, "Succeeded", 200);
    assert_eq!(bench.pass(at(2000), true), None, "all is said");
    assert!(lock(&bench.reconciler.records)[&etl()].waiting.is_empty());
}

#[test]
fn what_was_measured_of_a_pod_is_part_of_its_run_and_goes_with_it() {
    let mut bench = Bench::new();
    bench.profile(json!({}), json!({}));
    bench.job("a", json!({"key": "etl"}));
    bench.pod("a", 0, "Running", 0);
    bench.pod("a", 1, "Running", 0);
    let uid = |index: u32| Uid(format!("u-a-{index}-0").as_str().into());
    for cpu in [200, 300, 100] {
        let usage = Usage { cpu: Some(cpu), memory: None };
        bench.reconciler.measured(&uid(0), [("main".into(), usage)]);
        bench.reconciler.measured(&uid(1), [("main".into(), usage)]);
    }
    bench.pod("a", 0, "Succeeded", 100);
    let run = lock(&bench.reconciler.records)[&etl()].waiting[0].clone();
    assert_eq!(run.containers[0].usage, Usage { cpu: Some(300), memory: None }, "the most counts");
    let key = ObjectKey::new("ns", "a-1-0");
    let pod = bench.reconciler.stores.pods.get(&key).unwrap();
    bench.pods.delete(PodView::clone(&pod));
    assert!(lock(&bench.reconciler.measured).is_empty());
}

#[test]
fn beyond_the_maximum_no_profile_is_made() {
    let mut bench = Bench::new();
    for number in 0..MAX_PER_NAMESPACE {
        let metadata = bench.meta(&format!("p{number}"));
        bench.profiles.apply(serde_json::from_value(json!({"metadata": metadata, "spec": {}})).unwrap());
    }
    bench.job("a", json!({"key": "etl"}));
    let observed = bench.reconciler.observe(&etl(), None, at(0)).unwrap();
    assert!(observed.refusal.as_ref().is_some_and(|why| why.contains("200 profiles in the namespace")));
    assert_eq!(bench.reconciler.plan(&observed, at(0)).writes(), 0);
    assert_eq!(bench.reconciler.census().beyond_maximum, 0);
}

#[test]
fn a_job_that_leaves_the_mode_to_its_queue_is_learned_from_as_that_says() {
    let mut bench = Bench::new();
    bench.batch_queue("quiet", "Off");
    bench.batch_queue("busy", "Initial");
    bench.job_in("a", Some("quiet"), json!({"key": "etl"}));
    assert_eq!(bench.woken(), [], "its queue wants nothing learned");
    bench.job_in("b", Some("busy"), json!({"key": "etl"}));
    assert_eq!(bench.woken(), [etl()]);
    bench.profile(json!({}), json!({}));
    bench.pod("a", 0, "Succeeded", 100);
    let waiting =
        |bench: &Bench| lock(&bench.reconciler.records).get(&etl()).map_or(0, |record| record.waiting.len());
    assert_eq!(waiting(&bench), 0);
    bench.pod("b", 0, "Succeeded", 100);
    assert_eq!(waiting(&bench), 1);
}

#[test]
fn a_queue_that_lets_profiles_learn_wakes_those_that_are_to_be_made() {
    let mut bench = Bench::new();
    bench.batch_queue("default", "Off");
    bench.job("a", json!({"key": "etl"}));
    bench.job("b", json!({"key": "other", "mode": "Off"}));
    assert_eq!(bench.woken(), []);
    bench.batch_queue("default", "Observe");
    assert_eq!(bench.woken(), [etl()]);
    bench.batch_queue("default", "Observe");
    assert_eq!(bench.woken(), [], "the same again is no news");
}

#[test]
fn a_job_of_somebody_elses_is_not_learned_from() {
    let mut bench = Bench::new();
    let metadata = bench.meta("a");
    let spec = json!({
        "managedBy": "example.com/dispatcher", "profile": {"key": "etl"},
        "template": {"spec": {"containers": [{"name": "main"}]}},
    });
    bench.jobs.apply(serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap());
    assert_eq!(bench.woken(), []);
    bench.profile(json!({}), json!({}));
    bench.pod("a", 0, "Succeeded", 100);
    assert!(lock(&bench.reconciler.records).values().all(|record| record.waiting.is_empty()));
}

#[test]
fn a_new_process_keeps_the_distance_from_a_write_that_it_has_not_seen() {
    let mut bench = Bench::new();
    let written = json!({"observedGeneration": 1, "samples": 9, "containers": [{"name": "main"}]});
    bench.profile(json!({}), written);
    bench.job("a", json!({"key": "etl"}));
    bench.pod("a", 0, "Succeeded", 600);
    assert_eq!(bench.pass(at(1000), true), None, "the one before may have written a moment ago");
    assert_eq!(bench.pass(at(1059), true), None);
    assert_eq!(bench.pass(at(1060), true).unwrap()["samples"], 10);
    bench.pod("a", 1, "Succeeded", 610);
    assert_eq!(bench.pass(at(1119), true), None);
    assert_eq!(bench.pass(at(1120), true).unwrap()["samples"], 11);
}

#[test]
fn of_measurements_those_count_that_are_of_a_running_pod_and_of_its_own_time() {
    let mut bench = Bench::new();
    bench.profile(json!({}), json!({}));
    bench.job("a", json!({"key": "etl"}));
    assert!(bench.reconciler.sampled_namespaces().is_empty(), "nothing runs: nobody is asked");
    bench.pod("a", 0, "Running", 0);
    assert_eq!(bench.reconciler.sampled_namespaces(), [Some("ns".into())], "nodes are not seen here");
    let told = |pod: &str, second: i64, usage: Value| {
        let metrics = json!({
            "metadata": {"namespace": "ns", "name": pod}, "timestamp": at(second), "window": "10s",
            "containers": [{"name": "main", "usage": usage}],
        });
        bench.reconciler.take(serde_json::from_value(metrics).unwrap());
    };
    told("a-0-0", 0, json!({"cpu": "900m", "memory": "900Mi"}));
    told("b-0-0", 20, json!({"cpu": "800m", "memory": "800Mi"}));
    assert!(lock(&bench.reconciler.measured).is_empty(), "of an earlier pod of its name, and of none");
    told("a-0-0", 20, json!({"cpu": "300m", "memory": "64Mi"}));
    told("a-0-0", 35, json!({"cpu": "200m", "memory": "96Mi"}));
    told("a-0-0", 50, json!({"cpu": "700m", "memory": "0"}));
    bench.pod("a", 0, "Succeeded", 100);
    let run = lock(&bench.reconciler.records)[&etl()].waiting[0].clone();
    let most = Usage { cpu: Some(300), memory: Some(96 << 20) };
    assert_eq!(run.containers[0].usage, most, "without memory nothing was measured");
}
