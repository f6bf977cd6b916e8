//! A scheduler that ends pods of lower priority for resizes that wait (KEP-5836). It sees each claim wait for seconds, as
//! the other resize of its unit is late.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};
use springtide_crds::time_share_group::{CapacitySafeReason, Order};
use springtide_e2e::fault_proxy::{Class, Fault, FaultProxy, Latency, Protocols, When};
use springtide_e2e::local_cluster::{Component, LocalCluster};
use springtide_e2e::manager::USER_AGENT;
use springtide_e2e::time_share::node_stage::GROUP;
use springtide_e2e::time_share::stage::{Setting, Stage};
use springtide_e2e::time_share::{Bounded, manager_through, with_crds};
use springtide_e2e::write_count::{Mark, Verb, WriteCount};

/// What makes the scheduler do so.
const PREEMPTS: &str = "--feature-gates=InPlacePodVerticalScalingSchedulerPreemption=true";
/// By so much resizes are late.
const LATE: Duration = Duration::from_secs(2);
/// Classes of pods, and one of the value of the second that ends nobody.
pub(crate) const LOW: &str = "share-low";
pub(crate) const HIGH: &str = "share-high";
const POLITE: &str = "share-polite";

async fn create_classes(cluster: &LocalCluster) -> Result<()> {
    let classes: Api<PriorityClass> = Api::all(cluster.client("springtide-test")?);
    let class = |name: &str, value: i32, policy: &str| -> Value {
        json!({
            "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name},
            "value": value, "preemptionPolicy": policy,
        })
    };
    let lower = "PreemptLowerPriority";
    for class in [class(LOW, 100, lower), class(HIGH, 1000, lower), class(POLITE, 1000, "Never")] {
        classes.create(&PostParams::default(), &serde_json::from_value(class)?).await?;
    }
    Ok(())
}

/// Two members of these classes, of which `pay` has the peak.
pub(crate) async fn start<'a>(
    cluster: &'a LocalCluster,
    name: &str,
    [pay, promo]: [&str; 2],
    order: Order,
) -> Result<Stage<'a>> {
    let setting = Setting::new(name, 2).each(|member| {
        let class = if member.name == "pay" { pay } else { promo };
        member.pod(json!({"priorityClassName": class}))
    });
    setting.start(cluster, |spec| spec.switch.order = order).await
}

/// Pods that the scheduler has ended.
pub(crate) fn preempted(stage: &Stage<'_>, since: Mark) -> Result<WriteCount> {
    let requests = stage.test.requests_since(since)?.by_agent("kube-scheduler/").writes().successful();
    Ok(requests.of_resource("pods").of_verb(Verb::Delete))
}

/// A cluster with such a scheduler, and the classes.
pub(crate) async fn preempting() -> Result<Bounded> {
    let builder = LocalCluster::builder()
        .extra_args(Component::ApiServer, [PREEMPTS])
        .extra_args(Component::Scheduler, [PREEMPTS]);
    let bounded = with_crds(builder).await?;
    create_classes(&bounded.cluster).await?;
    Ok(bounded)
}

#[tokio::test]
async fn a_scheduler_that_preempts_for_resizes_ends_no_donor_unless_it_is_told_that_priorities_differ()
-> Result<()> {
    let bounded = preempting().await?;
    let cluster = &bounded.cluster;
    let proxy = FaultProxy::start(cluster, Protocols::All)?;
    let manager = manager_through(cluster, proxy.kubeconfig(), "manager", &[]).await?;
    let resizes = Class::of([Verb::Patch]).resource("pods/resize").agent(USER_AGENT);
    proxy.fault(resizes, When::Always, Fault::Delay(Latency::Fixed(LATE)));
    for (name, classes, order) in [
        ("equal", [HIGH, HIGH], Order::ClaimFirst),
        ("polite", [LOW, POLITE], Order::ClaimFirst),
        ("shrinks", [LOW, HIGH], Order::ShrinkFirst),
    ] {
        let stage = start(cluster, name, classes, order).await?;
        stage.test.told(GROUP, CapacitySafeReason::WithinBudget).await?;
        let before = ["pay", "promo"].map(|member| stage.test.pods.now().sizes.identities(member));
        let mark = stage.test.mark()?;
        for member in ["promo", "pay"] {
            stage.switch_to(member).await?;
        }
        let ended = preempted(&stage, mark)?;
        ensure!(ended.is_empty(), "{name}: the scheduler has ended\n{ended}");
        for (member, before) in ["pay", "promo"].into_iter().zip(&before) {
            stage.test.pods.now().sizes.ensure_same(member, before)?;
        }
        stage.test.verify()?;
        stage.clear().await?;
    }

    // Where it would, that is told before, and it does.
    let stage = start(cluster, "differ", [LOW, HIGH], Order::ClaimFirst).await?;
    stage.test.told(GROUP, CapacitySafeReason::PrioritiesDiffer).await?;
    let mark = stage.test.mark()?;
    stage.give("promo").await?;
    stage.settled("promo").await?;
    stage.ensure_peak("promo").await?;
    ensure!(!preempted(&stage, mark)?.is_empty(), "the scheduler ends nobody: the test tells nothing");
    stage.test.verify()?;
    manager.stop()?;
    Ok(())
}
