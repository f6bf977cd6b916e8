use super::*;
use crate::first_seen::FirstSeen;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::Arc;

const APP: &str = "app";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn seconds(seconds: i64) -> SignedDuration {
    SignedDuration::from_secs(seconds)
}

/// Generation 3 before the patch, which is made at 100 s.
fn record(container_id: &str, image_id: &str) -> Record {
    let base = [(Arc::from(APP), Base::of(container_id, image_id))].into();
    Record {
        run: "7c9f21ab04de".into(),
        at: at(100),
        generation: 3,
        base,
        restarted: None,
        renamed: BTreeSet::new(),
        added: BTreeSet::new(),
    }
}

fn running<'a>(
    observed_generation: i64,
    container_id: &'a str,
    image_id: &'a str,
    since: i64,
) -> ContainerNow<'a> {
    ContainerNow { observed_generation, container_id, image_id, running_since: Some(at(since)) }
}

fn not_yet(reason: NotYet, wake: Option<i64>) -> DoneVerdict {
    DoneVerdict::NotYet { reason, wake: wake.map(at) }
}

#[test]
fn another_image_in_another_container_is_done_at_once() {
    let record = record("containerd://a", "reg/app@sha256:1");
    let judge = |status: ContainerNow<'_>| record.judge(APP, &status, seconds(30), None, at(110));
    assert_eq!(judge(running(4, "containerd://b", "reg/app@sha256:2", 108)), DoneVerdict::Done);
    // The status is written before the container is stopped.
    let old = running(4, "containerd://a", "reg/app@sha256:1", 50);
    assert_eq!(judge(old), not_yet(NotYet::OldContainer, None));
    // The container can be another one before the patch is observed: it crashed.
    let crashed = running(3, "containerd://b", "reg/app@sha256:2", 108);
    assert_eq!(judge(crashed), not_yet(NotYet::NotObserved, None));
    let waiting = ContainerNow { running_since: None, ..running(4, "containerd://b", "", 0) };
    assert_eq!(judge(waiting), not_yet(NotYet::NotRunning, None));
    assert_eq!(
        record.judge("sidecar", &ContainerNow::default(), seconds(30), None, at(110)),
        DoneVerdict::Done
    );
}

#[test]
fn an_equal_image_is_done_when_the_container_has_outlived_a_stop() {
    let record = record("containerd://a", "reg/app@sha256:1");
    let status = running(4, "containerd://b", "mirror/app@sha256:1", 108);
    let judge = |seen, now| record.judge(APP, &status, seconds(30), seen, at(now));
    let seen = |second, saw_begin| Some(Sighting { since: at(second), saw_begin });
    assert_eq!(judge(None, 110), not_yet(NotYet::SameImage, Some(145)));
    assert_eq!(judge(seen(110, true), 144), not_yet(NotYet::SameImage, Some(145)));
    assert_eq!(judge(seen(110, true), 145), DoneVerdict::Done);
    // A new process has not seen it begin: the start of the container says how old it is.
    assert_eq!(judge(seen(190, false), 197), not_yet(NotYet::SameImage, Some(198)));
    assert_eq!(judge(seen(190, false), 198), DoneVerdict::Done);
    // One that has seen it begin waits from then on.
    assert_eq!(judge(seen(190, true), 198), not_yet(NotYet::SameImage, Some(225)));
}

#[test]
fn a_container_from_before_the_patch_that_is_seen_late_does_not_count_by_its_age() {
    let record = record("containerd://a", "reg/app@sha256:1");
    // The node was cut off: its container crashed and started again at 60 s, the patch came at 100 s, both are seen now.
    let status = running(4, "containerd://b", "reg/app@sha256:1", 60);
    let seen = Some(Sighting { since: at(400), saw_begin: false });
    let verdict = record.judge(APP, &status, seconds(30), seen, at(400));
    assert_eq!(verdict, not_yet(NotYet::SameImage, Some(435)));
}

#[test]
fn where_no_image_was_known_before_any_image_may_be_the_old_one() {
    let record = record("", "");
    let status = running(4, "containerd://b", "reg/app@sha256:1", 108);
    assert_eq!(record.judge(APP, &status, seconds(0), None, at(110)), not_yet(NotYet::SameImage, Some(115)));
}

#[test]
fn times_beyond_all_calendars_neither_panic_nor_end() {
    let record = Record { at: Timestamp::MIN, ..record("a", "i") };
    let status = ContainerNow { running_since: Some(Timestamp::MAX), ..running(4, "b", "i", 0) };
    let verdict = record.judge(APP, &status, SignedDuration::MAX, None, at(110));
    assert_eq!(verdict, DoneVerdict::NotYet { reason: NotYet::SameImage, wake: Some(Timestamp::MAX) });
}

