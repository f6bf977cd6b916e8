//! An etcd that is full: nothing can be written any more, by nobody. The manager waits, tries seldom, and when
//! there is space again it catches up without a storm.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail as a test does")]

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{DeleteParams, ObjectMeta, PostParams};
use springtide_crds::batch_job::{BatchJobSpec, CompletionTracking, Release};
use springtide_e2e::batch::{GENERAL, Task, Testbed, pool};
use springtide_e2e::local_cluster::{Component, LocalCluster};
use springtide_e2e::manager::{Manager, USER_AGENT};
use springtide_e2e::oracle::feed::PATIENCE;
use springtide_e2e::write_count::WriteCount;
use tokio::time::Instant;

/// What etcd may hold: far more than the cluster and these jobs, and soon full.
const QUOTA_BYTES: usize = 32 << 20;
/// Size of what fills it; a ConfigMap may have 1 MiB.
const FILLER_BYTES: usize = 900 << 10;
/// Jobs of either sort.
const JOBS: usize = 10;
/// How long it stays full once the manager has noticed.
const FULL: Duration = Duration::from_secs(8);
/// Writes that are refused for one job meanwhile, or for its pod: the backoff doubles from half a second, and who
/// gets no answer looks at the store before it tries again.
const TRIES: usize = 10;
/// Writes for one job from then on to its end: its wait, a pod, its start, its outcome, a release; and a few that are
/// refused before all is as it was.
const CHAIN: usize = 8;

/// The manager's writes for jobs and their pods, those of events and leases left out.
fn of_jobs(all: &WriteCount) -> WriteCount {
    let own = all.by_agent(USER_AGENT).writes().without_leases();
    own.filter(|request| request.resource.starts_with("pods") || request.resource.starts_with("batchjobs"))
}

/// Requests by the job that they are for: pods are named `<job>-<index>-<attempt>`.
fn most_for_one_job(count: &WriteCount) -> usize {
    let mut jobs = BTreeMap::<String, usize>::new();
    for request in count.requests() {
        let of_a_pod = request.resource.starts_with("pods");
        let job = if of_a_pod { request.name.rsplitn(3, '-').last() } else { Some(request.name.as_str()) };
        *jobs.entry(job.unwrap_or_default().to_owned()).or_default() += 1;
    }
    jobs.into_values().max().unwrap_or_default()
}

/// Fills etcd until it refuses more; gives the names of what fills it.
async fn fill(maps: &Api<ConfigMap>) -> Result<Vec<String>> {
    let text = "0123456789abcdef".repeat(FILLER_BYTES / 16);
    let mut names = Vec::new();
    for number in 0..2 * QUOTA_BYTES / FILLER_BYTES {
        let name = format!("filler-{number}");
        let map = ConfigMap {
            metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() },
            data: Some([("text".to_owned(), text.clone())].into()),
            ..ConfigMap::default()
        };
        match maps.create(&PostParams::default(), &map).await {
            Ok(_) => names.push(name),
            Err(kube::Error::Api(status)) if status.message.contains("space exceeded") => return Ok(names),
            Err(error) => return Err(error).context("fill etcd"),
        }
    }
    bail!("etcd has taken twice its quota");
}

#[tokio::test]
async fn a_full_etcd_is_waited_for_and_nothing_is_lost_or_done_twice() -> Result<()> {
    let quota = [format!("--quota-backend-bytes={QUOTA_BYTES}")];
    let builder = LocalCluster::builder().kwok(pool(GENERAL, 5, "32", 110));
    let cluster = builder.extra_args(Component::Etcd, quota).start().await?;
    cluster.install_crds().await?;
    let mut manager = Manager::start(&cluster, "manager", &["--no-leader-election"]).await?;
    manager.wait_ready().await?;
    let test = Testbed::new(&cluster, "space").await?;
    let spec = |tracking| BatchJobSpec {
        release: Release { completion_tracking: Some(tracking), ..Release::default() },
        ..BatchJobSpec::new(Task::endless().template())
    };
    test.submit_many("ended", JOBS, &spec(CompletionTracking::Strict)).await?;
    test.submit_many("lost", JOBS, &spec(CompletionTracking::AtLeastOnce)).await?;
    let (mut ended, mut lost) = (Vec::new(), Vec::new());
    for number in 0..JOBS {
        ended.push(test.running_pod(&format!("ended-{number}-0-0")).await?);
        lost.push(test.running_pod(&format!("lost-{number}-0-0")).await?);
    }

    // There is much to write: the outcome of each task of the one sort, a pod for each job of the other.
    manager.child().pause()?;
    for life in &ended {
        test.end_pod(life, 0).await?;
    }
    for life in &lost {
        test.force_delete(life).await?;
    }
    let maps: Api<ConfigMap> = test.api();
    let fillers = fill(&maps).await?;
    assert_eq!(cluster.etcd_alarms().await?, ["NOSPACE"]);
    let mark = cluster.audit_log()?.mark()?;
    manager.child().resume()?;
    let refused = || -> Result<WriteCount> {
        Ok(of_jobs(&cluster.audit_log()?.since(mark)?).filter(|request| request.code / 100 == 5))
    };
    let deadline = Instant::now() + PATIENCE;
    while refused()?.is_empty() {
        ensure!(Instant::now() < deadline, "no write of the manager is refused");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(FULL).await;
    let tried = of_jobs(&cluster.audit_log()?.since(mark)?);
    ensure!(most_for_one_job(&tried) <= TRIES, "it does not give an etcd that is full a rest:\n{tried}");
    ensure!(tried.successful().is_empty(), "etcd is not full:\n{tried}");
    ensure!(manager.child().is_running(), "it has given up");

    // Space again.
    let mark = cluster.audit_log()?.mark()?;
    for name in fillers {
        maps.delete(&name, &DeleteParams::default()).await.context("take away what fills etcd")?;
    }
    cluster.free_etcd().await?;
    ensure!(cluster.etcd_alarms().await?.is_empty(), "the alarm is still up");
    for life in &ended {
        test.completed(&life.job).await?;
        test.no_pods(&life.job).await?;
        test.pods.now().exactly_one_run(&life.job, 1)?;
    }
    for life in &lost {
        let again = test.running_again(life).await?;
        test.end_pod(&again, 0).await?;
        let status = test.completed(&life.job).await?.status.context("status")?;
        assert_eq!((status.succeeded, status.failed, status.disrupted), (1, 0, 1), "{}", life.job);
        test.no_pods(&life.job).await?;
    }
    let written = of_jobs(&cluster.audit_log()?.since(mark)?);
    ensure!(most_for_one_job(&written) <= CHAIN, "writes for one job, again and again:\n{written}");
    // A new one goes as quickly as ever.
    test.submit("next", BatchJobSpec::new(Task::quick().template())).await?;
    test.completed("next").await?;
    manager.stop()?;
    test.verify()
}
