//! The writes to pods of one pass, and what keeps others from starting.

use super::situation::{Course, Situation};
use crate::census::Member;
use crate::finalize::partition;
use crate::health::MetricState;
use crate::holds::{Hold, HoldInput, hold};
use crate::machine::{Leave, PodState, PodWrite, about_to_start, next_write};
use crate::patch;
use crate::pre_pull::PrePull;
use crate::recreation::Renewal;
use crate::starts::{Budget, Candidate, Limits, Obstacle, starts};
use crate::target::Target;
use crate::traffic::given_back;
use crate::verdict::Verdict;
use jiff::Timestamp;
use springtide_crds::in_place_upgrade::{DisruptionBudgets, Ineligible};
use springtide_plumbing::disruption::InFlight;
use springtide_plumbing::plan::Step;
use springtide_plumbing::projection::Projection;
use springtide_plumbing::workloads::claims::share;
use springtide_plumbing::workloads::kinds::StatefulSetStrategy;
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

/// What is written to pods now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moves {
    /// Writes of different pods, which are independent of one another.
    pub steps: Vec<Step>,
    /// What keeps further pods from starting; `None` while pods start or are on their way.
    pub hold: Option<Hold>,
    /// Whether pods wait for images alone.
    pub waits_for_images: bool,
    /// When to look again though nothing happens.
    pub wake: Option<Timestamp>,
}

/// The writes of a run. With `only_rests` nothing starts, what has started comes to rest, and the workload itself is left
/// alone.
pub(crate) fn moves(
    situation: &Situation<'_>,
    pre_pull: &PrePull,
    only_rests: bool,
    now: Timestamp,
) -> Moves {
    let spec = &situation.observed.upgrade.spec;
    let without_data = situation.observed.metrics.iter().find(|metric| metric.state == MetricState::NoData);
    let input = HoldInput {
        mode: spec.mode,
        freezes: &situation.freezes,
        time_share: situation.observed.time_share.as_ref(),
        time_share_policy: spec.policy.time_share,
        metric_without_data: without_data.map(|metric| metric.name.as_str()),
        step: situation.step.hold,
        is_rollback: situation.course == Course::Back,
    };
    let mut found = Moves { hold: hold(&input, now), ..Moves::default() };
    // A step of time ends by itself, others that are still open may too; and a peak begins by itself.
    let turns_at = input.time_share.and_then(|share| share.turns_at);
    found.wake = [found.hold.as_ref().and_then(Hold::ends), turns_at].into_iter().flatten().min();
    let is_stopped = situation.course == Course::Stopped || is_blocked(situation);
    let is_to_rest = found.hold.as_ref().is_some_and(Hold::brings_to_rest);
    let rests = only_rests || situation.course == Course::Stopped || is_to_rest;
    let mut chosen = HashSet::new();
    let lowering = lowering(situation);
    if found.hold.is_none() && !rests && !is_stopped {
        let (started, obstacle) =
            start(situation, pre_pull, lowering.as_ref().map(|(ordinal, _)| *ordinal), now);
        let is_idle = started.is_empty() && situation.census.pods.in_flight == 0;
        found.hold = obstacle.as_ref().filter(|_| is_idle).and_then(|obstacle| held_by(obstacle, situation));
        found.waits_for_images = is_idle && obstacle == Some(Obstacle::Images);
        found.hold = found.hold.take().or_else(|| is_idle.then(|| refused_eviction(situation)).flatten());
        chosen = started;
    }
    for (index, member) in situation.members.iter().enumerate() {
        if let Some(step) = given_back(&member.pod, member.judgement.lever, now) {
            found.steps.push(step);
            continue;
        }
        let leave = match (rests, chosen.contains(&index)) {
            (true, _) => Leave::Rest,
            (false, true) => Leave::Start,
            (false, false) => Leave::GoOn,
        };
        if let Some(wake) = member.stand.wake {
            found.wake = Some(found.wake.map_or(wake, |earlier| earlier.min(wake)));
        }
        if *member.state() == PodState::Old
            && let Some(until) = about_to_start(&member.pod, &situation.pace, now)
        {
            found.wake = Some(found.wake.map_or(until, |earlier| earlier.min(until)));
        }
        let Some(what) = next_write(&member.pod, &member.judgement, member.state(), leave) else { continue };
        if what == PodWrite::Evict
            && let Some((_, step)) = lowering
                .as_ref()
                .filter(|(ordinal, _)| situation.target.ordinal(&member.pod) == Some(*ordinal))
        {
            // Its controller does it.
            found.steps.push(step.clone());
            continue;
        }
        let write = patch::write(&member.pod, &member.judgement, &situation.goal, what, now);
        let is_free = leave == Leave::Start && !member.is_available;
        let write = write.map(|write| if is_free { patch::pinned(write, &member.pod) } else { write });
        found.steps.extend(write.map(Step::from));
    }
    found.steps.extend(lower_partition(situation).filter(|_| !only_rests));
    found
}

