//! Names of things: which resource, which object, which incarnation of it.

use std::fmt;
use std::sync::Arc;

/// The namespace and name of an object; the namespace is empty for cluster-scoped kinds.
///
/// Cheap to clone: the strings are shared.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Namespace, empty for a cluster-scoped object.
    pub namespace: Arc<str>,
    /// Name inside the namespace.
    pub name: Arc<str>,
}

impl ObjectKey {
    /// The key of a namespaced object; pass `""` as namespace for a cluster-scoped one.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `metadata.uid`: tells two objects apart that bore the same name one after the other.
#[derive(
    Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default, serde::Deserialize, serde::Serialize,
)]
#[serde(transparent)]
pub struct Uid(pub Arc<str>);

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A resourceVersion. Comparable within one resource type since Kubernetes 1.35 (KEP-5504);
/// wide enough for any decimal the API promises. Zero means "none seen yet".
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct ResourceVersion(pub u128);

impl ResourceVersion {
    /// Reads the API's decimal string; anything else is `None`.
    pub fn parse(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }
}

impl fmt::Display for ResourceVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// One resource type of the API, as its URL and its manifests name it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Resource {
    /// API group, empty for the core group.
    pub group: &'static str,
    /// Version, like `v1`.
    pub version: &'static str,
    /// Kind, like `Pod`.
    pub kind: &'static str,
    /// Plural in URLs, like `pods`.
    pub plural: &'static str,
    /// Whether its objects live in a namespace.
    pub namespaced: bool,
}

impl Resource {
    /// Core `v1` Pod.
    pub const POD: Self = Self { group: "", version: "v1", kind: "Pod", plural: "pods", namespaced: true };
    /// Core `v1` Node.
    pub const NODE: Self =
        Self { group: "", version: "v1", kind: "Node", plural: "nodes", namespaced: false };
    /// `events.k8s.io/v1` Event.
    pub const EVENT: Self =
        Self { group: "events.k8s.io", version: "v1", kind: "Event", plural: "events", namespaced: true };
    /// Core `v1` ConfigMap.
    pub const CONFIG_MAP: Self =
        Self { group: "", version: "v1", kind: "ConfigMap", plural: "configmaps", namespaced: true };
    /// `coordination.k8s.io/v1` Lease.
    pub const LEASE: Self = Self {
        group: "coordination.k8s.io",
        version: "v1",
        kind: "Lease",
        plural: "leases",
        namespaced: true,
    };

    /// Whether the API server has the kind from a CRD of ours.
    pub fn is_custom(&self) -> bool {
        self.group == springtide_crds::common::GROUP
    }

    /// `apiVersion` as manifests write it.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// URL path of the collection: of all namespaces when `namespace` is `None` or empty.
    pub fn collection_path(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", self.group) };
        match namespace {
            Some(ns) if self.namespaced && !ns.is_empty() => {
                format!("{root}/{}/namespaces/{ns}/{}", self.version, self.plural)
            }
            _ => format!("{root}/{}/{}", self.version, self.plural),
        }
    }

    /// URL path of one object.
    pub fn object_path(&self, key: &ObjectKey) -> String {
        format!("{}/{}", self.collection_path(Some(&key.namespace)), key.name)
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() {
            f.write_str(self.plural)
        } else {
            write!(f, "{}.{}", self.plural, self.group)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_follow_group_and_scope() {
        let key = ObjectKey::new("ns", "a");
        assert_eq!(Resource::POD.object_path(&key), "/api/v1/namespaces/ns/pods/a");
        assert_eq!(Resource::POD.collection_path(None), "/api/v1/pods");
        assert_eq!(Resource::NODE.object_path(&ObjectKey::new("", "n1")), "/api/v1/nodes/n1");
        assert_eq!(Resource::LEASE.object_path(&key), "/apis/coordination.k8s.io/v1/namespaces/ns/leases/a");
    }

    #[test]
    fn resource_versions_compare_as_numbers() {
        assert!(ResourceVersion::parse("9") < ResourceVersion::parse("10"));
        assert_eq!(ResourceVersion::parse("x"), None);
    }
}
