//! What changes without a drain, and how much changes at a time.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use springtide_crds::common::IntOrPercent;
use springtide_crds::in_place_upgrade::{HeldReason, TopologyLimit};
use springtide_e2e::batch::pool;
use springtide_e2e::kwok::{NodeSpec, RESTART_SECONDS};
use springtide_e2e::oracle::feed::PATIENCE;
use springtide_e2e::polling::until_seen;
use springtide_e2e::upgrade::cost::{PLAIN, RESIZED, ensure_each_pod_cost};
use springtide_e2e::upgrade::workload::CONTAINER;
use springtide_e2e::upgrade::{Signal, Testbed, Workload, image, native, shared};

/// So slow that limits would be exceeded if nobody kept them.
const SLOW: &str = "0.5";
const ZONE: &str = "topology.kubernetes.io/zone";

async fn budget(test: &Testbed<'_>, name: &str, workload: &Workload, spec: Value) -> Result<()> {
    let mut manifest = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": {"app": workload.name}}},
    });
    if let (Some(fields), Value::Object(spec)) = (manifest["spec"].as_object_mut(), spec) {
        fields.extend(spec);
    }
    test.create::<PodDisruptionBudget>(manifest).await?;
    until_seen(PATIENCE, "the disruption controller has seen the budget", async || {
        let status = test.api::<PodDisruptionBudget>().get(name).await?.status;
        let healthy = status.as_ref().and_then(|status| status.current_healthy);
        let all = i32::try_from(workload.replicas).ok();
        Ok(if healthy == all { Ok(()) } else { Err(format!("{status:?}")) })
    })
    .await
}

async fn min_available(test: &Testbed<'_>, name: &str, pods: u32) -> Result<()> {
    let patch = Patch::Merge(json!({"spec": {"minAvailable": pods}}));
    test.api::<PodDisruptionBudget>().patch(name, &PatchParams::default(), &patch).await?;
    Ok(())
}

#[tokio::test]
async fn new_labels_and_annotations_take_one_write_and_no_drain() -> Result<()> {
    let test = Testbed::new(shared().await?, "metadata").await?;
    let web = Workload::deployment("web", 5).annotated("config", "v1");
    let before = test.start_paused(&web).await?;
    let metadata = json!({"labels": {"track": "canary"}, "annotations": {"config": "v2"}});
    test.patch(&web, json!({"spec": {"template": {"metadata": metadata}}})).await?;
    let mark = test.mark()?;
    test.upgrade("web", web.upgrade()).await?;
    test.succeeded("web", "").await?;
    native::agrees(&test, &web).await?;
    test.pods.now().ensure_same("web", &before)?;
    for life in test.pods.now().of("web") {
        let annotations = life.pod.metadata.annotations.clone().unwrap_or_default();
        let labels = life.pod.metadata.labels.clone().unwrap_or_default();
        ensure!(annotations.get("config").is_some_and(|value| value == "v2"), "{annotations:?}");
        ensure!(labels.get("track").is_some_and(|value| value == "canary"), "{labels:?}");
        ensure!((life.restarts(), life.drains) == (0, 0));
    }
    ensure!(test.pods.now().most_out() == 0);
    let requests = test.requests_since(mark)?;
    ensure_each_pod_cost(&requests, 5, PLAIN)?;
    let replaced = native::replacements(&requests);
    ensure!(replaced.is_empty(), "no pod more for the time of it:\n{replaced}");
    test.patch(&web, json!({"spec": {"paused": false}})).await?;
    native::is_idle(&test).await?;
    test.verify()
}

#[tokio::test]
async fn more_cpu_takes_one_resize_and_no_restart() -> Result<()> {
    let test = Testbed::new(shared().await?, "resize").await?;
    let web = Workload::deployment("web", 3);
    let before = test.start_paused(&web).await?;
    let resources = json!({"requests": {"cpu": "300m"}, "limits": {"cpu": "600m"}});
    let containers = json!([{"name": CONTAINER, "resources": resources}]);
    test.patch(&web, json!({"spec": {"template": {"spec": {"containers": containers}}}})).await?;
    let mark = test.mark()?;
    test.upgrade("web", web.upgrade()).await?;
    test.succeeded("web", "").await?;
    native::agrees(&test, &web).await?;
    test.pods.now().ensure_same("web", &before)?;
    for life in test.pods.now().of("web") {
        let container = life.container().context("a status")?;
        let resources = container.resources.as_ref().context("resources in force")?;
        let cpu = resources.requests.as_ref().and_then(|requests| requests.get("cpu"));
        ensure!(cpu.is_some_and(|cpu| cpu.0 == "300m"), "{resources:?}");
        ensure!((life.restarts(), life.drains) == (0, 0));
    }
    ensure_each_pod_cost(&test.requests_since(mark)?, 3, RESIZED)?;
    test.verify()
}

