//! Dry runs before the first pod is touched: admission and validation say what they think of each kind of change.

use super::situation::Situation;
use crate::finalize;
use crate::machine::PodWrite;
use crate::message::quoting;
use crate::patch;
use crate::projections::upgrade::UpgradeView;
use crate::verdict;
use crate::wish::Wish;
use jiff::{SignedDuration, Timestamp};
use springtide_crds::in_place_upgrade::{FieldOwnership, HealthyReason, Persist, StalledReason};
use springtide_crds::reason::Reason;
use springtide_plumbing::clock::after;
use springtide_plumbing::dry_run::{Answer, Answers, Verdict};
use springtide_plumbing::error::{FieldConflict, WriteError};
use springtide_plumbing::executor::WriteResult;
use springtide_plumbing::key::Resource;
use springtide_plumbing::plan::{Action, Step};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::workloads::content::Digest;
use std::collections::BTreeSet;
use std::sync::Arc;

/// After so long a refusal is asked for again at the earliest: policies change.
const SHORTEST_DELAY: SignedDuration = SignedDuration::from_secs(60);
/// After so long at the latest, however long it has been refused.
const LONGEST_DELAY: SignedDuration = SignedDuration::from_mins(10);

/// What is still to be asked, and what was refused.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Preflight {
    /// Dry runs to send.
    pub questions: Vec<Step>,
    /// Why the API server refuses a change of pods.
    pub denial: Option<Denial>,
    /// Why the wish cannot be written into the workload's template, so that the run could not come to its end.
    pub template: Option<TemplateRefusal>,
    /// When what was refused is asked for again; `None` where nothing is, or it is asked for now.
    pub again: Option<Timestamp>,
}

/// A change of pods that the API server refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// Name of a pod that it was asked for.
    pub pod: Arc<str>,
    /// The server's words.
    pub words: String,
}

impl Denial {
    /// What is wrong, and what helps.
    pub fn message(&self) -> String {
        let before = format!("the API server refuses the change of pods, first {}: ", self.pod);
        let remedy = "; change the wish, or what refuses it. It is asked again by itself";
        quoting(&before, &self.words, remedy)
    }
}

/// Why the wish cannot be written into the workload's template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateRefusal {
    /// A field belongs to another manager.
    Held(FieldConflict),
    /// The API server refuses it, in these words.
    Refused(String),
}

impl TemplateRefusal {
    /// Reason of condition Stalled.
    pub fn reason(&self) -> StalledReason {
        match self {
            Self::Held(_) => StalledReason::FieldOwnershipConflict,
            Self::Refused(_) => StalledReason::TemplateRefused,
        }
    }

    /// What is wrong, and what helps.
    pub fn message(&self) -> String {
        match self {
            Self::Held(conflict) => ownership(conflict),
            Self::Refused(words) => {
                let remedy = "; change spec.source.inline, or what refuses it. It is asked again by itself";
                quoting("the API server refuses the wish in the workload's template: ", words, remedy)
            }
        }
    }
}

/// Name of the question about a change of pods of one template.
fn question(what: &str, goal: &Wish, template: Digest) -> Arc<str> {
    format!("{what}/{}/{template}", goal.hash).into()
}

/// Whether a change of pods of a template was refused.
pub(super) fn is_denied(answers: &Answers<()>, goal: &Wish, template: Digest) -> bool {
    ["patch", "resize"].iter().any(|what| {
        answers.get(&question(what, goal, template)).is_some_and(|answer| !answer.verdict.is_accepted())
    })
}

/// What is to be asked: for each template that pods were made from, one of its pods is tried, with the whole patch and
/// with the resize.
pub(super) fn preflight(situation: &Situation<'_>, now: Timestamp) -> Preflight {
    let mut found = Preflight::default();
    let mut looked_at: BTreeSet<(&str, Digest)> = BTreeSet::new();
    let upgrade = &situation.observed.upgrade;
    let denied_since = since(upgrade, &[HealthyReason::AdmissionDenied]);
    for (member, origin) in situation.members.iter().zip(&situation.origins) {
        let differences = &member.judgement.differences;
        // Nothing of a pod is changed that is made anew, or left as it is.
        if member.judgement.verdict == verdict::Verdict::Recreate || situation.leaves_out(member) {
            continue;
        }
        let writes = [
            ("patch", PodWrite::Patch, differences.needs_patch()),
            ("resize", PodWrite::Resize, !differences.amounts.is_empty()),
        ];
        for (what, write, is_needed) in writes {
            if !is_needed || !looked_at.insert((what, origin.template)) {
                continue;
            }
            let question = question(what, &situation.goal, origin.template);
            let answer = situation.observed.answers.get(&question);
            if let Some(words) = answer.and_then(refusal) {
                let pod = Arc::clone(&member.pod.meta().key.name);
                found.denial.get_or_insert(Denial { pod, words });
            }
            if found.is_due(answer, denied_since, now)
                && let Some(mut write) =
                    patch::write(&member.pod, &member.judgement, &situation.goal, write, now)
            {
                write.action = write.action.dry_run(question);
                found.questions.push(write.into());
            }
        }
    }
    found.ask_for_template(situation, now);
    if !found.questions.is_empty() {
        // The answers say when.
        found.again = None;
    }
    found
}

