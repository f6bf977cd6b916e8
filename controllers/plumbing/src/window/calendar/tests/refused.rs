//! What is wrong with a schedule, by its field and with the remedy; what meets, and what is left open.

use super::super::{CalendarMemo, Survey};
use super::*;
use crate::window::Occurrence;
use std::sync::Arc;

fn conflict(yaml: &str, now: &str) -> Option<String> {
    let found = Calendar::compile(&schedule(yaml), MEMBERS, time(now)).map(|_| ());
    assert_eq!(found.as_ref().err(), calendar(yaml).survey(time(now)).conflict.as_ref());
    found.err().map(|problem| problem.to_string())
}

#[test]
fn what_is_wrong_at_any_time_names_the_field_and_the_remedy() {
    let window = |window: &str| format!("windows: [{{name: a, member: payment, window: {window}}}]");
    let cases = [
        (
            window("{start: '08:00', end: '09:00', timeZone: Mars/Olympus}"),
            "schedule.windows[a].window.timeZone: \"Mars/Olympus\" is not in the time zone database; use an IANA name",
        ),
        (
            window("{cron: '0 0 30 2 *', durationSeconds: 60, timeZone: UTC}"),
            "schedule.windows[a].window.cron: \"0 0 30 2 *\" matches no day of the calendar; change",
        ),
        (
            window("{cron: '0 0 * * 6', durationSeconds: 60, timeZone: UTC, dates: ['2026-11-13']}"),
            "schedule.windows[a].window.dates: cron \"0 0 * * 6\" opens the window on none of them; change",
        ),
        (
            format!(
                "{{skipDates: ['2026-11-11'], {}}}",
                window("{start: '08:00', end: '09:00', timeZone: UTC, dates: ['2026-11-11']}")
            ),
            "schedule.windows[a].window.dates: all of them are skipped; change one of the two lists",
        ),
        (
            window("{cron: '61 0 * * *', durationSeconds: 60, timeZone: UTC}"),
            "schedule.windows[a].window: cron: \"61 0 * * *\" is not understood",
        ),
        (window("{timeZone: UTC}"), "schedule.windows[a].window: give either start and end, or cron"),
        (
            "skipDates: ['2026-02-30']".to_owned(),
            "schedule.skipDates: \"2026-02-30\" is no date; use YYYY-MM-DD",
        ),
        (
            "defaultMember: x".to_owned(),
            "schedule.defaultMember: there is no member x; name one of spec.members",
        ),
        (
            "windows: [{name: a, member: x, window: {start: '08:00', end: '09:00', timeZone: UTC}}]"
                .to_owned(),
            "schedule.windows[a].member: there is no member x; name one of spec.members",
        ),
    ];
    for (yaml, expected) in cases {
        let problem = parse(&yaml).unwrap_err();
        assert!(problem.to_string().starts_with(expected), "{yaml}: {problem}");
        assert_eq!(problem.begins(), None);
    }
}

#[test]
fn windows_of_two_members_that_are_open_at_one_time_are_refused_by_name_and_time() {
    let yaml = "
windows:
- {name: day, member: payment, window: {start: '08:00', end: '20:00', timeZone: UTC, dates: ['2026-05-04']}}
- {name: late, member: promo, window: {start: '19:00', end: '21:00', timeZone: UTC}}
";
    assert_eq!(
        conflict(yaml, "2026-05-01T00:00:00Z").unwrap(),
        "schedule.windows: day (payment) and late (promo) are both open from 2026-05-04T19:00:00Z to \
         2026-05-04T20:00:00Z; change times or dates of one"
    );
    assert!(conflict(yaml, "2026-05-04T19:59:59Z").is_some(), "not over yet");
    assert_eq!(conflict(yaml, "2026-05-04T20:00:00Z"), None, "what is over is no trouble any more");
    // The one that began first goes on meanwhile.
    let found = calendar(yaml).desired(None, time("2026-05-04T19:30:00Z"));
    assert_eq!((found.member.as_deref(), found.until), (Some("payment"), Some(time("2026-05-04T20:00:00Z"))));
    assert_eq!(found.next.unwrap().member.as_deref(), Some("promo"));
}

#[test]
fn windows_that_meet_only_in_summer_time_are_found_half_a_year_ahead() {
    let yaml = "
windows:
- {name: a, member: payment, leadSeconds: 0, window: {start: '13:00', end: '14:00', timeZone: UTC}}
- {name: b, member: promo, leadSeconds: 0, window: {start: '09:00', end: '10:00', timeZone: America/New_York}}
";
    let found = calendar(yaml).survey(time("2025-11-10T00:00:00Z")).conflict.unwrap();
    assert_eq!(found.begins(), Some(time("2026-03-08T13:00:00Z")));
}

#[test]
fn windows_that_meet_in_more_than_400_days_are_found_later() {
    let yaml = "
windows:
- {name: a, member: payment, window: {start: '08:00', end: '20:00', timeZone: UTC, dates: ['2028-11-11']}}
- {name: b, member: promo, window: {start: '19:00', end: '21:00', timeZone: UTC, dates: ['2028-11-11']}}
";
    assert_eq!(conflict(yaml, "2027-10-01T00:00:00Z"), None);
    assert!(conflict(yaml, "2027-10-10T00:00:00Z").is_some());
}

