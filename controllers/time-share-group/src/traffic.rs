//! Who of a group's pods is to serve, and by what that is turned.
//!
//! A pod is turned by the lever of its member's mode, and by no other: a gate that it lists in a mode of labels, say, lets
//! traffic through at any size, or it would never be ready. Whether a pod is to serve follows from the size that it is to
//! have ([`goals`]); *when* that is turned is a matter of its unit ([`machine`](crate::machine)).
//!
//! - [`trickle`] is which pods go on to serve at valley size.
//! - [`route`] is the weight of a member's backend, where no pod is turned at all.

pub mod route;
pub mod trickle;

use crate::observed::{Member, Observed, PodIndex};
use crate::sizes::Level;
use jiff::Timestamp;
use springtide_crds::time_share_group::{Member as MemberSpec, TrafficMode, ValleyTraffic};
use springtide_plumbing::key::Resource;
use springtide_plumbing::plan::{Write, WriteClass};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::traffic::{DrainRule, Lever, Signals, Traffic};
use springtide_plumbing::workloads::names::TIME_SHARE_TRAFFIC;
use springtide_plumbing::workloads::pod::PodView;

/// Whether a pod is to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TrafficGoal {
    /// It is, once it has its size.
    On,
    /// It is not.
    Off,
    /// Nothing turns its traffic: that is not what its member's mode does, or it has not the gate.
    Leave,
}

/// Which pods of a group are to serve, by the size that they are to have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrafficGoals {
    /// What is to be at valley size, by member and pod. At peak size it is traffic for each that can be turned.
    at_valley: Vec<Vec<TrafficGoal>>,
}

impl TrafficGoals {
    /// Whether this pod is to serve at a size; a pod that nobody knows is left alone.
    pub fn of(&self, pod: PodIndex, level: Level) -> TrafficGoal {
        let of_member = self.at_valley.get(pod.member.0);
        let at_valley = of_member.and_then(|pods| pods.get(pod.pod)).copied().unwrap_or(TrafficGoal::Leave);
        match (at_valley, level) {
            (TrafficGoal::Leave, Level::Peak | Level::Valley) => TrafficGoal::Leave,
            (TrafficGoal::On | TrafficGoal::Off, Level::Peak) => TrafficGoal::On,
            (TrafficGoal::On, Level::Valley) => TrafficGoal::On,
            (TrafficGoal::Off, Level::Valley) => TrafficGoal::Off,
        }
    }
}

/// Which pods are to serve, by spec, pods and nodes alone: sizes and what is turned now play no part, so that it stays
/// while a group switches.
pub fn goals(observed: &Observed) -> TrafficGoals {
    let members = observed.group.spec.members.iter().zip(&observed.members);
    TrafficGoals { at_valley: members.map(|(spec, member)| at_valley(spec, member)).collect() }
}

fn at_valley(spec: &MemberSpec, member: &Member) -> Vec<TrafficGoal> {
    let goal = match spec.traffic.valley {
        ValleyTraffic::Off | ValleyTraffic::Trickle => TrafficGoal::Off,
        ValleyTraffic::Keep => TrafficGoal::On,
    };
    let has_lever = |pod: &PodView| lever(spec, pod).is_some();
    let goal_of = |pod: &PodView| if has_lever(pod) { goal } else { TrafficGoal::Leave };
    let mut goals: Vec<_> = member.pods.iter().map(|found| goal_of(&found.pod)).collect();
    if let (ValleyTraffic::Trickle, Some(part)) = (spec.traffic.valley, spec.traffic.trickle) {
        for number in trickle::chosen(member, trickle::count(member, part), has_lever) {
            if let Some(goal) = goals.get_mut(number) {
                *goal = TrafficGoal::On;
            }
        }
    }
    goals
}

