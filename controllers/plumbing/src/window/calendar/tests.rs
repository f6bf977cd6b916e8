//! Calendars by hand: who is desired when, what comes next, and what is refused.

mod minutes;
mod overrides;
mod peaks;
mod refused;

use super::{Calendar, CalendarProblem, Cause, Desired};
use jiff::{SignedDuration, Timestamp};
use springtide_crds::time_share_group::{Override, Schedule};

const MEMBERS: [&str; 3] = ["payment", "promo", "report"];

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn schedule(yaml: &str) -> Schedule {
    serde_yaml::from_str(yaml).unwrap()
}

fn parse(yaml: &str) -> Result<Calendar, CalendarProblem> {
    Calendar::parse(&schedule(yaml), MEMBERS)
}

fn calendar(yaml: &str) -> Calendar {
    parse(yaml).unwrap()
}

fn forced(member: Option<&str>, until: &str) -> Override {
    let value = serde_json::json!({"member": member, "untilTime": until, "reason": "INC-4711"});
    serde_json::from_value(value).unwrap()
}

fn text(member: Option<&std::sync::Arc<str>>) -> &str {
    member.map_or("nobody", |member| &**member)
}

/// Who is desired, why and until when.
fn who(calendar: &Calendar, now: &str) -> String {
    let Desired { member, cause, until, .. } = calendar.desired(None, time(now));
    let until = until.map_or_else(|| "for ever".to_owned(), |until| format!("until {until}"));
    format!("{} by {cause:?} {until}", text(member.as_ref()))
}

/// The next switches, each found by the look at the one before it: at its very start the other member is desired, and not
/// a moment earlier.
fn switches(calendar: &Calendar, from: &str, count: usize) -> Vec<String> {
    let mut now = time(from);
    let mut found = Vec::new();
    while found.len() < count {
        let desired = calendar.desired(None, now);
        let Some(next) = desired.next else { break };
        assert!(next.start > now, "{next:?}");
        let before = calendar.desired(None, next.start - SignedDuration::from_nanos(1));
        assert_eq!(before.member, desired.member, "before {next:?}");
        let then = calendar.desired(None, next.start);
        assert_eq!((&then.member, &then.window), (&next.member, &next.window), "at {next:?}");
        assert_ne!(then.member, before.member, "at {next:?}");
        found.push(format!("{} {}", next.start, text(next.member.as_ref())));
        now = next.start;
    }
    found
}

const DOUBLE_11: &str = "
defaultMember: promo
windows:
- name: night
  member: payment
  leadSeconds: 600
  window: {cron: '0 0 11 11 *', durationSeconds: 7200, timeZone: Asia/Shanghai}
";

#[test]
fn the_switch_begins_by_the_lead_before_the_window_and_the_default_member_has_the_rest() {
    let calendar = calendar(DOUBLE_11);
    assert_eq!(
        who(&calendar, "2026-11-10T15:49:59.999999999Z"),
        "promo by Default until 2026-11-10T15:50:00Z"
    );
    assert_eq!(who(&calendar, "2026-11-10T15:50:00Z"), "payment by Window until 2026-11-10T18:00:00Z");
    assert_eq!(
        who(&calendar, "2026-11-10T17:59:59.999999999Z"),
        "payment by Window until 2026-11-10T18:00:00Z"
    );
    assert_eq!(who(&calendar, "2026-11-10T18:00:00Z"), "promo by Default until 2027-11-10T15:50:00Z");
    let before = calendar.desired(None, time("2026-11-10T00:00:00Z"));
    assert_eq!(before.since, Some(time("2025-11-10T18:00:00Z")));
    let next = before.next.unwrap();
    assert_eq!(
        (next.start, next.window_start),
        (time("2026-11-10T15:50:00Z"), Some(time("2026-11-10T16:00:00Z")),)
    );
    assert_eq!(next.window.as_deref(), Some("night"));
}

