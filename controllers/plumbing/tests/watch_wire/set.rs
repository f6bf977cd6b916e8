//! The watches of one process.

use crate::source::Pod;
use crate::wire::{Sent, answer, bookmark, client, client_that_may_hang, event, held_open, object, refuse};
use axum::body::Body;
use futures::stream;
use http::Response;
use serde::Deserialize;
use springtide_plumbing::key::{Resource, ResourceVersion};
use springtide_plumbing::projection::{Meta, NoLabels, Projection};
use springtide_plumbing::rights::{Right, Rights, Verb};
use springtide_plumbing::store::{Index, IndexKey, Trouble};
use springtide_plumbing::watch::{Scope, Selector, WatchSet};
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

#[derive(Clone, Debug, Deserialize)]
struct Node {
    metadata: Meta,
}

impl Projection for Node {
    const RESOURCE: Resource = Resource::NODE;
    type Labels = NoLabels;

    fn meta(&self) -> &Meta {
        &self.metadata
    }
}

fn one_object(_: &Sent) -> Response<Body> {
    held_open(&[event("ADDED", object("a", 3)), bookmark(9, true)])
}

#[test]
fn a_second_watch_of_the_same_objects_is_refused_by_name() {
    let mut watches = WatchSet::new(1);
    let labelled = Selector { labels: Some("app=x".to_owned()), fields: None };
    watches.add::<Pod>(Scope::of(["a"]), Selector::default(), &[]).unwrap();
    watches.add::<Pod>(Scope::of(["b"]), Selector::default(), &[]).unwrap();
    watches.add::<Node>(Scope::All, Selector::default(), &[]).unwrap();
    let same = watches.add::<Pod>(Scope::of(["a"]), labelled, &[]).unwrap_err().to_string();
    assert!(same.contains("pods in namespace a (no selector) as watch_wire::source::Pod"), "{same}");
    assert!(same.contains("pods in namespace a (labels `app=x`)"), "{same}");
    watches.add::<Pod>(Scope::All, Selector::default(), &[]).unwrap_err();
    watches.add::<Node>(Scope::of(["a"]), Selector::default(), &[]).unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn controllers_that_share_a_projection_share_its_watch_and_each_finds_by_its_own_index() {
    const BY_NAME: Index<Pod> = Index::new("name", |pod| Some(IndexKey::from(&pod.meta().key.name)));
    const BY_NAMESPACE: Index<Pod> =
        Index::new("namespace", |pod| Some(IndexKey::from(&pod.meta().key.namespace)));
    let (client, requests) = client(one_object);
    let mut watches = WatchSet::new(1);
    let one = watches.share::<Pod>(Scope::All, Selector::default(), &[BY_NAME]).unwrap();
    let other = watches.share::<Pod>(Scope::All, Selector::default(), &[BY_NAME, BY_NAMESPACE]).unwrap();
    watches.share_optional::<Pod>(Scope::All, Selector::default(), &[]).unwrap_err();
    watches.share::<Pod>(Scope::of(["a"]), Selector::default(), &[]).unwrap_err();
    let running = watches.start(client, &CancellationToken::new());
    running.all_synced().await;
    assert_eq!((running.stores().len(), requests.all().len()), (1, 1));
    let pod = &one.list(None)[0];
    assert_eq!(one.by_index(&BY_NAME, &IndexKey::from(&pod.meta().key.name)).len(), 1);
    assert_eq!(other.by_index(&BY_NAMESPACE, &IndexKey::from(&pod.meta().key.namespace)).len(), 1);
}

#[test]
fn a_watch_that_no_table_of_rights_has_is_refused() {
    let table = |holder, table| Rights { holder, table };
    const WATCH: Right = Right::new(Resource::POD, Verb::Watch, "x");
    const LIST: Right = Right::new(Resource::POD, Verb::List, "x");
    let mut watches = WatchSet::new(1).within([table("one", &[WATCH]), table("other", &[LIST])]);
    let refused = watches.add::<Pod>(Scope::All, Selector::default(), &[]).unwrap_err().to_string();
    assert!(refused.starts_with("watch on pods is not among the rights of other"), "{refused}");
    let mut watches = WatchSet::new(1).within([table("one", &[]), table("other", &[LIST, WATCH])]);
    watches.add::<Pod>(Scope::All, Selector::default(), &[]).unwrap();
    watches.add::<Node>(Scope::All, Selector::default(), &[]).unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn all_stores_fill_and_all_watches_stop() {
    let (client, requests) = client(one_object);
    let mut watches = WatchSet::new(1);
    let pods = watches.add::<Pod>(Scope::All, Selector::default(), &[]).unwrap();
    let nodes = watches.add::<Node>(Scope::All, Selector::default(), &[]).unwrap();
    let stop = CancellationToken::new();
    let mut running = watches.start(client, &stop);
    running.all_synced().await;
    assert_eq!((pods.len(), nodes.len()), (1, 1));
    let resources: Vec<Resource> = running.stores().iter().map(|store| store.resource()).collect();
    assert_eq!(resources, [Resource::POD, Resource::NODE]);
    assert_eq!(requests.all().len(), 2);

    stop.cancel();
    running.ended().await.unwrap();
    sleep(Duration::from_secs(600)).await;
    assert_eq!(requests.all().len(), 2, "a stopped watch goes on");
    assert!(pods.is_stale());
}

#[tokio::test(start_paused = true)]
async fn readiness_waits_for_the_last_store() {
    let (client, _) =
        client(|sent| if sent.path.ends_with("nodes") { refuse(404, "NotFound") } else { one_object(sent) });
    let mut watches = WatchSet::new(1);
    let pods = watches.add::<Pod>(Scope::All, Selector::default(), &[]).unwrap();
    let nodes = watches.add::<Node>(Scope::All, Selector::default(), &[]).unwrap();
    let running = watches.start(client, &CancellationToken::new());
    pods.synced().await;
    let all = tokio::time::timeout(Duration::from_secs(600), running.all_synced()).await;
    assert!(all.is_err());
    assert!(!nodes.is_synced());
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_panics_is_reported_by_name() {
    let (client, _) = client(one_object);
    let mut watches = WatchSet::new(1);
    let _pods = watches.add::<Pod>(Scope::All, Selector::default(), &[]).unwrap();
    let nodes = watches.add::<Node>(Scope::All, Selector::default(), &[]).unwrap();
    nodes.on_change(Arc::new(|_| panic!("a listener's bug")));
    let mut running = watches.start(client, &CancellationToken::new());
    let error = running.ended().await.unwrap_err();
    assert!(error.watch.starts_with("nodes in all namespaces"), "{error}");
    assert_eq!(error.message, "a listener's bug");
}

#[tokio::test(start_paused = true)]
async fn a_watch_whose_requests_hang_slows_no_other() {
    let (lines, received) = mpsc::unbounded_channel::<String>();
    let received = Mutex::new(Some(received));
    let (client, requests) = client_that_may_hang(move |sent| match sent.path.as_str() {
        "/api/v1/nodes" => None,
        _ => {
            let lines = received.lock().unwrap().take().expect("one watch of pods");
            let lines = stream::unfold(lines, |mut lines| async move {
                let line = lines.recv().await?;
                Some((Ok::<_, Infallible>(line), lines))
            });
            Some(answer(200, Body::from_stream(lines)))
        }
    });
    let mut watches = WatchSet::new(1);
    // First, so that it is also the first to start.
    let nodes = watches.add::<Node>(Scope::All, Selector::default(), &[]).unwrap();
    let pods = watches.add::<Pod>(Scope::All, Selector::default(), &[]).unwrap();
    let _running = watches.start(client, &CancellationToken::new());
    lines.send(bookmark(9, true)).unwrap();
    pods.synced().await;
    for number in 0..200 {
        lines.send(event("ADDED", object(&format!("p{number}"), 10 + number))).unwrap();
        sleep(Duration::from_millis(1)).await;
        assert_eq!(pods.last_rv(), ResourceVersion((10 + number).into()), "an event was late");
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!((pods.len(), pods.parts()[0].stats().restarts(), nodes.is_synced()), (200, 0, false));
    let hung = requests.all().iter().filter(|sent| sent.path.ends_with("nodes")).count();
    assert!(hung >= 4, "a watch and a LIST in place of it, again and again: {hung}");
}

#[tokio::test(start_paused = true)]
async fn each_namespace_has_a_watch_and_one_that_is_forbidden_comes_when_it_may() {
    let allowed = Arc::new(AtomicBool::new(false));
    let may = Arc::clone(&allowed);
    let (client, requests) = client(move |sent| {
        let namespace = sent.path.split('/').nth(4).unwrap();
        if namespace == "b" && !may.load(Relaxed) {
            return refuse(403, "Forbidden");
        }
        let mut pod = object("p", 3);
        pod["metadata"]["namespace"] = namespace.into();
        held_open(&[event("ADDED", pod), bookmark(9, true)])
    });
    let mut watches = WatchSet::new(1);
    let pods = watches.add::<Pod>(Scope::of(["b", "a", "c"]), Selector::default(), &[]).unwrap();
    let running = watches.start(client, &CancellationToken::new());
    assert_eq!(running.stores().len(), 1, "one store");
    assert_eq!(format!("{running:?}").matches("pods in namespace ").count(), 3);
    running.all_synced().await;
    let seen = || pods.list(None).iter().map(|pod| pod.meta().key.to_string()).collect::<Vec<_>>();
    assert_eq!(seen(), ["a/p", "c/p"]);
    let part = pods.part_of("b").unwrap();
    assert_eq!(part.trouble(), Some(Trouble::Forbidden));
    let obstacle = part.obstacle().unwrap();
    assert!(obstacle.contains("403") && obstacle.contains("scripted"), "{obstacle}");
    // However long that lasts, it is asked again, and not often.
    sleep(Duration::from_secs(600)).await;
    let asked = requests.all().iter().filter(|sent| sent.path.contains("/namespaces/b/")).count();
    assert!((20..=60).contains(&asked), "{asked} requests in ten minutes");
    assert!(pods.part_of("b").unwrap().is_stale());
    allowed.store(true, Relaxed);
    sleep(Duration::from_secs(31)).await;
    assert_eq!(seen(), ["a/p", "b/p", "c/p"]);
    assert_eq!(pods.part_of("b").unwrap().trouble(), None);
}
