//! Whether memory moves with cpu. A pod that is to give some away may use it: then cpu moves alone.
//!
//! What a pod uses is known by pod metrics, seconds late. The kubelet looks once more before it takes memory away, and does
//! not where the pod has come to use it meanwhile; then both pods of a unit get the memory back that they had, and cpu
//! goes its way.

use crate::observed::{MemberPod, Observed, PodIndex, Usage};
use crate::profiles::change;
use crate::sizes::{Level, Profile, Scope, Size};
use crate::union::Room;
use crate::units::{Unit, Units};
use jiff::{SignedDuration, Timestamp};
use springtide_crds::time_share_group::MemoryPolicy;
use springtide_plumbing::workloads::amounts::Amounts;
use springtide_plumbing::workloads::pod::{ContainerView, PodView};
use std::collections::HashMap;
use std::sync::Arc;

/// What was measured longer ago says nothing.
pub const USAGE_AGE: SignedDuration = SignedDuration::from_secs(120);
/// A container that uses as much of what it would be left with, in percent, keeps what it has.
pub const SAFE_PERCENT: i64 = 90;
/// So long after a kubelet has not taken memory from a pod that is tried again at the earliest.
pub const MEMORY_RETRY: SignedDuration = SignedDuration::from_mins(10);

/// As much of a size as can ever move.
pub fn widest(policy: MemoryPolicy) -> Scope {
    match policy {
        MemoryPolicy::Keep => Scope::Cpu,
        MemoryPolicy::Move => Scope::Whole,
    }
}

/// What it would mean to take memory from a pod; the later ones are the worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Shrink {
    /// None is taken: it has no more, or has not got it yet.
    Nothing,
    /// It uses far less than what it is left with.
    Safe,
    /// It uses too much.
    Unsafe,
    /// Nobody knows how much it uses.
    Unknown,
}

/// What it would mean to take from a pod the memory that it has not at valley.
pub fn shrink(found: &MemberPod, valley: &Size, now: Timestamp) -> Shrink {
    let usage = found.evidence.usage.as_ref().filter(|usage| now.duration_since(usage.at) <= USAGE_AGE);
    let containers = valley.containers().filter_map(|(name, target)| {
        let left = taken(found.pod.container(name)?, target)?;
        Some(judged(usage, name, left))
    });
    containers.max().unwrap_or(Shrink::Nothing)
}

/// What a container is left with where memory is taken from it: of its limit, else of its request.
fn taken(container: &ContainerView, target: &Amounts) -> Option<i64> {
    let of = |amounts: &Amounts| match target.limits.memory {
        Some(_) => amounts.limits.memory,
        None => amounts.requests.memory,
    };
    let left = of(target)?;
    let asked = of(&container.amounts);
    // A kubelet that reports nothing has given what is asked for, as far as anybody knows.
    let reported = container.status.as_ref().and_then(|status| status.amounts);
    let in_force = reported.map_or(asked, |amounts| of(&amounts));
    let is_more = |own: Option<i64>| own.is_none_or(|own| own > left);
    (is_more(asked) && is_more(in_force)).then_some(left)
}

fn judged(usage: Option<&Usage>, container: &str, left: i64) -> Shrink {
    match usage.and_then(|usage| usage.working_set.get(container)) {
        None => Shrink::Unknown,
        Some(used) if used.saturating_mul(100) < left.saturating_mul(SAFE_PERCENT) => Shrink::Safe,
        Some(_) => Shrink::Unsafe,
    }
}

/// Whether the kubelet of a pod does not take memory from it that its spec gives up: it uses it.
pub fn is_shrink_refused(pod: &PodView) -> bool {
    let has_failed = pod.resize_in_progress.as_ref().is_some_and(|resize| resize.error.is_some());
    has_failed && pod.containers.iter().any(|container| asks_for(container, |asked, own| asked < own))
}

/// Whether a pod asks for more memory than its kubelet has given it.
fn is_waiting(pod: &PodView) -> bool {
    pod.containers.iter().any(|container| asks_for(container, |asked, own| asked > own))
}

/// Whether what a container asks for of memory compares so with what is in force.
fn asks_for(container: &ContainerView, compares: fn(&i64, &i64) -> bool) -> bool {
    let Some(in_force) = container.status.as_ref().and_then(|status| status.amounts) else { return false };
    let asked = container.amounts;
    let pairs = [(asked.requests, in_force.requests), (asked.limits, in_force.limits)];
    pairs
        .iter()
        .any(|(asked, own)| asked.memory.zip(own.memory).is_some_and(|(asked, own)| compares(&asked, &own)))
}

/// What moves of the sizes of all pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scopes(Vec<MemberScopes>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum MemberScopes {
    /// Memory of none.
    Keep,
    /// By the number of the pod.
    Move { valley: Vec<Scope>, peak: Vec<Scope> },
}

impl Scopes {
    /// What moves of a pod's size on its way to a level. Of a pod that is not known it is cpu alone.
    pub fn of(&self, pod: PodIndex, level: Level) -> Scope {
        let found = match (self.0.get(pod.member.0), level) {
            (None | Some(MemberScopes::Keep), Level::Valley | Level::Peak) => None,
            (Some(MemberScopes::Move { valley, .. }), Level::Valley) => valley.get(pod.pod),
            (Some(MemberScopes::Move { peak, .. }), Level::Peak) => peak.get(pod.pod),
        };
        found.copied().unwrap_or(Scope::Cpu)
    }

