//! What is wrong with a schedule, by its field and with the remedy.

use crate::window::WindowError;
use jiff::Timestamp;
use springtide_crds::time_share_group::ScheduleValidReason;
use std::fmt;
use std::sync::Arc;

/// A window of a schedule in a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Side {
    /// Name of the window.
    pub window: Arc<str>,
    /// Whose it is.
    pub member: Arc<str>,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.window, self.member)
    }
}

/// Why a schedule cannot be followed. The message begins with the field, relative to the spec of the group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CalendarProblem {
    /// A name that no time zone has.
    #[error("schedule.windows[{window}].window.{error}")]
    UnknownTimeZone {
        /// Name of the window.
        window: String,
        /// What is wrong.
        error: WindowError,
    },
    /// The window never opens.
    #[error("schedule.windows[{window}].window.{error}")]
    NeverMatches {
        /// Name of the window.
        window: String,
        /// What is wrong.
        error: WindowError,
    },
    /// The window cannot be read.
    #[error("schedule.windows[{window}].window: {error}")]
    InvalidWindow {
        /// Name of the window.
        window: String,
        /// What is wrong.
        error: WindowError,
    },
    /// No day of the calendar.
    #[error("schedule.skipDates: {0:?} is no date; use YYYY-MM-DD")]
    SkipDate(String),
    /// The group has no such member.
    #[error("schedule.{field}: there is no member {member}; name one of spec.members")]
    UnknownMember {
        /// The field, relative to the schedule.
        field: String,
        /// The name.
        member: String,
    },
    /// Windows of two members are open at one time.
    #[error(
        "schedule.windows: {first} and {second} are both open from {from} to {until}; change times or dates of one"
    )]
    WindowsOverlap {
        /// The one whose switch begins first.
        first: Side,
        /// The other one.
        second: Side,
        /// When both are open for the first time.
        from: Timestamp,
        /// When one of them closes.
        until: Timestamp,
    },
    /// The switch to one member would begin while the window of another is open.
    #[error(
        "schedule.windows: the lead of {leading} begins at {from}, and {other} is open until {until}; set leadSeconds to \
         {most} at most, or move one"
    )]
    LeadOverlapsWindow {
        /// The window whose lead is too long.
        leading: Side,
        /// The window that it reaches into.
        other: Side,
        /// When the lead begins.
        from: Timestamp,
        /// When the other window closes.
        until: Timestamp,
        /// The longest lead that there is room for, in seconds.
        most: i64,
    },
}

impl CalendarProblem {
    pub(super) fn of_window(window: &str, error: WindowError) -> Self {
        let window = window.to_owned();
        match error {
            WindowError::TimeZone(_) => Self::UnknownTimeZone { window, error },
            WindowError::NeverOpens(_) | WindowError::NoDateMatches(_) | WindowError::AllSkipped => {
                Self::NeverMatches { window, error }
            }
            WindowError::Form
            | WindowError::Time { .. }
            | WindowError::Cron { .. }
            | WindowError::Duration(_)
            | WindowError::Date(_)
            | WindowError::NoDates => Self::InvalidWindow { window, error },
        }
    }

    /// As it stands in condition ScheduleValid of the group.
    #[must_use]
    pub fn reason(&self) -> ScheduleValidReason {
        match self {
            Self::UnknownTimeZone { .. } => ScheduleValidReason::UnknownTimeZone,
            Self::NeverMatches { .. } => ScheduleValidReason::NeverMatches,
            Self::InvalidWindow { .. } | Self::SkipDate(_) | Self::UnknownMember { .. } => {
                ScheduleValidReason::InvalidWindow
            }
            Self::WindowsOverlap { .. } => ScheduleValidReason::WindowsOverlap,
            Self::LeadOverlapsWindow { .. } => ScheduleValidReason::LeadOverlapsWindow,
        }
    }

    /// When windows meet for the first time; `None` for what is wrong at any time.
    #[must_use]
    pub fn begins(&self) -> Option<Timestamp> {
        match self {
            Self::WindowsOverlap { from, .. } | Self::LeadOverlapsWindow { from, .. } => Some(*from),
            Self::UnknownTimeZone { .. }
            | Self::NeverMatches { .. }
            | Self::InvalidWindow { .. }
            | Self::SkipDate(_)
            | Self::UnknownMember { .. } => None,
        }
    }
}
