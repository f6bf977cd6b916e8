//! Pods that are claimed back: by a quota that was cut, by who has lent, by who is more important.
//!
//! A claim says how many live pods a job may keep, and where others would not do, which have to go. It is made anew in
//! every pass from what is there, those that are claimed already first: what is on its way back is never claimed twice,
//! and nobody is asked in place of somebody who was asked before.

use super::line::LineId;
use super::pods::Pods;
use super::queue::{Reclaim, ReclaimCause};
use super::{Admission, Job, pods};
use crate::resources::ResourceList;
use jiff::Timestamp;
use springtide_crds::common::Tier;
use springtide_plumbing::key::{ObjectKey, Uid};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// What one job must give back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    /// Live pods that may stay, those aside that are being deleted already.
    pub(super) keep: u32,
    /// The pods that have to go, as the room that one has is not that of another; without any, those that the job
    /// gives back first.
    pub(super) pods: BTreeMap<ObjectKey, Uid>,
    pub(super) cause: ReclaimCause,
}

impl Claim {
    /// Of any pods but so many.
    pub(super) fn beyond(keep: u32, cause: ReclaimCause) -> Self {
        Self { keep, pods: BTreeMap::new(), cause }
    }

    /// How many pods have still to go of a job of which so many stay.
    pub(super) fn left(&self, staying: u32, held: &Pods) -> u32 {
        if self.pods.is_empty() {
            return staying.saturating_sub(self.keep);
        }
        let left = self.pods.iter().filter(|(pod, uid)| held.stays(pod, uid)).count();
        u32::try_from(left).unwrap_or(u32::MAX)
    }

    /// Whether it is for this pod; never where it is for any.
    pub(super) fn names(&self, pod: &ObjectKey, held: &Pods) -> bool {
        self.pods.get(pod).is_some_and(|uid| held.stays(pod, uid))
    }
}

/// All claims, by the job that must give back.
pub(super) type Claims = BTreeMap<Uid, Claim>;

/// The order in which jobs give back: the lower tier and priority first, of these the newest.
pub(super) type Yields<'a> = (Tier, i32, Reverse<Timestamp>, &'a Uid);

impl Job {
    pub(super) fn yields(&self) -> Yields<'_> {
        let (tier, priority) = self.class.rank();
        (tier, priority, Reverse(self.demand.created), &self.demand.uid)
    }
}

impl Admission {
    /// Live pods of a job that are not being deleted.
    pub(super) fn staying(&self, uid: &Uid) -> u32 {
        pods::staying(&self.live, &self.leaving, uid)
    }

    /// What a job must give back, as far as it has not yet.
    pub(super) fn claimed(&self, uid: &Uid) -> Option<Reclaim> {
        let (claim, staying) = (self.claims.get(uid)?, self.staying(uid));
        let left = Some(claim.left(staying, &self.pods)).filter(|left| *left > 0)?;
        let until = self.drains.get(uid).and_then(|drained| drained.start);
        let pods = claim.pods.values().cloned().collect();
        Some(Reclaim { keep: staying.saturating_sub(left), pods, cause: claim.cause, until })
    }

    /// Makes all claims anew. Wakes the jobs that must give back something else than before.
    pub(super) fn claim(&mut self, now: Timestamp, woken: &mut Vec<ObjectKey>) {
        let mut before = std::mem::take(&mut self.claims);
        // Who has given back what was claimed is no better a victim than others.
        before.retain(|uid, claim| claim.left(self.staying(uid), &self.pods) > 0);
        self.claim_for_peaks(now);
        self.claim_cut_quota(&before, woken);
        if !self.incomplete {
            self.preempt(&before, now);
        }
        let changed = self.claims.iter().filter(|(uid, claim)| before.get(*uid) != Some(*claim));
        let gone = before.keys().filter(|uid| !self.claims.contains_key(*uid));
        let jobs = changed.map(|(uid, _)| uid).chain(gone).filter_map(|uid| self.jobs.get(uid));
        woken.extend(jobs.map(|job| job.demand.job.clone()));
    }

