//! What pods use, by the API of the metrics server. It cannot be watched: who wants to know asks for a list.

use crate::client::ReadError;
use crate::key::{ObjectKey, Resource};
use crate::resources::ResourceList;
use jiff::Timestamp;
use serde::Deserialize;
use std::sync::Arc;

/// `metrics.k8s.io/v1beta1` PodMetrics. Its plural is that of pods.
pub const POD_METRICS: Resource = Resource {
    group: "metrics.k8s.io",
    version: "v1beta1",
    kind: "PodMetrics",
    plural: "pods",
    namespaced: true,
};

/// What is told of one pod.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "Wire")]
pub struct PodMetrics {
    /// Which pod.
    pub key: ObjectKey,
    /// End of the time that it was measured over.
    pub timestamp: Option<Timestamp>,
    /// Its containers.
    pub containers: Vec<ContainerMetrics>,
}

/// What is told of one container.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ContainerMetrics {
    /// Its name.
    pub name: Box<str>,
    /// What it uses: of cpu on average over some 15 s, of memory the working set at one moment.
    #[serde(default)]
    pub usage: ResourceList,
}

impl PodMetrics {
    /// What all its containers use.
    pub fn total(&self) -> ResourceList {
        let mut total = ResourceList::default();
        for container in &self.containers {
            total.add(&container.usage);
        }
        total
    }
}

/// Whether the server says that there is no such API, that what stands behind it is out of order, or that it may not be
/// asked: neither changes within seconds.
pub fn is_not_served(error: &ReadError) -> bool {
    match error {
        ReadError::Refused(status) => matches!(status.code, 401 | 403 | 404 | 405 | 503),
        ReadError::NotGranted(_) => true,
        ReadError::NoAnswer(_) | ReadError::NotAnObject => false,
    }
}

#[derive(Deserialize)]
struct Wire {
    metadata: WireName,
    #[serde(default)]
    timestamp: Option<Timestamp>,
    #[serde(default)]
    containers: Vec<ContainerMetrics>,
}

#[derive(Deserialize)]
struct WireName {
    namespace: Arc<str>,
    name: Arc<str>,
}

impl From<Wire> for PodMetrics {
    fn from(Wire { metadata, timestamp, containers }: Wire) -> Self {
        let WireName { namespace, name } = metadata;
        Self { key: ObjectKey { namespace, name }, timestamp, containers }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Status;
    use serde_json::json;

    #[test]
    fn what_the_metrics_server_sends_is_read_in_whole_units() {
        let pod: PodMetrics = serde_json::from_value(json!({
            "metadata": {"name": "a-0-0", "namespace": "ns", "creationTimestamp": "2026-11-11T00:00:20Z",
                "labels": {"springtide.dev/profile": "etl"}},
            "timestamp": "2026-11-11T00:00:11Z", "window": "10.062s",
            "containers": [
                {"name": "main", "usage": {"cpu": "12345678n", "memory": "20172Ki"}},
                {"name": "proxy", "usage": {"cpu": "1", "memory": "1Ki"}},
            ],
        }))
        .unwrap();
        assert_eq!((pod.key.to_string().as_str(), &*pod.containers[0].name), ("ns/a-0-0", "main"));
        let usage = &pod.containers[0].usage;
        assert_eq!((usage.cpu, usage.memory), (13, 20172 << 10), "cpu is rounded up to thousandths");
        assert_eq!((pod.total().cpu, pod.total().memory), (1013, 20173 << 10));
        assert_eq!(pod.timestamp.unwrap().to_string(), "2026-11-11T00:00:11Z");
    }

    #[test]
    fn what_is_not_there_is_told_from_what_does_not_answer() {
        let refused = |code: u16| {
            let status = json!({"code": code, "status": "Failure", "message": "", "reason": ""});
            ReadError::Refused(Box::new(serde_json::from_value::<Status>(status).unwrap()))
        };
        for code in [403, 404, 503] {
            assert!(is_not_served(&refused(code)), "{code}");
        }
        for code in [429, 500] {
            assert!(!is_not_served(&refused(code)), "{code}");
        }
        assert!(!is_not_served(&ReadError::NoAnswer("cut".to_owned())));
    }
}
