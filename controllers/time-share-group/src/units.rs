//! Units: the pods of one node that change their sizes together, and the order in which units come.
//!
//! Units rest on sizes as the spec states them, on names, nodes and times of creation, and never on the sizes that pods
//! have: nothing flaps while pods are resized, and the way back has the very same units. A node holds its pods with the
//! one member at peak and with the other; what they request moves from the one sum to the other by equal parts when
//! whole [blocks](block) move, so that the node holds them at any time between.

use crate::observed::{MemberIndex, Observed, PodIndex};
use crate::placement::Placement;
use crate::sizes::{Demand, Profile};
use crate::union::extent_of;
use springtide_crds::time_share_group::Unpaired;
use springtide_plumbing::workloads::content::Digest;
use std::collections::HashMap;
use std::sync::Arc;

/// Most pods of one member in a unit. Where a pod grows by more than so many of another member shrink by, its unit alone
/// does not make room for it.
pub const BLOCK_MAX: u32 = 16;

/// Which way a group goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heading {
    /// Number of the switch, by which units are ordered.
    pub id: u32,
    /// The member that gives the peak up.
    pub from: Option<MemberIndex>,
    /// The member that gets it.
    pub to: Option<MemberIndex>,
    /// Whether it takes back what the switch before it has done.
    pub is_return: bool,
}

impl Heading {
    /// The two members; who gives to himself gives nothing up.
    fn sides(&self) -> (Option<MemberIndex>, Option<MemberIndex>) {
        (self.from.filter(|from| self.to != Some(*from)), self.to)
    }
}

/// How many pods of one member stand for how many of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Pods of the member that shrinks, 1 to [`BLOCK_MAX`].
    pub from: u32,
    /// Pods of the member that grows, 1 to [`BLOCK_MAX`].
    pub to: u32,
}

/// The fewest pods of either member of which each resource of the one covers one pod of the other, by how much a pod of
/// either grows. Resources that only one of them moves count for nothing. The other way round it is the same block.
pub fn block(from: Demand, to: Demand) -> Block {
    let covering = |own: Demand, other: Demand| {
        let of = |own: i64, other: i64| if own > 0 && other > 0 { (other - 1) / own + 1 } else { 1 };
        let most = of(own.cpu, other.cpu).max(of(own.memory, other.memory));
        u32::try_from(most).unwrap_or(BLOCK_MAX).min(BLOCK_MAX)
    };
    Block { from: covering(from, to), to: covering(to, from) }
}

/// What a unit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnitKind {
    /// Pods that grow, and those that shrink for them.
    Pair,
    /// A pod that grows where none is left to shrink for it.
    GrowAlone,
    /// A pod that shrinks for nobody.
    ShrinkAlone,
}

/// Pods of one node that change their sizes together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// The node.
    pub node: Arc<str>,
    /// Its place among those of its node: that of its block, or of the pod where there is but one.
    pub index: u32,
    /// What it is.
    pub kind: UnitKind,
    /// Those that shrink.
    pub from: Vec<PodIndex>,
    /// Those that grow.
    pub to: Vec<PodIndex>,
    /// By how much those that grow do, from valley to peak.
    pub growth: Demand,
    /// By how much those that shrink do, from peak to valley.
    pub freed: Demand,
}

impl Unit {
    /// The pod that a unit is named by: the first of those that grow, else of those that shrink.
    pub fn lead(&self) -> Option<PodIndex> {
        self.to.first().or(self.from.first()).copied()
    }

    /// All its pods, those that shrink first.
    pub fn pods(&self) -> impl Iterator<Item = PodIndex> + '_ {
        self.from.iter().chain(&self.to).copied()
    }
}

/// A pod on a node whose member neither gives the peak up nor gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stray {
    /// The node.
    pub node: Arc<str>,
    /// The pod.
    pub pod: PodIndex,
}

/// All pods of the members, by what they are to a switch. Each is in one of them, once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Units {
    /// The units, in their order: the place of one is its rank.
    pub units: Vec<Unit>,
    /// Pods of members that have no part in it, by member and pod.
    pub strays: Vec<Stray>,
    /// Pods that stay at valley size, as nobody shrinks for them and the spec leaves such alone.
    pub left: Vec<PodIndex>,
    /// Pods without a node.
    pub unbound: Vec<PodIndex>,
}

/// The pods of the two members on one node, the oldest first.
#[derive(Default)]
struct Share {
    from: Vec<PodIndex>,
    to: Vec<PodIndex>,
}

