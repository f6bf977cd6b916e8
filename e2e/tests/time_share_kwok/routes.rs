//! Traffic by the weights of an HTTPRoute, which others write too, which may go, and whose kind may not be there at all.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use springtide_crds::time_share_group::{RefusalReason, StalledReason, TrafficMode};
use springtide_e2e::foreign_crds::HTTP_ROUTE;
use springtide_e2e::manager::USER_AGENT;
use springtide_e2e::time_share::node_stage::GROUP;
use springtide_e2e::time_share::routes::{OF_PAY, OF_PROMO, ROUTE, by_route};
use springtide_e2e::time_share::stage::Setting;
use springtide_e2e::time_share::{cluster, manager};

#[tokio::test]
async fn weights_follow_the_peak_with_one_write_a_pod_and_others_may_write_the_route_too() -> Result<()> {
    let bounded = cluster().await?;
    let manager = manager(&bounded.cluster).await?;
    let setting = Setting::new("route", 2).each(|member| member.mode(TrafficMode::HttpRoute));
    let stage = setting.without_group(&bounded.cluster).await?;
    // Nobody serves the kind.
    stage.create_group(by_route).await?;
    stage.test.told(GROUP, StalledReason::Refused(RefusalReason::InvalidSpec)).await?;
    bounded.cluster.apply(HTTP_ROUTE).await?;
    stage.create_route().await?;
    stage.settled("pay").await?;
    stage.weights(OF_PAY).await?;

    // Somebody writes labels and other fields of the route all the time.
    let api = stage.routes();
    let noise = tokio::spawn(async move {
        for round in 0_u64.. {
            let patch = Patch::Merge(json!({"metadata": {"annotations": {"noise": round.to_string()}}}));
            // Whoever only makes noise may be refused.
            let _ = api.patch(ROUTE, &PatchParams::default(), &patch).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let mark = stage.test.mark()?;
    stage.give("promo").await?;
    let settled = stage.settled("promo").await;
    noise.abort();
    settled?;
    stage.weights(OF_PROMO).await?;
    stage.ensure_each_pod_cost(mark, 1)?;
    let requests = stage.test.requests_since(mark)?.by_agent(USER_AGENT).writes().successful();
    let written = requests.of_resource("httproutes").len();
    ensure!((1..=2).contains(&written), "{written} writes of the route");

    // The weight of a member is set back, and a backend that goes is told of.
    stage.change_route(&[("pay", 50), ("promo", 100)]).await?;
    stage.weights(OF_PROMO).await?;
    stage.change_route(&[("promo", 100)]).await?;
    let group = stage.test.told(GROUP, StalledReason::Refused(RefusalReason::InvalidSpec)).await?;
    let conditions = group.status.context("a status")?.conditions;
    ensure!(conditions.iter().any(|found| found.message.contains("httpRoute")), "{conditions:?}");
    stage.routes().delete(ROUTE, &DeleteParams::default()).await?;
    stage.create_route().await?;
    stage.settled("promo").await?;
    stage.weights(OF_PROMO).await?;
    stage.test.verify()?;
    manager.stop()?;
    Ok(())
}
