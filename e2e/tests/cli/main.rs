//! What `springtide explain`, `status` and `plan` say, beside a manager that acts, on a real control plane with pods
//! that KWOK plays. All tests share one cluster and one manager; each has a namespace.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail as a test does")]

mod plans;
#[path = "../batch_crash/profile.rs"]
mod profile;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Output, Stdio};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::wait::await_condition;
use serde_json::{Value, json};
use springtide_crds::batch_job::{BatchJobSpec, QueuedReason, Retry, StalledReason};
use springtide_crds::batch_queue::{BatchQueue, BatchQueueSpec, PeakWindowActiveReason, QuotaRow};
use springtide_crds::common::Quantity;
use springtide_crds::reason::Reason;
use springtide_e2e::batch::{Task, Testbed, pool, queues, shared};
use springtide_e2e::helm::checkout;
use springtide_e2e::local_cluster::LocalCluster;
use springtide_e2e::manager::{USER_AGENT, springtide_binary};
use springtide_e2e::oracle::feed::PATIENCE;
use springtide_e2e::write_count::WriteCount;
use tokio::io::AsyncWriteExt;

/// Exit codes, as docs/cli.md has them.
const FINE: i32 = 0;
const ERROR: i32 = 1;
const NOT_READY: i32 = 2;
const STALLED: i32 = 3;

/// Runs a command in a namespace, with this on its standard input.
async fn springtide(kubeconfig: &Path, namespace: &str, args: &[&str], input: &str) -> Result<Output> {
    let mut child = tokio::process::Command::new(springtide_binary().await?)
        .args(args)
        .args(["--namespace", namespace, "--kubeconfig"])
        .arg(kubeconfig)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read its input says why on stderr.
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    tokio::time::timeout(PATIENCE, child.wait_with_output()).await?.context("run springtide")
}

/// The JSON of a command that ends with this code.
async fn answer(kubeconfig: &Path, namespace: &str, args: &[&str], input: &str, code: i32) -> Result<Value> {
    let args = [args, &["-o", "json"]].concat();
    let output = springtide(kubeconfig, namespace, &args, input).await?;
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.code() == Some(code), "{args:?} ended with {}: {said}", output.status);
    serde_json::from_slice(&output.stdout).with_context(|| format!("{args:?}: {said}"))
}

async fn explained(test: &Testbed<'_>, job: &str, code: i32) -> Result<Value> {
    let target = format!("bj/{job}");
    answer(&test.cluster.kubeconfig_path(), &test.namespace, &["explain", &target], "", code).await
}

async fn text(test: &Testbed<'_>, args: &[&str]) -> Result<String> {
    let output = springtide(&test.cluster.kubeconfig_path(), &test.namespace, args, "").await?;
    Ok(String::from_utf8(output.stdout)?)
}

fn cpu(nominal: &str) -> BatchQueueSpec {
    let row = QuotaRow { resource: "cpu".to_owned(), nominal: Quantity::new(nominal), max: None };
    BatchQueueSpec { quota: vec![row], ..BatchQueueSpec::new() }
}

fn wide(tasks: u32, queue: Option<&str>, task: &Task) -> BatchJobSpec {
    BatchJobSpec {
        completions: tasks,
        parallelism: tasks,
        queue_name: queue.map(str::to_owned),
        ..BatchJobSpec::new(task.template())
    }
}

fn half() -> Task {
    Task { cpu: "500m".into(), ..Task::endless() }
}

