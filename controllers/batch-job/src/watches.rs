//! What this controller watches, and which keys a change wakes.
//!
//! | kind | projection | selector | index | wakes |
//! |---|---|---|---|---|
//! | BatchJob | [`JobView`] | all | [`JOBS_BY_PROFILE`] | itself; jobs that the maximum or the history concerns; its profile |
//! | BatchTaskProfile | [`ProfileView`] | all | - | itself; the jobs with its key that have not ended, when it recommends otherwise |
//! | Pod | [`PodView`] | all: every pod takes room | [`PODS_BY_JOB`] | its job, the admission |
//! | Node | [`NodeView`](crate::projections::node::NodeView) | all, but none where only some namespaces are watched | - | the admission |
//! | BatchQueue | [`QueueView`] | all | - | itself, the jobs of its namespace, the admission |
//! | PriorityClass | [`PriorityClassView`] | as for Node | - | the queues whose tiers name it |
//! | TimeShareGroup, if there is such a kind | [`TimeShareGroupView`](springtide_plumbing::time_share::TimeShareGroupView) | all | - | the queues that follow its peaks, the admission |
//! | ReferenceGrant, if there is such a kind | [`ReferenceGrantView`](springtide_plumbing::time_share::ReferenceGrantView) | all | - | the queues that follow groups of its namespace from others |

mod groups;
mod stores;

use crate::admission::{Admission, QueueId};
use crate::loads::{StoredLoads, sampler};
use crate::projections::job::JobView;
use crate::projections::pod::PodView;
use crate::projections::priority_class::PriorityClassView;
use crate::projections::profile::ProfileView;
use crate::projections::queue::QueueView;
use crate::queues::rules;
use crate::{BatchJobReconciler, lock};
use springtide_plumbing::key::ObjectKey;
use springtide_plumbing::projection::Projection;
use springtide_plumbing::queue::{Priority, Urgency, WorkQueue};
use springtide_plumbing::store::{Change, FreshListener, Index, IndexKey};
use std::sync::Arc;

pub use stores::Stores;

/// Pods by the BatchJob they belong to, whichever incarnation of it: see [`pods_of_job`].
pub const PODS_BY_JOB: Index<PodView> = Index::new("batchjob", |pod| {
    let meta = pod.meta();
    Some(pods_of_job(&ObjectKey { namespace: meta.key.namespace.clone(), name: pod.job_name()?.clone() }))
});

/// The key of [`PODS_BY_JOB`] for one job name.
pub fn pods_of_job(job: &ObjectKey) -> IndexKey {
    IndexKey::from(format!("{}/{}", job.namespace, job.name).as_str())
}

/// Jobs by the profile that learns of them: see [`jobs_of_profile`].
pub const JOBS_BY_PROFILE: Index<JobView> =
    Index::new("batchtaskprofile", |job| job.profile_key().map(|profile| jobs_of_profile(&profile)));

/// The key of [`JOBS_BY_PROFILE`] for one profile.
pub fn jobs_of_profile(profile: &ObjectKey) -> IndexKey {
    IndexKey::from(format!("{}/{}", profile.namespace, profile.name).as_str())
}

/// Whether this change is the one by which an object has ended.
pub(crate) fn ends<P>(old: Option<&P>, new: &P, has_ended: impl Fn(&P) -> bool) -> bool {
    has_ended(new) && !old.is_some_and(has_ended)
}

/// The key under which the admission itself runs: no object bears it, as every BatchJob has a namespace.
pub(crate) fn admission() -> ObjectKey {
    ObjectKey::new("", "admission")
}

/// Whether a key is that of the admission.
pub(crate) fn is_admission(key: &ObjectKey) -> bool {
    key.namespace.is_empty()
}

