//! Pods that cannot be changed in place are made anew by their own controllers, where that is asked for.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use kube::ResourceExt;
use serde_json::{Value, json};
use springtide_crds::common::IntOrPercent;
use springtide_crds::in_place_upgrade::{InPlaceUpgradeSpec, Ineligible, RunResult, StalledReason};
use springtide_e2e::batch::{POOL, pool};
use springtide_e2e::manager::USER_AGENT;
use springtide_e2e::upgrade::cost::workload_writes;
use springtide_e2e::upgrade::pods::{Identity, Life};
use springtide_e2e::upgrade::workload::{CONTAINER, LOCKED_PARTITION};
use springtide_e2e::upgrade::{Testbed, Workload, image, native, shared};
use springtide_e2e::write_count::{Verb, WriteCount};

/// The second image with an environment, which nobody changes on a live pod.
fn wish() -> Value {
    let environment = json!([{"name": "LEVEL", "value": "debug"}]);
    let container = json!({"name": CONTAINER, "image": image(2), "env": environment});
    json!({"spec": {"template": {"spec": {"containers": [container]}}}})
}

fn has_environment(life: &Life) -> bool {
    let containers = life.pod.spec.iter().flat_map(|spec| &spec.containers);
    let own = containers.filter(|container| container.name == CONTAINER);
    own.flat_map(|container| container.env.iter().flatten()).any(|variable| variable.name == "LEVEL")
}

/// One pod at a time, and those that cannot be changed in place are made anew.
fn anew(workload: &Workload) -> InPlaceUpgradeSpec {
    let mut spec = workload.one_by_one();
    spec.policy.ineligible = Ineligible::Recreate;
    spec
}

/// Waits until a workload has its pods, which are as they are wished and none of which was there before.
async fn all_are_new(
    test: &Testbed<'_>,
    workload: &Workload,
    before: &BTreeMap<String, Identity>,
) -> Result<()> {
    test.running(workload, &image(2), workload.replicas as usize).await?;
    test.all_in_traffic(workload).await?;
    let old: BTreeSet<&String> = before.values().map(|pod| &pod.uid).collect();
    let pods = test.pods.now();
    for life in pods.of(&workload.name) {
        let uid = life.pod.uid().context("a UID")?;
        ensure!(!old.contains(&uid), "{} was there before", life.name());
        ensure!(has_environment(life) && life.restarts() == 0, "{}: {:?}", life.name(), life.images);
    }
    Ok(())
}

/// Pods that the manager has evicted. It has changed none beside.
fn evicted(requests: &WriteCount) -> Result<usize> {
    let own = requests.by_agent(USER_AGENT).writes().successful();
    let changed = own.filter(|request| request.resource == "pods" || request.resource == "pods/resize");
    ensure!(changed.is_empty(), "{changed}");
    Ok(own.of_resource("pods/eviction").len())
}

#[tokio::test]
async fn pods_of_a_deployment_are_evicted_and_its_one_replica_set_makes_them_as_they_are_wished() -> Result<()>
{
    let test = Testbed::new(shared().await?, "anew").await?;
    let web = Workload::deployment("web", 3);
    let before = test.start_paused(&web).await?;
    let active = native::active(&test, "web").await?.uid();
    test.patch(&web, wish()).await?;
    let mark = test.mark()?;
    test.upgrade("web", anew(&web)).await?;
    test.succeeded("web", "").await?;
    native::agrees(&test, &web).await?;
    all_are_new(&test, &web, &before).await?;
    let requests = test.requests_since(mark)?;
    ensure!(evicted(&requests)? == 3, "{requests}");
    ensure!(workload_writes(&requests).of_resource("deployments").is_empty(), "Git has the Deployment");
    let sets = native::replica_sets(&test, "web").await?;
    let [now, past] = sets.as_slice() else { anyhow::bail!("{} ReplicaSets", sets.len()) };
    ensure!(now.uid() == active && native::image_of(now)? == image(2));
    ensure!(native::replicas(past) == 0 && native::image_of(past)? == image(1));
    ensure!(native::offered_by_undo(&test, "web").await? == image(1));

    // Git lets it go.
    let same = test.pods.now().identities("web");
    test.patch(&web, json!({"spec": {"paused": false}})).await?;
    native::agrees(&test, &web).await?;
    native::is_idle(&test).await?;
    test.pods.now().ensure_same("web", &same)?;
    test.verify()
}

