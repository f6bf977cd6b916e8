//! How much a planner with a bug can destroy: counted in a real API server, with the breaker and without.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail as a test does")]
#![allow(clippy::disallowed_types, reason = "a test looks at the API server past the controllers")]

mod bugs;

use bugs::{BUGS, Bug, Seen};
use futures::{FutureExt, StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use springtide_batch_job::{BatchJobWarrants, Settings, Stores};
use springtide_crds::batch_job::BatchJob;
use springtide_e2e::local_cluster::LocalCluster;
use springtide_e2e::polling;
use springtide_plumbing::breaker::{Breaker, BreakerKeeper, CONFIG_MAP, Limits, RESET_ANNOTATION};
use springtide_plumbing::budget::{BudgetConfig, WriteBudget};
use springtide_plumbing::client::{Connection, Reader};
use springtide_plumbing::clock::Clock;
use springtide_plumbing::config_map::ConfigMapView;
use springtide_plumbing::controller::{Controller, Reconciler, Settled};
use springtide_plumbing::events::EventSink;
use springtide_plumbing::executor::{Executor, WriteResult};
use springtide_plumbing::failing::{Failing, Failures, Telling};
use springtide_plumbing::gate::Gate;
use springtide_plumbing::guard::{Guard, Withheld};
use springtide_plumbing::key::ObjectKey;
use springtide_plumbing::lease::Fence;
use springtide_plumbing::metrics::Metrics;
use springtide_plumbing::plan::{Outcome, Plan, Step, Write};
use springtide_plumbing::queue::{Priority, Urgency, WorkQueue};
use springtide_plumbing::rights::Rights;
use springtide_plumbing::store::{Store, StoreView};
use springtide_plumbing::warrant::{NoWarrants, Warrants};
use springtide_plumbing::watch::{Scope, Selector, WatchSet};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Bound on everything that is waited for.
const PATIENCE: Duration = Duration::from_secs(120);
/// Pods of a job at work, and pods and jobs beside it: each more than the floor of the cap.
const AT_WORK: usize = 14;
const FOREIGN: usize = 12;
const WAITING_JOBS: usize = 12;
/// Ended pods, which may go.
const ENDED: usize = 3;
/// The floor of the cap.
const FLOOR: usize = 10;
const REQUESTS: usize = 16;

/// The stores that all planners share, as in a manager.
struct World {
    cluster: &'static LocalCluster,
    connection: Connection,
    stores: Stores,
}

impl World {
    async fn new() -> Self {
        let cluster = LocalCluster::shared().await.unwrap();
        cluster.install_crds().await.unwrap();
        let connection = Connection::from_config(cluster.config());
        let mut watches = WatchSet::new(1);
        let stores = Stores::register(&mut watches, &Scope::All).unwrap();
        run(watches, &connection).await;
        Self { cluster, connection, stores }
    }

    fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.cluster.client("springtide-test").unwrap(), namespace)
    }

    /// A namespace with a job at work, one that has ended, foreign pods, and jobs that wait.
    async fn populate(&self) -> String {
        let namespace = self.cluster.create_namespace("blast").await.unwrap();
        let jobs: Api<BatchJob> = self.api(&namespace);
        let pods: Api<Pod> = self.api(&namespace);
        let many = json!({"completions": 40, "parallelism": 40, "pendingDeadlineSeconds": 3600});
        let big = create(&jobs, job("big", many)).await;
        let done = create(&jobs, job("done", json!({"completions": 3, "parallelism": 3}))).await;
        let now = Timestamp::now();
        let finished = json!({"status": {
            "observedGeneration": 1, "succeeded": 3, "active": 0, "completionTime": now,
            "conditions": [{
                "type": "Complete", "status": "True", "reason": "Completed", "message": "",
                "lastTransitionTime": now, "observedGeneration": 1,
            }],
        }});
        jobs.patch_status("done", &PatchParams::default(), &Patch::Merge(finished)).await.unwrap();
        let names = (0..AT_WORK)
            .map(|index| (format!("big-{index}-0"), Some(&big)))
            .chain((0..ENDED).map(|index| (format!("done-{index}-0"), Some(&done))))
            .chain((0..FOREIGN).map(|number| (format!("foreign-{number}"), None)));
        stream::iter(names)
            .for_each_concurrent(REQUESTS, async |(name, owner)| {
                create(&pods, pod(&name, owner)).await;
                if name.starts_with("done") {
                    let ended = json!({"status": {"phase": "Succeeded"}});
                    pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(ended)).await.unwrap();
                }
            })
            .await;
        stream::iter(0..WAITING_JOBS)
            .for_each_concurrent(REQUESTS, async |number| {
                create(&jobs, job(&format!("waits-{number}"), json!({}))).await;
            })
            .await;
        let shown = || {
            let pods = self.stores.pods.list(Some(&namespace));
            pods.iter().filter(|pod| pod.is_terminal()).count() == ENDED
                && pods.len() == AT_WORK + ENDED + FOREIGN
                && self.stores.jobs.list(Some(&namespace)).len() == WAITING_JOBS + 2
        };
        until("the stores show the namespace", async || shown()).await;
        namespace
    }

    /// What the API server has of a namespace that nothing entitles to destroy: names of pods that nobody
    /// deletes and that have their finalizer, and of jobs.
    async fn unharmed(&self, namespace: &str) -> BTreeSet<String> {
        let pods = self.api::<Pod>(namespace).list(&ListParams::default()).await.unwrap();
        let pods = pods.items.into_iter().filter(|pod| {
            let held = !pod.name_any().starts_with("big") || !pod.finalizers().is_empty();
            pod.metadata.deletion_timestamp.is_none() && held && !pod.name_any().starts_with("done")
        });
        let jobs = self.api::<BatchJob>(namespace).list(&ListParams::default()).await.unwrap();
        let names = pods.map(|pod| pod.name_any());
        names.chain(jobs.items.into_iter().map(|job| format!("job {}", job.name_any()))).collect()
    }

    fn guard(&self, limits: Limits) -> Guard {
        let clock = Clock::system();
        let warrants = BatchJobWarrants::new(self.stores.clone(), Settings::default(), clock.clone());
        guard(Arc::new(Breaker::new(limits, clock)), warrants)
    }

    /// Runs a controller until the returned handle is dropped.
    fn run<R: Reconciler>(
        &self,
        reconciler: Arc<R>,
        queue: WorkQueue<ObjectKey>,
        views: &[Arc<dyn StoreView>],
        guard: Guard,
    ) -> Running {
        let client = self.connection.client("plumbing-blast").unwrap();
        let reader = Reader::new(client.clone());
        let confirm = Box::new(move |resource, key: ObjectKey| {
            let reader = reader.clone();
            async move { reader.identity(resource, &key).await }.boxed()
        });
        let released = queue.clone();
        let gate = Gate::new(views, move |key: &ObjectKey| released.release(key), confirm);
        let metrics = Arc::new(Metrics::new(&[R::NAME]));
        let executor = Executor {
            controller: R::NAME,
            rights: R::RIGHTS,
            client,
            fence: Fence::always_open(),
            guard,
            budget: Arc::new(WriteBudget::new(BudgetConfig::default())),
            gate: gate.clone(),
            events: EventSink::new(R::NAME, "test", metrics.clone()),
            fights: Arc::default(),
            metrics: metrics.clone(),
        };
        let (leads, leading) = watch::channel(true);
        let controller = Controller {
            reconciler,
            queue,
            gate: gate.clone(),
            executor,
            leading,
            clock: Clock::system(),
            metrics,
            failures: Failures::default(),
            workers: 4,
        };
        let stop = CancellationToken::new();
        let tasks = vec![tokio::spawn(controller.run(stop.clone())), tokio::spawn(gate.run(stop.clone()))];
        Running { tasks, _leads: leads }
    }
}

