//! The names that this controller writes on objects of others, and that nobody else does.

use springtide_plumbing::traffic::Names;

/// Annotation of a pod: by which run it was changed, and what it was before. See [`crate::record`].
pub const RECORD_ANNOTATION: &str = "springtide.dev/in-place-upgrade";

/// Gate and label by which traffic of a pod is turned off.
pub const TRAFFIC: Names = Names {
    gate: "springtide.dev/upgrade-ready",
    label: "springtide.dev/upgrade-serving",
    annotation: "springtide.dev/upgrade-drain",
};

/// Label by which a TimeShareGroup turns traffic of its members' pods off and on.
const TIME_SHARE_LABEL: &str = "springtide.dev/traffic-serving";

/// Whether a label is one by which traffic of a live pod is turned off and on: its template says how a pod is born, and
/// what it is from then on is not held against it.
pub fn turns_traffic(label: &str) -> bool {
    label == TRAFFIC.label || label == TIME_SHARE_LABEL
}

/// Annotation of a Deployment that we have paused for the end of a run: UID of the object whose run it is.
pub const PAUSED_BY_ANNOTATION: &str = "springtide.dev/paused-by-upgrade";

/// Annotation of a ReplicaSet whose template was changed under its pods; see [`earlier`](crate::earlier).
pub const EARLIER_ANNOTATION: &str = "springtide.dev/earlier-templates";

/// Label of a pod by which StatefulSet and DaemonSet tell its revision.
pub const CONTROLLER_REVISION_HASH: &str = "controller-revision-hash";

/// Annotation by which a ReplicaSet chooses whom to delete first; a changed pod has [`SPARED_COST`] where it had none,
/// as restarts would else count against it.
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Deletion cost of a changed pod.
pub const SPARED_COST: &str = "1";

/// Field manager of what we apply.
pub const FIELD_MANAGER: &str = "springtide-in-place-upgrade";
