//! The condition reasons of BatchJob.

use crate::common::ConditionStatus;
use crate::reason::{self, Reason, ReasonDoc, reasons};

reasons! {
    /// Why the job failed for good.
    pub enum FailedReason for "Failed" {
        /// More pods failed than spec.backoffLimit allows.
        BackoffLimitExceeded => True,
        /// Some indexes failed for good; all others ended.
        FailedIndexes => True,
        /// More indexes failed for good than spec.maxFailedIndexes allows.
        MaxFailedIndexesExceeded => True,
        /// A pod's failure matched a FailJob rule of spec.podFailurePolicy.
        PodFailurePolicy => True,
        /// The job ran longer than spec.activeDeadlineSeconds.
        DeadlineExceeded => True,
        /// The job waited longer than spec.queueDeadlineSeconds.
        QueueDeadlineExceeded => True,
        /// The API server refuses pods of this template; the message quotes it.
        InvalidTemplate => True,
    }
}

reasons! {
    /// Where the job stands; the summary condition.
    pub enum CompleteReason for "Complete" {
        /// No controller has looked at this generation of the job yet.
        Pending => Unknown,
        /// The job waits for capacity; condition Queued says for which.
        Queued => False,
        /// The job may start pods; none of them runs yet.
        Admitted => False,
        /// At least one pod of the job runs.
        Running => False,
        /// The job is told to stop, is being deleted or yields to a peak, and its pods are ending.
        Draining => False,
        /// The job or its queue is stopped by spec.stopPolicy, or a peak window is open; no pod runs.
        Suspended => False,
        /// The result is certain; the last pods are ending.
        Finishing => False,
        /// All completions succeeded.
        Completed => True,
        /// So many completions succeeded as spec.successPolicy asks for; the other pods were ended.
        SuccessPolicyMet => True,
        + /// The job failed for good.
        Failed(FailedReason) => False,
    }
}

reasons! {
    /// Whether the job waits for capacity, and for what.
    pub enum QueuedReason for "Queued" {
        /// The queue has used up its quota, and its cohort has nothing to lend.
        QuotaExceeded => True,
        /// No node has room for another pod of the job now; where nodes may not be seen, the scheduler has yet to
        /// place the pods before it.
        NoCapacity => True,
        /// No node is large enough, even if it were empty; a larger node helps.
        NeverFits => True,
        /// Another job has the next free capacity: the first one of a strict queue, or one that has found no node for ten
        /// minutes and has one kept.
        HeadBlocked => True,
        /// Pods like these could not be created or scheduled; they are tried again after a pause.
        ClassBackoff => True,
        /// A peak window of the queue lets jobs of this tier start nothing, or less; status.activeWindow of the queue
        /// tells which.
        PeakWindow => True,
        /// A load trigger of the queue is on, or nobody knows the load that it looks at, and lets jobs of this tier start
        /// nothing, or less; condition PeakWindowActive of the queue tells which.
        LoadTrigger => True,
        /// The job is FinishOrDontStart and would still run when the next peak ends pods of its tier; it starts after
        /// the peak. A shorter spec.expectedSeconds, if true, lets it start earlier.
        WouldNotFinish => True,
        /// The view of nodes and pods is too old to start anything.
        CapacityStale => True,
        /// The queue is stopped by its spec.stopPolicy.
        QueueStopped => True,
        /// There is no BatchQueue of the name in spec.queueName; the job waits for it.
        QueueNotFound => True,
        /// The namespace has BatchQueues but none called default, so spec.queueName must name one; or there is no
        /// built-in queue.
        QueueNameRequired => True,
        /// The queue does not run jobs of this tier: it is above spec.maxTier, or its mapping cannot be used.
        TierNotAllowed => True,
        /// A pod with the name this job needs is still ending.
        NameHeld => True,
        /// Every pod the job may have now is granted.
        Admitted => False,
        /// The queue is at its bound; the job is taken in when others leave it.
        QueueFull => False,
        /// The user stopped the job with spec.stopPolicy.
        Suspended => False,
        /// The job ended.
        Finished => False,
    }
}

reasons! {
    /// Whether the job may start pods.
    pub enum AdmittedReason for "Admitted" {
        /// The job's BatchQueue granted capacity.
        Granted => True,
        /// The built-in queue granted capacity.
        BuiltInQueue => True,
        /// The job waits; condition Queued says for what.
        Waiting => False,
        /// The user stopped the job with spec.stopPolicy.
        Suspended => False,
        /// All pods of the job were ended for one that goes before it; it waits at its old place.
        Preempted => False,
        /// Pods were not scheduled within spec.pendingDeadlineSeconds and were taken back.
        PendingDeadline => False,
    }
}

