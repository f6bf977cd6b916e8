use super::*;
use springtide_plumbing::watch::Scope;

const HEAD: &str = "apiVersion: config.springtide.dev/v1alpha1\nkind: ManagerConfiguration\n";

fn parse(text: &str) -> Result<ManagerConfiguration, String> {
    ManagerConfiguration::parse(&format!("{HEAD}{text}"))
        .and_then(|configuration| configuration.check().map(|()| configuration))
        .map_err(|error| error.to_string())
}

#[test]
fn a_file_that_says_nothing_means_the_defaults() {
    assert_eq!(parse(""), Ok(ManagerConfiguration::default()));
    let written = serde_yaml::to_string(&ManagerConfiguration::default()).unwrap();
    assert_eq!(ManagerConfiguration::parse(&written), Ok(ManagerConfiguration::default()));
}

#[test]
fn what_is_not_said_keeps_its_default_beside_what_is() {
    let settings = "historyLimit: 7, cohortScope: Cluster";
    let configuration =
        parse(&format!("controllers: {{batchJob: {{settings: {{{settings}}}}}}}\nlogging: {{format: Text}}"))
            .unwrap();
    let settings = Settings::from(&configuration.controllers.batch_job.settings);
    let cohort_scope = CohortScope::Cluster;
    assert_eq!(settings, Settings { history_limit: 7, cohort_scope, ..Settings::default() });
    assert!(configuration.controllers.batch_job.enabled);
    let raised = parse(
        "controllers: {batchJob: {settings: {maxJobsPerNamespace: 3000, maxJobsPerCluster: 15000,
         maxQueuesPerNamespace: 100, maxQueuesPerCluster: 1000}}}",
    );
    let settings = Settings::from(&raised.unwrap().controllers.batch_job.settings);
    let maxima = Settings {
        max_per_namespace: 3000,
        max_per_cluster: 15_000,
        max_queues_per_namespace: 100,
        max_queues_per_cluster: 1000,
        ..Settings::default()
    };
    assert_eq!(settings, maxima);
    assert_eq!((configuration.logging.format, &*configuration.logging.level), (LogFormat::Text, "info"));
}

#[test]
fn traces_go_nowhere_unless_a_collector_is_named() {
    assert_eq!(ManagerConfiguration::default().tracing.endpoint(), Ok(None));
    let configured = parse("tracing: {otlpEndpoint: 'http://collector:4318'}").unwrap();
    assert_eq!(configured.tracing.endpoint().unwrap().unwrap().to_string(), "http://collector:4318/");
    let changes = Changes::between(&ManagerConfiguration::default(), &configured);
    assert_eq!((changes.live.len(), &*changes.restart), (0, &["tracing.otlpEndpoint".to_owned()][..]));
}

#[test]
fn the_scope_is_the_cluster_or_a_set_of_namespaces_and_changes_with_a_restart() {
    let default = ManagerConfiguration::default();
    assert_eq!(default.scope.scope(), Scope::All);
    let some = parse("scope: {type: Namespaces, namespaces: [team-b, team-a]}").unwrap();
    assert_eq!(some.scope.scope(), Scope::of(["team-a", "team-b"]));
    assert_eq!(some.scope.scope().to_string(), "namespaces team-a, team-b");
    let changes = Changes::between(&default, &some);
    assert_eq!(
        (changes.live.len(), &*changes.restart),
        (0, &["scope.namespaces", "scope.type"].map(String::from)[..])
    );
}

#[test]
fn what_is_malformed_is_named_by_its_path_with_what_was_expected() {
    for (text, path, expected) in [
        (
            "controllers: {batchJob: {wokers: 8}}",
            "controllers.batchJob.wokers",
            "unknown field `wokers`, expected one of `enabled`",
        ),
        ("contrllers: {}", "contrllers", "unknown field `contrllers`"),
        ("controllers: {batchJob: {workers: many}}", "controllers.batchJob.workers", "expected usize"),
        ("controllers: {batchJob: {workers: -1}}", "controllers.batchJob.workers", "expected usize"),
        ("scope: {type: Tenants}", "scope.type", "expected `Cluster` or `Namespaces`"),
        ("scope: {namespace: [a]}", "scope.namespace", "unknown field `namespace`"),
        ("scope: {type: Namespaces, namespaces: a}", "scope.namespaces", "expected a sequence"),
        ("logging: {format: Xml}", "logging.format", "expected `Json` or `Text`"),
        ("tracing: {endpoint: 'http://collector'}", "tracing.endpoint", "expected `otlpEndpoint`"),
        ("health: {address: here}", "health.address", "invalid socket address"),
        ("writeBudget: {process: {rate: 1}}", "writeBudget.process", "missing field `burst`"),
        ("logging: {level: info, level: warn}", "logging", "duplicate"),
        ("kind: ManagerConfiguration", "the document", "duplicate"),
        ("- a list", "the document", "line 3"),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.starts_with(&format!("{path}: ")), "{text}: {error}");
        assert!(error.contains(expected), "{text}: {error}");
    }
    let error = ManagerConfiguration::parse("kind: ManagerConfiguration").unwrap_err().to_string();
    assert!(error.contains("missing field `apiVersion`"), "{error}");
    let other = HEAD.replace("v1alpha1", "v1");
    let error = ManagerConfiguration::parse(&other).unwrap_err().to_string();
    assert!(
        error.starts_with("apiVersion: ") && error.contains("expected `config.springtide.dev/v1alpha1`"),
        "{error}"
    );
}

