//! The summary of an object, and whether it needs a person.

use crate::finalize::Finalize;
use crate::holds::Hold;
use crate::machine::PodState;
use crate::plan::decision::Decision;
use crate::plan::moves::{Moves, is_blocked};
use crate::plan::situation::{Course, Situation};
use crate::pre_pull::PrePull;
use springtide_crds::in_place_upgrade::{
    HealthyReason, OnFailure, ReadyReason, RefusalReason, RunResult, StalledReason,
};
use springtide_crds::reason::Reason;
use springtide_plumbing::projection::Projection;
use std::collections::BTreeSet;

/// Reason and message of condition Ready, and those of condition Stalled where a person is needed.
pub(super) type Summary = (ReadyReason, String, Option<(StalledReason, String)>);

/// The summary, and what needs a person.
pub(super) fn summary(
    situation: &Situation<'_>,
    decision: &Decision,
    made: &Moves,
    pulled: &PrePull,
) -> Summary {
    let needs = |ready, stalled, message: String| (ready, message.clone(), Some((stalled, message)));
    let goes = |ready, message: String| (ready, message, None);
    let pods = &situation.census.pods;
    let counted = || format!("{} of {} pods are as they are wished", pods.updated_ready, pods.total);
    let is_back = situation.course == Course::Back;
    if let Some(conflict) = &situation.observed.field_conflict
        && matches!(decision, Decision::Persist(_) | Decision::Finalize(Finalize::Write { .. }))
    {
        return needs(ReadyReason::Blocked, StalledReason::FieldOwnershipConflict, conflict.clone());
    }
    match decision {
        Decision::UpToDate => goes(ReadyReason::UpToDate, counted()),
        Decision::RolledBack => {
            let message = format!("rolled back: {}", verdict(situation));
            needs(ReadyReason::RolledBack, StalledReason::RolledBack, message)
        }
        Decision::PlanOnly => goes(ReadyReason::PlanOnly, "spec.mode is Plan: nothing is done".to_owned()),
        Decision::Paused => goes(ReadyReason::Paused, "spec.mode is Paused: no run starts".to_owned()),
        Decision::NotLocked => {
            needs(ReadyReason::Blocked, StalledReason::NotLocked, situation.lock.message.clone())
        }
        Decision::TemplateNotObserved => {
            goes(ReadyReason::Planning, "the workload's controller has to look at it first".to_owned())
        }
        Decision::PodsBlocked => needs(ReadyReason::Blocked, StalledReason::PodsBlocked, blocked(situation)),
        Decision::NoWayBack(why) if is_back => {
            needs(ReadyReason::Failed, StalledReason::RollbackFailed, why.clone())
        }
        Decision::NoWayBack(why) => {
            needs(ReadyReason::Blocked, StalledReason::Refused(RefusalReason::InvalidSpec), why.clone())
        }
        Decision::FieldConflict(asked) => {
            let message = asked.conflict.clone().unwrap_or_default();
            needs(ReadyReason::Blocked, StalledReason::FieldOwnershipConflict, message)
        }
        Decision::Preflight(_) => goes(ReadyReason::Planning, "the API server is asked first".to_owned()),
        Decision::Open(_) | Decision::Supersede => goes(ReadyReason::Upgrading, "a run begins".to_owned()),
        Decision::Fail => match situation.observed.upgrade.spec.rollback.on_failure {
            OnFailure::Auto => goes(ReadyReason::RollingBack, situation.health.message.clone()),
            OnFailure::Hold => {
                let census = &situation.census;
                let is_of_drains = census.drain_failed > 0 && census.drain_failed == census.pods.failed;
                let reason =
                    if is_of_drains { StalledReason::DrainFailed } else { StalledReason::HealthFailed };
                needs(ReadyReason::Failed, reason, situation.health.message.clone())
            }
        },
        Decision::Persist(_) => {
            goes(ReadyReason::Upgrading, "the wish is written into the template".to_owned())
        }
        Decision::Raise(_) => goes(ReadyReason::RollingBack, "the partition is raised first".to_owned()),
        Decision::Finalize(next) => {
            let what = match next {
                Finalize::Done { .. } => String::new(),
                Finalize::Waiting { message } | Finalize::Write { message, .. } => message.clone(),
            };
            goes(if is_back { ReadyReason::RollingBack } else { ReadyReason::Finalizing }, what)
        }
        Decision::Close(RunResult::RolledBack) => {
            let message = format!("rolled back: {}", verdict(situation));
            needs(ReadyReason::RolledBack, StalledReason::RolledBack, message)
        }
        Decision::Close(RunResult::Succeeded | RunResult::Superseded) => {
            goes(ReadyReason::UpToDate, counted())
        }
        Decision::Move => moving(situation, made, pulled, counted()),
    }
}

