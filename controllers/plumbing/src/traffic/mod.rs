//! Taking a pod out of traffic, and proof that it is out, for every controller that works on live pods.
//!
//! - [`lever`] turns traffic of a pod off and on: by a readiness gate that the pod lists, or by a label that Services
//!   select by.
//! - [`endpoints`] reads EndpointSlices and Services: who still sends traffic to a pod.
//! - [`drain`] says whether a pod that was turned off is drained.
//!
//! All of it is plain data in, decisions out. The names of gate and label are a parameter, as each controller has
//! its own: a pod with the gates of two controllers is in traffic when both say so.

pub mod drain;
pub mod endpoints;
pub mod lever;

pub use drain::{DrainRule, DrainVerdict, Draining};
pub use endpoints::{ENDPOINT_SLICE, EndpointSliceView, Exposure, SERVICE, ServiceView, exposures};
pub use lever::{Lever, LeverMissing, Names, PodCondition, Signals, Traffic};
