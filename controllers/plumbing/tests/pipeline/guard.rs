//! Brake, observe mode, delete protection and breaker, seen from the wire.

use crate::rig::{HOUR, Seen, Setup, create, delete, idle, key, pass, plan, seconds, status};
use crate::wire::done;
use http::Method;
use serde_json::json;
use springtide_plumbing::brake::Brake;
use springtide_plumbing::breaker::{Breaker, Limits};
use springtide_plumbing::clock::Clock;
use springtide_plumbing::guard::{Guard, Mode};
use springtide_plumbing::key::{Resource, ResourceVersion};
use springtide_plumbing::plan::{Plan, Step};
use springtide_plumbing::warrant::{Target, Warrant, Warrants};
use std::sync::Arc;

/// One pod made, one deleted, and the owner's status; as long as the pod is not there.
fn everything(seen: &Seen) -> Plan {
    if seen.pod.is_some() {
        return idle();
    }
    let made = key(&format!("made-{}", seen.key.name));
    let gone = key(&format!("gone-{}", seen.key.name));
    let status = status(&seen.key, json!({}), json!({"active": 1}));
    Plan { status: Some(status), ..plan(vec![vec![create(&made), delete(&gone)]]) }
}

fn default_breaker() -> Arc<Breaker> {
    let breaker = Breaker::new(Limits::default(), Clock::system());
    breaker.read(None);
    Arc::new(breaker)
}

#[tokio::test(start_paused = true)]
async fn an_engaged_brake_lets_nothing_out_and_its_release_everything() {
    let setup = Setup::new(everything);
    let brake = setup.guard.brake.clone();
    let rig = setup.start(|sent| done(sent, 10));
    brake.set_signal(true);
    for number in 0..20 {
        rig.event(&key(&format!("owner-{number}")));
    }
    pass(HOUR).await;
    assert_eq!(rig.wire.names(), <[&str; 0]>::default());
    assert_eq!(rig.all_passes().len(), 0, "no plan is made for nothing");
    brake.set_signal(false);
    pass(seconds(5)).await;
    assert_eq!(rig.all_passes().len(), 20);
    assert!(rig.wire.count(&Method::POST) >= 20, "{:?}", rig.wire.names());
}

#[tokio::test(start_paused = true)]
async fn a_brake_that_engages_during_a_pass_stops_the_rest_of_it() {
    let stages = || (0..5).map(|stage| vec![create(&key(&format!("p{stage}")))]).collect();
    let setup = Setup::new(move |seen| if seen.passes == 0 { plan(stages()) } else { idle() });
    let brake = setup.guard.brake.clone();
    let engages = brake.clone();
    let mut rig = setup.start(move |sent| {
        if sent.name() == "p1" {
            engages.set_file(true);
        }
        done(sent, 10)
    });
    rig.event(&key("owner"));
    pass(seconds(1)).await;
    rig.pods.advance(ResourceVersion(10));
    pass(seconds(60)).await;
    assert_eq!(rig.wire.names(), ["p0", "p1"]);
    assert_eq!(rig.passes(&key("owner")), 1);
    brake.set_file(false);
    pass(seconds(60)).await;
    assert_eq!(rig.passes(&key("owner")), 2, "planned again");
}

#[tokio::test(start_paused = true)]
async fn a_brake_that_engages_within_a_chain_stops_what_was_admitted_with_it() {
    let setup = Setup::new(|seen: &Seen| {
        let chain = (0..3).map(|link| create(&key(&format!("p{link}")))).collect();
        let stages = if seen.passes == 0 { vec![vec![Step::Chain(chain)]] } else { Vec::new() };
        Plan { stages, ..idle() }
    });
    let engages = setup.guard.brake.clone();
    let rig = setup.start(move |sent| {
        engages.set_signal(true);
        done(sent, 10)
    });
    rig.event(&key("owner"));
    pass(seconds(60)).await;
    assert_eq!(rig.wire.count(&Method::POST), 1, "the others had a permit");
}

#[tokio::test(start_paused = true)]
async fn before_the_switches_are_read_nothing_is_destroyed_and_all_else_goes_on() {
    let unread = Setup::new(|seen: &Seen| match &*seen.key.name {
        "makes" if seen.passes == 0 => plan(vec![vec![create(&key("made"))]]),
        "deletes" if seen.passes < 3 => plan(vec![vec![delete(&key("gone"))]]),
        _ => idle(),
    });
    let guard = Guard { brake: Brake::new(), ..Guard::open() };
    let brake = guard.brake.clone();
    let rig = Setup { guard, ..unread }.start(|sent| done(sent, 10));
    rig.event(&key("makes"));
    rig.event(&key("deletes"));
    pass(seconds(1)).await;
    assert_eq!(rig.wire.names(), ["made"]);
    brake.read(None);
    pass(seconds(2)).await;
    assert_eq!(rig.wire.names(), ["made", "gone"]);
}

