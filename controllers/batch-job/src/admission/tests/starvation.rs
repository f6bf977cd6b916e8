//! Nobody waits for ever who could start: when no more work comes and what runs ends, everybody is served.

use super::*;

impl World {
    /// Every job is planned again, and says anew what it wants.
    pub(super) fn ask_again(&mut self) {
        for demand in self.demands() {
            self.ask(demand);
        }
    }

    /// What all jobs have said, in one order in every run.
    fn demands(&self) -> Vec<Demand> {
        let mut demands: Vec<Demand> = self.admission.jobs.values().map(|job| job.demand.clone()).collect();
        demands.sort_by(|one, other| one.uid.cmp(&other.uid));
        demands
    }

    /// Jobs that want more than they have.
    pub(super) fn short(&self) -> Vec<Uid> {
        let is_short = |demand: &Demand| self.admission.granted(&demand.uid) < demand.target;
        self.demands().into_iter().filter(is_short).map(|demand| demand.uid).collect()
    }

    /// Makes the pods of all grants; `size` says what those of a job request.
    fn create_all(&mut self, size: impl Fn(&Demand) -> &'static str) {
        for demand in self.demands() {
            for _ in 0..self.admission.jobs[&demand.uid].in_flight.len() {
                drop(self.make(&demand.uid, size(&demand), &demand.job.namespace));
            }
        }
    }

    /// A task is done: its pod ends, and its job has one less to do.
    pub(super) fn finish(&mut self, pod: &str) {
        let uid = self.pods[pod].0.clone();
        self.end(pod);
        let Some(demand) = self.admission.jobs.get(&uid).map(|job| job.demand.clone()) else { return };
        let target = demand.target.saturating_sub(1);
        if target == 0 {
            self.admission.withdraw(&uid);
        } else {
            let min_parallelism = demand.min_parallelism.min(target);
            self.ask(Demand { target, min_parallelism, ..demand });
        }
    }

    /// Where the scheduler would bind a pod now: where it is expected, else where there is the most room for it.
    pub(super) fn place_for(&self, pod: &str) -> Option<String> {
        let admission = &self.admission;
        let key = ObjectKey::new(self.pods[pod].2.as_str(), pod);
        let roomiest = || admission.ledger.roomiest(admission.pods.requests(&key)?);
        let slot = admission.pods.slot_of(&key).or_else(roomiest)?;
        Some(admission.ledger.node(slot)?.view.meta().key.name.to_string())
    }

