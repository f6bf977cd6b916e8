//! ReferenceGrant: lets objects of other namespaces name what is in this one.
//!
//! The shape is that of Gateway API's
//! [ReferenceGrant](https://gateway-api.sigs.k8s.io/api-types/referencegrant/): grants add up, and there is none that
//! takes one away.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::core::{Reason, Rule};
use kube::{CustomResource, CustomResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;
use crate::time_share_group::MemberKind;

/// Most objects in one namespace.
pub const MAX_PER_NAMESPACE: u32 = 100;
/// Most objects in a cluster.
pub const MAX_PER_CLUSTER: u32 = 1_000;
/// Most rows of [`ReferenceGrantSpec::from`], and of [`ReferenceGrantSpec::to`].
pub const ROWS_MAX: usize = 16;
/// Longest name of an API group that a row takes.
const GROUP_MAX_LENGTH: usize = 253;

/// Who may name what.
// Each printer column has a `type_`, which clippy takes for one attribute said twice.
#[allow(clippy::duplicated_attributes)]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "springtide.dev",
    version = "v1alpha1",
    kind = "ReferenceGrant",
    plural = "referencegrants",
    shortname = "rgrant",
    category = "springtide",
    namespaced,
    derive = "PartialEq",
    doc = "Lets objects of other namespaces name what is in this one: a TimeShareGroup its members' workloads, a BatchQueue \
           the TimeShareGroup that it follows. Without one nothing of this namespace is touched from outside. It has effect \
           as long as it is there.",
    printcolumn(
        name = "From",
        type_ = "string",
        description = "Who may name what is in the namespace, as JSON.",
        json_path = ".spec.from",
        priority = 1
    ),
    printcolumn(
        name = "To",
        type_ = "string",
        description = "What they may name, as JSON.",
        json_path = ".spec.to",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        description = "Time since the object was created.",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct ReferenceGrantSpec {
    /// Objects that may name those of to: each row of from may name each row of to.
    #[schemars(length(min = 1, max = ROWS_MAX), extend("x-kubernetes-list-type" = "atomic"))]
    pub from: Vec<GrantFrom>,
    /// Objects of the grant's namespace that those of from may name.
    #[schemars(length(min = 1, max = ROWS_MAX), extend("x-kubernetes-list-type" = "atomic"))]
    pub to: Vec<GrantTo>,
}

impl ReferenceGrantSpec {
    /// Whether an object of this kind and namespace may name that object of the grant's own namespace.
    #[must_use]
    pub fn allows(&self, from: (FromKind, &str), to: (ToKind, &str)) -> bool {
        let is_from = |row: &GrantFrom| (row.kind, row.namespace.as_str()) == from;
        let is_to = |row: &GrantTo| row.kind == to.0 && row.name.as_deref().is_none_or(|name| name == to.1);
        self.from.iter().any(is_from) && self.to.iter().any(is_to)
    }
}

/// Objects of one kind and namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase")]
pub struct GrantFrom {
    /// API group of the kind. Absent = springtide.dev, which has each kind that there is.
    #[schemars(length(max = GROUP_MAX_LENGTH), regex(pattern = r"^springtide\.dev$"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Kind of the objects.
    pub kind: FromKind,
    /// Namespace of the objects.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub namespace: String,
}

/// Kind of an object that names others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum FromKind {
    /// It names the workloads of its members.
    TimeShareGroup,
    /// It names a TimeShareGroup whose peaks it follows.
    BatchQueue,
}

/// Objects of one kind, or one of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline, extend("x-kubernetes-validations" = [
    Rule::new("!has(self.group) || self.group == (self.kind == 'TimeShareGroup' ? 'springtide.dev' : 'apps')")
        .message("group must be that of kind: springtide.dev for TimeShareGroup, else apps; or leave it out")
        .reason(Reason::FieldValueInvalid)
        .field_path(".group"),
]))]
#[serde(rename_all = "camelCase")]
pub struct GrantTo {
    /// API group of the kind. Absent = apps for a workload, springtide.dev for a TimeShareGroup.
    #[schemars(length(max = GROUP_MAX_LENGTH))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Kind of the objects.
    pub kind: ToKind,
    /// Name of the object. Absent = all of the kind.
    #[schemars(length(min = 1, max = 253))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Kind of an object that is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum ToKind {
    /// Deployment of apps/v1.
    Deployment,
    /// StatefulSet of apps/v1.
    StatefulSet,
    /// ReplicaSet of apps/v1.
    ReplicaSet,
    /// TimeShareGroup.
    TimeShareGroup,
}

impl From<MemberKind> for ToKind {
    fn from(kind: MemberKind) -> Self {
        match kind {
            MemberKind::Deployment => Self::Deployment,
            MemberKind::StatefulSet => Self::StatefulSet,
            MemberKind::ReplicaSet => Self::ReplicaSet,
        }
    }
}

/// The CustomResourceDefinition as it is installed.
#[must_use]
pub fn crd() -> CustomResourceDefinition {
    let crd = schema::finish(ReferenceGrant::crd(), &[], |_| {});
    crate::labelled(crate::with_maxima(crd, MAX_PER_NAMESPACE, MAX_PER_CLUSTER))
}
