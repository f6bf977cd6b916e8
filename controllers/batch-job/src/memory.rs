//! What this process remembers of a job and no object says: when setbacks happened, and what the API
//! server refused. All of it can be lost: it only makes waits exact and spares refused writes.

use crate::admission::{ReclaimCause, Trouble, Verdict};
use crate::failure::Ending;
use crate::plan::{Attempt, stored_indexes};
use crate::pod_groups::GroupFacts;
use crate::profiles::fitting::{Fitted, Fitting};
use crate::projections::job::{JobView, Template};
use crate::projections::pod::PodView;
use jiff::{SignedDuration, Timestamp};
use springtide_plumbing::error::Refusal;
use springtide_plumbing::guard::Withheld;
use springtide_plumbing::key::Uid;
use springtide_plumbing::projection::Projection;
use std::cell::LazyCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// First pause after a refusal to release a pod; it doubles with each further one.
const RELEASE_BACKOFF: SignedDuration = SignedDuration::from_secs(30);
/// Longest pause.
pub(crate) const RELEASE_BACKOFF_MAX: SignedDuration = SignedDuration::from_secs(300);

/// What planners may know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// When this process first saw the job.
    pub since: Timestamp,
    /// When the job's status was last written.
    pub last_flush: Option<Timestamp>,
    /// It is time to record that the job waits, but others have their turn first: when it is to ask again.
    pub record_from: Option<Timestamp>,
    /// The last create was refused like this.
    pub refusal: Option<Box<CreateRefusal>>,
    /// A pod of the job was created by this process.
    pub created: bool,
    /// Hash of the template of which the job's pods are, as far as this process saw them.
    pub template_hash: Option<Box<str>>,
    /// Pods that wait for a node, and when this process first saw that.
    pub pending: BTreeMap<Uid, Timestamp>,
    /// When a gang that never had as many pods as it needs got its last one.
    pub gathering: Option<Timestamp>,
    /// Pods, by name, that the API server refuses to delete or to free of our finalizer.
    pub unreleased: BTreeMap<Arc<str>, ReleaseRefusal>,
    /// The last pods were taken back, as they were not scheduled in time.
    pub pending_deadline: bool,
    /// What came of asking for the job's PodGroup.
    pub pod_group: GroupFacts,
    /// Why pods of the job were last taken back that ran, until it has all again that it wants.
    pub taken: Option<ReclaimCause>,
    /// By open index, its last ends that were no success.
    pub setbacks: BTreeMap<u32, Setback>,
    /// Disruptions in all: those in the status when the job was first seen, and those seen since.
    pub disrupted: u32,
    /// What the job's profile gave to the last pods that were created.
    pub fitted: Option<Box<Fitting>>,
}

/// The last ends of an open index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Setback {
    /// Failures with the last one seen.
    pub failures: u32,
    /// When that one ended.
    pub failed: Option<Timestamp>,
    /// Disruptions in a row since.
    pub disruptions: u32,
    /// When the last of those ended, or was found gone.
    pub disrupted: Option<Timestamp>,
}

impl Setback {
    /// When the last pod of the index ended.
    pub fn at(&self) -> Option<Timestamp> {
        self.failed.max(self.disrupted)
    }
}

/// How the API server refused a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateRefusal {
    /// `metadata.generation` of the job then: an edit deserves another try.
    pub generation: i64,
    /// What kind of refusal it was.
    pub kind: RefusalKind,
    /// When that was.
    pub at: Timestamp,
    /// What is wrong, for people.
    pub message: String,
}

/// How the API server refused to delete a pod, or to free it of our finalizer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleaseRefusal {
    /// Refusals in a row.
    pub attempts: u32,
    /// The pod is left alone until then.
    pub until: Timestamp,
    /// What is wrong, for people.
    pub message: String,
}

