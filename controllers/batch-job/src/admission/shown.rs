//! Pods that are made though no node has room for them, so that a node autoscaler sees them: it looks at pods that the
//! scheduler cannot place, and a queue else has none.
//!
//! So many of a queue as its rules say, the first in its order; quota bounds them like all others, and a tier of which
//! a peak leaves a part, or that comes back after one, has none. One that finds no node in its time is taken back by
//! its job, and its class pauses. What comes free meanwhile is theirs first: the scheduler tries them with every
//! change, and would place them where somebody else is expected. For that reason none is made while pods of its class
//! are on the way to nodes that have room for them.

use super::class::{Class, ClassKey};
use super::line::LineId;
use super::{Admission, Job, Place, pods};
use crate::ledger::Slot;
use springtide_crds::common::Tier;
use springtide_plumbing::key::{ObjectKey, Uid};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

/// A class that may be shown: its rank and oldest job are its place in the order.
type Candidate = (Reverse<(Tier, i32)>, Place, ClassKey);

impl Admission {
    /// Expects the pods that wait for a new node on those that there are, as far as these have room by now.
    pub(super) fn settle_unfit(&mut self) {
        for pod in self.pods.unfit_without_place() {
            let shape =
                self.pods.job_of(&pod).and_then(|job| Some(&self.jobs.get(job)?.class.shape)).cloned();
            let Some(shape) = shape else { continue };
            let Some(fit) = self.fits.get_mut(&shape).map(|fit| &mut fit.table) else { continue };
            if let Some(slot) = fit.place(1, &shape, &mut self.ledger).pop() {
                // What it holds itself is charged in place of its shape.
                self.ledger.credit(slot, &shape.requests);
                self.pods.expect_on(&pod, slot, &mut self.ledger);
            }
        }
    }

    /// Pods that fit beside what is kept for others, by class; where nothing is kept, nothing.
    pub(super) fn free_for_shown(&self, is_held: bool) -> HashMap<ClassKey, u64> {
        if self.blind || self.blocked.is_empty() && !is_held {
            return HashMap::new();
        }
        let shown = self
            .classes
            .iter()
            .filter(|(key, class)| !class.waiting.is_empty() && self.queues.max_pending(&key.line) > 0);
        let free = |key: &ClassKey| Some(self.fits.get(&key.shape)?.table.total() + self.kept_for(key));
        shown.filter_map(|(key, _)| Some((key.clone(), free(key)?))).collect()
    }

    /// Grants what no node has room for, where rules of queues say so. Comes last: who can be served otherwise has been.
    /// `free` is what fits beside what is kept for others. As the scheduler knows of nothing that is kept, none is shown
    /// of a class for whose pods such room would be enough.
    pub(super) fn show(&mut self, free: &HashMap<ClassKey, u64>, woken: &mut Vec<ObjectKey>) {
        if self.blind {
            return;
        }
        let mut by_line: BTreeMap<LineId, Vec<Candidate>> = BTreeMap::new();
        for (key, class) in &self.classes {
            if let Some(head) = class.waiting.first().filter(|head| self.may_be_shown(key, class, head)) {
                let candidate = (Reverse(key.rank()), head.clone(), key.clone());
                by_line.entry(key.line.clone()).or_default().push(candidate);
            }
        }
        if by_line.is_empty() {
            return;
        }
        // Nobody is woken twice: whether a shape can ever fit has been found at the begin of the pass.
        drop(self.refresh_fits());
        for (line, mut classes) in by_line {
            classes.sort_by(|(rank, head, _), (other, its, _)| (rank, head).cmp(&(other, its)));
            let mut left = self.queues.max_pending(&line).saturating_sub(self.shown(&line));
            for (.., key) in classes {
                if left == 0 {
                    break;
                }
                let total = self.fits.get(&key.shape).map_or(0, |fit| fit.table.total());
                if free.get(&key).is_none_or(|free| *free >= total) {
                    left = left.saturating_sub(self.show_class(&key, left, woken).unwrap_or(0));
                }
            }
        }
    }

    /// Of the grants of a job whose pods do not exist yet, those that no node has room for.
    pub(super) fn unfit(&self, job: &Job) -> u32 {
        if self.blind || self.queues.max_pending(&job.class.line) == 0 {
            return 0;
        }
        u32::try_from(placeless(job)).unwrap_or(u32::MAX)
    }

