//! What is said of an object: its conditions, and the same in words for logs, explanations and events.

use super::keeps_verdict;
use super::summary::{hold_text, summary};
use crate::finalize::Finalize;
use crate::plan::accept::Refused;
use crate::plan::decision::Decision;
use crate::plan::moves::Moves;
use crate::plan::situation::{Course, Situation};
use crate::pre_pull::PrePull;
use crate::projections::upgrade::{IN_PLACE_UPGRADE, UpgradeView};
use crate::verdict::Verdict;
use jiff::{SignedDuration, Timestamp};
use springtide_crds::common::{Condition, ConditionStatus, ConditionWriter, remove_condition};
use springtide_crds::in_place_upgrade::{
    AcceptedReason, DriftedReason, FinalizedReason, HealthyReason, HeldReason, InPlaceUpgradeStatus,
    LockedReason, MESSAGE_MAX_BYTES, Persist, PrePulledReason, ReadyReason, ReconcilingReason, StalledReason,
    TargetKind,
};
use springtide_crds::reason::Reason;
use springtide_plumbing::clock::after;
use springtide_plumbing::events::{EventNote, Severity};
use springtide_plumbing::failing::{Failing, Told};
use springtide_plumbing::plan::{Outcome, Why};
use springtide_plumbing::projection::Projection;

/// After so long without a move although nothing holds, a person is asked to look.
const NO_PROGRESS: SignedDuration = SignedDuration::from_mins(10);