fn manifest(kind: &str, name: &str, spec: &impl serde::Serialize) -> String {
    json!({"apiVersion": "springtide.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
        .to_string()
}

/// All requests of a command, of whichever test: most are on no namespace.
fn asked(cluster: &LocalCluster, command: &str) -> Result<WriteCount> {
    let ours = |agent: &str| agent.starts_with(USER_AGENT) && agent.split(' ').nth(1) == Some(command);
    Ok(cluster.audit_log()?.all()?.filter(|request| ours(&request.user_agent)))
}

#[tokio::test]
async fn explain_names_the_quota_the_place_in_line_and_what_helps() -> Result<()> {
    let cluster = shared().await?;
    let test = Testbed::new(cluster, "explain-quota").await?;
    queues::open(&test, "small", cpu("1")).await?;
    test.submit("holds", wide(2, Some("small"), &half())).await?;
    test.running("holds", 2).await?;
    test.submit("first", BatchJobSpec { priority: 1, ..wide(1, Some("small"), &half()) }).await?;
    test.submit("late", wide(1, Some("small"), &half())).await?;
    let runs = explained(&test, "holds", FINE).await?;
    ensure!(runs["state"] == "Running" && runs["tasks"]["running"] == 2, "{runs}");
    ensure!(runs["pods"].as_array().is_some_and(|pods| pods.len() == 2), "{runs}");
    // Before the manager has said a word about it.
    let late = explained(&test, "late", NOT_READY).await?;
    ensure!(late["basis"] == "Computed" && late["state"] == "Waiting", "{late}");
    ensure!(late["waits"]["reason"] == "QuotaExceeded" && late["waits"]["resource"] == "cpu", "{late}");
    ensure!(late["line"]["ahead"] == 1 && late["line"]["waiting"] == 2, "{late}");
    let row = json!({"resource": "cpu", "used": "1", "nominal": "1", "max": "1"});
    ensure!(late["queue"]["name"] == "small" && late["queue"]["quota"][0] == row, "{late}");
    let creates = late["nextWrites"].as_array().into_iter().flatten();
    ensure!(creates.into_iter().all(|write| write["verb"] != "create"), "{late}");
    let job = test.reason("late", QueuedReason::QuotaExceeded).await?;
    let said = job.status.context("a status")?.conditions;
    let queued =
        said.iter().find(|condition| condition.type_ == QueuedReason::CONDITION).context("Queued")?;
    ensure!(late["waits"]["message"] == queued.message.as_str(), "{late} and {queued:?}");
    let words = text(&test, &["explain", "bj/late"]).await?;
    for piece in ["waits: Queued", "QuotaExceeded", "uses 1 of 1 cpu", "1 ahead of it of 2 jobs", "To do"] {
        ensure!(words.contains(piece), "no {piece} in:\n{words}");
    }

    test.submit("lost", wide(1, Some("missing"), &half())).await?;
    test.reason("lost", StalledReason::QueueNotFound).await?;
    let lost = explained(&test, "lost", STALLED).await?;
    ensure!(lost["waits"]["reason"] == "QueueNotFound" && lost["queue"]["exists"] == false, "{lost}");
    ensure!(lost["stalled"]["reason"] == "QueueNotFound", "{lost}");
    let none = springtide(&cluster.kubeconfig_path(), &test.namespace, &["explain", "bj/none"], "").await?;
    ensure!(none.status.code() == Some(ERROR), "{none:?}");
    ensure!(String::from_utf8_lossy(&none.stderr).contains("there is no BatchJob none"), "{none:?}");
    for job in ["holds", "first", "late", "lost"] {
        test.delete(job).await?;
    }
    // Nobody has written for an explanation.
    let asked = asked(cluster, "explain")?;
    ensure!(!asked.is_empty() && asked.writes().is_empty(), "{asked}");
    test.verify()
}

#[tokio::test]
async fn explain_counts_nodes_by_what_speaks_against_them() -> Result<()> {
    let cluster = shared().await?;
    let kwok = cluster.kwok().context("KWOK")?;
    kwok.add_nodes(cluster, &pool("explained", 2, "1", 110)).await?;
    let test = Testbed::new(cluster, "explain-nodes").await?;
    let task = half().on("explained");
    test.submit("holds", wide(2, None, &task)).await?;
    let running = test.running("holds", 2).await?;
    let nodes: Api<Node> = Api::all(cluster.client("springtide-test")?);
    let crowded = running[0].node.clone().context("a node")?;
    let other = running[1].node.clone().context("a node")?;
    ensure!(crowded != other, "pods are spread over the nodes");
    let cordon = |on: bool| Patch::Merge(json!({"spec": {"unschedulable": on}}));
    nodes.patch(&other, &PatchParams::default(), &cordon(true)).await?;
    let large = Task { cpu: "800m".into(), ..task.clone() };
    test.submit("late", wide(1, None, &large)).await?;
    let late = explained(&test, "late", NOT_READY).await?;
    ensure!(late["waits"]["reason"] == "NoCapacity" && late["queue"]["name"] == "", "{late}");
    let excluded = late["nodes"]["excluded"].as_array().context("nodes")?;
    let of = |reason: &str| excluded.iter().find(|row| row["reason"] == reason);
    ensure!(of("Cordoned").is_some_and(|row| row["examples"] == json!([other])), "{late}");
    ensure!(
        of("Full").is_some_and(|row| row["detail"] == "cpu" && row["examples"] == json!([crowded])),
        "{late}"
    );
    ensure!(of("Selector").is_some_and(|row| row["nodes"].as_u64() >= Some(10)), "{late}");

    test.submit("huge", wide(1, None, &Task { cpu: "64".into(), ..task })).await?;
    test.reason("huge", StalledReason::NeverFits).await?;
    let huge = explained(&test, "huge", STALLED).await?;
    ensure!(huge["waits"]["reason"] == "NeverFits" && huge["stalled"]["reason"] == "NeverFits", "{huge}");
    nodes.patch(&other, &PatchParams::default(), &cordon(false)).await?;
    for job in ["holds", "late", "huge"] {
        test.delete(job).await?;
        test.gone(job).await?;
    }
    test.verify()
}

#[tokio::test]
async fn explain_tells_until_when_a_failed_task_waits_and_how_a_job_ended() -> Result<()> {
    let cluster = shared().await?;
    let test = Testbed::new(cluster, "explain-backoff").await?;
    let slow = Retry { initial_backoff_seconds: 600, max_backoff_seconds: 600, ..Retry::default() };
    test.submit("fails", BatchJobSpec { retry: slow, ..BatchJobSpec::new(Task::failing(3).template()) })
        .await?;
    test.job("fails", "its first failure", |job| {
        job.status.as_ref().is_some_and(|status| status.failed == 1)
    })
    .await?;
    test.no_pods("fails").await?;
    let fails = explained(&test, "fails", NOT_READY).await?;
    ensure!(fails["state"] == "Waiting" && fails["retry"]["failures"] == 1, "{fails}");
    let ended = fails["lastFailures"][0]["finishTime"].as_str().context("a time")?;
    let ended: jiff::Timestamp = ended.parse()?;
    let until: jiff::Timestamp = fails["retry"]["until"].as_str().context("a time")?.parse()?;
    ensure!(until.duration_since(ended).as_secs() == 600, "{fails}");
    let words = text(&test, &["explain", "bj/fails"]).await?;
    ensure!(words.contains("Backoff   task 0 failed once and is tried again at "), "{words}");

    test.submit("quick", BatchJobSpec::new(Task::quick().template())).await?;
    test.completed("quick").await?;
    let quick = explained(&test, "quick", FINE).await?;
    ensure!(quick["state"] == "Completed" && quick["result"]["exitCode"] == 0, "{quick}");
    ensure!(quick["deadlines"][0]["field"] == "ttlSecondsAfterFinished", "{quick}");
    let once = BatchJobSpec { backoff_limit: Some(0), ..BatchJobSpec::new(Task::failing(4).template()) };
    test.submit("dead", once).await?;
    test.job("dead", "its end", springtide_e2e::oracle::jobs::is_finished).await?;
    let dead = explained(&test, "dead", STALLED).await?;
    ensure!(dead["state"] == "Failed" && dead["summary"]["reason"] == "BackoffLimitExceeded", "{dead}");
    test.verify()
}

#[tokio::test]
async fn explain_tells_until_when_a_forced_peak_keeps_a_job_waiting() -> Result<()> {
    let cluster = shared().await?;
    let test = Testbed::new(cluster, "explain-peak").await?;
    // Far away: nothing but the override has an effect.
    let windows = json!([{
        "name": "century",
        "window": {"start": "20:00", "end": "22:00", "timeZone": "UTC", "dates": ["2099-12-31"]},
        "actions": [{"tier": "BestEffort", "action": "Hold"}],
    }]);
    let spec = BatchQueueSpec { peak_windows: serde_json::from_value(windows)?, ..cpu("1") };
    queues::open(&test, "forced", spec).await?;
    let hour = jiff::Timestamp::now().as_second() + 3600;
    let until = jiff::Timestamp::from_second(hour)?;
    let force = |mode: &str| {
        let forced = json!({"mode": mode, "untilTime": until, "reason": "INC-4711"});
        json!({"spec": {"overridePeak": forced}})
    };
    queues::edit(&test, "forced", force("ForceOn")).await?;
    let is_forced = |queue: &BatchQueue| queues::says(queue, &PeakWindowActiveReason::Forced);
    queues::queue(&test, "forced", "its peak is on", is_forced).await?;
    test.submit("late", wide(1, Some("forced"), &half())).await?;
    let late = explained(&test, "late", NOT_READY).await?;
    ensure!(late["state"] == "Waiting" && late["basis"] == "Computed", "{late}");
    ensure!(late["waits"]["reason"] == "PeakWindow", "{late}");
    ensure!(late["waits"]["message"].as_str().is_some_and(|said| said.contains("INC-4711")), "{late}");
    let told: jiff::Timestamp = late["waits"]["until"].as_str().context("a time")?.parse()?;
    ensure!(told == until, "{late}, not {until}");
    let creates = late["nextWrites"].as_array().into_iter().flatten();
    ensure!(creates.into_iter().all(|write| write["verb"] != "create"), "{late}");
    let words = text(&test, &["explain", "bj/late"]).await?;
    let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
    for piece in ["PeakWindow", "looked at again at", "spec.overridePeak of the queue"] {
        ensure!(words.contains(piece), "no {piece} in:\n{words}");
    }
    queues::edit(&test, "forced", force("ForceOff")).await?;
    test.running("late", 1).await?;
    let runs = explained(&test, "late", FINE).await?;
    ensure!(runs["state"] == "Running" && runs["waits"].is_null(), "{runs}");
    test.delete("late").await?;
    test.verify()
}

#[tokio::test]
async fn status_shows_queues_and_what_waits_in_them() -> Result<()> {
    let cluster = shared().await?;
    let test = Testbed::new(cluster, "status").await?;
    let kubeconfig = cluster.kubeconfig_path();
    let empty = answer(&kubeconfig, &test.namespace, &["status"], "", FINE).await?;
    ensure!(empty["items"] == json!([]), "{empty}");
    queues::open(&test, "reports", cpu("500m")).await?;
    test.submit("job", wide(1, Some("reports"), &half())).await?;
    test.running("job", 1).await?;
    test.submit("late", wide(1, Some("reports"), &half())).await?;
    let is_told = |queue: Option<&BatchQueue>| {
        let status = queue.and_then(|queue| queue.status.as_ref());
        status.is_some_and(|status| status.running_pods == 1 && !status.waiting.is_empty())
    };
    tokio::time::timeout(PATIENCE, await_condition(test.api::<BatchQueue>(), "reports", is_told)).await??;
    let told = answer(&kubeconfig, &test.namespace, &["status", "bq/reports"], "", FINE).await?;
    let queue = &told["items"][0];
    ensure!(
        queue["ready"] == "Admitting" && queue["pendingJobs"] == 1 && queue["runningPods"] == 1,
        "{told}"
    );
    ensure!(queue["resources"][0]["used"] == "500m" && queue["resources"][0]["nominal"] == "500m", "{told}");
    ensure!(queue["waiting"][0]["reason"] == "QuotaExceeded" && queue["waiting"][0]["jobs"] == 1, "{told}");
    ensure!(queue["jobs"].as_array().is_some_and(|jobs| jobs.len() == 2), "{told}");
    let words = text(&test, &["status"]).await?;
    ensure!(words.starts_with("QUEUE") && words.contains("WAITING IN"), "{words}");
    // As a plugin of kubectl.
    let folder = cluster.folder().join("plugin");
    std::fs::create_dir_all(&folder)?;
    let plugin = folder.join("kubectl-springtide");
    std::os::unix::fs::symlink(springtide_binary().await?, &plugin)?;
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
    let output = tokio::process::Command::new(cluster.binaries().path("kubectl")?)
        .args(["springtide", "status", "bq/reports", "-n", &test.namespace])
        .env("PATH", path)
        .env("KUBECONFIG", &kubeconfig)
        .output();
    let output = tokio::time::timeout(PATIENCE, output).await??;
    let words = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success() && words.contains("reports: Admitting"), "{output:?}");
    for job in ["job", "late"] {
        test.delete(job).await?;
    }
    test.verify()
}

#[tokio::test]
async fn who_may_only_view_is_told_what_the_manager_knows() -> Result<()> {
    let cluster = shared().await?;
    let test = Testbed::new(cluster, "viewer").await?;
    for role in ["batchjob-viewer-role", "batchqueue-viewer-role", "batchtaskprofile-viewer-role"] {
        let path = checkout("config/rbac").join(format!("{role}.yaml"));
        cluster
            .apply(&std::fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?)
            .await?;
    }
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "viewer", "namespace": test.namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "viewer"}],
    });
    cluster.apply(&binding.to_string()).await?;
    let kubeconfig = cluster.kubeconfig_for("viewer", "viewers")?;
    may_view(cluster, &kubeconfig, &test.namespace).await?;
    let ask = |args: Vec<String>, input: String, code: i32| {
        let (kubeconfig, namespace) = (kubeconfig.clone(), test.namespace.clone());
        async move {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            answer(&kubeconfig, &namespace, &args, &input, code).await
        }
    };
    let words = |args: &[&str]| args.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();

    // Room on nodes, which the viewer does not see: the word of the manager, as soon as there is one.
    let nowhere = Task { pool: "nowhere-yet".to_owned(), ..half() };
    let kwok = cluster.kwok().context("KWOK")?;
    kwok.add_nodes(cluster, &pool("nowhere-yet", 1, "500m", 110)).await?;
    test.submit("holds", wide(1, None, &nowhere)).await?;
    test.running("holds", 1).await?;
    test.submit("late", wide(1, None, &nowhere)).await?;
    test.reason("late", QueuedReason::NoCapacity).await?;
    let late = ask(words(&["explain", "bj/late"]), String::new(), NOT_READY).await?;
    ensure!(late["basis"] == "Reported" && late["waits"]["reason"] == "NoCapacity", "{late}");
    ensure!(late["reported"]["isCurrent"] == true && late["nodes"].is_null(), "{late}");
    let unseen: BTreeSet<_> =
        late["notSeen"].as_array().into_iter().flatten().filter_map(|row| row["resource"].as_str()).collect();
    ensure!(unseen.contains("nodes") && unseen.contains("pods"), "{late}");
    let runs = ask(words(&["explain", "bj/holds"]), String::new(), FINE).await?;
    ensure!(runs["state"] == "Running" && runs["tasks"]["running"] == 1, "{runs}");

    // A quota is counted all the same.
    queues::open(&test, "small", cpu("100m")).await?;
    test.submit("bounded", wide(1, Some("small"), &half())).await?;
    test.reason("bounded", StalledReason::NeverFits).await?;
    let bounded = ask(words(&["explain", "bj/bounded"]), String::new(), STALLED).await?;
    ensure!(bounded["basis"] == "Computed" && bounded["waits"]["reason"] == "NeverFits", "{bounded}");

    // A plan that nobody has checked, and that says so.
    let job = manifest("BatchJob", "new", &wide(1, Some("small"), &Task::quick()));
    let plan = ask(words(&["plan", "-f", "-"]), job, FINE).await?;
    ensure!(plan["objects"][0]["isChecked"] == false && plan["seesNodes"] == false, "{plan}");
    ensure!(plans::planned(&test, &plan).len() == 1, "{plan}");
    let told = ask(words(&["status"]), String::new(), FINE).await?;
    ensure!(told["items"].as_array().is_some_and(|items| items.len() == 2), "built-in and small: {told}");

    // Where not even that may be read, the server's words.
    let other = springtide(&kubeconfig, "default", &["explain", "bj/late"], "").await?;
    ensure!(other.status.code() == Some(ERROR), "{other:?}");
    ensure!(String::from_utf8_lossy(&other.stderr).contains("forbidden"), "{other:?}");
    for job in ["holds", "late", "bounded"] {
        test.delete(job).await?;
    }
    test.verify()
}

/// Waits until the role `view` has what is added to it.
async fn may_view(cluster: &LocalCluster, kubeconfig: &Path, namespace: &str) -> Result<()> {
    let path = kubeconfig.to_str().context("a path")?;
    let wait = async {
        loop {
            let mut able = true;
            let ours = ["batchjobs", "batchqueues", "batchtaskprofiles"]
                .map(|kind| format!("{kind}.springtide.dev"));
            for kind in ours.iter().map(String::as_str).chain(["pods"]) {
                let args = ["--kubeconfig", path, "--namespace", namespace, "auth", "can-i", "list", kind];
                able &= cluster.kubectl(&args).await?.status.success();
            }
            if able {
                return Ok(());
            }
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.context("the role view does not come to have our kinds")?
}
