//! Task profiles: requests and run times that are learned from the runs of a recurring task.
//!
//! - [`usage`] reads what a task says of itself; [`histogram`] keeps it, and lets it fade.
//! - [`learned`] is all that is known of a task, and what to request for its next run.

pub mod histogram;
pub mod learned;
pub mod usage;
