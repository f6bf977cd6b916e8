//! What came of the demo, read back from the API server and its audit log after
//! everything has ended.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};
use springtide_crds::batch_job::{BatchJob, BatchJobStatus};
use springtide_e2e::manager::USER_AGENT;
use springtide_e2e::write_count::{AuditLog, Verb, WriteCount};

use super::home::Cluster;
use super::live::{Capacity, Peak};
use super::scenario::{Expected, NAMESPACE, batch_jobs, show_result, state};
use super::table::cores;

/// The verdict.
#[derive(Debug)]
pub(crate) struct Summary {
    /// For people.
    pub(crate) text: String,
    /// Expected outcomes that are not there; empty when all is well.
    pub(crate) missing: Vec<String>,
}

/// Everything that is read, and what the watch has seen.
struct Facts {
    jobs: BTreeMap<String, BatchJob>,
    pods_left: Vec<String>,
    /// Writes of the manager, leases apart.
    writes: WriteCount,
    peak: Peak,
    capacity: Capacity,
}

/// Reads everything back and judges it. `peak` is what a watch saw meanwhile: of the
/// past, the API knows only what is in the audit log.
///
/// # Errors
/// The API server does not answer, or the audit log cannot be read.
pub(crate) async fn read_back(
    client: &Client,
    cluster: &Cluster,
    expected: &[Expected],
    peak: &Peak,
    capacity: Capacity,
) -> Result<Summary> {
    let all = ListParams::default();
    let jobs =
        Api::<BatchJob>::namespaced(client.clone(), NAMESPACE).list(&all).await.context("list the jobs")?;
    let pods = Api::<Pod>::all(client.clone()).list(&all).await.context("list the pods")?;
    let log = AuditLog::at(&cluster.audit_log);
    let facts = Facts {
        jobs: jobs.into_iter().map(|job| (job.name_any(), job)).collect(),
        pods_left: pods.into_iter().map(|pod| pod.name_any()).collect(),
        writes: log.all()?.by_agent(USER_AGENT).writes().without_leases(),
        peak: peak.clone(),
        capacity,
    };
    facts.judge(expected)
}

impl Facts {
    fn judge(&self, expected: &[Expected]) -> Result<Summary> {
        let mut text = String::new();
        let mut missing = Vec::new();
        for job in expected {
            let without = job.missing(self.jobs.get(&job.job));
            self.describe(job, without.is_empty(), &mut text)?;
            missing.extend(without);
        }
        let Self { peak, capacity, pods_left, .. } = self;
        let pods = self.pods_created("");
        writeln!(
            text,
            "At most {} pods were running or about to run at once. Together they asked for {} of the {} CPUs that the node offers.",
            peak.pods,
            cores(peak.cpu_millis),
            cores(capacity.cpu_millis)
        )?;
        writeln!(
            text,
            "Of the {pods} pods {} are left. The manager wrote {} times in all, the audit log says.",
            pods_left.len(),
            self.writes.len(),
        )?;
        if peak.cpu_millis > capacity.cpu_millis {
            missing.push("pods asked for more CPU than the node offers".to_owned());
        }
        if !pods_left.is_empty() {
            missing.push(format!("no pod should be left, there are {}", pods_left.join(", ")));
        }
        Ok(Summary { text, missing })
    }

    fn describe(&self, expected: &Expected, good: bool, text: &mut String) -> Result<()> {
        let name = &expected.job;
        let job = self.jobs.get(name);
        let status = job.and_then(|job| job.status.as_ref());
        let samples = batch_jobs();
        let sample = samples.iter().find(|sample| sample.object["metadata"]["name"] == name.as_str());
        let doc = sample.map_or("", |sample| sample.doc);
        writeln!(text, "{} {name}: {doc}", if good { "ok     " } else { "MISSING" })?;
        writeln!(text, "          expected  {}", expected.in_words())?;
        writeln!(text, "          seen      {}", seen(job, expected))?;
        writeln!(text, "          outcome   {}", status.map_or_else(|| "none".to_owned(), outcome))?;
        let pods = self.pods_created(name);
        let at_once = self.peak.pods_of.get(name).copied().unwrap_or_default();
        writeln!(
            text,
            "          pods      {pods} in all, at most {at_once} at once of the {} it wanted",
            expected.parallelism
        )?;
        let writes = self.writes.filter(|request| job_of(&request.resource, &request.name) == name).len();
        writeln!(text, "          writes    {writes} by the manager\n")?;
        Ok(())
    }

