//! Native workloads, their pods and their nodes, as those controllers see them that change live pods.
//!
//! - [`kinds`] are the workloads and their revisions, [`template`] is from what they make pods, [`pod`] the pods;
//!   [`indexes`] are by what they are found.
//! - [`content`] is what of a pod can be changed in place, [`amounts`] its cpu and memory, [`image_name`] an image's name;
//!   [`resize`] is the patch that gives it other amounts.
//! - [`node`] is what a node has, [`vertical_pod_autoscaler`] who else resizes pods, [`claims`] what others decide.
//! - [`trace`] is what a pod says of the upgrade that changed it last, [`earlier`] which template a ReplicaSet had.
//! - [`names`] are the names that the suite writes on them, [`gate_keeping`] opens gates and labels that nobody holds.

pub mod amounts;
pub mod claims;
pub mod content;
pub mod earlier;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod gate_keeping;
pub mod image_name;
pub mod indexes;
pub mod kinds;
pub mod names;
pub mod node;
pub mod pod;
pub mod resize;
pub mod template;
pub mod trace;
pub mod vertical_pod_autoscaler;

use crate::projection::Meta;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// `metadata` with the annotations that somebody reads; `A` names these.
#[derive(Debug, Deserialize)]
#[serde(bound = "L: DeserializeOwned + Default, A: DeserializeOwned + Default")]
struct Annotated<L, A> {
    #[serde(flatten)]
    meta: Meta<L>,
    #[serde(default)]
    annotations: A,
}
