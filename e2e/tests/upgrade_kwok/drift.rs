//! Pods that somebody changes after a run, and hotfixes that are in pods alone.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use springtide_crds::in_place_upgrade::{
    DriftedReason, FinalizedReason, LockedReason, Persist, ReadyReason, RunResult,
};
use springtide_e2e::upgrade::cost::{workload_writes, writes_by_pod};
use springtide_e2e::upgrade::workload::{CONTAINER, inline};
use springtide_e2e::upgrade::{Signal, Testbed, Workload, image, native, shared};

#[tokio::test]
async fn a_pod_that_is_changed_after_a_run_is_named_and_changed_back_where_that_is_asked_for() -> Result<()> {
    let test = Testbed::new(shared().await?, "drift").await?;
    // Whoever changes a pod by hand knows no drain.
    let web = Workload::deployment("web", 3).signal(Signal::None);
    let before = test.start_paused(&web).await?;
    test.set_image(&web, &image(2)).await?;
    test.upgrade("web", web.upgrade()).await?;
    test.succeeded("web", "").await?;
    let changed = before.keys().next().context("a pod")?;
    let containers = json!([{"name": CONTAINER, "image": image(9)}]);
    let patch = Patch::Strategic(json!({"spec": {"containers": containers}}));
    test.api::<Pod>().patch(changed, &PatchParams::default(), &patch).await?;
    test.running(&web, &image(9), 1).await?;
    let upgrade = test.told("web", DriftedReason::PodsDiffer).await?;
    let status = upgrade.status.context("a status")?;
    let told = status.conditions.iter().find(|condition| condition.is(DriftedReason::PodsDiffer));
    let message = &told.context("it is told")?.message;
    ensure!(status.pods.drifted == 1 && message.contains(changed.as_str()), "{message}");
    test.told("web", ReadyReason::UpToDate).await?;
    let mark = test.mark()?;
    native::is_idle(&test).await?;
    let writes = writes_by_pod(&test.requests_since(mark)?);
    ensure!(writes.is_empty(), "it is only told: {writes:?}");

    test.edit("web", json!({"spec": {"policy": {"drift": "Repair"}}})).await?;
    test.running(&web, &image(2), 3).await?;
    test.told("web", DriftedReason::NoDrift).await?;
    let upgrade = test.told("web", ReadyReason::UpToDate).await?;
    let run = upgrade.status.and_then(|status| status.last_run).context("the run")?;
    ensure!(run.result == RunResult::Succeeded);
    native::agrees(&test, &web).await?;
    {
        let pods = test.pods.now();
        pods.ensure_same("web", &before)?;
        for life in pods.of("web") {
            let expected = if life.name() == *changed { 3 } else { 1 };
            ensure!(life.restarts() == expected, "{}: {} restarts", life.name(), life.restarts());
        }
    }
    test.verify()
}

#[tokio::test]
async fn a_hotfix_leaves_the_workload_alone_and_is_made_on_pods_that_come_later_too() -> Result<()> {
    let test = Testbed::new(shared().await?, "hotfix").await?;
    let web = Workload::deployment("web", 3);
    let before = test.start(&web).await?;
    let generation = native::object(&test, &web).await?["metadata"]["generation"].clone();
    let mut spec = web.one_by_one();
    spec.source = inline(&image(2));
    if let Some(inline) = &mut spec.source.inline {
        inline.persist = Persist::PodsOnly;
    }
    let mark = test.mark()?;
    test.upgrade("web", spec).await?;
    test.succeeded("web", "").await?;
    // It never was paused.
    test.told("web", LockedReason::Unneeded).await?;
    test.told("web", FinalizedReason::Unneeded).await?;
    test.running(&web, &image(2), 3).await?;
    test.pods.now().ensure_same("web", &before)?;

    let gone = before.keys().next().context("a pod")?;
    test.api::<Pod>().delete(gone, &DeleteParams::default()).await?;
    test.pods_until("the pod in its place has the hotfix too", |pods| {
        let lives = pods.of("web");
        let all = lives.iter().all(|life| life.name() != *gone && life.runs(&image(2)) && life.is_ready());
        (all && lives.len() == 3).then_some(())
    })
    .await?;
    test.told("web", ReadyReason::UpToDate).await?;
    let object = native::agrees(&test, &web).await?;
    ensure!(native::template_image(&object) == image(1), "{object}");
    ensure!(object["metadata"]["generation"] == generation);
    let written = workload_writes(&test.requests_since(mark)?);
    ensure!(written.is_empty(), "{written}");
    ensure!(native::replica_sets(&test, "web").await?.len() == 1);
    native::is_idle(&test).await?;
    test.verify()
}
