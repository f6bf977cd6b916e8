//! A node that is kept for who has waited long.

use super::queues::{cores, of};
use super::*;
use crate::peaks::Peaks;
use springtide_crds::batch_queue::peaks::PeakWindow;

const LONG_AGO: i64 = 10_000;

impl Admission {
    /// The tiers for which nodes are kept, the nodes, and when each should be free.
    fn kept_nodes(&self) -> Vec<(Tier, String, Option<Timestamp>)> {
        let name = |slot| self.ledger.node(slot).unwrap().view.meta().key.name.to_string();
        self.kept.values().map(|kept| (kept.class.tier, name(kept.node), kept.free_at)).collect()
    }
}

impl World {
    /// A pod ends, and the pass and the creates that follow.
    fn end_and_settle(&mut self, pod: &str, second: i64, jobs: &[(Uid, &str, &str)]) {
        self.end(pod);
        self.admission.pass(at(second));
        for (job, cpu, namespace) in jobs {
            while self.make(job, cpu, namespace).is_some() {}
        }
        self.admission.pass(at(second));
    }

    /// Names of a job's pods, oldest first.
    fn pods_of(&self, job: &Uid) -> Vec<String> {
        let mut own: Vec<String> =
            self.pods.iter().filter(|(_, pod)| pod.0 == *job).map(|(name, _)| name.clone()).collect();
        own.sort_by_key(|name| name[1..].parse::<u32>().unwrap());
        own
    }
}

/// Two nodes full of small pods, of a job that wants ever more, and a large pod that waits.
fn crowded() -> (World, QueueId, Uid, Uid) {
    let mut world = World::new(&[("n1", "2"), ("n2", "2")]);
    let queue = world.queue("q", &cores(9, 9));
    let small = world.ask(of(&queue, "small", &shape("1", json!({})), 9));
    world.settle(&[(small.clone(), "1", "a")]);
    // It has just been served.
    let first = world.pods_of(&small)[0].clone();
    world.end_and_settle(&first, LONG_AGO, &[(small.clone(), "1", "a")]);
    assert_eq!(world.pods_of(&small).len(), 4);
    let large = world.ask(Demand { created: at(1), ..of(&queue, "large", &shape("2", json!({})), 1) });
    world.admission.pass(at(LONG_AGO));
    (world, queue, small, large)
}

/// So long a task of a job takes.
fn expect(world: &mut World, uid: &Uid, run: Option<SignedDuration>) {
    world.admission.jobs.get_mut(uid).unwrap().demand.interruption.expected = run;
}

#[test]
fn small_pods_take_what_comes_free_for_ten_minutes_and_then_a_node_is_kept() {
    let (mut world, _, small, large) = crowded();
    let jobs = [(small.clone(), "1", "a"), (large.clone(), "2", "a")];
    assert_eq!(world.admission.verdict(&large).wake_at, Some(at(LONG_AGO + 600)));
    assert_eq!(world.admission.due(at(LONG_AGO)), Some(at(LONG_AGO + 600)));
    let first = world.pods_of(&small)[0].clone();
    world.end_and_settle(&first, LONG_AGO + 599, &jobs);
    assert_eq!((world.pods_of(&small).len(), world.admission.kept_nodes()), (4, vec![]));
    world.admission.pass(at(LONG_AGO + 600));
    let [(_, node, None)] = &world.admission.kept_nodes()[..] else {
        panic!("{:?}", world.admission.kept_nodes())
    };
    let node = node.clone();
    // On the other node they go on.
    let on = |world: &World, node: &str, other: bool| {
        let mut pods = world.pods_of(&small);
        pods.retain(|pod| (world.pods[pod].3.as_deref() == Some(node)) != other);
        pods
    };
    let elsewhere = on(&world, &node, true)[0].clone();
    world.end_and_settle(&elsewhere, LONG_AGO + 601, &jobs);
    assert_eq!(on(&world, &node, true).len(), 2);
    // There nobody follows, and they are told why.
    for left in [1, 0] {
        let pod = on(&world, &node, false)[0].clone();
        world.end_and_settle(&pod, LONG_AGO + 602, &jobs);
        assert_eq!(on(&world, &node, false).len(), left);
        if left == 1 {
            let waiting = world.admission.verdict(&small).waiting.unwrap();
            assert_eq!(waiting.reason, QueuedReason::HeadBlocked, "{}", waiting.message);
        }
    }
    assert_eq!(world.pods_of(&large).len(), 1, "it has the node");
    assert_eq!(world.admission.kept_nodes(), []);
    world.nothing_overcommitted();
}

