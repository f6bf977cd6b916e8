//! Finds out why an object is where it is.

use super::advice::{self, Source};
use super::explanation::{Explanation, PodLine};
use super::way::way;
use super::{Basis, ConditionLine, Passed, PlannedWrite, Rehearsal, Reported, Said};
use crate::census::Member;
use crate::differences::Differences;
use crate::machine::{Failure, PodState};
use crate::patch;
use crate::plan::accept::accept;
use crate::plan::situation::{Course, Situation};
use crate::projections::upgrade::UpgradeView;
use crate::verdict::Verdict;
use crate::wish::Wish;
use jiff::Timestamp;
use springtide_crds::common::{ConditionStatus, condition, holds};
use springtide_crds::in_place_upgrade::{
    AcceptedReason, DriftedReason, FinalizedReason, HealthyReason, HeldReason, InPlaceUpgradeStatus,
    LockedReason, PrePulledReason, ReadyReason, StalledReason,
};
use springtide_crds::reason::{Reason, said};
use springtide_plumbing::key::ObjectKey;
use springtide_plumbing::plan::Action;
use springtide_plumbing::projection::Projection;
use std::sync::Arc;

/// Pods of an explanation that are told of one by one.
const PODS_TOLD: usize = 20;
/// The conditions beside Ready, Reconciling, Stalled and Held, in the order of a run.
const OTHER_CONDITIONS: [&str; 6] = [
    AcceptedReason::CONDITION,
    LockedReason::CONDITION,
    PrePulledReason::CONDITION,
    HealthyReason::CONDITION,
    FinalizedReason::CONDITION,
    DriftedReason::CONDITION,
];

impl Rehearsal {
    /// Why an object is where it is; `None` where there is none of this name.
    pub fn explain(&mut self, key: &ObjectKey, now: Timestamp) -> Option<Explanation> {
        let passed = self.run(key, now)?;
        let (mut explanation, mut pods) = self.told(&passed, now, |_, _| Vec::new())?;
        pods.sort_by_key(interest);
        pods.truncate(PODS_TOLD);
        explanation.pods = pods;
        Some(explanation)
    }

    /// The same with all pods, and all writes to each of them on its way to the wish.
    pub fn plan(&mut self, key: &ObjectKey, now: Timestamp) -> Option<Explanation> {
        let passed = self.run(key, now)?;
        let writes = |member: &Member, goal: &Wish| {
            let written = way(member)
                .into_iter()
                .filter_map(|what| patch::write(&member.pod, &member.judgement, goal, what, now));
            written.map(|write| PlannedWrite::of(&write)).collect::<Vec<_>>()
        };
        let (mut explanation, pods) = self.told(&passed, now, writes)?;
        explanation.pods = pods;
        Some(explanation)
    }

    /// What is told of an object, and of each of its pods with these writes.
    fn told(
        &self,
        passed: &Passed,
        now: Timestamp,
        writes: impl Fn(&Member, &Wish) -> Vec<PlannedWrite>,
    ) -> Option<(Explanation, Vec<PodLine>)> {
        let Passed { observed, told, writes: planned } = passed;
        // What was planned has changed it in memory.
        let planned_for = &observed.upgrade;
        let stored = self.reconciler.stores.upgrades.get(&planned_for.meta().key)?;
        let computed = match told.status.as_ref().map(|write| &write.action) {
            Some(Action::Status { status, .. }) => serde_json::from_value(status.clone()).ok()?,
            Some(
                Action::Create { .. }
                | Action::Delete { .. }
                | Action::Patch { .. }
                | Action::Apply { .. }
                | Action::Evict { .. }
                | Action::DryRun { .. },
            )
            | None => planned_for.status.clone(),
        };
        let is_deleting = stored.meta().is_deleting();
        let accepted = accept(observed, now).ok().filter(|_| !is_deleting);
        let situation = accepted.map(|(target, freezes)| Situation::new(observed, target, freezes, now));
        let pods = situation.as_ref().map(|situation| {
            let line = |member: &Member| pod_line(member, &situation.goal, writes(member, &situation.goal));
            situation.members.iter().map(line).collect()
        });
        let is_reported = self.is_known_to_the_manager(&stored, &computed);
        let status = if is_reported { &stored.status } else { &computed };
        let mut explanation = of_status(&stored, status);
        if is_reported {
            explanation.basis = Basis::Reported;
            explanation.until = status.next_attempt_time.as_ref().map(|time| time.0);
        } else {
            explanation.until = told.wake.filter(|wake| *wake > now);
            explanation.next_writes = planned.iter().map(PlannedWrite::of).collect();
        }
        if is_deleting {
            let message = told.why.first().map(|why| why.message.clone()).unwrap_or_default();
            explanation.summary = Said::of(ReadyReason::Deleting, &message);
            explanation.wakes = advice::wakes_of(ReadyReason::Deleting).to_owned();
        }
        if let Some(situation) = &situation {
            explanation.target_hash = situation.wish.hash.as_str().to_owned();
            explanation.is_rollback = situation.course == Course::Back;
        }
        Some((explanation, pods.unwrap_or_default()))
    }

