//! R': the write chain of single-pod jobs, driven without a controller.

use crate::manifests;
use crate::watcher::Watcher;
use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt};
use kube::Client;
use kube::core::Request;
use serde_json::Value;
use springtide_e2e::bench::post;
use springtide_e2e::local_cluster::LocalCluster;
use std::time::{Duration, Instant};

/// Bound of one life: far above any that makes sense.
const LIFE: Duration = Duration::from_secs(300);

/// Lives a second, from the first create until every object is gone.
pub(crate) async fn lives_per_second(
    cluster: &LocalCluster,
    namespaces: &[String],
    lives: usize,
    in_flight: usize,
) -> Result<f64> {
    let client = cluster.client("bench-generator")?;
    let watcher = Watcher::start(cluster, false)?;
    let start = Instant::now();
    futures::stream::iter(0..lives)
        .map(|number| {
            let namespace = &namespaces[number % namespaces.len()];
            let name = format!("raw-{in_flight}-{number}");
            let (client, watcher) = (client.clone(), &watcher);
            async move {
                tokio::time::timeout(LIFE, life(&client, watcher, namespace, &name))
                    .await
                    .with_context(|| format!("{name} did not end"))?
            }
        })
        .buffer_unordered(in_flight)
        .try_collect::<()>()
        .await?;
    Ok(lives as f64 / start.elapsed().as_secs_f64())
}

async fn life(client: &Client, watcher: &Watcher, namespace: &str, name: &str) -> Result<()> {
    let jobs = manifests::jobs(namespace);
    let pods = manifests::pods(namespace);
    let job = post(client, &jobs, &manifests::job(namespace, name, "0")).await?;
    let uid = job["metadata"]["uid"].as_str().context("a job without uid")?;
    let pod = manifests::pod(namespace, name, uid, "0");
    let pod_name = pod["metadata"]["name"].as_str().context("a pod without name")?.to_owned();
    post(client, &pods, &pod).await?;
    let key = format!("{namespace}/{name}");
    watcher.until(&key, |seen| seen.pod_ended.is_some()).await;
    let patch = http::Request::patch(format!("{jobs}/{name}/status"))
        .header("content-type", "application/merge-patch+json")
        .body(serde_json::to_vec(&manifests::final_status())?)?;
    client.request::<Value>(patch).await?;
    delete(client, &pods, &pod_name).await?;
    delete(client, &jobs, name).await?;
    watcher.until(&key, |seen| seen.pod_gone.is_some() && seen.job_gone.is_some()).await;
    Ok(())
}

async fn delete(client: &Client, collection: &str, name: &str) -> Result<()> {
    let request = Request::new(collection).delete(name, &Default::default())?;
    client.request::<Value>(request).await?;
    Ok(())
}
