//! Why a pod has failed.

use super::restart_count;
use crate::pre_pull::definite_pull_error;
use jiff::Timestamp;
use springtide_plumbing::done_rule::Record;
use springtide_plumbing::workloads::image_name::ImageName;
use springtide_plumbing::workloads::pod::{ContainerState, ContainerView, PodView};
use std::sync::Arc;

/// Reasons of waiting containers that do not go away by waiting for what the pod asks for.
///
/// From the [kubelet](https://github.com/kubernetes/kubernetes/blob/v1.37.0/pkg/kubelet/images/types.go) and
/// [its containers](https://github.com/kubernetes/kubernetes/blob/v1.37.0/pkg/kubelet/container/sync_result.go).
const CANNOT_START: [&str; 8] = [
    "ErrImageNeverPull",
    "InvalidImageName",
    "ImageInspectError",
    "SignatureValidationFailed",
    "CreateContainerConfigError",
    "CreateContainerError",
    RUN_ERROR,
    CRASH_LOOP,
];
/// A container ends again and again.
const CRASH_LOOP: &str = "CrashLoopBackOff";
/// Its runtime has made a container and could not run it.
const RUN_ERROR: &str = "RunContainerError";
/// The tag of a name that has none.
const LATEST: &str = "latest";
/// How the message of a kubelet begins that tries a pull again later; what it failed at follows the image.
const BACK_OFF: &str = "Back-off pulling image \"";

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

/// What keeps a container from starting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    /// As what the pod has failed, if it lasts.
    pub(super) failure: Failure,
    /// Whether it may pass by itself, so that it is waited for.
    pub(super) may_pass: bool,
}

/// Which of the changed containers has ended more often than it may.
pub(super) fn of_restarts(pod: &PodView, record: &Record, most: u32) -> Option<Failure> {
    pod.containers.iter().find_map(|container| of_restarts_of(pod, container, record, most))
}

fn of_restarts_of(pod: &PodView, container: &ContainerView, record: &Record, most: u32) -> Option<Failure> {
    let count = restart_count::count(pod, container, record);
    (count > most).then(|| Failure::Restarts {
        since: record.at,
        container: Arc::clone(&container.name),
        count,
    })
}

/// What keeps a changed container from running: what the kubelet says of it, or that it has ended more often than it may.
pub(super) fn of_changed(
    pod: &PodView,
    container: &ContainerView,
    record: &Record,
    most: u32,
) -> Option<Trouble> {
    let restarts = of_restarts_of(pod, container, record, most);
    let said = of_container(container, record.at).filter(|trouble| match trouble.failure.reason() {
        // Its kubelet starts the new one without a pause, and says so only then.
        CRASH_LOOP | RUN_ERROR if is_old(container, record) => false,
        // So often it may.
        CRASH_LOOP => restarts.is_some(),
        _ => true,
    });
    said.or_else(|| restarts.map(|failure| Trouble { failure, may_pass: false }))
}

/// Whether the container that its status tells of is the one from before the patch.
fn is_old(container: &ContainerView, record: &Record) -> bool {
    container.status.as_ref().is_some_and(|status| record.is_base(&container.name, &status.container_id))
}

/// Why a container cannot start, if it says so.
pub(super) fn of_container(container: &ContainerView, since: Timestamp) -> Option<Trouble> {
    let (reason, message) = match &container.status.as_ref()?.state {
        ContainerState::Waiting { reason, message } => (reason, message),
        ContainerState::Running { .. } | ContainerState::Terminated(_) => return None,
    };
    let may_pass = match &**reason {
        // Of the image before: that stands there until its kubelet has tried the new one.
        "ErrImagePull" | "ImagePullBackOff" if is_of_another(message, &container.image) => return None,
        "ErrImagePull" | "ImagePullBackOff" => is_passing(reason, message),
        "RegistryUnavailable" => true,
        reason if CANNOT_START.contains(&reason) => false,
        _ => return None,
    };
    let failure = Failure::CannotStart {
        container: Arc::clone(&container.name),
        reason: reason.clone(),
        message: message.clone(),
        since,
    };
    Some(Trouble { failure, may_pass })
}

/// Whether a pull that failed may succeed later. The kubelet's own limit (`pull QPS exceeded`), and a registry that does
/// not answer, say nothing about the image; a kubelet that does not say why is taken at its word.
fn is_passing(reason: &str, message: &str) -> bool {
    let backs_off = message.strip_prefix(BACK_OFF).and_then(|rest| rest.split_once('"'));
    let cause = backs_off.map_or(message, |(_, cause)| cause).trim_start_matches([':', ' ']);
    !cause.is_empty() && definite_pull_error(reason, cause).is_none()
}

/// Whether a message is about another image. Runtimes complete the host, and leave a tag out beside a digest.
fn is_of_another(message: &str, image: &str) -> bool {
    let named = message.split_once("image \"").and_then(|(_, rest)| rest.split_once('"'));
    let Some(Ok(named)) = named.map(|(named, _)| ImageName::parse(named)) else { return false };
    let Ok(own) = ImageName::parse(image) else { return false };
    let is_same = match (named.digest, own.digest) {
        (Some(named), Some(own)) => named == own,
        (None, None) => named.tag.unwrap_or(LATEST) == own.tag.unwrap_or(LATEST),
        (Some(_), None) | (None, Some(_)) => true,
    };
    !(is_same && last_component(named.repository) == last_component(own.repository))
}

fn last_component(repository: &str) -> &str {
    repository.rsplit_once('/').map_or(repository, |(_, last)| last)
}
