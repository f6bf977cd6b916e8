use super::*;
use crate::key::{ObjectKey, Resource, Uid};
use crate::plan::{Action, Patch, WriteClass};
use jiff::Timestamp;
use proptest::prelude::*;
use std::collections::HashSet;

const CONTROLLER: &str = "batch-job";

fn breaker() -> Breaker {
    let breaker = Breaker::new(Limits::default(), Clock::from_fn(|| Timestamp::UNIX_EPOCH));
    breaker.read(None);
    breaker
}

fn delete(namespace: &str, number: usize) -> Write {
    Write {
        resource: Resource::POD,
        key: ObjectKey::new(namespace, format!("p{number}")),
        class: WriteClass::Spec,
        action: Action::Delete {
            uid: Uid(format!("{namespace}-{number}").into()),
            resource_version: None,
            grace_seconds: None,
        },
    }
}

fn admit(breaker: &Breaker, write: &Write, at: Instant, live: usize) -> Result<(), Withheld> {
    let case = Case { controller: CONTROLLER, write, uid: write.action.uid(), at };
    breaker.admit(&case, &|_| live)
}

/// How many of `count` deletes pass.
fn passed(breaker: &Breaker, namespace: &str, count: usize, at: Instant, live: usize) -> usize {
    (0..count).filter(|number| admit(breaker, &delete(namespace, *number), at, live).is_ok()).count()
}

fn record(data: &[(&str, &str)], reset: &str) -> ConfigMapView {
    record_at(5, data, reset)
}

fn record_at(version: u32, data: &[(&str, &str)], reset: &str) -> ConfigMapView {
    let data: BTreeMap<_, _> = data.iter().copied().collect();
    serde_json::from_value(serde_json::json!({
        "metadata": {
            "namespace": "ns", "name": CONFIG_MAP, "uid": "u", "resourceVersion": version.to_string(),
            "annotations": {RESET_ANNOTATION: reset},
        },
        "data": data,
    }))
    .unwrap()
}

#[test]
fn a_cap_is_a_number_or_a_share_of_what_lives() {
    for (live, passes) in [(0, 10), (200, 10), (300, 15), (1000, 50)] {
        let breaker = breaker();
        // The cluster is larger, so that its cap is not the one that is met.
        let live = |namespace: Option<&str>| if namespace.is_some() { live } else { 100_000 };
        let admitted = (0..500).filter(|number| {
            let write = delete("ns", *number);
            let case =
                Case { controller: CONTROLLER, write: &write, uid: write.action.uid(), at: Instant::now() };
            breaker.admit(&case, &live).is_ok()
        });
        assert_eq!(admitted.count(), passes);
        let open = breaker.open();
        assert_eq!(open.len(), 1, "one incident, however many writes it stops");
        assert_eq!(open[0].namespace.as_deref(), Some("ns"));
    }
}

#[test]
fn it_opens_for_one_controller_in_one_namespace() {
    let breaker = breaker();
    assert_eq!(passed(&breaker, "a", 100, Instant::now(), 0), 10);
    assert!(matches!(breaker.check(CONTROLLER, "a"), Err(Withheld::BreakerOpen { .. })));
    assert_eq!(breaker.check(CONTROLLER, "b"), Ok(()));
    assert_eq!(breaker.check("elastic-site", "a"), Ok(()));
}

#[test]
fn beyond_the_cap_of_the_cluster_it_opens_everywhere() {
    let breaker = breaker();
    let now = Instant::now();
    let admitted: usize = (0..100).map(|n| passed(&breaker, &format!("ns-{n}"), 3, now, 0)).sum();
    assert_eq!(admitted, 20);
    assert!(breaker.check(CONTROLLER, "never-seen").is_err());
    assert_eq!(breaker.check("elastic-site", "ns-1"), Ok(()));
}

#[test]
fn it_stays_open_when_the_window_is_over() {
    let breaker = breaker();
    let start = Instant::now();
    assert_eq!(passed(&breaker, "a", 11, start, 0), 10);
    assert!(admit(&breaker, &delete("a", 99), start + Duration::from_secs(10_000), 0).is_err());
}

#[test]
fn a_write_that_is_tried_again_counts_once() {
    let breaker = breaker();
    let now = Instant::now();
    for _ in 0..50 {
        assert_eq!(passed(&breaker, "a", 10, now, 0), 10);
    }
    assert_eq!(breaker.open(), []);
    // Where nobody says which object it is, each may be another one.
    let write = delete("b", 0);
    let blind =
        |_| breaker.admit(&Case { controller: CONTROLLER, write: &write, uid: None, at: now }, &|_| 0);
    assert_eq!((0..50).map(blind).filter(Result::is_ok).count(), 10);
}

