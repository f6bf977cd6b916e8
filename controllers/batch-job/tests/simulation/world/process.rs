//! A controller process: its stores as watches have filled them, and the keys that ask for a pass.

use crate::cluster::{Cluster, Event, Kind};
use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;
use serde_json::Value;
use springtide_batch_job::projections::job::JobView;
use springtide_batch_job::projections::node::NodeView;
use springtide_batch_job::projections::pod::PodView;
use springtide_batch_job::projections::queue::QueueView;
use springtide_batch_job::watches::{JOBS_BY_PROFILE, PODS_BY_JOB};
use springtide_batch_job::{BatchJobReconciler, BatchJobWarrants, BatchQueueReconciler, Settings, Stores};
use springtide_plumbing::clock::Clock;
use springtide_plumbing::key::{ObjectKey, ResourceVersion};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::queue::WorkQueue;
use springtide_plumbing::store::{Store, StoreWriter};
use springtide_plumbing::time_share::TimeShares;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

pub(super) struct Process {
    pub(super) reconciler: Arc<BatchJobReconciler>,
    pub(super) queue: WorkQueue<ObjectKey>,
    pub(super) warrants: Arc<BatchJobWarrants>,
    /// What the clock of `warrants` shows.
    pub(super) time: Arc<Mutex<Timestamp>>,
    pub(super) jobs: Watch<JobView>,
    pub(super) pods: Watch<PodView>,
    pub(super) nodes: StoreWriter<NodeView>,
    pub(super) queues: StoreWriter<QueueView>,
    pub(super) queue_loop: Arc<BatchQueueReconciler>,
    pub(super) wakes: BTreeMap<ObjectKey, Timestamp>,
    /// Keys whose pass failed in a way that brings the next one.
    pub(super) again: BTreeSet<ObjectKey>,
}

impl Process {
    /// It starts from a list of everything.
    pub(super) fn start(
        cluster: &mut Cluster,
        all_nodes: &BTreeMap<String, Value>,
        all_queues: &BTreeMap<String, Value>,
        settings: Settings,
        clock_ahead: SignedDuration,
    ) -> Self {
        let (jobs_store, jobs) = Store::new(&[JOBS_BY_PROFILE]);
        let (profiles, mut no_profiles) = Store::new(&[]);
        let (pods_store, pods) = Store::new(&[PODS_BY_JOB]);
        let (nodes_store, mut nodes) = Store::new(&[]);
        let version = cluster.version();
        no_profiles.replace(BTreeMap::new(), version);
        list(&mut nodes, all_nodes, version);
        let pods = Watch::list(pods, &mut cluster.pods, version);
        let jobs = Watch::list(jobs, &mut cluster.jobs, version);
        let (queues_store, mut queues) = Store::new(&[]);
        list(&mut queues, all_queues, version);
        let stores = Stores {
            jobs: jobs_store,
            pods: pods_store,
            profiles,
            nodes: Some(nodes_store),
            queues: queues_store,
            priority_classes: None,
            time_shares: TimeShares::of(&[], &[]),
        };
        let time = Arc::new(Mutex::new(cluster.now + clock_ahead));
        let shows = Arc::clone(&time);
        let clock = Clock::from_fn(move || *shows.lock().unwrap());
        let warrants = BatchJobWarrants::new(stores.clone(), settings, clock);
        let reconciler = BatchJobReconciler::with_settings(stores, settings);
        let measured = Arc::clone(&reconciler);
        warrants.follow_load(Arc::new(move || Some(measured.load_usage())));
        let queue_loop = BatchQueueReconciler::new(Arc::clone(&reconciler));
        let queue = WorkQueue::new(7);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(reconciler.wire(&queue));
        let (wakes, again) = (BTreeMap::new(), BTreeSet::new());
        Self { reconciler, queue, warrants, time, jobs, pods, nodes, queues, queue_loop, wakes, again }
    }
}

/// One watch of it.
pub(super) struct Watch<P: Projection> {
    writer: StoreWriter<P>,
    /// Undelivered events that the next pass must have seen, as they tell of its own writes.
    pub(super) owed: usize,
}

impl<P: Projection + DeserializeOwned> Watch<P> {
    fn list(writer: StoreWriter<P>, kind: &mut Kind, version: ResourceVersion) -> Self {
        let mut watch = Self { writer, owed: 0 };
        watch.relist(kind, version);
        watch
    }

    /// It begins with a list of everything; what was not delivered yet is lost.
    pub(super) fn relist(&mut self, kind: &mut Kind, version: ResourceVersion) {
        kind.events.clear();
        self.owed = 0;
        list(&mut self.writer, &kind.objects, version);
    }

    pub(super) fn deliver(&mut self, kind: &mut Kind, count: usize) {
        for _ in 0..count {
            let Some(event) = kind.events.pop_front() else { return };
            self.owed = self.owed.saturating_sub(1);
            match event {
                Event::Applied(object) => self.writer.apply(serde_json::from_value(object).unwrap()),
                Event::Deleted(object) => self.writer.delete(serde_json::from_value(object).unwrap()),
            }
        }
    }
}

/// Lists objects as they are.
fn list<P: Projection + DeserializeOwned>(
    writer: &mut StoreWriter<P>,
    objects: &BTreeMap<String, Value>,
    version: ResourceVersion,
) {
    let views = objects.values().map(|object| Arc::new(view::<P>(object)));
    writer.replace(views.map(|view| (view.meta().key.clone(), view)).collect(), version);
}

pub(super) fn view<P: DeserializeOwned>(object: &Value) -> P {
    serde_json::from_value(object.clone()).unwrap()
}
