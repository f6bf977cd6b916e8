//! The oracles of upgrades tell pods that were changed in place from pods that were replaced, without any manager.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail as a test does")]

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use springtide_e2e::local_cluster::LocalCluster;
use springtide_e2e::upgrade::slices::{SliceFeed, Slices};
use springtide_e2e::upgrade::workload::CONTAINER;
use springtide_e2e::upgrade::{REVISION_LABEL, Signal, Testbed, Workload, cluster, image, native};
use springtide_e2e::write_count::Verb;
use tokio::sync::OnceCell;

static CLUSTER: OnceCell<LocalCluster> = OnceCell::const_new();

async fn testbed(prefix: &str) -> Result<Testbed<'static>> {
    Testbed::new(CLUSTER.get_or_try_init(cluster).await?, prefix).await
}

/// Changes the image of a pod, as somebody does who knows no drain.
async fn change(test: &Testbed<'_>, pod: &str, image: &str, revision: Option<&str>) -> Result<()> {
    let mut change = json!({"spec": {"containers": [{"name": CONTAINER, "image": image}]}});
    if let Some(revision) = revision {
        change["metadata"] = json!({"labels": {REVISION_LABEL: revision}});
    }
    test.api::<Pod>().patch(pod, &PatchParams::default(), &Patch::Strategic(change)).await?;
    Ok(())
}

#[tokio::test]
async fn a_rollout_replaces_pods_and_is_seen_to() -> Result<()> {
    let test = testbed("rollout").await?;
    let web = Workload::deployment("web", 3).signal(Signal::None);
    let before = test.start(&web).await?;
    let first = native::active(&test, "web").await?;
    let mark = test.mark()?;
    test.set_image(&web, &image(2)).await?;
    test.running(&web, &image(2), 3).await?;
    native::agrees(&test, &web).await?;
    test.ready(&web, 3).await?;
    let error = test.pods.now().ensure_same("web", &before).unwrap_err();
    ensure!(error.to_string().contains("are not the same"), "{error}");
    let requests = test.requests_since(mark)?;
    let replaced = native::replacements(&requests);
    ensure!(
        replaced.of_verb(Verb::Delete).len() >= 3 && replaced.of_verb(Verb::Create).len() == 3,
        "{replaced}"
    );
    let sets = native::replica_sets(&test, "web").await?;
    ensure!(sets.len() == 2 && sets[1].uid() == first.uid());
    ensure!((native::image_of(&sets[0])?, native::image_of(&sets[1])?) == (image(2), image(1)));
    ensure!(native::offered_by_undo(&test, "web").await? == image(1));
    native::is_idle(&test).await
}

#[tokio::test]
async fn a_paused_deployment_whose_pods_and_replica_set_are_changed_agrees() -> Result<()> {
    let test = testbed("by-hand").await?;
    let web = Workload::deployment("web", 3).signal(Signal::None);
    let before = test.start_paused(&web).await?;
    test.set_image(&web, &image(2)).await?;
    let mark = test.mark()?;
    for name in before.keys() {
        change(&test, name, &image(2), None).await?;
    }
    test.running(&web, &image(2), 3).await?;
    let active = native::active(&test, "web").await?;
    let containers = json!([{"name": CONTAINER, "image": image(2)}]);
    let patch = Patch::Strategic(json!({"spec": {"template": {"spec": {"containers": containers}}}}));
    test.api::<ReplicaSet>().patch(&active.name_any(), &PatchParams::default(), &patch).await?;
    native::agrees(&test, &web).await?;
    test.patch(&web, json!({"spec": {"paused": false}})).await?;
    native::agrees(&test, &web).await?;
    native::is_idle(&test).await?;
    test.pods.now().ensure_same("web", &before)?;
    ensure!(native::replacements(&test.requests_since(mark)?).is_empty());
    ensure!(native::replica_sets(&test, "web").await?.len() == 1);
    let changes = test.pods.now().changes().len();
    ensure!(changes == 3 && test.pods.now().of("web").iter().all(|life| life.restarts() == 1));
    ensure!(test.pods.now().most_out() > 0, "a pod that does not run what it should is out");
    test.verify()
}

#[tokio::test]
async fn a_stateful_set_counts_pods_by_their_label_and_replaces_those_above_a_lower_partition() -> Result<()>
{
    let test = testbed("labels").await?;
    let db = Workload::stateful_set("db", 2).signal(Signal::None);
    let before = test.start(&db).await?;
    test.set_image(&db, &image(2)).await?;
    let told = springtide_e2e::polling::until(
        springtide_e2e::oracle::feed::PATIENCE,
        "the new revision",
        async || {
            let status = native::object(&test, &db).await?["status"].clone();
            Ok(Some(status).filter(|status| status["updateRevision"] != status["currentRevision"]))
        },
    )
    .await?;
    let revision = told["updateRevision"].as_str().context("a revision")?.to_owned();
    change(&test, "db-1", &image(2), Some(&revision)).await?;
    test.running(&db, &image(2), 1).await?;
    // db-0 is below this partition, db-1 is as it says.
    let partition = json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 1}}}});
    test.patch(&db, partition).await?;
    native::is_idle(&test).await?;
    test.pods.now().ensure_same("db", &before)?;
    let partition = json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}}});
    test.patch(&db, partition).await?;
    native::agrees(&test, &db).await?;
    test.ready(&db, 2).await?;
    let now = test.pods.now().identities("db");
    ensure!(now.get("db-1") == before.get("db-1") && now.get("db-0") != before.get("db-0"), "{now:?}");
    Ok(())
}

#[tokio::test]
async fn a_service_has_a_pod_until_its_containers_are_not_ready() -> Result<()> {
    let test = testbed("slices").await?;
    let slices = SliceFeed::start(test.api()).await?;
    test.create::<k8s_openapi::api::core::v1::Service>(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
    }))
    .await?;
    let web = Workload::deployment("web", 2).signal(Signal::None);
    let before = test.start(&web).await?;
    let count = |wanted: usize| move |slices: &Slices| (slices.ready("web").len() == wanted).then_some(());
    slices.until("both pods", count(2)).await?;
    let (name, pod) = before.first_key_value().context("a pod")?;
    test.set_condition(name, "ContainersReady", "False").await?;
    slices.until("the other pod", count(1)).await?;
    ensure!(!slices.now().ready("web").contains(&pod.uid));
    change(&test, name, &image(2), None).await?;
    slices.until("both pods again", count(2)).await?;
    let (other, _) = before.last_key_value().context("a pod")?;
    change(&test, other, &image(2), None).await?;
    test.running(&web, &image(2), 2).await?;
    let changes = test.pods.now().changes().to_vec();
    let listing: Vec<bool> =
        changes.iter().map(|change| !slices.now().listing(change, &["web"]).is_empty()).collect();
    ensure!(listing == [false, true], "the first was out of it, the second was not: {listing:?}");
    Ok(())
}
