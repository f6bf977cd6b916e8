//! The verbs for TimeShareGroups.

pub(super) mod explain;
#[cfg(test)]
mod fixtures;
pub(super) mod plan;
mod progress;
pub(super) mod status;
mod timeline;
mod told;
pub(super) mod watch;
mod world;

use super::Verdict;
use springtide_crds::reason::Reason;
use springtide_crds::time_share_group::ReadyReason;
use springtide_time_share_group::rehearsal::Explanation;

/// How a group stands: well while a switch goes on as it should.
pub(super) fn verdict(explanation: &Explanation) -> Verdict {
    if explanation.stalled.is_some() {
        return Verdict::Stalled;
    }
    match known(&explanation.summary.reason) {
        Some(ReadyReason::Settled | ReadyReason::SettledWithSkips | ReadyReason::Switching) => Verdict::Fine,
        Some(
            ReadyReason::Pending
            | ReadyReason::RollingBack
            | ReadyReason::Held
            | ReadyReason::Paused
            | ReadyReason::Observing
            | ReadyReason::Degraded
            | ReadyReason::Deleting,
        )
        | None => Verdict::NotReady,
        Some(ReadyReason::Refused) => Verdict::Stalled,
    }
}

/// A reason of condition Ready, where this program knows it.
fn known(reason: &str) -> Option<ReadyReason> {
    ReadyReason::all().into_iter().find(|known| known.as_str() == reason)
}
