//! When a recurring [`Window`] is open: a pure function of the window and the time.
//!
//! A window is parsed once into a [`Schedule`], which finds what is wrong with it. Local times are turned into
//! instants by one rule: a time that the clocks skip moves to the end of the gap; of a time that they show
//! twice the start takes the first and the end the second. Cron expressions are matched against local times
//! (never against instants), so the same rule holds for them. Every search is bounded.
//!
//! Windows of several members of a TimeShareGroup are a [`calendar`].

pub mod calendar;
mod civil;
mod cron;
mod error;
mod runs;
#[cfg(test)]
mod tests;

pub use error::WindowError;

use crate::clock::after;
use cron::CronTimes;
use jiff::civil::{Date, Time};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp};
use runs::Runs;
use springtide_crds::common::Window;

/// A window that stays open without a break for longer than this counts as open for ever.
const OPEN_FOR_EVER: SignedDuration = SignedDuration::from_hours(366 * 24);
/// A window that opens rarer is not looked for: the calendar repeats after 28 years, and after 40 where a
/// century has no leap day.
const SEARCH_YEARS: i64 = 40;
/// The window of start and end closes on the next day; with it goes a day that a zone skips.
const DAILY_REACH_DAYS: i64 = 2;

/// One time that a window is open, from `start` up to but not including `end`; `start < end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Occurrence {
    /// When the window opens; [`Timestamp::UNIX_EPOCH`] (or earlier) when it has been open for more than a year.
    pub start: Timestamp,
    /// When it closes; [`Timestamp::MAX`] when it stays open for more than a year.
    pub end: Timestamp,
}

impl Occurrence {
    /// Whether the window is open then.
    #[must_use]
    pub fn contains(&self, at: Timestamp) -> bool {
        self.start <= at && at < self.end
    }
}

/// A window that has been checked, and can say when it is open.
#[derive(Clone, Debug)]
pub struct Schedule {
    zone: TimeZone,
    /// Local dates on which the window opens, ascending; of a cron expression only those that it matches.
    dates: Option<Vec<Date>>,
    /// Local dates on which it does not open all the same, ascending.
    skipped: Vec<Date>,
    times: Times,
}

#[derive(Clone, Debug)]
enum Times {
    Daily { start: Time, end: Time },
    Cron(CronTimes),
}

impl Schedule {
    /// Checks a window.
    ///
    /// The time zone comes from the system's database (`TZDIR`, `/usr/share/zoneinfo`), which an administrator can
    /// keep newer than this program, else from the one that is part of the program.
    ///
    /// # Errors
    /// What is wrong, by its field and with the remedy. A window that never opens is one too.
    pub fn parse(window: &Window) -> Result<Self, WindowError> {
        let zone = time_zone(&window.time_zone)?;
        let dates = window.dates.as_deref().map(dates).transpose()?;
        match (&window.start, &window.end, &window.cron, window.duration_seconds) {
            (Some(start), Some(end), None, None) => {
                let times = Times::Daily { start: time("start", start)?, end: time("end", end)? };
                Ok(Self { zone, dates, skipped: Vec::new(), times })
            }
            (None, None, Some(text), Some(seconds)) => {
                let cron = CronTimes::parse(text, seconds)?;
                let dates = match dates {
                    None if !cron.ever_opens() => return Err(WindowError::NeverOpens(text.clone())),
                    None => None,
                    Some(dates) => {
                        let matching: Vec<Date> =
                            dates.into_iter().filter(|date| cron.opens_on(*date)).collect();
                        if matching.is_empty() {
                            return Err(WindowError::NoDateMatches(text.clone()));
                        }
                        Some(matching)
                    }
                };
                Ok(Self { zone, dates, skipped: Vec::new(), times: Times::Cron(cron) })
            }
            (_, _, _, _) => Err(WindowError::Form),
        }
    }

    /// The same window, which opens on none of these local dates; what has opened the day before goes on.
    ///
    /// # Errors
    /// When it opens on some dates alone, and all of them are among these.
    pub fn except(mut self, skipped: &[Date]) -> Result<Self, WindowError> {
        if let Some(dates) = &mut self.dates {
            dates.retain(|date| !skipped.contains(date));
            if dates.is_empty() {
                return Err(WindowError::AllSkipped);
            }
        }
        self.skipped.extend_from_slice(skipped);
        self.skipped.sort_unstable();
        self.skipped.dedup();
        Ok(self)
    }

    /// The occurrence that contains this instant. Occurrences that overlap or touch are one.
    #[must_use]
    pub fn occurrence_at(&self, now: Timestamp) -> Option<Occurrence> {
        let today = self.local_date(now);
        let reach = self.reach();
        // Enough for a window that is open by itself.
        let mut back = reach.saturating_mul(2) + 1;
        loop {
            let from = sub_days(today, back);
            let run = self.first_run_from(from, now)?;
            if run.start > now {
                return None;
            }
            // What opens before `from` has closed by then, or is this very run.
            let is_whole = self.local_date(run.start) > add_days(from, reach) || from == Date::MIN;
            if is_whole {
                return Some(run);
            }
            if now.duration_since(run.start) > OPEN_FOR_EVER {
                return Some(Occurrence { start: run.start.min(Timestamp::UNIX_EPOCH), ..run });
            }
            back = back.saturating_mul(2);
        }
    }

