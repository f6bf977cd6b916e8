//! The condition reasons of InPlaceUpgrade.

use crate::common::ConditionStatus;
use crate::reason::{self, Reason, ReasonDoc, reasons};

reasons! {
    /// Where the upgrade stands; the summary condition.
    pub enum ReadyReason for "Ready" {
        /// No controller has looked at this generation of the object yet.
        Pending => Unknown,
        /// Each pod is as the wish has it, and the workload's own controller says so too.
        UpToDate => True,
        /// The controller judges the pods, and asks the API server whether it would take the changes.
        Planning => False,
        /// Nodes pull the images; no pod has been touched for this step.
        PrePulling => False,
        /// Pods change.
        Upgrading => False,
        /// No further pod starts, for what condition Held says.
        Held => False,
        /// spec.mode is Paused: no further pod starts.
        Paused => False,
        /// spec.mode is Plan: status.plan says what would be done, and nothing is.
        PlanOnly => False,
        /// All pods are changed; the workload's own controller is brought to see it.
        Finalizing => False,
        /// The run has gone wrong, and pods become again what they were.
        RollingBack => False,
        /// The run has gone wrong, and every pod is again what it was.
        RolledBack => False,
        /// Nothing can start, or the rest cannot; condition Stalled says why.
        Blocked => False,
        /// The run has gone wrong and stands; condition Stalled says why.
        Failed => False,
        /// The object is being deleted: traffic, partition and pause that are of its making are given back.
        Deleting => False,
    }
}

reasons! {
    /// Why a spec cannot be served as it is.
    pub enum RefusalReason for "Accepted" {
        /// A field of the spec cannot be used; the message names it and the remedy.
        InvalidSpec => False,
        /// There has been no workload of the name in spec.targetRef for a minute.
        TargetNotFound => False,
        /// An older InPlaceUpgrade has the same target; delete one of them.
        TargetTaken => False,
        /// There are more objects than the declared maximum, more pods than 20000, or more old values than
        /// status.previous.content holds; nothing is done.
        LimitExceeded => False,
        /// The wish changes cpu or memory, which a TimeShareGroup decides for this workload; leave them out.
        ConflictsWithTimeShareGroup => False,
        /// The wish changes cpu or memory, which a VerticalPodAutoscaler decides for this workload; leave them out.
        ConflictsWithVerticalPodAutoscaler => False,
    }
}

reasons! {
    /// Whether the controller serves this spec.
    pub enum AcceptedReason for "Accepted" {
        /// It has not been looked at yet.
        NotObserved => Unknown,
        /// The spec is served.
        Accepted => True,
        /// The workload's own controller has not made a revision of the present template yet.
        TemplateNotObserved => False,
        + /// The spec cannot be served as it is.
        Refused(RefusalReason) => False,
    }
}

reasons! {
    /// Whether the workload's own controller leaves the pods alone.
    pub enum LockedReason for "Locked" {
        /// It has not been looked at yet.
        NotObserved => Unknown,
        /// The Deployment is paused, and one ReplicaSet has all its pods.
        Paused => True,
        /// The StatefulSet has a partition at or above its replicas.
        Partition => True,
        /// The update strategy is OnDelete.
        OnDelete => True,
        /// Nothing rolls: a ReplicaSet never compares its pods, and policy.lock Transient or a hotfix changes no template
        /// until its end.
        Unneeded => True,
        /// The Deployment is not paused: set its spec.paused to true, where its manifest is kept.
        NotPaused => False,
        /// The StatefulSet's partition is below its replicas: raise updateStrategy.rollingUpdate.partition.
        PartitionTooLow => False,
        /// The update strategy has no lock: use OnDelete, or for a StatefulSet a partition.
        StrategyNotLockable => False,
        /// Not exactly one ReplicaSet of the Deployment has pods: let its rollout end first. One that was paused before its
        /// first rollout has none.
        MultipleActiveReplicaSets => False,
        /// The lock was taken away during a run; no further pod is changed until it is back, and none is left out of
        /// traffic.
        UnlockedDuringRun => False,
    }
}

