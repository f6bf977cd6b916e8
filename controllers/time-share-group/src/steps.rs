//! How many of a transition's units are reached by now.

use jiff::SignedDuration;
use springtide_crds::time_share_group::{Step, TimeShareGroupSpec, Transition};

/// How far a transition has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// So many units are reached, in their order.
    pub quota: u32,
    /// Number of the step, from 1.
    pub step: u32,
    /// How many steps there are.
    pub of: u32,
    /// Percent of the units that are reached.
    pub percent: u32,
    /// Percent of the units that were reached by the step before; 0 in the first one.
    pub percent_before: u32,
    /// Whether no unit is left for a further step.
    pub is_last: bool,
    /// How long the next step waits when this one is over.
    pub hold: Option<SignedDuration>,
}

impl Reach {
    /// Whether a unit is reached. One that has begun is, wherever it stands: when pods come and go the number of units
    /// changes, and nobody is left half-way.
    pub fn has(&self, rank: u32, is_begun: bool) -> bool {
        is_begun || rank < self.quota
    }
}

/// How far a transition of so many units has come by its stored step. One that `is_whole` has one step alone, and all
/// units are reached: it has ended, or leads back.
pub fn reach(spec: &TimeShareGroupSpec, transition: &Transition, total: u32, is_whole: bool) -> Reach {
    if is_whole {
        return Reach {
            quota: total,
            step: transition.step,
            of: number(&spec.switch.steps),
            percent: 100,
            percent_before: 0,
            is_last: true,
            hold: None,
        };
    }
    let steps = &spec.switch.steps;
    let of = number(steps);
    let step = transition.step.clamp(1, of);
    let percent = percent(steps, step);
    let quota = quota(percent, total);
    let is_last = quota >= total;
    let seconds = at(steps, step).map_or(0, |step| step.hold_seconds);
    Reach {
        quota,
        step,
        of,
        percent,
        percent_before: if step > 1 { self::percent(steps, step - 1) } else { 0 },
        is_last,
        hold: (seconds > 0 && !is_last).then(|| SignedDuration::from_secs(seconds.into())),
    }
}

/// The step after this one: the first that reaches further units, so that nothing is held for none.
pub fn next_step(spec: &TimeShareGroupSpec, reach: &Reach, total: u32) -> u32 {
    let steps = &spec.switch.steps;
    let of = number(steps);
    let further =
        (reach.step.saturating_add(1)..=of).find(|step| quota(percent(steps, *step), total) > reach.quota);
    further.unwrap_or(of)
}

/// All holds of the steps before this one: so much later than otherwise a switch is late.
pub fn holds_before(spec: &TimeShareGroupSpec, step: u32) -> SignedDuration {
    let before = usize::try_from(step.saturating_sub(1)).unwrap_or(usize::MAX);
    let seconds = spec.switch.steps.iter().take(before).map(|step| i64::from(step.hold_seconds));
    SignedDuration::from_secs(seconds.sum())
}

/// At least 1: no steps at all are one of all units.
fn number(steps: &[Step]) -> u32 {
    u32::try_from(steps.len()).unwrap_or(u32::MAX).max(1)
}

/// The last step is of all units, whatever it says: else the switch would never end.
fn percent(steps: &[Step], step: u32) -> u32 {
    if step >= number(steps) { 100 } else { at(steps, step).map_or(100, |step| step.percent.min(100)) }
}

/// So many percent of all, rounded up.
fn quota(percent: u32, total: u32) -> u32 {
    let units = u64::from(percent).saturating_mul(total.into()).div_ceil(100);
    u32::try_from(units).unwrap_or(u32::MAX).min(total)
}

