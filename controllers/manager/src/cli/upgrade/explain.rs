//! `springtide explain` of an InPlaceUpgrade: why it is where it is.

use super::{told, tools_image, verdict, world};
use crate::cli::read::{Cluster, Unread};
use crate::cli::text::{count, lines, unread};
use crate::cli::{API_VERSION, OutputArgs, RehearsalArgs, Verdict};
use anyhow::{Context, Result};
use jiff::Timestamp;
use serde::Serialize;
use springtide_in_place_upgrade::rehearsal::{Explanation, PlannedWrite, Rehearsal};
use springtide_plumbing::key::ObjectKey;
use std::collections::BTreeMap;

/// What the command says.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    api_version: &'static str,
    kind: &'static str,
    /// For when it was computed.
    time: Timestamp,
    #[serde(flatten)]
    explanation: Explanation,
    /// What could not be read, and what that means.
    not_seen: Vec<Unread>,
}

/// Reads, computes, prints. Writes nothing, and asks the API server for no dry run either: those that the manager has
/// made count as accepted, unless its status says otherwise.
///
/// # Errors
/// The API server cannot be asked, there is no such upgrade, or not even its namespace may be read.
pub(in crate::cli) async fn run(
    cluster: &Cluster,
    name: &str,
    args: &RehearsalArgs,
    output: &OutputArgs,
) -> Result<Verdict> {
    let seen = world::read(cluster, &cluster.namespace, tools_image(args)?).await?;
    let now = args.time();
    let key = ObjectKey::new(cluster.namespace.as_str(), name);
    let explanation = Rehearsal::new(seen.world)
        .explain(&key, now)
        .with_context(|| format!("there is no InPlaceUpgrade {name} in namespace {}", cluster.namespace))?;
    let verdict = verdict(&explanation);
    let answer = Answer {
        api_version: API_VERSION,
        kind: "UpgradeExplanation",
        time: now,
        explanation,
        not_seen: seen.unread,
    };
    print!("{}", output.render(&answer, || text(&answer.explanation, &answer.not_seen, now))?);
    Ok(verdict)
}

/// The explanation in words.
fn text(explanation: &Explanation, not_seen: &[Unread], now: Timestamp) -> String {
    let mut text = String::new();
    told::standing(&mut text, explanation, now);
    lines(&mut text, "Next", next(&explanation.next_writes));
    told::remedies(&mut text, explanation);
    told::basis(&mut text, explanation, now);
    unread(&mut text, not_seen);
    told::pods(&mut text, &explanation.pods, false);
    text
}

/// What the manager is about to write, objects of one kind together. That the object says so of itself is no news.
fn next(writes: &[PlannedWrite]) -> Vec<String> {
    let mut groups: BTreeMap<(String, &str), Vec<&str>> = BTreeMap::new();
    for write in writes.iter().filter(|write| write.kind != "InPlaceUpgrade") {
        groups.entry((write.resource(), write.verb.as_str())).or_default().push(&write.name);
    }
    let mut said: Vec<String> = groups
        .into_iter()
        .map(|((resource, verb), names)| {
            let first = names.first().copied().unwrap_or_default();
            let more = if names.len() > 1 { ", ..." } else { "" };
            let many = count(names.len(), "object");
            format!("the manager is about to {verb} {resource} of {many} ({first}{more})")
        })
        .collect();
    if !said.is_empty() {
        said.push(
            "if that does not happen within seconds, look whether a manager runs and may write".to_owned(),
        );
    }
    said
}

#[cfg(test)]
mod tests;
