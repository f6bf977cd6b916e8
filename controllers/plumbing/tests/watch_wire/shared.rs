//! One watch for the stores of several controllers, each with a projection of its own.

use crate::source::Pod;
use crate::wire::{Requests, Sent, answer, bookmark, client, event, list, object, refuse};
use axum::body::Body;
use futures::stream;
use http::Response;
use serde::Deserialize;
use serde_json::{Value, json};
use springtide_plumbing::key::{ObjectKey, Resource, ResourceVersion};
use springtide_plumbing::metrics::{Metrics, StoreSource};
use springtide_plumbing::projection::{Meta, NoLabels, Projection};
use springtide_plumbing::store::{Change, Index, IndexKey, Store, Trouble};
use springtide_plumbing::watch::{ABSENT_WAIT, RunningWatches, Scope, Selector, WatchSet};
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// What another controller keeps of a pod.
#[derive(Clone, Debug, Deserialize)]
struct Placed {
    metadata: Meta,
    #[serde(default)]
    node: Option<Arc<str>>,
}

impl Projection for Placed {
    const RESOURCE: Resource = Resource::POD;
    type Labels = NoLabels;

    fn meta(&self) -> &Meta {
        &self.metadata
    }
}

const BY_NODE: Index<Placed> = Index::new("node", |pod| pod.node.as_ref().map(IndexKey::from));

fn on(node: &str, name: &str, rv: u32) -> Value {
    let mut pod = object(name, rv);
    pod["node"] = node.into();
    pod
}

/// A server whose watches the test feeds, line by line; each connection takes the next of these.
struct Feeds(Mutex<Vec<mpsc::UnboundedReceiver<String>>>);

impl Feeds {
    /// So many connections; the first is to be used first.
    fn new(count: usize) -> (Vec<mpsc::UnboundedSender<String>>, Self) {
        let (senders, mut receivers): (Vec<_>, Vec<_>) =
            (0..count).map(|_| mpsc::unbounded_channel()).unzip();
        receivers.reverse();
        (senders, Self(Mutex::new(receivers)))
    }

    fn next(&self) -> Response<Body> {
        let Some(lines) = self.0.lock().unwrap().pop() else { return refuse(503, "ServiceUnavailable") };
        let lines = stream::unfold(lines, |mut lines| async move {
            let line = lines.recv().await?;
            Some((Ok::<_, Infallible>(line), lines))
        });
        answer(200, Body::from_stream(lines))
    }
}

/// Both stores over one watch.
struct Bench {
    pods: Store<Pod>,
    placed: Store<Placed>,
    requests: Requests,
    running: RunningWatches,
}

impl Bench {
    fn new(scope: &Scope, answer: impl Fn(&Sent) -> Response<Body> + Send + Sync + 'static) -> Self {
        let (client, requests) = client(answer);
        let mut watches = WatchSet::new(1);
        let pods = watches.add::<Pod>(scope.clone(), Selector::default(), &[]).unwrap();
        let placed = watches.add::<Placed>(scope.clone(), Selector::default(), &[BY_NODE]).unwrap();
        let running = watches.start(client, &CancellationToken::new());
        Self { pods, placed, requests, running }
    }

    /// Names in each of the stores.
    fn names(&self) -> [Vec<String>; 2] {
        let name = |meta: &Meta| meta.key.name.to_string();
        [
            self.pods.list(None).iter().map(|pod| name(pod.meta())).collect(),
            self.placed.list(None).iter().map(|pod| name(pod.meta())).collect(),
        ]
    }
}

async fn settle() {
    sleep(Duration::from_millis(10)).await;
}

