//! Each reason of each condition once. The scenes are found by a match over the reasons: one that is added has none, and
//! then this does not compile.

mod runs;
mod stalled;
mod target;

use super::scenes::{Scene, message_of, status_of};
use crate::projections::upgrade::UpgradeView;
use springtide_crds::common::ConditionStatus;
use springtide_crds::in_place_upgrade::{
    AcceptedReason, DriftedReason, FinalizedReason, HealthyReason, HeldReason, InPlaceUpgradeStatus,
    LockedReason, MESSAGE_MAX_BYTES, PrePulledReason, ReadyReason, ReconcilingReason, StalledReason,
};
use springtide_crds::reason::Reason;
use springtide_plumbing::plan::{MAX_STATUS_BYTES, Plan};
use springtide_plumbing::projection::Projection;
use std::collections::BTreeSet;

/// A scene, and words that the message has: what is wrong, whose, and what helps.
pub(super) type Told = (Scene, &'static [&'static str]);

/// Every condition of the design's table but Reconciling and Stalled.
const ALWAYS: [&str; 8] = [
    ReadyReason::CONDITION,
    AcceptedReason::CONDITION,
    LockedReason::CONDITION,
    PrePulledReason::CONDITION,
    HeldReason::CONDITION,
    HealthyReason::CONDITION,
    FinalizedReason::CONDITION,
    DriftedReason::CONDITION,
];

/// What kstatus and `kubectl wait` go by.
#[track_caller]
fn conforms(status: &InPlaceUpgradeStatus, generation: i64) {
    assert_eq!(status.observed_generation, generation);
    let types: BTreeSet<&str> = status.conditions.iter().map(|found| found.type_.as_str()).collect();
    assert_eq!(types.len(), status.conditions.len(), "each once");
    assert!(ALWAYS.iter().all(|type_| types.contains(type_)), "{types:?}");
    for found in &status.conditions {
        assert_eq!(found.observed_generation, generation, "{found:?}");
        assert!(!found.message.is_empty(), "{found:?}");
        assert!(found.message.len() <= MESSAGE_MAX_BYTES, "{found:?}");
        assert!(found.last_transition_time.0.as_second() > 0, "{found:?}");
        if found.type_ == ReconcilingReason::CONDITION || found.type_ == StalledReason::CONDITION {
            assert_eq!(found.status, ConditionStatus::True, "it is there only while it is true: {found:?}");
        }
    }
    let goes_on = types.contains(ReconcilingReason::CONDITION);
    assert!(
        !(goes_on && types.contains(StalledReason::CONDITION)),
        "either it goes on, or a person is needed"
    );
    let ready = status.conditions.iter().find(|found| found.type_ == ReadyReason::CONDITION).unwrap();
    let is_current = ready.status == ConditionStatus::True && !types.contains(StalledReason::CONDITION);
    assert!(!(is_current && goes_on), "what is ready has nothing left to do");
    let bytes = serde_json::to_string(status).unwrap().len();
    assert!(bytes <= MAX_STATUS_BYTES, "{bytes}");
}

/// Every reason of a condition is told in its scene; those without one are never told by a plan.
fn all_are_told<R: Reason>(scene: impl Fn(&R) -> Option<Told>) {
    for reason in R::all() {
        let name = reason.as_str();
        let Some((scene, words)) = scene(&reason) else { continue };
        let plan = scene.plan();
        let message = message_of(&plan, &reason)
            .unwrap_or_else(|| panic!("no {} {name}: {:#?}", R::CONDITION, status_of(&plan)));
        assert!(words.iter().all(|word| message.contains(word)), "{} {name}: {message}", R::CONDITION);
        let status = status_of(&plan).unwrap();
        let found = status.conditions.iter().find(|found| found.type_ == R::CONDITION).unwrap();
        assert_eq!(found.status, reason.status(), "{} {name}", R::CONDITION);
        conforms(&status, scene.observed.upgrade.meta().generation);
        // Nothing is new in the same situation: no write and no event.
        let mut again = scene;
        let mut upgrade = UpgradeView::clone(&again.observed.upgrade);
        upgrade.status = status;
        again.observed.upgrade = upgrade.into();
        let repeated = again.plan();
        if let (true, Some(second)) = (is_at_rest(&plan), status_of(&repeated)) {
            assert_eq!(again.observed.upgrade.status, second, "{} {name}", R::CONDITION);
            assert!(repeated.events.is_empty(), "{} {name}: {:?}", R::CONDITION, repeated.events);
        }
    }
}

/// Whether a plan changes nothing on which the next one rests: it writes to nobody, and a run neither opens nor turns.
fn is_at_rest(plan: &Plan) -> bool {
    plan.stages.is_empty()
        && plan.events.iter().all(|event| event.action == "Holding" || event.action == "Upgrading")
}

#[test]
fn each_reason_of_ready() {
    all_are_told(runs::ready);
}

#[test]
fn each_reason_of_reconciling() {
    all_are_told(runs::reconciling);
}

#[test]
fn each_reason_of_held() {
    all_are_told(runs::held);
}

#[test]
fn each_reason_of_healthy() {
    all_are_told(runs::healthy);
}

#[test]
fn each_reason_of_finalized() {
    all_are_told(runs::finalized);
}

#[test]
fn each_reason_of_drifted() {
    all_are_told(runs::drifted);
}

#[test]
fn each_reason_of_accepted() {
    all_are_told(target::accepted);
}

#[test]
fn each_reason_of_locked() {
    all_are_told(target::locked);
}

#[test]
fn each_reason_of_pre_pulled() {
    all_are_told(target::pre_pulled);
}

#[test]
fn each_reason_of_stalled() {
    all_are_told(stalled::stalled);
}
