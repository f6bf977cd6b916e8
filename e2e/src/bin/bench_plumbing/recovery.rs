//! How soon a manager works again after a fault of what it stands on.

use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::Signal;
use springtide_e2e::recovery::{Recovery, Subject, at_rest};
use springtide_plumbing::watch::SOUND_CONNECTION;

/// Seconds until a new job had its pod, the slowest of all runs.
pub(crate) struct Recoveries {
    /// etcd was killed; from when it accepted connections again.
    pub(crate) etcd: f64,
    /// The API server was killed; from when it was ready again.
    pub(crate) api_server: f64,
    /// What was missed meanwhile was compacted; from when the API server was ready again.
    pub(crate) compaction: f64,
    /// The watch of pods fell silent; until it was replaced.
    pub(crate) silent_watch: f64,
    /// All connections lost their peer.
    pub(crate) half_open: f64,
}

/// Before a fault that is noticed at once: a connection that is cut when it is not sound yet backs off for longer, as one
/// should of a server that fails again and again, and each fault is to be the first one.
const BETWEEN: Duration = SOUND_CONNECTION.saturating_add(Duration::from_secs(2));

/// Causes each fault so many times. Those that are noticed after a minute stand between those that have everything
/// listed anew, which is done at most once a minute.
pub(crate) async fn measure(times: usize) -> Result<Recoveries> {
    let (mut cluster, proxy, manager, namespace) = at_rest().await?;
    let mut subject = Subject { cluster: &mut cluster, proxy: &proxy, namespace };
    let [mut etcd, mut api_server, mut compaction, mut silent_watch, mut half_open] = [0.0_f64; 5];
    let seconds = |recovery: Recovery| {
        recovery.without_storm()?;
        anyhow::Ok(recovery.took.as_secs_f64())
    };
    for _ in 0..times {
        tokio::time::sleep(BETWEEN).await;
        etcd = etcd.max(seconds(subject.etcd_restart(Signal::SIGKILL).await?)?);
        tokio::time::sleep(BETWEEN).await;
        api_server = api_server.max(seconds(subject.api_server_restart(Signal::SIGKILL).await?)?);
        silent_watch = silent_watch.max(seconds(subject.blackholed_watch().await?)?);
        compaction = compaction.max(seconds(subject.compaction().await?)?);
        half_open = half_open.max(seconds(subject.half_open_connections().await?)?);
    }
    manager.stop()?;
    cluster.stop()?;
    Ok(Recoveries { etcd, api_server, compaction, silent_watch, half_open })
}
