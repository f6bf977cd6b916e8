//! Counting outcomes: the stored progress plus what ended since, each pod exactly once.

use super::state::Attempt;
use super::success;
use crate::failure::{Ending, Exit, Verdict};
use crate::indexes::{Indexes, Retries};
use crate::memory::{Facts, Setback};
use crate::projections::job::JobView;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use springtide_crds::batch_job::{
    EXIT_CODE_ROWS_MAX, ExitCodeCount, FAILURE_MESSAGE_MAX_BYTES, FailureRecord, LAST_FAILURES_MAX,
    MAX_OOM_STEPS, RESULT_MESSAGE_MAX_BYTES, TaskResult,
};
use springtide_crds::common::{bounded_text, whole_seconds};
use springtide_plumbing::projection::Projection;
use std::collections::BTreeMap;

/// Reason of the row of exit codes that takes in what has no row of its own.
const OTHER: &str = "Other";

/// Progress of a job with every outcome in it that can be recorded now.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Which indexes ended, and how often the others failed.
    pub indexes: Indexes,
    /// Completions.
    pub succeeded: u32,
    /// Failures that the record has room for.
    pub failed: u32,
    /// Failures of indexes whose record is full: their pods stay, as records of their own.
    pub kept: BTreeMap<u32, Retries>,
    /// Failures, those of `kept` pods included.
    pub failed_in_all: u32,
    /// How pods ended.
    pub exit_codes: Vec<ExitCodeCount>,
    /// The newest failures.
    pub last_failures: Vec<FailureRecord>,
    /// Outcome of a job with one task.
    pub result: Option<TaskResult>,
    /// The first pod whose failure ends the job, with the rule that says so.
    pub fatal: Option<Fatal>,
    /// When the first pod began to run.
    pub start_time: Option<Time>,
    /// Since when at least one pod runs.
    pub running_since: Option<Time>,
    /// Seconds of the runs before the present one.
    pub running_seconds: u32,
}

/// A failure that ends the job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fatal {
    /// Name of the pod.
    pub pod: String,
    /// Its exit code.
    pub exit_code: i32,
    /// Position of the rule in `spec.podFailurePolicy.rules`.
    pub rule: usize,
}

impl Tally {
    /// Counts the outcomes that `stored` does not. `ending`: the job is about to be final, so that
    /// every outcome counts, whether its index has room in the record or not.
    pub fn count(
        job: &JobView,
        stored: &Indexes,
        pods: &[Attempt],
        facts: &Facts,
        ending: bool,
        now: Timestamp,
    ) -> Self {
        let status = &job.status;
        let mut tally = Self {
            indexes: stored.clone(),
            succeeded: status.succeeded,
            failed: status.failed,
            kept: BTreeMap::new(),
            failed_in_all: status.failed,
            exit_codes: status.exit_codes.clone(),
            last_failures: status.last_failures.clone(),
            result: status.result.clone(),
            fatal: None,
            start_time: status.start_time.clone(),
            running_since: status.running_since_time.clone(),
            running_seconds: status.running_seconds,
        };
        let mut news: BTreeMap<u32, Vec<&Attempt>> = BTreeMap::new();
        if !job.is_finished() {
            for pod in pods.iter().filter(|pod| pod.has_outcome()) {
                if !stored.is_counted(pod.index, pod.attempt) {
                    news.entry(pod.index).or_default().push(pod);
                }
            }
        }
        let mut counted = Vec::new();
        let named = if news.is_empty() { None } else { success::named(job) };
        // What closes an index comes first: it makes room in the record for those that stay open.
        let (closing, open): (Vec<_>, Vec<_>) =
            news.into_iter().partition(|(_, attempts)| attempts.iter().any(|pod| closes(job, pod)));
        for (index, attempts) in closing.into_iter().chain(open) {
            let before = tally.succeeded;
            tally.count_index(job, index, attempts, ending, &mut counted);
            if tally.succeeded > before && named.as_ref().is_some_and(|named| named.contains(index)) {
                tally.indexes.named_succeeded += 1;
            }
        }
        tally.indexes.pack();
        counted.sort_by_key(|pod| (pod.finished(), pod.index, pod.attempt));
        for pod in &counted {
            tally.describe(job, pod);
        }
        tally.measure_time(job, pods, &counted, facts, now);
        tally
    }

    /// How many indexes failed for good.
    pub fn failed_indexes(&self) -> u32 {
        self.indexes.closed().saturating_sub(self.succeeded)
    }

    /// How often an open index failed, and for want of memory.
    pub fn retries(&self, index: u32) -> Retries {
        self.kept.get(&index).copied().unwrap_or_else(|| self.indexes.retries(index))
    }

    /// How often an open index failed.
    pub fn failures(&self, index: u32) -> u32 {
        self.retries(index).failures
    }

