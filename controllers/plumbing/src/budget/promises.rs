//! Those who were refused and told when to come again, and in which buckets a token is kept for them.

use super::BucketKey;
use crate::key::ObjectKey;
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;
use tokio::time::Instant;

/// A token is kept for so long after the time at which its caller was to come: enough for a key to
/// get a worker, and short, as nobody else may have the token meanwhile.
const KEPT_FOR: Duration = Duration::from_secs(1);

/// A key of a controller.
pub(super) type Caller = (&'static str, ObjectKey);

/// What a refused caller was told.
#[derive(Clone, Debug)]
pub(super) struct Promise {
    /// When it is to come again.
    pub(super) until: Instant,
    /// The buckets in which a token is kept for it.
    pub(super) buckets: Vec<BucketKey>,
}

#[derive(Debug, Default)]
pub(super) struct Promises {
    by_caller: HashMap<Caller, Promise>,
    by_time: BTreeSet<(Instant, Caller)>,
}

impl Promises {
    pub(super) fn get(&self, caller: &Caller) -> Option<&Promise> {
        self.by_caller.get(caller)
    }

    pub(super) fn insert(&mut self, caller: Caller, promise: Promise) {
        self.remove(&caller);
        self.by_time.insert((promise.until, caller.clone()));
        self.by_caller.insert(caller, promise);
    }

    pub(super) fn remove(&mut self, caller: &Caller) -> Option<Promise> {
        let promise = self.by_caller.remove(caller)?;
        self.by_time.remove(&(promise.until, caller.clone()));
        Some(promise)
    }

    /// For how many callers a bucket keeps a token.
    #[cfg(test)]
    pub(super) fn count(&self, bucket: &BucketKey) -> u32 {
        let of = |promise: &&Promise| promise.buckets.contains(bucket);
        u32::try_from(self.by_caller.values().filter(of).count()).unwrap()
    }

    /// Takes out a promise whose caller has not come in time.
    pub(super) fn pop_lapsed(&mut self, now: Instant) -> Option<Promise> {
        let (_, caller) = self.by_time.first().filter(|(until, _)| *until + KEPT_FOR <= now)?;
        let caller = caller.clone();
        self.remove(&caller)
    }
}
