//! A real Kubernetes node on one small machine: containerd, runc, the kubelet and
//! kube-proxy in private namespaces, with images built here.
//!
//! | module | holds |
//! |---|---|
//! | [`preflight`] | whether a node can run here, and what is missing |
//! | [`program`] | the test program `springtide-box` and the images made of it |
//! | [`load`] | clients of its servers, and what they have seen |
//! | [`metrics_server`] | the metrics server, which measures what pods use |
//! | [`cpus`] | which CPUs there are, and who may run on which |
//! | [`registry`] | a registry from which it pulls images |
//! | [`leftovers`] | the search for anything that a run left behind |

mod cgroup;
mod cluster;
mod config;
pub mod cpus;
mod ctr;
pub mod leftovers;
pub mod load;
mod machine;
pub mod metrics_server;
pub mod preflight;
pub mod program;
mod real_node;
pub mod registry;

pub use cgroup::PodLimits;
pub use cluster::{Builder, NodeCluster};
pub use preflight::required_or_skipped;
pub use real_node::{Allocatable, NODE_NAME};
