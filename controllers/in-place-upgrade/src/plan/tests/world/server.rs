//! The API server: it performs writes, each under its precondition.

use super::{Sent, World};
use crate::fixtures::at;
use serde_json::{Map, Value, json};
use springtide_plumbing::dry_run::{Answer, Verdict};
use springtide_plumbing::plan::{Action, Fields, Patch, Write};

impl World {
    /// Performs one write.
    pub(super) fn perform(&mut self, write: &Write) -> Sent {
        let path = format!("{} {}", write.resource.kind, write.action.subresource());
        if !matches!(write.action, Action::DryRun { .. }) {
            self.written.push(path.trim_end().to_owned());
        }
        let (version, now) = (self.next_version(), at(self.now));
        if let Action::Create { manifest } = &write.action {
            let mut object = manifest.clone();
            let name = write.key.name.to_string();
            object["metadata"]["uid"] = json!(name);
            object["metadata"]["resourceVersion"] = json!(version);
            object["metadata"]["creationTimestamp"] = json!(now.to_string());
            object["status"] = json!({"replicas": 0});
            assert_eq!(write.resource.kind, "ReplicaSet");
            return match self.replica_sets.insert(name, object) {
                None => Sent::Stored,
                Some(_) => panic!("made twice"),
            };
        }
        if let Action::DryRun { question, .. } = &write.action {
            self.answers.insert(question.clone(), Answer { at: now, verdict: Verdict::Accepted(()) });
            return Sent::Stored;
        }
        if let Action::Evict { uid, .. } = &write.action {
            if self.refuses_evictions {
                return Sent::Conflict;
            }
            let is_there =
                self.pods.get(&*write.key.name).is_some_and(|pod| pod["metadata"]["uid"] == *uid.0);
            assert!(is_there, "{} is evicted, and nobody else", write.key.name);
            self.pods.remove(&*write.key.name);
            return Sent::Stored;
        }
        let object = match write.resource.kind {
            "Pod" => self.pods.get_mut(&*write.key.name).unwrap(),
            "ReplicaSet" => self.replica_sets.get_mut(&*write.key.name).unwrap(),
            "Deployment" => &mut self.deployment,
            "StatefulSet" => self.stateful_set.as_mut().unwrap(),
            "InPlaceUpgrade" => &mut self.upgrade,
            other => panic!("{other}"),
        };
        assert_eq!(write.action.uid(), object["metadata"]["uid"].as_str(), "a write is for one incarnation");
        let wanted = write.action.resource_version();
        if wanted.is_some_and(|wanted| object["metadata"]["resourceVersion"] != wanted.to_string()) {
            return Sent::Conflict;
        }
        let before = object["spec"].clone();
        match &write.action {
            Action::Patch { patch: Patch::Strategic(Fields { fields, .. }), .. } => strategic(object, fields),
            Action::Patch { patch: Patch::Merge(Fields { fields, .. }), .. } => strategic(object, fields),
            Action::Patch { patch: Patch::Json { operations }, .. } => {
                if !json_patch(object, operations) {
                    return Sent::Conflict;
                }
            }
            Action::Apply { fields, .. } => {
                // What was applied before and is missing now is removed.
                let annotations = object["metadata"].get_mut("annotations").and_then(Value::as_object_mut);
                if fields["spec"].get("paused").is_none()
                    && let Some(annotations) = annotations
                    && annotations.remove("springtide.dev/paused-by-upgrade").is_some()
                {
                    object["spec"]["paused"] = json!(false);
                }
                strategic(object, fields);
            }
            Action::Status { status, .. } => object["status"] = status.clone(),
            other @ (Action::Create { .. }
            | Action::Delete { .. }
            | Action::Evict { .. }
            | Action::DryRun { .. }) => {
                panic!("{other:?}")
            }
        }
        if object["spec"] != before {
            let generation = object["metadata"]["generation"].as_i64().unwrap_or(0);
            object["metadata"]["generation"] = json!(generation + 1);
        }
        object["metadata"]["resourceVersion"] = json!(version);
        Sent::Stored
    }
}

/// A strategic merge: lists of containers and conditions by their keys, `null` removes.
fn strategic(under: &mut Value, over: &Value) {
    let Value::Object(over) = over else {
        *under = over.clone();
        return;
    };
    if !under.is_object() {
        *under = Value::Object(Map::new());
    }
    let Value::Object(fields) = under else { return };
    for (name, value) in over {
        let key = match name.as_str() {
            "containers" | "initContainers" => Some("name"),
            "conditions" => Some("type"),
            _ => None,
        };
        match (value, key) {
            (Value::Null, _) => {
                fields.remove(name);
            }
            (Value::Array(items), Some(key)) => {
                let list = fields.entry(name.clone()).or_insert_with(|| json!([])).as_array_mut().unwrap();
                for item in items {
                    match list.iter_mut().find(|own| own[key] == item[key]) {
                        Some(own) => strategic(own, item),
                        None => list.push(item.clone()),
                    }
                }
            }
            (value, _) => strategic(fields.entry(name.clone()).or_insert(Value::Null), value),
        }
    }
}

/// Tests, adds, replaces and removes; whether all tests passed.
fn json_patch(object: &mut Value, operations: &Value) -> bool {
    for operation in operations.as_array().unwrap() {
        let path = operation["path"].as_str().unwrap();
        match operation["op"].as_str().unwrap() {
            "test" => {
                // As the API server has it: what is not there is `null`.
                if object.pointer(path).unwrap_or(&Value::Null) != &operation["value"] {
                    return false;
                }
            }
            op => {
                let (parent, last) = path.rsplit_once('/').unwrap();
                let last = last.replace("~1", "/").replace("~0", "~");
                match object.pointer_mut(parent).unwrap() {
                    Value::Object(fields) if op == "remove" => {
                        if fields.remove(&last).is_none() {
                            return false;
                        }
                    }
                    Value::Object(fields) => drop(fields.insert(last, operation["value"].clone())),
                    Value::Array(items) if op == "remove" => drop(items.remove(last.parse().unwrap())),
                    Value::Array(items) => items.push(operation["value"].clone()),
                    scalar @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => {
                        panic!("{scalar}")
                    }
                }
            }
        }
    }
    true
}
