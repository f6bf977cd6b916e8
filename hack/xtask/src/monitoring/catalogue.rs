//! The metrics of the suite, and the rules that each of them keeps.

use anyhow::Result;
use springtide_batch_job::{BatchJobReconciler, BatchQueueReconciler, ProfileReconciler, Stores};
use springtide_in_place_upgrade::{GateKeeper, InPlaceUpgradeReconciler};
use springtide_manager::ReloadMeasures;
use springtide_plumbing::clock::Clock;
use springtide_plumbing::controller::Reconciler;
use springtide_plumbing::metric_query::{MetricQueries, QuerySettings};
use springtide_plumbing::metrics::catalogue::{self, Family, FamilyKind};
use springtide_plumbing::watch::{Scope, WatchSet};
use springtide_time_share_group::TimeShareGroupReconciler;

use crate::check::Finding;

/// What a manager with all controllers registers.
pub(super) fn families() -> Result<Vec<Family>> {
    let metrics = catalogue::specimen(&[
        BatchJobReconciler::NAME,
        BatchQueueReconciler::NAME,
        ProfileReconciler::NAME,
        InPlaceUpgradeReconciler::NAME,
        GateKeeper::NAME,
        TimeShareGroupReconciler::NAME,
        springtide_time_share_group::GateKeeper::NAME,
    ]);
    let mut watches = WatchSet::new(0);
    let stores = Stores::register(&mut watches, &Scope::All)?;
    let of_upgrades = springtide_in_place_upgrade::Stores::register(&mut watches, &Scope::All)?;
    let of_groups = springtide_time_share_group::Stores::register(&mut watches, &Scope::All)?;
    let profiles = ProfileReconciler::new(stores.clone(), Clock::system());
    let batch_job = BatchJobReconciler::new(stores);
    let upgrade = InPlaceUpgradeReconciler::new(of_upgrades, None, "");
    let time_share = TimeShareGroupReconciler::new(of_groups, None);
    metrics.register(|registry| {
        batch_job.register(registry);
        profiles.register(registry);
        upgrade.register(registry);
        time_share.register(registry);
        MetricQueries::new(QuerySettings::default()).register(registry);
        ReloadMeasures::default().register(registry);
    });
    metrics.add_population(BatchQueueReconciler::new(batch_job.clone()));
    metrics.add_population(batch_job);
    metrics.add_population(profiles);
    metrics.add_population(upgrade);
    metrics.add_population(time_share);
    Ok(catalogue::families(&metrics)?)
}

/// Names of other projects, which are as they are.
const FOREIGN: [&str; 5] =
    ["controller_runtime_", "workqueue_", "rest_client_", "leader_election_", "process_"];

/// Units that have a base unit: seconds, bytes, and shares of one.
const DERIVED_UNITS: [&str; 14] = [
    "ms",
    "millis",
    "milliseconds",
    "micros",
    "microseconds",
    "nanoseconds",
    "minutes",
    "hours",
    "days",
    "kilobytes",
    "kb",
    "mb",
    "megabytes",
    "percent",
];

/// Labels whose values are names or identities of objects: their number has no bound.
const UNBOUNDED: [&str; 9] = ["name", "object", "uid", "pod", "node", "job", "key", "owner", "exported_job"];

/// One finding per broken rule.
pub(super) fn findings(families: &[Family]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for family in families {
        let problems = problems(family);
        findings.extend(problems.into_iter().map(|problem| finding(&family.name, problem)));
    }
    findings
}

fn finding(name: &str, problem: String) -> Finding {
    Finding { lint: "metrics", at: name.to_owned(), problem }
}

