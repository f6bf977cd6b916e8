//! A real node with a manager that pulls ahead, and a registry with servers to upgrade to.

use anyhow::{Context, Result};
use serde_json::json;

use super::traffic::{LINES, PROGRAM, box_image, server_image};
use crate::local_cluster::LocalCluster;
use crate::manager::Manager;
use crate::manager_image;
use crate::node::registry::Registry;
use crate::node::{self, NodeCluster};

/// Versions of [`server_image`] that the registry has from the start.
pub const VERSIONS: u32 = 5;
/// An image whose containers end at once, with a failure.
pub const CRASHING: &str = "localhost/server:crashing";

/// A cluster of a real node, with a manager. Dropping it ends all of it.
pub struct NodeBed {
    // Dropped in this order: who uses the API first, then who serves the node.
    manager: Manager,
    /// Where the node gets images that it has not.
    pub registry: Registry,
    /// The cluster.
    pub cluster: NodeCluster,
}

impl NodeBed {
    /// Starts all of it. The manager pulls by its own image, which the node has; all servers are in the registry alone.
    ///
    /// # Errors
    /// A part does not start.
    pub async fn start(builder: node::Builder) -> Result<Self> {
        let cluster = builder.image(manager_image::manager_image().await?).start().await?;
        let registry = Registry::start(&cluster)?;
        for version in 1..=VERSIONS {
            registry.push(&server_image(version)?)?;
        }
        registry.push(&box_image(CRASHING, &["exit", "1", "this version ends at once"])?)?;
        let plane = cluster.control_plane();
        plane.install_crds().await?;
        let configuration = json!({
            "apiVersion": "config.springtide.dev/v1alpha1", "kind": "ManagerConfiguration",
            "controllers": {"inPlaceUpgrade": {"settings": {"pullerImage": manager_image::REFERENCE}}},
        });
        let file = plane.folder().join("upgrade-configuration.yaml");
        std::fs::write(&file, configuration.to_string())
            .with_context(|| format!("write {}", file.display()))?;
        let path = file.to_str().context("a path in UTF-8")?;
        let mut manager = Manager::start(plane, "manager", &["--config", path]).await?;
        manager.wait_ready().await?;
        Ok(Self { manager, registry, cluster })
    }

    /// The control plane.
    #[must_use]
    pub fn plane(&self) -> &LocalCluster {
        self.cluster.control_plane()
    }

    /// The manager.
    #[must_use]
    pub fn manager(&self) -> &Manager {
        &self.manager
    }

    /// Ends all of it in order.
    ///
    /// # Errors
    /// A process cannot be waited for.
    pub fn stop(self) -> Result<()> {
        let Self { manager, registry, cluster } = self;
        manager.stop().context("stop the manager")?;
        drop(registry);
        cluster.stop()
    }
}

/// The command that adds a line to what [`lines`](super::traffic::lines) gives, and ends after so many seconds: for hooks.
#[must_use]
pub fn note(line: &str, seconds: &str) -> [String; 5] {
    [PROGRAM, "note", LINES, line, seconds].map(str::to_owned)
}