struct Running {
    tasks: Vec<JoinHandle<()>>,
    _leads: watch::Sender<bool>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// A guard whose brake is released; its breaker has read that there is no record.
fn guard(breaker: Arc<Breaker>, warrants: Arc<dyn Warrants>) -> Guard {
    breaker.read(None);
    Guard { breaker, warrants, ..Guard::open() }
}

async fn run(watches: WatchSet, connection: &Connection) {
    let stop = CancellationToken::new();
    let mut running = watches.start(connection.client("plumbing-blast-watch").unwrap(), &stop);
    tokio::time::timeout(PATIENCE, running.all_synced()).await.unwrap();
    tokio::spawn(async move { running.ended().await });
}

async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    polling::until(PATIENCE, what, async || Ok(holds().await.then_some(()))).await.unwrap();
}

async fn create<K>(api: &Api<K>, object: Value) -> K
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + serde::Serialize,
{
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap()
}

fn job(name: &str, spec: Value) -> Value {
    let containers = json!([{"name": "c", "image": "registry.invalid/none"}]);
    let mut job = json!({
        "apiVersion": "springtide.dev/v1alpha1", "kind": "BatchJob", "metadata": {"name": name},
        "spec": {"template": {"spec": {"containers": containers}}},
    });
    job["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    job
}

/// A pod that nobody schedules; what a job owns bears the job's finalizer.
fn pod(name: &str, owner: Option<&BatchJob>) -> Value {
    let containers = json!([{"name": "c", "image": "registry.invalid/none"}]);
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"schedulerName": "none", "containers": containers},
    });
    if let Some(job) = owner {
        pod["metadata"]["finalizers"] = json!(["springtide.dev/job-tracking"]);
        pod["metadata"]["labels"] = json!({"springtide.dev/job": job.name_any()});
        pod["metadata"]["ownerReferences"] = json!([{
            "apiVersion": "springtide.dev/v1alpha1", "kind": "BatchJob", "name": job.name_any(),
            "uid": job.uid().unwrap(), "controller": true,
        }]);
    }
    pod
}