reasons! {
    /// Whether the images are on the nodes whose pods are next.
    pub enum PrePulledReason for "PrePulled" {
        /// It has not been looked at yet.
        NotObserved => Unknown,
        /// Each of these nodes has them.
        AllNodes => True,
        /// No image changes, or spec.prePull.mode is None.
        NotNeeded => True,
        /// Nodes pull.
        InProgress => False,
        /// An image does not exist; no container was stopped. The message names image and node.
        ImageNotFound => False,
        /// The registry refuses to give an image; no container was stopped. The message names image and node.
        PullDenied => False,
        /// A node has not pulled within spec.prePull.timeoutSeconds.
        TimedOut => False,
        /// The pod that pulls does not start on a node, for another reason than the image.
        PullerNotScheduled => False,
    }
}

reasons! {
    /// Whether something keeps further pods from starting.
    pub enum HeldReason for "Held" {
        /// It has not been looked at yet.
        NotObserved => Unknown,
        /// The step is done, and its hold lasts until status.step.holdUntilTime.
        StepHold => True,
        /// The step is done, and the next one needs spec.approval with this status.targetHash and a throughStep at or
        /// above status.step.index.
        ApprovalRequired => True,
        /// spec.mode is Paused.
        Paused => True,
        /// One of spec.freezeWindows is open; the message names it.
        FreezeWindow => True,
        /// The TimeShareGroup of the workload is switching.
        TimeShareSwitch => True,
        /// It is a peak hour of the workload in its TimeShareGroup.
        TimeSharePeak => True,
        /// A PodDisruptionBudget allows no pod less; the message names it.
        DisruptionBudget => True,
        /// As many pods are unavailable or missing as spec.strategy.maxUnavailable allows, for other causes than this run.
        Unavailable => True,
        /// A metric has no value.
        NoMetricData => True,
        /// Nothing does.
        Free => False,
    }
}

reasons! {
    /// Whether the run goes well.
    pub enum HealthyReason for "Healthy" {
        /// It has not been looked at yet.
        NotObserved => Unknown,
        /// Every bound of spec.health is kept.
        GatesPassing => True,
        /// More pods failed than spec.health.failureThreshold allows.
        TooManyFailures => False,
        /// Changed containers restart more often than spec.health.maxRestarts allows.
        TooManyRestarts => False,
        /// Pods that were changed and available are not ready any more.
        ReadinessLost => False,
        /// A metric is beyond its bound; the message names it.
        MetricBreached => False,
        /// The API server refuses the change of pods; the message quotes it. Nothing is rolled back for that: no further
        /// pod starts, and it is asked again by itself, at status.nextAttemptTime.
        AdmissionDenied => False,
    }
}

reasons! {
    /// Whether the workload's own controller sees the work as done.
    pub enum FinalizedReason for "Finalized" {
        /// It has not been looked at yet.
        NotObserved => Unknown,
        /// It counts every pod as of the new revision.
        NativeControllerAgrees => True,
        /// It has no say: a ReplicaSet never compares its pods, and a hotfix leaves the workload alone.
        Unneeded => True,
        /// Pods are still to be changed.
        WaitingForPods => False,
        /// Everything is written, and the workload's controller has yet to confirm it.
        WaitingForHandshake => False,
        /// An older ReplicaSet equals the wish, and changes places with the present one first.
        OlderReplicaSetMatches => False,
    }
}

reasons! {
    /// Whether pods differ although no run is under way.
    pub enum DriftedReason for "Drifted" {
        /// It has not been looked at yet.
        NotObserved => Unknown,
        /// Pods differ from what the last run made them; the message names the first.
        PodsDiffer => True,
        /// None does.
        NoDrift => False,
    }
}

