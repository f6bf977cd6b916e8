mod namespaces;

use super::*;
use crate::projection::{Meta, Projection};
use crate::queue::{Next, Priority, Urgency, WorkQueue};
use crate::store::{Store, StoreWriter};
use futures::FutureExt;
use serde_json::json;
use std::collections::BTreeMap;

#[derive(Clone, Debug, serde::Deserialize)]
struct Pod {
    metadata: Meta,
}

impl Projection for Pod {
    const RESOURCE: Resource = Resource::POD;
    type Labels = crate::projection::NoLabels;
    fn meta(&self) -> &Meta {
        &self.metadata
    }
}

#[derive(Clone, serde::Deserialize)]
struct Node {
    metadata: Meta,
}

impl Projection for Node {
    const RESOURCE: Resource = Resource::NODE;
    type Labels = crate::projection::NoLabels;
    fn meta(&self) -> &Meta {
        &self.metadata
    }
}

fn pod(name: &str, uid: &str, rv: u128) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"namespace": "ns", "name": name, "uid": uid, "resourceVersion": rv.to_string()}
    }))
    .unwrap()
}

fn deleting(name: &str, uid: &str, rv: u128) -> Pod {
    let mut pod = pod(name, uid, rv);
    pod.metadata.deletion_time = Some(jiff::Timestamp::UNIX_EPOCH);
    pod
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("ns", name)
}

fn identity(uid: &str, rv: u128) -> Identity {
    Identity { uid: Uid(uid.into()), resource_version: ResourceVersion(rv), deleting: false }
}

fn seen(name: &str, rv: u128) -> Expectation {
    Expectation::Seen { resource: Resource::POD, key: key(name), rv: ResourceVersion(rv) }
}

fn gone(name: &str, uid: &str) -> Expectation {
    Expectation::Gone { resource: Resource::POD, key: key(name), uid: Uid(uid.into()) }
}

fn resolve(name: &str, before: Option<u128>) -> Expectation {
    Expectation::Resolve { resource: Resource::POD, key: key(name), before: before.map(ResourceVersion) }
}

type Woken = Arc<Mutex<Vec<ObjectKey>>>;

/// A gate on a pod store, what it woke, and the answers of a server to its questions.
struct Bench {
    gate: Arc<Gate>,
    pods: StoreWriter<Pod>,
    nodes: StoreWriter<Node>,
    woken: Woken,
    server: Arc<Mutex<BTreeMap<ObjectKey, Identity>>>,
    asked: Arc<Mutex<Vec<(ObjectKey, u64)>>>,
    fails: Arc<Mutex<bool>>,
    owner: ObjectKey,
}

/// A gate whose stores have listed everything up to version 10.
fn bench() -> Bench {
    let (store, mut pods) = Store::<Pod>::new(&[]);
    let (other, mut nodes) = Store::<Node>::new(&[]);
    pods.replace(BTreeMap::new(), ResourceVersion(10));
    nodes.replace(BTreeMap::new(), ResourceVersion(10));
    let woken = Arc::new(Mutex::new(Vec::new()));
    let server = Arc::new(Mutex::new(BTreeMap::<ObjectKey, Identity>::new()));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let fails = Arc::new(Mutex::new(false));
    let start = Instant::now();
    let confirm: Confirm = {
        let (server, asked, fails) = (Arc::clone(&server), Arc::clone(&asked), Arc::clone(&fails));
        Box::new(move |_, key| {
            asked.lock().unwrap().push((key.clone(), start.elapsed().as_secs()));
            let answer = if *fails.lock().unwrap() {
                Err(ReadError::NoAnswer("cut".to_owned()))
            } else {
                Ok(server.lock().unwrap().get(&key).cloned())
            };
            async move { answer }.boxed()
        })
    };
    let wake = {
        let woken = Arc::clone(&woken);
        move |owner: &ObjectKey| woken.lock().unwrap().push(owner.clone())
    };
    let views: Vec<Arc<dyn StoreView>> = vec![Arc::new(store), Arc::new(other)];
    let gate = Gate::new(&views, wake, confirm);
    Bench { gate, pods, nodes, woken, server, asked, fails, owner: key("owner") }
}

