//! `springtide status` of InPlaceUpgrades: what runs, what holds it, and what lets it go on.

use super::told;
use crate::cli::read::{Cluster, failure};
use crate::cli::text::{instant, meaning, paragraph, span, table};
use crate::cli::{API_VERSION, OutputArgs, Verdict};
use anyhow::{Result, bail};
use jiff::Timestamp;
use serde::Serialize;
use springtide_crds::common::ConditionStatus;
use springtide_crds::in_place_upgrade::{
    HeldReason, LastRun, PlanCounts, PodCounts, PodFailure, PrePullCounts, ReadyReason, StalledReason,
    StepStatus,
};
use springtide_crds::reason::Reason;
use springtide_in_place_upgrade::projections::upgrade::UpgradeView;
use springtide_in_place_upgrade::rehearsal::advice;
use springtide_plumbing::projection::Projection;
use std::fmt::Write as _;

/// What the command says.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    api_version: &'static str,
    kind: &'static str,
    items: Vec<Upgrade>,
}

/// One upgrade, by its status.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Upgrade {
    namespace: String,
    name: String,
    /// Kind and name of the workload.
    target: String,
    /// Reason of its condition Ready.
    ready: String,
    /// The message of that condition.
    message: String,
    /// Reason of its condition Stalled; empty where nothing needs a person.
    stalled: String,
    /// Reason of its condition Held; empty where nothing holds.
    held: String,
    /// Whether the manager has seen the object as it is now.
    is_current: bool,
    /// What lets it go on; empty where nothing is left to do.
    wakes: String,
    /// When time alone does.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Timestamp>,
    target_hash: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<StepStatus>,
    counts: PodCounts,
    plan: PlanCounts,
    #[serde(skip_serializing_if = "Option::is_none")]
    pre_pull: Option<PrePullCounts>,
    failures: Vec<PodFailure>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_run: Option<LastRun>,
    created_time: Timestamp,
}

/// Reads and prints. Writes nothing.
///
/// # Errors
/// The API server cannot be asked, the caller may not read upgrades there, or there is no such upgrade.
pub(in crate::cli) async fn run(
    cluster: &Cluster,
    wanted: Option<&str>,
    all_namespaces: bool,
    output: &OutputArgs,
) -> Result<Verdict> {
    let namespace = (!all_namespaces).then_some(cluster.namespace.as_str());
    let mut upgrades = cluster.list::<UpgradeView>(namespace).await.map_err(failure)?;
    upgrades.sort_by(|a, b| a.meta().key.cmp(&b.meta().key));
    let mut items: Vec<Upgrade> = upgrades.iter().map(|upgrade| of(upgrade)).collect();
    if let Some(name) = wanted {
        items.retain(|upgrade| upgrade.name == name);
        if items.is_empty() {
            bail!("there is no InPlaceUpgrade {name} in namespace {}", cluster.namespace);
        }
    }
    let verdict = items.iter().map(verdict).max().unwrap_or(Verdict::Fine);
    let answer = Answer { api_version: API_VERSION, kind: "UpgradeStatusList", items };
    let now = Timestamp::now();
    let text = || match (wanted, answer.items.first()) {
        (Some(_), Some(upgrade)) => detail(upgrade, now),
        (Some(_) | None, _) => overview(&answer.items, all_namespaces, &cluster.namespace, now),
    };
    print!("{}", output.render(&answer, text)?);
    Ok(verdict)
}

fn of(upgrade: &UpgradeView) -> Upgrade {
    let (meta, status) = (upgrade.meta(), &upgrade.status);
    let ready = upgrade.condition(ReadyReason::CONDITION);
    let stalled = upgrade.reason::<StalledReason>();
    let held = upgrade.reason::<HeldReason>().filter(|held| held.status() == ConditionStatus::True);
    let known = upgrade.reason::<ReadyReason>().unwrap_or(ReadyReason::Pending);
    let wakes = match (stalled, held) {
        (Some(stalled), _) => advice::wakes_of_stall(stalled),
        (None, Some(held)) => advice::wakes_of_hold(held),
        (None, None) => advice::wakes_of(known),
    };
    let of_hold = status.step.as_ref().and_then(|step| step.hold_until_time.as_ref());
    let of_hold = of_hold.filter(|_| stalled.is_none() && held == Some(HeldReason::StepHold));
    let target = &upgrade.spec.target_ref;
    Upgrade {
        namespace: meta.key.namespace.to_string(),
        name: meta.key.name.to_string(),
        target: format!("{}/{}", target.kind.as_str(), target.name),
        ready: ready.map_or_else(|| known.as_str().to_owned(), |ready| ready.reason.clone()),
        message: ready.map(|ready| ready.message.clone()).unwrap_or_default(),
        stalled: stalled.map(|stalled| stalled.as_str().to_owned()).unwrap_or_default(),
        held: held.map(|held| held.as_str().to_owned()).unwrap_or_default(),
        is_current: status.observed_generation == meta.generation,
        wakes: wakes.to_owned(),
        until: of_hold.or(status.next_attempt_time.as_ref()).map(|time| time.0),
        target_hash: status.target_hash.clone(),
        step: status.step.clone(),
        counts: status.pods,
        plan: status.plan.clone(),
        pre_pull: status.pre_pull,
        failures: status.failures.clone(),
        last_run: status.last_run.clone(),
        created_time: meta.creation_time,
    }
}