#[tokio::test(start_paused = true)]
async fn two_projections_of_one_kind_take_one_watch_and_each_keeps_its_fields() {
    let (feed, feeds) = Feeds::new(1);
    let bench = Bench::new(&Scope::All, move |_| feeds.next());
    let seen = Arc::new(Mutex::new(Vec::new()));
    for line in [event("ADDED", on("n1", "a", 3)), event("ADDED", on("n2", "b", 4)), bookmark(9, true)] {
        feed[0].send(line).unwrap();
    }
    bench.running.all_synced().await;
    assert_eq!(bench.names(), [["a", "b"], ["a", "b"]]);
    assert_eq!(bench.placed.by_index(&BY_NODE, &"n1".into()).len(), 1);
    // A listener of one store finds the other no further than the version says.
    let (log, other) = (seen.clone(), bench.pods.clone());
    bench.placed.on_change(Arc::new(move |change: &Change<Placed>| {
        let key = &change.object().metadata.key;
        log.lock().unwrap().push((key.name.to_string(), change.present().is_some(), other.last_rv().0));
    }));
    seen.lock().unwrap().clear();
    feed[0].send(event("MODIFIED", on("n2", "a", 11))).unwrap();
    feed[0].send(event("DELETED", on("n2", "b", 12))).unwrap();
    settle().await;
    assert_eq!(*seen.lock().unwrap(), [("a".to_owned(), true, 9), ("b".to_owned(), false, 11)]);
    assert_eq!(bench.names(), [["a"], ["a"]]);
    assert_eq!(bench.placed.by_index(&BY_NODE, &"n2".into()).len(), 1);
    assert_eq!((bench.pods.last_rv(), bench.placed.last_rv()), (ResourceVersion(12), ResourceVersion(12)));
    feed[0].send(bookmark(20, false)).unwrap();
    settle().await;
    assert_eq!((bench.pods.last_rv(), bench.placed.last_rv()), (ResourceVersion(20), ResourceVersion(20)));
    assert_eq!(bench.requests.all().len(), 1, "one watch");
    assert_eq!(bench.running.stores().len(), 2, "two stores");
    let shown = format!("{:?}", bench.running);
    assert!(
        shown.contains("pods in all namespaces (no selector) as watch_wire::source::Pod and "),
        "{shown}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_one_watch_has_done_counts_once_and_the_memory_of_both_stores() {
    let (feed, feeds) = Feeds::new(1);
    let bench = Bench::new(&Scope::All, move |_| feeds.next());
    for line in [event("ADDED", on("n1", "a", 3)), bookmark(9, true), event("ADDED", on("n1", "b", 10))] {
        feed[0].send(line).unwrap();
    }
    bench.running.all_synced().await;
    settle().await;
    let metrics = Metrics::new(&[]);
    metrics.register(|registry| registry.register_collector(Box::new(StoreSource(bench.running.stores()))));
    let text = metrics.encode().unwrap();
    let bytes = bench.pods.bytes() + bench.placed.bytes();
    for line in [
        r#"springtide_watch_events_total{resource="pods"} 2"#.to_owned(),
        r#"springtide_watch_spec_changes_total{resource="pods"} 1"#.to_owned(),
        r#"springtide_store_objects{resource="pods"} 2"#.to_owned(),
        format!(r#"springtide_store_bytes{{resource="pods"}} {bytes}"#),
    ] {
        assert!(text.contains(&line), "{line} is missing in:\n{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_one_projection_cannot_read_the_others_have() {
    let (feed, feeds) = Feeds::new(1);
    let bench = Bench::new(&Scope::All, move |_| feeds.next());
    let odd = |name: &str, rv| {
        let mut pod = on("n1", name, rv);
        // A number in the other projection.
        pod["priority"] = "high".into();
        pod
    };
    for line in [event("ADDED", on("n1", "a", 3)), event("ADDED", odd("b", 4)), bookmark(9, true)] {
        feed[0].send(line).unwrap();
    }
    bench.running.all_synced().await;
    assert_eq!(bench.names(), [vec!["a"], vec!["a", "b"]]);
    feed[0].send(event("MODIFIED", odd("a", 10))).unwrap();
    settle().await;
    let version = |meta: &Meta| meta.resource_version;
    let a = ObjectKey::new("ns", "a");
    assert_eq!(version(bench.pods.get(&a).unwrap().meta()), ResourceVersion(3), "its last known state");
    assert_eq!(version(bench.placed.get(&a).unwrap().meta()), ResourceVersion(10));
    assert_eq!(bench.pods.last_rv(), ResourceVersion(10), "nobody waits for what cannot be read");
    assert_eq!(bench.pods.parts()[0].stats().unreadable(), 2);
    // That it is gone is understood.
    feed[0].send(event("DELETED", odd("a", 11))).unwrap();
    settle().await;
    assert_eq!(bench.names(), [vec![], vec!["b"]]);
}

#[tokio::test(start_paused = true)]
async fn a_relist_mends_all_stores_of_the_watch() {
    let (feed, feeds) = Feeds::new(2);
    let bench = Bench::new(&Scope::All, move |_| feeds.next());
    for line in [event("ADDED", on("n1", "a", 3)), event("ADDED", on("n1", "b", 4)), bookmark(9, true)] {
        feed[0].send(line).unwrap();
    }
    bench.running.all_synced().await;
    let before = bench.placed.get(&ObjectKey::new("ns", "a")).unwrap();
    let expired = json!({"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired"});
    feed[0].send(event("ERROR", expired)).unwrap();
    for line in [event("ADDED", on("n1", "a", 3)), event("ADDED", on("n2", "c", 15)), bookmark(20, true)] {
        feed[1].send(line).unwrap();
    }
    sleep(Duration::from_secs(30)).await;
    assert_eq!(bench.names(), [["a", "c"], ["a", "c"]]);
    let after = bench.placed.get(&ObjectKey::new("ns", "a")).unwrap();
    assert!(Arc::ptr_eq(&before, &after), "what has not changed is not kept twice");
    assert_eq!(bench.pods.parts()[0].stats().relists(), 1);
    assert_eq!(bench.placed.last_rv(), ResourceVersion(20));
}

#[tokio::test(start_paused = true)]
async fn where_no_stream_works_one_list_fills_all_stores() {
    let mut odd = on("n1", "b", 4);
    odd["priority"] = "high".into();
    let objects = [on("n1", "a", 3), odd];
    let bench = Bench::new(&Scope::All, move |sent| match sent.is_watch() {
        true if sent.parameter("sendInitialEvents") == Some("true") => refuse(422, "Invalid"),
        true => crate::wire::held_open(&[]),
        false => list(&objects, 9),
    });
    bench.running.all_synced().await;
    assert_eq!(bench.names(), [vec!["a"], vec!["a", "b"]]);
    let lists = bench.requests.all().iter().filter(|sent| !sent.is_watch()).count();
    assert_eq!(lists, 1);
}

#[tokio::test(start_paused = true)]
async fn each_namespace_has_one_watch_for_all_stores_and_one_that_is_forbidden_stands_for_all() {
    let bench = Bench::new(&Scope::of(["a", "b"]), |sent| {
        let namespace = sent.path.split('/').nth(4).unwrap();
        if namespace == "b" {
            return refuse(403, "Forbidden");
        }
        let mut pod = on("n1", "p", 3);
        pod["metadata"]["namespace"] = namespace.into();
        crate::wire::held_open(&[event("ADDED", pod), bookmark(9, true)])
    });
    bench.running.all_synced().await;
    assert_eq!(bench.names(), [["p"], ["p"]]);
    let trouble = |part: Option<&springtide_plumbing::store::Part>| part.unwrap().trouble();
    assert_eq!(trouble(bench.pods.part_of("b")), Some(Trouble::Forbidden));
    assert_eq!(trouble(bench.placed.part_of("b")), Some(Trouble::Forbidden));
    assert_eq!(format!("{:?}", bench.running).matches("pods in namespace ").count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_the_server_lacks_leaves_all_stores_of_an_optional_watch_empty_until_it_comes() {
    let is_there = Arc::new(AtomicBool::new(false));
    let served = Arc::clone(&is_there);
    let (client, _requests) = client(move |_| match served.load(Relaxed) {
        false => refuse(404, "NotFound"),
        true => crate::wire::held_open(&[event("ADDED", on("n1", "p", 3)), bookmark(9, true)]),
    });
    let mut watches = WatchSet::new(1);
    let pods = watches.add_optional::<Pod>(Scope::All, Selector::default(), &[]).unwrap();
    let placed = watches.add_optional::<Placed>(Scope::All, Selector::default(), &[BY_NODE]).unwrap();
    let running = watches.start(client, &CancellationToken::new());
    running.all_synced().await;
    assert!(pods.is_empty() && placed.is_empty());
    is_there.store(true, Relaxed);
    sleep(*ABSENT_WAIT.end() + Duration::from_secs(1)).await;
    assert_eq!((pods.len(), placed.len()), (1, 1));
}

#[test]
fn only_another_projection_of_exactly_the_same_objects_shares_a_watch() {
    let mut watches = WatchSet::new(1);
    let labelled = Selector { labels: Some("app=x".to_owned()), fields: None };
    watches.add::<Pod>(Scope::All, labelled.clone(), &[]).unwrap();
    for (scope, selector) in [
        (Scope::All, Selector::default()),
        (Scope::of(["a"]), labelled.clone()),
        (Scope::of(["a"]), Selector::named("x")),
    ] {
        watches.add::<Placed>(scope, selector, &[]).unwrap_err();
    }
    let half = watches.add_optional::<Placed>(Scope::All, labelled.clone(), &[]).unwrap_err().to_string();
    assert!(half.contains("both optional"), "{half}");
    watches.add::<Placed>(Scope::All, labelled.clone(), &[]).unwrap();
    watches.add::<Placed>(Scope::All, labelled.clone(), &[]).unwrap_err();
    let twice = watches.add::<Pod>(Scope::All, labelled, &[]).unwrap_err().to_string();
    assert!(twice.contains("give each a projection of its own"), "{twice}");
}
