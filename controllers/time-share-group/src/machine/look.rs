//! What the pods of a unit show together, in one pass over them.

use super::evidence::{Actor, Out, Readiness, Resize};
use super::flow::{Play, Way};
use super::nudges;
use super::stuck::{Trouble, UNREADY_GRACE};
use super::{Side, Stand, UnitState};
use crate::observed::{Attempt, PodIndex, RefusedBy};
use crate::preflight::Answered;
use crate::sizes::{Demand, Level};
use jiff::Timestamp;
use springtide_crds::time_share_group::StuckReason;
use springtide_plumbing::clock::after;

/// What the pods of a unit show, those that are to grow and those that are to shrink.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// Whether this switch has changed something of them.
    pub(super) begun: bool,
    /// Those that are to grow, and whose spec does not ask for it.
    pub(super) ungrown: usize,
    /// Those that are to shrink, and whose spec does not ask for it.
    pub(super) unshrunk: usize,
    /// By how much more the former will ask for.
    pub(super) needed: Demand,
    /// By how much less the latter will.
    pub(super) freed: Demand,
    /// Those whose spec asks to grow, and whose kubelet has not put it in force.
    pub(super) growing: usize,
    /// Those whose spec asks to shrink, and whose kubelet has not put it in force.
    pub(super) shrinking: usize,
    /// Pods whose kubelet has no room yet.
    pub(super) deferred: u32,
    /// Pods whose kubelet says that there never will be.
    pub(super) infeasible: u32,
    /// Those that have their size, and are not ready for long enough.
    pub(super) cold: usize,
    /// Those that have their size, and should serve for that.
    pub(super) dark: usize,
    /// Those that have their size, and should not serve for that.
    pub(super) lit: usize,
    /// Those that are to shrink, and serve.
    pub(super) serving: usize,
    /// Those that are to shrink, and leave traffic.
    pub(super) leaving: usize,
    /// Whether one that is to shrink is turned off, by whomever.
    pub(super) is_drain_begun: bool,
    /// Whether the API server has yet to say whether it would let one grow.
    pub(super) is_unasked: bool,
    /// What it said, if it would not let one of them be resized.
    pub(super) denied: Option<(RefusedBy, Trouble)>,
    /// What it has refused, while that is not tried again.
    pub(super) refused: Option<(RefusedBy, Trouble)>,
    /// One that is to be resized, and that an InPlaceUpgrade is at work on.
    pub(super) upgrading: Option<PodIndex>,
    /// What is wrong.
    pub(super) trouble: Option<Trouble>,
    /// When time alone may change something.
    pub(super) wake: Option<Timestamp>,
    /// Of the resizes that count, when the last one was begun, and a pod of each kind.
    slowest: Option<(Timestamp, PodIndex)>,
    first_deferred: Option<PodIndex>,
    first_failing: Option<PodIndex>,
}

impl Look {
    /// Looks at all pods of a way.
    pub(super) fn of(play: &Play<'_>) -> Self {
        let mut look = Self::default();
        for actor in play.actors(play.shrink) {
            look.shrinker(&actor, play);
        }
        for actor in play.actors(play.grow) {
            look.grower(&actor, play);
        }
        look.judge_times(play);
        look
    }

    /// The unit's place in numbers, in this state.
    pub(super) fn stand(&self, state: UnitState, side: Side, begun: bool, is_open: bool) -> Stand {
        let in_flight = state.is_in_flight(begun, side, is_open);
        Stand {
            state,
            begun,
            in_flight,
            deferred: self.deferred,
            infeasible: self.infeasible,
            wake: self.wake,
        }
    }

    /// Looks again at this time, if it is still to come.
    pub(super) fn wake_at(&mut self, at: Timestamp, play: &Play<'_>) {
        if at > play.court.now {
            self.wake = Some(self.wake.map_or(at, |earlier| earlier.min(at)));
        }
    }

    fn shrinker(&mut self, actor: &Actor<'_>, play: &Play<'_>) {
        self.begun |= play.way == Way::Forth && actor.is_off_by_this_run();
        let size = actor.size(Level::Valley);
        if size.is_asked_by(actor.pod()) {
            match actor.resize(&size) {
                Resize::InForce => self.small(actor, play),
                open @ (Resize::UnderWay(_)
                | Resize::Deferred(_)
                | Resize::Infeasible(_)
                | Resize::Failing(_)) => {
                    self.shrinking += 1;
                    self.open(actor, open, true, play);
                }
            }
            return;
        }
        self.unshrunk += 1;
        self.freed -= actor.difference(&size);
        self.is_drain_begun |= actor.is_off();
        self.tried(actor, Level::Valley, play);
        match actor.out() {
            Out::Serving => {
                self.serving += 1;
                self.turned(actor, play);
            }
            Out::Leaving(until) => {
                self.leaving += 1;
                self.wake_at(until, play);
            }
            Out::Late(since) if play.way == Way::Forth => {
                self.leaving += 1;
                self.trouble(StuckReason::DrainTimedOut, actor, since);
            }
            // What goes back goes on without the proof: else nobody would serve.
            Out::Late(_) | Out::Gone => {}
        }
    }

    /// One that has shrunk.
    fn small(&mut self, actor: &Actor<'_>, play: &Play<'_>) {
        match actor.readiness() {
            Readiness::Unready { since, is_ours } if play.holds_to_times() && is_ours => {
                self.unready(actor, since, play);
            }
            Readiness::Ready | Readiness::Before | Readiness::Unready { .. } => {}
        }
        self.turnable(actor, Level::Valley, play);
    }

