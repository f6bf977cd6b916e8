//! Who is told, when, and in which order.

use crate::script::*;
use springtide_plumbing::store::{Change, IndexKey, Store, StoreView};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

#[tokio::test(start_paused = true)]
async fn a_late_listener_sees_the_snapshot_then_every_change_once() {
    let mut script = Script::start();
    let feed = script.sync(&[thing("b", 2), thing("a", 1)], 5).await;
    feed.modified(thing("a", 6));
    settle().await;
    let log = script.log();
    assert_eq!(log.take(), ["apply a@6 initial", "apply b@2 initial"]);
    feed.modified(thing("a", 7));
    feed.deleted(thing("b", 8));
    feed.deleted(thing("unknown", 9));
    settle().await;
    assert_eq!(log.take(), ["apply a@7 was a@6", "delete b@8"]);
}

#[test]
fn a_listener_registered_amid_changes_neither_misses_nor_repeats_one() {
    for _ in 0..50 {
        let (store, mut writer) = Store::new(&[BY_NODE]);
        let writing = thread::spawn(move || {
            for number in 0..500 {
                let name = format!("t{}", number % 20);
                if number % 7 == 0 {
                    writer.delete(thing(&name, number));
                } else {
                    writer.apply(thing(&name, number));
                }
            }
        });
        let replayed = Arc::new(Mutex::new(BTreeMap::<_, Arc<Thing>>::new()));
        let copy = Arc::clone(&replayed);
        store.on_change(Arc::new(move |change| {
            let mut copy = copy.lock().unwrap();
            match change {
                Change::Apply { old, new, .. } => {
                    let before = copy.insert(new.metadata.key.clone(), Arc::clone(new));
                    assert_eq!(before, *old);
                }
                Change::Delete { last } => assert!(copy.remove(&last.metadata.key).is_some()),
            }
        }));
        writing.join().unwrap();
        let replayed: Vec<Arc<Thing>> = replayed.lock().unwrap().values().cloned().collect();
        assert_eq!(replayed, store.list(None));
    }
}

#[test]
fn a_change_waits_until_a_late_listener_has_its_snapshot() {
    let (store, mut writer) = Store::new(&[BY_NODE]);
    writer.apply(thing("a", 1));
    writer.apply(thing("b", 2));
    let (begin, begun) = mpsc::channel();
    let written = Arc::new(AtomicBool::new(false));
    let done = Arc::clone(&written);
    let writing = thread::spawn(move || {
        begun.recv().unwrap();
        writer.apply(thing("b", 3));
        done.store(true, SeqCst);
    });
    let seen = Arc::new(Mutex::new(Vec::new()));
    let lines = Arc::clone(&seen);
    store.on_change(Arc::new(move |change| {
        let thing = change.object();
        lines.lock().unwrap().push((thing.metadata.key.name.to_string(), thing.metadata.resource_version.0));
        if *thing.metadata.key.name == *"a" {
            begin.send(()).unwrap();
            // Long enough for a writer that does not wait.
            thread::sleep(Duration::from_millis(50));
            assert!(!written.load(SeqCst), "a change came amid the snapshot");
        }
    }));
    writing.join().unwrap();
    assert_eq!(*seen.lock().unwrap(), [("a".to_owned(), 1), ("b".to_owned(), 2), ("b".to_owned(), 3)]);
}

#[tokio::test(start_paused = true)]
async fn store_and_indexes_come_first_then_listeners_then_the_version_then_those_who_wait_for_it() {
    let mut script = Script::start();
    let feed = script.sync(&[thing("a", 3)], 5).await;
    let log = Arc::new(Mutex::new(Vec::new()));
    let (store, lines) = (script.store.clone(), Arc::clone(&log));
    script.store.on_change(Arc::new(move |change| {
        let Change::Apply { new, initial: false, .. } = change else { return };
        assert_eq!(store.get(&new.metadata.key).as_ref(), Some(new));
        assert_eq!(store.by_index(&BY_NODE, &IndexKey::from("node-0")), []);
        assert_eq!(store.by_index(&BY_NODE, &IndexKey::from("node-1")), [Arc::clone(new)]);
        lines.lock().unwrap().push(format!("change while last_rv is {}", store.last_rv()));
    }));
    let lines = Arc::clone(&log);
    script.store.on_change(Arc::new(move |change| {
        if let Change::Apply { initial: false, .. } = change {
            lines.lock().unwrap().push("second listener".to_owned());
        }
    }));
    let view: Arc<dyn StoreView> = Arc::new(script.store.clone());
    let (store, lines) = (script.store.clone(), Arc::clone(&log));
    view.on_advance(Arc::new(move |part| {
        let rv = part.last_rv();
        lines.lock().unwrap().push(format!("advance to {rv}, last_rv is {}", store.last_rv()));
    }));
    feed.modified(thing("a", 7));
    feed.bookmark(9);
    // Says nothing new.
    feed.bookmark(9);
    settle().await;
    assert_eq!(
        *log.lock().unwrap(),
        [
            "change while last_rv is 5",
            "second listener",
            "advance to 7, last_rv is 7",
            "advance to 9, last_rv is 9"
        ]
    );
    let (uid, version, deleting) = view.identity(&key("a")).unwrap();
    assert_eq!((uid.to_string().as_str(), version, deleting), ("uid-a", rv(7), false));
    assert_eq!(view.identity(&key("b")), None);
    assert_eq!(view.object_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn all_who_wait_for_the_first_list_wake() {
    let mut script = Script::start();
    let early: Vec<_> = (0..3).map(|_| tokio::spawn(script.store.synced())).collect();
    // One that was made but not polled before the list was there.
    let unpolled = script.store.synced();
    settle().await;
    assert!(early.iter().all(|waiter| !waiter.is_finished()));
    let _feed = script.open().await.list(&[], 5);
    for waiter in early {
        waiter.await.unwrap();
    }
    unpolled.await;
    script.store.synced().await;
}
