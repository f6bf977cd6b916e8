//! The write budget: how fast this process may write, in several dimensions at once.
//!
//! API Priority and Fairness bounds how many requests are under way, not how many come in a second, and
//! others have dropped their client-side limits without a replacement. A write here needs a token of
//! every bucket above it: its object (status only), its class (events only), its namespace, its
//! controller, the process. All are checked first and then taken together, so a wide bucket is
//! never drained for a write that a narrow one refuses.
//!
//! Nothing ever waits here: a refusal names the time at which to come again, and the key goes back
//! into its queue. A token is kept for it then, so whoever is refused passes in its turn.

mod bucket;
mod config;
mod promises;
#[cfg(test)]
mod promises_test;
#[cfg(test)]
mod tests;

pub use config::{BucketConfig, BudgetConfig};

use crate::key::ObjectKey;
use crate::plan::WriteClass;
use bucket::Bucket;
use promises::{Caller, Promise, Promises};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use tokio::time::Instant;

/// After so many admissions the buckets that are full again are dropped, so that memory follows
/// the namespaces and objects written lately.
const SWEEP_EVERY: u32 = 4096;

/// One dimension of the budget, from narrow to wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Level {
    /// Status writes of one object.
    Object,
    /// All writes of a class.
    Class,
    /// All writes of a controller into a namespace.
    Namespace,
    /// All writes of a controller.
    Controller,
    /// All writes of the process.
    Process,
}

impl Level {
    /// All levels, from narrow to wide.
    pub const ALL: [Self; 5] = [Self::Object, Self::Class, Self::Namespace, Self::Controller, Self::Process];

    /// The label value in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Class => "class",
            Self::Namespace => "namespace",
            Self::Controller => "controller",
            Self::Process => "process",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A refusal: nothing was taken from any bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no token in the bucket of the {level}")]
pub struct Throttled {
    /// When to come again. Those refused by one bucket get different times, as far apart as its
    /// rate, so that they do not all come back for one token; the token is kept for a second.
    pub until: Instant,
    /// The bucket that refused; with several, the narrowest.
    pub level: Level,
}

/// The right to send one write; spent by sending it.
#[derive(Debug)]
#[must_use = "a permit is spent by the write it was given for"]
pub struct Permit(());

/// What the budget needs to know of a write.
#[derive(Clone, Copy, Debug)]
pub struct WriteTicket<'a> {
    /// Name of the controller.
    pub controller: &'static str,
    /// Namespace of the object written; empty for a cluster-scoped one.
    pub namespace: &'a str,
    /// Class of the write.
    pub class: WriteClass,
    /// The key on whose behalf it is written: who is refused comes back under this name.
    pub owner: &'a ObjectKey,
    /// The object, for the bucket of its status writes; `None` for other writes.
    pub object: Option<&'a ObjectKey>,
}

/// The write budget of a process. Leases do not pass it: they have a client of their own.
#[derive(Debug)]
pub struct WriteBudget {
    config: RwLock<BudgetConfig>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    buckets: HashMap<BucketKey, Bucket>,
    promises: Promises,
    admissions: u32,
    /// Refusals by [`Level`], in the order of [`Level::ALL`].
    refusals: [u64; Level::ALL.len()],
}

