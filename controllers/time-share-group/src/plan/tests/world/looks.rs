//! What a controller sees of the world, as the observer gathers it.

use super::{World, view};
use crate::fixtures::{NAMESPACE, at};
use crate::memory::{Glance, Memory};
use crate::observed::{Member, MemberPod, Node, Observed, Quota, Selects, Workload};
use crate::preflight::basis;
use crate::projections::group::GroupView;
use crate::sizes::Demand;
use crate::traffic::lever;
use jiff::Timestamp;
use serde_json::json;
use springtide_crds::time_share_group::Member as MemberSpec;
use springtide_plumbing::key::{ObjectKey, Uid};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::traffic::{Exposure, Traffic};
use springtide_plumbing::workloads::pod::PodView;
use springtide_plumbing::workloads::template::Template;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

impl World {
    /// All pods by name, as controllers read them.
    pub(in crate::plan::tests) fn views(&self) -> BTreeMap<String, Arc<PodView>> {
        self.pods.iter().map(|(name, pod)| (name.clone(), view(pod))).collect()
    }

    /// What is seen now.
    pub(in crate::plan::tests) fn observe(&mut self) -> Observed {
        let now = at(self.now);
        let group: Arc<GroupView> = view(&self.group);
        let views = self.views();
        let mut memory = std::mem::take(&mut self.memory);
        let names: Vec<&str> = group.spec.members.iter().map(|member| member.name.as_str()).collect();
        let mut observed =
            Observed::of(Arc::clone(&group), memory.calendar.get(&group.spec.schedule, &names, now));
        memory.begin(group.status.transition.as_ref());
        for spec in &group.spec.members {
            observed.members.push(self.member(spec, &views, &mut memory, now));
        }
        observed.removed = self.removed(&group, &views, &mut memory, now);
        memory.end();
        observed.nudges = memory.nudges();
        observed.status_written = memory.status_written;
        observed.nodes = self.seen_nodes(&observed, &views);
        self.memory = memory;
        observed
    }

    fn member(
        &self,
        spec: &MemberSpec,
        views: &BTreeMap<String, Arc<PodView>>,
        memory: &mut Memory,
        now: Timestamp,
    ) -> Member {
        let mut member = Member::of(spec.name.as_str().into(), NAMESPACE.into());
        member.workload = self.workload(&spec.target_ref.name);
        member.missing_since = memory.look_for_workload(&member.name, member.workload.is_none(), now);
        let by_label = self.deployments.get(&spec.target_ref.name).is_some_and(|own| own.is_by_label);
        let selects = if by_label { Selects::ByLabel } else { Selects::Regardless };
        member.services.insert(spec.name.as_str().into(), selects);
        member.quotas = self.quota_left().into_iter().map(quota).collect();
        let basis = member.workload.as_ref().map(|workload| basis(spec, &workload.template));
        member.pods = self.live(&spec.target_ref.name, views);
        for found in &mut member.pods {
            let lever = lever(spec, &found.pod);
            let is_off = lever.is_some_and(|lever| match found.pod.time_share.traffic(lever) {
                Traffic::Off { .. } => true,
                Traffic::On | Traffic::Unset => false,
            });
            let meta = found.pod.meta();
            let listed_by: BTreeSet<Arc<str>> = self
                .listed
                .contains(&*meta.uid.0)
                .then(|| Arc::from(spec.name.as_str()))
                .into_iter()
                .collect();
            let glance = Glance {
                lever,
                exposure: is_off.then(|| Exposure { listed_by, ..Exposure::default() }),
                basis,
                usage: None,
                is_upgrading: self.upgrading.contains(&*meta.key.name),
            };
            found.evidence = memory.look(&found.pod, glance, now);
        }
        member
    }

    /// Members that the status names and the spec does not any more.
    fn removed(
        &self,
        group: &GroupView,
        views: &BTreeMap<String, Arc<PodView>>,
        memory: &mut Memory,
        now: Timestamp,
    ) -> Vec<Member> {
        let is_member = |name: &str| group.spec.members.iter().any(|member| member.name == name);
        let gone = group.status.members.iter().filter(|member| !is_member(&member.name));
        let of = |name: &str| {
            let workload = self.workload(name)?;
            let mut member = Member::of(name.into(), NAMESPACE.into());
            member.workload = Some(workload);
            member.pods = self.live(name, views);
            for found in &mut member.pods {
                found.evidence = memory.look(&found.pod, Glance::default(), now);
            }
            Some(member)
        };
        gone.map(|member| member.name.as_str()).filter_map(of).collect()
    }

    fn workload(&self, name: &str) -> Option<Workload> {
        let deployment = self.deployments.get(name)?;
        Some(Workload {
            kind: springtide_crds::time_share_group::MemberKind::Deployment,
            key: ObjectKey::new(NAMESPACE, name),
            uid: Uid(name.into()),
            replicas: u32::try_from(deployment.replicas).unwrap(),
            selector: json!({"matchLabels": {"app": name}}),
            template: Template::shared(&deployment.template),
        })
    }

    /// Pods of a Deployment in their order, of which nothing else is known yet.
    fn live(&self, deployment: &str, views: &BTreeMap<String, Arc<PodView>>) -> Vec<MemberPod> {
        let owner = format!("{deployment}-rs");
        let own =
            views.values().filter(|pod| pod.is_live() && pod.owner().is_some_and(|uid| *uid.0 == *owner));
        let mut own: Vec<MemberPod> =
            own.map(|pod| MemberPod { pod: Arc::clone(pod), evidence: Default::default() }).collect();
        own.sort_by_key(|found| (found.pod.meta().creation_time, Arc::clone(&found.pod.meta().key.name)));
        own
    }

    fn seen_nodes(
        &self,
        observed: &Observed,
        views: &BTreeMap<String, Arc<PodView>>,
    ) -> HashMap<Arc<str>, Node> {
        let own: BTreeSet<&str> =
            observed.members.iter().flat_map(|member| &member.pods).map(|found| &*found.uid().0).collect();
        let mut nodes: HashMap<Arc<str>, Node> = self
            .nodes
            .keys()
            .map(|name| (name.as_str().into(), Node { allocatable: self.allocatable, ..Node::default() }))
            .collect();
        for pod in views.values().filter(|pod| pod.takes_room() && !own.contains(&*pod.meta().uid.0)) {
            if let Some(node) = pod.node.as_ref().and_then(|node| nodes.get_mut(node)) {
                node.others += Demand::from(pod.requests);
            }
        }
        nodes
    }
}

fn quota(left: i64) -> Quota {
    Quota { name: "compute".into(), requests_cpu: Some(left), ..Quota::default() }
}
