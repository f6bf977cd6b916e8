//! The pod template of a BatchJob: open below the fields that are checked.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::rules;

/// Most containers, and most init containers, a template may have.
const MAX_CONTAINERS: u32 = 32;

/// A pod template, kept as the JSON the user wrote.
///
/// It is not the generated Kubernetes type: a field that a newer API server
/// knows must reach the pod untouched. `labels` and `annotations` of its
/// metadata and its whole `spec` go into the pods; the rest of its metadata
/// is ignored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PodTemplate(pub Map<String, Value>);

impl PodTemplate {
    /// The template's pod spec, if it is an object as the schema demands.
    #[must_use]
    pub fn spec(&self) -> Option<&Map<String, Value>> {
        self.0.get("spec").and_then(Value::as_object)
    }

    /// Labels for every pod.
    #[must_use]
    pub fn labels(&self) -> Option<&Map<String, Value>> {
        self.metadata("labels")
    }

    /// Annotations for every pod.
    #[must_use]
    pub fn annotations(&self) -> Option<&Map<String, Value>> {
        self.metadata("annotations")
    }

    fn metadata(&self, field: &str) -> Option<&Map<String, Value>> {
        self.0.get("metadata")?.get(field)?.as_object()
    }
}

impl JsonSchema for PodTemplate {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "PodTemplate".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "required": ["spec"],
            "x-kubernetes-preserve-unknown-fields": true,
            "properties": {
                "metadata": {
                    "type": "object",
                    "description": "Labels and annotations of the pods; other metadata is ignored.",
                    "x-kubernetes-preserve-unknown-fields": true,
                    "properties": {
                        "labels": {
                            "type": "object",
                            "description": "Labels of the pods.",
                            "maxProperties": 64,
                            "additionalProperties": {"type": "string", "maxLength": 63},
                        },
                        "annotations": {
                            "type": "object",
                            "description": "Annotations of the pods.",
                            "maxProperties": 64,
                            "additionalProperties": {"type": "string", "maxLength": 8192},
                        },
                    },
                },
                "spec": {
                    "type": "object",
                    "description": "A pod spec, as in a Pod. Every field of the cluster's Kubernetes version is allowed, \
                                    but nodeName and schedulingGates.",
                    "required": ["containers"],
                    "x-kubernetes-preserve-unknown-fields": true,
                    "x-kubernetes-validations": [rules::no_node_name(), rules::no_scheduling_gates()],
                    "properties": {
                        "restartPolicy": {
                            "type": "string", "enum": ["Never"], "default": "Never",
                            "description": "Containers are never restarted in place; failures are retried with new pods.",
                        },
                        "nodeName": {
                            "type": "string", "maxLength": 253, "description": "Refused: the scheduler places the pods.",
                        },
                        "schedulingGates": {
                            "type": "array", "maxItems": 16,
                            "description": "Refused: pods are created only when they fit.",
                            "x-kubernetes-list-type": "map",
                            "x-kubernetes-list-map-keys": ["name"],
                            "items": {
                                "type": "object",
                                "description": "A scheduling gate.",
                                "required": ["name"],
                                "properties": {
                                    "name": {"type": "string", "maxLength": 316, "description": "Name of the gate."},
                                },
                            },
                        },
                        "priorityClassName": {
                            "type": "string", "maxLength": 253,
                            "description": "PriorityClass of the pods.",
                        },
                        "initContainers": containers("Containers that run before, one after the other."),
                        "containers": required(containers(
                            "The containers; the pod succeeds when all of them exit with 0.",
                        )),
                    },
                },
            },
        })
    }
}

/// A list of containers of which only the names are checked here.
fn containers(description: &str) -> Value {
    json!({
        "type": "array", "maxItems": MAX_CONTAINERS,
        "description": description,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
        "items": {
            "type": "object",
            "description": "A container, as in a Pod.",
            "required": ["name"],
            "x-kubernetes-preserve-unknown-fields": true,
            "properties": {
                "name": {
                    "type": "string", "minLength": 1, "maxLength": 63,
                    "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
                    "description": "Name of the container.",
                },
            },
        },
    })
}

fn required(mut list: Value) -> Value {
    list["minItems"] = 1.into();
    list
}
