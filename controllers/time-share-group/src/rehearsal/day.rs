//! What the coming day holds for a group: who has the peak when, and why.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use springtide_crds::time_share_group::TimeShareGroupSpec;
use springtide_plumbing::clock::after;
use springtide_plumbing::window::calendar::{Calendar, Cause, Desired};

/// How far a day is looked ahead.
const LENGTH: SignedDuration = SignedDuration::from_hours(24);
/// Most stretches of a day: windows that open more often are told up to there.
const PARTS_MAX: usize = 96;
/// Most dates on which no window starts that are named.
const DATES_MAX: usize = 5;
/// Where no window names a time zone.
const UTC: &str = "UTC";

/// The coming 24 hours of a group's schedule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Day {
    /// When it begins.
    pub from: Timestamp,
    /// When it ends.
    pub until: Timestamp,
    /// The time zone of the first window, in which the day is best told; UTC without windows.
    pub time_zone: String,
    /// Who has the peak, one after the other.
    pub parts: Vec<DayPart>,
    /// The next dates on which no window starts, from the first day on.
    pub skip_dates: Vec<String>,
    /// What is wrong with the schedule; empty where nothing is. Windows that meet far ahead hinder nothing yet.
    pub problem: String,
}

/// A time during which one member, or nobody, has the peak for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DayPart {
    /// The member; absent for nobody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    /// When it begins: a window with its lead, in which the switch goes on.
    pub from: Timestamp,
    /// When it ends, or the day does.
    pub until: Timestamp,
    /// `Override`, `Window` or `Default`.
    pub cause: &'static str,
    /// Name of the window; empty where none says so.
    pub window: String,
    /// When that window opens, or has opened; absent where none says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window_start: Option<Timestamp>,
}

/// The day of a schedule from now on. One that cannot be read has no parts.
pub fn day(spec: &TimeShareGroupSpec, now: Timestamp) -> Day {
    let schedule = &spec.schedule;
    let time_zone = schedule.windows.first().map_or(UTC, |window| &window.window.time_zone).to_owned();
    let mut day = Day {
        from: now,
        until: after(now, LENGTH),
        skip_dates: skip_dates(&schedule.skip_dates, &time_zone, now),
        time_zone,
        parts: Vec::new(),
        problem: String::new(),
    };
    let names = spec.members.iter().map(|member| member.name.as_str());
    match Calendar::parse(schedule, names) {
        Ok(calendar) => {
            day.problem =
                calendar.survey(now).conflict.map(|conflict| conflict.to_string()).unwrap_or_default();
            day.parts = parts(&calendar, spec, now, day.until);
        }
        Err(problem) => day.problem = problem.to_string(),
    }
    day
}

/// The word for a cause, as it stands in the status.
pub(super) fn cause(cause: Cause) -> &'static str {
    match cause {
        Cause::Override => "Override",
        Cause::Window => "Window",
        Cause::Default => "Default",
    }
}

fn parts(calendar: &Calendar, spec: &TimeShareGroupSpec, now: Timestamp, end: Timestamp) -> Vec<DayPart> {
    let mut parts: Vec<DayPart> = Vec::new();
    let mut from = now;
    while from < end && parts.len() < PARTS_MAX {
        let Desired { member, cause, window, window_start, until, .. } =
            calendar.desired(spec.override_.as_ref(), from);
        let until = until.filter(|until| *until > from).map_or(end, |until| until.min(end));
        parts.push(DayPart {
            member: member.as_deref().map(str::to_owned),
            from,
            until,
            cause: self::cause(cause),
            window: window.as_deref().unwrap_or_default().to_owned(),
            window_start,
        });
        from = until;
    }
    parts
}

