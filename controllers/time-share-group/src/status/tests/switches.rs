//! Scenes of switches: what is told of one that is under way, and of a group that rests.

use super::{Told, breached, told, unknown};
use crate::fixtures::{at, fill, on_stage, overlay, pending, serving, sized, switching};
use crate::observed::{Answer, Observed, RefusedBy};
use crate::plan::fixtures::{at_pay, both, found, to_pay};
use crate::sizes::Demand;
use serde_json::{Value, json};
use springtide_crds::time_share_group::{GuardsPassingReason, HeldReason, ReadyReason, ReconcilingReason};

fn small() -> Value {
    json!({})
}

/// Its spec asks for peak, and its node has not put it in force.
fn growing() -> Value {
    sized("4", "200m")
}

/// One unit is done, and all is at rest.
pub(super) fn settled() -> Observed {
    found(at_pay(json!({})), &[on_stage()], &[small()])
}

/// One of two units has no room on its node.
pub(super) fn skipped() -> Observed {
    let mut observed = found(at_pay(json!({})), &[on_stage(), small()], &[small()]);
    fill(&mut observed, Demand::ZERO);
    observed
}

/// A unit is under way: pay-1 grows, and promo-1 has shrunk for it.
pub(super) fn switched(over: Value) -> Observed {
    let slow = json!({"spec": {"switch": {"unitDeadlineSeconds": 3600}}});
    found(to_pay(both(slow, over)), &[growing()], &[small()])
}

/// Nothing has begun: the API server has not been asked, and there is no room for both.
fn unasked() -> Observed {
    let mut observed = found(to_pay(json!({})), &[small()], &[on_stage()]);
    fill(&mut observed, Demand::ZERO);
    observed
}

/// A canary of one unit in two is done, with these changes.
pub(super) fn canary_done(over: Value) -> Observed {
    let steps =
        json!({"spec": {"switch": {"steps": [{"percent": 50, "holdSeconds": 60}, {"percent": 100}]}}});
    found(to_pay(both(steps, over)), &[on_stage(), on_stage()], &[small(), small()])
}

/// The way back from a switch to pay, with these changes.
pub(super) fn going_back(over: Value) -> Observed {
    let mut status = switching(8, Some("pay"), Some("promo"));
    overlay(&mut status, json!({"activeMember": "promo", "transition": {"cause": "Rollback"}}));
    let object = json!({"spec": {"schedule": {"defaultMember": "pay"}}, "status": status});
    let mut growing = growing();
    overlay(&mut growing, serving("false"));
    found(both(object, over), &[small()], &[growing])
}

/// Nobody has been at peak, and pay is to be; the API server refuses what pay-1 would become.
pub(super) fn refused_ahead(over: Value) -> Observed {
    let object = json!({"spec": {"schedule": {"defaultMember": "pay"}}});
    let mut observed = found(both(object, over), &[small()], &[]);
    let refused = Some((RefusedBy::Admission, "webhook limits: too large".into()));
    observed.members[0].pods[0].evidence.asked.peak = Some(Answer { at: at(90), refused });
    observed
}

/// The workload of pay is not there since a moment ago.
pub(super) fn awaited() -> Observed {
    let mut observed = found(json!({}), &[], &[]);
    observed.members[0].workload = None;
    observed.members[0].missing_since = Some(at(90));
    observed
}

pub(super) fn ready(reason: &ReadyReason) -> Option<Told> {
    Some(match reason {
        ReadyReason::Pending => (awaited(), &["member pay", "missing from"]),
        ReadyReason::Settled => (settled(), &["pay has the peak", "2 pods"]),
        ReadyReason::SettledWithSkips => {
            (skipped(), &["pay has the peak", "1 of 2 units", "pay-2 on n2", "make room"])
        }
        ReadyReason::Switching => {
            (switched(json!({})), &["switch 7 to pay", "step 1 of 3", "0 of 1 units", "pay-1 on n1"])
        }
        ReadyReason::RollingBack => (going_back(json!({})), &["switch 8 back to promo"]),
        ReadyReason::Held => {
            let until = json!({"status": {"transition": {"holdUntilTime": at(160).to_string()}}});
            (canary_done(until), &["step 1 of 2 is done", "step 2 begins at"])
        }
        ReadyReason::Paused => {
            (switched(json!({"spec": {"mode": "Paused"}})), &["1 unit come to rest", "set it to Active"])
        }
        ReadyReason::Observing => {
            let asked = json!({"spec": {"mode": "Observe", "schedule": {"defaultMember": "pay"}}});
            (found(asked, &[small()], &[]), &["a switch to pay is due", "set it to Active"])
        }
        ReadyReason::Refused => {
            let mut observed = settled();
            observed.excess = Some("it is the 21st of namespace shop, of 20 at most".to_owned());
            (observed, &["21st of namespace shop"])
        }
        ReadyReason::Degraded => (
            found(at_pay(json!({})), &[on_stage(), growing()], &[small()]),
            &["pay has the peak", "pay-2 on n2"],
        ),
        // That is told by the plan of a deletion.
        ReadyReason::Deleting => return None,
    })
}

