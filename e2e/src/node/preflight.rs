//! Whether a real node can run here, and if not, what is missing.

use std::io::Write as _;
use std::path::Path;

use anyhow::{Result, bail};

use super::machine::{Machine, search_path};
use crate::binaries::Binaries;

/// Set to `off`, the tests that need a real node are skipped, and say so.
pub const SWITCH: &str = "SPRINGTIDE_NODE";

/// Test binaries that a node needs, besides those of the control plane.
const BINARIES: [&str; 10] = [
    "containerd",
    "containerd-shim-runc-v2",
    "ctr",
    "runc",
    "kubelet",
    "kube-proxy",
    "bridge",
    "loopback",
    "host-local",
    "portmap",
];
/// Programs of the system with their Debian packages.
const PROGRAMS: [(&str, &str); 3] = [("ip", "iproute2"), ("mount", "mount"), ("nft", "nftables")];

/// The answer of [`availability`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Availability {
    /// A node can be started.
    Ready,
    /// `SPRINGTIDE_NODE=off` asks for none.
    Off,
    /// It cannot, for these reasons.
    Missing(Vec<String>),
}

impl std::fmt::Display for Availability {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ready => write!(f, "a real node can run here"),
            Self::Off => write!(f, "{SWITCH}=off: no real node is started"),
            Self::Missing(reasons) => write!(f, "no real node can run here: {}", reasons.join("; ")),
        }
    }
}

/// Finds out by trying: it makes a private machine as a node would have it, and
/// removes it again (about 0.1 s).
pub async fn availability() -> Availability {
    if std::env::var_os(SWITCH).is_some_and(|value| value == "off") {
        return Availability::Off;
    }
    let mut missing = Vec::new();
    if !nix::unistd::geteuid().is_root() {
        missing.push("the user is not root".to_owned());
    }
    let mut folders = String::new();
    match Binaries::locate() {
        Ok(binaries) => {
            let absent: Vec<&str> =
                BINARIES.into_iter().filter(|name| binaries.path(name).is_err()).collect();
            if !absent.is_empty() {
                missing.push(format!("`cargo xtask tools` has not built {}", absent.join(", ")));
            }
            folders = binaries.search_path();
        }
        Err(error) => missing.push(one_line(&error)),
    }
    let path = search_path(&folders);
    for (program, package) in PROGRAMS {
        if !path.split(':').any(|folder| Path::new(folder).join(program).is_file()) {
            missing.push(format!("the program {program} (Debian package {package})"));
        }
    }
    // Without those the attempt would only say the same in other words.
    if missing.is_empty()
        && let Err(error) = try_machine(&folders).await
    {
        missing.push(one_line(&error));
    }
    match missing.is_empty() {
        true => Availability::Ready,
        false => Availability::Missing(missing),
    }
}

async fn try_machine(binaries: &str) -> Result<()> {
    let machine = Machine::create(binaries).await?;
    // The kernel's side of nftables, as kube-proxy uses it.
    machine.run(Path::new("nft"), &["add", "table", "ip", "springtide"])?;
    Ok(())
}

fn one_line(error: &anyhow::Error) -> String {
    format!("{error:#}").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// For the head of a test that needs a real node: `true` when it can run, `false`
/// when `SPRINGTIDE_NODE=off` skips it, which is written to stderr even where the
/// test harness captures output.
///
/// # Errors
/// A node is wanted and impossible: the test fails with one line that says why.
pub async fn required_or_skipped() -> Result<bool> {
    match availability().await {
        Availability::Ready => Ok(true),
        off @ Availability::Off => {
            // Not `eprintln`, which the harness hides for tests that pass.
            let thread = std::thread::current();
            let test = thread.name().unwrap_or("a test");
            writeln!(std::io::stderr(), "SKIPPED {test}: {off}")?;
            Ok(false)
        }
        missing @ Availability::Missing(_) => {
            bail!("{missing}; set {SWITCH}=off to skip the tests that need one")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_stands_in_one_line() {
        let missing = Availability::Missing(vec!["the user is not root".into(), "no nft".into()]);
        assert_eq!(missing.to_string(), "no real node can run here: the user is not root; no nft");
        let long = anyhow::anyhow!("a log:\nline 1\n  line 2").context("set-up");
        assert_eq!(one_line(&long), "set-up: a log: line 1 line 2");
    }
}
