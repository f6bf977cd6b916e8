//! What pods use of memory, by the API of the metrics server: it cannot be watched. It is asked only while memory of a member
//! is about to move, for the namespaces of such members alone.

use crate::observed::Usage;
use crate::projections::group::GroupView;
use crate::{RIGHTS, TimeShareGroupReconciler, lock};
use jiff::{SignedDuration, Timestamp};
use springtide_crds::reason::Reason;
use springtide_crds::time_share_group::{MemoryPolicy, Mode, ReconcilingReason};
use springtide_plumbing::client::Reader;
use springtide_plumbing::clock::{Clock, after};
use springtide_plumbing::key::ObjectKey;
use springtide_plumbing::pod_metrics::{POD_METRICS, PodMetrics, is_not_served};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::queue::Priority;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Time between two looks: what is known is at most twice as old, and the metrics server itself looks every 15 s by
/// default.
const INTERVAL: Duration = Duration::from_secs(30);
/// A group that has just been edited need not wait for the next look; but edits in quick succession get one only.
const LEAST_INTERVAL: Duration = Duration::from_secs(2);
/// The same while the API is not served.
const ABSENT_INTERVAL: Duration = Duration::from_secs(300);

impl TimeShareGroupReconciler {
    /// Looks at the usage of pods for as long as the process runs, while it leads.
    pub async fn sample_usage(
        self: Arc<Self>,
        reader: Reader,
        clock: Clock,
        mut leading: watch::Receiver<bool>,
    ) {
        loop {
            if leading.wait_for(|leading| *leading).await.is_err() {
                // Nobody can lead any more: the process is ending.
                return std::future::pending().await;
            }
            let pause = self.look_at_usage(&reader, clock.now()).await;
            tokio::time::sleep(LEAST_INTERVAL).await;
            tokio::select! {
                () = tokio::time::sleep(pause - LEAST_INTERVAL) => {}
                () = self.usage_asked.notified() => {}
            }
        }
    }

    /// One look. Returns when the next is due.
    async fn look_at_usage(&self, reader: &Reader, now: Timestamp) -> Duration {
        let namespaces = self.measured_namespaces(now);
        let mut measured = HashMap::new();
        for namespace in &namespaces {
            // All of them: every label.
            match reader.list::<PodMetrics>(RIGHTS, POD_METRICS, Some(namespace), "").await {
                Ok(pods) => measured.extend(pods.into_iter().filter_map(|pod| self.usage(pod, now))),
                Err(error) => {
                    tracing::debug!(%error, "metrics.k8s.io does not tell what pods use");
                    if is_not_served(&error) {
                        return ABSENT_INTERVAL;
                    }
                    // What was known of others too stays, and grows old.
                    return INTERVAL;
                }
            }
        }
        *lock(&self.usage) = measured;
        if !namespaces.is_empty() {
            self.wake_where(Priority::Normal, |group| is_measured(group, now));
        }
        INTERVAL
    }

    /// Where pods are whose memory is about to move.
    fn measured_namespaces(&self, now: Timestamp) -> BTreeSet<Arc<str>> {
        let groups = self.stores.groups.list(None);
        let measured = groups.iter().filter(|group| is_measured(group, now));
        let namespaces = measured.flat_map(|group| {
            let members = group.spec.members.iter().filter(|member| moves(member.memory));
            members.map(move |member| group.target_key(member).namespace)
        });
        namespaces.collect()
    }

    /// What is told of a pod, if it is one that the store has.
    fn usage(&self, metrics: PodMetrics, now: Timestamp) -> Option<(ObjectKey, Usage)> {
        let pod = self.stores.pods.get(&metrics.key).filter(|pod| !pod.containers.is_empty())?;
        // Whatever runs has memory; without it nothing was measured.
        let measured = metrics.containers.into_iter().filter(|container| container.usage.memory > 0);
        let working_set =
            measured.map(|container| (Arc::from(container.name), container.usage.memory)).collect();
        let at = metrics.timestamp.unwrap_or(now).min(now);
        Some((pod.meta().key.clone(), Usage { at, working_set }))
    }
}