/// A controller with a bug. Its one key is looked at again and again.
struct Buggy {
    bug: &'static Bug,
    stores: Stores,
    queue: WorkQueue<ObjectKey>,
    passes: Mutex<usize>,
    first_pods: Mutex<Vec<Arc<springtide_batch_job::projections::pod::PodView>>>,
}

impl Reconciler for Buggy {
    const NAME: &'static str = "batch-job";
    const RIGHTS: Rights = springtide_batch_job::RIGHTS;
    type Observed = Seen;

    fn observe(&self, key: &ObjectKey, _: Option<&Failing>, _: Timestamp) -> Option<Seen> {
        let mut passes = self.passes.lock().unwrap();
        *passes += 1;
        let pods = self.stores.pods.list(Some(&key.namespace));
        let mut first_pods = self.first_pods.lock().unwrap();
        if first_pods.is_empty() {
            first_pods.clone_from(&pods);
        }
        let jobs = self.stores.jobs.list(Some(&key.namespace));
        Some(Seen { pods, jobs, first_pods: first_pods.clone(), passes: *passes })
    }

    fn plan(&self, seen: &Seen, now: Timestamp) -> Plan {
        let writes: Vec<Write> = (self.bug.plan)(seen);
        let mut plan = Plan {
            stages: vec![writes.into_iter().map(Step::from).collect()],
            ..Plan::idle(Outcome::Progressing)
        };
        plan.wake_at(now + Duration::from_millis(100));
        plan
    }

    fn tell(&self, _: &ObjectKey, _: &Failing, _: Timestamp) -> Option<Telling> {
        None
    }

    fn settle(&self, key: &ObjectKey, _: &[WriteResult], _: Timestamp) -> Settled {
        // Who has a bug has no patience either.
        self.queue.add(key.clone(), Priority::High, Urgency::BreaksBackoff);
        Settled::Handled
    }
}

