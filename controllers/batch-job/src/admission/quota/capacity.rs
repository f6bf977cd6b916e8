//! What the source of a queue offers, and how it is counted.

use super::{most, share_of};
use crate::admission::queue::{CapacitySource, NodeShare, QueueRules, QuotaRow};
use crate::ledger::CapacityKey;
use springtide_plumbing::resources::ResourceList;

/// The nodes that a queue's capacity is counted on.
pub(super) fn node_share(rules: &QueueRules) -> Option<&NodeShare> {
    match &rules.source {
        CapacitySource::NodeAllocatable(share)
        | CapacitySource::ExtendedResource(share)
        | CapacitySource::NodeMetrics(share) => Some(share),
        CapacitySource::Static => None,
    }
}

/// The same of a queue whose nodes are measured for it.
pub(super) fn measured_share(rules: &QueueRules) -> Option<&NodeShare> {
    match &rules.source {
        CapacitySource::NodeMetrics(share) => Some(share),
        CapacitySource::NodeAllocatable(_) | CapacitySource::ExtendedResource(_) | CapacitySource::Static => {
            None
        }
    }
}

/// How a queue's capacity is counted.
pub(super) fn capacity_key(rules: &QueueRules) -> Option<CapacityKey> {
    let measured = measured_share(rules).map(|_| rules.stale_after);
    Some(CapacityKey { measured, ..unmeasured_key(rules)? })
}

/// The same without what others really use.
pub(super) fn unmeasured_key(rules: &QueueRules) -> Option<CapacityKey> {
    let selector = node_share(rules)?.selector.clone();
    Some(CapacityKey { selector, measured: None })
}

/// All ways in which a queue's capacity is counted: what others use may be looked at for what starts, never for what runs.
pub(super) fn capacity_keys(rules: &QueueRules) -> impl Iterator<Item = CapacityKey> + use<> {
    let unmeasured = measured_share(rules).and_then(|_| unmeasured_key(rules));
    capacity_key(rules).into_iter().chain(unmeasured)
}

/// What rules let a queue have of a resource of which its source offers so much; `None` is without bound.
pub(super) fn ceiling(rules: &QueueRules, offered: Option<&ResourceList>, name: &str) -> Option<i64> {
    let (share, reserved) = match &rules.source {
        CapacitySource::Static => return None,
        CapacitySource::NodeAllocatable(share) | CapacitySource::NodeMetrics(share) => {
            (share, share.reserve.get(name))
        }
        CapacitySource::ExtendedResource(share) => {
            let base = rules.counted_as.get(name)?;
            (share, share.reserve.get(base) + share.reserve.get(name))
        }
    };
    let offered = offered.map_or(0, |offered| offered.get(name));
    Some((share_of(offered, i64::from(share.percent), 100) - reserved).max(0))
}

/// What there is of a row of a quota, by itself and by the source.
pub(super) fn whole(rules: &QueueRules, offered: Option<&ResourceList>, row: &QuotaRow) -> i64 {
    let most = most(rules, row);
    ceiling(rules, offered, &row.resource).map_or(most, |ceiling| ceiling.min(most))
}
