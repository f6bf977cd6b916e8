//! The machine's bound on inotify instances: each component of Kubernetes takes about six of them.

use std::fs;
use std::path::{Path, PathBuf};

/// The bound, for each user.
const BOUND: &str = "/proc/sys/fs/inotify/max_user_instances";
/// Enough for four real nodes (22 each, with their control planes) beside ten control planes (11 each), and as much
/// again for others. The kernel's default, 128, is not.
const ENOUGH: u32 = 512;

/// A bound that is high enough; what was raised is put back on drop.
#[derive(Debug)]
pub(crate) struct Enough {
    raised: Option<(PathBuf, u32)>,
}

impl Drop for Enough {
    fn drop(&mut self) {
        if let Some((path, before)) = &self.raised
            && let Err(error) = fs::write(path, before.to_string())
        {
            eprintln!("    {} stays at {ENOUGH}, it was {before}: {error}", path.display());
        }
    }
}

/// Raises the bound where it is too low, and says so. `None` where that is not allowed, or the kernel has no such bound.
pub(crate) fn enough() -> Option<Enough> {
    enough_in(Path::new(BOUND))
}

fn enough_in(path: &Path) -> Option<Enough> {
    let before = fs::read_to_string(path).ok()?.trim().parse().ok()?;
    if before >= ENOUGH {
        return Some(Enough { raised: None });
    }
    fs::write(path, ENOUGH.to_string()).ok()?;
    eprintln!("    {} is {ENOUGH} while the tests run, and {before} again after them", path.display());
    Some(Enough { raised: Some((path.to_owned(), before)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_low_bound_is_raised_and_put_back_and_a_high_one_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bound");
        for (before, during) in [("128\n", "512"), ("4096\n", "4096\n")] {
            fs::write(&path, before).unwrap();
            let held = enough_in(&path).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), during);
            drop(held);
            assert_eq!(fs::read_to_string(&path).unwrap().trim(), before.trim());
        }
        assert!(enough_in(&folder.path().join("none")).is_none());
    }
}
