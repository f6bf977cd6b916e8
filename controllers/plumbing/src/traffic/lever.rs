//! By what a pod is taken out of traffic: read from the pod, and written as a patch of it.

use crate::key::Uid;
use crate::plan::{Action, Fields, Part, Patch};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use springtide_crds::common::{ConditionStatus, whole_seconds};
use springtide_crds::in_place_upgrade::TrafficMode;
use std::sync::Arc;

/// What stands before the hash of the run that turned a pod off.
const RUN: &str = "run=";
/// What stands before the time at which a label turned a pod off.
const SINCE: &str = "since=";
/// The most bytes of the name of a run that are read.
const RUN_MAX_BYTES: usize = 63;

/// The names by which one controller turns traffic of pods off and on. Nobody else writes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names {
    /// Condition type of its readiness gate.
    pub gate: &'static str,
    /// Key of its label, which is `"true"` in traffic and `"false"` out of it.
    pub label: &'static str,
    /// Key of the annotation that says by which run and since when the label is `"false"`: a label cannot.
    pub annotation: &'static str,
}

/// By what traffic of one pod is turned off and on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lever {
    /// A condition that `spec.readinessGates` lists: the kubelet sets Ready by it, and all Services follow.
    ReadinessGate,
    /// A label that Services select by.
    ServiceLabel,
}

/// One of `status.conditions` of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodCondition {
    /// Its type.
    #[serde(rename = "type")]
    pub type_: Arc<str>,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// For people; of a gate the run that set it.
    #[serde(default)]
    pub message: Option<Box<str>>,
    /// When `status` last changed.
    #[serde(default)]
    pub last_transition_time: Option<Timestamp>,
}

/// What a pod says about one controller's gate and label.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signals {
    /// Whether `spec.readinessGates` lists the gate.
    pub has_gate: bool,
    /// The gate's condition.
    pub condition: Option<PodCondition>,
    /// Value of the label.
    pub label: Option<Arc<str>>,
    /// Value of the annotation.
    pub annotation: Option<Arc<str>>,
}

/// Whether a lever lets traffic through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// It does.
    On,
    /// Nobody has said: the condition of the gate, or the label, is not there. A gate that nobody has set lets no
    /// traffic through, so whoever keeps the gate sets it.
    Unset,
    /// It does not.
    Off {
        /// The run that turned it off; `None` if something else did.
        run: Option<Arc<str>>,
        /// Since when, in whole seconds and so up to a second early; `None` if nothing says so.
        since: Option<Timestamp>,
    },
}

/// A pod has not what traffic is to be turned off by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pod has not {}", match .0 { Lever::ReadinessGate => "the readiness gate", Lever::ServiceLabel => "the label" })]
pub struct LeverMissing(pub Lever);

impl Names {
    /// Reads what a pod says. `gates` are the condition types of `spec.readinessGates`.
    pub fn signals<'a>(
        &self,
        gates: impl IntoIterator<Item = &'a str>,
        conditions: &[PodCondition],
        label: Option<Arc<str>>,
        annotation: Option<Arc<str>>,
    ) -> Signals {
        let condition = conditions.iter().find(|condition| &*condition.type_ == self.gate).cloned();
        let has_gate = gates.into_iter().any(|gate| gate == self.gate);
        Signals { has_gate, condition, label, annotation }
    }

    /// The patch that takes a pod out of traffic for a run. It is for one UID and any version: gate and label are ours alone,
    /// and a strategic merge touches no condition but ours, so that the kubelet's own writes are no conflict.
    ///
    /// The time since when it is out moves only if it is in traffic by this lever now, so that a time-out is not
    /// begun again by writing twice.
    pub fn turn_off(&self, lever: Lever, uid: &Uid, signals: &Signals, run: &str, now: Timestamp) -> Action {
        let since = match signals.traffic(lever) {
            Traffic::Off { since: Some(since), .. } => since.min(now),
            Traffic::Off { since: None, .. } | Traffic::On | Traffic::Unset => now,
        };
        match lever {
            Lever::ReadinessGate => self.gate_patch(uid, false, &format!("{RUN}{run}"), since),
            Lever::ServiceLabel => {
                let note = format!("{RUN}{run},{SINCE}{}", whole_seconds(since).0);
                self.label_patch(uid, "false", Value::String(note))
            }
        }
    }

    /// The patch that lets traffic to a pod, for one UID and any version.
    pub fn turn_on(&self, lever: Lever, uid: &Uid, signals: &Signals, now: Timestamp) -> Action {
        match lever {
            Lever::ReadinessGate => {
                let since = signals
                    .condition
                    .as_ref()
                    .filter(|condition| condition.status == ConditionStatus::True)
                    .and_then(|condition| condition.last_transition_time);
                self.gate_patch(uid, true, "", since.unwrap_or(now))
            }
            Lever::ServiceLabel => self.label_patch(uid, "true", Value::Null),
        }
    }

    fn gate_patch(&self, uid: &Uid, is_on: bool, message: &str, since: Timestamp) -> Action {
        let (status, reason) = if is_on { ("True", "InTraffic") } else { ("False", "OutOfTraffic") };
        let condition = json!({
            "type": self.gate,
            "status": status,
            "reason": reason,
            "message": message,
            "lastTransitionTime": whole_seconds(since).0.to_string(),
        });
        patch(uid, Part::Status, json!({"status": {"conditions": [condition]}}))
    }

    fn label_patch(&self, uid: &Uid, value: &str, annotation: Value) -> Action {
        let metadata = json!({"labels": {self.label: value}, "annotations": {self.annotation: annotation}});
        patch(uid, Part::Main, json!({"metadata": metadata}))
    }
}

