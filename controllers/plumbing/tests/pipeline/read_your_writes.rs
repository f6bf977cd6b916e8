//! A key is not planned before the stores show what it wrote.

use crate::rig::{Rig, Seen, Setup, create, delete, deleting_pod, idle, key, pass, plan, pod, seconds};
use crate::wire::{Reply, answer, done, object, refuse};
use http::Method;
use serde_json::json;
use springtide_plumbing::key::ResourceVersion;
use springtide_plumbing::plan::Plan;
use springtide_plumbing::projection::Projection;
use springtide_plumbing::queue::{Priority, Urgency};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Creates the pod when the store does not show it.
fn create_once(seen: &Seen) -> Plan {
    match &seen.pod {
        Some(_) => idle(),
        None => plan(vec![vec![create(&seen.key)]]),
    }
}

async fn creates_at_once(rig: &Rig) {
    rig.event(&key("a"));
    pass(seconds(1)).await;
    assert_eq!((rig.wire.len(), rig.passes(&key("a"))), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_key_whose_store_lags_its_own_write_is_not_planned() {
    let mut rig = Setup::new(create_once).start(|sent| done(sent, 10));
    let a = key("a");
    creates_at_once(&rig).await;

    rig.events(&a, seconds(5)).await;
    rig.pods.apply(pod(&key("other"), 9));
    pass(seconds(1)).await;
    assert_eq!(rig.passes(&a), 1, "planned on a store that lags");
    // A key that wrote nothing is not held up by it.
    rig.event(&key("b"));
    pass(seconds(1)).await;
    assert_eq!(rig.passes(&key("b")), 1);

    rig.pods.apply(pod(&a, 10));
    pass(seconds(1)).await;
    assert_eq!(rig.passes(&a), 2, "the store woke it");
    assert_eq!(rig.wire.all().iter().filter(|sent| sent.name() == "a").count(), 1, "one pod, one create");
    assert!(rig.gate.is_open(&a));
    assert!(
        rig.metrics.encode().unwrap().contains("springtide_stale_skips_total{controller=\"scripted\"} 1")
    );
}

#[tokio::test(start_paused = true)]
async fn a_bookmark_opens_the_gate_too() {
    let mut rig = Setup::new(create_once).start(|sent| done(sent, 10));
    let a = key("a");
    creates_at_once(&rig).await;
    rig.event(&a);
    rig.pods.advance(ResourceVersion(9));
    pass(seconds(1)).await;
    assert_eq!(rig.passes(&a), 1);
    // The pod was deleted again before the watch could show it: it is missing, and known to be.
    rig.pods.advance(ResourceVersion(11));
    pass(seconds(1)).await;
    assert_eq!((rig.passes(&a), rig.wire.len()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_key_at_rest_learns_that_what_it_wrote_is_gone_without_an_event() {
    // Created and deleted while the watch was down: the relist has nothing to say of it.
    let mut rig = Setup::new(create_once).start(|sent| done(sent, 10));
    let a = key("a");
    creates_at_once(&rig).await;
    rig.pods.replace(BTreeMap::new(), ResourceVersion(12));
    pass(seconds(1)).await;
    assert_eq!((rig.passes(&a), rig.wire.len()), (2, 2), "nobody made it again");
}

#[tokio::test(start_paused = true)]
async fn what_a_key_wrote_brings_one_pass_and_no_second_one_for_the_gate() {
    let mut rig = Setup::new(create_once).start(|sent| done(sent, 10));
    let (queue, a) = (rig.queue.clone(), key("a"));
    rig.pods.store().on_change(Arc::new(move |change| {
        queue.add(change.object().meta().key.clone(), Priority::Normal, Urgency::Routine);
    }));
    rig.event(&a);
    pass(seconds(1)).await;
    rig.pods.apply(pod(&a, 10));
    pass(seconds(20)).await;
    assert_eq!(rig.passes(&a), 2, "one for the event, one for the pod");
}

#[tokio::test(start_paused = true)]
async fn a_delete_holds_until_the_store_shows_it() {
    let mut rig = Setup::new(
        |seen: &Seen| if seen.pod.is_some() { plan(vec![vec![delete(&seen.key)]]) } else { idle() },
    )
    .start(|_| answer(200, json!({"kind": "Status", "status": "Success"})));
    let a = key("a");
    rig.pods.apply(pod(&a, 5));
    rig.event(&a);
    pass(seconds(1)).await;
    rig.events(&a, seconds(3)).await;
    rig.pods.advance(ResourceVersion(50));
    pass(seconds(1)).await;
    assert_eq!(rig.passes(&a), 1, "a version says nothing about a delete");
    rig.pods.apply(deleting_pod(&a, 51));
    pass(seconds(1)).await;
    assert_eq!(rig.passes(&a), 2);
}

/// The ways in which an answer can be lost.
fn lost_answers() -> [Reply; 7] {
    [
        refuse(500, "InternalError"),
        refuse(503, "ServiceUnavailable"),
        refuse(504, "Timeout"),
        Reply::Reset,
        Reply::ResetInBody,
        Reply::Silence,
        answer(201, json!("no object")),
    ]
}

#[tokio::test(start_paused = true)]
async fn after_an_unknown_outcome_one_get_decides_that_nothing_was_stored() {
    for lost in lost_answers() {
        let first = lost.clone();
        let rig = Setup::new(create_once).start(move |sent| match (&sent.method, sent.at) {
            (&Method::GET, _) => refuse(404, "NotFound"),
            _ => first.clone(),
        });
        let a = key("a");
        rig.event(&a);
        // The longest way to learn that an answer is lost takes 10 s.
        rig.events(&a, seconds(9)).await;
        assert_eq!(rig.wire.methods(), ["POST"], "{lost:?}: re-sent before anybody knew");
        rig.events(&a, seconds(12)).await;
        let methods = rig.wire.methods();
        assert_eq!(methods[..2], ["POST", "GET"], "{lost:?}");
        assert_eq!(rig.wire.all()[1].path, "/api/v1/namespaces/ns/pods/a");
        let told = if matches!(lost, Reply::Silence) { seconds(10) } else { seconds(0) };
        assert_eq!(rig.wire.gaps()[0].as_secs(), (told + seconds(10)).as_secs(), "{lost:?}");
        // Known to be missing: planned anew, by a create of its own.
        pass(seconds(2)).await;
        assert_eq!(rig.wire.methods()[2], "POST", "{lost:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn after_an_unknown_outcome_a_stored_object_is_waited_for_and_not_made_again() {
    for lost in lost_answers() {
        let first = lost.clone();
        let mut rig = Setup::new(create_once).start(move |sent| match sent.method {
            Method::GET => answer(200, object("ns", "a", 12)),
            _ => first.clone(),
        });
        let a = key("a");
        rig.event(&a);
        rig.events(&a, seconds(45)).await;
        assert_eq!(rig.wire.count(&Method::POST), 1, "{lost:?}");
        assert!(rig.wire.count(&Method::GET) >= 2, "the store lags behind the answer, so it asks again");
        assert_eq!(rig.passes(&a), 1, "{lost:?}");
        rig.pods.apply(pod(&a, 12));
        pass(seconds(1)).await;
        assert_eq!((rig.passes(&a), rig.wire.count(&Method::POST)), (2, 1), "{lost:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_store_settles_an_unknown_outcome_without_a_get() {
    for lost in lost_answers() {
        let reply = lost.clone();
        let mut rig = Setup::new(create_once).start(move |_| reply.clone());
        let a = key("a");
        rig.event(&a);
        pass(seconds(1)).await;
        // For a silent server the event even comes before the answer is given up for lost.
        rig.pods.apply(pod(&a, 12));
        rig.event(&a);
        pass(seconds(15)).await;
        assert_eq!((rig.wire.methods(), rig.passes(&a)), (vec!["POST".to_owned()], 2), "{lost:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_taken_is_waited_for() {
    let mut rig = Setup::new(create_once).start(|_| refuse(409, "AlreadyExists"));
    let a = key("a");
    rig.event(&a);
    rig.events(&a, seconds(8)).await;
    assert_eq!((rig.wire.methods(), rig.passes(&a)), (vec!["POST".to_owned()], 1));
    rig.pods.apply(pod(&a, 4));
    pass(seconds(1)).await;
    assert_eq!((rig.wire.len(), rig.passes(&a)), (1, 2));
}
