//! Groups in a switch, and what a plan makes of them, for tests.

use super::accept::accept;
use super::decision::{Decision, decide};
use super::situation::Situation;
use crate::fixtures::{at, group, observed_of, overlay, pod, switching};
use crate::observed::Observed;
use crate::transition::course;
use serde_json::{Value, json};
use springtide_plumbing::workloads::pod::PodView;
use std::sync::Arc;

/// A group with this object, and pods of pay and promo: the first one of either is on node n1, the second on n2 and so on.
pub(crate) fn found(object: Value, pay: &[Value], promo: &[Value]) -> Observed {
    let pods = |member: &str, over: &[Value]| -> Vec<Arc<PodView>> {
        let numbered = over.iter().zip(1..);
        let made = numbered
            .map(|(over, number)| pod(&format!("{member}-{number}"), &format!("n{number}"), over.clone()));
        made.collect()
    };
    observed_of(group(object), &[("pay", pods("pay", pay)), ("promo", pods("promo", promo))])
}

/// What follows at `at(100)`, and what is decided.
pub(crate) fn looked_at(observed: &Observed, look: impl FnOnce(&Situation<'_>, Decision)) {
    let course = course(observed);
    let accepted = accept(observed, &course, at(100)).unwrap();
    let situation = Situation::new(observed, accepted, course, at(100));
    let decision = decide(&situation);
    look(&situation, decision);
}

/// A group that is to have pay at peak, and is in the first step of the way there from promo, with changes laid over.
pub(crate) fn to_pay(over: Value) -> Value {
    let object = json!({
        "spec": {"schedule": {"defaultMember": "pay"}},
        "status": switching(7, Some("promo"), Some("pay")),
    });
    both(object, over)
}

/// The same when it has come there.
pub(crate) fn at_pay(over: Value) -> Value {
    let ended = json!({"status": {
        "activeMember": "pay", "transition": {"step": 3, "completionTime": at(50).to_string()},
    }});
    both(to_pay(ended), over)
}

/// One tree with another laid over.
pub(crate) fn both(mut one: Value, other: Value) -> Value {
    overlay(&mut one, other);
    one
}
