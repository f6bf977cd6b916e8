//! The goals of the specification that this bench measures.

use springtide_e2e::bench::counted::Count;
use springtide_e2e::bench::report::Goal;

use super::{AFTER, Measured, WAYS};
use crate::conflicts::Conflicts;
use crate::crashes::Crashes;
use crate::downtime::{Downtime, Downtimes, GRACE_USED, ROUNDS};
use crate::names::Names;
use crate::random::Random;
use crate::throughput::{BUDGET, Upgraded};
use crate::writes::Writes;

/// Beyond the grace that a container uses, in seconds.
const DOWNTIME: f64 = 1.5;
/// What ten thousand pods may take, with a gate and without.
const GATED_SECONDS: f64 = 220.0;
const PLAIN_SECONDS: f64 = 74.0;

/// One goal a figure, in the order of their identifiers.
pub(super) fn of(measured: &Measured) -> Vec<Goal> {
    let Measured { gated, plain, conflicts, rest, many, writes, .. } = measured;
    let Measured { downtimes, requests, names, crashes, random, .. } = measured;
    let both = [("gated", "with a gate", gated), ("plain", "without a gate", plain)];
    let timed: Vec<(&str, &str, &Upgraded)> =
        both.into_iter().filter_map(|(id, which, upgraded)| Some((id, which, upgraded.as_ref()?))).collect();
    let mut goals = Vec::new();
    goals.extend(writes.iter().flatten().map(written));
    goals.extend(conflicts.iter().map(refused));
    goals.extend(timed.iter().flat_map(|(id, which, upgraded)| upgrade(id, which, upgraded)));
    goals.extend(timed.iter().flat_map(|(id, which, upgraded)| kept(id, which, upgraded)));
    goals.extend(downtimes.iter().map(volumes));
    goals.extend(names.iter().map(named));
    goals.extend(crashes.iter().map(crashed));
    goals.extend(random.iter().map(replaced));
    goals.extend(downtimes.iter().flat_map(out));
    goals.extend(requests.iter().flat_map(|compared| compared.goals("I8", WAYS)));
    goals.extend(rest.iter().flat_map(|rest| rest.goals("I9", AFTER)));
    goals.extend(many.iter().map(|many| many.goal("I9")));
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

fn upgrade(id: &str, which: &str, upgraded: &Upgraded) -> [Goal; 2] {
    let (pods, share) = (upgraded.pods, upgraded.share_of_budget());
    let took = format!("{pods} pods {which}, all at once, until the last serves its new image");
    let share_of = format!("writes on {pods} pods {which} a second, as a share of the budget of {BUDGET}");
    let seconds = if upgraded.writes > 1 { GATED_SECONDS } else { PLAIN_SECONDS };
    let bound = seconds * pods as f64 / 10_000.0;
    [
        Goal::at_most(&format!("I3-{id}-seconds"), &took, upgraded.seconds, "s", bound),
        Goal::at_least(&format!("I3-{id}-share-of-budget"), &share_of, share, "ratio", 0.9),
    ]
}

fn kept(id: &str, which: &str, upgraded: &Upgraded) -> [Goal; 2] {
    let Upgraded { pods, same, other_sets, .. } = upgraded;
    let identity = format!("of {pods} pods {which} those that keep UID, address and node");
    let sets = format!("ReplicaSets that have pods {which} after it, beside the one of before");
    [
        Goal::at_least(&format!("I4-{id}-pods"), &identity, share(*same, *pods), "%", 100.0),
        Goal::at_most(&format!("I4-{id}-replica-sets"), &sets, *other_sets as f64, "ReplicaSets", 0.0),
    ]
}

fn volumes(Downtimes { gated, plain }: &Downtimes) -> Goal {
    let (pods, volumes) = (gated.pods + plain.pods, gated.volumes + plain.volumes);
    let what = format!("of {pods} pods of a real node those whose volume has kept {ROUNDS} upgrades");
    Goal::at_least("I4-volumes", &what, share(volumes, pods), "%", 100.0)
}

/// A part of all, in percent; NaN of none.
fn share(part: usize, all: usize) -> f64 {
    if all == 0 { f64::NAN } else { 100.0 * part as f64 / all as f64 }
}

fn named(Names { ends }: &Names) -> Goal {
    let what =
        format!("tests of U11 and U12 on a real node, of {}, that do not come to their end", ends.tries);
    Goal::at_most("I5-names", &what, ends.violations as f64, "tests", 0.0)
}

fn crashed(Crashes { ends }: &Crashes) -> Goal {
    let what = format!("upgrades that end otherwise, of {} whose manager is killed at a write", ends.tries);
    Goal::at_most("I5-crashes", &what, ends.violations as f64, "upgrades", 0.0)
}

fn replaced(Random { replacements }: &Random) -> Goal {
    let Count { tries, starts, violations, what: _ } = replacements;
    let what = format!(
        "ReplicaSets made and pods ended by native controllers, or upgrades that end otherwise, in {tries} at random beside \
         {starts} disturbances"
    );
    Goal::at_most("I6-replacements", &what, *violations as f64, "times", 0.0)
}

fn out(Downtimes { gated, plain }: &Downtimes) -> [Goal; 2] {
    let goal = |id, which: &str, downtime: &Downtime| {
        let what = format!("Ready False to True of a pod {which}, images on the node, the longest");
        let longest = downtime.out.last().copied().unwrap_or(f64::NAN);
        Goal::at_most(id, &what, longest, "s", GRACE_USED + DOWNTIME)
    };
    [goal("I7-gated", "with a gate", gated), goal("I7-plain", "without a gate", plain)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    use crate::conflicts::tests::conflicts;
    use crate::crashes::tests::crashes;
    use crate::random::tests::random;
    use crate::report::page::tests::measured;
    use crate::throughput::tests::upgraded;

    fn met(goals: impl IntoIterator<Item = Goal>) -> Vec<bool> {
        goals.into_iter().map(|goal| goal.is_met()).collect()
    }

    #[test]
    fn each_row_has_its_goals_in_the_order_of_the_specification() {
        let goals = of(&measured());
        let rows: Vec<&str> = goals.iter().filter_map(|goal| goal.id().split('-').next()).collect();
        assert!(rows.is_sorted(), "{rows:?}");
        for row in ["I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8", "I9"] {
            assert!(rows.contains(&row), "{row}: {rows:?}");
        }
        let ids: BTreeSet<&str> = goals.iter().map(Goal::id).collect();
        assert_eq!(ids.len(), goals.len(), "no two have the same identifier");
        assert!(of(&Measured::default()).is_empty());
    }

    #[test]
    fn each_bound_is_that_of_the_specification() {
        let of_upgrade = |writes, seconds| met(upgrade("gated", "with a gate", &upgraded(writes, seconds)));
        assert_eq!((of_upgrade(3, 220.0), of_upgrade(3, 222.3)), (vec![true; 2], vec![false; 2]));
        // Nine tenths of the budget are reached in 74.07 s.
        assert_eq!((of_upgrade(1, 73.0), of_upgrade(1, 74.1)), (vec![true; 2], vec![false; 2]));
        let of_share = |count| refused(&Conflicts { writes: 10_000, refused: count, ..conflicts() }).is_met();
        assert!(of_share(99) && !of_share(100), "less than one in a hundred");
        assert!(crashed(&crashes(0)).is_met() && !crashed(&crashes(1)).is_met());
        assert!(replaced(&random(0)).is_met() && !replaced(&random(1)).is_met());
    }

    #[test]
    fn one_pod_or_volume_or_replica_set_that_is_another_misses() {
        let of = |same, other_sets| {
            met(kept("gated", "with a gate", &Upgraded { same, other_sets, ..upgraded(3, 200.0) }))
        };
        assert_eq!((of(10_000, 0), of(9_999, 1)), (vec![true; 2], vec![false; 2]));
        let mut downtimes = measured().downtimes.unwrap();
        assert!(volumes(&downtimes).is_met());
        downtimes.plain.volumes -= 1;
        assert!(!volumes(&downtimes).is_met());
    }
}
