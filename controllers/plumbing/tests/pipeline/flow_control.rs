//! What the server's flow control says, and whom it concerns.

use crate::election::{Bench, stored};
use crate::rig::{Rig, Seen, Setup, create, key, pass, patch, plan, pod, seconds};
use crate::wire::{Reply, Sent, Wire, busy, done, refuse};
use http::Method;
use proptest::prelude::*;
use springtide_plumbing::budget::{BucketConfig, BudgetConfig};
use springtide_plumbing::plan::Plan;
use std::time::Duration;

/// Makes the pod of its own name, or changes that of another name.
fn create_or_patch(seen: &Seen) -> Plan {
    let write = if seen.key.name.starts_with("new") { create(&seen.key) } else { patch(&seen.key) };
    plan(vec![vec![write]])
}

/// Creates are of one level and refused, patches of another one.
fn creates_refused(sent: &Sent) -> Reply {
    match sent.method {
        Method::POST => busy(10).on_level("creates"),
        _ => done(sent, 10).on_level("patches"),
    }
}

fn is_of_lease(sent: &Sent) -> bool {
    sent.path.contains("/leases")
}

fn sent(rig: &Rig, method: &Method) -> usize {
    rig.wire.count(method)
}

#[tokio::test(start_paused = true)]
async fn a_429_stops_the_writes_of_its_level_alone_and_one_probe_follows() {
    let mut rig = Setup::new(create_or_patch).start(creates_refused);
    rig.pods.apply(pod(&key("old"), 10));
    // The first answers name the levels.
    for name in ["new-first", "old"] {
        rig.event(&key(name));
        pass(Duration::from_millis(1)).await;
    }
    assert_eq!((sent(&rig, &Method::POST), sent(&rig, &Method::PATCH)), (1, 1));
    for n in 0..100 {
        rig.event(&key(&format!("new-{n}")));
        rig.event(&key(&format!("old-{n}")));
    }
    pass(Duration::from_millis(9900)).await;
    assert_eq!((sent(&rig, &Method::POST), sent(&rig, &Method::PATCH)), (1, 101));
    // Each hold is 10 to 12.5 s, and ends with one request.
    for probes in 1..5 {
        pass(Duration::from_millis(2600)).await;
        assert_eq!(sent(&rig, &Method::POST), 1 + probes);
        pass(Duration::from_millis(9900 - 2600)).await;
        assert!(sent(&rig, &Method::POST) <= 2 + probes);
        pass(Duration::from_millis(2600)).await;
    }
    let windows = rig.budget.stats(&[]).windows;
    let limit = |level: &str| windows.iter().find(|window| *window.priority_level == *level).unwrap().limit;
    assert_eq!(limit("creates"), 1);
    assert!(limit("patches") >= 16);
    let metrics = rig.metrics.encode().unwrap();
    assert!(metrics.contains(r#"resource="pods",outcome="busy""#), "{metrics}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// 4. Of the proof obligations of the write budget; the others are beside it.
    #[test]
    fn leases_never_wait(
        rate in 1_u32..50,
        answers in prop::collection::vec((0_usize..5, 0_u64..9000), 1..20),
    ) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let narrow = BucketConfig { rate: f64::from(rate), burst: rate };
            let budget = BudgetConfig { process: narrow, ..BudgetConfig::default() };
            let count = std::sync::atomic::AtomicUsize::new(0);
            // One server and one client for all, and the writes are fenced by the Lease.
            let (wire, client) = Wire::new(move |sent| {
                if is_of_lease(sent) {
                    return stored(sent);
                }
                let number = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                let (kind, millis) = answers[number % answers.len()];
                let reply = match kind {
                    0 => busy(30),
                    1 => refuse(503, "ServiceUnavailable"),
                    2 => return Reply::Silence,
                    _ => done(sent, 10),
                };
                reply.after(Duration::from_millis(millis))
            });
            let leases = Bench::leading_over(wire.clone(), client.clone()).await;
            let fence = leases.leadership.fence.clone();
            let rig = Setup { budget, fence, ..Setup::new(create_or_patch) }.start_over(wire, client);
            for n in 0..500 {
                rig.event(&key(&format!("new-{n}")));
            }
            pass(seconds(100)).await;
            let (renewals, writes): (Vec<_>, Vec<_>) = rig.wire.all().into_iter().partition(is_of_lease);
            // 500 keys want more than any burst; what refuses them all leaves a probe each half minute.
            assert!(writes.len() >= 2, "{} writes", writes.len());
            // One renewal every 5 s, to the millisecond.
            let gaps: Vec<_> = renewals.windows(2).map(|pair| pair[1].at - pair[0].at).collect();
            assert!(gaps.len() >= 19, "{} renewals", gaps.len());
            assert!(gaps.iter().all(|gap| *gap == seconds(5)), "{gaps:?}");
            assert_eq!(leases.leads(), (true, true));
        });
    }
}
