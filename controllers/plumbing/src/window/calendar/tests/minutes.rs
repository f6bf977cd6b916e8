//! Random schedules at random times, against a look at every fifth minute around them: all times here are of that grid.

use super::super::PeakTimes;
use super::*;
use crate::window::{Occurrence, WindowError};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

const STEP: i64 = 300;
const STEPS_BEFORE: i64 = 36 * 12;
const STEPS_AFTER: i64 = 48 * 12;
/// Steps beyond the last one in which a window may open whose lead is looked at.
const LONGEST_LEAD: i64 = 24;

/// Their clocks change on the grid.
const ZONES: [&str; 13] = [
    "UTC",
    "Asia/Shanghai",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Africa/Cairo",
    "America/Sao_Paulo",
    "America/Santiago",
    "America/Havana",
    "Asia/Kathmandu",
    "Antarctica/Troll",
    "Pacific/Chatham",
];

/// A window by steps of five minutes.
#[derive(Clone, Debug)]
struct Window {
    member: usize,
    zone: &'static str,
    /// Since midnight.
    start: i64,
    length: i64,
    lead: i64,
    /// Weekdays of a cron expression; `None`: a window of start and end.
    weekdays: Option<BTreeSet<i64>>,
}

#[derive(Clone, Debug)]
struct Case {
    now: Timestamp,
    default: Option<usize>,
    windows: Vec<Window>,
    /// Days from the one of `now`, by UTC.
    skipped: BTreeSet<i64>,
    /// For whom, and how many steps from the one of `now`.
    over: Option<(Option<usize>, i64)>,
}

impl Window {
    fn value(&self) -> Value {
        let time = |steps: i64| format!("{:02}:{:02}", steps / 12 % 24, steps % 12 * 5);
        match &self.weekdays {
            None => {
                json!({"start": time(self.start), "end": time(self.start + self.length), "timeZone": self.zone})
            }
            Some(days) => {
                let days: Vec<String> = days.iter().map(ToString::to_string).collect();
                let (minute, hour) = (self.start % 12 * 5, self.start / 12);
                json!({
                    "cron": format!("{minute} {hour} * * {}", days.join(",")), "durationSeconds": self.length * STEP,
                    "timeZone": self.zone,
                })
            }
        }
    }
}

impl Case {
    fn first(&self) -> i64 {
        (self.now.as_second().div_euclid(STEP) - STEPS_BEFORE) * STEP
    }

    /// The instant of a step.
    fn at(&self, step: usize) -> Timestamp {
        Timestamp::from_second(self.first() + i64::try_from(step).unwrap() * STEP).unwrap()
    }

    fn dates(&self, days: impl IntoIterator<Item = i64>) -> Vec<Date> {
        let today = TimeZone::UTC.to_datetime(self.now).date();
        days.into_iter().map(|day| today + SignedDuration::from_hours(day * 24)).collect()
    }

    fn schedule(&self) -> Schedule {
        let windows: Vec<Value> = self.windows.iter().enumerate().map(|(place, window)| {
            json!({
                "name": format!("w{place}"), "member": MEMBERS[window.member], "leadSeconds": window.lead * STEP,
                "window": window.value(),
            })
        }).collect();
        let dates: Vec<String> = self.dates(self.skipped.clone()).iter().map(ToString::to_string).collect();
        serde_json::from_value(json!({
            "defaultMember": self.default.map(|member| MEMBERS[member]), "skipDates": dates, "windows": windows,
        }))
        .unwrap()
    }

    /// The override while it is in force.
    fn forced(&self) -> Option<Override> {
        let (member, steps) = self.over?;
        let step = usize::try_from(STEPS_BEFORE + steps).unwrap();
        let until = Some(self.at(step)).filter(|until| self.now < *until)?;
        Some(super::forced(member.map(|member| MEMBERS[member]), &until.to_string()))
    }
}

fn windows() -> impl Strategy<Value = Window> {
    let length = prop_oneof![1..48_i64, 1..200_i64];
    let weekdays = option::of(btree_set(0..7_i64, 1..5));
    (0..MEMBERS.len(), select(ZONES.as_slice()), 0..288_i64, length, 0..=LONGEST_LEAD, weekdays).prop_map(
        |(member, zone, start, length, lead, weekdays)| Window {
            member,
            zone,
            start,
            length,
            lead,
            weekdays,
        },
    )
}

