use super::series::{MAX_WINDOWS, WINDOW};
use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap};

fn note(object: usize, reason: &'static str, text: &str) -> EventNote {
    EventNote {
        resource: Resource::POD,
        key: ObjectKey::new("ns", format!("p-{object}")),
        uid: Uid(format!("u-{object}").into()),
        severity: Severity::Warning,
        reason,
        action: "Testing",
        note: text.to_owned(),
    }
}

/// Time that only the test moves: both clocks together.
#[derive(Clone, Copy)]
struct Time {
    start: Instant,
    passed: Duration,
}

impl Time {
    fn new() -> Self {
        Self { start: Instant::now(), passed: Duration::ZERO }
    }

    fn instant(self) -> Instant {
        self.start + self.passed
    }

    fn wall(self) -> Timestamp {
        Timestamp::from_second(1_000_000).unwrap() + self.passed
    }
}

fn happened(series: &mut Series, note: EventNote, time: Time) -> Vec<Publication> {
    let mut due = series.ended(time.instant(), time.wall());
    due.extend(series.happened(note, time.instant(), time.wall()));
    due
}

#[test]
fn what_happens_again_is_counted_and_told_when_the_window_ends() {
    let (mut series, mut time) = (Series::default(), Time::new());
    let first = happened(&mut series, note(1, "A", "text"), time);
    assert!(matches!(&first[..], [Publication::Create { repeated: None, .. }]), "{first:?}");
    for _ in 0..4 {
        time.passed += Duration::from_secs(10);
        assert_eq!(happened(&mut series, note(1, "A", "text"), time), []);
    }
    let last = time.wall();
    assert_eq!(series.next_end(), Some(time.start + WINDOW));
    time.passed = WINDOW;
    let ended = series.ended(time.instant(), time.wall());
    let [Publication::Repeat { name, repeated, .. }] = &ended[..] else { panic!("{ended:?}") };
    assert_eq!(*repeated, (5, last));
    let [Publication::Create { name: created, .. }] = &first[..] else { panic!("{first:?}") };
    assert_eq!(name, created);
    assert_eq!(series.next_end(), None, "nothing is kept of what is over");
}

#[test]
fn another_note_waits_for_the_next_window_and_only_the_last_one_is_told() {
    let (mut series, mut time) = (Series::default(), Time::new());
    assert_eq!(happened(&mut series, note(1, "A", "one"), time).len(), 1);
    for text in ["two", "three"] {
        time.passed += Duration::from_secs(1);
        assert_eq!(happened(&mut series, note(1, "A", text), time), []);
    }
    time.passed = WINDOW;
    let ended = series.ended(time.instant(), time.wall());
    let [Publication::Create { note: told, repeated, .. }] = &ended[..] else { panic!("{ended:?}") };
    assert_eq!((told.note.as_str(), repeated.map(|(count, _)| count)), ("three", Some(2)));
    assert_eq!(series.next_end(), Some(time.instant() + WINDOW), "it has a window of its own");
    // Another reason, or another object, waits for neither.
    assert_eq!(happened(&mut series, note(1, "B", "one"), time).len(), 1);
    assert_eq!(happened(&mut series, note(2, "A", "one"), time).len(), 1);
}

#[test]
fn a_new_process_tells_the_same_under_the_same_name() {
    let time = Time::new();
    let name = |time: Time| match &happened(&mut Series::default(), note(1, "A", "text"), time)[..] {
        [Publication::Create { name, .. }] => name.clone(),
        other => panic!("{other:?}"),
    };
    let soon = Time { passed: Duration::from_secs(60), ..time };
    let later = Time { passed: WINDOW, ..time };
    assert_eq!(name(time), name(soon));
    assert_ne!(name(time), name(later));
    assert!(name(time).starts_with("p-1."));
}

#[test]
fn of_too_many_windows_the_one_goes_that_was_used_longest_ago() {
    let (mut series, time) = (Series::default(), Time::new());
    for object in 0..MAX_WINDOWS {
        assert_eq!(happened(&mut series, note(object, "A", "text"), time).len(), 1);
    }
    assert_eq!(happened(&mut series, note(0, "A", "text"), time), [], "used again");
    assert_eq!(happened(&mut series, note(MAX_WINDOWS, "A", "text"), time).len(), 1);
    assert_eq!(happened(&mut series, note(0, "A", "text"), time), []);
    assert_eq!(happened(&mut series, note(1, "A", "text"), time).len(), 1, "this one had gone");
    assert!(series.is_consistent());
}

