//! Peak windows in the admission: nothing starts inside, what has to go is asked for, and what comes back comes
//! along an even slope.

use super::queues::{cores, of};
use super::*;
use crate::peaks::Peaks;
use springtide_crds::batch_queue::peaks::PeakWindow;

/// From 00:10 to 00:20 of every day, after a lead of 100 s.
pub(super) const PEAK: &str = "
- name: noon
  window: {start: '00:10', end: '00:20', timeZone: UTC}
  actions: [{tier: BestEffort, action: Drain}, {tier: Standard, action: Degrade, percent: 30}]
  leadSeconds: 100
  drainPodsPerSecond: 2
  resume: {rampSeconds: 100, jitterSeconds: 0}
";

pub(super) fn peaks(windows: &str) -> Arc<Peaks> {
    let windows: Vec<PeakWindow> = serde_yaml::from_str(windows).unwrap();
    Arc::new(Peaks::new(&Uid("q".into()), &windows, None))
}

/// A queue with these windows, and so many cores of its own.
fn queue(world: &mut World, windows: &str, of_cores: i64) -> QueueId {
    let queue = world.queue("q", &cores(of_cores, of_cores));
    world.admission.peaks_changed(&queue, Some(peaks(windows)), None);
    queue
}

/// Passes and makes pods at a time until nothing more is granted. Returns how many were made.
fn settle(world: &mut World, second: i64, jobs: &[&Uid]) -> usize {
    let mut made = 0;
    loop {
        world.admission.pass(at(second));
        let before = made;
        for job in jobs {
            while world.make(job, "1", "a").is_some() {
                made += 1;
            }
        }
        if made == before {
            return made;
        }
    }
}

fn waits(world: &World, job: &Uid) -> Waiting {
    world.admission.verdict(job).waiting.unwrap()
}

/// Deletes as many pods of the job as it is asked to give back. Returns their number.
fn give_back(world: &mut World, job: &Uid) -> usize {
    let Some(reclaim) = world.admission.verdict(job).reclaim else { return 0 };
    let staying = world.admission.staying(job);
    let surplus = staying.saturating_sub(reclaim.keep) as usize;
    let is_of_job = |(name, pod): &(&String, &(Uid, String, String, Option<String>))| {
        pod.0 == *job && !world.admission.pods.is_leaving(&ObjectKey::new("a", name.as_str()))
    };
    let names: Vec<String> =
        world.pods.iter().filter(is_of_job).map(|(name, _)| name.clone()).take(surplus).collect();
    for name in &names {
        world.delete(name);
    }
    names.len()
}

#[test]
fn nothing_of_a_drained_tier_starts_from_the_lead_to_the_end() {
    let mut world = World::new(&[("n1", "16")]);
    let queue = queue(&mut world, PEAK, 4);
    let one = shape("1", json!({}));
    let job = world.ask(of(&queue, "j", &one, 2));
    assert_eq!(settle(&mut world, 499, &[&job]), 2);
    world.ask(of(&queue, "j", &one, 3));
    world.admission.pass(at(499));
    assert_eq!(world.admission.verdict(&job).granted, 3, "in flight");
    world.admission.pass(at(500));
    let verdict = world.admission.verdict(&job);
    assert_eq!((verdict.granted, verdict.drained), (2, true), "what was granted is taken back");
    let waiting = verdict.waiting.unwrap();
    assert_eq!(waiting.reason, QueuedReason::PeakWindow);
    assert!(waiting.message.contains("peak noon starts at 1970-01-01T00:10:00Z"), "{}", waiting.message);
    let figures = world.admission.figures(&queue);
    assert_eq!(figures.waiting[0].reason, QueuedReason::PeakWindow);
    for second in [599, 600, 1199] {
        assert_eq!(settle(&mut world, second, &[&job]), 0);
    }
    // Back in time, as when a clock is put right: what holds follows from the time alone.
    assert_eq!(settle(&mut world, 480, &[&job]), 1);
}

