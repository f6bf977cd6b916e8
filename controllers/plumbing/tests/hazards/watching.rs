//! The watcher.

use crate::watch_wire::{bookmark, client, ending, event, held_open, list, object, refuse, status};
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher::{self, Config, Event, watcher};
use kube::{Api, Client, ResourceExt};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;
use tokio::time::timeout;

fn watch_pods(client: Client, config: Config) -> impl Stream<Item = watcher::Result<Event<Pod>>> {
    watcher(Api::all(client), config)
}

/// Drives the watcher for some virtual time; gives what it emitted.
async fn drive(
    mut events: Pin<&mut impl Stream<Item = watcher::Result<Event<Pod>>>>,
    seconds: u64,
) -> Vec<watcher::Result<Event<Pod>>> {
    let mut emitted = Vec::new();
    let _ = timeout(Duration::from_secs(seconds), async {
        // It has no backoff of its own: a failing server is asked again at once, so count as well.
        while emitted.len() < 50 {
            emitted.extend(events.next().await);
        }
    })
    .await;
    emitted
}

#[tokio::test(start_paused = true)]
async fn any_semantic_is_inert_unless_page_size_is_none() {
    for (page_size, version, limit) in [(Some(500), None, Some("500")), (None, Some("0"), None)] {
        let (client, requests) = client(|sent| if sent.is_watch() { held_open(&[]) } else { list(&[], 5) });
        let config = Config { page_size, ..Config::default().any_semantic() };
        drive(pin!(watch_pods(client, config)), 1).await;
        let first = &requests.all()[0];
        assert!(!first.is_watch());
        assert_eq!(first.parameter("resourceVersion"), version);
        assert_eq!(first.parameter("limit"), limit);
    }
}

#[tokio::test(start_paused = true)]
async fn no_event_tells_of_deletes_during_a_broken_watch() {
    let lists = AtomicUsize::new(0);
    let (client, _) = client(move |sent| match sent.is_watch() {
        true if lists.load(SeqCst) == 1 => ending(&[event("ERROR", status(410, "Expired"))]),
        true => held_open(&[]),
        false if lists.fetch_add(1, SeqCst) == 0 => list(&[object("a", 1), object("b", 2)], 5),
        false => list(&[object("a", 1)], 9),
    });
    let emitted = drive(pin!(watch_pods(client, Config::default())), 1).await;
    let listed = |event: &watcher::Result<Event<Pod>>| match event {
        Ok(Event::InitApply(pod)) => Some(pod.name_any()),
        Ok(Event::Init | Event::InitDone | Event::Apply(_) | Event::Delete(_)) | Err(_) => None,
    };
    assert_eq!(emitted.iter().filter_map(listed).collect::<Vec<_>>(), ["a", "b", "a"]);
    assert!(!emitted.iter().any(|event| matches!(event, Ok(Event::Delete(_)))));
}

#[tokio::test(start_paused = true)]
async fn a_410_on_watch_start_loops_on_one_version() {
    let (client, requests) =
        client(|sent| if sent.is_watch() { refuse(410, "Expired") } else { list(&[], 5) });
    drive(pin!(watch_pods(client, Config::default())), 600).await;
    let requests = requests.all();
    assert!(requests.len() > 20);
    assert!(!requests[0].is_watch());
    for request in &requests[1..] {
        assert!(request.is_watch(), "it lists again");
        assert_eq!(request.parameter("resourceVersion"), Some("5"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_streaming_list_is_asked_for_at_version_0() {
    let (client, requests) = client(|_| held_open(&[bookmark(5, true)]));
    drive(pin!(watch_pods(client, Config::default().streaming_lists())), 1).await;
    let first = &requests.all()[0];
    assert_eq!(first.parameter("sendInitialEvents"), Some("true"));
    assert_eq!(first.parameter("resourceVersion"), Some("0"));
}

#[tokio::test(start_paused = true)]
async fn bookmarks_are_hidden_and_older_versions_followed() {
    let (client, requests) = client(|sent| match sent.parameter("resourceVersion") {
        Some("5") => ending(&[bookmark(9, false), event("MODIFIED", object("a", 3))]),
        Some(_) => held_open(&[]),
        None => list(&[object("a", 4)], 5),
    });
    let emitted = drive(pin!(watch_pods(client, Config::default())), 1).await;
    assert!(
        matches!(
            &emitted[..],
            [Ok(Event::Init), Ok(Event::InitApply(_)), Ok(Event::InitDone), Ok(Event::Apply(older))]
                if older.resource_version().as_deref() == Some("3")
        ),
        "{emitted:?}"
    );
    let resumed = &requests.all()[2];
    assert_eq!(resumed.parameter("resourceVersion"), Some("3"));
}

#[tokio::test(start_paused = true)]
async fn a_blackhole_is_noticed_after_295_seconds_and_the_timeout_is_fixed() {
    let (client, requests) = client(|sent| if sent.is_watch() { held_open(&[]) } else { list(&[], 5) });
    drive(pin!(watch_pods(client, Config::default())), 1_000).await;
    let watches: Vec<_> = requests.all().into_iter().filter(|request| request.is_watch()).collect();
    assert_eq!(watches.len(), 4);
    assert!(watches.iter().all(|watch| watch.parameter("timeoutSeconds") == Some("290")));
    for pair in watches.windows(2) {
        assert_eq!((pair[1].at - pair[0].at).as_secs(), 295);
    }
}
