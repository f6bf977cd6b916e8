//! What the tools around a cluster see of the suite: GitOps tools that compare, Prometheus that scrapes.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail as a test does")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use springtide_crds::batch_job::{BatchJobSpec, CompleteReason, StalledReason, StopPolicy, SuspendedReason};
use springtide_crds::batch_queue::{BatchQueue, ReadyReason};
use springtide_crds::batch_task_profile::{BatchTaskProfile, ReadyReason as ProfileReason};
use springtide_crds::samples::{Sample, batch_queues, batch_task_profiles};
use springtide_e2e::batch::{self, Task, Testbed, profiles, queues};
use springtide_e2e::local_cluster::LocalCluster;
use springtide_e2e::manager::Manager;
use springtide_e2e::oracle::feed::PATIENCE;
use springtide_e2e::polling::until;
use springtide_plumbing::metrics::catalogue::{self, Family};
use tokio::sync::OnceCell;

static SHARED: OnceCell<(LocalCluster, Manager)> = OnceCell::const_new();

/// A cluster and its one manager, whose metrics can be asked for.
async fn shared() -> Result<&'static (LocalCluster, Manager)> {
    SHARED
        .get_or_try_init(async || {
            let cluster = batch::cluster().await?;
            let mut manager = Manager::start(&cluster, "manager", &[]).await?;
            manager.wait_ready().await?;
            Ok((cluster, manager))
        })
        .await
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// Name of the field manager of a GitOps tool.
const TOOL: &str = "gitops-tool";
/// The job of the samples that waits for somebody.
const HELD: &str = "report";

#[tokio::test]
async fn a_gitops_tool_finds_no_difference_while_samples_run_and_after_they_have_ended() -> Result<()> {
    no_difference("config/samples", 12).await
}

#[tokio::test]
async fn what_the_worked_examples_sync_ends_complete_and_without_a_difference() -> Result<()> {
    no_difference("config/gitops/work", 2).await
}

/// Applies the files of a folder as a tool does, and looks for differences until all jobs have completed.
async fn no_difference(folder: &str, count: usize) -> Result<()> {
    let (cluster, _) = shared().await?;
    let test = Testbed::new(cluster, "gitops").await?;
    let samples = repository(folder);
    let samples = samples.to_str().context("a path in UTF-8")?;
    let tool = format!("--field-manager={TOOL}");
    test.kubectl(&["apply", "--server-side", &tool, "-f", samples]).await?;
    let applied = specs(&test).await?;
    ensure!(applied.len() == count, "{applied:?}");
    let same = async || -> Result<()> {
        let place = ["--namespace", &test.namespace, "-f", samples];
        let server = cluster.differences(&[&["--server-side", &tool], &place[..]].concat()).await?;
        let client = cluster.differences(&place).await?;
        ensure!(server.is_empty() && client.is_empty(), "by the server:\n{server}\nby kubectl:\n{client}");
        Ok(())
    };
    test.reason("indexed", CompleteReason::Running).await?;
    same().await?;
    for name in applied.keys() {
        // As KWOK plays them, all of them end well.
        match name.as_str() {
            "success-policy" => test.reason(name, CompleteReason::SuccessPolicyMet).await?,
            HELD => test.reason(name, SuspendedReason::UserHold).await?,
            _ => test.completed(name).await?,
        };
    }
    same().await?;
    assert_eq!(specs(&test).await?, applied, "a controller changed a spec");
    for (name, owners) in field_owners(&test).await? {
        let of_spec: Vec<_> = owners.iter().filter(|(_, fields)| fields.contains("f:spec")).collect();
        ensure!(of_spec.iter().all(|(manager, _)| manager == TOOL), "{name}: {of_spec:?}");
        ensure!(
            owners.iter().any(|(manager, fields)| {
                manager.starts_with("springtide") && fields.contains("f:status")
            }),
            "{name}: {owners:?}"
        );
    }
    // What does differ is found: that nothing was says something.
    test.edit("indexed", json!({"spec": {"parallelism": 3}})).await?;
    let found = cluster.differences(&["--namespace", &test.namespace, "-f", samples]).await?;
    ensure!(found.contains("-  parallelism: 3\n+  parallelism: 4"), "{found}");
    if applied.contains_key(HELD) {
        test.edit(HELD, json!({"spec": {"stopPolicy": "None"}})).await?;
        test.completed(HELD).await?;
    }
    // As tools wait that know no kstatus.
    test.kubectl(&["wait", "--for=condition=Complete", "--timeout=100s", "batchjobs", "--all"]).await?;
    test.verify()
}

