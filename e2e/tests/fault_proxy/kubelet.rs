//! A real kubelet through the proxy: what it writes meets faults, and its containers end all the same.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, PostParams};
use serde_json::json;
use springtide_e2e::fault_proxy::{Answer, At, Class, Fault, FaultProxy, Protocols, When};
use springtide_e2e::node::program::BOX_IMAGE;
use springtide_e2e::node::{NODE_NAME, NodeCluster, required_or_skipped};
use springtide_e2e::oracle::feed::PATIENCE;
use springtide_e2e::write_count::Verb;
use tokio::time::{Duration, Instant, sleep};

const AGENT: &str = "kubelet/";

#[tokio::test]
async fn a_kubelet_works_through_the_proxy_and_outlives_what_it_meets() -> Result<()> {
    if !required_or_skipped().await? {
        return Ok(());
    }
    let mut cluster = NodeCluster::builder().start().await?;
    let proxy = FaultProxy::inside(cluster.control_plane(), Protocols::All)?;
    let user = format!("system:node:{NODE_NAME}");
    let kubeconfig = proxy.kubeconfig_for(cluster.control_plane(), &user, "system:nodes")?;
    let statuses = || Class::of([Verb::Patch]).resource("pods/status").agent(AGENT);
    let faults = [
        Fault::Refuse(Answer::unavailable()),
        Fault::Reset(At::AfterCommit),
        Fault::Refuse(Answer::too_many_requests(Some(1))),
    ];
    let rules: Vec<_> =
        (1..).zip(faults).map(|(nth, fault)| proxy.fault(statuses(), When::Nth(nth), fault)).collect();
    cluster.run_kubelet_through(&kubeconfig).await?;

    let plane = cluster.control_plane();
    let namespace = plane.create_namespace("kubelet").await?;
    let pods: Api<Pod> = Api::namespaced(plane.client("springtide-test")?, &namespace);
    for name in ["a", "b", "c"] {
        let pod = json!({
            "metadata": {"name": name},
            "spec": {"restartPolicy": "Never", "containers": [
                {"name": "main", "image": BOX_IMAGE, "args": ["exit", "0", name]},
            ]},
        });
        pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let listed = pods.list(&Default::default()).await?.items;
        let ended = |pod: &&Pod| {
            pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Succeeded"))
        };
        if listed.iter().filter(ended).count() == 3 {
            break;
        }
        ensure!(Instant::now() < deadline, "the pods have not ended: {listed:#?}");
        sleep(Duration::from_millis(200)).await;
    }
    for rule in rules {
        assert_eq!(proxy.hits(rule).fired, 1);
    }
    // It wrote over HTTP/2, and by no other way.
    let stored = proxy.journal(|all| {
        let own = all.iter().filter(|entry| entry.stored() && entry.request.agent() == "kubelet");
        own.map(|entry| entry.http2).collect::<Vec<_>>()
    });
    ensure!(!stored.is_empty() && stored.iter().all(|http2| *http2), "{stored:?}");
    drop(proxy);
    cluster.stop().context("stop")
}
