//! The answer of `springtide plan` in words.

use super::plan::{Answer, Applied};
use super::text::{count, unread};
use springtide_batch_job::rehearsal::{Explanation, PlannedWrite};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Writes of one job and verb that are named one by one.
const TOLD: usize = 20;

pub(super) fn text(answer: &Answer) -> String {
    let mut text = String::new();
    for object in &answer.objects {
        let _ = writeln!(text, "{}", applied(object));
    }
    let _ = writeln!(text);
    if answer.writes.is_empty() {
        let _ = writeln!(text, "The manager would write nothing for it now.");
    } else {
        let _ = writeln!(text, "The manager would write now ({}):", count(answer.writes.len(), "write"));
        writes(&mut text, &answer.writes);
        let _ = writeln!(text, "and the statuses of the jobs, queues and profiles that these concern.");
    }
    if !answer.spared.is_empty() {
        let _ = writeln!(text, "It would no longer write, though due now:");
        writes(&mut text, &answer.spared);
    }
    for job in &answer.jobs {
        remains(&mut text, job);
    }
    if answer.is_cut {
        let _ = writeln!(text, "There is more: only the first writes were computed.");
    }
    if !answer.sees_nodes {
        let _ = writeln!(
            text,
            "What fits on the nodes is not known: these are the most pods that could be created at first."
        );
    }
    unread(&mut text, &answer.not_seen);
    text
}

fn applied(object: &Applied) -> String {
    let Applied { kind, namespace, name, is_new, is_checked, unchecked_because } = object;
    let what = if *is_new { "created" } else { "changed" };
    let checked = if *is_checked {
        "the API server has tried it and accepts it".to_owned()
    } else {
        format!("NOT checked by the API server, its rules may refuse it: {unchecked_because}")
    };
    format!("{kind} {namespace}/{name} would be {what}; {checked}")
}

/// In groups of one verb and job, in the order of their first write.
fn writes(text: &mut String, writes: &[PlannedWrite]) {
    let mut order = Vec::new();
    let mut groups: BTreeMap<(&str, &str, &str, &str), Vec<&PlannedWrite>> = BTreeMap::new();
    for write in writes {
        let group = (write.verb.as_str(), write.kind.as_str(), write.namespace.as_str(), write.job.as_str());
        if !groups.contains_key(&group) {
            order.push(group);
        }
        groups.entry(group).or_default().push(write);
    }
    for group in order {
        let of_group = groups.remove(&group).unwrap_or_default();
        for write in of_group.iter().take(TOLD) {
            let job = if write.job.is_empty() { String::new() } else { format!(" (bj/{})", write.job) };
            let grace = write.grace_seconds.map(|seconds| format!(", grace {seconds} s")).unwrap_or_default();
            let PlannedWrite { verb, kind, namespace, name, .. } = write;
            let requests = requests(write);
            let kind = kind.to_lowercase();
            let _ = writeln!(text, "  {verb} {kind} {namespace}/{name}{job}{requests}{grace}");
        }
        if of_group.len() > TOLD {
            let (verb, kind, ..) = group;
            let more = count(of_group.len() - TOLD, &kind.to_lowercase());
            let _ = writeln!(text, "  {verb} {more} more like these");
        }
    }
}

/// What a pod requests that is created.
fn requests(write: &PlannedWrite) -> String {
    let requests = write.requests.iter().map(|(resource, amount)| format!(", {resource} {amount}"));
    requests.collect()
}

/// What of a job would still wait, and why.
fn remains(text: &mut String, job: &Explanation) {
    let Explanation { namespace, name, waits, stalled, tasks, .. } = job;
    if let Some(waits) = waits {
        let what = match tasks.startable {
            0 => format!("BatchJob {namespace}/{name}"),
            pods => format!("{} of BatchJob {namespace}/{name}", count(pods as usize, "pod")),
        };
        let _ = writeln!(text, "{what} would wait: {}: {}", waits.said.reason, waits.said.message);
        let _ = writeln!(text, "  until {}", waits.wakes);
    }
    if let Some(stalled) = stalled {
        let _ = writeln!(
            text,
            "BatchJob {namespace}/{name} would be Stalled: {}: {}",
            stalled.reason, stalled.message
        );
    }
}

#[cfg(test)]
mod tests;
