//! What is done next, of all that could be.

use super::preflight::{Preflight, preflight};
use super::situation::{Course, Situation};
use crate::finalize::{self, Finalize, partition};
use crate::target::Target;
use jiff::Timestamp;
use springtide_crds::in_place_upgrade::{
    DriftPolicy, Ineligible, Mode, Persist, Previous, RunResult, SourceType,
};
use springtide_plumbing::plan::Step;
use springtide_plumbing::projection::Projection;

/// What is done next.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Nothing: all is as it is wished.
    UpToDate,
    /// Nothing: the last run of this wish was rolled back.
    RolledBack,
    /// Nothing: only a plan is wanted.
    PlanOnly,
    /// Nothing: no further pod is to start.
    Paused,
    /// Nothing until the workload is locked.
    NotLocked,
    /// Nothing until its controller has made a revision of the template.
    TemplateNotObserved,
    /// Nothing until pods that cannot be changed are dealt with.
    PodsBlocked,
    /// What a rollback would go back to cannot be recorded or found.
    NoWayBack(String),
    /// Nothing until a field of the workload may be written.
    FieldConflict(Preflight),
    /// The API server is asked.
    Preflight(Preflight),
    /// A run opens: the status says so first.
    Open(Previous),
    /// The run goes on with another wish: the status says so first.
    Supersede,
    /// The run has gone wrong: the status says so first.
    Fail,
    /// An inline wish is written into the template, ahead of pods.
    Persist(Step),
    /// A partition that was lowered is raised, ahead of pods.
    Raise(Step),
    /// Pods are changed.
    Move,
    /// The workload's controller is brought to see it.
    Finalize(Finalize),
    /// The run closes: the status says so.
    Close(RunResult),
}

/// Decides. Writes that must not be forgotten come with a status of their own before anything rests on them.
pub fn decide(situation: &Situation<'_>, now: Timestamp) -> Decision {
    if situation.course.is_open() { in_run(situation, now) } else { without_run(situation, now) }
}

fn without_run(situation: &Situation<'_>, now: Timestamp) -> Decision {
    let spec = &situation.observed.upgrade.spec;
    let census = &situation.census;
    if situation.course == Course::RolledBack {
        return Decision::RolledBack;
    }
    let is_equal = census.is_done() && census.pods.blocked == ignored(situation);
    // A handshake that is only waited for, as while the workload is scaled, needs no run.
    let end = end(situation);
    let is_settled = match &end {
        Finalize::Done { .. } | Finalize::Waiting { .. } => true,
        Finalize::Write { .. } => false,
    };
    if is_equal && is_settled && persist(situation).is_none() {
        return Decision::UpToDate;
    }
    if situation.is_drift() {
        return Decision::UpToDate;
    }
    match spec.mode {
        Mode::Plan => return plan_only(situation, now),
        Mode::Paused => return Decision::Paused,
        Mode::Apply => {}
    }
    if !situation.lock.is_locked() {
        return Decision::NotLocked;
    }
    if persist(situation).is_none() && !situation.target.is_template_observed() {
        return Decision::TemplateNotObserved;
    }
    let asked = preflight(situation, now);
    if !asked.questions.is_empty() {
        return Decision::Preflight(asked);
    }
    if asked.conflict.is_some() {
        return Decision::FieldConflict(asked);
    }
    if census.pods.blocked > ignored(situation) {
        return Decision::PodsBlocked;
    }
    match situation.to_be_recorded() {
        Some(previous) => Decision::Open(previous),
        None => Decision::NoWayBack("what pods are now does not fit into a status".to_owned()),
    }
}

fn plan_only(situation: &Situation<'_>, now: Timestamp) -> Decision {
    let asked = preflight(situation, now);
    if asked.questions.is_empty() { Decision::PlanOnly } else { Decision::Preflight(asked) }
}

fn in_run(situation: &Situation<'_>, now: Timestamp) -> Decision {
    let spec = &situation.observed.upgrade.spec;
    let course = situation.course;
    // First of all: a template that another writes into a workload that is not locked looks like another wish.
    if !situation.lock.is_locked() {
        return Decision::NotLocked;
    }
    if course == Course::Superseded {
        return Decision::Supersede;
    }
    if spec.mode == Mode::Plan {
        return Decision::PlanOnly;
    }
    if course == Course::Forward && !situation.health.is_passing() {
        return Decision::Fail;
    }
    if course == Course::Back {
        if situation.is_goal_lost {
            return Decision::NoWayBack("the revision that pods were of is gone".to_owned());
        }
        if let Some(step) = raise(situation) {
            return Decision::Raise(step);
        }
        // Whoever has not seen the partition might still roll by the lower one.
        if !situation.target.is_observed() {
            return Decision::TemplateNotObserved;
        }
    } else {
        if let Some(step) = persist(situation) {
            return Decision::Persist(step);
        }
        if !situation.target.is_template_observed() {
            return Decision::TemplateNotObserved;
        }
        // Of a wish that took the place of another, and by a process that has just begun to lead.
        let asked = preflight(situation, now);
        if !asked.questions.is_empty() {
            return Decision::Preflight(asked);
        }
    }
    let is_done = situation.census.is_done() && situation.census.pods.blocked == ignored(situation);
    match course {
        Course::Forward | Course::Finalizing | Course::Back if is_done => match end(situation) {
            Finalize::Done { .. } if course == Course::Back => Decision::Close(RunResult::RolledBack),
            Finalize::Done { .. } => Decision::Close(RunResult::Succeeded),
            further @ (Finalize::Waiting { .. } | Finalize::Write { .. }) => Decision::Finalize(further),
        },
        Course::Forward
        | Course::Finalizing
        | Course::Back
        | Course::Stopped
        | Course::Superseded
        | Course::Closed
        | Course::RolledBack => Decision::Move,
    }
}

