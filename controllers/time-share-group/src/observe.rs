//! Gathers what the stores and this process know of one group.

use crate::memory::{Glance, Memory};
use crate::observed::{
    Autoscalers, Evidence, Guard, Member, MemberPod, Node, Observed, Quota, Route, Selects, Usage, Workload,
};
use crate::preflight::basis;
use crate::profiles;
use crate::projections::group::{GroupView, TIME_SHARE_GROUP};
use crate::sizes::{Demand, Profile};
use crate::traffic::lever;
use crate::watches::AUTOSCALERS_BY_SCALED;
use crate::{Settings, TimeShareGroupReconciler, lock};
use jiff::{SignedDuration, Timestamp};
use springtide_crds::common::MetricGate;
use springtide_crds::time_share_group::{
    MAX_PODS, MAX_PODS_PER_CLUSTER, Member as MemberSpec, MemoryPolicy, RefusalReason, TrafficMode,
};
use springtide_plumbing::done_rule::DoneVerdict;
use springtide_plumbing::failing::Failing;
use springtide_plumbing::key::{ObjectKey, Uid};
use springtide_plumbing::metric_query::{Owner, judge};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::store::IndexKey;
use springtide_plumbing::traffic::{Exposure, Lever, Traffic, exposures};
use springtide_plumbing::workloads::indexes::{AUTOSCALERS_BY_TARGET, PODS_BY_NODE, workload_key};
use springtide_plumbing::workloads::names::TIME_SHARE_TRAFFIC;
use springtide_plumbing::workloads::pod::{PodView, container_now};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// What stands before the name of the load of donors where it is asked for: a metric may bear the same name.
const DONOR_LOAD: &str = "donorMaxLoad/";

impl TimeShareGroupReconciler {
    pub(crate) fn gather(
        &self,
        key: &ObjectKey,
        failing: Option<&Failing>,
        now: Timestamp,
    ) -> Option<Observed> {
        let Some(group) = self.stores.groups.get(key) else {
            self.forget(key);
            return None;
        };
        let memory = self.memory(key);
        let mut memory = lock(&memory);
        let names: Vec<&str> = group.spec.members.iter().map(|member| member.name.as_str()).collect();
        let calendar = memory.calendar.get(&group.spec.schedule, &names, now);
        let mut observed = Observed::of(Arc::clone(&group), calendar);
        observed.failing = failing.cloned();
        observed.members = group.spec.members.iter().map(|spec| self.member(&group, spec)).collect();
        observed.removed = self.removed(&group);
        observed.excess = self.excess(&observed);
        observed.nodes = self.nodes_of(&observed);
        self.ask_metrics(&mut observed, now);
        self.look(&mut observed, &mut memory, now);
        let on = pods(&observed).filter_map(|found| found.pod.node.clone()).collect();
        lock(&self.nodes).insert(key.clone(), on);
        Some(observed)
    }

    /// A member and its pods, of which the process knows nothing yet.
    fn member(&self, group: &GroupView, spec: &MemberSpec) -> Member {
        let (kind, key) = (spec.target_ref.kind, group.target_key(spec));
        let mut member = Member::of(spec.name.as_str().into(), Arc::clone(&key.namespace));
        member.is_granted = self.stores.is_granted(group, kind, &key);
        if !member.is_granted {
            return member;
        }
        let Some(workload) = self.stores.workload(kind, &key) else { return member };
        member.taken_by = self.rival(group, spec, &key);
        member.autoscalers = self.autoscalers(spec, &workload);
        member.quotas = self.quotas(&key.namespace);
        member.services = self.services(&workload);
        member.route = self.route(spec, &key.namespace);
        if member.taken_by.is_none() {
            member.pods = self.pods_of(&workload);
        }
        member.workload = Some(workload);
        member
    }

