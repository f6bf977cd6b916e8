//! What changes for queues that follow the peaks of a TimeShareGroup when that, or a grant, changes.

use super::admission;
use crate::admission::QueueId;
use crate::peaks::group_key;
use crate::projections::queue::QueueView;
use crate::{BatchJobReconciler, lock};
use springtide_plumbing::key::ObjectKey;
use springtide_plumbing::projection::Projection;
use springtide_plumbing::queue::{Priority, Urgency};
use springtide_plumbing::store::Change;
use springtide_plumbing::time_share::{ReferenceGrantView, TimeShareGroupView};
use std::sync::Arc;

impl BatchJobReconciler {
    pub(super) fn time_share_group_changed(&self, change: &Change<TimeShareGroupView>) {
        let is_same = match change {
            Change::Apply { old: Some(old), new, .. } => old.has_same_peaks(new),
            Change::Apply { old: None, .. } | Change::Delete { .. } => false,
        };
        if !is_same {
            let key = &change.object().meta().key;
            self.follow_groups(|_, followed| followed == key);
        }
    }

    pub(super) fn grant_changed(&self, change: &Change<ReferenceGrantView>) {
        let namespace = &change.object().meta().key.namespace;
        self.follow_groups(|queue, followed| {
            followed.namespace == *namespace && queue.namespace != *namespace
        });
    }

