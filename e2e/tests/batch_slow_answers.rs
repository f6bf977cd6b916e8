//! armada#1015: an API server whose answers take 2 s in one case of a hundred. The manager does no less and nothing twice,
//! asks no more often for that, and keeps its lease. All of it is counted; no time is measured.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use springtide_crds::batch_job::{
    BatchJobSpec, CompletionMode, CompletionTracking, FailedReason, Release, Retry,
};
use springtide_e2e::batch::{self, Task, Testbed};
use springtide_e2e::fault_proxy::{Class, Fault, FaultProxy, Latency, Protocols, RuleId, When};
use springtide_e2e::local_cluster::LocalCluster;
use springtide_e2e::manager::{LEASE_NAME, Manager};
use springtide_e2e::oracle::feed::PATIENCE;
use springtide_e2e::oracle::leadership::Terms;
use springtide_e2e::write_count::{Verb, WriteCount};
use tokio::time::Instant;

/// The one that leads, and the one that would take the lease if it were not renewed in time.
const USERS: [&str; 2] = ["manager-a", "manager-b"];
/// Jobs of a single task, and tasks of the wide one.
const SINGLES: usize = 60;
const TASKS: u32 = 40;
/// Of the answers, as many are as late as this as of any server in trouble: half are later than twice the least, one of a
/// hundred takes the most.
const LEAST: Duration = Duration::from_millis(20);
const MOST: Duration = Duration::from_secs(2);
/// Own writes until a job of a single task is Complete and without pods: the pod, that it runs, what it came to, the end of
/// the pod; and that it waits, where creates are slow. None is refused, so that none is to be made again.
const OF_A_SINGLE: usize = 5;
/// Renewals of the lease under slow answers that are awaited. One comes every 5 s, and a lease that is not renewed is lost
/// after 30 s.
const RENEWALS: usize = 8;
/// Without a write for so long all has come to rest: what left late has come by then.
const REST: Duration = Duration::from_secs(5);

/// A tail that is heavy: p50 40 ms, p90 200 ms, p99 2 s.
fn late(seed: u64) -> Latency {
    Latency::Pareto { least: LEAST, most: MOST, shape: 1.0, seed }
}

/// Both managers have their own way to the server, in the names by which the audit log knows them.
async fn manager(cluster: &LocalCluster, proxy: &FaultProxy, user: &str) -> Result<Manager> {
    let way = proxy.kubeconfig_for(cluster, user, "system:masters")?;
    let mut manager = Manager::start_with(cluster, &way, user, &[]).await?;
    manager.wait_ready().await?;
    Ok(manager)
}

/// Half of the requests leave late; of the others the answer is late, so that what came of a write is seen before it.
fn slow(proxy: &FaultProxy) -> [RuleId; 2] {
    let chance = When::Chance { probability: 0.5, seed: 1 };
    [
        proxy.fault(Class::any(), chance, Fault::Delay(late(2))),
        proxy.fault(Class::any(), When::Always, Fault::DelayAnswer(late(3))),
    ]
}

fn wide(task: &Task) -> BatchJobSpec {
    BatchJobSpec {
        completions: TASKS,
        parallelism: 8,
        completion_mode: CompletionMode::Indexed,
        release: Release { completion_tracking: Some(CompletionTracking::Strict), ..Release::default() },
        retry: Retry { initial_backoff_seconds: 0, max_backoff_seconds: 0, ..Retry::default() },
        ..BatchJobSpec::new(task.template())
    }
}

/// The writes of both managers, leases aside.
fn writes(test: &Testbed<'_>) -> Result<WriteCount> {
    let all = test.requests()?.writes().without_leases();
    Ok(all.filter(|request| USERS.contains(&request.user.as_str())))
}

/// Renewals of the lease by the leader so far.
fn renewals(cluster: &LocalCluster) -> Result<usize> {
    let of_lease = cluster.audit_log()?.all()?.by_user(USERS[0]).writes().successful().of_resource("leases");
    Ok(of_lease.filter(|request| request.name == LEASE_NAME).len())
}

/// Waits until nothing is written any more, as events are behind what they tell of; returns when that was.
async fn at_rest(test: &Testbed<'_>) -> Result<Timestamp> {
    let deadline = Instant::now() + PATIENCE;
    let mut before = writes(test)?.len();
    loop {
        tokio::time::sleep(REST).await;
        let (now, count) = (Timestamp::now(), writes(test)?.len());
        if count == before {
            return Ok(now);
        }
        before = count;
        ensure!(Instant::now() < deadline, "the managers do not come to rest");
    }
}

