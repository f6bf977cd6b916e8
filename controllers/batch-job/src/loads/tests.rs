//! Load triggers on virtual time: when they turn, what they know, and what they do to tiers.

use super::{Hysteresis, Loads, MOST_AGE, NodeMetrics, Reading, Standing, StoredLoads, Trigger, Usage};
use crate::peaks::{Action, PeakState, Peaks, Phase};
use crate::projections::node::NodeView;
use springtide_plumbing::resources::ResourceList;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::{Value, json};
use springtide_crds::batch_queue::loads::LoadTrigger;
use springtide_crds::batch_queue::peaks::{PeakOverride, PeakWindow};
use springtide_crds::batch_queue::{BatchQueueStatus, PeakWindowActiveReason};
use springtide_crds::common::Tier;
use springtide_plumbing::key::Uid;
use std::collections::HashMap;
use std::sync::Arc;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_794_355_200 + second).unwrap()
}

/// On at 75 %, off at 60 %, after half a minute; BestEffort leaves, Standard keeps a third.
fn hot() -> LoadTrigger {
    serde_json::from_value(json!({
        "name": "hot", "highPercent": 75, "lowPercent": 60, "sustainSeconds": 30,
        "actions": [
            {"tier": "BestEffort", "action": "Drain"}, {"tier": "Standard", "action": "Degrade", "percent": 30},
        ],
        "resume": {"rampSeconds": 100, "jitterSeconds": 0},
    }))
    .unwrap()
}

fn trigger() -> Trigger {
    Trigger::new(&hot())
}

/// One that is new at second 0.
fn fresh() -> Hysteresis {
    Hysteresis::new(false, None, at(0))
}

#[test]
fn it_goes_on_when_the_load_was_high_for_long_enough_and_off_when_it_was_low_for_long_enough() {
    let (trigger, mut memory) = (trigger(), fresh());
    for (second, share, is_on) in [
        (15, 740, false),
        (30, 750, false),
        (45, 900, false),
        (60, 750, true),
        // Between the two nothing changes.
        (75, 700, true),
        (90, 601, true),
        (105, 600, true),
        (120, 610, true),
        (135, 590, true),
        (150, 100, true),
        (165, 600, false),
        (180, 740, false),
    ] {
        memory.observe(&trigger, share, at(second));
        let on = Standing::On { since: at(60), is_low: share <= 600 };
        let expected = if is_on { on } else { Standing::Off };
        assert_eq!(memory.standing(at(second)), expected, "{second}");
    }
    assert_eq!((memory.state(), memory.ended()), ((false, Some(at(165))), Some(at(165))));
}

#[test]
fn a_gap_in_what_is_measured_begins_the_wait_anew() {
    let (trigger, mut memory) = (trigger(), fresh());
    memory.observe(&trigger, 900, at(0));
    memory.observe(&trigger, 900, at(15));
    // Nobody knows what was in between.
    memory.observe(&trigger, 900, at(80));
    assert_eq!(memory.standing(at(80)), Standing::Off);
    memory.observe(&trigger, 900, at(110));
    assert_eq!(memory.standing(at(110)), Standing::On { since: at(110), is_low: false });
    // The same reading once more is no further evidence.
    assert!(!memory.observe(&trigger, 100, at(110)));
    // Nor is one from before, as when the clock is set back.
    memory.observe(&trigger, 100, at(20));
    memory.observe(&trigger, 100, at(35));
    assert_eq!(memory.standing(at(35)), Standing::On { since: at(110), is_low: true });
    memory.observe(&trigger, 100, at(50));
    assert_eq!(memory.standing(at(50)), Standing::Off);
}

#[test]
fn without_data_for_a_minute_it_holds_and_what_it_held_comes_back_when_there_is_data() {
    let (trigger, mut memory) = (trigger(), fresh());
    assert_eq!(memory.standing(at(59)), Standing::Off, "the first look has its time");
    assert_eq!(memory.edge(at(0)), Some(at(60)));
    assert_eq!(memory.standing(at(60)), Standing::Unmeasured { last: None });
    memory.observe(&trigger, 500, at(70));
    assert_eq!((memory.standing(at(129)), memory.ended()), (Standing::Off, Some(at(70))));
    assert_eq!(memory.edge(at(100)), Some(at(130)));
    assert_eq!(memory.standing(at(130)), Standing::Unmeasured { last: Some(at(70)) });
    // A clock that is set back by hours makes data of the future.
    assert_eq!(memory.standing(at(-7200)), Standing::Unmeasured { last: Some(at(70)) });
}

