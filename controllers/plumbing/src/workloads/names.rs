//! The names that the suite writes on pods and workloads, and that nobody else does.

use crate::traffic::Names;

/// Annotation of a pod: by which upgrade it was changed, and what it was before; see [`trace`](super::trace).
pub const RECORD_ANNOTATION: &str = "springtide.dev/in-place-upgrade";

/// Gate and label by which an upgrade turns traffic of a pod off and on.
pub const UPGRADE_TRAFFIC: Names = Names {
    gate: "springtide.dev/upgrade-ready",
    label: "springtide.dev/upgrade-serving",
    annotation: "springtide.dev/upgrade-drain",
};

/// Gate and label by which a TimeShareGroup turns traffic of its members' pods off and on.
pub const TIME_SHARE_TRAFFIC: Names = Names {
    gate: "springtide.dev/traffic",
    label: "springtide.dev/traffic-serving",
    annotation: "springtide.dev/traffic-drain",
};

/// Condition of a pod that a TimeShareGroup has given up in a switch: it is False, its reason is that of the status, and
/// its message names the switch.
pub const SKIPPED: &str = "springtide.dev/time-share";

/// Whether a label is one by which traffic of a live pod is turned off and on: its template says how a pod is born, and
/// what it is from then on is not held against it.
pub fn turns_traffic(label: &str) -> bool {
    [UPGRADE_TRAFFIC.label, TIME_SHARE_TRAFFIC.label].contains(&label)
}

/// Annotation of a Deployment that an upgrade has paused for the end of its run: UID of the object whose run it is.
pub const PAUSED_BY_ANNOTATION: &str = "springtide.dev/paused-by-upgrade";

/// Annotation of a ReplicaSet whose template was changed under its pods; see [`earlier`](super::earlier).
pub const EARLIER_ANNOTATION: &str = "springtide.dev/earlier-templates";

/// Label of a pod by which StatefulSet and DaemonSet tell its revision.
pub const CONTROLLER_REVISION_HASH: &str = "controller-revision-hash";
