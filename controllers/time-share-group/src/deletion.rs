//! Pods that a group lets go: all of them when it is deleted, and those of a member that is removed from its spec.
//!
//! A deleted group gives traffic back, whatever size pods have: they keep their sizes, and nobody resizes them any more. Its
//! finalizer goes when the traffic of each is seen to be on.
//!
//! Traffic of pods that are of no group's members is the [`GateKeeper`](crate::GateKeeper)'s. So of a removed member only the
//! sizes are left: pods that hold a peak while somebody else has it are shrunk to what their template says.

use crate::machine::resize;
use crate::message::quoting;
use crate::names::FINALIZER;
use crate::observed::{Attempt, Evidence, Member, MemberPod, Observed, Refused};
use crate::plan::{own_write, status_write};
use crate::profiles::restarts;
use crate::projections::group::{GroupView, TIME_SHARE_GROUP};
use crate::sizes::{Level, Size};
use crate::traffic::{closed, route, turn_on};
use jiff::Timestamp;
use springtide_crds::common::{ConditionWriter, remove_condition};
use springtide_crds::reason::Reason;
use springtide_crds::time_share_group::{MESSAGE_MAX_BYTES, ReadyReason, ReconcilingReason, StalledReason};
use springtide_plumbing::events::{EventNote, Severity};
use springtide_plumbing::plan::{MAX_WRITES, Outcome, Plan, Step, Why, Write, WriteClass, remove_finalizer};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::workloads::amounts::{Amounts, Pair};
use springtide_plumbing::workloads::pod::PodView;
use springtide_plumbing::workloads::template::Template;
use std::sync::Arc;

/// What is said of a group that goes.
const GOING: &str = "each pod gets its traffic before the group goes";
/// What is told when it does.
const GONE: &str = "the group goes: its pods have traffic, and keep the sizes that they have";

/// The plan for a group that is being deleted. Everything is looked at anew in each pass, so that nothing has to be
/// remembered.
pub fn plan(observed: &Observed, now: Timestamp) -> Plan {
    let group = &observed.group;
    let mut plan = Plan::idle(Outcome::Progressing);
    if !group.is_held() {
        plan.why = vec![why(GONE.to_owned())];
        return plan;
    }
    let mut left = left(observed, now);
    if left.is_nothing {
        let meta = group.meta();
        let removal = remove_finalizer(&meta.uid, &meta.finalizers, FINALIZER);
        let removal = removal.map(|action| own_write(group, action, WriteClass::Protective));
        plan.stages = removal.into_iter().map(|write| vec![write.into()]).collect();
        plan.why = vec![why(GONE.to_owned())];
        plan.events = vec![EventNote {
            resource: TIME_SHARE_GROUP,
            key: meta.key.clone(),
            uid: meta.uid.clone(),
            severity: Severity::Normal,
            reason: ReadyReason::Deleting.as_str(),
            action: "Deleting",
            note: GONE.to_owned(),
        }];
        return plan;
    }
    // A status is one more.
    left.writes.truncate(MAX_WRITES - 1);
    if !left.writes.is_empty() {
        plan.stages = vec![left.writes.into_iter().map(Step::from).collect()];
    }
    plan.wake = left.retry_at;
    let message = match left.refused {
        Some(words) => quoting(&format!("{GOING}; refused: "), &words, ""),
        None => GOING.to_owned(),
    };
    plan.why = vec![why(message.clone())];
    plan.status = Some(status(observed, &message, now));
    plan
}

/// Traffic that a deleted group has not given back yet.
struct Left {
    writes: Vec<Write>,
    /// When what was refused is tried again.
    retry_at: Option<Timestamp>,
    /// What the API server says to one of those.
    refused: Option<Box<str>>,
    is_nothing: bool,
}

fn left(observed: &Observed, now: Timestamp) -> Left {
    let mut left =
        Left { writes: route::give_back(observed), retry_at: None, refused: None, is_nothing: true };
    left.is_nothing = left.writes.is_empty();
    for found in observed.members.iter().filter(|member| member.is_ours()).flat_map(|member| &member.pods) {
        for lever in closed(found.time_share()) {
            left.is_nothing = false;
            match refused(&found.evidence, Attempt::Traffic, now) {
                Some(refused) => {
                    left.retry_at = earlier(left.retry_at, refused.retry_at);
                    left.refused.get_or_insert_with(|| refused.message.clone());
                }
                None => left.writes.push(turn_on(&found.pod, lever, now)),
            }
        }
    }
    left
}

