//! The condition reasons of BatchQueue.

use super::peaks_reasons::{DrainWillMissReason, PeakWindowActiveReason};
use crate::common::ConditionStatus;
use crate::reason::{self, Reason, ReasonDoc, reasons};

reasons! {
    /// What the queue does; the summary condition.
    pub enum ReadyReason for "Ready" {
        /// No controller has looked at this generation of the queue yet.
        Pending => Unknown,
        /// Jobs start as quota and capacity allow.
        Admitting => True,
        /// spec.stopPolicy is Hold: nothing starts, running pods finish.
        Held => True,
        /// Pods are ending: spec.stopPolicy is Drain, or a peak is near.
        Draining => True,
        /// A peak window is open or a load trigger is on: its tiers start nothing, or less.
        Closed => True,
        /// A peak is over: what it held back starts little by little.
        Ramping => True,
        /// spec.stopPolicy is Drain, and no pod of the queue is left.
        Drained => True,
        /// Nothing starts: the view of nodes and pods, or what is measured of them, is too old.
        CapacityStale => False,
        /// The queue is being deleted: nothing starts, running pods finish.
        Deleting => False,
        + /// The queue needs a person.
        Stalled(StalledReason) => False,
    }
}

reasons! {
    /// Whether the view of the capacity is too old to start anything.
    pub enum CapacityStaleReason for "CapacityStale" {
        /// Nodes and pods have not been listed yet, or their watch has been silent for longer than
        /// spec.capacitySource.staleAfterSeconds.
        NodesNotSynced => True,
        /// capacitySource.type is NodeMetrics, and metrics.k8s.io has told nothing new of most nodes for longer than
        /// staleAfterSeconds. Nothing starts; what runs is not touched. See whether the metrics server is well.
        MetricsOld => True,
        /// The view is fresh.
        Fresh => False,
    }
}

reasons! {
    /// Whether the guarantees of the queue are covered.
    pub enum OvercommittedReason for "Overcommitted" {
        /// The nodes have less than the quota's nominal amounts; jobs wait for nodes within the quota.
        NominalAboveLive => True,
        /// The nodes cover the nominal amounts.
        WithinLive => False,
    }
}

reasons! {
    /// Whether lines of finished jobs do not get where spec.retention.archive says; absent without an archive.
    pub enum ArchiveFailingReason for "ArchiveFailing" {
        /// No line has been taken for a while; finished jobs stay, up to twice spec.retention.historyLimit.
        NotTaken => True,
        /// The address of the sink is one that the manager may not post to; the message says which.
        AddressRefused => True,
        /// The sink takes nothing, and finished jobs beyond twice spec.retention.historyLimit are deleted without a
        /// line.
        Dropping => True,
        /// Lines are taken, or none has been due.
        Delivering => False,
    }
}

reasons! {
    /// Whether the scheduler places gangs as a whole, where spec.gangScheduler asks for it.
    pub enum GangSchedulingReason for "GangScheduling" {
        /// Gangs have a PodGroup: the scheduler places their pods all at once or not at all.
        PodGroup => True,
        /// The API server does not serve PodGroups; gangs start when as many pods fit as they need.
        NotServed => False,
        /// The API server refused the last PodGroup of the queue, as the message says. Gangs start when as many pods fit
        /// as they need, and ask for a group again after a pause.
        Refused => False,
    }
}

reasons! {
    /// What needs a person.
    pub enum StalledReason for "Stalled" {
        /// It is not known when a peak window opens: its time zone, cron expression or dates cannot be used, or the schedule
        /// of the TimeShareGroup that it follows. The tiers that it would hold or drain start nothing; the message names the
        /// window and the remedy.
        InvalidWindow => True,
        /// A peak window follows a TimeShareGroup that does not exist, has no such member, or is in a namespace without a
        /// ReferenceGrant for it; the message says which. The tiers that the window would hold or drain start nothing:
        /// correct the name, have the grant made, give the window's hours, or set spec.overridePeak to ForceOff.
        TimeShareGroupNotFound => True,
        /// A tier cannot be used as it is; its jobs wait. The message names the tier and the field.
        InvalidTier => True,
        /// The manager serves single namespaces and may not see nodes: only capacitySource.type Static works, and no load
        /// trigger.
        NodesNotVisible => True,
        /// There are more queues than the declared maximum; nothing starts here until others go.
        LimitExceeded => True,
        /// The API server forbids a write the queue needs; the message says which.
        Forbidden => True,
        /// A defect of the controller or an object it cannot write; see its log.
        InternalError => True,
    }
}

/// Condition `Reconciling`: present until the controller has seen the queue's
/// generation, and while nothing starts for a reason that passes by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReconcilingReason {
    /// No controller has looked at this generation of the queue yet.
    Pending,
    /// The view of nodes and pods is too old.
    CapacityStale,
    /// The queue is being deleted.
    Deleting,
}

impl ReconcilingReason {
    /// The one that goes with a reason of condition Ready.
    #[must_use]
    pub fn of(ready: ReadyReason) -> Option<Self> {
        match ready {
            ReadyReason::Pending => Some(Self::Pending),
            ReadyReason::CapacityStale => Some(Self::CapacityStale),
            ReadyReason::Deleting => Some(Self::Deleting),
            ReadyReason::Admitting
            | ReadyReason::Held
            | ReadyReason::Draining
            | ReadyReason::Closed
            | ReadyReason::Ramping
            | ReadyReason::Drained
            | ReadyReason::Stalled(_) => None,
        }
    }

    fn summary(self) -> ReadyReason {
        match self {
            Self::Pending => ReadyReason::Pending,
            Self::CapacityStale => ReadyReason::CapacityStale,
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
        vec![Self::Pending, Self::CapacityStale, Self::Deleting]
    }
}

/// Every condition and reason of BatchQueue, for the reference and its lints.
#[must_use]
pub fn all() -> Vec<ReasonDoc> {
    [
        reason::docs::<ReadyReason>(),
        reason::docs::<CapacityStaleReason>(),
        reason::docs::<OvercommittedReason>(),
        reason::docs::<PeakWindowActiveReason>(),
        reason::docs::<DrainWillMissReason>(),
        reason::docs::<ArchiveFailingReason>(),
        reason::docs::<GangSchedulingReason>(),
        reason::docs::<ReconcilingReason>(),
        reason::docs::<StalledReason>(),
    ]
    .concat()
}

/// Number of condition types of BatchQueue.
pub(super) const CONDITION_TYPES: usize = 9;