    /// Queues that use more than their max: their grants are taken back, then their pods.
    fn claim_cut_quota(&mut self, before: &Claims, woken: &mut Vec<ObjectKey>) {
        let mut exceeding = self.queues.exceeding();
        // Nothing is taken back by a view that is out of date.
        exceeding.retain(|(key, _)| !self.stale.concerns(&key.namespace));
        for (key, _) in exceeding {
            let line = LineId::of_queue(&key);
            let granted = |job: &&Job| job.class.line == line && !job.in_flight.is_empty();
            let granted = self.jobs.values().filter(granted);
            let granted: Vec<Uid> = granted.map(|job| job.demand.uid.clone()).collect();
            for uid in granted {
                // A pod that exists takes its room, seen or not.
                let made = self.jobs.get(&uid).map_or(0, |job| job.unseen.len());
                self.give_back(&uid, made);
                self.place_in_line(&uid);
                woken.extend(self.jobs.get(&uid).map(|job| job.demand.job.clone()));
            }
        }
        let mut exceeding = self.queues.exceeding();
        exceeding.retain(|(key, _)| !self.stale.concerns(&key.namespace));
        for (key, mut missing) in exceeding {
            let line = LineId::of_queue(&key);
            let runs = |job: &&Job| job.class.line == line && self.staying(&job.demand.uid) > 0;
            let mut victims: Vec<&Job> = self.jobs.values().filter(runs).collect();
            victims.sort_by_key(|job| (!before.contains_key(&job.demand.uid), job.yields()));
            // What goes for a peak is given as well.
            let mut kept: BTreeMap<&Uid, u32> = BTreeMap::new();
            for job in &victims {
                let uid = &job.demand.uid;
                if let Some(claim) = self.claims.get(uid) {
                    let given = i64::from(self.staying(uid).saturating_sub(claim.keep));
                    missing
                        .subtract(&self.queues.in_quota(&key, &self.queues.wanted(&job.class)).times(given));
                    kept.insert(uid, claim.keep);
                }
            }
            // Elastic jobs shrink before any job stops as a whole.
            for shrinks in [true, false] {
                for job in &victims {
                    let uid = &job.demand.uid;
                    let staying = kept.get(uid).copied().unwrap_or_else(|| self.staying(uid));
                    let pod = self.queues.in_quota(&key, &self.queues.wanted(&job.class));
                    let floor = if shrinks { job.demand.min_parallelism.max(1) } else { 0 };
                    let spare = staying.saturating_sub(floor);
                    // What is less than its minimum does not work at all.
                    let given = match (needed(&missing, &pod), shrinks) {
                        (0, _) => 0,
                        (needed, true) => needed.min(spare),
                        (_, false) => spare,
                    };
                    if given > 0 {
                        missing.subtract(&pod.times(given.into()));
                        kept.insert(uid, staying - given);
                    }
                }
            }
            let cause = ReclaimCause::QuotaShrunk;
            let claims: Vec<(Uid, Claim)> =
                kept.into_iter().map(|(uid, keep)| (uid.clone(), Claim::beyond(keep, cause))).collect();
            for (uid, claim) in claims {
                let held = self.claims.entry(uid).or_insert_with(|| claim.clone());
                held.keep = claim.keep;
            }
        }
    }
}

/// How many pods it takes to cover what is missing, as far as such pods can.
pub(super) fn needed(missing: &ResourceList, pod: &ResourceList) -> u32 {
    let covers = missing.iter().filter(|(name, missing)| *missing > 0 && pod.get(name) > 0);
    let pods = covers.map(|(name, missing)| (missing - 1) / pod.get(name) + 1);
    pods.max().map_or(0, |pods| u32::try_from(pods).unwrap_or(u32::MAX))
}
