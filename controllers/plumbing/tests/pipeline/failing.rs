//! What fails reaches users at once, once, and is taken back when it is over.

use crate::rig::{HOUR, Rig, Seen, Setup, delete, idle, key, pass, plan, pod, seconds, status};
use crate::wire::{Reply, answer, done, refuse};
use http::Method;
use serde_json::{Value, json};
use springtide_plumbing::key::ObjectKey;
use springtide_plumbing::plan::Plan;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

/// Deletes the pod, and has in the status what fails, as every planner has.
fn planner(seen: &Seen) -> Plan {
    if seen.pod.is_none() {
        return idle();
    }
    let told = seen.failing.as_ref().and_then(|failing| Some((failing.told()?, &failing.message)));
    let wanted =
        told.map_or(json!({}), |(told, message)| json!({"reason": told.reason(), "message": message}));
    let mut plan = plan(vec![vec![delete(&seen.key)]]);
    plan.status = Some(status(&seen.key, json!({}), wanted));
    plan
}

fn statuses(rig: &Rig) -> Vec<Value> {
    let all = rig.wire.all();
    let own = all.iter().filter(|sent| sent.is(&Method::PATCH) && sent.path.ends_with("/status"));
    own.map(|sent| sent.body[2]["value"].clone()).collect()
}

fn deletes(rig: &Rig) -> usize {
    rig.wire.all().iter().filter(|sent| sent.is(&Method::DELETE)).count()
}

fn events(rig: &Rig) -> Vec<String> {
    let all = rig.wire.all();
    let events = all.iter().filter(|sent| sent.path.ends_with("/events"));
    events.map(|sent| sent.body["reason"].as_str().unwrap_or_default().to_owned()).collect()
}

/// A pod whose delete is answered so until `mended`.
fn start(refusal: Reply) -> (Rig, ObjectKey, Arc<AtomicBool>) {
    let mended = Arc::new(AtomicBool::new(false));
    let (is_mended, version) = (mended.clone(), AtomicU64::new(10));
    let mut rig = Setup::new(planner).telling().start(move |sent| match sent.method {
        Method::DELETE if !is_mended.load(SeqCst) => refusal.clone(),
        Method::DELETE => answer(200, json!({"kind": "Status"})),
        _ => done(sent, version.fetch_add(1, SeqCst)),
    });
    let a = key("a");
    rig.pods.apply(pod(&a, 5));
    rig.event(&a);
    (rig, a, mended)
}

/// The store shows what was written since.
fn catch_up(rig: &mut Rig, version: u64) {
    rig.pods.advance(springtide_plumbing::key::ResourceVersion(version.into()));
}

#[tokio::test(start_paused = true)]
async fn what_is_forbidden_costs_one_status_write_however_often_it_is_tried() {
    let (mut rig, a, mended) = start(refuse(403, "Forbidden"));
    pass(seconds(1)).await;
    assert_eq!(deletes(&rig), 1);
    let told = statuses(&rig);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["reason"], "Forbidden");
    for version in 20..80 {
        // A store that stands still would keep the delete back.
        catch_up(&mut rig, version);
        rig.events(&a, seconds(60)).await;
    }
    assert!((5..=20).contains(&deletes(&rig)), "{} tries in an hour", deletes(&rig));
    assert_eq!((statuses(&rig).len(), events(&rig)), (1, vec!["Forbidden".to_owned()]));
    mended.store(true, SeqCst);
    let tries = deletes(&rig);
    for version in 80.. {
        catch_up(&mut rig, version);
        pass(seconds(5)).await;
        if deletes(&rig) > tries {
            break;
        }
    }
    rig.pods.delete(pod(&a, 1000));
    rig.events(&a, seconds(60)).await;
    assert_eq!(deletes(&rig), tries + 1);
}

#[tokio::test(start_paused = true)]
async fn answers_that_do_not_come_are_told_from_the_third_on() {
    let (mut rig, a, _mended) = start(refuse(500, "InternalError"));
    let mut before = 0;
    for version in 30..60 {
        rig.events(&a, seconds(20)).await;
        catch_up(&mut rig, version);
        // The delete may or may not have happened: the store shows that it has not.
        rig.pods.apply(pod(&a, version));
        assert!(deletes(&rig) < 3 || statuses(&rig).len() == 1, "{:?}", statuses(&rig));
        assert!(deletes(&rig) >= 3 || statuses(&rig).is_empty(), "{:?}", statuses(&rig));
        before = before.max(deletes(&rig));
    }
    assert!(before > 3);
    assert_eq!(events(&rig), ["WriteFails"]);
}

#[tokio::test(start_paused = true)]
async fn a_planner_that_panics_is_told_on_the_object() {
    let rig = Setup::new(|_: &Seen| panic!("as planned")).telling().start(|sent| done(sent, 10));
    let a = key("a");
    rig.event(&a);
    pass(HOUR).await;
    let told = statuses(&rig);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["reason"], "InternalError");
    assert!(told[0]["message"].as_str().unwrap().ends_with("as planned"));
}

#[tokio::test(start_paused = true)]
async fn a_status_that_may_not_be_written_is_told_by_an_event_alone() {
    let rig = Setup::new(|seen: &Seen| {
        let mut plan = idle();
        plan.status = Some(status(&seen.key, json!({}), json!({"a": 1})));
        plan
    })
    .telling()
    .start(|sent| match sent.path.ends_with("/status") {
        true => refuse(403, "Forbidden"),
        false => done(sent, 10),
    });
    let a = key("a");
    rig.event(&a);
    pass(seconds(20)).await;
    assert_eq!((statuses(&rig).len(), events(&rig)), (1, vec!["Forbidden".to_owned()]));
    pass(HOUR).await;
    let tries = statuses(&rig).len();
    assert!((5..=20).contains(&tries), "{tries} tries");
    assert!(statuses(&rig).iter().all(|status| status["a"] == 1));
}