/// Pods that cannot be changed stop the run, unless they are left out. Those that were made anew and do not come otherwise
/// stop no rollback.
pub(crate) fn is_blocked(situation: &Situation<'_>) -> bool {
    let are_any = situation.census.pods.blocked > 0;
    match situation.ineligible {
        Ineligible::Block => are_any,
        Ineligible::Recreate => are_any && situation.course != Course::Back,
        Ineligible::Ignore => situation.census.pods.blocked > situation.left_out(),
    }
}

/// The pod of a StatefulSet that its controller may make anew, by its number, and the write that lowers the partition past
/// it. It is the last one that is not done: to all above it the partition is nothing any more.
fn lowering(situation: &Situation<'_>) -> Option<(u32, Step)> {
    let Target::StatefulSet { set, .. } = situation.target else { return None };
    if situation.census.plan.recreate == 0 {
        return None;
    }
    let relabelled = situation.relabelled();
    let done: BTreeSet<u32> = relabelled.iter().copied().collect();
    let end = set.first_ordinal.checked_add(set.replicas)?;
    let ordinal = (set.first_ordinal..end).rev().find(|ordinal| !done.contains(ordinal))?;
    let member =
        situation.members.iter().find(|member| situation.target.ordinal(&member.pod) == Some(ordinal))?;
    let is_of_partition = situation.renewal(&member.pod) == Some(Renewal::AfterWorkload);
    let step = is_of_partition.then(|| partition::lower_past(set, &relabelled, ordinal)).flatten()?;
    Some((ordinal, step))
}

/// That evictions were refused for a PodDisruptionBudget, and are tried again later.
fn refused_eviction(situation: &Situation<'_>) -> Option<Hold> {
    let is_refused =
        |member: &&Member| member.judgement.verdict == Verdict::Recreate && member.stand.wake.is_some();
    let first = situation.members.iter().find(is_refused)?;
    let uid = &first.pod.meta().uid;
    let budget = situation.observed.budgets.iter().find(|budget| budget.pods.contains(uid));
    let name =
        budget.map_or_else(|| format!("of pod {}", first.pod.meta().key.name), |budget| budget.name.clone());
    Some(Hold::Budget { name })
}

/// At the end of a step the partition follows, so that a pod that is made anew is of the new revision.
fn lower_partition(situation: &Situation<'_>) -> Option<Step> {
    let Target::StatefulSet { set, .. } = situation.target else { return None };
    let StatefulSetStrategy::RollingUpdate { partition } = set.strategy else { return None };
    let is_end_of_step = situation.step.room == 0 && situation.census.pods.in_flight == 0;
    // Where both revisions are one it decides nothing.
    let is_current = set.current_revision == set.update_revision;
    if situation.course != Course::Forward
        || !is_end_of_step
        || is_current
        || situation.census.pods.updated == 0
    {
        return None;
    }
    partition::lower(set, partition, &situation.relabelled())
}