    fn may_be_shown(&self, key: &ClassKey, class: &Class, head: &Place) -> bool {
        if self.queues.max_pending(&key.line) == 0 {
            return false;
        }
        let waits_for_others = self.claimants.get(&key.line).is_some_and(|owed| owed.class == *key);
        class.paused_until.is_none()
            && !self.is_held_up(&key.line, head)
            && !waits_for_others
            // While a peak leaves a part, nodes are not what is short.
            && !self.queues.is_limited_by_peak(&key.line, key.tier)
            && !self.stale.concerns(&key.line.namespace)
            && self.may_finish(key)
            && self.queues.closed(&key.line, key.tier).is_none()
            && !self.is_settling(key, class)
    }

    /// Whether pods of a class that have room are not on their nodes yet: the scheduler would give it to one that is shown
    /// meanwhile, be it of a younger job.
    fn is_settling(&self, key: &ClassKey, class: &Class) -> bool {
        let coming = class.in_flight + class.scheduling.waiting();
        if coming == 0 {
            return false;
        }
        coming > self.placeless_grants(|class| class == key) + self.pods.unfit_in(key)
    }

    /// Pods and grants of a queue that wait for a new node.
    fn shown(&self, line: &LineId) -> usize {
        self.pods.unfit_of(line) + self.placeless_grants(|class| class.line == *line)
    }

    /// Grants of these classes that no node has room for, and whose pods do not exist yet.
    fn placeless_grants(&self, of: impl Fn(&ClassKey) -> bool) -> usize {
        self.jobs.values().filter(|job| of(&job.class)).map(placeless).sum()
    }

    /// Grants up to `most` pods that fit nowhere to the oldest jobs of a class; returns how many.
    fn show_class(&mut self, key: &ClassKey, most: usize, woken: &mut Vec<ObjectKey>) -> Option<usize> {
        let mut fits = usize::try_from(self.fits.get(&key.shape)?.table.total()).unwrap_or(usize::MAX);
        if fits >= self.least(key)? {
            return None;
        }
        let fill = self.queues.last_fill(&key.line);
        let mut room = self.queues.room_by_quota(&key.line, key.tier, &self.queues.wanted(key), fill).pods;
        let class = self.classes.get(key)?;
        let mut credit = class.allowance(self.models(&key.shape));
        let mut shares: Vec<(Uid, usize, usize)> = Vec::new();
        let mut left = most;
        for (_, uid) in &class.waiting {
            let job = self.jobs.get(uid)?;
            let granted = self.granted(uid);
            if self.claimed(uid).is_some() || !self.may_start(job) {
                continue;
            }
            let missing = |of: u32| of.saturating_sub(granted) as usize;
            let (wanted, gang) = (missing(job.demand.target), missing(job.demand.min_parallelism));
            // As everywhere, a gang gets its minimum or nothing, whatever the credit says.
            let allowed = if credit > 0 && shares.is_empty() { credit.max(gang) } else { credit };
            let share = wanted.min(allowed).min(room).min(fits.saturating_add(left));
            if share == 0 || share < gang {
                break;
            }
            let placed = share.min(fits);
            fits -= placed;
            left -= share - placed;
            room -= share;
            credit = credit.saturating_sub(share);
            shares.push((uid.clone(), placed, share - placed));
        }
        let shown = most - left;
        for (uid, placed, unfit) in shares {
            let fit = &mut self.fits.get_mut(&key.shape)?.table;
            let places = fit.place(placed, &key.shape, &mut self.ledger);
            let places: Vec<Option<Slot>> =
                places.into_iter().map(Some).chain(std::iter::repeat_n(None, unfit)).collect();
            let class = self.classes.get_mut(key)?;
            class.in_flight += places.len();
            class.served = self.turn;
            self.queues.grant(key, pods::signed(places.len()));
            let job = self.jobs.get_mut(&uid)?;
            job.in_flight.extend(places);
            woken.push(job.demand.job.clone());
            self.place_in_line(&uid);
        }
        Some(shown)
    }
}

fn placeless(job: &Job) -> usize {
    job.in_flight.iter().filter(|place| place.is_none()).count()
}
