//! A source whose every answer the test gives by hand, and what tests say about objects.

use futures::StreamExt;
use kube::core::WatchEvent;
use serde::Deserialize;
use serde_json::json;
use springtide_plumbing::key::{ObjectKey, Resource, ResourceVersion};
use springtide_plumbing::projection::{Meta, NoLabels, Projection};
use springtide_plumbing::store::{Change, Index, IndexKey, Store, StoreWriter};
use springtide_plumbing::watch::{
    EventStream, ListPage, ListRequest, ListVersion, Scope, Source, StreamingLists, WatchError, WatchRequest,
    WatchStart, WatchStats, run,
};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

#[derive(Clone, Debug, Deserialize, PartialEq)]
pub(crate) struct Thing {
    pub(crate) metadata: Meta,
    #[serde(default)]
    pub(crate) node: Option<Arc<str>>,
}

impl Projection for Thing {
    const RESOURCE: Resource = Resource {
        group: "test.springtide.dev",
        version: "v1",
        kind: "Thing",
        plural: "things",
        namespaced: true,
    };
    type Labels = NoLabels;

    fn meta(&self) -> &Meta {
        &self.metadata
    }
}

/// Things by the node they name.
pub(crate) const BY_NODE: Index<Thing> = Index::new("node", |thing| thing.node.as_ref().map(IndexKey::from));

/// The thing `ns/<name>` at version `rv`; its UID is that of its name.
pub(crate) fn thing(name: &str, rv: u32) -> Thing {
    thing_of(name, &format!("uid-{name}"), rv)
}

pub(crate) fn thing_of(name: &str, uid: &str, rv: u32) -> Thing {
    serde_json::from_value(json!({
        "metadata": {"namespace": "ns", "name": name, "uid": uid, "resourceVersion": rv.to_string()},
        "node": format!("node-{}", rv % 3),
    }))
    .unwrap()
}

pub(crate) fn key(name: &str) -> ObjectKey {
    ObjectKey::new("ns", name)
}

pub(crate) fn rv(number: u32) -> ResourceVersion {
    ResourceVersion(number.into())
}

pub(crate) fn streaming_list(at: Option<u32>) -> WatchStart {
    WatchStart::StreamingList { at: at.map(rv) }
}

pub(crate) fn watch_from(from: u32) -> WatchStart {
    WatchStart::Watch { from: rv(from) }
}

pub(crate) fn list_at(at: Option<u32>) -> ListRequest {
    let version = at.map_or(ListVersion::Latest, |at| ListVersion::NotOlderThan(rv(at)));
    ListRequest { version, continue_token: None }
}

pub(crate) fn page(objects: Vec<Thing>, at: u32) -> ListPage<Thing> {
    ListPage { objects, unreadable: Vec::new(), resource_version: rv(at), continue_token: None }
}

/// An error that passes by itself.
pub(crate) fn broken() -> WatchError {
    WatchError::Transport("connection reset".to_owned())
}

pub(crate) fn expired() -> WatchError {
    WatchError::Expired("too old resource version".to_owned())
}

/// One request of the loop, waiting for the test's answer.
pub(crate) enum Call {
    Open(OpenCall),
    List(ListCall),
}

pub(crate) struct OpenCall {
    pub(crate) request: WatchRequest,
    /// When it was made.
    pub(crate) at: Instant,
    reply: oneshot::Sender<Result<EventStream<Thing>, WatchError>>,
}

impl OpenCall {
    pub(crate) fn accept(self) -> Feed {
        let (frames, received) = mpsc::unbounded_channel();
        let stream = tokio_stream(received);
        assert!(self.reply.send(Ok(stream)).is_ok(), "the loop has given this request up");
        Feed { frames }
    }

    pub(crate) fn refuse(self, error: WatchError) {
        assert!(self.reply.send(Err(error)).is_ok(), "the loop has given this request up");
    }

    /// Answers a streaming list with these things, and keeps it open.
    pub(crate) fn list(self, things: &[Thing], at: u32) -> Feed {
        assert!(matches!(self.request.start, WatchStart::StreamingList { .. }), "{:?}", self.request);
        let feed = self.accept();
        for thing in things {
            feed.added(thing.clone());
        }
        feed.end_of_list(at);
        feed
    }
}

pub(crate) struct ListCall {
    pub(crate) request: ListRequest,
    reply: oneshot::Sender<Result<ListPage<Thing>, WatchError>>,
}

impl ListCall {
    pub(crate) fn answer(self, answer: Result<ListPage<Thing>, WatchError>) {
        assert!(self.reply.send(answer).is_ok(), "the loop has given this request up");
    }
}

fn tokio_stream(frames: mpsc::UnboundedReceiver<Frame>) -> EventStream<Thing> {
    futures::stream::unfold(frames, |mut frames| async move { Some((frames.recv().await?, frames)) }).boxed()
}

type Frame = Result<WatchEvent<Thing>, WatchError>;

/// An open watch; dropping it is a clean end.
pub(crate) struct Feed {
    frames: mpsc::UnboundedSender<Frame>,
}

impl Feed {
    pub(crate) fn send(&self, frame: Frame) {
        assert!(self.frames.send(frame).is_ok(), "the loop has closed this watch");
    }

    pub(crate) fn added(&self, thing: Thing) {
        self.send(Ok(WatchEvent::Added(thing)));
    }

    pub(crate) fn modified(&self, thing: Thing) {
        self.send(Ok(WatchEvent::Modified(thing)));
    }

    pub(crate) fn deleted(&self, thing: Thing) {
        self.send(Ok(WatchEvent::Deleted(thing)));
    }

    pub(crate) fn bookmark(&self, at: u32) {
        self.bookmark_with(at, json!({}));
    }