    /// Whether the stored status says something of the object as it is now that no snapshot shows.
    fn is_known_to_the_manager(&self, stored: &UpgradeView, computed: &InPlaceUpgradeStatus) -> bool {
        let told = &stored.status;
        let is_current =
            told.observed_generation == stored.meta().generation && told.target_hash == computed.target_hash;
        if !is_current || holds(&computed.conditions, StalledReason::CONDITION) {
            return false;
        }
        let is_unknown = |source: Source| match source {
            Source::Cluster => false,
            Source::DryRuns => self.has_assumed || !self.sees_images,
            Source::Images => !self.sees_images,
            Source::Manager => true,
        };
        if let Some(stalled) = stored.reason::<StalledReason>() {
            return is_unknown(advice::source(stalled));
        }
        let waits_for_metric = stored.reason::<HeldReason>() == Some(HeldReason::NoMetricData)
            && !holds(&computed.conditions, HeldReason::CONDITION)
            && !stored.spec.health.metrics.is_empty();
        let waits_for_images =
            !self.sees_images && stored.reason::<ReadyReason>() == Some(ReadyReason::PrePulling);
        let is_denied =
            self.has_assumed && stored.reason::<HealthyReason>() == Some(HealthyReason::AdmissionDenied);
        waits_for_metric || waits_for_images || is_denied
    }
}