#[test]
fn who_was_down_over_a_start_or_whose_clock_jumps_is_told_what_holds() {
    let calendar = calendar(DOUBLE_11);
    let late = calendar.desired(None, time("2026-11-10T17:13:20Z"));
    assert_eq!((late.member.as_deref(), late.cause), (Some("payment"), Cause::Window));
    assert_eq!(late.since, Some(time("2026-11-10T15:50:00Z")), "it is late by so much");
    assert_eq!(late.window_start, Some(time("2026-11-10T16:00:00Z")));
    // A year ahead and back again.
    assert_eq!(calendar.desired(None, time("2027-11-10T18:00:00Z")).member.as_deref(), Some("promo"));
    assert_eq!(calendar.desired(None, time("2026-11-10T17:13:20Z")), late);
}

#[test]
fn a_window_and_a_lead_reach_over_midnight() {
    let calendar = calendar(
        "
windows:
- name: night
  member: payment
  window: {start: '22:00', end: '06:00', timeZone: Asia/Shanghai, dates: ['2026-03-01']}
- name: early
  member: promo
  leadSeconds: 900
  window: {start: '00:05', end: '01:00', timeZone: Asia/Shanghai, dates: ['2026-03-10']}
",
    );
    assert_eq!(
        switches(&calendar, "2026-01-01T00:00:00Z", 9),
        [
            "2026-03-01T13:50:00Z payment",
            "2026-03-01T22:00:00Z nobody",
            // Ten minutes before midnight.
            "2026-03-09T15:50:00Z promo",
            "2026-03-09T17:00:00Z nobody",
        ]
    );
    assert_eq!(who(&calendar, "2026-03-20T00:00:00Z"), "nobody by Default for ever");
}

#[test]
fn a_window_follows_its_clock_when_that_is_put_forward_and_back() {
    let calendar = calendar(
        "
defaultMember: promo
windows:
- name: morning
  member: payment
  window: {start: '02:30', end: '04:00', timeZone: Europe/Berlin}
",
    );
    // 02:30 does not exist on the 29th: the window opens at the end of the gap, its lead is counted from there.
    assert_eq!(
        switches(&calendar, "2026-03-27T12:00:00Z", 6),
        [
            "2026-03-28T01:20:00Z payment",
            "2026-03-28T03:00:00Z promo",
            "2026-03-29T00:50:00Z payment",
            "2026-03-29T02:00:00Z promo",
            "2026-03-30T00:20:00Z payment",
            "2026-03-30T02:00:00Z promo",
        ]
    );
    // 02:30 is there twice on the 25th: the window opens at the first.
    assert_eq!(
        switches(&calendar, "2026-10-24T12:00:00Z", 4),
        [
            "2026-10-25T00:20:00Z payment",
            "2026-10-25T03:00:00Z promo",
            "2026-10-26T01:20:00Z payment",
            "2026-10-26T03:00:00Z promo",
        ]
    );
}

#[test]
fn windows_of_two_zones_keep_to_their_own_clocks() {
    let calendar = calendar(
        "
windows:
- name: east
  member: payment
  leadSeconds: 0
  window: {start: '09:00', end: '12:00', timeZone: Asia/Shanghai}
- name: west
  member: promo
  leadSeconds: 0
  window: {start: '09:00', end: '12:00', timeZone: America/New_York}
",
    );
    // New York puts its clocks forward on the 8th, Shanghai does not.
    assert_eq!(
        switches(&calendar, "2026-03-07T00:00:00Z", 8),
        [
            "2026-03-07T01:00:00Z payment",
            "2026-03-07T04:00:00Z nobody",
            "2026-03-07T14:00:00Z promo",
            "2026-03-07T17:00:00Z nobody",
            "2026-03-08T01:00:00Z payment",
            "2026-03-08T04:00:00Z nobody",
            "2026-03-08T13:00:00Z promo",
            "2026-03-08T16:00:00Z nobody",
        ]
    );
}

#[test]
fn no_window_starts_on_a_date_that_is_skipped_and_what_runs_goes_on() {
    let calendar = calendar(
        "
skipDates: ['2026-10-02', '2026-10-01']
windows:
- name: night
  member: payment
  leadSeconds: 0
  window: {start: '22:00', end: '06:00', timeZone: Asia/Shanghai}
- name: noon
  member: promo
  leadSeconds: 0
  window: {cron: '0 12 * * *', durationSeconds: 3600, timeZone: Asia/Shanghai}
",
    );
    assert_eq!(
        switches(&calendar, "2026-09-30T00:00:00Z", 6),
        [
            "2026-09-30T04:00:00Z promo",
            "2026-09-30T05:00:00Z nobody",
            "2026-09-30T14:00:00Z payment",
            // The night of the 30th ends on the 1st.
            "2026-09-30T22:00:00Z nobody",
            "2026-10-03T04:00:00Z promo",
            "2026-10-03T05:00:00Z nobody",
        ]
    );
}

