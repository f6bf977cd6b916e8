//! What this controller may ask of the API server, verb by verb.

use crate::projections::horizontal_pod_autoscaler::HORIZONTAL_POD_AUTOSCALER;
use crate::projections::http_route::HTTP_ROUTE;
use crate::projections::resource_quota::RESOURCE_QUOTA;
use springtide_plumbing::key::Resource;
use springtide_plumbing::pod_metrics::POD_METRICS;
use springtide_plumbing::rights::{Right, Rights, Verb};
use springtide_plumbing::time_share::{REFERENCE_GRANT, TIME_SHARE_GROUP};
use springtide_plumbing::traffic::{ENDPOINT_SLICE, SERVICE};
use springtide_plumbing::workloads::kinds::{DEPLOYMENT, REPLICA_SET, STATEFUL_SET};
use springtide_plumbing::workloads::vertical_pod_autoscaler::VERTICAL_POD_AUTOSCALER;

/// Why a watch needs `list` beside `watch`.
const FALLBACK: &str = "stands in for the watch's first list where a server cannot stream it";
/// Why an object is read though its kind is watched.
const CONFIRM: &str = "one read settles a write whose outcome the server did not tell";

/// The rights of the controller of TimeShareGroup.
pub const RIGHTS: Rights = Rights { holder: "time-share-group", table: TABLE };

const TABLE: &[Right] = &[
    Right::new(TIME_SHARE_GROUP, Verb::Watch, "groups say which pods share nodes, and who has the peak"),
    Right::new(TIME_SHARE_GROUP, Verb::List, FALLBACK),
    Right::new(TIME_SHARE_GROUP, Verb::Get, CONFIRM),
    Right::new(
        TIME_SHARE_GROUP,
        Verb::Patch,
        "a finalizer is held from the first switch on, so that a deletion leaves no pod out of traffic",
    ),
    Right::new(TIME_SHARE_GROUP, Verb::Patch, "the course of a switch stands in the status").on("status"),
    Right::new(
        REFERENCE_GRANT,
        Verb::Watch,
        "workloads of other namespaces are members only where these grant it",
    ),
    Right::new(REFERENCE_GRANT, Verb::List, FALLBACK),
    Right::new(
        Resource::POD,
        Verb::Watch,
        "members' pods show where a switch stands, all others take room on the nodes",
    ),
    Right::new(Resource::POD, Verb::List, FALLBACK),
    Right::new(Resource::POD, Verb::Get, CONFIRM),
    Right::new(Resource::POD, Verb::Patch, "a label gives live pods traffic, and takes it from them")
        .only_with("serviceLabels"),
    Right::new(
        Resource::POD,
        Verb::Patch,
        "a readiness gate does the same, and a condition says that a pod was given up in a switch",
    )
    .on("status"),
    Right::new(Resource::POD, Verb::Patch, "cpu and memory move between live pods").on("resize"),
    Right::new(DEPLOYMENT, Verb::Watch, "its pods are switched, and its template has their valley size"),
    Right::new(DEPLOYMENT, Verb::List, FALLBACK),
    Right::new(REPLICA_SET, Verb::Watch, "pods of a Deployment are those of its ReplicaSets"),
    Right::new(REPLICA_SET, Verb::List, FALLBACK),
    Right::new(STATEFUL_SET, Verb::Watch, "its pods are switched, and its template has their valley size"),
    Right::new(STATEFUL_SET, Verb::List, FALLBACK),
    Right::new(SERVICE, Verb::Watch, "Services that list pods before they are ready prove no drain"),
    Right::new(SERVICE, Verb::List, FALLBACK),
    Right::new(ENDPOINT_SLICE, Verb::Watch, "a pod is drained when no slice lists it as ready"),
    Right::new(ENDPOINT_SLICE, Verb::List, FALLBACK),
    Right::new(RESOURCE_QUOTA, Verb::Watch, "no more pods grow at once than a quota has room for"),
    Right::new(RESOURCE_QUOTA, Verb::List, FALLBACK),
    Right::new(
        HORIZONTAL_POD_AUTOSCALER,
        Verb::Watch,
        "who scales by the utilization of a request takes a resize for a change of load",
    ),
    Right::new(HORIZONTAL_POD_AUTOSCALER, Verb::List, FALLBACK),
    Right::new(
        VERTICAL_POD_AUTOSCALER,
        Verb::Watch,
        "a group whose pods an autoscaler resizes too is refused; a cluster may do without the kind",
    ),
    Right::new(VERTICAL_POD_AUTOSCALER, Verb::List, FALLBACK),
    Right::new(
        HTTP_ROUTE,
        Verb::Watch,
        "weights of backends show how much traffic a member has; a cluster may do without the kind",
    ),
    Right::new(HTTP_ROUTE, Verb::List, FALLBACK),
    Right::new(HTTP_ROUTE, Verb::Get, CONFIRM),
    Right::new(HTTP_ROUTE, Verb::Patch, "the weight of a member's backend follows the steps of a switch")
        .only_with("httpRoutes"),
    Right::new(
        POD_METRICS,
        Verb::List,
        "memory is taken only from pods that do not use it, where a member's memory moves",
    ),
    Right::new(Resource::NODE, Verb::Watch, "pods grow where their node has room"),
    Right::new(Resource::NODE, Verb::List, FALLBACK),
    Right::new(Resource::EVENT, Verb::Create, "users are told when a switch begins, ends or needs a person"),
    Right::new(Resource::EVENT, Verb::Patch, "what happens again is counted in the event that tells of it"),
];