/// What a queue of the samples must come to, where nobody measures what is in use on the nodes.
fn expected(file: &str) -> Result<&'static [ReadyReason]> {
    Ok(match file {
        "batchqueue-default"
        | "batchqueue-reports"
        | "batchqueue-nightly"
        | "batchqueue-training"
        | "batchqueue-urgent"
        | "batchqueue-colocated"
        | "batchqueue-archived" => &[ReadyReason::Admitting],
        // By the clock of the test.
        "batchqueue-peak" | "batchqueue-calendar" => {
            &[ReadyReason::Admitting, ReadyReason::Draining, ReadyReason::Closed, ReadyReason::Ramping]
        }
        "batchqueue-audited" => &[ReadyReason::Held],
        // It has a test with a metrics server.
        "batchqueue-load" => &[ReadyReason::CapacityStale],
        other => bail!("nobody knows what the sample {other} comes to"),
    })
}

#[tokio::test]
async fn queues_and_profiles_of_the_samples_come_to_what_they_say() -> Result<()> {
    let (cluster, _) = shared().await?;
    let test = Testbed::new(cluster, "samples").await?;
    // The agent brings it.
    let class = json!({
        "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "koord-batch"}, "value": 5000,
    });
    cluster.apply(&class.to_string()).await?;
    let all = [batch_queues(), batch_task_profiles()].concat();
    for sample in &all {
        let path = repository(&format!("config/samples/{}.yaml", sample.file));
        test.kubectl(&["apply", "-f", path.to_str().context("a path in UTF-8")?]).await?;
    }
    let name = |sample: &Sample| sample.object["metadata"]["name"].as_str().unwrap().to_owned();
    for sample in batch_queues() {
        let reasons = expected(sample.file)?;
        let comes_to = |queue: &BatchQueue| reasons.iter().any(|reason| queues::says(queue, reason));
        queues::queue(&test, &name(&sample), &format!("{reasons:?}"), comes_to).await?;
    }
    for sample in batch_task_profiles() {
        // Nothing has run yet that it could learn from.
        let waits = |profile: &BatchTaskProfile| profiles::says(profile, &ProfileReason::TooFewSamples);
        profiles::profile(&test, &name(&sample), "seen", waits).await?;
    }
    test.verify()
}

async fn jobs(test: &Testbed<'_>) -> Result<Vec<Value>> {
    let list = test.kubectl(&["get", "batchjobs", "-o", "json", "--show-managed-fields"]).await?;
    let list: Value = serde_json::from_str(&list)?;
    Ok(list["items"].as_array().context("a list")?.clone())
}

fn name_of(job: &Value) -> String {
    job["metadata"]["name"].as_str().unwrap().to_owned()
}

async fn specs(test: &Testbed<'_>) -> Result<BTreeMap<String, Value>> {
    Ok(jobs(test).await?.iter().map(|job| (name_of(job), job["spec"].clone())).collect())
}

/// Of each job, who owns which of its fields.
async fn field_owners(test: &Testbed<'_>) -> Result<BTreeMap<String, Vec<(String, String)>>> {
    let owners = |job: &Value| {
        let entries = job["metadata"]["managedFields"].as_array().unwrap();
        let owner =
            |entry: &Value| (entry["manager"].as_str().unwrap().to_owned(), entry["fieldsV1"].to_string());
        entries.iter().map(owner).collect()
    };
    Ok(jobs(test).await?.iter().map(|job| (name_of(job), owners(job))).collect())
}

