//! How a pod is taken out of traffic before its containers restart, and how its images get to its node before that.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::Drain;

/// How a pod is taken out of traffic while its containers restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase", default)]
pub struct Traffic {
    /// ReadinessGate turns the gate springtide.dev/upgrade-ready of the pod; ServiceLabel takes away the label
    /// springtide.dev/upgrade-serving, which the Service selects; None drains nothing. Auto is ReadinessGate if the pod
    /// has the gate, else ServiceLabel if it has the label, else None.
    pub mode: TrafficMode,
    /// When a pod counts as drained.
    pub drain: Drain,
}

/// What takes a pod out of traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum TrafficMode {
    /// What the pod has.
    #[default]
    Auto,
    /// A readiness gate.
    ReadinessGate,
    /// A label that Services select.
    ServiceLabel,
    /// Nothing.
    None,
}

/// How images get to the nodes before containers are stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase", default)]
pub struct PrePull {
    /// ImageVolume mounts images in a pod of one container that does nothing; InitContainer runs a program that does
    /// nothing in each of them; None leaves the pull to the kubelet, which stops the container first. Auto is ImageVolume
    /// where the node can, else InitContainer.
    pub mode: PrePullMode,
    /// NextStep pulls on the nodes of the next step's pods; All on the nodes of all pods at the start.
    pub scope: PrePullScope,
    /// Most nodes that pull at a time.
    #[schemars(range(min = 1, max = 500))]
    pub parallelism: u32,
    /// A node that has not pulled after so many seconds has failed to.
    #[schemars(range(min = 10, max = 7200))]
    pub timeout_seconds: u32,
}

impl Default for PrePull {
    fn default() -> Self {
        Self {
            mode: PrePullMode::default(),
            scope: PrePullScope::default(),
            parallelism: 50,
            timeout_seconds: 600,
        }
    }
}

/// By what images are pulled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum PrePullMode {
    /// By what the cluster has.
    #[default]
    Auto,
    /// By image volumes.
    ImageVolume,
    /// By init containers.
    InitContainer,
    /// They are not.
    None,
}

/// Whose nodes pull.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum PrePullScope {
    /// Those of the next step.
    #[default]
    NextStep,
    /// All.
    All,
}
