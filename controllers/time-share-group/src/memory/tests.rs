use super::*;
use crate::fixtures::{at, group, on_stage, overlay, pending, pod, serving, sized};
use crate::machine::{resize, resize_unpinned, traffic};
use crate::preflight::{basis, question};
use crate::projections::group::{GroupView, TIME_SHARE_GROUP};
use crate::sizes::Size;
use serde_json::json;
use springtide_plumbing::key::ResourceVersion;
use springtide_plumbing::plan::WriteClass;
use springtide_plumbing::workloads::amounts::Pair;
use springtide_plumbing::workloads::names::TIME_SHARE_TRAFFIC;
use springtide_plumbing::workloads::template::Template;

fn look(memory: &mut Memory, pod: &PodView, now: i64) -> Evidence {
    look_with(memory, pod, Glance::default(), now)
}

fn look_with(memory: &mut Memory, pod: &PodView, glance: Glance, now: i64) -> Evidence {
    memory.begin(None);
    let evidence = memory.look(pod, glance, at(now));
    memory.end();
    evidence
}

fn refusal(message: &str) -> Refusal {
    Refusal { code: 403, reason: "Forbidden".to_owned(), message: message.to_owned(), fields: Vec::new() }
}

fn cpu(cpu: i64) -> Size {
    let requests = Pair { cpu: Some(cpu), memory: None };
    Size::new([("app".into(), Amounts { requests, ..Amounts::default() })])
}

/// What a write came to, for a pod as it is now.
fn settle(
    memory: &mut Memory,
    pod: &Arc<PodView>,
    write: Write,
    outcome: Result<Done, WriteError>,
    now: i64,
) -> Settled {
    let results = [WriteResult { write, outcome }];
    memory.settle(&results, |key| (*key == pod.meta().key).then(|| Arc::clone(pod)), at(now))
}

#[test]
fn a_resize_is_open_from_when_it_was_first_seen_and_another_one_begins_anew() {
    let mut memory = Memory::default();
    let resized = |generation: u32| {
        let mut over = sized("4", "200m");
        overlay(
            &mut over,
            json!({"metadata": {"generation": generation}, "status": {"observedGeneration": generation}}),
        );
        pod("pay-1", "n1", over)
    };
    assert_eq!(look(&mut memory, &pod("pay-1", "n1", json!({})), 0).open_since, None);
    assert_eq!(look(&mut memory, &resized(2), 5).open_since, Some(at(5)));
    assert_eq!(look(&mut memory, &resized(2), 9).open_since, Some(at(5)));
    assert_eq!(look(&mut memory, &resized(3), 12).open_since, Some(at(12)));
    let in_force = look(&mut memory, &pod("pay-1", "n1", sized("4", "4")), 15);
    assert_eq!((in_force.open_since, in_force.warm_since), (None, Some(at(15))));
    let deferred = pod("pay-1", "n1", pending("Deferred", at(1)));
    assert_eq!(look(&mut memory, &deferred, 20).open_since, Some(at(20)), "whatever the amounts are");
}

#[test]
fn a_pod_is_warm_while_its_size_is_in_force_and_its_containers_are_ready() {
    let mut memory = Memory::default();
    let unready = pod(
        "pay-1",
        "n1",
        json!({"status": {"conditions": [{"type": "ContainersReady", "status": "False"}]}}),
    );
    let ready = pod("pay-1", "n1", json!({}));
    assert_eq!(look(&mut memory, &ready, 0).warm_since, Some(at(0)));
    assert_eq!(look(&mut memory, &ready, 5).warm_since, Some(at(0)));
    assert_eq!(look(&mut memory, &unready, 6).warm_since, None);
    assert_eq!(look(&mut memory, &ready, 7).warm_since, Some(at(7)));
    let silent = json!({"status": {"containerStatuses": [{"name": "app", "resources": null}]}});
    let silent = look(&mut memory, &pod("pay-1", "n1", silent), 8);
    assert_eq!((silent.open_since, silent.warm_since), (Some(at(8)), None), "its kubelet reports no amounts");
}

