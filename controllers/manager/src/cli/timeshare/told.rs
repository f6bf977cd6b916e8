//! Pieces of text about a group that several verbs print.

use crate::cli::text::{count, dash, instant, lines, paragraph, span, spoken, table};
use jiff::Timestamp;
use springtide_crds::common::{Quantity, ResourceAmounts};
use springtide_crds::reason::Reason;
use springtide_crds::time_share_group::{
    LastTransition, MemberStatus, NextTransition, PreflightStatus, StuckPod, Transition, TransitionCause,
    TransitionResult, UnionBudget,
};
use springtide_time_share_group::rehearsal::{ConditionLine, Explanation, PlannedWrite, UnitLine};
use std::fmt::Write as _;

/// Units that are told of one by one.
const UNITS_TOLD: usize = 40;
/// Switches that ended of which is told.
const LAST_TOLD: usize = 3;

/// Name, summary and all that follows from it.
pub(super) fn standing(text: &mut String, explanation: &Explanation, now: Timestamp) {
    let Explanation { namespace, name, summary, .. } = explanation;
    let _ = writeln!(text, "TimeShareGroup {namespace}/{name}: {}", summary.reason);
    if !summary.message.is_empty() {
        let _ = writeln!(text, "  {}", summary.message);
    }
    let _ = writeln!(text);
    let active = peak(explanation.active_member.as_deref());
    let desired = peak(explanation.desired_member.as_deref());
    let by = match explanation.cause.as_str() {
        "Override" => " by spec.override",
        "Window" => " by a window",
        "Default" => " by default",
        _ => "",
    };
    let wished = if active == desired { by.to_owned() } else { format!("; {desired} is to have it{by}") };
    paragraph(text, "Peak", &format!("{active}{wished}"));
    for (label, said) in [("Stalled", &explanation.stalled), ("Held", &explanation.held)] {
        if let Some(said) = said {
            paragraph(text, label, &spoken(said, &summary.message));
        }
    }
    if explanation.stalled.is_none() && explanation.held.is_none() {
        paragraph(text, "Why", &summary.meaning);
    }
    if !explanation.wakes.is_empty() {
        let until = explanation.until.map(|until| format!("; looked at again at {}", instant(until, now)));
        paragraph(text, "Wakes", &format!("{}{}", explanation.wakes, until.unwrap_or_default()));
    }
    if let Some(transition) = &explanation.transition {
        paragraph(text, "Switch", &switched(transition, explanation.steps, now));
    }
    if let Some(next) = &explanation.next_transition {
        paragraph(text, "Next", &next_text(next, now));
    }
    if let Some(preflight) = &explanation.preflight {
        paragraph(text, "Preflight", &preflight_text(preflight, now));
    }
    if let Some(union) = &explanation.union {
        paragraph(text, "Nodes", &union_text(union));
    }
    for condition in explanation.conditions.iter().filter(|condition| is_told(condition)) {
        let ConditionLine { type_, reason, message, .. } = condition;
        let message = if message.is_empty() { String::new() } else { format!(": {message}") };
        paragraph(text, "", &format!("{type_} {reason}{message}"));
    }
}

/// What a person can do.
pub(super) fn remedies(text: &mut String, explanation: &Explanation) {
    lines(text, "To do", explanation.remedies.iter().cloned());
}

/// Whether a condition tells something that the summary does not.
fn is_told(condition: &ConditionLine) -> bool {
    let usual = if condition.type_ == "AutoscalerConflict" { "False" } else { "True" };
    // Of every group before its next switch is near, and before anything is seen.
    let is_idle = ["NotDue", "NotObserved"].contains(&condition.reason.as_str());
    condition.status != usual && !is_idle
}

/// Who has the peak.
pub(super) fn peak(member: Option<&str>) -> &str {
    member.unwrap_or("nobody")
}

/// A switch, as far as it has come.
pub(super) fn switched(transition: &Transition, steps: u32, now: Timestamp) -> String {
    let Transition { id, from, to, cause, start_time, completion_time, step, hold_until_time, units, nudges } =
        transition;
    let (from, to) = (peak(from.as_deref()), peak(to.as_deref()));
    let asked = match cause {
        TransitionCause::Window => "a window",
        TransitionCause::Default => "the default",
        TransitionCause::Override => "spec.override",
        TransitionCause::Rollback => "the one before, which went wrong",
    };
    let mut said = format!("{id} from {from} to {to}, asked for by {asked}");
    match completion_time {
        Some(ended) => {
            let took = span(ended.0.duration_since(start_time.0).as_secs());
            let _ = write!(said, "; ended at {} after {took}", instant(ended.0, now));
        }
        None => {
            let _ = write!(said, "; begun at {}, step {step} of {steps}", instant(start_time.0, now));
            if let Some(until) = hold_until_time {
                let _ = write!(said, ", whose hold ends at {}", instant(until.0, now));
            }
        }
    }
    let _ = write!(said, ": {} of {} units done", units.done, units.total);
    for (number, what) in [
        (units.in_flight, "in flight"),
        (units.deferred, "deferred"),
        (units.infeasible, "infeasible"),
        (units.skipped, "skipped"),
        (units.reversed, "reversed"),
        (units.stuck, "stuck"),
        (*nudges, "nudges"),
    ] {
        if number > 0 {
            let _ = write!(said, ", {number} {what}");
        }
    }
    said
}

/// The next switch.
pub(super) fn next_text(next: &NextTransition, now: Timestamp) -> String {
    format!("to {} at {}", peak(next.member.as_deref()), instant(next.start_time.0, now))
}

