//! Traffic by the weights of an HTTPRoute, which others write too, which may go, and whose kind may not be there at all.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use serde_json::{Value, json};
use springtide_crds::time_share_group::{
    HttpRoute, RefusalReason, StalledReason, TimeShareGroupSpec, Traffic, TrafficMode,
};
use springtide_e2e::foreign_crds::HTTP_ROUTE;
use springtide_e2e::manager::USER_AGENT;
use springtide_e2e::oracle::feed::PATIENCE;
use springtide_e2e::polling::until_seen;
use springtide_e2e::time_share::node_stage::GROUP;
use springtide_e2e::time_share::stage::{Setting, Stage};
use springtide_e2e::time_share::{cluster, manager};

fn routes(stage: &Stage<'_>) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "HTTPRoute");
    let resource = ApiResource::from_gvk_with_plural(&kind, "httproutes");
    Api::namespaced_with(stage.test.client(), &stage.test.namespace, &resource)
}

/// A route of both members, of which `pay` has the peak.
async fn create_route(stage: &Stage<'_>) -> Result<()> {
    let backend = |name: &str, weight: u32| json!({"name": name, "port": 80, "weight": weight});
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "front", "namespace": stage.test.namespace},
        "spec": {"rules": [{"backendRefs": [backend("pay", 0), backend("promo", 0)]}]},
    });
    let manifest = route.to_string();
    // A kind that has just come is not served at once.
    until_seen(PATIENCE, "the route is taken", async || {
        Ok(stage.test.cluster.apply(&manifest).await.map_err(|error| format!("{error:#}")))
    })
    .await
}

async fn weights(stage: &Stage<'_>) -> Result<Vec<Value>> {
    let route = routes(stage).get("front").await?;
    let backends = route.data["spec"]["rules"][0]["backendRefs"].as_array().cloned().unwrap_or_default();
    Ok(backends.into_iter().map(|backend| backend["weight"].clone()).collect())
}

async fn weigh(stage: &Stage<'_>, wanted: [u32; 2]) -> Result<()> {
    until_seen(PATIENCE, &format!("the weights are {wanted:?}"), async || {
        let weights = weights(stage).await?;
        Ok(if weights == wanted.map(Value::from) { Ok(()) } else { Err(format!("{weights:?}")) })
    })
    .await
}

/// Each member has a backend of its name.
fn by_route(spec: &mut TimeShareGroupSpec) {
    for member in &mut spec.members {
        let route = HttpRoute {
            name: "front".to_owned(),
            backend: member.name.clone(),
            peak_weight: 100,
            valley_weight: 5,
        };
        member.traffic = Traffic { http_route: Some(route), ..member.traffic.clone() };
    }
}

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
    create_route(&stage).await?;
    stage.settled("pay").await?;
    weigh(&stage, [100, 5]).await?;

    // Somebody writes labels and other fields of the route all the time.
    let api = routes(&stage);
    let noise = tokio::spawn(async move {
        for round in 0_u64.. {
            let patch = Patch::Merge(json!({"metadata": {"annotations": {"noise": round.to_string()}}}));
            // Whoever only makes noise may be refused.
            let _ = api.patch("front", &PatchParams::default(), &patch).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let mark = stage.test.mark()?;
    stage.give("promo").await?;
    let settled = stage.settled("promo").await;
    noise.abort();
    settled?;
    weigh(&stage, [5, 100]).await?;
    stage.ensure_each_pod_cost(mark, 1)?;
    let requests = stage.test.requests_since(mark)?.by_agent(USER_AGENT).writes().successful();
    let written = requests.of_resource("httproutes").len();
    ensure!((1..=2).contains(&written), "{written} writes of the route");

    // The weight of a member is set back, and a backend that goes is told of.
    let backends =
        json!([{"name": "pay", "port": 80, "weight": 50}, {"name": "promo", "port": 80, "weight": 100}]);
    let patch = Patch::Merge(json!({"spec": {"rules": [{"backendRefs": backends}]}}));
    routes(&stage).patch("front", &PatchParams::default(), &patch).await?;
    weigh(&stage, [5, 100]).await?;
    let one = json!([{"name": "promo", "port": 80, "weight": 100}]);
    let patch = Patch::Merge(json!({"spec": {"rules": [{"backendRefs": one}]}}));
    routes(&stage).patch("front", &PatchParams::default(), &patch).await?;
    let group = stage.test.told(GROUP, StalledReason::Refused(RefusalReason::InvalidSpec)).await?;
    let conditions = group.status.context("a status")?.conditions;
    ensure!(conditions.iter().any(|found| found.message.contains("httpRoute")), "{conditions:?}");
    routes(&stage).delete("front", &DeleteParams::default()).await?;
    create_route(&stage).await?;
    stage.settled("promo").await?;
    weigh(&stage, [5, 100]).await?;
    stage.test.verify()?;
    manager.stop()?;
    Ok(())
}