#[test]
fn a_skipped_date_is_one_of_the_windows_own_zone_and_a_lead_may_begin_on_it() {
    let calendar = calendar(
        "
skipDates: ['2026-10-01']
windows:
- name: east
  member: payment
  window: {start: '00:05', end: '01:00', timeZone: Asia/Shanghai}
- name: west
  member: promo
  leadSeconds: 0
  window: {start: '00:05', end: '01:00', timeZone: America/New_York}
",
    );
    assert_eq!(
        switches(&calendar, "2026-09-30T12:00:00Z", 4),
        [
            // In Shanghai that is the 2nd, whose lead begins on the 1st. In New York the 1st begins at 04:00Z of the 1st.
            "2026-10-01T15:55:00Z payment",
            "2026-10-01T17:00:00Z nobody",
            "2026-10-02T04:05:00Z promo",
            "2026-10-02T05:00:00Z nobody",
        ]
    );
}

#[test]
fn windows_of_one_member_that_overlap_or_touch_are_one() {
    let calendar = calendar(
        "
defaultMember: promo
windows:
- {name: a, member: payment, window: {start: '08:00', end: '10:00', timeZone: UTC, dates: ['2026-05-04']}}
- {name: b, member: payment, window: {start: '09:00', end: '11:00', timeZone: UTC, dates: ['2026-05-04']}}
- {name: c, member: payment, leadSeconds: 0, window: {start: '11:00', end: '12:00', timeZone: UTC, dates: ['2026-05-04']}}
- {name: d, member: payment, leadSeconds: 7200, window: {start: '13:30', end: '14:00', timeZone: UTC, dates: ['2026-05-04']}}
",
    );
    assert_eq!(
        switches(&calendar, "2026-05-04T00:00:00Z", 9),
        ["2026-05-04T07:50:00Z payment", "2026-05-04T14:00:00Z promo",]
    );
    let found = calendar.desired(None, time("2026-05-04T13:00:00Z"));
    assert_eq!((found.since, found.window.as_deref()), (Some(time("2026-05-04T07:50:00Z")), Some("a")));
    assert_eq!(calendar.survey(time("2026-05-04T00:00:00Z")), super::Survey::default());
}

#[test]
fn one_switch_leads_from_window_to_window_where_one_begins_as_another_ends() {
    let calendar = calendar(
        "
defaultMember: report
windows:
- {name: day, member: payment, window: {start: '08:10', end: '20:00', timeZone: UTC}}
- {name: night, member: promo, window: {start: '20:10', end: '08:00', timeZone: UTC}}
",
    );
    assert_eq!(
        switches(&calendar, "2026-05-04T12:00:00Z", 3),
        ["2026-05-04T20:00:00Z promo", "2026-05-05T08:00:00Z payment", "2026-05-05T20:00:00Z promo",]
    );
    assert_eq!(calendar.survey(time("2026-05-04T00:00:00Z")), super::Survey::default());
}

#[test]
fn windows_of_one_member_alone_switch_between_it_and_nobody() {
    let calendar = calendar(
        "
windows:
- {name: lunch, member: payment, leadSeconds: 60, window: {cron: '0 12 * * 1-5', durationSeconds: 7200, timeZone: UTC}}
",
    );
    // The 8th is a Friday.
    assert_eq!(
        switches(&calendar, "2026-05-08T13:00:00Z", 3),
        ["2026-05-08T14:00:00Z nobody", "2026-05-11T11:59:00Z payment", "2026-05-11T14:00:00Z nobody",]
    );
    assert_eq!(who(&calendar, "2026-05-10T00:00:00Z"), "nobody by Default until 2026-05-11T11:59:00Z");
}

