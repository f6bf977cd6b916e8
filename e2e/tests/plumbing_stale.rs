//! A manager whose connections are led to another API server on the same etcd, which lags behind: it takes nothing
//! that is older than what it has seen, begins with nothing that may be old, and goes on when the server has caught up.
//! And one that hears nothing of nodes any more: it starts nothing until it does.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail as a test does")]

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::ResourceExt;
use kube::api::{ListParams, VersionMatch};
use springtide_crds::batch_job::{BatchJobSpec, CompletionMode, CompletionTracking, QueuedReason, Release};
use springtide_crds::batch_queue::{
    BatchQueue, BatchQueueSpec, CapacitySource, CapacityStaleReason, DEFAULT_QUEUE, ReadyReason,
};
use springtide_crds::reason::Reason;
use springtide_e2e::batch::{self, Task, Testbed, queues};
use springtide_e2e::fault_proxy::{Answer, Class, Entry, EventFault, Fault, FaultProxy, Protocols, When};
use springtide_e2e::local_cluster::SecondApiServer;
use springtide_e2e::manager::{Manager, USER_AGENT};
use springtide_e2e::oracle::feed::PATIENCE;
use springtide_e2e::oracle::pods::Life;
use springtide_e2e::write_count::Verb;
use tokio::time::Instant;

/// Tasks of each job, all of which run at a time.
const TASKS: u32 = 4;
/// The kinds of which the plans of this controller depend the most.
const KINDS: [&str; 2] = ["pods", "batchjobs"];
/// How long the server lags once the manager has asked it for what it is to act on.
const LAG: Duration = Duration::from_secs(5);
/// Between two jobs of a user who goes on submitting.
const PAUSE: Duration = Duration::from_secs(2);
/// Priority of the job by which the queue tells it from others.
const LATE: i32 = 7;

fn endless() -> BatchJobSpec {
    BatchJobSpec {
        completions: TASKS,
        parallelism: TASKS,
        completion_mode: CompletionMode::Indexed,
        release: Release { completion_tracking: Some(CompletionTracking::Strict), ..Release::default() },
        ..BatchJobSpec::new(Task::endless().template())
    }
}

/// What a client is served that takes whatever the cache of the server has.
async fn cached_pods(server: &SecondApiServer, namespace: &str) -> Result<Vec<String>> {
    let pods: Api<Pod> = Api::namespaced(server.client("springtide-test")?, namespace);
    let whatever = ListParams {
        resource_version: Some("0".to_owned()),
        version_match: Some(VersionMatch::NotOlderThan),
        ..ListParams::default()
    };
    let mut names: Vec<_> = pods.list(&whatever).await?.iter().map(ResourceExt::name_any).collect();
    names.sort_unstable();
    Ok(names)
}

