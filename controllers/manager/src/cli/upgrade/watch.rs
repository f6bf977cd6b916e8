//! `springtide watch` of an InPlaceUpgrade: follows it until its run ends.

use super::progress::shown;
use crate::cli::following::{self, Ending, Followed};
use crate::cli::read::Cluster;
use anyhow::{Context, Result};
use serde_json::Value;
use springtide_crds::common::{ConditionStatus, condition};
use springtide_crds::in_place_upgrade::{
    InPlaceUpgrade, InPlaceUpgradeStatus, ReadyReason, StalledReason, TargetKind,
};
use springtide_crds::reason::Reason;
use springtide_in_place_upgrade::projections::upgrade::{IN_PLACE_UPGRADE, UpgradeView};
use springtide_in_place_upgrade::rehearsal::target_hash;
use springtide_plumbing::key::ObjectKey;
use springtide_plumbing::workloads::kinds::{DAEMON_SET, DEPLOYMENT, REPLICA_SET, STATEFUL_SET};
use std::time::Duration;

/// Follows, and shows what changes.
///
/// # Errors
/// The API server cannot be asked or refuses, there is no such upgrade, or it is deleted meanwhile.
pub(in crate::cli) async fn run(
    cluster: &Cluster,
    name: &str,
    timeout: Duration,
    interrupted: impl Future<Output = Result<()>>,
) -> Result<Ending> {
    let key = ObjectKey::new(cluster.namespace.as_str(), name);
    let found = cluster.get(IN_PLACE_UPGRADE, &key).await?;
    let found =
        found.with_context(|| format!("there is no InPlaceUpgrade {name} in namespace {}", key.namespace))?;
    let awaited = Awaited::of(cluster, &found).await?;
    let followed = Followed { kind: IN_PLACE_UPGRADE.kind, short: "ipu", key: &key, succeeded: "up to date" };
    let look = |upgrade: &InPlaceUpgrade| {
        let status = upgrade.status.clone().unwrap_or_default();
        let ending = awaited.end(upgrade.metadata.generation.unwrap_or_default(), &status);
        (shown(&status), ending)
    };
    following::run(cluster, &followed, look, timeout, interrupted).await
}

/// The wish whose run is followed.
struct Awaited {
    /// The wish of the workload as it is when the command begins; `None` where that cannot be read.
    wish: Option<String>,
    /// What the status said then: with another wish than that, the manager has looked at the workload since.
    before: String,
}

impl Awaited {
    async fn of(cluster: &Cluster, found: &Value) -> Result<Self> {
        let unreadable = "the InPlaceUpgrade is not as its schema wants it";
        let upgrade: UpgradeView = serde_json::from_value(found.clone()).context(unreadable)?;
        let workload = match upgrade.spec.target_ref.kind {
            TargetKind::Deployment => DEPLOYMENT,
            TargetKind::ReplicaSet => REPLICA_SET,
            TargetKind::StatefulSet => STATEFUL_SET,
            TargetKind::DaemonSet => DAEMON_SET,
        };
        // Who may not read it follows what the status says.
        let workload = cluster.get(workload, &upgrade.target_key()).await.ok().flatten();
        let wish = workload.and_then(|workload| target_hash(&upgrade, workload));
        Ok(Self { wish, before: upgrade.status.target_hash })
    }

    /// Whether a status is about the wish that is followed, or about a later one.
    fn is_met_by(&self, status: &InPlaceUpgradeStatus) -> bool {
        let hash = &status.target_hash;
        self.wish.as_ref().is_none_or(|wish| wish == hash) || *hash != self.before
    }

    /// How the run has ended by what the manager says of the object as it is now; `None` while it goes on.
    fn end(&self, generation: i64, status: &InPlaceUpgradeStatus) -> Option<Ending> {
        let is_current = status.observed_generation == generation;
        if !is_current || !self.is_met_by(status) {
            return None;
        }
        let told = |type_| condition(&status.conditions, type_);
        let ready = told(ReadyReason::CONDITION);
        let is = |reason| ready.is_some_and(|ready| ready.is(reason));
        if is(ReadyReason::UpToDate) {
            Some(Ending::Succeeded)
        } else if is(ReadyReason::RolledBack) {
            Some(Ending::RolledBack)
        } else {
            let stalled = told(StalledReason::CONDITION);
            let holds = stalled.is_some_and(|stalled| stalled.status == ConditionStatus::True);
            holds.then_some(Ending::Stalled)
        }
    }
}

#[cfg(test)]
mod tests;
