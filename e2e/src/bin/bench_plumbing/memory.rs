//! What a watched pod costs the manager.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use springtide_batch_job::pods::JOB_LABEL;
use springtide_batch_job::projections::pod::{PodView, TRACKING_FINALIZER};
use springtide_e2e::bench::{post, usage};
use springtide_e2e::local_cluster::LocalCluster;
use springtide_e2e::manager::Manager;

/// The least size of a pod as the API server sends it, in bytes.
const POD_BYTES: usize = 5_500;
/// Pods of a namespace, and of a node.
const PER_NAMESPACE: usize = 2_500;
const PER_NODE: usize = 100;
/// Neighbours of which those with odd numbers are of one job.
const PODS_OF_JOB: usize = 50;
/// Bound for the manager to see them all.
const BOUND: Duration = Duration::from_secs(300);

/// What was measured, a pod.
pub(crate) struct Memory {
    pub(crate) pods: usize,
    /// Size as JSON.
    pub(crate) bytes: usize,
    /// Growth of the manager's resident set, in KiB.
    pub(crate) kib: f64,
    /// Its resident set with all pods, in MiB.
    pub(crate) full_mib: f64,
    /// Time to decode one as a projection, in µs.
    pub(crate) decode_micros: f64,
    /// The peer: the same as a typed pod of k8s-openapi, held in this process.
    pub(crate) typed_kib: f64,
    pub(crate) typed_decode_micros: f64,
}

