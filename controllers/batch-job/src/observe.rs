//! Gathers what the stores, the admission and this process know of one job name.

use crate::admission::{Demand, QueueId, Trouble, Verdict, Waiting};
use crate::archive::{Excess, Standing};
use crate::memory::Memory;
use crate::plan::{Attempt, JobState, awaits_turn, demand};
use crate::profiles::fitting::{self, Fitted, Fitting};
use crate::projections::job::{JobView, Template};
use crate::projections::pod::PodView;
use crate::queues::Placement;
use crate::queues::reconciler::problems;
use crate::shape::Shape;
use crate::watches::{admission as admission_key, pods_of_job};
use crate::{BatchJobReconciler, lock};
use jiff::{SignedDuration, Timestamp};
use springtide_crds::batch_queue::TierMapping;
use springtide_plumbing::failing::Failing;
use springtide_plumbing::key::{ObjectKey, Uid};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::queue::{Priority, Urgency};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// How long an owner that was never seen must be absent before its pods count as orphans: one watch
/// may lag another by half a minute, and a job that is just not seen yet must not lose its pods' record.
const OWNER_GRACE: SignedDuration = SignedDuration::from_secs(40);

/// Plain data about one job name.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The job that bears the name now.
    pub state: Option<JobState>,
    /// What the admission grants it.
    pub verdict: Option<Verdict>,
    /// Pods whose job is gone, and that still hold our finalizer.
    pub orphans: Vec<Arc<PodView>>,
    /// When other pods will count as orphans, unless their job shows up.
    pub orphans_until: Option<Timestamp>,
    /// The finished job exceeds the history of its namespace.
    pub exceeds_history: bool,
    /// What stands between the finished job and its deletion.
    pub archive: Standing,
    /// Unfinished jobs in the cluster.
    pub unfinished_jobs: usize,
    /// Of the admission's own key: when it has to look again though nothing happens.
    pub next_pass: Option<Timestamp>,
}

impl Observed {
    /// No job, but the admission itself, which has to look again then.
    pub(crate) fn of_admission(next_pass: Timestamp) -> Self {
        Self { next_pass: Some(next_pass), ..Self::of_nobody(Vec::new(), None) }
    }

    /// No job, but pods that may be orphans.
    fn of_nobody(orphans: Vec<Arc<PodView>>, orphans_until: Option<Timestamp>) -> Self {
        Self {
            state: None,
            verdict: None,
            orphans,
            orphans_until,
            exceeds_history: false,
            archive: Standing::Clear,
            unfinished_jobs: 0,
            next_pass: None,
        }
    }
}

/// What is remembered of one job name.
#[derive(Debug, Default)]
pub(crate) struct Record {
    job: Option<(Known, Memory)>,
    /// What is remembered of others that bore the name, where there were any.
    others: Option<Box<Others>>,
    /// What the job's pods look like in its queue.
    mapped: Option<Box<Mapped>>,
}

/// Incarnations other than the job that bears the name now.
#[derive(Debug, Default)]
struct Others {
    /// Those that were seen here and are gone.
    gone: HashSet<Uid>,
    /// Owners of pods that were never seen, and since when they are missed.
    missed: HashMap<Uid, Timestamp>,
}

/// A shape, and what it was made of.
#[derive(Debug)]
struct Mapped {
    template: Arc<Template>,
    fitted: Option<Arc<Fitted>>,
    mapping: Arc<TierMapping>,
    shape: Arc<Shape>,
}

/// Which job a memory is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) uid: Uid,
    pub(crate) generation: i64,
}

impl Record {
    /// The job as last observed, and what is remembered of it.
    pub(crate) fn job_mut(&mut self) -> Option<(&Known, &mut Memory)> {
        self.job.as_mut().map(|(known, memory)| (&*known, memory))
    }

