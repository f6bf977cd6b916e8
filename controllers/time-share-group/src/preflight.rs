//! The proof of a switch ahead: whether each pod would get the size that it is to get.
//!
//! - [`upcoming`] is the switch in question, and when it is looked at.
//! - Our own count of what nodes and quotas have room for: the API server holds one pod alone against what is there.
//! - [`questions`] are the dry runs, by which admission, quotas and validation say what they think of each resize, and
//!   [`answers`] the memory of what was answered.
//!
//! A switch does not wait for it, but where the spec has it so: each unit asks for its own pods before it begins.

pub mod answers;
mod forecast;
pub mod questions;
pub mod upcoming;

pub use answers::{Answers, Basis, basis};
pub use questions::{Answered, answered, ask, question, read_question, refused_by};
pub use upcoming::{Upcoming, upcoming};

use crate::memory_safety::{Shrink, shrink, widest};
use crate::observed::{Member, MemberPod, Observed, PodIndex};
use crate::profiles::{qos_of, restarts};
use crate::sizes::{Level, Profile, Scope, Size};
use crate::traffic::never_leaves;
use crate::units::{Unit, units};
use forecast::Forecast;
use jiff::{SignedDuration, Timestamp};
use questions::{counts, failure_of};
use springtide_crds::time_share_group::{
    Member as MemberSpec, OnPreflightFailure, PREFLIGHT_ROWS_MAX, PreflightFailure, PreflightPassedReason,
    PreflightStatus,
};
use springtide_plumbing::clock::after;
use springtide_plumbing::plan::{Write, WriteClass};
use springtide_plumbing::projection::Projection;
use std::sync::Arc;

/// Most dry runs of one pass.
pub const ASK_PER_PASS: usize = 100;
/// While questions are put at a pace, so often are some of them.
const ASK_EVERY: SignedDuration = SignedDuration::from_secs(10);
/// Where there are more of them than one pass puts, so soon the next ones are.
const ASK_PAUSE: SignedDuration = SignedDuration::from_secs(1);
/// So long after the last refusal some of those that were refused are asked again: quotas and policies change.
const ASK_AGAIN: SignedDuration = SignedDuration::from_mins(10);
/// So many then. When all of them are taken, as many others follow at once.
const PROBES: usize = 10;

/// What is known of the next switch.
#[derive(Clone, Debug, PartialEq)]
pub struct Preflight {
    /// Whether it is to be looked at by now.
    pub is_due: bool,
    /// The member that the peak would go to.
    pub member: Option<Arc<str>>,
    /// Its units.
    pub units: u32,
    /// Those of them that would be done.
    pub passed: u32,
    /// Pods of those that would not, the first [`PREFLIGHT_ROWS_MAX`] by node and name.
    pub failures: Vec<Failure>,
    /// Whether each unit is known.
    pub is_complete: bool,
    /// When that was, as the stored status has it, where that still counts.
    pub completed: Option<Timestamp>,
    /// Whether the switch is to wait: too few units are known to come through, and the spec has it so.
    pub holds: bool,
    /// Reason of condition PreflightPassed.
    pub reason: PreflightPassedReason,
    /// What the API server said to the first resize that it refused for what most units fail for.
    pub words: Option<Box<str>>,
    /// Dry runs to send now.
    pub questions: Vec<Write>,
    /// When to look again though nothing happens.
    pub wake: Option<Timestamp>,
}

/// A pod whose resize would not come through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its node.
    pub node: Arc<str>,
    /// Its name.
    pub pod: Arc<str>,
    /// Why.
    pub reason: PreflightFailure,
}

impl Preflight {
    /// There is no switch ahead, or it is too early.
    fn not_due(member: Option<Arc<str>>, wake: Option<Timestamp>) -> Self {
        Self {
            is_due: false,
            member,
            units: 0,
            passed: 0,
            failures: Vec::new(),
            is_complete: false,
            completed: None,
            holds: false,
            reason: PreflightPassedReason::NotDue,
            words: None,
            questions: Vec::new(),
            wake,
        }
    }
}

