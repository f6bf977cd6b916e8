//! The API server: it stores writes, each under its precondition, and says what it would think of others.

use super::{Fault, World, Written, view};
use crate::fixtures::overlay;
use crate::names::{SKIPPED, TIME_SHARE_TRAFFIC};
use crate::sizes::Demand;
use crate::union::spec_demand;
use serde_json::{Value, json};
use springtide_plumbing::dry_run::Verdict;
use springtide_plumbing::error::{Refusal, WriteError};
use springtide_plumbing::executor::Done;
use springtide_plumbing::key::Resource;
use springtide_plumbing::plan::{Action, Fields, Part, Patch, Write};
use springtide_plumbing::workloads::amounts::Pair;
use springtide_plumbing::workloads::pod::PodView;
use std::sync::Arc;

impl World {
    /// Sends a write; it meets the next fault.
    pub(super) fn send(&mut self, write: &Write) -> Result<Done, WriteError> {
        if let Action::DryRun { of, .. } = &write.action {
            return self.answer(write, of);
        }
        let outcome = match self.faults.pop_front() {
            Some(Fault::NotSent) => return Err(WriteError::NotSent("nobody listens".to_owned())),
            Some(Fault::Unknown) => {
                // Whatever it would have been told.
                let _ = self.store(write);
                Err(WriteError::Unknown("the connection was reset".to_owned()))
            }
            Some(Fault::Conflict) => Err(WriteError::Conflict("somebody else was first".to_owned())),
            Some(Fault::None) | None => self.store(write),
        };
        if outcome.is_err() && write.resource == Resource::POD {
            self.disturbed.insert(write.key.name.to_string());
        }
        outcome
    }

    fn answer(&mut self, write: &Write, of: &Action) -> Result<Done, WriteError> {
        self.asked += 1;
        let before = self.of_incarnation(write, of)?;
        let verdict = match self.admitted(&write.key.name, &before, of, true) {
            Ok(_) => Verdict::Accepted(Arc::new(Value::Null)),
            Err(WriteError::Refused(refusal)) => Verdict::Refused(refusal),
            Err(other) => return Err(other),
        };
        Ok(Done { dry_run: Some(verdict), ..Done::default() })
    }

    fn store(&mut self, write: &Write) -> Result<Done, WriteError> {
        let before = self.of_incarnation(write, &write.action)?;
        let wanted = write.action.resource_version();
        if wanted.is_some_and(|wanted| before["metadata"]["resourceVersion"] != wanted.to_string()) {
            return Err(WriteError::Conflict("it is of another version".to_owned()));
        }
        let name = write.key.name.to_string();
        let mut after = self.admitted(&name, &before, &write.action, false)?;
        if after["spec"] != before["spec"] {
            let generation = before["metadata"]["generation"].as_i64().unwrap_or_default();
            after["metadata"]["generation"] = json!(generation + 1);
        }
        after["metadata"]["resourceVersion"] = json!(self.next_version());
        let what = format!("{} {}", write.resource.kind, write.action.subresource()).trim_end().to_owned();
        self.written.push(Written { what, name: name.clone(), amount: amount(&write.action) });
        if write.action.subresource() == "resize" {
            self.resized.push(after.clone());
        }
        match write.resource.kind {
            "Pod" => drop(self.pods.insert(name, after)),
            "TimeShareGroup" => {
                let meta = &after["metadata"];
                let is_held = meta["finalizers"].as_array().is_some_and(|held| !held.is_empty());
                let is_gone = !meta["deletionTimestamp"].is_null() && !is_held;
                self.group = if is_gone { Value::Null } else { after };
            }
            other => panic!("{other} is written"),
        }
        Ok(Done::default())
    }

    /// The object that a write is for, as stored.
    fn of_incarnation(&self, write: &Write, action: &Action) -> Result<Value, WriteError> {
        let stored = match write.resource.kind {
            "Pod" => self.pods.get(&*write.key.name),
            "TimeShareGroup" => Some(&self.group).filter(|group| !group.is_null()),
            other => panic!("{other} is written"),
        };
        let stored = stored.ok_or(WriteError::Gone)?;
        let uid = action.uid().expect("each write is for one incarnation");
        if stored["metadata"]["uid"] == uid { Ok(stored.clone()) } else { Err(WriteError::Gone) }
    }

