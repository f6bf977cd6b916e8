//! The controller's own code over a snapshot of a namespace in memory: what it would say, and write, now.
//!
//! Nothing leaves the process. The stores are filled once; then the planner makes pass after pass for one object, and what
//! it writes to the object itself changes that in memory alone, until a pod, the workload or a person has to do
//! something: no time passes. Dry runs that the planner asks for are given out as [questions](Rehearsal::questions), for
//! somebody who may send them; those without an answer count as accepted.
//!
//! What the manager alone remembers (since when things are as they are, drains that it has given up) or measures
//! (metrics) is not known here. Where its status says so, that is told: see [`Basis`].

pub mod advice;
mod explain;
mod explanation;
#[cfg(test)]
mod tests;
mod way;

pub use explanation::{Explanation, PodLine};
pub use springtide_plumbing::rehearsal::{Basis, ConditionLine, PlannedWrite, Reported, Said};

use crate::InPlaceUpgradeReconciler;
use crate::observed::Observed;
use crate::plan::accept::accept;
use crate::plan::plan;
use crate::plan::situation::Situation;
use crate::projections::upgrade::{IN_PLACE_UPGRADE, UpgradeView};
use crate::watches::{Stores, UPGRADES_BY_TARGET};
use crate::wish::Wish;
use jiff::Timestamp;
use serde_json::Value;
use springtide_crds::in_place_upgrade::TargetKind;
use springtide_plumbing::controller::Reconciler;
use springtide_plumbing::disruption::DisruptionBudgetView;
use springtide_plumbing::dry_run::Verdict;
use springtide_plumbing::executor::{Done, WriteResult};
use springtide_plumbing::key::{ObjectKey, ResourceVersion};
use springtide_plumbing::plan::{Action, Outcome, Plan, Write};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::rehearsal::stored;
use springtide_plumbing::store::StoreWriter;
use springtide_plumbing::time_share::{TimeShareGroupView, TimeShares};
use springtide_plumbing::traffic::{EndpointSliceView, ServiceView};
use springtide_plumbing::workloads::indexes::{
    AUTOSCALERS_BY_TARGET, PODS_BY_OWNER, REPLICA_SETS_BY_OWNER, REVISIONS_BY_OWNER,
};
use springtide_plumbing::workloads::kinds::{
    ControllerRevisionView, DaemonSetView, DeploymentView, ReplicaSetView, StatefulSetView,
};
use springtide_plumbing::workloads::node::NodeView;
use springtide_plumbing::workloads::pod::PodView;
use springtide_plumbing::workloads::vertical_pod_autoscaler::VerticalPodAutoscalerView;
use std::sync::Arc;

/// Passes after which a rehearsal ends: of the object alone there are a few at most.
const MAX_PASSES: usize = 16;
/// The container of pods that pull images that runs the manager's own image.
const OF_PULLERS: &str = "idle";

/// A snapshot of what the controller watches in one namespace, as far as somebody may see it.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// InPlaceUpgrades.
    pub upgrades: Vec<Arc<UpgradeView>>,
    /// Pods.
    pub pods: Vec<Arc<PodView>>,
    /// Deployments.
    pub deployments: Vec<Arc<DeploymentView>>,
    /// ReplicaSets.
    pub replica_sets: Vec<Arc<ReplicaSetView>>,
    /// StatefulSets.
    pub stateful_sets: Vec<Arc<StatefulSetView>>,
    /// DaemonSets.
    pub daemon_sets: Vec<Arc<DaemonSetView>>,
    /// ControllerRevisions.
    pub revisions: Vec<Arc<ControllerRevisionView>>,
    /// PodDisruptionBudgets; none where they may not be seen.
    pub budgets: Vec<Arc<DisruptionBudgetView>>,
    /// Services; none where they may not be seen.
    pub services: Vec<Arc<ServiceView>>,
    /// EndpointSlices; none where they may not be seen.
    pub slices: Vec<Arc<EndpointSliceView>>,
    /// VerticalPodAutoscalers; none where they may not be seen, or there is no such kind.
    pub autoscalers: Vec<Arc<VerticalPodAutoscalerView>>,
    /// TimeShareGroups; none where they may not be seen, or there is no such kind. Those of other namespaces are not known.
    pub time_share_groups: Vec<Arc<TimeShareGroupView>>,
    /// Nodes, which belong to no namespace; `None` where they may not be seen.
    pub nodes: Option<Vec<Arc<NodeView>>>,
    /// `pullerImage` of the manager's configuration; where it is empty, that of pods that pull already.
    pub tools_image: Arc<str>,
}

