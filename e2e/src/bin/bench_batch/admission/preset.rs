//! A load as the runner of Kueue's scheduler performance test reads it, and what it is here: a namespace for each
//! cohort, as a cohort ends at its namespace, a BatchQueue for each queue, a BatchJob with one pod for each workload.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use springtide_e2e::kwok::RUN_SECONDS;

/// 15 000 workloads over 30 queues.
pub(super) const BASELINE: &str = include_str!("presets/baseline.yaml");
/// 50 000 workloads over 1 000 queues.
pub(super) const LARGE_SCALE: &str = include_str!("presets/large-scale.yaml");
/// Label of every job and pod that says which class of the load it is of.
pub(super) const CLASS: &str = "bench.springtide.dev/class";
/// Name that all queues of a cohort give as theirs; the namespace tells the cohorts apart.
const COHORT: &str = "bench";
/// The bounds of `maxQueuedJobs` and of `retention.historyLimit` of a BatchQueue.
const MOST_QUEUED: usize = 10_000;
const MOST_HISTORY: usize = 5_000;

/// The file.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Load {
    cohorts: Vec<CohortSet>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CohortSet {
    class_name: String,
    count: usize,
    queues_sets: Vec<QueueSet>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct QueueSet {
    class_name: String,
    count: usize,
    nominal_quota: Amount,
    borrowing_limit: Amount,
    reclaim_within_cohort: Preemption,
    within_cluster_queue: Preemption,
    workloads_sets: Vec<WorkloadSet>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WorkloadSet {
    count: usize,
    creation_interval_ms: u64,
    workloads: Vec<Workload>,
}

/// Fields of topology-aware scheduling, such as `podCount`, are refused.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Workload {
    class_name: String,
    runtime_ms: u64,
    priority: i32,
    request: Amount,
}

/// Cores, as a number or as a quantity.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Amount {
    Number(u32),
    Quantity(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum Preemption {
    Never,
    Any,
    LowerPriority,
    LowerOrNewerEqualPriority,
}

impl Amount {
    /// Whole cores, or thousandths with the suffix `m`.
    fn millis(&self) -> Result<u64> {
        let parsed = match self {
            Self::Number(cores) => Some(u64::from(*cores) * 1000),
            Self::Quantity(text) => match text.strip_suffix('m') {
                Some(millis) => millis.parse().ok(),
                None => text.parse::<u64>().ok().map(|cores| cores * 1000),
            },
        };
        parsed.with_context(|| format!("{self:?} is no number of cores"))
    }
}

/// A queue of the load.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    /// Number of its cohort, which has a namespace of its own.
    pub(super) cohort: usize,
    /// Its name.
    pub(super) name: String,
    /// In thousandths of a core.
    pub(super) nominal: u64,
    max: u64,
    /// Whether its pods end for those of higher priority in it.
    pub(super) preempts_within: bool,
    /// Workloads that come one after the other, each so long after the one before it was created.
    pub(super) lanes: Vec<Lane>,
}

/// Workloads that come one after the other.
#[derive(Clone, Debug)]
pub(super) struct Lane {
    pub(super) interval: Duration,
    pub(super) jobs: Vec<Job>,
}

/// A workload of the load.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) name: String,
    pub(super) class: String,
    pub(super) runtime: Duration,
    priority: i32,
    /// In thousandths of a core.
    pub(super) millis: u64,
}

impl Load {
    /// Reads the file.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let load: Self = serde_yaml::from_str(text).context("a load in the form of Kueue's runner")?;
        ensure!(!load.cohorts.is_empty(), "a load without cohorts");
        Ok(load)
    }

    /// All queues with their workloads.
    pub(super) fn queues(&self) -> Result<Vec<Queue>> {
        let mut queues = Vec::new();
        let mut cohort = 0;
        for set in &self.cohorts {
            for _ in 0..set.count {
                for (number, queue_set) in set.queues_sets.iter().enumerate() {
                    for index in 0..queue_set.count {
                        let name = format!("{}-{number}-{index}", queue_set.class_name);
                        let queue = queue_set.queue(cohort, name);
                        queues.push(queue.with_context(|| format!("cohort {}", set.class_name))?);
                    }
                }
                cohort += 1;
            }
        }
        Ok(queues)
    }
}