/// Why a change of pods was refused; `None` where it was not.
fn refusal(answer: &Answer<()>) -> Option<String> {
    match &answer.verdict {
        Verdict::Accepted(()) => None,
        Verdict::Refused(refusal) => Some(refusal.message.clone()),
        Verdict::FieldConflict(_) => Some("fields of the pod belong to another manager".to_owned()),
        Verdict::DisruptionBudget(message) => Some(message.clone()),
    }
}

impl Preflight {
    /// Whether a question with this answer is to be sent now; where it is only later, that is kept.
    ///
    /// What was refused is asked for again after as long as it has been refused since `since`, so that its pauses double:
    /// the stored status is all that this rests on, and a new leader goes on where the last one was.
    fn is_due(&mut self, answer: Option<&Answer<()>>, since: Option<Timestamp>, now: Timestamp) -> bool {
        let Some(answer) = answer else { return true };
        if answer.verdict.is_accepted() {
            return false;
        }
        let lasted = answer.at.duration_since(since.unwrap_or(answer.at));
        let again = after(answer.at, lasted.clamp(SHORTEST_DELAY, LONGEST_DELAY));
        if again > now {
            self.again = Some(self.again.map_or(again, |earlier| earlier.min(again)));
        }
        again <= now
    }

    /// Asks whether the wish can be written into the workload's template: what cannot be in the end is not begun.
    fn ask_for_template(&mut self, situation: &Situation<'_>, now: Timestamp) {
        let is_missing = situation.wish.persist == Persist::Template
            && situation.target.template().whole != situation.wish.whole();
        let terms = situation.terms(&[]);
        let Some(mut write) = is_missing.then(|| finalize::persist(situation.target, &terms)).flatten()
        else {
            return;
        };
        // Who has it taken by force is answered anew.
        let kind = match terms.ownership {
            FieldOwnership::Refuse => "template",
            FieldOwnership::Force => "forced-template",
        };
        let question: Arc<str> = format!("{kind}/{}", situation.wish.hash).into();
        let answer = situation.observed.answers.get(&question);
        self.template = answer.and_then(|answer| match &answer.verdict {
            Verdict::FieldConflict(conflicts) => conflicts.first().cloned().map(TemplateRefusal::Held),
            Verdict::Refused(refusal) => Some(TemplateRefusal::Refused(refusal.message.clone())),
            Verdict::Accepted(()) | Verdict::DisruptionBudget(_) => None,
        });
        let reasons = [StalledReason::FieldOwnershipConflict, StalledReason::TemplateRefused];
        if self.is_due(answer, since(&situation.observed.upgrade, &reasons), now) {
            write.action = write.action.dry_run(question);
            self.questions.push(write.into());
        }
    }
}

/// Since when the stored status has said one of these reasons.
fn since<R: Reason + PartialEq>(upgrade: &UpgradeView, reasons: &[R]) -> Option<Timestamp> {
    let stored = upgrade.reason::<R>()?;
    let is_told = reasons.contains(&stored);
    upgrade.condition(R::CONDITION).filter(|_| is_told).map(|told| told.last_transition_time.0)
}

/// Whose field it is, and what helps.
pub(crate) fn ownership(conflict: &FieldConflict) -> String {
    let whose = format!(" belongs to field manager {}: change it there, or set ", conflict.manager);
    quoting("", &conflict.field, &format!("{whose}spec.policy.fieldOwnership to Force"))
}

/// Whether the API server has refused the change of a pod that it accepted in a dry run some time ago: what it was asked
/// then is asked anew, before the pods that are out of traffic wait for a write that it refuses again and again. One that
/// is refused though its dry run has just been accepted is told like any other write that fails.
pub(crate) fn is_outdated(answers: &Answers<()>, results: &[WriteResult], now: Timestamp) -> bool {
    let is_old = |answer: &Answer<()>| now >= after(answer.at, SHORTEST_DELAY);
    let is_refused = |result: &WriteResult| {
        let is_change =
            result.write.resource == Resource::POD && matches!(&result.write.action, Action::Patch { .. });
        is_change && matches!(&result.outcome, Err(WriteError::Refused(_)))
    };
    results.iter().any(is_refused) && answers.values().any(is_old)
}
