//! What a scrape sees: the whole text is parsed, and every name and label is held against the list
//! that dashboards and alerts rely on.

use super::*;
use crate::queue::{Priority, Urgency};
use std::collections::{BTreeMap, BTreeSet};

fn process() -> Metrics {
    catalogue::specimen(&["batch-job", "other"])
}

/// One sample: its name and its labels with their values.
type Sample = (String, BTreeMap<String, String>);

/// Parses a whole exposition; panics where a scraper would refuse it.
fn parse(text: &str) -> Vec<(Sample, f64)> {
    let mut families: BTreeMap<&str, &str> = BTreeMap::new();
    let mut current = "";
    let mut samples = Vec::new();
    let mut seen = BTreeSet::new();
    let body = text.strip_suffix("# EOF\n").expect("the text ends with its end mark");
    for line in body.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let (kind, rest) = comment.split_once(' ').unwrap();
            let (name, value) = rest.split_once(' ').unwrap();
            match kind {
                "HELP" => assert!(value.len() > 5, "{name} is not explained"),
                "TYPE" => {
                    assert!(families.insert(name, value).is_none(), "{name} is begun twice");
                    current = name;
                }
                other => panic!("{other} in {line}"),
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}').unwrap()),
            None => (series, ""),
        };
        let suffix = name.strip_prefix(current).unwrap_or_else(|| panic!("{name} stands below {current}"));
        match families[current] {
            "counter" => assert_eq!(suffix, "_total", "{name}"),
            "gauge" => assert_eq!(suffix, "", "{name}"),
            "histogram" => assert!(["_bucket", "_sum", "_count"].contains(&suffix), "{name}"),
            other => panic!("{name} is a {other}"),
        }
        assert!(seen.insert(series), "{series} is there twice");
        let labels = labels.split_terminator(',').map(|label| {
            let (label, value) = label.split_once('=').unwrap();
            (label.to_owned(), value.trim_matches('"').to_owned())
        });
        samples.push(((name.to_owned(), labels.collect()), value.parse().unwrap()));
    }
    samples
}

/// Every family that the process shows at its start, with the labels of its series.
const EXPECTED: &[(&str, &[&str])] = &[
    ("controller_runtime_reconcile_total", &["controller", "result"]),
    ("controller_runtime_reconcile_errors_total", &["controller"]),
    ("controller_runtime_terminal_reconcile_errors_total", &["controller"]),
    ("controller_runtime_reconcile_panics_total", &["controller"]),
    ("controller_runtime_reconcile_timeouts_total", &["controller"]),
    ("controller_runtime_reconcile_time_seconds_bucket", &["controller", "le"]),
    ("controller_runtime_max_concurrent_reconciles", &["controller"]),
    ("controller_runtime_active_workers", &["controller"]),
    ("workqueue_depth", &["controller", "name", "priority"]),
    ("workqueue_adds_total", &["controller", "name"]),
    ("workqueue_queue_duration_seconds_bucket", &["controller", "le", "name"]),
    ("workqueue_work_duration_seconds_bucket", &["controller", "le", "name"]),
    ("workqueue_unfinished_work_seconds", &["controller", "name"]),
    ("workqueue_longest_running_processor_seconds", &["controller", "name"]),
    ("workqueue_retries_total", &["controller", "name"]),
    ("rest_client_requests_total", &["code", "host", "method"]),
    ("rest_client_request_duration_seconds_bucket", &["host", "le", "verb"]),
    ("rest_client_request_size_bytes_bucket", &["host", "le", "verb"]),
    ("rest_client_response_size_bytes_bucket", &["host", "le", "verb"]),
    ("leader_election_master_status", &["name"]),
    ("process_cpu_seconds_total", &[]),
    ("process_resident_memory_bytes", &[]),
    ("process_virtual_memory_bytes", &[]),
    ("process_open_fds", &[]),
    ("process_max_fds", &[]),
    ("process_start_time_seconds", &[]),
    ("springtide_noop_writes_total", &["controller"]),
    ("springtide_stale_skips_total", &["controller"]),
    ("springtide_events_dropped_total", &["controller"]),
    ("springtide_field_conflicts_total", &["controller"]),
    ("springtide_fence_refusals_total", &["controller"]),
    ("springtide_errors_total", &["class", "controller"]),
    ("springtide_keys_in_backoff", &["controller"]),
    ("springtide_keys_throttled", &["controller"]),
    ("springtide_keys_gated", &["controller"]),
    ("springtide_write_budget_tokens", &["bucket", "controller"]),
    ("springtide_write_budget_inflight", &["priority_level"]),
    ("springtide_write_budget_inflight_limit", &["priority_level"]),
    ("springtide_write_budget_wait_seconds_bucket", &["class", "le"]),
    ("springtide_write_budget_throttled_total", &["limit"]),
    ("springtide_write_budget_shed_total", &["class"]),
    ("springtide_watch_events_total", &["resource"]),
    ("springtide_watch_spec_changes_total", &["resource"]),
    ("springtide_store_synced", &["resource"]),
    ("springtide_watch_restarts_total", &["resource"]),
    ("springtide_watch_relists_total", &["resource"]),
    ("springtide_watch_rv_regressions_total", &["resource"]),
    ("springtide_watch_unreadable_total", &["resource"]),
    ("springtide_watch_last_frame_seconds", &["resource"]),
    ("springtide_watch_stale", &["resource"]),
    ("springtide_store_objects", &["resource"]),
    ("springtide_store_bytes", &["resource"]),
    ("springtide_warrants_total", &["controller", "warrant"]),
    ("springtide_mode", &["controller", "mode"]),
    ("springtide_brake_engaged", &["source"]),
    ("springtide_breaker_open", &["controller"]),
];

