//! Patches of parts, merges and applies, seen from the wire.

use crate::rig::{Seen, Setup, apply, idle, key, merge, pass, plan, pod, seconds};
use crate::wire::{Reply, answer, done, object, refuse};
use http::Method;
use serde_json::{Value, json};
use springtide_plumbing::controller::Settled;
use springtide_plumbing::error::WriteError;
use springtide_plumbing::plan::{Part, Plan, Write};
use std::sync::{Arc, Mutex};

fn running() -> Value {
    json!({"spec": {"paused": true}})
}

/// A change of one part each.
fn changes() -> Vec<(Write, &'static str)> {
    let a = key("a");
    let of = |part| merge(&a, part, running());
    vec![
        (of(Part::Main), "/api/v1/namespaces/ns/pods/a"),
        (of(Part::Status), "/api/v1/namespaces/ns/pods/a/status"),
        (of(Part::Resize), "/api/v1/namespaces/ns/pods/a/resize"),
        (apply(&a, running()), "/api/v1/namespaces/ns/pods/a"),
    ]
}

/// Plans the write until the store shows another version than 5.
fn until_changed(write: Write) -> impl Fn(&Seen) -> Plan + Send + Sync + 'static {
    move |seen| match &seen.pod {
        Some(pod) if pod.version().0 == 5 => plan(vec![vec![write.clone()]]),
        Some(_) | None => idle(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_of_any_part_is_written_once_and_waited_for() {
    for (write, path) in changes() {
        let mut rig = Setup::new(until_changed(write)).start(|sent| {
            let version = if sent.body["metadata"]["uid"] == "uid-a" { 12 } else { 0 };
            answer(200, object("ns", "a", version))
        });
        let a = key("a");
        rig.pods.apply(pod(&a, 5));
        rig.event(&a);
        rig.events(&a, seconds(5)).await;
        assert_eq!((rig.wire.len(), rig.passes(&a)), (1, 1), "{path}: planned on a store that lags");
        assert_eq!(rig.wire.all()[0].path, path);
        rig.pods.apply(pod(&a, 12));
        pass(seconds(1)).await;
        assert_eq!((rig.wire.len(), rig.passes(&a)), (1, 2), "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_became_of_a_change_whose_answer_is_lost_the_store_or_one_get_tells() {
    for (write, path) in changes() {
        for stored in [true, false] {
            let version = if stored { 12 } else { 5 };
            let mut rig =
                Setup::new(until_changed(write.clone())).start(move |sent| match (&sent.method, sent.at) {
                    (&Method::GET, _) => answer(200, object("ns", "a", version)),
                    _ => Reply::Reset,
                });
            let a = key("a");
            rig.pods.apply(pod(&a, 5));
            rig.event(&a);
            rig.events(&a, seconds(9)).await;
            assert_eq!(rig.wire.methods(), ["PATCH"], "{path}: sent again before anybody knew");
            if stored {
                rig.pods.apply(pod(&a, 12));
                pass(seconds(2)).await;
                assert_eq!((rig.wire.methods(), rig.passes(&a)), (vec!["PATCH".to_owned()], 2), "{path}");
            } else {
                pass(seconds(3)).await;
                assert_eq!(rig.wire.methods()[..3], ["PATCH", "GET", "PATCH"], "{path}: it was not stored");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_that_is_no_news_to_the_server_holds_nobody_up() {
    for (write, path) in changes() {
        let once = move |seen: &Seen| match seen.passes {
            0 => plan(vec![vec![write.clone()]]),
            _ => idle(),
        };
        let mut rig = Setup::new(once).start(|_| answer(200, object("ns", "a", 5)));
        let a = key("a");
        rig.pods.apply(pod(&a, 5));
        rig.event(&a);
        pass(seconds(1)).await;
        rig.event(&a);
        pass(seconds(1)).await;
        assert_eq!((rig.passes(&a), rig.gate.is_open(&a)), (2, true), "{path}");
    }
}

fn held_by(manager: &str) -> Reply {
    let cause = json!({
        "reason": "FieldManagerConflict", "message": format!("conflict with \"{manager}\""),
        "field": ".spec.paused",
    });
    answer(
        409,
        json!({
            "kind": "Status", "status": "Failure", "code": 409, "reason": "Conflict",
            "message": "Apply failed with 1 conflict", "details": {"causes": [cause]},
        }),
    )
}

#[tokio::test(start_paused = true)]
async fn a_conflict_over_fields_is_the_controllers_to_handle_and_waits_for_no_store() {
    let held = Arc::new(Mutex::new(Vec::new()));
    let (known, told) = (held.clone(), held.clone());
    let setup = Setup::new(move |seen| match known.lock().unwrap().is_empty() {
        true => plan(vec![vec![apply(&seen.key, running())]]),
        false => idle(),
    });
    let setup = setup.settled(move |_, results| {
        for result in results {
            if let Err(WriteError::FieldConflict(conflicts)) = &result.outcome {
                told.lock().unwrap().extend(conflicts.iter().map(ToString::to_string));
            }
        }
        Settled::Handled
    });
    let mut rig = setup.start(|_| held_by("argocd"));
    let a = key("a");
    rig.pods.apply(pod(&a, 5));
    rig.event(&a);
    pass(seconds(1)).await;
    assert_eq!(*held.lock().unwrap(), [".spec.paused by argocd"]);
    assert_eq!((rig.wire.methods(), rig.passes(&a)), (vec!["PATCH".to_owned()], 2), "planned for it at once");
    let text = rig.metrics.encode().unwrap();
    assert!(text.contains(r#"resource="pods",outcome="field_conflict""#), "{text}");
}

#[tokio::test(start_paused = true)]
async fn an_old_version_in_a_merge_is_an_ordinary_conflict() {
    let (write, _) = changes().remove(0);
    let mut rig = Setup::new(until_changed(write)).start(|sent| match sent.method {
        Method::GET => answer(200, object("ns", "a", 6)),
        _ => refuse(409, "Conflict"),
    });
    let a = key("a");
    rig.pods.apply(pod(&a, 5));
    rig.event(&a);
    rig.events(&a, seconds(5)).await;
    assert_eq!(
        (rig.wire.methods(), rig.passes(&a)),
        (vec!["PATCH".to_owned()], 1),
        "until the store shows more"
    );
    rig.pods.apply(pod(&a, 6));
    pass(seconds(1)).await;
    assert_eq!((rig.wire.len(), rig.passes(&a)), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_merge_that_says_nothing_is_not_sent() {
    let mut rig = Setup::new(|seen: &Seen| plan(vec![vec![merge(&seen.key, Part::Main, json!({}))]]))
        .start(|sent| done(sent, 10));
    let a = key("a");
    rig.pods.apply(pod(&a, 5));
    rig.event(&a);
    pass(seconds(60)).await;
    assert_eq!((rig.wire.len(), rig.passes(&a)), (0, 1));
    assert!(
        rig.metrics.encode().unwrap().contains("springtide_noop_writes_total{controller=\"scripted\"} 1")
    );
}

#[tokio::test(start_paused = true)]
async fn a_part_that_the_table_of_rights_lacks_is_not_written() {
    let mut rig = Setup::new(|seen: &Seen| plan(vec![vec![merge(&seen.key, Part::Scale, running())]]))
        .start(|sent| done(sent, 10));
    let a = key("a");
    rig.pods.apply(pod(&a, 5));
    rig.event(&a);
    pass(seconds(1)).await;
    assert_eq!(rig.wire.len(), 0);
    assert!(rig.metrics.encode().unwrap().contains(r#"resource="pods",outcome="refused""#));
}
