//! PodGroups of `scheduling.k8s.io`: they have the scheduler place the pods of a gang all at once or not at all.
//!
//! The admission decides when a gang starts, by counting what fits; a PodGroup makes that atomic on the nodes. It is
//! made right before the first pod of a job, goes with the job, and nobody watches it: whether the cluster serves
//! the kind at all is learned from the answer to a create. Where it does not, the count alone decides, and the queue
//! says so.

use crate::lock;
use crate::plan::JobState;
use crate::pods::{JOB_LABEL, QUEUE_LABEL, owner_reference};
use crate::projections::job::JobView;
use crate::queues::Placement;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use springtide_crds::batch_queue::GangScheduler;
use springtide_plumbing::clock::after;
use springtide_plumbing::key::{ObjectKey, Resource};
use springtide_plumbing::plan::{Action, Write, WriteClass};
use springtide_plumbing::projection::Projection;
use std::sync::Mutex;

/// `scheduling.k8s.io/v1beta1` PodGroup, of Kubernetes 1.37.
pub const POD_GROUP: Resource = Resource {
    group: "scheduling.k8s.io",
    version: "v1beta1",
    kind: "PodGroup",
    plural: "podgroups",
    namespaced: true,
};

/// A cluster that does not serve the kind is asked again so long after: the API may have been enabled.
const ASK_AGAIN: SignedDuration = SignedDuration::from_secs(600);
/// Hexadecimal digits of the job's UID in the name of its group.
const UID_DIGITS: usize = 8;

/// What a job has to do with a PodGroup now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupUse {
    /// Nothing: it is no gang, its queue does not ask for it, or the cluster does not serve the kind.
    #[default]
    None,
    /// It is made before the first pod that refers to it.
    Make,
    /// It is there.
    There,
}

/// Whether the cluster takes PodGroups, as far as a create has told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Service {
    /// Nobody has tried.
    #[default]
    Unknown,
    /// It does.
    Served,
    /// It does not, in the words of the API server.
    Refused {
        /// When it said so.
        at: Timestamp,
        /// What it said.
        message: String,
    },
}

/// What this process knows of it.
#[derive(Debug, Default)]
pub(crate) struct PodGroups(Mutex<Service>);

impl PodGroups {
    /// What is known now.
    pub(crate) fn service(&self) -> Service {
        lock(&self.0).clone()
    }

    /// A group could be made, or was there.
    pub(crate) fn served(&self) {
        *lock(&self.0) = Service::Served;
    }

    /// The server refused one.
    pub(crate) fn refused(&self, message: String, now: Timestamp) {
        *lock(&self.0) = Service::Refused { at: now, message };
    }

    /// What a job has to do with one; `is_there` is whether its own is known to be.
    pub(crate) fn use_of(
        &self,
        job: &JobView,
        placement: &Placement,
        is_there: bool,
        now: Timestamp,
    ) -> GroupUse {
        match placement.gang_scheduler {
            GangScheduler::PodGroup if job.spec.min_parallelism > 1 => {}
            GangScheduler::PodGroup | GangScheduler::None => return GroupUse::None,
        }
        match &*lock(&self.0) {
            _ if is_there => GroupUse::There,
            // A refusal that lies ahead was before the clock was put back.
            Service::Refused { at, .. } if *at <= now && now < after(*at, ASK_AGAIN) => GroupUse::None,
            Service::Refused { .. } | Service::Unknown | Service::Served => GroupUse::Make,
        }
    }
}

/// Key of the group of one incarnation of a job: one that is left of an earlier job of the name is on its way out.
pub fn pod_group_key(job: &JobView) -> ObjectKey {
    let meta = job.meta();
    let digits: String = meta.uid.0.chars().filter(char::is_ascii_alphanumeric).take(UID_DIGITS).collect();
    let name = format!("{}-{}", meta.key.name, digits.to_ascii_lowercase());
    ObjectKey { namespace: meta.key.namespace.clone(), name: name.into() }
}

/// The write that makes the group of a job whose pods have this PriorityClass: the scheduler goes by that of the
/// group.
pub fn create(state: &JobState, priority_class: Option<&str>) -> Write {
    let job = &state.job;
    let key = pod_group_key(job);
    let mut manifest = json!({
        "apiVersion": POD_GROUP.api_version(),
        "kind": POD_GROUP.kind,
        "metadata": {
            "namespace": key.namespace,
            "name": key.name,
            "labels": {
                JOB_LABEL: job.meta().key.name,
                QUEUE_LABEL: state.placement.queue_name().unwrap_or_default(),
            },
            "ownerReferences": [owner_reference(job)],
        },
        "spec": {"schedulingPolicy": {"gang": {"minCount": job.spec.min_parallelism}}},
    });
    if let Some(class) = priority_class {
        manifest["spec"]["priorityClassName"] = json!(class);
    }
    Write { resource: POD_GROUP, key, class: WriteClass::Spec, action: Action::Create { manifest } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn job(min_parallelism: u32) -> JobView {
        let spec: Value =
            json!({"parallelism": 9, "completions": 9, "minParallelism": min_parallelism, "template": {}});
        let meta = json!({"namespace": "ns", "name": "a".repeat(52), "uid": "0A1b-2c3d-4e5f"});
        serde_json::from_value(json!({"metadata": meta, "spec": spec})).unwrap()
    }

    fn asks() -> Placement {
        Placement { gang_scheduler: GangScheduler::PodGroup, ..Placement::default() }
    }

    #[test]
    fn a_gang_has_a_group_where_its_queue_asks_for_it_and_the_cluster_takes_it() {
        let (groups, now) = (PodGroups::default(), Timestamp::UNIX_EPOCH);
        let of = |job: &JobView, placement: &Placement, now| groups.use_of(job, placement, false, now);
        assert_eq!(of(&job(2), &asks(), now), GroupUse::Make);
        assert_eq!(of(&job(1), &asks(), now), GroupUse::None, "it is no gang");
        assert_eq!(of(&job(2), &Placement::default(), now), GroupUse::None, "nobody asks for it");
        assert_eq!(groups.use_of(&job(2), &asks(), true, now), GroupUse::There);
        groups.refused("not found".to_owned(), now);
        assert_eq!(of(&job(2), &asks(), now), GroupUse::None);
        assert_eq!(of(&job(2), &asks(), after(now, ASK_AGAIN)), GroupUse::Make, "it is asked for again");
        groups.served();
        assert_eq!(of(&job(2), &asks(), now), GroupUse::Make);
    }

    #[test]
    fn each_incarnation_has_a_name_of_its_own() {
        let key = pod_group_key(&job(2));
        assert_eq!(&*key.name, format!("{}-0a1b2c3d", "a".repeat(52)));
        assert!(key.name.len() <= 63);
    }
}
