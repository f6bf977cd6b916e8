//! InPlaceUpgrades in the situations of the status contract.
//!
//! Their statuses are written down here, from the reasons of the API.

use anyhow::{Context, Result};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};
use springtide_crds::Kind;
use springtide_crds::common::{Condition, ConditionWriter};
use springtide_crds::in_place_upgrade::{
    AcceptedReason, DriftedReason, FinalizedReason, HealthyReason, HeldReason, InPlaceUpgradeStatus, LastRun,
    LockedReason, MESSAGE_MAX_BYTES, PlanCounts, PodCounts, PrePulledReason, Previous, ReadyReason,
    ReconcilingReason, RunResult, StalledReason, StepStatus,
};

use super::staged::{Situation, Staged, after, being_deleted, edited, new};

/// Pods of the workload.
const TOTAL: u32 = 300;

/// Where an upgrade stands: what is not said goes well.
#[derive(Clone, Copy)]
struct Stand {
    ready: ReadyReason,
    /// Message of Ready, of Reconciling and of Stalled.
    message: &'static str,
    stalled: Option<StalledReason>,
    locked: LockedReason,
    held: HeldReason,
    healthy: HealthyReason,
    finalized: FinalizedReason,
    /// Pods that are as the wish has it.
    updated: u32,
    /// Number of the step; 0 without a run.
    step: u32,
    result: Option<RunResult>,
}

const RUNNING: Stand = Stand {
    ready: ReadyReason::Upgrading,
    message: "4 of 30 pods of step 2 are changed, 3 are changing",
    stalled: None,
    locked: LockedReason::Paused,
    held: HeldReason::Free,
    healthy: HealthyReason::GatesPassing,
    finalized: FinalizedReason::WaitingForPods,
    updated: 4,
    step: 2,
    result: None,
};

const DONE: Stand = Stand {
    ready: ReadyReason::UpToDate,
    message: "all 300 pods are as the template has it",
    finalized: FinalizedReason::NativeControllerAgrees,
    updated: TOTAL,
    step: 0,
    result: Some(RunResult::Succeeded),
    ..RUNNING
};

/// All of them, each situation at least once.
pub(super) fn staged(kind: &Kind) -> Result<Vec<Staged>> {
    let new = new(kind)?;
    let running = at(new.clone(), RUNNING, after(60))?;
    let done = at(new.clone(), DONE, after(600))?;
    let approval = Stand {
        ready: ReadyReason::Held,
        message: "step 1 is done; set spec.approval to targetHash 7c9f21ab04de and throughStep 1 to go on",
        held: HeldReason::ApprovalRequired,
        updated: 1,
        step: 1,
        ..RUNNING
    };
    let freeze = Stand {
        ready: ReadyReason::Held,
        message: "freeze window day lasts until 2026-11-11T12:00:00Z",
        held: HeldReason::FreezeWindow,
        ..RUNNING
    };
    let paused = Stand {
        ready: ReadyReason::Paused,
        message: "spec.mode is Paused; set it to Apply to go on",
        held: HeldReason::Paused,
        ..RUNNING
    };
    let plan_only = Stand {
        ready: ReadyReason::PlanOnly,
        message: "300 pods would be changed in place; set spec.mode to Apply to have it done",
        updated: 0,
        step: 0,
        ..RUNNING
    };
    let rolling_back = Stand {
        ready: ReadyReason::RollingBack,
        message: "7 pods failed, more than 2% of 300; 20 pods are still to become again what they were",
        healthy: HealthyReason::TooManyFailures,
        ..RUNNING
    };
    let rolled_back = Stand {
        ready: ReadyReason::RolledBack,
        message: "7 pods failed, more than 2% of 300; change the wish, or raise spec.attempt to try again",
        stalled: Some(StalledReason::RolledBack),
        updated: 0,
        step: 0,
        result: Some(RunResult::RolledBack),
        ..rolling_back
    };
    let not_locked = Stand {
        ready: ReadyReason::Blocked,
        message: "Deployment web is not paused: set its spec.paused to true",
        stalled: Some(StalledReason::NotLocked),
        locked: LockedReason::NotPaused,
        updated: 0,
        step: 0,
        ..RUNNING
    };
    let hold = |object: &Value| edited(object.clone(), "mode", json!("Paused"));
    let deleting =
        Stand { ready: ReadyReason::Deleting, message: "3 pods are getting their traffic back", ..RUNNING };
    let staged = |name, situation, object| Staged { name, situation, object };
    Ok(vec![
        staged("new", Situation::NotYetSeen, new.clone()),
        staged("running", Situation::Working, running.clone()),
        staged("approval-required", Situation::AwaitsPerson, at(new.clone(), approval, after(40))?),
        staged("freeze-window", Situation::Waiting, at(running.clone(), freeze, after(70))?),
        staged("suspended", Situation::AwaitsPerson, at(hold(&running), paused, after(70))?),
        staged(
            "plan-only",
            Situation::AwaitsPerson,
            at(edited(new.clone(), "mode", json!("Plan")), plan_only, after(5))?,
        ),
        staged("rolling-back", Situation::Working, at(running.clone(), rolling_back, after(90))?),
        staged("rolled-back", Situation::NeedsPerson, at(running.clone(), rolled_back, after(200))?),
        staged("not-locked", Situation::NeedsPerson, at(new, not_locked, after(5))?),
        staged("up-to-date-and-paused", Situation::Closed, at(hold(&done), DONE, after(700))?),
        staged("up-to-date", Situation::Converged, done),
        staged("deleting", Situation::Deleting, at(being_deleted(running), deleting, after(81))?),
    ])
}

