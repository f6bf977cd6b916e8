//! A kubelet that is started anew in the middle of a unit.

use anyhow::{Context, Result, ensure};
use springtide_e2e::fault_proxy::{Class, Fault, When};
use springtide_e2e::time_share::node_member::NodeMember;
use springtide_e2e::time_share::node_stage::NodeStage;
use springtide_e2e::time_share::sizes::Sizes;
use springtide_time_share_group::sizes::Level;

use super::{Proxied, TURN, told};

#[tokio::test]
async fn a_kubelet_that_is_restarted_between_the_two_resizes_of_a_unit_puts_both_in_force() -> Result<()> {
    let _turn = TURN.lock().await;
    let Some(bed) = Proxied::start().await? else { return Ok(()) };
    let stage = NodeStage::new(&bed.cluster, "restarted").await?;
    let (pay, promo) = (NodeMember::new("pay", 1, "600m", "50m"), NodeMember::new("promo", 1, "600m", "50m"));
    let before = [stage.start(&pay).await?, stage.start(&promo).await?];
    stage.fill(550).await?;
    stage.group(&[&pay, &promo], |_| {}).await?;
    stage.switch_to(Some("pay")).await?;
    let members = [(&pay, &before[0]), (&promo, &before[1])];
    for (from, to) in [(0, 1), (1, 0)] {
        let ((from, donors), (to, receivers)) = (members[from], members[to]);
        let donor = donors.keys().next().context("a donor")?;
        let receiver = receivers.keys().next().context("a receiver")?;
        let second = Class::writes().resource("pods/resize").name(receiver);
        let held = bed.proxy.fault(second, When::Always, Fault::HoldUntilRemoved);
        stage.ask_for(Some(&to.name)).await?;
        let first = |sizes: &Sizes| {
            let asked = sizes.named(donor)?.size.asked;
            (asked == from.requests(Level::Valley)).then_some(())
        };
        stage.sizes.until("the donor is asked to shrink", first).await?;
        bed.cluster.restart_kubelet().await?;
        bed.proxy.remove(held);
        let group = stage.settled(Some(&to.name)).await?;
        stage.ensure_at(from, Level::Valley).with_context(|| told(&group))?;
        stage.ensure_at(to, Level::Peak).with_context(|| told(&group))?;
        let units = group.status.and_then(|status| Some(status.transition?.units)).context("units")?;
        ensure!((units.total, units.done, units.stuck) == (1, 1, 0), "{units:?}");
    }
    for (member, before) in members {
        stage.sizes.now().ensure_same(&member.name, before)?;
    }
    stage.ensure_never_overcommitted().await?;
    stage.test.verify()?;
    drop(stage);
    bed.stop()
}
