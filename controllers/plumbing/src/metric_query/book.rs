//! Which queries are due, and what was answered: without clock and I/O.

use super::address::Address;
use super::{Owner, Sample};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Answers that are kept beyond those that a gate counts, since those without data lie between.
const KEPT_BESIDE: usize = 8;

/// What is asked, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Query {
    pub(super) address: Address,
    pub(super) expression: Arc<str>,
    /// From one question to the next.
    pub(super) interval: Duration,
    /// So many answers count.
    pub(super) kept: usize,
}

impl Query {
    /// Whether its answers are those of the other one.
    fn asks_the_same(&self, other: &Self) -> bool {
        self.address == other.address && self.expression == other.expression
    }
}

type Id = (Owner, Arc<str>);

/// A query that is on its way.
#[derive(Clone, Debug)]
pub(super) struct Ticket {
    id: Id,
    query: Query,
    asked: Instant,
}

impl Ticket {
    pub(super) fn query(&self) -> &Query {
        &self.query
    }

    pub(super) fn owner(&self) -> &Owner {
        &self.id.0
    }
}

#[derive(Debug)]
struct Entry {
    query: Query,
    /// When it is asked next; nothing while it is on its way.
    due: Option<Instant>,
    samples: VecDeque<Sample>,
}

/// All queries.
#[derive(Debug, Default)]
pub(super) struct Book {
    entries: BTreeMap<Id, Entry>,
    /// Those that are not on their way, by when they are due.
    due: BTreeSet<(Instant, Id)>,
}

impl Book {
    /// What an owner wants to know, in the place of what it wanted before. What is new is due at once.
    pub(super) fn want(&mut self, owner: &Owner, queries: Vec<(Arc<str>, Query)>, now: Instant) {
        let first = (owner.clone(), Arc::from(""));
        let known = self.entries.range(first..).map(|(id, _)| id).take_while(|id| id.0 == *owner);
        let gone: Vec<Id> =
            known.filter(|id| queries.iter().all(|(name, _)| *name != id.1)).cloned().collect();
        for id in gone {
            self.remove(&id);
        }
        for (name, query) in queries {
            let id = (owner.clone(), name);
            match self.entries.get_mut(&id) {
                Some(entry) if entry.query.asks_the_same(&query) => entry.query = query,
                Some(_) | None => {
                    self.remove(&id);
                    self.due.insert((now, id.clone()));
                    self.entries.insert(id, Entry { query, due: Some(now), samples: VecDeque::new() });
                }
            }
        }
    }

    fn remove(&mut self, id: &Id) {
        if let Some(Entry { due: Some(due), .. }) = self.entries.remove(id) {
            self.due.remove(&(due, id.clone()));
        }
    }

    /// The query that has been due for longest, which is on its way from now on.
    ///
    /// # Errors
    /// None is due; when the next one is, if there is any.
    pub(super) fn next(&mut self, now: Instant) -> Result<Ticket, Option<Instant>> {
        if let Some((due, _)) = self.due.first().filter(|(due, _)| *due > now) {
            return Err(Some(*due));
        }
        let Some((_, id)) = self.due.pop_first() else { return Err(None) };
        let Some(entry) = self.entries.get_mut(&id) else { return Err(None) };
        entry.due = None;
        Ok(Ticket { query: entry.query.clone(), id, asked: now })
    }

    /// Takes in an answer. `false` if nobody waits for it any more.
    pub(super) fn answered(&mut self, ticket: &Ticket, sample: Sample, now: Instant) -> bool {
        let Some(entry) = self.entries.get_mut(&ticket.id) else { return false };
        // It was taken back meanwhile, and another one may be due in its place.
        if entry.due.is_some() || !entry.query.asks_the_same(&ticket.query) {
            return false;
        }
        entry.samples.push_back(sample);
        let kept = entry.query.kept.saturating_add(KEPT_BESIDE);
        while entry.samples.len() > kept {
            entry.samples.pop_front();
        }
        let next = (ticket.asked + entry.query.interval).max(now);
        entry.due = Some(next);
        self.due.insert((next, ticket.id.clone()));
        true
    }

