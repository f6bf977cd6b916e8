//! Examples of each kind, small enough for one machine.
//!
//! The images hold one program that sleeps, exits or allocates memory as its
//! arguments say; the demo builds it.

mod queues;
mod quickstart;
mod time_shares;
mod upgrades;

use serde_json::{Value, json};

use crate::batch_job::{
    BatchJob, BatchJobSpec, CompletionMode, CompletionTracking, ExitCodeOperator, Interruption,
    InterruptionPolicy, JobProfile, LogTail, MANAGED_BY, NodeAvoidance, OnExitCodes, OnOom, PodFailureAction,
    PodFailurePolicy, PodFailureRule, PodTemplate, Release, Retry, SuccessPolicy, SuccessRule,
};
use crate::batch_task_profile::{BatchTaskProfile, BatchTaskProfileSpec, ProfileMode, RequestBound};
use crate::common::{Quantity, Tier};

pub use queues::batch_queues;
pub use quickstart::{Quickstart, quickstarts};
pub use time_shares::{reference_grants, time_share_groups};
pub use upgrades::in_place_upgrades;

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
            doc: "A task that takes more memory than its limit, twice. The node is not to blame for that, and is not \
                  avoided by the second try. Ends Failed, reason BackoffLimitExceeded; exit code 137 and OOMKilled stand \
                  in status.result.",
            object: job(
                "out-of-memory",
                BatchJobSpec {
                    backoff_limit: Some(1),
                    retry: Retry {
                        initial_backoff_seconds: 1,
                        max_backoff_seconds: 5,
                        node_avoidance: NodeAvoidance::None,
                        ..Retry::default()
                    },
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
                  tried twice each, and task 3 is given up at once, as its policy says. With more than three failed \
                  tasks the job would end at once. Ends Failed, reason FailedIndexes, with 1 succeeded and 5 failed pods; \
                  status.indexes.failed names the tasks.",
            object: job(
                "per-index",
                BatchJobSpec {
                    completions: 4,
                    parallelism: 4,
                    completion_mode: CompletionMode::Indexed,
                    backoff_limit_per_index: Some(1),
                    max_failed_indexes: Some(3),
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
        Sample {
            file: "batchjob-gang",
            doc: "Three numbered tasks that need each other: all start at once, or none. In a queue with gangScheduler \
                  PodGroup the scheduler places them as a whole besides. Ends Complete with 3 succeeded.",
            object: job(
                "gang",
                BatchJobSpec {
                    completions: 3,
                    parallelism: 3,
                    min_parallelism: 3,
                    completion_mode: CompletionMode::Indexed,
                    ..BatchJobSpec::new(task(&["sleep", "3"], "200m", "32Mi"))
                },
            ),
        },
        Sample {
            file: "batchjob-recurring",
            doc: "A run of a task that comes again and again: BatchTaskProfile recurring-etl, which is made at the first \
                  use, learns from the usage that its message tells, and from twenty runs on gives the container the \
                  CPU request that it lacks. Were it killed for its memory, the next try would have twice as much, and \
                  256Mi at most. Ends Complete.",
            object: job(
                "recurring",
                BatchJobSpec {
                    profile: Some(JobProfile {
                        key: Some("recurring-etl".to_owned()),
                        mode: Some(ProfileMode::Initial),
                    }),
                    retry: Retry {
                        on_oom: Some(OnOom {
                            memory_percent: 200,
                            max_memory: Some(Quantity::new("256Mi")),
                            max_steps: 2,
                        }),
                        ..Retry::default()
                    },
                    ..BatchJobSpec::new(task(&["sleep", "2", "usage: cpu=20m memory=8Mi"], "", "64Mi"))
                },
            ),
        },
        Sample {
            file: "batchjob-deadlines",
            doc: "A task that is not to be cut short, and is not to be late: it goes before other jobs of its tier, and starts \
                  only where its five seconds end before the next peak of its queue ends pods of its tier. It fails when it \
                  has not started within a day, or runs for more than ten minutes; a pod that no node takes within a minute \
                  is taken back. Its stopPolicy may be set to Hold at any time. Ends Complete, and goes a day later.",
            object: job(
                "deadlines",
                BatchJobSpec {
                    priority: 100,
                    expected_seconds: Some(5),
                    interruption: Interruption {
                        policy: InterruptionPolicy::FinishOrDontStart,
                        grace_seconds: 10,
                    },
                    queue_deadline_seconds: Some(86_400),
                    active_deadline_seconds: Some(600),
                    pending_deadline_seconds: 60,
                    ttl_seconds_after_finished: Some(86_400),
                    ..BatchJobSpec::new(task(&["sleep", "3"], "100m", "32Mi"))
                },
            ),
        },
        Sample {
            file: "batchjob-release",
            doc: "Two tasks of tier Standard, each outcome of which counts exactly once. Their pods stay until they are ten \
                  seconds old, so that an agent finds their logs, and no end of a log becomes a message; had they failed they \
                  would stay for ten minutes, the two newest of them until the job goes. Ends Complete with 2 succeeded.",
            object: job(
                "release",
                BatchJobSpec {
                    tier: Tier::Standard,
                    completions: 2,
                    parallelism: 2,
                    release: Release {
                        completion_tracking: Some(CompletionTracking::Strict),
                        min_pod_age_seconds: 10,
                        hold_on_failure_seconds: 600,
                        keep_failed_pods: 2,
                        log_tail: LogTail::Never,
                    },
                    ..BatchJobSpec::new(task(&["sleep", "1"], "100m", "32Mi"))
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

/// A pod that runs the example program; without CPU it requests none, and memory is also its limit.
fn task(args: &[&str], cpu: &str, memory: &str) -> PodTemplate {
    let mut requests = json!({"memory": memory});
    if !cpu.is_empty() {
        requests["cpu"] = json!(cpu);
    }
    let mut template = PodTemplate::default();
    template.0.insert(
        "spec".to_owned(),
        json!({
            "containers": [{
                "name": "main",
                "image": IMAGE,
                "args": args,
                "resources": {"requests": requests, "limits": {"memory": memory}},
            }],
        }),
    );
    template
}
