//! Which pods of a member go on to serve at valley size: so many, spread over its nodes, and the same ones while others
//! come and go.
//!
//! Pods have places: the oldest pod of each node comes before the second one of any, and among those of equal rank nodes
//! come by a hash of their names. The first so many places serve. A pod that comes is the last one of its node, and one
//! that goes hands its place down, so that either turns one other pod at most.

use crate::observed::Member;
use springtide_crds::common::IntOrPercent;
use springtide_plumbing::workloads::content::Digest;
use springtide_plumbing::workloads::pod::PodView;
use std::collections::HashMap;

/// How many pods a member's trickle is: a part is of the pods that its workload is to have, as those that are there come
/// and go.
pub fn count(member: &Member, part: IntOrPercent) -> u32 {
    let pods = || u32::try_from(member.pods.len()).unwrap_or(u32::MAX);
    part.round_up(member.workload.as_ref().map_or_else(pods, |workload| workload.replicas))
}

/// Numbers of the `count` pods in [`Member::pods`] that go on to serve, or of all that may where there are fewer. One
/// without a node serves nobody.
pub fn chosen(member: &Member, count: u32, may_serve: impl Fn(&PodView) -> bool) -> Vec<usize> {
    let mut nodes: HashMap<&str, (Digest, u32)> = HashMap::new();
    let mut places = Vec::with_capacity(member.pods.len());
    for (number, found) in member.pods.iter().enumerate().filter(|(_, found)| may_serve(&found.pod)) {
        let Some(node) = found.pod.node.as_deref() else { continue };
        let (digest, rank) = nodes.entry(node).or_insert_with(|| (Digest::of(node), 0));
        places.push((*rank, *digest, node, number));
        *rank = rank.saturating_add(1);
    }
    places.sort_unstable();
    places.truncate(usize::try_from(count).unwrap_or(usize::MAX));
    places.into_iter().map(|(_, _, _, number)| number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{NAMESPACE, at, pod};
    use crate::observed::{Evidence, MemberPod};
    use proptest::prelude::*;
    use serde_json::json;
    use springtide_plumbing::projection::Projection;
    use std::collections::{BTreeMap, BTreeSet};

    /// A member with a pod on each of these nodes, the oldest first; of no node where there is no number.
    fn member(nodes: &[Option<u8>]) -> Member {
        let pods = nodes.iter().enumerate().map(|(number, node)| {
            let node = node.map(|node| format!("n{node}"));
            let created = at(i64::try_from(number).unwrap()).to_string();
            let over = json!({"metadata": {"creationTimestamp": created}, "spec": {"nodeName": node}});
            MemberPod { pod: pod(&format!("pay-{number}"), "", over), evidence: Evidence::default() }
        });
        Member { pods: pods.collect(), ..Member::of("pay".into(), NAMESPACE.into()) }
    }

    fn names(member: &Member, count: u32) -> BTreeSet<String> {
        let chosen = chosen(member, count, |_| true);
        let names: BTreeSet<_> =
            chosen.iter().map(|number| member.pods[*number].pod.meta().key.name.to_string()).collect();
        assert_eq!(names.len(), chosen.len(), "each once");
        names
    }

    #[test]
    fn a_part_is_of_the_pods_that_are_to_be_there() {
        let mut member = member(&[Some(1); 3]);
        assert_eq!(count(&member, IntOrPercent::Percent(50)), 2);
        let observed = crate::fixtures::observed(json!({}), &[]);
        member.workload.clone_from(&observed.members[0].workload);
        member.workload.as_mut().unwrap().replicas = 40;
        assert_eq!(count(&member, IntOrPercent::Percent(5)), 2);
        assert_eq!(count(&member, IntOrPercent::Int(7)), 7);
    }

    #[test]
    fn who_cannot_be_turned_takes_no_place() {
        let member = member(&[Some(1), Some(2), Some(3)]);
        let first = |pod: &PodView| &*pod.meta().key.name == "pay-0";
        let mut others = chosen(&member, 2, |pod| !first(pod));
        others.sort_unstable();
        assert_eq!((others, chosen(&member, 9, first)), (vec![1, 2], vec![0]));
    }

    fn nodes() -> impl Strategy<Value = Vec<Option<u8>>> {
        prop::collection::vec(prop::option::weighted(0.9, 0..6u8), 0..24)
    }

    proptest! {
        #[test]
        fn exactly_so_many_serve_and_no_node_has_two_more_than_another_that_could_have_more(
            nodes in nodes(),
            count in 0..30u32,
        ) {
            let member = member(&nodes);
            let chosen = chosen(&member, count, |_| true);
            let bound = nodes.iter().flatten().count();
            prop_assert_eq!(chosen.len(), bound.min(count as usize));
            let mut shares: BTreeMap<u8, (usize, usize)> = BTreeMap::new();
            for (number, node) in nodes.iter().enumerate() {
                let Some(node) = node else { continue };
                let (serving, all) = shares.entry(*node).or_default();
                *serving += usize::from(chosen.contains(&number));
                *all += 1;
            }
            let most = shares.values().map(|(serving, _)| *serving).max().unwrap_or(0);
            for (serving, all) in shares.values() {
                prop_assert!(serving == all || most <= serving + 1, "{shares:?}");
            }
        }

        #[test]
        fn a_pod_that_goes_or_comes_turns_one_other_at_most(
            nodes in nodes().prop_filter("some", |nodes| !nodes.is_empty()),
            gone in any::<prop::sample::Index>(),
            count in 0..30u32,
        ) {
            let with = member(&nodes);
            let gone = gone.index(nodes.len());
            let mut without = with.clone();
            let name = without.pods.remove(gone).pod.meta().key.name.to_string();
            let (before, after) = (names(&with, count), names(&without, count));
            prop_assert!(before.difference(&after).all(|lost| *lost == name), "only it");
            prop_assert!(after.difference(&before).count() <= 1);
            // The last one is the newest: it comes.
            let mut fewer = with.clone();
            let newest = fewer.pods.pop().unwrap().pod.meta().key.name.to_string();
            let (before, after) = (names(&fewer, count), names(&with, count));
            prop_assert!(after.difference(&before).all(|new| *new == newest), "only it");
            prop_assert!(before.difference(&after).count() <= 1);
        }
    }
}
