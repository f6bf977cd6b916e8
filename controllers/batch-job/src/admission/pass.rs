//! One admission pass: every class that waits, once, and as many grants at once as fit.

use super::claims::Claim;
use super::class::ClassKey;
use super::held::ends_by;
use super::line::LineId;
use super::queue::Ordering;
use super::quota::Fill;
use super::{Admission, Place, Staleness, pods};
use crate::ledger::Slot;
use crate::shape::Shape;
use jiff::Timestamp;
use springtide_plumbing::key::{ObjectKey, Uid};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::Arc;

/// Grants that a line gets in its turn, at least, before the next one has its own.
const QUANTUM: usize = 16;
/// Where there is room for far more, it gets one of so many parts of its share at a time.
const PARTS: usize = 32;
/// The same of borrowed capacity: each changes who has borrowed least.
const BORROWED_QUANTUM: usize = 1;
/// Classes up to which a job that asks gets a pass of its own; with more of them, jobs share one.
const SMALL: usize = 64;
/// Rounds of a pass at most: a further one is for what was kept from others for nobody.
const MOST_ROUNDS: usize = 3;

/// A line whose turn comes in this pass, and its classes in the order in which they are served.
#[derive(Debug)]
struct Turn {
    line: LineId,
    ordering: Ordering,
    classes: VecDeque<ClassKey>,
}

impl Admission {
    /// Gives out what can be given out now, where anything has changed since the last pass. Returns the
    /// jobs whose grant, or whose chance ever to fit, has changed, in the order of their grants; one that was given
    /// something twice may stand there twice.
    pub fn pass(&mut self, now: Timestamp) -> Vec<ObjectKey> {
        self.drop_classes(now);
        let mut resumed = false;
        for (key, class) in &mut self.classes {
            class.scheduling.look(key.shape.modelled && !self.blind, now);
            let paused = class.paused_until.is_some();
            resumed |= class.resume(now).is_none() && paused;
            resumed |= class.preempts_at.is_some_and(|at| at <= now);
        }
        resumed |= self.is_keeping_due(now);
        resumed |= self.queues.refresh(&self.ledger, self.blind, now);
        resumed |= self.drains_are_due(now);
        if !self.dirty && !resumed {
            return Vec::new();
        }
        self.dirty = false;
        self.last_pass = Some(now);
        let mut woken = self.refresh_fits();
        self.peaks_turned(&mut woken);
        if !self.ready || self.stale == Staleness::Everywhere {
            return woken;
        }
        if self.incomplete {
            // Peaks and quotas bind what runs all the same.
            self.claim(now, &mut woken);
            return woken;
        }
        for _ in 0..MOST_ROUNDS {
            if self.round(now, &mut woken) {
                break;
            }
        }
        woken.dedup();
        woken
    }

    /// Gives out what can be given out. Returns whether that is all: else something was kept from others for who is not
    /// waiting for it any more, and as nothing has happened that another pass would come for, a further round has to.
    fn round(&mut self, now: Timestamp, woken: &mut Vec<ObjectKey>) -> bool {
        self.turn += 1;
        self.settle_unfit();
        self.serve_owed(woken);
        let owed: Vec<ClassKey> = self.claimants.values().map(|owed| owed.class.clone()).collect();
        let held = self.hold_owed(now);
        self.keep_nodes(now);
        self.block();
        let turns = self.turns(Fill::Nominal);
        self.serve(turns, woken);
        let turns = self.turns(Fill::Borrowed);
        self.lend(turns, woken);
        drop(self.refresh_fits());
        self.note_starved(now);
        let free = self.free_for_shown(!held.is_empty());
        self.unblock();
        self.release(held);
        self.claim(now, woken);
        self.show(&free, woken);
        // What was tried, held and kept stands in the tables still, by which jobs are told what is short.
        drop(self.refresh_fits());
        let is_owed = |class: &ClassKey| self.claimants.values().any(|owed| owed.class == *class);
        owed.iter().all(is_owed) && !self.keeps_in_vain()
    }

