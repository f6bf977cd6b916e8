//! A switch, what it costs and in which order, by the audit log.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use springtide_crds::time_share_group::{
    HeldReason, Order, Overlap, ReadyReason, ReconcilingReason, Step, TrafficMode, TransitionCause,
    TransitionResult,
};
use springtide_e2e::manager::USER_AGENT;
use springtide_e2e::time_share::groups::says;
use springtide_e2e::time_share::node_member::CONTAINER;
use springtide_e2e::time_share::node_stage::GROUP;
use springtide_e2e::time_share::pods::{Pods, Standing};
use springtide_e2e::time_share::resizes::{ensure_chained, of_pod, of_unit, stored};
use springtide_e2e::time_share::stage::{Setting, Stage};
use springtide_e2e::time_share::{LABEL, shared};
use springtide_e2e::upgrade::pods::is_true;
use springtide_e2e::upgrade::slices::{SliceFeed, Slices};

/// A group that has settled has nothing to write for so long at least.
const REST: Duration = Duration::from_secs(10);
/// For the status and the Events of a switch that has ended.
const FIGURES: Duration = Duration::from_secs(3);

/// Each pod of `pay` with the one of `promo` on its node.
fn pairs(stage: &Stage<'_>) -> BTreeMap<String, String> {
    let pods = stage.test.pods.now();
    let (pay, promo) = (pods.by_node("pay"), pods.by_node("promo"));
    let pair = |(node, names): (&String, &Vec<String>)| {
        Some((names.first()?.clone(), promo.get(node)?.first()?.clone()))
    };
    pay.iter().filter_map(pair).collect()
}

#[tokio::test]
async fn the_peak_changes_hands_with_two_writes_a_pod_and_each_resize_right_behind_its_donors() -> Result<()>
{
    let bounded = shared().await?;
    let stage = Setting::new("switch", 4).start(&bounded.cluster, |_| {}).await?;
    let slices = SliceFeed::start(stage.test.api()).await?;
    slices.until("pay is served", |slices| (slices.ready("pay").len() == 4).then_some(())).await?;
    let before = stage.test.pods.now().sizes.identities("pay");
    let mark = stage.test.mark()?;
    let group = stage.switch_to("promo").await?;
    stage.ensure_each_pod_cost(mark, 2)?;
    let writes = stored(&stage.test.requests_since(mark)?);
    for (donor, receiver) in pairs(&stage) {
        let own = of_unit(&writes, [&donor, &receiver]);
        ensure!(ensure_chained(&own, &donor, &receiver)? == 1, "{donor} and {receiver}: {writes:?}");
    }
    // Nobody has shrunk that a Service still listed.
    let shrinks = stage.test.pods.now().sizes.shrinks("pay");
    ensure!(shrinks.len() == 4 && slices.now().gaps() == 0, "{shrinks:?}");
    for change in &shrinks {
        let listing = slices.now().listing(change, &["pay"]);
        ensure!(listing.is_empty(), "{change:?} shrank in traffic of {listing:?}");
    }
    slices.until("promo is served", |slices| (slices.ready("promo").len() == 4).then_some(())).await?;
    stage.test.pods.now().sizes.ensure_same("pay", &before)?;

    let status = group.status.context("a status")?;
    let transition = status.transition.context("a transition")?;
    ensure!((transition.id, transition.cause) == (2, TransitionCause::Override), "{transition:?}");
    ensure!(
        (transition.units.total, transition.units.done, transition.nudges) == (4, 4, 0),
        "{transition:?}"
    );
    let last = status.last_transitions.first().context("a record")?;
    ensure!((last.id, last.result, last.skipped) == (2, TransitionResult::Succeeded, 0), "{last:?}");
    // On each node 3.8 cores, which a second peak would need.
    let saved = json!(status.union.context("a budget")?.saved);
    ensure!(saved["cpu"] == "15200m", "{saved}");
    ensure!(bounded.kubelets.turned_away(&stage.test.namespace).is_empty());
    stage.test.verify()
}

