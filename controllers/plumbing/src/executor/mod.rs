//! The one writer: it performs plans, and nothing else in the suite writes.
//!
//! Each write passes no-op suppression, the table of rights, leadership (the fence), freshness of the stores
//! where it destroys something, its distance to a fight, the guard (brake, observe mode, warrants, breaker), the
//! write budget, right before the wire fence, brake and hold of its priority level once more, and its own
//! precondition, in this order, and is sent once. The stages of a plan go out one after the other; a write
//! that does not succeed ends the pass after its stage. The writes of a chain pass the budget together, before
//! the first is sent; one that does not succeed ends the chain. Status is last.

mod expectation;
mod request;
mod wire;

pub use wire::{WRITE_DEADLINE, ask};

use crate::budget::{Permit, Route, WriteBudget, WriteRequest};
use crate::dry_run::Verdict;
use crate::error::{Refusal, WriteError};
use crate::events::{EventNote, EventSink, Severity};
use crate::fight::{Fight, Fights};
use crate::gate::Gate;
use crate::guard::{Guard, Withheld};
use crate::key::{ObjectKey, ResourceVersion};
use crate::lease::Fence;
use crate::metrics::Metrics;
use crate::plan::{Action, MAX_STATUS_BYTES, MAX_WRITES, Plan, Step, Write, WriteClass};
use crate::rights::{Rights, Verb};
use expectation::expectation;
use futures::StreamExt;
use http::StatusCode;
use jiff::Timestamp;
use std::sync::{Arc, OnceLock};

/// Writes of one stage in flight together, per plan: enough to hide the latency of the server,
/// few enough that one object does not fill the server's queue.
const STAGE_CONCURRENCY: usize = 16;

/// What a successful write came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Version of the object after the write, where the server answered one.
    pub resource_version: Option<ResourceVersion>,
    /// Nothing was sent, as nothing would have changed.
    pub noop: bool,
    /// Of a dry run, what the server would do.
    pub dry_run: Option<Verdict>,
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
    /// What it may write; anything else is refused here.
    pub rights: Rights,
    /// The client of this controller's writes; [`crate::client::Connection::writer`] makes one whose writes
    /// are fenced to the last.
    pub client: kube::Client,
    /// Closed fence: nothing leaves.
    pub fence: Fence,
    /// Brake, observe mode, warrants and breaker.
    pub guard: Guard,
    /// The write budget of the process.
    pub budget: Arc<WriteBudget>,
    /// Learns of every write, so that its owner is not planned on an older view.
    pub gate: Arc<Gate>,
    /// Counts writes.
    pub metrics: Arc<Metrics>,
    /// Where users are told.
    pub events: EventSink,
    /// Who undoes what is written.
    pub fights: Arc<Fights>,
}

/// A write on its way.
struct Planned {
    write: Write,
    /// The version of the object on which the write was decided, as far as it is known.
    decided_on: Option<ResourceVersion>,
}

impl Executor {
    /// Performs the plan of `owner`, up to [`MAX_WRITES`], and tells what every write came to, those not
    /// sent included.
    pub async fn perform(&self, owner: &ObjectKey, plan: Plan) -> Vec<WriteResult> {
        let mut results = Vec::with_capacity(plan.writes());
        // Before the first write: what is decided on here may be seen to change during the pass.
        let planned = |write: Write| Planned { decided_on: self.decided_on(&write), write };
        let planned = |step: Step| step.into_writes().into_iter().map(planned).collect();
        let stages: Vec<Vec<Vec<Planned>>> = plan
            .stages
            .into_iter()
            .chain(plan.status.map(|status| vec![status.into()]))
            .map(|stage| stage.into_iter().map(planned).collect())
            .collect();
        let mut stopped = false;
        for mut stage in stages {
            let from = results.len();
            let left = stage.split_off(if stopped { 0 } else { fitting(&stage, MAX_WRITES - from) });
            self.perform_stage(owner, stage, &mut results).await;
            stopped |= !left.is_empty();
            stopped |= results[from..].iter().any(|result| !lets_the_pass_go_on(&result.outcome));
            results.extend(left.into_iter().flatten().map(skipped));
        }
        if !results.iter().any(|result| matches!(result.outcome, Err(WriteError::Throttled(_)))) {
            // What it was granted, or is in line for, was for a write that it did not want this time.
            self.budget.forgo(self.controller, owner);
        }
        results
    }