/// Places of the members that start, and what keeps the first one that does not.
fn start(
    situation: &Situation<'_>,
    pre_pull: &PrePull,
    lowering: Option<u32>,
    now: Timestamp,
) -> (HashSet<usize>, Option<Obstacle>) {
    let spec = &situation.observed.upgrade.spec;
    let strategy = &spec.strategy;
    let nodes = &situation.observed.nodes;
    let key = strategy.max_in_flight_per_topology.as_ref().map(|limit| limit.topology_key.as_str());
    let topology = |member: &Member| -> &str {
        let labels =
            member.pod.node.as_ref().and_then(|node| nodes.get(node)).map(|node| &node.meta().labels);
        key.and_then(|key| labels?.get(key)).map_or("", |value| value)
    };
    let budgets = match strategy.disruption_budgets {
        DisruptionBudgets::Respect => &situation.observed.budgets[..],
        DisruptionBudgets::Ignore => &[],
    };
    let mut places = Vec::new();
    let mut candidates = Vec::new();
    for (place, member) in situation.members.iter().enumerate() {
        let is_put_off = member.stand.wake.is_some();
        let is_starting = about_to_start(&member.pod, &situation.pace, now).is_some();
        let ordinal = situation.target.ordinal(&member.pod);
        let waits_for_workload = member.judgement.verdict == Verdict::Recreate
            && situation.renewal(&member.pod) != Some(Renewal::Eviction)
            && (ordinal.is_none() || ordinal != lowering);
        if *member.state() != PodState::Old || is_put_off || is_starting || waits_for_workload {
            continue;
        }
        let uid = &member.pod.meta().uid;
        let selected = budgets.iter().enumerate().filter(|(_, budget)| budget.pods.contains(uid));
        places.push(place);
        candidates.push(Candidate {
            name: &member.pod.meta().key.name,
            verdict: member.judgement.verdict,
            is_available: member.is_available,
            is_ready: member.pod.is_ready(),
            is_begun: is_begun(situation, member),
            node: member.pod.node.as_ref(),
            topology: topology(member),
            ordinal,
            has_images: pre_pull.has_images(member),
            budgets: selected.map(|(place, _)| place).collect(),
        });
    }
    let per_node = usize::try_from(strategy.max_in_flight_per_node).unwrap_or(usize::MAX);
    let mut limits = Limits {
        room: size(situation.step.room),
        unavailable: size(situation.unavailable()),
        max_unavailable: size(situation.max_unavailable()),
        per_node: InFlight::new(per_node),
        per_topology: strategy
            .max_in_flight_per_topology
            .as_ref()
            .map(|limit| InFlight::new(size(limit.max.round_down(situation.census.pods.total).max(1)))),
        budgets: budgets.iter().map(|budget| Budget { name: &budget.name, room: budget.room }).collect(),
    };
    for member in situation.members.iter().filter(|member| member.state().is_in_flight()) {
        if let Some(node) = &member.pod.node {
            limits.per_node.count(Arc::clone(node));
        }
        if let Some(limit) = &mut limits.per_topology {
            limit.count(Arc::from(topology(member)));
        }
    }
    let found = starts(&candidates, limits);
    let started = found.started.iter().filter_map(|index| places.get(*index).copied()).collect();
    (started, found.obstacle)
}

/// Whether the resize of a pod is made whose image is still to come.
fn is_begun(situation: &Situation<'_>, member: &Member) -> bool {
    let differences = &member.judgement.differences;
    let is_resized = |name: &Arc<str>| !differences.amounts.contains_key(name);
    let containers = &situation.goal.template.content.containers;
    !differences.images.is_empty()
        && differences.amounts.is_empty()
        && situation.course.is_open()
        && containers.keys().any(|name| {
            let own = member.pod.container(name);
            let before = situation.target.template_of(&member.pod);
            let before = before.and_then(|old| old.content.containers.get(name));
            let is_moved = own.zip(before).is_some_and(|(own, before)| {
                let claimed = share(&situation.claims, name, own.role);
                !own.amounts.has(&claimed.rest(before.amounts))
            });
            is_resized(name) && is_moved
        })
}

fn held_by(obstacle: &Obstacle, situation: &Situation<'_>) -> Option<Hold> {
    match obstacle {
        Obstacle::Unavailable => Some(Hold::Unavailable {
            count: size(situation.unavailable()),
            max: size(situation.max_unavailable()),
        }),
        Obstacle::Budget(name) => Some(Hold::Budget { name: name.clone() }),
        Obstacle::Place | Obstacle::Images => None,
    }
}

fn size(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}
