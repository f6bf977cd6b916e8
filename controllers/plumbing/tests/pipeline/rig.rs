//! A controller whose decisions are the test's, with everything around it real.

use crate::wire::{Reply, Sent, Wire, object};
use futures::FutureExt;
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use serde::Deserialize;
use serde_json::{Value, json};
use springtide_plumbing::budget::{BudgetConfig, WriteBudget};
use springtide_plumbing::client::Reader;
use springtide_plumbing::clock::Clock;
use springtide_plumbing::controller::{Controller, Reconciler, Settled};
use springtide_plumbing::events::EventSink;
use springtide_plumbing::executor::{Executor, WriteResult};
use springtide_plumbing::failing::{Failing, Failures, Telling};
use springtide_plumbing::gate::Gate;
use springtide_plumbing::guard::Guard;
use springtide_plumbing::key::{ObjectKey, Resource, ResourceVersion, Uid};
use springtide_plumbing::lease::Fence;
use springtide_plumbing::metrics::Metrics;
use springtide_plumbing::plan::{Action, Fields, Outcome, Part, Patch, Plan, Step, Write, WriteClass};
use springtide_plumbing::projection::{Meta, NoLabels, Projection};
use springtide_plumbing::queue::{Priority, Urgency, WorkQueue};
use springtide_plumbing::rights::{Right, Rights, Verb};
use springtide_plumbing::store::{Store, StoreView, StoreWriter};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// Every test key owns the pod of its own name.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Pod {
    metadata: Meta,
}

impl Projection for Pod {
    const RESOURCE: Resource = Resource::POD;
    type Labels = NoLabels;

    fn meta(&self) -> &Meta {
        &self.metadata
    }
}

impl Pod {
    pub(crate) fn version(&self) -> ResourceVersion {
        self.metadata.resource_version
    }
}

pub(crate) fn key(name: &str) -> ObjectKey {
    ObjectKey::new("ns", name)
}

/// The pod as a watch event brings it.
pub(crate) fn pod(key: &ObjectKey, version: u64) -> Pod {
    serde_json::from_value(object(&key.namespace, &key.name, version)).unwrap()
}

/// The pod with its deletion asked for.
pub(crate) fn deleting_pod(key: &ObjectKey, version: u64) -> Pod {
    let mut pod = object(&key.namespace, &key.name, version);
    pod["metadata"]["deletionTimestamp"] = "2026-11-11T00:00:00Z".into();
    serde_json::from_value(pod).unwrap()
}

fn write(key: &ObjectKey, class: WriteClass, action: Action) -> Write {
    Write { resource: Resource::POD, key: key.clone(), class, action }
}

pub(crate) fn create(key: &ObjectKey) -> Write {
    let manifest = json!({"kind": "Pod", "metadata": {"name": &*key.name}});
    write(key, WriteClass::Spec, Action::Create { manifest })
}

pub(crate) fn delete(key: &ObjectKey) -> Write {
    let uid = Uid(format!("uid-{}", key.name).into());
    write(key, WriteClass::Spec, Action::Delete { uid, resource_version: None, grace_seconds: None })
}

pub(crate) fn patch(key: &ObjectKey) -> Write {
    let operations = json!([
        {"op": "test", "path": "/metadata/uid", "value": format!("uid-{}", key.name)},
        {"op": "add", "path": "/metadata/labels/a", "value": "ours"},
    ]);
    write(key, WriteClass::Spec, Action::json_patch(operations))
}

/// A merge into a part of the pod.
pub(crate) fn merge(key: &ObjectKey, part: Part, fields: Value) -> Write {
    let fields = Fields { uid: Uid(format!("uid-{}", key.name).into()), resource_version: None, fields };
    write(key, WriteClass::Spec, Action::Patch { part, patch: Patch::Strategic(fields) })
}

/// An apply without force.
pub(crate) fn apply(key: &ObjectKey, fields: Value) -> Write {
    let uid = Uid(format!("uid-{}", key.name).into());
    let (part, manager) = (Part::Main, "springtide-scripted");
    let action = Action::Apply { part, manager, uid, resource_version: None, fields, force: false };
    write(key, WriteClass::Spec, action)
}

pub(crate) fn evict(key: &ObjectKey) -> Write {
    let uid = Uid(format!("uid-{}", key.name).into());
    write(key, WriteClass::Spec, Action::Evict { uid, resource_version: None, grace_seconds: None })
}

/// The same as a question.
pub(crate) fn dry_run(question: &str, write: Write) -> Write {
    Write { action: write.action.dry_run(question), ..write }
}

