//! Questions to the server: writes that it answers and does not store.

use crate::rig::{
    HOUR, Seen, Setup, dry_run, evict, idle, key, merge, pass, patch, plan, pod, seconds, status,
};
use crate::wire::{Reply, Sent, answer, busy, done, refuse};
use jiff::Timestamp;
use serde_json::{Value, json};
use springtide_plumbing::budget::{BucketConfig, BudgetConfig};
use springtide_plumbing::controller::Settled;
use springtide_plumbing::dry_run::{Verdict, Verdicts};
use springtide_plumbing::guard::{Guard, Mode};
use springtide_plumbing::key::ObjectKey;
use springtide_plumbing::plan::{Outcome, Part, Plan, Step, Write};
use std::sync::Arc;
use std::time::Duration;

const DENIAL: &str = "admission webhook \"images.example\" denied the request: not signed";

fn image(key: &ObjectKey, image: &str) -> Write {
    merge(key, Part::Main, json!({"spec": {"containers": [{"name": "app", "image": image}]}}))
}

fn denied() -> Reply {
    answer(403, json!({"kind": "Status", "status": "Failure", "code": 403, "message": DENIAL}))
}

fn is_dry(sent: &Sent) -> bool {
    sent.query.split('&').any(|parameter| parameter == "dryRun=All")
}

/// Denies images of version 2, and shows what it would make of others.
fn admission(sent: &Sent) -> Reply {
    let wished = &sent.body["spec"]["containers"][0]["image"];
    if wished == "app:v2" {
        return denied();
    }
    let mut object = crate::wire::object("ns", "a", 5);
    object["spec"]["image"] = format!("mirror/{}", wished.as_str().unwrap_or_default()).into();
    answer(200, object)
}

fn read(object: &Value) -> String {
    object["spec"]["image"].as_str().unwrap_or_default().to_owned()
}

/// A planner that asks what it does not know, and its memory.
fn asks(questions: &'static [&'static str]) -> (Setup, Arc<Verdicts<String>>) {
    let verdicts = Arc::new(Verdicts::new(read));
    let (known, told) = (verdicts.clone(), verdicts.clone());
    let setup = Setup::new(move |seen: &Seen| {
        let answers = known.of(&seen.key);
        let unknown = questions.iter().filter(|question| !answers.contains_key(**question));
        let stage: Vec<_> = unknown.map(|wished| dry_run(wished, image(&seen.key, wished))).collect();
        if stage.is_empty() { idle() } else { plan(vec![stage]) }
    });
    let setup = setup.settled(move |key, results| {
        told.settle(key, results, Timestamp::UNIX_EPOCH);
        Settled::Default
    });
    (setup, verdicts)
}

