//! BatchTaskProfile: what the runs of a recurring task have taught about its next ones.

mod reasons;
mod rules;
mod status;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{CustomResource, CustomResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use reasons::{ReadyReason, ReconcilingReason, StalledReason, all as all_reasons};
pub use status::{
    BatchTaskProfileStatus, CONTAINER_HISTOGRAM_MAX_BYTES, CONTAINERS_MAX, ContainerProfile,
    MESSAGE_MAX_BYTES, RUN_TIME_HISTOGRAM_MAX_BYTES, RecommendedRequests, RunTime,
};

use crate::common::Quantity;
use crate::schema;

/// Longest name of a profile, which is the key of its jobs: it stands in a label of their pods.
pub const NAME_MAX_LENGTH: usize = 63;
/// Most profiles in one namespace; no further one is made.
pub const MAX_PER_NAMESPACE: u32 = 200;
/// Most profiles in a cluster; no further one is made.
pub const MAX_PER_CLUSTER: u32 = 2_000;

/// How far the profile may go, and how it draws its conclusions.
// Each printer column has a `type_`, which clippy takes for one attribute said twice.
#[allow(clippy::duplicated_attributes)]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "springtide.dev",
    version = "v1alpha1",
    kind = "BatchTaskProfile",
    plural = "batchtaskprofiles",
    shortname = "btp",
    category = "springtide",
    namespaced,
    status = "BatchTaskProfileStatus",
    derive = "PartialEq",
    doc = "Learns what a recurring task uses and how long it runs. Its name is the spec.profile.key of the jobs \
           that run the task; it is made when the first of them comes.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        description = "Whether enough is learned: reason of condition Ready.",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(
        name = "Samples",
        type_ = "integer",
        description = "Runs that were learned from.",
        json_path = ".status.samples"
    ),
    printcolumn(
        name = "P95",
        type_ = "integer",
        description = "Seconds within which 95 of 100 runs end.",
        json_path = ".status.runTime.p95Seconds"
    ),
    printcolumn(
        name = "OOM",
        type_ = "integer",
        description = "Runs in which a container was killed for want of memory.",
        json_path = ".status.oomKills"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        description = "Time since the profile was made.",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase", default)]
pub struct BatchTaskProfileSpec {
    /// How far the profile goes for any job, whatever the job asks for: Auto replaces requests, Initial fills in
    /// those that are absent, Observe learns only, Off does not learn either.
    pub max_mode: ProfileMode,
    /// The share of runs, in percent, that get along with what is recommended; the margin comes on top.
    #[schemars(range(min = 50, max = 99))]
    pub percentile: u32,
    /// What is added to the percentile, in percent.
    #[schemars(range(min = 0, max = 200))]
    pub margin_percent: u32,
    /// The weight of a run halves after so many seconds.
    #[schemars(range(min = 3600, max = 31_536_000))]
    pub half_life_seconds: u32,
    /// What recommendations are kept within.
    #[schemars(
        length(max = 32),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["container", "resource"])
    )]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bounds: Vec<RequestBound>,
}

impl Default for BatchTaskProfileSpec {
    fn default() -> Self {
        Self {
            max_mode: ProfileMode::Auto,
            percentile: 95,
            margin_percent: 15,
            half_life_seconds: 604_800,
            bounds: Vec::new(),
        }
    }
}

/// What a profile does for a job. Ordered: each does all that those before it do.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[schemars(inline)]
pub enum ProfileMode {
    /// Nothing.
    Off,
    /// It learns from the job's runs.
    #[default]
    Observe,
    /// It fills in requests that the template leaves out.
    Initial,
    /// It replaces the template's requests.
    Auto,
}

/// What the recommendation for one container and resource is kept within.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline, extend("x-kubernetes-validations" = [
    rules::min_at_most_max(), rules::not_negative("min"), rules::not_negative("max"),
]))]
#[serde(rename_all = "camelCase")]
pub struct RequestBound {
    /// Name of the container in the template of the jobs.
    #[schemars(length(min = 1, max = 63))]
    pub container: String,
    /// The resource: cpu or memory.
    #[schemars(length(min = 1, max = 6), regex(pattern = "^(cpu|memory)$"))]
    pub resource: String,
    /// The least that is recommended. Absent = no least.
    // `with`: for an option without a type the derive would make a choice of two schemas.
    #[schemars(with = "Quantity")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<Quantity>,
    /// The most that is recommended. Absent = no most.
    #[schemars(with = "Quantity")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<Quantity>,
}

/// The CustomResourceDefinition as it is installed.
#[must_use]
pub fn crd() -> CustomResourceDefinition {
    let crd = schema::finish(BatchTaskProfile::crd(), &[], |root| {
        rules::add(root);
        root["properties"]["status"]["default"] = crate::common::never_seen("Ready", "profile");
    });
    crate::labelled(crate::with_maxima(crd, MAX_PER_NAMESPACE, MAX_PER_CLUSTER))
}
