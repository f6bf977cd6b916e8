//! The peaks of a member as others see them.

use super::super::PeakTimes;
use super::*;
use crate::window::Occurrence;
use std::sync::Arc;

fn peaks(yaml: &str, member: Option<&str>, over: Option<&Override>) -> PeakTimes {
    Arc::new(calendar(yaml)).peaks(member, over).unwrap()
}

fn show(occurrence: Option<Occurrence>) -> String {
    occurrence.map_or_else(|| "none".to_owned(), |it| format!("{}/{}", it.start, it.end))
}

fn at(peaks: &PeakTimes, now: &str) -> String {
    show(peaks.occurrence_at(time(now)))
}

fn next(peaks: &PeakTimes, now: &str) -> String {
    show(peaks.next_after(time(now)))
}

/// What ended in the 24 hours before.
fn ended(peaks: &PeakTimes, now: &str) -> String {
    show(peaks.last_ended(time(now), SignedDuration::from_hours(24)))
}

const TWO: &str = "
windows:
- {name: noon, member: payment, window: {start: '12:00', end: '14:00', timeZone: UTC}}
- {name: evening, member: promo, window: {start: '14:10', end: '20:00', timeZone: UTC}}
";

#[test]
fn a_peak_lasts_from_the_lead_to_the_end_of_the_window() {
    let payment = peaks(TWO, Some("payment"), None);
    let noon = "2026-05-04T11:50:00Z/2026-05-04T14:00:00Z";
    assert_eq!(at(&payment, "2026-05-04T11:49:59Z"), "none");
    assert_eq!(at(&payment, "2026-05-04T11:50:00Z"), noon);
    assert_eq!(at(&payment, "2026-05-04T13:59:59Z"), noon);
    assert_eq!(at(&payment, "2026-05-04T14:00:00Z"), "none");
    assert_eq!(next(&payment, "2026-05-04T11:49:59Z"), noon);
    assert_eq!(next(&payment, "2026-05-04T11:50:00Z"), "2026-05-05T11:50:00Z/2026-05-05T14:00:00Z");
    assert_eq!(ended(&payment, "2026-05-04T13:59:59Z"), "2026-05-03T11:50:00Z/2026-05-03T14:00:00Z");
    assert_eq!(ended(&payment, "2026-05-04T14:00:00Z"), noon);
    assert_eq!(ended(&payment, "2026-05-05T13:59:59Z"), noon);
    // Any peak is one of the two, which follow one another.
    let any = peaks(TWO, None, None);
    assert_eq!(at(&any, "2026-05-04T13:00:00Z"), "2026-05-04T11:50:00Z/2026-05-04T20:00:00Z");
    assert_eq!(next(&any, "2026-05-04T13:00:00Z"), "2026-05-05T11:50:00Z/2026-05-05T20:00:00Z");
}

#[test]
fn what_a_member_has_by_default_is_no_peak_unless_it_has_a_window_then() {
    let with_default = format!("defaultMember: report{TWO}");
    let report = peaks(&with_default, Some("report"), None);
    let now = "2026-05-04T10:00:00Z";
    assert_eq!([at(&report, now), next(&report, now), ended(&report, now)], ["none"; 3]);
    let any = peaks(&with_default, None, None);
    assert_eq!(at(&any, now), "none");
    assert_eq!(next(&any, now), "2026-05-04T11:50:00Z/2026-05-04T20:00:00Z");
    let own = with_default.replace("payment", "report");
    assert_eq!(next(&peaks(&own, Some("report"), None), now), "2026-05-04T11:50:00Z/2026-05-04T14:00:00Z");
}

#[test]
fn a_member_without_windows_has_no_peak_and_one_that_is_not_there_none_at_all() {
    let report = peaks(TWO, Some("report"), None);
    let now = "2026-05-04T12:30:00Z";
    assert_eq!([at(&report, now), next(&report, now), ended(&report, now)], ["none"; 3]);
    assert!(Arc::new(calendar(TWO)).peaks(Some("stranger"), None).is_none());
}

#[test]
fn an_override_makes_a_peak_of_its_member_and_keeps_the_others_from_theirs() {
    let over = forced(Some("report"), "2026-05-04T13:00:00Z");
    let report = peaks(TWO, Some("report"), Some(&over));
    // Nobody knows since when.
    let forced = "1970-01-01T00:00:00Z/2026-05-04T13:00:00Z";
    assert_eq!(at(&report, "2026-05-04T10:00:00Z"), forced);
    assert_eq!(at(&report, "2026-05-04T13:00:00Z"), "none");
    assert_eq!(ended(&report, "2026-05-04T13:00:00Z"), forced);
    assert_eq!(ended(&report, "2026-05-05T13:00:00Z"), "none", "that was more than a day ago");
    let payment = peaks(TWO, Some("payment"), Some(&over));
    assert_eq!(at(&payment, "2026-05-04T12:30:00Z"), "none");
    // It gets what is left of its window.
    let rest = "2026-05-04T13:00:00Z/2026-05-04T14:00:00Z";
    assert_eq!(next(&payment, "2026-05-04T10:00:00Z"), rest);
    assert_eq!(next(&payment, "2026-05-04T12:30:00Z"), rest);
    let promo = peaks(TWO, Some("promo"), Some(&over));
    assert_eq!(next(&promo, "2026-05-04T10:00:00Z"), "2026-05-04T14:00:00Z/2026-05-04T20:00:00Z");
    let any = peaks(TWO, None, Some(&over));
    assert_eq!(at(&any, "2026-05-04T10:00:00Z"), "1970-01-01T00:00:00Z/2026-05-04T20:00:00Z");
    assert_eq!(next(&any, "2026-05-04T10:00:00Z"), "2026-05-05T11:50:00Z/2026-05-05T20:00:00Z");
}

#[test]
fn an_override_that_ends_in_the_window_of_its_member_goes_over_into_that() {
    let over = forced(Some("payment"), "2026-05-04T13:00:00Z");
    let payment = peaks(TWO, Some("payment"), Some(&over));
    assert_eq!(at(&payment, "2026-05-04T10:00:00Z"), "1970-01-01T00:00:00Z/2026-05-04T14:00:00Z");
    assert_eq!(next(&payment, "2026-05-04T10:00:00Z"), "2026-05-05T11:50:00Z/2026-05-05T14:00:00Z");
    assert_eq!(ended(&payment, "2026-05-04T13:30:00Z"), "2026-05-03T11:50:00Z/2026-05-03T14:00:00Z");
}

#[test]
fn an_override_for_nobody_is_no_peak_and_one_of_the_past_is_nothing() {
    let nobody = forced(None, "2026-05-04T13:00:00Z");
    let any = peaks(TWO, None, Some(&nobody));
    assert_eq!(at(&any, "2026-05-04T12:30:00Z"), "none");
    assert_eq!(next(&any, "2026-05-04T12:30:00Z"), "2026-05-04T13:00:00Z/2026-05-04T20:00:00Z");
    assert_eq!(at(&any, "2026-05-04T13:00:00Z"), "2026-05-04T11:50:00Z/2026-05-04T20:00:00Z");
    let past = forced(Some("report"), "2026-05-01T00:00:00Z");
    let payment = peaks(TWO, Some("payment"), Some(&past));
    assert_eq!(at(&payment, "2026-05-04T12:30:00Z"), "2026-05-04T11:50:00Z/2026-05-04T14:00:00Z");
}
