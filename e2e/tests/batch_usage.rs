//! Profiles learn from containers that really run: what tasks say of themselves, what the metrics server measures
//! of those that say nothing, and what later jobs get of it.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail as a test does")]

use anyhow::Result;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use springtide_crds::batch_job::{BatchJobSpec, JobProfile, PodTemplate};
use springtide_crds::batch_task_profile::{BatchTaskProfile, ProfileMode, ReadyReason, RecommendedRequests};
use springtide_crds::common::condition;
use springtide_crds::reason::Reason;
use springtide_e2e::batch::Testbed;
use springtide_e2e::batch::profiles::{self, profile, says};
use springtide_e2e::manager::Manager;
use springtide_e2e::node::metrics_server::MetricsServer;
use springtide_e2e::node::program::BOX_IMAGE;
use springtide_e2e::node::{NodeCluster, required_or_skipped};
use springtide_e2e::rights;

/// Runs until a profile draws conclusions.
const ENOUGH: u32 = 20;

fn task(args: &[&str], resources: Value) -> PodTemplate {
    let container = json!({"name": "main", "image": BOX_IMAGE, "args": args, "resources": resources});
    PodTemplate(json!({"spec": {"containers": [container]}}).as_object().unwrap().clone())
}

fn small() -> Value {
    json!({"requests": {"cpu": "10m", "memory": "32Mi"}})
}

/// So many runs, four at a time.
fn runs(template: PodTemplate, count: u32, parallelism: u32, key: &str, mode: ProfileMode) -> BatchJobSpec {
    BatchJobSpec {
        completions: count,
        parallelism,
        profile: Some(JobProfile { key: Some(key.to_owned()), mode: Some(mode) }),
        ..BatchJobSpec::new(template)
    }
}

fn is_learned(profile: &BatchTaskProfile) -> bool {
    says(profile, &ReadyReason::Learned)
}

fn mebibytes(quantity: Option<&String>) -> u64 {
    quantity.and_then(|text| text.strip_suffix("Mi")).unwrap().parse().unwrap()
}

fn millicores(quantity: Option<&String>) -> u64 {
    quantity.and_then(|text| text.strip_suffix('m')).unwrap().parse().unwrap()
}

fn requests(pod: &Pod) -> Value {
    json!(pod.spec.as_ref().unwrap().containers[0].resources)["requests"].clone()
}

