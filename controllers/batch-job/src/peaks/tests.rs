//! Peaks by hand: what each rule means for phases, tiers, drains and ramps.

mod draining;
mod groups;
mod random;

use super::{Action, OVERRIDE_NAME, PeakState, Peaks, Phase};
use jiff::{SignedDuration, Timestamp};
use springtide_crds::batch_queue::PeakWindowActiveReason;
use springtide_crds::batch_queue::peaks::{PeakOverride, PeakWindow};
use springtide_crds::common::Tier;
use springtide_plumbing::key::Uid;

pub(super) fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn seconds(seconds: i64) -> SignedDuration {
    SignedDuration::from_secs(seconds)
}

fn peaks(windows: &str, forced: Option<&str>) -> Peaks {
    let windows: Vec<PeakWindow> = serde_yaml::from_str(windows).unwrap();
    let forced: Option<PeakOverride> = forced.map(|forced| serde_yaml::from_str(forced).unwrap());
    Peaks::new(&Uid("queue-1".into()), &windows, forced.as_ref())
}

/// From midnight to two, after ten minutes of lead.
const MIDNIGHT: &str = "
- name: midnight
  window: {start: '00:00', end: '02:00', timeZone: UTC, dates: ['2026-11-11']}
  actions: [{tier: Standard, action: Degrade, percent: 30}, {tier: BestEffort, action: Drain}]
";

fn at(peaks: &Peaks, text: &str) -> PeakState {
    peaks.at(time(text), None)
}

#[test]
fn a_peak_goes_from_lead_to_ramp() {
    let peaks = peaks(MIDNIGHT, None);
    let expected = [
        ("2026-11-10T23:49:59Z", Phase::Idle, PeakWindowActiveReason::Idle),
        ("2026-11-10T23:50:00Z", Phase::Draining, PeakWindowActiveReason::Draining),
        ("2026-11-10T23:59:59Z", Phase::Draining, PeakWindowActiveReason::Draining),
        ("2026-11-11T00:00:00Z", Phase::Closed, PeakWindowActiveReason::Closed),
        ("2026-11-11T01:59:59Z", Phase::Closed, PeakWindowActiveReason::Closed),
        ("2026-11-11T02:00:00Z", Phase::Ramping, PeakWindowActiveReason::Ramping),
        ("2026-11-11T02:09:59Z", Phase::Ramping, PeakWindowActiveReason::Ramping),
        ("2026-11-11T02:11:00Z", Phase::Idle, PeakWindowActiveReason::Idle),
    ];
    for (now, phase, reason) in expected {
        let state = at(&peaks, now);
        assert_eq!((state.phase, state.reason), (phase, reason), "{now}");
        assert_eq!(state.active.is_some(), phase != Phase::Idle, "{now}");
    }
}

#[test]
fn each_tier_has_its_action_from_the_lead_to_the_end() {
    let peaks = peaks(MIDNIGHT, None);
    for now in ["2026-11-10T23:50:00Z", "2026-11-11T01:59:59Z"] {
        let state = at(&peaks, now);
        let (best_effort, standard) = (state.tier(Tier::BestEffort), state.tier(Tier::Standard));
        assert_eq!((best_effort.action, best_effort.may_start()), (Action::Drain, false), "{now}");
        assert_eq!((standard.action, standard.percent), (Action::Degrade { percent: 30 }, Some(30)), "{now}");
        assert!(standard.may_start() && standard.drain.is_some(), "{now}");
        assert_eq!(state.tier(Tier::Guaranteed).action, Action::None, "{now}");
    }
    let before = at(&peaks, "2026-11-10T23:49:59Z");
    assert_eq!(
        (before.tier(Tier::BestEffort).action, before.tier(Tier::Standard).percent),
        (Action::None, None)
    );
    let after = at(&peaks, "2026-11-11T02:00:00Z");
    assert!(after.tier(Tier::BestEffort).may_start() && after.tier(Tier::BestEffort).ramp.is_some());
    assert_eq!(after.tier(Tier::Guaranteed).ramp, None);
}

