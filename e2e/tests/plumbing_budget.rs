//! The write budget against the real flow control of an API server (API Priority and Fairness): a tenant
//! keeps all seats of the priority level that our writes of pods share, and the server refuses them.
//! Each manager has a user of its own that is no member of `system:masters`, which no flow control is for.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use springtide_crds::batch_job::{BatchJobSpec, CompleteReason, StopPolicy};
use springtide_e2e::batch::{GENERAL, Task, Testbed, pool};
use springtide_e2e::flow_control::{Level, in_force, users};
use springtide_e2e::held_seats::HeldSeats;
use springtide_e2e::local_cluster::{Component, LocalCluster};
use springtide_e2e::manager::Manager;
use springtide_e2e::oracle::feed::PATIENCE;
use springtide_e2e::oracle::leadership::Terms;
use springtide_plumbing::executor::WRITE_DEADLINE;
use tokio::time::Instant;

const USERS: [&str; 2] = ["manager-a", "manager-b"];
const TENANT: &str = "tenant";
/// Jobs whose pods the server refuses for a while.
const JOBS: usize = 60;
/// Slots of an in-flight window at first: so many requests may be under way when the first 429 comes.
const WINDOW: usize = 16;

/// As [`batch::cluster`], with no more seats in all than an API server has by default.
async fn cluster() -> Result<LocalCluster> {
    let few = ["--max-requests-inflight=400", "--max-mutating-requests-inflight=200"];
    let builder = LocalCluster::builder().kwok(pool(GENERAL, 10, "32", 110));
    let cluster = builder.extra_args(Component::ApiServer, few).start().await?;
    cluster.install_crds().await?;
    Ok(cluster)
}

async fn manager(cluster: &LocalCluster, user: &str) -> Result<Manager> {
    Manager::start_as(cluster, user, "springtide", &[]).await
}

/// The in-flight window of a level, as the manager's metrics show it.
async fn window(manager: &Manager, uid: &str) -> Result<f64> {
    let metrics = manager.metrics().await?;
    let series = format!(r#"springtide_write_budget_inflight_limit{{priority_level="{uid}"}} "#);
    let value = metrics.lines().find_map(|line| line.strip_prefix(&series));
    value.with_context(|| format!("no window of {uid} in:\n{metrics}"))?.parse().context("a number")
}

/// When the server got each write of a pod that it refused with 429 since `from`, in order.
fn refused(cluster: &LocalCluster, from: Timestamp) -> Result<Vec<Timestamp>> {
    let of_pods = cluster.audit_log()?.all()?.by_user(USERS[0]).of_resource("pods").writes();
    let times = of_pods.requests().iter().filter(|request| request.code == 429);
    let mut times: Vec<_> = times.filter_map(|request| request.received).filter(|at| *at >= from).collect();
    times.sort_unstable();
    Ok(times)
}

/// Whether the one came so shortly after the other that no hold was between them. The shortest is a second from the
/// answer on, less what the clocks of two processes may differ by.
fn is_close(pair: &[Timestamp]) -> bool {
    pair[1].duration_since(pair[0]).as_millis() < 999
}

/// Those that cannot have been under way when the first 429 came: nothing is for longer than the deadline of a write.
fn after_the_first(times: &[Timestamp]) -> &[Timestamp] {
    let Some(first) = times.first() else { return &[] };
    &times[times.partition_point(|at| *at <= *first + WRITE_DEADLINE)..]
}

#[tokio::test]
async fn a_level_without_seats_is_left_alone_no_work_is_lost_and_all_else_goes_on() -> Result<()> {
    let cluster = cluster().await?;
    let all = [USERS[0], USERS[1], TENANT];
    let tenant = users(&cluster, &all).await?.remove(2);
    // Writes of pods, and the tenant's of ConfigMaps, share a level of very few seats; statuses have another.
    let few = Level {
        name: "few-seats",
        shares: 1,
        users: &all,
        group: "",
        resources: &["pods", "configmaps"],
        verbs: &["create", "delete", "patch"],
    };
    let statuses = Level {
        name: "statuses",
        shares: 30,
        users: &USERS,
        group: "springtide.dev",
        resources: &["batchjobs/status"],
        verbs: &["patch"],
    };
    let (pods, statuses) = (few.create(&cluster).await?, statuses.create(&cluster).await?);
    in_force(&tenant, &pods).await?;
    let leader = manager(&cluster, USERS[0]).await?;
    let test = Testbed::new(&cluster, "budget").await?;
    // The answers to these name the levels.
    test.submit_many("before", 5, &BatchJobSpec::new(Task::quick().template())).await?;
    for number in 0..5 {
        test.completed(&format!("before-{number}")).await?;
        test.no_pods(&format!("before-{number}")).await?;
    }
    // It would take a lease that is not renewed in time.
    let standby = manager(&cluster, USERS[1]).await?;

    let mut seats = HeldSeats::take_all(&tenant, "default").await?;
    let from = Timestamp::now();
    test.submit_many("refused", JOBS, &BatchJobSpec::new(Task::quick().template())).await?;
    let deadline = Instant::now() + PATIENCE;
    while after_the_first(&refused(&cluster, from)?).len() < 4 {
        ensure!(Instant::now() < deadline, "refused: {:?}", refused(&cluster, from)?);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // Statuses are of another level.
    let held = BatchJobSpec { stop_policy: StopPolicy::Hold, ..BatchJobSpec::new(Task::quick().template()) };
    test.submit_many("held", 20, &held).await?;
    for number in 0..20 {
        test.reason(&format!("held-{number}"), CompleteReason::Suspended).await?;
    }
    seats.verify()?;
    // Until here no request of the level can have had a seat.
    let times = refused(&cluster, from)?;
    let probes = after_the_first(&times);
    ensure!(!probes.windows(2).any(is_close), "requests during holds: {times:#?}");
    let beside = times.windows(2).filter(|pair| is_close(pair)).count();
    ensure!(beside < WINDOW, "{beside} requests beside the first: {times:#?}");
    eprintln!("{} refused: {beside} beside the first, {} long after it", times.len(), probes.len());
    assert_eq!(window(&leader, &pods).await?, 1.0);
    ensure!(window(&leader, &statuses).await? >= 16.0, "{}", leader.metrics().await?);
    ensure!(test.pods.now().all().all(|life| !life.name.starts_with("refused")), "a pod without a seat");
    drop(seats);

    for number in 0..JOBS {
        let name = format!("refused-{number}");
        test.completed(&name).await?;
        test.no_pods(&name).await?;
        test.pods.now().exactly_one_run(&name, 1)?;
    }
    let terms = Terms::of(&USERS, &cluster.audit_log()?.all()?);
    assert_eq!(terms.leaders, [USERS[0]], "the lease was renewed in time all along");
    ensure!(terms.without_lease.is_empty(), "written without the lease: {:#?}", terms.without_lease);
    leader.stop()?;
    standby.stop()?;
    test.verify()
}