/// What a refusal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// The pod is not valid, whoever asks.
    InvalidTemplate,
    /// No quota is left: the admission decides when the class is tried again.
    Quota,
    /// Forbidden: a right, a policy or a PriorityClass is missing. Tried again like [`Self::Quota`].
    Forbidden {
        /// Refusals in a row.
        attempts: u32,
    },
    /// The namespace is being deleted, so nothing will start in it again.
    NamespaceTerminating,
    /// No refusal: the server could not be asked, or did not tell what came of it. Tried again like
    /// [`Self::Quota`].
    Unanswered {
        /// Passes in a row.
        attempts: u32,
    },
}

/// What is remembered of one incarnation of a job.
#[derive(Clone, Debug)]
pub struct Memory {
    /// The part that planners see.
    pub facts: Facts,
    /// Its pods, once it has some.
    pods: Option<Box<Pods>>,
    /// Whether the job ever had a pod.
    started: bool,
    /// Whether as many pods were alive at once as a gang needs, since there were none.
    gathered: bool,
    /// When the pods were last looked at.
    last_look: Timestamp,
    /// The template as last seen.
    template: Arc<Template>,
    /// What the job's profile gives to pods that are created now; absent where it gives and says nothing.
    fitting: Option<Box<Fitting>>,
    /// What it gave before, and the API server refused.
    unfit: Option<Box<Unfit>>,
}

/// What is remembered of a job's pods.
#[derive(Clone, Debug, Default)]
struct Pods {
    /// Those that had not ended when last looked at.
    live: HashMap<Uid, Live>,
    /// Ended ones that are taken into account, and since when.
    noted: HashMap<Uid, Timestamp>,
    /// Unscheduled ones that were found too old.
    overdue: HashSet<Uid>,
}

impl Pods {
    fn is_empty(&self) -> bool {
        self.live.is_empty() && self.noted.is_empty() && self.overdue.is_empty()
    }
}

/// Requests of a profile with which the API server takes no pod: the default limit of a LimitRange is below them, say.
#[derive(Clone, Debug)]
struct Unfit {
    fitted: Arc<Fitted>,
    at: Timestamp,
    note: String,
}

#[derive(Clone, Copy, Debug)]
struct Live {
    index: u32,
    attempt: u32,
    has_node: bool,
    started: Option<Timestamp>,
}

impl Memory {
    /// Notes what the admission takes back. By the time that a status may be written the pods are gone, and nothing is
    /// asked for any more; the job is short of them for longer. `ending`: pods of the job are being deleted, whose
    /// tasks nobody waits for before they are gone.
    pub fn note_taken(&mut self, verdict: Option<&Verdict>, ending: bool) -> Option<ReclaimCause> {
        let reclaim = verdict.and_then(|verdict| verdict.reclaim.as_ref()).map(|reclaim| reclaim.cause);
        let is_short = ending || verdict.is_some_and(|verdict| verdict.waiting.is_some());
        self.facts.taken = reclaim.or(self.facts.taken.filter(|_| is_short));
        self.facts.taken
    }

    /// Nothing is remembered of a job first seen now.
    pub fn new(job: &JobView, now: Timestamp) -> Self {
        let facts = Facts {
            since: now,
            last_flush: None,
            record_from: None,
            refusal: None,
            created: false,
            template_hash: None,
            pending: BTreeMap::new(),
            gathering: None,
            unreleased: BTreeMap::new(),
            pending_deadline: false,
            pod_group: GroupFacts::default(),
            taken: None,
            setbacks: BTreeMap::new(),
            disrupted: job.status.disrupted,
            fitted: None,
        };
        let status = &job.status;
        // What had an end, or enough pods, was complete: a new process ends no work by mistake.
        let gathered = status.active >= job.spec.min_parallelism
            || status.succeeded + status.failed + status.disrupted > 0;
        Self {
            facts,
            pods: None,
            started: status.admitted_time.is_some(),
            gathered,
            last_look: now,
            template: Arc::clone(&job.template),
            fitting: None,
            unfit: None,
        }
    }

