//! What the process remembers of an object: since when things have been as they are. A new leader has none of it, and
//! waits for longer; nothing is decided otherwise.

use crate::machine::Evidence;
use crate::pod_times::{Passed, PodTimes};
use crate::pre_pull::Puller;
use jiff::{SignedDuration, Timestamp};
use springtide_crds::in_place_upgrade::{Traffic as TrafficSpec, TrafficMode};
use springtide_plumbing::clock::after;
use springtide_plumbing::first_seen::FirstSeen;
use springtide_plumbing::key::Uid;
use springtide_plumbing::projection::Projection;
use springtide_plumbing::traffic::{DrainRule, DrainVerdict, Draining, Exposure, Lever, Traffic};
use springtide_plumbing::workloads::claims::{Claim, share};
use springtide_plumbing::workloads::pod::{PodView, container_now};
use springtide_plumbing::workloads::trace::Trace;
use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// So long a pod is left alone whose eviction was refused: a pass comes before, in which the status is written.
const EVICTION_PAUSE: SignedDuration = SignedDuration::from_secs(15);

/// A memory of one object.
#[derive(Debug, Default)]
pub struct Memory {
    /// Since when drains are proved.
    proofs: FirstSeen<Uid>,
    /// Since when containers are candidates of the done rule.
    candidates: FirstSeen<(Uid, Arc<str>), String>,
    /// Since when resizes are open.
    resizes: FirstSeen<Uid>,
    /// Until when pods are put off whose drain was given up, or whose eviction was refused.
    put_off: HashMap<Uid, Timestamp>,
    /// Since when the target is missing.
    missing: FirstSeen<()>,
    /// Since when nothing has moved.
    still: FirstSeen<(), u64>,
    /// How long parts of the ways of pods take, for metrics.
    times: PodTimes,
    /// When pods that pull images were created, by name, for metrics.
    pulls: HashMap<Arc<str>, Timestamp>,
    /// Which field of the workload belongs to whom, and of which generations of object and workload that was told.
    pub field_conflict: Option<(String, (i64, i64))>,
    /// When the status was written last.
    pub status_written: Option<Timestamp>,
}

impl Memory {
    /// An eviction was refused for a PodDisruptionBudget.
    pub fn put_off(&mut self, uid: &Uid, now: Timestamp) {
        self.put_off.insert(uid.clone(), after(now, EVICTION_PAUSE));
    }

    /// Takes in whether the target is there; since when it is not.
    pub fn look_for_target(&mut self, is_there: bool, now: Timestamp) -> Option<Timestamp> {
        let seen = self.missing.look((), (!is_there).then_some(()), now);
        seen.map(|seen| seen.since)
    }

    /// Takes in the pods as they are now, and says what is known of each.
    pub fn look(
        &mut self,
        pods: &[Arc<PodView>],
        mut exposures: HashMap<Uid, Exposure>,
        traffic: &TrafficSpec,
        claims: &[Claim],
        now: Timestamp,
    ) -> HashMap<Uid, Evidence> {
        let (mode, rule) = (traffic.mode, DrainRule::from(&traffic.drain));
        let known: HashSet<&Uid> = pods.iter().map(|pod| &pod.meta().uid).collect();
        self.proofs.retain(|uid| known.contains(uid));
        self.candidates.retain(|(uid, _)| known.contains(uid));
        self.resizes.retain(|uid| known.contains(uid));
        self.put_off.retain(|uid, until| known.contains(uid) && *until > now);
        let mut evidence = HashMap::with_capacity(pods.len());
        for pod in pods {
            let uid = &pod.meta().uid;
            let exposure = exposures.remove(uid).unwrap_or_default();
            let known = self.look_at(pod, exposure, mode, &rule, claims, now);
            evidence.insert(uid.clone(), known);
        }
        evidence
    }

