//! What people ask of the admission and no planner does: where a job stands in its line, and what keeps its
//! pods from which nodes.

use super::figures::digits;
use super::{Admission, Place};
use crate::peaks::PeakState;
use crate::projections::node::{Taint, TaintEffect};
use springtide_plumbing::resources::ResourceList;
use crate::shape::{Shape, Unfit};
use jiff::Timestamp;
use serde::Serialize;
use springtide_crds::batch_job::QueuedReason;
use springtide_plumbing::key::Uid;
use springtide_plumbing::projection::Projection;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Nodes that are named of those alike.
const EXAMPLES: usize = 3;

/// Where a job stands among those that wait in its queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlaceInLine {
    /// Tells its class from others of the same tier and priority, as `status.waiting` of a queue does.
    pub shape: String,
    /// Jobs that wait in the line, this one included; those that the queue has yet to take in are not.
    pub waiting: usize,
    /// Of these, the ones that come before it by tier, priority and age.
    pub ahead: usize,
    /// Jobs that wait in its class, this one included.
    pub class_waiting: usize,
    /// Of these, the ones that come before it.
    pub class_ahead: usize,
    /// Whether the queue has yet to take it in.
    pub outside: bool,
}

/// How pods of one shape fit on the nodes now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FitReport {
    /// Nodes in all.
    pub nodes: usize,
    /// Whole pods that fit now, on all nodes together.
    pub pods: u64,
    /// Nodes with room for at least one.
    pub with_room: usize,
    /// Whether this is all that decides. Pod affinity, hard topology spread, volumes, resource claims and host ports
    /// are left to the scheduler.
    pub is_modelled: bool,
    /// The other nodes by what speaks against them, the most first.
    pub excluded: Vec<ExcludedNodes>,
}

/// Nodes that the same thing speaks against.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExcludedNodes {
    /// What it is.
    pub reason: NodeExclusion,
    /// The taint, or the resource that is short; empty for the others.
    pub detail: String,
    /// How many there are.
    pub nodes: usize,
    /// Up to three of their names.
    pub examples: Vec<String>,
}

/// What speaks against a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum NodeExclusion {
    /// The pod's nodeSelector or required node affinity.
    Selector,
    /// It is cordoned.
    Cordoned,
    /// It has a taint that the pod does not tolerate.
    Tainted,
    /// It is not ready.
    NotReady,
    /// Even empty it has too little of a resource.
    TooSmall,
    /// It has too little of a resource left.
    Full,
}

impl Admission {
    /// Where a job stands in its line; `None` of one that does not wait there.
    pub fn standing_in_line(&self, uid: &Uid) -> Option<PlaceInLine> {
        let job = self.jobs.get(uid)?;
        let line = self.lines.get(&job.class.line)?;
        let class = self.classes.get(&*job.class)?;
        let place = job.place();
        let outside = line.outside.contains(&place);
        if !outside && !line.waiting.contains(&place) {
            return None;
        }
        let own = (Reverse(job.class.rank()), &place);
        let is_before = |other: &&Place| {
            self.jobs.get(&other.1).is_some_and(|known| (Reverse(known.class.rank()), *other) < own)
        };
        Some(PlaceInLine {
            shape: digits(&job.class),
            waiting: line.waiting.len(),
            ahead: line.waiting.iter().filter(is_before).count(),
            class_waiting: class.waiting.len(),
            class_ahead: class.waiting.range::<Place, _>(..&place).count(),
            outside,
        })
    }

    /// The resource that a job waits for, where there is one.
    pub fn short_resource(&self, uid: &Uid) -> Option<String> {
        let job = self.jobs.get(uid)?;
        self.why(job, self.classes.get(&*job.class)).1.map(|resource| resource.to_string())
    }

    /// Whether a job waits behind another one, the first of a strict queue.
    pub fn is_behind_head(&self, uid: &Uid) -> bool {
        self.jobs.get(uid).is_some_and(|job| self.is_held_up(&job.class.line, &job.place()))
    }

