//! Random windows at random times, against a look at every minute around them.

use super::window;
use crate::window::{Occurrence, Schedule, WindowError};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use proptest::collection::btree_set;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::json;
use std::collections::BTreeSet;

const DAY: i64 = 24 * 60;
/// Days that are looked at before and after the time; windows here last two days at most.
const DAYS_BEFORE: i64 = 7;
const DAYS_AFTER: i64 = 6;
/// Days at the beginning in which windows are not known that opened before.
const MARGIN: i64 = 4;

const ZONES: [&str; 22] = [
    "UTC",
    "Asia/Shanghai",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Europe/Dublin",
    "Africa/Casablanca",
    "Africa/Cairo",
    "America/Sao_Paulo",
    "America/St_Johns",
    "America/Santiago",
    "America/Havana",
    "Asia/Kathmandu",
    "Asia/Tehran",
    "Asia/Gaza",
    "Asia/Pyongyang",
    "Antarctica/Troll",
    "Pacific/Chatham",
    "Pacific/Kiritimati",
    "Pacific/Pago_Pago",
    "Etc/GMT+12",
];

/// A window as sets, so that the test needs no parser.
#[derive(Clone, Debug)]
enum Form {
    Daily { start: i64, end: i64 },
    Cron { minutes: BTreeSet<i64>, hours: BTreeSet<i64>, weekdays: Option<BTreeSet<i64>>, seconds: u32 },
}

#[derive(Clone, Debug)]
struct Case {
    zone: &'static str,
    now: Timestamp,
    form: Form,
    /// Days from the one of `now`.
    dates: Option<BTreeSet<i64>>,
}

fn forms() -> impl Strategy<Value = Form> {
    let daily = (0..DAY, 0..DAY).prop_map(|(start, end)| Form::Daily { start, end });
    let minutes = prop_oneof![btree_set(0..60_i64, 1..4), Just((0..60).step_by(10).collect())];
    let hours = prop_oneof![btree_set(0..24_i64, 1..4), Just((0..24).collect())];
    let weekdays = proptest::option::of(btree_set(0..7_i64, 1..4));
    let seconds = prop_oneof![60..7200_u32, 60..172_800_u32];
    let cron = (minutes, hours, weekdays, seconds).prop_map(|(minutes, hours, weekdays, seconds)| {
        // Whole minutes, as minutes are looked at.
        Form::Cron { minutes, hours, weekdays, seconds: seconds / 60 * 60 }
    });
    prop_oneof![daily, cron]
}

fn cases() -> impl Strategy<Value = Case> {
    let seconds = 946_684_800..2_145_916_800_i64; // 2000 to 2037
    let dates = proptest::option::weighted(0.3, btree_set(-3..4_i64, 1..4));
    (select(ZONES.as_slice()), seconds, any::<bool>(), -2 * 86_400..2 * 86_400_i64, forms(), dates).prop_map(
        |(zone, second, at_change, shift, form, dates)| {
            let mut now = Timestamp::from_second(second).unwrap();
            // Where the clocks change is where mistakes are.
            if at_change && let Some(change) = TimeZone::get(zone).unwrap().following(now).next() {
                now = change.timestamp() + SignedDuration::from_secs(shift);
            }
            Case { zone, now, form, dates }
        },
    )
}

/// What the clocks show in each minute around a time, and whether the window is open then.
struct Minutes {
    first: i64,
    open: Vec<bool>,
}

