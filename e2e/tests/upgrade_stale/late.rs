//! A controller manager that sees ReplicaSets, or pods, long after they have changed.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Service;
use kube::api::DeleteParams;
use serde_json::json;
use springtide_crds::in_place_upgrade::{FinalizedReason, InPlaceUpgrade, InPlaceUpgradeSpec};
use springtide_e2e::batch::long;
use springtide_e2e::manager::USER_AGENT;
use springtide_e2e::upgrade::disturbed::{Disturbed, Processes, Watcher};
use springtide_e2e::upgrade::pods::Identity;
use springtide_e2e::upgrade::replacements::Replacements;
use springtide_e2e::upgrade::slices::{SliceFeed, Slices};
use springtide_e2e::upgrade::upgrades::Upgrades;
use springtide_e2e::upgrade::workload::in_two_steps;
use springtide_e2e::upgrade::{Signal, Testbed, Workload, image, native};
use springtide_e2e::write_count::{Request, Verb};

use crate::{is_flipped, is_paused, waits_in_its_pause};

/// By so much ReplicaSets are late.
const SETS_LATE: Duration = Duration::from_secs(30);
/// By so much pods are late, and with them EndpointSlices: in the long run, ...
const PODS_LATE: Duration = Duration::from_secs(60);
/// ... and in the sample.
const PODS_LATE_SAMPLE: Duration = Duration::from_secs(10);
/// Seconds for a drain: far more than slices are late.
const DRAIN: u32 = 300;