#[test]
fn another_process_goes_on_from_the_status() {
    let trigger = trigger();
    let mut on = Hysteresis::new(true, Some(at(-500)), at(0));
    assert_eq!(on.standing(at(1)), Standing::Unmeasured { last: None }, "it holds until it knows");
    on.observe(&trigger, 700, at(10));
    assert_eq!(on.standing(at(10)), Standing::On { since: at(-500), is_low: false });
    let off = Hysteresis::new(false, Some(at(-40)), at(0));
    assert_eq!((off.standing(at(1)), off.ended()), (Standing::Off, Some(at(-40))), "its ramp goes on");
    let ahead = Hysteresis::new(false, Some(at(9000)), at(0));
    assert_eq!(ahead.ended(), Some(at(0)), "written by a clock that was ahead");
}

proptest! {
    /// Between two turns lies the time that the load must stay, and all readings in between say so.
    #[test]
    fn it_never_turns_without_unbroken_evidence(
        sustain in 10_u32..300,
        steps in prop::collection::vec((1_i64..90, 0_u32..1000), 1..200),
    ) {
        let trigger = Trigger::new(&LoadTrigger { sustain_seconds: sustain, ..hot() });
        let mut memory = fresh();
        let mut now = 0;
        let mut readings: Vec<(i64, u32)> = Vec::new();
        let mut last_turn: Option<i64> = None;
        for (pause, share) in steps {
            now += pause;
            let (was_on, _) = memory.state();
            memory.observe(&trigger, share, at(now));
            readings.push((now, share));
            let (is_on, turned) = memory.state();
            if is_on == was_on {
                continue;
            }
            prop_assert_eq!(turned, Some(at(now)));
            let from = now - i64::from(sustain);
            prop_assert!(last_turn.is_none_or(|last| last <= from), "{:?} {}", last_turn, now);
            last_turn = Some(now);
            // The readings that cover the time: the last one at its beginning or before, and all since.
            let first = readings.iter().rposition(|(at, _)| *at <= from);
            prop_assert!(first.is_some(), "less than {} s of evidence", sustain);
            let evidence = &readings[first.unwrap()..];
            for (_, share) in evidence {
                prop_assert!(if is_on { *share >= 750 } else { *share <= 600 }, "{:?}", evidence);
            }
            for pair in evidence.windows(2) {
                prop_assert!(pair[1].0 - pair[0].0 < MOST_AGE.as_secs(), "{:?}", pair);
            }
        }
    }

    /// Whatever happened: nothing is ended, and nothing is let start, on data that is too old.
    #[test]
    fn no_action_rests_on_old_data(
        steps in prop::collection::vec((0_i64..100, 0_u32..1000, any::<bool>()), 1..100),
        was_on in any::<bool>(),
    ) {
        let trigger = trigger();
        let mut loads = Hysteresis::new(was_on, None, at(0));
        let (mut now, mut last) = (0, None);
        for (pause, share, is_measured) in steps {
            now += pause;
            if is_measured {
                loads.observe(&trigger, share, at(now));
                last = Some(now);
            }
            let age = last.map(|last| now - last);
            match loads.standing(at(now)) {
                Standing::On { .. } => prop_assert!(age.is_some_and(|age| age < 60)),
                Standing::Off => prop_assert!(age.map_or(!was_on && now < 60, |age| age < 60)),
                Standing::Unmeasured { .. } => prop_assert!(age.map_or(was_on || now >= 60, |age| age >= 60)),
            }
            if let Some(edge) = loads.edge(at(now)) {
                let before = edge - SignedDuration::from_secs(1);
                prop_assert!(before < at(now) || loads.standing(before) == loads.standing(at(now)));
            }
        }
    }
}

fn told(nodes: &[(&str, i64, &str, &str)]) -> Vec<NodeMetrics> {
    let node = |(name, second, cpu, memory): &(&str, i64, &str, &str)| {
        serde_json::from_value(json!({
            "metadata": {"name": name, "creationTimestamp": "2026-11-11T00:00:20Z"},
            "timestamp": at(*second), "window": "10s", "usage": {"cpu": cpu, "memory": memory},
        }))
        .unwrap()
    };
    nodes.iter().map(node).collect()
}