#[test]
fn a_proof_is_of_a_pod_that_is_turned_off_and_stays_when_nobody_looks_any_more() {
    let mut memory = Memory::default();
    let glance = |exposure| Glance { lever: Some(Lever::ServiceLabel), exposure, ..Glance::default() };
    let listed = || Some(Exposure { listed_by: ["pay".into()].into(), ..Exposure::default() });
    let off = pod("pay-1", "n1", sized("4", "4"));
    assert_eq!(look_with(&mut memory, &off, glance(listed()), 0).proved_since, None);
    assert_eq!(look_with(&mut memory, &off, glance(Some(Exposure::default())), 3).proved_since, Some(at(3)));
    assert_eq!(look_with(&mut memory, &off, glance(Some(Exposure::default())), 5).proved_since, Some(at(3)));
    let shrunk = pod("pay-1", "n1", json!({}));
    assert_eq!(look_with(&mut memory, &shrunk, glance(None), 9).proved_since, Some(at(3)));
    let on = pod("pay-1", "n1", serving("true"));
    assert_eq!(look_with(&mut memory, &on, glance(None), 10).proved_since, None);
    assert_eq!(look_with(&mut memory, &shrunk, glance(None), 11).proved_since, None);
}

#[test]
fn a_refusal_is_tried_again_later_and_later_until_it_goes_through() {
    let mut memory = Memory::default();
    let pay = pod("pay-1", "n1", json!({}));
    let grow = || resize(&pay, &cpu(4000), WriteClass::Spec);
    let refused = |memory: &mut Memory, now: i64| {
        look(memory, &pay, now);
        let outcome = Err(WriteError::Refused(refusal("exceeded quota: team")));
        assert_eq!(settle(memory, &pay, grow(), outcome, now), Settled::Handled);
        look(memory, &pay, now).refused.unwrap()
    };
    let first = refused(&mut memory, 0);
    assert_eq!((first.what, first.why), (Attempt::Resize(Level::Peak), RefusedBy::Quota));
    assert_eq!((&*first.message, first.at, first.retry_at), ("exceeded quota: team", at(0), at(60)));
    assert_eq!(refused(&mut memory, 60).retry_at, at(180));
    let last = (0..9).map(|time| refused(&mut memory, 1000 + time)).last().unwrap();
    assert_eq!(last.retry_at, after(last.at, RETRY_MAX));
    assert_eq!(settle(&mut memory, &pay, grow(), Ok(Done::default()), 2000), Settled::Default);
    assert_eq!(look(&mut memory, &pay, 2000).refused, None);
    assert_eq!(refused(&mut memory, 3000).retry_at, at(3060));
}

#[test]
fn what_is_refused_is_known_by_what_it_was_for() {
    let mut memory = Memory::default();
    let peak = pod("pay-1", "n1", on_stage());
    let no = || Err(WriteError::Refused(refusal("denied by policy")));
    look(&mut memory, &peak, 0);
    settle(&mut memory, &peak, resize(&peak, &cpu(200), WriteClass::Spec), no(), 1);
    assert_eq!(look(&mut memory, &peak, 1).refused.unwrap().what, Attempt::Resize(Level::Valley));
    for lever in [Lever::ServiceLabel, Lever::ReadinessGate] {
        let write = traffic(&peak, lever, false, 3, at(2));
        assert_eq!(settle(&mut memory, &peak, write, no(), 2), Settled::Handled);
        assert_eq!(look(&mut memory, &peak, 2).refused.unwrap().what, Attempt::Traffic);
    }
}

#[test]
fn what_is_no_matter_of_the_pod_is_left_to_the_loop() {
    let mut memory = Memory::default();
    let pay = pod("pay-1", "n1", json!({}));
    look(&mut memory, &pay, 0);
    let grow = || resize(&pay, &cpu(4000), WriteClass::Spec);
    let right =
        refusal("pods \"pay-1\" is forbidden: User \"x\" cannot patch resource \"pods/resize\" in API group");
    for error in [WriteError::Refused(right), WriteError::Unknown("cut".to_owned())] {
        assert_eq!(settle(&mut memory, &pay, grow(), Err(error), 1), Settled::Default);
        assert_eq!(look(&mut memory, &pay, 1).refused, None);
    }
    let conflict = WriteError::Conflict("another version".to_owned());
    assert_eq!(settle(&mut memory, &pay, grow(), Err(conflict), 1), Settled::Default);
}

