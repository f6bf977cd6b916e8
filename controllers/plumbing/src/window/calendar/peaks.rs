//! The peaks of a member as others see them: when they are, lead included.

use super::claims::Union;
use super::{Calendar, Forced};
use crate::window::Occurrence;
use jiff::{SignedDuration, Timestamp};
use springtide_crds::time_share_group::Override;
use std::sync::Arc;

/// The times that windows or an override give one member of a TimeShareGroup, or any of them; from the switch to it, which
/// the lead of its window precedes, to the switch away from it. What a member has by default is no peak, unless it has a
/// window then.
///
/// It answers what a [`Schedule`](crate::window::Schedule) does, in the same words.
#[derive(Clone, Debug)]
pub struct PeakTimes {
    calendar: Arc<Calendar>,
    /// The member; `None`: any.
    member: Option<Arc<str>>,
    forced: Option<Forced>,
}

impl Calendar {
    /// The peaks of a member, or of all of them together; `None` where there is no such member.
    #[must_use]
    pub fn peaks(self: &Arc<Self>, member: Option<&str>, over: Option<&Override>) -> Option<PeakTimes> {
        let member = match member {
            Some(name) => Some(self.members.iter().find(|member| ***member == *name)?.clone()),
            None => None,
        };
        Some(PeakTimes { calendar: Arc::clone(self), member, forced: self.forced(over) })
    }
}

impl PeakTimes {
    /// The peak that contains this instant. Since when an override makes it one nobody knows: such a one starts at
    /// [`Timestamp::UNIX_EPOCH`] or earlier, as one does that has lasted for more than a year.
    #[must_use]
    pub fn occurrence_at(&self, now: Timestamp) -> Option<Occurrence> {
        let windows = self.windows();
        let Some(forced) = self.in_force(now) else { return windows.at(now).map(|peak| peak.occurrence()) };
        if !self.is_peak_by(forced) {
            return None;
        }
        let end = windows.at(forced.until).map_or(forced.until, |then| then.end);
        Some(Occurrence { start: Timestamp::UNIX_EPOCH.min(now), end })
    }

    /// The first peak that starts after this instant.
    #[must_use]
    pub fn next_after(&self, now: Timestamp) -> Option<Occurrence> {
        let windows = self.windows();
        let Some(forced) = self.in_force(now) else {
            return windows.next_after(now).map(|peak| peak.occurrence());
        };
        match windows.at(forced.until) {
            // It is kept from its peak until then.
            Some(then) if !self.is_peak_by(forced) => Some(Occurrence { start: forced.until, end: then.end }),
            Some(_) | None => windows.next_after(forced.until).map(|peak| peak.occurrence()),
        }
    }

    /// The last peak that ended at `now` or less than `within` before it. One that an override has cut short is not
    /// known to have ended before that override itself has.
    #[must_use]
    pub fn last_ended(&self, now: Timestamp, within: SignedDuration) -> Option<Occurrence> {
        let windows = self.windows();
        let by_window = windows.ended(now, within).and_then(|end| {
            // It may have begun long before.
            let last = end.checked_sub(SignedDuration::from_nanos(1)).ok()?;
            windows.at(last).map(|peak| peak.occurrence())
        });
        let has_ended = |forced: &&Forced| {
            self.is_peak_by(forced)
                && forced.until <= now
                && now.duration_since(forced.until) < within
                && windows.at(forced.until).is_none()
        };
        let by_override = self.forced.as_ref().filter(has_ended).map(|forced| forced.until);
        let start = Timestamp::UNIX_EPOCH;
        let by_override = by_override.filter(|end| start < *end).map(|end| Occurrence { start, end });
        [by_window, by_override].into_iter().flatten().max_by_key(|ended| ended.end)
    }

    fn in_force(&self, now: Timestamp) -> Option<&Forced> {
        self.forced.as_ref().filter(|forced| now < forced.until)
    }

    /// Whether an override makes its time a peak of this one.
    fn is_peak_by(&self, forced: &Forced) -> bool {
        match &self.member {
            Some(member) => forced.member.as_ref() == Some(member),
            None => forced.member.is_some(),
        }
    }

    /// The windows that make peaks.
    fn windows(&self) -> Union<'_> {
        match &self.member {
            Some(member) => self.calendar.windows_of(member),
            None => self.calendar.all_windows(),
        }
    }
}
