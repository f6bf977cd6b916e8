//! Random steps: whatever happens in whatever order, no quota and no node is ever exceeded by a grant.

use super::queues::{cores, cpu, of};
use super::*;
use springtide_crds::batch_job::StopPolicy;

/// Steps of the sample, and of the long run (`SPRINGTIDE_LONG=1`).
const SAMPLE: u32 = 20_000;
const LONG: u32 = 1_000_000;
const SIZES: [&str; 4] = ["500m", "1", "2", "3"];
const QUEUES: [&str; 4] = ["alone", "lender", "borrower", "live"];
const JOBS: u64 = 14;

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): the same steps in every run of one seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }
}

/// A queue in a random state: in and out of a cohort, with quota or live capacity, strict or not.
fn random_rules(random: &mut Random, name: &str) -> QueueRules {
    let nominal = i64::try_from(random.below(7)).unwrap() * 1000;
    let max = nominal + i64::try_from(random.below(5)).unwrap() * 1000;
    let tier = TierRules { preemptible_by: vec![Tier::Standard, Tier::Guaranteed], ..TierRules::default() };
    QueueRules {
        cohort: (name == "lender" || name == "borrower").then(|| "c".into()),
        weight: u32::try_from(random.below(3)).unwrap() + 1,
        quota: match name {
            "live" => Vec::new(),
            _ => vec![QuotaRow { resource: "cpu".into(), nominal, max }],
        },
        source: match name {
            "live" => CapacitySource::NodeAllocatable(NodeShare {
                percent: u8::try_from(random.below(100)).unwrap() + 1,
                reserve: cpu(500),
                ..NodeShare::default()
            }),
            _ => CapacitySource::Static,
        },
        ordering: *random.pick(&[Ordering::PriorityFifo, Ordering::PriorityFifo, Ordering::StrictFifo]),
        max_queued_jobs: usize::try_from(random.below(5)).unwrap() + 1,
        max_tier: Tier::Guaranteed,
        stop: *random.pick(&[StopPolicy::None, StopPolicy::None, StopPolicy::None, StopPolicy::Hold]),
        tiers: BTreeMap::from([(Tier::BestEffort, tier)]),
        ..QueueRules::default()
    }
}

/// A world and what is known of it besides.
struct Walk {
    world: World,
    random: Random,
    now: Timestamp,
    nodes: BTreeMap<&'static str, bool>,
    rules: BTreeMap<&'static str, QueueRules>,
    shapes: Vec<Arc<Shape>>,
    foreign: Vec<(String, &'static str)>,
}

const NODES: [(&str, &str); 4] = [("n0", "3"), ("n1", "4"), ("n2", "6"), ("n3", "8")];

impl Walk {
    fn new(seed: u64) -> Self {
        let mut walk = Self {
            world: World::new(&NODES),
            random: Random(seed),
            now: at(1),
            nodes: NODES.iter().map(|(name, _)| (*name, true)).collect(),
            rules: BTreeMap::new(),
            shapes: SIZES.iter().map(|cpu| shape(cpu, json!({}))).collect(),
            foreign: Vec::new(),
        };
        for name in QUEUES {
            walk.change_rules(name);
        }
        walk
    }

    fn change_rules(&mut self, name: &'static str) {
        let rules = random_rules(&mut self.random, name);
        self.world.queue(name, &rules);
        self.rules.insert(name, rules);
    }

    fn size(number: u64) -> usize {
        usize::try_from(number).unwrap() % SIZES.len()
    }

    fn uid(number: u64) -> Uid {
        Uid(format!("a-j{number}").into())
    }

    fn step(&mut self) {
        self.now = self.now.checked_add(SignedDuration::from_millis(300)).unwrap();
        let job = self.random.below(JOBS);
        match self.random.below(22) {
            0..=3 => self.offer(job),
            4 => self.world.admission.withdraw(&Self::uid(job)),
            5..=9 => drop(self.world.make(&Self::uid(job), SIZES[Self::size(job)], "a")),
            10..=12 => self.end_any(),
            13 => self.world.admission.pause(&Self::uid(job), Trouble::Quota, self.now),
            14 => {
                // One that waits for a node is gone at once.
                if let Some(name) = self.any_pod().filter(|name| self.world.pods[name].3.is_some()) {
                    self.world.delete(&name);
                }
            }
            15 => self.turn_node(),
            16 => self.come_or_go_online(),
            17 if self.random.below(8) == 0 => {
                let name = *self.random.pick(&QUEUES);
                self.change_rules(name);
            }
            18 => self.give_back(),
            _ => self.pass(),
        }
        self.world.nothing_overcommitted();
    }

