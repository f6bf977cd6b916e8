//! Examples of each kind, small enough for one machine.
//!
//! The images hold one program that sleeps, exits or allocates memory as its
//! arguments say; the demo builds it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::batch_job::{
    BatchJob, BatchJobSpec, CompletionMode, ExitCodeOperator, MANAGED_BY, OnExitCodes, PodFailureAction,
    PodFailurePolicy, PodFailureRule, PodTemplate, Retry, SuccessPolicy, SuccessRule,
};
use crate::batch_queue::loads::{LoadResource, LoadTrigger};
use crate::batch_queue::peaks::{PeakAction, PeakWindow, Resume, TierAction};
use crate::batch_queue::{
    Archive, ArchiveType, BatchQueue, BatchQueueSpec, CapacitySource, CapacityType, Preemptible, QuotaRow,
    Retention, TierMapping,
};
use crate::batch_task_profile::{BatchTaskProfile, BatchTaskProfileSpec, ProfileMode, RequestBound};
use crate::common::{Quantity, Tier, Window};

/// The image of the examples.
pub const IMAGE: &str = "localhost/springtide-box:1";

/// One example object.
#[derive(Clone, Debug)]
pub struct Sample {
    /// File name without folder and extension, unique over all kinds.
    pub file: &'static str,
    /// What the example shows and how it ends.
    pub doc: &'static str,
    /// The object.
    pub object: Value,
}

/// The examples of BatchJob.
#[must_use]
pub fn batch_jobs() -> Vec<Sample> {
    vec![
        Sample {
            file: "batchjob-hello",
            doc: "One task in one pod. Ends Complete; its message stands in status.result.",
            object: job(
                "hello",
                BatchJobSpec::new(task(&["sleep", "2", "hello from springtide"], "100m", "32Mi")),
            ),
        },
        Sample {
            file: "batchjob-indexed",
            doc: "Twelve numbered tasks, four at a time. Ends Complete with 12 succeeded.",
            object: job(
                "indexed",
                BatchJobSpec {
                    completions: 12,
                    parallelism: 4,
                    completion_mode: CompletionMode::Indexed,
                    ..BatchJobSpec::new(task(&["sleep", "3"], "100m", "32Mi"))
                },
            ),
        },
        Sample {
            file: "batchjob-failure-policy",
            doc: "A task that exits with 42, which its policy calls hopeless. Ends Failed, reason PodFailurePolicy, \
                  after one pod.",
            object: job(
                "failure-policy",
                BatchJobSpec {
                    pod_failure_policy: Some(on_exit_code(42, PodFailureAction::FailJob)),
                    ..BatchJobSpec::new(task(&["exit", "42", "no such customer"], "100m", "32Mi"))
                },
            ),
        },
        Sample {
            file: "batchjob-out-of-memory",
            doc: "A task that takes more memory than its limit, twice. Ends Failed, reason BackoffLimitExceeded; \
                  exit code 137 and OOMKilled stand in status.result.",
            object: job(
                "out-of-memory",
                BatchJobSpec {
                    backoff_limit: Some(1),
                    retry: Retry { initial_backoff_seconds: 1, max_backoff_seconds: 5, ..Retry::default() },
                    ..BatchJobSpec::new(task(&["alloc", "256Mi"], "100m", "64Mi"))
                },
            ),
        },
        Sample {
            file: "batchjob-more-than-fits",
            doc: "Sixteen tasks that want eight CPUs at once. Only as many pods exist as the nodes have room for; \
                  the others wait without pods. Ends Complete with 16 succeeded.",
            object: job(
                "more-than-fits",
                BatchJobSpec {
                    completions: 16,
                    parallelism: 16,
                    ..BatchJobSpec::new(task(&["sleep", "4"], "500m", "32Mi"))
                },
            ),
        },
        Sample {
            file: "batchjob-per-index",
            doc: "Four numbered tasks, each of which exits with its own number. Task 0 succeeds, tasks 1 and 2 are \
                  tried twice each, and task 3 is given up at once, as its policy says. Ends Failed, reason \
                  FailedIndexes, with 1 succeeded and 5 failed pods; status.indexes.failed names the tasks.",
            object: job(
                "per-index",
                BatchJobSpec {
                    completions: 4,
                    parallelism: 4,
                    completion_mode: CompletionMode::Indexed,
                    backoff_limit_per_index: Some(1),
                    pod_failure_policy: Some(on_exit_code(3, PodFailureAction::FailIndex)),
                    retry: Retry { initial_backoff_seconds: 1, max_backoff_seconds: 5, ..Retry::default() },
                    ..BatchJobSpec::new(task(&["exit", "$(JOB_COMPLETION_INDEX)"], "100m", "32Mi"))
                },
            ),
        },
        Sample {
            file: "batchjob-success-policy",
            doc: "Ten tasks, two at a time, four of which are enough. Ends Complete, reason SuccessPolicyMet: the others \
                  do not start, or are ended. managedBy names Springtide, as if it were absent; a job that names \
                  another manager is left to that one.",
            object: job(
                "success-policy",
                BatchJobSpec {
                    managed_by: Some(MANAGED_BY.to_owned()),
                    completions: 10,
                    parallelism: 2,
                    success_policy: Some(SuccessPolicy {
                        rules: vec![SuccessRule { succeeded_indexes: None, succeeded_count: Some(4) }],
                    }),
                    ..BatchJobSpec::new(task(&["sleep", "2"], "100m", "32Mi"))
                },
            ),
        },
    ]
}

