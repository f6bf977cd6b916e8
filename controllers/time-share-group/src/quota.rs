//! How many units may begin before a ResourceQuota would refuse one.
//!
//! A quota counts of a pod the larger of what its spec asks for and what is in force. So from the moment that a pod grows
//! until the one that gives it its room has shrunk, both count. What is free is taken from the quota's own status, which
//! follows by and by; a unit that may not be counted there yet is counted once more.

use crate::machine::{Stand, UnitState};
use crate::observed::{Member, Observed, Quota};
use crate::sizes::{Level, Profile};
use crate::units::{Heading, Unit, UnitKind};
use springtide_crds::time_share_group::Order;
use springtide_plumbing::quantity::quantity_text;
use springtide_plumbing::workloads::amounts::Pair;

/// How many units whose pods grow may begin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headroom {
    /// So many beside those that are under way; `None`: no quota bounds them.
    pub units: Option<u32>,
    /// Which quota has no room for a single one although none is under way, for people.
    pub too_small: Option<String>,
}

/// The room that quotas of the growing member's namespace have.
///
/// A quota with scopes bounds nobody here, as only the server knows whom it is for; a dry run tells. Where pods shrink
/// first in the same namespace, their room is there by the time that others grow.
pub fn headroom(
    observed: &Observed,
    heading: &Heading,
    units: &[Unit],
    stands: &[Stand],
    profiles: &[Profile],
) -> Headroom {
    let of = |index: usize| observed.members.get(index).zip(profiles.get(index));
    let Some((member, profile)) = heading.to.and_then(|to| of(to.0)) else { return Headroom::default() };
    let donor = heading.from.and_then(|from| of(from.0));
    let shrinks_first = match observed.group.spec.switch.order {
        Order::ShrinkFirst => donor.is_some_and(|(donor, _)| donor.namespace == member.namespace),
        Order::Pipelined | Order::ClaimFirst => false,
    };
    let growing: Vec<(&Unit, &Stand)> = units
        .iter()
        .zip(stands)
        .filter(|(unit, _)| match unit.kind {
            UnitKind::Pair => !shrinks_first,
            UnitKind::GrowAlone => true,
            UnitKind::ShrinkAlone => false,
        })
        .collect();
    let size = growing.iter().map(|(unit, _)| pods(unit)).max().unwrap_or_default();
    if size == 0 {
        return Headroom::default();
    }
    let counted_twice: i64 =
        growing.iter().filter(|(_, stand)| is_under_way(stand)).map(|(unit, _)| pods(unit)).sum();
    let is_any_left = growing.iter().any(|(_, stand)| is_to_begin(stand));
    let growth = Growth::of(profile);
    let mut headroom = Headroom::default();
    for quota in member.quotas.iter().filter(|quota| !quota.is_scoped) {
        for (resource, free, grows) in growth.bounded_by(quota) {
            let left = free.saturating_sub(counted_twice.saturating_mul(grows));
            let unit = grows.saturating_mul(size);
            let units = u32::try_from((left / unit).max(0)).unwrap_or(u32::MAX);
            headroom.units = Some(headroom.units.map_or(units, |fewer| fewer.min(units)));
            if units == 0 && counted_twice == 0 && is_any_left && headroom.too_small.is_none() {
                headroom.too_small = Some(message(member, quota, resource, unit.saturating_sub(free)));
            }
        }
    }
    headroom
}

/// Whether its pods may count twice, or are still to be counted.
fn is_under_way(stand: &Stand) -> bool {
    stand.in_flight
        && match &stand.state {
            UnitState::Draining
            | UnitState::Drained
            | UnitState::Resizing
            | UnitState::Deferred
            | UnitState::Returning
            | UnitState::Stuck(_) => true,
            UnitState::Still
            | UnitState::Idle
            | UnitState::Waiting
            | UnitState::Warming
            | UnitState::Turning
            | UnitState::Done
            | UnitState::GivenUp
            | UnitState::Cannot(_) => false,
        }
}

