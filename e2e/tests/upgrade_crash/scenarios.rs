//! The scenarios: one workload each, and an upgrade of it.

use anyhow::{Context, Result};
use serde_json::json;
use springtide_crds::common::IntOrPercent;
use springtide_crds::in_place_upgrade::{
    FieldOwnership, HeldReason, Hold, HoldType, InPlaceUpgradeSpec, PrePull, ReadyReason, StalledReason,
};
use springtide_e2e::crash::Scenario;
use springtide_e2e::kwok::{IMAGE_OUTCOMES, ImageOutcome, RESTART_SECONDS, image_outcomes};
use springtide_e2e::local_cluster::LocalCluster;
use springtide_e2e::upgrade::workload::{CONTAINER, in_two_steps, inline};
use springtide_e2e::upgrade::{Signal, Testbed, Workload, image, native};

use crate::facts::Namespace;

/// The upgrade of a scenario.
pub(crate) const UPGRADE: &str = "upgrade";
/// Long enough that the play comes in between.
const SLOW: &str = "2";

/// The scenarios.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Upgrading {
    /// A paused Deployment with gated pods.
    Locked,
    /// A Deployment that is paused for the end of the run.
    Transient,
    /// A ReplicaSet of the past equals the wish.
    Swapped,
    /// A StatefulSet by its partition, in two steps.
    Partition,
    /// A StatefulSet of type OnDelete.
    OnDelete,
    /// A ReplicaSet of nobody, by the upgrade's own patch.
    Bare,
    /// Labels and annotations.
    Metadata,
    /// Resources, and an image after them.
    Resized,
    /// An image is missing for one pod, and all go back.
    RolledBack,
    /// As that, after the partition has been lowered.
    Raised,
    /// It starts nothing for a while.
    Paused,
    /// It is deleted in mid-run.
    Deleted,
    /// Another wish takes its place in mid-run.
    Superseded,
    /// Images are pulled before.
    Pulled,
}

impl Upgrading {
    pub(crate) const ALL: [Self; 14] = [
        Self::Locked,
        Self::Transient,
        Self::Swapped,
        Self::Partition,
        Self::OnDelete,
        Self::Bare,
        Self::Metadata,
        Self::Resized,
        Self::RolledBack,
        Self::Raised,
        Self::Paused,
        Self::Deleted,
        Self::Superseded,
        Self::Pulled,
    ];

    /// Its workload.
    pub(crate) fn workload(self) -> Workload {
        let web = Workload::deployment("web", 3);
        match self {
            Self::Locked | Self::Swapped | Self::Pulled => web,
            Self::Transient => web.signal(Signal::None),
            Self::Metadata => web.annotated("config", "v1"),
            Self::Resized => Workload::stateful_set("db", 2),
            Self::Partition | Self::Raised => Workload::stateful_set("db", 3),
            Self::OnDelete | Self::RolledBack => Workload::stateful_set("db", 2).on_delete(),
            Self::Bare => Workload::replica_set("web", 2),
            Self::Paused | Self::Deleted | Self::Superseded => web.annotated(RESTART_SECONDS, SLOW),
        }
    }

    /// Whether pods of its workload are replaced before the run.
    pub(crate) fn rolls_before(self) -> bool {
        self == Self::Swapped
    }
}

impl Scenario for Upgrading {
    type World<'a> = Namespace<'a>;

    fn name(&self) -> &'static str {
        match self {
            Self::Locked => "locked",
            Self::Transient => "transient",
            Self::Swapped => "swapped",
            Self::Partition => "partition",
            Self::OnDelete => "on-delete",
            Self::Bare => "bare",
            Self::Metadata => "metadata",
            Self::Resized => "resized",
            Self::RolledBack => "rolled-back",
            Self::Raised => "raised",
            Self::Paused => "paused",
            Self::Deleted => "deleted",
            Self::Superseded => "superseded",
            Self::Pulled => "pulled",
        }
    }

    async fn open<'a>(&self, cluster: &'a LocalCluster) -> Result<Namespace<'a>> {
        Ok(Namespace { test: Testbed::new(cluster, self.name()).await?, scenario: *self })
    }

    async fn play<'a>(&self, world: &Self::World<'a>) -> Result<()> {
        play(*self, &world.test).await
    }
}

