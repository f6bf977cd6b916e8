//! The stop switch, observe mode, delete protection and an open breaker, on the real manager: who writes
//! what is counted from the API server's audit log.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail as a test does")]

use std::time::Duration;

use anyhow::{Result, ensure};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use nix::sys::signal::Signal;
use serde_json::json;
use springtide_crds::batch_job::{BatchJobSpec, CompletionMode, StalledReason};
use springtide_e2e::batch::{self, Task, Testbed};
use springtide_e2e::local_cluster::LocalCluster;
use springtide_e2e::manager::{Manager, USER_AGENT};
use springtide_e2e::polling;
use springtide_e2e::write_count::{AuditLog, Mark, WriteCount};
use tokio::sync::{Mutex, OnceCell};

/// A manager acts on the whole cluster, and counts are of all of it.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());
static CLUSTER: OnceCell<LocalCluster> = OnceCell::const_new();

/// Bound on everything that is waited for.
const PATIENCE: Duration = Duration::from_secs(120);
/// Longer than what was sent takes to the server.
const ON_THE_WIRE: Duration = Duration::from_secs(5);
/// How long nothing may be written: longer than the distance between two renewals of the Lease.
const SILENCE: Duration = Duration::from_secs(8);

async fn cluster() -> Result<&'static LocalCluster> {
    CLUSTER.get_or_try_init(batch::cluster).await
}

async fn manager(cluster: &LocalCluster, name: &str, args: &[&str]) -> Result<Manager> {
    let mut manager = Manager::start(cluster, name, args).await?;
    manager.wait_ready().await?;
    Ok(manager)
}

