//! Every decision about a profile: whether it is made, and when what was learned is written.

use super::learned::Run;
use super::status::{UsageApi, next};
use crate::projections::profile::{BATCH_TASK_PROFILE, ProfileView};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use springtide_crds::batch_task_profile::{BatchTaskProfileStatus, ReadyReason, StalledReason};
use springtide_crds::common::condition;
use springtide_crds::reason::Reason;
use springtide_plumbing::clock::after;
use springtide_plumbing::events::{EventNote, Severity};
use springtide_plumbing::key::ObjectKey;
use springtide_plumbing::plan::{Action, Outcome, Plan, Why, Write, WriteClass};
use springtide_plumbing::projection::Projection;
use std::sync::Arc;

/// Distance between two writes of one profile's status.
const CHECKPOINT_INTERVAL: SignedDuration = SignedDuration::from_secs(60);

/// Plain data about one profile.
#[derive(Clone, Debug)]
pub struct Observed {
    /// Its key.
    pub key: ObjectKey,
    /// The profile, if it is there.
    pub stored: Option<Arc<ProfileView>>,
    /// A job that has not ended bears its key.
    pub is_used: bool,
    /// Why it is not made, where there are as many profiles as there may be.
    pub refusal: Option<String>,
    /// Runs that its status does not hold yet.
    pub runs: Vec<Run>,
    /// When this process last wrote its status.
    pub written: Option<Timestamp>,
    /// What measures usage.
    pub usage_api: UsageApi,
}

/// What has to be written for one profile now, and when to look again.
pub fn plan(observed: &Observed, now: Timestamp) -> Plan {
    match &observed.stored {
        Some(profile) if profile.meta().is_deleting() => Plan::idle(Outcome::Waiting),
        Some(profile) => of_present(observed, profile, now),
        None if observed.is_used => of_absent(observed),
        None => Plan::idle(Outcome::Converged),
    }
}

fn of_absent(observed: &Observed) -> Plan {
    if let Some(refusal) = &observed.refusal {
        let why = vec![Why { reason: "LimitExceeded", message: refusal.clone() }];
        return Plan { why, ..Plan::idle(Outcome::Blocked) };
    }
    let manifest = json!({
        "apiVersion": BATCH_TASK_PROFILE.api_version(),
        "kind": BATCH_TASK_PROFILE.kind,
        "metadata": {"namespace": observed.key.namespace, "name": observed.key.name},
        "spec": {},
    });
    let write = write(observed, Action::Create { manifest });
    Plan { stages: vec![vec![write.into()]], ..Plan::idle(Outcome::Progressing) }
}

fn of_present(observed: &Observed, profile: &ProfileView, now: Timestamp) -> Plan {
    let status = next(profile, &observed.runs, observed.usage_api, now);
    let outcome = outcome(&status);
    let summary = condition(&status.conditions, ReadyReason::CONDITION);
    let reason =
        ReadyReason::all().into_iter().find(|reason| summary.is_some_and(|summary| summary.is(*reason)));
    let message = summary.map(|summary| summary.message.clone()).unwrap_or_default();
    let why = reason.map(|reason| Why { reason: reason.as_str(), message }).into_iter().collect();
    let idle = Plan { why, ..Plan::idle(outcome) };
    if status == profile.status {
        return idle;
    }
    if let Some(at) = due(observed.written, now) {
        return Plan { wake: Some(at), ..idle };
    }
    // A struct of strings, numbers and lists cannot fail to be JSON.
    let json = |status| serde_json::to_value(status).unwrap_or(Value::Null);
    let action = Action::Status {
        uid: profile.meta().uid.clone(),
        resource_version: profile.meta().resource_version,
        status: json(&status),
        stored: json(&profile.status),
    };
    Plan {
        status: Some(write(observed, action)),
        events: stalled(profile, &status).into_iter().collect(),
        ..idle
    }
}

/// When a status may be written again that was last written then; `None` where that is now, as where it lies ahead: the
/// clock was put back since, and nobody knows how long ago that was.
pub(super) fn due(written: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
    let written = written.filter(|written| *written <= now);
    written.map(|written| after(written, CHECKPOINT_INTERVAL)).filter(|due| *due > now)
}

/// Of what is learned nothing is urgent.
fn write(observed: &Observed, action: Action) -> Write {
    Write { resource: BATCH_TASK_PROFILE, key: observed.key.clone(), class: WriteClass::Low, action }
}

fn outcome(status: &BatchTaskProfileStatus) -> Outcome {
    let holds = |type_| condition(&status.conditions, type_).map(|condition| condition.status);
    if holds(StalledReason::CONDITION).is_some() {
        Outcome::Blocked
    } else if holds(ReadyReason::CONDITION) == Some(ReadyReason::Learned.status()) {
        Outcome::Converged
    } else {
        Outcome::Waiting
    }
}

/// The event of a profile that needs a person since this status.
fn stalled(profile: &ProfileView, status: &BatchTaskProfileStatus) -> Option<EventNote> {
    let stalled = condition(&status.conditions, StalledReason::CONDITION)?;
    let is_new = profile.condition(StalledReason::CONDITION).is_none();
    let meta = profile.meta();
    is_new.then(|| EventNote {
        resource: BATCH_TASK_PROFILE,
        key: meta.key.clone(),
        uid: meta.uid.clone(),
        severity: Severity::Warning,
        reason: StalledReason::ContainerMismatch.as_str(),
        action: "Learning",
        note: stalled.message.clone(),
    })
}

#[cfg(test)]
mod tests;
