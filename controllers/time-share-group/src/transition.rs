//! Which way a group goes: read from its status and its calendar, and from nothing else.
//!
//! A transition is opened, superseded, failed and closed by a status of its own, before anything rests on it. So whoever
//! leads since a moment ago finds the same way, the same step and the same order of units.

use crate::observed::Observed;
use crate::units::Heading;
use jiff::Timestamp;
use springtide_crds::common::whole_seconds;
use springtide_crds::time_share_group::{
    LastTransition, MAX_DURATION_SECONDS, MAX_TRANSITION_ID, TimeShareGroupStatus, Transition,
    TransitionCause, TransitionResult, UnitCounts,
};
use springtide_plumbing::window::calendar::{Cause, Desired};

/// What asks for a switch, as the status has it.
pub fn cause(desired: &Desired) -> TransitionCause {
    match desired.cause {
        Cause::Override => TransitionCause::Override,
        Cause::Window => TransitionCause::Window,
        Cause::Default => TransitionCause::Default,
    }
}

/// Where a group is in the life of its transitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// There never was one.
    Fresh,
    /// One is under way.
    Open(Heading),
    /// The last one has ended; what it was for is kept up.
    Ended(Heading),
}

impl Course {
    /// The way of the present transition, or of the last one; none before the first.
    pub fn heading(&self) -> Option<&Heading> {
        match self {
            Self::Fresh => None,
            Self::Open(heading) | Self::Ended(heading) => Some(heading),
        }
    }

    /// Whether a transition is under way.
    pub fn is_open(&self) -> bool {
        match self {
            Self::Open(_) => true,
            Self::Fresh | Self::Ended(_) => false,
        }
    }
}

/// Where a group is. A member that the spec has no more is nobody.
pub fn course(observed: &Observed) -> Course {
    let status = &observed.group.status;
    let Some(transition) = &status.transition else { return Course::Fresh };
    let heading = heading(observed, transition, is_return(status, transition));
    match transition.completion_time {
        Some(_) => Course::Ended(heading),
        None => Course::Open(heading),
    }
}

/// The way of a transition.
pub fn heading(observed: &Observed, transition: &Transition, is_return: bool) -> Heading {
    let member = |name: &Option<String>| name.as_deref().and_then(|name| observed.member(name));
    let (from, to) = (member(&transition.from), member(&transition.to));
    // Nobody hands the peak over to himself.
    Heading { id: transition.id, from: from.filter(|from| Some(*from) != to), to, is_return }
}

/// Whether a transition leads back to where another one came from that did not get to its end: what was there before is
/// known to be good, so that it has no steps, and its units are those of the other one in the opposite order.
///
/// One that leads on again after such a return is none: its goal was never reached.
fn is_return(status: &TimeShareGroupStatus, transition: &Transition) -> bool {
    match transition.cause {
        TransitionCause::Rollback => true,
        TransitionCause::Window | TransitionCause::Default | TransitionCause::Override => {
            let former = status.last_transitions.iter().find(|last| next_id(last.id) == transition.id);
            let is_opposite = former.is_some_and(|former| {
                former.result == TransitionResult::Superseded && former.to == transition.from
            });
            is_opposite && transition.to != transition.from && transition.to == status.active_member
        }
    }
}

/// How a transition comes to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Opening {
    /// None is under way.
    Open,
    /// Another one is, and ends by it.
    Supersede,
}

/// Whether somebody else is to have the peak than the present transition leads to. That a rollback is under way, nobody
/// takes back: what is asked for is looked at when it has ended.
pub fn opens(observed: &Observed, course: &Course, desired: &Desired) -> Option<Opening> {
    let Some(transition) = &observed.group.status.transition else { return Some(Opening::Open) };
    let is_other = transition.to.as_deref() != desired.member.as_deref();
    match course {
        Course::Fresh => Some(Opening::Open),
        Course::Open(_) => match transition.cause {
            TransitionCause::Rollback => None,
            TransitionCause::Window | TransitionCause::Default | TransitionCause::Override => {
                is_other.then_some(Opening::Supersede)
            }
        },
        Course::Ended(_) => is_other.then_some(Opening::Open),
    }
}

/// The transition that opens.
pub fn next(observed: &Observed, opening: Opening, desired: &Desired, now: Timestamp) -> Transition {
    let status = &observed.group.status;
    let to = desired.member.as_deref();
    let from = from(status, opening, to);
    let id = status.transition.as_ref().map_or(1, |last| next_id(last.id));
    transition(id, from, to, cause(desired), now)
}

