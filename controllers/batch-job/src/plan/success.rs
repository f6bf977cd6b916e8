//! Whether so much has succeeded as `spec.successPolicy` takes for the success of the job.

use crate::indexes::Indexes;
use crate::projections::job::JobView;
use springtide_crds::batch_job::SuccessRule;

/// Indexes as sorted ranges, both ends included, that neither touch nor overlap; all below the job's completions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct IndexSet(Vec<(u32, u32)>);

impl IndexSet {
    /// Reads numbers and ranges such as `1,3-5`. The schema lets nothing else pass; what it would is left out.
    fn parse(list: &str, completions: u32) -> Self {
        let mut ranges: Vec<(u32, u32)> = list
            .split(',')
            .filter_map(|entry| {
                let (first, last) = entry.split_once('-').unwrap_or((entry, entry));
                let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
                Some((first.min(last), first.max(last).min(completions.checked_sub(1)?)))
            })
            .filter(|(first, last)| first <= last)
            .collect();
        ranges.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::new();
        for (first, last) in ranges {
            match merged.last_mut() {
                Some((_, end)) if first <= *end + 1 => *end = last.max(*end),
                Some(_) | None => merged.push((first, last)),
            }
        }
        Self(merged)
    }

    /// Whether an index is one of them.
    pub(super) fn contains(&self, index: u32) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&index))
    }

    /// How many there are.
    fn len(&self) -> u32 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }
}

/// The indexes that the policy of a job names; `None` when it names none.
pub(super) fn named(job: &JobView) -> Option<IndexSet> {
    let list = rule(job)?.succeeded_indexes.as_deref()?;
    Some(IndexSet::parse(list, job.spec.completions))
}

fn rule(job: &JobView) -> Option<&SuccessRule> {
    job.spec.success_policy.as_ref()?.rules.first()
}

/// Whether the policy is met when `succeeded` tasks have, those among the named ones as `indexes` say.
pub(super) fn is_met(job: &JobView, succeeded: u32, indexes: &Indexes) -> bool {
    let Some(rule) = rule(job) else { return false };
    let (have, needed) = match named(job) {
        Some(named) => {
            // A job with one task has no record by index.
            let have = match job.is_single() {
                true => succeeded.min(named.len()),
                false => indexes.named_succeeded,
            };
            (have, rule.succeeded_count.unwrap_or(named.len()))
        }
        None => (succeeded, rule.succeeded_count.unwrap_or(u32::MAX)),
    };
    needed > 0 && have >= needed
}

/// The same by the stored status alone. From then on nothing can fail the job, and its pods may be ended.
pub(super) fn stands(job: &JobView, stored: &Indexes) -> bool {
    is_met(job, job.status.succeeded, stored)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn lists_are_read_whatever_their_order_and_cut_at_the_completions() {
        let set = IndexSet::parse("7,3-5,5-6,1,9-8,40-50", 43);
        assert_eq!(set.0, [(1, 1), (3, 9), (40, 42)]);
        assert_eq!(set.len(), 11);
        assert!(set.contains(40) && !set.contains(2) && !set.contains(43));
        assert_eq!(IndexSet::parse("50-60", 10), IndexSet::default());
    }

    proptest! {
        #[test]
        fn a_set_is_that_of_its_numbers(ranges in prop::collection::vec((0..60u32, 0..60u32), 1..9)) {
            let text: Vec<String> = ranges.iter().map(|(first, last)| format!("{first}-{last}")).collect();
            let set = IndexSet::parse(&text.join(","), 50);
            let numbers: BTreeSet<u32> = ranges
                .iter()
                .flat_map(|(first, last)| *first.min(last)..=*first.max(last))
                .filter(|index| *index < 50)
                .collect();
            prop_assert_eq!(set.len() as usize, numbers.len());
            for index in 0..60 {
                prop_assert_eq!(set.contains(index), numbers.contains(&index));
            }
        }
    }
}
