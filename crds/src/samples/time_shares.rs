//! Examples of TimeShareGroup and ReferenceGrant.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::Sample;
use crate::common::{
    Decimal, Drain, DrainConfirm, IntOrPercent, MetricGate, OnNoData, OnTimeout, PrometheusQuery, Quantity,
    ResourceAmounts, Window,
};
use crate::reference_grant::{FromKind, GrantFrom, GrantTo, ReferenceGrant, ReferenceGrantSpec, ToKind};
use crate::time_share_group::{
    Autoscalers, Guards, HttpRoute, LimitsPolicy, Member, MemberContainer, MemberKind, MemberRef,
    MemberWindow, MemoryPolicy, Mode, OnBreach, OnPreflightFailure, OnStuck, Order, Overlap, Override,
    Pairing, Preflight, Schedule, Step, Switch, TimeShareGroup, TimeShareGroupSpec, Traffic, TrafficMode,
    Unpaired, ValleyTraffic,
};

/// The time zone of the examples.
const ZONE: &str = "Asia/Shanghai";
/// When the override of an example ends: 10 November 2026, 19:00 UTC.
const OVERRIDE_ENDS: Timestamp = Timestamp::constant(1_794_337_200, 0);

/// The examples of TimeShareGroup.
#[must_use]
pub fn time_share_groups() -> Vec<Sample> {
    vec![
        sample(
            "timesharegroup-double11",
            "For Deployments payment and promo, whose pods are on the same nodes by pod affinity: promo has the peak, but \
             for two hours around midnight, and for four on the eleventh of November. Both templates have the valley's \
             requests and the label springtide.dev/traffic-serving: \"false\"; their Services select \"true\" beside app. A pod \
             of payment warms up for a quarter of a minute before it gets traffic. On the national holiday there is no such \
             night. Becomes Ready, reason Settled.",
            "double11",
            TimeShareGroupSpec {
                schedule: Schedule {
                    default_member: Some("promo".to_owned()),
                    skip_dates: vec!["2026-10-01".to_owned()],
                    windows: vec![
                        window("night", "payment", 600, daily("23:30", "01:30")),
                        window("double11", "payment", 1800, cron("0 0 11 11 *", 14_400)),
                    ],
                },
                ..TimeShareGroupSpec::new(vec![
                    Member {
                        warm_up_seconds: 15,
                        traffic: by_label(),
                        ..member("payment", MemberKind::Deployment)
                    },
                    Member { traffic: by_label(), ..member("promo", MemberKind::Deployment) },
                ])
            },
        ),
        sample(
            "timesharegroup-trial",
            "For a StatefulSet ledger and a ReplicaSet reports that no Deployment owns: nothing is changed, and the status \
             says what would be. Outside of its working hours nobody has the peak, so that batch jobs may have the room. A \
             twentieth of the ledger's pods would serve on at valley size, by the readiness gate springtide.dev/traffic. \
             Memory would move too, once it is free; the ledger would not shrink under load; and a switch would not begin \
             before each unit has been proved, nor go on with a unit that is stuck. The manager's \
             metricQueries.allowedAddresses must have its Prometheus. Stays not Ready, reason Observing, while a switch is \
             due; set spec.mode to Active to have it done.",
            "trial",
            TimeShareGroupSpec {
                mode: Mode::Observe,
                pairing: Pairing { unpaired: Unpaired::Leave },
                schedule: Schedule {
                    windows: vec![
                        window("day", "ledger", 900, daily("08:00", "20:00")),
                        window("closing", "reports", 300, daily("21:00", "23:00")),
                    ],
                    ..Schedule::default()
                },
                switch: Switch {
                    order: Order::ClaimFirst,
                    overlap: Overlap::Never,
                    steps: vec![
                        Step { percent: 5, hold_seconds: 300 },
                        Step { percent: 100, hold_seconds: 0 },
                    ],
                    max_in_flight_units: 50,
                    max_in_flight_units_per_node: 1,
                    nudge_after_seconds: 10,
                    unit_deadline_seconds: 120,
                    deadline_seconds: 1800,
                    on_stuck: OnStuck::Rollback,
                },
                guards: guarded(),
                autoscalers: Autoscalers::Refuse,
                ..TimeShareGroupSpec::new(trial())
            },
        ),
        sample(
            "timesharegroup-routes",
            "For Deployment checkout and one of namespace shop, where a ReferenceGrant lets this group name it: an HTTPRoute \
             gives checkout 100 parts of the traffic at its peak and 5 at any other time, and the pods are left alone. Both \
             are under a quota without room for two peaks, so one shrinks before the other grows. An incident has given \
             checkout the peak until 19:00 UTC on the tenth of November 2026; from then on nobody has it. Becomes Ready, \
             reason Settled.",
            "routes",
            TimeShareGroupSpec {
                override_: Some(Override {
                    member: Some("checkout".to_owned()),
                    until_time: Time(OVERRIDE_ENDS),
                    reason: "INC-4711: sales began early".to_owned(),
                }),
                switch: Switch { order: Order::ShrinkFirst, on_stuck: OnStuck::Pause, ..Switch::default() },
                ..TimeShareGroupSpec::new(vec![
                    Member { traffic: by_route(), ..member("checkout", MemberKind::Deployment) },
                    Member {
                        target_ref: MemberRef {
                            namespace: Some("shop".to_owned()),
                            ..target("catalog", MemberKind::Deployment)
                        },
                        ..member("catalog", MemberKind::Deployment)
                    },
                ])
            },
        ),
    ]
}

