//! A minute in which the server answers every write with 429: how many are sent all the same, and how soon
//! the former rate is back.

use crate::pressure::{Way, busiest, run, spread};
use anyhow::Result;
use springtide_e2e::fault_proxy::{Answer, Class, Entry, Fault, FaultProxy, Protocols, When};
use springtide_e2e::local_cluster::LocalCluster;
use springtide_plumbing::budget::BudgetConfig;
use springtide_plumbing::client::Connection;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Before the storm: the burst is spent in the first half.
pub(crate) const BEFORE: Duration = Duration::from_secs(20);
pub(crate) const STORM: Duration = Duration::from_secs(60);
/// What every answer in it asks for.
const RETRY_AFTER: u32 = 2;
/// After so long the former rate is to be back, and is measured.
pub(crate) const RECOVERY: Duration = Duration::from_secs(30);
pub(crate) const AFTER: Duration = Duration::from_secs(10);
/// All of it.
pub(crate) const WHOLE: Duration =
    Duration::from_secs(BEFORE.as_secs() + STORM.as_secs() + RECOVERY.as_secs() + AFTER.as_secs());

/// What was measured.
pub(crate) struct Storm {
    /// Requests in each time that an answer asked to wait for, once the first ones under way were refused.
    pub(crate) probes_per_wait: f64,
    /// The most of them in any such time.
    pub(crate) most_probes: usize,
    /// Requests sent for each write that was stored, over the whole run.
    pub(crate) amplification: f64,
    /// Rate from [`RECOVERY`] after the storm on, as a share of that before it.
    pub(crate) recovered: f64,
    /// Stored writes a second before the storm.
    pub(crate) rate_before: f64,
}

/// Runs a hundred writers under the budget through a proxy.
pub(crate) async fn measure(
    cluster: &LocalCluster,
    namespaces: &[String],
    budget: &BudgetConfig,
) -> Result<Storm> {
    let proxy = FaultProxy::start(cluster, Protocols::All)?;
    let connection = Connection::load(Some(proxy.kubeconfig()), None).await?;
    let way = Way::budget(&connection, budget)?;
    let start = Instant::now();
    let storm = async {
        sleep(BEFORE).await;
        let refusal = Answer::too_many_requests(Some(RETRY_AFTER));
        let rule = proxy.fault(Class::writes().resource("configmaps"), When::Always, Fault::Refuse(refusal));
        let began = Instant::now();
        sleep(STORM).await;
        proxy.remove(rule);
        Ok::<_, anyhow::Error>((began, Instant::now()))
    };
    let (_, (began, ended)) = tokio::try_join!(run(&way, namespaces, spread().collect(), WHOLE), storm)?;
    let count = |from: Instant, to: Instant, which: &dyn Fn(&Entry) -> bool| {
        let within = |entry: &&Entry| (from..to).contains(&Instant::from(entry.at)) && which(entry);
        proxy.journal(|entries| entries.iter().filter(within).count()) as f64
    };
    let wait = Duration::from_secs(RETRY_AFTER.into());
    let rate = |from: Instant, time: Duration| count(from, from + time, &Entry::stored) / time.as_secs_f64();
    let rate_before = rate(start + BEFORE / 2, BEFORE / 2);
    let end = start + WHOLE;
    let probes: Vec<Instant> = proxy.journal(|entries| {
        let times = entries.iter().map(|entry| Instant::from(entry.at));
        times.filter(|at| (began + wait..ended).contains(at)).collect()
    });
    Ok(Storm {
        most_probes: busiest(probes, wait),
        probes_per_wait: count(began + wait, ended, &|_| true)
            / ((STORM - wait).as_secs_f64() / wait.as_secs_f64()),
        amplification: count(start, end, &|entry| entry.request.is_write())
            / count(start, end, &Entry::stored),
        recovered: rate(ended + RECOVERY, AFTER) / rate_before,
        rate_before,
    })
}
