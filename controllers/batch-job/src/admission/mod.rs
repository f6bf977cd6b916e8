//! Admission by the built-in queue: which jobs may have how many pods now.
//!
//! The queue is an ordered map of classes: jobs of one namespace and priority whose pods have the same
//! shape. A pass looks at classes, not at jobs, and gives out as many grants at once as whole pods
//! fit; a class for which nothing fits costs one look. A grant is never persisted: the pod is the
//! grant, and until the pod exists the grant is charged to the node where it would fit.
//!
//! Where no node may be looked at (see [`Admission::without_nodes`]), nobody knows what fits; then a class has
//! so many pods that wait for the scheduler, and more as it places them.
//!
//! Pure: it is told of nodes, pods and demands, and gets the time as an argument.

mod class;
mod pass;
mod pods;
#[cfg(test)]
mod tests;

use crate::ledger::{FitTable, Ledger, Slot};
use crate::projections::node::NodeView;
use crate::resources::format_amount;
use crate::shape::Shape;
use class::{Class, ClassKey};
use jiff::Timestamp;
use pods::Pods;
use springtide_crds::batch_job::QueuedReason;
use springtide_plumbing::key::{ObjectKey, Uid};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::store::Change;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// Waiting jobs that the built-in queue takes in per namespace; further ones wait outside.
pub const MAX_QUEUED_JOBS: usize = 1000;

/// What a job that waits is told where no node may be looked at.
const WITHOUT_NODES: &str = "the manager may not see nodes here (namespaced mode), so it cannot count what fits: \
                             pods are created as the scheduler places the ones before them";

/// What a job wants now.
#[derive(Clone, Debug)]
pub struct Demand {
    /// The job.
    pub job: ObjectKey,
    /// Its incarnation.
    pub uid: Uid,
    /// Its age decides its place.
    pub created: Timestamp,
    /// Higher goes first, inside the namespace.
    pub priority: i32,
    /// What its pods look like.
    pub shape: Arc<Shape>,
    /// Pods it wants alive in total now, live ones included.
    pub target: u32,
    /// It starts when so many fit at once.
    pub min_parallelism: u32,
}

/// What a job may do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Pods it may have alive now, live ones included.
    pub granted: u32,
    /// Why it may not have all that it wants.
    pub waiting: Option<Waiting>,
    /// When that may change by time alone.
    pub wake_at: Option<Timestamp>,
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

/// The place of a job among those of its class or namespace: by age, or by when its pod could last not be
/// created. The others of its class may be well, and would else wait behind it for ever.
type Place = (Timestamp, Uid);

/// The built-in queue over all schedulable nodes.
#[derive(Debug, Default)]
pub struct Admission {
    ledger: Ledger,
    pods: Pods,
    jobs: HashMap<Uid, Job>,
    classes: HashMap<ClassKey, Class>,
    /// One table per shape; classes of several namespaces share it.
    fits: HashMap<Arc<Shape>, SharedFit>,
    namespaces: HashMap<Arc<str>, Namespace>,
    /// Pods alive by job, of jobs not offered yet too.
    live: HashMap<Uid, u32>,
    /// Nobody tells of nodes.
    blind: bool,
    ready: bool,
    stale: Staleness,
    dirty: bool,
    /// Counts passes: who was served least recently goes first.
    turn: u64,
}

#[derive(Debug, Default)]
struct SharedFit {
    table: FitTable,
    classes: usize,
}

#[derive(Debug, Default)]
struct Namespace {
    /// Jobs that want more than they have, oldest first.
    waiting: BTreeSet<Place>,
    /// Jobs beyond the bound, oldest first.
    outside: BTreeSet<Place>,
    /// The pass in which it was last served. One that is new comes after those that wait already: it may
    /// have been here before.
    served: u64,
}

#[derive(Debug)]
struct Job {
    demand: Demand,
    class: ClassKey,
    /// Grants whose pods do not exist yet, with the place each is charged to.
    in_flight: Vec<Option<Slot>>,
    /// Pods that were made by these grants, but are not seen yet.
    unseen: HashSet<ObjectKey>,
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
    /// 10 pods that the scheduler has not placed yet, and more as it places them. What is not placed in time
    /// is taken back, and the class pauses, as ever.
    pub fn without_nodes() -> Self {
        Self { blind: true, ..Self::default() }
    }

