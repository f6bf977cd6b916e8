//! The scenarios: two members on one node, and a switch from the one to the other.

use anyhow::Result;
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
use springtide_e2e::time_share::stage::{Setting, Stage};

use crate::facts::Namespace;

/// Pods of each member.
pub(crate) const PODS: u32 = 2;
/// Long enough that the play comes in between, in seconds.
const SLOW: &str = "2";

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
}

impl Sharing {
    pub(crate) const ALL: [Self; 12] = [
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
            | Self::Deleted => setting,
        }
    }

    /// Whether its pods take a while for a resize.
    fn is_slow(self) -> bool {
        match self {
            Self::Revoked | Self::Paused | Self::Deleted => true,
            Self::Pipelined
            | Self::Gated
            | Self::Claimed
            | Self::ShrunkFirst
            | Self::Overlapped
            | Self::Stepwise
            | Self::Nobody
            | Self::Skipped
            | Self::RolledBack => false,
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
            Self::Revoked | Self::Paused | Self::Deleted => switch.max_in_flight_units = 1,
            Self::Pipelined | Self::Gated | Self::Nobody => {}
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
    }
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
