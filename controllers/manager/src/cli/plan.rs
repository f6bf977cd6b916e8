//! `springtide plan`: what the manager would write, for an object that is there or for a manifest.

use super::manifest::{self, Applied, Trial};
use super::read::{Cluster, Unread};
use super::text::unread;
use super::timeshare::plan::SwitchPlan;
use super::upgrade::plan::UpgradePlan;
use super::{
    API_VERSION, ConnectionArgs, OutputArgs, RehearsalArgs, Target, TargetKind, Verdict, batch, timeshare,
    upgrade,
};
use anyhow::{Result, bail};
use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use springtide_batch_job::rehearsal::{Explanation, PlannedWrite};
use springtide_plumbing::key::ObjectKey;
use springtide_plumbing::projection::Projection;
use std::fmt::Write as _;
use std::path::PathBuf;

/// Options of `springtide plan`.
#[derive(Args)]
pub(crate) struct PlanArgs {
    /// The upgrade or group, as ipu/NAME or tsg/NAME.
    #[arg(value_name = "KIND/NAME", required_unless_present = "filename", conflicts_with = "filename")]
    target: Option<Target>,
    /// Manifest of BatchJobs, BatchQueues, InPlaceUpgrades and TimeShareGroups (YAML or JSON, any number of documents);
    /// - reads standard input.
    #[arg(short, long, value_name = "FILE")]
    filename: Option<PathBuf>,
    /// As whom `kubectl apply --server-side` would write: what the manifest leaves out goes where it was this one's.
    #[arg(long, default_value = "kubectl")]
    field_manager: String,
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(flatten)]
    rehearsal: RehearsalArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// What the command says.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Answer {
    pub(super) api_version: &'static str,
    pub(super) kind: &'static str,
    /// For when it was computed.
    pub(super) time: Timestamp,
    /// The objects of the manifest.
    pub(super) objects: Vec<Applied>,
    /// Writes of the manager for jobs that they lead to now, in their order; those of statuses aside.
    pub(super) writes: Vec<PlannedWrite>,
    /// Writes for jobs that are due now, and would be no longer.
    pub(super) spared: Vec<PlannedWrite>,
    /// How the jobs of the manifest stand after these writes.
    pub(super) jobs: Vec<Explanation>,
    /// The plans of upgrades, with their writes.
    pub(super) upgrades: Vec<UpgradePlan>,
    /// The plans of TimeShareGroups: each unit of the switch that is open or comes next, with its writes.
    pub(super) switches: Vec<SwitchPlan>,
    /// Whether there are more writes than were looked at.
    pub(super) is_cut: bool,
    /// Whether nodes are seen: for jobs, what fits on them; where not, their writes are the most that there could be at
    /// first.
    pub(super) sees_nodes: bool,
    /// What could not be read, and what that means.
    pub(super) not_seen: Vec<Unread>,
}

impl Answer {
    /// A plan of nothing.
    pub(super) fn new(time: Timestamp, objects: Vec<Applied>) -> Self {
        Self {
            api_version: API_VERSION,
            kind: "WritePlan",
            time,
            objects,
            writes: Vec::new(),
            spared: Vec::new(),
            jobs: Vec::new(),
            upgrades: Vec::new(),
            switches: Vec::new(),
            is_cut: false,
            sees_nodes: true,
            not_seen: Vec::new(),
        }
    }

    /// Whether anything of BatchJobs is planned.
    fn is_of_jobs(&self) -> bool {
        self.objects
            .iter()
            .any(|object| !["InPlaceUpgrade", "TimeShareGroup"].contains(&object.kind.as_str()))
    }
}

/// Reads, asks the server to try, computes, prints. Nothing is stored.
///
/// # Errors
/// There is no such object, the manifest is no such manifest, the server refuses it, or cannot be asked.
pub(crate) async fn run(args: PlanArgs) -> Result<Verdict> {
    let answer = match (&args.target, &args.filename) {
        (Some(Target { kind: TargetKind::InPlaceUpgrade, name }), _) => of_upgrade(&args, name).await?,
        (Some(Target { kind: TargetKind::TimeShareGroup, name }), _) => of_group(&args, name).await?,
        (Some(Target { kind: TargetKind::BatchJob, name }), _) => {
            bail!("of a job that is there tells `springtide explain bj/{name}`")
        }
        (Some(Target { kind: TargetKind::BatchQueue, name }), _) => {
            bail!("of a queue that is there tells `springtide status bq/{name}`")
        }
        (None, Some(file)) => of_manifest(&args, manifest::read(file)?).await?,
        // The command line asks for one of them.
        (None, None) => {
            bail!("give an upgrade or group, as ipu/NAME or tsg/NAME, or a manifest with --filename")
        }
    };
    let verdict = verdict(&answer);
    print!("{}", args.output.render(&answer, || text(&answer))?);
    Ok(verdict)
}

