//! Windows that follow one another without a break, as one.

use super::{OPEN_FOR_EVER, Occurrence, Schedule, add_days};
use jiff::Timestamp;
use jiff::civil::Date;
use std::collections::VecDeque;

/// Runs of windows in the order of time, from those that open on a date on.
pub(super) struct Runs<'a> {
    schedule: &'a Schedule,
    now: Timestamp,
    /// The first date whose windows are not in `pending` yet.
    date: Option<Date>,
    pending: VecDeque<Occurrence>,
}

impl<'a> Runs<'a> {
    pub(super) fn new(schedule: &'a Schedule, from: Date, now: Timestamp) -> Self {
        Self { schedule, now, date: Some(from), pending: VecDeque::new() }
    }

    /// The next run that opens on `until` or earlier. One that stays open for ever, seen from now, is the last.
    pub(super) fn next_run(&mut self, until: Date) -> Option<Occurrence> {
        let mut run = self.take_if(until, |_| true)?;
        loop {
            // Where the clocks go back over midnight a later date can come first.
            let near = add_days(self.schedule.local_date(run.end), 1);
            let Some(next) = self.take_if(near, |next| next.start <= run.end) else {
                return Some(run);
            };
            run.end = run.end.max(next.end);
            if run.end.duration_since(run.start.max(self.now)) > OPEN_FOR_EVER {
                self.date = None;
                self.pending.clear();
                return Some(Occurrence { end: Timestamp::MAX, ..run });
            }
        }
    }

    fn take_if(&mut self, until: Date, wanted: impl Fn(&Occurrence) -> bool) -> Option<Occurrence> {
        while self.pending.is_empty() {
            let date = self.schedule.next_date(self.date?, until)?;
            self.date = date.tomorrow().ok();
            self.schedule.spans_on(date, &mut self.pending);
        }
        self.pending.pop_front_if(|next| wanted(next))
    }
}
