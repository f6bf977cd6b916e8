//! Gathers what the stores and this process know of one object.

use crate::departures::Departing;
use crate::health::{Metric, MetricState};
use crate::machine::is_about_to_stop;
use crate::observed::{BudgetRoom, Observed};
use crate::projections::upgrade::{IN_PLACE_UPGRADE, UpgradeView};
use crate::target::Target;
use crate::time_share::TimeShare;
use crate::watches::UPGRADES_BY_TARGET;
use crate::{InPlaceUpgradeReconciler, lock};
use jiff::Timestamp;
use springtide_crds::in_place_upgrade::{DisruptionBudgets, MAX_PER_CLUSTER, MAX_PER_NAMESPACE, TargetKind};
use springtide_plumbing::failing::Failing;
use springtide_plumbing::key::{ObjectKey, Uid};
use springtide_plumbing::metric_query::{MetricVerdict, Owner, judge};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::store::IndexKey;
use springtide_plumbing::traffic::{Lever, Traffic, exposures};
use springtide_plumbing::workloads::indexes::{
    AUTOSCALERS_BY_TARGET, PODS_BY_OWNER, REPLICA_SETS_BY_OWNER, REVISIONS_BY_OWNER, workload_key,
};
use springtide_plumbing::workloads::names::UPGRADE_TRAFFIC;
use springtide_plumbing::workloads::pod::{PodPhase, PodView};
use springtide_plumbing::workloads::vertical_pod_autoscaler::VerticalPodAutoscalerView;
use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

impl InPlaceUpgradeReconciler {
    pub(crate) fn gather(
        &self,
        key: &ObjectKey,
        failing: Option<&Failing>,
        departing: Departing,
        now: Timestamp,
    ) -> Option<Observed> {
        let Some(upgrade) = self.stores.upgrades.get(key) else {
            lock(&self.memories).remove(key);
            self.answers.forget(key);
            if let Some(queries) = &self.queries {
                queries.want(&owner(key), []);
            }
            return None;
        };
        let mut observed = Observed::of(Arc::clone(&upgrade));
        observed.failing = failing.cloned();
        observed.tools_image = Arc::clone(&self.tools_image);
        observed.excess = self.excess(&upgrade);
        observed.rival = self.rival(&upgrade);
        observed.target = self.target(&upgrade);
        observed.autoscaler = self.autoscaler(&upgrade);
        observed.time_share = self.time_share(&upgrade, now);
        observed.pods = observed.target.as_ref().map(|target| self.pods_of(target)).unwrap_or_default();
        observed.nodes = self.nodes_of(&observed.pods);
        observed.departing = departing;
        observed.budgets = match upgrade.spec.strategy.disruption_budgets {
            DisruptionBudgets::Respect if upgrade.is_run_open() => {
                self.budgets_of(&upgrade, &observed.pods, &observed.departing.pods, now)
            }
            DisruptionBudgets::Respect | DisruptionBudgets::Ignore => Vec::new(),
        };
        observed.pullers = self.stores.pods.by_index(&PODS_BY_OWNER, &IndexKey::from(&upgrade.meta().uid));
        self.ask_metrics(&upgrade, &mut observed, now);
        observed.answers = self.answers.of(key);
        let (exposed, claims) = (self.exposures_of(&upgrade, &observed.pods), observed.claims());
        let mut memories = lock(&self.memories);
        let memory = memories.entry(key.clone()).or_default();
        observed.target_missing_since = memory.look_for_target(observed.target.is_some(), now);
        let traffic = &upgrade.spec.traffic;
        observed.evidence = memory.look(&observed.pods, exposed, traffic, &claims, now);
        let evidence = upgrade.is_run_open().then_some(&observed.evidence);
        self.measures.passed(&memory.look_at_times(&observed.pods, evidence, traffic.mode, now));
        for took in memory.look_at_pullers(&observed.pullers, now) {
            self.measures.pulled(took);
        }
        let version = version(&observed);
        observed.still_since = memory.look_for_moves(version, &observed.pods, now);
        let generations = generations(&upgrade, observed.target.as_ref());
        // Who has edited either may have settled it.
        drop(memory.field_conflict.take_if(|(_, of)| *of != generations));
        observed.field_conflict = memory.field_conflict.as_ref().map(|(message, _)| message.clone());
        observed.status_written = memory.status_written;
        Some(observed)
    }

