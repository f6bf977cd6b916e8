//! What `KubeSource` asks, and how it reads the answers.

use crate::wire::{self, Requests, Sent, answer, bookmark, client, ending, event, object, refuse};
use axum::body::Body;
use futures::StreamExt;
use http::{HeaderValue, Response};
use kube::core::WatchEvent;
use serde::Deserialize;
use serde_json::json;
use springtide_plumbing::key::{ObjectKey, Resource, ResourceVersion};
use springtide_plumbing::projection::{Meta, NoLabels, Projection};
use springtide_plumbing::watch::{
    Identity, KubeSource, ListRequest, ListVersion, Selector, Source, WatchError, WatchRequest, WatchStart,
};
use std::time::Duration;

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Pod {
    metadata: Meta,
    /// A field that can fail to decode.
    #[serde(default)]
    priority: i32,
}

impl Projection for Pod {
    const RESOURCE: Resource = Resource::POD;
    type Labels = NoLabels;

    fn meta(&self) -> &Meta {
        &self.metadata
    }
}

fn pods(
    namespace: Option<&str>,
    answer: impl Fn(&Sent) -> Response<Body> + Send + Sync + 'static,
) -> (KubeSource<Pod>, Requests) {
    let (client, requests) = client(answer);
    let selector = Selector {
        labels: Some("springtide.dev/job".to_owned()),
        fields: Some("spec.nodeName=n1".to_owned()),
    };
    (KubeSource::new(client.into(), namespace, selector), requests)
}

fn watch(start: WatchStart) -> WatchRequest {
    WatchRequest { start, timeout_seconds: 301 }
}

const FROM_5: WatchStart = WatchStart::Watch { from: ResourceVersion(5) };

async fn frames(lines: Vec<String>) -> Vec<Result<WatchEvent<Pod>, WatchError>> {
    let (source, _) = pods(None, move |_| ending(&lines));
    source.open(watch(FROM_5)).await.unwrap().collect().await
}

#[tokio::test]
async fn a_streaming_list_is_consistent_or_not_older_than_a_version() {
    let (source, requests) = pods(None, |_| ending(&[]));
    for at in [None, Some(ResourceVersion(17))] {
        let _ = source.open(watch(WatchStart::StreamingList { at })).await.unwrap();
    }
    let [unset, at_17] = requests.all().try_into().unwrap();
    assert_eq!(unset.path, "/api/v1/pods");
    for request in [&unset, &at_17] {
        assert_eq!(request.parameter("watch"), Some("true"));
        assert_eq!(request.parameter("sendInitialEvents"), Some("true"));
        assert_eq!(request.parameter("resourceVersionMatch"), Some("NotOlderThan"));
        assert_eq!(request.parameter("allowWatchBookmarks"), Some("true"));
        assert_eq!(request.parameter("timeoutSeconds"), Some("301"));
        assert_eq!(request.parameter("labelSelector"), Some("springtide.dev/job"));
        assert_eq!(request.parameter("fieldSelector"), Some("spec.nodeName=n1"));
        assert_eq!(request.parameter("limit"), None);
    }
    // The API reads an empty version as unset; "0" would allow one older than seen before.
    assert_eq!(unset.parameter("resourceVersion"), Some(""));
    assert_eq!(at_17.parameter("resourceVersion"), Some("17"));
}

#[tokio::test]
async fn a_resumed_watch_asks_for_changes_alone() {
    let (source, requests) = pods(Some("ns"), |_| ending(&[]));
    let _ = source.open(watch(FROM_5)).await.unwrap();
    let [request] = requests.all().try_into().unwrap();
    assert_eq!(request.path, "/api/v1/namespaces/ns/pods");
    assert_eq!(request.parameter("resourceVersion"), Some("5"));
    assert_eq!(request.parameter("allowWatchBookmarks"), Some("true"));
    assert_eq!(request.parameter("sendInitialEvents"), None);
    assert_eq!(request.parameter("resourceVersionMatch"), None);
}

#[tokio::test]
async fn a_list_is_one_page_of_the_watch_cache() {
    let (source, requests) = pods(None, |_| wire::list(&[object("a", 3)], 9));
    let token = Some("t".to_owned());
    let at_17 = ListVersion::NotOlderThan(ResourceVersion(17));
    for (version, continue_token) in [(at_17, None), (ListVersion::Latest, None), (at_17, token)] {
        let page = source.list(ListRequest { version, continue_token }).await.unwrap();
        assert_eq!(page.resource_version, ResourceVersion(9));
        assert_eq!(page.objects[0].metadata.key, ObjectKey::new("ns", "a"));
        assert_eq!((page.continue_token, page.unreadable.len()), (None, 0));
    }
    let [at_17, latest, rest] = requests.all().try_into().unwrap();
    assert_eq!(at_17.parameter("resourceVersion"), Some("17"));
    assert_eq!(at_17.parameter("resourceVersionMatch"), Some("NotOlderThan"));
    assert_eq!(latest.parameter("resourceVersion"), None);
    assert_eq!(latest.parameter("resourceVersionMatch"), None);
    for request in [&at_17, &latest] {
        assert_eq!(request.parameter("limit"), None);
        assert_eq!(request.parameter("labelSelector"), Some("springtide.dev/job"));
    }
    assert_eq!(rest.parameter("continue"), Some("t"));
    assert_eq!(rest.parameter("resourceVersion"), None);
}

