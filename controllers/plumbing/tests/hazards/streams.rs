//! Reflectors, and what is derived from a watch's stream.

use futures::channel::mpsc::{self, UnboundedSender};
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{ReflectHandle, store, store_shared};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{PredicateConfig, WatchStreamExt, predicates};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::sleep;

const HOUR: Duration = Duration::from_secs(3600);

fn pod(name: &str, finalizer: Option<&str>) -> Pod {
    let mut pod = Pod::default();
    pod.metadata.name = Some(name.to_owned());
    pod.metadata.generation = Some(1);
    pod.metadata.finalizers = finalizer.map(|finalizer| vec![finalizer.to_owned()]);
    pod
}

/// Runs the root of a shared stream, which is given events one by one.
fn root(writer: Writer<Pod>) -> UnboundedSender<watcher::Result<Event<Pod>>> {
    let (events, stream) = mpsc::unbounded();
    tokio::spawn(stream.reflect_shared(writer).for_each(async |_| ()));
    events
}

/// Reads a subscription in a task of its own; gives the names seen.
fn names(subscriber: ReflectHandle<Pod>) -> Arc<Mutex<Vec<String>>> {
    let seen = Arc::<Mutex<Vec<String>>>::default();
    let names = Arc::clone(&seen);
    tokio::spawn(subscriber.for_each(move |pod| {
        names.lock().unwrap().push(pod.name_any());
        std::future::ready(())
    }));
    seen
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_sleeps_for_ever_behind_a_deleted_object() {
    let (_, writer) = store_shared::<Pod>(10);
    let subscriber = writer.subscribe().unwrap();
    let events = root(writer);
    for event in [Event::Apply(pod("a", None)), Event::Delete(pod("a", None)), Event::Apply(pod("b", None))] {
        events.unbounded_send(Ok(event)).unwrap();
    }
    sleep(HOUR).await;
    let seen = names(subscriber);
    sleep(HOUR).await;
    events.unbounded_send(Ok(Event::Apply(pod("c", None)))).unwrap();
    sleep(HOUR).await;
    assert!(seen.lock().unwrap().is_empty(), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn subscribers_learn_of_no_delete() {
    let (reader, writer) = store_shared::<Pod>(10);
    let seen = names(writer.subscribe().unwrap());
    let events = root(writer);
    for event in [Event::Apply(pod("a", None)), Event::Delete(pod("a", None)), Event::Apply(pod("b", None))] {
        events.unbounded_send(Ok(event)).unwrap();
        sleep(HOUR).await;
    }
    assert_eq!(reader.len(), 1, "the delete did pass");
    assert_eq!(*seen.lock().unwrap(), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn one_subscriber_that_does_not_read_stalls_all() {
    let (reader, writer) = store_shared::<Pod>(4);
    let _idle = writer.subscribe().unwrap();
    let seen = names(writer.subscribe().unwrap());
    let events = root(writer);
    for number in 0..100 {
        events.unbounded_send(Ok(Event::Apply(pod(&format!("p{number}"), None)))).unwrap();
    }
    sleep(HOUR).await;
    assert_eq!(seen.lock().unwrap().len(), 4, "as many as the buffer holds");
    assert!(reader.len() <= 5, "the store itself is not kept up: {}", reader.len());
}

#[tokio::test(start_paused = true)]
async fn one_of_several_that_wait_for_a_store_is_woken() {
    let (reader, mut writer) = store::<Pod>();
    let woken = Arc::new(AtomicUsize::new(0));
    for _ in 0..5 {
        let (reader, woken) = (reader.clone(), Arc::clone(&woken));
        tokio::spawn(async move {
            reader.wait_until_ready().await.unwrap();
            woken.fetch_add(1, SeqCst);
        });
    }
    sleep(HOUR).await;
    writer.apply_watcher_event(&Event::Init);
    writer.apply_watcher_event(&Event::InitDone);
    sleep(HOUR).await;
    assert_eq!(woken.load(SeqCst), 1);
    reader.wait_until_ready().await.unwrap();
}

#[tokio::test]
async fn a_filter_on_generation_hides_finalizers_and_deletes() {
    let events = [
        Event::Apply(pod("a", None)),
        Event::Apply(pod("a", Some("springtide.dev/hold"))),
        Event::Apply(pod("a", None)),
        Event::Delete(pod("a", None)),
    ];
    let passed = stream::iter(events.map(Ok))
        .touched_objects()
        .predicate_filter(predicates::generation, PredicateConfig::default())
        .collect::<Vec<_>>()
        .await;
    assert_eq!(passed.len(), 1, "{passed:?}");
}
