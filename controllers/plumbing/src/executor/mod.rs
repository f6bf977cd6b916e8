//! The one writer: it performs plans, and nothing else in the suite writes.
//!
//! Each write passes no-op suppression, leadership (the fence), the write budget and its own
//! precondition, in this order, and is sent once. The stages of a plan go out one after the other;
//! a write that does not succeed ends the pass after its stage. Status is last.

mod wire;

use crate::budget::{Permit, WriteBudget, WriteTicket};
use crate::error::WriteError;
use crate::gate::{Expectation, Gate};
use crate::key::{ObjectKey, ResourceVersion};
use crate::lease::Fence;
use crate::metrics::Metrics;
use crate::plan::{Action, Plan, Write, WriteClass};
use futures::StreamExt;
use std::sync::Arc;

/// Writes of one stage in flight together, per plan: enough to hide the latency of the server,
/// few enough that one object does not fill the server's queue.
const STAGE_CONCURRENCY: usize = 16;

/// What a successful write came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// Version of the object after the write, where the server answered one.
    pub resource_version: Option<ResourceVersion>,
    /// Nothing was sent, as nothing would have changed.
    pub noop: bool,
}

/// One write of a plan and what it came to.
#[derive(Clone, Debug)]
pub struct WriteResult {
    /// The write as planned.
    pub write: Write,
    /// What it came to.
    pub outcome: Result<Done, WriteError>,
}

/// Performs the plans of one controller.
#[derive(Clone)]
#[allow(clippy::disallowed_types, reason = "the one place that writes")]
pub struct Executor {
    /// Name of the controller, for budget and metrics.
    pub controller: &'static str,
    /// The client of this controller's writes.
    pub client: kube::Client,
    /// Closed fence: nothing leaves.
    pub fence: Fence,
    /// The write budget of the process.
    pub budget: Arc<WriteBudget>,
    /// Learns of every write, so that its owner is not planned on an older view.
    pub gate: Arc<Gate>,
    /// Counts writes.
    pub metrics: Arc<Metrics>,
}

impl Executor {
    /// Performs the plan of `owner` and tells what every write came to, those not sent included.
    pub async fn perform(&self, owner: &ObjectKey, plan: Plan) -> Vec<WriteResult> {
        let mut results = Vec::with_capacity(plan.writes());
        let mut stopped = false;
        for stage in plan.stages.into_iter().chain(plan.status.map(|status| vec![status])) {
            if stopped {
                results.extend(
                    stage.into_iter().map(|write| WriteResult { write, outcome: Err(WriteError::Skipped) }),
                );
                continue;
            }
            let from = results.len();
            self.perform_stage(owner, stage, &mut results).await;
            stopped = results[from..].iter().any(|result| !lets_the_pass_go_on(&result.outcome));
        }
        results
    }

    async fn perform_stage(&self, owner: &ObjectKey, stage: Vec<Write>, results: &mut Vec<WriteResult>) {
        // Once the budget refuses one write the rest of the stage waits too: it would be refused
        // as well, and each refusal costs a turn.
        let mut refused: Option<WriteError> = None;
        let mut sends = futures::stream::iter(stage)
            .map(|write| {
                let admitted = match &refused {
                    Some(error) => Err(error.clone()),
                    None => self.admit(owner, &write).inspect_err(|error| refused = Some(error.clone())),
                };
                async move {
                    let outcome = match admitted {
                        Ok(Admitted::Noop) => Ok(Done { resource_version: None, noop: true }),
                        Ok(Admitted::Send(permit)) => self.send(owner, &write, permit).await,
                        Err(error) => Err(error),
                    };
                    WriteResult { write, outcome }
                }
            })
            .buffered(STAGE_CONCURRENCY);
        while let Some(result) = sends.next().await {
            self.count(&result);
            results.push(result);
        }
    }

    fn admit(&self, owner: &ObjectKey, write: &Write) -> Result<Admitted, WriteError> {
        if write.action.is_noop() {
            return Ok(Admitted::Noop);
        }
        if !self.fence.is_open() {
            return Err(WriteError::NotLeading);
        }
        let ticket = WriteTicket {
            controller: self.controller,
            namespace: &write.key.namespace,
            class: write.class,
            owner,
            object: (write.class == WriteClass::Status).then_some(&write.key),
        };
        self.budget.try_admit(&ticket).map(Admitted::Send).map_err(WriteError::Throttled)
    }

