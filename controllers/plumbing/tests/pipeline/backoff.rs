//! What each way of failing means for the next pass.

use crate::rig::{
    HOUR, Rig, Seen, Setup, create, delete, idle, key, pass, patch, plan, pod, seconds, status,
};
use crate::wire::{Reply, Sent, busy, done, object, refuse};
use http::Method;
use serde_json::json;
use springtide_plumbing::controller::Settled;
use springtide_plumbing::error::WriteError;
use springtide_plumbing::plan::Plan;
use springtide_plumbing::queue::{Priority, Urgency};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

/// Wants the pod, always, whatever the store shows.
fn create_always(seen: &Seen) -> Plan {
    plan(vec![vec![create(&seen.key)]])
}

fn refused_with(reply: Reply) -> Rig {
    Setup::new(create_always).start(move |_| reply.clone())
}

/// About so long: backoffs are spread over a quarter to either side.
fn is_about(gap: Duration, nominal: f64) -> bool {
    (nominal * 0.75..=nominal * 1.25 + 0.01).contains(&gap.as_secs_f64())
}

#[tokio::test(start_paused = true)]
async fn a_refusal_backs_off_and_no_event_shortens_it() {
    for reply in [refuse(422, "Invalid"), refuse(400, "BadRequest"), refuse(404, "NotFound")] {
        let rig = refused_with(reply);
        rig.event(&key("a"));
        rig.events(&key("a"), HOUR).await;
        let gaps = rig.wire.gaps();
        for (gap, nominal) in gaps.iter().zip([0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0]) {
            assert!(is_about(*gap, nominal), "{gap:?} is not about {nominal} s");
        }
        assert!((15..=26).contains(&rig.wire.len()), "{} requests in an hour", rig.wire.len());
    }
}

