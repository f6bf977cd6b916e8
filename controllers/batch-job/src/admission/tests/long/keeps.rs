//! What must hold of a random walk, reckoned from what it has done alone.

use super::super::*;
use super::sizes::{NODES, NodeSize, RESOURCES, counted, of_online, whole};
use super::{QUEUES, TIERS, WITH_WINDOWS, Walk, tier_of};
use crate::peaks::{Action, PeakState};
use springtide_plumbing::resources::ResourceList;
use springtide_crds::batch_job::StopPolicy;

/// The queues of the cohort, by their places.
const COHORT: [usize; 2] = [1, 2];

/// What pods and grants hold in a queue, whatever they call it.
#[derive(Clone, Debug, Default)]
struct Held {
    by_tier: BTreeMap<Tier, ResourceList>,
    /// Those that wait for a node which is still to come.
    shown: usize,
}

impl Held {
    fn of(&self, tier: Tier, resource: &str) -> i64 {
        self.by_tier.get(&tier).map_or(0, |held| held.get(resource))
    }

    fn sum(&self, resource: &str) -> i64 {
        self.by_tier.values().map(|held| held.get(resource)).sum()
    }
}

/// The most that a queue may ever use: alone, nobody lends to it.
fn most(rules: &QueueRules, row: &QuotaRow) -> i64 {
    if rules.cohort.is_some() { row.max } else { row.nominal }
}

impl Walk {
    fn row(&self, name: &str, resource: &str) -> Option<&QuotaRow> {
        self.rules[name].quota.iter().find(|row| &*row.resource == resource)
    }

    /// What the cohort has, by the rules of those of its queues that bound the resource.
    pub(super) fn cohort_nominal(&self, resource: &str) -> i64 {
        COHORT.iter().filter_map(|at| self.row(QUEUES[*at], resource)).map(|row| row.nominal).sum()
    }

    fn used(&self, name: &str) -> ResourceList {
        self.world.admission.figures(&Self::queue(name)).used
    }

    /// What pods and grants alone say that a queue holds.
    fn held(&self, name: &str) -> Held {
        let mut held = Held::default();
        for (pod, (.., node)) in &self.world.pods {
            let Some(labels) = self.world.labels.get(pod) else { continue };
            if labels["springtide.dev/queue"] != name {
                continue;
            }
            held.by_tier.entry(tier_of(labels)).or_default().add(&counted(self.shape_of_pod(pod)));
            held.shown += usize::from(node.is_none() && labels.get("springtide.dev/unfit").is_some());
        }
        for job in self.world.admission.jobs.values() {
            if job.class.line.queue.as_deref() == Some(name) {
                let grants = i64::try_from(job.in_flight.len()).unwrap();
                let granted = counted(&job.class.shape).times(grants);
                held.by_tier.entry(job.class.tier).or_default().add(&granted);
                held.shown += job.in_flight.iter().filter(|place| place.is_none()).count();
            }
        }
        held
    }

    /// What of it was seen, or is still to come, since a peak ended for these tiers.
    fn started(&self, name: &str, tiers: &[Tier], ended: Timestamp) -> ResourceList {
        let mut started = ResourceList::default();
        for pod in self.world.pods.keys() {
            let Some(labels) = self.world.labels.get(pod) else { continue };
            let of_tiers = tiers.contains(&tier_of(labels));
            if labels["springtide.dev/queue"] == name && of_tiers && self.seen[pod] >= ended {
                started.add(&counted(self.shape_of_pod(pod)));
            }
        }
        for job in self.world.admission.jobs.values() {
            if job.class.line.queue.as_deref() == Some(name) && tiers.contains(&job.class.tier) {
                let grants = i64::try_from(job.in_flight.len()).unwrap();
                started.add(&counted(&job.class.shape).times(grants));
            }
        }
        started
    }

