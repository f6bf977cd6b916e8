//! What KWOK can do by itself: it must not be what is measured.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt};
use serde_json::{Value, json};
use springtide_e2e::bench::post;
use springtide_e2e::kwok::NodeSpec;
use springtide_e2e::local_cluster::LocalCluster;

use crate::generator::Generator;
use crate::manifests::{self, System, Task};
use crate::watcher::{Jobs, Watcher};

/// Pods that it plays.
const PODS: usize = 1_000;
/// With what their names begin.
const PREFIX: &str = "played-";
/// Nodes that they are on.
const NODES: usize = 10;
/// Requests in flight.
const IN_FLIGHT: usize = 64;
/// Bound for it to play them all.
const BOUND: Duration = Duration::from_secs(120);

/// Pods a second that it starts and ends, of so many that waited for it on their nodes while it stood still.
pub(crate) async fn pods_per_second(cluster: &LocalCluster, generator: &Generator) -> Result<f64> {
    let kwok = cluster.kwok().context("KWOK")?;
    let watcher = Watcher::start(cluster, System::BatchJob, PREFIX, Jobs::Presence).await?;
    kwok.child().pause()?;
    let created = create(generator).await;
    // In any case: what comes next needs it.
    let resumed = Instant::now();
    kwok.child().resume()?;
    created?;
    watcher.until_all("played by KWOK", PODS, BOUND, |seen| seen.pod_ended.is_some()).await?;
    let last =
        watcher.all().into_values().filter_map(|seen| seen.pod_ended).max().context("no pod has ended")?;
    futures::stream::iter(0..PODS)
        .map(|number| async move {
            let pods = manifests::pods(generator.namespace(number));
            generator.delete(&pods, &format!("{PREFIX}{number}-0-0")).await
        })
        .buffer_unordered(IN_FLIGHT)
        .try_collect::<()>()
        .await?;
    watcher.until_all("deleted", PODS, BOUND, |seen| seen.pod_gone.is_some()).await?;
    Ok(PODS as f64 / last.saturating_duration_since(resumed).as_secs_f64())
}

async fn create(generator: &Generator) -> Result<()> {
    let set = NodeSpec::default().name;
    futures::stream::iter(0..PODS)
        .map(|number| {
            let namespace = generator.namespace(number);
            let mut pod = manifests::orphan(namespace, &format!("{PREFIX}{number}"), &Task::of("0"));
            pod["spec"]["nodeName"] = json!(format!("{set}-{}", number % NODES));
            async move {
                let pods = manifests::pods(namespace);
                tokio::time::timeout(BOUND, post(&generator.client, &pods, &pod)).await?.map(drop)
            }
        })
        .buffer_unordered(IN_FLIGHT)
        .try_collect()
        .await
}

/// Sizes of a job and of a pod that have ended, as the server sends them, in bytes.
pub(crate) async fn sizes(generator: &Generator) -> Result<[usize; 2]> {
    let (namespace, name, task) = (generator.namespace(0), "sized", Task::of("0"));
    let (jobs, pods) = (System::BatchJob.jobs(namespace), manifests::pods(namespace));
    let job = post(&generator.client, &jobs, &System::BatchJob.job(namespace, name, &task)).await?;
    let uid = job["metadata"]["uid"].as_str().context("a job without uid")?;
    let pod = manifests::pod(namespace, name, uid, &task);
    let pod_name = format!("{name}-0-0");
    post(&generator.client, &pods, &pod).await?;
    let get = async |path: String| {
        let request = http::Request::get(path).body(Vec::new())?;
        anyhow::Ok(generator.client.request_text(request).await?)
    };
    let deadline = Instant::now() + BOUND;
    let ended = loop {
        let text = get(format!("{pods}/{pod_name}")).await?;
        let read: Value = serde_json::from_str(&text)?;
        if read["status"]["phase"] == "Succeeded" {
            break text;
        }
        anyhow::ensure!(Instant::now() < deadline, "a single pod does not end: {text}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let status = manifests::final_status();
    generator.patch_status(&format!("{jobs}/{name}"), &status, "application/merge-patch+json").await?;
    let job = get(format!("{jobs}/{name}")).await?;
    generator.delete(&pods, &pod_name).await?;
    generator.delete(&jobs, name).await?;
    Ok([job.len(), ended.len()])
}
