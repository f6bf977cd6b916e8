//! What keeps further pods from starting, whatever limits allow.

use crate::spec_rules::Freeze;
use crate::steps::StepHold;
use crate::time_share::TimeShare;
use jiff::Timestamp;
use springtide_crds::in_place_upgrade::{HeldReason, Mode, TimeSharePolicy};

/// What holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    /// `mode` is Paused.
    Paused,
    /// A freeze window is open.
    Freeze {
        /// Its name.
        name: String,
        /// When it closes.
        until: Timestamp,
    },
    /// The TimeShareGroup switches.
    Switch {
        /// Its name.
        group: String,
    },
    /// It is the workload's peak.
    Peak {
        /// Name of the group.
        group: String,
        /// When it ends.
        until: Timestamp,
    },
    /// A metric has no value.
    NoMetricData {
        /// Its name.
        metric: String,
    },
    /// The step is over, and the next one waits.
    Step(StepHold),
    /// A PodDisruptionBudget allows no pod less.
    Budget {
        /// Its name.
        name: String,
    },
    /// Too many pods are unavailable, of which none is on its way by us.
    Unavailable {
        /// How many.
        count: usize,
        /// Most that may be.
        max: usize,
    },
}

/// What holds depend on.
#[derive(Clone, Copy, Debug)]
pub struct HoldInput<'a> {
    /// `mode`.
    pub mode: Mode,
    /// The windows of the spec.
    pub freezes: &'a [Freeze],
    /// What the workload's TimeShareGroup says.
    pub time_share: Option<&'a TimeShare>,
    /// `policy.timeShare`.
    pub time_share_policy: TimeSharePolicy,
    /// A metric without a value that is to hold.
    pub metric_without_data: Option<&'a str>,
    /// What the step waits for.
    pub step: Option<StepHold>,
    /// Whether it is a rollback: that is a repair, and waits only for what it would break.
    pub is_rollback: bool,
}

/// What holds now, most general first; `None` while nothing does.
pub fn hold(input: &HoldInput<'_>, now: Timestamp) -> Option<Hold> {
    if input.mode == Mode::Paused {
        return Some(Hold::Paused);
    }
    let switch = input.time_share.filter(|share| share.is_switching);
    if let Some(share) = switch {
        return Some(Hold::Switch { group: share.group.clone() });
    }
    if input.is_rollback {
        return None;
    }
    let open = input.freezes.iter().filter_map(|freeze| Some((freeze, freeze.schedule.occurrence_at(now)?)));
    // That which ends last decides.
    if let Some((freeze, occurrence)) = open.max_by_key(|(_, occurrence)| occurrence.end) {
        return Some(Hold::Freeze { name: freeze.name.clone(), until: occurrence.end });
    }
    let peak = match input.time_share_policy {
        TimeSharePolicy::HoldDuringPeak => input.time_share,
        TimeSharePolicy::HoldDuringSwitch => None,
    };
    let peak = peak.and_then(|share| Some((share, share.peak(now)?)));
    if let Some((share, until)) = peak {
        return Some(Hold::Peak { group: share.group.clone(), until });
    }
    if let Some(metric) = input.metric_without_data {
        return Some(Hold::NoMetricData { metric: metric.to_owned() });
    }
    input.step.map(Hold::Step)
}

impl Hold {
    /// Reason of condition Held.
    pub fn reason(&self) -> HeldReason {
        match self {
            Self::Paused => HeldReason::Paused,
            Self::Freeze { .. } => HeldReason::FreezeWindow,
            Self::Switch { .. } => HeldReason::TimeShareSwitch,
            Self::Peak { .. } => HeldReason::TimeSharePeak,
            Self::NoMetricData { .. } => HeldReason::NoMetricData,
            Self::Step(StepHold::Approval) => HeldReason::ApprovalRequired,
            Self::Step(StepHold::Until(_)) => HeldReason::StepHold,
            Self::Budget { .. } => HeldReason::DisruptionBudget,
            Self::Unavailable { .. } => HeldReason::Unavailable,
        }
    }

    /// For people.
    pub fn message(&self, hash: &str, step: u32) -> String {
        match self {
            Self::Paused => "spec.mode is Paused: no further pod starts; set it to Apply to go on".to_owned(),
            Self::Freeze { name, until } => {
                format!("freeze window {name} of spec.freezeWindows is open until {until}")
            }
            Self::Switch { group } => {
                format!("TimeShareGroup {group} is switching; it goes on when that has ended")
            }
            Self::Peak { group, until } => format!(
                "it is a peak hour in TimeShareGroup {group} until {until}; it goes on then, or at once with \
                 spec.policy.timeShare HoldDuringSwitch"
            ),
            Self::NoMetricData { metric } => format!(
                "metric {metric} has no value: see its query in spec.health.metrics, or set its onNoData to Ignore"
            ),
            Self::Step(StepHold::Approval) => {
                format!("step {step} is done: set spec.approval to targetHash {hash}, throughStep {step}")
            }
            Self::Step(StepHold::Until(until)) => {
                format!("step {step} is done: the next one begins at {until}")
            }
            Self::Budget { name } => format!(
                "PodDisruptionBudget {name} allows no pod less: it goes on when more of its pods are ready, or with \
                 spec.strategy.disruptionBudgets Ignore"
            ),
            Self::Unavailable { count, max } => format!(
                "{count} pods are unavailable or missing, of {max} that may be; none by this run: see why, or raise \
                 spec.strategy.maxUnavailable"
            ),
        }
    }

