//! Where each namespace has a watch of its own.

use super::*;
use crate::watch::{STALE_AFTER, Scope};

/// A gate on pods of the namespaces `a` and `b`, the writers of both, and what it woke.
fn of_two() -> (Arc<Gate>, [StoreWriter<Pod>; 2], Woken) {
    let (store, writers) = Store::<Pod>::within(&Scope::of(["a", "b"]), &[]);
    let woken = Arc::new(Mutex::new(Vec::new()));
    let wake = {
        let woken = Arc::clone(&woken);
        move |owner: &ObjectKey| woken.lock().unwrap().push(owner.clone())
    };
    let confirm: Confirm = Box::new(|_, _| async { Ok(None) }.boxed());
    let views: Vec<Arc<dyn StoreView>> = vec![Arc::new(store)];
    let gate = Gate::new(&views, wake, confirm);
    (gate, <[_; 2]>::try_from(writers).unwrap(), woken)
}

#[tokio::test(start_paused = true)]
async fn a_write_is_seen_when_the_watch_of_its_namespace_shows_it_whatever_the_others_do() {
    let (gate, [mut a, mut b], woken) = of_two();
    a.replace(BTreeMap::new(), ResourceVersion(10));
    b.replace(BTreeMap::new(), ResourceVersion(10));
    let owner = ObjectKey::new("a", "owner");
    let seen = |namespace: &str, rv| Expectation::Seen {
        resource: Resource::POD,
        key: ObjectKey::new(namespace, "x"),
        rv: ResourceVersion(rv),
    };
    gate.note(owner.clone(), seen("a", 15));
    b.advance(ResourceVersion(99));
    assert!(!gate.is_open(&owner), "an event elsewhere tells nothing");
    a.advance(ResourceVersion(15));
    assert!(gate.is_open(&owner), "though the other namespace is quiet");
    assert_eq!(woken.lock().unwrap().len(), 1);
    // One that is ahead does not hide that another lags.
    gate.note(owner.clone(), seen("a", 200));
    gate.note(owner.clone(), seen("b", 150));
    b.advance(ResourceVersion(150));
    assert!(!gate.is_open(&owner));
    a.advance(ResourceVersion(200));
    assert!(gate.is_open(&owner));
    assert_eq!(woken.lock().unwrap().len(), 2);
    assert!(gate.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_owner_waits_for_the_first_list_of_its_namespace() {
    let (gate, [mut a, mut b], woken) = of_two();
    let [in_a, in_b] = ["a", "b"].map(|namespace| ObjectKey::new(namespace, "owner"));
    a.replace(BTreeMap::new(), ResourceVersion(10));
    assert!(gate.is_open(&in_a) && !gate.is_open(&in_b));
    assert!(gate.is_open(&ObjectKey::new("", "no object's key")) && gate.is_open(&ObjectKey::new("c", "x")));
    a.advance(ResourceVersion(11));
    assert_eq!(*woken.lock().unwrap(), []);
    // Though it is no newer than what an empty store has.
    b.replace(BTreeMap::new(), ResourceVersion(0));
    assert!(gate.is_open(&in_b));
    assert_eq!(*woken.lock().unwrap(), [in_b]);
    assert!(gate.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_stale_namespace_stops_what_is_destroyed_there_and_nothing_else() {
    let (gate, [mut a, mut b], _) = of_two();
    a.replace(BTreeMap::new(), ResourceVersion(10));
    b.replace(BTreeMap::new(), ResourceVersion(10));
    tokio::time::sleep(STALE_AFTER).await;
    a.advance(ResourceVersion(11));
    let [in_a, in_b] = ["a", "b"].map(|namespace| ObjectKey::new(namespace, "x"));
    assert_eq!(gate.stale_kind(&in_a, &in_a), None);
    for (owner, object) in [(&in_b, &in_b), (&in_a, &in_b), (&in_b, &in_a)] {
        assert_eq!(gate.stale_kind(owner, object), Some(Resource::POD));
    }
}
