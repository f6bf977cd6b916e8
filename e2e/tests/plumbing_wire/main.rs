//! What a real API server answers to the writes of the executor and of the elector, and what these
//! make of it: the figures, reasons and sentences that plumbing reads are not ours to choose.

// Helpers of tests fail the test, as tests do.
#![allow(clippy::unwrap_used)]

mod patches;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use kube::core::WatchEvent;
use serde::Deserialize;
use serde_json::{Value, json};
use springtide_e2e::local_cluster::LocalCluster;
use springtide_plumbing::budget::{BudgetConfig, WriteBudget};
use springtide_plumbing::client::{Connection, Reader};
use springtide_plumbing::clock::Clock;
use springtide_plumbing::error::{Refusal, WriteError};
use springtide_plumbing::events::EventSink;
use springtide_plumbing::executor::{Done, Executor};
use springtide_plumbing::gate::Gate;
use springtide_plumbing::guard::Guard;
use springtide_plumbing::key::{ObjectKey, Resource, ResourceVersion, Uid};
use springtide_plumbing::lease::{Elector, Fence, Leadership, LeaseConfig, LeaseView, boot_clock, observe};
use springtide_plumbing::metrics::Metrics;
use springtide_plumbing::plan::{Action, Outcome, Plan, Write, WriteClass, remove_finalizer};
use springtide_plumbing::projection::{Meta, NoLabels, Projection};
use springtide_plumbing::rights::{Right, Rights, Verb};
use springtide_plumbing::watch::{
    KubeSource, PROBE_TIMEOUT_SECONDS, Scope, Selector, Source, WatchRequest, WatchSet, WatchStart,
};
use tokio_util::sync::CancellationToken;

/// Bound on everything that is waited for.
const PATIENCE: Duration = Duration::from_secs(120);
const FINALIZER: &str = "springtide.dev/test";
const BATCH_JOB: Resource = Resource {
    group: "springtide.dev",
    version: "v1alpha1",
    kind: "BatchJob",
    plural: "batchjobs",
    namespaced: true,
};

const QUOTA: Resource = Resource { kind: "ResourceQuota", plural: "resourcequotas", ..Resource::POD };
const RIGHTS: Rights = Rights {
    holder: "wire",
    table: &[
        Right::new(Resource::POD, Verb::Create, "these tests"),
        Right::new(Resource::POD, Verb::Delete, "these tests"),
        Right::new(Resource::POD, Verb::Patch, "these tests"),
        Right::new(Resource::POD, Verb::Patch, "these tests").on("status"),
        Right::new(Resource::POD, Verb::Patch, "these tests").on("resize"),
        Right::new(Resource::POD, Verb::Create, "these tests").on("eviction"),
        Right::new(Resource::CONFIG_MAP, Verb::Create, "these tests"),
        Right::new(Resource::CONFIG_MAP, Verb::Patch, "these tests"),
        Right::new(Resource::EVENT, Verb::Create, "these tests"),
        Right::new(Resource::EVENT, Verb::Patch, "these tests"),
        Right::new(QUOTA, Verb::Create, "these tests"),
        Right::new(BATCH_JOB, Verb::Create, "these tests"),
        Right::new(BATCH_JOB, Verb::Delete, "these tests"),
        Right::new(BATCH_JOB, Verb::Patch, "these tests"),
        Right::new(BATCH_JOB, Verb::Patch, "these tests").on("status"),
    ],
};

/// Writes into a namespace of its own.
struct Desk {
    cluster: &'static LocalCluster,
    namespace: String,
    executor: Executor,
    reader: Reader,
}

impl Desk {
    async fn new() -> Self {
        let cluster = LocalCluster::shared().await.unwrap();
        cluster.install_crds().await.unwrap();
        let namespace = cluster.create_namespace("wire").await.unwrap();
        let client = Connection::from_config(cluster.config()).client("plumbing-wire").unwrap();
        let reader = Reader::new(client.clone());
        let confirm = reader.clone();
        let confirm = Box::new(move |resource, key: ObjectKey| {
            let reader = confirm.clone();
            async move { reader.identity(resource, &key).await }.boxed()
        });
        let metrics = Arc::new(Metrics::new(&["wire"]));
        let executor = Executor {
            controller: "wire",
            rights: RIGHTS,
            client,
            fence: Fence::always_open(),
            guard: Guard::open(),
            budget: Arc::new(WriteBudget::new(BudgetConfig::default())),
            gate: Gate::new(&[], |_| {}, confirm),
            events: EventSink::new("wire", "plumbing-wire", metrics.clone()),
            metrics,
            fights: Arc::default(),
        };
        Self { cluster, namespace, executor, reader }
    }