    fn offer(&mut self, job: u64) {
        let queue = match *self.random.pick(&["", "alone", "lender", "borrower", "live"]) {
            "" => QueueId::BuiltIn,
            name => QueueId::Object(ObjectKey::new("a", name)),
        };
        // A job stays in the queue that its pods are in.
        let pod = self.world.pods.iter().find(|(_, pod)| pod.0 == Self::uid(job)).map(|(pod, _)| pod);
        let held = pod.map(|pod| match self.world.labels.get(pod) {
            Some(labels) => {
                QueueId::Object(ObjectKey::new("a", labels["springtide.dev/queue"].as_str().unwrap()))
            }
            None => QueueId::BuiltIn,
        });
        let known = self.world.admission.jobs.get(&Self::uid(job)).map(|job| job.demand.queue.clone());
        let queue = held.or(known).unwrap_or(queue);
        let target = u32::try_from(self.random.below(6)).unwrap();
        let shape = Arc::clone(&self.shapes[Self::size(job)]);
        let demand = Demand {
            tier: *self.random.pick(&[Tier::BestEffort, Tier::Standard, Tier::Guaranteed]),
            min_parallelism: if job.is_multiple_of(5) { target.min(2) } else { 1 },
            created: at(i64::try_from(job).unwrap()),
            ..of(&queue, &format!("j{job}"), &shape, target)
        };
        self.world.ask(demand);
    }

    fn any_pod(&mut self) -> Option<String> {
        let pods = self.world.pods.len() as u64;
        let at = usize::try_from(self.random.below(pods.max(1))).unwrap();
        self.world.pods.keys().nth(at).cloned()
    }

    fn end_any(&mut self) {
        if let Some(name) = self.any_pod() {
            self.world.end(&name);
        }
    }

    fn turn_node(&mut self) {
        let (name, cpu) = *self.random.pick(&NODES);
        let change = node(name, cpu, json!({}));
        let there = self.nodes.get_mut(name).unwrap();
        let Change::Apply { new, .. } = &change else { unreachable!() };
        let gone = Change::Delete { last: Arc::clone(new) };
        self.world.admission.node_changed(if *there { &gone } else { &change });
        *there = !*there;
        if !*there {
            // As the garbage collector does with the pods of a node that has gone.
            let of_node = |pod: &(Uid, String, String, Option<String>)| pod.3.as_deref() == Some(name);
            let gone: Vec<String> =
                self.world.pods.iter().filter(|(_, pod)| of_node(pod)).map(|(pod, _)| pod.clone()).collect();
            for pod in gone {
                self.world.end(&pod);
            }
            let (left, _): (Vec<_>, Vec<_>) = self.foreign.drain(..).partition(|(_, on)| *on != name);
            for (pod, on) in std::mem::replace(&mut self.foreign, left) {
                self.world.admission.pod_changed(&online(&pod, on, "Succeeded"));
            }
        }
    }

    /// A pod of somebody else's comes where there is room for it, or goes.
    fn come_or_go_online(&mut self) {
        if self.random.below(2) == 0 {
            if let Some((pod, on)) = self.foreign.pop() {
                self.world.admission.pod_changed(&online(&pod, on, "Succeeded"));
            }
            return;
        }
        let place = self.world.admission.ledger.roomiest(&cpu(1000));
        let Some(slot) = place else { return };
        let name = self.world.admission.ledger.node(slot).unwrap().view.meta().key.name.to_string();
        let on = NODES.iter().map(|(name, _)| *name).find(|known| *known == name).unwrap();
        self.world.made += 1;
        let pod = format!("web{}", self.world.made);
        self.world.admission.pod_changed(&online(&pod, on, "Running"));
        self.foreign.push((pod, on));
    }

    fn used(&self, name: &str) -> i64 {
        self.world.admission.figures(&QueueId::Object(ObjectKey::new("a", name))).used.cpu
    }

    /// A pass grants nothing beyond what a queue, its cohort or its nodes have.
    fn pass(&mut self) {
        let before: Vec<i64> = QUEUES.iter().map(|name| self.used(name)).collect();
        self.world.admission.pass(self.now);
        let after: Vec<i64> = QUEUES.iter().map(|name| self.used(name)).collect();
        let of_cohort = |used: &[i64]| used[1] + used[2];
        for (at, name) in QUEUES.iter().enumerate().filter(|(at, _)| after[*at] > before[*at]) {
            let rules = &self.rules[name];
            assert_eq!(rules.stop, StopPolicy::None, "{name}");
            for row in &rules.quota {
                let most = if rules.cohort.is_some() { row.max } else { row.nominal };
                assert!(after[at] <= most, "{name} uses {} of {most}", after[at]);
            }
            let queue = QueueId::Object(ObjectKey::new("a", *name));
            if let Some(capacity) = self.world.admission.figures(&queue).capacity {
                assert!(after[at] <= capacity.cpu, "{name} uses {} of {}", after[at], capacity.cpu);
            }
            if rules.cohort.is_some() {
                let nominal: i64 =
                    [QUEUES[1], QUEUES[2]].iter().map(|name| self.rules[name].quota[0].nominal).sum();
                assert!(of_cohort(&after) <= nominal, "the cohort uses {} of {nominal}", of_cohort(&after));
            }
        }
    }

