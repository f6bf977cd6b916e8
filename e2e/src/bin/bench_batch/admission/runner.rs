//! What Kueue's runner does beside Kueue: it creates the workloads at their pace, and ends each as long after its
//! admission as it is to run. Here a workload is admitted when its pod exists, and ended as a kubelet would report it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::json;
use springtide_e2e::bench::{STRATEGIC, post};
use springtide_e2e::kwok::RUN_SECONDS;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::preset::Queue;
use crate::generator::Generator;
use crate::manifests::{self, System};

/// Requests under way of those who create, and of those who end.
const IN_FLIGHT: usize = 64;
/// Bound of one create.
const CREATE: Duration = Duration::from_secs(120);

/// A pod that was seen for the first time.
pub(super) struct Started {
    namespace: String,
    name: String,
    uid: String,
    runtime: Duration,
    since: Instant,
}

/// What is to be told of pods, and where it comes out.
pub(super) fn wire() -> (impl Fn(&Pod) + Send + 'static, UnboundedReceiver<Started>) {
    let (sender, receiver) = unbounded_channel();
    let known = std::sync::Mutex::new(HashSet::new());
    let tell = move |pod: &Pod| tell(pod, &known, &sender);
    (tell, receiver)
}

fn tell(pod: &Pod, known: &std::sync::Mutex<HashSet<String>>, sender: &UnboundedSender<Started>) {
    let Some(started) = started(pod) else { return };
    let is_new = known.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(started.uid.clone());
    if is_new {
        // Nobody listens any more when the run is over.
        let _ = sender.send(started);
    }
}

fn started(pod: &Pod) -> Option<Started> {
    let seconds: f64 = pod.annotations().get(RUN_SECONDS)?.parse().ok()?;
    pod.metadata.deletion_timestamp.is_none().then_some(Started {
        namespace: pod.namespace()?,
        name: pod.name_any(),
        uid: pod.uid()?,
        runtime: Duration::try_from_secs_f64(seconds).ok()?,
        since: Instant::now(),
    })
}

/// Ends each pod when its time is over. Does not return before `started` does, or an end is refused for another
/// reason than that the pod is gone.
pub(super) async fn end_in_time(
    generator: &Generator,
    mut started: UnboundedReceiver<Started>,
) -> Result<()> {
    let seats = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            pod = started.recv() => match pod {
                Some(pod) => drop(running.spawn(end(generator.clone(), Arc::clone(&seats), pod))),
                None => break,
            },
            Some(ended) = running.join_next() => ended??,
        }
    }
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    Ok(())
}

async fn end(generator: Generator, seats: Arc<Semaphore>, pod: Started) -> Result<()> {
    tokio::time::sleep_until((pod.since + pod.runtime).into()).await;
    let _seat = seats.acquire().await?;
    let Started { namespace, name, uid, .. } = pod;
    let mut status = manifests::succeeded();
    status["metadata"] = json!({"uid": uid});
    let path = format!("{}/{name}", manifests::pods(&namespace));
    match generator.patch_status(&path, &status, STRATEGIC).await {
        Err(error) if !is_gone(&error) => Err(error).with_context(|| format!("end {path}")),
        // Who was preempted has no end; another pod of the name has its own.
        Ok(()) | Err(_) => Ok(()),
    }
}

fn is_gone(error: &anyhow::Error) -> bool {
    let refused = error.downcast_ref::<kube::Error>();
    matches!(refused, Some(kube::Error::Api(status)) if status.code == 404 || status.code == 409)
}

/// Creates all workloads, those of a lane one after the other. Gives by namespace and name when each was sent.
pub(super) async fn create(
    generator: &Generator,
    namespaces: &[String],
    queues: &[Queue],
) -> Result<HashMap<String, Instant>> {
    let seats = Semaphore::new(IN_FLIGHT);
    let seats = &seats;
    let lanes = queues.iter().flat_map(|queue| queue.lanes.iter().map(move |lane| (queue, lane)));
    let lanes = lanes.map(|(queue, lane)| async move {
        let namespace = namespaces.get(queue.cohort).context("a cohort without namespace")?;
        let path = System::BatchJob.jobs(namespace);
        let mut sent = Vec::with_capacity(lane.jobs.len());
        for job in &lane.jobs {
            tokio::time::sleep(lane.interval).await;
            let _seat = seats.acquire().await?;
            let manifest = job.manifest(namespace, &queue.name);
            let at = Instant::now();
            let created = timeout(CREATE, post(&generator.client, &path, &manifest)).await;
            created
                .with_context(|| format!("{} is not created", job.name))?
                .with_context(|| format!("create {}", job.name))?;
            sent.push((format!("{namespace}/{}", job.name), at));
        }
        anyhow::Ok(sent)
    });
    Ok(try_join_all(lanes).await?.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str, seconds: &str) -> Pod {
        serde_json::from_value(json!({"metadata": {
            "namespace": "ns", "name": "a-0-0", "uid": uid, "annotations": {RUN_SECONDS: seconds},
        }}))
        .unwrap()
    }

    #[tokio::test]
    async fn every_pod_is_told_of_once() {
        let (tell, mut told) = wire();
        for uid in ["a", "a", "b", "a"] {
            tell(&pod(uid, "0.2"));
        }
        tell(&pod("c", "never"));
        drop(tell);
        let mut uids = Vec::new();
        while let Some(started) = told.recv().await {
            assert_eq!(started.runtime, Duration::from_millis(200));
            uids.push(started.uid);
        }
        assert_eq!(uids, ["a", "b"]);
    }
}
