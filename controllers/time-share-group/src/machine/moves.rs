//! What is written of a unit for what is to be done with it.

use super::evidence::Actor;
use super::flow::{Act, Play, Way};
use super::look::Look;
use super::waiting::Waiting;
use super::{Court, Leave, MoveRank, Moves, nudges, writes};
use crate::observed::{Attempt, PodIndex};
use crate::preflight::Answered;
use crate::sizes::{Demand, Level};
use crate::traffic::{strange, turn_on};
use crate::union::Room;
use springtide_crds::time_share_group::Order;
use springtide_plumbing::plan::{Step, Write, WriteClass};
use springtide_plumbing::traffic::Lever;

/// Most writes of one chain, where it has a choice: it is sent as a whole, and the budget has to have room for all of it.
const CHAIN_MAX: usize = 32;

impl<'a> Play<'a> {
    /// The writes of an act, traffic on before all others.
    pub(super) fn moves(
        &self,
        look: &Look,
        act: Act,
        may: bool,
        leave: Leave,
        room: &mut Room,
        waiting: &mut Waiting<'_>,
    ) -> Option<Moves> {
        let mut steps = self.lights(act == Act::Restore || !may);
        if act == Act::Mark && leave != Leave::Rest {
            steps.extend(self.mark(look));
        }
        if !steps.is_empty() {
            return Some(Moves::of(MoveRank::Protective, steps));
        }
        if act == Act::Dim && leave != Leave::Rest {
            return Moves::some(MoveRank::Drain, self.dims());
        }
        if !may {
            return None;
        }
        self.keep_room(look, act, room);
        let resizes = match self.way {
            Way::Forth | Way::Upkeep => MoveRank::Chain,
            Way::Back => MoveRank::Protective,
        };
        match act {
            Act::None | Act::Restore | Act::Dim | Act::Mark => {
                let nudge = nudges::nudge(self, look, waiting)?;
                Some(Moves { nudged: 1, ..Moves::of(MoveRank::Nudge, vec![nudge]) })
            }
            Act::Drain => Moves::some(MoveRank::Drain, self.drains()),
            Act::Chain => {
                let writes = match self.court.rules.order {
                    Order::Pipelined | Order::ShrinkFirst => [self.shrinks(), self.grows()].concat(),
                    Order::ClaimFirst => [self.grows(), self.shrinks()].concat(),
                };
                room.take(self.node, surplus(look.needed - look.freed));
                Moves::some(resizes, chain(writes))
            }
            Act::Shrink => {
                let writes = self.shrink_for_others(look, room, waiting);
                Moves::some(resizes, chain(writes))
            }
            Act::Grow => {
                if let Some(pod) = self.grow.first() {
                    waiting.taken(*pod);
                }
                if self.way == Way::Upkeep {
                    return Moves::some(resizes, self.grow_each(room));
                }
                room.take(self.node, surplus(look.needed));
                Moves::some(resizes, chain(self.grows()))
            }
        }
    }

    /// Keeps the room that the unit will take once its pods have left traffic, or have shrunk.
    fn keep_room(&self, look: &Look, act: Act, room: &mut Room) {
        let waits = match act {
            Act::None => look.begun || self.way == Way::Back,
            Act::Drain => true,
            Act::Chain | Act::Shrink | Act::Grow | Act::Restore | Act::Dim | Act::Mark => false,
        };
        let needed = surplus(look.needed - look.freed);
        if waits && look.ungrown > 0 && look.refused.is_none() && needed.fits(room.left(self.node)) {
            room.take(self.node, needed);
        }
    }

    /// Shrinks its own, and grows others with that which wait for room on the node; those of a unit with pods that grow
    /// themselves keep it.
    fn shrink_for_others(&self, look: &Look, room: &mut Room, waiting: &mut Waiting<'_>) -> Vec<Write> {
        let mut own = self.shrinks();
        if look.ungrown > 0 {
            room.take(self.node, surplus(look.needed - look.freed));
            return own;
        }
        let mut others: Vec<Write> = Vec::new();
        let is_apart = self.court.rules.order == Order::ShrinkFirst;
        let mut free = room.left(self.node) + look.freed;
        while !is_apart && own.len() + others.len() < CHAIN_MAX {
            let Some((writes, needed)) = waiting.take(self.node, free, self.court) else { break };
            others.extend(writes);
            free -= needed;
        }
        if !others.is_empty() {
            room.take(self.node, surplus(room.left(self.node) - free));
        }
        match self.court.rules.order {
            Order::Pipelined | Order::ShrinkFirst => {
                own.extend(others);
                own
            }
            Order::ClaimFirst => {
                others.extend(own);
                others
            }
        }
    }

    /// The resizes of those that are to grow and do not ask for it.
    pub(super) fn grows(&self) -> Vec<Write> {
        self.resizes(self.grow, Level::Peak)
    }

    fn shrinks(&self) -> Vec<Write> {
        self.resizes(self.shrink, Level::Valley)
    }

