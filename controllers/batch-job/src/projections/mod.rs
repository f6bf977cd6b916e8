//! The few fields of each watched kind that this controller reads.

pub mod job;
pub mod job_status;
pub mod node;
pub mod pod;
pub mod priority_class;
pub mod profile;
pub mod queue;
mod templates;
