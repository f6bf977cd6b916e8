//! Leases and changes of the leader, with real managers and the shipped times.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use springtide_e2e::local_cluster::LocalCluster;
use springtide_e2e::manager::{LEASE_NAME, Manager};

/// Bound for a standby to take the Lease.
const BOUND: Duration = Duration::from_secs(90);

/// How long the next leader took.
pub(crate) struct Changes {
    /// After a leader was asked to end, in seconds, sorted.
    pub(crate) handovers: Vec<f64>,
    /// After a leader was killed, in seconds, the slowest.
    pub(crate) crash: f64,
}

/// Writes of its Lease a second by a leader that has nothing else to do.
pub(crate) async fn writes_per_second(cluster: &LocalCluster, seconds: u64) -> Result<f64> {
    let leader = ready(cluster, "counted").await?;
    held_by(cluster, "counted").await?;
    let log = cluster.audit_log()?;
    let mark = log.mark()?;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let writes = log.since(mark)?.writes().of_resource("leases");
    let own = writes.filter(|request| request.name == LEASE_NAME);
    leader.stop()?;
    Ok(own.len() as f64 / seconds as f64)
}

/// Ends one leader after the other while the next one stands by, then kills so many.
pub(crate) async fn changes(cluster: &LocalCluster, handovers: usize, crashes: usize) -> Result<Changes> {
    let mut leader = ready(cluster, "leader-0").await?;
    held_by(cluster, "leader-0").await?;
    let mut times = Vec::new();
    for number in 1..=handovers {
        let name = format!("leader-{number}");
        let standby = ready(cluster, &name).await?;
        let asked = Instant::now();
        let ending = tokio::task::spawn_blocking(move || leader.stop());
        held_by(cluster, &name).await?;
        times.push(asked.elapsed().as_secs_f64());
        ensure!(ending.await??.success(), "a leader has not ended well");
        leader = standby;
    }
    times.sort_by(f64::total_cmp);
    let mut crash = 0.0_f64;
    for number in 1..=crashes {
        let name = format!("after-crash-{number}");
        let standby = ready(cluster, &name).await?;
        let killed = Instant::now();
        leader.kill()?;
        held_by(cluster, &name).await?;
        crash = crash.max(killed.elapsed().as_secs_f64());
        leader = standby;
    }
    leader.stop()?;
    Ok(Changes { handovers: times, crash })
}

async fn ready(cluster: &LocalCluster, name: &str) -> Result<Manager> {
    let mut manager = Manager::start(cluster, name, &["--identity", name]).await?;
    manager.wait_ready().await?;
    Ok(manager)
}

async fn held_by(cluster: &LocalCluster, name: &str) -> Result<()> {
    let leases: Api<Lease> = Api::namespaced(cluster.client("bench-generator")?, "default");
    let deadline = Instant::now() + BOUND;
    loop {
        let holder = leases.get_opt(LEASE_NAME).await?.and_then(|lease| lease.spec?.holder_identity);
        if holder.as_deref() == Some(name) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{name} has not taken the lease");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
