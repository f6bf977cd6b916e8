//! What becomes of one workload in a round, all of it by the round's seed.

use std::fmt;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::json;
use springtide_crds::common::IntOrPercent;
use springtide_crds::in_place_upgrade::{History, InPlaceUpgradeSpec};
use springtide_e2e::kwok::RESTART_SECONDS;
use springtide_e2e::upgrade::workload::in_two_steps;
use springtide_e2e::upgrade::{Signal, Workload, image};

/// By what the native controller is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// A Deployment that is paused throughout.
    Locked,
    /// A Deployment that is paused at the end of a run.
    Transient,
    /// A StatefulSet by its partition.
    Partition,
    /// A StatefulSet of type OnDelete.
    OnDelete,
}

/// How often each is drawn: as often as it stands here.
const PROTOCOLS: [Protocol; 10] = [
    Protocol::Locked,
    Protocol::Locked,
    Protocol::Locked,
    Protocol::Transient,
    Protocol::Transient,
    Protocol::Transient,
    Protocol::Partition,
    Protocol::Partition,
    Protocol::Partition,
    Protocol::OnDelete,
];
/// Images that there are: few, so that templates of the past come again.
const VERSIONS: u32 = 3;
/// Longest time before a workload's next upgrade.
const BETWEEN: Duration = Duration::from_secs(4);

/// One upgrade.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    /// Time after the one before.
    pub(crate) after: Duration,
    /// Version of its image.
    pub(crate) version: u32,
}

/// A workload, and its upgrades.
#[derive(Clone, Debug)]
pub(crate) struct Story {
    /// By what its controller is told.
    pub(crate) protocol: Protocol,
    /// The workload.
    pub(crate) workload: Workload,
    /// Its upgrade, to the image that it has.
    pub(crate) spec: InPlaceUpgradeSpec,
    /// What is wished one after the other.
    pub(crate) turns: Vec<Turn>,
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, workload, spec, turns } = self;
        let versions: Vec<u32> = turns.iter().map(|turn| turn.version).collect();
        let (steps, most) = (spec.strategy.steps.len(), &spec.strategy.max_unavailable);
        write!(f, "{} ({protocol:?}, {} pods, {:?}, ", workload.name, workload.replicas, workload.signal)?;
        write!(f, "{steps} steps, {most:?} at a time, versions {versions:?})")
    }
}

fn one_of<T: Clone>(random: &mut StdRng, all: &[T]) -> T {
    all[random.random_range(0..all.len())].clone()
}

impl Story {
    /// The story of a number, with so many upgrades.
    pub(crate) fn draw(number: usize, turns: usize, random: &mut StdRng) -> Self {
        let protocol = one_of(random, &PROTOCOLS);
        let replicas = random.random_range(1..=4);
        let name = format!("story-{number}");
        let workload = match protocol {
            Protocol::Locked | Protocol::Transient => Workload::deployment(&name, replicas)
                .spec(json!({"revisionHistoryLimit": one_of(random, &[0, 1, 2, 10])})),
            Protocol::Partition => stateful(Workload::stateful_set(&name, replicas), random),
            Protocol::OnDelete => stateful(Workload::stateful_set(&name, replicas).on_delete(), random),
        };
        let signal = one_of(random, &[Signal::Gate, Signal::Gate, Signal::None, Signal::Label]);
        let seconds = one_of(random, &["0", "0.3", "1"]);
        let workload = workload.signal(signal).annotated(RESTART_SECONDS, seconds);

        let mut spec = match protocol {
            Protocol::Transient => workload.transient(&image(1)),
            Protocol::Locked | Protocol::Partition | Protocol::OnDelete => workload.upgrade(),
        };
        spec.strategy.max_unavailable =
            one_of(random, &[IntOrPercent::Int(1), IntOrPercent::Percent(50), IntOrPercent::ALL]);
        if replicas > 1 && random.random_range(0..3) == 0 {
            spec.strategy.steps = in_two_steps(1);
        }
        spec.policy.history = one_of(random, &[History::Snapshot, History::Snapshot, History::None]);

        let mut version = 1;
        let turns = (0..turns).map(|_| {
            // Any but the one that it has.
            version = (version - 1 + random.random_range(1..VERSIONS)) % VERSIONS + 1;
            Turn { after: BETWEEN.mul_f64(random.random()), version }
        });
        let turns = turns.collect();
        Self { protocol, workload, spec, turns }
    }
}

fn stateful(workload: Workload, random: &mut StdRng) -> Workload {
    let management = one_of(random, &["OrderedReady", "Parallel"]);
    let start = one_of(random, &[0, 0, 3]);
    workload.spec(json!({"podManagementPolicy": management, "ordinals": {"start": start}}))
}
