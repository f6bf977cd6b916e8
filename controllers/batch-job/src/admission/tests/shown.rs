//! Pods that no node has room for, which a node autoscaler is to see.

use super::peaks::{PEAK, peaks};
use super::queues::{cores, of};
use super::*;

fn showing(pods: usize, rules: QueueRules) -> QueueRules {
    QueueRules { max_pending: pods, ..rules }
}

impl World {
    /// Makes all granted pods of a job as its controller does: the last are those that fit nowhere. Returns these.
    fn make_all(&mut self, job: &Uid, cpu: &str) -> Vec<String> {
        let unfit = self.admission.verdict(job).unfit as usize;
        let fitting = self.admission.jobs[job].in_flight.len() - unfit;
        for _ in 0..fitting {
            self.make(job, cpu, "a").unwrap();
        }
        (0..unfit)
            .map(|_| {
                let name = self.name_pod(job, cpu, "a");
                self.labels.get_mut(&name).unwrap()["springtide.dev/unfit"] = json!("true");
                self.admission.pod_changed(&self.pod(&name, "Pending"));
                name
            })
            .collect()
    }
}

#[test]
fn so_many_pods_are_shown_as_the_queue_says_and_a_new_node_takes_them() {
    let mut world = World::new(&[("n1", "2")]);
    let one = shape("1", json!({}));
    let queue = world.queue("q", &showing(3, cores(9, 9)));
    let job = world.ask(of(&queue, "j", &one, 9));
    let mut shown = Vec::new();
    for second in 1..9 {
        world.admission.pass(at(second));
        shown.extend(world.make_all(&job, "1"));
    }
    assert_eq!((shown.len(), world.pods.len()), (3, 5));
    assert_eq!(world.admission.verdict(&job).granted, 5);
    world.nothing_overcommitted();
    // The new node has them, and then there is nothing to show but what it has no room for.
    world.admission.node_changed(&node("n2", "4", json!({})));
    for pod in &shown {
        world.bind(pod, "n2");
    }
    for second in 10..14 {
        world.admission.pass(at(second));
        world.nothing_overcommitted();
        shown.extend(world.make_all(&job, "1"));
    }
    assert_eq!((shown.len(), world.pods.len()), (6, 9));
}

#[test]
fn nothing_is_shown_beyond_the_quota_nor_where_it_is_not_asked_for() {
    let one = shape("1", json!({}));
    for (most, quota, expected) in [(0, 9, 2), (5, 3, 3), (5, 2, 2)] {
        let mut world = World::new(&[("n1", "2")]);
        let queue = world.queue("q", &showing(most, cores(quota, quota)));
        let job = world.ask(of(&queue, "j", &one, 9));
        for second in 1..9 {
            world.admission.pass(at(second));
            world.make_all(&job, "1");
        }
        assert_eq!(world.pods.len(), expected, "{most} of {quota}");
    }
}

#[test]
fn what_comes_free_is_for_those_that_are_shown() {
    let mut world = World::new(&[("n1", "1")]);
    let one = shape("1", json!({}));
    let queue = world.queue("q", &showing(1, cores(9, 9)));
    let job = world.ask(of(&queue, "j", &one, 2));
    world.admission.pass(at(1));
    world.make_all(&job, "1");
    world.admission.pass(at(2));
    let shown = world.make_all(&job, "1");
    assert_eq!(shown.len(), 1);
    let other = world.offer("b", "other", &one, 1);
    world.end("p1");
    world.admission.pass(at(3));
    assert_eq!(world.admission.verdict(&other).granted, 0, "the scheduler binds the pod there");
    world.bind(&shown[0], "n1");
    world.admission.pass(at(4));
    world.nothing_overcommitted();
}

#[test]
fn none_is_shown_that_could_take_the_room_of_one_that_is_on_its_way() {
    let mut world = World::new(&[("n1", "1")]);
    let one = shape("1", json!({}));
    let queue = world.queue("q", &showing(1, cores(9, 9)));
    let older = world.ask(of(&queue, "a", &one, 2));
    let younger = world.ask(of(&queue, "b", &one, 1));
    world.admission.pass(at(1));
    let on_its_way = world.make_unbound(&older, "1", "a");
    world.admission.pass(at(2));
    let verdicts = |world: &World| [&older, &younger].map(|job| world.admission.verdict(job).unfit);
    assert_eq!(verdicts(&world), [0, 0]);
    world.bind(&on_its_way, "n1");
    world.admission.pass(at(3));
    assert_eq!(verdicts(&world), [1, 0]);
    // A node comes: the one that is shown is bound before the grant for the rest of it is a pod.
    let shown = world.make_all(&older, "1");
    world.ask(of(&queue, "a", &one, 3));
    world.admission.node_changed(&node("n2", "2", json!({})));
    world.admission.pass(at(4));
    world.bind(&shown[0], "n2");
    world.admission.pass(at(5));
    assert_eq!(world.admission.verdict(&older).granted, 3);
    assert_eq!(verdicts(&world), [0, 0], "the place of the third is not for the younger job");
    world.make_all(&older, "1");
    world.admission.pass(at(6));
    assert_eq!(verdicts(&world), [0, 1]);
    world.nothing_overcommitted();
}

