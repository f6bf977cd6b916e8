use super::*;
use crate::key::ResourceVersion;
use crate::plan::WriteClass;
use proptest::prelude::*;
use serde_json::json;

fn write(name: &str, action: Action) -> Write {
    Write { resource: Resource::POD, key: ObjectKey::new("ns", name), class: WriteClass::Status, action }
}

/// A status of which somebody has left nothing.
fn status(active: u32, time: &str) -> Write {
    status_over(active, time, json!({}))
}

fn status_over(active: u32, time: &str, stored: Value) -> Write {
    let status = json!({"active": active, "conditions": [{"lastTransitionTime": time}]});
    let uid = Uid("u".into());
    write("p", Action::Status { uid, resource_version: ResourceVersion(1), status, stored })
}

fn label(name: &str, value: &str) -> Write {
    let operations = json!([
        {"op": "test", "path": "/metadata/uid", "value": name},
        {"op": "test", "path": "/metadata/labels/a", "value": "whatever it is now"},
        {"op": "add", "path": "/metadata/labels/a", "value": value},
    ]);
    write(name, Action::json_patch(operations))
}

async fn pass(seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn the_third_reversal_in_a_minute_is_a_fight_and_each_further_one_doubles_the_distance() {
    let fights = Fights::default();
    let mut distances = Vec::new();
    for number in 0..14 {
        // Times change with each write, which says nothing.
        let write = status(1, &number.to_string());
        if let Some(at) = fights.not_before(&write) {
            distances.push((at - Instant::now()).as_secs() + 5);
            tokio::time::advance(at - Instant::now()).await;
        }
        let fight = fights.written(&write);
        assert_eq!(
            fight.as_ref().map(|fight| fight.begins),
            (number >= 3).then_some(number == 3),
            "{number}"
        );
        pass(5).await;
    }
    assert_eq!(distances, [10, 20, 40, 80, 160, 320, 600, 600, 600, 600]);
}

#[tokio::test(start_paused = true)]
async fn what_is_reversed_now_and_then_is_no_fight() {
    let fights = Fights::default();
    for _ in 0..100 {
        assert_eq!(fights.written(&label("p", "ours")), None);
        pass(30).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_changes_its_own_mind_fights_nobody() {
    let fights = Fights::default();
    for number in 0..100 {
        let stored = json!({"active": (number + 1) % 2, "conditions": [{"lastTransitionTime": ""}]});
        assert_eq!(fights.written(&status_over(number % 2, "", stored)), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_field_that_is_reversed_is_fought_for_though_others_change_each_time() {
    let fights = Fights::default();
    let mut begins = Vec::new();
    for number in 0..6 {
        // The count goes on, and somebody takes the condition away.
        let stored = json!({"active": number});
        let fight = fights.written(&status_over(number + 1, "", stored));
        begins.push(fight.is_some_and(|fight| fight.begins));
        pass(5).await;
    }
    assert_eq!(begins, [false, false, false, true, false, false]);
}

#[tokio::test(start_paused = true)]
async fn a_fight_is_over_when_nobody_has_reversed_anything_for_twice_the_distance() {
    let fights = Fights::default();
    for _ in 0..4 {
        fights.written(&label("p", "ours"));
    }
    assert!(fights.not_before(&label("p", "ours")).is_some());
    // Other fields of the object, and other objects, are not concerned.
    assert_eq!(fights.not_before(&status(1, "")), None);
    assert_eq!(fights.not_before(&label("other", "ours")), None);
    pass(61).await;
    assert_eq!(fights.written(&label("p", "ours")), None);
    assert_eq!(fights.not_before(&label("p", "ours")), None);
}

#[tokio::test(start_paused = true)]
async fn what_is_over_is_forgotten() {
    let fights = Fights::default();
    for number in 0..SWEEP_EVERY {
        fights.written(&label(&number.to_string(), "ours"));
    }
    pass(61).await;
    for _ in 0..SWEEP_EVERY {
        fights.written(&label("p", "ours"));
    }
    assert_eq!(fights.state.lock().unwrap().bouts.len(), 1);
}

proptest! {
    /// Whoever reverses whatever when: a write that keeps to what it is told is one of at most so many, and is
    /// never held back for longer than the longest distance.
    #[test]
    fn however_somebody_reverses_our_writes_are_few(pauses in prop::collection::vec(0_u64..120, 1..400)) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let fights = Fights::default();
            let (start, write) = (Instant::now(), label("p", "ours"));
            let mut sent = Vec::new();
            for millis in &pauses {
                tokio::time::advance(Duration::from_millis(millis * 100)).await;
                if let Some(at) = fights.not_before(&write) {
                    assert!(at <= Instant::now() + LONGEST_DISTANCE);
                    tokio::time::advance(at - Instant::now()).await;
                }
                fights.written(&write);
                sent.push(start.elapsed());
            }
            // In any ten minutes: those before it is a fight, and six that are 10, 20, 40, ... 320 s apart.
            for (number, from) in sent.iter().enumerate() {
                let within = sent[number..].iter().take_while(|at| **at < *from + LONGEST_DISTANCE).count();
                assert!(within <= REVERSALS + 1 + 6 + 1, "{within}");
            }
        });
    }
}

fn merged(fields: Value) -> Write {
    let fields = crate::plan::Fields { uid: Uid("u".into()), resource_version: None, fields };
    let (part, patch) = (crate::plan::Part::Status, Patch::Strategic(fields));
    write("p", Action::Patch { part, patch })
}

fn applied(manager: &'static str, fields: Value) -> Write {
    let (part, uid) = (crate::plan::Part::Main, Uid("u".into()));
    write("p", Action::Apply { part, manager, uid, resource_version: None, fields, force: true })
}

#[tokio::test(start_paused = true)]
async fn a_merge_or_an_apply_that_is_undone_again_and_again_is_a_fight() {
    let condition = |status: &str, time: u32| json!({"status": {"conditions": [{"type": "gate", "status": status, "lastTransitionTime": time}]}});
    let partition = json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 3}}}});
    let makes: [&dyn Fn(u32) -> Write; 2] =
        [&|number| merged(condition("False", number)), &|_| applied("springtide-a", partition.clone())];
    for make in makes {
        let fights = Fights::default();
        let begun: Vec<_> = (0..5).map(|number| fights.written(&make(number)).is_some()).collect();
        assert_eq!(begun, [false, false, false, true, true]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_field_that_has_another_value_each_time_is_no_fight_whatever_stands_beside_it() {
    let fights = Fights::default();
    for number in 0..20 {
        let status = if number % 2 == 0 { "True" } else { "False" };
        let gate = json!({"status": {"conditions": [{"type": "gate", "status": status}]}});
        assert_eq!(fights.written(&merged(gate)), None, "on and off by ourselves");
        let labels = json!({"metadata": {"labels": {"hash": number.to_string()}}});
        assert_eq!(fights.written(&merged(labels)), None);
        let whole = json!({"spec": {"paused": true, "template": {"image": number}}});
        assert_eq!(fights.written(&applied("springtide-a", whole)), None, "most of it as before");
        let other = json!({"spec": {"partition": number}});
        assert_eq!(fights.written(&applied("springtide-a-partition", other)), None);
    }
}