#[tokio::test]
async fn every_disruption_budget_holds_and_pods_that_are_unready_pass() -> Result<()> {
    let test = Testbed::new(shared().await?, "budgets").await?;
    let web = Workload::deployment("web", 10).annotated(RESTART_SECONDS, SLOW);
    let before = test.start_paused(&web).await?;
    // Two allow three and one.
    budget(&test, "three", &web, json!({"maxUnavailable": 3})).await?;
    budget(&test, "one", &web, json!({"minAvailable": 9})).await?;
    test.set_image(&web, &image(2)).await?;
    let mut spec = web.upgrade();
    spec.strategy.max_unavailable = IntOrPercent::ALL;
    test.upgrade("web", spec).await?;
    test.succeeded("web", "").await?;
    let most = test.pods.now().most_out();
    ensure!(most == 1, "the tighter budget allows one, and {most} were out");
    test.pods.now().ensure_same("web", &before)?;

    // Nothing at all, but for a pod that gives no availability.
    min_available(&test, "one", 10).await?;
    let hash = test.target_hash("web");
    test.set_image(&web, &image(3)).await?;
    test.another_wish("web", &hash).await?;
    test.told("web", HeldReason::DisruptionBudget).await?;
    ensure!(test.running(&web, &image(2), 10).await?.len() == 10);
    let first = before.keys().next().context("a pod")?;
    test.set_condition(first, "ContainersReady", "False").await?;
    ensure!(test.running(&web, &image(3), 1).await? == std::slice::from_ref(first));
    test.told("web", HeldReason::DisruptionBudget).await?;
    ensure!(test.running(&web, &image(2), 9).await?.len() == 9);
    min_available(&test, "one", 9).await?;
    test.succeeded("web", &hash).await?;

    // Whoever says so goes on without.
    min_available(&test, "one", 10).await?;
    let hash = test.target_hash("web");
    test.edit("web", json!({"spec": {"strategy": {"disruptionBudgets": "Ignore"}}})).await?;
    test.set_image(&web, &image(4)).await?;
    test.succeeded("web", &hash).await?;
    test.running(&web, &image(4), 10).await?;
    test.pods.now().ensure_same("web", &before)?;
    test.verify()
}

#[tokio::test]
async fn a_node_and_a_zone_have_limits_of_their_own() -> Result<()> {
    let cluster = shared().await?;
    let test = Testbed::new(cluster, "spread").await?;
    let kwok = cluster.kwok().context("KWOK")?;
    for zone in ["a", "b"] {
        let mut nodes = NodeSpec { name: format!("spread-{zone}"), ..pool("spread", 2, "8", 110) };
        nodes.labels.insert(ZONE.to_owned(), zone.to_owned());
        kwok.add_nodes(cluster, &nodes).await?;
    }
    let mut web = Workload::deployment("web", 12).annotated(RESTART_SECONDS, SLOW);
    web.pool = "spread".to_owned();
    let before = test.start_paused(&web).await?;
    let nodes: BTreeSet<_> = before.values().map(|pod| &pod.node).collect();
    ensure!(nodes.len() == 4, "the scheduler spreads them: {nodes:?}");

    let mut spec = web.upgrade();
    spec.strategy.max_unavailable = IntOrPercent::ALL;
    spec.strategy.max_in_flight_per_node = 1;
    test.set_image(&web, &image(2)).await?;
    test.upgrade("web", spec).await?;
    test.succeeded("web", "").await?;
    let (of_a_node, all) = {
        let pods = test.pods.now();
        (pods.most_out_of_a_node(), pods.most_out())
    };
    ensure!(of_a_node == 1 && all > 1, "{of_a_node} of a node, {all} of all");

    let hash = test.target_hash("web");
    test.pods.now().count_anew();
    let limit = TopologyLimit { topology_key: ZONE.to_owned(), max: IntOrPercent::Int(1) };
    let strategy = json!({"maxInFlightPerNode": 110, "maxInFlightPerTopology": limit});
    test.edit("web", json!({"spec": {"strategy": strategy}})).await?;
    test.set_image(&web, &image(3)).await?;
    test.succeeded("web", &hash).await?;
    let all = test.pods.now().most_out();
    ensure!(all <= 2, "one of each of two zones, and {all} were out");
    test.pods.now().ensure_same("web", &before)?;
    test.verify()
}

