//! The summary of an object, and whether it needs a person.

use super::obstacles::{blocked, not_drained, not_pulled};
use crate::finalize::Finalize;
use crate::holds::Hold;
use crate::machine::PodState;
use crate::message::{count, quoting};
use crate::plan::decision::Decision;
use crate::plan::moves::{Moves, is_blocked};
use crate::plan::situation::{Course, Situation};
use crate::pre_pull::PrePull;
use crate::previous::NotRecorded;
use crate::target::Target;
use springtide_crds::in_place_upgrade::{
    HealthyReason, OnFailure, ReadyReason, RefusalReason, RunResult, StalledReason,
};
use springtide_crds::reason::Reason;
use springtide_plumbing::projection::Projection;
use std::collections::BTreeSet;

/// Reason and message of condition Ready, and those of condition Stalled where a person is needed.
pub(super) type Summary = (ReadyReason, String, Option<(StalledReason, String)>);

/// Nobody is needed: it goes on by itself, or rests.
fn goes(ready: ReadyReason, message: impl Into<String>) -> Summary {
    (ready, message.into(), None)
}

/// A person is needed; both conditions say why.
fn needs(ready: ReadyReason, stalled: StalledReason, message: impl Into<String>) -> Summary {
    let message = message.into();
    (ready, message.clone(), Some((stalled, message)))
}

/// The summary, and what needs a person.
pub(super) fn summary(
    situation: &Situation<'_>,
    decision: &Decision,
    made: &Moves,
    pulled: &PrePull,
) -> Summary {
    let is_back = situation.course == Course::Back;
    if let Some(conflict) = &situation.observed.field_conflict
        && matches!(
            decision,
            Decision::Persist(_)
                | Decision::Flip(Finalize::Write { .. })
                | Decision::Finalize(Finalize::Write { .. })
        )
    {
        return needs(ReadyReason::Blocked, StalledReason::FieldOwnershipConflict, conflict.as_str());
    }
    match decision {
        Decision::UpToDate | Decision::Close(RunResult::Succeeded | RunResult::Superseded) => {
            goes(ReadyReason::UpToDate, at_rest(situation))
        }
        Decision::RolledBack | Decision::Close(RunResult::RolledBack) => {
            let remedy = "; change the wish, or raise spec.attempt to try it again";
            let message = quoting("rolled back: ", &verdict(situation), remedy);
            needs(ReadyReason::RolledBack, StalledReason::RolledBack, message)
        }
        Decision::PlanOnly => goes(ReadyReason::PlanOnly, planned(situation)),
        Decision::Paused => {
            goes(ReadyReason::Paused, "spec.mode is Paused: no run starts; set it to Apply to begin")
        }
        Decision::NotLocked => {
            needs(ReadyReason::Blocked, StalledReason::NotLocked, situation.lock.message.as_str())
        }
        Decision::TemplateNotObserved if is_back => goes(ReadyReason::RollingBack, awaited(situation)),
        Decision::TemplateNotObserved => goes(ReadyReason::Planning, awaited(situation)),
        Decision::PodsBlocked | Decision::TemplateRefused => refused(situation).unwrap_or_else(asking),
        Decision::NoWayBack => {
            let previous = situation.observed.upgrade.status.previous.as_ref();
            let revision = previous.map_or("", |previous| &*previous.revision);
            let remedy =
                " that the pods were of is gone: change the wish, or raise spec.attempt, to go forward";
            let message = quoting("revision ", revision, remedy);
            needs(ReadyReason::Failed, StalledReason::RollbackFailed, message)
        }
        Decision::NotRecorded(error @ NotRecorded::TooLong { .. }) => {
            let reason = StalledReason::Refused(RefusalReason::LimitExceeded);
            needs(ReadyReason::Blocked, reason, error.to_string())
        }
        Decision::NotRecorded(error @ NotRecorded::NoRevision) => {
            goes(ReadyReason::Planning, error.to_string())
        }
        // While it is asked again what it refused last is still so.
        Decision::Preflight => refused(situation).unwrap_or_else(|| {
            if situation.course.is_open() { goes(ReadyReason::Upgrading, ASKING) } else { asking() }
        }),
        Decision::Open(_) | Decision::Supersede => {
            goes(ReadyReason::Upgrading, format!("run {} begins", situation.wish.hash))
        }
        Decision::Fail => match situation.observed.upgrade.spec.rollback.on_failure {
            OnFailure::Auto => goes(ReadyReason::RollingBack, situation.health.message.as_str()),
            OnFailure::Hold => {
                let census = &situation.census;
                let is_of_drains = census.drain_failed > 0 && census.drain_failed == census.pods.failed;
                let reason =
                    if is_of_drains { StalledReason::DrainFailed } else { StalledReason::HealthFailed };
                needs(ReadyReason::Failed, reason, stopped(&situation.health.message))
            }
        },
        Decision::Persist(_) => {
            let target = situation.observed.upgrade.target_text();
            goes(ReadyReason::Upgrading, format!("the wish is written into the template of {target}"))
        }
        Decision::Raise(_) if is_back => {
            goes(ReadyReason::RollingBack, "the partition is raised before the first pod goes back")
        }
        Decision::Raise(_) => {
            let why = "the partition is raised again, as pods past it are not of the template any more";
            goes(ReadyReason::Upgrading, why)
        }
        Decision::Flip(next) => {
            let ready = match situation.course {
                Course::Back => ReadyReason::RollingBack,
                Course::Finalizing => ReadyReason::Finalizing,
                Course::Closed
                | Course::RolledBack
                | Course::Superseded
                | Course::Forward
                | Course::Stopped => ReadyReason::Upgrading,
            };
            goes(ready, next.message())
        }
        Decision::Finalize(next) => {
            let what = next.message();
            goes(if is_back { ReadyReason::RollingBack } else { ReadyReason::Finalizing }, what)
        }
        Decision::Move => moving(situation, made, pulled),
    }
}

