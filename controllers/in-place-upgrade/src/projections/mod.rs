//! What this controller keeps of the objects that it reads.

pub mod node;
pub mod pod;
pub mod template;
pub mod upgrade;
pub mod vertical_pod_autoscaler;
pub mod workloads;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use springtide_plumbing::projection::Meta;

/// `metadata` with the annotations that somebody reads; `A` names these.
#[derive(Debug, Deserialize)]
#[serde(bound = "L: DeserializeOwned + Default, A: DeserializeOwned + Default")]
struct Annotated<L, A> {
    #[serde(flatten)]
    meta: Meta<L>,
    #[serde(default)]
    annotations: A,
}
