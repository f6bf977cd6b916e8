//! Admission: which jobs may have how many pods now.
//!
//! A queue is an ordered map of classes: jobs of one tier and priority whose pods have the same shape. The
//! built-in queue has a line of its own for each namespace, and no quota. A pass looks at classes, not at
//! jobs, and gives out as many grants at once as whole pods fit; a class for which nothing fits costs one
//! look. A grant is never persisted: the pod is the grant, and until the pod exists the grant is charged to
//! its queue, and to the node where it would fit.
//!
//! Where no node may be looked at (see [`Admission::without_nodes`]), nobody knows what fits; then a class has
//! so many pods that wait for the scheduler, and more while it places them fast.
//!
//! Pure: it is told of nodes, pods and demands, and gets the time as an argument.

mod claims;
mod class;
mod crowded;
mod figures;
mod held;
mod inspect;
mod jobs;
mod kept;
mod line;
mod pass;
mod peaks;
mod pods;
mod preempt;
mod queue;
mod quota;
mod scheduling;
mod shown;
#[cfg(test)]
mod tests;
mod verdict;

use crate::ledger::{FitTable, Ledger, Slot};
use crate::projections::node::NodeView;
use crate::shape::Shape;
use claims::Claims;
use class::{Class, ClassKey};
use held::Blocked;
pub use inspect::{ExcludedNodes, FitReport, NodeExclusion, PlaceInLine};
use jiff::{SignedDuration, Timestamp};
use jobs::{Jobs, PodCounts};
use kept::Kept;
use line::{Line, LineId};
use peaks::Drained;
pub use peaks::{DrainTotals, LoadTotals, PeakFigures};
use pods::Pods;
use preempt::Owed;
pub use queue::{
    CapacitySource, CohortScope, MAX_QUEUED_JOBS, NodeShare, Ordering, QueueFigures, QueueId, QueueRules,
    QuotaRow, Reclaim, ReclaimCause, TierRules, WAITING_CLASSES, WaitingClass,
};
use quota::Queues;
use smallvec::SmallVec;
use springtide_crds::batch_job::{Interruption, InterruptionPolicy, QueuedReason};
use springtide_crds::common::Tier;
use springtide_plumbing::budget::WriteRates;
use springtide_plumbing::key::{ObjectKey, Uid};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::store::Change;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// What a job wants now.
#[derive(Clone, Debug)]
pub struct Demand {
    /// The job.
    pub job: ObjectKey,
    /// Its incarnation.
    pub uid: Uid,
    /// Its age decides its place.
    pub created: Timestamp,
    /// Where it waits.
    pub queue: QueueId,
    /// Higher goes first, inside the queue; the built-in queue takes all for BestEffort.
    pub tier: Tier,
    /// Higher goes first, inside the tier.
    pub priority: i32,
    /// What its pods look like.
    pub shape: Arc<Shape>,
    /// Pods it wants alive in total now, live ones included.
    pub target: u32,
    /// It starts when so many fit at once.
    pub min_parallelism: u32,
    /// How its pods are ended.
    pub interruption: Interruptibility,
}

/// How the pods of a job may be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interruptibility {
    /// Whether a task may be cut short by a peak.
    pub policy: InterruptionPolicy,
    /// From SIGTERM to SIGKILL.
    pub grace_seconds: u32,
    /// How long a task takes, as far as anybody knows: what ends in time starts before a peak, and may use a node that
    /// is kept for somebody else.
    pub expected: Option<SignedDuration>,
}

impl Default for Interruptibility {
    fn default() -> Self {
        let Interruption { policy, grace_seconds } = Interruption::default();
        Self { policy, grace_seconds, expected: None }
    }
}

/// What a job may do now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Pods it may have alive now, live ones included.
    pub granted: u32,
    /// Why it may not have all that it wants.
    pub waiting: Option<Waiting>,
    /// When that may change by time alone.
    pub wake_at: Option<Timestamp>,
    /// What it must give back of what runs.
    pub reclaim: Option<Reclaim>,
    /// A peak is near or open in which all pods of its tier have to go.
    pub drained: bool,
    /// Of `granted`, pods that do not exist yet and that no node has room for: they are shown to a node autoscaler.
    pub unfit: u32,
}

