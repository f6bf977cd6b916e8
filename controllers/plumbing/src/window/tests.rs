//! Windows by hand: what each rule means at the clocks' changes, and what is refused.

mod minutes;

use super::{Occurrence, Schedule, WindowError};
use jiff::Timestamp;
use jiff::tz::TimeZoneDatabase;
use serde_json::{Value, json};
use springtide_crds::common::Window;

fn window(value: Value) -> Window {
    serde_json::from_value(value).unwrap()
}

fn parse(value: Value) -> Result<Schedule, WindowError> {
    Schedule::parse(&window(value))
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// `start/end` in UTC.
fn show(occurrence: Option<Occurrence>) -> String {
    occurrence.map_or_else(|| "never".to_owned(), |it| format!("{}/{}", it.start, it.end))
}

/// The occurrences from a time on, at most four.
fn occurrences(schedule: &Schedule, from: &str) -> Vec<String> {
    let mut now = time(from);
    let mut shown = Vec::new();
    while let Some(next) = schedule.next_after(now).filter(|_| shown.len() < 4) {
        assert_eq!(schedule.occurrence_at(next.start), Some(next), "{next:?}");
        shown.push(show(Some(next)));
        now = next.start;
    }
    shown
}

#[test]
fn a_window_of_some_dates_opens_on_these_and_closes_for_good() {
    let schedule = parse(json!({
        "start": "00:00", "end": "02:00", "timeZone": "Asia/Shanghai", "dates": ["2026-11-11", "2026-06-18"],
    }))
    .unwrap();
    let (june, november) =
        ("2026-06-17T16:00:00Z/2026-06-17T18:00:00Z", "2026-11-10T16:00:00Z/2026-11-10T18:00:00Z");
    assert_eq!(occurrences(&schedule, "2026-01-01T00:00:00Z"), [june, november]);
    assert_eq!(schedule.occurrence_at(time("2026-11-10T15:59:59Z")), None);
    assert_eq!(show(schedule.occurrence_at(time("2026-11-10T16:00:00Z"))), november);
    assert_eq!(show(schedule.occurrence_at(time("2026-11-10T17:59:59.999Z"))), november);
    assert_eq!(schedule.occurrence_at(time("2026-11-10T18:00:00Z")), None);
    assert_eq!(schedule.next_after(time("2026-11-10T16:00:00Z")), None);
}

#[test]
fn an_end_at_or_before_the_start_is_on_the_next_day() {
    let night = parse(json!({"start": "22:00", "end": "06:00", "timeZone": "Asia/Shanghai"})).unwrap();
    let open = "2026-03-01T14:00:00Z/2026-03-01T22:00:00Z";
    assert_eq!(show(night.occurrence_at(time("2026-03-01T20:00:00Z"))), open);
    assert_eq!(
        show(night.next_after(time("2026-03-01T20:00:00Z"))),
        "2026-03-02T14:00:00Z/2026-03-02T22:00:00Z"
    );
    let ended = |at| show(night.last_ended(time(at), jiff::SignedDuration::from_hours(1)));
    assert_eq!(ended("2026-03-01T21:59:59Z"), "never");
    assert_eq!(ended("2026-03-01T22:00:00Z"), open);
    assert_eq!(ended("2026-03-01T22:59:59Z"), open);
    assert_eq!(ended("2026-03-01T23:00:00Z"), "never");
    // The date is that of the start.
    let dated = json!({
        "start": "22:00", "end": "06:00", "timeZone": "Asia/Shanghai", "dates": ["2026-03-01"],
    });
    assert_eq!(occurrences(&parse(dated).unwrap(), "2026-01-01T00:00:00Z"), [open]);
    let day = json!({"start": "20:00", "end": "20:00", "timeZone": "UTC", "dates": ["2026-11-10"]});
    assert_eq!(
        occurrences(&parse(day).unwrap(), "2026-01-01T00:00:00Z"),
        ["2026-11-10T20:00:00Z/2026-11-11T20:00:00Z"]
    );
}

#[test]
fn the_clocks_move_a_window_by_one_rule() {
    // Zone, date, start, end, what opens on it.
    let cases = [
        // 02:00 becomes 03:00 at 01:00Z.
        ("Europe/Berlin", "2026-03-29", "02:30", "04:00", "2026-03-29T01:00:00Z/2026-03-29T02:00:00Z"),
        ("Europe/Berlin", "2026-03-29", "01:00", "02:30", "2026-03-29T00:00:00Z/2026-03-29T01:00:00Z"),
        ("Europe/Berlin", "2026-03-29", "02:10", "02:50", "never"),
        ("Europe/Berlin", "2026-03-28", "03:00", "02:30", "2026-03-28T02:00:00Z/2026-03-29T01:00:00Z"),
        // 03:00 becomes 02:00 at 01:00Z.
        ("Europe/Berlin", "2026-10-25", "02:30", "02:45", "2026-10-25T00:30:00Z/2026-10-25T01:45:00Z"),
        ("Europe/Berlin", "2026-10-25", "01:30", "02:00", "2026-10-24T23:30:00Z/2026-10-25T01:00:00Z"),
        ("Europe/Berlin", "2026-10-25", "02:00", "03:00", "2026-10-25T00:00:00Z/2026-10-25T02:00:00Z"),
        // 03:00 becomes 01:00 at 01:00Z.
        ("Antarctica/Troll", "2010-10-31", "00:00", "01:00", "2010-10-30T22:00:00Z/2010-10-31T01:00:00Z"),
        // 02:00 becomes 03:00 at 07:00Z.
        ("America/New_York", "2026-03-08", "02:00", "03:30", "2026-03-08T07:00:00Z/2026-03-08T07:30:00Z"),
        ("America/New_York", "2026-03-08", "02:00", "03:00", "never"),
        // 02:00 becomes 01:00 at 06:00Z.
        ("America/New_York", "2026-11-01", "01:15", "01:30", "2026-11-01T05:15:00Z/2026-11-01T06:30:00Z"),
        // 02:00 becomes 02:30 at 15:30Z of the day before.
        ("Australia/Lord_Howe", "2026-10-04", "02:15", "03:00", "2026-10-03T15:30:00Z/2026-10-03T16:00:00Z"),
        // 02:00 becomes 01:30 at 15:00Z of the day before.
        ("Australia/Lord_Howe", "2026-04-05", "01:45", "01:50", "2026-04-04T14:45:00Z/2026-04-04T15:20:00Z"),
        // The 30th was left out: midnight after the 29th was midnight before the 31st, at 10:00Z.
        ("Pacific/Apia", "2011-12-29", "22:00", "02:00", "2011-12-30T08:00:00Z/2011-12-30T10:00:00Z"),
        ("Pacific/Apia", "2011-12-30", "08:00", "20:00", "never"),
        ("Pacific/Apia", "2011-12-30", "23:00", "01:00", "2011-12-30T10:00:00Z/2011-12-30T11:00:00Z"),
        ("Pacific/Apia", "2011-12-31", "00:00", "01:00", "2011-12-30T10:00:00Z/2011-12-30T11:00:00Z"),
        // At 00:01 the clocks went back to 23:01 of the day before, at 02:31Z.
        ("America/St_Johns", "2009-11-01", "00:00", "01:00", "2009-11-01T02:30:00Z/2009-11-01T04:30:00Z"),
    ];
    for (zone, date, start, end, expected) in cases {
        let schedule = parse(json!({"start": start, "end": end, "timeZone": zone, "dates": [date]})).unwrap();
        let opens = show(schedule.next_after(time("2009-01-01T00:00:00Z")));
        assert_eq!(opens, expected, "{zone} {date} {start}-{end}");
    }
}

#[test]
fn a_cron_expression_follows_local_time_and_lasts_its_seconds() {
    // Zone, cron, seconds, from, the next occurrences.
    let cases: [(&str, &str, u32, &str, &[&str]); 8] = [
        (
            "Asia/Shanghai",
            "30 1 * * 6",
            1800,
            "2026-11-10T00:00:00Z",
            &["2026-11-13T17:30:00Z/2026-11-13T18:00:00Z", "2026-11-20T17:30:00Z/2026-11-20T18:00:00Z"],
        ),
        (
            "America/New_York",
            "30 2 * * *",
            3600,
            "2026-03-08T00:00:00Z",
            &["2026-03-08T07:00:00Z/2026-03-08T08:00:00Z", "2026-03-09T06:30:00Z/2026-03-09T07:30:00Z"],
        ),
        (
            "America/New_York",
            "30 1 * * *",
            3600,
            "2026-11-01T00:00:00Z",
            &["2026-11-01T05:30:00Z/2026-11-01T06:30:00Z", "2026-11-02T06:30:00Z/2026-11-02T07:30:00Z"],
        ),
        // Both of the skipped half hour open at its end, as one.
        (
            "Australia/Lord_Howe",
            "0,15 2 4 10 *",
            900,
            "2026-10-01T00:00:00Z",
            &["2026-10-03T15:30:00Z/2026-10-03T15:45:00Z"],
        ),
        // Longer than a day, over a change of the clocks.
        (
            "Europe/Berlin",
            "0 0 28 3 *",
            172_800,
            "2026-01-01T00:00:00Z",
            &["2026-03-27T23:00:00Z/2026-03-29T23:00:00Z"],
        ),
        // Overlapping ones are one; touching ones too.
        (
            "UTC",
            "0 8,9,10 1 5 *",
            5400,
            "2026-01-01T00:00:00Z",
            &["2026-05-01T08:00:00Z/2026-05-01T11:30:00Z"],
        ),
        (
            "UTC",
            "0 0 1-3 5 *",
            86_400,
            "2026-01-01T00:00:00Z",
            &["2026-05-01T00:00:00Z/2026-05-04T00:00:00Z"],
        ),
        // 2100 has no leap day.
        ("UTC", "0 0 29 2 *", 60, "2096-03-01T00:00:00Z", &["2104-02-29T00:00:00Z/2104-02-29T00:01:00Z"]),
    ];
    for (zone, cron, seconds, from, expected) in cases {
        let schedule = parse(json!({"cron": cron, "durationSeconds": seconds, "timeZone": zone})).unwrap();
        let shown = occurrences(&schedule, from);
        assert_eq!(shown[..expected.len()], *expected, "{zone} {cron}");
    }
}

#[test]
fn dates_choose_among_the_days_of_a_cron_expression() {
    let schedule = parse(json!({
        "cron": "0 12 * * 6", "durationSeconds": 60, "timeZone": "UTC", "dates": ["2026-11-13", "2026-11-14"],
    }))
    .unwrap();
    assert_eq!(occurrences(&schedule, "2026-01-01T00:00:00Z"), ["2026-11-14T12:00:00Z/2026-11-14T12:01:00Z"]);
}

#[test]
fn what_stays_open_for_more_than_a_year_is_open_for_ever() {
    let always = [
        json!({"start": "08:00", "end": "08:00", "timeZone": "Europe/Berlin"}),
        json!({"cron": "*/5 * * * *", "durationSeconds": 300, "timeZone": "UTC"}),
        json!({"cron": "* * * * *", "durationSeconds": 604_800, "timeZone": "America/New_York"}),
    ];
    let now = time("2026-06-01T00:00:00Z");
    for window in always {
        let schedule = parse(window.clone()).unwrap();
        let ever = Occurrence { start: Timestamp::UNIX_EPOCH, end: Timestamp::MAX };
        assert_eq!(schedule.occurrence_at(now), Some(ever), "{window}");
        assert_eq!(schedule.next_after(now), None, "{window}");
    }
}

#[test]
fn a_doubled_hour_is_a_gap_between_hourly_windows() {
    let hourly =
        parse(json!({"cron": "0 * * * *", "durationSeconds": 3600, "timeZone": "America/New_York"})).unwrap();
    assert_eq!(
        show(hourly.occurrence_at(time("2026-06-01T00:00:00Z"))),
        "2025-11-02T07:00:00Z/2026-11-01T06:00:00Z"
    );
    // The next one lasts 371 days, which shows when its end is less than a year away.
    let next = hourly.next_after(time("2026-06-01T00:00:00Z")).unwrap();
    assert_eq!((next.start, next.end), (time("2026-11-01T07:00:00Z"), Timestamp::MAX));
    assert_eq!(
        show(hourly.occurrence_at(time("2026-11-20T00:00:00Z"))),
        "2026-11-01T07:00:00Z/2027-11-07T06:00:00Z"
    );
}

#[test]
fn what_is_wrong_names_the_field_and_the_remedy() {
    let cron = |cron: &str| json!({"cron": cron, "durationSeconds": 60, "timeZone": "UTC"});
    let dated = |date: &str| json!({"start": "00:00", "end": "01:00", "timeZone": "UTC", "dates": [date]});
    let cases = [
        (json!({"start": "00:00", "end": "01:00", "timeZone": "Asia/Shangai"}), "timeZone: \"Asia/Shangai\""),
        (json!({"start": "24:00", "end": "01:00", "timeZone": "UTC"}), "start: \"24:00\" is no time of day"),
        (json!({"start": "00:00", "end": "noon", "timeZone": "UTC"}), "end: \"noon\" is no time of day"),
        (json!({"timeZone": "UTC"}), "give either start and end, or cron and durationSeconds"),
        (json!({"start": "00:00", "timeZone": "UTC"}), "give either"),
        (json!({"cron": "* * * * *", "end": "01:00", "timeZone": "UTC"}), "give either"),
        (cron("61 * * * *"), "cron: \"61 * * * *\" is not understood"),
        (cron("* * * *"), "cron: \"* * * *\" is not understood (4 fields instead of 5)"),
        (cron("0 0 * * * *"), "cron: \"0 0 * * * *\" is not understood (6 fields instead of 5)"),
        (cron("@daily"), "cron: \"@daily\" is not understood (1 fields instead of 5)"),
        (cron("a b c d e"), "cron: \"a b c d e\" is not understood"),
        (cron("0 0 30 2 *"), "cron: \"0 0 30 2 *\" matches no day of the calendar"),
        (cron("0 , * * *"), "cron: \"0 , * * *\" matches no day of the calendar"),
        (
            json!({"cron": "0 0 * * *", "durationSeconds": 0, "timeZone": "UTC"}),
            "durationSeconds: 0 is out of bounds",
        ),
        (dated("2026-02-30"), "dates: \"2026-02-30\" is no date"),
        (dated("11.11.2026"), "dates: \"11.11.2026\" is no date"),
        (
            json!({"start": "00:00", "end": "01:00", "timeZone": "UTC", "dates": []}),
            "dates: the list is empty",
        ),
        (
            json!({"cron": "0 0 * * 6", "durationSeconds": 60, "timeZone": "UTC", "dates": ["2026-11-13"]}),
            "dates: cron \"0 0 * * 6\" opens the window on none of them",
        ),
    ];
    for (value, expected) in cases {
        let message = parse(value.clone()).unwrap_err().to_string();
        assert!(message.starts_with(expected), "{value}: {message}");
    }
}

#[test]
fn at_the_ends_of_time_nothing_breaks() {
    for value in [
        json!({"start": "08:00", "end": "07:00", "timeZone": "Pacific/Kiritimati"}),
        json!({"cron": "59 23 * * *", "durationSeconds": 604_800, "timeZone": "Pacific/Pago_Pago"}),
        json!({"cron": "0 0 29 2 *", "durationSeconds": 60, "timeZone": "Europe/Berlin"}),
    ] {
        let schedule = parse(value).unwrap();
        for now in [Timestamp::MIN, Timestamp::UNIX_EPOCH, Timestamp::MAX] {
            let open = schedule.occurrence_at(now);
            assert!(open.is_none_or(|it| it.start <= now && now <= it.end && it.start < it.end), "{open:?}");
            assert!(schedule.next_after(now).is_none_or(|next| next.start > now));
        }
    }
}

#[test]
fn the_program_brings_its_own_time_zones() {
    let zone = TimeZoneDatabase::bundled().get("Asia/Shanghai").unwrap();
    assert_eq!(zone.to_offset(time("2026-11-11T00:00:00Z")).seconds(), 8 * 3600);
}
