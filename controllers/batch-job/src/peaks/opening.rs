//! When a peak lets a tier start again.

use super::{PeakState, Peaks};
use jiff::Timestamp;
use springtide_crds::batch_queue::peaks::ActiveWindow;
use springtide_crds::common::Tier;

/// Changes that are looked at: windows may follow each other for ever.
const MOST_CHANGES: usize = 200;

impl Peaks {
    /// When, after `now`, the windows first leave all of the queue to a tier, ramps and load triggers aside, and what
    /// holds then is as `is_fine` wants it. `stored` is `status.activeWindow`, as for [`Peaks::at`]. `None` where nobody
    /// knows, as a window cannot be evaluated, and where it does not come within the next changes.
    pub fn opens(
        &self,
        tier: Tier,
        now: Timestamp,
        stored: Option<&ActiveWindow>,
        is_fine: impl Fn(&PeakState, Timestamp) -> bool,
    ) -> Option<Timestamp> {
        let mut at = now;
        for _ in 0..MOST_CHANGES {
            at = self.edge(at)?;
            let state = self.at(at, stored);
            let peak = state.tier(tier);
            if peak.may_start() && peak.percent.is_none() && is_fine(&state, at) {
                return Some(at);
            }
        }
        None
    }
}
