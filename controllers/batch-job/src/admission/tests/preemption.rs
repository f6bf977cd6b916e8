//! Preemption over many steps: what is given up for somebody is kept until it is enough, nobody has back what was taken
//! from him by who took it, and all of it comes to rest.

use super::queues::{cores, lending, of};
use super::*;
use crate::admission::quota::Fill;
use std::collections::BTreeSet;

fn preemptible(by: &[Tier], rules: QueueRules) -> QueueRules {
    let tier = TierRules { preemptible_by: by.to_vec(), ..TierRules::default() };
    let tiers = [Tier::BestEffort, Tier::Standard, Tier::Guaranteed].map(|name| (name, tier.clone()));
    QueueRules { tiers: BTreeMap::from(tiers), ..rules }
}

fn claims(world: &World) -> Vec<(String, u32, ReclaimCause)> {
    let told = |uid: &Uid| Some((uid.0.to_string(), world.admission.verdict(uid).reclaim?));
    let mut claims: Vec<_> = world.admission.jobs.keys().filter_map(told).collect();
    claims.sort_by(|(one, _), (other, _)| one.cmp(other));
    claims.into_iter().map(|(job, claim)| (job, claim.keep, claim.cause)).collect()
}

#[test]
fn a_higher_priority_goes_first_where_the_tier_yields_to_itself() {
    let one = shape("1", json!({}));
    for (by, expected) in [(Tier::Standard, true), (Tier::Guaranteed, false)] {
        let mut world = World::new(&[("n1", "2")]);
        let queue = world.queue("q", &preemptible(&[by], cores(2, 2)));
        let of_tier = |name: &str, priority, created| Demand {
            tier: Tier::Standard,
            priority,
            created: at(created),
            ..of(&queue, name, &one, 1)
        };
        let old = world.ask(of_tier("old", 0, 1));
        let young = world.ask(of_tier("young", 0, 2));
        world.settle(&[(old, "1", "a"), (young, "1", "a")]);
        world.ask(of_tier("equal", 0, 0));
        world.admission.pass(at(3));
        assert_eq!(claims(&world), [], "of the same priority");
        world.ask(of_tier("high", 1, 9));
        world.admission.pass(at(4));
        let claimed = vec![("a-young".to_owned(), 0, ReclaimCause::Preempted)];
        assert_eq!(claims(&world), if expected { claimed } else { Vec::new() }, "{by:?}");
    }
}

#[test]
fn what_was_borrowed_goes_first_then_lower_tiers_then_lower_priorities_and_last_the_highest_tier_elsewhere() {
    let mut world = World::new(&[("n1", "64")]);
    let one = shape("1", json!({}));
    let by = [Tier::Guaranteed];
    let own = world.queue("own", &preemptible(&by, lending(6, 6)));
    let other = world.queue("other", &preemptible(&[], lending(0, 6)));
    let mut jobs = Vec::new();
    for (queue, name, tier, priority) in [
        (&other, "borrowed-guaranteed", Tier::Guaranteed, 0),
        (&other, "borrowed-standard", Tier::Standard, 0),
        (&other, "borrowed-besteffort", Tier::BestEffort, 0),
        (&own, "own-guaranteed", Tier::Guaranteed, 0),
        (&own, "own-standard", Tier::Standard, 0),
        (&own, "own-besteffort", Tier::BestEffort, 0),
    ] {
        let job = world.ask(Demand { tier, priority, ..of(queue, name, &one, 1) });
        jobs.push((job, "1", "a"));
        world.settle(&jobs);
    }
    let mut order = Vec::new();
    for number in 0..6 {
        let name = format!("high{number}");
        let demand = Demand { tier: Tier::Guaranteed, priority: 1, ..of(&own, &name, &one, 1) };
        let high = world.ask(demand);
        world.admission.pass(at(10 + number));
        let claimed = claims(&world);
        let [(victim, 0, _)] = &claimed[..] else { panic!("{claimed:?}") };
        order.push(victim.trim_start_matches("a-").to_owned());
        let pods: Vec<String> =
            world.pods.iter().filter(|(_, pod)| *pod.0.0 == **victim).map(|(name, _)| name.clone()).collect();
        let victim = Uid(victim.as_str().into());
        for pod in pods {
            world.end(&pod);
        }
        world.admission.withdraw(&victim);
        world.settle(&[(high, "1", "a")]);
    }
    assert_eq!(
        order,
        [
            "borrowed-besteffort",
            "borrowed-standard",
            "own-besteffort",
            "own-standard",
            "own-guaranteed",
            "borrowed-guaranteed",
        ]
    );
}