/// Runs kubectl in the manager's namespace, which is `default`.
async fn kubectl(cluster: &LocalCluster, args: &[&str]) -> Result<()> {
    let output = cluster.kubectl(args).await?;
    ensure!(output.status.success(), "kubectl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn writes(log: &AuditLog, since: Mark) -> Result<WriteCount> {
    Ok(log.since(since)?.by_agent(USER_AGENT).writes())
}

async fn until(what: &str, holds: impl AsyncFn() -> Result<bool>) -> Result<()> {
    polling::until(PATIENCE, what, async || Ok(holds().await?.then_some(()))).await
}

async fn until_mode(manager: &Manager, mode: &str) -> Result<()> {
    let told = format!(r#"springtide_mode{{controller="batch-job",mode="{mode}"}} 1"#);
    until(&format!("the mode is {mode}"), async || Ok(manager.metrics().await?.contains(&told))).await
}

/// Work for twenty seconds: many pods one after another, and a status for each.
fn busy() -> BatchJobSpec {
    BatchJobSpec {
        completions: 150,
        parallelism: 10,
        completion_mode: CompletionMode::Indexed,
        ..BatchJobSpec::new(Task::quick().template())
    }
}

/// Once the manager tells that its brake is engaged, nothing more is sent, though there is enough to do and the
/// Lease is renewed; and after the release all of it is done.
///
/// How soon the brake engages is measured by the bench of the plumbing.
async fn brakes(
    test: &Testbed<'_>,
    manager: &Manager,
    engage: impl AsyncFnOnce() -> Result<()>,
    release: impl AsyncFnOnce() -> Result<()>,
) -> Result<()> {
    let log = test.cluster.audit_log()?;
    test.submit("busy", busy()).await?;
    test.job("busy", "some successes", |job| job.status.as_ref().is_some_and(|status| status.succeeded > 10))
        .await?;
    engage().await?;
    until_mode(manager, "braked").await?;
    // What is on the wire may still reach the server, and may take long to be answered there.
    tokio::time::sleep(ON_THE_WIRE).await;
    let (mark, silent_from) = (log.mark()?, Timestamp::now());
    test.submit_many("later", 5, &BatchJobSpec::new(Task::quick().template())).await?;
    tokio::time::sleep(SILENCE).await;
    let during = || -> Result<WriteCount> {
        Ok(writes(&log, mark)?.filter(|write| write.received.is_none_or(|at| at >= silent_from)))
    };
    until("the Lease is renewed", async || Ok(!during()?.of_resource("leases").is_empty())).await?;
    let during = during()?;
    ensure!(during.without_leases().is_empty(), "written with the brake engaged:\n{during}");
    ensure!(test.jobs.now().finished() == 0, "all was over before");
    release().await?;
    test.completed("busy").await?;
    for number in 0..5 {
        test.completed(&format!("later-{number}")).await?;
    }
    test.verify()
}

#[tokio::test]
async fn a_file_stops_all_writes() -> Result<()> {
    let _one = ONE_AT_A_TIME.lock().await;
    let test = Testbed::new(cluster().await?, "file").await?;
    let file = test.cluster.folder().join("brake");
    let manager = manager(test.cluster, "file", &["--brake-file", file.to_str().unwrap()]).await?;
    let (put, remove) = (async || Ok(std::fs::write(&file, "")?), async || Ok(std::fs::remove_file(&file)?));
    brakes(&test, &manager, put, remove).await?;
    manager.stop()?;
    Ok(())
}

#[tokio::test]
async fn a_signal_stops_all_writes() -> Result<()> {
    let _one = ONE_AT_A_TIME.lock().await;
    let test = Testbed::new(cluster().await?, "signal").await?;
    let manager = manager(test.cluster, "signal", &[]).await?;
    let engage = async || {
        // Twice is as good as once.
        manager.child().signal(Signal::SIGUSR1)?;
        manager.child().signal(Signal::SIGUSR1)
    };
    let release = async || manager.child().signal(Signal::SIGUSR2);
    brakes(&test, &manager, engage, release).await?;
    until_mode(&manager, "act").await?;
    manager.stop()?;
    Ok(())
}

#[tokio::test]
async fn a_config_map_stops_all_writes_and_before_the_first_one() -> Result<()> {
    let _one = ONE_AT_A_TIME.lock().await;
    let cluster = cluster().await?;
    let test = Testbed::new(cluster, "map").await?;
    let first = manager(cluster, "map", &[]).await?;
    let engage = async || {
        kubectl(cluster, &["create", "configmap", "springtide-brake", "--from-literal=all=Engaged"]).await
    };
    let release = async || {
        let release = r#"{"data":{"all":"Released"}}"#;
        kubectl(cluster, &["patch", "configmap", "springtide-brake", "--patch", release]).await
    };
    brakes(&test, &first, engage, release).await?;
    first.stop()?;

    // Engaged from the start, by the switch of the one controller.
    let engage = r#"{"data":{"batchJob":"Engaged"}}"#;
    kubectl(cluster, &["patch", "configmap", "springtide-brake", "--patch", engage]).await?;
    let log = cluster.audit_log()?;
    let mark = log.mark()?;
    let second = manager(cluster, "map-again", &[]).await?;
    test.submit("waits", BatchJobSpec::new(Task::quick().template())).await?;
    tokio::time::sleep(SILENCE).await;
    let during = writes(&log, mark)?.without_leases();
    ensure!(during.is_empty(), "written with the brake engaged:\n{during}");
    kubectl(cluster, &["delete", "configmap", "springtide-brake"]).await?;
    test.completed("waits").await?;
    second.stop()?;
    test.verify()
}

#[tokio::test]
async fn a_manager_that_observes_plans_and_writes_nothing() -> Result<()> {
    let _one = ONE_AT_A_TIME.lock().await;
    let test = Testbed::new(cluster().await?, "observe").await?;
    let log = test.cluster.audit_log()?;
    let mark = log.mark()?;
    let observer = manager(test.cluster, "observer", &["--observe", "batch-job"]).await?;
    test.submit_many("job", 3, &BatchJobSpec::new(Task::quick().template())).await?;
    let counted =
        r#"springtide_writes_total{controller="batch-job",class="spec",resource="pods",outcome="observed"} "#;
    // Of a new kind of pod one is made first, and the others when that one is there.
    until("a create is counted", async || {
        let metrics = observer.metrics().await?;
        let line = metrics.lines().find_map(|line| line.strip_prefix(counted));
        Ok(line.is_some_and(|count| count.parse::<u32>().is_ok_and(|count| count >= 1)))
    })
    .await?;
    tokio::time::sleep(SILENCE).await;
    let written = writes(&log, mark)?.without_leases();
    ensure!(written.is_empty(), "an observer has written:\n{written}");
    ensure!(test.jobs.now().finished() == 0);
    observer.stop()?;

    let acts = manager(test.cluster, "acts", &[]).await?;
    for number in 0..3 {
        test.completed(&format!("job-{number}")).await?;
    }
    acts.stop()?;
    test.verify()
}

#[tokio::test]
async fn an_open_breaker_keeps_ended_pods_over_a_restart_until_it_is_closed_by_annotation() -> Result<()> {
    let _one = ONE_AT_A_TIME.lock().await;
    let cluster = cluster().await?;
    let test = Testbed::new(cluster, "open").await?;
    let elsewhere = Testbed::new(cluster, "shut").await?;
    let incident = json!({
        "controller": "batch-job", "namespace": test.namespace, "opened": Timestamp::now(), "message": "a test",
    });
    let entry = format!("--from-literal=batch-job-0badcafe={incident}");
    kubectl(cluster, &["create", "configmap", "springtide-breaker", &entry]).await?;
    let mark = cluster.audit_log()?.mark()?;
    let deleted = || -> Result<bool> {
        let deletes = cluster.audit_log()?.since(mark)?.by_agent(USER_AGENT).in_namespace(&test.namespace);
        Ok(!deletes.of_verb(springtide_e2e::write_count::Verb::Delete).is_empty())
    };
    let first = manager(cluster, "open", &[]).await?;
    let three = BatchJobSpec {
        completions: 3,
        parallelism: 3,
        completion_mode: CompletionMode::Indexed,
        ..BatchJobSpec::new(Task::endless().template())
    };
    for test in [&test, &elsewhere] {
        test.submit("job", three.clone()).await?;
        let running = test.running("job", 3).await?;
        test.end_pod(&running[0], 0).await?;
    }
    let is_gone = |life: &springtide_e2e::oracle::pods::Life| life.index == 0 && life.gone.is_some();
    elsewhere
        .pods
        .until("the first pod is gone", |pods| pods.of("job").into_iter().any(is_gone).then_some(()))
        .await?;
    let stalled = test.reason("job", StalledReason::Forbidden).await?;
    let conditions = stalled.status.unwrap_or_default().conditions;
    let message =
        conditions.iter().find(|found| found.type_ == "Stalled").map(|found| found.message.as_str());
    ensure!(message.is_some_and(|message| message.contains("batch-job-0badcafe")), "{message:?}");
    first.stop()?;
    let second = manager(cluster, "still-open", &[]).await?;
    for test in [&test, &elsewhere] {
        for pod in test.running("job", 2).await? {
            test.end_pod(&pod, 0).await?;
        }
        test.completed("job").await?;
    }
    elsewhere.no_pods("job").await?;
    tokio::time::sleep(SILENCE).await;
    ensure!(!deleted()?, "something was deleted with the breaker open");
    ensure!(test.pods.now().of("job").iter().all(|life| life.gone.is_none()));
    ensure!(second.metrics().await?.contains(r#"springtide_breaker_open{controller="batch-job"} 1"#));

    let reset = "springtide.dev/breaker-reset=batch-job-0badcafe";
    kubectl(cluster, &["annotate", "configmap", "springtide-breaker", reset]).await?;
    test.no_pods("job").await?;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client("springtide-test")?, "default");
    until("the record is cleared", async || {
        Ok(maps.get("springtide-breaker").await?.data.unwrap_or_default().is_empty())
    })
    .await?;
    until("the metrics say so", async || {
        Ok(second.metrics().await?.contains(r#"springtide_breaker_open{controller="batch-job"} 0"#))
    })
    .await?;
    second.stop()?;
    maps.delete("springtide-breaker", &DeleteParams::default()).await?;
    for test in [test, elsewhere] {
        test.verify()?;
    }
    Ok(())
}

#[tokio::test]
async fn a_pod_with_the_label_stays_until_the_label_goes() -> Result<()> {
    let _one = ONE_AT_A_TIME.lock().await;
    let test = Testbed::new(cluster().await?, "protected").await?;
    let manager = manager(test.cluster, "protected", &[]).await?;
    let template = Task::quick().template_with(|template| {
        template["metadata"]["labels"] = json!({"springtide.dev/delete-protection": "true"});
    });
    test.submit("job", BatchJobSpec::new(template)).await?;
    test.completed("job").await?;
    tokio::time::sleep(SILENCE).await;
    let kept = test.pods.now().of("job").iter().any(|life| life.gone.is_none());
    ensure!(kept, "the pod is gone");
    ensure!(
        std::fs::read_to_string(manager.child().log_path())?.contains("springtide.dev/delete-protection")
    );
    let unlabel = json!({"metadata": {"labels": {"springtide.dev/delete-protection": null}}});
    test.api::<Pod>().patch("job-0-0", &PatchParams::default(), &Patch::Merge(unlabel)).await?;
    test.no_pods("job").await?;
    manager.stop()?;
    test.verify()
}
