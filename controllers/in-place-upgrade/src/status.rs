//! The status, as a pure function of what was observed and decided.

mod conditions;
mod events;
mod obstacles;
mod report;
mod standstill;
mod summary;

pub use events::events;
pub(crate) use events::of_stalled;
pub use report::Report;

use crate::census::Member;
use crate::plan::decision::Decision;
use crate::plan::situation::{Course, Situation};
use crate::pre_pull::PrePull;
use crate::verdict::Verdict;
use jiff::Timestamp;
use springtide_crds::common::whole_seconds;
use springtide_crds::in_place_upgrade::{InPlaceUpgradeStatus, LastRun, OnFailure, RunResult, StepStatus};
use springtide_plumbing::projection::Projection;

/// The status of an object that is served.
pub fn status(
    situation: &Situation<'_>,
    decision: &Decision,
    pulled: &PrePull,
    report: &Report,
    now: Timestamp,
) -> InPlaceUpgradeStatus {
    let upgrade = &situation.observed.upgrade;
    let mut status = upgrade.status.clone();
    status.observed_generation = upgrade.meta().generation;
    status.target = upgrade.target_text();
    status.pods = situation.census.pods;
    status.pods.drifted = drifted(situation);
    status.plan = situation.census.plan.clone();
    status.pre_pull = pulled.counts;
    status.failures = if situation.course.is_open() { situation.census.failures.clone() } else { Vec::new() };
    status.next_attempt_time = report.next_attempt.map(whole_seconds);
    keep_run(situation, decision, &mut status, now);
    report.set(&mut status.conditions, upgrade.meta().generation, now);
    status
}

/// What stands in the status of a run: what later plans rest on.
fn keep_run(
    situation: &Situation<'_>,
    decision: &Decision,
    status: &mut InPlaceUpgradeStatus,
    now: Timestamp,
) {
    let hash = situation.wish.hash.as_str();
    match decision {
        Decision::Open(previous) => {
            status.target_hash = hash.to_owned();
            status.previous = Some(previous.clone());
            status.start_time = Some(whole_seconds(now));
            status.step = Some(first_step(situation, now));
        }
        Decision::Supersede => {
            status.last_run = Some(last_run(situation, &status.target_hash, RunResult::Superseded, now));
            status.target_hash = hash.to_owned();
            status.start_time = Some(whole_seconds(now));
            status.step = Some(first_step(situation, now));
        }
        Decision::Fail => {
            status.step = match situation.observed.upgrade.spec.rollback.on_failure {
                OnFailure::Auto => Some(first_step(situation, now)),
                OnFailure::Hold => Some(situation.step.status.clone()),
            };
        }
        Decision::Close(result) => {
            status.last_run = Some(last_run(situation, hash, *result, now));
            status.previous = None;
            status.start_time = None;
            status.step = None;
        }
        Decision::Move | Decision::Finalize(_) => status.step = Some(situation.step.status.clone()),
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
        | Decision::Flip(_) => {
            // Of an open run it stays that of its wish.
            if !situation.course.is_open() {
                status.target_hash = hash.to_owned();
                status.start_time = None;
                status.step = None;
            }
        }
    }
}

fn first_step(situation: &Situation<'_>, now: Timestamp) -> StepStatus {
    let steps = &situation.observed.upgrade.spec.strategy.steps;
    let total = situation.target.replicas().max(situation.census.pods.total);
    let pods = steps.first().map_or(total, |step| step.replicas.round_up(total).max(1).min(total));
    let of = u32::try_from(steps.len()).unwrap_or(u32::MAX).max(1);
    StepStatus { index: 1, of, pods, start_time: whole_seconds(now), hold_until_time: None }
}

fn last_run(situation: &Situation<'_>, hash: &str, result: RunResult, now: Timestamp) -> LastRun {
    LastRun {
        target_hash: hash.to_owned(),
        start_time: situation.observed.upgrade.status.start_time.clone(),
        completion_time: whole_seconds(now),
        pods: situation.census.pods.updated,
        result,
    }
}

/// Pods that somebody has changed since the run that made them as they are wished.
fn drifted(situation: &Situation<'_>) -> u32 {
    if !situation.has_succeeded() {
        return 0;
    }
    let drifted = situation.members.iter().filter(|member| has_drifted(situation, member));
    u32::try_from(drifted.count()).unwrap_or(u32::MAX)
}

/// Whether a pod is not as the run that succeeded last has made it. It has made nothing of those that it has left out.
fn has_drifted(situation: &Situation<'_>, member: &Member) -> bool {
    member.judgement.verdict != Verdict::UpToDate && !situation.leaves_out(member)
}

/// Whether a run that has gone wrong stays so: its verdict is kept until it ends or another wish comes.
pub(crate) fn keeps_verdict(course: Course) -> bool {
    match course {
        Course::Back | Course::Stopped | Course::RolledBack => true,
        Course::Closed | Course::Superseded | Course::Forward | Course::Finalizing => false,
    }
}
