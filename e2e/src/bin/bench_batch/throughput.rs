//! As many jobs as a system takes, all at once.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use springtide_e2e::bench::scrape::{Scrape, Traffic};
use springtide_e2e::bench::stats::rates_of_tenths;
use springtide_e2e::local_cluster::LocalCluster;
use springtide_e2e::manager::Manager;

use crate::generator::Generator;
use crate::manifests::{System, Task};
use crate::processes::{Beside, Meter, Spent};
use crate::served::Served;
use crate::watcher::{Jobs, Seen, Watcher, spans};

/// The longest that a run may take.
pub(crate) const BOUND: Duration = Duration::from_secs(60 * 60);

/// One run.
#[derive(Serialize, Deserialize)]
pub(crate) struct Run {
    /// How many there were.
    pub(crate) jobs: usize,
    /// Jobs a second, from the first create until all objects are gone.
    pub(crate) rate: f64,
    /// The same of each tenth of the jobs, in the order in which they went.
    pub(crate) tenths: Vec<f64>,
    /// What each process used.
    pub(crate) spent: Spent,
    /// What the manager sent, of a run that had one.
    pub(crate) traffic: Option<Traffic>,
    /// What everybody wrote, by the API server's own count.
    pub(crate) served: Served,
    /// Create sent to pod seen, in seconds, sorted.
    pub(crate) create_to_pod: Vec<f64>,
    /// Pod ended to pod gone, in seconds, sorted.
    pub(crate) exit_to_gone: Vec<f64>,
}

/// Creates jobs of one short task each as fast as the server takes them, and waits until all of them are gone.
pub(crate) async fn run(
    cluster: &LocalCluster,
    generator: &Generator,
    system: System,
    prefix: &str,
    jobs: usize,
    beside: Beside<'_>,
) -> Result<Run> {
    let manager = beside.manager();
    let watcher = Watcher::start(cluster, system, prefix, Jobs::Presence).await?;
    let before = scrape(manager).await?;
    let served = Served::until_now(&generator.client).await?;
    let meter = Meter::start_beside(cluster, beside.process())?;
    let start = Instant::now();
    let sent: HashMap<String, Instant> = generator.create(system, prefix, jobs, |_| Task::of("0")).await?;
    eprintln!("      all created after {:.0} s", start.elapsed().as_secs_f64());
    watcher.until_all("gone", jobs, BOUND, |seen| seen.is_gone()).await?;
    let spent = meter.end()?;
    let served = Served::until_now(&generator.client).await?.since(served);
    let traffic = before.zip(scrape(manager).await?);
    let traffic = traffic.map(|(before, after)| Traffic::between(&before, &after, spent.seconds));
    let seen = watcher.all();
    let ends = spans(&seen, |_, _| Some(start), Seen::gone);
    let last = ends.last().copied().context("no job has gone")?;
    Ok(Run {
        jobs,
        rate: jobs as f64 / last,
        tenths: rates_of_tenths(&ends),
        spent,
        traffic,
        served,
        create_to_pod: spans(&seen, |key, _| sent.get(key).copied(), |seen| seen.pod_added),
        exit_to_gone: spans(&seen, |_, seen| seen.pod_ended, |seen| seen.pod_gone),
    })
}

async fn scrape(manager: Option<&Manager>) -> Result<Option<Scrape>> {
    Ok(match manager {
        Some(manager) => Some(Scrape::of(manager).await?),
        None => None,
    })
}