#[test]
fn a_drain_asks_for_so_many_in_a_second_the_newest_first_until_none_is_left() {
    let mut world = World::new(&[("n1", "64")]);
    let queue = queue(&mut world, PEAK, 40);
    let one = shape("1", json!({}));
    let interruption = Interruptibility { grace_seconds: 10, ..Interruptibility::default() };
    let jobs: Vec<Uid> = (0..4)
        .map(|number| {
            let demand = of(&queue, &format!("j{number}"), &one, 10);
            world.ask(Demand { created: at(number), interruption, ..demand })
        })
        .collect();
    let all: Vec<&Uid> = jobs.iter().collect();
    assert_eq!(settle(&mut world, 400, &all), 40);
    let mut gone = 0;
    for second in 500..=600 {
        world.admission.pass(at(second));
        let ended: usize = jobs.iter().map(|job| give_back(&mut world, job)).sum();
        assert!(ended <= 2, "{ended} at {second}");
        gone += ended;
        for job in &jobs {
            let until = world.admission.verdict(job).reclaim.and_then(|reclaim| reclaim.until);
            assert!(until.is_none_or(|until| until == at(600)));
        }
    }
    assert_eq!(gone, 40);
    let totals = world.admission.drain_totals();
    // The pass was at the second in which the peak begins.
    assert_eq!((totals.pods_left, totals.at_risk, totals.missed), (40, 0, 1), "they are ending");
    let figures = world.admission.figures(&queue).peak.unwrap();
    assert_eq!(figures.state.active.as_ref().map(|active| active.name.as_str()), Some("noon"));
    assert!(figures.wake.is_some_and(|wake| wake > at(600)));
}

#[test]
fn a_drain_that_will_miss_its_time_is_foretold() {
    let mut world = World::new(&[("n1", "110"), ("n2", "110"), ("n3", "110")]);
    let queue = queue(&mut world, PEAK, 300);
    let one = shape("1", json!({}));
    let job = world.ask(of(&queue, "j", &one, 300));
    // The window of the day before is over for long, that of today an hour away at most.
    assert_eq!(settle(&mut world, 10, &[&job]), 300);
    world.admission.pass(at(20));
    let forecast = world.admission.figures(&queue).peak.unwrap().forecast.unwrap();
    assert_eq!(forecast.reason, springtide_crds::batch_queue::DrainWillMissReason::RateTooLow);
    assert_eq!(world.admission.drain_totals().at_risk, 1);
}

#[test]
fn a_forecast_follows_the_write_budget_and_queues_that_drain_at_once_share_it() {
    use springtide_crds::batch_queue::DrainWillMissReason::{BudgetTooSmall, OnTime};
    let mut world = World::new(&[("n1", "110"), ("n2", "110"), ("n3", "110"), ("n4", "110")]);
    let one = shape("1", json!({}));
    // Its lead begins when the peak of the others is on.
    let later = PEAK.replace("00:10", "00:13");
    let queues = [("a", "q", PEAK), ("a", "r", PEAK), ("b", "q", PEAK), ("a", "later", &later)];
    let queues = queues.map(|(namespace, name, windows)| {
        let queue = QueueId::Object(ObjectKey::new(namespace, name));
        world.admission.queue_changed(&queue, Some(cores(100, 100)));
        world.admission.peaks_changed(&queue, Some(peaks(windows)), None);
        let job = format!("of-{name}");
        let demand = Demand { queue: queue.clone(), target: 100, ..demand(namespace, &job, &one) };
        (queue, (world.ask(demand), "1", namespace))
    });
    world.settle(&queues.clone().map(|(_, job)| job));
    assert_eq!(world.pods.len(), 400);
    // 100 pods within 100 s, of which 30 are their grace: that takes two a second, which is what the queues ask for.
    let enough = [OnTime; 4];
    for (number, (namespace, controller, expected)) in [
        (4, 6, enough),
        (3, 6, [BudgetTooSmall, BudgetTooSmall, OnTime, OnTime]),
        (4, 5, [BudgetTooSmall, BudgetTooSmall, BudgetTooSmall, OnTime]),
        (1, 6, [BudgetTooSmall; 4]),
        (4, 6, enough),
    ]
    .into_iter()
    .enumerate()
    {
        world.admission.set_write_rates(WriteRates { namespace, controller });
        let second = 20 * (1 + i64::try_from(number).unwrap());
        // Twice, so that each is looked at with the others in view.
        world.admission.pass(at(second));
        world.admission.pass(at(second + 6));
        let told = queues
            .clone()
            .map(|(queue, _)| world.admission.figures(&queue).peak.unwrap().forecast.unwrap().reason);
        assert_eq!(told, expected, "{namespace} in a namespace, {controller} in all");
    }
}

