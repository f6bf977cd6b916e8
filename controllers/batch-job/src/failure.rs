//! What the end of a pod means: success, a failure that counts, or a disruption.

use crate::projections::pod::{EndedContainer, PodPhase, PodView, TaskView};
use jiff::{SignedDuration, Timestamp};
use springtide_crds::batch_job::{
    ExitCodeOperator, NODE_NAME_MAX_LENGTH, OnExitCodes, PodFailureAction, PodFailurePolicy, PodFailureRule,
    Retry,
};
use springtide_crds::common::{ConditionStatus, bounded_text};
use springtide_plumbing::projection::Projection;

/// Pod condition by which eviction, preemption, taint manager and PodGC say that they ended a pod.
const DISRUPTION_TARGET: &str = "DisruptionTarget";

/// `status.reason` of pods that the kubelet or the control plane ended, or never let start, for no
/// fault of the task. Not all of them carry [`DISRUPTION_TARGET`].
const DISRUPTION_REASONS: [&str; 9] = [
    "Evicted",
    "NodeAffinity",
    "NodeLost",
    "NodeShutdown",
    "Preempting",
    "Shutdown",
    "Terminated",
    "TopologyAffinityError",
    "UnexpectedAdmissionError",
];
/// How `status.reason` begins when the kubelet found no room, like `OutOfcpu`.
const OUT_OF_ROOM: &str = "OutOf";

/// Reason that kubelets give for a container which exceeded its memory limit.
pub const OOM_KILLED: &str = "OOMKilled";

/// How a pod ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All its containers exited with 0.
    Succeeded,
    /// It failed, and that counts.
    Failed(Verdict),
    /// Something else ended it: it counts against no limit, and the task runs again.
    Disrupted,
}

/// What a failure that counts means beyond itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The task is tried again, within the backoff limits.
    Count,
    /// The index is given up.
    FailIndex,
    /// The whole job fails; by the rule with this number.
    FailJob {
        /// Position in `spec.podFailurePolicy.rules`.
        rule: usize,
    },
}

/// How the pod ended, or `None` while it may still run.
pub fn ending(pod: &PodView, policy: Option<&PodFailurePolicy>) -> Option<Ending> {
    match pod.phase {
        PodPhase::Succeeded => Some(Ending::Succeeded),
        PodPhase::Failed => Some(failure(pod, policy)),
        PodPhase::Pending if pod.will_never_run() => Some(Ending::Disrupted),
        PodPhase::Pending | PodPhase::Running | PodPhase::Unknown => None,
    }
}

fn failure(pod: &PodView, policy: Option<&PodFailurePolicy>) -> Ending {
    let Some(task) = pod.task.as_deref() else { return Ending::Disrupted };
    let disrupted = pod.meta().is_deleting()
        || task.reason.as_deref().is_some_and(is_disruption)
        || task
            .conditions
            .iter()
            .any(|c| &*c.type_ == DISRUPTION_TARGET && c.status == ConditionStatus::True);
    let rules = policy.iter().flat_map(|policy| policy.rules.iter().enumerate());
    match rules.into_iter().find(|(_, rule)| rule_matches(rule, task, disrupted)) {
        None if disrupted => Ending::Disrupted,
        None => Ending::Failed(Verdict::Count),
        Some((number, rule)) => match rule.action {
            PodFailureAction::FailJob => Ending::Failed(Verdict::FailJob { rule: number }),
            PodFailureAction::FailIndex => Ending::Failed(Verdict::FailIndex),
            PodFailureAction::Ignore => Ending::Disrupted,
            PodFailureAction::Count => Ending::Failed(Verdict::Count),
        },
    }
}

fn is_disruption(reason: &str) -> bool {
    DISRUPTION_REASONS.contains(&reason) || reason.starts_with(OUT_OF_ROOM)
}

/// How a pod looks that was killed says nothing about its task, so of a disrupted one only the rules
/// match that name the disruption itself.
fn rule_matches(rule: &PodFailureRule, task: &TaskView, disrupted: bool) -> bool {
    match &rule.on_exit_codes {
        Some(codes) => !disrupted && task.ended.iter().any(|container| exit_code_matches(codes, container)),
        None => rule.on_pod_conditions.iter().any(|pattern| {
            (!disrupted || pattern.type_ == DISRUPTION_TARGET)
                && task.conditions.iter().any(|c| *c.type_ == *pattern.type_ && c.status == pattern.status)
        }),
    }
}

