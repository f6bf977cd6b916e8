//! Many jobs through the whole controller: stores, ceiling, outbox and planner, without a wire.

use super::outbox::{Failure, Outbox, Parcel};
use super::*;
use crate::projections::job::JobView;
use crate::projections::queue::QueueView;
use crate::{BatchJobWarrants, Settings, Stores};
use futures::FutureExt;
use jiff::SignedDuration;
use serde_json::{Value, json};
use springtide_plumbing::brake::Brake;
use springtide_plumbing::clock::Clock;
use springtide_plumbing::controller::Reconciler;
use springtide_plumbing::key::{Resource, ResourceVersion};
use springtide_plumbing::plan::{Action, Plan};
use springtide_plumbing::queue::{Next, WorkQueue};
use springtide_plumbing::store::{Store, StoreWriter};
use springtide_plumbing::time_share::TimeShares;
use springtide_plumbing::warrant::{Target, Warrants};
use std::collections::BTreeMap;

const START: Timestamp = Timestamp::constant(1_794_355_200, 0);

/// A controller with one queue, and the hand that writes its stores.
struct Rig {
    reconciler: Arc<BatchJobReconciler>,
    warrants: Arc<BatchJobWarrants>,
    queue: WorkQueue<ObjectKey>,
    jobs: Store<JobView>,
    writer: StoreWriter<JobView>,
    _others: Box<dyn std::any::Any>,
    version: u64,
    now: Timestamp,
    /// What the clock of `warrants` shows.
    time: Arc<Mutex<Timestamp>>,
}

impl Rig {
    fn new(retention: Value) -> Self {
        let (jobs, mut writer) = Store::new(&[]);
        let (pods, mut pod_writer) = Store::new(&[crate::watches::PODS_BY_JOB]);
        let (queues, mut queue_writer) = Store::<QueueView>::new(&[]);
        let (profiles, mut profile_writer) = Store::new(&[]);
        let stores = Stores {
            jobs: jobs.clone(),
            pods,
            profiles,
            nodes: None,
            queues,
            priority_classes: None,
            time_shares: TimeShares::of(&[], &[]),
        };
        profile_writer.replace(BTreeMap::new(), ResourceVersion(1));
        writer.replace(BTreeMap::new(), ResourceVersion(1));
        pod_writer.replace(BTreeMap::new(), ResourceVersion(1));
        queue_writer.replace(BTreeMap::new(), ResourceVersion(1));
        let object = json!({
            "metadata": {"namespace": "ns", "name": "default", "uid": "q", "resourceVersion": "2", "generation": 1},
            "spec": {"retention": retention},
        });
        queue_writer.apply(serde_json::from_value(object).unwrap());
        let time = Arc::new(Mutex::new(START));
        let shows = Arc::clone(&time);
        let clock = Clock::from_fn(move || *lock(&shows));
        let warrants = BatchJobWarrants::new(stores.clone(), Settings::default(), clock);
        let reconciler = BatchJobReconciler::new(stores);
        let queue = WorkQueue::new(1);
        reconciler.wire(&queue).now_or_never().expect("the stores are listed");
        let others = Box::new((pod_writer, queue_writer, profile_writer));
        Self { reconciler, warrants, queue, jobs, writer, _others: others, version: 2, now: START, time }
    }

    /// A job that has just finished.
    fn finish(&mut self, number: u32) {
        self.version += 1;
        let at = self.now.to_string();
        let job = json!({
            "metadata": {
                "namespace": "ns", "name": format!("j{number}"), "uid": format!("u{number}"), "generation": 1,
                "resourceVersion": self.version.to_string(), "creationTimestamp": at,
            },
            "spec": {"template": {"spec": {"containers": [{"name": "main", "image": "app"}]}}},
            "status": {
                "observedGeneration": 1, "queue": "default", "completionTime": at, "succeeded": 1,
                "conditions": [{
                    "type": "Complete", "status": "True", "observedGeneration": 1, "reason": "Completed", "message": "",
                    "lastTransitionTime": at,
                }],
            },
        });
        self.writer.apply(serde_json::from_value(job).unwrap());
    }

