//! What an override does, and when it ends.

use super::*;

const DAY: &str = "
defaultMember: promo
windows:
- {name: day, member: payment, window: {start: '08:00', end: '20:00', timeZone: UTC}}
";

fn desired(over: &Override, now: &str) -> Desired {
    calendar(DAY).desired(Some(over), time(now))
}

#[test]
fn an_override_goes_before_all_until_its_time() {
    let over = forced(Some("report"), "2026-05-04T12:00:00Z");
    let found = desired(&over, "2026-05-04T11:59:59Z");
    assert_eq!((found.member.as_deref(), found.cause), (Some("report"), Cause::Override));
    assert_eq!((found.since, found.until), (None, Some(time("2026-05-04T12:00:00Z"))));
    let next = found.next.unwrap();
    assert_eq!((next.member.as_deref(), next.start), (Some("payment"), time("2026-05-04T12:00:00Z")));
    assert_eq!(next.window_start, Some(time("2026-05-04T08:00:00Z")), "that window is open by then");
    let then = desired(&over, "2026-05-04T12:00:00Z");
    assert_eq!(then, calendar(DAY).desired(None, time("2026-05-04T12:00:00Z")));
    assert_eq!((then.member.as_deref(), then.cause), (Some("payment"), Cause::Window));
}

#[test]
fn an_override_without_a_member_is_for_nobody() {
    let found = desired(&forced(None, "2026-05-04T12:00:00Z"), "2026-05-04T10:00:00Z");
    assert_eq!((found.member, found.cause), (None, Cause::Override));
    assert_eq!(found.next.unwrap().member.as_deref(), Some("payment"));
}

#[test]
fn an_override_of_the_past_or_for_somebody_else_is_nothing() {
    let now = "2026-05-04T10:00:00Z";
    let by_schedule = calendar(DAY).desired(None, time(now));
    assert_eq!(desired(&forced(Some("report"), now), now), by_schedule);
    assert_eq!(desired(&forced(None, "2020-01-01T00:00:00Z"), now), by_schedule);
    assert_eq!(desired(&forced(Some("stranger"), "2030-01-01T00:00:00Z"), now), by_schedule);
}

#[test]
fn the_next_switch_is_no_switch_to_the_same_member() {
    // It ends in the window of its member.
    let found = desired(&forced(Some("payment"), "2026-05-04T12:00:00Z"), "2026-05-04T03:00:00Z");
    let next = found.next.unwrap();
    assert_eq!((next.member.as_deref(), next.start), (Some("promo"), time("2026-05-04T20:00:00Z")));
    assert_eq!(found.until, Some(time("2026-05-04T12:00:00Z")), "the cause is another one from then on");
    // It ends in the lead of the window of another.
    let found = desired(&forced(Some("promo"), "2026-05-04T07:55:00Z"), "2026-05-04T03:00:00Z");
    let next = found.next.unwrap();
    assert_eq!((next.member.as_deref(), next.start), (Some("payment"), time("2026-05-04T07:55:00Z")));
    assert_eq!(next.window_start, Some(time("2026-05-04T08:00:00Z")), "still to come");
}

#[test]
fn another_override_counts_from_when_it_is_there() {
    let now = "2026-05-04T10:00:00Z";
    let first = desired(&forced(Some("report"), "2026-05-04T12:00:00Z"), now);
    let second = desired(&forced(Some("promo"), "2026-05-04T18:00:00Z"), now);
    assert_eq!((first.member.as_deref(), second.member.as_deref()), (Some("report"), Some("promo")));
    assert_eq!(second.until, Some(time("2026-05-04T18:00:00Z")));
    // It is lifted early.
    assert_eq!(calendar(DAY).desired(None, time(now)).member.as_deref(), Some("payment"));
}

#[test]
fn an_override_to_the_end_of_time_breaks_nothing() {
    let over = forced(Some("report"), "9999-12-30T22:00:00Z");
    let found = desired(&over, "2026-05-04T10:00:00Z");
    assert_eq!((found.member.as_deref(), found.cause), (Some("report"), Cause::Override));
}