pub(super) fn reconciling(reason: &ReconcilingReason) -> Option<Told> {
    Some(match reason {
        ReconcilingReason::Pending => (awaited(), &["member pay"]),
        ReconcilingReason::Preflight => (unasked(), &["asked", "dry runs"]),
        ReconcilingReason::Switching => (switched(json!({})), &["1 in flight"]),
        ReconcilingReason::RollingBack => (going_back(json!({})), &["back to promo"]),
        ReconcilingReason::Settling => {
            (found(at_pay(json!({})), &[on_stage(), growing()], &[small()]), &["pods get what is theirs"])
        }
        ReconcilingReason::Deleting => return None,
    })
}

pub(super) fn held(reason: &HeldReason) -> Option<Told> {
    Some(match reason {
        HeldReason::NotObserved => (awaited(), &["nothing has been seen"]),
        HeldReason::StepHold => {
            let until = json!({"status": {"transition": {"holdUntilTime": at(160).to_string()}}});
            (canary_done(until), &["step 1 of 2 is done"])
        }
        HeldReason::Paused => (switched(json!({"spec": {"mode": "Paused"}})), &["spec.mode is Paused"]),
        HeldReason::PreflightFailed => {
            let hold = json!({"spec": {"guards": {"preflight": {"onFailure": "Hold"}}}});
            (refused_ahead(hold), &["onFailure is Hold", "PreflightPassed"])
        }
        HeldReason::DonorBusy => {
            let mut observed = unasked();
            observed.donor_load = Some(breached("qps"));
            (observed, &["metric qps", "pods of promo do not shrink"])
        }
        HeldReason::NoMetricData => {
            let mut observed = unasked();
            observed.metrics = vec![unknown("errors")];
            (observed, &["metric errors has no value", "connection refused", "onNoData"])
        }
        HeldReason::Free => (settled(), &["nothing keeps"]),
    })
}

pub(super) fn guards_passing(reason: &GuardsPassingReason) -> Option<Told> {
    Some(match reason {
        GuardsPassingReason::NotObserved => (awaited(), &["nothing has been seen"]),
        GuardsPassingReason::NoMetricData => {
            let mut observed = unasked();
            observed.metrics = vec![unknown("errors")];
            (observed, &["metric errors has no value"])
        }
        GuardsPassingReason::Passing => (settled(), &["every bound"]),
        GuardsPassingReason::TooManyFailures => {
            let never = both(growing(), pending("Infeasible", at(50)));
            let pause = json!({"spec": {"switch": {"onStuck": "Pause"}}});
            (found(to_pay(pause), &[never], &[small()]), &["1 of 1 unit failed", "pay-1 on n1 (Infeasible)"])
        }
        GuardsPassingReason::MetricBreached => {
            let mut observed = unasked();
            observed.metrics = vec![breached("errors")];
            (observed, &["metric errors is beyond its bound"])
        }
        GuardsPassingReason::DonorBusy => {
            let mut observed = unasked();
            observed.donor_load = Some(breached("qps"));
            (observed, &["metric qps is above guards.donorMaxLoad"])
        }
    })
}

/// A switch to pay that was rolled back, and what the guards said then.
pub(super) fn came_back(promo: Value) -> Observed {
    let over = json!({"status": {
        "transition": {"completionTime": at(50).to_string()},
        "conditions": [
            told("Stalled", "True", "RolledBack", ""),
            told("GuardsPassing", "False", "MetricBreached", "metric errors is beyond its bound"),
        ],
    }});
    let mut status = switching(8, Some("pay"), Some("promo"));
    overlay(&mut status, json!({"activeMember": "promo", "transition": {"cause": "Rollback"}}));
    let object = json!({"spec": {"schedule": {"defaultMember": "pay"}}, "status": status});
    found(both(object, over), &[small()], &[promo])
}
