//! Deployments: one ReplicaSet before and after, and one more of the past.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::json;
use springtide_crds::common::IntOrPercent;
use springtide_crds::in_place_upgrade::{FinalizedReason, LockedReason, PrePullMode, StalledReason};
use springtide_e2e::oracle::feed::PATIENCE;
use springtide_e2e::polling::until_seen;
use springtide_e2e::upgrade::cost::{GATED, PLAIN, ensure_each_pod_cost, workload_writes, writes_by_pod};
use springtide_e2e::upgrade::pods::is_true;
use springtide_e2e::upgrade::workload::CONTAINER;
use springtide_e2e::upgrade::{GATE, PULLER_PREFIX, Signal, Testbed, Workload, image, native, shared};

#[tokio::test]
async fn a_paused_deployment_gets_its_template_into_the_same_pods_at_three_writes_each() -> Result<()> {
    let test = Testbed::new(shared().await?, "locked").await?;
    let web = Workload::deployment("web", 6);
    let before = test.start_paused(&web).await?;
    let active = native::active(&test, "web").await?;
    test.set_image(&web, &image(2)).await?;
    let mark = test.mark()?;
    let mut spec = web.upgrade();
    spec.strategy.max_unavailable = IntOrPercent::Percent(50);
    test.upgrade("web", spec).await?;
    let upgrade = test.succeeded("web", "").await?;
    test.told("web", LockedReason::Paused).await?;
    test.told("web", FinalizedReason::NativeControllerAgrees).await?;
    let status = upgrade.status.context("a status")?;
    ensure!((status.pods.total, status.pods.updated, status.pods.updated_ready) == (6, 6, 6), "{status:?}");
    ensure!(status.previous.is_none() && status.last_run.is_some_and(|run| run.pods == 6));

    native::agrees(&test, &web).await?;
    test.running(&web, &image(2), 6).await?;
    test.pods.now().ensure_same("web", &before)?;
    ensure!(test.pods.now().most_out() <= 3);
    let requests = test.requests_since(mark)?;
    ensure_each_pod_cost(&requests, 6, GATED)?;
    let written = workload_writes(&requests);
    ensure!(written.of_resource("deployments").is_empty(), "Git has the Deployment:\n{written}");
    let replaced = native::replacements(&requests);
    ensure!(replaced.is_empty(), "{replaced}");

    let sets = native::replica_sets(&test, "web").await?;
    let [now, past] = sets.as_slice() else { anyhow::bail!("{} ReplicaSets", sets.len()) };
    ensure!(now.uid() == active.uid() && native::image_of(now)? == image(2));
    ensure!(native::replicas(past) == 0 && native::image_of(past)? == image(1));
    ensure!(native::offered_by_undo(&test, "web").await? == image(1));

    // Git lets it go.
    test.patch(&web, json!({"spec": {"paused": false}})).await?;
    native::agrees(&test, &web).await?;
    native::is_idle(&test).await?;
    test.pods.now().ensure_same("web", &before)?;
    test.verify()
}

#[tokio::test]
async fn a_deployment_that_is_not_paused_is_so_for_the_end_of_a_run() -> Result<()> {
    let test = Testbed::new(shared().await?, "transient").await?;
    let web = Workload::deployment("web", 4).signal(Signal::None);
    let before = test.start(&web).await?;
    let active = native::active(&test, "web").await?;
    let mark = test.mark()?;
    let mut spec = web.transient(&image(2));
    spec.strategy.max_unavailable = IntOrPercent::Percent(50);
    test.upgrade("web", spec).await?;
    test.succeeded("web", "").await?;
    let deployment = native::agrees(&test, &web).await?;
    ensure!(native::template_image(&deployment) == image(2));
    ensure!(!deployment["spec"]["paused"].as_bool().unwrap_or_default(), "it is not paused any more");
    test.running(&web, &image(2), 4).await?;
    native::is_idle(&test).await?;
    test.pods.now().ensure_same("web", &before)?;
    let requests = test.requests_since(mark)?;
    ensure_each_pod_cost(&requests, 4, PLAIN)?;
    let written = workload_writes(&requests);
    ensure!(written.of_resource("deployments").len() == 2, "pause with template, and un-pause:\n{written}");
    ensure!(written.of_resource("replicasets").len() == 2, "the past, and the present:\n{written}");
    let replaced = native::replacements(&requests);
    ensure!(replaced.is_empty(), "{replaced}");
    ensure!(native::active(&test, "web").await?.uid() == active.uid());
    ensure!(native::replica_sets(&test, "web").await?.len() == 2);
    ensure!(native::offered_by_undo(&test, "web").await? == image(1));
    test.verify()
}

