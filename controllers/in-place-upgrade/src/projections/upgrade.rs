//! InPlaceUpgrade, as its own controller reads it.

use serde::Deserialize;
use springtide_crds::common::{Condition, GROUP, VERSION, condition};
use springtide_crds::in_place_upgrade::{InPlaceUpgradeSpec, InPlaceUpgradeStatus};
use springtide_crds::reason::Reason;
use springtide_plumbing::key::{ObjectKey, Resource, ResourceVersion};
use springtide_plumbing::projection::{Meta, NoLabels, Projection};

/// `springtide.dev/v1alpha1` InPlaceUpgrade.
pub const IN_PLACE_UPGRADE: Resource = Resource {
    group: GROUP,
    version: VERSION,
    kind: "InPlaceUpgrade",
    plural: "inplaceupgrades",
    namespaced: true,
};

/// The finalizer that keeps an object while its run is open, so that its deletion leaves no pod out of traffic.
pub const FINALIZER: &str = "springtide.dev/in-place-upgrade";

/// One InPlaceUpgrade.
#[derive(Clone, Debug, Deserialize)]
pub struct UpgradeView {
    #[serde(rename = "metadata")]
    meta: Meta,
    /// The spec.
    pub spec: InPlaceUpgradeSpec,
    /// The status as stored.
    #[serde(default)]
    pub status: InPlaceUpgradeStatus,
}

impl UpgradeView {
    /// Key of its target, which is of the kind that the spec names.
    pub fn target_key(&self) -> ObjectKey {
        ObjectKey::new(self.meta.key.namespace.clone(), self.spec.target_ref.name.as_str())
    }

    /// Kind and name of its target, as `status.target` has them.
    pub fn target_text(&self) -> String {
        let target = &self.spec.target_ref;
        format!("{}/{}", target.kind.as_str(), target.name)
    }

    /// A condition as stored.
    pub fn condition(&self, type_: &str) -> Option<&Condition> {
        condition(&self.status.conditions, type_)
    }

    /// The reason of a condition as stored, where it is one that this program knows.
    pub fn reason<R: Reason>(&self) -> Option<R> {
        let stored = self.condition(R::CONDITION)?;
        R::all().into_iter().find(|reason| stored.reason == reason.as_str())
    }

    /// Whether a run is open: pods may differ from what the workload's own controller knows.
    pub fn is_run_open(&self) -> bool {
        self.status.previous.is_some()
    }

    /// Whether it holds our finalizer.
    pub fn is_held(&self) -> bool {
        self.meta.finalizers.iter().any(|held| held.as_ref() == FINALIZER)
    }

    /// The same with another status, as another version.
    #[must_use]
    pub fn with_status(&self, status: InPlaceUpgradeStatus, resource_version: ResourceVersion) -> Self {
        Self { meta: Meta { resource_version, ..self.meta.clone() }, spec: self.spec.clone(), status }
    }

    /// The same with our finalizer, or without it where it is there, as another version.
    #[must_use]
    pub fn with_finalizer_turned(&self, resource_version: ResourceVersion) -> Self {
        let mut turned = Self { meta: Meta { resource_version, ..self.meta.clone() }, ..self.clone() };
        if self.is_held() {
            turned.meta.finalizers.retain(|held| held.as_ref() != FINALIZER);
        } else {
            turned.meta.finalizers.push(FINALIZER.into());
        }
        turned
    }
}

impl Projection for UpgradeView {
    const RESOURCE: Resource = IN_PLACE_UPGRADE;
    type Labels = NoLabels;

    fn meta(&self) -> &Meta {
        &self.meta
    }
}
