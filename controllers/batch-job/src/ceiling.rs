//! The declared maximum of jobs, and the history of finished ones: who is beyond, kept up to date by
//! every change of a job, so that nobody has to count.

use crate::plan::Settings;
use crate::projections::job::JobView;
use jiff::Timestamp;
use springtide_plumbing::key::{ObjectKey, Uid};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::store::Change;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Where a job stands among the declared maxima of its kind, the oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Within both maxima.
    Within,
    /// Beyond a maximum: it is told so, and not started.
    Beyond {
        /// The maximum.
        limit: usize,
    },
    /// Beyond twice a maximum: not even a status is written.
    FarBeyond {
        /// The maximum.
        limit: usize,
    },
}

impl Standing {
    /// Why a job that stands here is not started; `None` if it may.
    pub fn refusal(self) -> Option<String> {
        match self {
            Self::Within => None,
            Self::Beyond { limit } | Self::FarBeyond { limit } => {
                Some(format!("more than {limit} BatchJobs exist; this one starts when older ones are gone"))
            }
        }
    }
}

/// Age first; the UID tells apart what was created in the same second.
type Rank = (Timestamp, Uid);

/// The oldest `limit` ranks, the next `limit`, and the rest.
#[derive(Debug, Default)]
struct Tiers {
    limit: usize,
    within: BTreeMap<Rank, ObjectKey>,
    beyond: BTreeMap<Rank, ObjectKey>,
    far: BTreeMap<Rank, ObjectKey>,
}

impl Tiers {
    fn new(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Takes a job in. The jobs whose standing it worsens have been told already, or have started.
    fn insert(&mut self, rank: Rank, key: ObjectKey) {
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
    fn remove(&mut self, rank: &Rank, better: &mut Vec<ObjectKey>) {
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

    fn standing(&self, rank: &Rank) -> Standing {
        let limit = self.limit;
        if self.beyond.contains_key(rank) {
            Standing::Beyond { limit }
        } else if self.far.contains_key(rank) {
            Standing::FarBeyond { limit }
        } else {
            Standing::Within
        }
    }

    fn len(&self) -> usize {
        self.within.len() + self.beyond.len() + self.far.len()
    }
}

/// Finished jobs of one namespace: the newest, and those that exceed the history.
#[derive(Debug, Default)]
struct History {
    kept: BTreeMap<Rank, ObjectKey>,
    excess: BTreeMap<Rank, ObjectKey>,
}

impl History {
    /// Brings `kept` to at most `limit`; appends the jobs that exceed it now.
    fn trim(&mut self, limit: usize, excess: &mut Vec<ObjectKey>) {
        while self.kept.len() > limit {
            let Some((rank, key)) = self.kept.pop_first() else { break };
            excess.push(key.clone());
            self.excess.insert(rank, key);
        }
        while self.kept.len() < limit {
            let Some((rank, key)) = self.excess.pop_last() else { break };
            self.kept.insert(rank, key);
        }
    }

    fn remove(&mut self, rank: &Rank) {
        self.kept.remove(rank);
        self.excess.remove(rank);
    }

    fn len(&self) -> usize {
        self.kept.len() + self.excess.len()
    }
}

#[derive(Debug)]
struct Namespace {
    jobs: Tiers,
    history: History,
}

/// All jobs by age, and the finished ones by the time of their end.
#[derive(Debug)]
pub struct Ceiling {
    settings: Settings,
    cluster: Tiers,
    finished: usize,
    namespaces: HashMap<Arc<str>, Namespace>,
}

impl Ceiling {
    /// No jobs.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            cluster: Tiers::new(settings.max_per_cluster),
            finished: 0,
            namespaces: HashMap::new(),
        }
    }

    /// Takes in a change of a job. Returns other jobs for which something is different now: they may
    /// start, or exceed the history.
    pub fn apply(&mut self, change: &Change<JobView>) -> Vec<ObjectKey> {
        let mut woken = Vec::new();
        let (gone, here) = match change {
            Change::Apply { old, new, initial: _ } => (old.as_ref(), Some(new)),
            Change::Delete { last } => (Some(last), None),
        };
        let key = &change.object().meta().key;
        let limits = self.settings;
        let namespace = self.namespaces.entry(key.namespace.clone()).or_insert_with(|| Namespace {
            jobs: Tiers::new(limits.max_per_namespace),
            history: History::default(),
        });
        let finished_before = namespace.history.len();
        if let Some(rank) = gone.and_then(|job| finish_rank(job)) {
            namespace.history.remove(&rank);
        }
        match here {
            Some(job) => {
                self.cluster.insert(rank(job), key.clone());
                namespace.jobs.insert(rank(job), key.clone());
                if let Some(rank) = finish_rank(job) {
                    namespace.history.kept.insert(rank, key.clone());
                }
            }
            None => {
                let rank = rank(change.object());
                self.cluster.remove(&rank, &mut woken);
                namespace.jobs.remove(&rank, &mut woken);
                // The event may carry a later state than the one that was stored.
                if let Some(rank) = finish_rank(change.object()) {
                    namespace.history.remove(&rank);
                }
            }
        }
        // At the maximum, finished jobs make room for those that still have work to do.
        let unfinished = namespace.jobs.len().saturating_sub(namespace.history.len());
        let room = limits.max_per_namespace.saturating_sub(unfinished);
        namespace.history.trim(limits.history_limit.min(room), &mut woken);
        self.finished = self.finished + namespace.history.len() - finished_before;
        if namespace.jobs.len() == 0 {
            self.namespaces.remove(&key.namespace);
        }
        woken
    }

    /// Jobs in the cluster that have not finished.
    pub fn unfinished(&self) -> usize {
        self.cluster.len().saturating_sub(self.finished)
    }

    /// Where a job stands; within, for one that is not known.
    pub fn standing(&self, job: &JobView) -> Standing {
        let rank = rank(job);
        let namespace = self.namespaces.get(&job.meta().key.namespace);
        let here = namespace.map_or(Standing::Within, |namespace| namespace.jobs.standing(&rank));
        here.max(self.cluster.standing(&rank))
    }

    /// Whether a finished job exceeds the history of its namespace.
    pub fn exceeds_history(&self, job: &JobView) -> bool {
        let namespace = self.namespaces.get(&job.meta().key.namespace);
        namespace
            .zip(finish_rank(job))
            .is_some_and(|(namespace, rank)| namespace.history.excess.contains_key(&rank))
    }
}

fn rank(job: &JobView) -> Rank {
    (job.meta().creation_time, job.meta().uid.clone())
}

fn finish_rank(job: &JobView) -> Option<Rank> {
    let at = job.status.completion_time.as_ref().filter(|_| job.is_finished())?;
    Some((at.0, job.meta().uid.clone()))
}
