//! Runs that meet others' writes, and runs that do not come to their end.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use springtide_crds::common::IntOrPercent;
use springtide_crds::in_place_upgrade::{HeldReason, ReadyReason, RunResult, StalledReason};
use springtide_e2e::kwok::{IMAGE_OUTCOMES, ImageOutcome, RESTART_SECONDS, image_outcomes};
use springtide_e2e::upgrade::cost::writes_by_pod;
use springtide_e2e::upgrade::{RECORD, Testbed, Workload, image, native, shared};

/// Between two writes of somebody who always has something to say of a pod.
const NOISE: Duration = Duration::from_millis(50);
/// Long enough that a test comes in between.
pub(crate) const SLOW: &str = "3";

#[tokio::test]
async fn a_pod_that_others_write_all_the_time_is_neither_passed_over_nor_changed_twice() -> Result<()> {
    let test = Testbed::new(shared().await?, "noise").await?;
    let web = Workload::deployment("web", 4);
    let before = test.start_paused(&web).await?;
    let api: Api<Pod> = test.api();
    let names: Vec<String> = before.keys().cloned().collect();
    let noise = tokio::spawn(async move {
        for round in 0_u64.. {
            for name in &names {
                let patch = Patch::Merge(json!({"metadata": {"annotations": {"noise": round.to_string()}}}));
                // Whoever only makes noise may be refused.
                let _ = api.patch(name, &PatchParams::default(), &patch).await;
            }
            tokio::time::sleep(NOISE).await;
        }
    });
    test.set_image(&web, &image(2)).await?;
    let mark = test.mark()?;
    let mut spec = web.upgrade();
    spec.strategy.max_unavailable = IntOrPercent::ALL;
    test.upgrade("web", spec).await?;
    let succeeded = test.succeeded("web", "").await;
    noise.abort();
    succeeded?;
    test.pods.now().ensure_same("web", &before)?;
    for life in test.pods.now().of("web") {
        ensure!((life.restarts(), life.drains) == (1, 1), "{}: {:?}", life.name(), life.images);
    }
    // What was refused is sent again; what was taken is not.
    let taken = writes_by_pod(&test.requests_since(mark)?.successful());
    for (name, writes) in taken {
        let patches = writes.iter().filter(|resource| *resource == "pods").count();
        ensure!(patches == 1, "{name}: {writes:?}");
    }
    test.verify()
}

#[tokio::test]
async fn what_another_run_has_left_on_a_pod_or_nobody_understands_is_ignored() -> Result<()> {
    let test = Testbed::new(shared().await?, "left").await?;
    let web = Workload::deployment("web", 3);
    let before = test.start_paused(&web).await?;
    let earlier =
        json!({"run": "000000000000", "at": "2020-01-01T00:00:00Z", "g": 1, "base": {}}).to_string();
    for (name, left) in before.keys().zip([&*earlier, "{damaged", "7"]) {
        test.annotate(name, json!({RECORD: left})).await?;
    }
    test.set_image(&web, &image(2)).await?;
    test.upgrade("web", web.upgrade()).await?;
    test.succeeded("web", "").await?;
    native::agrees(&test, &web).await?;
    test.pods.now().ensure_same("web", &before)?;
    for life in test.pods.now().of("web") {
        ensure!(life.runs(&image(2)) && (life.restarts(), life.drains) == (1, 1), "{life:?}");
    }
    test.verify()
}

#[tokio::test]
async fn a_pause_in_mid_run_lets_what_is_in_flight_come_to_rest() -> Result<()> {
    let test = Testbed::new(shared().await?, "pause").await?;
    let web = Workload::deployment("web", 5).annotated(RESTART_SECONDS, SLOW);
    let before = test.start_paused(&web).await?;
    test.set_image(&web, &image(2)).await?;
    test.upgrade("web", web.one_by_one()).await?;
    test.under_way(&web, &image(2)).await?;
    test.edit("web", json!({"spec": {"mode": "Paused"}})).await?;
    test.told("web", HeldReason::Paused).await?;
    test.told("web", ReadyReason::Paused).await?;
    test.all_in_traffic(&web).await?;
    native::is_idle(&test).await?;
    let (old, new) = {
        let pods = test.pods.now();
        let count = |image: &str| pods.of("web").iter().filter(|life| life.runs(image)).count();
        (count(&image(1)), count(&image(2)))
    };
    ensure!(old > 0 && new > 0 && old + new == 5, "{old} and {new}");
    test.edit("web", json!({"spec": {"mode": "Apply"}})).await?;
    test.succeeded("web", "").await?;
    test.pods.now().ensure_same("web", &before)?;
    test.verify()
}

