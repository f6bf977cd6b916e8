//! What many pods cost a manager in memory, and what it writes while nothing changes.

use std::fmt::{self, Write as _};
use std::time::Duration;

use anyhow::{Context, Result};
use procfs::{Current, Meminfo};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::large::Managed;
use super::report::Goal;
use crate::local_cluster::Builder;
use crate::manager::USER_AGENT;
use crate::write_count::Mark;

/// For the memory of a manager to settle, after its last pass over all pods.
const SETTLED: Duration = Duration::from_secs(30);
/// In which a manager that has just started would have written what it thinks is due.
const AFTER_START: Duration = Duration::from_secs(120);
/// Minutes in which nothing changes: longer than the longest period of anything in a manager, which is ten (a series of
/// events, the longest distance of two writes in a fight, what is called no progress).
pub const REST_MINUTES: u64 = 15;
/// What the specification names in their place.
const SPECIFIED_MINUTES: u64 = 30;
/// Memory that a run with fifty thousand pods takes in all, in GiB: etcd, API server, controller manager, scheduler and KWOK
/// each hold all pods, and the former two some versions of each.
const LARGE_GIB: u64 = 16;

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

impl Rest {
    /// Its goals, whose identifiers begin with that of a row. `after` is what was done to all pods before.
    #[must_use]
    pub fn goals(&self, row: &str, after: &str) -> [Goal; 3] {
        let Self { pods, resident_mib, minutes, writes, writes_of_fresh, .. } = self;
        let memory = format!("manager RSS beside {pods} pods, after {after} of all");
        let quiet = format!("writes of the manager in {minutes} min in which nothing changes, {pods} pods");
        let anew = format!("writes of another manager that starts beside {pods} pods");
        [
            Goal::at_most(&format!("{row}-rss"), &memory, *resident_mib, "MiB", 150.0),
            Goal::at_most(&format!("{row}-writes-at-rest"), &quiet, *writes as f64, "writes", 0.0),
            Goal::at_most(&format!("{row}-writes-at-start"), &anew, *writes_of_fresh as f64, "writes", 0.0),
        ]
    }
}

/// Looks at a manager that has nothing left to do beside so many pods, and at another one in its place.
///
/// # Errors
/// A process has ended, or the audit log cannot be read.
pub async fn measure(managed: &mut Managed, pods: usize, minutes: u64) -> Result<Rest> {
    tokio::time::sleep(SETTLED).await;
    let (resident_mib, peak_mib) = (managed.resident_mib()?, managed.peak_mib()?);
    let mark = managed.cluster.audit_log()?.mark()?;
    eprintln!("      {resident_mib:.0} MiB; nothing is changed for {minutes} min");
    tokio::time::sleep(Duration::from_secs(60 * minutes)).await;
    let writes = written_since(managed, mark)?;

    managed.stop_manager()?;
    let mark = managed.cluster.audit_log()?.mark()?;
    managed.start_manager("manager-anew").await?;
    tokio::time::sleep(AFTER_START).await;
    let writes_of_fresh = written_since(managed, mark)?;
    let fresh_mib = managed.resident_mib()?;
    Ok(Rest { pods, resident_mib, peak_mib, fresh_mib, minutes, writes, writes_of_fresh })
}

