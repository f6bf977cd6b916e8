//! Why a pod has failed.

use crate::projections::pod::{ContainerState, ContainerView, PodView};
use jiff::Timestamp;
use springtide_plumbing::done_rule::Record;
use std::sync::Arc;

/// Reasons of waiting containers that do not go away by waiting for what the pod asks for.
///
/// From the [kubelet](https://github.com/kubernetes/kubernetes/blob/v1.37.0/pkg/kubelet/images/types.go) and
/// [its containers](https://github.com/kubernetes/kubernetes/blob/v1.37.0/pkg/kubelet/container/sync_result.go).
const CANNOT_START: [&str; 11] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "ImageInspectError",
    "RegistryUnavailable",
    "SignatureValidationFailed",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "CrashLoopBackOff",
];

/// Why a pod has failed. It may recover: a failure lasts for as long as its cause is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A container cannot start.
    CannotStart {
        /// Its name.
        container: Arc<str>,
        /// The kubelet's reason, such as `ImagePullBackOff`.
        reason: Box<str>,
        /// The kubelet's words.
        message: Box<str>,
        /// When the pod was changed.
        since: Timestamp,
    },
    /// It was not available in time after its patch.
    DeadlineExceeded {
        /// When time was up.
        since: Timestamp,
    },
    /// It was in traffic again, and is not ready any more.
    ReadinessLost {
        /// Since when.
        since: Timestamp,
    },
    /// One of its changed containers restarts again and again.
    Restarts {
        /// When the pod was changed.
        since: Timestamp,
        /// Name of the container.
        container: Arc<str>,
        /// Its restarts beyond the upgrade's own.
        count: u32,
    },
    /// Its node can never carry out the resize.
    ResizeInfeasible {
        /// Since when.
        since: Timestamp,
        /// The kubelet's words.
        message: Box<str>,
    },
    /// Its resize has waited or gone on for too long.
    ResizeTimedOut {
        /// When time was up.
        since: Timestamp,
        /// Whether it waits for room on its node.
        is_deferred: bool,
        /// The kubelet's words.
        message: Box<str>,
    },
    /// It did not leave traffic in time, and that is to count.
    DrainTimedOut {
        /// When time was up.
        since: Timestamp,
        /// Services that still list it.
        waits_for: Vec<Arc<str>>,
    },
    /// Somebody writes the images otherwise that we wrote.
    Overridden {
        /// When we wrote them.
        since: Timestamp,
    },
}

impl Failure {
    /// The reason in the status: what the kubelet says, or which bound was exceeded.
    pub fn reason(&self) -> &str {
        match self {
            Self::CannotStart { reason, .. } => reason,
            Self::DeadlineExceeded { .. } => "DeadlineExceeded",
            Self::ReadinessLost { .. } => "ReadinessLost",
            Self::Restarts { .. } => "TooManyRestarts",
            Self::ResizeInfeasible { .. } => "ResizeInfeasible",
            Self::ResizeTimedOut { is_deferred: true, .. } => "ResizeDeferred",
            Self::ResizeTimedOut { is_deferred: false, .. } => "ResizeInProgress",
            Self::DrainTimedOut { .. } => "DrainTimedOut",
            Self::Overridden { .. } => "ImageOverridden",
        }
    }

    /// Since when.
    pub fn since(&self) -> Timestamp {
        match self {
            Self::CannotStart { since, .. }
            | Self::DeadlineExceeded { since }
            | Self::ReadinessLost { since }
            | Self::Restarts { since, .. }
            | Self::ResizeInfeasible { since, .. }
            | Self::ResizeTimedOut { since, .. }
            | Self::DrainTimedOut { since, .. }
            | Self::Overridden { since } => *since,
        }
    }

    /// Whether its containers still are what they were, so that it gets its traffic back.
    pub fn leaves_pod_as_it_was(&self) -> bool {
        match self {
            Self::ResizeInfeasible { .. } | Self::ResizeTimedOut { .. } | Self::DrainTimedOut { .. } => true,
            Self::CannotStart { .. }
            | Self::DeadlineExceeded { .. }
            | Self::ReadinessLost { .. }
            | Self::Restarts { .. }
            | Self::Overridden { .. } => false,
        }
    }
}

/// Which of the changed containers has restarted more often than it may.
pub(super) fn of_restarts(pod: &PodView, record: &Record, most: u32) -> Option<Failure> {
    pod.containers.iter().find_map(|container| {
        let restarts = container.status.as_ref()?.restarts;
        let count = record.further_restarts(&container.name, restarts);
        (count > most).then(|| Failure::Restarts {
            since: record.at,
            container: Arc::clone(&container.name),
            count,
        })
    })
}

/// Why a container cannot start, if it says so.
pub(super) fn of_container(container: &ContainerView, since: Timestamp) -> Option<Failure> {
    match &container.status.as_ref()?.state {
        ContainerState::Waiting { reason, message } if CANNOT_START.contains(&&**reason) => {
            Some(Failure::CannotStart {
                container: Arc::clone(&container.name),
                reason: reason.clone(),
                message: message.clone(),
                since,
            })
        }
        ContainerState::Waiting { .. }
        | ContainerState::Running { .. }
        | ContainerState::Terminated { .. } => None,
    }
}
