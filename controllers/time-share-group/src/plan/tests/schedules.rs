//! Windows and overrides: a switch begins when it is due, whoever looked on, and the way is that of the latest wish.

use super::world::{Stage, World};
use crate::fixtures::at;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use springtide_crds::time_share_group::{TransitionCause, TransitionResult};

/// Seconds from the beginning to an instant.
fn seconds(instant: Timestamp) -> i64 {
    instant.as_second() - at(0).as_second()
}

/// The first full minute that is at least so many seconds after now.
fn minute(world: &World, after: i64) -> Timestamp {
    let earliest = at(world.now + after).as_second();
    Timestamp::from_second((earliest / 60 + 1) * 60).unwrap()
}

/// A window of a member that opens then for so many minutes each day.
fn window(name: &str, member: &str, start: Timestamp, minutes: i64, lead: u32) -> Value {
    let time = |at: Timestamp| at.strftime("%H:%M").to_string();
    let end = start + SignedDuration::from_mins(minutes);
    let window = json!({"start": time(start), "end": time(end), "timeZone": "UTC"});
    json!({"name": name, "member": member, "leadSeconds": lead, "window": window})
}

/// Two nodes with two units each, and a window of `promo` in an hour, with a lead of ten minutes.
fn with_window() -> (World, Timestamp) {
    let mut world = World::settled(2, [2, 2], json!({}));
    let start = minute(&world, 3600);
    world.edit(json!({"schedule": {"windows": [window("night", "promo", start, 120, 600)]}}));
    (world, start)
}

#[track_caller]
fn assert_at_peak(world: &World, member: &str) {
    let other = if member == "pay" { "promo" } else { "pay" };
    assert_eq!(
        (world.stages(member), world.stages(other)),
        ([4, 0, 0], [0, 4, 0]),
        "{:#}",
        world.group["status"]
    );
    assert_eq!(world.status().active_member.as_deref(), Some(member));
}

#[test]
fn a_switch_begins_to_the_second_when_the_lead_of_its_window_does_and_goes_back_when_it_ends() {
    let (mut world, start) = with_window();
    world.until("the next switch is told", |world| world.status().next_transition.is_some());
    let next = world.status().next_transition.unwrap();
    let begins = start - SignedDuration::from_secs(600);
    assert_eq!((next.member.as_deref(), next.start_time.0), (Some("promo"), begins));
    world.until("it opens", |world| world.status().transition.unwrap().id == 2);
    assert_eq!(world.status().transition.unwrap().start_time.0, begins);
    assert_eq!(world.status().transition.unwrap().cause, TransitionCause::Window);
    world.until("the window is open", |world| at(world.now) >= start);
    assert_at_peak(&world, "promo");
    world.until("it goes back", |world| world.status().transition.unwrap().id == 3);
    let back = world.status().transition.unwrap();
    let end = start + SignedDuration::from_mins(120);
    assert_eq!((back.start_time.0, back.cause), (end, TransitionCause::Default));
    world.run_for(600);
    assert_at_peak(&world, "pay");
}

#[test]
fn who_was_not_there_at_the_start_begins_at_once() {
    let (mut world, start) = with_window();
    world.run_for(60);
    world.crash();
    world.now = seconds(start) + 300;
    world.step();
    world.until("it opens", |world| world.status().transition.unwrap().id == 2);
    let late = seconds(world.status().transition.unwrap().start_time.0) - seconds(start) - 300;
    assert!((0..=3).contains(&late), "{late} s");
    world.run_for(300);
    assert_at_peak(&world, "promo");
    // And one who was away for all of the window does nothing for it.
    let transition = world.status().transition.unwrap().id;
    world.crash();
    world.now = seconds(start) + 3 * 3600;
    world.run_for(600);
    assert_at_peak(&world, "pay");
    assert_eq!(world.status().transition.unwrap().id, transition + 1);
}