#[test]
fn a_record_of_twenty_containers_of_the_longest_names_fits_and_is_read_back() {
    let base: std::collections::BTreeMap<Arc<str>, Base> = (0..20)
        .map(|number| {
            let id = format!("containerd://{}", "f".repeat(64));
            (Arc::from(format!("{number:0>63}")), Base::of(&id, &format!("registry/a@sha256:{id}")))
        })
        .collect();
    let restarted = Record { base, ..record("", "") };
    // The same restarted for its own sake, each under another name of its image, with as many keys as a patch may add.
    let record = Record {
        restarted: Some(at(90)),
        renamed: restarted.base.keys().cloned().collect(),
        added: (0..32).map(|number| mark(&format!("key-{number}"))).collect(),
        ..restarted
    };
    let text = record.encode().unwrap();
    assert_eq!(Record::decode(&text), Some(record.clone()));
    let many = (0..200).map(|number| (Arc::from(format!("{number:0>63}")), Base::of("a", "b"))).collect();
    assert_eq!(Record { base: many, ..record }.encode(), None);
}

#[test]
fn restarts_are_counted_from_the_patch_on_and_its_own_is_none() {
    let base = [(Arc::from(APP), Base::of("a", "b").restarted(3))].into();
    let record = Record { base, ..record("", "") };
    let read = Record::decode(&record.encode().unwrap()).unwrap();
    assert_eq!([3, 4, 5, 0].map(|now| read.further_restarts(APP, now)), [0, 0, 1, 0]);
    assert_eq!(read.further_restarts("sidecar", 9), 0);
}

#[test]
fn the_container_from_before_the_patch_is_known() {
    let read = record("containerd://a", "reg/app@sha256:1");
    assert!(read.is_base(APP, "containerd://a"));
    assert!(!read.is_base(APP, "containerd://b") && !read.is_base("sidecar", "containerd://a"));
    assert!(!record("", "").is_base(APP, ""), "none is no container");
}

#[test]
fn a_record_that_says_nothing_of_restarts_is_as_short_as_before_they_were_known() {
    let text = record("a", "b").encode().unwrap();
    assert!(!text.contains("restarted") && !text.contains("renamed") && !text.contains("added"), "{text}");
    assert_ne!(mark("label app"), mark("annotation app"));
}

#[test]
fn what_is_damaged_or_foreign_is_no_record() {
    let good = record("a", "b").encode().unwrap();
    for text in ["", "{}", "null", "7", &good[1..], &good.replace("\"g\":3", "\"g\":-3"), &"[".repeat(10_000)]
    {
        assert_eq!(Record::decode(text), None, "{text}");
    }
    for (from, to) in [("7c9f21ab04de", ""), ("\"run\"", "\"ruin\""), ("{", "{\"more\":1,")] {
        assert_eq!(Record::decode(&good.replacen(from, to, 1)), None, "{from}");
    }
}

/// A kubelet with one container, and what it has written of it. Times are seconds.
struct Kubelet {
    /// Number of the container that exists, and since when it runs; nothing between two.
    container: Option<(u32, i64)>,
    containers: u32,
    /// The image that it runs.
    has_new_image: bool,
    observed: i64,
    /// When the container that is being stopped is gone.
    stops_at: Option<i64>,
}

impl Kubelet {
    fn start(&mut self, now: i64, new_image: bool) {
        self.containers += 1;
        self.container = Some((self.containers, now));
        self.has_new_image = new_image;
    }

    fn status(&self, equal_images: bool) -> (i64, String, String, Option<Timestamp>) {
        let image = if self.has_new_image && !equal_images { "reg/app@sha256:2" } else { "reg/app@sha256:1" };
        match self.container {
            Some((number, since)) => (self.observed, format!("c{number}"), image.to_owned(), Some(at(since))),
            None => (self.observed, format!("c{}", self.containers), image.to_owned(), None),
        }
    }
}

/// What happens next, after so many seconds.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// The container ends by itself, and is started with what the kubelet knows.
    Crash,
    /// The kubelet sees the patch: it writes its status first, then stops the container.
    SeePatch,
    /// Somebody looks at the status. One that nobody looks at is a write that was missed.
    Look,
    /// Another process leads, which has seen nothing.
    NewLeader,
}