    /// Whether all stores it lives from are synced, and where they may be out of date. Nothing is granted
    /// before they are, and where they may be; what runs is not touched.
    pub fn set_ready(&mut self, synced: bool, stale: Staleness) {
        self.dirty |= synced != self.ready || stale != self.stale;
        (self.ready, self.stale) = (synced, stale);
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
            }
            Change::Delete { last } => {
                let name = &last.meta().key.name;
                if let Some(slot) = self.ledger.remove_node(name) {
                    self.pods.node_gone(name, slot);
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
            Some(job) if job.class != key => self.withdraw(&demand.uid),
            Some(_) | None => {}
        }
        let uid = demand.uid.clone();
        let class = self.classes.entry(key.clone()).or_insert_with(|| {
            self.fits.entry(Arc::clone(&key.shape)).or_default().classes += 1;
            Class::new(self.turn)
        });
        let job = self.jobs.entry(uid.clone()).or_insert_with(|| {
            class.jobs += 1;
            Job {
                demand: demand.clone(),
                class: key,
                in_flight: Vec::new(),
                unseen: HashSet::new(),
                set_back: Timestamp::MIN,
            }
        });
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
        let Some(job) = self.jobs.remove(uid) else { return };
        let Some(class) = self.classes.get_mut(&job.class) else { return };
        // It stays until the next pass at least, and as long as what happened to it matters.
        class.jobs -= 1;
        self.dirty = true;
    }