/// The controller over a [`World`].
pub struct Rehearsal {
    reconciler: Arc<InPlaceUpgradeReconciler>,
    upgrades: StoreWriter<UpgradeView>,
    /// Whether it is known what nodes have and need.
    sees_images: bool,
    /// Whether something counts as accepted that nobody was asked.
    has_assumed: bool,
    /// The version of the object that is written next.
    version: ResourceVersion,
}

/// What came of the passes for one object.
struct Passed {
    /// What the last plan rested on.
    observed: Observed,
    /// The last plan that says something of the object.
    told: Plan,
    /// All writes, in their order.
    writes: Vec<Write>,
}

impl Rehearsal {
    /// Takes a snapshot in.
    pub fn new(world: World) -> Self {
        let mut seen = ResourceVersion::default();
        let (upgrades, writer) = stored(&world.upgrades, &[UPGRADES_BY_TARGET], &mut seen);
        let tools_image = match &*world.tools_image {
            "" => image_of_pullers(&world.pods),
            _ => Some(world.tools_image),
        };
        let tools_image = tools_image.unwrap_or_default();
        let sees_images = world.nodes.is_some() && !tools_image.is_empty();
        let nodes = world.nodes.map(|nodes| stored(&nodes, &[], &mut seen).0);
        let stores = Stores {
            upgrades,
            pods: stored(&world.pods, &[PODS_BY_OWNER], &mut seen).0,
            deployments: stored(&world.deployments, &[], &mut seen).0,
            replica_sets: stored(&world.replica_sets, &[REPLICA_SETS_BY_OWNER], &mut seen).0,
            stateful_sets: stored(&world.stateful_sets, &[], &mut seen).0,
            daemon_sets: stored(&world.daemon_sets, &[], &mut seen).0,
            revisions: stored(&world.revisions, &[REVISIONS_BY_OWNER], &mut seen).0,
            budgets: stored(&world.budgets, &[], &mut seen).0,
            services: stored(&world.services, &[], &mut seen).0,
            slices: stored(&world.slices, &[], &mut seen).0,
            nodes,
            autoscalers: stored(&world.autoscalers, &[AUTOSCALERS_BY_TARGET], &mut seen).0,
            time_shares: TimeShares::of(&world.time_share_groups, &[]),
        };
        Self {
            reconciler: InPlaceUpgradeReconciler::new(stores, None, tools_image),
            upgrades: writer,
            sees_images,
            has_assumed: false,
            version: ResourceVersion(seen.0.saturating_add(1)),
        }
    }

    /// The dry runs by which the API server is asked what it thinks of the change, whatever else keeps the object from a
    /// run; none where all are answered, or the spec cannot be served.
    pub fn questions(&self, key: &ObjectKey, now: Timestamp) -> Vec<Write> {
        let Some(observed) = self.reconciler.observe(key, None, now) else { return Vec::new() };
        let Ok((target, freezes)) = accept(&observed, now) else { return Vec::new() };
        let asked = Situation::new(&observed, target, freezes, now).asked;
        asked.questions.into_iter().flat_map(|step| step.into_writes()).collect()
    }

    /// Takes in what the API server answered. What it did not answer counts as accepted.
    pub fn answer(&mut self, key: &ObjectKey, results: Vec<WriteResult>, now: Timestamp) {
        let is_unanswered =
            |result: &WriteResult| !matches!(&result.outcome, Ok(Done { dry_run: Some(_), .. }));
        let (unanswered, answered): (Vec<_>, Vec<_>) = results.into_iter().partition(is_unanswered);
        self.reconciler.settle(key, &answered, now);
        self.assume(key, unanswered.into_iter().map(|result| result.write).collect(), now);
    }

