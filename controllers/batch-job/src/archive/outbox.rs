//! Which lines are due, which may go out now, and which are given up: without clock, I/O or randomness.

mod outage;

use super::sink::Sink;
use crate::projections::job::JobView;
use springtide_plumbing::key::{ObjectKey, Uid};
use springtide_plumbing::projection::Projection;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

pub use outage::{Health, OUTAGE_AFTER};

/// Pause after the first failure of a sink; it doubles with each further one.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause of a sink.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// The longest pause that a sink may ask for.
const ASKED_PAUSE_MAX: Duration = Duration::from_secs(300);
/// Pause of a line that its sink refuses for what it is, after the first time; it doubles with each further one.
const REFUSED_PAUSE: Duration = Duration::from_secs(10);
/// The longest pause of a line.
const REFUSED_PAUSE_MAX: Duration = Duration::from_secs(900);
/// So many sinks are remembered that fail and have nothing to take.
const IDLE_SINKS_MAX: usize = 1000;

/// Why a job is to go before its time, if it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Excess {
    /// It is not.
    #[default]
    None,
    /// Its queue has had as many newer ones as it keeps.
    History,
    /// Jobs that have work to do need its place among the declared maximum.
    Room,
}

/// What stands between a finished job and its deletion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// Nothing: its line was taken, was given up, or nobody wants one.
    #[default]
    Clear,
    /// Its line has still to be taken.
    Waiting,
}

/// A finished job whose time is over.
#[derive(Clone, Debug)]
pub struct Offer {
    /// The job.
    pub job: Arc<JobView>,
    /// Its queue.
    pub queue: ObjectKey,
    /// Where the queue wants the line.
    pub sink: Sink,
    /// How many finished jobs the queue keeps; in an outage as many again wait for the sink.
    pub history_limit: usize,
    /// Whether it goes before its time.
    pub excess: Excess,
}

/// A line that goes out.
#[derive(Clone, Debug)]
pub struct Parcel {
    /// Where to.
    pub sink: Sink,
    /// The job whose line it is.
    pub job: Arc<JobView>,
}

impl Parcel {
    /// The job's UID, by which a sink knows a line that it has had already.
    pub fn uid(&self) -> &Uid {
        &self.job.meta().uid
    }
}

/// Why a sink has not taken a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    /// What happened, for people.
    pub problem: String,
    /// What it says of the sink.
    pub kind: FailureKind,
    /// How long the sink asks for silence.
    pub retry_after: Option<Duration>,
}

/// What a failure says of the sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FailureKind {
    /// It takes nothing now.
    #[default]
    Unavailable,
    /// It does not take this very line.
    Refused,
    /// Nobody may post there.
    AddressRefused,
}

/// What is different after a change, for others to look again.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Jobs that may be deleted now.
    pub jobs: Vec<ObjectKey>,
    /// Queues whose [`Health`] has changed.
    pub queues: Vec<ObjectKey>,
    /// How many lines were given up.
    pub dropped: usize,
}

/// Age first: the oldest goes out first, and is given up first.
type Rank = (jiff::Timestamp, Uid);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting {
        not_before: Option<Instant>,
    },
    InFlight,
    /// Taken by the sink, or given up.
    Settled,
}

#[derive(Debug)]
struct Entry {
    offer: Offer,
    state: State,
    refusals: u32,
}

impl Entry {
    fn rank(&self) -> Rank {
        rank(&self.offer.job)
    }

    fn key(&self) -> ObjectKey {
        self.offer.job.meta().key.clone()
    }
}

/// One sink, and what it has to take.
#[derive(Debug, Default)]
struct Way {
    waiting: BTreeSet<Rank>,
    in_flight: usize,
    /// In a row.
    failures: u32,
    paused_until: Option<Instant>,
    failing_since: Option<Instant>,
    failure: Failure,
    /// Queues that were told that it is out of order.
    told: BTreeSet<ObjectKey>,
}

/// The jobs of one queue whose lines are still to be taken.
#[derive(Debug)]
struct Crowd {
    sink: Sink,
    history_limit: usize,
    jobs: usize,
    /// Those that go before their time, by what asks for that.
    history: BTreeSet<Rank>,
    room: BTreeSet<Rank>,
    /// Jobs were deleted without a line, in the outage that lasts.
    dropping: bool,
}

/// The lines of finished jobs that have still to be taken, and the sinks that are to take them. Its size is that of
/// the finished jobs there are: an entry goes with its job.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Makes pauses differ between processes.
    seed: u64,
    entries: HashMap<Uid, Entry>,
    ways: BTreeMap<Sink, Way>,
    crowds: BTreeMap<ObjectKey, Crowd>,
}

