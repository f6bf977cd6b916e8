//! What an upgrade may do, and what it must not.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What an upgrade may do, and what it must not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase", default)]
pub struct Policy {
    /// Require starts only while the workload's own controller is told not to roll: a Deployment is paused, a
    /// StatefulSet has a partition at or above its replicas or is OnDelete, a DaemonSet is OnDelete. Transient changes
    /// pods first and pauses the Deployment for a moment at the end; only with an Inline source that persists to the
    /// template.
    pub lock: Lock,
    /// What becomes of pods that cannot be changed in place: Block needs a person, Ignore leaves them, Recreate has the
    /// workload's controller replace them.
    pub ineligible: Ineligible,
    /// Refuse stops where a field of the template belongs to another field manager; Force takes the field. Only of
    /// effect where the template is written: an Inline source that persists to it.
    pub field_ownership: FieldOwnership,
    /// Snapshot keeps the old template of a Deployment as a ReplicaSet without pods, so that kubectl rollout undo finds
    /// it; None does not. The Deployment's revisionHistoryLimit: 0 is None.
    pub history: History,
    /// What happens to pods that differ after a run has ended: Report counts them, Repair changes them.
    pub drift: DriftPolicy,
    /// When the workload is a member of a TimeShareGroup: HoldDuringPeak starts no pod while a window or an override gives
    /// the member the peak, HoldDuringSwitch only while the group switches, which always holds. The peak that a member has
    /// by default holds nothing.
    pub time_share: TimeSharePolicy,
}

/// How the workload's own controller is kept from rolling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Lock {
    /// By whoever owns the workload, before the run.
    #[default]
    Require,
    /// By a pause at the end, once pods are changed.
    Transient,
}

/// What becomes of pods that cannot be changed in place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Ineligible {
    /// They need a person.
    #[default]
    Block,
    /// They stay as they are.
    Ignore,
    /// They are replaced by new pods.
    Recreate,
}

/// What to do about fields of another field manager.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum FieldOwnership {
    /// Leave them.
    #[default]
    Refuse,
    /// Take them.
    Force,
}

/// Whether the old template is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum History {
    /// As a ReplicaSet without pods.
    #[default]
    Snapshot,
    /// It is not.
    None,
}

/// What happens to pods that differ after a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum DriftPolicy {
    /// They are counted.
    #[default]
    Report,
    /// They are changed.
    Repair,
}

/// When a TimeShareGroup holds the upgrade of a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum TimeSharePolicy {
    /// In the member's peak hours, and while the group switches.
    #[default]
    HoldDuringPeak,
    /// While the group switches.
    HoldDuringSwitch,
}
