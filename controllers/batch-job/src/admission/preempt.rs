//! Who may have others end: a lender what it has lent, a tier what the rules of its queue give it.
//!
//! A class that waits claims pods only if it can start without them. Whether it can is tried: pods are taken
//! off the books one by one, in the order in which they yield, until enough of the class fits; then those are
//! put back without which it fits as well; then all of them. So what is promised here is what a pass grants. Those that
//! are left are claimed by name: one on another node would be ended for nothing.

use super::claims::{Claim, Claims, needed};
use super::class::ClassKey;
use super::line::LineId;
use super::queue::{Ordering, ReclaimCause};
use super::quota::Fill;
use super::{Admission, Job, Place};
use jiff::{SignedDuration, Timestamp};
use springtide_crds::common::Tier;
use springtide_plumbing::clock::after;
use springtide_plumbing::key::{ObjectKey, Uid};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};

/// A pod that is not gone so long after it should be is stuck: nobody counts on its room.
const STUCK_AFTER: SignedDuration = SignedDuration::from_secs(60);

/// Classes of a queue that are tried in a pass: one that can never start must not hold up all others.
const TRIED_PER_LINE: usize = 8;

/// A class for which others may have to end.
#[derive(Clone, Debug)]
struct Claimant {
    key: ClassKey,
    /// With fewer pods its first job does not start.
    least: usize,
    /// Pods that it would be granted at once, had it the room.
    most: usize,
}

/// Pods of one job that end together.
#[derive(Clone, Debug)]
struct Unit {
    job: Uid,
    pods: Vec<ObjectKey>,
    /// The queue that has borrowed what they hold; `None` of the claimant's own.
    borrower: Option<ObjectKey>,
    place: Where,
    part: Part,
    /// Pods that the job has above its minimum.
    spare: usize,
}

/// What a job loses with some of its pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// One of those above its minimum: what it has begun last.
    Spare,
    /// An older one, for which one of those stays.
    InPlace,
    /// All that it needs to run, which are the last that it has.
    Whole,
}

/// How far those go who look for pods that end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// Jobs shrink, by whichever of their pods are in the way.
    AnySpare,
    /// Jobs shrink, by those that they have begun last.
    LastSpare,
    /// Jobs end.
    Whole,
}

impl Reach {
    fn takes(self, part: Part) -> bool {
        match (self, part) {
            (_, Part::Spare) | (Self::AnySpare, Part::InPlace) | (Self::Whole, Part::Whole) => true,
            (Self::LastSpare | Self::Whole, Part::InPlace)
            | (Self::AnySpare | Self::LastSpare, Part::Whole) => false,
        }
    }
}

/// What comes of it.
struct Decided {
    chosen: Vec<Unit>,
    /// Pods of the class that fit then.
    owed: usize,
    fill: Fill,
}

/// A class for which others end or have ended: so many of its pods are served before all others, as what was
/// given up for it is not for whoever comes first.
#[derive(Clone, Debug)]
pub(super) struct Owed {
    pub(super) class: ClassKey,
    pub(super) pods: usize,
    pub(super) fill: Fill,
}

/// A pod that stays, and since when it is there.
pub(super) type Giver = (ObjectKey, Timestamp);

/// Who yields first, by where it is: what was borrowed, lower tiers and priorities of the own queue, at last what
/// the highest tier has borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Where {
    Borrowed,
    Own,
    BorrowedByHighest,
}

/// Who yields first: pods that were asked before; whole jobs after all that only shrink.
type Order<'a> = (bool, bool, Where, super::claims::Yields<'a>, usize);

