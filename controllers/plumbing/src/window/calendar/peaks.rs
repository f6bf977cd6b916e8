//! The peaks of a member as others see them: when they are, lead included.

use super::claims::Union;
use super::{Calendar, Forced};
use crate::window::Occurrence;
use jiff::{SignedDuration, Timestamp};
use springtide_crds::time_share_group::Override;
use std::sync::Arc;

/// The times in which one member of a TimeShareGroup is to be at peak, or any of them; from the switch to it, which the
/// lead of its window precedes, to the switch away from it. The time of the default member outside of windows is a peak of
/// that member too: then somebody always is at peak.
///
/// It answers what a [`Schedule`](crate::window::Schedule) does, in the same words.
#[derive(Clone, Debug)]
pub struct PeakTimes {
    calendar: Arc<Calendar>,
    /// The member; `None`: any.
    member: Option<Arc<str>>,
    forced: Option<Forced>,
}

/// The peaks that the schedule alone makes.
enum Scheduled<'a> {
    /// Without a break.
    Always,
    /// Those that windows claim.
    Within(Union<'a>),
    /// What the windows of others leave.
    Outside(Union<'a>),
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
        let Some(forced) = self.in_force(now) else { return self.scheduled().at(now) };
        if !self.is_peak_by(forced) {
            return None;
        }
        let end = self.scheduled().at(forced.until).map_or(forced.until, |then| then.end);
        Some(Occurrence { start: Timestamp::UNIX_EPOCH.min(now), end })
    }

    /// The first peak that starts after this instant.
    #[must_use]
    pub fn next_after(&self, now: Timestamp) -> Option<Occurrence> {
        let Some(forced) = self.in_force(now) else { return self.scheduled().next_after(now) };
        let scheduled = self.scheduled();
        match scheduled.at(forced.until) {
            // It is kept from its peak until then.
            Some(then) if !self.is_peak_by(forced) => Some(Occurrence { start: forced.until, end: then.end }),
            Some(_) | None => scheduled.next_after(forced.until),
        }
    }

    /// The last peak that ended at `now` or less than `within` before it. One that an override has cut short is not
    /// known to have ended before that override itself has.
    #[must_use]
    pub fn last_ended(&self, now: Timestamp, within: SignedDuration) -> Option<Occurrence> {
        let scheduled = self.scheduled();
        let by_override = self.forced.as_ref().filter(|forced| {
            self.is_peak_by(forced)
                && forced.until <= now
                && now.duration_since(forced.until) < within
                && scheduled.at(forced.until).is_none()
        });
        let by_override = by_override
            .map(|forced| Occurrence { start: Timestamp::UNIX_EPOCH.min(forced.until), end: forced.until });
        // The later one; start and end of an occurrence differ.
        [scheduled.ended(now, within), by_override]
            .into_iter()
            .flatten()
            .filter(|ended| ended.start < ended.end)
            .max_by_key(|ended| ended.end)
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

    fn scheduled(&self) -> Scheduled<'_> {
        let calendar = &*self.calendar;
        match (&self.member, &calendar.default) {
            (None, Some(_)) => Scheduled::Always,
            (Some(member), Some(default)) if member == default => {
                Scheduled::Outside(calendar.windows_of_others())
            }
            (Some(member), Some(_) | None) => Scheduled::Within(calendar.windows_of(member)),
            (None, None) => Scheduled::Within(calendar.windows_of_others()),
        }
    }
}

impl Scheduled<'_> {
    fn at(&self, now: Timestamp) -> Option<Occurrence> {
        match self {
            Self::Always => Some(Occurrence { start: Timestamp::UNIX_EPOCH.min(now), end: Timestamp::MAX }),
            Self::Within(windows) => windows.at(now).map(|stretch| stretch.occurrence()),
            Self::Outside(windows) => windows.gap_at(now),
        }
    }

    fn next_after(&self, now: Timestamp) -> Option<Occurrence> {
        match self {
            Self::Always => None,
            Self::Within(windows) => windows.next_after(now).map(|stretch| stretch.occurrence()),
            Self::Outside(windows) => windows.gap_after(now),
        }
    }

    fn ended(&self, now: Timestamp, within: SignedDuration) -> Option<Occurrence> {
        let end = match self {
            Self::Always => return None,
            Self::Within(windows) => windows.ended(now, within)?,
            Self::Outside(windows) => windows.started(now, within)?,
        };
        // It may have begun long before.
        self.at(end.checked_sub(SignedDuration::from_nanos(1)).ok()?)
    }
}
