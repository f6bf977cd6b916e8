//! BatchQueues: quota, cohorts, what their source offers, who is taken in.

use super::*;
use springtide_plumbing::resources::ResourceList;
use springtide_crds::batch_job::StopPolicy;

/// A quota in whole cores: nominal and max.
pub(super) fn cores(nominal: i64, max: i64) -> QueueRules {
    let row = QuotaRow { resource: "cpu".into(), nominal: nominal * 1000, max: max * 1000 };
    QueueRules {
        quota: vec![row],
        source: CapacitySource::Static,
        max_tier: Tier::Guaranteed,
        ..QueueRules::default()
    }
}

/// So many thousandths of a core.
pub(super) fn cpu(amount: i64) -> ResourceList {
    [(Arc::from("cpu"), amount)].into_iter().collect()
}

pub(super) fn lending(nominal: i64, max: i64) -> QueueRules {
    QueueRules { cohort: Some("idle".into()), ..cores(nominal, max) }
}

pub(super) fn of(queue: &QueueId, name: &str, shape: &Arc<Shape>, target: u32) -> Demand {
    Demand { queue: queue.clone(), target, ..demand("a", name, shape) }
}

fn waits(world: &World, job: &Uid) -> Waiting {
    world.admission.verdict(job).waiting.unwrap()
}

fn used(world: &World, queue: &QueueId) -> i64 {
    world.admission.figures(queue).used.cpu
}

#[test]
fn a_quota_bounds_what_is_granted_and_says_so() {
    let mut world = World::new(&[("n1", "16")]);
    let queue = world.queue("q", &cores(2, 2));
    let one = shape("1", json!({}));
    let job = world.ask(of(&queue, "j", &one, 5));
    let free = world.offer("a", "free", &one, 3);
    world.settle(&[(job.clone(), "1", "a"), (free.clone(), "1", "a")]);
    assert_eq!(world.admission.verdict(&job).granted, 2);
    assert_eq!(world.admission.verdict(&free).granted, 3, "another queue's quota is nothing to it");
    let waiting = waits(&world, &job);
    assert_eq!(waiting.reason, QueuedReason::QuotaExceeded);
    assert!(waiting.message.contains("uses 2 of 2 cpu"), "{}", waiting.message);
    let figures = world.admission.figures(&queue);
    assert_eq!((figures.admitted_jobs, figures.pending_jobs, figures.running_pods), (1, 0, 2));
    assert_eq!(figures.used.cpu, 2000);
    let [class] = &figures.waiting[..] else { panic!("{figures:?}") };
    assert_eq!((class.jobs, class.resource.as_deref()), (1, Some("cpu")));
    world.end("p1");
    world.settle(&[(job.clone(), "1", "a")]);
    assert_eq!(world.admission.verdict(&job).granted, 2);
    assert_eq!(used(&world, &queue), 2000);
}

#[test]
fn more_than_the_queue_may_ever_have_never_fits() {
    let mut world = World::new(&[("n1", "16")]);
    let queue = world.queue("q", &cores(2, 8));
    let job = world.ask(Demand { min_parallelism: 3, ..of(&queue, "j", &shape("1", json!({})), 3) });
    world.admission.pass(at(1));
    assert_eq!(waits(&world, &job).reason, QueuedReason::NeverFits, "alone, it borrows from nobody");
    world.queue("q", &lending(2, 8));
    world.admission.pass(at(2));
    assert_eq!(waits(&world, &job).reason, QueuedReason::QuotaExceeded);
}

#[test]
fn what_is_not_used_is_lent_and_the_lender_has_the_next_of_it() {
    let mut world = World::new(&[("n1", "64")]);
    let one = shape("1", json!({}));
    let borrower = world.queue("borrower", &lending(4, 7));
    let lender = world.queue("lender", &lending(4, 4));
    let loan = world.ask(of(&borrower, "loan", &one, 20));
    world.settle(&[(loan.clone(), "1", "a")]);
    let figures = world.admission.figures(&borrower);
    assert_eq!((figures.used.cpu, figures.borrowed.cpu), (7000, 3000));
    let own = world.ask(of(&lender, "own", &one, 20));
    world.settle(&[(own.clone(), "1", "a")]);
    assert_eq!(world.admission.verdict(&own).granted, 1, "the cohort has eight, and seven are in use");
    assert!(waits(&world, &own).message.contains("cohort"), "{:?}", waits(&world, &own));
    for pod in ["p1", "p2", "p3"] {
        world.end(pod);
        world.settle(&[(own.clone(), "1", "a"), (loan.clone(), "1", "a")]);
    }
    assert_eq!((used(&world, &borrower), used(&world, &lender)), (4000, 4000));
}

