//! What the placement of members' pods is worth: whose pods find others on their nodes that can shrink for them, and
//! whether priorities let pods be evicted for one another. Placement itself is the user's.

use crate::observed::{MemberIndex, Observed};
use crate::sizes::{Demand, Profile};
use crate::units::{Block, block};
use springtide_crds::time_share_group::Order;
use std::collections::HashMap;
use std::sync::Arc;

/// How many pods each member has on each node that has any.
pub struct Placement<'a> {
    nodes: HashMap<&'a Arc<str>, Vec<u32>>,
    extents: Vec<Demand>,
}

impl<'a> Placement<'a> {
    /// Where the pods are.
    pub fn of(observed: &'a Observed, profiles: &[Profile]) -> Self {
        let count = observed.members.len();
        let mut nodes: HashMap<&Arc<str>, Vec<u32>> = HashMap::new();
        for (number, member) in observed.members.iter().enumerate() {
            for node in member.pods.iter().filter_map(|found| found.pod.node.as_ref()) {
                nodes.entry(node).or_insert_with(|| vec![0; count])[number] += 1;
            }
        }
        let extent = |number| profiles.get(number).map(Profile::extent).unwrap_or_default();
        Self { nodes, extents: (0..count).map(extent).collect() }
    }

    /// How many pods of a member the others' pods of a node could shrink for, all others taken together. One that grows
    /// by nothing needs nobody.
    pub fn paired(&self, node: &Arc<str>, member: MemberIndex) -> u32 {
        self.nodes.get(node).map_or(0, |pods| self.paired_of(pods, member))
    }

    fn paired_of(&self, pods: &[u32], member: MemberIndex) -> u32 {
        let of = |number: usize| (pods.get(number).copied(), self.extents.get(number).copied());
        let (Some(own), Some(extent)) = of(member.0) else { return 0 };
        if extent.is_nothing() {
            return own;
        }
        let others = (0..pods.len()).filter(|number| *number != member.0).filter_map(|number| {
            let (Some(pods), Some(extent_of_other)) = of(number) else { return None };
            let Block { from, to } = block(extent_of_other, extent);
            Some(pods.div_ceil(from).saturating_mul(to))
        });
        others.fold(0, u32::saturating_add).min(own)
    }
}

/// By member: how many of its pods find no donor on their nodes, when they are paired with all others' pods there.
pub fn unpaired(observed: &Observed, profiles: &[Profile]) -> Vec<u32> {
    let placement = Placement::of(observed, profiles);
    let of = |number: usize| {
        let alone = placement
            .nodes
            .values()
            .map(|pods| pods[number].saturating_sub(placement.paired_of(pods, MemberIndex(number))));
        alone.fold(0, u32::saturating_add)
    };
    (0..observed.members.len()).map(of).collect()
}

/// Why pods of one member may be evicted to make room for another's, with who grows first: the scheduler may then preempt
/// for a resize that waits ([KEP-5836](https://kep.k8s.io/5836)), and the ones that are about to shrink are what it finds.
/// `None` where nobody's can, and in any other order.
pub fn priorities_differ(observed: &Observed) -> Option<String> {
    match observed.group.spec.switch.order {
        Order::ClaimFirst => {}
        Order::Pipelined | Order::ShrinkFirst => return None,
    }
    let members = &observed.members;
    let pods = |number: usize| members[number].pods.iter().map(|found| &found.pod);
    let highest = |number| pods(number).filter(|pod| pod.preempts).map(|pod| pod.priority).max();
    let lowest = |number| pods(number).map(|pod| pod.priority).min();
    let strongest = (0..members.len()).filter_map(|number| Some((highest(number)?, number)));
    strongest.flat_map(|above| (0..members.len()).map(move |number| (above, number))).find_map(
        |((priority, above), below)| {
            let lowest = lowest(below).filter(|lowest| above != below && *lowest < priority)?;
            let (above, below) = (&members[above].name, &members[below].name);
            Some(format!(
                "pods of {above} (priority {priority}) may preempt those of {below} ({lowest}); give them equal priorities, \
                 or preemptionPolicy Never"
            ))
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{member, observed, pod, profile};
    use serde_json::{Value, json};
    use springtide_plumbing::workloads::pod::PodView;

    fn pods(member: &str, nodes: &[&str], over: &Value) -> Vec<Arc<PodView>> {
        let named = nodes.iter().zip(1..);
        named.map(|(node, number)| pod(&format!("{member}-{number}"), node, over.clone())).collect()
    }

    fn cpu(peak: i64) -> Profile {
        let demand = |cpu| Demand { cpu, memory: 1 };
        profile(demand(peak), demand(0))
    }

    #[test]
    fn a_pod_is_paired_where_others_of_its_node_can_shrink_for_it() {
        let none = json!({});
        let placed = [
            ("pay", pods("pay", &["n1", "n1", "n2", "n2"], &none)),
            ("promo", pods("promo", &["n1", "n2", "n2", "n2", "n3"], &none)),
        ];
        let observed = observed(json!({}), &placed);
        let alike = [cpu(1000), cpu(1000)];
        assert_eq!(unpaired(&observed, &alike), [1, 2]);
        assert_eq!(unpaired(&observed, &[cpu(3000), cpu(1000)]), [2, 1], "three of promo for one of pay");
        assert_eq!(unpaired(&observed, &[cpu(0), cpu(1000)]), [0, 2], "who does not grow needs nobody");
        let placement = Placement::of(&observed, &alike);
        let paired = |node: &str, member| placement.paired(&node.into(), MemberIndex(member));
        assert_eq!((paired("n2", 0), paired("n2", 1), paired("n3", 1), paired("n9", 0)), (2, 2, 0, 0));
    }

    #[test]
    fn all_other_members_count_together() {
        let none = json!({});
        let placed = [
            ("pay", pods("pay", &["n1", "n1", "n1"], &none)),
            ("promo", pods("promo", &["n1"], &none)),
            ("games", pods("games", &["n1"], &none)),
        ];
        let observed = observed(json!({"members": [member("games")]}), &placed);
        assert_eq!(unpaired(&observed, &[cpu(1000), cpu(1000), cpu(1000)]), [1, 0, 0]);
    }

    #[test]
    fn priorities_matter_only_where_one_that_preempts_is_above_another_and_claims_first() {
        let of = |order: &str, pay: Value, promo: Value| {
            let spec = |fields: Value| json!({"spec": fields});
            let placed =
                [("pay", pods("pay", &["n1"], &spec(pay))), ("promo", pods("promo", &["n1"], &spec(promo)))];
            priorities_differ(&observed(json!({"switch": {"order": order}}), &placed))
        };
        let found = of("ClaimFirst", json!({"priority": 7}), json!({"priority": 1000})).unwrap();
        assert!(found.starts_with("pods of promo (priority 1000) may preempt those of pay (7)"), "{found}");
        for order in ["Pipelined", "ShrinkFirst"] {
            assert_eq!(of(order, json!({"priority": 7}), json!({})), None, "{order}");
        }
        assert_eq!(of("ClaimFirst", json!({"priority": 7}), json!({"priority": 7})), None);
        let gentle = json!({"priority": 7, "preemptionPolicy": "Never"});
        assert_eq!(of("ClaimFirst", gentle.clone(), json!({"priority": 7})), None);
        assert!(of("ClaimFirst", gentle, json!({"priority": 9})).is_some(), "the other one may");
    }
}
