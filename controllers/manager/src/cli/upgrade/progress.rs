//! What is shown of an upgrade as it goes on.

use crate::cli::screen::{Bar, Shown};
use crate::cli::text::count;
use springtide_crds::common::condition;
use springtide_crds::in_place_upgrade::{InPlaceUpgradeStatus, PrePullCounts, ReadyReason};
use springtide_crds::reason::Reason;
use std::fmt::Write as _;

/// What is shown of a status.
pub(super) fn shown(status: &InPlaceUpgradeStatus) -> Shown {
    let told = condition(&status.conditions, ReadyReason::CONDITION);
    let ready = told.map_or(ReadyReason::Pending.as_str(), |told| &told.reason);
    let message = told.map(|told| told.message.as_str()).unwrap_or_default();
    let counts = &status.pods;
    let beside = [(counts.in_flight, "in flight"), (counts.failed, "failed"), (counts.blocked, "blocked")];
    let mut line = format!("{ready}: {}/{} pods", counts.updated_ready, counts.total);
    let mut head = ready.to_owned();
    if let Some(step) = &status.step {
        let _ = write!(line, ", step {}/{}", step.index, step.of);
        let _ = write!(head, ", step {} of {} to {} pods", step.index, step.of, step.pods);
    }
    for (number, what) in beside.iter().filter(|(number, _)| *number > 0) {
        let _ = write!(line, ", {number} {what}");
    }
    let mut bars = vec![Bar::of("pods", counts.updated_ready, counts.total, &beside)];
    if let Some(PrePullCounts { nodes, ready, failed }) = &status.pre_pull {
        let _ = write!(line, ", images on {ready} of {}", count(size(*nodes), "node"));
        bars.push(Bar::of("images", *ready, *nodes, &[(*failed, "failed")]));
    }
    if !message.is_empty() {
        let _ = write!(line, "; {message}");
        let _ = write!(head, ": {message}");
    }
    Shown { line, head, bars }
}

fn size(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(ready: &str, updated: u32, pre_pull: bool) -> Shown {
        let mut status = json!({
            "observedGeneration": 1,
            "conditions": [{
                "type": "Ready", "status": "False", "reason": ready, "message": "as it goes",
                "lastTransitionTime": "2026-11-11T00:00:00Z",
            }],
            "pods": {"total": 30, "updated": updated + 1, "updatedReady": updated, "inFlight": 2, "failed": 1},
            "step": {"index": 1, "of": 3, "pods": 10, "startTime": "2026-11-11T00:00:00Z"},
        });
        if pre_pull {
            status["prePull"] = json!({"nodes": 4, "ready": 3, "failed": 1});
        }
        shown(&serde_json::from_value(status).unwrap())
    }

    #[test]
    fn a_line_says_all_that_bars_show() {
        let expected =
            "Upgrading: 7/30 pods, step 1/3, 2 in flight, 1 failed, images on 3 of 4 nodes; as it goes";
        assert_eq!(of("Upgrading", 7, true).line, expected);
        let unseen = shown(&InPlaceUpgradeStatus::default());
        assert_eq!(unseen.line, "Pending: 0/0 pods");
    }

    #[test]
    fn bars_are_as_long_as_there_are_pods_and_nodes_and_that_of_images_goes() {
        let pulling = of("PrePulling", 7, true);
        assert_eq!(pulling.head, "PrePulling, step 1 of 3 to 10 pods: as it goes");
        let beside = [(2, "in flight"), (1, "failed")];
        let expected = [Bar::of("pods", 7, 30, &beside), Bar::of("images", 3, 4, &[(1, "failed")])];
        assert_eq!(pulling.bars, expected);
        assert_eq!(of("Upgrading", 9, false).bars, [Bar::of("pods", 9, 30, &beside)]);
    }
}