/// The object with the status of where it stands.
fn at(mut object: Value, stand: Stand, now: Timestamp) -> Result<Value> {
    let generation = object["metadata"]["generation"].as_i64().unwrap_or_default();
    let earlier: InPlaceUpgradeStatus =
        serde_json::from_value(object["status"].clone()).context("read the status")?;
    let started = Time(after(1));
    let target_hash = "7c9f21ab04de".to_owned();
    let status = InPlaceUpgradeStatus {
        observed_generation: generation,
        conditions: conditions(earlier.conditions, generation, stand, now),
        target: "Deployment/web".to_owned(),
        target_hash: target_hash.clone(),
        start_time: (stand.step > 0).then(|| started.clone()),
        step: (stand.step > 0).then(|| StepStatus {
            index: stand.step,
            of: 3,
            pods: if stand.step == 1 { 1 } else { TOTAL / 10 },
            start_time: started.clone(),
            hold_until_time: None,
        }),
        pods: PodCounts {
            total: TOTAL,
            updated: stand.updated,
            updated_ready: stand.updated,
            ..PodCounts::default()
        },
        plan: PlanCounts {
            up_to_date: stand.updated,
            in_place: TOTAL - stand.updated,
            ..PlanCounts::default()
        },
        pre_pull: None,
        previous: (stand.step > 0)
            .then(|| Previous { revision: "web-6d4c8f9b7d".to_owned(), ..Previous::default() }),
        failures: Vec::new(),
        last_run: stand.result.map(|result| LastRun {
            target_hash,
            start_time: Some(started),
            completion_time: Time(now),
            pods: stand.updated,
            result,
        }),
        next_attempt_time: None,
    };
    object["status"] = json!(status);
    Ok(object)
}

fn conditions(mut all: Vec<Condition>, generation: i64, stand: Stand, now: Timestamp) -> Vec<Condition> {
    let writer =
        ConditionWriter { observed_generation: generation, now, message_max_bytes: MESSAGE_MAX_BYTES };
    springtide_crds::common::remove_condition(&mut all, "Reconciling");
    writer.set(&mut all, stand.ready, stand.message);
    if let Some(reconciling) = ReconcilingReason::of(stand.ready) {
        writer.set(&mut all, reconciling, stand.message);
    }
    if let Some(stalled) = stand.stalled {
        writer.set(&mut all, stalled, stand.message);
    }
    writer.set(&mut all, AcceptedReason::Accepted, "");
    writer.set(&mut all, stand.locked, "");
    let has_run = stand.step > 0 || stand.result.is_some();
    let pulled = if has_run { PrePulledReason::AllNodes } else { PrePulledReason::NotObserved };
    writer.set(&mut all, pulled, "");
    writer.set(&mut all, stand.held, "");
    writer.set(&mut all, stand.healthy, "");
    writer.set(&mut all, stand.finalized, "");
    writer.set(&mut all, DriftedReason::NoDrift, "");
    all
}