#[tokio::test(start_paused = true)]
async fn who_observes_counts_whole_plans_and_sends_nothing() {
    let setup = Setup::new(everything);
    let guard = Guard { mode: Mode::Observe, breaker: default_breaker(), ..Guard::open() };
    let breaker = guard.breaker.clone();
    let rig = Setup { guard, ..setup }.start(|sent| done(sent, 10));
    for number in 0..50 {
        rig.event(&key(&format!("owner-{number}")));
    }
    pass(HOUR).await;
    assert_eq!(rig.wire.names(), <[&str; 0]>::default());
    assert!(rig.all_passes().values().all(|passes| *passes == 1), "planned once for each event");
    assert_eq!(breaker.open(), [], "what is not sent destroys nothing");
    let text = rig.metrics.encode().unwrap();
    for class in ["spec", "status"] {
        let count = if class == "spec" { 100 } else { 50 };
        let line = format!(
            r#"springtide_writes_total{{controller="scripted",class="{class}",resource="pods",outcome="observed"}} {count}"#
        );
        assert!(text.contains(&line), "{line} is missing in:\n{text}");
    }
}

/// Warrants by name.
struct ByName;

impl Warrants for ByName {
    fn warrant(&self, target: &Target<'_>) -> Option<Warrant> {
        target.key.name.starts_with("finished").then_some(Warrant::Finished)
    }

    fn is_protected(&self, target: &Target<'_>) -> bool {
        target.key.name.ends_with("protected")
    }

    fn live(&self, _: Resource, _: Option<&str>) -> usize {
        0
    }
}

#[tokio::test(start_paused = true)]
async fn what_has_no_warrant_is_capped_and_then_all_destruction_ends_there() {
    // Each pass deletes the finished ones it has, and thirty that nobody knows a reason for.
    let setup = Setup::new(|seen: &Seen| {
        let finished = (0..30).map(|n| delete(&key(&format!("finished-{}-{n}", seen.passes))));
        let lively = (0..30).map(|n| delete(&key(&format!("lively-{n}"))));
        let stages = match seen.passes {
            0 => vec![finished.chain(lively).collect()],
            _ => vec![finished.collect()],
        };
        plan(stages)
    });
    let guard = Guard { breaker: default_breaker(), warrants: Arc::new(ByName), ..Guard::open() };
    let breaker = guard.breaker.clone();
    let rig = Setup { guard, ..setup }.start(|sent| done(sent, 10));
    rig.event(&key("owner"));
    // Less than the time after which a store that hears nothing is stale.
    pass(seconds(80)).await;
    let (finished, lively): (Vec<_>, Vec<_>) =
        rig.wire.names().into_iter().partition(|name| name.starts_with("finished"));
    assert_eq!((finished.len(), lively.len()), (30, 10));
    assert!(rig.passes(&key("owner")) > 2, "it goes on trying");
    assert!(rig.passes(&key("owner")) < 8, "{} passes in 80 s", rig.passes(&key("owner")));
    let text = rig.metrics.encode().unwrap();
    for line in [
        r#"springtide_warrants_total{controller="scripted",warrant="finished"} 30"#,
        r#"springtide_warrants_total{controller="scripted",warrant="none"} 10"#,
    ] {
        assert!(text.contains(line), "{line} is missing in:\n{text}");
    }
    assert_eq!(breaker.open().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_protected_object_is_not_deleted_whatever_its_warrant() {
    let setup = Setup::new(|seen: &Seen| match seen.passes {
        0 => plan(vec![vec![delete(&key("finished-protected")), delete(&key("finished"))]]),
        _ => idle(),
    });
    let guard = Guard { breaker: default_breaker(), warrants: Arc::new(ByName), ..Guard::open() };
    let rig = Setup { guard, ..setup }.start(|sent| done(sent, 10));
    rig.event(&key("owner"));
    pass(seconds(5)).await;
    assert_eq!(rig.wire.names(), ["finished"]);
    assert_eq!(rig.passes(&key("owner")), 1);
    pass(seconds(30)).await;
    assert_eq!(rig.passes(&key("owner")), 2, "the label may have been taken away");
}
