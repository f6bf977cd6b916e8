//! R: bare pods without any controller, scheduler or node, the raw limit of the API server. Five writes each:
//! create, bind, two statuses, delete.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::AsyncReadExt;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, DeleteParams, PostParams};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use springtide_e2e::bench::lives::{Lives, Window, best, lead, middle};
use springtide_e2e::bench::{STRATEGIC, post};
use springtide_e2e::local_cluster::LocalCluster;
use tokio::task::JoinSet;

use crate::comparison::Sweep;
use crate::generator::Generator;
use crate::manifests::{self, Task};

/// A node that nobody plays and that has no room, so that only these pods are on it.
const NODE: &str = "bench-bare";
/// The longest p99 of lives that count.
pub(crate) const LONGEST_P99: f64 = 1.0;
/// For the watches to begin.
const WATCHES_BEGIN: Duration = Duration::from_secs(1);

/// What was measured.
#[derive(Serialize, Deserialize)]
pub(crate) struct Bare {
    /// By lives in flight.
    pub(crate) sweep: Vec<Lives>,
    /// The best of them once more beside so many watches.
    pub(crate) watched: Vec<(usize, Lives)>,
}

/// Measures the sweep, and the best of it again with each number of watches on pods.
pub(crate) async fn measure(cluster: &LocalCluster, generator: &Generator, plan: &Sweep) -> Result<Bare> {
    let window = Sweep::window(plan.seconds);
    let nodes: Api<Node> = Api::all(cluster.client("bench-generator")?);
    let node = json!({"metadata": {"name": NODE}, "spec": {"unschedulable": true}});
    nodes
        .create(&PostParams::default(), &serde_json::from_value(node)?)
        .await
        .context("a node for bare pods")?;
    let mut first = 0;
    let mut sweep = Vec::new();
    for in_flight in &plan.bare_in_flight {
        let lives = lives(generator, *in_flight, window, plan.times, &mut first).await?;
        eprintln!("      R, {in_flight} in flight: {:.1} lives/s, p99 {:.2} s", lives.rate, lives.p99);
        sweep.push(lives);
    }
    let best = best(&sweep, LONGEST_P99).context("no lives of pods are short enough")?.in_flight;
    let mut watched = Vec::new();
    for count in &plan.watches {
        let mut watches = watch(cluster, *count)?;
        tokio::time::sleep(WATCHES_BEGIN).await;
        let lives = lives(generator, best, window, plan.times, &mut first).await?;
        if let Some(ended) = watches.try_join_next() {
            ended??;
            bail!("a watch beside the lives has ended");
        }
        eprintln!("      R, {best} in flight, {count} watches: {:.1} lives/s", lives.rate);
        watched.push((*count, lives));
    }
    nodes.delete(NODE, &DeleteParams::default()).await?;
    Ok(Bare { sweep, watched })
}

async fn lives(
    generator: &Generator,
    in_flight: usize,
    window: Window,
    times: usize,
    first: &mut usize,
) -> Result<Lives> {
    let mut tries = Vec::new();
    for _ in 0..times {
        let generator = generator.clone();
        let life = move |number| {
            let generator = generator.clone();
            async move { life(&generator, number).await }
        };
        tries.push(lead(in_flight, window, first, life).await?);
    }
    middle(tries).context("a sweep without tries")
}

async fn life(generator: &Generator, number: usize) -> Result<()> {
    let namespace = generator.namespace(number);
    let pods = manifests::pods(namespace);
    let mut pod = manifests::orphan(namespace, &format!("bare-{number}"), &Task::of("never"));
    // Nobody's, so that it stays where it is.
    pod["spec"]["schedulerName"] = json!("bench");
    let name = pod["metadata"]["name"].as_str().context("a pod without name")?.to_owned();
    post(&generator.client, &pods, &pod).await?;
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
        "target": {"apiVersion": "v1", "kind": "Node", "name": NODE},
    });
    post(&generator.client, &format!("{pods}/{name}/binding"), &binding).await?;
    for status in [manifests::running(), manifests::succeeded()] {
        generator.patch_status(&format!("{pods}/{name}"), &status, STRATEGIC).await?;
    }
    generator.delete(&pods, &name).await
}

/// So many watches on all pods, which are read and not decoded.
fn watch(cluster: &LocalCluster, count: usize) -> Result<JoinSet<Result<()>>> {
    let mut watches = JoinSet::new();
    for _ in 0..count {
        let client = cluster.client("bench-watcher")?;
        watches.spawn(async move {
            let list: Value =
                client.request(http::Request::get("/api/v1/pods?limit=1").body(Vec::new())?).await?;
            let version = list["metadata"]["resourceVersion"].as_str().context("a list without version")?;
            let path = format!("/api/v1/pods?watch=true&resourceVersion={version}");
            let events = client.request_stream(http::Request::get(path).body(Vec::new())?).await?;
            let mut events = std::pin::pin!(events);
            let mut buffer = vec![0; 1 << 16];
            while events.read(&mut buffer).await? > 0 {}
            Ok(())
        });
    }
    Ok(watches)
}