    /// See [`generations`].
    pub(crate) fn generations_of(&self, upgrade: &UpgradeView) -> (i64, i64) {
        generations(upgrade, self.target(upgrade).as_ref())
    }

    fn target(&self, upgrade: &UpgradeView) -> Option<Target> {
        let (stores, key) = (&self.stores, upgrade.target_key());
        match upgrade.spec.target_ref.kind {
            TargetKind::Deployment => {
                let deployment = stores.deployments.get(&key)?;
                let owner = IndexKey::from(&deployment.meta().uid);
                Some(Target::deployment(
                    deployment,
                    stores.replica_sets.by_index(&REPLICA_SETS_BY_OWNER, &owner),
                ))
            }
            TargetKind::ReplicaSet => {
                // One that a Deployment owns is changed by way of that.
                stores
                    .replica_sets
                    .get(&key)
                    .filter(|set| set.meta().controller.is_none())
                    .map(Target::ReplicaSet)
            }
            TargetKind::StatefulSet => {
                let set = stores.stateful_sets.get(&key)?;
                let owner = IndexKey::from(&set.meta().uid);
                Some(Target::stateful_set(set, stores.revisions.by_index(&REVISIONS_BY_OWNER, &owner)))
            }
            TargetKind::DaemonSet => {
                let set = stores.daemon_sets.get(&key)?;
                let owner = IndexKey::from(&set.meta().uid);
                Some(Target::daemon_set(set, stores.revisions.by_index(&REVISIONS_BY_OWNER, &owner)))
            }
        }
    }

    /// Live pods of a workload, by name.
    fn pods_of(&self, target: &Target) -> Vec<Arc<PodView>> {
        let owners: Vec<IndexKey> = match target {
            Target::Deployment { replica_sets, .. } => {
                replica_sets.iter().map(|set| IndexKey::from(&set.meta().uid)).collect()
            }
            Target::ReplicaSet(_) | Target::StatefulSet { .. } | Target::DaemonSet { .. } => {
                vec![IndexKey::from(target.uid())]
            }
        };
        let pods = owners.iter().flat_map(|owner| self.stores.pods.by_index(&PODS_BY_OWNER, owner));
        let mut pods: Vec<_> = pods.filter(|pod| pod.is_live()).collect();
        pods.sort_by(|a, b| a.meta().key.name.cmp(&b.meta().key.name));
        pods
    }

    fn nodes_of(
        &self,
        pods: &[Arc<PodView>],
    ) -> HashMap<Arc<str>, Arc<springtide_plumbing::workloads::node::NodeView>> {
        let Some(nodes) = &self.stores.nodes else { return HashMap::new() };
        let names: HashSet<&Arc<str>> = pods.iter().filter_map(|pod| pod.node.as_ref()).collect();
        let found = names.into_iter().filter_map(|name| {
            let node = nodes.get(&ObjectKey { namespace: "".into(), name: name.clone() })?;
            Some((name.clone(), node))
        });
        found.collect()
    }