fn exit_code_matches(codes: &OnExitCodes, container: &EndedContainer) -> bool {
    let here = codes.container_name.as_deref().is_none_or(|name| *name == *container.name);
    let listed = codes.values.contains(&container.exit_code);
    here && match codes.operator {
        ExitCodeOperator::In => listed,
        ExitCodeOperator::NotIn => container.exit_code != 0 && !listed,
    }
}

/// The traces an ended pod leaves in the job's status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Exit code of the first container that failed, or 0.
    pub code: i32,
    /// Why: of the pod, else of that container.
    pub reason: String,
    /// The container's termination message, else the pod's message.
    pub message: String,
    /// Node it ran on.
    pub node: String,
    /// When its last container ended, if one reports it.
    pub finished: Option<Timestamp>,
}

impl Exit {
    /// Reads an ended pod.
    pub fn of(pod: &PodView) -> Self {
        let task = pod.task.as_deref();
        let ended = task.map_or(&[][..], |task| &task.ended);
        let failed = ended
            .iter()
            .filter(|container| container.exit_code != 0)
            .min_by_key(|container| container.finished.unwrap_or(Timestamp::MAX));
        // Of a pod that succeeded, the container that has something to say.
        let speaker = failed
            .or_else(|| ended.iter().rev().find(|container| !container.message.is_empty()))
            .or_else(|| ended.last());
        let pod_reason = task.and_then(|task| task.reason.as_deref());
        let pod_message = task.and_then(|task| task.message.as_deref());
        let own_message = speaker.map(|container| &*container.message).filter(|message| !message.is_empty());
        let fallback = match pod.phase {
            PodPhase::Succeeded => "Completed",
            PodPhase::Failed | PodPhase::Pending | PodPhase::Running | PodPhase::Unknown => "Error",
        };
        let container_reason =
            speaker.map(|container| &*container.reason).filter(|reason| !reason.is_empty());
        Self {
            code: failed.map_or(0, |container| container.exit_code),
            reason: pod_reason.or(container_reason).unwrap_or(fallback).to_owned(),
            message: own_message.or(pod_message).unwrap_or_default().to_owned(),
            node: bounded_text(pod.node.as_deref().unwrap_or_default(), NODE_NAME_MAX_LENGTH),
            finished: task.and_then(|task| task.finished),
        }
    }

    /// Whether the container that failed first exceeded its memory limit.
    pub fn is_oom(&self) -> bool {
        self.reason == OOM_KILLED
    }

    /// The signal that ended the container, by the shells' rule that its exit code is 128 more; else 0.
    pub fn signal(&self) -> u32 {
        u32::try_from(self.code - 128).ok().filter(|signal| *signal < 128).unwrap_or(0)
    }
}