#[test]
fn a_degraded_tier_shrinks_to_its_share_and_starts_nothing_beyond_it() {
    let mut world = World::new(&[("n1", "64")]);
    let queue = queue(&mut world, PEAK, 10);
    let one = shape("1", json!({}));
    let elastic = world.ask(Demand { tier: Tier::Standard, ..of(&queue, "elastic", &one, 6) });
    let gang =
        Demand { tier: Tier::Standard, created: at(5), min_parallelism: 2, ..of(&queue, "gang", &one, 2) };
    let gang = world.ask(gang);
    assert_eq!(settle(&mut world, 400, &[&elastic, &gang]), 8);
    let mut ended = (0, 0);
    for second in 500..=600 {
        world.admission.pass(at(second));
        ended.0 += give_back(&mut world, &elastic);
        ended.1 += give_back(&mut world, &gang);
    }
    assert_eq!(ended, (5, 0), "who is elastic shrinks before any other stops");
    let more = world.ask(Demand { tier: Tier::Standard, ..of(&queue, "more", &one, 3) });
    assert_eq!(settle(&mut world, 700, &[&more]), 0);
    let waiting = waits(&world, &more);
    assert_eq!(waiting.reason, QueuedReason::PeakWindow);
    assert!(waiting.message.contains("the peak leaves its tier"), "{}", waiting.message);
}

#[test]
fn a_degraded_tier_is_filled_up_to_its_share_and_another_one_up_to_all() {
    let live = QueueRules { max_tier: Tier::Guaranteed, ..QueueRules::default() };
    for rules in [cores(10, 10), live] {
        let mut world = World::new(&[("n1", "10")]);
        let queue = world.queue("q", &rules);
        world.admission.peaks_changed(&queue, Some(peaks(PEAK)), None);
        let one = shape("1", json!({}));
        let degraded = world.ask(Demand { tier: Tier::Standard, ..of(&queue, "degraded", &one, 20) });
        assert_eq!(settle(&mut world, 700, &[&degraded]), 3);
        assert_eq!(waits(&world, &degraded).reason, QueuedReason::PeakWindow);
        let other = world.ask(Demand { tier: Tier::Guaranteed, ..of(&queue, "other", &one, 20) });
        assert_eq!(settle(&mut world, 700, &[&other]), 7);
    }
}

#[test]
fn what_comes_back_after_a_peak_comes_along_an_even_slope_whatever_the_servers_clock_says() {
    let mut world = World::new(&[("n1", "110"), ("n2", "110"), ("n3", "110")]);
    let queue = queue(&mut world, PEAK, 200);
    let one = shape("1", json!({}));
    let low = world.ask(of(&queue, "low", &one, 150));
    let high = world.ask(Demand { tier: Tier::Standard, ..of(&queue, "high", &one, 150) });
    assert_eq!(settle(&mut world, 1199, &[&low]), 0);
    // 30 percent of the queue were left to Standard; pods here are as old as 1970 began.
    assert_eq!(settle(&mut world, 1199, &[&high]), 60);
    let free = 140;
    let mut started = 0;
    for second in 1200..1300 {
        let now = settle(&mut world, second, &[&low, &high]);
        let slope = |second: i64| usize::try_from(free * (second - 1200) / 100).unwrap();
        started += now;
        assert!(started <= slope(second) && started + 1 >= slope(second), "{started} at {second}");
        assert!(now <= 2, "{now} at {second}");
    }
    assert_eq!(started + settle(&mut world, 1300, &[&low, &high]), 140);
}

