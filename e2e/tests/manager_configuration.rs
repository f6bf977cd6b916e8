//! The configuration file of a real manager on a real API server: what is refused at the start, what
//! changes while it runs, and what its settings of queues do.

// Helpers of tests fail the test, as tests do.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use springtide_crds::batch_job::{BatchJobSpec, DegradedReason, QueuedReason, StalledReason};
use springtide_crds::batch_queue::{BatchQueueSpec, DEFAULT_QUEUE, QuotaRow};
use springtide_crds::common::Quantity;
use springtide_e2e::batch::{self, Task, Testbed, queues};
use springtide_e2e::local_cluster::LocalCluster;
use springtide_e2e::manager::{Manager, springtide_binary};
use springtide_e2e::polling;
use tokio::sync::OnceCell;

const HEAD: &str = "apiVersion: config.springtide.dev/v1alpha1\nkind: ManagerConfiguration\n";
/// Bound on everything that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

fn write(cluster: &LocalCluster, name: &str, rest: &str) -> PathBuf {
    let path = cluster.folder().join(name);
    // Another file in its place, as a kubelet does it: nobody reads half of one.
    let new = path.with_extension("new");
    std::fs::write(&new, format!("{HEAD}{rest}")).unwrap();
    std::fs::rename(&new, &path).unwrap();
    path
}

#[tokio::test]
async fn a_bad_configuration_is_refused_at_the_start_by_field_and_remedy() {
    let cluster = LocalCluster::shared().await.unwrap();
    let path = write(cluster, "bad.yaml", "controllers: {batchJob: {workers: 0}}\n");
    let output = tokio::process::Command::new(springtide_binary().await.unwrap())
        .args(["manager", "--config"])
        .arg(&path)
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    let wanted = format!(
        "springtide: --config {}: controllers.batchJob.workers must be 1 to 256, is 0\n",
        path.display()
    );
    assert_eq!(said, wanted);
}