#[tokio::test]
async fn what_tasks_say_and_what_is_measured_becomes_the_requests_of_later_ones() -> Result<()> {
    if !required_or_skipped().await? {
        return Ok(());
    }
    let cluster = NodeCluster::builder().start().await?;
    let plane = cluster.control_plane();
    plane.install_crds().await?;
    let metrics = MetricsServer::start(&cluster).await?;
    // What it may not list it would take for what is not served.
    let manager = rights::manager(plane, "manager").await?;
    let test = Testbed::new(plane, "usage").await?;

    let says = ["exit", "0", "12 rows\nusage: cpu=70m memory=96Mi"];
    test.submit("says", runs(task(&says, small()), ENOUGH, 4, "says", ProfileMode::Observe)).await?;
    // Measured every ten seconds, and the manager looks every fifteen: some of both may be late.
    let silent = ["burn", "24Mi", "90"];
    let slowed = json!({"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"cpu": "40m"}});
    test.submit("silent", runs(task(&silent, slowed), ENOUGH, 10, "silent", ProfileMode::Observe)).await?;
    test.completed("says").await?;
    let learned = profile(&test, "says", "learned", is_learned).await?.status.unwrap();
    assert_eq!(learned.samples, ENOUGH);
    let recommended = &learned.containers[0].recommended;
    // The percentile with 15 %, and at most the width of a bucket more.
    assert!((110..=128).contains(&mebibytes(recommended.memory.as_ref())), "{recommended:?}");
    assert!(recommended.cpu.as_ref().is_some_and(|cpu| cpu.ends_with('m')), "{recommended:?}");

    // The manager has written what it learned, and hears of that as of all else: a job may come to it sooner.
    profiles::create(&test, "after").await?;

    // A job without requests gets them, one with requests keeps them, one that asks for Auto loses them.
    let bare = json!({});
    let own = json!({"requests": {"cpu": "50m", "memory": "40Mi"}, "limits": {"memory": "100Mi"}});
    for (name, resources, mode) in [
        ("fills", &bare, ProfileMode::Initial),
        ("keeps", &own, ProfileMode::Initial),
        ("replaces", &own, ProfileMode::Auto),
    ] {
        let waits = ["sleep", "100000"];
        test.submit(name, runs(task(&waits, resources.clone()), 1, 1, "says", mode)).await?;
        test.running(name, 1).await?;
    }
    let pods = test.api::<Pod>();
    assert_eq!(requests(&pods.get("fills-0-0").await?), json!(recommended));
    assert_eq!(requests(&pods.get("keeps-0-0").await?), json!({"cpu": "50m", "memory": "40Mi"}));
    let replaced = requests(&pods.get("replaces-0-0").await?);
    assert_eq!(replaced, json!({"cpu": recommended.cpu, "memory": "100Mi"}), "not above its limit");
    let filled = test
        .job("fills", "told what it got", |job| {
            job.status.as_ref().is_some_and(|status| status.profile.is_some())
        })
        .await?;
    let status = filled.status.unwrap();
    assert_eq!(status.profile.unwrap().applied, *recommended);
    let admitted = condition(&status.conditions, "Admitted").unwrap();
    assert!(admitted.message.contains("profile says"), "{admitted:?}");
    for name in ["fills", "keeps", "replaces"] {
        test.delete(name).await?;
        test.gone(name).await?;
    }

    test.completed("silent").await?;
    let known = |profile: &BatchTaskProfile| {
        let rows = profile.status.iter().flat_map(|status| &status.containers);
        let is_known =
            |recommended: &RecommendedRequests| recommended.cpu.is_some() && recommended.memory.is_some();
        is_learned(profile) && rows.into_iter().any(|row| is_known(&row.recommended))
    };
    let measured = profile(&test, "silent", "measured", known).await?.status.unwrap();
    let recommended = &measured.containers[0].recommended;
    let memory = mebibytes(recommended.memory.as_ref());
    assert!((24..=64).contains(&memory), "24Mi and the program itself: {memory}");
    // The start of an idle one takes some 10m of the first seconds. Of the limit there are 15 % more, the width of a
    // bucket, and what a measure of a few seconds is off.
    let cpu = millicores(recommended.cpu.as_ref());
    assert!((20..=70).contains(&cpu), "its limit is 40m: {cpu}");
    let run_time = measured.run_time.unwrap();
    assert!(run_time.p50_seconds >= 90, "{run_time:?}");
    manager.stop()?;
    metrics.stop()?;
    rights::nothing_forbidden(plane)?;
    test.verify()?;
    drop(test);
    cluster.stop()
}

#[tokio::test]
async fn without_a_metrics_server_profiles_learn_the_rest_and_say_so() -> Result<()> {
    if !required_or_skipped().await? {
        return Ok(());
    }
    let cluster = NodeCluster::builder().start().await?;
    let plane = cluster.control_plane();
    plane.install_crds().await?;
    let mut manager = Manager::start(plane, "manager", &[]).await?;
    manager.wait_ready().await?;
    let test = Testbed::new(plane, "unmeasured").await?;
    // Long enough for a look at an API that is not there.
    test.submit("silent", runs(task(&["sleep", "20"], small()), ENOUGH, 10, "silent", ProfileMode::Observe))
        .await?;
    test.completed("silent").await?;
    let learned = profile(&test, "silent", "learned", is_learned).await?.status.unwrap();
    assert!(learned.run_time.unwrap().p95_seconds >= 20);
    assert!(learned.containers[0].recommended.is_empty());
    let ready = condition(&learned.conditions, ReadyReason::CONDITION).unwrap();
    assert!(ready.message.contains("metrics.k8s.io is not served"), "{ready:?}");

    // A kill for want of memory is learned from without anybody measuring it.
    let limit = json!({"requests": {"memory": "32Mi"}, "limits": {"memory": "48Mi"}});
    let hungry = BatchJobSpec {
        backoff_limit: Some(0),
        ..runs(task(&["alloc", "256Mi"], limit), 1, 1, "hungry", ProfileMode::Observe)
    };
    test.submit("hungry", hungry).await?;
    let killed = profile(&test, "hungry", "told of the kill", |profile| {
        profile.status.as_ref().is_some_and(|status| status.oom_kills > 0)
    });
    assert_eq!(killed.await?.status.unwrap().samples, 1);
    manager.stop()?;
    test.verify()?;
    drop(test);
    cluster.stop()
}