#[tokio::test]
async fn an_older_replica_set_that_equals_the_wish_changes_places_with_the_active_one() -> Result<()> {
    let test = Testbed::new(shared().await?, "swapped").await?;
    let web = Workload::deployment("web", 4);
    test.start(&web).await?;
    // A rollout as ever: the ReplicaSet of the first image stays, without pods.
    test.set_image(&web, &image(2)).await?;
    test.running(&web, &image(2), 4).await?;
    native::agrees(&test, &web).await?;
    let active = native::active(&test, "web").await?;
    let before = test.ready(&web, 4).await?;
    test.patch(&web, json!({"spec": {"paused": true}})).await?;
    test.set_image(&web, &image(1)).await?;
    test.upgrade("web", web.upgrade()).await?;
    test.succeeded("web", "").await?;
    native::agrees(&test, &web).await?;
    let sets = native::replica_sets(&test, "web").await?;
    let [now, past] = sets.as_slice() else { anyhow::bail!("{} ReplicaSets", sets.len()) };
    ensure!(now.uid() == active.uid() && native::image_of(now)? == image(1));
    ensure!(native::image_of(past)? == image(2) && native::replicas(past) == 0);
    ensure!(native::offered_by_undo(&test, "web").await? == image(2));
    test.patch(&web, json!({"spec": {"paused": false}})).await?;
    native::agrees(&test, &web).await?;
    native::is_idle(&test).await?;
    test.pods.now().ensure_same("web", &before)
}

#[tokio::test]
async fn two_active_replica_sets_are_refused_and_nothing_is_written() -> Result<()> {
    let test = Testbed::new(shared().await?, "two").await?;
    let rolling = json!({"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
    let web = Workload::deployment("web", 3).spec(json!({"strategy": rolling}));
    let before = test.start(&web).await?;
    // A rollout that stands still, as nobody sets the new pod's gate.
    let gates = json!([{"conditionType": GATE}, {"conditionType": "example.com/never"}]);
    let template =
        json!({"spec": {"readinessGates": gates, "containers": [{"name": CONTAINER, "image": image(2)}]}});
    test.patch(&web, json!({"spec": {"template": template}})).await?;
    test.pods_until("the new pod has the gate that is ours", |pods| {
        let is_new =
            |life: &&springtide_e2e::upgrade::pods::Life| life.runs(&image(2)) && is_true(&life.pod, GATE);
        pods.of("web").into_iter().find(is_new).map(|_| ())
    })
    .await?;
    test.patch(&web, json!({"spec": {"paused": true}})).await?;
    let mark = test.mark()?;
    test.upgrade("web", web.upgrade()).await?;
    test.told("web", LockedReason::MultipleActiveReplicaSets).await?;
    test.told("web", StalledReason::NotLocked).await?;
    native::is_idle(&test).await?;
    let requests = test.requests_since(mark)?;
    ensure!(writes_by_pod(&requests).is_empty() && workload_writes(&requests).is_empty(), "{requests}");
    let now = test.pods.now().identities("web");
    ensure!(before.iter().all(|(name, pod)| now.get(name) == Some(pod)));
    test.verify()
}

#[tokio::test]
async fn images_are_on_the_nodes_before_a_container_is_stopped() -> Result<()> {
    let test = Testbed::new(shared().await?, "pulled").await?;
    let web = Workload::deployment("web", 4);
    let before = test.start_paused(&web).await?;
    test.set_image(&web, &image(2)).await?;
    let mark = test.mark()?;
    let mut spec = web.upgrade();
    spec.pre_pull.mode = PrePullMode::Auto;
    test.upgrade("web", spec).await?;
    test.succeeded("web", "").await?;
    test.pods.now().ensure_same("web", &before)?;
    let requests = test.requests_since(mark)?;
    ensure_each_pod_cost(&requests, 4, GATED)?;
    // The order of the log is that of the answers.
    let pods = requests.writes().successful().of_resource("pods");
    let first = |check: &dyn Fn(&springtide_e2e::write_count::Request) -> bool| {
        pods.requests().iter().position(check).context("no such request")
    };
    let is_puller = |name: &str| name.starts_with(PULLER_PREFIX);
    let pulled = first(&|request| request.resource == "pods/status" && is_puller(&request.name))?;
    let changed = first(&|request| request.resource == "pods" && before.contains_key(&request.name))?;
    ensure!(pulled < changed, "{pods}");
    until_seen(PATIENCE, "what has pulled is gone", async || {
        let listed = test.api::<Pod>().list(&ListParams::default()).await?;
        let left: Vec<String> =
            listed.items.iter().map(ResourceExt::name_any).filter(|name| is_puller(name)).collect();
        Ok(if left.is_empty() { Ok(()) } else { Err(left.join(", ")) })
    })
    .await?;
    test.verify()
}

#[tokio::test]
async fn a_deployment_without_pods_gets_its_template_at_once() -> Result<()> {
    let test = Testbed::new(shared().await?, "empty").await?;
    let web = Workload::deployment("web", 0);
    test.start_paused(&web).await?;
    test.set_image(&web, &image(2)).await?;
    let mark = test.mark()?;
    test.upgrade("web", web.upgrade()).await?;
    test.succeeded("web", "").await?;
    let made = test.requests_since(mark)?.by_agent("kube-controller-manager").of_resource("replicasets");
    let made = made.writes().of_verb(springtide_e2e::write_count::Verb::Create);
    ensure!(made.is_empty(), "{made}");
    // It scales up with the wish, paused as it is.
    test.patch(&web, json!({"spec": {"replicas": 2}})).await?;
    test.running(&web, &image(2), 2).await?;
    let deployment = test.api::<Deployment>().get("web").await?;
    ensure!(deployment.spec.paused == Some(true));
    test.verify()
}