    /// Whether pods that have started come to rest, traffic back where they are unpatched; other holds let them go on.
    pub fn brings_to_rest(&self) -> bool {
        match self {
            Self::Paused | Self::Freeze { .. } | Self::Switch { .. } | Self::Peak { .. } => true,
            Self::NoMetricData { .. } | Self::Step(_) | Self::Budget { .. } | Self::Unavailable { .. } => {
                false
            }
        }
    }

    /// When it ends by itself.
    pub fn ends(&self) -> Option<Timestamp> {
        match self {
            Self::Freeze { until, .. } | Self::Peak { until, .. } | Self::Step(StepHold::Until(until)) => {
                Some(*until)
            }
            Self::Paused
            | Self::Switch { .. }
            | Self::NoMetricData { .. }
            | Self::Step(StepHold::Approval)
            | Self::Budget { .. }
            | Self::Unavailable { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::at;
    use jiff::SignedDuration;
    use serde_json::json;
    use springtide_plumbing::window::Schedule;

    const FREE: HoldInput<'static> = HoldInput {
        mode: Mode::Apply,
        freezes: &[],
        time_share: None,
        time_share_policy: TimeSharePolicy::HoldDuringPeak,
        metric_without_data: None,
        step: None,
        is_rollback: false,
    };

    fn freeze(name: &str, start: &str, end: &str, zone: &str) -> Freeze {
        let window = serde_json::from_value(json!({"start": start, "end": end, "timeZone": zone})).unwrap();
        Freeze { name: name.to_owned(), schedule: Schedule::parse(&window).unwrap() }
    }

    #[test]
    fn nothing_holds_by_default_and_a_pause_holds_everything() {
        assert_eq!(hold(&FREE, at(0)), None);
        let paused = HoldInput { mode: Mode::Paused, is_rollback: true, ..FREE };
        assert_eq!(hold(&paused, at(0)), Some(Hold::Paused));
    }

    #[test]
    fn a_freeze_window_holds_for_as_long_as_its_clock_says_also_over_a_change_of_clocks() {
        let freezes = [freeze("night", "01:00", "06:00", "Europe/Berlin")];
        let at = |text: &str| {
            let now: Timestamp = text.parse().unwrap();
            let held = hold(&HoldInput { freezes: &freezes, ..FREE }, now);
            held.map(|hold| hold.ends().unwrap().duration_since(now))
        };
        assert_eq!(at("2026-11-23T00:00:00Z"), Some(SignedDuration::from_hours(5)), "an ordinary night");
        assert_eq!(at("2026-03-29T00:00:00Z"), Some(SignedDuration::from_hours(4)), "clocks go forward");
        assert_eq!(at("2026-10-24T23:00:00Z"), Some(SignedDuration::from_hours(6)), "clocks go back");
        assert_eq!(at("2026-11-23T05:00:00Z"), None);
    }

    #[test]
    fn of_two_windows_the_one_that_ends_last_is_named() {
        let freezes = [freeze("short", "00:00", "01:00", "UTC"), freeze("long", "00:00", "02:00", "UTC")];
        let now = "2026-11-23T00:30:00Z".parse().unwrap();
        let Some(Hold::Freeze { name, .. }) = hold(&HoldInput { freezes: &freezes, ..FREE }, now) else {
            panic!()
        };
        assert_eq!(name, "long");
    }

    #[test]
    fn a_group_that_switches_always_holds_and_its_peak_only_by_the_policy() {
        let switching = TimeShare { is_switching: true, ..TimeShare::default() };
        let peak = TimeShare { peak_until: Some(at(60)), ..TimeShare::default() };
        let with = |share, policy, is_rollback| {
            let input = HoldInput { time_share: Some(share), time_share_policy: policy, is_rollback, ..FREE };
            hold(&input, at(0)).map(|hold| hold.reason())
        };
        let (by_peak, by_switch) = (TimeSharePolicy::HoldDuringPeak, TimeSharePolicy::HoldDuringSwitch);
        assert_eq!(with(&switching, by_switch, true), Some(HeldReason::TimeShareSwitch));
        assert_eq!(with(&peak, by_peak, false), Some(HeldReason::TimeSharePeak));
        assert_eq!(with(&peak, by_switch, false), None);
        assert_eq!(with(&peak, by_peak, true), None, "a rollback is a repair");
    }

    #[test]
    fn holds_of_time_tell_when_they_end_and_only_some_bring_pods_to_rest() {
        let step = Hold::Step(StepHold::Until(at(5)));
        assert_eq!((step.ends(), step.brings_to_rest()), (Some(at(5)), false));
        assert!(Hold::Paused.brings_to_rest() && Hold::Paused.ends().is_none());
        let approval = Hold::Step(StepHold::Approval);
        assert!(approval.message("7c9f21ab04de", 2).contains("7c9f21ab04de"), "it can be copied");
    }
}
