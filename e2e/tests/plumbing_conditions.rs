//! What the API server refuses, or does not answer, is told on the object: what, where and what helps; once; and
//! it goes when it is over.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;
use springtide_crds::batch_job::{
    BatchJob, BatchJobSpec, CompleteReason, CompletionMode, QueuedReason, StalledReason,
};
use springtide_crds::common::condition;
use springtide_crds::reason::Reason;
use springtide_e2e::batch::{self, Task, Testbed};
use springtide_e2e::local_cluster::LocalCluster;
use springtide_e2e::manager::Manager;
use springtide_e2e::oracle::feed::PATIENCE;
use springtide_e2e::rights::{ACCOUNT, installed};
use tokio::time::Instant;

/// Longer than the first backoff after a refusal.
const NEXT_TRY: Duration = Duration::from_secs(45);

/// Two tasks of which one is to be ended by hand.
fn two() -> BatchJobSpec {
    BatchJobSpec {
        completions: 2,
        parallelism: 2,
        completion_mode: CompletionMode::Indexed,
        ..BatchJobSpec::new(Task::endless().template())
    }
}

fn message<R: Reason>(job: &BatchJob, _: R) -> String {
    let conditions = job.status.iter().map(|status| status.conditions.as_slice()).next().unwrap_or_default();
    condition(conditions, R::CONDITION).map(|found| found.message.clone()).unwrap_or_default()
}

fn has<R: Reason>(job: &BatchJob) -> bool {
    let conditions = job.status.iter().map(|status| status.conditions.as_slice()).next().unwrap_or_default();
    condition(conditions, R::CONDITION).is_some()
}

/// Status writes of the job so far.
fn status_writes(test: &Testbed<'_>, job: &str) -> Result<usize> {
    let requests = test.requests()?.writes().of_resource("batchjobs/status");
    Ok(requests.filter(|request| request.name == job).len())
}

