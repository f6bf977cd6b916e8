//! A manager whose connections are led to another API server on the same etcd, which lags behind: it takes nothing
//! that is older than what it has seen, begins with nothing that may be old, and goes on when the server has caught up.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail as a test does")]

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::ResourceExt;
use kube::api::{ListParams, VersionMatch};
use springtide_crds::batch_job::{BatchJobSpec, CompletionMode, CompletionTracking, Release};
use springtide_e2e::batch::{self, Task, Testbed};
use springtide_e2e::fault_proxy::{Answer, Class, Entry, Fault, FaultProxy, Protocols, When};
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
