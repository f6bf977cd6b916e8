//! What people are told beside a reason: what lets a group go on, and what they can do.

use springtide_crds::time_share_group::{HeldReason, ReadyReason, RefusalReason, StalledReason};

/// What lets a group go on that needs a person for this.
pub fn wakes_of_stall(reason: StalledReason) -> &'static str {
    match reason {
        StalledReason::GuardBreached => "the spec is another one",
        StalledReason::UnitStuck => "the unit comes through, or switch.onStuck is Skip",
        StalledReason::RolledBack => "the spec is another one, or the next window of the member begins",
        StalledReason::RollbackStuck => {
            "nodes have room for the old sizes of the pods that status.stuck names"
        }
        StalledReason::DeadlineExceeded => "units come through: the switch goes on by itself",
        StalledReason::NoProgress => "what the message names happens",
        StalledReason::Forbidden => "the manager's account gets the right that the message names",
        StalledReason::InternalError => "the manager tries again by itself",
        StalledReason::Refused(refusal) => match refusal {
            RefusalReason::InvalidSpec => "the field that the message names is mended",
            RefusalReason::InvalidSchedule => {
                "the window that the message names is mended; until then the peak stays where it is, or goes where spec.override says"
            }
            RefusalReason::MemberNotFound => "the workload is created",
            RefusalReason::MemberTaken => "the older group lets the workload go",
            RefusalReason::MemberNotGranted => "a ReferenceGrant in the member's namespace names it",
            RefusalReason::AutoscalerRefused => "the autoscaler is gone, or leaves the member alone",
            RefusalReason::LimitExceeded => "there is less of what the message names",
        },
    }
}

/// What lets further units start that this keeps from it.
pub fn wakes_of_hold(reason: HeldReason) -> &'static str {
    match reason {
        HeldReason::StepHold => "the hold of the step is over",
        HeldReason::Paused => "spec.mode is Active",
        HeldReason::PreflightFailed => {
            "enough units would come through: those that were refused are asked again by themselves"
        }
        HeldReason::DonorBusy => "the load of those that lose the peak is below guards.donorMaxLoad",
        HeldReason::NoMetricData => "the metric has a value",
        HeldReason::NotObserved | HeldReason::Free => "",
    }
}

/// What lets a group go on that stands so, and that neither holds nor needs a person.
pub fn wakes_of(ready: ReadyReason) -> &'static str {
    match ready {
        ReadyReason::Pending => "a manager looks at the group, which takes one that runs a second",
        ReadyReason::Switching | ReadyReason::RollingBack => {
            "units that are under way are done: each of them makes room for another one"
        }
        ReadyReason::Degraded => "kubelets put the sizes in force, and nodes have room for them",
        ReadyReason::Paused | ReadyReason::Observing => "spec.mode is Active",
        ReadyReason::Deleting => "each pod of its members has its traffic",
        ReadyReason::Held | ReadyReason::Refused => "what the message names happens",
        ReadyReason::Settled | ReadyReason::SettledWithSkips => "",
    }
}

/// What a person can do about a stall, most useful first.
pub fn remedies_of_stall(reason: StalledReason) -> &'static [&'static str] {
    match reason {
        StalledReason::GuardBreached => &[
            "look at condition GuardsPassing, and change the spec to go on",
            "set spec.guards.onBreach to Rollback, which gives the peak back",
        ],
        StalledReason::UnitStuck => &[
            "make room on the node of the pod that status.stuck names first",
            "set spec.switch.onStuck to Skip, which takes such units back and goes on",
        ],
        StalledReason::RolledBack => &[
            "mend what condition GuardsPassing or status.stuck names, and change the spec to try it again",
            "have the peak where it is: set spec.override",
        ],
        StalledReason::RollbackStuck => &["make room on the nodes that status.stuck names"],
        StalledReason::DeadlineExceeded => &[
            "look what the units in flight wait for, below",
            "raise spec.switch.maxInFlightUnits or the write budget, if it is slow as it is large",
            "raise spec.switch.deadlineSeconds, if it may take as long",
        ],
        StalledReason::NoProgress => &["look at the pods in flight, and at their nodes"],
        StalledReason::Forbidden => &["give the manager the roles of the installation"],
        StalledReason::InternalError => &["look into the manager's log"],
        StalledReason::Refused(refusal) => match refusal {
            RefusalReason::InvalidSpec => &["mend the field that the message names"],
            RefusalReason::InvalidSchedule => &[
                "move one of the windows, or mend the one that the message names",
                "set spec.override, which is followed in any case",
            ],
            RefusalReason::MemberNotFound => &["create the workload, or take the member out of spec.members"],
            RefusalReason::MemberTaken => &["take the member out of one of the two groups"],
            RefusalReason::MemberNotGranted => &[
                "have a ReferenceGrant made in the member's namespace",
                "take the member out of spec.members",
            ],
            RefusalReason::AutoscalerRefused => {
                &["set updateMode of the VerticalPodAutoscaler to Off", "set spec.autoscalers to Report"]
            }
            RefusalReason::LimitExceeded => &["delete groups that nobody needs, or make them smaller"],
        },
    }
}

/// What a person can do about a hold, most useful first; empty where waiting is all.
pub fn remedies_of_hold(reason: HeldReason) -> &'static [&'static str] {
    match reason {
        HeldReason::StepHold => &["wait, or change spec.switch.steps"],
        HeldReason::Paused => &["set spec.mode to Active"],
        HeldReason::PreflightFailed => {
            &["mend what condition PreflightPassed names", "set spec.guards.preflight.onFailure to Report"]
        }
        HeldReason::DonorBusy => &["wait for the load to go, or raise spec.guards.donorMaxLoad"],
        HeldReason::NoMetricData => {
            &["look whether the query has a value, and whether the manager may ask this address"]
        }
        HeldReason::NotObserved | HeldReason::Free => &[],
    }
}

/// What a person can do where neither holds nor stalls.
pub fn remedies_of(ready: ReadyReason) -> &'static [&'static str] {
    match ready {
        ReadyReason::Paused | ReadyReason::Observing => &["set spec.mode to Active"],
        ReadyReason::Pending => &["look whether a manager runs that serves this namespace"],
        ReadyReason::SettledWithSkips => {
            &["look at the pods that status.stuck names: they follow as soon as they can"]
        }
        ReadyReason::Degraded => &["look at pods whose unit is not Done, below"],
        ReadyReason::Settled
        | ReadyReason::Switching
        | ReadyReason::RollingBack
        | ReadyReason::Held
        | ReadyReason::Refused
        | ReadyReason::Deleting => &[],
    }
}

/// Whether it is the manager alone that knows that a group needs a person for this: by its memory, its configuration, what
/// it has failed at, or objects of other namespaces.
pub(super) fn is_known_to_the_manager(reason: StalledReason) -> bool {
    match reason {
        StalledReason::NoProgress | StalledReason::Forbidden | StalledReason::InternalError => true,
        StalledReason::GuardBreached
        | StalledReason::UnitStuck
        | StalledReason::RolledBack
        | StalledReason::RollbackStuck
        | StalledReason::DeadlineExceeded => false,
        StalledReason::Refused(refusal) => match refusal {
            RefusalReason::InvalidSchedule => false,
            RefusalReason::InvalidSpec
            | RefusalReason::MemberNotFound
            | RefusalReason::MemberTaken
            | RefusalReason::MemberNotGranted
            | RefusalReason::AutoscalerRefused
            | RefusalReason::LimitExceeded => true,
        },
    }
}