#[tokio::test]
async fn answers_that_take_two_seconds_lose_nothing_double_nothing_and_cost_neither_a_storm_nor_the_lease()
-> Result<()> {
    let cluster = batch::cluster().await?;
    let proxy = FaultProxy::start(&cluster, Protocols::All)?;
    let leader = manager(&cluster, &proxy, USERS[0]).await?;
    let test = Testbed::new(&cluster, "slow").await?;
    test.submit("before", BatchJobSpec::new(Task::quick().template())).await?;
    test.completed("before").await?;
    test.no_pods("before").await?;
    let standby = manager(&cluster, &proxy, USERS[1]).await?;

    let rules = slow(&proxy);
    let renewed = renewals(&cluster)?;
    test.submit_many("single", SINGLES, &BatchJobSpec::new(Task::quick().template())).await?;
    test.submit("wide", wide(&Task::quick())).await?;
    let failing =
        BatchJobSpec { backoff_limit: Some(2), completions: 1, parallelism: 1, ..wide(&Task::failing(3)) };
    test.submit("failing", failing).await?;
    for number in 0..SINGLES {
        let name = format!("single-{number}");
        test.completed(&name).await?;
        test.no_pods(&name).await?;
        test.pods.now().exactly_one_run(&name, 1)?;
    }
    let status = test.completed("wide").await?.status.context("status")?;
    ensure!((status.succeeded, status.failed, status.disrupted) == (TASKS, 0, 0), "{status:?}");
    test.no_pods("wide").await?;
    test.pods.now().exactly_one_run("wide", TASKS)?;
    let failed = test.failed("failing", FailedReason::BackoffLimitExceeded).await?;
    ensure!(failed.status.context("status")?.failed == 3);
    test.no_pods("failing").await?;
    // Under slow answers for long enough that a lease which is not renewed would have a new holder.
    let deadline = Instant::now() + PATIENCE;
    while renewals(&cluster)? < renewed + RENEWALS {
        ensure!(Instant::now() < deadline, "{} renewals", renewals(&cluster)? - renewed);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }

    let [delayed, all] = rules.map(|rule| proxy.hits(rule).fired);
    ensure!(all > 300 && delayed > all / 4 && delayed < all, "{delayed} of {all} requests left late");
    let all = writes(&test)?;
    // A POST that is sent again because its answer has not come yet would be refused, as its object exists.
    let mut creates: BTreeMap<&str, usize> = BTreeMap::new();
    let of_pods = all.of_resource("pods");
    for request in of_pods.requests().iter().filter(|request| request.verb == Verb::Create) {
        *creates.entry(&request.name).or_default() += 1;
    }
    let twice: Vec<_> = creates.iter().filter(|(_, count)| **count > 1).collect();
    ensure!(twice.is_empty(), "creates that were sent again: {twice:?}");
    ensure!(creates.len() == 1 + SINGLES + TASKS as usize + 3, "{} pods were created", creates.len());
    // Nothing is tried again that the server has not asked for.
    let refused = all.filter(|request| request.code == 429 || request.code >= 500);
    ensure!(refused.is_empty(), "refused:\n{refused}");
    let lost = all.len() - all.successful().len();
    ensure!(lost <= all.len() / 10, "{lost} of {} writes were in vain:\n{all}", all.len());
    for number in 0..SINGLES {
        let name = format!("single-{number}");
        let pod = format!("{name}-0-0");
        let own = all.filter(|request| request.name == name || request.name == pod);
        ensure!(own.successful().len() <= OF_A_SINGLE, "{name}:\n{own}");
    }

    let terms = Terms::of(&USERS, &cluster.audit_log()?.all()?);
    assert_eq!(terms.leaders, [USERS[0]], "the lease was renewed in time all along");
    ensure!(terms.without_lease.is_empty(), "written without the lease: {:#?}", terms.without_lease);
    // At rest it asks for nothing, slow or not.
    let rested = at_rest(&test).await?;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let later = writes(&test)?.filter(|request| request.received.is_none_or(|at| at >= rested));
    ensure!(later.is_empty(), "writes after all had come to rest:\n{later}");
    ensure!(leader.child().is_running() && standby.child().is_running(), "a manager has ended");
    leader.stop()?;
    standby.stop()?;
    test.verify()
}