#[tokio::test(start_paused = true)]
async fn classes_have_their_own_least_backoff() {
    for (code, floor, second) in [(403, 30.0, 60.0), (401, 30.0, 60.0), (413, 300.0, 300.0)] {
        let rig = refused_with(refuse(code, "Refused"));
        rig.event(&key("a"));
        rig.events(&key("a"), HOUR).await;
        let gaps = rig.wire.gaps();
        assert!(is_about(gaps[0], floor) && is_about(gaps[1], second), "{code}: {gaps:?}");
        assert!(rig.wire.len() >= 10);
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_of_generation_ends_a_backoff() {
    let rig = refused_with(refuse(413, "RequestEntityTooLarge"));
    rig.event(&key("a"));
    rig.events(&key("a"), seconds(60)).await;
    assert_eq!(rig.wire.len(), 1);
    rig.queue.add(key("a"), Priority::High, Urgency::BreaksBackoff);
    pass(Duration::from_millis(1)).await;
    assert_eq!(rig.wire.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_cannot_be_reached_is_tried_with_backoff_and_asked_nothing() {
    let rig = refused_with(Reply::Unreachable);
    rig.event(&key("a"));
    pass(Duration::from_millis(1)).await;
    assert!(rig.gate.is_open(&key("a")), "nothing was sent, so there is nothing to find out");
    rig.events(&key("a"), HOUR).await;
    assert_eq!(rig.wire.count(&Method::GET), 0);
    assert!(is_about(rig.wire.gaps()[0], 0.5));
    assert!((15..=26).contains(&rig.wire.len()), "{} requests in an hour", rig.wire.len());
}

#[tokio::test(start_paused = true)]
async fn a_conflict_is_planned_again_only_when_the_store_has_moved() {
    let version = Arc::new(AtomicU64::new(5));
    let held = Arc::clone(&version);
    let mut rig =
        Setup::new(|seen: &Seen| plan(vec![vec![patch(&seen.key)]])).start(move |sent| match sent.method {
            Method::GET => crate::wire::answer(200, object("ns", "a", held.load(SeqCst))),
            _ => refuse(409, "Conflict"),
        });
    let a = key("a");
    rig.pods.apply(pod(&a, 5));
    rig.event(&a);
    for next in 6..10 {
        rig.events(&a, seconds(8)).await;
        assert_eq!(rig.wire.len(), next - 5, "planned again on the view that was too old");
        rig.pods.apply(pod(&a, next as u64));
        version.store(next as u64, SeqCst);
        pass(Duration::from_millis(1)).await;
        assert_eq!(rig.wire.len(), next - 4, "not planned again when the store had moved");
    }
    // The fifth in a row: from here on with backoff, however the store moves.
    rig.pods.apply(pod(&a, 20));
    pass(Duration::from_millis(1)).await;
    assert_eq!(rig.wire.len(), 5);
    pass(seconds(1)).await;
    assert_eq!(rig.wire.len(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_conflict_with_what_the_store_shows_already_does_not_wait() {
    // The first stage takes its time, and meanwhile the object of the second one changes.
    let make = |seen: &Seen| match seen.passes {
        0 => plan(vec![vec![create(&key("other"))], vec![patch(&key("a"))]]),
        _ => idle(),
    };
    let mut rig = Setup::new(make).start(|sent| match sent.name() {
        "other" => done(sent, 7).after(seconds(2)),
        _ => refuse(422, "Invalid"),
    });
    let a = key("a");
    rig.pods.apply(pod(&a, 5));
    rig.event(&a);
    pass(seconds(1)).await;
    rig.pods.apply(pod(&a, 6));
    rig.pods.apply(pod(&key("other"), 7));
    pass(seconds(2)).await;
    assert_eq!((rig.wire.methods(), rig.passes(&a)), (vec!["POST".to_owned(), "PATCH".to_owned()], 2));
}

#[tokio::test(start_paused = true)]
async fn a_conflict_that_no_store_shows_backs_off_after_the_fifth() {
    // A quota that another create updates at the same moment.
    let rig = refused_with(refuse(409, "Conflict"));
    rig.event(&key("a"));
    rig.events(&key("a"), HOUR).await;
    let gaps = rig.wire.gaps();
    assert_eq!(gaps[..4], [Duration::ZERO; 4]);
    assert!(is_about(gaps[4], 0.5) && is_about(gaps[5], 1.0), "{gaps:?}");
    assert!(rig.wire.len() <= 30, "{} requests in an hour", rig.wire.len());
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_honoured_within_reason() {
    for (reply, nominal) in [
        (busy(7), 7),
        (refuse(429, "TooManyRequests"), 1),
        // Neither at once nor never.
        (busy(0), 1),
        (busy(100_000), 300),
    ] {
        let rig = refused_with(reply);
        rig.event(&key("a"));
        rig.events(&key("a"), seconds(1000)).await;
        let gaps = rig.wire.gaps();
        assert!(gaps.len() >= 2);
        for gap in gaps {
            assert!(
                gap >= seconds(nominal) && gap <= seconds(nominal).mul_f64(1.26),
                "{gap:?} of {nominal} s"
            );
        }
    }
}

/// Refuses one pod and asks to wait for another.
fn two_failures(sent: &Sent) -> Reply {
    match sent.name() {
        "busy" => refuse(429, "TooManyRequests"),
        "conflict" => refuse(409, "Conflict"),
        _ => refuse(403, "Forbidden"),
    }
}

#[tokio::test(start_paused = true)]
async fn of_several_failures_the_gravest_decides() {
    for other in ["busy", "conflict"] {
        let make = move |_: &Seen| plan(vec![vec![create(&key(other)), create(&key("forbidden"))]]);
        let rig = Setup::new(make).start(two_failures);
        rig.event(&key("a"));
        rig.events(&key("a"), seconds(22)).await;
        assert_eq!(rig.wire.len(), 2, "{other}: forbidden writes back off from 30 s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_handles_a_refusal_is_asked_again_at_once() {
    let make = |seen: &Seen| match seen.passes {
        0 => plan(vec![vec![create(&seen.key)]]),
        1 => Plan { status: Some(status(&seen.key, json!({}), json!({"waits": true}))), ..plan(vec![]) },
        _ => idle(),
    };
    let rig = Setup::new(make)
        .settled(|_, results| match &results[0].outcome {
            Err(WriteError::Refused(refusal)) if refusal.code == 403 => Settled::Handled,
            _ => Settled::Default,
        })
        .start(|sent| if sent.is(&Method::POST) { refuse(403, "Forbidden") } else { done(sent, 9) });
    rig.event(&key("a"));
    pass(Duration::from_millis(1)).await;
    assert_eq!(rig.wire.methods(), ["POST", "PATCH"]);
    assert_eq!(rig.queue.stats().in_backoff, 0);
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_handles_everything_cannot_spin() {
    for reply in [refuse(403, "Forbidden"), refuse(422, "Invalid"), Reply::Unreachable] {
        let rig = Setup::new(create_always).settled(|_, _| Settled::Handled).start(move |_| reply.clone());
        rig.event(&key("a"));
        rig.events(&key("a"), HOUR).await;
        assert!((15..=30).contains(&rig.wire.len()), "{} requests in an hour", rig.wire.len());
    }
}

#[tokio::test(start_paused = true)]
async fn a_handled_refusal_does_not_hide_what_else_happened() {
    let make = |_: &Seen| plan(vec![vec![create(&key("forbidden")), create(&key("busy"))]]);
    let rig = Setup::new(make).settled(|_, _| Settled::Handled).start(|sent| match sent.name() {
        "busy" => busy(20),
        _ => refuse(403, "Forbidden"),
    });
    rig.event(&key("a"));
    rig.events(&key("a"), seconds(19)).await;
    assert_eq!(rig.wire.len(), 2, "the server has asked to wait");
}

#[tokio::test(start_paused = true)]
async fn a_wake_time_that_has_passed_does_not_spin() {
    // Without a bound a spin would keep paused time from ever going on.
    let past = |seen: &Seen| Some(jiff::Timestamp::UNIX_EPOCH).filter(|_| seen.passes < 1000);
    let rig = Setup::new(move |seen| Plan { wake: past(seen), ..idle() }).start(|sent| done(sent, 9));
    rig.event(&key("a"));
    pass(seconds(10)).await;
    assert!((50..=110).contains(&rig.passes(&key("a"))), "{} passes in 10 s", rig.passes(&key("a")));
}

#[tokio::test(start_paused = true)]
async fn a_pass_that_may_not_write_forgets_no_failure() {
    // The store hears nothing, so it is stale by then.
    let make = |seen: &Seen| match seen.passes {
        8 => plan(vec![vec![delete(&seen.key)]]),
        _ => create_always(seen),
    };
    let rig = Setup::new(make).start(|_| refuse(422, "Invalid"));
    rig.event(&key("a"));
    pass(seconds(600)).await;
    assert_eq!(rig.wire.count(&Method::DELETE), 0);
    let gaps = rig.wire.gaps();
    assert!(is_about(gaps[6], 32.0), "{gaps:?}");
    assert!(is_about(gaps[7] - seconds(5), 64.0), "{gaps:?}");
    assert!(is_about(gaps[8], 128.0), "{gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn success_forgets_the_failures_before() {
    let make = |seen: &Seen| match seen.passes {
        6 => idle(),
        _ => create_always(seen),
    };
    let rig = Setup::new(make).start(|_| refuse(422, "Invalid"));
    rig.event(&key("a"));
    pass(seconds(60)).await;
    assert_eq!(rig.passes(&key("a")), 7);
    rig.event(&key("a"));
    pass(Duration::from_millis(1)).await;
    pass(seconds(1)).await;
    assert_eq!(rig.passes(&key("a")), 9, "the first backoff again");
}
