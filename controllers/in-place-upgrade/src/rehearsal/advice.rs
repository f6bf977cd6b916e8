//! What people are told beside a reason: what lets an object go on, and what they can do.

use springtide_crds::in_place_upgrade::{HeldReason, ReadyReason, RefusalReason, StalledReason};

/// What lets an object go on that needs a person for this.
pub fn wakes_of_stall(reason: StalledReason) -> &'static str {
    match reason {
        StalledReason::NotLocked => "the workload's own controller is told to leave its pods alone",
        StalledReason::FieldOwnershipConflict => {
            "the other manager gives the field up or changes it itself, or spec.policy.fieldOwnership is Force"
        }
        StalledReason::TemplateRefused => {
            "the API server takes the template: it is asked again by itself, at status.nextAttemptTime"
        }
        StalledReason::PodsBlocked => {
            "the wish is another, the pods are, or spec.policy.ineligible lets them be"
        }
        StalledReason::PrePullFailed => "the images can be pulled, or the wish is another",
        StalledReason::DrainFailed => "the Services stop listing the pods as ready",
        StalledReason::HealthFailed | StalledReason::RolledBack => {
            "the wish is another, or spec.attempt is higher"
        }
        StalledReason::RollbackFailed => "the pods become again what they were",
        StalledReason::FinalizeFailed => "the workload's own controller counts every pod as of its template",
        StalledReason::NoProgress => "what the message names happens",
        StalledReason::Forbidden => "the manager's account gets the right that the message names",
        StalledReason::InternalError => "the manager tries again by itself",
        StalledReason::Refused(refusal) => match refusal {
            RefusalReason::InvalidSpec => "the field that the message names is mended",
            RefusalReason::TargetNotFound => "the workload is created",
            RefusalReason::TargetTaken => "the older InPlaceUpgrade is deleted",
            RefusalReason::LimitExceeded => "there is less of what the message names",
            RefusalReason::ConflictsWithTimeShareGroup
            | RefusalReason::ConflictsWithVerticalPodAutoscaler => {
                "the wish leaves cpu and memory as they are in what the pods are made from"
            }
        },
    }
}

/// What lets further pods start that this keeps from it.
pub fn wakes_of_hold(reason: HeldReason) -> &'static str {
    match reason {
        HeldReason::StepHold => "the hold of the step is over",
        HeldReason::ApprovalRequired => "spec.approval names this wish, and this step or a later one",
        HeldReason::Paused => "spec.mode is Apply",
        HeldReason::FreezeWindow => "the freeze window closes",
        HeldReason::TimeShareSwitch => "the TimeShareGroup has switched",
        HeldReason::TimeSharePeak => "the peak of the workload is over",
        HeldReason::DisruptionBudget => "more pods that the budget counts are ready, or it allows more",
        HeldReason::Unavailable => {
            "pods of the workload become available, or spec.strategy.maxUnavailable is raised"
        }
        HeldReason::NoMetricData => "the metric has a value",
        HeldReason::NotObserved | HeldReason::Free => "",
    }
}

/// What lets an object go on that stands so, and that neither holds nor needs a person.
pub fn wakes_of(ready: ReadyReason) -> &'static str {
    match ready {
        ReadyReason::Pending => "a manager looks at the object, which takes one that runs a second",
        ReadyReason::Planning => {
            "the API server has answered, and the workload's own controller has looked at its template"
        }
        ReadyReason::PrePulling => "the nodes of the next pods have the images",
        ReadyReason::Upgrading | ReadyReason::RollingBack => {
            "pods in flight become available: each of them makes room for another one"
        }
        ReadyReason::Paused | ReadyReason::PlanOnly => "spec.mode is Apply",
        ReadyReason::Finalizing => "the workload's own controller counts every pod as of its template",
        ReadyReason::Deleting => "traffic, partition and pause that are of its making are given back",
        ReadyReason::Held | ReadyReason::Blocked | ReadyReason::Failed => "what the message names happens",
        ReadyReason::UpToDate | ReadyReason::RolledBack => "",
    }
}

