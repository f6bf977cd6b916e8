//! Others who write to what the manager writes to: a name that another object has got, a finalizer, an owner or
//! labels that somebody has changed, a field that somebody sets back again and again. What must hold are the
//! preconditions of each write, and the distance that writes keep in a fight.
//!
//! The manager goes through a proxy that holds a write back until what it was decided on is no more.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail as a test does")]

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::await_condition;
use serde_json::{Value, json};
use springtide_crds::batch_job::{
    BatchJob, BatchJobSpec, CompletionMode, CompletionTracking, Release, StalledReason,
};
use springtide_e2e::batch::{self, Task, Testbed};
use springtide_e2e::fault_proxy::{Class, Entry, Fault, FaultProxy, Protocols, RuleId, When};
use springtide_e2e::local_cluster::LocalCluster;
use springtide_e2e::manager::{Manager, USER_AGENT};
use springtide_e2e::oracle::feed::PATIENCE;
use springtide_e2e::oracle::pods::{Life, TRACKING_FINALIZER};
use springtide_e2e::write_count::Verb;
use tokio::sync::OnceCell;
use tokio::time::Instant;

/// In which the manager hears of what has happened, while a write of its own is held back.
const HEARD: Duration = Duration::from_secs(2);
/// Between two reversals of a field.
const REVERSAL: Duration = Duration::from_secs(1);
/// Reversals that are watched once it is known to be a fight. The writes they provoke are 10, 20 and 40 s apart.
const REVERSALS: usize = 12;
const FOREIGN_FINALIZER: &str = "example.com/keep";

static STAGE: OnceCell<(LocalCluster, FaultProxy, Manager)> = OnceCell::const_new();

/// The cluster that these tests share, and the proxy that its one manager goes through.
async fn stage() -> Result<(&'static LocalCluster, &'static FaultProxy)> {
    let start = async || {
        let cluster = batch::cluster().await?;
        let proxy = FaultProxy::start(&cluster, Protocols::All)?;
        let args = ["--no-leader-election"];
        let mut manager = Manager::start_with(&cluster, proxy.kubeconfig(), "manager", &args).await?;
        manager.wait_ready().await?;
        anyhow::Ok((cluster, proxy, manager))
    };
    let (cluster, proxy, _) = STAGE.get_or_try_init(start).await?;
    Ok((cluster, proxy))
}

fn single(tracking: CompletionTracking) -> BatchJobSpec {
    BatchJobSpec {
        release: Release { completion_tracking: Some(tracking), ..Release::default() },
        ..BatchJobSpec::new(Task::endless().template())
    }
}

/// The manager's writes of this kind to a resource of the namespace.
fn writes(test: &Testbed<'_>, verb: Verb, resource: &str) -> Class {
    Class::of([verb]).resource(resource).namespace(&test.namespace).agent(USER_AGENT)
}

/// Has the proxy hold back the next one of a class until the rule is removed.
fn hold_back_next(proxy: &FaultProxy, class: &Class) -> RuleId {
    proxy.fault(class.clone(), When::Nth(1), Fault::HoldUntilRemoved)
}

fn of(all: &[Entry], class: &Class) -> Vec<Entry> {
    all.iter().filter(|entry| class.holds(&entry.request)).cloned().collect()
}

/// Waits until the proxy has got `count` of a class.
async fn sent(proxy: &FaultProxy, class: &Class, count: usize) -> Result<()> {
    proxy.until(&format!("{count} of {class:?}"), |all| (of(all, class).len() >= count).then_some(())).await
}

/// Waits for the answer of the API server to the first of a class that came after `before` others: it must be a
/// refusal.
async fn refused(proxy: &FaultProxy, class: &Class, before: usize) -> Result<()> {
    let what = format!("the answer to {class:?}");
    let answered = |all: &[Entry]| of(all, class).get(before).filter(|entry| entry.upstream != 0).cloned();
    let entry = proxy.until(&what, answered).await?;
    // Not there any more, another incarnation, or not as it was.
    ensure!(matches!(entry.upstream, 404 | 409 | 422), "it was let pass: {entry:?}");
    Ok(())
}

/// Somebody changes a pod.
async fn change(test: &Testbed<'_>, pod: &Life, change: Value) -> Result<()> {
    test.api::<Pod>().patch(&pod.name, &PatchParams::default(), &Patch::Merge(change)).await?;
    Ok(())
}

/// The end of a job with one task that succeeded, however often it was disrupted.
async fn succeeded(test: &Testbed<'_>, job: &str, disrupted: u32) -> Result<()> {
    let status = test.completed(job).await?.status.context("status")?;
    assert_eq!((status.succeeded, status.failed, status.disrupted), (1, 0, disrupted), "{job}");
    test.no_pods(job).await
}

