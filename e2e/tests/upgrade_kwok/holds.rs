//! Runs that wait for a time of the clock.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use springtide_crds::common::IntOrPercent;
use springtide_crds::in_place_upgrade::{HeldReason, Hold, HoldType, ReadyReason, Step};
use springtide_e2e::upgrade::workload::open_window;
use springtide_e2e::upgrade::{Testbed, Workload, image, native, shared};

/// Seconds after a step: long enough that a test comes in between.
const WAIT: u32 = 10;

#[tokio::test]
async fn a_step_waits_for_its_time_and_a_run_for_the_end_of_a_window() -> Result<()> {
    let test = Testbed::new(shared().await?, "holds").await?;
    let web = Workload::deployment("web", 4);
    let before = test.start_paused(&web).await?;
    test.set_image(&web, &image(2)).await?;
    let mut spec = web.upgrade();
    spec.strategy.max_unavailable = IntOrPercent::ALL;
    let hold = Hold { type_: HoldType::Duration, duration_seconds: Some(WAIT) };
    spec.strategy.steps = vec![
        Step { replicas: IntOrPercent::Int(1), hold: Some(hold) },
        Step { replicas: IntOrPercent::ALL, hold: None },
    ];
    test.upgrade("web", spec).await?;
    let upgrade = test.told("web", HeldReason::StepHold).await?;
    let step = upgrade.status.and_then(|status| status.step).context("a step")?;
    let until = step.hold_until_time.context("the end of the hold")?;
    ensure!(step.index == 1, "step {}", step.index);
    ensure!(test.pods.now().changes().len() == 1, "the next step has begun");
    let upgrade = test.succeeded("web", "").await?;
    let run = upgrade.status.and_then(|status| status.last_run).context("the run")?;
    ensure!(run.completion_time.0 >= until.0, "it has ended before {until:?}");
    native::agrees(&test, &web).await?;

    let hash = test.target_hash("web");
    let windows = open_window()?;
    test.edit("web", json!({"spec": {"freezeWindows": windows}})).await?;
    test.pods.now().count_anew();
    test.set_image(&web, &image(3)).await?;
    test.told("web", HeldReason::FreezeWindow).await?;
    test.told("web", ReadyReason::Held).await?;
    native::is_idle(&test).await?;
    ensure!(test.pods.now().changes().is_empty(), "a pod was changed in the window");
    test.edit("web", json!({"spec": {"freezeWindows": null}})).await?;
    test.succeeded("web", &hash).await?;
    native::agrees(&test, &web).await?;
    test.running(&web, &image(3), 4).await?;
    test.pods.now().ensure_same("web", &before)?;
    test.verify()
}
