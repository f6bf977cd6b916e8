//! What is done next, of all that could be.
//!
//! What later passes rest on is written by a status of its own, before anything is done for it: that a transition opens,
//! takes the place of another one, is taken back, comes to its next step, or ends. Pods are moved only for what the stored
//! status says.

use super::situation::{Hold, Situation, is_active};
use super::tally::Tally;
use crate::guards::Guarding;
use crate::rollback;
use crate::steps::next_step;
use crate::transition::{Course, Opening, next, record};
use crate::units::Heading;
use jiff::Timestamp;
use springtide_crds::common::whole_seconds;
use springtide_crds::time_share_group::{
    COUNT_MAX, LAST_TRANSITIONS_MAX, LastTransition, Mode, OnBreach, OnStuck, TimeShareGroupStatus,
    Transition, TransitionResult,
};
use springtide_plumbing::clock::after;

/// What is done next.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Nothing: all is as it should be, but for what cannot be done now.
    Settled,
    /// A transition opens: the status says so first.
    Open(Transition),
    /// Another transition takes the place of the open one: the status says so first.
    Supersede {
        /// The new one.
        next: Transition,
        /// What is kept of the old one.
        kept: LastTransition,
    },
    /// The transition has gone wrong: the status says first that it is taken back.
    Fail {
        /// The one that takes it back.
        back: Transition,
        /// What is kept of it.
        kept: LastTransition,
    },
    /// The step is over, and this one is next: the status says so first.
    Advance(u32),
    /// The step is over, and is held until then: the status says so first.
    Hold(Timestamp),
    /// The transition has come to its end: the status says so. What is kept of it.
    Close(LastTransition),
    /// Units begin and go on. Without an open transition: new pods get what their members have.
    Drive,
    /// What has begun comes to rest, and nothing begins.
    Rest,
    /// No transition opens, though one is asked for; what the last one has left is kept up.
    Wait(WaitFor),
}

/// What a transition waits for that does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WaitFor {
    /// Another mode than Observe: nothing but the status is written.
    Mode,
    /// A schedule that can be followed; there never was a transition.
    Schedule,
    /// What was rolled back is asked for: another spec, or that something else is asked for.
    RolledBack,
    /// Answers to what was asked ahead.
    Preflight,
    /// Better answers than those that have come.
    PreflightFailed,
}

impl WaitFor {
    pub(super) fn hold(self) -> Option<Hold> {
        match self {
            Self::Preflight | Self::PreflightFailed => Some(Hold::Preflight),
            Self::Mode | Self::Schedule | Self::RolledBack => None,
        }
    }
}

/// Decides.
pub fn decide(situation: &Situation<'_>) -> Decision {
    let mode = situation.observed.group.spec.mode;
    if is_active(mode)
        && let Some(opened) = opened(situation)
    {
        return opened;
    }
    match &situation.course {
        Course::Fresh => fresh(situation, mode),
        Course::Open(heading) => in_transition(situation, heading, mode),
        Course::Ended(_) => kept_up(situation, mode),
    }
}

/// The transition that opens now, if one does.
fn opened(situation: &Situation<'_>) -> Option<Decision> {
    let (opening, desired) = (situation.opening?, situation.desired.as_ref()?);
    if situation.lost.is_some() {
        return None;
    }
    let next = next(situation.observed, opening, desired, situation.now);
    match (opening, situation.transition()) {
        (Opening::Supersede, Some(open)) => {
            let kept = kept(situation, open, TransitionResult::Superseded);
            Some(Decision::Supersede { next, kept })
        }
        (Opening::Open | Opening::Supersede, _) => {
            barrier(situation).is_none().then_some(Decision::Open(next))
        }
    }
}

/// What keeps a transition from opening.
fn barrier(situation: &Situation<'_>) -> Option<WaitFor> {
    if situation.is_barred {
        Some(WaitFor::RolledBack)
    } else if !situation.preflight.holds {
        None
    } else if situation.preflight.is_complete {
        Some(WaitFor::PreflightFailed)
    } else {
        Some(WaitFor::Preflight)
    }
}

/// There never was a transition, and none opens.
fn fresh(situation: &Situation<'_>, mode: Mode) -> Decision {
    match mode {
        Mode::Observe => Decision::Wait(WaitFor::Mode),
        Mode::Paused => Decision::Rest,
        Mode::Active => Decision::Wait(
            barrier(situation).filter(|_| situation.desired.is_some()).unwrap_or(WaitFor::Schedule),
        ),
    }
}

/// A transition is open.
fn in_transition(situation: &Situation<'_>, heading: &Heading, mode: Mode) -> Decision {
    match mode {
        Mode::Observe => return Decision::Wait(WaitFor::Mode),
        Mode::Paused => return Decision::Rest,
        Mode::Active => {}
    }
    // What leads back is not judged: there is nothing else to go back to.
    if !heading.is_return {
        if has_failed(situation)
            && let Some((back, kept)) =
                rollback::fail(situation.observed, &situation.tally.counts, situation.now)
        {
            return Decision::Fail { back, kept };
        }
        if situation.stop.is_some() {
            return Decision::Rest;
        }
    }
    match situation.transition() {
        Some(transition) if situation.is_step_over() => step_over(situation, transition),
        Some(_) | None => Decision::Drive,
    }
}

