//! The local cluster does what its users rely on, and leaves nothing behind.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "the helpers of a test fail as a test does")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::{await_condition, conditions};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use springtide_e2e::kwok::{EXIT_CODE, NodeSpec, RUN_SECONDS, TERMINATION_MESSAGE, TERMINATION_REASON};
use springtide_e2e::local_cluster::{Component, LocalCluster};
use springtide_e2e::namespaces::Namespaces;
use springtide_e2e::polling;
use springtide_e2e::write_count::Verb;

/// Bound for events that are certain to come; far above what they take.
const BOUND: Duration = Duration::from_secs(180);

async fn within<T>(what: &str, event: impl Future<Output = T>) -> T {
    match tokio::time::timeout(BOUND, event).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not come within {BOUND:?}"),
    }
}

fn eventually(what: &str, mut event: impl FnMut() -> bool) {
    let deadline = Instant::now() + BOUND;
    while !event() {
        assert!(Instant::now() < deadline, "{what} did not come within {BOUND:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn pod(name: &str, annotations: &[(&str, &str)]) -> Pod {
    let annotations: BTreeMap<_, _> = annotations.iter().copied().collect();
    serde_json::from_value(json!({
        "metadata": {"name": name, "annotations": annotations},
        "spec": {
            "restartPolicy": "Never",
            "containers": [
                {"name": "task", "image": "example.com/task:1", "resources": {
                    "requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "64Mi"},
                }},
                {"name": "sidecar", "image": "example.com/sidecar:1"},
            ],
        },
    }))
    .unwrap()
}

fn phase(wanted: &'static str) -> impl Fn(Option<&Pod>) -> bool {
    move |pod: Option<&Pod>| {
        pod.and_then(|pod| pod.status.as_ref()).and_then(|status| status.phase.as_deref()) == Some(wanted)
    }
}

/// Processes whose command line names the folder.
fn processes_of(folder: &Path) -> Vec<String> {
    let folder = folder.to_str().unwrap();
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| fs::read(entry.unwrap().path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(folder))
        .collect()
}

fn nothing_remains_of(folder: &Path) {
    eventually("the end of all processes", || processes_of(folder).is_empty());
    eventually("the end of the folder", || !folder.exists());
}

#[tokio::test]
async fn kubectl_and_the_controllers_work() {
    let cluster = LocalCluster::shared().await.unwrap();
    let output = cluster.kubectl(&["get", "nodes", "-o", "name"]).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let nodes = String::from_utf8(output.stdout).unwrap();
    assert_eq!(nodes.lines().count(), NodeSpec::default().count, "{nodes}");

    let namespace = cluster.create_namespace("deploy").await.unwrap();
    cluster
        .apply(&format!(
            r#"{{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {{"name": "web", "namespace": "{namespace}"}},
            "spec": {{"replicas": 3, "selector": {{"matchLabels": {{"app": "web"}}}}, "template": {{
                "metadata": {{"labels": {{"app": "web"}}}},
                "spec": {{"containers": [{{"name": "web", "image": "example.com/web:1"}}]}}}}}}}}"#
        ))
        .await
        .unwrap();
    let args = ["wait", "deployment/web", "-n", &namespace, "--for=condition=Available", "--timeout=180s"];
    let output = cluster.kubectl(&args).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let pods: Api<Pod> = Api::namespaced(cluster.client("test").unwrap(), &namespace);
    let listed = pods.list(&ListParams::default()).await.unwrap();
    assert_eq!(listed.items.len(), 3);
    for pod in &listed.items {
        let status = pod.status.as_ref().unwrap();
        let container = &status.container_statuses.as_ref().unwrap()[0];
        assert!(container.ready);
        assert!(container.container_id.as_ref().unwrap().starts_with("containerd://"));
        assert!(container.image_id.starts_with("sha256:"));
        assert!(container.resources.is_some());
        assert_eq!(status.observed_generation, pod.metadata.generation);
        assert!(status.pod_ip.is_some());
    }
}

#[tokio::test]
async fn a_bad_manifest_is_refused_with_kubectls_words() {
    let cluster = LocalCluster::shared().await.unwrap();
    let error = cluster.apply("{\"apiVersion\": \"v1\", \"kind\": \"Nonsense\"}").await.unwrap_err();
    assert!(error.to_string().contains("Nonsense"), "{error}");
}

