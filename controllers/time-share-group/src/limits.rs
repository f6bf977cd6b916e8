//! Which units may begin: no more at a time than the spec allows in the group and on one node, nor than quotas have room
//! for.

use springtide_plumbing::disruption::InFlight;

/// How many units may be under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// In the whole group.
    pub group: u32,
    /// On one node.
    pub per_node: u32,
    /// So many units whose pods grow may begin beside those that are under way; `None`: no quota bounds them.
    pub quota: Option<u32>,
}

/// A unit that would begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// Its place in the order of units.
    pub rank: usize,
    /// Its node.
    pub node: &'a str,
    /// Whether a pod of it grows, so that a quota has to have room.
    pub grows: bool,
}

/// What keeps the first unit from beginning that does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Obstacle {
    /// As many are under way as may be.
    Group,
    /// As many are on its node.
    Node,
    /// A quota has no room.
    Quota,
}

/// Who begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Started {
    /// Places of the units, in order.
    pub ranks: Vec<usize>,
    /// What keeps the first one that does not begin.
    pub obstacle: Option<Obstacle>,
}

/// Picks those that begin, in their order: one that is kept by its node lets others go before it. `in_flight` are the nodes
/// of the units that are under way, one for each.
pub fn starts<'a>(
    candidates: impl IntoIterator<Item = Candidate<'a>>,
    in_flight: impl IntoIterator<Item = &'a str>,
    limits: Limits,
) -> Started {
    let mut nodes = InFlight::new(size(limits.per_node));
    for node in in_flight {
        nodes.count(node);
    }
    let mut total = nodes.total();
    let mut quota = limits.quota;
    let mut started = Started::default();
    for candidate in candidates {
        let obstacle = if total >= size(limits.group) {
            Some(Obstacle::Group)
        } else if !nodes.has_room(&candidate.node) {
            Some(Obstacle::Node)
        } else if candidate.grows && quota == Some(0) {
            Some(Obstacle::Quota)
        } else {
            None
        };
        if obstacle.is_some() {
            started.obstacle = started.obstacle.or(obstacle);
            if obstacle == Some(Obstacle::Group) {
                break;
            }
            continue;
        }
        nodes.count(candidate.node);
        total += 1;
        if candidate.grows {
            quota = quota.map(|quota| quota.saturating_sub(1));
        }
        started.ranks.push(candidate.rank);
    }
    started
}

fn size(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WIDE: Limits = Limits { group: 500, per_node: 110, quota: None };

    fn on(rank: usize, node: &str) -> Candidate<'_> {
        Candidate { rank, node, grows: true }
    }

    fn four<'a>() -> [Candidate<'a>; 4] {
        [on(0, "a"), on(1, "a"), on(2, "b"), on(3, "c")]
    }

    fn started(ranks: &[usize], obstacle: Option<Obstacle>) -> Started {
        Started { ranks: ranks.to_vec(), obstacle }
    }

    #[test]
    fn units_begin_in_their_order_up_to_each_limit() {
        assert_eq!(starts(four(), [], WIDE), started(&[0, 1, 2, 3], None));
        let group = Limits { group: 3, ..WIDE };
        assert_eq!(starts(four(), [], group), started(&[0, 1, 2], Some(Obstacle::Group)));
        assert_eq!(starts(four(), ["x", "y"], group), started(&[0], Some(Obstacle::Group)));
        let node = Limits { per_node: 1, ..WIDE };
        assert_eq!(starts(four(), [], node), started(&[0, 2, 3], Some(Obstacle::Node)));
        assert_eq!(starts(four(), ["a", "b"], node), started(&[3], Some(Obstacle::Node)));
        let quota = Limits { quota: Some(2), ..WIDE };
        assert_eq!(starts(four(), [], quota), started(&[0, 1], Some(Obstacle::Quota)));
    }

    #[test]
    fn more_under_way_than_may_be_lets_nobody_begin() {
        let limits = Limits { group: 1, ..WIDE };
        assert_eq!(starts(four(), ["x", "y", "z"], limits), started(&[], Some(Obstacle::Group)));
    }

    #[test]
    fn a_unit_that_only_shrinks_needs_no_quota() {
        let shrinks = Candidate { grows: false, ..on(1, "b") };
        let limits = Limits { quota: Some(0), ..WIDE };
        assert_eq!(starts([on(0, "a"), shrinks], [], limits), started(&[1], Some(Obstacle::Quota)));
    }

    proptest! {
        /// Whatever is under way: with those that begin no limit is exceeded that was kept, and whoever could go does.
        #[test]
        fn limits_hold_together(
            units in proptest::collection::vec((0..4usize, any::<bool>()), 0..40),
            flying in proptest::collection::vec(0..4usize, 0..10),
            group in 0..20u32,
            per_node in 1..4u32,
            quota in proptest::option::of(0..10u32),
        ) {
            let nodes = ["a", "b", "c", "d"];
            let all: Vec<_> = units.iter().enumerate()
                .map(|(rank, (node, grows))| Candidate { rank, node: nodes[*node], grows: *grows })
                .collect();
            let limits = Limits { group, per_node, quota };
            let found = starts(all.clone(), flying.iter().map(|node| nodes[*node]), limits);
            let begun = |of: &dyn Fn(&Candidate<'_>) -> bool| {
                found.ranks.iter().filter(|rank| of(&all[**rank])).count()
            };
            let room = size(group).saturating_sub(flying.len());
            prop_assert!(found.ranks.len() <= room);
            for (place, node) in nodes.iter().enumerate() {
                let before = flying.iter().filter(|flying| **flying == place).count();
                prop_assert!(begun(&|unit| unit.node == *node) <= size(per_node).saturating_sub(before));
            }
            if let Some(quota) = quota {
                prop_assert!(begun(&|unit| unit.grows) <= size(quota));
            }
            prop_assert!(found.ranks.is_sorted());
            prop_assert_eq!(found.obstacle.is_none(), found.ranks.len() == all.len());
        }
    }
}
