//! T1: writes a pod, counted by the audit log of a cluster of their own: never in a timed run.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DynamicObject, ListParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use springtide_crds::time_share_group::TrafficMode;
use springtide_e2e::bench::stats::mean;
use springtide_e2e::manager::USER_AGENT;
use springtide_e2e::polling::until;
use springtide_e2e::time_share::stage::Setting;
use springtide_e2e::time_share::{self, Bounded};
use springtide_e2e::upgrade::cost::writes_by_pod;

/// Nodes of each row, and pods of each member on a node.
const NODES: u32 = 2;
const PER_NODE: u32 = 50;
/// Pods of each row.
pub(crate) const PODS: usize = (2 * NODES * PER_NODE) as usize;
/// Name of the route.
const ROUTE: &str = "front";
/// Identifier of the row of which writes on routes are a part.
pub(crate) const ROUTES: &str = "route";
/// Bound for a kind to be served.
const SERVED: Duration = Duration::from_secs(60);

/// A row of writes.
#[derive(Serialize, Deserialize)]
pub(crate) struct Writes {
    /// By what pods have their traffic.
    pub(crate) what: String,
    /// For identifiers.
    pub(crate) id: String,
    /// Writes of the manager a pod that was switched, on average.
    pub(crate) own: f64,
    /// The most of any pod.
    pub(crate) most: usize,
    /// What they are to be at most.
    pub(crate) due: usize,
    /// Writes of the manager on everything else in that switch: statuses of the group, events, routes.
    pub(crate) beside: usize,
    /// Of them those on routes.
    pub(crate) routes: usize,
    /// Resizes that were withdrawn and asked for again.
    pub(crate) nudges: u32,
}

/// A way to traffic, and what a pod costs with it.
struct Case {
    what: &'static str,
    id: &'static str,
    mode: TrafficMode,
    due: usize,
}

const CASES: [Case; 4] = [
    Case { what: "the label", id: "label", mode: TrafficMode::ServiceLabel, due: 2 },
    Case { what: "the readiness gate", id: "gate", mode: TrafficMode::ReadinessGate, due: 2 },
    Case { what: "the weight of a route", id: ROUTES, mode: TrafficMode::HttpRoute, due: 1 },
    Case { what: "nothing", id: "none", mode: TrafficMode::None, due: 1 },
];

/// Counts them for each way.
pub(crate) async fn per_pod() -> Result<Vec<Writes>> {
    let bounded = time_share::cluster().await?;
    install_routes(&bounded).await?;
    let manager = time_share::manager(&bounded.cluster).await?;
    let mut rows = Vec::new();
    for case in &CASES {
        let row = of(&bounded, case).await?;
        eprintln!("      {}: {:.2} writes a pod", row.what, row.own);
        rows.push(row);
    }
    manager.stop()?;
    let Bounded { kubelets, cluster } = bounded;
    drop(kubelets);
    cluster.stop()?;
    Ok(rows)
}

async fn of(bounded: &Bounded, Case { what, id, mode, due }: &Case) -> Result<Writes> {
    let setting = Setting::new(id, NODES).pods([PER_NODE, PER_NODE]).each(|member| member.mode(*mode));
    let stage = setting.without_group(&bounded.cluster).await?;
    if *mode == TrafficMode::HttpRoute {
        create_route(stage.test.client(), &stage.test.namespace).await?;
    }
    stage
        .create_group(|spec| {
            for member in spec.members.iter_mut().filter(|_| *mode == TrafficMode::HttpRoute) {
                let route =
                    json!({"name": ROUTE, "backend": member.name, "peakWeight": 100, "valleyWeight": 0});
                member.traffic.http_route = serde_json::from_value(route).ok();
            }
        })
        .await?;
    stage.settled("pay").await?;
    let mark = stage.test.mark()?;
    stage.give("promo").await?;
    let group = stage.settled("promo").await?;
    let nudges = group.status.and_then(|status| Some(status.transition?.nudges)).unwrap_or_default();
    let requests = stage.test.requests_since(mark)?;
    let by_pod = writes_by_pod(&requests);
    ensure!(by_pod.len() == PODS, "{what}: {} of {PODS} pods were written", by_pod.len());
    let counts = || by_pod.values().map(Vec::len);
    let own = requests.writes().by_agent(USER_AGENT);
    let row = Writes {
        what: (*what).to_owned(),
        id: (*id).to_owned(),
        own: mean(counts().map(|count| count as f64)),
        most: counts().max().unwrap_or_default(),
        due: *due,
        beside: own.len() - counts().sum::<usize>(),
        routes: own.of_resource("httproutes").len(),
        nudges,
    };
    stage.test.verify()?;
    stage.test.clear().await?;
    Ok(row)
}

/// The kind of routes, as far as it is used here: any fields.
fn route_kind() -> Value {
    let any = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {
            "name": "httproutes.gateway.networking.k8s.io",
            "annotations": {"api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/gateway-api"},
        },
        "spec": {
            "group": "gateway.networking.k8s.io", "scope": "Namespaced",
            "names": {"kind": "HTTPRoute", "plural": "httproutes"},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {
                    "type": "object", "properties": {"spec": any, "status": any},
                }},
            }],
        },
    })
}

async fn install_routes(bounded: &Bounded) -> Result<()> {
    let kind: CustomResourceDefinition = serde_json::from_value(route_kind())?;
    let client = bounded.cluster.client("springtide-bench")?;
    let kinds: Api<CustomResourceDefinition> = Api::all(client.clone());
    kinds.create(&PostParams::default(), &kind).await?;
    let routes: Api<DynamicObject> = Api::all_with(client, &routes());
    until(SERVED, "routes are served", async || Ok(routes.list(&ListParams::default()).await.ok().map(drop)))
        .await
}

fn routes() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "HTTPRoute"))
}

/// A route with both members, each beside another backend.
async fn create_route(client: kube::Client, namespace: &str) -> Result<()> {
    let rule = |member: &str, weight: u32| json!({"backendRefs": [{"name": member, "port": 80, "weight": weight}, {"name": "elsewhere", "port": 80}]});
    let route: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": ROUTE},
        "spec": {"rules": [rule("pay", 0), rule("promo", 0)]},
    }))?;
    let api: Api<DynamicObject> = Api::namespaced_with(client, namespace, &routes());
    api.create(&PostParams::default(), &route).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_way_has_a_cost_of_its_own_and_the_kind_of_routes_is_one() {
        let ids: BTreeSet<&str> = CASES.iter().map(|case| case.id).collect();
        assert_eq!(ids.len(), CASES.len());
        assert!(CASES.iter().all(|case| (1..=2).contains(&case.due)));
        let kind: CustomResourceDefinition = serde_json::from_value(route_kind()).unwrap();
        assert_eq!(kind.spec.names.kind, "HTTPRoute");
    }
}
