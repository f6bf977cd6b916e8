//! How long the renewal of a Lease waits while all else in its process is under pressure.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, ensure};
use kube::Client;
use serde_json::{Value, json};
use springtide_e2e::bench::post;
use springtide_e2e::fault_proxy::{Entry, FaultProxy, Protocols};
use springtide_e2e::local_cluster::LocalCluster;
use springtide_plumbing::client::Connection;
use springtide_plumbing::key::ObjectKey;
use springtide_plumbing::lease::{Elector, LeaseConfig, LeaseTimes, boot_clock};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// Distance of renewals: many for a p99.
const PACE: Duration = Duration::from_millis(50);

/// Runs the elector on the client that a manager makes for it, and gives the times from each of its requests until
/// that arrives at a proxy, sorted, in ms.
pub(crate) async fn waits(cluster: &LocalCluster, name: &str, time: Duration) -> Result<Vec<f64>> {
    let proxy = FaultProxy::start(cluster, Protocols::All)?;
    let connection = Connection::load(Some(proxy.kubeconfig()), None).await?;
    let wanted = Arc::new(Mutex::new(Vec::<Instant>::new()));
    let noted = Arc::clone(&wanted);
    let client = connection.client("bench-lease")?;
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        noted.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
        let client = client.clone();
        async move { client.send(request).await }
    });
    let config = LeaseConfig {
        times: LeaseTimes { retry_period: PACE, ..LeaseTimes::default() },
        ..LeaseConfig::new(ObjectKey::new("default", name), "bench".to_owned())
    };
    let (_shown, observed) = watch::channel(None);
    let (elector, leadership) = Elector::new(Client::new(service, "default"), config, boot_clock(), observed);
    let stop = CancellationToken::new();
    let held = async {
        sleep(time).await;
        let held = leadership.fence.is_open();
        stop.cancel();
        held
    };
    let ((), held) = tokio::join!(elector.run(stop.clone()), held);
    ensure!(held, "the elector has lost its Lease");
    let of_leases = |entry: &&Entry| entry.request.resource == "leases";
    let arrived: Vec<Instant> =
        proxy.journal(|entries| entries.iter().filter(of_leases).map(|entry| entry.at.into()).collect());
    let wanted = wanted.lock().unwrap_or_else(PoisonError::into_inner);
    // It has one request under way at a time.
    ensure!(arrived.len() == wanted.len(), "{} requests, of which {} came", wanted.len(), arrived.len());
    // The first one sets up the connection.
    let waits = wanted.iter().zip(&arrived).skip(1);
    let mut millis: Vec<f64> =
        waits.map(|(wanted, arrived)| 1000.0 * (*arrived - *wanted).as_secs_f64()).collect();
    millis.sort_by(f64::total_cmp);
    Ok(millis)
}

/// Renews a Lease in the default namespace on this client, and gives the times until the answers, sorted, in ms.
pub(crate) async fn answers(client: Client, time: Duration) -> Result<Vec<f64>> {
    let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                       "metadata": {"name": "answered"}, "spec": {"holderIdentity": "bench"}});
    post(&client, leases, &lease).await?;
    let end = Instant::now() + time;
    let mut waits = Vec::new();
    while Instant::now() < end {
        sleep(PACE).await;
        let renewal = json!({"spec": {"renewTime": jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()}});
        let request = http::Request::patch(format!("{leases}/answered"))
            .header("content-type", "application/merge-patch+json")
            .body(serde_json::to_vec(&renewal)?)?;
        let wanted = Instant::now();
        client.request::<Value>(request).await?;
        waits.push(1000.0 * wanted.elapsed().as_secs_f64());
    }
    waits.sort_by(f64::total_cmp);
    Ok(waits)
}