    /// What the job's pods look like with these requests and under this mapping.
    fn shape(
        &mut self,
        template: &Arc<Template>,
        fitting: &Fitting,
        mapping: Option<&Arc<TierMapping>>,
    ) -> Arc<Shape> {
        let decides = |mapping: &&Arc<TierMapping>| {
            mapping.scheduler_name.is_some() || !mapping.resource_names.is_empty()
        };
        let Some(mapping) = mapping.filter(decides) else {
            self.mapped = None;
            return Arc::clone(fitting.fitted.as_ref().map_or(&template.shape, |fitted| &fitted.shape));
        };
        drop(self.mapped.take_if(|known| {
            known.template.hash != template.hash
                || known.fitted != fitting.fitted
                || known.mapping != *mapping
        }));
        let mapped = self.mapped.get_or_insert_with(|| {
            Box::new(Mapped {
                template: Arc::clone(template),
                fitted: fitting.fitted.clone(),
                mapping: Arc::clone(mapping),
                shape: Arc::new(Shape::of_mapped(&template.larger(fitting, None, 0), mapping)),
            })
        });
        Arc::clone(&mapped.shape)
    }

    /// An incarnation was seen to go, also by a standby, which observes nothing.
    fn left(&mut self, uid: Uid) {
        self.others.get_or_insert_default().gone.insert(uid);
    }

    /// Turns to the job that bears the name now. Returns the incarnation that is gone since.
    fn turn_to(&mut self, job: Option<&JobView>, now: Timestamp) -> Option<Uid> {
        let uid = job.map(|job| &job.meta().uid);
        let left = self.job.take_if(|(known, _)| Some(&known.uid) != uid).map(|(known, _)| known.uid);
        if let Some(left) = &left {
            self.left(left.clone());
        }
        if let Some(job) = job {
            let known = Known { uid: job.meta().uid.clone(), generation: job.meta().generation };
            match &mut self.job {
                Some((before, _)) => *before = known,
                None => self.job = Some((known, Memory::new(job, now))),
            }
        }
        left
    }

    /// Pods of other incarnations that hold our finalizer for nobody, and when further ones will.
    fn orphans(
        &mut self,
        job: Option<&JobView>,
        pods: &[Arc<PodView>],
        now: Timestamp,
    ) -> (Vec<Arc<PodView>>, Option<Timestamp>) {
        let present = job.map(|job| &job.meta().uid);
        let others = self.others.as_deref();
        let mut missed = HashMap::new();
        let mut orphans = Vec::new();
        let mut until = None;
        for pod in pods.iter().filter(|pod| pod.is_tracked()) {
            // Without owner it was orphaned on purpose, by whoever deleted the job.
            let owner = pod.job_owner().map(|owner| &owner.uid);
            if owner.is_some() && owner == present {
                continue;
            }
            let is_gone = match owner {
                Some(owner) => others.is_some_and(|others| others.gone.contains(owner)),
                None => job.is_none_or(|job| job.meta().is_deleting()),
            };
            let missing = owner.unwrap_or(&pod.meta().uid);
            let since = others.and_then(|others| others.missed.get(missing)).copied().unwrap_or(now);
            if is_gone || since + OWNER_GRACE <= now {
                orphans.push(Arc::clone(pod));
            } else {
                let at = since + OWNER_GRACE;
                until = Some(until.map_or(at, |first: Timestamp| first.min(at)));
            }
            missed.insert(missing.clone(), since);
        }
        if !missed.is_empty() || self.others.is_some() {
            self.others.get_or_insert_default().missed = missed;
        }
        drop(self.others.take_if(|others| others.gone.is_empty() && others.missed.is_empty()));
        (orphans, until)
    }
}

/// What came of a job's word for what others may have.
enum Pass {
    /// A pass was made: these may be granted something else.
    Made(Vec<ObjectKey>),
    /// One is to be asked for, which jobs share.
    Shared,
    /// Somebody comes again for it.
    Awaited,
}

impl BatchJobReconciler {
    /// Remembers that a job was seen here and is gone, where it leaves pods: whoever leads next need not
    /// wait for it to show up.
    pub(crate) fn job_left(&self, job: &JobView) {
        let meta = job.meta();
        if !self.stores.pods.by_index(&crate::watches::PODS_BY_JOB, &pods_of_job(&meta.key)).is_empty() {
            lock(&self.records).entry(meta.key.clone()).or_default().left(meta.uid.clone());
        }
    }

