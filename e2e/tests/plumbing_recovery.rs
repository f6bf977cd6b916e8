//! A manager whose API server, store or connections fail: it comes back by itself, works on, and writes
//! nothing that nothing called for. How long it took is said, and judged by nobody here.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail as a test does")]

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use springtide_e2e::recovery::{Recovery, Subject, at_rest};

fn say(what: &str, recovery: &Recovery) -> Result<()> {
    let Recovery { took, writes: _, probe_writes, lists, watches } = recovery;
    eprintln!(
        "{what}: worked after {:.1} s; {} lists, {} writes for the new job, watches:\n{watches}",
        took.as_secs_f64(),
        lists.len(),
        probe_writes.len(),
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
