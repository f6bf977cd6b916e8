//! The workload whose pods are changed: what its own controller knows of it, and from what it makes pods.

use serde_json::Value;
use springtide_crds::in_place_upgrade::TargetKind;
use springtide_plumbing::key::{ObjectKey, Uid};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::workloads::content::Digest;
use springtide_plumbing::workloads::kinds::{
    ControllerRevisionView, DaemonSetView, DeploymentView, ReplicaSetView, StatefulSetView,
};
use springtide_plumbing::workloads::names::CONTROLLER_REVISION_HASH;
use springtide_plumbing::workloads::pod::PodView;
use springtide_plumbing::workloads::template::Template;
use std::sync::Arc;

/// A workload and its revisions.
#[derive(Clone, Debug)]
pub enum Target {
    /// A Deployment.
    Deployment {
        /// The Deployment.
        deployment: Arc<DeploymentView>,
        /// The ReplicaSets that it owns, those that are being deleted left out, oldest first: the order in which its
        /// controller looks for one of a template.
        replica_sets: Vec<Arc<ReplicaSetView>>,
    },
    /// A ReplicaSet that nobody owns.
    ReplicaSet(Arc<ReplicaSetView>),
    /// A StatefulSet.
    StatefulSet {
        /// The StatefulSet.
        set: Arc<StatefulSetView>,
        /// The ControllerRevisions that it owns, oldest first.
        revisions: Vec<Arc<ControllerRevisionView>>,
    },
    /// A DaemonSet.
    DaemonSet {
        /// The DaemonSet.
        set: Arc<DaemonSetView>,
        /// The ControllerRevisions that it owns, oldest first.
        revisions: Vec<Arc<ControllerRevisionView>>,
    },
}

impl Target {
    /// A Deployment with its ReplicaSets in any order.
    pub fn deployment(deployment: Arc<DeploymentView>, mut replica_sets: Vec<Arc<ReplicaSetView>>) -> Self {
        replica_sets.retain(|set| !set.meta().is_deleting());
        replica_sets.sort_by(|a, b| {
            let order = |set: &ReplicaSetView| (set.meta().creation_time, set.meta().key.name.clone());
            order(a).cmp(&order(b))
        });
        Self::Deployment { deployment, replica_sets }
    }

    /// A StatefulSet with its ControllerRevisions in any order.
    pub fn stateful_set(set: Arc<StatefulSetView>, revisions: Vec<Arc<ControllerRevisionView>>) -> Self {
        Self::StatefulSet { set, revisions: in_order(revisions) }
    }

    /// A DaemonSet with its ControllerRevisions in any order.
    pub fn daemon_set(set: Arc<DaemonSetView>, revisions: Vec<Arc<ControllerRevisionView>>) -> Self {
        Self::DaemonSet { set, revisions: in_order(revisions) }
    }

    /// Its kind.
    pub fn kind(&self) -> TargetKind {
        match self {
            Self::Deployment { .. } => TargetKind::Deployment,
            Self::ReplicaSet(_) => TargetKind::ReplicaSet,
            Self::StatefulSet { .. } => TargetKind::StatefulSet,
            Self::DaemonSet { .. } => TargetKind::DaemonSet,
        }
    }

    /// Namespace and name.
    pub fn key(&self) -> &ObjectKey {
        match self {
            Self::Deployment { deployment, .. } => &deployment.meta().key,
            Self::ReplicaSet(set) => &set.meta().key,
            Self::StatefulSet { set, .. } => &set.meta().key,
            Self::DaemonSet { set, .. } => &set.meta().key,
        }
    }

    /// Its UID.
    pub fn uid(&self) -> &Uid {
        match self {
            Self::Deployment { deployment, .. } => &deployment.meta().uid,
            Self::ReplicaSet(set) => &set.meta().uid,
            Self::StatefulSet { set, .. } => &set.meta().uid,
            Self::DaemonSet { set, .. } => &set.meta().uid,
        }
    }

    /// Its own template.
    pub fn template(&self) -> &Arc<Template> {
        match self {
            Self::Deployment { deployment, .. } => &deployment.template,
            Self::ReplicaSet(set) => &set.template,
            Self::StatefulSet { set, .. } => &set.template,
            Self::DaemonSet { set, .. } => &set.template,
        }
    }

    /// `spec.selector`, by which it knows its pods.
    pub fn selector(&self) -> &Value {
        match self {
            Self::Deployment { deployment, .. } => &deployment.selector,
            Self::ReplicaSet(set) => &set.selector,
            Self::StatefulSet { set, .. } => &set.selector,
            Self::DaemonSet { set, .. } => &set.selector,
        }
    }

