//! When switches begin. How late they are is counted in the long run, and held to its bound by the bench.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use springtide_crds::time_share_group::{TimeShareGroup, Transition, TransitionCause};
use springtide_e2e::batch::long;
use springtide_e2e::bench::counted::Count;
use springtide_e2e::fault_proxy::{FaultProxy, Protocols};
use springtide_e2e::time_share::node_stage::GROUP;
use springtide_e2e::time_share::pods::Standing;
use springtide_e2e::time_share::stage::{Setting, Stage};
use springtide_e2e::time_share::windows::{cron_window, minute_after, window};
use springtide_e2e::time_share::{Bounded, cluster, shared};
use springtide_e2e::upgrade::disturbed::{Disturbed, End, Processes};

/// Leads of the windows.
const LEAD: i64 = 30;
/// So long before the lead the leader ends: its lease is over by then.
const BEFORE: SignedDuration = SignedDuration::from_secs(8);
/// Who is later than that is counted.
const PUNCTUAL: SignedDuration = SignedDuration::from_secs(1);

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
    let transition = |group: &TimeShareGroup| {
        group.status.as_ref().and_then(|status| status.transition.clone()).filter(is)
    };
    let group = stage.test.until(GROUP, "the switch begins", |group| transition(group).is_some()).await?;
    transition(&group).context("a transition")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_begins_with_its_lead_also_after_a_change_of_leader() -> Result<()> {
    let Bounded { kubelets, mut cluster } = cluster().await?;
    cluster.end_controller_manager();
    let disturbed = Disturbed { proxy: FaultProxy::start(&cluster, Protocols::All)?, cluster };
    let mut processes = Processes::start(&disturbed).await?;
    let stage = Setting::new("starts", 2).start(&disturbed.cluster, |_| {}).await?;
    let ends =
        if long() { vec![End::Killed, End::Asked, End::Killed, End::Asked] } else { vec![End::Killed] };
    let mut late = 0;
    for end in &ends {
        // Away from the minute, as the leader ends before.
        let start = minute_after(LEAD + 30);
        let begins = start - SignedDuration::from_secs(LEAD);
        stage.edit(json!({"schedule": {"windows": [window("promo", start, 1, LEAD)]}})).await?;
        at(begins - BEFORE).await;
        let leader = processes.leader().await?;
        let (replaced, transition) =
            tokio::join!(processes.replace_manager(leader, *end), begun(&stage, "promo"));
        replaced?;
        let transition = transition?;
        let began = transition.start_time.0;
        ensure!((begins..start).contains(&began), "{end:?}: its lead begins at {begins}: {transition:?}");
        late += u64::from(began.duration_since(begins) > PUNCTUAL);
        stage.settled("promo").await?;
        stage.ensure_peak("promo").await?;
        stage.settled("pay").await?;
    }
    if long() {
        let tries = ends.len() as u64;
        Count { what: "time_share-starts".to_owned(), tries, starts: tries, violations: late }.tell()?;
    }
    stage.test.verify()?;
    drop(kubelets);
    Ok(())
}

#[tokio::test]
async fn windows_by_cron_of_one_member_leave_the_room_to_others_between_them() -> Result<()> {
    let stage = Setting::new("cron", 2).without_group(&shared().await?.cluster).await?;
    let start = minute_after(30);
    let windows = [cron_window("pay", start, 60, 0)];
    stage
        .create_group(|spec| {
            spec.schedule = serde_json::from_value(json!({"windows": windows})).unwrap();
        })
        .await?;
    let group = stage.test.settled(GROUP, None).await?;
    let next = group.status.and_then(|status| status.next_transition).context("the next switch")?;
    ensure!((next.member.as_deref(), next.start_time.0) == (Some("pay"), start), "{next:?}");
    let transition = begun(&stage, "pay").await?;
    let end = start + SignedDuration::from_secs(60);
    ensure!((start..end).contains(&transition.start_time.0), "{transition:?}");
    stage.settled("pay").await?;
    stage.ensure_peak("pay").await?;
    let group = stage.test.settled(GROUP, None).await?;
    let transition = group.status.and_then(|status| status.transition).context("a transition")?;
    ensure!(transition.start_time.0 >= end, "{transition:?}");
    stage.stand("pay", Standing::valley(2)).await?;
    stage.test.verify()
}
