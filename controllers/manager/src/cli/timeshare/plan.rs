//! `springtide plan` of TimeShareGroups: each unit of the switch that is open or comes next, and every write.

use super::{told, world};
use crate::cli::plan::Answer;
use crate::cli::read::Cluster;
use crate::cli::text::{basis, count, lines};
use crate::cli::writes::{Check, now_written, write_line};
use anyhow::{Context, Result};
use jiff::Timestamp;
use serde::Serialize;
use springtide_plumbing::controller::Reconciler;
use springtide_plumbing::key::ObjectKey;
use springtide_time_share_group::TimeShareGroupReconciler;
use springtide_time_share_group::projections::group::GroupView;
use springtide_time_share_group::rehearsal::{Explanation, PlannedWrite, Rehearsal, UnitLine};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

/// Dry runs of which is told one by one, beside those that were refused.
const CHECKS_TOLD: usize = 5;

/// What is planned for one group.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct SwitchPlan {
    #[serde(flatten)]
    pub(in crate::cli) explanation: Explanation,
    /// What the API server was asked by dry runs, and what it said.
    pub(in crate::cli) checks: Vec<Check>,
}

/// Adds the plans of these groups of a namespace, those of a manifest in the place of what is there.
///
/// # Errors
/// There is no such group, the API server cannot be asked, or not even the namespace may be read.
pub(in crate::cli) async fn add(
    answer: &mut Answer,
    cluster: &Cluster,
    namespace: &str,
    changed: Vec<Arc<GroupView>>,
    keys: &[ObjectKey],
) -> Result<()> {
    let seen = world::read(cluster, namespace, changed).await?;
    answer.sees_nodes &= seen.world.nodes.is_some();
    let mut rehearsal = Rehearsal::new(seen.world);
    for key in keys {
        let questions = rehearsal.questions(key, answer.time);
        let results = cluster.ask_all(TimeShareGroupReconciler::NAME, questions).await;
        let checks = results.iter().map(Check::of).collect();
        rehearsal.answer(key, results, answer.time);
        let explanation = rehearsal.plan(key, answer.time).with_context(|| {
            format!("there is no TimeShareGroup {} in namespace {}", key.name, key.namespace)
        })?;
        answer.switches.push(SwitchPlan { explanation, checks });
    }
    answer.not_seen.extend(seen.unread);
    Ok(())
}

/// The plan in words.
pub(in crate::cli) fn text(text: &mut String, plan: &SwitchPlan, now: Timestamp) {
    let SwitchPlan { explanation, checks } = plan;
    told::standing(text, explanation, now);
    lines(text, "Dry runs", told_checks(checks));
    told::remedies(text, explanation);
    basis(text, explanation.basis, explanation.reported.as_ref(), now);
    told::members(text, &explanation.members, explanation.active_member.as_deref());
    told::units(text, &explanation.units, true);
    for (first, more) in alike(&explanation.units) {
        let others = match more {
            0 => String::new(),
            more => format!(", and alike in {}", count(more, "other unit")),
        };
        let pods: Vec<&str> = first.shrinking.iter().chain(&first.growing).map(String::as_str).collect();
        let pods = pods.join(", ");
        let _ = writeln!(
            text,
            "\nWrites to the unit of {pods} on {}, as it comes to its turn{others}:",
            first.node
        );
        for write in &first.writes {
            write_line(text, write);
        }
    }
    now_written(text, &explanation.next_writes);
}

/// What was refused or not asked one by one, and the others as far as there is room.
fn told_checks(checks: &[Check]) -> Vec<String> {
    let (accepted, others): (Vec<&Check>, Vec<&Check>) =
        checks.iter().partition(|check| check.verdict == "Accepted");
    let mut said: Vec<String> = others.iter().map(|check| check.text()).collect();
    said.extend(accepted.iter().take(CHECKS_TOLD).map(|check| check.text()));
    if accepted.len() > CHECKS_TOLD {
        said.push(format!("{} more would be taken", accepted.len() - CHECKS_TOLD));
    }
    said
}

/// The first unit of each way, by what is written on it, and how many others have the same.
fn alike(units: &[UnitLine]) -> Vec<(&UnitLine, usize)> {
    let mut found: Vec<(&UnitLine, usize)> = Vec::new();
    let mut places: BTreeMap<Vec<String>, usize> = BTreeMap::new();
    for unit in units.iter().filter(|unit| !unit.writes.is_empty()) {
        let resources: Vec<String> = unit.writes.iter().map(PlannedWrite::resource).collect();
        match places.get(&resources).and_then(|place| found.get_mut(*place)) {
            Some((_, more)) => *more += 1,
            None => {
                places.insert(resources, found.len());
                found.push((unit, 0));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests;
