//! What every Springtide controller shares, and the only part of the suite that talks to the API server.
//!
//! A change flows through these rooms, in this order:
//!
//! 1. [`watch`]: one watch per kind and scope feeds a [`store`] of [`projection`]s, or one for each controller.
//! 2. [`queue`]: events become keys; a key is queued once and runs once at a time.
//! 3. [`gate`]: a key waits until the stores have seen its own last writes.
//! 4. [`plan`]: a controller turns what it observed into a plan, by a pure function.
//! 5. [`executor`]: the one writer performs the plan: guard, leadership, budget, precondition, wire. The
//!    [`guard`] is brake, observe mode, and for what destroys [`warrant`]s and [`breaker`].
//!
//! [`controller`] is the loop that joins them; [`lease`] says who may write, [`rights`] what may be asked at all,
//! [`traces`] sends what it did to a collector. [`window`] knows when a recurring window is open, for every planner.
//!
//! What those share that work on live pods: [`traffic`] takes a pod out of traffic with proof, [`done_rule`] knows when a
//! patched container runs anew, [`disruption`] how many pods may be out at once, [`metric_query`] what a Prometheus says of
//! them; [`workloads`] is what is kept of native workloads, their pods and nodes. [`resources`] is what pods request and
//! nodes have, [`pod_metrics`] what pods use; [`time_share`] is what TimeShareGroups say to others. [`outbound`] is the way
//! to whoever is not the API server.

pub mod brake;
pub mod breaker;
pub mod budget;
pub mod client;
pub mod clock;
pub mod config_map;
pub mod controller;
pub mod disruption;
pub mod done_rule;
pub mod dry_run;
pub mod error;
pub mod events;
pub mod executor;
pub mod failing;
pub mod fight;
pub mod first_seen;
pub mod gate;
pub mod guard;
pub mod health;
pub mod key;
pub mod label_selector;
pub mod lease;
pub mod message;
pub mod metric_query;
pub mod metrics;
pub mod outbound;
mod panic_text;
pub mod plan;
pub mod pod_metrics;
pub mod pool;
pub mod projection;
pub mod quantity;
pub mod queue;
pub mod rehearsal;
pub mod resources;
pub mod rights;
pub mod store;
pub mod text;
pub mod time_share;
pub mod traces;
pub mod traffic;
pub mod warrant;
pub mod watch;
pub mod window;
pub mod workloads;
