//! Servers on a real node, and clients behind a Service that count the requests that upgrades cost them.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Service;
use serde_json::json;
use springtide_image::{Image, ImageSpec};

use super::slices::{SliceFeed, Slices};
use super::testbed::Testbed;
use super::workload::Workload;
use crate::node::load::{Load, Seen};
use crate::node::program::{BOX, box_program};

/// Where servers listen.
pub const PORT: u16 = 8080;
/// For the node's proxy to follow an EndpointSlice, before the first request.
const PROXY: Duration = Duration::from_secs(2);

/// The name of the image of a server's version.
#[must_use]
pub fn server_reference(version: u32) -> String {
    format!("localhost/server:v{version}")
}

/// What a server of a version answers.
#[must_use]
pub fn server_text(version: u32) -> String {
    format!("v{version}")
}

/// The image of a server that says its version, and leaves in peace when it is told to end.
///
/// # Errors
/// As [`box_program`].
pub fn server_image(version: u32) -> Result<Image> {
    let program = box_program()?;
    let content = std::fs::read(&program).with_context(|| format!("read {}", program.display()))?;
    let path = format!("/bin/{BOX}");
    let (port, text) = (PORT.to_string(), server_text(version));
    let words = [&*path, "http", &port, &text];
    ImageSpec::new(&server_reference(version)).file(&path, content).entrypoint(words).build()
}

/// Requests to a workload of the kind [`Workload::serving`] by way of a Service of its name.
pub struct Traffic {
    load: Load,
}

impl Traffic {
    /// Makes the Service, and sends `rate` requests a second when it has all pods of the workload.
    ///
    /// # Errors
    /// The Service does not get them, or the clients do not start.
    pub async fn start(test: &Testbed<'_>, workload: &Workload, rate: u32) -> Result<Self> {
        let name = &workload.name;
        let service: Service = test
            .create(json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
                "spec": {"selector": {"app": name}, "ports": [{"port": PORT}]},
            }))
            .await?;
        let address = service.spec.and_then(|spec| spec.cluster_ip).context("the address of the Service")?;
        let slices = SliceFeed::start(test.api()).await?;
        let pods = workload.replicas as usize;
        let all = |slices: &Slices| (slices.ready(name).len() == pods).then_some(());
        slices.until(&format!("the Service has {pods} pods"), all).await?;
        tokio::time::sleep(PROXY).await;
        let clients = format!("{name}-clients");
        let address = format!("{address}:{PORT}");
        Ok(Self { load: Load::start(test.client(), &test.namespace, &clients, &address, rate).await? })
    }

    /// Ends the clients, and gives what they have seen.
    ///
    /// # Errors
    /// They do not say.
    pub async fn end(self) -> Result<Seen> {
        self.load.end().await
    }
}
