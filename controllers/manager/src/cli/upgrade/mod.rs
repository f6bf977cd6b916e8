//! The verbs for InPlaceUpgrades.

pub(super) mod explain;
#[cfg(test)]
mod fixtures;
pub(super) mod plan;
mod progress;
pub(super) mod status;
mod told;
pub(super) mod watch;
mod world;

use super::{RehearsalArgs, Verdict};
use anyhow::Result;
use springtide_crds::in_place_upgrade::ReadyReason;
use springtide_crds::reason::Reason;
use springtide_in_place_upgrade::rehearsal::Explanation;
use std::sync::Arc;

/// How an upgrade stands.
pub(super) fn verdict(explanation: &Explanation) -> Verdict {
    let reason = &explanation.summary.reason;
    let ready = ReadyReason::all().into_iter().find(|known| known.as_str() == reason);
    match ready {
        _ if explanation.stalled.is_some() => Verdict::Stalled,
        None => Verdict::NotReady,
        Some(
            ReadyReason::UpToDate
            | ReadyReason::Planning
            | ReadyReason::PrePulling
            | ReadyReason::Upgrading
            | ReadyReason::Finalizing,
        ) => Verdict::Fine,
        Some(
            ReadyReason::Pending
            | ReadyReason::Held
            | ReadyReason::Paused
            | ReadyReason::PlanOnly
            | ReadyReason::RollingBack
            | ReadyReason::Deleting,
        ) => Verdict::NotReady,
        Some(ReadyReason::RolledBack | ReadyReason::Blocked | ReadyReason::Failed) => Verdict::Stalled,
    }
}

/// The image by which the manager for which something is computed pulls images ahead; empty where that is not known.
fn tools_image(args: &RehearsalArgs) -> Result<Arc<str>> {
    let configuration = args.configuration()?;
    let image = configuration.map(|found| found.controllers.in_place_upgrade.settings.puller_image);
    Ok(image.unwrap_or_default().into())
}
