use super::*;
use crate::fixtures::{at, fill, group, observed_of, overlay, pod, profile, switching};
use crate::observed::{MemberIndex, Usage};
use crate::sizes::Demand;
use crate::transition::course;
use crate::units::units;
use proptest::prelude::*;
use serde_json::{Value, json};
use springtide_plumbing::workloads::amounts::Pair;

const GIB: i64 = 1 << 30;
const F: MemberIndex = MemberIndex(0);
const T: MemberIndex = MemberIndex(1);

fn index(member: MemberIndex) -> PodIndex {
    PodIndex { member, pod: 0 }
}

/// What to lay over a pod whose memory is asked for as so many GiB, and in force as so many; its limit is its request.
fn memory(asked: i64, in_force: i64) -> Value {
    let both = |gibi: i64| json!({"requests": {"memory": format!("{gibi}Gi")}, "limits": {"memory": format!("{gibi}Gi")}});
    json!({
        "spec": {"containers": [{"name": "app", "resources": both(asked)}]},
        "status": {"containerStatuses": [{
            "name": "app", "resources": both(in_force), "allocatedResources": {"memory": format!("{in_force}Gi")},
        }]},
    })
}

fn failed(mut over: Value) -> Value {
    overlay(
        &mut over,
        json!({"status": {"conditions": [{
            "type": "PodResizeInProgress", "status": "True", "reason": "Error", "message": "memory is used",
        }]}}),
    );
    over
}

/// Sizes of 8 GiB and 4 cores at peak, of 2 GiB and a fifth of a core at valley; limits are equal.
fn moving() -> Profile {
    let with_limits = |size: Size| {
        let of = size.of("app");
        let limits = Pair { cpu: None, memory: of.requests.memory };
        Size::new([("app".into(), Amounts { limits, ..of })])
    };
    let Profile { peak, valley } =
        profile(Demand { cpu: 4000, memory: 8 * GIB }, Demand { cpu: 200, memory: 2 * GIB });
    Profile { peak: with_limits(peak), valley: with_limits(valley) }
}

/// One pod of each member on a node that has so many free GiB beside them, in a switch from `pay` to `promo`.
fn unit(donor: Value, receiver: Value, free: i64) -> Observed {
    let moves = |name: &str| json!({"name": name, "memory": "Move"});
    let group = group(json!({
        "spec": {"members": [moves("pay"), moves("promo")]}, "status": switching(7, Some("pay"), Some("promo")),
    }));
    let pods = [("pay", vec![pod("pay-1", "n1", donor)]), ("promo", vec![pod("promo-1", "n1", receiver)])];
    let mut observed = observed_of(group, &pods);
    fill(&mut observed, Demand { cpu: 0, memory: free * GIB });
    observed
}

fn uses(observed: &mut Observed, member: MemberIndex, bytes: i64, age: i64) {
    let working_set = [("app".into(), bytes)].into();
    observed.members[member.0].pods[0].evidence.usage = Some(Usage { at: at(-age), working_set });
}

fn found(observed: &Observed) -> Scopes {
    let profiles = vec![moving(); observed.members.len()];
    let heading = *course(observed).heading().unwrap();
    let units = units(observed, &heading, &profiles);
    scopes(observed, &profiles, &units, &Room::of(observed), at(0))
}

/// What moves of the one that shrinks, and of the one that grows.
fn ways(observed: &Observed) -> (Scope, Scope) {
    let scopes = found(observed);
    (scopes.of(index(F), Level::Valley), scopes.of(index(T), Level::Peak))
}

#[test]
fn memory_moves_when_the_pod_uses_less_than_nine_tenths_of_what_it_is_left_with() {
    let limit = 2 * GIB * 9 / 10;
    for (used, age, expected) in [
        (limit - 1, 120, (Scope::Whole, Scope::Whole)),
        (limit + 1, 0, (Scope::Cpu, Scope::Cpu)),
        (1, 121, (Scope::Cpu, Scope::Cpu)),
    ] {
        let mut observed = unit(memory(8, 8), memory(2, 2), 0);
        uses(&mut observed, F, used, age);
        assert_eq!(ways(&observed), expected, "{used} bytes, {age} s ago");
    }
    let unknown = unit(memory(8, 8), memory(2, 2), 0);
    assert_eq!(ways(&unknown), (Scope::Cpu, Scope::Cpu));
    assert_eq!(shrink(&unknown.members[0].pods[0], &moving().valley, at(0)), Shrink::Unknown);
}

#[test]
fn memory_that_is_kept_never_moves() {
    let mut observed = unit(memory(8, 8), memory(2, 2), 100);
    uses(&mut observed, F, 1, 0);
    let mut kept = (*observed.group).clone();
    for member in &mut kept.spec.members {
        member.memory = MemoryPolicy::Keep;
    }
    observed.group = Arc::new(kept);
    assert_eq!(ways(&observed), (Scope::Cpu, Scope::Cpu));
}

#[test]
fn a_pod_that_grows_takes_the_memory_that_its_node_has_beside() {
    let unused = unit(memory(8, 8), memory(2, 2), 6);
    assert_eq!(ways(&unused), (Scope::Cpu, Scope::Whole));
    assert_eq!(ways(&unit(memory(8, 8), memory(2, 2), 5)), (Scope::Cpu, Scope::Cpu));
}