    /// What the source of a queue bounds.
    fn bounded(&self, name: &str) -> &'static [&'static str] {
        match self.rules[name].source {
            CapacitySource::Static => &[],
            CapacitySource::NodeAllocatable(_) | CapacitySource::NodeMetrics(_) => &RESOURCES,
            CapacitySource::ExtendedResource(_) => &["cpu"],
        }
    }

    /// What the source of a queue offers by its rules; `None` where that does not count.
    pub(super) fn capacity(&self, name: &str, resource: &str) -> Option<i64> {
        if !self.bounded(name).contains(&resource) {
            return None;
        }
        let there = NODES.into_iter().filter(|(name, ..)| self.nodes[name]);
        let left = |node: NodeSize| {
            let foreign = self.foreign.iter().filter(|(_, on)| *on == node.0).count();
            let promised = of_online().times(i64::try_from(foreign).unwrap());
            (whole(node).get(resource), promised.get(resource))
        };
        let (sum, share): (i64, &NodeShare) = match &self.rules[name].source {
            CapacitySource::Static => return None,
            CapacitySource::NodeAllocatable(share) => {
                (there.map(left).map(|(whole, promised)| whole - promised).sum(), share)
            }
            CapacitySource::NodeMetrics(share) => {
                let (_, measured) = self.measured.as_ref()?;
                let of_node = |node: NodeSize| {
                    let (whole, promised) = left(node);
                    let used = measured.get(node.0).map(|used| used.get(resource));
                    used.map_or(0, |used| (whole - promised.max(used)).max(0))
                };
                (there.map(of_node).sum(), share)
            }
            CapacitySource::ExtendedResource(share) => {
                (there.map(|(name, ..)| self.offered[name]).sum(), share)
            }
        };
        Some((sum * i64::from(share.percent) / 100 - share.reserve.get(resource)).max(0))
    }

    /// What peaks mean now. What windows do follows from their spec and the time, whatever was asked before; of load triggers
    /// the queue tells itself.
    fn peak(&self, name: &str) -> Option<PeakState> {
        let peaks = self.peaks.get(name)?;
        match name {
            "measured" => Some(self.world.admission.figures(&Self::queue(name)).peak?.state),
            _ => Some(peaks.at(self.now, None)),
        }
    }

    /// A pass grants nothing beyond what a queue, its cohort or its nodes have, and nothing that a peak keeps. What it
    /// does beyond the bounds of a queue, and inside a peak, is written down for the end.
    pub(super) fn pass(&mut self) {
        let all_before: Vec<Held> = QUEUES.iter().map(|name| self.held(name)).collect();
        self.world.admission.pass(self.now);
        let all_after: Vec<Held> = QUEUES.iter().map(|name| self.held(name)).collect();
        let (mut beyond, mut inside) = (Vec::new(), Vec::new());
        for (at, name) in QUEUES.iter().enumerate() {
            let figures = self.world.admission.figures(&Self::queue(name));
            let capacity = figures.capacity.as_ref();
            assert_eq!(capacity.is_some(), !self.bounded(name).is_empty(), "{name}");
            // What was measured too long ago stays as it was.
            for resource in self.bounded(name).iter().filter(|_| !figures.metrics_old) {
                let offered = capacity.map(|capacity| capacity.get(resource));
                assert_eq!(offered, self.capacity(name, resource), "{resource} of {name} at {}", self.now);
            }
            let rules = &self.rules[name];
            let (before, after) = (&all_before[at], &all_after[at]);
            let most_shown = rules.max_pending.max(before.shown);
            assert!(after.shown <= most_shown, "{name} shows {} pods", after.shown);
            self.keeps_peak(name, before, after, capacity, &mut inside);
            // A grant takes of every resource. What a cut takes back in the same pass only makes less of it.
            if RESOURCES.iter().all(|resource| after.sum(resource) <= before.sum(resource)) {
                continue;
            }
            assert_eq!(rules.stop, StopPolicy::None, "{name}");
            for row in &rules.quota {
                let (used, most) = (after.sum(&row.resource), most(rules, row));
                if used > most {
                    beyond.push(format!("{name} uses {used} of {most} {} at {}", row.resource, self.now));
                }
            }
            for resource in self.bounded(name) {
                let most = capacity.map_or(0, |capacity| capacity.get(resource));
                let used = after.sum(resource);
                if used > most {
                    beyond.push(format!("{name} uses {used} of {most} {resource} live at {}", self.now));
                }
            }
            if let CapacitySource::NodeMetrics(_) = rules.source {
                let age = self.measured.as_ref().map(|(at, _)| self.now.as_second() - at);
                assert!(age.is_some_and(|age| age <= rules.stale_after.as_secs()), "{name}: {age:?} s old");
            }
            for row in rules.quota.iter().filter(|_| rules.cohort.is_some()) {
                let all = self.cohort_use(&all_after, &row.resource);
                let nominal = self.cohort_nominal(&row.resource);
                if all > nominal {
                    let resource = &row.resource;
                    beyond.push(format!("the cohort uses {all} of {nominal} {resource} at {}", self.now));
                }
            }
        }
        self.beyond.append(&mut beyond);
        self.inside.append(&mut inside);
        self.keeps_promises();
    }

    /// What of the cohort's is in use, in the queues that bound the resource.
    fn cohort_use(&self, held: &[Held], resource: &str) -> i64 {
        let bound = COHORT.iter().filter(|at| self.row(QUEUES[**at], resource).is_some());
        bound.map(|at| held[*at].sum(resource)).sum()
    }

    /// What was granted in a pass is what the peaks of the queue leave to each tier.
    fn keeps_peak(
        &self,
        name: &str,
        before: &Held,
        after: &Held,
        capacity: Option<&ResourceList>,
        inside: &mut Vec<String>,
    ) {
        let Some(state) = self.peak(name) else { return };
        let context = || format!("{name} at {}: {before:?}, then {after:?}, {state:?}", self.now);
        let rules = &self.rules[name];
        // What there is of a resource; `None` is without bound.
        let all = |resource: &str| match self.row(name, resource) {
            Some(row) => Some(most(rules, row)),
            None => capacity.map(|capacity| capacity.get(resource)),
        };
        let ramping: Vec<Tier> = TIERS.into_iter().filter(|tier| state.tier(*tier).ramp.is_some()).collect();
        for tier in TIERS {
            let peak = state.tier(tier);
            if RESOURCES.iter().all(|resource| after.of(tier, resource) <= before.of(tier, resource)) {
                continue;
            }
            if !peak.may_start() {
                inside.push(format!("{tier:?} of {}", context()));
            }
            let bounds = RESOURCES.into_iter().filter_map(|resource| Some((resource, all(resource)?)));
            for (resource, all) in bounds {
                if let Some(percent) = peak.percent {
                    let most = all * i64::from(percent) / 100;
                    assert!(after.of(tier, resource) <= most, "{tier:?} of {}", context());
                }
                if let Some(ramp) = peak.ramp {
                    let started = self.started(name, &ramping, ramp.ended).get(resource);
                    let millis = |from: Timestamp, to: Timestamp| to.duration_since(from).as_millis();
                    let total = millis(ramp.begins, ramp.ends);
                    let elapsed = millis(ramp.begins, self.now).clamp(0, total);
                    let most = i128::from(all) * elapsed / total.max(1);
                    assert!(
                        i128::from(started) <= most,
                        "{tier:?} of {}: {started} of {most} {resource}",
                        context()
                    );
                }
            }
        }
        // Nor is anything asked back for a window that does not drain.
        for job in
            self.world.admission.jobs.values().filter(|job| job.class.line.queue.as_deref() == Some(name))
        {
            let verdict = self.world.admission.verdict(&job.demand.uid);
            let drains = state.tier(job.class.tier).action == Action::Drain;
            assert_eq!(verdict.drained, drains, "{:?} of {}", job.class.tier, context());
            let asked = verdict.reclaim.is_some_and(|reclaim| reclaim.cause == ReclaimCause::PeakWindow);
            assert!(drains || !asked, "{:?} of {}", job.class.tier, context());
        }
    }

    /// When nothing else happens, what is claimed comes back, and then every queue keeps its max.
    pub(super) fn comes_to_rest(&mut self) {
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
        // The windows are over until the next day.
        for name in WITH_WINDOWS {
            assert!(TIERS.iter().all(|tier| {
                let Some(state) = self.peak(name) else { return true };
                state.tier(*tier).may_start() && state.tier(*tier).ramp.is_none()
            }));
        }
        for name in QUEUES {
            let rules = &self.rules[name];
            let is_of_queue = |pod: &String| {
                let labels = self.world.labels.get(pod);
                labels.is_some_and(|labels| labels["springtide.dev/queue"] == name)
            };
            // A job that asks for nothing more is told nothing.
            let is_told = |uid: &Uid| self.world.admission.jobs.contains_key(uid);
            if self.world.pods.iter().any(|(pod, (uid, ..))| is_of_queue(pod) && !is_told(uid)) {
                continue;
            }
            let used = self.used(name);
            for row in &rules.quota {
                let (used, most) = (used.get(&row.resource), most(rules, row));
                assert!(used <= most, "{name} uses {used} of {most} {} for ever", row.resource);
            }
            if rules.stop == StopPolicy::Drain {
                assert_eq!(RESOURCES.map(|resource| used.get(resource)), [0, 0], "{name} is not drained");
            }
        }
    }

    /// The books are those that the pods and the grants alone would give.
    pub(super) fn check_books(&self) {
        for name in QUEUES {
            let (held, used) = (self.held(name), self.used(name));
            for resource in RESOURCES {
                assert_eq!(used.get(resource), held.sum(resource), "{resource} of {name}");
            }
        }
    }
}