#[tokio::test]
async fn with_gates_pods_become_ready_and_unready_and_the_native_controllers_stand_it() -> Result<()> {
    let setting = Setting::new("gated", 3).each(|member| member.mode(TrafficMode::ReadinessGate));
    let stage = setting.start(&shared().await?.cluster, |_| {}).await?;
    let mark = stage.test.mark()?;
    stage.switch_to("promo").await?;
    stage.ensure_each_pod_cost(mark, 2)?;
    let writes = stored(&stage.test.requests_since(mark)?);
    ensure!(writes.iter().all(|(resource, _)| resource != "pods"), "no label is written: {writes:?}");
    let ready = |member: &str| {
        let pods = stage.test.pods.now();
        pods.sizes.of(member).iter().filter(|pod| is_true(&pod.pod, "Ready")).count()
    };
    ensure!((ready("pay"), ready("promo")) == (0, 3), "{} and {}", ready("pay"), ready("promo"));
    stage.switch_to("pay").await?;
    stage.test.verify()
}

#[tokio::test]
async fn with_claim_first_the_claim_goes_before_the_room_is_let_go() -> Result<()> {
    let stage = Setting::new("claim", 3)
        .start(&shared().await?.cluster, |spec| {
            (spec.switch.order, spec.switch.overlap) = (Order::ClaimFirst, Overlap::Never);
        })
        .await?;
    let mark = stage.test.mark()?;
    stage.switch_to("promo").await?;
    stage.ensure_each_pod_cost(mark, 2)?;
    let writes = stored(&stage.test.requests_since(mark)?);
    for (donor, receiver) in pairs(&stage) {
        let own = of_unit(&writes, [&donor, &receiver]);
        ensure!(ensure_chained(&own, &receiver, &donor)? == 1, "{receiver} and {donor}: {writes:?}");
    }
    stage.test.verify()
}

#[tokio::test]
async fn where_nodes_have_room_for_both_somebody_serves_all_the_time() -> Result<()> {
    let stage = Setting::new("overlap", 3)
        .room(3800)
        .start(&shared().await?.cluster, |spec| spec.switch.overlap = Overlap::WhenFree)
        .await?;
    let slices = SliceFeed::start(stage.test.api()).await?;
    slices.until("pay is served", |slices| (slices.ready("pay").len() == 3).then_some(())).await?;
    stage.give("promo").await?;
    let mut fewest = usize::MAX;
    slices
        .until("promo is served alone", |slices: &Slices| {
            let served = (slices.ready("pay").len(), slices.ready("promo").len());
            fewest = fewest.min(served.0 + served.1);
            (served == (0, 3)).then_some(())
        })
        .await?;
    ensure!(fewest >= 3, "{fewest} were served");
    stage.settled("promo").await?;
    stage.test.verify()
}

#[tokio::test]
async fn a_switch_goes_in_steps_and_waits_between_them() -> Result<()> {
    let steps = || {
        let step = |percent, hold_seconds| Step { percent, hold_seconds };
        vec![step(10, 6), step(50, 0), step(100, 0)]
    };
    let stage = Setting::new("steps", 10).start(&shared().await?.cluster, |_| {}).await?;
    stage.edit(json!({"switch": {"steps": steps()}})).await?;
    stage.settled("pay").await?;
    stage.give("promo").await?;
    let held = stage.test.told(GROUP, HeldReason::StepHold).await?;
    stage.stand("promo", Standing::split(1, 9)).await?;
    let transition = held.status.and_then(|status| status.transition).context("a transition")?;
    ensure!(transition.hold_until_time.is_some() && transition.step == 1, "{transition:?}");
    stage.settled("promo").await?;
    stage.ensure_peak("promo").await?;
    let steps: Vec<_> = {
        let groups = stage.test.groups.now();
        groups.steps(GROUP).iter().filter(|(id, _)| *id == transition.id).map(|(_, step)| *step).collect()
    };
    ensure!(steps == [1, 2, 3], "{steps:?}");
    let reasons = stage.test.groups.now().reasons(GROUP).to_vec();
    ensure!(reasons.iter().any(|reason| reason == "Switching"), "{reasons:?}");
    stage.test.verify()
}

