//! The controller's own code over a snapshot of a cluster in memory: what it would say, and write, now.
//!
//! Nothing leaves the process. The stores are filled once, every job asks for what it wants, and then the loop runs
//! as it does in the manager, but that its writes change the stores alone, until nothing is left to do without an
//! event from outside: no time passes, no pod is scheduled, and none ends. What the manager alone remembers (pauses
//! of classes, pods that could not be released, runs that no profile holds yet) or measures is not known here; where its
//! status says so, that is told.
//!
//! [`explain`](Rehearsal::explain) says why a job is where it is; [`caused_by`] what a changed object leads to.

pub mod advice;
mod difference;
mod explain;
mod explanation;
mod perform;
mod remembered;
#[cfg(test)]
mod tests;

pub use difference::{Changes, Difference, caused_by};
pub use explanation::{
    Basis, Deadline, Explanation, PodLine, ProfileWord, QueueStanding, QuotaUse, Reported, RetryWait, Said,
    State, Tasks, Waits,
};
pub use perform::PlannedWrite;

use crate::BatchJobReconciler;
use crate::observe::Observed;
use crate::plan::Settings;
use crate::profiles::controller::ProfileReconciler;
use crate::projections::job::JobView;
use crate::projections::node::NodeView;
use crate::projections::pod::PodView;
use crate::projections::priority_class::PriorityClassView;
use crate::projections::profile::ProfileView;
use crate::projections::queue::QueueView;
use crate::watches::{JOBS_BY_PROFILE, PODS_BY_JOB, Stores, admission, is_admission};
use futures::FutureExt;
use jiff::Timestamp;
use springtide_plumbing::clock::Clock;
use springtide_plumbing::controller::Reconciler;
use springtide_plumbing::key::{ObjectKey, ResourceVersion};
use springtide_plumbing::plan::{Plan, Write};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::queue::{Next, Priority, Urgency, WorkQueue};
use springtide_plumbing::store::{Store, StoreWriter};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Passes after which a rehearsal ends, whatever is left: as many as a full cluster needs several times over.
const MAX_PASSES: usize = 200_000;
/// Writes after which it ends: more is no answer to anybody.
const MAX_WRITES: usize = 20_000;

/// A snapshot of what the controller watches, as far as somebody may see it.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// BatchJobs.
    pub jobs: Vec<Arc<JobView>>,
    /// Pods, of all namespaces where the nodes are known.
    pub pods: Vec<Arc<PodView>>,
    /// Nodes; `None` where they may not be seen, or not all pods on them.
    pub nodes: Option<Vec<Arc<NodeView>>>,
    /// BatchQueues.
    pub queues: Vec<Arc<QueueView>>,
    /// BatchTaskProfiles; none where they may not be seen.
    pub profiles: Vec<Arc<ProfileView>>,
    /// PriorityClasses; where they may not be seen, whatever a queue names is taken to be there.
    pub priority_classes: Option<Vec<Arc<PriorityClassView>>>,
    /// The manager's settings.
    pub settings: Settings,
}

/// The controller over a [`World`].
pub struct Rehearsal {
    reconciler: Arc<BatchJobReconciler>,
    profile_reconciler: Arc<ProfileReconciler>,
    queue: WorkQueue<ObjectKey>,
    jobs: StoreWriter<JobView>,
    pods: StoreWriter<PodView>,
    profiles: StoreWriter<ProfileView>,
    /// As they were in the beginning.
    world: World,
    now: Timestamp,
    /// The version of the next object that is written.
    version: ResourceVersion,
    writes: Vec<Write>,
    is_cut: bool,
}

impl Rehearsal {
    /// Takes a snapshot in, and lets every job ask for what it wants; nothing is granted or written yet.
    ///
    /// Where nodes are not seen, a queue counts by its quota alone, as the manager may well see them.
    pub fn new(world: World, now: Timestamp) -> Self {
        let (jobs, mut job_writer) = Store::new(&[JOBS_BY_PROFILE]);
        let (pods, mut pod_writer) = Store::new(&[PODS_BY_JOB]);
        let (queues, mut queue_writer) = Store::new(&[]);
        let mut seen = ResourceVersion::default();
        fill(&mut job_writer, &world.jobs, &mut seen);
        fill(&mut pod_writer, &world.pods, &mut seen);
        let nodes = world.nodes.as_ref().map(|list| {
            let (nodes, mut writer) = Store::new(&[]);
            fill(&mut writer, list, &mut seen);
            nodes
        });
        let priority_classes = world.priority_classes.as_ref().map(|list| {
            let (classes, mut writer) = Store::new(&[]);
            fill(&mut writer, list, &mut seen);
            classes
        });
        let sees_nodes = nodes.is_some();
        let shown: Vec<Arc<QueueView>> =
            world.queues.iter().map(|queue| remembered::as_seen(queue, sees_nodes)).collect();
        // Not listed as a whole: as long as a store is not synced, nothing is granted.
        for queue in &shown {
            queue_writer.apply(QueueView::clone(queue));
        }
        let (profiles, mut profile_writer) = Store::new(&[]);
        let concluded: Vec<Arc<ProfileView>> =
            world.profiles.iter().map(|profile| remembered::concluded(profile, now)).collect();
        fill(&mut profile_writer, &concluded, &mut seen);
        let stores = Stores { jobs, pods, profiles, nodes, queues, priority_classes };
        let profile_reconciler = ProfileReconciler::new(stores.clone(), Clock::from_fn(move || now));
        let reconciler = BatchJobReconciler::with_settings(stores, world.settings);
        let queue = WorkQueue::new(1);
        // Nobody else has set it.
        let _ = reconciler.queue.set(queue.clone());
        reconciler.listen();
        let mut rehearsal = Self {
            reconciler,
            profile_reconciler,
            queue,
            jobs: job_writer,
            pods: pod_writer,
            profiles: profile_writer,
            world,
            now,
            version: ResourceVersion::default(),
            writes: Vec::new(),
            is_cut: false,
        };
        rehearsal.reconciler.passes.hurry();
        rehearsal.measure();
        // Who comes first must not be served before those are known that come before it.
        rehearsal.every_key(|rehearsal, key| {
            rehearsal.reconciler.observe(key, None, now);
        });
        rehearsal.pause_what_is_refused();
        rehearsal.remember_starved();
        rehearsal.remember_groups();
        fill(&mut queue_writer, &shown, &mut seen);
        rehearsal.version = ResourceVersion(seen.0 + 1);
        rehearsal
    }

