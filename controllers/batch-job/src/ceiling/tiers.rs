//! Who is within a declared maximum, beyond it and far beyond: jobs in three tiers by age.

use super::{Rank, Standing};
use springtide_plumbing::key::ObjectKey;
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A job by its age. Clones share it: each job stands in the tiers of the cluster and in those of its namespace.
#[derive(Clone, Debug)]
pub(super) struct Ranked(Arc<(Rank, ObjectKey)>);

impl Ranked {
    pub(super) fn new(rank: Rank, key: ObjectKey) -> Self {
        Self(Arc::new((rank, key)))
    }

    fn rank(&self) -> &Rank {
        &self.0.0
    }

    fn key(&self) -> &ObjectKey {
        &self.0.1
    }
}

impl Borrow<Rank> for Ranked {
    fn borrow(&self) -> &Rank {
        self.rank()
    }
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(other.rank())
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.rank() == other.rank()
    }
}

impl Eq for Ranked {}

/// The oldest `limit` ranks, the next `limit`, and the rest.
#[derive(Debug, Default)]
pub(super) struct Tiers {
    limit: usize,
    within: BTreeSet<Ranked>,
    beyond: BTreeSet<Ranked>,
    far: BTreeSet<Ranked>,
}

impl Tiers {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Takes a job in. The jobs whose standing it worsens have been told already, or have started.
    pub(super) fn insert(&mut self, job: Ranked) {
        if self.beyond.contains(&job) || self.far.contains(&job) {
            return;
        }
        self.within.insert(job);
        if self.within.len() > self.limit
            && let Some(job) = self.within.pop_last()
        {
            self.beyond.insert(job);
        }
        if self.beyond.len() > self.limit
            && let Some(job) = self.beyond.pop_last()
        {
            self.far.insert(job);
        }
    }

    /// Takes a job out; appends those whose standing gets better.
    pub(super) fn remove(&mut self, rank: &Rank, better: &mut Vec<ObjectKey>) {
        let gone =
            [&mut self.within, &mut self.beyond, &mut self.far].into_iter().any(|tier| tier.remove(rank));
        if !gone {
            return;
        }
        if self.within.len() < self.limit
            && let Some(job) = self.beyond.pop_first()
        {
            better.push(job.key().clone());
            self.within.insert(job);
        }
        if self.beyond.len() < self.limit
            && let Some(job) = self.far.pop_first()
        {
            better.push(job.key().clone());
            self.beyond.insert(job);
        }
    }

    pub(super) fn standing(&self, rank: &Rank) -> Standing {
        let limit = self.limit;
        if self.beyond.contains(rank) {
            Standing::Beyond { limit }
        } else if self.far.contains(rank) {
            Standing::FarBeyond { limit }
        } else {
            Standing::Within
        }
    }

    pub(super) fn len(&self) -> usize {
        self.within.len() + self.beyond.len() + self.far.len()
    }
}
