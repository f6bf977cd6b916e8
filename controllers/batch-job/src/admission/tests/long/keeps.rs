//! What must hold of a random walk, reckoned from what it has done alone.

use super::super::*;
use super::{EXTENDED, NODES, QUEUES, TIERS, WITH_WINDOWS, Walk};
use crate::peaks::{Action, PeakState};
use springtide_crds::batch_job::StopPolicy;

/// What pods and grants hold of the cpu of a queue, whatever they call it.
#[derive(Clone, Debug, Default)]
struct Held {
    by_tier: BTreeMap<Tier, i64>,
    /// Those that wait for a node which is still to come.
    shown: usize,
}

pub(super) fn amount(shape: &Shape) -> i64 {
    shape.requests.cpu + shape.requests.get(EXTENDED)
}

impl Walk {
    /// What the cohort has, by the rules of its queues.
    pub(super) fn cohort_nominal(&self) -> i64 {
        [QUEUES[1], QUEUES[2]].iter().map(|name| self.rules[name].quota[0].nominal).sum()
    }

    fn used(&self, name: &str) -> i64 {
        self.world.admission.figures(&Self::queue(name)).used.cpu
    }

    /// What pods and grants alone say that a queue holds.
    fn held(&self, name: &str) -> Held {
        let mut held = Held::default();
        for (pod, (.., node)) in &self.world.pods {
            let Some(labels) = self.world.labels.get(pod) else { continue };
            if labels["springtide.dev/queue"] != name {
                continue;
            }
            let tier = TIERS.into_iter().find(|tier| labels["springtide.dev/tier"] == format!("{tier:?}"));
            *held.by_tier.entry(tier.unwrap()).or_default() += amount(self.shape_of_pod(pod));
            held.shown += usize::from(node.is_none() && labels.get("springtide.dev/unfit").is_some());
        }
        for job in self.world.admission.jobs.values() {
            if job.class.line.queue.as_deref() == Some(name) {
                let grants = i64::try_from(job.in_flight.len()).unwrap();
                *held.by_tier.entry(job.class.tier).or_default() += grants * amount(&job.class.shape);
                held.shown += job.in_flight.iter().filter(|place| place.is_none()).count();
            }
        }
        held
    }

    /// What of it was seen, or is still to come, since a peak ended for these tiers.
    fn started(&self, name: &str, tiers: &[Tier], ended: Timestamp) -> i64 {
        let mut started = 0;
        for pod in self.world.pods.keys() {
            let Some(labels) = self.world.labels.get(pod) else { continue };
            let of_tiers = tiers.iter().any(|tier| labels["springtide.dev/tier"] == format!("{tier:?}"));
            if labels["springtide.dev/queue"] == name && of_tiers && self.seen[pod] >= ended {
                started += amount(self.shape_of_pod(pod));
            }
        }
        for job in self.world.admission.jobs.values() {
            if job.class.line.queue.as_deref() == Some(name) && tiers.contains(&job.class.tier) {
                started += i64::try_from(job.in_flight.len()).unwrap() * amount(&job.class.shape);
            }
        }
        started
    }

