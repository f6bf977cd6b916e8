//! From local times to instants, where clocks are put forward or back.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, AmbiguousTimestamp, TimeZone};

/// When a window opens whose start is this local time: of a doubled time at the first, of a missing one at
/// the end of the gap. `None` beyond the years that times can have.
pub(super) fn opening(zone: &TimeZone, local: DateTime) -> Option<Timestamp> {
    instant(zone, local, AmbiguousTimestamp::earlier)
}

/// When a window closes whose end is this local time: of a doubled time at the second, of a missing one at
/// the end of the gap.
pub(super) fn closing(zone: &TimeZone, local: DateTime) -> Option<Timestamp> {
    instant(zone, local, AmbiguousTimestamp::later)
}

fn instant(
    zone: &TimeZone,
    local: DateTime,
    of_two: fn(AmbiguousTimestamp) -> Result<Timestamp, jiff::Error>,
) -> Option<Timestamp> {
    let ambiguous = zone.to_ambiguous_timestamp(local);
    match ambiguous.offset() {
        AmbiguousOffset::Unambiguous { .. } | AmbiguousOffset::Fold { .. } => of_two(ambiguous).ok(),
        AmbiguousOffset::Gap { .. } => {
            // The same clock reading by the offsets on either side lies on either side of the transition.
            let (before, after) = (ambiguous.earlier().ok()?, ambiguous.later().ok()?);
            let end_of_gap = zone
                .following(before)
                .map(|transition| transition.timestamp())
                .take_while(|at| *at <= after)
                .find(|at| zone.to_datetime(*at) >= local);
            Some(end_of_gap.unwrap_or(after))
        }
    }
}

/// Midnight at the start of the date, if the local day is 24 hours by one offset, so that time since then can
/// be added to it.
pub(super) fn plain_midnight(zone: &TimeZone, date: jiff::civil::Date) -> Option<Timestamp> {
    let midnight = zone.to_ambiguous_timestamp(DateTime::from(date));
    match midnight.offset() {
        AmbiguousOffset::Fold { .. } | AmbiguousOffset::Gap { .. } => None,
        AmbiguousOffset::Unambiguous { .. } => {
            let midnight = midnight.earlier().ok()?;
            let next = midnight.checked_add(jiff::SignedDuration::from_hours(24)).ok()?;
            let transition = zone.following(midnight).next();
            transition.is_none_or(|transition| transition.timestamp() >= next).then_some(midnight)
        }
    }
}
