//! What a BatchJob does, seen by its users, on a real control plane with pods that
//! KWOK plays. All tests share one cluster and one manager; each has a namespace.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail as a test does")]

mod bad_input;
mod capacity;
mod deadlines;
mod failure;
mod lifecycle;
mod parallel;
mod stopping;
mod user_view;
