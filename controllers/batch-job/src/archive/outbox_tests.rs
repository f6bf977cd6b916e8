use super::*;
use proptest::prelude::*;
use serde_json::json;

fn job(number: u32) -> Arc<JobView> {
    let at = jiff::Timestamp::from_second(i64::from(number)).unwrap().to_string();
    let object = json!({
        "metadata": {"namespace": "ns", "name": format!("j{number}"), "uid": format!("u{number:05}"), "creationTimestamp": at},
        "spec": {"template": {"spec": {"containers": []}}},
        "status": {"completionTime": at, "conditions": [{
            "type": "Complete", "status": "True", "reason": "Completed", "lastTransitionTime": at,
        }]},
    });
    Arc::new(serde_json::from_value(object).unwrap())
}

fn queue() -> ObjectKey {
    ObjectKey::new("ns", "q")
}

fn sink() -> Sink {
    Sink::Http("https://sink.example.com".into())
}

/// An offer to a queue that keeps two.
fn offer(number: u32, excess: Excess) -> Offer {
    Offer { job: job(number), queue: queue(), sink: sink(), history_limit: 2, excess }
}

fn unavailable() -> Failure {
    Failure { problem: "connection refused".to_owned(), ..Failure::default() }
}

fn names(keys: &[ObjectKey]) -> Vec<&str> {
    keys.iter().map(|key| &*key.name).collect()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_line_that_was_taken_lets_its_job_go_and_goes_out_once() {
    let (mut outbox, now) = (Outbox::new(1), Instant::now());
    assert_eq!(outbox.offer(offer(1, Excess::None), now).0, Standing::Waiting);
    let parcel = outbox.next(now).unwrap();
    assert_eq!(&*parcel.job.meta().key.name, "j1");
    // The job is looked at again meanwhile.
    assert_eq!(outbox.offer(offer(1, Excess::History), now).0, Standing::Waiting);
    assert!(outbox.next(now).is_none(), "it is on its way");
    assert_eq!(names(&outbox.taken(&parcel).jobs), ["j1"]);
    assert_eq!(outbox.offer(offer(1, Excess::History), now).0, Standing::Clear);
    assert!(outbox.next(now).is_none() && outbox.waiting() == 0);
    outbox.forget(&job(1).meta().uid);
    assert!(outbox.is_empty() && outbox.ways.is_empty() && outbox.crowds.is_empty());
}

#[test]
fn the_oldest_goes_out_first_and_so_many_at_once() {
    let (mut outbox, now) = (Outbox::new(1), Instant::now());
    for number in [5, 3, 1, 4, 2, 6] {
        outbox.offer(offer(number, Excess::None), now);
    }
    let out: Vec<Parcel> = std::iter::from_fn(|| outbox.next(now)).collect();
    let order: Vec<&str> = out.iter().map(|parcel| &*parcel.job.meta().key.name).collect();
    assert_eq!(order, ["j1", "j2", "j3", "j4"]);
    let _ = outbox.taken(&out[2]);
    assert_eq!(&*outbox.next(now).unwrap().job.meta().key.name, "j5");
}

#[test]
fn a_sink_that_fails_is_left_alone_for_longer_and_longer_and_then_gets_one_line() {
    let (mut outbox, mut now) = (Outbox::new(1), Instant::now());
    for number in 1..10 {
        outbox.offer(offer(number, Excess::None), now);
    }
    let mut pauses = Vec::new();
    for _ in 0..10 {
        let parcel = outbox.next(now).unwrap();
        let others: Vec<Parcel> = std::iter::from_fn(|| outbox.next(now)).collect();
        assert!(pauses.is_empty() || others.is_empty(), "one at a time");
        for parcel in others.into_iter().chain([parcel]) {
            let _ = outbox.failed(&parcel, unavailable(), now);
        }
        assert!(outbox.next(now).is_none());
        let until = outbox.wake(now).unwrap();
        pauses.push(until - now);
        now = until;
    }
    assert!(pauses[0] >= seconds(1) / 2 && pauses[9] >= PAUSE_MAX / 2, "{pauses:?}");
    assert!(pauses.iter().all(|pause| *pause <= PAUSE_MAX), "{pauses:?}");
    let parcel = outbox.next(now).unwrap();
    let _ = outbox.taken(&parcel);
    assert_eq!(std::iter::from_fn(|| outbox.next(now)).count(), 4, "it is well again");
}

#[test]
fn pauses_differ_between_processes() {
    let pause = |seed| {
        let (mut outbox, now) = (Outbox::new(seed), Instant::now());
        outbox.offer(offer(1, Excess::None), now);
        let parcel = outbox.next(now).unwrap();
        let _ = outbox.failed(&parcel, unavailable(), now);
        outbox.wake(now).unwrap() - now
    };
    let pauses: BTreeSet<Duration> = (0..20).map(pause).collect();
    assert!(pauses.len() > 10, "{pauses:?}");
}

#[test]
fn a_sink_says_how_long_it_wants_silence_within_bounds() {
    for (asked, least, most) in [(120, 120, 120), (86_400, 300, 300), (0, 0, 1)] {
        let (mut outbox, now) = (Outbox::new(1), Instant::now());
        outbox.offer(offer(1, Excess::None), now);
        let parcel = outbox.next(now).unwrap();
        let failure = Failure { retry_after: Some(seconds(asked)), ..unavailable() };
        let _ = outbox.failed(&parcel, failure, now);
        let pause = outbox.wake(now).unwrap() - now;
        assert!(pause >= seconds(least) && pause <= seconds(most), "{asked}: {pause:?}");
    }
}

#[test]
fn a_line_that_is_refused_stands_in_nobodys_way() {
    let (mut outbox, now) = (Outbox::new(1), Instant::now());
    outbox.offer(offer(1, Excess::None), now);
    let parcel = outbox.next(now).unwrap();
    let refused = Failure { problem: "400".to_owned(), kind: FailureKind::Refused, retry_after: None };
    let _ = outbox.failed(&parcel, refused, now);
    outbox.offer(offer(2, Excess::None), now);
    let later = now + seconds(1);
    let parcel = outbox.next(later).unwrap();
    assert_eq!(&*parcel.job.meta().key.name, "j2");
    let _ = outbox.taken(&parcel);
    assert!(outbox.next(later).is_none());
    assert_eq!(outbox.wake(later), Some(now + REFUSED_PAUSE));
    assert!(outbox.next(now + REFUSED_PAUSE).is_some(), "it is tried again");
}

/// Ten jobs that exceed the history of a queue that keeps two, while the sink fails.
fn in_trouble(excess: Excess) -> (Outbox, Instant) {
    let (mut outbox, now) = (Outbox::new(1), Instant::now());
    for number in 1..=10 {
        assert_eq!(outbox.offer(offer(number, excess), now).0, Standing::Waiting);
    }
    let parcel = outbox.next(now).unwrap();
    assert_eq!(outbox.failed(&parcel, unavailable(), now), Changes::default());
    (outbox, now)
}

#[test]
fn in_an_outage_as_many_again_as_the_history_are_kept_and_the_oldest_given_up() {
    let (mut outbox, start) = in_trouble(Excess::History);
    // A short failure costs nothing.
    let soon = start + OUTAGE_AFTER / 2;
    assert_eq!(outbox.offer(offer(11, Excess::History), soon), (Standing::Waiting, Changes::default()));
    assert_eq!(outbox.health(&queue(), &sink()), Health::Well);
    let late = start + OUTAGE_AFTER;
    let parcel = outbox.next(late).unwrap();
    let changes = outbox.failed(&parcel, unavailable(), late);
    assert_eq!(changes.dropped, 9);
    assert_eq!(names(&changes.jobs), ["j1", "j2", "j3", "j4", "j5", "j6", "j7", "j8", "j9"]);
    assert_eq!(changes.queues, [queue()]);
    assert_eq!(
        outbox.health(&queue(), &sink()),
        Health::Failing {
            problem: "connection refused".to_owned(),
            kind: FailureKind::Unavailable,
            dropping: true
        }
    );
    // From now on each further one costs the oldest.
    let (standing, changes) = outbox.offer(offer(12, Excess::History), late);
    assert_eq!((standing, names(&changes.jobs), changes.dropped), (Standing::Waiting, vec!["j10"], 1));
    assert_eq!(outbox.offer(offer(10, Excess::History), late).0, Standing::Clear, "nothing keeps it");
    // The sink returns: what is left goes out, and the queue is told.
    let later = late + PAUSE_MAX;
    let parcel = outbox.next(later).unwrap();
    assert_eq!(&*parcel.job.meta().key.name, "j11");
    let changes = outbox.taken(&parcel);
    assert_eq!((names(&changes.jobs), changes.queues), (vec!["j11"], vec![queue()]));
    assert_eq!(outbox.health(&queue(), &sink()), Health::Well);
    assert_eq!(&*outbox.next(later).unwrap().job.meta().key.name, "j12");
}

#[test]
fn below_the_bound_nothing_is_given_up_however_long_the_outage() {
    let (mut outbox, start) = (Outbox::new(1), Instant::now());
    let all = [(1, Excess::None), (2, Excess::None), (3, Excess::History), (4, Excess::History)];
    for (number, excess) in all {
        outbox.offer(offer(number, excess), start);
    }
    let mut now = start;
    for _ in 0..200 {
        let Some(parcel) = outbox.next(now) else {
            now = outbox.wake(now).unwrap();
            continue;
        };
        assert_eq!(outbox.failed(&parcel, unavailable(), now).dropped, 0);
    }
    assert!(now - start > seconds(3600), "{:?}", now - start);
    assert_eq!(outbox.waiting(), 4);
}

#[test]
fn jobs_that_have_work_to_do_get_their_room_in_an_outage() {
    let (mut outbox, start) = in_trouble(Excess::Room);
    let late = start + OUTAGE_AFTER;
    let parcel = outbox.next(late).unwrap();
    let changes = outbox.failed(&parcel, unavailable(), late);
    assert_eq!(changes.dropped, 10);
    assert_eq!(outbox.waiting(), 0);
    assert_eq!(outbox.offer(offer(11, Excess::Room), late).0, Standing::Clear);
    assert_eq!(outbox.offer(offer(12, Excess::None), late).0, Standing::Waiting);
}

#[test]
fn a_new_url_takes_what_waited_for_the_old_one() {
    let (mut outbox, now) = (Outbox::new(1), Instant::now());
    outbox.offer(offer(1, Excess::None), now);
    outbox.offer(offer(2, Excess::None), now);
    let parcel = outbox.next(now).unwrap();
    let _ = outbox.failed(&parcel, unavailable(), now);
    let other = Sink::Http("https://other.example.com".into());
    for number in [1, 2] {
        outbox.offer(Offer { sink: other.clone(), ..offer(number, Excess::None) }, now);
    }
    let out: Vec<Sink> = std::iter::from_fn(|| outbox.next(now)).map(|parcel| parcel.sink).collect();
    assert_eq!(out, [other.clone(), other]);
}

#[test]
fn one_sink_out_of_order_holds_up_no_other() {
    let (mut outbox, start) = in_trouble(Excess::History);
    let late = start + OUTAGE_AFTER;
    let other = ObjectKey::new("ns", "other");
    let stdout =
        |number| Offer { sink: Sink::Stdout, queue: other.clone(), ..offer(number, Excess::History) };
    let parcel = outbox.next(late).unwrap();
    let _ = outbox.failed(&parcel, unavailable(), late);
    for number in 20..30 {
        assert_eq!(outbox.offer(stdout(number), late).0, Standing::Waiting);
    }
    for number in 20..30 {
        let parcel = outbox.next(late).unwrap();
        assert!(outbox.next(late).is_none(), "one after the other");
        assert_eq!(names(&outbox.taken(&parcel).jobs), [format!("j{number}")]);
    }
    assert_eq!(outbox.health(&other, &Sink::Stdout), Health::Well);
}

proptest! {
    /// Whatever comes: a job is let go once, by a line that was taken or by one that was given up beyond the bound; and
    /// nothing is remembered of jobs that are gone.
    #[test]
    fn every_job_is_let_go_once_and_none_is_given_up_below_the_bound(
        steps in prop::collection::vec((0..40u32, 0..6u8, 0..20u64), 1..300),
    ) {
        let (mut outbox, start) = (Outbox::new(7), Instant::now());
        let mut now = start;
        let mut out: Vec<Parcel> = Vec::new();
        let mut waiting: BTreeSet<u32> = BTreeSet::new();
        let mut cleared: BTreeSet<u32> = BTreeSet::new();
        let (mut taken, mut dropped) = (0, 0);
        let number = |key: &ObjectKey| key.name[1..].parse::<u32>().unwrap();
        for (job_number, kind, wait) in steps {
            now += seconds(wait);
            let mut before = waiting.len();
            let changes = match kind {
                0 | 1 if !cleared.contains(&job_number) => {
                    waiting.insert(job_number);
                    before = waiting.len();
                    let (standing, changes) = outbox.offer(offer(job_number, Excess::History), now);
                    if standing == Standing::Clear {
                        waiting.remove(&job_number);
                        cleared.insert(job_number);
                    }
                    changes
                }
                2 | 3 => {
                    out.extend(outbox.next(now));
                    Changes::default()
                }
                4 if !out.is_empty() => {
                    taken += 1;
                    outbox.taken(&out.swap_remove(0))
                }
                5 if !out.is_empty() => outbox.failed(&out.swap_remove(0), unavailable(), now),
                _ => Changes::default(),
            };
            if changes.dropped > 0 {
                dropped += changes.dropped;
                prop_assert!(before > 2, "{:?}", waiting);
            }
            for job in &changes.jobs {
                prop_assert!(waiting.remove(&number(job)), "{job} twice");
                cleared.insert(number(job));
            }
            prop_assert_eq!(outbox.waiting(), waiting.len());
        }
        prop_assert_eq!(cleared.len(), taken + dropped);
        for parcel in out {
            let _ = outbox.failed(&parcel, unavailable(), now);
        }
        for number in 0..40 {
            outbox.forget(&job(number).meta().uid);
        }
        prop_assert!(outbox.is_empty() && outbox.waiting() == 0);
    }
}