/// The examples of ReferenceGrant.
#[must_use]
pub fn reference_grants() -> Vec<Sample> {
    vec![Sample {
        file: "referencegrant-platform",
        doc: "Lets TimeShareGroups of namespace platform have Deployment catalog of this namespace as a member: they resize its \
              pods, and give and take its traffic. BatchQueues of namespace batch may follow the peaks of the groups here. \
              With its deletion that ends, in the middle of a switch too.",
        object: json!(ReferenceGrant::new(
            "platform",
            ReferenceGrantSpec {
                from: vec![from(FromKind::TimeShareGroup, "platform"), from(FromKind::BatchQueue, "batch"),],
                to: vec![
                    GrantTo {
                        group: Some("apps".to_owned()),
                        kind: ToKind::Deployment,
                        name: Some("catalog".to_owned()),
                    },
                    GrantTo {
                        group: Some("springtide.dev".to_owned()),
                        kind: ToKind::TimeShareGroup,
                        name: None,
                    },
                ],
            },
        )),
    }]
}

fn sample(file: &'static str, doc: &'static str, name: &str, spec: TimeShareGroupSpec) -> Sample {
    Sample { file, doc, object: json!(TimeShareGroup::new(name, spec)) }
}

/// The members of the group that only says what it would do.
fn trial() -> Vec<Member> {
    let ledger = Member {
        containers: vec![
            MemberContainer {
                limits: LimitsPolicy::KeepRatio,
                ..container(amounts("1", "256Mi"), amounts("100m", "64Mi"))
            },
            MemberContainer {
                name: "proxy".to_owned(),
                limits: LimitsPolicy::Keep,
                ..container(cores("200m"), cores("20m"))
            },
        ],
        memory: MemoryPolicy::Move,
        traffic: Traffic {
            mode: TrafficMode::ReadinessGate,
            valley: ValleyTraffic::Trickle,
            trickle: Some(IntOrPercent::Percent(5)),
            drain: Drain {
                confirm: DrainConfirm::EndpointSlice,
                min_seconds: 10,
                timeout_seconds: 120,
                on_timeout: OnTimeout::Proceed,
            },
            ..Traffic::default()
        },
        ..member("ledger", MemberKind::StatefulSet)
    };
    let reports = Member {
        containers: vec![container(amounts("1", "256Mi"), amounts("100m", "64Mi"))],
        memory: MemoryPolicy::Move,
        traffic: Traffic {
            mode: TrafficMode::ReadinessGate,
            valley: ValleyTraffic::Keep,
            ..Traffic::default()
        },
        ..member("reports", MemberKind::ReplicaSet)
    };
    vec![ledger, reports]
}

