//! `demo clean`: ends the demo that runs, and makes sure that nothing of it is left.

use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use springtide_e2e::node::leftovers::Footprint;

use super::home::{Claim, Home, State};

/// Bound for the orderly end of a demo, which takes seconds, and then once more for
/// what its guardian removes.
const END: Duration = Duration::from_secs(120);
/// Between two looks at something that has no event.
const LOOK: Duration = Duration::from_millis(100);
/// Lines that are shown of the log of a demo that ended by itself.
const LOG_LINES: usize = 25;

/// Ends the demo of this user, if one runs, and removes what there is of it.
///
/// # Errors
/// It does not end, or something of it stays.
pub(crate) fn run() -> Result<()> {
    let home = Home::of_user()?;
    if !home.exists() {
        println!("No demo is running: there is nothing to remove.");
        return Ok(());
    }
    let claim = match home.claim()? {
        Some(claim) => {
            println!("The demo has ended by itself before.");
            let log = fs::read_to_string(home.log()).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
                println!("  {line}");
            }
            claim
        }
        None => end(&home)?,
    };
    // Read by whoever holds the claim, so nobody writes it now. A demo that ended in
    // order has taken it along.
    let state = home.state()?;
    if let Some(cluster) = state.and_then(|state| state.cluster) {
        wait_until_gone(&cluster.footprint)?;
    }
    claim.remove()?;
    println!("No process, container, mount, namespace, control group or folder of the demo is left.");
    Ok(())
}

/// Ends the process that holds the demo.
fn end(home: &Home) -> Result<Claim> {
    let state = home.state()?;
    let pid = state.as_ref().and_then(State::live_pid);
    let Some(pid) = pid else {
        bail!("a demo is just starting or ending; try again in a moment");
    };
    println!("Ending the demo (process {pid}) ...");
    let footprint = state.and_then(|state| state.cluster).map(|cluster| cluster.footprint);
    let parts = footprint.as_ref().map(Footprint::leftovers).transpose()?.unwrap_or_default();
    let mut claim = None;
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        match kill(Pid::from_raw(pid), signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => return Err(error).with_context(|| format!("send {signal} to process {pid}")),
        }
        claim = wait_for(|| home.claim())?;
        if claim.is_some() {
            break;
        }
    }
    let claim = claim.with_context(|| format!("process {pid} does not end"))?;
    // It has taken its state along, so this is the last moment to know what to look for.
    if let Some(footprint) = footprint {
        wait_until_gone(&footprint)?;
    }
    println!("Removed:");
    for part in removed(&parts) {
        println!("  {part}");
    }
    Ok(claim)
}

/// The parts of a cluster, each once: a process shows itself in several ways.
fn removed(parts: &[String]) -> BTreeSet<&str> {
    parts.iter().map(|part| part.find("process ").map_or(part.as_str(), |start| &part[start..])).collect()
}

/// Waits until nothing of a cluster is left; its guardian removes the last parts a
/// moment after the process that held it.
///
/// # Errors
/// Something is still there after two minutes: with a line for each.
pub(crate) fn wait_until_gone(footprint: &Footprint) -> Result<()> {
    let mut left = Vec::new();
    let gone = wait_for(|| {
        left = footprint.leftovers()?;
        Ok(left.is_empty().then_some(()))
    })?;
    if gone.is_none() {
        bail!("left behind after {END:?}:\n{}", left.join("\n"));
    }
    Ok(())
}

fn wait_for<T>(mut event: impl FnMut() -> Result<Option<T>>) -> Result<Option<T>> {
    let deadline = Instant::now() + END;
    loop {
        let happened = event()?;
        if happened.is_some() || Instant::now() >= deadline {
            return Ok(happened);
        }
        thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_is_named_once() {
        let parts = [
            "by its environment: process 7 (etcd)",
            "net namespace of process 7 (etcd)",
            "control group /sys/fs/cgroup/x",
            "folder /tmp/x",
        ]
        .map(str::to_owned);
        let removed: Vec<&str> = removed(&parts).into_iter().collect();
        assert_eq!(removed, ["control group /sys/fs/cgroup/x", "folder /tmp/x", "process 7 (etcd)"]);
    }
}
