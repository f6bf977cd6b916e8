//! No key starves, and no namespace pays for another.

use crate::rig::{HOUR, Seen, Setup, create, idle, key, pass, plan, pod, seconds, status};
use crate::wire::{done, refuse};
use http::Method;
use serde_json::json;
use springtide_plumbing::budget::{BucketConfig, BudgetConfig};
use springtide_plumbing::key::{ObjectKey, ResourceVersion};
use springtide_plumbing::plan::Plan;
use std::collections::BTreeSet;
use std::time::Duration;

fn create_first(seen: &Seen) -> Plan {
    match seen.passes {
        0 => plan(vec![vec![create(&seen.key)]]),
        _ => idle(),
    }
}

fn create_until_seen(seen: &Seen) -> Plan {
    match &seen.pod {
        Some(_) => idle(),
        None => plan(vec![vec![create(&seen.key)]]),
    }
}

fn noisy(n: usize) -> ObjectKey {
    ObjectKey::new("noisy", format!("n-{n:03}"))
}

#[tokio::test(start_paused = true)]
async fn an_empty_bucket_blocks_no_worker_and_no_other_namespace() {
    let budget = BudgetConfig { namespace: BucketConfig { rate: 1.0, burst: 10 }, ..BudgetConfig::default() };
    // One worker: it would show at once if it waited.
    let mut rig = Setup { workers: 1, budget, ..Setup::new(create_until_seen) }.start(|sent| done(sent, 10));
    for n in 0..100 {
        rig.event(&noisy(n));
    }
    pass(Duration::from_millis(1)).await;
    assert_eq!(rig.wire.len(), 10, "the burst of the namespace");
    assert_eq!(rig.queue.stats().throttled, 90);
    for n in 0..10 {
        rig.event(&key(&n.to_string()));
    }
    pass(Duration::from_millis(1)).await;
    assert_eq!(rig.wire.len(), 20, "another namespace waits for nothing");

    // The throttled keys come back, each once, in their order, at the rate of their bucket.
    for _ in 0..95 {
        let stored: Vec<_> = rig.wire.all();
        for sent in &stored {
            rig.pods.apply(pod(&ObjectKey::new(sent.namespace(), sent.name()), 10));
        }
        pass(seconds(1)).await;
    }
    let expected: Vec<_> = (0..100).map(|n| noisy(n).name.to_string()).collect();
    let mut names = rig.wire.names();
    names.retain(|name| name.starts_with("n-"));
    assert_eq!(names, expected);
    assert_eq!(rig.queue.stats().throttled, 0);
}

#[tokio::test(start_paused = true)]
async fn a_throttled_key_comes_back_and_goes_on_where_it_stopped() {
    let budget = BudgetConfig { namespace: BucketConfig { rate: 2.0, burst: 4 }, ..BudgetConfig::default() };
    // Ten pods, of which each pass plans those that it has not made yet.
    let made = std::sync::Arc::new(std::sync::Mutex::new(BTreeSet::new()));
    let known = made.clone();
    let make = move |_: &Seen| {
        let known = known.lock().unwrap();
        let missing = (0..10).map(|n| key(&format!("p{n}"))).filter(|key| !known.contains(&*key.name));
        plan(vec![missing.map(|key| create(&key)).collect()])
    };
    let mut rig = Setup { budget, ..Setup::new(make) }.start(move |sent| {
        made.lock().unwrap().insert(sent.name().to_owned());
        done(sent, 10)
    });
    rig.pods.advance(ResourceVersion(10));
    rig.event(&key("owner"));
    pass(seconds(10)).await;
    let names: Vec<_> = (0..10).map(|n| format!("p{n}")).collect();
    assert_eq!(rig.wire.names(), names, "each once");
    assert!(rig.passes(&key("owner")) <= 8, "{} passes for ten writes", rig.passes(&key("owner")));
}

#[tokio::test(start_paused = true)]
async fn no_key_starves_under_constant_pressure() {
    let tight = BudgetConfig { namespace: BucketConfig { rate: 20.0, burst: 20 }, ..BudgetConfig::default() };
    for (budget, least) in [(BudgetConfig::default(), 60), (tight, 10)] {
        // A write each time, so that each pass takes a while and a token.
        let make = |seen: &Seen| {
            let next = json!({"pass": seen.passes + 1});
            Plan { status: Some(status(&seen.key, json!({"pass": seen.passes}), next)), ..plan(vec![]) }
        };
        let budget = BudgetConfig { object_status: BucketConfig { rate: 1000.0, burst: 1000 }, ..budget };
        let mut rig = Setup { budget, ..Setup::new(make) }
            .start(|sent| done(sent, 10).after(Duration::from_millis(50)));
        rig.pods.advance(ResourceVersion(10));
        let keys: Vec<_> = (0..40).map(|n| key(&format!("k{n:02}"))).collect();
        // Each key has an event in every moment; a few make ten times as many as the others.
        for tick in 0..3000 {
            for (n, key) in keys.iter().enumerate() {
                if n < 4 || tick % 10 == 0 {
                    rig.event(key);
                }
            }
            pass(Duration::from_millis(10)).await;
        }
        let written =
            |key: &ObjectKey| rig.wire.all().iter().filter(|sent| sent.path.contains(&*key.name)).count();
        let counts: Vec<_> = keys.iter().map(written).collect();
        let (fewest, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
        assert!(*fewest >= least && *fewest * 2 >= *most, "writes by key: {counts:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn keys_that_fail_take_nothing_from_the_others() {
    let rig = Setup::new(create_first_or_bad).start(|sent| match sent.name() {
        name if name.starts_with("bad") => refuse(422, "Invalid"),
        _ => done(sent, 1),
    });
    let bad: Vec<_> = (0..32).map(|n| key(&format!("bad-{n}"))).collect();
    bad.iter().for_each(|key| rig.event(key));
    for n in 0..36 {
        rig.event(&key(&format!("good-{n}")));
        for key in &bad {
            rig.event(key);
        }
        pass(HOUR / 36).await;
        assert_eq!(rig.passes(&key(&format!("good-{n}"))), 1);
    }
    let sent = rig.wire.count(&Method::POST);
    assert!(sent <= 36 + 32 * 26, "{sent} requests");
}

fn create_first_or_bad(seen: &Seen) -> Plan {
    if seen.key.name.starts_with("bad") { plan(vec![vec![create(&seen.key)]]) } else { create_first(seen) }
}
