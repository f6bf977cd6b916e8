//! What a node or the API server does not do: it is named ahead, or given up and taken back.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use springtide_crds::time_share_group::{OnPreflightFailure, PreflightFailure, StuckReason, TimeShareGroup};
use springtide_e2e::node::{NodeCluster, required_or_skipped};
use springtide_e2e::time_share::node_member::NodeMember;
use springtide_e2e::time_share::node_stage::NodeStage;
use springtide_e2e::time_share::pods::serves;
use springtide_e2e::time_share::sizes::Sizes;
use springtide_e2e::upgrade::real_node::NodeBed;
use springtide_time_share_group::sizes::Level;

use super::{TURN, shared, told};

/// Pods of a member that get traffic.
fn serving(sizes: &Sizes, member: &str) -> BTreeSet<String> {
    sizes.of(member).into_iter().filter(|pod| serves(&pod.pod)).map(|pod| pod.name()).collect()
}

/// Pods that preflight has named.
fn named(group: &TimeShareGroup) -> Vec<(String, PreflightFailure)> {
    let preflight = group.status.as_ref().and_then(|status| status.preflight.as_ref());
    let rows = preflight.into_iter().flat_map(|preflight| &preflight.failures);
    rows.map(|row| (row.pod.clone(), row.reason)).collect()
}

#[tokio::test]
async fn pods_that_the_api_server_would_not_resize_are_named_ahead_and_their_donors_keep_size_and_traffic()
-> Result<()> {
    let _turn = TURN.lock().await;
    let Some(bed) = shared().await? else { return Ok(()) };
    let stage = NodeStage::new(&bed.cluster, "refused").await?;
    let (pay, promo) = (NodeMember::new("pay", 3, "300m", "50m"), NodeMember::new("promo", 3, "300m", "50m"));
    let before = [stage.start(&pay).await?, stage.start(&promo).await?];
    stage.fill(750).await?;
    stage
        .group(&[&pay, &promo], |spec| {
            // Nothing begins before each resize was asked for; whatever is refused then is left as it is.
            spec.guards.preflight.on_failure = OnPreflightFailure::Hold;
            spec.guards.preflight.require_percent = 1;
            spec.guards.failure_threshold_percent = 100;
        })
        .await?;
    stage.switch_to(Some("pay")).await?;
    let protected = before[1].keys().next().context("a pod")?.clone();
    stage.test.forbid_resizes(&protected).await?;
    let mark = stage.test.mark()?;
    let group = stage.switch_to_what_can_be(Some("promo")).await?;
    let expected = vec![(protected.clone(), PreflightFailure::DryRunRefused)];
    ensure!(named(&group) == expected, "{:?}", group.status);
    let units = group.status.as_ref().and_then(|status| Some(status.transition.as_ref()?.units));
    let units = units.context("units")?;
    ensure!((units.total, units.done, units.skipped) == (3, 2, 1), "{}", told(&group));
    // What was refused was refused in dry runs alone, and who would have shrunk for it has not.
    let refused =
        stage.test.requests_since(mark)?.writes().of_resource("pods").filter(|write| write.code >= 400);
    ensure!(refused.filter(|write| write.code != 409).is_empty(), "{refused}");
    let (large, serve) = {
        let sizes = stage.sizes.now();
        let pods = sizes.of("pay").into_iter();
        let large = pods.filter(|pod| pod.size.asked == pay.requests(Level::Peak)).map(|pod| pod.name());
        (large.collect::<BTreeSet<String>>(), serving(&sizes, "pay"))
    };
    ensure!(large.len() == 1 && large == serve, "{large:?} are at peak, and {serve:?} have traffic");
    let small = stage.sizes.now().named(&protected).map(|pod| pod.size.asked);
    ensure!(
        small == Some(promo.requests(Level::Valley))
            && !serving(&stage.sizes.now(), "promo").contains(&protected)
    );

    // When the policy lets it through, it follows.
    stage.test.release(&protected).await?;
    stage.settled(Some("promo")).await?;
    stage.ensure_at(&pay, Level::Valley)?;
    stage.ensure_at(&promo, Level::Peak)?;
    for (name, before) in ["pay", "promo"].into_iter().zip(&before) {
        stage.sizes.now().ensure_same(name, before)?;
    }
    stage.test.verify()?;
    stage.test.clear().await
}