#[test]
fn who_may_borrow_ends_the_lowest_and_nobody_to_come_below_its_own() {
    let mut world = World::new(&[("n1", "8")]);
    let queue = world.queue("q", &preemptible(&[Tier::Standard], lending(2, 3)));
    world.queue("other", &lending(1, 1));
    let standard = |name: &str, priority, cpu: &str| Demand {
        tier: Tier::Standard,
        priority,
        ..of(&queue, name, &shape(cpu, json!({})), 1)
    };
    let middle = world.ask(standard("middle", 1, "2"));
    world.settle(&[(middle, "2", "a")]);
    let low = world.ask(of(&queue, "low", &shape("1", json!({})), 1));
    world.settle(&[(low, "1", "a")]);
    world.ask(standard("high", 2, "1"));
    world.admission.pass(at(3));
    assert_eq!(claims(&world), [("a-low".into(), 0, ReclaimCause::Preempted)]);
}

#[test]
fn room_that_comes_free_bit_by_bit_is_kept_until_it_is_enough() {
    let mut world = World::new(&[("n1", "3")]);
    let one = shape("1", json!({}));
    let queue = world.queue("q", &preemptible(&[Tier::Guaranteed], cores(8, 8)));
    let low: Vec<Uid> =
        (0..3).map(|number| world.ask(of(&queue, &format!("low{number}"), &one, 1))).collect();
    world.settle(&low.iter().map(|job| (job.clone(), "1", "a")).collect::<Vec<_>>());
    let big = world.ask(Demand { tier: Tier::Guaranteed, ..of(&queue, "big", &shape("3", json!({})), 1) });
    let small = world.offer("b", "small", &one, 3);
    world.admission.pass(at(2));
    assert_eq!(claims(&world).len(), 3);
    for pod in ["p1", "p2", "p3"] {
        assert_eq!([&big, &small].map(|job| world.admission.verdict(job).granted), [0, 0]);
        world.delete(pod);
        world.admission.pass(at(3));
        world.end(pod);
        world.admission.pass(at(4));
    }
    assert_eq!([&big, &small].map(|job| world.admission.verdict(job).granted), [1, 0]);
    world.nothing_overcommitted();
    // Nothing is held any more: the next that comes free is for whoever it fits.
    let pod = world.make(&big, "3", "a").unwrap();
    world.end(&pod);
    world.admission.withdraw(&big);
    world.settle(&[(small.clone(), "1", "b")]);
    assert_eq!(world.admission.verdict(&small).granted, 3);
}

#[test]
fn in_a_strict_queue_the_first_has_what_others_have_ended_for_it() {
    let mut world = World::new(&[("n1", "2"), ("n2", "1")]);
    let one = shape("1", json!({}));
    let rules = preemptible(&[Tier::Guaranteed], cores(8, 8));
    let queue = world.queue("q", &QueueRules { ordering: Ordering::StrictFifo, ..rules });
    let low = |number: usize| of(&queue, &format!("low{number}"), &one, 1);
    let jobs: Vec<Uid> = (0..3).map(|number| world.ask(low(number))).collect();
    world.settle(&jobs.iter().map(|job| (job.clone(), "1", "a")).collect::<Vec<_>>());
    let big = world.ask(Demand { tier: Tier::Guaranteed, ..of(&queue, "big", &shape("2", json!({})), 1) });
    let other = world.offer("b", "other", &one, 1);
    world.admission.pass(at(2));
    assert_eq!(claims(&world).len(), 2, "those on the larger node");
    let in_way = world.pods.iter().filter(|(_, pod)| pod.3.as_deref() == Some("n1"));
    let in_way: Vec<String> = in_way.map(|(pod, _)| pod.clone()).collect();
    // The one on the other node goes on.
    for (pod, granted) in in_way.iter().zip([0, 1]) {
        world.end(pod);
        for number in 0..3 {
            world.ask(low(number));
        }
        world.admission.pass(at(3));
        assert_eq!([&big, &other].map(|job| world.admission.verdict(job).granted), [granted, 0]);
    }
    world.nothing_overcommitted();
}

