//! Random peaks at random times: nothing starts inside, everything is gone in time, no ramp is too steep.

use super::{seconds, time};
use crate::peaks::drain::{DrainPod, forecast, plan};
use crate::peaks::{Action, Peaks, TIERS};
use jiff::{SignedDuration, Timestamp};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};
use springtide_crds::batch_queue::DrainWillMissReason;
use springtide_crds::batch_queue::peaks::PeakWindow;
use springtide_crds::common::Tier;
use springtide_plumbing::key::Uid;
use std::collections::BTreeMap;

/// One peak, by instants.
#[derive(Clone, Debug)]
struct Case {
    start: Timestamp,
    minutes: i64,
    actions: [Action; 3],
    lead: u32,
    ramp: u32,
    jitter: u32,
}

impl Case {
    fn end(&self) -> Timestamp {
        self.start + SignedDuration::from_mins(self.minutes)
    }

    fn lead_begins(&self) -> Timestamp {
        self.start - seconds(self.lead.into())
    }

    fn window(&self, name: usize) -> PeakWindow {
        let action = |(tier, action): (&Tier, &Action)| match action {
            Action::None => json!({"tier": tier}),
            Action::Degrade { percent } => json!({"tier": tier, "action": "Degrade", "percent": percent}),
            Action::Hold => json!({"tier": tier, "action": "Hold"}),
            Action::Drain => json!({"tier": tier, "action": "Drain"}),
        };
        let actions: Vec<Value> = TIERS.iter().zip(&self.actions).map(action).collect();
        serde_json::from_value(json!({
            "name": format!("peak-{name}"),
            "window": {
                "start": self.start.strftime("%H:%M").to_string(),
                "end": self.end().strftime("%H:%M").to_string(),
                "dates": [self.start.strftime("%Y-%m-%d").to_string()],
                "timeZone": "UTC",
            },
            "actions": actions,
            "leadSeconds": self.lead,
            "resume": {"rampSeconds": self.ramp, "jitterSeconds": self.jitter},
        }))
        .unwrap()
    }
}

fn base() -> Timestamp {
    time("2026-11-10T00:00:00Z")
}

fn case() -> impl Strategy<Value = Case> {
    let action = prop_oneof![
        Just(Action::None),
        (1..100_u32).prop_map(|percent| Action::Degrade { percent }),
        Just(Action::Hold),
        Just(Action::Drain)
    ];
    let actions = [action.clone(), action.clone(), action];
    (0..2880_i64, 1..=600_i64, actions, 0..=7200_u32, 0..=7200_u32, 0..=600_u32).prop_map(
        |(minute, minutes, actions, lead, ramp, jitter)| {
            let start = base() + SignedDuration::from_mins(minute);
            Case { start, minutes, actions, lead, ramp, jitter }
        },
    )
}

/// A pass comes no later than this after the one before, where nothing keeps it.
const IN_TIME: SignedDuration = SignedDuration::from_millis(1100);

/// Milliseconds between two passes on a ramp.
fn pause() -> impl Strategy<Value = i64> {
    prop_oneof![
        20 => 1000..=1100_i64,
        1 => 1101..10_000_i64,
        1 => 10_000..180_000_i64,
    ]
}

