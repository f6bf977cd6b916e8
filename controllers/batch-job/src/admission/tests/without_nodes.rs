//! Where no node may be looked at.

use super::*;

fn world() -> World {
    let mut admission = Admission::without_nodes();
    admission.set_ready(true, Staleness::Nowhere);
    World { admission, ..World::new(&[]) }
}

/// Passes and makes pods, which nobody binds, until nothing more is granted.
fn make_all(world: &mut World, job: &Uid, namespace: &str) -> Vec<String> {
    make_all_at(world, job, namespace, at(1))
}

fn make_all_at(world: &mut World, job: &Uid, namespace: &str, now: Timestamp) -> Vec<String> {
    let mut made = Vec::new();
    loop {
        world.admission.pass(now);
        let granted = world.admission.jobs[job].in_flight.len();
        if granted == 0 {
            return made;
        }
        made.extend((0..granted).map(|_| world.make_unbound(job, "1", namespace)));
    }
}

#[test]
fn few_pods_wait_for_the_scheduler_and_more_as_it_places_them() {
    let mut world = world();
    let job = world.offer("a", "j", &shape("1", json!({})), 100);
    let mut waves = Vec::new();
    for _ in 0..3 {
        let wave = make_all(&mut world, &job, "a");
        let waiting = world.admission.verdict(&job).waiting.unwrap();
        assert_eq!(waiting.reason, QueuedReason::NoCapacity);
        assert!(waiting.message.contains("namespaced mode"), "{}", waiting.message);
        for pod in &wave {
            world.bind(pod, "somewhere");
        }
        waves.push(wave.len());
    }
    assert_eq!(waves, [10, 20, 40]);
    assert_eq!(make_all(&mut world, &job, "a").len(), 30);
    assert_eq!(world.admission.verdict(&job).waiting, None);
    for pod in world.pods.keys().cloned().collect::<Vec<_>>() {
        world.end(&pod);
    }
    assert_eq!(world.admission.verdict(&job).granted, 0);
}

#[test]
fn twice_as_many_wait_only_while_the_scheduler_places_all_of_them_within_a_second() {
    let mut world = world();
    let job = world.offer("a", "j", &shape("1", json!({})), 1000);
    let after = |milliseconds: i64| Timestamp::from_millisecond(milliseconds).unwrap();
    let mut now = 1_000;
    let mut waves = Vec::new();
    // So many milliseconds after they came they are placed.
    for took in [1000, 1000, 1001, 900] {
        let wave = make_all_at(&mut world, &job, "a", after(now));
        waves.push(wave.len());
        now += took;
        for pod in &wave {
            world.bind(pod, "somewhere");
        }
    }
    assert_eq!(waves, [10, 20, 40, 10], "a slow one is as bad as all of them");
    let wave = make_all_at(&mut world, &job, "a", after(now));
    assert_eq!(wave.len(), 20);
    let (slow, fast) = wave.split_last().unwrap();
    for pod in fast {
        world.bind(pod, "somewhere");
    }
    let next = make_all_at(&mut world, &job, "a", after(now + 500));
    assert_eq!(next.len(), 19, "of twenty one waits");
    for pod in &next {
        world.bind(pod, "somewhere");
    }
    let few = make_all_at(&mut world, &job, "a", after(now + 1001));
    assert_eq!(few.len(), 9, "of ten again, one of which waits for more than a second");
    // That it is placed so late makes it ten once more.
    for pod in few.iter().chain([slow]) {
        world.bind(pod, "somewhere");
    }
    assert_eq!(make_all_at(&mut world, &job, "a", after(now + 1100)).len(), 10);
}

#[test]
fn what_the_scheduler_does_not_place_is_tried_one_after_the_other() {
    let mut world = world();
    let job = world.offer("a", "j", &shape("64", json!({})), 20);
    let pods = make_all(&mut world, &job, "a");
    assert_eq!(pods.len(), 10);
    world.admission.pause(&job, Trouble::Schedule, at(31));
    for pod in &pods {
        world.mark_deleted(pod);
        world.remove(pod);
    }
    assert_eq!(world.admission.pass(at(31)), []);
    assert_eq!(world.admission.verdict(&job).waiting.unwrap().reason, QueuedReason::ClassBackoff);
    world.admission.pass(at(32));
    assert_eq!(world.admission.verdict(&job).granted, 1);
    let first = make_all(&mut world, &job, "a");
    assert_eq!(first.len(), 1, "it is placed before the next one comes");
    world.bind(&first[0], "large");
    assert_eq!(make_all(&mut world, &job, "a").len(), 10);
}

#[test]
fn pods_that_must_fit_together_come_together() {
    let mut world = world();
    let job = world.offer_gang("a", "j", &shape("1", json!({})), 50, 50);
    world.admission.pass(at(1));
    assert_eq!(world.admission.verdict(&job).granted, 50);
}

#[test]
fn a_namespace_of_which_nothing_is_heard_gets_nothing_and_the_others_go_on() {
    let mut world = world();
    let one = shape("1", json!({}));
    let (silent, other) = (world.offer("a", "j", &one, 1), world.offer("b", "k", &one, 1));
    world.admission.set_ready(true, Staleness::In(BTreeSet::from([Arc::from("a")])));
    world.admission.pass(at(1));
    let verdict = world.admission.verdict(&silent);
    assert_eq!((verdict.granted, verdict.waiting.unwrap().reason), (0, QueuedReason::CapacityStale));
    assert_eq!(world.admission.verdict(&other).granted, 1);
    world.admission.set_ready(true, Staleness::Nowhere);
    world.admission.pass(at(2));
    assert_eq!(world.admission.verdict(&silent).granted, 1);
}
