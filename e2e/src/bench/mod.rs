//! What the benches share.
//!
//! | module | holds |
//! |---|---|
//! | [`parts`] | a bench in parts, and what becomes of each |
//! | [`stored`] | parts that were measured before |
//! | [`checkout`] | the commit that is measured |
//! | [`large`] | a control plane for many pods, and a manager with a budget that can be replaced |
//! | [`at_rest`] | memory of a manager beside many pods, and what it writes then |
//! | [`lives`] | chains of requests that are led side by side: raw limits |
//! | [`processes`], [`usage`] | what processes use |
//! | [`requests`] | requests through a Service, and how many are lost |
//! | [`progress`] | waiting for many things |
//! | [`scrape`] | what manager and API server count |
//! | [`counted`] | what random tests count |
//! | [`stats`] | what is computed of figures |
//! | [`report`] | the form in which they report |

pub mod at_rest;
pub mod checkout;
pub mod counted;
pub mod large;
pub mod lives;
pub mod parts;
pub mod processes;
pub mod progress;
pub mod report;
pub mod requests;
pub mod scrape;
pub mod stats;
pub mod stored;
pub mod usage;

use std::time::Duration;

use anyhow::Result;
use kube::Client;
use kube::core::Request;
use serde_json::Value;
use tokio::time::timeout;

use crate::manager::Manager;
use crate::node::{self, NodeCluster, required_or_skipped};

/// Flags of the controller manager and of the scheduler, so that no limit of theirs is what is measured.
pub const TUNED: [&str; 2] = ["--kube-api-qps=5000", "--kube-api-burst=10000"];
/// How kubelets patch.
pub const STRATEGIC: &str = "application/strategic-merge-patch+json";
/// Bound of one request: far above any that makes sense.
const REQUEST: Duration = Duration::from_secs(60);

/// A cluster with a real node, whose options are asked for then, and a manager; none where no node can run and
/// `SPRINGTIDE_NODE=off` says so.
///
/// # Errors
/// A part does not start, or no node can run although one is wanted.
pub async fn on_a_node(
    options: impl FnOnce() -> Result<node::Builder>,
) -> Result<Option<(NodeCluster, Manager)>> {
    if !required_or_skipped().await? {
        return Ok(None);
    }
    let cluster = options()?.start().await?;
    cluster.control_plane().install_crds().await?;
    let mut manager = Manager::start(cluster.control_plane(), "manager", &[]).await?;
    manager.wait_ready().await?;
    Ok(Some((cluster, manager)))
}

/// Creates an object.
///
/// # Errors
/// It is refused.
pub async fn post(client: &Client, collection: &str, object: &Value) -> Result<Value> {
    let request = Request::new(collection).create(&Default::default(), serde_json::to_vec(object)?)?;
    Ok(client.request(request).await?)
}

/// Patches an object or its subresource.
///
/// # Errors
/// It is refused, or not answered within a minute.
pub async fn patch(client: &Client, path: &str, patch: &Value, content_type: &str) -> Result<()> {
    let request =
        http::Request::patch(path).header("content-type", content_type).body(serde_json::to_vec(patch)?)?;
    timeout(REQUEST, client.request::<Value>(request)).await??;
    Ok(())
}
