//! Writes under pressure: what the budget lets pass, who gets it, and whether a lease waits.
//!
//! The real executor and budget in this process against a real API server. Each tenant is a namespace
//! with objects that are patched one after the other, or at a pace.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::dimensions::{self, Dimensions};
use crate::fairness::{Fairness, fairness};
use crate::lease;
use crate::seats::{self, Seats};
use crate::storm::{self, Storm};

use anyhow::{Context, Result, bail};
use futures::future::try_join_all;
use futures::{FutureExt, StreamExt, TryStreamExt};
use kube::Client;
use serde_json::{Value, json};
use springtide_e2e::bench::{post, report::quantile};
use springtide_e2e::local_cluster::LocalCluster;
use springtide_plumbing::budget::{BudgetConfig, WriteBudget};
use springtide_plumbing::client::Connection;
use springtide_plumbing::error::WriteError;
use springtide_plumbing::events::EventSink;
use springtide_plumbing::executor::Executor;
use springtide_plumbing::gate::Gate;
use springtide_plumbing::guard::Guard;
use springtide_plumbing::key::{ObjectKey, Resource};
use springtide_plumbing::lease::Fence;
use springtide_plumbing::metrics::Metrics;
use springtide_plumbing::plan::{Action, Outcome, Plan, Write, WriteClass};
use springtide_plumbing::rights::{Right, Rights, Verb};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

/// Name of the controller that writes.
const CONTROLLER: &str = "bench";
pub(crate) const CONFIG_MAP: Resource =
    Resource { group: "", version: "v1", kind: "ConfigMap", plural: "configmaps", namespaced: true };
const SECRET: Resource = Resource { kind: "Secret", plural: "secrets", ..CONFIG_MAP };
const RIGHTS: Rights = Rights {
    holder: CONTROLLER,
    table: &[
        Right::new(CONFIG_MAP, Verb::Patch, "what the bench writes"),
        Right::new(SECRET, Verb::Patch, "what it writes on another priority level"),
        Right::new(Resource::POD, Verb::Patch, "whose status it writes").on("status"),
        Right::new(Resource::EVENT, Verb::Create, "what it tells of"),
    ],
};
/// Tenants beside the greedy one, and what each of them wants: a write in so long.
pub(crate) const OTHERS: usize = 20;
pub(crate) const PACE: Duration = Duration::from_millis(500);
/// In which the greedy tenant spends its burst. It goes out as fast as the server stores it, so for that long all wait
/// for the server, and the budget has no part in it.
const BURST: Duration = Duration::from_secs(2);
/// Writers of the greedy tenant, which never rest: a hundred times as many as another's share.
const GREEDY: usize = 100;

/// What was measured.
pub(crate) struct Pressure {
    /// The budget of the runs.
    pub(crate) budget: BudgetConfig,
    /// Writes a second of bare clients without a budget: the raw limit.
    pub(crate) raw_rate: f64,
    /// Writes in the busiest second, of the process and of the busiest namespace.
    pub(crate) busiest_process: usize,
    pub(crate) busiest_namespace: usize,
    /// The same without a budget.
    pub(crate) raw_busiest: usize,
    /// The other dimensions of the budget.
    pub(crate) dimensions: Dimensions,
    /// What the greedy tenant and the others got.
    pub(crate) fairness: Fairness,
    /// The same where a namespace may have all that the controller may write, and together they want more than that.
    pub(crate) fairness_scarce: Fairness,
    /// Time to the answer of the others' writes, p99 in ms, alone and beside the greedy one.
    pub(crate) alone_p99: f64,
    pub(crate) beside_p99: f64,
    /// Wait of a renewal of the elector in a process whose writers want all that its budget lets through, and
    /// in one whose writers have no budget; p99 in ms.
    pub(crate) lease_wait_p99: f64,
    pub(crate) raw_lease_wait_p99: f64,
    /// The same of a lease on the client of the writes: what the own client is for.
    pub(crate) shared_wait_p99: f64,
    /// A minute in which the server answers 429.
    pub(crate) storm: Storm,
    /// A minute without a seat on a real priority level.
    pub(crate) seats: Seats,
}

/// What became of the writers' wishes.
#[derive(Default)]
pub(crate) struct Ran {
    pub(crate) written: Vec<Written>,
    /// By namespace, how long a write had waited that was not granted at the end.
    pub(crate) waiting: Vec<(usize, Duration)>,
    /// By namespace, how many writes each paced writer wanted.
    pub(crate) wanted: Vec<(usize, usize)>,
}

/// A write that was answered.
pub(crate) struct Written {
    pub(crate) namespace: usize,
    pub(crate) name: String,
    pub(crate) target: Target,
    /// What the object has in it from then on.
    pub(crate) number: u64,
    wanted: Instant,
    sent: Instant,
    answered: Instant,
}

