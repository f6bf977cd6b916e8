//! Namespaced mode: the manager under Roles in two namespaces, as `config/namespaced` has them, and nothing else.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, ListParams};
use springtide_crds::batch_job::BatchJobSpec;
use springtide_e2e::batch::{Task, Testbed};
use springtide_e2e::local_cluster::LocalCluster;
use springtide_e2e::manager::Manager;
use springtide_e2e::oracle::feed::PATIENCE;
use springtide_e2e::rights::{ACCOUNT, Seldom, Triple, apply_base, findings, installed, used};
use tokio::time::Instant;

use crate::{SELDOM, every_course, incident};

/// The namespaces of the base, and one that is none of its business.
const SCOPE: [&str; 2] = ["team-a", "team-b"];
const OUTSIDE: &str = "team-c";

/// The configuration file that the base installs.
async fn configuration(cluster: &LocalCluster) -> Result<PathBuf> {
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client("springtide-test")?, ACCOUNT.namespace);
    let map = maps.get("springtide-config").await?;
    let path = cluster.folder().join("namespaced.yaml");
    std::fs::write(&path, map.data.context("data")?.get("config.yaml").context("config.yaml")?)?;
    Ok(path)
}

async fn manager(cluster: &LocalCluster, name: &str) -> Result<Manager> {
    let kubeconfig = cluster.kubeconfig_for(&ACCOUNT.user(), "system:serviceaccounts")?;
    let configuration = configuration(cluster).await?;
    let args =
        ["--lease-namespace", ACCOUNT.namespace, "--config", configuration.to_str().context("a path")?];
    let mut manager = Manager::start_with(cluster, &kubeconfig, name, &args).await?;
    manager.wait_ready().await?;
    Ok(manager)
}

/// What `kubectl auth can-i` says of the manager's account.
async fn can(cluster: &LocalCluster, what: &[&str]) -> Result<bool> {
    let user = format!("--as={}", ACCOUNT.user());
    let output = cluster.kubectl(&[&["auth", "can-i"], what, &[user.as_str()]].concat()).await?;
    match String::from_utf8_lossy(&output.stdout).trim() {
        "yes" => Ok(true),
        "no" => Ok(false),
        other => anyhow::bail!("{other}{}", String::from_utf8_lossy(&output.stderr)),
    }
}

