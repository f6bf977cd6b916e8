//! The line of those who wait for budget: tickets, and the pump that grants them.

use super::buckets::{BucketKey, Buckets, Lack};
use super::levels::{Levels, Report, Slot};
use super::turns::{Caller, Lane, Place, Reach, Turns, Verdict};
use super::{BudgetConfig, Limit, Route, Throttled, WriteRequest};
use crate::plan::WriteClass;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A grant that is not claimed within this time goes to others: enough for a key to get a worker.
pub(super) const UNCLAIMED: Duration = Duration::from_secs(1);
/// A key that is in line looks for itself after this. The pump wakes it long before.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// What a caller wants: one write, or a chain of them.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ask {
    class: WriteClass,
    namespace: Arc<str>,
    lane: Lane,
    /// The buckets of each write.
    buckets: Vec<Vec<BucketKey>>,
    /// The route of each write.
    routes: Vec<Route>,
}

impl Ask {
    /// A chain stands in line for its first write, and all of it is in the class of that one.
    pub(super) fn of(first: &WriteRequest<'_>, rest: &[WriteRequest<'_>]) -> Self {
        let all = || std::iter::once(first).chain(rest);
        Self {
            class: first.class,
            namespace: first.namespace.into(),
            lane: Lane { controller: first.controller, route: first.route, chain: !rest.is_empty() },
            buckets: all().map(BucketKey::of).collect(),
            routes: all().map(|write| write.route).collect(),
        }
    }
}

#[derive(Debug)]
struct Ticket {
    /// In the order of arrival.
    number: u64,
    since: Instant,
    ask: Ask,
    /// Writes before the last for which tokens are kept: a chain collects them one after the other.
    writes: usize,
    kept: Vec<BucketKey>,
    /// What it lacked last.
    limit: Limit,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// In line.
    Waiting,
    /// Out of the line until its own object's bucket has a token.
    Aside { until: Instant },
    /// A chain out of the line that keeps what it has got and waits for the rest, before all others.
    Collecting,
    /// All is kept for it, and its key was woken.
    Granted { slots: Vec<Slot>, lapses: Instant },
}

impl Ticket {
    fn place(&self) -> Place {
        let Ask { class, ref namespace, lane, .. } = self.ask;
        Place { class, namespace: Arc::clone(namespace), lane, number: self.number }
    }

    /// Keeps what each write needs, one after the other, and the slots with the last one.
    ///
    /// # Errors
    /// What is short now. What the writes before that need is kept.
    fn collect(
        &mut self,
        buckets: &mut Buckets,
        levels: &mut Levels,
        now: Instant,
    ) -> Result<Vec<Slot>, Lack> {
        while self.writes + 1 < self.ask.buckets.len() {
            buckets.keep(&self.ask.buckets[self.writes], &mut self.kept, now)?;
            self.writes += 1;
        }
        // The slots first: what is short is not tokens when a level holds.
        let slots = levels.reserve(&self.ask.routes, now)?;
        match buckets.keep(&self.ask.buckets[self.writes], &mut self.kept, now) {
            Ok(()) => Ok(slots),
            Err(lack) => {
                levels.give_back(&slots, now);
                Err(lack)
            }
        }
    }

    /// Keeps nothing any more.
    fn give_back(&mut self, buckets: &mut Buckets) {
        buckets.give_back(&self.kept);
        self.kept.clear();
        self.writes = 0;
    }

    /// Where it goes with what it lacks. A chain that `may_collect` keeps what it has got, unless the server
    /// wants to be left alone: nobody is to wait for that.
    fn shelve(&mut self, lack: &Lack, may_collect: bool, buckets: &mut Buckets) {
        self.limit = lack.limit;
        let collects = may_collect && !self.kept.is_empty() && lack.limit != Limit::Hold;
        if !collects {
            self.give_back(buckets);
        }
        self.stage = match lack.aside_until() {
            _ if collects => Stage::Collecting,
            Some(until) => Stage::Aside { until },
            None => Stage::Waiting,
        };
    }

    /// Who cannot have this either. What a chain lacks may be for a later write than its first.
    fn reach(&self, lack: &Lack) -> Reach {
        match lack.limit {
            _ if self.ask.lane.chain => Reach::Lane,
            Limit::Object | Limit::Class | Limit::Namespace => Reach::Lane,
            Limit::Window | Limit::Hold => Reach::Lanes,
            Limit::Controller => Reach::Controller,
            Limit::Process => Reach::All,
        }
    }
}

/// What an admitted write has waited, and the slots that it is under way in.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) slots: Vec<Slot>,
    pub(super) waited: Duration,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) buckets: Buckets,
    pub(super) levels: Levels,
    turns: Turns,
    tickets: HashMap<Caller, Ticket>,
    /// Tickets that are out of the line, by the time at which they return.
    aside: BTreeSet<(Instant, Caller)>,
    /// The one chain that keeps tokens while it waits for more: two could wait for what the other keeps.
    collecting: Option<Caller>,
    /// Grants, by the time at which they lapse.
    granted: BTreeSet<(Instant, Caller)>,
    arrivals: u64,
    /// When a ticket may be granted next without an answer or a caller before that.
    due: Option<Instant>,
    /// What the pump's task knows of it.
    announced: Option<Instant>,
    /// Something was given back since the pump ran.
    freed: bool,
    /// Callers with a grant that they do not know of yet.
    woken: Vec<Caller>,
    /// Refusals, in the order of [`Limit::ALL`].
    pub(super) throttled: [u64; Limit::ALL.len()],
    /// Events dropped, and writes of the lowest class deferred, in the order of [`WriteClass::ALL`].
    pub(super) shed: [u64; WriteClass::ALL.len()],
    rng: SmallRng,
}

