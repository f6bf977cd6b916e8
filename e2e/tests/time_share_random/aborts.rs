//! Switches that are taken back at any moment.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use springtide_crds::time_share_group::{Order, TransitionResult};
use springtide_e2e::batch::long;
use springtide_e2e::bench::counted::Count;
use springtide_e2e::time_share::shared;
use springtide_e2e::time_share::stage::{Setting, Stage};

/// Aborts of each order in the long run, ...
const LONG: usize = 70;
/// ... and in the sample.
const SAMPLE: usize = 3;
/// Decides the moments.
const SEED: u64 = 20_261_129;
/// A switch of the stages here takes longer than that.
const LATEST: Duration = Duration::from_millis(1500);

/// A switch to `promo` that is taken back after so long.
async fn abort(stage: &Stage<'_>, after: Duration) -> Result<()> {
    stage.give("promo").await?;
    tokio::time::sleep(after).await;
    stage.give("pay").await?;
    let group = stage.settled("pay").await?;
    stage.ensure_peak("pay").await?;
    stage.ensure_whole()?;
    let last = group.status.map(|status| status.last_transitions).unwrap_or_default();
    let is_known = |result| matches!(result, TransitionResult::Superseded | TransitionResult::Succeeded);
    ensure!(last.iter().all(|last| is_known(last.result)), "{last:?}");
    Ok(())
}

#[tokio::test]
async fn aborts_at_any_moment_leave_whole_units() -> Result<()> {
    let count = if long() { LONG } else { SAMPLE };
    let mut random = StdRng::seed_from_u64(SEED);
    let orders = [Order::Pipelined, Order::ClaimFirst, Order::ShrinkFirst];
    let mut wrong = Vec::new();
    for (number, order) in orders.into_iter().enumerate() {
        let stage = Setting::new(&format!("aborts-{number}"), 6)
            .start(&shared().await?.cluster, |spec| {
                (spec.switch.order, spec.switch.max_in_flight_units) = (order, 2);
            })
            .await?;
        for round in 0..count {
            let after = LATEST.mul_f64(random.random());
            let aborted = abort(&stage, after).await;
            let context = aborted.with_context(|| format!("{order:?}, round {round}, after {after:?}"));
            wrong.extend(context.err().map(|error| format!("{error:#}")));
        }
        wrong.extend(stage.test.verify().err().map(|error| format!("{error:#}")));
        stage.clear().await?;
    }
    if long() {
        let tries = (orders.len() * count) as u64;
        let violations = wrong.len() as u64;
        Count { what: "time_share-aborts".to_owned(), tries, starts: tries, violations }.tell()?;
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
