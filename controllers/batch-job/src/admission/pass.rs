//! One admission pass: every class that waits, once, and as many grants at once as fit.

use super::class::ClassKey;
use super::{Admission, Staleness};
use crate::ledger::Slot;
use crate::shape::Shape;
use jiff::Timestamp;
use springtide_plumbing::key::{ObjectKey, Uid};
use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Grants that a namespace gets in its turn before the next one has its own.
const QUANTUM: usize = 16;
/// Classes up to which a job that asks gets a pass of its own; with more of them, jobs share one.
const SMALL: usize = 64;

impl Admission {
    /// Gives out what can be given out now, where anything has changed since the last pass. Returns the
    /// jobs whose grant, or whose chance ever to fit, has changed.
    pub fn pass(&mut self, now: Timestamp) -> Vec<ObjectKey> {
        self.drop_classes(now);
        let mut resumed = false;
        for class in self.classes.values_mut() {
            let paused = class.paused_until.is_some();
            resumed |= class.resume(now).is_none() && paused;
        }
        if !self.dirty && !resumed {
            return Vec::new();
        }
        self.dirty = false;
        let mut woken = self.refresh_fits();
        if !self.ready || self.stale == Staleness::Everywhere {
            return woken;
        }
        self.turn += 1;
        self.serve(self.candidates(), &mut woken);
        woken.sort();
        woken.dedup();
        woken
    }

    /// Whether a pass is cheap enough to be made for a single job.
    pub fn is_small(&self) -> bool {
        self.classes.len() < SMALL
    }

    /// Makes sure that it is known whether the job's pods can fit at all, for one that gets no pass now.
    pub fn size_up(&mut self, uid: &Uid) {
        if let Some(shape) = self.jobs.get(uid).map(|job| &job.class.shape)
            && let Some(fit) = self.fits.get_mut(shape)
            && !fit.table.is_built()
        {
            fit.table.refresh(shape, &self.ledger);
        }
    }

    /// Whether it is known where pods of that shape fit.
    fn models(&self, shape: &Shape) -> bool {
        shape.modelled && !self.blind
    }

    /// Drops the classes, and the tables of their shapes, that nobody needs any more.
    fn drop_classes(&mut self, now: Timestamp) {
        for (key, _) in self.classes.extract_if(|_, class| class.is_over(now)) {
            if let Some(fit) = self.fits.get_mut(&key.shape) {
                fit.classes -= 1;
                if fit.classes == 0 {
                    self.fits.remove(&key.shape);
                }
            }
        }
    }

    /// Brings the tables of shapes that wait up to date. Returns the jobs for which "could it ever fit"
    /// has changed.
    fn refresh_fits(&mut self) -> Vec<ObjectKey> {
        let mut woken = Vec::new();
        let mut turned: Vec<Arc<Shape>> = Vec::new();
        for (key, class) in &self.classes {
            if class.waiting.is_empty() {
                continue;
            }
            if let Some(fit) = self.fits.get_mut(&key.shape)
                && fit.table.refresh(&key.shape, &self.ledger)
            {
                turned.push(Arc::clone(&key.shape));
            }
        }
        if !turned.is_empty() {
            for (key, class) in &self.classes {
                if turned.contains(&key.shape) {
                    woken.extend(
                        class
                            .waiting
                            .iter()
                            .filter_map(|(_, uid)| self.jobs.get(uid).map(|job| job.demand.job.clone())),
                    );
                }
            }
        }
        woken
    }