    /// The answers to a query, the oldest first.
    pub(super) fn history(&self, owner: &Owner, name: &str) -> Vec<Sample> {
        let entry = self.entries.get(&(owner.clone(), Arc::from(name)));
        entry.map(|entry| entry.samples.iter().cloned().collect()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Reading;
    use super::*;
    use crate::key::{ObjectKey, Resource};
    use jiff::Timestamp;
    use proptest::prelude::*;

    fn query(expression: &str, seconds: u64) -> Query {
        let address = "http://prom".parse().unwrap();
        let interval = Duration::from_secs(seconds);
        Query { address, expression: expression.into(), interval, kept: 2 }
    }

    fn owner(name: &str) -> Owner {
        Owner { resource: Resource::POD, key: ObjectKey::new("ns", name) }
    }

    fn sample(value: f64) -> Sample {
        Sample { time: Timestamp::UNIX_EPOCH, reading: Reading::Value(value) }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_query_is_asked_at_once_and_then_at_its_interval_and_never_twice_at_a_time() {
        let (mut book, start) = (Book::default(), Instant::now());
        book.want(&owner("a"), vec![("m".into(), query("up", 30))], start);
        let ticket = book.next(start).unwrap();
        assert_eq!((ticket.owner(), &*ticket.query().expression), (&owner("a"), "up"));
        assert_eq!(book.next(start).unwrap_err(), None);
        assert!(book.answered(&ticket, sample(1.0), start + seconds(2)));
        assert_eq!(book.next(start + seconds(29)).unwrap_err(), Some(start + seconds(30)));
        let late = book.next(start + seconds(100)).unwrap();
        // What took longer than the interval is not made up for.
        assert!(book.answered(&late, sample(2.0), start + seconds(140)));
        assert_eq!(book.next(start + seconds(139)).unwrap_err(), Some(start + seconds(140)));
        assert_eq!(book.history(&owner("a"), "m"), [sample(1.0), sample(2.0)]);
    }

    #[test]
    fn what_is_asked_anew_loses_its_answers_and_what_is_asked_otherwise_keeps_them() {
        let (mut book, start) = (Book::default(), Instant::now());
        let want = |book: &mut Book, query| book.want(&owner("a"), vec![("m".into(), query)], start);
        want(&mut book, query("up", 30));
        let ticket = book.next(start).unwrap();
        book.answered(&ticket, sample(1.0), start);
        want(&mut book, query("up", 60));
        assert_eq!(book.history(&owner("a"), "m").len(), 1);
        want(&mut book, query("down", 60));
        assert!(book.history(&owner("a"), "m").is_empty());
        assert_eq!(&*book.next(start).unwrap().query().expression, "down");
    }

    #[test]
    fn an_answer_that_comes_after_its_query_was_taken_back_is_dropped() {
        let (mut book, start) = (Book::default(), Instant::now());
        let wanted = || vec![(Arc::from("m"), query("up", 30))];
        book.want(&owner("a"), wanted(), start);
        let first = book.next(start).unwrap();
        book.want(&owner("a"), Vec::new(), start);
        assert!(!book.answered(&first, sample(1.0), start));
        // It is wanted again, and due; the answer from before is not for it.
        book.want(&owner("a"), wanted(), start);
        assert!(!book.answered(&first, sample(1.0), start));
        assert!(book.next(start).is_ok());
        assert!(book.history(&owner("a"), "m").is_empty());
    }

    #[test]
    fn only_the_last_answers_are_kept_and_owners_know_nothing_of_each_other() {
        let (mut book, mut now) = (Book::default(), Instant::now());
        for name in ["a", "b"] {
            book.want(&owner(name), vec![("m".into(), query(name, 5))], now);
        }
        for number in 0..40 {
            for _ in 0..2 {
                let ticket = book.next(now).unwrap();
                book.answered(&ticket, sample(f64::from(number)), now);
            }
            now += seconds(5);
        }
        let history = book.history(&owner("a"), "m");
        assert_eq!((history.len(), history.last()), (2 + KEPT_BESIDE, Some(&sample(39.0))));
        book.want(&owner("a"), Vec::new(), now);
        assert!(book.history(&owner("a"), "m").is_empty());
        assert_eq!(book.history(&owner("b"), "m").len(), 2 + KEPT_BESIDE);
    }

    proptest! {
        /// Whatever owners want and take back, what is wanted and not on its way is due, and nothing else is.
        #[test]
        fn what_is_wanted_is_due_or_on_its_way(
            steps in proptest::collection::vec((0..3usize, 0..3usize, 0..4u8, 0..8u64), 0..80),
        ) {
            let (mut book, mut now) = (Book::default(), Instant::now());
            let mut asked: Vec<Ticket> = Vec::new();
            for (who, what, step, wait) in steps {
                now += seconds(wait);
                let owner = owner(["a", "aa", "b"][who]);
                match step {
                    0 => {
                        let names = ["", "m", "n"][..what].iter();
                        let wanted = names.map(|name| (Arc::from(*name), query(name, 5))).collect();
                        book.want(&owner, wanted, now);
                        let known = book.entries.keys().filter(|id| id.0 == owner).count();
                        prop_assert_eq!(known, what);
                    }
                    1 => asked.extend(book.next(now)),
                    _ if !asked.is_empty() => {
                        let ticket = asked.remove(what % asked.len());
                        book.answered(&ticket, sample(0.0), now);
                    }
                    _ => {}
                }
                let due: BTreeSet<(Instant, Id)> =
                    book.entries.iter().filter_map(|(id, entry)| Some((entry.due?, id.clone()))).collect();
                prop_assert_eq!(&due, &book.due);
                for (id, entry) in &book.entries {
                    prop_assert!(entry.due.is_some() || asked.iter().any(|ticket| ticket.id == *id));
                }
            }
        }
    }
}
