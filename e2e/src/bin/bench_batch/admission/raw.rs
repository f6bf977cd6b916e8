//! The raw rate of writes of custom resources: what Kueue writes for a workload, and a generator alone: create and
//! two statuses of an object.

use std::ops::Range;

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt};
use springtide_e2e::bench::lives::{Lives, best, lead, middle};
use springtide_e2e::bench::post;

use crate::comparison::Sweep;
use crate::generator::Generator;
use crate::manifests::{self, System, Task};

/// Writes of one life.
pub(super) const WRITES: usize = 3;
const MERGE: &str = "application/merge-patch+json";
/// Objects that are deleted at once.
const DELETES_IN_FLIGHT: usize = 64;

/// What was measured.
pub(super) struct Raw {
    /// By lives in flight.
    pub(super) sweep: Vec<Lives>,
}

impl Raw {
    /// Writes a second, the best of the sweep; NaN if there is none.
    pub(super) fn rate(&self) -> f64 {
        best(&self.sweep, f64::INFINITY).map_or(f64::NAN, |lives| WRITES as f64 * lives.rate)
    }
}

/// Measures it, by the steps that bare pods have. The objects of a try go after it, which does not count: they would be
/// a few hundred thousand in the end.
pub(super) async fn measure(generator: &Generator, plan: &Sweep) -> Result<Raw> {
    let window = Sweep::window(plan.seconds);
    let mut first = 0;
    let mut sweep = Vec::new();
    for in_flight in &plan.bare_in_flight {
        let mut tries = Vec::new();
        for _ in 0..plan.times {
            let (of_lives, begin) = (generator.clone(), first);
            let life = move |number| {
                let generator = of_lives.clone();
                async move { life(&generator, number).await }
            };
            tries.push(lead(*in_flight, window, &mut first, life).await?);
            remove(generator, begin..first).await?;
        }
        let lives = middle(tries).context("a sweep without tries")?;
        eprintln!("      raw, {in_flight} in flight: {:.0} writes/s", WRITES as f64 * lives.rate);
        sweep.push(lives);
    }
    Ok(Raw { sweep })
}

/// Deletes the objects of lives with these numbers.
async fn remove(generator: &Generator, numbers: Range<usize>) -> Result<()> {
    futures::stream::iter(numbers)
        .map(|number| async move {
            let jobs = System::BatchJob.jobs(generator.namespace(number));
            let name = format!("raw-{number}");
            generator.delete(&jobs, &name).await.with_context(|| format!("delete {name}"))
        })
        .buffer_unordered(DELETES_IN_FLIGHT)
        .try_collect()
        .await
}

async fn life(generator: &Generator, number: usize) -> Result<()> {
    let (namespace, name) = (generator.namespace(number), format!("raw-{number}"));
    let jobs = System::BatchJob.jobs(namespace);
    let job = System::BatchJob.job(namespace, &name, &Task::of("never"));
    post(&generator.client, &jobs, &job).await.with_context(|| format!("create {name}"))?;
    let path = format!("{jobs}/{name}");
    let mut status = manifests::final_status();
    for active in [1, 0] {
        // Each differs from the one before, or nothing would be written.
        status["status"]["active"] = active.into();
        generator.patch_status(&path, &status, MERGE).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_counts_for_its_writes() {
        let lives = |in_flight, rate| Lives { in_flight, rate, p50: 0.1, p99: 0.2 };
        assert_eq!(Raw { sweep: vec![lives(32, 200.0), lives(64, 150.0)] }.rate(), 600.0);
        assert!(Raw { sweep: Vec::new() }.rate().is_nan());
    }
}
