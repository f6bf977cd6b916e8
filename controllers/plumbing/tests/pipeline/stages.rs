//! What the executor makes of a plan: order, what ends a pass, what is never sent.

use crate::rig::{Seen, Setup, create, delete, idle, key, pass, patch, plan, pod, seconds, status};
use crate::wire::{Reply, busy, done, refuse};
use http::Method;
use serde_json::json;
use springtide_plumbing::budget::BudgetConfig;
use springtide_plumbing::key::{Resource, ResourceVersion, Uid};
use springtide_plumbing::plan::{MAX_WRITES, Plan, Write, remove_finalizer};
use std::sync::Arc;
use std::time::Duration;

/// The plan on the first pass, nothing afterwards.
fn once(make: impl Fn() -> Plan + Send + Sync + 'static) -> impl Fn(&Seen) -> Plan + Send + Sync {
    move |seen| if seen.passes == 0 { make() } else { idle() }
}

fn two_stages_and_status() -> Plan {
    let stages = vec![vec![create(&key("1a")), create(&key("1b"))], vec![create(&key("2"))]];
    Plan { status: Some(status(&key("owner"), json!({}), json!({"active": 3}))), ..plan(stages) }
}

#[tokio::test(start_paused = true)]
async fn stages_go_out_in_order_and_status_last() {
    let rig = Setup::new(once(two_stages_and_status)).start(|sent| {
        // The sooner one of a stage is answered, the later it was sent.
        done(sent, 10).after(if sent.name() == "1a" { seconds(3) } else { seconds(1) })
    });
    rig.event(&key("owner"));
    pass(seconds(9)).await;
    assert_eq!(rig.wire.names(), ["1a", "1b", "2", "status"]);
    assert_eq!(
        rig.wire.gaps(),
        [seconds(0), seconds(3), seconds(1)],
        "a stage waits for all of the one before"
    );
    let last = rig.wire.all().pop().unwrap();
    assert_eq!(last.body[2], json!({"op": "add", "path": "/status", "value": {"active": 3}}));
}

#[tokio::test(start_paused = true)]
async fn what_the_rights_lack_is_never_sent() {
    let lease = Write { resource: Resource::LEASE, ..create(&key("lease")) };
    let rig = Setup::new(once(move || plan(vec![vec![lease.clone(), create(&key("pod"))]])))
        .start(|sent| done(sent, 10));
    rig.event(&key("owner"));
    pass(seconds(5)).await;
    assert_eq!(rig.wire.names(), ["pod"]);
    let refused = r#"springtide_writes_total{controller="scripted",class="spec",resource="leases",outcome="refused"} 1"#;
    assert!(rig.metrics.encode().unwrap().contains(refused));
}

