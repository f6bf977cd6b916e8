//! What a BatchTaskProfile learns from pods that KWOK plays, on a real control plane, and what later jobs get of it. All
//! tests share one cluster and one manager; each has a namespace.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail as a test does")]

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use springtide_crds::batch_job::{
    AdmittedReason, BatchJob, BatchJobSpec, FailedReason, JobProfile, PodTemplate, QueuedReason, StopPolicy,
};
use springtide_crds::batch_queue::{BatchQueueSpec, QuotaRow};
use springtide_crds::batch_task_profile::{
    BatchTaskProfile, BatchTaskProfileSpec, MAX_PER_NAMESPACE, ProfileMode, ReadyReason, StalledReason,
};
use springtide_crds::common::{Quantity, condition};
use springtide_crds::reason::Reason;
use springtide_e2e::batch::profiles::{self, profile, says};
use springtide_e2e::batch::{Task, Testbed, queues, shared};
use springtide_e2e::manager::USER_AGENT;

/// Runs until a profile draws conclusions.
const ENOUGH: u32 = 20;
/// Distance between two writes of a profile's status, in seconds.
const CHECKPOINT: i64 = 60;

/// A job of so many tasks with this key.
fn job(template: PodTemplate, tasks: u32, key: &str, mode: Option<ProfileMode>) -> BatchJobSpec {
    BatchJobSpec {
        completions: tasks,
        parallelism: tasks,
        profile: Some(JobProfile { key: Some(key.to_owned()), mode }),
        ..BatchJobSpec::new(template)
    }
}

/// The template of a task with these resources.
fn with_resources(task: &Task, resources: &Value) -> PodTemplate {
    task.template_with(|template| template["spec"]["containers"][0]["resources"] = resources.clone())
}

fn samples(profile: &BatchTaskProfile) -> u32 {
    profile.status.as_ref().map_or(0, |status| status.samples)
}

fn requests(pod: &Pod) -> Value {
    json!(pod.spec.as_ref().unwrap().containers[0].resources)["requests"].clone()
}

fn mebibytes(quantity: Option<&String>) -> u64 {
    quantity.and_then(|text| text.strip_suffix("Mi")).unwrap().parse().unwrap()
}

fn millis(quantity: Option<&String>) -> u64 {
    quantity.and_then(|text| text.strip_suffix('m')).unwrap().parse().unwrap()
}

/// Trains a profile by twenty runs that say what they use.
async fn trained(test: &Testbed<'_>, key: &str) -> Result<BatchTaskProfile> {
    let task = Task {
        run_seconds: "2".into(),
        message: Some("12 rows\nusage: cpu=70m memory=96Mi".to_owned()),
        ..Task::quick()
    };
    let name = format!("train-{key}");
    test.submit(&name, job(task.template(), ENOUGH, key, None)).await?;
    test.completed(&name).await?;
    let learned = profile(test, key, "learned", |profile| says(profile, &ReadyReason::Learned)).await?;
    // The manager has written it, and hears of that as of all else: a job may come to it sooner.
    profiles::create(test, &format!("after-{key}")).await?;
    Ok(learned)
}