    /// The budgets that select one of the pods, and how much room each has by all pods that it selects.
    fn budgets_of(
        &self,
        upgrade: &UpgradeView,
        pods: &[Arc<PodView>],
        departing: &HashSet<Uid>,
        now: Timestamp,
    ) -> Vec<BudgetRoom> {
        let namespace = &upgrade.meta().key.namespace;
        let mut all: Option<Vec<Arc<PodView>>> = None;
        let mut rooms = Vec::new();
        for budget in self.stores.budgets.list(Some(namespace)) {
            let selects = |pod: &PodView| budget.selects(|key| pod.meta().labels.get(key).map(AsRef::as_ref));
            let own: HashSet<Uid> =
                pods.iter().filter(|pod| selects(pod)).map(|pod| pod.meta().uid.clone()).collect();
            if own.is_empty() {
                continue;
            }
            // Looked through only where there is a budget.
            let all = all.get_or_insert_with(|| self.stores.pods.list(Some(namespace)));
            let is_going = |pod: &PodView| {
                is_leaving(pod) || is_about_to_stop(pod, now) || departing.contains(&pod.meta().uid)
            };
            let in_service =
                all.iter().filter(|pod| pod.is_live() && pod.is_ready() && selects(pod) && !is_going(pod));
            let room = budget.room(in_service.map(|pod| pod.meta().key.name.as_ref()));
            rooms.push(BudgetRoom { name: budget.meta().key.name.to_string(), room, pods: own });
        }
        rooms
    }

    /// Who sends traffic to pods that are out of it by us: the others are of no interest.
    fn exposures_of(
        &self,
        upgrade: &UpgradeView,
        pods: &[Arc<PodView>],
    ) -> HashMap<Uid, springtide_plumbing::traffic::Exposure> {
        let mode = upgrade.spec.traffic.mode;
        let levers: HashMap<&Uid, Lever> = pods
            .iter()
            .filter(|pod| is_leaving(pod))
            .filter_map(|pod| Some((&pod.meta().uid, pod.signals.lever(mode).ok().flatten()?)))
            .collect();
        if levers.is_empty() {
            return HashMap::new();
        }
        let slices = self.stores.slices.list(Some(&upgrade.meta().key.namespace));
        let service = |key: &ObjectKey| self.stores.services.get(key);
        exposures(
            slices.iter().map(AsRef::as_ref),
            service,
            |uid| levers.get(uid).copied(),
            UPGRADE_TRAFFIC.label,
        )
    }

    /// The older object of the same target, if there is one.
    fn rival(&self, upgrade: &UpgradeView) -> Option<ObjectKey> {
        let target = &upgrade.spec.target_ref;
        let index = workload_key(target.kind, &upgrade.meta().key.namespace, &target.name);
        let age = |upgrade: &UpgradeView| (upgrade.meta().creation_time, upgrade.meta().uid.clone());
        let others = self.stores.upgrades.by_index(&UPGRADES_BY_TARGET, &index);
        let oldest = others.iter().min_by_key(|other| age(other))?;
        (age(oldest) < age(upgrade)).then(|| oldest.meta().key.clone())
    }

    /// The VerticalPodAutoscaler that resizes the target's pods. Of several it is the oldest, then that of the first name,
    /// as the autoscaler itself has it (`GetControllingVPAForPod`): the others are never asked.
    fn autoscaler(&self, upgrade: &UpgradeView) -> Option<Arc<VerticalPodAutoscalerView>> {
        let target = &upgrade.spec.target_ref;
        let index = workload_key(target.kind, &upgrade.meta().key.namespace, &target.name);
        let all = self.stores.autoscalers.by_index(&AUTOSCALERS_BY_TARGET, &index);
        let age = |autoscaler: &Arc<VerticalPodAutoscalerView>| {
            let meta = autoscaler.meta();
            (meta.creation_time, meta.key.name.clone())
        };
        all.into_iter().filter(|autoscaler| autoscaler.resizes).min_by_key(age)
    }

    /// What the TimeShareGroup says that the target is a member of.
    fn time_share(&self, upgrade: &UpgradeView, now: Timestamp) -> Option<TimeShare> {
        let (kind, workload) = (upgrade.spec.target_ref.kind, upgrade.target_key());
        let group = self.stores.time_shares.group_of(kind, &workload)?;
        TimeShare::of(&group, group.member_of(kind, &workload)?, now)
    }

