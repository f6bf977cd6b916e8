//! Drains by hand: order, time, grace, and what is foretold.

use super::{peaks, seconds, time};
use crate::peaks::drain::{DrainPlan, DrainPod, Ending, Load, forecast, loads, plan};
use crate::peaks::{PeakState, Peaks};
use jiff::Timestamp;
use springtide_crds::batch_queue::DrainWillMissReason;
use springtide_crds::common::Tier;

/// Ten pods a second, within 100 seconds: ten of them are the reserve.
fn drained(rate: u32, lead: u32) -> Peaks {
    peaks(
        &format!(
            "
- name: midnight
  window: {{start: '00:00', end: '02:00', timeZone: UTC, dates: ['2026-11-11']}}
  actions: [{{tier: Standard, action: Drain}}, {{tier: BestEffort, action: Drain}}]
  leadSeconds: {lead}
  drainPodsPerSecond: {rate}
"
        ),
        None,
    )
}

fn pod(tier: Tier, created: i64, grace_seconds: u32) -> DrainPod {
    let created = Timestamp::from_second(created).unwrap();
    DrainPod { tier, created, grace_seconds, scheduled: true, ended: None }
}

fn start() -> Timestamp {
    time("2026-11-11T00:00:00Z")
}

/// The state so many seconds before the start.
fn before(peaks: &Peaks, left: i64) -> (PeakState, Timestamp) {
    let now = start() - seconds(left);
    (peaks.at(now, None), now)
}

fn ended(plan: &DrainPlan) -> Vec<usize> {
    plan.end.iter().map(|ending| ending.pod).collect()
}

#[test]
fn pods_are_ended_as_late_as_their_grace_and_the_rate_allow() {
    let peaks = drained(1, 100);
    let pods = [pod(Tier::BestEffort, 1, 30), pod(Tier::BestEffort, 2, 30), pod(Tier::BestEffort, 3, 30)];
    // The last at start - reserve 10 - grace 30.
    let (state, now) = before(&peaks, 100);
    let first = plan(&state, &pods, now);
    assert_eq!((ended(&first), first.left, first.wake), (vec![], 3, Some(start() - seconds(42))));
    for (left, expected) in [(43, vec![]), (42, vec![2]), (41, vec![1]), (40, vec![0])] {
        let mut pods = pods;
        for done in expected.first().map_or(3..3, |next: &usize| next + 1..3) {
            pods[done].ended = Some(start() - seconds(40 + i64::try_from(done).unwrap()));
        }
        let (state, now) = before(&peaks, left);
        assert_eq!(ended(&plan(&state, &pods, now)), expected, "{left} s before");
    }
    // One that ended by itself leaves the others more time.
    let (state, now) = before(&peaks, 42);
    let rest = plan(&state, &pods[..2], now);
    assert_eq!((ended(&rest), rest.wake), (vec![], Some(start() - seconds(41))));
}

#[test]
fn those_go_first_that_lose_the_least() {
    let peaks = drained(10, 100);
    let mut pods = [
        pod(Tier::Standard, 9, 30),
        pod(Tier::BestEffort, 1, 30),
        pod(Tier::BestEffort, 5, 30),
        pod(Tier::Guaranteed, 9, 30),
        pod(Tier::BestEffort, 0, 30),
    ];
    pods[4].scheduled = false;
    let (state, now) = before(&peaks, 20);
    let plan = plan(&state, &pods, now);
    assert_eq!((ended(&plan), plan.left), (vec![2, 1, 0, 4], 4));
}

#[test]
fn what_has_not_begun_is_ended_when_the_lead_begins() {
    let peaks = drained(10, 100);
    let mut pods = [pod(Tier::BestEffort, 1, 30); 16];
    for idle in &mut pods[..15] {
        idle.scheduled = false;
    }
    let (state, now) = before(&peaks, 100);
    let first = plan(&state, &pods, now);
    assert_eq!((first.end.len(), first.wake), (10, Some(now + seconds(1))));
    assert!(first.end.iter().all(|ending| ending.pod < 15));
    // Others do not wait for them: the time of the last one has come.
    let (state, now) = before(&peaks, 40);
    assert_eq!(ended(&plan(&state, &pods, now))[0], 15);
    // They need no grace, so that they are no reason for a miss.
    let (state, now) = before(&peaks, 101);
    let many = vec![DrainPod { scheduled: false, grace_seconds: 600, ..pods[0] }; 1001];
    assert_eq!(forecast(&state, &many, |_| 1000, now).reason, DrainWillMissReason::OnTime);
}

#[test]
fn a_longer_grace_begins_earlier_and_drags_no_other_along() {
    let peaks = drained(10, 100);
    let pods = [pod(Tier::BestEffort, 1, 10), pod(Tier::Standard, 2, 60)];
    let (state, now) = before(&peaks, 70);
    let plan = plan(&state, &pods, now);
    assert_eq!((ended(&plan), plan.wake), (vec![1], Some(start() - seconds(20))));
}

