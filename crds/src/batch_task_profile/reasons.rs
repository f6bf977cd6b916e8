//! The condition reasons of BatchTaskProfile.

use crate::reason::{self, ReasonDoc, reasons};

reasons! {
    /// Whether there is enough to draw conclusions from; the summary condition.
    pub enum ReadyReason for "Ready" {
        /// No controller has looked at the profile yet.
        Pending => Unknown,
        /// Twenty runs or more were learned from; the message says of what is known.
        Learned => True,
        /// Fewer than twenty runs were learned from; nothing is recommended yet.
        TooFewSamples => False,
        /// The newest task under this key has other containers, or a bound names one that no task has; condition
        /// Stalled says which. What is recommended stays in use.
        ContainerMismatch => False,
    }
}

reasons! {
    /// Present while the profile is on its way to Ready.
    pub enum ReconcilingReason for "Reconciling" {
        /// No controller has looked at the profile yet.
        Pending => True,
        /// Fewer than twenty runs were learned from; more come as jobs run.
        TooFewSamples => True,
    }
}

reasons! {
    /// What needs a person.
    pub enum StalledReason for "Stalled" {
        /// The containers of the profile, or of its bounds, are not those of the tasks that bear its key: the
        /// tasks are not alike, or have changed. Correct the bounds, use another key, or delete the profile to
        /// learn anew.
        ContainerMismatch => True,
    }
}

/// Every condition and reason of BatchTaskProfile, for the reference and its lints.
#[must_use]
pub fn all() -> Vec<ReasonDoc> {
    [reason::docs::<ReadyReason>(), reason::docs::<ReconcilingReason>(), reason::docs::<StalledReason>()]
        .concat()
}

/// Number of condition types of BatchTaskProfile.
pub(super) const CONDITION_TYPES: usize = 3;
