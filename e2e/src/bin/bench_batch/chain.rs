//! R': the write chain of a single-pod job, driven without its controller: create job, create pod, bind, two pod
//! statuses, status, delete pod, delete job. Scheduler and KWOK do their part of it.

use std::time::Duration;

use anyhow::{Context, Result};
use springtide_e2e::bench::lives::{Lives, Window, lead};
use springtide_e2e::bench::post;
use springtide_e2e::local_cluster::LocalCluster;

use crate::generator::Generator;
use crate::manifests::{self, System, Task};
use crate::watcher::{Jobs, Watcher};

/// For what the last lives have left behind in the components.
const REST: Duration = Duration::from_secs(1);

/// Lives a second with so many at once. `prefix` tells their objects from those of other runs.
pub(crate) async fn lives(
    cluster: &LocalCluster,
    generator: &Generator,
    prefix: &str,
    in_flight: usize,
    window: Window,
) -> Result<Lives> {
    let watcher = Watcher::start(cluster, System::BatchJob, prefix, Jobs::Presence).await?;
    let (generator, prefix) = (generator.clone(), prefix.to_owned());
    let lives = lead(in_flight, window, &mut 0, move |number| {
        let (generator, watcher, name) = (generator.clone(), watcher.clone(), format!("{prefix}{number}"));
        async move { life(&generator, &watcher, number, &name).await }
    })
    .await?;
    tokio::time::sleep(REST).await;
    Ok(lives)
}

async fn life(generator: &Generator, watcher: &Watcher, number: usize, name: &str) -> Result<()> {
    let namespace = generator.namespace(number);
    let (jobs, pods) = (System::BatchJob.jobs(namespace), manifests::pods(namespace));
    let task = Task::of("0");
    let job = post(&generator.client, &jobs, &System::BatchJob.job(namespace, name, &task)).await?;
    let uid = job["metadata"]["uid"].as_str().context("a job without uid")?;
    let pod = manifests::pod(namespace, name, uid, &task);
    let pod_name = pod["metadata"]["name"].as_str().context("a pod without name")?.to_owned();
    post(&generator.client, &pods, &pod).await?;
    let key = format!("{namespace}/{name}");
    watcher.until(&key, |seen| seen.pod_ended.is_some()).await;
    let status = manifests::final_status();
    generator.patch_status(&format!("{jobs}/{name}"), &status, "application/merge-patch+json").await?;
    generator.delete(&pods, &pod_name).await?;
    generator.delete(&jobs, name).await?;
    watcher.until(&key, |seen| seen.is_gone()).await;
    Ok(())
}
