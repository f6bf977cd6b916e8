//! The condition reasons of TimeShareGroup.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::reason::{self, ReasonDoc, reasons};

reasons! {
    /// Where the group stands; the summary condition.
    pub enum ReadyReason for "Ready" {
        /// No controller has looked at this generation of the object yet.
        Pending => Unknown,
        /// The member that is to have the peak has it, and each pod has its size and traffic.
        Settled => True,
        /// The member that is to have the peak has it, but for units that were skipped; status.stuck names some.
        SettledWithSkips => True,
        /// The peak changes hands, or the preflight before that goes on.
        Switching => False,
        /// A switch has gone wrong, and the peak goes back; or it has gone back, and condition Stalled says why it stays there.
        RollingBack => False,
        /// No further unit starts, for what condition Held says.
        Held => False,
        /// spec.mode is Paused before all pods were where they should be; set it to Active to go on.
        Paused => False,
        /// spec.mode is Observe, and a switch would be due; set it to Active to have it done.
        Observing => False,
        /// The spec cannot be served as it is; condition Stalled says why. Pods stay as they are.
        Refused => False,
        /// The member that is to have the peak has it, but pods of the group have not the size or the traffic that they
        /// should have; condition Reconciling or Stalled says what becomes of them.
        Degraded => False,
        /// The object is being deleted: each pod of its members gets its traffic.
        Deleting => False,
    }
}

reasons! {
    /// Work that is under way and ends by itself; the condition is absent otherwise.
    pub enum ReconcilingReason for "Reconciling" {
        /// No controller has looked at this generation of the object yet.
        Pending => True,
        /// A switch is due, and the API server is asked for its resizes before the first step.
        Preflight => True,
        /// The peak changes hands.
        Switching => True,
        /// A switch has gone wrong, and the peak goes back.
        RollingBack => True,
        /// New pods, and pods that others have changed, get the size and the traffic of their member.
        Settling => True,
        /// The object is being deleted.
        Deleting => True,
    }
}

reasons! {
    /// Why a spec cannot be served as it is.
    pub enum RefusalReason for "Accepted" {
        /// A field of the spec cannot be used; the message names it and the remedy.
        InvalidSpec => False,
        /// The schedule cannot be used; condition ScheduleValid says why. Whoever has the peak keeps it.
        InvalidSchedule => False,
        /// There has been no workload of the name in a member's targetRef for a minute; the message names it. Create the
        /// workload, or correct or remove the member.
        MemberNotFound => False,
        /// An older TimeShareGroup has the workload of a member; the message names both. Remove the member from one of the
        /// groups.
        MemberTaken => False,
        /// No ReferenceGrant in a member's namespace lets TimeShareGroups of this one name its workload. Have one made
        /// there, or remove the member.
        MemberNotGranted => False,
        /// An autoscaler resizes a member's pods, or scales a member by its utilization and spec.autoscalers is Refuse;
        /// condition AutoscalerConflict says which. Delete it, or leave its target out of the group.
        AutoscalerRefused => False,
        /// There are more objects than the declared maximum, or more pods than 20000 in the group or 50000 in all groups;
        /// nothing is done.
        LimitExceeded => False,
    }
}

reasons! {
    /// Whether the controller serves this spec.
    pub enum AcceptedReason for "Accepted" {
        /// It has not been looked at yet.
        NotObserved => Unknown,
        /// The spec is served.
        Accepted => True,
        + /// The spec cannot be served as it is.
        Refused(RefusalReason) => False,
    }
}

reasons! {
    /// Whether the schedule says at each time who has the peak.
    pub enum ScheduleValidReason for "ScheduleValid" {
        /// It has not been looked at yet.
        NotObserved => Unknown,
        /// It does.
        Valid => True,
        /// It has no windows: schedule.defaultMember has the peak, or nobody.
        NoWindows => True,
        /// Windows of two members are open at the same time; the message names both and when. Move one of them.
        WindowsOverlap => False,
        /// The leadSeconds of a window reach into the window of another member; the message names both and when. Lower
        /// leadSeconds, or move one of them.
        LeadOverlapsWindow => False,
        /// No time zone has the name in a window's timeZone; use an IANA name such as Asia/Shanghai.
        UnknownTimeZone => False,
        /// A window's cron expression, date or time of day is not understood; the message names the field and the remedy.
        InvalidWindow => False,
        /// A window never opens, as its cron expression matches no day or all of its dates are skipped, or no window is
        /// left, as all dates are past; the message names it. Change its dates or cron expression, or remove it.
        NeverMatches => False,
    }
}

reasons! {
    /// Why a resize of the next switch would not come through.
    // It also stands in the rows of the status.
    #[derive(Serialize, Deserialize, JsonSchema)]
    #[schemars(inline)]
    pub enum PreflightFailure for "PreflightPassed" {
        /// The API server refuses resizes; the message quotes the first.
        DryRunRefused => False,
        /// Nodes have no room for a pod at its peak size even when those that shrink for it have shrunk. Spread the pods
        /// otherwise, or lower the peak.
        NodeDoesNotFit => False,
        /// A ResourceQuota or a LimitRange has no room for a pod at its peak size; raise it, or lower the peak.
        QuotaExceeded => False,
        /// Pods would be of another QoS class at one of their sizes, which no resize changes. Set the container's limits
        /// otherwise, or its amounts.
        QoSClassWouldChange => False,
        /// A container's resizePolicy restarts it when it is resized; set it to NotRequired in the workload's template.
        ResizeNeedsRestart => False,
        /// Nobody knows how much memory pods use that are to give some away: cpu moves alone. Install a metrics server.
        NoUsageData => False,
    }
}

