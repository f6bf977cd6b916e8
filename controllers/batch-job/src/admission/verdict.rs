//! What a job is told: how many pods it may have, why not more, and what it must give back.

use super::class::Class;
use super::quota::{Bound, Closed, Room};
use super::{Admission, Job, QueueRules, Reclaim, ReclaimCause, Verdict, Waiting};
use springtide_plumbing::resources::ResourceList;
use springtide_crds::batch_job::{QueuedReason, StopPolicy};
use springtide_plumbing::key::Uid;
use springtide_plumbing::quantity::format_amount;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What a job that waits is told where no node may be looked at.
const WITHOUT_NODES: &str = "the manager may not see nodes here (namespaced mode), so it cannot count what fits: \
                             pods are created as the scheduler places the ones before them";

/// What went wrong before.
const FAILED: &str = "pods like these could not be created or scheduled";

/// Why a job waits, with the resource that is short, where one is.
pub(super) type Why = (Waiting, Option<Arc<str>>);

impl Admission {
    /// What a job may do now, and why not more.
    pub fn verdict(&self, uid: &Uid) -> Verdict {
        let granted = self.granted(uid);
        let Some(job) = self.jobs.get(uid) else { return Verdict { granted, ..Verdict::default() } };
        let reclaim = self.reclaim(uid, job);
        let drained = self.is_drained(job);
        let unfit = self.unfit(job);
        if granted >= job.demand.target {
            return Verdict { granted, reclaim, drained, unfit, ..Verdict::default() };
        }
        let class = self.classes.get(&*job.class);
        // One of a class is enough for that.
        let keeps_at = class.filter(|class| class.waiting.first() == Some(&job.place()));
        let keeps_at = keeps_at.and_then(|class| class.keeps_at).filter(|_| !self.has_kept(&job.class.line));
        let wake_at = class.and_then(|class| class.paused_until.or(class.preempts_at)).or(keeps_at);
        Verdict { granted, waiting: Some(self.why(job, class).0), wake_at, reclaim, drained, unfit }
    }

    fn reclaim(&self, uid: &Uid, job: &Job) -> Option<Reclaim> {
        match self.queues.rules_of(&job.class.line)?.stop {
            StopPolicy::Drain => {
                let (pods, cause) = (BTreeSet::new(), ReclaimCause::QueueStopped);
                Some(Reclaim { keep: 0, pods, cause, until: None })
            }
            StopPolicy::None | StopPolicy::Hold => self.claimed(uid),
        }
    }

    /// Why a job waits.
    pub(super) fn why(&self, job: &Job, class: Option<&Class>) -> Why {
        let plain = |reason, message: String| (Waiting { reason, message }, None);
        let key = &job.class;
        if !self.ready || self.stale.concerns(&job.demand.job.namespace) {
            let message = "the view of nodes and pods is not up to date; nothing is started until it is";
            return plain(QueuedReason::CapacityStale, message.to_owned());
        }
        if let Some(closed) = self.queues.closed(&key.line, key.tier) {
            return plain(closed.reason(), self.closed(job, closed));
        }
        let line = self.lines.get(&key.line);
        if line.is_some_and(|line| line.outside.contains(&job.place())) {
            let most = self.queues.max_queued_jobs(&key.line);
            let whose = if key.line.queue.is_some() { "queue" } else { "namespace" };
            return plain(
                QueuedReason::QueueFull,
                format!("{most} jobs of this {whose} wait already; it is taken in later"),
            );
        }
        if let Some(until) = class.and_then(|class| class.paused_until) {
            return plain(QueuedReason::ClassBackoff, format!("{FAILED}; tried again at {until:.0}"));
        }
        if let Some(why) = self.never(job) {
            return why;
        }
        if let Some(why) = self.would_not_finish(job) {
            return why;
        }
        if let Some((head, _)) = self.held_up_by(&job.class.line, &job.place()) {
            return plain(
                QueuedReason::HeadBlocked,
                format!("the queue is strict, and its first job waits, created at {head:.0}"),
            );
        }
        self.short(job, class)
    }

    fn closed(&self, job: &Job, closed: Closed) -> String {
        let name = job.class.line.queue.as_deref().unwrap_or_default();
        let tier = job.class.tier;
        let rules = self.queues.rules_of(&job.class.line).map(AsRef::as_ref);
        let stop = rules.map_or(StopPolicy::None, |rules: &QueueRules| rules.stop);
        match closed {
            Closed::NotFound => format!("BatchQueue {name} does not exist in this namespace (yet)"),
            Closed::Tier { max } => {
                format!("tier {tier:?} is above spec.maxTier {max:?} of queue {name}")
            }
            Closed::Stopped => format!("spec.stopPolicy of queue {name} is {stop:?}"),
            Closed::Until(_) => match self.queues.peak(&job.class.line) {
                Some(peak) => format!("queue {name} starts nothing of tier {tier:?}: {}", peak.message),
                None => format!("queue {name} starts nothing of tier {tier:?} now"),
            },
            Closed::Stale if self.blind => format!(
                "the manager may not see nodes here (namespaced mode): queue {name} needs capacitySource.type Static"
            ),
            Closed::MetricsOld => format!(
                "what is in use on the nodes of queue {name} was not measured within its staleAfterSeconds"
            ),
            Closed::Stale => {
                format!("the view of nodes and pods is older than staleAfterSeconds of queue {name}")
            }
        }
    }

