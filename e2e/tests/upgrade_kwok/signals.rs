//! Gates and labels: who sets them, and what proves that a pod is out of traffic.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::ResourceExt;
use serde_json::json;
use springtide_crds::common::{IntOrPercent, OnTimeout};
use springtide_crds::in_place_upgrade::{OnFailure, StalledReason};
use springtide_e2e::kwok::{IMAGE_OUTCOMES, ImageOutcome, image_outcomes};
use springtide_e2e::local_cluster::Component;
use springtide_e2e::oracle::feed::PATIENCE;
use springtide_e2e::polling::until_seen;
use springtide_e2e::upgrade::pods::{Pods, is_false, is_true};
use springtide_e2e::upgrade::slices::{SliceFeed, Slices};
use springtide_e2e::upgrade::{
    GATE, SERVING_LABEL, Signal, Testbed, Workload, cluster, image, manager, native, shared,
};

use crate::states::list;

/// A Service of a workload's pods.
async fn service(test: &Testbed<'_>, name: &str, workload: &Workload, publish_not_ready: bool) -> Result<()> {
    let mut selector = json!({"app": workload.name});
    if workload.signal == Signal::Label {
        selector[SERVING_LABEL] = json!("true");
    }
    test.create::<Service>(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {
            "selector": selector, "ports": [{"port": 80}], "publishNotReadyAddresses": publish_not_ready,
        },
    }))
    .await?;
    Ok(())
}

/// Waits until a Service has all pods of a workload.
async fn serves(slices: &SliceFeed, service: &str, pods: usize) -> Result<()> {
    let all = |slices: &Slices| (slices.ready(service).len() == pods).then_some(());
    slices.until(&format!("{service} has {pods} pods"), all).await
}

fn bare_pod(name: &str) -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "readinessGates": [{"conditionType": GATE}],
            "containers": [{"name": "app", "image": image(1)}],
        },
    })
}

#[tokio::test]
async fn a_gate_that_no_run_holds_becomes_true_without_any_object() -> Result<()> {
    let test = Testbed::new(shared().await?, "gate").await?;
    test.create::<Pod>(bare_pod("alone")).await?;
    let ready = |pods: &Pods| pods.named("alone").filter(|life| life.is_ready()).map(|_| ());
    test.pods_until("the pod is ready", ready).await?;
    // Whoever closes it without a run, or for one that is not there.
    for message in ["", "run=000000000000"] {
        let condition = json!({"type": GATE, "status": "False", "message": message});
        let patch = kube::api::Patch::Strategic(json!({"status": {"conditions": [condition]}}));
        let closed =
            test.api::<Pod>().patch_status("alone", &kube::api::PatchParams::default(), &patch).await?;
        ensure!(is_false(&closed, GATE));
        test.pods_until("it is opened", |pods| {
            pods.named("alone").filter(|life| is_true(&life.pod, GATE) && life.is_ready()).map(|_| ())
        })
        .await?;
    }
    ensure!(test.pods.now().named("alone").is_some_and(|life| life.drains == 2));
    Ok(())
}

#[tokio::test]
async fn without_a_manager_pods_with_the_label_serve_and_pods_with_the_gate_wait() -> Result<()> {
    let cluster = cluster().await?;
    let test = Testbed::new(&cluster, "down").await?;
    let slices = SliceFeed::start(test.api()).await?;
    let labelled = Workload::deployment("labelled", 3).signal(Signal::Label);
    let gated = Workload::deployment("gated", 3);
    for workload in [&labelled, &gated] {
        service(&test, &workload.name, workload, false).await?;
        test.create::<k8s_openapi::api::apps::v1::Deployment>(workload.manifest()).await?;
    }
    native::agrees(&test, &labelled).await?;
    serves(&slices, "labelled", 3).await?;
    test.pods_until("the containers of the gated ones run", |pods| {
        let lives = pods.of("gated");
        (lives.len() == 3 && lives.iter().all(|life| life.runs(&image(1)))).then_some(())
    })
    .await?;
    ensure!(test.pods.now().of("gated").iter().all(|life| !life.is_ready()));

    let manager = manager(&cluster).await?;
    native::agrees(&test, &gated).await?;
    serves(&slices, "gated", 3).await?;
    let before = test.ready(&labelled, 3).await?;
    // It works by the label too.
    test.patch(&labelled, json!({"spec": {"paused": true}})).await?;
    test.set_image(&labelled, &image(2)).await?;
    test.pods.now().count_anew();
    test.upgrade("labelled", labelled.upgrade()).await?;
    test.succeeded("labelled", "").await?;
    native::agrees(&test, &labelled).await?;
    serves(&slices, "labelled", 3).await?;
    let changes = test.pods.now().changes().to_vec();
    ensure!(changes.len() == 3 && slices.now().gaps() == 0);
    for change in &changes {
        ensure!(slices.now().listing(change, &["labelled"]).is_empty(), "{change:?} was in traffic");
    }
    let now = test.pods.now().identities("labelled");
    ensure!(before == now, "{before:?} became {now:?}");
    manager.stop()?;
    test.verify()
}

