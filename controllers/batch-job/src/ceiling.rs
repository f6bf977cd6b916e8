//! The declared maximum of jobs, and the history of finished ones: who is beyond, kept up to date by
//! every change of a job, so that nobody has to count.

mod tiers;

use crate::archive::Excess;
use crate::plan::Settings;
use crate::projections::job::JobView;
use jiff::Timestamp;
use springtide_plumbing::key::{ObjectKey, Uid};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::store::Change;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tiers::{Ranked, Tiers};

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

/// Finished jobs of one queue, of one namespace, or of all: the newest, and those that exceed the history.
#[derive(Debug, Default)]
struct History {
    kept: BTreeMap<Rank, ObjectKey>,
    excess: BTreeMap<Rank, ObjectKey>,
}

impl History {
    /// Brings the newest `limit` to `kept`; appends the jobs that exceed it now.
    fn trim(&mut self, limit: usize, excess: &mut Vec<ObjectKey>) {
        while self.kept.len() < limit {
            let Some((rank, key)) = self.excess.pop_last() else { break };
            self.kept.insert(rank, key);
        }
        // One that was just taken in may be older than what exceeds the history already.
        while self.kept.len() > limit || self.kept.keys().next() < self.excess.keys().next_back() {
            let Some((rank, key)) = self.kept.pop_first() else { break };
            excess.push(key.clone());
            self.excess.insert(rank, key);
            if self.kept.len() < limit
                && let Some((rank, key)) = self.excess.pop_last()
            {
                self.kept.insert(rank, key);
            }
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
    /// Those of all queues: together with unfinished jobs they stay within the maximum.
    history: History,
    /// By queue; that of the built-in queue, and of jobs that never had one, under the empty name.
    queues: HashMap<Arc<str>, History>,
}

/// All jobs by age, and the finished ones by the time of their end.
#[derive(Debug)]
pub struct Ceiling {
    settings: Settings,
    cluster: Tiers,
    history: History,
    namespaces: HashMap<Arc<str>, Namespace>,
    /// How many finished jobs a BatchQueue keeps.
    limits: HashMap<ObjectKey, usize>,
}

impl Ceiling {
    /// No jobs.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            cluster: Tiers::new(settings.max_per_cluster),
            history: History::default(),
            namespaces: HashMap::new(),
            limits: HashMap::new(),
        }
    }

    /// Takes in how many finished jobs a BatchQueue keeps; `None` where it is gone, and what it had kept counts like
    /// the built-in queue's. Returns jobs that exceed the history now.
    pub fn set_history_limit(&mut self, queue: &ObjectKey, limit: Option<usize>) -> Vec<ObjectKey> {
        match limit {
            Some(limit) => self.limits.insert(queue.clone(), limit),
            None => self.limits.remove(queue),
        };
        let mut excess = Vec::new();
        let limit = limit.unwrap_or(self.settings.history_limit);
        let namespace = self.namespaces.get_mut(&queue.namespace);
        if let Some(history) = namespace.and_then(|namespace| namespace.queues.get_mut(&queue.name)) {
            history.trim(limit, &mut excess);
        }
        excess
    }

