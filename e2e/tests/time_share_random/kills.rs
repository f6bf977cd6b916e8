//! A manager that is killed (SIGKILL) at ten moments of a switch.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use springtide_crds::time_share_group::{Step, TransitionResult};
use springtide_e2e::local_cluster::LocalCluster;
use springtide_e2e::manager::Manager;
use springtide_e2e::time_share::node_stage::GROUP;
use springtide_e2e::time_share::pods::Pods;
use springtide_e2e::time_share::resizes::{of_pod, stored};
use springtide_e2e::time_share::stage::Setting;
use springtide_e2e::time_share::{Bounded, cluster, manager_through};

/// Kills, all of them between the first write of the switch and its end.
const KILLS: usize = 10;
/// Decides at how many pods that have the peak, and how long after.
const SEED: u64 = 20_261_129;
/// Longest time from a moment to the kill: about as long as a unit takes.
const AFTER: Duration = Duration::from_millis(700);
/// Nodes, with two units each.
const NODES: u32 = 8;

async fn start(cluster: &LocalCluster, number: usize) -> Result<Manager> {
    let name = format!("manager-{number}");
    manager_through(cluster, &cluster.kubeconfig_path(), &name, &["--no-leader-election"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_that_is_killed_at_ten_moments_goes_the_same_way_and_writes_no_pod_twice() -> Result<()> {
    let mut random = StdRng::seed_from_u64(SEED);
    let Bounded { kubelets, cluster } = cluster().await?;
    let mut manager = start(&cluster, 0).await?;
    let stage = Setting::new("killed", NODES)
        .pods([2, 2])
        .start(&cluster, |spec| {
            let step = |percent, hold_seconds| Step { percent, hold_seconds };
            spec.switch.steps = vec![step(10, 1), step(50, 1), step(100, 0)];
            spec.switch.max_in_flight_units = 2;
        })
        .await?;
    let mark = stage.test.mark()?;
    stage.give("promo").await?;
    let all = 2 * NODES as usize;
    let mut moments: Vec<usize> = (0..KILLS - 1).map(|_| random.random_range(0..all)).collect();
    // One when every pod has the peak, and the status is yet to say so.
    moments.push(all);
    moments.sort_unstable();
    for (number, at_peak) in moments.iter().enumerate() {
        let so_many = |pods: &Pods| (pods.standing("promo").at_peak >= *at_peak).then_some(());
        stage.test.pods_until(&format!("{at_peak} pods have the peak"), so_many).await?;
        tokio::time::sleep(AFTER.mul_f64(random.random())).await;
        manager.kill()?;
        manager = start(&cluster, number + 1).await?;
    }
    let group = stage.settled("promo").await.with_context(|| format!("seed {SEED}, {moments:?}"))?;
    stage.ensure_peak("promo").await?;
    let status = group.status.context("a status")?;
    let transition = status.transition.context("a transition")?;
    ensure!((transition.id, transition.units.done, transition.units.total) == (2, 16, 16), "{transition:?}");
    let last = status.last_transitions.first().context("a record")?;
    ensure!((last.id, last.result, last.skipped) == (2, TransitionResult::Succeeded, 0), "{last:?}");
    let groups = stage.test.groups.now();
    let steps = groups.steps(GROUP).to_vec();
    ensure!(steps == [(1, 1), (2, 1), (2, 2), (2, 3)], "{steps:?}");
    // The canary is the same for each of them: no step has more units than its own.
    let begun = [1, 2].map(|step| groups.most_begun(GROUP, (2, step)));
    ensure!(begun[0] <= 2 && begun[1] <= 8, "{begun:?}");
    drop(groups);
    let writes = stored(&stage.test.requests_since(mark)?);
    for name in [stage.names("pay"), stage.names("promo")].concat() {
        let own = of_pod(&writes, &name);
        ensure!(own.len() == 2, "{name}: {own:?}");
    }
    ensure!(kubelets.turned_away(&stage.test.namespace).is_empty());
    stage.test.verify()?;
    manager.stop()?;
    Ok(())
}
