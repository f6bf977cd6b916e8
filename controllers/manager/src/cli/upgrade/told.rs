//! Pieces of text about an upgrade that several verbs print.

use crate::cli::text::{count, dash, instant, lines, paragraph, spoken, table};
use jiff::Timestamp;
use springtide_crds::in_place_upgrade::{
    LastRun, PlanCounts, PodCounts, PrePullCounts, RunResult, StepStatus,
};
use springtide_in_place_upgrade::rehearsal::{ConditionLine, Explanation, PlannedWrite, PodLine};
use std::fmt::Write as _;

/// Pods that are told of one by one.
const PODS_TOLD: usize = 40;

/// Name, summary and all that follows from it.
pub(super) fn standing(text: &mut String, explanation: &Explanation, now: Timestamp) {
    let Explanation { namespace, name, summary, .. } = explanation;
    let _ = writeln!(text, "InPlaceUpgrade {namespace}/{name}: {}", summary.reason);
    if !summary.message.is_empty() {
        let _ = writeln!(text, "  {}", summary.message);
    }
    let _ = writeln!(text);
    let wish = match explanation.target_hash.as_str() {
        "" => String::new(),
        hash => format!(", wish {hash}"),
    };
    let back = if explanation.is_rollback { "; pods become again what they were" } else { "" };
    paragraph(text, "Target", &format!("{}{wish}{back}", explanation.target));
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
    if let Some(step) = &explanation.step {
        paragraph(text, "Step", &stepped(step, explanation.counts.total, now));
    }
    if explanation.counts.total > 0 {
        paragraph(text, "Pods", &counted(&explanation.counts));
        paragraph(text, "Left", &left(&explanation.plan));
    }
    if let Some(pre_pull) = &explanation.pre_pull {
        paragraph(text, "Images", &pulled(pre_pull));
    }
    for condition in explanation.conditions.iter().filter(|condition| is_told(condition)) {
        let ConditionLine { type_, reason, message, .. } = condition;
        let message = if message.is_empty() { String::new() } else { format!(": {message}") };
        paragraph(text, type_, &format!("{reason}{message}"));
    }
    if let Some(run) = &explanation.last_run {
        paragraph(text, "Last run", &ended(run, now));
    }
}

/// What a person can do.
pub(super) fn remedies(text: &mut String, explanation: &Explanation) {
    lines(text, "To do", explanation.remedies.iter().cloned());
}

/// Whether a condition tells something that the summary does not.
fn is_told(condition: &ConditionLine) -> bool {
    let usual = if condition.type_ == "Drifted" { "False" } else { "True" };
    // Of every run that is under way, and before anything is seen.
    let is_idle = ["WaitingForPods", "NotObserved"].contains(&condition.reason.as_str());
    condition.status != usual && !is_idle
}

/// How far a step is.
pub(super) fn stepped(step: &StepStatus, total: u32, now: Timestamp) -> String {
    let StepStatus { index, of, pods, start_time, hold_until_time } = step;
    let hold = hold_until_time.as_ref().map(|until| format!("; its hold ends at {}", instant(until.0, now)));
    let begun = instant(start_time.0, now);
    format!("{index} of {of}: {pods} of {total} pods, begun at {begun}{}", hold.unwrap_or_default())
}

/// Pods by where they stand.
pub(super) fn counted(counts: &PodCounts) -> String {
    let PodCounts { total, updated, updated_ready, in_flight, draining, failed, blocked, .. } = counts;
    let mut said = format!("{updated} of {total} as wished, {updated_ready} of them available");
    for (number, what) in [
        (*in_flight, "in flight"),
        (*draining, "leaving traffic"),
        (*failed, "failed"),
        (*blocked, "blocked"),
        (counts.drifted, "changed by somebody else"),
        (counts.next_restart_only, "with an init image that waits for a restart"),
    ] {
        if number > 0 {
            let _ = write!(said, "; {number} {what}");
        }
    }
    said
}

/// Pods by what is to be done to them.
pub(super) fn left(plan: &PlanCounts) -> String {
    let why: Vec<String> =
        plan.reasons.iter().map(|blocked| format!("{} {}", blocked.count, blocked.reason.as_str())).collect();
    let blocked = if why.is_empty() { "blocked".to_owned() } else { format!("blocked ({})", why.join(", ")) };
    let all = [
        (plan.in_place, "by image"),
        (plan.restart, "by restart"),
        (plan.resize, "by resize"),
        (plan.metadata, "by labels, annotations or init images"),
        (plan.recreate, "by a new pod"),
        (plan.blocked, blocked.as_str()),
    ];
    let said: Vec<String> = all
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, what)| format!("{number} {what}"))
        .collect();
    if said.is_empty() { "nothing".to_owned() } else { said.join("; ") }
}

/// How far images are.
pub(super) fn pulled(pre_pull: &PrePullCounts) -> String {
    let PrePullCounts { nodes, ready, failed } = pre_pull;
    let failed = if *failed > 0 { format!("; {failed} failed") } else { String::new() };
    format!("{ready} of {} have them{failed}", count(usize::try_from(*nodes).unwrap_or(usize::MAX), "node"))
}

/// How a run ended.
pub(super) fn ended(run: &LastRun, now: Timestamp) -> String {
    let how = match run.result {
        RunResult::Succeeded => "Succeeded",
        RunResult::RolledBack => "RolledBack",
        RunResult::Superseded => "Superseded",
    };
    let at = instant(run.completion_time.0, now);
    format!(
        "{how} at {at}: wish {}, {}",
        run.target_hash,
        count(usize::try_from(run.pods).unwrap_or(0), "pod")
    )
}

/// The pods of which something is to be told. With `writes`, the resources that are written on the way of each.
pub(super) fn pods(text: &mut String, pods: &[PodLine], writes: bool) {
    let told: Vec<&PodLine> =
        pods.iter().filter(|pod| !(pod.verdict == "UpToDate" && pod.state == "Updated")).collect();
    if told.is_empty() {
        return;
    }
    let rows = told.iter().take(PODS_TOLD).map(|pod| {
        let verdict = match pod.blocked_because.as_str() {
            "" => pod.verdict.clone(),
            reason => format!("{}: {reason}", pod.verdict),
        };
        let state = match pod.detail.as_str() {
            "" => pod.state.clone(),
            detail => format!("{}: {detail}", pod.state),
        };
        [pod.name.clone(), dash(&pod.node), verdict, state, dash(&pod.differences.join("; ")), way(pod)]
    });
    let _ = writeln!(text);
    if writes {
        text.push_str(&table(["POD", "NODE", "VERDICT", "STATE", "DIFFERS IN", "WRITES"], rows));
    } else {
        let rows = rows.map(|[name, node, verdict, state, differs, _]| [name, node, verdict, state, differs]);
        text.push_str(&table(["POD", "NODE", "VERDICT", "STATE", "DIFFERS IN"], rows));
    }
    if told.len() > PODS_TOLD {
        let _ = writeln!(text, "... and {} more", told.len() - PODS_TOLD);
    }
}

/// What is written on the way of a pod, in order.
fn way(pod: &PodLine) -> String {
    let resources: Vec<String> = pod.writes.iter().map(PlannedWrite::resource).collect();
    dash(&resources.join(", "))
}
