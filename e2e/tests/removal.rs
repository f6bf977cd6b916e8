//! Springtide is removed in the wrong order: what is left is stuck, and `springtide release` frees it.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail as a test does")]

use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, ListParams};
use kube::runtime::wait::await_condition;
use springtide_crds::batch_job::{BatchJobSpec, CompletionMode, CompletionTracking, Release};
use springtide_e2e::batch::{self, Task, Testbed};
use springtide_e2e::local_cluster::LocalCluster;
use springtide_e2e::manager::{Manager, springtide_binary};
use springtide_e2e::polling::until;
use tokio::sync::{Mutex, OnceCell};

/// Each test takes away what all of them stand on.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());
static CLUSTER: OnceCell<LocalCluster> = OnceCell::const_new();
/// Bound for what Kubernetes does by itself.
const PATIENCE: Duration = Duration::from_secs(150);

async fn cluster() -> Result<&'static LocalCluster> {
    let cluster = CLUSTER.get_or_try_init(batch::cluster).await?;
    // A test before may have failed where there were none.
    cluster.install_crds().await?;
    Ok(cluster)
}

async fn manager(cluster: &LocalCluster, name: &str) -> Result<Manager> {
    let mut manager = Manager::start(cluster, name, &[]).await?;
    manager.wait_ready().await?;
    Ok(manager)
}

async fn release(cluster: &LocalCluster, args: &[&str]) -> Result<Output> {
    let run = tokio::process::Command::new(springtide_binary().await?)
        .arg("release")
        .arg("--kubeconfig")
        .arg(cluster.kubeconfig_path())
        .args(args)
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output();
    tokio::time::timeout(PATIENCE, run).await?.context("run springtide release")
}

/// What stands behind `springtide release` in the guide's block of commands, for a namespace of ours.
fn guide(namespace: &str) -> Result<Vec<String>> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operate/removal.md");
    let text = std::fs::read_to_string(page).context(page)?;
    let lines = text.lines().filter_map(|line| line.strip_prefix("springtide release "));
    Ok(lines.map(|line| line.split('#').next().unwrap().replace("payments", namespace)).collect())
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A job of three pods that run for ever, each held by a finalizer.
async fn endless<'a>(cluster: &'a LocalCluster, prefix: &str) -> Result<Testbed<'a>> {
    let test = Testbed::new(cluster, prefix).await?;
    let spec = BatchJobSpec {
        completions: 3,
        parallelism: 3,
        completion_mode: CompletionMode::Indexed,
        release: Release { completion_tracking: Some(CompletionTracking::Strict), ..Release::default() },
        ..BatchJobSpec::new(Task::endless().template())
    };
    test.submit("endless", spec).await?;
    test.running("endless", 3).await?;
    Ok(test)
}

async fn pods_of(test: &Testbed<'_>) -> Result<Vec<Pod>> {
    Ok(test.api::<Pod>().list(&ListParams::default()).await?.items)
}

/// Deletes the three pods as the garbage collector would that saw their owner go, which takes it a
/// while, or as a user.
async fn delete_pods(test: &Testbed<'_>) -> Result<()> {
    for pod in pods_of(test).await? {
        test.api::<Pod>().delete(&pod.metadata.name.unwrap(), &DeleteParams::default()).await?;
    }
    Ok(())
}

async fn all_marked(test: &Testbed<'_>) -> Result<()> {
    until(PATIENCE, "the pods are marked for deletion, and stay", async || {
        let pods = pods_of(test).await?;
        ensure!(pods.len() == 3, "{} of 3 pods are there", pods.len());
        Ok(pods.iter().all(|pod| pod.metadata.deletion_timestamp.is_some()).then_some(()))
    })
    .await
}

/// Removes the CRDs; they are gone at the end, and with them every job.
async fn remove_crds(cluster: &LocalCluster) -> Result<()> {
    let crds: Api<CustomResourceDefinition> = Api::all(cluster.client("springtide-test")?);
    for kind in springtide_crds::all() {
        let name = kind.crd.metadata.name.unwrap();
        crds.delete(&name, &DeleteParams::default()).await?;
        let gone =
            await_condition(crds.clone(), &name, |crd: Option<&CustomResourceDefinition>| crd.is_none());
        tokio::time::timeout(PATIENCE, gone).await.with_context(|| format!("{name} does not go"))??;
    }
    Ok(())
}

