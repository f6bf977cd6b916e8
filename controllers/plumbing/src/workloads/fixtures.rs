//! Objects for tests: short forms of what the API server serves.

use super::template::Template;
use super::vertical_pod_autoscaler::VerticalPodAutoscalerView;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;

/// So many seconds after an instant that tests begin at.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_795_000_000 + seconds).unwrap()
}

/// The template of a workload with one container; `spec` is laid over its spec.
pub(crate) fn template(image: &str, over: Value) -> Arc<Template> {
    let mut template = json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "app", "image": image}]},
    });
    json_patch::merge(&mut template, &over);
    Template::shared(&template)
}

/// A VerticalPodAutoscaler of the Deployment `web` that says nothing but that; its UID is its name.
pub(crate) fn autoscaler(name: &str, over: Value) -> Arc<VerticalPodAutoscalerView> {
    let mut whole = json!({
        "metadata": {"name": name, "namespace": "ns", "uid": name, "resourceVersion": "7", "generation": 1},
        "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}},
    });
    json_patch::merge(&mut whole, &over);
    Arc::new(serde_json::from_value(whole).unwrap())
}