    /// Whether it never fits, as things are.
    fn never(&self, job: &Job) -> Option<Why> {
        let shape = &job.class.shape;
        let pods = job.demand.min_parallelism.max(1);
        let wanted = self.queues.wanted(&job.class);
        if let Some(resource) = self.queues.exceeds_max(&job.class.line, &wanted, pods) {
            let name = job.class.line.queue.as_deref().unwrap_or_default();
            let message = format!(
                "{} of {} are more than queue {name} may ever have",
                count(pods),
                format_wants(&wanted, Some(&resource))
            );
            return Some((Waiting { reason: QueuedReason::NeverFits, message }, Some(resource)));
        }
        let fit = self.fits.get(shape).filter(|fit| !self.blind && fit.table.is_built())?;
        if fit.table.ever() || self.ledger.nodes().next().is_none() {
            return None;
        }
        let wants = format_wants(&job.class.shape.requests, None);
        let message = format!("a pod needs {wants}: no node that its selector allows is large enough");
        Some((Waiting { reason: QueuedReason::NeverFits, message }, None))
    }

    /// What is short.
    fn short(&self, job: &Job, class: Option<&Class>) -> Why {
        let plain = |reason, message: String| (Waiting { reason, message }, None);
        let key = &job.class;
        let missing = job.demand.min_parallelism.saturating_sub(self.granted(&job.demand.uid)).max(1);
        let room =
            self.queues.room(&key.line, key.tier, &self.queues.wanted(key), self.queues.last_fill(&key.line));
        if room.pods < missing as usize
            && let Some(why) = self.short_of_quota(job, missing, &room)
        {
            return why;
        }
        let on_trial = class.is_some_and(Class::is_on_trial);
        if self.blind {
            return match on_trial {
                true => plain(QueuedReason::ClassBackoff, format!("{FAILED}; tried one after the other")),
                false => plain(QueuedReason::NoCapacity, WITHOUT_NODES.to_owned()),
            };
        }
        let Some(fit) = self.fits.get(&key.shape).map(|fit| &fit.table) else {
            return plain(QueuedReason::NoCapacity, String::new());
        };
        if fit.total() >= u64::from(missing) && on_trial {
            return plain(QueuedReason::ClassBackoff, format!("{FAILED}; tried one after the other"));
        }
        if fit.total() >= u64::from(missing) && self.is_node_kept_from(key) {
            let message = "the room that is free is kept for a job that has waited for it for ten minutes";
            return plain(QueuedReason::HeadBlocked, message.to_owned());
        }
        let wants = format_wants(&job.class.shape.requests, None);
        let message = if missing > 1 {
            format!("{missing} pods of {wants} must fit at once; {} fit now", fit.total())
        } else {
            format!("a pod needs {wants}: room for {} on {} eligible nodes", fit.total(), fit.eligible())
        };
        plain(QueuedReason::NoCapacity, message)
    }

    fn short_of_quota(&self, job: &Job, missing: u32, room: &Room) -> Option<Why> {
        let (resource, bound) = room.short.as_ref()?;
        let line = &job.class.line;
        let name = line.queue.as_deref().unwrap_or_default();
        let wanted = self.queues.wanted(&job.class);
        let wants = format!("{} of {} must fit", count(missing), format_wants(&wanted, Some(resource)));
        let room = room.pods;
        let (reason, message) = match bound {
            Bound::Quota => {
                let (used, most) = self.queues.use_of(line, resource);
                let (used, most) = (format_amount(resource, used), format_amount(resource, most));
                (
                    QueuedReason::QuotaExceeded,
                    format!("{wants}; queue {name} uses {used} of {most} {resource}"),
                )
            }
            Bound::Cohort => (
                QueuedReason::QuotaExceeded,
                format!("{wants}; the cohort of queue {name} has {resource} left for {room}"),
            ),
            Bound::Ramp => (
                self.queues.peak_reason(line, job.class.tier),
                format!(
                    "after the peak queue {name} opens little by little; {resource} is open for {room} now"
                ),
            ),
            Bound::Tier => (
                self.queues.peak_reason(line, job.class.tier),
                format!("the peak leaves its tier in queue {name} {resource} for {room} now"),
            ),
            Bound::Source => (
                QueuedReason::NoCapacity,
                format!("{wants}; the capacity of queue {name} has {resource} left for {room}"),
            ),
        };
        Some((Waiting { reason, message }, Some(Arc::clone(resource))))
    }
}

impl Closed {
    /// As the job's condition says it.
    pub(super) fn reason(self) -> QueuedReason {
        match self {
            Self::NotFound => QueuedReason::QueueNotFound,
            Self::Tier { .. } => QueuedReason::TierNotAllowed,
            Self::Stopped => QueuedReason::QueueStopped,
            Self::Until(reason) => reason,
            Self::Stale | Self::MetricsOld => QueuedReason::CapacityStale,
        }
    }
}

fn count(pods: u32) -> String {
    if pods == 1 { "a pod".to_owned() } else { format!("{pods} pods") }
}

/// What a pod requests; of one resource of the quota, or of all.
fn format_wants(requests: &ResourceList, only: Option<&str>) -> String {
    let named = |name: &str| only.is_none_or(|only| only == name);
    let wants: Vec<String> = requests
        .iter()
        .filter(|(name, _)| *name != "pods" && named(name))
        .map(|(name, amount)| format!("{name} {}", format_amount(name, amount)))
        .collect();
    // A quota may count it by another name than the pod does.
    if wants.is_empty() && only.is_some() { format_wants(requests, None) } else { wants.join(", ") }
}
