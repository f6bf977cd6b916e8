//! The pods of a workload, counted by what is to be done to them and by where they stand.

use crate::machine::{Failure, PodState, Stand};
use crate::steps::Progress;
use crate::verdict::{Judgement, Verdict};
use jiff::Timestamp;
use springtide_crds::common::{REASON_MAX_LENGTH, bounded_text, whole_seconds};
use springtide_crds::in_place_upgrade::{
    BlockedPods, BlockedReason, FAILURES_MAX, Ineligible, NAME_MAX_LENGTH, PlanCounts, PodCounts, PodFailure,
};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::workloads::pod::PodView;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A live pod of the workload, and all that is derived of it.
#[derive(Clone, Debug)]
pub struct Member {
    /// The pod.
    pub pod: Arc<PodView>,
    /// What is to be done to it.
    pub judgement: Judgement,
    /// Where it stands in the run.
    pub stand: Stand,
    /// Whether it is available.
    pub is_available: bool,
    /// Whether it bears an image of a plain init container that has effect when it restarts.
    pub awaits_restart: bool,
}

impl Member {
    /// Its state.
    pub fn state(&self) -> &PodState {
        &self.stand.state
    }

    /// Why it has failed.
    pub fn failure(&self) -> Option<&Failure> {
        match &self.stand.state {
            PodState::Failed(failure) => Some(failure),
            PodState::Old
            | PodState::Resizing
            | PodState::Draining { .. }
            | PodState::Drained
            | PodState::NotDrained { .. }
            | PodState::Patched
            | PodState::Started
            | PodState::Updated
            | PodState::Unavailable
            | PodState::Renewed
            | PodState::Ineligible => None,
        }
    }

    /// Why it cannot be changed.
    pub fn blocked(&self) -> Option<BlockedReason> {
        match self.judgement.verdict {
            Verdict::Blocked(reason) => Some(reason),
            Verdict::UpToDate
            | Verdict::Metadata
            | Verdict::Resize
            | Verdict::InPlace
            | Verdict::Restart
            | Verdict::NextRestart
            | Verdict::Recreate => None,
        }
    }

    /// Whether its spec and metadata are as they are wished.
    pub fn is_updated(&self) -> bool {
        self.judgement.differences.is_content_equal()
            && self.blocked().is_none()
            && !self.is_to_be_recreated()
    }

    fn is_to_be_recreated(&self) -> bool {
        self.judgement.verdict == Verdict::Recreate
    }
}

/// Whether pods that cannot be changed for this reason are left as they are. What the API server refuses it may take
/// later, and it says nothing about the pod: that is waited for, whatever `policy.ineligible` says.
pub fn is_left_out(reason: BlockedReason, ineligible: Ineligible) -> bool {
    match ineligible {
        Ineligible::Ignore => reason != BlockedReason::AdmissionDenied,
        Ineligible::Block | Ineligible::Recreate => false,
    }
}

/// The counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Census {
    /// By where they stand.
    pub pods: PodCounts,
    /// By what is to be done.
    pub plan: PlanCounts,
    /// Those that failed, the oldest failures first.
    pub failures: Vec<PodFailure>,
    /// Available pods.
    pub available: u32,
    /// Pods that are changed in place or made anew, and have not been started.
    pub left: u32,
    /// Pods that are waited for as they are still to come in the place of those that were evicted.
    pub missing: u32,
    /// Pods that lost their readiness after they were in traffic again, of those that failed.
    pub readiness_lost: u32,
    /// Pods that restart too often, of those that failed.
    pub restarting: u32,
    /// Pods that failed as they do not leave traffic.
    pub drain_failed: u32,
    /// Pods that failed and are not as they are wished: nothing is done to them any more.
    pub failed_unchanged: u32,
}

impl Census {
    /// Counts them.
    pub fn of(members: &[Member]) -> Self {
        let mut census = Self::default();
        let mut reasons: BTreeMap<BlockedReason, u32> = BTreeMap::new();
        let mut failures = Vec::new();
        for member in members {
            let pods = &mut census.pods;
            pods.total += 1;
            census.available += u32::from(member.is_available);
            pods.updated += u32::from(member.is_updated());
            // One that is patched has its old container for a moment, which is ready all the while.
            pods.updated_ready +=
                u32::from(*member.state() == PodState::Updated && member.is_updated() && member.is_available);
            pods.in_flight += u32::from(member.state().is_in_flight());
            pods.next_restart_only += u32::from(member.awaits_restart);
            match member.state() {
                PodState::Draining { .. } | PodState::Drained => pods.draining += 1,
                PodState::Old | PodState::NotDrained { .. } => census.left += 1,
                PodState::Failed(failure) => {
                    pods.failed += 1;
                    census.failed_unchanged += u32::from(member.judgement.verdict != Verdict::UpToDate);
                    census.readiness_lost += u32::from(matches!(failure, Failure::ReadinessLost { .. }));
                    census.drain_failed += u32::from(matches!(failure, Failure::DrainTimedOut { .. }));
                    census.restarting += u32::from(matches!(failure, Failure::Restarts { .. }));
                    failures.push(pod_failure(member, failure));
                }
                PodState::Resizing
                | PodState::Patched
                | PodState::Started
                | PodState::Updated
                | PodState::Unavailable
                | PodState::Renewed
                | PodState::Ineligible => {}
            }
            if let Some(reason) = member.blocked() {
                pods.blocked += 1;
                *reasons.entry(reason).or_default() += 1;
            }
            *counter(&mut census.plan, member.judgement.verdict) += 1;
        }
        failures.sort_by(|(a, x), (b, y): &(Timestamp, PodFailure)| (a, &x.pod).cmp(&(b, &y.pod)));
        failures.truncate(FAILURES_MAX);
        census.failures = failures.into_iter().map(|(_, failure)| failure).collect();
        let mut reasons: Vec<BlockedPods> =
            reasons.into_iter().map(|(reason, count)| BlockedPods { reason, count }).collect();
        reasons.sort_by_key(|row| (std::cmp::Reverse(row.count), row.reason));
        census.plan.reasons = reasons;
        census
    }

