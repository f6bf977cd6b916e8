//! The goals of the specification that this bench measures.

use springtide_e2e::bench::at_rest::{Large, Rest};
use springtide_e2e::bench::report::{Goal, quantile};

use super::Measured;
use crate::faults::{COUNTED, Faults};
use crate::preflight::Asked;
use crate::requests::Compared;
use crate::switched::{BEYOND, BUDGET, Switched};
use crate::unit::{RETRY, Units};
use crate::writes::{PODS, Writes};

/// What a write of another class may wait for the budget beside dry runs, in milliseconds: a turn of its own task.
const WAIT: f64 = 5.0;

/// One goal a figure, in the order of their identifiers.
pub(super) fn of(measured: &Measured) -> Vec<Goal> {
    let Measured { label, gate, preflight, rest, many, writes, unit, requests, faults, log: _ } = measured;
    let mut goals = Vec::new();
    goals.extend(writes.iter().flatten().flat_map(written));
    goals.extend(label.iter().flat_map(|switched| switch("T2-label", "label", switched)));
    goals.extend(gate.iter().flat_map(|switched| switch("T2-gate", "gate", switched)));
    goals.extend(unit.iter().flat_map(one_unit));
    goals.extend(faults.iter().flat_map(|faults| counted(faults, &["T4", "T5"])));
    goals.extend(preflight.iter().flat_map(asked));
    goals.extend(faults.iter().flat_map(|faults| counted(faults, &["T7"])));
    goals.extend(rest.iter().flat_map(at_rest));
    goals.extend(many.iter().map(beside_many));
    goals.extend(requests.iter().flat_map(lost));
    goals
}

fn written(row: &Writes) -> [Goal; 2] {
    let what = format!("writes of the manager a pod that is switched, traffic by {}", row.what);
    let nudged = 100.0 * f64::from(row.nudges) / (PODS / 2) as f64;
    [
        Goal::at_most(&format!("T1-{}", row.id), &what, row.own, "writes/pod", row.due as f64),
        Goal::at_most(&format!("T1-{}-nudges", row.id), "nudges, as a share of its units", nudged, "%", 1.0),
    ]
}

fn switch(id: &str, which: &str, switched: &Switched) -> Vec<Goal> {
    let units = switched.units;
    let what =
        format!("{units} units by the {which}, {BUDGET} writes/s, until the last pod serves at its peak");
    let bound = (switched.due() + BEYOND).floor();
    let mut goals = vec![Goal::at_most(&format!("{id}-seconds"), &what, switched.seconds, "s", bound)];
    if let Some(scaled) = &switched.scaled {
        let what = format!("of the time in which a scaler moves {} replicas", scaled.replicas);
        let share = 100.0 * switched.seconds / scaled.seconds;
        goals.push(Goal::below(&format!("{id}-scaler"), &what, share, "%", 100.0));
    }
    goals
}

fn one_unit(Units { switched, nudges: _, by_hand: _ }: &Units) -> [Goal; 3] {
    let [p50, p99] = [0.5, 0.99].map(|q| quantile(switched, q));
    let what = |part: &str| {
        format!(
            "one unit on a real node, first resize to the other pod's peak in force, {part} of {}",
            switched.len()
        )
    };
    let waited = switched.iter().filter(|seconds| **seconds >= RETRY).count();
    [
        Goal::at_most("T3-p50", &what("p50"), p50, "s", 0.3),
        Goal::at_most("T3-p99", &what("p99"), p99, "s", 2.0),
        Goal::at_most(
            "T3-retries",
            "units that waited for the kubelet to look by the clock",
            waited as f64,
            "units",
            0.0,
        ),
    ]
}

fn counted(Faults { counts }: &Faults, rows: &[&str]) -> Vec<Goal> {
    let is_asked = |id: &str| rows.iter().any(|row| id.starts_with(row));
    let both = COUNTED.iter().zip(counts).filter(|(counted, _)| is_asked(counted.id));
    both.map(|(counted, count)| {
        let what = format!("{}, in {} tries", counted.text, count.tries);
        Goal::at_most(counted.id, &what, count.violations as f64, "times", 0.0)
    })
    .collect()
}

fn asked(asked: &Asked) -> [Goal; 5] {
    let Asked { units, dry_runs, changed, waited_beside, named, skipped, refused, .. } = asked;
    let share = if *skipped == 0 { f64::NAN } else { 100.0 * *named as f64 / *skipped as f64 };
    [
        Goal::at_least(
            "T6-named",
            &format!("units that did not come through and were named before, of {skipped}"),
            share,
            "%",
            100.0,
        ),
        Goal::at_most("T6-refused", "real resizes that the API server refused", *refused, "writes", 0.0),
        Goal::at_least(
            "T6-dry-runs",
            &format!("dry runs for {units} units"),
            *dry_runs,
            "requests",
            (2 * units) as f64,
        ),
        Goal::at_most("T6-stored", "changes of these pods meanwhile", *changed as f64, "changes", 0.0),
        Goal::at_most(
            "T6-delay",
            "wait for the budget of writes of other classes beside them, on average",
            1000.0 * waited_beside,
            "ms",
            WAIT,
        ),
    ]
}

