//! A round: many small workloads in one namespace, upgraded all at once.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use futures::future::{join_all, try_join_all};
use kube::ResourceExt;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use springtide_crds::in_place_upgrade::ReadyReason;
use springtide_e2e::upgrade::disturbed::{Disturbed, Processes};
use springtide_e2e::upgrade::pods::Identity;
use springtide_e2e::upgrade::replacements::Replacements;
use springtide_e2e::upgrade::workload::inline;
use springtide_e2e::upgrade::{Testbed, image, native};

use crate::disturbance::{LATEST, disturb};
use crate::stories::{Protocol, Story, Turn};

/// How much there is in a round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    /// Workloads.
    pub(crate) workloads: usize,
    /// Upgrades of each of them, one after the other.
    pub(crate) upgrades: usize,
}

/// What became of a round.
pub(crate) struct Round {
    /// Upgrades that were run to their end.
    pub(crate) runs: usize,
    /// What was done to controllers meanwhile, a line each.
    pub(crate) deeds: Vec<String>,
    /// What may not be, a line each.
    pub(crate) violations: Vec<String>,
}

/// What a workload was before its first upgrade.
struct Before {
    pods: BTreeMap<String, Identity>,
    /// UID of the ReplicaSet with its pods, if it has one.
    active: Option<String>,
}

impl Round {
    /// Plays the round of a seed, of so much, and leaves nothing of it behind.
    ///
    /// # Errors
    /// The workloads do not start, or a process does not.
    pub(crate) async fn play(
        stage: &Disturbed,
        processes: &mut Processes<'_>,
        seed: u64,
        extent: Extent,
    ) -> Result<Self> {
        let mut random = StdRng::seed_from_u64(seed);
        let Extent { workloads, upgrades } = extent;
        let stories: Vec<Story> =
            (0..workloads).map(|number| Story::draw(number, upgrades, &mut random)).collect();
        stage.proxy.forget();
        let test = Testbed::new(&stage.cluster, "random").await?;
        let before = try_join_all(stories.iter().map(|story| begin(&test, story))).await?;
        // Each has forgotten what was before it alone.
        test.pods.now().count_anew();
        let oracle = Replacements::watch(&test).await?;

        let (done, deeds, runs) = (Cell::new(false), RefCell::default(), Cell::new(0));
        let played = async {
            let ends = join_all(stories.iter().map(|story| tell(&test, story, &runs))).await;
            done.set(true);
            ends
        };
        let disturbed = disturb(stage, processes, StdRng::seed_from_u64(random.random()), &done, &deeds);
        let (ends, disturbed) = tokio::join!(played, disturbed);
        disturbed?;
        // What is still on its way late is seen, and answered.
        tokio::time::sleep(LATEST).await;
        let idle = native::is_idle(&test).await;

        let mut violations = oracle.violations();
        let mut note = |what: Result<()>| violations.extend(what.err().map(|error| format!("{error:#}")));
        ends.into_iter().for_each(&mut note);
        note(idle);
        note(test.verify());
        for (story, before) in stories.iter().zip(&before) {
            note(as_before(&test, story, before).await.with_context(|| story.to_string()));
        }
        test.clear().await?;
        Ok(Self { runs: runs.get(), deeds: deeds.into_inner(), violations })
    }
}

/// Starts a workload, and its upgrade with nothing to do.
async fn begin(test: &Testbed<'_>, story: &Story) -> Result<Before> {
    let Story { protocol, workload, spec, .. } = story;
    let name = &workload.name;
    let pods = match protocol {
        Protocol::Locked => test.start_paused(workload).await?,
        Protocol::Transient | Protocol::Partition | Protocol::OnDelete => test.start(workload).await?,
    };
    let active = match protocol {
        Protocol::Locked | Protocol::Transient => native::active(test, name).await?.uid(),
        Protocol::Partition | Protocol::OnDelete => None,
    };
    test.upgrade(name, spec.clone()).await?;
    test.told(name, ReadyReason::UpToDate).await?;
    Ok(Before { pods, active })
}

/// Upgrades a workload again and again.
async fn tell(test: &Testbed<'_>, story: &Story, runs: &Cell<usize>) -> Result<()> {
    for (number, turn) in story.turns.iter().enumerate() {
        let ran = run(test, story, *turn).await;
        ran.with_context(|| format!("upgrade {number} of {story}"))?;
        runs.set(runs.get() + 1);
    }
    Ok(())
}

async fn run(test: &Testbed<'_>, story: &Story, Turn { after, version }: Turn) -> Result<()> {
    let Story { protocol, workload, .. } = story;
    let (name, image) = (&workload.name, image(version));
    tokio::time::sleep(after).await;
    let before = test.target_hash(name);
    match protocol {
        Protocol::Transient => {
            test.edit(name, json!({"spec": {"source": inline(&image)}})).await?;
        }
        Protocol::Locked | Protocol::Partition | Protocol::OnDelete => {
            test.set_image(workload, &image).await?;
        }
    }
    test.succeeded(name, &before).await?;
    native::agrees(test, workload).await?;
    test.running(workload, &image, workload.replicas as usize).await?;
    Ok(())
}

/// Whether a workload has the pods that it had, each of which was restarted once for each upgrade.
async fn as_before(test: &Testbed<'_>, story: &Story, before: &Before) -> Result<()> {
    let Story { workload, turns, .. } = story;
    let name = &workload.name;
    {
        let pods = test.pods.now();
        pods.ensure_same(name, &before.pods)?;
        for life in pods.of(name) {
            let restarts = usize::try_from(life.restarts())?;
            ensure!(restarts == turns.len(), "{}: {restarts} restarts for {turns:?}", life.name());
        }
    }
    if before.active.is_some() {
        let active = native::active(test, name).await?.uid();
        ensure!(active == before.active, "another ReplicaSet has the pods");
    }
    Ok(())
}