/// Whether the controller of Deployments has said what it counts between the last write to a ReplicaSet of this one and the
/// end of its pause.
fn is_counted_before_the_end(test: &Testbed<'_>, deployment: &str) -> Result<()> {
    let requests = test.requests()?.writes().successful();
    let all = requests.requests();
    let ours = |request: &Request, resource: &str| {
        request.user_agent.starts_with(USER_AGENT) && request.resource == resource
    };
    let of_deployment = |request: &Request| ours(request, "deployments") && request.name == deployment;
    let end = all.iter().rposition(of_deployment).context("the end of the pause")?;
    let prefix = format!("{deployment}-");
    let flipped = all
        .iter()
        .rposition(|request| {
            ours(request, "replicasets") && request.verb == Verb::Patch && request.name.starts_with(&prefix)
        })
        .context("the write to the ReplicaSet")?;
    ensure!(flipped < end, "the pause has ended first:\n{requests}");
    let counted = all[flipped..end].iter().filter(|request| {
        request.user_agent.starts_with("kube-controller-manager")
            && request.resource == "deployments/status"
            && request.name == deployment
    });
    ensure!(counted.count() > 0, "nobody has counted the pods of {deployment}:\n{requests}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pause_of_a_run_ends_when_a_controller_that_sees_replica_sets_late_has_counted_its_pods()
-> Result<()> {
    let stage = Disturbed::start().await?;
    let processes = Processes::start(&stage).await?;
    let test = Testbed::new(&stage.cluster, "sets").await?;
    let own = Workload::deployment("own", 3).signal(Signal::None);
    let given_up = Workload::deployment("given-up", 2).signal(Signal::None);
    let locked = Workload::deployment("locked", 2);
    let before = [test.start(&own).await?, test.start(&given_up).await?, test.start_paused(&locked).await?];
    let oracle = Replacements::watch(&test).await?;
    stage.delay(Watcher::ControllerManager, "replicasets", SETS_LATE);

    test.upgrade("own", own.transient(&image(2))).await?;
    test.upgrade("given-up", given_up.transient(&image(2))).await?;
    test.set_image(&locked, &image(2)).await?;
    test.upgrade("locked", locked.upgrade()).await?;
    for workload in [&own, &given_up] {
        is_flipped(&test, &workload.name).await?;
        waits_in_its_pause(&test, workload).await?;
        test.told(&workload.name, FinalizedReason::WaitingForHandshake).await?;
    }
    // Who is deleted now ends what it has begun first: else its Deployment would roll.
    test.api::<InPlaceUpgrade>().delete("given-up", &DeleteParams::default()).await?;
    test.succeeded("own", "").await?;
    test.succeeded("locked", "").await?;
    let gone = |upgrades: &Upgrades| upgrades.get("given-up").is_none().then_some(());
    test.upgrades.until("given-up is gone", gone).await?;
    for workload in [&own, &given_up] {
        is_counted_before_the_end(&test, &workload.name)?;
        let object = native::object(&test, workload).await?;
        ensure!(!is_paused(&object) && native::template_image(&object) == image(2), "{object}");
    }
    // As soon as it is ready, the user may let it go.
    test.patch(&locked, json!({"spec": {"paused": false}})).await?;
    for (workload, before) in [&own, &given_up, &locked].into_iter().zip(&before) {
        native::agrees(&test, workload).await?;
        test.running(workload, &image(2), before.len()).await?;
    }

    stage.proxy.clear();
    // All that is on its way late arrives.
    tokio::time::sleep(SETS_LATE).await;
    native::is_idle(&test).await?;
    oracle.ensure_none()?;
    for (workload, before) in [&own, &given_up, &locked].into_iter().zip(&before) {
        test.pods.now().ensure_same(&workload.name, before)?;
        ensure!(native::replica_sets(&test, &workload.name).await?.len() == 2, "{}", workload.name);
    }
    drop(processes);
    test.verify()
}

/// In two steps, of which the first one is a pod.
fn pod_first(workload: &Workload) -> InPlaceUpgradeSpec {
    let mut spec = workload.upgrade();
    spec.strategy.steps = in_two_steps(1);
    spec
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_follows_late_counts_and_a_drain_waits_for_late_slices() -> Result<()> {
    let late = if long() { PODS_LATE } else { PODS_LATE_SAMPLE };
    let stage = Disturbed::start().await?;
    let processes = Processes::start(&stage).await?;
    let test = Testbed::new(&stage.cluster, "pods").await?;
    let slices = SliceFeed::start(test.api()).await?;
    test.create::<Service>(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "served"},
        "spec": {"selector": {"app": "served"}, "ports": [{"port": 80}]},
    }))
    .await?;
    let served = Workload::deployment("served", 2);
    let ordered = Workload::stateful_set("ordered", 3);
    let parallel = Workload::stateful_set("parallel", 3)
        .spec(json!({"podManagementPolicy": "Parallel", "ordinals": {"start": 4}}));
    let on_delete = Workload::stateful_set("on-delete", 2).on_delete();
    let all = [&served, &ordered, &parallel, &on_delete];
    let before: Vec<BTreeMap<String, Identity>> =
        try_join_all(all.iter().map(|workload| test.start(workload))).await?;
    test.patch(&served, json!({"spec": {"paused": true}})).await?;
    slices
        .until("the Service has both pods", |slices: &Slices| {
            (slices.ready("served").len() == 2).then_some(())
        })
        .await?;
    test.pods.now().count_anew();
    let oracle = Replacements::watch(&test).await?;
    stage.delay(Watcher::ControllerManager, "pods", late);

    let mut patient = served.upgrade();
    patient.traffic.drain.timeout_seconds = DRAIN;
    let specs = [patient, pod_first(&ordered), pod_first(&parallel), on_delete.upgrade()];
    for (workload, spec) in all.into_iter().zip(specs) {
        test.set_image(workload, &image(2)).await?;
        test.upgrade(&workload.name, spec).await?;
    }
    for (workload, before) in all.into_iter().zip(&before) {
        test.succeeded(&workload.name, "").await?;
        native::agrees(&test, workload).await?;
        test.running(workload, &image(2), before.len()).await?;
    }
    let changes = test.pods.now().changes().to_vec();
    let of_served: Vec<_> = changes.iter().filter(|change| before[0].contains_key(&change.pod)).collect();
    ensure!(of_served.len() == 2 && slices.now().gaps() == 0, "{changes:?}");
    for change in of_served {
        let listing = slices.now().listing(change, &["served"]);
        ensure!(listing.is_empty(), "{change:?} was in traffic");
    }

    stage.proxy.clear();
    // All that is on its way late arrives.
    tokio::time::sleep(late).await;
    native::is_idle(&test).await?;
    oracle.ensure_none()?;
    for (workload, before) in all.into_iter().zip(&before) {
        test.pods.now().ensure_same(&workload.name, before)?;
    }
    drop(processes);
    test.verify()
}
