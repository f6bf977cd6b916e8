//! A round: some groups that switch there and back, each on nodes of its own that are full.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::future::{join_all, try_join_all};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use springtide_crds::time_share_group::{OnStuck, Order, Overlap, ReadyReason, TrafficMode};
use springtide_e2e::time_share::Kubelets;
use springtide_e2e::time_share::node_stage::GROUP;
use springtide_e2e::time_share::stage::{Setting, Stage};
use springtide_e2e::upgrade::disturbed::{Disturbed, Processes};

use crate::disturbance::{LATEST, disturb};

/// How much there is in a round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    /// Groups, of each order as many.
    pub(crate) groups: usize,
    /// Switches of each of them, one after the other.
    pub(crate) switches: usize,
}

/// Nodes of a group, each with as many units.
const NODES: u32 = 3;
const UNITS: u32 = 2;
/// Longest time before a group's next switch.
const BETWEEN: Duration = Duration::from_secs(2);

/// What may not be, a line each.
pub(crate) type Violations = Vec<String>;

/// What became of a round.
pub(crate) struct Round {
    /// Switches that came to their end.
    pub(crate) switches: usize,
    /// What was done meanwhile, a line each.
    pub(crate) deeds: Vec<String>,
    /// What may not be, beside what is counted.
    pub(crate) violations: Violations,
    /// By what is counted: switches, and what may not be.
    pub(crate) counts: BTreeMap<String, (u64, Violations)>,
}

/// What becomes of one group, all of it by the round's seed.
#[derive(Clone, Debug)]
struct Story {
    order: Order,
    mode: TrafficMode,
    overlap: Overlap,
    in_flight: u32,
    /// Time before each of its switches.
    pauses: Vec<Duration>,
}

impl Story {
    fn draw(number: usize, turns: usize, random: &mut StdRng) -> Self {
        // Each order in each round.
        let order = [Order::Pipelined, Order::ClaimFirst, Order::ShrinkFirst][number % 3];
        let mode = if random.random_range(0..3) == 0 {
            TrafficMode::ReadinessGate
        } else {
            TrafficMode::ServiceLabel
        };
        let overlap = if random.random_range(0..2) == 0 { Overlap::WhenFree } else { Overlap::Never };
        let in_flight = random.random_range(1..=6);
        let pauses = (0..turns).map(|_| BETWEEN.mul_f64(random.random())).collect();
        Self { order, mode, overlap, in_flight, pauses }
    }

    fn name(&self) -> &'static str {
        match self.order {
            Order::Pipelined => "pipelined",
            Order::ClaimFirst => "claim-first",
            Order::ShrinkFirst => "shrink-first",
        }
    }

    /// Whether nobody else may ever get its room. To one that claims first, what comes between its resizes is no matter.
    fn keeps_its_room(&self, is_calm: bool) -> bool {
        match self.order {
            Order::Pipelined => is_calm,
            Order::ClaimFirst => true,
            Order::ShrinkFirst => false,
        }
    }
}

