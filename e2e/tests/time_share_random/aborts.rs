//! Switches that are cut at any moment: taken back by hand, or as a unit fails, or with their group.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use springtide_crds::time_share_group::{
    OnStuck, Order, ReadyReason, StalledReason, TimeShareGroup, TimeShareGroupSpec, TransitionResult,
};
use springtide_e2e::batch::long;
use springtide_e2e::bench::counted::Count;
use springtide_e2e::kwok::{RESIZE_OUTCOME, ResizeOutcome};
use springtide_e2e::time_share::groups::says;
use springtide_e2e::time_share::node_stage::{GROUP, is_settled};
use springtide_e2e::time_share::pods::Pods;
use springtide_e2e::time_share::shared;
use springtide_e2e::time_share::stage::{Setting, Stage};

/// Aborts of each order in the long run, ...
const LONG: usize = 50;
/// ... and in the sample: one of each way.
const SAMPLE: usize = WAYS.len();
/// Decides the moments.
const SEED: u64 = 20_261_129;
/// A switch of the stages here takes longer than that.
const LATEST: Duration = Duration::from_millis(1500);
/// Nodes, with one unit each.
const NODES: u32 = 6;

/// How a switch comes to no end of its own.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// Its override goes to the other member again.
    Revoked,
    /// The node can never give a pod its size, so that all of it is taken back.
    Failed,
    /// Its group is deleted.
    Deleted,
}

const WAYS: [Way; 3] = [Way::Revoked, Way::Failed, Way::Deleted];

/// Cuts a switch to `promo` after so long, and has `pay` at its peak in the end. `pod` is which one fails.
async fn cut(stage: &Stage<'_>, order: Order, way: Way, after: Duration, pod: usize) -> Result<()> {
    stage.give("promo").await?;
    tokio::time::sleep(after).await;
    match way {
        Way::Revoked => {
            stage.give("pay").await?;
            let group = stage.settled("pay").await?;
            let last = group.status.map(|status| status.last_transitions).unwrap_or_default();
            ensure!(last.iter().all(|last| last.result != TransitionResult::RolledBack), "{last:?}");
        }
        Way::Failed => failed(stage, pod).await?,
        Way::Deleted => deleted(stage, order).await?,
    }
    stage.ensure_peak("pay").await?;
    stage.whole().await
}

async fn failed(stage: &Stage<'_>, pod: usize) -> Result<()> {
    let name = stage.names("promo").into_iter().cycle().nth(pod).context("a pod")?;
    let infeasible = ResizeOutcome::Infeasible.name();
    stage.test.annotate(&name, json!({RESIZE_OUTCOME: infeasible})).await?;
    // Unless the pod has had its size already.
    let has_ended = |group: &TimeShareGroup| {
        says(group, &StalledReason::RolledBack) || is_settled(group, Some("promo"), &[ReadyReason::Settled])
    };
    let group = stage.test.until(GROUP, "it has come to an end", has_ended).await?;
    let active = group.status.and_then(|status| status.active_member).context("somebody has the peak")?;
    stage.ensure_peak(&active).await?;
    stage.whole().await?;
    stage.test.annotate(&name, json!({RESIZE_OUTCOME: null})).await?;
    stage.give("pay").await?;
    stage.settled("pay").await.map(drop)
}

async fn deleted(stage: &Stage<'_>, order: Order) -> Result<()> {
    stage.test.pods.now().let_serve();
    stage.test.delete(GROUP).await?;
    let all_serve = |pods: &Pods| {
        let standing = ["pay", "promo"].map(|member| pods.standing(member));
        standing.iter().all(|standing| standing.serving == NODES as usize).then_some(())
    };
    stage.test.pods_until("every pod has its traffic", all_serve).await?;
    // Another one goes on from there.
    stage.create_group(|spec| change(spec, order)).await?;
    stage.settled("pay").await?;
    stage.test.pods.now().forbid();
    Ok(())
}

fn change(spec: &mut TimeShareGroupSpec, order: Order) {
    (spec.switch.order, spec.switch.on_stuck) = (order, OnStuck::Rollback);
    spec.switch.max_in_flight_units = 2;
}

/// Aborts so many switches of an order at moments of its own; gives what was wrong.
async fn of(order: Order, number: usize, count: usize) -> Result<Vec<String>> {
    let mut random = StdRng::seed_from_u64(SEED + number as u64);
    let setting = Setting::new(&format!("aborts-{number}"), NODES);
    let stage = setting.start(&shared().await?.cluster, |spec| change(spec, order)).await?;
    let mut wrong = Vec::new();
    for round in 0..count {
        let after = LATEST.mul_f64(random.random());
        let way = WAYS[round % WAYS.len()];
        let cut = cut(&stage, order, way, after, random.random_range(0..NODES as usize)).await;
        let context = cut.with_context(|| format!("{order:?}, {way:?}, round {round}, after {after:?}"));
        wrong.extend(context.err().map(|error| format!("{error:#}")));
    }
    wrong.extend(stage.test.verify().err().map(|error| format!("{error:#}")));
    stage.clear().await?;
    Ok(wrong)
}

#[tokio::test]
async fn aborts_at_any_moment_leave_whole_units() -> Result<()> {
    let count = if long() { LONG } else { SAMPLE };
    let orders = [Order::Pipelined, Order::ClaimFirst, Order::ShrinkFirst];
    let all = orders.iter().enumerate().map(|(number, order)| of(*order, number, count));
    let wrong = try_join_all(all).await?.concat();
    if long() {
        let tries = (orders.len() * count) as u64;
        let violations = wrong.len() as u64;
        Count { what: "time_share-aborts".to_owned(), tries, starts: tries, violations }.tell()?;
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
