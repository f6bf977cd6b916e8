//! The end of a controller, wanted or not, and who may begin.

use crate::rig::{Seen, Setup, create, idle, key, pass, plan, seconds, status};
use crate::wire::done;
use serde_json::json;
use springtide_plumbing::plan::Plan;
use std::time::Duration;
use tokio::time::timeout;

fn two_stages_and_status(seen: &Seen) -> Plan {
    let name = |part: &str| key(&format!("{}-{part}", seen.key.name));
    let stages = vec![vec![create(&name("1"))], vec![create(&name("2"))]];
    Plan { status: Some(status(&seen.key, json!({}), json!({"active": 2}))), ..plan(stages) }
}

#[tokio::test(start_paused = true)]
async fn a_pass_under_way_ends_and_no_other_begins() {
    let mut rig = Setup { workers: 1, ..Setup::new(two_stages_and_status) }
        .start(|sent| done(sent, 10).after(seconds(2)));
    rig.event(&key("a"));
    rig.event(&key("b"));
    pass(seconds(1)).await;
    rig.shutdown.cancel();
    rig.event(&key("c"));
    timeout(seconds(60), &mut rig.running).await.unwrap().unwrap();
    assert_eq!(rig.wire.names(), ["a-1", "a-2", "status"]);
    assert_eq!(rig.now(), seconds(6));
    assert_eq!(rig.all_passes().into_keys().collect::<Vec<_>>(), [key("a")]);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_becomes_free_at_the_end_takes_no_key() {
    for attempt in 0..50 {
        // The pass ends in the very moment of the shutdown.
        let mut rig = Setup { workers: 1, ..Setup::new(two_stages_and_status) }
            .start(|sent| done(sent, 10).after(seconds(2)));
        rig.event(&key("a"));
        rig.event(&key("b"));
        pass(seconds(6)).await;
        rig.shutdown.cancel();
        timeout(seconds(60), &mut rig.running).await.unwrap().unwrap();
        assert!(rig.wire.len() <= 3, "attempt {attempt}: {:?}", rig.wire.names());
    }
}

#[tokio::test(start_paused = true)]
async fn idle_workers_end_at_once() {
    for leads in [true, false] {
        let mut rig = Setup::new(|_: &Seen| idle()).start(|sent| done(sent, 10));
        rig.leading.send_replace(leads);
        pass(seconds(1)).await;
        rig.shutdown.cancel();
        timeout(Duration::from_millis(1), &mut rig.running).await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_standby_takes_no_key_until_it_leads() {
    let rig = Setup::new(|_: &Seen| idle()).start(|sent| done(sent, 10));
    pass(seconds(1)).await;
    rig.leading.send_replace(false);
    // What its workers were offered when they still led.
    for n in 0..20 {
        rig.event(&key(&n.to_string()));
    }
    pass(seconds(60)).await;
    assert_eq!(rig.all_passes().len(), 0);
    rig.leading.send_replace(true);
    pass(seconds(1)).await;
    assert_eq!(rig.all_passes().len(), 20);
}

#[tokio::test(start_paused = true)]
async fn a_controller_whose_elector_is_gone_ends_by_itself() {
    let mut rig = Setup::new(|_: &Seen| idle()).start(|sent| done(sent, 10));
    rig.leading.send_replace(false);
    drop(std::mem::replace(&mut rig.leading, tokio::sync::watch::channel(false).0));
    rig.event(&key("a"));
    // Who started it sees that it ended, and with it that nobody leads.
    timeout(seconds(60), &mut rig.running).await.unwrap().unwrap();
}
