//! Every status of every job of a namespace, and what may never go back.

use std::collections::BTreeMap;

use kube::ResourceExt;
use springtide_crds::batch_job::{BatchJob, BatchJobStatus, CompleteReason, FailedReason, all_reasons};
use springtide_crds::common::{Condition, ConditionStatus, condition};
use springtide_crds::reason::Reason;

use super::feed::{Feed, Fold};

/// A watch on the jobs of one namespace.
pub type JobFeed = Feed<Jobs>;

/// The largest status that the API's users must expect, in bytes of JSON.
const STATUS_MAX_BYTES: usize = 10_000;

/// One job, over all its versions.
#[derive(Debug, Clone)]
pub struct History {
    /// As last seen.
    pub job: BatchJob,
    /// Reasons of condition Complete, in their order, repetitions left out.
    pub reasons: Vec<String>,
    /// Versions seen.
    pub versions: usize,
    /// Whether it is gone.
    pub gone: bool,
}

/// All jobs seen so far, by UID, gone ones too.
#[derive(Debug, Default)]
pub struct Jobs {
    lists: usize,
    histories: BTreeMap<String, History>,
    /// UIDs by name: the newest last.
    names: BTreeMap<String, Vec<String>>,
    finished: usize,
    violations: Vec<String>,
}

impl Jobs {
    /// The newest job of a name, if it is not gone.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&BatchJob> {
        self.history(name).filter(|history| !history.gone).map(|history| &history.job)
    }

    /// The newest job of a name, gone or not.
    #[must_use]
    pub fn history(&self, name: &str) -> Option<&History> {
        self.histories.get(self.names.get(name)?.last()?)
    }

    /// Number of jobs that ended, complete or failed; counted without a look at each.
    #[must_use]
    pub fn finished(&self) -> usize {
        self.finished
    }

    /// All jobs that are not gone.
    pub fn present(&self) -> impl Iterator<Item = &BatchJob> {
        self.histories.values().filter(|history| !history.gone).map(|history| &history.job)
    }

    /// What may never be seen, whatever a test does.
    #[must_use]
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    fn judge(&mut self, before: Option<&BatchJob>, job: &BatchJob) {
        let (empty, none) = (BatchJobStatus::default(), BatchJobStatus::default());
        let status = job.status.as_ref().unwrap_or(&empty);
        let earlier = before.and_then(|job| job.status.as_ref()).unwrap_or(&none);
        let mut wrong = Vec::new();
        let mut hold = |what: &str, holds: bool| {
            if !holds {
                wrong.push(what.to_owned());
            }
        };
        hold("succeeded went back", status.succeeded >= earlier.succeeded);
        hold("failed went back", status.failed >= earlier.failed);
        hold("observedGeneration went back", status.observed_generation >= earlier.observed_generation);
        let generation = job.metadata.generation.unwrap_or_default();
        hold("observedGeneration is ahead", status.observed_generation <= generation);
        let closed =
            |status: &BatchJobStatus| status.indexes.as_ref().map_or(0, |indexes| indexes.closed_below);
        hold("closedBelow went back", closed(status) >= closed(earlier));
        hold("more succeeded than completions", status.succeeded <= job.spec.completions);
        let size = serde_json::to_vec(status).map_or(usize::MAX, |bytes| bytes.len());
        hold("the status is too large", size <= STATUS_MAX_BYTES);
        for condition in &status.conditions {
            let known = all_reasons().into_iter().any(|doc| {
                doc.condition == condition.type_
                    && doc.reason == condition.reason
                    && doc.status == condition.status
            });
            hold(&format!("{condition:?} is not documented"), known);
        }
        if ended(earlier) {
            hold("it ended and goes on", ended(status));
            hold("its end changed", outcome(earlier) == outcome(status));
        }
        if ended(status) {
            hold("it ended without completionTime", status.completion_time.is_some());
            hold("it ended and is Reconciling", condition(&status.conditions, "Reconciling").is_none());
        }
        self.violations.extend(
            wrong.into_iter().map(|what| {
                format!("{}: {what}: {} after {}", job.name_any(), shown(status), shown(earlier))
            }),
        );
    }
}

