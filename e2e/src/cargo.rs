//! Cargo, called from a program that cargo has started itself.

use std::env;
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

/// What cargo tells a program of the package that it runs. A build script that looks at one of these
/// (that of ring does) would be run anew by a cargo inside, and all above it compiled once more.
const OF_THE_PACKAGE: [&str; 5] =
    ["CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"];

/// Cargo in the root of this checkout, as if called from a shell.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    for (name, _) in env::vars_os().filter(|(name, _)| tells_of_the_package(name)) {
        cargo.env_remove(name);
    }
    cargo
}

fn tells_of_the_package(variable: &OsStr) -> bool {
    let name = variable.to_string_lossy();
    OF_THE_PACKAGE.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_test_hears_of_its_package_is_not_passed_on() {
        assert!(env::var_os("CARGO_PKG_NAME").is_some(), "cargo runs this test");
        let cargo = cargo();
        let removed: Vec<_> = cargo.get_envs().filter(|(_, value)| value.is_none()).collect();
        for name in ["CARGO_PKG_NAME", "CARGO_MANIFEST_DIR"] {
            assert!(removed.iter().any(|(removed, _)| *removed == name), "{name}: {removed:?}");
        }
        assert!(!removed.iter().any(|(removed, _)| *removed == "CARGO_HOME"));
    }
}
