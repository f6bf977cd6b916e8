//! The stored status of a BatchJob, in the form that takes the least memory.
//!
//! Jobs that wait mostly have one status, but for the times of its conditions: these are each job's own, and all the rest
//! is kept once.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;
use springtide_crds::batch_job::{
    BatchJobStatus, ExitCodeCount, FailureRecord, IndexStatus, JobProfileStatus, TaskResult,
};
use springtide_crds::common::{Condition, ConditionStatus};
use springtide_crds::reason::Reason;
use springtide_plumbing::pool::Pool;
use std::ops::Deref;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// Of the process, as whoever decodes an object knows of nothing else.
static SHARED: LazyLock<Mutex<Pool<u64, StatusFields>>> = LazyLock::new(Mutex::default);

/// A status as stored: its fields by dereference, its conditions by [`StoredStatus::condition`] and
/// [`StoredStatus::since`], and all of it by [`StoredStatus::whole`].
///
/// It is no [`BatchJobStatus`], and gives no reference to one: that would be one without its conditions.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(from = "BatchJobStatus")]
pub struct StoredStatus {
    fields: Arc<StatusFields>,
    /// `lastTransitionTime` of the conditions, in their order.
    since: Box<[Timestamp]>,
}

/// A status but for its conditions' times.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusFields {
    conditions: Box<[StoredCondition]>,
    /// `status.observedGeneration`.
    pub observed_generation: i64,
    /// `status.templateHash`.
    pub template_hash: Option<String>,
    /// `status.queue`.
    pub queue: Option<String>,
    /// `status.admittedTime`.
    pub admitted_time: Option<Time>,
    /// `status.startTime`.
    pub start_time: Option<Time>,
    /// `status.completionTime`.
    pub completion_time: Option<Time>,
    /// `status.granted`.
    pub granted: u32,
    /// `status.active`.
    pub active: u32,
    /// `status.succeeded`.
    pub succeeded: u32,
    /// `status.failed`.
    pub failed: u32,
    /// `status.disrupted`.
    pub disrupted: u32,
    /// `status.indexes`.
    pub indexes: Option<IndexStatus>,
    /// `status.exitCodes`.
    pub exit_codes: Vec<ExitCodeCount>,
    /// `status.result`.
    pub result: Option<TaskResult>,
    /// `status.lastFailures`.
    pub last_failures: Vec<FailureRecord>,
    /// `status.profile`.
    pub profile: Option<JobProfileStatus>,
    /// `status.runningSinceTime`.
    pub running_since_time: Option<Time>,
    /// `status.runningSeconds`.
    pub running_seconds: u32,
    /// `status.suspendedSeconds`.
    pub suspended_seconds: u32,
}

/// A condition but for its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredCondition {
    /// `type`.
    pub type_: String,
    /// `status`.
    pub status: ConditionStatus,
    /// `observedGeneration`.
    pub observed_generation: i64,
    /// `reason`.
    pub reason: String,
    /// `message`.
    pub message: String,
}

impl StoredCondition {
    /// Whether the condition has this reason.
    pub fn is<R: Reason>(&self, reason: R) -> bool {
        self.type_ == R::CONDITION && self.reason == reason.as_str()
    }
}

impl Deref for StoredStatus {
    type Target = StatusFields;

    fn deref(&self) -> &StatusFields {
        &self.fields
    }
}

impl StoredStatus {
    /// The condition of a type.
    pub fn condition(&self, type_: &str) -> Option<&StoredCondition> {
        self.fields.conditions.iter().find(|condition| condition.type_ == type_)
    }

    /// Since when the condition of a type has its status.
    pub fn since(&self, type_: &str) -> Option<Timestamp> {
        let place = self.fields.conditions.iter().position(|condition| condition.type_ == type_)?;
        self.since.get(place).copied()
    }

    /// The status as it was read.
    pub fn whole(&self) -> BatchJobStatus {
        let fields = &*self.fields;
        let timed = fields.conditions.iter().zip(&self.since).map(|(condition, since)| Condition {
            type_: condition.type_.clone(),
            status: condition.status,
            observed_generation: condition.observed_generation,
            reason: condition.reason.clone(),
            message: condition.message.clone(),
            last_transition_time: Time(*since),
        });
        BatchJobStatus {
            conditions: timed.collect(),
            observed_generation: fields.observed_generation,
            template_hash: fields.template_hash.clone(),
            queue: fields.queue.clone(),
            admitted_time: fields.admitted_time.clone(),
            start_time: fields.start_time.clone(),
            completion_time: fields.completion_time.clone(),
            granted: fields.granted,
            active: fields.active,
            succeeded: fields.succeeded,
            failed: fields.failed,
            disrupted: fields.disrupted,
            indexes: fields.indexes.clone(),
            exit_codes: fields.exit_codes.clone(),
            result: fields.result.clone(),
            last_failures: fields.last_failures.clone(),
            profile: fields.profile.clone(),
            running_since_time: fields.running_since_time.clone(),
            running_seconds: fields.running_seconds,
            suspended_seconds: fields.suspended_seconds,
        }
    }

    #[cfg(test)]
    pub(crate) fn shares_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.fields, &other.fields)
    }

    /// About how many bytes of memory it takes beside itself.
    pub(super) fn bytes(&self) -> usize {
        let of_condition = |condition: &StoredCondition| {
            size_of::<StoredCondition>()
                + condition.type_.len()
                + condition.reason.len()
                + condition.message.len()
        };
        let conditions: usize = self.conditions.iter().map(of_condition).sum();
        let indexes = self.indexes.as_ref();
        let indexes = indexes.map_or(0, |indexes| indexes.closed_bitmap.len() + indexes.retries.len());
        size_of::<StatusFields>() + conditions + indexes + size_of_val(&*self.since)
    }
}