/// What is known of the next switch, and what is to be asked of it. Without one nothing is, as while one is open.
pub fn preflight(
    observed: &Observed,
    profiles: &[Profile],
    upcoming: Option<&Upcoming>,
    now: Timestamp,
) -> Preflight {
    let Some(upcoming) = upcoming else { return Preflight::not_due(None, None) };
    let member = upcoming.heading.to.and_then(|to| observed.members.get(to.0));
    let member = member.map(|member| Arc::clone(&member.name));
    let stored = upcoming.stored(observed, now);
    if !upcoming.is_due(observed, now) {
        let early = Preflight::not_due(member, Some(upcoming.begins(observed)));
        return stored
            .map_or(early.clone(), |stored| Survey::default().conclude(observed, Some(stored), early));
    }
    let due = Preflight { is_due: true, ..Preflight::not_due(member, None) };
    let survey = Survey::of(observed, profiles, upcoming, now);
    let (questions, wake) = survey.questions(observed, profiles, upcoming, now);
    Preflight { questions, wake, ..survey.conclude(observed, stored, due) }
}

/// What is known of the units of a switch.
#[derive(Debug, Default)]
struct Survey {
    units: u32,
    failed: u32,
    unknown: u32,
    failures: Vec<Failure>,
    /// Units by their failures, in the order of [`FAILURES`].
    by_failure: [u32; FAILURES.len()],
    /// What was said first, in the same order.
    words: [Option<Box<str>>; FAILURES.len()],
    /// Resizes that were answered.
    answered: usize,
    /// Resizes to be asked, in the order of units.
    unasked: Vec<(PodIndex, Level)>,
    /// Those that were refused, in the order of units.
    refused: Vec<(PodIndex, Level)>,
    /// When the last one of them was.
    last_refusal: Option<Timestamp>,
}

/// All reasons for which a unit fails.
const FAILURES: [PreflightFailure; 6] = [
    PreflightFailure::DryRunRefused,
    PreflightFailure::NodeDoesNotFit,
    PreflightFailure::QuotaExceeded,
    PreflightFailure::QoSClassWouldChange,
    PreflightFailure::ResizeNeedsRestart,
    PreflightFailure::NoUsageData,
];

/// What is kept for a reason, in the order of [`FAILURES`].
fn of<T>(kept: &mut [T; FAILURES.len()], reason: PreflightFailure) -> Option<&mut T> {
    FAILURES.iter().zip(kept).find(|(known, _)| **known == reason).map(|(_, kept)| kept)
}

/// A pod on its way to a size.
struct Resize<'a> {
    spec: &'a MemberSpec,
    member: &'a Member,
    found: &'a MemberPod,
    level: Level,
    size: &'a Size,
}

/// What is known of one resize.
enum Finding {
    /// It is done already, or would be.
    Passes,
    /// Nobody has been asked.
    Unasked,
    /// It would not be.
    Fails(PreflightFailure),
}

impl Survey {
    fn of(observed: &Observed, profiles: &[Profile], upcoming: &Upcoming, now: Timestamp) -> Self {
        let found = units(observed, &upcoming.heading, profiles);
        let specs = observed.group.spec.members.iter();
        let sizes: Vec<Profile> = specs
            .zip(profiles)
            .map(|(spec, profile)| {
                let scope = widest(spec.memory);
                Profile { peak: profile.peak.scoped(scope), valley: profile.valley.scoped(scope) }
            })
            .collect();
        let mut forecast = Forecast::of(observed, &sizes, &found);
        let valid_from = upcoming.answers_count_from(observed, now);
        let mut survey = Self::default();
        for unit in &found.units {
            survey.look_at(unit, observed, &sizes, valid_from, now, &mut forecast);
        }
        survey
    }