impl BatchJobReconciler {
    /// Lets the stores fill the queue, from the moment all of them are listed: before, a job would look
    /// as if it had no pods. Nothing happens but by the future, which is done when that is so.
    pub fn wire(self: &Arc<Self>, queue: &WorkQueue<ObjectKey>) -> impl Future<Output = ()> + Send + use<> {
        // Only the first queue is taken; a reconciler has one.
        let _ = self.queue.set(queue.clone());
        let this = Arc::clone(self);
        async move {
            let stores = &this.stores;
            let nodes = async {
                if let Some(nodes) = &stores.nodes {
                    nodes.synced().await;
                }
            };
            let classes = async {
                if let Some(classes) = &stores.priority_classes {
                    classes.synced().await;
                }
            };
            let (jobs, pods) = (stores.jobs.synced(), stores.pods.synced());
            let (profiles, queues) = (stores.profiles.synced(), stores.queues.synced());
            tokio::join!(nodes, classes, pods, jobs, profiles, queues, stores.time_shares.synced());
            this.listen();
        }
    }

    /// Registers the listeners; each is told first of what its store holds. Room comes before what takes
    /// room, and that before who asks for it.
    pub(crate) fn listen(self: &Arc<Self>) {
        // What was not granted on the word of stale stores is asked for again.
        let this = Arc::clone(self);
        let admit: FreshListener = Arc::new(move || this.wake(admission(), Priority::High, Urgency::Routine));
        self.stores.pods.on_fresh(Arc::clone(&admit));
        if let Some(nodes) = &self.stores.nodes {
            nodes.on_fresh(admit);
            let this = Arc::clone(self);
            nodes.on_change(Arc::new(move |change| {
                lock(&this.admission).node_changed(change);
                this.wake(admission(), Priority::High, Urgency::Routine);
            }));
        }
        let this = Arc::clone(self);
        self.stores.queues.on_change(Arc::new(move |change| this.queue_changed(change)));
        let this = Arc::clone(self);
        self.stores
            .time_shares
            .groups
            .on_change(Arc::new(move |change| this.time_share_group_changed(change)));
        let this = Arc::clone(self);
        self.stores.time_shares.grants.on_change(Arc::new(move |change| this.grant_changed(change)));
        if let Some(classes) = &self.stores.priority_classes {
            let this = Arc::clone(self);
            classes.on_change(Arc::new(move |change| this.priority_class_changed(change)));
        }
        let this = Arc::clone(self);
        self.stores.pods.on_change(Arc::new(move |change| this.pod_changed(change)));
        let this = Arc::clone(self);
        self.stores.profiles.on_change(Arc::new(move |change| this.profile_changed(change)));
        let this = Arc::clone(self);
        self.stores.jobs.on_change(Arc::new(move |change| this.job_changed(change)));
    }

    /// Jobs that still start pods learn what these are to request from now on.
    fn profile_changed(&self, change: &Change<ProfileView>) {
        let key = &change.object().meta().key;
        let is_other = match change {
            Change::Apply { initial: true, .. } => false,
            Change::Apply { old: Some(old), new, .. } => {
                old.recommended != new.recommended
                    || old.spec.max_mode != new.spec.max_mode
                    || old.p95_seconds() != new.p95_seconds()
            }
            Change::Apply { old: None, .. } => true,
            Change::Delete { .. } => {
                lock(&self.fittings).forget(key);
                true
            }
        };
        if !is_other {
            return;
        }
        for job in self.stores.jobs.by_index(&JOBS_BY_PROFILE, &jobs_of_profile(key)) {
            if !job.is_finished() {
                self.wake(job.meta().key.clone(), Priority::Low, Urgency::Routine);
            }
        }
    }

