//! The commands for people, beside the manager itself.

pub(crate) mod release;
