//! The demo of peak windows: a queue that drains, stays closed and opens again, on a control plane of its own with
//! nodes that KWOK plays. It shows what happens, judges it, and removes everything.

mod judge;
mod show;
#[path = "../demo/steps.rs"]
mod steps;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use kube::api::{Api, PostParams};
use serde_json::json;
use springtide_crds::batch_job::{BatchJob, BatchJobSpec, Interruption};
use springtide_crds::batch_queue::{BatchQueue, BatchQueueSpec};
use springtide_crds::common::Tier;
use springtide_e2e::batch::{GENERAL, Task, pool};
use springtide_e2e::local_cluster::LocalCluster;
use springtide_e2e::manager::Manager;

use judge::Record;
use show::{Screen, View};
use steps::Steps;

/// Where it all happens.
const NAMESPACE: &str = "default";
/// Name of the queue, and of its window.
const QUEUE: &str = "evening";
/// Two nodes of so many CPUs, which the jobs fill.
const NODES: usize = 2;
const CPUS_PER_NODE: u32 = 8;
/// Pods of half a CPU: of jobs with one pod, of an elastic job, and of one that shrinks.
const SINGLES: u32 = 8;
const ELASTIC: u32 = 8;
const USUAL: u32 = 16;
/// The part that the window leaves to the job that shrinks.
const PERCENT: u32 = 25;
/// The window's times, in seconds.
const LEAD: i64 = 30;
const OPEN: i64 = 60;
const RAMP: i64 = 30;
/// The jobs run for so long at least before the lead.
const BEFORE: i64 = 30;
/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);

/// Shows a queue with a peak window that drains and opens again.
#[derive(Parser)]
#[command(name = "demo-batch")]
struct Options {
    /// Gives up so many seconds after the end of the ramp.
    #[arg(long, value_name = "SECONDS", default_value_t = 90)]
    bound: i64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let ended = tokio::select! {
        ended = run(&options) => ended,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted; everything is removed")),
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo-batch: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs it; `false` when something was not as it should be.
async fn run(options: &Options) -> Result<bool> {
    let mut steps = Steps::new();
    steps.begin(&format!("Start a control plane, and {NODES} nodes of {CPUS_PER_NODE} CPUs that KWOK plays"));
    let nodes = pool(GENERAL, NODES, &CPUS_PER_NODE.to_string(), 110);
    let cluster = LocalCluster::builder().kwok(nodes).start().await?;
    steps.begin("Install the kinds of Springtide (CRDs), and start `springtide manager`");
    cluster.install_crds().await?;
    let mut manager = Manager::start(&cluster, "manager", &[]).await?;
    manager.wait_ready().await?;
    let client = cluster.client("springtide-demo")?;

    let earliest = Timestamp::now() + SignedDuration::from_secs(BEFORE + LEAD);
    let start = Timestamp::from_second((earliest.as_second() / 60 + 1) * 60).context("the next minute")?;
    let end = start + SignedDuration::from_secs(OPEN);
    steps.begin("Create BatchQueue evening, whose peak window opens at the next full minute");
    steps.note(&format!(
        "window   {} to {} UTC, for {OPEN} s\n\
         lead     from {LEAD} s before on BestEffort leaves and Standard shrinks to {PERCENT} % of the queue\n\
         ramp     over {RAMP} s after it what is free is filled again, evenly",
        time_of_day(start),
        time_of_day(end),
    ));
    create_queue(&client, start, end).await?;
    steps.begin("Create batch jobs that fill the nodes");
    let jobs = create_jobs(&client).await?;
    steps.note(&format!(
        "{SINGLES} BestEffort jobs with one pod, one with {ELASTIC} pods, a Standard job with {USUAL}: {} pods",
        SINGLES + ELASTIC + USUAL
    ));
    steps.begin("Watch what becomes of them");
    let mut screen = Screen::new();
    let mut record = Record::new(start, end, RAMP);
    let give_up = end + SignedDuration::from_secs(RAMP + options.bound);
    loop {
        let view = View::of(&client).await?;
        screen.show(&view, start, end);
        record.see(&view);
        if record.is_over() {
            break;
        }
        if view.at > give_up {
            steps.note("the jobs have not all come back in time");
            break;
        }
        if !manager.child().is_running() {
            bail!("the manager has ended by itself; its log ends with:\n{}", manager.child().log_tail());
        }
        tokio::time::sleep(LOOK).await;
    }
    steps.begin("Ask the jobs what became of them");
    let failed = failed_tasks(&client, &jobs).await?;
    let verdicts = record.verdicts(usize::try_from(USUAL)?, failed);
    steps.begin("Stop the manager and remove the cluster");
    drop(client);
    manager.stop()?;
    cluster.stop()?;
    steps.end();
    println!();
    let well = judge::print(&verdicts);
    println!(
        "\n{} after {:.0} s.",
        if well { "All as it should be" } else { "NOT as it should be" },
        steps.seconds()
    );
    Ok(well)
}

/// Hours and minutes, as a window has them.
fn time_of_day(at: Timestamp) -> String {
    at.strftime("%H:%M").to_string()
}

async fn create_queue(client: &Client, start: Timestamp, end: Timestamp) -> Result<()> {
    let windows = json!([{
        "name": QUEUE,
        "window": {"start": time_of_day(start), "end": time_of_day(end), "timeZone": "UTC"},
        "actions": [
            {"tier": "BestEffort", "action": "Drain"},
            {"tier": "Standard", "action": "Degrade", "percent": PERCENT},
        ],
        "leadSeconds": LEAD,
        "drainPodsPerSecond": 2,
        "resume": {"rampSeconds": RAMP, "jitterSeconds": 0},
    }]);
    let spec = BatchQueueSpec { peak_windows: serde_json::from_value(windows)?, ..BatchQueueSpec::new() };
    let queues: Api<BatchQueue> = Api::namespaced(client.clone(), NAMESPACE);
    queues.create(&PostParams::default(), &BatchQueue::new(QUEUE, spec)).await.context("create the queue")?;
    Ok(())
}

/// Creates the jobs. Returns their names.
async fn create_jobs(client: &Client) -> Result<Vec<String>> {
    let jobs: Api<BatchJob> = Api::namespaced(client.clone(), NAMESPACE);
    let mut names = Vec::new();
    let singles = (0..SINGLES).map(|number| (format!("single-{number}"), 1, Tier::BestEffort));
    let wide =
        [("elastic".to_owned(), ELASTIC, Tier::BestEffort), ("usual".to_owned(), USUAL, Tier::Standard)];
    for (name, pods, tier) in singles.chain(wide) {
        let task = Task { cpu: "500m".to_owned(), ..Task::endless() };
        let spec = BatchJobSpec {
            queue_name: Some(QUEUE.to_owned()),
            completions: pods,
            parallelism: pods,
            tier,
            interruption: Interruption { grace_seconds: 5, ..Interruption::default() },
            ..BatchJobSpec::new(task.template())
        };
        jobs.create(&PostParams::default(), &BatchJob::new(&name, spec))
            .await
            .with_context(|| format!("create the job {name}"))?;
        names.push(name);
    }
    Ok(names)
}

/// Tasks that count as failed, of all jobs.
async fn failed_tasks(client: &Client, names: &[String]) -> Result<u32> {
    let jobs: Api<BatchJob> = Api::namespaced(client.clone(), NAMESPACE);
    let mut failed = 0;
    for name in names {
        let job = jobs.get(name).await.with_context(|| format!("read the job {name}"))?;
        failed += job.status.map_or(0, |status| status.failed);
    }
    Ok(failed)
}