/// A status write decided on version 5.
pub(crate) fn status(key: &ObjectKey, stored: Value, status: Value) -> Write {
    let uid = Uid(format!("uid-{}", key.name).into());
    let resource_version = ResourceVersion(5);
    write(key, WriteClass::Status, Action::Status { uid, resource_version, status, stored })
}

pub(crate) fn plan(stages: Vec<Vec<Write>>) -> Plan {
    let stages = stages.into_iter().map(|stage| stage.into_iter().map(Step::from).collect()).collect();
    Plan { stages, ..Plan::idle(Outcome::Progressing) }
}

pub(crate) fn idle() -> Plan {
    Plan::idle(Outcome::Converged)
}

/// What a planner of a test sees.
pub(crate) struct Seen {
    pub(crate) key: ObjectKey,
    /// The pod of the key's name, as the store shows it.
    pub(crate) pod: Option<Arc<Pod>>,
    /// Passes over this key before this one.
    pub(crate) passes: usize,
    /// What its writes fail at.
    pub(crate) failing: Option<Failing>,
    /// What the wall clock shows.
    pub(crate) now: Timestamp,
}

type Planner = Box<dyn Fn(&Seen) -> Plan + Send + Sync>;
type Settle = Box<dyn Fn(&ObjectKey, &[WriteResult]) -> Settled + Send + Sync>;

pub(crate) struct Scripted {
    plan: Planner,
    settle: Settle,
    tells: bool,
    pods: Store<Pod>,
    passes: Mutex<BTreeMap<ObjectKey, usize>>,
}

impl Reconciler for Scripted {
    const NAME: &'static str = "scripted";
    const RIGHTS: Rights = Rights {
        holder: "scripted",
        table: &[
            Right::new(Resource::POD, Verb::Create, "scripts create pods"),
            Right::new(Resource::POD, Verb::Delete, "scripts delete pods"),
            Right::new(Resource::POD, Verb::Patch, "scripts patch pods"),
            Right::new(Resource::POD, Verb::Patch, "scripts write the status of pods").on("status"),
            Right::new(Resource::POD, Verb::Patch, "scripts resize pods").on("resize"),
            Right::new(Resource::POD, Verb::Create, "scripts evict pods").on("eviction"),
            Right::new(Resource::EVENT, Verb::Create, "scripts tell of pods"),
            Right::new(Resource::EVENT, Verb::Patch, "scripts tell of pods again"),
        ],
    };
    type Observed = Seen;

    fn observe(&self, key: &ObjectKey, failing: Option<&Failing>, now: Timestamp) -> Option<Seen> {
        let mut passes = self.passes.lock().unwrap();
        let count = passes.entry(key.clone()).or_default();
        *count += 1;
        Some(Seen {
            key: key.clone(),
            pod: self.pods.get(key),
            passes: *count - 1,
            failing: failing.cloned(),
            now,
        })
    }

    fn generation(seen: &Seen) -> Option<i64> {
        seen.pod.as_ref().map(|pod| pod.metadata.generation)
    }

    fn plan(&self, seen: &Seen, _: Timestamp) -> Plan {
        (self.plan)(seen)
    }

    /// In the status is nothing but the reason.
    fn tell(&self, key: &ObjectKey, failing: &Failing, _: Timestamp) -> Option<Telling> {
        if !self.tells {
            return None;
        }
        let event = failing.note(Resource::POD, key.clone(), Uid(format!("uid-{}", key.name).into()))?;
        let status = status(key, json!({}), json!({"reason": event.reason, "message": event.note}));
        Some(Telling { event, status: Some(status) })
    }

    fn settle(&self, key: &ObjectKey, results: &[WriteResult], _: Timestamp) -> Settled {
        (self.settle)(key, results)
    }
}

/// What differs between tests; all else is as in the manager.
pub(crate) struct Setup {
    pub(crate) plan: Planner,
    pub(crate) settle: Settle,
    /// Whether failures are told on the objects: most tests count the writes of their own plans.
    pub(crate) tells: bool,
    pub(crate) budget: BudgetConfig,
    pub(crate) workers: usize,
    pub(crate) fence: Fence,
    pub(crate) guard: Guard,
}

impl Setup {
    pub(crate) fn new(plan: impl Fn(&Seen) -> Plan + Send + Sync + 'static) -> Self {
        Self {
            plan: Box::new(plan),
            settle: Box::new(|_, _| Settled::Default),
            tells: false,
            budget: BudgetConfig::default(),
            workers: 8,
            fence: Fence::always_open(),
            guard: Guard::open(),
        }
    }

    pub(crate) fn telling(self) -> Self {
        Self { tells: true, ..self }
    }

    pub(crate) fn settled(
        self,
        settle: impl Fn(&ObjectKey, &[WriteResult]) -> Settled + Send + Sync + 'static,
    ) -> Self {
        Self { settle: Box::new(settle), ..self }
    }

