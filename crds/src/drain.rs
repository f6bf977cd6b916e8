//! How a pod leaves traffic.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// When a pod counts as drained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase", default)]
pub struct Drain {
    /// EndpointSlice waits until no EndpointSlice lists the pod as ready; None waits for minSeconds alone.
    pub confirm: DrainConfirm,
    /// Seconds to wait after that, for proxies and load balancers to follow.
    #[schemars(range(max = 600))]
    pub min_seconds: u32,
    /// When the proof has not come after so many seconds, onTimeout says what to do.
    #[schemars(range(min = 1, max = 3600))]
    pub timeout_seconds: u32,
    /// Skip gives the pod its traffic back and tries later; Proceed changes it all the same; Fail counts it as a failed
    /// pod.
    pub on_timeout: OnTimeout,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            confirm: DrainConfirm::default(),
            min_seconds: 5,
            timeout_seconds: 60,
            on_timeout: OnTimeout::default(),
        }
    }
}

/// What proves that a pod is out of traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum DrainConfirm {
    /// No EndpointSlice lists it as ready.
    #[default]
    EndpointSlice,
    /// Nothing.
    None,
}

/// What to do with a pod whose drain is not proved in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum OnTimeout {
    /// Later again.
    #[default]
    Skip,
    /// Go on.
    Proceed,
    /// The pod has failed. A kind that knows no failed pods does not take it.
    Fail,
}
