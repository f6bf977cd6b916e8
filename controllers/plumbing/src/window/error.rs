//! What is wrong with a window, by its field and with the remedy.

/// Why a window cannot be evaluated. The message begins with the field, relative to the window.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// Neither of the two forms, or parts of both.
    #[error("give either start and end, or cron and durationSeconds")]
    Form,
    /// A name that no time zone has.
    #[error("timeZone: {0:?} is not in the time zone database; use an IANA name such as Asia/Shanghai")]
    TimeZone(String),
    /// No time of day.
    #[error("{field}: {value:?} is no time of day; use HH:MM from 00:00 to 23:59")]
    Time {
        /// `start` or `end`.
        field: &'static str,
        /// What stands there.
        value: String,
    },
    /// No cron expression.
    #[error(
        "cron: {value:?} is not understood ({detail}); use minute, hour, day of month, month, day of week"
    )]
    Cron {
        /// What stands there.
        value: String,
        /// What the parser says.
        detail: String,
    },
    /// A cron expression that never opens the window.
    #[error("cron: {0:?} matches no day of the calendar; change day of month, month or day of week")]
    NeverOpens(String),
    /// A window without a length, or too long a one.
    #[error("durationSeconds: {0} is out of bounds; use 60 to 604800")]
    Duration(u32),
    /// No day of the calendar.
    #[error("dates: {0:?} is no date; use YYYY-MM-DD")]
    Date(String),
    /// No date at all.
    #[error("dates: the list is empty; leave it out for every day")]
    NoDates,
    /// The cron expression opens the window on none of the dates.
    #[error("dates: cron {0:?} opens the window on none of them; change one of the two")]
    NoDateMatches(String),
    /// The window opens on some dates alone, and is not to open on any of them.
    #[error("dates: all of them are skipped; change one of the two lists")]
    AllSkipped,
}
