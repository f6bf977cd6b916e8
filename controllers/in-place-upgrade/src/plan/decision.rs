//! What is done next, of all that could be.

use super::situation::{Course, Situation};
use crate::census::Member;
use crate::finalize::partition::AtStake;
use crate::finalize::{self, Finalize, Need, partition};
use crate::previous::NotRecorded;
use crate::recreation::Renewal;
use crate::target::Target;
use crate::verdict::Verdict;
use springtide_crds::in_place_upgrade::{
    DriftPolicy, Ineligible, Mode, Persist, Previous, RunResult, SourceType,
};
use springtide_plumbing::plan::Step;
use springtide_plumbing::projection::Projection;
use springtide_plumbing::workloads::names::CONTROLLER_REVISION_HASH;

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
    /// Nothing: what a rollback would go back to cannot be recorded.
    NotRecorded(NotRecorded),
    /// Nothing: what a rollback goes back to is gone.
    NoWayBack,
    /// Nothing until the wish may be written into the workload's template.
    TemplateRefused,
    /// The API server is asked.
    Preflight,
    /// A run opens: the status says so first.
    Open(Previous),
    /// The run goes on with another wish: the status says so first.
    Supersede,
    /// The run has gone wrong: the status says so first.
    Fail,
    /// An inline wish is written into the template, ahead of pods.
    Persist(Step),
    /// A partition that was lowered is raised, ahead of pods, or as they are not of the template any more.
    Raise(Step),
    /// What pods are made anew from becomes what is wished, ahead of them.
    Flip(Finalize),
    /// Pods are changed.
    Move,
    /// The workload's controller is brought to see it.
    Finalize(Finalize),
    /// The run closes: the status says so.
    Close(RunResult),
}

/// Decides. Writes that must not be forgotten come with a status of their own before anything rests on them.
pub fn decide(situation: &Situation<'_>) -> Decision {
    if situation.course.is_open() { in_run(situation) } else { without_run(situation) }
}

fn without_run(situation: &Situation<'_>) -> Decision {
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
    // That nothing would make pods any more is no difference of theirs.
    if situation.is_drift() && !situation.target.has_lost_its_replica_sets() {
        return Decision::UpToDate;
    }
    match spec.mode {
        Mode::Plan => return plan_only(situation),
        Mode::Paused => return Decision::Paused,
        Mode::Apply => {}
    }
    if !situation.lock.is_locked() {
        return Decision::NotLocked;
    }
    if persist(situation).is_none() && !situation.target.is_template_observed() {
        return Decision::TemplateNotObserved;
    }
    if !situation.asked.questions.is_empty() {
        return Decision::Preflight;
    }
    if situation.asked.template.is_some() {
        return Decision::TemplateRefused;
    }
    if census.pods.blocked > ignored(situation) {
        return Decision::PodsBlocked;
    }
    match situation.to_be_recorded() {
        Ok(previous) => Decision::Open(previous),
        Err(not_recorded) => Decision::NotRecorded(not_recorded),
    }
}

fn plan_only(situation: &Situation<'_>) -> Decision {
    if situation.asked.questions.is_empty() { Decision::PlanOnly } else { Decision::Preflight }
}

fn in_run(situation: &Situation<'_>) -> Decision {
    let spec = &situation.observed.upgrade.spec;
    let course = situation.course;
    // First of all: a template that another writes into a workload that is not locked looks like another wish.
    if !situation.lock.is_locked() {
        return Decision::NotLocked;
    }
    if let Some(step) = raise_at_once(situation) {
        return Decision::Raise(step);
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
            return Decision::NoWayBack;
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
        if !situation.asked.questions.is_empty() {
            return Decision::Preflight;
        }
    }
    if let Some(next) = flip(situation) {
        return Decision::Flip(next);
    }
    // That a Deployment has no pods for a moment while it is scaled up again says nothing of the run.
    let is_done = situation.census.is_done()
        && situation.census.pods.blocked == ignored(situation)
        && !situation.target.awaits_scaling();
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
            | Self::NoWayBack
            | Self::NotRecorded(_)
            | Self::TemplateRefused
            | Self::Preflight
            | Self::Open(_)
            | Self::Supersede
            | Self::Fail
            | Self::Persist(_)
            | Self::Raise(_)
            | Self::Flip(_)
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
            | Self::NoWayBack
            | Self::NotRecorded(_)
            | Self::TemplateRefused
            | Self::Preflight
            | Self::Open(_)
            | Self::Supersede
            | Self::Fail
            | Self::Persist(_)
            | Self::Raise(_)
            | Self::Flip(_)
            | Self::Move
            | Self::Finalize(_) => false,
        }
    }
}