#[test]
fn a_lead_that_reaches_into_the_window_of_another_is_refused_with_the_longest_that_does_not() {
    let yaml = |lead: u32| {
        format!(
            "
windows:
- {{name: first, member: payment, window: {{start: '08:00', end: '10:00', timeZone: UTC}}}}
- {{name: second, member: promo, leadSeconds: {lead}, window: {{start: '10:05', end: '12:00', timeZone: UTC}}}}
"
        )
    };
    assert_eq!(
        conflict(&yaml(600), "2026-05-04T00:00:00Z").unwrap(),
        "schedule.windows: the lead of second (promo) begins at 2026-05-04T09:55:00Z, and first (payment) is open until \
         2026-05-04T10:00:00Z; set leadSeconds to 300 at most, or move one"
    );
    assert_eq!(conflict(&yaml(300), "2026-05-04T00:00:00Z"), None);
    // A lead that covers the whole of the other window, which comes first in the list of claims then.
    let found = conflict(&yaml(10_000), "2026-05-04T00:00:00Z").unwrap();
    assert!(
        found.contains("the lead of second (promo) begins at 2026-05-04T07:18:20Z, and first"),
        "{found}"
    );
}

#[test]
fn gaps_are_told_by_the_shortest_one() {
    let yaml = "
windows:
- {name: day, member: payment, window: {start: '06:00', end: '18:00', timeZone: UTC}}
- {name: night, member: promo, window: {start: '18:30', end: '05:00', timeZone: UTC}}
";
    let now = "2026-05-04T12:00:00Z";
    let gap = Occurrence { start: time("2026-05-04T18:00:00Z"), end: time("2026-05-04T18:20:00Z") };
    assert_eq!(calendar(yaml).survey(time(now)), Survey { shortest_gap: Some(gap), ..Survey::default() });
    assert_eq!(who(&calendar(yaml), "2026-05-04T18:10:00Z"), "nobody by Default until 2026-05-04T18:20:00Z");
    let covered = yaml.replace("member: promo,", "member: promo, leadSeconds: 1800,");
    let gap = Occurrence { start: time("2026-05-05T05:00:00Z"), end: time("2026-05-05T05:50:00Z") };
    assert_eq!(calendar(&covered).survey(time(now)).shortest_gap, Some(gap));
}

#[test]
fn a_schedule_whose_last_window_is_past_is_over_and_followed_all_the_same() {
    let yaml = "
defaultMember: promo
windows:
- {name: sale, member: payment, window: {start: '08:00', end: '20:00', timeZone: UTC, dates: ['2026-05-04']}}
";
    let is_over = |now: &str| calendar(yaml).survey(time(now)).is_over;
    assert_eq!([is_over("2026-05-04T19:59:59Z"), is_over("2026-05-04T20:00:00Z")], [false, true]);
    assert_eq!(conflict(yaml, "2026-05-04T20:00:00Z"), None);
    assert_eq!(
        who(&calendar(yaml), "2026-05-04T20:00:00Z"),
        "promo by Default for ever",
        "the way back is open"
    );
}

#[test]
fn windows_that_open_every_minute_are_looked_at_within_bounds() {
    let often = "
windows:
- {name: a, member: payment, leadSeconds: 0, window: {cron: '*/2 * * * *', durationSeconds: 60, timeZone: UTC}}
- {name: b, member: promo, leadSeconds: 0, window: {cron: '1-59/2 * * * *', durationSeconds: 60, timeZone: UTC}}
";
    assert_eq!(calendar(often).survey(time("2026-05-04T00:00:00Z")), Survey::default());
    assert_eq!(who(&calendar(often), "2026-05-04T00:00:30Z"), "payment by Window until 2026-05-04T00:01:00Z");
}

#[test]
fn a_calendar_is_made_anew_for_another_schedule_and_looked_through_anew_after_a_day() {
    let mut memo = CalendarMemo::default();
    let (first, second) = (schedule("{}"), schedule("{defaultMember: promo}"));
    let now = time("2026-05-04T00:00:00Z");
    let hours = |hours| now + SignedDuration::from_hours(hours);
    let found = memo.get(&first, &MEMBERS, now).unwrap();
    let mut is_kept = |schedule: &Schedule, members: &[&str], now| {
        Arc::ptr_eq(&memo.get(schedule, members, now).unwrap(), &found)
    };
    assert!(is_kept(&first, &MEMBERS, hours(23)));
    assert!(!is_kept(&first, &MEMBERS, hours(24)));
    let found = memo.get(&first, &MEMBERS, now).unwrap();
    let mut is_kept = |schedule: &Schedule, members: &[&str], now| {
        Arc::ptr_eq(&memo.get(schedule, members, now).unwrap(), &found)
    };
    assert!(!is_kept(&first, &MEMBERS, hours(-1)), "the clock was set back");
    let found = memo.get(&first, &MEMBERS, now).unwrap();
    assert!(!Arc::ptr_eq(&memo.get(&second, &MEMBERS, now).unwrap(), &found));
    let found = memo.get(&second, &MEMBERS, now).unwrap();
    assert!(!Arc::ptr_eq(&memo.get(&second, &MEMBERS[1..], now).unwrap(), &found));
    assert!(memo.get(&second, &MEMBERS[..1], now).is_err(), "promo is not there");
    assert!(memo.get(&second, &MEMBERS[..1], hours(1)).is_err());
}