/// What managers have written since then, wherever.
fn written_since(managed: &Managed, mark: Mark) -> Result<usize> {
    let written = managed.cluster.audit_log()?.since(mark)?.by_agent(USER_AGENT).writes();
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

impl Large {
    /// Its goal, whose identifier begins with that of a row.
    #[must_use]
    pub fn goal(&self, row: &str) -> Goal {
        let what = format!("manager RSS beside {} pods", self.pods);
        Goal::at_most(&format!("{row}-rss-many"), &what, self.resident_mib, "MiB", 500.0)
    }
}

/// How much memory a manager takes beside so many pods, which `fill` makes. No pod is watched by the bench itself: it would
/// take as much.
///
/// # Errors
/// A process does not start or has ended, or as `fill`.
pub async fn beside_many(
    pods: u32,
    builder: Builder,
    configuration: Value,
    writes_per_second: u32,
    fill: impl AsyncFnOnce(&Managed) -> Result<()>,
) -> Result<Large> {
    let managed = Managed::start(builder.without_audit(), configuration, writes_per_second, "large").await?;
    tokio::time::sleep(SETTLED).await;
    let idle_mib = managed.resident_mib()?;
    fill(&managed).await?;
    tokio::time::sleep(SETTLED).await;
    let (resident_mib, peak_mib) = (managed.resident_mib()?, managed.peak_mib()?);
    managed.stop()?;
    Ok(Large { pods, idle_mib, resident_mib, peak_mib })
}

/// Why this machine does not run with very many pods, if it has too little memory now.
///
/// # Errors
/// It cannot be read.
pub fn too_small_for_many() -> Result<Option<String>> {
    let memory = Meminfo::current().context("read how much memory there is")?;
    let free = memory.mem_available.unwrap_or(memory.mem_free) >> 30;
    let why = || format!("It takes {LARGE_GIB} GiB of memory, and {free} are free.");
    Ok((free < LARGE_GIB).then(why))
}

/// Writes the section of a page on both, as far as they are there. `after` is what was done to all pods before, `many` what
/// the very many pods are.
///
/// # Errors
/// Never, as a page is a text.
pub fn section(
    page: &mut String,
    after: &str,
    rest: Option<&Rest>,
    many: &str,
    large: Option<&Large>,
) -> fmt::Result {
    if rest.is_none() && large.is_none() {
        return Ok(());
    }
    writeln!(page, "\n## Memory, and writes at rest\n\n| measure | value |\n|---|---|")?;
    if let Some(Rest { pods, resident_mib, peak_mib, fresh_mib, minutes, writes, writes_of_fresh }) = rest {
        writeln!(page, "| manager RSS beside {pods} pods, after {after} of all | {resident_mib:.0} MiB |")?;
        writeln!(page, "| the most until then | {peak_mib:.0} MiB |")?;
        writeln!(page, "| RSS of another manager that has just started | {fresh_mib:.0} MiB |")?;
        writeln!(page, "| writes in {minutes} min in which nothing changes | {writes} |")?;
        writeln!(page, "| writes of the other one in its first two minutes | {writes_of_fresh} |")?;
    }
    if let Some(Large { pods, idle_mib, resident_mib, peak_mib }) = large {
        writeln!(page, "| manager RSS without pods | {idle_mib:.0} MiB |")?;
        writeln!(page, "| beside {pods} pods {many} | {resident_mib:.0} MiB |")?;
        writeln!(page, "| the most until then | {peak_mib:.0} MiB |")?;
    }
    Ok(())
}

/// How both are measured.
#[must_use]
pub fn method(minutes: u64) -> String {
    let specified = if minutes < SPECIFIED_MINUTES {
        format!(
            " These are {minutes} minutes: the specification names {SPECIFIED_MINUTES}, and no period in a manager is longer \
             than ten (`--rest-minutes`)."
        )
    } else {
        String::new()
    };
    format!(
        "Memory is the resident set of the manager half a minute after the last change; at rest nothing but KWOK's heartbeats \
         is written by anybody.{specified}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_has_no_row_and_fewer_minutes_are_told() {
        let large = Large { pods: 50_000, idle_mib: 14.0, resident_mib: 500.5, peak_mib: 510.0 };
        let mut page = String::new();
        section(&mut page, "a switch", None, "of several groups", None).unwrap();
        assert_eq!(page, "");
        section(&mut page, "a switch", None, "of several groups", Some(&large)).unwrap();
        assert!(page.ends_with(
            "| measure | value |\n|---|---|\n| manager RSS without pods | 14 MiB |\n\
             | beside 50000 pods of several groups | 500 MiB |\n| the most until then | 510 MiB |\n"
        ));
        assert!(!large.goal("T8").is_met());
        assert!(method(REST_MINUTES).contains("the specification names 30"));
        assert!(!method(SPECIFIED_MINUTES).contains("specification"));
    }

    #[test]
    fn one_write_at_rest_misses() {
        let rest = |writes, writes_of_fresh| Rest {
            pods: 10_000,
            resident_mib: 150.0,
            peak_mib: 160.0,
            fresh_mib: 80.0,
            minutes: REST_MINUTES,
            writes,
            writes_of_fresh,
        };
        let met = |rest: Rest| rest.goals("I9", "an upgrade").map(|goal| goal.is_met());
        assert_eq!((met(rest(0, 0)), met(rest(1, 2))), ([true; 3], [true, false, false]));
    }
}
