//! What users are told of a job by events: that something needs a person or goes another way than
//! asked for. A job that runs as it should costs no event.

use crate::projections::job::{BATCH_JOB, JobView};
use springtide_crds::batch_job::{
    AdmittedReason, BatchJobStatus, DegradedReason, FailedReason, QueuedReason, StalledReason,
    SuspendedReason,
};
use springtide_crds::common::condition;
use springtide_crds::reason::Reason;
use springtide_plumbing::events::{EventNote, Severity};
use springtide_plumbing::projection::Projection;

/// One event for each turn that this status records and the stored one does not.
pub(super) fn notes(job: &JobView, status: &BatchJobStatus) -> Vec<EventNote> {
    let turns = Turns { job, status };
    let failed = turns.to(&FailedReason::all(), "Finishing", Severity::Warning);
    // Of a failed job that says the same.
    let stalled: Vec<_> = StalledReason::all()
        .into_iter()
        .filter(|reason| match reason {
            StalledReason::QueueNotFound
            | StalledReason::QueueNameRequired
            | StalledReason::TierNotAllowed
            | StalledReason::NeverFits
            | StalledReason::NameConflict
            | StalledReason::ForeignSchedulingGate
            | StalledReason::TemplateChanged
            | StalledReason::LimitExceeded
            | StalledReason::Forbidden
            | StalledReason::InternalError => true,
            StalledReason::Failed(_) => false,
        })
        .collect();
    let stalled = turns.to(&stalled, "Reconciling", Severity::Warning);
    let refused = turns.to(&[QueuedReason::ClassBackoff], "CreatingPods", Severity::Warning);
    let pending = turns.to(&[AdmittedReason::PendingDeadline], "TakingPodsBack", Severity::Warning);
    let stops = [SuspendedReason::UserHold, SuspendedReason::UserDrain, SuspendedReason::QueueStopped];
    let preempted = turns.to(&[SuspendedReason::Preempted], "Preempting", Severity::Normal);
    let stopped = turns.to(&stops, "Stopping", Severity::Normal);
    let shrunk =
        turns.to(&[DegradedReason::QuotaShrunk, DegradedReason::Reclaimed], "Shrinking", Severity::Normal);
    // Of a peak its queue tells, once for all jobs.
    let was_in_peak = job
        .condition(SuspendedReason::CONDITION)
        .is_some_and(|suspended| suspended.is(SuspendedReason::PeakWindow));
    let resumed =
        turns.to(&[SuspendedReason::Resumed], "Resuming", Severity::Normal).filter(|_| !was_in_peak);
    // What is forbidden is the reason of the pause too, and is told once.
    let refused = refused.filter(|_| stalled.is_none());
    [failed, stalled, refused, pending, stopped, preempted, shrunk, resumed].into_iter().flatten().collect()
}

struct Turns<'a> {
    job: &'a JobView,
    status: &'a BatchJobStatus,
}

impl Turns<'_> {
    /// The event of a condition that gets one of these reasons, and had another before.
    fn to<R: Reason>(&self, reasons: &[R], action: &'static str, severity: Severity) -> Option<EventNote> {
        let turned = condition(&self.status.conditions, R::CONDITION)?.clone();
        let reason = reasons.iter().map(R::as_str).find(|reason| *reason == turned.reason)?;
        let was = self.job.condition(R::CONDITION);
        if was.is_some_and(|was| was.reason == turned.reason) {
            return None;
        }
        let meta = self.job.meta();
        let (key, uid) = (meta.key.clone(), meta.uid.clone());
        Some(EventNote { resource: BATCH_JOB, key, uid, severity, reason, action, note: turned.message })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// The events of a job whose status turns from one to the other.
    fn told(was: Value, is: Value) -> Vec<(&'static str, Severity, String)> {
        let conditions = |conditions: Value| json!({"conditions": conditions});
        let metadata = json!({"name": "j", "namespace": "ns", "uid": "u", "resourceVersion": "1"});
        let job = json!({"metadata": metadata, "spec": {"template": {}}, "status": conditions(was)});
        let job: JobView = serde_json::from_value(job).unwrap();
        let status = serde_json::from_value(conditions(is)).unwrap();
        notes(&job, &status).into_iter().map(|note| (note.reason, note.severity, note.note)).collect()
    }

    fn is(type_: &str, reason: &str) -> Value {
        json!({
            "type": type_, "status": "True", "reason": reason, "message": "why", "observedGeneration": 1,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        })
    }

    fn warning(reason: &'static str) -> (&'static str, Severity, String) {
        (reason, Severity::Warning, "why".to_owned())
    }

    #[test]
    fn a_job_that_runs_as_it_should_is_told_of_by_no_event() {
        let stages = [
            json!([is("Complete", "Pending")]),
            json!([is("Complete", "Queued"), is("Queued", "NoCapacity"), is("Admitted", "Waiting")]),
            json!([is("Complete", "Running"), is("Queued", "Admitted"), is("Admitted", "BuiltInQueue")]),
            json!([is("Complete", "Completed"), is("Queued", "Finished")]),
        ];
        for pair in stages.windows(2) {
            assert_eq!(told(pair[0].clone(), pair[1].clone()), []);
        }
    }

    #[test]
    fn what_needs_a_person_is_told_once_when_it_turns_so() {
        let stalled = json!([is("Stalled", "NeverFits")]);
        assert_eq!(told(json!([]), stalled.clone()), [warning("NeverFits")]);
        assert_eq!(told(stalled.clone(), stalled), []);
        let failed = json!([is("Failed", "DeadlineExceeded"), is("Stalled", "DeadlineExceeded")]);
        assert_eq!(told(json!([]), failed), [warning("DeadlineExceeded")]);
        let forbidden = json!([is("Stalled", "Forbidden"), is("Queued", "ClassBackoff")]);
        assert_eq!(told(json!([is("Queued", "NoCapacity")]), forbidden), [warning("Forbidden")]);
        assert_eq!(told(json!([]), json!([is("Queued", "ClassBackoff")])), [warning("ClassBackoff")]);
    }

    #[test]
    fn a_stop_and_its_end_are_told() {
        let [held, resumed] = ["UserHold", "Resumed"].map(|reason| json!([is("Suspended", reason)]));
        let normal = |reason| [(reason, Severity::Normal, "why".to_owned())];
        assert_eq!(told(json!([]), held.clone()), normal("UserHold"));
        assert_eq!(told(held, resumed.clone()), normal("Resumed"));
        assert_eq!(told(resumed, json!([is("Suspended", "UserDrain")])), normal("UserDrain"));
    }
}
