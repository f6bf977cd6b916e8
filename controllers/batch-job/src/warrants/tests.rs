mod loads;
mod peaks;
mod preemption;
mod unscheduled;

use super::*;
use crate::projections::node::NodeView;
use crate::projections::profile::ProfileView;
use crate::watches::PODS_BY_JOB;
use serde_json::{Value, json};
use springtide_plumbing::key::{Resource, ResourceVersion};
use springtide_plumbing::store::{Store, StoreWriter};
use springtide_plumbing::time_share::{GROUPS_BY_WORKLOAD, TimeShareGroupView, TimeShares};
use std::collections::BTreeMap;

/// Stores of a cluster, the clock, and what may be destroyed in it.
struct Bench {
    warrants: Arc<BatchJobWarrants>,
    jobs: StoreWriter<JobView>,
    pods: StoreWriter<PodView>,
    queues: StoreWriter<QueueView>,
    profiles: StoreWriter<ProfileView>,
    nodes: StoreWriter<NodeView>,
    groups: StoreWriter<TimeShareGroupView>,
    now: Arc<Mutex<Timestamp>>,
    version: u64,
}

const START: &str = "2026-11-11T00:00:00Z";

impl Bench {
    fn new() -> Self {
        Self::with_settings(Settings::default())
    }

    fn with_settings(settings: Settings) -> Self {
        let (jobs_store, mut jobs) = Store::new(&[]);
        let (profiles_store, mut profiles) = Store::new(&[]);
        let (pods_store, mut pods) = Store::new(&[PODS_BY_JOB]);
        let (nodes_store, mut nodes) = Store::new(&[]);
        let now = Arc::new(Mutex::new(START.parse().unwrap()));
        let shows = Arc::clone(&now);
        let clock = Clock::from_fn(move || *shows.lock().unwrap());
        let (queues_store, mut queues) = Store::new(&[]);
        let (groups_store, mut groups) = Store::new(&[GROUPS_BY_WORKLOAD]);
        let stores = Stores {
            jobs: jobs_store,
            pods: pods_store,
            profiles: profiles_store,
            nodes: Some(nodes_store),
            queues: queues_store,
            priority_classes: None,
            time_shares: TimeShares { groups: groups_store, ..TimeShares::of(&[], &[]) },
        };
        let warrants = BatchJobWarrants::new(stores, settings, clock);
        jobs.replace(BTreeMap::new(), ResourceVersion(1));
        pods.replace(BTreeMap::new(), ResourceVersion(1));
        queues.replace(BTreeMap::new(), ResourceVersion(1));
        nodes.replace(BTreeMap::new(), ResourceVersion(1));
        profiles.replace(BTreeMap::new(), ResourceVersion(1));
        groups.replace(BTreeMap::new(), ResourceVersion(1));
        Self { warrants, jobs, pods, queues, profiles, nodes, groups, now, version: 1 }
    }

    fn after(&self, seconds: i64) {
        *self.now.lock().unwrap() += SignedDuration::from_secs(seconds);
    }

    fn job(&mut self, spec: Value, status: Value) {
        self.job_named("a", spec, status);
    }