#[tokio::test]
async fn roles_in_two_namespaces_are_enough_there_and_nothing_else_is_asked_for() -> Result<()> {
    let cluster = installed("namespaced", &[SCOPE[0], SCOPE[1], OUTSIDE]).await?;
    for (namespace, may) in [(SCOPE[0], true), (SCOPE[1], true), (OUTSIDE, false)] {
        for what in [["create", "pods"], ["watch", "batchjobs.springtide.dev"]] {
            ensure!(can(&cluster, &[&what[..], &["-n", namespace]].concat()).await? == may, "{namespace}");
        }
    }
    for what in [["list", "pods"], ["watch", "batchjobs.springtide.dev"], ["create", "events.events.k8s.io"]]
    {
        ensure!(!can(&cluster, &[&what[..], &["--all-namespaces"]].concat()).await?, "{what:?}");
    }
    for what in [["watch", "nodes"], ["list", "namespaces"], ["get", "customresourcedefinitions"]] {
        ensure!(!can(&cluster, &what).await?, "{what:?}");
    }

    let log = cluster.audit_log()?;
    let start = log.mark()?;
    let outside = Testbed::of(&cluster, OUTSIDE).await?;
    outside.submit("job", BatchJobSpec::new(Task::quick().template())).await?;
    let first = manager(&cluster, "first").await?;
    let standby = manager(&cluster, "standby").await?;
    let a = Testbed::of(&cluster, SCOPE[0]).await?;
    let b = Testbed::of(&cluster, SCOPE[1]).await?;
    every_course(&a).await?;
    incident(&cluster, SCOPE[0]).await?;
    b.submit("job", BatchJobSpec::new(Task::quick().template())).await?;
    b.completed("job").await?;
    // More than the scheduler is given at once.
    let many =
        BatchJobSpec { completions: 40, parallelism: 40, ..BatchJobSpec::new(Task::quick().template()) };
    b.submit("many", many).await?;
    b.completed("many").await?;
    // The lease is given back and taken.
    first.stop()?;
    b.submit("after", BatchJobSpec::new(Task::quick().template())).await?;
    b.completed("after").await?;
    standby.stop()?;

    let pods = outside.api::<Pod>().list(&ListParams::default()).await?;
    let job: springtide_crds::batch_job::BatchJob = outside.api().get("job").await?;
    let observed = job.status.map_or(0, |status| status.observed_generation);
    ensure!(pods.items.is_empty() && observed == 0, "{} pods in {OUTSIDE}", pods.items.len());

    let requests = log.since(start)?.by_user(&ACCOUNT.user());
    let forbidden = requests.filter(|request| request.code == 403);
    ensure!(forbidden.is_empty(), "the roles lack something:\n{forbidden}");
    let known = [ACCOUNT.namespace, SCOPE[0], SCOPE[1]];
    let elsewhere = requests.filter(|request| !known.contains(&request.namespace.as_str()));
    ensure!(elsewhere.is_empty(), "beyond the scope:\n{elsewhere}");
    let granted = ACCOUNT.granted(&cluster.client("springtide-test")?).await?;
    let of_cluster = |resource: &str| ["nodes", "priorityclasses"].contains(&resource);
    ensure!(!granted.iter().any(|triple| of_cluster(&triple.resource)), "{granted:?}");
    let seldom: Vec<Seldom> = SELDOM.iter().copied().filter(|seldom| !of_cluster(seldom.resource)).collect();
    let findings = findings(&granted, &used(&requests), &seldom);
    ensure!(findings.is_empty(), "{}\n{requests}", findings.join("\n"));
    // Not vacuous: the log was that of this account.
    ensure!(used(&requests.writes()).contains(&Triple::new("create", "", "pods")), "{requests}");
    a.verify()?;
    b.verify()
}

#[tokio::test]
async fn a_namespace_whose_role_is_missing_is_told_of_holds_nobody_up_and_comes_later() -> Result<()> {
    let cluster = installed("namespaced", &SCOPE).await?;
    let take = ["delete", "rolebinding", "springtide-scope", "--namespace", SCOPE[1]];
    let taken = cluster.kubectl(&take).await?;
    ensure!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
    let log = cluster.audit_log()?;
    let start = log.mark()?;
    let a = Testbed::of(&cluster, SCOPE[0]).await?;
    let b = Testbed::of(&cluster, SCOPE[1]).await?;
    for test in [&a, &b] {
        test.submit("job", BatchJobSpec::new(Task::quick().template())).await?;
    }
    let manager = manager(&cluster, "lacking").await?;
    a.completed("job").await?;
    let told = manager.readiness().await?;
    for kind in ["batchjobs.springtide.dev", "pods"] {
        let line = format!("[-] watch {kind} in {}: answered 403: ", SCOPE[1]);
        ensure!(told.contains(&line), "{line} is missing in\n{told}");
    }
    ensure!(!told.contains(&format!(" in {}: ", SCOPE[0])), "{told}");
    let text = std::fs::read_to_string(cluster.folder().join("lacking.log"))?;
    ensure!(text.contains("may not be watched in this namespace"), "{text}");
    ensure!(b.listed().await? == ["job"] && b.requests()?.by_user(&ACCOUNT.user()).writes().is_empty());

    apply_base(&cluster, "namespaced").await?;
    b.completed("job").await?;
    let deadline = Instant::now() + PATIENCE;
    while manager.readiness().await?.contains("[-]") {
        ensure!(Instant::now() < deadline, "{}", manager.readiness().await?);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    // What was refused is what the role was missing for, and only reads.
    let forbidden = log.since(start)?.by_user(&ACCOUNT.user()).filter(|request| request.code == 403);
    ensure!(
        forbidden.requests().iter().all(|request| request.namespace == SCOPE[1] && !request.is_write()),
        "{forbidden}"
    );
    manager.stop()?;
    a.verify()?;
    b.verify()
}
