//! Windows of a TimeShareGroup, by the clock: a switch begins when its lead does, whoever leads the managers by then, and
//! batch work has the room of those that are off stage, and is gone when they need it.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail as a test does")]

mod batch_work;
mod starts;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// The first full minute that is at least so many seconds away.
fn minute_after(seconds: i64) -> Timestamp {
    let earliest = (Timestamp::now() + SignedDuration::from_secs(seconds)).as_second();
    Timestamp::from_second((earliest / 60 + 1) * 60).unwrap()
}

/// A window of a member that opens then for so many minutes each day.
fn window(member: &str, start: Timestamp, minutes: i64, lead: u32) -> Value {
    let end = start + SignedDuration::from_mins(minutes);
    let [start, end] = [start, end].map(|at| at.strftime("%H:%M").to_string());
    let window = json!({"start": start, "end": end, "timeZone": "UTC"});
    json!({"name": format!("of-{member}"), "member": member, "leadSeconds": lead, "window": window})
}
