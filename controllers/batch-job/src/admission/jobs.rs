//! The jobs that the admission knows, in the form that takes the least memory.

use super::Job;
use foldhash::fast::RandomState;
use springtide_plumbing::key::Uid;
use std::collections::HashMap;
#[cfg(test)]
use std::ops::Index;

/// Places up to which a table is left as large as it is.
const SMALL: usize = 64;

#[cfg(test)]
impl super::Admission {
    /// What it holds of each job, the place in its tables aside.
    pub(crate) const BYTES_OF_JOB: usize = size_of::<Job>();
}

/// Jobs by UID. Boxed, as a table has up to twice as many places as entries, and given back after a peak.
#[derive(Debug, Default)]
pub(super) struct Jobs(HashMap<Uid, Box<Job>, RandomState>);

/// Numbers of pods by the UID of their job.
pub(super) type PodCounts = HashMap<Uid, u32, RandomState>;

impl Jobs {
    pub(super) fn get(&self, uid: &Uid) -> Option<&Job> {
        self.0.get(uid).map(AsRef::as_ref)
    }

    pub(super) fn get_mut(&mut self, uid: &Uid) -> Option<&mut Job> {
        self.0.get_mut(uid).map(AsMut::as_mut)
    }

    /// The job of this UID, which `make` makes where there is none.
    pub(super) fn entry(&mut self, uid: &Uid, make: impl FnOnce() -> Job) -> &mut Job {
        self.0.entry(uid.clone()).or_insert_with(|| Box::new(make()))
    }

    pub(super) fn contains_key(&self, uid: &Uid) -> bool {
        self.0.contains_key(uid)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Job> {
        self.0.values().map(AsRef::as_ref)
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Job> {
        self.0.values_mut().map(AsMut::as_mut)
    }

    pub(super) fn remove(&mut self, uid: &Uid) -> Option<Job> {
        let gone = self.0.remove(uid)?;
        // To twice what is needed: a constant cost for each that goes.
        if self.0.capacity() > SMALL && self.0.len() < self.0.capacity() / 8 {
            self.0.shrink_to(2 * self.0.len());
        }
        Some(*gone)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[cfg(test)]
    pub(super) fn keys(&self) -> impl Iterator<Item = &Uid> {
        self.0.keys()
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Uid, &Job)> {
        self.0.iter().map(|(uid, job)| (uid, job.as_ref()))
    }
}

#[cfg(test)]
impl Index<&Uid> for Jobs {
    type Output = Job;

    fn index(&self, uid: &Uid) -> &Job {
        &self.0[uid]
    }
}
