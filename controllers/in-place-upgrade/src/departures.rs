//! Pods that a pass of an object has just decided to write, and of which the stores do not say so yet. Two workloads may be
//! under one PodDisruptionBudget, and both wake at the same events: each would find the same room.

use crate::lock;
use springtide_plumbing::key::{ObjectKey, Resource, Uid};
use springtide_plumbing::plan::{Action, Plan, Write};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

/// What passes have decided, by object.
#[derive(Clone, Debug, Default)]
pub(crate) struct Departures {
    decided: Arc<Mutex<Decided>>,
}

#[derive(Debug, Default)]
struct Decided {
    /// How many decisions there have been.
    turn: u64,
    by_object: HashMap<ObjectKey, (u64, HashSet<Uid>)>,
}

/// What others have decided when a pass begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Departing {
    /// How many decisions there had been.
    turn: u64,
    /// Pods of other objects' passes.
    pub pods: HashSet<Uid>,
}

impl Departures {
    /// A pass of an object begins, or there is no such object any more: what its last pass has done the stores show by now.
    pub(crate) fn begin(&self, key: &ObjectKey) -> Departing {
        let mut decided = lock(&self.decided);
        decided.by_object.remove(key);
        let others = decided.by_object.iter().filter(|(other, _)| other.namespace == key.namespace);
        let pods = others.flat_map(|(_, (_, pods))| pods).cloned().collect();
        Departing { turn: decided.turn, pods }
    }

    /// Whether what a pass has planned may be done; if not, another object of its namespace has decided first, and is to be
    /// looked at before.
    pub(crate) fn decide(&self, key: &ObjectKey, begun: &Departing, plan: &Plan) -> bool {
        let writes = plan.stages.iter().flatten().flat_map(|step| step.writes());
        let is_question = |write: &Write| matches!(write.action, Action::DryRun { .. });
        let on_pods = writes.filter(|write| write.resource == Resource::POD && !is_question(write));
        let pods: HashSet<Uid> =
            on_pods.filter_map(|write| write.action.uid()).map(|uid| Uid(uid.into())).collect();
        if pods.is_empty() {
            return true;
        }
        let mut decided = lock(&self.decided);
        let is_late = |(other, (turn, _)): (&ObjectKey, &(u64, _))| {
            other != key && other.namespace == key.namespace && *turn > begun.turn
        };
        if decided.by_object.iter().any(is_late) {
            return false;
        }
        decided.turn += 1;
        let turn = decided.turn;
        decided.by_object.insert(key.clone(), (turn, pods));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{at, pod};
    use crate::traffic::given_back;
    use serde_json::json;
    use springtide_plumbing::plan::Outcome;
    use springtide_plumbing::workloads::names::UPGRADE_TRAFFIC;

    fn writing(name: &str) -> Plan {
        let closed = json!({"type": UPGRADE_TRAFFIC.gate, "status": "False", "message": "run=7c9f21ab04de"});
        let pod = pod(
            name,
            json!({
                "spec": {"readinessGates": [{"conditionType": UPGRADE_TRAFFIC.gate}]},
                "status": {"conditions": [closed]},
            }),
        );
        let mut plan = Plan::idle(Outcome::Progressing);
        plan.stages = vec![given_back(&pod, None, at(0)).into_iter().collect()];
        plan
    }

    #[test]
    fn of_two_passes_at_a_time_the_second_one_looks_again_and_sees_the_pods_of_the_first() {
        let departures = Departures::default();
        let (a, b, elsewhere) =
            (ObjectKey::new("ns", "a"), ObjectKey::new("ns", "b"), ObjectKey::new("other", "a"));
        let [of_a, of_b, of_other] = [&a, &b, &elsewhere].map(|key| departures.begin(key));
        assert!(departures.decide(&a, &of_a, &writing("a-1")));
        assert!(!departures.decide(&b, &of_b, &writing("b-1")), "it has not seen a-1");
        assert!(departures.decide(&b, &of_b, &Plan::idle(Outcome::Progressing)), "that takes nothing");
        assert!(departures.decide(&elsewhere, &of_other, &writing("a-1")), "no budget is of two namespaces");
        let again = departures.begin(&b);
        assert_eq!(again.pods, [Uid("a-1".into())].into());
        assert!(departures.decide(&b, &again, &writing("b-1")));
        assert_eq!(departures.begin(&a).pods, [Uid("b-1".into())].into(), "its own are in the stores");
        assert!(departures.begin(&b).pods.is_empty());
    }
}
