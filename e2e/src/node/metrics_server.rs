//! The metrics server on the private machine of a real node: `metrics.k8s.io`, as clusters have it.
//!
//! It runs as a process beside the control plane and is reached through a Service without pods. The API server
//! passes requests on with the user's name, and the metrics server asks it for the rights of that user.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::core::ObjectList;
use kube::core::dynamic::DynamicObject;
use nix::sys::signal::Signal;
use serde_json::json;

use super::cluster::NodeCluster;
use super::machine::ADDRESS;
use super::real_node::NODE_NAME;
use crate::process::Child;

/// Where it listens; nothing else on the private machine does.
const PORT: u16 = 4443;
/// Its Service.
const NAME: &str = "metrics-server";
/// Bound until it knows the node: it looks every 10 s, and needs two looks.
const READY: Duration = Duration::from_secs(120);
/// Bound for its end.
const STOP: Duration = Duration::from_secs(20);
/// What it answers once it has measured the node.
const NODES: &str = "/apis/metrics.k8s.io/v1beta1/nodes";

/// A running metrics server. Dropping it ends the process.
#[derive(Debug)]
pub struct MetricsServer {
    process: Child,
}

impl MetricsServer {
    /// Starts it and waits until the API server passes on what it says of the node.
    ///
    /// # Errors
    /// The binary is missing, or it has measured nothing in time; its last log lines stand in the error.
    pub async fn start(cluster: &NodeCluster) -> Result<Self> {
        let (plane, machine) = (cluster.control_plane(), cluster.machine());
        let kubeconfig = plane.inner_kubeconfig_path().display().to_string();
        let certificates = plane.folder().join("metrics-server");
        let mut process = machine
            .command(NAME, &plane.binaries().path(NAME)?)
            .args([
                format!("--kubeconfig={kubeconfig}"),
                format!("--authentication-kubeconfig={kubeconfig}"),
                format!("--authorization-kubeconfig={kubeconfig}"),
                format!("--bind-address={ADDRESS}"),
                format!("--secure-port={PORT}"),
                format!("--cert-dir={}", certificates.display()),
                // The kubelet's certificate is its own.
                "--kubelet-insecure-tls=true".to_owned(),
                "--kubelet-preferred-address-types=InternalIP".to_owned(),
                "--metric-resolution=10s".to_owned(),
                // Refused unless it is shorter than the distance between two looks.
                "--kubelet-request-timeout=5s".to_owned(),
            ])
            .spawn()?;
        plane.apply(&manifests()).await?;
        let client = plane.client("springtide-e2e")?;
        let measured = async || {
            let request = http::Request::get(NODES).body(Vec::new()).context("make a request")?;
            let nodes: ObjectList<DynamicObject> = client.request(request).await?;
            let is_there = nodes.items.iter().any(|node| node.metadata.name.as_deref() == Some(NODE_NAME));
            ensure!(is_there, "it has not measured the node yet");
            Ok(())
        };
        process.wait_ready(READY, measured).await?;
        Ok(Self { process })
    }

    /// Ends it.
    ///
    /// # Errors
    /// The process cannot be waited for.
    pub fn stop(self) -> Result<()> {
        self.process.stop(Signal::SIGTERM, STOP)?;
        Ok(())
    }
}

/// The API, and the way to the process.
fn manifests() -> String {
    let meta = json!({"name": NAME, "namespace": "kube-system"});
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "v1", "kind": "Service", "metadata": meta,
            "spec": {"ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": PORT}]},
        },
        {
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": NAME, "namespace": "kube-system", "labels": {"kubernetes.io/service-name": NAME},
            },
            "addressType": "IPv4",
            "ports": [{"name": "https", "port": PORT, "protocol": "TCP"}],
            "endpoints": [{"addresses": [ADDRESS.to_string()], "conditions": {"ready": true}}],
        },
        {
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {"name": "v1beta1.metrics.k8s.io"},
            "spec": {
                "group": "metrics.k8s.io", "version": "v1beta1",
                "groupPriorityMinimum": 100, "versionPriority": 100,
                "insecureSkipTLSVerify": true,
                "service": {"name": NAME, "namespace": "kube-system", "port": 443},
            },
        },
    ]});
    list.to_string()
}
