//! What no status of a kind of ours may say, whatever the kind.

use springtide_crds::common::{Condition, ConditionStatus, condition};
use springtide_crds::reason::{Reason, ReasonDoc};

/// The largest status that the API's users must expect, in bytes of JSON.
const STATUS_MAX_BYTES: usize = 10_000;

/// One status, and what it is of.
pub struct Told<'a> {
    /// Generation of the object.
    pub generation: i64,
    /// What the status says that it is of.
    pub observed_generation: i64,
    /// The same of the status before it, where that is of the same object.
    pub observed_before: Option<i64>,
    /// Its conditions.
    pub conditions: &'a [Condition],
    /// The whole status as JSON.
    pub json: &'a str,
    /// Every condition and reason that the kind documents.
    pub documented: &'a [ReasonDoc],
}

impl Told<'_> {
    /// What is wrong with it, a few words each.
    #[must_use]
    pub fn wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut hold = |what: String, holds: bool| {
            if !holds {
                wrong.push(what);
            }
        };
        let observed = self.observed_generation;
        let has_gone_back = self.observed_before.is_some_and(|before| observed < before);
        hold("observedGeneration went back".to_owned(), !has_gone_back);
        hold("observedGeneration is ahead".to_owned(), observed <= self.generation);
        hold("the status is too large".to_owned(), self.json.len() <= STATUS_MAX_BYTES);
        for condition in self.conditions {
            let known = self.documented.iter().any(|doc| {
                doc.condition == condition.type_
                    && doc.reason == condition.reason
                    && doc.status == condition.status
            });
            hold(format!("{condition:?} is not documented"), known);
        }
        let is_true = |type_: &str| {
            condition(self.conditions, type_)
                .is_some_and(|condition| condition.status == ConditionStatus::True)
        };
        hold("it is Ready and Stalled".to_owned(), !(is_true("Ready") && is_true("Stalled")));
        hold("it is Ready and Reconciling".to_owned(), !(is_true("Ready") && is_true("Reconciling")));
        wrong
    }
}

/// Whether one of an object's conditions has this reason, and is about the object's present generation.
#[must_use]
pub fn says<R: Reason>(conditions: &[Condition], generation: Option<i64>, reason: &R) -> bool {
    conditions.iter().any(|condition| {
        condition.type_ == R::CONDITION
            && condition.reason == reason.as_str()
            && Some(condition.observed_generation) == generation
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use springtide_crds::in_place_upgrade::all_reasons;

    fn condition(type_: &str, status: &str, reason: &str) -> Condition {
        serde_json::from_value(serde_json::json!({
            "type": type_, "status": status, "reason": reason, "message": "", "observedGeneration": 2,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }))
        .unwrap()
    }

    #[test]
    fn what_no_status_may_say_is_told() {
        let documented = all_reasons();
        let wrong = |observed_generation, conditions: &[Condition], json: &str| {
            let observed_before = Some(2);
            let generation = 2;
            let documented = &documented;
            Told { generation, observed_generation, observed_before, conditions, json, documented }.wrong()
        };
        assert_eq!(wrong(2, &[condition("Ready", "True", "UpToDate")], "{}"), [""; 0]);
        let stalled = [condition("Ready", "True", "UpToDate"), condition("Stalled", "True", "NotLocked")];
        for (found, what) in [
            (wrong(1, &[], "{}"), "went back"),
            (wrong(3, &[], "{}"), "ahead"),
            (wrong(2, &[], &"x".repeat(STATUS_MAX_BYTES + 1)), "too large"),
            (wrong(2, &[condition("Ready", "True", "Held")], "{}"), "not documented"),
            (wrong(2, &stalled, "{}"), "Ready and Stalled"),
        ] {
            assert!(found.iter().any(|found| found.contains(what)), "{what}: {found:?}");
        }
    }
}
