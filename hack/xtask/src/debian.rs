//! `cargo xtask deps`: the Debian packages that building runc and running a
//! real node take. What counts is whether the thing itself is there, not
//! whether dpkg knows it, so other distributions pass as well.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};
use nix::unistd::Uid;

/// Flags of `cargo xtask deps`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Install what is missing (as root; others are told the command).
    #[arg(long)]
    install: bool,
}

/// A Debian package and what it is needed for.
struct Package {
    name: &'static str,
    probe: Probe,
    needed: Needed,
}

/// How the presence of a package shows.
enum Probe {
    /// This program is found.
    Program(&'static str),
    /// pkg-config knows this library.
    Library(&'static str),
}

/// When a package is needed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needed {
    /// To build runc, which links libseccomp by C.
    Build,
    /// While a real node runs.
    Node,
}

const PACKAGES: &[Package] = &[
    Package { name: "gcc", probe: Probe::Program("gcc"), needed: Needed::Build },
    Package { name: "pkg-config", probe: Probe::Program("pkg-config"), needed: Needed::Build },
    Package { name: "libseccomp-dev", probe: Probe::Library("libseccomp"), needed: Needed::Build },
    // kube-proxy (Services) and the portmap plugin (hostPort) call nft.
    Package { name: "nftables", probe: Probe::Program("nft"), needed: Needed::Node },
    // The node's private network is made with ip.
    Package { name: "iproute2", probe: Probe::Program("ip"), needed: Needed::Node },
];

/// Checks, and with `--install` mends. A check fails when something is
/// missing; with `--install` that is only said, because much works without.
pub(crate) fn run(args: &Args) -> Result<()> {
    if args.install {
        install_missing();
        return Ok(());
    }
    let missing = missing(PACKAGES);
    if !missing.is_empty() {
        bail!("{}", advice(&missing));
    }
    eprintln!("All needed Debian packages are there.");
    Ok(())
}

/// Installs what is missing when this process may, and prints in one line what
/// stays missing. Never fails: who needs the package will name it.
pub(crate) fn install_missing() {
    let wanted = missing(PACKAGES);
    if wanted.is_empty() {
        return;
    }
    if Uid::effective().is_root() && find_program("apt-get").is_some() {
        eprintln!("Installing {}", wanted.join(" "));
        // Lists may be absent or old; if they cannot be had, the old ones may still do.
        apt_get(&["update"]);
        let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
        arguments.extend(&wanted);
        apt_get(&arguments);
    }
    let still = missing(PACKAGES);
    if !still.is_empty() {
        eprintln!("warning: {}", advice(&still));
    }
}

/// Fails with one clear line when a package is missing that building with C takes.
pub(crate) fn require_for_build() -> Result<()> {
    let missing = missing(PACKAGES.iter().filter(|package| package.needed == Needed::Build));
    if !missing.is_empty() {
        bail!("{}", advice(&missing));
    }
    Ok(())
}

fn missing<'a>(packages: impl IntoIterator<Item = &'a Package>) -> Vec<&'static str> {
    packages.into_iter().filter(|package| !package.probe.succeeds()).map(|package| package.name).collect()
}

fn advice(missing: &[&str]) -> String {
    let uses: Vec<_> = [(Needed::Build, "building runc"), (Needed::Node, "a real node")]
        .into_iter()
        .filter(|(needed, _)| {
            PACKAGES.iter().any(|package| package.needed == *needed && missing.contains(&package.name))
        })
        .map(|(_, text)| text)
        .collect();
    format!(
        "missing for {}: {}; as root: apt-get install {}",
        uses.join(" and "),
        missing.join(", "),
        missing.join(" ")
    )
}

/// Runs apt-get without questions, on stderr only; its own words tell of a failure.
fn apt_get(arguments: &[&str]) {
    let status = Command::new("apt-get")
        // Another apt-get may hold the lock, on fresh machines above all.
        .args(["-qq", "-o", "DPkg::Lock::Timeout=300"])
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => eprintln!("warning: apt-get {} ended with {status}", arguments.join(" ")),
        Err(error) => eprintln!("warning: apt-get did not start: {error}"),
    }
}

impl Probe {
    fn succeeds(&self) -> bool {
        match self {
            Probe::Program(name) => find_program(name).is_some(),
            Probe::Library(name) => Command::new("pkg-config")
                .args(["--exists", name])
                .stdin(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success()),
        }
    }
}

/// Looks on PATH and where Debian keeps root's programs, which a user's PATH lacks.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_not_missing_and_what_is_not_is() {
        let present = Package { name: "coreutils", probe: Probe::Program("ls"), needed: Needed::Node };
        let absent =
            Package { name: "nothing", probe: Probe::Program("no-such-program"), needed: Needed::Node };
        let no_library =
            Package { name: "nolib", probe: Probe::Library("no-such-library"), needed: Needed::Build };
        assert_eq!(missing([&present, &absent, &no_library]), ["nothing", "nolib"]);
    }

    #[test]
    fn the_advice_names_purpose_packages_and_command_in_one_line() {
        let text = advice(&["libseccomp-dev", "nftables"]);
        assert_eq!(
            text,
            "missing for building runc and a real node: libseccomp-dev, nftables; \
             as root: apt-get install libseccomp-dev nftables"
        );
        assert!(!advice(&["nftables"]).contains("runc"));
    }
}
