//! The names that this controller writes on objects of others, and that nobody else does.

pub use springtide_plumbing::workloads::names::{SKIPPED, TIME_SHARE_TRAFFIC};

/// The finalizer that keeps a group until its pods are let go.
pub const FINALIZER: &str = "springtide.dev/time-share-group";

/// What stands before a transition's id in the message of [`SKIPPED`].
pub const TRANSITION: &str = "transition=";