/// What is written: an annotation of one of these.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    ConfigMap,
    Secret,
}

impl Target {
    fn resource(self) -> Resource {
        match self {
            Self::ConfigMap => CONFIG_MAP,
            Self::Secret => SECRET,
        }
    }

    /// Path of an object.
    pub(crate) fn path(self, namespace: &str, name: &str) -> String {
        format!("/api/v1/namespaces/{namespace}/{}/{name}", self.resource().plural)
    }

    /// The number that was written last.
    pub(crate) fn number(object: &Value) -> Result<u64> {
        let number = object.pointer("/metadata/annotations/n").and_then(Value::as_str);
        Ok(number.context("the annotation")?.parse()?)
    }
}

/// Who writes; `pace` is `None` for a writer that never rests.
pub(crate) struct Writer {
    pub(crate) namespace: usize,
    pub(crate) name: String,
    pub(crate) target: Target,
    pub(crate) pace: Option<Duration>,
}

impl Writer {
    fn restless(namespace: usize, name: String) -> Self {
        Self { namespace, name, target: Target::ConfigMap, pace: None }
    }
}

/// How a write goes out.
#[derive(Clone)]
pub(crate) enum Way {
    Budget(Executor, Arc<Line>),
    Bare(Client),
}

/// Who waits for a grant of the budget, by its key.
#[derive(Default)]
pub(crate) struct Line(Mutex<HashMap<ObjectKey, Arc<Notify>>>);

impl Line {
    fn of(&self, key: &ObjectKey) -> Arc<Notify> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(waiting.entry(key.clone()).or_default())
    }
}

impl Way {
    /// Through the executor and a budget of its own, on this connection.
    pub(crate) fn budget(connection: &Connection, budget: &BudgetConfig) -> Result<Self> {
        Self::sharing(connection, &running(budget), CONTROLLER)
    }

    /// Through the executor of this controller and a budget that it may share with others.
    pub(crate) fn sharing(
        connection: &Connection,
        budget: &Arc<WriteBudget>,
        controller: &'static str,
    ) -> Result<Self> {
        let fence = Fence::always_open();
        let line = Arc::<Line>::default();
        let granted = Arc::clone(&line);
        budget.on_grant(controller, move |key| granted.of(key).notify_one());
        let metrics = Arc::new(Metrics::new(&[controller]));
        let executor = Executor {
            controller,
            rights: Rights { holder: controller, ..RIGHTS },
            client: connection.writer("bench-writer", fence.clone())?,
            fence,
            guard: Guard::open(),
            budget: Arc::clone(budget),
            gate: Gate::new(&[], |_| {}, Box::new(|_, _| async { Ok(None) }.boxed())),
            events: EventSink::new(controller, "bench", metrics.clone()),
            fights: Arc::default(),
            metrics,
        };
        Ok(Self::Budget(executor, line))
    }
}

/// A budget whose pump runs until the end of the bench.
pub(crate) fn running(config: &BudgetConfig) -> Arc<WriteBudget> {
    let budget = Arc::new(WriteBudget::new(config.clone()));
    let pump = Arc::clone(&budget);
    tokio::spawn(async move { pump.run(CancellationToken::new()).await });
    budget
}

/// Writers that never rest, over all namespaces but that of the greedy one.
pub(crate) fn spread() -> impl Iterator<Item = Writer> {
    (0..GREEDY).map(|n| Writer::restless(n % OTHERS, format!("s{n}")))
}

/// Makes the namespaces, and in them the objects of all writers.
pub(crate) async fn prepare(cluster: &LocalCluster) -> Result<Vec<String>> {
    let client = cluster.client("bench-generator")?;
    let mut namespaces = Vec::new();
    for _ in 0..=OTHERS {
        namespaces.push(cluster.create_namespace("bench").await?);
    }
    let greedy = (0..GREEDY).map(|n| (OTHERS, format!("g{n}"), Target::ConfigMap));
    let spread = spread().map(|writer| (writer.namespace, writer.name, writer.target));
    let others = [Target::ConfigMap, Target::Secret]
        .into_iter()
        .flat_map(|target| (0..OTHERS).map(move |n| (n, "o".to_owned(), target)));
    let all: Vec<(usize, String, Target)> = greedy.chain(spread).chain(others).collect();
    futures::stream::iter(&all)
        .map(|(namespace, name, target)| {
            let (client, namespace) = (&client, &namespaces[*namespace]);
            async move {
                let Resource { kind, plural, .. } = target.resource();
                let object = json!({"apiVersion": "v1", "kind": kind,
                                    "metadata": {"name": name, "annotations": {"n": "0"}}});
                post(client, &format!("/api/v1/namespaces/{namespace}/{plural}"), &object).await.map(drop)
            }
        })
        .buffer_unordered(32)
        .try_collect::<()>()
        .await?;
    Ok(namespaces)
}

