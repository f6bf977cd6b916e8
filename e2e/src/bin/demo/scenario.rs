//! What the demo runs, the samples of BatchJob, and how each of them must end.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use springtide_crds::batch_job::{BatchJob, CompleteReason, FailedReason, TaskResult};
use springtide_crds::common::{Condition, condition};
use springtide_crds::reason::Reason;
use springtide_crds::samples::{self, Sample};
use springtide_e2e::kwok::{
    EXIT_CODE, EXIT_CODE_INDEX, RUN_SECONDS, TERMINATION_MESSAGE, TERMINATION_REASON,
};

/// Namespace of the samples: a newcomer's kubectl then needs no flag.
pub(crate) const NAMESPACE: &str = "default";
/// The samples as a pattern that kubectl expands, from the root of the repository.
pub(crate) const SAMPLES: &str = "config/samples/batchjob-*.yaml";

/// An argument in the place of which the kubelet puts the number of the task.
const INDEX: &str = "$(JOB_COMPLETION_INDEX)";

/// The samples of that pattern. What it leaves out waits for somebody, or for a queue.
pub(crate) fn batch_jobs() -> Vec<Sample> {
    samples::batch_jobs().into_iter().filter(|sample| sample.file.starts_with("batchjob-")).collect()
}

/// How a job must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// All completions succeed.
    Completed,
    /// So many completions succeed, which its policy takes for enough; one that was under way may succeed besides.
    Enough(u32),
    /// It fails for this reason, after so many failed pods.
    Failed(FailedReason, u32),
}

/// What must stand in the status of a job with one task after its pod is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Outcome {
    exit_code: i32,
    reason: &'static str,
    /// The termination message; where there is none, any text is fine.
    message: Option<&'static str>,
}

/// A job of the demo.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    /// Name of the job.
    pub(crate) job: String,
    /// Completions that it asks for.
    pub(crate) completions: u32,
    /// Pods that it would like to have at a time.
    pub(crate) parallelism: u32,
    end: End,
    outcome: Option<Outcome>,
}

/// All jobs of the demo, in the order of their samples.
///
/// # Errors
/// A sample is not a BatchJob, or has no expectation here.
pub(crate) fn jobs() -> Result<Vec<Expected>> {
    batch_jobs().iter().map(expected).collect()
}

fn expected(sample: &Sample) -> Result<Expected> {
    let job: BatchJob = serde_json::from_value(sample.object.clone())
        .with_context(|| format!("the sample {} is not a BatchJob", sample.file))?;
    let outcome = |exit_code, reason, message| Some(Outcome { exit_code, reason, message });
    let (end, outcome) = match sample.file {
        "batchjob-hello" => (End::Completed, outcome(0, "Completed", Some("hello from springtide"))),
        "batchjob-indexed" | "batchjob-more-than-fits" | "batchjob-gang" | "batchjob-release" => {
            (End::Completed, None)
        }
        "batchjob-recurring" | "batchjob-deadlines" => (End::Completed, outcome(0, "Completed", None)),
        "batchjob-success-policy" => (End::Enough(4), None),
        "batchjob-per-index" => (End::Failed(FailedReason::FailedIndexes, 5), None),
        "batchjob-failure-policy" => {
            (End::Failed(FailedReason::PodFailurePolicy, 1), outcome(42, "Error", Some("no such customer")))
        }
        "batchjob-out-of-memory" => {
            (End::Failed(FailedReason::BackoffLimitExceeded, 2), outcome(137, "OOMKilled", None))
        }
        other => bail!("the demo does not know how the sample {other} ends"),
    };
    Ok(Expected {
        job: job.metadata.name.context("a sample has a name")?,
        completions: job.spec.completions,
        parallelism: job.spec.parallelism,
        end,
        outcome,
    })
}

impl Expected {
    /// The end that is expected, in words.
    pub(crate) fn in_words(&self) -> String {
        match self.end {
            End::Completed => format!("Completed, {} of {0} succeeded", self.completions),
            End::Enough(enough) => {
                format!("SuccessPolicyMet, at least {enough} of {} succeeded", self.completions)
            }
            End::Failed(reason, pods) => format!("{}, {pods} failed", reason.as_str()),
        }
    }

    /// What is missing of the expected end, one sentence each; empty when all is there.
    pub(crate) fn missing(&self, job: Option<&BatchJob>) -> Vec<String> {
        let name = &self.job;
        let Some(status) = job.and_then(|job| job.status.as_ref()) else {
            return vec![format!("{name}: there is no such job")];
        };
        let mut missing = Vec::new();
        let reached = match self.end {
            End::Completed => holds(&status.conditions, CompleteReason::Completed),
            End::Enough(_) => holds(&status.conditions, CompleteReason::SuccessPolicyMet),
            End::Failed(reason, _) => holds(&status.conditions, reason),
        };
        if !reached {
            let now = state(job).unwrap_or("no state");
            missing.push(format!("{name}: should end as {}, is {now}", self.in_words()));
        }
        let (what, seen, wanted) = match self.end {
            End::Completed => ("succeeded", status.succeeded, self.completions),
            End::Enough(enough) => ("succeeded", status.succeeded.min(enough), enough),
            End::Failed(_, pods) => ("failed", status.failed, pods),
        };
        if seen != wanted {
            missing.push(format!("{name}: {wanted} pods should have {what}, status says {seen}"));
        }
        if let Some(wanted) = self.outcome
            && !status.result.as_ref().is_some_and(|result| wanted.is(result))
        {
            let seen = status.result.as_ref().map_or_else(|| "none".to_owned(), show_result);
            missing
                .push(format!("{name}: {} should stand in its status, there is {seen}", wanted.in_words()));
        }
        missing
    }
}