    /// Takes in anew what the groups say that queues follow, by the keys of queue and group.
    fn follow_groups(&self, is_concerned: impl Fn(&ObjectKey, &ObjectKey) -> bool) {
        let follows = |queue: &Arc<QueueView>| {
            let key = &queue.meta().key;
            queue.peaks.groups().any(|named| is_concerned(key, &group_key(&key.namespace, named)))
        };
        let concerned: Vec<_> = self.stores.queues.list(None).into_iter().filter(follows).collect();
        for queue in &concerned {
            let peaks = self.stores.peaks_of_queue(queue);
            let id = QueueId::Object(queue.meta().key.clone());
            let stored = queue.status.active_window.clone();
            lock(&self.admission).peaks_changed(&id, Some(peaks), stored);
            self.wake_queue(queue.meta().key.clone(), Urgency::Routine);
        }
        if !concerned.is_empty() {
            self.wake(admission(), Priority::High, Urgency::Routine);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peaks::Phase;
    use crate::queues::BatchQueueReconciler;
    use crate::watches::{JOBS_BY_PROFILE, PODS_BY_JOB, Stores};
    use futures::FutureExt;
    use serde_json::{Value, json};
    use springtide_crds::batch_queue::StalledReason;
    use springtide_plumbing::controller::Reconciler;
    use springtide_plumbing::key::ResourceVersion;
    use springtide_plumbing::queue::{Next, WorkQueue};
    use springtide_plumbing::store::{Store, StoreWriter};
    use springtide_plumbing::time_share::{GROUPS_BY_WORKLOAD, TimeShares};
    use std::collections::BTreeMap;

    /// The loops over jobs and queues, with a queue `near` that follows a group of its namespace and a queue `far` that
    /// follows one of namespace `shop`.
    struct Bench {
        queues: Arc<BatchQueueReconciler>,
        keys: WorkQueue<ObjectKey>,
        groups: StoreWriter<TimeShareGroupView>,
        grants: StoreWriter<ReferenceGrantView>,
        version: u32,
    }

    fn queue(name: &str, followed: Value) -> QueueView {
        let window = json!({
            "name": "online", "fromTimeShareGroup": followed,
            "actions": [{"tier": "BestEffort", "action": "Drain"}],
        });
        serde_json::from_value(json!({
            "metadata": {"namespace": "ns", "name": name, "uid": name, "resourceVersion": "1", "generation": 1},
            "spec": {"capacitySource": {"type": "Static"}, "peakWindows": [window]},
        }))
        .unwrap()
    }

    impl Bench {
        fn new() -> Self {
            let (jobs, mut no_jobs) = Store::new(&[JOBS_BY_PROFILE]);
            let (profiles, mut no_profiles) = Store::new(&[]);
            let (pods, mut no_pods) = Store::new(&[PODS_BY_JOB]);
            let (queues, mut all_queues) = Store::new(&[]);
            let (groups, mut groups_writer) = Store::new(&[GROUPS_BY_WORKLOAD]);
            let (grants, mut grants_writer) = Store::new(&[]);
            let version = ResourceVersion(1);
            no_jobs.replace(BTreeMap::new(), version);
            no_profiles.replace(BTreeMap::new(), version);
            no_pods.replace(BTreeMap::new(), version);
            groups_writer.replace(BTreeMap::new(), version);
            grants_writer.replace(BTreeMap::new(), version);
            let both = [
                queue("near", json!({"name": "double11", "member": "payment"})),
                queue("far", json!({"name": "double11", "namespace": "shop"})),
            ];
            let both = both.map(|queue| (queue.meta().key.clone(), Arc::new(queue)));
            all_queues.replace(BTreeMap::from(both), version);
            let time_shares = TimeShares { groups, grants };
            let stores =
                Stores { jobs, pods, profiles, nodes: None, queues, priority_classes: None, time_shares };
            let jobs = BatchJobReconciler::new(stores);
            let queues = BatchQueueReconciler::new(Arc::clone(&jobs));
            let keys = WorkQueue::new(1);
            queues.wire(&keys);
            let _ = jobs.queue.set(WorkQueue::new(1));
            jobs.listen();
            Self { queues, keys, groups: groups_writer, grants: grants_writer, version: 1 }
        }

        /// Names of the queues whose status is looked at again.
        fn woken(&mut self) -> Vec<String> {
            let mut woken = Vec::new();
            while let Some(item) = self.keys.next().now_or_never().flatten() {
                self.keys.done(&item.key, Next::Success);
                woken.push(item.key.name.to_string());
            }
            woken.sort();
            woken
        }

        /// A group in which `payment` has noon, at a new version.
        fn group(&mut self, namespace: &str, over: impl FnOnce(&mut Value)) -> Vec<String> {
            self.version += 1;
            let size = || json!({"cpu": "1"});
            let member = |name: &str| {
                let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": name});
                let containers = json!([{"name": "app", "peak": size(), "valley": size()}]);
                json!({"name": name, "targetRef": target, "containers": containers})
            };
            let window = json!({"start": "12:00", "end": "14:00", "timeZone": "UTC"});
            let mut group = json!({
                "metadata": {
                    "namespace": namespace, "name": "double11", "uid": "g", "resourceVersion": self.version.to_string(),
                    "generation": 1,
                },
                "spec": {
                    "members": [member("payment"), member("promo")],
                    "schedule": {"windows": [{"name": "noon", "member": "payment", "window": window}]},
                },
            });
            over(&mut group);
            self.woken();
            self.groups.apply(serde_json::from_value(group).unwrap());
            self.woken()
        }

        /// What keeps the windows of a queue from being known, and where it stands then.
        fn look(&self, queue: &str, now: &str) -> (Option<StalledReason>, Option<Phase>) {
            let observed =
                self.queues.observe(&ObjectKey::new("ns", queue), None, now.parse().unwrap()).unwrap();
            let reason = observed.problems.first().map(|problem| problem.reason);
            (reason, observed.figures.peak.map(|peak| peak.state.phase))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_queue_follows_a_group_from_when_that_is_there_and_as_it_says() {
        let mut bench = Bench::new();
        let noon = "2026-05-04T12:30:00Z";
        let not_found = Some(StalledReason::TimeShareGroupNotFound);
        assert_eq!(bench.look("near", noon), (not_found, Some(Phase::Idle)));
        assert_eq!(bench.group("ns", |_| ()), ["near"]);
        assert_eq!(bench.look("near", noon), (None, Some(Phase::Closed)));
        let counted = |group: &mut Value| group["status"] = json!({"desiredMember": "payment"});
        assert!(bench.group("ns", counted).is_empty(), "its status is no news");
        let later = |group: &mut Value| {
            group["metadata"]["generation"] = json!(2);
            group["spec"]["schedule"]["windows"][0]["window"]["start"] = json!("13:00");
        };
        assert_eq!(bench.group("ns", later), ["near"]);
        assert_eq!(bench.look("near", noon), (None, Some(Phase::Idle)));
        let gone = bench.groups.store().list(None)[0].clone();
        bench.woken();
        bench.groups.delete(TimeShareGroupView::clone(&gone));
        assert_eq!(bench.woken(), ["near"]);
        assert_eq!(bench.look("near", noon).0, not_found);
    }

    #[tokio::test(start_paused = true)]
    async fn a_queue_follows_a_group_of_another_namespace_while_a_grant_lets_it() {
        let mut bench = Bench::new();
        let noon = "2026-05-04T12:30:00Z";
        assert_eq!(bench.group("shop", |_| ()), ["far"]);
        let not_found = Some(StalledReason::TimeShareGroupNotFound);
        assert_eq!(bench.look("far", noon), (not_found, Some(Phase::Idle)));
        let grant: ReferenceGrantView = serde_json::from_value(json!({
            "metadata": {"namespace": "shop", "name": "grant", "uid": "r", "resourceVersion": "1"},
            "spec": {"from": [{"kind": "BatchQueue", "namespace": "ns"}], "to": [{"kind": "TimeShareGroup"}]},
        }))
        .unwrap();
        bench.woken();
        bench.grants.apply(grant.clone());
        assert_eq!(bench.woken(), ["far"]);
        assert_eq!(bench.look("far", noon), (None, Some(Phase::Closed)));
        bench.woken();
        bench.grants.delete(grant);
        assert_eq!(bench.woken(), ["far"]);
        assert_eq!(bench.look("far", noon).0, not_found);
    }
}
