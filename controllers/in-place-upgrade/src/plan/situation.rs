//! All that follows from what was observed, before anything is decided.

use super::preflight::{self, Preflight};
use crate::census::{Census, Member, is_left_out};
use crate::change::Change;
use crate::finalize::partition;
use crate::health::{Health, ends_run, health};
use crate::lock::{self, LockVerdict};
use crate::machine::{self, Evidence, Pace, PodState, Stand};
use crate::observed::Observed;
use crate::previous::{self, NotRecorded};
use crate::projections::upgrade::UpgradeView;
use crate::recreation::{self, Renewal};
use crate::restarts;
use crate::spec_rules::Freeze;
use crate::steps::{StepInput, StepNow, step_now};
use crate::target::Target;
use crate::verdict::{Court, Verdict, judge};
use crate::wish::Wish;
use jiff::Timestamp;
use springtide_crds::in_place_upgrade::{
    FinalizedReason, HealthyReason, Ineligible, LockedReason, OnFailure, Previous, RunResult, SourceType,
    StepStatus,
};
use springtide_plumbing::clock::after;
use springtide_plumbing::projection::Projection;
use springtide_plumbing::workloads::claims::Claim;
use springtide_plumbing::workloads::content::{Digest, Role};
use springtide_plumbing::workloads::pod::PodView;
use springtide_plumbing::workloads::template::Template;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Where the object is in the life of a run. It is read from the status alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// No run is open.
    Closed,
    /// No run is open, and the last one of this very wish was rolled back.
    RolledBack,
    /// A run is open, of another wish than that of the spec now.
    Superseded,
    /// Pods become what is wished.
    Forward,
    /// The workload's controller is brought to see it.
    Finalizing,
    /// Pods become again what they were.
    Back,
    /// The run has gone wrong, and stands.
    Stopped,
}

impl Course {
    /// Where an object is whose spec wishes this.
    pub fn of(upgrade: &UpgradeView, wish: &Wish) -> Self {
        let status = &upgrade.status;
        let is_same = status.target_hash == wish.hash.as_str();
        if !upgrade.is_run_open() {
            let rolled_back = status.last_run.as_ref().is_some_and(|run| {
                run.target_hash == wish.hash.as_str() && run.result == RunResult::RolledBack
            });
            return if rolled_back { Self::RolledBack } else { Self::Closed };
        }
        if !is_same {
            return Self::Superseded;
        }
        if upgrade.reason::<HealthyReason>().is_some_and(ends_run) {
            return match upgrade.spec.rollback.on_failure {
                OnFailure::Auto => Self::Back,
                OnFailure::Hold => Self::Stopped,
            };
        }
        match upgrade.reason::<FinalizedReason>() {
            Some(FinalizedReason::WaitingForHandshake | FinalizedReason::OlderReplicaSetMatches) => {
                Self::Finalizing
            }
            Some(
                FinalizedReason::NotObserved
                | FinalizedReason::NativeControllerAgrees
                | FinalizedReason::Unneeded
                | FinalizedReason::WaitingForPods,
            )
            | None => Self::Forward,
        }
    }

    /// Whether a run is open.
    pub fn is_open(self) -> bool {
        match self {
            Self::Closed | Self::RolledBack => false,
            Self::Superseded | Self::Forward | Self::Finalizing | Self::Back | Self::Stopped => true,
        }
    }
}

/// What follows from what was observed of an accepted object.
#[derive(Debug)]
pub struct Situation<'a> {
    /// What was observed.
    pub observed: &'a Observed,
    /// The workload.
    pub target: &'a Target,
    /// The windows of the spec.
    pub freezes: Vec<Freeze>,
    /// What the spec wishes.
    pub wish: Wish,
    /// What pods are held against: the wish, or what a rollback goes back to.
    pub goal: Wish,
    /// `policy.ineligible`, but `Block` for a wish that names what the workload has not: no pod could ever take that on,
    /// and one that left all of them out would look as if it had come to its end.
    pub ineligible: Ineligible,
    /// Whether what a rollback goes back to is gone.
    pub is_goal_lost: bool,
    /// Where the object is.
    pub course: Course,
    /// Whether the workload is locked.
    pub lock: LockVerdict,
    /// How a pod goes its way.
    pub pace: Pace,
    /// Cpu and memory that somebody else decides.
    pub claims: Vec<Claim>,
    /// The workload's live pods, by name.
    pub members: Vec<Member>,
    /// What each of them was made from, in the same order: what dry runs are asked by.
    pub origins: Vec<Origin>,
    /// The counts.
    pub census: Census,
    /// The step.
    pub step: StepNow,
    /// Whether the run goes well.
    pub health: Health,
    /// What the API server says to the change, and what it is still to be asked.
    pub asked: Preflight,
    /// When a restart that is asked for is due, where that is still to come.
    pub restart_at: Option<Timestamp>,
}

