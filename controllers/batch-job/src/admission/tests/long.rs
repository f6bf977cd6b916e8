//! Whatever happens in whatever order, no quota and no node is ever exceeded by a grant, nothing starts while a peak or a
//! load trigger keeps it, and no more than their ramps allow after them; and when no more work comes, nobody waits for ever
//! who could start.

mod keeps;
mod promises;
mod random;
mod serves;
mod sizes;

use super::loads::Server;
use super::queues::{cores, of};
use super::*;
use crate::peaks::Peaks;
use springtide_plumbing::resources::ResourceList;
use promises::Tally;
use random::{Random, random_peaks, random_rules};
use sizes::{EXTENDED, EXTENDED_SIZES, GIBIBYTE, NODES, SIZES, list, of_online, online, shape_of};

/// Steps of the sample, and of the long run (`SPRINGTIDE_LONG=1`).
const SAMPLE: u32 = 20_000;
const LONG: u32 = 1_000_000;
/// The first of them have a quota; the next has what is live, another one what is measured, and the last what an agent
/// offers, in which no other jobs are.
const QUEUES: [&str; 6] = ["alone", "lender", "borrower", "live", "measured", AGENT];
const AGENT: &str = "agent";
/// Those with peak windows; the load of nodes triggers something in the one that is measured.
const WITH_WINDOWS: [&str; 3] = ["alone", "borrower", "live"];
/// Those of which a node autoscaler is shown pods: their capacity is their quota alone.
const SHOWING: [&str; 2] = ["alone", "borrower"];
const JOBS: u64 = 14;
const AGENTS_JOBS: u64 = 4;
const TIERS: [Tier; 3] = [Tier::BestEffort, Tier::Standard, Tier::Guaranteed];

