//! What people are told beside a reason: what ends the wait, and what they can do.

use springtide_crds::batch_job::QueuedReason;

/// What a job waits for: a reason, or which of its causes it has where it has several and what helps differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// As the reason says; `HeadBlocked` stands for the first job of a strict queue, `CapacityStale` for an old view of
    /// nodes and pods.
    For(QueuedReason),
    /// `HeadBlocked`: what is free is kept for a job that has found no room for long.
    KeptRoom,
    /// `CapacityStale`: what is in use on the nodes was not measured lately.
    MetricsOld,
    /// `CapacityStale`: the manager may not see nodes.
    NodesNotVisible,
}

/// What lets a job go on that waits for this.
pub fn wakes(wait: Wait) -> &'static str {
    match wait {
        Wait::For(reason) => wakes_from(reason),
        Wait::KeptRoom => {
            "the job that the room is kept for starts or goes, or room comes free on other nodes; sooner if this job is \
             known to end before that one can start"
        }
        Wait::MetricsOld => "metrics.k8s.io tells something new of most nodes of the queue",
        Wait::NodesNotVisible => "spec.capacitySource.type of the queue is Static",
    }
}

fn wakes_from(reason: QueuedReason) -> &'static str {
    match reason {
        QueuedReason::QuotaExceeded => {
            "a pod of the queue ends, a queue of its cohort uses less, or the quota is raised"
        }
        QueuedReason::NoCapacity => {
            "a pod ends on a node that the job's pods may use, a node is added or uncordoned, or the queue's \
             capacity grows"
        }
        QueuedReason::NeverFits => "a larger node is added, or the queue's max is raised",
        QueuedReason::HeadBlocked => "the first job of the queue starts or goes",
        QueuedReason::ClassBackoff => {
            "the pause is over; where a ResourceQuota refused, also any pod that ends"
        }
        QueuedReason::CapacityStale => "the manager sees nodes and pods again as they are",
        QueuedReason::QueueStopped => {
            "spec.stopPolicy of the queue is None, and what else is wrong with it is mended"
        }
        QueuedReason::PeakWindow => {
            "the peak window of the queue is over, and the ramp after it leaves room; or spec.overridePeak of the queue \
             is ForceOff"
        }
        QueuedReason::LoadTrigger => {
            "the load of the queue's nodes has been below lowPercent for as long as the trigger says"
        }
        QueuedReason::WouldNotFinish => {
            "the next peak window of the queue is over, or the job is expected to take less"
        }
        QueuedReason::QueueNotFound => "a BatchQueue of this name is created",
        QueuedReason::QueueNameRequired => "a BatchQueue called default is created",
        QueuedReason::TierNotAllowed => {
            "spec.maxTier of the queue is raised, or the mapping of the tier is mended"
        }
        QueuedReason::NameHeld => "the pod of the earlier job is gone",
        QueuedReason::Admitted => "nothing has to happen",
        QueuedReason::QueueFull => "a job that waits in the queue starts or goes",
        QueuedReason::Suspended => "spec.stopPolicy of the job is None",
        QueuedReason::Finished => "nothing can happen any more",
    }
}

/// What a person can do about a wait for this, most useful first; empty where waiting is all.
pub fn remedies(wait: Wait) -> &'static [&'static str] {
    match wait {
        Wait::For(reason) => remedies_for(reason),
        Wait::KeptRoom => &[
            "wait: a job that needs much has found no room for ten minutes, and what is free now is kept for it",
            "set spec.expectedSeconds of the job: what is known to end in time may use that room meanwhile",
            "raise spec.priority of the job, where the other one is in the same queue",
        ],
        Wait::MetricsOld => &[
            "look at the metrics server: `kubectl top nodes` shows what it tells",
            "let the administrator raise spec.capacitySource.staleAfterSeconds of the queue, or set its type to \
             NodeAllocatable",
        ],
        Wait::NodesNotVisible => &[
            "let the administrator set spec.capacitySource.type of the queue to Static, with a quota",
            "run the manager with the right to see nodes, in all namespaces",
        ],
    }
}