fn verdict(upgrade: &Upgrade) -> Verdict {
    let ready = ReadyReason::all().into_iter().find(|known| known.as_str() == upgrade.ready);
    match ready {
        _ if !upgrade.stalled.is_empty() => Verdict::Stalled,
        Some(ready) if upgrade.is_current && ready.status() == ConditionStatus::True => Verdict::Fine,
        Some(_) | None => Verdict::NotReady,
    }
}

/// All upgrades, one line each, and what those wait for that something keeps.
fn overview(upgrades: &[Upgrade], all: bool, namespace: &str, now: Timestamp) -> String {
    if upgrades.is_empty() {
        let place = if all { "in the cluster".to_owned() } else { format!("in namespace {namespace}") };
        return format!("There is no InPlaceUpgrade {place}.\n");
    }
    let rows = upgrades.iter().map(|upgrade| {
        let counts = &upgrade.counts;
        [
            full_name(upgrade, all),
            upgrade.target.clone(),
            ready(upgrade),
            upgrade
                .step
                .as_ref()
                .map_or_else(|| "-".to_owned(), |step| format!("{}/{}", step.index, step.of)),
            format!("{}/{}", counts.updated_ready, counts.total),
            counts.in_flight.to_string(),
            counts.failed.to_string(),
            counts.blocked.to_string(),
            span(now.duration_since(upgrade.created_time).as_secs()),
        ]
    });
    let head = ["UPGRADE", "TARGET", "READY", "STEP", "PODS", "IN FLIGHT", "FAILED", "BLOCKED", "AGE"];
    let mut text = table(head, rows);
    let waiting: Vec<[String; 3]> = upgrades
        .iter()
        .filter(|upgrade| !(upgrade.stalled.is_empty() && upgrade.held.is_empty()))
        .map(|upgrade| {
            let reason = if upgrade.stalled.is_empty() { &upgrade.held } else { &upgrade.stalled };
            [full_name(upgrade, all), reason.clone(), wakes(upgrade, now)]
        })
        .collect();
    if !waiting.is_empty() {
        let _ = writeln!(text);
        text.push_str(&table(["WAITING", "REASON", "GOES ON WHEN"], waiting));
    }
    text
}

/// One upgrade, with what its reasons mean and the pods that failed.
fn detail(upgrade: &Upgrade, now: Timestamp) -> String {
    let mut text = format!("InPlaceUpgrade {}/{}: {}\n", upgrade.namespace, upgrade.name, ready(upgrade));
    if !upgrade.message.is_empty() {
        let _ = writeln!(text, "  {}", upgrade.message);
    }
    let _ = writeln!(text);
    let wish = match upgrade.target_hash.as_str() {
        "" => String::new(),
        hash => format!(", wish {hash}"),
    };
    paragraph(&mut text, "Target", &format!("{}{wish}", upgrade.target));
    if !upgrade.stalled.is_empty() {
        let meaning = meaning::<StalledReason>(&upgrade.stalled);
        paragraph(&mut text, "Stalled", &format!("{}: {meaning}", upgrade.stalled));
    }
    if !upgrade.held.is_empty() {
        let meaning = meaning::<HeldReason>(&upgrade.held);
        paragraph(&mut text, "Held", &format!("{}: {meaning}", upgrade.held));
    }
    if !upgrade.wakes.is_empty() {
        paragraph(&mut text, "Wakes", &wakes(upgrade, now));
    }
    if let Some(step) = &upgrade.step {
        paragraph(&mut text, "Step", &told::stepped(step, upgrade.counts.total, now));
    }
    paragraph(&mut text, "Pods", &told::counted(&upgrade.counts));
    paragraph(&mut text, "Left", &told::left(&upgrade.plan));
    if let Some(pre_pull) = &upgrade.pre_pull {
        paragraph(&mut text, "Images", &told::pulled(pre_pull));
    }
    if let Some(run) = &upgrade.last_run {
        paragraph(&mut text, "Last run", &told::ended(run, now));
    }
    if !upgrade.is_current {
        let says = "the manager has not seen the object yet as it is now: does one run?";
        paragraph(&mut text, "Warning", says);
    }
    if !upgrade.failures.is_empty() {
        let rows = upgrade.failures.iter().map(|failure| {
            let since = span(now.duration_since(failure.since_time.0).as_secs());
            [failure.pod.clone(), failure.node.clone(), failure.reason.clone(), since]
        });
        let _ = writeln!(text);
        text.push_str(&table(["FAILED POD", "NODE", "REASON", "SINCE"], rows));
    }
    text
}

fn wakes(upgrade: &Upgrade, now: Timestamp) -> String {
    let until = upgrade.until.map(|until| format!(", at {}", instant(until, now)));
    format!("{}{}", upgrade.wakes, until.unwrap_or_default())
}

fn full_name(upgrade: &Upgrade, with_namespace: bool) -> String {
    if with_namespace { format!("{}/{}", upgrade.namespace, upgrade.name) } else { upgrade.name.clone() }
}

fn ready(upgrade: &Upgrade) -> String {
    if upgrade.is_current { upgrade.ready.clone() } else { format!("{} (old)", upgrade.ready) }
}

#[cfg(test)]
mod tests;