    fn pod_changed(&self, change: &Change<PodView>) {
        lock(&self.admission).pod_changed(change);
        self.wake(admission(), Priority::High, Urgency::Routine);
        let (priority, before) = match change {
            Change::Apply { old: Some(old), new, initial: false } if old.is_same_for_job(new) => return,
            Change::Apply { initial: true, .. } => (Priority::Low, None),
            // Whoever gives back goes before whoever takes: under load pods that have ended would else wait
            // for a release behind all that is still to be created.
            Change::Apply { old, new, .. } if ends(old.as_deref(), new, PodView::is_terminal) => {
                (Priority::High, old.as_ref())
            }
            Change::Apply { old, .. } => (Priority::Normal, old.as_ref()),
            Change::Delete { last } => (Priority::Normal, Some(last)),
        };
        // The job it belonged to matters too: taking its owner away is a change for that one.
        for pod in [Some(change.object()), before].into_iter().flatten() {
            if let Some(job) = pod.job_name() {
                let job = ObjectKey { namespace: pod.meta().key.namespace.clone(), name: job.clone() };
                self.wake(job, priority, Urgency::Routine);
            }
        }
        // A gang becomes whole only by a pod that it has got.
        let has_grown = match change {
            Change::Apply { old: Some(old), new, .. } => {
                old.meta().uid != new.meta().uid || old.job_owner() != new.job_owner()
            }
            Change::Apply { old: None, .. } => true,
            Change::Delete { .. } => false,
        };
        if has_grown {
            self.witness_gang(change.object());
        }
        if change.present().is_none()
            && let Some(job) = lock(&self.conflicts).remove(&change.object().meta().key)
        {
            self.wake(job, Priority::Normal, Urgency::Routine);
        }
    }

    fn job_changed(&self, change: &Change<JobView>) {
        let concerned = lock(&self.ceiling).apply(change);
        let gone = match change {
            Change::Apply { old, new, .. } => old.as_ref().filter(|old| old.meta().uid != new.meta().uid),
            Change::Delete { last } => Some(last),
        };
        if let Some(job) = gone {
            self.archive.forget(&job.meta().uid);
        }
        for job in concerned {
            self.wake(job, Priority::Low, Urgency::Routine);
        }
        let (priority, urgency) = match change {
            // Who waits is known before anybody is written for: that costs no write, and what is free is not only
            // for those whose turn comes soon.
            Change::Apply { new, initial: true, .. } if !new.is_finished() && new.status.active == 0 => {
                (Priority::Normal, Urgency::Routine)
            }
            Change::Apply { initial: true, .. } => (Priority::Low, Urgency::Routine),
            Change::Apply { old, new, initial: false } => {
                let edited = old.as_ref().is_some_and(|old| {
                    old.meta().generation != new.meta().generation
                        || old.meta().is_deleting() != new.meta().is_deleting()
                });
                if edited {
                    (Priority::High, Urgency::BreaksBackoff)
                } else if ends(old.as_deref(), new, JobView::is_finished) {
                    (Priority::High, Urgency::Routine)
                } else {
                    (Priority::Normal, Urgency::Routine)
                }
            }
            Change::Delete { last } => {
                self.job_left(last);
                (Priority::High, Urgency::BreaksBackoff)
            }
        };
        self.wake(change.object().meta().key.clone(), priority, urgency);
    }

    fn queue_changed(&self, change: &Change<QueueView>) {
        let key = change.object().meta().key.clone();
        let queue = change.present();
        // What is written into its status is no news to anybody, but for the end of a peak that was forced.
        let stored = queue.and_then(|queue| queue.status.active_window.clone());
        {
            let mut admission = lock(&self.admission);
            admission.peak_stored(&key, stored.as_ref());
            if let Some(queue) = queue {
                admission.loads_stored(&key, StoredLoads::of(&queue.status));
            }
        }
        let (is_edited, is_first) = match change {
            Change::Apply { old: Some(old), new, .. } => {
                let (old, new) = (old.meta(), new.meta());
                ((&old.uid, old.generation) != (&new.uid, new.generation), false)
            }
            Change::Apply { old: None, initial, .. } => (true, *initial),
            Change::Delete { .. } => (true, false),
        };
        if !is_edited {
            return;
        }
        let peaks = queue.map(|queue| self.stores.peaks_of_queue(queue));
        let woken = {
            let rules = queue.map(|queue| rules::rules(queue));
            let id = QueueId::Object(key.clone());
            let mut admission = lock(&self.admission);
            let woken = admission.queue_changed(&id, rules);
            admission.peaks_changed(&id, peaks, stored);
            if let Some(queue) = queue {
                admission.loads_stored(&key, StoredLoads::of(&queue.status));
            }
            woken
        };
        if queue.is_some_and(|queue| sampler::asks(queue)) {
            self.load_asked.notify_one();
        }
        if queue.is_none() {
            self.archive.forget_queue(&key);
        }
        let limit = queue.map(|queue| queue.spec.retention.history_limit as usize);
        let beyond = lock(&self.ceiling).set_history_limit(&key, limit);
        for job in beyond {
            self.wake(job, Priority::Low, Urgency::Routine);
        }
        for job in woken {
            self.wake(job, Priority::Normal, Urgency::Routine);
        }
        if !is_first {
            self.wake_jobs_of(&key.namespace);
        }
        self.wake(admission(), Priority::High, Urgency::Routine);
        self.wake_queue(key, Urgency::BreaksBackoff);
    }