/// Compares a manager before there is any pod with the same one when all were created while it watched. It only
/// observes: every other pod is a job's, so that all indexes have their entries, and there are no such jobs.
pub(crate) async fn measure(cluster: &LocalCluster, pods: usize) -> Result<Memory> {
    let args = ["--no-leader-election", "--observe", "batch-job"];
    let mut manager = Manager::start(cluster, "manager-empty", &args).await?;
    manager.wait_ready().await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let empty_mib = usage::resident_mib(manager.child().pid())?;

    let client = cluster.client("bench-generator")?;
    let mut namespaces = Vec::new();
    for _ in 0..pods.div_ceil(PER_NAMESPACE) {
        namespaces.push(cluster.create_namespace("bench").await?);
    }
    let start = Instant::now();
    let sizes: Vec<usize> = futures::stream::iter(0..pods)
        .map(|number| {
            let (client, namespace) = (client.clone(), &namespaces[number / PER_NAMESPACE]);
            async move {
                let path = format!("/api/v1/namespaces/{namespace}/pods");
                let stored = post(&client, &path, &pod(namespace, number)).await?;
                Ok::<_, anyhow::Error>(stored.to_string().len())
            }
        })
        .buffer_unordered(64)
        .try_collect()
        .await?;
    let bytes = sizes.iter().sum::<usize>() / pods;
    ensure!(bytes >= POD_BYTES, "a pod has {bytes} bytes, of at least {POD_BYTES}");
    eprintln!("      {pods} pods of {bytes} bytes in {:.0} s", start.elapsed().as_secs_f64());

    let deadline = Instant::now() + BOUND;
    while stored(&manager.metrics().await?)? < pods as f64 {
        if Instant::now() > deadline {
            bail!("the manager does not see all pods");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let full_mib = usage::resident_mib(manager.child().pid())?;
    manager.stop()?;

    // One of a job, as these have more to decode.
    let request = http::Request::get(format!("/api/v1/namespaces/{}/pods/{}", namespaces[0], name(1)));
    let text = client.request_text(request.body(Vec::new())?).await?;
    // The projection first: what the other frees is not counted for it, as nothing is freed before.
    let (decode_micros, _) = decoded::<PodView>(&text, 10_000)?;
    let (typed_decode_micros, typed_kib) = decoded::<Pod>(&text, 2_000)?;
    let kib = (full_mib - empty_mib) * 1024.0 / pods as f64;
    eprintln!("      {kib:.2} KiB a pod, {decode_micros:.1} µs to decode");
    Ok(Memory { pods, bytes, kib, full_mib, decode_micros, typed_kib, typed_decode_micros })
}

/// Parts of a decoding run, of which the fastest counts: the others were disturbed by the machine.
const PARTS: usize = 10;

/// Decodes it so often and keeps all; gives µs and KiB of one.
fn decoded<T: serde::de::DeserializeOwned>(text: &str, times: usize) -> Result<(f64, f64)> {
    let pid = i32::try_from(std::process::id())?;
    let before = usage::resident_mib(pid)?;
    let mut kept = Vec::with_capacity(times);
    let part = times / PARTS;
    let mut fastest = f64::INFINITY;
    for _ in 0..PARTS {
        let start = Instant::now();
        for _ in 0..part {
            kept.push(serde_json::from_slice::<T>(black_box(text.as_bytes()))?);
        }
        fastest = fastest.min(start.elapsed().as_secs_f64());
    }
    let micros = 1e6 * fastest / part as f64;
    let kib = (usage::resident_mib(pid)? - before) * 1024.0 / times as f64;
    drop(black_box(kept));
    Ok((micros, kib))
}

/// How many pods the manager has stored.
fn stored(metrics: &str) -> Result<f64> {
    let line = metrics.lines().find(|line| line.starts_with("springtide_store_objects{resource=\"pods\"}"));
    let value = line.and_then(|line| line.rsplit(' ').next()).context("springtide_store_objects of pods")?;
    Ok(value.parse()?)
}

/// The job that a pod is of, if it is of one.
fn job(number: usize) -> Option<String> {
    (number % 2 == 1).then(|| format!("job-{}", number % PER_NAMESPACE / PODS_OF_JOB))
}

fn name(number: usize) -> String {
    let number_there = number % PER_NAMESPACE;
    match job(number) {
        Some(job) => format!("{job}-{number_there}-0"),
        None => format!("pod-{number_there}"),
    }
}

/// A pod of a workload as one finds it: bound, labelled, with probes, environment and volumes.
fn pod(namespace: &str, number: usize) -> Value {
    let container = |name: &str| {
        let environment: Vec<_> = (0..2)
            .map(|n| {
                json!({"name": format!("SETTING_NUMBER_{n}"), "value": format!("https://service-{n}.{namespace}.svc:8443/path")})
            })
            .collect();
        let probe = json!({
            "httpGet": {"path": "/healthz", "port": 8080, "scheme": "HTTP"},
            "periodSeconds": 10, "timeoutSeconds": 2, "failureThreshold": 3,
        });
        json!({
            "name": name,
            "image": format!("registry.example/team/{name}:1.42.7"),
            "args": ["--config=/etc/app/config.yaml", "--listen=:8080"],
            "env": environment,
            "livenessProbe": probe, "readinessProbe": probe,
            "resources": {"requests": {"cpu": "250m", "memory": "256Mi"}, "limits": {"memory": "512Mi"}},
            "volumeMounts": [{"name": "config", "mountPath": "/etc/app"}, {"name": "scratch", "mountPath": "/tmp"}],
        })
    };
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "namespace": namespace,
            "name": name(number),
            "labels": {
                "app.kubernetes.io/name": "web", "app.kubernetes.io/instance": format!("web-{}", number % 50),
                "app.kubernetes.io/part-of": "shop", "pod-template-hash": "6d4cf56db6",
            },
            "annotations": {"checksum/config": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"},
        },
        "spec": {
            "nodeName": format!("node-{}", number / PER_NODE),
            "containers": [container("web"), container("proxy")],
            "volumes": [{"name": "config", "configMap": {"name": "web"}}, {"name": "scratch", "emptyDir": {}}],
        },
    });
    if let Some(job) = job(number) {
        let metadata = &mut pod["metadata"];
        let place = number / PER_NAMESPACE * PER_NAMESPACE + number % PER_NAMESPACE / PODS_OF_JOB;
        metadata["labels"][JOB_LABEL] = json!(job);
        metadata["finalizers"] = json!([TRACKING_FINALIZER]);
        metadata["ownerReferences"] = json!([{
            "apiVersion": "springtide.dev/v1alpha1", "kind": "BatchJob", "name": job, "controller": true,
            "uid": format!("00000000-0000-4000-8000-{place:012}"),
        }]);
    }
    pod
}
