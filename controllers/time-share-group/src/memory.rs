//! What the process remembers of a group: since when things have been as they are, what it has tried, and what dry runs
//! were answered. A new leader has none of it: it waits for longer, and asks or tries once more; nothing is decided
//! otherwise.

use crate::memory_safety::{MEMORY_RETRY, is_shrink_refused};
use crate::names::SKIPPED;
use crate::observed::{Answer, Attempt, Evidence, Nudges, Refused, RefusedBy, Usage};
use crate::pod_times::PodTimes;
use crate::preflight::{Answers, Basis, read_question, refused_by};
use crate::sizes::{Level, is_resized};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use springtide_crds::common::bounded_text;
use springtide_crds::time_share_group::Transition;
use springtide_plumbing::clock::after;
use springtide_plumbing::controller::Settled;
use springtide_plumbing::dry_run::Verdict;
use springtide_plumbing::error::{Refusal, WriteError};
use springtide_plumbing::executor::{Done, WriteResult};
use springtide_plumbing::first_seen::{FirstSeen, Seen};
use springtide_plumbing::key::{ObjectKey, Resource, Uid};
use springtide_plumbing::plan::{Action, Fields, Part, Patch, Write};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::traffic::{Draining, Exposure, Lever, Traffic};
use springtide_plumbing::window::calendar::CalendarMemo;
use springtide_plumbing::workloads::amounts::Amounts;
use springtide_plumbing::workloads::content::Role;
use springtide_plumbing::workloads::pod::PodView;
use std::collections::HashMap;
use std::sync::Arc;

/// What was refused is tried again after this, and after twice as long each further time.
const RETRY_MIN: SignedDuration = SignedDuration::from_secs(60);
/// But no later than this.
const RETRY_MAX: SignedDuration = SignedDuration::from_secs(600);
/// Longest words of the server that are kept, in bytes: those of thousands of pods may be.
const WORDS_MAX_BYTES: usize = 256;

/// A memory of one group.
#[derive(Debug, Default)]
pub struct Memory {
    /// Its calendar.
    pub calendar: CalendarMemo,
    /// What dry runs were answered.
    answers: Answers,
    /// What is known of its pods.
    pods: HashMap<Uid, OfPod>,
    /// Number of the present look; what was not looked at in it is forgotten.
    look: u64,
    /// Since when members' workloads are missing, by member.
    missing: FirstSeen<Arc<str>>,
    /// Since when the weights of members' routes are as they are, by member.
    weights: FirstSeen<Arc<str>, u64>,
    /// Since when nothing has moved.
    still: Seen<u64>,
    /// Number of the last transition, and its nudges.
    nudges: (u32, u32),
    /// How long the parts of a switch take, for metrics and its event.
    pub times: PodTimes,
    /// When the status was written last.
    pub status_written: Option<Timestamp>,
}

/// A memory of one pod.
#[derive(Debug, Default)]
struct OfPod {
    look: u64,
    /// Since when its drain is proved.
    proved: Seen,
    /// Since when its spec asks for what is not in force, by the generation.
    open: Seen<i64>,
    /// Since when its size is in force and its containers are ready, by the generation.
    warm: Seen<i64>,
    /// What sizes and template it was looked at with.
    basis: Option<Basis>,
    refused: Option<Refused>,
    /// How often in a row.
    refusals: u32,
    /// Of the transition of this number.
    nudges: (u32, Nudges),
    memory_kept_until: Option<Timestamp>,
}

/// What a pod does not say of itself.
#[derive(Debug, Default)]
pub struct Glance {
    /// By what its traffic is turned.
    pub lever: Option<Lever>,
    /// Who sends traffic to it; `None` where nobody has looked, as nothing depends on it.
    pub exposure: Option<Exposure>,
    /// Sizes and template that dry runs of its resize are about.
    pub basis: Option<Basis>,
    /// What it uses.
    pub usage: Option<Usage>,
    /// Whether an InPlaceUpgrade is at work on it.
    pub is_upgrading: bool,
}

