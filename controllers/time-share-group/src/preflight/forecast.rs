//! What of a switch nodes and quotas have room for, if its units are done one after the other.

use crate::observed::{Observed, PodIndex};
use crate::profiles::{change, limits_change};
use crate::sizes::{Demand, Level, Profile};
use crate::union::Room;
use crate::units::{Unit, UnitKind, Units};
use springtide_crds::time_share_group::{Order, PreflightFailure};
use springtide_plumbing::workloads::amounts::Pair;
use std::collections::HashMap;
use std::sync::Arc;

/// The room that is left by the units that were counted.
pub(super) struct Forecast<'a> {
    observed: &'a Observed,
    /// As much of the sizes as moves, by member.
    sizes: &'a [Profile],
    /// By node. What is on a node that is not known is not judged.
    left: HashMap<Arc<str>, Demand>,
    /// By namespace: the quotas that bound all pods. Whom one with scopes bounds the server alone knows.
    quotas: HashMap<Arc<str>, Vec<Free>>,
}

/// What is free of one quota; what it does not bound is not stated.
struct Free {
    requests: Pair,
    limits: Pair,
}

/// What pods ask for more, or less.
#[derive(Clone, Copy, Default)]
struct Moved {
    requests: Demand,
    limits: Demand,
}

impl<'a> Forecast<'a> {
    /// Before any unit. What shrinks for nobody makes room for whoever waits for it, whenever that is.
    pub(super) fn of(observed: &'a Observed, sizes: &'a [Profile], units: &Units) -> Self {
        let room = Room::of(observed);
        let left = observed.nodes.keys().map(|node| (Arc::clone(node), room.left(node))).collect();
        let mut quotas = HashMap::new();
        for member in &observed.members {
            let bounding = member.quotas.iter().filter(|quota| !quota.is_scoped);
            let free = bounding.map(|quota| Free {
                requests: Pair { cpu: quota.requests_cpu, memory: quota.requests_memory },
                limits: Pair { cpu: quota.limits_cpu, memory: quota.limits_memory },
            });
            quotas.entry(Arc::clone(&member.namespace)).or_insert_with(|| free.collect());
        }
        let mut forecast = Self { observed, sizes, left, quotas };
        for unit in &units.units {
            match unit.kind {
                UnitKind::ShrinkAlone => forecast.gives(&unit.node, &unit.from),
                UnitKind::Pair | UnitKind::GrowAlone => {}
            }
        }
        for stray in &units.strays {
            forecast.gives(&stray.node, &[stray.pod]);
        }
        forecast
    }

    /// Counts a unit, unless there is no room for it; then that is why it is not done.
    pub(super) fn take(&mut self, unit: &Unit) -> Option<PreflightFailure> {
        match unit.kind {
            UnitKind::ShrinkAlone => return None,
            UnitKind::Pair | UnitKind::GrowAlone => {}
        }
        let (grows, shrinks) = (self.moved(&unit.to, Level::Peak), self.moved(&unit.from, Level::Valley));
        let left = self.left.get(&unit.node).copied();
        if left.is_some_and(|left| !grows.requests.fits(left - shrinks.requests)) {
            return Some(PreflightFailure::NodeDoesNotFit);
        }
        let (to, from) = (self.namespace(&unit.to), self.namespace(&unit.from));
        let is_freed_before = match self.observed.group.spec.switch.order {
            Order::ShrinkFirst => to == from,
            Order::Pipelined | Order::ClaimFirst => false,
        };
        let before = if is_freed_before { shrinks } else { Moved::default() };
        let mut quotas = to.and_then(|to| self.quotas.get(to)).into_iter().flatten();
        if quotas.any(|free| !free.holds(grows, before)) {
            return Some(PreflightFailure::QuotaExceeded);
        }
        self.count(&unit.node, to, grows);
        self.count(&unit.node, from, shrinks);
        None
    }

    fn gives(&mut self, node: &Arc<str>, pods: &[PodIndex]) {
        let (namespace, moved) = (self.namespace(pods), self.moved(pods, Level::Valley));
        self.count(node, namespace, moved);
    }

    fn count(&mut self, node: &Arc<str>, namespace: Option<&Arc<str>>, moved: Moved) {
        if let Some(left) = self.left.get_mut(node) {
            *left -= moved.requests;
        }
        for free in namespace.and_then(|namespace| self.quotas.get_mut(namespace)).into_iter().flatten() {
            free.requests = less(free.requests, moved.requests);
            free.limits = less(free.limits, moved.limits);
        }
    }

    /// What pods, which are of one member, ask for more at a level.
    fn moved(&self, pods: &[PodIndex], level: Level) -> Moved {
        pods.iter().fold(Moved::default(), |sum, index| {
            let found = self.observed.pod(*index).zip(self.sizes.get(index.member.0));
            let Some((found, sizes)) = found else { return sum };
            let size = sizes.size(level);
            Moved {
                requests: sum.requests + change(&found.pod, size),
                limits: sum.limits + limits_change(&found.pod, size),
            }
        })
    }

    fn namespace(&self, pods: &[PodIndex]) -> Option<&'a Arc<str>> {
        let member = self.observed.members.get(pods.first()?.member.0)?;
        Some(&member.namespace)
    }
}

impl Free {
    /// Whether pods may ask for so much more after `before` was counted.
    fn holds(&self, grows: Moved, before: Moved) -> bool {
        let holds = |free: Pair, grows: Demand, before: Demand| {
            let left = less(free, before);
            let has = |left: Option<i64>, more: i64| more <= 0 || left.is_none_or(|left| more <= left);
            has(left.cpu, grows.cpu) && has(left.memory, grows.memory)
        };
        holds(self.requests, grows.requests, before.requests)
            && holds(self.limits, grows.limits, before.limits)
    }
}

fn less(free: Pair, asked: Demand) -> Pair {
    Pair {
        cpu: free.cpu.map(|free| free.saturating_sub(asked.cpu)),
        memory: free.memory.map(|free| free.saturating_sub(asked.memory)),
    }
}