/// A world and what is known of it besides.
struct Walk {
    world: World,
    random: Random,
    now: Timestamp,
    nodes: BTreeMap<&'static str, bool>,
    /// What the agent offers on each node.
    offered: BTreeMap<&'static str, i64>,
    rules: BTreeMap<&'static str, QueueRules>,
    peaks: BTreeMap<&'static str, Arc<Peaks>>,
    shapes: Vec<Arc<Shape>>,
    foreign: Vec<(String, &'static str)>,
    server: Server,
    /// When nodes were measured last, and what others than batch work used on them.
    measured: Option<(i64, BTreeMap<&'static str, ResourceList>)>,
    /// The last pass before each pod was seen.
    seen: BTreeMap<String, Timestamp>,
    /// What passes have granted beyond what a queue or its cohort has, and inside a window or under a load trigger that
    /// keeps the tier from starting.
    beyond: Vec<String>,
    inside: Vec<String>,
    tally: Tally,
}

/// The tier that a pod of a BatchQueue is of.
fn tier_of(labels: &Value) -> Tier {
    TIERS.into_iter().find(|tier| labels["springtide.dev/tier"] == format!("{tier:?}")).unwrap()
}

impl Walk {
    fn new(seed: u64) -> Self {
        let mut walk = Self {
            world: World::new(&[]),
            random: Random(seed),
            now: at(1),
            nodes: NODES.into_iter().map(|(name, ..)| (name, true)).collect(),
            offered: NODES.into_iter().map(|(name, ..)| (name, 2000)).collect(),
            rules: BTreeMap::new(),
            peaks: BTreeMap::new(),
            shapes: SIZES.iter().chain(&EXTENDED_SIZES).map(|size| shape_of(size)).collect(),
            foreign: Vec::new(),
            server: Server::default(),
            measured: None,
            seen: BTreeMap::new(),
            beyond: Vec::new(),
            inside: Vec::new(),
            tally: Tally::default(),
        };
        for (name, ..) in NODES {
            let node = walk.node(name);
            walk.world.admission.node_changed(&node);
        }
        for name in QUEUES {
            walk.change_rules(name);
            walk.change_peaks(name);
        }
        walk
    }

    fn node(&self, name: &str) -> Change<NodeView> {
        let (_, cores, gibibytes) = NODES.into_iter().find(|(known, ..)| *known == name).unwrap();
        let (cpu, memory) = (cores.to_string(), format!("{gibibytes}Gi"));
        let allocatable =
            json!({"cpu": cpu, "memory": memory, "pods": "110", EXTENDED: self.offered[name].to_string()});
        let status = json!({"allocatable": allocatable, "conditions": [{"type": "Ready", "status": "True"}]});
        node(name, &cpu, json!({"status": status}))
    }

    fn change_rules(&mut self, name: &'static str) {
        let rules = random_rules(&mut self.random, name);
        self.world.queue(name, &rules);
        self.rules.insert(name, rules);
    }

    /// Another window, or none.
    fn change_peaks(&mut self, name: &'static str) {
        if name != "measured" && !WITH_WINDOWS.contains(&name) {
            return;
        }
        let queue = Self::queue(name);
        if self.random.below(4) == 0 {
            self.peaks.remove(name);
            self.world.admission.peaks_changed(&queue, None, None);
            return;
        }
        let peaks = Arc::new(random_peaks(&mut self.random, name));
        self.world.admission.peaks_changed(&queue, Some(Arc::clone(&peaks)), None);
        self.peaks.insert(name, peaks);
    }

    fn queue(name: &str) -> QueueId {
        QueueId::Object(ObjectKey::new("a", name))
    }

    /// Place of a job's size among the shapes.
    fn size(number: u64) -> usize {
        let number = usize::try_from(number).unwrap();
        match number.checked_sub(usize::try_from(JOBS).unwrap()) {
            None => number % SIZES.len(),
            Some(of_agent) => SIZES.len() + of_agent % EXTENDED_SIZES.len(),
        }
    }

    fn size_text(number: u64) -> &'static str {
        SIZES.iter().chain(&EXTENDED_SIZES).nth(Self::size(number)).unwrap()
    }

    fn shape_of_pod(&self, pod: &str) -> &Shape {
        let text = &self.world.pods[pod].1;
        let place = SIZES.iter().chain(&EXTENDED_SIZES).position(|size| size == text);
        &self.shapes[place.unwrap()]
    }

    fn uid(number: u64) -> Uid {
        Uid(format!("a-j{number}").into())
    }

    fn step(&mut self) {
        self.now = self.now.checked_add(SignedDuration::from_millis(300)).unwrap();
        let job = self.random.below(JOBS + AGENTS_JOBS);
        match self.random.below(26) {
            0..=3 => self.offer(job),
            4 => self.world.admission.withdraw(&Self::uid(job)),
            5..=10 => self.make(job),
            11..=12 => self.end_any(),
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
            19 if self.random.below(8) == 0 => {
                let name = *self.random.pick(&QUEUES);
                self.change_peaks(name);
            }
            20 => self.measure(),
            21 => self.schedule(),
            22 => self.change_offer(),
            _ => self.pass(),
        }
        self.world.nothing_overcommitted();
    }

    fn offer(&mut self, job: u64) {
        let queue = match *self.random.pick(&["", "alone", "lender", "borrower", "live", "measured"]) {
            _ if job >= JOBS => Self::queue(AGENT),
            "" => QueueId::BuiltIn,
            name => Self::queue(name),
        };
        // A job stays in the queue that its pods are in, and of the tier that they are of.
        let pod = self.world.pods.iter().find(|(_, pod)| pod.0 == Self::uid(job)).map(|(pod, _)| pod);
        let labels = pod.and_then(|pod| self.world.labels.get(pod));
        let queue_of = |labels: &Value| Self::queue(labels["springtide.dev/queue"].as_str().unwrap());
        let held = pod.map(|_| labels.map_or(QueueId::BuiltIn, queue_of));
        let tier = labels.map(tier_of);
        let known = self.world.admission.jobs.get(&Self::uid(job)).map(|job| job.demand.queue.clone());
        let queue = held.or(known).unwrap_or(queue);
        let any_tier = *self.random.pick(&TIERS);
        let target = u32::try_from(self.random.below(6)).unwrap();
        let shape = Arc::clone(&self.shapes[Self::size(job)]);
        let demand = Demand {
            tier: tier.unwrap_or(any_tier),
            priority: i32::try_from(self.random.below(3)).unwrap() - 1,
            min_parallelism: if job.is_multiple_of(5) { target.min(2) } else { 1 },
            created: at(i64::try_from(job).unwrap()),
            ..of(&queue, &format!("j{job}"), &shape, target)
        };
        self.world.ask(demand);
    }

    /// The job creates one of the pods that are granted: those first that fit.
    fn make(&mut self, number: u64) {
        let uid = Self::uid(number);
        let Some(job) = self.world.admission.jobs.get(&uid) else { return };
        let unfit = self.world.admission.verdict(&uid).unfit as usize;
        let before = self.world.made;
        self.world.clock = self.now;
        if job.in_flight.len() > unfit {
            drop(self.world.make(&uid, Self::size_text(number), "a"));
        } else if unfit > 0 {
            let name = self.world.name_pod(&uid, Self::size_text(number), "a");
            self.world.labels.get_mut(&name).unwrap()["springtide.dev/unfit"] = json!("true");
            self.world.admission.pod_changed(&self.world.pod(&name, "Pending"));
        }
        if self.world.made > before {
            let seen = self.world.admission.last_pass.unwrap_or(self.now);
            self.seen.insert(format!("p{}", self.world.made), seen);
        }
    }

    /// The scheduler finds a node for a pod that was shown, if there is room by now.
    fn schedule(&mut self) {
        let waits = |name: &&String| {
            self.world.pods[*name].3.is_none()
                && self.world.labels[*name].get("springtide.dev/unfit").is_some()
        };
        let mut names = self.world.labels.keys().filter(|name| self.world.pods.contains_key(*name));
        let Some(name) = names.find(waits).cloned() else { return };
        if let Some(node) = self.world.place_for(&name) {
            self.world.bind(&name, &node);
        }
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
        let (name, ..) = *self.random.pick(&NODES);
        let change = self.node(name);
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
            let (left, gone): (Vec<_>, Vec<_>) = self.foreign.drain(..).partition(|(_, on)| *on != name);
            self.foreign = left;
            for (pod, on) in gone {
                self.world.admission.pod_changed(&online(&pod, on, "Succeeded"));
            }
        }
    }

