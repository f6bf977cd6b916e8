//! Upgrades at random, beside controllers that see late what changes and come and go: no pod is replaced for them, whatever
//! the moment. Managers that are killed in mid-run, and managers with nothing to do.
//!
//! `SPRINGTIDE_LONG=1` runs a thousand upgrades, without it a fixed sample runs. `SPRINGTIDE_UPGRADE_SEED` names the one
//! round to run, as a failure prints it: it decides what is done, not what it meets.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail as a test does")]

mod disturbance;
mod kills;
mod rest;
mod rounds;
mod stories;

use anyhow::{Context, Result, ensure};
use springtide_e2e::batch::long;
use springtide_e2e::bench::counted::Count;
use springtide_e2e::upgrade::disturbed::{Disturbed, Processes};

use rounds::{Extent, Round};

/// Names the seed of the one round to run.
const SEED_VARIABLE: &str = "SPRINGTIDE_UPGRADE_SEED";
/// Seed of the first round; the next ones follow by one.
const FIRST_SEED: u64 = 20_261_128;
/// Rounds of the long run, and what there is in one: a thousand upgrades in all. They wait for what is late, so that many
/// workloads take no longer than few.
const LONG: (u64, Extent) = (5, Extent { workloads: 50, upgrades: 4 });
/// The same of the sample.
const SAMPLE: (u64, Extent) = (1, Extent { workloads: 20, upgrades: 1 });

fn seeds() -> Result<(Vec<u64>, Extent)> {
    let (rounds, extent) = if long() { LONG } else { SAMPLE };
    Ok(match std::env::var(SEED_VARIABLE).ok() {
        Some(seed) => (vec![seed.parse::<u64>().with_context(|| format!("{SEED_VARIABLE}={seed}"))?], LONG.1),
        None => ((FIRST_SEED..FIRST_SEED + rounds).collect(), extent),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn upgrades_at_random_beside_controllers_that_are_late_and_replaced_replace_no_pod() -> Result<()> {
    let (seeds, extent) = seeds()?;
    let stage = Disturbed::start().await?;
    let mut processes = Processes::start(&stage).await?;
    let (mut runs, mut deeds, mut violations) = (0, 0, Vec::new());
    for seed in &seeds {
        let round = Round::play(&stage, &mut processes, *seed, extent).await;
        let round = round.with_context(|| format!("the round of seed {seed}"))?;
        println!("seed {seed}: {} upgrades, {} disturbances", round.runs, round.deeds.len());
        runs += round.runs;
        deeds += round.deeds.len();
        if !round.violations.is_empty() {
            let (wrong, course) = (round.violations.join("\n"), round.deeds.join("\n"));
            eprintln!("{SEED_VARIABLE}={seed}:\n{wrong}\nwhat was done meanwhile, in seconds:\n{course}");
            violations.extend(round.violations);
        }
    }
    if long() {
        Count {
            what: "upgrade_random-replacements".to_owned(),
            tries: runs as u64,
            starts: deeds as u64,
            violations: violations.len() as u64,
        }
        .tell()?;
    }
    ensure!(violations.is_empty(), "{} of {runs} upgrades:\n{}", violations.len(), violations.join("\n"));
    ensure!(runs == seeds.len() * extent.workloads * extent.upgrades, "{runs} upgrades were run");
    Ok(())
}