/// What a person can do about a stall, most useful first.
pub fn remedies_of_stall(reason: StalledReason) -> &'static [&'static str] {
    match reason {
        StalledReason::NotLocked => &[
            "do what condition Locked says, where the workload's manifest is kept: pause a Deployment, set the partition \
             of a StatefulSet at or above its replicas, make a DaemonSet OnDelete",
            "for a Deployment and an inline wish: set spec.policy.lock to Transient, which pauses it at the end alone",
        ],
        StalledReason::FieldOwnershipConflict => &[
            "change the field where its manager has it from",
            "set spec.policy.fieldOwnership to Force, if the other manager no longer writes it",
        ],
        StalledReason::TemplateRefused => &["change spec.source.inline, or the policy that refuses it"],
        StalledReason::PodsBlocked => &[
            "look at the pods with verdict Blocked below, and at the reason of each",
            "set spec.policy.ineligible to Ignore, which leaves these pods as they are, but for those that the API server \
             refuses",
            "let the workload's own controller roll instead, by taking the lock away",
        ],
        StalledReason::PrePullFailed => &[
            "mend the image's name or the registry's secret; no container was stopped",
            "look at the pods that pull: `kubectl get pods -l springtide.dev/in-place-upgrade-puller`",
        ],
        StalledReason::DrainFailed => &[
            "look whether Services list pods that are not ready (publishNotReadyAddresses), or another controller writes \
             their EndpointSlices",
            "set spec.traffic.drain.onTimeout to Proceed, if that loses nothing",
        ],
        StalledReason::HealthFailed => &[
            "change the wish, or raise spec.attempt to go on with it",
            "set spec.rollback.onFailure to Auto, which takes the pods back",
        ],
        StalledReason::RolledBack => &["change the wish, or raise spec.attempt to try it again"],
        StalledReason::RollbackFailed => &["look at the pods that failed, and at their nodes"],
        StalledReason::FinalizeFailed => &["look whether kube-controller-manager runs"],
        StalledReason::NoProgress => &["look at the pods in flight, and at their nodes"],
        StalledReason::Forbidden => &["give the manager the roles of the installation"],
        StalledReason::InternalError => &["look into the manager's log"],
        StalledReason::Refused(refusal) => match refusal {
            RefusalReason::InvalidSpec => &["mend the field that the message names"],
            RefusalReason::TargetNotFound => {
                &["create the workload, or delete this object: spec.targetRef cannot be changed"]
            }
            RefusalReason::TargetTaken => &["delete one of the two objects"],
            RefusalReason::LimitExceeded => &["delete objects that nobody needs"],
            RefusalReason::ConflictsWithTimeShareGroup
            | RefusalReason::ConflictsWithVerticalPodAutoscaler => {
                &["leave cpu and memory out of the wish, or take the workload out of what decides them"]
            }
        },
    }
}

/// What a person can do about a hold, most useful first; empty where waiting is all, or the object says it better.
pub fn remedies_of_hold(reason: HeldReason) -> &'static [&'static str] {
    match reason {
        HeldReason::StepHold => &["wait, or change spec.strategy.steps"],
        HeldReason::Paused => &["set spec.mode to Apply"],
        HeldReason::FreezeWindow => &["wait, or change spec.freezeWindows"],
        HeldReason::TimeSharePeak => &["wait, or set spec.policy.timeShare to HoldDuringSwitch"],
        HeldReason::DisruptionBudget => &[
            "look why pods that the budget counts are not ready",
            "set spec.strategy.disruptionBudgets to Ignore, if the budget is not for this",
        ],
        HeldReason::Unavailable => {
            &["look why pods are not available: `kubectl get pods`", "raise spec.strategy.maxUnavailable"]
        }
        HeldReason::NoMetricData => {
            &["look whether the query has a value, and whether the manager may ask this address"]
        }
        // What approves is spelled out with the hash.
        HeldReason::ApprovalRequired
        | HeldReason::TimeShareSwitch
        | HeldReason::NotObserved
        | HeldReason::Free => &[],
    }
}

/// What a person can do where neither holds nor stalls.
pub fn remedies_of(ready: ReadyReason) -> &'static [&'static str] {
    match ready {
        ReadyReason::Paused | ReadyReason::PlanOnly => &["set spec.mode to Apply"],
        ReadyReason::Pending => &["look whether a manager runs that serves this namespace"],
        ReadyReason::UpToDate
        | ReadyReason::Planning
        | ReadyReason::PrePulling
        | ReadyReason::Upgrading
        | ReadyReason::Held
        | ReadyReason::Finalizing
        | ReadyReason::RollingBack
        | ReadyReason::RolledBack
        | ReadyReason::Blocked
        | ReadyReason::Failed
        | ReadyReason::Deleting => &[],
    }
}

/// On what the manager alone can say that an object needs a person for this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// What is seen of the cluster: it is computed.
    Cluster,
    /// The answers of the API server to dry runs.
    DryRuns,
    /// Images on nodes, and who pulls them.
    Images,
    /// Its memory, its configuration, or what it failed at.
    Manager,
}

pub(super) fn source(reason: StalledReason) -> Source {
    match reason {
        StalledReason::NotLocked | StalledReason::HealthFailed | StalledReason::RolledBack => Source::Cluster,
        StalledReason::FieldOwnershipConflict
        | StalledReason::TemplateRefused
        | StalledReason::PodsBlocked => Source::DryRuns,
        StalledReason::PrePullFailed => Source::Images,
        StalledReason::DrainFailed
        | StalledReason::RollbackFailed
        | StalledReason::FinalizeFailed
        | StalledReason::NoProgress
        | StalledReason::Forbidden
        | StalledReason::InternalError => Source::Manager,
        StalledReason::Refused(refusal) => match refusal {
            RefusalReason::TargetTaken | RefusalReason::ConflictsWithVerticalPodAutoscaler => Source::Cluster,
            // Which addresses may be asked, since when a target is missing, objects of other namespaces, and groups.
            RefusalReason::InvalidSpec
            | RefusalReason::TargetNotFound
            | RefusalReason::LimitExceeded
            | RefusalReason::ConflictsWithTimeShareGroup => Source::Manager,
        },
    }
}
