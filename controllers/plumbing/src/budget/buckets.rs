//! The buckets of all dimensions. A write needs a token of each that stands above it, or takes none.

use super::bucket::Bucket;
use super::{BucketConfig, BudgetConfig, Limit, WriteRates, WriteRequest};
use crate::key::ObjectKey;
use crate::plan::WriteClass;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::time::Instant;

/// After so many tokens taken the buckets that are full again are dropped, so that memory follows the
/// namespaces and objects written lately.
pub(super) const SWEEP_EVERY: u32 = 4096;

/// One bucket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum BucketKey {
    Object(&'static str, ObjectKey),
    Class(&'static str, Arc<str>, WriteClass),
    Namespace(&'static str, Arc<str>),
    Controller(&'static str),
    Process,
}

impl BucketKey {
    /// The buckets of a write, narrow first.
    pub(super) fn of(request: &WriteRequest<'_>) -> Vec<Self> {
        let WriteRequest { controller, namespace, class, object, owner: _, route: _ } = *request;
        let namespace: Arc<str> = namespace.into();
        let object = object.map(|object| Self::Object(controller, object.clone()));
        let class = match class {
            WriteClass::Event => Some(Self::Class(controller, Arc::clone(&namespace), class)),
            WriteClass::Protective | WriteClass::Spec | WriteClass::Status | WriteClass::Low => None,
        };
        object.into_iter().chain(class).chain(Self::above(controller, namespace)).collect()
    }

    /// The buckets that all writes into a namespace need, narrow first.
    fn above(controller: &'static str, namespace: Arc<str>) -> [Self; 3] {
        [Self::Namespace(controller, namespace), Self::Controller(controller), Self::Process]
    }

    pub(super) fn limit(&self) -> Limit {
        match self {
            Self::Object(..) => Limit::Object,
            Self::Class(..) => Limit::Class,
            Self::Namespace(..) => Limit::Namespace,
            Self::Controller(_) => Limit::Controller,
            Self::Process => Limit::Process,
        }
    }

    fn config<'a>(&self, config: &'a BudgetConfig) -> &'a BucketConfig {
        match self {
            Self::Object(..) => &config.object_status,
            Self::Class(..) => &config.events,
            Self::Namespace(..) => &config.namespace,
            Self::Controller(_) => &config.controller,
            Self::Process => &config.process,
        }
    }
}

/// What a write cannot get now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lack {
    pub(super) limit: Limit,
    /// When it may get it; `None` where only an answer that is awaited can tell.
    pub(super) until: Option<Instant>,
}

impl Lack {
    /// When the object's own bucket has a token: until then others need not wait behind this write.
    pub(super) fn aside_until(&self) -> Option<Instant> {
        self.until.filter(|_| self.limit == Limit::Object)
    }
}

#[derive(Debug)]
pub(super) struct Buckets {
    config: BudgetConfig,
    buckets: HashMap<BucketKey, Bucket>,
    taken: u32,
}

impl Buckets {
    pub(super) fn new(config: BudgetConfig) -> Self {
        Self { config, buckets: HashMap::new(), taken: 0 }
    }

    fn bucket(&mut self, key: &BucketKey, now: Instant) -> &mut Bucket {
        self.buckets.entry(key.clone()).or_insert_with(|| Bucket::full(now))
    }

    /// Keeps a token in each bucket of a write, or in none, and adds them to `kept`, which holds what is
    /// kept for the writes before it in its chain.
    ///
    /// A chain that needs more tokens of a bucket than that can hold is let go with a full bucket. What
    /// is missing is missing to those after it.
    pub(super) fn keep(
        &mut self,
        write: &[BucketKey],
        kept: &mut Vec<BucketKey>,
        now: Instant,
    ) -> Result<(), Lack> {
        let before = kept.len();
        for key in write {
            let config = *key.config(&self.config);
            let own = kept[..before].iter().filter(|held| *held == key).count();
            if own >= config.burst as usize {
                continue;
            }
            let bucket = self.bucket(key, now);
            let wait = bucket.wait(&config, bucket.kept + 1, now);
            if !wait.is_zero() {
                kept.truncate(before);
                return Err(Lack { limit: key.limit(), until: Some(now + wait) });
            }
            kept.push(key.clone());
        }
        for key in &kept[before..] {
            self.bucket(key, now).kept += 1;
        }
        Ok(())
    }

    /// Keeps these tokens no longer.
    pub(super) fn give_back(&mut self, kept: &[BucketKey]) {
        for key in kept {
            if let Some(bucket) = self.buckets.get_mut(key) {
                bucket.kept -= 1;
            }
        }
    }

    /// Whether each bucket still holds what is kept in it; after a change of its size it may not.
    pub(super) fn hold(&self, kept: &[BucketKey], now: Instant) -> bool {
        kept.iter().all(|key| {
            let count = kept.iter().filter(|held| *held == key).count();
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            let there = self.buckets.get(key).map(|bucket| bucket.wait(key.config(&self.config), count, now));
            there.is_none_or(|wait| wait.is_zero())
        })
    }

    /// Spends what was kept: takes the tokens of all these writes.
    pub(super) fn take(&mut self, writes: &[Vec<BucketKey>], kept: &[BucketKey], now: Instant) {
        self.give_back(kept);
        for key in writes.iter().flatten() {
            let config = *key.config(&self.config);
            self.bucket(key, now).take(&config, now);
        }
        self.taken += 1;
        if self.taken >= SWEEP_EVERY {
            self.taken = 0;
            self.buckets.retain(|_, bucket| !bucket.is_idle(now));
        }
    }

    /// Takes a token of each bucket above all writes into a namespace, or of none.
    pub(super) fn spend(&mut self, controller: &'static str, namespace: Arc<str>, now: Instant) -> bool {
        let (needed, mut kept) = (BucketKey::above(controller, namespace).to_vec(), Vec::new());
        let there = self.keep(&needed, &mut kept, now).is_ok();
        if there {
            self.take(&[needed], &kept, now);
        }
        there
    }

    pub(super) fn reconfigure(&mut self, config: BudgetConfig, now: Instant) {
        for (key, bucket) in &mut self.buckets {
            bucket.reconfigure(key.config(&self.config), key.config(&config), now);
        }
        self.config = config;
    }

    /// What a controller may write in a second.
    pub(super) fn rates(&self) -> WriteRates {
        self.config.rates()
    }

    /// The tokens in a bucket.
    pub(super) fn tokens(&self, key: &BucketKey, now: Instant) -> f64 {
        let config = key.config(&self.config);
        // A bucket that is not there is full.
        self.buckets.get(key).map_or(f64::from(config.burst), |bucket| bucket.tokens(config, now))
    }

    #[cfg(test)]
    pub(super) fn kept(&self) -> HashMap<BucketKey, u32> {
        let kept = self.buckets.iter().filter(|(_, bucket)| bucket.kept > 0);
        kept.map(|(key, bucket)| (key.clone(), bucket.kept)).collect()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.buckets.len()
    }
}