impl From<BatchJobStatus> for StoredStatus {
    fn from(mut status: BatchJobStatus) -> Self {
        let take_time = |condition: &mut Condition| {
            std::mem::replace(&mut condition.last_transition_time.0, Timestamp::UNIX_EPOCH)
        };
        let since = status.conditions.iter_mut().map(take_time).collect();
        // What has, or had, pods is like no other.
        let is_common = status.admitted_time.is_none() && status.completion_time.is_none();
        // A struct of strings, numbers and lists cannot fail to be JSON.
        let json = is_common.then(|| serde_json::to_vec(&status).unwrap_or_default());
        let fields = StatusFields::from(status);
        let fields = match json {
            Some(json) => SHARED.lock().unwrap_or_else(PoisonError::into_inner).equal(&json, fields),
            None => Arc::new(fields),
        };
        Self { fields, since }
    }
}

impl From<BatchJobStatus> for StatusFields {
    fn from(status: BatchJobStatus) -> Self {
        let BatchJobStatus {
            conditions,
            observed_generation,
            template_hash,
            queue,
            admitted_time,
            start_time,
            completion_time,
            granted,
            active,
            succeeded,
            failed,
            disrupted,
            indexes,
            exit_codes,
            result,
            last_failures,
            profile,
            running_since_time,
            running_seconds,
            suspended_seconds,
        } = status;
        let stored = |condition: Condition| StoredCondition {
            type_: condition.type_,
            status: condition.status,
            observed_generation: condition.observed_generation,
            reason: condition.reason,
            message: condition.message,
        };
        Self {
            conditions: conditions.into_iter().map(stored).collect(),
            observed_generation,
            template_hash,
            queue,
            admitted_time,
            start_time,
            completion_time,
            granted,
            active,
            succeeded,
            failed,
            disrupted,
            indexes,
            exit_codes,
            result,
            last_failures,
            profile,
            running_since_time,
            running_seconds,
            suspended_seconds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    /// A status with each of its fields.
    fn full(second: i64, extra: &Value) -> BatchJobStatus {
        let time = Timestamp::from_second(second).unwrap().to_string();
        let condition = |type_: &str, time: &str| {
            json!({
                "type": type_, "status": "True", "observedGeneration": 3, "reason": "Why", "message": "so",
                "lastTransitionTime": time,
            })
        };
        let mut status = json!({
            "observedGeneration": 3, "conditions": [condition("Complete", &time), condition("Queued", "2026-11-11T00:00:00Z")],
            "templateHash": "h", "queue": "q", "startTime": time, "granted": 1, "active": 2, "succeeded": 3, "failed": 4,
            "disrupted": 5, "indexes": {"closedBelow": 1, "closedBitmap": "AA==", "retries": "1:1", "failed": "2"},
            "exitCodes": [{"code": 1, "reason": "Error", "count": 2}],
            "result": {"exitCode": 1, "reason": "Error", "message": "m", "node": "n", "finishTime": time},
            "lastFailures": [{"index": 1, "attempt": 2, "exitCode": 3, "reason": "Error", "finishTime": time}],
            "profile": {"samples": 3, "applied": {"cpu": "1"}}, "runningSinceTime": time, "runningSeconds": 6,
            "suspendedSeconds": 7,
        });
        status.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        serde_json::from_value(status).unwrap()
    }

    #[test]
    fn nothing_of_a_status_is_lost_whatever_it_shares() {
        let ended = json!({"admittedTime": "2026-11-11T00:00:00Z", "completionTime": "2026-11-11T00:00:01Z"});
        for extra in [json!({}), ended] {
            for second in [1_700_000_000, 1_700_000_001] {
                let status = full(second, &extra);
                let stored = StoredStatus::from(status.clone());
                assert_eq!(stored.whole(), status);
                assert_eq!(stored.since("Complete"), Timestamp::from_second(second).ok());
                assert_eq!(stored.since("Queued"), "2026-11-11T00:00:00Z".parse().ok());
                assert_eq!(stored.condition("Queued").unwrap().message, "so");
                assert_eq!((stored.condition("Failed"), stored.since("Failed")), (None, None));
            }
        }
    }

    #[test]
    fn jobs_that_wait_share_a_status_but_for_the_times_of_its_conditions() {
        let waiting = |second, reason: &str| {
            StoredStatus::from(
                serde_json::from_value::<BatchJobStatus>(json!({"conditions": [{
                    "type": "Complete", "status": "Unknown", "reason": reason,
                    "lastTransitionTime": Timestamp::from_second(second).unwrap(),
                }]}))
                .unwrap(),
            )
        };
        let [one, later, other] = [waiting(1, "Queued"), waiting(2, "Queued"), waiting(1, "Pending")];
        assert!(Arc::ptr_eq(&one.fields, &later.fields));
        assert_ne!(one, later, "their times differ");
        assert!(!Arc::ptr_eq(&one.fields, &other.fields));
    }

    proptest! {
        #[test]
        fn any_conditions_come_back_in_their_order(conditions in prop::collection::vec(("[A-C]", "[a-b]", 0..9_i64), 0..6)) {
            let conditions: Vec<Value> = conditions.into_iter().map(|(type_, reason, second)| json!({
                "type": type_, "status": "False", "reason": reason, "message": "m",
                "lastTransitionTime": Timestamp::from_second(second).unwrap(),
            })).collect();
            let status: BatchJobStatus = serde_json::from_value(json!({"conditions": conditions})).unwrap();
            prop_assert_eq!(StoredStatus::from(status.clone()).whole(), status);
        }
    }
}
