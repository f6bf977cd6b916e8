//! The goals of the specification that this bench measures.

use springtide_e2e::bench::at_rest::{Large, Rest};
use springtide_e2e::bench::report::Goal;

use super::Measured;
use crate::conflicts::Conflicts;
use crate::crashes::Crashes;
use crate::downtime::{Downtime, Downtimes, GRACE_USED};
use crate::requests::Compared;
use crate::throughput::{BUDGET, Upgraded};
use crate::writes::Writes;

/// Beyond the grace that a container uses, in seconds.
const DOWNTIME: f64 = 1.5;

/// One goal a figure, in the order of their identifiers.
pub(super) fn of(measured: &Measured) -> Vec<Goal> {
    let Measured { gated, plain, conflicts, rest, many, writes, downtimes, requests, crashes, log: _ } =
        measured;
    let mut goals = Vec::new();
    goals.extend(writes.iter().flatten().map(written));
    goals.extend(conflicts.iter().map(refused));
    goals.extend(gated.iter().flat_map(|upgraded| upgrade("I3-gated", "pods with a gate", upgraded, 220.0)));
    goals
        .extend(plain.iter().flat_map(|upgraded| upgrade("I3-plain", "pods without a gate", upgraded, 74.0)));
    goals.extend(crashes.iter().map(crashed));
    goals.extend(downtimes.iter().flat_map(out));
    goals.extend(requests.iter().flat_map(lost));
    goals.extend(rest.iter().flat_map(at_rest));
    goals.extend(many.iter().map(beside_many));
    goals
}

fn written(row: &Writes) -> Goal {
    let what = format!("writes of the manager a pod: {}", row.what);
    Goal::at_most(&format!("I1-{}", row.id), &what, row.own, "writes/pod", row.due as f64)
}

fn refused(conflicts: &Conflicts) -> Goal {
    let what = format!(
        "of the manager's writes on {} pods, refused by a conflict beside one who writes their statuses",
        conflicts.pods
    );
    Goal::below("I2-conflicts", &what, 100.0 * conflicts.share(), "%", 1.0)
}

fn upgrade(id: &str, which: &str, upgraded: &Upgraded, seconds: f64) -> [Goal; 2] {
    let (pods, share) = (upgraded.pods, upgraded.share_of_budget());
    let took = format!("{pods} {which}, all at once, until the last serves its new image");
    let share_of = format!("writes on {pods} {which} a second, as a share of the budget of {BUDGET}");
    [
        Goal::at_most(&format!("{id}-seconds"), &took, upgraded.seconds, "s", seconds),
        Goal::at_least(&format!("{id}-share-of-budget"), &share_of, share, "ratio", 0.9),
    ]
}

fn crashed(Crashes { ends }: &Crashes) -> Goal {
    let what = format!("upgrades that end otherwise, of {} whose manager is killed at a write", ends.tries);
    Goal::at_most("I5-crashes", &what, ends.violations as f64, "upgrades", 0.0)
}

fn out(Downtimes { gated, plain }: &Downtimes) -> [Goal; 2] {
    let goal = |id, which: &str, downtime: &Downtime| {
        let what = format!("Ready False to True of a pod {which}, images on the node, the longest");
        let longest = downtime.out.last().copied().unwrap_or(f64::NAN);
        Goal::at_most(id, &what, longest, "s", GRACE_USED + DOWNTIME)
    };
    [goal("I7-gated", "with a gate", gated), goal("I7-plain", "without a gate", plain)]
}

fn lost(Compared { drained, control }: &Compared) -> [Goal; 2] {
    let of = |which: &str, sent: u64| format!("requests lost {which}, of {sent} through a Service");
    [
        Goal::at_most(
            "I8-lost",
            &of("with gate and proof", drained.sent()),
            drained.lost() as f64,
            "requests",
            0.0,
        ),
        Goal::at_least(
            "I8-control",
            &of("without a drain, which shows that the clients see it", control.sent()),
            control.lost() as f64,
            "requests",
            1.0,
        ),
    ]
}

fn at_rest(rest: &Rest) -> [Goal; 3] {
    let Rest { pods, resident_mib, minutes, writes, writes_of_fresh, .. } = rest;
    let memory = format!("manager RSS beside {pods} pods, after an upgrade of all");
    let quiet = format!("writes of the manager in {minutes} min in which nothing changes, {pods} pods");
    let anew = format!("writes of another manager that starts beside {pods} pods");
    [
        Goal::at_most("I9-rss", &memory, *resident_mib, "MiB", 150.0),
        Goal::at_most("I9-writes-at-rest", &quiet, *writes as f64, "writes", 0.0),
        Goal::at_most("I9-writes-at-start", &anew, *writes_of_fresh as f64, "writes", 0.0),
    ]
}

fn beside_many(many: &Large) -> Goal {
    let what = format!("manager RSS beside {} pods", many.pods);
    Goal::at_most("I9-rss-many", &what, many.resident_mib, "MiB", 500.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conflicts::tests::conflicts;
    use crate::crashes::tests::crashes;
    use crate::report::page::tests::measured;
    use crate::throughput::tests::upgraded;

    /// Identifiers, and whether each goal is met.
    fn met(goals: impl IntoIterator<Item = Goal>) -> Vec<(String, bool)> {
        let read = |goal: Goal| {
            let json = serde_json::to_value(goal).unwrap();
            (json["id"].as_str().unwrap().to_owned(), json["met"] == true)
        };
        goals.into_iter().map(read).collect()
    }

    #[test]
    fn everything_that_was_measured_has_a_goal_in_the_order_of_the_specification() {
        let ids: Vec<String> = met(of(&measured())).into_iter().map(|(id, _)| id).collect();
        let rows: Vec<&str> = ids.iter().map(|id| id.split('-').next().unwrap()).collect();
        assert!(rows.is_sorted(), "{ids:?}");
        for row in ["I1", "I2", "I3", "I5", "I7", "I8", "I9"] {
            assert!(rows.contains(&row), "{row}: {ids:?}");
        }
        assert!(of(&Measured::default()).is_empty());
    }

    #[test]
    fn each_bound_is_that_of_the_specification() {
        let of_upgrade = |seconds| met(upgrade("I3", "pods", &upgraded(3, seconds), 220.0));
        assert!(of_upgrade(220.0).iter().all(|(_, met)| *met));
        assert!(of_upgrade(223.0).iter().all(|(_, met)| !*met));
        let of_share =
            |count| met([refused(&Conflicts { writes: 10_000, refused: count, ..conflicts() })])[0].1;
        assert!(of_share(99) && !of_share(100), "less than one in a hundred");
        assert!(met([crashed(&crashes(0))])[0].1 && !met([crashed(&crashes(1))])[0].1);
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