#[test]
fn a_gang_is_shown_as_a_whole_or_not_at_all() {
    let one = shape("1", json!({}));
    for (most, unfit) in [(2, 0), (3, 3)] {
        let mut world = World::new(&[("n1", "2")]);
        let queue = world.queue("q", &showing(most, cores(9, 9)));
        let gang = world.ask(Demand { min_parallelism: 5, ..of(&queue, "gang", &one, 5) });
        world.admission.pass(at(1));
        let verdict = world.admission.verdict(&gang);
        assert_eq!((verdict.granted, verdict.unfit), (if unfit == 3 { 5 } else { 0 }, unfit));
        world.nothing_overcommitted();
    }
}

#[test]
fn a_pod_that_found_no_node_in_time_makes_its_class_pause() {
    let mut world = World::new(&[("n1", "1")]);
    let one = shape("1", json!({}));
    let queue = world.queue("q", &showing(4, cores(9, 9)));
    let job = world.ask(of(&queue, "j", &one, 9));
    for second in 1..9 {
        world.admission.pass(at(second));
        world.make_all(&job, "1");
    }
    assert_eq!(world.pods.len(), 5);
    world.admission.pause(&job, Trouble::Schedule, at(610));
    for pod in ["p2", "p3", "p4", "p5"] {
        world.remove(pod);
    }
    world.admission.pass(at(610));
    let verdict = world.admission.verdict(&job);
    assert_eq!((verdict.granted, verdict.waiting.unwrap().reason), (1, QueuedReason::ClassBackoff));
    // Then one is tried, and not all at once.
    world.admission.pass(at(612));
    assert_eq!(world.admission.verdict(&job).unfit, 1);
}

#[test]
fn a_manager_that_starts_knows_what_is_shown() {
    let mut world = World::new(&[("n1", "1")]);
    let one = shape("1", json!({}));
    let queue = world.queue("q", &showing(2, cores(9, 9)));
    let job = world.ask(of(&queue, "j", &one, 9));
    for second in 1..9 {
        world.admission.pass(at(second));
        world.make_all(&job, "1");
    }
    let mut again = World::new(&[("n1", "1")]);
    again.queue("q", &showing(2, cores(9, 9)));
    for pod in world.pods.keys() {
        again.admission.pod_changed(&world.pod(pod, "Pending"));
    }
    let job = again.ask(of(&queue, "j", &one, 9));
    again.admission.pass(at(20));
    assert_eq!((again.admission.verdict(&job).granted, again.admission.verdict(&job).unfit), (3, 0));
    assert_eq!(again.admission.ledger.nodes().map(|(_, node)| node.used.cpu).sum::<i64>(), 1000);
}

/// A queue of live capacity with a peak, all nodes of which others fill.
fn full_with_a_peak() -> (World, QueueId) {
    let mut world = World::new(&[("n1", "2")]);
    let other = world.offer("b", "other", &shape("1", json!({})), 2);
    world.settle(&[(other, "1", "b")]);
    let queue = world.queue("q", &showing(5, QueueRules::default()));
    world.admission.peaks_changed(&queue, Some(peaks(PEAK)), None);
    (world, queue)
}

#[test]
fn nothing_is_shown_of_a_tier_that_a_peak_leaves_a_part_or_that_comes_back_after_one() {
    // Before the lead, in it, in the peak, on the ramp, after it.
    for (second, unfit) in [(499, 1), (500, 0), (700, 0), (1250, 0), (1300, 1)] {
        for tier in [Tier::BestEffort, Tier::Standard] {
            let (mut world, queue) = full_with_a_peak();
            let job = world.ask(Demand { tier, ..of(&queue, "j", &shape("1", json!({})), 1) });
            world.admission.pass(at(second));
            assert_eq!(world.admission.verdict(&job).unfit, unfit, "{tier:?} at {second}");
        }
    }
}

#[test]
fn room_that_is_kept_for_others_is_not_for_a_gang_that_is_shown() {
    let mut world = World::new(&[("n1", "3")]);
    let one = shape("1", json!({}));
    let yields = TierRules { preemptible_by: vec![Tier::Guaranteed], ..TierRules::default() };
    let rules = QueueRules { tiers: BTreeMap::from([(Tier::BestEffort, yields)]), ..cores(8, 8) };
    let queue = world.queue("q", &rules);
    let showing = world.queue("showing", &showing(5, cores(8, 8)));
    let low: Vec<Uid> =
        (0..3).map(|number| world.ask(of(&queue, &format!("low{number}"), &one, 1))).collect();
    world.settle(&low.iter().map(|job| (job.clone(), "1", "a")).collect::<Vec<_>>());
    let big = world.ask(Demand { tier: Tier::Guaranteed, ..of(&queue, "big", &shape("3", json!({})), 1) });
    world.admission.pass(at(2));
    let gang = world.ask(Demand { min_parallelism: 3, ..of(&showing, "gang", &one, 3) });
    for (second, pod) in [(3, "p1"), (4, "p2")] {
        world.end(pod);
        world.admission.pass(at(second));
        assert_eq!([&big, &gang].map(|job| world.admission.verdict(job).granted), [0, 0], "{second}");
    }
    world.end("p3");
    world.admission.pass(at(5));
    assert_eq!(world.admission.verdict(&big).granted, 1);
    // Now no node has room for any of it.
    world.make(&big, "3", "a").unwrap();
    world.admission.pass(at(6));
    let verdict = world.admission.verdict(&gang);
    assert_eq!((verdict.granted, verdict.unfit), (3, 3));
    world.nothing_overcommitted();
}
