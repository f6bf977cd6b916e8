//! Scenes in which a person is needed.

use super::switches::{awaited, came_back, settled, switched};
use super::{Told, breached};
use crate::fixtures::{at, fill, on_stage, pending, sized};
use crate::observed::Observed;
use crate::plan::fixtures::{both, found, to_pay};
use crate::sizes::Demand;
use serde_json::json;
use springtide_crds::time_share_group::{AcceptedReason, RefusalReason, StalledReason};
use springtide_plumbing::error::ErrorClass;
use springtide_plumbing::failing::Failing;
use springtide_plumbing::key::ObjectKey;

fn failing(class: ErrorClass, message: &str) -> Observed {
    let failing = Failing { class, passes: 1, attempt: None, message: message.to_owned() };
    Observed { failing: Some(failing), ..settled() }
}

pub(super) fn stalled(reason: &StalledReason) -> Option<Told> {
    Some(match reason {
        StalledReason::GuardBreached => {
            let pause = json!({"spec": {"guards": {"onBreach": "Pause"}}});
            let mut observed = switched(pause);
            observed.metrics = vec![breached("errors")];
            (observed, &["no unit starts", "metric errors", "change the spec"])
        }
        StalledReason::UnitStuck => {
            let never = both(sized("4", "200m"), pending("Infeasible", at(50)));
            let pause =
                json!({"spec": {"switch": {"onStuck": "Pause"}, "guards": {"failureThresholdPercent": 100}}});
            (found(to_pay(pause), &[never], &[json!({})]), &["pay-1 on n1 (Infeasible)", "PodResizePending"])
        }
        StalledReason::RolledBack => {
            (came_back(on_stage()), &["no peak for pay", "metric errors", "change the spec"])
        }
        StalledReason::RollbackStuck => {
            let mut observed = came_back(json!({}));
            fill(&mut observed, Demand::ZERO);
            (observed, &["1 unit did not come back", "make room on its node"])
        }
        StalledReason::DeadlineExceeded => {
            let short = json!({"spec": {"switch": {"deadlineSeconds": 30, "steps": [{"percent": 100}]}}});
            (switched(short), &["deadlineSeconds (30)", "goes on", "switch 7 to pay"])
        }
        StalledReason::NoProgress => {
            let long_ago = json!({
                "spec": {"switch": {"deadlineSeconds": 86_400}},
                "status": {"transition": {"startTime": at(-900).to_string()}},
            });
            let mut observed = switched(long_ago);
            observed.still_since = Some(at(-900));
            (observed, &["nothing has moved for 10 minutes", "pay-1 on n1"])
        }
        StalledReason::Forbidden => {
            (failing(ErrorClass::Forbidden, "may not patch pods/resize"), &["may not patch pods/resize"])
        }
        StalledReason::InternalError => (failing(ErrorClass::Bug, "a defect"), &["a defect"]),
        StalledReason::Refused(refusal) => refused(*refusal),
    })
}

pub(super) fn accepted(reason: &AcceptedReason) -> Option<Told> {
    Some(match reason {
        AcceptedReason::NotObserved => (awaited(), &["missing from"]),
        AcceptedReason::Accepted => (settled(), &["served"]),
        AcceptedReason::Refused(refusal) => refused(*refusal),
    })
}

/// Each reason for which a spec is not served, with the field or object and the remedy.
pub(super) fn refused(refusal: RefusalReason) -> Told {
    let mut observed = settled();
    match refusal {
        RefusalReason::InvalidSpec => {
            if let Some(workload) = &mut observed.members[0].workload {
                workload.selector = json!({"matchLabels": {"springtide.dev/traffic-serving": "true"}});
            }
            (observed, &["spec.members[pay].targetRef", "traffic-serving"])
        }
        RefusalReason::InvalidSchedule => {
            let zone = json!({"cron": "0 0 * * *", "durationSeconds": 3600, "timeZone": "Nowhere/Never"});
            let windows = json!({"spec": {"schedule": {"windows": [{"name": "night", "member": "pay", "window": zone}]}}});
            (found(windows, &[], &[]), &["windows[night]", "Nowhere/Never"])
        }
        RefusalReason::MemberNotFound => {
            observed.members[0].workload = None;
            observed.members[0].missing_since = Some(at(0));
            (observed, &["member pay", "Deployment pay", "namespace shop"])
        }
        RefusalReason::MemberTaken => {
            observed.members[0].taken_by = Some(ObjectKey::new("shop", "older"));
            (observed, &["shop/older", "member pay", "remove it from one"])
        }
        RefusalReason::MemberNotGranted => {
            observed.members[0].is_granted = false;
            observed.members[0].namespace = "events".into();
            (observed, &["ReferenceGrant", "namespace events", "Deployment pay"])
        }
        RefusalReason::AutoscalerRefused => {
            observed.members[0].autoscalers.vertical = Some("sizer".into());
            (observed, &["VerticalPodAutoscaler sizer", "updateMode"])
        }
        RefusalReason::LimitExceeded => {
            observed.excess = Some("it is the 21st of namespace shop, of 20 at most".to_owned());
            (observed, &["21st", "delete"])
        }
    }
}