    /// What the job's profile gives to pods from now on: what it would, but nothing that was refused.
    pub fn fit(&mut self, fitting: Fitting) -> Fitting {
        let unfit = self.unfit.as_ref().filter(|unfit| fitting.fitted.as_ref() == Some(&unfit.fitted));
        let fitting = match unfit {
            Some(unfit) => Fitting { fitted: None, note: unfit.note.clone(), reasons: Vec::new(), ..fitting },
            None => fitting,
        };
        self.fitting = (fitting != Fitting::default()).then(|| Box::new(fitting.clone()));
        fitting
    }

    /// Forgets what the API server said to releases of pods that are gone. `pods` are those of all jobs
    /// that ever bore the name.
    pub fn keep_unreleased(&mut self, pods: &[Arc<PodView>]) {
        self.facts.unreleased.retain(|name, _| pods.iter().any(|pod| pod.meta().key.name == *name));
    }

    /// Takes in the job's pods as they are now; how often and when it is called makes no difference
    /// beyond the time at which the end of a pod that reports none is noticed.
    ///
    /// Returns whether an unscheduled pod was found too old that was not before.
    pub fn look(&mut self, job: &JobView, pods: &[Attempt], now: Timestamp) -> bool {
        if !Arc::ptr_eq(&self.template, &job.template) {
            self.template = Arc::clone(&job.template);
        }
        if !pods.is_empty() {
            self.started = true;
            self.facts.template_hash.get_or_insert_with(|| job.template.hash.clone());
        }
        if let Some(indexes) = &job.status.indexes {
            self.facts.setbacks = self.facts.setbacks.split_off(&indexes.closed_below);
        }
        let waiting = pods.iter().filter(|pod| pod.waits_for_node()).map(|pod| &pod.view.meta().uid);
        self.facts.pending =
            waiting.map(|uid| (uid.clone(), *self.facts.pending.get(uid).unwrap_or(&now))).collect();
        let before = self.pods.take();
        // As of most jobs that wait.
        if before.is_none() && pods.is_empty() {
            self.gather(job, 0, false, now);
            self.last_look = now;
            return false;
        }
        let mut before = before.unwrap_or_default();
        let Pods { mut live, mut noted, mut overdue } = Pods::default();
        let mut has_grown = false;
        // Whoever led before may have counted an end that this process sees as a disruption: the server marks a pod
        // as deleted before it removes it, however it has ended, and removes it between two looks.
        let stored = LazyCell::new(|| stored_indexes(job).ok());
        let is_counted = |index, attempt| {
            job.is_finished() || stored.as_ref().is_some_and(|indexes| indexes.is_counted(index, attempt))
        };
        let streak_ends = SignedDuration::from_secs(job.spec.retry.max_backoff_seconds.into());
        for pod in pods {
            let uid = &pod.view.meta().uid;
            let task = pod.view.task.as_deref();
            let started = task.and_then(|task| task.started);
            let was_live = before.live.remove(uid);
            // The clock of the node may be hours off: what it says is taken when it can be true.
            let earliest = was_live.map_or(pod.view.meta().creation_time, |_| self.last_look);
            let said = task.and_then(|task| task.finished).filter(|at| (earliest..=now).contains(at));
            let at = said.unwrap_or(now);
            let Some(ending) = &pod.ending else {
                has_grown |= was_live.is_none();
                live.insert(
                    uid.clone(),
                    Live {
                        index: pod.index,
                        attempt: pod.attempt,
                        has_node: pod.view.node.is_some(),
                        started,
                    },
                );
                if pod.is_overdue(job, &self.facts, now) {
                    overdue.insert(uid.clone());
                }
                continue;
            };
            let known = before.noted.get(uid).copied();
            noted.insert(uid.clone(), known.unwrap_or(now));
            if known.is_some() {
                continue;
            }
            match ending {
                Ending::Succeeded => {
                    self.facts.setbacks.remove(&pod.index);
                }
                Ending::Failed(_) => {
                    let failed =
                        Setback { failures: pod.attempt + 1, failed: Some(at), ..Setback::default() };
                    self.facts.setbacks.insert(pod.index, failed);
                }
                Ending::Disrupted if pod.view.node.is_some() && !is_counted(pod.index, pod.attempt) => {
                    let started = started.or(was_live.and_then(|live| live.started));
                    self.disrupted(pod.index, at, started, streak_ends);
                }
                Ending::Disrupted => {}
            }
        }
        self.gather(job, live.len(), has_grown, now);
        // What is left was there and is gone: nobody will tell how it ended.
        for gone in before.live.into_values().filter(|gone| gone.has_node) {
            if !is_counted(gone.index, gone.attempt) {
                self.disrupted(gone.index, now, gone.started, streak_ends);
            }
        }
        self.last_look = now;
        let newly_overdue = !overdue.is_subset(&before.overdue);
        let has_node = live.values().any(|pod: &Live| pod.has_node);
        let seen = Pods { live, noted, overdue };
        self.pods = (!seen.is_empty()).then(|| Box::new(seen));
        if newly_overdue {
            self.facts.pending_deadline = true;
        } else if has_node {
            self.facts.pending_deadline = false;
        }
        newly_overdue
    }