/// What a preflight has found.
pub(super) fn preflight_text(preflight: &PreflightStatus, now: Timestamp) -> String {
    let PreflightStatus { member, completion_time, units, passed, failures } = preflight;
    let to = peak(member.as_deref());
    let when = match completion_time {
        Some(ended) => format!("at {}", instant(ended.0, now)),
        None => "until now".to_owned(),
    };
    let mut said = format!("{passed} of {units} units of the switch to {to} would come through, {when}");
    let rows: Vec<String> = failures
        .iter()
        .map(|row| format!("{} on {} ({})", row.pod, dash(&row.node), row.reason.as_str()))
        .collect();
    if !rows.is_empty() {
        let _ = write!(said, "; not so: {}", rows.join(", "));
    }
    said
}

/// What the nodes save.
pub(super) fn union_text(union: &UnionBudget) -> String {
    let UnionBudget { nodes, nodes_over_budget, budget, sum_of_peaks, saved } = union;
    let nodes = count(usize::try_from(*nodes).unwrap_or(usize::MAX), "node");
    let over = if *nodes_over_budget > 0 {
        format!("; {nodes_over_budget} over their budget")
    } else {
        String::new()
    };
    format!(
        "{nodes} need {} in place of {}: {} are saved{over}",
        amounts(budget),
        amounts(sum_of_peaks),
        amounts(saved)
    )
}

fn amounts(amounts: &ResourceAmounts) -> String {
    let of =
        |name: &str, amount: Option<&Quantity>| amount.map(|amount| format!("{name} {}", amount.as_str()));
    let all = [of("cpu", amounts.cpu.as_ref()), of("memory", amounts.memory.as_ref())];
    all.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// The members with their pods.
pub(super) fn members(text: &mut String, members: &[MemberStatus], active: Option<&str>) {
    if members.is_empty() {
        return;
    }
    let rows = members.iter().map(|member| {
        let has_peak = if active == Some(member.name.as_str()) { "*" } else { "" };
        [
            format!("{}{has_peak}", member.name),
            member.pods.to_string(),
            member.at_peak.to_string(),
            member.at_valley.to_string(),
            member.traffic_on.to_string(),
            member.unpaired.to_string(),
            member.upgrading.to_string(),
        ]
    });
    let _ = writeln!(text);
    let head = ["MEMBER", "PODS", "AT PEAK", "AT VALLEY", "TRAFFIC", "UNPAIRED", "UPGRADING"];
    text.push_str(&table(head, rows));
}

/// Pods of units that did not come through.
pub(super) fn stuck(text: &mut String, stuck: &[StuckPod], now: Timestamp) {
    if stuck.is_empty() {
        return;
    }
    let rows = stuck.iter().map(|row| {
        let since = span(now.duration_since(row.since_time.0).as_secs());
        [row.pod.clone(), dash(&row.node), row.reason.as_str().to_owned(), since]
    });
    let _ = writeln!(text);
    text.push_str(&table(["STUCK POD", "NODE", "REASON", "SINCE"], rows));
}

/// The last switches that ended.
pub(super) fn last(text: &mut String, last: &[LastTransition], now: Timestamp) {
    lines(text, "Ended", last.iter().take(LAST_TOLD).map(|ended| ended_text(ended, now)));
}

fn ended_text(ended: &LastTransition, now: Timestamp) -> String {
    let how = match ended.result {
        TransitionResult::Succeeded => "Succeeded",
        TransitionResult::RolledBack => "RolledBack",
        TransitionResult::Superseded => "Superseded",
    };
    let skipped = if ended.skipped > 0 { format!(", {} skipped", ended.skipped) } else { String::new() };
    let nudges = if ended.nudges > 0 { format!(", {} nudges", ended.nudges) } else { String::new() };
    format!(
        "{how}: switch {} to {} at {} after {}, {} units{skipped}{nudges}",
        ended.id,
        peak(ended.to.as_deref()),
        instant(ended.completion_time.0, now),
        span(ended.duration_seconds.into()),
        ended.units
    )
}

/// The units of which something is to be told. With `writes`, the resources that are written on the way of each.
pub(super) fn units(text: &mut String, units: &[UnitLine], writes: bool) {
    let told: Vec<&UnitLine> = units.iter().filter(|unit| writes || unit.state != "Done").collect();
    if told.is_empty() {
        return;
    }
    let rows = told.iter().take(UNITS_TOLD).map(|unit| {
        let state = match unit.detail.as_str() {
            "" => unit.state.clone(),
            detail => format!("{}: {detail}", unit.state),
        };
        let way: Vec<String> = unit.writes.iter().map(PlannedWrite::resource).collect();
        [
            unit.node.clone(),
            dash(&unit.shrinking.join(", ")),
            dash(&unit.growing.join(", ")),
            unit.side.clone(),
            state,
            dash(&way.join(", ")),
        ]
    });
    let _ = writeln!(text);
    if writes {
        text.push_str(&table(["NODE", "SHRINKS", "GROWS", "SIDE", "STATE", "WRITES"], rows));
    } else {
        let rows = rows.map(|[node, shrinks, grows, side, state, _]| [node, shrinks, grows, side, state]);
        text.push_str(&table(["NODE", "SHRINKS", "GROWS", "SIDE", "STATE"], rows));
    }
    if told.len() > UNITS_TOLD {
        let _ = writeln!(text, "... and {} more", told.len() - UNITS_TOLD);
    }
}