#[tokio::test]
async fn a_peak_above_what_the_node_has_is_named_ahead_and_nobody_shrinks_for_it() -> Result<()> {
    let _turn = TURN.lock().await;
    let Some(bed) = shared().await? else { return Ok(()) };
    let stage = NodeStage::new(&bed.cluster, "above").await?;
    let above = format!("{}m", stage.allocatable().await?.cpu + 1000);
    let (pay, promo) = (NodeMember::new("pay", 1, "300m", "50m"), NodeMember::new("promo", 1, &above, "50m"));
    stage.start(&pay).await?;
    stage.start(&promo).await?;
    stage
        .group(&[&pay, &promo], |spec| {
            spec.guards.preflight.on_failure = OnPreflightFailure::Hold;
            spec.guards.failure_threshold_percent = 100;
        })
        .await?;
    stage.switch_to(Some("pay")).await?;
    stage.ask_for(Some("promo")).await?;
    let is_named = |group: &TimeShareGroup| {
        named(group).iter().any(|(_, reason)| *reason == PreflightFailure::NodeDoesNotFit)
    };
    stage.test.until(super::GROUP, "preflight says that it does not fit", is_named).await?;
    // It holds: the switch does not open, and nothing changes.
    let held = stage.test.api::<TimeShareGroup>().get(super::GROUP).await?;
    let active = held.status.as_ref().and_then(|status| status.active_member.as_deref());
    ensure!(active == Some("pay"), "{}", told(&held));
    stage.ensure_at(&pay, Level::Peak)?;
    ensure!(serving(&stage.sizes.now(), "pay").len() == 1);
    stage.test.verify()?;
    stage.test.clear().await
}

#[tokio::test]
async fn a_resize_that_a_kubelet_calls_infeasible_is_given_up_and_its_donor_gets_everything_back()
-> Result<()> {
    let _turn = TURN.lock().await;
    if !required_or_skipped().await? {
        return Ok(());
    }
    // A node that gives whole CPUs away resizes no Guaranteed pod.
    let bed = NodeBed::start(NodeCluster::builder().reserved_cpus("0".parse()?)).await?;
    let stage = NodeStage::new(&bed.cluster, "infeasible").await?;
    let pay = NodeMember::new("pay", 1, "300m", "50m");
    let promo = NodeMember::new("promo", 1, "300m", "50m").guaranteed();
    let before = [stage.start(&pay).await?, stage.start(&promo).await?];
    stage.fill(250).await?;
    stage.group(&[&pay, &promo], |spec| spec.guards.failure_threshold_percent = 100).await?;
    stage.switch_to(Some("pay")).await?;
    let group = stage.switch_to_what_can_be(Some("promo")).await?;
    let status = group.status.as_ref().context("a status")?;
    let receiver = before[1].keys().next().context("a pod")?;
    let stuck: Vec<_> = status.stuck.iter().map(|row| (row.pod.as_str(), row.reason)).collect();
    ensure!(stuck == [(receiver.as_str(), StuckReason::Infeasible)], "{}", told(&group));
    stage.ensure_at(&pay, Level::Peak).with_context(|| told(&group))?;
    stage.ensure_at(&promo, Level::Valley).with_context(|| told(&group))?;
    let sizes = stage.sizes.now();
    ensure!(serving(&sizes, "pay").len() == 1 && serving(&sizes, "promo").is_empty(), "{}", told(&group));
    for (name, before) in ["pay", "promo"].into_iter().zip(&before) {
        sizes.ensure_same(name, before)?;
    }
    drop(sizes);
    stage.test.verify()?;
    drop(stage);
    bed.stop()
}
