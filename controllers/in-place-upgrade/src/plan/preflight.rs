//! Dry runs before the first pod is touched: admission and validation say what they think of each kind of change.

use super::situation::Situation;
use crate::content::Digest;
use crate::finalize;
use crate::machine::PodWrite;
use crate::patch;
use crate::wish::Wish;
use jiff::{SignedDuration, Timestamp};
use springtide_crds::in_place_upgrade::Persist;
use springtide_plumbing::clock::after;
use springtide_plumbing::dry_run::{Answers, Verdict};
use springtide_plumbing::error::FieldConflict;
use springtide_plumbing::plan::Step;
use std::collections::BTreeSet;
use std::sync::Arc;

/// After so long a refusal is asked for again: policies change.
const ASK_AGAIN: SignedDuration = SignedDuration::from_secs(60);

/// What is still to be asked, and what was refused.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Preflight {
    /// Dry runs to send.
    pub questions: Vec<Step>,
    /// Why the API server refuses a change, in its words.
    pub refusal: Option<String>,
    /// Which field of the workload belongs to another manager, so that the run could not come to its end.
    pub conflict: Option<String>,
    /// When a refusal is asked for again.
    pub wake: Option<Timestamp>,
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
    let mut asked: BTreeSet<Arc<str>> = BTreeSet::new();
    let answers = &situation.observed.answers;
    for (member, origin) in situation.members.iter().zip(&situation.origins) {
        let differences = &member.judgement.differences;
        let writes = [
            ("patch", PodWrite::Patch, differences.needs_patch()),
            ("resize", PodWrite::Resize, !differences.amounts.is_empty()),
        ];
        for (what, write, is_needed) in writes {
            if !is_needed {
                continue;
            }
            let question = question(what, &situation.goal, origin.template);
            if !asked.insert(Arc::clone(&question)) {
                continue;
            }
            let mut is_due = true;
            if let Some(answer) = answers.get(&question) {
                let refusal = match &answer.verdict {
                    Verdict::Accepted(()) => None,
                    Verdict::Refused(refusal) => Some(refusal.message.clone()),
                    Verdict::FieldConflict(_) => {
                        Some("fields of the pod belong to another manager".to_owned())
                    }
                    Verdict::DisruptionBudget(message) => Some(message.clone()),
                };
                let again = after(answer.at, ASK_AGAIN);
                is_due = refusal.is_some() && again <= now;
                if refusal.is_some() && !is_due {
                    found.wake = Some(found.wake.map_or(again, |wake| wake.min(again)));
                }
                found.refusal = found.refusal.or(refusal);
            }
            if is_due
                && let Some(mut write) =
                    patch::write(&member.pod, &member.judgement, &situation.goal, write, now)
            {
                write.action = write.action.dry_run(question);
                found.questions.push(write.into());
            }
        }
    }
    ask_for_template(situation, &mut found, now);
    found
}

/// Whether the wish can be written into the workload's template: what cannot be in the end is not begun.
fn ask_for_template(situation: &Situation<'_>, found: &mut Preflight, now: Timestamp) {
    let is_missing = situation.wish.persist == Persist::Template
        && situation.target.template().whole != situation.wish.whole();
    let terms = situation.terms(&[]);
    let Some(mut write) = is_missing.then(|| finalize::persist(situation.target, &terms)).flatten() else {
        return;
    };
    let question: Arc<str> = format!("template/{}", situation.wish.hash).into();
    let mut is_due = true;
    if let Some(answer) = situation.observed.answers.get(&question) {
        let conflict = match &answer.verdict {
            Verdict::FieldConflict(conflicts) => conflicts.first().map(ownership),
            Verdict::Refused(refusal) => Some(refusal.message.clone()),
            Verdict::Accepted(()) | Verdict::DisruptionBudget(_) => None,
        };
        let again = after(answer.at, ASK_AGAIN);
        is_due = conflict.is_some() && again <= now;
        if conflict.is_some() && !is_due {
            found.wake = Some(found.wake.map_or(again, |wake| wake.min(again)));
        }
        found.conflict = conflict;
    }
    if is_due {
        write.action = write.action.dry_run(question);
        found.questions.push(write.into());
    }
}

/// Whose field it is, and what helps.
pub(crate) fn ownership(conflict: &FieldConflict) -> String {
    format!("{conflict}; change it there, or set policy.fieldOwnership to Force")
}