#[test]
fn what_has_moved_stays_moved_whatever_is_used_since() {
    let observed = unit(memory(2, 2), memory(8, 8), 0);
    assert_eq!(ways(&observed), (Scope::Whole, Scope::Whole));
    let under_way = unit(memory(2, 8), memory(8, 2), 0);
    assert_eq!(ways(&under_way), (Scope::Whole, Scope::Whole), "the kubelet has not looked yet");
}

#[test]
fn a_shrink_that_the_kubelet_refuses_gives_both_pods_their_memory_back() {
    let mut observed = unit(failed(memory(2, 8)), memory(8, 2), 0);
    assert!(is_shrink_refused(&observed.members[0].pods[0].pod));
    assert_eq!(ways(&observed), (Scope::MemoryBack, Scope::MemoryBack));
    let valley = moving().sized(Level::Valley, Scope::MemoryBack);
    assert_eq!(valley.of("app").limits.memory, Some(8 * GIB), "cpu goes its way alone");
    assert_eq!(valley.of("app").requests.cpu, Some(200));

    // The one has it back, the other one still asks.
    observed = unit(memory(8, 8), memory(8, 2), -6);
    observed.members[0].pods[0].evidence.memory_kept_until = Some(at(600));
    uses(&mut observed, F, 1, 0);
    assert_eq!(ways(&observed), (Scope::Cpu, Scope::MemoryBack));

    // Both have, and for a while it is not tried again.
    observed = unit(memory(8, 8), memory(2, 2), 0);
    observed.members[0].pods[0].evidence.memory_kept_until = Some(at(1));
    uses(&mut observed, F, 1, 0);
    assert_eq!(ways(&observed), (Scope::Cpu, Scope::Cpu));
    observed.members[0].pods[0].evidence.memory_kept_until = Some(at(0));
    assert_eq!(ways(&observed), (Scope::Whole, Scope::Whole));
}

#[test]
fn a_receiver_that_claims_first_keeps_its_claim_until_the_other_one_has_shrunk() {
    let mut observed = unit(memory(8, 8), memory(8, 2), -6);
    uses(&mut observed, F, 1, 0);
    assert_eq!(ways(&observed), (Scope::Whole, Scope::Whole));
}

#[test]
fn on_the_way_back_a_pod_that_never_got_its_memory_gives_it_up_unasked() {
    let observed = unit(memory(2, 2), memory(8, 2), 0);
    let scopes = found(&observed);
    assert_eq!(scopes.of(index(T), Level::Valley), Scope::Whole);
    assert_eq!(scopes.of(index(F), Level::Peak), Scope::Whole);
    let grown = found(&unit(memory(2, 2), memory(8, 8), 0));
    assert_eq!(grown.of(index(T), Level::Valley), Scope::Cpu, "nobody knows what it uses by now");
    assert_eq!(grown.of(index(F), Level::Peak), Scope::Cpu, "so there is no room");
}

#[test]
fn a_resize_that_fails_for_another_reason_is_no_refused_shrink() {
    assert!(!is_shrink_refused(&pod("pay-1", "n1", failed(memory(8, 2)))));
    assert!(!is_shrink_refused(&pod("pay-1", "n1", memory(2, 8))));
}

#[test]
fn of_a_pod_that_is_not_known_cpu_moves_alone() {
    let scopes = found(&unit(memory(8, 8), memory(2, 2), 100));
    for pod in [PodIndex { member: F, pod: 9 }, PodIndex { member: MemberIndex(9), pod: 0 }] {
        assert_eq!(scopes.of(pod, Level::Peak), Scope::Cpu);
        assert_eq!(scopes.of(pod, Level::Valley), Scope::Cpu);
    }
}

proptest! {
    #[test]
    fn pods_that_grow_by_their_scopes_never_take_more_memory_than_there_is(
        donors in proptest::collection::vec((2..=8_i64, 0..3 * GIB), 1..6),
        receivers in proptest::collection::vec(2..=8_i64, 1..6),
        free in 0..20_i64,
    ) {
        let mut observed = unit(json!({}), json!({}), 0);
        let made = |name: &str, place: usize, gibi: i64| {
            let mut found = observed.members[0].pods[0].clone();
            found.pod = pod(&format!("{name}-{place}"), "n1", memory(gibi, gibi));
            found
        };
        let mut pays = Vec::new();
        for (place, (gibi, used)) in donors.iter().enumerate() {
            let mut found = made("pay", place, *gibi);
            found.evidence.usage = Some(Usage { at: at(0), working_set: [("app".into(), *used)].into() });
            pays.push(found);
        }
        let promos: Vec<_> =
            receivers.iter().enumerate().map(|(place, gibi)| made("promo", place, *gibi)).collect();
        observed.members[0].pods = pays;
        observed.members[1].pods = promos;
        fill(&mut observed, Demand { cpu: 0, memory: free * GIB });
        let scopes = found(&observed);
        let profile = moving();
        let mut left = free * GIB;
        for (member, level) in [(F, Level::Valley), (T, Level::Peak)] {
            for (place, found) in observed.members[member.0].pods.iter().enumerate() {
                let scope = scopes.of(PodIndex { member, pod: place }, level);
                left -= change(&found.pod, &profile.sized(level, scope)).memory;
                if level == Level::Valley && scope == Scope::Whole && found.pod.containers[0].amounts.limits.memory > Some(2 * GIB) {
                    let used = donors[place].1;
                    prop_assert!(used * 100 < 2 * GIB * SAFE_PERCENT, "{used} bytes are used");
                }
            }
        }
        prop_assert!(left >= 0, "overdrawn by {left}");
    }
}