fn at_rest(rest: &Rest) -> [Goal; 3] {
    let Rest { pods, resident_mib, minutes, writes, writes_of_fresh, .. } = rest;
    let memory = format!("manager RSS beside {pods} pods, after a switch of all");
    let quiet = format!("writes of the manager in {minutes} min in which nothing changes, {pods} pods");
    let anew = format!("writes of another manager that starts beside {pods} pods");
    [
        Goal::at_most("T8-rss", &memory, *resident_mib, "MiB", 150.0),
        Goal::at_most("T8-writes-at-rest", &quiet, *writes as f64, "writes", 0.0),
        Goal::at_most("T8-writes-at-start", &anew, *writes_of_fresh as f64, "writes", 0.0),
    ]
}

fn beside_many(many: &Large) -> Goal {
    let what = format!("manager RSS beside {} pods", many.pods);
    Goal::at_most("T8-rss-many", &what, many.resident_mib, "MiB", 500.0)
}

fn lost(Compared { drained, control }: &Compared) -> [Goal; 2] {
    let of = |which: &str, sent: u64| format!("requests lost {which}, of {sent} through a Service");
    [
        Goal::at_most(
            "T9-lost",
            &of("with proof, one unit after the other", drained.sent()),
            drained.lost() as f64,
            "requests",
            0.0,
        ),
        Goal::at_least(
            "T9-control",
            &of("where all pods leave at once, which shows that the clients see it", control.sent()),
            control.lost() as f64,
            "requests",
            1.0,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::tests::faults;
    use crate::preflight::tests::asked as asked_ahead;
    use crate::report::page::tests::measured;
    use crate::switched::tests::switched;
    use crate::unit::tests::units;

    /// Identifiers, and whether each goal is met.
    fn met(goals: impl IntoIterator<Item = Goal>) -> Vec<(String, bool)> {
        let read = |goal: Goal| {
            let json = serde_json::to_value(goal).unwrap();
            (json["id"].as_str().unwrap().to_owned(), json["met"] == true)
        };
        goals.into_iter().map(read).collect()
    }

    fn all_met(goals: impl IntoIterator<Item = Goal>) -> bool {
        met(goals).iter().all(|(_, met)| *met)
    }

    #[test]
    fn everything_that_was_measured_has_a_goal_in_the_order_of_the_specification() {
        let ids: Vec<String> = met(of(&measured())).into_iter().map(|(id, _)| id).collect();
        let rows: Vec<&str> = ids.iter().map(|id| id.split('-').next().unwrap()).collect();
        assert!(rows.is_sorted(), "{ids:?}");
        for row in ["T1", "T2", "T3", "T4", "T5", "T6", "T7", "T8", "T9"] {
            assert!(rows.contains(&row), "{row}: {ids:?}");
        }
        assert!(of(&Measured::default()).is_empty());
    }

    #[test]
    fn each_bound_is_that_of_the_specification() {
        // 20 000 writes by 300 a second, and 15 s.
        assert!(all_met(switch("T2", "label", &switched(81.0))));
        assert!(!all_met(switch("T2", "label", &switched(82.0))));
        let slow = Switched { scaled: None, ..switched(300.0) };
        assert_eq!(met(switch("T2", "gate", &slow)), [("T2-seconds".to_owned(), false)]);
        assert!(all_met(one_unit(&units(1.9))));
        let late: Vec<bool> = met(one_unit(&units(181.0))).into_iter().map(|(_, met)| met).collect();
        assert_eq!(late, [true, false, false]);
        assert!(all_met(counted(&faults(0), &["T4", "T5", "T7"])));
        assert_eq!(met(counted(&faults(1), &["T7"])), [("T7-starts".to_owned(), false)]);
    }

    #[test]
    fn a_preflight_that_misses_a_unit_or_changes_a_pod_is_missed() {
        assert!(all_met(asked(&asked_ahead())));
        let missed = |asked_for: Asked| met(asked(&asked_for)).into_iter().filter(|(_, met)| !met).count();
        assert_eq!(missed(Asked { named: 49, ..asked_ahead() }), 1);
        assert_eq!(missed(Asked { changed: 1, refused: 1.0, ..asked_ahead() }), 2);
        assert_eq!(missed(Asked { waited_beside: 0.006, ..asked_ahead() }), 1);
        assert_eq!(
            missed(Asked { named: 0, skipped: 0, ..asked_ahead() }),
            1,
            "nothing was there to be named"
        );
    }

    #[test]
    fn a_control_that_loses_nothing_misses() {
        let requests = measured().requests.unwrap();
        assert_eq!(met(lost(&requests)).iter().map(|(_, met)| *met).collect::<Vec<_>>(), [true, true]);
        let Compared { drained, .. } = requests;
        let control = measured().requests.unwrap().drained;
        assert_eq!(met(lost(&Compared { drained, control })).last().map(|(_, met)| *met), Some(false));
    }
}