    /// Members that the status names and the spec does not any more, with the workload that each had. What another member
    /// has by now, of whatever group, is that one's.
    fn removed(&self, group: &GroupView) -> Vec<Member> {
        let is_member = |name: &str| group.spec.members.iter().any(|member| member.name == name);
        let gone = group.status.members.iter().filter(|member| !is_member(&member.name));
        let found = gone.filter_map(|gone| {
            // Its workload was never found.
            if gone.workload_uid.is_empty() {
                return None;
            }
            let workload = self.stores.workload_of(&Uid(gone.workload_uid.as_str().into()))?;
            if self.stores.group_of(workload.kind, &workload.key).is_some() {
                return None;
            }
            let mut member = Member::of(gone.name.as_str().into(), Arc::clone(&workload.key.namespace));
            member.is_granted = self.stores.is_granted(group, workload.kind, &workload.key);
            member.pods = self.pods_of(&workload);
            member.workload = Some(workload);
            Some(member)
        });
        found.collect()
    }

    fn pods_of(&self, workload: &Workload) -> Vec<MemberPod> {
        let pods = self.stores.pods_of(workload).into_iter();
        pods.map(|pod| MemberPod { pod, evidence: Evidence::default() }).collect()
    }

    /// The older group that has the same workload, if there is one.
    fn rival(&self, group: &GroupView, spec: &MemberSpec, workload: &ObjectKey) -> Option<ObjectKey> {
        let owner = self.stores.group_of(spec.target_ref.kind, workload)?;
        (owner.meta().uid != group.meta().uid).then(|| owner.meta().key.clone())
    }

    fn autoscalers(&self, spec: &MemberSpec, workload: &Workload) -> Autoscalers {
        let key = &workload.key;
        let index = workload_key(workload.kind.into(), &key.namespace, &key.name);
        let horizontal = self.stores.horizontal.by_index(&AUTOSCALERS_BY_SCALED, &index);
        let vertical = self.stores.vertical.by_index(&AUTOSCALERS_BY_TARGET, &index);
        let divides = horizontal.iter().filter(|autoscaler| autoscaler.divides_by_what_moves(spec));
        // Of several the oldest is asked, as the autoscaler itself has it (`GetControllingVPAForPod`).
        let resizes = vertical.iter().filter(|autoscaler| autoscaler.resizes);
        let oldest = resizes
            .min_by_key(|autoscaler| (autoscaler.meta().creation_time, autoscaler.meta().key.name.clone()));
        Autoscalers {
            by_utilization: divides.map(|autoscaler| Arc::clone(&autoscaler.meta().key.name)).collect(),
            vertical: oldest.map(|autoscaler| Arc::clone(&autoscaler.meta().key.name)),
        }
    }

    fn quotas(&self, namespace: &str) -> Vec<Quota> {
        let quotas = self.stores.quotas.list(Some(namespace));
        let bounds = quotas.iter().filter(|quota| quota.bounds_resizes());
        bounds.map(|quota| quota.quota.clone()).collect()
    }

    /// The Services that select the pods of a workload by all else but our label, or by its `"true"` too. One that selects
    /// what has another value of it is for pods out of traffic.
    fn services(&self, workload: &Workload) -> BTreeMap<Arc<str>, Selects> {
        let label = TIME_SHARE_TRAFFIC.label;
        let labels = &workload.template.content.labels;
        let services = self.stores.services.list(Some(&workload.key.namespace));
        let selecting = services.iter().filter_map(|service| {
            let mut others = service.selector.iter().filter(|(key, _)| ***key != *label);
            let selects = !service.selector.is_empty()
                && others.all(|(key, value)| labels.get(&**key).is_some_and(|own| **own == **value));
            let how = match service.selector.get(label).map(|value| &**value) {
                None => Selects::Regardless,
                Some("true") => Selects::ByLabel,
                Some(_) => return None,
            };
            selects.then(|| (Arc::clone(&service.meta().key.name), how))
        });
        selecting.collect()
    }

