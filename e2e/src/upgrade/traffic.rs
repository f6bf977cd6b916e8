//! Servers on a real node, and clients behind a Service that count the requests that upgrades cost them.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};
use springtide_image::{Image, ImageSpec};

use super::slices::{SliceFeed, Slices};
use super::testbed::Testbed;
use super::workload::Workload;
use crate::node::NodeCluster;
use crate::node::load::{Load, Seen};
use crate::node::program::box_program;

/// Where servers listen.
pub const PORT: u16 = 8080;
/// Path of the program inside images.
pub const PROGRAM: &str = "/bin/springtide-box";
/// Where a server of [`server`] adds what it answers when it starts, if its pod has a volume at `/scratch`.
pub const LINES: &str = "/scratch/lines";
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
    server(&server_reference(version), &server_text(version))
}

/// The image of a server that answers by `text`, and leaves in peace when it is told to end.
///
/// # Errors
/// As [`box_program`].
pub fn server(reference: &str, text: &str) -> Result<Image> {
    box_image(reference, &["http", &PORT.to_string(), text, LINES])
}

/// An image whose containers run `springtide-box` with these words, before those of the pod.
///
/// # Errors
/// As [`box_program`].
pub fn box_image(reference: &str, words: &[&str]) -> Result<Image> {
    let program = box_program()?;
    let content = std::fs::read(&program).with_context(|| format!("read {}", program.display()))?;
    let words = [PROGRAM].into_iter().chain(words.iter().copied());
    ImageSpec::new(reference).file(PROGRAM, content).entrypoint(words).build()
}

/// What a server at an IP address answers for a path, asked from its node. Blocks the thread.
///
/// # Errors
/// It does not.
pub fn ask(cluster: &NodeCluster, ip: &str, path: &str) -> Result<String> {
    let program = box_program()?;
    let program = program.to_str().context("the path of springtide-box")?;
    let answer = cluster.run_inside(program, &["get", &format!("{ip}:{PORT}"), path])?;
    Ok(answer.trim_end().to_owned())
}

/// What the volume of a server's pod has kept: what it has answered since each start, and what others have added to
/// [`LINES`]. Blocks the thread.
///
/// # Errors
/// It does not answer.
pub fn lines(cluster: &NodeCluster, ip: &str) -> Result<Vec<String>> {
    Ok(ask(cluster, ip, "/lines")?.lines().map(str::to_owned).collect())
}

/// Makes the Service of a name for what it selects, and gives its address.
///
/// # Errors
/// It is refused.
pub async fn service(test: &Testbed<'_>, name: &str, selector: &Value) -> Result<String> {
    let service: Service = test
        .create(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"selector": selector, "ports": [{"port": PORT}]},
        }))
        .await?;
    let address = service.spec.and_then(|spec| spec.cluster_ip).context("the address of the Service")?;
    Ok(format!("{address}:{PORT}"))
}

/// As [`service`], once it has so many pods and the node's proxy knows them.
///
/// # Errors
/// It does not get them.
pub async fn served(test: &Testbed<'_>, name: &str, selector: &Value, pods: usize) -> Result<String> {
    let address = service(test, name, selector).await?;
    let slices = SliceFeed::start(test.api()).await?;
    let all = |slices: &Slices| (slices.ready(name).len() == pods).then_some(());
    slices.until(&format!("the Service {name} has {pods} pods"), all).await?;
    tokio::time::sleep(PROXY).await;
    Ok(address)
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
        let (name, address) = Self::service(test, workload).await?;
        Ok(Self { load: Load::start(test.client(), &test.namespace, &name, &address, rate).await? })
    }

    /// As [`Traffic::start`], `rate * seconds` requests.
    ///
    /// # Errors
    /// As [`Traffic::start`].
    pub async fn start_for(test: &Testbed<'_>, workload: &Workload, rate: u32, seconds: u32) -> Result<Self> {
        let (name, address) = Self::service(test, workload).await?;
        let (client, namespace) = (test.client(), &test.namespace);
        Ok(Self { load: Load::start_for(client, namespace, &name, &address, rate, seconds).await? })
    }

    /// Makes the Service. Gives a name for its clients, and its address.
    async fn service(test: &Testbed<'_>, workload: &Workload) -> Result<(String, String)> {
        let (name, pods) = (&workload.name, workload.replicas as usize);
        let address = served(test, name, &json!({"app": name}), pods).await?;
        Ok((format!("{name}-clients"), address))
    }

    /// Waits until all requests are sent, and gives what the clients have seen.
    ///
    /// # Errors
    /// As [`Load::all_sent`].
    pub async fn all_sent(self) -> Result<Seen> {
        self.load.all_sent().await
    }

    /// Ends the clients, and gives what they have seen.
    ///
    /// # Errors
    /// They do not say.
    pub async fn end(self) -> Result<Seen> {
        self.load.end().await
    }
}