    async fn perform_stage(
        &self,
        owner: &ObjectKey,
        stage: Vec<Vec<Planned>>,
        results: &mut Vec<WriteResult>,
    ) {
        // Once budget, fence, server or network refuse one write for now, the rest of the stage is not tried: it
        // would be refused as well, and each refusal costs a turn.
        let refused: OnceLock<WriteError> = OnceLock::new();
        let refused = &refused;
        let mut sends = futures::stream::iter(stage)
            .map(|step| {
                let admitted = match refused.get() {
                    Some(error) => Err(error.clone()),
                    None => self.admit(owner, &step),
                };
                async move {
                    let results = self.send_step(owner, step, admitted).await;
                    let mut errors = results.iter().filter_map(|result| result.outcome.as_ref().err());
                    if let Some(error) = errors.find(|error| holds_for_all(error)) {
                        refused.get_or_init(|| error.clone());
                    }
                    results
                }
            })
            .buffered(STAGE_CONCURRENCY);
        while let Some(step) = sends.next().await {
            step.iter().for_each(|result| self.count(result));
            results.extend(step);
        }
    }

    /// Whether the writes of a step may go out, as a whole. `None` where none of them would change anything.
    fn admit(&self, owner: &ObjectKey, step: &[Planned]) -> Result<Option<Permit<'_>>, WriteError> {
        let mut requests = Vec::with_capacity(step.len());
        let mut passages = Vec::with_capacity(step.len());
        for Planned { write, .. } in step.iter().filter(|planned| !planned.write.action.is_noop()) {
            refuse_large_status(write)?;
            self.refuse_ungranted(write)?;
            if !self.fence.is_open() {
                return Err(WriteError::NotLeading);
            }
            if write.action.is_destructive()
                && let Some(kind) = self.gate.stale_kind(owner, &write.key)
            {
                return Err(WriteError::StaleStore(kind));
            }
            if let Some(until) = self.fights.not_before(write) {
                return Err(WriteError::Contested { until });
            }
            passages.push(self.guard.admit(self.controller, write).map_err(WriteError::Withheld)?);
            requests.push(WriteRequest {
                controller: self.controller,
                namespace: &write.key.namespace,
                class: write.class,
                route: Route::of(write),
                owner,
                object: (write.class == WriteClass::Status).then_some(&write.key),
            });
        }
        let Some((first, rest)) = requests.split_first() else { return Ok(None) };
        let permit = self.budget.try_admit_chain(first, rest).map_err(WriteError::Throttled)?;
        for passage in passages {
            self.metrics.passed(self.controller, passage);
        }
        Ok(Some(permit))
    }

    /// What the table lacks is a defect of ours, answered as the server would under the rendered role.
    fn refuse_ungranted(&self, write: &Write) -> Result<(), WriteError> {
        self.rights.check(verb(&write.action), write.resource, write.action.subresource()).map_err(
            |refused| {
                WriteError::Refused(Refusal {
                    code: StatusCode::FORBIDDEN.as_u16(),
                    reason: "Forbidden".to_owned(),
                    message: refused.to_string(),
                    fields: Vec::new(),
                })
            },
        )
    }

    /// Sends the writes of a step, each when the one before it has succeeded.
    async fn send_step(
        &self,
        owner: &ObjectKey,
        step: Vec<Planned>,
        admitted: Result<Option<Permit<'_>>, WriteError>,
    ) -> Vec<WriteResult> {
        let mut results: Vec<WriteResult> = Vec::with_capacity(step.len());
        for planned in step {
            if results.last().is_some_and(|result| !lets_the_pass_go_on(&result.outcome)) {
                results.push(skipped(planned));
                continue;
            }
            let outcome = match &admitted {
                Err(error) => Err(error.clone()),
                Ok(_) if planned.write.action.is_noop() => Ok(Done { noop: true, ..Done::default() }),
                Ok(Some(permit)) => self.send(owner, &planned, permit).await,
                // None is given only where all of them are no-ops.
                Ok(None) => Err(WriteError::Skipped),
            };
            results.push(WriteResult { write: planned.write, outcome });
        }
        results
    }

    async fn send(
        &self,
        owner: &ObjectKey,
        planned: &Planned,
        permit: &Permit<'_>,
    ) -> Result<Done, WriteError> {
        let Planned { write, decided_on } = planned;
        // The fence may have closed since the write was admitted: ask it again, right before the wire.
        if !self.fence.is_open() {
            return Err(WriteError::NotLeading);
        }
        // So may the brake: a write that waited behind others of its stage or chain is not to follow it.
        if let Some(source) = self.guard.brake.engaged_by(self.controller) {
            return Err(WriteError::Withheld(Withheld::Braked(source)));
        }
        // And its priority level may be held: the answer to a write before it, or to somebody else's.
        if let Some(retry_after) = permit.held(Route::of(write)) {
            return Err(WriteError::Busy { retry_after });
        }
        let shown = self.gate.shown(write.resource, &write.key);
        let outcome = wire::send(&self.client, self.controller, write, permit).await;
        if let Some(expectation) = expectation(write, *decided_on, shown, &outcome) {
            self.gate.note(owner.clone(), expectation);
        }
        if outcome.is_ok() {
            self.watch_for_fights(write);
        }
        outcome
    }

    /// Tells users when somebody undoes what we write again and again.
    fn watch_for_fights(&self, write: &Write) {
        let Some(Fight { uid, distance, begins }) = self.fights.written(write) else { return };
        self.metrics.field_conflict(self.controller);
        let what = match write.action.subresource() {
            "" => "fields",
            subresource => subresource,
        };
        let (resource, key, seconds) = (write.resource, write.key.clone(), distance.as_secs());
        if begins {
            tracing::warn!(controller = self.controller, %resource, object = %key, seconds, "a fight over {what}");
        }
        let note = format!(
            "Another client keeps undoing what {} writes to the {what} of this object; the next write keeps a \
             distance of at least {seconds} seconds. `kubectl get --show-managed-fields` names who else writes there",
            self.controller
        );
        let severity = Severity::Warning;
        let (reason, action) = ("FieldConflict", "Writing");
        self.events
            .publish(EventNote { resource, key, uid, severity, reason, action, note }, Timestamp::now());
    }

    fn decided_on(&self, write: &Write) -> Option<ResourceVersion> {
        if matches!(write.action, Action::Create { .. }) {
            return None;
        }
        write.action.resource_version().or_else(|| self.gate.shown(write.resource, &write.key))
    }

    fn count(&self, result: &WriteResult) {
        let outcome = match &result.outcome {
            Ok(Done { noop: true, .. }) => return self.metrics.noop_write(self.controller),
            Ok(Done { dry_run: Some(_), .. }) => "dry_run",
            Ok(Done { noop: false, dry_run: None, .. }) => "success",
            Err(WriteError::Skipped) => return,
            Err(WriteError::Throttled(_)) => "throttled",
            Err(WriteError::Busy { .. }) => "busy",
            Err(WriteError::NotLeading) => return self.metrics.fence_refusal(self.controller),
            Err(WriteError::Withheld(withheld)) => withheld.as_str(),
            Err(WriteError::StaleStore(_)) => "stale_store",
            Err(WriteError::Contested { .. }) => "contested",
            Err(WriteError::AlreadyExists) => "already_exists",
            Err(WriteError::Gone) => "gone",
            Err(WriteError::Conflict(_)) => "conflict",
            Err(WriteError::FieldConflict(_)) => "field_conflict",
            Err(WriteError::DisruptionBudget(_)) => "disruption_budget",
            Err(WriteError::Refused(_)) => "refused",
            Err(WriteError::NotSent(_)) => "not_sent",
            Err(WriteError::Unknown(_)) => "unknown",
        };
        let write = &result.write;
        self.metrics.write(self.controller, write.class.as_str(), write.resource.plural, outcome);
    }
}