impl Outcome {
    fn is(&self, result: &TaskResult) -> bool {
        result.exit_code == self.exit_code
            && result.reason == self.reason
            && self.message.is_none_or(|message| result.message == message)
    }

    fn in_words(&self) -> String {
        let message = self.message.map(|message| format!(" {message:?}")).unwrap_or_default();
        format!("exit {} {}{message}", self.exit_code, self.reason)
    }
}

/// The outcome of a job's one task, in words.
pub(crate) fn show_result(result: &TaskResult) -> String {
    let message = match result.message.as_str() {
        "" => String::new(),
        message => format!(" {message:?}"),
    };
    format!("exit {} {}{message}", result.exit_code, result.reason)
}

fn holds<R: Reason>(conditions: &[Condition], reason: R) -> bool {
    let status = reason.status();
    condition(conditions, R::CONDITION).is_some_and(|found| found.status == status && found.is(reason))
}

/// Where a job stands: the reason of its summary condition.
pub(crate) fn state(job: Option<&BatchJob>) -> Option<&str> {
    let status = job?.status.as_ref()?;
    Some(condition(&status.conditions, CompleteReason::CONDITION)?.reason.as_str())
}

/// Whether a job has ended, well or not.
pub(crate) fn has_ended(job: &BatchJob) -> bool {
    let conditions = job.status.as_ref().map_or(&[][..], |status| &status.conditions);
    holds(conditions, CompleteReason::Completed)
        || holds(conditions, CompleteReason::SuccessPolicyMet)
        || FailedReason::all().into_iter().any(|reason| holds(conditions, reason))
}