#[tokio::test]
async fn a_fresh_process_shows_every_family_under_its_name_and_labels() {
    let samples = parse(&process().encode().unwrap());
    let mut shown: BTreeMap<&str, BTreeSet<Vec<&str>>> = BTreeMap::new();
    for ((name, labels), _) in &samples {
        if name.ends_with("_sum") || name.ends_with("_count") {
            continue;
        }
        shown.entry(name).or_default().insert(labels.keys().map(String::as_str).collect());
    }
    let expected: BTreeMap<&str, BTreeSet<Vec<&str>>> =
        EXPECTED.iter().map(|(name, labels)| (*name, BTreeSet::from([labels.to_vec()]))).collect();
    assert_eq!(shown, expected);
}

#[tokio::test]
async fn counters_and_histograms_start_at_zero_for_every_controller() {
    let samples = parse(&process().encode().unwrap());
    let of = |name: &str, labels: &[(&str, &str)]| {
        let labels = labels.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned())).collect();
        let series = (name.to_owned(), labels);
        samples.iter().find(|(sample, _)| *sample == series).map(|(_, value)| *value)
    };
    for controller in ["batch-job", "other"] {
        for result in ["success", "error", "requeue", "requeue_after"] {
            let labels = [("controller", controller), ("result", result)];
            assert_eq!(of("controller_runtime_reconcile_total", &labels), Some(0.0));
        }
        for priority in Priority::ALL {
            let labels = [("name", controller), ("controller", controller), ("priority", priority.as_str())];
            assert_eq!(of("workqueue_depth", &labels), Some(0.0));
        }
    }
    for limit in ["object", "class", "namespace", "controller", "process", "window", "hold"] {
        assert_eq!(of("springtide_write_budget_throttled_total", &[("limit", limit)]), Some(0.0));
    }
    for class in ["low", "event"] {
        assert_eq!(of("springtide_write_budget_shed_total", &[("class", class)]), Some(0.0));
    }
    let common = [("priority_level", "common")];
    assert_eq!(of("springtide_write_budget_inflight", &common), Some(0.0));
    assert_eq!(of("springtide_write_budget_inflight_limit", &common), Some(16.0));
    let process_bucket = [("bucket", "process"), ("controller", "")];
    assert_eq!(of("springtide_write_budget_tokens", &process_bucket), Some(600.0));
    assert_eq!(of("leader_election_master_status", &[("name", "springtide")]), Some(1.0));
    let counters = samples.iter().filter(|((name, _), _)| {
        (name.ends_with("_total") || name.ends_with("_count")) && !name.starts_with("process_")
    });
    for ((name, labels), value) in counters {
        assert_eq!(*value, 0.0, "{name} {labels:?}");
    }
}

