//! `springtide explain`: why a BatchJob is where it is.

use super::read::{Cluster, Unread};
use super::text::{count, instant, lines, paragraph, span, unread};
use super::{API_VERSION, ConnectionArgs, OutputArgs, RehearsalArgs, Target, TargetKind, Verdict};
use anyhow::{Context, Result, bail};
use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use springtide_batch_job::admission::{ExcludedNodes, FitReport, NodeExclusion, PlaceInLine};
use springtide_batch_job::rehearsal::{
    Basis, Explanation, PlannedWrite, QueueStanding, Rehearsal, State, Waits,
};
use springtide_plumbing::key::ObjectKey;
use std::fmt::Write as _;

/// Options of `springtide explain`.
#[derive(Args)]
pub(crate) struct ExplainArgs {
    /// The job, as bj/NAME.
    #[arg(value_name = "KIND/NAME")]
    target: Target,
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(flatten)]
    rehearsal: RehearsalArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// What the command says.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    api_version: &'static str,
    kind: &'static str,
    /// For when it was computed.
    time: Timestamp,
    #[serde(flatten)]
    explanation: Explanation,
    /// What could not be read, and what that means.
    not_seen: Vec<Unread>,
}

/// Reads, computes, prints. Writes nothing.
///
/// # Errors
/// The API server cannot be asked, there is no such job, or not even its namespace may be read.
pub(crate) async fn run(args: ExplainArgs) -> Result<Verdict> {
    let name = match args.target.kind {
        TargetKind::BatchJob => args.target.name,
        TargetKind::BatchQueue => {
            bail!("a queue waits for nothing: see `springtide status bq/{}`", args.target.name)
        }
    };
    let cluster = Cluster::connect(&args.connection, "explain").await?;
    let seen = cluster.world(args.rehearsal.settings()?).await?;
    let now = args.rehearsal.time();
    let mut rehearsal = Rehearsal::new(seen.world, now);
    if rehearsal.sees_nodes() {
        rehearsal.run();
    } else {
        rehearsal.look();
    }
    let key = ObjectKey::new(cluster.namespace.as_str(), name.as_str());
    let explanation = rehearsal
        .explain(&key)
        .with_context(|| format!("there is no BatchJob {name} in namespace {}", cluster.namespace))?;
    let verdict = verdict(&explanation);
    let answer = Answer {
        api_version: API_VERSION,
        kind: "Explanation",
        time: now,
        explanation,
        not_seen: seen.unread,
    };
    print!("{}", args.output.render(&answer, || text(&answer.explanation, &answer.not_seen, now))?);
    Ok(verdict)
}

fn verdict(explanation: &Explanation) -> Verdict {
    match explanation.state {
        _ if explanation.stalled.is_some() => Verdict::Stalled,
        State::Failed => Verdict::Stalled,
        State::Waiting | State::Stopped | State::Unknown => Verdict::NotReady,
        State::Starting | State::Running | State::Ending | State::Completed | State::Foreign => Verdict::Fine,
    }
}

