//! Conditions, reasons and windows.

// Helpers of tests fail the test, as tests do.
#![allow(clippy::unwrap_used)]

use jiff::Timestamp;
use serde_json::json;
use springtide_crds::batch_job::{
    CompleteReason, FailedReason, MESSAGE_MAX_BYTES, QueuedReason, ReconcilingReason, StalledReason,
};
use springtide_crds::common::{
    Condition, ConditionStatus, ConditionWriter, NEVER_SEEN_TIME, REASON_MAX_LENGTH, Window, bounded_text,
    condition, remove_condition,
};
use springtide_crds::reason::Reason;

fn writer(generation: i64, second: i64) -> ConditionWriter {
    ConditionWriter {
        observed_generation: generation,
        now: Timestamp::new(second, 123_456_789).unwrap(),
        message_max_bytes: MESSAGE_MAX_BYTES,
    }
}

fn transition(conditions: &[Condition], type_: &str) -> i64 {
    condition(conditions, type_).unwrap().last_transition_time.0.as_second()
}

#[test]
fn the_transition_time_moves_with_the_status_only() {
    let mut conditions = Vec::new();
    writer(1, 10).set(&mut conditions, QueuedReason::NoCapacity, "no node has room");
    assert_eq!(transition(&conditions, "Queued"), 10);

    writer(2, 20).set(&mut conditions, QueuedReason::HeadBlocked, "");
    let queued = condition(&conditions, "Queued").unwrap();
    assert!(queued.is(QueuedReason::HeadBlocked) && !queued.is(CompleteReason::Queued));
    assert_eq!((queued.status, queued.observed_generation), (ConditionStatus::True, 2));
    assert_eq!(transition(&conditions, "Queued"), 10);

    writer(2, 30).set(&mut conditions, QueuedReason::Admitted, "");
    assert_eq!(condition(&conditions, "Queued").unwrap().status, ConditionStatus::False);
    assert_eq!(transition(&conditions, "Queued"), 30);
    assert_eq!(conditions.len(), 1);
}

#[test]
fn what_the_schemas_default_says_begins_when_a_controller_sees_it() {
    let reason = ReconcilingReason(CompleteReason::Running);
    let mut conditions = Vec::new();
    writer(0, 0).set(&mut conditions, reason, "The controller has not seen the job yet.");
    conditions[0].last_transition_time = serde_json::from_value(json!(NEVER_SEEN_TIME)).unwrap();
    writer(1, 20).set(&mut conditions, reason, "");
    assert_eq!(transition(&conditions, "Reconciling"), 20);
    writer(1, 30).set(&mut conditions, reason, "");
    assert_eq!(transition(&conditions, "Reconciling"), 20, "from then on only a change of status counts");
}

#[test]
fn the_same_situation_gives_the_stored_condition() {
    let mut conditions = Vec::new();
    writer(1, 10).set(&mut conditions, CompleteReason::Running, "2 of 3 \"done\"");
    let stored: Vec<Condition> = serde_json::from_str(&serde_json::to_string(&conditions).unwrap()).unwrap();
    let mut again = stored.clone();
    writer(1, 99).set(&mut again, CompleteReason::Running, "2 of 3 \"done\"");
    assert_eq!(again, stored);
    assert_eq!(again, conditions);
}

#[test]
fn a_condition_that_is_normal_again_goes() {
    let mut conditions = Vec::new();
    writer(1, 10).set(&mut conditions, ReconcilingReason(CompleteReason::Running), "");
    writer(1, 10).set(&mut conditions, StalledReason::Failed(FailedReason::DeadlineExceeded), "");
    remove_condition(&mut conditions, "Reconciling");
    assert_eq!(condition(&conditions, "Reconciling"), None);
    assert_eq!(condition(&conditions, "Stalled").unwrap().reason, "DeadlineExceeded");
}

#[test]
fn text_is_cut_to_its_json_size_at_a_character() {
    assert_eq!(bounded_text("  short\n text ", 20), "short  text");
    for text in ["x".repeat(600), "\"\\".repeat(300), "双十一".repeat(200), "\u{1b}[31m\0é\"".repeat(90)]
    {
        for most in [0, 2, 3, 4, 17, 160, 512] {
            let cut = bounded_text(&text, most);
            let json = serde_json::to_string(&cut).unwrap().len() - 2;
            assert!(json <= most, "{json} > {most}: {cut}");
            // At most one character of up to 4 bytes does not fit any more.
            assert!(json + 4 > most || most < 8, "{json} wastes {most}: {cut}");
        }
    }
}

#[test]
fn reasons_fit_and_know_their_status() {
    for row in springtide_crds::all().iter().flat_map(|kind| &kind.reasons) {
        assert!(row.reason.len() <= REASON_MAX_LENGTH && row.condition.len() <= 18, "{row:?}");
    }
    assert_eq!(CompleteReason::Failed(FailedReason::FailedIndexes).status(), ConditionStatus::False);
    assert_eq!(CompleteReason::Completed.status(), ConditionStatus::True);
    assert_eq!(CompleteReason::Pending.status(), ConditionStatus::Unknown);
    assert_eq!(StalledReason::all().len(), 10 + FailedReason::all().len());
    assert!(!ReconcilingReason::all().iter().any(|reason| reason.as_str() == "Completed"));
}

#[test]
fn a_window_has_the_form_of_the_api() {
    let window: Window = serde_yaml::from_str(
        "{start: '00:00', end: '02:00', timeZone: Asia/Shanghai, dates: ['2026-11-11']}",
    )
    .unwrap();
    assert_eq!(window.time_zone, "Asia/Shanghai");
    assert_eq!(
        serde_json::to_value(&window).unwrap(),
        serde_json::json!({
            "start": "00:00", "end": "02:00", "timeZone": "Asia/Shanghai", "dates": ["2026-11-11"],
        })
    );
}
