//! What has gone wrong in other systems for queues.

use super::queues::{cores, lending, of};
use super::*;

/// Jobs of the sample, and of the long run (`SPRINGTIDE_LONG=1`).
const SAMPLE: usize = 5_000;
const LONG: usize = 50_000;

/// kubernetes#95492, whose last jobs were slower by far than the first. Counted in looks, not in time.
#[test]
fn of_many_jobs_that_come_at_once_the_last_cost_no_more_than_the_first() {
    let count = if std::env::var("SPRINGTIDE_LONG").is_ok_and(|long| long == "1") { LONG } else { SAMPLE };
    let mut world = World::new(&[("n1", "64")]);
    let queue = world.queue("q", &QueueRules { max_queued_jobs: 10_000, ..cores(64, 64) });
    let one = shape("1", json!({}));
    let jobs: Vec<Uid> = (0..count)
        .map(|number| {
            let created = at(i64::try_from(number).unwrap());
            world.ask(Demand { created, ..of(&queue, &format!("j{number:05}"), &one, 1) })
        })
        .collect();
    let mut costs = Vec::new();
    let mut waiting = jobs.as_slice();
    world.admission.looks = 0;
    for tenth in 1..=10 {
        while waiting.len() > count - count * tenth / 10 {
            world.admission.pass(at(i64::try_from(count).unwrap()));
            let granted = waiting.iter().take_while(|job| world.admission.verdict(job).granted > 0).count();
            assert!((1..=64).contains(&granted), "{granted} grants in a pass");
            let (started, rest) = waiting.split_at(granted);
            let pods: Vec<String> = started.iter().map(|job| world.make(job, "1", "a").unwrap()).collect();
            for (job, pod) in started.iter().zip(pods) {
                world.admission.withdraw(job);
                world.end(&pod);
            }
            waiting = rest;
        }
        costs.push(world.admission.looks);
        world.admission.looks = 0;
    }
    // The first jobs of a class go one by one, until creates are known to succeed.
    let (first, last) = costs.split_at(5);
    assert!(last.iter().sum::<usize>() <= first.iter().sum(), "{costs:?}");
    assert_eq!(world.admission.figures(&queue).used.cpu, 0);
    world.admission.pass(at(i64::try_from(count).unwrap() + 1));
    assert!(
        world.admission.jobs.is_empty()
            && world.admission.lines.is_empty()
            && world.admission.classes.is_empty()
    );
}

/// koordinator#2360: pods that nobody schedules are no obstacle to other queues.
#[test]
fn pending_pods_of_one_queue_starve_no_other() {
    let mut world = World::new(&[("n1", "64")]);
    let [stuck, well] = ["stuck", "well"].map(|name| world.queue(name, &cores(32, 32)));
    let apart = shape(
        "1",
        json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "a"}}}]}}}),
    );
    let alone = world.ask(of(&stuck, "alone", &apart, 30));
    let mut pending = Vec::new();
    for round in 0..20 {
        world.admission.pass(at(round));
        while !world.admission.jobs[&alone].in_flight.is_empty() {
            pending.push(world.make_unbound(&alone, "1", "a"));
        }
    }
    assert_eq!(pending.len(), 10, "what nobody can model is tried with few");
    let other = world.ask(of(&well, "other", &shape("1", json!({})), 32));
    world.settle(&[(other.clone(), "1", "a")]);
    assert_eq!(world.admission.verdict(&other).granted, 32);
    // Nor are those that were taken back, and whose class pauses.
    world.admission.pause(&alone, Trouble::Schedule, at(31));
    for pod in
        world.pods.iter().filter(|(_, pod)| pod.0 == other).map(|(name, _)| name.clone()).collect::<Vec<_>>()
    {
        world.end(&pod);
    }
    world.ask(of(&well, "other", &shape("1", json!({})), 32));
    world.settle(&[(other.clone(), "1", "a")]);
    assert_eq!(world.admission.verdict(&other).granted, 32);
    world.nothing_overcommitted();
}

