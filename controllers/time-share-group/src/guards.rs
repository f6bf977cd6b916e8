//! What ends a switch that goes wrong, and what keeps further units from beginning.

use crate::observed::{Guard, Observed};
use crate::plan::tally::Tally;
use crate::steps::Reach;
use crate::transition::Course;
use springtide_plumbing::metric_query::MetricVerdict;
use std::sync::Arc;

/// What the guards say of a switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guarding {
    /// Every bound is kept.
    Passing,
    /// A measured value is not known, and its gate waits for one: nothing begins. Its name.
    NoData(Arc<str>),
    /// Those that lose the peak are still busy: none of them begins to shrink.
    DonorBusy,
    /// The switch has gone wrong.
    Breached(Breach),
}

/// How a switch has gone wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Breach {
    /// More units are stuck or failed than are tolerated.
    TooManyFailures,
    /// A measured value is beyond its bound. Its name.
    MetricBreached(Arc<str>),
}

/// Judges the switch that is under way. One that leads back is not judged: what it goes back to is all that is left.
///
/// Failed units are held against those that are reached until now: of all units one canary in a hundred could fail as a
/// whole and be tolerated. Those that the API server has refused say nothing of what the others will be like, as they are
/// what they were; so these are held against all.
pub fn guards(observed: &Observed, course: &Course, reach: &Reach, tally: &Tally) -> Guarding {
    let is_judged = match course {
        Course::Open(heading) => !heading.is_return,
        Course::Fresh | Course::Ended(_) => false,
    };
    if !is_judged {
        return Guarding::Passing;
    }
    let threshold = u64::from(observed.group.spec.guards.failure_threshold_percent);
    let is_beyond =
        |failed: u32, of: u32| u64::from(failed).saturating_mul(100) > threshold.saturating_mul(of.into());
    let with_refused = tally.failed.saturating_add(tally.refused);
    if is_beyond(tally.failed, reach.quota) || is_beyond(with_refused, tally.counts.total) {
        return Guarding::Breached(Breach::TooManyFailures);
    }
    let metrics = &observed.metrics;
    if let Some(guard) = metrics.iter().find(|guard| is_breached(guard)) {
        return Guarding::Breached(Breach::MetricBreached(Arc::clone(&guard.name)));
    }
    if let Some(guard) = metrics.iter().chain(&observed.donor_load).find(|guard| is_unknown(guard)) {
        return Guarding::NoData(Arc::clone(&guard.name));
    }
    match &observed.donor_load {
        Some(load) if is_breached(load) => Guarding::DonorBusy,
        Some(_) | None => Guarding::Passing,
    }
}

fn is_breached(guard: &Guard) -> bool {
    match guard.verdict {
        MetricVerdict::Breached { .. } => true,
        MetricVerdict::Passing | MetricVerdict::Failing { .. } | MetricVerdict::NoData { .. } => false,
    }
}

fn is_unknown(guard: &Guard) -> bool {
    match guard.verdict {
        MetricVerdict::NoData { .. } => true,
        MetricVerdict::Passing | MetricVerdict::Failing { .. } | MetricVerdict::Breached { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::observed;
    use crate::observed::MemberIndex;
    use crate::units::Heading;
    use serde_json::json;
    use springtide_crds::time_share_group::UnitCounts;

    fn open(is_return: bool) -> Course {
        Course::Open(Heading { id: 7, from: Some(MemberIndex(0)), to: Some(MemberIndex(1)), is_return })
    }

    fn guard(name: &str, verdict: MetricVerdict) -> Guard {
        Guard { name: name.into(), verdict }
    }

    const BREACHED: MetricVerdict = MetricVerdict::Breached { failures: 3 };

    fn no_data() -> MetricVerdict {
        MetricVerdict::NoData { problem: "refused".into() }
    }

    fn judged(
        course: &Course,
        quota: u32,
        failed: u32,
        metrics: Vec<Guard>,
        load: Option<Guard>,
    ) -> Guarding {
        let mut observed = observed(json!({}), &[]);
        (observed.metrics, observed.donor_load) = (metrics, load);
        let reach = Reach { quota, ..Reach::default() };
        let counts = UnitCounts { total: 10_000, ..UnitCounts::default() };
        guards(&observed, course, &reach, &Tally { failed, counts, ..Tally::default() })
    }

    #[test]
    fn more_failed_units_than_are_tolerated_of_those_reached_are_a_breach() {
        let many = Guarding::Breached(Breach::TooManyFailures);
        for (quota, failed, expected) in [
            (100, 2, Guarding::Passing),
            (100, 3, many.clone()),
            (1, 1, many.clone()),
            (0, 0, Guarding::Passing),
            (0, 1, many.clone()),
            (10_000, 200, Guarding::Passing),
            (10_000, 201, many),
        ] {
            assert_eq!(judged(&open(false), quota, failed, vec![], None), expected, "{failed} of {quota}");
        }
    }

    #[test]
    fn units_that_are_refused_are_held_against_all() {
        let observed = observed(json!({}), &[]);
        let judged = |failed, refused| {
            let counts = UnitCounts { total: 100, ..UnitCounts::default() };
            let tally = Tally { failed, refused, counts, ..Tally::default() };
            guards(&observed, &open(false), &Reach { quota: 1, ..Reach::default() }, &tally)
        };
        assert_eq!(judged(0, 2), Guarding::Passing, "also where the canary is one of them");
        assert_eq!(judged(0, 3), Guarding::Breached(Breach::TooManyFailures));
        assert_eq!(judged(1, 0), Guarding::Breached(Breach::TooManyFailures));
    }

    #[test]
    fn a_measured_value_beyond_its_bound_goes_before_one_that_is_not_known() {
        let metrics = vec![guard("latency", no_data()), guard("errors", BREACHED)];
        let breached = Guarding::Breached(Breach::MetricBreached("errors".into()));
        assert_eq!(judged(&open(false), 100, 0, metrics, None), breached);
        let failing = guard("errors", MetricVerdict::Failing { failures: 1 });
        assert_eq!(judged(&open(false), 100, 0, vec![failing], None), Guarding::Passing);
        let unknown = vec![guard("errors", MetricVerdict::Passing), guard("latency", no_data())];
        assert_eq!(judged(&open(false), 100, 0, unknown, None), Guarding::NoData("latency".into()));
    }

    #[test]
    fn donors_that_are_busy_are_no_breach() {
        let load = |verdict| Some(guard("qps", verdict));
        assert_eq!(judged(&open(false), 100, 0, vec![], load(BREACHED)), Guarding::DonorBusy);
        assert_eq!(judged(&open(false), 100, 0, vec![], load(no_data())), Guarding::NoData("qps".into()));
        assert_eq!(judged(&open(false), 100, 0, vec![], load(MetricVerdict::Passing)), Guarding::Passing);
    }

    #[test]
    fn what_leads_back_and_what_has_ended_is_not_judged() {
        let Course::Open(heading) = open(false) else { panic!() };
        for course in [open(true), Course::Ended(heading), Course::Fresh] {
            let metrics = vec![guard("errors", BREACHED)];
            assert_eq!(judged(&course, 100, 50, metrics, None), Guarding::Passing, "{course:?}");
        }
    }
}