#[test]
fn nothing_is_destroyed_before_the_record_is_read() {
    let breaker = Breaker::new(Limits::default(), Clock::system());
    assert_eq!(breaker.check(CONTROLLER, "a"), Err(Withheld::Unread(CONFIG_MAP)));
    breaker.read(None);
    assert_eq!(breaker.check(CONTROLLER, "a"), Ok(()));
}

#[test]
fn an_incident_outlives_the_process_and_is_closed_by_its_name_alone() {
    let before = breaker();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = Arc::clone(&heard);
    before.on_open(Arc::new(move |incident| hears.lock().unwrap().push(incident.id.clone())));
    passed(&before, "a", 11, Instant::now(), 0);
    let incident = before.open().remove(0);
    assert_eq!(*heard.lock().unwrap(), std::slice::from_ref(&incident.id));
    let text = incident.to_text();

    let after = Breaker::new(Limits::default(), Clock::system());
    after.read(Some(&record(&[(&incident.id, &text)], "")));
    assert_eq!(after.open(), std::slice::from_ref(&incident));
    assert!(after.check(CONTROLLER, "a").is_err() && after.check(CONTROLLER, "b").is_ok());
    // Neither another name nor the loss of the record closes it.
    after.read(Some(&record(&[(&incident.id, &text)], "batch-job-00000000")));
    after.read(Some(&record(&[], "")));
    after.read(None);
    assert!(after.check(CONTROLLER, "a").is_err());
    after.read(Some(&record(&[(&incident.id, &text)], &format!("other, {}", incident.id))));
    assert_eq!(after.open(), []);

    // In the process that opened it the count begins anew.
    before.read(Some(&record(&[(&incident.id, &text)], &incident.id)));
    assert_eq!(passed(&before, "a", 11, Instant::now(), 0), 10);
    assert_ne!(before.open()[0].id, incident.id);
}

#[test]
fn an_entry_that_cannot_be_read_stops_everything_until_it_is_closed() {
    let breaker = breaker();
    breaker.read(Some(&record(&[("broken", "{")], "")));
    assert!(breaker.check(CONTROLLER, "a").is_err() && breaker.check("elastic-site", "b").is_err());
    breaker.read(Some(&record(&[("broken", "{")], "broken")));
    assert_eq!(breaker.check(CONTROLLER, "a"), Ok(()));
}

mod keeper {
    use super::*;
    use crate::controller::Reconciler;
    use crate::key::ResourceVersion;
    use crate::plan::Plan;
    use crate::projection::Projection;
    use crate::queue::WorkQueue;
    use crate::store::Store;
    use futures::FutureExt;
    use tokio::sync::watch;

