//! What the dashboards show.

use super::{Panel, Row};

/// How the suite itself is.
pub(super) const SUITE: &[Row] = &[
    Row {
        title: "Leader, brake and breaker",
        panels: &[
            Panel {
                title: "Leader",
                description: "1 for the process that holds the lease; the others stand by.",
                unit: "short",
                targets: &[(r#"leader_election_master_status{job=~"$job"}"#, "{{instance}} {{name}}")],
            },
            Panel {
                title: "Mode",
                description: "1 for what a controller does now: act, observe, or keep still behind its brake.",
                unit: "short",
                targets: &[(
                    r#"max by (controller, mode) (springtide_mode{job=~"$job"})"#,
                    "{{controller}} {{mode}}",
                )],
            },
            Panel {
                title: "Open breakers",
                description: "Above 0 a controller destroys nothing there until somebody resets its breaker.",
                unit: "short",
                targets: &[(
                    r#"sum by (controller) (springtide_breaker_open{job=~"$job"})"#,
                    "{{controller}}",
                )],
            },
            Panel {
                title: "Destructive writes by warrant",
                description: "Deletes and evictions by what justifies them; those without a warrant have a cap.",
                unit: "ops",
                targets: &[(
                    r#"sum by (warrant) (rate(springtide_warrants_total{job=~"$job"}[$__rate_interval]))"#,
                    "{{warrant}}",
                )],
            },
            Panel {
                title: "Configuration",
                description: "Above 0: the file is not valid, and an older configuration is in force. And reloads by result.",
                unit: "short",
                targets: &[
                    (r#"1 - springtide_config_last_reload_successful{job=~"$job"}"#, "{{instance}} invalid"),
                    (
                        r#"sum by (result) (increase(springtide_config_reloads_total{job=~"$job"}[$__rate_interval]))"#,
                        "{{result}}",
                    ),
                ],
            },
        ],
    },
    Row {
        title: "Queue",
        panels: &[
            Panel {
                title: "Keys ready to run",
                description: "By priority. It should return to 0 again and again.",
                unit: "short",
                targets: &[(
                    r#"sum by (controller, priority) (workqueue_depth{job=~"$job"})"#,
                    "{{controller}} {{priority}}",
                )],
            },
            Panel {
                title: "Wait for a worker",
                description: "From ready to taken; waits for backoff and budget do not count.",
                unit: "s",
                targets: &[
                    (
                        r#"histogram_quantile(0.5, sum by (le, controller) (rate(workqueue_queue_duration_seconds_bucket{job=~"$job"}[$__rate_interval])))"#,
                        "{{controller}} p50",
                    ),
                    (
                        r#"histogram_quantile(0.99, sum by (le, controller) (rate(workqueue_queue_duration_seconds_bucket{job=~"$job"}[$__rate_interval])))"#,
                        "{{controller}} p99",
                    ),
                ],
            },
            Panel {
                title: "Keys that wait",
                description: "In backoff after a failure, for write budget, or for the stores to show their own writes.",
                unit: "short",
                targets: &[
                    (
                        r#"sum by (controller) (springtide_keys_in_backoff{job=~"$job"})"#,
                        "{{controller}} backoff",
                    ),
                    (
                        r#"sum by (controller) (springtide_keys_throttled{job=~"$job"})"#,
                        "{{controller}} budget",
                    ),
                    (
                        r#"sum by (controller) (springtide_keys_gated{job=~"$job"})"#,
                        "{{controller}} own writes",
                    ),
                ],
            },
            Panel {
                title: "Workers in use",
                description: "As a share of those there are.",
                unit: "percentunit",
                targets: &[(
                    r#"sum by (controller) (controller_runtime_active_workers{job=~"$job"}) / sum by (controller) (controller_runtime_max_concurrent_reconciles{job=~"$job"})"#,
                    "{{controller}}",
                )],
            },
        ],
    },
    Row {
        title: "Outcomes",
        panels: &[
            Panel {
                title: "Passes by result",
                description: "Only `error` is a failure; `requeue_after` has a time at which it goes on.",
                unit: "ops",
                targets: &[(
                    r#"sum by (controller, result) (rate(controller_runtime_reconcile_total{job=~"$job"}[$__rate_interval]))"#,
                    "{{controller}} {{result}}",
                )],
            },
            Panel {
                title: "Failed passes by class",
                description: "Transient and conflict go away by themselves; the others need a change or a person.",
                unit: "ops",
                targets: &[(
                    r#"sum by (controller, class) (rate(springtide_errors_total{job=~"$job"}[$__rate_interval]))"#,
                    "{{controller}} {{class}}",
                )],
            },
            Panel {
                title: "Time of a pass",
                description: "With its writes.",
                unit: "s",
                targets: &[
                    (
                        r#"histogram_quantile(0.5, sum by (le, controller) (rate(controller_runtime_reconcile_time_seconds_bucket{job=~"$job"}[$__rate_interval])))"#,
                        "{{controller}} p50",
                    ),
                    (
                        r#"histogram_quantile(0.99, sum by (le, controller) (rate(controller_runtime_reconcile_time_seconds_bucket{job=~"$job"}[$__rate_interval])))"#,
                        "{{controller}} p99",
                    ),
                ],
            },
            Panel {
                title: "Panics and refusals of the fence",
                description: "A panic is a bug. The fence refuses what a process wants to write that no longer leads.",
                unit: "short",
                targets: &[
                    (
                        r#"sum by (controller) (increase(controller_runtime_reconcile_panics_total{job=~"$job"}[$__rate_interval]))"#,
                        "{{controller}} panics",
                    ),
                    (
                        r#"sum by (controller) (increase(springtide_fence_refusals_total{job=~"$job"}[$__rate_interval]))"#,
                        "{{controller}} fence",
                    ),
                ],
            },
        ],
    },
    Row {
        title: "Write budget",
        panels: &[
            Panel {
                title: "Writes",
                description: "By class and what came of them.",
                unit: "wps",
                targets: &[(
                    r#"sum by (class, outcome) (rate(springtide_writes_total{job=~"$job"}[$__rate_interval]))"#,
                    "{{class}} {{outcome}}",
                )],
            },
            Panel {
                title: "Tokens",
                description: "Writes that a bucket would let through at once.",
                unit: "short",
                targets: &[(
                    r#"min by (bucket, controller) (springtide_write_budget_tokens{job=~"$job"})"#,
                    "{{bucket}} {{controller}}",
                )],
            },
            Panel {
                title: "Writes put off",
                description: "By what was short; and those of the lowest classes that gave way.",
                unit: "wps",
                targets: &[
                    (
                        r#"sum by (limit) (rate(springtide_write_budget_throttled_total{job=~"$job"}[$__rate_interval]))"#,
                        "{{limit}}",
                    ),
                    (
                        r#"sum by (class) (rate(springtide_write_budget_shed_total{job=~"$job"}[$__rate_interval]))"#,
                        "shed: {{class}}",
                    ),
                ],
            },
            Panel {
                title: "Requests in flight",
                description: "By priority level of the API server. The limit follows how it answers.",
                unit: "short",
                targets: &[
                    (
                        r#"sum by (priority_level) (springtide_write_budget_inflight{job=~"$job"})"#,
                        "{{priority_level}} in flight",
                    ),
                    (
                        r#"sum by (priority_level) (springtide_write_budget_inflight_limit{job=~"$job"})"#,
                        "{{priority_level}} limit",
                    ),
                ],
            },
            Panel {
                title: "Wait for budget",
                description: "Time in line of the writes that were admitted.",
                unit: "s",
                targets: &[(
                    r#"histogram_quantile(0.99, sum by (le, class) (rate(springtide_write_budget_wait_seconds_bucket{job=~"$job"}[$__rate_interval])))"#,
                    "{{class}} p99",
                )],
            },
            Panel {
                title: "Writes spared, events dropped, fields fought over",
                description: "Writes that would have changed nothing are not sent.",
                unit: "ops",
                targets: &[
                    (
                        r#"sum(rate(springtide_noop_writes_total{job=~"$job"}[$__rate_interval]))"#,
                        "without effect",
                    ),
                    (
                        r#"sum(rate(springtide_events_dropped_total{job=~"$job"}[$__rate_interval]))"#,
                        "events dropped",
                    ),
                    (
                        r#"sum(rate(springtide_field_conflicts_total{job=~"$job"}[$__rate_interval]))"#,
                        "field conflicts",
                    ),
                ],
            },
        ],
    },
    Row {
        title: "API server",
        panels: &[
            Panel {
                title: "Requests by code",
                description: "429: the API server defends itself. <error>: no answer.",
                unit: "reqps",
                targets: &[(
                    r#"sum by (method, code) (rate(rest_client_requests_total{job=~"$job"}[$__rate_interval]))"#,
                    "{{method}} {{code}}",
                )],
            },
            Panel {
                title: "Time to the answer",
                description: "p99. A watch counts with its opening.",
                unit: "s",
                targets: &[(
                    r#"histogram_quantile(0.99, sum by (le, verb) (rate(rest_client_request_duration_seconds_bucket{job=~"$job"}[$__rate_interval])))"#,
                    "{{verb}}",
                )],
            },
        ],
    },
    Row {
        title: "Stores",
        panels: &[
            Panel {
                title: "Time since the last frame of a watch",
                description: "At 75 s the connection is replaced, at 90 s the store is stale.",
                unit: "s",
                targets: &[(
                    r#"max by (instance, resource) (springtide_watch_last_frame_seconds{job=~"$job"})"#,
                    "{{instance}} {{resource}}",
                )],
            },
            Panel {
                title: "Stale stores, relists and restarts",
                description: "Nothing is destroyed on the word of a stale store.",
                unit: "short",
                targets: &[
                    (r#"sum by (resource) (springtide_watch_stale{job=~"$job"})"#, "{{resource}} stale"),
                    (
                        r#"sum by (resource) (increase(springtide_watch_relists_total{job=~"$job"}[$__rate_interval]))"#,
                        "{{resource}} relists",
                    ),
                    (
                        r#"sum by (resource) (increase(springtide_watch_restarts_total{job=~"$job"}[$__rate_interval]))"#,
                        "{{resource}} restarts",
                    ),
                ],
            },
            Panel {
                title: "Objects stored",
                description: "Of each process; standbys hold them too.",
                unit: "short",
                targets: &[(r#"max by (resource) (springtide_store_objects{job=~"$job"})"#, "{{resource}}")],
            },
            Panel {
                title: "Memory",
                description: "Resident, and of it the objects in the stores, as estimated from their fields.",
                unit: "bytes",
                targets: &[
                    (r#"process_resident_memory_bytes{job=~"$job"}"#, "{{instance}}"),
                    (r#"sum by (instance) (springtide_store_bytes{job=~"$job"})"#, "{{instance}} objects"),
                ],
            },
            Panel {
                title: "Processors in use",
                description: "1 is one core.",
                unit: "short",
                targets: &[(
                    r#"rate(process_cpu_seconds_total{job=~"$job"}[$__rate_interval])"#,
                    "{{instance}}",
                )],
            },
        ],
    },
];

/// The work that it does.
pub(super) const WORK: &[Row] = &[
    Row {
        title: "Objects",
        panels: &[
            Panel {
                title: "Objects by reason",
                description: "Of the condition Ready, or of that which a kind has in its place.",
                unit: "short",
                targets: &[(
                    r#"max by (kind, ready_reason) (springtide_objects{job=~"$job"}) > 0"#,
                    "{{kind}} {{ready_reason}}",
                )],
            },
            Panel {
                title: "Objects that need a person",
                description: "They have not ended, and do not go on by themselves.",
                unit: "short",
                targets: &[(
                    r#"max by (kind, reason) (springtide_objects_stalled{job=~"$job"}) > 0"#,
                    "{{kind}} {{reason}}",
                )],
            },
            Panel {
                title: "Share of the declared maximum",
                description: "Of the fullest namespace and of the cluster. What is beyond 100 % is not started.",
                unit: "percentunit",
                targets: &[(
                    r#"max by (kind, scope) (springtide_objects_maximum_ratio{job=~"$job"})"#,
                    "{{kind}} {{scope}}",
                )],
            },
        ],
    },
    Row {
        title: "Batch jobs",
        panels: &[
            Panel {
                title: "Pods started",
                description: "Grants that became pods.",
                unit: "ops",
                targets: &[(
                    r#"sum(rate(springtide_batch_grants_total{job=~"$job"}[$__rate_interval]))"#,
                    "pods",
                )],
            },
            Panel {
                title: "Wait in the queue",
                description: "From the first sight of a job to its first pod.",
                unit: "s",
                targets: &[
                    (
                        r#"histogram_quantile(0.5, sum by (le) (rate(springtide_batch_queue_wait_seconds_bucket{job=~"$job"}[$__rate_interval])))"#,
                        "p50",
                    ),
                    (
                        r#"histogram_quantile(0.99, sum by (le) (rate(springtide_batch_queue_wait_seconds_bucket{job=~"$job"}[$__rate_interval])))"#,
                        "p99",
                    ),
                ],
            },
            Panel {
                title: "Pods that wait for a node",
                description: "On average: seconds waited per second. Near 0, as pods are made only where they fit.",
                unit: "short",
                targets: &[(
                    r#"sum(rate(springtide_batch_pending_pod_seconds_total{job=~"$job"}[$__rate_interval]))"#,
                    "pods",
                )],
            },
            Panel {
                title: "Disruptions",
                description: "Pods that something else than their task ended.",
                unit: "ops",
                targets: &[(
                    r#"sum(rate(springtide_batch_disruptions_total{job=~"$job"}[$__rate_interval]))"#,
                    "pods",
                )],
            },
            Panel {
                title: "Release of an ended pod",
                description: "From the first sight of its end to its deletion.",
                unit: "s",
                targets: &[(
                    r#"histogram_quantile(0.99, sum by (le) (rate(springtide_batch_release_seconds_bucket{job=~"$job"}[$__rate_interval])))"#,
                    "p99",
                )],
            },
            Panel {
                title: "Archive of finished jobs",
                description: "Lines that sinks took, attempts that failed, jobs deleted without a line, and jobs that wait for theirs.",
                unit: "short",
                targets: &[
                    (
                        r#"sum by (sink) (rate(springtide_batch_archive_lines_total{job=~"$job"}[$__rate_interval]))"#,
                        "{{sink}} lines/s",
                    ),
                    (
                        r#"sum by (sink) (rate(springtide_batch_archive_failures_total{job=~"$job"}[$__rate_interval]))"#,
                        "{{sink}} failures/s",
                    ),
                    (
                        r#"sum(increase(springtide_batch_archive_dropped_total{job=~"$job"}[$__rate_interval]))"#,
                        "dropped",
                    ),
                    (r#"sum(springtide_batch_archive_waiting{job=~"$job"})"#, "waiting"),
                ],
            },
            Panel {
                title: "Pods left before a peak",
                description: "Pods that have to go and are still there; queues that will be late, and that are.",
                unit: "short",
                targets: &[
                    (r#"max(springtide_batch_drain_pods_left{job=~"$job"})"#, "pods"),
                    (r#"max(springtide_batch_drains_at_risk{job=~"$job"})"#, "queues at risk"),
                    (r#"max(springtide_batch_windows_missed{job=~"$job"})"#, "queues late"),
                ],
            },
            Panel {
                title: "Load triggers",
                description: "Those that are on, and those whose tiers start nothing as nobody knows the load of the nodes; \
                              and lists of metrics.k8s.io a second, by result.",
                unit: "short",
                targets: &[
                    (r#"max(springtide_batch_load_triggers_on{job=~"$job"})"#, "on"),
                    (r#"max(springtide_batch_load_triggers_unmeasured{job=~"$job"})"#, "unmeasured"),
                    (
                        r#"sum by (result) (rate(springtide_batch_load_readings_total{job=~"$job"}[$__rate_interval]))"#,
                        "lists {{result}}",
                    ),
                ],
            },
        ],
    },
    Row {
        title: "Task profiles",
        panels: &[
            Panel {
                title: "Runs learned from",
                description: "By whether anything is known of their usage.",
                unit: "ops",
                targets: &[(
                    r#"sum by (usage) (rate(springtide_batch_profile_runs_total{job=~"$job"}[$__rate_interval]))"#,
                    "usage {{usage}}",
                )],
            },
            Panel {
                title: "Kills for want of memory, and other tasks under a key",
                description: "A kill raises what is recommended. A task with other containers teaches nothing.",
                unit: "short",
                targets: &[
                    (
                        r#"sum(increase(springtide_batch_profile_oom_kills_total{job=~"$job"}[$__rate_interval]))"#,
                        "killed",
                    ),
                    (
                        r#"sum(increase(springtide_batch_profile_mismatches_total{job=~"$job"}[$__rate_interval]))"#,
                        "other tasks",
                    ),
                ],
            },
            Panel {
                title: "Looks at the usage of pods",
                description: "By metrics.k8s.io, while pods with a profile run. Where it is not served profiles do without.",
                unit: "ops",
                targets: &[(
                    r#"sum by (result) (rate(springtide_batch_profile_usage_readings_total{job=~"$job"}[$__rate_interval]))"#,
                    "{{result}}",
                )],
            },
        ],
    },
];
