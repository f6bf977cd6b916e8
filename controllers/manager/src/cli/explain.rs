//! `springtide explain`: why an object is where it is.

use super::read::Cluster;
use super::{
    ConnectionArgs, OutputArgs, RehearsalArgs, Target, TargetKind, Verdict, batch, timeshare, upgrade,
};
use anyhow::{Result, bail};
use clap::Args;

/// Options of `springtide explain`.
#[derive(Args)]
pub(crate) struct ExplainArgs {
    /// The job, upgrade or group, as bj/NAME, ipu/NAME or tsg/NAME.
    #[arg(value_name = "KIND/NAME")]
    target: Target,
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(flatten)]
    rehearsal: RehearsalArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Reads, computes, prints. Writes nothing.
///
/// # Errors
/// The API server cannot be asked, there is no such object, or not even its namespace may be read.
pub(crate) async fn run(args: ExplainArgs) -> Result<Verdict> {
    let Target { kind, name } = &args.target;
    let connect = async || Cluster::connect(&args.connection, "explain").await;
    match kind {
        TargetKind::BatchJob => {
            batch::explain::run(&connect().await?, name, &args.rehearsal, &args.output).await
        }
        TargetKind::InPlaceUpgrade => {
            upgrade::explain::run(&connect().await?, name, &args.rehearsal, &args.output).await
        }
        TargetKind::TimeShareGroup => {
            timeshare::explain::run(&connect().await?, name, &args.rehearsal, &args.output).await
        }
        TargetKind::BatchQueue => bail!("a queue waits for nothing: see `springtide status bq/{name}`"),
    }
}
