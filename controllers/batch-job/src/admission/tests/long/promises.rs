//! Who has to go for others in a random walk: nobody before it has run as long as its tier is promised, and nobody for
//! whom the rules of its queue do not say so.

use super::super::*;
use super::Walk;
use springtide_crds::batch_job::StopPolicy;

/// How often that has come up.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    /// Jobs that had to go for one of their own queue, and for one of the queue that had lent.
    pub(super) preempted: usize,
    pub(super) reclaimed: usize,
    /// Passes in which somebody waited for pods to have run long enough.
    pub(super) spared: usize,
}

impl Tally {
    pub(super) fn add(&mut self, other: Self) {
        self.preempted += other.preempted;
        self.reclaimed += other.reclaimed;
        self.spared += other.spared;
    }
}

impl Walk {
    /// To be asked after each pass.
    pub(super) fn keeps_promises(&mut self) {
        self.yields_upward();
        self.has_run_long_enough();
        self.keeps_stop();
    }

    /// Who goes for one of its own queue is of a lower tier, or of a lower priority of the same one, and of a tier that
    /// yields to that one; all others go for a queue of the cohort that theirs has borrowed from.
    fn yields_upward(&mut self) {
        for (claimant, victim) in std::mem::take(&mut self.world.admission.taken) {
            let jobs = &self.world.admission.jobs;
            let (claimant, victim) = (&jobs[&claimant].class, &jobs[&victim].class);
            let gains = &self.rules[claimant.line.queue.as_deref().unwrap()];
            let loses = &self.rules[victim.line.queue.as_deref().unwrap()];
            let is_entitled = if claimant.line == victim.line {
                self.tally.preempted += 1;
                let of_tier = loses.tiers.get(&victim.tier);
                let yields = of_tier.is_some_and(|tier| tier.preemptible_by.contains(&claimant.tier));
                yields && victim.rank() < claimant.rank()
            } else {
                self.tally.reclaimed += 1;
                gains.cohort.is_some() && gains.cohort == loses.cohort
            };
            assert!(is_entitled, "{victim:?} goes for {claimant:?} at {}: {loses:?}", self.now);
        }
    }

    /// Whatever goes for others is named, and has run as long as its tier is promised; and who lends takes back what is
    /// borrowed, from a queue that uses more than its own.
    fn has_run_long_enough(&mut self) {
        let admission = &self.world.admission;
        for (uid, claim) in &admission.claims {
            let class = &admission.jobs[uid].class;
            let name = class.line.queue.as_deref().unwrap();
            let rules = &self.rules[name];
            match claim.cause {
                ReclaimCause::Preempted => {}
                ReclaimCause::Reclaimed => {
                    let used = admission.figures(&Self::queue(name)).used;
                    let borrows = rules.quota.iter().any(|row| used.get(&row.resource) > row.nominal);
                    assert!(borrows, "{uid} gives back what {name} has not borrowed at {}", self.now);
                }
                ReclaimCause::QueueStopped
                | ReclaimCause::PeakWindow
                | ReclaimCause::Degraded
                | ReclaimCause::QuotaShrunk => continue,
            }
            let min_run = rules.tiers.get(&class.tier).map_or(SignedDuration::ZERO, |tier| tier.min_run);
            assert!(!claim.pods.is_empty(), "{uid} is not told which of its pods are in the way");
            for pod in claim.pods.keys() {
                let born = self.world.born[&*pod.name];
                let promised = born.checked_add(min_run).unwrap();
                assert!(promised <= self.now, "{pod} of {born} has to go at {}: {min_run:?}", self.now);
            }
        }
        let spares = admission.classes.values().any(|class| class.preempts_at.is_some());
        self.tally.spared += usize::from(spares);
    }

    /// All that a job has in a queue that is drained has to go, and nobody else is asked for that reason.
    fn keeps_stop(&self) {
        let admission = &self.world.admission;
        for (uid, job) in admission.jobs.iter() {
            let Some(name) = job.class.line.queue.as_deref() else { continue };
            let told = admission.verdict(uid).reclaim;
            let kept = told.filter(|told| told.cause == ReclaimCause::QueueStopped).map(|told| told.keep);
            let is_drained = self.rules[name].stop == StopPolicy::Drain;
            assert_eq!(kept, is_drained.then_some(0), "{uid} of {name} at {}", self.now);
        }
    }
}