#[tokio::test]
async fn a_pod_that_finds_no_node_in_the_place_of_another_is_rolled_back_by_the_old_template() -> Result<()> {
    let test = Testbed::new(shared().await?, "nowhere").await?;
    let web = Workload::deployment("web", 3);
    let before = test.start_paused(&web).await?;
    let active = native::active(&test, "web").await?.uid();
    let nowhere = json!({"nodeSelector": {POOL: "nowhere"}});
    test.patch(&web, json!({"spec": {"template": {"spec": nowhere}}})).await?;
    let mut spec = anew(&web);
    spec.strategy.pod_deadline_seconds = 30;
    spec.health.failure_threshold = IntOrPercent::Int(0);
    test.upgrade("web", spec).await?;
    let upgrade = test.told("web", StalledReason::RolledBack).await?;
    let run = upgrade.status.and_then(|status| status.last_run).context("the run")?;
    ensure!(run.result == RunResult::RolledBack);
    test.running(&web, &image(1), 3).await?;
    test.all_in_traffic(&web).await?;
    let now = test.pods.now().identities("web");
    let kept = before.iter().filter(|(name, pod)| now.get(*name) == Some(*pod)).count();
    ensure!(kept == 2, "one was made anew, and {kept} are the same");
    ensure!(native::active(&test, "web").await?.uid() == active);
    native::is_idle(&test).await?;
    test.verify()
}

#[tokio::test]
async fn pods_of_a_stateful_set_are_made_anew_by_its_controller_as_its_partition_is_lowered() -> Result<()> {
    let test = Testbed::new(shared().await?, "ordinals-anew").await?;
    let db = Workload::stateful_set("db", 3);
    let before = test.start(&db).await?;
    test.patch(&db, wish()).await?;
    let mark = test.mark()?;
    test.upgrade("db", anew(&db)).await?;
    test.succeeded("db", "").await?;
    let set = native::agrees(&test, &db).await?;
    let partition = &set["spec"]["updateStrategy"]["rollingUpdate"]["partition"];
    ensure!(*partition == LOCKED_PARTITION, "what was recorded is there again: {partition}");
    all_are_new(&test, &db, &before).await?;
    let requests = test.requests_since(mark)?;
    ensure!(evicted(&requests)? == 0, "{requests}");
    let ended = requests.by_agent("kube-controller-manager").successful().of_verb(Verb::Delete);
    let ended = ended.filter(|request| request.resource == "pods");
    let mut order: Vec<&str> = ended.requests().iter().map(|request| request.name.as_str()).collect();
    order.dedup();
    ensure!(order == ["db-2", "db-1", "db-0"], "from the top: {order:?}");
    test.verify()
}

#[tokio::test]
async fn pods_of_a_daemon_set_are_evicted_and_come_again_on_their_nodes() -> Result<()> {
    let cluster = shared().await?;
    let test = Testbed::new(cluster, "nodes-anew").await?;
    cluster.kwok().context("KWOK")?.add_nodes(cluster, &pool("anew", 2, "8", 110)).await?;
    let agent = Workload::daemon_set("agent", "anew", 2);
    let before = test.start(&agent).await?;
    test.patch(&agent, wish()).await?;
    let mark = test.mark()?;
    test.upgrade("agent", anew(&agent)).await?;
    test.succeeded("agent", "").await?;
    native::agrees(&test, &agent).await?;
    all_are_new(&test, &agent, &before).await?;
    let requests = test.requests_since(mark)?;
    ensure!(evicted(&requests)? == 2, "{requests}");
    let nodes = |pods: &BTreeMap<String, Identity>| -> BTreeSet<String> {
        pods.values().map(|pod| pod.node.clone()).collect()
    };
    ensure!(nodes(&before) == nodes(&test.pods.now().identities("agent")));
    test.verify()
}
