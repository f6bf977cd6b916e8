//! A cron expression, taken apart into days and times of day.
//!
//! The parser is croner's, with its extensions `L`, `W` and `#`. As in Vixie cron a date matches if day of month
//! or day of week does, when both are restricted.

use super::{Occurrence, WindowError, civil};
use crate::clock::after;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// Bounds of `durationSeconds`, as in the schema.
const LENGTH_SECONDS: std::ops::RangeInclusive<u32> = 60..=604_800;
/// From 1901 to 2099 the calendar repeats every 28 years: what matches no day of these never will.
const CALENDAR: (Date, Date) = (jiff::civil::date(2000, 1, 1), jiff::civil::date(2027, 12, 31));

/// The windows that a cron expression opens.
#[derive(Clone, Debug)]
pub(super) struct CronTimes {
    cron: Box<Cron>,
    /// Times of day at which a window opens, ascending; the same on each day that matches.
    starts: Vec<Time>,
    /// The same as first and last start of windows without a gap between them, since midnight.
    blocks: Vec<(SignedDuration, SignedDuration)>,
    length: SignedDuration,
}

impl CronTimes {
    pub(super) fn parse(text: &str, seconds: u32) -> Result<Self, WindowError> {
        if !LENGTH_SECONDS.contains(&seconds) {
            return Err(WindowError::Duration(seconds));
        }
        let malformed = |detail: String| WindowError::Cron { value: text.to_owned(), detail };
        // The parser would take nicknames such as @daily too.
        let fields = text.split_ascii_whitespace().count();
        if fields != 5 {
            return Err(malformed(format!("{fields} fields instead of 5")));
        }
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = Box::new(parser.parse(text).map_err(|error| malformed(error.to_string()))?);
        let (hours, minutes) = (cron.pattern.hours.values(), cron.pattern.minutes.values());
        let starts: Vec<Time> = hours
            .iter()
            .flat_map(|hour| minutes.iter().map(move |minute| (*hour, *minute)))
            .filter_map(|(hour, minute)| {
                Time::new(i8::try_from(hour).ok()?, i8::try_from(minute).ok()?, 0, 0).ok()
            })
            .collect();
        let length = SignedDuration::from_secs(seconds.into());
        let blocks = blocks(&starts, length);
        Ok(Self { cron, starts, blocks, length })
    }

    /// Whether there is a day on which a window opens.
    pub(super) fn ever_opens(&self) -> bool {
        !self.starts.is_empty() && self.next_date(CALENDAR.0, CALENDAR.1).is_some()
    }

    pub(super) fn opens_on(&self, date: Date) -> bool {
        let first = self.starts.first();
        first.is_some_and(|time| self.cron.is_time_matching(&date.to_datetime(*time)).unwrap_or(false))
    }

    /// The first of the dates from `from` to `until` on which a window opens.
    pub(super) fn next_date(&self, from: Date, until: Date) -> Option<Date> {
        let mut date = from;
        while date <= until {
            if self.opens_on(date) {
                return Some(date);
            }
            let month = self.cron.pattern.month_match(date.month().unsigned_abs().into());
            let passed = if month.unwrap_or(true) { date } else { date.last_of_month() };
            date = passed.tomorrow().ok()?;
        }
        None
    }

    /// A start may move by a day that the zone skips, and the length may begin late in the day.
    pub(super) fn reach_days(&self) -> i64 {
        self.length.as_hours() / 24 + 3
    }

    pub(super) fn spans_on(&self, zone: &TimeZone, date: Date, spans: &mut impl Extend<Occurrence>) {
        let span = |first: Timestamp, last: Timestamp| {
            let end = after(last, self.length);
            (first < end).then_some(Occurrence { start: first, end })
        };
        match civil::plain_midnight(zone, date) {
            Some(midnight) => spans.extend(
                self.blocks
                    .iter()
                    .filter_map(|(first, last)| span(after(midnight, *first), after(midnight, *last))),
            ),
            None => spans.extend(self.starts.iter().filter_map(|time| {
                let start = civil::opening(zone, date.to_datetime(*time))?;
                span(start, start)
            })),
        }
    }
}

/// Joins the starts that lie no further apart than a window is long.
fn blocks(starts: &[Time], length: SignedDuration) -> Vec<(SignedDuration, SignedDuration)> {
    let mut blocks: Vec<(SignedDuration, SignedDuration)> = Vec::new();
    for start in starts.iter().map(|time| time.duration_since(Time::midnight())) {
        match blocks.last_mut() {
            Some((_, last)) if start <= *last + length => *last = start,
            Some(_) | None => blocks.push((start, start)),
        }
    }
    blocks
}
