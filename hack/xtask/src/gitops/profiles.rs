//! BatchTaskProfiles in the situations of the status contract, as the controller's own planner leaves them.

use std::sync::Arc;

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde_json::Value;
use springtide_batch_job::profiles::learned::{ContainerRun, Run};
use springtide_batch_job::profiles::plan::{Observed, plan};
use springtide_batch_job::profiles::status::UsageApi;
use springtide_batch_job::profiles::usage::Usage;
use springtide_crds::Kind;
use springtide_plumbing::key::ObjectKey;
use springtide_plumbing::plan::{Action, Write};

use super::staged::{Situation, Staged, after, being_deleted, new};

/// All of them. Nobody holds a profile.
pub(super) fn staged(kind: &Kind) -> Result<Vec<Staged>> {
    let new = new(kind)?;
    let fresh = planned(new.clone(), Vec::new(), after(1))?;
    let learning = planned(fresh.clone(), runs("main", 7), after(100))?;
    let learned = planned(fresh.clone(), runs("main", 40), after(100))?;
    let other_task = planned(learned.clone(), runs("app", 1), after(200))?;
    let deleting = planned(being_deleted(learned.clone()), Vec::new(), after(200))?;
    let staged = |name, situation, object| Staged { name, situation, object };
    Ok(vec![
        staged("new", Situation::NotYetSeen, new),
        staged("fresh", Situation::Working, fresh),
        staged("learning", Situation::Working, learning),
        staged("learned", Situation::Converged, learned),
        staged("another-task", Situation::NeedsPerson, other_task),
        staged("deleting", Situation::Deleting, deleting),
    ])
}

fn runs(container: &str, count: i64) -> Vec<Run> {
    let run = |number| Run {
        finished: after(number),
        seconds: Some(40.0),
        containers: vec![ContainerRun {
            name: container.into(),
            usage: Usage { cpu: Some(300), memory: Some(800 << 20) },
            killed_at: None,
        }],
    };
    (0..count).map(run).collect()
}

/// The object after a pass of the planner over these runs.
fn planned(mut object: Value, runs: Vec<Run>, now: Timestamp) -> Result<Value> {
    let profile = serde_json::from_value(object.clone()).context("read the profile")?;
    let observed = Observed {
        key: ObjectKey::new("default", "etl-daily"),
        stored: Some(Arc::new(profile)),
        is_used: true,
        refusal: None,
        runs,
        written: None,
        usage_api: UsageApi::Served,
    };
    if let Some(Write { action: Action::Status { status, .. }, .. }) = plan(&observed, now).status {
        object["status"] = status;
    }
    Ok(object)
}
