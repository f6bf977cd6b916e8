//! PriorityClass: whether there is one of a name is all that is asked.

use serde::Deserialize;
use springtide_plumbing::key::{ObjectKey, Resource};
use springtide_plumbing::projection::{Meta, NoLabels, Projection};

/// `scheduling.k8s.io/v1` PriorityClass.
pub const PRIORITY_CLASS: Resource = Resource {
    group: "scheduling.k8s.io",
    version: "v1",
    kind: "PriorityClass",
    plural: "priorityclasses",
    namespaced: false,
};

/// One PriorityClass.
#[derive(Clone, Debug, Deserialize)]
pub struct PriorityClassView {
    #[serde(rename = "metadata")]
    meta: Meta,
}

impl Projection for PriorityClassView {
    const RESOURCE: Resource = PRIORITY_CLASS;
    type Labels = NoLabels;

    fn meta(&self) -> &Meta {
        &self.meta
    }
}

/// The key of the class of a name.
pub fn priority_class(name: &str) -> ObjectKey {
    ObjectKey::new("", name)
}