#[test]
fn the_status_tells_of_this_peak_and_of_the_next() {
    let peaks = peaks(MIDNIGHT, None);
    let before = at(&peaks, "2026-11-10T12:00:00Z").next.unwrap().status();
    assert_eq!(
        serde_json::to_value(before).unwrap(),
        serde_json::json!({
            "name": "midnight", "startTime": "2026-11-11T00:00:00Z", "endTime": "2026-11-11T02:00:00Z",
        })
    );
    let during = at(&peaks, "2026-11-11T00:30:00Z");
    assert_eq!(
        serde_json::to_value(during.active.unwrap().status(31)).unwrap(),
        serde_json::json!({
            "name": "midnight", "startTime": "2026-11-11T00:00:00Z", "endTime": "2026-11-11T02:00:00Z",
            "podsLeft": 31,
        })
    );
    assert_eq!(during.next, None);
    assert_eq!(during.message, "peak midnight lasts until 2026-11-11T02:00:00Z");
}

#[test]
fn it_wakes_at_every_edge() {
    let peaks = peaks(MIDNIGHT, None);
    let mut now = time("2026-11-10T12:00:00Z");
    let mut wakes = Vec::new();
    while let Some(wake) = peaks.at(now, None).wake {
        assert!(wake > now);
        wakes.push(wake);
        now = wake;
    }
    let edges =
        ["2026-11-10T23:00:00Z", "2026-11-10T23:50:00Z", "2026-11-11T00:00:00Z", "2026-11-11T02:00:00Z"];
    assert_eq!(wakes[..4], edges.map(time));
    // The jitter, then every second of the ramp.
    let begins = wakes[4];
    assert!(begins.duration_since(wakes[3]) <= seconds(60));
    assert_eq!(wakes[5..], (1..=600).map(|second| begins + seconds(second)).collect::<Vec<_>>()[..]);
}

#[test]
fn hold_starts_nothing_while_the_peak_lasts_and_ends_nothing() {
    let peaks = peaks(
        "
- name: noon
  window: {start: '12:00', end: '13:00', timeZone: UTC}
  actions: [{tier: Standard, action: Hold}]
",
        None,
    );
    let lead = at(&peaks, "2026-11-11T11:59:59Z");
    assert_eq!(lead.phase, Phase::Idle);
    assert!(lead.tier(Tier::Standard).may_start());
    let closed = at(&peaks, "2026-11-11T12:00:00Z");
    let tier = closed.tier(Tier::Standard);
    assert_eq!((closed.phase, tier.may_start(), tier.drain), (Phase::Closed, false, None));
    // Nothing will be interrupted, so that nothing has to be done before.
    assert!(lead.would_finish(Tier::Standard, Some(seconds(86_400)), time("2026-11-11T11:59:59Z")));
}

const OVERLAPPING: &str = "
- name: long
  window: {start: '00:00', end: '06:00', timeZone: UTC, dates: ['2026-11-11']}
  actions: [{tier: Standard, action: Degrade, percent: 50}, {tier: BestEffort, action: Hold}]
  drainPodsPerSecond: 10
- name: short
  window: {start: '01:00', end: '02:00', timeZone: UTC, dates: ['2026-11-11']}
  actions: [{tier: Standard, action: Degrade, percent: 20}, {tier: BestEffort, action: Drain}]
- name: late
  window: {start: '01:30', end: '03:00', timeZone: UTC, dates: ['2026-11-11']}
  actions: [{tier: Standard, action: Hold}]
";