fn remedies_for(reason: QueuedReason) -> &'static [&'static str] {
    match reason {
        QueuedReason::QuotaExceeded => &[
            "wait: the line moves as pods of the queue end",
            "let the administrator raise nominal or max in spec.quota of the queue, or put it into a cohort",
            "request less in spec.template",
        ],
        QueuedReason::NoCapacity => &[
            "wait: the line moves as pods end",
            "look at the nodes that are left out: cordons, taints, nodeSelector",
            "request less in spec.template, or lower minParallelism of a gang by creating the job again",
        ],
        QueuedReason::NeverFits => &[
            "create the job again with smaller requests, or with another nodeSelector or affinity",
            "add a node that is large enough, or let the administrator raise the queue's max",
        ],
        QueuedReason::HeadBlocked => &[
            "look at the first job of the queue: while it waits, all others do, as spec.ordering is StrictFIFO",
            "let the administrator set spec.ordering of the queue to PriorityFIFO",
        ],
        QueuedReason::ClassBackoff => &[
            "read the message: a ResourceQuota, a policy, a missing right or the scheduler refused pods like these",
        ],
        QueuedReason::CapacityStale => {
            &["look whether the manager reaches the API server and may list nodes"]
        }
        QueuedReason::QueueStopped => {
            &["ask whoever stopped the queue, or mend what its condition Ready says"]
        }
        QueuedReason::PeakWindow => &[
            "wait: jobs start again when the window ends, over the time of its ramp",
            "let the administrator set spec.overridePeak of the queue to ForceOff, with a reason and an end",
        ],
        QueuedReason::LoadTrigger => &[
            "wait: jobs start again when the nodes are less busy",
            "look at spec.loadTriggers of the queue, and whether metrics.k8s.io answers",
        ],
        QueuedReason::WouldNotFinish => &[
            "wait: it starts after the window",
            "lower spec.expectedSeconds of the job where it takes less",
            "create the job again with interruption.policy Interruptible",
        ],
        QueuedReason::QueueNotFound => {
            &["create the BatchQueue, or create the job again with another spec.queueName"]
        }
        QueuedReason::QueueNameRequired => &["create the job again with spec.queueName"],
        QueuedReason::TierNotAllowed => &["create the job again with a lower tier, or in another queue"],
        QueuedReason::NameHeld => {
            &["look at the pod that is still ending: finalizers, or a node that does not answer"]
        }
        QueuedReason::Suspended => &["set spec.stopPolicy of the job to None"],
        QueuedReason::QueueFull => &["wait, or let the administrator raise spec.maxQueuedJobs of the queue"],
        QueuedReason::Admitted | QueuedReason::Finished => &[],
    }
}

/// Whether this reason, or that there is none, can be told by somebody who sees no nodes.
pub(super) fn is_seen_without_nodes(reason: QueuedReason) -> bool {
    match reason {
        QueuedReason::QuotaExceeded
        | QueuedReason::NeverFits
        | QueuedReason::ClassBackoff
        | QueuedReason::QueueStopped
        | QueuedReason::PeakWindow
        | QueuedReason::WouldNotFinish
        | QueuedReason::QueueNotFound
        | QueuedReason::QueueNameRequired
        | QueuedReason::TierNotAllowed
        | QueuedReason::NameHeld
        | QueuedReason::QueueFull
        | QueuedReason::Suspended
        | QueuedReason::Finished => true,
        QueuedReason::NoCapacity
        | QueuedReason::LoadTrigger
        | QueuedReason::HeadBlocked
        | QueuedReason::CapacityStale
        | QueuedReason::Admitted => false,
    }
}

/// Whether a job waits that has this reason.
pub(super) fn is_wait(reason: QueuedReason) -> bool {
    match reason {
        QueuedReason::Admitted | QueuedReason::Finished => false,
        QueuedReason::QuotaExceeded
        | QueuedReason::NoCapacity
        | QueuedReason::NeverFits
        | QueuedReason::HeadBlocked
        | QueuedReason::ClassBackoff
        | QueuedReason::CapacityStale
        | QueuedReason::PeakWindow
        | QueuedReason::LoadTrigger
        | QueuedReason::WouldNotFinish
        | QueuedReason::QueueStopped
        | QueuedReason::QueueNotFound
        | QueuedReason::QueueNameRequired
        | QueuedReason::TierNotAllowed
        | QueuedReason::NameHeld
        | QueuedReason::QueueFull
        | QueuedReason::Suspended => true,
    }
}

/// Whether a reason is about one resource that is short.
pub(super) fn names_a_resource(reason: QueuedReason) -> bool {
    match reason {
        QueuedReason::QuotaExceeded | QueuedReason::NoCapacity | QueuedReason::NeverFits => true,
        QueuedReason::HeadBlocked
        | QueuedReason::ClassBackoff
        | QueuedReason::CapacityStale
        | QueuedReason::PeakWindow
        | QueuedReason::LoadTrigger
        | QueuedReason::WouldNotFinish
        | QueuedReason::QueueStopped
        | QueuedReason::QueueNotFound
        | QueuedReason::QueueNameRequired
        | QueuedReason::TierNotAllowed
        | QueuedReason::NameHeld
        | QueuedReason::Admitted
        | QueuedReason::QueueFull
        | QueuedReason::Suspended
        | QueuedReason::Finished => false,
    }
}
