//! What an InPlaceUpgrade does to native workloads, on a real control plane with pods that KWOK plays: they change, stay
//! the same pods, and the native controllers agree. Tests share one cluster and one manager unless they stop parts of
//! theirs; each has a namespace.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail as a test does")]

mod blocked;
mod deployments;
mod drift;
mod histories;
mod holds;
mod limits;
mod metrics;
mod neighbours;
mod ordered;
mod recreated;
mod revisions;
mod rivals;
mod runs;
mod sets;
mod signals;
mod states;
mod unlocked;

use serde_json::{Value, json};
use springtide_crds::common::IntOrPercent;
use springtide_crds::in_place_upgrade::{Hold, HoldType, Step};

/// A first step of so many pods that waits for an approval, and all others.
fn approved_after(pods: u32) -> Vec<Step> {
    let hold = Hold { type_: HoldType::Approval, duration_seconds: None };
    vec![
        Step { replicas: IntOrPercent::Int(pods), hold: Some(hold) },
        Step { replicas: IntOrPercent::ALL, hold: None },
    ]
}

/// What approves the first step of a wish.
fn approval(target_hash: &str) -> Value {
    json!({"spec": {"approval": {"targetHash": target_hash, "throughStep": 1}}})
}
