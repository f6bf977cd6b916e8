//! The chart's FlowSchemas on the real API server: it puts the manager's requests where they say.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http::Request;
use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use kube::api::Api;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use springtide_e2e::helm::Helm;
use springtide_e2e::local_cluster::LocalCluster;
use springtide_e2e::polling::until_seen;
use springtide_e2e::rights::Account;

use crate::{NAMESPACE, RELEASE, render};

/// Bound on how long the API server takes to know of a FlowSchema.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client of a service account of the release's namespace.
async fn client(cluster: &LocalCluster, name: &str) -> Result<kube::Client> {
    let user = Account { namespace: NAMESPACE, name }.user();
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig_for(&user, "system:serviceaccounts")?)?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(kube::Client::try_from(config)?)
}

/// UIDs of the FlowSchema and of the priority level that the API server took for a request. It does so before it asks
/// whether the request is allowed.
async fn classified(client: &kube::Client, request: Request<Vec<u8>>) -> Result<[String; 2]> {
    let answer = client.send(request.map(kube::client::Body::from)).await?;
    let uid = |header: &str| {
        let value = answer.headers().get(header).with_context(|| format!("no {header} in {answer:?}"))?;
        anyhow::Ok(value.to_str()?.to_owned())
    };
    Ok([uid("X-Kubernetes-PF-FlowSchema-UID")?, uid("X-Kubernetes-PF-PriorityLevel-UID")?])
}

#[tokio::test]
async fn the_managers_requests_go_by_the_flow_schemas_of_the_chart() -> Result<()> {
    let cluster = LocalCluster::shared().await?;
    let rendered = render(&Helm::offline()?, "flow-control").await?;
    let ours: Vec<&Value> = rendered
        .values()
        .filter(|object| object["apiVersion"] == "flowcontrol.apiserver.k8s.io/v1")
        .collect();
    ensure!(ours.len() == 3, "{ours:?}");
    cluster.apply(&json!({"apiVersion": "v1", "kind": "List", "items": ours}).to_string()).await?;

    let admin = cluster.client("springtide-test")?;
    let (schemas, levels) =
        (Api::<FlowSchema>::all(admin.clone()), Api::<PriorityLevelConfiguration>::all(admin));
    let uids = async |schema: &str, level: &str| {
        let schema = schemas.get(schema).await?.metadata.uid.context("uid")?;
        anyhow::Ok([schema, levels.get(level).await?.metadata.uid.context("uid")?])
    };
    let leases = uids("springtide-leases", "leader-election").await?;
    let rest = uids(RELEASE, RELEASE).await?;

    let manager = client(cluster, RELEASE).await?;
    let lease = format!("/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/springtide-manager");
    let requests = [
        (Request::get(&lease).body(Vec::new())?, &leases),
        (Request::put(&lease).body(b"{}".to_vec())?, &leases),
        (Request::get("/api/v1/pods?limit=1").body(Vec::new())?, &rest),
        (Request::get("/apis/springtide.dev/v1alpha1/batchjobs?watch=1").body(Vec::new())?, &rest),
        (Request::post("/api/v1/namespaces/default/pods").body(b"{}".to_vec())?, &rest),
        // Leases of others are not what a leadership hangs on.
        (Request::get(lease.replace(NAMESPACE, "default")).body(Vec::new())?, &rest),
    ];
    for (request, expected) in requests {
        let what = format!("{} {}", request.method(), request.uri());
        until_seen(PATIENCE, &format!("{what} goes by {expected:?}"), async || {
            let found = classified(&manager, request.clone()).await?;
            Ok(if found == *expected { Ok(()) } else { Err(format!("{found:?}")) })
        })
        .await?;
    }
    // Nobody else's do.
    let other = client(cluster, "other").await?;
    for path in [lease.as_str(), "/api/v1/pods?limit=1"] {
        let [schema, level] = classified(&other, Request::get(path).body(Vec::new())?).await?;
        ensure!(schema != leases[0] && schema != rest[0] && level != rest[1], "{path}");
    }
    Ok(())
}
