//! Examples of InPlaceUpgrade.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::{IMAGE, Sample};
use crate::common::{
    Decimal, Drain, DrainConfirm, IntOrPercent, MetricGate, OnNoData, OnTimeout, PrometheusQuery, Quantity,
    ResourceAmounts, Window,
};
use crate::in_place_upgrade::{
    ContainerResources, DisruptionBudgets, DriftPolicy, FieldOwnership, FreezeWindow, Health, History, Hold,
    HoldType, InPlaceUpgrade, InPlaceUpgradeSpec, Ineligible, Inline, InlineContainer, InlineMetadata, Lock,
    Mode, OnFailure, Persist, Policy, PrePull, PrePullMode, PrePullScope, Restart, Rollback, Source,
    SourceType, Step, Strategy, TargetKind, TimeSharePolicy, TopologyLimit, Traffic, TrafficMode,
};

/// Pods of an example that are older are restarted: 23 November 2026, 10:00 UTC.
const RESTART_BEFORE: Timestamp = Timestamp::constant(1_795_428_000, 0);

/// The examples of InPlaceUpgrade.
#[must_use]
pub fn in_place_upgrades() -> Vec<Sample> {
    [of_templates(), of_single_features(), of_patches()].concat()
}

fn sample(file: &'static str, doc: &'static str, name: &str, spec: InPlaceUpgradeSpec) -> Sample {
    Sample { file, doc, object: json!(InPlaceUpgrade::new(name, spec)) }
}

fn step(replicas: IntOrPercent, hold: Option<Hold>) -> Step {
    Step { replicas, hold }
}

/// The wish stands in the workload's template.
fn of_templates() -> Vec<Sample> {
    vec![
        sample(
            "inplaceupgrade-web",
            "For a Deployment web that is paused in Git: a new image in its template reaches the live pods. One pod \
             first, and then somebody approves status.targetHash in spec.approval; a tenth next, ten minutes to look at \
             it, and the rest. At most half of what changes at a time is in one zone, and nothing starts in the busy \
             hours. A rate of errors above one in a hundred, twice in a row, rolls everything back in place; the \
             manager's metricQueries.allowedAddresses must have its Prometheus. Becomes Ready, reason UpToDate.",
            "web",
            InPlaceUpgradeSpec {
                strategy: Strategy {
                    steps: vec![
                        step(
                            IntOrPercent::Int(1),
                            Some(Hold { type_: HoldType::Approval, duration_seconds: None }),
                        ),
                        step(
                            IntOrPercent::Percent(10),
                            Some(Hold { type_: HoldType::Duration, duration_seconds: Some(600) }),
                        ),
                        step(IntOrPercent::ALL, None),
                    ],
                    max_in_flight_per_topology: Some(TopologyLimit {
                        topology_key: "topology.kubernetes.io/zone".to_owned(),
                        max: IntOrPercent::Percent(5),
                    }),
                    min_ready_seconds: 10,
                    ..Strategy::default()
                },
                health: Health {
                    metrics: vec![MetricGate {
                        name: "errors".to_owned(),
                        prometheus: PrometheusQuery {
                            address: "http://prometheus.monitoring:9090".to_owned(),
                            query: "sum(rate(http_requests_total{app=\"web\",code=~\"5..\"}[1m])) / \
                                    sum(rate(http_requests_total{app=\"web\"}[1m]))"
                                .to_owned(),
                        },
                        failure_above: Some(Decimal::new("0.01")),
                        failure_below: None,
                        interval_seconds: 15,
                        failure_limit: 2,
                        on_no_data: OnNoData::Ignore,
                    }],
                    ..Health::default()
                },
                freeze_windows: vec![FreezeWindow {
                    name: "day".to_owned(),
                    window: Window {
                        start: Some("08:00".to_owned()),
                        end: Some("20:00".to_owned()),
                        cron: None,
                        duration_seconds: None,
                        time_zone: "Asia/Shanghai".to_owned(),
                        dates: None,
                    },
                }],
                ..InPlaceUpgradeSpec::new(TargetKind::Deployment, "web")
            },
        ),
        sample(
            "inplaceupgrade-database",
            "For a StatefulSet database with updateStrategy.rollingUpdate.partition: 100000: one pod after the other, from \
             the highest ordinal, each out of traffic for ten seconds before its containers stop. All nodes pull the \
             images at the start. A pod that does not leave traffic in two minutes is a failed one, and the first failed \
             pod stops the run for a person to look at. Becomes Ready, reason UpToDate; the partition is then what it \
             was.",
            "database",
            InPlaceUpgradeSpec {
                policy: Policy { time_share: TimeSharePolicy::HoldDuringSwitch, ..Policy::default() },
                strategy: Strategy {
                    max_unavailable: IntOrPercent::Int(1),
                    pod_deadline_seconds: 900,
                    resize_timeout_seconds: 600,
                    ..Strategy::default()
                },
                traffic: Traffic {
                    mode: TrafficMode::ReadinessGate,
                    drain: Drain {
                        confirm: DrainConfirm::EndpointSlice,
                        min_seconds: 10,
                        timeout_seconds: 120,
                        on_timeout: OnTimeout::Fail,
                    },
                },
                pre_pull: PrePull {
                    mode: PrePullMode::Auto,
                    scope: PrePullScope::All,
                    parallelism: 5,
                    timeout_seconds: 1800,
                },
                health: Health {
                    failure_threshold: IntOrPercent::Int(0),
                    max_restarts: 1,
                    metrics: Vec::new(),
                },
                rollback: Rollback { on_failure: OnFailure::Hold },
                ..InPlaceUpgradeSpec::new(TargetKind::StatefulSet, "database")
            },
        ),
        sample(
            "inplaceupgrade-agents",
            "For a DaemonSet agents with updateStrategy OnDelete: container agent of each pod that is older than the time \
             given is restarted in place, a twentieth of the nodes at a time. Pods are in no Service, so nothing is \
             drained; pods that differ later are repaired. Becomes Ready, reason UpToDate.",
            "agents",
            InPlaceUpgradeSpec {
                restart: Some(Restart {
                    before_time: Time(RESTART_BEFORE),
                    containers: vec!["agent".to_owned()],
                }),
                policy: Policy { drift: DriftPolicy::Repair, ..Policy::default() },
                strategy: Strategy {
                    max_unavailable: IntOrPercent::Percent(5),
                    disruption_budgets: DisruptionBudgets::Ignore,
                    ..Strategy::default()
                },
                traffic: Traffic { mode: TrafficMode::None, ..Traffic::default() },
                ..InPlaceUpgradeSpec::new(TargetKind::DaemonSet, "agents")
            },
        ),
        sample(
            "inplaceupgrade-preview",
            "For a ReplicaSet preview that no Deployment owns: nothing is changed. status.plan says how many pods would be \
             changed in place, and for how many a new pod would be needed. Stays not Ready, reason PlanOnly; set \
             spec.mode to Apply to have it done.",
            "preview",
            InPlaceUpgradeSpec {
                mode: Mode::Plan,
                policy: Policy { ineligible: Ineligible::Recreate, ..Policy::default() },
                ..InPlaceUpgradeSpec::new(TargetKind::ReplicaSet, "preview")
            },
        ),
    ]
}