#[test]
fn what_is_held_for_who_can_not_start_any_more_is_for_others_at_once() {
    let mut world = World::new(&[("n1", "2")]);
    let one = shape("1", json!({}));
    let queue = world.queue("q", &preemptible(&[Tier::Guaranteed], cores(2, 2)));
    let low = ["low0", "low1"].map(|name| world.ask(of(&queue, name, &one, 1)));
    world.settle(&low.each_ref().map(|job| (job.clone(), "1", "a")));
    world.ask(Demand { tier: Tier::Guaranteed, min_parallelism: 2, ..of(&queue, "gang", &one, 2) });
    let other = world.offer("b", "other", &one, 1);
    world.admission.pass(at(2));
    assert_eq!(claims(&world).len(), 2);
    world.end("p1");
    world.admission.pass(at(3));
    assert_eq!(world.admission.verdict(&other).granted, 0, "it is not enough yet");
    world.queue("q", &preemptible(&[Tier::Guaranteed], cores(1, 1)));
    world.admission.pass(at(4));
    assert_eq!(claims(&world), [], "nobody ends for nothing");
    assert_eq!(world.admission.verdict(&other).granted, 1);
}

#[test]
fn a_victim_waits_at_its_old_place() {
    let mut world = World::new(&[("n1", "1")]);
    let one = shape("1", json!({}));
    let queue = world.queue("q", &preemptible(&[Tier::Guaranteed], cores(1, 1)));
    let victim = world.ask(Demand { created: at(1), ..of(&queue, "victim", &one, 1) });
    world.settle(&[(victim.clone(), "1", "a")]);
    let later = world.ask(Demand { created: at(2), ..of(&queue, "later", &one, 1) });
    let high = world.ask(Demand { tier: Tier::Guaranteed, created: at(3), ..of(&queue, "high", &one, 1) });
    world.admission.pass(at(4));
    assert_eq!(claims(&world), [("a-victim".into(), 0, ReclaimCause::Preempted)]);
    world.end("p1");
    world.ask(Demand { created: at(1), ..of(&queue, "victim", &one, 1) });
    world.settle(&[(high.clone(), "1", "a")]);
    world.end("p2");
    world.admission.withdraw(&high);
    world.admission.pass(at(5));
    assert_eq!([&victim, &later].map(|job| world.admission.verdict(job).granted), [1, 0]);
}

#[test]
fn cohorts_of_one_name_lend_over_namespaces_only_where_told() {
    for (scope, granted) in [(CohortScope::Namespace, 1), (CohortScope::Cluster, 3)] {
        let mut world = World::new(&[("n1", "8")]);
        world.admission.set_cohort_scope(scope);
        let one = shape("1", json!({}));
        let borrower = world.queue("borrower", &lending(1, 4));
        let lender = QueueId::Object(ObjectKey::new("b", "lender"));
        world.admission.queue_changed(&lender, Some(lending(2, 2)));
        let loan = world.ask(of(&borrower, "loan", &one, 4));
        world.settle(&[(loan.clone(), "1", "a")]);
        assert_eq!(world.admission.verdict(&loan).granted, granted, "{scope:?}");
        let own = world.ask(Demand { queue: lender, target: 2, ..demand("b", "own", &one) });
        world.admission.pass(at(3));
        let claimed = vec![("a-loan".to_owned(), 2, ReclaimCause::Reclaimed)];
        assert_eq!(claims(&world), if granted == 3 { claimed } else { Vec::new() }, "{scope:?}");
        // What comes back to the lender is borrowed by nobody else of the cohort, wherever it is.
        let class = &world.admission.jobs[&loan].class;
        assert_eq!(world.admission.is_kept_from(class, Fill::Borrowed), granted == 3, "{scope:?}");
        drop(own);
    }
}

/// What a random world is made of: per job its queue, tier, priority, size, pods and gang.
type Job = (usize, usize, i32, usize, u32, bool);

