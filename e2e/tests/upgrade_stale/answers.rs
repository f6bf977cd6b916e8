//! Changes of pods whose first answer is a conflict, or no answer, whether or not they are stored.

use anyhow::{Context, Result, ensure};
use springtide_e2e::fault_proxy::{Answer, At, Class, Fault, FaultProxy, Protocols, When};
use springtide_e2e::manager::USER_AGENT;
use springtide_e2e::upgrade::{Testbed, Workload, cluster, image, manager_through, native};
use springtide_e2e::write_count::Verb;

/// What the first change of each pod meets.
fn faults() -> [Fault; 4] {
    [
        Fault::Refuse(Answer::conflict()),
        Fault::Replace(Answer::conflict()),
        Fault::Reset(At::BeforeSend),
        Fault::Reset(At::AfterCommit),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_is_refused_or_not_answered_after_the_drain_is_neither_left_out_nor_done_twice()
-> Result<()> {
    let cluster = cluster().await?;
    let proxy = FaultProxy::start(&cluster, Protocols::All)?;
    let manager = manager_through(&cluster, proxy.kubeconfig(), "manager", &["--no-leader-election"]).await?;
    let test = Testbed::new(&cluster, "answers").await?;
    let web = Workload::deployment("web", 4);
    let before = test.start_paused(&web).await?;
    let met = before.keys().zip(faults()).map(|(pod, fault)| {
        let changes = Class::writes().verb(Verb::Patch).resource("pods").agent(USER_AGENT);
        let changes = changes.namespace(&test.namespace).name(pod);
        (pod, proxy.fault(changes, When::Nth(1), fault))
    });
    let met: Vec<_> = met.collect();
    test.set_image(&web, &image(2)).await?;
    test.upgrade("web", web.one_by_one()).await?;
    test.succeeded("web", "").await?;
    native::agrees(&test, &web).await?;
    test.running(&web, &image(2), 4).await?;
    test.pods.now().ensure_same("web", &before)?;
    for (pod, rule) in met {
        ensure!(proxy.hits(rule).fired == 1, "{pod} has met nothing");
        let pods = test.pods.now();
        let life = pods.named(pod).context("a pod")?;
        ensure!((life.restarts(), life.drains) == (1, 1), "{pod}: {:?}", life.images);
    }
    test.verify()?;
    manager.stop()?;
    Ok(())
}