    fn count_index<'a>(
        &mut self,
        job: &JobView,
        index: u32,
        mut attempts: Vec<&'a Attempt>,
        ending: bool,
        counted: &mut Vec<&'a Attempt>,
    ) {
        attempts.sort_by_key(|pod| pod.attempt);
        let failures = |pods: &[&Attempt]| super::state::count(pods.iter().filter(|pod| is_failure(pod)));
        let succeeded = attempts.iter().any(|pod| pod.ending == Some(Ending::Succeeded));
        let given_up = attempts.iter().any(|pod| is_failure(pod) && closes(job, pod));
        self.failed_in_all += failures(&attempts);
        for pod in &attempts {
            if let Some(Ending::Failed(Verdict::FailJob { rule })) = &pod.ending {
                let pod = &pod.view;
                self.fatal.get_or_insert_with(|| Fatal {
                    pod: pod.meta().key.name.to_string(),
                    exit_code: Exit::of(pod).code,
                    rule: *rule,
                });
            }
        }
        let before = self.indexes.retries(index);
        let grows = job.spec.retry.on_oom.is_some();
        let ooms = attempts.iter().filter(|pod| grows && is_failure(pod) && Exit::of(&pod.view).is_oom());
        let next = Retries {
            failures: attempts.iter().map(|pod| pod.attempt + 1).max().unwrap_or(0).max(before.failures),
            oom_steps: before.oom_steps.saturating_add(super::state::count(ooms)).min(MAX_OOM_STEPS),
        };
        let recorded = if succeeded {
            self.indexes.close(index)
        } else if given_up {
            self.indexes.give_up(index)
        } else {
            self.indexes.record_failures(index, next)
        };
        if !recorded && !ending {
            self.kept.insert(index, next);
            return;
        }
        if succeeded {
            self.succeeded += 1;
        }
        self.failed += failures(&attempts);
        counted.append(&mut attempts);
    }

    /// Leaves the traces of one counted pod.
    fn describe(&mut self, job: &JobView, pod: &Attempt) {
        let exit = Exit::of(&pod.view);
        count_exit(&mut self.exit_codes, &exit);
        if is_failure(pod) {
            let record = FailureRecord {
                index: pod.index,
                attempt: pod.attempt,
                node: exit.node.clone(),
                exit_code: exit.code,
                reason: exit.reason.clone(),
                message: bounded_text(&exit.message, FAILURE_MESSAGE_MAX_BYTES),
                finish_time: exit.finished.map(whole_seconds),
            };
            self.last_failures.retain(|known| (known.index, known.attempt) != (pod.index, pod.attempt));
            self.last_failures.push(record);
            let surplus = self.last_failures.len().saturating_sub(LAST_FAILURES_MAX);
            self.last_failures.drain(..surplus);
        }
        if job.is_single() {
            self.result = Some(TaskResult {
                exit_code: exit.code,
                signal: exit.signal(),
                message: bounded_text(&exit.message, RESULT_MESSAGE_MAX_BYTES),
                reason: exit.reason,
                node: exit.node,
                finish_time: exit.finished.map(whole_seconds),
            });
        }
    }

    /// A run lasts as long as at least one pod runs; gaps between runs are no running time.
    fn measure_time(
        &mut self,
        job: &JobView,
        pods: &[Attempt],
        counted: &[&Attempt],
        facts: &Facts,
        now: Timestamp,
    ) {
        let running = pods.iter().filter(|pod| pod.is_running());
        let began = running.clone().chain(counted.iter().copied()).filter_map(|pod| pod.started(now)).min();
        if self.start_time.is_none() {
            self.start_time = began.map(whole_seconds);
        }
        let since = self.running_since.clone().or(began.map(whole_seconds));
        let setback = facts.setbacks.values().filter_map(Setback::at).max();
        let first = running.filter_map(|pod| pod.started(now)).min();
        if let Some(first) = first {
            self.running_since = since;
            // Nobody wrote that the run before was disrupted; the pod of now is another run. Of several
            // pods at once others may have gone on.
            if job.spec.completions.min(job.spec.parallelism) == 1
                && let Some(since) = &self.running_since
                && let Some(end) = setback.filter(|end| (since.0..=first).contains(end))
            {
                self.running_seconds = self.running_seconds.saturating_add(seconds_between(since.0, end));
                self.running_since = Some(whole_seconds(first));
            }
            return;
        }
        self.running_since = None;
        if let Some(since) = since {
            let last = counted.iter().filter_map(|pod| pod.finished()).max().map(|last| last.min(now));
            // No outcome: its pods were disrupted.
            let end = last.or(setback.filter(|at| *at >= since.0)).unwrap_or(now);
            self.running_seconds = self.running_seconds.saturating_add(seconds_between(since.0, end));
        }
    }
}

/// Whole seconds from one time to another; none when the clocks of two machines disagree.
pub(super) fn seconds_between(from: Timestamp, to: Timestamp) -> u32 {
    u32::try_from(to.duration_since(from).as_secs()).unwrap_or(0)
}

fn is_failure(pod: &Attempt) -> bool {
    matches!(pod.ending, Some(Ending::Failed(_)))
}

/// Whether this outcome closes its index.
fn closes(job: &JobView, pod: &Attempt) -> bool {
    match &pod.ending {
        Some(Ending::Succeeded | Ending::Failed(Verdict::FailIndex)) => true,
        Some(Ending::Failed(Verdict::Count | Verdict::FailJob { .. })) => {
            job.spec.backoff_limit_per_index.is_some_and(|limit| pod.attempt >= limit)
        }
        Some(Ending::Disrupted) | None => false,
    }
}

fn count_exit(rows: &mut Vec<ExitCodeCount>, exit: &Exit) {
    if let Some(row) = rows.iter_mut().find(|row| row.code == exit.code && row.reason == exit.reason) {
        row.count += 1;
        return;
    }
    let other = rows.iter().position(|row| row.code == 0 && row.reason == OTHER);
    if other.is_none() && rows.len() < EXIT_CODE_ROWS_MAX - 1 {
        rows.push(ExitCodeCount { code: exit.code, reason: exit.reason.clone(), count: 1 });
        return;
    }
    match other {
        Some(at) => rows[at].count += 1,
        None => rows.push(ExitCodeCount { code: 0, reason: OTHER.to_owned(), count: 1 }),
    }
}