impl Fold for Jobs {
    type Object = BatchJob;

    fn apply(&mut self, job: BatchJob) {
        let uid = job.uid().unwrap_or_default();
        let before = self.histories.remove(&uid);
        self.judge(before.as_ref().map(|history| &history.job), &job);
        let mut history = before.unwrap_or_else(|| {
            self.names.entry(job.name_any()).or_default().push(uid.clone());
            History { job: job.clone(), reasons: Vec::new(), versions: 0, gone: false }
        });
        let was_finished = history.versions > 0 && is_finished(&history.job);
        if is_finished(&job) && !was_finished {
            self.finished += 1;
        }
        let reason = complete(&job).map(|condition| condition.reason.clone()).unwrap_or_default();
        if history.reasons.last() != Some(&reason) {
            history.reasons.push(reason);
        }
        history.versions += 1;
        history.job = job;
        self.histories.insert(uid, history);
    }

    fn delete(&mut self, job: &BatchJob) {
        if let Some(history) = self.histories.get_mut(&job.uid().unwrap_or_default()) {
            history.gone = true;
        }
    }

    fn relisted(&mut self, present: &[BatchJob]) {
        self.lists += 1;
        for (uid, history) in &mut self.histories {
            history.gone |= !present.iter().any(|job| job.metadata.uid.as_ref() == Some(uid));
        }
    }

    fn describe(&self) -> String {
        let open = self.histories.values().filter(|history| !history.gone && !is_finished(&history.job));
        let open: Vec<_> = open
            .take(20)
            .map(|History { job, reasons, .. }| {
                let status = job.status.as_ref().map(shown).unwrap_or_default();
                format!("{} {reasons:?} {status}", job.name_any())
            })
            .collect();
        format!("{} finished; unfinished:\n{}", self.finished, open.join("\n"))
    }
}

/// Condition Complete of a job.
#[must_use]
pub fn complete(job: &BatchJob) -> Option<&Condition> {
    condition(&job.status.as_ref()?.conditions, CompleteReason::CONDITION)
}

/// Whether a job ended, complete or failed.
#[must_use]
pub fn is_finished(job: &BatchJob) -> bool {
    job.status.as_ref().is_some_and(ended)
}

/// Whether a job has a condition with exactly this reason and its status.
#[must_use]
pub fn has<R: Reason>(job: &BatchJob, reason: &R) -> bool {
    let conditions = job.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    condition(conditions, R::CONDITION)
        .is_some_and(|found| found.reason == reason.as_str() && found.status == reason.status())
}

/// What kstatus, and with it Flux and `kubectl wait`-like tools, says of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kstatus {
    /// It is not yet as its spec wants it.
    InProgress,
    /// It will not become so without help.
    Failed,
    /// It is as its spec wants it.
    Current,
    /// It is being deleted.
    Terminating,
}

/// The rules of kstatus for a kind that it does not know
/// (sigs.k8s.io/cli-utils, `pkg/kstatus/status/generic.go`), as far as they read
/// fields that a BatchJob has.
#[must_use]
pub fn kstatus(job: &BatchJob) -> Kstatus {
    if job.metadata.deletion_timestamp.is_some() {
        return Kstatus::Terminating;
    }
    let Some(status) = &job.status else { return Kstatus::Current };
    if job.metadata.generation != Some(status.observed_generation) {
        return Kstatus::InProgress;
    }
    // In the order of the list: the first of the two that holds decides.
    let decisive =
        status.conditions.iter().filter(|found| found.status == ConditionStatus::True).find_map(|found| {
            match found.type_.as_str() {
                "Reconciling" => Some(Kstatus::InProgress),
                "Stalled" => Some(Kstatus::Failed),
                _ => None,
            }
        });
    decisive.unwrap_or(Kstatus::Current)
}