/// Waits until the server's cache shows these pods, and cuts it off from etcd.
async fn keep_showing(server: &SecondApiServer, namespace: &str, pods: &[Life]) -> Result<Vec<String>> {
    let mut names: Vec<_> = pods.iter().map(|life| life.name.clone()).collect();
    names.sort_unstable();
    let deadline = Instant::now() + PATIENCE;
    while cached_pods(server, namespace).await? != names {
        ensure!(Instant::now() < deadline, "the second API server does not show {names:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    server.cut_off();
    Ok(names)
}

async fn end_all(test: &Testbed<'_>, job: &str, running: &[Life]) -> Result<()> {
    for life in running {
        test.end_pod(life, 0).await?;
    }
    let status = test.completed(job).await?.status.context("status")?;
    assert_eq!((status.succeeded, status.failed, status.disrupted), (TASKS, 0, 0), "{job}");
    test.no_pods(job).await?;
    test.pods.now().exactly_one_run(job, TASKS)
}

/// The manager's requests that make or destroy a pod, or free it.
fn touched_pods(proxy: &FaultProxy) -> Vec<String> {
    let class = Class::writes().resource("pods").agent(USER_AGENT);
    proxy.journal(|all| {
        let touched = all.iter().filter(|entry| class.holds(&entry.request));
        touched.map(|entry| format!("{} {}", entry.request.verb.name(), entry.request.name)).collect()
    })
}

/// Waits until the manager has asked for a whole list of each of the kinds.
async fn lists_are_asked_for(proxy: &FaultProxy) -> Result<()> {
    for kind in KINDS {
        let lists = Class::of([Verb::Watch]).resource(kind).agent(USER_AGENT).query("sendInitialEvents=true");
        proxy
            .until(&format!("a streaming list of {kind}"), |all| {
                all.iter().any(|entry| lists.holds(&entry.request)).then_some(())
            })
            .await?;
    }
    Ok(())
}

#[tokio::test]
async fn what_a_lagging_api_server_shows_is_not_acted_on_neither_after_a_failover_nor_at_the_start()
-> Result<()> {
    let cluster = batch::cluster().await?;
    let second = cluster.second_api_server().await?;
    let proxy = FaultProxy::start(&cluster, Protocols::All)?;
    let start = async |name: &str| {
        Manager::start_with(&cluster, proxy.kubeconfig(), name, &["--no-leader-election"]).await
    };
    let mut manager = start("first").await?;
    manager.wait_ready().await?;
    let test = Testbed::new(&cluster, "stale").await?;

    // The second server goes on showing pods that ran, and has never heard of the job that runs now.
    test.submit("over", endless()).await?;
    let over = test.running("over", TASKS as usize).await?;
    let shown = keep_showing(&second, &test.namespace, &over).await?;
    end_all(&test, "over", &over).await?;
    test.submit("unheard-of", endless()).await?;
    let running = test.running("unheard-of", TASKS as usize).await?;

    // A failover; and what the manager has missed meanwhile is said to be gone, so that it must list.
    proxy.forget();
    let expired = KINDS.map(|kind| {
        let watches = Class::of([Verb::Watch]).resource(kind).agent(USER_AGENT);
        proxy.fault(watches, When::Nth(1), Fault::Refuse(Answer::too_old()))
    });
    proxy.fail_over_to(second.address());
    for rule in expired {
        proxy.fired(rule, 1).await?;
    }
    lists_are_asked_for(&proxy).await?;
    let (first_half, second_half) = running.split_at(running.len() / 2);
    // Of this it hears only later.
    for life in first_half {
        test.end_pod(life, 0).await?;
    }
    tokio::time::sleep(LAG).await;
    assert_eq!(cached_pods(&second, &test.namespace).await?, shown, "the second server does not lag");
    let touched = touched_pods(&proxy);
    ensure!(touched.is_empty(), "by the word of a server that lags: {touched:?}");
    second.rejoin();
    end_all(&test, "unheard-of", second_half).await?;
    test.submit("next", BatchJobSpec::new(Task::quick().template())).await?;
    test.completed("next").await?;

    // The same at the start of a manager, which has seen nothing to compare with.
    test.submit("shown", endless()).await?;
    let ran = test.running("shown", TASKS as usize).await?;
    proxy.fail_over_to(cluster.address());
    let shown = keep_showing(&second, &test.namespace, &ran).await?;
    end_all(&test, "shown", &ran).await?;
    test.submit("hidden", endless()).await?;
    let running = test.running("hidden", TASKS as usize).await?;
    manager.kill()?;
    proxy.fail_over_to(second.address());
    proxy.forget();
    let mut manager = start("second").await?;
    lists_are_asked_for(&proxy).await?;
    // It waits in vain for a streaming list, and asks for a plain one.
    let asked = Class::of([Verb::List]).resource("pods").agent(USER_AGENT);
    let is_plain = |all: &[Entry]| all.iter().any(|entry| asked.holds(&entry.request)).then_some(());
    proxy.until("a plain list of pods", is_plain).await?;
    tokio::time::sleep(LAG).await;
    assert_eq!(cached_pods(&second, &test.namespace).await?, shown, "the second server does not lag");
    ensure!(!manager.is_ready().await, "it takes what may be old for all there is");
    let touched = touched_pods(&proxy);
    ensure!(touched.is_empty(), "by the word of a server that lags: {touched:?}");
    second.rejoin();
    manager.wait_ready().await?;
    end_all(&test, "hidden", &running).await?;

    // All that was over before stays so.
    for job in ["over", "unheard-of", "shown"] {
        test.pods.now().exactly_one_run(job, TASKS)?;
    }
    test.pods.now().exactly_one_run("next", 1)?;
    manager.stop()?;
    test.verify()
}

/// All pods that the namespace has ever had.
fn ever(test: &Testbed<'_>) -> BTreeSet<String> {
    test.pods.now().all().map(|life| life.uid.clone()).collect()
}

#[tokio::test]
async fn a_queue_whose_nodes_are_not_heard_of_says_so_and_starts_nothing_until_they_are() -> Result<()> {
    let cluster = batch::cluster().await?;
    let proxy = FaultProxy::start(&cluster, Protocols::All)?;
    let args = ["--no-leader-election"];
    let mut manager = Manager::start_with(&cluster, proxy.kubeconfig(), "deaf", &args).await?;
    manager.wait_ready().await?;
    let test = Testbed::new(&cluster, "deaf").await?;
    let source = CapacitySource { stale_after_seconds: 10, ..CapacitySource::default() };
    let spec = BatchQueueSpec { capacity_source: source, ..BatchQueueSpec::new() };
    queues::open(&test, DEFAULT_QUEUE, spec).await?;
    test.submit("running", endless()).await?;
    let running = test.running("running", TASKS as usize).await?;

    // The watch falls silent, and neither another one nor a list is to be had.
    let watch = Class::of([Verb::Watch]).resource("nodes").agent(USER_AGENT);
    proxy.event_fault(watch, &[], When::Always, EventFault::Silence);
    let asked = Class::of([Verb::Watch, Verb::List]).resource("nodes").agent(USER_AGENT);
    let refused = proxy.fault(asked, When::Always, Fault::Refuse(Answer::unavailable()));
    let quick = || BatchJobSpec::new(Task::quick().template());
    let is_stale = |queue: &BatchQueue| queues::says(queue, &CapacityStaleReason::NodesNotSynced);
    let deadline = Instant::now() + PATIENCE;
    let mut jobs = Vec::new();
    let told = loop {
        let queue = test.api::<BatchQueue>().get(DEFAULT_QUEUE).await?;
        if is_stale(&queue) {
            break queue;
        }
        ensure!(Instant::now() < deadline, "the queue does not say that its nodes are not seen: {queue:?}");
        let name = format!("job-{}", jobs.len());
        test.submit(&name, quick()).await?;
        jobs.push(name);
        tokio::time::sleep(PAUSE).await;
    };
    ensure!(queues::says(&told, &ReadyReason::CapacityStale), "{:?}", told.status);
    ensure!(proxy.hits(refused).fired > 0, "the manager has not asked anew");

    // Nothing starts any more, and what runs goes on.
    let before = ever(&test);
    test.submit("late", BatchJobSpec { priority: LATE, ..quick() }).await?;
    jobs.push("late".to_owned());
    queues::queue(&test, DEFAULT_QUEUE, "telling what the late job waits for", |queue| {
        let mut waiting = queue.status.iter().flat_map(|status| &status.waiting);
        waiting.any(|class| class.priority == LATE && class.reason == QueuedReason::CapacityStale.as_str())
    })
    .await?;
    ensure!(ever(&test) == before, "a pod has started on the word of nodes that nobody hears of");
    let still = test.running("running", TASKS as usize).await?;
    ensure!(
        still.iter().map(|life| &life.uid).eq(running.iter().map(|life| &life.uid)),
        "what runs was disturbed"
    );

    // Nodes are heard of again, and all that has waited runs, once.
    proxy.clear();
    queues::told(&test, DEFAULT_QUEUE, CapacityStaleReason::Fresh).await?;
    for job in &jobs {
        test.completed(job).await?;
        test.no_pods(job).await?;
        test.pods.now().exactly_one_run(job, 1)?;
    }
    end_all(&test, "running", &running).await?;
    manager.stop()?;
    test.verify()
}