#[tokio::test]
async fn a_delete_spares_the_pod_that_has_got_the_name_meanwhile() -> Result<()> {
    let (cluster, proxy) = stage().await?;
    let test = Testbed::new(cluster, "pod-replaced").await?;
    test.submit("job", single(CompletionTracking::AtLeastOnce)).await?;
    let pod = test.running_pod("job-0-0").await?;
    let deletes = writes(&test, Verb::Delete, "pods");
    let held = hold_back_next(proxy, &deletes);
    test.end_pod(&pod, 0).await?;
    sent(proxy, &deletes, 1).await?;
    // While the delete is on its way, the pod goes, and somebody else's gets its name.
    test.force_delete(&pod).await?;
    let foreign: Pod = serde_json::from_value(json!({
        "metadata": {"name": pod.name, "annotations": {"kwok.springtide.dev/run-seconds": "never"}},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "example.com/other:1"}]},
    }))?;
    let foreign = test.api::<Pod>().create(&PostParams::default(), &foreign).await?;
    tokio::time::sleep(HEARD).await;
    proxy.remove(held);
    refused(proxy, &deletes, 0).await?;
    succeeded(&test, "job", 0).await?;
    test.pods.now().exactly_one_run("job", 1)?;
    // Another job shows that the manager has gone on.
    test.submit("next", BatchJobSpec::new(Task::quick().template())).await?;
    test.completed("next").await?;
    test.no_pods("next").await?;
    let again = proxy.journal(|all| of(all, &deletes.clone().name(&pod.name)).len());
    assert_eq!(again, 1, "it has tried again to delete a pod that is not its own");
    let still = test.api::<Pod>().get(&pod.name).await?;
    assert_eq!(still.metadata.uid, foreign.metadata.uid);
    assert_eq!(still.metadata.deletion_timestamp, None);
    test.verify()
}

#[tokio::test]
async fn a_status_spares_the_job_that_has_got_the_name_meanwhile() -> Result<()> {
    let (cluster, proxy) = stage().await?;
    let test = Testbed::new(cluster, "job-replaced").await?;
    let old = test.submit("job", single(CompletionTracking::Strict)).await?.metadata.uid.context("UID")?;
    let pod = test.running_pod("job-0-0").await?;
    let statuses = writes(&test, Verb::Patch, "batchjobs/status");
    let before = proxy.journal(|all| of(all, &statuses).len());
    let held = hold_back_next(proxy, &statuses);
    test.end_pod(&pod, 0).await?;
    sent(proxy, &statuses, before + 1).await?;
    test.delete("job").await?;
    test.gone("job").await?;
    let new = test.submit("job", single(CompletionTracking::Strict)).await?.metadata.uid.context("UID")?;
    assert_ne!(old, new);
    proxy.remove(held);
    refused(proxy, &statuses, before).await?;
    // The name is free again once the old job's pod is, which nobody but the manager lets go.
    let again = test.running_again(&pod).await?;
    assert_eq!(again.job_uid, new);
    test.end_pod(&again, 0).await?;
    succeeded(&test, "job", 0).await?;
    let ran = |life: &&&Life| life.job_uid == new && life.ran.is_some();
    assert_eq!(test.pods.now().of("job").iter().filter(ran).count(), 1);
    test.verify()
}

#[tokio::test]
async fn a_finalizer_is_taken_away_only_as_it_was_seen_and_may_be_gone_already() -> Result<()> {
    let (cluster, proxy) = stage().await?;
    let test = Testbed::new(cluster, "finalizers").await?;
    test.submit("stripped", single(CompletionTracking::Strict)).await?;
    test.submit("joined", single(CompletionTracking::Strict)).await?;
    let stripped = test.running_pod("stripped-0-0").await?;
    let joined = test.running_pod("joined-0-0").await?;

    // Somebody takes ours away, and the task goes on.
    change(&test, &stripped, json!({"metadata": {"finalizers": null}})).await?;
    test.end_pod(&stripped, 0).await?;
    succeeded(&test, "stripped", 0).await?;
    test.pods.now().exactly_one_run("stripped", 1)?;

    // While ours is being taken away, another one gets its place in the list.
    let patches = writes(&test, Verb::Patch, "pods").name(&joined.name);
    let held = hold_back_next(proxy, &patches);
    test.end_pod(&joined, 0).await?;
    sent(proxy, &patches, 1).await?;
    let both = json!({"metadata": {"finalizers": [FOREIGN_FINALIZER, TRACKING_FINALIZER]}});
    change(&test, &joined, both).await?;
    proxy.remove(held);
    refused(proxy, &patches, 0).await?;
    let is_spared = |pod: Option<&Pod>| {
        pod.is_some_and(|pod| {
            let finalizers = pod.metadata.finalizers.as_deref().unwrap_or_default();
            finalizers == [FOREIGN_FINALIZER] && pod.metadata.deletion_timestamp.is_some()
        })
    };
    let spared = await_condition(test.api::<Pod>(), &joined.name, is_spared);
    tokio::time::timeout(PATIENCE, spared).await.context("ours alone goes, and the pod is deleted")??;
    change(&test, &joined, json!({"metadata": {"finalizers": null}})).await?;
    succeeded(&test, "joined", 0).await?;
    test.pods.now().exactly_one_run("joined", 1)?;
    test.verify()
}