/// The conditions of an object, before they are laid over the stored ones.
#[derive(Clone, Debug)]
pub struct Report {
    ready: (ReadyReason, String),
    stalled: Option<(StalledReason, String)>,
    accepted: (AcceptedReason, String),
    locked: (LockedReason, String),
    pre_pulled: (PrePulledReason, String),
    held: (HeldReason, String),
    healthy: (HealthyReason, String),
    finalized: (FinalizedReason, String),
    drifted: (DriftedReason, String),
    /// When to look again though nothing happens.
    pub wake: Option<Timestamp>,
    /// When something that failed is tried again.
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
        let mut report = Self::unobserved();
        report.accepted = match decision {
            Decision::TemplateNotObserved => {
                let message = "the workload's controller has not made a revision of its template yet";
                (AcceptedReason::TemplateNotObserved, message.to_owned())
            }
            Decision::UpToDate
            | Decision::RolledBack
            | Decision::PlanOnly
            | Decision::Paused
            | Decision::NotLocked
            | Decision::PodsBlocked
            | Decision::NoWayBack(_)
            | Decision::FieldConflict(_)
            | Decision::Preflight(_)
            | Decision::Open(_)
            | Decision::Supersede
            | Decision::Fail
            | Decision::Persist(_)
            | Decision::Raise(_)
            | Decision::Move
            | Decision::Finalize(_)
            | Decision::Close(_) => (AcceptedReason::Accepted, "the spec is served".to_owned()),
        };
        report.locked = (situation.lock.reason, situation.lock.message.clone());
        report.pre_pulled = (pulled.reason, pulled.message.clone());
        report.held = held(situation, made);
        report.healthy = healthy(situation, decision);
        report.finalized = finalized(situation, decision);
        report.drifted = drifted(situation);
        let (ready, message, stalled) = summary(situation, decision, made, pulled);
        report.ready = (ready, message);
        report.stalled = stalled;
        report.look_for_standstill(situation, decision, made, now);
        report.add_failing(situation.observed.failing.as_ref());
        report
    }

    /// What is said of an object that is not served.
    pub(crate) fn of_refused(upgrade: &UpgradeView, refused: &Refused) -> Self {
        let mut report = Self::unobserved();
        // Of a run that is open what was decided last stays; nothing further is done.
        if let Some(reason) = upgrade.reason::<HealthyReason>() {
            report.healthy =
                (reason, upgrade.condition(HealthyReason::CONDITION).map(message).unwrap_or_default());
        }
        if let Some(reason) = upgrade.reason::<FinalizedReason>() {
            report.finalized =
                (reason, upgrade.condition(FinalizedReason::CONDITION).map(message).unwrap_or_default());
        }
        match refused {
            Refused::For { reason, message } => {
                report.ready = (ReadyReason::Blocked, message.clone());
                report.stalled = Some((StalledReason::Refused(*reason), message.clone()));
                report.accepted = (AcceptedReason::Refused(*reason), message.clone());
            }
            Refused::TargetAwaited { until } => {
                let message = format!("the target is not there yet; it counts as missing from {until} on");
                report.ready = (ReadyReason::Planning, message);
                report.wake = Some(*until);
            }
        }
        report
    }

    /// What is said of an object whose writes fail, everything else as it is stored.
    pub(crate) fn of_failing(upgrade: &UpgradeView, failing: Option<&Failing>) -> Self {
        let mut report = Self::unobserved();
        fn keep<R: Reason>(upgrade: &UpgradeView, told: &mut (R, String)) {
            if let Some(reason) = upgrade.reason::<R>() {
                *told = (reason, upgrade.condition(R::CONDITION).map(message).unwrap_or_default());
            }
        }
        keep(upgrade, &mut report.ready);
        keep(upgrade, &mut report.accepted);
        keep(upgrade, &mut report.locked);
        keep(upgrade, &mut report.pre_pulled);
        keep(upgrade, &mut report.held);
        keep(upgrade, &mut report.healthy);
        keep(upgrade, &mut report.finalized);
        keep(upgrade, &mut report.drifted);
        if let Some(reason) = upgrade.reason::<StalledReason>() {
            let why = upgrade.condition(StalledReason::CONDITION).map(message).unwrap_or_default();
            report.stalled = Some((reason, why));
        }
        report.add_failing(failing);
        report
    }

    fn unobserved() -> Self {
        let nothing = || "nothing has been seen of it yet".to_owned();
        Self {
            ready: (ReadyReason::Planning, String::new()),
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

    /// The conditions laid over those of the object's stored status, nothing else changed.
    pub(crate) fn onto(&self, upgrade: &UpgradeView, now: Timestamp) -> InPlaceUpgradeStatus {
        let mut status = upgrade.status.clone();
        status.observed_generation = upgrade.meta().generation;
        self.set(&mut status.conditions, upgrade.meta().generation, now);
        status
    }

    /// Sets all conditions.
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

    /// What users are told when it is news: that it needs them, or that a run has ended.
    pub fn events(&self, upgrade: &UpgradeView) -> Vec<EventNote> {
        let note = |severity, reason: &'static str, action, note: &str| EventNote {
            resource: IN_PLACE_UPGRADE,
            key: upgrade.meta().key.clone(),
            uid: upgrade.meta().uid.clone(),
            severity,
            reason,
            action,
            note: note.to_owned(),
        };
        let mut events = Vec::new();
        if let Some((reason, message)) = &self.stalled
            && upgrade.condition(StalledReason::CONDITION).is_none_or(|stored| !stored.is(*reason))
        {
            events.push(note(Severity::Warning, reason.as_str(), "Upgrading", message));
        }
        let is_new = upgrade.condition(ReadyReason::CONDITION).is_none_or(|stored| !stored.is(self.ready.0));
        if is_new && self.ready.0 == ReadyReason::UpToDate && upgrade.is_run_open() {
            events.push(note(Severity::Normal, "UpToDate", "Upgrading", &self.ready.1));
        }
        events
    }

    /// Nothing has moved for long although nothing holds.
    fn look_for_standstill(
        &mut self,
        situation: &Situation<'_>,
        decision: &Decision,
        made: &Moves,
        now: Timestamp,
    ) {
        let is_moving = match decision {
            Decision::Move => made.hold.is_none(),
            Decision::Finalize(_) | Decision::TemplateNotObserved => true,
            Decision::UpToDate
            | Decision::RolledBack
            | Decision::PlanOnly
            | Decision::Paused
            | Decision::NotLocked
            | Decision::PodsBlocked
            | Decision::NoWayBack(_)
            | Decision::FieldConflict(_)
            | Decision::Preflight(_)
            | Decision::Open(_)
            | Decision::Supersede
            | Decision::Fail
            | Decision::Persist(_)
            | Decision::Raise(_)
            | Decision::Close(_) => false,
        };
        let Some(since) = situation.observed.still_since.filter(|_| is_moving && self.stalled.is_none())
        else {
            return;
        };
        let at = after(since, NO_PROGRESS);
        if now < at {
            self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
            return;
        }
        let reason = match (decision, situation.course) {
            (Decision::Finalize(_), _) => StalledReason::FinalizeFailed,
            (_, Course::Back) => StalledReason::RollbackFailed,
            (
                _,
                Course::Closed
                | Course::RolledBack
                | Course::Superseded
                | Course::Forward
                | Course::Finalizing
                | Course::Stopped,
            ) => StalledReason::NoProgress,
        };
        self.stalled = Some((reason, format!("nothing has moved for ten minutes: {}", self.ready.1)));
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

fn message(condition: &Condition) -> String {
    condition.message.clone()
}

fn held(situation: &Situation<'_>, made: &Moves) -> (HeldReason, String) {
    match &made.hold {
        Some(hold) => (hold.reason(), hold_text(situation, hold)),
        None => (HeldReason::Free, "nothing keeps further pods from starting".to_owned()),
    }
}

fn healthy(situation: &Situation<'_>, decision: &Decision) -> (HealthyReason, String) {
    let upgrade = &situation.observed.upgrade;
    let stored = upgrade.reason::<HealthyReason>().filter(|reason| reason.status() == ConditionStatus::False);
    match stored {
        Some(reason) if keeps_verdict(situation.course) => {
            (reason, upgrade.condition(HealthyReason::CONDITION).map(message).unwrap_or_default())
        }
        Some(_) | None => match (decision, situation.course) {
            (Decision::Preflight(asked), _) if asked.refusal.is_some() => {
                (HealthyReason::AdmissionDenied, asked.refusal.clone().unwrap_or_default())
            }
            (_, Course::Forward) => (situation.health.reason, situation.health.message.clone()),
            (
                _,
                Course::Closed
                | Course::RolledBack
                | Course::Superseded
                | Course::Finalizing
                | Course::Back
                | Course::Stopped,
            ) => (HealthyReason::GatesPassing, "every bound of spec.health is kept".to_owned()),
        },
    }
}

fn finalized(situation: &Situation<'_>, decision: &Decision) -> (FinalizedReason, String) {
    let upgrade = &situation.observed.upgrade;
    match decision.finalize() {
        Some(Finalize::Write { reason, message, .. }) => return (*reason, message.clone()),
        Some(Finalize::Waiting { message }) => {
            return (FinalizedReason::WaitingForHandshake, message.clone());
        }
        Some(Finalize::Done { reason }) => return (*reason, String::new()),
        None => {}
    }
    if decision.is_end() {
        return agreed(situation);
    }
    match situation.course {
        // Once it has begun there is no way back, also while new pods have to be changed first.
        Course::Finalizing => {
            let reason = upgrade.reason::<FinalizedReason>().unwrap_or(FinalizedReason::WaitingForHandshake);
            (reason, upgrade.condition(FinalizedReason::CONDITION).map(message).unwrap_or_default())
        }
        Course::Superseded
        | Course::Forward
        | Course::Back
        | Course::Stopped
        | Course::Closed
        | Course::RolledBack => (FinalizedReason::WaitingForPods, "pods are still to be changed".to_owned()),
    }
}

fn agreed(situation: &Situation<'_>) -> (FinalizedReason, String) {
    let has_say = match (situation.wish.persist, situation.target.kind()) {
        (Persist::PodsOnly, _) | (Persist::Template, TargetKind::ReplicaSet) => false,
        (Persist::Template, TargetKind::Deployment | TargetKind::StatefulSet | TargetKind::DaemonSet) => true,
    };
    if has_say {
        let message = "the workload's controller counts every pod as of its template";
        (FinalizedReason::NativeControllerAgrees, message.to_owned())
    } else {
        (FinalizedReason::Unneeded, "the workload's controller has no say in it".to_owned())
    }
}

fn drifted(situation: &Situation<'_>) -> (DriftedReason, String) {
    let first = situation.members.iter().find(|member| member.judgement.verdict != Verdict::UpToDate);
    match first.filter(|_| situation.is_drift()) {
        Some(first) => {
            let name = &first.pod.meta().key.name;
            (DriftedReason::PodsDiffer, format!("pods differ from what the last run made them, first {name}"))
        }
        None => (DriftedReason::NoDrift, "no pod differs outside of a run".to_owned()),
    }
}
