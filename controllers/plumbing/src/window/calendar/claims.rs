//! The claims of windows in the order of time, and those that follow one another as one stretch.

use super::MemberWindow;
use crate::clock::after;
use crate::window::runs::Runs;
use crate::window::{OPEN_FOR_EVER, Occurrence, SEARCH_YEARS};
use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};

/// How far the first look goes back: what has begun earlier than so is seldom.
const FIRST_LOOK: SignedDuration = SignedDuration::from_hours(24);
/// Most claims that are joined: a year of all windows that a schedule can have, once a day. What follows then is a stretch
/// of its own, though there is no break.
const MOST_JOINED: usize = 20_000;
/// Days that windows may be moved by, where a zone skips some of them.
const MARGIN_DAYS: i64 = 2;

/// One time that a window claims the peak.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim<'a> {
    pub(super) window: &'a MemberWindow,
    /// When the switch begins.
    pub(super) start: Timestamp,
    /// When the window opens.
    pub(super) opens: Timestamp,
    pub(super) end: Timestamp,
}

/// Claims of several windows, by their starts; of those that start together in the order of the windows.
pub(super) struct Claims<'a> {
    heads: Vec<Head<'a>>,
}

/// The claims of one window that are still to come.
struct Head<'a> {
    window: &'a MemberWindow,
    runs: Runs<'a>,
    /// Nothing is looked for beyond it.
    until: Date,
    next: Option<Claim<'a>>,
}

impl<'a> Head<'a> {
    fn new(window: &'a MemberWindow, from: Timestamp, now: Timestamp) -> Self {
        let schedule = &window.schedule;
        let until = schedule.local_date(now).saturating_add(jiff::Span::new().years(SEARCH_YEARS));
        let runs = Runs::new(schedule, schedule.local_date(from), now);
        let mut head = Self { window, runs, until, next: None };
        head.advance();
        head
    }

    fn advance(&mut self) -> Option<Claim<'a>> {
        let next = self.runs.next_run(self.until).map(|run| Claim {
            window: self.window,
            start: after(run.start, -self.window.lead),
            opens: run.start,
            end: run.end,
        });
        std::mem::replace(&mut self.next, next)
    }
}

impl<'a> Claims<'a> {
    fn new(windows: &[&'a MemberWindow], from: Timestamp, now: Timestamp) -> Self {
        Self { heads: windows.iter().map(|window| Head::new(window, from, now)).collect() }
    }

    /// The next one, if it is as wanted.
    fn next_if(&mut self, is_wanted: impl Fn(&Claim<'a>) -> bool) -> Option<Claim<'a>> {
        let heads = self.heads.iter_mut().filter_map(|head| Some((head.next?.start, head)));
        let (_, head) = heads.min_by_key(|(start, _)| *start)?;
        head.next.as_ref().is_some_and(is_wanted).then(|| head.advance()).flatten()
    }
}

impl<'a> Iterator for Claims<'a> {
    type Item = Claim<'a>;

    fn next(&mut self) -> Option<Claim<'a>> {
        self.next_if(|_| true)
    }
}

/// Claims that follow one another without a break.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch<'a> {
    /// The window of the first of them.
    pub(super) window: &'a MemberWindow,
    /// When the first of them starts.
    pub(super) start: Timestamp,
    /// When its window opens.
    pub(super) opens: Timestamp,
    /// When the last of them ends; [`Timestamp::MAX`] where that is more than a year away.
    pub(super) end: Timestamp,
}

impl Stretch<'_> {
    pub(super) fn occurrence(&self) -> Occurrence {
        Occurrence { start: self.start, end: self.end }
    }
}

/// Stretches in the order of time. One that lasts for ever, seen from now, is the last.
pub(super) struct Stretches<'a> {
    claims: Claims<'a>,
    now: Timestamp,
}

impl<'a> Iterator for Stretches<'a> {
    type Item = Stretch<'a>;

    fn next(&mut self) -> Option<Stretch<'a>> {
        let Claim { window, start, opens, end } = self.claims.next()?;
        let mut stretch = Stretch { window, start, opens, end };
        for _ in 0..MOST_JOINED {
            if stretch.end.duration_since(stretch.start.max(self.now)) > OPEN_FOR_EVER {
                self.claims.heads.clear();
                return Some(Stretch { end: Timestamp::MAX, ..stretch });
            }
            let Some(next) = self.claims.next_if(|next| next.start <= stretch.end) else {
                return Some(stretch);
            };
            stretch.end = stretch.end.max(next.end);
        }
        Some(stretch)
    }
}

/// Several windows together, whosesoever they are: what any of them claims.
pub(super) struct Union<'a> {
    windows: Vec<&'a MemberWindow>,
}

impl<'a> Union<'a> {
    pub(super) fn of(windows: impl Iterator<Item = &'a MemberWindow>) -> Self {
        Self { windows: windows.collect() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    /// All claims that end after `since`, and some that end before. What is given beside them is the time from which on
    /// none is left out: `since`, or the beginning of time.
    pub(super) fn claims(&self, since: Timestamp, now: Timestamp) -> (Claims<'a>, Timestamp) {
        let reach = self.windows.iter().map(|window| window.schedule.reach()).max().unwrap_or_default();
        let days = SignedDuration::from_hours((reach + MARGIN_DAYS) * 24);
        let from = after(since, -days);
        let whole_from = if from == Timestamp::MIN { from } else { since };
        (Claims::new(&self.windows, from, now), whole_from)
    }

    /// The same as stretches. Those that start after the time given beside them are whole; of others the start is
    /// uncertain.
    fn stretches(&self, since: Timestamp, now: Timestamp) -> (Stretches<'a>, Timestamp) {
        let (claims, whole_from) = self.claims(since, now);
        (Stretches { claims, now }, whole_from)
    }

    /// The stretch that contains now. It starts at [`Timestamp::UNIX_EPOCH`] or earlier when that was more than a year
    /// ago.
    pub(super) fn at(&self, now: Timestamp) -> Option<Stretch<'a>> {
        let mut back = FIRST_LOOK;
        loop {
            let (mut stretches, whole_from) = self.stretches(after(now, -back), now);
            let found = stretches.find(|stretch| stretch.end > now).filter(|stretch| stretch.start <= now)?;
            if found.start > whole_from || whole_from == Timestamp::MIN {
                return Some(found);
            }
            if now.duration_since(found.start) > OPEN_FOR_EVER {
                return Some(Stretch { start: found.start.min(Timestamp::UNIX_EPOCH), ..found });
            }
            back = back.saturating_mul(2);
        }
    }

    /// The first stretch that starts after now.
    pub(super) fn next_after(&self, now: Timestamp) -> Option<Stretch<'a>> {
        self.stretches(now, now).0.find(|stretch| stretch.start > now)
    }

    /// When a stretch ended last, at `now` or less than `within` before it.
    pub(super) fn ended(&self, now: Timestamp, within: SignedDuration) -> Option<Timestamp> {
        let (stretches, _) = self.stretches(after(now, -within), now);
        let ended = stretches.take_while(|stretch| stretch.start <= now).map(|stretch| stretch.end);
        ended.filter(|end| *end <= now && now.duration_since(*end) < within).last()
    }

    /// When a stretch ended last, at `now` or before it; `None` where that is more than a year ago.
    pub(super) fn last_end(&self, now: Timestamp) -> Option<Timestamp> {
        let mut back = FIRST_LOOK;
        loop {
            if let Some(end) = self.ended(now, back) {
                return Some(end);
            }
            if back > OPEN_FOR_EVER || self.is_empty() {
                return None;
            }
            back = back.saturating_mul(2);
        }
    }
}
