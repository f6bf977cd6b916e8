//! Scenes of what is known ahead of a switch: schedule, preflight, capacity and autoscalers.

use super::Told;
use super::switches::{awaited, refused_ahead, settled, switched};
use crate::fixtures::{at, fill, on_stage, overlay, sized};
use crate::observed::{Answer, Observed, Quota, RefusedBy};
use crate::plan::fixtures::{at_pay, both, found, to_pay};
use crate::sizes::Demand;
use serde_json::{Value, json};
use springtide_crds::time_share_group::{
    AutoscalerConflictReason, CapacitySafeReason, PreflightFailure, PreflightPassedReason,
    ScheduleValidReason,
};
use springtide_plumbing::workloads::template::Template;

/// A group at rest with these windows: name, member, cron, hours and lead in seconds.
fn windows(all: &[(&str, &str, &str, u32, u32)]) -> Observed {
    let window = |(name, member, cron, hours, lead): &(&str, &str, &str, u32, u32)| {
        json!({
            "name": name, "member": member, "leadSeconds": lead,
            "window": {"cron": cron, "durationSeconds": hours * 3600, "timeZone": "UTC"},
        })
    };
    let windows: Vec<Value> = all.iter().map(window).collect();
    found(at_pay(json!({"spec": {"schedule": {"windows": windows}}})), &[on_stage()], &[json!({})])
}

pub(super) fn schedule_valid(reason: &ScheduleValidReason) -> Option<Told> {
    Some(match reason {
        // The schedule is looked at whatever else is wrong.
        ScheduleValidReason::NotObserved => return None,
        ScheduleValidReason::Valid => (windows(&[("night", "promo", "0 0 * * *", 2, 0)]), &["400 days"]),
        ScheduleValidReason::NoWindows => (settled(), &["there is no window", "pay has the peak"]),
        ScheduleValidReason::WindowsOverlap => {
            let both = [("night", "promo", "0 0 * * *", 2, 0), ("early", "pay", "0 1 * * *", 2, 0)];
            (windows(&both), &["night", "early", "overlap from", "move one of them"])
        }
        ScheduleValidReason::LeadOverlapsWindow => {
            let both = [("night", "promo", "0 0 * * *", 2, 0), ("early", "pay", "0 3 * * *", 2, 7200)];
            (windows(&both), &["the lead of early", "in night", "leadSeconds 3600 at most"])
        }
        ScheduleValidReason::UnknownTimeZone => {
            let zone = json!({"cron": "0 0 * * *", "durationSeconds": 3600, "timeZone": "Nowhere/Never"});
            (one_window(zone), &["windows[night]", "Nowhere/Never"])
        }
        ScheduleValidReason::InvalidWindow => {
            let cron = json!({"cron": "0 0 99 * *", "durationSeconds": 3600, "timeZone": "UTC"});
            (one_window(cron), &["windows[night]", "cron"])
        }
        ScheduleValidReason::NeverMatches => {
            let never = json!({"cron": "0 0 30 2 *", "durationSeconds": 3600, "timeZone": "UTC"});
            (one_window(never), &["windows[night]", "cron"])
        }
    })
}

fn one_window(window: Value) -> Observed {
    let windows = json!([{"name": "night", "member": "promo", "window": window}]);
    found(at_pay(json!({"spec": {"schedule": {"windows": windows}}})), &[on_stage()], &[json!({})])
}

/// Nobody has been at peak, and pay is to be, with these pods; the group is looked at alone.
fn observing(over: Value, pay: &[Value]) -> Observed {
    let object = json!({"spec": {"mode": "Observe", "schedule": {"defaultMember": "pay"}}});
    found(both(object, over), pay, &[])
}

/// The API server has answered of pods of pay, one after the other: why not, if it would not.
fn answered(observed: &mut Observed, answers: &[Option<(RefusedBy, &str)>]) {
    for (found, answer) in observed.members[0].pods.iter_mut().zip(answers) {
        let refused = answer.map(|(by, words)| (by, words.into()));
        found.evidence.asked.peak = Some(Answer { at: at(90), refused });
    }
}

pub(super) fn failed(reason: PreflightFailure) -> Told {
    let mut one = observing(json!({}), &[json!({})]);
    match reason {
        PreflightFailure::DryRunRefused => (
            refused_ahead(json!({"spec": {"mode": "Observe"}})),
            &["0 of 1 unit", "webhook limits", "change what refuses"],
        ),
        PreflightFailure::NodeDoesNotFit => {
            answered(&mut one, &[None]);
            fill(&mut one, Demand::ZERO);
            (one, &["0 of 1 unit", "pay-1 on n1", "lower the peak"])
        }
        PreflightFailure::QuotaExceeded => {
            answered(&mut one, &[None]);
            one.members[0].quotas =
                vec![Quota { name: "compute".into(), requests_cpu: Some(0), ..Quota::default() }];
            (one, &["0 of 1 unit", "raise the quota"])
        }
        PreflightFailure::QoSClassWouldChange => {
            answered(&mut one, &[Some((RefusedBy::QosClass, "Pod QOS Class may not change"))]);
            (one, &["0 of 1 unit", "pay-1 on n1", "change limits"])
        }
        PreflightFailure::ResizeNeedsRestart => {
            let restarts = json!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]);
            let pod = json!({"spec": {"containers": [{"name": "app", "resizePolicy": restarts}]}});
            (observing(json!({}), &[pod]), &["0 of 1 unit", "pay-1 on n1", "NotRequired"])
        }
        PreflightFailure::NoUsageData => (without_usage(), &["0 of 1 unit", "metrics server"]),
    }
}

