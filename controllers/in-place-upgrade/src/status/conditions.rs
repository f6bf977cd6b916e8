//! What each condition says but Ready, Reconciling and Stalled.

use super::report::told;
use super::summary::{awaited, hold_text};
use crate::differences::Differences;
use crate::finalize::Finalize;
use crate::health::ends_run;
use crate::holds::Hold;
use crate::message::{count, quoting};
use crate::plan::decision::Decision;
use crate::plan::moves::Moves;
use crate::plan::situation::{Course, Situation};
use crate::previous::NotRecorded;
use springtide_crds::in_place_upgrade::{
    AcceptedReason, DriftPolicy, DriftedReason, FinalizedReason, HealthyReason, HeldReason, Persist,
    RefusalReason, TargetKind,
};
use springtide_plumbing::projection::Projection;

/// Whether the spec is served.
pub(super) fn accepted(situation: &Situation<'_>, decision: &Decision) -> (AcceptedReason, String) {
    match decision {
        // In a rollback it is the partition that its controller has yet to see.
        Decision::TemplateNotObserved if situation.course != Course::Back => {
            (AcceptedReason::TemplateNotObserved, awaited(situation))
        }
        Decision::NotRecorded(error @ NotRecorded::TooLong { .. }) => {
            (AcceptedReason::Refused(RefusalReason::LimitExceeded), error.to_string())
        }
        Decision::TemplateNotObserved
        | Decision::NotRecorded(NotRecorded::NoRevision)
        | Decision::UpToDate
        | Decision::RolledBack
        | Decision::PlanOnly
        | Decision::Paused
        | Decision::NotLocked
        | Decision::PodsBlocked
        | Decision::NoWayBack
        | Decision::TemplateRefused
        | Decision::Preflight
        | Decision::Open(_)
        | Decision::Supersede
        | Decision::Fail
        | Decision::Persist(_)
        | Decision::Raise(_)
        | Decision::Flip(_)
        | Decision::Move
        | Decision::Finalize(_)
        | Decision::Close(_) => (AcceptedReason::Accepted, "the spec is served".to_owned()),
    }
}

/// Whether something keeps further pods from starting.
pub(super) fn held(situation: &Situation<'_>, decision: &Decision, made: &Moves) -> (HeldReason, String) {
    if *decision == Decision::Preflight
        && situation.course.is_open()
        && let Some(stored) = told::<HeldReason>(&situation.observed.upgrade)
    {
        // It is looked at again as soon as there is an answer.
        return stored;
    }
    let paused = Hold::Paused;
    let hold = if *decision == Decision::Paused { Some(&paused) } else { made.hold.as_ref() };
    match hold {
        Some(hold) => (hold.reason(), hold_text(situation, hold)),
        None => (HeldReason::Free, "nothing keeps further pods from starting".to_owned()),
    }
}

/// Whether a decision rests on what the API server was asked for this wish.
pub(super) fn rests_on_answers(decision: &Decision) -> bool {
    match decision {
        Decision::Preflight
        | Decision::PodsBlocked
        | Decision::TemplateRefused
        | Decision::PlanOnly
        | Decision::Move => true,
        Decision::UpToDate
        | Decision::RolledBack
        | Decision::Paused
        | Decision::NotLocked
        | Decision::TemplateNotObserved
        | Decision::NotRecorded(_)
        | Decision::NoWayBack
        | Decision::Open(_)
        | Decision::Supersede
        | Decision::Fail
        | Decision::Persist(_)
        | Decision::Raise(_)
        | Decision::Flip(_)
        | Decision::Finalize(_)
        | Decision::Close(_) => false,
    }
}

/// Whether the run goes well. A verdict by which it has ended is kept until it is closed or another wish comes.
pub(super) fn healthy(situation: &Situation<'_>, decision: &Decision) -> (HealthyReason, String) {
    let (course, health) = (situation.course, &situation.health);
    let stored = told::<HealthyReason>(&situation.observed.upgrade);
    let stored = stored.filter(|(reason, _)| ends_run(*reason));
    if let Some(verdict) = stored.filter(|_| super::keeps_verdict(course)) {
        return verdict;
    }
    if course == Course::Forward && !health.is_passing() {
        return (health.reason, health.message.clone());
    }
    if let Some(denial) = situation.asked.denial.as_ref().filter(|_| rests_on_answers(decision)) {
        return (HealthyReason::AdmissionDenied, denial.message());
    }
    match course {
        Course::Forward => (health.reason, health.message.clone()),
        Course::Closed
        | Course::RolledBack
        | Course::Superseded
        | Course::Finalizing
        | Course::Back
        | Course::Stopped => (HealthyReason::GatesPassing, "every bound of spec.health is kept".to_owned()),
    }
}

