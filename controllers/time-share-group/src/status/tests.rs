//! Each reason of each condition once. The scenes are found by a match over the reasons: one that is added has none, and
//! then this does not compile.

mod ahead;
mod rows;
mod stalled;
mod switches;
mod told;

use super::{failing, refused, status};
use crate::fixtures::at;
use crate::observed::{Guard, Observed};
use crate::plan::accept::accept;
use crate::plan::decision::decide;
use crate::plan::situation::Situation;
use crate::transition::course;
use serde_json::{Value, json};
use springtide_crds::common::{ConditionStatus, condition};
use springtide_crds::reason::{Reason, said};
use springtide_crds::time_share_group::{
    AcceptedReason, AutoscalerConflictReason, CapacitySafeReason, GuardsPassingReason, HeldReason,
    MESSAGE_MAX_BYTES, PreflightFailure, PreflightPassedReason, ReadyReason, ReconcilingReason,
    RefusalReason, ScheduleValidReason, StalledReason, TimeShareGroupStatus,
};
use springtide_plumbing::metric_query::MetricVerdict;
use springtide_plumbing::plan::MAX_STATUS_BYTES;
use springtide_plumbing::projection::Projection;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What is observed, and words that the message has: what is wrong, whose, and what helps.
type Told = (Observed, &'static [&'static str]);

/// Every condition of the design's table but Reconciling and Stalled.
const ALWAYS: [&str; 8] = [
    ReadyReason::CONDITION,
    AcceptedReason::CONDITION,
    ScheduleValidReason::CONDITION,
    PreflightPassedReason::CONDITION,
    CapacitySafeReason::CONDITION,
    GuardsPassingReason::CONDITION,
    HeldReason::CONDITION,
    AutoscalerConflictReason::CONDITION,
];

/// The status at `at(100)`.
fn status_of(observed: &Observed) -> TimeShareGroupStatus {
    let course = course(observed);
    match accept(observed, &course, at(100)) {
        Ok(accepted) => {
            let situation = Situation::new(observed, accepted, course, at(100));
            status(&situation, &decide(&situation), at(100))
        }
        Err(refusal) => refused(observed, &refusal, at(100)),
    }
}

/// The same group with this status.
fn stored(observed: &Observed, status: TimeShareGroupStatus) -> Observed {
    let version = observed.group.meta().resource_version;
    Observed { group: Arc::new(observed.group.with_status(status, version)), ..observed.clone() }
}

/// What kstatus and `kubectl wait` go by.
#[track_caller]
fn conforms(status: &TimeShareGroupStatus, generation: i64) {
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
    let needs_person = types.contains(StalledReason::CONDITION);
    assert!(!(goes_on && needs_person), "either it goes on, or a person is needed");
    let ready = condition(&status.conditions, ReadyReason::CONDITION).unwrap();
    assert!(!(ready.status == ConditionStatus::True && goes_on), "what is ready has nothing left to do");
    let bytes = serde_json::to_string(status).unwrap().len();
    assert!(bytes <= MAX_STATUS_BYTES, "{bytes}");
}

/// Every reason of a condition is told in its scene; those without one are never told by a plan.
#[track_caller]
fn all_are_told<R: Reason>(scene: impl Fn(&R) -> Option<Told>) {
    for reason in R::all() {
        let name = reason.as_str();
        let Some((observed, words)) = scene(&reason) else { continue };
        let status = status_of(&observed);
        let found = condition(&status.conditions, R::CONDITION);
        let found = found.unwrap_or_else(|| panic!("no {} {name}: {:#?}", R::CONDITION, status.conditions));
        assert_eq!(
            (found.reason.as_str(), found.status),
            (name, reason.status()),
            "{:#?}",
            status.conditions
        );
        let message = &found.message;
        assert!(words.iter().all(|word| message.contains(word)), "{} {name}: {message}", R::CONDITION);
        conforms(&status, observed.group.meta().generation);
    }
}