fn cases() -> impl Strategy<Value = Case> {
    let second = 946_684_800..2_145_916_800_i64; // 2000 to 2037
    let shift = option::of(-86_400..86_400_i64);
    let over = option::of((option::of(0..MEMBERS.len()), -100..400_i64));
    let skipped = btree_set(-2..3_i64, 0..3);
    (second, shift, option::of(0..MEMBERS.len()), vec(windows(), 0..4), skipped, over).prop_map(
        |(second, shift, default, windows, skipped, over)| {
            let mut now = Timestamp::from_second(second).unwrap();
            // Where the clocks change is where mistakes are.
            if let (Some(shift), Some(window)) = (shift, windows.first())
                && let Some(change) = TimeZone::get(window.zone).unwrap().following(now).next()
            {
                now = change.timestamp() + SignedDuration::from_secs(shift);
            }
            Case { now, default, windows, skipped, over }
        },
    )
}

/// What a look at every step says.
struct Steps {
    /// Whether each member is claimed, by steps.
    claimed: Vec<[bool; MEMBERS.len()]>,
    /// The step of `now`.
    now: usize,
}

impl Steps {
    fn look(case: &Case) -> Self {
        let now = usize::try_from(STEPS_BEFORE).unwrap();
        let count = usize::try_from(STEPS_BEFORE + STEPS_AFTER).unwrap();
        let mut claimed = vec![[false; MEMBERS.len()]; count];
        let step = |at: Timestamp| (at.as_second() - case.first()).div_euclid(STEP);
        let place = |step: i64| usize::try_from(step.max(0)).unwrap().min(count);
        for window in &case.windows {
            let parsed = crate::window::Schedule::parse(&serde_json::from_value(window.value()).unwrap());
            let schedule = parsed.unwrap().except(&case.dates(case.skipped.clone())).unwrap();
            let mut at = 0;
            while at < count + usize::try_from(LONGEST_LEAD).unwrap() {
                let Some(open) = schedule.occurrence_at(case.at(at)) else {
                    at += 1;
                    continue;
                };
                let end = if open.end == Timestamp::MAX { i64::MAX } else { step(open.end) };
                for step in &mut claimed[place(step(open.start) - window.lead)..place(end)] {
                    step[window.member] = true;
                }
                at = usize::try_from(end).unwrap_or(usize::MAX);
            }
        }
        Self { claimed, now }
    }

    /// Whether members meet, from now on or at any step.
    fn meet(&self, from: usize) -> bool {
        self.claimed[from..].iter().any(|step| step.iter().filter(|is_claimed| **is_claimed).count() > 1)
    }

    /// Who is desired in each step, and why.
    fn desired(&self, case: &Case) -> Vec<(Option<usize>, Cause)> {
        let until = case.forced().map(|over| (case.over.unwrap().0, over.until_time.0));
        let at = |(step, claimed): (usize, &[bool; MEMBERS.len()])| match until {
            Some((member, until)) if case.at(step) < until => (member, Cause::Override),
            Some(_) | None => match claimed.iter().position(|is_claimed| *is_claimed) {
                Some(member) => (Some(member), Cause::Window),
                None => (case.default, Cause::Default),
            },
        };
        self.claimed.iter().enumerate().map(at).collect()
    }
}

fn place(member: Option<&Arc<str>>) -> Option<usize> {
    member.map(|member| MEMBERS.iter().position(|name| **name == **member).unwrap())
}

/// Whether a time that is said is that of the step; where no step has it, it lies beyond all of them.
fn agrees(
    case: &Case,
    said: Option<Timestamp>,
    step: Option<usize>,
    count: usize,
) -> Result<(), TestCaseError> {
    match step {
        Some(step) => prop_assert_eq!(said, Some(case.at(step))),
        None => prop_assert!(said.is_none_or(|said| said >= case.at(count)), "{said:?}"),
    }
    Ok(())
}