    /// How many pods are left as they are; see [`is_left_out`].
    pub fn left_out(&self, ineligible: Ineligible) -> u32 {
        let rows = self.plan.reasons.iter().filter(|row| is_left_out(row.reason, ineligible));
        rows.map(|row| row.count).sum()
    }

    /// How far a run has come, for its steps. Pods that are left as they are are nobody's.
    pub fn progress(&self, replicas: u32, ineligible: Ineligible) -> Progress {
        let ignored = self.left_out(ineligible);
        let changing = self.left.saturating_add(self.pods.blocked);
        let taken = self.pods.total.saturating_add(self.missing).saturating_sub(changing);
        Progress {
            total: self.pods.total.max(replicas).saturating_sub(ignored),
            taken,
            // What was born as it is wished and is not ready yet has been changed by nobody: no step waits for it alone.
            settled: taken.saturating_sub(self.pods.in_flight).saturating_sub(self.missing),
            left: self.left,
        }
    }

    /// Whether no pod is left to be changed or made anew, and none is on its way.
    pub fn is_done(&self) -> bool {
        self.left == 0 && self.pods.in_flight == 0 && self.missing == 0 && self.failed_unchanged == 0
    }
}

/// The counter of a verdict.
fn counter(plan: &mut PlanCounts, verdict: Verdict) -> &mut u32 {
    match verdict {
        Verdict::UpToDate => &mut plan.up_to_date,
        Verdict::Metadata | Verdict::NextRestart => &mut plan.metadata,
        Verdict::Resize => &mut plan.resize,
        Verdict::InPlace => &mut plan.in_place,
        Verdict::Restart => &mut plan.restart,
        Verdict::Recreate => &mut plan.recreate,
        Verdict::Blocked(_) => &mut plan.blocked,
    }
}