/// By what traffic of a member's pod is turned; `None` where the mode turns no pods, and for a pod that has not the gate:
/// nobody can give it one. A label can be put on any pod.
pub fn lever(member: &MemberSpec, pod: &PodView) -> Option<Lever> {
    match member.traffic.mode {
        TrafficMode::ServiceLabel => Some(Lever::ServiceLabel),
        TrafficMode::ReadinessGate => pod.time_share.has_gate.then_some(Lever::ReadinessGate),
        TrafficMode::None | TrafficMode::HttpRoute => None,
    }
}

/// Whether a pod would keep all its traffic at valley size although its member is to have none there: it has not the gate
/// of the member's mode, as one that is older than the template with the gate.
pub fn never_leaves(member: &MemberSpec, pod: &PodView) -> bool {
    let is_to_leave = match member.traffic.valley {
        ValleyTraffic::Off | ValleyTraffic::Trickle => true,
        ValleyTraffic::Keep => false,
    };
    let is_turned = match member.traffic.mode {
        TrafficMode::ServiceLabel | TrafficMode::ReadinessGate => true,
        TrafficMode::None | TrafficMode::HttpRoute => false,
    };
    is_to_leave && is_turned && lever(member, pod).is_none()
}

/// How pods of a member are drained.
pub fn drain_rule(member: &MemberSpec) -> DrainRule {
    DrainRule::from(&member.traffic.drain)
}

/// Whether a pod gets traffic, as far as its member's lever says: what nobody has turned on gets none, and a pod without a
/// lever always does.
pub fn serves(member: &MemberSpec, pod: &PodView) -> bool {
    lever(member, pod).is_none_or(|lever| pod.time_share.traffic(lever) == Traffic::On)
}

/// What is to be turned for a goal: which lever, and whether on. What lets nothing through already is not written to say
/// so, whoever it was and also where nobody was: a gate that was never set and a label that is not there are never turned
/// off.
pub fn due(member: &MemberSpec, pod: &PodView, goal: TrafficGoal) -> Option<(Lever, bool)> {
    let lever = lever(member, pod)?;
    let is_on = pod.time_share.traffic(lever) == Traffic::On;
    match goal {
        TrafficGoal::On => (!is_on).then_some((lever, true)),
        TrafficGoal::Off => is_on.then_some((lever, false)),
        TrafficGoal::Leave => None,
    }
}

/// The levers that a pod has and that let no traffic through, whoever has turned them.
pub fn closed(signals: &Signals) -> impl Iterator<Item = Lever> {
    let levers = [(Lever::ReadinessGate, signals.has_gate), (Lever::ServiceLabel, signals.label.is_some())];
    let closed =
        levers.into_iter().filter(|(lever, is_there)| *is_there && signals.traffic(*lever) != Traffic::On);
    closed.map(|(lever, _)| lever)
}

/// Those of the [`closed`] levers of a member's pod that are not of the member's mode: they are turned on at any size.
pub fn strange(member: &MemberSpec, pod: &PodView) -> impl Iterator<Item = Lever> {
    let own = lever(member, pod);
    closed(&pod.time_share).filter(move |lever| Some(*lever) != own)
}