/// At which the others together want that share of what the controller may write.
fn pace_for(share: f64, budget: &BudgetConfig) -> Duration {
    Duration::from_secs_f64(OTHERS as f64 / (share * budget.controller.rate))
}

/// Runs all of it on one cluster, one after the other.
pub(crate) async fn measure(cluster: &LocalCluster, seconds: u64) -> Result<Pressure> {
    let time = Duration::from_secs(seconds);
    let client = cluster.client("bench-generator")?;
    let namespaces = prepare(cluster).await?;
    let greedy = || (0..GREEDY).map(|n| Writer::restless(OTHERS, format!("g{n}")));
    let bare = Way::Bare(client.clone());
    let raw = run(&bare, &namespaces, spread().collect(), time).await?;
    let raw_rate = raw.written.len() as f64 / time.as_secs_f64();
    // Well below the raw limit, so that it is the budget that holds writes back, and not the server.
    let budget = BudgetConfig::default().scaled((raw_rate / 4.0 / 300.0).clamp(0.01, 1.0));
    // Of what the controller may write they want half at most: all of that is their due, and with the bucket of the
    // greedy one's namespace there is enough for all.
    let pace = PACE.max(pace_for(0.5, &budget));
    let others =
        |pace| (0..OTHERS).map(move |n| Writer { pace: Some(pace), ..Writer::restless(n, "o".to_owned()) });
    let connection = Connection::from_config(cluster.config());
    let way = || Way::budget(&connection, &budget);

    let concentrated = run(&way()?, &namespaces, greedy().collect(), time).await?;
    let wide = run(&way()?, &namespaces, spread().collect(), time).await?;

    let alone = run(&way()?, &namespaces, others(pace).collect(), time).await?;
    let began = Instant::now();
    let beside = run(&way()?, &namespaces, greedy().chain(others(pace)).collect(), time).await?;
    // No bucket but the controller's holds the greedy one back: their turns alone share that out.
    let open = BudgetConfig { namespace: budget.controller, ..budget.clone() };
    let writers = greedy().chain(others(pace_for(0.75, &budget))).collect();
    let scarce = run(&Way::budget(&connection, &open)?, &namespaces, writers, time).await?;
    let dimensions = dimensions::measure(cluster, &namespaces, &budget, time).await?;

    let all = || spread().chain(greedy()).collect();
    let full = way()?;
    let (lease_wait, _) =
        tokio::try_join!(lease::waits(cluster, "budget", time), run(&full, &namespaces, all(), time))?;
    // Without a budget: no pressure is fuller.
    let shared = cluster.client("bench-generator")?;
    let bare_shared = Way::Bare(shared.clone());
    let (raw_lease_wait, shared_wait, _) = tokio::try_join!(
        lease::waits(cluster, "raw", time),
        lease::answers(shared, time),
        run(&bare_shared, &namespaces, all(), time),
    )?;
    let storm = storm::measure(cluster, &namespaces, &budget).await?;
    let seats = seats::measure(&budget).await?;
    Ok(Pressure {
        raw_rate,
        storm,
        seats,
        dimensions,
        busiest_process: busiest_second(&wide),
        busiest_namespace: busiest_second(&concentrated),
        raw_busiest: busiest_second(&raw),
        fairness: fairness_beside(&beside),
        fairness_scarce: fairness_beside(&scarce),
        alone_p99: others_p99(&alone, None),
        beside_p99: others_p99(&beside, Some(began + BURST)),
        lease_wait_p99: quantile(&lease_wait, 0.99),
        raw_lease_wait_p99: quantile(&raw_lease_wait, 0.99),
        shared_wait_p99: quantile(&shared_wait, 0.99),
        budget,
    })
}

/// Runs the writers for that long.
pub(crate) async fn run(
    way: &Way,
    namespaces: &[String],
    writers: Vec<Writer>,
    time: Duration,
) -> Result<Ran> {
    let end = Instant::now() + time;
    let loops = writers.into_iter().map(|writer| {
        let (way, namespace) = (way.clone(), namespaces[writer.namespace].clone());
        tokio::spawn(async move { write_until(&way, &namespace, &writer, end).await })
    });
    let mut all = Ran::default();
    for ran in try_join_all(loops).await? {
        let Ran { written, waiting, wanted } = ran?;
        all.written.extend(written);
        all.waiting.extend(waiting);
        all.wanted.extend(wanted);
    }
    Ok(all)
}