fn patch(uid: &Uid, part: Part, fields: Value) -> Action {
    let patch = Patch::Strategic(Fields { uid: uid.clone(), resource_version: None, fields });
    Action::Patch { part, patch }
}

impl Signals {
    /// By what traffic of the pod is turned off and on; `None` where it is left alone.
    ///
    /// # Errors
    /// The pod has not what the mode names.
    pub fn lever(&self, mode: TrafficMode) -> Result<Option<Lever>, LeverMissing> {
        let gate = self.has_gate.then_some(Lever::ReadinessGate);
        let label = self.label.is_some().then_some(Lever::ServiceLabel);
        match mode {
            TrafficMode::Auto => Ok(gate.or(label)),
            TrafficMode::ReadinessGate => gate.map(Some).ok_or(LeverMissing(Lever::ReadinessGate)),
            TrafficMode::ServiceLabel => label.map(Some).ok_or(LeverMissing(Lever::ServiceLabel)),
            TrafficMode::None => Ok(None),
        }
    }

    /// Whether a lever lets traffic through. Of a label every value but `"true"` does not, since no Service selects by
    /// it.
    pub fn traffic(&self, lever: Lever) -> Traffic {
        match lever {
            Lever::ReadinessGate => match &self.condition {
                None => Traffic::Unset,
                Some(condition) => match condition.status {
                    ConditionStatus::True => Traffic::On,
                    ConditionStatus::False | ConditionStatus::Unknown => Traffic::Off {
                        run: condition
                            .message
                            .as_deref()
                            .and_then(|message| note(message, RUN))
                            .map(Arc::from),
                        since: condition.last_transition_time,
                    },
                },
            },
            Lever::ServiceLabel => match self.label.as_deref() {
                None => Traffic::Unset,
                Some("true") => Traffic::On,
                Some(_) => {
                    let annotation = self.annotation.as_deref().unwrap_or_default();
                    Traffic::Off {
                        run: note(annotation, RUN).map(Arc::from),
                        since: note(annotation, SINCE).and_then(|since| since.parse().ok()),
                    }
                }
            },
        }
    }

    /// Whether the gate is to be set True although no run asks for it: its pod lists it, and either nobody has ever set
    /// it or no run that goes on (`is_held`) has turned it off. Without that a pod would never be Ready.
    pub fn is_gate_forgotten(&self, is_held: impl FnOnce(&str) -> bool) -> bool {
        self.has_gate
            && match self.traffic(Lever::ReadinessGate) {
                Traffic::On => false,
                Traffic::Unset => true,
                Traffic::Off { run, .. } => !run.is_some_and(|run| is_held(&run)),
            }
    }
}

