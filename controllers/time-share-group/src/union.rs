//! What fits on the nodes: what pods request as whole pods, the room that is left beside them, and what the members need
//! together when at most one of them is at peak.

use crate::observed::{MemberPod, Observed, PodIndex};
use crate::sizes::{Demand, Profile, Size};
use springtide_plumbing::workloads::content::Role;
use springtide_plumbing::workloads::pod::{ContainerView, PodView};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// What a pod's spec asks for now: the whole pod, whatever of it is in force.
pub fn spec_demand(pod: &PodView) -> Demand {
    together(pod, asked) + overhead(pod)
}

/// What its spec would ask for with this size.
pub fn demand_at(pod: &PodView, size: &Size) -> Demand {
    let sized = |container: &ContainerView| {
        Demand::from(container.amounts.requests.overlaid(size.of(&container.name).requests))
    };
    together(pod, sized) + overhead(pod)
}

/// By how much more the whole pod requests at peak than at valley. It is less than [`Profile::extent`] where an init
/// container requests more than the valley, as a pod counts with what it needed to start.
pub fn extent_of(pod: &PodView, profile: &Profile) -> Demand {
    demand_at(pod, &profile.peak) - demand_at(pod, &profile.valley)
}

fn asked(container: &ContainerView) -> Demand {
    container.amounts.requests.into()
}

/// What containers request together: those that run at a time, or the most that any of them needed to start. The rule is
/// that of [`PodSpecRequests`](springtide_plumbing::resources::PodSpecRequests).
fn together(pod: &PodView, requests: impl Fn(&ContainerView) -> Demand) -> Demand {
    let (mut running, mut sidecars, mut starting) = (Demand::ZERO, Demand::ZERO, Demand::ZERO);
    for container in &pod.containers {
        let own = requests(container);
        match container.role {
            Role::Main => running += own,
            Role::Sidecar => {
                running += own;
                sidecars += own;
                starting = starting.max(sidecars);
            }
            Role::Init => starting = starting.max(sidecars + own),
        }
    }
    running.max(starting)
}

/// What a pod requests beside its containers, as its RuntimeClass has it: what it [holds](PodView::requests), less what
/// its containers make of that.
fn overhead(pod: &PodView) -> Demand {
    let is_infeasible = pod.resize_pending.as_ref().is_some_and(|pending| pending.is_infeasible);
    let counted = |container: &ContainerView| if is_infeasible { Demand::ZERO } else { asked(container) };
    let allocated = |container: &ContainerView| {
        let allocated = container.status.as_ref().and_then(|status| status.allocated);
        allocated.map_or_else(|| counted(container), Demand::from)
    };
    let in_force = |container: &ContainerView| {
        let reported = container.status.as_ref().and_then(|status| status.amounts);
        let reported = reported.map(|amounts| amounts.requests).filter(|requests| !requests.is_empty());
        reported.map_or_else(|| allocated(container), Demand::from)
    };
    let containers = together(pod, counted).max(together(pod, allocated)).max(together(pod, in_force));
    Demand::from(pod.requests) - containers
}

/// What is left on each node beside pods of others and what the specs of the group's own pods ask for. Where that is more
/// than there is, it is less than nothing.
///
/// A pod that shrinks leaves its room here as soon as its spec says so, as the group has reserved it for the one that
/// grows; the kubelet defers that one for the moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Room(HashMap<Arc<str>, Demand>);

impl Room {
    /// The room before anything is planned.
    pub fn of(observed: &Observed) -> Self {
        let nodes = &observed.nodes;
        let mut room: HashMap<_, _> =
            nodes.iter().map(|(name, node)| (Arc::clone(name), node.allocatable - node.others)).collect();
        for (node, found) in bound(observed) {
            if let Some(left) = room.get_mut(node) {
                *left -= spec_demand(&found.pod);
            }
        }
        Self(room)
    }

    /// What is left on a node; nothing on one that is not known.
    pub fn left(&self, node: &str) -> Demand {
        self.0.get(node).copied().unwrap_or_default()
    }

    /// Takes so much of what is left there.
    pub fn take(&mut self, node: &str, amount: Demand) {
        if let Some(left) = self.0.get_mut(node) {
            *left -= amount;
        }
    }

    /// Gives so much back.
    pub fn free(&mut self, node: &str, amount: Demand) {
        if let Some(left) = self.0.get_mut(node) {
            *left += amount;
        }
    }
}