#[test]
fn a_window_on_a_date_that_is_skipped_does_not_open() {
    let (mut world, start) = with_window();
    let date = start.strftime("%F").to_string();
    world.edit(json!({"schedule": {"skipDates": [date]}}));
    world.now = seconds(start) - 600;
    world.run_for(1800);
    assert_at_peak(&world, "pay");
    // The next day is another one.
    world.now = seconds(start) + 86_400;
    world.run_for(600);
    assert_at_peak(&world, "promo");
}

#[test]
fn windows_that_follow_each_other_with_nobody_between_leave_the_room_to_others() {
    let mut world = World::settled(2, [2, 2], json!({}));
    let (first, second) = (minute(&world, 1800), minute(&world, 3 * 3600));
    let windows = [window("a", "promo", first, 60, 0), window("b", "promo", second, 60, 0)];
    world.edit(json!({"schedule": {"defaultMember": null, "windows": windows}}));
    world.run_for(600);
    assert_eq!((world.stages("pay"), world.stages("promo")), ([0, 4, 0], [0, 4, 0]));
    for start in [first, second] {
        world.now = world.now.max(seconds(start) - 5);
        world.run_for(300);
        assert_at_peak(&world, "promo");
        world.now = seconds(start) + 3600;
        world.run_for(300);
        assert_eq!((world.stages("promo"), world.status().active_member), ([0, 4, 0], None));
    }
}

#[test]
fn windows_of_two_members_that_meet_are_told_of_and_whoever_has_the_peak_keeps_it() {
    let mut world = World::settled(2, [2, 2], json!({}));
    let start = minute(&world, 60);
    let windows = [window("a", "promo", start, 60, 0), window("b", "pay", start, 30, 0)];
    world.edit(json!({"schedule": {"windows": windows}}));
    world.until("it is told", |world| world.reason("Stalled") == "InvalidSchedule");
    assert_eq!(world.reason("ScheduleValid"), "WindowsOverlap");
    world.run_for(7200);
    assert_at_peak(&world, "pay");
    assert_eq!(world.status().transition.unwrap().id, 1);
    let lead = [
        window("a", "promo", minute(&world, 7200), 60, 3600),
        window("b", "pay", minute(&world, 4200), 30, 0),
    ];
    world.edit(json!({"schedule": {"windows": lead}}));
    world.until("it is told", |world| world.reason("ScheduleValid") == "LeadOverlapsWindow");
    world.edit(json!({"schedule": {"windows": []}}));
    world.until("it is well", |world| world.reason("ScheduleValid") == "NoWindows");
    assert_eq!(world.reason("Stalled"), "");
}

#[test]
fn an_override_gives_the_peak_at_once_and_takes_it_back_when_it_is_over() {
    let mut world = World::settled(2, [2, 2], json!({}));
    let until = world.now + 900;
    world.give_until(Some("promo"), until);
    world.run_for(600);
    assert_at_peak(&world, "promo");
    world.until("it goes back", |world| world.status().transition.unwrap().id == 3);
    assert_eq!(seconds(world.status().transition.unwrap().start_time.0), until);
    world.run_for(300);
    assert_at_peak(&world, "pay");
    // One whose time is past has no effect.
    world.give_until(Some("promo"), until);
    world.run_for(600);
    assert_at_peak(&world, "pay");
    assert_eq!(world.status().transition.unwrap().id, 3);
}

#[test]
fn an_override_that_ends_in_mid_switch_takes_back_what_was_done_and_nothing_else() {
    let mut world = World::settled(3, [1, 1], json!({"switch": {"maxInFlightUnits": 1}}));
    world.give(Some("promo"));
    world.until("one is done and one has begun", |world| {
        world.serving("promo") == 1 && world.serving("pay") == 1
    });
    let untouched: Vec<String> =
        world.pods_of("pay").into_iter().filter(|name| world.writes_of(name).is_empty()).collect();
    world.group["spec"]["override"] = Value::Null;
    world.edit(json!({}));
    world.rest();
    assert_eq!((world.stages("pay"), world.stages("promo")), ([3, 0, 0], [0, 3, 0]));
    for name in &untouched {
        assert!(world.writes_of(name).is_empty(), "{name}");
    }
    assert_eq!(untouched.len(), 1);
    let status = world.status();
    let transition = status.transition.unwrap();
    let ends = (transition.from.as_deref(), transition.to.as_deref(), transition.cause);
    assert_eq!(ends, (Some("promo"), Some("pay"), TransitionCause::Default));
    assert_eq!(status.last_transitions[1].result, TransitionResult::Superseded);
    assert_eq!((status.active_member.as_deref(), world.reason("Ready").as_str()), (Some("pay"), "Settled"));
}