    /// The first occurrence that starts after this instant. `None` when the last of `dates` is past, when the
    /// window stays open for ever, or if it does not open for decades.
    #[must_use]
    pub fn next_after(&self, now: Timestamp) -> Option<Occurrence> {
        let today = self.local_date(now);
        let until = today.saturating_add(jiff::Span::new().years(SEARCH_YEARS));
        let mut runs = Runs::new(self, sub_days(today, self.reach()), now);
        while let Some(run) = runs.next_run(until) {
            if run.start > now {
                return Some(run);
            }
        }
        None
    }

    /// The last occurrence that ended at `now` or less than `within` before it.
    #[must_use]
    pub fn last_ended(&self, now: Timestamp, within: SignedDuration) -> Option<Occurrence> {
        let since = after(now, -within);
        let until = add_days(self.local_date(now), 1);
        let mut runs = Runs::new(self, sub_days(self.local_date(since), self.reach()), now);
        let mut last = None;
        while let Some(run) = runs.next_run(until).filter(|run| run.start <= now) {
            if since < run.end && run.end <= now {
                last = Some(run);
            }
        }
        // It may have begun before the first day that was looked at.
        self.occurrence_at(after(last?.end, SignedDuration::from_nanos(-1)))
    }

    /// The first run of windows, of those that open on `from` or later, that closes after `now`.
    fn first_run_from(&self, from: Date, now: Timestamp) -> Option<Occurrence> {
        let until = add_days(self.local_date(now), 1);
        let mut runs = Runs::new(self, from, now);
        while let Some(run) = runs.next_run(until) {
            if run.end > now {
                return Some(run);
            }
        }
        None
    }

    /// What opens on a date has closed when so many days later are over.
    fn reach(&self) -> i64 {
        match &self.times {
            Times::Daily { .. } => DAILY_REACH_DAYS,
            Times::Cron(cron) => cron.reach_days(),
        }
    }

    /// The first date of those that the window opens on.
    fn next_date(&self, from: Date, until: Date) -> Option<Date> {
        let mut from = from;
        loop {
            let date = self.next_named(from, until)?;
            if self.skipped.binary_search(&date).is_err() {
                return Some(date);
            }
            from = date.tomorrow().ok()?;
        }
    }

    /// The same, though it may be skipped.
    fn next_named(&self, from: Date, until: Date) -> Option<Date> {
        match (&self.dates, &self.times) {
            (Some(dates), Times::Daily { .. } | Times::Cron(_)) => {
                let next = dates.partition_point(|date| *date < from);
                dates.get(next).copied().filter(|date| *date <= until)
            }
            (None, Times::Daily { .. }) => (from <= until).then_some(from),
            (None, Times::Cron(cron)) => cron.next_date(from, until),
        }
    }

    /// Appends what opens on the date, by start.
    fn spans_on(&self, date: Date, spans: &mut impl Extend<Occurrence>) {
        match &self.times {
            Times::Daily { start, end } => spans.extend(self.daily_span(date, *start, *end)),
            Times::Cron(cron) => cron.spans_on(&self.zone, date, spans),
        }
    }

    /// Nothing where the clocks skip the whole window.
    fn daily_span(&self, date: Date, start: Time, end: Time) -> Option<Occurrence> {
        let last = if end <= start { date.tomorrow().ok()? } else { date };
        let start = civil::opening(&self.zone, date.to_datetime(start))?;
        let end = civil::closing(&self.zone, last.to_datetime(end))?;
        (start < end).then_some(Occurrence { start, end })
    }

    fn local_date(&self, at: Timestamp) -> Date {
        self.zone.to_datetime(at).date()
    }
}

fn time_zone(name: &str) -> Result<TimeZone, WindowError> {
    TimeZone::get(name)
        .or_else(|_| TimeZoneDatabase::bundled().get(name))
        .map_err(|_| WindowError::TimeZone(name.to_owned()))
}

fn time(field: &'static str, value: &str) -> Result<Time, WindowError> {
    Time::strptime("%H:%M", value).map_err(|_| WindowError::Time { field, value: value.to_owned() })
}

fn dates(values: &[String]) -> Result<Vec<Date>, WindowError> {
    let parse =
        |value: &String| Date::strptime("%Y-%m-%d", value).map_err(|_| WindowError::Date(value.clone()));
    let mut dates = values.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    if dates.is_empty() {
        return Err(WindowError::NoDates);
    }
    dates.sort_unstable();
    dates.dedup();
    Ok(dates)
}

fn add_days(date: Date, days: i64) -> Date {
    date.saturating_add(SignedDuration::from_hours(days.saturating_mul(24)))
}

fn sub_days(date: Date, days: i64) -> Date {
    date.saturating_sub(SignedDuration::from_hours(days.saturating_mul(24)))
}
