//! Watches over kube's client, with the server's bytes given by the test.
#![allow(clippy::disallowed_types, reason = "the client is what is tested here")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod set;
mod shared;
mod source;
#[allow(dead_code, reason = "the hazard probes use the rest")]
mod wire;
