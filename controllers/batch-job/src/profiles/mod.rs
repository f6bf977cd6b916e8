//! Task profiles: requests and run times that are learned from the runs of a recurring task.
//!
//! - [`usage`] reads what a task says of itself; [`sampler`] what the kubelet measures of those that say nothing.
//! - [`histogram`] keeps it, and lets it fade; [`learned`] is all that is known of a task, and what to request for
//!   its next run.
//! - [`fitting`] writes that into the pods of a job, as far as the job asks for it; [`explain`] says where it comes
//!   from, and how long a pod is expected to run.
//! - [`controller`] makes the profiles, hears of runs, and writes what they teach into the status: [`plan`].

pub mod controller;
pub mod explain;
pub mod fitting;
pub mod histogram;
pub mod learned;
pub(crate) mod measures;
pub mod plan;
mod runs;
pub mod sampler;
pub mod status;
pub mod usage;
