//! What many pods cost a manager in memory, and what it writes while nothing changes.

use std::time::Duration;

use anyhow::{Context, Result};
use procfs::{Current, Meminfo};
use serde::{Deserialize, Serialize};

use super::usage;
use crate::local_cluster::LocalCluster;
use crate::manager::{Manager, USER_AGENT};
use crate::write_count::Mark;

/// For the memory of a manager to settle, after its last pass over all pods.
pub const SETTLED: Duration = Duration::from_secs(30);
/// In which a manager that has just started would have written what it thinks is due.
const AFTER_START: Duration = Duration::from_secs(120);
/// Memory that a run with fifty thousand pods takes in all, in GiB: etcd, API server, controller manager, scheduler and KWOK
/// each hold all pods, and the former two some versions of each.
pub const LARGE_GIB: u64 = 16;

/// A cluster with an audit log and a manager that can be replaced.
#[allow(async_fn_in_trait, reason = "a bench runs in one task, never sent to another")]
pub trait Managed {
    /// The cluster.
    fn cluster(&self) -> &LocalCluster;

    /// The manager.
    ///
    /// # Errors
    /// None runs.
    fn manager(&self) -> Result<&Manager>;

    /// Ends the manager in order.
    ///
    /// # Errors
    /// It does not end.
    fn stop_manager(&mut self) -> Result<()>;

    /// Starts another one in its place.
    ///
    /// # Errors
    /// It does not start.
    async fn start_manager(&mut self, name: &str) -> Result<()>;
}

/// A manager beside many pods.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rest {
    /// Pods that there were.
    pub pods: usize,
    /// Its resident memory with all of them, after it has had to do with each, in MiB.
    pub resident_mib: f64,
    /// The most that it was in that.
    pub peak_mib: f64,
    /// That of another manager, which has just started.
    pub fresh_mib: f64,
    /// For how many minutes nothing changed.
    pub minutes: u64,
    /// What it wrote then.
    pub writes: usize,
    /// What the other one wrote in its first minutes.
    pub writes_of_fresh: usize,
}

/// Looks at a manager that has nothing left to do beside so many pods, and at another one in its place.
///
/// # Errors
/// A process has ended, or the audit log cannot be read.
pub async fn measure(managed: &mut impl Managed, pods: usize, minutes: u64) -> Result<Rest> {
    tokio::time::sleep(SETTLED).await;
    let pid = managed.manager()?.child().pid();
    let (resident_mib, peak_mib) = (usage::resident_mib(pid)?, usage::of(pid)?.peak_mib);
    let mark = managed.cluster().audit_log()?.mark()?;
    eprintln!("      {resident_mib:.0} MiB; nothing is changed for {minutes} min");
    tokio::time::sleep(Duration::from_secs(60 * minutes)).await;
    let writes = written_since(managed.cluster(), mark)?;

    managed.stop_manager()?;
    let mark = managed.cluster().audit_log()?.mark()?;
    managed.start_manager("manager-anew").await?;
    tokio::time::sleep(AFTER_START).await;
    let writes_of_fresh = written_since(managed.cluster(), mark)?;
    let fresh_mib = usage::resident_mib(managed.manager()?.child().pid())?;
    Ok(Rest { pods, resident_mib, peak_mib, fresh_mib, minutes, writes, writes_of_fresh })
}

/// What managers have written since then, wherever.
fn written_since(cluster: &LocalCluster, mark: Mark) -> Result<usize> {
    let written = cluster.audit_log()?.since(mark)?.by_agent(USER_AGENT).writes();
    if !written.is_empty() {
        eprintln!("{written}");
    }
    Ok(written.len())
}

/// A manager beside very many pods.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Large {
    /// Pods that there were.
    pub pods: u32,
    /// Its resident memory without any of them, in MiB.
    pub idle_mib: f64,
    /// That with all of them.
    pub resident_mib: f64,
    /// The most that it was until then.
    pub peak_mib: f64,
}

/// How much memory this machine has now, in GiB, where that is too little for a run with very many pods.
///
/// # Errors
/// It cannot be read.
pub fn too_small_for_many() -> Result<Option<u64>> {
    let memory = Meminfo::current().context("read how much memory there is")?;
    let free = memory.mem_available.unwrap_or(memory.mem_free) >> 30;
    Ok((free < LARGE_GIB).then_some(free))
}