fn agrees_with_peaks(
    case: &Case,
    steps: &Steps,
    peaks: &PeakTimes,
    is_on: &[bool],
) -> Result<(), TestCaseError> {
    let (now, count) = (steps.now, is_on.len());
    let current = peaks.occurrence_at(case.now);
    prop_assert_eq!(current.is_some(), is_on[now]);
    let ends = (now + 1..count).find(|step| !is_on[*step]);
    if let Some(Occurrence { start, end }) = current {
        prop_assert!(start <= case.now && case.now < end);
        agrees(case, Some(end), ends, count)?;
        let starts = (0..=now).rev().take_while(|step| is_on[*step]).last().unwrap();
        if starts > 0 && case.forced().is_none() {
            prop_assert_eq!(start, case.at(starts));
        }
    }
    let starts = (now + 1..count).find(|step| is_on[*step] && !is_on[step - 1]);
    let next = peaks.next_after(case.now);
    agrees(case, next.map(|next| next.start), starts, count)?;
    if let (Some(next), Some(starts)) = (next, starts) {
        prop_assert!(next.start < next.end);
        agrees(case, Some(next.end), (starts..count).find(|step| !is_on[*step]), count)?;
    }
    if case.forced().is_none() {
        let ended = peaks.last_ended(case.now, SignedDuration::from_hours(24));
        let ends = (1..=now).rev().find(|step| is_on[step - 1] && !is_on[*step]);
        let ends = ends.map(|step| case.at(step));
        let ends = ends.filter(|end| case.now.duration_since(*end) < SignedDuration::from_hours(24));
        prop_assert_eq!(ended.map(|ended| ended.end), ends);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_calendar_says_what_a_look_at_every_step_says(case in cases()) {
        let calendar = Arc::new(Calendar::parse(&case.schedule(), MEMBERS).unwrap());
        let steps = Steps::look(&case);
        let found = calendar.desired(case.forced().as_ref(), case.now);
        let survey = calendar.survey(case.now);
        prop_assert!(survey.conflict.is_some() || !steps.meet(steps.now), "a meeting is missed");
        if steps.meet(0) {
            return Ok(());
        }
        let desired = steps.desired(&case);
        let (now, count) = (steps.now, desired.len());
        prop_assert_eq!((place(found.member.as_ref()), found.cause), desired[now]);
        let changes = (now + 1..count).find(|step| desired[*step] != desired[now]);
        agrees(&case, found.until, changes, count)?;
        let switches = (now + 1..count).find(|step| desired[*step].0 != desired[now].0);
        agrees(&case, found.next.as_ref().map(|next| next.start), switches, count)?;
        if let (Some(next), Some(switches)) = (&found.next, switches) {
            prop_assert_eq!(place(next.member.as_ref()), desired[switches].0);
        }
        if found.cause == Cause::Override {
            prop_assert_eq!(found.since, None);
        } else {
            let since = (0..=now).rev().take_while(|step| desired[*step] == desired[now]).last().unwrap();
            let is_seen = since > 0;
            prop_assert!(found.since.is_none_or(|since| since <= case.now));
            prop_assert!(!is_seen || found.since == Some(case.at(since)), "{:?}", found.since);
            prop_assert!(is_seen || found.since.is_none_or(|since| since <= case.at(0)), "{:?}", found.since);
        }
        for member in [None, Some(0_usize), Some(1), Some(2)] {
            let peaks = calendar.peaks(member.map(|member| MEMBERS[member]), case.forced().as_ref());
            let is_peak = |(desired, cause): &(Option<usize>, Cause)| {
                *cause != Cause::Default && desired.is_some() && (member.is_none() || *desired == member)
            };
            let is_on: Vec<bool> = desired.iter().map(is_peak).collect();
            agrees_with_peaks(&case, &steps, &peaks.unwrap(), &is_on)?;
        }
    }

    #[test]
    fn what_skips_some_dates_opens_on_all_others(case in cases(), window in windows()) {
        let schedule = |dates: Option<Vec<Date>>| {
            let mut value = window.value();
            if let Some(dates) = dates {
                value["dates"] = json!(dates.iter().map(ToString::to_string).collect::<Vec<_>>());
            }
            crate::window::Schedule::parse(&serde_json::from_value(value).unwrap())
        };
        let skipping = schedule(None).unwrap().except(&case.dates(case.skipped.clone())).unwrap();
        let others = (-9..10).filter(|day| !case.skipped.contains(day));
        let chosen = match schedule(Some(case.dates(others))) {
            Ok(chosen) => Some(chosen),
            Err(WindowError::NoDateMatches(_)) => None,
            Err(error) => return Err(TestCaseError::fail(error.to_string())),
        };
        for step in (0..usize::try_from(STEPS_BEFORE + STEPS_AFTER).unwrap()).step_by(3) {
            let at = case.at(step);
            let is_open = chosen.as_ref().is_some_and(|chosen| chosen.occurrence_at(at).is_some());
            prop_assert_eq!(skipping.occurrence_at(at).is_some(), is_open, "{}", at);
        }
    }
}
