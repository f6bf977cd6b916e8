//! The beginning and the end of jobs and of their objects.

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, PropagationPolicy};
use serde_json::json;
use springtide_crds::batch_job::{
    BatchJob, BatchJobSpec, CompletionMode, CompletionTracking, QueuedReason, Release, StalledReason,
};
use springtide_crds::common::Tier;
use springtide_e2e::batch::{Task, Testbed, shared};
use springtide_e2e::oracle::jobs;
use springtide_e2e::oracle::pods::TRACKING_FINALIZER;

fn wide(tracking: CompletionTracking, task: &Task) -> BatchJobSpec {
    BatchJobSpec {
        completions: 4,
        parallelism: 2,
        completion_mode: CompletionMode::Indexed,
        release: Release { completion_tracking: Some(tracking), ..Release::default() },
        ..BatchJobSpec::new(task.template())
    }
}

#[tokio::test]
async fn a_finished_job_goes_after_its_time() -> Result<()> {
    let test = Testbed::new(shared().await?, "ttl").await?;
    let at_once = |spec| BatchJobSpec { ttl_seconds_after_finished: Some(0), ..spec };
    test.submit("good", at_once(BatchJobSpec::new(Task::quick().template()))).await?;
    let failing = BatchJobSpec { backoff_limit: Some(0), ..BatchJobSpec::new(Task::failing(1).template()) };
    test.submit("bad", at_once(failing)).await?;
    test.submit("stays", BatchJobSpec::new(Task::quick().template())).await?;
    for (name, reason) in [("good", "Completed"), ("bad", "BackoffLimitExceeded")] {
        // Its end stood in the API before it went.
        assert_eq!(test.gone(name).await?.reasons.last().map(String::as_str), Some(reason));
    }
    test.completed("stays").await?;
    for name in ["good", "bad", "stays"] {
        test.no_pods(name).await?;
    }
    assert_eq!(test.listed().await?, ["stays"]);
    test.verify()
}

#[tokio::test]
async fn a_strict_pod_is_held_until_its_outcome_is_stored() -> Result<()> {
    let test = Testbed::new(shared().await?, "tracking").await?;
    let spec = |tier| BatchJobSpec { tier, ..BatchJobSpec::new(Task::quick().template()) };
    test.submit("best-effort", spec(Tier::BestEffort)).await?;
    test.submit("standard", spec(Tier::Standard)).await?;
    test.submit("explicit", wide(CompletionTracking::Strict, &Task::quick())).await?;
    for (name, tracked) in [("best-effort", false), ("standard", true), ("explicit", true)] {
        test.completed(name).await?;
        test.no_pods(name).await?;
        let pods = test.pods.now();
        assert!(pods.of(name).iter().all(|life| life.tracked == tracked), "{name}: {:?}", pods.of(name));
    }
    test.verify()
}

#[tokio::test]
async fn a_job_deleted_while_it_runs_leaves_no_pod_and_no_finalizer() -> Result<()> {
    let test = Testbed::new(shared().await?, "deleted").await?;
    let policies =
        [("background", PropagationPolicy::Background), ("foreground", PropagationPolicy::Foreground)];
    for (name, _) in &policies {
        for tracking in [CompletionTracking::Strict, CompletionTracking::AtLeastOnce] {
            let name = format!("{name}-{tracking:?}").to_lowercase();
            test.submit(&name, wide(tracking, &Task::endless())).await?;
            test.running(&name, 2).await?;
        }
    }
    for (name, policy) in policies {
        for tracking in ["strict", "atleastonce"] {
            let name = format!("{name}-{tracking}");
            let params = DeleteParams { propagation_policy: Some(policy.clone()), ..DeleteParams::default() };
            test.api::<BatchJob>().delete(&name, &params).await?;
            test.no_pods(&name).await?;
            test.gone(&name).await?;
        }
    }
    assert!(test.pods.now().all().all(|life| life.index < 2), "nothing starts for a deleted job");
    test.verify()
}

