//! Containers that really run, and a machine on which nothing of them is left,
//! however the process that started them ends.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail as a test does")]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{ContainerStateTerminated, Node, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::runtime::wait::await_condition;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use springtide_e2e::node::leftovers::Footprint;
use springtide_e2e::node::program::BOX_IMAGE;
use springtide_e2e::node::{Allocatable, NODE_NAME, NodeCluster, required_or_skipped};
use tokio::sync::Mutex;

/// Bound for every wait: hit only when the event never comes.
const PATIENCE: Duration = Duration::from_secs(180);
/// Clusters one after the other: two at once only slow each other down.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());
/// How the test below hosts a cluster for another process, and where it writes.
const ENDING: &str = "SPRINGTIDE_TEST_ENDING";
const REPORT: &str = "SPRINGTIDE_TEST_REPORT";

fn pod(name: &str, args: &[&str], resources: Value) -> Result<Pod> {
    Ok(serde_json::from_value(json!({
        "metadata": { "name": name },
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 5,
            "containers": [{ "name": "task", "image": BOX_IMAGE, "args": args, "resources": resources }],
        },
    }))?)
}

fn limits(memory: &str) -> Value {
    json!({ "requests": { "cpu": "10m" }, "limits": { "memory": memory } })
}

fn terminated(pod: Option<&Pod>) -> Option<&ContainerStateTerminated> {
    let status = pod?.status.as_ref()?.container_statuses.as_ref()?.first()?;
    status.state.as_ref()?.terminated.as_ref()
}

async fn wait<T>(
    what: &str,
    event: impl Future<Output = Result<T, kube::runtime::wait::Error>>,
) -> Result<T> {
    let waited = tokio::time::timeout(PATIENCE, event).await;
    waited.with_context(|| format!("{what} within {PATIENCE:?}"))?.with_context(|| what.to_owned())
}

async fn end_of(pods: &Api<Pod>, name: &str) -> Result<ContainerStateTerminated> {
    let ended = await_condition(pods.clone(), name, |pod: Option<&Pod>| terminated(pod).is_some());
    let pod = wait(&format!("the end of {name}"), ended).await?;
    terminated(pod.as_ref()).cloned().with_context(|| format!("{name} is gone"))
}

/// Ends with the first look that finds nothing; what a guardian removes goes a
/// moment after its owner.
fn nothing_left(footprint: &Footprint) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = footprint.leftovers()?;
        if left.is_empty() {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "left behind:\n{}", left.join("\n"));
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[tokio::test]
async fn containers_end_as_they_say_and_stop_leaves_nothing() -> Result<()> {
    let _one = ONE_AT_A_TIME.lock().await;
    if !required_or_skipped().await? {
        return Ok(());
    }
    let offered = Allocatable { cpu_millis: 500, memory_bytes: 512 << 20 };
    let cluster = NodeCluster::builder().allocatable(offered).max_pods(7).start().await?;
    let client = cluster.control_plane().client("real-node-test")?;
    let footprint = cluster.footprint();

    let node = Api::<Node>::all(client.clone()).get(NODE_NAME).await?;
    let allocatable = node.status.and_then(|status| status.allocatable).context("allocatable")?;
    let quantity = |name: &str| allocatable.get(name).map(|quantity| quantity.0.clone());
    assert_eq!(quantity("cpu").as_deref(), Some("500m"));
    assert_eq!(quantity("memory").as_deref(), Some("512Mi"));
    assert_eq!(quantity("pods").as_deref(), Some("7"));

    let namespace = cluster.control_plane().create_namespace("node").await?;
    let pods: Api<Pod> = Api::namespaced(client, &namespace);
    for pod in [
        pod("good", &["exit", "0", "all done"], limits("64Mi"))?,
        pod("bad", &["exit", "42", "disk is full"], limits("64Mi"))?,
        pod("hungry", &["alloc", "128Mi", "growing"], limits("32Mi"))?,
        pod("sleeper", &["sleep", "100000", "started"], limits("64Mi"))?,
        pod("too-large", &["exit", "0"], json!({ "requests": { "cpu": "600m" } }))?,
    ] {
        pods.create(&PostParams::default(), &pod).await?;
    }
    for (name, code, reason, message) in [
        ("good", 0, "Completed", "all done"),
        ("bad", 42, "Error", "disk is full"),
        ("hungry", 137, "OOMKilled", "growing"),
    ] {
        let end = end_of(&pods, name).await?;
        assert_eq!(end.exit_code, code, "{name}: {end:?}");
        assert_eq!(end.reason.as_deref(), Some(reason), "{name}");
        assert_eq!(end.message.as_deref(), Some(message), "{name}");
    }

    let refused = |pod: Option<&Pod>| {
        let conditions = pod.and_then(|pod| pod.status.as_ref()?.conditions.as_ref());
        conditions.into_iter().flatten().any(|condition| condition.reason.as_deref() == Some("Unschedulable"))
    };
    wait("the refusal of too-large", await_condition(pods.clone(), "too-large", refused)).await?;

    let is_running = |pod: Option<&Pod>| {
        pod.and_then(|pod| pod.status.as_ref()?.phase.as_deref()).is_some_and(|phase| phase == "Running")
    };
    let sleeper = wait("the start of sleeper", await_condition(pods.clone(), "sleeper", is_running)).await?;
    let ip = sleeper.and_then(|pod| pod.status?.pod_ip).context("the address of sleeper")?;
    assert!(ip.starts_with("10.244.0."), "{ip}");
    assert!(cluster.containers(&namespace)?.len() >= 2, "a container and its sandbox");

    // Deleted pods leave the API when their containers have ended.
    pods.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
    for name in ["good", "bad", "hungry", "sleeper", "too-large"] {
        wait(
            &format!("the removal of {name}"),
            await_condition(pods.clone(), name, |pod: Option<&Pod>| pod.is_none()),
        )
        .await?;
    }
    let deadline = Instant::now() + PATIENCE;
    while !cluster.containers(&namespace)?.is_empty() {
        ensure!(Instant::now() < deadline, "containers stay: {:?}", cluster.containers(&namespace)?);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }

    let running = footprint.leftovers()?.join("\n");
    for part in ["(kubelet)", "(containerd)", "(kube-apiserver)", "mounts", "control group", "folder"] {
        assert!(running.contains(part), "{part} is not recognised in:\n{running}");
    }
    cluster.stop()?;
    nothing_left(&footprint)
}