/// What scheduler and kubelet can give to a pod: what is allocatable on its node, less what all other pods there hold, of
/// a resize the highest of what is asked for, allocated and in force. Nothing on a node that is not known.
///
/// It looks at all pods of the group, for the few that are nudged.
pub fn claimed_room(observed: &Observed, node: &str, without: PodIndex) -> Demand {
    let Some(own) = observed.nodes.get(node) else { return Demand::ZERO };
    let mut room = own.allocatable - own.others;
    for (number, member) in observed.members.iter().enumerate() {
        for (place, found) in member.pods.iter().enumerate() {
            let is_without = (number, place) == (without.member.0, without.pod);
            if !is_without && found.pod.node.as_deref() == Some(node) {
                room -= Demand::from(found.pod.requests);
            }
        }
    }
    room
}

/// What the members need of their nodes together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Union {
    /// Nodes that their pods are on.
    pub nodes: u32,
    /// Those that cannot hold what is needed of them beside all other pods, by name.
    pub over_budget: Vec<Arc<str>>,
    /// On each node the peak of one member and the valley of all others, of each resource by the member that needs most;
    /// over all nodes.
    pub budget: Demand,
    /// All members at peak.
    pub sum_of_peaks: Demand,
    /// What the one is less than the other.
    pub saved: Demand,
}

/// What the pods of one node need.
#[derive(Default)]
struct Needs {
    valleys: Demand,
    /// By how much more each member needs at peak, by its number.
    extents: BTreeMap<usize, Demand>,
}

/// What the members need together, by their present pods. A node that is not known counts, and is not over its budget.
pub fn union(observed: &Observed, profiles: &[Profile]) -> Union {
    let mut nodes: BTreeMap<&Arc<str>, Needs> = BTreeMap::new();
    for (number, (member, profile)) in observed.members.iter().zip(profiles).enumerate() {
        for found in &member.pods {
            let Some(node) = &found.pod.node else { continue };
            let needs = nodes.entry(node).or_default();
            needs.valleys += demand_at(&found.pod, &profile.valley);
            *needs.extents.entry(number).or_default() += extent_of(&found.pod, profile);
        }
    }
    let mut union = Union { nodes: u32::try_from(nodes.len()).unwrap_or(u32::MAX), ..Union::default() };
    for (name, Needs { valleys, extents }) in nodes {
        let budget = valleys + extents.values().copied().fold(Demand::ZERO, Demand::max);
        let room = observed.nodes.get(name).map(|node| node.allocatable - node.others);
        if room.is_some_and(|room| !budget.fits(room)) {
            union.over_budget.push(Arc::clone(name));
        }
        union.budget += budget;
        union.sum_of_peaks += valleys + extents.into_values().sum::<Demand>();
    }
    union.saved = union.sum_of_peaks - union.budget;
    union
}

