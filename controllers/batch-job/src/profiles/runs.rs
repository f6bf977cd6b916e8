//! What the end of a pod says of its task.

use super::learned::{CONTAINERS_MAX, ContainerRun, Run};
use super::usage::Usage;
use crate::failure::{Ending, ending};
use crate::projections::job::JobView;
use crate::projections::pod::{EndedContainer, PodView};
use jiff::Timestamp;
use springtide_plumbing::projection::Projection;
use std::collections::HashMap;

/// Reason of a container that was killed when it had no memory left.
const OOM_KILLED: &str = "OOMKilled";

/// What was measured of a pod while it ran, by container.
pub(super) type Measured = HashMap<Box<str>, Usage>;

/// The run that an ended pod was, if it teaches something: it succeeded, or wanted more memory than it had. What
/// failed otherwise, or was disrupted, may have been at its beginning. Of the names of containers only those
/// of the template count, as others come from elsewhere.
pub(super) fn of_pod(job: &JobView, pod: &PodView, measured: &Measured, now: Timestamp) -> Option<Run> {
    let task = pod.task.as_deref()?;
    let is_killed = |ended: &EndedContainer| &*ended.reason == OOM_KILLED;
    let succeeded = match ending(pod, job.spec.pod_failure_policy.as_ref())? {
        Ending::Succeeded => true,
        // By the kernel, within its own limit: a rule that ignores that changes nothing about it.
        Ending::Failed(_) | Ending::Disrupted if task.ended.iter().any(is_killed) => false,
        Ending::Failed(_) | Ending::Disrupted => return None,
    };
    let created = pod.meta().creation_time;
    // The clocks of nodes may be off.
    let finished = task.finished.unwrap_or(now).max(created).min(now.max(created));
    let seconds = task.started.map(|started| finished.duration_since(started).as_secs_f64());
    let containers = job.template.containers().into_iter().take(CONTAINERS_MAX).map(|name| {
        let ended = task.ended.iter().find(|ended| *ended.name == *name);
        let said = ended.and_then(|ended| ended.usage).unwrap_or_default();
        let measured = measured.get(&*name).copied().unwrap_or_default();
        let killed_at = ended.filter(|ended| is_killed(ended)).map(|ended| ended.memory);
        ContainerRun { usage: said.or(measured), killed_at, name }
    });
    Some(Run {
        finished,
        seconds: seconds.filter(|seconds| succeeded && *seconds >= 0.0),
        containers: containers.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn job() -> JobView {
        serde_json::from_value(json!({
            "metadata": {"namespace": "ns", "name": "a", "uid": "j"},
            "spec": {"profile": {"key": "etl"}, "template": {"spec": {
                "containers": [{"name": "main"}, {"name": "log"}], "initContainers": [{"name": "fetch"}],
            }}},
        }))
        .unwrap()
    }

    fn pod(phase: &str, change: impl FnOnce(&mut Value)) -> PodView {
        let ended = |name: &str, message: &str| {
            json!({"name": name, "state": {"terminated": {
                "exitCode": 0, "reason": "Completed", "message": message,
                "startedAt": "2026-11-11T00:00:10Z", "finishedAt": "2026-11-11T00:00:50Z",
            }}})
        };
        let mut pod = json!({
            "metadata": {
                "namespace": "ns", "name": "a-0-0", "uid": "p", "creationTimestamp": "2026-11-11T00:00:00Z",
                "ownerReferences": [{"kind": "BatchJob", "name": "a", "uid": "j", "controller": true}],
            },
            "spec": {"nodeName": "n", "containers": [
                {"name": "main", "resources": {"limits": {"memory": "64Mi"}, "requests": {"memory": "32Mi"}}},
                {"name": "log", "resources": {"requests": {"memory": "16Mi"}}},
            ]},
            "status": {"phase": phase, "containerStatuses": [
                ended("main", "done\nusage: cpu=350m memory=60Mi"), ended("log", ""), ended("injected", "usage: cpu=9"),
            ]},
        });
        change(&mut pod);
        serde_json::from_value(pod).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    const NOW: &str = "2026-11-11T00:01:00Z";

    #[test]
    fn a_success_tells_time_and_usage_of_the_containers_of_its_template() {
        let measured = Measured::from([
            ("main".into(), Usage { cpu: Some(9), memory: Some(9) }),
            ("log".into(), Usage { cpu: Some(7), memory: None }),
        ]);
        let run = of_pod(&job(), &pod("Succeeded", |_| {}), &measured, at(NOW)).unwrap();
        assert_eq!((run.seconds, run.finished), (Some(40.0), at("2026-11-11T00:00:50Z")));
        let rows: Vec<_> =
            run.containers.iter().map(|row| (&*row.name, row.usage.cpu, row.usage.memory)).collect();
        assert_eq!(
            rows,
            [("main", Some(350), Some(60 << 20)), ("log", Some(7), None), ("fetch", None, None)],
            "what the task says goes before what was measured"
        );
        assert!(run.containers.iter().all(|row| row.killed_at.is_none()));
    }

    #[test]
    fn of_failures_only_the_want_of_memory_teaches() {
        let failed = |reason: &str, container: usize| {
            let pod = pod("Failed", |pod| {
                let state = &mut pod["status"]["containerStatuses"][container]["state"]["terminated"];
                state["exitCode"] = 137.into();
                state["reason"] = reason.into();
            });
            of_pod(&job(), &pod, &Measured::new(), at(NOW))
        };
        assert_eq!(failed("Error", 0), None);
        let run = failed("OOMKilled", 0).unwrap();
        assert_eq!(run.seconds, None);
        assert_eq!(run.containers[0].killed_at, Some(64 << 20), "at its limit");
        assert_eq!(failed("OOMKilled", 1).unwrap().containers[1].killed_at, Some(16 << 20), "or its request");
        let evicted = pod("Failed", |pod| pod["status"]["reason"] = "Evicted".into());
        assert_eq!(of_pod(&job(), &evicted, &Measured::new(), at(NOW)), None);
        assert_eq!(of_pod(&job(), &pod("Running", |_| {}), &Measured::new(), at(NOW)), None);
    }

    #[test]
    fn times_that_cannot_be_true_are_kept_within_what_can() {
        let ahead = pod("Succeeded", |pod| {
            for container in 0..3 {
                let state = &mut pod["status"]["containerStatuses"][container]["state"]["terminated"];
                state["finishedAt"] = "2030-01-01T00:00:00Z".into();
                state["startedAt"] = "2029-12-31T00:00:00Z".into();
            }
        });
        let run = of_pod(&job(), &ahead, &Measured::new(), at(NOW)).unwrap();
        assert_eq!((run.finished, run.seconds), (at(NOW), None));
    }
}
