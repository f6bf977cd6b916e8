//! The controller's own code over a snapshot in memory: what it would say, and write, now.
//!
//! Nothing leaves the process. The stores are filled once; then the planner makes pass after pass for one group, and what
//! it writes to the group itself changes that in memory alone, until a pod, a kubelet or a person has to do something: no
//! time passes. Dry runs that a unit waits for are given out as [questions](Rehearsal::questions), for somebody who may
//! send them; those without an answer count as accepted.
//!
//! What the manager alone remembers (since when things are as they are, what it has failed at) or measures (metrics, usage)
//! is not known here. Where its status says so, that is told: see [`Basis`].
//!
//! - [`day`] is what the coming day holds by the schedule.
//! - [`advice`] is what people are told beside a reason.

pub mod advice;
pub mod day;
mod explain;
mod explanation;
#[cfg(test)]
mod tests;
mod way;

pub use day::{Day, DayPart, day};
pub use explanation::{Explanation, UnitLine};
pub use springtide_plumbing::rehearsal::{Basis, ConditionLine, PlannedWrite, Reported, Said};

use crate::TimeShareGroupReconciler;
use crate::observed::{Observed, PodIndex};
use crate::plan::accept::accept;
use crate::plan::plan;
use crate::preflight::{ask, upcoming};
use crate::projections::group::{GroupView, TIME_SHARE_GROUP};
use crate::projections::horizontal_pod_autoscaler::HorizontalPodAutoscalerView;
use crate::projections::http_route::HttpRouteView;
use crate::projections::resource_quota::ResourceQuotaView;
use crate::rollback;
use crate::sizes::{Level, Profile};
use crate::transition::{Course, course};
use crate::units::{Heading, Unit, Units, units};
use crate::watches::{AUTOSCALERS_BY_SCALED, GROUPS_BY_TARGET, Stores};
use jiff::Timestamp;
use serde_json::Value;
use springtide_plumbing::controller::Reconciler;
use springtide_plumbing::dry_run::Verdict;
use springtide_plumbing::executor::{Done, WriteResult};
use springtide_plumbing::key::{ObjectKey, ResourceVersion};
use springtide_plumbing::plan::{Action, Outcome, Plan, Write, WriteClass};
use springtide_plumbing::rehearsal::stored;
use springtide_plumbing::store::StoreWriter;
use springtide_plumbing::time_share::ReferenceGrantView;
use springtide_plumbing::traffic::{EndpointSliceView, ServiceView};
use springtide_plumbing::workloads::indexes::{
    AUTOSCALERS_BY_TARGET, PODS_BY_NODE, PODS_BY_OWNER, REPLICA_SETS_BY_OWNER,
};
use springtide_plumbing::workloads::kinds::{DeploymentView, ReplicaSetView, StatefulSetView};
use springtide_plumbing::workloads::node::NodeView;
use springtide_plumbing::workloads::pod::PodView;
use springtide_plumbing::workloads::vertical_pod_autoscaler::VerticalPodAutoscalerView;
use std::sync::Arc;

/// Passes after which a rehearsal ends: of the group alone there are a few, and some more for what is asked.
const MAX_PASSES: usize = 32;
/// Most dry runs that somebody is asked to send.
const QUESTIONS_MAX: usize = 40;

/// A snapshot of what the controller watches, as far as somebody may see it.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// TimeShareGroups.
    pub groups: Vec<Arc<GroupView>>,
    /// ReferenceGrants; none where they may not be seen, or there is no such kind.
    pub grants: Vec<Arc<ReferenceGrantView>>,
    /// Pods: those of all namespaces take room on the nodes.
    pub pods: Vec<Arc<PodView>>,
    /// Deployments.
    pub deployments: Vec<Arc<DeploymentView>>,
    /// ReplicaSets.
    pub replica_sets: Vec<Arc<ReplicaSetView>>,
    /// StatefulSets.
    pub stateful_sets: Vec<Arc<StatefulSetView>>,
    /// Services; none where they may not be seen.
    pub services: Vec<Arc<ServiceView>>,
    /// EndpointSlices; none where they may not be seen.
    pub slices: Vec<Arc<EndpointSliceView>>,
    /// ResourceQuotas; none where they may not be seen.
    pub quotas: Vec<Arc<ResourceQuotaView>>,
    /// HorizontalPodAutoscalers; none where they may not be seen.
    pub horizontal: Vec<Arc<HorizontalPodAutoscalerView>>,
    /// VerticalPodAutoscalers; none where they may not be seen, or there is no such kind.
    pub vertical: Vec<Arc<VerticalPodAutoscalerView>>,
    /// HTTPRoutes; none where they may not be seen, or there is no such kind.
    pub routes: Vec<Arc<HttpRouteView>>,
    /// Nodes; `None` where they, or the pods of all namespaces, may not be seen: what fits is not known then.
    pub nodes: Option<Vec<Arc<NodeView>>>,
}

