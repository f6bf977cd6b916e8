//! Planners with a bug each, all of which really were made somewhere, or could be in a line or two.

use serde_json::json;
use springtide_batch_job::projections::job::{BATCH_JOB, JobView};
use springtide_batch_job::projections::pod::{PodPhase, PodView, TRACKING_FINALIZER};
use springtide_plumbing::key::Resource;
use springtide_plumbing::plan::{Action, Write, WriteClass, remove_finalizer};
use springtide_plumbing::projection::Projection;
use std::sync::Arc;

/// What a planner sees of its namespace, and of the first time it looked.
pub(crate) struct Seen {
    pub(crate) pods: Vec<Arc<PodView>>,
    pub(crate) jobs: Vec<Arc<JobView>>,
    pub(crate) first_pods: Vec<Arc<PodView>>,
    pub(crate) passes: usize,
}

/// A planner and its bug.
pub(crate) struct Bug {
    pub(crate) name: &'static str,
    pub(crate) plan: fn(&Seen) -> Vec<Write>,
}

fn delete(pod: &Arc<PodView>) -> Write {
    delete_with(pod, None, true)
}

fn delete_with(pod: &Arc<PodView>, grace_seconds: Option<u32>, in_this_version: bool) -> Write {
    let meta = pod.meta();
    Write {
        resource: Resource::POD,
        key: meta.key.clone(),
        class: WriteClass::Spec,
        action: Action::Delete {
            uid: meta.uid.clone(),
            resource_version: in_this_version.then_some(meta.resource_version),
            grace_seconds,
        },
    }
}

fn patch(pod: &Arc<PodView>, action: Action) -> Write {
    Write { resource: Resource::POD, key: pod.meta().key.clone(), class: WriteClass::Protective, action }
}

fn release(pod: &Arc<PodView>) -> Option<Write> {
    let meta = pod.meta();
    Some(patch(pod, remove_finalizer(&meta.uid, &meta.finalizers, TRACKING_FINALIZER)?))
}

/// A patch of all finalizers at once.
fn strip(pod: &Arc<PodView>, operation: serde_json::Value) -> Write {
    let test = json!({"op": "test", "path": "/metadata/uid", "value": pod.meta().uid});
    patch(pod, Action::json_patch(json!([test, operation])))
}

fn delete_job(job: &Arc<JobView>) -> Write {
    let meta = job.meta();
    Write {
        resource: BATCH_JOB,
        key: meta.key.clone(),
        class: WriteClass::Low,
        action: Action::Delete {
            uid: meta.uid.clone(),
            resource_version: Some(meta.resource_version),
            grace_seconds: None,
        },
    }
}

/// Pods that nobody deletes yet.
fn staying(seen: &Seen) -> impl Iterator<Item = &Arc<PodView>> {
    seen.pods.iter().filter(|pod| !pod.meta().is_deleting())
}

fn owned(seen: &Seen) -> impl Iterator<Item = &Arc<PodView>> {
    staying(seen).filter(|pod| pod.job_owner().is_some())
}

fn of_job<'a>(seen: &'a Seen, name: &'a str) -> impl Iterator<Item = &'a Arc<PodView>> {
    owned(seen).filter(move |pod| pod.job_name().is_some_and(|job| **job == *name))
}

fn index(pod: &PodView) -> u32 {
    pod.attempt().map_or(0, |(index, _)| index)
}

fn by_age(seen: &Seen) -> Vec<&Arc<PodView>> {
    let mut pods: Vec<_> = of_job(seen, "big").collect();
    pods.sort_by_key(|pod| (pod.meta().creation_time, pod.meta().resource_version));
    pods
}