async fn of_upgrade(args: &PlanArgs, name: &str) -> Result<Answer> {
    let cluster = Cluster::connect(&args.connection, "plan").await?;
    let mut answer = Answer::new(args.rehearsal.time(), Vec::new());
    let key = ObjectKey::new(cluster.namespace.as_str(), name);
    let keys = std::slice::from_ref(&key);
    upgrade::plan::add(&mut answer, &cluster, &args.rehearsal, &key.namespace, Vec::new(), keys).await?;
    Ok(answer)
}

async fn of_group(args: &PlanArgs, name: &str) -> Result<Answer> {
    let cluster = Cluster::connect(&args.connection, "plan").await?;
    let mut answer = Answer::new(args.rehearsal.time(), Vec::new());
    let key = ObjectKey::new(cluster.namespace.as_str(), name);
    let keys = std::slice::from_ref(&key);
    timeshare::plan::add(&mut answer, &cluster, &key.namespace, Vec::new(), keys).await?;
    Ok(answer)
}

async fn of_manifest(args: &PlanArgs, manifests: Vec<serde_json::Value>) -> Result<Answer> {
    let cluster = Cluster::connect(&args.connection, "plan").await?;
    let trial = Trial {
        cluster: &cluster,
        asked_namespace: args.connection.namespace.as_deref(),
        field_manager: &args.field_manager,
        now: args.rehearsal.time(),
    };
    let manifest::Objects { applied, jobs, queues, upgrades, groups } = trial.run(manifests).await?;
    let mut answer = Answer::new(trial.now, applied);
    if !jobs.is_empty() || !queues.is_empty() {
        batch::plan::add(&mut answer, &cluster, &args.rehearsal, jobs, queues).await?;
    }
    let mut keys: Vec<ObjectKey> = upgrades.iter().map(|upgrade| upgrade.meta().key.clone()).collect();
    keys.sort();
    for of_one in keys.chunk_by(|a, b| a.namespace == b.namespace) {
        if let Some(first) = of_one.first() {
            let changed = upgrades.iter().filter(|upgrade| upgrade.meta().key.namespace == first.namespace);
            let changed = changed.cloned().collect();
            upgrade::plan::add(&mut answer, &cluster, &args.rehearsal, &first.namespace, changed, of_one)
                .await?;
        }
    }
    let mut keys: Vec<ObjectKey> = groups.iter().map(|group| group.meta().key.clone()).collect();
    keys.sort();
    for of_one in keys.chunk_by(|a, b| a.namespace == b.namespace) {
        if let Some(first) = of_one.first() {
            let changed = groups.iter().filter(|group| group.meta().key.namespace == first.namespace);
            let changed = changed.cloned().collect();
            timeshare::plan::add(&mut answer, &cluster, &first.namespace, changed, of_one).await?;
        }
    }
    Ok(answer)
}

fn verdict(answer: &Answer) -> Verdict {
    let of_jobs = answer.jobs.iter().map(batch::plan::verdict);
    let of_upgrades = answer.upgrades.iter().map(|plan| upgrade::verdict(&plan.explanation));
    let of_groups = answer.switches.iter().map(|plan| timeshare::verdict(&plan.explanation));
    of_jobs.chain(of_upgrades).chain(of_groups).max().unwrap_or(Verdict::Fine)
}

fn text(answer: &Answer) -> String {
    let mut text = String::new();
    manifest::text(&mut text, &answer.objects);
    if answer.is_of_jobs() {
        let _ = writeln!(text);
        batch::plan::text(&mut text, answer);
    }
    for (place, plan) in answer.upgrades.iter().enumerate() {
        if place > 0 || !text.is_empty() {
            let _ = writeln!(text);
        }
        upgrade::plan::text(&mut text, plan, answer.time);
    }
    for plan in &answer.switches {
        if !text.is_empty() {
            let _ = writeln!(text);
        }
        timeshare::plan::text(&mut text, plan, answer.time);
    }
    unread(&mut text, &answer.not_seen);
    text
}

#[cfg(test)]
mod tests;