#[tokio::test]
async fn pods_of_an_orphaning_deletion_are_let_go() -> Result<()> {
    let test = Testbed::new(shared().await?, "orphan").await?;
    test.submit("job", wide(CompletionTracking::Strict, &Task::endless())).await?;
    let running = test.running("job", 2).await?;
    let params =
        DeleteParams { propagation_policy: Some(PropagationPolicy::Orphan), ..DeleteParams::default() };
    test.api::<BatchJob>().delete("job", &params).await?;
    for life in running {
        // They are the user's now: they go on, and nothing holds them.
        let released = |pod: Option<&Pod>| {
            pod.is_some_and(|pod| {
                pod.metadata.finalizers.iter().flatten().all(|held| held != TRACKING_FINALIZER)
                    && pod.metadata.deletion_timestamp.is_none()
            })
        };
        let waited = kube::runtime::wait::await_condition(test.api::<Pod>(), &life.name, released);
        tokio::time::timeout(springtide_e2e::oracle::feed::PATIENCE, waited)
            .await
            .with_context(|| format!("{} is held", life.name))??;
        test.api::<Pod>().delete(&life.name, &DeleteParams::default()).await?;
    }
    test.no_pods("job").await?;
    test.verify()
}

#[tokio::test]
async fn a_name_waits_for_the_pods_of_its_former_job() -> Result<()> {
    let test = Testbed::new(shared().await?, "name-held").await?;
    test.submit("job", BatchJobSpec::new(Task::endless().template())).await?;
    let old = test.running("job", 1).await?.remove(0);
    let hold = |finalizers: serde_json::Value| Patch::Merge(json!({"metadata": {"finalizers": finalizers}}));
    let pods = test.api::<Pod>();
    pods.patch(&old.name, &PatchParams::default(), &hold(json!(["example.com/hold"]))).await?;
    test.delete("job").await?;
    test.gone("job").await?;
    test.submit("job", BatchJobSpec::new(Task::quick().template())).await?;
    test.reason("job", QueuedReason::NameHeld).await?;
    assert_eq!(test.pods.now().of("job").len(), 1);
    pods.patch(&old.name, &PatchParams::default(), &hold(json!(null))).await?;
    test.completed("job").await?;
    let lives = test.pods.now().of("job").into_iter().cloned().collect::<Vec<_>>();
    assert_eq!(lives.len(), 2, "{lives:?}");
    assert_eq!(lives[0].name, lives[1].name);
    assert_ne!(lives[0].job_uid, lives[1].job_uid);
    assert!(lives[0].gone < Some(lives[1].created), "{lives:?}");
    test.verify()
}

#[tokio::test]
async fn a_foreign_pod_with_the_name_is_left_alone_and_reported() -> Result<()> {
    let test = Testbed::new(shared().await?, "name-conflict").await?;
    let foreign: Pod = serde_json::from_value(json!({
        "metadata": {"name": "job-0-0", "annotations": {"kwok.springtide.dev/run-seconds": "never"}},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "example.com/other:1"}]},
    }))?;
    let foreign = test.api::<Pod>().create(&PostParams::default(), &foreign).await?;
    test.submit("job", BatchJobSpec::new(Task::quick().template())).await?;
    let stalled = test.reason("job", StalledReason::NameConflict).await?;
    assert_eq!(jobs::kstatus(&stalled), jobs::Kstatus::Failed);
    let still = test.api::<Pod>().get("job-0-0").await?;
    assert_eq!(still.metadata.uid, foreign.metadata.uid);
    assert!(still.metadata.deletion_timestamp.is_none());
    test.api::<Pod>().delete("job-0-0", &DeleteParams::default()).await?;
    let job = test.completed("job").await?;
    assert!(!jobs::has(&job, &StalledReason::NameConflict), "{:?}", job.status);
    test.verify()
}

#[tokio::test]
async fn a_job_of_another_manager_is_left_alone() -> Result<()> {
    let test = Testbed::new(shared().await?, "managed-by").await?;
    let managed_by = |who: &str| BatchJobSpec {
        managed_by: Some(who.into()),
        ..BatchJobSpec::new(Task::quick().template())
    };
    let theirs = test.submit("theirs", managed_by("example.com/dispatcher")).await?;
    test.submit("ours", managed_by(springtide_crds::batch_job::MANAGED_BY)).await?;
    // Submitted later, it has lived its whole life by now.
    test.completed("ours").await?;
    let status = json!({"status": {"observedGeneration": 1, "succeeded": 1, "completionTime": "2026-01-01T00:00:00Z"}});
    let reported = test
        .api::<BatchJob>()
        .patch_status("theirs", &PatchParams::default(), &Patch::Merge(status))
        .await
        .context("its manager writes its status")?;
    test.submit("after", managed_by(springtide_crds::batch_job::MANAGED_BY)).await?;
    test.completed("after").await?;
    let now = test.api::<BatchJob>().get("theirs").await?;
    assert_eq!(now.metadata.resource_version, reported.metadata.resource_version, "{now:?}");
    assert_eq!(now.metadata.uid, theirs.metadata.uid);
    assert!(test.pods.now().of("theirs").is_empty());
    test.verify()
}
