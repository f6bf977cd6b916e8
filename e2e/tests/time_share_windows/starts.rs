//! When switches begin.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use springtide_crds::time_share_group::{Transition, TransitionCause};
use springtide_e2e::batch::long;
use springtide_e2e::bench::counted::Count;
use springtide_e2e::fault_proxy::{FaultProxy, Protocols};
use springtide_e2e::time_share::node_stage::GROUP;
use springtide_e2e::time_share::pods::Standing;
use springtide_e2e::time_share::stage::{Setting, Stage};
use springtide_e2e::time_share::{Bounded, cluster, shared};
use springtide_e2e::upgrade::disturbed::{Disturbed, End, Processes};

use crate::{minute_after, window};

/// Leads of the windows.
const LEAD: i64 = 30;
/// So long before the lead the leader ends: its lease is over by then.
const BEFORE: SignedDuration = SignedDuration::from_secs(8);

/// Waits until a clock shows that time.
async fn at(time: Timestamp) {
    let left = time.duration_since(Timestamp::now());
    tokio::time::sleep(Duration::try_from(left).unwrap_or_default()).await;
}

/// The transition that leads to a member by its window, once it has begun.
async fn begun(stage: &Stage<'_>, member: &str) -> Result<Transition> {
    let is = |transition: &Transition| {
        transition.to.as_deref() == Some(member) && transition.cause == TransitionCause::Window
    };
    let transition = |group: &springtide_crds::time_share_group::TimeShareGroup| {
        group.status.as_ref().and_then(|status| status.transition.clone()).filter(is)
    };
    let group = stage.test.until(GROUP, "the switch begins", |group| transition(group).is_some()).await?;
    transition(&group).context("a transition")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_begins_within_a_second_of_its_lead_also_after_a_change_of_leader() -> Result<()> {
    let Bounded { kubelets, mut cluster } = cluster().await?;
    cluster.end_controller_manager();
    let disturbed = Disturbed { proxy: FaultProxy::start(&cluster, Protocols::All)?, cluster };
    let mut processes = Processes::start(&disturbed).await?;
    let stage = Setting::new("starts", 2).start(&disturbed.cluster, |_| {}).await?;
    let ends =
        if long() { vec![End::Killed, End::Asked, End::Killed, End::Asked] } else { vec![End::Killed] };
    let (mut late, mut told) = (0, Vec::new());
    for end in &ends {
        // Away from the minute, as the leader ends before.
        let start = minute_after(LEAD + 30);
        let begins = start - SignedDuration::from_secs(LEAD);
        let lead = u32::try_from(LEAD)?;
        stage.edit(json!({"schedule": {"windows": [window("promo", start, 1, lead)]}})).await?;
        at(begins - BEFORE).await;
        let leader = processes.leader().await?;
        let (replaced, transition) =
            tokio::join!(processes.replace_manager(leader, *end), begun(&stage, "promo"));
        replaced?;
        let transition = transition?;
        let by = transition.start_time.0.duration_since(begins).as_secs();
        told.push(format!("{end:?}: {by} s"));
        late += u64::from(!(0..=1).contains(&by));
        stage.settled("promo").await?;
        stage.ensure_peak("promo").await?;
        stage.settled("pay").await?;
    }
    if long() {
        let tries = ends.len() as u64;
        Count { what: "time_share-starts".to_owned(), tries, starts: tries, violations: late }.tell()?;
    }
    ensure!(late == 0, "late: {told:?}");
    stage.test.verify()?;
    drop(kubelets);
    Ok(())
}

#[tokio::test]
async fn windows_by_cron_of_one_member_leave_the_room_to_others_between_them() -> Result<()> {
    let stage = Setting::new("cron", 2).without_group(&shared().await?.cluster).await?;
    let start = minute_after(30);
    let cron = start.strftime("%-M %-H * * *").to_string();
    let window = json!({
        "name": "cron", "member": "pay", "leadSeconds": 0,
        "window": {"cron": cron, "durationSeconds": 60, "timeZone": "UTC"},
    });
    stage
        .create_group(|spec| {
            spec.schedule = serde_json::from_value(json!({"windows": [window]})).unwrap();
        })
        .await?;
    let group = stage.test.settled(GROUP, None).await?;
    let next = group.status.and_then(|status| status.next_transition).context("the next switch")?;
    ensure!((next.member.as_deref(), next.start_time.0) == (Some("pay"), start), "{next:?}");
    let transition = begun(&stage, "pay").await?;
    ensure!(transition.start_time.0.duration_since(start).as_secs() <= 1, "{transition:?}");
    stage.settled("pay").await?;
    stage.ensure_peak("pay").await?;
    let group = stage.test.settled(GROUP, None).await?;
    let transition = group.status.and_then(|status| status.transition).context("a transition")?;
    let end = start + SignedDuration::from_secs(60);
    ensure!(transition.start_time.0.duration_since(end).as_secs() <= 1, "{transition:?}");
    ensure!(stage.standing("pay") == Standing::valley(2), "{:?}", stage.standing("pay"));
    stage.test.verify()
}
