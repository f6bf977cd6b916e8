//! Whatever the server does in between: in the end the store holds what the server holds, and so does
//! whoever only listened.

use crate::script::*;
use futures::StreamExt;
use kube::core::WatchEvent;
use proptest::prelude::*;
use springtide_plumbing::key::{ObjectKey, ResourceVersion};
use springtide_plumbing::store::{Change, IndexKey, Store};
use springtide_plumbing::watch::{
    EventStream, ListPage, ListRequest, Source, StreamingLists, Unreadable, WatchError, WatchRequest,
    WatchStart, run,
};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

#[derive(Clone, Debug)]
enum Step {
    Put(u8),
    Delete(u8),
    /// Deleted and made again under the same name.
    Recreate(u8),
    Bookmark,
    /// Every open watch ends: cleanly, or by an error.
    Cut {
        clean: bool,
    },
    /// The history up to now is forgotten; told by status or by ERROR event.
    Compact {
        by_event: bool,
    },
    Down,
    Up,
    /// No streaming lists from now on; plain lists come in two pages.
    NoStreaming,
    /// The oldest event once more.
    Replay,
    /// A line that is no event.
    Garbage,
    /// Time for the loop to see all this.
    Wait {
        seconds: u8,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..6_u8).prop_map(Step::Put),
        3 => (0..6_u8).prop_map(Step::Delete),
        2 => (0..6_u8).prop_map(Step::Recreate),
        2 => Just(Step::Bookmark),
        3 => any::<bool>().prop_map(|clean| Step::Cut { clean }),
        2 => any::<bool>().prop_map(|by_event| Step::Compact { by_event }),
        1 => Just(Step::Down),
        2 => Just(Step::Up),
        1 => Just(Step::NoStreaming),
        1 => Just(Step::Replay),
        1 => Just(Step::Garbage),
        5 => (0..100_u8).prop_map(|seconds| Step::Wait { seconds }),
    ]
}

#[derive(Default)]
struct World {
    rv: u32,
    objects: BTreeMap<ObjectKey, Thing>,
    history: Vec<(u32, WatchEvent<Thing>)>,
    compacted: u32,
    gone_by_event: bool,
    bookmark: u32,
    /// Rises with every cut: a watch of an older epoch is at its end.
    epoch: u32,
    clean: bool,
    down: bool,
    no_streaming: bool,
    /// Frames out of order, for whoever is connected.
    intruders: VecDeque<Result<WatchEvent<Thing>, WatchError>>,
}

impl World {
    fn take(&mut self, step: &Step) {
        match *step {
            Step::Put(number) => self.put(number),
            Step::Delete(number) => self.delete(number),
            Step::Recreate(number) => {
                self.delete(number);
                self.put(number);
            }
            Step::Bookmark => {
                // Other kinds move the version too.
                self.rv += 1;
                self.bookmark = self.rv;
            }
            Step::Cut { clean } => {
                self.epoch += 1;
                self.clean = clean;
            }
            Step::Compact { by_event } => {
                self.compacted = self.rv;
                self.gone_by_event = by_event;
            }
            Step::Down => {
                self.down = true;
                self.epoch += 1;
            }
            Step::Up => self.down = false,
            Step::NoStreaming => self.no_streaming = true,
            Step::Replay => {
                if let Some((_, event)) = self.history.first() {
                    self.intruders.push_back(Ok(event.clone()));
                }
            }
            Step::Garbage => {
                let message = "expected value at line 1".to_owned();
                self.intruders.push_back(Err(WatchError::Unreadable(Unreadable { identity: None, message })));
            }
            Step::Wait { .. } => {}
        }
    }

    fn put(&mut self, number: u8) {
        self.rv += 1;
        let name = format!("t{number}");
        let stored = self.objects.get(&key(&name));
        let uid = stored.map_or_else(|| format!("uid-{}", self.rv), |thing| thing.metadata.uid.to_string());
        let new = thing_of(&name, &uid, self.rv);
        let event = match stored {
            Some(_) => WatchEvent::Modified(new.clone()),
            None => WatchEvent::Added(new.clone()),
        };
        self.history.push((self.rv, event));
        self.objects.insert(key(&name), new);
    }

