//! BatchQueue: the administrator's side of batch jobs.

pub mod peaks;
mod peaks_reasons;

pub use peaks_reasons::{DrainWillMissReason, PeakWindowActiveReason};