impl Memory {
    /// Begins a look at all pods of the group. `transition` is that of the stored status.
    pub fn begin(&mut self, transition: Option<&Transition>) {
        self.look += 1;
        let (id, told) = transition.map_or((0, 0), |transition| (transition.id, transition.nudges));
        let (known, sent) = self.nudges;
        self.nudges = if known == id { (id, sent.max(told)) } else { (id, told) };
    }

    /// Ends it: what was not looked at is forgotten.
    pub fn end(&mut self) {
        let look = self.look;
        self.pods.retain(|_, known| known.look == look);
        let pods = &self.pods;
        self.answers.retain(|uid| pods.contains_key(uid));
    }

    /// Nudges of the last transition.
    pub fn nudges(&self) -> u32 {
        self.nudges.1
    }

    /// Takes in whether a member's workload is missing; since when it is.
    pub fn look_for_workload(
        &mut self,
        member: &Arc<str>,
        is_missing: bool,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let seen = self.missing.look(Arc::clone(member), is_missing.then_some(()), now);
        seen.map(|seen| seen.since)
    }

    /// Takes in the weights of a member's route, as a number that changes with them; since when they are so.
    pub fn look_at_weights(&mut self, member: &Arc<str>, weights: u64, now: Timestamp) -> Option<Timestamp> {
        self.weights.look(Arc::clone(member), Some(weights), now).map(|seen| seen.since)
    }

    /// Takes in how everything stands, as a number; since when it has stood so.
    pub fn look_for_moves(&mut self, version: u64, now: Timestamp) -> Option<Timestamp> {
        self.still.look(Some(version), now).map(|seen| seen.since)
    }

    /// Takes in a pod as it is now, and says what is known of it.
    pub fn look(&mut self, pod: &PodView, glance: Glance, now: Timestamp) -> Evidence {
        let Glance { lever, exposure, basis, usage, is_upgrading } = glance;
        let uid = &pod.meta().uid;
        let known = self.pods.entry(uid.clone()).or_default();
        known.look = self.look;
        if known.basis != basis {
            known.basis = basis;
            // What was refused was another size.
            (known.refused, known.refusals) = (None, 0);
        }
        let proved_since = known.look_at_drain(pod, lever, exposure.as_ref(), now);
        let generation = Some(pod.meta().generation);
        let is_open = is_open(pod);
        let is_warm = !is_open && pod.are_containers_ready();
        let open = known.open.look(generation.filter(|_| is_open), now);
        let warm = known.warm.look(generation.filter(|_| is_warm), now);
        if is_shrink_refused(pod) {
            known.memory_kept_until = Some(after(now, MEMORY_RETRY));
        }
        let (transition, nudges) = known.nudges;
        Evidence {
            exposure: exposure.unwrap_or_default(),
            proved_since,
            open_since: open.map(|seen| seen.since),
            warm_since: warm.map(|seen| seen.since),
            nudges: if transition == self.nudges.0 { nudges } else { Nudges::default() },
            refused: known.refused.clone(),
            asked: basis.map(|basis| self.answers.of(uid, basis)).unwrap_or_default(),
            usage,
            memory_kept_until: known.memory_kept_until.filter(|until| now < *until),
            is_upgrading,
        }
    }

