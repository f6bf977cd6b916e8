//! `springtide status`: how objects stand, by what the manager has written into them.

use super::read::Cluster;
use super::{ConnectionArgs, OutputArgs, Subject, TargetKind, Verdict, batch, timeshare, upgrade};
use anyhow::{Result, bail};
use clap::Args;

/// Options of `springtide status`.
#[derive(Args)]
pub(crate) struct StatusArgs {
    /// All queues (bq), upgrades (ipu) or groups (tsg) of the namespace, or one in detail, as bq/NAME, ipu/NAME or
    /// tsg/NAME; the queues when absent.
    #[arg(value_name = "KIND[/NAME]")]
    subject: Option<Subject>,
    /// Those of all namespaces.
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Reads and prints. Writes nothing.
///
/// # Errors
/// The API server cannot be asked, the caller may not read such objects there, or there is no such object.
pub(crate) async fn run(args: StatusArgs) -> Result<Verdict> {
    let queues = Subject { kind: TargetKind::BatchQueue, name: None };
    let Subject { kind, name } = args.subject.unwrap_or(queues);
    let wanted = name.as_deref();
    if wanted.is_some() && args.all_namespaces {
        bail!("an object is in one namespace: leave out --all-namespaces");
    }
    let connect = async || Cluster::connect(&args.connection, "status").await;
    match (kind, wanted) {
        (TargetKind::BatchQueue, wanted) => {
            batch::status::run(&connect().await?, wanted, args.all_namespaces, &args.output).await
        }
        (TargetKind::InPlaceUpgrade, wanted) => {
            upgrade::status::run(&connect().await?, wanted, args.all_namespaces, &args.output).await
        }
        (TargetKind::TimeShareGroup, wanted) => {
            timeshare::status::run(&connect().await?, wanted, args.all_namespaces, &args.output).await
        }
        (TargetKind::BatchJob, Some(name)) => bail!("of a job tells `springtide explain bj/{name}`"),
        (TargetKind::BatchJob, None) => {
            bail!("of jobs tells `kubectl get bj`, of their queues `springtide status`")
        }
    }
}