    async fn send(&self, owner: &ObjectKey, write: &Write, permit: Permit) -> Result<Done, WriteError> {
        // The budget may have been waited for: ask the fence again, right before the wire.
        if !self.fence.is_open() {
            return Err(WriteError::NotLeading);
        }
        let before = self.version_decided_on(write);
        let outcome = wire::send(&self.client, self.controller, write, permit).await;
        if let Some(expectation) = expectation(write, before, &outcome) {
            self.gate.note(owner.clone(), expectation);
        }
        outcome
    }

    /// The version of the object on which the write was decided, as far as it is known.
    fn version_decided_on(&self, write: &Write) -> Option<ResourceVersion> {
        match &write.action {
            Action::Create { .. } => None,
            Action::Status { resource_version, .. } => Some(*resource_version),
            Action::Delete { resource_version: Some(version), .. } => Some(*version),
            Action::Delete { resource_version: None, .. } | Action::Patch { .. } => {
                self.gate.shown(write.resource, &write.key)
            }
        }
    }

    fn count(&self, result: &WriteResult) {
        let outcome = match &result.outcome {
            Ok(Done { noop: true, .. }) => return self.metrics.noop_write(self.controller),
            Ok(Done { noop: false, .. }) => "success",
            Err(WriteError::Skipped) => return,
            Err(WriteError::Throttled(_)) => "throttled",
            Err(WriteError::Busy { .. }) => "busy",
            Err(WriteError::NotLeading) => return self.metrics.fence_refusal(self.controller),
            Err(WriteError::AlreadyExists) => "already_exists",
            Err(WriteError::Gone) => "gone",
            Err(WriteError::Conflict(_)) => "conflict",
            Err(WriteError::Refused(_)) => "refused",
            Err(WriteError::NotSent(_)) => "not_sent",
            Err(WriteError::Unknown(_)) => "unknown",
        };
        let write = &result.write;
        self.metrics.write(self.controller, write.class.as_str(), write.resource.plural, outcome);
    }
}

enum Admitted {
    Noop,
    Send(Permit),
}

/// Gone is no failure: what the plan wanted away, or wanted to change, is away.
fn lets_the_pass_go_on(outcome: &Result<Done, WriteError>) -> bool {
    match outcome {
        Ok(_) | Err(WriteError::Gone) => true,
        Err(
            WriteError::Throttled(_)
            | WriteError::Busy { .. }
            | WriteError::NotLeading
            | WriteError::Skipped
            | WriteError::AlreadyExists
            | WriteError::Conflict(_)
            | WriteError::Refused(_)
            | WriteError::NotSent(_)
            | WriteError::Unknown(_),
        ) => false,
    }
}

/// What the stores must show before the owner is planned again.
fn expectation(
    write: &Write,
    before: Option<ResourceVersion>,
    outcome: &Result<Done, WriteError>,
) -> Option<Expectation> {
    let resource = write.resource;
    let key = write.key.clone();
    match (outcome, &write.action) {
        (Ok(Done { noop: true, .. }), _) => None,
        // The answer to a delete bears no usable version where the object went at once.
        (Ok(_) | Err(WriteError::Gone), Action::Delete { uid, .. }) => {
            Some(Expectation::Gone { resource, key, uid: uid.clone() })
        }
        (Ok(Done { resource_version: Some(rv), .. }), _) => {
            Some(Expectation::Seen { resource, key, rv: *rv })
        }
        (Ok(Done { resource_version: None, .. }), _) => Some(Expectation::Resolve { resource, key, before }),
        // A create can conflict on something else (a quota being updated): there is nothing to wait for.
        (Err(WriteError::Conflict(_)), Action::Create { .. }) => None,
        (Err(WriteError::Unknown(_) | WriteError::AlreadyExists | WriteError::Conflict(_)), _)
        | (Err(WriteError::Gone), Action::Patch { .. } | Action::Status { .. } | Action::Create { .. }) => {
            Some(Expectation::Resolve { resource, key, before })
        }
        (
            Err(
                WriteError::Throttled(_)
                | WriteError::Busy { .. }
                | WriteError::NotLeading
                | WriteError::Skipped
                | WriteError::Refused(_)
                | WriteError::NotSent(_),
            ),
            _,
        ) => None,
    }
}