    /// A unit fails by its first pod that does, those that grow first.
    fn look_at(
        &mut self,
        unit: &Unit,
        observed: &Observed,
        sizes: &[Profile],
        valid_from: Timestamp,
        now: Timestamp,
        forecast: &mut Forecast<'_>,
    ) {
        self.units = self.units.saturating_add(1);
        let growing = unit.to.iter().map(|pod| (*pod, Level::Peak));
        let pods = growing.chain(unit.from.iter().map(|pod| (*pod, Level::Valley)));
        let (mut failure, mut unasked) = (None, Vec::new());
        for (pod, level) in pods {
            let Some(resize) = Resize::of(observed, sizes, pod, level) else { continue };
            match self.finding(&resize, pod, valid_from, now) {
                Finding::Passes => {}
                Finding::Unasked => unasked.push((pod, level)),
                Finding::Fails(reason) => failure = failure.or(Some((pod, reason))),
            }
        }
        // What does not come through takes no room of others.
        if failure.is_none() {
            failure = unit.lead().zip(forecast.take(unit));
        }
        match failure {
            Some((pod, reason)) => self.fails(observed, unit, pod, reason),
            None if unasked.is_empty() => {}
            None => {
                self.unknown = self.unknown.saturating_add(1);
                self.unasked.append(&mut unasked);
            }
        }
    }

    fn finding(
        &mut self,
        resize: &Resize<'_>,
        pod: PodIndex,
        valid_from: Timestamp,
        now: Timestamp,
    ) -> Finding {
        let Resize { member, found, level, size, .. } = resize;
        if size.is_asked_by(&found.pod) {
            return Finding::Passes;
        }
        if let Some(reason) = resize.own_failure() {
            return Finding::Fails(reason);
        }
        let answer = found.evidence.asked.of(*level).filter(|answer| answer.at >= valid_from);
        let Some(answer) = answer else { return Finding::Unasked };
        self.answered = self.answered.saturating_add(1);
        if let Some((by, words)) = answer.refused.as_ref().filter(|(by, _)| counts(member, *by)) {
            self.refused.push((pod, *level));
            self.last_refusal = self.last_refusal.max(Some(answer.at));
            let reason = failure_of(*by, words);
            if let Some(first) = of(&mut self.words, reason) {
                first.get_or_insert_with(|| words.clone());
            }
            return Finding::Fails(reason);
        }
        if resize.lacks_usage(now) {
            return Finding::Fails(PreflightFailure::NoUsageData);
        }
        Finding::Passes
    }

    fn fails(&mut self, observed: &Observed, unit: &Unit, pod: PodIndex, reason: PreflightFailure) {
        self.failed = self.failed.saturating_add(1);
        if let Some(count) = of(&mut self.by_failure, reason) {
            *count = count.saturating_add(1);
        }
        let Some(found) = observed.pod(pod) else { return };
        let name = &found.pod.meta().key.name;
        let place = self.failures.partition_point(|row| (&row.node, &row.pod) < (&unit.node, name));
        if place < PREFLIGHT_ROWS_MAX {
            let row = Failure { node: Arc::clone(&unit.node), pod: Arc::clone(name), reason };
            self.failures.insert(place, row);
            self.failures.truncate(PREFLIGHT_ROWS_MAX);
        }
    }

    /// The dry runs of this pass, and when the next ones are due.
    fn questions(
        &self,
        observed: &Observed,
        profiles: &[Profile],
        upcoming: &Upcoming,
        now: Timestamp,
    ) -> (Vec<Write>, Option<Timestamp>) {
        let total = self.answered.saturating_add(self.unasked.len());
        let may = upcoming.may_have_asked(observed, total, now).saturating_sub(self.answered);
        let first = self.unasked.iter().take(may.min(ASK_PER_PASS));
        let mut asked: Vec<(PodIndex, Level)> = first.copied().collect();
        let mut wake = match (may >= self.unasked.len(), self.unasked.len() > asked.len()) {
            (_, false) => None,
            (true, true) => Some(after(now, ASK_PAUSE)),
            (false, true) if asked.len() == ASK_PER_PASS => Some(after(now, ASK_PAUSE)),
            (false, true) => Some(after(now, ASK_EVERY)),
        };
        if let Some(again) = self.last_refusal.map(|at| after(at, ASK_AGAIN)) {
            if now >= again {
                let room = ASK_PER_PASS.saturating_sub(asked.len()).min(PROBES);
                asked.extend(self.refused.iter().take(room));
            } else {
                wake = Some(wake.map_or(again, |earlier| earlier.min(again)));
            }
        }
        let specs = &observed.group.spec.members;
        let questions = asked.into_iter().filter_map(|(pod, level)| {
            let (spec, profile) = specs.get(pod.member.0).zip(profiles.get(pod.member.0))?;
            Some(ask(spec, &observed.pod(pod)?.pod, profile, level, WriteClass::Low))
        });
        (questions.collect(), wake)
    }