impl State {
    pub(super) fn new(config: BudgetConfig, seed: u64) -> Self {
        Self {
            buckets: Buckets::new(config),
            levels: Levels::new(),
            turns: Turns::default(),
            tickets: HashMap::new(),
            aside: BTreeSet::new(),
            collecting: None,
            granted: BTreeSet::new(),
            arrivals: 0,
            due: None,
            announced: None,
            freed: false,
            woken: Vec::new(),
            throttled: [0; Limit::ALL.len()],
            shed: [0; WriteClass::ALL.len()],
            rng: SmallRng::seed_from_u64(seed),
        }
    }

    /// Grants all that can be granted now, if anything can. Whom to wake is in [`State::take_woken`].
    pub(super) fn pump(&mut self, now: Instant) {
        if !self.freed && self.due.is_none_or(|due| now < due) {
            return;
        }
        while let Some((_, caller)) = self.granted.first().filter(|(lapses, _)| *lapses <= now).cloned() {
            self.withdraw(&caller, now);
        }
        while self.aside.first().is_some_and(|(until, _)| *until <= now) {
            let Some((_, caller)) = self.aside.pop_first() else { break };
            if let Some(ticket) = self.tickets.get_mut(&caller) {
                ticket.stage = Stage::Waiting;
                self.turns.insert(ticket.place(), caller);
            }
        }
        self.freed = false;
        self.due = None;
        self.go_on_collecting(now);
        let mut turns = std::mem::take(&mut self.turns);
        turns.serve(|caller| self.offer(caller, now));
        self.turns = turns;
        let next = [&self.aside, &self.granted].into_iter().filter_map(|by_time| by_time.first());
        let next = next.map(|(at, _)| *at).min();
        self.due = earlier(self.due, next);
    }

    /// The chain that collects comes before all others, so that it is done soon.
    fn go_on_collecting(&mut self, now: Instant) {
        let Some(caller) = self.collecting.take() else { return };
        match self.offer(&caller, now) {
            Verdict::Granted | Verdict::Aside => {}
            Verdict::Blocked(_) => {
                if let Some(ticket) = self.tickets.get(&caller) {
                    self.turns.insert(ticket.place(), caller);
                }
            }
        }
    }

    fn offer(&mut self, caller: &Caller, now: Instant) -> Verdict {
        let Some(ticket) = self.tickets.get_mut(caller) else { return Verdict::Aside };
        let lack = match ticket.collect(&mut self.buckets, &mut self.levels, now) {
            Ok(slots) => {
                let lapses = now + UNCLAIMED;
                ticket.stage = Stage::Granted { slots, lapses };
                self.granted.insert((lapses, caller.clone()));
                self.woken.push(caller.clone());
                return Verdict::Granted;
            }
            Err(lack) => lack,
        };
        ticket.shelve(&lack, self.collecting.is_none(), &mut self.buckets);
        self.due = earlier(self.due, lack.until);
        match ticket.stage {
            Stage::Collecting => {
                self.collecting = Some(caller.clone());
                Verdict::Granted
            }
            Stage::Aside { until } => {
                self.aside.insert((until, caller.clone()));
                Verdict::Aside
            }
            Stage::Waiting | Stage::Granted { .. } => Verdict::Blocked(ticket.reach(&lack)),
        }
    }

    /// Claims the caller's grant, or takes what is free, or puts it in line. The pump has run.
    pub(super) fn admit(&mut self, caller: Caller, ask: Ask, now: Instant) -> Result<Admitted, Throttled> {
        let mut arrival = None;
        if let Some(ticket) = self.tickets.get(&caller) {
            if ticket.ask == ask {
                return match ticket.stage {
                    Stage::Granted { .. } => self.claim(&caller, now),
                    Stage::Waiting | Stage::Aside { .. } | Stage::Collecting => {
                        Err(self.refused(&caller, now))
                    }
                };
            }
            // It wants something else by now, and keeps its place.
            arrival = self.withdraw(&caller, now);
        }
        let (number, since) = arrival.unwrap_or_else(|| {
            self.arrivals += 1;
            (self.arrivals, now)
        });
        let mut ticket = Ticket {
            number,
            since,
            ask,
            writes: 0,
            kept: Vec::new(),
            limit: Limit::Process,
            stage: Stage::Waiting,
        };
        let lack = match ticket.collect(&mut self.buckets, &mut self.levels, now) {
            Ok(slots) => return Ok(self.spend(&ticket, slots, now)),
            Err(lack) => lack,
        };
        match ticket.ask.class {
            WriteClass::Event => {
                self.buckets.give_back(&ticket.kept);
                self.shed[WriteClass::Event as usize] += 1;
                self.throttled[lack.limit as usize] += 1;
                return Err(Throttled { until: lack.until.unwrap_or(now + UNCLAIMED), limit: lack.limit });
            }
            class @ WriteClass::Low => self.shed[class as usize] += 1,
            WriteClass::Protective | WriteClass::Spec | WriteClass::Status => {}
        }
        ticket.shelve(&lack, self.collecting.is_none(), &mut self.buckets);
        match ticket.stage {
            Stage::Collecting => self.collecting = Some(caller.clone()),
            Stage::Aside { until } => drop(self.aside.insert((until, caller.clone()))),
            Stage::Waiting | Stage::Granted { .. } => self.turns.insert(ticket.place(), caller.clone()),
        }
        self.due = earlier(self.due, lack.until);
        self.tickets.insert(caller.clone(), ticket);
        Err(self.refused(&caller, now))
    }

