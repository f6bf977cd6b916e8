//! What the process remembers of an object: since when things have been as they are. A new leader has none of it, and
//! waits for longer; nothing is decided otherwise.

use crate::machine::{Evidence, container_now};
use crate::projections::pod::PodView;
use crate::trace::Trace;
use jiff::Timestamp;
use springtide_crds::in_place_upgrade::{Drain, TrafficMode};
use springtide_plumbing::clock::after;
use springtide_plumbing::first_seen::FirstSeen;
use springtide_plumbing::key::Uid;
use springtide_plumbing::projection::Projection;
use springtide_plumbing::traffic::{DrainRule, DrainVerdict, Draining, Exposure, Lever, Traffic};
use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// A memory of one object.
#[derive(Debug, Default)]
pub struct Memory {
    /// Since when drains are proved.
    proofs: FirstSeen<Uid>,
    /// Since when containers are candidates of the done rule.
    candidates: FirstSeen<(Uid, Arc<str>), String>,
    /// Since when resizes are open.
    resizes: FirstSeen<Uid>,
    /// Until when pods are put off whose drain was given up.
    put_off: HashMap<Uid, Timestamp>,
    /// Since when the target is missing.
    missing: FirstSeen<()>,
    /// Since when nothing has moved.
    still: FirstSeen<(), u64>,
    /// Which field of the workload belongs to whom, and of which generations of object and workload that was told.
    pub field_conflict: Option<(String, (i64, i64))>,
}

impl Memory {
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
        mode: TrafficMode,
        drain: &Drain,
        now: Timestamp,
    ) -> HashMap<Uid, Evidence> {
        let rule = DrainRule::from(drain);
        let known: HashSet<&Uid> = pods.iter().map(|pod| &pod.meta().uid).collect();
        self.proofs.retain(|uid| known.contains(uid));
        self.candidates.retain(|(uid, _)| known.contains(uid));
        self.resizes.retain(|uid| known.contains(uid));
        self.put_off.retain(|uid, until| known.contains(uid) && *until > now);
        let mut evidence = HashMap::with_capacity(pods.len());
        for pod in pods {
            let uid = &pod.meta().uid;
            let exposure = exposures.remove(uid).unwrap_or_default();
            let known = self.look_at(pod, exposure, mode, &rule, now);
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
            in_force.is_some_and(|in_force| !in_force.has(&container.amounts))
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
            (&meta.uid, meta.generation, pod.is_ready(), pod.are_containers_ready()).hash(&mut hasher);
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
    use crate::names::TRAFFIC;
    use serde_json::json;

    fn off(is_ready: bool) -> Arc<PodView> {
        let ready = if is_ready { "True" } else { "False" };
        pod(
            "web-1",
            json!({
                "spec": {"readinessGates": [{"conditionType": TRAFFIC.gate}]},
                "status": {"conditions": [
                    {"type": "ContainersReady", "status": "True"},
                    {"type": "Ready", "status": ready},
                    {"type": TRAFFIC.gate, "status": "False", "message": "run=7c9f21ab04de", "lastTransitionTime": at(0).to_string()},
                ]},
            }),
        )
    }

    fn look(memory: &mut Memory, pod: &Arc<PodView>, exposure: Exposure, now: i64) -> Evidence {
        let uid = pod.meta().uid.clone();
        let exposures = HashMap::from([(uid.clone(), exposure)]);
        let mut known =
            memory.look(std::slice::from_ref(pod), exposures, TrafficMode::Auto, &Drain::default(), at(now));
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