/// What a pod was made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Digest of its template; of the wish's where that is gone.
    pub template: Digest,
    /// The images of its plain containers that the wish changes.
    pub images: Vec<Arc<str>>,
}

impl<'a> Situation<'a> {
    /// Derives all that follows for an object whose spec can be served.
    pub fn new(observed: &'a Observed, target: &'a Target, freezes: Vec<Freeze>, now: Timestamp) -> Self {
        let upgrade = &observed.upgrade;
        let (spec, status) = (&upgrade.spec, &upgrade.status);
        let wish = Wish::of(spec, target.template());
        let course = Course::of(upgrade, &wish);
        let stored = status.previous.as_ref();
        // Once a run of this wish has succeeded, what pods bear of it says nothing of one that repairs them.
        let succeeded = status
            .last_run
            .as_ref()
            .filter(|run| run.target_hash == wish.hash.as_str() && run.result == RunResult::Succeeded);
        let mut this = succeeded.map_or_else(|| wish.clone(), |run| wish.again(run.completion_time.0));
        let restart_at = wish.restart.as_ref().map(|restart| restart.before_time.0).filter(|at| *at > now);
        if restart_at.is_some() {
            // Whatever is created until then is to be restarted, and no pod twice.
            this.restart = None;
        }
        let (goal, is_goal_lost) = match course {
            Course::Back => match stored.and_then(|previous| previous::goal(target, previous)) {
                Some(template) => (this.back_to(&template), false),
                None => (this, true),
            },
            Course::Closed
            | Course::RolledBack
            | Course::Superseded
            | Course::Forward
            | Course::Finalizing
            | Course::Stopped => (this, false),
        };
        let terms = lock::Terms {
            lock: spec.policy.lock,
            persist: wish.persist,
            is_run_open: course.is_open(),
            was_unlocked: upgrade.reason::<LockedReason>() == Some(LockedReason::UnlockedDuringRun)
                && status.observed_generation == upgrade.meta().generation,
            uid: &upgrade.meta().uid.0,
            has_recorded_partition: stored.is_some_and(|previous| previous.partition.is_some()),
            is_lowered_by_others: is_lowered_by_others(observed, target),
        };
        let lock = lock::lock(target, &terms);
        let pace = Pace::of(spec, target.min_ready_seconds());
        let claims = observed.claims();
        let (members, origins) = members(observed, target, &goal, course, &pace, &claims, now);
        let mut census = Census::of(&members);
        census.missing = missing(observed, target, &census, &pace, now);
        let is_same = status.target_hash == wish.hash.as_str() && course.is_open();
        let input = StepInput {
            steps: &spec.strategy.steps,
            approval: spec.approval.as_ref(),
            hash: wish.hash.as_str(),
            stored: status.step.as_ref().filter(|_| is_same),
            ignores_holds: course == Course::Back,
        };
        let is_known = wish.unknown_containers.is_empty();
        let ineligible = if is_known { spec.policy.ineligible } else { Ineligible::Block };
        let progress = census.progress(target.replicas(), ineligible);
        let step = step_now(&input, progress, now);
        let health = health(&census, &spec.health, &observed.metrics);
        let mut situation = Self {
            observed,
            target,
            freezes,
            wish,
            goal,
            ineligible,
            is_goal_lost,
            course,
            lock,
            pace,
            claims,
            members,
            origins,
            census,
            step,
            health,
            asked: Preflight::default(),
            restart_at,
        };
        situation.asked = preflight::preflight(&situation, now);
        situation
    }

    /// What a rollback would go back to, if the run opened now.
    ///
    /// # Errors
    /// Why it cannot be recorded.
    pub fn to_be_recorded(&self) -> Result<Previous, NotRecorded> {
        let old = match self.target {
            Target::ReplicaSet(set) => Some(previous::content_of_pods(set, &self.observed.pods)),
            Target::Deployment { .. } | Target::StatefulSet { .. } | Target::DaemonSet { .. } => None,
        };
        previous::record(self.target, &self.observed.pods, old.as_deref(), &self.wish.template)
    }

