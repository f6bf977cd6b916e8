//! What each condition says but Ready, Reconciling and Stalled.

use super::name;
use super::obstacles::first_stuck;
use crate::autoscalers::AutoscalerVerdict;
use crate::guards::{Breach, Guarding};
use crate::message::{count, quoting};
use crate::observed::Observed;
use crate::plan::accept::Refusal;
use crate::plan::decision::Decision;
use crate::plan::schedule::schedule_problem;
use crate::plan::situation::{Hold, Situation};
use crate::plan::tally::Tally;
use crate::preflight::Preflight;
use crate::profiles::off_valley;
use crate::projections::group::GroupView;
use jiff::Timestamp;
use springtide_crds::common::{ConditionStatus, bounded_text};
use springtide_crds::reason::{Reason, said};
use springtide_crds::time_share_group::{
    AcceptedReason, AutoscalerConflictReason, CapacitySafeReason, GuardsPassingReason, HeldReason,
    PreflightFailure, PreflightPassedReason, RefusalReason, ScheduleValidReason, StuckPod,
};
use springtide_plumbing::metric_query::MetricVerdict;
use springtide_plumbing::window::calendar::{CalendarProblem, Side};

/// Longest name of a window in a message that names two of them.
const WINDOW_MAX_BYTES: usize = 16;
/// Longest name of a container beside that of its workload.
const CONTAINER_MAX_BYTES: usize = 24;

/// What the stored status says of a condition, where this program knows the reason.
pub(super) fn told<R: Reason>(group: &GroupView) -> Option<(R, String)> {
    said(&group.status.conditions).map(|(reason, message)| (reason, message.to_owned()))
}

/// Whether the spec is served.
pub(super) fn accepted(situation: &Situation<'_>) -> (AcceptedReason, String) {
    if let Some(Refusal::For { reason, message }) = &situation.lost {
        return (AcceptedReason::Refused(*reason), message.clone());
    }
    match situation.schedule_problem() {
        Some(problem) => (AcceptedReason::Refused(RefusalReason::InvalidSchedule), problem_text(problem)),
        None => (AcceptedReason::Accepted, "the spec is served".to_owned()),
    }
}

/// Whether the schedule says at each time who has the peak.
pub(super) fn schedule_valid(observed: &Observed) -> (ScheduleValidReason, String) {
    if let Some(problem) = schedule_problem(observed) {
        return (problem.reason(), problem_text(problem));
    }
    let Ok(surveyed) = &observed.calendar else { return unobserved(ScheduleValidReason::NotObserved) };
    let default = name(surveyed.calendar.default_member().map(AsRef::as_ref));
    if !surveyed.calendar.has_windows() {
        let message =
            format!("there is no window: {default} has the peak, unless spec.override says otherwise");
        return (ScheduleValidReason::NoWindows, message);
    }
    if surveyed.survey.is_over {
        let message =
            format!("all windows are past, and {default} keeps the peak: change their dates, or remove them");
        return (ScheduleValidReason::NeverMatches, message);
    }
    (
        ScheduleValidReason::Valid,
        "windows of different members do not meet within the next 400 days".to_owned(),
    )
}

pub(super) fn unobserved<R: Reason>(reason: R) -> (R, String) {
    (reason, "nothing has been seen of it yet".to_owned())
}

/// What is wrong with a schedule, in as many words as a condition has room for.
pub(super) fn problem_text(problem: &CalendarProblem) -> String {
    let side = |side: &Side| bounded_text(&side.window, WINDOW_MAX_BYTES);
    match problem {
        CalendarProblem::WindowsOverlap { first, second, from, until } => format!(
            "windows {} and {} of two members overlap from {from:.0} to {until:.0}: move one of them",
            side(first),
            side(second)
        ),
        CalendarProblem::LeadOverlapsWindow { leading, other, from, until, most } => format!(
            "the lead of {} begins {from:.0}, in {} up to {until:.0}: leadSeconds {most} at most, or move one",
            side(leading),
            side(other)
        ),
        CalendarProblem::UnknownTimeZone { .. }
        | CalendarProblem::NeverMatches { .. }
        | CalendarProblem::InvalidWindow { .. }
        | CalendarProblem::SkipDate(_)
        | CalendarProblem::UnknownMember { .. } => quoting("", &problem.to_string(), ""),
    }
}