async fn write_until(way: &Way, namespace: &str, writer: &Writer, end: Instant) -> Result<Ran> {
    let mut ran = Ran::default();
    let mut next = Instant::now();
    if let Some(pace) = writer.pace {
        next += pace.mul_f64(rand::random());
        // All but the last one, for which there may be too little time.
        let wanted = ((end - next).as_secs_f64() / pace.as_secs_f64()) as usize;
        ran.wanted.push((writer.namespace, wanted));
    }
    for number in 0_u64.. {
        sleep_until(next).await;
        let wanted = Instant::now();
        let Some(sent) = write(way, namespace, writer, number, end).await? else {
            if wanted < end {
                ran.waiting.push((writer.namespace, wanted.elapsed()));
            }
            break;
        };
        let answered = Instant::now();
        let Writer { namespace, ref name, target, pace: _ } = *writer;
        ran.written.push(Written { namespace, name: name.clone(), target, number, wanted, sent, answered });
        next = writer.pace.map_or(answered, |pace| (next + pace).max(answered));
    }
    Ok(ran)
}

/// One write; gives when it went out, or `None` at the end.
async fn write(
    way: &Way,
    namespace: &str,
    writer: &Writer,
    number: u64,
    end: Instant,
) -> Result<Option<Instant>> {
    let operations = json!([{"op": "add", "path": "/metadata/annotations/n", "value": number.to_string()}]);
    while Instant::now() < end {
        let sent = Instant::now();
        let (executor, line) = match way {
            Way::Bare(client) => {
                patch(client, &writer.target.path(namespace, &writer.name), &operations).await?;
                return Ok(Some(sent));
            }
            Way::Budget(executor, line) => (executor, line),
        };
        let key = ObjectKey::new(namespace, writer.name.as_str());
        let action = Action::json_patch(operations.clone());
        let write =
            Write { resource: writer.target.resource(), key: key.clone(), class: WriteClass::Spec, action };
        let plan = Plan { stages: vec![vec![write.into()]], ..Plan::idle(Outcome::Progressing) };
        for result in executor.perform(&key, plan).await {
            match result.outcome {
                Ok(_) => return Ok(Some(sent)),
                // As a controller's queue does.
                Err(WriteError::Throttled(throttled)) => {
                    let granted = line.of(&key);
                    let _ = timeout_at(throttled.until.min(end), granted.notified()).await;
                }
                Err(WriteError::Busy { retry_after }) => {
                    sleep_until((Instant::now() + retry_after).min(end)).await;
                }
                Err(error) => bail!("{key}: {error}"),
            }
        }
    }
    Ok(None)
}

async fn patch(client: &Client, path: &str, operations: &Value) -> Result<()> {
    let request = http::Request::patch(path)
        .header("content-type", "application/json-patch+json")
        .body(serde_json::to_vec(operations)?)?;
    client.request::<Value>(request).await?;
    Ok(())
}

/// The most of the writes that went out within one second.
pub(crate) fn busiest_second(ran: &Ran) -> usize {
    busiest(ran.written.iter().map(|written| written.sent).collect(), Duration::from_secs(1))
}

/// The most of these times that lie within one `span`.
pub(crate) fn busiest(mut times: Vec<Instant>, span: Duration) -> usize {
    times.sort_unstable();
    let from =
        |(number, first): (usize, &Instant)| times.partition_point(|time| *time < *first + span) - number;
    times.iter().enumerate().map(from).max().unwrap_or_default()
}

/// Of the others and, last, the greedy tenant, which wants all that there is.
fn fairness_beside(ran: &Ran) -> Fairness {
    let tenants = 0..=OTHERS;
    let got = |tenant| ran.written.iter().filter(|written| written.namespace == tenant).count() as f64;
    let demand = |tenant| {
        let paced = ran.wanted.iter().filter(|(namespace, _)| *namespace == tenant);
        if tenant == OTHERS { f64::INFINITY } else { paced.map(|(_, wanted)| *wanted as f64).sum() }
    };
    let served = |tenant| (got(tenant).min(demand(tenant)), demand(tenant));
    fairness(&tenants.map(served).collect::<Vec<_>>())
}

/// Of the others' waits since then, those of writes that were not granted in the end among them.
fn others_p99(ran: &Ran, since: Option<Instant>) -> f64 {
    let written = ran.written.iter().filter(|written| since.is_none_or(|since| written.wanted >= since));
    let written = written.map(|written| (written.namespace, written.answered - written.wanted));
    let waits = written.chain(ran.waiting.iter().copied()).filter(|(namespace, _)| *namespace < OTHERS);
    let mut millis: Vec<f64> = waits.map(|(_, wait)| 1000.0 * wait.as_secs_f64()).collect();
    millis.sort_by(f64::total_cmp);
    quantile(&millis, 0.99)
}