pub(crate) const BUGS: &[Bug] = &[
    Bug {
        name: "releases whatever it owns, as if every phase were an end",
        plan: |seen| owned(seen).map(delete).collect(),
    },
    Bug {
        name: "takes every pod of the namespace for its own",
        plan: |seen| staying(seen).map(delete).collect(),
    },
    Bug {
        name: "inverts the test of the owner",
        plan: |seen| staying(seen).filter(|pod| pod.job_owner().is_none()).map(delete).collect(),
    },
    Bug {
        name: "inverts the test of the end",
        plan: |seen| owned(seen).filter(|pod| !pod.is_terminal()).map(delete).collect(),
    },
    Bug {
        name: "reads an absent parallelism as zero",
        plan: |seen| by_age(seen).into_iter().map(delete).collect(),
    },
    Bug {
        name: "reads the parallelism of another job, and ends the newest",
        plan: |seen| by_age(seen).into_iter().skip(1).rev().map(delete).collect(),
    },
    Bug {
        name: "sorts the wrong way round and keeps the wrong ones",
        plan: |seen| by_age(seen).into_iter().rev().skip(1).rev().map(delete).collect(),
    },
    Bug {
        name: "takes the finalizer from pods whose outcome is to come",
        plan: |seen| owned(seen).filter_map(release).collect(),
    },
    Bug {
        name: "takes the finalizer away and then the pod",
        plan: |seen| {
            owned(seen)
                .flat_map(|pod| release(pod).into_iter().chain([delete_with(pod, None, false)]))
                .collect()
        },
    },
    Bug {
        name: "replaces all finalizers by none",
        plan: |seen| {
            let none = json!({"op": "replace", "path": "/metadata/finalizers", "value": []});
            let held = owned(seen).filter(|pod| !pod.meta().finalizers.is_empty());
            held.map(|pod| strip(pod, none.clone())).collect()
        },
    },
    Bug {
        name: "removes the list of finalizers",
        plan: |seen| {
            let removed = json!({"op": "remove", "path": "/metadata/finalizers"});
            let held = owned(seen).filter(|pod| !pod.meta().finalizers.is_empty());
            held.map(|pod| strip(pod, removed.clone())).collect()
        },
    },
    Bug {
        name: "compares seconds with milliseconds, so that every pod is overdue",
        plan: |seen| owned(seen).filter(|pod| pod.node.is_none()).map(delete).collect(),
    },
    Bug {
        name: "takes StopPolicy::None for Drain",
        plan: |seen| of_job(seen, "big").map(|pod| delete_with(pod, Some(0), true)).collect(),
    },
    Bug {
        name: "finds no owner, as it looks in the wrong namespace",
        plan: |seen| of_job(seen, "big").map(|pod| delete_with(pod, None, false)).collect(),
    },
    Bug {
        name: "believes that indexes above a lowered count are superfluous",
        plan: |seen| of_job(seen, "big").filter(|pod| index(pod) >= 1).map(delete).collect(),
    },
    Bug {
        name: "believes that indexes below the first open one are closed",
        plan: |seen| of_job(seen, "big").filter(|pod| index(pod) <= 12).map(delete).collect(),
    },
    Bug {
        name: "preempts half of what is left, in every pass",
        plan: |seen| {
            let pods = by_age(seen);
            pods.iter().take(pods.len().div_ceil(2)).copied().map(delete).collect()
        },
    },
    Bug {
        name: "leaks: one pod in each pass, for ever",
        plan: |seen| of_job(seen, "big").take(1).map(delete).collect(),
    },
    Bug {
        name: "acts on the list it made first, whatever has come since",
        plan: |seen| {
            seen.first_pods
                .iter()
                .filter(|pod| pod.job_owner().is_some())
                .map(|pod| delete_with(pod, None, false))
                .collect()
        },
    },
    Bug {
        name: "swaps two jobs: ends the pods of the one when the other has ended",
        plan: |seen| {
            let has_ended = of_job(seen, "done").all(|pod| pod.phase == PodPhase::Succeeded);
            of_job(seen, "big").filter(|_| has_ended).map(delete).collect()
        },
    },
    Bug {
        name: "cleans up on its way out, as if no other process took over",
        plan: |seen| {
            owned(seen)
                .filter_map(release)
                .chain(staying(seen).map(|pod| delete_with(pod, Some(0), false)))
                .collect()
        },
    },
    Bug {
        name: "counts the time to live from the creation, and for jobs at work",
        plan: |seen| {
            let unfinished = seen.jobs.iter().filter(|job| !job.is_finished());
            unfinished.filter(|job| &*job.meta().key.name != "big").map(delete_job).collect()
        },
    },
    Bug {
        name: "trims the history by name",
        plan: |seen| seen.jobs.iter().skip(1).map(delete_job).collect(),
    },
    Bug {
        name: "retries with a pod more each time it was refused",
        plan: |seen| by_age(seen).into_iter().take(seen.passes + 3).map(delete).collect(),
    },
];