    /// What one write comes to.
    async fn write(&self, resource: Resource, name: &str, action: Action) -> Result<Done, WriteError> {
        let key = ObjectKey::new(&*self.namespace, name);
        let write = Write { resource, key: key.clone(), class: WriteClass::Spec, action };
        let plan = Plan { stages: vec![vec![write.into()]], ..Plan::idle(Outcome::Progressing) };
        self.executor.perform(&key, plan).await.remove(0).outcome
    }

    async fn refused(&self, resource: Resource, name: &str, action: Action) -> Refusal {
        match self.write(resource, name, action).await {
            Err(WriteError::Refused(refusal)) => refusal,
            other => panic!("{name} is not refused: {other:?}"),
        }
    }

    async fn identity(&self, resource: Resource, name: &str) -> Option<(Uid, ResourceVersion)> {
        let key = ObjectKey::new(&*self.namespace, name);
        let identity = self.reader.identity(resource, &key).await.unwrap()?;
        Some((identity.uid, identity.resource_version))
    }

    /// Creates a pod that a finalizer holds.
    async fn held_pod(&self, name: &str) -> (Uid, ResourceVersion) {
        let created = self.write(Resource::POD, name, create(pod(name))).await.unwrap();
        let (uid, version) = self.identity(Resource::POD, name).await.unwrap();
        assert_eq!(created, Done { resource_version: Some(version), ..Done::default() });
        (uid, version)
    }
}

fn create(manifest: Value) -> Action {
    Action::Create { manifest }
}

/// A pod that a finalizer holds and that nobody else writes to.
fn pod(name: &str) -> Value {
    let containers = json!([{"name": "c", "image": "registry.invalid/none"}]);
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "finalizers": [FINALIZER]},
        "spec": {"schedulerName": "none", "containers": containers},
    })
}

fn job(name: &str) -> Value {
    let pod =
        json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "registry.invalid/none"}]});
    json!({
        "apiVersion": "springtide.dev/v1alpha1", "kind": "BatchJob", "metadata": {"name": name},
        "spec": {"suspend": true, "template": {"spec": pod}},
    })
}

fn delete(uid: &Uid, resource_version: Option<ResourceVersion>) -> Action {
    Action::Delete { uid: uid.clone(), resource_version, grace_seconds: Some(0) }
}

fn status(uid: &Uid, resource_version: ResourceVersion, status: Value) -> Action {
    Action::Status { uid: uid.clone(), resource_version, status, stored: Value::Null }
}

fn patch(uid: &Uid, operation: Value) -> Action {
    Action::json_patch(json!([{"op": "test", "path": "/metadata/uid", "value": uid}, operation]))
}

fn unfinalize(uid: &Uid, finalizers: &[&str]) -> Action {
    let finalizers: Vec<Arc<str>> = finalizers.iter().copied().map(Arc::from).collect();
    remove_finalizer(uid, &finalizers, FINALIZER).unwrap()
}

/// The UID of no object.
static OTHER: LazyLock<Uid> = LazyLock::new(|| Uid("9d6f2a52-0000-4000-8000-000000000000".into()));

const STALE: ResourceVersion = ResourceVersion(1);

#[tokio::test]
async fn a_name_is_taken_until_the_object_is_gone() {
    let desk = Desk::new().await;
    let (uid, _) = desk.held_pod("a").await;
    let taken = || desk.write(Resource::POD, "a", create(pod("a")));
    assert!(matches!(taken().await, Err(WriteError::AlreadyExists)));
    desk.write(Resource::POD, "a", delete(&uid, None)).await.unwrap();
    assert!(matches!(taken().await, Err(WriteError::AlreadyExists)), "while it is being deleted");
    desk.write(Resource::POD, "a", unfinalize(&uid, &[FINALIZER])).await.unwrap();
    assert_eq!(desk.identity(Resource::POD, "a").await, None);
    taken().await.unwrap();
}

