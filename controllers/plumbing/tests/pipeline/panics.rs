//! A defect with one object stays with that object.

use crate::rig::{HOUR, Rig, Seen, Setup, create, idle, key, pass, plan, pod, seconds};
use crate::wire::done;
use springtide_plumbing::controller::Settled;
use springtide_plumbing::plan::Plan;
use springtide_plumbing::queue::{Priority, Urgency};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

fn create_once(seen: &Seen) -> Plan {
    match &seen.pod {
        Some(_) => idle(),
        None => plan(vec![vec![create(&seen.key)]]),
    }
}

/// All other keys are worked on, by as many workers as before, and the bad one every five minutes.
async fn the_others_go_on(mut rig: Rig) {
    let bad = key("bad");
    rig.event(&bad);
    for round in 1..=20 {
        for n in 0..10 {
            rig.event(&key(&format!("good-{round}-{n}")));
        }
        rig.events(&bad, seconds(1)).await;
        rig.pods.advance(springtide_plumbing::key::ResourceVersion(10));
    }
    assert_eq!(rig.all_passes().len(), 201);
    assert_eq!(rig.passes(&bad), 1, "it backs off from 300 s, whatever happens");
    rig.events(&bad, HOUR).await;
    let passes = rig.passes(&bad);
    assert!((10..=17).contains(&passes), "{passes} passes in an hour");
    rig.queue.add(bad.clone(), Priority::High, Urgency::BreaksBackoff);
    pass(Duration::from_millis(1)).await;
    assert_eq!(rig.passes(&bad), passes + 1);
    let metrics = rig.metrics.encode().unwrap();
    for line in [
        format!("controller_runtime_reconcile_panics_total{{controller=\"scripted\"}} {}", passes + 1),
        "controller_runtime_active_workers{controller=\"scripted\"} 0".to_owned(),
    ] {
        assert!(metrics.contains(&line), "{line} is missing in {metrics}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_planner_that_panics_backs_its_key_off_and_leaves_the_others_alone() {
    let memory = Arc::new(Mutex::new(0));
    let rig = Setup::new(move |seen: &Seen| {
        let mut plans = memory.lock().unwrap_or_else(PoisonError::into_inner);
        *plans += 1;
        assert_ne!(&*seen.key.name, "bad", "as planned");
        create_once(seen)
    });
    the_others_go_on(rig.start(|sent| done(sent, 10))).await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_over_the_results_of_a_pass_is_no_different() {
    let rig = Setup::new(|seen: &Seen| match &*seen.key.name {
        "bad" => idle(),
        _ => create_once(seen),
    })
    .settled(|key, _| {
        assert_ne!(&*key.name, "bad", "as planned");
        Settled::Default
    });
    the_others_go_on(rig.start(|sent| done(sent, 10))).await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_midst_of_a_write_is_no_different() {
    let rig = Setup::new(create_once).start(|sent| {
        assert_ne!(sent.name(), "bad", "as planned");
        done(sent, 10)
    });
    the_others_go_on(rig).await;
}

#[tokio::test(start_paused = true)]
async fn what_the_bad_key_wrote_is_waited_for_all_the_same() {
    let mut rig = Setup::new(create_once)
        .settled(|_, results| if results.is_empty() { Settled::Default } else { panic!("as planned") })
        .start(|sent| done(sent, 10));
    let bad = key("bad");
    rig.event(&bad);
    pass(seconds(400)).await;
    assert_eq!(rig.wire.names()[0], "bad");
    assert_eq!(rig.passes(&bad), 1, "its store lags");
    rig.pods.apply(pod(&bad, 10));
    pass(seconds(400)).await;
    assert_eq!(rig.passes(&bad), 2);
}
