//! All that follows from what was observed, before anything is decided.

use super::preflight;
use crate::census::{Census, Member};
use crate::change::Change;
use crate::content::{Digest, Role};
use crate::health::{Health, health};
use crate::lock::{self, LockVerdict};
use crate::machine::{self, Evidence, Pace};
use crate::observed::Observed;
use crate::previous;
use crate::projections::pod::PodView;
use crate::projections::template::Template;
use crate::projections::upgrade::UpgradeView;
use crate::spec_rules::Freeze;
use crate::steps::{StepInput, StepNow, step_now};
use crate::target::Target;
use crate::verdict::{Court, judge};
use crate::wish::Wish;
use jiff::Timestamp;
use springtide_crds::common::ConditionStatus;
use springtide_crds::in_place_upgrade::{
    FinalizedReason, HealthyReason, LockedReason, OnFailure, Previous, RunResult, StepStatus,
};
use springtide_crds::reason::Reason;
use springtide_plumbing::projection::Projection;
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
        let is_unhealthy =
            upgrade.reason::<HealthyReason>().is_some_and(|reason| reason.status() == ConditionStatus::False);
        if is_unhealthy {
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
    /// Whether what a rollback goes back to is gone.
    pub is_goal_lost: bool,
    /// Where the object is.
    pub course: Course,
    /// Whether the workload is locked.
    pub lock: LockVerdict,
    /// How a pod goes its way.
    pub pace: Pace,
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
        let (goal, is_goal_lost) = match course {
            Course::Back => match stored.and_then(|previous| previous::goal(target, previous)) {
                Some(template) => (wish.back_to(&template), false),
                None => (wish.clone(), true),
            },
            Course::Closed
            | Course::RolledBack
            | Course::Superseded
            | Course::Forward
            | Course::Finalizing
            | Course::Stopped => (wish.clone(), false),
        };
        let terms = lock::Terms {
            lock: spec.policy.lock,
            persist: wish.persist,
            is_run_open: course.is_open(),
            was_unlocked: upgrade.reason::<LockedReason>() == Some(LockedReason::UnlockedDuringRun)
                && status.observed_generation == upgrade.meta().generation,
            uid: &upgrade.meta().uid.0,
            recorded_partition: stored.and_then(|previous| previous.partition),
        };
        let lock = lock::lock(target, &terms);
        let pace = Pace::of(spec, target.min_ready_seconds());
        let (members, origins) = members(observed, target, &goal, course, &pace, now);
        let census = Census::of(&members);
        let is_same = status.target_hash == wish.hash.as_str() && course.is_open();
        let input = StepInput {
            steps: &spec.strategy.steps,
            approval: spec.approval.as_ref(),
            hash: wish.hash.as_str(),
            stored: status.step.as_ref().filter(|_| is_same),
            ignores_holds: course == Course::Back,
        };
        let progress = census.progress(target.replicas(), spec.policy.ineligible);
        let step = step_now(&input, progress, now);
        let health = health(&census, &spec.health, &observed.metrics);
        Self {
            observed,
            target,
            freezes,
            wish,
            goal,
            is_goal_lost,
            course,
            lock,
            pace,
            members,
            origins,
            census,
            step,
            health,
        }
    }

    /// What a rollback would go back to, if the run opened now.
    pub fn to_be_recorded(&self) -> Option<Previous> {
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

    /// Ordinals of a StatefulSet's pods that are of the wished revision and available.
    pub fn relabelled(&self) -> Vec<u32> {
        let done = self
            .members
            .iter()
            .filter(|member| member.is_available && member.judgement.differences.is_content_equal());
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
    now: Timestamp,
) -> (Vec<Member>, Vec<Origin>) {
    let spec = &observed.upgrade.spec;
    let stored = observed.upgrade.status.previous.as_ref();
    let of_bare = match target {
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
    let mut changes: BTreeMap<Digest, Change> = BTreeMap::new();
    let live = observed.pods.iter().filter(|pod| pod.is_live());
    let judged = live.map(|pod| {
        let made_from = of_bare.as_ref().or_else(|| target.template_of(pod));
        let template = made_from.map_or(goal.whole(), |template| template.whole);
        let change = changes.entry(template).or_insert_with(|| match made_from {
            Some(old) => Change::between(old, &goal.template),
            None => Change::of_unknown(&goal.template),
        });
        let court = Court {
            wish: goal,
            change,
            revision: revision.as_ref(),
            is_strict_on_amounts: course.is_open() && observed.resizer.is_none(),
            traffic: spec.traffic.mode,
            ineligible: spec.policy.ineligible,
            is_denied: preflight::is_denied(&observed.answers, goal, template),
        };
        let node = pod.node.as_ref().and_then(|node| observed.nodes.get(node));
        let judgement = judge(pod, node.map(AsRef::as_ref), &court);
        let evidence = observed.evidence.get(&pod.meta().uid).unwrap_or(&unknown);
        let stand = machine::stand(pod, &judgement, goal.hash.as_str(), pace, evidence, now);
        let is_available = machine::is_available(pod, judgement.lever, pace.min_ready, now);
        let awaits_restart = awaits_restart(pod, change, &goal.template, goal.hash.as_str());
        let images = judgement.differences.images.iter();
        let images = images.filter_map(|name| goal.template.content.containers.get(name));
        let origin = Origin { template, images: images.map(|content| content.image.clone()).collect() };
        (Member { pod: Arc::clone(pod), judgement, stand, is_available, awaits_restart }, origin)
    });
    judged.unzip()
}

/// Whether a plain init container has got its image by this run: nothing runs it before the pod restarts.
fn awaits_restart(pod: &PodView, change: &Change, wish: &Template, run: &str) -> bool {
    let is_of_init =
        |name: &Arc<str>| wish.content.containers.get(name).is_some_and(|content| content.role == Role::Init);
    pod.trace.of_run(run).is_some() && change.images.iter().any(is_of_init)
}