#[test]
fn what_is_out_of_bounds_is_named_with_the_bounds() {
    for (text, problem) in [
        ("controllers: {batchJob: {workers: 0}}", "controllers.batchJob.workers must be 1 to 256, is 0"),
        (
            "writeBudget: {namespace: {rate: 0, burst: 1}}",
            "writeBudget.namespace.rate must be 0.001 to 100000, is 0",
        ),
        (
            "breaker: {namespace: {floor: 1, percent: 101}}",
            "breaker.namespace.percent must be 0 to 100, is 101",
        ),
        ("breaker: {windowSeconds: 1}", "breaker.windowSeconds must be 10 to 86400, is 1"),
        (
            "writeBudget: {process: {rate: .inf, burst: 1}}",
            "writeBudget.process.rate must be a finite number",
        ),
        (
            "writeBudget: {process: {rate: .nan, burst: 1}}",
            "writeBudget.process.rate must be a finite number",
        ),
        (
            "leaderElection: {renewDeadlineSeconds: 4294967295}",
            "leaderElection.renewDeadlineSeconds must be 2 to 3600, is 4294967295",
        ),
        ("writeBudget: {events: {rate: 1, burst: 0}}", "writeBudget.events.burst must be 1 to 1000000, is 0"),
        ("leaderElection: {namespace: ''}", "leaderElection.namespace must be 1 to 63 characters long, is 0"),
        (
            "leaderElection: {leaseDurationSeconds: 20}",
            "leaderElection.renewDeadlineSeconds must be at least 10 less than leaseDurationSeconds, 20",
        ),
        (
            "leaderElection: {retryPeriodSeconds: 20}",
            "leaderElection.retryPeriodSeconds must be less than renewDeadlineSeconds, 20",
        ),
        (
            "scope: {type: Namespaces}",
            "scope.namespaces must name a namespace at least, as scope.type is Namespaces",
        ),
        ("scope: {namespaces: [a]}", "scope.namespaces must be empty, as scope.type is Cluster"),
        ("scope: {type: Namespaces, namespaces: [a, b, a]}", "scope.namespaces[2] names `a` a second time"),
        ("scope: {type: Namespaces, namespaces: [a, Team]}", "scope.namespaces[1] must be the name of a"),
        (
            "scope: {type: Namespaces, namespaces: [a-]}",
            "scope.namespaces[0] must be the name of a namespace",
        ),
        (
            "scope: {type: Namespaces, namespaces: ['']}",
            "scope.namespaces[0] must be 1 to 63 characters long",
        ),
        (
            "controllers: {batchJob: {enabled: false}, inPlaceUpgrade: {enabled: false}, timeShareGroup: {enabled: false}}",
            "controllers are all disabled; enable one",
        ),
        ("tracing: {otlpEndpoint: 'collector:4318'}", "tracing.otlpEndpoint must begin with http://"),
        ("tracing: {otlpEndpoint: 'https://collector'}", "tracing.otlpEndpoint must begin with http://"),
        ("tracing: {otlpEndpoint: 'http://a b'}", "tracing.otlpEndpoint must be a URL like http://"),
        (
            "tracing: {otlpEndpoint: 'http://collector/?a=b'}",
            "tracing.otlpEndpoint must have a host, and no more",
        ),
        ("logging: {level: 'springtide=loud'}", "logging.level is no filter: "),
        ("logging: {level: 'warn,inof'}", "logging.level is no filter: \"inof\" is no level"),
        ("logging: {level: 'info,'}", "logging.level is no filter: \"\" is no level"),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.starts_with(problem), "{text}: {error}");
    }
    let error = parse("controllers: {batchJob: {workers: 0, settings: {historyLimit: 2000}}}").unwrap_err();
    assert!(error.contains("workers") && error.contains("historyLimit"), "all are named: {error}");
}