    fn route(&self, spec: &MemberSpec, namespace: &Arc<str>) -> Option<Route> {
        let named = match spec.traffic.mode {
            TrafficMode::HttpRoute => spec.traffic.http_route.as_ref()?,
            TrafficMode::None | TrafficMode::ServiceLabel | TrafficMode::ReadinessGate => return None,
        };
        let key = ObjectKey { namespace: Arc::clone(namespace), name: named.name.as_str().into() };
        let route = self.stores.routes.get(&key)?;
        Some(Route {
            key,
            uid: route.meta().uid.clone(),
            resource_version: route.meta().resource_version,
            backends: route.backends_of(&named.backend),
            steady_since: None,
        })
    }

    /// What maximum it is beyond: the oldest groups are served.
    fn excess(&self, observed: &Observed) -> Option<String> {
        let group = &observed.group;
        let age = |group: &GroupView| (group.meta().creation_time, group.meta().uid.clone());
        let all = self.stores.groups.list(None);
        let older: Vec<&Arc<GroupView>> = all.iter().filter(|other| age(other) < age(group)).collect();
        let is_beyond = |count: usize, max: u32| u32::try_from(count).is_ok_and(|count| count >= max);
        let namespace = &group.meta().key.namespace;
        let beside = older.iter().filter(|other| other.meta().key.namespace == *namespace).count();
        let Settings { max_per_namespace, max_per_cluster } = self.settings;
        if is_beyond(beside, max_per_namespace) {
            return Some(format!(
                "there are more than {max_per_namespace} TimeShareGroups in namespace {namespace}"
            ));
        }
        if is_beyond(older.len(), max_per_cluster) {
            return Some(format!("there are more than {max_per_cluster} TimeShareGroups in the cluster"));
        }
        let own: usize = observed.members.iter().map(|member| member.pods.len()).sum();
        let own = u32::try_from(own).unwrap_or(u32::MAX);
        if own > MAX_PODS {
            return Some(format!("the group has {own} pods, more than {MAX_PODS}"));
        }
        // One that is not served for that takes nothing from others.
        let served = older
            .iter()
            .filter(|other| other.reason::<RefusalReason>() != Some(RefusalReason::LimitExceeded));
        let others = served.flat_map(|other| &other.status.members).map(|member| member.pods);
        let pods = others.fold(own, u32::saturating_add);
        (pods > MAX_PODS_PER_CLUSTER).then(|| {
            format!(
                "with this one the groups of the cluster have {pods} pods, more than {MAX_PODS_PER_CLUSTER}"
            )
        })
    }

    /// The nodes of the group's pods, and what pods of others take there.
    fn nodes_of(&self, observed: &Observed) -> HashMap<Arc<str>, Node> {
        let Some(nodes) = &self.stores.nodes else { return HashMap::new() };
        let own: HashSet<&Uid> =
            observed.members.iter().flat_map(|member| &member.pods).map(MemberPod::uid).collect();
        let names: HashSet<&Arc<str>> = pods(observed).filter_map(|found| found.pod.node.as_ref()).collect();
        let found = names.into_iter().filter_map(|name| {
            let node = nodes.get(&ObjectKey { namespace: "".into(), name: Arc::clone(name) })?;
            let on_it = self.stores.pods.by_index(&PODS_BY_NODE, &IndexKey::from(name));
            let others = on_it.iter().filter(|pod| pod.takes_room() && !own.contains(&pod.meta().uid));
            let others = others.map(|pod| Demand::from(pod.requests)).sum();
            Some((Arc::clone(name), Node { allocatable: node.allocatable.into(), others }))
        });
        found.collect()
    }

