//! A folder in memory for what the tests on clusters write.
//!
//! The stages before them have just written gigabytes of objects. A kernel that brings these to a slow disk lets
//! whoever writes to the same file system wait, etcd and its API server with it, for half a minute and more, which
//! no test could tell from a cluster that is broken.

use std::ffi::OsString;
use std::path::Path;

use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use procfs::{Current, Meminfo};
use tempfile::TempDir;

/// Where Linux keeps files in memory for everybody.
const SHARED_MEMORY: &str = "/dev/shm";
/// Audit logs, etcd's data and the containers' layers of all clusters at a time stay far below this.
const NEEDED_BYTES: u64 = 8 << 30;

/// A folder that is removed on drop.
pub(crate) struct MemoryFolder(TempDir);

impl MemoryFolder {
    /// Makes one; `None` where the caller has chosen a temporary folder, or memory is scarce.
    pub(crate) fn make() -> Option<Self> {
        if std::env::var_os("TMPDIR").is_some() || !has_room(Path::new(SHARED_MEMORY)) {
            return None;
        }
        // A short name: paths of sockets below it have at most 107 bytes.
        tempfile::Builder::new().prefix("st-").tempdir_in(SHARED_MEMORY).ok().map(Self)
    }

    /// The variable by which programs learn of it.
    pub(crate) fn variable(&self) -> (&'static str, OsString) {
        ("TMPDIR", self.0.path().as_os_str().to_owned())
    }
}

fn has_room(folder: &Path) -> bool {
    let in_memory = statfs(folder).is_ok_and(|found| {
        let free = found.blocks_available().saturating_mul(u64::try_from(found.block_size()).unwrap_or(0));
        found.filesystem_type() == TMPFS_MAGIC && free >= NEEDED_BYTES
    });
    // A tmpfs may be given more than there is.
    let available = || Meminfo::current().ok().and_then(|memory| memory.mem_available);
    in_memory && available().is_some_and(|bytes| bytes >= NEEDED_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_in_memory_is_not_taken() {
        assert!(!has_room(Path::new("/proc")) && !has_room(Path::new("/no/such/folder")));
    }
}
