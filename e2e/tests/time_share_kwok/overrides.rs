//! Overrides: they begin at once, end by themselves, and may be replaced in mid-switch.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use springtide_crds::time_share_group::{Mode, ReadyReason, TransitionCause, TransitionResult};
use springtide_e2e::time_share::node_stage::GROUP;
use springtide_e2e::time_share::pods::Standing;
use springtide_e2e::time_share::resizes::{of_pod, stored};
use springtide_e2e::time_share::shared;
use springtide_e2e::time_share::stage::Setting;

#[tokio::test]
async fn an_override_ends_by_itself_and_one_that_is_past_does_nothing() -> Result<()> {
    let stage = Setting::new("expires", 2).start(&shared().await?.cluster, |_| {}).await?;
    let until = Timestamp::from_second((Timestamp::now() + SignedDuration::from_secs(20)).as_second())?;
    stage.test.override_until(GROUP, Some("promo"), until).await?;
    stage.settled("promo").await?;
    stage.ensure_peak("promo").await?;
    let group = stage.settled("pay").await?;
    let transition = group.status.and_then(|status| status.transition).context("a transition")?;
    ensure!(transition.cause == TransitionCause::Default, "{transition:?}");
    ensure!(transition.start_time.0 >= until, "it ends too early: {transition:?}");
    stage.ensure_peak("pay").await?;
    stage.test.override_until(GROUP, Some("promo"), until).await?;
    stage.settled("pay").await?;
    let id = stage.test.groups.now().steps(GROUP).last().map(|(id, _)| *id);
    ensure!(id == Some(transition.id), "{id:?}");
    stage.test.verify()
}

#[tokio::test]
async fn an_override_that_goes_in_mid_switch_takes_back_what_was_done_and_touches_nothing_else() -> Result<()>
{
    let stage = Setting::new("revoked", 6)
        .start(&shared().await?.cluster, |spec| spec.switch.max_in_flight_units = 1)
        .await?;
    let mark = stage.test.mark()?;
    stage.give("promo").await?;
    stage.at_peak("promo", 1).await?;
    stage.edit(json!({"override": null})).await?;
    let group = stage.settled("pay").await?;
    stage.ensure_peak("pay").await?;
    let status = group.status.context("a status")?;
    let results: Vec<_> = status.last_transitions.iter().take(2).map(|last| last.result).collect();
    ensure!(results == [TransitionResult::Succeeded, TransitionResult::Superseded], "{results:?}");
    let writes = stored(&stage.test.requests_since(mark)?);
    let names = stage.names("pay");
    let untouched = names.iter().filter(|name| of_pod(&writes, name).is_empty()).count();
    ensure!(untouched >= 1, "all were touched: {writes:?}");
    stage.test.verify()
}

#[tokio::test]
async fn an_override_that_is_replaced_in_mid_switch_leads_where_the_last_one_says() -> Result<()> {
    let stage = Setting::new("replaced", 6)
        .start(&shared().await?.cluster, |spec| spec.switch.max_in_flight_units = 1)
        .await?;
    stage.give("promo").await?;
    stage.at_peak("promo", 1).await?;
    // Nobody is a third way: neither on nor back.
    stage.test.override_to(GROUP, None).await?;
    let group = stage.test.settled(GROUP, None).await?;
    for member in ["pay", "promo"] {
        stage.stand(member, Standing::valley(6)).await?;
    }
    let status = group.status.context("a status")?;
    let last: Vec<_> =
        status.last_transitions.iter().take(2).map(|last| (last.to.clone(), last.result)).collect();
    let expected =
        [(None, TransitionResult::Succeeded), (Some("promo".to_owned()), TransitionResult::Superseded)];
    ensure!(last == expected, "{last:?}");
    stage.switch_to("promo").await?;
    stage.test.verify()
}

#[tokio::test]
async fn a_group_that_only_observes_says_what_would_be_and_writes_nothing_else() -> Result<()> {
    let stage = Setting::new("observed", 2).without_group(&shared().await?.cluster).await?;
    stage.off_duty().await?;
    let mark = stage.test.mark()?;
    stage.create_group(|spec| spec.mode = Mode::Observe).await?;
    let group = stage.test.told(GROUP, ReadyReason::Observing).await?;
    ensure!(group.metadata.finalizers.unwrap_or_default().is_empty(), "it holds nothing");
    let status = group.status.context("a status")?;
    ensure!(status.desired_member.as_deref() == Some("pay") && status.transition.is_none(), "{status:?}");
    tokio::time::sleep(Duration::from_secs(3)).await;
    let writes = stored(&stage.test.requests_since(mark)?);
    ensure!(writes.is_empty(), "{writes:?}");
    stage.edit(json!({"mode": "Active"})).await?;
    stage.settled("pay").await?;
    stage.stand("pay", Standing::peak(2)).await?;
    stage.test.verify()
}