    /// Every job ends the pods that are claimed.
    fn give_back(&mut self) {
        let claims: Vec<(Uid, u32)> = self
            .world
            .admission
            .jobs
            .keys()
            .filter_map(|uid| Some((uid.clone(), self.world.admission.verdict(uid).reclaim?.keep)))
            .collect();
        for (uid, keep) in claims {
            let leaving = self.world.admission.leaving.get(&uid).copied().unwrap_or(0);
            let mut own: Vec<String> = self
                .world
                .pods
                .iter()
                .filter(|(_, pod)| pod.0 == uid)
                .map(|(name, _)| name.clone())
                .collect();
            own.sort_by_key(|name| name[1..].parse::<u32>().unwrap());
            for pod in own.split_off(own.len().min((keep + leaving) as usize)) {
                self.world.end(&pod);
            }
        }
    }

    /// When nothing else happens, what is claimed comes back, and then every queue keeps its max.
    fn comes_to_rest(&mut self) {
        for _ in 0..50 {
            self.now = self.now.checked_add(SignedDuration::from_secs(61)).unwrap();
            self.pass();
            let deleted: Vec<String> = self.world.pods.keys().cloned().collect();
            for pod in deleted {
                let key = ObjectKey::new("a", pod.as_str());
                if self.world.admission.pods.is_leaving(&key) {
                    self.world.end(&pod);
                }
            }
            self.give_back();
        }
        for name in ["alone", "lender", "borrower"] {
            let rules = &self.rules[name];
            let known = |uid: &Uid| self.world.admission.jobs.contains_key(uid);
            // A job that asks for nothing more is told nothing.
            let heard = self.world.pods.iter().all(|(pod, (uid, ..))| {
                known(uid)
                    || !self
                        .world
                        .labels
                        .get(pod)
                        .is_some_and(|labels| labels["springtide.dev/queue"] == name)
            });
            let most = if rules.cohort.is_some() { rules.quota[0].max } else { rules.quota[0].nominal };
            assert!(!heard || self.used(name) <= most, "{name} uses {} of {most} for ever", self.used(name));
        }
    }

    /// The books are those that the pods and the grants alone would give.
    fn check_books(&self) {
        for name in QUEUES {
            let mut expected = 0;
            for (pod, (_, cpu, ..)) in &self.world.pods {
                if self.world.labels.get(pod).is_some_and(|labels| labels["springtide.dev/queue"] == name) {
                    expected += self.shapes[SIZES.iter().position(|size| size == cpu).unwrap()].requests.cpu;
                }
            }
            for job in self.world.admission.jobs.values() {
                if job.class.line.queue.as_deref() == Some(name) {
                    expected += i64::try_from(job.in_flight.len()).unwrap() * job.class.shape.requests.cpu;
                }
            }
            assert_eq!(self.used(name), expected, "{name}");
        }
    }
}

fn online(name: &str, on: &str, phase: &str) -> Change<PodView> {
    apply(json!({
        "metadata": {"name": name, "namespace": "online", "uid": name, "resourceVersion": "1"},
        "spec": {"nodeName": on, "containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]},
        "status": {"phase": phase},
    }))
}

#[test]
fn no_quota_and_no_node_is_exceeded_in_many_random_steps() {
    let steps = if std::env::var("SPRINGTIDE_LONG").is_ok_and(|long| long == "1") { LONG } else { SAMPLE };
    const LEG: u32 = 1000;
    for leg in 0..steps / LEG {
        let mut walk = Walk::new(u64::from(leg));
        for _ in 0..LEG {
            walk.step();
        }
        walk.check_books();
        walk.comes_to_rest();
        walk.check_books();
    }
}

#[test]
fn a_pass_looks_at_classes_and_not_at_jobs() {
    const CLASSES: usize = 20;
    let mut world = World::new(&[("n1", "100")]);
    let queue = world.queue("q", &QueueRules { max_queued_jobs: 10_000, ..cores(0, 0) });
    for number in 0..CLASSES * 100 {
        let number = i32::try_from(number).unwrap();
        let class = number % i32::try_from(CLASSES).unwrap();
        let one = shape("1", json!({}));
        world.ask(Demand { priority: class, ..of(&queue, &format!("j{number}"), &one, 1) });
    }
    world.admission.looks = 0;
    world.admission.pass(at(1));
    assert_eq!(world.admission.looks, 0, "what is refused for one job is refused for all of its class");
    world.queue("q", &QueueRules { max_queued_jobs: 10_000, ..cores(5, 5) });
    world.admission.looks = 0;
    assert_eq!(world.admission.pass(at(2)).len(), 5);
    assert!(world.admission.looks <= CLASSES + 5, "{} looks", world.admission.looks);
}