    /// The step as stored, if it is of the run that is open.
    pub fn stored_step(&self) -> Option<&StepStatus> {
        let status = &self.observed.upgrade.status;
        status.step.as_ref().filter(|_| status.target_hash == self.wish.hash.as_str())
    }

    /// Pods that are unavailable or missing.
    pub fn unavailable(&self) -> u32 {
        let expected = self.target.replicas().max(self.census.pods.total);
        expected.saturating_sub(self.census.available)
    }

    /// Most that may be.
    pub fn max_unavailable(&self) -> u32 {
        let spec = &self.observed.upgrade.spec;
        spec.strategy.max_unavailable.round_down(self.target.replicas()).max(1)
    }

    /// Whether a pod that differs is left as it is, as it cannot be changed.
    pub fn leaves_out(&self, member: &Member) -> bool {
        member.blocked().is_some_and(|reason| is_left_out(reason, self.ineligible))
    }

    /// How many are.
    pub fn left_out(&self) -> u32 {
        self.census.left_out(self.ineligible)
    }

    /// How a pod is made anew; see [`recreation`](crate::recreation).
    pub fn renewal(&self, pod: &PodView) -> Option<Renewal> {
        renewal_in(self.observed, self.target, &self.goal, pod)
    }

    /// Ordinals of a StatefulSet's pods that are of the wished revision and available.
    pub fn relabelled(&self) -> Vec<u32> {
        let done = self.members.iter().filter(|member| member.is_available && member.is_updated());
        done.filter_map(|member| self.target.ordinal(&member.pod)).collect()
    }
}

/// Judges all pods, by what each was made from.
fn members(
    observed: &Observed,
    target: &Target,
    goal: &Wish,
    course: Course,
    pace: &Pace,
    claims: &[Claim],
    now: Timestamp,
) -> (Vec<Member>, Vec<Origin>) {
    let spec = &observed.upgrade.spec;
    let stored = observed.upgrade.status.previous.as_ref();
    let of_bare = match target {
        // It is its own template that a pod which goes back may have been born of.
        Target::ReplicaSet(set) if goal.is_rollback => Some(Arc::clone(&set.template)),
        Target::ReplicaSet(set) => Some(match stored {
            Some(previous) => previous::goal(target, previous).unwrap_or_else(|| Arc::clone(&set.template)),
            None => previous::content_of_pods(set, &observed.pods),
        }),
        Target::Deployment { .. } | Target::StatefulSet { .. } | Target::DaemonSet { .. } => None,
    };
    let revision = match (goal.is_rollback, stored) {
        (true, Some(previous)) => previous::revision_label(target, previous),
        (true, None) | (false, _) => target.update_revision().map(|revision| revision.pod_label().clone()),
    };
    let unknown = Evidence::default();
    let mut changes: BTreeMap<Option<Digest>, (Change, bool)> = BTreeMap::new();
    // What was born before has been looked at by whoever went before.
    let begun = stored.and(observed.upgrade.status.step.as_ref()).map(|step| step.start_time.0);
    let live = observed.pods.iter().filter(|pod| pod.is_live());
    let judged = live.map(|pod| {
        let made_from = of_bare.as_ref().or_else(|| target.template_of(pod));
        let template = made_from.map_or(goal.whole(), |template| template.whole);
        let key = made_from.map(|template| template.whole);
        let (change, is_denied) = &*changes.entry(key).or_insert_with(|| {
            let change = match made_from {
                Some(old) => Change::between(old, &goal.template),
                None => Change {
                    rest: target.rest_of_lost(pod).is_some_and(|rest| rest != goal.template.rest),
                    ..Change::of_unknown(&goal.template)
                },
            };
            (change, preflight::is_denied(&observed.answers, goal, template))
        });
        // One that was made from the wish comes out the same again, but for its age.
        let is_old = made_from.is_none_or(|template| template.whole != goal.whole())
            || restarts::due(pod, goal).is_some();
        let policy = spec.policy.ineligible;
        let (renewal, ineligible) = match policy {
            Ineligible::Block | Ineligible::Ignore => (None, policy),
            Ineligible::Recreate => match renewal_in(observed, target, goal, pod).filter(|_| is_old) {
                Some(renewal) => (Some(renewal), policy),
                None => (None, Ineligible::Block),
            },
        };
        let court = Court {
            wish: goal,
            change,
            revision: revision.as_ref(),
            is_strict_on_amounts: course.is_open(),
            claims,
            traffic: spec.traffic.mode,
            ineligible,
            is_denied: *is_denied,
        };
        let node = pod.node.as_ref().and_then(|node| observed.nodes.get(node));
        let judgement = judge(pod, node.map(AsRef::as_ref), &court);
        let evidence = observed.evidence.get(&pod.meta().uid).unwrap_or(&unknown);
        let stand = machine::stand(pod, &judgement, goal.hash.as_str(), pace, evidence, now);
        let stand = match (judgement.verdict, renewal, policy) {
            (Verdict::Recreate, Some(Renewal::Controller), _) => {
                Stand { state: PodState::Renewed, wake: None }
            }
            (Verdict::UpToDate, _, Ineligible::Recreate)
                if begun.is_some_and(|begun| pod.meta().creation_time >= begun) =>
            {
                machine::renewed(pod, stand, pace, now)
            }
            (
                Verdict::UpToDate
                | Verdict::Metadata
                | Verdict::Resize
                | Verdict::InPlace
                | Verdict::Restart
                | Verdict::NextRestart
                | Verdict::Recreate
                | Verdict::Blocked(_),
                _,
                _,
            ) => stand,
        };
        let is_available = machine::is_available(pod, judgement.lever, pace.min_ready, now)
            && !machine::is_going(pod, &stand.state, now);
        let awaits_restart = awaits_restart(pod, change, &goal.template, goal.hash.as_str());
        let images = judgement.differences.images.iter();
        let images = images.filter_map(|name| goal.template.content.containers.get(name));
        let origin = Origin { template, images: images.map(|content| content.image.clone()).collect() };
        (Member { pod: Arc::clone(pod), judgement, stand, is_available, awaits_restart }, origin)
    });
    judged.unzip()
}