fn at(steps: &[Step], step: u32) -> Option<&Step> {
    steps.get(usize::try_from(step).ok()?.checked_sub(1)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{at as instant, group};
    use crate::transition::transition;
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use springtide_crds::time_share_group::TransitionCause;

    fn spec(steps: &Value) -> TimeShareGroupSpec {
        group(json!({"spec": {"switch": {"steps": steps}}})).spec.clone()
    }

    /// 1 % and 10 % with a hold of a minute, and all.
    fn canary() -> TimeShareGroupSpec {
        spec(
            &json!([{"percent": 1, "holdSeconds": 60}, {"percent": 10, "holdSeconds": 30}, {"percent": 100}]),
        )
    }

    fn in_step(step: u32) -> Transition {
        Transition { step, ..transition(7, None, Some("pay"), TransitionCause::Window, instant(0)) }
    }

    #[test]
    fn a_step_reaches_so_many_percent_of_the_units_rounded_up() {
        let spec = canary();
        for (step, total, quota, is_last, hold) in [
            (1, 5000, 50, false, Some(60)),
            (2, 5000, 500, false, Some(30)),
            (3, 5000, 5000, true, None),
            (1, 101, 2, false, Some(60)),
            // A canary that is all there is: nobody waits for what does not come.
            (1, 1, 1, true, None),
            (1, 0, 0, true, None),
            // Steps that were taken out of the spec since.
            (9, 5000, 5000, true, None),
            (0, 5000, 50, false, Some(60)),
        ] {
            let found = reach(&spec, &in_step(step), total, false);
            let hold = hold.map(SignedDuration::from_secs);
            assert_eq!((found.quota, found.is_last, found.hold), (quota, is_last, hold), "{step} {total}");
        }
    }

    #[test]
    fn what_has_ended_and_what_leads_back_has_no_steps() {
        let found = reach(&canary(), &in_step(1), 5000, true);
        assert_eq!((found.quota, found.is_last, found.hold, found.percent), (5000, true, None, 100));
    }

    #[test]
    fn units_that_have_begun_stay_reached_when_the_number_of_units_falls() {
        let found = reach(&canary(), &in_step(1), 300, false);
        assert_eq!(found.quota, 3);
        assert!(found.has(2, false) && !found.has(3, false) && found.has(3, true));
    }

    #[test]
    fn a_step_that_adds_no_unit_is_passed_over() {
        let spec = canary();
        let after = |step, total| {
            let reach = reach(&spec, &in_step(step), total, false);
            next_step(&spec, &reach, total)
        };
        assert_eq!((after(1, 5000), after(2, 5000)), (2, 3));
        assert_eq!(after(1, 10), 3, "10 % of ten are one, as 1 % are");
        assert_eq!(after(3, 5000), 3);
    }

    #[test]
    fn the_percentages_of_a_step_and_of_the_one_before_are_told() {
        let spec = canary();
        let percent = |step| {
            let reach = reach(&spec, &in_step(step), 5000, false);
            (reach.percent_before, reach.percent)
        };
        assert_eq!([percent(1), percent(2), percent(3)], [(0, 1), (1, 10), (10, 100)]);
    }

    #[test]
    fn the_holds_before_a_step_are_no_delay() {
        let spec = canary();
        let holds = [0, 1, 2, 3, 9].map(|step| holds_before(&spec, step).as_secs());
        assert_eq!(holds, [0, 0, 60, 90, 90]);
    }

    proptest! {
        /// Whatever the steps are and however many units: each step reaches no fewer than the one before, the last one
        /// all, and it is got to by as many advances as there are steps at most.
        #[test]
        fn steps_come_to_their_end(percents in proptest::collection::vec(0..200u32, 0..10), total in 0..20_000u32) {
            let steps: Vec<Value> = percents.iter().map(|percent| json!({"percent": percent})).collect();
            let mut spec = canary();
            spec.switch.steps = serde_json::from_value(json!(steps)).unwrap();
            let mut now = reach(&spec, &in_step(1), total, false);
            for _ in 0..=percents.len() {
                if now.is_last {
                    break;
                }
                let next = next_step(&spec, &now, total);
                prop_assert!(next > now.step);
                let then = reach(&spec, &in_step(next), total, false);
                prop_assert!(then.quota > now.quota);
                now = then;
            }
            prop_assert!(now.is_last && now.quota == total);
        }
    }
}
