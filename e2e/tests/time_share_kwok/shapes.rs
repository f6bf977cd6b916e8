//! Members of other sizes than each other and of other kinds, and pods that find no partner on their node.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::{ReplicaSet, StatefulSet};
use serde_json::json;
use springtide_crds::time_share_group::{CapacitySafeReason, MemberKind, Unpaired};
use springtide_e2e::time_share::node_stage::GROUP;
use springtide_e2e::time_share::pods::Standing;
use springtide_e2e::time_share::shared;
use springtide_e2e::time_share::stage::Setting;
use springtide_time_share_group::sizes::Level;

#[tokio::test]
async fn members_may_be_stateful_sets_and_replica_sets_of_nobody() -> Result<()> {
    let stage = Setting::new("kinds", 3).open(&shared().await?.cluster).await?;
    let mut pay = stage.pay.manifest();
    pay["kind"] = json!("StatefulSet");
    pay["spec"]["serviceName"] = json!("pay");
    stage.test.create::<StatefulSet>(pay).await?;
    let mut promo = stage.promo.manifest();
    promo["kind"] = json!("ReplicaSet");
    stage.test.create::<ReplicaSet>(promo).await?;
    for member in [&stage.pay, &stage.promo] {
        stage.all_at(member, Level::Valley).await?;
    }
    let before = ["pay", "promo"].map(|member| stage.test.pods.now().sizes.identities(member));
    stage
        .create_group(|spec| {
            let kinds = [MemberKind::StatefulSet, MemberKind::ReplicaSet];
            for (member, kind) in spec.members.iter_mut().zip(kinds) {
                member.target_ref.kind = kind;
            }
        })
        .await?;
    stage.settled("pay").await?;
    stage.ensure_peak("pay").await?;
    for member in ["promo", "pay"] {
        stage.switch_to(member).await?;
    }
    for (member, before) in ["pay", "promo"].into_iter().zip(&before) {
        stage.test.pods.now().sizes.ensure_same(member, before)?;
    }
    stage.test.verify()
}

#[tokio::test]
async fn one_large_pod_and_three_small_ones_have_each_others_room() -> Result<()> {
    for (name, sizes, pods) in [
        ("one-three", [("3100m", "100m"), ("1100m", "100m")], [1, 3]),
        ("three-one", [("1100m", "100m"), ("3100m", "100m")], [3, 1]),
    ] {
        let stage =
            Setting::new(name, 3).sizes(sizes).pods(pods).start(&shared().await?.cluster, |_| {}).await?;
        let mark = stage.test.mark()?;
        let group = stage.switch_to("promo").await?;
        let transition = group.status.and_then(|status| status.transition).context("a transition")?;
        ensure!(transition.units.total == 3, "{:?}", transition.units);
        stage.ensure_each_pod_cost(mark, 2)?;
        stage.switch_to("pay").await?;
        stage.test.verify()?;
    }
    Ok(())
}

#[tokio::test]
async fn who_finds_no_partner_grows_where_there_is_room_or_is_left_as_the_spec_has_it() -> Result<()> {
    let setting = |name: &str| Setting::new(name, 2).room(4200);
    let stage = setting("unpaired").start(&shared().await?.cluster, |_| {}).await?;
    stage.scale("promo", 4).await?;
    stage
        .test
        .pods_until("they are up", |pods| (pods.standing("promo").at_valley == 4).then_some(()))
        .await?;
    stage.give("promo").await?;
    stage.settled("promo").await?;
    stage.stand("promo", Standing::peak(4)).await?;

    let stage = setting("left")
        .start(&shared().await?.cluster, |spec| spec.pairing.unpaired = Unpaired::Leave)
        .await?;
    stage.scale("promo", 4).await?;
    stage
        .test
        .pods_until("they are up", |pods| (pods.standing("promo").at_valley == 4).then_some(()))
        .await?;
    stage.give("promo").await?;
    let group = stage.settled("promo").await?;
    let standing = stage.standing("promo");
    ensure!((standing.at_peak, standing.at_valley, standing.serving) == (2, 2, 2), "{standing:?}");
    let members = group.status.context("a status")?.members;
    let promo = members.iter().find(|member| member.name == "promo").context("promo")?;
    ensure!((promo.pods, promo.unpaired, promo.at_peak) == (4, 2, 2), "{promo:?}");
    stage.test.verify()
}

#[tokio::test]
async fn donors_without_a_receiver_shrink_last_and_nodes_beyond_their_budget_are_told() -> Result<()> {
    let stage = Setting::new("donors", 2).room(8000).start(&shared().await?.cluster, |_| {}).await?;
    stage.scale("pay", 4).await?;
    stage
        .test
        .pods_until("they have the peak", |pods| (pods.standing("pay") == Standing::peak(4)).then_some(()))
        .await?;
    stage.give("promo").await?;
    stage.settled("promo").await?;
    stage.stand("pay", Standing::valley(4)).await?;
    stage.stand("promo", Standing::peak(2)).await?;
    // Three each do not fit on a node at peak.
    stage.scale("pay", 8).await?;
    stage.test.told(GROUP, CapacitySafeReason::NodesOverBudget).await?;
    stage.test.verify()
}
