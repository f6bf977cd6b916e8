//! The goals of the specification that this bench measures.

use springtide_e2e::bench::report::{Goal, quantile};

use super::{AFTER, Measured, WAYS};
use crate::faults::{COUNTED, Faults};
use crate::preflight::Asked;
use crate::starts::Starts;
use crate::switched::{BEYOND, BUDGET, Switched};
use crate::unit::{RETRY, Units};
use crate::writes::{PODS, ROUTES, Writes};

/// What a write of another class may wait for the budget beside dry runs, in milliseconds: a turn of its own task.
const WAIT: f64 = 5.0;
/// Members of a group of which writes are counted.
const MEMBERS: f64 = 2.0;

/// One goal a figure, in the order of their identifiers.
pub(super) fn of(measured: &Measured) -> Vec<Goal> {
    let Measured { label, gate, preflight, rest, many, writes, .. } = measured;
    let Measured { unit, requests, faults, starts, .. } = measured;
    let mut goals = Vec::new();
    goals.extend(writes.iter().flatten().flat_map(written));
    goals.extend(label.iter().flat_map(|switched| switch("T2-label", "label", switched)));
    goals.extend(gate.iter().flat_map(|switched| switch("T2-gate", "gate", switched)));
    goals.extend(unit.iter().flat_map(one_unit));
    goals.extend(faults.iter().flat_map(counted));
    goals.extend(preflight.iter().flat_map(asked));
    goals.extend(starts.iter().map(late));
    goals.extend(rest.iter().flat_map(|rest| rest.goals("T8", AFTER)));
    goals.extend(many.iter().map(|many| many.goal("T8")));
    goals.extend(requests.iter().flat_map(|compared| compared.goals("T9", WAYS)));
    goals
}

fn written(row: &Writes) -> Vec<Goal> {
    let Writes { what, id, own, due, routes, nudges, .. } = row;
    let a_pod = format!("writes of the manager a pod that is switched, traffic by {what}");
    let nudged = 100.0 * f64::from(*nudges) / (PODS / 2) as f64;
    let mut goals = vec![
        Goal::at_most(&format!("T1-{id}"), &a_pod, *own, "writes/pod", *due as f64),
        Goal::at_most(&format!("T1-{id}-nudges"), "nudges, as a share of its units", nudged, "%", 1.0),
    ];
    if id == ROUTES {
        let what = "writes on routes, for the backend of each of two members in the one step";
        let each = *routes as f64 / MEMBERS;
        goals.push(Goal::at_most(&format!("T1-{id}-routes"), what, each, "writes", 1.0));
    }
    goals
}

fn switch(id: &str, which: &str, switched: &Switched) -> Vec<Goal> {
    let units = switched.units;
    let what =
        format!("{units} units by the {which}, {BUDGET} writes/s, until the last pod serves at its peak");
    // 67 s and 15 s of five thousand units.
    let bound = switched.due().ceil() + BEYOND;
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

fn counted(Faults { counts }: &Faults) -> Vec<Goal> {
    let both = COUNTED.iter().zip(counts);
    both.map(|(counted, count)| {
        let what = format!("{}, in {} tries", counted.text, count.tries);
        Goal::at_most(counted.id, &what, count.violations as f64, "times", 0.0)
    })
    .collect()
}

fn late(Starts { late }: &Starts) -> Goal {
    let what = format!(
        "switches that began more than a second after window - lead, of {}, each with a change of leader before",
        late.tries
    );
    Goal::at_most("T7-starts", &what, late.violations as f64, "switches", 0.0)
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    use crate::faults::tests::faults;
    use crate::preflight::tests::asked as asked_ahead;
    use crate::report::page::tests::measured;
    use crate::starts::tests::starts;
    use crate::switched::tests::switched;
    use crate::unit::tests::units;

    fn met(goals: impl IntoIterator<Item = Goal>) -> Vec<bool> {
        goals.into_iter().map(|goal| goal.is_met()).collect()
    }

    fn all_met(goals: impl IntoIterator<Item = Goal>) -> bool {
        met(goals).iter().all(|met| *met)
    }

    #[test]
    fn each_row_has_its_goals_in_the_order_of_the_specification() {
        let goals = of(&measured());
        let rows: Vec<&str> = goals.iter().filter_map(|goal| goal.id().split('-').next()).collect();
        assert!(rows.is_sorted(), "{rows:?}");
        for row in ["T1", "T2", "T3", "T4", "T5", "T6", "T7", "T8", "T9"] {
            assert!(rows.contains(&row), "{row}: {rows:?}");
        }
        let ids: BTreeSet<&str> = goals.iter().map(Goal::id).collect();
        assert_eq!(ids.len(), goals.len(), "no two have the same identifier");
        assert!(of(&Measured::default()).is_empty());
    }

    #[test]
    fn each_bound_is_that_of_the_specification() {
        // 20 000 writes by 300 a second, and 15 s.
        assert!(all_met(switch("T2", "label", &switched(82.0))));
        assert!(!all_met(switch("T2", "label", &switched(82.1))));
        let slow = Switched { scaled: None, ..switched(300.0) };
        assert_eq!(met(switch("T2", "gate", &slow)), [false]);
        assert!(all_met(one_unit(&units(1.9))));
        assert_eq!(met(one_unit(&units(181.0))), [true, false, false]);
        assert!(all_met(counted(&faults(0))));
        assert_eq!(met(counted(&faults(1))).iter().filter(|met| !**met).count(), 1);
        assert!(late(&starts(0)).is_met() && !late(&starts(1)).is_met());
    }

    #[test]
    fn writes_on_routes_are_bounded_too() {
        let rows = measured().writes.unwrap();
        let route = rows.into_iter().find(|row| row.id == ROUTES).unwrap();
        assert_eq!(met(written(&route)), [true; 3]);
        assert_eq!(met(written(&Writes { own: 1.1, nudges: 2, routes: 3, ..route })), [false; 3]);
    }

    #[test]
    fn a_preflight_that_misses_a_unit_or_changes_a_pod_is_missed() {
        assert!(all_met(asked(&asked_ahead())));
        let missed = |asked_for: Asked| met(asked(&asked_for)).into_iter().filter(|met| !met).count();
        assert_eq!(missed(Asked { named: 49, ..asked_ahead() }), 1);
        assert_eq!(missed(Asked { changed: 1, refused: 1.0, ..asked_ahead() }), 2);
        assert_eq!(missed(Asked { waited_beside: 0.006, ..asked_ahead() }), 1);
        assert_eq!(
            missed(Asked { named: 0, skipped: 0, ..asked_ahead() }),
            1,
            "nothing was there to be named"
        );
    }
}