fn node(name: &str) -> NodeView {
    serde_json::from_value(json!({
        "metadata": {"name": name, "uid": name, "resourceVersion": "1"},
        "status": {
            "allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }))
    .unwrap()
}

fn amounts(amounts: Value) -> ResourceList {
    serde_json::from_value(amounts).unwrap()
}

#[test]
fn a_measure_grows_old_from_when_it_was_first_told() {
    let none = HashMap::new();
    let first = Usage::default().next(told(&[("a", 0, "1", "1Gi"), ("b", 0, "1", "1Gi")]), &none, at(7200));
    // The server's clock is two hours off, which does not matter; what it says of b stands still.
    let second = first.next(told(&[("a", 15, "2", "1Gi"), ("b", 0, "3", "1Gi")]), &none, at(7215));
    assert_eq!((second.round, second.taken), (2, Some(at(7215))));
    let ages = |usage: &Usage| ["a", "b"].map(|name| usage.of(name, MOST_AGE).map(|load| load.at));
    assert_eq!(ages(&second), [Some(at(7215)), Some(at(7200))]);
    assert_eq!(second.of("b", MOST_AGE).unwrap().used.cpu, 1000);
    let late = second.next(told(&[("a", 75, "2", "1Gi"), ("b", 0, "1", "1Gi")]), &none, at(7275));
    assert_eq!(ages(&late), [Some(at(7275)), None]);
    assert!(late.of("b", SignedDuration::from_secs(75)).is_some(), "for whom it may be older");
    assert!(late.next(told(&[]), &none, at(7290)).of("a", MOST_AGE).is_none(), "not told of any more");
}

#[test]
fn a_reading_is_of_half_of_the_nodes_at_least_and_as_old_as_the_median() {
    let nodes = ["a", "b", "c"].map(node);
    let none = HashMap::new();
    let read = |usage: &Usage| Reading::of(nodes.iter(), usage, MOST_AGE);
    assert_eq!(read(&Usage::default()), None);
    let one = Usage::default().next(told(&[("a", 0, "2", "2Gi")]), &none, at(0));
    assert_eq!(read(&one), None, "one of three does not stand for all");
    let two =
        one.next(told(&[("a", 0, "2", "2Gi"), ("b", 10, "4", "6Gi"), ("x", 10, "9", "9Gi")]), &none, at(15));
    assert_eq!(read(&two), Some(Reading { at: at(0), cpu: 750, memory: 500 }));
    assert_eq!(Reading::of([].into_iter(), &two, MOST_AGE), None, "no node, no load");
}

#[test]
fn what_is_left_is_the_less_of_what_requests_leave_and_what_use_leaves() {
    let by_batch = HashMap::from([(Arc::from("a"), amounts(json!({"cpu": "1500m", "memory": "1Gi"})))]);
    let usage = Usage::default().next(told(&[("a", 0, "3500m", "1536Mi")]), &by_batch, at(0));
    let promised = amounts(json!({"cpu": "1", "memory": "3Gi", "pods": "10"}));
    let left = usage.left(&node("a"), &promised, MOST_AGE);
    // Others use two cores and promise one; they promise 3Gi and use a sixth of it.
    assert_eq!(left, amounts(json!({"cpu": "2", "memory": "5Gi", "pods": "100"})));
    assert_eq!(usage.left(&node("b"), &promised, MOST_AGE), ResourceList::default(), "nobody knows");
    let idle = Usage::default().next(told(&[("a", 0, "1", "1Gi")]), &by_batch, at(0));
    let left = idle.left(&node("a"), &ResourceList::default(), MOST_AGE);
    assert_eq!(left.cpu, 4000, "a measure that does not fit the other one leaves no more than there is");
}

/// A queue with the trigger, and what its windows and triggers mean together.
struct Bench {
    peaks: Peaks,
    loads: Loads,
}

impl Bench {
    fn new(windows: Value, forced: Option<Value>) -> Self {
        let windows: Vec<PeakWindow> = serde_json::from_value(windows).unwrap();
        let forced: Option<PeakOverride> = forced.map(|forced| serde_json::from_value(forced).unwrap());
        let peaks = Peaks::new(&Uid("q".into()), &windows, forced.as_ref()).with_triggers(&[hot()]);
        Self { peaks, loads: Loads::default() }
    }

    /// So much of the processors was in use at these times.
    fn measured(&mut self, cpu: u32, seconds: impl IntoIterator<Item = i64>) {
        for second in seconds {
            let reading = Reading { at: at(second), cpu, memory: 0 };
            self.loads.observe(self.peaks.triggers(), Some(&reading), at(second));
        }
    }

    fn state(&self, second: i64) -> PeakState {
        let mut state = self.peaks.at(at(second), None);
        self.loads.add_to(&mut state, self.peaks.queue(), at(second));
        state
    }
}

fn actions(state: &PeakState) -> [Action; 3] {
    [Tier::BestEffort, Tier::Standard, Tier::Guaranteed].map(|tier| state.tier(tier).action)
}

#[test]
fn a_trigger_that_is_on_acts_at_once_and_what_it_ended_comes_back_along_a_ramp() {
    let mut bench = Bench::new(json!([]), None);
    bench.measured(400, [0]);
    let idle = bench.state(1);
    assert_eq!((idle.phase, idle.reason), (Phase::Idle, PeakWindowActiveReason::Idle));
    assert_eq!(idle.wake, Some(at(60)), "when the measure is too old");
    bench.measured(800, [15, 30, 45]);
    let on = bench.state(45);
    assert_eq!((on.phase, on.reason), (Phase::Closed, PeakWindowActiveReason::LoadTrigger));
    assert_eq!(actions(&on), [Action::Drain, Action::Degrade { percent: 30 }, Action::None]);
    assert_eq!(on.message, "load trigger hot: 75 % of cpu was in use for 30 s; ends at 60 %");
    let low = on.tier(Tier::BestEffort);
    assert!(low.by_load && low.drain.is_some_and(|drain| drain.start.is_none()), "{low:?}");
    let active = on.active.unwrap().status(7);
    assert_eq!((active.name.as_str(), active.start_time.unwrap().0, active.end_time), ("hot", at(45), None));
    bench.measured(500, [60, 75, 90]);
    let ramp = bench.state(140);
    assert_eq!((ramp.phase, ramp.reason), (Phase::Ramping, PeakWindowActiveReason::Ramping));
    assert_eq!(actions(&ramp), [Action::None; 3]);
    let half = ramp.tier(Tier::BestEffort).ramp.unwrap();
    assert_eq!((half.room(1000, 0), ramp.tier(Tier::Guaranteed).ramp), (500, None));
    bench.measured(500, [105, 120, 135, 150, 165, 180]);
    assert_eq!(bench.state(190).phase, Phase::Idle);
}

#[test]
fn while_the_load_is_low_and_it_is_still_on_its_tiers_hold_and_nothing_is_ended() {
    let mut bench = Bench::new(json!([]), None);
    bench.measured(800, [0, 15, 30]);
    bench.measured(601, [45]);
    assert_eq!(actions(&bench.state(45)), [Action::Drain, Action::Degrade { percent: 30 }, Action::None]);
    bench.measured(600, [60]);
    let low = bench.state(60);
    assert_eq!(low.reason, PeakWindowActiveReason::LoadTrigger);
    assert_eq!(actions(&low), [Action::Hold, Action::Degrade { percent: 30 }, Action::None]);
    for tier in [Tier::BestEffort, Tier::Standard] {
        assert!(low.tier(tier).drain.is_none() && low.tier(tier).by_load, "{tier:?}");
    }
    bench.measured(700, [75]);
    assert!(bench.state(75).tier(Tier::BestEffort).drain.is_some(), "it is not low any more");
    // Against other limits nobody knows yet whether it is.
    let other = LoadTrigger { high_percent: 90, low_percent: 72, ..hot() };
    bench.peaks = Peaks::new(&Uid("q".into()), &[], None).with_triggers(&[other]);
    bench.loads.observe(bench.peaks.triggers(), None, at(76));
    assert_eq!(actions(&bench.state(76))[0], Action::Hold);
    bench.measured(730, [90]);
    assert_eq!(actions(&bench.state(90))[0], Action::Drain);
}

#[test]
fn where_nobody_knows_the_load_its_tiers_hold_and_nothing_is_ended() {
    let mut bench = Bench::new(json!([]), None);
    bench.measured(800, [0, 15, 30]);
    assert_eq!(actions(&bench.state(89))[0], Action::Drain);
    let blind = bench.state(90);
    assert_eq!(blind.reason, PeakWindowActiveReason::LoadTrigger);
    assert_eq!(actions(&blind), [Action::Hold, Action::Hold, Action::None]);
    for tier in [Tier::BestEffort, Tier::Standard] {
        assert_eq!((blind.tier(tier).drain, blind.tier(tier).percent), (None, None));
    }
    assert!(
        blind.message.contains("tells nothing new of most nodes since 2026-11-11T00:00:30Z"),
        "{}",
        blind.message
    );
    let figures = &blind.triggers[0];
    assert!(figures.is_on && !figures.is_measured);
    bench.measured(800, [95]);
    assert_eq!(actions(&bench.state(95))[0], Action::Drain, "it is known again, and was on");
}

#[test]
fn windows_and_triggers_give_each_tier_the_strongest_and_an_override_counts_for_both() {
    let window = json!([{
        "name": "noon", "window": {"start": "00:10", "end": "00:20", "timeZone": "UTC"}, "leadSeconds": 60,
        "actions": [{"tier": "BestEffort", "action": "Hold"}, {"tier": "Standard", "action": "Hold"}],
    }]);
    let mut bench = Bench::new(window.clone(), None);
    bench.measured(800, [580, 595, 610]);
    let both = bench.state(610);
    assert_eq!(actions(&both), [Action::Drain, Action::Hold, Action::None]);
    assert_eq!(both.reason, PeakWindowActiveReason::Closed, "the window has an end that is known");
    assert!(both.tier(Tier::BestEffort).by_load);
    let off = json!({"mode": "ForceOff", "untilTime": at(5000), "reason": "INC-1"});
    let mut bench = Bench::new(window, Some(off));
    bench.measured(800, [580, 595, 610]);
    let off = bench.state(610);
    assert_eq!((actions(&off), off.reason), ([Action::None; 3], PeakWindowActiveReason::ForcedOff));
    assert!(off.triggers[0].is_on, "it is told all the same");
}

#[test]
fn a_trigger_keeps_its_state_under_its_name_and_reads_it_in_the_status_of_another_process() {
    let mut bench = Bench::new(json!([]), None);
    bench.measured(800, [0, 15, 30]);
    let lower = LoadTrigger { high_percent: 100, low_percent: 99, ..hot() };
    bench.peaks = Peaks::new(&Uid("q".into()), &[], None).with_triggers(&[lower]);
    bench.measured(800, [45, 60, 75]);
    assert_eq!(bench.state(75).phase, Phase::Ramping, "off by its new limits, no sooner");
    let mut other = Bench::new(json!([]), None);
    let on = json!({
        "activeLoadTriggers": ["hot"],
        "conditions": [{
            "type": "PeakWindowActive", "status": "True", "reason": "LoadTrigger", "message": "", "observedGeneration": 1,
            "lastTransitionTime": at(30),
        }],
    });
    other.loads.store(stored(on));
    other.loads.observe(other.peaks.triggers(), None, at(100));
    assert_eq!(actions(&other.state(100))[0], Action::Hold);
    other.measured(700, [105]);
    let state = other.state(105);
    assert_eq!((actions(&state)[0], state.active.unwrap().start), (Action::Drain, Some(at(30))));
}

#[test]
fn a_ramp_goes_on_in_another_process_but_not_from_the_end_of_a_window_of_the_same_name() {
    let ramp = |start: Value| {
        let mut bench = Bench::new(json!([]), None);
        let mut active = json!({"name": "hot", "endTime": at(90), "podsLeft": 0});
        if !start.is_null() {
            active["startTime"] = start;
        }
        bench.loads.store(stored(json!({"activeWindow": active})));
        bench.loads.observe(bench.peaks.triggers(), None, at(110));
        bench.state(140).tier(Tier::BestEffort).ramp.map(|ramp| ramp.room(1000, 0))
    };
    assert_eq!((ramp(Value::Null), ramp(json!(at(60)))), (Some(500), None));
}

fn stored(status: Value) -> StoredLoads {
    let status: BatchQueueStatus = serde_json::from_value(status).unwrap();
    StoredLoads::of(&status)
}