    fn job_named(&mut self, name: &str, spec: Value, status: Value) {
        self.job_with(name, |job| {
            job["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
            job["status"] = status;
        });
    }

    fn job_with(&mut self, name: &str, change: impl FnOnce(&mut Value)) {
        self.version += 1;
        let mut job = json!({
            "metadata": {
                "namespace": "ns", "name": name, "uid": format!("u-{name}"),
                "resourceVersion": self.version.to_string(), "creationTimestamp": START,
            },
            "spec": {"template": {"spec": {"containers": [{"name": "main"}]}}},
        });
        change(&mut job);
        self.jobs.apply(serde_json::from_value(job).unwrap());
    }

    /// A pod of the job `a`, as `change` makes it; running on a node otherwise.
    fn pod(&mut self, name: &str, change: impl FnOnce(&mut Value)) {
        self.version += 1;
        let mut pod = json!({
            "metadata": {
                "namespace": "ns", "name": name, "uid": format!("u-{name}"),
                "resourceVersion": self.version.to_string(), "creationTimestamp": START,
                "finalizers": ["springtide.dev/job-tracking"], "labels": {"springtide.dev/job": "a"},
                "ownerReferences": [{"kind": "BatchJob", "name": "a", "uid": "u-a", "controller": true}],
            },
            "spec": {"nodeName": "n"},
            "status": {"phase": "Running"},
        });
        change(&mut pod);
        self.pods.apply(serde_json::from_value(pod).unwrap());
    }

    fn running(&mut self, count: usize) {
        for index in 0..count {
            self.pod(&format!("a-{index}-0"), |_| {});
        }
    }

    fn ask(&self, resource: Resource, name: &str, is_delete: bool) -> Option<Warrant> {
        let key = ObjectKey::new("ns", name);
        let uid = format!("u-{name}");
        self.warrants.warrant(&Target { resource, key: &key, uid: Some(&uid), is_delete })
    }

    /// The warrant for the deletion of a pod.
    fn delete(&self, pod: &str) -> Option<Warrant> {
        self.ask(Resource::POD, pod, true)
    }

    /// The warrant for taking our finalizer from a pod.
    fn release(&self, pod: &str) -> Option<Warrant> {
        self.ask(Resource::POD, pod, false)
    }

    /// How many of the pods may be deleted.
    fn deletable(&self, count: usize) -> usize {
        (0..count).filter(|index| self.delete(&format!("a-{index}-0")).is_some()).count()
    }
}

fn phase(phase: &'static str) -> impl Fn(&mut Value) {
    move |pod| pod["status"]["phase"] = phase.into()
}

fn unscheduled(pod: &mut Value) {
    pod["spec"] = json!({});
    pod["status"]["phase"] = "Pending".into();
}

fn deleting(object: &mut Value) {
    object["metadata"]["deletionTimestamp"] = START.into();
}

fn stalled(reason: &str) -> Value {
    condition("Stalled", reason)
}

fn condition(type_: &str, reason: &str) -> Value {
    json!([{"type": type_, "status": "True", "reason": reason, "message": "", "lastTransitionTime": START}])
}

#[test]
fn a_running_pod_of_a_job_at_work_may_not_go() {
    let mut bench = Bench::new();
    bench.job(json!({"completions": 3, "parallelism": 3}), json!({}));
    bench.running(3);
    assert_eq!((bench.delete("a-0-0"), bench.release("a-0-0")), (None, None));
    bench.after(100_000);
    assert_eq!(bench.deletable(3), 0);
    assert_eq!(bench.ask(BATCH_JOB, "a", true), None);
    assert_eq!(bench.delete("a-7-0"), None, "nobody knows it");
    assert_eq!(bench.warrants.live(Resource::POD, Some("ns")), 3);
    assert_eq!(
        (bench.warrants.live(Resource::POD, Some("other")), bench.warrants.live(Resource::POD, None)),
        (0, 3)
    );
}

#[test]
fn an_ended_pod_may_go_once_its_outcome_is_stored() {
    let mut bench = Bench::new();
    bench.job(json!({"completions": 20, "parallelism": 9}), json!({}));
    for index in 0..12 {
        bench.pod(&format!("a-{index}-0"), phase("Succeeded"));
    }
    bench.pod("a-12-1", phase("Failed"));
    assert_eq!((bench.delete("a-0-0"), bench.release("a-0-0"), bench.delete("a-12-1")), (None, None, None));
    // Below 9, and 11: 0b100.
    let indexes = json!({"closedBelow": 9, "closedBitmap": "BA==", "retries": "12:1", "failed": ""});
    bench.job(json!({"completions": 20, "parallelism": 9}), json!({"indexes": indexes}));
    assert_eq!(
        (bench.delete("a-8-0"), bench.release("a-8-0")),
        (Some(Warrant::Finished), Some(Warrant::Finished))
    );
    assert_eq!((bench.delete("a-10-0"), bench.delete("a-11-0")), (None, Some(Warrant::Finished)));
    assert_eq!(bench.delete("a-12-1"), None, "only its first failure is counted");
    let indexes = json!({"closedBelow": 9, "closedBitmap": "BA==", "retries": "12:2", "failed": ""});
    bench.job(json!({"completions": 20, "parallelism": 9}), json!({"indexes": indexes}));
    assert_eq!(bench.delete("a-12-1"), Some(Warrant::Finished));
    let indexes = json!({"closedBelow": 99, "closedBitmap": "?", "retries": "", "failed": ""});
    bench.job(json!({"completions": 20, "parallelism": 9}), json!({"indexes": indexes}));
    assert_eq!(bench.delete("a-8-0"), None, "nothing is destroyed on a record that cannot be read");
}

#[test]
fn an_ended_pod_of_a_single_task_goes_by_the_count_of_failures_or_the_end() {
    let mut bench = Bench::new();
    bench.job(json!({}), json!({"failed": 1}));
    bench.pod("a-0-0", phase("Failed"));
    bench.pod("a-0-1", phase("Succeeded"));
    assert_eq!((bench.delete("a-0-0"), bench.delete("a-0-1")), (Some(Warrant::Finished), None));
    bench.job(
        json!({}),
        json!({"failed": 1, "succeeded": 1, "conditions": condition("Complete", "Completed")}),
    );
    assert_eq!(bench.delete("a-0-1"), Some(Warrant::Finished));
}

#[test]
fn a_failure_that_is_no_outcome_of_the_task_is_not_waited_for() {
    let mut bench = Bench::new();
    bench.job(json!({}), json!({}));
    let failed = |change: Value| {
        move |pod: &mut Value| {
            pod["status"] = change.clone();
            pod["status"]["phase"] = "Failed".into();
        }
    };
    let target = json!({"conditions": [{"type": "DisruptionTarget", "status": "True"}]});
    let was_target = json!({"conditions": [{"type": "DisruptionTarget", "status": "False"}]});
    for (status, warrant) in [
        (json!({}), None),
        (json!({"reason": "DeadlineExceeded"}), None),
        (was_target, None),
        (json!({"reason": "Evicted"}), Some(Warrant::Finished)),
        (json!({"reason": "OutOfcpu"}), Some(Warrant::Finished)),
        (target, Some(Warrant::Finished)),
    ] {
        bench.pod("a-0-0", failed(status.clone()));
        assert_eq!((bench.delete("a-0-0"), bench.release("a-0-0")), (warrant, warrant), "{status}");
    }
    bench.pod("a-0-0", |pod| {
        failed(json!({}))(pod);
        deleting(pod);
    });
    assert_eq!(bench.release("a-0-0"), Some(Warrant::Finished));
    let rules = json!([{"action": "Ignore", "onExitCodes": {"operator": "In", "values": [1]}}]);
    bench.job(json!({"podFailurePolicy": {"rules": rules}}), json!({}));
    bench.pod("a-0-0", phase("Failed"));
    assert_eq!(bench.delete("a-0-0"), Some(Warrant::Declared));
    bench.pod("a-0-0", phase("Succeeded"));
    assert_eq!(bench.delete("a-0-0"), None, "a success is an outcome, whatever the rules");
}

#[test]
fn pods_of_a_job_that_goes_or_went_are_its_owners_matter() {
    let mut bench = Bench::new();
    bench.job(json!({}), json!({}));
    bench.running(1);
    bench.job_with("a", deleting);
    assert_eq!(bench.release("a-0-0"), Some(Warrant::OwnerGone));
    bench.job_with("a", |_| {});
    assert_eq!(bench.release("a-0-0"), None);
    // Another one of its name comes.
    bench.job_with("a", |job| job["metadata"]["uid"] = "another".into());
    assert_eq!(bench.release("a-0-0"), Some(Warrant::OwnerGone));
}

#[test]
fn an_owner_that_was_never_seen_has_to_be_missed_for_a_while() {
    let mut bench = Bench::new();
    bench.running(2);
    assert_eq!(bench.release("a-0-0"), None, "its watch may be slow");
    bench.after(39);
    assert_eq!(bench.release("a-0-0"), None);
    bench.after(1);
    assert_eq!(
        (bench.release("a-0-0"), bench.release("a-1-0")),
        (Some(Warrant::OwnerGone), Some(Warrant::OwnerGone))
    );
    bench.job(json!({"completions": 2, "parallelism": 2}), json!({}));
    assert_eq!(bench.release("a-0-0"), None, "there it is");
}

#[test]
fn an_orphaned_pod_loses_the_finalizer_and_nothing_else() {
    let mut bench = Bench::new();
    bench.job(json!({}), json!({}));
    let orphan = |pod: &mut Value| pod["metadata"]["ownerReferences"] = json!([]);
    bench.pod("a-0-0", orphan);
    assert_eq!(bench.release("a-0-0"), None, "its job is there");
    bench.job_with("a", deleting);
    assert_eq!((bench.release("a-0-0"), bench.delete("a-0-0")), (Some(Warrant::OwnerGone), None));
    bench.pod("foreign", |pod| {
        pod["metadata"] = json!({"namespace": "ns", "name": "foreign", "uid": "u-foreign"})
    });
    assert_eq!((bench.release("foreign"), bench.delete("foreign")), (None, None));
}

#[test]
fn what_the_user_stops_may_go() {
    let mut bench = Bench::new();
    bench.job(json!({"completions": 2, "parallelism": 2, "stopPolicy": "Hold"}), json!({}));
    bench.pod("a-0-0", |_| {});
    bench.pod("a-1-0", unscheduled);
    assert_eq!((bench.delete("a-0-0"), bench.delete("a-1-0")), (None, Some(Warrant::Declared)));
    bench.job(json!({"completions": 2, "parallelism": 2, "stopPolicy": "Drain"}), json!({}));
    assert_eq!((bench.delete("a-0-0"), bench.release("a-0-0")), (Some(Warrant::Declared), None));
}

#[test]
fn a_pod_whose_delete_failed_keeps_no_other_from_going_in_its_place() {
    let mut bench = Bench::new();
    bench.job(json!({"completions": 4, "parallelism": 1}), json!({}));
    bench.running(2);
    assert_eq!(bench.delete("a-1-0"), Some(Warrant::Declared));
    assert_eq!(bench.delete("a-0-0"), None, "one of them stays");
    // Its delete was of another version than this.
    bench.pod("a-1-0", |_| {});
    assert_eq!(bench.delete("a-0-0"), Some(Warrant::Declared));
    assert_eq!(bench.delete("a-1-0"), None, "one of them stays");
}

#[test]
fn a_lowered_parallelism_warrants_the_difference_and_no_more() {
    let mut bench = Bench::new();
    bench.job(json!({"completions": 50, "parallelism": 20}), json!({}));
    bench.running(20);
    assert_eq!(bench.deletable(20), 0);
    bench.job(json!({"completions": 50, "parallelism": 17}), json!({}));
    assert_eq!(bench.deletable(20), 3, "while the store shows none of the deletes");
    assert_eq!(bench.deletable(20), 3, "the same three, tried again");
    for index in 0..3 {
        bench.pod(&format!("a-{index}-0"), deleting);
    }
    assert_eq!((3..20).filter(|index| bench.delete(&format!("a-{index}-0")).is_some()).count(), 0);
    // What was not deleted after all counts again.
    bench.after(61);
    for index in 0..3 {
        bench.pod(&format!("a-{index}-0"), |_| {});
    }
    assert_eq!(bench.deletable(20), 3);
}

#[test]
fn a_failed_job_loses_its_pods_only_if_the_figures_say_that_it_failed() {
    let started =
        json!({"backoffLimit": 2, "completions": 4, "parallelism": 4, "activeDeadlineSeconds": 100});
    let with = |reason: &str, more: Value| {
        let mut status = json!({"conditions": stalled(reason)});
        status.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        status
    };
    let running = |seconds: u32| json!({"runningSinceTime": START, "runningSeconds": seconds});
    for (status, is_met) in [
        (with("BackoffLimitExceeded", json!({"failed": 3})), true),
        (with("BackoffLimitExceeded", json!({"failed": 2})), false),
        (with("DeadlineExceeded", running(100)), true),
        (with("DeadlineExceeded", running(99)), false),
        (with("QueueDeadlineExceeded", json!({})), false),
        (with("PodFailurePolicy", json!({"failed": 1})), false),
        (with("MaxFailedIndexesExceeded", json!({"failed": 9})), false),
        (with("FailedIndexes", json!({})), false),
        (with("InvalidTemplate", json!({})), false),
        (with("NeverFits", json!({"failed": 9})), false),
        (json!({"failed": 9}), false),
    ] {
        let mut bench = Bench::new();
        bench.job(started.clone(), status.clone());
        bench.running(4);
        assert_eq!(bench.delete("a-0-0").is_some(), is_met, "{status}");
    }
    let indexes = json!({"closedBelow": 3, "closedBitmap": "", "retries": "", "failed": "0-2"});
    let failed_indexes = with("MaxFailedIndexesExceeded", json!({"indexes": indexes, "succeeded": 1}));
    for (most, is_met) in [(1, true), (2, false)] {
        let mut bench = Bench::new();
        let spec = json!({
            "completions": 4, "parallelism": 4, "completionMode": "Indexed", "backoffLimitPerIndex": 0,
            "maxFailedIndexes": most,
        });
        bench.job(spec, failed_indexes.clone());
        bench.running(4);
        assert_eq!(bench.delete("a-3-0").is_some(), is_met);
        assert_eq!(bench.delete("a-0-0"), Some(Warrant::Declared), "its index is closed");
    }
    // A failure that no status says yet.
    let mut bench = Bench::new();
    bench.job(started, with("BackoffLimitExceeded", json!({"failed": 2})));
    bench.running(2);
    bench.pod("a-2-0", phase("Failed"));
    assert_eq!(bench.delete("a-0-0"), Some(Warrant::Declared));
}

fn finished(seconds_ago: i64) -> Value {
    let at = START.parse::<Timestamp>().unwrap() - SignedDuration::from_secs(seconds_ago);
    json!({"completionTime": at.to_string(), "conditions": condition("Complete", "Completed")})
}

#[test]
fn a_finished_job_may_go_when_its_time_is_over_or_newer_ones_fill_the_history() {
    let settings = Settings { history_limit: 2, max_per_namespace: 6, ..Settings::default() };
    let mut bench = Bench::with_settings(settings);
    bench.job(json!({}), finished(900));
    assert_eq!(bench.ask(BATCH_JOB, "a", true), Some(Warrant::Finished));
    bench.job(json!({"ttlSecondsAfterFinished": 1000}), finished(900));
    assert_eq!(bench.ask(BATCH_JOB, "a", true), None);
    assert_eq!(bench.ask(BATCH_JOB, "a", false), None);
    bench.job_named("b", json!({}), finished(10));
    assert_eq!(bench.ask(BATCH_JOB, "a", true), None);
    bench.job_named("c", json!({}), finished(20));
    assert_eq!(bench.ask(BATCH_JOB, "a", true), Some(Warrant::Declared));
    assert_eq!((bench.ask(BATCH_JOB, "b", true), bench.ask(BATCH_JOB, "c", true)), (None, None));
    // Those that have work to do take the place of the history.
    for number in 0..5 {
        bench.job_named(&format!("w{number}"), json!({}), json!({}));
    }
    assert_eq!(
        (bench.ask(BATCH_JOB, "b", true), bench.ask(BATCH_JOB, "c", true)),
        (None, Some(Warrant::Declared))
    );
    assert_eq!(bench.ask(BATCH_JOB, "w0", true), None);
}

#[test]
fn a_finished_job_of_a_queue_goes_by_the_retention_of_that_queue() {
    let mut bench = Bench::new();
    let retention = json!({"ttlSecondsAfterFinished": 100, "historyLimit": 1});
    let queue = json!({
        "metadata": {"namespace": "ns", "name": "q", "uid": "q", "resourceVersion": "2"},
        "spec": {"retention": retention},
    });
    bench.queues.apply(serde_json::from_value(queue).unwrap());
    let in_queue = |seconds_ago| {
        let mut status = finished(seconds_ago);
        status["queue"] = json!("q");
        status
    };
    bench.job(json!({}), in_queue(100));
    bench.job_named("b", json!({}), in_queue(90));
    bench.job_named("c", json!({}), in_queue(80));
    // Of another queue: they count there.
    bench.job_named("d", json!({}), finished(100));
    let asked: Vec<_> = ["a", "b", "c", "d"].map(|name| bench.ask(BATCH_JOB, name, true)).into();
    assert_eq!(asked, [Some(Warrant::Finished), Some(Warrant::Declared), None, None]);
}

#[test]
fn another_incarnation_has_no_warrant_and_a_label_protects() {
    let mut bench = Bench::new();
    bench.job(json!({"stopPolicy": "Drain"}), json!({}));
    bench.pod("a-0-0", |pod| pod["metadata"]["labels"]["springtide.dev/delete-protection"] = "false".into());
    bench.job_with("b", |job| job["metadata"]["labels"] = json!({"springtide.dev/delete-protection": ""}));
    let key = |name| ObjectKey::new("ns", name);
    let (pod, job) = (key("a-0-0"), key("b"));
    let target = |uid| Target { resource: Resource::POD, key: &pod, uid: Some(uid), is_delete: true };
    assert_eq!(bench.warrants.warrant(&target("u-a-0-0")), Some(Warrant::Declared));
    assert_eq!(bench.warrants.warrant(&target("u-before")), None);
    assert!(bench.warrants.is_protected(&target("u-a-0-0")), "whatever its value");
    let target = Target { resource: BATCH_JOB, key: &job, uid: Some("u-b"), is_delete: true };
    assert!(bench.warrants.is_protected(&target));
    bench.job(json!({}), json!({}));
    let key = key("a");
    assert!(!bench.warrants.is_protected(&Target { key: &key, uid: Some("u-a"), ..target }));
}

#[test]
fn a_success_policy_ends_pods_only_when_the_record_shows_so_many_successes() {
    let mut bench = Bench::new();
    let mut may_go = |rule: Value, succeeded: u32| {
        // In a new version, as one that was warranted to go stays so for a while.
        bench.running(5);
        // Closed are 1 and 3; whatever the status says of the policy itself is the planner's word.
        let indexes = json!({"closedBitmap": "Cg==", "namedSucceeded": 5});
        bench.job(
            json!({"completions": 5, "parallelism": 5, "successPolicy": {"rules": [rule]}}),
            json!({"succeeded": succeeded, "indexes": indexes}),
        );
        bench.delete("a-0-0").is_some()
    };
    assert!(!may_go(json!({"succeededCount": 3}), 2));
    assert!(may_go(json!({"succeededCount": 2}), 2));
    let named = |indexes: &str| json!({"succeededIndexes": indexes});
    assert!(!may_go(named("0-3"), 5) && !may_go(named("7"), 5) && !may_go(json!({}), 5));
    assert!(!may_go(named("3-1"), 2), "2 has not ended");
    assert!(may_go(named("3,1,3"), 2));
    assert!(!may_go(named("1,3"), 1), "one of them failed for good");
    assert!(may_go(json!({"succeededIndexes": "0-4", "succeededCount": 2}), 2));
}