    /// When a job that waits for this reason is looked at again by time alone, as of the last pass. Only what follows
    /// from specs and from the age of pods is told, which is the same in every process: not when a pause ends, nor since
    /// when a class has found no node.
    pub fn looked_at_again(&self, uid: &Uid, reason: QueuedReason) -> Option<Timestamp> {
        let job = self.jobs.get(uid)?;
        let (key, now) = (&job.class, self.last_pass?);
        let ramp_ends = || self.queues.ramp_ends(&key.line, key.tier);
        match reason {
            QueuedReason::PeakWindow => {
                ramp_ends().or_else(|| self.queues.opens(&key.line, key.tier, now, |_, _| true))
            }
            // When the load falls nobody knows.
            QueuedReason::LoadTrigger => ramp_ends(),
            QueuedReason::WouldNotFinish => {
                let expected = job.demand.interruption.expected;
                let finishes = |state: &PeakState, at: Timestamp| state.would_finish(key.tier, expected, at);
                self.queues.opens(&key.line, key.tier, now, finishes)
            }
            // Then pods that may end for it have run as long as they are promised.
            QueuedReason::QuotaExceeded | QueuedReason::NoCapacity => self.classes.get(key)?.preempts_at,
            QueuedReason::NeverFits
            | QueuedReason::HeadBlocked
            | QueuedReason::ClassBackoff
            | QueuedReason::CapacityStale
            | QueuedReason::QueueStopped
            | QueuedReason::QueueNotFound
            | QueuedReason::QueueNameRequired
            | QueuedReason::TierNotAllowed
            | QueuedReason::NameHeld
            | QueuedReason::Admitted
            | QueuedReason::QueueFull
            | QueuedReason::Suspended
            | QueuedReason::Finished => None,
        }
    }

    /// How pods of a shape fit on the nodes now; `None` where nobody tells of nodes.
    pub fn fit_report(&self, shape: &Shape) -> Option<FitReport> {
        if self.blind {
            return None;
        }
        let mut report =
            FitReport { nodes: 0, pods: 0, with_room: 0, is_modelled: shape.modelled, excluded: Vec::new() };
        let mut excluded: BTreeMap<(NodeExclusion, String), (usize, Vec<String>)> = BTreeMap::new();
        for (_, node) in self.ledger.nodes() {
            report.nodes += 1;
            let (view, none) = (&node.view, ResourceList::default());
            let fit = shape.requests.times_within(&view.allocatable, &node.used);
            let why = match shape.unfit(view) {
                Some(Unfit::Selector) => (NodeExclusion::Selector, String::new()),
                Some(Unfit::Cordoned) => (NodeExclusion::Cordoned, String::new()),
                Some(Unfit::Taint(taint)) => (NodeExclusion::Tainted, format_taint(taint)),
                Some(Unfit::NotReady) => (NodeExclusion::NotReady, String::new()),
                None if fit > 0 => {
                    report.pods += u64::from(fit);
                    report.with_room += 1;
                    continue;
                }
                None => match short_of(&shape.requests, &view.allocatable, &none) {
                    Some(resource) => (NodeExclusion::TooSmall, resource),
                    None => {
                        let short = short_of(&shape.requests, &view.allocatable, &node.used);
                        (NodeExclusion::Full, short.unwrap_or_default())
                    }
                },
            };
            let (count, examples) = excluded.entry(why).or_default();
            *count += 1;
            examples.push(view.meta().key.name.to_string());
        }
        report.excluded = excluded
            .into_iter()
            .map(|((reason, detail), (nodes, mut examples))| {
                // The ledger's own order says nothing to anybody.
                examples.sort();
                examples.truncate(EXAMPLES);
                ExcludedNodes { reason, detail, nodes, examples }
            })
            .collect();
        report.excluded.sort_by_key(|excluded| Reverse(excluded.nodes));
        Some(report)
    }
}

/// The first resource of which not even one pod's worth is left.
fn short_of(requests: &ResourceList, total: &ResourceList, used: &ResourceList) -> Option<String> {
    let mut wanted = requests.iter();
    let short = wanted.find(|(name, wanted)| total.get(name).saturating_sub(used.get(name)) < *wanted)?;
    Some(short.0.to_owned())
}

fn format_taint(taint: &Taint) -> String {
    let effect = match taint.effect {
        TaintEffect::NoSchedule => "NoSchedule",
        TaintEffect::PreferNoSchedule => "PreferNoSchedule",
        TaintEffect::NoExecute => "NoExecute",
    };
    match &*taint.value {
        "" => format!("{}:{effect}", taint.key),
        value => format!("{}={value}:{effect}", taint.key),
    }
}