    /// A gang may be whole for a moment only, between two passes: it was all the same.
    pub(crate) fn witness_gang(&self, pod: &PodView) {
        let Some(owner) = pod.job_owner() else { return };
        let key =
            ObjectKey { namespace: Arc::clone(&pod.meta().key.namespace), name: Arc::clone(&owner.name) };
        let Some(job) = self.stores.jobs.get(&key).filter(|job| job.spec.min_parallelism > 1) else { return };
        let mut records = lock(&self.records);
        let record = records.get_mut(&key).and_then(|record| record.job_mut());
        if let Some((_, memory)) = record.filter(|(known, _)| known.uid == job.meta().uid) {
            let pods = self.stores.pods.by_index(&crate::watches::PODS_BY_JOB, &pods_of_job(&key));
            let alive = Attempt::of_job(&job, &pods).iter().filter(|pod| pod.is_live()).count();
            memory.witness(&job, alive);
        }
    }

    pub(crate) fn observe_job(
        &self,
        key: &ObjectKey,
        failing: Option<&Failing>,
        now: Timestamp,
    ) -> Option<Observed> {
        let stored = self.stores.jobs.get(key);
        // Pods of a job of somebody else's are no orphans; those of one of ours that bore its name may be.
        let job = stored.clone().filter(|job| job.is_ours());
        let pods = self.stores.pods.by_index(&crate::watches::PODS_BY_JOB, &pods_of_job(key));
        let mut record = lock(&self.records).remove(key).unwrap_or_default();
        if let Some(left) = record.turn_to(job.as_deref(), now) {
            lock(&self.admission).withdraw(&left);
        }
        let (orphans, orphans_until) = record.orphans(stored.as_deref(), &pods, now);
        let mut observed = job.map(|job| self.observe_present(job, &pods, &mut record, now));
        // Of one that has gone nothing is left to be offered.
        self.note_asking(key);
        if let Some(Observed { state: Some(state), verdict, unfinished_jobs, .. }) = &mut observed {
            state.failing = failing.cloned();
            state.facts.record_from = record.job_mut().and_then(|(_, memory)| {
                let told = &mut memory.facts.record_from;
                let asks = awaits_turn(state, verdict.as_ref(), *unfinished_jobs, now);
                *told = if asks { lock(&self.record_turns).take(*told, now) } else { None };
                *told
            });
        }
        if observed.is_some() || !pods.is_empty() {
            lock(&self.records).insert(key.clone(), record);
        }
        match observed {
            Some(observed) => Some(Observed { orphans, orphans_until, ..observed }),
            None if orphans.is_empty() && orphans_until.is_none() => None,
            None => Some(Observed::of_nobody(orphans, orphans_until)),
        }
    }

    fn observe_present(
        &self,
        job: Arc<JobView>,
        pods: &[Arc<PodView>],
        record: &mut Record,
        now: Timestamp,
    ) -> Observed {
        let uid = job.meta().uid.clone();
        let (standing, excess, unfinished_jobs) = {
            let ceiling = lock(&self.ceiling);
            (ceiling.standing(&job), ceiling.excess(&job), ceiling.unfinished())
        };
        let own = Attempt::of_job(&job, pods);
        let mut overdue = false;
        let facts = match record.job_mut() {
            Some((_, memory)) => {
                let (disrupted, pending) = (memory.facts.disrupted, memory.facts.pending.clone());
                memory.keep_unreleased(pods);
                overdue = memory.look(&job, &own, now);
                self.measures.looked(disrupted, &pending, &memory.facts, now);
                memory.facts.clone()
            }
            None => Memory::new(&job, now).facts,
        };
        let mut state = JobState::new(job, pods, facts, standing, self.settings, now);
        self.yield_names(&mut state);
        state.placement = self.place(&state);
        let fitting = self.fit(&state.job, &state.placement);
        state.fitting = match record.job_mut() {
            Some((_, memory)) => memory.fit(fitting),
            None => fitting,
        };
        state.shape = record.shape(&state.job.template, &state.fitting, state.placement.mapping.as_ref());
        let archive = if state.job.is_finished() {
            self.archive_standing(&state, excess, now)
        } else {
            Standing::Clear
        };
        let group = &state.facts.pod_group;
        state.group = self.pod_groups.use_of(&state.job, &state.placement, group, &state.pods, now);
        let verdict = self.ask(&state, &uid, overdue, now);
        let ending = state.pods.iter().any(|pod| pod.view.meta().is_deleting());
        state.facts.taken =
            record.job_mut().and_then(|(_, memory)| memory.note_taken(verdict.as_ref(), ending));
        Observed {
            state: Some(state),
            verdict,
            orphans: Vec::new(),
            orphans_until: None,
            exceeds_history: excess != Excess::None,
            archive,
            unfinished_jobs,
            next_pass: None,
        }
    }

