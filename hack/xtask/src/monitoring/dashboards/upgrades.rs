//! What the dashboard of upgrades in place shows.

use super::{Panel, Row};

/// How upgrades go, and what they cost.
pub(super) const UPGRADES: &[Row] = &[
    Row {
        title: "Upgrades",
        panels: &[
            Panel {
                title: "Upgrades by state",
                description: "By the reason of condition Ready. The counts of all instances are the same.",
                unit: "short",
                targets: &[(
                    r#"max by (ready_reason) (springtide_objects{job=~"$job",kind="InPlaceUpgrade"})"#,
                    "{{ready_reason}}",
                )],
            },
            Panel {
                title: "Upgrades that need a person",
                description: "By the reason of condition Stalled. They do not go on by themselves.",
                unit: "short",
                targets: &[(
                    r#"max by (reason) (springtide_objects_stalled{job=~"$job",kind="InPlaceUpgrade"}) > 0"#,
                    "{{reason}}",
                )],
            },
            Panel {
                title: "Pods by verdict",
                description: "What is still to be done to them. Those that are blocked cannot be changed in place as they are.",
                unit: "short",
                targets: &[(r#"max by (verdict) (springtide_ipu_pods{job=~"$job"})"#, "{{verdict}}")],
            },
            Panel {
                title: "Restarts and rollbacks",
                description: "Containers that were replaced, beside those that restart by themselves; and runs that went wrong \
                              and were sent back.",
                unit: "short",
                targets: &[
                    (
                        r#"sum(increase(springtide_ipu_restarts_total{job=~"$job"}[$__rate_interval]))"#,
                        "containers",
                    ),
                    (
                        r#"sum(increase(springtide_ipu_rollbacks_total{job=~"$job"}[$__rate_interval]))"#,
                        "rollbacks",
                    ),
                ],
            },
        ],
    },
    Row {
        title: "Pods",
        panels: &[
            Panel {
                title: "Steps of a pod",
                description: "Out of traffic (drain), resized, started anew, back in traffic (ready): half of the pods are \
                              faster than p50.",
                unit: "s",
                targets: &[
                    (
                        r#"histogram_quantile(0.5, sum by (le, step) (rate(springtide_ipu_pod_seconds_bucket{job=~"$job"}[$__rate_interval])))"#,
                        "{{step}} p50",
                    ),
                    (
                        r#"histogram_quantile(0.99, sum by (le, step) (rate(springtide_ipu_pod_seconds_bucket{job=~"$job"}[$__rate_interval])))"#,
                        "{{step}} p99",
                    ),
                ],
            },
            Panel {
                title: "Downtime of a pod",
                description: "Not ready for an upgrade, from the first moment to the last.",
                unit: "s",
                targets: &[
                    (
                        r#"histogram_quantile(0.5, sum by (le) (rate(springtide_ipu_pod_downtime_seconds_bucket{job=~"$job"}[$__rate_interval])))"#,
                        "p50",
                    ),
                    (
                        r#"histogram_quantile(0.99, sum by (le) (rate(springtide_ipu_pod_downtime_seconds_bucket{job=~"$job"}[$__rate_interval])))"#,
                        "p99",
                    ),
                ],
            },
            Panel {
                title: "Images pulled ahead",
                description: "Until a node had them. No pod of it is stopped before that.",
                unit: "s",
                targets: &[
                    (
                        r#"histogram_quantile(0.5, sum by (le) (rate(springtide_ipu_prepull_seconds_bucket{job=~"$job"}[$__rate_interval])))"#,
                        "p50",
                    ),
                    (
                        r#"histogram_quantile(0.99, sum by (le) (rate(springtide_ipu_prepull_seconds_bucket{job=~"$job"}[$__rate_interval])))"#,
                        "p99",
                    ),
                ],
            },
        ],
    },
    Row {
        title: "Metrics asked for",
        panels: &[
            Panel {
                title: "Queries by result",
                description: "Of a Prometheus, by the leader, while runs are open. no_data and error hold an upgrade unless it \
                              says otherwise.",
                unit: "ops",
                targets: &[(
                    r#"sum by (result) (rate(springtide_metric_queries_total{job=~"$job"}[$__rate_interval]))"#,
                    "{{result}}",
                )],
            },
            Panel {
                title: "Time to an answer",
                description: "A query is given up after 5 s.",
                unit: "s",
                targets: &[
                    (
                        r#"histogram_quantile(0.5, sum by (le) (rate(springtide_metric_query_seconds_bucket{job=~"$job"}[$__rate_interval])))"#,
                        "p50",
                    ),
                    (
                        r#"histogram_quantile(0.99, sum by (le) (rate(springtide_metric_query_seconds_bucket{job=~"$job"}[$__rate_interval])))"#,
                        "p99",
                    ),
                ],
            },
        ],
    },
];