impl Outbox {
    /// An empty one; `seed` makes the pauses of one process differ from those of others.
    pub fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// Takes in a job whose time is over, or what is different about one.
    pub fn offer(&mut self, offer: Offer, now: Instant) -> (Standing, Changes) {
        let uid = offer.job.meta().uid.clone();
        let mut changes = Changes::default();
        let (state, refusals) = match self.entries.get(&uid) {
            Some(Entry { state: State::Settled, .. }) => return (Standing::Clear, changes),
            Some(entry) if entry.offer.sink == offer.sink => (entry.state, entry.refusals),
            Some(Entry { state: State::InFlight, .. }) => (State::InFlight, 0),
            Some(_) | None => (State::Waiting { not_before: None }, 0),
        };
        self.unlink(&uid);
        // What is on its way stays with the sink that it is on its way to.
        let sink = match self.entries.get(&uid) {
            Some(entry) if state == State::InFlight => entry.offer.sink.clone(),
            Some(_) | None => offer.sink.clone(),
        };
        let queue = offer.queue.clone();
        self.entries.insert(uid.clone(), Entry { offer: Offer { sink, ..offer }, state, refusals });
        self.link(&uid);
        self.shed(&queue, now, &mut changes);
        self.tell(&queue, now, &mut changes);
        let standing = match self.entries.get(&uid).map(|entry| entry.state) {
            Some(State::Waiting { .. } | State::InFlight) => Standing::Waiting,
            Some(State::Settled) | None => Standing::Clear,
        };
        // Who offers it knows already.
        changes.jobs.retain(|job| self.entries.get(&uid).is_none_or(|entry| entry.key() != *job));
        (standing, changes)
    }

    /// A job is gone, or its line is wanted no more.
    pub fn forget(&mut self, uid: &Uid) {
        self.unlink(uid);
        let gone = self.entries.remove(uid);
        if let Some(entry) = gone {
            self.tidy(&entry.offer.sink, &entry.offer.queue);
        }
    }

    /// A queue is gone.
    pub fn forget_queue(&mut self, queue: &ObjectKey) {
        self.crowds.remove(queue);
        for way in self.ways.values_mut() {
            way.told.remove(queue);
        }
    }

    /// The next line that may go out; it counts as on its way from now on.
    pub fn next(&mut self, now: Instant) -> Option<Parcel> {
        let found = self.ways.iter().find_map(|(sink, way)| {
            let most = if way.failures > 0 { 1 } else { sink.most_in_flight() };
            if way.in_flight >= most || way.paused_until.is_some_and(|until| until > now) {
                return None;
            }
            way.waiting.iter().find(|rank| self.not_before(&rank.1).is_none_or(|at| at <= now)).cloned()
        });
        let (_, uid) = found?;
        let entry = self.entries.get_mut(&uid)?;
        entry.state = State::InFlight;
        let (parcel, rank) =
            (Parcel { sink: entry.offer.sink.clone(), job: Arc::clone(&entry.offer.job) }, entry.rank());
        let way = self.ways.entry(parcel.sink.clone()).or_default();
        way.waiting.remove(&rank);
        way.in_flight += 1;
        Some(parcel)
    }

    /// When [`next`](Self::next) may have something without anything else happening before.
    pub fn wake(&self, now: Instant) -> Option<Instant> {
        let wakes = self.ways.values().filter_map(|way| {
            let first = way.waiting.iter().map(|rank| self.not_before(&rank.1).unwrap_or(now)).min()?;
            Some(way.paused_until.unwrap_or(now).max(first)).filter(|at| *at > now)
        });
        wakes.min()
    }

    fn not_before(&self, uid: &Uid) -> Option<Instant> {
        match self.entries.get(uid)?.state {
            State::Waiting { not_before } => not_before,
            State::InFlight | State::Settled => None,
        }
    }

    /// The sink has taken a line.
    pub fn taken(&mut self, parcel: &Parcel) -> Changes {
        let mut changes = Changes::default();
        if let Some(way) = self.ways.get_mut(&parcel.sink) {
            way.in_flight = way.in_flight.saturating_sub(1);
            way.failures = 0;
            way.paused_until = None;
            way.failing_since = None;
            way.failure = Failure::default();
            changes.queues.extend(std::mem::take(&mut way.told));
        }
        self.crowds.retain(|_, crowd| {
            let is_concerned = crowd.sink == parcel.sink;
            crowd.dropping &= !is_concerned;
            !is_concerned || crowd.jobs > 0
        });
        self.settle(&parcel.job.meta().uid, &mut changes);
        let queue = self.entries.get(&parcel.job.meta().uid).map(|entry| entry.offer.queue.clone());
        if let Some(queue) = queue {
            self.tidy(&parcel.sink, &queue);
        }
        self.tidy_way(&parcel.sink);
        changes
    }