    /// All passes that are due; deletes are carried out. Returns the names of the jobs that went.
    fn settle(&mut self) -> Vec<String> {
        let mut gone = Vec::new();
        *lock(&self.time) = self.now;
        while let Some(item) = self.queue.next().now_or_never().flatten() {
            let observed = self.reconciler.observe(&item.key, None, self.now);
            self.queue.done(&item.key, Next::Success);
            let Some(observed) = observed else { continue };
            let Plan { stages, status, .. } = self.reconciler.plan(&observed, self.now);
            assert_eq!(status, None, "a finished job has its last status");
            for write in stages.into_iter().flatten().flat_map(|step| step.into_writes()) {
                let Action::Delete { uid, .. } = &write.action else { panic!("{write:?}") };
                let target =
                    Target { resource: write.resource, key: &write.key, uid: Some(&uid.0), is_delete: true };
                assert!(write.resource != Resource::POD && self.warrants.warrant(&target).is_some());
                self.version += 1;
                let last = self.jobs.get(&write.key).unwrap();
                self.writer.delete(JobView::clone(&last));
                gone.push(write.key.name.to_string());
            }
        }
        gone
    }

    fn outbox<T>(&self, look: impl FnOnce(&mut Outbox) -> T) -> T {
        look(&mut lock(&self.reconciler.archive.outbox))
    }

    /// Sends what may go out once every pause is over; all of it is taken.
    fn send(&self) -> usize {
        let (mut sent, late) = (0, Instant::now() + std::time::Duration::from_secs(3600));
        while let Some(parcel) = self.outbox(|outbox| outbox.next(late)) {
            self.reconciler.archived(&parcel, Ok(()));
            sent += 1;
        }
        sent
    }

    fn metrics(&self) -> String {
        let (mut registry, mut text) = (Registry::default(), String::new());
        self.reconciler.register(&mut registry);
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }
}

fn parcel_names(parcels: &[Parcel]) -> Vec<&str> {
    parcels.iter().map(|parcel| &*parcel.job.meta().key.name).collect()
}

#[test]
fn a_job_is_deleted_when_its_line_was_taken_and_not_before() {
    let mut rig = Rig::new(json!({"ttlSecondsAfterFinished": 10, "archive": {"type": "Stdout"}}));
    rig.finish(1);
    assert_eq!(rig.settle(), [] as [&str; 0]);
    assert_eq!(rig.outbox(|outbox| outbox.len()), 0, "its time is not over");
    rig.now += SignedDuration::from_secs(11);
    rig.reconciler.wake(ObjectKey::new("ns", "j1"), Priority::Normal, Urgency::Routine);
    assert_eq!(rig.settle(), [] as [&str; 0]);
    let out: Vec<Parcel> = std::iter::from_fn(|| rig.outbox(|outbox| outbox.next(Instant::now()))).collect();
    assert_eq!(parcel_names(&out), ["j1"]);
    assert_eq!(rig.settle(), [] as [&str; 0]);
    rig.reconciler.archived(&out[0], Err(Failure::default()));
    assert_eq!(rig.settle(), [] as [&str; 0]);
    assert!(rig.metrics().contains("springtide_batch_archive_waiting 1\n"), "{}", rig.metrics());
    assert_eq!(rig.send(), 1);
    assert_eq!(rig.settle(), ["j1"]);
    assert_eq!(rig.outbox(|outbox| outbox.len()), 0);
    for line in [
        "springtide_batch_archive_waiting 0\n",
        "springtide_batch_archive_lines_total{sink=\"stdout\"} 1\n",
        "springtide_batch_archive_failures_total{sink=\"stdout\"} 1\n",
    ] {
        assert!(rig.metrics().contains(line), "{}", rig.metrics());
    }
}