const ASKING: &str = "the API server is asked whether it would take the changes, by dry runs";

fn asking() -> Summary {
    goes(ReadyReason::Planning, ASKING)
}

/// What keeps a run from beginning or going on, in the order in which it is decided: the template, and pods.
fn refused(situation: &Situation<'_>) -> Option<Summary> {
    let template = situation.asked.template.as_ref().filter(|_| !situation.course.is_open());
    if let Some(template) = template {
        return Some(needs(ReadyReason::Blocked, template.reason(), template.message()));
    }
    let are_blocked = if situation.course.is_open() {
        is_blocked(situation)
    } else {
        situation.census.pods.blocked > situation.left_out()
    };
    are_blocked.then(|| needs(ReadyReason::Blocked, StalledReason::PodsBlocked, blocked(situation)))
}

/// The summary while pods are changed.
fn moving(situation: &Situation<'_>, made: &Moves, pulled: &PrePull) -> Summary {
    let census = &situation.census;
    let is_idle = census.pods.in_flight == 0 && made.steps.is_empty();
    if situation.course == Course::Stopped {
        // Pods that did not leave traffic are in it again: what was said of them first is all that is left.
        let first = situation.observed.upgrade.reason::<StalledReason>();
        let reason = first.filter(|reason| *reason == StalledReason::DrainFailed);
        let reason = reason.unwrap_or(StalledReason::HealthFailed);
        return needs(ReadyReason::Failed, reason, stopped(&verdict(situation)));
    }
    if is_blocked(situation) {
        return needs(ReadyReason::Blocked, StalledReason::PodsBlocked, blocked(situation));
    }
    match &made.hold {
        Some(Hold::Paused) => return goes(ReadyReason::Paused, hold_text(situation, &Hold::Paused)),
        Some(hold) => return goes(ReadyReason::Held, hold_text(situation, hold)),
        None => {}
    }
    if pulled.has_failed() && is_idle {
        return needs(ReadyReason::Blocked, StalledReason::PrePullFailed, not_pulled(pulled));
    }
    if is_idle && made.waits_for_images {
        return goes(ReadyReason::PrePulling, pulled.message.as_str());
    }
    if let Some(message) = not_drained(situation) {
        return needs(ReadyReason::Blocked, StalledReason::DrainFailed, message);
    }
    let is_back = situation.course == Course::Back;
    let ready = if is_back { ReadyReason::RollingBack } else { ReadyReason::Upgrading };
    let parts = [Some(counted(situation)), on_their_way(situation), traffic(situation)];
    goes(ready, parts.into_iter().flatten().collect::<Vec<_>>().join("; "))
}