    fn claim(&mut self, caller: &Caller, now: Instant) -> Result<Admitted, Throttled> {
        let Some(mut ticket) = self.withdraw_kept(caller) else { return Err(self.refused(caller, now)) };
        let slots = match std::mem::replace(&mut ticket.stage, Stage::Waiting) {
            Stage::Granted { slots, .. } => slots,
            Stage::Waiting | Stage::Aside { .. } | Stage::Collecting => Vec::new(),
        };
        if self.levels.may_claim(&slots) && self.buckets.hold(&ticket.kept, now) {
            self.woken.retain(|woken| woken != caller);
            return Ok(self.spend(&ticket, slots, now));
        }
        // A hold or a smaller budget has come in between: back to its place.
        self.levels.give_back(&slots, now);
        ticket.give_back(&mut self.buckets);
        self.freed = true;
        self.turns.insert(ticket.place(), caller.clone());
        self.tickets.insert(caller.clone(), ticket);
        Err(self.refused(caller, now))
    }

    /// The tokens are taken and the slots are in use from here on.
    fn spend(&mut self, ticket: &Ticket, slots: Vec<Slot>, now: Instant) -> Admitted {
        self.buckets.take(&ticket.ask.buckets, &ticket.kept, now);
        self.levels.claim(&slots);
        Admitted { slots, waited: now.duration_since(ticket.since) }
    }

    fn refused(&mut self, caller: &Caller, now: Instant) -> Throttled {
        let limit = self.tickets.get(caller).map_or(Limit::Process, |ticket| ticket.limit);
        self.throttled[limit as usize] += 1;
        Throttled { until: now + LOOK_AGAIN, limit }
    }

    /// The caller wants nothing any more. When it came, if it was in line.
    pub(super) fn withdraw(&mut self, caller: &Caller, now: Instant) -> Option<(u64, Instant)> {
        let ticket = self.withdraw_kept(caller)?;
        if let Stage::Granted { slots, .. } = &ticket.stage {
            self.levels.give_back(slots, now);
        }
        self.buckets.give_back(&ticket.kept);
        self.freed = true;
        Some((ticket.number, ticket.since))
    }

    /// Takes a ticket out, with all that is kept for it.
    fn withdraw_kept(&mut self, caller: &Caller) -> Option<Ticket> {
        let ticket = self.tickets.remove(caller)?;
        match &ticket.stage {
            Stage::Waiting => self.turns.remove(&ticket.place()),
            Stage::Aside { until } => drop(self.aside.remove(&(*until, caller.clone()))),
            Stage::Collecting => {
                self.collecting = None;
                // Another chain may collect now.
                self.freed = true;
            }
            Stage::Granted { lapses, .. } => drop(self.granted.remove(&(*lapses, caller.clone()))),
        }
        Some(ticket)
    }

    /// A request in these slots has ended.
    pub(super) fn finish(&mut self, slots: &[Slot], now: Instant) {
        self.levels.finish(slots, now);
        self.freed = true;
    }

    pub(super) fn learn(&mut self, report: &Report<'_>, slots: &[Slot], now: Instant) -> Option<Duration> {
        self.freed = true;
        self.levels.learn(report, slots, &mut self.rng, now)
    }

    pub(super) fn reconfigure(&mut self, config: BudgetConfig, now: Instant) {
        self.buckets.reconfigure(config, now);
        self.freed = true;
    }

    /// When the pump is to run next; it is known to whoever asks.
    pub(super) fn announce(&mut self) -> Option<Instant> {
        self.announced = self.due;
        self.due
    }

    /// Whether the pump is to run sooner than was known; it is known from here on.
    pub(super) fn is_sooner(&mut self) -> bool {
        let sooner = self.due.is_some_and(|due| self.announced.is_none_or(|announced| due < announced));
        if sooner {
            self.announced = self.due;
        }
        sooner
    }

    /// Callers in line, or with a grant.
    #[cfg(test)]
    pub(super) fn tickets(&self) -> usize {
        self.tickets.len()
    }

    pub(super) fn take_woken(&mut self) -> Vec<Caller> {
        std::mem::take(&mut self.woken)
    }
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}
