//! The peer: what scalers by cron do, as KEDA's cron trigger and kubernetes-cronhpa-controller have it. At the hour the
//! replicas of one workload are taken away, and another one gets as many; pods end, and others are made, scheduled and
//! started.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use springtide_crds::time_share_group::TrafficMode;
use springtide_e2e::bench::progress::until_all;
use springtide_e2e::bench::scrape::Scrape;
use springtide_e2e::polling::until_seen;

use crate::field::{Field, manifest, member};

/// Whose replicas go, and whose come.
const DOWN: &str = "down";
const UP: &str = "up";
/// Bound for anything: the longest is for all pods to be there.
const BOUND: Duration = Duration::from_secs(30 * 60);

/// What was measured.
#[derive(Serialize, Deserialize)]
pub(crate) struct Scaled {
    /// Replicas that were moved.
    pub(crate) replicas: usize,
    /// From the change of both numbers until the last new pod was ready, in seconds.
    pub(crate) seconds: f64,
    /// Writes of all components on pods meanwhile, by the API server's own count.
    pub(crate) served: f64,
}

/// Moves as many replicas on the cluster of a field, whose own pods are removed first.
pub(crate) async fn measure(field: &Field, replicas: u32) -> Result<Scaled> {
    let deployments: Api<Deployment> = field.api();
    deployments.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
    until_seen(BOUND, "all pods are gone", async || {
        let left = field.pods.now().lives().count();
        Ok(if left == 0 { Ok(()) } else { Err(format!("{left} of them")) })
    })
    .await?;
    for (name, pods) in [(DOWN, replicas), (UP, 0)] {
        field.create(at_peak(name, pods)).await?;
    }
    let count = replicas as usize;
    until_all("replicas before", count, BOUND, || field.pods.now().ready(DOWN)[0]).await?;
    let server = Scrape::of_api_server(&field.client).await?.writes_on(&["pods"]);
    let began = Instant::now();
    for (name, pods) in [(DOWN, 0), (UP, replicas)] {
        let scale = Patch::Merge(json!({"spec": {"replicas": pods}}));
        deployments.patch_scale(name, &PatchParams::default(), &scale).await.context("scale")?;
    }
    until_all("replicas moved", count, BOUND, || field.pods.now().ready(UP)[0]).await?;
    let seconds = began.elapsed().as_secs_f64();
    let served = Scrape::of_api_server(&field.client).await?.writes_on(&["pods"]) - server;
    eprintln!("      a scaler: {replicas} replicas moved in {seconds:.0} s");
    Ok(Scaled { replicas: count, seconds, served })
}

/// A Deployment whose pods have their peak size whenever they are there.
fn at_peak(name: &str, pods: u32) -> Value {
    let member = member(name, pods, TrafficMode::None);
    let mut manifest = manifest(&member);
    let resources = &mut manifest["spec"]["template"]["spec"]["containers"][0]["resources"];
    for list in ["requests", "limits"] {
        resources[list]["cpu"] = json!(member.peak);
    }
    manifest
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::pods::PEAK;

    pub(crate) fn scaled() -> Scaled {
        Scaled { replicas: 5000, seconds: 250.0, served: 45_000.0 }
    }

    #[test]
    fn its_pods_are_born_at_peak() {
        let deployment: Deployment = serde_json::from_value(at_peak(UP, 0)).unwrap();
        let pod = deployment.spec.template.spec.unwrap();
        let resources = pod.containers[0].resources.as_ref().unwrap();
        let lists = [&resources.requests, &resources.limits];
        assert!(lists.iter().all(|list| list.as_ref().unwrap()["cpu"].0 == format!("{PEAK}m")));
    }
}