fn counted(situation: &Situation<'_>) -> String {
    let pods = &situation.census.pods;
    let wished =
        if situation.course == Course::Back { "are again what they were" } else { "are as they are wished" };
    format!("{} of {} pods {wished}", pods.updated_ready, pods.total)
}

/// What is said of an object whose pods are as they are wished.
fn at_rest(situation: &Situation<'_>) -> String {
    let pods = &situation.census.pods;
    let left_out = situation.left_out();
    let left_out =
        (left_out > 0).then(|| format!("{} left out by spec.policy.ineligible", count(left_out, "pod")));
    let later = (pods.next_restart_only > 0)
        .then(|| format!("{} run a new init image when they restart", pods.next_restart_only));
    let parts = [Some(counted(situation)), left_out, later];
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// What would be done, where only a plan is wanted.
fn planned(situation: &Situation<'_>) -> String {
    let plan = &situation.census.plan;
    if situation.course.is_open() {
        return "spec.mode is Plan: the run stands; set it to Apply to go on".to_owned();
    }
    let changed: u32 = [plan.metadata, plan.resize, plan.in_place, plan.restart, plan.recreate].iter().sum();
    format!(
        "spec.mode is Plan: {} would be changed and {} could not (status.plan); set it to Apply to begin",
        count(changed, "pod"),
        plan.blocked
    )
}

/// What the workload's own controller has yet to do before pods are looked at.
pub(super) fn awaited(situation: &Situation<'_>) -> String {
    let kind = situation.target.kind().as_str();
    if situation.course == Course::Back {
        return format!("the {kind}'s controller has not seen the raised partition yet");
    }
    match situation.target {
        Target::StatefulSet { .. } | Target::DaemonSet { .. } => {
            format!("the {kind}'s controller has not made a revision of its template yet")
        }
        Target::Deployment { .. } | Target::ReplicaSet(_) => {
            format!("the {kind}'s controller has not seen its template yet")
        }
    }
}

/// The pods that are changed at this time.
fn on_their_way(situation: &Situation<'_>) -> Option<String> {
    let first = situation.members.iter().find(|member| member.state().is_in_flight())?;
    let what = match first.state() {
        PodState::Resizing => "is resized",
        PodState::Draining { .. } | PodState::Drained => "leaves traffic",
        PodState::Patched => "starts anew",
        PodState::Started => "comes into traffic again",
        PodState::Renewed => "is made anew",
        PodState::Old
        | PodState::NotDrained { .. }
        | PodState::Updated
        | PodState::Unavailable
        | PodState::Failed(_)
        | PodState::Ineligible => return None,
    };
    let name = &first.pod.meta().key.name;
    Some(format!("{} on their way, first {name} {what}", situation.census.pods.in_flight))
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

/// What is said of a run that has gone wrong and stands.
fn stopped(verdict: &str) -> String {
    quoting("", verdict, "; change the wish, or raise spec.attempt to go on")
}

/// Why the run went wrong, as it was said first.
fn verdict(situation: &Situation<'_>) -> String {
    let stored = situation.observed.upgrade.condition(HealthyReason::CONDITION);
    stored.map(|condition| condition.message.clone()).unwrap_or_default()
}