    /// Asks for the metrics of an open switch, and takes in what is known of them.
    fn ask_metrics(&self, observed: &mut Observed, now: Timestamp) {
        let Some(queries) = &self.queries else { return };
        let group = Arc::clone(&observed.group);
        let owner = owner(&group.meta().key);
        let guards = &group.spec.guards;
        let donor_load = guards.donor_max_load.as_ref().map(|gate| {
            let name = format!("{DONOR_LOAD}{}", gate.name);
            MetricGate { name, ..gate.clone() }
        });
        let all = || guards.metrics.iter().chain(&donor_load);
        let refused = all().filter_map(|gate| {
            let address = &gate.prometheus.address;
            queries.refusal(address).map(|why| (address.clone(), why))
        });
        observed.refused_addresses = refused.collect();
        let open = group.status.transition.as_ref().filter(|transition| transition.completion_time.is_none());
        let Some(open) = open else {
            queries.want(&owner, []);
            return;
        };
        queries.want(&owner, all());
        let judged = |gate: &MetricGate, name: &str| Guard {
            name: name.into(),
            verdict: judge(gate, &queries.history(&owner, &gate.name), open.start_time.0, now),
        };
        observed.metrics = guards.metrics.iter().map(|gate| judged(gate, &gate.name)).collect();
        let load = donor_load.as_ref().zip(guards.donor_max_load.as_ref());
        observed.donor_load = load.map(|(asked, gate)| judged(asked, &gate.name));
    }

    /// Takes in how everything is now, and what is known of it.
    fn look(&self, observed: &mut Observed, memory: &mut Memory, now: Timestamp) {
        let group = Arc::clone(&observed.group);
        let profiles = profiles::all(&group.spec, &observed.members).unwrap_or_default();
        let mut exposed = self.exposures_of(&group, &observed.members, &profiles);
        let mut usages = self.usages_of(&group, &observed.members);
        let mut version = DefaultHasher::new();
        group.meta().generation.hash(&mut version);
        let transition = group.status.transition.as_ref();
        let stage = transition.map(|open| (open.id, open.step, open.completion_time.is_some()));
        stage.hash(&mut version);
        memory.begin(transition);
        for (spec, member) in group.spec.members.iter().zip(&mut observed.members) {
            let is_missing = member.is_granted && member.workload.is_none();
            member.missing_since = memory.look_for_workload(&member.name, is_missing, now);
            if let Some(route) = &mut member.route {
                route.steady_since = memory.look_at_weights(&member.name, weights(route), now);
            }
            let basis = member.workload.as_ref().map(|workload| basis(spec, &workload.template));
            for found in &mut member.pods {
                moves(&found.pod, &mut version);
                let uid = &found.pod.meta().uid;
                let glance = Glance {
                    lever: lever(spec, &found.pod),
                    exposure: exposed.remove(uid),
                    basis,
                    usage: usages.remove(uid),
                    is_upgrading: is_upgrading(&found.pod, now),
                };
                found.evidence = memory.look(&found.pod, glance, now);
            }
        }
        for found in observed.removed.iter_mut().flat_map(|member| &mut member.pods) {
            let is_upgrading = is_upgrading(&found.pod, now);
            found.evidence = memory.look(&found.pod, Glance { is_upgrading, ..Glance::default() }, now);
        }
        memory.end();
        observed.still_since = memory.look_for_moves(version.finish(), now);
        observed.nudges = memory.nudges();
        observed.status_written = memory.status_written;
        let open = transition.filter(|transition| transition.completion_time.is_none()).map(|open| open.id);
        self.measures.passed(&memory.times.look(open, &group.spec.members, &observed.members, now));
        observed.took = memory.times.took();
    }

    /// Who sends traffic to pods that are turned off and have not shrunk yet, by UID. Nothing depends on what is sent to the
    /// others, of which there are thousands for hours.
    fn exposures_of(
        &self,
        group: &GroupView,
        members: &[Member],
        profiles: &[Profile],
    ) -> HashMap<Uid, Exposure> {
        let mut levers: HashMap<&Uid, Lever> = HashMap::new();
        let mut namespaces: BTreeSet<&Arc<str>> = BTreeSet::new();
        for (number, (spec, member)) in group.spec.members.iter().zip(members).enumerate() {
            let has_shrunk =
                |pod: &PodView| profiles.get(number).is_some_and(|profile| profile.valley.is_asked_by(pod));
            for found in &member.pods {
                let Some(lever) = lever(spec, &found.pod) else { continue };
                let is_off = match found.pod.time_share.traffic(lever) {
                    Traffic::Off { .. } => true,
                    Traffic::On | Traffic::Unset => false,
                };
                if is_off && !has_shrunk(&found.pod) {
                    levers.insert(found.uid(), lever);
                    namespaces.insert(&member.namespace);
                }
            }
        }
        let mut all: HashMap<Uid, Exposure> =
            levers.keys().map(|uid| (Uid::clone(uid), Exposure::default())).collect();
        for namespace in namespaces {
            let slices = self.stores.slices.list(Some(namespace));
            let service = |key: &ObjectKey| self.stores.services.get(key);
            let lever_of = |uid: &Uid| levers.get(uid).copied();
            let slices = slices.iter().map(AsRef::as_ref);
            all.extend(exposures(slices, service, lever_of, TIME_SHARE_TRAFFIC.label));
        }
        all
    }

