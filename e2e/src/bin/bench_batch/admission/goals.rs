//! The goals of the specification that the admission is measured by, and what Kueue needs.

use springtide_e2e::bench::report::Goal;

use super::raw::{self, Raw};
use super::{Measured, Part, Run};

/// What Kueue needs for the baseline on two such cores, by its own runner and without any pod: seconds until all have
/// finished, and the average wait of each class until it is admitted.
pub(super) const KUEUE_WALL: f64 = 370.0;
pub(super) const KUEUE_WAITS: [(&str, f64); 3] = [("large", 21.7), ("medium", 71.7), ("small", 213.0)];
/// The goals: seconds for the baseline, and how many times the raw time of Kueue's writes for the larger load.
const BASELINE_WALL: f64 = 200.0;
const LARGE_SCALE_TIMES: f64 = 1.3;

/// The goals that these figures are for.
pub(super) fn of(measured: &Measured) -> Vec<Goal> {
    let mut goals = Vec::new();
    for run in &measured.runs {
        match run.part {
            Part::Baseline => goals.extend(of_baseline(run)),
            Part::LargeScale => goals.extend(measured.raw.as_ref().map(|raw| of_large_scale(run, raw))),
            Part::Decision | Part::Shipped => {}
        }
    }
    goals.extend(measured.decision.iter().flat_map(crate::report::decisions));
    goals.into_iter().map(|goal| goal.explained(crate::report::REASONS)).collect()
}

fn of_baseline(run: &Run) -> Vec<Goal> {
    let what = format!("Kueue's baseline, {} workloads with their pods, {}", run.extent.jobs, run.flags);
    let mut goals = vec![Goal::at_most("G7-wall", &what, run.wall, "s", BASELINE_WALL)];
    for (name, bound) in KUEUE_WAITS {
        let wait = run.classes.iter().find(|class| class.name == name).map_or(f64::NAN, |class| class.wait);
        let what = format!("average wait of its class {name} until admission, to that in Kueue");
        goals.push(Goal::at_most(&format!("G7-wait-{name}"), &what, wait, "s", bound));
    }
    goals
}

fn of_large_scale(run: &Run, raw: &Raw) -> Goal {
    let floor = (raw::WRITES * run.extent.jobs) as f64 / raw.rate();
    let what = format!(
        "Kueue's large-scale load, {} workloads with their pods, {}: to the time of {} raw writes of custom resources",
        run.extent.jobs,
        run.flags,
        raw::WRITES * run.extent.jobs
    );
    Goal::at_most("G8-times-raw", &what, run.wall / floor, "ratio", LARGE_SCALE_TIMES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::tests::measured;

    #[test]
    fn each_row_has_its_goals_and_a_class_that_is_slower_than_in_kueue_misses_its_own() {
        let goals = of(&measured());
        let values: Vec<_> = goals.iter().map(|goal| serde_json::to_value(goal).unwrap()).collect();
        let met = |id: &str| values.iter().find(|goal| goal["id"] == id).map(|goal| goal["met"].clone());
        for (id, expected) in [
            ("G7-wall", true),
            ("G7-wait-large", true),
            ("G7-wait-medium", false),
            ("G7-wait-small", true),
            // 150 000 writes at 600 a second take 250 s.
            ("G8-times-raw", true),
            ("G9-equal", true),
            ("G9-distinct", false),
        ] {
            assert_eq!(met(id), Some(expected.into()), "{id}");
        }
        assert_eq!(values.len(), 7);
    }
}
