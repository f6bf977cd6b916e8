//! Which queue a job is in, and what keeps it from being served there.

use super::rules::Problem;
use crate::admission::QueueId;
use crate::projections::job::JobView;
use crate::projections::queue::QueueView;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use springtide_crds::batch_job::{QueuedReason, StopPolicy};
use springtide_crds::batch_queue::{DEFAULT_QUEUE, StalledReason, TierMapping};
use springtide_crds::batch_task_profile::ProfileMode;
use springtide_crds::common::Tier;
use springtide_plumbing::key::ObjectKey;
use springtide_plumbing::projection::Projection;
use std::sync::Arc;

/// Whether jobs run in namespaces without a BatchQueue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BuiltInQueue {
    /// They do, on all that the nodes leave.
    #[default]
    Enabled,
    /// They wait until there is a BatchQueue.
    Disabled,
}

/// The queue of one job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The queue, whether it is there or not; `None` where the job would have to name one.
    pub queue: Option<QueueId>,
    /// The tier that the job has there.
    pub tier: Tier,
    /// What its pods get of the queue's tier.
    pub mapping: Option<Arc<TierMapping>>,
    /// Whether the queue is stopped.
    pub stop: StopPolicy,
    /// How long the queue keeps finished jobs, in seconds; `None` where the manager's settings say it.
    pub ttl_seconds: Option<u32>,
    /// What a profile does for the job where the job does not say.
    pub default_profile_mode: ProfileMode,
    /// Why the job is not served.
    pub obstacle: Option<Obstacle>,
}

/// Why a job is not served by its queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// The documented reason.
    pub reason: QueuedReason,
    /// What is wrong and what helps, for people.
    pub message: String,
}

impl Default for Placement {
    /// In the built-in queue.
    fn default() -> Self {
        Self {
            queue: Some(QueueId::BuiltIn),
            // It serves all alike.
            tier: Tier::BestEffort,
            mapping: None,
            stop: StopPolicy::None,
            ttl_seconds: None,
            default_profile_mode: ProfileMode::default(),
            obstacle: None,
        }
    }
}

impl Placement {
    /// Finds the queue of a job. `fixed` is the one that let its first pods start, empty for the built-in
    /// queue: it stays so, whatever queues come after. `queues` are those of the job's namespace,
    /// `problems` says what is wrong with one.
    pub fn of(
        job: &JobView,
        fixed: Option<&str>,
        queues: &[Arc<QueueView>],
        built_in: BuiltInQueue,
        problems: impl Fn(&QueueView) -> Vec<Problem>,
    ) -> Self {
        let find = |name: &str| queues.iter().find(|queue| *queue.meta().key.name == *name);
        let name = match (job.spec.queue_name.as_deref(), fixed) {
            (Some(name), _) => Some(name),
            (None, Some("")) => None,
            (None, Some(name)) => Some(name),
            (None, None) if find(DEFAULT_QUEUE).is_some() => Some(DEFAULT_QUEUE),
            (None, None) if queues.is_empty() => None,
            (None, None) => return Self::without_name(names(queues)),
        };
        let Some(name) = name else {
            return match built_in {
                BuiltInQueue::Enabled => Self::default(),
                BuiltInQueue::Disabled => Self::without_name(
                    "the manager has no built-in queue: create a BatchQueue called default, or set spec.queueName"
                        .to_owned(),
                ),
            };
        };
        let key = ObjectKey { namespace: job.meta().key.namespace.clone(), name: Arc::from(name) };
        let id = QueueId::Object(key);
        match find(name) {
            Some(queue) => Self::within(job, id, queue, &problems(queue)),
            None => Self {
                queue: Some(id),
                tier: job.spec.tier,
                obstacle: Some(Obstacle {
                    reason: QueuedReason::QueueNotFound,
                    message: format!("there is no BatchQueue {name} in this namespace; create it"),
                }),
                ..Self::default()
            },
        }
    }

    fn without_name(message: String) -> Self {
        Self {
            queue: None,
            obstacle: Some(Obstacle { reason: QueuedReason::QueueNameRequired, message }),
            ..Self::default()
        }
    }

    fn within(job: &JobView, id: QueueId, queue: &QueueView, problems: &[Problem]) -> Self {
        let (spec, tier) = (&queue.spec, job.spec.tier);
        let name = &queue.meta().key.name;
        // A queue that is stopped ends pods whatever else is wrong with it, and the admission says so.
        let obstacle = if queue.stop() != StopPolicy::None {
            None
        } else if tier > spec.max_tier {
            let message = format!("tier {tier:?} is above {:?}, spec.maxTier of queue {name}", spec.max_tier);
            Some(Obstacle { reason: QueuedReason::TierNotAllowed, message })
        } else {
            let concerns = |problem: &&Problem| problem.tier.is_none_or(|concerned| concerned == tier);
            problems.iter().filter(concerns).find_map(|problem| {
                let reason = match problem.reason {
                    StalledReason::InvalidTier => QueuedReason::TierNotAllowed,
                    StalledReason::NodesNotVisible => QueuedReason::CapacityStale,
                    StalledReason::LimitExceeded
                    | StalledReason::Forbidden
                    | StalledReason::InternalError => QueuedReason::QueueStopped,
                    // The admission knows which tiers it concerns, and for how long.
                    StalledReason::InvalidWindow | StalledReason::TimeShareGroupNotFound => return None,
                };
                Some(Obstacle { reason, message: format!("queue {name}: {}", problem.message) })
            })
        };
        Self {
            queue: Some(id),
            tier,
            mapping: queue.tier(tier).cloned(),
            stop: queue.stop(),
            ttl_seconds: Some(spec.retention.ttl_seconds_after_finished),
            default_profile_mode: spec.default_profile_mode,
            obstacle,
        }
    }

    /// The queue as it stands in statuses and labels: empty for the built-in one.
    pub fn queue_name(&self) -> Option<&str> {
        self.queue.as_ref().map(|queue| match queue {
            QueueId::BuiltIn => "",
            QueueId::Object(key) => &*key.name,
        })
    }
}

/// What a job's queue says of profiles, for a job that says nothing of it; see [`Placement::of`].
pub fn default_profile_mode(job: &JobView, fixed: Option<&str>, queues: &[Arc<QueueView>]) -> ProfileMode {
    Placement::of(job, fixed, queues, BuiltInQueue::Enabled, |_| Vec::new()).default_profile_mode
}

/// Why a job must name a queue where there are some, none of which is called default.
fn names(queues: &[Arc<QueueView>]) -> String {
    let names: Vec<&str> = queues.iter().map(|queue| &*queue.meta().key.name).collect();
    format!(
        "no BatchQueue is called default: create the job again with spec.queueName, one of {}",
        names.join(", ")
    )
}