    /// Pods that it is to have.
    pub fn replicas(&self) -> u32 {
        match self {
            Self::Deployment { deployment, .. } => deployment.replicas,
            Self::ReplicaSet(set) => set.replicas,
            Self::StatefulSet { set, .. } => set.replicas,
            Self::DaemonSet { set, .. } => set.desired,
        }
    }

    /// `spec.minReadySeconds`.
    pub fn min_ready_seconds(&self) -> u32 {
        match self {
            Self::Deployment { deployment, .. } => deployment.min_ready_seconds,
            Self::ReplicaSet(set) => set.min_ready_seconds,
            Self::StatefulSet { set, .. } => set.min_ready_seconds,
            Self::DaemonSet { set, .. } => set.min_ready_seconds,
        }
    }

    /// Whether the status that its controller has written is of the present spec.
    pub fn is_observed(&self) -> bool {
        match self {
            Self::Deployment { deployment, .. } => {
                deployment.observed_generation >= deployment.meta().generation
            }
            // It decides nothing by a template.
            Self::ReplicaSet(_) => true,
            Self::StatefulSet { set, .. } => set.observed_generation >= set.meta().generation,
            Self::DaemonSet { set, .. } => set.observed_generation >= set.meta().generation,
        }
    }

    /// Of a Deployment the ReplicaSets that are to have pods; where it is scaled to nothing, the last that had.
    pub fn active(&self) -> Vec<&Arc<ReplicaSetView>> {
        let Self::Deployment { deployment, replica_sets } = self else { return Vec::new() };
        let scaled: Vec<_> = replica_sets.iter().filter(|set| set.replicas > 0).collect();
        if !scaled.is_empty() || deployment.replicas > 0 {
            return scaled;
        }
        // Of those of one revision, which there are for a moment when two changed places, the oldest counts.
        let newest = replica_sets.iter().rev().max_by_key(|set| set.revision);
        newest.into_iter().collect()
    }

    /// Of a Deployment the one ReplicaSet that is to have pods, if one alone is.
    pub fn one_active(&self) -> Option<&Arc<ReplicaSetView>> {
        match self.active()[..] {
            [one] => Some(one),
            _ => None,
        }
    }

    /// Whether a Deployment is to have pods and none of its ReplicaSets is: its controller has yet to scale one up.
    pub fn awaits_scaling(&self) -> bool {
        match self {
            Self::Deployment { replica_sets, .. } => !replica_sets.is_empty() && self.active().is_empty(),
            Self::ReplicaSet(_) | Self::StatefulSet { .. } | Self::DaemonSet { .. } => false,
        }
    }

    /// Whether a Deployment that was rolled out has no ReplicaSet any more.
    ///
    /// Where it keeps no history (`revisionHistoryLimit: 0`) and has no pods, its controller takes the only one for an old
    /// one as soon as the template is another, and deletes it; while it is paused it makes none, so that nothing would ever
    /// be scaled up (`cleanupDeployment`, `scale` of pkg/controller/deployment/sync.go, Kubernetes 1.37).
    pub fn has_lost_its_replica_sets(&self) -> bool {
        match self {
            Self::Deployment { deployment, replica_sets } => {
                deployment.revision > 0 && replica_sets.is_empty()
            }
            Self::ReplicaSet(_) | Self::StatefulSet { .. } | Self::DaemonSet { .. } => false,
        }
    }

    /// The revision that pods of the present template are of, of the kinds whose pods bear one; `None` also where its
    /// controller has not made it yet.
    ///
    /// The label is written on pods by its word alone: one of a revision that is older than the template would have the
    /// pod made anew.
    pub fn update_revision(&self) -> Option<&Arc<ControllerRevisionView>> {
        let newest = match self {
            Self::Deployment { .. } | Self::ReplicaSet(_) => return None,
            Self::StatefulSet { set, revisions } => {
                revisions.iter().find(|revision| revision.meta().key.name == set.update_revision)
            }
            Self::DaemonSet { revisions, .. } => revisions.last(),
        };
        newest.filter(|revision| self.is_observed() && revision.template.whole == self.template().whole)
    }

    /// Whether its controller knows of the present template.
    pub fn is_template_observed(&self) -> bool {
        match self {
            Self::Deployment { .. } | Self::ReplicaSet(_) => true,
            Self::StatefulSet { .. } | Self::DaemonSet { .. } => self.update_revision().is_some(),
        }
    }