/// Whether its pods are still to grow.
fn is_to_begin(stand: &Stand) -> bool {
    !stand.begun
        && match &stand.state {
            UnitState::Still | UnitState::Idle | UnitState::Waiting | UnitState::Cannot(_) => true,
            UnitState::Draining
            | UnitState::Drained
            | UnitState::Resizing
            | UnitState::Deferred
            | UnitState::Warming
            | UnitState::Turning
            | UnitState::Done
            | UnitState::Returning
            | UnitState::GivenUp
            | UnitState::Stuck(_) => false,
        }
}

fn pods(unit: &Unit) -> i64 {
    i64::try_from(unit.to.len()).unwrap_or(i64::MAX)
}

/// By how much more one pod requests, and may use, at peak.
struct Growth {
    requests: Pair,
    limits: Pair,
}

impl Growth {
    fn of(profile: &Profile) -> Self {
        let total = |level: Level, limits: bool| {
            let pairs = profile
                .size(level)
                .containers()
                .map(|(_, amounts)| if limits { amounts.limits } else { amounts.requests });
            pairs.fold(Pair::default(), |sum, pair| Pair {
                cpu: add(sum.cpu, pair.cpu),
                memory: add(sum.memory, pair.memory),
            })
        };
        let growth = |limits| {
            let (peak, valley) = (total(Level::Peak, limits), total(Level::Valley, limits));
            Pair { cpu: less(peak.cpu, valley.cpu), memory: less(peak.memory, valley.memory) }
        };
        Self { requests: growth(false), limits: growth(true) }
    }

    /// What of it a quota bounds: the resource, how much of it is free, and how much of it a pod takes.
    fn bounded_by<'q>(&self, quota: &'q Quota) -> impl Iterator<Item = (&'static str, i64, i64)> + use<'q> {
        let bounds = [
            ("requests.cpu", quota.requests_cpu, self.requests.cpu),
            ("requests.memory", quota.requests_memory, self.requests.memory),
            ("limits.cpu", quota.limits_cpu, self.limits.cpu),
            ("limits.memory", quota.limits_memory, self.limits.memory),
        ];
        bounds
            .into_iter()
            .filter_map(|(resource, free, grows)| Some((resource, free?, grows.filter(|grows| *grows > 0)?)))
    }
}

fn add(sum: Option<i64>, amount: Option<i64>) -> Option<i64> {
    match (sum, amount) {
        (Some(sum), Some(amount)) => Some(sum.saturating_add(amount)),
        (one, other) => one.or(other),
    }
}

fn less(peak: Option<i64>, valley: Option<i64>) -> Option<i64> {
    Some(peak?.saturating_sub(valley?))
}

