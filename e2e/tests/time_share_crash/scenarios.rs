//! The scenarios: two members on one node, and a switch from the one to the other.

use anyhow::Result;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::json;
use springtide_crds::time_share_group::{
    HeldReason, Mode, OnStuck, Order, Overlap, ReadyReason, StalledReason, Step, TimeShareGroupSpec,
    TrafficMode,
};
use springtide_e2e::batch::GENERAL;
use springtide_e2e::crash::Scenario;
use springtide_e2e::kwok::{RESIZE_OUTCOME, RESIZE_SECONDS, ResizeOutcome};
use springtide_e2e::local_cluster::LocalCluster;
use springtide_e2e::time_share::node_stage::GROUP;
use springtide_e2e::time_share::pods::Standing;
use springtide_e2e::time_share::routes::{OF_PAY, OF_PROMO, by_route};
use springtide_e2e::time_share::stage::{Setting, Stage};
use springtide_e2e::time_share::windows::{cron_window, minute_after};

use crate::facts::Namespace;

/// Pods of each member.
pub(crate) const PODS: u32 = 2;
/// Long enough that the play comes in between, in seconds.
const SLOW: &str = "2";
/// The member that comes for one that goes.
pub(crate) const OTHER: &str = "other";
/// Seconds from an edit of the schedule to the edge that it makes: the manager has read it by then, or is away.
const SOON: i64 = 5;

/// The scenarios.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// By labels, each pair in a chain.
    Pipelined,
    /// By gates.
    Gated,
    /// Who grows goes first.
    Claimed,
    /// Who shrinks goes first, and is waited for.
    ShrunkFirst,
    /// There is room for both.
    Overlapped,
    /// In two steps with a hold.
    Stepwise,
    /// Nobody has the peak in the end.
    Nobody,
    /// The node can never give one pod its size: its unit is given up.
    Skipped,
    /// It can give none its size, and all of it is taken back.
    RolledBack,
    /// It is taken back in mid-switch by hand.
    Revoked,
    /// It begins nothing for a while.
    Paused,
    /// The group is deleted in mid-switch.
    Deleted,
    /// The member that gets the peak has another pod in mid-switch.
    Scaled,
    /// The member that has the peak has less of it from then on.
    Reshaped,
    /// The member that has the peak is taken out, and another one put in.
    Removed,
    /// By the clock the lead of a window begins, and a window ends.
    WindowByClock,
    /// By the weights of an HTTPRoute.
    Routed,
}

impl Sharing {
    pub(crate) const ALL: [Self; 17] = [
        Self::Pipelined,
        Self::Gated,
        Self::Claimed,
        Self::ShrunkFirst,
        Self::Overlapped,
        Self::Stepwise,
        Self::Nobody,
        Self::Skipped,
        Self::RolledBack,
        Self::Revoked,
        Self::Paused,
        Self::Deleted,
        Self::Scaled,
        Self::Reshaped,
        Self::Removed,
        Self::WindowByClock,
        Self::Routed,
    ];

    /// A node of the pool that all share, so that few are on the same one.
    fn host(self) -> String {
        let number = Self::ALL.iter().position(|other| *other == self).unwrap_or_default();
        format!("{GENERAL}-{}", number % 10)
    }

    fn setting(self) -> Setting {
        let setting = Setting::on(self.name(), &self.host(), PODS);
        match self {
            Self::Gated => setting.each(|member| member.mode(TrafficMode::ReadinessGate)),
            Self::Routed => setting.each(|member| member.mode(TrafficMode::HttpRoute)),
            Self::Pipelined
            | Self::Claimed
            | Self::ShrunkFirst
            | Self::Overlapped
            | Self::Stepwise
            | Self::Nobody
            | Self::Skipped
            | Self::RolledBack
            | Self::Revoked
            | Self::Paused
            | Self::Deleted
            | Self::Scaled
            | Self::Reshaped
            | Self::Removed
            | Self::WindowByClock => setting,
        }
    }

    /// Whether its pods take a while for a resize.
    fn is_slow(self) -> bool {
        match self {
            Self::Revoked | Self::Paused | Self::Deleted | Self::Scaled => true,
            Self::Pipelined
            | Self::Gated
            | Self::Claimed
            | Self::ShrunkFirst
            | Self::Overlapped
            | Self::Stepwise
            | Self::Nobody
            | Self::Skipped
            | Self::RolledBack
            | Self::Reshaped
            | Self::Removed
            | Self::WindowByClock
            | Self::Routed => false,
        }
    }