    /// Something went wrong with pods of this job: its class pauses, and its grants are taken back.
    pub fn pause(&mut self, uid: &Uid, trouble: Trouble, now: Timestamp) {
        let Some(key) = self.jobs.get(uid).map(|job| job.class.clone()) else { return };
        let Some(class) = self.classes.get_mut(&key) else { return };
        // What goes wrong for one job goes wrong for all of the class: their creates wait as well.
        let concerned: Vec<Uid> = if class.pause(trouble, now) {
            let concerns = |job: &&Job| !job.in_flight.is_empty() || job.demand.uid == *uid;
            let of_class = self.jobs.values().filter(|job| job.class == key);
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

    /// What a job may do now, and why not more.
    pub fn verdict(&self, uid: &Uid) -> Verdict {
        let granted = self.granted(uid);
        let Some(job) = self.jobs.get(uid) else { return Verdict { granted, waiting: None, wake_at: None } };
        if granted >= job.demand.target {
            return Verdict { granted, waiting: None, wake_at: None };
        }
        let class = self.classes.get(&job.class);
        let pause = class.and_then(|class| class.paused_until);
        Verdict { granted, waiting: Some(self.reason(job, class)), wake_at: pause }
    }

    fn reason(&self, job: &Job, class: Option<&Class>) -> Waiting {
        let waiting = |reason, message| Waiting { reason, message };
        if !self.ready || self.stale.concerns(&job.demand.job.namespace) {
            let message = "the view of nodes and pods is not up to date; nothing is started until it is";
            return waiting(QueuedReason::CapacityStale, message.to_owned());
        }
        let namespace = self.namespaces.get(&job.demand.job.namespace);
        if namespace.is_some_and(|namespace| namespace.outside.contains(&job.place())) {
            let message =
                format!("{MAX_QUEUED_JOBS} jobs of this namespace wait already; it is taken in later");
            return waiting(QueuedReason::QueueFull, message);
        }
        let failed = "pods like these could not be created or scheduled";
        if let Some(until) = class.and_then(|class| class.paused_until) {
            return waiting(QueuedReason::ClassBackoff, format!("{failed}; tried again at {until:.0}"));
        }
        if self.blind {
            return match class {
                Some(class) if class.is_on_trial() => {
                    waiting(QueuedReason::ClassBackoff, format!("{failed}; tried one after the other"))
                }
                Some(_) | None => waiting(QueuedReason::NoCapacity, WITHOUT_NODES.to_owned()),
            };
        }
        let shape = &job.class.shape;
        let Some(fit) = self.fits.get(shape).map(|fit| &fit.table) else {
            return waiting(QueuedReason::NoCapacity, String::new());
        };
        let wants: Vec<String> = shape
            .requests
            .iter()
            .filter(|(name, _)| *name != "pods")
            .map(|(name, amount)| format!("{name} {}", format_amount(name, amount)))
            .collect();
        let wants = wants.join(", ");
        if !fit.ever() && self.ledger.nodes().next().is_some() {
            let message = format!("a pod needs {wants}: no node that its selector allows is large enough");
            return waiting(QueuedReason::NeverFits, message);
        }
        let missing = job.demand.min_parallelism.saturating_sub(self.granted(&job.demand.uid));
        if fit.total() >= u64::from(missing.max(1)) && class.is_some_and(Class::is_on_trial) {
            return waiting(QueuedReason::ClassBackoff, format!("{failed}; tried one after the other"));
        }
        let message = if missing > 1 {
            format!("{missing} pods of {wants} must fit at once; {} fit now", fit.total())
        } else {
            format!("a pod needs {wants}: room for {} on {} eligible nodes", fit.total(), fit.eligible())
        };
        waiting(QueuedReason::NoCapacity, message)
    }

    fn granted(&self, uid: &Uid) -> u32 {
        let in_flight = self.jobs.get(uid).map_or(0, |job| job.in_flight.len());
        self.live.get(uid).copied().unwrap_or(0) + u32::try_from(in_flight).unwrap_or(u32::MAX)
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
        let taken = job.in_flight.split_off(keep.min(job.in_flight.len()));
        if let Some(class) = self.classes.get_mut(&job.class) {
            class.in_flight -= taken.len();
        }
        for slot in taken.into_iter().flatten() {
            self.ledger.credit(slot, &job.class.shape.requests);
            self.dirty = true;
        }
    }

    /// Puts a job where its demand says: among those that wait, or not.
    fn place_in_line(&mut self, uid: &Uid) {
        let Some(job) = self.jobs.get(uid) else { return };
        let wants_more = self.granted(uid) < job.demand.target;
        let place = job.place();
        let namespace = self
            .namespaces
            .entry(Arc::clone(&job.demand.job.namespace))
            .or_insert_with(|| Namespace { served: self.turn, ..Namespace::default() });
        if !wants_more {
            self.leave_line(uid);
            return;
        }
        if namespace.waiting.contains(&place) || namespace.outside.contains(&place) {
            return;
        }
        if namespace.waiting.len() < MAX_QUEUED_JOBS {
            self.enter(uid, place);
        } else if namespace.waiting.last().is_some_and(|newest| place < *newest) {
            // The newest stays outside, whatever the order in which jobs are heard of.
            if let Some(newest) = namespace.waiting.pop_last() {
                namespace.outside.insert(newest.clone());
                self.leave_class(&newest);
            }
            self.enter(uid, place);
        } else {
            namespace.outside.insert(place);
        }
    }

    fn enter(&mut self, uid: &Uid, place: Place) {
        let Some(job) = self.jobs.get(uid) else { return };
        if let Some(namespace) = self.namespaces.get_mut(&job.demand.job.namespace) {
            namespace.waiting.insert(place.clone());
        }
        if let Some(class) = self.classes.get_mut(&job.class) {
            class.waiting.insert(place);
        }
        self.dirty = true;
    }

    fn leave_class(&mut self, place: &Place) {
        if let Some(job) = self.jobs.get(&place.1)
            && let Some(class) = self.classes.get_mut(&job.class)
        {
            class.waiting.remove(place);
        }
    }

    /// Takes a job out of the line; the oldest from outside takes its place.
    fn leave_line(&mut self, uid: &Uid) {
        let Some(job) = self.jobs.get(uid) else { return };
        let place = job.place();
        self.leave_class(&place);
        let name = Arc::clone(&self.jobs[uid].demand.job.namespace);
        let Some(namespace) = self.namespaces.get_mut(&name) else { return };
        namespace.outside.remove(&place);
        if namespace.waiting.remove(&place)
            && let Some(next) = namespace.outside.pop_first()
        {
            let uid = next.1.clone();
            self.enter(&uid, next);
        } else if namespace.waiting.is_empty() && namespace.outside.is_empty() {
            self.namespaces.remove(&name);
        }
    }
}
