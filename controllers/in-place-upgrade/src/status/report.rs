//! What is said of an object: its conditions, and the same in words for logs and explanations.

use super::conditions;
use super::standstill;
use super::summary::summary;
use crate::plan::accept::Refused;
use crate::plan::decision::Decision;
use crate::plan::moves::Moves;
use crate::plan::situation::Situation;
use crate::pre_pull::PrePull;
use crate::projections::upgrade::UpgradeView;
use jiff::Timestamp;
use springtide_crds::common::{Condition, ConditionWriter, remove_condition, whole_seconds};
use springtide_crds::in_place_upgrade::{
    AcceptedReason, DriftedReason, FinalizedReason, HealthyReason, HeldReason, InPlaceUpgradeStatus,
    LockedReason, MESSAGE_MAX_BYTES, PrePulledReason, ReadyReason, ReconcilingReason, StalledReason,
};
use springtide_crds::reason::Reason;
use springtide_plumbing::failing::{Failing, Told};
use springtide_plumbing::plan::{Outcome, Why};
use springtide_plumbing::projection::Projection;

/// The conditions of an object, before they are laid over the stored ones: of each its reason and its message.
#[derive(Clone, Debug)]
pub struct Report {
    pub(super) ready: (ReadyReason, String),
    pub(super) stalled: Option<(StalledReason, String)>,
    accepted: (AcceptedReason, String),
    locked: (LockedReason, String),
    pre_pulled: (PrePulledReason, String),
    pub(super) held: (HeldReason, String),
    pub(super) healthy: (HealthyReason, String),
    finalized: (FinalizedReason, String),
    drifted: (DriftedReason, String),
    /// When to look again though nothing happens.
    pub wake: Option<Timestamp>,
    /// When what was refused is asked for again.
    pub next_attempt: Option<Timestamp>,
}

impl Report {
    /// What is said of an object that is served.
    pub fn of(
        situation: &Situation<'_>,
        decision: &Decision,
        made: &Moves,
        pulled: &PrePull,
        now: Timestamp,
    ) -> Self {
        let (ready, message, stalled) = summary(situation, decision, made, pulled);
        let mut report = Self {
            ready: (ready, message),
            stalled,
            accepted: conditions::accepted(situation, decision),
            locked: (situation.lock.reason, situation.lock.message.clone()),
            pre_pulled: (pulled.reason, pulled.message.clone()),
            held: conditions::held(situation, decision, made),
            healthy: conditions::healthy(situation, decision),
            finalized: conditions::finalized(situation, decision),
            drifted: conditions::drifted(situation),
            wake: None,
            next_attempt: None,
        };
        if conditions::rests_on_answers(decision) {
            report.next_attempt = situation.asked.again;
            report.wake = situation.asked.again;
        }
        if report.stalled.is_none()
            && let Some(still) = standstill::look(situation, decision, made, now)
        {
            if now < still.told_at {
                report.wake_at(still.told_at);
            } else {
                report.stalled = Some(still.told(&report.ready.1));
            }
        }
        report.add_failing(situation.observed.failing.as_ref());
        report
    }

    /// What is said of an object that is not served.
    pub(crate) fn of_refused(upgrade: &UpgradeView, refused: &Refused) -> Self {
        let mut report = Self::unobserved();
        // Of a run that is open what was decided last stays; nothing further is done.
        keep(upgrade, &mut report.healthy);
        keep(upgrade, &mut report.finalized);
        match refused {
            Refused::For { reason, message } => {
                report.ready = (ReadyReason::Blocked, message.clone());
                report.stalled = Some((StalledReason::Refused(*reason), message.clone()));
                report.accepted = (AcceptedReason::Refused(*reason), message.clone());
            }
            Refused::TargetAwaited { until } => {
                let target = upgrade.target_text();
                let message = format!(
                    "{target} of spec.targetRef is not there yet; it counts as missing from {until} on"
                );
                report.ready = (ReadyReason::Planning, message.clone());
                report.accepted = (AcceptedReason::NotObserved, message);
                report.wake = Some(*until);
            }
        }
        report
    }

    /// What is said of an object that gives back what is of its making, everything else as it is stored.
    pub(crate) fn of_deleted(upgrade: &UpgradeView, message: String) -> Self {
        let mut report = Self::stored(upgrade);
        report.ready = (ReadyReason::Deleting, message);
        report.stalled = None;
        report.next_attempt = None;
        report
    }

    /// What is said of an object whose writes fail, everything else as it is stored.
    pub(crate) fn of_failing(upgrade: &UpgradeView, failing: Option<&Failing>) -> Self {
        let mut report = Self::stored(upgrade);
        report.add_failing(failing);
        report
    }

    fn stored(upgrade: &UpgradeView) -> Self {
        let mut report = Self::unobserved();
        keep(upgrade, &mut report.ready);
        keep(upgrade, &mut report.accepted);
        keep(upgrade, &mut report.locked);
        keep(upgrade, &mut report.pre_pulled);
        keep(upgrade, &mut report.held);
        keep(upgrade, &mut report.healthy);
        keep(upgrade, &mut report.finalized);
        keep(upgrade, &mut report.drifted);
        report.stalled = told::<StalledReason>(upgrade);
        report.next_attempt = upgrade.status.next_attempt_time.as_ref().map(|time| time.0);
        report
    }