/// The summary while pods are changed.
fn moving(situation: &Situation<'_>, made: &Moves, pulled: &PrePull, counted: String) -> Summary {
    let needs = |ready, stalled, message: String| (ready, message.clone(), Some((stalled, message)));
    let census = &situation.census;
    let is_idle = census.pods.in_flight == 0 && made.steps.is_empty();
    if situation.course == Course::Stopped {
        // Pods that did not leave traffic are in it again: what was said of them first is all that is left.
        let first = situation.observed.upgrade.reason::<StalledReason>();
        let reason = first.filter(|reason| *reason == StalledReason::DrainFailed);
        return needs(ReadyReason::Failed, reason.unwrap_or(StalledReason::HealthFailed), verdict(situation));
    }
    if is_blocked(situation) {
        return needs(ReadyReason::Blocked, StalledReason::PodsBlocked, blocked(situation));
    }
    match &made.hold {
        Some(Hold::Paused) => return (ReadyReason::Paused, hold_text(situation, &Hold::Paused), None),
        Some(hold) => return (ReadyReason::Held, hold_text(situation, hold), None),
        None => {}
    }
    if pulled.has_failed() && is_idle {
        return needs(ReadyReason::Blocked, StalledReason::PrePullFailed, pulled.message.clone());
    }
    if is_idle && made.waits_for_images {
        return (ReadyReason::PrePulling, pulled.message.clone(), None);
    }
    if census.not_drained > 0 && is_idle {
        let message = format!("{} pods do not leave traffic in time", census.not_drained);
        return needs(ReadyReason::Blocked, StalledReason::DrainFailed, message);
    }
    let ready =
        if situation.course == Course::Back { ReadyReason::RollingBack } else { ReadyReason::Upgrading };
    let message = match traffic(situation) {
        Some(traffic) => format!("{counted}; {traffic}"),
        None => counted,
    };
    (ready, message, None)
}

/// Which Services send traffic to pods that are to be out of it.
fn traffic(situation: &Situation<'_>) -> Option<String> {
    let (mut waits, mut left_out) = (BTreeSet::new(), BTreeSet::new());
    for member in &situation.members {
        if let PodState::Draining { waits_for } = member.state() {
            waits.extend(waits_for.iter().map(AsRef::as_ref));
        }
        let evidence = situation.observed.evidence.get(&member.pod.meta().uid);
        if let Some(evidence) = evidence.filter(|_| member.state().is_in_flight()) {
            left_out.extend(evidence.exposure.left_out.iter().map(AsRef::as_ref));
        }
    }
    let names = |services: BTreeSet<&str>| services.into_iter().collect::<Vec<_>>().join(", ");
    match (waits.is_empty(), left_out.is_empty()) {
        (true, true) => None,
        (false, true) => Some(format!("still listed by Services {}", names(waits))),
        (_, false) => Some(format!("left out, as they publish pods that are not ready: {}", names(left_out))),
    }
}

pub(super) fn hold_text(situation: &Situation<'_>, hold: &Hold) -> String {
    hold.message(situation.wish.hash.as_str(), situation.step.status.index)
}

fn blocked(situation: &Situation<'_>) -> String {
    let count = situation.census.pods.blocked;
    match situation.census.plan.reasons.first() {
        Some(first) => {
            format!("{count} pods cannot be changed in place, {} of them: {:?}", first.count, first.reason)
        }
        None => format!("{count} pods cannot be changed in place"),
    }
}

/// Why the run went wrong, as it was said first.
fn verdict(situation: &Situation<'_>) -> String {
    let stored = situation.observed.upgrade.condition(HealthyReason::CONDITION);
    stored.map(|condition| condition.message.clone()).unwrap_or_default()
}