/// Whether the transition has gone wrong, and is taken back.
fn has_failed(situation: &Situation<'_>) -> bool {
    let spec = &situation.observed.group.spec;
    let is_breached = match (&situation.guarding, spec.guards.on_breach) {
        (Guarding::Breached(_), OnBreach::Rollback) => true,
        (Guarding::Breached(_), OnBreach::Pause) => false,
        (Guarding::Passing | Guarding::NoData(_) | Guarding::DonorBusy, _) => false,
    };
    let is_stuck = match spec.switch.on_stuck {
        OnStuck::Rollback => situation.tally.stuck_now > 0,
        OnStuck::Skip | OnStuck::Pause => false,
    };
    situation.lost.is_some() || is_breached || is_stuck
}

/// All that is reached has come to its end.
fn step_over(situation: &Situation<'_>, transition: &Transition) -> Decision {
    let reach = &situation.reach;
    if reach.is_last {
        return Decision::Close(kept(situation, transition, TransitionResult::Succeeded));
    }
    if let Some(hold) = reach.hold {
        match &transition.hold_until_time {
            None => return Decision::Hold(after(situation.now, hold)),
            Some(until) if until.0 > situation.now => return Decision::Drive,
            Some(_) => {}
        }
    }
    match &situation.guarding {
        // The next step would begin blind.
        Guarding::NoData(_) => Decision::Drive,
        Guarding::Passing | Guarding::DonorBusy | Guarding::Breached(_) => {
            let total = situation.tally.counts.total;
            Decision::Advance(next_step(&situation.observed.group.spec, reach, total))
        }
    }
}

/// The last transition has ended, and what it was for is kept up.
fn kept_up(situation: &Situation<'_>, mode: Mode) -> Decision {
    let is_asked = situation.opening.is_some();
    let is_settled = situation.is_at_rest();
    match mode {
        Mode::Active => match barrier(situation).filter(|_| is_asked) {
            Some(barrier) => Decision::Wait(barrier),
            None if is_settled => Decision::Settled,
            None => Decision::Drive,
        },
        Mode::Observe | Mode::Paused if is_settled && !is_asked => Decision::Settled,
        Mode::Observe => Decision::Wait(WaitFor::Mode),
        Mode::Paused => Decision::Rest,
    }
}

fn kept(situation: &Situation<'_>, transition: &Transition, result: TransitionResult) -> LastTransition {
    record(transition, &situation.tally.counts, situation.observed.nudges, result, situation.now)
}

impl Decision {
    /// Writes into a status what later plans rest on: the transition, who has the peak, and the transitions that ended.
    /// `tally` and `nudges` are of the transition that the status has.
    pub fn keep(&self, status: &mut TimeShareGroupStatus, tally: &Tally, nudges: u32) {
        if let Some(transition) = &mut status.transition {
            transition.units = tally.counts;
            transition.nudges = nudges.min(COUNT_MAX);
        }
        match self {
            Self::Open(next) => status.transition = Some(next.clone()),
            Self::Supersede { next, kept } => {
                keep_record(status, kept);
                status.transition = Some(next.clone());
            }
            Self::Fail { back, kept } => {
                keep_record(status, kept);
                status.transition = Some(back.clone());
            }
            Self::Close(kept) => {
                keep_record(status, kept);
                if let Some(transition) = &mut status.transition {
                    transition.completion_time = Some(kept.completion_time.clone());
                    transition.hold_until_time = None;
                    status.active_member.clone_from(&transition.to);
                }
            }
            Self::Advance(step) => {
                if let Some(transition) = &mut status.transition {
                    transition.step = *step;
                    transition.hold_until_time = None;
                }
            }
            Self::Hold(until) => {
                if let Some(transition) = &mut status.transition {
                    transition.hold_until_time = Some(whole_seconds(*until));
                }
            }
            Self::Settled | Self::Drive | Self::Rest | Self::Wait(_) => {}
        }
    }

    /// Whether it is a status, by a plan of its own.
    pub fn is_of_status(&self) -> bool {
        match self {
            Self::Open(_)
            | Self::Supersede { .. }
            | Self::Fail { .. }
            | Self::Advance(_)
            | Self::Hold(_)
            | Self::Close(_) => true,
            Self::Settled | Self::Drive | Self::Rest | Self::Wait(_) => false,
        }
    }
}

/// The last one first. Of those that are cut nobody reads anything.
fn keep_record(status: &mut TimeShareGroupStatus, kept: &LastTransition) {
    let last = &mut status.last_transitions;
    // The list is a map by the number, which begins anew at its end.
    last.retain(|other| other.id != kept.id);
    last.insert(0, kept.clone());
    last.truncate(LAST_TRANSITIONS_MAX);
}

#[cfg(test)]
mod tests;