#[tokio::test]
async fn a_delete_hits_one_incarnation_in_one_version() {
    let desk = Desk::new().await;
    let (uid, version) = desk.held_pod("a").await;
    let deleted = |uid, version| desk.write(Resource::POD, "a", delete(uid, version));
    assert!(matches!(deleted(&OTHER, None).await, Err(WriteError::Gone)));
    assert!(matches!(deleted(&OTHER, Some(version)).await, Err(WriteError::Gone)));
    assert!(matches!(deleted(&uid, Some(STALE)).await, Err(WriteError::Conflict(_))));
    deleted(&uid, Some(version)).await.unwrap();
    desk.write(Resource::POD, "a", unfinalize(&uid, &[FINALIZER])).await.unwrap();
    assert!(matches!(deleted(&uid, None).await, Err(WriteError::Gone)));

    let created = desk.write(BATCH_JOB, "j", create(job("j"))).await.unwrap();
    let (uid, version) = desk.identity(BATCH_JOB, "j").await.unwrap();
    assert_eq!(created.resource_version, Some(version));
    assert!(matches!(desk.write(BATCH_JOB, "j", delete(&OTHER, None)).await, Err(WriteError::Gone)));
    desk.write(BATCH_JOB, "j", delete(&uid, Some(version))).await.unwrap();
}

#[tokio::test]
async fn a_patch_whose_test_fails_is_a_conflict_and_an_invalid_one_a_refusal() {
    let desk = Desk::new().await;
    let (uid, _) = desk.held_pod("a").await;
    for conflict in [
        unfinalize(&OTHER, &[FINALIZER]),
        // Another finalizer was there, and is there no more.
        unfinalize(&uid, &["springtide.dev/before", FINALIZER]),
        patch(&uid, json!({"op": "remove", "path": "/metadata/labels/missing"})),
    ] {
        let outcome = desk.write(Resource::POD, "a", conflict.clone()).await;
        assert!(matches!(outcome, Err(WriteError::Conflict(_))), "{conflict:?}: {outcome:?}");
    }
    let invalid = patch(&uid, json!({"op": "add", "path": "/metadata/labels", "value": {"a b": ""}}));
    let refusal = desk.refused(Resource::POD, "a", invalid).await;
    assert_eq!((refusal.code, refusal.fields), (422, vec!["metadata.labels".to_owned()]));
    desk.write(Resource::POD, "a", unfinalize(&uid, &[FINALIZER])).await.unwrap();
    desk.write(Resource::POD, "a", delete(&uid, None)).await.unwrap();
    let gone = desk.write(Resource::POD, "a", unfinalize(&uid, &[FINALIZER])).await;
    assert!(matches!(gone, Err(WriteError::Gone)));
}

#[tokio::test]
async fn a_status_replaces_exactly_the_version_it_was_decided_on() {
    let desk = Desk::new().await;
    desk.write(BATCH_JOB, "j", create(job("j"))).await.unwrap();
    desk.held_pod("p").await;
    for (resource, name, content) in [
        (BATCH_JOB, "j", json!({"observedGeneration": 1})),
        (Resource::POD, "p", json!({"phase": "Pending", "message": "m"})),
    ] {
        let (uid, version) = desk.identity(resource, name).await.unwrap();
        let write = |uid, version| desk.write(resource, name, status(uid, version, content.clone()));
        assert!(matches!(write(&uid, STALE).await, Err(WriteError::Conflict(_))), "{resource}");
        assert!(matches!(write(&OTHER, version).await, Err(WriteError::Conflict(_))), "{resource}");
        let written = write(&uid, version).await.unwrap().resource_version;
        assert!(written > Some(version));
        assert!(matches!(write(&uid, version).await, Err(WriteError::Conflict(_))), "{resource}: twice");
        assert_eq!(desk.identity(resource, name).await.unwrap().1, written.unwrap());
    }
    let (uid, version) = desk.identity(BATCH_JOB, "j").await.unwrap();
    let invalid = status(&uid, version, json!({"observedGeneration": "one"}));
    let refusal = desk.refused(BATCH_JOB, "j", invalid).await;
    assert_eq!((refusal.code, refusal.fields[0].as_str()), (422, "status.observedGeneration"));
    desk.write(BATCH_JOB, "j", delete(&uid, None)).await.unwrap();
    let gone = desk.write(BATCH_JOB, "j", status(&uid, version, json!({}))).await;
    assert!(matches!(gone, Err(WriteError::Gone)), "{gone:?}");
}

