//! What is taken back: by a quota's cut, by a lender, by a higher tier.

use super::queues::{cores, lending, of};
use super::*;

impl World {
    /// What every job must give back, by its cause.
    fn claims(&self) -> Vec<(String, u32, ReclaimCause)> {
        let told = |uid: &Uid| Some((uid.0.to_string(), self.admission.verdict(uid).reclaim?));
        let mut claims: Vec<_> = self.admission.jobs.keys().filter_map(told).collect();
        claims.sort_by(|(one, _), (other, _)| one.cmp(other));
        claims.into_iter().map(|(job, claim)| (job, claim.keep, claim.cause)).collect()
    }

    /// Every job gives back what is claimed: those pods are gone at once.
    pub(super) fn give_back(&mut self) {
        for (job, ..) in self.claims() {
            for pod in self.claimed_of(&Uid(job.as_str().into())) {
                self.end(&pod);
            }
        }
    }

    /// The pods that a job would end now: those that are named, else its newest.
    pub(super) fn claimed_of(&self, job: &Uid) -> Vec<String> {
        let Some(reclaim) = self.admission.verdict(job).reclaim else { return Vec::new() };
        let mut own: Vec<String> =
            self.pods.iter().filter(|(_, pod)| pod.0 == *job).map(|(name, _)| name.clone()).collect();
        own.sort_by_key(|name| name[1..].parse::<u32>().unwrap());
        match reclaim.pods.is_empty() {
            true => own.split_off(reclaim.keep as usize),
            false => own.into_iter().filter(|pod| reclaim.pods.contains(&Uid(pod.as_str().into()))).collect(),
        }
    }
}

fn yields_to(by: &[Tier], rules: QueueRules) -> QueueRules {
    let tier = TierRules { preemptible_by: by.to_vec(), ..TierRules::default() };
    QueueRules { tiers: BTreeMap::from([(Tier::BestEffort, tier.clone()), (Tier::Standard, tier)]), ..rules }
}

#[test]
fn a_quota_that_is_cut_is_kept_again_as_elastic_jobs_shrink_before_others_stop() {
    let mut world = World::new(&[("n1", "32")]);
    let queue = world.queue("q", &cores(10, 10));
    let one = shape("1", json!({}));
    let elastic = world.ask(Demand { min_parallelism: 2, ..of(&queue, "elastic", &one, 6) });
    world.settle(&[(elastic.clone(), "1", "a")]);
    let jobs: Vec<Uid> = (0..4)
        .map(|number| {
            let created = at(number);
            world.ask(Demand { created, ..of(&queue, &format!("j{number}"), &one, 1) })
        })
        .collect();
    world.settle(&jobs.iter().map(|job| (job.clone(), "1", "a")).collect::<Vec<_>>());
    assert_eq!(world.admission.figures(&queue).used.cpu, 10_000);
    let shrunk = ReclaimCause::QuotaShrunk;
    world.queue("q", &cores(5, 5));
    let woken = world.admission.pass(at(2));
    assert_eq!(world.claims(), [("a-elastic".into(), 2, shrunk), ("a-j3".into(), 0, shrunk)]);
    assert_eq!(woken, ["elastic", "j3"].map(|name| ObjectKey::new("a", name)));
    // What is on its way back is not claimed again, and nobody is asked instead of somebody who was.
    for pod in ["p3", "p4"] {
        world.delete(pod);
    }
    world.ask(Demand { created: at(9), ..of(&queue, "new", &one, 1) });
    world.admission.pass(at(3));
    assert_eq!(world.claims(), [("a-elastic".into(), 2, shrunk), ("a-j3".into(), 0, shrunk)]);
    world.give_back();
    world.admission.pass(at(4));
    assert_eq!(world.claims(), []);
    assert_eq!(world.admission.figures(&queue).used.cpu, 5000);
    // It wants the rest still, at its old place, and has it when the quota is back.
    world.queue("q", &cores(12, 12));
    world.ask(Demand { min_parallelism: 2, ..of(&queue, "elastic", &one, 6) });
    world.settle(&[(elastic.clone(), "1", "a")]);
    assert_eq!(world.admission.verdict(&elastic).granted, 6);
}

#[test]
fn grants_in_flight_are_taken_back_before_pods() {
    let mut world = World::new(&[("n1", "32")]);
    let queue = world.queue("q", &cores(4, 4));
    let job = world.ask(of(&queue, "j", &shape("1", json!({})), 4));
    world.admission.pass(at(1));
    world.make(&job, "1", "a").unwrap();
    world.admission.pass(at(1));
    assert_eq!(world.admission.verdict(&job).granted, 3);
    world.queue("q", &cores(1, 1));
    world.admission.pass(at(2));
    assert_eq!(world.admission.verdict(&job).granted, 1);
    assert_eq!(world.claims(), []);
}

#[test]
fn a_lender_has_back_what_it_can_use_and_no_more() {
    let mut world = World::new(&[("n1", "32")]);
    let one = shape("1", json!({}));
    let borrower = world.queue("borrower", &lending(2, 10));
    let lender = world.queue("lender", &lending(6, 6));
    let loan = world.ask(Demand { tier: Tier::Standard, ..of(&borrower, "standard", &one, 3) });
    world.settle(&[(loan.clone(), "1", "a")]);
    let best = world.ask(of(&borrower, "best", &one, 5));
    world.settle(&[(best.clone(), "1", "a")]);
    assert_eq!(world.admission.figures(&borrower).borrowed.cpu, 6000);
    let gang = world.ask(Demand { min_parallelism: 4, ..of(&lender, "gang", &one, 4) });
    let more = world.ask(of(&lender, "more", &one, 9));
    world.admission.pass(at(1));
    assert_eq!(world.claims(), [("a-best".into(), 1, ReclaimCause::Reclaimed)]);
    world.give_back();
    world.admission.pass(at(2));
    assert_eq!(world.admission.verdict(&gang).granted, 4);
    for _ in 0..20 {
        world.settle(&[(gang.clone(), "1", "a"), (more.clone(), "1", "a")]);
        world.give_back();
    }
    // The lender has its own, and no more; whoever had borrowed has its own too, the higher tier last.
    assert_eq!(world.admission.figures(&lender).used.cpu, 6000);
    assert_eq!(world.admission.figures(&borrower).used.cpu, 2000);
    assert_eq!([&loan, &best].map(|job| world.admission.verdict(job).granted), [1, 1]);
    assert_eq!(world.claims(), []);
}

