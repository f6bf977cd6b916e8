//! What is known of one TimeShareGroup: plain data, gathered by `observe`, that a plan rests on.
//!
//! Of all of it only what the API says decides: objects, and the status as stored. Instants and counts of this process
//! ([`Evidence`]) make waits longer when they are lost, and answers of dry runs are asked for anew; see
//! [`memory`](crate::memory).

use crate::pod_times::Took;
use crate::projections::group::GroupView;
use crate::sizes::{Demand, Level};
use jiff::Timestamp;
use serde_json::Value;
use springtide_crds::time_share_group::MemberKind;
use springtide_plumbing::failing::Failing;
use springtide_plumbing::key::{ObjectKey, ResourceVersion, Uid};
use springtide_plumbing::metric_query::MetricVerdict;
use springtide_plumbing::projection::Projection;
use springtide_plumbing::traffic::{Exposure, Signals};
use springtide_plumbing::window::calendar::{CalendarProblem, Surveyed};
use springtide_plumbing::workloads::pod::PodView;
use springtide_plumbing::workloads::template::Template;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Plain data about one group.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The group.
    pub group: Arc<GroupView>,
    /// When who is to be at peak, or why that cannot be said.
    pub calendar: Result<Arc<Surveyed>, CalendarProblem>,
    /// The members, in the order of the spec.
    pub members: Vec<Member>,
    /// Those that the status names and the spec does not any more, by name: their pods are let go.
    pub removed: Vec<Member>,
    /// The nodes that pods of members and removed members are on, by name. A node that the store has not is left out.
    pub nodes: HashMap<Arc<str>, Node>,
    /// What maximum it is beyond, for people.
    pub excess: Option<String>,
    /// What the metrics of the guards say, in their order.
    pub metrics: Vec<Guard>,
    /// What the load of the donors is, where the spec asks for it.
    pub donor_load: Option<Guard>,
    /// Addresses of metrics that may not be asked, and why.
    pub refused_addresses: BTreeMap<String, String>,
    /// Since when nothing has moved although something was to.
    pub still_since: Option<Timestamp>,
    /// When this process has written the status last.
    pub status_written: Option<Timestamp>,
    /// Nudges of the open transition: those that the status names, and those that this process has sent since.
    pub nudges: u32,
    /// What the parts of the open switch took its pods until now, as far as this process has looked on; for people alone.
    pub took: Vec<Took>,
    /// What its writes fail at.
    pub failing: Option<Failing>,
}

/// One member and its pods.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its name in the group.
    pub name: Arc<str>,
    /// Namespace of its workload.
    pub namespace: Arc<str>,
    /// Its workload; `None` while there is none, and while its namespace has not granted it.
    pub workload: Option<Workload>,
    /// Since when there has been no workload, as far as was looked.
    pub missing_since: Option<Timestamp>,
    /// An older group that has the same workload as a member.
    pub taken_by: Option<ObjectKey>,
    /// Whether the workload is in the group's namespace, or a ReferenceGrant of its own lets the group have it.
    pub is_granted: bool,
    /// HorizontalPodAutoscalers and VerticalPodAutoscalers of the workload.
    pub autoscalers: Autoscalers,
    /// ResourceQuotas of its namespace that bound requests or limits of cpu or memory, by name.
    pub quotas: Vec<Quota>,
    /// Services that select its pods, by name: a label that none of them selects by turns nothing.
    pub services: BTreeMap<Arc<str>, Selects>,
    /// The HTTPRoute of its traffic, where that is by one and it is there.
    pub route: Option<Route>,
    /// Its live pods, the oldest first and then by name. Those of the workload's own and no others.
    pub pods: Vec<MemberPod>,
}

/// A workload, as far as its pods are judged by it.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Its kind.
    pub kind: MemberKind,
    /// Namespace and name.
    pub key: ObjectKey,
    /// Its UID.
    pub uid: Uid,
    /// Pods that it is to have.
    pub replicas: u32,
    /// Labels that its own controller selects by (`spec.selector`), as stored.
    pub selector: Value,
    /// From what it makes pods.
    pub template: Arc<Template>,
}

