//! What is said of a group: its conditions.

use super::conditions::{self, told, unobserved};
use super::summary::{Summary, is_ready, overdue, summary};
use crate::autoscalers::autoscalers;
use crate::message::quoting;
use crate::observed::Observed;
use crate::plan::accept::Refusal;
use crate::plan::decision::Decision;
use crate::plan::situation::Situation;
use crate::projections::group::GroupView;
use jiff::Timestamp;
use springtide_crds::common::{Condition, ConditionWriter, remove_condition};
use springtide_crds::reason::Reason;
use springtide_crds::time_share_group::{
    AcceptedReason, AutoscalerConflictReason, CapacitySafeReason, GuardsPassingReason, HeldReason,
    MESSAGE_MAX_BYTES, PreflightPassedReason, ReadyReason, ReconcilingReason, ScheduleValidReason,
    StalledReason, StuckPod, TimeShareGroupStatus,
};
use springtide_plumbing::failing::{Failing, Told};
use springtide_plumbing::projection::Projection;

/// The conditions of a group, before they are laid over the stored ones: of each its reason and its message.
#[derive(Clone, Debug)]
pub(super) struct Report {
    ready: (ReadyReason, String),
    reconciling: Option<ReconcilingReason>,
    stalled: Option<(StalledReason, String)>,
    accepted: (AcceptedReason, String),
    schedule_valid: (ScheduleValidReason, String),
    preflight_passed: (PreflightPassedReason, String),
    capacity_safe: (CapacitySafeReason, String),
    guards_passing: (GuardsPassingReason, String),
    held: (HeldReason, String),
    autoscaler_conflict: (AutoscalerConflictReason, String),
}

impl Report {
    /// What is said of a group that is served. `stuck` are the rows of its status.
    pub(super) fn of(situation: &Situation<'_>, decision: &Decision, stuck: &[StuckPod]) -> Self {
        let guards_passing = conditions::guards_passing(situation, stuck);
        let Summary { ready, reconciling, stalled } = summary(situation, decision, &guards_passing, stuck);
        let mut report = Self {
            ready,
            reconciling,
            stalled: stalled.or_else(|| overdue(situation, decision)),
            accepted: conditions::accepted(situation),
            schedule_valid: conditions::schedule_valid(situation.observed),
            preflight_passed: conditions::preflight_passed(situation),
            capacity_safe: conditions::capacity_safe(situation),
            held: conditions::held(situation, decision),
            autoscaler_conflict: conditions::autoscaler_conflict(&situation.autoscalers),
            guards_passing,
        };
        report.add_failing(situation.observed.failing.as_ref());
        report
    }

    /// What is said of a group that is not served. What was found when it was stays said.
    pub(super) fn of_refused(observed: &Observed, refusal: &Refusal) -> Self {
        let mut report = Self::stored(&observed.group);
        report.schedule_valid = conditions::schedule_valid(observed);
        report.autoscaler_conflict = conditions::autoscaler_conflict(&autoscalers(observed));
        match refusal {
            Refusal::For { reason, message } => {
                report.ready = (ReadyReason::Refused, message.clone());
                report.reconciling = None;
                report.stalled = Some((StalledReason::Refused(*reason), message.clone()));
                report.accepted = (AcceptedReason::Refused(*reason), message.clone());
            }
            Refusal::MemberAwaited { member, until } => {
                let after = format!(" is not there yet; it counts as missing from {until:.0} on");
                let message = quoting("the workload of member ", member, &after);
                report.ready = (ReadyReason::Pending, message.clone());
                report.reconciling = Some(ReconcilingReason::Pending);
                // That a switch was rolled back is known by it.
                report.stalled = report.stalled.filter(|(reason, _)| !is_refusal(*reason));
                report.accepted = (AcceptedReason::NotObserved, message);
            }
        }
        report.add_failing(observed.failing.as_ref());
        report
    }

    /// What is said of a group whose writes fail, everything else as it is stored.
    pub(super) fn of_failing(group: &GroupView, failing: Option<&Failing>) -> Self {
        let mut report = Self::stored(group);
        report.add_failing(failing);
        report
    }

    fn stored(group: &GroupView) -> Self {
        fn or<R: Reason>(group: &GroupView, unseen: R) -> (R, String) {
            told(group).unwrap_or_else(|| unobserved(unseen))
        }
        Self {
            ready: or(group, ReadyReason::Pending),
            reconciling: group.reason(),
            stalled: told(group),
            accepted: or(group, AcceptedReason::NotObserved),
            schedule_valid: or(group, ScheduleValidReason::NotObserved),
            preflight_passed: or(group, PreflightPassedReason::NotObserved),
            capacity_safe: or(group, CapacitySafeReason::NotObserved),
            guards_passing: or(group, GuardsPassingReason::NotObserved),
            held: or(group, HeldReason::NotObserved),
            autoscaler_conflict: or(group, AutoscalerConflictReason::NotObserved),
        }
    }

    /// The conditions laid over those of the group's stored status, nothing else changed.
    pub(super) fn onto(&self, group: &GroupView, now: Timestamp) -> TimeShareGroupStatus {
        let mut status = group.status.clone();
        status.observed_generation = group.meta().generation;
        self.set(&mut status.conditions, group.meta().generation, now);
        status
    }

    /// Sets all conditions: each at the first visit, and Reconciling and Stalled only while they are true, never both.
    pub(super) fn set(&self, conditions: &mut Vec<Condition>, generation: i64, now: Timestamp) {
        let writer =
            ConditionWriter { observed_generation: generation, now, message_max_bytes: MESSAGE_MAX_BYTES };
        writer.set(conditions, self.ready.0, &self.ready.1);
        // What needs a person does not go on by itself, or not as it should.
        match (self.reconciling, &self.stalled) {
            (Some(reason), None) => writer.set(conditions, reason, &self.ready.1),
            (Some(_), Some(_)) | (None, _) => remove_condition(conditions, ReconcilingReason::CONDITION),
        }
        match &self.stalled {
            Some((reason, message)) => writer.set(conditions, *reason, message),
            None => remove_condition(conditions, StalledReason::CONDITION),
        }
        writer.set(conditions, self.accepted.0, &self.accepted.1);
        writer.set(conditions, self.schedule_valid.0, &self.schedule_valid.1);
        writer.set(conditions, self.preflight_passed.0, &self.preflight_passed.1);
        writer.set(conditions, self.capacity_safe.0, &self.capacity_safe.1);
        writer.set(conditions, self.guards_passing.0, &self.guards_passing.1);
        writer.set(conditions, self.held.0, &self.held.1);
        writer.set(conditions, self.autoscaler_conflict.0, &self.autoscaler_conflict.1);
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
        if is_ready(self.ready.0) {
            self.ready.0 = ReadyReason::Degraded;
            self.reconciling = Some(ReconcilingReason::Settling);
        }
        self.ready.1.clone_from(&failing.message);
        if let Some(reason) = reason {
            self.stalled = Some((reason, failing.message.clone()));
        }
    }
}

/// Whether the spec was not served for this.
fn is_refusal(reason: StalledReason) -> bool {
    match reason {
        StalledReason::Refused(_) => true,
        StalledReason::GuardBreached
        | StalledReason::UnitStuck
        | StalledReason::RolledBack
        | StalledReason::RollbackStuck
        | StalledReason::DeadlineExceeded
        | StalledReason::NoProgress
        | StalledReason::Forbidden
        | StalledReason::InternalError => false,
    }
}
