//! What a TimeShareGroup does to pods, on a real control plane with nodes that KWOK plays and that have only so much: sizes
//! and traffic change hands, within what nodes and quotas have, whatever others do meanwhile. Tests share one cluster and
//! one manager unless they need parts of their own; each has a namespace and nodes.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail as a test does")]

mod aborts;
mod autoscalers;
mod bad_input;
mod drains;
mod grants;
mod guards;
mod neighbours;
mod overrides;
mod preemption;
mod quotas;
mod recreated;
mod refusals;
mod room;
mod routes;
mod shapes;
mod switches;
mod templates;
mod valley;
mod zz_plays;
#[path = "../time_share_crash/facts.rs"]
mod facts;
#[path = "../time_share_crash/scenarios.rs"]
mod scenarios;