impl Minutes {
    fn look(case: &Case) -> Self {
        let zone = TimeZone::get(case.zone).unwrap();
        let now = case.now.as_second().div_euclid(60);
        let first = now - DAYS_BEFORE * DAY;
        let count = usize::try_from((DAYS_BEFORE + DAYS_AFTER) * DAY).unwrap();
        let shown = local_minutes(&zone, first, count);
        // The highest that has been shown so far, and the lowest that will be: both never fall.
        let mut so_far = shown.clone();
        let mut to_come = shown.clone();
        for i in 1..count {
            so_far[i] = so_far[i].max(so_far[i - 1]);
            to_come[count - 1 - i] = to_come[count - 1 - i].min(to_come[count - i]);
        }
        // A time has come when the clocks first show it or a later one.
        let opens = |local: i64| so_far.partition_point(|shown| *shown < local);
        // It is over when they show it for the last time; one that they leave out, when they show no earlier one any more.
        let closes = |local: i64| {
            let last_shown = shown.iter().rposition(|shown| *shown == local);
            last_shown.unwrap_or_else(|| to_come.partition_point(|shown| *shown < local))
        };
        let mut open = vec![false; count];
        let mut mark = |from: usize, until: usize| {
            if from < until.min(count) {
                open[from..until.min(count)].fill(true);
            }
        };
        for day in shown[0].div_euclid(DAY)..=shown[count - 1].div_euclid(DAY) {
            if case.dates.is_some() && !chosen_days(case).contains(&day) {
                continue;
            }
            match &case.form {
                Form::Daily { start, end } => {
                    let last = if end <= start { day + 1 } else { day };
                    mark(opens(day * DAY + start), closes(last * DAY + end));
                }
                Form::Cron { minutes, hours, weekdays, seconds } => {
                    if weekdays.as_ref().is_some_and(|days| !days.contains(&weekday(day))) {
                        continue;
                    }
                    for (hour, minute) in hours.iter().flat_map(|h| minutes.iter().map(move |m| (h, m))) {
                        let start = opens(day * DAY + hour * 60 + minute);
                        mark(start, start + usize::try_from(seconds / 60).unwrap());
                    }
                }
            }
        }
        Self { first, open }
    }

    fn index(&self, at: Timestamp) -> Option<usize> {
        let index = usize::try_from(at.as_second().div_euclid(60) - self.first).ok()?;
        (index < self.open.len()).then_some(index)
    }

    fn margin() -> usize {
        usize::try_from(MARGIN * DAY).unwrap()
    }
}

/// Local time in minutes since 1970 for each minute of UTC; the offset is looked up by the hour, and by the
/// minute where it changes.
fn local_minutes(zone: &TimeZone, first: i64, count: usize) -> Vec<i64> {
    let offset = |minute: i64| {
        let at = Timestamp::from_second(minute * 60).unwrap();
        i64::from(zone.to_offset(at).seconds()).div_euclid(60)
    };
    let mut shown = Vec::with_capacity(count);
    while shown.len() < count {
        let hour = first + i64::try_from(shown.len()).unwrap();
        let (now, next) = (offset(hour), offset(hour + 60));
        shown.extend((hour..hour + 60).map(|minute| minute + if now == next { now } else { offset(minute) }));
    }
    shown.truncate(count);
    shown
}

/// Sunday is 0, as in cron; 1970 began on a Thursday.
fn weekday(day: i64) -> i64 {
    (day + 4).rem_euclid(7)
}

/// The window's dates, in days since 1970.
fn chosen_days(case: &Case) -> BTreeSet<i64> {
    let zone = TimeZone::get(case.zone).unwrap();
    let local = case.now.as_second() + i64::from(zone.to_offset(case.now).seconds());
    case.dates.iter().flatten().map(|days| local.div_euclid(86_400) + days).collect()
}

fn schedule(case: &Case) -> Result<Schedule, WindowError> {
    let list = |set: &BTreeSet<i64>| set.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let mut value = match &case.form {
        Form::Daily { start, end } => {
            let time = |minute: &i64| format!("{:02}:{:02}", minute / 60, minute % 60);
            json!({"start": time(start), "end": time(end)})
        }
        Form::Cron { minutes, hours, weekdays, seconds } => {
            let weekdays = weekdays.as_ref().map_or_else(|| "*".to_owned(), list);
            json!({
                "cron": format!("{} {} * * {weekdays}", list(minutes), list(hours)), "durationSeconds": seconds,
            })
        }
    };
    value["timeZone"] = json!(case.zone);
    if case.dates.is_some() {
        let date =
            |day: &i64| (Date::constant(1970, 1, 1) + SignedDuration::from_hours(day * 24)).to_string();
        value["dates"] = json!(chosen_days(case).iter().map(date).collect::<Vec<_>>());
    }
    Schedule::parse(&window(value))
}

