//! Leaders that are stopped (SIGSTOP) at arbitrary moments under load, beside a warm standby, and leaders
//! that are asked to end. Of the former the leases are a tenth of the shipped ones, in their ratios.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail as a test does")]

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use springtide_crds::batch_job::{BatchJobSpec, CompletionTracking, Release};
use springtide_e2e::batch::{self, Task, Testbed};
use springtide_e2e::local_cluster::LocalCluster;
use springtide_e2e::manager::{LEASE_NAME, Manager};
use springtide_e2e::oracle::feed::PATIENCE;
use springtide_e2e::oracle::leadership::Terms;
use tokio::time::Instant;

const USERS: [&str; 2] = ["manager-a", "manager-b"];
/// Duration, renew deadline and retry period in seconds; shipped are 30, 20 and 5.
const LEASE_TIMES: &str = "3,2,0.5";
/// Where the lease is to change hands once, and not when a busy machine stands still for seconds.
const SHIPPED_TIMES: &str = "30,20,5";
/// Jobs that are submitted around each pause.
const JOBS: usize = 20;

/// A manager with a user of its own, by which the audit log knows it, and the same name in the Lease.
async fn manager(cluster: &LocalCluster, user: &str, lease_times: &str) -> Result<Manager> {
    let args = ["--identity", user, "--lease-times", lease_times];
    Manager::start_as(cluster, user, "system:masters", &args).await
}

/// Waits until the Lease is held by one for whom `check` says yes; gives its number.
async fn leader(cluster: &LocalCluster, check: impl Fn(usize) -> bool) -> Result<usize> {
    let leases: Api<Lease> = Api::namespaced(cluster.client("springtide-test")?, "default");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let holder = leases.get_opt(LEASE_NAME).await?.and_then(|lease| lease.spec?.holder_identity);
        let number = holder.and_then(|holder| USERS.iter().position(|user| *user == holder));
        if let Some(number) = number.filter(|number| check(*number)) {
            return Ok(number);
        }
        ensure!(Instant::now() < deadline, "nobody has taken the lease");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Half of the jobs are tracked strictly: their chain has a write more.
fn spec(strict: bool) -> BatchJobSpec {
    let tracking = if strict { CompletionTracking::Strict } else { CompletionTracking::AtLeastOnce };
    BatchJobSpec {
        release: Release { completion_tracking: Some(tracking), ..Release::default() },
        ..BatchJobSpec::new(Task::quick().template())
    }
}

#[tokio::test]
async fn a_leader_that_is_stopped_at_any_moment_stores_nothing_past_its_lease() -> Result<()> {
    let pauses = if batch::long() { 50 } else { 5 };
    let seed: u64 = 20_261_126;
    let mut random = StdRng::seed_from_u64(seed);
    let mut moment = async |up_to: u64| {
        tokio::time::sleep(Duration::from_millis(random.random_range(0..up_to))).await;
    };
    let cluster = batch::cluster().await?;
    let managers =
        [manager(&cluster, USERS[0], LEASE_TIMES).await?, manager(&cluster, USERS[1], LEASE_TIMES).await?];
    let test = Testbed::new(&cluster, "stopped").await?;
    for pause in 0..pauses {
        let leads = leader(&cluster, |_| true).await?;
        let load = async {
            test.submit_many(&format!("before-{pause}"), JOBS, &spec(pause % 2 == 0)).await?;
            test.submit_many(&format!("after-{pause}"), JOBS / 4, &spec(pause % 2 == 1)).await
        };
        let stop = async {
            moment(700).await;
            managers[leads].child().pause()?;
            leader(&cluster, |number| number != leads).await?;
            // Resumed now right after, now well after the successor has begun.
            moment(500).await;
            managers[leads].child().resume()
        };
        tokio::try_join!(load, stop).with_context(|| format!("pause {pause} of seed {seed}"))?;
        moment(300).await;
    }
    let jobs = pauses * (JOBS + JOBS / 4);
    test.jobs.until("every job finished", |jobs_seen| (jobs_seen.finished() == jobs).then_some(())).await?;
    let terms = Terms::of(&USERS, &cluster.audit_log()?.all()?);
    // A create that was under way already is harmless under its deterministic name.
    let unforgiven = &terms.unforgiven;
    ensure!(unforgiven.is_empty(), "seed {seed}: written without the lease: {unforgiven:#?}");
    ensure!(terms.leaders.len() > pauses, "{} changes of the leader", terms.leaders.len());
    println!(
        "{pauses} pauses, {} leaders one after the other, {} creates that were under way",
        terms.leaders.len(),
        terms.without_lease.len()
    );
    for (prefix, count) in [("before", JOBS), ("after", JOBS / 4)] {
        for (pause, number) in (0..pauses).flat_map(|pause| (0..count).map(move |number| (pause, number))) {
            test.pods.now().exactly_one_run(&format!("{prefix}-{pause}-{number}"), 1)?;
        }
    }
    test.verify()?;
    for manager in managers {
        manager.stop()?;
    }
    Ok(())
}

/// The value of the only series of a name whose labels contain `label`.
fn metric(text: &str, name: &str, label: &str) -> Result<f64> {
    let line = text.lines().find(|line| line.starts_with(name) && line.contains(label));
    let value = line.and_then(|line| line.rsplit(' ').next()).context(name.to_owned())?;
    Ok(value.parse()?)
}

#[tokio::test]
async fn a_standby_is_warm_and_takes_over_from_a_leader_that_is_asked_to_end() -> Result<()> {
    let cluster = batch::cluster().await?;
    let first = manager(&cluster, USERS[0], SHIPPED_TIMES).await?;
    leader(&cluster, |number| number == 0).await?;
    let standby = manager(&cluster, USERS[1], SHIPPED_TIMES).await?;
    let test = Testbed::new(&cluster, "handover").await?;
    test.submit("endless", BatchJobSpec::new(Task::endless().template())).await?;
    let running = test.running("endless", 1).await?;

    let deadline = Instant::now() + PATIENCE;
    loop {
        let (leads, waits) = (first.metrics().await?, standby.metrics().await?);
        let pods = |text: &str| metric(text, "springtide_store_objects", "resource=\"pods\"");
        if (pods(&leads)?, pods(&waits)?) == (1.0, 1.0) {
            assert_eq!(metric(&leads, "leader_election_master_status", "")?, 1.0);
            assert_eq!(metric(&waits, "leader_election_master_status", "")?, 0.0);
            break;
        }
        ensure!(Instant::now() < deadline, "the standby does not see what the leader does");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    let asked = Instant::now();
    let (ended, taken) = tokio::join!(tokio::task::spawn_blocking(|| first.stop()), async {
        leader(&cluster, |number| number == 1).await?;
        Ok::<_, anyhow::Error>(asked.elapsed())
    });
    ensure!(ended??.success(), "the leader has not ended well");
    println!("handed over in {} ms", taken?.as_millis());
    for life in running {
        test.end_pod(&life, 0).await?;
    }
    test.completed("endless").await?;
    test.submit("next", BatchJobSpec::new(Task::quick().template())).await?;
    test.completed("next").await?;
    let terms = Terms::of(&USERS, &cluster.audit_log()?.all()?);
    assert_eq!(terms.leaders, USERS);
    ensure!(terms.without_lease.is_empty(), "{:#?}", terms.without_lease);
    standby.stop()?;
    test.verify()
}
