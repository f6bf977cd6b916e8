//! Which indexes of a job have ended, and how often the open ones failed: the bounded form that
//! stands in `status.indexes`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use springtide_crds::batch_job::{
    CLOSED_BITMAP_MAX_BITS, FAILED_INDEXES_MAX_BYTES, IndexStatus, RETRIES_MAX_BYTES,
};
use std::collections::BTreeMap;
use std::fmt::Write;

/// What stands at the end of `failed` when it was cut.
const CUT: &str = ",...";
/// [`CLOSED_BITMAP_MAX_BITS`], as the distance between indexes that it is.
const WINDOW: u32 = CLOSED_BITMAP_MAX_BITS as u32;

/// A `status.indexes` that nobody of ours wrote.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// Neither base64 nor within its bound.
    #[error("status.indexes.closedBitmap is not base64 of at most {CLOSED_BITMAP_MAX_BITS} bits")]
    Bitmap,
    /// Not `index:failures` or `index:failures/oomSteps`.
    #[error(
        "status.indexes.retries has an entry that is neither index:failures nor index:failures/steps: {0:?}"
    )]
    Retries(String),
    /// Neither an index nor a range of them.
    #[error("status.indexes.failed has an entry that is no index nor range: {0:?}")]
    Failed(String),
}

/// How often an open index failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retries {
    /// In all.
    pub failures: u32,
    /// For want of memory, as far as that was to give it more; at most
    /// [`MAX_OOM_STEPS`](springtide_crds::batch_job::MAX_OOM_STEPS).
    pub oom_steps: u32,
}

/// Progress of a job by index.
///
/// An index is open until it is closed: it succeeded, or failed for good. Indexes are started in order
/// within [`CLOSED_BITMAP_MAX_BITS`] of the first open one, so the closed ones always fit a bitmap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Indexes {
    completions: u32,
    /// All indexes below are closed, as of the last [`Indexes::pack`].
    closed_below: u32,
    /// Bit `i`, least significant first, says that index `closed_below + i` is closed.
    bitmap: Vec<u8>,
    /// Open indexes that failed.
    retries: BTreeMap<u32, Retries>,
    failed: Ranges,
    /// Successes among the indexes that the job's success policy names.
    pub named_succeeded: u32,
}

impl Indexes {
    /// No index has ended.
    pub fn new(completions: u32) -> Self {
        Self {
            completions,
            closed_below: 0,
            bitmap: Vec::new(),
            retries: BTreeMap::new(),
            failed: Ranges::default(),
            named_succeeded: 0,
        }
    }

    /// Those of a job with one task, which has no `status.indexes`: its only index has failed so often.
    pub fn single(retries: Retries, closed: bool) -> Self {
        let mut indexes = Self::new(1);
        if retries.failures > 0 {
            indexes.retries.insert(0, retries);
        }
        if closed {
            indexes.close(0);
            indexes.pack();
        }
        indexes
    }

    /// Reads `status.indexes`.
    ///
    /// # Errors
    /// When it is not of the form that [`Indexes::encode`] writes.
    pub fn decode(status: &IndexStatus, completions: u32) -> Result<Self, IndexError> {
        let bitmap = STANDARD.decode(&status.closed_bitmap).map_err(|_| IndexError::Bitmap)?;
        if bitmap.len() * 8 > CLOSED_BITMAP_MAX_BITS {
            return Err(IndexError::Bitmap);
        }
        let retries = entries(&status.retries)
            .map(|entry| {
                let pair = entry.split_once(':').and_then(|(index, retries)| {
                    let (failures, steps) = retries.split_once('/').unwrap_or((retries, "0"));
                    let retries =
                        Retries { failures: failures.parse().ok()?, oom_steps: steps.parse().ok()? };
                    Some((index.parse().ok()?, retries))
                });
                pair.ok_or_else(|| IndexError::Retries(entry.to_owned()))
            })
            .collect::<Result<_, _>>()?;
        let mut indexes = Self {
            completions,
            closed_below: status.closed_below,
            bitmap,
            retries,
            failed: Ranges::decode(&status.failed)?,
            named_succeeded: status.named_succeeded,
        };
        indexes.pack();
        Ok(indexes)
    }