/// Why a job waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The documented reason.
    pub reason: QueuedReason,
    /// What is short, and where.
    pub message: String,
}

/// What went wrong with pods of a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// No quota is left for them: a pod of the namespace that ends makes room.
    Quota,
    /// They could not be created, or nobody knows whether they were.
    Create,
    /// They were not scheduled in time, and are taken back.
    Schedule,
}

/// Where what is known of pods and nodes may be long out of date.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Staleness {
    /// Nothing of it is.
    #[default]
    Nowhere,
    /// Room is shared, and counted wrong.
    Everywhere,
    /// In these namespaces; where no room is counted, others do not care.
    In(BTreeSet<Arc<str>>),
}

impl Staleness {
    fn concerns(&self, namespace: &Arc<str>) -> bool {
        match self {
            Self::Nowhere => false,
            Self::Everywhere => true,
            Self::In(namespaces) => namespaces.contains(namespace),
        }
    }
}

/// The place of a job among those of its class or line: by age, or by when its pod could last not be
/// created. The others of its class may be well, and would else wait behind it for ever.
type Place = (Timestamp, Uid);

/// All queues over all nodes.
#[derive(Debug, Default)]
pub struct Admission {
    ledger: Ledger,
    pods: Pods,
    jobs: Jobs,
    classes: HashMap<ClassKey, Class>,
    /// One table per shape; classes of several lines share it.
    fits: HashMap<Arc<Shape>, SharedFit>,
    lines: HashMap<LineId, Line>,
    queues: Queues,
    claims: Claims,
    /// For whom others end or have ended, by line.
    claimants: BTreeMap<LineId, Owed>,
    /// What jobs give back for a peak, by job.
    drains: BTreeMap<Uid, Drained>,
    /// Queues of which a peak limited a tier when its windows were last found to mean something else.
    limited: HashSet<ObjectKey>,
    /// How fast pods may be deleted.
    write_rates: Option<WriteRates>,
    /// When the last pass was.
    last_pass: Option<Timestamp>,
    /// Nodes that are kept for a class, one for each queue; `None` is the built-in one.
    kept: BTreeMap<Option<ObjectKey>, Kept>,
    /// What a pass keeps of them from others while it serves.
    blocked: Vec<Blocked>,
    /// Pods alive by job, of jobs not offered yet too.
    live: PodCounts,
    /// Of these, the ones that are being deleted.
    leaving: PodCounts,
    /// Nobody tells of nodes.
    blind: bool,
    ready: bool,
    stale: Staleness,
    /// Jobs that wait are not all offered yet.
    incomplete: bool,
    dirty: bool,
    /// Counts passes: who was served least recently goes first.
    turn: u64,
    /// Times that a class was looked at for what it could be granted.
    #[cfg(test)]
    looks: usize,
    /// Who has had pods of whom claimed.
    #[cfg(test)]
    taken: Vec<(Uid, Uid)>,
}

#[derive(Debug, Default)]
struct SharedFit {
    table: FitTable,
    classes: usize,
}

#[derive(Debug)]
struct Job {
    demand: Demand,
    class: Arc<ClassKey>,
    /// Grants whose pods do not exist yet, with the place each is charged to.
    in_flight: SmallVec<[Option<Slot>; 1]>,
    /// Pods that were made by these grants, but are not seen yet.
    unseen: BTreeSet<ObjectKey>,
    /// When its pod could last not be created; none is older than the job.
    set_back: Timestamp,
}

impl Job {
    fn place(&self) -> Place {
        (self.demand.created.max(self.set_back), self.demand.uid.clone())
    }
}

impl Admission {
    /// One that is never told of nodes. Every shape counts as one that is not modelled: its class has at first
    /// 10 pods that the scheduler has not placed yet, and more while it places all of them within a second. What is
    /// not placed in time is taken back, and the class pauses, as ever.
    pub fn without_nodes() -> Self {
        Self { blind: true, ..Self::default() }
    }