#[tokio::test]
async fn nobody_may_have_the_peak_and_what_is_free_then_is_told() -> Result<()> {
    let stage = Setting::new("nobody", 2).start(&shared().await?.cluster, |_| {}).await?;
    stage.test.override_to(GROUP, None).await?;
    let group = stage.test.settled(GROUP, None).await?;
    for member in ["pay", "promo"] {
        stage.stand(member, Standing::valley(2)).await?;
    }
    let union = group.status.and_then(|status| status.union).context("a budget")?;
    ensure!((union.nodes, union.nodes_over_budget) == (2, 0), "{union:?}");
    stage.switch_to("promo").await?;
    stage.test.verify()
}

#[tokio::test]
async fn with_a_trickle_one_pod_serves_on_at_valley_size_and_is_no_other_one_for_it() -> Result<()> {
    let setting = Setting::new("trickle", 3).each(|member| member.trickle(1));
    let stage = setting.start(&shared().await?.cluster, |_| {}).await?;
    let small = Standing { at_valley: 3, serving: 1, ..Standing::default() };
    for (large, other) in [("pay", "promo"), ("promo", "pay"), ("pay", "promo")] {
        stage.give(large).await?;
        stage.settled(large).await?;
        stage.stand(large, Standing::peak(3)).await?;
        stage.stand(other, small).await?;
    }
    // It is resized, and its label is left alone: it is never out of traffic.
    let mark = stage.test.mark()?;
    stage.give("promo").await?;
    stage.settled("promo").await?;
    stage.stand("promo", Standing::peak(3)).await?;
    stage.stand("pay", small).await?;
    let writes = stored(&stage.test.requests_since(mark)?);
    for member in ["pay", "promo"] {
        let costs: Vec<usize> = stage.names(member).iter().map(|name| of_pod(&writes, name).len()).collect();
        let alone = costs.iter().filter(|cost| **cost == 1).count();
        ensure!(alone == 1 && costs.iter().all(|cost| *cost <= 2), "{member}: {costs:?}");
    }
    stage.test.verify()
}

#[tokio::test]
async fn at_rest_nothing_is_written_and_what_others_have_changed_is_set_back() -> Result<()> {
    let stage = Setting::new("rest", 2).start(&shared().await?.cluster, |_| {}).await?;
    // The last figures of a status come a second after all else.
    tokio::time::sleep(FIGURES).await;
    let mark = stage.test.mark()?;
    tokio::time::sleep(REST).await;
    let own = stage.test.requests_since(mark)?.by_agent(USER_AGENT).writes();
    ensure!(own.is_empty(), "written at rest:\n{own}");
    // Somebody turns a pod that has the peak, and makes another one smaller.
    let names = stage.names("pay");
    let [turned, resized] = names.as_slice() else { bail!("{names:?}") };
    let pods = stage.test.api::<Pod>();
    let label = Patch::Merge(json!({"metadata": {"labels": {LABEL: "false"}}}));
    pods.patch(turned, &PatchParams::default(), &label).await?;
    stage.ensure_peak("pay").await?;
    stage.test.pods.now().let_serve();
    let resources = json!({"requests": {"cpu": "1"}, "limits": {"cpu": "1"}});
    let smaller = json!({"spec": {"containers": [{"name": CONTAINER, "resources": resources}]}});
    pods.patch_resize(resized, &PatchParams::default(), &Patch::Strategic(smaller)).await?;
    let is_back = |pods: &Pods| {
        let pod = pods.sizes.named(resized)?;
        // To valley and peak at first, then by hand, and back.
        (pod.asks.len() == 4 && pods.standing("pay") == Standing::peak(2)).then_some(())
    };
    stage.test.pods_until("it has its size again", is_back).await?;
    stage.test.told(GROUP, ReadyReason::Settled).await?;
    stage.test.until(GROUP, "it is at rest", |group| !says(group, &ReconcilingReason::Settling)).await?;
    stage.test.verify()
}