    /// Whether nodes, and all pods on them, are seen.
    pub fn sees_nodes(&self) -> bool {
        self.world.nodes.is_some()
    }

    /// The snapshot as it was.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Lets the controller work until it has nothing to do, and performs its writes in memory. Gives them in their
    /// order.
    pub fn run(&mut self) -> &[Write] {
        let now = self.now;
        self.make_profiles();
        self.wake_all();
        self.every_key(|rehearsal, key| {
            let Some(observed) = rehearsal.reconciler.observe(key, None, now) else { return };
            let plan = rehearsal.reconciler.plan(&observed, now);
            rehearsal.perform_all(key, plan);
        });
        &self.writes
    }

    /// Makes the profiles that jobs are the first to use. What is learned from runs is a matter of statuses.
    fn make_profiles(&mut self) {
        let jobs = self.reconciler.stores.jobs.list(None);
        let keys: BTreeSet<ObjectKey> = jobs.iter().filter_map(|job| job.profile_key()).collect();
        for key in keys {
            let observed = self.profile_reconciler.observe(&key, None, self.now);
            if let Some(observed) = observed.filter(|observed| observed.stored.is_none()) {
                let plan = self.profile_reconciler.plan(&observed, self.now);
                self.perform_all(&key, plan);
            }
        }
    }

    /// Lets every job be looked at with what it is granted, and writes nothing.
    pub fn look(&mut self) {
        let now = self.now;
        self.wake_all();
        self.every_key(|rehearsal, key| {
            rehearsal.reconciler.observe(key, None, now);
        });
    }

    /// Whether it was ended before there was nothing left to do.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// The writes so far, in their order.
    pub fn writes(&self) -> &[Write] {
        &self.writes
    }

    /// What is known of a job now.
    fn observed(&self, key: &ObjectKey) -> Option<Observed> {
        self.reconciler.observe(key, None, self.now)
    }

    fn wake_all(&self) {
        // The admission first: with all demands known, one pass serves them in their order.
        self.reconciler.wake(admission(), Priority::High, Urgency::Routine);
        for job in self.reconciler.stores.jobs.list(None) {
            self.reconciler.wake(job.meta().key.clone(), Priority::Low, Urgency::Routine);
        }
    }

    fn every_key(&mut self, mut pass: impl FnMut(&mut Self, &ObjectKey)) {
        let mut passes = 0;
        while let Some(item) = self.queue.next().now_or_never().flatten() {
            if passes < MAX_PASSES && self.writes.len() < MAX_WRITES {
                pass(self, &item.key);
            } else {
                self.is_cut = true;
            }
            passes += usize::from(!is_admission(&item.key));
            self.queue.done(&item.key, Next::Success);
        }
    }

    /// Performs the plan for an object.
    fn perform_all(&mut self, key: &ObjectKey, plan: Plan) {
        // Why it wants what it does is told by `explain`, of what is left when all is done.
        let Plan { stages, status, wake: _, outcome: _, why: _, events: _ } = plan;
        for write in stages.into_iter().flatten().flat_map(|step| step.into_writes()).chain(status) {
            if write.action.is_noop() || self.writes.len() >= MAX_WRITES {
                continue;
            }
            self.perform(key, &write);
            self.writes.push(write);
        }
    }
}

fn fill<P: Projection>(writer: &mut StoreWriter<P>, objects: &[Arc<P>], seen: &mut ResourceVersion) {
    let list: BTreeMap<ObjectKey, Arc<P>> =
        objects.iter().map(|object| (object.meta().key.clone(), Arc::clone(object))).collect();
    *seen =
        list.values().map(|object| object.meta().resource_version).max().max(Some(*seen)).unwrap_or_default();
    writer.replace(list, *seen);
}
