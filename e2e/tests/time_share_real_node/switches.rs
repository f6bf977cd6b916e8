//! One pair of pods that takes turns on a full node.

use anyhow::{Context, Result, ensure};
use springtide_e2e::time_share::node_member::NodeMember;
use springtide_e2e::time_share::node_stage::NodeStage;
use springtide_e2e::time_share::pods::serves;
use springtide_e2e::time_share::resizes::{ensure_chained, of_pod, stored};
use springtide_time_share_group::sizes::Level;

use super::{TURN, shared, times, told};

/// Writes of a pod that leaves traffic and shrinks, and of one that grows and gets it, by label.
const DONOR: [&str; 2] = ["pods", "pods/resize"];
const RECEIVER: [&str; 2] = ["pods/resize", "pods"];

#[tokio::test]
async fn a_pair_takes_turns_on_a_full_node_with_each_size_in_the_kernel() -> Result<()> {
    let _turn = TURN.lock().await;
    let Some(bed) = shared().await? else { return Ok(()) };
    let stage = NodeStage::new(&bed.cluster, "pair").await?;
    let (pay, promo) = (NodeMember::new("pay", 1, "600m", "50m"), NodeMember::new("promo", 1, "600m", "50m"));
    let before = [stage.start(&pay).await?, stage.start(&promo).await?];
    // One of them at its peak fits, and nothing else.
    stage.fill(550).await?;
    stage.group(&[&pay, &promo], |_| {}).await?;
    stage.switch_to(Some("pay")).await?;
    stage.ensure_at(&pay, Level::Peak)?;
    let [pay_pod, promo_pod] =
        [&before[0], &before[1]].map(|pods| pods.keys().next().cloned().unwrap_or_default());
    let mut nudges = 0;
    for round in 0..times(10, 200) {
        let (to, to_pod, from, from_pod) = if round % 2 == 0 {
            (&promo, &promo_pod, &pay, &pay_pod)
        } else {
            (&pay, &pay_pod, &promo, &promo_pod)
        };
        let mark = stage.test.mark()?;
        let group = stage.switch_to(Some(&to.name)).await?;
        stage.ensure_at(to, Level::Peak)?;
        stage.ensure_at(from, Level::Valley)?;
        let transition = group.status.and_then(|status| status.transition).context("a transition")?;
        ensure!((transition.units.total, transition.units.done) == (1, 1), "{transition:?}");
        nudges += transition.nudges;
        let writes = stored(&stage.test.requests_since(mark)?);
        // With a nudge the receiver is resized twice more.
        if transition.nudges == 0 {
            ensure!(ensure_chained(&writes, from_pod, to_pod)? == 1, "{writes:?}");
            ensure!(of_pod(&writes, from_pod) == DONOR && of_pod(&writes, to_pod) == RECEIVER, "{writes:?}");
        }
        let sizes = stage.sizes.now();
        for (name, is_to_serve) in [(to_pod, true), (from_pod, false)] {
            let pod = sizes.named(name).with_context(|| format!("the pod {name}"))?;
            ensure!(serves(&pod.pod) == is_to_serve, "the traffic of {name} in round {round}: {pod:?}");
        }
    }
    println!("{nudges} nudges in {} switches", times(10, 200));
    {
        let sizes = stage.sizes.now();
        sizes.ensure_same("pay", &before[0])?;
        sizes.ensure_same("promo", &before[1])?;
    }
    stage.ensure_never_overcommitted().await?;
    stage.test.verify()?;
    stage.test.clear().await
}

#[tokio::test]
async fn nobody_as_the_one_who_has_the_peak_lets_all_pods_shrink() -> Result<()> {
    let _turn = TURN.lock().await;
    let Some(bed) = shared().await? else { return Ok(()) };
    let stage = NodeStage::new(&bed.cluster, "nobody").await?;
    let (pay, promo) = (NodeMember::new("pay", 2, "300m", "50m"), NodeMember::new("promo", 2, "300m", "50m"));
    let before = [stage.start(&pay).await?, stage.start(&promo).await?];
    stage.fill(500).await?;
    stage.group(&[&pay, &promo], |_| {}).await?;
    for (to, sizes) in [
        (Some("pay"), [Level::Peak, Level::Valley]),
        (None, [Level::Valley, Level::Valley]),
        (Some("promo"), [Level::Valley, Level::Peak]),
        (Some("pay"), [Level::Peak, Level::Valley]),
    ] {
        let group = stage.switch_to(to).await?;
        for (member, level) in [&pay, &promo].into_iter().zip(sizes) {
            stage.ensure_at(member, level).with_context(|| told(&group))?;
        }
    }
    for (member, before) in ["pay", "promo"].into_iter().zip(&before) {
        stage.sizes.now().ensure_same(member, before)?;
    }
    stage.ensure_never_overcommitted().await?;
    stage.test.verify()?;
    stage.test.clear().await
}