    /// Takes in what the writes of a pass came to. `pod` gives a pod as the store has it.
    ///
    /// Refusals of what is done to single pods are remembered here, and planned for: one pod that a policy does not let
    /// change must not keep thousands of others waiting.
    pub fn settle(
        &mut self,
        results: &[WriteResult],
        pod: impl Fn(&ObjectKey) -> Option<Arc<PodView>>,
        now: Timestamp,
    ) -> Settled {
        let (mut remembered, mut left) = (0_usize, 0_usize);
        for WriteResult { write, outcome } in results {
            match outcome {
                Ok(done) => self.done(write, done, now),
                Err(WriteError::Refused(refusal)) => {
                    let is_remembered = self.refuse(write, refusal, &pod, now);
                    if is_remembered { remembered += 1 } else { left += 1 }
                }
                Err(WriteError::FieldConflict(_) | WriteError::NotSent(_) | WriteError::Unknown(_)) => {
                    left += 1
                }
                // No failures of their own; the loop sees to them whatever is said here.
                Err(
                    WriteError::Throttled(_)
                    | WriteError::Busy { .. }
                    | WriteError::NotLeading
                    | WriteError::Withheld(_)
                    | WriteError::StaleStore(_)
                    | WriteError::Contested { .. }
                    | WriteError::Skipped
                    | WriteError::AlreadyExists
                    | WriteError::Gone
                    | WriteError::Conflict(_)
                    | WriteError::DisruptionBudget(_),
                ) => {}
            }
        }
        if remembered > 0 && left == 0 { Settled::Handled } else { Settled::Default }
    }

    fn done(&mut self, write: &Write, done: &Done, now: Timestamp) {
        if done.noop {
            return;
        }
        match &write.action {
            Action::DryRun { question, .. } => {
                if let Some(verdict) = &done.dry_run {
                    self.answered(question, verdict, now);
                }
            }
            Action::Status { .. } => self.status_written = Some(now),
            Action::Patch { part, patch: Patch::Strategic(fields) } if write.resource == Resource::POD => {
                self.went_through(*part, fields, now);
            }
            Action::Patch { .. }
            | Action::Create { .. }
            | Action::Delete { .. }
            | Action::Apply { .. }
            | Action::Evict { .. } => {}
        }
    }

    fn answered(&mut self, question: &str, verdict: &Verdict, now: Timestamp) {
        let Some((uid, level)) = read_question(question) else { return };
        // Of a pod that is gone, or that has been looked at with other sizes since.
        let Some(basis) = self.pods.get(&uid).and_then(|known| known.basis) else { return };
        let refused = match verdict {
            Verdict::Accepted(_) => None,
            Verdict::Refused(refusal) => Some((refused_by(refusal), words(&refusal.message))),
            // Patches are refused in neither way.
            Verdict::FieldConflict(_) => {
                Some((RefusedBy::Admission, words("other field managers hold the fields")))
            }
            Verdict::DisruptionBudget(message) => Some((RefusedBy::Admission, words(message))),
        };
        self.answers.note(uid, level, basis, Answer { at: now, refused });
    }

    fn went_through(&mut self, part: Part, fields: &Fields, now: Timestamp) {
        let Some(known) = self.pods.get_mut(&fields.uid) else { return };
        let is_of_resize = part == Part::Resize;
        let was_refused = known.refused.as_ref().is_some_and(|refused| match refused.what {
            Attempt::Resize(_) => is_of_resize,
            Attempt::Traffic => !is_of_resize,
        });
        if was_refused {
            (known.refused, known.refusals) = (None, 0);
        }
        if is_nudge(part, fields) {
            let (id, sent) = &mut self.nudges;
            *sent = sent.saturating_add(1);
            if known.nudges.0 != *id {
                known.nudges = (*id, Nudges::default());
            }
            let nudges = &mut known.nudges.1;
            *nudges = Nudges { count: nudges.count.saturating_add(1), last: Some(now) };
        }
    }

    /// Remembers that a pod may not be changed so. `false` where it is no matter of the pod's.
    fn refuse(
        &mut self,
        write: &Write,
        refusal: &Refusal,
        pod: &impl Fn(&ObjectKey) -> Option<Arc<PodView>>,
        now: Timestamp,
    ) -> bool {
        let Action::Patch { part, patch: Patch::Strategic(fields) } = &write.action else { return false };
        // An account without the right is told of as that, once and not by the pod.
        if write.resource != Resource::POD || refusal.is_missing_right() {
            return false;
        }
        let Some(known) = self.pods.get_mut(&fields.uid) else { return false };
        let what = match part {
            Part::Resize => Attempt::Resize(level(fields, pod(&write.key).as_deref())),
            Part::Main => Attempt::Traffic,
            Part::Status if !is_mark(fields) => Attempt::Traffic,
            Part::Status | Part::Scale => return false,
        };
        let is_again = known.refused.as_ref().is_some_and(|refused| refused.what == what);
        known.refusals = if is_again { known.refusals.saturating_add(1) } else { 1 };
        known.refused = Some(Refused {
            what,
            why: refused_by(refusal),
            message: words(&refusal.message),
            at: now,
            retry_at: after(now, pause(known.refusals)),
        });
        true
    }
}

