//! What pods are to become, and by whose word.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules;
use super::{CONTAINERS_MAX, TARGET_HASH_PATTERN};
use crate::common::{ResourceAmounts, time_schema};

/// Longest image in a patch, in bytes.
pub const IMAGE_MAX_LENGTH: usize = 512;
/// Most labels, and most annotations, of a patch.
pub const METADATA_KEYS_MAX: usize = 16;

/// A workload of the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase")]
pub struct TargetRef {
    /// API version of the workload; apps/v1 for each kind that there is.
    #[schemars(length(max = 253), regex(pattern = "^apps/v1$"))]
    pub api_version: String,
    /// Kind of the workload. A ReplicaSet must have no Deployment that owns it.
    pub kind: TargetKind,
    /// Name of the workload.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Kind of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum TargetKind {
    /// Deployment of apps/v1.
    Deployment,
    /// StatefulSet of apps/v1.
    StatefulSet,
    /// DaemonSet of apps/v1.
    DaemonSet,
    /// ReplicaSet of apps/v1 without an owner.
    ReplicaSet,
}

impl TargetKind {
    /// The kind as it stands in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
            Self::ReplicaSet => "ReplicaSet",
        }
    }
}

/// Where the wish stands that pods are made equal to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline, extend("x-kubernetes-validations" = [rules::inline_iff_type_inline()]))]
#[serde(rename_all = "camelCase", default)]
pub struct Source {
    /// Template makes pods equal to the workload's own template; Inline makes them equal to what inline says.
    #[serde(rename = "type")]
    pub type_: SourceType,
    /// The fields to change. Needed with type Inline, and absent with Template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inline: Option<Inline>,
}

/// Where the wish stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum SourceType {
    /// In the workload's template.
    #[default]
    Template,
    /// In the object itself.
    Inline,
}

/// A patch of pods; what it does not name stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase", default)]
pub struct Inline {
    /// Template also writes the patch to the workload, so that new pods have it; PodsOnly is a hotfix that leaves the
    /// workload alone: pods made anew are patched again.
    pub persist: Persist,
    /// Containers to change, by name.
    #[schemars(
        length(max = CONTAINERS_MAX),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<InlineContainer>,
    /// Labels and annotations to set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<InlineMetadata>,
}

/// Whether a patch is for pods of today alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Persist {
    /// The workload's template is patched as well.
    #[default]
    Template,
    /// Pods alone are patched.
    PodsOnly,
}

/// What changes of one container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline, extend("x-kubernetes-validations" = [rules::image_or_resources()]))]
#[serde(rename_all = "camelCase")]
pub struct InlineContainer {
    /// Name of the container in the workload's template.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// The new image.
    #[schemars(length(min = 1, max = IMAGE_MAX_LENGTH))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The new requests and limits; an amount that is not named stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ContainerResources>,
}

/// Requests and limits of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline, extend("minProperties" = 1))]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerResources {
    /// What the container is sure to get.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<ResourceAmounts>,
    /// What the container gets at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<ResourceAmounts>,
}

/// Labels and annotations of pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase", default)]
pub struct InlineMetadata {
    /// Labels to set; labels that it does not name stay.
    #[schemars(extend(
        "maxProperties" = METADATA_KEYS_MAX, "additionalProperties" = {"type": "string", "maxLength": 63},
    ))]
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations to set; annotations that it does not name stay.
    #[schemars(extend(
        "maxProperties" = METADATA_KEYS_MAX, "additionalProperties" = {"type": "string", "maxLength": 1024},
    ))]
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What opens holds of type Approval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase")]
pub struct Approval {
    /// The wish that is approved: status.targetHash. With another one the approval has no effect.
    #[schemars(length(max = super::TARGET_HASH_LENGTH), regex(pattern = TARGET_HASH_PATTERN))]
    pub target_hash: String,
    /// Number of the last step whose hold is open, the first step being 1.
    #[schemars(range(min = 1, max = super::STEPS_MAX))]
    pub through_step: u32,
}

/// Containers to restart in place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase")]
pub struct Restart {
    /// Pods that were created before are restarted, each once.
    #[schemars(schema_with = "time_schema")]
    pub before_time: Time,
    /// Names of the containers. Absent = all containers of the pod.
    #[schemars(
        length(min = 1, max = CONTAINERS_MAX),
        inner(length(min = 1, max = 63)),
        extend("x-kubernetes-list-type" = "set")
    )]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<String>,
}