impl Admission {
    /// Adds the claims of those that wait and may have others end.
    pub(super) fn preempt(&mut self, before: &Claims, now: Timestamp) {
        for class in self.classes.values_mut() {
            class.preempts_at = None;
        }
        // Who is owed something is found anew: what cannot be given is kept from others for nobody.
        let owed_before = std::mem::take(&mut self.claimants);
        let claimants = self.who_claims();
        if claimants.is_empty() {
            return;
        }
        // What is on its way back is as good as there, and so is what a quota's cut has claimed.
        let mut givers: HashMap<Uid, Vec<Giver>> = self.pods.staying();
        let leaving = self.coming(&mut givers, now);
        for (line, keys) in claimants {
            for key in keys.into_iter().take(TRIED_PER_LINE) {
                let Some(claimant) = self.claimant(&key) else { continue };
                let (units, later) = self.units(&key, &givers, before, now);
                self.book(&leaving, -1);
                let decided = self.decide(&claimant, &units);
                self.book(&leaving, 1);
                let Some(Decided { chosen, owed, fill }) = decided else {
                    if let Some(class) = self.classes.get_mut(&key) {
                        class.preempts_at = later;
                    }
                    continue;
                };
                // Or what is on its way back is enough.
                let was_owed = owed_before.get(&line).is_some_and(|owed| owed.class == key);
                if was_owed || !chosen.is_empty() {
                    self.claimants.insert(line, Owed { class: key.clone(), pods: owed, fill });
                }
                if !chosen.is_empty() {
                    #[cfg(test)]
                    if let Some((_, head)) = self.classes.get(&key).and_then(|class| class.waiting.first()) {
                        self.taken.extend(chosen.iter().map(|unit| (head.clone(), unit.job.clone())));
                    }
                    self.enter_claims(chosen, &mut givers);
                }
                break;
            }
        }
    }

    /// Whom to end: what was borrowed, else what yields in the own queue, which may borrow for it; first of jobs that
    /// only shrink. Else all of them. Not at once: to come below nominal those would end whom the own queue needs,
    /// where within its max others are enough.
    fn decide(&mut self, claimant: &Claimant, units: &[Unit]) -> Option<Decided> {
        let fill = self.queues.last_fill(&claimant.key.line);
        let of = |place: Where, reach: Reach| -> Vec<&Unit> {
            units.iter().filter(|unit| unit.place == place && reach.takes(unit.part)).collect()
        };
        for reaches in [&[Reach::AnySpare, Reach::LastSpare][..], &[Reach::Whole]] {
            for (place, fill) in [(Where::Borrowed, Fill::Nominal), (Where::Own, fill)] {
                for reach in reaches {
                    let units = of(place, *reach);
                    let has_choice = || units.iter().any(|unit| unit.part == Part::InPlace);
                    // In the own queue it may fit as things are, without any of these.
                    let is_vain = units.is_empty() && place != Where::Own;
                    if is_vain || *reach == Reach::AnySpare && !has_choice() {
                        continue;
                    }
                    if let Some(decided) = self.attempt(claimant, &units, fill) {
                        return Some(decided);
                    }
                    // For all that wait a job might have to end; for the first of them it may be enough that it shrinks.
                    let first = Claimant { most: claimant.least, ..claimant.clone() };
                    if *reach == Reach::AnySpare
                        && first.most < claimant.most
                        && let Some(decided) = self.attempt(&first, &units, fill)
                    {
                        return Some(decided);
                    }
                }
            }
        }
        let has_lent = units.iter().any(|unit| unit.place != Where::Own);
        let all: Vec<&Unit> = units.iter().filter(|unit| Reach::Whole.takes(unit.part)).collect();
        if has_lent { self.attempt(claimant, &all, Fill::Nominal) } else { None }
    }

    /// Pods that go, or are asked to: what they hold is as good as there. Their jobs are no givers any more.
    pub(super) fn coming(&self, givers: &mut HashMap<Uid, Vec<Giver>>, now: Timestamp) -> Vec<ObjectKey> {
        let mut coming = self.pods.leaving(after(now, -STUCK_AFTER));
        for (uid, claim) in &self.claims {
            let Some(pods) = givers.remove(uid) else { continue };
            let surplus = pods.len().saturating_sub(claim.keep as usize);
            let pods = pods.into_iter().map(|(pod, _)| pod);
            match claim.pods.is_empty() {
                true => coming.extend(pods.take(surplus)),
                false => coming.extend(pods.filter(|pod| claim.names(pod, &self.pods))),
            }
        }
        coming
    }

