//! What the nodes of a random walk have, what pods request there, and how that counts in a quota.

use super::super::*;
use springtide_plumbing::resources::ResourceList;

/// What the pods of jobs request, as [`World`] reads it: cores, and memory where it is not the usual little.
pub(super) const SIZES: [&str; 6] = ["500m", "1", "2", "3", "500m cpu 2Gi", "1 cpu 4Gi"];
/// The same in the queue of an agent, of [`EXTENDED`].
pub(super) const EXTENDED_SIZES: [&str; 2] = ["500 kubernetes.io/batch-cpu", "1000 kubernetes.io/batch-cpu"];
pub(super) const EXTENDED: &str = "kubernetes.io/batch-cpu";
/// What quotas and sources bound.
pub(super) const RESOURCES: [&str; 2] = ["cpu", "memory"];
pub(super) const GIBIBYTE: i64 = 1 << 30;

/// A node: its name, its cores, and its memory in [`GIBIBYTE`]s.
pub(super) type NodeSize = (&'static str, i64, i64);

pub(super) const NODES: [NodeSize; 4] = [("n0", 3, 4), ("n1", 4, 6), ("n2", 6, 8), ("n3", 8, 12)];

/// Thousandths of a core, and bytes.
pub(super) fn list(cpu: i64, memory: i64) -> ResourceList {
    [(Arc::from("cpu"), cpu), (Arc::from("memory"), memory)].into_iter().collect()
}

/// What a node has of those.
pub(super) fn whole((_, cores, gibibytes): NodeSize) -> ResourceList {
    list(cores * 1000, gibibytes * GIBIBYTE)
}

/// What a pod of somebody else's requests.
pub(super) fn of_online() -> ResourceList {
    list(1000, GIBIBYTE)
}

/// A pod of somebody else's.
pub(super) fn online(name: &str, on: &str, phase: &str) -> Change<PodView> {
    let requests = json!({"cpu": "1", "memory": "1Gi"});
    apply(json!({
        "metadata": {"name": name, "namespace": "online", "uid": name, "resourceVersion": "1"},
        "spec": {"nodeName": on, "containers": [{"name": "c", "resources": {"requests": requests}}]},
        "status": {"phase": phase},
    }))
}

/// The shape of pods of such a size.
pub(super) fn shape_of(size: &str) -> Arc<Shape> {
    let mut words = size.split(' ');
    let amount = words.next().unwrap();
    let resource = words.next().unwrap_or("cpu");
    let mut requests = json!({resource: amount});
    if let Some(memory) = words.next() {
        requests["memory"] = json!(memory);
    }
    let one = shape(amount, json!({"containers": [{"name": "main", "resources": {"requests": requests}}]}));
    if resource == "cpu" {
        return one;
    }
    let mut one = Shape::clone(&one);
    // As of a template that a tier maps to the other resource.
    one.requests.cpu = 0;
    Arc::new(one)
}

/// What of a pod a quota of these resources sees, whatever the pod calls it.
pub(super) fn counted(shape: &Shape) -> ResourceList {
    list(shape.requests.cpu + shape.requests.get(EXTENDED), shape.requests.memory)
}