#[tokio::test]
async fn pods_end_as_their_annotations_say() {
    let cluster = LocalCluster::shared().await.unwrap();
    let namespace = cluster.create_namespace("pods").await.unwrap();
    let pods: Api<Pod> = Api::namespaced(cluster.client("test").unwrap(), &namespace);
    let create = async |name: &str, annotations: &[(&str, &str)]| {
        pods.create(&PostParams::default(), &pod(name, annotations)).await.unwrap();
    };
    create("plain", &[]).await;
    create("fails", &[(RUN_SECONDS, "0.2"), (EXIT_CODE, "42")]).await;
    create(
        "killed",
        &[(EXIT_CODE, "137"), (TERMINATION_REASON, "OOMKilled"), (TERMINATION_MESSAGE, "too: \"big\"")],
    )
    .await;
    create("stays", &[(RUN_SECONDS, "never")]).await;

    let ended = async |name: &str, wanted: &'static str| {
        let found = within(name, await_condition(pods.clone(), name, phase(wanted))).await.unwrap().unwrap();
        let statuses = found.status.unwrap().container_statuses.unwrap();
        let sidecar = statuses[1].state.clone().unwrap().terminated.unwrap();
        assert_eq!((sidecar.exit_code, sidecar.reason.as_deref()), (0, Some("Completed")));
        assert!(statuses[0].container_id.is_some());
        let task = statuses[0].state.clone().unwrap().terminated.unwrap();
        (task.exit_code, task.reason.unwrap(), task.message.unwrap_or_default())
    };
    assert_eq!(ended("plain", "Succeeded").await, (0, "Completed".into(), String::new()));
    assert_eq!(ended("fails", "Failed").await, (42, "Error".into(), String::new()));
    assert_eq!(ended("killed", "Failed").await, (137, "OOMKilled".into(), "too: \"big\"".into()));
    within("stays", await_condition(pods.clone(), "stays", conditions::is_pod_running())).await.unwrap();
    pods.delete("stays", &DeleteParams::default()).await.unwrap();
    within("its end", await_condition(pods.clone(), "stays", |pod: Option<&Pod>| pod.is_none()))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_finalizer_holds_a_terminated_pod() {
    let cluster = LocalCluster::shared().await.unwrap();
    let namespace = cluster.create_namespace("held").await.unwrap();
    let pods: Api<Pod> = Api::namespaced(cluster.client("test").unwrap(), &namespace);
    let mut held = pod("held", &[(RUN_SECONDS, "never")]);
    held.metadata.finalizers = Some(vec!["springtide.dev/test".into()]);
    pods.create(&PostParams::default(), &held).await.unwrap();
    within("running", await_condition(pods.clone(), "held", conditions::is_pod_running())).await.unwrap();
    pods.delete("held", &DeleteParams::default()).await.unwrap();
    let failed = within("terminated", await_condition(pods.clone(), "held", phase("Failed"))).await;
    let status = failed.unwrap().unwrap().status.unwrap();
    let terminated = status.container_statuses.unwrap()[0].state.clone().unwrap().terminated.unwrap();
    assert_eq!(terminated.exit_code, 143);
    let release = json!({"metadata": {"finalizers": null}});
    pods.patch("held", &PatchParams::default(), &Patch::Merge(release)).await.unwrap();
    within("its end", await_condition(pods.clone(), "held", |pod: Option<&Pod>| pod.is_none()))
        .await
        .unwrap();
}