#[tokio::test]
async fn a_changed_file_is_applied_while_the_manager_runs_and_a_bad_one_is_not() {
    let cluster = LocalCluster::shared().await.unwrap();
    cluster.install_crds().await.unwrap();
    let path = write(cluster, "live.yaml", "leaderElection: {enabled: false}\n");
    let args = ["--config", path.to_str().unwrap()];
    let mut manager = Manager::start(cluster, "manager-configuration", &args).await.unwrap();
    manager.wait_ready().await.unwrap();
    assert_eq!(figure(&manager, "springtide_write_budget_tokens{bucket=\"process\"").await, 600.0);
    assert_eq!(figure(&manager, "springtide_config_last_reload_successful").await, 1.0);

    let smaller = "leaderElection: {enabled: false}\nwriteBudget: {process: {rate: 10, burst: 50}}\n";
    write(cluster, "live.yaml", smaller);
    until(&manager, "springtide_write_budget_tokens{bucket=\"process\"", 50.0).await;
    until(&manager, "springtide_config_reloads_total{result=\"success\"", 1.0).await;

    write(cluster, "live.yaml", &smaller.replace("burst: 50", "burst: 0"));
    until(&manager, "springtide_config_last_reload_successful", 0.0).await;
    assert_eq!(figure(&manager, "springtide_config_reloads_total{result=\"failure\"").await, 1.0);
    assert_eq!(figure(&manager, "springtide_write_budget_tokens{bucket=\"process\"").await, 50.0);

    write(cluster, "live.yaml", &format!("{smaller}health: {{address: '127.0.0.1:1'}}\n"));
    until(&manager, "springtide_config_last_reload_successful", 1.0).await;
    let log = std::fs::read_to_string(cluster.folder().join("manager-configuration.log")).unwrap();
    // The address is overridden by an option, so it does not wait for a restart.
    assert!(!log.contains("wait for a restart"), "{log}");
    assert!(log.contains("writeBudget.process.burst must be 1 to 1000000, is 0"), "{log}");

    write(cluster, "live.yaml", &format!("{smaller}controllers: {{batchJob: {{workers: 3}}}}\n"));
    until(&manager, "springtide_config_reloads_total{result=\"success\"", 3.0).await;
    let log = std::fs::read_to_string(cluster.folder().join("manager-configuration.log")).unwrap();
    let waits = log.lines().find(|line| line.contains("wait for a restart")).unwrap();
    assert!(waits.contains(r#""fields":"controllers.batchJob.workers""#), "{waits}");
    assert!(manager.stop().unwrap().success());
}

/// The first sample whose name and labels begin so.
async fn figure(manager: &Manager, begin: &str) -> f64 {
    let text = manager.metrics().await.unwrap();
    let line = text.lines().find(|line| line.starts_with(begin)).unwrap_or_else(|| panic!("{begin}: {text}"));
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

async fn until(manager: &Manager, begin: &str, wanted: f64) {
    let what = format!("{begin} is {wanted}");
    let comes =
        polling::until(PATIENCE, &what, async || Ok((figure(manager, begin).await == wanted).then_some(())));
    comes.await.unwrap();
}

static WITH_QUEUES: OnceCell<(LocalCluster, Manager)> = OnceCell::const_new();

/// A cluster whose manager has no built-in queue, and joins cohorts over all namespaces.
async fn with_queues() -> Result<&'static LocalCluster> {
    let (cluster, _) = WITH_QUEUES
        .get_or_try_init(async || {
            let cluster = batch::cluster().await?;
            let settings = "settings: {builtInQueue: Disabled, cohortScope: Cluster}";
            let path =
                write(&cluster, "queues.yaml", &format!("controllers: {{batchJob: {{{settings}}}}}\n"));
            let args = ["--config", path.to_str().context("a path in UTF-8")?];
            let mut manager = Manager::start(&cluster, "manager", &args).await?;
            manager.wait_ready().await?;
            Ok::<_, anyhow::Error>((cluster, manager))
        })
        .await?;
    Ok(cluster)
}

#[tokio::test]
async fn in_a_cohort_of_the_whole_cluster_one_namespace_lends_to_another_and_has_it_back() -> Result<()> {
    let cluster = with_queues().await?;
    let borrower = Testbed::new(cluster, "borrower").await?;
    let lender = Testbed::new(cluster, "lender").await?;
    let half = Quantity::new("500m");
    for test in [&borrower, &lender] {
        let max = Some(Quantity::new("1"));
        let quota = vec![QuotaRow { resource: "cpu".to_owned(), nominal: half.clone(), max }];
        let cohort = Some("everywhere".to_owned());
        queues::open(test, DEFAULT_QUEUE, BatchQueueSpec { cohort, quota, ..BatchQueueSpec::new() }).await?;
    }
    let task = Task { cpu: "500m".into(), ..Task::endless() };
    let wide =
        |tasks| BatchJobSpec { completions: tasks, parallelism: tasks, ..BatchJobSpec::new(task.template()) };
    borrower.submit("job", wide(3)).await?;
    borrower.running("job", 2).await?;
    queues::queue(&borrower, DEFAULT_QUEUE, "that it borrows", |queue| {
        queue.status.as_ref().is_some_and(|status| status.borrowed.get("cpu") == Some(&half))
    })
    .await?;
    lender.submit("job", wide(1)).await?;
    lender.running("job", 1).await?;
    borrower.running("job", 1).await?;
    borrower.reason("job", DegradedReason::Reclaimed).await?;
    for test in [borrower, lender] {
        test.delete("job").await?;
        test.gone("job").await?;
        test.verify()?;
    }
    Ok(())
}

#[tokio::test]
async fn without_the_built_in_queue_a_job_waits_until_there_is_one() -> Result<()> {
    let test = Testbed::new(with_queues().await?, "queueless").await?;
    test.submit("job", BatchJobSpec::new(Task::quick().template())).await?;
    test.reason("job", QueuedReason::QueueNameRequired).await?;
    test.reason("job", StalledReason::QueueNameRequired).await?;
    ensure!(test.pods.now().of("job").is_empty(), "it has started in no queue");
    queues::create(&test, DEFAULT_QUEUE, BatchQueueSpec::new()).await?;
    let job = test.completed("job").await?;
    ensure!(job.status.context("a status")?.queue.as_deref() == Some(DEFAULT_QUEUE));
    test.verify()
}