fn job() -> impl Strategy<Value = Job> {
    (0..3_usize, 0..3_usize, 0..3_i32, 0..3_usize, 1..5_u32, any::<bool>())
}

const TIERS: [Tier; 3] = [Tier::BestEffort, Tier::Standard, Tier::Guaranteed];

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Jobs come one after the other and never end by themselves. After each has come, everybody gives back what is
    /// claimed and makes what is granted, until nothing changes: that is soon, so nobody takes back from whom he was
    /// taken from; no queue and no node ever has more than it may; and who could go first by the rules does not wait
    /// behind whom it could end.
    #[test]
    fn preemption_comes_to_rest(
        quotas in prop::collection::vec((0..5_i64, 0..5_i64), 3),
        jobs in prop::collection::vec(job(), 1..10),
    ) {
        let sizes = ["1", "2", "3"];
        let shapes: Vec<_> = sizes.iter().map(|cpu| shape(cpu, json!({}))).collect();
        let mut world = World::new(&[("n0", "4"), ("n1", "5")]);
        let names = ["x", "y", "z"];
        let queues: Vec<QueueId> = names
            .iter()
            .zip(&quotas)
            .map(|(name, (nominal, above))| world.queue(name, &preemptible(&TIERS, lending(*nominal, nominal + above))))
            .collect();
        let mut known: Vec<(Uid, &str, &str)> = Vec::new();
        let mut demands: Vec<Demand> = Vec::new();
        for (number, (queue, tier, priority, size, pods, is_gang)) in jobs.iter().enumerate() {
            let demand = Demand {
                tier: TIERS[*tier],
                priority: *priority,
                created: at(i64::try_from(number).unwrap()),
                min_parallelism: if *is_gang { *pods } else { 1 },
                ..of(&queues[*queue], &format!("j{number}"), &shapes[*size], *pods)
            };
            known.push((demand.uid.clone(), sizes[*size], "a"));
            demands.push(demand);
            let now = at(100 + i64::try_from(number).unwrap());
            let mut taken: BTreeSet<(Uid, Uid)> = BTreeSet::new();
            let mut at_rest = false;
            for _ in 0..60 {
                // Whose pods have changed is planned again, and says anew what it wants.
                for demand in &demands {
                    world.ask(demand.clone());
                }
                world.admission.pass(now);
                let claimed = claims(&world);
                for (claimant, victim) in world.admission.taken.drain(..) {
                    prop_assert!(!taken.contains(&(victim.clone(), claimant.clone())), "ping-pong: {claimant:?} {victim:?}");
                    taken.insert((claimant, victim));
                }
                world.give_back();
                let mut made = 0;
                for (job, cpu, namespace) in &known {
                    while world.make(job, cpu, namespace).is_some() {
                        made += 1;
                    }
                }
                world.nothing_overcommitted();
                let used = |name: &str| world.admission.figures(&QueueId::Object(ObjectKey::new("a", name))).used.cpu;
                let mut all = 0;
                for (name, (nominal, above)) in names.iter().zip(&quotas) {
                    prop_assert!(used(name) <= (nominal + above) * 1000, "{name}");
                    all += used(name);
                }
                prop_assert!(all <= quotas.iter().map(|(nominal, _)| nominal * 1000).sum::<i64>());
                if claimed.is_empty() && made == 0 {
                    at_rest = true;
                    break;
                }
            }
            prop_assert!(at_rest, "still moving: {:?}", claims(&world));
        }
        // A job of one pod that has none does not wait beside a pod of its size and queue that yields to it.
        for (uid, ..) in &known {
            let waiting = &world.admission.jobs[uid];
            if world.admission.verdict(uid).granted > 0 || waiting.demand.min_parallelism > 1 {
                continue;
            }
            for other in world.admission.jobs.values() {
                let could_yield = other.class.line == waiting.class.line
                    && other.class.rank() < waiting.class.rank()
                    && other.class.shape == waiting.class.shape
                    && world.admission.staying(&other.demand.uid) > 0;
                prop_assert!(!could_yield, "{} waits behind {}", uid.0, other.demand.uid.0);
            }
        }
    }
}
