//! `springtide plan` of BatchJobs and BatchQueues: what a manifest would lead to.

use super::world;
use crate::cli::plan::Answer;
use crate::cli::read::Cluster;
use crate::cli::text::count;
use crate::cli::{RehearsalArgs, Verdict};
use anyhow::Result;
use springtide_batch_job::projections::job::JobView;
use springtide_batch_job::projections::queue::QueueView;
use springtide_batch_job::rehearsal::{Explanation, PlannedWrite, caused_by};
use springtide_plumbing::key::ObjectKey;
use springtide_plumbing::projection::Projection;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

/// Writes of one job and verb that are named one by one.
const TOLD: usize = 20;

/// Adds what these jobs and queues lead to.
///
/// # Errors
/// The API server cannot be asked, or not even the namespace may be read.
pub(in crate::cli) async fn add(
    answer: &mut Answer,
    cluster: &Cluster,
    args: &RehearsalArgs,
    jobs: Vec<Arc<JobView>>,
    queues: Vec<Arc<QueueView>>,
) -> Result<()> {
    let seen = world::read(cluster, super::settings(args)?).await?;
    answer.sees_nodes = seen.world.nodes.is_some();
    let keys: Vec<ObjectKey> = jobs.iter().map(|job| job.meta().key.clone()).collect();
    let difference = caused_by(&seen.world, jobs, queues, answer.time);
    answer.jobs = keys.iter().filter_map(|key| difference.after.explain(key)).collect();
    answer.writes = difference.writes;
    answer.spared = difference.spared;
    answer.is_cut = difference.is_cut;
    answer.not_seen.extend(seen.unread);
    Ok(())
}

/// How a job stands after the writes.
pub(in crate::cli) fn verdict(job: &Explanation) -> Verdict {
    if job.stalled.is_some() {
        Verdict::Stalled
    } else if job.waits.is_some() {
        Verdict::NotReady
    } else {
        Verdict::Fine
    }
}

/// The writes for jobs, and what would remain, in words.
pub(in crate::cli) fn text(text: &mut String, answer: &Answer) {
    if answer.writes.is_empty() {
        let _ = writeln!(text, "The manager would write nothing for it now.");
    } else {
        let _ = writeln!(text, "The manager would write now ({}):", count(answer.writes.len(), "write"));
        writes(text, &answer.writes);
        let _ = writeln!(text, "and the statuses of the jobs and queues that these concern.");
    }
    if !answer.spared.is_empty() {
        let _ = writeln!(text, "It would no longer write, though due now:");
        writes(text, &answer.spared);
    }
    for job in &answer.jobs {
        remains(text, job);
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
            let _ = writeln!(text, "  {verb} {} {namespace}/{name}{job}{grace}", kind.to_lowercase());
        }
        if of_group.len() > TOLD {
            let (verb, kind, ..) = group;
            let more = count(of_group.len() - TOLD, &kind.to_lowercase());
            let _ = writeln!(text, "  {verb} {more} more like these");
        }
    }
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