fn pod_failure(member: &Member, failure: &Failure) -> (Timestamp, PodFailure) {
    let node = member.pod.node.as_deref().unwrap_or_default();
    let row = PodFailure {
        pod: bounded_text(&member.pod.meta().key.name, NAME_MAX_LENGTH),
        node: bounded_text(node, NAME_MAX_LENGTH),
        reason: bounded_text(failure.reason(), REASON_MAX_LENGTH),
        since_time: whole_seconds(failure.since()),
    };
    (failure.since(), row)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::differences::Differences;
    use crate::fixtures::{at, pod};
    use proptest::prelude::*;
    use serde_json::json;

    pub(crate) fn member(name: &str, verdict: Verdict, state: PodState) -> Member {
        let mut differences = Differences::default();
        match verdict {
            Verdict::UpToDate => {}
            Verdict::Metadata
            | Verdict::Resize
            | Verdict::InPlace
            | Verdict::Restart
            | Verdict::NextRestart
            | Verdict::Recreate
            | Verdict::Blocked(_) => differences.images.push("app".into()),
        }
        Member {
            pod: pod(name, json!({})),
            judgement: Judgement { verdict, differences, lever: None },
            is_available: matches!(state, PodState::Old | PodState::Updated | PodState::Ineligible),
            stand: Stand { state, wake: None },
            awaits_restart: false,
        }
    }

    #[test]
    fn each_pod_is_counted_by_what_is_to_be_done_and_by_where_it_stands() {
        let failed = |second| PodState::Failed(Failure::DeadlineExceeded { since: at(second) });
        let draining = PodState::Draining { waits_for: Vec::new() };
        let members = [
            member("a", Verdict::UpToDate, PodState::Updated),
            member("b", Verdict::UpToDate, PodState::Patched),
            member("c", Verdict::InPlace, PodState::Old),
            member("d", Verdict::InPlace, draining),
            member("e", Verdict::UpToDate, failed(20)),
            member("f", Verdict::UpToDate, failed(10)),
            member("g", Verdict::Blocked(BlockedReason::GateMissing), PodState::Ineligible),
        ];
        let census = Census::of(&members);
        let PodCounts { total, updated, updated_ready, in_flight, draining, failed, blocked, .. } =
            census.pods;
        assert_eq!(
            (total, updated, updated_ready, in_flight, draining, failed, blocked),
            (7, 4, 1, 2, 1, 2, 1)
        );
        assert_eq!((census.plan.in_place, census.plan.up_to_date, census.plan.blocked), (2, 4, 1));
        assert_eq!(census.plan.reasons, [BlockedPods { reason: BlockedReason::GateMissing, count: 1 }]);
        let names: Vec<_> = census.failures.iter().map(|failure| failure.pod.as_str()).collect();
        assert_eq!(names, ["f", "e"], "the oldest first");
        let progress = census.progress(8, Ineligible::Block);
        assert_eq!(progress, Progress { total: 8, taken: 5, settled: 3, left: 1 });
        assert_eq!(census.progress(0, Ineligible::Ignore).total, 6);
        assert!(!census.is_done());
    }

    #[test]
    fn pods_that_are_made_anew_are_left_until_they_are_evicted_and_on_their_way_until_they_are_available() {
        let members = [
            member("a", Verdict::Recreate, PodState::Old),
            member("b", Verdict::UpToDate, PodState::Renewed),
            member("c", Verdict::UpToDate, PodState::Updated),
        ];
        let census = Census::of(&members);
        assert_eq!((census.plan.recreate, census.left, census.pods.in_flight), (1, 1, 1));
        // One of four is evicted, and nothing has come in its place.
        let evicted = Census { missing: 1, ..census.clone() };
        let progress_of = |taken, settled| Progress { total: 4, taken, settled, left: 1 };
        assert_eq!(evicted.progress(4, Ineligible::Recreate), progress_of(3, 1));
        assert!(!census.is_done() && !Census::of(&members[1..]).is_done());
        let done = Census::of(&members[2..]);
        assert!(done.is_done() && !Census { missing: 1, ..done }.is_done());
    }

    #[test]
    fn pods_that_cannot_be_changed_are_left_out_where_that_is_said_but_not_what_admission_refuses() {
        let blocked = |name: &str, reason| member(name, Verdict::Blocked(reason), PodState::Ineligible);
        let members = [
            blocked("a", BlockedReason::StaticPod),
            blocked("b", BlockedReason::GateMissing),
            blocked("c", BlockedReason::AdmissionDenied),
        ];
        let census = Census::of(&members);
        let left_out = |ineligible| census.left_out(ineligible);
        assert_eq!([Ineligible::Ignore, Ineligible::Block, Ineligible::Recreate].map(left_out), [2, 0, 0]);
        assert_eq!(census.progress(3, Ineligible::Ignore).total, 1);
    }

    #[test]
    fn a_patched_pod_counts_as_ready_only_once_its_kubelet_has_acted() {
        let mut patched = member("a", Verdict::UpToDate, PodState::Patched);
        patched.is_available = true;
        let updated = member("b", Verdict::UpToDate, PodState::Updated);
        let pods = Census::of(&[patched, updated]).pods;
        assert_eq!((pods.updated, pods.updated_ready, pods.in_flight), (2, 1, 1));
    }

    #[test]
    fn a_status_names_the_oldest_failures_and_counts_all() {
        let failed = PodState::Failed(Failure::DeadlineExceeded { since: at(0) });
        let members: Vec<_> = (0..30)
            .map(|number| member(&format!("p{number:02}"), Verdict::UpToDate, failed.clone()))
            .collect();
        let census = Census::of(&members);
        assert_eq!((census.failures.len(), census.pods.failed), (FAILURES_MAX, 30));
        assert_eq!(census.failures[0].pod, "p00");
    }

    proptest! {
        #[test]
        fn no_pod_is_counted_twice(states in proptest::collection::vec(0..6usize, 0..50)) {
            let members: Vec<_> = states.iter().map(|state| match state {
                0 => member("p", Verdict::InPlace, PodState::Old),
                1 => member("p", Verdict::InPlace, PodState::Drained),
                2 => member("p", Verdict::UpToDate, PodState::Updated),
                3 => member("p", Verdict::UpToDate, PodState::Unavailable),
                4 => member("p", Verdict::Recreate, PodState::Old),
                _ => member("p", Verdict::Blocked(BlockedReason::StaticPod), PodState::Ineligible),
            }).collect();
            let census = Census::of(&members);
            let plan = &census.plan;
            let judged = plan.up_to_date + plan.metadata + plan.resize + plan.in_place + plan.restart
                + plan.recreate + plan.blocked;
            prop_assert_eq!(judged, census.pods.total);
            let progress = census.progress(0, Ineligible::Block);
            prop_assert!(progress.settled <= progress.taken && progress.taken + progress.left <= progress.total);
        }
    }
}