/// promo has the peak, and gives memory away to pay, which is to have it; nobody knows how much it uses.
fn without_usage() -> Observed {
    let sizes = json!([{"name": "app", "peak": {"memory": "2Gi"}}]);
    let promo = json!({"name": "promo", "memory": "Move", "containers": sizes});
    let until = at(1000).to_string();
    let over = json!({
        "spec": {
            "mode": "Observe", "members": [promo],
            "override": {"member": "promo", "untilTime": until, "reason": "INC-1"},
        },
    });
    let mut large = on_stage();
    let memory = json!({"requests": {"memory": "2Gi"}});
    overlay(
        &mut large,
        json!({
            "spec": {"containers": [{"name": "app", "resources": memory}]},
            "status": {"containerStatuses": [{"name": "app", "resources": memory, "allocatedResources": {"memory": "2Gi"}}]},
        }),
    );
    let mut ended = at_pay(over);
    // It is pay that comes next, when the override has ended.
    overlay(
        &mut ended,
        json!({"status": {"activeMember": "promo", "transition": {"from": "pay", "to": "promo"}}}),
    );
    let mut observed = found(ended, &[json!({})], &[large]);
    answered(&mut observed, &[None]);
    observed.members[1].pods[0].evidence.asked.valley = Some(Answer { at: at(90), refused: None });
    observed
}

pub(super) fn preflight_passed(reason: &PreflightPassedReason) -> Option<Told> {
    Some(match reason {
        PreflightPassedReason::NotObserved => (observing(json!({}), &[json!({})]), &["0 of 1 unit", "asked"]),
        PreflightPassedReason::NotDue => (switched(json!({})), &["a switch is under way"]),
        PreflightPassedReason::AllUnits => {
            let mut one = observing(json!({}), &[json!({})]);
            answered(&mut one, &[None]);
            (one, &["each of 1 unit", "to pay"])
        }
        PreflightPassedReason::EnoughUnits => {
            let half = json!({"spec": {"guards": {"preflight": {"requirePercent": 50}}}});
            let mut two = observing(half, &[json!({}), json!({})]);
            answered(&mut two, &[None, Some((RefusedBy::Admission, "no"))]);
            (two, &["1 of 2 units", "pay-2 on n2 (DryRunRefused)"])
        }
        PreflightPassedReason::Failed(failure) => failed(*failure),
    })
}

pub(super) fn capacity_safe(reason: &CapacitySafeReason) -> Option<Told> {
    Some(match reason {
        CapacitySafeReason::NotObserved => (awaited(), &["nothing has been seen"]),
        CapacitySafeReason::WithinBudget => (settled(), &["each of 1 node"]),
        CapacitySafeReason::NodesOverBudget => {
            let mut observed = settled();
            fill(&mut observed, Demand { cpu: -1, memory: 0 });
            (observed, &["1 of 1 node", "first n1", "lower the peak"])
        }
        CapacitySafeReason::TemplateNotAtValley => {
            let mut observed = settled();
            if let Some(workload) = &mut observed.members[0].workload {
                workload.template = Template::shared(&json!({
                    "metadata": {"labels": {"springtide.dev/traffic-serving": "false"}},
                    "spec": {"containers": [{"name": "app", "image": "app:1", "resources": {"requests": {"cpu": "4", "memory": "1Gi"}}}]},
                }));
            }
            (observed, &["template of Deployment pay", "container app", "set its requests"])
        }
        CapacitySafeReason::QuotaTooSmall => {
            let mut observed = found(to_pay(json!({})), &[json!({})], &[on_stage()]);
            observed.members[0].quotas =
                vec![Quota { name: "compute".into(), requests_cpu: Some(0), ..Quota::default() }];
            (observed, &["ResourceQuota compute", "ShrinkFirst"])
        }
        CapacitySafeReason::PrioritiesDiffer => {
            let first = json!({"spec": {"switch": {"order": "ClaimFirst"}}});
            let high = both(on_stage(), json!({"spec": {"priority": 100}}));
            (
                found(at_pay(first), &[high], &[sized("200m", "200m")]),
                &["pay (priority 100)", "promo", "equal priorities"],
            )
        }
    })
}

pub(super) fn autoscaler_conflict(reason: &AutoscalerConflictReason) -> Option<Told> {
    let mut observed = settled();
    Some(match reason {
        // They are looked at whatever else is wrong.
        AutoscalerConflictReason::NotObserved => return None,
        AutoscalerConflictReason::HorizontalPodAutoscalerUtilization => {
            observed.members[0].autoscalers.by_utilization = vec!["scaler".into()];
            (observed, &["HorizontalPodAutoscaler scaler", "AverageValue"])
        }
        AutoscalerConflictReason::VerticalPodAutoscaler => {
            observed.members[0].autoscalers.vertical = Some("sizer".into());
            (observed, &["VerticalPodAutoscaler sizer", "updateMode"])
        }
        AutoscalerConflictReason::None => (observed, &["no autoscaler"]),
    })
}