fn event() -> impl Strategy<Value = (i64, Event)> {
    let event = prop_oneof![
        Just(Event::Crash),
        Just(Event::SeePatch),
        Just(Event::Look),
        Just(Event::Look),
        Just(Event::NewLeader)
    ];
    (1..25i64, event)
}

/// Lets a kubelet live, and says what ran when the container was taken for the new one although it was not.
fn mistake(
    events: &[(i64, Event)],
    (grace, stop_takes, equal_images): (i64, i64, bool),
    latest_sight: i64,
) -> Result<(), String> {
    let record = record("c1", "reg/app@sha256:1");
    let mut kubelet =
        Kubelet { container: None, containers: 0, has_new_image: false, observed: 3, stops_at: None };
    kubelet.start(0, false);
    let mut seen: FirstSeen<&str, String> = FirstSeen::default();
    let look = |seen: &mut FirstSeen<&str, String>, kubelet: &Kubelet, now: i64| {
        let (observed_generation, id, image, running_since) = kubelet.status(equal_images);
        let status = ContainerNow { observed_generation, container_id: &id, image_id: &image, running_since };
        let candidate = record.candidate(APP, &status).map(str::to_owned);
        let sighting = seen.look(APP, candidate, at(now));
        record.judge(APP, &status, seconds(grace), sighting, at(now))
    };
    let see = |kubelet: &mut Kubelet, now: i64| {
        kubelet.observed = 4;
        kubelet.stops_at = Some(now + stop_takes);
    };
    let mut now = 100;
    // Who has patched it looks at it before anything else.
    look(&mut seen, &kubelet, now);
    for (step, event) in events {
        let until = now + step;
        if kubelet.observed == 3 && until > latest_sight {
            see(&mut kubelet, latest_sight.max(now));
        }
        if let Some(end) = kubelet.stops_at.filter(|end| *end <= until) {
            kubelet.stops_at = None;
            kubelet.start(end, true);
        }
        now = until;
        match event {
            Event::Crash if kubelet.stops_at.is_none() => kubelet.start(now, kubelet.observed == 4),
            Event::SeePatch if kubelet.observed == 3 => see(&mut kubelet, now),
            Event::Crash | Event::SeePatch => {}
            Event::NewLeader => seen = FirstSeen::default(),
            Event::Look => {
                let verdict = look(&mut seen, &kubelet, now);
                if verdict == DoneVerdict::Done && !kubelet.has_new_image {
                    return Err(format!("container {:?} counts at {now}", kubelet.container));
                }
            }
        }
    }
    if kubelet.observed == 3 {
        see(&mut kubelet, now);
    }
    if let Some(end) = kubelet.stops_at {
        now = now.max(end);
        kubelet.start(now, true);
    }
    match look(&mut seen, &kubelet, now) {
        DoneVerdict::Done => Ok(()),
        DoneVerdict::NotYet { wake: Some(wake), .. } => match look(&mut seen, &kubelet, wake.as_second()) {
            DoneVerdict::Done => Ok(()),
            later @ DoneVerdict::NotYet { .. } => Err(format!("not done at {wake}: {later:?}")),
        },
        never @ DoneVerdict::NotYet { .. } => Err(format!("never done: {never:?}")),
    }
}

proptest! {
    /// A kubelet sees the patch as late as it likes, after any crashes, and takes up to the grace period and a moment to
    /// stop what runs; any of its status writes may be missed. No old container is ever taken for the new one, and the
    /// new one is known in the end.
    #[test]
    fn who_goes_on_looking_takes_no_old_container_for_the_new_one(
        events in proptest::collection::vec(event(), 1..60),
        grace in 0..40i64,
        stop_takes in 0..45i64,
        equal_images in any::<bool>(),
    ) {
        let events: Vec<_> =
            events.into_iter().filter(|(_, event)| !matches!(event, Event::NewLeader)).collect();
        let kind = (grace, stop_takes.min(grace + 4), equal_images);
        prop_assert_eq!(mistake(&events, kind, i64::MAX), Ok(()));
    }

    /// The same when processes follow each other, of which none knows what the one before has seen, as long as kubelets
    /// see patches within the better part of a minute.
    #[test]
    fn a_new_process_takes_no_old_container_for_the_new_one(
        events in proptest::collection::vec(event(), 1..60),
        grace in 0..40i64,
        stop_takes in 0..45i64,
        equal_images in any::<bool>(),
    ) {
        let kind = (grace, stop_takes.min(grace + 4), equal_images);
        prop_assert_eq!(mistake(&events, kind, 155), Ok(()));
    }
}