/// The controller over a [`World`].
pub struct Rehearsal {
    reconciler: Arc<TimeShareGroupReconciler>,
    groups: StoreWriter<GroupView>,
    /// Whether it is known what nodes have room for.
    sees_nodes: bool,
    /// The version of the group that is written next.
    version: ResourceVersion,
}

/// What came of the passes for one group.
struct Passed {
    /// What the last plan rested on.
    observed: Observed,
    /// The last plan that says something of the group.
    told: Plan,
    /// All writes, in their order.
    writes: Vec<Write>,
}

/// The units of a group: of the switch that is open, else of the one that comes next.
struct Ahead {
    profiles: Vec<Profile>,
    heading: Heading,
    units: Units,
    /// Whether the switch has yet to begin.
    is_ahead: bool,
}

impl Rehearsal {
    /// Takes a snapshot in.
    pub fn new(world: World) -> Self {
        let mut seen = ResourceVersion::default();
        let (groups, writer) = stored(&world.groups, &[GROUPS_BY_TARGET], &mut seen);
        let sees_nodes = world.nodes.is_some();
        let nodes = world.nodes.map(|nodes| stored(&nodes, &[], &mut seen).0);
        let stores = Stores {
            groups,
            grants: stored(&world.grants, &[], &mut seen).0,
            pods: stored(&world.pods, &[PODS_BY_OWNER, PODS_BY_NODE], &mut seen).0,
            deployments: stored(&world.deployments, &[], &mut seen).0,
            replica_sets: stored(&world.replica_sets, &[REPLICA_SETS_BY_OWNER], &mut seen).0,
            stateful_sets: stored(&world.stateful_sets, &[], &mut seen).0,
            services: stored(&world.services, &[], &mut seen).0,
            slices: stored(&world.slices, &[], &mut seen).0,
            quotas: stored(&world.quotas, &[], &mut seen).0,
            horizontal: stored(&world.horizontal, &[AUTOSCALERS_BY_SCALED], &mut seen).0,
            vertical: stored(&world.vertical, &[AUTOSCALERS_BY_TARGET], &mut seen).0,
            routes: stored(&world.routes, &[], &mut seen).0,
            nodes,
        };
        Self {
            reconciler: TimeShareGroupReconciler::new(stores, None),
            groups: writer,
            sees_nodes,
            version: ResourceVersion(seen.0.saturating_add(1)),
        }
    }

