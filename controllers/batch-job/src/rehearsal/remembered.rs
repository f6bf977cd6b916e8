//! What the manager remembers or has measured, and a snapshot does not hold, as far as statuses tell of it.

use super::Rehearsal;
use crate::admission::Trouble;
use crate::loads::Usage;
use crate::lock;
use crate::pod_groups::{GroupFacts, POD_GROUP, pod_group_key};
use crate::pods::QUEUE_LABEL;
use crate::profiles::status::{UsageApi, next};
use crate::projections::job::JobView;
use crate::projections::job_status::StoredCondition;
use crate::projections::pod::PodView;
use crate::projections::profile::{ProfileView, Recommended};
use crate::projections::queue::QueueView;
use crate::resources::parse_amount;
use jiff::Timestamp;
use serde_json::json;
use springtide_crds::batch_job::QueuedReason;
use springtide_crds::batch_queue::{
    CapacityStaleReason, CapacityType, GangSchedulingReason, Ordering, PeakWindowActiveReason, StalledReason,
};
use springtide_crds::reason::Reason;
use springtide_plumbing::error::{Refusal, WriteError};
use springtide_plumbing::key::ObjectKey;
use springtide_plumbing::plan::{Action, Write, WriteClass};
use springtide_plumbing::projection::Projection;
use std::sync::Arc;

impl Rehearsal {
    /// Pauses the classes of jobs whose status says that pods like theirs are refused: only the manager knows until
    /// when, and no rehearsal whether the API server would refuse them again.
    pub(super) fn pause_what_is_refused(&self) {
        let refused = self.world.jobs.iter().filter(|job| {
            job.status.active == 0 && !job.is_finished() && told(job, QueuedReason::ClassBackoff).is_some()
        });
        let mut admission = lock(&self.reconciler.admission);
        for job in refused {
            admission.pause(&job.meta().uid, Trouble::Create, self.now);
        }
    }

    /// Lets a node be kept for who waits for one, where the manager does so: somebody is told of it. Since when a class has
    /// found no node only the manager knows; by the statuses it is since its first job has waited.
    pub(super) fn remember_starved(&self) {
        let is_kept_from = |job: &Arc<JobView>| {
            told(job, QueuedReason::HeadBlocked).is_some() && !self.is_in_strict_queue(job)
        };
        if !self.world.jobs.iter().any(is_kept_from) {
            return;
        }
        let mut admission = lock(&self.reconciler.admission);
        for job in &self.world.jobs {
            if told(job, QueuedReason::NoCapacity).is_some()
                && let Some(since) = job.status.since(QueuedReason::CONDITION)
            {
                admission.starved_since(&job.meta().uid, since);
            }
        }
    }

    /// Nobody watches PodGroups: that there is one its pods tell, and that none is to be had now the queue.
    pub(super) fn remember_groups(&self) {
        for job in self.world.jobs.iter().filter(|job| job.spec.min_parallelism > 1) {
            let is_of_group = |pod: &Arc<PodView>| {
                pod.is_grouped && pod.job_owner().is_some_and(|owner| owner.uid == job.meta().uid)
            };
            if self.world.pods.iter().any(is_of_group) {
                let queue = job.status.queue.as_deref().unwrap_or_default();
                self.group_is_there(&job.meta().key, create_group(pod_group_key(job), queue));
            }
        }
        let groups = &self.reconciler.pod_groups;
        for queue in &self.world.queues {
            let refused = [GangSchedulingReason::NotServed, GangSchedulingReason::Refused];
            let said = queue.condition(GangSchedulingReason::CONDITION);
            let said = said.filter(|said| refused.iter().any(|reason| said.is(*reason)));
            if let Some(said) = said {
                let name = &queue.meta().key.name;
                let (message, fields) = (said.message.clone(), Vec::new());
                // Of whatever kind it was, this queue asks for none before long.
                let refusal = Refusal { code: 403, reason: String::new(), message, fields };
                let write = create_group(queue.meta().key.clone(), name);
                let outcome = Err(WriteError::Refused(refusal));
                groups.settle(&mut GroupFacts::default(), &write, &outcome, self.now);
            }
        }
    }

    fn is_in_strict_queue(&self, job: &JobView) -> bool {
        let name = job.status.queue.as_deref().unwrap_or_default();
        let is_its = |queue: &&Arc<QueueView>| {
            let key = &queue.meta().key;
            key.namespace == job.meta().key.namespace && *key.name == *name
        };
        self.world.queues.iter().find(is_its).is_some_and(|queue| is_strict(queue))
    }