fn message(member: &Member, quota: &Quota, resource: &str, missing: i64) -> String {
    let kind = if resource.ends_with("cpu") { "cpu" } else { "memory" };
    let missing = quantity_text(kind, missing);
    format!(
        "ResourceQuota {} of namespace {} lacks {missing} of {resource} for one unit",
        quota.name, member.namespace
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{observed, pod, profiles};
    use crate::observed::{MemberIndex, PodIndex};
    use crate::sizes::Demand;
    use serde_json::{Value, json};

    const HEADING: Heading =
        Heading { id: 7, from: Some(MemberIndex(0)), to: Some(MemberIndex(1)), is_return: false };

    fn index(member: usize, pod: usize) -> PodIndex {
        PodIndex { member: MemberIndex(member), pod }
    }

    fn unit(number: usize, kind: UnitKind) -> Unit {
        let (from, to) = match kind {
            UnitKind::Pair => (vec![index(0, number)], vec![index(1, number)]),
            UnitKind::GrowAlone => (Vec::new(), vec![index(1, number)]),
            UnitKind::ShrinkAlone => (vec![index(0, number)], Vec::new()),
        };
        Unit {
            node: "n1".into(),
            index: u32::try_from(number).unwrap(),
            kind,
            from,
            to,
            growth: Demand { cpu: 3800, memory: 0 },
            freed: Demand { cpu: 3800, memory: 0 },
        }
    }

    fn stand(state: UnitState) -> Stand {
        let in_flight = !matches!(state, UnitState::Idle | UnitState::Done);
        Stand { begun: in_flight, in_flight, state, deferred: 0, infeasible: 0, wake: None }
    }

    fn found(spec: Value, quota: Quota, states: &[UnitState]) -> Headroom {
        let pods =
            [("pay", vec![pod("pay-1", "n1", json!({}))]), ("promo", vec![pod("promo-1", "n1", json!({}))])];
        let mut observed = observed(spec, &pods);
        observed.members[1].quotas = vec![quota];
        let units: Vec<_> = (0..states.len()).map(|number| unit(number, UnitKind::Pair)).collect();
        let stands: Vec<_> = states.iter().cloned().map(stand).collect();
        headroom(&observed, &HEADING, &units, &stands, &profiles(&observed))
    }

    fn cpu(free: i64) -> Quota {
        Quota { name: "compute".into(), requests_cpu: Some(free), ..Quota::default() }
    }

    #[test]
    fn so_many_units_may_begin_as_the_quota_has_room_for_beside_those_under_way() {
        use UnitState::{Done, Draining, Idle, Resizing, Warming};
        for (free, states, expected) in [
            (3 * 3800, vec![Idle; 9], Some(3)),
            (3 * 3800 - 1, vec![Idle; 9], Some(2)),
            (3 * 3800, vec![Draining, Draining, Idle], Some(1)),
            (3 * 3800, vec![Resizing, Resizing, Resizing, Idle], Some(0)),
            // Those whose pods have shrunk do not count twice any more.
            (3 * 3800, vec![Warming, Done, Idle], Some(3)),
            (-100, vec![Idle], Some(0)),
        ] {
            assert_eq!(found(json!({}), cpu(free), &states).units, expected, "{free} {states:?}");
        }
    }

    #[test]
    fn a_quota_without_room_for_one_unit_is_named_unless_units_under_way_take_it() {
        let small = found(json!({}), cpu(300), &[UnitState::Idle]).too_small.unwrap();
        assert_eq!(small, "ResourceQuota compute of namespace shop lacks 3500m of requests.cpu for one unit");
        assert_eq!(found(json!({}), cpu(300), &[UnitState::Resizing, UnitState::Idle]).too_small, None);
        assert_eq!(found(json!({}), cpu(300), &[UnitState::Done]).too_small, None, "nobody is to grow");
    }

    #[test]
    fn what_no_quota_bounds_is_not_bounded() {
        let none = Headroom::default();
        let scoped = Quota { is_scoped: true, ..cpu(0) };
        assert_eq!(found(json!({}), scoped, &[UnitState::Idle]), none);
        let memory = Quota { requests_cpu: None, requests_memory: Some(0), limits_cpu: Some(0), ..cpu(0) };
        assert_eq!(found(json!({}), memory, &[UnitState::Idle]), none, "neither memory nor limits grow");
        let shrinks_first = json!({"switch": {"order": "ShrinkFirst"}});
        assert_eq!(found(shrinks_first, cpu(0), &[UnitState::Idle]), none);
    }

    #[test]
    fn who_shrinks_first_in_another_namespace_makes_no_room_in_the_quota() {
        let pods = [("promo", vec![pod("promo-1", "n1", json!({}))])];
        let mut observed = observed(json!({"switch": {"order": "ShrinkFirst"}}), &pods);
        observed.members[0].namespace = "elsewhere".into();
        observed.members[1].quotas = vec![cpu(3800)];
        let (units, stands) = ([unit(0, UnitKind::Pair)], [stand(UnitState::Idle)]);
        let found = headroom(&observed, &HEADING, &units, &stands, &profiles(&observed));
        assert_eq!(found.units, Some(1));
    }

    #[test]
    fn a_unit_of_several_pods_needs_room_for_all_and_one_that_shrinks_none() {
        let pods = [("promo", vec![pod("promo-1", "n1", json!({}))])];
        let mut observed = observed(json!({}), &pods);
        observed.members[1].quotas = vec![cpu(7 * 3800)];
        let mut large = unit(0, UnitKind::GrowAlone);
        large.to = vec![index(1, 0), index(1, 1), index(1, 2)];
        let units = [large, unit(1, UnitKind::ShrinkAlone)];
        let stands = [stand(UnitState::Idle), stand(UnitState::Draining)];
        let found = headroom(&observed, &HEADING, &units, &stands, &profiles(&observed));
        assert_eq!(found.units, Some(2));
    }
}