    /// Writes `status.indexes`, within its bounds.
    pub fn encode(&self) -> IndexStatus {
        let mut packed = self.clone();
        packed.pack();
        IndexStatus {
            closed_below: packed.closed_below,
            closed_bitmap: STANDARD.encode(&packed.bitmap),
            retries: encode_retries(&packed.retries),
            failed: packed.failed.encode(),
            named_succeeded: packed.named_succeeded,
        }
    }

    /// How many indexes the job has.
    pub fn completions(&self) -> u32 {
        self.completions
    }

    /// Whether an index succeeded or failed for good.
    pub fn is_closed(&self, index: u32) -> bool {
        index < self.closed_below || self.bit(index - self.closed_below)
    }

    /// How many indexes are closed.
    pub fn closed(&self) -> u32 {
        self.closed_below + self.bitmap.iter().map(|byte| byte.count_ones()).sum::<u32>()
    }

    /// Whether all indexes are closed.
    pub fn all_closed(&self) -> bool {
        self.closed() >= self.completions
    }

    /// What is recorded of the failures of an open index.
    pub fn retries(&self, index: u32) -> Retries {
        self.retries.get(&index).copied().unwrap_or_default()
    }

    /// Recorded failures of an open index.
    pub fn failures(&self, index: u32) -> u32 {
        self.retries(index).failures
    }

    /// Whether the outcome of this attempt is part of the record.
    pub fn is_counted(&self, index: u32, attempt: u32) -> bool {
        self.is_closed(index) || self.failures(index) > attempt
    }

    /// The open indexes that may have a pod, in order.
    pub fn open(&self) -> impl Iterator<Item = u32> + '_ {
        (self.closed_below..self.end()).filter(|index| !self.is_closed(*index))
    }

    /// Closes an index that succeeded; `false` when it is too far ahead to be recorded now.
    pub fn close(&mut self, index: u32) -> bool {
        if index < self.closed_below {
            return true;
        }
        if index >= self.end() {
            return false;
        }
        let offset = index - self.closed_below;
        let byte = (offset / 8) as usize;
        if self.bitmap.len() <= byte {
            self.bitmap.resize(byte + 1, 0);
        }
        self.bitmap[byte] |= 1 << (offset % 8);
        self.retries.remove(&index);
        true
    }

    /// Closes an index that failed for good; `false` when it is too far ahead to be recorded now.
    pub fn give_up(&mut self, index: u32) -> bool {
        let closed = self.close(index);
        if closed {
            self.failed.insert(index);
        }
        closed
    }

    /// Records that an open index has failed so often; `false` when the record has no room for it.
    pub fn record_failures(&mut self, index: u32, retries: Retries) -> bool {
        let before = self.retries.insert(index, retries);
        // A job with one task keeps its failures in `status.failed`.
        if self.completions == 1 || encode_retries(&self.retries).len() <= RETRIES_MAX_BYTES {
            return true;
        }
        match before {
            Some(before) => self.retries.insert(index, before),
            None => self.retries.remove(&index),
        };
        false
    }

    /// Moves the lower end of the bitmap up to the first open index.
    pub fn pack(&mut self) {
        let whole = self.bitmap.iter().take_while(|byte| **byte == u8::MAX).count();
        let rest = self.bitmap.get(whole).map_or(0, |byte| byte.trailing_ones());
        self.bitmap.drain(..whole);
        self.closed_below += 8 * whole as u32 + rest;
        if rest > 0 {
            let mut above = 0;
            for byte in self.bitmap.iter_mut().rev() {
                let low = *byte << (8 - rest);
                *byte = (*byte >> rest) | above;
                above = low;
            }
        }
        while self.bitmap.last() == Some(&0) {
            self.bitmap.pop();
        }
        self.closed_below = self.closed_below.min(self.completions);
    }

    /// The first index that may not have a pod yet.
    fn end(&self) -> u32 {
        self.completions.min(self.closed_below.saturating_add(WINDOW))
    }

    fn bit(&self, offset: u32) -> bool {
        self.bitmap.get((offset / 8) as usize).is_some_and(|byte| byte >> (offset % 8) & 1 == 1)
    }
}