/// The members' pods that are on a node, and the node's name.
fn bound(observed: &Observed) -> impl Iterator<Item = (&Arc<str>, &MemberPod)> {
    let pods = observed.members.iter().flat_map(|member| &member.pods);
    pods.filter_map(|found| Some((found.pod.node.as_ref()?, found)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{
        GIB, PEAK, VALLEY, at, fill, node, observed, on_stage, overlaid, pending, pod, profile, profiles,
        sized,
    };
    use crate::observed::MemberIndex;
    use serde_json::{Value, json};

    const fn demand(cpu: i64, memory: i64) -> Demand {
        Demand { cpu, memory: memory * GIB }
    }

    #[test]
    fn a_pod_counts_with_all_its_containers_and_overhead_at_any_size() {
        let helpers = json!({"spec": {
            "overhead": {"cpu": "50m"},
            "initContainers": [
                {"name": "mesh", "restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}},
            ],
            "containers": [{"name": "log", "resources": {"requests": {"cpu": "10m", "memory": "1Gi"}}}],
        }});
        let extra = demand(160, 1);
        let profile = profile(PEAK, VALLEY);
        for over in [json!({}), on_stage(), sized("200m", "4"), sized("4", "200m")] {
            let pod = pod("pay-1", "n1", overlaid(helpers.clone(), over));
            assert_eq!(demand_at(&pod, &profile.valley), VALLEY + extra);
            assert_eq!(demand_at(&pod, &profile.peak), PEAK + extra);
            assert_eq!(extent_of(&pod, &profile), profile.extent());
        }
        let shrinking = pod("pay-1", "n1", overlaid(helpers, sized("200m", "4")));
        assert_eq!(spec_demand(&shrinking), VALLEY + extra, "whatever its node still holds for it");
    }

    #[test]
    fn a_resize_that_can_never_be_is_asked_for_all_the_same() {
        let over = overlaid(sized("4", "200m"), pending("Infeasible", at(0)));
        let pod = pod("pay-1", "n1", over);
        assert_eq!((spec_demand(&pod), Demand::from(pod.requests)), (PEAK, VALLEY));
    }

    #[test]
    fn a_pod_frees_no_more_than_its_init_containers_leave() {
        let init = json!({"spec": {
            "initContainers": [{"name": "setup", "resources": {"requests": {"cpu": "1", "memory": "2Gi"}}}],
        }});
        let pod = pod("pay-1", "n1", overlaid(on_stage(), init));
        let profile = profile(PEAK, VALLEY);
        assert_eq!(demand_at(&pod, &profile.valley), demand(1000, 2));
        assert_eq!(extent_of(&pod, &profile), demand(3000, 0), "and not what the profile says");
    }

    #[test]
    fn room_counts_what_specs_ask_for_and_claims_what_is_still_held() {
        let pods = [
            ("pay", vec![pod("pay-1", "n1", sized("4", "200m"))]),
            ("promo", vec![pod("promo-1", "n1", sized("200m", "4")), pod("promo-2", "n2", on_stage())]),
        ];
        let mut observed = observed(json!({}), &pods);
        observed.nodes.insert("n1".into(), node(demand(5000, 4)));
        observed.nodes.get_mut("n1").unwrap().others = demand(300, 1);
        let mut room = Room::of(&observed);
        assert_eq!(room.left("n1"), demand(500, 1));
        room.take("n1", demand(700, 0));
        assert_eq!(room.left("n1"), demand(-200, 1));
        room.free("n1", demand(700, 0));
        room.free("nowhere", demand(700, 0));
        assert_eq!((room.left("n1"), room.left("nowhere")), (demand(500, 1), Demand::ZERO));
        let own = PodIndex { member: MemberIndex(0), pod: 0 };
        assert_eq!(claimed_room(&observed, "n1", own), demand(700, 2), "the other one is not smaller yet");
        assert_eq!(claimed_room(&observed, "nowhere", own), Demand::ZERO);
    }

    #[test]
    fn the_union_is_the_largest_peak_of_each_node_beside_the_valleys_of_the_others() {
        let pods = |member: &str, nodes: &[&str]| -> Vec<_> {
            let named = nodes.iter().zip(1..);
            named.map(|(node, number)| pod(&format!("{member}-{number}"), node, json!({}))).collect()
        };
        let pods = [("pay", pods("pay", &["n1", "n1", "n2"])), ("promo", pods("promo", &["n1", "n3"]))];
        let mut observed = observed(json!({}), &pods);
        let profiles = [profile(demand(4000, 1), demand(200, 1)), profile(demand(3000, 4), demand(100, 1))];
        // Of n1 cpu by two pods of pay, and memory by the one of promo.
        let union = union(&observed, &profiles);
        let budget = demand(8100, 6) + demand(4000, 1) + demand(3000, 4);
        let peaks = demand(4000, 1).times(3) + demand(3000, 4).times(2);
        assert_eq!((union.nodes, union.budget, union.sum_of_peaks), (3, budget, peaks));
        assert_eq!((union.saved, union.over_budget), (peaks - budget, vec![]));
        observed.nodes.insert("n1".into(), node(demand(8100, 6)));
        observed.nodes.insert("n2".into(), node(demand(4000, 0)));
        observed.nodes.remove("n3");
        let tight = super::union(&observed, &profiles);
        let over = |union: &Union| union.over_budget.iter().map(|node| node.to_string()).collect::<Vec<_>>();
        assert_eq!((tight.nodes, over(&tight)), (3, vec!["n2".to_owned()]));
        observed.nodes.get_mut("n1").unwrap().others = demand(1, 0);
        assert_eq!(over(&super::union(&observed, &profiles)), ["n1", "n2"]);
    }

    #[test]
    fn a_union_does_not_depend_on_who_is_at_peak_now() {
        let of = |pay: Value, promo: Value| {
            let pods = [("pay", vec![pod("pay-1", "n1", pay)]), ("promo", vec![pod("promo-1", "n1", promo)])];
            let mut observed = observed(json!({}), &pods);
            fill(&mut observed, Demand::ZERO);
            union(&observed, &profiles(&observed))
        };
        let (one, other) = (of(on_stage(), json!({})), of(json!({}), on_stage()));
        assert_eq!((&one, one.budget), (&other, PEAK + VALLEY));
        assert!(one.over_budget.is_empty(), "the node is full, and that is enough");
    }
}