    fn change(self, spec: &mut TimeShareGroupSpec) {
        let switch = &mut spec.switch;
        match self {
            Self::Claimed => switch.order = Order::ClaimFirst,
            Self::ShrunkFirst => switch.order = Order::ShrinkFirst,
            Self::Overlapped => switch.overlap = Overlap::WhenFree,
            Self::Stepwise => {
                let step = |percent, hold_seconds| Step { percent, hold_seconds };
                switch.steps = vec![step(50, 2), step(100, 0)];
            }
            Self::Skipped => spec.guards.failure_threshold_percent = 100,
            Self::RolledBack => {
                switch.on_stuck = OnStuck::Rollback;
                switch.max_in_flight_units = 1;
            }
            Self::Revoked | Self::Paused | Self::Deleted | Self::Scaled => switch.max_in_flight_units = 1,
            Self::Routed => by_route(spec),
            Self::Pipelined
            | Self::Gated
            | Self::Nobody
            | Self::Reshaped
            | Self::Removed
            | Self::WindowByClock => {}
        }
    }
}

impl Scenario for Sharing {
    type World<'a> = Namespace<'a>;

    fn name(&self) -> &'static str {
        match self {
            Self::Pipelined => "pipelined",
            Self::Gated => "gated",
            Self::Claimed => "claimed",
            Self::ShrunkFirst => "shrunk-first",
            Self::Overlapped => "overlapped",
            Self::Stepwise => "stepwise",
            Self::Nobody => "nobody",
            Self::Skipped => "skipped",
            Self::RolledBack => "rolled-back",
            Self::Revoked => "revoked",
            Self::Paused => "paused",
            Self::Deleted => "deleted",
            Self::Scaled => "scaled",
            Self::Reshaped => "reshaped",
            Self::Removed => "removed",
            Self::WindowByClock => "window-by-clock",
            Self::Routed => "routed",
        }
    }

    async fn open<'a>(&self, cluster: &'a LocalCluster) -> Result<Namespace<'a>> {
        Ok(Namespace { stage: self.setting().open(cluster).await?, scenario: *self })
    }

    async fn play<'a>(&self, world: &Self::World<'a>) -> Result<()> {
        play(*self, &world.stage).await
    }
}

async fn play(scenario: Sharing, stage: &Stage<'_>) -> Result<()> {
    stage.start_members().await?;
    if scenario == Sharing::Routed {
        stage.create_route().await?;
    }
    stage.create_group(|spec| scenario.change(spec)).await?;
    stage.settled("pay").await?;
    if scenario.is_slow() {
        for pod in stage.names("promo") {
            stage.test.annotate(&pod, json!({RESIZE_SECONDS: SLOW})).await?;
        }
    }
    match scenario {
        Sharing::Pipelined
        | Sharing::Gated
        | Sharing::Claimed
        | Sharing::ShrunkFirst
        | Sharing::Overlapped
        | Sharing::Stepwise => {
            stage.give("promo").await?;
            stage.settled("promo").await?;
            stage.ensure_peak("promo").await
        }
        Sharing::Nobody => {
            stage.test.override_to(GROUP, None).await?;
            stage.test.settled(GROUP, None).await.map(drop)
        }
        Sharing::Skipped | Sharing::RolledBack => {
            let infeasible = ResizeOutcome::Infeasible.name();
            // One of two that begin together; and whichever comes first, where the second never begins.
            let pods = if scenario == Sharing::Skipped { 1 } else { PODS as usize };
            for pod in stage.names("promo").into_iter().take(pods) {
                stage.test.annotate(&pod, json!({RESIZE_OUTCOME: infeasible})).await?;
            }
            stage.give("promo").await?;
            if scenario == Sharing::Skipped {
                return stage.settled_with_skips("promo").await.map(drop);
            }
            stage.test.told(GROUP, StalledReason::RolledBack).await?;
            stage.ensure_peak("pay").await
        }
        Sharing::Revoked => {
            stage.give("promo").await?;
            begun(stage).await?;
            stage.edit(json!({"override": null})).await?;
            stage.settled("pay").await?;
            stage.ensure_peak("pay").await
        }
        Sharing::Paused => {
            stage.give("promo").await?;
            begun(stage).await?;
            stage.edit(json!({"mode": Mode::Paused})).await?;
            stage.test.told(GROUP, HeldReason::Paused).await?;
            stage.test.told(GROUP, ReadyReason::Paused).await?;
            stage.edit(json!({"mode": Mode::Active})).await?;
            stage.settled("promo").await?;
            stage.ensure_peak("promo").await
        }
        Sharing::Deleted => {
            stage.give("promo").await?;
            begun(stage).await?;
            stage.test.delete(GROUP).await?;
            let all = 2 * PODS as usize;
            stage
                .test
                .pods_until("all serve", |pods| {
                    let serving = pods.standing("pay").serving + pods.standing("promo").serving;
                    (serving == all).then_some(())
                })
                .await
        }
        Sharing::Scaled => {
            stage.give("promo").await?;
            begun(stage).await?;
            stage.scale("promo", PODS + 1).await?;
            stage.stand("promo", Standing::peak(PODS as usize + 1)).await?;
            stage.stand("pay", Standing::valley(PODS as usize)).await?;
            stage.settled("promo").await.map(drop)
        }
        Sharing::Reshaped => {
            let smaller = stage.pay.clone().peak("3");
            stage.test.pods.now().know(&[&smaller]);
            stage.edit(json!({"members": [smaller.member()?, stage.promo.member()?]})).await?;
            stage.stand("pay", Standing::peak(PODS as usize)).await?;
            stage.settled("pay").await.map(drop)
        }
        Sharing::Removed => removed(stage).await,
        Sharing::WindowByClock => by_the_clock(stage).await,
        Sharing::Routed => {
            stage.weights(OF_PAY).await?;
            stage.give("promo").await?;
            stage.settled("promo").await?;
            stage.weights(OF_PROMO).await
        }
    }
}

