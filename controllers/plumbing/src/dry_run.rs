//! Dry runs: what the API server says to writes that it does not store.
//!
//! A planner asks by [`Action::dry_run`](crate::plan::Action::dry_run), under a name of its own. The answer comes with
//! the results of the pass; [`Verdicts`] keeps it for the next one, which follows at once:
//!
//! ```text
//! settle:  self.verdicts.settle(key, results, now)
//! observe: Observed { verdicts: self.verdicts.of(key), .. }
//! plan:    match observed.verdicts.get("web-6d4c") { None => ask, Some(answer) => decide }
//! ```
//!
//! They are a memory of the process: a new one asks again, and nothing else depends on them.

use crate::error::{FieldConflict, Refusal};
use crate::executor::WriteResult;
use crate::key::ObjectKey;
use crate::plan::Action;
use jiff::Timestamp;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The most answers that are kept for one key; the oldest goes first.
pub const MAX_ANSWERS: usize = 64;

/// What the API server would do with a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict<T = Arc<Value>> {
    /// It would store this: the object with defaults set, and as admission leaves it.
    Accepted(T),
    /// It would refuse. The message has the words of whoever denies it: validation, quota, policy, webhook.
    Refused(Refusal),
    /// Other field managers hold what an apply without force would set.
    FieldConflict(Vec<FieldConflict>),
    /// A PodDisruptionBudget would not allow the eviction.
    DisruptionBudget(String),
}

impl<T> Verdict<T> {
    /// Whether it would be stored.
    pub fn is_accepted(&self) -> bool {
        match self {
            Self::Accepted(_) => true,
            Self::Refused(_) | Self::FieldConflict(_) | Self::DisruptionBudget(_) => false,
        }
    }

    /// The same with something read from the object.
    pub fn map<U>(self, read: impl FnOnce(T) -> U) -> Verdict<U> {
        match self {
            Self::Accepted(object) => Verdict::Accepted(read(object)),
            Self::Refused(refusal) => Verdict::Refused(refusal),
            Self::FieldConflict(conflicts) => Verdict::FieldConflict(conflicts),
            Self::DisruptionBudget(message) => Verdict::DisruptionBudget(message),
        }
    }
}

/// An answer, and when it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<T> {
    /// By the planner's clock. Policies change: an old refusal is worth another question.
    pub at: Timestamp,
    /// What it was.
    pub verdict: Verdict<T>,
}

/// The answers by their questions.
pub type Answers<T> = BTreeMap<Arc<str>, Answer<T>>;

/// What the dry runs of one controller were answered, by key. Of the object that would be stored it keeps what `T` says,
/// as a whole pod takes tens of kilobytes.
pub struct Verdicts<T> {
    read: fn(&Value) -> T,
    held: Mutex<HashMap<ObjectKey, Answers<T>>>,
}

impl<T: Clone> Verdicts<T> {
    /// Knows no answer yet; `read` takes from an object what planners look at.
    pub fn new(read: fn(&Value) -> T) -> Self {
        Self { read, held: Mutex::default() }
    }

    /// Takes in what a pass over `key` has learned.
    pub fn settle(&self, key: &ObjectKey, results: &[WriteResult], now: Timestamp) {
        for WriteResult { write, outcome } in results {
            let (Action::DryRun { question, .. }, Ok(done)) = (&write.action, outcome) else { continue };
            let Some(verdict) = done.dry_run.clone() else { continue };
            let answer = Answer { at: now, verdict: verdict.map(|object| (self.read)(&object)) };
            let mut held = self.lock();
            let answers = held.entry(key.clone()).or_default();
            answers.insert(Arc::clone(question), answer);
            if answers.len() > MAX_ANSWERS {
                let oldest = answers.iter().min_by_key(|(_, answer)| answer.at);
                if let Some(question) = oldest.map(|(question, _)| Arc::clone(question)) {
                    answers.remove(&question);
                }
            }
        }
    }

    /// The answers for a key.
    pub fn of(&self, key: &ObjectKey) -> Answers<T> {
        self.lock().get(key).cloned().unwrap_or_default()
    }

    /// Forgets the answers for a key that nobody asks for any more.
    pub fn retain(&self, key: &ObjectKey, is_asked: impl Fn(&str) -> bool) {
        let mut held = self.lock();
        let Some(answers) = held.get_mut(key) else { return };
        answers.retain(|question, _| is_asked(question));
        if answers.is_empty() {
            held.remove(key);
        }
    }

    /// Forgets a key.
    pub fn forget(&self, key: &ObjectKey) {
        self.lock().remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectKey, Answers<T>>> {
        // Nothing that can panic leaves it half changed.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> fmt::Debug for Verdicts<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.held.lock().unwrap_or_else(PoisonError::into_inner).len();
        f.debug_struct("Verdicts").field("keys", &keys).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::WriteError;
    use crate::executor::Done;
    use crate::key::{Resource, Uid};
    use crate::plan::{Write, WriteClass};
    use serde_json::json;

    fn asked(question: &str, outcome: Result<Done, WriteError>) -> WriteResult {
        let action = Action::Evict { uid: Uid("u".into()), resource_version: None, grace_seconds: None };
        let (resource, key, class) = (Resource::POD, ObjectKey::new("ns", "p"), WriteClass::Spec);
        WriteResult { write: Write { resource, key, class, action: action.dry_run(question) }, outcome }
    }

    fn answered(image: &str) -> Result<Done, WriteError> {
        let object = Arc::new(json!({"image": image}));
        Ok(Done { dry_run: Some(Verdict::Accepted(object)), ..Done::default() })
    }

    fn image(object: &Value) -> String {
        object["image"].as_str().unwrap_or_default().to_owned()
    }

    #[test]
    fn answers_are_kept_by_their_questions_until_nobody_asks() {
        let (verdicts, key, now) = (Verdicts::new(image), ObjectKey::new("ns", "a"), Timestamp::UNIX_EPOCH);
        let budget = Done { dry_run: Some(Verdict::DisruptionBudget("b".into())), ..Done::default() };
        let results = [
            asked("one", answered("v1")),
            asked("two", Ok(budget)),
            asked("lost", Err(WriteError::Unknown("reset".to_owned()))),
            asked("held back", Ok(Done::default())),
        ];
        verdicts.settle(&key, &results, now);
        let held = verdicts.of(&key);
        assert_eq!(held.keys().map(|question| &**question).collect::<Vec<_>>(), ["one", "two"]);
        assert_eq!(held["one"], Answer { at: now, verdict: Verdict::Accepted("v1".to_owned()) });
        assert!(!held["two"].verdict.is_accepted());
        assert!(verdicts.of(&ObjectKey::new("ns", "b")).is_empty());

        verdicts.settle(&key, &[asked("one", answered("v2"))], now);
        assert_eq!(
            verdicts.of(&key)["one"].verdict,
            Verdict::Accepted("v2".to_owned()),
            "the last one counts"
        );
        verdicts.retain(&key, |question| question == "two");
        assert_eq!(verdicts.of(&key).len(), 1);
        verdicts.forget(&key);
        assert!(verdicts.of(&key).is_empty());
    }

    #[test]
    fn no_key_keeps_more_answers_than_its_share() {
        let (verdicts, key) = (Verdicts::new(image), ObjectKey::new("ns", "a"));
        for second in 0..200 {
            let now = Timestamp::from_second(second).unwrap();
            verdicts.settle(&key, &[asked(&format!("{second}"), answered("v"))], now);
        }
        let held = verdicts.of(&key);
        assert_eq!(held.len(), MAX_ANSWERS);
        assert!(held.contains_key("199") && !held.contains_key("0"));
    }
}
