//! Whether a container whose image was patched in a live pod has been started anew with it.
//!
//! The kubelet never says so. It stops the container, pulls, and starts another one; its status follows in several
//! writes, the first of which (with the new `observedGeneration`) comes before the stop. The image *names* in a status
//! are whatever the runtime likes and are not looked at. What is certain: a container of another ID than before the
//! patch runs. It may still be the old image, crashed and started again just before the kubelet saw the patch; then the
//! kubelet stops it within its grace period, and a further ID follows. So it is the new one if
//!
//! - its image is another one than before, or
//! - it has stayed for the grace period and 5 s after it was first seen with the patch observed (equal images under two
//!   names never differ), or
//! - whoever looks for the first time sees that it was started after the patch, and more than the grace period and 60 s
//!   ago. A process that has just begun to lead knows thus at once what was done before it. Who has looked before does not
//!   go by that: a node that was cut off sees a patch minutes late.
//!
//! [`record`] is what has to be known from before the patch; it stands in an annotation of the pod.

pub mod record;
#[cfg(test)]
mod tests;

pub use record::{Base, Record, mark};

use crate::clock::after;
use crate::first_seen::Sighting;
use jiff::{SignedDuration, Timestamp};

/// What a container that is to be stopped may take beyond its grace period: the kubelet needs a moment to act and to
/// say so.
const SEEN_MARGIN: SignedDuration = SignedDuration::from_secs(5);
/// The same for the times that the node says: its clock and its status may lag.
const STARTED_MARGIN: SignedDuration = SignedDuration::from_secs(60);

/// What the status of a pod says of one container now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContainerNow<'a> {
    /// `status.observedGeneration`; 0 where the kubelet says none.
    pub observed_generation: i64,
    /// `containerID`, empty if there is none.
    pub container_id: &'a str,
    /// `imageID`, empty if there is none.
    pub image_id: &'a str,
    /// `state.running.startedAt`; `None` if it does not run.
    pub running_since: Option<Timestamp>,
}

/// Whether a container has been started anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DoneVerdict {
    /// It has, and runs. Whether it is ready is another question.
    Done,
    /// Not as far as can be told.
    NotYet {
        /// What is missing.
        reason: NotYet,
        /// When time alone makes it done; `None` if only the kubelet can.
        wake: Option<Timestamp>,
    },
}

/// Why a container does not count as started anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotYet {
    /// The kubelet has not observed the patch.
    NotObserved,
    /// It is stopped, or waits to start.
    NotRunning,
    /// It is the container from before the patch.
    OldContainer,
    /// Another container, with the image from before: the new one if it stays.
    SameImage,
}

impl NotYet {
    /// The reason in words, for messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotObserved => "the kubelet has not observed the change",
            Self::NotRunning => "it does not run",
            Self::OldContainer => "the old container still runs",
            Self::SameImage => "it runs again with the image from before",
        }
    }
}

impl Record {
    /// The `containerID` of what runs if it may be the container that the patch asks for. The caller looks at it at each
    /// pass ([`crate::first_seen::FirstSeen::look`], by pod and container), and gives what that says to
    /// [`Record::judge`].
    pub fn candidate<'a>(&self, container: &str, now: &ContainerNow<'a>) -> Option<&'a str> {
        let base = self.base.get(container)?;
        self.obstacle(base, now).is_none().then_some(now.container_id)
    }

    /// Whether a container has been started anew. One that the patch did not touch has nothing to do.
    ///
    /// `grace` is `terminationGracePeriodSeconds` of the pod, `seen` since when this very container has been its
    /// [candidate](Record::candidate) (`None`: from now on, for whoever has looked before).
    pub fn judge(
        &self,
        container: &str,
        status: &ContainerNow<'_>,
        grace: SignedDuration,
        seen: Option<Sighting>,
        now: Timestamp,
    ) -> DoneVerdict {
        let Some(base) = self.base.get(container) else { return DoneVerdict::Done };
        if let Some(reason) = self.obstacle(base, status) {
            return DoneVerdict::NotYet { reason, wake: None };
        }
        if base.has_other_image(status.image_id) {
            return DoneVerdict::Done;
        }
        let outlived = after(seen.map_or(now, |seen| seen.since.min(now)), after_grace(grace, SEEN_MARGIN));
        // One from before the patch that is seen late: its age says nothing.
        let started = status.running_since.filter(|started| *started >= self.at);
        let old = started
            .filter(|_| seen.is_some_and(|seen| !seen.saw_begin))
            .map(|started| after(started, after_grace(grace, STARTED_MARGIN)));
        let wake = old.map_or(outlived, |old| old.min(outlived));
        if now >= wake {
            DoneVerdict::Done
        } else {
            DoneVerdict::NotYet { reason: NotYet::SameImage, wake: Some(wake) }
        }
    }

    fn obstacle(&self, base: &Base, now: &ContainerNow<'_>) -> Option<NotYet> {
        if now.observed_generation <= self.generation {
            Some(NotYet::NotObserved)
        } else if now.running_since.is_none() || now.container_id.is_empty() {
            Some(NotYet::NotRunning)
        } else if base.is_container(now.container_id) {
            Some(NotYet::OldContainer)
        } else {
            None
        }
    }
}

fn after_grace(grace: SignedDuration, margin: SignedDuration) -> SignedDuration {
    grace.max(SignedDuration::ZERO).saturating_add(margin)
}
