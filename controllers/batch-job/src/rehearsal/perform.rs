//! What a write makes of the objects in memory, as the API server, the kubelets and the garbage collector would
//! begin to.

use super::Rehearsal;
use crate::pod_groups::POD_GROUP;
use crate::projections::job::{BATCH_JOB, JobView};
use crate::projections::pod::PodView;
use crate::projections::profile::{BATCH_TASK_PROFILE, ProfileView};
use crate::resources::{PodSpecRequests, quantity_text};
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use springtide_crds::batch_job::BatchJobStatus;
use springtide_plumbing::clock::after;
use springtide_plumbing::controller::Reconciler;
use springtide_plumbing::executor::{Done, WriteResult};
use springtide_plumbing::key::{ObjectKey, Resource, ResourceVersion};
use springtide_plumbing::plan::{Action, Write};
use springtide_plumbing::projection::Projection;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Grace of a pod whose deletion names none, as Kubernetes has it by default.
const GRACE_SECONDS: u32 = 30;

/// A write that would be sent, for people and programs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedWrite {
    /// `create`, `patch` or `delete`, as the audit log names it.
    pub verb: String,
    /// Kind of the object.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `status`, or empty for the object itself.
    pub subresource: String,
    /// The BatchJob of a pod or PodGroup; empty for other kinds.
    pub job: String,
    /// What a pod that is created requests, as the scheduler adds it up; empty where it requests nothing.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, String>,
    /// Seconds from SIGTERM to SIGKILL of a pod that is ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_seconds: Option<u32>,
}

impl Rehearsal {
    /// A write as it is told.
    pub fn describe(&self, write: &Write) -> PlannedWrite {
        let job = match &write.action {
            _ if write.resource != Resource::POD && write.resource != POD_GROUP => String::new(),
            Action::Create { manifest } => owner(manifest),
            Action::Delete { .. } | Action::Patch { .. } | Action::Status { .. } => {
                let known = self.world.pods.iter().find(|pod| pod.meta().key == write.key);
                known.and_then(|pod| pod.job_name()).map(|name| name.to_string()).unwrap_or_default()
            }
        };
        let grace_seconds = match &write.action {
            Action::Delete { grace_seconds, .. } => *grace_seconds,
            Action::Create { .. } | Action::Patch { .. } | Action::Status { .. } => None,
        };
        let requests = match &write.action {
            Action::Create { manifest } if write.resource == Resource::POD => requests(manifest),
            Action::Create { .. } | Action::Delete { .. } | Action::Patch { .. } | Action::Status { .. } => {
                BTreeMap::new()
            }
        };
        PlannedWrite {
            verb: write.action.verb().to_owned(),
            kind: write.resource.kind.to_owned(),
            namespace: write.key.namespace.to_string(),
            name: write.key.name.to_string(),
            subresource: write.action.subresource().to_owned(),
            job,
            requests,
            grace_seconds,
        }
    }

    /// Changes the stores as a write of the plan for this key would. Kinds that no decision here rests on are left alone.
    pub(super) fn perform(&mut self, key: &ObjectKey, write: &Write) {
        if write.resource == Resource::POD {
            self.perform_on_pod(write);
        } else if write.resource == BATCH_JOB {
            self.perform_on_job(write);
        } else if write.resource == BATCH_TASK_PROFILE {
            self.perform_on_profile(write);
        } else if write.resource == POD_GROUP {
            self.group_is_there(key, write.clone());
        }
    }

    fn perform_on_pod(&mut self, write: &Write) {
        let stored = self.reconciler.stores.pods.get(&write.key);
        match (&write.action, stored) {
            (Action::Create { manifest }, None) => {
                let mut object = self.stored(manifest);
                object["status"] = json!({"phase": "Pending"});
                // What cannot be read the API server would refuse, with better words than there are here.
                if let Ok(pod) = serde_json::from_value::<PodView>(object) {
                    self.pods.apply(pod);
                }
            }
            (Action::Delete { grace_seconds, .. }, Some(pod)) => self.delete_pod(&pod, *grace_seconds),
            // The only one there is takes our finalizer away.
            (Action::Patch { .. }, Some(pod)) => {
                let version = self.next_version();
                let pod = pod.untracked(version);
                if pod.meta().is_deleting() && pod.meta().finalizers.is_empty() && !pod.may_run() {
                    self.pods.delete(pod);
                } else {
                    self.pods.apply(pod);
                }
            }
            (Action::Create { .. } | Action::Status { .. }, _)
            | (Action::Delete { .. } | Action::Patch { .. }, None) => {}
        }
    }