#[test]
fn nobody_is_ended_for_what_does_not_start_all_the_same() {
    let mut world = World::new(&[("n1", "4"), ("n2", "4")]);
    let one = shape("1", json!({}));
    let queue = world.queue("q", &yields_to(&[Tier::Guaranteed], cores(8, 8)));
    let standard =
        world.ask(Demand { tier: Tier::Standard, min_parallelism: 2, ..of(&queue, "standard", &one, 2) });
    world.settle(&[(standard.clone(), "1", "a")]);
    let low: Vec<Uid> =
        (0..6).map(|number| world.ask(of(&queue, &format!("low{number}"), &one, 1))).collect();
    world.settle(&low.iter().map(|job| (job.clone(), "1", "a")).collect::<Vec<_>>());
    let huge =
        world.ask(Demand { tier: Tier::Guaranteed, min_parallelism: 9, ..of(&queue, "huge", &one, 9) });
    world.admission.pass(at(1));
    assert_eq!(world.claims(), []);
    world.admission.withdraw(&huge);
    // A tier that is not named has no such right.
    let equal = world.ask(Demand { tier: Tier::Standard, ..of(&queue, "equal", &one, 1) });
    world.admission.pass(at(1));
    assert_eq!(world.claims(), []);
    world.admission.withdraw(&equal);
    // Three cores on one node: only pods of one node help, and no more of them than it takes.
    let big = world.ask(Demand { tier: Tier::Guaranteed, ..of(&queue, "big", &shape("3", json!({})), 1) });
    world.admission.pass(at(1));
    let claims = world.claims();
    assert_eq!(claims.len(), 3, "{claims:?}");
    assert!(claims.iter().all(|(job, keep, cause)| {
        job.starts_with("a-low") && *keep == 0 && *cause == ReclaimCause::Preempted
    }));
    world.give_back();
    world.admission.pass(at(2));
    assert_eq!(world.admission.verdict(&big).granted, 1);
    assert_eq!(world.claims(), []);
    world.nothing_overcommitted();
}

#[test]
fn what_was_given_up_for_one_is_not_for_whoever_comes_first() {
    let mut world = World::new(&[("n1", "2")]);
    let one = shape("1", json!({}));
    let queue = world.queue("q", &yields_to(&[Tier::Guaranteed], cores(2, 2)));
    let low = world.ask(of(&queue, "low", &one, 2));
    world.settle(&[(low.clone(), "1", "a")]);
    let other = world.offer("b", "other", &one, 1);
    let high = world.ask(Demand { tier: Tier::Guaranteed, ..of(&queue, "high", &one, 1) });
    world.admission.pass(at(1));
    assert_eq!(world.claims(), [("a-low".into(), 1, ReclaimCause::Preempted)]);
    world.delete("p2");
    world.admission.pass(at(2));
    assert_eq!(world.claims(), [], "what is on its way back is enough");
    world.end("p2");
    world.admission.pass(at(3));
    assert_eq!([&high, &other].map(|job| world.admission.verdict(job).granted), [1, 0]);
}

#[test]
fn pods_run_as_long_as_they_are_promised() {
    let mut world = World::new(&[("n1", "2")]);
    let one = shape("1", json!({}));
    let mut rules = yields_to(&[Tier::Guaranteed], cores(2, 2));
    rules.tiers.get_mut(&Tier::BestEffort).unwrap().min_run = SignedDuration::from_secs(60);
    let queue = world.queue("q", &rules);
    let low = world.ask(of(&queue, "low", &one, 2));
    world.settle(&[(low.clone(), "1", "a")]);
    let high = world.ask(Demand { tier: Tier::Guaranteed, ..of(&queue, "high", &one, 1) });
    // Its pods are of the first second of the era.
    world.admission.pass(at(10));
    assert_eq!((world.claims(), world.admission.verdict(&high).wake_at), (vec![], Some(at(60))));
    world.admission.pass(at(60));
    assert_eq!(world.claims(), [("a-low".into(), 1, ReclaimCause::Preempted)]);
}

#[test]
fn a_pod_that_is_stuck_is_waited_for_no_longer() {
    let mut world = World::new(&[("n1", "2")]);
    let one = shape("1", json!({}));
    let queue = world.queue("q", &yields_to(&[Tier::Guaranteed], cores(2, 2)));
    let low = world.ask(of(&queue, "low", &one, 2));
    world.settle(&[(low.clone(), "1", "a")]);
    world.ask(Demand { tier: Tier::Guaranteed, ..of(&queue, "high", &one, 1) });
    // Its time is over at second 30.
    world.delete("p2");
    world.admission.pass(at(40));
    assert_eq!(world.claims(), []);
    world.ask(of(&queue, "later", &one, 1));
    world.admission.pass(at(91));
    assert_eq!(world.claims(), [("a-low".into(), 0, ReclaimCause::Preempted)]);
}
