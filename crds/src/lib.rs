//! The Kubernetes API types of Springtide, and nothing else.
//!
//! Each kind has a module with its spec, status and condition reasons;
//! [`common`] holds what they share. [`all`] lists the kinds.

pub mod batch_job;
pub mod common;
pub mod reason;
mod schema;
mod window;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

use reason::ReasonDoc;

/// One kind, as the generators and lints see it.
#[derive(Clone, Debug)]
pub struct Kind {
    /// The CustomResourceDefinition to install.
    pub crd: CustomResourceDefinition,
    /// Every condition with every reason its controller may set.
    pub reasons: Vec<ReasonDoc>,
    /// Fields of the spec that cannot change after creation, by their path.
    pub immutable_fields: &'static [&'static str],
}

/// Every kind of this version.
#[must_use]
pub fn all() -> Vec<Kind> {
    vec![Kind {
        crd: batch_job::crd(),
        reasons: batch_job::all_reasons(),
        immutable_fields: &batch_job::IMMUTABLE_FIELDS,
    }]
}