/// Whether the occurrence is open in each minute of what was looked at, and in neither of those beside it.
fn agrees(minutes: &Minutes, occurrence: Occurrence) -> Result<(), TestCaseError> {
    if minutes.index(occurrence.start).is_none() && occurrence.start.as_second() / 60 > minutes.first {
        return Ok(()); // Later than what was looked at.
    }
    let from = minutes.index(occurrence.start).unwrap_or(0).max(Minutes::margin());
    let until = minutes.index(occurrence.end).unwrap_or(minutes.open.len());
    prop_assert!(minutes.open[from..until].iter().all(|open| *open), "a gap in {occurrence:?}");
    if minutes.index(occurrence.start).is_some_and(|start| start > Minutes::margin()) {
        prop_assert!(!minutes.open[from - 1], "open before {occurrence:?}");
    }
    if until < minutes.open.len() {
        prop_assert!(!minutes.open[until], "open after {occurrence:?}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_schedule_says_what_a_look_at_every_minute_says(case in cases()) {
        let minutes = Minutes::look(&case);
        let schedule = match schedule(&case) {
            Ok(schedule) => schedule,
            Err(WindowError::NoDateMatches(_)) => {
                prop_assert!(minutes.open.iter().all(|open| !*open));
                return Ok(());
            }
            Err(error) => return Err(TestCaseError::fail(error.to_string())),
        };
        let now = minutes.index(case.now).unwrap();
        let current = schedule.occurrence_at(case.now);
        prop_assert_eq!(current.is_some(), minutes.open[now]);
        if let Some(current) = current {
            prop_assert!(current.contains(case.now) && current.start < current.end);
            agrees(&minutes, current)?;
        }
        let closed_from = current.map_or(Some(now), |current| minutes.index(current.end));
        let next = schedule.next_after(case.now);
        let closed_until = next.map_or(Some(minutes.open.len()), |next| minutes.index(next.start));
        if let Some(next) = next {
            prop_assert!(next.start > case.now && next.start < next.end);
            prop_assert!(current.is_none_or(|current| current.end < next.start));
            prop_assert_eq!(schedule.occurrence_at(next.start).map(|it| it.start), Some(next.start));
            agrees(&minutes, next)?;
        }
        let within = SignedDuration::from_hours(24);
        let ended = schedule.last_ended(case.now, within);
        if let Some(ended) = ended {
            prop_assert!(ended.end <= case.now && case.now.duration_since(ended.end) < within);
            prop_assert!(current.is_none_or(|current| ended.end < current.start));
            agrees(&minutes, ended)?;
        }
        // The minutes in which it closed, of those that end by now.
        let day = now - usize::try_from(DAY).unwrap()..now;
        let mut closings = day.filter(|at| minutes.open[*at] && !minutes.open[at + 1]).map(|at| at + 1);
        prop_assert_eq!(closings.next_back(), ended.and_then(|ended| minutes.index(ended.end)));
        if let Some(from) = closed_from {
            let until = closed_until.unwrap_or(minutes.open.len());
            prop_assert!(minutes.open[from..until].iter().all(|open| !*open), "missed before {:?}", next);
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic(cron in "[0-9*/,LW#?+ A-Za-z\\-]{0,24}", zone in "[A-Za-z/+_\\-]{0,20}") {
        let of = |cron: &str, zone: &str| {
            Schedule::parse(&window(json!({"cron": cron, "durationSeconds": 60, "timeZone": zone})))
        };
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        for cron in [cron.clone(), format!("0 0 {cron}"), format!("0 {cron} * * *"), format!("0 0 * * {cron}")] {
            if let Ok(schedule) = of(&cron, "UTC") {
                prop_assert!(schedule.next_after(now).is_none_or(|next| next.start > now));
            }
        }
        prop_assert!(of("0 0 * * *", &zone).is_ok() || !["UTC", "GMT"].contains(&zone.as_str()));
    }
}