/// Whether the next switch would come through.
pub(super) fn preflight_passed(situation: &Situation<'_>) -> (PreflightPassedReason, String) {
    let known = &situation.preflight;
    let message = match known.reason {
        PreflightPassedReason::NotObserved => {
            let Preflight { passed, units, .. } = known;
            let units = count(*units, "unit");
            format!(
                "{passed} of {units} are known to come through, and the API server is asked for the others"
            )
        }
        PreflightPassedReason::NotDue => not_due(situation),
        PreflightPassedReason::AllUnits => {
            let to = name(known.member.as_deref());
            format!("each of {} of the switch to {to} would come through", count(known.units, "unit"))
        }
        PreflightPassedReason::EnoughUnits => {
            let before = format!("{} of {} would come through", known.passed, count(known.units, "unit"));
            match known.failures.first() {
                Some(first) => {
                    let first = format!("{} on {} ({})", first.pod, first.node, first.reason.as_str());
                    quoting(&format!("{before}; first of the others: "), &first, "")
                }
                None => before,
            }
        }
        PreflightPassedReason::Failed(failure) => failed(known, failure),
    };
    (known.reason, message)
}

fn not_due(situation: &Situation<'_>) -> String {
    if situation.course.is_open() {
        return "a switch is under way: the next one is looked at later".to_owned();
    }
    match situation.preflight.wake {
        Some(begins) => format!("the next switch is looked at from {begins:.0} on"),
        None => "no switch is known to come".to_owned(),
    }
}

fn failed(known: &Preflight, failure: PreflightFailure) -> String {
    let Preflight { passed, units, .. } = known;
    let before = format!("{passed} of {} would come through", count(*units, "unit"));
    let remedy = match failure {
        PreflightFailure::DryRunRefused => ": change what refuses the others",
        PreflightFailure::NodeDoesNotFit => ": spread the pods, or lower the peak",
        PreflightFailure::QuotaExceeded => ": raise the quota, or lower the peak",
        PreflightFailure::QoSClassWouldChange => ": change limits or amounts",
        PreflightFailure::ResizeNeedsRestart => ": set its resizePolicy to NotRequired",
        PreflightFailure::NoUsageData => ": install a metrics server",
    };
    let row = known.failures.iter().find(|row| row.reason == failure).or(known.failures.first());
    let words = match (failure, &known.words, row) {
        (PreflightFailure::DryRunRefused | PreflightFailure::QuotaExceeded, Some(words), _) => {
            words.to_string()
        }
        (_, _, Some(row)) => format!("{} on {}", row.pod, row.node),
        (_, _, None) => return format!("{before}{remedy}"),
    };
    quoting(&format!("{before}; "), &words, remedy)
}

/// Whether the nodes can hold whoever has the peak. What makes it unsafe for others goes before what only makes a switch
/// slow.
pub(super) fn capacity_safe(situation: &Situation<'_>) -> (CapacitySafeReason, String) {
    let observed = situation.observed;
    let members = observed.members.iter().zip(&situation.profiles).zip(&situation.at_valley);
    if let Some((member, container)) = members
        .filter(|(_, at_valley)| !**at_valley)
        .find_map(|((member, profile), _)| Some((member, off_valley(member, profile)?)))
    {
        let workload = member.workload.as_ref();
        let workload = workload.map(|found| format!("{} {}", found.kind.as_str(), found.key.name));
        let container = bounded_text(container, CONTAINER_MAX_BYTES);
        let after =
            format!(": container {container} is not at valley size; set its requests to those of valley");
        let message = quoting("template of ", &workload.unwrap_or_default(), &after);
        return (CapacitySafeReason::TemplateNotAtValley, message);
    }
    let union = &situation.union;
    if let Some(first) = union.over_budget.first() {
        let over = u32::try_from(union.over_budget.len()).unwrap_or(u32::MAX);
        let before = format!("{over} of {} cannot hold the largest peak, first ", count(union.nodes, "node"));
        let message = quoting(&before, first, ": spread the pods, or lower the peak");
        return (CapacitySafeReason::NodesOverBudget, message);
    }
    if let Some(too_small) = &situation.headroom.too_small {
        let message = quoting("", too_small, ": raise it, or set switch.order to ShrinkFirst");
        return (CapacitySafeReason::QuotaTooSmall, message);
    }
    if let Some(differ) = &situation.priorities {
        return (CapacitySafeReason::PrioritiesDiffer, quoting("", differ, ""));
    }
    let nodes = count(union.nodes, "node");
    (CapacitySafeReason::WithinBudget, format!("each of {nodes} can hold the largest peak of its members"))
}

