//! Watches over kube's client, with the server's bytes given by the test; and probes of what kube
//! itself does with the same bytes.
#![allow(clippy::disallowed_types, reason = "the client is what is tested here")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod hazards;
mod set;
mod source;
mod wire;
