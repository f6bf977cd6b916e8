//! The objects that the generator makes.

use serde_json::{Value, json};
use springtide_e2e::batch::POOL;
use springtide_e2e::kwok::RUN_SECONDS;

use crate::kueue::QUEUE;

/// A batch system that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum System {
    /// BatchJob and the manager.
    BatchJob,
    /// Job of Kubernetes and its controller manager.
    Job,
    /// The same, which Kueue holds back until it admits them.
    KueueJob,
}

impl System {
    /// The kind of its jobs.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::BatchJob => "BatchJob",
            Self::Job | Self::KueueJob => "Job",
        }
    }

    /// The label of its pods that names their job.
    pub(crate) fn job_label(self) -> &'static str {
        match self {
            Self::BatchJob => "springtide.dev/job",
            Self::Job | Self::KueueJob => "batch.kubernetes.io/job-name",
        }
    }

    fn api_version(self) -> &'static str {
        match self {
            Self::BatchJob => "springtide.dev/v1alpha1",
            Self::Job | Self::KueueJob => "batch/v1",
        }
    }

    /// Path of the jobs of a namespace.
    pub(crate) fn jobs(self, namespace: &str) -> String {
        let plural = match self {
            Self::BatchJob => "batchjobs",
            Self::Job | Self::KueueJob => "jobs",
        };
        format!("/apis/{}/namespaces/{namespace}/{plural}", self.api_version())
    }

    /// A job of one task.
    pub(crate) fn job(self, namespace: &str, name: &str, task: &Task) -> Value {
        let pod = pod_of(task);
        let mut spec = json!({
            "template": {"metadata": {"annotations": {RUN_SECONDS: task.run_seconds}}, "spec": pod},
        });
        if let Some(seconds) = task.ttl_seconds {
            spec["ttlSecondsAfterFinished"] = seconds.into();
        }
        if task.strict {
            spec["release"] = json!({"completionTracking": "Strict"});
        }
        let mut job = json!({
            "apiVersion": self.api_version(),
            "kind": self.kind(),
            "metadata": {"namespace": namespace, "name": name},
            "spec": spec,
        });
        match self {
            Self::BatchJob | Self::Job => {}
            // As its users do; its webhook suspends them.
            Self::KueueJob => job["metadata"]["labels"] = json!({"kueue.x-k8s.io/queue-name": QUEUE}),
        }
        job
    }
}

/// What a job runs, and how it is cleaned up.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    /// Seconds to its end, on a real node or as KWOK plays it, or `never`, which only KWOK knows.
    pub(crate) run_seconds: String,
    /// The only nodes that it runs on.
    pub(crate) pool: Option<&'static str>,
    /// How long a finished job stays; `None` for what its system does by default.
    pub(crate) ttl_seconds: Option<u32>,
    /// Completion tracking Strict, of a BatchJob.
    pub(crate) strict: bool,
}

impl Task {
    /// One that ends after so many seconds; its job is gone as soon as it has ended.
    pub(crate) fn of(run_seconds: impl Into<String>) -> Self {
        Self { run_seconds: run_seconds.into(), pool: None, ttl_seconds: Some(0), strict: false }
    }
}

/// Path of the pods of a namespace.
pub(crate) fn pods(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods")
}

/// The spec of a task's pod.
pub(crate) fn pod_of(task: &Task) -> Value {
    let mut pod = pod_spec(task);
    if let Some(pool) = task.pool {
        pod["nodeSelector"] = json!({POOL: pool});
    }
    pod
}

fn pod_spec(task: &Task) -> Value {
    json!({
        "restartPolicy": "Never",
        "containers": [{
            "name": "main",
            "image": "localhost/springtide-box:1",
            "args": ["sleep", task.run_seconds],
            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
        }],
    })
}

/// A pod of a job of this name that does not exist.
pub(crate) fn orphan(namespace: &str, job: &str, task: &Task) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "namespace": namespace,
            "name": format!("{job}-0-0"),
            "labels": {System::BatchJob.job_label(): job, "springtide.dev/tier": "BestEffort"},
            "annotations": {RUN_SECONDS: task.run_seconds},
        },
        "spec": pod_spec(task),
    })
}