    /// What maximum it is beyond: the oldest objects are served.
    fn excess(&self, upgrade: &UpgradeView) -> Option<String> {
        let upgrades = &self.stores.upgrades;
        let age = |upgrade: &UpgradeView| (upgrade.meta().creation_time, upgrade.meta().uid.clone());
        let older = |all: &[Arc<UpgradeView>]| all.iter().filter(|other| age(other) < age(upgrade)).count();
        let is_beyond = |count: usize, max: u32| u32::try_from(count).is_ok_and(|count| count >= max);
        let namespace = &upgrade.meta().key.namespace;
        if is_beyond(older(&upgrades.list(Some(namespace))), MAX_PER_NAMESPACE) {
            return Some(format!(
                "there are more than {MAX_PER_NAMESPACE} InPlaceUpgrades in namespace {namespace}"
            ));
        }
        if is_beyond(upgrades.len(), MAX_PER_CLUSTER)
            && is_beyond(older(&upgrades.list(None)), MAX_PER_CLUSTER)
        {
            return Some(format!("there are more than {MAX_PER_CLUSTER} InPlaceUpgrades in the cluster"));
        }
        None
    }

    /// Asks for the metrics of an open run, and takes in what is known of them.
    fn ask_metrics(&self, upgrade: &UpgradeView, observed: &mut Observed, now: Timestamp) {
        let metrics = &upgrade.spec.health.metrics;
        let owner = owner(&upgrade.meta().key);
        let Some(queries) = &self.queries else { return };
        let refused = metrics.iter().filter_map(|metric| {
            let address = &metric.prometheus.address;
            queries.refusal(address).map(|why| (address.clone(), why))
        });
        observed.refused_addresses = refused.collect();
        if !upgrade.is_run_open() {
            queries.want(&owner, []);
            return;
        }
        queries.want(&owner, metrics);
        let begun = upgrade.status.step.as_ref().map_or(now, |step| step.start_time.0);
        let states = metrics.iter().map(|metric| {
            let state = match judge(metric, &queries.history(&owner, &metric.name), begun, now) {
                MetricVerdict::Passing | MetricVerdict::Failing { .. } => MetricState::Passing,
                MetricVerdict::Breached { .. } => MetricState::Breached,
                MetricVerdict::NoData { .. } => MetricState::NoData,
            };
            Metric { name: metric.name.clone(), state }
        });
        observed.metrics = states.collect();
    }
}

/// As whom an object asks for its metrics.
fn owner(key: &ObjectKey) -> Owner {
    Owner { resource: IN_PLACE_UPGRADE, key: key.clone() }
}

/// Whether a run has turned its traffic off, whether or not anybody has followed yet.
fn is_leaving(pod: &PodView) -> bool {
    [Lever::ReadinessGate, Lever::ServiceLabel]
        .into_iter()
        .any(|lever| matches!(pod.signals.traffic(lever), Traffic::Off { run: Some(_), .. }))
}

/// Generations of object and workload: while both stay, nobody has changed who owns which field by purpose.
fn generations(upgrade: &UpgradeView, target: Option<&Target>) -> (i64, i64) {
    let of_target = target.map_or(0, |target| match target {
        Target::Deployment { deployment, .. } => deployment.meta().generation,
        Target::ReplicaSet(set) => set.meta().generation,
        Target::StatefulSet { set, .. } => set.meta().generation,
        Target::DaemonSet { set, .. } => set.meta().generation,
    });
    (upgrade.meta().generation, of_target)
}