    fn look_at(
        &mut self,
        pod: &PodView,
        exposure: Exposure,
        mode: TrafficMode,
        rule: &DrainRule,
        claims: &[Claim],
        now: Timestamp,
    ) -> Evidence {
        let uid = &pod.meta().uid;
        let mut evidence = Evidence { exposure, ..Evidence::default() };
        let lever = pod.signals.lever(mode).ok().flatten();
        let off = match lever.map(|lever| (lever, pod.signals.traffic(lever))) {
            Some((lever, Traffic::Off { run: Some(_), since })) => Some((lever, since)),
            Some((_, Traffic::Off { .. } | Traffic::On | Traffic::Unset)) | None => None,
        };
        let draining = off.map(|(lever, off_since)| Draining {
            off_since,
            is_still_ready: lever == Lever::ReadinessGate && pod.is_ready(),
            exposure: &evidence.exposure,
            proved_since: None,
        });
        let is_proved = draining.is_some_and(|draining| draining.is_proved());
        let is_given_up = draining.is_some_and(|draining| {
            matches!(draining.verdict(rule, now), DrainVerdict::TimedOut { is_failure: false, .. })
        });
        if is_given_up {
            self.put_off.insert(uid.clone(), after(now, rule.timeout));
        }
        evidence.proved_since =
            self.proofs.look(uid.clone(), is_proved.then_some(()), now).map(|seen| seen.since);
        evidence.put_off_until = self.put_off.get(uid).copied();
        let is_resizing = pod.containers.iter().any(|container| {
            let in_force = container.status.as_ref().and_then(|status| status.amounts);
            // Those of others are not ours to time.
            let ours = share(claims, &container.name, container.role).rest(container.amounts);
            in_force.is_some_and(|in_force| !in_force.has(&ours))
        });
        let resizing = self.resizes.look(uid.clone(), is_resizing.then_some(()), now);
        evidence.resizing_since = resizing.map(|seen| seen.since);
        if let Trace::Record(record) = &pod.trace {
            for container in &pod.containers {
                let status = container_now(pod, container);
                let candidate = record.candidate(&container.name, &status).map(str::to_owned);
                let key = (uid.clone(), container.name.clone());
                if let Some(seen) = self.candidates.look(key, candidate, now) {
                    evidence.candidates.insert(container.name.clone(), seen);
                }
            }
        }
        evidence
    }

    /// Takes in how far pods are on their way, and says what has come to its end; `None` as evidence while no run is open.
    pub fn look_at_times(
        &mut self,
        pods: &[Arc<PodView>],
        evidence: Option<&HashMap<Uid, Evidence>>,
        mode: TrafficMode,
        now: Timestamp,
    ) -> Passed {
        match evidence {
            Some(evidence) => self.times.look(pods, evidence, mode, now),
            None => {
                self.times.clear();
                Passed::default()
            }
        }
    }

    /// A pod that pulls images was created.
    pub fn pulls(&mut self, name: &Arc<str>, now: Timestamp) {
        self.pulls.insert(Arc::clone(name), now);
    }

    /// Takes in the pods that pull images, and says how long those took that have pulled them.
    pub fn look_at_pullers(&mut self, pullers: &[Arc<PodView>], now: Timestamp) -> Vec<SignedDuration> {
        let mut took = Vec::new();
        if self.pulls.is_empty() {
            return took;
        }
        let by_name: HashMap<&Arc<str>, &PodView> =
            pullers.iter().map(|puller| (&puller.meta().key.name, &**puller)).collect();
        self.pulls.retain(|name, created| match by_name.get(name).map(|puller| Puller::of(puller)) {
            Some(Puller::Pulling { .. } | Puller::Failed { .. }) => true,
            Some(Puller::Pulled) => {
                took.push(now.duration_since(*created));
                false
            }
            // Another one pulls in its place.
            Some(Puller::Unable { .. }) | None => false,
        });
        took
    }