#[tokio::test]
async fn unavailable_pods_of_any_cause_count_against_the_limit() -> Result<()> {
    let test = Testbed::new(shared().await?, "unavailable").await?;
    let db = Workload::stateful_set("db", 4).on_delete();
    test.start(&db).await?;
    test.set_image(&db, &image(2)).await?;
    until_seen(PATIENCE, "the revision of the second image", async || {
        let object = native::object(&test, &db).await?;
        let status = &object["status"];
        let is_seen = status["observedGeneration"] == object["metadata"]["generation"];
        let is_there = status["updateRevision"] != status["currentRevision"];
        Ok(if is_seen && is_there { Ok(()) } else { Err(status.to_string()) })
    })
    .await?;
    // One is made anew as it is wished, and is not ready any more; no run has touched it.
    let anew = test.recreated("db-0").await?;
    ensure!(anew.runs(&image(2)), "{:?}", anew.images);
    test.set_condition("db-0", "ContainersReady", "False").await?;
    test.pods_until("it is not ready", |pods| {
        pods.named("db-0").filter(|life| life.is_live() && !life.is_ready()).map(|_| ())
    })
    .await?;
    let before = test.pods.now().identities("db");
    test.pods.now().count_anew();
    test.upgrade("db", db.one_by_one()).await?;
    test.told("db", HeldReason::Unavailable).await?;
    native::is_idle(&test).await?;
    ensure!(test.pods.now().changes().is_empty(), "another one is taken out of service");
    test.set_condition("db-0", "ContainersReady", "True").await?;
    test.succeeded("db", "").await?;
    test.running(&db, &image(2), 4).await?;
    test.pods.now().ensure_same("db", &before)?;
    test.verify()
}

#[tokio::test]
async fn no_more_pods_are_out_at_a_time_than_may_be() -> Result<()> {
    let test = Testbed::new(shared().await?, "most").await?;
    let web = Workload::deployment("web", 6).annotated(RESTART_SECONDS, SLOW);
    let before = test.start_paused(&web).await?;
    test.set_image(&web, &image(2)).await?;
    let mut spec = web.upgrade();
    spec.strategy.max_unavailable = IntOrPercent::Int(2);
    test.upgrade("web", spec).await?;
    test.succeeded("web", "").await?;
    let most = test.pods.now().most_out();
    ensure!((1..=2).contains(&most), "{most} were out");
    test.pods.now().ensure_same("web", &before)?;
    test.verify()
}

#[tokio::test]
async fn pods_that_are_changed_in_traffic_are_out_from_their_patch_on() -> Result<()> {
    let test = Testbed::new(shared().await?, "plain").await?;
    // Their containers take their time to end, and are ready for as long.
    let web = Workload::deployment("web", 6).signal(Signal::None).annotated(RESTART_SECONDS, SLOW);
    let before = test.start_paused(&web).await?;
    test.set_image(&web, &image(2)).await?;
    let mut spec = web.upgrade();
    spec.strategy.max_unavailable = IntOrPercent::Int(2);
    test.upgrade("web", spec).await?;
    test.succeeded("web", "").await?;
    let most = test.pods.now().most_out();
    ensure!((1..=2).contains(&most), "{most} were out");

    let hash = test.target_hash("web");
    budget(&test, "one", &web, json!({"minAvailable": 5})).await?;
    test.edit("web", json!({"spec": {"strategy": {"maxUnavailable": "100%"}}})).await?;
    test.pods.now().count_anew();
    test.set_image(&web, &image(3)).await?;
    test.succeeded("web", &hash).await?;
    let most = test.pods.now().most_out();
    ensure!(most == 1, "the budget allows one, and {most} were out");
    test.pods.now().ensure_same("web", &before)?;
    test.verify()
}

#[tokio::test]
async fn a_limit_of_none_still_lets_one_pod_go_at_a_time() -> Result<()> {
    let test = Testbed::new(shared().await?, "one").await?;
    let web = Workload::deployment("web", 3);
    let before = test.start_paused(&web).await?;
    test.set_image(&web, &image(2)).await?;
    let mut spec = web.upgrade();
    spec.strategy.max_unavailable = IntOrPercent::Percent(0);
    test.upgrade("web", spec).await?;
    test.succeeded("web", "").await?;
    ensure!(test.pods.now().most_out() == 1);
    test.pods.now().ensure_same("web", &before)?;
    test.verify()
}