#[test]
fn a_protected_job_is_not_written_down() {
    let mut rig = Rig::new(json!({"ttlSecondsAfterFinished": 0, "archive": {"type": "Stdout"}}));
    rig.finish(1);
    rig.version += 1;
    let job = json!({
        "metadata": {"namespace": "ns", "name": "j2", "uid": "u2", "resourceVersion": rig.version.to_string(),
            "generation": 1, "creationTimestamp": START, "labels": {"springtide.dev/delete-protection": ""}},
        "spec": {"template": {"spec": {"containers": []}}},
        "status": {"observedGeneration": 1, "queue": "default", "completionTime": START, "conditions": [{
            "type": "Complete", "status": "True", "observedGeneration": 1, "reason": "Completed", "lastTransitionTime": START,
        }]},
    });
    rig.writer.apply(serde_json::from_value(job).unwrap());
    assert_eq!(rig.settle(), [] as [&str; 0]);
    assert_eq!(rig.send(), 1);
    assert_eq!(rig.settle(), ["j1"]);
}

#[tokio::test]
async fn nothing_is_sent_by_a_process_that_does_not_lead_or_is_braked() {
    // Nothing internal is allowed, so each attempt fails, and is counted.
    let archive = json!({"type": "HTTP", "url": "https://127.0.0.1:9/"});
    let mut rig = Rig::new(json!({"ttlSecondsAfterFinished": 0, "archive": archive}));
    rig.finish(1);
    assert_eq!(rig.settle(), [] as [&str; 0]);
    let failures = || {
        let text = rig.metrics();
        let line = text
            .lines()
            .find(|line| line.starts_with("springtide_batch_archive_failures_total{sink=\"http\"}"));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).unwrap()
    };
    let (leads, leading) = tokio::sync::watch::channel(false);
    let brake = Brake::new();
    brake.set_file(true);
    let delivery = Delivery::new(rig.reconciler.clone(), DeliverySettings::default(), leading, brake.clone());
    let task = tokio::spawn(delivery.run());
    for (leads_now, brakes_now) in [(false, true), (true, true), (true, false)] {
        assert_eq!(failures(), 0);
        leads.send_replace(leads_now);
        brake.set_file(brakes_now);
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }
    let failed = async {
        while failures() == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), failed).await.expect("an attempt");
    task.abort();
}

/// kueue#3818: what is kept of jobs that are over grew without bound.
#[test]
fn ninety_thousand_jobs_pass_and_leave_what_the_history_keeps() {
    const JOBS: u32 = 90_000;
    const KEPT: usize = 100;
    for archive in [json!({"type": "None"}), json!({"type": "Stdout"})] {
        let writes_lines = archive["type"] != "None";
        let mut rig =
            Rig::new(json!({"ttlSecondsAfterFinished": 604_800, "historyLimit": KEPT, "archive": archive}));
        let (mut gone, mut lines) = (0, 0);
        // Half of them each, so that the whole number passes.
        for number in 0..JOBS / 2 {
            rig.now += SignedDuration::from_secs(1);
            rig.finish(number);
            gone += rig.settle().len();
            lines += rig.send();
            let went = rig.settle();
            gone += went.len();
            assert!(rig.jobs.len() <= KEPT, "{} jobs", rig.jobs.len());
            if let Some(last) = went.last() {
                assert_eq!(*last, format!("j{}", number - KEPT as u32), "the oldest");
            }
        }
        assert_eq!(gone, JOBS as usize / 2 - KEPT);
        assert_eq!(lines, if writes_lines { gone } else { 0 });
        assert_eq!(rig.outbox(|outbox| (outbox.len(), outbox.waiting())), (0, 0));
        assert!(lock(&rig.reconciler.records).len() <= KEPT);
        assert_eq!(lock(&rig.reconciler.ceiling).unfinished(), 0);
    }
}
