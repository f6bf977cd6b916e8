//! Images that cannot be had are found before a container is stopped.

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;
use springtide_crds::in_place_upgrade::{
    HeldReason, PrePullMode, PrePulledReason, ReadyReason, RunResult, StalledReason,
};
use springtide_e2e::node::registry::pull_secret;
use springtide_e2e::upgrade::cost::writes_by_pod;
use springtide_e2e::upgrade::traffic::{server, server_reference};
use springtide_e2e::upgrade::{PULLER_PREFIX, Testbed, Workload, native};

use super::{TURN, container_ids, ensure_lines, shared, with_pod};

/// A registry whose images are for who shows a secret, and that secret.
const PRIVATE: &str = "private.example";
const SECRET: &str = "pull";
const USER: &str = "user";
const PASSWORD: &str = "right";

#[tokio::test]
async fn an_image_that_cannot_be_had_stops_no_container_and_is_taken_once_it_can() -> Result<()> {
    let _turn = TURN.read().await;
    let Some(bed) = shared().await? else { return Ok(()) };
    let test = Testbed::new(bed.plane(), "pulls").await?;
    bed.registry.push(&server("localhost/late:pushed", "late")?)?;
    bed.registry.tag_for_others("localhost/foreign:v2", "localhost/late:pushed")?;
    bed.registry.push(&server("private.example/app:v2", "private")?)?;
    bed.registry.guard("private.example/app", USER, PASSWORD);
    test.create::<Secret>(json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET},
        "type": "kubernetes.io/dockerconfigjson", "stringData": pull_secret(PRIVATE, USER, "wrong"),
    }))
    .await?;
    let (auto, init) = (PrePullMode::Auto, PrePullMode::InitContainer);
    let cases = [
        ("tag", "localhost/late:v2", auto, PrePulledReason::ImageNotFound),
        ("tag-by-init", "localhost/late:v3", init, PrePulledReason::ImageNotFound),
        ("architecture", "localhost/foreign:v2", auto, PrePulledReason::ImageNotFound),
        ("secret", "private.example/app:v2", auto, PrePulledReason::PullDenied),
    ];
    // As small as can be: no other pod could show it first.
    let workloads = cases.map(|(name, ..)| {
        with_pod(Workload::deployment(name, 1).serving(), |pod| {
            pod["imagePullSecrets"] = json!([{"name": SECRET}]);
        })
    });
    let before = try_join_all(workloads.iter().map(|workload| test.start_paused(workload))).await?;
    let ids: Vec<_> = workloads.iter().map(|workload| container_ids(&test, workload)).collect();
    let mark = test.mark()?;
    for (workload, (name, image, mode, _)) in workloads.iter().zip(&cases) {
        test.set_image(workload, image).await?;
        let mut spec = workload.upgrade();
        spec.pre_pull.mode = *mode;
        test.upgrade(name, spec).await?;
    }
    for (name, _, _, reason) in cases {
        let upgrade = test.told(name, reason).await?;
        let node = upgrade.status.as_ref().and_then(|status| status.pre_pull).context("nodes")?;
        ensure!((node.nodes, node.ready, node.failed) == (1, 0, 1), "{name}: {node:?}");
        test.told(name, StalledReason::PrePullFailed).await?;
        test.told(name, ReadyReason::Blocked).await?;
    }
    native::is_idle(&test).await?;
    for ((workload, ids), before) in workloads.iter().zip(&ids).zip(&before) {
        ensure!(container_ids(&test, workload) == *ids, "a container of {} was stopped", workload.name);
        let pods = test.pods.now();
        pods.ensure_same(&workload.name, before)?;
        ensure!(pods.of(&workload.name).iter().all(|life| life.is_ready() && life.drains == 0));
    }
    ensure!(test.pods.now().changes().is_empty());
    let writes = writes_by_pod(&test.requests_since(mark)?);
    ensure!(writes.is_empty(), "pods were written: {writes:?}");

    // Somebody pushes what is missing, and corrects the secret.
    for name in ["localhost/late:v2", "localhost/late:v3", "localhost/foreign:v2"] {
        bed.registry.tag(name, "localhost/late:pushed")?;
    }
    let right = Patch::Merge(json!({"stringData": pull_secret(PRIVATE, USER, PASSWORD)}));
    test.api::<Secret>().patch(SECRET, &PatchParams::default(), &right).await?;
    for ((workload, (name, image, ..)), before) in workloads.iter().zip(&cases).zip(&before) {
        test.succeeded(name, "").await?;
        native::agrees(&test, workload).await?;
        test.pods.now().ensure_same(name, before)?;
        let text = if image.starts_with(PRIVATE) { "private" } else { "late" };
        ensure_lines(bed, &test, workload, &["v1", text])?;
    }
    test.verify()?;
    test.clear().await
}

