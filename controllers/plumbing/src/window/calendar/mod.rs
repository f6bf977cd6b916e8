//! When which member of a TimeShareGroup has its peak: a pure function of schedule, override and time.
//!
//! - [`Calendar`] is the checked form of `spec.schedule`. It says who is [desired](Calendar::desired) to be at peak, why,
//!   until when, and what comes next.
//! - [`Survey`] is what the next 400 days hold: windows of different members that meet, and the gaps between windows.
//! - [`CalendarMemo`] keeps both from pass to pass.
//! - [`PeakTimes`] are the peaks of one member, or of all, for whoever keeps out of their way.
//!
//! A window claims the peak for its member from its start less its lead, when the switch begins, up to its end. Claims of
//! one member that overlap or touch are one. Outside of the claims of others the default member has the peak, else nobody.
//! An override goes before all that until its time.
//!
//! Nothing is remembered: who was down at a start, whose clock jumped or who leads since a moment ago asks, and is told
//! what holds. Times are exact to the nanosecond, so that whoever wakes at them finds that what they announce holds.

mod claims;
mod desired;
mod memo;
mod peaks;
mod problem;
mod survey;
#[cfg(test)]
mod tests;

pub use desired::{Cause, Desired, Next};
pub use memo::{CalendarMemo, Surveyed};
pub use peaks::PeakTimes;
pub use problem::{CalendarProblem, Side};
pub use survey::Survey;

use super::Schedule;
use claims::Union;
use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};
use springtide_crds::time_share_group::{self as spec, Override};
use std::sync::Arc;

/// The schedule of a TimeShareGroup, checked.
#[derive(Clone, Debug)]
pub struct Calendar {
    /// All members, in their order.
    members: Vec<Arc<str>>,
    /// Who has the peak when no window of others says otherwise.
    default: Option<Arc<str>>,
    windows: Vec<MemberWindow>,
}

/// A window of one member.
#[derive(Clone, Debug)]
struct MemberWindow {
    name: Arc<str>,
    member: Arc<str>,
    /// How long before the window the switch begins.
    lead: SignedDuration,
    schedule: Schedule,
}

/// Who is at peak by an override, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Forced {
    member: Option<Arc<str>>,
    until: Timestamp,
}

impl Calendar {
    /// Checks a schedule as far as that can be done without the time: see [`Survey::conflict`] for the rest. `members` are
    /// the names of all members, in their order.
    ///
    /// # Errors
    /// The first thing that is wrong, by its field and with the remedy.
    pub fn parse<'m>(
        schedule: &spec::Schedule,
        members: impl IntoIterator<Item = &'m str>,
    ) -> Result<Self, CalendarProblem> {
        let members: Vec<Arc<str>> = members.into_iter().map(Arc::from).collect();
        let known = |field: &str, name: &str| {
            let found = members.iter().find(|member| ***member == *name).cloned();
            found.ok_or_else(|| CalendarProblem::UnknownMember {
                field: field.to_owned(),
                member: name.to_owned(),
            })
        };
        let default = schedule.default_member.as_deref();
        let default = default.map(|name| known("defaultMember", name)).transpose()?;
        let skipped =
            schedule.skip_dates.iter().map(|date| skip_date(date)).collect::<Result<Vec<_>, _>>()?;
        let window = |window: &spec::MemberWindow| {
            let member = known(&format!("windows[{}].member", window.name), &window.member)?;
            MemberWindow::new(window, member, &skipped)
        };
        let windows = schedule.windows.iter().map(window).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { members, default, windows })
    }

    /// The same, and sees to it that no windows of different members meet over the next 400 days.
    ///
    /// This looks at every window of these days: keep what it gives by a [`CalendarMemo`] rather than to ask at each pass.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), and where windows or leads of different members meet.
    pub fn compile<'m>(
        schedule: &spec::Schedule,
        members: impl IntoIterator<Item = &'m str>,
        now: Timestamp,
    ) -> Result<Self, CalendarProblem> {
        let calendar = Self::parse(schedule, members)?;
        match calendar.survey(now).conflict {
            Some(conflict) => Err(conflict),
            None => Ok(calendar),
        }
    }

    /// Whether there is a window at all.
    #[must_use]
    pub fn has_windows(&self) -> bool {
        !self.windows.is_empty()
    }

    /// Who has the peak when no window says otherwise.
    #[must_use]
    pub fn default_member(&self) -> Option<&Arc<str>> {
        self.default.as_ref()
    }

    fn is_default(&self, member: &str) -> bool {
        self.default.as_ref().is_some_and(|default| **default == *member)
    }

    /// Who is at peak by the override until its time; `None` where there is none, or no member of that name: the schema
    /// lets none be stored.
    fn forced(&self, over: Option<&Override>) -> Option<Forced> {
        let over = over?;
        let member = match over.member.as_deref() {
            None => None,
            Some(name) => Some(self.members.iter().find(|member| ***member == *name)?.clone()),
        };
        Some(Forced { member, until: over.until_time.0 })
    }

    /// The windows of one member, together.
    fn windows_of(&self, member: &str) -> Union<'_> {
        Union::of(self.windows.iter().filter(|window| *window.member == *member))
    }

    /// All windows, together.
    fn all_windows(&self) -> Union<'_> {
        Union::of(self.windows.iter())
    }
}

impl MemberWindow {
    fn new(window: &spec::MemberWindow, member: Arc<str>, skipped: &[Date]) -> Result<Self, CalendarProblem> {
        let schedule = Schedule::parse(&window.window)
            .and_then(|schedule| schedule.except(skipped))
            .map_err(|error| CalendarProblem::of_window(&window.name, error))?;
        let lead = SignedDuration::from_secs(window.lead_seconds.into());
        Ok(Self { name: Arc::from(window.name.as_str()), member, lead, schedule })
    }
}

fn skip_date(text: &str) -> Result<Date, CalendarProblem> {
    Date::strptime("%Y-%m-%d", text).map_err(|_| CalendarProblem::SkipDate(text.to_owned()))
}