#[test]
fn a_grace_is_cut_to_the_time_that_is_left() {
    let peaks = drained(10, 100);
    let pods = [pod(Tier::BestEffort, 1, 30), pod(Tier::BestEffort, 0, 0)];
    for (left, expected) in [(40, 30), (20, 20), (1, 1), (0, 1), (-60, 1)] {
        let (state, now) = before(&peaks, left);
        let plan = plan(&state, &pods, now);
        assert!(plan.end.contains(&Ending { pod: 0, grace_seconds: expected }), "{left}: {plan:?}");
        // Who wants none gets none.
        assert!(plan.end.iter().all(|ending| ending.pod == 0 || ending.grace_seconds == 0));
    }
}

#[test]
fn no_second_has_more_than_the_rate() {
    let peaks = drained(2, 100);
    let mut pods = [pod(Tier::BestEffort, 1, 30); 5];
    let (state, now) = before(&peaks, 5);
    let late = plan(&state, &pods, now);
    assert_eq!((ended(&late), late.wake), (vec![0, 1], Some(now + seconds(1))));
    pods[0].ended = Some(now);
    let late = plan(&state, &pods, now);
    assert_eq!((ended(&late), late.left), (vec![1], 5));
    pods[1].ended = Some(now);
    assert_eq!(ended(&plan(&state, &pods, now)), [] as [usize; 0]);
    let (state, now) = before(&peaks, 4);
    assert_eq!(ended(&plan(&state, &pods, now)), [2, 3]);
}

#[test]
fn force_on_ends_at_once_with_the_whole_grace() {
    let windows = "
- name: midnight
  window: {start: '00:00', end: '02:00', timeZone: UTC}
  actions: [{tier: BestEffort, action: Drain}]
";
    let peaks = peaks(windows, Some("{mode: ForceOn, untilTime: '2026-11-12T00:00:00Z', reason: INC-1}"));
    let now = time("2026-11-11T12:00:00Z");
    let pods = [pod(Tier::BestEffort, 1, 600), pod(Tier::Standard, 1, 600)];
    let plan = plan(&peaks.at(now, None), &pods, now);
    assert_eq!(plan.end, [Ending { pod: 0, grace_seconds: 600 }]);
}

#[test]
fn no_peak_ends_nothing() {
    let peaks = drained(10, 100);
    let pods = [pod(Tier::BestEffort, 1, 30)];
    for left in [101, -7200] {
        let (state, now) = before(&peaks, left);
        assert_eq!(plan(&state, &pods, now), DrainPlan::default(), "{left}");
    }
}

#[test]
fn a_miss_is_foretold_an_hour_before_with_its_cause() {
    let of = |peaks: &Peaks, count: usize, grace: u32, budget: u32, left: i64| {
        let (state, now) = before(peaks, left);
        let forecast = forecast(&state, &vec![pod(Tier::BestEffort, 1, grace); count], |_| budget, now);
        assert!(forecast.message.len() <= 160, "{}", forecast.message);
        forecast.reason
    };
    let (rate, grace, budget, fine) = (
        DrainWillMissReason::RateTooLow,
        DrainWillMissReason::GraceTooLong,
        DrainWillMissReason::BudgetTooSmall,
        DrainWillMissReason::OnTime,
    );
    let peaks = drained(10, 100);
    for left in [3600, 101] {
        assert_eq!(of(&peaks, 701, 30, 100, left), fine, "{left}");
        assert_eq!(of(&peaks, 702, 30, 100, left), rate, "{left}");
        assert_eq!(of(&peaks, 1, 100, 100, left), fine, "{left}");
        assert_eq!(of(&peaks, 1, 101, 100, left), grace, "{left}");
        assert_eq!(of(&peaks, 701, 30, 9, left), budget, "{left}");
        assert_eq!(of(&peaks, 0, 30, 0, left), fine, "{left}");
    }
    // Nobody asks before.
    assert_eq!(of(&peaks, 702, 30, 100, 3601), fine);
    // In the lead, what is left.
    assert_eq!(of(&peaks, 201, 30, 100, 50), fine);
    assert_eq!(of(&peaks, 250, 30, 100, 50), rate);
    // What is still there when the peak is on has missed.
    assert_eq!(of(&peaks, 1, 30, 100, -5), rate);
    assert_eq!(of(&peaks, 0, 30, 100, -5), fine);
    // A long lead is foretold from its beginning.
    let long = drained(1, 7200);
    assert_eq!(of(&long, 7200, 30, 100, 7200), rate);
}

#[test]
fn loads_overlap_where_their_leads_do_and_what_is_late_overlaps_what_is_ended_now() {
    let at = |left: i64| start() - seconds(left);
    let load = |first: i64, until: i64| Load { first: at(first), start: at(until), pods: 1 };
    for (one, other, now, expected) in [
        (load(100, 0), load(150, 50), 200, true),
        (load(100, 0), load(300, 101), 400, false),
        (load(100, 0), load(300, 101), 50, true),
    ] {
        assert_eq!(one.overlaps(&other, at(now)), expected, "{other:?}");
        assert_eq!(other.overlaps(&one, at(now)), expected, "{other:?}");
    }
    let peaks = drained(10, 100);
    let (state, _) = before(&peaks, 3600);
    let mut pods = [pod(Tier::BestEffort, 1, 30), pod(Tier::Guaranteed, 1, 30), pod(Tier::BestEffort, 1, 30)];
    pods[2].ended = Some(at(4000));
    assert_eq!(loads(&state, &pods), [load(100, 0)], "who stays and who goes already is not counted");
    assert_eq!(loads(&state, &pods[1..]), []);
}