/// As the ones above, each for one thing that a workload may need.
fn of_single_features() -> Vec<Sample> {
    vec![
        sample(
            "inplaceupgrade-shop",
            "For a Deployment shop that is paused in Git, whose pods have the label springtide.dev/upgrade-serving: \"true\", \
             which their Service selects beside app: shop. New pods then need nobody to become ready. A load balancer \
             addresses pods by itself and takes half a minute to let one go, so each serves for 40 s after the proof; one \
             that does not leave traffic in three minutes gets it back, and has its turn later. Becomes Ready, reason \
             UpToDate.",
            "shop",
            InPlaceUpgradeSpec {
                traffic: Traffic {
                    mode: TrafficMode::ServiceLabel,
                    drain: Drain {
                        confirm: DrainConfirm::EndpointSlice,
                        min_seconds: 40,
                        timeout_seconds: 180,
                        on_timeout: OnTimeout::Skip,
                    },
                },
                ..InPlaceUpgradeSpec::new(TargetKind::Deployment, "shop")
            },
        ),
        sample(
            "inplaceupgrade-search",
            "For a StatefulSet search of type OnDelete: most changes of its template reach the live pods; a pod that cannot \
             take one on, as of a volume or a node selector, is evicted instead, and comes back with the template. One pod at \
             a time, a tenth first, an hour to look at it. Becomes Ready, reason UpToDate.",
            "search",
            InPlaceUpgradeSpec {
                policy: Policy { ineligible: Ineligible::Recreate, ..Policy::default() },
                strategy: Strategy {
                    steps: vec![
                        step(
                            IntOrPercent::Percent(10),
                            Some(Hold { type_: HoldType::Duration, duration_seconds: Some(3600) }),
                        ),
                        step(IntOrPercent::ALL, None),
                    ],
                    max_unavailable: IntOrPercent::Int(1),
                    ..Strategy::default()
                },
                ..InPlaceUpgradeSpec::new(TargetKind::StatefulSet, "search")
            },
        ),
    ]
}