/// The part of a list `a=b,c=d` that begins so, without its beginning.
fn note<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let value = text.split(',').find_map(|part| part.trim().strip_prefix(name))?;
    (!value.is_empty() && value.len() <= RUN_MAX_BYTES).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: Names =
        Names { gate: "example.com/ready", label: "example.com/serving", annotation: "example.com/drain" };

    fn uid() -> Uid {
        Uid(Arc::from("u1"))
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn gated(condition: Option<Value>) -> Signals {
        let conditions: Vec<PodCondition> =
            condition.into_iter().map(|condition| serde_json::from_value(condition).unwrap()).collect();
        NAMES.signals(["other", NAMES.gate], &conditions, None, None)
    }

    fn labelled(value: &str, annotation: Option<&str>) -> Signals {
        NAMES.signals([], &[], Some(value.into()), annotation.map(Arc::from))
    }

    /// What a patch is of, and its fields.
    fn parts(action: Action) -> (Part, Fields) {
        let Action::Patch { part, patch: Patch::Strategic(fields) } = action else {
            panic!("{action:?} is no strategic merge")
        };
        (part, fields)
    }

    /// The pod's signals after a patch, as the API server merges it.
    fn patched(before: &Signals, action: Action) -> Signals {
        let (part, Fields { uid: patched, resource_version, fields }) = parts(action);
        assert_eq!((patched, resource_version), (uid(), None));
        let mut after = before.clone();
        if part == Part::Status {
            let condition = fields["status"]["conditions"][0].clone();
            after.condition = Some(serde_json::from_value(condition).unwrap());
        } else {
            after.label = fields["metadata"]["labels"][NAMES.label].as_str().map(Arc::from);
            after.annotation = fields["metadata"]["annotations"][NAMES.annotation].as_str().map(Arc::from);
        }
        after
    }

    #[test]
    fn what_is_turned_off_says_by_which_run_and_since_when_and_is_turned_on_again() {
        for (lever, before) in
            [(Lever::ReadinessGate, gated(None)), (Lever::ServiceLabel, labelled("true", None))]
        {
            let off = patched(&before, NAMES.turn_off(lever, &uid(), &before, "7c9f21ab04de", at(100)));
            let expected = Traffic::Off { run: Some("7c9f21ab04de".into()), since: Some(at(100)) };
            assert_eq!(off.traffic(lever), expected);
            // Another run takes it over: the time that it has been out stays.
            let again = patched(&off, NAMES.turn_off(lever, &uid(), &off, "other", at(160)));
            let expected = Traffic::Off { run: Some("other".into()), since: Some(at(100)) };
            assert_eq!(again.traffic(lever), expected);
            let on = patched(&again, NAMES.turn_on(lever, &uid(), &again, at(200)));
            assert_eq!(on.traffic(lever), Traffic::On);
            assert_eq!(on.annotation, None);
        }
    }

    #[test]
    fn the_message_of_a_gate_is_the_run_alone() {
        let patch = NAMES.turn_off(Lever::ReadinessGate, &uid(), &gated(None), "7c9f21ab04de", at(100));
        let (part, Fields { fields, .. }) = parts(patch);
        assert_eq!(part, Part::Status);
        let condition = &fields["status"]["conditions"][0];
        assert_eq!(condition["message"], "run=7c9f21ab04de");
        assert_eq!(condition["lastTransitionTime"], "1970-01-01T00:01:40Z");
        assert_eq!(fields["status"]["conditions"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn the_mode_says_which_lever_and_a_missing_one_is_named() {
        let both = Signals { has_gate: true, label: Some("true".into()), ..Signals::default() };
        let none = Signals::default();
        assert_eq!(both.lever(TrafficMode::Auto), Ok(Some(Lever::ReadinessGate)));
        assert_eq!(labelled("false", None).lever(TrafficMode::Auto), Ok(Some(Lever::ServiceLabel)));
        assert_eq!(none.lever(TrafficMode::Auto), Ok(None));
        assert_eq!(both.lever(TrafficMode::ServiceLabel), Ok(Some(Lever::ServiceLabel)));
        assert_eq!(both.lever(TrafficMode::None), Ok(None));
        assert_eq!(none.lever(TrafficMode::ReadinessGate), Err(LeverMissing(Lever::ReadinessGate)));
        let missing = none.lever(TrafficMode::ServiceLabel).unwrap_err();
        assert_eq!(missing.to_string(), "the pod has not the label");
    }

    #[test]
    fn a_gate_that_nobody_set_or_no_run_holds_is_forgotten() {
        let off =
            |message: &str| gated(Some(json!({"type": NAMES.gate, "status": "False", "message": message})));
        let held = |run: &str| run == "mine";
        assert!(gated(None).is_gate_forgotten(held));
        assert!(off("by hand").is_gate_forgotten(held));
        assert!(off("run=other").is_gate_forgotten(held));
        assert!(!off("run=mine").is_gate_forgotten(held));
        assert!(!gated(Some(json!({"type": NAMES.gate, "status": "True"}))).is_gate_forgotten(held));
        // A pod that does not list the gate does without the condition.
        assert!(!Signals::default().is_gate_forgotten(held));
    }

    #[test]
    fn what_others_write_into_gate_and_label_turns_traffic_off_without_a_run() {
        let nobody = Traffic::Off { run: None, since: None };
        assert_eq!(labelled("no", Some("run=,since=yesterday")).traffic(Lever::ServiceLabel), nobody);
        assert_eq!(labelled("", None).traffic(Lever::ServiceLabel), nobody);
        let unknown = gated(Some(json!({"type": NAMES.gate, "status": "Unknown"})));
        assert_eq!(unknown.traffic(Lever::ReadinessGate), nobody);
        let long = format!("run={}", "a".repeat(64));
        assert_eq!(labelled("false", Some(&long)).traffic(Lever::ServiceLabel), nobody);
    }
}