    /// What pods use whose memory moves, by UID. What was measured before a pod was there is of another one of its name.
    fn usages_of(&self, group: &GroupView, members: &[Member]) -> HashMap<Uid, Usage> {
        let moving = group.spec.members.iter().zip(members).filter(|(spec, _)| match spec.memory {
            MemoryPolicy::Move => true,
            MemoryPolicy::Keep => false,
        });
        let measured = lock(&self.usage);
        let pods = moving.flat_map(|(_, member)| &member.pods);
        let found = pods.filter_map(|found| {
            let meta = found.pod.meta();
            let usage = measured.get(&meta.key).filter(|usage| usage.at >= meta.creation_time)?;
            Some((meta.uid.clone(), usage.clone()))
        });
        found.collect()
    }
}

/// As whom a group asks for its metrics.
pub(crate) fn owner(key: &ObjectKey) -> Owner {
    Owner { resource: TIME_SHARE_GROUP, key: key.clone() }
}

/// All pods, those of removed members included.
fn pods(observed: &Observed) -> impl Iterator<Item = &MemberPod> {
    observed.members.iter().chain(&observed.removed).flat_map(|member| &member.pods)
}

/// A number that changes with the weights of a route.
fn weights(route: &Route) -> u64 {
    let mut hasher = DefaultHasher::new();
    route.uid.hash(&mut hasher);
    for backend in &route.backends {
        (backend.rule, backend.backend, backend.weight).hash(&mut hasher);
    }
    hasher.finish()
}

/// Takes in what of a pod moves in a switch: its size, as asked for and in force, and its traffic. Whether it is ready comes
/// and goes by itself.
fn moves(pod: &PodView, version: &mut DefaultHasher) {
    let meta = pod.meta();
    (&meta.uid, meta.generation, pod.observed_generation, &pod.node).hash(version);
    for container in &pod.containers {
        container.status.as_ref().map(|status| (status.amounts, status.allocated)).hash(version);
    }
    let condition = pod.time_share.condition.as_ref().map(|condition| condition.last_transition_time);
    (condition, &pod.time_share.label).hash(version);
}

/// Whether an InPlaceUpgrade is at work on a pod: it has taken it out of traffic, or a container of it still has to start
/// anew. One that has, and may yet prove to be what ran before, at most starts once more.
fn is_upgrading(pod: &PodView, now: Timestamp) -> bool {
    let is_off = |lever| match pod.signals.traffic(lever) {
        Traffic::Off { run, .. } => run.is_some(),
        Traffic::On | Traffic::Unset => false,
    };
    let levers = [Lever::ReadinessGate, Lever::ServiceLabel];
    let grace = SignedDuration::from_secs(pod.grace_seconds.into());
    levers.into_iter().any(is_off)
        || pod.trace.record().is_some_and(|record| {
            pod.containers.iter().any(|container| {
                match record.judge(&container.name, &container_now(pod, container), grace, None, now) {
                    DoneVerdict::Done | DoneVerdict::NotYet { wake: Some(_), .. } => false,
                    DoneVerdict::NotYet { wake: None, .. } => true,
                }
            })
        })
}

#[cfg(test)]
mod tests;