#[tokio::test]
async fn runs_teach_by_their_time_their_exit_and_what_they_say() -> Result<()> {
    let test = Testbed::new(shared().await?, "learn").await?;
    // What fails tells nothing of how long a run takes, nor of what it needs.
    let failing = BatchJobSpec {
        backoff_limit: Some(0),
        ..job(Task { run_seconds: "20".into(), ..Task::failing(1) }.template(), 1, "etl", None)
    };
    test.submit("fails", failing).await?;
    let made =
        profile(&test, "etl", "made at the first use", |profile| says(profile, &ReadyReason::TooFewSamples))
            .await?;
    ensure!(made.spec == BatchTaskProfileSpec::default(), "{:?}", made.spec);
    let status = trained(&test, "etl").await?.status.context("a status")?;
    test.failed("fails", FailedReason::BackoffLimitExceeded).await?;
    assert_eq!((status.samples, status.oom_kills), (ENOUGH, 0));
    let run_time = status.run_time.context("run times")?;
    // KWOK ends a pod after its time and no sooner; of a start only the second is told.
    assert!(run_time.p50_seconds >= 1 && run_time.p50_seconds <= run_time.p95_seconds, "{run_time:?}");
    let recommended = &status.containers[0].recommended;
    // 15 % more, and at most the width of a bucket above.
    assert!((110..=128).contains(&mebibytes(recommended.memory.as_ref())), "{recommended:?}");
    assert!((80..=90).contains(&millis(recommended.cpu.as_ref())), "{recommended:?}");

    // A kill for want of memory is a sample of the memory at which it came, and of no run time.
    let killed = Task { reason: Some("OOMKilled".to_owned()), ..Task::failing(137) };
    let killed = with_resources(&killed, &json!({"limits": {"memory": "400Mi"}}));
    let once = BatchJobSpec { backoff_limit: Some(0), ..job(killed, 1, "etl", None) };
    test.submit("killed", once).await?;
    test.failed("killed", FailedReason::BackoffLimitExceeded).await?;
    let told = profile(&test, "etl", "told of the kill", |profile| {
        profile.status.as_ref().is_some_and(|status| status.oom_kills == 1)
    })
    .await?;
    assert_eq!(samples(&told), ENOUGH + 1, "what failed otherwise is no sample");

    // Another task under the key teaches nothing, and is told.
    let other =
        Task::quick().template_with(|template| template["spec"]["containers"][0]["name"] = json!("app"));
    test.submit("other", job(other, 1, "etl", None)).await?;
    test.completed("other").await?;
    let stalled =
        profile(&test, "etl", "stalled", |profile| says(profile, &StalledReason::ContainerMismatch)).await?;
    assert_eq!(samples(&stalled), ENOUGH + 1);
    test.verify()
}

#[tokio::test]
async fn initial_fills_in_auto_replaces_and_the_queue_speaks_for_those_that_say_nothing() -> Result<()> {
    let test = Testbed::new(shared().await?, "apply").await?;
    let queue = BatchQueueSpec {
        quota: vec![QuotaRow { resource: "cpu".to_owned(), nominal: Quantity::new("200m"), max: None }],
        default_profile_mode: ProfileMode::Auto,
        ..BatchQueueSpec::new()
    };
    let learned = trained(&test, "etl").await?;
    let recommended = learned.status.context("a status")?.containers[0].recommended.clone();

    // With a queue in the namespace each job says in which it is; these are in none of quota.
    queues::open(&test, "default", BatchQueueSpec::new()).await?;
    let bare = json!({});
    let own = json!({"requests": {"cpu": "50m", "memory": "40Mi"}, "limits": {"memory": "100Mi"}});
    for (name, resources, mode, expected) in [
        ("fills", &bare, Some(ProfileMode::Initial), json!(recommended)),
        ("keeps", &own, Some(ProfileMode::Initial), json!({"cpu": "50m", "memory": "40Mi"})),
        ("replaces", &own, Some(ProfileMode::Auto), json!({"cpu": recommended.cpu, "memory": "100Mi"})),
        ("observes", &own, None, json!({"cpu": "50m", "memory": "40Mi"})),
    ] {
        test.submit(name, job(with_resources(&Task::endless(), resources), 1, "etl", mode)).await?;
        test.running(name, 1).await?;
        let pod = test.api::<Pod>().get(&format!("{name}-0-0")).await?;
        assert_eq!(requests(&pod), expected, "{name}");
        assert_eq!(pod.metadata.labels.unwrap_or_default()["springtide.dev/profile"], "etl", "{name}");
    }
    let told = |job: &BatchJob| job.status.as_ref().is_some_and(|status| status.profile.is_some());
    let status = test.job("fills", "told what it got", told).await?.status.context("a status")?;
    let given = status.profile.context("a profile")?;
    assert_eq!((given.samples, &given.applied), (ENOUGH, &recommended));
    let admitted = condition(&status.conditions, AdmittedReason::CONDITION).context("Admitted")?;
    assert!(admitted.message.contains("profile etl, p95+15% of 20 runs: main cpu"), "{admitted:?}");
    let observes = test.job("observes", "its status", |job| job.status.is_some()).await?;
    assert_eq!(observes.status.context("a status")?.profile, None);

    // The quota counts what the pods really request: of what the template says there would be room for four.
    queues::open(&test, "reports", queue).await?;
    let silent = BatchJobSpec {
        queue_name: Some("reports".to_owned()),
        ..job(with_resources(&Task::endless(), &own), 4, "etl", None)
    };
    test.submit("silent", silent).await?;
    test.reason("silent", QueuedReason::QuotaExceeded).await?;
    let running = test.running("silent", 2).await?;
    let pod = test.api::<Pod>().get(&running[0].name).await?;
    assert_eq!(requests(&pod), json!({"cpu": recommended.cpu, "memory": "100Mi"}));

    // The profile has the last word, at once.
    let profiles = test.api::<BatchTaskProfile>();
    let ceiling = Patch::Merge(json!({"spec": {"maxMode": "Observe"}}));
    profiles.patch("etl", &PatchParams::default(), &ceiling).await?;
    profile(&test, "etl", "heard", |profile| {
        profile.status.as_ref().is_some_and(|status| status.observed_generation == 2)
    })
    .await?;
    let auto = job(with_resources(&Task::endless(), &own), 1, "etl", Some(ProfileMode::Auto));
    test.submit("held-back", auto).await?;
    test.running("held-back", 1).await?;
    let pod = test.api::<Pod>().get("held-back-0-0").await?;
    assert_eq!(requests(&pod), json!({"cpu": "50m", "memory": "40Mi"}));
    test.verify()
}