reasons! {
    /// Whether the next switch would come through.
    pub enum PreflightPassedReason for "PreflightPassed" {
        /// It has not been looked at yet.
        NotObserved => Unknown,
        /// It is looked at guards.preflight.leadSeconds before the next switch.
        NotDue => Unknown,
        /// Each unit would.
        AllUnits => True,
        /// So many units would as guards.preflight.requirePercent asks for; status.preflight names some of the others.
        EnoughUnits => True,
        + /// Fewer units would than guards.preflight.requirePercent asks for.
        Failed(PreflightFailure) => False,
    }
}

reasons! {
    /// Whether the nodes can hold whoever has the peak.
    pub enum CapacitySafeReason for "CapacitySafe" {
        /// It has not been looked at yet.
        NotObserved => Unknown,
        /// Each node can hold the largest peak of its members beside all else that runs there.
        WithinBudget => True,
        /// Nodes cannot: only so many of their pods grow as fit. status.union counts them; spread the pods otherwise.
        NodesOverBudget => False,
        /// A workload's template has not the valley size, so that new pods take more than is theirs; the message names the
        /// container. Set its requests to those of valley.
        TemplateNotAtValley => False,
        /// A ResourceQuota has no room for one pod to grow before another one has shrunk; raise it, or set switch.order to
        /// ShrinkFirst.
        QuotaTooSmall => False,
        /// Members' pods have different priorities, so that one that grows may have another one preempted. Give them one
        /// PriorityClass, or one with preemptionPolicy: Never.
        PrioritiesDiffer => False,
    }
}

reasons! {
    /// Whether the switch goes well.
    pub enum GuardsPassingReason for "GuardsPassing" {
        /// It has not been looked at yet.
        NotObserved => Unknown,
        /// A metric has no value; the message names it.
        NoMetricData => Unknown,
        /// Every bound of spec.guards is kept.
        Passing => True,
        /// More units are stuck or failed than guards.failureThresholdPercent allows.
        TooManyFailures => False,
        /// A metric is beyond its bound; the message names it.
        MetricBreached => False,
        /// guards.donorMaxLoad is exceeded: pods that lose the peak are still busy, and do not shrink.
        DonorBusy => False,
    }
}

reasons! {
    /// Whether something keeps further units from starting.
    pub enum HeldReason for "Held" {
        /// It has not been looked at yet.
        NotObserved => Unknown,
        /// The step is done, and its hold lasts until status.transition.holdUntilTime.
        StepHold => True,
        /// spec.mode is Paused.
        Paused => True,
        /// The preflight has failed and guards.preflight.onFailure is Hold; condition PreflightPassed says what is wrong.
        PreflightFailed => True,
        /// guards.donorMaxLoad is exceeded: pods that lose the peak are still busy.
        DonorBusy => True,
        /// A metric has no value, and its onNoData is Hold.
        NoMetricData => True,
        /// Nothing does.
        Free => False,
    }
}

reasons! {
    /// Whether an autoscaler and the group are in each other's way.
    pub enum AutoscalerConflictReason for "AutoscalerConflict" {
        /// It has not been looked at yet.
        NotObserved => Unknown,
        /// A HorizontalPodAutoscaler scales a member by its utilization, which each switch changes; have it use
        /// AverageValue or another metric. The message names it.
        HorizontalPodAutoscalerUtilization => True,
        /// A VerticalPodAutoscaler resizes a member's pods too; set its updateMode to Off. The message names it.
        VerticalPodAutoscaler => True,
        /// None is.
        None => False,
    }
}

reasons! {
    /// What needs a person.
    pub enum StalledReason for "Stalled" {
        /// A switch has gone wrong and guards.onBreach is Pause; condition GuardsPassing says why. Change the spec to go
        /// on.
        GuardBreached => True,
        /// A unit is stuck and switch.onStuck is Pause; status.stuck names it. Make room on its node, or set switch.onStuck
        /// to Skip.
        UnitStuck => True,
        /// A switch has gone wrong, and the peak went back; condition GuardsPassing or status.stuck says why. It is not
        /// tried again before the spec changes or its window ends.
        RolledBack => True,
        /// Pods do not get their old sizes back; they have traffic where they have their peak size. status.stuck names
        /// some; make room on their nodes.
        RollbackStuck => True,
        /// The switch takes longer than switch.deadlineSeconds, and goes on; status.transition says where it stands.
        DeadlineExceeded => True,
        /// Nothing has moved for ten minutes although nothing holds; the message says what is waited for.
        NoProgress => True,
        /// The API server forbids a write that the object needs; the message says which.
        Forbidden => True,
        /// A defect of the controller or an object it cannot write; see its log.
        InternalError => True,
        + /// The spec cannot be served as it is.
        Refused(RefusalReason) => True,
    }
}

/// Every condition and reason of TimeShareGroup, for the reference and its lints.
#[must_use]
pub fn all() -> Vec<ReasonDoc> {
    [
        reason::docs::<ReadyReason>(),
        reason::docs::<AcceptedReason>(),
        reason::docs::<ScheduleValidReason>(),
        reason::docs::<PreflightPassedReason>(),
        reason::docs::<CapacitySafeReason>(),
        reason::docs::<GuardsPassingReason>(),
        reason::docs::<HeldReason>(),
        reason::docs::<AutoscalerConflictReason>(),
        reason::docs::<ReconcilingReason>(),
        reason::docs::<StalledReason>(),
    ]
    .concat()
}

/// Number of condition types of TimeShareGroup.
pub(super) const CONDITION_TYPES: usize = 10;
