//! What upgraded pods cost the API server.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

use super::PULLER_PREFIX;
use crate::manager::USER_AGENT;
use crate::write_count::WriteCount;

/// The manager's writes on pods of workloads, refused ones too, as resources by the name of the pod: `pods` for the pod
/// itself, `pods/status` and `pods/resize` for its subresources. Dry runs are no writes.
#[must_use]
pub fn writes_by_pod(requests: &WriteCount) -> BTreeMap<String, Vec<String>> {
    let mut writes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for request in requests.by_agent(USER_AGENT).writes().of_resource("pods").requests() {
        if !request.name.is_empty() && !request.name.starts_with(PULLER_PREFIX) {
            writes.entry(request.name.clone()).or_default().push(request.resource.clone());
        }
    }
    writes
}

/// # Errors
/// The manager has not written exactly these resources, in this order, of each of so many pods.
pub fn ensure_each_pod_cost(requests: &WriteCount, pods: usize, expected: &[&str]) -> Result<()> {
    let writes = writes_by_pod(requests);
    let wrong: BTreeMap<_, _> = writes.iter().filter(|(_, written)| *written != expected).collect();
    ensure!(wrong.is_empty(), "other writes than {expected:?}: {wrong:?}");
    ensure!(
        writes.len() == pods || (expected.is_empty() && writes.is_empty()),
        "{} pods were written",
        writes.len()
    );
    Ok(())
}

/// Writes of a pod that leaves traffic by its gate: gate False, the change, gate True.
pub const GATED: &[&str] = &["pods/status", "pods", "pods/status"];
/// Writes of a pod that leaves traffic by nothing, or needs not to.
pub const PLAIN: &[&str] = &["pods"];
/// Writes of a pod whose resources alone change.
pub const RESIZED: &[&str] = &["pods/resize"];

/// The manager's writes on native workloads, refused ones too.
#[must_use]
pub fn workload_writes(requests: &WriteCount) -> WriteCount {
    requests.by_agent(USER_AGENT).writes().filter(|request| request.group == "apps")
}