#[test]
fn an_event_is_cut_at_its_bounds_and_complete() {
    let metrics = Arc::new(Metrics::new(&["c"]));
    let sink = EventSink::new("c", &"i".repeat(200), metrics);
    let time = Timestamp::from_second(1_000_000).unwrap();
    sink.publish(note(1, "A", &"ä".repeat(MAX_NOTE_BYTES)), time);
    let publication = sink.with(|state| state.queue.pop_front()).unwrap();
    let write = sink.write(&publication);
    let Action::Create { manifest } = &write.action else { panic!("{write:?}") };
    assert_eq!(manifest["note"].as_str().unwrap().len(), MAX_NOTE_BYTES);
    assert_eq!(manifest["reportingInstance"].as_str().unwrap().len(), MAX_INSTANCE_BYTES);
    assert_eq!(manifest["eventTime"], "1970-01-12T13:46:40.000000Z");
    assert_eq!(manifest["metadata"]["name"], *write.key.name);
    assert_eq!(manifest["regarding"]["uid"], "u-1");
    assert_eq!(manifest["series"], Value::Null);
}

#[test]
fn of_a_full_queue_the_oldest_are_dropped_and_counted() {
    let metrics = Arc::new(Metrics::new(&["c"]));
    let sink = EventSink::new("c", "i", metrics.clone());
    for object in 0..MAX_QUEUED + 3 {
        sink.publish(note(object, "A", "text"), Timestamp::UNIX_EPOCH);
    }
    let first = sink.with(|state| (state.queue.len(), state.queue.pop_front()));
    let (length, Some(Publication::Create { note, .. })) = first else { panic!("{first:?}") };
    assert_eq!((length, &*note.key.name), (MAX_QUEUED, "p-3"));
    let text = metrics.encode().unwrap();
    assert!(text.contains(r#"springtide_events_dropped_total{controller="c"} 3"#), "{text}");
}

proptest! {
    /// Whatever happens when: of one key there is at most one create and one patch in ten minutes, names are
    /// never used twice, and once all windows are over everything has been told: each occurrence is counted.
    #[test]
    fn a_key_costs_two_writes_in_ten_minutes_and_nothing_is_forgotten(
        steps in prop::collection::vec((0_u64..400, 0_usize..3, 0_usize..2, 0_usize..3), 1..200),
    ) {
        let (mut series, mut time) = (Series::default(), Time::new());
        let mut creates: BTreeMap<String, Vec<Duration>> = BTreeMap::new();
        let mut patches = creates.clone();
        let mut created: HashMap<Arc<str>, (String, u32)> = HashMap::new();
        let mut take = |due: Vec<Publication>, at: Duration| {
            for publication in due {
                match publication {
                    Publication::Create { name, note, repeated, .. } => {
                        let series = format!("{} {}", note.uid, note.reason);
                        creates.entry(series.clone()).or_default().push(at);
                        let count = repeated.map_or(1, |(count, _)| count);
                        assert_eq!(created.insert(name, (series, count)), None, "a name is used twice");
                    }
                    Publication::Repeat { name, repeated, .. } => {
                        let (series, count) = created.get_mut(&name).expect("it was created");
                        patches.entry(series.clone()).or_default().push(at);
                        assert!(repeated.0 >= *count, "a count never falls");
                        *count = repeated.0;
                    }
                }
            }
        };
        for (seconds, object, reason, text) in &steps {
            time.passed += Duration::from_secs(*seconds);
            let note = note(*object, ["A", "B"][*reason], ["x", "y", "z"][*text]);
            take(happened(&mut series, note, time), time.passed);
            prop_assert!(series.is_consistent());
        }
        for _ in 0..2 {
            time.passed += WINDOW;
            take(series.ended(time.instant(), time.wall()), time.passed);
        }
        prop_assert_eq!(series.next_end(), None);
        prop_assert_eq!(created.values().map(|(_, count)| count).sum::<u32>() as usize, steps.len());
        for times in creates.values().chain(patches.values()) {
            for pair in times.windows(2) {
                prop_assert!(pair[1] - pair[0] >= WINDOW, "{:?}", times);
            }
        }
    }
}