proptest::proptest! {
    #[test]
    fn every_filter_that_the_schema_takes_is_one(
        // The generator takes no anchors.
        filter in proptest::string::string_regex(FILTER.trim_matches(['^', '$'])).unwrap(),
    ) {
        proptest::prop_assert_eq!(filter_problem(&filter), None);
    }
}

#[test]
fn filters_on_spans_are_taken_as_in_rust_log() {
    for filter in ["INFO", "info,springtide::a=debug", "[pass{key=a}]=trace,warn", "springtide[pass]=off"] {
        assert_eq!(filter_problem(filter), None, "{filter}");
    }
}

#[test]
fn every_number_and_text_of_the_schema_has_bounds() {
    fn visit(path: &str, schema: &serde_json::Value) {
        let bounds = match schema["type"].as_str() {
            Some("object") => {
                assert_eq!(schema["additionalProperties"], false, "{path} takes in unknown fields");
                for (name, field) in schema["properties"].as_object().unwrap() {
                    assert!(field["description"].is_string(), "{path}.{name} has no description");
                    visit(&format!("{path}.{name}"), field);
                }
                return;
            }
            Some("integer" | "number") => ["minimum", "maximum"],
            Some("string") if schema["enum"].is_null() => ["minLength", "maxLength"],
            Some("array") => ["minItems", "maxItems"],
            Some("boolean" | "string") => return,
            other => {
                assert!(schema["oneOf"].is_array(), "{path} is {other:?}");
                return;
            }
        };
        assert!(bounds.iter().all(|bound| schema[*bound].is_number()), "{path}: {schema}");
    }
    visit("", &schema::schema());
}

#[test]
fn what_changes_live_is_told_from_what_waits_for_a_restart() {
    let old = ManagerConfiguration::default();
    let new = parse(
        "writeBudget: {process: {rate: 1, burst: 600}}\nlogging: {level: debug, format: Text}\nleaderElection: {namespace: a}",
    )
    .unwrap();
    let changes = Changes::between(&old, &new);
    assert_eq!(changes.live, ["logging.level", "writeBudget.process.rate"]);
    assert_eq!(changes.restart, ["leaderElection.namespace", "logging.format"]);
    assert_eq!(Changes::between(&new, &new), Changes::default());
    assert!(is_live("writeBudget") && !is_live("writeBudgets") && !is_live("logging"));
}

#[test]
fn nobody_is_asked_for_metrics_unless_the_address_is_listed() {
    assert!(ManagerConfiguration::default().metric_queries.allowed_addresses.is_empty());
    let parse = |addresses: &str| parse(&format!("metricQueries: {{allowedAddresses: [{addresses}]}}\n"));
    let read = parse("'http://Prometheus.monitoring:9090/', 'https://thanos/query'").unwrap();
    let listed = &read.metric_queries.allowed_addresses;
    assert_eq!(
        listed.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["http://prometheus.monitoring:9090", "https://thanos/query"]
    );
    let error = parse("'http://prom', 'prom:9090'").unwrap_err();
    assert!(error.contains("metricQueries.allowedAddresses[1]") && error.contains("prom:9090"), "{error}");
    let error = parse(&"'http://prom',".repeat(65)).unwrap_err();
    assert!(error.contains("metricQueries.allowedAddresses must be 0 to 64 items long"), "{error}");
    let changes = Changes::between(&ManagerConfiguration::default(), &read);
    assert_eq!(
        (changes.live.len(), &*changes.restart),
        (0, &["metricQueries.allowedAddresses".to_owned()][..])
    );
}

#[test]
fn ranges_of_archives_are_read_and_what_is_none_is_refused_by_name() {
    let parse = |ranges: &str| {
        parse(&format!(
            "controllers: {{batchJob: {{settings: {{archive: {{allowedCidrs: [{ranges}]}}}}}}}}\n"
        ))
    };
    let read = parse("10.0.5.0/24, 'fd00::/8'").unwrap();
    let allowed = &read.controllers.batch_job.settings.archive.allowed_cidrs;
    assert_eq!(allowed.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.5.0/24", "fd00::/8"]);
    let error = parse("10.0.5.0/24, sink").unwrap_err();
    assert!(error.contains("archive.allowedCidrs[1]") && error.contains("\"sink\""), "{error}");
    let error = parse(&"10.0.5.0/24,".repeat(65)).unwrap_err();
    assert!(error.contains("archive.allowedCidrs must be 0 to 64 items long"), "{error}");
}
