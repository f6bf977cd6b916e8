//! What an InPlaceUpgrade does to pods that a real kubelet runs: containers, images, volumes, requests, control groups.
//! Tests share one cluster unless they restart parts of it or need another node; each has a namespace, and clears it for
//! the pods of the next ones. Those that count requests, and those with a cluster of their own, run alone: two processors
//! would starve probes and proxies.

mod containers;
mod faults;
mod identity;
mod names;
mod pulls;
mod resources;
mod restarts;
mod traffic;

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::ContainerStatus;
use serde_json::{Value, json};
use springtide_e2e::node::{NodeCluster, required_or_skipped};
use springtide_e2e::upgrade::pods::Life;
use springtide_e2e::upgrade::real_node::NodeBed;
use springtide_e2e::upgrade::traffic::lines;
use springtide_e2e::upgrade::workload::with_pod;
use springtide_e2e::upgrade::{Testbed, Workload};
use tokio::sync::{OnceCell, RwLock};

static SHARED: OnceCell<NodeBed> = OnceCell::const_new();
/// Read by tests that run beside one another, written by those that run alone.
static TURN: RwLock<()> = RwLock::const_new(());

/// The cluster that tests share; `None` where real nodes are switched off.
async fn shared() -> Result<Option<&'static NodeBed>> {
    if !required_or_skipped().await? {
        return Ok(None);
    }
    SHARED.get_or_try_init(|| NodeBed::start(NodeCluster::builder())).await.map(Some)
}

/// A workload whose pods begin with another image.
fn with_image(workload: Workload, image: &str) -> Workload {
    with_pod(workload, |pod| pod["containers"][0]["image"] = json!(image))
}

/// A change of a workload's template.
fn of_pods(spec: Value) -> Value {
    json!({"spec": {"template": {"spec": spec}}})
}

/// What the kubelet says of the containers of a pod, init containers first.
fn statuses(life: &Life) -> Vec<&ContainerStatus> {
    let Some(status) = &life.pod.status else { return Vec::new() };
    let init = status.init_container_statuses.iter().flatten();
    init.chain(status.container_statuses.iter().flatten()).collect()
}

/// IDs of the containers of a workload's pods, by pod and container: what changes with each start.
fn container_ids(test: &Testbed<'_>, workload: &Workload) -> BTreeMap<(String, String), String> {
    let pods = test.pods.now();
    let of_pod = |life: &Life| -> Vec<_> {
        let id = |status: &&ContainerStatus| {
            Some(((life.name(), status.name.clone()), status.container_id.clone()?))
        };
        statuses(life).iter().filter_map(id).collect()
    };
    pods.of(&workload.name).into_iter().flat_map(of_pod).collect()
}

/// How often a container of a pod was restarted.
fn restarts_of(life: &Life, container: &str) -> Option<i32> {
    statuses(life).into_iter().find(|status| status.name == container).map(|status| status.restart_count)
}

/// # Errors
/// The volume of a pod of the workload has not kept exactly this.
fn ensure_lines(bed: &NodeBed, test: &Testbed<'_>, workload: &Workload, expected: &[&str]) -> Result<()> {
    let pods = test.pods.now().identities(&workload.name);
    ensure!(pods.len() == workload.replicas as usize, "{}: {} pods", workload.name, pods.len());
    for (name, pod) in pods {
        let kept = lines(&bed.cluster, &pod.ip)?;
        ensure!(kept == expected, "the volume of {name} has kept {kept:?}");
    }
    Ok(())
}