    /// Takes in that so many pods of a gang are alive, though no pass looks at them.
    pub fn witness(&mut self, job: &JobView, alive: usize) {
        self.gathered |= alive >= job.spec.min_parallelism as usize;
    }

    /// Follows how a gang gets its pods.
    fn gather(&mut self, job: &JobView, alive: usize, has_grown: bool, now: Timestamp) {
        self.gathered &= alive > 0;
        self.witness(job, alive);
        self.facts.gathering = match self.facts.gathering {
            _ if self.gathered || alive == 0 => None,
            Some(since) if !has_grown => Some(since),
            Some(_) | None => Some(now),
        };
    }

    fn disrupted(
        &mut self,
        index: u32,
        at: Timestamp,
        started: Option<Timestamp>,
        streak_ends: SignedDuration,
    ) {
        self.facts.disrupted += 1;
        let ran_long = started.is_some_and(|started| at.duration_since(started) >= streak_ends);
        let setback = self.facts.setbacks.entry(index).or_default();
        setback.disruptions = if ran_long { 1 } else { setback.disruptions + 1 };
        setback.disrupted = Some(at);
    }

    /// A create succeeded. Returns whether it was the first of the job.
    pub fn created(&mut self) -> bool {
        let is_first = !std::mem::replace(&mut self.started, true);
        self.facts.created = true;
        self.facts.refusal = None;
        if self.facts.fitted.is_none() || self.facts.fitted != self.fitting {
            self.facts.fitted = Some(self.fitting.clone().unwrap_or_default());
        }
        self.facts.template_hash.get_or_insert_with(|| self.template.hash.clone());
        is_first
    }

    /// Since when it is known that a pod ended.
    pub fn ended_since(&self, pod: &Uid) -> Option<Timestamp> {
        self.pods.as_ref()?.noted.get(pod).copied()
    }