/// Guards that leave a switch undone rather than doubtful.
fn guarded() -> Guards {
    let gate = |name: &str, query: &str, failure_above: &str| MetricGate {
        name: name.to_owned(),
        prometheus: PrometheusQuery {
            address: "http://prometheus.monitoring:9090".to_owned(),
            query: query.to_owned(),
        },
        failure_above: Some(Decimal::new(failure_above)),
        failure_below: None,
        interval_seconds: 15,
        failure_limit: 2,
        on_no_data: OnNoData::Hold,
    };
    Guards {
        preflight: Preflight {
            lead_seconds: 3600,
            require_percent: 100,
            on_failure: OnPreflightFailure::Hold,
        },
        failure_threshold_percent: 0,
        donor_max_load: Some(gate("load", "avg(rate(http_requests_total{app=\"ledger\"}[1m]))", "50")),
        metrics: vec![gate("latency", "max(http_request_duration_seconds{quantile=\"0.99\"})", "0.5")],
        on_breach: OnBreach::Pause,
    }
}

/// A member whose workload has its name, with one container of an amount of memory that stays.
fn member(name: &str, kind: MemberKind) -> Member {
    Member {
        name: name.to_owned(),
        target_ref: target(name, kind),
        containers: vec![container(amounts("1", "64Mi"), amounts("100m", "64Mi"))],
        memory: MemoryPolicy::default(),
        warm_up_seconds: 0,
        traffic: Traffic::default(),
    }
}

fn target(name: &str, kind: MemberKind) -> MemberRef {
    MemberRef { api_version: "apps/v1".to_owned(), kind, name: name.to_owned(), namespace: None }
}

fn container(peak: ResourceAmounts, valley: ResourceAmounts) -> MemberContainer {
    MemberContainer { name: "app".to_owned(), peak, valley, limits: LimitsPolicy::default() }
}

fn amounts(cpu: &str, memory: &str) -> ResourceAmounts {
    ResourceAmounts { memory: Some(Quantity::new(memory)), ..cores(cpu) }
}

fn cores(cpu: &str) -> ResourceAmounts {
    ResourceAmounts { cpu: Some(Quantity::new(cpu)), memory: None }
}

fn by_label() -> Traffic {
    Traffic { mode: TrafficMode::ServiceLabel, ..Traffic::default() }
}

fn by_route() -> Traffic {
    Traffic {
        mode: TrafficMode::HttpRoute,
        http_route: Some(HttpRoute {
            name: "checkout".to_owned(),
            backend: "checkout".to_owned(),
            peak_weight: 100,
            valley_weight: 5,
        }),
        ..Traffic::default()
    }
}

fn window(name: &str, member: &str, lead_seconds: u32, window: Window) -> MemberWindow {
    MemberWindow { name: name.to_owned(), member: member.to_owned(), lead_seconds, window }
}

fn daily(start: &str, end: &str) -> Window {
    Window { start: Some(start.to_owned()), end: Some(end.to_owned()), ..open() }
}

fn cron(cron: &str, duration_seconds: u32) -> Window {
    Window { cron: Some(cron.to_owned()), duration_seconds: Some(duration_seconds), ..open() }
}

/// A window of neither form yet.
fn open() -> Window {
    Window {
        start: None,
        end: None,
        cron: None,
        duration_seconds: None,
        time_zone: ZONE.to_owned(),
        dates: None,
    }
}

fn from(kind: FromKind, namespace: &str) -> GrantFrom {
    GrantFrom { group: Some("springtide.dev".to_owned()), kind, namespace: namespace.to_owned() }
}
