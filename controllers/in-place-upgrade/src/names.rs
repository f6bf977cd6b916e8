//! The names that this controller alone writes; those that others know too are in
//! [`workloads::names`](springtide_plumbing::workloads::names).

/// Annotation by which a ReplicaSet chooses whom to delete first; a changed pod has [`SPARED_COST`] where it had none,
/// as restarts would else count against it.
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Deletion cost of a changed pod.
pub const SPARED_COST: &str = "1";

/// Field manager of what we apply.
pub const FIELD_MANAGER: &str = "springtide-in-place-upgrade";