    /// Starts the controller against a wire that answers so. The store is synced at version 1, empty.
    pub(crate) fn start(self, reply: impl Fn(&Sent) -> Reply + Send + Sync + 'static) -> Rig {
        let (wire, client) = Wire::new(reply);
        self.start_over(wire, client)
    }

    /// The same over a client of the test's own, of which `wire` knows nothing.
    pub(crate) fn start_over(self, wire: Wire, client: Client) -> Rig {
        let (store, mut pods) = Store::<Pod>::new(&[]);
        pods.replace(BTreeMap::new(), ResourceVersion(1));
        let queue = WorkQueue::new(7);
        let metrics = Arc::new(Metrics::new(&[Scripted::NAME]));
        let reader = Reader::new(client.clone());
        let confirm = Box::new(move |resource, key: ObjectKey| {
            let reader = reader.clone();
            async move { reader.identity(resource, &key).await }.boxed()
        });
        let views: [Arc<dyn StoreView>; 1] = [Arc::new(store.clone())];
        let released = queue.clone();
        let gate = Gate::new(&views, move |key: &ObjectKey| released.release(key), confirm);
        let budget = Arc::new(WriteBudget::new(self.budget));
        let granted = queue.clone();
        budget.on_grant(Scripted::NAME, move |key| granted.resume(key));
        let executor = Executor {
            controller: Scripted::NAME,
            rights: Scripted::RIGHTS,
            client,
            fence: self.fence,
            guard: self.guard,
            budget: budget.clone(),
            gate: gate.clone(),
            metrics: metrics.clone(),
            events: EventSink::new(Scripted::NAME, "rig", metrics.clone()),
            fights: Arc::default(),
        };
        let reconciler = Arc::new(Scripted {
            plan: self.plan,
            settle: self.settle,
            tells: self.tells,
            pods: store,
            passes: Mutex::default(),
        });
        let (leading, led) = watch::channel(true);
        let start = Instant::now();
        let clock_ahead = Arc::new(AtomicI64::new(0));
        let ahead = Arc::clone(&clock_ahead);
        let clock = Clock::from_fn(move || {
            Timestamp::UNIX_EPOCH + start.elapsed() + SignedDuration::from_secs(ahead.load(SeqCst))
        });
        let controller = Controller {
            reconciler: reconciler.clone(),
            queue: queue.clone(),
            gate: gate.clone(),
            executor,
            leading: led,
            clock,
            metrics: metrics.clone(),
            failures: Failures::default(),
            workers: self.workers,
        };
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(controller.run(shutdown.clone()));
        let asks = tokio::spawn(gate.clone().run(shutdown.clone()));
        let (pump, end) = (budget.clone(), shutdown.clone());
        let grants = tokio::spawn(async move { pump.run(end).await });
        let helpers = [asks, grants];
        Rig {
            wire,
            pods,
            queue,
            gate,
            budget,
            metrics,
            leading,
            shutdown,
            running,
            helpers,
            reconciler,
            start,
            clock_ahead,
        }
    }
}

/// A running controller and all that a test does to it.
pub(crate) struct Rig {
    pub(crate) wire: Wire,
    pub(crate) pods: StoreWriter<Pod>,
    pub(crate) queue: WorkQueue<ObjectKey>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) budget: Arc<WriteBudget>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) leading: watch::Sender<bool>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) running: JoinHandle<()>,
    helpers: [JoinHandle<()>; 2],
    reconciler: Arc<Scripted>,
    start: Instant,
    /// Seconds by which somebody has put the wall clock forward.
    clock_ahead: Arc<AtomicI64>,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.helpers.iter().for_each(JoinHandle::abort);
        self.running.abort();
    }
}

impl Rig {
    /// An ordinary event for the key.
    pub(crate) fn event(&self, key: &ObjectKey) {
        self.queue.add(key.clone(), Priority::Normal, Urgency::Routine);
    }

    /// An event every 100 ms for so long.
    pub(crate) async fn events(&self, key: &ObjectKey, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.event(key);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// How often the key was planned.
    pub(crate) fn passes(&self, key: &ObjectKey) -> usize {
        self.reconciler.passes.lock().unwrap().get(key).copied().unwrap_or_default()
    }

    /// How often each key was planned.
    pub(crate) fn all_passes(&self) -> BTreeMap<ObjectKey, usize> {
        self.reconciler.passes.lock().unwrap().clone()
    }

    /// Somebody puts the wall clock so many seconds ahead of what it showed at first.
    pub(crate) fn put_clock_ahead(&self, seconds: i64) {
        self.clock_ahead.store(seconds, SeqCst);
    }

    /// Time since the start.
    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }
}

pub(crate) async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