/// The explanation in words.
fn text(explanation: &Explanation, not_seen: &[Unread], now: Timestamp) -> String {
    let mut text = String::new();
    let Explanation { namespace, name, summary, tasks, .. } = explanation;
    let _ = writeln!(text, "BatchJob {namespace}/{name} {}: {}", word(explanation.state), summary.reason);
    if !summary.message.is_empty() {
        let _ = writeln!(text, "  {}", summary.message);
    }
    let _ = writeln!(text);
    match &explanation.waits {
        Some(waits) => wait(&mut text, waits, summary.message != waits.said.message, now),
        None if explanation.basis == Basis::Reported && explanation.state == State::Unknown => {
            let says = "too little can be read to compute why, and the manager has not said it in the job's status \
                        (it does within half a minute)";
            paragraph(&mut text, "Why", says);
        }
        None => paragraph(&mut text, "Why", &summary.meaning),
    }
    if let Some(stalled) = &explanation.stalled {
        paragraph(
            &mut text,
            "Stalled",
            &format!("{}: {} {}", stalled.reason, stalled.message, bracketed(&stalled.meaning)),
        );
    }
    if let Some(retry) = &explanation.retry {
        let times = if retry.failures == 1 { "once".to_owned() } else { format!("{} times", retry.failures) };
        let until = instant(retry.until, now);
        let failed = if retry.failures == 0 { "was disrupted".to_owned() } else { format!("failed {times}") };
        paragraph(
            &mut text,
            "Backoff",
            &format!("task {} {failed} and is tried again at {until}", retry.index),
        );
    }
    paragraph(&mut text, "Queue", &queue(&explanation.queue));
    lines(&mut text, "Profile", explanation.profile.iter().map(|word| word.message.clone()));
    if let Some(line) = &explanation.line {
        paragraph(&mut text, "Line", &place(line));
    }
    if let Some(nodes) = &explanation.nodes {
        paragraph(&mut text, "Nodes", &fit(nodes));
    }
    let mut progress = format!(
        "{} of {} succeeded; {}, {} running, {} at a time",
        tasks.succeeded,
        tasks.completions,
        count(tasks.live as usize, "pod"),
        tasks.running,
        tasks.parallelism
    );
    for (number, what) in [(tasks.failed, "failed"), (tasks.disrupted, "disrupted")] {
        if number > 0 {
            let _ = write!(progress, "; {number} {what}");
        }
    }
    paragraph(&mut text, "Tasks", &progress);
    lines(
        &mut text,
        "Pods",
        explanation.pods.iter().map(|pod| {
            let node =
                if pod.node.is_empty() { "no node yet".to_owned() } else { format!("on {}", pod.node) };
            let age = span(now.duration_since(pod.created_time).as_secs());
            let obstacle =
                if pod.obstacle.is_empty() { String::new() } else { format!(": {}", pod.obstacle) };
            format!("{} {} {node}, {age} old{obstacle}", pod.name, pod.phase)
        }),
    );
    if let Some(result) = &explanation.result {
        let said = if result.message.is_empty() { String::new() } else { format!(": {}", result.message) };
        paragraph(
            &mut text,
            "Result",
            &format!("exit code {} ({}) on {}{said}", result.exit_code, result.reason, result.node),
        );
    }
    lines(
        &mut text,
        "Failures",
        explanation.last_failures.iter().rev().map(|failure| {
            let said =
                if failure.message.is_empty() { String::new() } else { format!(": {}", failure.message) };
            format!(
                "task {}, attempt {}: exit code {} ({}) on {}{said}",
                failure.index, failure.attempt, failure.exit_code, failure.reason, failure.node
            )
        }),
    );
    lines(
        &mut text,
        "Deadlines",
        explanation.deadlines.iter().map(|deadline| {
            format!("{}, by spec.{}: {}", instant(deadline.time, now), deadline.field, deadline.what)
        }),
    );
    lines(&mut text, "Next", next(&explanation.next_writes));
    if let Some(waits) = &explanation.waits {
        lines(&mut text, "To do", waits.remedies.iter().cloned());
    }
    match (explanation.basis, &explanation.reported) {
        (Basis::Computed, _) => {}
        (Basis::Reported, Some(reported)) => {
            let stale = if reported.is_current { "" } else { ", before the job was edited" };
            let since = instant(reported.since, now);
            let says = format!(
                "by the manager's own word in the job's status, {} since {since}{stale}",
                reported.reason
            );
            paragraph(&mut text, "Rests on", &says);
        }
        (Basis::Reported, None) => {}
    }
    unread(&mut text, not_seen);
    text
}

fn word(state: State) -> &'static str {
    match state {
        State::Waiting => "waits",
        State::Starting => "is starting",
        State::Running => "runs",
        State::Stopped => "is stopped",
        State::Ending => "is ending",
        State::Completed => "has succeeded",
        State::Failed => "has failed",
        State::Foreign => "is run by another controller",
        State::Unknown => "has no pods",
    }
}