/// Who gives the peak up to `to`, when a transition opens so. Who has it already is not among them, and before the first
/// transition nobody has.
pub fn from<'a>(status: &'a TimeShareGroupStatus, opening: Opening, to: Option<&str>) -> Option<&'a str> {
    let last = status.transition.as_ref()?;
    let active = status.active_member.as_deref();
    let from = match opening {
        Opening::Open => active,
        // Back to where it came from: who has gained until now gives it up again.
        Opening::Supersede if last.from.as_deref() == to => last.to.as_deref(),
        Opening::Supersede => active,
    };
    from.filter(|from| Some(*from) != to)
}

/// A transition in its first step.
pub fn transition(
    id: u32,
    from: Option<&str>,
    to: Option<&str>,
    cause: TransitionCause,
    now: Timestamp,
) -> Transition {
    Transition {
        id,
        from: from.map(str::to_owned),
        to: to.map(str::to_owned),
        cause,
        start_time: whole_seconds(now),
        completion_time: None,
        step: 1,
        hold_until_time: None,
        units: UnitCounts::default(),
        nudges: 0,
    }
}

/// The number of the transition after this one.
pub fn next_id(id: u32) -> u32 {
    if id >= MAX_TRANSITION_ID { 1 } else { id.saturating_add(1) }
}