    fn delete(&mut self, number: u8) {
        let Some(last) = self.objects.remove(&key(&format!("t{number}"))) else { return };
        self.rv += 1;
        let last = thing_of(&last.metadata.key.name, &last.metadata.uid.to_string(), self.rv);
        self.history.push((self.rv, WatchEvent::Deleted(last)));
    }
}

#[derive(Clone)]
struct Server {
    world: Arc<Mutex<World>>,
    changed: Arc<watch::Sender<()>>,
}

/// One open watch.
struct Connection {
    server: Server,
    changes: watch::Receiver<()>,
    epoch: u32,
    first: VecDeque<Result<WatchEvent<Thing>, WatchError>>,
    seen: u32,
}

fn bookmark(at: u32, end: bool) -> WatchEvent<Thing> {
    let annotations =
        if end { serde_json::json!({"k8s.io/initial-events-end": "true"}) } else { serde_json::json!({}) };
    serde_json::from_value(serde_json::json!({"type": "BOOKMARK", "object": {
        "apiVersion": "v1", "kind": "Thing",
        "metadata": {"resourceVersion": at.to_string(), "annotations": annotations},
    }}))
    .unwrap()
}

fn gone_event() -> WatchEvent<Thing> {
    serde_json::from_value(serde_json::json!({"type": "ERROR", "object": {
        "status": "Failure", "code": 410, "reason": "Expired", "message": "too old resource version",
    }}))
    .unwrap()
}

impl Connection {
    async fn frame(&mut self) -> Option<Result<WatchEvent<Thing>, WatchError>> {
        loop {
            self.changes.borrow_and_update();
            if let Some(frame) = self.first.pop_front() {
                return Some(frame);
            }
            {
                let mut world = self.server.world.lock().unwrap();
                if world.epoch != self.epoch {
                    return if world.clean { None } else { Some(Err(broken())) };
                }
                if let Some(frame) = world.intruders.pop_front() {
                    return Some(frame);
                }
                if let Some((at, event)) = world.history.iter().find(|(at, _)| *at > self.seen) {
                    self.seen = *at;
                    return Some(Ok(event.clone()));
                }
                if world.bookmark > self.seen {
                    self.seen = world.bookmark;
                    return Some(Ok(bookmark(world.bookmark, false)));
                }
            }
            self.changes.changed().await.ok()?;
        }
    }
}

impl Source for Server {
    type Object = Thing;

    async fn open(&self, request: WatchRequest) -> Result<EventStream<Thing>, WatchError> {
        let world = self.world.lock().unwrap();
        if world.down {
            return Err(broken());
        }
        let mut first = VecDeque::new();
        let seen = match request.start {
            WatchStart::StreamingList { .. } if world.no_streaming => {
                return Err(WatchError::Refused { code: 400, message: "unknown option".to_owned() });
            }
            WatchStart::StreamingList { .. } => {
                first.extend(world.objects.values().cloned().map(|thing| Ok(WatchEvent::Added(thing))));
                first.push_back(Ok(bookmark(world.rv, true)));
                world.rv
            }
            WatchStart::Watch { from } => {
                let from = u32::try_from(from.0).unwrap();
                if from < world.compacted && world.gone_by_event {
                    first.push_back(Ok(gone_event()));
                } else if from < world.compacted {
                    return Err(expired());
                }
                from
            }
        };
        let connection = Connection {
            server: self.clone(),
            changes: self.changed.subscribe(),
            epoch: world.epoch,
            first,
            seen,
        };
        let frames = futures::stream::unfold(connection, |mut connection| async move {
            Some((connection.frame().await?, connection))
        });
        Ok(frames.boxed())
    }