    /// What runs takes its room until it has ended, which no rehearsal waits for.
    fn delete_pod(&mut self, pod: &PodView, grace_seconds: Option<u32>) {
        let version = self.next_version();
        let grace = SignedDuration::from_secs(grace_seconds.unwrap_or(GRACE_SECONDS).into());
        let pod = pod.deleted(after(self.now, grace), version);
        if pod.meta().finalizers.is_empty() && !pod.may_run() {
            self.pods.delete(pod);
        } else {
            self.pods.apply(pod);
        }
    }

    fn perform_on_job(&mut self, write: &Write) {
        let Some(job) = self.reconciler.stores.jobs.get(&write.key) else { return };
        match &write.action {
            Action::Status { status, .. } => {
                // The planner has made it of such a one.
                if let Ok(status) = serde_json::from_value::<BatchJobStatus>(status.clone()) {
                    let version = self.next_version();
                    self.jobs.apply(job.with_status(status, version));
                }
            }
            Action::Delete { .. } => self.jobs.delete(JobView::clone(&job)),
            Action::Create { .. } | Action::Patch { .. } => {}
        }
    }

    fn perform_on_profile(&mut self, write: &Write) {
        match &write.action {
            Action::Create { manifest } if self.reconciler.stores.profiles.get(&write.key).is_none() => {
                // Its planner has made it.
                if let Ok(profile) = serde_json::from_value::<ProfileView>(self.stored(manifest)) {
                    self.profiles.apply(profile);
                }
            }
            Action::Create { .. } | Action::Delete { .. } | Action::Patch { .. } | Action::Status { .. } => {}
        }
    }

    /// Lets the controller know that the PodGroup of a job is there, which nobody watches.
    pub(super) fn group_is_there(&self, job: &ObjectKey, write: Write) {
        let outcome = Ok(Done { resource_version: None, noop: false });
        // Nobody waits for what the loop makes of it.
        let _ = self.reconciler.settle(job, &[WriteResult { write, outcome }], self.now);
    }

    /// A manifest as the API server stores it.
    fn stored(&mut self, manifest: &Value) -> Value {
        let version = self.next_version();
        let mut object = manifest.clone();
        object["metadata"]["uid"] = json!(format!("rehearsal-{version}"));
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        object["metadata"]["creationTimestamp"] = json!(self.now);
        object
    }

    fn next_version(&mut self) -> ResourceVersion {
        let version = self.version;
        self.version = ResourceVersion(version.0 + 1);
        version
    }
}

/// Name of the controlling owner in a manifest.
fn owner(manifest: &Value) -> String {
    let owners = manifest["metadata"]["ownerReferences"].as_array();
    let owner = owners.into_iter().flatten().find(|owner| owner["controller"] == true);
    owner.and_then(|owner| owner["name"].as_str()).unwrap_or_default().to_owned()
}

/// What the pod of a manifest requests.
fn requests(manifest: &Value) -> BTreeMap<String, String> {
    let Ok(spec) = PodSpecRequests::deserialize(&manifest["spec"]) else { return BTreeMap::new() };
    let requests = spec.of_template();
    // A pod is always one.
    let requests = requests.iter().filter(|(resource, _)| *resource != "pods");
    requests.map(|(resource, amount)| (resource.to_owned(), quantity_text(resource, amount))).collect()
}

/// An object put in the place of that of its key, or added.
pub(super) fn put<P: Projection>(objects: &mut Vec<Arc<P>>, object: Arc<P>) {
    let key: ObjectKey = object.meta().key.clone();
    match objects.iter_mut().find(|held| held.meta().key == key) {
        Some(held) => *held = object,
        None => objects.push(object),
    }
}
