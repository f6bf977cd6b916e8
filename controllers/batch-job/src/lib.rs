//! The BatchJob controller: pods exist only while a task really executes.

pub mod admission;
pub mod failure;
pub mod indexes;
mod ledger;
pub mod projections;
pub mod resources;
pub mod shape;
