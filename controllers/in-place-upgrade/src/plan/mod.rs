//! Decides what to do for an InPlaceUpgrade, as a pure function of what was observed.
//!
//! The order is one way: is the spec served at all ([`accept`]), what follows for every pod ([`situation`]), what is the
//! one thing to do now ([`decision`]), by which writes ([`moves`], [`crate::finalize`]), and what does the status say.

pub(crate) mod accept;
pub mod decision;
mod deletion;
pub mod moves;
mod pace;
pub mod preflight;
mod selection;
pub mod situation;

use crate::finalize::Finalize;
use crate::observed::Observed;
use crate::pre_pull::{PrePull, PrePullInput, Recipe, images_of, pre_pull};
use crate::projections::upgrade::{FINALIZER, IN_PLACE_UPGRADE, UpgradeView};
use crate::status::{Report, events, of_stalled, status};
use crate::traffic::given_back;
use accept::{Refused, accept};
use decision::{Decision, decide};
use jiff::Timestamp;
use moves::Moves;
use serde_json::json;
use situation::Situation;
use springtide_crds::in_place_upgrade::InPlaceUpgradeStatus;
use springtide_plumbing::plan::{Action, Outcome, Plan, Step, Write, WriteClass, remove_finalizer};
use springtide_plumbing::projection::Projection;

/// The plan for one object.
pub fn plan(observed: &Observed, now: Timestamp) -> Plan {
    let upgrade = &observed.upgrade;
    if upgrade.meta().is_deleting() {
        return deletion::plan(observed, now);
    }
    let (target, freezes) = match accept(observed, now) {
        Ok(accepted) => accepted,
        Err(refused) => return refusal(observed, &refused, now),
    };
    let situation = Situation::new(observed, target, freezes, now);
    let decision = decide(&situation);
    if let Some(step) = finalizer(upgrade, &decision) {
        // By itself: it makes a version of the object on which no status of this pass could rest.
        let mut plan = Plan::idle(Outcome::Progressing);
        plan.stages = vec![vec![step]];
        return plan;
    }
    let pulled = pulls(&situation, &decision, now);
    let made = match &decision {
        Decision::Move => moves::moves(&situation, &pulled, false, now),
        // However long it may be until the run goes on: pods in flight are in traffic again, and that is all.
        Decision::PlanOnly
        | Decision::NotLocked
        | Decision::NoWayBack
        | Decision::TemplateNotObserved
        | Decision::Persist(_)
            if situation.course.is_open() =>
        {
            moves::moves(&situation, &pulled, true, now)
        }
        Decision::Flip(_) if observed.field_conflict.is_some() => {
            moves::moves(&situation, &pulled, true, now)
        }
        Decision::PlanOnly
        | Decision::UpToDate
        | Decision::RolledBack
        | Decision::Paused
        | Decision::NotLocked
        | Decision::TemplateNotObserved
        | Decision::PodsBlocked
        | Decision::NoWayBack
        | Decision::NotRecorded(_)
        | Decision::TemplateRefused
        | Decision::Preflight
        | Decision::Open(_)
        | Decision::Supersede
        | Decision::Fail
        | Decision::Persist(_)
        | Decision::Raise(_)
        | Decision::Flip(_)
        | Decision::Finalize(_)
        | Decision::Close(_) => Moves::default(),
    };
    let mut plan = Plan::idle(Outcome::Progressing);
    plan.stages = stages(&situation, &decision, &made, &pulled);
    let report = Report::of(&situation, &decision, &made, &pulled, now);
    plan.outcome = report.outcome();
    plan.why = vec![report.why()];
    for wake in [made.wake, pulled.wake, report.wake, situation.restart_at].into_iter().flatten() {
        plan.wake_at(wake);
    }
    let status = status(&situation, &decision, &pulled, &report, now);
    match pace::due(&upgrade.status, &status, observed.status_written, now) {
        // What is told stands in the same status.
        pace::Due::Now => {
            plan.events = events(&situation, &decision, &report, &status);
            plan.status = Some(status_write(upgrade, status));
        }
        pace::Due::At(time) => plan.wake_at(time),
    }
    plan
}

