//! What this controller may ask of the API server, verb by verb.

use crate::projections::upgrade::IN_PLACE_UPGRADE;
use springtide_plumbing::disruption::POD_DISRUPTION_BUDGET;
use springtide_plumbing::key::Resource;
use springtide_plumbing::rights::{Right, Rights, Verb};
use springtide_plumbing::time_share::{REFERENCE_GRANT, TIME_SHARE_GROUP};
use springtide_plumbing::traffic::{ENDPOINT_SLICE, SERVICE};
use springtide_plumbing::workloads::kinds::{
    CONTROLLER_REVISION, DAEMON_SET, DEPLOYMENT, REPLICA_SET, STATEFUL_SET,
};
use springtide_plumbing::workloads::vertical_pod_autoscaler::VERTICAL_POD_AUTOSCALER;

/// Why a watch needs `list` beside `watch`.
const FALLBACK: &str = "stands in for the watch's first list where a server cannot stream it";
/// Why an object is read though its kind is watched.
const CONFIRM: &str = "one read settles a write whose outcome the server did not tell";

/// The rights of the controller of InPlaceUpgrade.
pub const RIGHTS: Rights = Rights { holder: "in-place-upgrade", table: TABLE };

const TABLE: &[Right] = &[
    Right::new(IN_PLACE_UPGRADE, Verb::Watch, "objects say what pods are to become"),
    Right::new(IN_PLACE_UPGRADE, Verb::List, FALLBACK),
    Right::new(IN_PLACE_UPGRADE, Verb::Get, CONFIRM),
    Right::new(
        IN_PLACE_UPGRADE,
        Verb::Patch,
        "a finalizer is held while a run is open, so that a deletion leaves no pod out of traffic",
    ),
    Right::new(IN_PLACE_UPGRADE, Verb::Patch, "the course of a run stands in the status").on("status"),
    Right::new(Resource::POD, Verb::Watch, "pods are held against the wish, and show how a run goes"),
    Right::new(Resource::POD, Verb::List, FALLBACK),
    Right::new(Resource::POD, Verb::Get, CONFIRM),
    Right::new(Resource::POD, Verb::Patch, "images, labels and annotations of live pods are changed"),
    Right::new(Resource::POD, Verb::Patch, "a readiness gate takes a pod out of traffic while it restarts")
        .on("status"),
    Right::new(Resource::POD, Verb::Patch, "cpu and memory of live pods are changed").on("resize"),
    Right::new(Resource::POD, Verb::Create, "images are pulled to a node before anything there is stopped"),
    Right::new(Resource::POD, Verb::Delete, "pods that have pulled images go"),
    Right::new(
        Resource::POD,
        Verb::Create,
        "pods that cannot be changed in place are evicted where the policy says so, as budgets allow",
    )
    .on("eviction"),
    Right::new(DEPLOYMENT, Verb::Watch, "its template is the wish, its pause the lock"),
    Right::new(DEPLOYMENT, Verb::List, FALLBACK),
    Right::new(DEPLOYMENT, Verb::Get, CONFIRM),
    Right::new(DEPLOYMENT, Verb::Patch, "an inline wish is written into its template"),
    Right::new(REPLICA_SET, Verb::Watch, "its template is what pods are made from"),
    Right::new(REPLICA_SET, Verb::List, FALLBACK),
    Right::new(REPLICA_SET, Verb::Get, CONFIRM),
    Right::new(REPLICA_SET, Verb::Patch, "it gets the template of its Deployment when its pods have it"),
    Right::new(
        REPLICA_SET,
        Verb::Create,
        "one without pods keeps the old template for an undo, or replaces a lost one",
    ),
    Right::new(STATEFUL_SET, Verb::Watch, "its template is the wish, its partition the lock"),
    Right::new(STATEFUL_SET, Verb::List, FALLBACK),
    Right::new(STATEFUL_SET, Verb::Get, CONFIRM),
    Right::new(
        STATEFUL_SET,
        Verb::Patch,
        "its partition follows its pods, and a wish comes into its template",
    ),
    Right::new(DAEMON_SET, Verb::Watch, "its template is the wish, OnDelete the lock"),
    Right::new(DAEMON_SET, Verb::List, FALLBACK),
    Right::new(DAEMON_SET, Verb::Get, CONFIRM),
    Right::new(DAEMON_SET, Verb::Patch, "an inline wish is written into its template"),
    Right::new(CONTROLLER_REVISION, Verb::Watch, "pods name the revision that they are of"),
    Right::new(CONTROLLER_REVISION, Verb::List, FALLBACK),
    Right::new(POD_DISRUPTION_BUDGET, Verb::Watch, "no pod starts that a budget needs"),
    Right::new(POD_DISRUPTION_BUDGET, Verb::List, FALLBACK),
    Right::new(SERVICE, Verb::Watch, "Services that list pods before they are ready prove no drain"),
    Right::new(SERVICE, Verb::List, FALLBACK),
    Right::new(ENDPOINT_SLICE, Verb::Watch, "a pod is drained when no slice lists it as ready"),
    Right::new(ENDPOINT_SLICE, Verb::List, FALLBACK),
    Right::new(
        VERTICAL_POD_AUTOSCALER,
        Verb::Watch,
        "cpu and memory that an autoscaler decides are left to it; a cluster may do without the kind",
    ),
    Right::new(VERTICAL_POD_AUTOSCALER, Verb::List, FALLBACK),
    Right::new(
        TIME_SHARE_GROUP,
        Verb::Watch,
        "a run holds while its workload is switched or at peak, and leaves the sizes of members to their group",
    ),
    Right::new(TIME_SHARE_GROUP, Verb::List, FALLBACK),
    Right::new(REFERENCE_GRANT, Verb::Watch, "a group of another namespace has a member by grant alone"),
    Right::new(REFERENCE_GRANT, Verb::List, FALLBACK),
    Right::new(
        Resource::NODE,
        Verb::Watch,
        "nodes tell which images they have, and how much a pod may request",
    ),
    Right::new(Resource::NODE, Verb::List, FALLBACK),
    Right::new(Resource::EVENT, Verb::Create, "users are told when a run needs a person or has ended"),
    Right::new(Resource::EVENT, Verb::Patch, "what happens again is counted in the event that tells of it"),
];