reasons! {
    /// What needs a person.
    pub enum StalledReason for "Stalled" {
        /// The workload's own controller would roll; condition Locked says what to do.
        NotLocked => True,
        /// A field of the template belongs to another field manager: change it there, or set policy.fieldOwnership to
        /// Force. The message names the field and the manager.
        FieldOwnershipConflict => True,
        /// The API server refuses the wish in the workload's template, for another reason than who owns the field; the
        /// message quotes it. It is asked again by itself, at status.nextAttemptTime.
        TemplateRefused => True,
        /// Pods cannot be changed in place; status.plan.reasons says why, and policy.ineligible what else is possible.
        PodsBlocked => True,
        /// Images cannot be pulled; condition PrePulled says why. Nothing was stopped.
        PrePullFailed => True,
        /// Pods do not leave traffic in time; see whether their Services still list them.
        DrainFailed => True,
        /// The run has gone wrong and rollback.onFailure is Hold; condition Healthy says why. Change the wish, or raise
        /// spec.attempt to go on.
        HealthFailed => True,
        /// The run has gone wrong and was rolled back; condition Healthy says why. Change the wish, or raise spec.attempt
        /// to try it again.
        RolledBack => True,
        /// Pods do not become again what they were; the message says where it stands.
        RollbackFailed => True,
        /// The workload's own controller does not come to see the work as done; the message says what is missing.
        FinalizeFailed => True,
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

/// Condition `Reconciling`: present while work is under way that ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReconcilingReason {
    /// No controller has looked at this generation of the object yet.
    Pending,
    /// The controller judges the pods.
    Planning,
    /// Nodes pull the images.
    PrePulling,
    /// Pods change.
    Upgrading,
    /// The workload's own controller is brought to see the work.
    Finalizing,
    /// Pods become again what they were.
    RollingBack,
    /// The object is being deleted.
    Deleting,
}

impl ReconcilingReason {
    /// The one that goes with a reason of condition Ready.
    #[must_use]
    pub fn of(ready: ReadyReason) -> Option<Self> {
        match ready {
            ReadyReason::Pending => Some(Self::Pending),
            ReadyReason::Planning => Some(Self::Planning),
            ReadyReason::PrePulling => Some(Self::PrePulling),
            ReadyReason::Upgrading => Some(Self::Upgrading),
            ReadyReason::Finalizing => Some(Self::Finalizing),
            ReadyReason::RollingBack => Some(Self::RollingBack),
            ReadyReason::Deleting => Some(Self::Deleting),
            ReadyReason::UpToDate
            | ReadyReason::Held
            | ReadyReason::Paused
            | ReadyReason::PlanOnly
            | ReadyReason::RolledBack
            | ReadyReason::Blocked
            | ReadyReason::Failed => None,
        }
    }

    fn summary(self) -> ReadyReason {
        match self {
            Self::Pending => ReadyReason::Pending,
            Self::Planning => ReadyReason::Planning,
            Self::PrePulling => ReadyReason::PrePulling,
            Self::Upgrading => ReadyReason::Upgrading,
            Self::Finalizing => ReadyReason::Finalizing,
            Self::RollingBack => ReadyReason::RollingBack,
            Self::Deleting => ReadyReason::Deleting,
        }
    }
}

impl Reason for ReconcilingReason {
    const CONDITION: &'static str = "Reconciling";

    fn as_str(&self) -> &'static str {
        self.summary().as_str()
    }

    fn status(&self) -> ConditionStatus {
        ConditionStatus::True
    }

    fn doc(&self) -> &'static str {
        self.summary().doc()
    }

    fn all() -> Vec<Self> {
        vec![
            Self::Pending,
            Self::Planning,
            Self::PrePulling,
            Self::Upgrading,
            Self::Finalizing,
            Self::RollingBack,
            Self::Deleting,
        ]
    }
}

/// Every condition and reason of InPlaceUpgrade, for the reference and its lints.
#[must_use]
pub fn all() -> Vec<ReasonDoc> {
    [
        reason::docs::<ReadyReason>(),
        reason::docs::<AcceptedReason>(),
        reason::docs::<LockedReason>(),
        reason::docs::<PrePulledReason>(),
        reason::docs::<HeldReason>(),
        reason::docs::<HealthyReason>(),
        reason::docs::<FinalizedReason>(),
        reason::docs::<DriftedReason>(),
        reason::docs::<ReconcilingReason>(),
        reason::docs::<StalledReason>(),
    ]
    .concat()
}

/// Number of condition types of InPlaceUpgrade.
pub(super) const CONDITION_TYPES: usize = 10;
