use super::*;
use crate::fixtures::{GIB, VALLEY, at, member, observed, on_stage, overlay, pod, profile, profiles, sized};
use proptest::prelude::*;
use serde_json::{Value, json};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::workloads::pod::PodView;
use std::collections::{BTreeMap, BTreeSet};

const PAY: MemberIndex = MemberIndex(0);
const PROMO: MemberIndex = MemberIndex(1);
const GAMES: MemberIndex = MemberIndex(2);

const fn demand(cpu: i64, memory: i64) -> Demand {
    Demand { cpu, memory: memory * GIB }
}

fn heading(from: Option<MemberIndex>, to: Option<MemberIndex>) -> Heading {
    Heading { id: 42, from, to, is_return: false }
}

/// Pods of a member on these nodes, named by their order.
fn pods(member: &str, nodes: &[&str]) -> Vec<Arc<PodView>> {
    let named = nodes.iter().zip(1..);
    named.map(|(node, number)| pod(&format!("{member}-{number}"), node, json!({}))).collect()
}

/// Names of pods.
fn names(observed: &Observed, pods: impl IntoIterator<Item = PodIndex>) -> Vec<String> {
    pods.into_iter().map(|pod| observed.pod(pod).unwrap().pod.meta().key.name.to_string()).collect()
}

/// Kind and pods of each unit, in order.
fn told(observed: &Observed, units: &[Unit]) -> Vec<(UnitKind, Vec<String>)> {
    units.iter().map(|unit| (unit.kind, names(observed, unit.pods()))).collect()
}