/// The units of a switch, in the order in which they come: pairs and those that grow alone before those that shrink for
/// nobody; within these, nodes by the digest of the switch's number and their name, so that each switch has other
/// canaries, and the same at each attempt. A return has the order of the switch before it, the last one first.
///
/// Where pods that nobody shrinks for are to be left, those are that the pods of all other members together could not
/// shrink for: so who is left is so whoever gives the peak up, and also where nobody had it.
pub fn units(observed: &Observed, heading: &Heading, profiles: &[Profile]) -> Units {
    let (from, to) = heading.sides();
    let (mut found, shares) = shares(observed, from, to);
    let extent = |member: Option<MemberIndex>| {
        member.and_then(|member| profiles.get(member.0)).map(Profile::extent).unwrap_or_default()
    };
    let block = block(extent(from), extent(to));
    let leaves = match observed.group.spec.pairing.unpaired {
        Unpaired::GrowWhenFree => None,
        Unpaired::Leave => to.map(|to| (Placement::of(observed, profiles), to)),
    };
    let number = if heading.is_return { heading.id.saturating_sub(1) } else { heading.id };
    let extents = |pods: &[PodIndex]| {
        let of = |pod: &PodIndex| Some(extent_of(&observed.pod(*pod)?.pod, profiles.get(pod.member.0)?));
        pods.iter().filter_map(of).sum()
    };
    let mut placed: Vec<(Digest, Unit)> = Vec::new();
    for (node, mut share) in shares {
        if let Some((placement, to)) = &leaves {
            let paired = placement.paired(node, *to) as usize;
            found.left.extend(share.to.drain(paired.min(share.to.len())..));
        }
        let digest = Digest::of(&format!("{number}/{node}"));
        placed.extend(share.units(node, block, &extents).into_iter().map(|unit| (digest, unit)));
    }
    let goes_last = |kind: UnitKind| match kind {
        UnitKind::Pair => false,
        UnitKind::GrowAlone => heading.is_return,
        UnitKind::ShrinkAlone => !heading.is_return,
    };
    placed.sort_unstable_by(|(digest, unit), (other_digest, other)| {
        let by_node = digest.cmp(other_digest).then_with(|| unit.node.cmp(&other.node));
        goes_last(unit.kind).cmp(&goes_last(other.kind)).then(by_node).then(unit.index.cmp(&other.index))
    });
    if heading.is_return {
        placed.reverse();
    }
    found.left.sort_unstable();
    found.units = placed.into_iter().map(|(_, unit)| unit).collect();
    found
}

/// Who is on which node of the two members, and all other pods.
fn shares(
    observed: &Observed,
    from: Option<MemberIndex>,
    to: Option<MemberIndex>,
) -> (Units, HashMap<&Arc<str>, Share>) {
    let mut others = Units::default();
    let mut shares: HashMap<&Arc<str>, Share> = HashMap::new();
    for (number, member) in observed.members.iter().enumerate() {
        let side = Some(MemberIndex(number));
        for (place, of) in member.pods.iter().enumerate() {
            let pod = PodIndex { member: MemberIndex(number), pod: place };
            match &of.pod.node {
                None => others.unbound.push(pod),
                Some(node) if side == from => shares.entry(node).or_default().from.push(pod),
                Some(node) if side == to => shares.entry(node).or_default().to.push(pod),
                Some(node) => others.strays.push(Stray { node: Arc::clone(node), pod }),
            }
        }
    }
    (others, shares)
}

impl Share {
    /// The units of the node, by kind and index. A last block may be short of pods on either side.
    fn units(&self, node: &Arc<str>, block: Block, extents: &impl Fn(&[PodIndex]) -> Demand) -> Vec<Unit> {
        let unit = |kind, index: usize, from: &[PodIndex], to: &[PodIndex]| Unit {
            node: Arc::clone(node),
            index: u32::try_from(index).unwrap_or(u32::MAX),
            kind,
            from: from.to_vec(),
            to: to.to_vec(),
            growth: extents(to),
            freed: extents(from),
        };
        let (of_from, of_to) = (block.from as usize, block.to as usize);
        let pairs = self.from.chunks(of_from).zip(self.to.chunks(of_to));
        let count = pairs.len();
        let pairs = pairs.enumerate().map(|(index, (from, to))| unit(UnitKind::Pair, index, from, to));
        let rest = |pods: &[PodIndex], taken: usize| {
            pods.iter().copied().enumerate().skip(count.saturating_mul(taken)).collect::<Vec<_>>()
        };
        let grow = rest(&self.to, of_to).into_iter();
        let grow = grow.map(|(index, pod)| unit(UnitKind::GrowAlone, index, &[], &[pod]));
        let shrink = rest(&self.from, of_from).into_iter();
        let shrink = shrink.map(|(index, pod)| unit(UnitKind::ShrinkAlone, index, &[pod], &[]));
        pairs.chain(grow).chain(shrink).collect()
    }
}

#[cfg(test)]
mod tests;