/// What one exit code of the example's container means.
fn on_exit_code(code: i32, action: PodFailureAction) -> PodFailurePolicy {
    PodFailurePolicy {
        rules: vec![PodFailureRule {
            action,
            on_exit_codes: Some(OnExitCodes {
                container_name: Some("main".to_owned()),
                operator: ExitCodeOperator::In,
                values: vec![code],
            }),
            on_pod_conditions: Vec::new(),
        }],
    }
}

/// The examples of BatchQueue.
#[must_use]
pub fn batch_queues() -> Vec<Sample> {
    let quota = |resource: &str, nominal: &str, max: Option<&str>| QuotaRow {
        resource: resource.to_owned(),
        nominal: Quantity::new(nominal),
        max: max.map(Quantity::new),
    };
    vec![
        Sample {
            file: "batchqueue-default",
            doc: "The queue of every job of its namespace that names none: at most two CPUs and 2Gi of memory at a \
                  time, of half of what the nodes leave. Finished jobs stay for an hour.",
            object: queue(
                "default",
                BatchQueueSpec {
                    quota: vec![quota("cpu", "2", None), quota("memory", "2Gi", None)],
                    capacity_source: CapacitySource { percent: 50, ..CapacitySource::default() },
                    retention: Retention { ttl_seconds_after_finished: 3600, ..Retention::default() },
                    ..BatchQueueSpec::new()
                },
            ),
        },
        Sample {
            file: "batchqueue-reports",
            doc: "A queue of cohort idle: one CPU is its own, and it may borrow another one that no other queue of \
                  the cohort uses. Jobs name it in spec.queueName; those of tier Guaranteed run here too.",
            object: queue(
                "reports",
                BatchQueueSpec {
                    cohort: Some("idle".to_owned()),
                    quota: vec![quota("cpu", "1", Some("2"))],
                    max_tier: Tier::Guaranteed,
                    ..BatchQueueSpec::new()
                },
            ),
        },
        Sample {
            file: "batchqueue-peak",
            doc: "A queue that leaves the machines to online services on every evening: from ten minutes before eight \
                  jobs of tier BestEffort leave, those of tier Standard shrink to three tenths, and after ten all come \
                  back over ten minutes.",
            object: queue(
                "evening",
                BatchQueueSpec {
                    peak_windows: vec![PeakWindow {
                        name: "evening".to_owned(),
                        window: Some(Window {
                            start: Some("20:00".to_owned()),
                            end: Some("22:00".to_owned()),
                            cron: None,
                            duration_seconds: None,
                            time_zone: "Asia/Shanghai".to_owned(),
                            dates: None,
                        }),
                        from_time_share_group: None,
                        actions: vec![
                            TierAction { tier: Tier::BestEffort, action: PeakAction::Drain, percent: None },
                            TierAction {
                                tier: Tier::Standard,
                                action: PeakAction::Degrade,
                                percent: Some(30),
                            },
                        ],
                        lead_seconds: 600,
                        drain_pods_per_second: 50,
                        resume: Resume::default(),
                    }],
                    ..BatchQueueSpec::new()
                },
            ),
        },
        Sample {
            file: "batchqueue-load",
            doc: "A queue by what the nodes really do, which needs a metrics server: jobs get half of what nobody uses. \
                  When 75 % of the CPUs have been busy for a minute, nothing of tier BestEffort starts; at 90 % of the \
                  memory its pods leave. They come back over ten minutes.",
            object: queue(
                "leftovers",
                BatchQueueSpec {
                    capacity_source: CapacitySource {
                        type_: CapacityType::NodeMetrics,
                        percent: 50,
                        ..CapacitySource::default()
                    },
                    load_triggers: vec![
                        trigger("busy", LoadResource::Cpu, (75, 60), PeakAction::Hold),
                        trigger("full", LoadResource::Memory, (90, 80), PeakAction::Drain),
                    ],
                    ..BatchQueueSpec::new()
                },
            ),
        },
        Sample {
            file: "batchqueue-urgent",
            doc: "A queue whose jobs of tier BestEffort give way: their pods end for jobs of tier Guaranteed once they \
                  exist for a minute, and run again by themselves. Pods of Standard end only for jobs of their own \
                  tier with a higher priority, or of Guaranteed.",
            object: queue(
                "urgent",
                BatchQueueSpec {
                    quota: vec![quota("cpu", "2", None)],
                    max_tier: Tier::Guaranteed,
                    tiers: vec![
                        yielding(Tier::BestEffort, &[Tier::Guaranteed], 60),
                        yielding(Tier::Standard, &[Tier::Standard, Tier::Guaranteed], 0),
                    ],
                    ..BatchQueueSpec::new()
                },
            ),
        },
        Sample {
            file: "batchqueue-archived",
            doc: "A queue whose finished jobs go after ten seconds, each once the manager has written a line of JSON \
                  about it to its standard output. Jobs name it in spec.queueName.",
            object: queue(
                "archived",
                BatchQueueSpec {
                    retention: Retention {
                        ttl_seconds_after_finished: 10,
                        archive: Archive { type_: ArchiveType::Stdout, url: None },
                        ..Retention::default()
                    },
                    ..BatchQueueSpec::new()
                },
            ),
        },
    ]
}