/// The wish stands in the object.
fn of_patches() -> Vec<Sample> {
    vec![
        sample(
            "inplaceupgrade-hotfix",
            "A hotfix of the pods of Deployment web, whose template stays as it is: another image, and two CPUs. Pods made \
             anew are patched again, until the object is deleted. Images are left to the kubelet, and pods that cannot be \
             changed are let be. Becomes Ready, reason UpToDate.",
            "hotfix",
            InPlaceUpgradeSpec {
                source: Source {
                    type_: SourceType::Inline,
                    inline: Some(Inline {
                        persist: Persist::PodsOnly,
                        containers: vec![InlineContainer {
                            name: "app".to_owned(),
                            image: Some(IMAGE.to_owned()),
                            resources: Some(two_cpus()),
                        }],
                        metadata: None,
                    }),
                },
                policy: Policy { ineligible: Ineligible::Ignore, ..Policy::default() },
                traffic: Traffic {
                    drain: Drain { on_timeout: OnTimeout::Proceed, ..Drain::default() },
                    ..Traffic::default()
                },
                pre_pull: PrePull { mode: PrePullMode::None, ..PrePull::default() },
                ..InPlaceUpgradeSpec::new(TargetKind::Deployment, "web")
            },
        ),
        sample(
            "inplaceupgrade-cache",
            "For a Deployment cache that nobody has paused: more cpu and memory for its live pods, and for its template \
             after them. A container is resized as it runs, so nothing is drained and nothing restarts; a node that has no \
             room for it now is given ten minutes. One pod first, and a quarter of an hour to look at it. Becomes Ready, reason \
             UpToDate.",
            "cache",
            InPlaceUpgradeSpec {
                source: Source {
                    type_: SourceType::Inline,
                    inline: Some(Inline {
                        persist: Persist::Template,
                        containers: vec![InlineContainer {
                            name: "app".to_owned(),
                            image: None,
                            resources: Some(more_memory()),
                        }],
                        metadata: None,
                    }),
                },
                policy: Policy { lock: Lock::Transient, ..Policy::default() },
                strategy: Strategy {
                    steps: vec![
                        step(
                            IntOrPercent::Int(1),
                            Some(Hold { type_: HoldType::Duration, duration_seconds: Some(900) }),
                        ),
                        step(IntOrPercent::ALL, None),
                    ],
                    resize_timeout_seconds: 600,
                    ..Strategy::default()
                },
                ..InPlaceUpgradeSpec::new(TargetKind::Deployment, "cache")
            },
        ),
        sample(
            "inplaceupgrade-api",
            "For a Deployment api that nobody has paused: an image and an annotation reach its pods and then its template, \
             and the Deployment is paused only while it takes over what has been done. A field that another manager owns \
             is taken from it, and no ReplicaSet is left behind for an undo. Becomes Ready, reason UpToDate.",
            "api",
            InPlaceUpgradeSpec {
                source: Source {
                    type_: SourceType::Inline,
                    inline: Some(Inline {
                        persist: Persist::Template,
                        containers: vec![InlineContainer {
                            name: "app".to_owned(),
                            image: Some(IMAGE.to_owned()),
                            resources: None,
                        }],
                        metadata: Some(InlineMetadata {
                            labels: BTreeMap::new(),
                            annotations: BTreeMap::from([("config".to_owned(), "v2".to_owned())]),
                        }),
                    }),
                },
                policy: Policy {
                    lock: Lock::Transient,
                    field_ownership: FieldOwnership::Force,
                    history: History::None,
                    ..Policy::default()
                },
                ..InPlaceUpgradeSpec::new(TargetKind::Deployment, "api")
            },
        ),
    ]
}

fn more_memory() -> ContainerResources {
    let amounts = |cpu: &str, memory: &str| ResourceAmounts {
        cpu: Some(Quantity::new(cpu)),
        memory: Some(Quantity::new(memory)),
    };
    ContainerResources { requests: Some(amounts("1", "2Gi")), limits: Some(amounts("2", "2Gi")) }
}

fn two_cpus() -> ContainerResources {
    let amounts = ResourceAmounts { cpu: Some(Quantity::new("2")), memory: None };
    ContainerResources { requests: Some(amounts.clone()), limits: Some(amounts) }
}