    /// What it comes to. Of units that are not known any more, as who asked is gone, the stored status is taken at its word.
    fn conclude(self, observed: &Observed, stored: Option<&PreflightStatus>, under: Preflight) -> Preflight {
        let Self { units, failed, unknown, mut failures, by_failure, mut words, .. } = self;
        let guards = &observed.group.spec.guards.preflight;
        let mut known = units.saturating_sub(failed).saturating_sub(unknown);
        let mut units = units;
        if let Some(stored) = stored.filter(|_| unknown > 0 || !under.is_due) {
            if !under.is_due {
                units = stored.units;
            }
            known = known.max(stored.passed.min(units.saturating_sub(failed)));
            let rows = stored.failures.iter().map(|row| Failure {
                node: row.node.as_str().into(),
                pod: row.pod.as_str().into(),
                reason: row.reason,
            });
            let rows: Vec<_> = rows.filter(|row| !failures.iter().any(|own| own.pod == row.pod)).collect();
            failures.extend(rows);
            failures.truncate(PREFLIGHT_ROWS_MAX);
        }
        let is_complete = unknown == 0 || stored.is_some();
        let is_enough = |passed: u32| {
            u64::from(passed).saturating_mul(100)
                >= u64::from(units).saturating_mul(u64::from(guards.require_percent))
        };
        let most = FAILURES.iter().zip(by_failure).rev().max_by_key(|(_, count)| *count);
        let most = most.filter(|(_, count)| *count > 0).map(|(reason, _)| *reason);
        let most = most.or(failures.first().map(|row| row.reason)).unwrap_or(PreflightFailure::DryRunRefused);
        let reason = match (is_complete, is_enough(known)) {
            (true, true) if known >= units => PreflightPassedReason::AllUnits,
            (true, true) => PreflightPassedReason::EnoughUnits,
            (true, false) => PreflightPassedReason::Failed(most),
            // However the rest comes out.
            (false, _) if !is_enough(units.saturating_sub(failed)) => PreflightPassedReason::Failed(most),
            (false, _) => PreflightPassedReason::NotObserved,
        };
        let words = of(&mut words, most).and_then(Option::take);
        let holds = match guards.on_failure {
            OnPreflightFailure::Report => false,
            OnPreflightFailure::Hold => under.is_due && !(is_complete && is_enough(known)),
        };
        let completed =
            stored.and_then(|stored| stored.completion_time.as_ref()).map(|completed| completed.0);
        Preflight { units, passed: known, failures, is_complete, completed, holds, reason, words, ..under }
    }
}

impl<'a> Resize<'a> {
    fn of(observed: &'a Observed, sizes: &'a [Profile], pod: PodIndex, level: Level) -> Option<Self> {
        Some(Self {
            spec: observed.group.spec.members.get(pod.member.0)?,
            member: observed.members.get(pod.member.0)?,
            found: observed.pod(pod)?,
            level,
            size: sizes.get(pod.member.0)?.size(level),
        })
    }

    /// What is wrong with it whatever anybody says: who restarts, or would serve on, is asked by nobody, and the class of a
    /// pod is for life.
    fn own_failure(&self) -> Option<PreflightFailure> {
        let pod = &self.found.pod;
        if restarts(pod, self.size) {
            return Some(PreflightFailure::ResizeNeedsRestart);
        }
        if never_leaves(self.spec, pod) {
            return Some(PreflightFailure::DryRunRefused);
        }
        let class = pod.qos.unwrap_or_else(|| qos_of(pod, &Size::default()));
        (qos_of(pod, self.size) != class).then_some(PreflightFailure::QoSClassWouldChange)
    }

    /// Whether memory is to be taken from it of which nobody knows how much it uses.
    fn lacks_usage(&self, now: Timestamp) -> bool {
        let shrinks = match self.level {
            Level::Valley => widest(self.spec.memory) == Scope::Whole,
            Level::Peak => false,
        };
        shrinks && shrink(self.found, self.size, now) == Shrink::Unknown
    }
}

#[cfg(test)]
mod tests;
