//! The loop over BatchQueues: their status is all that it writes.

use super::rules::{self, Problem, Surroundings};
use super::status::{self, Observed};
use crate::admission::QueueId;
use crate::projections::priority_class::priority_class;
use crate::projections::queue::{BATCH_QUEUE, QueueView};
use crate::watches::Stores;
use crate::{BatchJobReconciler, RIGHTS, Settings, lock};
use jiff::Timestamp;
use springtide_crds::batch_queue::peaks::TimeShareGroupPeak;
use springtide_crds::batch_queue::{ReadyReason, StalledReason};
use springtide_crds::reason::Reason;
use springtide_plumbing::controller::{Reconciler, Settled};
use springtide_plumbing::executor::WriteResult;
use springtide_plumbing::failing::{Failing, Telling};
use springtide_plumbing::key::ObjectKey;
use springtide_plumbing::metrics::{Census, Population};
use springtide_plumbing::plan::{Action, Plan};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::queue::{Priority, Urgency, WorkQueue};
use springtide_plumbing::rights::Rights;
use springtide_plumbing::store::StoreView;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// The BatchQueue controller. It shares the stores and the admission of the BatchJob controller.
pub struct BatchQueueReconciler {
    jobs: Arc<BatchJobReconciler>,
    /// When the status of a queue was last written.
    writes: Mutex<HashMap<ObjectKey, Timestamp>>,
}

impl BatchQueueReconciler {
    /// The one beside this controller of jobs.
    pub fn new(jobs: Arc<BatchJobReconciler>) -> Arc<Self> {
        Arc::new(Self { jobs, writes: Mutex::default() })
    }

    /// Lets the controller of jobs fill the queue: it hears of every change that concerns a BatchQueue, from when
    /// it is [wired](BatchJobReconciler::wire) itself.
    pub fn wire(&self, queue: &WorkQueue<ObjectKey>) {
        // Only the first is taken; a reconciler has one.
        let _ = self.jobs.queue_keys.set(queue.clone());
    }

    /// The stores that its plans rest on, for the gate.
    pub fn views(&self) -> Vec<Arc<dyn StoreView>> {
        vec![Arc::new(self.jobs.stores.queues.clone())]
    }
}

impl Reconciler for BatchQueueReconciler {
    const NAME: &'static str = "batch-queue";
    const RIGHTS: Rights = RIGHTS;
    type Observed = Observed;

    fn observe(&self, key: &ObjectKey, failing: Option<&Failing>, now: Timestamp) -> Option<Observed> {
        let stores = &self.jobs.stores;
        let Some(queue) = stores.queues.get(key) else {
            lock(&self.writes).remove(key);
            lock(&self.jobs.active_queues).remove(key);
            self.jobs.pod_groups.forget(key);
            self.jobs.measure_drains();
            return None;
        };
        // Edges of its peak windows, steps of a drain and of a ramp come by time alone.
        if !queue.peaks.is_empty() {
            self.jobs.admit(now);
            self.jobs.measure_drains();
        }
        // Before the look: what comes to the queue after it wakes the key again.
        lock(&self.jobs.active_queues).remove(key);
        let figures = {
            let mut admission = lock(&self.jobs.admission);
            self.jobs.ready(&mut admission, now);
            admission.figures(&QueueId::Object(key.clone()))
        };
        let observed = Observed {
            problems: problems(stores, &self.jobs.settings, &queue),
            archive: self.jobs.archive.health(key, &queue.spec.retention.archive),
            queue,
            figures,
            last_write: lock(&self.writes).get(key).copied(),
            pod_groups: self.jobs.pod_groups.service(key),
            failing: failing.cloned(),
        };
        if observed.is_active() {
            lock(&self.jobs.active_queues).insert(key.clone());
        }
        Some(observed)
    }

    fn plan(&self, observed: &Observed, now: Timestamp) -> Plan {
        status::plan(observed, now)
    }

    fn tell(&self, key: &ObjectKey, failing: &Failing, _: Timestamp) -> Option<Telling> {
        let queue = self.jobs.stores.queues.get(key)?;
        let event = failing.note(BATCH_QUEUE, key.clone(), queue.meta().uid.clone())?;
        // Its only write is that of the status: one more of the kind would fail alike.
        Some(Telling { event, status: None })
    }

