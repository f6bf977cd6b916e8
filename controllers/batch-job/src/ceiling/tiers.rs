//! Who is within a declared maximum, beyond it and far beyond: jobs in three tiers by age.

use super::{Rank, Standing};
use springtide_plumbing::key::ObjectKey;
use std::collections::BTreeMap;

/// The oldest `limit` ranks, the next `limit`, and the rest.
#[derive(Debug, Default)]
pub(super) struct Tiers {
    limit: usize,
    within: BTreeMap<Rank, ObjectKey>,
    beyond: BTreeMap<Rank, ObjectKey>,
    far: BTreeMap<Rank, ObjectKey>,
}

impl Tiers {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Takes a job in. The jobs whose standing it worsens have been told already, or have started.
    pub(super) fn insert(&mut self, rank: Rank, key: ObjectKey) {
        if self.beyond.contains_key(&rank) || self.far.contains_key(&rank) {
            return;
        }
        self.within.insert(rank, key);
        if self.within.len() > self.limit
            && let Some((rank, key)) = self.within.pop_last()
        {
            self.beyond.insert(rank, key);
        }
        if self.beyond.len() > self.limit
            && let Some((rank, key)) = self.beyond.pop_last()
        {
            self.far.insert(rank, key);
        }
    }

    /// Takes a job out; appends those whose standing gets better.
    pub(super) fn remove(&mut self, rank: &Rank, better: &mut Vec<ObjectKey>) {
        let gone = [&mut self.within, &mut self.beyond, &mut self.far]
            .into_iter()
            .any(|tier| tier.remove(rank).is_some());
        if !gone {
            return;
        }
        if self.within.len() < self.limit
            && let Some((rank, key)) = self.beyond.pop_first()
        {
            better.push(key.clone());
            self.within.insert(rank, key);
        }
        if self.beyond.len() < self.limit
            && let Some((rank, key)) = self.far.pop_first()
        {
            better.push(key.clone());
            self.beyond.insert(rank, key);
        }
    }

    pub(super) fn standing(&self, rank: &Rank) -> Standing {
        let limit = self.limit;
        if self.beyond.contains_key(rank) {
            Standing::Beyond { limit }
        } else if self.far.contains_key(rank) {
            Standing::FarBeyond { limit }
        } else {
            Standing::Within
        }
    }

    pub(super) fn len(&self) -> usize {
        self.within.len() + self.beyond.len() + self.far.len()
    }
}