    /// Takes in a change of a job. Returns other jobs for which something is different now: they may
    /// start, or exceed the history.
    pub fn apply(&mut self, change: &Change<JobView>) -> Vec<ObjectKey> {
        let mut woken = Vec::new();
        let (gone, here) = match change {
            Change::Apply { old, new, initial: _ } => (old.as_ref(), Some(new).filter(|new| new.is_ours())),
            Change::Delete { last } => (Some(last), None),
        };
        let key = &change.object().meta().key;
        let limits = self.settings;
        let namespace = self.namespaces.entry(key.namespace.clone()).or_insert_with(|| Namespace {
            jobs: Tiers::new(limits.max_per_namespace),
            history: History::default(),
            queues: HashMap::new(),
        });
        if let Some((job, rank)) = gone.and_then(|job| Some((job, finish_rank(job)?))) {
            namespace.forget(job, &rank);
            self.history.remove(&rank);
        }
        match here {
            Some(job) => {
                let ranked = Ranked::new(rank(job), key.clone());
                self.cluster.insert(ranked.clone());
                namespace.jobs.insert(ranked);
                if let Some(rank) = finish_rank(job) {
                    namespace.history.kept.insert(rank.clone(), key.clone());
                    self.history.kept.insert(rank.clone(), key.clone());
                    let queue = Arc::from(queue_of(job));
                    namespace.queues.entry(queue).or_default().kept.insert(rank, key.clone());
                }
            }
            None => {
                let rank = rank(change.object());
                self.cluster.remove(&rank, &mut woken);
                namespace.jobs.remove(&rank, &mut woken);
                // The event may carry a later state than the one that was stored.
                if let Some(rank) = finish_rank(change.object()) {
                    namespace.forget(change.object(), &rank);
                    self.history.remove(&rank);
                }
            }
        }
        // At the maximum, finished jobs make room for those that still have work to do.
        let unfinished = namespace.jobs.len().saturating_sub(namespace.history.len());
        let room = limits.max_per_namespace.saturating_sub(unfinished);
        namespace.history.trim(room, &mut woken);
        let queue =
            ObjectKey { namespace: key.namespace.clone(), name: Arc::from(queue_of(change.object())) };
        if let Some(history) = namespace.queues.get_mut(&queue.name) {
            let limit = self.limits.get(&queue).copied().unwrap_or(limits.history_limit);
            history.trim(limit, &mut woken);
        }
        if namespace.jobs.len() == 0 {
            self.namespaces.remove(&key.namespace);
        }
        let room = room_in_cluster(&limits).saturating_sub(self.unfinished());
        self.history.trim(room, &mut woken);
        woken
    }

    /// Jobs in the cluster that have not finished.
    pub fn unfinished(&self) -> usize {
        self.cluster.len().saturating_sub(self.history.len())
    }

    /// Where a job stands; within, for one that is not known.
    pub fn standing(&self, job: &JobView) -> Standing {
        let rank = rank(job);
        let namespace = self.namespaces.get(&job.meta().key.namespace);
        let here = namespace.map_or(Standing::Within, |namespace| namespace.jobs.standing(&rank));
        here.max(self.cluster.standing(&rank))
    }

    /// Whether a finished job exceeds the history of its queue, or takes the place of one that has work to
    /// do.
    pub fn exceeds_history(&self, job: &JobView) -> bool {
        self.excess(job) != Excess::None
    }

    /// What asks for a finished job to go before its time.
    pub fn excess(&self, job: &JobView) -> Excess {
        let Some(rank) = finish_rank(job) else { return Excess::None };
        let namespace = self.namespaces.get(&job.meta().key.namespace);
        let is_in = |history: &History| history.excess.contains_key(&rank);
        let takes_room = is_in(&self.history) || namespace.is_some_and(|namespace| is_in(&namespace.history));
        let of_queue = namespace.and_then(|namespace| namespace.queues.get(queue_of(job)));
        match (takes_room, of_queue.is_some_and(is_in)) {
            (true, _) => Excess::Room,
            (false, true) => Excess::History,
            (false, false) => Excess::None,
        }
    }
}

impl Namespace {
    /// Takes a finished job out.
    fn forget(&mut self, job: &JobView, rank: &Rank) {
        self.history.remove(rank);
        let queue = queue_of(job);
        if let Some(history) = self.queues.get_mut(queue) {
            history.remove(rank);
            if history.len() == 0 {
                self.queues.remove(queue);
            }
        }
    }
}

/// The queue in whose history a finished job stands; empty for the built-in one.
fn queue_of(job: &JobView) -> &str {
    job.status.queue.as_deref().unwrap_or_default()
}

/// Jobs that finished ones may fill up to: below the maximum, so that a new job finds a place while the
/// oldest ones are being deleted.
fn room_in_cluster(limits: &Settings) -> usize {
    limits.max_per_cluster - limits.max_per_cluster / 20
}

fn rank(job: &JobView) -> Rank {
    (job.meta().creation_time, job.meta().uid.clone())
}

