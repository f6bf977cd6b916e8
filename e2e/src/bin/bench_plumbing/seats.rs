//! A minute in which another tenant keeps every seat of a real priority level: what is asked of that
//! level meanwhile, what it costs the others, and how soon the former rate is back.

use crate::lease;
use crate::pressure::{OTHERS, PACE, Target, Way, Writer, prepare, run, spread};
use crate::storm::{AFTER, BEFORE, RECOVERY, STORM, WHOLE};
use anyhow::Result;
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use kube::Client;
use serde_json::Value;
use springtide_e2e::bench::report::quantile;
use springtide_e2e::flow_control::{Level, in_force, users};
use springtide_e2e::held_seats::{HeldSeats, TAKEN_WITHIN};
use springtide_e2e::local_cluster::{Component, LocalCluster};
use springtide_plumbing::budget::BudgetConfig;
use springtide_plumbing::client::Connection;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::sleep;

/// For the requests that were under way when the last seat was taken.
const UNDER_WAY: Duration = Duration::from_secs(3);
const WRITER: &str = "bench";
const TENANT: &str = "tenant";

/// What was measured.
pub(crate) struct Seats {
    /// Refused requests in the busiest second of the storm: the server names a second or more.
    pub(crate) busiest_second: usize,
    /// Stored writes a second on the other level in the storm, as a share of those before it or, where that is more,
    /// of those that were wanted.
    pub(crate) other_level: f64,
    /// Rate from [`RECOVERY`] after the storm on, as a share of that before it.
    pub(crate) recovered: f64,
    /// Stored writes a second before the storm, on the level that has the storm.
    pub(crate) rate_before: f64,
    /// Objects whose content is not what was written last.
    pub(crate) lost: usize,
    /// The slowest renewal of a lease in the whole run, in s.
    pub(crate) slowest_lease: f64,
}

/// Starts a cluster with the seats that an API server has by default.
pub(crate) async fn measure(budget: &BudgetConfig) -> Result<Seats> {
    let seats = [
        "--max-requests-inflight=400",
        "--max-mutating-requests-inflight=200",
        // The tenant's requests are to keep their seats for all of the storm.
        "--request-timeout=5m",
    ];
    let builder = LocalCluster::builder().without_controllers().extra_args(Component::ApiServer, seats);
    let cluster = builder.start().await?;
    let both = [WRITER, TENANT];
    let kubeconfigs = users(&cluster, &both).await?;
    let held = Level {
        name: "held",
        shares: 10,
        users: &both,
        group: "",
        resources: &["configmaps"],
        verbs: &["create", "delete", "patch"],
    };
    let other = Level {
        name: "other",
        shares: 10,
        users: &[WRITER],
        resources: &["secrets"],
        verbs: &["patch"],
        ..held
    };
    let uid = held.create(&cluster).await?;
    other.create(&cluster).await?;
    in_force(&kubeconfigs[0], &uid).await?;

    let namespaces = prepare(&cluster).await?;
    let connection = Connection::load(Some(&kubeconfigs[0]), None).await?;
    let way = Way::budget(&connection, budget)?;
    let paced = (0..OTHERS).map(|n| Writer {
        namespace: n,
        name: "o".to_owned(),
        target: Target::Secret,
        pace: Some(PACE),
    });
    let start = Timestamp::now();
    let storm = async {
        sleep(BEFORE).await;
        let began = Timestamp::now();
        let mut seats = HeldSeats::take_all(&kubeconfigs[1], "default").await?;
        let full = Timestamp::now();
        sleep(STORM).await;
        seats.verify()?;
        Ok::<_, anyhow::Error>((began, full, Timestamp::now()))
    };
    // The storm begins when all seats are taken, and the writers are to be there until the end of what is counted.
    let time = WHOLE + TAKEN_WITHIN;
    let leases = lease::answers(connection.client("bench-leases")?, time);
    let (ran, (began, full, ended), leases) =
        tokio::try_join!(run(&way, &namespaces, spread().chain(paced).collect(), time), storm, leases)?;

    let all = cluster.audit_log()?.all()?.by_user(WRITER).writes();
    let times = |resource: &str, code: &dyn Fn(u16) -> bool, from: Timestamp, to: Timestamp| {
        let of = all.of_resource(resource);
        let of = of.requests().iter().filter(|request| code(request.code));
        let mut times: Vec<Timestamp> = of.filter_map(|request| request.received).collect();
        times.retain(|at| (from..to).contains(at));
        times.sort_unstable();
        times
    };
    let stored = |code: u16| code / 100 == 2;
    let rate = |resource: &str, from: Timestamp, time: Duration| {
        times(resource, &stored, from, from + time).len() as f64 / time.as_secs_f64()
    };
    let refused = times("configmaps", &|code| code == 429, full + UNDER_WAY, ended);
    let in_second_from = |first: &Timestamp| {
        let end = *first + Duration::from_secs(1);
        refused.iter().filter(|at| (*first..end).contains(at)).count()
    };
    let steady = start + BEFORE / 2;
    let rate_before = rate("configmaps", steady, BEFORE / 2);
    let mut last: HashMap<(usize, &str, Target), u64> = HashMap::new();
    for write in &ran.written {
        let last = last.entry((write.namespace, &write.name, write.target)).or_default();
        *last = (*last).max(write.number);
    }
    let client = cluster.client("bench-generator")?;
    let lost = futures::stream::iter(last)
        .map(|((namespace, name, target), number)| {
            let (client, namespace) = (&client, &namespaces[namespace]);
            async move { Ok::<_, anyhow::Error>(read(client, namespace, name, target).await? != number) }
        })
        .buffer_unordered(16)
        .try_filter(|lost| std::future::ready(*lost))
        .try_fold(0, |lost, _| async move { Ok(lost + 1) })
        .await?;
    let measured = Seats {
        busiest_second: refused.iter().map(in_second_from).max().unwrap_or_default(),
        other_level: rate("secrets", began, STORM)
            / rate("secrets", steady, BEFORE / 2).max(OTHERS as f64 / PACE.as_secs_f64()),
        recovered: rate("configmaps", ended + RECOVERY, AFTER) / rate_before,
        rate_before,
        lost,
        slowest_lease: quantile(&leases, 1.0) / 1000.0,
    };
    cluster.stop()?;
    Ok(measured)
}

async fn read(client: &Client, namespace: &str, name: &str, target: Target) -> Result<u64> {
    let request = http::Request::get(target.path(namespace, name)).body(Vec::new())?;
    let object: Value = client.request(request).await?;
    Target::number(&object)
}
