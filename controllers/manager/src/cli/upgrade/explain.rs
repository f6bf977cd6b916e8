//! `springtide explain` of an InPlaceUpgrade: why it is where it is.

use super::{told, tools_image, verdict, world};
use crate::cli::read::{Cluster, Unread};
use crate::cli::text::{basis, lines, unread};
use crate::cli::writes::next;
use crate::cli::{API_VERSION, OutputArgs, RehearsalArgs, Verdict};
use anyhow::{Context, Result};
use jiff::Timestamp;
use serde::Serialize;
use springtide_in_place_upgrade::rehearsal::{Explanation, Rehearsal};
use springtide_plumbing::key::ObjectKey;

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
    lines(&mut text, "Next", next(&explanation.next_writes, "InPlaceUpgrade"));
    told::remedies(&mut text, explanation);
    basis(&mut text, explanation.basis, explanation.reported.as_ref(), now);
    unread(&mut text, not_seen);
    told::pods(&mut text, &explanation.pods, false);
    text
}

#[cfg(test)]
mod tests;
