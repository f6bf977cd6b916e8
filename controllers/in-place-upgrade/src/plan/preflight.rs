//! Dry runs before the first pod is touched: admission and validation say what they think of each kind of change.

use super::situation::Situation;
use crate::content::Digest;
use crate::machine::PodWrite;
use crate::patch;
use crate::wish::Wish;
use jiff::{SignedDuration, Timestamp};
use springtide_plumbing::clock::after;
use springtide_plumbing::dry_run::{Answers, Verdict};
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
    found
}