#[tokio::test]
async fn a_pod_is_changed_when_no_service_has_it_but_those_that_publish_what_is_not_ready() -> Result<()> {
    let test = Testbed::new(shared().await?, "services").await?;
    let slices = SliceFeed::start(test.api()).await?;
    let web = Workload::deployment("web", 4);
    for (name, publishes) in [("first", false), ("second", false), ("published", true)] {
        service(&test, name, &web, publishes).await?;
    }
    let before = test.start_paused(&web).await?;
    for name in ["first", "second", "published"] {
        serves(&slices, name, 4).await?;
    }
    test.set_image(&web, &image(2)).await?;
    test.upgrade("web", web.upgrade()).await?;
    // Which one is left out is said while a pod leaves the others.
    test.until("web", "it names the Service that is left out", |upgrade| {
        let conditions = upgrade.status.iter().flat_map(|status| &status.conditions);
        conditions.into_iter().any(|condition| condition.message.contains("published"))
    })
    .await?;
    test.succeeded("web", "").await?;
    test.pods.now().ensure_same("web", &before)?;
    let changes = test.pods.now().changes().to_vec();
    ensure!(changes.len() == 4 && slices.now().gaps() == 0, "{changes:?}");
    for change in &changes {
        let listing = slices.now().listing(change, &["first", "second"]);
        ensure!(listing.is_empty(), "{change:?} was in traffic of {listing:?}");
        let published = slices.now().listing(change, &["published"]);
        ensure!(published == ["published"], "it is never out of that one's");
    }
    test.verify()
}

#[tokio::test]
async fn a_drain_that_is_not_proved_in_time_ends_as_it_is_said() -> Result<()> {
    let cluster = cluster().await?;
    let manager = manager(&cluster).await?;
    let test = Testbed::new(&cluster, "late").await?;
    let slices = SliceFeed::start(test.api()).await?;
    let outcomes = [("skip", OnTimeout::Skip), ("proceed", OnTimeout::Proceed), ("fail", OnTimeout::Fail)];
    let workloads = outcomes.map(|(name, _)| Workload::deployment(name, 2));
    for workload in &workloads {
        service(&test, &workload.name, workload, false).await?;
        test.start_paused(workload).await?;
        serves(&slices, &workload.name, 2).await?;
        test.set_image(workload, &image(2)).await?;
        until_seen(PATIENCE, "its controller has seen the template", async || {
            let object = native::object(&test, workload).await?;
            let seen = object["status"]["observedGeneration"] == object["metadata"]["generation"];
            Ok(if seen { Ok(()) } else { Err(object["status"].to_string()) })
        })
        .await?;
    }
    // From now on no slice follows its pods.
    let controllers = cluster.component(Component::ControllerManager).context("the controller manager")?;
    controllers.pause()?;
    for (workload, (name, outcome)) in workloads.iter().zip(outcomes) {
        let mut spec = workload.upgrade();
        spec.strategy.max_unavailable = IntOrPercent::Int(1);
        spec.traffic.drain.timeout_seconds = 2;
        spec.traffic.drain.on_timeout = outcome;
        spec.health.failure_threshold = IntOrPercent::Int(0);
        spec.rollback.on_failure = OnFailure::Hold;
        test.upgrade(name, spec).await?;
    }
    let [skip, proceed, fail] = &workloads;
    test.pods_until("it gets its traffic back, and leaves it again later", |pods| {
        let lives = pods.of(&skip.name);
        lives.iter().any(|life| life.drains > 1 || (life.drains > 0 && life.is_ready())).then_some(())
    })
    .await?;
    test.running(proceed, &image(2), 2).await?;
    test.told(&fail.name, StalledReason::DrainFailed).await?;
    for untouched in [skip, fail] {
        test.pods_until("all are in traffic", |pods| {
            let lives = pods.of(&untouched.name);
            lives.iter().all(|life| is_true(&life.pod, GATE)).then_some(())
        })
        .await?;
        let images: BTreeSet<_> = test
            .pods
            .now()
            .of(&untouched.name)
            .iter()
            .filter_map(|life| life.image().map(str::to_owned))
            .collect();
        ensure!(images == BTreeSet::from([image(1)]), "{}: {images:?}", untouched.name);
    }
    controllers.resume()?;
    for (name, workload) in [("skip", skip), ("proceed", proceed)] {
        test.succeeded(name, "").await?;
        native::agrees(&test, workload).await?;
    }
    test.running(fail, &image(1), 2).await?;
    manager.stop()?;
    Ok(())
}

