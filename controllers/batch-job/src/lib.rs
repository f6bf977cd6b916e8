//! The BatchJob controller: pods exist only while a task really executes.

pub mod failure;
pub mod indexes;
pub mod projections;
pub mod resources;
