//! What was found in a schedule, kept from pass to pass.

use super::problem::CalendarProblem;
use super::{Calendar, Survey};
use crate::clock::after;
use jiff::{SignedDuration, Timestamp};
use springtide_crds::time_share_group as spec;
use std::sync::Arc;

/// How long what the next 400 days hold counts for what the next 400 days hold.
const SURVEY_EVERY: SignedDuration = SignedDuration::from_hours(24);

/// A calendar, and what its next 400 days hold.
#[derive(Clone, Debug)]
pub struct Surveyed {
    /// The calendar.
    pub calendar: Arc<Calendar>,
    /// What it holds.
    pub survey: Survey,
}

/// The calendar of one group, made anew only when its schedule or its members are others, and looked through anew once a
/// day. For what a controller remembers of a key; `observe` asks it, and a plan gets what it gave.
#[derive(Clone, Debug, Default)]
pub struct CalendarMemo {
    kept: Option<Kept>,
}

#[derive(Clone, Debug)]
struct Kept {
    schedule: spec::Schedule,
    members: Vec<String>,
    at: Timestamp,
    found: Result<Arc<Surveyed>, CalendarProblem>,
}

impl Kept {
    fn is_of(&self, schedule: &spec::Schedule, members: &[&str], now: Timestamp) -> bool {
        let is_recent = self.at <= now && now < after(self.at, SURVEY_EVERY);
        is_recent && self.schedule == *schedule && self.members == members
    }
}

impl CalendarMemo {
    /// The calendar of this schedule and these members, in their order.
    ///
    /// # Errors
    /// As [`Calendar::parse`]. Windows that meet are no error here: see [`Survey::conflict`].
    pub fn get(
        &mut self,
        schedule: &spec::Schedule,
        members: &[&str],
        now: Timestamp,
    ) -> Result<Arc<Surveyed>, CalendarProblem> {
        if let Some(kept) = self.kept.as_ref().filter(|kept| kept.is_of(schedule, members, now)) {
            return kept.found.clone();
        }
        let found = Calendar::parse(schedule, members.iter().copied()).map(|calendar| {
            let survey = calendar.survey(now);
            Arc::new(Surveyed { calendar: Arc::new(calendar), survey })
        });
        let members = members.iter().map(|member| (*member).to_owned()).collect();
        self.kept = Some(Kept { schedule: schedule.clone(), members, at: now, found: found.clone() });
        found
    }
}
