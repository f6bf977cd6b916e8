//! What users are told goes out behind the writes, and never in their way.

use crate::rig::{HOUR, Rig, Seen, Setup, create, idle, key, pass, plan, pod, seconds};
use crate::wire::{Reply, Sent, done, refuse};
use http::Method;
use springtide_plumbing::budget::{BucketConfig, BudgetConfig};
use springtide_plumbing::events::{EventNote, Severity};
use springtide_plumbing::key::{Resource, Uid};
use springtide_plumbing::lease::{Fence, boot_clock};
use springtide_plumbing::plan::Plan;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;
use tokio::time::timeout;

/// Creates the pod of the key's name, and says so.
fn create_and_tell(seen: &Seen) -> Plan {
    let note = EventNote {
        resource: Resource::POD,
        key: seen.key.clone(),
        uid: Uid(format!("uid-{}", seen.key.name).into()),
        severity: Severity::Normal,
        reason: "Created",
        action: "Creating",
        note: format!("pass {}", seen.passes),
    };
    Plan { events: vec![note], ..plan(vec![vec![create(&seen.key)]]) }
}

/// Says the same each time, and writes nothing.
fn only_tell(seen: &Seen) -> Plan {
    let mut told = create_and_tell(seen);
    "again".clone_into(&mut told.events[0].note);
    Plan { stages: Vec::new(), ..told }
}

fn is_event(sent: &Sent) -> bool {
    sent.path.starts_with("/apis/events.k8s.io/v1/namespaces/ns/events")
}

fn events(rig: &Rig) -> Vec<Sent> {
    rig.wire.all().into_iter().filter(is_event).collect()
}

#[tokio::test(start_paused = true)]
async fn users_are_told_once_the_writes_have_succeeded_and_not_before() {
    let rig = Setup::new(create_and_tell).start(|sent| match sent.name() {
        "refused" => refuse(422, "Invalid"),
        _ => done(sent, 10),
    });
    rig.event(&key("made"));
    rig.event(&key("refused"));
    pass(seconds(60)).await;
    let events = events(&rig);
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0].body["regarding"]["name"], "made");
    assert_eq!(events[0].body["reportingController"], "springtide.dev/scripted");
    assert_eq!(events[0].body["note"], "pass 0");
}

/// Creates the pod where there is none, and says so.
fn create_once_and_tell(seen: &Seen) -> Plan {
    if seen.pod.is_some() { idle() } else { create_and_tell(seen) }
}

#[tokio::test(start_paused = true)]
async fn what_was_stored_though_nobody_said_so_is_told_all_the_same_and_once() {
    for is_stored in [true, false] {
        let mut rig = Setup::new(create_once_and_tell).start({
            let lost = AtomicUsize::new(0);
            move |sent| match is_event(sent) || lost.fetch_add(1, SeqCst) > 0 {
                true if sent.is(&Method::GET) => refuse(404, "NotFound"),
                true => done(sent, 10),
                false => Reply::Reset,
            }
        });
        let a = key("a");
        rig.event(&a);
        pass(seconds(1)).await;
        assert_eq!(events(&rig).len(), 0, "nobody knows");
        if is_stored {
            rig.pods.apply(pod(&a, 9));
        }
        // One GET tells that the store is right.
        pass(seconds(12)).await;
        rig.pods.apply(pod(&a, 10));
        pass(seconds(60)).await;
        let creates = rig.wire.all().iter().filter(|sent| sent.is(&Method::POST) && !is_event(sent)).count();
        assert_eq!(creates, if is_stored { 1 } else { 2 });
        assert_eq!(events(&rig).len(), 1, "{is_stored}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_happens_a_thousand_times_costs_two_writes_in_ten_minutes() {
    let rig = Setup::new(only_tell).start(|sent| done(sent, 10));
    rig.events(&key("a"), seconds(100)).await;
    pass(HOUR).await;
    let events = events(&rig);
    let [create, patch] = &events[..] else { panic!("{events:?}") };
    assert!(create.is(&Method::POST) && patch.is(&Method::PATCH), "{events:?}");
    assert_eq!(patch.at - create.at, seconds(600));
    assert_eq!(patch.body[1]["value"]["count"], rig.passes(&key("a")));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_silent_to_events_keeps_no_write_waiting() {
    let rig = Setup::new(create_and_tell).start(|sent| match is_event(sent) {
        true => Reply::Silence,
        false => done(sent, 10),
    });
    for n in 0..50 {
        rig.event(&key(&n.to_string()));
    }
    pass(Duration::from_millis(100)).await;
    assert_eq!(rig.wire.all().iter().filter(|sent| !is_event(sent)).count(), 50);
    pass(24 * HOUR).await;
    // Five attempts at each, one after the other.
    assert_eq!(events(&rig).len(), 250);
    let text = rig.metrics.encode().unwrap();
    assert!(text.contains(r#"springtide_events_dropped_total{controller="scripted"} 50"#), "{text}");
}

#[tokio::test(start_paused = true)]
async fn events_pass_the_budget_and_the_fence() {
    let budget = BudgetConfig { events: BucketConfig { rate: 1.0, burst: 2 }, ..BudgetConfig::default() };
    let rig = Setup { budget, ..Setup::new(only_tell) }.start(|sent| done(sent, 10));
    for n in 0..10 {
        rig.event(&key(&n.to_string()));
    }
    pass(Duration::from_millis(500)).await;
    assert_eq!(events(&rig).len(), 2);
    pass(seconds(8)).await;
    assert_eq!(events(&rig).len(), 10);

    let rig =
        Setup { fence: Fence::closed(boot_clock()), ..Setup::new(only_tell) }.start(|sent| done(sent, 10));
    rig.event(&key("a"));
    pass(HOUR).await;
    assert_eq!(rig.wire.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn at_the_end_what_is_left_goes_out_for_half_a_second() {
    let mut rig = Setup { workers: 1, ..Setup::new(create_and_tell) }.start(|sent: &Sent| -> Reply {
        done(sent, 10).after(if is_event(sent) { Duration::from_millis(400) } else { seconds(3) })
    });
    for name in ["a", "b", "c", "d"] {
        rig.event(&key(name));
    }
    pass(seconds(1)).await;
    rig.shutdown.cancel();
    timeout(seconds(10), &mut rig.running).await.unwrap().unwrap();
    assert_eq!(rig.wire.names().len(), 2, "the pass under way, and its event");

    let mut rig = Setup::new(only_tell).start(|sent| done(sent, 10).after(Duration::from_millis(200)));
    for n in 0..10 {
        rig.event(&key(&n.to_string()));
    }
    pass(Duration::from_millis(10)).await;
    rig.shutdown.cancel();
    timeout(seconds(1), &mut rig.running).await.unwrap().unwrap();
    assert!(events(&rig).len() <= 3, "{:?}", events(&rig));
}