/// The pod that the generator makes for a job, as the controller would.
pub(crate) fn pod(namespace: &str, job: &str, job_uid: &str, task: &Task) -> Value {
    let mut pod = orphan(namespace, job, task);
    pod["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "springtide.dev/v1alpha1", "kind": "BatchJob", "name": job, "uid": job_uid,
        "controller": true, "blockOwnerDeletion": true,
    }]);
    pod
}

/// A final status of the size the controller writes.
pub(crate) fn final_status() -> Value {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let condition = |kind: &str, status: &str, reason: &str| {
        json!({
            "type": kind, "status": status, "reason": reason, "observedGeneration": 1,
            "lastTransitionTime": now, "message": "",
        })
    };
    json!({"status": {
        "observedGeneration": 1,
        "succeeded": 1,
        "completionTime": now,
        "conditions": [
            condition("Complete", "True", "Completed"),
            condition("Queued", "False", "Finished"),
            condition("Admitted", "True", "BuiltInQueue"),
        ],
        "result": {"exitCode": 0, "reason": "Completed", "node": "kwok-0", "finishTime": now},
    }})
}

/// The status that a kubelet gives a pod whose container runs.
pub(crate) fn running() -> Value {
    pod_status("Running", "True", &json!({"running": {"startedAt": now()}}))
}

/// The status that a kubelet gives a pod whose container has ended well.
pub(crate) fn succeeded() -> Value {
    let now = now();
    let state =
        json!({"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now}});
    pod_status("Succeeded", "False", &state)
}

fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn pod_status(phase: &str, ready: &str, state: &Value) -> Value {
    let now = now();
    let condition =
        |kind: &str, status: &str| json!({"type": kind, "status": status, "lastTransitionTime": now});
    json!({"status": {
        "phase": phase,
        "startTime": now,
        "conditions": [
            condition("PodReadyToStartContainers", ready),
            condition("Initialized", "True"),
            condition("Ready", ready),
            condition("ContainersReady", ready),
        ],
        "containerStatuses": [{
            "name": "main", "image": "localhost/springtide-box:1", "imageID": "", "ready": ready == "True",
            "restartCount": 0, "state": state,
        }],
    }})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_of_all_systems_run_the_same_pods() {
        let task = Task { pool: Some("small"), ..Task::of("3") };
        let systems = [System::BatchJob, System::Job, System::KueueJob];
        let [ours, theirs, queued] = systems.map(|system| system.job("ns", "a", &task));
        assert_eq!(ours["spec"], theirs["spec"], "what differs would be measured too");
        assert_eq!(queued["spec"], theirs["spec"]);
        assert_eq!(queued["metadata"]["labels"]["kueue.x-k8s.io/queue-name"], QUEUE);
        assert!(theirs["metadata"].get("labels").is_none());
        assert_eq!(ours["spec"]["template"]["spec"]["nodeSelector"], json!({POOL: "small"}));
        assert_eq!(theirs["apiVersion"], "batch/v1");
        assert_eq!(System::Job.jobs("ns"), "/apis/batch/v1/namespaces/ns/jobs");
    }

    #[test]
    fn the_generators_pod_is_the_template_of_a_job() {
        let task = Task::of("0");
        let job = System::BatchJob.job("ns", "a", &task);
        let made = pod("ns", "a", "uid", &task);
        assert_eq!(made["spec"], job["spec"]["template"]["spec"]);
        assert_eq!(made["metadata"]["annotations"], job["spec"]["template"]["metadata"]["annotations"]);
        let read: k8s_openapi::api::core::v1::Pod = serde_json::from_value(made).unwrap();
        assert_eq!(read.metadata.owner_references.unwrap()[0].controller, Some(true));
    }

    #[test]
    fn the_jobs_are_such_as_the_kind_takes() {
        let task = Task { strict: true, ttl_seconds: None, ..Task::of("never") };
        let job: springtide_crds::batch_job::BatchJob =
            serde_json::from_value(System::BatchJob.job("ns", "a", &task)).unwrap();
        assert_eq!(job.spec.ttl_seconds_after_finished, None);
        let strict = springtide_crds::batch_job::CompletionTracking::Strict;
        assert_eq!(job.spec.release.completion_tracking, Some(strict));
    }
}