/// What is kept of a transition that ends now.
pub fn record(
    transition: &Transition,
    units: &UnitCounts,
    nudges: u32,
    result: TransitionResult,
    now: Timestamp,
) -> LastTransition {
    let seconds = now.duration_since(transition.start_time.0).as_secs().max(0);
    LastTransition {
        id: transition.id,
        to: transition.to.clone(),
        cause: transition.cause,
        completion_time: whole_seconds(now),
        duration_seconds: u32::try_from(seconds)
            .map_or(MAX_DURATION_SECONDS, |seconds| seconds.min(MAX_DURATION_SECONDS)),
        units: units.total,
        skipped: units.skipped,
        nudges,
        result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{at, group, member, observed_of, switching};
    use crate::observed::MemberIndex;
    use serde_json::{Value, json};
    use std::sync::Arc;

    const PAY: Option<MemberIndex> = Some(MemberIndex(0));
    const PROMO: Option<MemberIndex> = Some(MemberIndex(1));

    fn of(status: Value) -> Observed {
        let members = [member("pay"), member("promo"), member("games")];
        observed_of(group(json!({"spec": {"members": members}, "status": status})), &[])
    }

    fn ended(id: u32, from: Option<&str>, to: Option<&str>) -> Value {
        let mut status = switching(id, from, to);
        status["activeMember"] = json!(to);
        status["transition"]["completionTime"] = json!(at(60).to_string());
        status
    }

    fn superseded(mut status: Value, id: u32, to: Option<&str>) -> Value {
        status["lastTransitions"] = json!([{
            "id": id, "to": to, "cause": "Default", "completionTime": at(0).to_string(), "result": "Superseded",
        }]);
        status
    }

    fn desired(member: Option<&str>) -> Desired {
        Desired {
            member: member.map(Arc::from),
            cause: Cause::Window,
            window: None,
            window_start: None,
            since: None,
            until: None,
            next: None,
        }
    }

    #[test]
    fn the_status_alone_says_where_a_group_is() {
        assert_eq!(course(&of(json!({}))), Course::Fresh);
        let heading = Heading { id: 7, from: PROMO, to: PAY, is_return: false };
        assert_eq!(course(&of(switching(7, Some("promo"), Some("pay")))), Course::Open(heading));
        assert_eq!(course(&of(ended(7, Some("promo"), Some("pay")))), Course::Ended(heading));
    }

    #[test]
    fn a_member_that_the_spec_has_no_more_is_nobody() {
        let Course::Open(heading) = course(&of(switching(7, Some("gone"), Some("pay")))) else { panic!() };
        assert_eq!((heading.from, heading.to), (None, PAY));
        let Course::Open(same) = course(&of(switching(7, Some("pay"), Some("pay")))) else { panic!() };
        assert_eq!((same.from, same.to), (None, PAY));
    }

    #[test]
    fn what_leads_back_from_a_superseded_transition_is_a_return_and_stays_one_when_it_has_ended() {
        let is_return = |status: Value| course(&of(status)).heading().unwrap().is_return;
        let mut back = superseded(switching(8, Some("pay"), Some("promo")), 7, Some("pay"));
        assert!(!is_return(back.clone()), "promo did not have the peak before");
        back["activeMember"] = json!("promo");
        assert!(is_return(back.clone()));
        back["transition"]["completionTime"] = json!(at(9).to_string());
        back["lastTransitions"] = json!([
            {"id": 8, "to": "promo", "cause": "Default", "completionTime": at(9).to_string(), "result": "Succeeded"},
            back["lastTransitions"][0],
        ]);
        assert!(is_return(back));
        let on = superseded(switching(8, Some("promo"), Some("games")), 7, Some("pay"));
        assert!(!is_return(on), "it leads to a third one");
        let old = superseded(switching(9, Some("pay"), Some("promo")), 7, Some("pay"));
        assert!(!is_return(old), "another one was between");
        let mut rollback = switching(8, Some("pay"), Some("promo"));
        rollback["transition"]["cause"] = json!("Rollback");
        assert!(is_return(rollback));
    }

    #[test]
    fn first_adoption_of_nobody_that_is_superseded_is_no_return() {
        let mut first = superseded(switching(2, None, Some("pay")), 1, None);
        first["activeMember"] = Value::Null;
        assert!(!course(&of(first)).heading().unwrap().is_return);
    }

    #[test]
    fn a_transition_opens_when_somebody_else_is_to_have_the_peak() {
        let rollback = {
            let mut status = switching(7, Some("promo"), Some("pay"));
            status["transition"]["cause"] = json!("Rollback");
            status
        };
        let pay_open = switching(7, Some("promo"), Some("pay"));
        let pay_ended = ended(7, Some("promo"), Some("pay"));
        for (status, wished, expected) in [
            (json!({}), None, Some(Opening::Open)),
            (json!({}), Some("pay"), Some(Opening::Open)),
            (pay_open.clone(), Some("pay"), None),
            (pay_open.clone(), Some("promo"), Some(Opening::Supersede)),
            (pay_open, None, Some(Opening::Supersede)),
            (rollback, Some("promo"), None),
            (pay_ended.clone(), Some("pay"), None),
            (pay_ended.clone(), Some("promo"), Some(Opening::Open)),
            (pay_ended, None, Some(Opening::Open)),
        ] {
            let observed = of(status.clone());
            let found = opens(&observed, &course(&observed), &desired(wished));
            assert_eq!(found, expected, "{status} {wished:?}");
        }
    }

    #[test]
    fn who_gives_the_peak_up_follows_from_who_has_it_and_who_is_gaining_it() {
        let active = |mut status: Value, active: Option<&str>| {
            status["activeMember"] = json!(active);
            status
        };
        let open = switching(7, Some("promo"), Some("pay"));
        let back = active(switching(8, Some("pay"), Some("promo")), Some("promo"));
        for (status, opening, to, expected) in [
            (json!({}), Opening::Open, Some("pay"), None),
            (ended(7, None, Some("pay")), Opening::Open, Some("promo"), Some("pay")),
            (ended(7, Some("pay"), None), Opening::Open, Some("promo"), None),
            (open.clone(), Opening::Supersede, Some("promo"), Some("pay")),
            (open.clone(), Opening::Supersede, Some("games"), Some("promo")),
            (open, Opening::Supersede, None, Some("promo")),
            // A return that is taken back, or turned elsewhere: it is still promo who has most.
            (back.clone(), Opening::Supersede, Some("pay"), Some("promo")),
            (back, Opening::Supersede, Some("games"), Some("promo")),
        ] {
            let observed = of(status.clone());
            assert_eq!(from(&observed.group.status, opening, to), expected, "{status} {to:?}");
        }
    }

    #[test]
    fn a_transition_begins_in_whole_seconds_with_the_number_after_the_last() {
        let observed = of(ended(7, Some("promo"), Some("pay")));
        let now = at(100) + jiff::SignedDuration::from_millis(700);
        let next = next(&observed, Opening::Open, &desired(Some("promo")), now);
        assert_eq!((next.id, next.step, next.cause), (8, 1, TransitionCause::Window));
        assert_eq!((next.start_time.0, next.completion_time.is_none()), (at(100), true));
        assert_eq!((next.from.as_deref(), next.to.as_deref()), (Some("pay"), Some("promo")));
        assert_eq!([next_id(1), next_id(MAX_TRANSITION_ID)], [2, 1]);
    }

    #[test]
    fn what_is_kept_of_a_transition_is_bounded() {
        let open = transition(7, None, Some("pay"), TransitionCause::Window, at(0));
        let units = UnitCounts { total: 10, skipped: 2, done: 8, ..UnitCounts::default() };
        let kept = |now| record(&open, &units, 3, TransitionResult::Succeeded, now);
        let LastTransition { id, duration_seconds, units, skipped, nudges, .. } = kept(at(138));
        assert_eq!((id, duration_seconds, units, skipped, nudges), (7, 138, 10, 2, 3));
        assert_eq!(kept(at(-5)).duration_seconds, 0, "the clock was put back");
        assert_eq!(kept(Timestamp::MAX).duration_seconds, MAX_DURATION_SECONDS);
    }
}
