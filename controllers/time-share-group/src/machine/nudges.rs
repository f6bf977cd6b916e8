//! Nudges: a resize that a kubelet has put off is withdrawn and asked for again.
//!
//! A kubelet looks again at resizes that it has put off when a pod's resources change in spec, when another pod's status
//! shrinks, when a pod ends, and every three minutes. It may miss that there is room
//! (<https://github.com/kubernetes/kubernetes/issues/140646>). That something else of a pod changes does not count.

use super::evidence::{Actor, Resize};
use super::flow::Play;
use super::look::Look;
use super::waiting::Waiting;
use super::{Court, writes};
use crate::observed::{Attempt, Evidence};
use crate::sizes::{Level, Size};
use crate::union::{claimed_room, demand_at};
use jiff::Timestamp;
use springtide_plumbing::clock::after;
use springtide_plumbing::plan::Step;

/// Most nudges of one pod in a switch.
pub(super) const NUDGES_MAX: u32 = 3;

/// When a pod may be nudged whose resize was put off then; `None` when it has had all its nudges.
pub(super) fn due_at(actor: &Actor<'_>, since: Timestamp, court: &Court<'_>) -> Option<Timestamp> {
    let nudges = actor.evidence().nudges;
    let last = nudges.last.map_or(since, |last| last.max(since));
    (nudges.count < NUDGES_MAX).then(|| after(last, court.rules.nudge_after))
}

/// Whether a pod was nudged so short a time ago that no other one on its node is.
pub(super) fn is_recent(evidence: &Evidence, court: &Court<'_>) -> bool {
    evidence.nudges.last.is_some_and(|last| after(last, court.rules.nudge_after) > court.now)
}

/// The nudge of a pod of a unit that is to grow, if one is due: its node has room for it by all that others hold, none that
/// shrinks for it is still on its way, and nobody else on its node was nudged a moment ago.
pub(super) fn nudge(play: &Play<'_>, look: &Look, waiting: &mut Waiting<'_>) -> Option<Step> {
    if look.deferred == 0 || look.shrinking > 0 || waiting.is_nudged(play.node) {
        return None;
    }
    let step = play.actors(play.grow).find_map(|actor| nudged(&actor, play))?;
    waiting.nudged(play.node);
    Some(step)
}

fn nudged(actor: &Actor<'_>, play: &Play<'_>) -> Option<Step> {
    let court = play.court;
    let size = actor.size(Level::Peak);
    let since = match actor.resize(&size) {
        Resize::Deferred(since) if size.is_asked_by(actor.pod()) => since,
        Resize::Deferred(_)
        | Resize::InForce
        | Resize::UnderWay(_)
        | Resize::Infeasible(_)
        | Resize::Failing(_) => return None,
    };
    let is_due = due_at(actor, since, court).is_some_and(|at| at <= court.now);
    let is_hindered = actor.evidence().is_upgrading || actor.refused(Attempt::Resize(Level::Peak)).is_some();
    if !is_due || is_hindered {
        return None;
    }
    let admitted = writes::allocated(actor.pod(), &size);
    if admitted == Size::default() || admitted.is_asked_by(actor.pod()) {
        return None;
    }
    let fits = demand_at(actor.pod(), &size).fits(claimed_room(court.observed, play.node, actor.index));
    fits.then(|| {
        let withdrawn = writes::resize(actor.pod(), &admitted, play.class());
        let again = writes::resize_unpinned(actor.pod(), &size, play.class());
        Step::Chain(vec![withdrawn, again])
    })
}
