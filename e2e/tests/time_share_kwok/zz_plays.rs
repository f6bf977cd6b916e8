//! TEMPORARY
use anyhow::{Result, ensure};
use springtide_e2e::crash::{Scenario, World};
use springtide_e2e::foreign_crds::HTTP_ROUTE;
use springtide_e2e::upgrade;

use crate::scenarios::Sharing;

async fn twice(scenario: Sharing) -> Result<()> {
    let cluster = upgrade::shared().await?;
    cluster.apply(HTTP_ROUTE).await?;
    let mut all = Vec::new();
    for _ in 0..2 {
        let world = scenario.open(cluster).await?;
        scenario.play(&world).await?;
        tokio::time::sleep(std::time::Duration::from_secs(4)).await;
        ensure!(world.observed().await?, "not observed");
        let wrong = world.wrong(0).await?;
        ensure!(wrong.is_empty(), "{wrong:?}");
        all.push(world.facts().await?);
        world.clear().await?;
    }
    let differences = all[0].differences(&all[1]);
    println!("FACTS {:?}", all[0]);
    ensure!(differences.is_empty(), "{differences:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn zz_plays() -> Result<()> {
    let mut wrong = Vec::new();
    for scenario in Sharing::ALL {
        let began = std::time::Instant::now();
        let result = twice(scenario).await;
        println!("{}: {result:?} in {:?}", scenario.name(), began.elapsed());
        wrong.extend(result.err().map(|error| format!("{}: {error:#}", scenario.name())));
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

use springtide_e2e::fault_proxy::{FaultProxy, Protocols};
use springtide_e2e::time_share::kubelets::Habits;
use springtide_crds::time_share_group::Order;

#[tokio::test]
async fn zz_pipelined_priorities() -> Result<()> {
    let bounded = crate::preemption::preempting().await?;
    let late = std::time::Duration::from_secs(2);
    bounded.kubelets.behave(Habits { least: late, most: late, deaf_percent: 0 });
    let proxy = FaultProxy::start(&bounded.cluster, Protocols::All)?;
    let manager = springtide_e2e::time_share::manager_through(&bounded.cluster, proxy.kubeconfig(), "manager", &[]).await?;
    for slow in [true, false] {
        if !slow {
            bounded.kubelets.behave(Habits::default());
        }
        let stage = crate::preemption::start(&bounded.cluster, if slow { "slow" } else { "quick" }, [crate::preemption::LOW, crate::preemption::HIGH], Order::Pipelined).await?;
        let mark = stage.test.mark()?;
        stage.give("promo").await?;
        stage.settled("promo").await?;
        let ended = crate::preemption::preempted(&stage, mark)?;
        println!("slow {slow}: preempted {}\n{ended}", ended.len());
    }
    manager.stop()?;
    Ok(())
}