    /// The classes that can be given something: namespaces take turns, those served least recently
    /// first; inside one the higher priority goes first, then the class served least recently.
    fn candidates(&self) -> VecDeque<VecDeque<ClassKey>> {
        let mut by_namespace: BTreeMap<_, BTreeMap<_, &ClassKey>> = BTreeMap::new();
        for (key, class) in &self.classes {
            let Some(head) = class.waiting.first() else { continue };
            let fits = self.blind
                || self
                    .fits
                    .get(&key.shape)
                    .is_some_and(|fit| fit.table.total() >= u64::from(key.gang.min(1)));
            if class.paused_until.is_some()
                || !fits
                || self.stale.concerns(&key.namespace)
                || class.allowance(self.models(&key.shape)) == 0
            {
                continue;
            }
            let served = self.namespaces.get(&key.namespace).map_or(0, |namespace| namespace.served);
            by_namespace
                .entry((served, &key.namespace))
                .or_default()
                .insert((Reverse(key.priority), class.served, head), key);
        }
        by_namespace.into_values().map(|classes| classes.into_values().cloned().collect()).collect()
    }

    /// Turn by turn: a namespace gets a quantum for one of its classes, then the next namespace.
    fn serve(&mut self, mut namespaces: VecDeque<VecDeque<ClassKey>>, woken: &mut Vec<ObjectKey>) {
        while let Some(mut classes) = namespaces.pop_front() {
            let Some(key) = classes.pop_front() else { continue };
            let is_rival = |other: &ClassKey| other.priority >= key.priority;
            // Nobody else waits: turns would only cost time.
            let alone = namespaces.is_empty() && !classes.front().is_some_and(is_rival);
            if self.grant(&key, if alone { usize::MAX } else { QUANTUM }, woken).is_some() {
                // It may take more, after its sisters and the other namespaces.
                classes.insert(classes.partition_point(is_rival), key);
            }
            if !classes.is_empty() {
                namespaces.push_back(classes);
            }
        }
    }

    /// Grants up to `quantum` pods to the oldest jobs of a class; `None` when it takes no more in this
    /// pass.
    fn grant(&mut self, key: &ClassKey, quantum: usize, woken: &mut Vec<ObjectKey>) -> Option<()> {
        let models = self.models(&key.shape);
        let fit = &mut self.fits.get_mut(&key.shape)?.table;
        fit.refresh(&key.shape, &self.ledger);
        let class = self.classes.get_mut(key)?;
        let room = match self.blind {
            true => usize::MAX,
            false => usize::try_from(fit.total()).unwrap_or(usize::MAX),
        };
        let allowance = class.allowance(models);
        if allowance == 0 {
            return None;
        }
        let mut left = allowance.min(quantum).min(room);
        let mut shares = Vec::new();
        for (_, uid) in &class.waiting {
            let job = self.jobs.get(uid)?;
            let granted = self.live.get(uid).copied().unwrap_or(0) as usize + job.in_flight.len();
            let wanted = (job.demand.target as usize).saturating_sub(granted);
            // A gang gets its minimum or nothing, whatever credit and quantum say: half of it helps nobody.
            let gang = (job.demand.min_parallelism as usize).saturating_sub(granted).min(wanted);
            if gang > left {
                if shares.is_empty() && gang <= room {
                    shares.push((uid.clone(), gang));
                }
                break;
            }
            let share = wanted.min(left);
            left -= share;
            shares.push((uid.clone(), share));
            if left == 0 {
                break;
            }
        }
        let count = shares.iter().map(|(_, share)| share).sum();
        let places: Vec<Option<Slot>> = match self.blind {
            true => vec![None; count],
            false => fit.place(count, &key.shape, &mut self.ledger).into_iter().map(Some).collect(),
        };
        let mut places = places.into_iter();
        if count == 0 || places.len() < count {
            return None;
        }
        class.in_flight += count;
        class.served = self.turn;
        if let Some(namespace) = self.namespaces.get_mut(&key.namespace) {
            namespace.served = self.turn;
        }
        for (uid, share) in shares {
            let job = self.jobs.get_mut(&uid)?;
            job.in_flight.extend(places.by_ref().take(share));
            woken.push(job.demand.job.clone());
            self.place_in_line(&uid);
        }
        Some(())
    }
}