#[tokio::test]
async fn another_writer_of_a_status_shows_as_writes_without_a_change_of_a_spec() -> Result<()> {
    // Its own cluster, as what other tests submit counts too.
    let cluster = batch::cluster().await?;
    let mut manager = Manager::start(&cluster, "manager", &[]).await?;
    manager.wait_ready().await?;
    let test = Testbed::new(&cluster, "second-writer").await?;
    let held = BatchJobSpec { stop_policy: StopPolicy::Hold, ..BatchJobSpec::new(Task::quick().template()) };
    test.submit("held", held).await?;
    test.reason("held", CompleteReason::Suspended).await?;
    let conditions = async || -> Result<Value> { Ok(jobs(&test).await?[0]["status"]["conditions"].clone()) };
    let figures = async || -> Result<[f64; 2]> {
        let text = manager.metrics().await?;
        let sum = |begin: &str| -> f64 {
            let lines = text.lines().filter(|line| line.starts_with(begin));
            lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
        };
        Ok([
            sum(r#"springtide_watch_spec_changes_total{resource="batchjobs.springtide.dev"}"#),
            sum(r#"springtide_watch_events_total{resource="batchjobs.springtide.dev"}"#),
        ])
    };
    let (ours, [changes, events]) = (conditions().await?, figures().await?);
    ensure!(changes == 1.0, "{changes} for the one job that came");
    for _ in 0..3 {
        let theirs = r#"{"status": {"conditions": []}}"#;
        test.kubectl(&["patch", "batchjob", "held", "--subresource=status", "--type=merge", "-p", theirs])
            .await?;
        // Read from the storage: a watch may begin with what was before the patch.
        until(PATIENCE, "the conditions are there again", async || {
            Ok((conditions().await?.as_array().map_or(0, Vec::len) > 0).then_some(()))
        })
        .await?;
    }
    let mut renewed = conditions().await?;
    let mut before = ours;
    for condition in renewed.as_array_mut().into_iter().chain(before.as_array_mut()).flatten() {
        condition["lastTransitionTime"].take();
    }
    ensure!(renewed == before, "{renewed} is not {before}");
    // Its watch may be behind ours.
    let changes_after = until(PATIENCE, "an event for each write", async || {
        let [changes_after, events_after] = figures().await?;
        Ok((events_after >= events + 6.0).then_some(changes_after))
    })
    .await?;
    ensure!(changes_after == changes, "a status counts as a change of a spec: {changes_after}");
    test.verify()
}

/// Name, type and labels of the metrics in the reference.
fn documented() -> BTreeMap<String, (String, Vec<String>)> {
    let page = std::fs::read_to_string(repository("docs/reference/metrics.md")).unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| {
        let cells: Vec<_> = row.split(" | ").collect();
        let labels = cells[2].split(", ").map(|label| label.trim_matches('`').to_owned());
        let labels = labels.filter(|label| !label.is_empty()).collect();
        (cells[0].trim_matches('`').to_owned(), (cells[1].to_owned(), labels))
    })
    .collect()
}

#[tokio::test]
async fn a_manager_shows_the_documented_metrics_and_counts_what_is_there() -> Result<()> {
    let (cluster, manager) = shared().await?;
    let test = Testbed::new(cluster, "scrape").await?;
    test.submit("good", BatchJobSpec::new(Task::quick().template())).await?;
    let held = BatchJobSpec { stop_policy: StopPolicy::Hold, ..BatchJobSpec::new(Task::quick().template()) };
    test.submit("held", held).await?;
    let huge = Task { cpu: "64".into(), ..Task::quick() };
    test.submit("huge", BatchJobSpec::new(huge.template())).await?;
    test.completed("good").await?;
    test.reason("held", CompleteReason::Suspended).await?;
    test.reason("huge", StalledReason::NeverFits).await?;

    // It counts what its own watch has told it, which may be behind ours.
    let counted = [
        r#"springtide_objects{kind="BatchJob",ready_reason="Completed"} "#,
        r#"springtide_objects{kind="BatchJob",ready_reason="Suspended"} "#,
        r#"springtide_objects_stalled{kind="BatchJob",reason="NeverFits"} "#,
    ];
    let text = until(PATIENCE, "the jobs are counted", async || {
        let text = manager.metrics().await?;
        let is_told =
            |series: &&str| text.lines().any(|line| line.starts_with(*series) && !line.ends_with(" 0"));
        Ok(counted.iter().all(is_told).then_some(text))
    })
    .await?;
    let shown: BTreeMap<String, Family> =
        catalogue::parse(&text).into_iter().map(|family| (family.name.clone(), family)).collect();
    let documented = documented();
    assert_eq!(shown.keys().collect::<Vec<_>>(), documented.keys().collect::<Vec<_>>());
    for (name, (kind, labels)) in &documented {
        assert_eq!(shown[name].kind.to_string(), *kind, "{name}");
        assert_eq!(Vec::from_iter(&shown[name].labels), labels.iter().collect::<Vec<_>>(), "{name}");
    }

    let value = |series: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{series} is not shown:\n{text}")).parse().unwrap()
    };
    // Those of other tests of this program are in the same cluster.
    assert!(value(r#"springtide_objects{kind="BatchJob",ready_reason="Completed"}"#) >= 1.0);
    assert!(value(r#"springtide_objects{kind="BatchJob",ready_reason="Suspended"}"#) >= 1.0);
    assert_eq!(value(r#"springtide_objects_stalled{kind="BatchJob",reason="NeverFits"}"#), 1.0);
    assert_eq!(value(r#"springtide_over_maximum{kind="BatchJob"}"#), 0.0);
    assert_eq!(value(r#"leader_election_master_status{name="springtide-manager"}"#), 1.0);
    assert!(value("process_resident_memory_bytes") > 1e6);
    let written = r#"{verb="PATCH",host="#;
    for sum in ["rest_client_request_size_bytes_sum", "rest_client_response_size_bytes_sum"] {
        let line = text.lines().find(|line| line.starts_with(&format!("{sum}{written}")));
        let bytes: f64 = line.context(sum)?.rsplit_once(' ').unwrap().1.parse()?;
        ensure!(bytes > 100.0, "{sum}: {bytes}");
    }
    test.verify()
}
