//! Node, as this controller reads it: which images it has, and how much a pod on it could request at all.

use crate::amounts::Pair;
use serde::Deserialize;
use serde_json::Value;
use springtide_plumbing::key::Resource;
use springtide_plumbing::projection::{Meta, Projection};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// All labels of a node: any of them may be a topology key.
pub type NodeLabels = BTreeMap<Arc<str>, Arc<str>>;

/// One node.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Wire")]
pub struct NodeView {
    meta: Meta<NodeLabels>,
    /// `status.images`: names and digests of the images that it has. The kubelet lists fifty images by default, so that
    /// one which is not listed may be there all the same.
    pub images: BTreeSet<Box<str>>,
    /// What all its pods may request together.
    pub allocatable: Pair,
}

impl NodeView {
    /// Whether its kubelet lists an image under this name. A name of Docker Hub is listed with its registry.
    pub fn has_image(&self, name: &str) -> bool {
        self.images.contains(name) || canonical(name).is_some_and(|name| self.images.contains(&*name))
    }
}

/// The name as runtimes list it: registry and `library` written out, `latest` where there is neither tag nor digest.
fn canonical(name: &str) -> Option<String> {
    let parsed = crate::image_name::ImageName::parse(name).ok()?;
    let tag = if parsed.tag.is_none() && parsed.digest.is_none() { ":latest" } else { "" };
    let has_registry = parsed
        .repository
        .split_once('/')
        .is_some_and(|(first, _)| first == "localhost" || first.contains(['.', ':']));
    let path = match (has_registry, parsed.repository.contains('/')) {
        (true, _) => "",
        (false, true) => "docker.io/",
        (false, false) => "docker.io/library/",
    };
    Some(format!("{path}{name}{tag}"))
}

impl Projection for NodeView {
    const RESOURCE: Resource = Resource::NODE;
    type Labels = NodeLabels;

    fn meta(&self) -> &Meta<NodeLabels> {
        &self.meta
    }

    fn bytes(&self) -> usize {
        let pair = 2 * size_of::<Arc<str>>();
        let labels: usize = self.meta.labels.iter().map(|(key, value)| pair + key.len() + value.len()).sum();
        let images: usize = self.images.iter().map(|name| size_of::<Box<str>>() + name.len()).sum();
        size_of::<Self>() + self.meta.text_bytes() + labels + images
    }
}

#[derive(Deserialize)]
struct Wire {
    metadata: Meta<NodeLabels>,
    #[serde(default)]
    status: WireStatus,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireStatus {
    images: Vec<WireImage>,
    allocatable: Value,
}

#[derive(Deserialize)]
struct WireImage {
    #[serde(default)]
    names: Option<Vec<Box<str>>>,
}

impl From<Wire> for NodeView {
    fn from(wire: Wire) -> Self {
        let images = wire.status.images.into_iter().filter_map(|image| image.names).flatten().collect();
        Self { meta: wire.metadata, images, allocatable: Pair::read(&wire.status.allocatable) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_found_by_the_name_that_the_runtime_lists_for_it() {
        let node: NodeView = serde_yaml::from_str(
            "metadata: {name: n1, labels: {zone: a}}\n\
             status:\n  allocatable: {cpu: '4', memory: 8Gi}\n  images:\n  \
             - {names: ['docker.io/library/nginx:latest', 'docker.io/library/nginx@sha256:aa'], sizeBytes: 1}\n  \
             - {names: ['docker.io/team/app:v1']}\n  - {names: ['reg.example/app:v1']}\n  - {sizeBytes: 3}\n",
        )
        .unwrap();
        for listed in
            ["nginx", "nginx:latest", "docker.io/library/nginx:latest", "team/app:v1", "reg.example/app:v1"]
        {
            assert!(node.has_image(listed), "{listed}");
        }
        for other in ["nginx:1", "app:v1", "team/app", "reg.example/app:v2", "", "NGINX"] {
            assert!(!node.has_image(other), "{other}");
        }
        assert_eq!((node.allocatable.cpu, node.allocatable.memory), (Some(4000), Some(8 << 30)));
    }
}