/// Waits for an event on a job.
async fn event(test: &Testbed<'_>, job: &str, reason: &str) -> Result<Event> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let events = test.api::<Event>().list(&ListParams::default()).await?.items;
        let found = events.into_iter().find(|event| {
            let regarding = event.regarding.as_ref().and_then(|object| object.name.as_deref());
            regarding == Some(job) && event.reason.as_deref() == Some(reason)
        });
        if let Some(event) = found {
            return Ok(event);
        }
        ensure!(Instant::now() < deadline, "no event {reason} on {job}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn end_both(test: &Testbed<'_>, job: &str) -> Result<()> {
    for pod in test.running(job, 1).await? {
        test.end_pod(&pod, 0).await?;
    }
    test.completed(job).await?;
    test.no_pods(job).await
}

#[tokio::test]
async fn a_right_that_is_taken_away_is_named_and_its_return_clears_what_was_said() -> Result<()> {
    let cluster = installed("rbac", &[]).await?;
    let kubeconfig = cluster.kubeconfig_for(&ACCOUNT.user(), "system:serviceaccounts")?;
    let args = ["--lease-namespace", ACCOUNT.namespace];
    let mut manager = Manager::start_with(&cluster, &kubeconfig, "manager", &args).await?;
    manager.wait_ready().await?;

    let deletes = Testbed::new(&cluster, "no-deletes").await?;
    deletes.submit("job", two()).await?;
    let pods = deletes.running("job", 2).await?;
    let rules = ACCOUNT.lose(&cluster, "delete", "pods").await?;
    deletes.end_pod(&pods[0], 0).await?;
    let stalled = deletes.reason("job", StalledReason::Forbidden).await?;
    let said = message(&stalled, StalledReason::Forbidden);
    let what = format!("may not delete pods in namespace {}", deletes.namespace);
    ensure!(said.contains(&what) && said.contains("grant it"), "{said}");

    // What cannot stand in a status is told by an event.
    let statuses = Testbed::new(&cluster, "no-status").await?;
    ACCOUNT.lose(&cluster, "patch", "batchjobs/status").await?;
    statuses.submit("job", BatchJobSpec::new(Task::quick().template())).await?;
    let told = event(&statuses, "job", "Forbidden").await?.note.context("note")?;
    let what = format!("may not patch batchjobs.springtide.dev/status in namespace {}", statuses.namespace);
    ensure!(told.contains(&what) && told.contains("cannot patch resource"), "{told}");

    // The log has the status by now that was seen before it was answered.
    let written = status_writes(&deletes, "job")?;
    tokio::time::sleep(NEXT_TRY).await;
    let refused = deletes.requests()?.of_resource("pods").filter(|request| request.code == 403).len();
    ensure!((2..=4).contains(&refused), "{refused} deletes were refused");
    ensure!(status_writes(&deletes, "job")? == written, "one status write for each refusal");
    let refused = status_writes(&statuses, "job")?;
    ensure!((2..=4).contains(&refused), "{refused} writes of a status were refused");

    ACCOUNT.restore(&cluster, rules).await?;
    deletes.job("job", "the end of condition Stalled", |job| !has::<StalledReason>(job)).await?;
    end_both(&deletes, "job").await?;
    statuses.completed("job").await?;
    statuses.no_pods("job").await?;
    for test in [deletes, statuses] {
        test.verify()?;
    }
    manager.stop()?;
    Ok(())
}

/// A webhook for deletes of pods in one namespace that nobody answers.
async fn break_deletes(cluster: &LocalCluster, namespace: &str) -> Result<()> {
    let webhook = format!(
        "{{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingWebhookConfiguration, \
          metadata: {{name: nobody}}, webhooks: [{{name: nobody.example.com, failurePolicy: Fail, \
          sideEffects: None, admissionReviewVersions: [v1], clientConfig: {{url: 'https://127.0.0.1:1/'}}, \
          namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {namespace}}}}}, \
          rules: [{{apiGroups: [''], apiVersions: [v1], operations: [DELETE], resources: [pods]}}]}}]}}"
    );
    cluster.apply(&webhook).await
}

#[tokio::test]
async fn what_a_broken_webhook_and_a_quota_keep_from_going_on_is_told_and_goes_on_by_itself() -> Result<()> {
    let cluster = batch::cluster().await?;
    let mut manager = Manager::start(&cluster, "manager", &["--no-leader-election"]).await?;
    manager.wait_ready().await?;

    let full = Testbed::new(&cluster, "full").await?;
    let quota = "{apiVersion: v1, kind: ResourceQuota, metadata: {name: none}, spec: {hard: {pods: '0'}}}";
    cluster
        .apply(&quota.replace("name: none", &format!("name: none, namespace: {}", full.namespace)))
        .await?;
    full.submit("job", BatchJobSpec::new(Task::quick().template())).await?;

    let test = Testbed::new(&cluster, "broken").await?;
    test.submit("job", two()).await?;
    let pods = test.running("job", 2).await?;
    break_deletes(&cluster, &test.namespace).await?;
    test.end_pod(&pods[0], 0).await?;
    let fails = |job: &BatchJob| message(job, CompleteReason::Running).starts_with("writes fail: ");
    let told = test.job("job", "a message that writes fail", fails).await?;
    let said = message(&told, CompleteReason::Running);
    ensure!(said.contains("cannot delete Pod job-0-0") && !has::<StalledReason>(&told), "{said}");
    let note = event(&test, "job", "WriteFails").await?.note.context("note")?;
    ensure!(note.contains("failed calling webhook"), "{note}");
    let written = status_writes(&test, "job")?;
    tokio::time::sleep(NEXT_TRY).await;
    ensure!(status_writes(&test, "job")? == written, "one status write for each answer that did not come");
    let removed = cluster.kubectl(&["delete", "validatingwebhookconfiguration", "nobody"]).await?;
    ensure!(removed.status.success(), "{}", String::from_utf8_lossy(&removed.stderr));
    test.job("job", "a message as usual", |job| !fails(job)).await?;
    end_both(&test, "job").await?;
    test.verify()?;

    let told = full.reason("job", QueuedReason::ClassBackoff).await?;
    let said = message(&told, QueuedReason::ClassBackoff);
    ensure!(said.contains("exceeded quota") && !has::<StalledReason>(&told), "{said}");
    ensure!(status_writes(&full, "job")? == 1, "one record of the wait");
    full.kubectl(&["delete", "resourcequota", "none"]).await?;
    full.completed("job").await?;
    full.verify()?;
    manager.stop()?;
    Ok(())
}