    fn settle(&self, key: &ObjectKey, results: &[WriteResult], now: Timestamp) -> Settled {
        for WriteResult { write, outcome } in results {
            if matches!(&write.action, Action::Status { .. })
                && let Ok(done) = outcome
                && !done.noop
            {
                lock(&self.writes).insert(key.clone(), now);
            }
        }
        Settled::Default
    }
}

/// What is wrong with a queue, by what the stores know.
pub(crate) fn problems(stores: &Stores, settings: &Settings, queue: &QueueView) -> Vec<Problem> {
    let has_priority_class = |name: &str| {
        stores.priority_classes.as_ref().is_none_or(|classes| classes.get(&priority_class(name)).is_some())
    };
    let namespace = &queue.meta().key.namespace;
    let peaks_of_group = |named: &TimeShareGroupPeak| stores.peaks_of_group(namespace, named);
    rules::problems(
        queue,
        &Surroundings {
            sees_nodes: stores.nodes.is_some(),
            has_priority_class: &has_priority_class,
            peaks_of_group: &peaks_of_group,
            beyond_maximum: beyond_maximum(stores, settings, queue),
        },
    )
}

/// The declared maximum that a queue is beyond, the oldest first.
fn beyond_maximum(stores: &Stores, settings: &Settings, queue: &QueueView) -> Option<usize> {
    let rank = |queue: &QueueView| (queue.meta().creation_time, queue.meta().uid.clone());
    let own = rank(queue);
    let namespace = Some(&*queue.meta().key.namespace);
    let Settings { max_queues_per_namespace, max_queues_per_cluster, .. } = *settings;
    [(namespace, max_queues_per_namespace), (None, max_queues_per_cluster)].into_iter().find_map(
        |(scope, most)| {
            if stores.queues.len() <= most {
                return None;
            }
            let older = stores.queues.list(scope).iter().filter(|other| rank(other) < own).count();
            (older >= most).then_some(most)
        },
    )
}

impl BatchJobReconciler {
    /// Shows in the metrics what all drains and load triggers come to.
    fn measure_drains(&self) {
        let (drains, loads) = {
            let admission = lock(&self.admission);
            (admission.drain_totals(), admission.load_totals())
        };
        self.measures.drains(drains);
        self.measures.loads(loads);
    }

    /// Something comes to a queue: its status is looked at, unless that is under way.
    pub(crate) fn touch_queue(&self, queue: &QueueId) {
        match queue {
            QueueId::BuiltIn => {}
            QueueId::Object(key) => {
                if !lock(&self.active_queues).contains(key) {
                    lock(&self.active_queues).insert(key.clone());
                    self.wake_queue(key.clone(), Urgency::Routine);
                }
            }
        }
    }

    pub(crate) fn wake_queue(&self, key: ObjectKey, urgency: Urgency) {
        if let Some(keys) = self.queue_keys.get() {
            keys.add(key, Priority::Normal, urgency);
        }
    }
}

impl Population for BatchQueueReconciler {
    fn census(&self) -> Census {
        let stores = &self.jobs.stores;
        let mut census = Census::new(
            BATCH_QUEUE.kind,
            ReadyReason::all().iter().map(Reason::as_str),
            StalledReason::all().iter().map(Reason::as_str),
            self.jobs.settings.max_queues_per_namespace,
            self.jobs.settings.max_queues_per_cluster,
        );
        let queues = stores.queues.list(None);
        for queue in &queues {
            let reason = |type_| queue.condition(type_).map(|condition| condition.reason.as_str());
            let stalled = reason(StalledReason::CONDITION).filter(|_| queue.holds(StalledReason::CONDITION));
            census.add(&queue.meta().key.namespace, reason(ReadyReason::CONDITION), stalled);
        }
        if census.exceeds_a_maximum() {
            census.beyond_maximum = queues
                .iter()
                .filter(|queue| beyond_maximum(stores, &self.jobs.settings, queue).is_some())
                .count();
        }
        census
    }
}