#[test]
fn each_reason_of_ready() {
    all_are_told(switches::ready);
}

#[test]
fn each_reason_of_reconciling() {
    all_are_told(switches::reconciling);
}

#[test]
fn each_reason_of_held() {
    all_are_told(switches::held);
}

#[test]
fn each_reason_of_guards_passing() {
    all_are_told(switches::guards_passing);
}

#[test]
fn each_reason_of_stalled() {
    all_are_told(stalled::stalled);
}

#[test]
fn each_reason_of_accepted() {
    all_are_told(stalled::accepted);
}

#[test]
fn a_spec_that_is_not_served_says_so_in_two_conditions() {
    for (conditions, reason) in [
        (["Accepted", "Stalled"], "InvalidSpec"),
        (["Accepted", "Stalled"], "InvalidSchedule"),
        (["Accepted", "Stalled"], "MemberNotFound"),
        (["Accepted", "Stalled"], "MemberTaken"),
        (["Accepted", "Stalled"], "MemberNotGranted"),
        (["Accepted", "Stalled"], "AutoscalerRefused"),
        (["Accepted", "Stalled"], "LimitExceeded"),
    ] {
        let known = RefusalReason::all().into_iter().find(|known| known.as_str() == reason).unwrap();
        let status = status_of(&stalled::refused(known).0);
        let [accepted, stalled] = conditions.map(|type_| condition(&status.conditions, type_).unwrap());
        assert_eq!([accepted.reason.as_str(), stalled.reason.as_str()], [reason; 2]);
        assert_eq!((accepted.status, stalled.status), (ConditionStatus::False, ConditionStatus::True));
        assert_eq!(accepted.message, stalled.message, "{reason}");
    }
}

#[test]
fn what_a_preflight_fails_at_stands_in_its_rows_too() {
    for (type_, reason) in [
        ("PreflightPassed", "DryRunRefused"),
        ("PreflightPassed", "NodeDoesNotFit"),
        ("PreflightPassed", "QuotaExceeded"),
        ("PreflightPassed", "QoSClassWouldChange"),
        ("PreflightPassed", "ResizeNeedsRestart"),
        ("PreflightPassed", "NoUsageData"),
    ] {
        let known = PreflightFailure::all().into_iter().find(|known| known.as_str() == reason).unwrap();
        let status = status_of(&ahead::failed(known).0);
        assert_eq!(condition(&status.conditions, type_).unwrap().reason, reason);
        let preflight = status.preflight.unwrap();
        assert_eq!((preflight.units, preflight.passed, preflight.failures[0].reason), (1, 0, known));
        assert!(preflight.completion_time.is_some(), "each of its units is known");
    }
}

#[test]
fn each_reason_of_schedule_valid() {
    all_are_told(ahead::schedule_valid);
}

#[test]
fn each_reason_of_preflight_passed() {
    all_are_told(ahead::preflight_passed);
}

#[test]
fn each_reason_of_capacity_safe() {
    all_are_told(ahead::capacity_safe);
}

#[test]
fn each_reason_of_autoscaler_conflict() {
    all_are_told(ahead::autoscaler_conflict);
}

/// A guard whose last values were all beyond its bound.
fn breached(name: &str) -> Guard {
    Guard { name: name.into(), verdict: MetricVerdict::Breached { failures: 3 } }
}

/// A guard of which no value is known.
fn unknown(name: &str) -> Guard {
    Guard { name: name.into(), verdict: MetricVerdict::NoData { problem: "connection refused".into() } }
}

/// A condition as it is stored.
fn told(type_: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({
        "type": type_, "status": status, "reason": reason, "message": message, "observedGeneration": 1,
        "lastTransitionTime": at(50).to_string(),
    })
}

/// Reason and message of a condition in the status.
fn says<R: Reason>(observed: &Observed) -> Option<(R, String)> {
    said(&status_of(observed).conditions).map(|(reason, message)| (reason, message.to_owned()))
}
