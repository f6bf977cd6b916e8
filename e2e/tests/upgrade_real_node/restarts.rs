//! Restarts in place: images stay, containers are new.

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use jiff::Timestamp;
use serde_json::json;
use springtide_crds::in_place_upgrade::{BlockedReason, ReadyReason, StalledReason};
use springtide_e2e::upgrade::traffic::server;
use springtide_e2e::upgrade::{Testbed, Workload, native};

use super::{TURN, container_ids, ensure_lines, shared, with_pod};

const IMAGE: &str = "registry.example/restarted:v1";

/// The sum of a counter over all of its labels.
fn counter(metrics: &str, name: &str) -> f64 {
    let samples = metrics
        .lines()
        .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
    samples.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

#[tokio::test]
async fn pods_are_restarted_in_place_as_often_as_it_is_asked_for() -> Result<()> {
    let _turn = TURN.read().await;
    let Some(bed) = shared().await? else { return Ok(()) };
    let test = Testbed::new(bed.plane(), "restarts").await?;
    let image = server(IMAGE, "restarted")?;
    bed.registry.push(&image)?;
    let pinned = format!("registry.example/restarted@{}", image.digest);
    let cases = [
        ("present", IMAGE, "IfNotPresent"),
        ("always", IMAGE, "Always"),
        ("pinned", &*pinned, "IfNotPresent"),
    ];
    let workloads = cases.map(|(name, image, policy)| {
        with_pod(Workload::deployment(name, 2).serving(), |pod| {
            pod["containers"][0]["image"] = json!(image);
            pod["containers"][0]["imagePullPolicy"] = json!(policy);
            // What stays for its grace period and some seconds is the new container.
            pod["terminationGracePeriodSeconds"] = json!(1);
        })
    });
    let before = try_join_all(workloads.iter().map(|workload| test.start_paused(workload))).await?;
    for workload in &workloads {
        test.upgrade(&workload.name, workload.one_by_one()).await?;
        test.told(&workload.name, ReadyReason::UpToDate).await?;
    }
    let [present, always, digest_only] = &workloads;
    let counted = counter(&bed.manager().metrics().await?, "springtide_ipu_restarts_total");
    let mut lines = vec!["restarted"];
    for round in [1, 2] {
        let hashes = [present, always].map(|workload| test.target_hash(&workload.name));
        let now = Timestamp::now().strftime("%FT%TZ").to_string();
        for workload in &workloads {
            let restart = json!({"spec": {"restart": {"beforeTime": now}}});
            test.edit(&workload.name, restart).await?;
        }
        lines.push("restarted");
        for ((workload, hash), before) in [present, always].into_iter().zip(&hashes).zip(&before) {
            test.succeeded(&workload.name, hash).await?;
            native::agrees(&test, workload).await?;
            {
                let pods = test.pods.now();
                pods.ensure_same(&workload.name, before)?;
                let restarts: Vec<i32> = pods.of(&workload.name).iter().map(|life| life.restarts()).collect();
                ensure!(restarts == [round, round], "{}: {restarts:?}", workload.name);
            }
            ensure_lines(bed, &test, workload, &lines)?;
        }
    }
    let metrics = bed.manager().metrics().await?;
    let since = counter(&metrics, "springtide_ipu_restarts_total") - counted;
    ensure!(since >= 8.0, "the manager has counted {since} of 8 restarts");

    // A digest alone has no other name by which the kubelet could be told.
    let ids = container_ids(&test, digest_only);
    test.told("pinned", StalledReason::PodsBlocked).await?;
    test.until("pinned", "it says why", |upgrade| {
        let reasons = upgrade.status.iter().flat_map(|status| &status.plan.reasons);
        reasons
            .into_iter()
            .any(|blocked| blocked.reason == BlockedReason::DigestUnknown && blocked.count == 2)
    })
    .await?;
    native::is_idle(&test).await?;
    ensure!(container_ids(&test, digest_only) == ids);
    test.verify()?;
    test.clear().await
}

#[tokio::test]
async fn a_rollout_restart_of_kubectl_gives_new_containers_to_the_same_pods() -> Result<()> {
    let _turn = TURN.read().await;
    let Some(bed) = shared().await? else { return Ok(()) };
    let test = Testbed::new(bed.plane(), "kubectl").await?;
    let db = with_pod(Workload::stateful_set("db", 2).serving(), |pod| {
        pod["terminationGracePeriodSeconds"] = json!(1);
    });
    let before = test.start(&db).await?;
    test.upgrade("db", db.one_by_one()).await?;
    test.told("db", ReadyReason::UpToDate).await?;
    let hash = test.target_hash("db");
    test.kubectl(&["rollout", "restart", "statefulset/db"]).await?;
    test.succeeded("db", &hash).await?;
    native::agrees(&test, &db).await?;
    {
        let pods = test.pods.now();
        pods.ensure_same("db", &before)?;
        let restarts: Vec<i32> = pods.of("db").iter().map(|life| life.restarts()).collect();
        ensure!(restarts == [1, 1], "{restarts:?}");
    }
    ensure_lines(bed, &test, &db, &["v1", "v1"])?;
    native::is_idle(&test).await?;
    test.verify()?;
    test.clear().await
}
