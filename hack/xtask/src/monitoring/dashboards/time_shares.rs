//! What the dashboard of time sharing shows.

use super::{Panel, Row};

/// How groups share their nodes, and how the peak changes hands.
pub(super) const TIME_SHARES: &[Row] = &[
    Row {
        title: "Groups",
        panels: &[
            Panel {
                title: "Groups by state",
                description: "By the reason of condition Ready. The counts of all instances are the same.",
                unit: "short",
                targets: &[(
                    r#"max by (ready_reason) (springtide_objects{job=~"$job",kind="TimeShareGroup"})"#,
                    "{{ready_reason}}",
                )],
            },
            Panel {
                title: "Groups that need a person",
                description: "By the reason of condition Stalled. A switch that is late (DeadlineExceeded) goes on all the same.",
                unit: "short",
                targets: &[(
                    r#"max by (reason) (springtide_objects_stalled{job=~"$job",kind="TimeShareGroup"}) > 0"#,
                    "{{reason}}",
                )],
            },
            Panel {
                title: "Cores saved",
                description: "What nodes need less than if all members had their peak at once.",
                unit: "short",
                targets: &[(r#"max(springtide_tsg_saved{job=~"$job",resource="cpu"})"#, "cores")],
            },
            Panel {
                title: "Memory saved",
                description: "The same of memory, where it moves.",
                unit: "bytes",
                targets: &[(r#"max(springtide_tsg_saved{job=~"$job",resource="memory"})"#, "memory")],
            },
        ],
    },
    Row {
        title: "What is known ahead",
        panels: &[
            Panel {
                title: "Preflights that failed",
                description: "Groups of whose next switch too few units would come through. Condition PreflightPassed says why.",
                unit: "short",
                targets: &[(r#"max(springtide_tsg_preflights_failed{job=~"$job"})"#, "groups")],
            },
            Panel {
                title: "Placement",
                description: "Nodes that cannot hold the largest peak of their members, and pods on nodes where nobody shrinks \
                              for them.",
                unit: "short",
                targets: &[
                    (r#"max(springtide_tsg_nodes_over_budget{job=~"$job"})"#, "nodes over budget"),
                    (r#"max(springtide_tsg_unpaired{job=~"$job"})"#, "pods unpaired"),
                ],
            },
        ],
    },
    Row {
        title: "Switches",
        panels: &[
            Panel {
                title: "Steps of a unit",
                description: "Out of traffic (drain), grown (resize), until it has traffic (warm_up): half of the pods are \
                              faster than p50. A resize of three minutes has waited for the kubelet's own look.",
                unit: "s",
                targets: &[
                    (
                        r#"histogram_quantile(0.5, sum by (le, step) (rate(springtide_tsg_unit_seconds_bucket{job=~"$job"}[$__rate_interval])))"#,
                        "{{step}} p50",
                    ),
                    (
                        r#"histogram_quantile(0.99, sum by (le, step) (rate(springtide_tsg_unit_seconds_bucket{job=~"$job"}[$__rate_interval])))"#,
                        "{{step}} p99",
                    ),
                ],
            },
            Panel {
                title: "Time of a switch",
                description: "From its begin to its end, the holds of its steps included.",
                unit: "s",
                targets: &[
                    (
                        r#"histogram_quantile(0.5, sum by (le) (rate(springtide_tsg_switch_seconds_bucket{job=~"$job"}[$__range])))"#,
                        "p50",
                    ),
                    (
                        r#"histogram_quantile(0.99, sum by (le) (rate(springtide_tsg_switch_seconds_bucket{job=~"$job"}[$__range])))"#,
                        "p99",
                    ),
                ],
            },
            Panel {
                title: "Units of switches that ended",
                description: "skipped were given up or could not be done; interrupted had not come to their end when the \
                              switch was taken back, or another one took its place.",
                unit: "short",
                targets: &[(
                    r#"sum by (result) (increase(springtide_tsg_units_total{job=~"$job"}[$__rate_interval]))"#,
                    "{{result}}",
                )],
            },
            Panel {
                title: "Nudges",
                description: "Resizes that were withdrawn and asked for again, as a kubelet had put them off and there was room.",
                unit: "short",
                targets: &[(
                    r#"sum(increase(springtide_tsg_nudges_total{job=~"$job"}[$__rate_interval]))"#,
                    "resizes",
                )],
            },
        ],
    },
];