    fn plan(keeper: &BreakerKeeper, key: &ObjectKey) -> Plan {
        keeper.plan(&keeper.observe(key, None, Timestamp::UNIX_EPOCH).unwrap(), Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn the_record_follows_the_breaker() {
        let breaker = Arc::new(Breaker::new(Limits::default(), Clock::system()));
        let (store, mut writer) = Store::new(&[]);
        let keeper = BreakerKeeper::new(breaker.clone(), store, "ns");
        let queue = WorkQueue::new(1);
        let key = ObjectKey::new("ns", CONFIG_MAP);
        writer.replace(BTreeMap::new(), ResourceVersion(1));
        keeper.wire(&queue, watch::channel(true).1).now_or_never().expect("the store is listed");
        assert!(breaker.check(CONTROLLER, "a").is_ok(), "read");
        assert_eq!(plan(&keeper, &key).writes(), 0, "nothing is made without an incident");
        queue.done(&queue.next().now_or_never().flatten().unwrap().key, crate::queue::Next::Success);

        passed(&breaker, "a", 11, Instant::now(), 0);
        assert!(!queue.is_empty(), "woken by the incident");
        let incident = breaker.open().remove(0);
        let mut planned = plan(&keeper, &key);
        assert_eq!(planned.events.len(), 1);
        assert!(
            planned.events[0].note.contains(&incident.id) && planned.events[0].note.contains("more than 10")
        );
        let made = planned.stages.remove(0).remove(0).into_writes().remove(0);
        assert_eq!(made.class, WriteClass::Protective);
        let Action::Create { manifest } = made.action else { panic!("{made:?}") };
        let made: ConfigMapView = serde_json::from_value(manifest).unwrap();
        assert_eq!(Incident::parse(&incident.id, &made.data[&incident.id]), incident);

        writer.apply(record(&[(&incident.id, &incident.to_text()), ("foreign", "x")], ""));
        assert_eq!(plan(&keeper, &key).writes(), 0);
        writer.apply(record_at(6, &[(&incident.id, &incident.to_text()), ("foreign", "x")], &incident.id));
        let mut planned = plan(&keeper, &key);
        assert_eq!(planned.events, [], "told once");
        let cleared = planned.stages.remove(0).remove(0).into_writes().remove(0);
        let Action::Patch { patch: Patch::Json { operations }, .. } = cleared.action else {
            panic!("{cleared:?}")
        };
        let operations = operations.as_array().unwrap();
        assert_eq!(operations[1]["value"], "6", "of this version only");
        assert_eq!(operations[2]["path"], format!("/data/{}", incident.id));
        assert_eq!(operations.len(), 3, "the foreign entry stays: {operations:?}");
        assert!(breaker.check(CONTROLLER, "b").is_err(), "and stops everything");
    }

    #[test]
    fn what_was_closed_while_a_standby_did_not_look_is_closed_there_too() {
        for leads in [false, true] {
            let breaker = Arc::new(Breaker::new(Limits::default(), Clock::system()));
            let (store, mut writer) = Store::new(&[]);
            let keeper = BreakerKeeper::new(breaker.clone(), store, "ns");
            let first = r#"{"namespace": "a", "opened": "2026-01-01T00:00:00Z", "message": "x"}"#;
            let second = r#"{"namespace": "b", "opened": "2026-01-01T00:00:00Z", "message": "x"}"#;
            let list = record_at(5, &[("c-1", first), ("c-2", second)], "");
            writer.replace(BTreeMap::from([(list.meta().key.clone(), Arc::new(list))]), ResourceVersion(5));
            let (_leads, leading) = watch::channel(leads);
            keeper.wire(&WorkQueue::new(1), leading).now_or_never().expect("the store is listed");
            assert_eq!(breaker.open().len(), 2);
            // The first one was closed by an annotation that names the second one by now.
            writer.apply(record_at(9, &[("c-2", second)], ""));
            let open: Vec<_> = breaker.open().into_iter().map(|incident| incident.id).collect();
            if leads {
                assert_eq!(open, ["c-1", "c-2"], "an entry that somebody took away closes nothing");
            } else {
                assert_eq!(open, ["c-2"]);
            }
            writer.delete(record_at(10, &[], ""));
            assert_eq!(breaker.open().len(), open.len(), "nor does the end of the record");
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Delete { namespace: usize, object: usize },
    Wait(u64),
    Reset,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => (0..4_usize, 0..40_usize).prop_map(|(namespace, object)| Step::Delete { namespace, object }),
        3 => (0..200_u64).prop_map(Step::Wait),
        1 => Just(Step::Reset),
    ]
}

proptest! {
    /// Whatever is asked in whatever order: in no window does more pass than the caps, and what is open
    /// stays so until it is reset.
    #[test]
    fn no_window_ever_passes_more_than_its_caps(steps in prop::collection::vec(step(), 1..400)) {
        let breaker = breaker();
        let mut now = Instant::now();
        let mut passes: Vec<(Instant, usize, usize)> = Vec::new();
        for step in steps {
            match step {
                Step::Wait(seconds) => now += Duration::from_secs(seconds),
                Step::Reset => {
                    let ids: Vec<_> = breaker.open().into_iter().map(|incident| incident.id).collect();
                    if !ids.is_empty() {
                        breaker.read(Some(&record(&[], &ids.join(","))));
                        passes.clear();
                        prop_assert_eq!(breaker.open(), vec![]);
                    }
                }
                Step::Delete { namespace, object } => {
                    let name = format!("ns-{namespace}");
                    let was_open = breaker.check(CONTROLLER, &name).is_err();
                    let passed = admit(&breaker, &delete(&name, object), now, 0).is_ok();
                    prop_assert!(!(was_open && passed));
                    if passed {
                        passes.push((now, namespace, object));
                    }
                    let lately = passes.iter().filter(|(at, ..)| now - *at < Duration::from_secs(300));
                    let objects: HashSet<_> = lately.map(|(_, namespace, object)| (namespace, object)).collect();
                    prop_assert!(objects.len() <= 20, "{}", objects.len());
                    let here = objects.iter().filter(|(in_namespace, _)| **in_namespace == namespace);
                    prop_assert!(here.count() <= 10);
                    prop_assert!(passed || breaker.check(CONTROLLER, &name).is_err(), "refused, yet not open");
                }
            }
        }
    }
}