    /// Whether all stores it lives from are synced, and where they may be out of date. Nothing is granted
    /// before they are, and where they may be; what runs is not touched.
    pub fn set_ready(&mut self, synced: bool, stale: Staleness) {
        self.dirty |= synced != self.ready || stale != self.stale;
        (self.ready, self.stale) = (synced, stale);
    }

    /// Whether jobs that wait are still to be offered. As long as they are, what is free is given to nobody, as it may be
    /// theirs, and nobody has others end for it.
    pub fn set_incomplete(&mut self, incomplete: bool) {
        self.dirty |= incomplete != self.incomplete;
        self.incomplete = incomplete;
    }

    /// When nodes and pods were last known to be current. A queue grants nothing once that is longer ago than its
    /// rules allow; without a word, nothing is too old.
    pub fn seen_at(&mut self, at: Timestamp) {
        self.queues.seen_at(at);
    }

    /// Which queues of one cohort's name lend to each other. To be said before the first rules.
    pub fn set_cohort_scope(&mut self, scope: CohortScope) {
        self.queues.set_scope(scope);
    }

    /// The time of the last pass.
    fn now(&self) -> Timestamp {
        self.last_pass.unwrap_or_default()
    }

    /// Takes in the rules of a queue: new, changed, or `None` when it is gone. Returns the jobs of it, which may
    /// be told something else now.
    pub fn queue_changed(&mut self, queue: &QueueId, rules: Option<QueueRules>) -> Vec<ObjectKey> {
        let QueueId::Object(key) = queue else { return Vec::new() };
        if self.queues.rules(key).map(AsRef::as_ref) == rules.as_ref() {
            return Vec::new();
        }
        self.queues.set_rules(key, rules);
        self.dirty = true;
        let id = LineId::of_queue(key);
        let of_queue: Vec<(Uid, ObjectKey)> = self
            .jobs
            .values()
            .filter(|job| job.class.line == id)
            .map(|job| (job.demand.uid.clone(), job.demand.job.clone()))
            .collect();
        self.bound_line(&id);
        for (uid, _) in &of_queue {
            // Nothing is created any more for whom it does not take in.
            let is_closed =
                self.jobs.get(uid).is_some_and(|job| self.queues.closed(&id, job.class.tier).is_some());
            if is_closed {
                let made = self.jobs.get(uid).map_or(0, |job| job.unseen.len());
                self.give_back(uid, made);
            }
            self.place_in_line(uid);
        }
        of_queue.into_iter().map(|(_, job)| job).collect()
    }

    /// Takes in a change of a node.
    pub fn node_changed(&mut self, change: &Change<NodeView>) {
        self.dirty = true;
        match change {
            Change::Apply { new, .. } => {
                let (slot, is_new) = self.ledger.apply_node(new);
                if is_new {
                    self.pods.node_appeared(&new.meta().key.name, slot, &mut self.ledger);
                }
                self.crowd_out(slot);
            }
            Change::Delete { last } => {
                let name = &last.meta().key.name;
                if let Some(slot) = self.ledger.remove_node(name) {
                    self.pods.node_gone(name, slot);
                    // The slot may be another node's before the next pass.
                    self.kept.retain(|_, kept| kept.node != slot);
                    for job in self.jobs.values_mut() {
                        for place in &mut job.in_flight {
                            if *place == Some(slot) {
                                *place = None;
                            }
                        }
                    }
                }
            }
        }
    }

    /// Says what a job wants now; the newest word counts.
    pub fn offer(&mut self, demand: Demand) {
        let key = ClassKey::of(&demand);
        match self.jobs.get(&demand.uid) {
            Some(job) if *job.class != key => self.withdraw(&demand.uid),
            Some(_) | None => {}
        }
        let uid = demand.uid.clone();
        let class = self.classes.entry(key.clone()).or_insert_with(|| {
            self.fits.entry(Arc::clone(&key.shape)).or_default().classes += 1;
            Class::new(&key, self.turn)
        });
        let mut is_new = false;
        let job = self.jobs.entry(&uid, || {
            class.jobs += 1;
            is_new = true;
            Job {
                demand: demand.clone(),
                class: Arc::clone(&class.key),
                in_flight: SmallVec::new(),
                unseen: BTreeSet::new(),
                set_back: Timestamp::MIN,
            }
        });
        // How long its tasks take decides what starts before a peak, and on a node that is kept for others.
        self.dirty |= job.demand.interruption.expected != demand.interruption.expected;
        // Its pods may be in the way of somebody who was known before it.
        self.dirty |= is_new && self.live.contains_key(&uid);
        job.demand = demand;
        // A job is planned again when the stores show what was written for it.
        job.unseen.clear();
        self.trim(&uid);
        self.place_in_line(&uid);
    }

