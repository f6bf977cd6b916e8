//! Deployments that keep no history, and those whose rollouts have no deadline.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt;
use serde_json::json;
use springtide_crds::in_place_upgrade::Mode;
use springtide_e2e::kwok::RESTART_SECONDS;
use springtide_e2e::oracle::feed::PATIENCE;
use springtide_e2e::polling::until_seen;
use springtide_e2e::upgrade::replacements::Replacements;
use springtide_e2e::upgrade::{Testbed, Workload, image, native, shared};

use crate::runs::SLOW;

/// Annotation of a Deployment: at which revision it is.
const REVISION: &str = "deployment.kubernetes.io/revision";

#[tokio::test]
async fn a_deployment_that_keeps_no_history_and_has_no_pods_scales_up_with_the_wish() -> Result<()> {
    let test = Testbed::new(shared().await?, "nothing").await?;
    let web = Workload::deployment("web", 0).spec(json!({"revisionHistoryLimit": 0}));
    test.start_paused(&web).await?;
    test.upgrade("web", web.upgrade()).await?;
    test.set_image(&web, &image(2)).await?;
    test.succeeded("web", "").await?;
    // Paused as it is: its controller scales, and makes no ReplicaSet.
    test.patch(&web, json!({"spec": {"replicas": 2}})).await?;
    test.running(&web, &image(2), 2).await?;
    let deployment = test.api::<Deployment>().get("web").await?;
    ensure!(deployment.spec.paused == Some(true));
    let sets = native::replica_sets(&test, "web").await?;
    let [now] = sets.as_slice() else { anyhow::bail!("{} ReplicaSets", sets.len()) };
    ensure!(native::image_of(now)? == image(2), "{}", now.name_any());
    test.verify()
}

/// Waits until the controller of a Deployment has deleted its only ReplicaSet.
async fn is_lost(test: &Testbed<'_>, deployment: &str) -> Result<()> {
    until_seen(PATIENCE, &format!("{deployment} has no ReplicaSet any more"), async || {
        let left = native::replica_sets(test, deployment).await?.len();
        Ok(if left == 0 { Ok(()) } else { Err(left.to_string()) })
    })
    .await
}

#[tokio::test]
async fn a_replica_set_that_is_deleted_as_nobody_keeps_it_is_made_again_with_the_wish() -> Result<()> {
    let test = Testbed::new(shared().await?, "lost").await?;
    let without_history = |name: &str| Workload::deployment(name, 0).spec(json!({"revisionHistoryLimit": 0}));
    let (locked, own) = (without_history("locked"), without_history("own"));
    test.start_paused(&locked).await?;
    test.start(&own).await?;
    let revision = native::object(&test, &locked).await?["metadata"]["annotations"][REVISION].clone();
    ensure!(revision == "1", "{revision}");
    let mut spec = locked.upgrade();
    // Nobody is in the way of its controller.
    spec.mode = Mode::Paused;
    test.upgrade("locked", spec).await?;
    test.set_image(&locked, &image(2)).await?;
    is_lost(&test, "locked").await?;
    // Scaled up as it is, it would stay without pods.
    test.patch(&locked, json!({"spec": {"replicas": 2}})).await?;
    test.edit("locked", json!({"spec": {"mode": "Apply"}})).await?;
    test.succeeded("locked", "").await?;
    test.running(&locked, &image(2), 2).await?;
    // Its own pause, with another template in the same write, has the same effect.
    test.upgrade("own", own.transient(&image(2))).await?;
    test.succeeded("own", "").await?;
    test.patch(&own, json!({"spec": {"replicas": 2}})).await?;
    test.running(&own, &image(2), 2).await?;
    for workload in [&locked, &own] {
        let object = native::object(&test, workload).await?;
        ensure!(object["metadata"]["annotations"][REVISION] == "2", "{object}");
        ensure!(native::template_image(&object) == image(2), "{object}");
        ensure!(object["spec"]["paused"].as_bool().unwrap_or_default() == (workload.name == "locked"));
        let sets = native::replica_sets(&test, &workload.name).await?;
        let [now] = sets.as_slice() else { anyhow::bail!("{} ReplicaSets", sets.len()) };
        ensure!(native::image_of(now)? == image(2), "{}", now.name_any());
    }
    native::is_idle(&test).await?;
    test.verify()
}

#[tokio::test]
async fn a_deployment_that_keeps_no_history_has_its_one_replica_set_after_each_run() -> Result<()> {
    let test = Testbed::new(shared().await?, "no-history").await?;
    let web = Workload::deployment("web", 2).spec(json!({"revisionHistoryLimit": 0}));
    let before = test.start_paused(&web).await?;
    let active = native::active(&test, "web").await?;
    let oracle = Replacements::watch(&test).await?;
    test.upgrade("web", web.upgrade()).await?;
    let mut hash = String::new();
    for version in [2, 3, 1] {
        test.set_image(&web, &image(version)).await?;
        let upgrade = test.succeeded("web", &hash).await?;
        hash = upgrade.status.context("a status")?.target_hash;
        native::agrees(&test, &web).await?;
        test.running(&web, &image(version), 2).await?;
        let sets = native::replica_sets(&test, "web").await?;
        let [now] = sets.as_slice() else { anyhow::bail!("{} ReplicaSets", sets.len()) };
        ensure!(now.uid() == active.uid() && native::image_of(now)? == image(version));
    }
    test.pods.now().ensure_same("web", &before)?;
    oracle.ensure_none()?;
    test.verify()
}

#[tokio::test]
async fn a_rollout_without_a_deadline_ends_as_well() -> Result<()> {
    let test = Testbed::new(shared().await?, "no-deadline").await?;
    // As Flux has it, to look after deadlines itself.
    let web = Workload::deployment("web", 3)
        .annotated(RESTART_SECONDS, SLOW)
        .spec(json!({"progressDeadlineSeconds": i32::MAX}));
    let before = test.start_paused(&web).await?;
    let oracle = Replacements::watch(&test).await?;
    test.set_image(&web, &image(2)).await?;
    test.upgrade("web", web.upgrade()).await?;
    test.succeeded("web", "").await?;
    native::agrees(&test, &web).await?;
    test.patch(&web, json!({"spec": {"paused": false}})).await?;
    native::agrees(&test, &web).await?;
    // What users and their tools ask.
    let printed = test.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]).await?;
    ensure!(printed.contains("successfully rolled out"), "{printed}");
    native::is_idle(&test).await?;
    test.pods.now().ensure_same("web", &before)?;
    oracle.ensure_none()?;
    test.verify()
}