/// The status of a group that goes: the stored one, and in it that it does.
fn status(observed: &Observed, message: &str, now: Timestamp) -> Write {
    let group = &observed.group;
    let meta = group.meta();
    let mut status = group.status.clone();
    status.observed_generation = meta.generation;
    let writer =
        ConditionWriter { observed_generation: meta.generation, now, message_max_bytes: MESSAGE_MAX_BYTES };
    writer.set(&mut status.conditions, ReadyReason::Deleting, message);
    if observed.failing.is_some() {
        // What its writes fail at is told there, and does not end by itself.
        remove_condition(&mut status.conditions, ReconcilingReason::CONDITION);
    } else {
        writer.set(&mut status.conditions, ReconcilingReason::Deleting, message);
        remove_condition(&mut status.conditions, StalledReason::CONDITION);
    }
    status_write(group, &status)
}

fn why(message: String) -> Why {
    Why { reason: ReadyReason::Deleting.as_str(), message }
}

/// Shrinks pods of removed members to what their templates request, where the peak is somebody else's: theirs would be on
/// top of it. Memory stays, as nobody looks any more at what is used of it.
pub fn let_go(observed: &Observed, now: Timestamp) -> Vec<Write> {
    let shrunk = oversized(observed)
        .filter(|(found, _)| !found.evidence.is_upgrading && refused(&found.evidence, SHRINK, now).is_none());
    shrunk.map(|(found, size)| resize(&found.pod, &size, WriteClass::Spec)).collect()
}

/// When a resize of [`let_go`] that was refused is tried again; `None` where none was.
pub fn retry_at(observed: &Observed, now: Timestamp) -> Option<Timestamp> {
    let refused = oversized(observed).filter_map(|(found, _)| refused(&found.evidence, SHRINK, now));
    refused.map(|refused| refused.retry_at).min()
}

/// Whether a removed member has no pod left that could be shrunk: the status need not name it any more.
pub fn is_let_go(member: &Member) -> bool {
    !is_left_to_us(member) || member.pods.iter().all(|found| excess(member, found).is_none())
}

const SHRINK: Attempt = Attempt::Resize(Level::Valley);

/// Pods of removed members that are to shrink, and to what.
fn oversized(observed: &Observed) -> impl Iterator<Item = (&MemberPod, Size)> {
    let members = observed
        .removed
        .iter()
        .filter(|member| is_left_to_us(member) && is_anothers_peak(&observed.group, &member.name));
    members.flat_map(|member| member.pods.iter().filter_map(|found| Some((found, excess(member, found)?))))
}

/// Whether no other group has the workload of a removed member by now.
fn is_left_to_us(member: &Member) -> bool {
    member.taken_by.is_none() && member.is_granted
}

/// Whether another member has the peak, or is to get it.
fn is_anothers_peak(group: &GroupView, name: &str) -> bool {
    let status = &group.status;
    let holder = match &status.transition {
        Some(transition) => transition.to.as_deref(),
        None => status.active_member.as_deref(),
    };
    holder.is_some_and(|holder| holder != name)
}

/// The cpu of a template, for those containers of a pod that request more; nothing where one would be restarted by it.
fn excess(member: &Member, found: &MemberPod) -> Option<Size> {
    let template = &member.workload.as_ref()?.template;
    let size = Size::new(cpu_of_template(&found.pod, template));
    (size != Size::default() && !restarts(&found.pod, &size)).then_some(size)
}

fn cpu_of_template(pod: &PodView, template: &Template) -> impl Iterator<Item = (Arc<str>, Amounts)> {
    pod.containers.iter().filter_map(|container| {
        // Amounts of plain init containers are none there: nobody resizes them.
        let born = template.content.containers.get(&container.name)?.amounts;
        let is_more = container.amounts.requests.cpu > Some(born.requests.cpu?);
        let cpu = |pair: Pair| Pair { cpu: pair.cpu, memory: None };
        let amounts = Amounts { requests: cpu(born.requests), limits: cpu(born.limits) };
        is_more.then(|| (Arc::clone(&container.name), amounts))
    })
}

/// What was refused to a pod, until it is tried again.
fn refused(evidence: &Evidence, what: Attempt, now: Timestamp) -> Option<&Refused> {
    evidence.refused.as_ref().filter(|refused| refused.what == what && now < refused.retry_at)
}

fn earlier(own: Option<Timestamp>, other: Timestamp) -> Option<Timestamp> {
    Some(own.map_or(other, |own| own.min(other)))
}

#[cfg(test)]
mod tests;
