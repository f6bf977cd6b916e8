//! A controller manager that begins anew by the word of an API server whose ReplicaSets are those of the past.

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::apps::v1::ReplicaSet;
use kube::api::{Api, ListParams, VersionMatch};
use serde_json::json;
use springtide_crds::in_place_upgrade::FinalizedReason;
use springtide_e2e::batch::long;
use springtide_e2e::local_cluster::SecondApiServer;
use springtide_e2e::oracle::feed::PATIENCE;
use springtide_e2e::polling::until_seen;
use springtide_e2e::upgrade::disturbed::{Disturbed, Watcher};
use springtide_e2e::upgrade::replacements::Replacements;
use springtide_e2e::upgrade::{Signal, Testbed, Workload, image, manager, native};

use crate::{is_flipped, waits_in_its_pause};

/// Deployments that are met by it between their flip and their controller's count, in the long run ...
const LONG: usize = 100;
/// ... and in the sample.
const SAMPLE: usize = 10;
/// It takes what the API server has in its cache for all there is, as controllers do up to Kubernetes 1.34: a streaming list
/// would wait for what is new.
const LISTS_OF_THE_CACHE: [&str; 1] = ["--feature-gates=WatchListClient=false"];

/// Images of the ReplicaSets that a client is served that takes whatever the cache of the server has.
async fn cached(server: &SecondApiServer, namespace: &str) -> Result<Vec<String>> {
    let sets: Api<ReplicaSet> = Api::namespaced(server.client("springtide-test")?, namespace);
    let whatever = ListParams {
        resource_version: Some("0".to_owned()),
        version_match: Some(VersionMatch::NotOlderThan),
        ..ListParams::default()
    };
    sets.list(&whatever).await?.items.iter().map(native::image_of).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_manager_that_fails_over_to_replica_sets_of_the_past_rolls_nothing_out() -> Result<()> {
    let count = if long() { LONG } else { SAMPLE };
    let stage = Disturbed::start().await?;
    let second = stage.cluster.second_api_server().await?;
    let start = || {
        let way = stage.proxy.kubeconfig();
        stage.cluster.controller_manager_through(way, &LISTS_OF_THE_CACHE)
    };
    let first = start()?;
    // It is not led astray itself.
    let manager = manager(&stage.cluster).await?;
    let test = Testbed::new(&stage.cluster, "past").await?;
    let workloads: Vec<Workload> = (0..count)
        .map(|number| Workload::deployment(&format!("web-{number}"), 1).signal(Signal::None))
        .collect();
    let before = try_join_all(workloads.iter().map(|workload| test.start(workload))).await?;
    let oracle = Replacements::watch(&test).await?;

    // The first one must not count before the second takes over.
    stage.delay(Watcher::ControllerManager, "replicasets", PATIENCE);
    until_seen(PATIENCE, "the second API server has all ReplicaSets", async || {
        let found = cached(&second, &test.namespace).await?.len();
        Ok(if found == count { Ok(()) } else { Err(found.to_string()) })
    })
    .await?;
    second.cut_off_from("replicasets");
    for workload in &workloads {
        test.upgrade(&workload.name, workload.transient(&image(2))).await?;
    }
    for workload in &workloads {
        is_flipped(&test, &workload.name).await?;
        waits_in_its_pause(&test, workload).await?;
        test.told(&workload.name, FinalizedReason::WaitingForHandshake).await?;
    }

    drop(first);
    stage.proxy.clear();
    stage.proxy.fail_over_to(second.address());
    let successor = start()?;
    // What it has looked at it says to have seen; none of that is a count.
    for workload in &workloads {
        test.patch(workload, json!({"spec": {"progressDeadlineSeconds": 700}})).await?;
    }
    for workload in &workloads {
        until_seen(PATIENCE, "the successor has looked at it", async || {
            let object = native::object(&test, workload).await?;
            let seen = object["status"]["observedGeneration"] == object["metadata"]["generation"];
            Ok(if seen { Ok(()) } else { Err(object["status"].to_string()) })
        })
        .await?;
        waits_in_its_pause(&test, workload).await?;
    }
    let shown = cached(&second, &test.namespace).await?;
    ensure!(shown == vec![image(1); count], "the second API server does not lag: {shown:?}");

    second.rejoin();
    for (workload, before) in workloads.iter().zip(&before) {
        test.succeeded(&workload.name, "").await?;
        native::agrees(&test, workload).await?;
        test.running(workload, &image(2), before.len()).await?;
    }
    native::is_idle(&test).await?;
    oracle.ensure_none()?;
    for (workload, before) in workloads.iter().zip(&before) {
        test.pods.now().ensure_same(&workload.name, before)?;
    }
    test.verify()?;
    drop(successor);
    manager.stop()?;
    Ok(())
}