#[test]
fn an_override_that_is_replaced_in_mid_switch_leads_to_the_last_one_that_was_named() {
    // A third member comes, whose pods are on the same nodes.
    let switch = json!({"switch": {"maxInFlightUnits": 1}});
    let mut world = World::settled(3, [1, 1], switch).with_room(200);
    world.add_member("games", 3, &crate::fixtures::member("games"));
    world.rest();
    assert_eq!(world.stages("games"), [0, 3, 0], "{:#}", world.group["status"]);
    world.give(Some("promo"));
    world.until("one is done and one has begun", |world| {
        world.serving("promo") == 1 && world.serving("pay") == 1
    });
    world.give(Some("games"));
    world.rest();
    let stages = ["pay", "promo", "games"].map(|member| world.stages(member));
    assert_eq!(stages, [[0, 3, 0], [0, 3, 0], [3, 0, 0]], "{:#}", world.group["status"]);
    assert_eq!(world.status().active_member.as_deref(), Some("games"));
    for name in world.pods.keys() {
        assert!(world.writes_of(name).len() <= 4, "{name}: {:?}", world.writes_of(name));
    }
}

#[test]
fn pods_of_who_has_part_of_the_peak_and_is_to_have_none_shrink_within_the_limits_too() {
    let switch = json!({"switch": {"maxInFlightUnits": 1}});
    let mut world = World::settled(4, [1, 1], switch).with_room(200);
    world.add_member("games", 4, &crate::fixtures::member("games"));
    world.rest();
    world.give(Some("promo"));
    world.until("three are done", |world| world.count("promo", Stage::Peak) == 3);
    let serves = |world: &World, name: &String| {
        world.pods[name]["metadata"]["labels"]["springtide.dev/traffic-serving"] == "true"
    };
    let served: Vec<String> =
        world.pods_of("promo").into_iter().filter(|name| serves(&world, name)).collect();
    world.give(Some("games"));
    let mut most = 0;
    world.until("games has the peak", |world| {
        let is_out = |name: &&String| !serves(world, name) && world.stage(name) != Stage::Valley;
        most = most.max(served.iter().filter(is_out).count());
        world.status().active_member.as_deref() == Some("games")
    });
    assert_eq!(served.len(), 3);
    assert_eq!(most, 1);
    world.rest();
    let stages = ["pay", "promo", "games"].map(|member| world.stages(member));
    assert_eq!(stages, [[0, 4, 0], [0, 4, 0], [4, 0, 0]], "{:#}", world.group["status"]);
}

#[test]
fn what_was_rolled_back_in_a_window_is_tried_again_in_the_next_one() {
    let mut world = World::settled(2, [2, 2], json!({"switch": {"onStuck": "Rollback"}}));
    let start = minute(&world, 600);
    world.edit(json!({"schedule": {"windows": [window("night", "promo", start, 60, 0)]}}));
    world.now = seconds(start) - 5;
    let slow = world.pods_of("promo");
    world.oddities.slow.extend(slow);
    world.until("it has rolled back", |world| world.reason("Stalled") == "RolledBack");
    world.oddities.slow.clear();
    world.run_for(1800);
    assert_at_peak(&world, "pay");
    assert_eq!(world.reason("Stalled"), "RolledBack");
    // It is over with its window.
    world.now = seconds(start) + 3600;
    world.run_for(300);
    assert_eq!((world.reason("Stalled").as_str(), world.reason("Ready").as_str()), ("", "Settled"));
    world.now = seconds(start) + 86_400;
    world.run_for(600);
    assert_at_peak(&world, "promo");
}
