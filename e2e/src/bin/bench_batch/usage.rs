//! What a process used, from /proc.

use anyhow::{Context, Result};

/// CPU time and memory of a process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// User and system time in seconds.
    pub(crate) cpu_seconds: f64,
    /// Highest resident set, in MiB.
    pub(crate) peak_mib: u64,
}

/// Reads the usage of `pid` so far.
pub(crate) fn of(pid: i32) -> Result<Usage> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The command in parentheses may hold spaces; utime and stime are fields 14 and 15.
    let fields: Vec<&str> = stat.rsplit_once(')').context("no stat")?.1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.context("no clock tick")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|text| text.split_whitespace().next())
        .context("no VmHWM")?;
    Ok(Usage { cpu_seconds: ticks as f64 / per_second as f64, peak_mib: peak.parse::<u64>()? / 1024 })
}