    /// Takes in how everything stands; since when it has stood so.
    pub fn look_for_moves(
        &mut self,
        target_version: u64,
        pods: &[Arc<PodView>],
        now: Timestamp,
    ) -> Option<Timestamp> {
        let mut hasher = DefaultHasher::new();
        target_version.hash(&mut hasher);
        for pod in pods {
            let meta = pod.meta();
            // Its readiness comes and goes with each drain, also with those that lead nowhere.
            (&meta.uid, meta.generation).hash(&mut hasher);
            for container in &pod.containers {
                container
                    .status
                    .as_ref()
                    .map(|status| (&status.container_id, status.restarts))
                    .hash(&mut hasher);
            }
        }
        self.still.look((), Some(hasher.finish()), now).map(|seen| seen.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{at, pod};
    use serde_json::json;
    use springtide_plumbing::workloads::names::UPGRADE_TRAFFIC;

    fn off(is_ready: bool) -> Arc<PodView> {
        let ready = if is_ready { "True" } else { "False" };
        pod(
            "web-1",
            json!({
                "spec": {"readinessGates": [{"conditionType": UPGRADE_TRAFFIC.gate}]},
                "status": {"conditions": [
                    {"type": "ContainersReady", "status": "True"},
                    {"type": "Ready", "status": ready},
                    {"type": UPGRADE_TRAFFIC.gate, "status": "False", "message": "run=7c9f21ab04de", "lastTransitionTime": at(0).to_string()},
                ]},
            }),
        )
    }

    fn look(memory: &mut Memory, pod: &Arc<PodView>, exposure: Exposure, now: i64) -> Evidence {
        let uid = pod.meta().uid.clone();
        let exposures = HashMap::from([(uid.clone(), exposure)]);
        let mut known =
            memory.look(std::slice::from_ref(pod), exposures, &TrafficSpec::default(), &[], at(now));
        known.remove(&uid).unwrap()
    }

    #[test]
    fn a_proof_is_remembered_from_when_it_was_first_seen() {
        let mut memory = Memory::default();
        let listed = Exposure { listed_by: ["web".into()].into(), ..Exposure::default() };
        assert_eq!(
            look(&mut memory, &off(true), Exposure::default(), 1).proved_since,
            None,
            "it is still ready"
        );
        assert_eq!(look(&mut memory, &off(false), listed, 2).proved_since, None);
        assert_eq!(look(&mut memory, &off(false), Exposure::default(), 3).proved_since, Some(at(3)));
        assert_eq!(look(&mut memory, &off(false), Exposure::default(), 9).proved_since, Some(at(3)));
    }

    #[test]
    fn a_pod_whose_drain_was_given_up_is_put_off() {
        let mut memory = Memory::default();
        let listed = || Exposure { listed_by: ["web".into()].into(), ..Exposure::default() };
        assert_eq!(look(&mut memory, &off(false), listed(), 59).put_off_until, None);
        assert_eq!(look(&mut memory, &off(false), listed(), 60).put_off_until, Some(at(120)));
        let on = pod("web-1", json!({}));
        assert_eq!(look(&mut memory, &on, Exposure::default(), 70).put_off_until, Some(at(120)));
        assert_eq!(look(&mut memory, &on, Exposure::default(), 120).put_off_until, None);
    }

    #[test]
    fn a_pod_whose_eviction_was_refused_is_put_off() {
        let mut memory = Memory::default();
        let on = pod("web-1", json!({}));
        memory.put_off(&on.meta().uid, at(0));
        assert_eq!(look(&mut memory, &on, Exposure::default(), 14).put_off_until, Some(at(15)));
        assert_eq!(look(&mut memory, &on, Exposure::default(), 15).put_off_until, None);
    }

    #[test]
    fn a_resize_of_amounts_that_are_of_others_is_not_timed() {
        let resources = |cpu: &str| json!({"requests": {"cpu": cpu}});
        let resized = pod(
            "web-1",
            json!({
                "spec": {"containers": [{"name": "app", "image": "app:1", "resources": resources("2")}]},
                "status": {"containerStatuses": [
                    {"name": "app", "containerID": "c", "imageID": "i", "resources": resources("1")},
                ]},
            }),
        );
        let since = |claims: &[Claim]| {
            let pods = std::slice::from_ref(&resized);
            let evidence =
                Memory::default().look(pods, HashMap::new(), &TrafficSpec::default(), claims, at(1));
            evidence[&resized.meta().uid].resizing_since
        };
        let of_autoscaler = [crate::fixtures::autoscaler("vpa", json!({})).claim.clone()];
        assert_eq!((since(&[]), since(&of_autoscaler)), (Some(at(1)), None));
    }

    #[test]
    fn a_node_is_timed_from_the_creation_of_its_puller_until_that_runs() {
        let mut memory = Memory::default();
        let volumes = json!([{"name": "image-0", "image": {"reference": "app:2"}}]);
        let puller = |phase: &str| {
            [pod("ipu-pull-1", json!({"spec": {"volumes": volumes}, "status": {"phase": phase}}))]
        };
        assert!(memory.look_at_pullers(&puller("Running"), at(0)).is_empty(), "another process made it");
        memory.pulls(&"ipu-pull-1".into(), at(1));
        assert!(memory.look_at_pullers(&puller("Pending"), at(2)).is_empty());
        assert_eq!(memory.look_at_pullers(&puller("Running"), at(9)), [SignedDuration::from_secs(8)]);
        assert!(memory.look_at_pullers(&puller("Running"), at(10)).is_empty(), "once");
        memory.pulls(&"ipu-pull-2".into(), at(11));
        assert!(memory.look_at_pullers(&[], at(12)).is_empty() && memory.pulls.is_empty(), "it is gone");
    }

    #[test]
    fn whatever_moves_begins_the_standstill_anew() {
        let mut memory = Memory::default();
        let pods = [pod("web-1", json!({}))];
        assert_eq!(memory.look_for_moves(1, &pods, at(0)), Some(at(0)));
        assert_eq!(memory.look_for_moves(1, &pods, at(5)), Some(at(0)));
        assert_eq!(memory.look_for_moves(2, &pods, at(6)), Some(at(6)));
        let changed = [pod("web-1", json!({"metadata": {"generation": 2}}))];
        assert_eq!(memory.look_for_moves(2, &changed, at(9)), Some(at(9)));
    }
}