async fn play(scenario: Upgrading, test: &Testbed<'_>) -> Result<()> {
    let workload = scenario.workload();
    let spec = workload.one_by_one();
    match scenario {
        Upgrading::Locked => {
            test.start_paused(&workload).await?;
            upgraded(test, &workload, spec).await
        }
        Upgrading::Pulled => {
            test.start_paused(&workload).await?;
            upgraded(test, &workload, InPlaceUpgradeSpec { pre_pull: PrePull::default(), ..spec }).await
        }
        Upgrading::Transient => {
            test.start(&workload).await?;
            let spec = InPlaceUpgradeSpec { strategy: spec.strategy, ..workload.transient(&image(2)) };
            test.upgrade(UPGRADE, spec).await?;
            ended(test, &workload).await
        }
        Upgrading::Swapped => {
            test.start(&workload).await?;
            test.set_image(&workload, &image(3)).await?;
            test.running(&workload, &image(3), 3).await?;
            test.set_image(&workload, &image(2)).await?;
            test.running(&workload, &image(2), 3).await?;
            native::agrees(test, &workload).await?;
            test.ready(&workload, 3).await?;
            test.patch(&workload, json!({"spec": {"paused": true}})).await?;
            test.set_image(&workload, &image(3)).await?;
            test.upgrade(UPGRADE, spec).await?;
            ended(test, &workload).await
        }
        Upgrading::Partition => {
            test.start(&workload).await?;
            let mut spec = spec;
            spec.strategy.steps = in_two_steps(1);
            upgraded(test, &workload, spec).await
        }
        Upgrading::OnDelete => {
            test.start(&workload).await?;
            upgraded(test, &workload, spec).await
        }
        Upgrading::Bare => {
            test.start(&workload).await?;
            let mut spec = InPlaceUpgradeSpec { source: inline(&image(2)), ..spec };
            spec.policy.field_ownership = FieldOwnership::Force;
            test.upgrade(UPGRADE, spec).await?;
            ended(test, &workload).await
        }
        Upgrading::Metadata => {
            test.start_paused(&workload).await?;
            let metadata = json!({"annotations": {"config": "v2"}});
            test.patch(&workload, json!({"spec": {"template": {"metadata": metadata}}})).await?;
            test.upgrade(UPGRADE, spec).await?;
            ended(test, &workload).await
        }
        Upgrading::Resized => {
            test.start(&workload).await?;
            let resources = json!({"requests": {"cpu": "150m"}, "limits": {"cpu": "300m"}});
            let containers = json!([{"name": CONTAINER, "image": image(2), "resources": resources}]);
            test.patch(&workload, json!({"spec": {"template": {"spec": {"containers": containers}}}}))
                .await?;
            test.upgrade(UPGRADE, spec).await?;
            ended(test, &workload).await
        }
        Upgrading::RolledBack | Upgrading::Raised => {
            test.start(&workload).await?;
            let missing = image_outcomes(&[(&image(2), ImageOutcome::Missing)]);
            test.annotate("db-0", json!({IMAGE_OUTCOMES: missing})).await?;
            test.set_image(&workload, &image(2)).await?;
            let mut spec = spec;
            spec.strategy.steps = in_two_steps(workload.replicas - 1);
            if let (Upgrading::Raised, Some(first)) = (scenario, spec.strategy.steps.first_mut()) {
                // The partition follows while nothing else happens.
                first.hold = Some(Hold { type_: HoldType::Duration, duration_seconds: Some(3) });
            }
            spec.health.failure_threshold = IntOrPercent::Int(0);
            test.upgrade(UPGRADE, spec).await?;
            test.told(UPGRADE, StalledReason::RolledBack).await?;
            test.running(&workload, &image(1), workload.replicas as usize).await?;
            test.all_in_traffic(&workload).await
        }
        Upgrading::Paused => {
            test.start_paused(&workload).await?;
            test.set_image(&workload, &image(2)).await?;
            test.upgrade(UPGRADE, spec).await?;
            test.under_way(&workload, &image(2)).await?;
            test.edit(UPGRADE, json!({"spec": {"mode": "Paused"}})).await?;
            test.told(UPGRADE, HeldReason::Paused).await?;
            test.all_in_traffic(&workload).await?;
            test.edit(UPGRADE, json!({"spec": {"mode": "Apply"}})).await?;
            ended(test, &workload).await
        }
        Upgrading::Deleted => {
            test.start_paused(&workload).await?;
            test.set_image(&workload, &image(2)).await?;
            test.upgrade(UPGRADE, spec).await?;
            test.under_way(&workload, &image(2)).await?;
            test.delete(UPGRADE).await?;
            test.all_in_traffic(&workload).await?;
            // How far it had come is not the same in every run; another one goes on from there.
            test.upgrade(UPGRADE, workload.one_by_one()).await?;
            ended(test, &workload).await
        }
        Upgrading::Superseded => {
            test.start_paused(&workload).await?;
            test.set_image(&workload, &image(2)).await?;
            test.upgrade(UPGRADE, spec).await?;
            test.under_way(&workload, &image(2)).await?;
            let first = test.target_hash(UPGRADE);
            test.set_image(&workload, &image(1)).await?;
            test.another_wish(UPGRADE, &first).await.context("the wish is taken back")?;
            test.told(UPGRADE, ReadyReason::UpToDate).await?;
            native::agrees(test, &workload).await?;
            test.all_in_traffic(&workload).await
        }
    }
}

/// To another image of the workload's own template.
async fn upgraded(test: &Testbed<'_>, workload: &Workload, spec: InPlaceUpgradeSpec) -> Result<()> {
    test.set_image(workload, &image(2)).await?;
    test.upgrade(UPGRADE, spec).await?;
    ended(test, workload).await
}

/// Waits until the run has succeeded, and the native controller agrees.
async fn ended(test: &Testbed<'_>, workload: &Workload) -> Result<()> {
    test.succeeded(UPGRADE, "").await?;
    native::agrees(test, workload).await?;
    test.all_in_traffic(workload).await
}
