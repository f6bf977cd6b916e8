//! Node, as this controller reads it: which images it has, and how much a pod on it could request at all.

use crate::workloads::amounts::Pair;
use serde::Deserialize;
use serde_json::Value;
use crate::key::Resource;
use crate::projection::{Meta, Projection};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The first minor version of Kubernetes 1 whose kubelets mount images as volumes unless they are told not to
/// ([KEP-4639](https://kep.k8s.io/4639)).
const IMAGE_VOLUMES_SINCE: u32 = 35;

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
    /// Whether its kubelet is new enough to mount images as volumes, as far as its version says.
    pub mounts_images: bool,
}

impl NodeView {
    /// Whether its kubelet lists an image under this name. A name of Docker Hub is listed with its registry.
    pub fn has_image(&self, name: &str) -> bool {
        self.images.contains(name) || canonical(name).is_some_and(|name| self.images.contains(&*name))
    }
}

/// The name as runtimes list it: registry and `library` written out, `latest` where there is neither tag nor digest.
fn canonical(name: &str) -> Option<String> {
    let parsed = crate::workloads::image_name::ImageName::parse(name).ok()?;
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
    #[serde(rename = "nodeInfo")]
    node_info: WireNodeInfo,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireNodeInfo {
    kubelet_version: Box<str>,
}

#[derive(Deserialize)]
struct WireImage {
    #[serde(default)]
    names: Option<Vec<Box<str>>>,
}

impl From<Wire> for NodeView {
    fn from(wire: Wire) -> Self {
        let WireStatus { images, allocatable, node_info } = wire.status;
        Self {
            meta: wire.metadata,
            images: images.into_iter().filter_map(|image| image.names).flatten().collect(),
            allocatable: Pair::read(&allocatable),
            mounts_images: is_new_enough(&node_info.kubelet_version),
        }
    }
}

/// Whether a kubelet of this version, such as `v1.35.2+k3s1`, mounts images as volumes; one whose version nobody can read
/// is asked by a pod.
fn is_new_enough(version: &str) -> bool {
    let minor = version.strip_prefix("v1.").and_then(|rest| rest.split(['.', '-', '+']).next());
    let minor = minor.and_then(|minor| minor.parse::<u32>().ok());
    minor.is_none_or(|minor| minor >= IMAGE_VOLUMES_SINCE)
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

    #[test]
    fn a_kubelet_says_by_its_version_whether_it_mounts_images() {
        let mounts = |version: &str| {
            let text =
                format!("{{metadata: {{name: n1}}, status: {{nodeInfo: {{kubeletVersion: '{version}'}}}}}}");
            let node: NodeView = serde_yaml::from_str(&text).unwrap();
            node.mounts_images
        };
        assert!(
            ["v1.35.0", "v1.36.2-gke.100", "v1.40.1+k3s1", "v1.35", "v2.0.0", "kwok-v0.7.0", ""]
                .iter()
                .all(|version| mounts(version))
        );
        assert!(!["v1.34.9", "v1.32.0+k3s1", "v1.9.3"].iter().any(|version| mounts(version)));
        let silent: NodeView = serde_yaml::from_str("{metadata: {name: n1}}").unwrap();
        assert!(silent.mounts_images);
    }
}
