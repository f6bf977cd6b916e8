//! `springtide plan` of InPlaceUpgrades: the verdict on each pod, and every write.

use super::{told, tools_image, world};
use crate::cli::RehearsalArgs;
use crate::cli::plan::Answer;
use crate::cli::read::Cluster;
use crate::cli::text::{basis, count, lines};
use crate::cli::writes::{Check, now_written, write_line};
use anyhow::{Context, Result};
use jiff::Timestamp;
use serde::Serialize;
use springtide_in_place_upgrade::InPlaceUpgradeReconciler;
use springtide_in_place_upgrade::projections::upgrade::UpgradeView;
use springtide_in_place_upgrade::rehearsal::{Explanation, PlannedWrite, PodLine, Rehearsal};
use springtide_plumbing::controller::Reconciler;
use springtide_plumbing::key::ObjectKey;
use springtide_plumbing::projection::Projection;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

/// Times that the API server is asked: what it answers may lead to another question.
const ROUNDS: usize = 4;

/// What is planned for one upgrade.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct UpgradePlan {
    #[serde(flatten)]
    pub(in crate::cli) explanation: Explanation,
    /// What the API server was asked by dry runs, and what it said.
    pub(in crate::cli) checks: Vec<Check>,
}

/// Adds the plans of these upgrades of a namespace, those of a manifest in the place of what is there.
///
/// # Errors
/// There is no such upgrade, the API server cannot be asked, or not even the namespace may be read.
pub(in crate::cli) async fn add(
    answer: &mut Answer,
    cluster: &Cluster,
    args: &RehearsalArgs,
    namespace: &str,
    changed: Vec<Arc<UpgradeView>>,
    keys: &[ObjectKey],
) -> Result<()> {
    let mut seen = world::read(cluster, namespace, tools_image(args)?).await?;
    answer.sees_nodes &= seen.world.nodes.is_some();
    let upgrades = &mut seen.world.upgrades;
    upgrades.retain(|upgrade| changed.iter().all(|new| new.meta().key != upgrade.meta().key));
    upgrades.extend(changed);
    let mut rehearsal = Rehearsal::new(seen.world);
    for key in keys {
        let mut checks = Vec::new();
        for _ in 0..ROUNDS {
            let questions = rehearsal.questions(key, answer.time);
            if questions.is_empty() {
                break;
            }
            let results = cluster.ask_all(InPlaceUpgradeReconciler::NAME, questions).await;
            checks.extend(results.iter().map(Check::of));
            rehearsal.answer(key, results, answer.time);
        }
        let explanation = rehearsal.plan(key, answer.time).with_context(|| {
            format!("there is no InPlaceUpgrade {} in namespace {}", key.name, key.namespace)
        })?;
        answer.upgrades.push(UpgradePlan { explanation, checks });
    }
    answer.not_seen.extend(seen.unread);
    Ok(())
}

/// The plan in words.
pub(in crate::cli) fn text(text: &mut String, plan: &UpgradePlan, now: Timestamp) {
    let UpgradePlan { explanation, checks } = plan;
    told::standing(text, explanation, now);
    lines(text, "Dry runs", checks.iter().map(Check::text));
    told::remedies(text, explanation);
    basis(text, explanation.basis, explanation.reported.as_ref(), now);
    told::pods(text, &explanation.pods, true);
    for (first, more) in alike(&explanation.pods) {
        let others = match more {
            0 => String::new(),
            more => format!(", and alike to {}", count(more, "other pod")),
        };
        let _ = writeln!(text, "\nWrites to pod {}, as it comes to its turn{others}:", first.name);
        for write in &first.writes {
            write_line(text, write);
        }
    }
    now_written(text, &explanation.next_writes);
}

/// The first pod of each way, by what is written on it, and how many others have the same.
fn alike(pods: &[PodLine]) -> Vec<(&PodLine, usize)> {
    let mut found: Vec<(&PodLine, usize)> = Vec::new();
    let mut places: BTreeMap<(&str, Vec<String>, &[String]), usize> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| !pod.writes.is_empty()) {
        let resources = pod.writes.iter().map(PlannedWrite::resource).collect();
        let place = *places
            .entry((pod.verdict.as_str(), resources, pod.differences.as_slice()))
            .or_insert_with(|| {
                found.push((pod, 0));
                found.len()
            });
        // The first one of its way is counted as itself.
        if let Some((first, more)) = found.get_mut(place - 1)
            && first.name != pod.name
        {
            *more += 1;
        }
    }
    found
}

#[cfg(test)]
mod tests;