fn peaks(cases: &[Case]) -> Peaks {
    let windows: Vec<PeakWindow> = cases.iter().enumerate().map(|(name, case)| case.window(name)).collect();
    let peaks = Peaks::new(&Uid("queue".into()), &windows, None);
    assert_eq!(peaks.problems().next(), None);
    peaks
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn nothing_starts_inside_and_no_more_than_the_ramp_after(
        cases in vec(case(), 1..5), clock in -10_800_000..4 * 86_400_000_i64,
    ) {
        let now = base() + SignedDuration::from_millis(clock);
        let state = peaks(&cases).at(now, None);
        for (slot, tier) in TIERS.into_iter().enumerate() {
            let result = state.tier(tier);
            let mut strongest = Action::None;
            let mut least = None;
            for case in &cases {
                let action = case.actions[slot];
                let in_lead = case.lead_begins() <= now && now < case.start;
                let is_on = case.start <= now && now < case.end();
                let acts = match action {
                    Action::None => false,
                    Action::Hold => is_on,
                    Action::Drain => in_lead || is_on,
                    Action::Degrade { percent } => {
                        if in_lead || is_on {
                            least = Some(least.map_or(percent, |least: u32| least.min(percent)));
                        }
                        in_lead || is_on
                    }
                };
                if acts {
                    strongest = strongest.strongest(action);
                }
                // By the slope of every peak that is over, jitter or not.
                let since = now.duration_since(case.end());
                let over = action != Action::None && !since.is_negative();
                let ramp = seconds(case.ramp.into());
                if over && since < ramp {
                    let room = result.ramp.unwrap().room(1_000_000, 0);
                    let slope = 1_000_000 * since.as_millis() / ramp.as_millis();
                    prop_assert!(i128::from(room) <= slope, "{room} > {slope}");
                }
            }
            prop_assert_eq!((result.action, result.percent), (strongest, least));
            let may = strongest != Action::Drain && strongest != Action::Hold;
            prop_assert_eq!(result.may_start(), may);
            let over_for_good = |case: &Case| {
                case.actions[slot] == Action::None
                    || now < case.end()
                    || now >= case.end() + seconds(i64::from(case.ramp) + i64::from(case.jitter))
            };
            if cases.iter().all(over_for_good) {
                prop_assert_eq!(result.ramp, None);
            }
            // The first of the peaks to come that end pods interrupts; one that is on does so now.
            let interrupts = |case: &&Case| match case.actions[slot] {
                Action::Drain => now < case.end(),
                Action::Degrade { .. } => now < case.lead_begins(),
                Action::Hold | Action::None => false,
            };
            let at = cases.iter().filter(interrupts).map(|case| case.lead_begins().max(now)).min();
            prop_assert_eq!(result.interruption.map(|it| it.at), at);
        }
    }

    #[test]
    fn nothing_changes_before_it_wakes(
        cases in vec(case(), 1..5), clock in -10_800_000..4 * 86_400_000_i64, part in 0.0..1.0_f64,
    ) {
        let peaks = peaks(&cases);
        let now = base() + SignedDuration::from_millis(clock);
        let state = peaks.at(now, None);
        // Without a wake, never again.
        let until = state.wake.unwrap_or(now + seconds(10 * 86_400));
        prop_assert!(until > now);
        let span = until.duration_since(now).as_millis();
        let later = now + SignedDuration::from_millis(((span - 1) as f64 * part) as i64);
        let then = peaks.at(later, None);
        prop_assert_eq!((then.phase, then.reason, &then.active, &then.ahead),
            (state.phase, state.reason, &state.active, &state.ahead));
        for tier in TIERS {
            let (then, state) = (then.tier(tier), state.tier(tier));
            prop_assert_eq!((then.action, then.percent, then.drain), (state.action, state.percent, state.drain));
            prop_assert_eq!(then.ramp.is_some(), state.ramp.is_some());
        }
    }

    #[test]
    fn a_drain_is_done_at_the_start_whenever_the_rate_allows(
        pods in vec((0..3_usize, 0..40_u32, 0..1000_i64, any::<bool>()), 1..150),
        rate in 1..20_u32,
        lead in 0..200_u32,
        pause in prop_oneof![Just(0.0), 0.0..0.5_f64],
        at_pass in 0..30_u32,
    ) {
        let start = time("2026-11-11T00:00:00Z");
        let window: PeakWindow = serde_json::from_value(json!({
            "name": "midnight",
            "window": {"start": "00:00", "end": "12:00", "timeZone": "UTC", "dates": ["2026-11-11"]},
            "actions": TIERS.map(|tier| json!({"tier": tier, "action": "Drain"})),
            "leadSeconds": lead,
            "drainPodsPerSecond": rate,
        })).unwrap();
        let peaks = Peaks::new(&Uid("queue".into()), &[window], None);
        let mut pods: Vec<DrainPod> = pods
            .into_iter()
            .map(|(tier, grace_seconds, age, scheduled)| DrainPod {
                tier: TIERS[tier],
                created: start - seconds(1000 + age),
                grace_seconds,
                scheduled,
                ended: None,
            })
            .collect();
        let begins = start - seconds(lead.into());
        let before = begins - seconds(1);
        let foretold = forecast(&peaks.at(before, None), &pods, |_| 1000, before).reason;
        // Nobody plans for a while: within the reserve, if there is room for it, that is made good.
        let longest = pods.iter().filter(|pod| pod.scheduled).map(|pod| pod.grace_seconds).max().unwrap_or(0);
        let needed = pods.len() as f64 / f64::from(rate) + f64::from(longest);
        let reserve = f64::from(lead) / 10.0;
        let has_room = needed + reserve + 2.0 <= f64::from(lead) && reserve >= 4.0;
        let in_time = foretold == DrainWillMissReason::OnTime && (pause == 0.0 || has_room);
        let pause = SignedDuration::from_millis((pause * reserve * 1000.0) as i64);

        let mut now = begins;
        let mut by_second: BTreeMap<i64, u32> = BTreeMap::new();
        let mut last_gone = begins;
        for pass in 0.. {
            let state = peaks.at(now, None);
            let drain = plan(&state, &pods, now);
            prop_assert_eq!(drain.left as usize, pods.len());
            for ending in &drain.end {
                prop_assert!(pods[ending.pod].ended.replace(now).is_none());
                prop_assert!(ending.grace_seconds <= pods[ending.pod].grace_seconds);
                *by_second.entry(now.as_second()).or_default() += 1;
                // Without a node there is nothing that could use a grace.
                if !pods[ending.pod].scheduled {
                    continue;
                }
                last_gone = last_gone.max(now + seconds(ending.grace_seconds.into()));
                if in_time && pause.is_zero() {
                    prop_assert_eq!(ending.grace_seconds, pods[ending.pod].grace_seconds);
                }
            }
            if pods.iter().all(|pod| pod.ended.is_some()) {
                break;
            }
            let wake = plan(&state, &pods, now).wake;
            prop_assert!(wake.is_some_and(|wake| wake > now), "{wake:?} at {now}");
            now = wake.unwrap() + if pass == at_pass { pause } else { SignedDuration::ZERO };
        }
        prop_assert!(by_second.values().all(|ended| *ended <= rate), "{by_second:?}");
        if in_time {
            prop_assert!(last_gone <= start, "{last_gone}");
        }
        // However late: no more time than the rate needs.
        let most = i64::try_from(pods.len()).unwrap() / i64::from(rate) + 3;
        prop_assert!(now <= start + seconds(most) + pause);
    }

    /// Passes come every second, at most a tenth of it late, and at times one comes seconds or minutes late. Whenever one
    /// comes, all that runs again is at most what the ramp has come to by then. Where they come in time no second has
    /// more than the slope and a tenth of it, and the part of a pod that those before it have left over. A late one has
    /// at once what was missed, and nothing beyond: how far the ramp has come follows from the time alone. After it each
    /// second has its own again.
    #[test]
    fn no_second_of_a_ramp_has_more_than_its_slope(
        free in 1..5000_u64, ramp in 1..=900_u32, jitter in 0..=60_u32, length in 1..5_u64,
        pauses in vec(pause(), 1..60),
    ) {
        let peak = Case {
            start: base(), minutes: 60, actions: [Action::Drain; 3], lead: 0, ramp, jitter,
        };
        let peaks = peaks(std::slice::from_ref(&peak));
        let mut now = peak.end();
        let (mut running, mut done): (Vec<u64>, u64) = (Vec::new(), 0);
        let slope = free as f64 / f64::from(ramp);
        let longest = peak.end() + seconds(i64::from(ramp) + i64::from(jitter));
        for (pass, pause) in (1..).zip(pauses.iter().cycle()) {
            let paused = SignedDuration::from_millis(*pause);
            now += paused;
            let started: u64 = running.iter().sum();
            let Some(ramp) = peaks.at(now, None).tier(Tier::BestEffort).ramp else { break };
            let room = ramp.room(free - started, started);
            let elapsed = now.duration_since(ramp.begins).as_secs_f64().max(0.0);
            prop_assert!((started + room) as f64 <= slope * elapsed + 1e-6, "{started} and {room}");
            // What ended made room besides what the slope gives.
            let new = room.saturating_sub(done) as f64;
            let most = slope * if paused <= IN_TIME { 1.1 } else { paused.as_secs_f64() };
            prop_assert!(new <= most + 1.0 + 1e-6, "{new} after {paused:?}, and {slope} in a second");
            running.push(room);
            done = 0;
            if pass % length == 0 {
                done = running.remove(0);
            }
            prop_assert!(now < longest, "the ramp goes on at {now}");
        }
        prop_assert!(now >= peak.end() + seconds(i64::from(ramp)), "the ramp was over at {now}");
    }
}