    /// The sink has not taken a line, or nobody knows.
    pub fn failed(&mut self, parcel: &Parcel, failure: Failure, now: Instant) -> Changes {
        let mut changes = Changes::default();
        let uid = &parcel.job.meta().uid;
        let jitter = |failures: u32| {
            let mut hasher = DefaultHasher::new();
            (self.seed, &parcel.sink, failures).hash(&mut hasher);
            // Half of the pause at least.
            0.5 + (hasher.finish() % 1000) as f64 / 2000.0
        };
        let Some(way) = self.ways.get_mut(&parcel.sink) else { return changes };
        way.in_flight = way.in_flight.saturating_sub(1);
        way.failures = way.failures.saturating_add(1);
        let pause = doubled(PAUSE, way.failures, PAUSE_MAX).mul_f64(jitter(way.failures));
        let pause = pause.max(failure.retry_after.unwrap_or_default().min(ASKED_PAUSE_MAX));
        way.paused_until = Some(now + pause);
        way.failing_since.get_or_insert(now);
        if let Some(entry) = self.entries.get_mut(uid)
            && entry.state == State::InFlight
        {
            let not_before = match failure.kind {
                FailureKind::Refused => {
                    entry.refusals = entry.refusals.saturating_add(1);
                    Some(now + doubled(REFUSED_PAUSE, entry.refusals, REFUSED_PAUSE_MAX))
                }
                FailureKind::Unavailable | FailureKind::AddressRefused => None,
            };
            entry.state = State::Waiting { not_before };
            way.waiting.insert(entry.rank());
        }
        way.failure = failure;
        if way.is_out(now) {
            let concerned: Vec<ObjectKey> = self
                .crowds
                .iter()
                .filter(|(_, crowd)| crowd.sink == parcel.sink)
                .map(|(queue, _)| queue.clone())
                .collect();
            for queue in concerned {
                self.shed(&queue, now, &mut changes);
                self.tell(&queue, now, &mut changes);
            }
        }
        self.tidy_way(&parcel.sink);
        changes
    }

    /// Lines that have still to be taken.
    pub fn waiting(&self) -> usize {
        self.ways.values().map(|way| way.waiting.len() + way.in_flight).sum()
    }

    /// Entries of jobs that are still there, those included whose line was taken.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Nothing keeps the job any more.
    fn settle(&mut self, uid: &Uid, changes: &mut Changes) {
        self.unlink(uid);
        if let Some(entry) = self.entries.get_mut(uid) {
            entry.state = State::Settled;
            changes.jobs.push(entry.key());
        }
    }

    /// Puts an entry where it is looked for.
    fn link(&mut self, uid: &Uid) {
        let Some(entry) = self.entries.get(uid) else { return };
        let (rank, offer) = (entry.rank(), &entry.offer);
        let is_waiting = match entry.state {
            State::Settled => return,
            State::Waiting { .. } => true,
            State::InFlight => false,
        };
        let way = self.ways.entry(offer.sink.clone()).or_default();
        if is_waiting {
            way.waiting.insert(rank.clone());
        }
        let crowd = self.crowds.entry(offer.queue.clone()).or_insert_with(|| Crowd {
            sink: offer.sink.clone(),
            history_limit: 0,
            jobs: 0,
            history: BTreeSet::new(),
            room: BTreeSet::new(),
            dropping: false,
        });
        crowd.sink = offer.sink.clone();
        crowd.history_limit = offer.history_limit;
        crowd.jobs += 1;
        match offer.excess {
            Excess::None => {}
            Excess::History => {
                crowd.history.insert(rank);
            }
            Excess::Room => {
                crowd.room.insert(rank);
            }
        }
    }

    /// Takes an entry out of wherever it is looked for.
    fn unlink(&mut self, uid: &Uid) {
        let Some(entry) = self.entries.get(uid).filter(|entry| entry.state != State::Settled) else { return };
        let rank = entry.rank();
        if let Some(way) = self.ways.get_mut(&entry.offer.sink) {
            way.waiting.remove(&rank);
        }
        if let Some(crowd) = self.crowds.get_mut(&entry.offer.queue) {
            crowd.jobs = crowd.jobs.saturating_sub(1);
            crowd.history.remove(&rank);
            crowd.room.remove(&rank);
        }
    }

    /// Forgets what nothing is known of.
    fn tidy(&mut self, sink: &Sink, queue: &ObjectKey) {
        if self.crowds.get(queue).is_some_and(|crowd| crowd.jobs == 0 && !crowd.dropping) {
            self.crowds.remove(queue);
        }
        self.tidy_way(sink);
    }

    fn tidy_way(&mut self, sink: &Sink) {
        let is_idle = |way: &Way| way.waiting.is_empty() && way.in_flight == 0;
        // That it fails is remembered until it takes something, or until that are too many.
        let most = if self.ways.len() > IDLE_SINKS_MAX { u32::MAX } else { 0 };
        if self.ways.get(sink).is_some_and(|way| is_idle(way) && way.failures <= most) {
            self.ways.remove(sink);
        }
    }
}

fn doubled(first: Duration, times: u32, most: Duration) -> Duration {
    first.saturating_mul(2u32.saturating_pow(times.saturating_sub(1))).min(most)
}

fn rank(job: &JobView) -> Rank {
    let at = job.status.completion_time.as_ref().map_or(job.meta().creation_time, |time| time.0);
    (at, job.meta().uid.clone())
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