    /// A create was refused. Returns the trouble that this means for all pods of its class; none where
    /// it concerns the job alone, which does not try again. `message` is what users are told of it.
    pub fn refused(
        &mut self,
        generation: i64,
        refusal: &Refusal,
        message: String,
        now: Timestamp,
    ) -> Option<Trouble> {
        let (kind, trouble) = match refusal.code {
            // The template may be well: it is tried as it is.
            400 | 413 | 422 if refusal.concerns_requests() && self.unfits(&message, now) => return None,
            403 if refusal.is_limit_range() && self.unfits(&message, now) => return None,
            400 | 413 | 422 => (RefusalKind::InvalidTemplate, None),
            403 if refusal.is_quota() => (RefusalKind::Quota, Some(Trouble::Quota)),
            403 if refusal.is_namespace_terminating() => (RefusalKind::NamespaceTerminating, None),
            403 => {
                let attempts = self.attempts(generation, now, |kind| match kind {
                    RefusalKind::Forbidden { attempts } => Some(attempts),
                    RefusalKind::InvalidTemplate
                    | RefusalKind::Quota
                    | RefusalKind::NamespaceTerminating
                    | RefusalKind::Unanswered { .. } => None,
                });
                (RefusalKind::Forbidden { attempts }, Some(Trouble::Create))
            }
            _ => return Some(Trouble::Create),
        };
        self.facts.refusal = Some(Box::new(CreateRefusal { generation, kind, at: now, message }));
        trouble
    }

    /// Takes back what the profile gave to a pod that is refused as invalid. Returns whether it gave anything to the
    /// pods of this pass.
    fn unfits(&mut self, message: &str, now: Timestamp) -> bool {
        if let Some(fitted) = self.fitting.as_mut().and_then(|fitting| fitting.fitted.take()) {
            let note = format!("the profile's requests are refused and not set: {message}");
            self.unfit = Some(Box::new(Unfit { fitted, at: now, note }));
        }
        self.unfit.as_ref().is_some_and(|unfit| unfit.at == now)
    }

    /// Nobody told what came of a create. `message` is what users are told of it.
    pub fn unanswered(&mut self, generation: i64, message: String, now: Timestamp) {
        let attempts = self.attempts(generation, now, |kind| match kind {
            RefusalKind::Unanswered { attempts } => Some(attempts),
            RefusalKind::InvalidTemplate
            | RefusalKind::Quota
            | RefusalKind::NamespaceTerminating
            | RefusalKind::Forbidden { .. } => None,
        });
        let kind = RefusalKind::Unanswered { attempts };
        self.facts.refusal = Some(Box::new(CreateRefusal { generation, kind, at: now, message }));
    }

    /// How often in a row creates have failed in one way, this time included.
    fn attempts(&self, generation: i64, now: Timestamp, alike: impl Fn(RefusalKind) -> Option<u32>) -> u32 {
        let before = self.facts.refusal.as_ref().filter(|before| before.generation == generation);
        match before.and_then(|before| Some((alike(before.kind)?, before.at))) {
            // Several creates of one pass have failed: that is once.
            Some((attempts, at)) if at == now => attempts,
            Some((attempts, _)) => attempts.saturating_add(1),
            None => 1,
        }
    }

    /// A pod was not deleted, or not freed of our finalizer: it is left alone for a while, as the job's
    /// other pods must not wait for it.
    pub fn release_refused(&mut self, pod: &Arc<str>, message: String, now: Timestamp) {
        let attempts = self.facts.unreleased.get(pod).map_or(0, |before| before.attempts) + 1;
        let pause = RELEASE_BACKOFF
            .checked_mul(1 << (attempts - 1).min(4))
            .unwrap_or(RELEASE_BACKOFF_MAX)
            .min(RELEASE_BACKOFF_MAX);
        let refusal = ReleaseRefusal { attempts, until: now + pause, message };
        self.facts.unreleased.insert(Arc::clone(pod), refusal);
    }

    /// A pod is kept by its label or by the breaker: it is left alone likewise, and looked at again before
    /// long, as both end by a person's hand.
    pub fn release_withheld(&mut self, pod: &Arc<str>, withheld: &Withheld, now: Timestamp) {
        let refusal =
            ReleaseRefusal { attempts: 1, until: now + RELEASE_BACKOFF, message: withheld.to_string() };
        self.facts.unreleased.insert(Arc::clone(pod), refusal);
    }

    /// A pod was deleted or freed of our finalizer.
    pub fn released(&mut self, pod: &Arc<str>) {
        self.facts.unreleased.remove(pod);
    }
}

#[cfg(test)]
mod tests;