/// Starts this very test binary with a cluster of its own, and gives its footprint
/// once a container runs there.
fn host(ending: &str, folder: &Path) -> Result<(Child, Footprint)> {
    let report = folder.join("footprint");
    let mut host = Command::new(std::env::current_exe()?)
        .args(["--exact", "hosted", "--ignored", "--nocapture"])
        .env(ENDING, ending)
        .env(REPORT, &report)
        // Its panic is what the test asks for.
        .env("RUST_BACKTRACE", "0")
        .stdout(Stdio::null())
        .spawn()?;
    let deadline = Instant::now() + 2 * PATIENCE;
    loop {
        if let Ok(text) = std::fs::read(&report) {
            return Ok((host, serde_json::from_slice(&text)?));
        }
        if let Some(status) = host.try_wait()? {
            bail!("the host of a cluster ended early: {status}");
        }
        if Instant::now() > deadline {
            host.kill()?;
            bail!("the host of a cluster is not ready");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Not a test of its own: the process that the tests below end. Without them it
/// does nothing.
#[tokio::test]
#[ignore = "run by the tests that end it"]
async fn hosted() -> Result<()> {
    let (Ok(ending), Some(report)) = (std::env::var(ENDING), std::env::var_os(REPORT)) else {
        return Ok(());
    };
    let cluster = NodeCluster::builder().start().await?;
    let namespace = cluster.control_plane().create_namespace("hosted").await?;
    let pods: Api<Pod> = Api::namespaced(cluster.control_plane().client("real-node-test")?, &namespace);
    pods.create(&PostParams::default(), &pod("sleeper", &["sleep", "100000"], json!({}))?).await?;
    let started = |pod: Option<&Pod>| {
        let statuses = pod.and_then(|pod| pod.status.as_ref()?.container_statuses.as_ref());
        statuses.into_iter().flatten().any(|status| status.started == Some(true))
    };
    wait("the start of sleeper", await_condition(pods, "sleeper", started)).await?;
    let part = Path::new(&report).with_extension("part");
    std::fs::write(&part, serde_json::to_vec(&cluster.footprint())?)?;
    std::fs::rename(&part, &report)?;
    assert_ne!(ending, "panic", "asked for");
    // Without being killed it ends some time, too.
    tokio::time::sleep(4 * PATIENCE).await;
    Ok(())
}

#[tokio::test]
async fn a_panic_leaves_nothing() -> Result<()> {
    let _one = ONE_AT_A_TIME.lock().await;
    if !required_or_skipped().await? {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let (mut host, footprint) = host("panic", folder.path())?;
    let status = host.wait()?;
    assert_eq!(status.code(), Some(101), "the harness reports the panic");
    nothing_left(&footprint)
}

#[tokio::test]
async fn sigkill_leaves_nothing() -> Result<()> {
    let _one = ONE_AT_A_TIME.lock().await;
    if !required_or_skipped().await? {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let (mut host, footprint) = host("sigkill", folder.path())?;
    let running = footprint.leftovers()?.join("\n");
    for part in ["(springtide-box)", "(containerd-shim)", "(kubelet)", "by its control group"] {
        assert!(running.contains(part), "{part} is not recognised in:\n{running}");
    }
    kill(Pid::from_raw(i32::try_from(host.id())?), Signal::SIGKILL)?;
    host.wait()?;
    nothing_left(&footprint)
}
