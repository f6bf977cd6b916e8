//! `springtide status` of TimeShareGroups: who has the peak and when, how far a switch is, and what the nodes save.

use super::{known, timeline, told};
use crate::cli::read::{Cluster, failure};
use crate::cli::text::{instant, meaning, paragraph, span, table};
use crate::cli::{API_VERSION, OutputArgs, Verdict};
use anyhow::{Result, bail};
use jiff::Timestamp;
use serde::Serialize;
use springtide_crds::common::ConditionStatus;
use springtide_crds::reason::Reason;
use springtide_crds::time_share_group::{
    HeldReason, LastTransition, MemberStatus, NextTransition, Override, PreflightStatus, ReadyReason,
    StalledReason, StuckPod, Transition, UnionBudget,
};
use springtide_plumbing::projection::Projection;
use springtide_time_share_group::projections::group::GroupView;
use springtide_time_share_group::rehearsal::{Day, advice, day};
use std::fmt::Write as _;

/// What the command says.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    api_version: &'static str,
    kind: &'static str,
    items: Vec<Group>,
}

/// One group, by its status.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    namespace: String,
    name: String,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    active_member: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    desired_member: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_transition: Option<NextTransition>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transition: Option<Transition>,
    steps: u32,
    members: Vec<MemberStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    union: Option<UnionBudget>,
    #[serde(skip_serializing_if = "Option::is_none")]
    preflight: Option<PreflightStatus>,
    stuck: Vec<StuckPod>,
    last_transitions: Vec<LastTransition>,
    /// `spec.override`, as long as it has an effect.
    #[serde(rename = "override", skip_serializing_if = "Option::is_none")]
    forced: Option<Override>,
    /// The coming 24 hours.
    day: Day,
    created_time: Timestamp,
}

/// Reads and prints. Writes nothing.
///
/// # Errors
/// The API server cannot be asked, the caller may not read groups there, or there is no such group.
pub(in crate::cli) async fn run(
    cluster: &Cluster,
    wanted: Option<&str>,
    all_namespaces: bool,
    output: &OutputArgs,
) -> Result<Verdict> {
    let namespace = (!all_namespaces).then_some(cluster.namespace.as_str());
    let mut groups = cluster.list::<GroupView>(namespace).await.map_err(failure)?;
    groups.sort_by(|a, b| a.meta().key.cmp(&b.meta().key));
    let now = Timestamp::now();
    let mut items: Vec<Group> = groups.iter().map(|group| of(group, now)).collect();
    if let Some(name) = wanted {
        items.retain(|group| group.name == name);
        if items.is_empty() {
            bail!("there is no TimeShareGroup {name} in namespace {}", cluster.namespace);
        }
    }
    let verdict = items.iter().map(verdict).max().unwrap_or(Verdict::Fine);
    let answer = Answer { api_version: API_VERSION, kind: "TimeShareStatusList", items };
    let text = || match (wanted, answer.items.first()) {
        (Some(_), Some(group)) => detail(group, now),
        (Some(_) | None, _) => overview(&answer.items, all_namespaces, &cluster.namespace, now),
    };
    print!("{}", output.render(&answer, text)?);
    Ok(verdict)
}

fn of(group: &GroupView, now: Timestamp) -> Group {
    let (meta, status) = (group.meta(), &group.status);
    let ready = group.condition(ReadyReason::CONDITION);
    let stalled = group.reason::<StalledReason>();
    let held = group.reason::<HeldReason>().filter(|held| held.status() == ConditionStatus::True);
    let known = group.reason::<ReadyReason>().unwrap_or(ReadyReason::Pending);
    let wakes = match (stalled, held) {
        (Some(stalled), _) => advice::wakes_of_stall(stalled),
        (None, Some(held)) => advice::wakes_of_hold(held),
        (None, None) => advice::wakes_of(known),
    };
    let of_hold = status.transition.as_ref().and_then(|transition| transition.hold_until_time.as_ref());
    let of_hold = of_hold.filter(|_| stalled.is_none() && held == Some(HeldReason::StepHold));
    Group {
        namespace: meta.key.namespace.to_string(),
        name: meta.key.name.to_string(),
        ready: ready.map_or_else(|| known.as_str().to_owned(), |ready| ready.reason.clone()),
        message: ready.map(|ready| ready.message.clone()).unwrap_or_default(),
        stalled: stalled.map(|stalled| stalled.as_str().to_owned()).unwrap_or_default(),
        held: held.map(|held| held.as_str().to_owned()).unwrap_or_default(),
        is_current: status.observed_generation == meta.generation,
        wakes: wakes.to_owned(),
        until: of_hold.map(|until| until.0),
        active_member: status.active_member.clone(),
        desired_member: status.desired_member.clone(),
        next_transition: status.next_transition.clone(),
        transition: status.transition.clone(),
        steps: u32::try_from(group.spec.switch.steps.len()).unwrap_or(u32::MAX),
        members: status.members.clone(),
        union: status.union.clone(),
        preflight: status.preflight.clone(),
        stuck: status.stuck.clone(),
        last_transitions: status.last_transitions.clone(),
        forced: group.spec.override_.clone().filter(|forced| forced.is_in_force(now)),
        day: day(&group.spec, now),
        created_time: meta.creation_time,
    }
}