reasons! {
    /// Whether somebody stopped the job, or a peak does.
    pub enum SuspendedReason for "Suspended" {
        /// spec.stopPolicy is Hold: nothing starts, running pods finish.
        UserHold => True,
        /// spec.stopPolicy is Drain: nothing starts, running pods are ended.
        UserDrain => True,
        /// The job's BatchQueue is drained by its spec.stopPolicy: nothing starts, running pods are ended.
        QueueStopped => True,
        /// A peak window or a load trigger of the job's BatchQueue ended its pods, or lets none start; it goes on after
        /// that.
        PeakWindow => True,
        /// All pods of the job are ended for one that goes before it: of a higher tier or priority of its queue, or of
        /// the queue that had lent what they use. It starts again by itself.
        Preempted => True,
        /// The job was stopped before and is not now.
        Resumed => False,
    }
}

reasons! {
    /// Whether the job runs with fewer pods than it had been granted.
    pub enum DegradedReason for "Degraded" {
        /// The queue's quota was cut, and pods of the job were ended to keep it.
        QuotaShrunk => True,
        /// Pods of the job were ended for one that goes before it: of the queue that had lent the quota they ran on, or
        /// of a higher tier or priority of its own queue.
        Reclaimed => True,
        /// A peak window or a load trigger leaves the job's tier a part of the queue's capacity, and pods of the job were
        /// ended to keep it.
        PeakWindow => True,
        /// The job has been degraded before and has every pod again that it may have.
        FullParallelism => False,
    }
}

reasons! {
    /// What needs a person.
    pub enum StalledReason for "Stalled" {
        /// There is no BatchQueue of the name in spec.queueName; create it, or create the job again with another.
        QueueNotFound => True,
        /// The namespace has BatchQueues but none called default: create the job again with spec.queueName.
        QueueNameRequired => True,
        /// The queue does not run jobs of this tier: raise its spec.maxTier, or create the job again with a lower
        /// tier.
        TierNotAllowed => True,
        /// No node is large enough for one pod, even if it were empty.
        NeverFits => True,
        /// A pod that is not of this job has a name the job needs.
        NameConflict => True,
        /// Something adds scheduling gates to the job's pods, so they cannot start.
        ForeignSchedulingGate => True,
        /// spec.template was edited after the job started; no new pods. Restore it or create the job again.
        TemplateChanged => True,
        /// There are more jobs than the declared maximum; this one is not started until others go.
        LimitExceeded => True,
        /// The API server forbids a write the job needs; the message says which.
        Forbidden => True,
        /// A defect of the controller or an object it cannot write; see its log.
        InternalError => True,
        + /// The job failed for good.
        Failed(FailedReason) => True,
    }
}

/// Condition `Reconciling`: present while the job is unfinished, with the
/// reason of `Complete`; not while it is `Stalled` and nothing of it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReconcilingReason(pub CompleteReason);

impl Reason for ReconcilingReason {
    const CONDITION: &'static str = "Reconciling";

    fn as_str(&self) -> &'static str {
        self.0.as_str()
    }

    fn status(&self) -> ConditionStatus {
        ConditionStatus::True
    }

    fn doc(&self) -> &'static str {
        self.0.doc()
    }

    fn all() -> Vec<Self> {
        CompleteReason::all()
            .into_iter()
            .filter(|reason| match reason {
                CompleteReason::Pending
                | CompleteReason::Queued
                | CompleteReason::Admitted
                | CompleteReason::Running
                | CompleteReason::Draining
                | CompleteReason::Suspended
                | CompleteReason::Finishing => true,
                CompleteReason::Completed | CompleteReason::SuccessPolicyMet | CompleteReason::Failed(_) => {
                    false
                }
            })
            .map(Self)
            .collect()
    }
}

/// Every condition and reason of BatchJob, for the reference and its lints.
#[must_use]
pub fn all() -> Vec<ReasonDoc> {
    [
        reason::docs::<CompleteReason>(),
        reason::docs::<FailedReason>(),
        reason::docs::<QueuedReason>(),
        reason::docs::<AdmittedReason>(),
        reason::docs::<SuspendedReason>(),
        reason::docs::<DegradedReason>(),
        reason::docs::<ReconcilingReason>(),
        reason::docs::<StalledReason>(),
    ]
    .concat()
}

/// Number of condition types of BatchJob.
pub(super) const CONDITION_TYPES: usize = 8;
