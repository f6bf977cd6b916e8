//! The controller in a world that goes on beside it: pods start, end, fail and vanish, watches lag, the
//! process dies between any two writes. What must hold, holds at every moment, and every job ends.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod away;
mod bounds;
mod chaos;
mod clocks;
mod cluster;
mod failing;
mod lives;
mod loads;
mod memory;
mod online;
mod peaks;
mod preemption;
mod queues;
mod setbacks;
mod success;
mod traps;
mod waits;
mod windows;
mod world;
