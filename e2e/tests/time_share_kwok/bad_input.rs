//! Specs that no schema can judge: what is wrong is told by field or name, whoever has the peak keeps it, and it goes on by
//! itself when that is mended.

use anyhow::{Context, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::json;
use springtide_crds::common::condition;
use springtide_crds::reason::Reason;
use springtide_crds::time_share_group::{
    AcceptedReason, MAX_PER_NAMESPACE, RefusalReason, ScheduleValidReason, StalledReason, TimeShareGroup,
};
use springtide_e2e::batch::next_second;
use springtide_e2e::time_share::groups::says;
use springtide_e2e::time_share::node_member::group_of;
use springtide_e2e::time_share::node_stage::GROUP;
use springtide_e2e::time_share::pods::Standing;
use springtide_e2e::time_share::resizes::stored;
use springtide_e2e::time_share::stage::Setting;
use springtide_e2e::time_share::windows::{minute_after, window};
use springtide_e2e::time_share::{LABEL, Testbed, shared};
use springtide_time_share_group::sizes::Level;

/// Waits until a group that stays as it is says that it is refused for this, and gives the words.
async fn refused(test: &Testbed<'_>, name: &str, reason: RefusalReason) -> Result<String> {
    test.told(name, AcceptedReason::Refused(reason)).await?;
    let group = test.told(name, StalledReason::Refused(reason)).await?;
    let conditions = group.status.context("a status")?.conditions;
    Ok(condition(&conditions, StalledReason::CONDITION).context("Stalled")?.message.clone())
}

#[tokio::test]
async fn a_schedule_that_cannot_be_followed_is_told_and_whoever_has_the_peak_keeps_it() -> Result<()> {
    let stage = Setting::new("schedule", 2).start(&shared().await?.cluster, |_| {}).await?;
    stage.switch_to("promo").await?;
    let start = minute_after(3 * 3600);
    let later = |minutes: i64| start + SignedDuration::from_mins(minutes);
    let mut elsewhere = window("promo", start, 60, 0);
    elsewhere["window"]["timeZone"] = json!("Middle/Earth");
    for (windows, reason) in [
        (
            json!([window("promo", start, 60, 0), window("pay", later(30), 60, 0)]),
            ScheduleValidReason::WindowsOverlap,
        ),
        (
            json!([window("promo", start, 60, 0), window("pay", later(65), 60, 600)]),
            ScheduleValidReason::LeadOverlapsWindow,
        ),
        (json!([elsewhere]), ScheduleValidReason::UnknownTimeZone),
    ] {
        // Its override goes with the edit: by the schedule pay would have the peak.
        stage.edit(json!({"override": null, "schedule": {"windows": windows}})).await?;
        stage.test.told(GROUP, reason).await?;
        let words = refused(&stage.test, GROUP, RefusalReason::InvalidSchedule).await?;
        ensure!(words.contains("promo") || words.contains("Middle/Earth"), "{words}");
        stage.ensure_peak("promo").await?;
    }
    // By hand it is switched all the same.
    stage.give("pay").await?;
    stage.test.until(GROUP, "pay has the peak", |group| active(group) == Some("pay")).await?;
    stage.ensure_peak("pay").await?;
    stage.edit(json!({"override": null, "schedule": {"windows": [window("promo", start, 60, 600)]}})).await?;
    stage.test.told(GROUP, ScheduleValidReason::Valid).await?;
    stage.settled("pay").await?;
    stage.test.verify()
}

fn active(group: &TimeShareGroup) -> Option<&str> {
    group.status.as_ref()?.active_member.as_deref()
}

#[tokio::test]
async fn windows_of_the_past_are_told_of_and_the_default_has_the_peak() -> Result<()> {
    let stage = Setting::new("past", 1).start(&shared().await?.cluster, |_| {}).await?;
    let mut past = window("promo", Timestamp::now(), 60, 0);
    past["window"]["dates"] = json!(["2020-02-29"]);
    stage.edit(json!({"schedule": {"windows": [past]}})).await?;
    stage.test.told(GROUP, ScheduleValidReason::NeverMatches).await?;
    stage.test.told(GROUP, AcceptedReason::Accepted).await?;
    stage.settled("pay").await?;
    stage.ensure_peak("pay").await?;
    stage.test.verify()
}

#[tokio::test]
async fn a_label_that_a_workload_selects_its_pods_by_is_refused_and_no_pod_is_written() -> Result<()> {
    let stage = Setting::new("selector", 1).open(&shared().await?.cluster).await?;
    // Pods of no group would get the label.
    stage.create_group(|_| {}).await?;
    let mut promo = stage.promo.manifest();
    promo["spec"]["selector"]["matchLabels"][LABEL] = json!("false");
    for manifest in [stage.pay.manifest(), promo] {
        stage.test.create::<Deployment>(manifest).await?;
    }
    for member in [&stage.pay, &stage.promo] {
        stage.all_at(member, Level::Valley).await?;
    }
    let words = refused(&stage.test, GROUP, RefusalReason::InvalidSpec).await?;
    ensure!(words.contains("members[promo].targetRef") && words.contains(LABEL), "{words}");
    let group = stage.test.groups.now().get(GROUP).cloned().context("the group")?;
    ensure!(group.metadata.finalizers.unwrap_or_default().is_empty(), "it holds nothing");
    let writes = stored(&stage.test.requests()?);
    ensure!(writes.is_empty(), "{writes:?}");
    stage.test.verify()
}

#[tokio::test]
async fn the_newest_group_beyond_the_maximum_does_nothing_until_another_one_goes() -> Result<()> {
    let stage = Setting::new("maximum", 1).without_group(&shared().await?.cluster).await?;
    let others =
        [&stage.pay, &stage.promo].map(|member| member.clone().named(&format!("no-{}", member.name)));
    let spec = group_of(&[&others[0], &others[1]])?;
    for number in 0..MAX_PER_NAMESPACE {
        stage.test.group(&format!("other-{number}"), spec.clone()).await?;
    }
    next_second().await;
    stage.off_duty().await?;
    let mark = stage.test.mark()?;
    stage.create_group(|_| {}).await?;
    refused(&stage.test, GROUP, RefusalReason::LimitExceeded).await?;
    let writes = stored(&stage.test.requests_since(mark)?);
    ensure!(writes.is_empty(), "{writes:?}");
    ensure!(!says(
        stage.test.groups.now().get("other-0").context("an older one")?,
        &StalledReason::Refused(RefusalReason::LimitExceeded)
    ));
    stage.test.delete("other-0").await?;
    stage.settled("pay").await?;
    stage.ensure_peak("pay").await?;
    stage.test.verify()
}

#[tokio::test]
async fn sizes_that_are_changed_in_mid_switch_are_those_of_all_pods_in_the_end() -> Result<()> {
    let stage = Setting::new("reshaped", 6)
        .start(&shared().await?.cluster, |spec| spec.switch.max_in_flight_units = 1)
        .await?;
    stage.give("promo").await?;
    stage.at_peak("promo", 1).await?;
    let smaller = stage.promo.clone().peak("3");
    stage.test.pods.now().know(&[&smaller]);
    stage.edit(json!({"members": [stage.pay.member()?, smaller.member()?]})).await?;
    stage.settled("promo").await?;
    // Also those that had four cores already.
    stage.stand("promo", Standing::peak(6)).await?;
    stage.stand("pay", Standing::valley(6)).await?;
    stage.switch_to("pay").await?;
    stage.test.verify()
}