#[tokio::test]
async fn however_many_runs_there_are_a_status_is_written_once_a_minute() -> Result<()> {
    const ROUNDS: u32 = 30;
    let test = Testbed::new(shared().await?, "rate").await?;
    let began = Timestamp::now();
    let busy = BatchJobSpec { parallelism: 4, ..job(Task::quick().template(), 4 * ROUNDS, "busy", None) };
    test.submit("busy", busy).await?;
    // Small ones too, whose ends come apart.
    for round in 0..ROUNDS {
        test.submit(&format!("small-{round}"), job(Task::quick().template(), 1, "busy", None)).await?;
        test.completed(&format!("small-{round}")).await?;
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    test.completed("busy").await?;
    profile(&test, "busy", "told of every run", |profile| samples(profile) == 5 * ROUNDS).await?;
    let requests = test.requests()?.writes().by_agent(USER_AGENT).successful();
    let writes = requests.filter(|request| request.resource == "batchtaskprofiles/status");
    let minutes = Timestamp::now().duration_since(began).as_secs() / CHECKPOINT;
    // One at once, and one at each full minute since.
    let most = usize::try_from(1 + minutes)?;
    ensure!(!writes.is_empty() && writes.len() <= most, "{minutes} minutes:\n{writes}");
    let made = requests.filter(|request| request.resource == "batchtaskprofiles");
    ensure!(made.len() == 1, "it is made once:\n{made}");
    test.verify()
}

#[tokio::test]
async fn beyond_the_declared_maximum_no_profile_is_made_and_jobs_run_as_they_are() -> Result<()> {
    let test = Testbed::new(shared().await?, "many").await?;
    let profiles = test.api::<BatchTaskProfile>();
    stream::iter(0..MAX_PER_NAMESPACE)
        .map(|number| {
            let profile = BatchTaskProfile::new(&format!("p-{number}"), BatchTaskProfileSpec::default());
            let profiles = profiles.clone();
            async move { profiles.create(&PostParams::default(), &profile).await.map(drop) }
        })
        .buffer_unordered(16)
        .try_collect::<()>()
        .await?;
    // That the last one has a status says that the manager knows of all of them.
    for number in 0..MAX_PER_NAMESPACE {
        profile(&test, &format!("p-{number}"), "seen", |profile| says(profile, &ReadyReason::TooFewSamples))
            .await?;
    }
    let spec = job(Task::quick().template(), 1, "one-more", Some(ProfileMode::Initial));
    test.submit("one-more", spec).await?;
    test.completed("one-more").await?;
    let names = async || -> Result<BTreeMap<String, Option<String>>> {
        let listed = profiles.list(&ListParams::default()).await?.items;
        let name =
            |profile: BatchTaskProfile| (profile.metadata.name.unwrap_or_default(), profile.metadata.uid);
        Ok(listed.into_iter().map(name).collect())
    };
    ensure!(!names().await?.contains_key("one-more"));
    // With room again the next job of the key makes it, once the manager knows of the room.
    for name in ["p-0", "p-1"] {
        profiles.delete(name, &kube::api::DeleteParams::default()).await?;
    }
    profiles::create(&test, "later").await?;
    let held = BatchJobSpec {
        stop_policy: StopPolicy::Hold,
        ..job(Task::quick().template(), 1, "one-more", Some(ProfileMode::Initial))
    };
    test.submit("held", held).await?;
    profile(&test, "one-more", "made", |_| true).await?;
    ensure!(names().await?.len() == MAX_PER_NAMESPACE as usize);
    test.verify()
}