/// The pause after so many failures of a task: initial x 2^(failures - 1), up to the maximum.
pub fn backoff(retry: &Retry, failures: u32) -> SignedDuration {
    let Some(doublings) = failures.checked_sub(1) else { return SignedDuration::ZERO };
    let seconds = u64::from(retry.initial_backoff_seconds)
        .saturating_mul(1_u64.checked_shl(doublings).unwrap_or(u64::MAX))
        .min(u64::from(retry.max_backoff_seconds));
    // At most the maximum, which is a u32.
    SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(change: impl FnOnce(&mut Value)) -> PodView {
        let mut pod = json!({
            "metadata": {
                "namespace": "ns", "name": "a-0-0", "uid": "u", "creationTimestamp": "2026-11-11T00:00:00Z",
                "ownerReferences": [{"kind": "BatchJob", "name": "a", "uid": "j", "controller": true}],
            },
            "spec": {
                "nodeName": "n1",
                "containers": [{"name": "main"}, {"name": "other"}],
                "initContainers": [{"name": "proxy", "restartPolicy": "Always"}, {"name": "fetch"}],
            },
            "status": {"phase": "Failed", "containerStatuses": [
                {"name": "main", "state": {"terminated": {"exitCode": 2, "reason": "Error", "message": "late",
                    "finishedAt": "2026-11-11T00:00:09Z"}}},
                {"name": "other", "state": {"terminated": {"exitCode": 139, "reason": "Error", "message": "first",
                    "finishedAt": "2026-11-11T00:00:05Z"}}},
            ], "initContainerStatuses": [
                {"name": "proxy", "state": {"terminated": {"exitCode": 143, "reason": "Error",
                    "finishedAt": "2026-11-11T00:00:01Z"}}},
                {"name": "fetch", "state": {"terminated": {"exitCode": 0, "reason": "Completed",
                    "finishedAt": "2026-11-11T00:00:01Z"}}},
            ]},
        });
        change(&mut pod);
        serde_json::from_value(pod).unwrap()
    }

    fn policy(rules: Value) -> PodFailurePolicy {
        serde_json::from_value(json!({"rules": rules})).unwrap()
    }

    #[test]
    fn the_container_that_failed_first_speaks_and_a_sidecar_never_does() {
        let exit = Exit::of(&pod(|_| {}));
        assert_eq!((exit.code, exit.signal(), exit.message.as_str()), (139, 11, "first"));
        assert_eq!(exit.finished.unwrap().to_string(), "2026-11-11T00:00:09Z");
    }

    #[test]
    fn rules_are_taken_in_order_and_name_containers() {
        let rule = |action: &str, container: Option<&str>, operator: &str, values: &[i32]| {
            let mut codes = json!({"operator": operator, "values": values});
            if let Some(container) = container {
                codes["containerName"] = container.into();
            }
            json!({"action": action, "onExitCodes": codes})
        };
        let decide = |rules: Value| ending(&pod(|_| {}), Some(&policy(rules)));
        assert_eq!(
            decide(json!([
                rule("Ignore", Some("main"), "In", &[139]),
                rule("FailJob", Some("other"), "In", &[139])
            ])),
            Some(Ending::Failed(Verdict::FailJob { rule: 1 }))
        );
        assert_eq!(
            decide(json!([rule("FailIndex", None, "NotIn", &[139]), rule("FailJob", None, "In", &[2])])),
            Some(Ending::Failed(Verdict::FailIndex)),
            "2 is not in the list"
        );
        assert_eq!(
            decide(json!([rule("FailJob", None, "NotIn", &[2, 139])])),
            Some(Ending::Failed(Verdict::Count))
        );
    }

    #[test]
    fn what_something_else_ended_is_a_disruption_whatever_its_exit_code() {
        let rules = json!([{"action": "FailJob", "onExitCodes": {"operator": "NotIn", "values": [1]}}]);
        let policy = policy(rules);
        let deleted = pod(|pod| pod["metadata"]["deletionTimestamp"] = "2026-11-11T00:00:04Z".into());
        let evicted = pod(|pod| pod["status"]["reason"] = "Evicted".into());
        let no_room = pod(|pod| pod["status"]["reason"] = "OutOfcpu".into());
        let target = pod(|pod| {
            pod["status"]["conditions"] = json!([{"type": "DisruptionTarget", "status": "True"}]);
        });
        for pod in [deleted, evicted, no_room, target] {
            assert_eq!(ending(&pod, Some(&policy)), Some(Ending::Disrupted));
        }
        let over_its_own_deadline = pod(|pod| pod["status"]["reason"] = "DeadlineExceeded".into());
        assert_eq!(ending(&over_its_own_deadline, None), Some(Ending::Failed(Verdict::Count)));
    }

    #[test]
    fn a_pod_deleted_before_it_had_a_node_has_ended() {
        let waiting = |deleted: bool| {
            pod(|pod| {
                pod["status"] = json!({"phase": "Pending"});
                pod["spec"] = json!({"containers": []});
                if deleted {
                    pod["metadata"]["deletionTimestamp"] = "2026-11-11T00:00:04Z".into();
                }
            })
        };
        assert_eq!(ending(&waiting(false), None), None);
        assert_eq!(ending(&waiting(true), None), Some(Ending::Disrupted));
    }

    #[test]
    fn a_success_is_one_even_while_its_pod_is_deleted() {
        let pod = pod(|pod| {
            pod["status"]["phase"] = "Succeeded".into();
            pod["metadata"]["deletionTimestamp"] = "2026-11-11T00:00:04Z".into();
        });
        assert_eq!(ending(&pod, None), Some(Ending::Succeeded));
    }

    #[test]
    fn the_pause_doubles_up_to_its_maximum() {
        let retry = Retry::default();
        let pauses = [0, 1, 2, 3, 7, 64, 1000].map(|failures| backoff(&retry, failures).as_secs());
        assert_eq!(pauses, [0, 10, 20, 40, 600, 600, 600]);
        let none = Retry { initial_backoff_seconds: 0, ..Retry::default() };
        assert_eq!(backoff(&none, 1000).as_secs(), 0);
    }
}
