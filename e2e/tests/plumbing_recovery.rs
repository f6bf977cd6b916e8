//! A manager whose API server, store or connections fail: it comes back by itself, works on, and writes
//! nothing that nothing called for. How long it took is said, and judged by nobody here.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail as a test does")]

use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use springtide_crds::batch_job::BatchJobSpec;
use springtide_e2e::batch::{self, Task, Testbed};
use springtide_e2e::fault_proxy::{FaultProxy, Protocols};
use springtide_e2e::local_cluster::LocalCluster;
use springtide_e2e::manager::Manager;
use springtide_e2e::recovery::{Recovery, Subject};

/// Jobs that have finished, and those with a pod that runs.
const FINISHED: usize = 20;
const RUNNING: usize = 5;
/// Longer than a record of a start is held back.
const REST: Duration = Duration::from_secs(6);

/// A cluster with a manager that has work behind it and now rests, and the namespace of that work.
async fn at_rest() -> Result<(LocalCluster, FaultProxy, Manager, String)> {
    let cluster = batch::cluster().await?;
    let proxy = FaultProxy::start(&cluster, Protocols::All)?;
    let mut manager =
        Manager::start_with(&cluster, proxy.kubeconfig(), "manager", &["--no-leader-election"]).await?;
    manager.wait_ready().await?;
    let test = Testbed::new(&cluster, "recovery").await?;
    test.submit_many("finished", FINISHED, &BatchJobSpec::new(Task::quick().template())).await?;
    test.submit_many("running", RUNNING, &BatchJobSpec::new(Task::endless().template())).await?;
    for number in 0..FINISHED {
        test.completed(&format!("finished-{number}")).await?;
        test.no_pods(&format!("finished-{number}")).await?;
    }
    for number in 0..RUNNING {
        test.running(&format!("running-{number}"), 1).await?;
    }
    tokio::time::sleep(REST).await;
    let namespace = test.namespace.clone();
    test.verify()?;
    drop(test);
    Ok((cluster, proxy, manager, namespace))
}

fn say(what: &str, recovery: &Recovery) -> Result<()> {
    let Recovery { took, lists, watches, .. } = recovery;
    eprintln!(
        "{what}: worked after {:.1} s; {} lists, {} watches",
        took.as_secs_f64(),
        lists.len(),
        watches.len()
    );
    recovery.without_storm()
}

#[tokio::test]
async fn a_manager_works_on_after_etcd_and_api_server_were_killed() -> Result<()> {
    let (mut cluster, proxy, manager, namespace) = at_rest().await?;
    let mut subject = Subject { cluster: &mut cluster, proxy: &proxy, namespace };
    say("etcd killed", &subject.etcd_restart(Signal::SIGKILL).await?)?;
    say("API server killed", &subject.api_server_restart(Signal::SIGKILL).await?)?;
    manager.stop()?;
    Ok(())
}

#[tokio::test]
async fn a_manager_lists_each_kind_once_when_the_history_it_has_missed_is_gone() -> Result<()> {
    let (mut cluster, proxy, manager, namespace) = at_rest().await?;
    let mut subject = Subject { cluster: &mut cluster, proxy: &proxy, namespace };
    let compacted = subject.compaction().await?;
    say("history compacted", &compacted)?;
    ensure!(!compacted.lists.is_empty(), "no watch has expired:\n{}", compacted.watches);
    manager.stop()?;
    Ok(())
}

#[tokio::test]
async fn a_watch_that_fell_silent_is_replaced() -> Result<()> {
    let (mut cluster, proxy, manager, namespace) = at_rest().await?;
    let mut subject = Subject { cluster: &mut cluster, proxy: &proxy, namespace };
    let silent = subject.blackholed_watch().await?;
    say("watch of pods silent", &silent)?;
    manager.stop()?;
    Ok(())
}

#[tokio::test]
async fn connections_without_a_peer_are_replaced() -> Result<()> {
    let (mut cluster, proxy, manager, namespace) = at_rest().await?;
    let mut subject = Subject { cluster: &mut cluster, proxy: &proxy, namespace };
    let vanished = subject.half_open_connections().await?;
    say("peers vanished", &vanished)?;
    manager.stop()?;
    Ok(())
}