#[test]
fn where_peaks_overlap_the_strongest_holds_in_every_respect() {
    let peaks = peaks(OVERLAPPING, None);
    let tiers = |text: &str| {
        let state = at(&peaks, text);
        let (best_effort, standard) = (state.tier(Tier::BestEffort), state.tier(Tier::Standard));
        (best_effort.action, standard.action, standard.percent)
    };
    let degrade = |percent| Action::Degrade { percent };
    assert_eq!(tiers("2026-11-11T00:30:00Z"), (Action::Hold, degrade(50), Some(50)));
    assert_eq!(tiers("2026-11-11T00:50:00Z"), (Action::Drain, degrade(20), Some(20)));
    // Hold is the stronger, but what runs stays within its part.
    assert_eq!(tiers("2026-11-11T01:45:00Z"), (Action::Drain, Action::Hold, Some(20)));
    assert_eq!(tiers("2026-11-11T02:30:00Z"), (Action::Hold, Action::Hold, Some(50)));
    assert_eq!(tiers("2026-11-11T05:00:00Z"), (Action::Hold, degrade(50), Some(50)));
    // Each tier is drained as the peak says for which its pods have to go.
    let state = at(&peaks, "2026-11-11T00:55:00Z");
    let drain = state.tier(Tier::BestEffort).drain.unwrap();
    assert_eq!((drain.start, drain.pods_per_second), (Some(time("2026-11-11T01:00:00Z")), 50));
    let drain = state.tier(Tier::Standard).drain.unwrap();
    assert_eq!((drain.start, drain.pods_per_second), (Some(time("2026-11-11T01:00:00Z")), 50));
    let drain = at(&peaks, "2026-11-11T02:30:00Z").tier(Tier::Standard).drain.unwrap();
    assert_eq!((drain.start, drain.pods_per_second), (Some(time("2026-11-11T00:00:00Z")), 10));
    // What happens goes before what is.
    assert_eq!((state.phase, &*state.active.unwrap().name), (Phase::Draining, "short"));
    let state = at(&peaks, "2026-11-11T01:45:00Z");
    assert_eq!((state.phase, &*state.active.unwrap().name), (Phase::Closed, "long"));
}

#[test]
fn the_next_lead_cuts_a_ramp() {
    let peaks = peaks(
        "
- name: hourly
  window: {cron: '0 * * * *', durationSeconds: 1800, timeZone: UTC}
  actions: [{tier: BestEffort, action: Drain}]
  resume: {rampSeconds: 3600, jitterSeconds: 0}
",
        None,
    );
    let ramping = at(&peaks, "2026-11-11T00:49:59Z");
    assert_eq!(ramping.phase, Phase::Ramping);
    let ramp = ramping.tier(Tier::BestEffort).ramp.unwrap();
    assert_eq!(ramp.room(3600, 0), 1199);
    let cut = at(&peaks, "2026-11-11T00:50:00Z");
    assert_eq!((cut.phase, cut.tier(Tier::BestEffort).may_start()), (Phase::Draining, false));
}

#[test]
fn a_ramp_fills_what_was_free_by_an_even_slope() {
    let peaks =
        peaks(&MIDNIGHT.replace("- name", "- resume: {rampSeconds: 100, jitterSeconds: 0}\n  name"), None);
    let room = |second: i64, free, started| {
        let state = peaks.at(time("2026-11-11T02:00:00Z") + seconds(second), None);
        state.tier(Tier::BestEffort).ramp.map(|ramp| ramp.room(free, started))
    };
    assert_eq!(room(0, 1000, 0), Some(0));
    assert_eq!(room(1, 1000, 0), Some(10));
    // What runs already counts, so that the same question a moment later gives nothing twice.
    assert_eq!(room(1, 990, 10), Some(0));
    assert_eq!(room(50, 990, 10), Some(490));
    // What was started and has ended makes room for others.
    assert_eq!(room(50, 1000, 0), Some(500));
    assert_eq!(room(99, 3, 997), Some(0));
    assert_eq!(room(100, 3, 997), None);
}

#[test]
fn queues_do_not_come_back_together() {
    let windows: Vec<PeakWindow> = serde_yaml::from_str(MIDNIGHT).unwrap();
    let begins = |queue: &str| {
        let peaks = Peaks::new(&Uid(queue.into()), &windows, None);
        let state = peaks.at(time("2026-11-11T02:00:00Z"), None);
        state
            .tier(Tier::BestEffort)
            .ramp
            .unwrap()
            .begins
            .duration_since(time("2026-11-11T02:00:00Z"))
            .as_secs()
    };
    let all: std::collections::BTreeSet<i64> =
        (0..500).map(|queue| begins(&format!("queue-{queue}"))).collect();
    assert_eq!((*all.first().unwrap(), *all.last().unwrap()), (0, 60));
    assert_eq!(begins("queue-1"), begins("queue-1"));
}

