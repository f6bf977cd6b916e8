//! The dimensions of the budget beside those of a controller and of a namespace: the process, the status of one
//! object, the events of a namespace. Each is asked for far more than it lets through.

use std::sync::Arc;
use std::time::Duration;

use crate::pressure::{CONFIG_MAP, OTHERS, Ran, Way, Writer, busiest, busiest_second, run, running, spread};
use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use serde_json::{Value, json};
use springtide_e2e::bench::post;
use springtide_e2e::fault_proxy::{Entry, FaultProxy, Protocols};
use springtide_e2e::local_cluster::LocalCluster;
use springtide_plumbing::budget::BudgetConfig;
use springtide_plumbing::client::Connection;
use springtide_plumbing::clock::Clock;
use springtide_plumbing::error::WriteError;
use springtide_plumbing::events::{EventNote, Severity};
use springtide_plumbing::executor::Executor;
use springtide_plumbing::key::{ObjectKey, Resource, ResourceVersion, Uid};
use springtide_plumbing::plan::{Action, Outcome, Plan, Write, WriteClass};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

/// Two controllers of one process.
const CONTROLLERS: [&str; 2] = ["bench-even", "bench-odd"];
/// Distance of events, each of another object: more than any bucket of events lets through.
const EVENT_PACE: Duration = Duration::from_millis(5);
/// The object whose status is written.
const POD: &str = "status";

/// Requests in the busiest second of each.
pub(crate) struct Dimensions {
    pub(crate) process: usize,
    pub(crate) object_status: usize,
    pub(crate) events: usize,
}

/// First the writes of two controllers that share a budget, then status and events side by side, each that long.
pub(crate) async fn measure(
    cluster: &LocalCluster,
    namespaces: &[String],
    budget: &BudgetConfig,
    time: Duration,
) -> Result<Dimensions> {
    let proxy = FaultProxy::start(cluster, Protocols::All)?;
    let connection = Connection::load(Some(proxy.kubeconfig()), None).await?;
    let shared = running(budget);
    let [even, odd] = CONTROLLERS.map(|controller| Way::sharing(&connection, &shared, controller));
    let (even, odd) = (even?, odd?);
    // No object has two writers.
    let half = |odd: usize| -> Vec<Writer> { spread().skip(odd).step_by(2).collect() };
    let (even, odd) =
        tokio::try_join!(run(&even, namespaces, half(0), time), run(&odd, namespaces, half(1), time))?;
    let both = Ran { written: even.written.into_iter().chain(odd.written).collect(), ..Ran::default() };
    let process = busiest_second(&both);

    let Way::Budget(executor, _) = Way::budget(&connection, budget)? else { bail!("no executor") };
    let namespace = &namespaces[OTHERS];
    let end = Instant::now() + time;
    tokio::try_join!(statuses(cluster, &executor, namespace, end), async {
        events(&executor, namespace, end).await;
        Ok(())
    },)?;
    Ok(Dimensions {
        process,
        object_status: in_a_second(&proxy, "pods/status")?,
        events: in_a_second(&proxy, Resource::EVENT.plural)?,
    })
}

fn in_a_second(proxy: &FaultProxy, resource: &str) -> Result<usize> {
    let of = |entry: &&Entry| entry.stored() && entry.request.resource == resource;
    let times: Vec<Instant> =
        proxy.journal(|entries| entries.iter().filter(of).map(|entry| entry.at.into()).collect());
    if times.is_empty() {
        bail!("no write of {resource} was stored");
    }
    Ok(busiest(times, Duration::from_secs(1)))
}

/// Writes the status of one pod as often as it may.
async fn statuses(cluster: &LocalCluster, executor: &Executor, namespace: &str, end: Instant) -> Result<()> {
    let manifest = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": POD},
                          "spec": {"containers": [{"name": "c", "image": "none"}]}});
    let client = cluster.client("bench-generator")?;
    let pod = post(&client, &format!("/api/v1/namespaces/{namespace}/pods"), &manifest).await?;
    let key = ObjectKey::new(namespace, POD);
    let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).context("of a stored pod");
    let uid = Uid(text("/metadata/uid")?.into());
    let mut version = ResourceVersion(text("/metadata/resourceVersion")?.parse()?);
    let mut stored = pod["status"].clone();
    for number in 0_u64.. {
        let mut status = stored.clone();
        status["message"] = number.to_string().into();
        while Instant::now() < end {
            let action = Action::Status {
                uid: uid.clone(),
                resource_version: version,
                status: status.clone(),
                stored: stored.clone(),
            };
            let write =
                Write { resource: Resource::POD, key: key.clone(), class: WriteClass::Status, action };
            let plan = Plan { status: Some(write), ..Plan::idle(Outcome::Progressing) };
            match executor.perform(&key, plan).await.pop().context("one result")?.outcome {
                Ok(done) => {
                    version = done.resource_version.context("a version")?;
                    break;
                }
                Err(WriteError::Throttled(throttled)) => sleep_until(throttled.until.min(end)).await,
                Err(error) => bail!("status of {key}: {error}"),
            }
        }
        if Instant::now() >= end {
            break;
        }
        stored = status;
    }
    Ok(())
}

/// Tells of other objects all the time, through the sink that the controllers have.
async fn events(executor: &Executor, namespace: &str, end: Instant) {
    let (stop, clock) = (CancellationToken::new(), Clock::from_fn(Timestamp::now));
    let tell = async {
        for number in 0_u64.. {
            if Instant::now() >= end {
                break;
            }
            let note = EventNote {
                resource: CONFIG_MAP,
                key: ObjectKey::new(namespace, format!("told-{number}")),
                uid: Uid(Arc::from(number.to_string())),
                severity: Severity::Normal,
                reason: "Measured",
                action: "Measuring",
                note: "one of many".to_owned(),
            };
            executor.events.publish(note, Timestamp::now());
            sleep(EVENT_PACE).await;
        }
        stop.cancel();
    };
    tokio::join!(tell, executor.events.run(executor, &clock, &stop));
}