impl Bench {
    fn note(&self, expectation: Expectation) {
        self.gate.note(self.owner.clone(), expectation);
    }

    fn is_open(&self) -> bool {
        self.gate.is_open(&self.owner)
    }

    fn wakes(&self) -> usize {
        self.woken.lock().unwrap().len()
    }

    /// Seconds at which the server was asked.
    fn asked(&self) -> Vec<u64> {
        self.asked.lock().unwrap().iter().map(|(_, second)| *second).collect()
    }

    fn run(&self) -> CancellationToken {
        let stop = CancellationToken::new();
        tokio::spawn(Arc::clone(&self.gate).run(stop.clone()));
        stop
    }

    fn assert_forgotten(&self) {
        assert!(self.gate.lock().is_empty(), "something is remembered of an open gate");
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_whose_store_lags_its_own_write_is_not_open() {
    let mut bench = bench();
    assert!(bench.is_open());
    bench.note(seen("a", 12));
    assert!(!bench.is_open());
    assert!(bench.gate.is_open(&key("other")), "others are not held up");
    bench.pods.apply(pod("x", "ux", 11));
    assert!(!bench.is_open());
    bench.pods.apply(pod("a", "ua", 12));
    assert!(bench.is_open());
    assert_eq!(bench.wakes(), 1);
    bench.pods.apply(pod("x", "ux", 13));
    assert_eq!(bench.wakes(), 1, "woken exactly once");
    bench.assert_forgotten();
}

#[tokio::test(start_paused = true)]
async fn a_bookmark_opens_it_and_a_version_seen_already_does_not_close_it() {
    let mut bench = bench();
    bench.note(seen("a", 12));
    bench.pods.advance(ResourceVersion(40));
    assert!(bench.is_open());
    bench.note(seen("a", 40));
    assert!(bench.is_open());
    assert_eq!(bench.wakes(), 1);
    bench.assert_forgotten();
}

#[tokio::test(start_paused = true)]
async fn the_highest_version_of_a_kind_counts_and_every_kind() {
    let mut bench = bench();
    bench.note(seen("a", 15));
    bench.note(seen("b", 12));
    bench.note(Expectation::Seen {
        resource: Resource::NODE,
        key: ObjectKey::new("", "n"),
        rv: ResourceVersion(14),
    });
    bench.pods.advance(ResourceVersion(14));
    assert!(!bench.is_open());
    bench.pods.advance(ResourceVersion(15));
    assert!(!bench.is_open(), "versions of pods say nothing about nodes");
    bench.nodes.advance(ResourceVersion(14));
    assert!(bench.is_open());
    assert_eq!(bench.wakes(), 1);
    bench.assert_forgotten();
}

#[tokio::test(start_paused = true)]
async fn a_deleted_object_must_leave_or_show_that_it_is_leaving() {
    let mut bench = bench();
    for name in ["a", "b", "c"] {
        bench.pods.apply(pod(name, "u1", 11));
    }
    bench.note(gone("a", "u1"));
    bench.pods.apply(pod("a", "u1", 12));
    assert!(!bench.is_open(), "a change that does not show the delete");
    bench.pods.delete(pod("a", "u1", 13));
    assert!(bench.is_open());
    bench.note(gone("b", "u1"));
    bench.pods.apply(pod("b", "u2", 14));
    assert!(bench.is_open(), "another object of that name");
    bench.note(gone("c", "u1"));
    bench.pods.apply(deleting("c", "u1", 15));
    assert!(bench.is_open(), "its grace period may be long");
    assert_eq!(bench.wakes(), 3);
    bench.assert_forgotten();
}

#[tokio::test(start_paused = true)]
async fn a_delete_is_not_met_by_a_store_that_has_yet_to_show_the_create() {
    let mut bench = bench();
    bench.note(seen("a", 12));
    bench.note(gone("a", "u1"));
    bench.pods.apply(pod("a", "u1", 12));
    assert!(!bench.is_open());
    bench.pods.delete(pod("a", "u1", 13));
    assert!(bench.is_open());
    assert_eq!(bench.wakes(), 1);
    bench.assert_forgotten();
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_waits_until_the_object_is_shown_anew() {
    let mut bench = bench();
    bench.note(resolve("a", None));
    bench.pods.apply(pod("b", "ub", 11));
    assert!(!bench.is_open());
    bench.pods.apply(pod("a", "ua", 12));
    assert!(bench.is_open(), "it appeared");
    let before = bench.gate.shown(Resource::POD, &key("a"));
    assert_eq!(before, Some(ResourceVersion(12)));
    bench.note(resolve("a", Some(12)));
    bench.pods.advance(ResourceVersion(20));
    assert!(!bench.is_open(), "a bookmark says nothing about a write still under way");
    bench.pods.apply(pod("a", "ua", 21));
    assert!(bench.is_open(), "it changed");
    bench.note(resolve("a", Some(12)));
    assert!(bench.is_open(), "its event came before the answer was given up for lost");
    bench.note(resolve("a", Some(21)));
    bench.pods.delete(pod("a", "ua", 22));
    assert!(bench.is_open(), "it disappeared");
    bench.assert_forgotten();
}

#[tokio::test(start_paused = true)]
async fn a_write_that_never_reached_the_server_is_resolved_by_one_get() {
    let bench = bench();
    let stop = bench.run();
    bench.note(resolve("a", None));
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert!(!bench.is_open());
    assert_eq!(bench.asked(), [0_u64; 0]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(bench.is_open());
    assert_eq!((bench.asked(), bench.wakes()), (vec![10], 1));
    bench.assert_forgotten();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(bench.asked(), [10]);
    stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn while_get_and_store_disagree_it_stays_closed_and_asks_every_ten_seconds() {
    let mut bench = bench();
    let stop = bench.run();
    bench.server.lock().unwrap().insert(key("a"), identity("ua", 12));
    bench.note(resolve("a", None));
    tokio::time::sleep(Duration::from_secs(35)).await;
    assert!(!bench.is_open(), "the create was stored, and the store does not show it");
    assert_eq!(bench.asked(), [10, 20, 30]);
    *bench.fails.lock().unwrap() = true;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(!bench.is_open(), "no answer decides nothing");
    assert_eq!(bench.asked(), [10, 20, 30, 40]);
    bench.pods.apply(pod("a", "ua", 12));
    assert!(bench.is_open());
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!((bench.asked().len(), bench.wakes()), (4, 1));
    bench.assert_forgotten();
    stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn it_opens_where_get_and_store_show_the_same() {
    let mut bench = bench();
    let stop = bench.run();
    bench.pods.apply(pod("a", "ua", 11));
    bench.server.lock().unwrap().insert(key("a"), identity("ua", 11));
    bench.note(resolve("a", Some(11)));
    // The server's versions went back, as after a restore: this one is never reached.
    bench.note(seen("a", 1000));
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert!(bench.is_open());
    assert_eq!(bench.asked(), [10, 10], "once per expectation");
    assert_eq!(bench.wakes(), 1);
    bench.assert_forgotten();
    stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn it_opens_where_the_store_is_past_what_it_cannot_show() {
    let mut bench = bench();
    let stop = bench.run();
    // Changed to what nobody can read: the store keeps the last known state.
    bench.pods.apply(pod("a", "ua", 11));
    bench.pods.advance(ResourceVersion(20));
    bench.server.lock().unwrap().insert(key("a"), identity("ua", 15));
    bench.note(resolve("a", Some(11)));
    // Outside of the store's selector, under a name that is taken.
    bench.server.lock().unwrap().insert(key("b"), identity("ub", 8));
    bench.note(resolve("b", None));
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert!(bench.is_open());
    assert_eq!((bench.asked(), bench.wakes()), (vec![10, 10], 1));
    bench.assert_forgotten();
    stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_kind_without_a_store_is_not_waited_for_but_resolved() {
    let bench = bench();
    let stop = bench.run();
    let (resource, key) = (Resource::LEASE, key("l"));
    bench.note(Expectation::Seen { resource, key: key.clone(), rv: ResourceVersion(99) });
    bench.note(Expectation::Gone { resource, key: key.clone(), uid: Uid("u".into()) });
    assert!(bench.is_open());
    bench.server.lock().unwrap().insert(key.clone(), identity("u", 5));
    let before = bench.gate.shown(resource, &key);
    bench.note(Expectation::Resolve { resource, key, before });
    assert!(!bench.is_open());
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert!(bench.is_open());
    stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn many_questions_are_asked_a_few_at_a_time_and_all_are_answered() {
    let bench = bench();
    let in_flight = Arc::new(Mutex::new((0, 0)));
    let confirm: Confirm = {
        let in_flight = Arc::clone(&in_flight);
        Box::new(move |_, _| {
            let in_flight = Arc::clone(&in_flight);
            async move {
                {
                    let mut count = in_flight.lock().unwrap();
                    count.0 += 1;
                    count.1 = count.1.max(count.0);
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
                in_flight.lock().unwrap().0 -= 1;
                Ok(None)
            }
            .boxed()
        })
    };
    let woken = Arc::clone(&bench.woken);
    let gate = Gate::new(
        &[Arc::new(bench.pods.store().clone())],
        move |owner| woken.lock().unwrap().push(owner.clone()),
        confirm,
    );
    tokio::spawn(Arc::clone(&gate).run(CancellationToken::new()));
    for n in 0..100 {
        gate.note(key(&n.to_string()), resolve("a", None));
    }
    assert_eq!(gate.closed(), 100);
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!((gate.closed(), bench.wakes()), (0, 100));
    assert_eq!(in_flight.lock().unwrap().1, CONCURRENT_ASKS);
}

/// Gate and queue together: a key with a lagging store is popped, steps aside, and is not run
/// before the store has caught up, whatever events come.
#[tokio::test(start_paused = true)]
async fn a_gated_key_is_planned_once_the_store_has_caught_up() {
    let (store, mut pods) = Store::<Pod>::new(&[]);
    pods.replace(BTreeMap::new(), ResourceVersion(10));
    let queue = WorkQueue::<ObjectKey>::new(1);
    let gate = {
        let queue = queue.clone();
        Gate::new(
            &[Arc::new(store)],
            move |owner| queue.release(owner),
            Box::new(|_, _| async { Ok(None) }.boxed()),
        )
    };
    let owner = key("owner");
    gate.note(owner.clone(), seen("a", 20));
    let planned = Arc::new(Mutex::new(Vec::new()));
    for _ in 0..4 {
        let (queue, gate, planned, store) =
            (queue.clone(), Arc::clone(&gate), Arc::clone(&planned), pods.store().clone());
        tokio::spawn(async move {
            while let Some(item) = queue.next().await {
                let next = if gate.is_open(&item.key) {
                    planned.lock().unwrap().push(store.last_rv());
                    Next::Success
                } else {
                    tokio::task::yield_now().await;
                    Next::Gated
                };
                queue.done(&item.key, next);
            }
        });
    }
    for rv in 11..=20 {
        queue.add(owner.clone(), Priority::High, Urgency::BreaksBackoff);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(*planned.lock().unwrap(), []);
        pods.advance(ResourceVersion(rv));
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(*planned.lock().unwrap(), [ResourceVersion(20)]);
}