#[tokio::test(start_paused = true)]
async fn answers_reach_the_next_plan_at_once_and_a_denial_is_one() {
    let (setup, verdicts) = asks(&["app:v1", "app:v2"]);
    let mut rig = setup.telling().start(admission);
    let a = key("a");
    rig.pods.apply(pod(&a, 5));
    rig.event(&a);
    pass(Duration::from_millis(10)).await;
    assert_eq!((rig.wire.len(), rig.passes(&a)), (2, 2));
    assert!(rig.wire.all().iter().all(is_dry));
    let answers = verdicts.of(&a);
    assert_eq!(answers["app:v1"].verdict, Verdict::Accepted("mirror/app:v1".to_owned()));
    let Verdict::Refused(refusal) = &answers["app:v2"].verdict else { panic!("{answers:?}") };
    assert_eq!((refusal.code, refusal.message.as_str()), (403, DENIAL));
    // Nothing was written, so there is nothing to wait for, to back off from, or to tell users.
    rig.event(&a);
    pass(Duration::from_millis(10)).await;
    assert_eq!((rig.passes(&a), rig.gate.is_open(&a), rig.queue.stats().in_backoff), (3, true, 0));
    pass(HOUR).await;
    assert_eq!((rig.wire.len(), rig.passes(&a)), (2, 3));
    let text = rig.metrics.encode().unwrap();
    assert!(text.contains(r#"resource="pods",outcome="dry_run"} 2"#), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_question_whose_answer_is_lost_is_asked_again_without_a_read() {
    for lost in [Reply::Reset, refuse(500, "InternalError"), Reply::Silence] {
        let (setup, verdicts) = asks(&["app:v1"]);
        let reply = lost.clone();
        let rig = setup.start(move |_| reply.clone());
        let a = key("a");
        rig.event(&a);
        pass(seconds(30)).await;
        let methods = rig.wire.methods();
        assert!((2..=8).contains(&methods.len()), "{lost:?}: {methods:?}");
        assert!(methods.iter().all(|method| method == "PATCH"), "{lost:?}: {methods:?}");
        assert!(verdicts.of(&a).is_empty(), "{lost:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_asks_the_same_for_ever_is_slowed_down() {
    let setup = Setup::new(|seen: &Seen| plan(vec![vec![dry_run("q", image(&seen.key, "app:v1"))]]));
    let rig = setup.start(admission);
    rig.event(&key("a"));
    pass(HOUR).await;
    // Five at once, then at the distances of a backoff, up to five minutes.
    assert!(rig.wire.len() < 40, "{} questions in an hour", rig.wire.len());
}

#[tokio::test(start_paused = true)]
async fn what_stands_behind_a_question_goes_out_only_when_it_would_be_stored() {
    for (wished, sent) in [("app:v1", &[true, false, false][..]), ("app:v2", &[true])] {
        let setup = Setup::new(move |seen: &Seen| {
            if seen.passes > 0 {
                return idle();
            }
            let chain = vec![dry_run("q", image(&seen.key, wished)), image(&seen.key, wished)];
            let status = status(&seen.key, json!({}), json!({"active": 1}));
            Plan {
                stages: vec![vec![Step::Chain(chain)]],
                status: Some(status),
                ..Plan::idle(Outcome::Progressing)
            }
        });
        let mut rig = setup.start(admission);
        rig.pods.apply(pod(&key("a"), 5));
        rig.event(&key("a"));
        pass(Duration::from_millis(10)).await;
        assert_eq!(rig.wire.all().iter().map(is_dry).collect::<Vec<_>>(), sent, "{wished}");
    }
}

#[tokio::test(start_paused = true)]
async fn questions_need_budget_and_stop_for_brake_and_observe_mode() {
    let narrow = BucketConfig { rate: 1.0, burst: 2 };
    let budget = BudgetConfig { namespace: narrow, ..BudgetConfig::default() };
    let five = &["v1", "v3", "v4", "v5", "v6"];
    let (setup, verdicts) = asks(five);
    let rig = Setup { budget, ..setup }.start(admission);
    rig.event(&key("a"));
    pass(Duration::from_millis(500)).await;
    assert_eq!(rig.wire.len(), 2, "two tokens");
    pass(seconds(10)).await;
    assert_eq!(verdicts.of(&key("a")).len(), five.len());

    let (setup, _) = asks(five);
    let rig = Setup { guard: Guard { mode: Mode::Observe, ..Guard::open() }, ..setup }.start(admission);
    rig.event(&key("a"));
    pass(HOUR).await;
    assert_eq!((rig.wire.len(), rig.passes(&key("a"))), (0, 1));

    let (setup, _) = asks(five);
    setup.guard.brake.set_signal(true);
    let rig = setup.start(admission);
    rig.event(&key("a"));
    pass(HOUR).await;
    assert_eq!(rig.wire.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_question_about_something_destructive_destroys_nothing() {
    // Neither breaker nor warrant is asked, whatever the number.
    let setup = Setup::new(|seen: &Seen| match seen.passes {
        0 => {
            let ask = |n: usize| dry_run(&n.to_string(), evict(&key(&format!("p{n}"))));
            plan(vec![(0..30).map(ask).collect()])
        }
        _ => idle(),
    });
    let breaker = springtide_plumbing::breaker::Breaker::new(
        springtide_plumbing::breaker::Limits::default(),
        springtide_plumbing::clock::Clock::system(),
    );
    breaker.read(None);
    let guard = Guard { breaker: Arc::new(breaker), ..Guard::open() };
    let breaker = guard.breaker.clone();
    let rig = Setup { guard, ..setup }.start(|sent| done(sent, 10));
    rig.event(&key("owner"));
    pass(seconds(1)).await;
    assert_eq!((rig.wire.len(), breaker.open()), (30, Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn what_is_no_answer_counts_as_for_any_write() {
    let mut rig =
        Setup::new(|seen: &Seen| plan(vec![vec![dry_run("q", patch(&seen.key))]])).start(|_| busy(30));
    let a = key("a");
    rig.pods.apply(pod(&a, 5));
    rig.event(&a);
    rig.events(&a, seconds(25)).await;
    assert_eq!(rig.wire.len(), 1, "the server has asked to be left alone");
}
