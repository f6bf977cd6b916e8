//! Whether a run goes well.

use crate::census::Census;
use crate::message::count;
use springtide_crds::in_place_upgrade::{Health as HealthSpec, HealthyReason};

/// What a metric says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetricState {
    /// It is within its bound, or is not to be judged.
    Passing,
    /// It is beyond its bound, as often as that is a failure.
    Breached,
    /// It has no value, and that holds.
    NoData,
}

/// A metric of the spec, and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: String,
    /// What it says.
    pub state: MetricState,
}

/// A verdict over a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Reason of condition Healthy.
    pub reason: HealthyReason,
    /// For people.
    pub message: String,
}

impl Health {
    /// Whether every bound is kept.
    pub fn is_passing(&self) -> bool {
        !ends_run(self.reason)
    }
}

/// Whether a run that is found so goes no further, but back where `rollback.onFailure` is Auto.
///
/// That admission refuses the change says nothing about what runs: pods that are changed are well, those that are not
/// are what they were, and a rollback would be one more change for it to refuse. A policy that has come in mid-run, or a
/// webhook that is out of order for a while, must not undo healthy pods. So the run stands as it is, and goes on by
/// itself once it may.
pub fn ends_run(reason: HealthyReason) -> bool {
    match reason {
        HealthyReason::TooManyFailures
        | HealthyReason::TooManyRestarts
        | HealthyReason::ReadinessLost
        | HealthyReason::MetricBreached => true,
        HealthyReason::NotObserved | HealthyReason::GatesPassing | HealthyReason::AdmissionDenied => false,
    }
}

/// Judges a run by its pods and metrics.
pub fn health(census: &Census, spec: &HealthSpec, metrics: &[Metric]) -> Health {
    let failed = census.pods.failed;
    // Of few pods a part is none: the first that fails is one too many, as a canary's is to be.
    let most = spec.failure_threshold.round_down(census.pods.total);
    if failed > most {
        let first = census.failures.first();
        let example =
            first.map(|failure| format!(", first {}: {}", failure.pod, failure.reason)).unwrap_or_default();
        let (reason, bound) = if census.readiness_lost > most {
            (HealthyReason::ReadinessLost, "spec.health.failureThreshold")
        } else if census.restarting > most {
            (HealthyReason::TooManyRestarts, "spec.health.maxRestarts and failureThreshold")
        } else {
            (HealthyReason::TooManyFailures, "spec.health.failureThreshold")
        };
        let failed = count(failed, "pod");
        return Health {
            reason,
            message: format!("{failed} failed, of {most} that may by {bound}{example}"),
        };
    }
    if let Some(metric) = metrics.iter().find(|metric| metric.state == MetricState::Breached) {
        let message = format!("metric {} is beyond its bound in spec.health.metrics", metric.name);
        return Health { reason: HealthyReason::MetricBreached, message };
    }
    let message = match failed {
        0 => "every bound of spec.health is kept".to_owned(),
        failed => format!("{} failed, of {most} that may", count(failed, "pod")),
    };
    Health { reason: HealthyReason::GatesPassing, message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::census::tests::member;
    use crate::fixtures::at;
    use crate::machine::{Failure, PodState};
    use crate::verdict::Verdict;
    use springtide_crds::common::IntOrPercent;
    use springtide_crds::reason::Reason;

    fn census(failures: usize, lost: bool) -> Census {
        let since = at(0);
        let failed =
            if lost { Failure::ReadinessLost { since } } else { Failure::DeadlineExceeded { since } };
        let members: Vec<_> = (0..100)
            .map(|number| match number < failures {
                true => member("p", Verdict::UpToDate, PodState::Failed(failed.clone())),
                false => member("p", Verdict::UpToDate, PodState::Updated),
            })
            .collect();
        Census::of(&members)
    }

    fn reason(failures: usize, threshold: IntOrPercent) -> HealthyReason {
        let spec = HealthSpec { failure_threshold: threshold, ..HealthSpec::default() };
        health(&census(failures, false), &spec, &[]).reason
    }

    #[test]
    fn more_failed_pods_than_are_tolerated_fail_the_run() {
        assert_eq!(reason(2, IntOrPercent::Percent(2)), HealthyReason::GatesPassing);
        assert_eq!(reason(3, IntOrPercent::Percent(2)), HealthyReason::TooManyFailures);
        assert_eq!(reason(5, IntOrPercent::Int(5)), HealthyReason::GatesPassing);
        assert_eq!(reason(1, IntOrPercent::Percent(0)), HealthyReason::TooManyFailures);
        let canary =
            [member("p", Verdict::UpToDate, PodState::Failed(Failure::DeadlineExceeded { since: at(0) }))];
        let of_few = health(&Census::of(&canary), &HealthSpec::default(), &[]);
        assert_eq!(of_few.reason, HealthyReason::TooManyFailures, "2% of one pod is none");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let spec = HealthSpec::default();
        assert_eq!(health(&census(9, true), &spec, &[]).reason, HealthyReason::ReadinessLost);
        let metric = |state| Metric { name: "errors".to_owned(), state };
        let breached = health(&census(0, false), &spec, &[metric(MetricState::Breached)]);
        assert_eq!(breached.reason, HealthyReason::MetricBreached);
        assert!(breached.message.contains("errors") && !breached.is_passing());
        assert!(health(&census(0, false), &spec, &[metric(MetricState::NoData)]).is_passing());
    }

    #[test]
    fn what_admission_refuses_is_no_verdict_over_pods() {
        let ending: Vec<_> = HealthyReason::all().into_iter().filter(|reason| ends_run(*reason)).collect();
        assert!(!ending.contains(&HealthyReason::AdmissionDenied), "{ending:?}");
        assert_eq!(ending.len(), 4, "{ending:?}");
    }
}
