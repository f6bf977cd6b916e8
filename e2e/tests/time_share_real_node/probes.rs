//! A valley that is too small to live on.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::json;
use springtide_crds::time_share_group::StalledReason;
use springtide_e2e::time_share::node_member::{CONTAINER, NodeMember};
use springtide_e2e::time_share::node_stage::NodeStage;
use springtide_e2e::upgrade::traffic::{PORT, PROGRAM};
use springtide_time_share_group::sizes::Level;

use super::{GROUP, TURN, shared, told};

/// Pods of each member; the first step has one unit.
const PAIRS: u32 = 4;
/// Work of one request: some thirty milliseconds of a processor.
const ROUNDS: &str = "20000000";
/// Longer than it would take until it is tried again.
const LATER: Duration = Duration::from_secs(10);

#[tokio::test]
async fn pods_that_do_not_get_along_with_their_valley_size_are_seen_in_the_first_step_and_get_all_of_it_back()
-> Result<()> {
    let _turn = TURN.lock().await;
    let Some(bed) = shared().await? else { return Ok(()) };
    let stage = NodeStage::new(&bed.cluster, "probes").await?;
    // A probe is eight requests: a quarter of a second of a processor, which takes half a minute at valley.
    let pay = NodeMember::new("pay", PAIRS, "300m", "10m").container(json!({
        "name": CONTAINER,
        "args": ["serve", PORT.to_string(), ROUNDS],
        "readinessProbe": {
            "httpGet": null,
            "exec": {"command": [PROGRAM, "ask", format!("127.0.0.1:{PORT}"), "8", "1"]},
            "periodSeconds": 5, "timeoutSeconds": 4, "failureThreshold": 1,
        },
    }));
    let promo = NodeMember::new("promo", PAIRS, "300m", "50m");
    stage.test.create::<Deployment>(pay.manifest()).await?;
    stage.start(&promo).await?;
    stage.group(&[&pay, &promo], |_| {}).await?;
    stage.switch_to(Some("pay")).await?;
    stage.all(&pay, Level::Peak).await?;
    let steps = json!([{"percent": 25, "holdSeconds": 90}, {"percent": 100}]);
    stage.edit(json!({"spec": {"switch": {"steps": steps}}})).await?;
    stage.settled(Some("pay")).await?;
    let before = stage.sizes.now().identities("pay");
    stage.ask_for(Some("promo")).await?;
    let group = stage.test.told(GROUP, StalledReason::RolledBack).await?;
    let active = group.status.as_ref().and_then(|status| status.active_member.as_deref());
    ensure!(active == Some("pay"), "{}", told(&group));
    stage.all(&pay, Level::Peak).await?;
    stage.all(&promo, Level::Valley).await?;
    let shrinks = stage.sizes.now().shrinks("pay");
    let shrunk: BTreeSet<&str> = shrinks.iter().map(|change| &*change.pod).collect();
    ensure!(shrunk.len() == 1, "more than the first unit was switched: {shrunk:?}");
    stage.sizes.now().ensure_same("pay", &before)?;
    // The same is not tried again.
    tokio::time::sleep(LATER).await;
    ensure!(stage.sizes.now().shrinks("pay") == shrinks, "{}", told(&group));
    stage.test.verify()?;
    stage.test.clear().await
}