#[tokio::test]
async fn a_namespace_that_outlives_its_manager_is_freed() -> Result<()> {
    let _one = ONE_AT_A_TIME.lock().await;
    let cluster = cluster().await?;
    let running = manager(cluster, "namespace").await?;
    let test = endless(cluster, "freed").await?;
    let other = endless(cluster, "untouched").await?;

    let looked = release(cluster, &["--dry-run"]).await?;
    let text = said(&looked);
    for held in [&test, &other] {
        let line = format!("{}: 3", held.namespace);
        ensure!(looked.status.success() && text.contains(&line), "a dry run beside a manager: {text}");
    }
    let refused = release(cluster, &["--yes"]).await?;
    let text = said(&refused);
    let remedy = "scale deployment -l app.kubernetes.io/name=springtide --replicas=0";
    ensure!(!refused.status.success() && text.contains(remedy), "beside a manager: {text}");

    ensure!(running.stop()?.success(), "the manager did not end well");
    let namespaces: Api<Namespace> = Api::all(cluster.client("springtide-test")?);
    namespaces.delete(&test.namespace, &DeleteParams::default()).await?;
    all_marked(&test).await?;

    let looked = release(cluster, &["--namespace", &test.namespace, "--dry-run"]).await?;
    ensure!(said(&looked).contains(&format!("{}: 3", test.namespace)), "dry run: {}", said(&looked));
    let asked = release(cluster, &["--namespace", &test.namespace]).await?;
    ensure!(!asked.status.success() && said(&asked).contains("--yes"), "no terminal: {}", said(&asked));
    ensure!(pods_of(&test).await?.len() == 3, "a dry run and a question have changed something");

    let released = release(cluster, &["--namespace", &test.namespace, "--yes"]).await?;
    ensure!(released.status.success(), "{}", said(&released));
    let gone = |namespace: Option<&Namespace>| namespace.is_none();
    tokio::time::timeout(PATIENCE, await_condition(namespaces.clone(), &test.namespace, gone))
        .await
        .context("the namespace stays")??;

    let held = pods_of(&other).await?;
    ensure!(
        held.len() == 3 && held.iter().all(|pod| pod.metadata.finalizers.is_some()),
        "pods of another namespace were touched"
    );
    // The next manager goes on with them as if nothing had been.
    let next = manager(cluster, "namespace-next").await?;
    other.delete("endless").await?;
    other.no_pods("endless").await?;
    ensure!(next.stop()?.success(), "the next manager did not end well");
    Ok(())
}

#[tokio::test]
async fn pods_that_outlive_manager_and_crds_are_freed_and_a_new_install_works() -> Result<()> {
    let _one = ONE_AT_A_TIME.lock().await;
    let cluster = cluster().await?;
    let running = manager(cluster, "crds").await?;
    let test = endless(cluster, "orphans").await?;
    ensure!(running.stop()?.success(), "the manager did not end well");
    remove_crds(cluster).await?;
    delete_pods(&test).await?;
    all_marked(&test).await?;

    // The commands of the guide, in their order.
    let guide = guide(&test.namespace)?;
    let [look, ask, all, ask_beside] = &guide[..] else { bail!("{guide:?}") };
    let looked = release(cluster, &words(look)).await?;
    let held = format!("{}: 3", test.namespace);
    ensure!(looked.status.success() && said(&looked).contains(&held), "{}", said(&looked));
    for ask in [ask, ask_beside] {
        let asked = release(cluster, &words(ask)).await?;
        ensure!(said(&asked).contains(&held) && said(&asked).contains("not a terminal"), "{}", said(&asked));
    }
    ensure!(pods_of(&test).await?.len() == 3, "a dry run and a question have changed something");
    let released = release(cluster, &words(all)).await?;
    ensure!(released.status.success() && said(&released).contains("3 of 3"), "{}", said(&released));
    until(PATIENCE, "the pods are gone", async || Ok(pods_of(&test).await?.is_empty().then_some(()))).await?;
    let again = release(cluster, &words(all)).await?;
    ensure!(again.status.success() && said(&again).contains("Nothing holds"), "{}", said(&again));

    cluster.install_crds().await?;
    let next = manager(cluster, "crds-next").await?;
    let test = Testbed::new(cluster, "anew").await?;
    test.submit("quick", BatchJobSpec::new(Task::quick().template())).await?;
    test.completed("quick").await?;
    ensure!(next.stop()?.success(), "the next manager did not end well");
    Ok(())
}

#[tokio::test]
async fn a_manager_that_outlives_its_crds_gives_back_what_is_deleted_and_goes_on_with_new_ones() -> Result<()>
{
    let _one = ONE_AT_A_TIME.lock().await;
    let cluster = cluster().await?;
    let mut running = manager(cluster, "outlives").await?;
    let test = endless(cluster, "given-back").await?;
    remove_crds(cluster).await?;
    until(PATIENCE, "the manager says that it is not ready", async || {
        Ok((!running.is_ready().await).then_some(()))
    })
    .await?;
    delete_pods(&test).await?;
    until(PATIENCE, "the pods are gone", async || Ok(pods_of(&test).await?.is_empty().then_some(()))).await?;

    cluster.install_crds().await?;
    running.wait_ready().await?;
    let test = Testbed::new(cluster, "once-more").await?;
    test.submit("quick", BatchJobSpec::new(Task::quick().template())).await?;
    test.completed("quick").await?;
    ensure!(running.stop()?.success(), "the manager did not end well");
    Ok(())
}