#[tokio::test]
async fn whoever_is_out_of_traffic_comes_back_when_another_way_is_asked_for() -> Result<()> {
    let test = Testbed::new(shared().await?, "way").await?;
    let workloads = [Workload::deployment("gate", 2), Workload::deployment("label", 2).signal(Signal::Label)];
    let mut before = Vec::new();
    for workload in &workloads {
        let pods = test.start_paused(workload).await?;
        for pod in pods.keys() {
            list(&test, pod, pod).await?;
        }
        before.push(pods);
        test.set_image(workload, &image(2)).await?;
        let mut spec = workload.one_by_one();
        spec.traffic.drain.timeout_seconds = 3600;
        test.upgrade(&workload.name, spec).await?;
    }
    let is_off = |pods: &Pods, name: &str| {
        pods.of(name).iter().any(|life| {
            let label = life.pod.labels().get(SERVING_LABEL).is_some_and(|value| value != "true");
            label || is_false(&life.pod, GATE)
        })
    };
    for workload in &workloads {
        let name = &workload.name;
        test.pods_until("a pod leaves traffic", |pods| is_off(pods, name).then_some(())).await?;
        test.edit(name, json!({"spec": {"traffic": {"mode": "None"}}})).await?;
        test.succeeded(name, "").await?;
        test.running(workload, &image(2), 2).await?;
        native::agrees(&test, workload).await?;
        ensure!(!is_off(&test.pods.now(), name), "{name}");
    }
    for (workload, before) in workloads.iter().zip(&before) {
        test.pods.now().ensure_same(&workload.name, before)?;
    }
    Ok(())
}

#[tokio::test]
async fn a_pod_that_failed_comes_into_traffic_when_it_recovers_after_its_run() -> Result<()> {
    let test = Testbed::new(shared().await?, "recovers").await?;
    let slices = SliceFeed::start(test.api()).await?;
    let web = Workload::deployment("web", 2).signal(Signal::Label);
    service(&test, "web", &web, false).await?;
    let before = test.start_paused(&web).await?;
    let broken = before.keys().next().context("a pod")?;
    let unready = image_outcomes(&[(&image(2), ImageOutcome::Unready)]);
    test.annotate(broken, json!({IMAGE_OUTCOMES: unready})).await?;
    test.set_image(&web, &image(2)).await?;
    let mut spec = web.upgrade();
    spec.strategy.pod_deadline_seconds = 30;
    spec.health.failure_threshold = IntOrPercent::Percent(50);
    test.upgrade("web", spec).await?;
    test.succeeded("web", "").await?;
    serves(&slices, "web", 1).await?;
    test.set_condition(broken, "ContainersReady", "True").await?;
    serves(&slices, "web", 2).await?;
    test.pods.now().ensure_same("web", &before)?;
    test.verify()
}
