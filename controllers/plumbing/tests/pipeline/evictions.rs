//! Evictions: deletes that a disruption budget may refuse.

use crate::rig::{
    Rig, Seen, Setup, create, deleting_pod, evict, idle, key, pass, plan, pod, seconds, status,
};
use crate::wire::{Reply, Sent, answer, busy, done};
use http::Method;
use serde_json::json;
use springtide_plumbing::breaker::{Breaker, Limits};
use springtide_plumbing::clock::Clock;
use springtide_plumbing::guard::Guard;
use springtide_plumbing::plan::Plan;
use std::sync::Arc;
use std::time::Duration;

fn evicted() -> Reply {
    answer(201, json!({"kind": "Status", "status": "Success", "code": 201}))
}

/// As kube-apiserver says it, with the Retry-After that it sends for a budget that lags.
fn budget_says_no() -> Reply {
    let cause = json!({"reason": "DisruptionBudget", "message": "The disruption budget web needs 3"});
    let status = json!({
        "kind": "Status", "status": "Failure", "code": 429, "reason": "TooManyRequests",
        "message": "Cannot evict pod as it would violate the pod's disruption budget.",
        "details": {"causes": [cause], "retryAfterSeconds": 10},
    });
    Reply::Answer(429, Some(10), status)
}

fn is_eviction(sent: &Sent) -> bool {
    sent.path.ends_with("/eviction")
}

fn evictions(rig: &Rig) -> usize {
    rig.wire.all().iter().filter(|sent| is_eviction(sent)).count()
}

/// Evicts the pod for as long as it is there and stays.
fn evict_it(seen: &Seen) -> Plan {
    match &seen.pod {
        Some(pod) if pod.version().0 < 20 => plan(vec![vec![evict(&seen.key)]]),
        Some(_) | None => idle(),
    }
}

#[tokio::test(start_paused = true)]
async fn an_eviction_holds_until_the_store_shows_it() {
    let mut rig = Setup::new(evict_it).start(|_| evicted());
    let a = key("a");
    rig.pods.apply(pod(&a, 5));
    rig.event(&a);
    rig.events(&a, seconds(5)).await;
    assert_eq!((rig.wire.len(), rig.passes(&a)), (1, 1));
    let sent = &rig.wire.all()[0];
    assert_eq!((&sent.method, sent.path.as_str()), (&Method::POST, "/api/v1/namespaces/ns/pods/a/eviction"));
    assert_eq!(sent.body["deleteOptions"]["preconditions"], json!({"uid": "uid-a"}));
    rig.pods.apply(deleting_pod(&a, 21));
    pass(seconds(1)).await;
    assert_eq!((rig.wire.len(), rig.passes(&a)), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn an_eviction_whose_answer_is_lost_is_looked_at_before_it_is_asked_for_again() {
    let mut rig = Setup::new(evict_it).start(|sent| match sent.method {
        Method::GET => answer(200, crate::wire::object("ns", "a", 5)),
        _ => Reply::Reset,
    });
    let a = key("a");
    rig.pods.apply(pod(&a, 5));
    rig.event(&a);
    rig.events(&a, seconds(9)).await;
    assert_eq!(rig.wire.methods(), ["POST"]);
    pass(seconds(3)).await;
    assert_eq!(rig.wire.methods()[..3], ["POST", "GET", "POST"], "the pod is still there");
}

#[tokio::test(start_paused = true)]
async fn a_disruption_budget_holds_back_one_key_for_a_while_and_no_other_write() {
    let decide = |seen: &Seen| match &*seen.key.name {
        name if name.starts_with("new") && seen.passes == 0 => plan(vec![vec![create(&seen.key)]]),
        "a" => {
            let status = status(&seen.key, json!({}), json!({"active": 1}));
            Plan { status: Some(status), ..evict_it(seen) }
        }
        _ => idle(),
    };
    let mut rig = Setup::new(decide).start(|sent| match is_eviction(sent) {
        // One level for all: a 429 of the server's own would stop every one of them.
        true => budget_says_no().on_level("all"),
        false => done(sent, 10).on_level("all"),
    });
    let a = key("a");
    rig.pods.apply(pod(&a, 5));
    rig.event(&a);
    pass(Duration::from_millis(1)).await;
    assert_eq!(rig.wire.len(), 1, "the status is left for a plan that succeeds");
    for n in 0..20 {
        rig.event(&key(&format!("new-{n}")));
    }
    pass(seconds(1)).await;
    assert_eq!(rig.wire.len(), 21, "no hold of the level");
    let windows = rig.budget.stats(&[]).windows;
    let all = windows.iter().find(|window| *window.priority_level == *"all").unwrap();
    assert!(all.limit >= 16, "nor is it any narrower: {}", all.limit);
    // No failure: every ten seconds, however often.
    pass(seconds(60)).await;
    assert_eq!((evictions(&rig), rig.passes(&a)), (7, 7));
    // An event, of the budget say, is not held back.
    rig.event(&a);
    pass(Duration::from_millis(10)).await;
    assert_eq!(evictions(&rig), 8);
    let text = rig.metrics.encode().unwrap();
    assert!(text.contains(r#"resource="pods",outcome="disruption_budget""#), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_busy_holds_evictions_as_all_else() {
    let mut rig = Setup::new(evict_it).start(|_| busy(30));
    for name in ["a", "b"] {
        rig.pods.apply(pod(&key(name), 5));
        rig.event(&key(name));
    }
    pass(Duration::from_millis(1)).await;
    let first = rig.wire.len();
    rig.events(&key("a"), seconds(25)).await;
    assert_eq!(rig.wire.len(), first);
    assert!(first <= 2, "{first}");
}

#[tokio::test(start_paused = true)]
async fn evictions_without_a_warrant_are_capped_as_deletes_are() {
    let setup = Setup::new(|seen: &Seen| match seen.passes {
        0 => plan(vec![(0..30).map(|n| evict(&key(&format!("p{n}")))).collect()]),
        _ => idle(),
    });
    let breaker = Arc::new(Breaker::new(Limits::default(), Clock::system()));
    breaker.read(None);
    let guard = Guard { breaker: breaker.clone(), ..Guard::open() };
    let rig = Setup { guard, ..setup }.start(|_| evicted());
    rig.event(&key("owner"));
    pass(seconds(5)).await;
    assert_eq!((evictions(&rig), breaker.open().len()), (10, 1));
}