fn ended(status: &BatchJobStatus) -> bool {
    [CompleteReason::CONDITION, FailedReason::CONDITION].into_iter().any(|type_| {
        condition(&status.conditions, type_).is_some_and(|found| found.status == ConditionStatus::True)
    })
}

/// What must stay once a job ended.
fn outcome(status: &BatchJobStatus) -> impl PartialEq + use<> {
    let reason = condition(&status.conditions, CompleteReason::CONDITION).map(|found| found.reason.clone());
    (reason, status.succeeded, status.failed, status.completion_time.clone())
}

fn shown(status: &BatchJobStatus) -> String {
    serde_json::to_string(status).unwrap_or_else(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn job(status: Value) -> BatchJob {
        serde_json::from_value(json!({
            "apiVersion": "springtide.dev/v1alpha1", "kind": "BatchJob",
            "metadata": {"name": "a", "uid": "1", "generation": 1},
            "spec": {"completions": 3, "template": {"spec": {"containers": []}}},
            "status": status,
        }))
        .unwrap()
    }

    fn status(reason: &str, holds: &str, succeeded: u32) -> Value {
        let mut status = json!({
            "observedGeneration": 1, "active": 0, "succeeded": succeeded, "failed": 0,
            "conditions": [{
                "type": "Complete", "status": holds, "observedGeneration": 1, "reason": reason, "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }],
        });
        if holds == "True" {
            status["completionTime"] = "2026-01-01T00:00:00Z".into();
        }
        status
    }

    fn judged(versions: impl IntoIterator<Item = Value>) -> Jobs {
        let mut jobs = Jobs::default();
        versions.into_iter().for_each(|status| jobs.apply(job(status)));
        jobs
    }

    #[test]
    fn a_plain_life_has_no_violation() {
        let jobs = judged([
            status("Pending", "Unknown", 0),
            status("Running", "False", 1),
            status("Running", "False", 2),
            status("Completed", "True", 3),
        ]);
        assert_eq!(jobs.violations(), [] as [String; 0]);
        assert_eq!(jobs.finished(), 1);
        assert_eq!(jobs.history("a").unwrap().reasons, ["Pending", "Running", "Completed"]);
    }

    #[test]
    fn what_may_never_go_back_is_seen() {
        let cases = [
            ("succeeded went back", vec![status("Running", "False", 2), status("Running", "False", 1)]),
            ("more succeeded than completions", vec![status("Running", "False", 4)]),
            ("is not documented", vec![status("Running", "True", 0)]),
            ("is not documented", vec![status("Resting", "False", 0)]),
            ("it ended and goes on", vec![status("Completed", "True", 3), status("Running", "False", 3)]),
            ("its end changed", vec![status("Completed", "True", 2), status("Completed", "True", 3)]),
        ];
        for (what, versions) in cases {
            let jobs = judged(versions);
            assert!(
                jobs.violations().iter().any(|seen| seen.contains(what)),
                "{what}: {:?}",
                jobs.violations()
            );
        }
    }

    #[test]
    fn kstatus_reads_generation_and_the_first_decisive_condition() {
        let with = |types: &[&str]| {
            let mut status = status("Running", "False", 0);
            for type_ in types {
                let condition = json!({
                    "type": type_, "status": "True", "observedGeneration": 1, "reason": "Running", "message": "",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                });
                status["conditions"].as_array_mut().unwrap().push(condition);
            }
            job(status)
        };
        assert_eq!(kstatus(&with(&[])), Kstatus::Current);
        assert_eq!(kstatus(&with(&["Reconciling"])), Kstatus::InProgress);
        assert_eq!(kstatus(&with(&["Stalled", "Reconciling"])), Kstatus::Failed);
        let mut edited = with(&[]);
        edited.metadata.generation = Some(2);
        assert_eq!(kstatus(&edited), Kstatus::InProgress);
    }
}