impl World {
    /// Runs the bug in a namespace until `enough`; gives what it has harmed.
    async fn harm(&self, bug: &'static Bug, namespace: &str, guard: Guard, enough: usize) -> usize {
        let before = self.unharmed(namespace).await;
        let queue = WorkQueue::new(1);
        let breaker = guard.breaker.clone();
        let reconciler = Arc::new(Buggy {
            bug,
            stores: self.stores.clone(),
            queue: queue.clone(),
            passes: Mutex::default(),
            first_pods: Mutex::default(),
        });
        let views = self.stores.views();
        let running = self.run(reconciler.clone(), queue.clone(), &views, guard);
        let key = ObjectKey::new(namespace, "key");
        let harmed = async || {
            let left = self.unharmed(namespace).await;
            before.difference(&left).count()
        };
        until(&format!("{} is through", bug.name), async || {
            queue.add(key.clone(), Priority::High, Urgency::BreaksBackoff);
            harmed().await >= enough || !breaker.open().is_empty()
        })
        .await;
        // Some more passes, which may do no more harm.
        let passes = *reconciler.passes.lock().unwrap();
        until("it is asked again", async || {
            queue.add(key.clone(), Priority::High, Urgency::BreaksBackoff);
            *reconciler.passes.lock().unwrap() > passes
        })
        .await;
        drop(running);
        // What was on its way has arrived before the next list.
        tokio::time::sleep(Duration::from_millis(300)).await;
        harmed().await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_bug_destroys_more_than_the_cap_where_the_breaker_is_on() {
    assert!(BUGS.len() >= 20);
    let world = World::new().await;
    let mut rows = Vec::new();
    for bug in BUGS {
        let namespace = world.populate().await;
        let guard = world.guard(Limits::default());
        let breaker = guard.breaker.clone();
        let on = world.harm(bug, &namespace, guard, usize::MAX).await;
        let open = breaker.open();
        assert_eq!(open.len(), 1, "{}: {open:?}", bug.name);
        assert_eq!(open[0].namespace.as_deref(), Some(&*namespace), "{}", bug.name);
        assert!(on <= FLOOR, "{}: {on} objects were destroyed", bug.name);
        // The same one, let loose on another namespace: without that it would prove nothing.
        let namespace = world.populate().await;
        let off = world.harm(bug, &namespace, world.guard(Limits::NONE), FLOOR + 1).await;
        assert!(off > FLOOR, "{}: {off} objects were destroyed, which is no more than the cap", bug.name);
        rows.push(format!("{on:>3} {off:>4}  {}", bug.name));
    }
    println!(" on  off  bug\n{}", rows.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_incident_is_recorded_outlives_its_process_and_is_closed_by_annotation() {
    let world = World::new().await;
    let victims = world.populate().await;
    let own = world.cluster.create_namespace("own").await.unwrap();
    let maps: Api<ConfigMap> = world.api(&own);
    let mut watches = WatchSet::new(2);
    let scope = Scope::of([own.as_str()]);
    let store: Store<ConfigMapView> = watches.add(scope, Selector::named(CONFIG_MAP), &[]).unwrap();
    run(watches, &world.connection).await;
    let process = async || {
        let breaker = Arc::new(Breaker::new(Limits::default(), Clock::system()));
        let keeper = BreakerKeeper::new(breaker.clone(), store.clone(), &own);
        let queue = WorkQueue::new(1);
        let (views, wired) = (keeper.views(), keeper.wire(&queue, watch::channel(true).1));
        let unread = breaker.check("batch-job", &victims);
        assert!(matches!(unread, Err(Withheld::Unread(_))), "{unread:?}");
        wired.await;
        let mut guard = guard(Arc::clone(&breaker), Arc::new(NoWarrants));
        let running = world.run(keeper, queue, &views, guard.clone());
        let clock = Clock::system();
        guard.warrants = BatchJobWarrants::new(world.stores.clone(), Settings::default(), clock);
        (guard, running)
    };
    let recorded = async || match maps.get_opt(CONFIG_MAP).await.unwrap() {
        Some(map) => map.data.unwrap_or_default(),
        None => Default::default(),
    };

    let (guard, running) = process().await;
    assert!(recorded().await.is_empty(), "nothing is recorded before an incident");
    assert_eq!(world.harm(&BUGS[0], &victims, guard.clone(), usize::MAX).await, FLOOR);
    let incident = guard.breaker.open().remove(0);
    until("the incident is recorded", async || recorded().await.contains_key(&incident.id)).await;
    let events: Api<Event> = world.api(&own);
    until("an event tells of it", async || {
        let events = events.list(&ListParams::default()).await.unwrap().items;
        let told = |event: &Event| event.note.as_deref().is_some_and(|note| note.contains(&incident.id));
        events.iter().any(|event| event.reason.as_deref() == Some("BreakerOpened") && told(event))
    })
    .await;
    drop(running);

    let (guard, running) = process().await;
    assert_eq!(guard.breaker.open(), std::slice::from_ref(&incident), "read at the start");
    assert_eq!(world.harm(&BUGS[0], &victims, guard.clone(), usize::MAX).await, 0);
    // Who takes the record away does not close it.
    world.cluster.kubectl(&["--namespace", &own, "delete", "configmap", CONFIG_MAP]).await.unwrap();
    until("it is recorded again", async || recorded().await.contains_key(&incident.id)).await;
    assert_eq!(guard.breaker.open(), std::slice::from_ref(&incident));

    let reset = format!("{RESET_ANNOTATION}={}", incident.id);
    let annotated = world
        .cluster
        .kubectl(&["--namespace", &own, "annotate", "configmap", CONFIG_MAP, &reset])
        .await
        .unwrap();
    assert!(annotated.status.success(), "{annotated:?}");
    until("the breaker is closed", async || guard.breaker.open().is_empty()).await;
    until("the record is cleared", async || recorded().await.is_empty()).await;
    let left = AT_WORK - FLOOR;
    assert_eq!(world.harm(&BUGS[0], &victims, guard.clone(), left).await, left, "the count begins anew");
    drop(running);
}
