//! The outcomes that stand in a job's stored status, read once more and on their own.

use crate::failure::OOM_KILLED;
use crate::projections::job::JobView;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::collections::HashMap;

/// How often a task of the job ran out of memory, of several tasks the one that did most often.
pub(super) fn most_ooms(job: &JobView) -> u32 {
    let status = &job.status;
    if job.spec.completions == 1 {
        return status.exit_codes.iter().filter(|row| row.reason == OOM_KILLED).map(|row| row.count).sum();
    }
    let entries = status.indexes.iter().flat_map(|stored| stored.retries.split(','));
    entries.filter_map(|entry| entry.split_once('/')?.1.parse().ok()).max().unwrap_or(0)
}

/// Which attempts the status accounts for.
pub(super) struct Outcomes {
    is_final: bool,
    closed_below: u32,
    bitmap: Vec<u8>,
    /// Failures of open indexes.
    failures: HashMap<u32, u32>,
}

impl Outcomes {
    /// Reads the status; `None` where it cannot be read.
    pub(super) fn of(job: &JobView) -> Option<Self> {
        let status = &job.status;
        let is_final = job.is_finished();
        let none = Self { is_final, closed_below: 0, bitmap: Vec::new(), failures: HashMap::new() };
        if job.spec.completions == 1 {
            return Some(Self { failures: HashMap::from([(0, status.failed)]), ..none });
        }
        let Some(stored) = &status.indexes else { return Some(none) };
        let mut failures = HashMap::new();
        for entry in stored.retries.split(',').filter(|entry| !entry.is_empty()) {
            let (index, failed) = entry.split_once(':')?;
            // How often it was for want of memory does not matter here.
            let failed = failed.split_once('/').map_or(failed, |(failed, _)| failed);
            failures.insert(index.parse().ok()?, failed.parse().ok()?);
        }
        let bitmap = STANDARD.decode(&stored.closed_bitmap).ok()?;
        Some(Self { closed_below: stored.closed_below, bitmap, failures, ..none })
    }

    /// Whether an index succeeded or failed for good.
    pub(super) fn is_closed(&self, index: u32) -> bool {
        let Some(bit) = index.checked_sub(self.closed_below) else { return true };
        let byte = self.bitmap.get(bit as usize / 8).copied().unwrap_or(0);
        byte & (1 << (bit % 8)) != 0
    }

    /// How many indexes are closed.
    pub(super) fn closed(&self) -> u32 {
        self.closed_below + self.bitmap.iter().map(|byte| byte.count_ones()).sum::<u32>()
    }

    /// Whether the outcome of an attempt is accounted for.
    pub(super) fn holds(&self, index: u32, attempt: u32) -> bool {
        self.is_final
            || self.is_closed(index)
            || self.failures.get(&index).is_some_and(|failures| *failures > attempt)
    }
}