impl OfPod {
    /// Since when it is proved that a pod which is turned off gets no traffic. What was proved stays so where nobody looks
    /// any more, as the pod has shrunk.
    fn look_at_drain(
        &mut self,
        pod: &PodView,
        lever: Option<Lever>,
        exposure: Option<&Exposure>,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let off = lever.map(|lever| (lever, pod.time_share.traffic(lever)));
        let seen = match (off, exposure) {
            (Some((lever, Traffic::Off { since, .. })), Some(exposure)) => {
                let draining = Draining {
                    off_since: since,
                    is_still_ready: lever == Lever::ReadinessGate && pod.is_ready(),
                    exposure,
                    proved_since: None,
                };
                self.proved.look(draining.is_proved().then_some(()), now)
            }
            (Some((_, Traffic::Off { .. })), None) => self.proved.last(),
            (Some((_, Traffic::On | Traffic::Unset)) | None, _) => self.proved.look(None, now),
        };
        seen.map(|seen| seen.since)
    }
}

/// Whether the spec of a pod asks for a size that its kubelet has not put in force yet. One that reports no amounts never
/// has.
fn is_open(pod: &PodView) -> bool {
    !is_resized(pod)
        || pod.containers.iter().any(|container| {
            let runs_on = match container.role {
                Role::Main | Role::Sidecar => true,
                Role::Init => false,
            };
            let in_force = container.status.as_ref().and_then(|status| status.amounts);
            let states = container.amounts != Amounts::default();
            runs_on && states && in_force.is_none_or(|in_force| !in_force.has(&container.amounts))
        })
}

/// Whether it is the second half of a nudge: the only resize that names no version, as the first half has just changed it.
pub(crate) fn is_nudge(part: Part, fields: &Fields) -> bool {
    part == Part::Resize && fields.resource_version.is_none()
}

/// Whether a patch of a pod's status says that the pod was given up.
fn is_mark(fields: &Fields) -> bool {
    let mut conditions = fields.fields["status"]["conditions"].as_array().into_iter().flatten();
    conditions.any(|condition| condition["type"] == SKIPPED)
}

/// Which way a resize goes: to peak where it asks for more of anything than the pod does.
fn level(fields: &Fields, pod: Option<&PodView>) -> Level {
    let Some(pod) = pod else { return Level::Peak };
    let lists = ["containers", "initContainers"].map(|list| &fields.fields["spec"][list]);
    let mut containers = lists.into_iter().filter_map(Value::as_array).flatten();
    let asks_for_more = containers.any(|container| {
        let own = container["name"].as_str().and_then(|name| pod.container(name)).map(|own| own.amounts);
        let asked = Amounts::read(&container["resources"]);
        own.is_some_and(|own| {
            let pairs = [(asked.requests, own.requests), (asked.limits, own.limits)];
            pairs.into_iter().any(|(asked, own)| asked.cpu > own.cpu || asked.memory > own.memory)
        })
    });
    if asks_for_more { Level::Peak } else { Level::Valley }
}

/// After so long what was refused so often in a row is tried again.
pub(crate) fn pause(refusals: u32) -> SignedDuration {
    let doublings = refusals.saturating_sub(1).min(10);
    RETRY_MIN.saturating_mul(1 << doublings).min(RETRY_MAX)
}

fn words(message: &str) -> Box<str> {
    bounded_text(message, WORDS_MAX_BYTES).into_boxed_str()
}

#[cfg(test)]
mod tests;