    fn set(&mut self, pod: PodIndex, to_peak: Scope) {
        match self.0.get_mut(pod.member.0) {
            None | Some(MemberScopes::Keep) => {}
            Some(MemberScopes::Move { peak, .. }) => {
                if let Some(scope) = peak.get_mut(pod.pod) {
                    *scope = to_peak;
                }
            }
        }
    }

    fn moves(&self) -> bool {
        self.0.iter().any(|member| match member {
            MemberScopes::Keep => false,
            MemberScopes::Move { .. } => true,
        })
    }
}

/// What moves of the sizes of all pods, by what is known now. On the way to valley usage decides, pod by pod. On the way to
/// peak room does, unit by unit in their order: what those of the other side give up, and what the node has beside.
pub fn scopes(
    observed: &Observed,
    profiles: &[Profile],
    units: &Units,
    room: &Room,
    now: Timestamp,
) -> Scopes {
    let members = observed.group.spec.members.iter().zip(&observed.members).zip(profiles);
    let members = members.map(|((spec, member), profile)| match spec.memory {
        MemoryPolicy::Keep => MemberScopes::Keep,
        MemoryPolicy::Move => MemberScopes::Move {
            valley: member.pods.iter().map(|found| to_valley(found, profile, now)).collect(),
            peak: vec![Scope::Whole; member.pods.len()],
        },
    });
    let mut scopes = Scopes(members.collect());
    if scopes.moves() {
        let mut share = Share { observed, profiles, room, scopes: &mut scopes };
        share.out(units, |unit| (&unit.to[..], &unit.from[..]));
        share.out(units, |unit| (&unit.from[..], &unit.to[..]));
    }
    scopes
}

fn to_valley(found: &MemberPod, profile: &Profile, now: Timestamp) -> Scope {
    if is_shrink_refused(&found.pod) {
        return Scope::MemoryBack;
    }
    if found.evidence.memory_kept_until.is_some_and(|until| now < until) {
        return Scope::Cpu;
    }
    match shrink(found, &profile.valley, now) {
        Shrink::Nothing | Shrink::Safe => Scope::Whole,
        Shrink::Unsafe | Shrink::Unknown => Scope::Cpu,
    }
}

/// Shares the memory of nodes out among the pods that grow.
struct Share<'a> {
    observed: &'a Observed,
    profiles: &'a [Profile],
    room: &'a Room,
    scopes: &'a mut Scopes,
}

impl Share<'_> {
    /// Goes through the units in their order; `sides` are those of a unit that grow, and those that shrink. Units go one way
    /// or the other, so each way has all the room for itself; who begins looks at the room once more.
    fn out(&mut self, units: &Units, sides: impl Fn(&Unit) -> (&[PodIndex], &[PodIndex])) {
        let mut left: HashMap<Arc<str>, i64> = HashMap::new();
        for unit in &units.units {
            let (growing, shrinking) = sides(unit);
            let room =
                left.entry(Arc::clone(&unit.node)).or_insert_with(|| self.room.left(&unit.node).memory);
            let mut freed: i64 = 0;
            for pod in shrinking {
                match self.scopes.of(*pod, Level::Valley) {
                    Scope::Whole => {
                        freed = freed.saturating_add(self.more(*pod, Level::Valley).saturating_neg().max(0))
                    }
                    Scope::MemoryBack => *room = room.saturating_sub(self.more(*pod, Level::Peak).max(0)),
                    Scope::Cpu => {}
                }
            }
            // More is asked for than the node has, and nobody gives it up.
            let is_overdrawn = room.saturating_add(freed) < 0;
            let mut needed: i64 = 0;
            for pod in growing {
                if is_overdrawn && self.waits(*pod) {
                    *room = room.saturating_sub(self.more(*pod, Level::Valley));
                    self.scopes.set(*pod, Scope::MemoryBack);
                }
                needed = needed.saturating_add(self.more(*pod, Level::Peak).max(0));
            }
            if needed <= freed.saturating_add((*room).max(0)) {
                *room = room.saturating_sub(needed.saturating_sub(freed).max(0));
                continue;
            }
            for pod in growing {
                if self.more(*pod, Level::Peak) > 0 {
                    self.scopes.set(*pod, Scope::Cpu);
                }
            }
        }
    }

    /// By how much more memory a pod would ask at a level; nothing where memory is not its member's to move.
    fn more(&self, pod: PodIndex, level: Level) -> i64 {
        let spec = self.observed.group.spec.members.get(pod.member.0);
        let is_moved = spec.is_some_and(|spec| match spec.memory {
            MemoryPolicy::Keep => false,
            MemoryPolicy::Move => true,
        });
        let found = self.observed.pod(pod).filter(|_| is_moved).zip(self.profiles.get(pod.member.0));
        found.map_or(0, |(found, profile)| change(&found.pod, profile.size(level)).memory)
    }

    fn waits(&self, pod: PodIndex) -> bool {
        self.more(pod, Level::Valley) < 0
            && self.observed.pod(pod).is_some_and(|found| is_waiting(&found.pod))
    }
}

#[cfg(test)]
mod tests;
