//! What users are told of an upgrade by events: that a run begins, comes to a step, is held, goes back, is superseded or
//! has ended, and that a person is needed. Each bears the reason of a condition, and is made with the status that says so
//! first, so that it is made once; a run of one step that goes as it should costs two.

use super::Report;
use crate::message::count;
use crate::plan::decision::Decision;
use crate::plan::situation::{Course, Situation};
use crate::projections::upgrade::{IN_PLACE_UPGRADE, UpgradeView};
use springtide_crds::common::ConditionStatus;
use springtide_crds::in_place_upgrade::{
    HeldReason, InPlaceUpgradeStatus, OnFailure, ReadyReason, RunResult, StalledReason, StepStatus,
};
use springtide_crds::reason::Reason;
use springtide_plumbing::events::{EventNote, Severity};
use springtide_plumbing::projection::Projection;

/// The events of a status that is written in the place of the stored one.
pub fn events(
    situation: &Situation<'_>,
    decision: &Decision,
    report: &Report,
    status: &InPlaceUpgradeStatus,
) -> Vec<EventNote> {
    let upgrade = &*situation.observed.upgrade;
    let needed = of_stalled(upgrade, report);
    let turn = of_run(situation, decision, report, status);
    // A run that has ended or stands is not held.
    let held = if needed.is_none() && situation.course.is_open() { of_hold(upgrade, report) } else { None };
    [turn, held, needed].into_iter().flatten().collect()
}

/// The event of an object that needs a person, where the stored status does not say so.
pub(crate) fn of_stalled(upgrade: &UpgradeView, report: &Report) -> Option<EventNote> {
    let (reason, message) = report.stalled.as_ref()?;
    let is_told = upgrade.condition(StalledReason::CONDITION).is_some_and(|stored| stored.is(*reason));
    (!is_told).then(|| note(upgrade, Severity::Warning, reason.as_str(), "Upgrading", message.clone()))
}

/// What becomes of the run.
fn of_run(
    situation: &Situation<'_>,
    decision: &Decision,
    report: &Report,
    status: &InPlaceUpgradeStatus,
) -> Option<EventNote> {
    let upgrade = &*situation.observed.upgrade;
    let normal = |reason: ReadyReason, action, text| {
        Some(note(upgrade, Severity::Normal, reason.as_str(), action, text))
    };
    let hash = &status.target_hash;
    match decision {
        Decision::Open(_) => {
            let pods = count(situation.census.left, "pod");
            let steps = status.step.as_ref().map_or(1, |step| step.of);
            let text = format!("run {hash} begins: {pods} to change in {}", count(steps, "step"));
            normal(ReadyReason::Upgrading, "Opening", text)
        }
        Decision::Supersede => {
            let text = format!("{hash} takes the place of {} in mid-run", upgrade.status.target_hash);
            normal(ReadyReason::Upgrading, "Superseding", text)
        }
        Decision::Fail => match upgrade.spec.rollback.on_failure {
            OnFailure::Auto => {
                let (reason, why) = &report.healthy;
                let text = format!("run {hash} goes back: {why}");
                Some(note(upgrade, Severity::Warning, reason.as_str(), "RollingBack", text))
            }
            // That is told as what needs a person.
            OnFailure::Hold => None,
        },
        Decision::Close(RunResult::Succeeded) => {
            let text = format!("run {hash} has ended: {}", report.ready.1);
            normal(ReadyReason::UpToDate, "Finishing", text)
        }
        // The one needs a person, the other is told as it begins.
        Decision::Close(RunResult::RolledBack | RunResult::Superseded) => None,
        // Back it goes without a halt.
        Decision::Move | Decision::Finalize(_) if situation.course == Course::Back => None,
        Decision::Move | Decision::Finalize(_) => {
            let (before, now) = (situation.stored_step()?, status.step.as_ref()?);
            if now.index > before.index {
                normal(ReadyReason::Upgrading, "Stepping", reached(now))
            } else {
                None
            }
        }
        Decision::UpToDate
        | Decision::RolledBack
        | Decision::PlanOnly
        | Decision::Paused
        | Decision::NotLocked
        | Decision::TemplateNotObserved
        | Decision::PodsBlocked
        | Decision::NotRecorded(_)
        | Decision::NoWayBack
        | Decision::TemplateRefused
        | Decision::Preflight
        | Decision::Persist(_)
        | Decision::Raise(_)
        | Decision::Flip(_) => None,
    }
}

fn reached(step: &StepStatus) -> String {
    format!("step {} of {}: up to {}", step.index, step.of, count(step.pods, "pod"))
}

/// What keeps an open run from going on, where the stored status does not say so; but for what the user has just asked
/// for.
fn of_hold(upgrade: &UpgradeView, report: &Report) -> Option<EventNote> {
    let (reason, message) = &report.held;
    let is_news = upgrade.condition(HeldReason::CONDITION).is_none_or(|stored| !stored.is(*reason));
    let is_told = *reason != HeldReason::Paused && reason.status() == ConditionStatus::True && is_news;
    is_told.then(|| note(upgrade, Severity::Normal, reason.as_str(), "Holding", message.clone()))
}

fn note(
    upgrade: &UpgradeView,
    severity: Severity,
    reason: &'static str,
    action: &'static str,
    note: String,
) -> EventNote {
    let meta = upgrade.meta();
    let (key, uid) = (meta.key.clone(), meta.uid.clone());
    EventNote { resource: IN_PLACE_UPGRADE, key, uid, severity, reason, action, note }
}