impl Round {
    /// Plays the round of a seed, of so much, and leaves nothing of it behind. Every other round is calm: nothing comes between
    /// the two resizes of a unit.
    ///
    /// # Errors
    /// The groups do not start, or a process does not.
    pub(crate) async fn play(
        kubelets: &Kubelets,
        stage: &Disturbed,
        processes: &mut Processes<'_>,
        seed: u64,
        extent: Extent,
    ) -> Result<Self> {
        let mut random = StdRng::seed_from_u64(seed);
        let is_calm = seed % 2 == 1;
        let Extent { groups, switches: turns } = extent;
        let stories: Vec<Story> = (0..groups).map(|number| Story::draw(number, turns, &mut random)).collect();
        stage.proxy.forget();
        let groups = try_join_all(stories.iter().map(|story| begin(stage, story, is_calm))).await?;

        let (done, deeds, switches) = (Cell::new(false), RefCell::default(), Cell::new(0));
        let played = async {
            let told = groups.iter().zip(&stories).map(|(group, story)| tell(group, story, &switches));
            let ends = join_all(told).await;
            done.set(true);
            ends
        };
        let seeded = StdRng::seed_from_u64(random.random());
        let disturbed = disturb(kubelets, stage, processes, seeded, is_calm, &done, &deeds);
        let (ends, disturbed) = tokio::join!(played, disturbed);
        disturbed?;
        // What is still on its way late is seen, and answered.
        tokio::time::sleep(LATEST).await;

        let mut violations = Vec::new();
        let mut counts: BTreeMap<String, (u64, Violations)> = BTreeMap::new();
        let robbers: Vec<Vec<String>> = groups.iter().map(|group| group.robbers(kubelets)).collect();
        let rests = join_all(groups.iter().map(rests_where_it_belongs)).await;
        let ended = groups.iter().zip(&stories).zip(ends.into_iter().zip(rests)).zip(robbers);
        for (((group, story), (end, rest)), robbers) in ended {
            let mut note = |what: Result<()>| {
                violations.extend(what.err().map(|error| format!("{story:?}: {error:#}")));
            };
            note(end);
            note(rest);
            note(group.test.verify());
            let tries = turns as u64;
            let (sum, known) = counts.entry(format!("overcommit-{}", story.name())).or_default();
            *sum += tries;
            known.extend(group.overcommitted().await?);
            if story.keeps_its_room(is_calm) {
                let (sum, known) = counts.entry(format!("theft-{}", story.name())).or_default();
                *sum += tries;
                known.extend(robbers.into_iter().map(|pod| format!("{story:?}: {pod} has got room")));
            }
        }
        try_join_all(groups.iter().map(Stage::clear)).await?;
        Ok(Self { switches: switches.get(), deeds: deeds.into_inner(), violations, counts })
    }
}

/// Starts a group, and on each of its nodes a pod of somebody else that waits for room, where nobody may get any.
async fn begin<'a>(stage: &'a Disturbed, story: &Story, is_calm: bool) -> Result<Stage<'a>> {
    let mode = story.mode;
    let setting = Setting::new(story.name(), NODES).pods([UNITS, UNITS]).each(|member| member.mode(mode));
    let group = setting
        .start(&stage.cluster, |spec| {
            let switch = &mut spec.switch;
            (switch.order, switch.overlap) = (story.order, story.overlap);
            (switch.max_in_flight_units, switch.on_stuck) = (story.in_flight, OnStuck::Skip);
            switch.nudge_after_seconds = 2;
            spec.guards.failure_threshold_percent = 100;
        })
        .await?;
    if story.keeps_its_room(is_calm) {
        group.wait_for_room(NODES as usize).await?;
    }
    Ok(group)
}

/// Switches a group there and back again and again.
async fn tell(group: &Stage<'_>, story: &Story, switches: &Cell<usize>) -> Result<()> {
    for (number, pause) in story.pauses.iter().enumerate() {
        let member = if number % 2 == 0 { "promo" } else { "pay" };
        tokio::time::sleep(*pause).await;
        group.give(member).await?;
        let reasons = [ReadyReason::Settled, ReadyReason::SettledWithSkips, ReadyReason::Degraded];
        group
            .test
            .settled_as(GROUP, Some(member), &reasons)
            .await
            .with_context(|| format!("switch {number} of {story:?}"))?;
        switches.set(switches.get() + 1);
    }
    Ok(())
}

/// Once nobody disturbs it any more, a group that was given up in part is wholly on one side, and one more switch there and
/// back leaves nothing undone.
async fn rests_where_it_belongs(group: &Stage<'_>) -> Result<()> {
    group.let_others_go().await?;
    for member in ["promo", "pay"] {
        group.give(member).await?;
        group.settled(member).await?;
        group.ensure_peak(member).await?;
    }
    group.whole().await
}