/// Lets traffic to a pod.
pub fn turn_on(pod: &PodView, lever: Lever, now: Timestamp) -> Write {
    let meta = pod.meta();
    let action = TIME_SHARE_TRAFFIC.turn_on(lever, &meta.uid, &pod.time_share, now);
    Write { resource: Resource::POD, key: meta.key.clone(), class: WriteClass::Protective, action }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{at, observed, overlay, pod, serving};
    use crate::observed::MemberIndex;
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use std::sync::Arc;

    /// Laid over a pod that lists the gate, with its condition.
    fn gated(condition: Value) -> Value {
        let mut over = json!({
            "spec": {"readinessGates": [{"conditionType": TIME_SHARE_TRAFFIC.gate}]},
            "metadata": {"labels": {TIME_SHARE_TRAFFIC.label: "true"}},
        });
        if let Some(status) = condition.as_str() {
            let condition = json!({"type": TIME_SHARE_TRAFFIC.gate, "status": status, "message": "run=7"});
            overlay(&mut over, json!({"status": {"conditions": [condition]}}));
        }
        over
    }

    /// A member `pay` whose traffic is this.
    fn member(traffic: Value) -> MemberSpec {
        let mut member = crate::fixtures::member("pay");
        member["traffic"] = traffic;
        serde_json::from_value(member).unwrap()
    }

    fn by_label() -> MemberSpec {
        member(json!({"mode": "ServiceLabel"}))
    }

    fn by_gate() -> MemberSpec {
        member(json!({"mode": "ReadinessGate"}))
    }

    fn made(over: Value) -> Arc<PodView> {
        pod("pay-1", "n1", over)
    }

    #[test]
    fn the_mode_says_what_turns_a_pod_and_a_gate_can_be_given_to_nobody() {
        let (bare, gated) = (made(json!({})), made(gated(Value::Null)));
        assert_eq!(lever(&by_label(), &bare), Some(Lever::ServiceLabel));
        assert_eq!(lever(&by_gate(), &gated), Some(Lever::ReadinessGate));
        assert_eq!(lever(&by_gate(), &bare), None);
        for mode in ["None", "HTTPRoute"] {
            assert_eq!(lever(&member(json!({"mode": mode})), &gated), None, "{mode}");
        }
    }

    #[test]
    fn a_pod_without_the_gate_of_its_mode_never_leaves_unless_it_may_stay() {
        let (bare, gated) = (made(json!({})), made(gated(Value::Null)));
        assert!(never_leaves(&by_gate(), &bare) && !never_leaves(&by_gate(), &gated));
        assert!(!never_leaves(&by_label(), &bare));
        for traffic in [json!({}), json!({"mode": "ReadinessGate", "valley": "Keep"})] {
            assert!(!never_leaves(&member(traffic.clone()), &bare), "{traffic}");
        }
    }

    #[test]
    fn what_lets_nothing_through_is_not_turned_off_once_more() {
        let on = made(serving("true"));
        assert_eq!(due(&by_label(), &on, TrafficGoal::Off), Some((Lever::ServiceLabel, false)));
        assert_eq!(due(&by_label(), &on, TrafficGoal::On), None);
        let mut bare = PodView::clone(&on);
        bare.time_share.label = None;
        for off in [made(serving("false")), made(serving("by hand")), Arc::new(bare)] {
            assert_eq!(due(&by_label(), &off, TrafficGoal::Off), None);
            assert_eq!(due(&by_label(), &off, TrafficGoal::On), Some((Lever::ServiceLabel, true)));
            assert_eq!(due(&by_label(), &off, TrafficGoal::Leave), None);
            assert!(!serves(&by_label(), &off));
        }
        let unset = made(gated(Value::Null));
        assert_eq!(due(&by_gate(), &unset, TrafficGoal::Off), None);
        assert_eq!(due(&by_gate(), &unset, TrafficGoal::On), Some((Lever::ReadinessGate, true)));
        assert!(!serves(&by_gate(), &unset) && serves(&by_gate(), &made(gated(json!("True")))));
        assert!(serves(&by_gate(), &made(json!({}))), "without a gate it serves");
    }

    #[test]
    fn levers_of_another_mode_are_turned_on_at_any_size() {
        let shut = made({
            let mut over = gated(json!("False"));
            overlay(&mut over, serving("false"));
            over
        });
        let strange = |spec: &MemberSpec| strange(spec, &shut).collect::<Vec<_>>();
        assert_eq!(strange(&by_label()), [Lever::ReadinessGate]);
        assert_eq!(strange(&by_gate()), [Lever::ServiceLabel]);
        assert_eq!(strange(&member(json!({}))), [Lever::ReadinessGate, Lever::ServiceLabel]);
        let open = made(gated(json!("True")));
        assert_eq!(super::strange(&member(json!({})), &open).count(), 0);
        let write = turn_on(&shut, Lever::ReadinessGate, at(0));
        assert_eq!((write.class, write.action.uid()), (WriteClass::Protective, Some("pay-1")));
    }

    #[test]
    fn at_valley_the_spec_says_who_serves_and_at_peak_each_does() {
        let goals = |traffic: Value| {
            let spec = json!({"members": [{"name": "pay", "traffic": traffic}]});
            let pods = ["n1", "n2", "n3"].iter().zip(1..);
            let pods = pods.map(|(node, number)| pod(&format!("pay-{number}"), node, json!({}))).collect();
            goals(&observed(spec, &[("pay", pods)]))
        };
        let serving = |goals: &TrafficGoals, level| {
            let index = |pod| PodIndex { member: MemberIndex(0), pod };
            (0..3).filter(|pod| goals.of(index(*pod), level) == TrafficGoal::On).count()
        };
        for (traffic, at_valley) in [
            (json!({}), 0),
            (json!({"valley": "Keep"}), 3),
            (json!({"valley": "Trickle", "trickle": 2}), 2),
            (json!({"valley": "Trickle", "trickle": "1%"}), 1),
            (json!({"valley": "Trickle", "trickle": 9}), 3),
            (json!({"valley": "Trickle", "trickle": 0}), 0),
        ] {
            let goals = goals(traffic.clone());
            assert_eq!(serving(&goals, Level::Valley), at_valley, "{traffic}");
            assert_eq!(serving(&goals, Level::Peak), 3, "{traffic}");
        }
        let left = goals(json!({"mode": "None", "valley": "Keep"}));
        let nobody = PodIndex { member: MemberIndex(9), pod: 9 };
        for pod in [PodIndex { member: MemberIndex(0), pod: 0 }, nobody] {
            assert_eq!(left.of(pod, Level::Peak), TrafficGoal::Leave);
        }
    }

    proptest! {
        /// Whatever is turned now, nobody is to be without traffic at peak, and what is due by a goal is due no more once
        /// it is written.
        #[test]
        fn a_goal_that_is_written_is_met_and_none_is_off_at_peak(
            mode in prop::sample::select(vec!["ServiceLabel", "ReadinessGate", "None"]),
            valley in prop::sample::select(vec!["Off", "Keep", "Trickle"]),
            label in prop::sample::select(vec!["true", "false", "x"]),
            gate in prop::sample::select(vec![json!(null), json!("True"), json!("False")]),
        ) {
            let trickle = if valley == "Trickle" { json!(1) } else { json!(null) };
            let traffic = json!({"mode": mode, "valley": valley, "trickle": trickle});
            let mut over = gated(gate);
            overlay(&mut over, serving(label));
            let spec = json!({"members": [{"name": "pay", "traffic": traffic}]});
            let observed = observed(spec, &[("pay", vec![made(over.clone())])]);
            let spec = &observed.group.spec.members[0];
            let (goals, index) = (goals(&observed), PodIndex { member: MemberIndex(0), pod: 0 });
            prop_assert_ne!(goals.of(index, Level::Peak), TrafficGoal::Off);
            for level in [Level::Peak, Level::Valley] {
                let goal = goals.of(index, level);
                let Some((lever, is_on)) = due(spec, &made(over.clone()), goal) else { continue };
                let mut after = over.clone();
                let over = match (lever, is_on) {
                    (Lever::ReadinessGate, true) => gated(json!("True")),
                    (Lever::ReadinessGate, false) => gated(json!("False")),
                    (Lever::ServiceLabel, true) => serving("true"),
                    (Lever::ServiceLabel, false) => serving("false"),
                };
                overlay(&mut after, over);
                let after = made(after);
                prop_assert_eq!(due(spec, &after, goal), None);
                prop_assert_eq!(serves(spec, &after), is_on);
            }
        }
    }
}