const FORCE_ON: &str = "{mode: ForceOn, untilTime: '2026-11-01T12:00:00Z', reason: INC-4711}";

#[test]
fn force_on_does_at_once_what_the_windows_would_do_and_ends_in_a_ramp() {
    let peaks = peaks(OVERLAPPING, Some(FORCE_ON));
    let state = at(&peaks, "2026-11-01T11:59:59Z");
    assert_eq!((state.phase, state.reason), (Phase::Closed, PeakWindowActiveReason::Forced));
    assert_eq!(state.message, "overridePeak is ForceOn until 2026-11-01T12:00:00Z: INC-4711");
    let best_effort = state.tier(Tier::BestEffort);
    assert_eq!((best_effort.action, best_effort.drain.unwrap().start), (Action::Drain, None));
    assert_eq!(
        (state.tier(Tier::Standard).action, state.tier(Tier::Standard).percent),
        (Action::Hold, Some(20))
    );
    assert_eq!(state.tier(Tier::Guaranteed).action, Action::None);
    assert_eq!(state.wake, Some(time("2026-11-01T12:00:00Z")));

    let state = at(&peaks, "2026-11-01T12:00:00Z");
    assert_eq!((state.phase, state.tier(Tier::BestEffort).action), (Phase::Ramping, Action::None));
    assert_eq!(state.tier(Tier::BestEffort).ramp.unwrap().room(1000, 0), 0);
    assert_eq!(at(&peaks, "2026-11-01T12:11:00Z").phase, Phase::Idle);
}

#[test]
fn a_force_on_that_is_lifted_early_ramps_from_then() {
    let forced = peaks(MIDNIGHT, Some(FORCE_ON));
    let stored = at(&forced, "2026-11-01T10:00:00Z").active.unwrap().status(0);
    assert_eq!(stored.name, OVERRIDE_NAME);
    let lifted = peaks(MIDNIGHT, None);
    let first = lifted.at(time("2026-11-01T10:30:00.5Z"), Some(&stored));
    assert_eq!(first.phase, Phase::Ramping);
    assert_eq!(first.tier(Tier::BestEffort).ramp.unwrap().room(1000, 0), 0);
    // The status keeps when that was, also for another process.
    let stored = first.active.unwrap().status(0);
    assert_eq!(stored.end_time.as_ref().unwrap().0, time("2026-11-01T10:30:00Z"));
    let later = lifted.at(time("2026-11-01T10:37:00Z"), Some(&stored));
    let ramp = later.tier(Tier::BestEffort).ramp.unwrap();
    assert!((600..=700).contains(&ramp.room(1000, 0)), "{ramp:?}");
    assert_eq!(later.active.unwrap().status(0), stored);
    assert_eq!(lifted.at(time("2026-11-01T10:41:00Z"), Some(&stored)).phase, Phase::Idle);
}

#[test]
fn force_off_lets_no_window_have_an_effect_until_its_time() {
    let off = "{mode: ForceOff, untilTime: '2026-11-11T01:00:00Z', reason: sale is off}";
    let peaks = peaks(MIDNIGHT, Some(off));
    let state = at(&peaks, "2026-11-11T00:59:59Z");
    assert_eq!((state.phase, state.reason), (Phase::Idle, PeakWindowActiveReason::ForcedOff));
    assert_eq!(state.tier(Tier::BestEffort).action, Action::None);
    assert_eq!(state.wake, Some(time("2026-11-11T01:00:00Z")));
    assert_eq!(at(&peaks, "2026-11-11T01:00:00Z").phase, Phase::Closed);
    // What cannot end by then would be interrupted then.
    let now = time("2026-11-10T23:55:00Z");
    let state = peaks.at(now, None);
    assert!(state.would_finish(Tier::BestEffort, Some(seconds(3900)), now));
    assert!(!state.would_finish(Tier::BestEffort, Some(seconds(3901)), now));
}