/// Whether memory of a group is about to move: it switches or settles, or a switch, or the preflight before it, is due.
fn is_measured(group: &GroupView, now: Timestamp) -> bool {
    let may_write = match group.spec.mode {
        Mode::Active | Mode::Observe => true,
        Mode::Paused => false,
    };
    let is_at_work = group.is_switching() || group.condition(ReconcilingReason::CONDITION).is_some();
    let lead = SignedDuration::from_secs(group.spec.guards.preflight.lead_seconds.into());
    let next = group.status.next_transition.as_ref();
    let is_next = next.is_some_and(|next| after(next.start_time.0, -lead) <= now);
    let is_forced = group.spec.override_.as_ref().is_some_and(|over| over.is_in_force(now));
    may_write
        && group.spec.members.iter().any(|member| moves(member.memory))
        && (is_at_work || is_next || is_forced)
}

fn moves(policy: MemoryPolicy) -> bool {
    match policy {
        MemoryPolicy::Move => true,
        MemoryPolicy::Keep => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{at, group, overlay, pod, switching};
    use crate::watches::rig::{Rig, put};
    use serde_json::{Value, json};

    fn moving(over: Value) -> Arc<GroupView> {
        let members = json!([{"name": "promo", "memory": "Move", "targetRef": {"namespace": "events"}}]);
        let calm = json!({
            "type": "Ready", "status": "True", "reason": "Settled", "message": "", "observedGeneration": 1,
            "lastTransitionTime": at(-60).to_string(),
        });
        let mut whole = json!({"spec": {"members": members}, "status": {"conditions": [calm]}});
        overlay(&mut whole, over);
        group(whole)
    }

    #[test]
    fn usage_is_looked_at_only_while_memory_is_about_to_move() {
        let asks = |over: Value| is_measured(&moving(over), at(0));
        assert!(!asks(json!({})), "nothing is due");
        assert!(asks(json!({"status": switching(3, Some("promo"), Some("pay"))})));
        let settling = json!({"type": "Reconciling", "status": "True", "reason": "Settling", "message": "",
            "observedGeneration": 1, "lastTransitionTime": at(-5).to_string()});
        assert!(asks(json!({"status": {"conditions": [settling]}})));
        let next = |seconds: i64| json!({"status": {"nextTransition": {"member": "pay", "startTime": at(seconds).to_string()}}});
        assert!(asks(next(7200)) && !asks(next(7201)), "the preflight begins two hours before");
        let forced = |until: i64| json!({"spec": {"override": {"member": "pay", "untilTime": at(until).to_string(), "reason": "test"}}});
        assert!(asks(forced(1)) && !asks(forced(0)));
        let mut paused = forced(1);
        overlay(&mut paused, json!({"spec": {"mode": "Paused"}}));
        assert!(!asks(paused));
        let mut kept = forced(1);
        overlay(&mut kept, json!({"spec": {"members": [{"name": "promo", "memory": "Keep"}]}}));
        assert!(!asks(kept));
    }

    #[test]
    fn what_is_told_is_kept_for_pods_that_are_there_in_namespaces_of_members_whose_memory_moves() {
        let mut rig = Rig::new();
        put(&mut rig.groups, &moving(json!({"status": switching(3, Some("promo"), Some("pay"))})));
        put(&mut rig.pods, &pod("promo-1", "n1", json!({"metadata": {"namespace": "events"}})));
        let reconciler = TimeShareGroupReconciler::new(rig.stores.clone(), None);
        assert_eq!(reconciler.measured_namespaces(at(0)), BTreeSet::from(["events".into()]));
        let told = |name: &str| -> PodMetrics {
            serde_json::from_value(json!({
                "metadata": {"name": name, "namespace": "events"}, "timestamp": at(60).to_string(),
                "containers": [
                    {"name": "app", "usage": {"cpu": "1", "memory": "600Mi"}},
                    {"name": "proxy", "usage": {"cpu": "0", "memory": "0"}},
                ],
            }))
            .unwrap()
        };
        let working_set = [("app".into(), 600 << 20)].into();
        let usage = Usage { at: at(30), working_set };
        let expected = Some((ObjectKey::new("events", "promo-1"), usage));
        assert_eq!(reconciler.usage(told("promo-1"), at(30)), expected, "its clock is ahead");
        assert_eq!(reconciler.usage(told("gone"), at(30)), None);
    }
}