#[test]
fn borrowed_capacity_is_shared_by_weight() {
    let mut world = World::new(&[("n1", "64")]);
    let one = shape("1", json!({}));
    world.queue("lender", &lending(16, 16));
    let rules = |weight, max| QueueRules { weight, ..lending(0, max) };
    let [heavy, light] = ["heavy", "light"].map(|name| world.queue(name, &rules(1, 0)));
    let jobs = [(&heavy, "h"), (&light, "l")].map(|(queue, name)| world.ask(of(queue, name, &one, 40)));
    let jobs = jobs.map(|job| (job, "1", "a"));
    // Each class has shown first that its pods can be created: until then it gets few at once.
    for name in ["heavy", "light"] {
        world.queue(name, &rules(1, 16));
        world.settle(&jobs);
        let pods: Vec<String> = world.pods.keys().cloned().collect();
        assert_eq!(pods.len(), 16);
        for pod in pods {
            world.end(&pod);
        }
        world.queue(name, &rules(1, 0));
    }
    world.queue("heavy", &rules(3, 16));
    world.queue("light", &rules(1, 16));
    world.settle(&jobs);
    assert_eq!((used(&world, &heavy), used(&world, &light)), (12000, 4000));
}

fn nodes_of(world: &mut World, percent: u8, reserve: i64, selector: &[(&str, &str)]) -> QueueId {
    let share = NodeShare {
        selector: selector.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
        percent,
        reserve: cpu(reserve * 1000),
    };
    world.queue(
        "live",
        &QueueRules { source: CapacitySource::NodeAllocatable(share), ..QueueRules::default() },
    )
}