    /// The agent offers more or less, but not less than is taken.
    fn change_offer(&mut self) {
        let (name, ..) = *self.random.pick(&NODES);
        if !self.nodes[name] {
            return;
        }
        let ledger = &self.world.admission.ledger;
        let taken =
            ledger.slot(name).and_then(|slot| ledger.node(slot)).map_or(0, |node| node.used.get(EXTENDED));
        let offers = i64::try_from(self.random.below(7)).unwrap() * 500;
        self.offered.insert(name, offers.max(taken));
        let changed = self.node(name);
        self.world.admission.node_changed(&changed);
    }

    /// A metrics server tells of most nodes.
    fn measure(&mut self) {
        let second = self.now.as_second();
        // With the same time it would tell of the same measure.
        if self.measured.as_ref().is_some_and(|(last, _)| *last == second) {
            return;
        }
        let mut told = Vec::new();
        for (name, cores, _) in NODES.into_iter().filter(|(name, ..)| self.nodes[name]) {
            if self.random.below(8) > 0 {
                let used = i64::try_from(self.random.below(u64::try_from(cores * 1000).unwrap())).unwrap();
                let batch = i64::try_from(self.random.below(4)).unwrap() * 500;
                told.push((name, used, batch));
            }
        }
        self.server.tells(&mut self.world, second, &told);
        // It tells of one GiB on each.
        let others =
            told.into_iter().map(|(name, used, batch)| (name, list((used - batch).max(0), GIBIBYTE)));
        self.measured = Some((second, others.collect()));
    }

    /// A pod of somebody else's comes where there is room for it, or goes.
    fn come_or_go_online(&mut self) {
        if self.random.below(2) == 0 {
            if let Some((pod, on)) = self.foreign.pop() {
                self.world.admission.pod_changed(&online(&pod, on, "Succeeded"));
            }
            return;
        }
        let place = self.world.admission.ledger.roomiest(&of_online());
        let Some(slot) = place else { return };
        let name = self.world.admission.ledger.node(slot).unwrap().view.meta().key.name.to_string();
        let (on, ..) = NODES.into_iter().find(|(known, ..)| *known == name).unwrap();
        self.world.made += 1;
        let pod = format!("web{}", self.world.made);
        self.world.admission.pod_changed(&online(&pod, on, "Running"));
        self.foreign.push((pod, on));
    }

    /// Every job ends the pods that are claimed: those that are named, else its newest.
    fn give_back(&mut self) {
        let claims: Vec<(Uid, Reclaim)> = self
            .world
            .admission
            .jobs
            .keys()
            .filter_map(|uid| Some((uid.clone(), self.world.admission.verdict(uid).reclaim?)))
            .collect();
        for (uid, Reclaim { keep, pods, .. }) in claims {
            let held = &self.world.admission.pods;
            let stays = |pod: &&String| !held.is_leaving(&ObjectKey::new("a", pod.as_str()));
            let own = self.world.pods.iter().filter(|(_, pod)| pod.0 == uid).map(|(name, _)| name);
            let mut own: Vec<String> = own.filter(stays).cloned().collect();
            own.sort_by_key(|name| name[1..].parse::<u32>().unwrap());
            let going = match pods.is_empty() {
                true => own.split_off(own.len().min(keep as usize)),
                false => own.into_iter().filter(|pod| pods.contains(&Uid(pod.as_str().into()))).collect(),
            };
            for pod in going {
                self.world.end(&pod);
            }
        }
    }
}

#[test]
fn no_quota_and_no_node_is_exceeded_in_many_random_steps() {
    let steps = if std::env::var("SPRINGTIDE_LONG").is_ok_and(|long| long == "1") { LONG } else { SAMPLE };
    const LEG: u32 = 1000;
    let (mut starts, mut beyond, mut inside, mut served) = (0, Vec::new(), Vec::new(), 0);
    let mut tally = Tally::default();
    for leg in 0..steps / LEG {
        let mut walk = Walk::new(u64::from(leg));
        for _ in 0..LEG {
            walk.step();
        }
        walk.check_books();
        walk.comes_to_rest();
        walk.check_books();
        served += walk.everybody_is_served();
        walk.check_books();
        starts += walk.seen.len();
        tally.add(walk.tally);
        beyond.append(&mut walk.beyond);
        inside.append(&mut walk.inside);
    }
    // The bench reads these lines.
    for (what, violations) in [("walk-used-above-max", &beyond), ("walk-starts-inside", &inside)] {
        let counted = json!({"what": what, "tries": steps, "starts": starts, "violations": violations.len()});
        println!("counted: {counted}");
    }
    assert_eq!((beyond, inside), (Vec::<String>::new(), Vec::<String>::new()));
    assert!(served > 0, "nobody has ever waited");
    let Tally { preempted, reclaimed, spared } = tally;
    assert!(preempted > 0 && reclaimed > 0 && spared > 0, "nobody has ever had to go: {tally:?}");
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