    /// Finds the job's queue.
    fn place(&self, state: &JobState) -> Placement {
        let (job, stores) = (&state.job, &self.stores);
        let queues = stores.queues.list(Some(&job.meta().key.namespace));
        let fixed = state.fixed_queue();
        let problems = |queue: &_| problems(stores, &self.settings, queue);
        Placement::of(job, fixed.as_deref(), &queues, self.settings.built_in_queue, problems)
    }

    /// What the job's profile makes of its pods' requests now.
    fn fit(&self, job: &JobView, placement: &Placement) -> Fitting {
        let (Some(key), Some(asked)) = (job.profile_key(), &job.spec.profile) else {
            return Fitting::default();
        };
        let wanted = fitting::wanted(asked, placement.default_profile_mode);
        let profile = self.stores.profiles.get(&key);
        lock(&self.fittings).of(&key, wanted, &job.template, profile.as_deref())
    }

    /// Leaves out the names that pods of nobody's have, and remembers whom to wake when they go.
    fn yield_names(&self, state: &mut JobState) {
        state.yield_names(|key| self.stores.pods.get(key));
        for conflict in &state.conflicts {
            lock(&self.conflicts).insert(conflict.pod.clone(), state.job.meta().key.clone());
        }
    }

    /// Offers the job's demand and takes the admission's word for it. With many classes the pass, which
    /// looks at all of them, is left to the admission's own key: it comes once for all jobs that ask.
    /// Not for a job with several tasks: its status would tell of a wait that ends at once. Nor is a pass made for any
    /// job while the last one, as it took long, keeps the next one waiting.
    fn ask(&self, state: &JobState, uid: &Uid, overdue: bool, now: Timestamp) -> Option<Verdict> {
        let demand = demand(state);
        let is_wanted = demand.is_some();
        let obstacle = state.placement.obstacle.as_ref();
        let mut queue = QueueId::BuiltIn;
        let (verdict, pass) = {
            let mut admission = lock(&self.admission);
            if overdue {
                admission.pause(uid, Trouble::Schedule, now);
            }
            match demand {
                Some(demand) if obstacle.is_none() => {
                    queue = demand.queue.clone();
                    admission.offer(demand);
                }
                // It starts nothing, but what runs has to go like any other.
                Some(demand) if state.live() > 0 => {
                    let target = state.live();
                    let min_parallelism = demand.min_parallelism.min(target);
                    admission.offer(Demand { target, min_parallelism, ..demand });
                }
                Some(_) | None => admission.withdraw(uid),
            }
            // Not before it is offered: another worker may make a pass at any moment.
            self.note_asking(&state.job.meta().key);
            self.ready(&mut admission, now);
            let is_shared = !admission.is_small() && state.job.is_single();
            let pass = if !is_shared && self.may_pass() {
                Pass::Made(self.pass(&mut admission, now))
            } else {
                admission.size_up(uid);
                if is_shared { Pass::Shared } else { Pass::Awaited }
            };
            let verdict = match obstacle {
                None => admission.verdict(uid),
                Some(obstacle) => {
                    let waiting = Waiting { reason: obstacle.reason, message: obstacle.message.clone() };
                    let waiting = (!state.dispatch.startable.is_empty()).then_some(waiting);
                    let Verdict { reclaim, drained, .. } = admission.verdict(uid);
                    Verdict { granted: state.live(), waiting, reclaim, drained, ..Verdict::default() }
                }
            };
            (is_wanted.then_some(verdict), pass)
        };
        self.touch_queue(&queue);
        match pass {
            Pass::Made(granted) => {
                for key in granted.into_iter().filter(|key| *key != state.job.meta().key) {
                    self.wake(key, Priority::Normal, Urgency::Routine);
                }
            }
            // After the jobs that are queued already, as far as they ask for the first time.
            Pass::Shared => self.wake(admission_key(), Priority::Low, Urgency::Routine),
            Pass::Awaited => {}
        }
        verdict
    }
}