#[tokio::test]
async fn refusals_tell_their_cause() {
    let desk = Desk::new().await;
    let refusal = desk.refused(Resource::POD, "Capitals", create(pod("Capitals"))).await;
    assert_eq!((refusal.code, refusal.fields), (422, vec!["metadata.name".to_owned()]));

    let mut large = pod("large");
    large["metadata"]["annotations"] = json!({"a": "x".repeat(4 << 20)});
    assert_eq!(desk.refused(Resource::POD, "large", create(large)).await.code, 413);

    let mut foreign = pod("foreign");
    foreign["metadata"]["namespace"] = "elsewhere".into();
    assert_eq!(desk.refused(Resource::POD, "foreign", create(foreign)).await.code, 400);

    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"},
        "spec": {"hard": {"count/pods": "0"}},
    });
    desk.write(QUOTA, "none", create(quota)).await.unwrap();
    // A quota holds once its controller has counted.
    let refused = async {
        for number in 0.. {
            let name = format!("p{number}");
            if let Err(WriteError::Refused(refusal)) =
                desk.write(Resource::POD, &name, create(pod(&name))).await
            {
                return refusal;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        unreachable!("an endless loop")
    };
    let refusal = tokio::time::timeout(PATIENCE, refused).await.unwrap();
    assert!(refusal.is_quota() && !refusal.is_namespace_terminating(), "{refusal:?}");

    desk.cluster.kubectl(&["delete", "namespace", &desk.namespace, "--wait=false"]).await.unwrap();
    let refused = async {
        loop {
            let refusal = desk.refused(Resource::POD, "late", create(pod("late"))).await;
            if !refusal.is_quota() {
                return refusal;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let refusal = tokio::time::timeout(PATIENCE, refused).await.unwrap();
    // Gone altogether where nothing holds it; here pods do.
    assert!(refusal.is_namespace_terminating(), "{refusal:?}");
}

/// An elector under the watch of its Lease; its own stop, and what others see of it.
async fn candidate(desk: &Desk, identity: &str) -> (Leadership, CancellationToken) {
    let key = ObjectKey::new(&*desk.namespace, "lease");
    let connection = Connection::from_config(desk.cluster.config());
    let mut watches = WatchSet::new(1);
    let selector = Selector { fields: Some("metadata.name=lease".to_owned()), ..Selector::default() };
    let lease = watches.add::<LeaseView>(Scope::of([&*key.namespace]), selector, &[]).unwrap();
    let observed = observe(&lease, boot_clock());
    let stop = CancellationToken::new();
    let mut running = watches.start(connection.client("plumbing-wire-watch").unwrap(), &stop);
    tokio::time::timeout(PATIENCE, running.all_synced()).await.unwrap();
    let config = LeaseConfig::new(key, identity.to_owned());
    let client = connection.client("plumbing-wire-lease").unwrap();
    let (elector, leadership) = Elector::new(client, config, boot_clock(), observed);
    tokio::spawn(elector.run(stop.clone()));
    tokio::spawn(async move { running.ended().await });
    (leadership, stop)
}

#[tokio::test]
async fn a_lease_is_handed_over() {
    let desk = Desk::new().await;
    let (mut first, stop_first) = candidate(&desk, "first").await;
    let leads = |led: &bool| *led;
    tokio::time::timeout(PATIENCE, first.leading.wait_for(leads)).await.unwrap().unwrap();
    assert!(first.fence.is_open());
    let (mut second, stop_second) = candidate(&desk, "second").await;
    // Two renewals at least: the Lease that was made is the one that is kept.
    let (_, version) = desk.identity(Resource::LEASE, "lease").await.unwrap();
    let renewed = async {
        while desk.identity(Resource::LEASE, "lease").await.unwrap().1 == version {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(PATIENCE, renewed).await.unwrap();
    assert!(*first.leading.borrow() && first.fence.is_open());
    assert!(!*second.leading.borrow() && !second.fence.is_open());

    stop_first.cancel();
    tokio::time::timeout(PATIENCE, second.leading.wait_for(leads)).await.unwrap().unwrap();
    assert!(second.fence.is_open());
    assert!(!*first.leading.borrow() && !first.fence.is_open());
    stop_second.cancel();
}

/// The least of a BatchJob.
#[derive(Clone, Debug, Deserialize)]
struct Job {
    metadata: Meta,
}

impl Projection for Job {
    const RESOURCE: Resource = BATCH_JOB;
    type Labels = NoLabels;

    fn meta(&self) -> &Meta {
        &self.metadata
    }
}

#[tokio::test]
async fn of_a_kind_that_nothing_changes_a_streaming_list_tells_what_a_brief_watch_may_not() {
    let desk = Desk::new().await;
    let client = Connection::from_config(desk.cluster.config()).client("plumbing-wire-watch").unwrap();
    let source = KubeSource::<Job>::new(client.into(), Some(&desk.namespace), Selector::default());
    let open = async |start| {
        let request = WatchRequest { start, timeout_seconds: PROBE_TIMEOUT_SECONDS };
        source.open(request).await.unwrap()
    };
    let bookmark = |event| match event {
        Some(Ok(WatchEvent::Bookmark(bookmark))) => {
            ResourceVersion::parse(&bookmark.metadata.resource_version).unwrap()
        }
        other => panic!("no bookmark: {other:?}"),
    };
    let mut last = bookmark(open(WatchStart::StreamingList { at: None }).await.next().await);
    for _ in 0..2 {
        // The probe of the watch loop: it ends in time, with or without a bookmark before.
        let from = last;
        let mut probe = open(WatchStart::Watch { from }).await;
        while let Some(frame) = tokio::time::timeout(PATIENCE, probe.next()).await.unwrap() {
            last = bookmark(Some(frame));
            assert!(last > from, "the version that a watch began with is in no bookmark of it");
        }
        // And the list after a mute one: it needs nothing newer.
        let mut list = open(WatchStart::StreamingList { at: Some(last) }).await;
        let end = bookmark(tokio::time::timeout(PATIENCE, list.next()).await.unwrap());
        assert!(end >= last);
        last = end;
    }
}

#[tokio::test]
async fn writes_that_another_client_keeps_undoing_keep_a_distance_and_users_are_told() {
    let desk = Desk::new().await;
    let (uid, _) = desk.held_pod("contested").await;
    let telling = desk.executor.clone();
    let teller = tokio::spawn(async move {
        telling.events.run(&telling, &Clock::system(), &CancellationToken::new()).await;
    });
    let ours = || {
        Action::json_patch(json!([
            {"op": "test", "path": "/metadata/uid", "value": uid},
            {"op": "add", "path": "/metadata/labels", "value": {"owner": "us"}},
        ]))
    };
    let undo = ["-n", &desk.namespace, "label", "pod", "contested", "--overwrite", "owner=them"];
    let mut written = 0;
    let until = loop {
        match desk.write(Resource::POD, "contested", ours()).await {
            Ok(_) => written += 1,
            Err(WriteError::Contested { until }) => break until,
            Err(other) => panic!("{other}"),
        }
        assert!(written < 20, "it is written however often somebody undoes it");
        assert!(desk.cluster.kubectl(&undo).await.unwrap().status.success());
    };
    // Three reversals, had they taken no longer than a minute.
    assert!(written >= 4, "{written}");
    assert!(until > tokio::time::Instant::now());
    let kubectl = async |args: &[&str]| {
        let output = desk.cluster.kubectl(&[&["-n", &*desk.namespace], args].concat()).await.unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let shown = kubectl(&["get", "pod", "contested", "--show-labels"]).await;
    assert!(shown.contains("owner=them"), "it is left alone for now: {shown}");
    let wait = ["wait", "--for=jsonpath={.reason}=FieldConflict", "events"];
    let reason = ["--field-selector", "reason=FieldConflict", "--timeout=60s"];
    kubectl(&[&wait[..], &reason[..]].concat()).await;
    let text = kubectl(&["describe", "pod", "contested"]).await;
    assert!(text.contains("FieldConflict") && text.contains("Another client keeps undoing"), "{text}");
    let metrics = desk.executor.metrics.encode().unwrap();
    assert!(metrics.contains(r#"springtide_field_conflicts_total{controller="wire"} 1"#), "{metrics}");
    teller.abort();
}
