//! What a process used, from /proc.

use anyhow::{Context, Result};

/// CPU time and memory of a process.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// User and system time in seconds.
    pub cpu_seconds: f64,
    /// Highest resident set, in MiB.
    pub peak_mib: f64,
}

/// Reads the usage of `pid` so far.
///
/// # Errors
/// It is not there.
pub fn of(pid: i32) -> Result<Usage> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The command in parentheses may hold spaces; utime and stime are fields 14 and 15.
    let fields: Vec<&str> = stat.rsplit_once(')').context("no stat")?.1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.context("no clock tick")?;
    Ok(Usage { cpu_seconds: ticks as f64 / per_second as f64, peak_mib: mib(pid, "VmHWM:")? })
}

/// The resident set of `pid` now, in MiB.
///
/// # Errors
/// It is not there.
pub fn resident_mib(pid: i32) -> Result<f64> {
    mib(pid, "VmRSS:")
}

fn mib(pid: i32, field: &str) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .and_then(|text| text.split_whitespace().next())
        .with_context(|| format!("no {field}"))?;
    Ok(kib.parse::<f64>()? / 1024.0)
}
