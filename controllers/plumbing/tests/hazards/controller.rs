//! The controller and its queue.

use crate::watch_wire::{Sent, answer, client_that_may_hang, event, list, object, refuse};
use axum::body::Body;
use futures::{StreamExt, stream};
use http::Response;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::sleep;

const SECOND: Duration = Duration::from_secs(1);

/// The names reconciled, in order.
type Runs = Arc<Mutex<Vec<String>>>;

/// A server that lists these pods and then sends these events, each after its pause. The watch of
/// ConfigMaps fails.
fn server(
    listed: Vec<Value>,
    events: impl Fn() -> Vec<(Duration, String)> + Send + Sync + 'static,
) -> Client {
    let answer = move |sent: &Sent| -> Option<Response<Body>> {
        if sent.path.ends_with("configmaps") {
            return Some(refuse(500, "InternalError"));
        }
        if !sent.is_watch() {
            return Some(list(&listed, 5));
        }
        let lines = stream::iter(events()).then(async |(pause, line)| {
            sleep(pause).await;
            Ok::<_, Infallible>(line)
        });
        Some(answer(200, Body::from_stream(lines.chain(stream::pending()))))
    };
    client_that_may_hang(answer).0
}

/// Runs a controller of pods for some virtual time; gives what it reconciled.
async fn run<F: Future<Output = Result<Action, io::Error>> + Send + 'static>(
    controller: Controller<Pod>,
    time: Duration,
    reconcile: impl Fn(Arc<Pod>) -> F + Send + Sync + 'static,
    after_failure: Action,
) -> Vec<String> {
    let runs = Runs::default();
    let noted = Arc::clone(&runs);
    let reconcile = move |pod: Arc<Pod>, ()| {
        noted.lock().unwrap().push(pod.name_any());
        reconcile(pod)
    };
    let running = controller
        .run(move |pod, _| reconcile(pod, ()), move |_, _, _| after_failure.clone(), Arc::new(()))
        .for_each(async |_| ());
    let _ = tokio::time::timeout(time, running).await;
    let runs = runs.lock().unwrap();
    runs.clone()
}

fn pods(count: usize) -> Vec<Value> {
    (0..count).map(|number| object(&format!("p{number}"), 1)).collect()
}

fn pod_controller(client: &Client) -> Controller<Pod> {
    Controller::new(Api::all(client.clone()), watcher::Config::default())
}

#[tokio::test(start_paused = true)]
async fn bounded_concurrency_starves_keys() {
    let client = server(pods(40), Vec::new);
    let controller = pod_controller(&client).with_config(Config::default().concurrency(4));
    let mut ran = run(
        controller,
        600 * SECOND,
        |_| async {
            sleep(SECOND).await;
            Ok(Action::requeue(SECOND / 10))
        },
        Action::await_change(),
    )
    .await;
    assert!(ran.len() > 2_000, "it is busy: {}", ran.len());
    ran.sort();
    ran.dedup();
    assert!(ran.len() <= 20, "in 600 s {} of 40 keys had a turn", ran.len());
}

#[tokio::test(start_paused = true)]
async fn one_failing_watch_slows_all_triggers() {
    let changes =
        || (0..100).map(|n| (SECOND / 5, event("ADDED", object(&format!("p{n}"), 10 + n)))).collect();
    let client = server(Vec::new(), changes);
    let reconcile = |_| async { Ok(Action::await_change()) };
    let alone = run(pod_controller(&client), 21 * SECOND, reconcile, Action::await_change()).await;
    let owning = pod_controller(&client).owns(Api::<ConfigMap>::all(client), watcher::Config::default());
    let beside = run(owning, 21 * SECOND, reconcile, Action::await_change()).await;
    assert_eq!(alone.len(), 100);
    assert!(beside.len() < 50, "{} of 100", beside.len());
}

#[tokio::test(start_paused = true)]
async fn a_failing_key_is_run_at_one_pace() {
    let client = server(pods(1), Vec::new);
    let fail = |_| async { Err(io::Error::other("scripted")) };
    let runs = run(pod_controller(&client), 600 * SECOND, fail, Action::requeue(SECOND)).await;
    assert!(runs.len() >= 590, "{}", runs.len());
}

#[tokio::test(start_paused = true)]
async fn an_event_shortens_a_running_backoff() {
    let changes = || (0..60).map(|n| (SECOND, event("MODIFIED", object("p0", 10 + n)))).collect();
    let client = server(pods(1), changes);
    let fail = |_| async { Err(io::Error::other("scripted")) };
    let runs = run(pod_controller(&client), 61 * SECOND, fail, Action::requeue(300 * SECOND)).await;
    assert_eq!(runs.len(), 61);
}

#[tokio::test(start_paused = true)]
async fn what_is_being_deleted_waits_among_the_rest() {
    let deleting = |number: u32| {
        let mut pod = object(&format!("deleting{number}"), 10 + number);
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        event("MODIFIED", pod)
    };
    let changes = move || (0..20).map(|n| (SECOND / 100, deleting(n))).collect();
    let client = server(pods(40), changes);
    let controller = pod_controller(&client).with_config(Config::default().concurrency(1));
    let slow = |_| async {
        sleep(SECOND).await;
        Ok(Action::await_change())
    };
    let runs = run(controller, 21 * SECOND, slow, Action::await_change()).await;
    let first = &runs[1..21];
    assert!(!first.iter().all(|name| name.starts_with("deleting")), "they go first now: {first:?}");
}
