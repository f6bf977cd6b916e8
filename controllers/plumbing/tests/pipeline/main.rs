//! The way of a key from the queue to the wire, and of the Lease, on paused time: the real loop, queue,
//! gate, budget, executor, stores and elector. The test is the other end of kube's client: it records
//! each request and says what comes back.
#![allow(clippy::disallowed_types, reason = "the client is what is tested here")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod rig;
mod wire;

mod backoff;
mod chains;
mod clocks;
mod drain;
mod dry_runs;
mod election;
mod events;
mod evictions;
mod failing;
mod fencing;
mod fights;
mod flow_control;
mod guard;
mod panics;
mod patches;
mod pressure;
mod read_your_writes;
mod reads;
mod stages;
mod traces;