    /// What the source of a queue offers by its rules; `None` where that does not count.
    pub(super) fn capacity(&self, name: &str) -> Option<i64> {
        let there = NODES.iter().filter(|(name, _)| self.nodes[name]);
        let left = |(name, cores): &(&'static str, &str)| {
            let foreign = self.foreign.iter().filter(|(_, on)| on == name).count();
            (cores.parse::<i64>().unwrap() * 1000, i64::try_from(foreign).unwrap() * 1000)
        };
        let (sum, share) = match &self.rules[name].source {
            CapacitySource::Static => return None,
            CapacitySource::NodeAllocatable(share) => {
                (there.map(left).map(|(whole, foreign)| whole - foreign).sum(), share)
            }
            CapacitySource::NodeMetrics(share) => {
                let (_, measured) = self.measured.as_ref()?;
                let of_node = |node: &(&'static str, &str)| {
                    let (whole, foreign) = left(node);
                    measured.get(node.0).map_or(0, |used| (whole - foreign.max(*used)).max(0))
                };
                (there.map(of_node).sum::<i64>(), share)
            }
            CapacitySource::ExtendedResource(share) => {
                (there.map(|(name, _)| self.offered[name]).sum(), share)
            }
        };
        Some((sum * i64::from(share.percent) / 100 - share.reserve.cpu).max(0))
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
        let before: Vec<Held> = QUEUES.iter().map(|name| self.held(name)).collect();
        self.world.admission.pass(self.now);
        let after: Vec<Held> = QUEUES.iter().map(|name| self.held(name)).collect();
        let sum = |held: &Held| held.by_tier.values().sum::<i64>();
        let (mut beyond, mut inside) = (Vec::new(), Vec::new());
        for (at, name) in QUEUES.iter().enumerate() {
            let figures = self.world.admission.figures(&Self::queue(name));
            let capacity = figures.capacity.map(|capacity| capacity.cpu);
            // What was measured too long ago stays as it was.
            if !figures.metrics_old {
                assert_eq!(capacity, self.capacity(name), "{name} at {}", self.now);
            }
            let rules = &self.rules[name];
            let most_shown = rules.max_pending.max(before[at].shown);
            assert!(after[at].shown <= most_shown, "{name} shows {} pods", after[at].shown);
            self.keeps_peak(name, &before[at], &after[at], capacity, &mut inside);
            let (before, used) = (sum(&before[at]), sum(&after[at]));
            if used <= before {
                continue;
            }
            assert_eq!(rules.stop, StopPolicy::None, "{name}");
            for row in &rules.quota {
                let most = if rules.cohort.is_some() { row.max } else { row.nominal };
                if used > most {
                    beyond.push(format!("{name} uses {used} of {most} at {}", self.now));
                }
            }
            if let Some(capacity) = capacity.filter(|capacity| used > *capacity) {
                beyond.push(format!("{name} uses {used} of {capacity} live at {}", self.now));
            }
            if let CapacitySource::NodeMetrics(_) = rules.source {
                let age = self.measured.as_ref().map(|(at, _)| self.now.as_second() - at);
                assert!(age.is_some_and(|age| age <= rules.stale_after.as_secs()), "{name}: {age:?} s old");
            }
            if rules.cohort.is_some() {
                let nominal = self.cohort_nominal();
                let both = sum(&after[1]) + sum(&after[2]);
                if both > nominal {
                    beyond.push(format!("the cohort uses {both} of {nominal} at {}", self.now));
                }
            }
        }
        self.beyond.append(&mut beyond);
        self.inside.append(&mut inside);
    }

    /// What was granted in a pass is what the peaks of the queue leave to each tier.
    fn keeps_peak(
        &self,
        name: &str,
        before: &Held,
        after: &Held,
        capacity: Option<i64>,
        inside: &mut Vec<String>,
    ) {
        let Some(state) = self.peak(name) else { return };
        let context = || format!("{name} at {}: {before:?}, then {after:?}, {state:?}", self.now);
        let of = |held: &Held, tier: Tier| held.by_tier.get(&tier).copied().unwrap_or(0);
        let rules = &self.rules[name];
        let row = rules.quota.first().map(|row| if rules.cohort.is_some() { row.max } else { row.nominal });
        let whole = row.or(capacity).unwrap_or(0);
        let ramping: Vec<Tier> = TIERS.into_iter().filter(|tier| state.tier(*tier).ramp.is_some()).collect();
        for tier in TIERS {
            let peak = state.tier(tier);
            if of(after, tier) > of(before, tier) {
                if !peak.may_start() {
                    inside.push(format!("{tier:?} of {}", context()));
                }
                if let Some(percent) = peak.percent {
                    assert!(of(after, tier) <= whole * i64::from(percent) / 100, "{tier:?} of {}", context());
                }
                if let Some(ramp) = peak.ramp {
                    let started = self.started(name, &ramping, ramp.ended);
                    let seconds = |from: Timestamp, to: Timestamp| to.duration_since(from).as_secs_f64();
                    let share = seconds(ramp.begins, self.now) / seconds(ramp.begins, ramp.ends);
                    let most = whole as f64 * share.clamp(0.0, 1.0);
                    assert!(started as f64 <= most, "{tier:?} of {}: {started} of {most}", context());
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
    pub(super) fn check_books(&self) {
        for name in QUEUES {
            let expected: i64 = self.held(name).by_tier.values().sum();
            assert_eq!(self.used(name), expected, "{name}");
        }
    }
}