#[test]
fn who_must_finish_starts_only_if_there_is_time() {
    let mut world = World::new(&[("n1", "64")]);
    let queue = queue(&mut world, PEAK, 40);
    let one = shape("1", json!({}));
    let mut finishing = |name: &str, seconds: Option<i64>| {
        let interruption = Interruptibility {
            policy: InterruptionPolicy::FinishOrDontStart,
            expected: seconds.map(SignedDuration::from_secs),
            ..Interruptibility::default()
        };
        world.ask(Demand { interruption, ..of(&queue, name, &one, 1) })
    };
    // Pods are ended from 500 s on; 70 s and 100 s are of one class.
    let (short, long, longer, unknown) = (
        finishing("short", Some(70)),
        finishing("long", Some(100)),
        finishing("longer", Some(129)),
        finishing("unknown", None),
    );
    let all = [&short, &long, &longer, &unknown];
    assert_eq!(settle(&mut world, 420, &all), 1);
    assert_eq!(world.admission.verdict(&short).granted, 1);
    for job in [&long, &longer, &unknown] {
        assert_eq!(waits(&world, job).reason, QueuedReason::WouldNotFinish);
    }
    assert!(waits(&world, &long).message.contains("takes 100 s"));
    assert!(waits(&world, &unknown).message.contains("spec.expectedSeconds"));
    assert_eq!(settle(&mut world, 399, &all), 2, "there is time for it, and twice the lead is away");
    assert_eq!(waits(&world, &longer).reason, QueuedReason::WouldNotFinish);
    assert_eq!(settle(&mut world, 1301, &all), 1, "after the peak all start");
}

#[test]
fn a_window_that_cannot_be_read_holds_its_tiers_alone() {
    let mut world = World::new(&[("n1", "64")]);
    let queue = queue(&mut world, &PEAK.replace("UTC", "Mars/Olympus"), 40);
    let one = shape("1", json!({}));
    let low = world.ask(of(&queue, "low", &one, 1));
    let high = world.ask(Demand { tier: Tier::Standard, ..of(&queue, "high", &one, 1) });
    assert_eq!(settle(&mut world, 10, &[&low, &high]), 1);
    let waiting = waits(&world, &low);
    assert_eq!(waiting.reason, QueuedReason::PeakWindow);
    assert!(waiting.message.contains("Mars/Olympus"), "{}", waiting.message);
    // Without the window the queue is open.
    world.admission.peaks_changed(&queue, None, None);
    assert_eq!(settle(&mut world, 11, &[&low]), 1);
}

/// A world of two cores, in which Guaranteed has BestEffort end and is ended itself for a peak at 500 s; and a job of it
/// for two cores that must not be interrupted and takes 100 s.
fn near_peak() -> (World, QueueId, Demand) {
    let mut world = World::new(&[("n1", "2")]);
    let yields = TierRules { preemptible_by: vec![Tier::Guaranteed], ..TierRules::default() };
    let rules = QueueRules { tiers: BTreeMap::from([(Tier::BestEffort, yields)]), ..cores(2, 2) };
    let queue = world.queue("q", &rules);
    let windows = PEAK.replace("{tier: BestEffort, action: Drain}, ", "");
    let windows = windows.replace("Standard, action: Degrade, percent: 30", "Guaranteed, action: Drain");
    world.admission.peaks_changed(&queue, Some(peaks(&windows)), None);
    let interruption = Interruptibility {
        policy: InterruptionPolicy::FinishOrDontStart,
        expected: Some(SignedDuration::from_secs(100)),
        ..Interruptibility::default()
    };
    let large = shape("2", json!({}));
    let finishing = Demand { tier: Tier::Guaranteed, interruption, ..of(&queue, "finishing", &large, 1) };
    (world, queue, finishing)
}

#[test]
fn nobody_ends_for_who_would_not_finish_before_a_peak() {
    for (second, ends) in [(400, true), (401, false)] {
        let (mut world, queue, finishing) = near_peak();
        let low = world.ask(of(&queue, "low", &shape("1", json!({})), 2));
        assert_eq!(settle(&mut world, 390, &[&low]), 2);
        // Of the same class as one that takes 64 s.
        let finishing = world.ask(finishing);
        world.admission.pass(at(second));
        assert_eq!(world.admission.verdict(&low).reclaim.is_some(), ends, "{second}");
        assert_eq!(waits(&world, &finishing).reason == QueuedReason::WouldNotFinish, !ends, "{second}");
    }
}

