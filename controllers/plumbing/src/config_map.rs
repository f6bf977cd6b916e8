//! ConfigMaps as switches and records of ours: read whole, as there are two of them.

use crate::key::Resource;
use crate::projection::{Meta, Projection};
use serde::Deserialize;
use std::collections::BTreeMap;

/// A ConfigMap.
#[derive(Clone, Debug, Deserialize)]
pub struct ConfigMapView {
    metadata: Metadata,
    /// `data`.
    #[serde(default)]
    pub data: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Metadata {
    #[serde(flatten)]
    meta: Meta,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

impl ConfigMapView {
    /// The value of an annotation.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.metadata.annotations.get(name).map(String::as_str)
    }
}

impl Projection for ConfigMapView {
    const RESOURCE: Resource = Resource::CONFIG_MAP;
    type Labels = crate::projection::NoLabels;

    fn meta(&self) -> &Meta {
        &self.metadata.meta
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{ObjectKey, ResourceVersion};

    #[test]
    fn it_keeps_data_annotations_and_identity() {
        let view: ConfigMapView = serde_json::from_value(serde_json::json!({
            "metadata": {
                "namespace": "ns", "name": "a", "uid": "u", "resourceVersion": "7", "generation": 1,
                "annotations": {"a": "b"}, "labels": {"x": "y"}, "managedFields": [{"manager": "kubectl"}],
            },
            "data": {"all": "Engaged"},
        }))
        .unwrap();
        assert_eq!(view.meta().key, ObjectKey::new("ns", "a"));
        assert_eq!(view.meta().resource_version, ResourceVersion(7));
        assert_eq!((view.annotation("a"), view.annotation("c")), (Some("b"), None));
        assert_eq!(view.data["all"], "Engaged");
    }
}