    fn enter_claims(&mut self, chosen: Vec<Unit>, givers: &mut HashMap<Uid, Vec<Giver>>) {
        for unit in chosen {
            givers.remove(&unit.job);
            let cause = match unit.borrower {
                Some(_) => ReclaimCause::Reclaimed,
                None => ReclaimCause::Preempted,
            };
            let keep = self.staying(&unit.job);
            let claim = self.claims.entry(unit.job).or_insert_with(|| Claim::beyond(keep, cause));
            claim.keep = claim.keep.saturating_sub(u32::try_from(unit.pods.len()).unwrap_or(u32::MAX));
            let named = unit.pods.into_iter().filter_map(|pod| {
                let uid = self.pods.uid(&pod)?.clone();
                Some((pod, uid))
            });
            claim.pods.extend(named);
        }
    }

    /// The classes that wait in each queue, and to which anybody could have to yield, in the order of the queue.
    fn who_claims(&self) -> BTreeMap<LineId, Vec<ClassKey>> {
        // Rank and oldest job of each, which are its place in the order.
        type Waiting<'a> = (Reverse<(Tier, i32)>, &'a Place, &'a ClassKey);
        let mut by_line: BTreeMap<&LineId, Vec<Waiting<'_>>> = BTreeMap::new();
        for (key, class) in &self.classes {
            let Some(head) = class.waiting.first() else { continue };
            let is_blocked = self.is_held_up(&key.line, head);
            let is_open = class.paused_until.is_none()
                && self.queues.closed(&key.line, key.tier).is_none()
                && self.may_finish(key)
                && !self.stale.concerns(&key.line.namespace);
            if is_open && !is_blocked && self.queues.may_claim(&key.line, key.tier, &self.queues.wanted(key))
            {
                by_line.entry(&key.line).or_default().push((Reverse(key.rank()), head, key));
            }
        }
        let in_order = |mut keys: Vec<Waiting<'_>>| {
            keys.sort_by(|(rank, head, _), (other, its, _)| (rank, head).cmp(&(other, its)));
            keys.into_iter().map(|(.., key)| key.clone()).collect()
        };
        by_line.into_iter().map(|(line, keys)| (line.clone(), in_order(keys))).collect()
    }

    /// Pods without which the first job of a class does not start; `None` where none may.
    pub(super) fn least(&self, key: &ClassKey) -> Option<usize> {
        let head = self.startable(key).next()?;
        let missing = head.demand.min_parallelism.saturating_sub(self.granted(&head.demand.uid));
        Some(missing.max(1) as usize)
    }

    fn claimant(&self, key: &ClassKey) -> Option<Claimant> {
        let class = self.classes.get(key)?;
        let allowance = class.allowance(self.models(&key.shape));
        if allowance == 0 {
            return None;
        }
        let missing = |job: &Job, of: u32| of.saturating_sub(self.granted(&job.demand.uid)) as usize;
        let least = self.least(key)?;
        let mut wanted: usize = 0;
        for job in self.startable(key) {
            wanted += missing(job, job.demand.target);
            if wanted >= allowance {
                break;
            }
        }
        Some(Claimant { key: key.clone(), least, most: wanted.min(allowance).max(least) })
    }

    /// Whether what is free is kept for those for whom others end: it comes back bit by bit, and whoever took the bits
    /// that are too small for them would have to give them up again.
    pub(super) fn is_kept_from(&self, key: &ClassKey, fill: Fill) -> bool {
        self.claimants.iter().any(|(line, owed)| {
            if *line == key.line {
                key.rank() < owed.class.rank()
            } else {
                (fill, owed.fill) == (Fill::Borrowed, Fill::Nominal)
                    && self.queues.share_cohort(line, &key.line)
            }
        })
    }

    /// Whether a class may be served before its turn: in a strict queue nobody passes who comes before it.
    pub(super) fn goes_first(&self, class: &ClassKey) -> bool {
        match self.ordering(&class.line) {
            Ordering::PriorityFifo => true,
            Ordering::StrictFifo => {
                let own = self.classes.get(class).and_then(|class| class.waiting.first());
                let own = own.map(|head| (Reverse(class.rank()), head));
                own.is_some_and(|own| self.next_beside(class).is_none_or(|next| own < next))
            }
        }
    }

    /// Up to which place it may be; `None` where nobody else's comes before the end of it.
    fn until_next(&self, class: &ClassKey) -> Option<Place> {
        match self.ordering(&class.line) {
            Ordering::PriorityFifo => None,
            Ordering::StrictFifo => {
                let next = self.next_beside(class).filter(|(Reverse(rank), _)| *rank == class.rank());
                next.map(|(_, head)| head.clone())
            }
        }
    }

    /// The first in the line of a class that is of another one.
    fn next_beside(&self, class: &ClassKey) -> Option<(Reverse<(Tier, i32)>, &Place)> {
        let others = self.classes.iter().filter(|(key, _)| key.line == class.line && *key != class);
        others.filter_map(|(key, other)| Some((Reverse(key.rank()), other.waiting.first()?))).min()
    }

    /// Serves first for whom others have ended.
    pub(super) fn serve_owed(&mut self, woken: &mut Vec<ObjectKey>) {
        let lines: Vec<LineId> = self.claimants.keys().cloned().collect();
        for line in lines {
            let Some(Owed { class, pods, fill }) = self.claimants.get(&line).cloned() else { continue };
            // A peak is too near by now: nothing is kept for who does not start any more.
            if !self.may_finish(&class) {
                self.claimants.remove(&line);
                continue;
            }
            let is_closed =
                self.queues.closed(&line, class.tier).is_some() || self.stale.concerns(&class.line.namespace);
            if is_closed || !self.goes_first(&class) || !self.can_be_served(&class, fill) {
                continue;
            }
            let until = self.until_next(&class);
            let in_flight = |this: &Self| this.classes.get(&class).map_or(0, |class| class.in_flight);
            let before = in_flight(self);
            self.grant(&class, pods, fill, until.as_ref(), woken);
            let left = pods.saturating_sub(in_flight(self).saturating_sub(before));
            match self.claimants.get_mut(&line) {
                Some(owed) if left > 0 => owed.pods = left,
                Some(_) | None => drop(self.claimants.remove(&line)),
            }
        }
    }

    /// What could end for a class, in the order in which it yields, and when more of it could: pods are left
    /// alone until they have run as long as their tier is promised.
    fn units(
        &self,
        key: &ClassKey,
        givers: &HashMap<Uid, Vec<Giver>>,
        before: &Claims,
        now: Timestamp,
    ) -> (Vec<Unit>, Option<Timestamp>) {
        let mut later: Option<Timestamp> = None;
        let mut found: Vec<(Order<'_>, Unit)> = Vec::new();
        let Some(own) = key.line.queue() else { return (Vec::new(), None) };
        for (uid, pods) in givers {
            let Some(job) = self.jobs.get(uid) else { continue };
            let Some(queue) = job.class.line.queue() else { continue };
            let is_own = queue == own;
            let yields = match is_own {
                true => job.class.rank() < key.rank() && self.gives_way(job, key.tier),
                false => self.queues.lends_to(&own, &queue),
            };
            let Some(rules) = self.queues.rules(&queue).filter(|_| yields) else { continue };
            let min_run = rules.tiers.get(&job.class.tier).map_or(SignedDuration::ZERO, |tier| tier.min_run);
            let place = match (is_own, job.class.tier) {
                (true, _) => Where::Own,
                (false, Tier::BestEffort | Tier::Standard) => Where::Borrowed,
                (false, Tier::Guaranteed) => Where::BorrowedByHighest,
            };
            let borrower = (!is_own).then_some(queue);
            let claim = before.get(uid);
            let was_asked = |(pod, _): &&Giver| {
                claim.is_some_and(|claim| claim.pods.is_empty() || claim.names(pod, &self.pods))
            };
            let mut pods: Vec<&Giver> = pods.iter().collect();
            // None goes in place of one that was told to.
            pods.sort_by_key(|pod| !was_asked(pod));
            let spare = pods.len().saturating_sub(job.demand.min_parallelism.max(1) as usize);
            let part = |number: usize| if number < spare { Part::Spare } else { Part::InPlace };
            let singles = pods.chunks(1).enumerate().filter(|_| spare > 0);
            let singles = singles.map(|(number, own)| (part(number), number, own));
            // What a gang needs ends as a whole.
            let whole = pods.get(spare..).filter(|pods| !pods.is_empty());
            let whole = whole.map(|pods| (Part::Whole, spare, pods));
            for (part, number, own) in singles.chain(whole) {
                // With it go all others.
                let with_it = if part == Part::Whole && own.len() > 1 { &pods[..] } else { own };
                let until = with_it.iter().map(|(_, since)| after(*since, min_run)).max();
                if let Some(until) = until.filter(|until| *until > now) {
                    later = Some(later.map_or(until, |first| first.min(until)));
                    continue;
                }
                let unit = Unit {
                    job: uid.clone(),
                    pods: own.iter().map(|(pod, _)| pod.clone()).collect(),
                    borrower: borrower.clone(),
                    place,
                    part,
                    spare,
                };
                let is_new = !own.iter().any(&was_asked);
                found.push(((is_new, part == Part::Whole, place, job.yields(), number), unit));
            }
        }
        found.sort_by_key(|(place, _)| *place);
        (found.into_iter().map(|(_, unit)| unit).collect(), later)
    }

    /// Whether a job ends for a tier of its own queue.
    fn gives_way(&self, job: &Job, tier: Tier) -> bool {
        let rules = self.queues.rules_of(&job.class.line);
        let of_tier = rules.and_then(|rules| rules.tiers.get(&job.class.tier));
        of_tier.is_some_and(|rules| rules.preemptible_by.contains(&tier))
    }

    /// The units without which enough of the class fits; none where it fits anyway, `None` where it does not
    /// fit even without all of them, or a job would have to shrink below its minimum.
    fn attempt(&mut self, claimant: &Claimant, units: &[&Unit], fill: Fill) -> Option<Decided> {
        let mut fits = self.fits_now(&claimant.key, fill);
        let mut chosen: Vec<&Unit> = Vec::new();
        for unit in units.iter().copied() {
            if fits >= claimant.most {
                break;
            }
            // What it has lent no more it cannot have back.
            let pod = unit.pods.first().and_then(|pod| self.pods.requests(pod)).cloned().unwrap_or_default();
            if unit.borrower.as_ref().is_some_and(|queue| needed(&self.queues.borrowed(queue), &pod) == 0) {
                continue;
            }
            self.book(&unit.pods, -1);
            fits = self.fits_now(&claimant.key, fill);
            chosen.push(unit);
        }
        let enough = fits.min(claimant.most);
        let mut kept: Vec<&Unit> = Vec::new();
        let mut gangs: HashSet<&Uid> = HashSet::new();
        let mut singles: HashMap<&Uid, usize> = HashMap::new();
        for unit in chosen.into_iter().rev() {
            self.book(&unit.pods, 1);
            // Of a job that needs several pods none stays behind; of others one may as well be the last.
            if !gangs.contains(&unit.job) && self.fits_now(&claimant.key, fill) >= enough {
                continue;
            }
            self.book(&unit.pods, -1);
            kept.push(unit);
            match unit.part {
                Part::Whole if unit.pods.len() > 1 => {
                    gangs.insert(&unit.job);
                }
                Part::Whole => {}
                Part::Spare | Part::InPlace => *singles.entry(&unit.job).or_default() += 1,
            }
        }
        let keeps_minimum = kept.iter().all(|unit| {
            unit.part == Part::Whole || singles.get(&unit.job).is_none_or(|gone| *gone <= unit.spare)
        });
        for unit in &kept {
            self.book(&unit.pods, 1);
        }
        let chosen = kept.into_iter().cloned().collect();
        (enough >= claimant.least && keeps_minimum).then_some(Decided { chosen, owed: enough, fill })
    }

    /// Pods of a class that fit now, by nodes and by quota.
    pub(super) fn fits_now(&mut self, key: &ClassKey, fill: Fill) -> usize {
        let room = self.queues.room(&key.line, key.tier, &self.queues.wanted(key), fill).pods;
        if self.blind {
            return room;
        }
        let Some(fit) = self.fits.get_mut(&key.shape).map(|fit| &mut fit.table) else { return 0 };
        fit.refresh(&key.shape, &self.ledger);
        room.min(usize::try_from(fit.total()).unwrap_or(usize::MAX))
    }

    /// Takes pods off the books, as if they were gone, or puts them back.
    pub(super) fn book(&mut self, pods: &[ObjectKey], times: i64) {
        for pod in pods {
            self.pods.book(pod, times, &mut self.queues, &mut self.ledger);
        }
    }
}