    /// The dry runs by which the API server is asked what it thinks of the first units of the switch that is open, or comes
    /// next; none where the spec cannot be served, and of pods that were answered.
    pub fn questions(&self, key: &ObjectKey, now: Timestamp) -> Vec<Write> {
        let Some(observed) = self.reconciler.observe(key, None, now) else { return Vec::new() };
        let Some(ahead) = ahead(&observed, now) else { return Vec::new() };
        let growing = ahead.units.units.iter().flat_map(|unit| {
            let growing = unit.to.iter().map(|pod| (*pod, Level::Peak));
            growing.chain(unit.from.iter().map(|pod| (*pod, Level::Valley)))
        });
        let question = |(index, level): (PodIndex, Level)| {
            let spec = observed.group.spec.members.get(index.member.0)?;
            let profile = ahead.profiles.get(index.member.0)?;
            let found = observed.pod(index)?;
            let is_asked =
                found.evidence.asked.of(level).is_some() || profile.size(level).is_asked_by(&found.pod);
            (!is_asked).then(|| ask(spec, &found.pod, profile, level, WriteClass::Low))
        };
        growing.filter_map(question).take(QUESTIONS_MAX).collect()
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
    fn assume(&self, key: &ObjectKey, questions: Vec<Write>, now: Timestamp) {
        let accepted = questions.into_iter().map(|write| {
            let dry_run = Some(Verdict::Accepted(Arc::new(Value::Null)));
            WriteResult { write, outcome: Ok(Done { dry_run, ..Done::default() }) }
        });
        self.reconciler.settle(key, &accepted.collect::<Vec<_>>(), now);
    }

    /// Makes pass after pass for one group until something else has to act, or nothing changes any more.
    fn run(&mut self, key: &ObjectKey, now: Timestamp) -> Option<Passed> {
        let before = self.reconciler.stores.groups.get(key)?;
        let version = self.version;
        let observed = self.reconciler.observe(key, None, now)?;
        let mut passed = Passed { observed, told: Plan::idle(Outcome::Progressing), writes: Vec::new() };
        for _ in 0..MAX_PASSES {
            let Some(observed) = self.reconciler.observe(key, None, now) else { break };
            let plan = plan(&observed, now);
            let staged = plan.stages.iter().flatten().flat_map(|step| step.writes()).cloned();
            let (asked, mut writes): (Vec<Write>, Vec<Write>) =
                staged.partition(|write| matches!(write.action, Action::DryRun { .. }));
            // What is asked ahead of a switch holds nothing up.
            let awaited: Vec<Write> =
                asked.into_iter().filter(|write| write.class == WriteClass::Spec).collect();
            if !awaited.is_empty() && writes.is_empty() {
                self.assume(key, awaited, now);
                continue;
            }
            passed.observed = observed;
            writes.extend(plan.status.clone());
            writes.retain(|write| !write.action.is_noop());
            // One that only puts a finalizer there says nothing of where the group stands.
            if !plan.why.is_empty() {
                passed.told = plan;
            }
            let is_own = writes.iter().all(|write| write.resource == TIME_SHARE_GROUP);
            let is_changed = self.perform(&writes);
            passed.writes.extend(writes);
            if !is_own || !is_changed {
                break;
            }
        }
        self.groups.apply(GroupView::clone(&before));
        self.version = version;
        Some(passed)
    }

    /// Changes the group as these writes would; whether any does.
    fn perform(&mut self, writes: &[Write]) -> bool {
        let mut is_changed = false;
        for write in writes.iter().filter(|write| write.resource == TIME_SHARE_GROUP) {
            let Some(group) = self.reconciler.stores.groups.get(&write.key) else { continue };
            let version = self.version;
            let written = match &write.action {
                Action::Status { status, .. } => {
                    // The planner has made it of such a one.
                    let Ok(status) = serde_json::from_value(status.clone()) else { continue };
                    group.with_status(status, version)
                }
                // The only ones that there are put our finalizer there, and take it away.
                Action::Patch { .. } => group.with_finalizer_turned(version),
                Action::Create { .. }
                | Action::Delete { .. }
                | Action::Apply { .. }
                | Action::Evict { .. }
                | Action::DryRun { .. } => continue,
            };
            self.version = ResourceVersion(version.0.saturating_add(1));
            self.groups.apply(written);
            is_changed = true;
        }
        is_changed
    }
}

/// The units of the open switch, else of the one that comes next, else of the last one; `None` where the spec is not
/// served.
fn ahead(observed: &Observed, now: Timestamp) -> Option<Ahead> {
    let course = course(observed);
    let profiles = accept(observed, &course, now).ok()?.profiles;
    let next = || {
        let surveyed = observed.calendar.as_ref().ok()?;
        let desired = surveyed.calendar.desired(observed.group.spec.override_.as_ref(), now);
        let is_barred = rollback::is_barred(observed, &desired);
        Some(upcoming(observed, course.heading(), &desired, is_barred, now)?.heading)
    };
    let (heading, is_ahead) = match &course {
        Course::Open(heading) => (*heading, false),
        Course::Fresh | Course::Ended(_) => match next() {
            Some(next) => (next, true),
            None => (*course.heading()?, false),
        },
    };
    let units = units(observed, &heading, &profiles);
    Some(Ahead { profiles, heading, units, is_ahead })
}

impl Ahead {
    fn iter(&self) -> impl Iterator<Item = &Unit> {
        self.units.units.iter()
    }
}
