//! `make bench-plumbing`: what the plumbing costs and keeps to, on a real API server, each figure beside
//! the raw limit or a peer measured in the same run.

mod brake;
mod dimensions;
mod fairness;
mod leadership;
mod lease;
mod memory;
mod pressure;
mod recovery;
mod report;
mod seats;
mod storm;

use anyhow::Result;
use clap::Parser;
use springtide_e2e::bench::report::Report;
use springtide_e2e::local_cluster::LocalCluster;

/// How much is measured.
#[derive(Parser)]
#[command(name = "bench-plumbing")]
struct Options {
    /// Pods that are watched.
    #[arg(long, default_value_t = 20_000)]
    pods: usize,
    /// Seconds of each run under write pressure.
    #[arg(long, default_value_t = 20)]
    pressure_seconds: u64,
    /// Seconds over which the writes of a lease are counted.
    #[arg(long, default_value_t = 60)]
    lease_seconds: u64,
    /// Graceful hand-overs.
    #[arg(long, default_value_t = 10)]
    handovers: usize,
    /// Brakes by each switch, crashes of the leader, and faults of each kind.
    #[arg(long, default_value_t = 3)]
    times: usize,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    // Names the commit, which may not be the last one any more at the end.
    let report = Report::new("plumbing")?;
    eprintln!("[1/5] memory and decoding of {} pods", options.pods);
    // Without controllers: what is created stays as it is.
    let cluster = LocalCluster::builder().without_audit().without_controllers().start().await?;
    cluster.install_crds().await?;
    let memory = memory::measure(&cluster, options.pods).await?;
    cluster.stop()?;

    eprintln!("[2/5] writes under pressure, {} s a run", options.pressure_seconds);
    let cluster = LocalCluster::builder().without_audit().without_controllers().start().await?;
    let pressure = pressure::measure(&cluster, options.pressure_seconds).await?;
    cluster.stop()?;

    eprintln!("[3/5] writes of a lease in {} s", options.lease_seconds);
    let cluster = LocalCluster::builder().without_controllers().start().await?;
    cluster.install_crds().await?;
    let lease_writes = leadership::writes_per_second(&cluster, options.lease_seconds).await?;

    eprintln!("[4/5] {} hand-overs and {} crashes", options.handovers, options.times);
    let changes = leadership::changes(&cluster, options.handovers, options.times).await?;
    cluster.stop()?;

    // Both wait most of the time, on clusters of their own.
    eprintln!("[5/5] brake and recovery, {} times each", options.times);
    let (silence, recoveries) =
        tokio::try_join!(brake::measure(options.times), recovery::measure(options.times))?;
    report::write(&report, &report::Measured { memory, pressure, lease_writes, changes, silence, recoveries })
}