    async fn list(&self, request: ListRequest) -> Result<ListPage<Thing>, WatchError> {
        let world = self.world.lock().unwrap();
        if world.down {
            return Err(broken());
        }
        let things: Vec<Thing> = world.objects.values().cloned().collect();
        let half = things.len() / 2;
        match request.continue_token {
            None if half > 0 => {
                let token = Some(world.rv.to_string());
                Ok(ListPage { continue_token: token, ..page(things[..half].to_vec(), world.rv) })
            }
            None => Ok(page(things, world.rv)),
            // A token is bound to the version of its first page.
            Some(token) if token != world.rv.to_string() => Err(expired()),
            Some(_) => Ok(page(things[half..].to_vec(), world.rv)),
        }
    }
}

/// What a listener alone can know.
#[derive(Default)]
struct Replay {
    objects: BTreeMap<ObjectKey, Arc<Thing>>,
    last_rv: Option<ResourceVersion>,
}

async fn follow_all(steps: Vec<Step>, seed: u64) {
    let server = Server { world: Arc::default(), changed: Arc::new(watch::Sender::new(())) };
    let (store, writer) = Store::new(&[BY_NODE]);
    let replay = Arc::new(Mutex::new(Replay::default()));
    let seen = Arc::clone(&replay);
    store.on_change(Arc::new(move |change| {
        let objects = &mut seen.lock().unwrap().objects;
        match change {
            Change::Apply { old, new, .. } => {
                assert_eq!(objects.insert(new.metadata.key.clone(), Arc::clone(new)), *old);
            }
            Change::Delete { last } => {
                let known = objects.remove(&last.metadata.key).expect("deleted what was never applied");
                assert_eq!(known.metadata.uid, last.metadata.uid);
            }
        }
    }));
    let seen = Arc::clone(&replay);
    store.on_advance(Arc::new(move |part| {
        let rv = part.last_rv();
        let last = &mut seen.lock().unwrap().last_rv;
        assert!(last.is_none_or(|last| last < rv), "{last:?} was followed by {rv}");
        *last = Some(rv);
    }));
    let running = tokio::spawn(run(server.clone(), writer, StreamingLists::default(), seed));
    for step in &steps {
        server.world.lock().unwrap().take(step);
        server.changed.send_replace(());
        if let Step::Wait { seconds } = step {
            sleep(Duration::from_secs((*seconds).into())).await;
        }
    }

    for step in [Step::Up, Step::Bookmark] {
        server.world.lock().unwrap().take(&step);
    }
    server.changed.send_replace(());
    let (expected, at) = {
        let world = server.world.lock().unwrap();
        (world.objects.values().cloned().collect::<Vec<_>>(), rv(world.rv))
    };
    let caught_up = timeout(Duration::from_secs(600), async {
        while store.last_rv() != at {
            sleep(Duration::from_secs(1)).await;
        }
    });
    let caught_up = caught_up.await.is_ok();
    assert!(!running.is_finished(), "the loop has ended");
    assert!(caught_up, "stays at {} of {at}", store.last_rv());
    running.abort();

    let stored: Vec<Thing> = store.list(None).iter().map(|thing| Thing::clone(thing)).collect();
    assert_eq!(stored, expected);
    let replayed: Vec<Thing> =
        replay.lock().unwrap().objects.values().map(|thing| Thing::clone(thing)).collect();
    assert_eq!(replayed, expected);
    for node in ["node-0", "node-1", "node-2"] {
        let indexed = store.by_index(&BY_NODE, &IndexKey::from(node));
        let scanned: Vec<&Thing> =
            expected.iter().filter(|thing| thing.node.as_deref() == Some(node)).collect();
        assert_eq!(indexed.iter().map(|thing| &**thing).collect::<Vec<_>>(), scanned);
    }
}

proptest! {
    #[test]
    fn store_and_listeners_end_with_what_the_server_has(
        steps in prop::collection::vec(step(), 0..60),
        seed in any::<u64>(),
    ) {
        let paused = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        paused.block_on(follow_all(steps, seed));
    }
}