impl QueueSet {
    fn queue(&self, cohort: usize, name: String) -> Result<Queue> {
        match self.reclaim_within_cohort {
            Preemption::Any => {}
            Preemption::Never | Preemption::LowerPriority | Preemption::LowerOrNewerEqualPriority => {
                bail!("reclaimWithinCohort must be Any: what a BatchQueue has lent it always gets back")
            }
        }
        let preempts_within = match self.within_cluster_queue {
            Preemption::LowerPriority => true,
            Preemption::Never => false,
            Preemption::Any | Preemption::LowerOrNewerEqualPriority => {
                bail!("withinClusterQueue must be LowerPriority or Never, as a BatchQueue knows no other")
            }
        };
        let lanes = self.workloads_sets.iter().enumerate();
        let lanes = lanes.map(|(number, set)| set.lane(&name, number)).collect::<Result<_>>()?;
        let nominal = self.nominal_quota.millis()?;
        let max = nominal + self.borrowing_limit.millis()?;
        Ok(Queue { cohort, name, nominal, max, preempts_within, lanes })
    }
}

impl WorkloadSet {
    fn lane(&self, queue: &str, number: usize) -> Result<Lane> {
        let mut jobs = Vec::new();
        for index in 0..self.count {
            for (workload, of) in self.workloads.iter().enumerate() {
                jobs.push(Job {
                    name: format!("{queue}-{}-{number}-{index}-{workload}", of.class_name),
                    class: of.class_name.clone(),
                    runtime: Duration::from_millis(of.runtime_ms),
                    priority: of.priority,
                    millis: of.request.millis()?,
                });
            }
        }
        Ok(Lane { interval: Duration::from_millis(self.creation_interval_ms), jobs })
    }
}

impl Queue {
    /// All workloads of it.
    pub(super) fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.lanes.iter().flat_map(|lane| &lane.jobs)
    }

    /// The BatchQueue. The quota alone bounds it, and it keeps what has finished, as Kueue's runner does.
    pub(super) fn manifest(&self, namespace: &str) -> Value {
        let jobs = self.jobs().count();
        let mut spec = json!({
            "cohort": COHORT,
            "quota": [{"resource": "cpu", "nominal": millis(self.nominal), "max": millis(self.max)}],
            "capacitySource": {"type": "Static"},
            "maxQueuedJobs": jobs.clamp(1000, MOST_QUEUED),
            "retention": {"ttlSecondsAfterFinished": 86_400, "historyLimit": jobs.clamp(400, MOST_HISTORY)},
        });
        if self.preempts_within {
            spec["tiers"] =
                json!([{"name": "BestEffort", "preemptible": {"by": ["BestEffort"], "minRunSeconds": 0}}]);
        }
        json!({
            "apiVersion": "springtide.dev/v1alpha1",
            "kind": "BatchQueue",
            "metadata": {"namespace": namespace, "name": self.name},
            "spec": spec,
        })
    }
}

impl Job {
    /// The BatchJob. Its pod is left to the runner: no scheduler is called `bench`.
    pub(super) fn manifest(&self, namespace: &str, queue: &str) -> Value {
        json!({
            "apiVersion": "springtide.dev/v1alpha1",
            "kind": "BatchJob",
            "metadata": {"namespace": namespace, "name": self.name, "labels": {CLASS: self.class}},
            "spec": {
                "queueName": queue,
                "tier": "BestEffort",
                "priority": self.priority,
                "pendingDeadlineSeconds": 600,
                // Who is preempted again and again waits in the queue for its next turn, and for nothing else.
                "retry": {"initialBackoffSeconds": 0},
                "template": {
                    "metadata": {
                        "labels": {CLASS: self.class},
                        "annotations": {RUN_SECONDS: self.runtime.as_secs_f64().to_string()},
                    },
                    "spec": {
                        "schedulerName": "bench",
                        "containers": [{
                            "name": "main",
                            "image": "localhost/springtide-box:1",
                            "resources": {"requests": {"cpu": millis(self.millis)}},
                        }],
                    },
                },
            },
        })
    }
}

/// A quantity of cpu.
fn millis(amount: u64) -> String {
    if amount.is_multiple_of(1000) { (amount / 1000).to_string() } else { format!("{amount}m") }
}

/// What the load is, before anything runs.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Extent {
    pub(super) cohorts: usize,
    pub(super) queues: usize,
    pub(super) jobs: usize,
    /// Jobs by class.
    pub(super) classes: BTreeMap<String, usize>,
    /// Nominal quota of all queues together, in thousandths of a core.
    pub(super) nominal: u64,
    /// Seconds in which all would have run were the quota of every cohort full from the first moment on.
    pub(super) floor: f64,
    /// Most jobs, and most queues, of one cohort.
    pub(super) most_jobs: usize,
    pub(super) most_queues: usize,
}

