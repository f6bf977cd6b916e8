//! The next switch, and when it is looked at.

use super::questions::ANSWER_AGE;
use crate::observed::Observed;
use crate::transition::{self, Opening};
use crate::units::Heading;
use jiff::{SignedDuration, Timestamp};
use springtide_crds::time_share_group::PreflightStatus;
use springtide_plumbing::clock::after;
use springtide_plumbing::projection::Projection;
use springtide_plumbing::window::calendar::Desired;

/// At least so many resizes are asked for each second: a small group need not wait for hours to be known.
const PER_SECOND: i128 = 1;

/// A switch that is to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upcoming {
    /// Its way, as it will be when it opens.
    pub heading: Heading,
    /// When it begins; now where it is due.
    pub start: Timestamp,
}

/// The next switch of a group in which none is open, and whose last one was `last`: to whoever is desired and has not the
/// peak, or who is so next. What was rolled back and `is_barred` does not come.
pub fn upcoming(
    observed: &Observed,
    last: Option<&Heading>,
    desired: &Desired,
    is_barred: bool,
    now: Timestamp,
) -> Option<Upcoming> {
    let status = &observed.group.status;
    let holds = |member: Option<&str>| {
        let transition = status.transition.as_ref().filter(|_| last.is_some());
        transition.is_some_and(|transition| transition.to.as_deref() == member)
    };
    let (to, start) = match (desired.member.as_deref(), desired.next.as_ref()) {
        (to, _) if !holds(to) && !is_barred => (to, now),
        (_, Some(next)) if !holds(next.member.as_deref()) => (next.member.as_deref(), next.start),
        (_, Some(_) | None) => return None,
    };
    let id = last.map_or(1, |last| transition::next_id(last.id));
    let from = transition::from(status, Opening::Open, to);
    let member = |name: Option<&str>| name.and_then(|name| observed.member(name));
    let heading = Heading { id, from: member(from), to: member(to), is_return: false };
    Some(Upcoming { heading, start })
}

impl Upcoming {
    /// When it is looked at at the latest.
    pub(super) fn begins(&self, observed: &Observed) -> Timestamp {
        after(self.start, -lead(observed))
    }

    /// Whether it is to be looked at: its time has come, or the group has changed since it was looked at.
    pub(super) fn is_due(&self, observed: &Observed, now: Timestamp) -> bool {
        let stored = observed.group.status.preflight.as_ref();
        let is_known = stored.is_some_and(|stored| stored.completion_time.is_some());
        now >= self.begins(observed) || !is_known || !is_of_this_spec(observed)
    }

    /// What the status says of this switch, where that is all known and not too old.
    pub(super) fn stored<'a>(&self, observed: &'a Observed, now: Timestamp) -> Option<&'a PreflightStatus> {
        let status = &observed.group.status;
        let stored = status.preflight.as_ref()?;
        let completed = stored.completion_time.as_ref()?.0;
        let to = self.heading.to.and_then(|to| observed.members.get(to.0)).map(|member| &*member.name);
        let ended = status.transition.as_ref().and_then(|last| last.completion_time.as_ref());
        let is_recent = now < self.begins(observed) || completed >= self.answers_count_from(observed, now);
        let is_of_it = stored.member.as_deref() == to && ended.is_none_or(|ended| ended.0 <= completed);
        (is_recent && is_of_it && is_of_this_spec(observed)).then_some(stored)
    }

    /// What was answered earlier is asked again: that of the lead counts, and that of the last hour.
    pub(super) fn answers_count_from(&self, observed: &Observed, now: Timestamp) -> Timestamp {
        self.begins(observed).min(after(now, -ANSWER_AGE))
    }

    /// How many resizes of so many may have been asked by now. Over the first half of the lead they are spread; what is
    /// looked at out of its time is asked at once.
    pub(super) fn may_have_asked(&self, observed: &Observed, total: usize, now: Timestamp) -> usize {
        let (begins, half) = (self.begins(observed), lead(observed).as_millis() / 2);
        let elapsed = now.duration_since(begins).as_millis();
        if now >= self.start || elapsed < 0 || elapsed >= half {
            return total;
        }
        let all = i128::try_from(total).unwrap_or(i128::MAX);
        let spread = all.saturating_mul(elapsed).saturating_add(half - 1) / half;
        let least = elapsed / 1000 * PER_SECOND + 1;
        usize::try_from(spread.max(least)).unwrap_or(usize::MAX).min(total)
    }
}

fn lead(observed: &Observed) -> SignedDuration {
    SignedDuration::from_secs(observed.group.spec.guards.preflight.lead_seconds.into())
}

fn is_of_this_spec(observed: &Observed) -> bool {
    observed.group.status.observed_generation == observed.group.meta().generation
}