    fn unobserved() -> Self {
        let nothing = || "nothing has been seen of it yet".to_owned();
        Self {
            ready: (ReadyReason::Planning, nothing()),
            stalled: None,
            accepted: (AcceptedReason::NotObserved, nothing()),
            locked: (LockedReason::NotObserved, nothing()),
            pre_pulled: (PrePulledReason::NotObserved, nothing()),
            held: (HeldReason::NotObserved, nothing()),
            healthy: (HealthyReason::NotObserved, nothing()),
            finalized: (FinalizedReason::NotObserved, nothing()),
            drifted: (DriftedReason::NotObserved, nothing()),
            wake: None,
            next_attempt: None,
        }
    }

    /// The conditions laid over those of the object's stored status, nothing else changed but what the spec itself says.
    pub(crate) fn onto(&self, upgrade: &UpgradeView, now: Timestamp) -> InPlaceUpgradeStatus {
        let mut status = upgrade.status.clone();
        status.observed_generation = upgrade.meta().generation;
        status.target = upgrade.target_text();
        status.next_attempt_time = self.next_attempt.map(whole_seconds);
        self.set(&mut status.conditions, upgrade.meta().generation, now);
        status
    }

    /// Sets all conditions: each at the first visit, and Reconciling and Stalled only while they are true, never both.
    pub(crate) fn set(&self, conditions: &mut Vec<Condition>, generation: i64, now: Timestamp) {
        let writer =
            ConditionWriter { observed_generation: generation, now, message_max_bytes: MESSAGE_MAX_BYTES };
        writer.set(conditions, self.ready.0, &self.ready.1);
        // What needs a person does not go on by itself.
        match (ReconcilingReason::of(self.ready.0), &self.stalled) {
            (Some(reason), None) => writer.set(conditions, reason, &self.ready.1),
            (Some(_), Some(_)) | (None, _) => remove_condition(conditions, ReconcilingReason::CONDITION),
        }
        match &self.stalled {
            Some((reason, message)) => writer.set(conditions, *reason, message),
            None => remove_condition(conditions, StalledReason::CONDITION),
        }
        writer.set(conditions, self.accepted.0, &self.accepted.1);
        writer.set(conditions, self.locked.0, &self.locked.1);
        writer.set(conditions, self.pre_pulled.0, &self.pre_pulled.1);
        writer.set(conditions, self.held.0, &self.held.1);
        writer.set(conditions, self.healthy.0, &self.healthy.1);
        writer.set(conditions, self.finalized.0, &self.finalized.1);
        writer.set(conditions, self.drifted.0, &self.drifted.1);
    }

    /// Where the object stands.
    pub fn outcome(&self) -> Outcome {
        match (&self.stalled, self.ready.0) {
            (Some(_), _) => Outcome::Blocked,
            (None, ReadyReason::UpToDate) => Outcome::Converged,
            (None, ReadyReason::Held | ReadyReason::Paused | ReadyReason::PlanOnly) => Outcome::Waiting,
            (
                None,
                ReadyReason::Pending
                | ReadyReason::Planning
                | ReadyReason::PrePulling
                | ReadyReason::Upgrading
                | ReadyReason::Finalizing
                | ReadyReason::RollingBack
                | ReadyReason::RolledBack
                | ReadyReason::Blocked
                | ReadyReason::Failed
                | ReadyReason::Deleting,
            ) => Outcome::Progressing,
        }
    }

    /// The decision in words.
    pub fn why(&self) -> Why {
        match &self.stalled {
            Some((reason, message)) => Why { reason: reason.as_str(), message: message.clone() },
            None => Why { reason: self.ready.0.as_str(), message: self.ready.1.clone() },
        }
    }

    fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |earlier| earlier.min(at)));
    }

    /// What its writes fail at goes before all that is planned.
    fn add_failing(&mut self, failing: Option<&Failing>) {
        let Some((failing, told)) = failing.and_then(|failing| Some((failing, failing.told()?))) else {
            return;
        };
        let reason = match told {
            Told::NotReady => None,
            Told::Forbidden => Some(StalledReason::Forbidden),
            Told::InternalError => Some(StalledReason::InternalError),
        };
        if self.ready.0 == ReadyReason::UpToDate {
            self.ready.0 = ReadyReason::Planning;
        }
        self.ready.1.clone_from(&failing.message);
        if let Some(reason) = reason {
            self.stalled = Some((reason, failing.message.clone()));
        }
    }
}

/// What the stored status says of a condition, where this program knows the reason.
pub(super) fn told<R: Reason>(upgrade: &UpgradeView) -> Option<(R, String)> {
    let reason = upgrade.reason::<R>()?;
    Some((reason, upgrade.condition(R::CONDITION)?.message.clone()))
}

/// Leaves a condition as it is stored.
fn keep<R: Reason>(upgrade: &UpgradeView, said: &mut (R, String)) {
    if let Some(stored) = told(upgrade) {
        *said = stored;
    }
}