fn problems(family: &Family) -> Vec<String> {
    let mut problems = Vec::new();
    let name = &family.name;
    let is_foreign = FOREIGN.iter().any(|prefix| name.starts_with(prefix));
    if !is_foreign && !name.starts_with("springtide_") {
        problems.push("a name of our own starts with springtide_".to_owned());
    }
    if let Some(unit) = name.split('_').find(|word| DERIVED_UNITS.contains(word)) {
        problems.push(format!("measures in {unit}; use the base unit (seconds, bytes, ratio)"));
    }
    let is_counter = match family.kind {
        FamilyKind::Counter => true,
        FamilyKind::Gauge => false,
        FamilyKind::Histogram => {
            if !["_seconds", "_bytes", "_ratio"].iter().any(|unit| name.ends_with(unit)) {
                problems.push("a histogram names its unit last".to_owned());
            }
            false
        }
    };
    if name.contains("_total_") || name.ends_with("_total") != is_counter {
        problems.push("_total ends the names of counters, once, and no others".to_owned());
    }
    for label in &family.labels {
        // The names of queues and leases, of which there are a few.
        let is_bounded = label == "name" && is_foreign;
        if UNBOUNDED.contains(&label.as_str()) && !is_bounded {
            problems.push(format!("label {label} names objects, of which there is no bounded number"));
        }
    }
    if family.help.len() < 10 || family.help.ends_with('.') {
        problems.push("needs a help text: a phrase without a full stop".to_owned());
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn family(name: &str, kind: FamilyKind, labels: &[&str]) -> Family {
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        Family { name: name.to_owned(), kind, labels, help: "What it counts, in short".to_owned() }
    }

    #[test]
    fn each_rule_finds_what_breaks_it_and_lets_the_rest_pass() {
        use FamilyKind::{Counter, Gauge, Histogram};
        for (family, word) in [
            (family("batch_pods_total", Counter, &[]), "springtide_"),
            (family("springtide_wait_ms", Gauge, &[]), "base unit"),
            (family("springtide_wait", Histogram, &[]), "unit last"),
            (family("springtide_pods", Counter, &[]), "_total"),
            (family("springtide_pods_total", Gauge, &[]), "_total"),
            (family("springtide_pods_total_total", Counter, &[]), "_total"),
            (family("springtide_pods_total", Counter, &["uid"]), "uid"),
            (family("springtide_pods_total", Counter, &["name"]), "name"),
            (Family { help: String::new(), ..family("springtide_pods_total", Counter, &[]) }, "help"),
        ] {
            let found = problems(&family);
            assert!(found.len() == 1 && found[0].contains(word), "{}: {found:?}", family.name);
        }
        for family in [
            family("springtide_pods_total", Counter, &["controller"]),
            family("springtide_wait_seconds", Histogram, &["controller"]),
            family("workqueue_depth", Gauge, &["name"]),
        ] {
            assert_eq!(problems(&family), Vec::<String>::new(), "{}", family.name);
        }
    }

    /// The families that a controller built on controller-runtime shows, by the names and labels under
    /// which dashboards and alerts ask for them.
    const SHARED: [(&str, &[&str]); 20] = [
        ("controller_runtime_reconcile_total", &["controller", "result"]),
        ("controller_runtime_reconcile_errors_total", &["controller"]),
        ("controller_runtime_terminal_reconcile_errors_total", &["controller"]),
        ("controller_runtime_reconcile_panics_total", &["controller"]),
        ("controller_runtime_reconcile_timeouts_total", &["controller"]),
        ("controller_runtime_reconcile_time_seconds", &["controller"]),
        ("controller_runtime_max_concurrent_reconciles", &["controller"]),
        ("controller_runtime_active_workers", &["controller"]),
        ("workqueue_depth", &["controller", "name", "priority"]),
        ("workqueue_adds_total", &["controller", "name"]),
        ("workqueue_queue_duration_seconds", &["controller", "name"]),
        ("workqueue_work_duration_seconds", &["controller", "name"]),
        ("workqueue_unfinished_work_seconds", &["controller", "name"]),
        ("workqueue_longest_running_processor_seconds", &["controller", "name"]),
        ("workqueue_retries_total", &["controller", "name"]),
        ("rest_client_requests_total", &["code", "host", "method"]),
        ("rest_client_request_duration_seconds", &["host", "verb"]),
        ("rest_client_request_size_bytes", &["host", "verb"]),
        ("rest_client_response_size_bytes", &["host", "verb"]),
        ("leader_election_master_status", &["name"]),
    ];

    #[test]
    fn names_and_labels_are_those_of_controller_runtime() {
        let families = families().unwrap();
        for (name, labels) in SHARED {
            let family = families.iter().find(|family| family.name == name);
            let family = family.unwrap_or_else(|| panic!("{name} is not registered"));
            assert_eq!(family.labels.iter().map(String::as_str).collect::<Vec<_>>(), labels, "{name}");
        }
        for process in ["cpu_seconds_total", "resident_memory_bytes", "open_fds", "start_time_seconds"] {
            let name = format!("process_{process}");
            assert!(families.iter().any(|family| family.name == name), "{name} is not registered");
        }
    }
}