/// What a status says of its object.
fn of_status(upgrade: &UpgradeView, status: &InPlaceUpgradeStatus) -> Explanation {
    let meta = upgrade.meta();
    let (namespace, name) = (meta.key.namespace.to_string(), meta.key.name.to_string());
    let ready = said::<ReadyReason>(&status.conditions);
    let ready = ready.unwrap_or((ReadyReason::Pending, ""));
    let stalled = said::<StalledReason>(&status.conditions);
    let held = said::<HeldReason>(&status.conditions);
    let held = held.filter(|(reason, _)| reason.status() == ConditionStatus::True);
    let (wakes, remedies) = match (&stalled, &held) {
        (Some((stalled, _)), _) => (advice::wakes_of_stall(*stalled), advice::remedies_of_stall(*stalled)),
        (None, Some((held, _))) => (advice::wakes_of_hold(*held), advice::remedies_of_hold(*held)),
        (None, None) => (advice::wakes_of(ready.0), advice::remedies_of(ready.0)),
    };
    let mut remedies: Vec<String> = remedies.iter().map(|remedy| (*remedy).to_owned()).collect();
    if let (None, Some((HeldReason::ApprovalRequired, _)), Some(step)) = (&stalled, &held, &status.step) {
        let approval = format!(r#"{{"targetHash":"{}","throughStep":{}}}"#, status.target_hash, step.index);
        remedies.push(format!(
            r#"approve it: kubectl patch ipu {name} -n {namespace} --type merge -p '{{"spec":{{"approval":{approval}}}}}'"#
        ));
    }
    let target = &upgrade.spec.target_ref;
    Explanation {
        namespace,
        name,
        generation: meta.generation,
        target: format!("{}/{}", target.kind.as_str(), target.name),
        basis: Basis::Computed,
        summary: Said::of(ready.0, ready.1),
        stalled: stalled.map(|(reason, message)| Said::of(reason, message)),
        held: held.map(|(reason, message)| Said::of(reason, message)),
        wakes: wakes.to_owned(),
        until: None,
        remedies,
        target_hash: status.target_hash.clone(),
        is_rollback: false,
        step: status.step.clone(),
        counts: status.pods,
        plan: status.plan.clone(),
        pre_pull: status.pre_pull,
        conditions: OTHER_CONDITIONS
            .into_iter()
            .filter_map(|type_| condition(&status.conditions, type_).map(ConditionLine::of))
            .collect(),
        pods: Vec::new(),
        failures: status.failures.clone(),
        last_run: status.last_run.clone(),
        next_writes: Vec::new(),
        reported: reported(upgrade),
    }
}

fn reported(upgrade: &UpgradeView) -> Option<Reported> {
    Some(Reported::of(upgrade.condition(ReadyReason::CONDITION)?, upgrade.meta().generation))
}

/// What is told first: what went wrong, what is on its way, what is still to be done.
fn interest(pod: &PodLine) -> u8 {
    match (pod.state.as_str(), pod.verdict.as_str()) {
        ("Failed", _) => 0,
        (_, "Blocked") => 1,
        ("Resizing" | "Draining" | "Drained" | "NotDrained" | "Patched" | "Started" | "Renewed", _) => 2,
        ("Unavailable", _) => 3,
        (_, "UpToDate") => 5,
        _ => 4,
    }
}

fn pod_line(member: &Member, goal: &Wish, writes: Vec<PlannedWrite>) -> PodLine {
    let (verdict, blocked_because) = match member.judgement.verdict {
        Verdict::UpToDate => ("UpToDate", ""),
        Verdict::Metadata => ("Metadata", ""),
        Verdict::Resize => ("Resize", ""),
        Verdict::InPlace => ("InPlace", ""),
        Verdict::Restart => ("Restart", ""),
        Verdict::NextRestart => ("NextRestart", ""),
        Verdict::Recreate => ("Recreate", ""),
        Verdict::Blocked(reason) => ("Blocked", reason.as_str()),
    };
    let (state, detail) = state(member.state());
    PodLine {
        name: member.pod.meta().key.name.to_string(),
        node: member.pod.node.as_deref().unwrap_or_default().to_owned(),
        verdict: verdict.to_owned(),
        blocked_because: blocked_because.to_owned(),
        state: state.to_owned(),
        detail,
        is_available: member.is_available,
        differences: differing(&member.judgement.differences, goal),
        until: member.stand.wake,
        writes,
    }
}

/// A state in one word, and what it waits for or failed at.
fn state(state: &PodState) -> (&'static str, String) {
    let listed = |services: &[Arc<str>]| match services {
        [] => String::new(),
        services => format!("still listed by Services {}", services.join(", ")),
    };
    match state {
        PodState::Old => ("Old", String::new()),
        PodState::Resizing => ("Resizing", "its kubelet has yet to put the resize in force".to_owned()),
        PodState::Draining { waits_for } => ("Draining", listed(waits_for)),
        PodState::Drained => ("Drained", String::new()),
        PodState::NotDrained { waits_for } => ("NotDrained", listed(waits_for)),
        PodState::Patched => ("Patched", "its containers start, or have to stay ready for longer".to_owned()),
        PodState::Started => ("Started", "its traffic is turned on next".to_owned()),
        PodState::Updated => ("Updated", String::new()),
        PodState::Unavailable => ("Unavailable", "it is as it is wished, and not available".to_owned()),
        PodState::Renewed => ("Renewed", "its controller makes it anew, or has just done so".to_owned()),
        PodState::Failed(failure) => ("Failed", failed(failure)),
        PodState::Ineligible => ("Ineligible", String::new()),
    }
}

fn failed(failure: &Failure) -> String {
    let reason = failure.reason();
    match failure {
        Failure::CannotStart { container, message, .. } => {
            format!("{reason}: container {container}: {message}")
        }
        Failure::Restarts { container, count, .. } => {
            format!("{reason}: container {container} has restarted {count} times")
        }
        Failure::ResizeInfeasible { message, .. } | Failure::ResizeTimedOut { message, .. } => {
            format!("{reason}: {message}")
        }
        Failure::DrainTimedOut { waits_for, .. } => {
            format!("{reason}: still listed by Services {}", waits_for.join(", "))
        }
        Failure::DeadlineExceeded { since }
        | Failure::ReadinessLost { since }
        | Failure::Overridden { since } => format!("{reason} since {since}"),
    }
}

/// In what a pod differs, with the value that each thing is to have.
fn differing(differences: &Differences, goal: &Wish) -> Vec<String> {
    let mut found = Vec::new();
    let containers = &goal.template.content.containers;
    for name in differences.images.iter().chain(&differences.init_images) {
        let image = containers.get(name).map_or("", |wished| &*wished.image);
        found.push(format!("image of {name}: {image}"));
    }
    for (name, image) in &differences.flips {
        found.push(format!("restart of {name}, as {image}"));
    }
    for (name, amounts) in &differences.amounts {
        found.push(format!("resources of {name}: {}", amounts.to_json()));
    }
    for (what, set, removed) in [
        ("label", &differences.labels, &differences.labels_removed),
        ("annotation", &differences.annotations, &differences.annotations_removed),
    ] {
        found.extend(set.iter().map(|(key, value)| format!("{what} {key}: {value}")));
        found.extend(removed.iter().map(|key| format!("{what} {key}: none")));
    }
    found.extend(differences.revision.iter().map(|revision| format!("revision: {revision}")));
    found.extend(differences.missing.iter().map(|name| format!("container {name} is missing")));
    if differences.is_resize_open && differences.amounts.is_empty() {
        found.push("resources in force".to_owned());
    }
    found
}