    /// Any job of a namespace may be in another queue now, or have other pods there.
    fn wake_jobs_of(&self, namespace: &str) {
        for job in self.stores.jobs.list(Some(namespace)) {
            let priority = if job.is_finished() { Priority::Low } else { Priority::Normal };
            self.wake(job.meta().key.clone(), priority, Urgency::Routine);
        }
    }

    fn priority_class_changed(&self, change: &Change<PriorityClassView>) {
        match change {
            Change::Apply { initial: true, .. } | Change::Apply { old: Some(_), .. } => return,
            Change::Apply { old: None, .. } | Change::Delete { .. } => {}
        }
        let name = &change.object().meta().key.name;
        let concerned = self.stores.queues.list(None).into_iter().filter(|queue| {
            queue.tiers().iter().any(|tier| tier.priority_class_name.as_deref() == Some(&**name))
        });
        for queue in concerned {
            let key = &queue.meta().key;
            self.wake_queue(key.clone(), Urgency::Routine);
            self.wake_jobs_of(&key.namespace);
        }
    }

    /// Tells the admission how far what it knows can be relied on.
    pub(crate) fn ready(&self, admission: &mut Admission, now: jiff::Timestamp) {
        admission.set_ready(self.stores.are_synced(), self.stores.staleness());
        admission.seen_at(self.stores.seen_at(now));
        if let Some(rates) = self.rates.get() {
            admission.set_write_rates(rates());
        }
    }