/// The right that an action needs; a dry run needs that of the write.
fn verb(action: &Action) -> Verb {
    match action {
        Action::Create { .. } | Action::Evict { .. } => Verb::Create,
        Action::Delete { .. } => Verb::Delete,
        Action::Patch { .. } | Action::Apply { .. } | Action::Status { .. } => Verb::Patch,
        Action::DryRun { of, .. } => verb(of),
    }
}

/// How many of these steps have together no more than `room` writes.
fn fitting(stage: &[Vec<Planned>], room: usize) -> usize {
    let sums = stage.iter().scan(0, |sum, step| {
        *sum += step.len();
        Some(*sum)
    });
    sums.take_while(|sum| *sum <= room).count()
}

fn skipped(Planned { write, .. }: Planned) -> WriteResult {
    WriteResult { write, outcome: Err(WriteError::Skipped) }
}

/// Gone is no failure: what the plan wanted away, or wanted to change, is away. Who only observes goes on to
/// count what is left. Behind a dry run that is denied stands what rests on it.
fn lets_the_pass_go_on(outcome: &Result<Done, WriteError>) -> bool {
    match outcome {
        Ok(Done { dry_run: Some(verdict), .. }) => verdict.is_accepted(),
        Ok(Done { dry_run: None, .. })
        | Err(WriteError::Gone | WriteError::Withheld(Withheld::Observing)) => true,
        Err(
            WriteError::Throttled(_)
            | WriteError::Busy { .. }
            | WriteError::NotLeading
            | WriteError::Withheld(
                Withheld::Braked(_)
                | Withheld::Unread(_)
                | Withheld::Protected
                | Withheld::BreakerOpen { .. },
            )
            | WriteError::StaleStore(_)
            | WriteError::Contested { .. }
            | WriteError::Skipped
            | WriteError::AlreadyExists
            | WriteError::Conflict(_)
            | WriteError::FieldConflict(_)
            | WriteError::DisruptionBudget(_)
            | WriteError::Refused(_)
            | WriteError::NotSent(_)
            | WriteError::Unknown(_),
        ) => false,
    }
}