    /// The scheduler binds the pods for which there is room. Of the others those are taken back of which `is_overdue`
    /// says so, and their classes pause.
    pub(super) fn schedule(&mut self, now: Timestamp, mut is_overdue: impl FnMut() -> bool) {
        let unbound = self.pods.iter().filter(|(_, pod)| pod.3.is_none());
        let unbound: Vec<String> = unbound.map(|(name, _)| name.clone()).collect();
        for pod in unbound {
            if let Some(node) = self.place_for(&pod) {
                self.bind(&pod, &node);
            } else if is_overdue() {
                let uid = self.pods[&pod].0.clone();
                self.admission.pause(&uid, Trouble::Schedule, now);
                self.remove(&pod);
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Offer(usize, u32),
    Withdraw(usize),
    Make(usize),
    End(usize),
    Refuse(usize),
    Node(usize, bool),
    Pass,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..8_usize, 0..6_u32).prop_map(|(job, target)| Step::Offer(job, target)),
        1 => (0..8_usize).prop_map(Step::Withdraw),
        4 => (0..8_usize).prop_map(Step::Make),
        3 => (0..40_usize).prop_map(Step::End),
        1 => (0..8_usize).prop_map(Step::Refuse),
        1 => (0..3_usize, any::<bool>()).prop_map(|(node, there)| Step::Node(node, there)),
        4 => Just(Step::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order: no node is promised more than it has, nothing is negative, a
    /// rebuilt ledger is the same one, and when no more work comes every job is served to its last task, unless there
    /// is no node.
    #[test]
    fn no_node_is_overcommitted_and_nobody_starves(steps in prop::collection::vec(step(), 1..250)) {
        let sizes = ["500m", "1", "2", "3"];
        let shapes: Vec<_> = sizes.iter().map(|cpu| shape(cpu, json!({}))).collect();
        let nodes = [("n0", "4"), ("n1", "6"), ("n2", "8")];
        let mut world = World::new(&nodes);
        let mut there = [true; 3];
        let mut now = at(1);
        let place = |job: usize| (["a", "b"][job % 2], format!("j{job}"), job % sizes.len());
        for step in steps {
            now = now.checked_add(SignedDuration::from_millis(700)).unwrap();
            match step {
                Step::Offer(job, target) => {
                    let (namespace, name, size) = place(job);
                    world.offer(namespace, &name, &shapes[size], target);
                }
                Step::Withdraw(job) | Step::Make(job) | Step::Refuse(job) => {
                    let (namespace, name, size) = place(job);
                    let uid = Uid(format!("{namespace}-{name}").into());
                    match step {
                        Step::Withdraw(_) => world.admission.withdraw(&uid),
                        Step::Refuse(_) => world.admission.pause(&uid, Trouble::Quota, now),
                        Step::Make(_) | Step::Offer(..) | Step::End(_) | Step::Node(..) | Step::Pass => {
                            drop(world.make(&uid, sizes[size], namespace));
                        }
                    }
                }
                Step::End(pod) => {
                    if let Some(name) = world.pods.keys().nth(pod).cloned() {
                        world.end(&name);
                    }
                }
                Step::Node(number, on) if there[number] != on => {
                    let change = node(nodes[number].0, nodes[number].1, json!({}));
                    let Change::Apply { new, .. } = &change else { unreachable!() };
                    let gone = Change::Delete { last: Arc::clone(new) };
                    world.admission.node_changed(if on { &change } else { &gone });
                    there[number] = on;
                }
                Step::Node(..) => {}
                Step::Pass => drop(world.admission.pass(now)),
            }
            world.nothing_overcommitted();
            for (uid, job) in world.admission.jobs.iter() {
                let granted = world.admission.verdict(uid).granted;
                let live = world.admission.live.get(uid).copied().unwrap_or(0);
                prop_assert!(granted <= live.max(job.demand.target));
            }
        }
        // From the stores alone the same charges come out, grants in flight aside.
        let mut rebuilt = Admission::default();
        for (number, (name, cpu)) in nodes.iter().enumerate() {
            if there[number] {
                rebuilt.node_changed(&node(name, cpu, json!({})));
            }
        }
        for name in world.pods.keys() {
            rebuilt.pod_changed(&world.pod(name, "Running"));
        }
        let uids: Vec<Uid> = world.admission.jobs.keys().cloned().collect();
        for uid in &uids {
            world.admission.give_back(uid, 0);
        }
        let used = |admission: &Admission| -> BTreeMap<Arc<str>, String> {
            admission
                .ledger
                .nodes()
                .map(|(_, node)| (Arc::clone(&node.view.meta().key.name), format!("{:?}", node.used)))
                .collect()
        };
        // Where a pod will go that is not bound yet is a guess, and may be another one.
        if world.pods.values().all(|(.., node)| node.is_some()) {
            prop_assert_eq!(used(&rebuilt), used(&world.admission));
        }
        prop_assert_eq!(&rebuilt.live, &world.admission.live);
        // No more work comes, and tasks end one by one. Each job fits on any node.
        let open: u32 = world.admission.jobs.values().map(|job| job.demand.target).sum();
        let steps = 40 + 4 * (open as usize + world.pods.len());
        for _ in 0..steps {
            if world.short().is_empty() {
                break;
            }
            now = now.checked_add(SignedDuration::from_secs(20)).unwrap();
            world.ask_again();
            world.admission.pass(now);
            world.create_all(|demand| sizes[demand.job.name[1..].parse::<usize>().unwrap() % sizes.len()]);
            world.schedule(now, || true);
            world.nothing_overcommitted();
            if let Some(pod) = world.pods.keys().next().cloned() {
                world.finish(&pod);
            }
        }
        let short = world.short();
        prop_assert!(short.is_empty() || !there.contains(&true), "for ever: {short:?}");
    }
}