fn wait(text: &mut String, waits: &Waits, tells: bool, now: Timestamp) {
    let said = &waits.said;
    // The message stands above already, unless the job also runs.
    let why = match tells && !said.message.is_empty() {
        true => format!("{} {}", said.message, bracketed(&said.meaning)),
        false => said.meaning.clone(),
    };
    paragraph(text, "Why", &format!("{}: {why}", said.reason));
    let until = waits.until.map(|until| format!("; looked at again at {}", instant(until, now)));
    paragraph(text, "Wakes", &format!("{}{}", waits.wakes, until.unwrap_or_default()));
}

fn bracketed(meaning: &str) -> String {
    format!("({})", meaning.trim_end_matches('.'))
}

fn queue(queue: &QueueStanding) -> String {
    let QueueStanding { name, found_by, exists, tier, priority, quota } = queue;
    let mut said = match (name.as_str(), exists) {
        ("", true) => format!("the built-in queue, found by: {found_by}"),
        ("", false) => format!("none, found by {found_by}"),
        (name, true) => format!("{name}, found by: {found_by}"),
        (name, false) => format!("{name}, which does not exist, found by: {found_by}"),
    };
    let _ = write!(said, "; tier {tier:?}, priority {priority}");
    for row in quota {
        let _ =
            write!(said, "; {} used {} of nominal {}, max {}", row.resource, row.used, row.nominal, row.max);
    }
    said
}

fn place(line: &PlaceInLine) -> String {
    if line.outside {
        return format!("outside: the queue has {} that wait already", count(line.waiting, "job"));
    }
    format!(
        "{} ahead of it of {} that wait; in its class (shape {}) {} of {}",
        line.ahead,
        count(line.waiting, "job"),
        line.shape,
        line.class_ahead,
        line.class_waiting
    )
}

fn fit(report: &FitReport) -> String {
    let mut said =
        format!("{}: room for {} on {} of them", count(report.nodes, "node"), report.pods, report.with_room);
    for excluded in &report.excluded {
        let _ = write!(said, "; {}", exclusion(excluded));
    }
    if !report.is_modelled {
        said.push_str(
            "; the pods have constraints that are left to the scheduler, so few of them wait for it at a time",
        );
    }
    said
}

fn exclusion(excluded: &ExcludedNodes) -> String {
    let ExcludedNodes { reason, detail, nodes, examples } = excluded;
    let why = match reason {
        NodeExclusion::Selector => "not selected by nodeSelector or affinity".to_owned(),
        NodeExclusion::Cordoned => "cordoned".to_owned(),
        NodeExclusion::Tainted => format!("tainted {detail}"),
        NodeExclusion::NotReady => "not ready".to_owned(),
        NodeExclusion::TooSmall => format!("too small in {detail}"),
        NodeExclusion::Full => format!("without enough {detail} left"),
    };
    let more = if examples.len() < *nodes { ", ..." } else { "" };
    format!("{nodes} {why} ({}{more})", examples.join(", "))
}

/// What the manager is about to do: what it makes first, then pods, together.
fn next(writes: &[PlannedWrite]) -> Vec<String> {
    let pods = |verb: &str| {
        let named = writes.iter().filter(|write| write.kind == "Pod" && write.verb == verb);
        named.map(|write| write.name.as_str()).collect::<Vec<_>>()
    };
    let others = writes.iter().filter(|write| write.kind != "Pod" && write.verb == "create");
    let mut said: Vec<String> =
        others.map(|write| format!("the manager is about to create {} {}", write.kind, write.name)).collect();
    for (verb, what) in
        [("create", "create"), ("delete", "end or remove"), ("patch", "free of its finalizer")]
    {
        let names = pods(verb);
        if let Some(first) = names.first() {
            let more = if names.len() > 1 { ", ..." } else { "" };
            said.push(format!(
                "the manager is about to {what} {} ({first}{more})",
                count(names.len(), "pod")
            ));
        }
    }
    if writes.iter().any(|write| write.kind == "BatchJob" && write.verb == "delete") {
        said.push("the manager is about to delete the job, whose time is over".to_owned());
    }
    if !said.is_empty() {
        said.push(
            "if that does not happen within seconds, look whether a manager runs and may write".to_owned(),
        );
    }
    said
}

#[cfg(test)]
mod tests;