    /// A job that wants nothing any more: it has ended, stopped, or is gone.
    pub fn withdraw(&mut self, uid: &Uid) {
        self.give_back(uid, 0);
        self.leave_line(uid);
        self.claims.remove(uid);
        let Some(job) = self.jobs.remove(uid) else { return };
        let Some(class) = self.classes.get_mut(&*job.class) else { return };
        // It stays until the next pass at least, and as long as what happened to it matters.
        class.jobs -= 1;
        self.dirty = true;
    }

    /// Something went wrong with pods of this job: its class pauses, and its grants are taken back.
    pub fn pause(&mut self, uid: &Uid, trouble: Trouble, now: Timestamp) {
        let Some(key) = self.jobs.get(uid).map(|job| job.class.clone()) else { return };
        let Some(class) = self.classes.get_mut(&*key) else { return };
        // What goes wrong for one job goes wrong for all of the class: their creates wait as well.
        let concerned: Vec<Uid> = if class.pause(trouble, now) {
            let concerns = |job: &&Job| !job.in_flight.is_empty() || job.demand.uid == *uid;
            let of_class = self.jobs.values().filter(|job| *job.class == *key);
            of_class.filter(concerns).map(|job| job.demand.uid.clone()).collect()
        } else {
            vec![uid.clone()]
        };
        if trouble == Trouble::Create {
            self.leave_line(uid);
            if let Some(job) = self.jobs.get_mut(uid) {
                job.set_back = now;
            }
        }
        for uid in &concerned {
            // A pod that exists takes its room, seen or not.
            let made = self.jobs.get(uid).map_or(0, |job| job.unseen.len());
            self.give_back(uid, made);
            self.place_in_line(uid);
        }
        self.dirty = true;
    }

    /// A pod was made by a grant of this job; the store may show it only later.
    pub fn created(&mut self, uid: &Uid, pod: &ObjectKey) {
        if !self.pods.holds(pod)
            && let Some(job) = self.jobs.get_mut(uid)
        {
            job.unseen.insert(pod.clone());
        }
    }

    fn granted(&self, uid: &Uid) -> u32 {
        match self.jobs.get(uid) {
            Some(job) => self.granted_to(job),
            None => self.live.get(uid).copied().unwrap_or(0),
        }
    }

    fn granted_to(&self, job: &Job) -> u32 {
        let in_flight = u32::try_from(job.in_flight.len()).unwrap_or(u32::MAX);
        self.live.get(&job.demand.uid).copied().unwrap_or(0).saturating_add(in_flight)
    }

    /// Takes back grants that the job does not want any more.
    fn trim(&mut self, uid: &Uid) {
        let Some(job) = self.jobs.get(uid) else { return };
        let live = self.live.get(uid).copied().unwrap_or(0);
        self.give_back(uid, job.demand.target.saturating_sub(live) as usize);
    }

    /// Takes back all grants in flight but `keep`.
    fn give_back(&mut self, uid: &Uid, keep: usize) {
        let Some(job) = self.jobs.get_mut(uid) else { return };
        let taken: Vec<Option<Slot>> = job.in_flight.drain(keep.min(job.in_flight.len())..).collect();
        if taken.is_empty() {
            return;
        }
        if let Some(class) = self.classes.get_mut(&*job.class) {
            class.in_flight -= taken.len();
        }
        self.queues.grant(&job.class, -pods::signed(taken.len()));
        self.dirty = true;
        for slot in taken.into_iter().flatten() {
            self.ledger.credit(slot, &job.class.shape.requests);
        }
    }
}