/// Whether what refused one write would refuse all others too.
fn holds_for_all(error: &WriteError) -> bool {
    match error {
        WriteError::Throttled(_)
        | WriteError::Busy { .. }
        | WriteError::NotLeading
        | WriteError::Withheld(Withheld::Braked(_))
        | WriteError::NotSent(_) => true,
        WriteError::Withheld(
            Withheld::Observing | Withheld::Unread(_) | Withheld::Protected | Withheld::BreakerOpen { .. },
        )
        | WriteError::StaleStore(_)
        | WriteError::Contested { .. }
        | WriteError::Skipped
        | WriteError::AlreadyExists
        | WriteError::Gone
        | WriteError::Conflict(_)
        | WriteError::FieldConflict(_)
        | WriteError::DisruptionBudget(_)
        | WriteError::Refused(_)
        | WriteError::Unknown(_) => false,
    }
}

fn refuse_large_status(write: &Write) -> Result<(), WriteError> {
    let Action::Status { status, .. } = &write.action else { return Ok(()) };
    let bytes = status.to_string().len();
    if bytes <= MAX_STATUS_BYTES {
        return Ok(());
    }
    Err(WriteError::Refused(Refusal {
        code: StatusCode::PAYLOAD_TOO_LARGE.as_u16(),
        reason: "RequestEntityTooLarge".to_owned(),
        message: format!("the status has {bytes} bytes, of at most {MAX_STATUS_BYTES}; it was not sent"),
        fields: vec!["status".to_owned()],
    }))
}