/// How a Service selects pods of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Selects {
    /// By our label too: a pod without the label's `"true"` gets no traffic from it.
    ByLabel,
    /// Whatever our label says.
    Regardless,
}

/// One pod and what else is known of it.
#[derive(Clone, Debug)]
pub struct MemberPod {
    /// The pod.
    pub pod: Arc<PodView>,
    /// What it does not say itself.
    pub evidence: Evidence,
}

impl MemberPod {
    /// Its UID.
    pub fn uid(&self) -> &Uid {
        &self.pod.meta().uid
    }

    /// Its gate and label of time sharing.
    pub fn time_share(&self) -> &Signals {
        &self.pod.time_share
    }
}

/// What is known of a pod beside the pod. Instants and counts are this process's: losing them only lengthens waits, and
/// at most repeats nudges.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evidence {
    /// Who sends traffic to it; looked for only while it is turned off.
    pub exposure: Exposure,
    /// Since when its drain has been proved.
    pub proved_since: Option<Timestamp>,
    /// Since when its spec asks for another size than is in force.
    pub open_since: Option<Timestamp>,
    /// Since when its size is in force and its containers are ready: from here a warm-up counts.
    pub warm_since: Option<Timestamp>,
    /// How often a resize of it was sent anew in this transition, and when last.
    pub nudges: Nudges,
    /// Its own resize, or turn of traffic, was refused: not planned again before [`Refused::retry_at`].
    pub refused: Option<Refused>,
    /// What the API server said to dry runs of its resize, by the level in question.
    pub asked: Asked,
    /// What its containers use, where pod metrics are there.
    pub usage: Option<Usage>,
    /// Its kubelet has not taken memory from it: that is not tried again before this time.
    pub memory_kept_until: Option<Timestamp>,
    /// Whether an InPlaceUpgrade is at work on it: it is not resized.
    pub is_upgrading: bool,
}

/// Nudges of one pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Nudges {
    /// How many.
    pub count: u32,
    /// When the last one was sent.
    pub last: Option<Timestamp>,
}

/// A write that the API server refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What for.
    pub what: Attempt,
    /// Why.
    pub why: RefusedBy,
    /// The server's words.
    pub message: Box<str>,
    /// When it was.
    pub at: Timestamp,
    /// Not before this time is it tried again: quota and policies change.
    pub retry_at: Timestamp,
}

/// What was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Attempt {
    /// A resize to a level.
    Resize(Level),
    /// Turning traffic.
    Traffic,
}

/// Why a resize is refused, as far as the server's answer tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusedBy {
    /// A ResourceQuota has no room (403 `exceeded quota`).
    Quota,
    /// Its quality of service would become another one.
    QosClass,
    /// A LimitRange, a policy or a webhook.
    Admission,
    /// The pod or its node cannot be resized at all (Windows, static, swap, an old kubelet).
    Ineligible,
}

/// What dry runs of one pod's resize were answered, by the level.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The resize to peak.
    pub peak: Option<Answer>,
    /// The resize to valley.
    pub valley: Option<Answer>,
    /// How often in a row one of them was refused.
    pub refusals: u32,
}

impl Asked {
    /// The answer for a level.
    pub fn of(&self, level: Level) -> Option<&Answer> {
        match level {
            Level::Valley => self.valley.as_ref(),
            Level::Peak => self.peak.as_ref(),
        }
    }
}

/// An answer to a dry run; it is of the profile, template and pod of its time (those who ask drop it when one of them
/// changes).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// When it came.
    pub at: Timestamp,
    /// What was wrong; `None` when it would be stored.
    pub refused: Option<(RefusedBy, Box<str>)>,
}

/// What containers of a pod use of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// End of the time that it was measured over.
    pub at: Timestamp,
    /// Working sets in bytes, by container.
    pub working_set: BTreeMap<Arc<str>, i64>,
}

/// A node that pods of members are on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// What all its pods may request together.
    pub allocatable: Demand,
    /// What all live pods on it that are of no member of this group count, as scheduler and kubelet count it: the larger of
    /// spec, allocated and actuated.
    pub others: Demand,
}