async fn removed(stage: &Stage<'_>) -> Result<()> {
    stage.give("promo").await?;
    stage.settled("promo").await?;
    let other = stage.pay.clone().named(OTHER).replicas(1);
    stage.test.pods.now().know(&[&other]);
    stage.test.create::<Deployment>(other.manifest()).await?;
    // It is of no group yet, so that somebody turns it on.
    let off_duty = Standing { serving: 1, ..Standing::valley(1) };
    stage.stand(OTHER, off_duty).await?;
    stage.edit(json!({"members": [stage.pay.member()?, other.member()?], "override": null})).await?;
    let pods = PODS as usize;
    stage.stand("promo", Standing { serving: pods, ..Standing::valley(pods) }).await?;
    stage.stand("pay", Standing::peak(pods)).await?;
    stage.stand(OTHER, Standing::valley(1)).await?;
    stage.settled("pay").await.map(drop)
}

/// Of one window the lead begins some seconds from now; another one, which was open already, takes its place once `promo`
/// has the peak, and ends some seconds from then. Whoever is away at such a moment finds the same when it is back, so that
/// no crash has to be over in time.
async fn by_the_clock(stage: &Stage<'_>) -> Result<()> {
    let near = minute_after(60);
    let lead = near.duration_since(Timestamp::now()).as_secs() - SOON;
    stage.edit(json!({"schedule": {"windows": [cron_window("promo", near, 3600, lead)]}})).await?;
    stage.settled("promo").await?;
    stage.ensure_peak("promo").await?;
    // No window is shorter than a minute.
    let close = Timestamp::now() + SignedDuration::from_secs(SOON);
    let open = Timestamp::from_second((close.as_second() / 60 - 1) * 60)?;
    let seconds = close.duration_since(open).as_secs();
    stage.edit(json!({"schedule": {"windows": [cron_window("promo", open, seconds, 0)]}})).await?;
    stage.settled("pay").await?;
    stage.ensure_peak("pay").await?;
    // Its times would make the spec of each run another one.
    stage.edit(json!({"schedule": {"windows": null}})).await?;
    stage.settled("pay").await.map(drop)
}

/// Waits until a pod is about to get the peak.
async fn begun(stage: &Stage<'_>) -> Result<()> {
    stage
        .test
        .pods_until("a unit has begun", |pods| {
            let begun = pods.sizes.of("promo").iter().any(|pod| pod.size.asked.cpu > 1000);
            begun.then_some(())
        })
        .await
}