    pub(crate) fn end_of_list(&self, at: u32) {
        self.bookmark_with(at, json!({"k8s.io/initial-events-end": "true"}));
    }

    fn bookmark_with(&self, at: u32, annotations: serde_json::Value) {
        let event = json!({"type": "BOOKMARK", "object": {
            "apiVersion": "test.springtide.dev/v1", "kind": "Thing",
            "metadata": {"resourceVersion": at.to_string(), "annotations": annotations},
        }});
        self.send(Ok(serde_json::from_value(event).unwrap()));
    }

    pub(crate) fn error_event(&self, code: u16, reason: &str) {
        let event = json!({"type": "ERROR", "object": {
            "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": "scripted",
        }});
        self.send(Ok(serde_json::from_value(event).unwrap()));
    }

    /// Whether the loop has let go of this watch.
    pub(crate) fn is_dropped(&self) -> bool {
        self.frames.is_closed()
    }
}

/// A running loop, its store, and its requests.
pub(crate) struct Script {
    pub(crate) store: Store<Thing>,
    calls: mpsc::UnboundedReceiver<Call>,
    running: JoinHandle<()>,
}

struct Scripted {
    calls: mpsc::UnboundedSender<Call>,
}

impl Source for Scripted {
    type Object = Thing;

    async fn open(&self, request: WatchRequest) -> Result<EventStream<Thing>, WatchError> {
        let (reply, answer) = oneshot::channel();
        let _ = self.calls.send(Call::Open(OpenCall { request, at: Instant::now(), reply }));
        answer.await.unwrap_or_else(|_| Err(broken()))
    }

    async fn list(&self, request: ListRequest) -> Result<ListPage<Thing>, WatchError> {
        let (reply, answer) = oneshot::channel();
        let _ = self.calls.send(Call::List(ListCall { request, reply }));
        answer.await.unwrap_or_else(|_| Err(broken()))
    }
}

impl Script {
    pub(crate) fn start() -> Self {
        Self::start_with(&StreamingLists::default(), 1)
    }

    pub(crate) fn start_with(streaming: &StreamingLists, seed: u64) -> Self {
        Self::over(Store::new(&[BY_NODE]), streaming, seed)
    }

    /// The same for a kind that the server may lack.
    pub(crate) fn start_optional() -> Self {
        let (store, mut writers) = Store::optional(&Scope::All, &[BY_NODE]);
        Self::over((store, writers.remove(0)), &StreamingLists::default(), 1)
    }

    fn over(
        (store, writer): (Store<Thing>, StoreWriter<Thing>),
        streaming: &StreamingLists,
        seed: u64,
    ) -> Self {
        let (calls, received) = mpsc::unbounded_channel();
        let loop_ = run(Scripted { calls }, writer, streaming.clone(), seed);
        let running = tokio::spawn(async move {
            loop_.await;
        });
        Self { store, calls: received, running }
    }

    /// The next request, however long the loop waits before it.
    pub(crate) async fn call(&mut self) -> Call {
        match timeout(Duration::from_secs(3600), self.calls.recv()).await {
            Ok(Some(call)) => call,
            Ok(None) => panic!("the loop has ended"),
            Err(_) => panic!("no request within an hour"),
        }
    }

    pub(crate) async fn open(&mut self) -> OpenCall {
        match self.call().await {
            Call::Open(call) => call,
            Call::List(call) => panic!("LIST in place of a watch: {:?}", call.request),
        }
    }

    pub(crate) async fn list(&mut self) -> ListCall {
        match self.call().await {
            Call::List(call) => call,
            Call::Open(call) => panic!("watch in place of a LIST: {:?}", call.request),
        }
    }

    /// Lists these things first, and waits until they are in the store.
    pub(crate) async fn sync(&mut self, things: &[Thing], at: u32) -> Feed {
        let feed = self.open().await.list(things, at);
        self.store.synced().await;
        feed
    }

    /// Whether the loop has asked for nothing until now.
    pub(crate) async fn is_quiet(&mut self) -> bool {
        settle().await;
        self.calls.try_recv().is_err()
    }

    /// Counters of the one watch.
    pub(crate) fn stats(&self) -> &WatchStats {
        self.store.parts()[0].stats()
    }

    /// Names of what is stored, each with its version.
    pub(crate) fn content(&self) -> Vec<(String, u128)> {
        let objects = self.store.list(None);
        objects
            .iter()
            .map(|thing| (thing.metadata.key.name.to_string(), thing.metadata.resource_version.0))
            .collect()
    }

    /// A log of the changes from now on, one line each.
    pub(crate) fn log(&self) -> Log {
        let log = Log::default();
        let lines = Arc::clone(&log.lines);
        self.store.on_change(Arc::new(move |change| lines.lock().unwrap().push(describe(change))));
        log
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.running.abort();
    }
}

#[derive(Default)]
pub(crate) struct Log {
    lines: Arc<Mutex<Vec<String>>>,
}

impl Log {
    /// The lines since the last call.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.lines.lock().unwrap())
    }
}

fn describe(change: &Change<Thing>) -> String {
    let version = |thing: &Thing| format!("{}@{}", thing.metadata.key.name, thing.metadata.resource_version);
    match change {
        Change::Apply { old, new, initial } => {
            let old = old.as_ref().map_or_else(String::new, |old| format!(" was {}", version(old)));
            let initial = if *initial { " initial" } else { "" };
            format!("apply {}{old}{initial}", version(new))
        }
        Change::Delete { last } => format!("delete {}", version(last)),
    }
}

/// Lets everything that can run now run: time only moves when nothing can.
pub(crate) async fn settle() {
    sleep(Duration::from_millis(1)).await;
}