impl Decision {
    /// What it says of the workload's own controller: reason and message of condition Finalized.
    pub fn finalize(&self) -> Option<&Finalize> {
        match self {
            Self::Finalize(finalize) => Some(finalize),
            Self::UpToDate
            | Self::RolledBack
            | Self::PlanOnly
            | Self::Paused
            | Self::NotLocked
            | Self::TemplateNotObserved
            | Self::PodsBlocked
            | Self::NoWayBack(_)
            | Self::FieldConflict(_)
            | Self::Preflight(_)
            | Self::Open(_)
            | Self::Supersede
            | Self::Fail
            | Self::Persist(_)
            | Self::Raise(_)
            | Self::Move
            | Self::Close(_) => None,
        }
    }

    /// Whether nothing is left to do for this wish.
    pub fn is_end(&self) -> bool {
        match self {
            Self::UpToDate | Self::RolledBack | Self::Close(_) => true,
            Self::PlanOnly
            | Self::Paused
            | Self::NotLocked
            | Self::TemplateNotObserved
            | Self::PodsBlocked
            | Self::NoWayBack(_)
            | Self::FieldConflict(_)
            | Self::Preflight(_)
            | Self::Open(_)
            | Self::Supersede
            | Self::Fail
            | Self::Persist(_)
            | Self::Raise(_)
            | Self::Move
            | Self::Finalize(_) => false,
        }
    }
}

/// Blocked pods that are nobody's concern.
fn ignored(situation: &Situation<'_>) -> u32 {
    match situation.observed.upgrade.spec.policy.ineligible {
        Ineligible::Ignore => situation.census.pods.blocked,
        Ineligible::Block | Ineligible::Recreate => 0,
    }
}

/// What is next at the end of the run.
fn end(situation: &Situation<'_>) -> Finalize {
    let relabelled = situation.relabelled();
    finalize::finalize(situation.target, &situation.goal, &situation.terms(&relabelled))
}

/// The write of an inline wish into the template of a workload whose pods name a revision: that has to be made first.
fn persist(situation: &Situation<'_>) -> Option<Step> {
    let is_first = match situation.target {
        Target::StatefulSet { .. } | Target::DaemonSet { .. } => true,
        // They get it at the end, so that a rollback has nothing to undo.
        Target::Deployment { .. } | Target::ReplicaSet(_) => false,
    };
    let is_missing = situation.wish.persist == Persist::Template
        && situation.target.template().whole != situation.wish.whole();
    if !(is_first && is_missing) {
        return None;
    }
    finalize::persist(situation.target, &situation.terms(&[])).map(Step::from)
}

/// The write that raises a partition which the run has lowered.
fn raise(situation: &Situation<'_>) -> Option<Step> {
    let Target::StatefulSet { set, .. } = situation.target else { return None };
    partition::raise(set, situation.terms(&[]).recorded_partition)
}

impl<'a> Situation<'a> {
    /// What the end of the run depends on.
    pub fn terms<'b>(&'b self, relabelled: &'b [u32]) -> finalize::Terms<'b> {
        let upgrade = &self.observed.upgrade;
        let spec = &upgrade.spec;
        let inline = match spec.source.type_ {
            SourceType::Inline => spec.source.inline.as_ref(),
            SourceType::Template => None,
        };
        finalize::Terms {
            uid: &upgrade.meta().uid,
            lock: spec.policy.lock,
            history: spec.policy.history,
            ownership: spec.policy.field_ownership,
            inline,
            recorded_partition: upgrade.status.previous.as_ref().and_then(|previous| previous.partition),
            relabelled,
        }
    }

    /// Whether pods differ that a run has made as they are wished: somebody has changed them since. A hotfix is no run
    /// that ends: pods that are made anew are changed again.
    #[must_use]
    pub fn is_drift(&self) -> bool {
        let upgrade = &self.observed.upgrade;
        let has_succeeded = upgrade.status.last_run.as_ref().is_some_and(|run| {
            run.target_hash == self.wish.hash.as_str() && run.result == RunResult::Succeeded
        });
        let reports = match upgrade.spec.policy.drift {
            DriftPolicy::Report => true,
            DriftPolicy::Repair => false,
        };
        self.course == Course::Closed
            && has_succeeded
            && reports
            && self.wish.persist == Persist::Template
            && self.target.template().whole == self.wish.whole()
    }
}