    fn resizes(&self, pods: &'a [PodIndex], level: Level) -> Vec<Write> {
        let resize = |actor: Actor<'_>| {
            let size = actor.size(level);
            (!size.is_asked_by(actor.pod())).then(|| writes::resize(actor.pod(), &size, self.class()))
        };
        self.actors(pods).filter_map(resize).collect()
    }

    /// Grows as many as fit, each for itself.
    fn grow_each(&self, room: &mut Room) -> Vec<Step> {
        let mut steps = Vec::new();
        for actor in self.actors(self.grow) {
            let size = actor.size(Level::Peak);
            let needed = actor.difference(&size);
            let is_hindered = actor.evidence().is_upgrading
                || actor.is_ineligible(&size)
                || actor.refused(Attempt::Resize(Level::Peak)).is_some();
            if size.is_asked_by(actor.pod()) || is_hindered || !needed.fits(room.left(self.node)) {
                continue;
            }
            room.take(self.node, surplus(needed));
            steps.push(writes::resize(actor.pod(), &size, self.class()).into());
        }
        steps
    }

    /// Turns on who should serve at the size that it has. `restores`: those too that were to shrink, and do not.
    fn lights(&self, restores: bool) -> Vec<Step> {
        let mut steps = Vec::new();
        for actor in self.actors(self.grow) {
            steps.extend(light(&actor, actor.due_on_stage()));
        }
        for actor in self.actors(self.shrink) {
            let is_to_shrink = || !actor.size(Level::Valley).is_asked_by(actor.pod());
            let on_stage = || actor.due_on_stage().filter(|_| restores && is_to_shrink());
            steps.extend(light(&actor, actor.due_off_stage().or_else(on_stage)));
        }
        steps
    }

    /// Turns those off that have shrunk and serve.
    fn dims(&self) -> Vec<Step> {
        let off = |actor: Actor<'_>| self.off(&actor, actor.lever_to_dim()?);
        self.actors(self.shrink).filter_map(off).collect()
    }

    /// Turns those off that are to shrink and serve.
    fn drains(&self) -> Vec<Step> {
        let off = |actor: Actor<'_>| {
            let is_to_shrink = !actor.size(Level::Valley).is_asked_by(actor.pod());
            self.off(&actor, actor.lever_to_drain().filter(|_| is_to_shrink)?)
        };
        self.actors(self.shrink).filter_map(off).collect()
    }

    fn off(&self, actor: &Actor<'_>, lever: Lever) -> Option<Step> {
        dark(actor, lever, self.court, self.class())
    }

    fn mark(&self, look: &Look) -> Option<Step> {
        let Court { heading, now, .. } = *self.court;
        let trouble = self.trouble(look)?;
        // Whichever is in trouble: it is looked for on all of them.
        let lead = self.grow.first().or(self.shrink.first())?;
        let actor = Actor::of(self.court, *lead)?;
        Some(writes::mark_write(actor.pod(), &trouble.told(self.court), heading.id, now).into())
    }

    /// Of which resizes the API server is to be asked: of those that grow what it has not been asked, and of all of them what
    /// it has refused a while ago.
    pub(super) fn questions(&self) -> Vec<(PodIndex, Level)> {
        let is_open = |actor: &Actor<'_>, level: Level| {
            !actor.size(level).is_asked_by(actor.pod())
                && match actor.answered(level) {
                    Answered::Unasked => level == Level::Peak,
                    Answered::Refused { again, .. } => again <= self.court.now,
                    Answered::Accepted => false,
                }
        };
        let sides = [(self.grow, Level::Peak), (self.shrink, Level::Valley)];
        let of_side = |(pods, level): (&'a [PodIndex], Level)| {
            let open = self.actors(pods).filter(move |actor| is_open(actor, level));
            open.map(move |actor| (actor.index, level))
        };
        sides.into_iter().flat_map(of_side).collect()
    }
}

/// Turns a pod on by a lever, and by those that are none of its member's: these let traffic through at any size.
pub(super) fn light(actor: &Actor<'_>, lever: Option<Lever>) -> Vec<Step> {
    if actor.refused(Attempt::Traffic).is_some() {
        return Vec::new();
    }
    let levers = strange(actor.spec, actor.pod()).chain(lever);
    levers.map(|lever| turn_on(actor.pod(), lever, actor.now()).into()).collect()
}

/// Turns a pod off for this switch, if that was not refused a moment ago.
pub(super) fn dark(actor: &Actor<'_>, lever: Lever, court: &Court<'_>, class: WriteClass) -> Option<Step> {
    if actor.refused(Attempt::Traffic).is_some() {
        return None;
    }
    let write = writes::traffic(actor.pod(), lever, false, court.heading.id, court.now);
    Some(Write { class, ..write }.into())
}

/// As much of a difference as is more.
fn surplus(difference: Demand) -> Demand {
    difference.max(Demand::ZERO)
}

/// Writes as one chain.
fn chain(writes: Vec<Write>) -> Vec<Step> {
    match <[Write; 1]>::try_from(writes) {
        Ok([write]) => vec![write.into()],
        Err(writes) if writes.is_empty() => Vec::new(),
        Err(writes) => vec![Step::Chain(writes)],
    }
}

impl Moves {
    /// Steps of one kind.
    pub(super) fn of(rank: MoveRank, steps: Vec<Step>) -> Self {
        Self { steps, rank, asks: Vec::new(), nudged: 0 }
    }

    /// The same, if there are any.
    pub(super) fn some(rank: MoveRank, steps: Vec<Step>) -> Option<Self> {
        (!steps.is_empty()).then(|| Self::of(rank, steps))
    }
}
