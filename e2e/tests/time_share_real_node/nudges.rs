//! A kubelet that does not notice that there is room: it looks again when it is asked anew, and at nothing else.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use springtide_crds::time_share_group::Order;
use springtide_e2e::fault_proxy::{Class, EventFault, EventKind, Fault, FaultProxy, Protocols, When};
use springtide_e2e::node::{NODE_NAME, NodeCluster, required_or_skipped};
use springtide_e2e::time_share::node_member::NodeMember;
use springtide_e2e::time_share::node_stage::NodeStage;
use springtide_e2e::time_share::sizes::Sizes;
use springtide_e2e::upgrade::real_node::NodeBed;
use springtide_e2e::write_count::Verb;
use springtide_time_share_group::sizes::Level;

use super::{TURN, shared, told};

const KUBELET: &str = "kubelet/";
/// After this time a resize that waits is asked for anew. Far longer than what this test does before, and shorter than the
/// three minutes after which the kubelet looks by itself.
const NUDGE_AFTER: u32 = 60;
/// For a kubelet to have seen what the API server has told it.
const SEEN: Duration = Duration::from_secs(3);

/// Whether a pod has its present size in force, or waits for it.
fn is_waiting(sizes: &Sizes, pod: &str) -> Option<bool> {
    let pod = sizes.named(pod)?;
    if pod.is_resized() {
        return Some(false);
    }
    pod.pending.as_ref().is_some_and(|pending| pending.reason == "Deferred").then_some(true)
}

#[tokio::test]
async fn a_resize_that_a_kubelet_has_forgotten_is_ended_by_a_nudge_and_not_by_other_changes() -> Result<()> {
    let _turn = TURN.lock().await;
    if !required_or_skipped().await? {
        return Ok(());
    }
    let mut bed = NodeBed::start(NodeCluster::builder()).await?;
    let proxy = FaultProxy::inside(bed.plane(), Protocols::All)?;
    let user = format!("system:node:{NODE_NAME}");
    let kubeconfig = proxy.kubeconfig_for(bed.plane(), &user, "system:nodes")?;
    bed.cluster.run_kubelet_through(&kubeconfig).await?;
    let stage = NodeStage::new(&bed.cluster, "nudges").await?;
    let (pay, promo) = (NodeMember::new("pay", 1, "600m", "50m"), NodeMember::new("promo", 1, "600m", "50m"));
    let before = [stage.start(&pay).await?, stage.start(&promo).await?];
    stage.fill(550).await?;
    stage
        .group(&[&pay, &promo], |spec| {
            spec.switch.nudge_after_seconds = NUDGE_AFTER;
            spec.switch.unit_deadline_seconds = 300;
        })
        .await?;
    stage.switch_to(Some("pay")).await?;
    let [donor, receiver] =
        [&before[0], &before[1]].map(|pods| pods.keys().next().cloned().unwrap_or_default());

    // What the kubelet says of the donor is kept back until it has seen both resizes, and never comes back to it.
    let statuses = Class::of([Verb::Patch]).resource("pods/status").name(&donor).agent(KUBELET);
    let kept = proxy.fault(statuses, When::Always, Fault::HoldUntilRemoved);
    stage.ask_for(Some("promo")).await?;
    let asked = |sizes: &Sizes| {
        let asks = |pod: &str, member: &NodeMember, level: Level| {
            sizes.named(pod).is_some_and(|pod| pod.size.asked == member.requests(level))
        };
        (asks(&donor, &pay, Level::Valley) && asks(&receiver, &promo, Level::Peak)).then_some(())
    };
    stage.sizes.until("both specs are resized", asked).await?;
    tokio::time::sleep(SEEN).await;
    let watches = Class::of([Verb::Watch]).resource("pods").agent(KUBELET);
    let unseen = proxy.event_fault(watches, &[EventKind::Modified], When::Always, EventFault::Drop);
    proxy.remove(kept);
    let small = |sizes: &Sizes| (is_waiting(sizes, &donor) == Some(false)).then_some(());
    stage.sizes.until("the donor is small", small).await?;
    proxy.remove(unseen);
    // The kubelet learns of the room beside something else, and does not look at who waits.
    let pods: Api<Pod> = stage.test.api();
    for pod in [&donor, &receiver] {
        let change = Patch::Merge(json!({"metadata": {"annotations": {"somebody": "else"}}}));
        pods.patch(pod, &PatchParams::default(), &change).await?;
    }
    tokio::time::sleep(SEEN).await;
    let waiting = |sizes: &Sizes| is_waiting(sizes, &receiver);
    ensure!(
        waiting(&stage.sizes.now()) == Some(true),
        "the kubelet has noticed: {:?}",
        stage.sizes.now().named(&receiver)
    );

    let group = stage.settled(Some("promo")).await?;
    let transition = group.status.as_ref().and_then(|status| status.transition.as_ref());
    let nudges = transition.context("a transition")?.nudges;
    ensure!(nudges == 1, "{nudges} nudges: {}", told(&group));
    stage.ensure_at(&pay, Level::Valley)?;
    stage.ensure_at(&promo, Level::Peak)?;
    for (name, before) in ["pay", "promo"].into_iter().zip(&before) {
        stage.sizes.now().ensure_same(name, before)?;
    }
    stage.ensure_never_overcommitted().await?;
    stage.test.verify()?;
    drop(stage);
    drop(proxy);
    bed.stop()
}

#[tokio::test]
async fn receivers_that_ask_first_are_all_let_in_when_their_donors_have_shrunk() -> Result<()> {
    let _turn = TURN.lock().await;
    let Some(bed) = shared().await? else { return Ok(()) };
    let stage = NodeStage::new(&bed.cluster, "claims").await?;
    let (pay, promo) = (NodeMember::new("pay", 4, "300m", "50m"), NodeMember::new("promo", 4, "300m", "50m"));
    stage.start(&pay).await?;
    stage.start(&promo).await?;
    stage.fill(1000).await?;
    stage.group(&[&pay, &promo], |spec| spec.switch.order = Order::ClaimFirst).await?;
    stage.switch_to(Some("pay")).await?;
    for (to, sizes) in [("promo", [Level::Valley, Level::Peak]), ("pay", [Level::Peak, Level::Valley])] {
        let group = stage.switch_to(Some(to)).await?;
        for (member, level) in [&pay, &promo].into_iter().zip(sizes) {
            stage.ensure_at(member, level).with_context(|| told(&group))?;
        }
    }
    stage.ensure_never_overcommitted().await?;
    stage.test.verify()?;
    stage.test.clear().await
}
