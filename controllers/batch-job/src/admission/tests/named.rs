//! Which pods of a job end where others would not help: those of one node, and no more than the job can spare.

use super::queues::{cores, of};
use super::*;
use std::collections::BTreeSet;

/// Four nodes of four cores, full of pods of one elastic job: pod `i` on node `i % 4`, made in second `i`.
struct Spread {
    world: World,
    queue: QueueId,
    low: Demand,
}

const NODES: [(&str, &str); 4] = [("n0", "4"), ("n1", "4"), ("n2", "4"), ("n3", "4")];

fn rules(min_run: i64) -> QueueRules {
    let tier =
        TierRules { preemptible_by: vec![Tier::Guaranteed], min_run: SignedDuration::from_secs(min_run) };
    QueueRules { tiers: BTreeMap::from([(Tier::BestEffort, tier)]), ..cores(16, 16) }
}

impl Spread {
    fn new(min_parallelism: u32, min_run: i64) -> Self {
        let mut world = World::new(&NODES);
        let queue = world.queue("q", &rules(min_run));
        let low = Demand { min_parallelism, ..of(&queue, "low", &shape("1", json!({})), 16) };
        let job = world.ask(low.clone());
        for number in 0..16 {
            world.admission.pass(at(1));
            let name = world.name_pod(&job, "1", "a");
            world.pods.get_mut(&name).unwrap().3 = Some(format!("n{}", number % 4));
            let pod = Self::manifest(&world, &name);
            world.admission.pod_changed(&apply(pod));
        }
        Self { world, queue, low }
    }

    fn manifest(world: &World, name: &str) -> Value {
        let mut pod = world.manifest(name, "Running");
        let number: i64 = name[1..].parse().unwrap();
        pod["metadata"]["creationTimestamp"] = json!(at(number - 1));
        pod
    }

    fn low(&self) -> Uid {
        self.low.uid.clone()
    }

    /// One pod that takes a node.
    fn high(&self) -> Demand {
        let tier = Tier::Guaranteed;
        Demand { tier, created: at(30), ..of(&self.queue, "high", &shape("4", json!({})), 1) }
    }

    /// Who has to go, and on which nodes.
    fn claimed(&self) -> (Vec<String>, BTreeSet<String>) {
        let pods = self.world.claimed_of(&self.low());
        let nodes = pods.iter().filter_map(|pod| self.world.pods[pod].3.clone()).collect();
        (pods, nodes)
    }

    /// A process that knows nothing but what is stored: `going` are being deleted.
    fn restart(&mut self, going: &[String]) {
        let pods = std::mem::take(&mut self.world.pods);
        let labels = std::mem::take(&mut self.world.labels);
        self.world = World { pods, labels, ..World::new(&NODES) };
        self.queue = self.world.queue("q", &rules(0));
        for name in self.world.pods.keys().cloned().collect::<Vec<_>>() {
            let mut pod = Self::manifest(&self.world, &name);
            if going.contains(&name) {
                pod["metadata"]["deletionTimestamp"] = json!(at(80));
            }
            self.world.admission.pod_changed(&apply(pod));
        }
        self.world.ask(self.low.clone());
    }
}

#[test]
fn who_shrinks_gives_the_pods_of_one_node_and_no_more() {
    // The four newest are on four nodes. With less than four to spare the job cannot make room but as a whole.
    for (min_parallelism, pods) in [(1, 4), (12, 4), (13, 16), (16, 16)] {
        let mut spread = Spread::new(min_parallelism, 0);
        let high = spread.world.ask(spread.high());
        spread.world.admission.pass(at(40));
        let (claimed, nodes) = spread.claimed();
        assert_eq!(claimed.len(), pods, "{min_parallelism} of 16: {claimed:?}");
        assert_eq!(nodes.len(), if pods == 4 { 1 } else { 4 }, "{min_parallelism} of 16: {nodes:?}");
        let keep = spread.world.admission.verdict(&spread.low()).reclaim.map(|reclaim| reclaim.keep as usize);
        assert_eq!(keep, Some(16 - pods));
        for pod in claimed {
            spread.world.end(&pod);
        }
        spread.world.admission.pass(at(41));
        assert_eq!(spread.world.admission.verdict(&high).granted, 1);
        assert_eq!(spread.claimed().0, [] as [String; 0]);
    }
}