/// Blocked pods that are nobody's concern.
fn ignored(situation: &Situation<'_>) -> u32 {
    match (situation.ineligible, situation.course) {
        (Ineligible::Ignore, _) => situation.left_out(),
        // Those that were made anew and whose controller would make the same again do not go back; all others have.
        (Ineligible::Recreate, Course::Back) => situation.census.pods.blocked,
        (
            Ineligible::Block | Ineligible::Recreate,
            Course::Back
            | Course::Closed
            | Course::RolledBack
            | Course::Superseded
            | Course::Forward
            | Course::Finalizing
            | Course::Stopped,
        ) => 0,
    }
}

/// What is next before a pod is made anew, so that it comes as it is wished.
fn flip(situation: &Situation<'_>) -> Option<Finalize> {
    match situation.course {
        Course::Forward | Course::Finalizing | Course::Back => {}
        Course::Closed | Course::RolledBack | Course::Superseded | Course::Stopped => return None,
    }
    let waits = |member: &Member| {
        member.judgement.verdict == Verdict::Recreate
            && situation.renewal(&member.pod) == Some(Renewal::AfterWorkload)
    };
    let need = match situation.observed.upgrade.spec.mode {
        Mode::Apply if situation.members.iter().any(waits) => Need::Pods,
        Mode::Apply => Need::None,
        Mode::Plan | Mode::Paused => Need::Rest,
    };
    let pods = &situation.observed.pods;
    finalize::ahead(situation.target, &situation.goal, &situation.terms(&[]), pods, need)
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

/// The write that raises a partition past which pods are not of the template any more, as where another wish has come in
/// mid-run: their controller makes one after the other anew. In a rollback it is raised in any case.
fn raise_at_once(situation: &Situation<'_>) -> Option<Step> {
    let is_made_anew_by_us = |stake: &AtStake<'_>| {
        let of_pod = |member: &&Member| member.pod.meta().uid == stake.pod.meta().uid;
        let member = situation.members.iter().find(of_pod);
        stake.is_next() && member.is_some_and(|member| member.judgement.verdict == Verdict::Recreate)
    };
    let mut at_stake = partition::at_stake(situation.target, &situation.observed.pods);
    if at_stake.all(|stake| is_made_anew_by_us(&stake)) {
        return None;
    }
    raise(situation)
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
            left_out: self.left_out(),
        }
    }

    /// Whether pods that differ are left alone: a run has made them as they are wished, and somebody has changed them
    /// since.
    #[must_use]
    pub fn is_drift(&self) -> bool {
        let reports = match self.observed.upgrade.spec.policy.drift {
            DriftPolicy::Report => true,
            DriftPolicy::Repair => false,
        };
        self.course == Course::Closed && reports && self.has_succeeded()
    }

    /// Whether a run has made all pods as they are wished, so that those that differ were changed by somebody since; a run
    /// that is open repairs them. A hotfix is no run that ends: pods that are made anew are changed again.
    #[must_use]
    pub fn has_succeeded(&self) -> bool {
        let last = self.observed.upgrade.status.last_run.as_ref();
        let has_succeeded = last.is_some_and(|run| {
            run.target_hash == self.wish.hash.as_str() && run.result == RunResult::Succeeded
        });
        // A restart whose time has come since is nobody's change.
        let is_due = |member: &Member| member.judgement.differences.restart.is_some();
        has_succeeded
            && !self.members.iter().any(|member| is_due(member) || self.is_born_old(member))
            && self.wish.persist == Persist::Template
            && self.target.template().whole == self.wish.whole()
    }

    /// Whether a StatefulSet's controller has made a pod by the revision from before, which stays the current one as long
    /// as some pods are left as they are: that is nobody's change, and it is changed like those before it.
    fn is_born_old(&self, member: &Member) -> bool {
        let Target::StatefulSet { set, .. } = self.target else { return false };
        let named = member.pod.meta().labels.get(CONTROLLER_REVISION_HASH);
        set.current_revision != set.update_revision
            && named == Some(&set.current_revision)
            && member.judgement.verdict != Verdict::UpToDate
            && !self.leaves_out(member)
    }
}