    fn grower(&mut self, actor: &Actor<'_>, play: &Play<'_>) {
        self.begun |= play.way == Way::Forth && actor.is_above_valley();
        let size = actor.size(Level::Peak);
        if size.is_asked_by(actor.pod()) {
            match actor.resize(&size) {
                Resize::InForce => self.large(actor, play),
                open @ (Resize::UnderWay(_)
                | Resize::Deferred(_)
                | Resize::Infeasible(_)
                | Resize::Failing(_)) => {
                    self.growing += 1;
                    // While others have not shrunk for it, it can but wait.
                    self.open(actor, open, self.unshrunk == 0, play);
                }
            }
            return;
        }
        self.ungrown += 1;
        self.needed += actor.difference(&size);
        self.tried(actor, Level::Peak, play);
    }

    /// One that has grown.
    fn large(&mut self, actor: &Actor<'_>, play: &Play<'_>) {
        match actor.readiness() {
            Readiness::Ready => {
                let at = actor.warm_at();
                if at > play.court.now {
                    self.cold += 1;
                    self.wake_at(at, play);
                } else {
                    self.turnable(actor, Level::Peak, play);
                }
            }
            Readiness::Before => self.turnable(actor, Level::Peak, play),
            Readiness::Unready { since, is_ours } if play.holds_to_times() && is_ours => {
                self.unready(actor, since, play);
            }
            // One that starts is waited for, but not for ever; it serves when it is ready.
            Readiness::Unready { since, .. } => {
                let until = after(since, play.court.rules.unit_deadline);
                self.cold += usize::from(until > play.court.now);
                self.wake_at(until, play);
            }
        }
    }

    fn unready(&mut self, actor: &Actor<'_>, since: Timestamp, play: &Play<'_>) {
        let until = after(since, UNREADY_GRACE);
        self.cold += 1;
        if until <= play.court.now {
            self.trouble(StuckReason::NotReady, actor, until);
        }
        self.wake_at(until, play);
    }

    /// One whose traffic is to be as is due at its size.
    fn turnable(&mut self, actor: &Actor<'_>, level: Level, play: &Play<'_>) {
        match actor.due(level) {
            Some((_, true)) => self.dark += 1,
            Some((_, false)) => self.lit += 1,
            None => return,
        }
        self.turned(actor, play);
    }

    /// One whose traffic is to be turned: whether that was refused.
    fn turned(&mut self, actor: &Actor<'_>, play: &Play<'_>) {
        self.refusal(actor, Attempt::Traffic, play);
    }

    fn refusal(&mut self, actor: &Actor<'_>, what: Attempt, play: &Play<'_>) {
        if let Some(refused) = actor.refused(what) {
            self.refused.get_or_insert((refused.why, denial(actor, refused.at)));
            self.wake_at(refused.retry_at, play);
        }
    }

    /// One that is to be resized: what speaks against it.
    fn tried(&mut self, actor: &Actor<'_>, level: Level, play: &Play<'_>) {
        if actor.evidence().is_upgrading {
            self.upgrading.get_or_insert(actor.index);
        }
        self.refusal(actor, Attempt::Resize(level), play);
        if actor.is_ineligible(&actor.size(level)) || actor.never_leaves() {
            self.denied.get_or_insert((RefusedBy::Ineligible, denial(actor, play.court.now)));
        }
        if play.way != Way::Forth {
            return;
        }
        match actor.answered(level) {
            Answered::Accepted => {}
            Answered::Unasked => self.is_unasked |= level == Level::Peak,
            Answered::Refused { by, again } => {
                let answer = actor.evidence().asked.of(level);
                let since = answer.map_or(play.court.now, |answer| answer.at);
                self.denied.get_or_insert((by, denial(actor, since)));
                self.wake_at(again, play);
            }
        }
    }

    /// A resize that is not in force yet.
    fn open(&mut self, actor: &Actor<'_>, resize: Resize, counts: bool, play: &Play<'_>) {
        let since = match resize {
            Resize::InForce => return,
            Resize::UnderWay(since) => since,
            Resize::Failing(since) => {
                self.first_failing.get_or_insert(actor.index);
                since
            }
            Resize::Infeasible(since) => {
                self.infeasible += 1;
                self.trouble(StuckReason::Infeasible, actor, since);
                return;
            }
            Resize::Deferred(since) => {
                self.deferred += 1;
                if let Some(at) = nudges::due_at(actor, since, play.court) {
                    self.wake_at(at, play);
                }
                if !counts {
                    return;
                }
                self.first_deferred.get_or_insert(actor.index);
                since
            }
        };
        if self.slowest.is_none_or(|(latest, _)| since > latest) {
            self.slowest = Some((since, actor.index));
        }
    }

    /// Whether the resizes have taken too long, from the one that was begun last.
    fn judge_times(&mut self, play: &Play<'_>) {
        let Some((since, pod)) = self.slowest else { return };
        let at = after(since, play.court.rules.unit_deadline);
        if at > play.court.now {
            self.wake_at(at, play);
            return;
        }
        let (reason, pod) = match (self.first_failing, self.first_deferred) {
            (Some(pod), _) => (StuckReason::ResizeFailed, pod),
            (None, Some(pod)) => (StuckReason::Deferred, pod),
            (None, None) => (StuckReason::DeadlineExceeded, pod),
        };
        self.keep(Trouble { reason, pod, since: at });
    }

    fn trouble(&mut self, reason: StuckReason, actor: &Actor<'_>, since: Timestamp) {
        self.keep(Trouble { reason, pod: actor.index, since });
    }

    /// Of several, the first in the order of the API's reasons.
    fn keep(&mut self, trouble: Trouble) {
        if self.trouble.is_none_or(|held| trouble.reason < held.reason) {
            self.trouble = Some(trouble);
        }
    }
}

fn denial(actor: &Actor<'_>, since: Timestamp) -> Trouble {
    Trouble { reason: StuckReason::AdmissionDenied, pod: actor.index, since }
}
