//! What is shown of a switch as it goes on.

use super::told::peak;
use crate::cli::screen::{Bar, Shown};
use springtide_crds::common::condition;
use springtide_crds::reason::Reason;
use springtide_crds::time_share_group::{ReadyReason, TimeShareGroupStatus, Transition};
use std::fmt::Write as _;

/// What is shown of a status: the units, and of each member the pods that are at peak.
pub(super) fn shown(status: &TimeShareGroupStatus, steps: u32) -> Shown {
    let told = condition(&status.conditions, ReadyReason::CONDITION);
    let ready = told.map_or(ReadyReason::Pending.as_str(), |told| &told.reason);
    let message = told.map(|told| told.message.as_str()).unwrap_or_default();
    let (mut line, mut head, mut bars) = (ready.to_owned(), ready.to_owned(), Vec::new());
    if let Some(Transition { from, to, step, completion_time, units, .. }) = &status.transition {
        let way = format!("{} -> {}", peak(from.as_deref()), peak(to.as_deref()));
        let beside = [(units.in_flight, "in flight"), (units.deferred, "deferred"), (units.stuck, "stuck")];
        let _ = write!(line, ": {way}, {}/{} units", units.done, units.total);
        let _ = write!(head, ", {way}");
        if completion_time.is_none() {
            let _ = write!(line, ", step {step}/{steps}");
            let _ = write!(head, ", step {step} of {steps}");
        }
        for (number, what) in beside.iter().filter(|(number, _)| *number > 0) {
            let _ = write!(line, ", {number} {what}");
        }
        bars.push(Bar::of("units", units.done, units.total, &beside));
    }
    for member in &status.members {
        let beside = [(member.traffic_on, "in traffic"), (member.upgrading, "upgrading")];
        bars.push(Bar::of(format!("{} at peak", member.name), member.at_peak, member.pods, &beside));
    }
    if !message.is_empty() {
        let _ = write!(line, "; {message}");
        let _ = write!(head, ": {message}");
    }
    Shown { line, head, bars }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::timeshare::fixtures::status;

    #[test]
    fn a_line_says_how_far_the_switch_is() {
        let open = serde_json::from_value(status()).unwrap();
        let shown = shown(&open, 3);
        assert_eq!(
            shown.line,
            "Switching: promo -> payment, 3/10 units, step 2/3, 2 in flight, 1 stuck; switch 42 to payment"
        );
        assert_eq!(shown.head, "Switching, promo -> payment, step 2 of 3: switch 42 to payment");
        let names: Vec<&str> = shown.bars.iter().map(|bar| bar.name.as_str()).collect();
        assert_eq!(names, ["units", "payment at peak", "promo at peak"]);
        assert_eq!((shown.bars[1].position, shown.bars[1].length), (3, 10));
        assert_eq!(shown.bars[0].beside, "2 in flight 1 stuck");
    }

    #[test]
    fn a_group_that_nobody_has_seen_has_no_bars() {
        let unseen = shown(&TimeShareGroupStatus::default(), 3);
        assert_eq!((unseen.line.as_str(), unseen.bars.len()), ("Pending", 0));
    }
}
