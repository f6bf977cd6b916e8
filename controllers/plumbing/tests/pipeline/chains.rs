//! Writes that belong together.

use crate::rig::{Seen, Setup, create, idle, key, pass, patch, seconds, status};
use crate::wire::{busy, done, refuse};
use serde_json::json;
use springtide_plumbing::budget::{BucketConfig, BudgetConfig};
use springtide_plumbing::plan::{Outcome, Plan, Step};
use std::time::Duration;

/// Two chains of a stage, and what comes after them.
fn chains() -> Plan {
    let chain = |name: &str| Step::Chain((1..=3).map(|n| create(&key(&format!("{name}{n}")))).collect());
    let stages = vec![vec![chain("a"), chain("b")], vec![create(&key("next")).into()]];
    let status = status(&key("owner"), json!({}), json!({"active": 1}));
    Plan { stages, status: Some(status), ..Plan::idle(Outcome::Progressing) }
}

fn once(seen: &Seen) -> Plan {
    if seen.passes == 0 { chains() } else { idle() }
}

#[tokio::test(start_paused = true)]
async fn the_writes_of_a_chain_go_out_one_after_the_other_and_chains_beside_each_other() {
    let rig = Setup::new(once).start(|sent| done(sent, 10).after(seconds(1)));
    rig.event(&key("owner"));
    pass(Duration::from_millis(9500)).await;
    assert_eq!(rig.wire.names(), ["a1", "b1", "a2", "b2", "a3", "b3", "next", "status"]);
    assert_eq!((rig.wire.most_in_flight(), rig.wire.gaps()[1]), (2, seconds(1)));
}

#[tokio::test(start_paused = true)]
async fn a_write_that_does_not_succeed_stops_the_rest_of_its_chain_and_the_pass_after_its_stage() {
    let others_go_on = ["a1", "a2", "b1", "b2", "b3"];
    // A server that asks to be left alone asks that of the other chain too, whose next write has a permit.
    let all_stop = &others_go_on[..4];
    for (failure, sent) in [
        (refuse(403, "Forbidden"), &others_go_on[..]),
        (refuse(409, "Conflict"), &others_go_on),
        (refuse(500, "InternalError"), &others_go_on),
        (busy(60), all_stop),
    ] {
        let rig = Setup::new(once).start(move |sent| match sent.name() {
            "a2" => failure.clone(),
            _ => done(sent, 10).after(Duration::from_millis(10)),
        });
        rig.event(&key("owner"));
        pass(Duration::from_millis(100)).await;
        let mut names = rig.wire.names();
        names.sort_unstable();
        assert_eq!(names, sent);
    }
    // What is gone was to go: the chain goes on.
    let make = |seen: &Seen| match seen.passes {
        0 => Plan {
            stages: vec![vec![Step::Chain(vec![patch(&key("1")), patch(&key("2"))])]],
            ..Plan::idle(Outcome::Progressing)
        },
        _ => idle(),
    };
    let rig = Setup::new(make).start(|_| refuse(404, "NotFound"));
    rig.event(&key("owner"));
    pass(Duration::from_millis(100)).await;
    assert_eq!(rig.wire.names(), ["1", "2"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_of_a_chain_goes_out_before_there_are_tokens_for_all_of_it() {
    let make = |seen: &Seen| {
        let chain = (1..=3).map(|n| create(&key(&format!("{}{n}", seen.key.name)))).collect();
        match seen.passes {
            0 | 1 => Plan { stages: vec![vec![Step::Chain(chain)]], ..Plan::idle(Outcome::Progressing) },
            _ => idle(),
        }
    };
    let budget = BudgetConfig { namespace: BucketConfig { rate: 1.0, burst: 4 }, ..BudgetConfig::default() };
    let rig = Setup { budget, ..Setup::new(make) }.start(|sent| done(sent, 1));
    rig.event(&key("a"));
    pass(Duration::from_millis(1)).await;
    assert_eq!(rig.wire.len(), 3);
    // One token is left.
    rig.event(&key("b"));
    pass(Duration::from_millis(1900)).await;
    assert_eq!((rig.wire.len(), rig.passes(&key("b"))), (3, 1));
    pass(Duration::from_millis(200)).await;
    assert_eq!(
        (rig.wire.names()[3..].to_vec(), rig.passes(&key("b"))),
        (vec!["b1", "b2", "b3"].into_iter().map(str::to_owned).collect::<Vec<_>>(), 2)
    );
}