#[test]
fn nudges_are_those_of_one_transition_and_go_on_from_what_the_status_says() {
    let mut memory = Memory::default();
    let pay = pod("pay-1", "n1", json!({}));
    let transition = |id: u32, nudges: u32| -> Transition {
        let start = at(0).to_string();
        serde_json::from_value(
            json!({"id": id, "cause": "Window", "startTime": start, "step": 1, "nudges": nudges}),
        )
        .unwrap()
    };
    let seen = |memory: &mut Memory, id: u32, told: u32| {
        memory.begin(Some(&transition(id, told)));
        let evidence = memory.look(&pay, Glance::default(), at(9));
        memory.end();
        (memory.nudges(), evidence.nudges)
    };
    assert_eq!(seen(&mut memory, 7, 4), (4, Nudges::default()));
    let again = || resize_unpinned(&pay, &cpu(4000), WriteClass::Spec);
    settle(&mut memory, &pay, again(), Ok(Done::default()), 5);
    settle(&mut memory, &pay, resize(&pay, &cpu(4000), WriteClass::Spec), Ok(Done::default()), 6);
    settle(&mut memory, &pay, again(), Err(WriteError::Skipped), 6);
    assert_eq!(seen(&mut memory, 7, 4), (5, Nudges { count: 1, last: Some(at(5)) }));
    assert_eq!(seen(&mut memory, 7, 5), (5, Nudges { count: 1, last: Some(at(5)) }), "it is told by now");
    assert_eq!(seen(&mut memory, 8, 0), (0, Nudges::default()));
}

#[test]
fn answers_are_those_to_the_sizes_that_are_asked_for_now() {
    let mut memory = Memory::default();
    let pay = pod("pay-1", "n1", json!({}));
    let group = group(json!({}));
    let template = |cpu: &str| {
        let container = json!({"name": "app", "resources": {"requests": {"cpu": cpu}}});
        Template::shared(&json!({"spec": {"containers": [container]}}))
    };
    let (old, new) = (template("100m"), template("200m"));
    let spec = &group.spec.members[0];
    let with = |template: &Template| Glance { basis: Some(basis(spec, template)), ..Glance::default() };
    look_with(&mut memory, &pay, with(&old), 0);
    let ask = |memory: &mut Memory, verdict: Verdict, now: i64| {
        let mut write = resize(&pay, &cpu(4000), WriteClass::Low);
        write.action = write.action.dry_run(question(&pay.meta().uid, Level::Peak));
        let done = Done { dry_run: Some(verdict), ..Done::default() };
        settle(memory, &pay, write, Ok(done), now)
    };
    assert_eq!(ask(&mut memory, Verdict::Refused(refusal("exceeded quota: team")), 3), Settled::Default);
    let asked = look_with(&mut memory, &pay, with(&old), 4).asked;
    let expected = Answer { at: at(3), refused: Some((RefusedBy::Quota, "exceeded quota: team".into())) };
    assert_eq!((asked.peak, asked.valley), (Some(expected), None));
    assert_eq!(look_with(&mut memory, &pay, with(&new), 5).asked.peak, None, "another template");
    ask(&mut memory, Verdict::Accepted(Arc::new(json!({}))), 6);
    let asked = look_with(&mut memory, &pay, with(&new), 7).asked;
    assert_eq!(asked.peak, Some(Answer { at: at(6), refused: None }));
}

