//! BatchQueues: which one a job is in, what it makes of the job's pods, and what its status says.
//!
//! - [`rules`] turns a spec into what the [`admission`](crate::admission) goes by, and names what is
//!   wrong with it.
//! - [`placement`] finds the queue of a job, and says what keeps the job from it.
//! - [`tier`] is what a queue's tier makes of a pod.
//! - [`status`] is the status of a queue as a pure function.
//! - [`reconciler`] drives it all: a second loop beside that of the jobs, with the queues as its keys.

mod peaks;
pub mod placement;
pub mod reconciler;
pub mod rules;
pub mod status;
pub mod tier;

#[cfg(test)]
mod tests;

pub use placement::{BuiltInQueue, Placement};
pub use reconciler::BatchQueueReconciler;