/// What metrics show of a budget.
#[derive(Clone, Debug, PartialEq)]
pub struct BudgetStats {
    /// Tokens in the bucket of the process.
    pub process_tokens: f64,
    /// Tokens in the bucket of all events.
    pub event_tokens: f64,
    /// Tokens in the buckets of the controllers asked for, in their order.
    pub controller_tokens: Vec<f64>,
    /// Refusals since the start, in the order of [`Level::ALL`].
    pub refusals: [u64; Level::ALL.len()],
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum BucketKey {
    Object(&'static str, ObjectKey),
    Class(WriteClass),
    Namespace(&'static str, Arc<str>),
    Controller(&'static str),
    Process,
}

impl BucketKey {
    fn level(&self) -> Level {
        match self {
            Self::Object(..) => Level::Object,
            Self::Class(_) => Level::Class,
            Self::Namespace(..) => Level::Namespace,
            Self::Controller(_) => Level::Controller,
            Self::Process => Level::Process,
        }
    }
}

impl WriteBudget {
    /// A budget with full buckets.
    pub fn new(config: BudgetConfig) -> Self {
        Self { config: RwLock::new(config), state: Mutex::default() }
    }

    /// Changes all rates and bursts. What was taken stays taken, and who was told a time keeps it.
    pub fn reconfigure(&self, config: BudgetConfig) {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
    }

    fn config(&self) -> BudgetConfig {
        self.config.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes a token of every bucket that the write needs, or of none.
    ///
    /// A caller that comes when it was told to finds the token that was kept for it. Whoever else
    /// comes gets only what is not kept, so that newcomers, however many, do not starve the refused.
    ///
    /// # Errors
    /// A bucket has no token to spare; when to come again.
    pub fn try_admit(&self, ticket: &WriteTicket<'_>) -> Result<Permit, Throttled> {
        let now = Instant::now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(lapsed) = state.promises.pop_lapsed(now) {
            state.give_up(&lapsed);
        }
        let needed = self.needed(ticket);
        let caller = (ticket.controller, ticket.owner.clone());
        for (key, config) in &needed {
            if let Some(until) = state.refusal(&caller, key, config, now) {
                state.refusals[key.level() as usize] += 1;
                return Err(Throttled { until, level: key.level() });
            }
        }
        if let Some(kept) = state.promises.remove(&caller) {
            state.give_up(&kept);
        }
        for (key, config) in &needed {
            state.bucket(key, now).take(config, now);
        }
        state.admissions += 1;
        if state.admissions >= SWEEP_EVERY {
            state.admissions = 0;
            state.buckets.retain(|_, bucket| !bucket.is_idle(now));
        }
        Ok(Permit(()))
    }

    /// The figures of this moment: of the process and of these controllers.
    pub fn stats(&self, controllers: &[&'static str]) -> BudgetStats {
        let now = Instant::now();
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // A bucket that is not there is full.
        let tokens = |key: BucketKey, config: &BucketConfig| {
            state.buckets.get(&key).map_or(f64::from(config.burst), |bucket| bucket.tokens(config, now))
        };
        let config = self.config();
        BudgetStats {
            process_tokens: tokens(BucketKey::Process, &config.process),
            event_tokens: tokens(BucketKey::Class(WriteClass::Event), &config.events),
            controller_tokens: controllers
                .iter()
                .map(|name| tokens(BucketKey::Controller(name), &config.controller))
                .collect(),
            refusals: state.refusals,
        }
    }

    /// The buckets of a write, narrow first.
    fn needed(&self, ticket: &WriteTicket<'_>) -> Vec<(BucketKey, BucketConfig)> {
        let WriteTicket { controller, namespace, class, owner: _, object } = *ticket;
        let config = self.config();
        let object =
            object.map(|object| (BucketKey::Object(controller, object.clone()), config.object_status));
        let class = match class {
            WriteClass::Event => Some((BucketKey::Class(class), config.events)),
            WriteClass::Protective | WriteClass::Spec | WriteClass::Status | WriteClass::Low => None,
        };
        object
            .into_iter()
            .chain(class)
            .chain([
                (BucketKey::Namespace(controller, namespace.into()), config.namespace),
                (BucketKey::Controller(controller), config.controller),
                (BucketKey::Process, config.process),
            ])
            .collect()
    }
}

impl State {
    fn bucket(&mut self, key: &BucketKey, now: Instant) -> &mut Bucket {
        self.buckets.entry(key.clone()).or_insert_with(|| Bucket::full(now))
    }

    /// When `caller` is to come again if this bucket has no token for it; a token is kept for it then.
    ///
    /// Only the narrowest bucket that refuses keeps one: were it kept in the wide ones too, a namespace
    /// with many refused writes would leave nothing to the others. Who has got past a bucket keeps
    /// its token there while it waits for one in a wider bucket.
    fn refusal(
        &mut self,
        caller: &Caller,
        key: &BucketKey,
        config: &BucketConfig,
        now: Instant,
    ) -> Option<Instant> {
        let bucket = *self.bucket(key, now);
        let promise = self.promises.get(caller);
        let until = match promise.filter(|promise| promise.buckets.contains(key)) {
            Some(promise) if promise.until <= now => {
                // Refused only where more tokens were kept than the bucket holds.
                now + Some(bucket.wait(config, 1, now)).filter(|wait| !wait.is_zero())?
            }
            // Before its time it gets what anybody would get.
            Some(promise) => {
                Some(bucket.wait(config, bucket.kept, now)).filter(|wait| !wait.is_zero())?;
                promise.until
            }
            None => now + Some(bucket.wait(config, bucket.kept + 1, now)).filter(|wait| !wait.is_zero())?,
        };
        let until = promise.map_or(until, |promise| promise.until.max(until));
        let mut buckets = promise.map(|promise| promise.buckets.clone()).unwrap_or_default();
        if !buckets.contains(key) {
            self.bucket(key, now).kept += 1;
            buckets.push(key.clone());
        }
        self.promises.insert(caller.clone(), Promise { until, buckets });
        Some(until)
    }

    fn give_up(&mut self, promise: &Promise) {
        for key in &promise.buckets {
            if let Some(bucket) = self.buckets.get_mut(key) {
                bucket.kept -= 1;
            }
        }
    }
}