    /// What an object would be after an action.
    fn admitted(
        &self,
        name: &str,
        before: &Value,
        action: &Action,
        is_question: bool,
    ) -> Result<Value, WriteError> {
        let mut after = before.clone();
        match action {
            Action::Status { status, .. } => after["status"] = status.clone(),
            Action::Patch { part, patch: Patch::Strategic(Fields { fields, .. }) } => {
                merge(&mut after, fields);
                if *part == Part::Resize {
                    let admitted = self.admit_resize(name, before, &after, is_question);
                    admitted.map_err(WriteError::Refused)?;
                }
            }
            Action::Patch { patch: Patch::Json { operations }, .. } => {
                let operations: json_patch::Patch = serde_json::from_value(operations.clone()).unwrap();
                let patched = json_patch::patch(&mut after, &operations);
                patched.map_err(|error| WriteError::Conflict(error.to_string()))?;
            }
            Action::Patch { patch: Patch::Merge(_), .. }
            | Action::Create { .. }
            | Action::Delete { .. }
            | Action::Apply { .. }
            | Action::Evict { .. }
            | Action::DryRun { .. } => panic!("{action:?} is none of ours"),
        }
        Ok(after)
    }

    fn admit_resize(
        &self,
        name: &str,
        before: &Value,
        after: &Value,
        is_question: bool,
    ) -> Result<(), Refusal> {
        let is_denied = self.oddities.denied.contains(name)
            || (!is_question && self.oddities.denied_later.contains(name));
        if is_denied {
            return Err(refusal("admission webhook \"policy\" denied the request: not this one"));
        }
        let [asked, wished] = [before, after].map(|pod| spec_demand(&view::<PodView>(pod)));
        if !wished.fits(self.allocatable) {
            return Err(refusal("node didn't have enough allocatable resources: cpu"));
        }
        if let Some(hard) = self.oddities.quota
            && wished.cpu > asked.cpu
        {
            let [held, would_hold] = [before, after].map(|pod| requested(&view::<PodView>(pod)).cpu);
            let used: i64 = self.views().values().map(|pod| requested(pod).cpu).sum();
            if used - held + would_hold > hard {
                return Err(refusal("exceeded quota: compute"));
            }
        }
        Ok(())
    }

    /// What is left of the namespace's quota, in thousandths of a core.
    pub(super) fn quota_left(&self) -> Option<i64> {
        let used: i64 = self.views().values().map(|pod| requested(pod).cpu).sum();
        self.oddities.quota.map(|hard| hard - used)
    }
}

/// What a quota counts of a pod: as the scheduler does.
fn requested(pod: &PodView) -> Demand {
    Demand::from(pod.requests)
}

fn refusal(message: &str) -> Refusal {
    Refusal { code: 403, reason: "Forbidden".to_owned(), message: message.to_owned(), fields: Vec::new() }
}

/// A strategic merge: lists by names and types, and `null` takes away.
fn merge(object: &mut Value, fields: &Value) {
    overlay(object, fields.clone());
    drop_nulls(object);
}

fn drop_nulls(value: &mut Value) {
    if let Value::Object(fields) = value {
        fields.retain(|_, value| !value.is_null());
        fields.values_mut().for_each(drop_nulls);
    }
}

/// See [`Written::amount`].
fn amount(action: &Action) -> Option<i64> {
    let Action::Patch { part, patch: Patch::Strategic(Fields { fields, .. }) } = action else { return None };
    let switched = |is_on: bool| Some(i64::from(is_on));
    match part {
        Part::Resize => {
            let containers = fields["spec"]["containers"].as_array().into_iter().flatten();
            let requests = containers.map(|container| &container["resources"]["requests"]);
            Some(requests.map(|list| Demand::from(Pair::read(list)).cpu).sum())
        }
        Part::Main => switched(fields["metadata"]["labels"][TIME_SHARE_TRAFFIC.label] == "true"),
        Part::Status => {
            let mut conditions = fields["status"]["conditions"].as_array().into_iter().flatten();
            let condition = conditions.next().filter(|condition| condition["type"] != SKIPPED)?;
            switched(condition["status"] == "True")
        }
        Part::Scale => None,
    }
}
