//! Steps: how many pods are to be changed now, and what the next step waits for.

use jiff::{SignedDuration, Timestamp};
use springtide_crds::common::whole_seconds;
use springtide_crds::in_place_upgrade::{Approval, HoldType, Step, StepStatus};
use springtide_plumbing::clock::after;

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Pods of the workload.
    pub total: u32,
    /// Pods that have been started or are as they are wished: a pod that was born so counts like any other.
    pub taken: u32,
    /// Those of them with which nothing is left to wait for: available, or failed.
    pub settled: u32,
    /// Pods that are still to be started.
    pub left: u32,
}

/// The step of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepNow {
    /// As it is to stand in the status.
    pub status: StepStatus,
    /// Pods that may still be started in it.
    pub room: u32,
    /// What the next step waits for; `None` while this one goes on, and of the last one.
    pub hold: Option<StepHold>,
}

/// What the next step waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepHold {
    /// A person, or what acts for one.
    Approval,
    /// A point in time.
    Until(Timestamp),
}

/// What a step goes by beside pods.
#[derive(Clone, Copy, Debug)]
pub struct StepInput<'a> {
    /// `strategy.steps`.
    pub steps: &'a [Step],
    /// `approval`, whatever wish it is for.
    pub approval: Option<&'a Approval>,
    /// Name of the wish.
    pub hash: &'a str,
    /// The step as stored, if it is of this wish.
    pub stored: Option<&'a StepStatus>,
    /// Whether holds are left out: a rollback waits for nobody.
    pub ignores_holds: bool,
}

/// The step that a run is in.
///
/// A step is over when so many pods as it asks for have come to their end, also where some of them failed within what is
/// tolerated. Where no pod is left to start, all steps are over, but their holds are kept.
pub fn step_now(input: &StepInput<'_>, progress: Progress, now: Timestamp) -> StepNow {
    let of = u32::try_from(input.steps.len()).unwrap_or(u32::MAX).max(1);
    let first = input.stored.map_or(1, |stored| stored.index).clamp(1, of);
    let mut index = first;
    let mut reached = 0;
    loop {
        let target = target(input.steps, index, progress.total).max(reached);
        reached = target;
        let step = at(input.steps, index);
        let stored = input.stored.filter(|stored| stored.index == index);
        let start_time = stored.map_or_else(|| whole_seconds(now), |stored| stored.start_time.clone());
        let mut status = StepStatus { index, of, pods: target, start_time, hold_until_time: None };
        let room = target.saturating_sub(progress.taken).min(progress.left);
        let is_over = room == 0 && progress.settled >= progress.taken;
        if !is_over || index == of {
            status.hold_until_time = stored.and_then(|stored| stored.hold_until_time.clone());
            return StepNow { status, room, hold: None };
        }
        let hold = step.and_then(|step| step.hold.as_ref()).filter(|_| !input.ignores_holds);
        let held = hold.and_then(|hold| match hold.type_ {
            HoldType::Approval => {
                let approved = input.approval.is_some_and(|approval| {
                    approval.target_hash == input.hash && approval.through_step >= index
                });
                (!approved).then_some(StepHold::Approval)
            }
            HoldType::Duration => {
                let begun = stored.and_then(|stored| stored.hold_until_time.as_ref());
                let length = SignedDuration::from_secs(hold.duration_seconds.unwrap_or(0).into());
                let until = begun.map_or_else(|| after(now, length), |until| until.0);
                (until > now).then_some(StepHold::Until(until))
            }
        });
        if let Some(held) = held {
            status.hold_until_time = match held {
                StepHold::Approval => None,
                StepHold::Until(until) => Some(whole_seconds(until)),
            };
            return StepNow { status, room: 0, hold: Some(held) };
        }
        index += 1;
    }
}

/// Pods that are changed at the end of a step, at least 1 and at most all.
fn target(steps: &[Step], index: u32, total: u32) -> u32 {
    at(steps, index).map_or(total, |step| step.replicas.round_up(total).max(1).min(total))
}