    /// The template of the revision of a name: of a ReplicaSet the one that all of its pods were of last.
    pub fn revision(&self, name: &str) -> Option<&Arc<Template>> {
        match self {
            Self::Deployment { replica_sets, .. } => {
                let found = replica_sets.iter().find(|set| &*set.meta().key.name == name)?;
                match found.earlier.first() {
                    Some(first) => self.kept(first.whole),
                    None => Some(&found.template),
                }
            }
            Self::ReplicaSet(_) => None,
            Self::StatefulSet { revisions, .. } | Self::DaemonSet { revisions, .. } => {
                let found = revisions.iter().find(|revision| &*revision.meta().key.name == name);
                found.map(|revision| &revision.template)
            }
        }
    }

    /// The template from which the workload's controller holds this pod to be made: its *old content* as long as that
    /// is not the wish. `None` of a bare ReplicaSet, which knows its template alone, and of a pod whose revision is gone.
    pub fn template_of(&self, pod: &PodView) -> Option<&Arc<Template>> {
        match self {
            Self::Deployment { replica_sets, .. } => {
                let owner = replica_sets.iter().find(|set| Some(&set.meta().uid) == pod.owner())?;
                match owner.earlier.of(pod.meta().creation_time) {
                    // Of what was left long ago nothing is guessed when nobody keeps it any more.
                    Some(earlier) => self.kept(earlier.whole).or(earlier.is_left.then_some(&owner.template)),
                    None => Some(&owner.template),
                }
            }
            Self::ReplicaSet(_) => None,
            Self::StatefulSet { revisions, .. } | Self::DaemonSet { revisions, .. } => {
                let label = pod.meta().labels.get(CONTROLLER_REVISION_HASH)?;
                let found = revisions.iter().find(|revision| revision.pod_label() == label);
                found.map(|revision| &revision.template)
            }
        }
    }

    /// What of a pod's template could not be changed in place, where that is all that is known of it: nobody keeps the
    /// template any more.
    pub fn rest_of_lost(&self, pod: &PodView) -> Option<Digest> {
        let Self::Deployment { replica_sets, .. } = self else { return None };
        let owner = replica_sets.iter().find(|set| Some(&set.meta().uid) == pod.owner())?;
        let earlier = owner.earlier.of(pod.meta().creation_time).filter(|earlier| !earlier.is_left)?;
        self.kept(earlier.whole).is_none().then_some(earlier.rest)
    }

    /// The template of a digest, as far as the Deployment or one of its ReplicaSets has it.
    fn kept(&self, whole: Digest) -> Option<&Arc<Template>> {
        let Self::Deployment { deployment, replica_sets } = self else { return None };
        let mut templates = replica_sets.iter().map(|set| &set.template).chain([&deployment.template]);
        templates.find(|template| template.whole == whole)
    }

    /// Number of a StatefulSet's pod, by its name; `None` of other workloads and of foreign names.
    pub fn ordinal(&self, pod: &PodView) -> Option<u32> {
        let Self::StatefulSet { set, .. } = self else { return None };
        pod.meta().key.name.strip_prefix(&*set.meta().key.name)?.strip_prefix('-')?.parse().ok()
    }
}