/// The dates that are not past, in their order.
fn skip_dates(all: &[String], time_zone: &str, now: Timestamp) -> Vec<String> {
    let Ok(local) = now.in_tz(time_zone).or_else(|_| now.in_tz(UTC)) else { return Vec::new() };
    // Dates of this form are in the order of their texts.
    let today = local.date().to_string();
    let mut coming: Vec<String> = all.iter().filter(|date| **date >= today).cloned().collect();
    coming.sort_unstable();
    coming.truncate(DATES_MAX);
    coming
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::group;
    use serde_json::{Value, json};

    /// 2026-11-10, half past nine in the morning in Shanghai.
    const NOW: Timestamp = Timestamp::constant(1_794_274_200, 0);

    fn hours(hours: i64) -> Timestamp {
        NOW + SignedDuration::from_hours(hours)
    }

    fn of(spec: Value) -> Day {
        day(&group(json!({"spec": spec})).spec, NOW)
    }

    fn night() -> Value {
        json!({"defaultMember": "promo", "windows": [{
            "name": "night", "member": "pay", "leadSeconds": 1800,
            "window": {"start": "22:00", "end": "02:00", "timeZone": "Asia/Shanghai"},
        }]})
    }

    fn told(day: &Day) -> Vec<(Option<&str>, i64, i64, &str)> {
        let minutes = |at: Timestamp| at.duration_since(NOW).as_mins();
        let part = |part: &'_ DayPart| (minutes(part.from), minutes(part.until), part.cause);
        day.parts
            .iter()
            .map(|own| {
                let (from, until, cause) = part(own);
                (own.member.as_deref(), from, until, cause)
            })
            .collect()
    }

    #[test]
    fn a_day_is_who_has_the_peak_one_after_the_other() {
        let day = of(json!({"schedule": night()}));
        let expected = [
            (Some("promo"), 0, 12 * 60, "Default"),
            (Some("pay"), 12 * 60, 16 * 60 + 30, "Window"),
            (Some("promo"), 16 * 60 + 30, 24 * 60, "Default"),
        ];
        assert_eq!(told(&day), expected);
        let pay = &day.parts[1];
        assert_eq!(
            (pay.window.as_str(), pay.window_start),
            ("night", Some(hours(12) + SignedDuration::from_mins(30)))
        );
        assert_eq!((day.time_zone.as_str(), day.from, day.until), ("Asia/Shanghai", NOW, hours(24)));
    }

    #[test]
    fn an_override_goes_before_until_its_time() {
        let over = json!({"member": "pay", "untilTime": hours(2).to_string(), "reason": "INC-1"});
        let day = of(json!({"schedule": night(), "override": over}));
        assert_eq!(told(&day)[0], (Some("pay"), 0, 120, "Override"));
        assert_eq!(told(&day)[1], (Some("promo"), 120, 12 * 60, "Default"));
    }

    #[test]
    fn on_a_date_that_is_skipped_no_window_opens_and_past_dates_are_not_told() {
        let mut schedule = night();
        schedule["skipDates"] = json!(["2026-12-01", "2026-11-10", "2026-11-09"]);
        let day = of(json!({"schedule": schedule}));
        assert_eq!(told(&day), [(Some("promo"), 0, 24 * 60, "Default")]);
        assert_eq!(day.skip_dates, ["2026-11-10", "2026-12-01"]);
    }

    #[test]
    fn a_schedule_that_cannot_be_followed_says_why() {
        let zone = json!({"windows": [{
            "name": "night", "member": "pay", "window": {"start": "22:00", "end": "02:00", "timeZone": "Nowhere"},
        }]});
        let day = of(json!({"schedule": zone}));
        assert!(day.parts.is_empty() && day.problem.contains("windows[night]"), "{day:?}");
        let mut meets = night();
        let early = json!({"name": "early", "member": "promo", "window": {"start": "23:00", "end": "04:00", "timeZone": "Asia/Shanghai"}});
        meets["windows"].as_array_mut().unwrap().push(early);
        let day = of(json!({"schedule": meets}));
        assert!(!day.parts.is_empty() && day.problem.contains("night"), "{day:?}");
    }

    #[test]
    fn a_group_without_windows_has_one_part() {
        let day = of(json!({}));
        assert_eq!(told(&day), [(None, 0, 24 * 60, "Default")]);
        assert_eq!((day.time_zone.as_str(), day.problem.as_str()), ("UTC", ""));
    }
}