#[tokio::test]
async fn one_bad_object_does_not_hide_the_rest_of_a_list() {
    let mut bad = object("bad", 4);
    bad["priority"] = json!("high");
    let nameless = json!({"priority": "high"});
    let (source, _) = pods(None, move |_| {
        let objects = [object("a", 3), bad.clone(), nameless.clone(), object("b", 5)];
        wire::list(&objects, 9)
    });
    let page = source.list(ListRequest { version: ListVersion::Latest, continue_token: None }).await.unwrap();
    let names: Vec<_> = page.objects.iter().map(|pod| pod.metadata.key.name.to_string()).collect();
    assert_eq!(names, ["a", "b"]);
    let identity =
        Identity { key: ObjectKey::new("ns", "bad"), resource_version: ResourceVersion(4), deleted: false };
    assert_eq!(page.unreadable[0].identity, Some(identity));
    assert_eq!(page.unreadable[1].identity, None);
}

#[tokio::test]
async fn frames_are_whole_lines() {
    let added = event("ADDED", object("a", 6));
    let cut = event("MODIFIED", object("a", 7));
    for end in [cut.len() / 2, cut.len() - 1] {
        let frames = frames(vec![added.clone(), bookmark(6, false), cut[..end].to_owned()]).await;
        assert_eq!(frames.len(), 2, "{frames:?}");
        assert!(matches!(&frames[0], Ok(WatchEvent::Added(pod)) if pod.priority == 0));
        assert!(matches!(&frames[1], Ok(WatchEvent::Bookmark(_))));
    }
}

#[tokio::test]
async fn an_unreadable_event_says_whose_it_is_where_it_can() {
    let mut bad = object("bad", 7);
    bad["priority"] = json!("high");
    let lines = vec![
        event("MODIFIED", bad.clone()),
        event("DELETED", bad),
        "}{\n".to_owned(),
        event("ADDED", object("a", 8)),
    ];
    let frames = frames(lines).await;
    let identity = |frame: &Result<WatchEvent<Pod>, WatchError>| match frame {
        Err(WatchError::Unreadable(object)) => object.identity.clone(),
        other => panic!("{other:?}"),
    };
    let bad = |deleted| {
        Some(Identity { key: ObjectKey::new("ns", "bad"), resource_version: ResourceVersion(7), deleted })
    };
    assert_eq!(identity(&frames[0]), bad(false));
    assert_eq!(identity(&frames[1]), bad(true));
    assert_eq!(identity(&frames[2]), None);
    assert!(matches!(&frames[3], Ok(WatchEvent::Added(_))));
}

#[tokio::test]
async fn statuses_are_errors_wherever_they_come() {
    let event_410 = frames(vec![event("ERROR", wire::status(410, "Expired"))]).await;
    assert!(matches!(&event_410[..], [Ok(WatchEvent::Error(status))] if status.code == 410));
    let bare = frames(vec![format!("{}\n", wire::status(410, "Expired"))]).await;
    assert!(matches!(&bare[..], [Err(WatchError::Expired(_))]), "{bare:?}");

    let failed = async |code: u16, reason: &'static str| {
        let (source, _) = pods(None, move |_| refuse(code, reason));
        let list = source
            .list(ListRequest { version: ListVersion::Latest, continue_token: None })
            .await
            .unwrap_err();
        let Err(open) = source.open(watch(FROM_5)).await else { panic!("{code} opened a watch") };
        assert_eq!(open.to_string(), list.to_string());
        open
    };
    assert!(matches!(failed(410, "Expired").await, WatchError::Expired(_)));
    assert!(matches!(failed(404, "NotFound").await, WatchError::NotServed(_)));
    assert!(matches!(failed(400, "BadRequest").await, WatchError::Refused { code: 400, .. }));
    assert!(matches!(failed(503, "ServiceUnavailable").await, WatchError::Server { code: 503, .. }));

    // The flow control of kube-apiserver: the time to wait is in the head alone.
    let (source, _) = pods(None, |_| {
        let mut busy = answer(429, "Too many requests, please try again later.");
        busy.headers_mut().insert("retry-after", HeaderValue::from_static("17"));
        busy
    });
    let list =
        source.list(ListRequest { version: ListVersion::Latest, continue_token: None }).await.unwrap_err();
    let Err(open) = source.open(watch(FROM_5)).await else { panic!("a 429 opened a watch") };
    for busy in [list, open] {
        let WatchError::Server { code: 429, retry_after, message } = busy else { panic!("{busy}") };
        assert_eq!(retry_after, Some(Duration::from_secs(17)), "{message}");
    }

    // A proxy's answer is no Status.
    let (source, _) = pods(None, |_| answer(502, "<html>bad gateway</html>"));
    let error =
        source.list(ListRequest { version: ListVersion::Latest, continue_token: None }).await.unwrap_err();
    assert!(matches!(error, WatchError::Server { code: 502, .. }), "{error}");
}

#[tokio::test]
async fn a_balancer_without_a_server_behind_it_is_nobody_who_answers() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            // It reads what is asked, finds nobody to ask, and closes.
            tokio::io::AsyncReadExt::read(&mut connection, &mut [0; 1024]).await.unwrap();
        }
    });
    let client = kube::Client::try_from(kube::Config::new(url)).unwrap();
    let source = KubeSource::<Pod>::new(client.into(), None, Selector::default());
    let Err(cut_off) = source.open(watch(FROM_5)).await else { panic!("nobody opened a watch") };
    assert!(matches!(cut_off, WatchError::Unreachable(_)), "{cut_off}");
}