fn in_order(mut revisions: Vec<Arc<ControllerRevisionView>>) -> Vec<Arc<ControllerRevisionView>> {
    revisions.sort_by(|a, b| {
        let order = |found: &ControllerRevisionView| (found.revision, found.meta().key.name.clone());
        order(a).cmp(&order(b))
    });
    revisions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{at, daemon_set, deployment, pod, replica_set, revision, stateful_set};
    use serde_json::json;
    use springtide_plumbing::workloads::earlier::EarlierTemplates;

    #[test]
    fn the_active_replica_set_is_the_one_that_is_to_have_pods() {
        let sets = [replica_set("old", 1, 0, "app:1"), replica_set("new", 2, 3, "app:2")];
        let target = Target::deployment(deployment(3, "app:2", json!({})), sets.to_vec());
        assert_eq!(&*target.one_active().unwrap().meta().key.name, "new");
        let both = [replica_set("old", 1, 1, "app:1"), replica_set("new", 2, 3, "app:2")];
        let target = Target::deployment(deployment(3, "app:2", json!({})), both.to_vec());
        assert!(target.one_active().is_none());
        let none = [replica_set("old", 4, 0, "app:1"), replica_set("new", 2, 0, "app:2")];
        let empty = Target::deployment(deployment(0, "app:1", json!({})), none.to_vec());
        assert_eq!(&*empty.one_active().unwrap().meta().key.name, "old");
        let unmade = Target::deployment(deployment(3, "app:2", json!({})), none.to_vec());
        assert!(
            unmade.one_active().is_none() && unmade.awaits_scaling(),
            "its controller has yet to scale one up"
        );
        assert!(!empty.awaits_scaling() && !target.awaits_scaling());
    }

    #[test]
    fn a_deployment_that_was_rolled_out_and_has_no_replica_set_has_lost_it() {
        let rolled_out = || json!({"metadata": {"annotations": {"deployment.kubernetes.io/revision": "4"}}});
        let lost =
            |over, sets| Target::deployment(deployment(0, "app:2", over), sets).has_lost_its_replica_sets();
        assert!(lost(rolled_out(), Vec::new()));
        assert!(!lost(rolled_out(), vec![replica_set("rs", 4, 0, "app:1")]));
        assert!(!lost(json!({}), Vec::new()), "it never had one");
    }

    #[test]
    fn a_pod_of_a_replica_set_whose_template_was_changed_is_of_that_of_its_time() {
        let old = replica_set("kept", 1, 0, "app:1");
        let mut set = ReplicaSetView::clone(&replica_set("rs", 2, 3, "app:2"));
        set.earlier = EarlierTemplates::default().opened(&old.template).closed(Some(at(0)));
        let target =
            |sets: Vec<Arc<ReplicaSetView>>| Target::deployment(deployment(3, "app:2", json!({})), sets);
        let image = |target: &Target, second: i64| {
            let created = json!({"metadata": {"creationTimestamp": at(second).to_string()}});
            let template = target.template_of(&pod("web-1", created));
            template.map(|template| template.content.containers["app"].image.to_string())
        };
        let kept = target(vec![Arc::new(set.clone()), old.clone()]);
        assert_eq!((image(&kept, 0).as_deref(), image(&kept, 1).as_deref()), (Some("app:1"), Some("app:2")));
        assert_eq!(&*kept.revision("rs").unwrap().content.containers["app"].image, "app:1");
        let mut left = set.clone();
        left.earlier = left.earlier.settled(true);
        let left_out = target(vec![Arc::new(left.clone()), old.clone()]);
        assert_eq!(image(&left_out, 0).as_deref(), Some("app:1"));
        assert_eq!(image(&left_out, 1).as_deref(), Some("app:2"));
        let revision = left_out.revision("rs").unwrap();
        assert_eq!(&*revision.content.containers["app"].image, "app:2", "all others are of that");
        let forgotten = target(vec![Arc::new(left)]);
        assert_eq!(image(&forgotten, 0).as_deref(), Some("app:2"));
        assert_eq!(forgotten.rest_of_lost(&pod("web-1", json!({}))), None);
        let lost = target(vec![Arc::new(set)]);
        assert_eq!((image(&lost, 0), image(&lost, 1).as_deref()), (None, Some("app:2")));
        assert_eq!(lost.rest_of_lost(&pod("web-1", json!({}))), Some(old.template.rest));
        assert_eq!(kept.rest_of_lost(&pod("web-1", json!({}))), None);
    }

    #[test]
    fn the_revision_of_new_pods_counts_only_once_it_equals_the_template() {
        let revisions = || vec![revision("db-2", 2, "app:2"), revision("db-1", 1, "app:1")];
        let set = |update: &str, observed: i64| {
            let status =
                json!({"updateRevision": update, "currentRevision": "db-1", "observedGeneration": observed});
            Target::stateful_set(stateful_set(3, "app:2", json!({}), status), revisions())
        };
        assert_eq!(&**set("db-2", 1).update_revision().unwrap().pod_label(), "db-2");
        assert!(set("db-1", 1).update_revision().is_none(), "its controller has not seen the template");
        assert!(set("db-2", 0).update_revision().is_none(), "the status is of an older template");
        let daemon = Target::daemon_set(daemon_set(3, "app:2", true), revisions());
        assert!(daemon.is_template_observed());
        let daemon = Target::daemon_set(daemon_set(3, "app:3", true), revisions());
        assert!(!daemon.is_template_observed());
    }

    #[test]
    fn a_pod_is_of_the_revision_that_it_names() {
        let set = stateful_set(3, "app:2", json!({}), json!({}));
        let target =
            Target::stateful_set(set, vec![revision("db-1", 1, "app:1"), revision("db-2", 2, "app:2")]);
        let of = |label: &str| {
            let pod = pod("db-0", json!({"metadata": {"labels": {"controller-revision-hash": label}}}));
            target.template_of(&pod).map(|template| template.content.containers["app"].image.to_string())
        };
        assert_eq!(of("db-1").as_deref(), Some("app:1"));
        assert_eq!(of("db-2").as_deref(), Some("app:2"));
        assert_eq!(of("gone"), None);
        assert_eq!(target.ordinal(&pod("db-12", json!({}))), Some(12));
        assert_eq!(target.ordinal(&pod("other-1", json!({}))), None);
    }
}