#[tokio::test]
async fn a_pod_without_its_labels_is_the_jobs_and_one_without_its_owner_is_nobodys() -> Result<()> {
    let (cluster, _) = stage().await?;
    let test = Testbed::new(cluster, "relabelled").await?;
    test.submit("unlabelled", single(CompletionTracking::Strict)).await?;
    test.submit("disowned", single(CompletionTracking::AtLeastOnce)).await?;
    let unlabelled = test.running_pod("unlabelled-0-0").await?;
    let disowned = test.running_pod("disowned-0-0").await?;
    change(&test, &unlabelled, json!({"metadata": {"labels": null}})).await?;
    change(&test, &disowned, json!({"metadata": {"ownerReferences": null}})).await?;

    // Whoever has taken it over has its name too, until he gives it back.
    test.reason("disowned", StalledReason::NameConflict).await?;
    test.end_pod(&unlabelled, 0).await?;
    succeeded(&test, "unlabelled", 0).await?;
    test.pods.now().exactly_one_run("unlabelled", 1)?;
    let still = test.api::<Pod>().get(&disowned.name).await?;
    assert_eq!(still.metadata.uid.as_deref(), Some(&*disowned.uid));
    assert_eq!(still.metadata.deletion_timestamp, None);
    test.force_delete(&disowned).await?;
    let again = test.running_again(&disowned).await?;
    test.end_pod(&again, 0).await?;
    succeeded(&test, "disowned", 1).await?;
    test.verify()
}

/// Whether users are told that somebody undoes what is written to the job.
async fn is_told(test: &Testbed<'_>, job: &str) -> Result<bool> {
    let events = test.api::<Event>().list(&ListParams::default()).await?.items;
    Ok(events.iter().any(|event| {
        let about = event.regarding.as_ref().and_then(|object| object.name.as_deref());
        about == Some(job) && event.reason.as_deref() == Some("FieldConflict")
    }))
}

#[tokio::test]
async fn a_status_that_somebody_sets_back_each_second_is_left_alone_for_longer_and_longer() -> Result<()> {
    const TASKS: u32 = 4;
    let (cluster, _) = stage().await?;
    let test = Testbed::new(cluster, "fight").await?;
    let spec = BatchJobSpec {
        completions: TASKS,
        parallelism: TASKS,
        completion_mode: CompletionMode::Indexed,
        ..BatchJobSpec::new(Task::endless().template())
    };
    test.submit("contested", spec).await?;
    let running = test.running("contested", TASKS as usize).await?;
    let shows = |active| move |job: &BatchJob| job.status.as_ref().is_some_and(|it| it.active == active);
    test.job("contested", "a status with all that run", shows(TASKS)).await?;
    let reverse = async || {
        let reversal = Patch::Merge(json!({"status": {"active": 0}}));
        test.api::<BatchJob>().patch_status("contested", &PatchParams::default(), &reversal).await?;
        tokio::time::sleep(REVERSAL).await;
        anyhow::Ok(())
    };
    let written = || -> Result<usize> {
        let statuses = test.requests()?.by_agent(USER_AGENT).of_resource("batchjobs/status").writes();
        Ok(statuses.filter(|request| request.name == "contested").len())
    };
    let deadline = Instant::now() + PATIENCE;
    while !is_told(&test, "contested").await? {
        ensure!(Instant::now() < deadline, "no event FieldConflict; {} writes", written()?);
        reverse().await?;
    }
    let before = written()?;
    // All else goes on.
    test.submit("next", BatchJobSpec::new(Task::quick().template())).await?;
    for _ in 0..REVERSALS {
        reverse().await?;
    }
    let ours = written()? - before;
    ensure!(ours < REVERSALS / 2, "{ours} writes against {REVERSALS} reversals");
    test.completed("next").await?;
    // Once nobody does it any more, what is true gets written.
    for life in &running {
        test.end_pod(life, 0).await?;
    }
    let status = test.completed("contested").await?.status.context("status")?;
    assert_eq!((status.succeeded, status.failed, status.active), (TASKS, 0, 0));
    test.no_pods("contested").await?;
    test.pods.now().exactly_one_run("contested", TASKS)?;
    test.verify()
}