#[tokio::test(start_paused = true)]
async fn a_failed_write_ends_the_pass_after_its_stage() {
    let failures = [
        refuse(403, "Forbidden"),
        refuse(409, "AlreadyExists"),
        refuse(409, "Conflict"),
        refuse(422, "Invalid"),
        refuse(429, "TooManyRequests"),
        refuse(500, "InternalError"),
        Reply::Reset,
        Reply::Unreachable,
    ];
    for failure in failures {
        let reply = failure.clone();
        let rig = Setup::new(once(two_stages_and_status))
            .start(move |sent| if sent.name() == "1a" { reply.clone() } else { done(sent, 10) });
        rig.event(&key("owner"));
        pass(seconds(5)).await;
        assert_eq!(rig.wire.names(), ["1a", "1b"], "{failure:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_gone_lets_the_pass_go_on() {
    let make = || {
        let stages = vec![vec![delete(&key("1"))], vec![patch(&key("2"))], vec![create(&key("3"))]];
        Plan { status: Some(status(&key("owner"), json!({}), json!({"active": 0}))), ..plan(stages) }
    };
    let mut rig = Setup::new(once(make)).start(|sent| match sent.name() {
        "1" | "2" => refuse(404, "NotFound"),
        _ => done(sent, 10),
    });
    rig.pods.apply(pod(&key("2"), 5));
    rig.event(&key("owner"));
    pass(seconds(1)).await;
    assert_eq!(rig.wire.names(), ["1", "2", "3", "status"]);
}

#[tokio::test(start_paused = true)]
async fn a_status_that_says_the_same_is_not_sent() {
    let stored = json!({"active": 1, "conditions": [{"type": "A", "lastTransitionTime": "then"}]});
    let make = move || {
        let now = json!({"active": 1, "conditions": [{"type": "A", "lastTransitionTime": "now"}]});
        Plan { status: Some(status(&key("owner"), stored.clone(), now)), ..plan(vec![]) }
    };
    let rig = Setup::new(make_always(make)).start(|sent| done(sent, 10));
    for _ in 0..3 {
        rig.event(&key("owner"));
        pass(seconds(1)).await;
    }
    assert_eq!((rig.passes(&key("owner")), rig.wire.len()), (3, 0));
    assert!(
        rig.metrics.encode().unwrap().contains("springtide_noop_writes_total{controller=\"scripted\"} 3")
    );
}

fn make_always(make: impl Fn() -> Plan + Send + Sync + 'static) -> impl Fn(&Seen) -> Plan + Send + Sync {
    move |_| make()
}

#[tokio::test(start_paused = true)]
async fn the_writes_of_a_stage_are_in_flight_together_within_a_bound() {
    let make = || plan(vec![(0..40).map(|n| create(&key(&format!("{n:02}")))).collect()]);
    let rig = Setup::new(once(make)).start(|sent| done(sent, 10).after(seconds(1)));
    rig.event(&key("owner"));
    pass(seconds(5)).await;
    assert_eq!((rig.wire.len(), rig.wire.most_in_flight()), (40, 16));
}

#[tokio::test(start_paused = true)]
async fn what_refuses_one_write_for_now_is_not_sent_the_rest_of_the_stage() {
    for refusal in [busy(30), Reply::Unreachable] {
        let make = || plan(vec![(0..100).map(|n| create(&key(&format!("{n:03}")))).collect()]);
        let reply = refusal.clone();
        let rig = Setup::new(once(make)).start(move |_| reply.clone().after(Duration::from_millis(10)));
        rig.event(&key("owner"));
        pass(seconds(20)).await;
        assert_eq!(rig.wire.len(), 16, "{refusal:?}: more than what was in flight already");
    }
}

#[tokio::test(start_paused = true)]
async fn a_status_above_10_kb_is_not_sent() {
    let make = |bytes: usize| {
        let long = json!({"message": "m".repeat(bytes - r#"{"message":""}"#.len())});
        Plan { status: Some(status(&key("owner"), json!({}), long)), ..plan(vec![]) }
    };
    for (bytes, sent) in [(10_000, 1), (10_001, 0)] {
        let rig = Setup::new(once(move || make(bytes))).start(|sent| done(sent, 10));
        rig.event(&key("owner"));
        rig.events(&key("owner"), seconds(5)).await;
        assert_eq!(rig.wire.len(), sent);
        // Looked at again after some minutes.
        assert_eq!(rig.queue.stats().in_backoff, 1 - sent);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_above_the_bound_of_a_plan_waits_for_the_next() {
    let pods: Arc<Vec<_>> = Arc::new((0..450).map(|n| key(&format!("{n:03}"))).collect());
    let left = Arc::clone(&pods);
    let make = move |seen: &Seen| {
        let from = seen.passes * MAX_WRITES;
        let writes = |pods: &[_]| pods.iter().map(create).collect();
        let stages = left.get(from..).unwrap_or_default().chunks(150).map(writes).collect();
        let done = json!({"passes": seen.passes});
        Plan { status: Some(status(&seen.key, done, json!({"passes": seen.passes + 1}))), ..plan(stages) }
    };
    let budget = BudgetConfig::default().scaled(10.0);
    let mut rig = Setup { budget, ..Setup::new(make) }.start(|sent| done(sent, 10));
    rig.pods.advance(ResourceVersion(10));
    rig.event(&key("owner"));
    pass(seconds(1)).await;
    let mut expected: Vec<_> = pods.iter().map(|pod| pod.name.to_string()).collect();
    expected.push("status".to_owned());
    assert_eq!(rig.wire.names()[..451], expected);
    assert_eq!(rig.wire.count(&Method::POST), 450);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_destroyed_on_the_word_of_a_stale_store() {
    let a = key("a");
    let unfinalize =
        Write { action: remove_finalizer(&Uid::default(), &["f".into()], "f").unwrap(), ..patch(&a) };
    let writes = [
        (create(&a), false),
        (patch(&a), false),
        (status(&a, json!({}), json!({"active": 1})), false),
        (unfinalize, true),
        (delete(&a), true),
    ];
    for (write, destroys) in writes {
        let verb = write.action.verb();
        // Each pass ends with the write of another object, which is held back as well.
        let make = move |_: &Seen| plan(vec![vec![write.clone()], vec![create(&key("next"))]]);
        let mut rig = Setup::new(make).start(|sent| done(sent, 10));
        pass(seconds(100)).await;
        rig.event(&a);
        rig.events(&a, seconds(9)).await;
        assert_eq!(rig.wire.len(), if destroys { 0 } else { 2 }, "{verb}");
        // The watch is back: no event of the key is needed.
        rig.pods.advance(ResourceVersion(9));
        pass(seconds(9)).await;
        assert!(rig.wire.len() >= 2, "{verb}");
    }
}