fn at(steps: &[Step], index: u32) -> Option<&Step> {
    steps.get(usize::try_from(index).ok()?.checked_sub(1)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::at as instant;
    use proptest::prelude::*;
    use serde_json::json;

    fn steps() -> Vec<Step> {
        serde_json::from_value(json!([
            {"replicas": 1, "hold": {"type": "Approval"}},
            {"replicas": "10%", "hold": {"type": "Duration", "durationSeconds": 600}},
            {"replicas": "100%"},
        ]))
        .unwrap()
    }

    fn progress(taken: u32, settled: u32) -> Progress {
        Progress { total: 95, taken, settled, left: 95 - taken }
    }

    fn stored(index: u32, hold_until: Option<i64>) -> StepStatus {
        let hold_until_time = hold_until.map(|second| whole_seconds(instant(second)));
        StepStatus { index, of: 3, pods: 0, start_time: whole_seconds(instant(-50)), hold_until_time }
    }

    fn now(
        steps: &[Step],
        stored: Option<&StepStatus>,
        approval: Option<&Approval>,
        progress: Progress,
    ) -> StepNow {
        let input = StepInput { steps, approval, hash: "7c9f21ab04de", stored, ignores_holds: false };
        step_now(&input, progress, instant(0))
    }

    fn approval(hash: &str, through_step: u32) -> Approval {
        Approval { target_hash: hash.to_owned(), through_step }
    }

    #[test]
    fn the_first_step_ends_in_a_hold_that_an_approval_of_this_wish_opens() {
        let steps = steps();
        let begin = now(&steps, None, None, progress(0, 0));
        assert_eq!((begin.status.index, begin.status.pods, begin.room, begin.hold), (1, 1, 1, None));
        let flying = now(&steps, Some(&begin.status), None, progress(1, 0));
        assert_eq!((flying.status.index, flying.room, flying.hold), (1, 0, None));
        let held = now(&steps, Some(&begin.status), None, progress(1, 1));
        assert_eq!((held.status.index, held.hold), (1, Some(StepHold::Approval)));
        for stale in [approval("000000000000", 3), approval("7c9f21ab04de", 0)] {
            assert_eq!(
                now(&steps, Some(&begin.status), Some(&stale), progress(1, 1)).hold,
                Some(StepHold::Approval)
            );
        }
        let open = now(&steps, Some(&begin.status), Some(&approval("7c9f21ab04de", 1)), progress(1, 1));
        assert_eq!((open.status.index, open.status.pods, open.room, open.hold), (2, 10, 9, None));
        assert_eq!(open.status.start_time, whole_seconds(instant(0)));
    }

    #[test]
    fn a_hold_of_time_is_counted_from_when_the_step_was_over_and_kept_by_the_status() {
        let steps = steps();
        let begun = now(&steps, Some(&stored(2, None)), None, progress(10, 10));
        assert_eq!(begun.hold, Some(StepHold::Until(instant(600))));
        assert_eq!(begun.status.hold_until_time, Some(whole_seconds(instant(600))));
        let later = now(&steps, Some(&stored(2, Some(30))), None, progress(10, 10));
        assert_eq!(later.hold, Some(StepHold::Until(instant(30))));
        let over = now(&steps, Some(&stored(2, Some(0))), None, progress(10, 10));
        assert_eq!((over.status.index, over.room, over.hold), (3, 85, None));
    }

    #[test]
    fn pods_that_were_born_as_they_are_wished_count_and_a_step_that_is_full_starts_nobody() {
        let steps = steps();
        let full = now(&steps, Some(&stored(2, None)), None, progress(12, 11));
        assert_eq!((full.status.index, full.room, full.hold), (2, 0, None));
    }

    #[test]
    fn a_rollback_waits_for_nobody() {
        let steps = steps();
        let input = StepInput { steps: &steps, approval: None, hash: "x", stored: None, ignores_holds: true };
        let back = step_now(&input, progress(1, 1), instant(0));
        assert_eq!((back.status.index, back.hold), (2, None));
    }

    proptest! {
        #[test]
        fn no_step_starts_more_pods_than_it_may_or_there_are(
            total in 0..500u32,
            taken in 0..500u32,
            settled in 0..500u32,
            index in 1..4u32,
        ) {
            let taken = taken.min(total);
            let progress = Progress { total, taken, settled: settled.min(taken), left: total - taken };
            let steps = steps();
            let step = now(&steps, Some(&stored(index, None)), None, progress);
            prop_assert!(taken + step.room <= step.status.pods.max(taken));
            prop_assert!(step.status.pods <= total && step.status.index >= index);
            prop_assert!(step.hold.is_none() || step.room == 0);
        }
    }
}