fn trigger(name: &str, resource: LoadResource, (high, low): (u32, u32), action: PeakAction) -> LoadTrigger {
    LoadTrigger {
        name: name.to_owned(),
        resource,
        high_percent: high,
        low_percent: low,
        sustain_seconds: 60,
        actions: vec![TierAction { tier: Tier::BestEffort, action, percent: None }],
        drain_pods_per_second: 50,
        resume: Resume::default(),
    }
}

fn yielding(name: Tier, by: &[Tier], min_run_seconds: u32) -> TierMapping {
    TierMapping {
        name,
        priority_class_name: None,
        scheduler_name: None,
        pod_labels: BTreeMap::new(),
        resource_names: BTreeMap::new(),
        preemptible: Some(Preemptible { by: by.to_vec(), min_run_seconds }),
    }
}

fn queue(name: &str, spec: BatchQueueSpec) -> Value {
    json!(BatchQueue::new(name, spec))
}

/// The examples of BatchTaskProfile.
#[must_use]
pub fn batch_task_profiles() -> Vec<Sample> {
    vec![Sample {
        file: "batchtaskprofile-etl-daily",
        doc: "For jobs whose spec.profile.key is etl-daily: it fills in the requests that they leave out, and \
              never asks for more than 2Gi of memory. Without it the controller makes one of this name with \
              every field at its default.",
        object: json!(BatchTaskProfile::new(
            "etl-daily",
            BatchTaskProfileSpec {
                max_mode: ProfileMode::Initial,
                bounds: vec![RequestBound {
                    container: "main".to_owned(),
                    resource: "memory".to_owned(),
                    min: Some(Quantity::new("32Mi")),
                    max: Some(Quantity::new("2Gi")),
                }],
                ..BatchTaskProfileSpec::default()
            },
        )),
    }]
}

fn job(name: &str, spec: BatchJobSpec) -> Value {
    json!(BatchJob::new(name, spec))
}

/// A pod that runs the example program; memory is also its limit.
fn task(args: &[&str], cpu: &str, memory: &str) -> PodTemplate {
    let mut template = PodTemplate::default();
    template.0.insert(
        "spec".to_owned(),
        json!({
            "containers": [{
                "name": "main",
                "image": IMAGE,
                "args": args,
                "resources": {"requests": {"cpu": cpu, "memory": memory}, "limits": {"memory": memory}},
            }],
        }),
    );
    template
}