#[tokio::test]
async fn the_audit_log_counts_exactly_what_a_client_did() {
    let cluster = LocalCluster::shared().await.unwrap();
    let namespace = cluster.create_namespace("count").await.unwrap();
    let client = cluster.client("counted/1.0 (test)").unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
    let pods: Api<Pod> = Api::namespaced(client, &namespace);
    let log = cluster.audit_log().unwrap();
    let mark = log.mark().unwrap();
    // Read without a pause, many times: a line that came late would be missed once.
    for round in 1..=50 {
        let name = format!("map-{round}");
        let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        maps.create(&PostParams::default(), &map).await.unwrap();
        let seen = log.since(mark).unwrap().by_agent("counted").writes();
        assert_eq!(seen.of_verb(Verb::Create).len(), round);
    }
    let patch = Patch::Merge(json!({"data": {"a": "b"}}));
    maps.patch("map-1", &PatchParams::default(), &patch).await.unwrap();
    maps.patch("map-1", &PatchParams::default().dry_run(), &patch).await.unwrap();
    maps.patch("missing", &PatchParams::default(), &patch).await.unwrap_err();
    maps.delete("map-2", &DeleteParams::default()).await.unwrap();
    maps.list(&ListParams::default()).await.unwrap();
    pods.create(&PostParams::default(), &pod("p", &[])).await.unwrap();
    within("the pod's end", await_condition(pods.clone(), "p", phase("Succeeded"))).await.unwrap();

    // A line is there before its own client has the answer, but others may hear of the write even earlier.
    let counted = || log.since(mark).unwrap().in_namespace(&namespace);
    let ended = async || counted().by_agent("kwok").of_resource("pods/status").len() >= 2;
    eventually_async("the line of the pod's end", ended).await;
    let all = counted();
    let own = all.by_agent("counted");
    let maps = own.of_resource("configmaps");
    assert_eq!(maps.writes().len(), 50 + 3, "{maps}");
    assert_eq!(maps.writes().successful().len(), 50 + 2, "{maps}");
    assert_eq!(maps.reads().of_verb(Verb::List).len(), 1, "{maps}");
    assert_eq!(maps.reads().of_verb(Verb::Get).len(), 0, "{maps}");
    assert!(!own.reads().of_resource("pods").of_verb(Verb::Watch).is_empty(), "{own}");
    // create, bind, started, ended: each component once.
    let pod = all.writes().of_resource("pods");
    assert_eq!(pod.by_agent("counted").len(), 1, "{pod}");
    assert_eq!(pod.by_agent("kube-scheduler").of_resource("pods/binding").len(), 1, "{pod}");
    assert_eq!(pod.by_agent("kwok").of_resource("pods/status").len(), 2, "{pod}");
    assert_eq!(pod.len(), 4, "{pod}");
}

#[tokio::test]
async fn two_clusters_run_side_by_side_and_stop_in_order() {
    let start = || LocalCluster::builder().start();
    let (left, right) = tokio::join!(start(), start());
    let (left, right) = (left.unwrap(), right.unwrap());
    assert_ne!(left.address(), right.address());
    let namespace = left.create_namespace("left").await.unwrap();
    let there = right.kubectl(&["get", "namespace", &namespace]).await.unwrap();
    assert!(!there.status.success());
    let folders = [left.folder().to_owned(), right.folder().to_owned()];
    assert_eq!(processes_of(&folders[0]).len(), 4, "{:?}", processes_of(&folders[0]));
    left.stop().unwrap();
    drop(right);
    for folder in &folders {
        // No waiting: whoever stops or drops a cluster can rely on its end.
        assert_eq!(processes_of(folder), Vec::<String>::new());
        assert!(!folder.exists());
    }
}

#[tokio::test]
async fn the_api_server_restarts_with_its_state_and_components_pause() {
    let mut cluster = LocalCluster::builder().without_controllers().start().await.unwrap();
    let namespace = cluster.create_namespace("kept").await.unwrap();
    let address = cluster.address();
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        cluster.restart_api_server(signal).await.unwrap();
        assert_eq!(cluster.address(), address);
        let found = cluster.kubectl(&["get", "namespace", &namespace]).await.unwrap();
        assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
    }
    let api_server = cluster.component(Component::ApiServer).unwrap();
    api_server.pause().unwrap();
    let args = ["get", "namespaces", "--request-timeout=2s"];
    assert!(!cluster.kubectl(&args).await.unwrap().status.success());
    api_server.resume().unwrap();
    assert!(cluster.kubectl(&["get", "namespaces"]).await.unwrap().status.success());
    assert!(cluster.component(Component::Scheduler).is_none());
    cluster.install_crds().await.unwrap();
}

