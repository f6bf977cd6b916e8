//! A manager that is killed (SIGKILL) at ten moments of some upgrades.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::ResourceExt;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use springtide_crds::common::IntOrPercent;
use springtide_crds::in_place_upgrade::InPlaceUpgradeSpec;
use springtide_e2e::kwok::RESTART_SECONDS;
use springtide_e2e::local_cluster::LocalCluster;
use springtide_e2e::manager::Manager;
use springtide_e2e::upgrade::pods::Pods;
use springtide_e2e::upgrade::replacements::Replacements;
use springtide_e2e::upgrade::workload::in_two_steps;
use springtide_e2e::upgrade::{Signal, Testbed, Workload, cluster, image, manager_through, native};

/// Kills, all of them between the first change of a pod and the end.
const KILLS: usize = 10;
/// Decides at how many changed pods, and how long after.
const SEED: u64 = 20_261_128;
/// Longest time from a moment to the kill: about as long as a pod takes.
const AFTER: Duration = Duration::from_millis(900);
/// Seconds from the change of a pod to its new container.
const RESTART: &str = "0.4";

async fn start(cluster: &LocalCluster, number: usize) -> Result<Manager> {
    let name = format!("manager-{number}");
    manager_through(cluster, &cluster.kubeconfig_path(), &name, &["--no-leader-election"]).await
}

/// Three workloads, a protocol each, with their upgrades to the second image.
fn upgrades() -> [(Workload, InPlaceUpgradeSpec); 3] {
    let web = Workload::deployment("web", 12).annotated(RESTART_SECONDS, RESTART);
    let mut locked = web.upgrade();
    locked.strategy.max_unavailable = IntOrPercent::Percent(25);

    let own = Workload::deployment("own", 5).signal(Signal::None).annotated(RESTART_SECONDS, RESTART);
    let mut transient = own.transient(&image(2));
    transient.strategy.max_unavailable = IntOrPercent::Int(1);

    let db = Workload::stateful_set("db", 5).annotated(RESTART_SECONDS, RESTART);
    let mut partition = db.one_by_one();
    partition.strategy.steps = in_two_steps(2);
    [(web, locked), (own, transient), (db, partition)]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_that_is_killed_at_ten_moments_restarts_no_pod_twice_and_comes_to_the_same_end()
-> Result<()> {
    let mut random = StdRng::seed_from_u64(SEED);
    let cluster = cluster().await?;
    let mut manager = start(&cluster, 0).await?;
    let test = Testbed::new(&cluster, "killed").await?;
    let [(web, _), (own, _), (db, _)] = upgrades();
    let before = [test.start_paused(&web).await?, test.start(&own).await?, test.start(&db).await?];
    let active = [native::active(&test, "web").await?.uid(), native::active(&test, "own").await?.uid()];
    test.pods.now().count_anew();
    let oracle = Replacements::watch(&test).await?;

    test.set_image(&web, &image(2)).await?;
    test.set_image(&db, &image(2)).await?;
    for (workload, spec) in upgrades() {
        test.upgrade(&workload.name, spec).await?;
    }
    let all: usize = before.iter().map(|pods| pods.len()).sum();
    let mut moments: Vec<usize> = (0..KILLS - 1).map(|_| random.random_range(1..all)).collect();
    // One when every pod is changed, and the native controllers are told.
    moments.push(all);
    moments.sort_unstable();
    for (number, changed) in moments.iter().enumerate() {
        let so_many = |pods: &Pods| (pods.changes().len() >= *changed).then_some(());
        test.pods_until(&format!("{changed} pods are changed"), so_many).await?;
        tokio::time::sleep(AFTER.mul_f64(random.random())).await;
        manager.kill()?;
        manager = start(&cluster, number + 1).await?;
    }

    for ((workload, _), before) in upgrades().iter().zip(&before) {
        let name = &workload.name;
        test.succeeded(name, "").await.with_context(|| format!("seed {SEED}, {moments:?}"))?;
        native::agrees(&test, workload).await?;
        test.running(workload, &image(2), before.len()).await?;
        test.all_in_traffic(workload).await?;
        let pods = test.pods.now();
        pods.ensure_same(name, before)?;
        for life in pods.of(name) {
            let drains = usize::from(workload.signal == Signal::Gate);
            let (restarts, drained) = (life.restarts(), life.drains);
            ensure!((restarts, drained) == (1, drains), "{}: {restarts}, {drained}", life.name());
        }
    }
    // As without a kill: the same ReplicaSet with the pods, and one more of the past.
    for (name, active) in ["web", "own"].into_iter().zip(active) {
        let sets = native::replica_sets(&test, name).await?;
        let [now, past] = sets.as_slice() else { anyhow::bail!("{name}: {} ReplicaSets", sets.len()) };
        ensure!(now.uid() == active && native::image_of(now)? == image(2));
        ensure!(native::replicas(past) == 0 && native::image_of(past)? == image(1));
    }
    native::is_idle(&test).await?;
    oracle.ensure_none()?;
    test.verify()?;
    manager.stop()?;
    Ok(())
}