#[test]
fn what_has_ended_for_who_would_not_finish_any_more_is_for_others() {
    let (mut world, queue, finishing) = near_peak();
    let one = shape("1", json!({}));
    let low = world.ask(of(&queue, "low", &one, 2));
    assert_eq!(settle(&mut world, 390, &[&low]), 2);
    let finishing = world.ask(finishing);
    world.admission.pass(at(395));
    assert_eq!(world.admission.verdict(&low).reclaim.map(|reclaim| reclaim.keep), Some(0));
    world.end("p1");
    world.ask(of(&queue, "low", &one, 1));
    let next = world.ask(of(&queue, "next", &one, 1));
    world.admission.pass(at(400));
    assert_eq!(world.admission.verdict(&next).granted, 0, "it is kept until there is enough of it");
    world.admission.dirty = true;
    world.admission.pass(at(401));
    assert_eq!(world.admission.verdict(&low).reclaim, None);
    assert_eq!([&next, &finishing].map(|job| world.admission.verdict(job).granted), [1, 0]);
    world.nothing_overcommitted();
}

/// Seconds in which pods of the job are made that request two cores where its template says one, as a sidecar was added.
/// Returns how many are made.
fn with_sidecars(world: &mut World, job: &Uid, seconds: std::ops::Range<i64>) -> usize {
    let mut made = 0;
    for second in seconds {
        world.admission.pass(at(second));
        while world.make(job, "2", "a").is_some() {
            made += 1;
        }
        world.admission.pass(at(second));
        give_back(world, job);
        let gone = |name: &&String| world.admission.pods.is_leaving(&ObjectKey::new("a", name.as_str()));
        let gone: Vec<String> = world.pods.keys().filter(gone).cloned().collect();
        gone.iter().for_each(|pod| world.end(pod));
    }
    made
}

#[test]
fn what_is_added_to_pods_is_reckoned_with_before_they_are_made() {
    let mut world = World::new(&[("n1", "64")]);
    let queue = queue(&mut world, PEAK, 10);
    let one = shape("1", json!({}));
    let job = world.ask(Demand { tier: Tier::Standard, ..of(&queue, "j", &one, 9) });
    assert_eq!(with_sidecars(&mut world, &job, 400..420), 5);
    assert_eq!(world.admission.figures(&queue).used.cpu, 10_000);
    // Three cores are left to it, of which one pod uses two.
    assert_eq!(with_sidecars(&mut world, &job, 500..700), 0);
    assert_eq!((world.pods.len(), waits(&world, &job).reason), (1, QueuedReason::PeakWindow));
    // A quota of three cores likewise; one of a single core never has room for such a pod.
    for (quota, left, reason) in [(3, 1, QueuedReason::QuotaExceeded), (1, 0, QueuedReason::NeverFits)] {
        world.admission.peaks_changed(&queue, None, None);
        world.queue("q", &cores(quota, quota));
        assert_eq!(with_sidecars(&mut world, &job, 700..720), 0, "{quota}");
        let waiting = waits(&world, &job);
        assert_eq!((world.pods.len(), waiting.reason), (left, reason), "{quota}");
        assert!(waiting.message.contains("cpu 2"), "{}", waiting.message);
    }
    // Nothing of it is left in the books.
    world.queue("q", &cores(10, 10));
    assert_eq!(with_sidecars(&mut world, &job, 720..740), 5);
    assert_eq!(world.admission.figures(&queue).used.cpu, 10_000);
    // No more go than it takes.
    world.queue("q", &cores(5, 5));
    assert_eq!(with_sidecars(&mut world, &job, 740..760), 0);
    assert_eq!(world.pods.len(), 2);
}

#[test]
fn nothing_is_shown_that_would_not_finish_before_a_peak() {
    // Of its first pods a class is shown one.
    for (second, shown) in [(400, [1, 0]), (430, [0, 1]), (441, [0, 0])] {
        let mut world = World::new(&[("n1", "1")]);
        let queue = world.queue("q", &QueueRules { max_pending: 5, ..cores(9, 9) });
        world.admission.peaks_changed(&queue, Some(peaks(PEAK)), None);
        // Both are of one class.
        let jobs = [("a", 100), ("b", 64)].map(|(name, run)| {
            let interruption = Interruptibility {
                policy: InterruptionPolicy::FinishOrDontStart,
                expected: Some(SignedDuration::from_secs(run)),
                ..Interruptibility::default()
            };
            world.ask(Demand { interruption, ..of(&queue, name, &shape("2", json!({})), 1) })
        });
        world.admission.pass(at(second));
        let granted = jobs.map(|job| world.admission.verdict(&job).granted);
        assert_eq!(granted, shown, "{second}");
    }
}