#[tokio::test]
async fn a_cluster_in_a_private_network_is_reached_from_outside() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: namespaces need root");
        return;
    }
    let namespaces = Namespaces::private().unwrap();
    let address = "10.200.0.1";
    let links = format!(
        "ip link add node0 type veth peer name node0p && ip addr add {address}/24 dev node0 && ip link set node0 up && ip link set node0p up && ip route add default dev node0"
    );
    let set_up =
        namespaces.run(|| std::process::Command::new("sh").args(["-c", &links]).output().unwrap()).unwrap();
    assert!(set_up.status.success(), "{}", String::from_utf8_lossy(&set_up.stderr));
    let cluster = LocalCluster::builder()
        .in_namespaces(&namespaces, address.parse().unwrap())
        .kwok(NodeSpec { count: 1, ..NodeSpec::default() })
        .start()
        .await
        .unwrap();
    let args = ["get", "endpointslices", "kubernetes", "-o", "jsonpath={.endpoints[0].addresses[0]}"];
    eventually_async("the kubernetes Service", async || {
        cluster.kubectl(&args).await.unwrap().stdout == address.as_bytes()
    })
    .await;
    let outside = std::fs::read_to_string("/proc/net/fib_trie").unwrap();
    assert!(!outside.contains(address), "the node's address must not exist outside");
    let folder = cluster.folder().to_owned();
    drop(cluster);
    nothing_remains_of(&folder);
}

async fn eventually_async(what: &str, event: impl AsyncFn() -> bool) {
    polling::until(BOUND, what, async || Ok(event().await.then_some(()))).await.unwrap();
}

#[tokio::test]
async fn a_component_that_cannot_start_says_why_and_leaves_nothing() {
    let error = LocalCluster::builder()
        .extra_args(Component::ApiServer, ["--no-such-flag"])
        .start()
        .await
        .err()
        .expect("an unknown flag ends the server");
    let text = format!("{error:#}");
    assert!(text.contains("kube-apiserver ended early"), "{text}");
    assert!(text.contains("unknown flag: --no-such-flag"), "{text}");
    let log = text.split_whitespace().find(|word| word.contains("springtide-cluster-")).unwrap();
    let folder = Path::new(log).ancestors().nth(2).unwrap();
    assert!(folder.file_name().unwrap().to_str().unwrap().starts_with("springtide-cluster-"), "{log}");
    nothing_remains_of(folder);
}

/// Tells this binary, run again, to become the owner of a cluster and how to end.
const OWNER: &str = "SPRINGTIDE_TEST_OWNER";

/// Not a test of its own: the process that the tests below start.
#[tokio::test]
async fn owner_of_a_cluster() {
    let Ok(end) = std::env::var(OWNER) else { return };
    let cluster = LocalCluster::shared().await.unwrap();
    println!("\nfolder={}", cluster.folder().display());
    match end.as_str() {
        "wait" => std::future::pending().await,
        "panic" => panic!("asked to"),
        "exit" => std::process::exit(0),
        other => panic!("unknown end {other}"),
    }
}

/// Runs the process above up to the point where its cluster is ready.
fn start_owner(end: &str) -> (std::process::Child, PathBuf) {
    let mut owner = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "owner_of_a_cluster", "--nocapture"])
        .env(OWNER, end)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    let folder = lines
        .find_map(|line| line.unwrap().strip_prefix("folder=").map(PathBuf::from))
        .expect("the owner prints its folder");
    // The reader ends here, so the owner must not print more than a pipe holds.
    std::mem::forget(lines);
    (owner, folder)
}

#[test]
fn nothing_remains_after_sigkill_of_the_owner() {
    let (mut owner, folder) = start_owner("wait");
    assert_eq!(processes_of(&folder).len(), 5, "{:?}", processes_of(&folder));
    kill(Pid::from_raw(owner.id().try_into().unwrap()), Signal::SIGKILL).unwrap();
    owner.wait().unwrap();
    nothing_remains_of(&folder);
}

#[test]
fn nothing_remains_after_a_panic_or_an_exit() {
    for end in ["panic", "exit"] {
        let (mut owner, folder) = start_owner(end);
        let status = owner.wait().unwrap();
        assert_eq!(status.success(), end == "exit");
        nothing_remains_of(&folder);
    }
}

#[test]
fn dropping_in_a_panic_is_enough() {
    let (send, folder) = std::sync::mpsc::channel();
    let panicked = std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let cluster = LocalCluster::builder().without_controllers().start().await.unwrap();
            send.send(cluster.folder().to_owned()).unwrap();
            panic!("a test fails");
        });
    })
    .join();
    assert!(panicked.is_err());
    let folder = folder.recv().unwrap();
    assert_eq!(processes_of(&folder), Vec::<String>::new());
    assert!(!folder.exists());
}
