//! TimeShareGroups in the situations of the status contract.
//!
//! Their statuses are written down here, in the words of the controller.

use anyhow::{Context, Result};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};
use springtide_crds::Kind;
use springtide_crds::common::{Condition, ConditionWriter, Quantity, ResourceAmounts, remove_condition};
use springtide_crds::time_share_group::{
    AcceptedReason, AutoscalerConflictReason, CapacitySafeReason, GuardsPassingReason, HeldReason,
    MESSAGE_MAX_BYTES, MemberStatus, PreflightPassedReason, ReadyReason, ReconcilingReason, RefusalReason,
    ScheduleValidReason, StalledReason, TimeShareGroupStatus, Transition, TransitionCause, UnionBudget,
    UnitCounts,
};

use super::staged::{Situation, Staged, after, being_deleted, edited, new};

/// Units of a switch: one for each pod of a member.
const UNITS: u32 = 300;

/// Where a group stands: what is not said goes well.
#[derive(Clone, Copy)]
struct Stand {
    ready: ReadyReason,
    /// Message of Ready, of Reconciling and of Stalled.
    message: &'static str,
    reconciling: Option<ReconcilingReason>,
    stalled: Option<StalledReason>,
    accepted: AcceptedReason,
    schedule: ScheduleValidReason,
    guards: GuardsPassingReason,
    held: HeldReason,
    /// The member that has the peak.
    active: &'static str,
    /// What asked for the present switch, or the last one.
    cause: TransitionCause,
    /// Units of the switch that are done.
    done: u32,
    /// Units that did not come through.
    stuck: u32,
    is_complete: bool,
}

const SWITCHING: Stand = Stand {
    ready: ReadyReason::Switching,
    message: "switch 42 to payment: step 2 of 3, 30 of 300 units done, 20 in flight; promo-7 on n7 leaves traffic",
    reconciling: Some(ReconcilingReason::Switching),
    stalled: None,
    accepted: AcceptedReason::Accepted,
    schedule: ScheduleValidReason::Valid,
    guards: GuardsPassingReason::Passing,
    held: HeldReason::Free,
    active: "promo",
    cause: TransitionCause::Window,
    done: 30,
    stuck: 0,
    is_complete: false,
};

const SETTLED: Stand = Stand {
    ready: ReadyReason::Settled,
    message: "payment has the peak, and each of 600 pods its size and traffic",
    reconciling: None,
    active: "payment",
    done: UNITS,
    is_complete: true,
    ..SWITCHING
};

/// All of them, each situation at least once.
pub(super) fn staged(kind: &Kind) -> Result<Vec<Staged>> {
    let new = new(kind)?;
    let running = at(new.clone(), SWITCHING, after(60))?;
    let settled = at(new.clone(), SETTLED, after(200))?;
    let step_hold = Stand {
        ready: ReadyReason::Held,
        message: "step 2 of 3 is done, and is looked at: step 3 begins at 2026-11-11T00:02:20Z",
        held: HeldReason::StepHold,
        ..SWITCHING
    };
    let donor_busy = Stand {
        ready: ReadyReason::Held,
        message: "metric qps is above guards.donorMaxLoad: pods of promo do not shrink yet",
        reconciling: None,
        guards: GuardsPassingReason::DonorBusy,
        held: HeldReason::DonorBusy,
        ..SWITCHING
    };
    let paused = Stand {
        ready: ReadyReason::Paused,
        message: "spec.mode is Paused: no unit starts; set it to Active to go on",
        reconciling: None,
        held: HeldReason::Paused,
        ..SWITCHING
    };
    let observing = Stand {
        ready: ReadyReason::Observing,
        message: "spec.mode is Observe: a switch to payment is due; set it to Active to have it done",
        reconciling: None,
        done: 0,
        ..SWITCHING
    };
    let with_skips = Stand {
        ready: ReadyReason::SettledWithSkips,
        message: "payment has the peak; 4 of 300 units did not come through, first payment-7 on n7 (Deferred): make room on its \
                  node",
        done: UNITS - 4,
        stuck: 4,
        ..SETTLED
    };
    let settling = Stand {
        ready: ReadyReason::Degraded,
        message: "payment has the peak, and pods get what is theirs; payment-7 on n7 is being resized by its kubelet",
        reconciling: Some(ReconcilingReason::Settling),
        ..SETTLED
    };
    let rolling_back = Stand {
        ready: ReadyReason::RollingBack,
        message: "switch 42 goes back to promo: 7 of 30 units failed, with 2 % tolerated",
        reconciling: Some(ReconcilingReason::RollingBack),
        guards: GuardsPassingReason::TooManyFailures,
        cause: TransitionCause::Rollback,
        stuck: 7,
        ..SWITCHING
    };
    let rolled_back = Stand {
        message: "no peak for payment: 7 of 30 units failed, with 2 % tolerated; change the spec, or wait for its next window",
        reconciling: None,
        stalled: Some(StalledReason::RolledBack),
        is_complete: true,
        ..rolling_back
    };
    let invalid = Stand {
        ready: ReadyReason::Refused,
        message: "windows night and day of two members overlap from 2026-11-11T00:00:00Z to 2026-11-11T01:30:00Z: move one of \
                  them",
        stalled: Some(StalledReason::Refused(RefusalReason::InvalidSchedule)),
        accepted: AcceptedReason::Refused(RefusalReason::InvalidSchedule),
        schedule: ScheduleValidReason::WindowsOverlap,
        ..SETTLED
    };
    let deleting = Stand {
        ready: ReadyReason::Deleting,
        message: "each pod gets its traffic before the group goes",
        reconciling: Some(ReconcilingReason::Deleting),
        ..SWITCHING
    };
    let in_mode = |object: &Value, mode: &str| edited(object.clone(), "mode", json!(mode));
    let staged = |name, situation, object| Staged { name, situation, object };
    Ok(vec![
        staged("new", Situation::NotYetSeen, new.clone()),
        staged("running", Situation::Working, running.clone()),
        staged("step-hold", Situation::Working, at(running.clone(), step_hold, after(70))?),
        staged("donor-busy", Situation::Waiting, at(running.clone(), donor_busy, after(70))?),
        staged("suspended", Situation::AwaitsPerson, at(in_mode(&running, "Paused"), paused, after(70))?),
        staged("observing", Situation::AwaitsPerson, at(in_mode(&new, "Observe"), observing, after(5))?),
        staged("rolling-back", Situation::Working, at(running.clone(), rolling_back, after(90))?),
        staged("rolled-back", Situation::NeedsPerson, at(running.clone(), rolled_back, after(200))?),
        staged("invalid-schedule", Situation::NeedsPerson, at(new, invalid, after(5))?),
        staged("settling", Situation::Working, at(settled.clone(), settling, after(300))?),
        staged("settled-with-skips", Situation::Converged, at(running.clone(), with_skips, after(200))?),
        staged(
            "settled-and-paused",
            Situation::Closed,
            at(in_mode(&settled, "Paused"), SETTLED, after(300))?,
        ),
        staged("settled", Situation::Converged, settled),
        staged("deleting", Situation::Deleting, at(being_deleted(running), deleting, after(81))?),
    ])
}