/// The writes of a decision, in order.
fn stages(situation: &Situation<'_>, decision: &Decision, made: &Moves, pulled: &PrePull) -> Vec<Vec<Step>> {
    let mut stages = vec![made.steps.clone()];
    let conflicts = situation.observed.field_conflict.is_some();
    match decision {
        Decision::Preflight => stages.push(situation.asked.questions.clone()),
        Decision::Persist(step) if !conflicts => stages.push(vec![step.clone()]),
        Decision::Raise(step) => stages.push(vec![step.clone()]),
        Decision::Flip(Finalize::Write { stages: further, .. })
        | Decision::Finalize(Finalize::Write { stages: further, .. }) => {
            let is_refused = |step: &Step| {
                conflicts
                    && step
                        .writes()
                        .iter()
                        .any(|write| matches!(write.action, Action::Apply { force: false, .. }))
            };
            if !further.iter().flatten().any(is_refused) {
                stages.extend(further.iter().cloned());
            }
        }
        Decision::Move
        | Decision::PlanOnly
        | Decision::Flip(Finalize::Waiting { .. } | Finalize::Done { .. })
        | Decision::Finalize(Finalize::Waiting { .. } | Finalize::Done { .. })
        | Decision::Persist(_)
        | Decision::UpToDate
        | Decision::RolledBack
        | Decision::Paused
        | Decision::NotLocked
        | Decision::TemplateNotObserved
        | Decision::PodsBlocked
        | Decision::NoWayBack
        | Decision::NotRecorded(_)
        | Decision::TemplateRefused
        | Decision::Open(_)
        | Decision::Supersede
        | Decision::Fail
        | Decision::Close(_) => {}
    }
    if !pulled.steps.is_empty() {
        stages.push(pulled.steps.clone());
    }
    stages.retain(|stage| !stage.is_empty());
    stages
}

/// Adds our finalizer before a run opens, and takes it away when none is open.
fn finalizer(upgrade: &UpgradeView, decision: &Decision) -> Option<Step> {
    let meta = upgrade.meta();
    let action = match decision {
        Decision::Open(_) if !upgrade.is_held() => {
            let uid = json!({"op": "test", "path": "/metadata/uid", "value": meta.uid});
            let version = meta.resource_version.to_string();
            let version = json!({"op": "test", "path": "/metadata/resourceVersion", "value": version});
            let add = if meta.finalizers.is_empty() {
                json!({"op": "add", "path": "/metadata/finalizers", "value": [FINALIZER]})
            } else {
                json!({"op": "add", "path": "/metadata/finalizers/-", "value": FINALIZER})
            };
            Action::json_patch(json!([uid, version, add]))
        }
        Decision::UpToDate | Decision::RolledBack if !upgrade.is_run_open() => {
            remove_finalizer(&meta.uid, &meta.finalizers, FINALIZER)?
        }
        Decision::Open(_)
        | Decision::UpToDate
        | Decision::RolledBack
        | Decision::PlanOnly
        | Decision::Paused
        | Decision::NotLocked
        | Decision::TemplateNotObserved
        | Decision::PodsBlocked
        | Decision::NoWayBack
        | Decision::NotRecorded(_)
        | Decision::TemplateRefused
        | Decision::Preflight
        | Decision::Supersede
        | Decision::Fail
        | Decision::Persist(_)
        | Decision::Raise(_)
        | Decision::Flip(_)
        | Decision::Move
        | Decision::Finalize(_)
        | Decision::Close(_) => return None,
    };
    Some(own_write(upgrade, action, WriteClass::Spec).into())
}