#[test]
fn another_size_is_tried_at_once_though_one_was_refused() {
    let mut memory = Memory::default();
    let pay = pod("pay-1", "n1", json!({}));
    let first = group(json!({}));
    let larger = json!({"spec": {"members": [{"name": "pay", "containers": [{"name": "app", "peak": {"cpu": "5"}}]}]}});
    let larger = group(larger);
    let template = Template::shared(&json!({}));
    let of = |group: &GroupView| Glance {
        basis: Some(basis(&group.spec.members[0], &template)),
        ..Glance::default()
    };
    look_with(&mut memory, &pay, of(&first), 0);
    let no = Err(WriteError::Refused(refusal("denied by policy")));
    settle(&mut memory, &pay, resize(&pay, &cpu(4000), WriteClass::Spec), no, 1);
    assert!(look_with(&mut memory, &pay, of(&first), 2).refused.is_some());
    assert!(look_with(&mut memory, &pay, of(&larger), 3).refused.is_none());
}

#[test]
fn memory_that_a_kubelet_does_not_take_is_left_for_a_while() {
    let mut memory = Memory::default();
    let refused = pod(
        "pay-1",
        "n1",
        json!({
            "spec": {"containers": [{"name": "app", "resources": {"requests": {"memory": "512Mi"}}}]},
            "status": {"conditions": [{
                "type": "PodResizeInProgress", "status": "True", "reason": "Error", "message": "memory usage is above the limit",
            }]},
        }),
    );
    let kept = |evidence: Evidence| evidence.memory_kept_until;
    assert_eq!(kept(look(&mut memory, &refused, 0)), Some(after(at(0), MEMORY_RETRY)));
    let back = pod("pay-1", "n1", json!({}));
    assert_eq!(kept(look(&mut memory, &back, 5)), Some(after(at(0), MEMORY_RETRY)));
    assert_eq!(kept(look(&mut memory, &back, 601)), None);
}

#[test]
fn what_is_gone_is_forgotten() {
    let mut memory = Memory::default();
    let (first, second) = (pod("pay-1", "n1", json!({})), pod("pay-2", "n1", json!({})));
    look(&mut memory, &first, 0);
    look(&mut memory, &second, 5);
    assert_eq!(memory.pods.len(), 1);
    assert_eq!(look(&mut memory, &first, 9).warm_since, Some(at(9)));
}

#[test]
fn what_is_remembered_of_the_status_is_when_it_was_written() {
    let mut memory = Memory::default();
    let pay = pod("pay-1", "n1", json!({}));
    let write = |stored| {
        let action = Action::Status {
            uid: Uid("double11".into()),
            resource_version: ResourceVersion(1),
            status: json!({}),
            stored,
        };
        let key = ObjectKey::new("shop", "double11");
        Write { resource: TIME_SHARE_GROUP, key, class: WriteClass::Status, action }
    };
    let noop = Done { noop: true, ..Done::default() };
    settle(&mut memory, &pay, write(json!({})), Ok(noop), 1);
    assert_eq!(memory.status_written, None);
    settle(&mut memory, &pay, write(json!({"a": 1})), Ok(Done::default()), 2);
    assert_eq!(memory.status_written, Some(at(2)));
}

#[test]
fn a_mark_that_is_refused_is_no_refusal_of_traffic() {
    let mut memory = Memory::default();
    let pay = pod("pay-1", "n1", json!({}));
    look(&mut memory, &pay, 0);
    let condition = json!({"type": SKIPPED, "status": "False"});
    let fields = Fields {
        uid: pay.meta().uid.clone(),
        resource_version: None,
        fields: json!({"status": {"conditions": [condition]}}),
    };
    let action = Action::Patch { part: Part::Status, patch: Patch::Strategic(fields) };
    let write =
        Write { resource: Resource::POD, key: pay.meta().key.clone(), class: WriteClass::Protective, action };
    let no = Err(WriteError::Refused(refusal("denied by policy")));
    assert_eq!(settle(&mut memory, &pay, write, no, 1), Settled::Default);
    let gate = TIME_SHARE_TRAFFIC.turn_on(Lever::ReadinessGate, &pay.meta().uid, &pay.time_share, at(1));
    let write = Write {
        resource: Resource::POD,
        key: pay.meta().key.clone(),
        class: WriteClass::Protective,
        action: gate,
    };
    let no = Err(WriteError::Refused(refusal("denied by policy")));
    assert_eq!(settle(&mut memory, &pay, write, no, 1), Settled::Handled);
}