/// A pod that belongs to no BatchJob.
pub(super) fn foreign(name: &str, node: &str, cpu: &str) -> Change<PodView> {
    apply(json!({
        "metadata": {"name": name, "namespace": "online", "uid": name, "resourceVersion": "1"},
        "spec": {"nodeName": node, "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]},
        "status": {"phase": "Running"},
    }))
}

#[test]
fn a_queue_has_its_percentage_of_what_online_pods_leave() {
    let mut world = World::new(&[("n1", "10"), ("n2", "10")]);
    world.admission.node_changed(&node("n3", "10", json!({"spec": {"unschedulable": true}})));
    let queue = nodes_of(&mut world, 60, 2, &[]);
    world.admission.pod_changed(&foreign("web", "n1", "5"));
    let job = world.ask(of(&queue, "j", &shape("1", json!({})), 40));
    world.settle(&[(job.clone(), "1", "a")]);
    // 60 % of (20 - 5), less 2.
    assert_eq!(used(&world, &queue), 7000);
    assert_eq!(world.admission.figures(&queue).capacity.unwrap().cpu, 7000);
    let waiting = waits(&world, &job);
    assert_eq!(waiting.reason, QueuedReason::NoCapacity);
    assert!(waiting.message.contains("capacity of queue live"), "{}", waiting.message);
    let Change::Apply { new: web, .. } = foreign("web", "n1", "5") else { unreachable!() };
    world.admission.pod_changed(&Change::Delete { last: web });
    world.settle(&[(job.clone(), "1", "a")]);
    assert_eq!(used(&world, &queue), 10_000);
    // Capacity follows the nodes; what runs is let alone.
    world.admission.node_changed(&node("n2", "10", json!({"spec": {"unschedulable": true}})));
    world.settle(&[(job.clone(), "1", "a")]);
    assert_eq!(world.admission.figures(&queue).capacity.unwrap().cpu, 4000);
    assert_eq!((used(&world, &queue), world.admission.verdict(&job).reclaim), (10_000, None));
    world.nothing_overcommitted();
}

#[test]
fn a_queue_counts_the_nodes_that_it_selects() {
    let mut world = World::new(&[("n1", "10")]);
    world.admission.node_changed(&node(
        "n2",
        "4",
        json!({"metadata": {"name": "n2", "uid": "n2", "resourceVersion": "1", "labels": {"pool": "batch"}}}),
    ));
    let queue = nodes_of(&mut world, 100, 0, &[("pool", "batch")]);
    let job = world.ask(of(&queue, "j", &shape("1", json!({})), 40));
    world.settle(&[(job.clone(), "1", "a")]);
    assert_eq!(used(&world, &queue), 4000);
}

#[test]
fn what_an_agent_offers_on_the_nodes_counts_by_another_name() {
    const NAME: &str = "kubernetes.io/batch-cpu";
    let mut world = World::new(&[]);
    let status = json!({
        "allocatable": {"cpu": "16", "memory": "64Gi", "pods": "110", NAME: "4000"},
        "conditions": [{"type": "Ready", "status": "True"}],
    });
    world.admission.node_changed(&node("n1", "16", json!({"status": status})));
    let share = NodeShare { percent: 50, ..NodeShare::default() };
    let rules = QueueRules {
        source: CapacitySource::ExtendedResource(share),
        counted_as: BTreeMap::from([(NAME.into(), "cpu".into())]),
        ..cores(10, 10)
    };
    let queue = world.queue("colocated", &rules);
    let batch =
        shape("0", json!({"containers": [{"name": "main", "resources": {"requests": {NAME: "500"}}}]}));
    let job = world.ask(of(&queue, "j", &batch, 40));
    for _ in 0..6 {
        world.admission.pass(at(1));
        let granted = world.admission.jobs[&job].in_flight.len();
        for _ in 0..granted {
            world.make(&job, "0", "a");
        }
    }
    // The pods of this test request nothing of it, so grants in flight are what is counted.
    world.admission.pass(at(1));
    let figures = world.admission.figures(&queue);
    assert_eq!(figures.capacity.unwrap().cpu, 2000);
    let in_flight = i64::try_from(world.admission.jobs[&job].in_flight.len()).unwrap();
    assert_eq!(in_flight, 4, "half of 4000 thousandths, 500 each");
}

#[test]
fn an_old_view_stops_the_queue_that_minds_and_no_other() {
    let mut world = World::new(&[("n1", "16")]);
    let one = shape("1", json!({}));
    let fast = world.queue("fast", &QueueRules { stale_after: SignedDuration::from_secs(10), ..cores(4, 4) });
    let slow = world.queue("slow", &cores(4, 4));
    world.admission.seen_at(at(100));
    let (late, early) = (world.ask(of(&fast, "f", &one, 1)), world.ask(of(&slow, "s", &one, 1)));
    world.admission.pass(at(111));
    assert_eq!(world.admission.verdict(&early).granted, 1);
    assert_eq!(waits(&world, &late).reason, QueuedReason::CapacityStale);
    assert!(world.admission.figures(&fast).is_stale && !world.admission.figures(&slow).is_stale);
    world.admission.seen_at(at(112));
    world.admission.pass(at(112));
    assert_eq!(world.admission.verdict(&late).granted, 1);
}

#[test]
fn without_nodes_only_a_static_queue_works() {
    let mut world = World::new(&[]);
    world.admission = Admission::without_nodes();
    world.admission.set_ready(true, Staleness::Nowhere);
    let fixed = world.queue("fixed", &cores(4, 4));
    let live = world.queue("live", &QueueRules::default());
    let one = shape("1", json!({}));
    let (works, waiting) = (world.ask(of(&fixed, "w", &one, 9)), world.ask(of(&live, "l", &one, 9)));
    for _ in 0..6 {
        world.admission.pass(at(1));
        while !world.admission.jobs[&works].in_flight.is_empty() {
            let pod = world.make_unbound(&works, "1", "a");
            world.bind(&pod, "somewhere");
        }
    }
    assert_eq!(world.admission.verdict(&works).granted, 4);
    let told = waits(&world, &waiting);
    assert_eq!(told.reason, QueuedReason::CapacityStale);
    assert!(told.message.contains("Static"), "{}", told.message);
}

#[test]
fn a_job_waits_for_its_queue_its_tier_and_the_word_of_the_administrator() {
    let mut world = World::new(&[("n1", "16")]);
    let id = QueueId::Object(ObjectKey::new("a", "q"));
    let one = shape("1", json!({}));
    let job = world.ask(Demand { tier: Tier::Standard, ..of(&id, "j", &one, 1) });
    let mut seen = Vec::new();
    let stages = [
        None,
        Some(QueueRules { max_tier: Tier::BestEffort, ..cores(1, 1) }),
        Some(QueueRules { stop: StopPolicy::Hold, ..cores(1, 1) }),
        Some(cores(1, 1)),
    ];
    for rules in stages {
        let woken = world.admission.queue_changed(&id, rules.clone());
        assert_eq!(woken.len(), usize::from(rules.is_some()), "who may be told something else is woken");
        world.admission.pass(at(1));
        let figures = world.admission.figures(&id);
        let verdict = world.admission.verdict(&job);
        assert_eq!(figures.pending_jobs, usize::from(verdict.granted == 0));
        seen.push(verdict.waiting.map(|waiting| waiting.reason));
    }
    let expected = [
        Some(QueuedReason::QueueNotFound),
        Some(QueuedReason::TierNotAllowed),
        Some(QueuedReason::QueueStopped),
        None,
    ];
    assert_eq!(seen, expected);
    // A queue that is drained asks for what runs; one that is gone does not.
    world.make(&job, "1", "a").unwrap();
    world.queue("q", &QueueRules { stop: StopPolicy::Drain, ..cores(1, 1) });
    let (pods, cause) = (BTreeSet::new(), ReclaimCause::QueueStopped);
    let expected = Reclaim { keep: 0, pods, cause, until: None };
    assert_eq!(world.admission.verdict(&job).reclaim, Some(expected));
    world.admission.queue_changed(&id, None);
    assert_eq!(world.admission.verdict(&job).reclaim, None);
}

#[test]
fn in_a_strict_queue_a_blocked_head_blocks() {
    for ordering in [Ordering::StrictFifo, Ordering::PriorityFifo] {
        let mut world = World::new(&[("n1", "8")]);
        let queue = world.queue("q", &QueueRules { ordering, ..cores(3, 3) });
        let (big, one) = (shape("3", json!({})), shape("1", json!({})));
        let ask = |world: &mut World, name: &str, shape: &Arc<Shape>, created: i64| {
            world.ask(Demand { created: at(created), ..of(&queue, name, shape, 1) })
        };
        let first = ask(&mut world, "first", &one, 0);
        let second = ask(&mut world, "second", &one, 1);
        let head = ask(&mut world, "head", &big, 2);
        let after = ask(&mut world, "after", &one, 3);
        let all = [first.clone(), second.clone(), head.clone(), after.clone()];
        let size = |job: &Uid| if *job == head { "3" } else { "1" };
        world.settle(&all.clone().map(|job| (job.clone(), size(&job), "a")));
        let granted = |world: &World| all.each_ref().map(|job| world.admission.verdict(job).granted);
        match ordering {
            Ordering::PriorityFifo => assert_eq!(granted(&world), [1, 1, 0, 1]),
            Ordering::StrictFifo => {
                assert_eq!(granted(&world), [1, 1, 0, 0]);
                assert_eq!(waits(&world, &head).reason, QueuedReason::QuotaExceeded);
                assert_eq!(waits(&world, &after).reason, QueuedReason::HeadBlocked);
                for (job, pod) in [(&first, "p1"), (&second, "p2")] {
                    world.admission.withdraw(job);
                    world.end(pod);
                }
                world.settle(&[(head.clone(), "3", "a"), (after.clone(), "1", "a")]);
                assert_eq!(world.admission.verdict(&head).granted, 1);
                assert_eq!(world.admission.verdict(&after).granted, 0);
                assert_eq!(waits(&world, &after).reason, QueuedReason::QuotaExceeded, "nobody is before it");
            }
        }
    }
}

#[test]
fn in_a_queue_that_is_no_longer_strict_nobody_waits_for_its_head() {
    let mut world = World::new(&[("n1", "8")]);
    let strict = QueueRules { ordering: Ordering::StrictFifo, ..cores(3, 3) };
    let queue = world.queue("q", &strict);
    let (big, one) = (shape("3", json!({})), shape("1", json!({})));
    let first = world.ask(of(&queue, "first", &one, 1));
    world.settle(&[(first, "1", "a")]);
    world.ask(Demand { created: at(1), ..of(&queue, "head", &big, 1) });
    let after = world.ask(Demand { created: at(2), ..of(&queue, "after", &big, 1) });
    world.admission.pass(at(3));
    assert_eq!(waits(&world, &after).reason, QueuedReason::HeadBlocked);
    world.queue("q", &QueueRules { ordering: Ordering::PriorityFifo, ..strict });
    world.admission.pass(at(4));
    assert_eq!(waits(&world, &after).reason, QueuedReason::QuotaExceeded);
}

#[test]
fn the_bound_of_a_queue_follows_its_rules() {
    let mut world = World::new(&[("n1", "1")]);
    let queue = world.queue("q", &QueueRules { max_queued_jobs: 2, ..cores(0, 0) });
    let one = shape("1", json!({}));
    let jobs: Vec<Uid> = (0..4)
        .map(|number| world.ask(Demand { created: at(number), ..of(&queue, &format!("j{number}"), &one, 1) }))
        .collect();
    let full =
        |world: &World| jobs.iter().filter(|job| waits(world, job).reason == QueuedReason::QueueFull).count();
    assert_eq!(full(&world), 2);
    world.queue("q", &QueueRules { max_queued_jobs: 1, ..cores(0, 0) });
    assert_eq!(full(&world), 3);
    world.queue("q", &QueueRules { max_queued_jobs: 3, ..cores(0, 0) });
    assert_eq!(full(&world), 1);
    assert_eq!(world.admission.figures(&queue).pending_jobs, 4);
}

#[test]
fn tiers_go_before_priorities() {
    let mut world = World::new(&[("n1", "8")]);
    let queue = world.queue("q", &cores(1, 1));
    let one = shape("1", json!({}));
    let low = world.ask(Demand { priority: 1000, ..of(&queue, "low", &one, 1) });
    let high = world.ask(Demand { tier: Tier::Standard, priority: -5, ..of(&queue, "high", &one, 1) });
    world.admission.pass(at(1));
    let granted = [&low, &high].map(|job| world.admission.verdict(job).granted);
    assert_eq!(granted, [0, 1]);
}

#[test]
fn a_hundred_free_slots_are_one_pass() {
    let mut world = World::new(&[("n1", "200")]);
    let queue = world.queue("q", &cores(128, 128));
    let tiny = shape("1", json!({}));
    let first = world.ask(of(&queue, "first", &tiny, 128));
    world.admission.node_changed(&node("n2", "200", json!({})));
    world.settle(&[(first.clone(), "1", "a")]);
    assert_eq!(world.admission.verdict(&first).granted, 128);
    for number in 0..1000 {
        world.ask(of(&queue, &format!("j{number}"), &tiny, 1));
    }
    world.admission.withdraw(&first);
    let pods: Vec<String> = world.pods.keys().take(100).cloned().collect();
    for pod in pods {
        world.end(&pod);
    }
    assert_eq!(world.admission.pass(at(2)).len(), 100);
}

#[test]
fn a_thousand_equal_jobs_starve_no_other_class_of_their_queue() {
    let mut world = World::new(&[("n1", "8")]);
    let queue = world.queue("q", &cores(1, 1));
    let (one, like) = (shape("1", json!({})), shape("1", json!({"nodeSelector": {"zone": "a"}})));
    let crowd: Vec<Uid> =
        (0..999).map(|number| world.ask(of(&queue, &format!("c{number}"), &one, 1))).collect();
    let other = world.ask(of(&queue, "other", &like, 1));
    for second in 1.. {
        assert!(second <= 3, "one slot at a time, and the other class waits still");
        world.admission.pass(at(second));
        if world.admission.verdict(&other).granted > 0 {
            break;
        }
        let job = crowd.iter().find(|job| world.admission.verdict(job).granted > 0).unwrap();
        let pod = world.make(job, "1", "a").unwrap();
        world.admission.withdraw(job);
        world.end(&pod);
    }
}

#[test]
fn a_pod_that_is_stuck_holds_the_quota_of_its_own_queue_and_no_other() {
    let mut world = World::new(&[("n1", "8")]);
    let one = shape("1", json!({}));
    let [own, other] = ["own", "other"].map(|name| world.queue(name, &cores(1, 1)));
    let stuck = world.ask(of(&own, "stuck", &one, 1));
    world.settle(&[(stuck.clone(), "1", "a")]);
    world.delete("p1");
    world.admission.withdraw(&stuck);
    let [next, free] =
        [(&own, "next"), (&other, "free")].map(|(queue, name)| world.ask(of(queue, name, &one, 1)));
    world.admission.pass(at(1000));
    assert_eq!(world.admission.verdict(&next).granted, 0);
    assert_eq!(world.admission.verdict(&free).granted, 1);
}

#[test]
fn a_pod_without_requests_takes_quota() {
    let mut world = World::new(&[("n1", "8")]);
    let row = QuotaRow { resource: "cpu".into(), nominal: 250, max: 250 };
    let queue = world.queue("q", &QueueRules { quota: vec![row], ..cores(0, 0) });
    let job = world.ask(of(&queue, "j", &shape("0", json!({})), 9));
    world.settle(&[(job.clone(), "0", "a")]);
    assert_eq!(world.admission.verdict(&job).granted, 2, "100m each");
    assert_eq!(used(&world, &queue), 200);
}