/// The object with the status of where it stands.
fn at(mut object: Value, stand: Stand, now: Timestamp) -> Result<Value> {
    let generation = object["metadata"]["generation"].as_i64().unwrap_or_default();
    let earlier: TimeShareGroupStatus =
        serde_json::from_value(object["status"].clone()).context("read the status")?;
    let is_held = stand.held != HeldReason::Free;
    let in_flight = if stand.reconciling.is_some() && !stand.is_complete && !is_held { 20 } else { 0 };
    let (from, to) = match stand.cause {
        TransitionCause::Rollback => ("payment", "promo"),
        TransitionCause::Window | TransitionCause::Default | TransitionCause::Override => {
            ("promo", "payment")
        }
    };
    let transition = Transition {
        id: 42,
        from: Some(from.to_owned()),
        to: Some(to.to_owned()),
        cause: stand.cause,
        start_time: Time(after(1)),
        completion_time: stand.is_complete.then(|| Time(after(150))),
        step: 2,
        hold_until_time: (stand.held == HeldReason::StepHold).then(|| Time(after(140))),
        units: UnitCounts {
            total: UNITS,
            done: stand.done,
            in_flight,
            stuck: stand.stuck,
            ..UnitCounts::default()
        },
        nudges: 0,
    };
    let amounts = |cpu: &str, memory: &str| ResourceAmounts {
        cpu: Some(Quantity::new(cpu)),
        memory: Some(Quantity::new(memory)),
    };
    let status = TimeShareGroupStatus {
        observed_generation: generation,
        conditions: conditions(earlier.conditions, generation, stand, now),
        active_member: Some(stand.active.to_owned()),
        desired_member: Some("payment".to_owned()),
        next_transition: None,
        // One that only observes opens none.
        transition: (stand.ready != ReadyReason::Observing).then_some(transition),
        members: vec![member("payment", stand.done), member("promo", UNITS - stand.done)],
        union: Some(UnionBudget {
            nodes: 30,
            nodes_over_budget: 0,
            budget: amounts("330", "37500Mi"),
            sum_of_peaks: amounts("600", "37500Mi"),
            saved: amounts("270", "0"),
        }),
        ..TimeShareGroupStatus::default()
    };
    object["status"] = json!(status);
    Ok(object)
}

fn member(name: &str, at_peak: u32) -> MemberStatus {
    MemberStatus {
        name: name.to_owned(),
        pods: UNITS,
        at_peak,
        at_valley: UNITS - at_peak,
        traffic_on: at_peak,
        ..MemberStatus::default()
    }
}

fn conditions(mut all: Vec<Condition>, generation: i64, stand: Stand, now: Timestamp) -> Vec<Condition> {
    let writer =
        ConditionWriter { observed_generation: generation, now, message_max_bytes: MESSAGE_MAX_BYTES };
    remove_condition(&mut all, "Reconciling");
    writer.set(&mut all, stand.ready, stand.message);
    if let Some(reconciling) = stand.reconciling {
        writer.set(&mut all, reconciling, stand.message);
    }
    if let Some(stalled) = stand.stalled {
        writer.set(&mut all, stalled, stand.message);
    }
    writer.set(&mut all, stand.accepted, "");
    writer.set(&mut all, stand.schedule, "");
    writer.set(&mut all, PreflightPassedReason::AllUnits, "");
    writer.set(&mut all, CapacitySafeReason::WithinBudget, "");
    writer.set(&mut all, stand.guards, "");
    writer.set(&mut all, stand.held, "");
    writer.set(&mut all, AutoscalerConflictReason::None, "");
    all
}