    /// Has questions answered by yes that nobody is asked.
    fn assume(&mut self, key: &ObjectKey, questions: Vec<Write>, now: Timestamp) {
        self.has_assumed |= !questions.is_empty();
        let accepted = questions.into_iter().map(|write| {
            let dry_run = Some(Verdict::Accepted(Arc::new(Value::Null)));
            WriteResult { write, outcome: Ok(Done { dry_run, ..Done::default() }) }
        });
        self.reconciler.settle(key, &accepted.collect::<Vec<_>>(), now);
    }

    /// Makes pass after pass for one object until something else has to act, or nothing changes any more.
    fn run(&mut self, key: &ObjectKey, now: Timestamp) -> Option<Passed> {
        let before = self.reconciler.stores.upgrades.get(key)?;
        let version = self.version;
        let observed = self.reconciler.observe(key, None, now)?;
        let mut passed = Passed { observed, told: Plan::idle(Outcome::Progressing), writes: Vec::new() };
        for _ in 0..MAX_PASSES {
            let Some(observed) = self.reconciler.observe(key, None, now) else { break };
            let plan = plan(&observed, now);
            let staged = plan.stages.iter().flatten().flat_map(|step| step.writes()).cloned();
            let (questions, mut writes): (Vec<Write>, Vec<Write>) =
                staged.partition(|write| matches!(write.action, Action::DryRun { .. }));
            if !questions.is_empty() {
                self.assume(key, questions, now);
                continue;
            }
            passed.observed = observed;
            writes.extend(plan.status.clone());
            writes.retain(|write| !write.action.is_noop());
            // One that only holds or gives up a finalizer says nothing of where the object stands.
            if !plan.why.is_empty() {
                passed.told = plan;
            }
            let is_own = writes.iter().all(|write| write.resource == IN_PLACE_UPGRADE);
            let is_changed = self.perform(&writes);
            passed.writes.extend(writes);
            if !is_own || !is_changed {
                break;
            }
        }
        self.upgrades.apply(UpgradeView::clone(&before));
        self.version = version;
        Some(passed)
    }

    /// Changes the object as these writes would; whether any does.
    fn perform(&mut self, writes: &[Write]) -> bool {
        let mut is_changed = false;
        for write in writes.iter().filter(|write| write.resource == IN_PLACE_UPGRADE) {
            let Some(upgrade) = self.reconciler.stores.upgrades.get(&write.key) else { continue };
            let version = self.version;
            let written = match &write.action {
                Action::Status { status, .. } => {
                    // The planner has made it of such a one.
                    let Ok(status) = serde_json::from_value(status.clone()) else { continue };
                    upgrade.with_status(status, version)
                }
                // The only ones that there are put our finalizer there, and take it away.
                Action::Patch { .. } => upgrade.with_finalizer_turned(version),
                Action::Create { .. }
                | Action::Delete { .. }
                | Action::Apply { .. }
                | Action::Evict { .. }
                | Action::DryRun { .. } => continue,
            };
            self.version = ResourceVersion(version.0.saturating_add(1));
            self.upgrades.apply(written);
            is_changed = true;
        }
        is_changed
    }
}

/// Names the wish of an object whose workload is this one; `None` where that cannot be read.
pub fn target_hash(upgrade: &UpgradeView, workload: Value) -> Option<String> {
    let template = match upgrade.spec.target_ref.kind {
        TargetKind::Deployment => serde_json::from_value::<DeploymentView>(workload).ok()?.template,
        TargetKind::ReplicaSet => serde_json::from_value::<ReplicaSetView>(workload).ok()?.template,
        TargetKind::StatefulSet => serde_json::from_value::<StatefulSetView>(workload).ok()?.template,
        TargetKind::DaemonSet => serde_json::from_value::<DaemonSetView>(workload).ok()?.template,
    };
    Some(Wish::of(&upgrade.spec, &template).hash.as_str().to_owned())
}

/// The image by which pods of ours pull already.
fn image_of_pullers(pods: &[Arc<PodView>]) -> Option<Arc<str>> {
    let is_ours = |pod: &&Arc<PodView>| {
        pod.meta().controller.as_ref().is_some_and(|owner| &*owner.kind == IN_PLACE_UPGRADE.kind)
    };
    let mut containers = pods.iter().filter(is_ours).flat_map(|pod| &pod.containers);
    containers.find(|container| &*container.name == OF_PULLERS).map(|found| Arc::clone(&found.image))
}