#[test]
fn windows_of_the_default_member_switch_nothing() {
    let calendar = calendar(
        "
defaultMember: promo
windows:
- {name: own, member: promo, window: {start: '08:00', end: '10:00', timeZone: UTC}}
- {name: other, member: payment, window: {start: '12:00', end: '13:00', timeZone: UTC, dates: ['2026-05-06']}}
",
    );
    assert_eq!(
        switches(&calendar, "2026-05-04T09:00:00Z", 9),
        ["2026-05-06T11:50:00Z payment", "2026-05-06T13:00:00Z promo",]
    );
    // When its window ends, the cause is another one.
    assert_eq!(who(&calendar, "2026-05-04T09:00:00Z"), "promo by Window until 2026-05-04T10:00:00Z");
    assert_eq!(who(&calendar, "2026-05-04T10:00:00Z"), "promo by Default until 2026-05-05T07:50:00Z");
    assert_eq!(who(&calendar, "2026-05-06T10:30:00Z"), "promo by Default until 2026-05-06T11:50:00Z");
    let after = calendar.desired(None, time("2026-05-06T13:30:00Z"));
    assert_eq!((after.since, after.next), (Some(time("2026-05-06T13:00:00Z")), None));
}

#[test]
fn without_windows_the_default_member_has_the_peak_for_ever_or_nobody_has_it() {
    for (yaml, expected) in
        [("{}", "nobody by Default for ever"), ("{defaultMember: promo}", "promo by Default for ever")]
    {
        let calendar = calendar(yaml);
        assert_eq!(who(&calendar, "2026-05-04T09:00:00Z"), expected);
        let found = calendar.desired(None, time("2026-05-04T09:00:00Z"));
        assert_eq!((found.since, found.next), (None, None));
        let survey = calendar.survey(time("2026-05-04T09:00:00Z"));
        assert_eq!(
            (survey, calendar.has_windows()),
            (super::Survey::default(), false),
            "no windows, none missed"
        );
    }
}

#[test]
fn windows_that_cover_every_day_have_no_end_alone_or_together() {
    for yaml in [
        "windows: [{name: a, member: payment, window: {start: '08:00', end: '08:00', timeZone: UTC}}]",
        "
windows:
- {name: a, member: payment, window: {start: '08:00', end: '20:00', timeZone: Europe/Berlin}}
- {name: b, member: payment, window: {start: '20:00', end: '08:00', timeZone: Europe/Berlin}}
",
        "windows: [{name: a, member: payment, leadSeconds: 86400, window: {start: '08:00', end: '09:00', timeZone: UTC}}]",
    ] {
        let calendar = calendar(yaml);
        let found = calendar.desired(None, time("2026-05-04T09:00:00Z"));
        assert_eq!(
            (found.member.as_deref(), found.since, found.until),
            (Some("payment"), None, None),
            "{yaml}"
        );
        assert_eq!(found.next, None, "{yaml}");
    }
}

#[test]
fn a_window_that_opens_in_many_years_is_next() {
    let calendar = calendar(
        "windows: [{name: leap, member: payment, leadSeconds: 0, window: {cron: '0 0 29 2 *', durationSeconds: 60, timeZone: UTC}}]",
    );
    assert_eq!(switches(&calendar, "2096-03-01T00:00:00Z", 1), ["2104-02-29T00:00:00Z payment"]);
}

#[test]
fn at_the_ends_of_time_nothing_breaks() {
    for yaml in [
        DOUBLE_11,
        "windows: [{name: a, member: payment, leadSeconds: 86400, window: {cron: '59 23 * * *', durationSeconds: 604800, timeZone: Pacific/Pago_Pago}}]",
        "
windows:
- {name: a, member: payment, window: {start: '08:00', end: '10:00', timeZone: Pacific/Kiritimati}}
- {name: b, member: promo, window: {start: '20:00', end: '22:00', timeZone: Pacific/Kiritimati}}
",
    ] {
        let calendar = calendar(yaml);
        for now in [Timestamp::MIN, Timestamp::UNIX_EPOCH, Timestamp::MAX] {
            let found = calendar.desired(None, now);
            assert!(found.since.is_none_or(|since| since <= now), "{found:?}");
            assert!(found.until.is_none_or(|until| until > now), "{found:?}");
            assert!(found.next.is_none_or(|next| next.start > now));
            assert!(calendar.survey(now).conflict.is_none());
        }
    }
}