/// Autoscalers that have a say in a member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Autoscalers {
    /// HorizontalPodAutoscalers that scale it by utilization of a request, by name.
    pub by_utilization: Vec<Arc<str>>,
    /// The VerticalPodAutoscaler that resizes its live pods.
    pub vertical: Option<Arc<str>>,
}

/// A ResourceQuota, as far as it bounds what a group moves. Amounts that it does not bound are `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Its name.
    pub name: Arc<str>,
    /// `hard` less `used` of `requests.cpu` (or `cpu`), in thousandths of a core; less than 0 where it was cut.
    pub requests_cpu: Option<i64>,
    /// The same of `requests.memory` (or `memory`), in bytes.
    pub requests_memory: Option<i64>,
    /// The same of `limits.cpu`.
    pub limits_cpu: Option<i64>,
    /// The same of `limits.memory`.
    pub limits_memory: Option<i64>,
    /// Whether scopes leave out some pods: whom it bounds is then known to the server alone.
    pub is_scoped: bool,
}

/// The rules of an HTTPRoute that name a member's backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The HTTPRoute.
    pub key: ObjectKey,
    /// Its UID.
    pub uid: Uid,
    /// Its version, which the patch tests.
    pub resource_version: ResourceVersion,
    /// Where the backend stands: numbers of rule and of backend in it, and its weight.
    pub backends: Vec<Backend>,
    /// Since when its weights have been what they are, as far as was looked; a memory of this process.
    pub steady_since: Option<Timestamp>,
}

/// A backend of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Number of the rule, from 0.
    pub rule: usize,
    /// Number of the backend in the rule, from 0.
    pub backend: usize,
    /// Its name, which the patch tests.
    pub name: Arc<str>,
    /// Its weight; 1 where nothing is said, as the API has it.
    pub weight: u32,
    /// Whether the weight is stated: what is not there is added and not replaced.
    pub is_stated: bool,
}

/// A measured guard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// Its name.
    pub name: Arc<str>,
    /// What the answers since the transition began mean.
    pub verdict: MetricVerdict,
}

impl Observed {
    /// A group of which nothing else is known.
    pub fn of(group: Arc<GroupView>, calendar: Result<Arc<Surveyed>, CalendarProblem>) -> Self {
        Self {
            group,
            calendar,
            members: Vec::new(),
            removed: Vec::new(),
            nodes: HashMap::new(),
            excess: None,
            metrics: Vec::new(),
            donor_load: None,
            refused_addresses: BTreeMap::new(),
            still_since: None,
            status_written: None,
            nudges: 0,
            took: Vec::new(),
            failing: None,
        }
    }

    /// The number of a member in [`Observed::members`].
    pub fn member(&self, name: &str) -> Option<MemberIndex> {
        self.members.iter().position(|member| *member.name == *name).map(MemberIndex)
    }

    /// The pod of a number that was taken in this pass.
    pub fn pod(&self, index: PodIndex) -> Option<&MemberPod> {
        self.members.get(index.member.0)?.pods.get(index.pod)
    }
}

impl Member {
    /// A member of which nothing else is known.
    pub fn of(name: Arc<str>, namespace: Arc<str>) -> Self {
        Self {
            name,
            namespace,
            workload: None,
            missing_since: None,
            taken_by: None,
            is_granted: true,
            autoscalers: Autoscalers::default(),
            quotas: Vec::new(),
            services: BTreeMap::new(),
            route: None,
            pods: Vec::new(),
        }
    }

    /// Whether its pods may be written to.
    pub fn is_ours(&self) -> bool {
        self.workload.is_some() && self.taken_by.is_none() && self.is_granted
    }
}

/// Number of a member in [`Observed::members`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MemberIndex(pub usize);

/// Which pod of [`Observed::members`]: numbers of member and pod. It means something within one pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodIndex {
    /// The member.
    pub member: MemberIndex,
    /// Number of the pod in [`Member::pods`].
    pub pod: usize,
}