    /// When a pass is due though nothing happens, after `now`: the pause of a class ends, pods have run as long as they
    /// are promised, or a node is to be kept. What peaks ask for, their queues come for.
    pub fn due(&self, now: Timestamp) -> Option<Timestamp> {
        let waiting = self.classes.iter().filter(|(_, class)| !class.waiting.is_empty());
        let dues = waiting.flat_map(|(key, class)| {
            let keeps_at = class.keeps_at.filter(|_| !self.has_kept(&key.line));
            [class.paused_until, class.preempts_at, keeps_at]
        });
        dues.flatten().filter(|due| *due > now).min()
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
    pub(super) fn models(&self, shape: &Shape) -> bool {
        shape.modelled && !self.blind
    }

    /// Drops the classes, and the tables of their shapes, that nobody needs any more.
    fn drop_classes(&mut self, now: Timestamp) {
        for (key, _) in self.classes.extract_if(|_, class| class.is_over(now)) {
            self.queues.forget_class(&key);
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
    pub(super) fn refresh_fits(&mut self) -> Vec<ObjectKey> {
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

    /// The classes that can be given something: lines take turns, those served least recently first; inside one
    /// the higher tier and priority goes first, then the class served least recently, or in a strict queue the
    /// one whose job is the oldest.
    fn turns(&self, fill: Fill) -> VecDeque<Turn> {
        let mut by_line: BTreeMap<_, BTreeMap<_, &ClassKey>> = BTreeMap::new();
        for (key, class) in &self.classes {
            let Some(head) = class.waiting.first() else { continue };
            if self.stale.concerns(&key.line.namespace)
                || fill == Fill::Borrowed && !self.queues.borrows(&key.line)
                || self.queues.closed(&key.line, key.tier).is_some()
                || self.is_kept_from(key, fill)
            {
                continue;
            }
            let is_strict = self.ordering(&key.line) == Ordering::StrictFifo;
            // In a strict queue who can be given nothing has a place all the same: it holds up the others.
            if !is_strict && !self.can_be_served(key, fill) {
                continue;
            }
            let served = if is_strict { 0 } else { class.served };
            let line_served = self.lines.get(&key.line).map_or(0, |line| line.served);
            by_line
                .entry((line_served, &key.line))
                .or_default()
                .insert((Reverse(key.rank()), served, head), key);
        }
        by_line
            .into_iter()
            .map(|((_, line), classes)| Turn {
                line: line.clone(),
                ordering: self.ordering(line),
                classes: classes.into_values().cloned().collect(),
            })
            .collect()
    }

    pub(super) fn ordering(&self, line: &LineId) -> Ordering {
        self.queues.rules_of(line).map_or(Ordering::PriorityFifo, |rules| rules.ordering)
    }

    pub(super) fn can_be_served(&self, key: &ClassKey, fill: Fill) -> bool {
        let Some(class) = self.classes.get(key) else { return false };
        let fits = self.blind
            || self.fits.get(&key.shape).is_some_and(|fit| fit.table.total() >= u64::from(key.gang.min(1)))
            || self.may_be_let_in(key);
        class.paused_until.is_none()
            && fits
            && class.allowance(self.models(&key.shape)) > 0
            && self.may_finish(key)
            && self.queues.room(&key.line, key.tier, &self.queues.wanted(key), fill).pods > 0
    }

    /// Turn by turn: a line gets a quantum for one of its classes, then the next line.
    fn serve(&mut self, mut turns: VecDeque<Turn>, woken: &mut Vec<ObjectKey>) {
        while let Some(mut turn) = turns.pop_front() {
            let quantum = match turns.len() {
                0 => usize::MAX,
                others => QUANTUM.max(self.fits_first(&turn) / (PARTS * (others + 1))),
            };
            self.serve_one(&mut turn, quantum, Fill::Nominal, woken);
            if !turn.classes.is_empty() {
                turns.push_back(turn);
            }
        }
    }

    /// Pods of the first class of a line that fit now.
    fn fits_first(&self, turn: &Turn) -> usize {
        let fit = turn.classes.front().and_then(|key| self.fits.get(&key.shape));
        fit.map_or(0, |fit| usize::try_from(fit.table.total()).unwrap_or(usize::MAX))
    }

    /// Who has borrowed least, by its weight, gets the next that is to be borrowed.
    fn lend(&mut self, turns: VecDeque<Turn>, woken: &mut Vec<ObjectKey>) {
        let mut turns = Vec::from(turns);
        // What one line has borrowed is changed by its own grants alone.
        let mut next: BinaryHeap<Reverse<(u64, usize)>> = turns
            .iter()
            .enumerate()
            .map(|(at, turn)| Reverse((self.queues.borrowed_share(&turn.line), at)))
            .collect();
        while let Some(Reverse((_, at))) = next.pop() {
            let quantum = if next.is_empty() { usize::MAX } else { BORROWED_QUANTUM };
            let turn = &mut turns[at];
            self.serve_one(turn, quantum, Fill::Borrowed, woken);
            if !turn.classes.is_empty() {
                next.push(Reverse((self.queues.borrowed_share(&turn.line), at)));
            }
        }
    }

    /// Serves the first class of a line, which comes again after its sisters, if it may take more.
    fn serve_one(&mut self, turn: &mut Turn, quantum: usize, fill: Fill, woken: &mut Vec<ObjectKey>) {
        let Some(key) = turn.classes.pop_front() else { return };
        let is_rival = |other: &ClassKey| other.rank() >= key.rank();
        let next = turn.classes.front().filter(|next| is_rival(next));
        match turn.ordering {
            Ordering::PriorityFifo => {
                // Nobody else waits: turns would only cost time.
                let quantum = if next.is_some() { quantum.min(QUANTUM) } else { quantum };
                if self.grant(&key, quantum, fill, None, woken).is_some() {
                    turn.classes.insert(turn.classes.partition_point(is_rival), key);
                }
            }
            Ordering::StrictFifo => {
                let until = next.and_then(|next| self.head(next)).cloned();
                let head = self.head(&key).cloned();
                let is_served = self.can_be_served(&key, fill)
                    && self.grant(&key, quantum, fill, until.as_ref(), woken).is_some();
                if !is_served {
                    turn.classes.clear();
                    self.set_head(&turn.line, head);
                } else if let Some(head) = self.head(&key) {
                    let place = (Reverse(key.rank()), head);
                    let at = turn.classes.partition_point(|other| {
                        self.head(other).is_some_and(|head| (Reverse(other.rank()), head) < place)
                    });
                    turn.classes.insert(at, key);
                } else {
                    self.set_head(&turn.line, None);
                }
            }
        }
    }

    fn head(&self, key: &ClassKey) -> Option<&Place> {
        self.classes.get(key)?.waiting.first()
    }

    fn set_head(&mut self, line: &LineId, head: Option<Place>) {
        if let Some(line) = self.lines.get_mut(line) {
            line.head = head;
        }
    }

    /// Grants up to `quantum` pods to the oldest jobs of a class, those before `until`; `None` when it takes no
    /// more in this pass.
    pub(super) fn grant(
        &mut self,
        key: &ClassKey,
        quantum: usize,
        fill: Fill,
        until: Option<&Place>,
        woken: &mut Vec<ObjectKey>,
    ) -> Option<()> {
        self.let_in(key, |this, end| this.grant_within(key, quantum, fill, (until, end), woken))
    }

    /// The same on the nodes that are open now, to the jobs before `until` whose pods end by `end`.
    fn grant_within(
        &mut self,
        key: &ClassKey,
        quantum: usize,
        fill: Fill,
        (until, end): (Option<&Place>, Option<Timestamp>),
        woken: &mut Vec<ObjectKey>,
    ) -> Option<()> {
        #[cfg(test)]
        {
            self.looks += 1;
        }
        let models = self.models(&key.shape);
        let now = self.now();
        let fit = &mut self.fits.get_mut(&key.shape)?.table;
        fit.refresh(&key.shape, &self.ledger);
        let class = self.classes.get_mut(key)?;
        let room = match self.blind {
            true => usize::MAX,
            false => usize::try_from(fit.total()).unwrap_or(usize::MAX),
        };
        let room = room.min(self.queues.room(&key.line, key.tier, &self.queues.wanted(key), fill).pods);
        let allowance = class.allowance(models);
        if allowance == 0 {
            return None;
        }
        let (claims, live, leaving, held) = (&self.claims, &self.live, &self.leaving, &self.pods);
        let mut left = allowance.min(quantum).min(room);
        let mut shares = Vec::with_capacity(left.min(class.waiting.len()));
        for place in class.waiting.iter().take_while(|place| until.is_none_or(|until| *place < until)) {
            let uid = &place.1;
            // Who has to give back is not given meanwhile.
            let due = |claim: &Claim| claim.left(pods::staying(live, leaving, uid), held);
            if claims.get(uid).is_some_and(|claim| due(claim) > 0) {
                continue;
            }
            let job = self.jobs.get(uid)?;
            if key.finishes.is_some()
                && !self.queues.would_finish(
                    &key.line,
                    key.tier,
                    job.demand.interruption.expected,
                    self.last_pass,
                )
            {
                continue;
            }
            if end.is_some_and(|end| !ends_by(job.demand.interruption.expected, now, end)) {
                break;
            }
            let granted = live.get(uid).copied().unwrap_or(0) as usize + job.in_flight.len();
            let wanted = (job.demand.target as usize).saturating_sub(granted);
            // A gang gets its minimum or nothing, whatever credit and quantum say: half of it helps nobody.
            let gang = (job.demand.min_parallelism as usize).saturating_sub(granted).min(wanted);
            if gang > left {
                if shares.is_empty() && gang <= room {
                    shares.push((place.clone(), gang, gang == wanted));
                }
                break;
            }
            let share = wanted.min(left);
            left -= share;
            shares.push((place.clone(), share, share == wanted));
            if left == 0 {
                break;
            }
        }
        let count = shares.iter().map(|(_, share, _)| share).sum();
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
        (class.starved, class.keeps_at) = (None, None);
        self.queues.grant(key, pods::signed(count));
        if let Some(line) = self.lines.get_mut(&key.line) {
            line.served = self.turn;
        }
        let mut served = Vec::with_capacity(shares.len());
        for (place, share, is_all) in shares {
            let job = self.jobs.get_mut(&place.1)?;
            job.in_flight.extend(places.by_ref().take(share));
            woken.push(job.demand.job.clone());
            if is_all {
                served.push(place);
            }
        }
        self.leave(key, &served);
        Some(())
    }
}