#[tokio::test]
async fn an_upgrade_that_is_deleted_in_mid_run_leaves_every_pod_in_traffic() -> Result<()> {
    let test = Testbed::new(shared().await?, "deleted").await?;
    let web = Workload::deployment("web", 4).annotated(RESTART_SECONDS, SLOW);
    let before = test.start_paused(&web).await?;
    test.set_image(&web, &image(2)).await?;
    test.upgrade("web", web.one_by_one()).await?;
    test.under_way(&web, &image(2)).await?;
    test.delete("web").await?;
    test.all_in_traffic(&web).await?;
    native::is_idle(&test).await?;
    test.pods.now().ensure_same("web", &before)?;
    let deployment = native::object(&test, &web).await?;
    ensure!(deployment["spec"]["paused"] == true, "the pause is the user's");
    let unfinished = test.pods.now().of("web").iter().filter(|life| life.runs(&image(1))).count();
    ensure!(unfinished > 0, "it was over before");

    // Another one goes on where that one was.
    test.upgrade("again", web.upgrade()).await?;
    test.succeeded("again", "").await?;
    native::agrees(&test, &web).await?;
    ensure!(test.pods.now().of("web").iter().all(|life| life.restarts() == 1));
    test.verify()
}

#[tokio::test]
async fn another_wish_in_mid_run_takes_the_place_of_the_first() -> Result<()> {
    let test = Testbed::new(shared().await?, "superseded").await?;
    let web = Workload::deployment("web", 4).annotated(RESTART_SECONDS, SLOW);
    let before = test.start_paused(&web).await?;
    test.set_image(&web, &image(2)).await?;
    test.upgrade("web", web.one_by_one()).await?;
    test.under_way(&web, &image(2)).await?;
    let first = test.target_hash("web");
    test.set_image(&web, &image(3)).await?;
    test.succeeded("web", &first).await?;
    native::agrees(&test, &web).await?;
    test.running(&web, &image(3), 4).await?;
    test.all_in_traffic(&web).await?;
    test.pods.now().ensure_same("web", &before)?;
    let changes = test.pods.now().changes().len();
    ensure!((5..8).contains(&changes), "some were changed once, some twice: {changes}");
    test.verify()
}

#[tokio::test]
async fn a_wish_that_is_taken_back_in_mid_run_is_undone_where_it_was_done() -> Result<()> {
    let test = Testbed::new(shared().await?, "reverted").await?;
    let web = Workload::deployment("web", 4).annotated(RESTART_SECONDS, SLOW);
    let before = test.start_paused(&web).await?;
    test.set_image(&web, &image(2)).await?;
    test.upgrade("web", web.one_by_one()).await?;
    test.under_way(&web, &image(2)).await?;
    let first = test.target_hash("web");
    test.set_image(&web, &image(1)).await?;
    test.another_wish("web", &first).await?;
    test.told("web", ReadyReason::UpToDate).await?;
    native::agrees(&test, &web).await?;
    test.running(&web, &image(1), 4).await?;
    test.all_in_traffic(&web).await?;
    test.pods.now().ensure_same("web", &before)?;
    ensure!(native::replica_sets(&test, "web").await?.len() == 1, "nothing has become of it");
    let untouched = test.pods.now().of("web").iter().filter(|life| life.restarts() == 0).count();
    ensure!(untouched > 0, "those that had not begun have nothing to undo");
    test.verify()
}

#[tokio::test]
async fn a_run_that_fails_is_rolled_back_and_not_tried_again_before_somebody_says_so() -> Result<()> {
    let test = Testbed::new(shared().await?, "rollback").await?;
    let web = Workload::deployment("web", 4);
    let before = test.start_paused(&web).await?;
    let missing = image_outcomes(&[(&image(2), ImageOutcome::Missing)]);
    for name in before.keys().skip(1) {
        test.annotate(name, json!({IMAGE_OUTCOMES: missing})).await?;
    }
    test.set_image(&web, &image(2)).await?;
    let mut spec = web.one_by_one();
    spec.health.failure_threshold = IntOrPercent::Int(0);
    test.upgrade("web", spec).await?;
    test.told("web", StalledReason::RolledBack).await?;
    let upgrade = test.told("web", ReadyReason::RolledBack).await?;
    test.running(&web, &image(1), 4).await?;
    test.all_in_traffic(&web).await?;
    let status = upgrade.status.context("a status")?;
    let hash = status.target_hash.clone();
    let run = status.last_run.context("the run")?;
    ensure!(run.result == RunResult::RolledBack && run.target_hash == hash);
    ensure!(native::replica_sets(&test, "web").await?.len() == 1);

    let mark = test.mark()?;
    native::is_idle(&test).await?;
    let writes = writes_by_pod(&test.requests_since(mark)?);
    ensure!(writes.is_empty(), "the same wish is tried again: {writes:?}");
    // Somebody pushes the image, and says so.
    for name in before.keys() {
        test.annotate(name, json!({IMAGE_OUTCOMES: null})).await?;
    }
    test.edit("web", json!({"spec": {"attempt": 1}})).await?;
    test.succeeded("web", &hash).await?;
    native::agrees(&test, &web).await?;
    test.running(&web, &image(2), 4).await?;
    test.pods.now().ensure_same("web", &before)?;
    test.verify()
}