#[test]
fn who_ends_in_time_uses_the_node_meanwhile_and_so_does_a_higher_tier_or_priority() {
    for (tier, priority, run, enters) in [
        (Tier::BestEffort, 0, None, false),
        (Tier::BestEffort, 0, Some(700), false),
        (Tier::BestEffort, 0, Some(300), true),
        (Tier::BestEffort, 1, None, true),
        (Tier::Standard, 0, None, true),
    ] {
        let (mut world, queue, small, large) = crowded();
        // All that run are done at second LONG_AGO + 1000; so they say.
        let ends = LONG_AGO + 1000;
        expect(&mut world, &small, Some(SignedDuration::from_secs(ends)));
        world.admission.withdraw(&large);
        let large = world.ask(Demand { created: at(1), ..of(&queue, "large", &shape("2", json!({})), 1) });
        world.admission.pass(at(LONG_AGO));
        world.ask(of(&queue, "small", &shape("1", json!({})), 0));
        expect(&mut world, &small, Some(SignedDuration::from_secs(ends)));
        world.admission.pass(at(LONG_AGO + 600));
        let kept = world.admission.kept_nodes();
        let [(_, node, Some(free_at))] = &kept[..] else { panic!("{kept:?}") };
        assert_eq!(*free_at, at(ends));
        let pod =
            world.pods_of(&small).into_iter().find(|pod| world.pods[pod].3.as_ref() == Some(node)).unwrap();
        let other = world.ask(Demand { tier, priority, ..of(&queue, "other", &shape("1", json!({})), 1) });
        expect(&mut world, &other, run.map(SignedDuration::from_secs));
        world.end(&pod);
        world.admission.pass(at(LONG_AGO + 601));
        assert_eq!(world.admission.verdict(&other).granted == 1, enters, "{tier:?} {priority} {run:?}");
        assert_eq!(world.admission.verdict(&large).granted, 0);
        world.nothing_overcommitted();
    }
}

#[test]
fn one_class_of_a_queue_has_a_node_and_another_queue_has_another() {
    let mut world = World::new(&[("n1", "2"), ("n2", "2"), ("n3", "2")]);
    let small = world.offer("b", "small", &shape("1", json!({})), 6);
    world.settle(&[(small, "1", "b")]);
    for (queue, number) in [("x", 0), ("x", 1), ("y", 2)] {
        let queue = world.queue(queue, &cores(9, 9));
        let large = shape("2", json!({}));
        world.ask(Demand { priority: number, ..of(&queue, &format!("large{number}"), &large, 1) });
    }
    world.admission.pass(at(1));
    world.admission.pass(at(601));
    let mut nodes: Vec<String> = world.admission.kept_nodes().into_iter().map(|(_, node, _)| node).collect();
    nodes.sort();
    nodes.dedup();
    assert_eq!(nodes.len(), 2, "one for each queue");
    // It is kept as long as it is waited for.
    for number in 0..3 {
        world.admission.withdraw(&Uid(format!("a-large{number}").into()));
    }
    world.admission.pass(at(602));
    assert_eq!(world.admission.kept_nodes(), []);
}

#[test]
fn no_node_is_kept_for_what_fits_on_none_even_when_it_is_empty_of_batch_work() {
    let mut world = World::new(&[("n1", "2")]);
    let online = json!({
        "metadata": {"name": "web", "namespace": "online", "uid": "web", "resourceVersion": "1"},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]},
        "status": {"phase": "Running"},
    });
    world.admission.pod_changed(&apply(online));
    world.offer("a", "large", &shape("2", json!({})), 1);
    world.admission.pass(at(1));
    world.admission.pass(at(601));
    assert_eq!(world.admission.kept_nodes(), []);
}

