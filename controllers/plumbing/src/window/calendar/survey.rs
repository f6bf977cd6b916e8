//! What the coming year holds: windows that meet, and gaps between them.

use super::claims::Claim;
use super::problem::{CalendarProblem, Side};
use super::{Calendar, MemberWindow};
use crate::clock::after;
use crate::window::Occurrence;
use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;

/// How far ahead windows are compared.
const HORIZON: SignedDuration = SignedDuration::from_hours(400 * 24);
/// Most claims that are looked at; windows that open more than a hundred times a day are not compared to the end.
const MOST_CLAIMS: usize = 50_000;

/// What the next 400 days of a calendar hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// The first time that windows or leads of different members meet.
    pub conflict: Option<CalendarProblem>,
    /// The shortest time between two windows, from the end of one to the lead of the next: the default member has the
    /// peak for no longer, or nobody has it.
    pub shortest_gap: Option<Occurrence>,
    /// Whether there are windows, and none of them is open or will open any more: from now on nothing switches. Such a
    /// schedule is followed all the same: its last switch may still be under way.
    pub is_over: bool,
}

impl Calendar {
    /// Looks through the next 400 days. Where windows are very many it ends earlier.
    #[must_use]
    pub fn survey(&self, now: Timestamp) -> Survey {
        let mut survey = Survey { is_over: self.is_over(now), ..Survey::default() };
        let horizon = after(now, HORIZON);
        let (claims, _) = self.all_windows().claims(now, now);
        let mut open: Vec<Claim<'_>> = Vec::new();
        let mut covered: Option<Timestamp> = None;
        for claim in claims.take_while(|claim| claim.start < horizon).take(MOST_CLAIMS) {
            if claim.end <= now {
                continue;
            }
            if let Some(since) = covered.filter(|since| *since < claim.start) {
                let gap = Occurrence { start: since, end: claim.start };
                let length = |gap: &Occurrence| gap.end.duration_since(gap.start);
                let is_shorter =
                    survey.shortest_gap.as_ref().is_none_or(|other| length(&gap) < length(other));
                survey.shortest_gap = survey.shortest_gap.filter(|_| !is_shorter).or(Some(gap));
            }
            open.retain(|other| other.end > claim.start);
            survey.conflict = open.iter().find_map(|other| conflict(other, &claim, now));
            if survey.conflict.is_some() {
                return survey;
            }
            covered = covered.max(Some(claim.end));
            open.push(claim);
        }
        survey
    }

    fn is_over(&self, now: Timestamp) -> bool {
        let is_past = |window: &MemberWindow| {
            window.schedule.occurrence_at(now).is_none() && window.schedule.next_after(now).is_none()
        };
        self.has_windows() && self.windows.iter().all(is_past)
    }
}

/// What is wrong where a claim begins while another one lasts, unless that is over.
fn conflict(former: &Claim<'_>, latter: &Claim<'_>, now: Timestamp) -> Option<CalendarProblem> {
    let until = former.end.min(latter.end);
    if former.window.member == latter.window.member || until <= now {
        return None;
    }
    let side = |claim: &Claim<'_>| Side {
        window: Arc::clone(&claim.window.name),
        member: Arc::clone(&claim.window.member),
    };
    let both_from = former.opens.max(latter.opens);
    if both_from < until {
        return Some(CalendarProblem::WindowsOverlap {
            first: side(former),
            second: side(latter),
            from: both_from,
            until,
        });
    }
    // Where claims meet and windows do not, the lead of the window that opens later reaches into the other one.
    let (leading, other) = if former.opens < latter.opens { (latter, former) } else { (former, latter) };
    Some(CalendarProblem::LeadOverlapsWindow {
        leading: side(leading),
        other: side(other),
        from: leading.start,
        until: other.end,
        most: leading.opens.duration_since(other.end).as_secs().max(0),
    })
}