#[tokio::test]
async fn an_image_that_is_collected_after_its_pull_is_pulled_again() -> Result<()> {
    const IMAGE: &str = "localhost/collected:v2";
    let _turn = TURN.read().await;
    let Some(bed) = shared().await? else { return Ok(()) };
    let test = Testbed::new(bed.plane(), "collected").await?;
    bed.registry.push(&server(IMAGE, "collected")?)?;
    let web = Workload::deployment("web", 2).serving();
    let before = test.start_paused(&web).await?;
    test.set_image(&web, IMAGE).await?;
    let mut spec = web.one_by_one();
    spec.pre_pull.mode = PrePullMode::Auto;
    // Pulled, and not yet started.
    let hour = SignedDuration::from_hours(1);
    let [start, end] =
        [Timestamp::now() - hour, Timestamp::now() + hour].map(|at| at.strftime("%H:%M").to_string());
    spec.freeze_windows = serde_json::from_value(json!([
        {"name": "now", "window": {"start": start, "end": end, "timeZone": "UTC"}},
    ]))?;
    test.upgrade("web", spec).await?;
    test.told("web", PrePulledReason::AllNodes).await?;
    test.told("web", HeldReason::FreezeWindow).await?;
    let pods = test.api::<Pod>().list(&ListParams::default()).await?;
    let pullers = pods.iter().filter(|pod| pod.name_any().starts_with(PULLER_PREFIX)).count();
    ensure!(pullers == 1, "{pullers} pods keep the image in use");
    let asked = bed.registry.asked(IMAGE);
    bed.cluster.remove_image(IMAGE)?;
    test.edit("web", json!({"spec": {"freezeWindows": null}})).await?;
    test.succeeded("web", "").await?;
    native::agrees(&test, &web).await?;
    ensure!(bed.registry.asked(IMAGE) > asked, "the image was there all the time");
    test.pods.now().ensure_same("web", &before)?;
    ensure_lines(bed, &test, &web, &["v1", "collected"])?;
    let pods = test.api::<Pod>().list(&ListParams::default()).await?;
    let is_left =
        |pod: &&Pod| pod.name_any().starts_with(PULLER_PREFIX) && pod.metadata.deletion_timestamp.is_none();
    ensure!(pods.iter().filter(is_left).count() == 0, "a pod that pulled is left");
    test.verify()?;
    test.clear().await
}

#[tokio::test]
async fn without_a_pull_ahead_a_wrong_tag_costs_one_pod_a_restart_and_is_rolled_back() -> Result<()> {
    let _turn = TURN.read().await;
    let Some(bed) = shared().await? else { return Ok(()) };
    let test = Testbed::new(bed.plane(), "wrong").await?;
    let web = Workload::deployment("web", 3).serving();
    let before = test.start_paused(&web).await?;
    test.set_image(&web, "localhost/server:never").await?;
    test.upgrade("web", web.one_by_one()).await?;
    let upgrade = test.told("web", StalledReason::RolledBack).await?;
    let run = upgrade.status.and_then(|status| status.last_run).context("the run")?;
    ensure!(run.result == RunResult::RolledBack);
    test.running(&web, &server_reference(1), 3).await?;
    test.all_in_traffic(&web).await?;
    test.pods.now().ensure_same("web", &before)?;
    let changed = test.pods.now().of("web").iter().filter(|life| life.images.len() > 1).count();
    ensure!(changed == 1, "{changed} pods were changed");
    native::is_idle(&test).await?;
    test.verify()?;
    test.clear().await
}