fn finish_rank(job: &JobView) -> Option<Rank> {
    let at = job.status.completion_time.as_ref().filter(|_| job.is_finished())?;
    Some((at.0, job.meta().uid.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// Every fourth job is in a namespace of its own, every third of the others in a BatchQueue.
    fn job(number: u32, finished: Option<u32>) -> Arc<JobView> {
        let namespace = if number % 4 == 3 { "other" } else { "ns" };
        let queue = (namespace == "ns" && number.is_multiple_of(3)).then_some("q");
        job_of(namespace, queue, number, finished)
    }

    fn job_in(namespace: &str, number: u32, finished: Option<u32>) -> Arc<JobView> {
        job_of(namespace, None, number, finished)
    }

    fn job_of(namespace: &str, queue: Option<&str>, number: u32, finished: Option<u32>) -> Arc<JobView> {
        let second = |s: u32| Timestamp::from_second(s.into()).unwrap().to_string();
        let mut object = serde_json::json!({
            "metadata": {
                "namespace": namespace, "name": format!("j{number}"), "uid": format!("u{number}"),
                "creationTimestamp": second(number / 2),
            },
            "spec": {"template": {"spec": {"containers": [{"name": "main"}]}}},
        });
        if let Some(at) = finished {
            object["status"] = serde_json::json!({"completionTime": second(at), "conditions": [{
                "type": "Complete", "status": "True", "reason": "Completed", "lastTransitionTime": second(at),
            }]});
            object["status"]["queue"] = serde_json::json!(queue.unwrap_or_default());
        }
        Arc::new(serde_json::from_value(object).unwrap())
    }

    fn settings() -> Settings {
        Settings { history_limit: 4, max_per_namespace: 8, max_per_cluster: 9, ..Settings::default() }
    }

    #[test]
    fn the_maxima_are_those_that_the_crd_declares() {
        let crd = springtide_crds::batch_job::crd();
        let declared = |name: &str| -> usize {
            crd.metadata.annotations.as_ref().unwrap()[&format!("springtide.dev/{name}")].parse().unwrap()
        };
        assert_eq!(Settings::default().max_per_namespace, declared("max-per-namespace"));
        assert_eq!(Settings::default().max_per_cluster, declared("max-per-cluster"));
    }

    #[test]
    fn who_moves_up_is_woken() {
        let mut ceiling = Ceiling::new(settings());
        let job = |number| job_in("ns", number, None);
        for number in 0..17 {
            let change = Change::Apply { old: None, new: job(number), initial: false };
            assert_eq!(ceiling.apply(&change), []);
        }
        assert_eq!(ceiling.standing(&job(7)), Standing::Within);
        assert_eq!(ceiling.standing(&job(8)), Standing::Beyond { limit: 8 });
        assert_eq!(ceiling.standing(&job(16)), Standing::FarBeyond { limit: 8 });
        let woken = ceiling.apply(&Change::Delete { last: job(0) });
        let woken: BTreeSet<&str> = woken.iter().map(|key| &*key.name).collect();
        assert_eq!(woken, BTreeSet::from(["j16", "j8", "j9"]), "j9 by the maximum of the cluster");
    }

    #[test]
    fn finished_jobs_of_many_namespaces_leave_room_for_new_ones() {
        let limits = Settings { max_per_cluster: 100, ..Settings::default() };
        let mut ceiling = Ceiling::new(limits);
        let mut apply = |new| ceiling.apply(&Change::Apply { old: None, new, initial: false });
        for number in 0..95 {
            assert_eq!(apply(job_in(&format!("ns{}", number % 5), number, Some(number))), []);
        }
        assert_eq!(apply(job_in("late", 95, None)), [ObjectKey::new("ns0", "j0")], "the oldest");
        assert!(ceiling.exceeds_history(&job_in("ns0", 0, Some(0))));
        assert_eq!(ceiling.standing(&job_in("late", 95, None)), Standing::Within);
    }

    #[test]
    fn each_queue_has_a_history_of_its_own() {
        let mut ceiling = Ceiling::new(Settings::default());
        let queue = ObjectKey::new("ns", "q");
        assert_eq!(ceiling.set_history_limit(&queue, Some(2)), []);
        let mut apply = |queue, number| {
            let new = job_of("ns", queue, number, Some(number));
            ceiling.apply(&Change::Apply { old: None, new, initial: false })
        };
        for number in 0..5 {
            assert_eq!(apply(None, number), []);
        }
        assert_eq!(apply(Some("q"), 5), []);
        assert_eq!(apply(Some("q"), 6), []);
        assert_eq!(apply(Some("q"), 7), [ObjectKey::new("ns", "j5")]);
        assert_eq!(ceiling.set_history_limit(&queue, Some(1)), [ObjectKey::new("ns", "j6")]);
        assert!(ceiling.exceeds_history(&job_of("ns", Some("q"), 6, Some(6))));
        // Without the queue its jobs stay as long as those of the built-in one.
        ceiling.set_history_limit(&queue, None);
        assert!(!ceiling.exceeds_history(&job_of("ns", Some("q"), 6, Some(6))));
    }

    proptest! {
        /// Against the plain definition: sort everything, and count.
        #[test]
        fn standing_and_history_are_those_of_a_sorted_list(
            steps in prop::collection::vec((0..24u32, 0..3u8, 0..50u32), 0..200),
            queue_limits in (0..4usize, 0..4usize),
        ) {
            let limits = settings();
            let mut ceiling = Ceiling::new(limits);
            let queue = ObjectKey::new("ns", "q");
            ceiling.set_history_limit(&queue, Some(queue_limits.0));
            let changes_at = steps.len() / 2;
            let mut jobs: BTreeMap<u32, Arc<JobView>> = BTreeMap::new();
            let mut woken = BTreeSet::new();
            for (step, (number, kind, at)) in steps.into_iter().enumerate() {
                if step == changes_at {
                    woken.extend(ceiling.set_history_limit(&queue, Some(queue_limits.1)));
                }
                let queue_limit = if step >= changes_at { queue_limits.1 } else { queue_limits.0 };
                let old = jobs.get(&number).cloned();
                let change = match (kind, old) {
                    (0, Some(last)) => Change::Delete { last },
                    (0, None) => continue,
                    (_, Some(old)) if old.is_finished() => continue,
                    (_, old) => {
                        let finished = (kind == 2).then_some(at);
                        Change::Apply { old, new: job(number, finished), initial: false }
                    }
                };
                match &change {
                    Change::Apply { new, .. } => { jobs.insert(number, Arc::clone(new)); }
                    Change::Delete { .. } => { jobs.remove(&number); }
                }
                woken.extend(ceiling.apply(&change));
                woken.insert(change.object().meta().key.clone());

                let by_age = |jobs: Vec<&Arc<JobView>>| {
                    let mut ranks: Vec<Rank> = jobs.into_iter().map(|job| rank(job)).collect();
                    ranks.sort();
                    ranks
                };
                let newest_end = |jobs: Vec<&Arc<JobView>>| {
                    let mut ranks: Vec<Rank> = jobs.into_iter().filter_map(|job| finish_rank(job)).collect();
                    ranks.sort_by(|a, b| b.cmp(a));
                    ranks
                };
                let standing = |ranks: &[Rank], job: &JobView, limit| {
                    match ranks.iter().position(|other| *other == rank(job)).unwrap() / limit {
                        0 => Standing::Within,
                        1 => Standing::Beyond { limit },
                        _ => Standing::FarBeyond { limit },
                    }
                };
                let all: Vec<_> = jobs.values().collect();
                let (ages, ends) = (by_age(all.clone()), newest_end(all.clone()));
                let unfinished = all.len() - ends.len();
                prop_assert_eq!(ceiling.unfinished(), unfinished);
                for job in &all {
                    let namespace = &job.meta().key.namespace;
                    let here: Vec<_> =
                        all.iter().copied().filter(|other| other.meta().key.namespace == *namespace).collect();
                    let (ages_here, ends_here) = (by_age(here.clone()), newest_end(here.clone()));
                    let expected = standing(&ages, job, limits.max_per_cluster)
                        .max(standing(&ages_here, job, limits.max_per_namespace));
                    prop_assert_eq!(ceiling.standing(job), expected);
                    let Some(end) = finish_rank(job) else { continue };
                    let room = limits.max_per_namespace.saturating_sub(here.len() - ends_here.len());
                    let queue = queue_of(job);
                    let ends_of_queue =
                        newest_end(here.iter().copied().filter(|other| queue_of(other) == queue).collect());
                    let kept_of_queue = if queue == "q" { queue_limit } else { limits.history_limit };
                    let kept = room_in_cluster(&limits).saturating_sub(unfinished);
                    let is_kept = ends.iter().take(kept).any(|other| *other == end)
                        && ends_here.iter().take(room).any(|other| *other == end)
                        && ends_of_queue.iter().take(kept_of_queue).any(|other| *other == end);
                    prop_assert_eq!(ceiling.exceeds_history(job), !is_kept);
                    if !is_kept {
                        prop_assert!(woken.contains(&job.meta().key), "nobody would delete it");
                    }
                }
            }
        }
    }
}
