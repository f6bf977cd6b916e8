//! What this controller may ask of the API server, verb by verb.

use crate::loads::sampler::NODE_METRICS;
use crate::pod_groups::POD_GROUP;
use crate::projections::job::BATCH_JOB;
use crate::projections::priority_class::PRIORITY_CLASS;
use crate::projections::profile::BATCH_TASK_PROFILE;
use crate::projections::queue::BATCH_QUEUE;
use springtide_plumbing::key::Resource;
use springtide_plumbing::pod_metrics::POD_METRICS;
use springtide_plumbing::rights::{Right, Rights, Verb};
use springtide_plumbing::time_share::{REFERENCE_GRANT, TIME_SHARE_GROUP};

/// Why a watch needs `list` beside `watch`.
const FALLBACK: &str = "stands in for the watch's first list where a server cannot stream it";
/// Why an object is read though its kind is watched.
const CONFIRM: &str = "one read settles a write whose outcome the server did not tell";
/// The same of a kind that is not watched.
const CONFIRM_UNWATCHED: &str = "one read tells whether it was made where the server did not";

/// The rights of the controllers of BatchJob and BatchQueue.
pub const RIGHTS: Rights = Rights { holder: "batch-job", table: TABLE };

const TABLE: &[Right] = &[
    Right::new(BATCH_JOB, Verb::Watch, "jobs are what it works on"),
    Right::new(BATCH_JOB, Verb::List, FALLBACK),
    Right::new(BATCH_JOB, Verb::Get, CONFIRM),
    Right::new(BATCH_JOB, Verb::Delete, "a finished job goes after its `ttlSecondsAfterFinished`"),
    Right::new(BATCH_JOB, Verb::Patch, "counts, results and conditions stand in the status").on("status"),
    Right::new(
        BATCH_JOB,
        Verb::Update,
        "pods block the deletion of the job that owns them, which clusters with the admission plugin \
         OwnerReferencesPermissionEnforcement allow only to those who could finalize it",
    )
    .on("finalizers"),
    Right::new(BATCH_QUEUE, Verb::Watch, "queues say what jobs may use, and what their pods get"),
    Right::new(BATCH_QUEUE, Verb::List, FALLBACK),
    Right::new(BATCH_QUEUE, Verb::Get, CONFIRM),
    Right::new(BATCH_QUEUE, Verb::Patch, "use, capacity and what waits stand in the status").on("status"),
    Right::new(
        PRIORITY_CLASS,
        Verb::Watch,
        "jobs wait while the PriorityClass of their queue's tier is missing",
    ),
    Right::new(PRIORITY_CLASS, Verb::List, FALLBACK),
    Right::new(TIME_SHARE_GROUP, Verb::Watch, "peak windows of queues may follow its peaks"),
    Right::new(TIME_SHARE_GROUP, Verb::List, FALLBACK),
    Right::new(REFERENCE_GRANT, Verb::Watch, "a queue follows a group of another namespace by grant alone"),
    Right::new(REFERENCE_GRANT, Verb::List, FALLBACK),
    Right::new(BATCH_TASK_PROFILE, Verb::Watch, "what is recommended there is given to pods"),
    Right::new(BATCH_TASK_PROFILE, Verb::List, FALLBACK),
    Right::new(BATCH_TASK_PROFILE, Verb::Get, CONFIRM),
    Right::new(BATCH_TASK_PROFILE, Verb::Create, "the first job with a `profile.key` makes its profile"),
    Right::new(BATCH_TASK_PROFILE, Verb::Patch, "what the runs of tasks teach stands in the status")
        .on("status"),
    Right::new(
        POD_METRICS,
        Verb::List,
        "profiles learn the usage of pods that run, where somebody serves it; queues by NodeMetrics tell batch work from \
         other load",
    ),
    Right::new(
        NODE_METRICS,
        Verb::List,
        "queues with load triggers, or by NodeMetrics, follow the load of nodes",
    ),
    Right::new(Resource::POD, Verb::Watch, "a job's pods tell its course, all others take room on the nodes"),
    Right::new(Resource::POD, Verb::List, FALLBACK),
    Right::new(Resource::POD, Verb::Get, CONFIRM),
    Right::new(Resource::POD, Verb::Create, "a task that has been granted room runs as a pod"),
    Right::new(
        Resource::POD,
        Verb::Patch,
        "the tracking finalizer is taken off when the outcome stands in the job's status",
    ),
    Right::new(Resource::POD, Verb::Delete, "pods go when they have ended, or when their job is to stop"),
    Right::new(
        POD_GROUP,
        Verb::Create,
        "a gang gets one where its queue asks the scheduler to place it as a whole",
    ),
    Right::new(POD_GROUP, Verb::Get, CONFIRM_UNWATCHED),
    Right::new(Resource::NODE, Verb::Watch, "tasks are granted what is free on the nodes"),
    Right::new(Resource::NODE, Verb::List, FALLBACK),
    Right::new(Resource::EVENT, Verb::Create, "users are told when a job needs a person or is stopped"),
    Right::new(Resource::EVENT, Verb::Patch, "what happens again is counted in the event that tells of it"),
];