/// Whether the switch goes well. What it was taken back for, or stopped, stays told.
pub(super) fn guards_passing(situation: &Situation<'_>, stuck: &[StuckPod]) -> (GuardsPassingReason, String) {
    if situation.keeps_verdict()
        && let Some(stored) = told::<GuardsPassingReason>(&situation.observed.group)
    {
        return stored;
    }
    match &situation.guarding {
        Guarding::Passing => (GuardsPassingReason::Passing, "every bound of spec.guards is kept".to_owned()),
        Guarding::NoData(gate) => (GuardsPassingReason::NoMetricData, no_data(situation, gate)),
        Guarding::DonorBusy => (GuardsPassingReason::DonorBusy, donor_busy(situation)),
        Guarding::Breached(Breach::TooManyFailures) => {
            (GuardsPassingReason::TooManyFailures, too_many_failures(situation, stuck))
        }
        Guarding::Breached(Breach::MetricBreached(gate)) => {
            let message = quoting("metric ", gate, " is beyond its bound in spec.guards.metrics");
            (GuardsPassingReason::MetricBreached, message)
        }
    }
}

fn too_many_failures(situation: &Situation<'_>, stuck: &[StuckPod]) -> String {
    let Tally { failed, refused, counts, .. } = &situation.tally;
    let percent = situation.observed.group.spec.guards.failure_threshold_percent;
    let reached = count(situation.reach.quota, "unit");
    let refused =
        if *refused > 0 { format!(", {refused} of {} were refused", counts.total) } else { String::new() };
    let before = format!("{failed} of {reached} failed{refused}, with {percent} % tolerated");
    match first_stuck(stuck) {
        Some((first, remedy)) => quoting(&format!("{before}; first "), &first, &format!(": {remedy}")),
        None => before,
    }
}

fn no_data(situation: &Situation<'_>, gate: &str) -> String {
    let observed = situation.observed;
    let guard = observed.metrics.iter().chain(&observed.donor_load).find(|guard| *guard.name == *gate);
    let problem = guard.and_then(|guard| match &guard.verdict {
        MetricVerdict::NoData { problem } => Some(problem.as_ref()),
        MetricVerdict::Passing | MetricVerdict::Failing { .. } | MetricVerdict::Breached { .. } => None,
    });
    let before = format!("metric {gate} has no value: ");
    quoting(&before, problem.unwrap_or("nobody knows why"), "; see its query, or set onNoData")
}

fn donor_busy(situation: &Situation<'_>) -> String {
    let load = situation.observed.donor_load.as_ref().map_or("", |guard| &*guard.name);
    let from = situation.transition().and_then(|transition| transition.from.as_deref());
    let after = format!(" is above guards.donorMaxLoad: pods of {} do not shrink yet", name(from));
    quoting("metric ", load, &after)
}

/// Whether something keeps further units from starting.
pub(super) fn held(situation: &Situation<'_>, decision: &Decision) -> (HeldReason, String) {
    match situation.hold(decision) {
        Some(Hold::Step(until)) => (HeldReason::StepHold, step_hold(situation, until)),
        Some(Hold::Paused) => {
            let message = "spec.mode is Paused: no unit starts; set it to Active to go on";
            (HeldReason::Paused, message.to_owned())
        }
        Some(Hold::Preflight) if situation.preflight.is_complete => {
            let message = "guards.preflight.onFailure is Hold, and it failed: see condition PreflightPassed";
            (HeldReason::PreflightFailed, message.to_owned())
        }
        Some(Hold::DonorBusy) => (HeldReason::DonorBusy, donor_busy(situation)),
        Some(Hold::NoData(gate)) => (HeldReason::NoMetricData, no_data(situation, &gate)),
        // What is asked is answered by itself.
        Some(Hold::Preflight) | None => {
            (HeldReason::Free, "nothing keeps further units from starting".to_owned())
        }
    }
}

fn step_hold(situation: &Situation<'_>, until: Timestamp) -> String {
    let reach = &situation.reach;
    let next = reach.step.saturating_add(1);
    format!("step {} of {} is done, and is looked at: step {next} begins at {until:.0}", reach.step, reach.of)
}

/// Whether an autoscaler and the group are in each other's way.
pub(super) fn autoscaler_conflict(verdict: &AutoscalerVerdict) -> (AutoscalerConflictReason, String) {
    match verdict {
        AutoscalerVerdict::None => {
            (AutoscalerConflictReason::None, "no autoscaler is in the way of the group".to_owned())
        }
        AutoscalerVerdict::Report(conflict) | AutoscalerVerdict::Refuse(conflict) => {
            (conflict.reason, conflict.message.clone())
        }
    }
}

/// Why a switch was taken back, or is: by the guards, or by a unit that is stuck.
pub(super) fn verdict(
    situation: &Situation<'_>,
    guards: &(GuardsPassingReason, String),
    stuck: &[StuckPod],
) -> String {
    if guards.0.status() == ConditionStatus::False {
        return guards.1.clone();
    }
    let stored = &situation.observed.group.status.stuck;
    match first_stuck(if stuck.is_empty() { stored } else { stuck }) {
        Some((first, _)) => format!("a unit is stuck: {first}"),
        None => "a unit did not come through".to_owned(),
    }
}