#[test]
fn what_is_not_known_holds_its_tiers_until_it_is_fixed_or_forced_off() {
    let unresolved = "
- name: typo
  window: {start: '00:00', end: '02:00', timeZone: Asia/Shangai}
  actions: [{tier: Standard, action: Degrade, percent: 30}, {tier: BestEffort, action: Drain}]
- name: group
  fromTimeShareGroup: {name: double11, member: payment}
  actions: [{tier: Guaranteed, action: Hold}]
";
    let held = peaks(unresolved, None);
    let problems: Vec<String> = held.problems().map(ToString::to_string).collect();
    assert!(problems[0].starts_with("peak window typo: timeZone: \"Asia/Shangai\""), "{problems:?}");
    assert!(
        problems[1].starts_with("peak window group: there is no TimeShareGroup double11"),
        "{problems:?}"
    );
    let now = time("2026-11-11T12:00:00Z");
    let state = held.at(now, None);
    assert_eq!((state.phase, state.reason), (Phase::Idle, PeakWindowActiveReason::Unresolved));
    assert_eq!(state.message, problems[0]);
    let tier = state.tier(Tier::BestEffort);
    assert_eq!((tier.action, tier.may_start(), tier.drain), (Action::Hold, false, None));
    assert!(state.tier(Tier::Standard).may_start() && state.tier(Tier::Standard).percent.is_none());
    assert!(!state.tier(Tier::Guaranteed).may_start());

    let off = "{mode: ForceOff, untilTime: '2026-11-12T00:00:00Z', reason: repair}";
    let state = peaks(unresolved, Some(off)).at(now, None);
    assert!(super::TIERS.iter().all(|tier| state.tier(*tier).may_start()));
    // ForceOn needs no time of theirs.
    let on = "{mode: ForceOn, untilTime: '2026-11-12T00:00:00Z', reason: INC-1}";
    let state = peaks(unresolved, Some(on)).at(now, None);
    assert_eq!(state.tier(Tier::BestEffort).action, Action::Drain);
    assert_eq!(state.tier(Tier::Standard).percent, Some(30));
}

#[test]
fn one_bad_window_does_not_stop_the_others() {
    let both = format!(
        "{MIDNIGHT}
- name: typo
  window: {{cron: '0 0 30 2 *', durationSeconds: 60, timeZone: UTC}}
  actions: [{{tier: Guaranteed, action: Hold}}]
"
    );
    let peaks = peaks(&both, None);
    let state = at(&peaks, "2026-11-11T00:30:00Z");
    assert_eq!((state.phase, state.reason), (Phase::Closed, PeakWindowActiveReason::Closed));
    assert!(!state.tier(Tier::Guaranteed).may_start());
    assert_eq!(state.tier(Tier::Standard).percent, Some(30));
}

#[test]
fn what_would_not_finish_does_not_start() {
    let peaks = peaks(MIDNIGHT, None);
    // The lead begins at 23:50.
    let would = |now: &str, tier, expected: Option<i64>| {
        let now = time(now);
        peaks.at(now, None).would_finish(tier, expected.map(seconds), now)
    };
    for tier in [Tier::BestEffort, Tier::Standard] {
        assert!(would("2026-11-10T23:40:00Z", tier, Some(600)));
        assert!(!would("2026-11-10T23:40:00Z", tier, Some(601)));
        // Nobody knows how long: not within twice the lead.
        assert!(would("2026-11-10T23:39:59Z", tier, None));
        assert!(!would("2026-11-10T23:40:00Z", tier, None));
        assert!(would("2026-11-11T03:00:00Z", tier, None));
    }
    assert!(!would("2026-11-11T01:00:00Z", Tier::BestEffort, Some(1)));
    // What the peak leaves a degraded tier is not cut once more.
    assert!(would("2026-11-11T01:00:00Z", Tier::Standard, Some(86_400)));
    assert!(would("2026-11-10T23:49:00Z", Tier::Guaranteed, None));
}

#[test]
fn a_window_without_an_action_has_no_effect() {
    let peaks = peaks(
        "
- name: nothing
  window: {start: '00:00', end: '00:00', timeZone: UTC}
  actions: [{tier: BestEffort, action: None}]
",
        None,
    );
    let state = at(&peaks, "2026-11-11T00:30:00Z");
    assert_eq!((state.phase, state.next, state.wake), (Phase::Idle, None, None));
}
