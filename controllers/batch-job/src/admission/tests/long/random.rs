//! Random numbers, and queues in a random state.

use super::super::queues::cpu;
use super::super::*;
use super::sizes::{EXTENDED, GIBIBYTE};
use super::{AGENT, SHOWING, TIERS};
use crate::peaks::Peaks;
use springtide_crds::batch_job::StopPolicy;

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): the same steps in every run of one seed.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    pub(super) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }
}

/// Most queues are open.
const STOPS: [StopPolicy; 6] = [
    StopPolicy::None,
    StopPolicy::None,
    StopPolicy::None,
    StopPolicy::None,
    StopPolicy::Hold,
    StopPolicy::Drain,
];

/// For whom a tier may yield: for nobody, for higher ones, for its own as well, for lower ones too, which means nothing.
const YIELDS: [&[Tier]; 4] = [&[], &[Tier::Guaranteed], &[Tier::Standard, Tier::Guaranteed], &TIERS];

/// What holds for each tier.
fn random_tiers(random: &mut Random) -> BTreeMap<Tier, TierRules> {
    let of_tier = |tier: Tier| {
        let preemptible_by = random.pick(&YIELDS).to_vec();
        let min_run = SignedDuration::from_secs(*random.pick(&[0, 5]));
        (tier, TierRules { preemptible_by, min_run })
    };
    TIERS.map(of_tier).into()
}

/// A row of cpu, with one of memory or without.
fn random_quota(random: &mut Random) -> Vec<QuotaRow> {
    let mut row = |resource: &str, unit: i64| {
        let nominal = i64::try_from(random.below(7)).unwrap() * unit;
        let max = nominal + i64::try_from(random.below(5)).unwrap() * unit;
        QuotaRow { resource: resource.into(), nominal, max }
    };
    let mut quota = vec![row("cpu", 1000), row("memory", GIBIBYTE)];
    quota.truncate(1 + usize::try_from(random.below(2)).unwrap());
    quota
}

/// A queue in a random state: in and out of a cohort, with quota or live capacity, strict or not.
pub(super) fn random_rules(random: &mut Random, name: &str) -> QueueRules {
    let share = NodeShare {
        percent: u8::try_from(random.below(100)).unwrap() + 1,
        reserve: cpu(500),
        ..NodeShare::default()
    };
    let (source, quota) = match name {
        "live" => (CapacitySource::NodeAllocatable(share), Vec::new()),
        "measured" => (CapacitySource::NodeMetrics(share), Vec::new()),
        AGENT => (CapacitySource::ExtendedResource(share), Vec::new()),
        _ => (CapacitySource::Static, random_quota(random)),
    };
    let counted_as = BTreeMap::from([(Arc::from(EXTENDED), Arc::from("cpu"))]);
    QueueRules {
        cohort: (name == "lender" || name == "borrower").then(|| "c".into()),
        weight: u32::try_from(random.below(3)).unwrap() + 1,
        quota,
        source,
        counted_as: if name == AGENT { counted_as } else { BTreeMap::new() },
        ordering: *random.pick(&[Ordering::PriorityFifo, Ordering::PriorityFifo, Ordering::StrictFifo]),
        max_queued_jobs: usize::try_from(random.below(5)).unwrap() + 1,
        max_tier: Tier::Guaranteed,
        stop: *random.pick(&STOPS),
        tiers: random_tiers(random),
        max_pending: if SHOWING.contains(&name) { usize::try_from(random.below(4)).unwrap() } else { 0 },
        ..QueueRules::default()
    }
}

/// A peak window, or what the load of nodes triggers, within the minutes of a leg.
pub(super) fn random_peaks(random: &mut Random, name: &str) -> Peaks {
    let degrade = |percent: u8| json!({"action": "Degrade", "percent": percent});
    let actions = [json!({"action": "Drain"}), json!({"action": "Hold"}), degrade(50)];
    let others = [json!({"action": "None"}), json!({"action": "Hold"}), degrade(30)];
    let of_tier = |tier: &str, action: &Value| {
        let mut action = action.clone();
        action["tier"] = tier.into();
        action
    };
    let actions =
        json!([of_tier("BestEffort", random.pick(&actions)), of_tier("Standard", random.pick(&others)),]);
    let resume = json!({
        "rampSeconds": random.pick(&[0, 30, 60]), "jitterSeconds": random.pick(&[0, 5]),
    });
    let rate = *random.pick(&[1, 5]);
    if name == "measured" {
        let trigger = json!([{
            "name": "hot", "highPercent": 60, "lowPercent": 40, "sustainSeconds": 10, "actions": actions,
            "drainPodsPerSecond": rate, "resume": resume,
        }]);
        let triggers: Vec<_> = serde_json::from_value(trigger).unwrap();
        return Peaks::new(&Uid(name.into()), &[], None).with_triggers(&triggers);
    }
    let start = 1 + random.below(3);
    let end = start + 1 + random.below(2);
    let window = json!([{
        "name": "peak",
        "window": {"start": format!("00:0{start}"), "end": format!("00:0{end}"), "timeZone": "UTC"},
        "actions": actions,
        "leadSeconds": random.pick(&[0, 10, 40]),
        "drainPodsPerSecond": rate,
        "resume": resume,
    }]);
    let windows: Vec<_> = serde_json::from_value(window).unwrap();
    let peaks = Peaks::new(&Uid(name.into()), &windows, None);
    assert_eq!(peaks.problems().next(), None);
    peaks
}