/// Writes the samples for nodes that KWOK plays into a folder, and gives the pattern
/// for kubectl. They are the same samples; annotations of the pods say what the
/// containers would do.
///
/// # Errors
/// A sample's container has arguments that are not those of the example program, or
/// the folder cannot be written.
pub(crate) fn write_for_kwok(folder: &Path) -> Result<String> {
    for sample in batch_jobs() {
        let mut object = sample.object;
        annotate(&mut object).with_context(|| format!("play the sample {} by KWOK", sample.file))?;
        let path = folder.join(format!("{}.yaml", sample.file));
        let text = serde_yaml::to_string(&object).with_context(|| format!("write {}", sample.file))?;
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(folder.join("batchjob-*.yaml").display().to_string())
}

/// Says in annotations of the template what the program in its container would do.
fn annotate(job: &mut Value) -> Result<()> {
    let template = &mut job["spec"]["template"];
    let container = &template["spec"]["containers"][0];
    let args: Vec<&str> = container["args"]
        .as_array()
        .context("its container has no args")?
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let (seconds, code, reason, message) = match args.as_slice() {
        ["sleep", seconds, message @ ..] => (*seconds, "0", "Completed", message),
        ["exit", INDEX, message @ ..] => ("0.1", EXIT_CODE_INDEX, "", message),
        ["exit", "0", message @ ..] => ("0.1", "0", "Completed", message),
        ["exit", code, message @ ..] => ("0.1", *code, "Error", message),
        ["alloc", bytes, message @ ..] => {
            let limit =
                container["resources"]["limits"]["memory"].as_str().context("it has no memory limit")?;
            match mebibytes(bytes)? > mebibytes(limit)? {
                true => ("0.5", "137", "OOMKilled", message),
                false => ("0.5", "0", "Completed", message),
            }
        }
        other => bail!("unknown arguments {other:?}"),
    };
    let mut annotations = json!({
        RUN_SECONDS: seconds,
        EXIT_CODE: code,
        TERMINATION_MESSAGE: message.first().copied().unwrap_or_default(),
    });
    // Of what ends as its number says, KWOK knows the reason by the code.
    if !reason.is_empty() {
        annotations[TERMINATION_REASON] = json!(reason);
    }
    template["metadata"]["annotations"] = annotations;
    Ok(())
}

/// The samples give memory in `Mi`.
fn mebibytes(quantity: &str) -> Result<u32> {
    let number = quantity.strip_suffix("Mi").and_then(|number| number.parse().ok());
    number.with_context(|| format!("{quantity:?} is not a number of Mi"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(name: &str, status: Value) -> BatchJob {
        let sample =
            batch_jobs().into_iter().find(|sample| sample.object["metadata"]["name"] == name).unwrap();
        let mut object = sample.object;
        object["status"] = status;
        serde_json::from_value(object).unwrap()
    }

    fn expectation(name: &str) -> Expected {
        jobs().unwrap().into_iter().find(|expected| expected.job == name).unwrap()
    }

    fn condition(type_: &str, status: &str, reason: &str) -> Value {
        json!({ "type": type_, "status": status, "reason": reason, "lastTransitionTime": "2026-01-01T00:00:00Z" })
    }

    #[test]
    fn every_sample_has_an_expectation_and_a_file() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/samples");
        let mut files: Vec<String> = std::fs::read_dir(root)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with("batchjob-"))
            .collect();
        files.sort();
        let mut samples: Vec<String> =
            batch_jobs().iter().map(|sample| format!("{}.yaml", sample.file)).collect();
        samples.sort();
        assert_eq!(files, samples);
        assert_eq!(jobs().unwrap().len(), samples.len());
    }

    #[test]
    fn the_expected_end_misses_nothing() {
        let hello = ended(
            "hello",
            json!({
                "succeeded": 1,
                "conditions": [condition("Complete", "True", "Completed")],
                "result": { "exitCode": 0, "reason": "Completed", "message": "hello from springtide" },
            }),
        );
        assert!(has_ended(&hello));
        assert_eq!(expectation("hello").missing(Some(&hello)), Vec::<String>::new());
        let failed = ended(
            "failure-policy",
            json!({
                "failed": 1,
                "conditions": [
                    condition("Complete", "False", "PodFailurePolicy"),
                    condition("Failed", "True", "PodFailurePolicy"),
                ],
                "result": { "exitCode": 42, "reason": "Error", "message": "no such customer" },
            }),
        );
        assert!(has_ended(&failed));
        assert_eq!(expectation("failure-policy").missing(Some(&failed)), Vec::<String>::new());
    }

    #[test]
    fn a_success_policy_is_met_by_enough_and_not_by_less() {
        let met = |succeeded: u32| {
            let conditions = [condition("Complete", "True", "SuccessPolicyMet")];
            ended("success-policy", json!({ "succeeded": succeeded, "conditions": conditions }))
        };
        let expected = expectation("success-policy");
        for succeeded in [4, 5] {
            assert!(has_ended(&met(succeeded)));
            assert_eq!(expected.missing(Some(&met(succeeded))), Vec::<String>::new());
        }
        assert_eq!(
            expected.missing(Some(&met(3))),
            ["success-policy: 4 pods should have succeeded, status says 3"]
        );
        let all = ended(
            "success-policy",
            json!({ "succeeded": 10, "conditions": [condition("Complete", "True", "Completed")] }),
        );
        let missing = expected.missing(Some(&all));
        assert_eq!(
            missing,
            ["success-policy: should end as SuccessPolicyMet, at least 4 of 10 succeeded, is Completed"]
        );
    }

    #[test]
    fn each_missing_part_is_named() {
        let running = ended(
            "failure-policy",
            json!({ "conditions": [condition("Complete", "False", "Running")], "failed": 0 }),
        );
        assert!(!has_ended(&running));
        let missing = expectation("failure-policy").missing(Some(&running));
        assert_eq!(
            missing,
            [
                "failure-policy: should end as PodFailurePolicy, 1 failed, is Running",
                "failure-policy: 1 pods should have failed, status says 0",
                "failure-policy: exit 42 Error \"no such customer\" should stand in its status, there is none",
            ]
        );
        assert_eq!(expectation("hello").missing(None), ["hello: there is no such job"]);
        let wrong = ended(
            "out-of-memory",
            json!({
                "failed": 2,
                "conditions": [condition("Failed", "True", "BackoffLimitExceeded")],
                "result": { "exitCode": 1, "reason": "Error" },
            }),
        );
        let missing = expectation("out-of-memory").missing(Some(&wrong));
        assert_eq!(
            missing,
            ["out-of-memory: exit 137 OOMKilled should stand in its status, there is exit 1 Error"]
        );
    }

    #[test]
    fn kwok_plays_what_the_program_does() {
        let folder = tempfile::tempdir().unwrap();
        let pattern = write_for_kwok(folder.path()).unwrap();
        assert_eq!(pattern, folder.path().join("batchjob-*.yaml").display().to_string());
        let annotations = |file: &str| {
            let text = std::fs::read_to_string(folder.path().join(file)).unwrap();
            let object: Value = serde_yaml::from_str(&text).unwrap();
            object["spec"]["template"]["metadata"]["annotations"].clone()
        };
        let failing = annotations("batchjob-failure-policy.yaml");
        assert_eq!(failing[EXIT_CODE], "42");
        assert_eq!(failing[TERMINATION_MESSAGE], "no such customer");
        let hungry = annotations("batchjob-out-of-memory.yaml");
        assert_eq!((&hungry[EXIT_CODE], &hungry[TERMINATION_REASON]), (&json!("137"), &json!("OOMKilled")));
        assert_eq!(annotations("batchjob-more-than-fits.yaml")[RUN_SECONDS], "4");
        let by_number = annotations("batchjob-per-index.yaml");
        assert_eq!((&by_number[EXIT_CODE], &by_number[TERMINATION_REASON]), (&json!("index"), &Value::Null));
    }
}