    /// Pods that the manager created for a job, or for all.
    fn pods_created(&self, job: &str) -> usize {
        let created = self.writes.of_verb(Verb::Create).of_resource("pods").successful();
        created.filter(|request| job.is_empty() || job_of(&request.resource, &request.name) == job).len()
    }
}

/// The end of a job as its status tells it.
fn seen(job: Option<&BatchJob>, expected: &Expected) -> String {
    let Some(status) = job.and_then(|job| job.status.as_ref()) else {
        return "no such job".to_owned();
    };
    let succeeded = format!("{} of {} succeeded", status.succeeded, expected.completions);
    let failed = format!("{} failed", status.failed);
    let counts = match (status.succeeded, status.failed) {
        (_, 0) => succeeded,
        (0, _) => failed,
        _ => format!("{succeeded}, {failed}"),
    };
    format!("{}, {counts}", state(job).unwrap_or("no state"))
}

/// How the pods of a job ended, which stands in its status after they are gone.
fn outcome(status: &BatchJobStatus) -> String {
    if let Some(result) = &status.result {
        return show_result(result);
    }
    let rows =
        status.exit_codes.iter().map(|row| format!("exit {} {} ({} pods)", row.code, row.reason, row.count));
    let rows: Vec<String> = rows.collect();
    if rows.is_empty() { "none".to_owned() } else { rows.join(", ") }
}

/// The job for which something was written, by the name of what was written: the job
/// itself, a pod `<job>-<index>-<failures>`, or an event `<object>.<number>`.
fn job_of<'a>(resource: &str, name: &'a str) -> &'a str {
    let kind = resource.split('/').next().unwrap_or_default();
    let object = match kind {
        "events" => name.rsplit_once('.').map_or(name, |(object, _)| object),
        _ => name,
    };
    let numbers = object.rsplit_once('-').and_then(|(rest, failures)| {
        let (job, index) = rest.rsplit_once('-')?;
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        (is_number(index) && is_number(failures)).then_some(job)
    });
    match (kind, numbers) {
        ("batchjobs", _) | (_, None) => object,
        (_, Some(job)) => job,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn writes_are_told_apart_by_job() {
        for (resource, name, job) in [
            ("batchjobs/status", "more-than-fits", "more-than-fits"),
            ("batchjobs", "run-1-2", "run-1-2"),
            ("pods", "more-than-fits-12-0", "more-than-fits"),
            ("pods/status", "a-0-3", "a"),
            ("events", "indexed.18a2", "indexed"),
            ("events", "indexed-3-0.18a2", "indexed"),
            ("pods", "stranger", "stranger"),
        ] {
            assert_eq!(job_of(resource, name), job, "{resource} {name}");
        }
    }

    fn facts(pods_left: &[&str], cpu_millis: u64) -> Facts {
        let status = json!({
            "succeeded": 1,
            "conditions": [{
                "type": "Complete",
                "status": "True",
                "reason": "Completed",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }],
            "result": { "exitCode": 0, "reason": "Completed", "message": "hello from springtide" },
        });
        let sample =
            batch_jobs().into_iter().find(|sample| sample.object["metadata"]["name"] == "hello").unwrap();
        let mut object = sample.object;
        object["status"] = status;
        Facts {
            jobs: BTreeMap::from([("hello".to_owned(), serde_json::from_value(object).unwrap())]),
            pods_left: pods_left.iter().map(|&pod| pod.to_owned()).collect(),
            writes: WriteCount::default(),
            peak: Peak { pods: 1, cpu_millis, pods_of: BTreeMap::from([("hello".to_owned(), 1)]) },
            capacity: Capacity { cpu_millis: 2000 },
        }
    }

    #[test]
    fn the_verdict_follows_the_facts() {
        let hello: Vec<Expected> =
            super::super::scenario::jobs().unwrap().into_iter().filter(|job| job.job == "hello").collect();
        let good = facts(&[], 2000).judge(&hello).unwrap();
        assert_eq!(good.missing, Vec::<String>::new());
        assert!(good.text.starts_with("ok      hello: "), "{}", good.text);
        assert!(good.text.contains("outcome   exit 0 Completed \"hello from springtide\""), "{}", good.text);
        let bad = facts(&["hello-0-0"], 2100).judge(&hello).unwrap();
        assert_eq!(
            bad.missing,
            ["pods asked for more CPU than the node offers", "no pod should be left, there are hello-0-0"]
        );
        let all = super::super::scenario::jobs().unwrap();
        let without = facts(&[], 0).judge(&all).unwrap();
        assert_eq!(without.missing.len(), all.len() - 1);
        assert!(without.text.contains("MISSING indexed"), "{}", without.text);
    }
}
