//! BatchQueues in every situation of the status contract, as the controller's own planner leaves them.

use std::sync::Arc;

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde_json::{Value, json};
use springtide_batch_job::admission::{PeakFigures, QueueFigures};
use springtide_batch_job::peaks::GroupProblem;
use springtide_batch_job::pod_groups::Service;
use springtide_batch_job::projections::queue::QueueView;
use springtide_batch_job::queues::rules::{Surroundings, problems};
use springtide_batch_job::queues::status::{Observed, plan};
use springtide_crds::Kind;
use springtide_crds::batch_queue::peaks::TimeShareGroupPeak;
use springtide_plumbing::plan::{Action, Write};

use super::staged::{Situation, Staged, after, being_deleted, edited, new};

/// All of them, each situation at least once.
pub(super) fn batch_queues(kind: &Kind) -> Result<Vec<Staged>> {
    let new = new(kind)?;
    let busy = QueueFigures { pending_jobs: 2, admitted_jobs: 3, running_pods: 3, ..QueueFigures::default() };
    let stale = QueueFigures { is_stale: true, ..busy.clone() };
    let running = planned(new.clone(), &busy, after(10))?;
    let capacity_stale = planned(running.clone(), &stale, after(120))?;
    let held = edited(running.clone(), "stopPolicy", json!("Hold"));
    let suspended = planned(held, &busy, after(20))?;
    let drained = edited(running.clone(), "stopPolicy", json!("Drain"));
    let draining = planned(drained, &busy, after(20))?;
    let tiers = json!([{"name": "BestEffort", "priorityClassName": "batch-low"}]);
    let invalid_tier = planned(edited(running.clone(), "tiers", tiers), &busy, after(20))?;
    let evening = |zone: &str| {
        json!([{
            "name": "evening", "window": {"start": "00:05", "end": "02:00", "timeZone": zone},
            "actions": [{"tier": "BestEffort", "action": "Drain"}],
        }])
    };
    let before_peak = planned(edited(running.clone(), "peakWindows", evening("UTC")), &busy, after(20))?;
    let peak = planned(before_peak.clone(), &QueueFigures::default(), after(400))?;
    let ramping = planned(peak.clone(), &busy, after(7300))?;
    let no_zone = edited(running.clone(), "peakWindows", evening("Mars/Olympus"));
    let invalid_window = planned(no_zone, &busy, after(20))?;
    let deleting = planned(being_deleted(running.clone()), &busy, after(81))?;
    let staged = |name, situation, object| Staged { name, situation, object };
    Ok(vec![
        staged("new", Situation::NotYetSeen, new),
        staged("running", Situation::Converged, running),
        staged("capacity-stale", Situation::Working, capacity_stale),
        staged("suspended", Situation::Closed, suspended),
        staged("draining", Situation::Closed, draining),
        staged("draining-before-a-peak", Situation::Converged, before_peak),
        staged("peak", Situation::Converged, peak),
        staged("ramping", Situation::Converged, ramping),
        staged("invalid-window", Situation::NeedsPerson, invalid_window),
        staged("invalid-tier", Situation::NeedsPerson, invalid_tier),
        staged("deleting", Situation::Deleting, deleting),
    ])
}

/// The object after a pass of the planner: with the status it writes, or its own where it writes none.
fn planned(mut object: Value, figures: &QueueFigures, now: Timestamp) -> Result<Value> {
    let queue: QueueView = serde_json::from_value(object.clone()).context("read the queue")?;
    let no_class = |_: &str| false;
    let no_group = |named: &TimeShareGroupPeak| Err(GroupProblem::NotFound(named.name.clone()));
    let around = Surroundings {
        sees_nodes: true,
        has_priority_class: &no_class,
        peaks_of_group: &no_group,
        beyond_maximum: None,
    };
    let peak = (!queue.peaks.is_empty()).then(|| PeakFigures {
        state: queue.peaks.at(now, queue.status.active_window.as_ref()),
        pods_left: u32::try_from(figures.running_pods).unwrap_or(u32::MAX),
        forecast: None,
        wake: None,
    });
    let observed = Observed {
        problems: problems(&queue, &around),
        archive: None,
        queue: Arc::new(queue),
        figures: QueueFigures { peak, ..figures.clone() },
        last_write: None,
        pod_groups: Service::default(),
        failing: None,
    };
    if let Some(Write { action: Action::Status { status, .. }, .. }) = plan(&observed, now).status {
        object["status"] = status;
    }
    Ok(object)
}
