//! By what workloads, their pods and who resizes them are found.
//!
//! Stores are shared between controllers ([`WatchSet::share`](crate::watch::WatchSet::share)), and an index is known by its
//! name there: so each of these has one meaning for all of them.

use crate::projection::Projection;
use crate::store::{Index, IndexKey};
use crate::workloads::kinds::{ControllerRevisionView, ReplicaSetView};
use crate::workloads::pod::PodView;
use crate::workloads::vertical_pod_autoscaler::VerticalPodAutoscalerView;
use springtide_crds::in_place_upgrade::TargetKind;

/// Pods by the UID of their controlling owner.
pub const PODS_BY_OWNER: Index<PodView> = Index::new("owner", |pod| pod.owner().map(IndexKey::from));
/// Pods by the name of the node that they are bound to, those that have ended included.
pub const PODS_BY_NODE: Index<PodView> = Index::new("node", |pod| pod.node.as_ref().map(IndexKey::from));
/// ReplicaSets by the UID of their controlling owner.
pub const REPLICA_SETS_BY_OWNER: Index<ReplicaSetView> =
    Index::new("owner", |set| set.meta().controller.as_ref().map(|owner| IndexKey::from(&owner.uid)));
/// ControllerRevisions by the UID of their controlling owner.
pub const REVISIONS_BY_OWNER: Index<ControllerRevisionView> = Index::new("owner", |revision| {
    revision.meta().controller.as_ref().map(|owner| IndexKey::from(&owner.uid))
});
/// VerticalPodAutoscalers by their target: see [`workload_key`].
pub const AUTOSCALERS_BY_TARGET: Index<VerticalPodAutoscalerView> = Index::new("target", |autoscaler| {
    let (kind, name) = autoscaler.target.as_ref()?;
    Some(workload_key(*kind, &autoscaler.meta().key.namespace, name))
});

/// By what objects are found that name a workload as what they work on.
pub fn workload_key(kind: TargetKind, namespace: &str, name: &str) -> IndexKey {
    IndexKey::from(format!("{namespace}/{}/{name}", kind.as_str()).as_str())
}