fn verdict(group: &Group) -> Verdict {
    match known(&group.ready) {
        _ if !group.stalled.is_empty() => Verdict::Stalled,
        Some(ready) if group.is_current && ready.status() == ConditionStatus::True => Verdict::Fine,
        Some(_) | None => Verdict::NotReady,
    }
}

/// All groups, one line each, and what those wait for that something keeps.
fn overview(groups: &[Group], all: bool, namespace: &str, now: Timestamp) -> String {
    if groups.is_empty() {
        let place = if all { "in the cluster".to_owned() } else { format!("in namespace {namespace}") };
        return format!("There is no TimeShareGroup {place}.\n");
    }
    let rows = groups.iter().map(|group| {
        let units = group.transition.as_ref().map(|transition| transition.units).unwrap_or_default();
        let saved = group.union.as_ref().and_then(|union| union.saved.cpu.as_ref());
        let next = group.next_transition.as_ref().map(|next| {
            let when = span(next.start_time.0.duration_since(now).as_secs());
            format!("{} in {when}", told::peak(next.member.as_deref()))
        });
        [
            full_name(group, all),
            told::peak(group.active_member.as_deref()).to_owned(),
            ready(group),
            next.unwrap_or_else(|| "-".to_owned()),
            format!("{}/{}", units.done, units.total),
            units.in_flight.to_string(),
            units.stuck.to_string(),
            saved.map_or("-", |saved| saved.as_str()).to_owned(),
            span(now.duration_since(group.created_time).as_secs()),
        ]
    });
    let head = ["GROUP", "ACTIVE", "READY", "NEXT", "UNITS", "IN FLIGHT", "STUCK", "SAVED CPU", "AGE"];
    let mut text = table(head, rows);
    let waiting: Vec<[String; 3]> = groups
        .iter()
        .filter(|group| !(group.stalled.is_empty() && group.held.is_empty()))
        .map(|group| {
            let reason = if group.stalled.is_empty() { &group.held } else { &group.stalled };
            [full_name(group, all), reason.clone(), wakes(group, now)]
        })
        .collect();
    if !waiting.is_empty() {
        let _ = writeln!(text);
        text.push_str(&table(["WAITING", "REASON", "GOES ON WHEN"], waiting));
    }
    text
}

/// One group, with what its reasons mean, its members and its day.
fn detail(group: &Group, now: Timestamp) -> String {
    let mut text = format!("TimeShareGroup {}/{}: {}\n", group.namespace, group.name, ready(group));
    if !group.message.is_empty() {
        let _ = writeln!(text, "  {}", group.message);
    }
    let _ = writeln!(text);
    let (active, desired) =
        (told::peak(group.active_member.as_deref()), told::peak(group.desired_member.as_deref()));
    let wished = if active == desired { String::new() } else { format!("; {desired} is to have it") };
    paragraph(&mut text, "Peak", &format!("{active}{wished}"));
    if let Some(forced) = &group.forced {
        let who = told::peak(forced.member.as_deref());
        let until = instant(forced.until_time.0, now);
        paragraph(&mut text, "Override", &format!("{who} until {until}: {}", forced.reason));
    }
    if !group.stalled.is_empty() {
        let meaning = meaning::<StalledReason>(&group.stalled);
        paragraph(&mut text, "Stalled", &format!("{}: {meaning}", group.stalled));
    }
    if !group.held.is_empty() {
        let meaning = meaning::<HeldReason>(&group.held);
        paragraph(&mut text, "Held", &format!("{}: {meaning}", group.held));
    }
    if !group.wakes.is_empty() {
        paragraph(&mut text, "Wakes", &wakes(group, now));
    }
    if let Some(transition) = &group.transition {
        paragraph(&mut text, "Switch", &told::switched(transition, group.steps, now));
    }
    if let Some(next) = &group.next_transition {
        paragraph(&mut text, "Next", &told::next_text(next, now));
    }
    if let Some(preflight) = &group.preflight {
        paragraph(&mut text, "Preflight", &told::preflight_text(preflight, now));
    }
    if let Some(union) = &group.union {
        paragraph(&mut text, "Nodes", &told::union_text(union));
    }
    told::last(&mut text, &group.last_transitions, now);
    if !group.is_current {
        let says = "the manager has not seen the object yet as it is now: does one run?";
        paragraph(&mut text, "Warning", says);
    }
    let names: Vec<&str> = group.members.iter().map(|member| member.name.as_str()).collect();
    timeline::text(&mut text, &group.day, &names, group.forced.as_ref());
    told::members(&mut text, &group.members, group.active_member.as_deref());
    told::stuck(&mut text, &group.stuck, now);
    text
}

fn wakes(group: &Group, now: Timestamp) -> String {
    let until = group.until.map(|until| format!(", at {}", instant(until, now)));
    format!("{}{}", group.wakes, until.unwrap_or_default())
}

fn full_name(group: &Group, with_namespace: bool) -> String {
    if with_namespace { format!("{}/{}", group.namespace, group.name) } else { group.name.clone() }
}

fn ready(group: &Group) -> String {
    if group.is_current { group.ready.clone() } else { format!("{} (old)", group.ready) }
}

#[cfg(test)]
mod tests;