#[tokio::test]
async fn what_happens_is_counted_where_it_belongs() {
    let metrics = process();
    let queue = WorkQueue::new(1);
    metrics.add_queue("third", queue.clone());
    queue.add(ObjectKey::new("ns", "a"), Priority::High, Urgency::Routine);
    metrics.pass_started("other", Duration::from_millis(2));
    metrics.pass_ended("other", ReconcileResult::Success, Duration::from_secs(1));
    metrics.write("other", "spec", "pods", "success");
    metrics.write("other", "spec", "pods", "success");
    metrics.stale_skip("other");
    let text = metrics.encode().unwrap();
    let counted: Vec<_> = parse(&text).into_iter().filter(|(_, value)| *value != 0.0).collect();
    let value = |name: &str, part: (&str, &str)| -> Vec<f64> {
        let matches = |(shown, labels): &Sample| {
            shown == name && labels.get(part.0).is_some_and(|value| value == part.1)
        };
        counted.iter().filter(|(sample, _)| matches(sample)).map(|(_, value)| *value).collect()
    };
    assert_eq!(value("controller_runtime_reconcile_total", ("controller", "other")), [1.0]);
    assert_eq!(value("controller_runtime_reconcile_time_seconds_sum", ("controller", "other")), [1.0]);
    assert_eq!(value("workqueue_queue_duration_seconds_count", ("name", "other")), [1.0]);
    assert_eq!(value("workqueue_depth", ("controller", "third")), [1.0]);
    assert_eq!(value("workqueue_adds_total", ("controller", "third")), [1.0]);
    assert_eq!(value("springtide_writes_total", ("resource", "pods")), [2.0]);
    assert_eq!(value("springtide_stale_skips_total", ("controller", "other")), [1.0]);
    assert_eq!(value("controller_runtime_reconcile_total", ("controller", "batch-job")), [0.0_f64; 0]);
}

#[tokio::test]
async fn the_catalogue_lists_what_is_shown_and_what_will_be() {
    let families = catalogue::families(&process()).unwrap();
    let family = |name: &str| {
        let found = families.iter().find(|family| family.name == name);
        found.unwrap_or_else(|| panic!("{name} is not in the catalogue"))
    };
    for (name, labels) in EXPECTED {
        let name = name.strip_suffix("_bucket").unwrap_or(name);
        let labels: BTreeSet<String> =
            labels.iter().filter(|label| **label != "le").map(|label| (*label).to_owned()).collect();
        assert_eq!(family(name).labels, labels, "{name}");
        assert!(family(name).help.len() > 5, "{name}");
    }
    let writes = family("springtide_writes_total");
    assert_eq!(Vec::from_iter(&writes.labels), ["class", "controller", "outcome", "resource"]);
    assert_eq!(writes.kind, catalogue::FamilyKind::Counter);
    assert_eq!(family("workqueue_depth").kind, catalogue::FamilyKind::Gauge);
    let seconds = family("controller_runtime_reconcile_time_seconds");
    assert_eq!(seconds.kind, catalogue::FamilyKind::Histogram);
    assert_eq!(seconds.series()[0], "controller_runtime_reconcile_time_seconds_bucket");
    assert_eq!(
        writes.help, "Writes by what came of them",
        "as it was registered, though the encoder ends it with a full stop"
    );
}