/// A number that changes with the spec, and when the workload, one of its ReplicaSets or a puller moves. How many of its
/// pods are ready says nothing: that comes and goes with each drain that leads nowhere.
fn version(observed: &Observed) -> u64 {
    let mut hasher = DefaultHasher::new();
    // Whoever edits the object begins anew, and an image that has come is a move too.
    observed.upgrade.meta().generation.hash(&mut hasher);
    for puller in &observed.pullers {
        (&puller.meta().uid, puller.phase == PodPhase::Running).hash(&mut hasher);
    }
    match &observed.target {
        None => {}
        Some(Target::Deployment { deployment, replica_sets }) => {
            let counted = (deployment.replicas, deployment.status_replicas, deployment.updated_replicas);
            (deployment.meta().generation, deployment.observed_generation, counted).hash(&mut hasher);
            for set in replica_sets {
                let meta = set.meta();
                (&meta.uid, meta.generation, set.revision, set.status_replicas).hash(&mut hasher);
            }
        }
        Some(Target::ReplicaSet(set)) => {
            (set.meta().generation, set.observed_generation, set.status_replicas).hash(&mut hasher);
        }
        Some(Target::StatefulSet { set, .. }) => {
            let counted = (set.replicas, set.updated_replicas);
            let revisions = (&set.current_revision, &set.update_revision);
            (set.meta().generation, set.observed_generation, counted, revisions).hash(&mut hasher);
        }
        Some(Target::DaemonSet { set, .. }) => {
            (set.meta().generation, set.observed_generation, set.desired, set.updated).hash(&mut hasher);
        }
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{at, pod};
    use crate::watches::rig::{Rig, bare, put, upgrade};
    use serde_json::{Value, json};
    use springtide_plumbing::done_rule::{Base, Record};
    use springtide_plumbing::workloads::names::RECORD_ANNOTATION;
    use std::collections::BTreeSet;

    /// A pod that a run has changed while it ran the container with this ID.
    fn patched(before: &str) -> Value {
        let record = Record {
            run: "7c9f21ab04de".into(),
            at: at(0),
            generation: 1,
            base: [("app".into(), Base::of(before, "reg/app@sha256:0"))].into(),
            restarted: None,
            renamed: BTreeSet::new(),
            added: BTreeSet::new(),
        };
        json!({
            "metadata": {"generation": 2, "annotations": {RECORD_ANNOTATION: record.encode().unwrap()}},
            "status": {"observedGeneration": 2},
        })
    }

    #[test]
    fn a_budget_has_no_room_for_whoever_is_about_to_stop_though_it_is_still_ready() {
        let mut rig = Rig::new();
        put(&mut rig.upgrades, &upgrade("web", "Deployment", "web", true, json!({})));
        let budget = json!({
            "metadata": {"generation": 1},
            "spec": {"selector": {"matchLabels": {"app": "web"}}},
            "status": {"observedGeneration": 1, "desiredHealthy": 1},
        });
        put(&mut rig.budgets, &bare("ns", "pdb", budget));
        let closed = json!({
            "spec": {"readinessGates": [{"conditionType": UPGRADE_TRAFFIC.gate}]},
            "status": {"conditions": [
                {"type": "Ready", "status": "True"},
                {"type": UPGRADE_TRAFFIC.gate, "status": "False", "message": "run=7c9f21ab04de"},
            ]},
        });
        let pods = [
            pod("in-service", json!({})),
            pod("closed", closed),
            pod("about-to-stop", patched("containerd://1")),
            pod("another", patched("containerd://0")),
        ];
        for pod in &pods {
            put(&mut rig.pods, pod);
        }
        let reconciler = InPlaceUpgradeReconciler::new(rig.stores.clone(), None, "");
        let upgrade = rig.stores.upgrades.get(&ObjectKey::new("ns", "web")).unwrap();
        let room = |departing: &[&str]| {
            let departing = departing.iter().map(|uid| Uid((*uid).into())).collect();
            let rooms = reconciler.budgets_of(&upgrade, &pods, &departing, at(1));
            rooms.iter().map(|room| (room.room, room.pods.len())).collect::<Vec<_>>()
        };
        assert_eq!(room(&[]), [(1, 4)]);
        assert_eq!(room(&["another", "closed"]), [(0, 4)], "another run is about to take it out");
    }
}
