//! StatefulSets whose controller has something of its own to do in mid-run: pods that are gone, more pods, limits of its own.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use serde_json::json;
use springtide_crds::common::IntOrPercent;
use springtide_e2e::kwok::RESTART_SECONDS;
use springtide_e2e::local_cluster::{Component, LocalCluster};
use springtide_e2e::upgrade::replacements::Replacements;
use springtide_e2e::upgrade::workload::{LOCKED_PARTITION, in_two_steps};
use springtide_e2e::upgrade::{Testbed, Workload, image, manager, native, shared, with_crds};

use crate::runs::SLOW;

#[tokio::test]
async fn an_ordered_set_that_loses_pods_and_grows_in_mid_run_comes_to_its_end() -> Result<()> {
    let test = Testbed::new(shared().await?, "ordered").await?;
    let db = Workload::stateful_set("db", 4).annotated(RESTART_SECONDS, SLOW);
    test.start(&db).await?;
    test.set_image(&db, &image(2)).await?;
    test.upgrade("db", db.one_by_one()).await?;
    test.under_way(&db, &image(2)).await?;
    // Its controller makes a pod only when those before it are ready, and the run takes a pod out of traffic only when
    // none is missing.
    for lost in ["db-0", "db-3"] {
        test.api::<Pod>().delete(lost, &DeleteParams::default()).await?;
    }
    test.patch(&db, json!({"spec": {"replicas": 5}})).await?;
    test.running(&db, &image(2), 5).await?;
    test.succeeded("db", "").await?;
    let mut grown = db;
    grown.replicas = 5;
    native::agrees(&test, &grown).await?;
    test.all_in_traffic(&grown).await?;
    native::is_idle(&test).await?;
    test.verify()
}

/// A set whose controller may replace several pods at a time, if it has the feature.
async fn with_a_limit_of_its_own(cluster: &LocalCluster, has_feature: bool) -> Result<()> {
    let test = Testbed::new(cluster, "limit").await?;
    let rolling = json!({"partition": LOCKED_PARTITION, "maxUnavailable": 3});
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": rolling});
    let fields = json!({
        "podManagementPolicy": "Parallel", "updateStrategy": strategy, "ordinals": {"start": 2},
    });
    let db = Workload::stateful_set("db", 5).spec(fields).annotated(RESTART_SECONDS, "0.5");
    let before = test.start(&db).await?;
    let has_limit = |object: &serde_json::Value| {
        !object["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"].is_null()
    };
    let object = native::object(&test, &db).await?;
    ensure!(has_limit(&object) == has_feature, "{object}");
    let oracle = Replacements::watch(&test).await?;
    test.set_image(&db, &image(2)).await?;
    let mut spec = db.upgrade();
    spec.strategy.max_unavailable = IntOrPercent::Int(3);
    spec.strategy.steps = in_two_steps(2);
    test.upgrade("db", spec).await?;
    test.succeeded("db", "").await?;
    let object = native::agrees(&test, &db).await?;
    let partition = object["spec"]["updateStrategy"]["rollingUpdate"]["partition"].as_u64();
    ensure!(partition == Some(u64::from(LOCKED_PARTITION)), "{object}");
    ensure!(has_limit(&object) == has_feature, "what is not ours is as it was: {object}");
    test.running(&db, &image(2), 5).await?;
    native::is_idle(&test).await?;
    test.pods.now().ensure_same("db", &before)?;
    oracle.ensure_none()?;
    test.verify()
}

#[tokio::test]
async fn a_parallel_set_with_a_limit_of_its_own_has_no_pod_replaced() -> Result<()> {
    with_a_limit_of_its_own(shared().await?, true).await
}

#[tokio::test]
async fn a_parallel_set_whose_limit_its_cluster_does_not_know_has_no_pod_replaced() -> Result<()> {
    // As up to Kubernetes 1.36.
    let gates = ["--feature-gates=MaxUnavailableStatefulSet=false"];
    let builder = LocalCluster::builder()
        .extra_args(Component::ApiServer, gates)
        .extra_args(Component::ControllerManager, gates);
    let cluster = with_crds(builder).await?;
    let manager = manager(&cluster).await?;
    with_a_limit_of_its_own(&cluster, false).await.context("without the feature")?;
    manager.stop()?;
    Ok(())
}