fn texts(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn a_block_covers_each_resource_that_both_move() {
    let block_of = |from, to| {
        let Block { from, to } = block(from, to);
        (from, to)
    };
    assert_eq!(block_of(demand(1000, 0), demand(1000, 0)), (1, 1));
    assert_eq!(block_of(demand(1000, 0), demand(3000, 0)), (3, 1));
    assert_eq!(block_of(demand(1000, 0), demand(2001, 0)), (3, 1), "two are not enough");
    assert_eq!(
        block_of(demand(1000, 8), demand(3000, 4)),
        (3, 2),
        "one moves more cpu, the other more memory"
    );
    assert_eq!(block_of(demand(1000, 0), demand(0, 9)), (1, 1), "they have nothing in common");
    assert_eq!(block_of(demand(-1, 0), demand(1000, 0)), (1, 1), "no such size is stored");
    assert_eq!(block_of(demand(1, 0), demand(i64::MAX, 0)), (BLOCK_MAX, 1));
}

#[test]
fn a_node_has_pairs_and_who_is_left_over_alone() {
    let placed = [
        ("pay", pods("pay", &["n1", "n1", "n1", "n2"])),
        ("promo", pods("promo", &["n1", "n3", "n3"])),
        ("games", pods("games", &["n1"])),
    ];
    let mut spec = json!({"members": [member("games")]});
    let observed_of = |spec: &Value| observed(spec.clone(), &placed);
    let seen = observed_of(&spec);
    let found = units(&seen, &heading(Some(PROMO), Some(PAY)), &profiles(&seen));
    let kinds: BTreeSet<_> =
        told(&seen, &found.units).into_iter().map(|(kind, pods)| (format!("{kind:?}"), pods)).collect();
    let expected: [(&str, &[&str]); 6] = [
        ("GrowAlone", &["pay-2"]),
        ("GrowAlone", &["pay-3"]),
        ("GrowAlone", &["pay-4"]),
        ("Pair", &["promo-1", "pay-1"]),
        ("ShrinkAlone", &["promo-2"]),
        ("ShrinkAlone", &["promo-3"]),
    ];
    assert_eq!(kinds, BTreeSet::from(expected.map(|(kind, pods)| (kind.to_owned(), texts(pods)))));
    let last: Vec<_> = found.units[4..].iter().map(|unit| (unit.kind, unit.index)).collect();
    assert_eq!(last, [(UnitKind::ShrinkAlone, 0), (UnitKind::ShrinkAlone, 1)]);
    let pair = found.units.iter().find(|unit| unit.kind == UnitKind::Pair).unwrap();
    assert_eq!((pair.growth, pair.freed), (demand(3800, 0), demand(3800, 0)));
    assert_eq!(names(&seen, pair.lead()), ["pay-1"]);
    assert_eq!(names(&seen, found.strays.iter().map(|stray| stray.pod)), ["games-1"]);
    spec["pairing"] = json!({"unpaired": "Leave"});
    let seen = observed_of(&spec);
    let found = units(&seen, &heading(Some(PROMO), Some(PAY)), &profiles(&seen));
    assert_eq!(names(&seen, found.left), ["pay-3", "pay-4"], "games could shrink for one");
    let alone = found.units.iter().filter(|unit| unit.kind == UnitKind::GrowAlone);
    assert_eq!(names(&seen, alone.flat_map(Unit::pods)), ["pay-2"]);
}

#[test]
fn pods_of_unequal_sizes_go_by_blocks_and_the_last_one_may_be_short() {
    let placed = [("pay", pods("pay", &["n1", "n1"])), ("promo", pods("promo", &["n1"; 8]))];
    let seen = observed(json!({}), &placed);
    let sizes = [profile(demand(6000, 1), demand(0, 1)), profile(demand(2000, 1), demand(0, 1))];
    let found = units(&seen, &heading(Some(PROMO), Some(PAY)), &sizes);
    let expected = [
        (UnitKind::Pair, texts(&["promo-1", "promo-2", "promo-3", "pay-1"])),
        (UnitKind::Pair, texts(&["promo-4", "promo-5", "promo-6", "pay-2"])),
        (UnitKind::ShrinkAlone, texts(&["promo-7"])),
        (UnitKind::ShrinkAlone, texts(&["promo-8"])),
    ];
    assert_eq!(told(&seen, &found.units), expected);
    assert_eq!((found.units[0].growth, found.units[0].freed), (demand(6000, 0), demand(6000, 0)));
    let back = units(&seen, &heading(Some(PAY), Some(PROMO)), &sizes);
    assert_eq!(told(&seen, &back.units)[0].1, texts(&["pay-1", "promo-1", "promo-2", "promo-3"]));
    let short =
        observed(json!({}), &[("pay", pods("pay", &["n1", "n1"])), ("promo", pods("promo", &["n1"; 4]))]);
    let found = units(&short, &heading(Some(PROMO), Some(PAY)), &sizes);
    assert_eq!(told(&short, &found.units)[1], (UnitKind::Pair, texts(&["promo-4", "pay-2"])));
}

#[test]
fn with_nobody_on_one_side_each_pod_is_alone() {
    let placed = [("pay", pods("pay", &["n1", "n2"])), ("promo", pods("promo", &["n1"]))];
    let seen = observed(json!({}), &placed);
    let of = |from, to| units(&seen, &heading(from, to), &profiles(&seen));
    let kinds = |found: &Units| found.units.iter().map(|unit| unit.kind).collect::<Vec<_>>();
    let up = of(None, Some(PAY));
    assert_eq!((kinds(&up), up.strays.len()), (vec![UnitKind::GrowAlone; 2], 1));
    let down = of(Some(PAY), None);
    assert_eq!((kinds(&down), down.strays.len()), (vec![UnitKind::ShrinkAlone; 2], 1));
    let none = of(None, None);
    assert_eq!((none.units.len(), none.strays.len()), (0, 3));
    assert_eq!(kinds(&of(Some(PAY), Some(PAY))), kinds(&up), "who gives to himself gives nothing up");
}

#[test]
fn where_nobody_had_the_peak_those_are_left_whom_no_member_could_shrink_for() {
    let placed = [("pay", pods("pay", &["n1", "n1", "n2"])), ("promo", pods("promo", &["n1"]))];
    let seen = observed(json!({"pairing": {"unpaired": "Leave"}}), &placed);
    let found = units(&seen, &heading(None, Some(PAY)), &profiles(&seen));
    assert_eq!(told(&seen, &found.units), [(UnitKind::GrowAlone, texts(&["pay-1"]))]);
    assert_eq!(names(&seen, found.left), ["pay-2", "pay-3"]);
}

#[test]
fn a_newcomer_comes_last_on_its_node() {
    let late = |name: &str| pod(name, "n1", json!({"metadata": {"creationTimestamp": at(0).to_string()}}));
    let mut pay = pods("pay", &["n1", "n1"]);
    pay.insert(0, late("pay-0"));
    let seen = observed(json!({}), &[("pay", pay), ("promo", pods("promo", &["n1", "n1", "n1"]))]);
    let found = units(&seen, &heading(Some(PROMO), Some(PAY)), &profiles(&seen));
    let leads: Vec<_> = found.units.iter().filter_map(Unit::lead).collect();
    assert_eq!(names(&seen, leads), ["pay-1", "pay-2", "pay-0"]);
}

#[test]
fn each_switch_has_other_canaries() {
    let nodes: Vec<_> = (0..40).map(|number| format!("n{number}")).collect();
    let nodes: Vec<_> = nodes.iter().map(String::as_str).collect();
    let seen = observed(json!({}), &[("pay", pods("pay", &nodes)), ("promo", pods("promo", &nodes))]);
    let first = |id| {
        let heading = Heading { id, ..heading(Some(PROMO), Some(PAY)) };
        units(&seen, &heading, &profiles(&seen)).units[0].node.to_string()
    };
    let firsts: BTreeSet<_> = (1..20).map(first).collect();
    assert!(firsts.len() > 5, "{firsts:?}");
    assert_eq!(first(7), first(7));
}

/// What one pod of a random group is: its member, its node if it has one, how late it came, and what size it has.
type AnyPod = (usize, Option<usize>, i64, usize);

fn any_pods() -> impl Strategy<Value = Vec<AnyPod>> {
    let pod = (0..3_usize, proptest::option::weighted(0.9, 0..4_usize), 0..3_i64, 0..4_usize);
    proptest::collection::vec(pod, 0..24)
}

const MEMBERS: [&str; 3] = ["pay", "promo", "games"];

/// A random group; `sizes` says whether its pods have other sizes than the valley's.
fn seen(pods: &[AnyPod], spec: &Value, sizes: bool) -> Observed {
    let mut by_member: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    for (number, (member, node, late, size)) in pods.iter().enumerate() {
        let created = json!({"metadata": {"creationTimestamp": at(*late).to_string()}});
        let mut over = match size {
            0 if sizes => on_stage(),
            1 if sizes => sized("4", "200m"),
            2 if sizes => sized("1", "4"),
            _ => json!({}),
        };
        overlay(&mut over, created);
        overlay(&mut over, json!({"spec": {"nodeName": node.map(|node| format!("n{node}"))}}));
        let member = MEMBERS[*member];
        by_member.entry(member).or_default().push(pod(&format!("{member}-{number}"), "n0", over));
    }
    let mut whole = json!({"members": [member("games")]});
    overlay(&mut whole, spec.clone());
    observed(whole, &by_member.into_iter().collect::<Vec<_>>())
}

fn any_heading() -> impl Strategy<Value = Heading> {
    let side = || proptest::option::weighted(0.8, prop_oneof![Just(PAY), Just(PROMO), Just(GAMES)]);
    (1..9_u32, side(), side(), any::<bool>()).prop_map(|(id, from, to, is_return)| Heading {
        id,
        from,
        to,
        is_return,
    })
}

fn any_profiles() -> impl Strategy<Value = Vec<Profile>> {
    let one =
        (0..5_i64, 0..3_i64).prop_map(|(cpu, memory)| profile(VALLEY + demand(cpu * 1000, memory), VALLEY));
    proptest::collection::vec(one, 3)
}

proptest! {
    #[test]
    fn each_pod_is_in_one_place_once(
        pods in any_pods(), heading in any_heading(), profiles in any_profiles(), leaves in any::<bool>(),
    ) {
        let pairing = if leaves { "Leave" } else { "GrowWhenFree" };
        let seen = seen(&pods, &json!({"pairing": {"unpaired": pairing}}), true);
        let found = units(&seen, &heading, &profiles);
        let in_units: Vec<_> = found.units.iter().flat_map(Unit::pods).collect();
        let strays = found.strays.iter().map(|stray| stray.pod);
        let mut all: Vec<_> = in_units.iter().copied().chain(strays).chain(found.left.clone()).chain(found.unbound.clone()).collect();
        all.sort_unstable();
        let mut expected = Vec::new();
        for (number, member) in seen.members.iter().enumerate() {
            expected.extend((0..member.pods.len()).map(|pod| PodIndex { member: MemberIndex(number), pod }));
        }
        prop_assert_eq!(all, expected);
        let (from, to) = heading.sides();
        for unit in &found.units {
            let on_node = unit.pods().all(|pod| seen.pod(pod).unwrap().pod.node.as_ref() == Some(&unit.node));
            prop_assert!(on_node);
            prop_assert!(unit.from.iter().all(|pod| Some(pod.member) == from));
            prop_assert!(unit.to.iter().all(|pod| Some(pod.member) == to));
            let is_of_kind = match unit.kind {
                UnitKind::Pair => !unit.from.is_empty() && !unit.to.is_empty(),
                UnitKind::GrowAlone => unit.from.is_empty() && unit.to.len() == 1,
                UnitKind::ShrinkAlone => unit.from.len() == 1 && unit.to.is_empty(),
            };
            prop_assert!(is_of_kind && unit.lead().is_some());
        }
        prop_assert!(found.left.iter().all(|pod| leaves && Some(pod.member) == to));
        prop_assert!(found.strays.iter().all(|stray| Some(stray.pod.member) != from && Some(stray.pod.member) != to));
    }

    #[test]
    fn units_do_not_depend_on_the_sizes_that_pods_have(
        pods in any_pods(), heading in any_heading(), profiles in any_profiles(),
    ) {
        let of = |sizes| units(&seen(&pods, &json!({}), sizes), &heading, &profiles);
        prop_assert_eq!(of(true), of(false));
    }

    #[test]
    fn pods_of_one_node_change_nothing_about_the_order_of_others(
        pods in any_pods(), heading in any_heading(), profiles in any_profiles(), gone in 0..4_usize,
    ) {
        let told_of = |pods: &[AnyPod]| {
            let seen = seen(pods, &json!({}), true);
            let gone = format!("n{gone}");
            let found = units(&seen, &heading, &profiles);
            let kept: Vec<_> = found.units.into_iter().filter(|unit| *unit.node != *gone).collect();
            kept.iter().map(|unit| (unit.node.to_string(), unit.kind, unit.index)).collect::<Vec<_>>()
        };
        let mut fewer = pods.clone();
        for pod in &mut fewer {
            pod.1 = pod.1.filter(|node| *node != gone);
        }
        prop_assert_eq!(told_of(&pods), told_of(&fewer));
    }

    #[test]
    fn a_return_has_the_units_of_the_switch_before_it_backwards(
        pods in any_pods(), heading in any_heading(), profiles in any_profiles(),
    ) {
        let there = Heading { is_return: false, ..heading };
        let back = Heading { id: there.id + 1, from: there.to, to: there.from, is_return: true };
        let seen = seen(&pods, &json!({}), true);
        let sets = |heading: &Heading| {
            let found = units(&seen, heading, &profiles).units;
            found.iter().map(|unit| unit.pods().collect::<BTreeSet<_>>()).collect::<Vec<_>>()
        };
        // Who gives to himself has no way back.
        prop_assume!(there.from != there.to);
        let mut backwards = sets(&back);
        backwards.reverse();
        prop_assert_eq!(sets(&there), backwards);
    }

    #[test]
    fn a_block_is_the_same_both_ways_and_covers(
        from in (0..20_i64, 0..20_i64), to in (0..20_i64, 0..20_i64),
    ) {
        let (from, to) = (demand(from.0, from.1), demand(to.0, to.1));
        let (there, back) = (block(from, to), block(to, from));
        prop_assert_eq!((there.from, there.to), (back.to, back.from));
        prop_assert!((1..=BLOCK_MAX).contains(&there.from) && (1..=BLOCK_MAX).contains(&there.to));
        let (freed, growth) = (from.times(there.from), to);
        for (freed, growth) in [(freed.cpu, growth.cpu), (freed.memory, growth.memory)] {
            prop_assert!(freed == 0 || growth == 0 || freed >= growth || there.from == BLOCK_MAX);
        }
    }

    #[test]
    fn a_node_that_holds_both_ends_holds_all_between(
        from in (1..20_i64, 0..20_i64), to in (1..20_i64, 0..20_i64), blocks in 1..6_u32,
    ) {
        let (from, to) = (demand(from.0, from.1), demand(to.0, to.1));
        let block = block(from, to);
        let at = |moved: u32| from.times(block.from * (blocks - moved)) + to.times(block.to * moved);
        let room = at(0).max(at(blocks));
        for moved in 0..=blocks {
            prop_assert!(at(moved).fits(room));
        }
    }
}
