//! Switches at random, beside an API server that fails now and then, managers that come and go, and kubelets that take their
//! time or miss what they should have seen: no node gives out more than it has, nobody else gets the room of a switch, and
//! each unit ends wholly on one side. Switches that are taken back at any moment, and managers that are killed in between.
//!
//! `SPRINGTIDE_LONG=1` runs a thousand switches of each order, or as many rounds as `SPRINGTIDE_TIME_SHARE_ROUNDS` says;
//! without it a fixed sample runs. `SPRINGTIDE_TIME_SHARE_SEED` names the one round to run, as a failure prints it: it
//! decides what is done, not what it meets.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail as a test does")]

mod aborts;
mod disturbance;
mod kills;
mod rounds;

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use springtide_e2e::batch::long;
use springtide_e2e::bench::counted::Count;
use springtide_e2e::fault_proxy::{FaultProxy, Protocols};
use springtide_e2e::time_share::{Bounded, Kubelets, cluster};
use springtide_e2e::upgrade::disturbed::{Disturbed, Processes};

use rounds::{Extent, Round, Violations};

/// Names the seed of the one round to run.
const SEED_VARIABLE: &str = "SPRINGTIDE_TIME_SHARE_SEED";
/// Seed of the first round; the next ones follow by one.
const FIRST_SEED: u64 = 20_261_129;
/// Says of how many rounds the long run is.
const ROUNDS_VARIABLE: &str = "SPRINGTIDE_TIME_SHARE_ROUNDS";
/// Rounds of the long run, and what there is in one: a thousand switches of each order, and some more. They wait for what is
/// late, so that many groups take no longer than few.
const LONG: (u64, Extent) = (12, Extent { groups: 36, switches: 7 });
/// The same of the sample.
const SAMPLE: (u64, Extent) = (1, Extent { groups: 12, switches: 2 });

/// A number that the environment may give.
fn given(variable: &str) -> Result<Option<u64>> {
    let given = std::env::var(variable).ok();
    given.map(|given| given.parse().with_context(|| format!("{variable}={given}"))).transpose()
}

fn seeds() -> Result<(Vec<u64>, Extent)> {
    if let Some(seed) = given(SEED_VARIABLE)? {
        return Ok((vec![seed], LONG.1));
    }
    let (rounds, extent) = if long() { LONG } else { SAMPLE };
    let rounds = if long() { given(ROUNDS_VARIABLE)?.unwrap_or(rounds) } else { rounds };
    Ok(((FIRST_SEED..FIRST_SEED + rounds).collect(), extent))
}

/// A cluster whose controller manager and managers go through a proxy, and its kubelets.
async fn disturbed() -> Result<(Kubelets, Disturbed)> {
    let Bounded { kubelets, mut cluster } = cluster().await?;
    cluster.end_controller_manager();
    let proxy = FaultProxy::start(&cluster, Protocols::All)?;
    Ok((kubelets, Disturbed { proxy, cluster }))
}

#[tokio::test(flavor = "multi_thread")]
async fn switches_among_faults_overcommit_no_node_and_lose_no_room() -> Result<()> {
    let (seeds, extent) = seeds()?;
    let (kubelets, stage) = disturbed().await?;
    let mut processes = Processes::start(&stage).await?;
    let mut all: BTreeMap<String, (u64, Violations)> = BTreeMap::new();
    let (mut switches, mut deeds, mut wrong) = (0, 0, Vec::new());
    for seed in &seeds {
        let round = Round::play(&kubelets, &stage, &mut processes, *seed, extent).await;
        let round = round.with_context(|| format!("the round of seed {seed}"))?;
        println!("seed {seed}: {} switches, {} disturbances", round.switches, round.deeds.len());
        switches += round.switches;
        deeds += round.deeds.len();
        for (what, (tries, violations)) in round.counts {
            let (sum, known) = all.entry(what).or_default();
            *sum += tries;
            known.extend(violations);
        }
        if !round.violations.is_empty() {
            let (found, course) = (round.violations.join("\n"), round.deeds.join("\n"));
            eprintln!("{SEED_VARIABLE}={seed}:\n{found}\nwhat was done meanwhile, in seconds:\n{course}");
            wrong.extend(round.violations);
        }
    }
    wrong.extend(all.values().flat_map(|(_, violations)| violations.iter().cloned()));
    if long() {
        for (what, (tries, violations)) in &all {
            Count {
                what: format!("time_share-{what}"),
                tries: *tries,
                starts: deeds as u64,
                violations: violations.len() as u64,
            }
            .tell()?;
        }
    }
    ensure!(wrong.is_empty(), "{} of {switches} switches:\n{}", wrong.len(), wrong.join("\n"));
    ensure!(switches == seeds.len() * extent.groups * extent.switches, "{switches} switches were done");
    Ok(())
}