#[test]
fn for_many_that_wait_a_job_shrinks_as_far_as_it_can_before_it_ends() {
    let mut spread = Spread::new(12, 0);
    let tier = Tier::Guaranteed;
    let many = Demand { tier, ..of(&spread.queue, "many", &shape("4", json!({})), 4) };
    let many = spread.world.ask(many);
    let class = spread.world.admission.jobs[&many].class.clone();
    for _ in 0..3 {
        spread.world.admission.classes.get_mut(&class).unwrap().confirm();
    }
    assert_eq!(spread.world.admission.classes[&class].allowance(true), 4, "it may ask for all at once");
    for second in [40, 41] {
        spread.world.admission.pass(at(second));
        let (claimed, nodes) = spread.claimed();
        assert_eq!((claimed.len(), nodes.len()), (4, 1), "{claimed:?}");
    }
}

#[test]
fn those_that_were_told_go_and_nobody_in_their_place() {
    let mut spread = Spread::new(1, 0);
    spread.world.ask(spread.high());
    spread.world.admission.pass(at(40));
    let (told, _) = spread.claimed();
    for gone in 0..told.len() {
        let left = &told[gone..];
        assert_eq!(spread.claimed().0, left);
        // One that ends by itself elsewhere changes nothing about it.
        let by_itself = ["p1", "p2", "p3"].into_iter().find(|pod| spread.world.pods.contains_key(*pod));
        if let Some(pod) = by_itself.filter(|pod| !told.contains(&(*pod).to_owned())) {
            spread.world.end(pod);
            spread.world.admission.pass(at(41));
            assert_eq!(spread.claimed().0, left, "{pod} has ended");
        }
        spread.world.delete(&told[gone]);
        spread.world.admission.pass(at(42));
    }
    assert_eq!(spread.claimed().0, [] as [String; 0], "what is on its way back is enough");
}

#[test]
fn a_new_process_asks_for_the_rest_of_what_its_predecessor_had_ended_and_for_nobody_else() {
    for gone in 0..=4 {
        let mut spread = Spread::new(1, 0);
        let high = spread.high();
        spread.world.ask(high.clone());
        spread.world.admission.pass(at(40));
        let (told, _) = spread.claimed();
        spread.restart(&told[..gone]);
        spread.world.ask(high);
        spread.world.admission.pass(at(50));
        assert_eq!(spread.claimed().0, told[gone..], "{gone} go already");
    }
}

#[test]
fn who_has_run_long_enough_goes_though_newer_pods_of_its_job_have_not() {
    // At second 38 the first five have had their time, of which two are on one node.
    let mut spread = Spread::new(1, 34);
    let tier = Tier::Guaranteed;
    let two = Demand { tier, ..of(&spread.queue, "high", &shape("2", json!({})), 1) };
    let high = spread.world.ask(two);
    spread.world.admission.pass(at(38));
    assert_eq!(spread.claimed().0, ["p1", "p5"]);
    assert_eq!(spread.world.admission.verdict(&high).granted, 0);
}

#[test]
fn a_pod_that_bears_the_name_of_one_that_was_asked_is_another() {
    let mut spread = Spread::new(1, 0);
    spread.world.ask(spread.high());
    spread.world.admission.pass(at(40));
    let (told, _) = spread.claimed();
    let mut again = Spread::manifest(&spread.world, &told[0]);
    again["metadata"]["uid"] = json!("another");
    spread.world.admission.pod_changed(&apply(again));
    let reclaim = spread.world.admission.verdict(&spread.low()).reclaim.unwrap();
    assert!(!reclaim.pods.contains(&Uid("another".into())));
    assert_eq!(reclaim.keep, 13, "three are left of four");
}