/// Whether the workload's own controller sees the work as done.
pub(super) fn finalized(situation: &Situation<'_>, decision: &Decision) -> (FinalizedReason, String) {
    match decision.finalize() {
        Some(Finalize::Write { reason, message, .. }) => return (*reason, message.clone()),
        Some(Finalize::Waiting { message }) => {
            return (FinalizedReason::WaitingForHandshake, message.clone());
        }
        Some(Finalize::Done { .. }) => return agreed(situation),
        None => {}
    }
    if decision.is_end() {
        return agreed(situation);
    }
    match situation.course {
        // Once it has begun there is no way back, also while new pods have to be changed first.
        Course::Finalizing => told(&situation.observed.upgrade)
            .unwrap_or((FinalizedReason::WaitingForHandshake, "the end of the run has begun".to_owned())),
        Course::Superseded
        | Course::Forward
        | Course::Back
        | Course::Stopped
        | Course::Closed
        | Course::RolledBack => (FinalizedReason::WaitingForPods, "pods are still to be changed".to_owned()),
    }
}

fn agreed(situation: &Situation<'_>) -> (FinalizedReason, String) {
    let has_say = match (situation.wish.persist, situation.target.kind()) {
        (Persist::PodsOnly, _) | (Persist::Template, TargetKind::ReplicaSet) => false,
        (Persist::Template, TargetKind::Deployment | TargetKind::StatefulSet | TargetKind::DaemonSet) => true,
    };
    let left_out = situation.left_out();
    if has_say && left_out > 0 && situation.target.kind() != TargetKind::Deployment {
        let pods = count(left_out, "pod");
        let message = format!("the workload's controller counts all but {pods} left out as of its template");
        (FinalizedReason::NativeControllerAgrees, message)
    } else if has_say {
        let message = "the workload's controller counts every pod as of its template";
        (FinalizedReason::NativeControllerAgrees, message.to_owned())
    } else {
        (FinalizedReason::Unneeded, "the workload's controller has no say in it".to_owned())
    }
}

/// Whether pods differ from what a run made them, though the wish is the same.
pub(super) fn drifted(situation: &Situation<'_>) -> (DriftedReason, String) {
    let first = situation.members.iter().find(|member| super::has_drifted(situation, member));
    match first.filter(|_| situation.has_succeeded()) {
        Some(first) => {
            let before = format!(
                "pods differ from what the last run made them, {} in all, first ",
                super::drifted(situation)
            );
            let what = in_what(&first.judgement.differences);
            let remedy = match situation.observed.upgrade.spec.policy.drift {
                DriftPolicy::Report => "delete it, or raise spec.attempt to have all changed again",
                DriftPolicy::Repair => "a run makes them so again",
            };
            let remedy = format!(" by its {what}: {remedy}");
            (DriftedReason::PodsDiffer, quoting(&before, &first.pod.meta().key.name, &remedy))
        }
        None => match situation.members.iter().find(|member| situation.leaves_out(member)) {
            Some(first) => {
                let pods = count(situation.left_out(), "pod");
                let before = format!("no pod differs outside of a run but {pods} left out, first ");
                let remedy = " (spec.policy.ineligible): delete it to have it made anew";
                (DriftedReason::NoDrift, quoting(&before, &first.pod.meta().key.name, remedy))
            }
            None => (DriftedReason::NoDrift, "no pod differs outside of a run".to_owned()),
        },
    }
}

/// The first thing in which a pod differs.
fn in_what(differences: &Differences) -> &'static str {
    if !differences.images.is_empty() || !differences.init_images.is_empty() {
        "images"
    } else if !differences.amounts.is_empty() || differences.keeps_amounts || differences.is_resize_open {
        "cpu or memory"
    } else if !differences.flips.is_empty() || differences.is_digest_unknown {
        "restart"
    } else if differences.has_metadata() {
        "labels or annotations"
    } else {
        "containers"
    }
}