fn entries(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').filter(|entry| !entry.is_empty())
}

fn encode_retries(retries: &BTreeMap<u32, Retries>) -> String {
    let mut text = String::new();
    for (index, Retries { failures, oom_steps }) in retries {
        let comma = if text.is_empty() { "" } else { "," };
        // Writing to a string cannot fail.
        let _ = match oom_steps {
            0 => write!(text, "{comma}{index}:{failures}"),
            steps => write!(text, "{comma}{index}:{failures}/{steps}"),
        };
    }
    text
}

/// A set of indexes as sorted, disjoint ranges (both ends included); its highest ones may have been cut.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Ranges {
    ranges: Vec<(u32, u32)>,
    cut: bool,
}

impl Ranges {
    fn decode(text: &str) -> Result<Self, IndexError> {
        let (list, cut) = text.strip_suffix(CUT).map_or((text, false), |list| (list, true));
        let ranges = entries(list)
            .map(|entry| {
                let (first, last) = entry.split_once('-').unwrap_or((entry, entry));
                let range = first.parse().ok().zip(last.parse().ok());
                range.ok_or_else(|| IndexError::Failed(entry.to_owned()))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { ranges, cut })
    }

    fn insert(&mut self, index: u32) {
        let at = self.ranges.partition_point(|(_, last)| last.saturating_add(1) < index);
        match self.ranges.get_mut(at) {
            Some((first, last)) if first.saturating_sub(1) <= index => {
                *first = (*first).min(index);
                *last = (*last).max(index);
                let joined = *last;
                if let Some(&(next, end)) = self.ranges.get(at + 1)
                    && next <= joined.saturating_add(1)
                {
                    self.ranges[at].1 = end;
                    self.ranges.remove(at + 1);
                }
            }
            Some(_) | None => self.ranges.insert(at, (index, index)),
        }
    }

    fn encode(&self) -> String {
        let mut text = String::new();
        for &(first, last) in &self.ranges {
            let comma = if text.is_empty() { "" } else { "," };
            let entry =
                if first == last { format!("{comma}{first}") } else { format!("{comma}{first}-{last}") };
            if text.len() + entry.len() > FAILED_INDEXES_MAX_BYTES - CUT.len() {
                return text + CUT;
            }
            text += &entry;
        }
        if self.cut { text + CUT } else { text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use springtide_crds::batch_job::{CLOSED_BITMAP_MAX_BYTES, MAX_COMPLETIONS, MAX_OOM_STEPS};
    use std::collections::BTreeSet;

    fn failed(failures: u32) -> Retries {
        Retries { failures, oom_steps: 0 }
    }

    #[test]
    fn the_lower_end_follows_the_first_open_index() {
        let mut indexes = Indexes::new(30);
        for index in (0..9).chain([10, 12]) {
            assert!(indexes.close(index));
        }
        indexes.pack();
        assert_eq!(indexes.closed_below, 9);
        assert_eq!(indexes.bitmap, [0b1010]);
        assert_eq!(indexes.open().take(3).collect::<Vec<_>>(), [9, 11, 13]);
        assert_eq!(indexes.closed(), 11);
    }

    #[test]
    fn an_attempt_is_counted_by_the_record_alone() {
        let mut indexes = Indexes::new(3);
        assert!(!indexes.is_counted(1, 0));
        assert!(indexes.record_failures(1, failed(2)));
        assert!(indexes.is_counted(1, 1) && !indexes.is_counted(1, 2));
        assert!(indexes.give_up(1));
        assert!(indexes.is_counted(1, 2), "of a closed index every attempt is");
    }

    #[test]
    fn full_retries_refuse_and_change_nothing() {
        let mut indexes = Indexes::new(MAX_COMPLETIONS);
        let full = (0..).find(|index| !indexes.record_failures(10_000 + index, failed(1))).unwrap();
        let before = indexes.clone();
        assert!(full > 100 && !indexes.record_failures(0, failed(1)));
        assert!(!indexes.record_failures(10_000, failed(1000)));
        assert_eq!(indexes, before);
        indexes.close(10_000 + 1);
        assert_eq!(indexes.failures(10_001), 1, "too far ahead of the first open index to be closed");
        assert!(indexes.close(0));
    }

    #[test]
    fn failed_indexes_join_to_ranges_and_are_cut() {
        let mut failed = Ranges::default();
        for index in [7, 12, 9, 11, 10, 9] {
            failed.insert(index);
        }
        assert_eq!(failed.encode(), "7,9-12");
        for index in 0..1000 {
            failed.insert(10_000 + 2 * index);
        }
        let text = failed.encode();
        assert!(text.len() <= FAILED_INDEXES_MAX_BYTES && text.ends_with(",..."));
        assert_eq!(Ranges::decode(&text).unwrap().encode(), text);
    }

    #[test]
    fn what_we_did_not_write_is_an_error() {
        let status = |bitmap: &str, retries: &str, failed: &str| IndexStatus {
            closed_below: 0,
            closed_bitmap: bitmap.into(),
            retries: retries.into(),
            failed: failed.into(),
            named_succeeded: 0,
        };
        assert_eq!(Indexes::decode(&status("%", "", ""), 9), Err(IndexError::Bitmap));
        for entry in ["1", "1:2/", "1:2/x", "1:2/3/4"] {
            let read = Indexes::decode(&status("", entry, ""), 9);
            assert_eq!(read, Err(IndexError::Retries(entry.into())));
        }
        assert_eq!(Indexes::decode(&status("", "", "1-x"), 9), Err(IndexError::Failed("1-x".into())));
    }

    proptest! {
        #[test]
        fn the_encoded_form_is_bounded_and_says_the_same(
            completions in 1..=MAX_COMPLETIONS,
            steps in prop::collection::vec((0..3u8, 0..10_000u32, 1..1000u32, 0..=MAX_OOM_STEPS), 0..600),
        ) {
            let mut indexes = Indexes::new(completions);
            let (mut closed, mut failed, mut retries) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
            for (kind, at, failures, oom_steps) in steps {
                let Some(index) = indexes.open().nth(at as usize % 64) else { break };
                match kind {
                    0 => { prop_assert!(indexes.close(index)); closed.insert(index); retries.remove(&index); }
                    1 => {
                        prop_assert!(indexes.give_up(index));
                        closed.insert(index);
                        failed.insert(index);
                        retries.remove(&index);
                    }
                    _ => {
                        let failed = Retries { failures, oom_steps };
                        if indexes.record_failures(index, failed) {
                            retries.insert(index, failed);
                        }
                    }
                }
            }
            let status = indexes.encode();
            prop_assert!(status.closed_bitmap.len() <= CLOSED_BITMAP_MAX_BYTES);
            prop_assert!(status.retries.len() <= RETRIES_MAX_BYTES || completions == 1);
            prop_assert!(status.failed.len() <= FAILED_INDEXES_MAX_BYTES);
            let read = Indexes::decode(&status, completions).unwrap();
            prop_assert_eq!(read.encode(), status);
            prop_assert_eq!(read.closed(), closed.len() as u32);
            for index in 0..completions.min(700) {
                prop_assert_eq!(read.is_closed(index), closed.contains(&index));
                prop_assert_eq!(read.retries(index), retries.get(&index).copied().unwrap_or_default());
            }
            prop_assert_eq!(read.all_closed(), closed.len() as u32 == completions);
        }

        #[test]
        fn closing_in_any_order_reaches_the_end(order in Just((0..9000u32).collect::<Vec<_>>()).prop_shuffle()) {
            let mut indexes = Indexes::new(9000);
            let mut later = Vec::new();
            for index in order {
                if !indexes.close(index) {
                    later.push(index);
                }
            }
            indexes.pack();
            prop_assert!(later.iter().all(|index| indexes.close(*index)));
            indexes.pack();
            prop_assert!(indexes.all_closed());
            prop_assert_eq!(indexes.encode().closed_bitmap, "");
        }
    }
}