    pub(crate) fn wake(&self, key: ObjectKey, priority: Priority, urgency: Urgency) {
        if let Some(queue) = self.queue.get() {
            queue.add(key, priority, urgency);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::projections::node::NodeView;
    use futures::FutureExt;
    use springtide_plumbing::key::ResourceVersion;
    use springtide_plumbing::queue::{Item, Next};
    use springtide_plumbing::store::{Store, StoreWriter};
    use springtide_plumbing::time_share::TimeShares;
    use springtide_plumbing::watch::STALE_AFTER;
    use std::collections::BTreeMap;

    fn pod(version: u32, phase: &str, finalizers: &[&str]) -> PodView {
        let owner = serde_json::json!(
            {"apiVersion": "springtide.dev/v1alpha1", "kind": "BatchJob", "name": "a", "uid": "a", "controller": true}
        );
        let pod = serde_json::json!({
            "metadata": {
                "namespace": "ns", "name": "a-0-0", "uid": "p", "resourceVersion": version.to_string(),
                "ownerReferences": [owner], "finalizers": finalizers,
            },
            "spec": {"nodeName": "n"},
            "status": {"phase": phase},
        });
        serde_json::from_value(pod).expect("a pod")
    }

    /// A controller that has begun to listen to its stores, of which nothing is known yet.
    struct Rig {
        reconciler: Arc<BatchJobReconciler>,
        queue: WorkQueue<ObjectKey>,
        jobs: StoreWriter<JobView>,
        pods: StoreWriter<PodView>,
        nodes: StoreWriter<NodeView>,
    }

    impl Rig {
        fn new() -> Self {
            let (jobs, job_writer) = Store::new(&[JOBS_BY_PROFILE]);
            let (pods, pod_writer) = Store::new(&[PODS_BY_JOB]);
            let (nodes, node_writer) = Store::new(&[]);
            let ((profiles, _), (queues, _)) = (Store::new(&[]), Store::new(&[]));
            let stores = Stores {
                jobs,
                pods,
                profiles,
                nodes: Some(nodes),
                queues,
                priority_classes: None,
                time_shares: TimeShares::of(&[], &[]),
            };
            let reconciler = BatchJobReconciler::new(stores);
            let queue = WorkQueue::new(1);
            let _ = reconciler.queue.set(queue.clone());
            reconciler.listen();
            Self { reconciler, queue, jobs: job_writer, pods: pod_writer, nodes: node_writer }
        }

        /// Takes a key from the queue, as a worker that does nothing with it.
        fn next(&self) -> Option<Item<ObjectKey>> {
            let item = self.queue.next().now_or_never().flatten()?;
            self.queue.done(&item.key, Next::Success);
            Some(item)
        }

        /// The same of all keys of jobs that are queued.
        fn jobs_in_turn(&self) -> Vec<Item<ObjectKey>> {
            std::iter::from_fn(|| self.next()).filter(|item| !is_admission(&item.key)).collect()
        }
    }

    fn job(name: &str, status: serde_json::Value) -> JobView {
        let job = serde_json::json!({
            "metadata": {"namespace": "ns", "name": name, "uid": name, "resourceVersion": "1", "generation": 1,
                "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"template": {"spec": {"containers": []}}},
            "status": status,
        });
        serde_json::from_value(job).expect("a job")
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_has_ended_goes_before_what_only_goes_on() {
        let mut rig = Rig::new();
        rig.pods.replace(BTreeMap::new(), ResourceVersion(1));
        let mut seen = Vec::new();
        for (version, phase) in [(2, "Pending"), (3, "Running"), (4, "Succeeded"), (5, "Succeeded")] {
            rig.pods.apply(pod(version, phase, &[]));
            seen.extend(rig.jobs_in_turn().into_iter().map(|item| (phase, item.priority)));
        }
        let expected =
            [("Pending", Priority::Normal), ("Running", Priority::Normal), ("Succeeded", Priority::High)];
        assert_eq!(seen, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_start_who_waits_is_looked_at_before_who_runs_or_has_ended() {
        let mut rig = Rig::new();
        let complete = serde_json::json!({
            "type": "Complete", "status": "True", "reason": "Completed", "message": "", "observedGeneration": 1,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        });
        let stored = [
            job("a-ended", serde_json::json!({"conditions": [complete]})),
            job("b-runs", serde_json::json!({"active": 1})),
            job("c-waits", serde_json::json!({})),
        ];
        let stored = stored.map(|job| (job.meta().key.clone(), Arc::new(job)));
        rig.jobs.replace(BTreeMap::from(stored), ResourceVersion(1));
        let seen: Vec<String> = rig.jobs_in_turn().iter().map(|item| item.key.name.to_string()).collect();
        assert_eq!(seen, ["c-waits", "a-ended", "b-runs"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_standby_that_saw_a_job_go_lets_its_pods_go_as_soon_as_it_leads() {
        let mut rig = Rig::new();
        let job = job("a", serde_json::json!({}));
        rig.jobs.apply(job.clone());
        rig.pods.apply(pod(2, "Running", &[crate::projections::pod::TRACKING_FINALIZER]));
        let key = ObjectKey::new("ns", "a");
        rig.jobs.delete(job);
        let observed = rig.reconciler.observe_job(&key, None, jiff::Timestamp::now()).expect("a pod is left");
        assert_eq!((observed.orphans.len(), observed.orphans_until), (1, None));
    }

    #[tokio::test(start_paused = true)]
    async fn the_admission_runs_when_a_store_is_fresh_again() {
        let mut rig = Rig::new();
        rig.pods.replace(BTreeMap::new(), ResourceVersion(1));
        rig.nodes.replace(BTreeMap::new(), ResourceVersion(1));
        assert!(rig.queue.is_empty());
        for writer in [true, false] {
            tokio::time::sleep(STALE_AFTER).await;
            match writer {
                true => rig.pods.advance(ResourceVersion(1)),
                false => rig.nodes.advance(ResourceVersion(1)),
            }
            assert_eq!(rig.next().map(|item| item.key), Some(admission()));
        }
    }
}