impl Extent {
    /// Of these queues.
    pub(super) fn of(queues: &[Queue]) -> Self {
        /// Nominal quota, work, jobs and queues of a cohort.
        #[derive(Default)]
        struct Cohort {
            nominal: u64,
            work: f64,
            jobs: usize,
            queues: usize,
        }
        let mut cohorts: BTreeMap<usize, Cohort> = BTreeMap::new();
        let mut classes: BTreeMap<String, usize> = BTreeMap::new();
        for queue in queues {
            let cohort = cohorts.entry(queue.cohort).or_default();
            cohort.nominal += queue.nominal;
            cohort.queues += 1;
            for job in queue.jobs() {
                cohort.jobs += 1;
                cohort.work += job.millis as f64 * job.runtime.as_secs_f64();
                *classes.entry(job.class.clone()).or_default() += 1;
            }
        }
        let floor = cohorts.values().map(|cohort| cohort.work / cohort.nominal as f64);
        Self {
            cohorts: cohorts.len(),
            queues: queues.len(),
            jobs: classes.values().sum(),
            nominal: cohorts.values().map(|cohort| cohort.nominal).sum(),
            floor: floor.fold(0.0, f64::max),
            most_jobs: cohorts.values().map(|cohort| cohort.jobs).max().unwrap_or(0),
            most_queues: cohorts.values().map(|cohort| cohort.queues).max().unwrap_or(0),
            classes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use springtide_crds::batch_job::{BatchJob, CompletionTracking};
    use springtide_crds::batch_queue::BatchQueue;
    use springtide_crds::common::Quantity;

    fn queues(text: &str) -> Vec<Queue> {
        Load::parse(text).unwrap().queues().unwrap()
    }

    #[test]
    fn the_presets_are_as_large_as_kueue_says() {
        let baseline = Extent::of(&queues(BASELINE));
        assert_eq!((baseline.cohorts, baseline.queues, baseline.jobs), (5, 30, 15_000));
        let classes = baseline.classes.iter().map(|(class, jobs)| (class.as_str(), *jobs));
        assert_eq!(classes.collect::<Vec<_>>(), [("large", 1_500), ("medium", 3_000), ("small", 10_500)]);
        assert!((baseline.floor - 66.0).abs() < 1e-9, "{}", baseline.floor);
        assert_eq!((baseline.most_jobs, baseline.most_queues), (3_000, 6));
        let large = Extent::of(&queues(LARGE_SCALE));
        assert_eq!((large.cohorts, large.queues, large.jobs), (10, 1_000, 50_000));
        assert_eq!(large.nominal, 20_000_000);
    }

    #[test]
    fn names_are_unique_in_a_namespace_and_short_enough() {
        let queues = queues(LARGE_SCALE);
        let of_first = queues.iter().filter(|queue| queue.cohort == 0);
        let names: Vec<&str> = of_first.flat_map(Queue::jobs).map(|job| &*job.name).collect();
        let distinct: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), names.len());
        assert!(names.iter().all(|name| name.len() <= 52));
    }

    #[test]
    fn the_objects_are_such_as_the_kinds_take() {
        let queue = &queues(BASELINE)[7];
        let read: BatchQueue = serde_json::from_value(queue.manifest("ns")).unwrap();
        assert_eq!(read.spec.quota[0].nominal, Quantity::new("20"));
        assert_eq!(read.spec.quota[0].max, Some(Quantity::new("120")));
        assert_eq!(read.spec.max_queued_jobs, 1000);
        let job: BatchJob =
            serde_json::from_value(queue.lanes[2].jobs[3].manifest("ns", &queue.name)).unwrap();
        assert_eq!((job.spec.queue_name.as_deref(), job.spec.priority), (Some(&*queue.name), 200));
        assert_ne!(job.spec.release.completion_tracking, Some(CompletionTracking::Strict));
        assert_eq!(job.spec.retry.initial_backoff_seconds, 0);
    }

    #[test]
    fn what_a_batch_queue_cannot_do_is_refused() {
        let other = |from: &str, to: &str| {
            let text = BASELINE.replace(from, to);
            Load::parse(&text).and_then(|load| load.queues()).map(drop)
        };
        other("reclaimWithinCohort: Any", "reclaimWithinCohort: Never").unwrap_err();
        other("withinClusterQueue: LowerPriority", "withinClusterQueue: Any").unwrap_err();
        other("request: 20", "request: 20, podCount: 2").unwrap_err();
        other("request: 20", "request: lots").unwrap_err();
        other("request: 20", "request: 500m").unwrap();
    }
}