    /// Nobody but the manager asks what is in use on the nodes. Where it knows, requests decide here, and of triggers
    /// the status says which are on; these hold their tiers and end nothing.
    pub(super) fn measure(&self) {
        let is_unknown = |queue: &Arc<QueueView>| unmeasured(queue).is_some() || is_metrics_old(queue);
        if let Some(nodes) = self.world.nodes.as_ref().filter(|_| !self.world.queues.iter().any(is_unknown)) {
            let names = nodes.iter().map(|node| Arc::clone(&node.meta().key.name));
            self.reconciler.take_load(Usage::idle(names, self.now));
        }
    }
}

/// The create of a PodGroup as far as it is told whose it is.
fn create_group(key: ObjectKey, queue: &str) -> Write {
    let manifest = json!({"metadata": {"labels": {QUEUE_LABEL: queue}}});
    Write { resource: POD_GROUP, key, class: WriteClass::Spec, action: Action::Create { manifest } }
}

/// A profile as its jobs are to see it: with what follows from its spec, where the manager has still to draw it from
/// what the runs have taught.
pub(super) fn concluded(profile: &Arc<ProfileView>, now: Timestamp) -> Arc<ProfileView> {
    if profile.status.observed_generation == profile.meta().generation {
        return Arc::clone(profile);
    }
    let status = next(profile, &[], UsageApi::default(), now);
    let amount = |resource: &str, text: &Option<String>| parse_amount(resource, text.as_deref()?);
    let recommended = status.containers.iter().map(|row| Recommended {
        container: row.name.as_str().into(),
        cpu: amount("cpu", &row.recommended.cpu),
        memory: amount("memory", &row.recommended.memory),
    });
    let mut shown = ProfileView::clone(profile);
    shown.recommended = recommended.collect();
    shown.status = status;
    Arc::new(shown)
}

/// What stands in condition Queued of a job, if it is this and about the job as it is.
fn told(job: &JobView, reason: QueuedReason) -> Option<&StoredCondition> {
    let said = job.condition(QueuedReason::CONDITION)?;
    (said.is(reason) && said.observed_generation == job.meta().generation).then_some(said)
}

/// Whether the first job that waits in a queue holds up all others.
pub(super) fn is_strict(queue: &QueueView) -> bool {
    match queue.spec.ordering {
        Ordering::StrictFifo => true,
        Ordering::PriorityFifo => false,
    }
}

/// Whether a queue says that its nodes were not measured lately.
pub(super) fn is_metrics_old(queue: &QueueView) -> bool {
    let said = queue.condition(CapacityStaleReason::CONDITION);
    said.is_some_and(|said| said.is(CapacityStaleReason::MetricsOld))
}

/// Whether a queue says that the manager may not see nodes.
pub(super) fn is_without_nodes(queue: &QueueView) -> bool {
    let said = queue.condition(StalledReason::CONDITION);
    said.is_some_and(|said| said.is(StalledReason::NodesNotVisible))
}

/// The trigger of which a queue says that it holds its tiers though it is not on, as nobody knows the load.
fn unmeasured(queue: &QueueView) -> Option<&str> {
    let said = queue.condition(PeakWindowActiveReason::CONDITION)?;
    let active = &queue.status.active_window.as_ref()?.name;
    let is_on = queue.status.active_load_triggers.contains(active);
    (said.is(PeakWindowActiveReason::LoadTrigger) && !is_on).then_some(active.as_str())
}

/// A queue as it is shown to the controller. Where nodes are not seen it counts by its quota alone; a trigger whose load
/// nobody knows holds as one does that is on and not measured.
pub(super) fn as_seen(queue: &Arc<QueueView>, sees_nodes: bool) -> Arc<QueueView> {
    let is_blind = !sees_nodes && !is_without_nodes(queue);
    let held = unmeasured(queue);
    if !is_blind && held.is_none() {
        return Arc::clone(queue);
    }
    let mut shown = QueueView::clone(queue);
    if is_blind {
        shown.spec.capacity_source.type_ = CapacityType::Static;
    }
    shown.status.active_load_triggers.extend(held.map(str::to_owned));
    Arc::new(shown)
}