/// What is pulled, and to which nodes.
fn pulls(situation: &Situation<'_>, decision: &Decision, now: Timestamp) -> PrePull {
    let observed = situation.observed;
    let meta = observed.upgrade.meta();
    let moves = match decision {
        Decision::Move => situation.lock.is_locked(),
        // Those that are there stay for as long as the run may go on with them.
        Decision::Persist(_)
        | Decision::Raise(_)
        | Decision::Flip(_)
        | Decision::TemplateNotObserved
        | Decision::Supersede => {
            return PrePull::unneeded("the run is not at its pods yet");
        }
        Decision::Preflight if situation.course.is_open() => {
            return PrePull::unneeded("the run is not at its pods yet");
        }
        Decision::UpToDate
        | Decision::RolledBack
        | Decision::PlanOnly
        | Decision::Paused
        | Decision::NotLocked
        | Decision::PodsBlocked
        | Decision::NoWayBack
        | Decision::NotRecorded(_)
        | Decision::TemplateRefused
        | Decision::Preflight
        | Decision::Open(_)
        | Decision::Fail
        | Decision::Finalize(_)
        | Decision::Close(_) => false,
    };
    let images = images_of(&situation.goal, &situation.members);
    let images: Vec<_> = images.iter().map(Vec::as_slice).collect();
    let recipe = Recipe {
        namespace: &meta.key.namespace,
        owner: &meta.key.name,
        uid: &meta.uid,
        template: &situation.goal.template,
        tools_image: &observed.tools_image,
    };
    let room = usize::try_from(situation.step.room).unwrap_or(usize::MAX);
    let input = PrePullInput {
        spec: &observed.upgrade.spec.pre_pull,
        sees_nodes: !observed.nodes.is_empty(),
        goal: &situation.goal,
        // Without a run nobody needs any: what is left over goes.
        members: if moves { &situation.members } else { &[] },
        images: &images,
        has_images: &|node, images| {
            observed.nodes.get(node).is_some_and(|node| images.iter().all(|image| node.has_image(image)))
        },
        mounts_images: &|node| observed.nodes.get(node).is_none_or(|node| node.mounts_images),
        pullers: &observed.pullers,
        room,
        recipe: &recipe,
    };
    pre_pull(&input, now)
}

/// The plan of an object that is not served.
fn refusal(observed: &Observed, refused: &Refused, now: Timestamp) -> Plan {
    let mut plan = Plan::idle(refused.outcome());
    plan.wake = refused.wake();
    if observed.upgrade.is_run_open() && observed.rival.is_none() {
        // However long it stands: nobody stays out of traffic for a run that does not go on. Pods of an older object's
        // run are that one's.
        let back: Vec<Step> = observed.pods.iter().filter_map(|pod| given_back(pod, None, now)).collect();
        plan.stages = if back.is_empty() { Vec::new() } else { vec![back] };
    }
    let report = Report::of_refused(&observed.upgrade, refused);
    plan.why = vec![report.why()];
    plan.events = of_stalled(&observed.upgrade, &report).into_iter().collect();
    plan.status = Some(status_write(&observed.upgrade, report.onto(&observed.upgrade, now)));
    plan
}

/// The stored status, and in it that the object's writes fail.
pub(crate) fn told(observed: &Observed, now: Timestamp) -> Write {
    let upgrade = &observed.upgrade;
    status_write(upgrade, Report::of_failing(upgrade, observed.failing.as_ref()).onto(upgrade, now))
}

/// A write of the object's status.
fn status_write(upgrade: &UpgradeView, status: InPlaceUpgradeStatus) -> Write {
    let meta = upgrade.meta();
    // Both are of types that are always written.
    let json = |status: &InPlaceUpgradeStatus| serde_json::to_value(status).unwrap_or_default();
    let action = Action::Status {
        uid: meta.uid.clone(),
        resource_version: meta.resource_version,
        status: json(&status),
        stored: json(&upgrade.status),
    };
    own_write(upgrade, action, WriteClass::Status)
}

/// A write of the object itself.
fn own_write(upgrade: &UpgradeView, action: Action, class: WriteClass) -> Write {
    Write { resource: IN_PLACE_UPGRADE, key: upgrade.meta().key.clone(), class, action }
}

#[cfg(test)]
mod tests;