/// A stale NodeMetric made others evict by figures that were long past.
#[test]
fn an_old_view_grants_nothing_and_takes_nothing_back() {
    let mut world = World::new(&[("n1", "16")]);
    let one = shape("1", json!({}));
    let queue = world.queue("q", &cores(4, 4));
    world.admission.seen_at(at(1));
    let job = world.ask(of(&queue, "j", &one, 6));
    world.settle(&[(job.clone(), "1", "a")]);
    assert_eq!(world.admission.verdict(&job).granted, 4);
    world.queue("q", &cores(1, 1));
    let told = |world: &mut World, second: i64| {
        world.admission.pass(at(second));
        let verdict = world.admission.verdict(&job);
        (verdict.granted, verdict.reclaim, verdict.waiting.map(|waiting| waiting.reason))
    };
    assert_eq!(told(&mut world, 62), (4, None, Some(QueuedReason::CapacityStale)));
    world.admission.seen_at(at(63));
    let (pods, cause) = (BTreeSet::new(), ReclaimCause::QuotaShrunk);
    let cut = Reclaim { keep: 1, pods, cause, until: None };
    assert_eq!(told(&mut world, 63), (4, Some(cut.clone()), Some(QueuedReason::QuotaExceeded)));
    // The same where the watches of this namespace alone are silent.
    let of_namespace = |name: &str| Staleness::In([Arc::from(name)].into());
    world.admission.set_ready(true, of_namespace("a"));
    assert_eq!(told(&mut world, 64), (4, None, Some(QueuedReason::CapacityStale)));
    world.admission.set_ready(true, of_namespace("b"));
    assert_eq!(told(&mut world, 65).1, Some(cut));
}

/// What others give up for a large pod comes back bit by bit: nobody takes the bits meanwhile, or more and more would
/// have to be given up.
#[test]
fn what_a_large_pod_waits_for_is_not_for_small_ones_that_wait_too() {
    for is_lender in [false, true] {
        let mut world = World::new(&[("n1", "8")]);
        let (one, three) = (shape("1", json!({})), shape("3", json!({})));
        let yields = TierRules { preemptible_by: vec![Tier::Guaranteed], ..TierRules::default() };
        let (small, large) = if is_lender {
            (world.queue("borrower", &lending(0, 3)), world.queue("lender", &lending(3, 3)))
        } else {
            let rules = QueueRules { tiers: BTreeMap::from([(Tier::BestEffort, yields)]), ..cores(3, 3) };
            let queue = world.queue("q", &rules);
            (queue.clone(), queue)
        };
        let jobs: Vec<Uid> = (0..9)
            .map(|number| {
                let created = at(number);
                world.ask(Demand { created, ..of(&small, &format!("small{number}"), &one, 1) })
            })
            .collect();
        world.settle(&jobs.iter().map(|job| (job.clone(), "1", "a")).collect::<Vec<_>>());
        let granted =
            |world: &World| jobs.iter().filter(|job| world.admission.verdict(job).granted > 0).count();
        assert_eq!(granted(&world), 3);
        let big =
            world.ask(Demand { tier: Tier::Guaranteed, created: at(20), ..of(&large, "big", &three, 1) });
        world.admission.pass(at(30));
        let victims: Vec<String> = world.pods.keys().cloned().collect();
        assert_eq!(victims.len(), 3);
        victims.iter().for_each(|pod| world.delete(pod));
        for (left, pod) in [(2, &victims[0]), (1, &victims[1]), (0, &victims[2])] {
            world.end(pod);
            world.admission.pass(at(31));
            assert_eq!(granted(&world), left, "lender: {is_lender}");
        }
        assert_eq!(world.admission.verdict(&big).granted, 1, "lender: {is_lender}");
        // When it has what it waits for, the others go on.
        world.make(&big, "3", "a").unwrap();
        world.admission.withdraw(&big);
        let pod = world.pods.keys().next().unwrap().clone();
        world.end(&pod);
        world.settle(&jobs.iter().map(|job| (job.clone(), "1", "a")).collect::<Vec<_>>());
        assert_eq!(granted(&world), 3, "lender: {is_lender}");
    }
}