/// Whether somebody else has lowered a StatefulSet's partition past pods that no run has changed: a run lowers it past those
/// that are done, and past the one that is made anew next.
fn is_lowered_by_others(observed: &Observed, target: &Target) -> bool {
    let upgrade = &observed.upgrade;
    // At the end all pods are of the revision that has become the current one, also where another wish is there by now.
    if upgrade.reason::<FinalizedReason>() == Some(FinalizedReason::WaitingForHandshake) {
        return false;
    }
    let makes_anew = match upgrade.spec.policy.ineligible {
        Ineligible::Recreate => true,
        Ineligible::Block | Ineligible::Ignore => false,
    };
    partition::at_stake(target, &observed.pods)
        .any(|stake| stake.is_current && !(makes_anew && stake.is_next()))
}

/// Pods that are waited for, as some may have been evicted whose place is still empty. Nobody knows which are missing for
/// that, so that they are waited for as long as for one that was changed, and no longer.
fn missing(observed: &Observed, target: &Target, census: &Census, pace: &Pace, now: Timestamp) -> u32 {
    let is_awaited = observed.still_since.is_none_or(|since| after(since, pace.pod_deadline) > now);
    match observed.upgrade.spec.policy.ineligible {
        Ineligible::Recreate if is_awaited && observed.upgrade.is_run_open() => {
            target.replicas().saturating_sub(census.pods.total)
        }
        Ineligible::Recreate | Ineligible::Block | Ineligible::Ignore => 0,
    }
}

/// How a pod is made anew.
fn renewal_in(observed: &Observed, target: &Target, goal: &Wish, pod: &PodView) -> Option<Renewal> {
    let spec = &observed.upgrade.spec;
    let has_inline = match spec.source.type_ {
        SourceType::Inline => spec.source.inline.is_some(),
        SourceType::Template => false,
    };
    recreation::renewal(target, goal, spec.policy.lock, has_inline, pod)
}

/// Whether a plain init container has got its image by this run: nothing runs it before the pod restarts.
fn awaits_restart(pod: &PodView, change: &Change, wish: &Template, run: &str) -> bool {
    let is_of_init =
        |name: &Arc<str>| wish.content.containers.get(name).is_some_and(|content| content.role == Role::Init);
    pod.trace.of_run(run).is_some() && change.images.iter().any(is_of_init)
}
