//! `make bench-batch`: single-pod BatchJobs against the raw limit of the same machine, in one run.
//!
//! The raw limit R' is the write chain of one job (create job, create pod, bind, two pod statuses,
//! status, delete pod, delete job) driven by a generator without a controller, with the same
//! scheduler and KWOK. Both use the same cluster, one after the other.

mod decision;
mod manifests;
mod raw;
mod report;
mod through;
mod waiting;
mod watcher;
mod writes;

use anyhow::{Context, Result};
use clap::Parser;
use springtide_e2e::bench::report::Report;
use springtide_e2e::kwok::NodeSpec;
use springtide_e2e::local_cluster::LocalCluster;
use springtide_e2e::manager::Manager;
use springtide_e2e::node::{NodeCluster, required_or_skipped};
use std::time::Duration;

/// Namespaces over which jobs are spread: the declared maximum of one is 1 500.
const NAMESPACES: usize = 8;

/// Distance of two jobs in the latency run.
const PACE: Duration = Duration::from_millis(100);
/// Jobs of the latency run on a real node, and their distance: containers start on the same cores.
const CONTAINER_JOBS: usize = 40;
const CONTAINER_PACE: Duration = Duration::from_millis(500);

/// What is measured, and how much of it.
#[derive(Parser)]
#[command(name = "bench-batch")]
struct Options {
    /// Jobs of the throughput runs.
    #[arg(long, default_value_t = 10_000)]
    jobs: usize,
    /// Lives of each step of the R' sweep.
    #[arg(long, default_value_t = 3_000)]
    lives: usize,
    /// In-flight lives of the R' sweep; the best counts.
    #[arg(long, value_delimiter = ',', default_values_t = [32, 64, 128, 256])]
    in_flight: Vec<usize>,
    /// Nodes that KWOK plays.
    #[arg(long, default_value_t = 200)]
    nodes: usize,
    /// Seconds of the latency run at ten jobs a second.
    #[arg(long, default_value_t = 60)]
    latency_seconds: usize,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    // Names the commit, which may not be the last one any more at the end.
    let report = Report::new("batch")?;
    eprintln!("[1/9] control plane with {} KWOK nodes", options.nodes);
    let nodes = NodeSpec { count: options.nodes, ..NodeSpec::default() };
    let cluster = LocalCluster::builder().without_audit().with_fsync().kwok(nodes).start().await?;
    cluster.install_crds().await?;
    let mut namespaces = Vec::new();
    for _ in 0..NAMESPACES {
        namespaces.push(cluster.create_namespace("bench").await?);
    }

    eprintln!("[2/9] R': {} lives at each of {:?} in flight", options.lives, options.in_flight);
    let mut sweep = Vec::new();
    for in_flight in &options.in_flight {
        let rate = raw::lives_per_second(&cluster, &namespaces, options.lives, *in_flight).await?;
        eprintln!("      {in_flight:>4} in flight: {rate:.1} lives/s");
        sweep.push((*in_flight, rate));
    }

    let mut runs = Vec::new();
    for (step, factor) in [(3, 1.0), (4, 10.0)] {
        eprintln!("[{step}/9] {} jobs through the manager, write budget x {factor}", options.jobs);
        let factor_text = factor.to_string();
        let mut manager =
            Manager::start(&cluster, &format!("manager-{factor}"), &["--write-budget-factor", &factor_text])
                .await?;
        manager.wait_ready().await?;
        let run = through::throughput(&cluster, &namespaces, options.jobs, manager.child().pid()).await;
        let run = run.with_context(|| format!("write budget x {factor}"))?;
        eprintln!(
            "      {:.1} jobs/s, {:.1} CPU-s, {:.0} MiB RSS",
            run.rate, run.usage.cpu_seconds, run.usage.peak_mib
        );
        runs.push((factor, run));
        manager.stop()?;
    }

    eprintln!("[5/9] latency at 10 jobs/s for {} s", options.latency_seconds);
    let mut manager = Manager::start(&cluster, "manager-latency", &[]).await?;
    manager.wait_ready().await?;
    let latency = through::paced(&cluster, &namespaces, options.latency_seconds * 10, PACE).await?;
    manager.stop()?;

    eprintln!("[6/9] {} jobs that wait and {} that run", waiting::WAITING, waiting::RUNNING);
    let waiting = waiting::measure(&cluster, &namespaces).await?;
    cluster.stop()?;

    eprintln!("[7/9] latency with real containers, {CONTAINER_JOBS} jobs");
    let containers = on_a_real_node().await?;

    eprintln!("[8/9] writes a job, on a cluster of its own with an audit log");
    let writes = writes::per_job().await?;

    eprintln!("[9/9] CPU time of a decision over {} jobs", decision::JOBS);
    let decision = decision::cpu_time()?;

    let options = report::Shape::of(&options);
    report::write(
        &report,
        &report::Measured { options, sweep, runs, latency, containers, waiting, writes, decision },
    )
}

/// The latency run with a kubelet and containers; none where no node can run and `SPRINGTIDE_NODE=off` says so.
async fn on_a_real_node() -> Result<Option<through::Latency>> {
    if !required_or_skipped().await? {
        return Ok(None);
    }
    let cluster = NodeCluster::builder().start().await?;
    let plane = cluster.control_plane();
    plane.install_crds().await?;
    let namespace = plane.create_namespace("bench").await?;
    let mut manager = Manager::start(plane, "manager-containers", &[]).await?;
    manager.wait_ready().await?;
    let latency = through::paced(plane, &[namespace], CONTAINER_JOBS, CONTAINER_PACE).await?;
    manager.stop()?;
    cluster.stop()?;
    Ok(Some(latency))
}
