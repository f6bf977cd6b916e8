//! Windows of groups, by the clock.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// The first full minute that is at least so many seconds away.
#[must_use]
pub fn minute_after(seconds: i64) -> Timestamp {
    let minute = SignedDuration::from_mins(1).as_secs();
    let earliest = Timestamp::now().as_second().saturating_add(seconds);
    let next = (earliest / minute + 1) * minute;
    // The present has a next minute.
    Timestamp::from_second(next).unwrap_or(Timestamp::MAX)
}

/// A window of a member that opens then for so many minutes each day.
#[must_use]
pub fn window(member: &str, start: Timestamp, minutes: i64, lead_seconds: i64) -> Value {
    let end = start + SignedDuration::from_mins(minutes);
    let [start, end] = [start, end].map(|at| at.strftime("%H:%M").to_string());
    let window = json!({"start": start, "end": end, "timeZone": "UTC"});
    json!({"name": format!("of-{member}"), "member": member, "leadSeconds": lead_seconds, "window": window})
}

/// A window of a member that opens then of each day by a cron expression, for so many seconds.
#[must_use]
pub fn cron_window(member: &str, start: Timestamp, seconds: i64, lead_seconds: i64) -> Value {
    let cron = start.strftime("%-M %-H * * *").to_string();
    let window = json!({"cron": cron, "durationSeconds": seconds, "timeZone": "UTC"});
    json!({"name": format!("of-{member}"), "member": member, "leadSeconds": lead_seconds, "window": window})
}

/// A window of a member whose switch is looked at by now with the preflight's usual lead, and is far from due.
#[must_use]
pub fn far_window(member: &str) -> Value {
    window(member, minute_after(90 * 60), 60, 600)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_opens_at_a_full_minute_of_each_day() {
        let start = minute_after(30);
        let away = start.duration_since(Timestamp::now()).as_secs();
        assert!(start.as_second() % 60 == 0 && (25..=90).contains(&away), "{away} s");
        let midnight = Timestamp::from_second(1_767_225_480).unwrap();
        let window = window("pay", midnight, 2, 20);
        assert_eq!(
            (&window["window"]["start"], &window["window"]["end"]),
            (&json!("23:58"), &json!("00:00"))
        );
        assert_eq!((&window["member"], &window["leadSeconds"]), (&json!("pay"), &json!(20)));
    }
}