#[test]
fn no_node_is_kept_for_who_would_not_finish_before_a_peak() {
    // Pods are ended from LONG_AGO + 700 on.
    const PEAK: &str = "
- {name: noon, window: {start: '03:00', end: '04:00', timeZone: UTC}, leadSeconds: 100, actions: [{tier: BestEffort, action: Drain}]}
";
    for run in [100, 101] {
        let (mut world, queue, _, large) = crowded();
        let windows: Vec<PeakWindow> = serde_yaml::from_str(PEAK).unwrap();
        let peaks = Peaks::new(&Uid("q".into()), &windows, None);
        world.admission.peaks_changed(&queue, Some(Arc::new(peaks)), None);
        world.admission.withdraw(&large);
        // Nobody else waits.
        world.ask(of(&queue, "small", &shape("1", json!({})), 4));
        let interruption = Interruptibility {
            policy: InterruptionPolicy::FinishOrDontStart,
            expected: Some(SignedDuration::from_secs(run)),
            ..Interruptibility::default()
        };
        let large = of(&queue, "large", &shape("2", json!({})), 1);
        world.ask(Demand { created: at(1), interruption, ..large });
        world.admission.pass(at(LONG_AGO));
        world.admission.pass(at(LONG_AGO + 600));
        assert_eq!(world.admission.kept_nodes().len(), usize::from(run == 100), "{run}");
        world.admission.dirty = true;
        world.admission.pass(at(LONG_AGO + 601));
        assert_eq!(world.admission.kept_nodes(), [], "{run}");
    }
}

/// One node that is full, and a job that fits on it alone; both are of namespaces of their own.
fn full_node() -> (World, Uid) {
    let mut world = World::new(&[("n1", "2")]);
    let small = world.offer("b", "small", &shape("1", json!({})), 2);
    world.settle(&[(small.clone(), "1", "b")]);
    (world, small)
}

impl World {
    /// A job is over.
    fn finish_all(&mut self, job: &Uid) {
        self.admission.withdraw(job);
        for pod in self.pods_of(job) {
            self.end(&pod);
        }
    }
}

#[test]
fn no_node_is_kept_for_who_waits_behind_the_first_of_a_strict_queue() {
    for (size, keeps) in [("3", false), ("2", true)] {
        let (mut world, small) = full_node();
        let queue = world.queue("q", &QueueRules { ordering: Ordering::StrictFifo, ..cores(2, 2) });
        let large = shape("2", json!({}));
        // With three cores it never fits.
        world.ask(of(&queue, "first", &shape(size, json!({})), 1));
        world.ask(Demand { created: at(1), priority: -1, ..of(&queue, "second", &large, 1) });
        world.admission.pass(at(1));
        world.admission.pass(at(601));
        assert_eq!(world.admission.kept_nodes().len(), usize::from(keeps), "{size}");
        let other = world.offer("c", "other", &large, 1);
        world.finish_all(&small);
        world.admission.pass(at(602));
        assert_eq!(world.admission.verdict(&other).granted == 0, keeps, "{size}");
    }
}

#[test]
fn two_gangs_do_not_keep_from_each_other_what_both_need() {
    let mut world = World::new(&[("n1", "2"), ("n2", "2")]);
    let one = shape("1", json!({}));
    let small = world.offer("b", "small", &one, 2);
    world.settle(&[(small.clone(), "1", "b")]);
    // It is on both nodes, of which three pods need both.
    let gangs = ["x", "y"].map(|name| {
        let queue = world.queue(name, &cores(9, 9));
        world.ask(Demand { min_parallelism: 3, ..of(&queue, name, &one, 3) })
    });
    world.admission.pass(at(1));
    world.admission.pass(at(601));
    world.finish_all(&small);
    world.admission.pass(at(602));
    let granted = gangs.each_ref().map(|gang| world.admission.verdict(gang).granted);
    assert_eq!(granted.iter().sum::<u32>(), 3, "{granted:?}");
    let first = gangs.iter().find(|gang| world.admission.verdict(gang).granted > 0).unwrap().clone();
    while world.make(&first, "1", "a").is_some() {}
    world.finish_all(&first);
    world.admission.pass(at(603));
    let second = gangs.iter().find(|gang| **gang != first).unwrap();
    assert_eq!(world.admission.verdict(second).granted, 3);
}

#[test]
fn a_node_that_is_kept_for_nobody_any_more_is_for_others_at_once() {
    let (mut world, small) = full_node();
    let queue = world.queue("q", &cores(2, 2));
    let large = shape("2", json!({}));
    let waits = world.ask(of(&queue, "large", &large, 1));
    world.admission.pass(at(1));
    world.admission.pass(at(601));
    assert_eq!(world.admission.kept_nodes().len(), 1);
    // Its quota is gone, with the very change that makes room on the node.
    let other = world.offer("c", "other", &large, 1);
    world.queue("q", &cores(1, 1));
    world.finish_all(&small);
    world.admission.pass(at(602));
    assert_eq!([&waits, &other].map(|job| world.admission.verdict(job).granted), [0, 1]);
    assert_eq!(world.admission.kept_nodes(), []);
}
