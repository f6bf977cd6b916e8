//! The watch loop and its store against a scripted source, on paused time.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod connection;
mod fallback;
mod listeners;
mod model;
mod optional;
mod relist;
mod script;
