//! PromQL expressions against the metrics that exist.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use promql_parser::label::METRIC_NAME;
use promql_parser::parser::{self, Expr, LabelModifier};
use promql_parser::util::{ExprVisitor, walk_expr};
use springtide_plumbing::metrics::catalogue::{Family, FamilyKind};

/// Labels that Prometheus adds to what it scrapes.
const OF_THE_TARGET: [&str; 4] = ["instance", "job", "namespace", "pod"];

/// The series that expressions may select, each with the labels by which.
pub(super) struct Known<'a> {
    series: BTreeMap<String, &'a Family>,
}

impl<'a> Known<'a> {
    pub(super) fn new(families: &'a [Family]) -> Self {
        let all =
            families.iter().flat_map(|family| family.series().into_iter().map(move |name| (name, family)));
        Self { series: all.collect() }
    }

    /// What is wrong with an expression: it does not parse, or selects a series or by a label that does
    /// not exist.
    pub(super) fn problems(&self, expression: &str) -> Vec<String> {
        // Variables of Grafana, as it replaces them.
        let expression = expression.replace("$__rate_interval", "5m").replace("$__range", "1h");
        let expr = match parser::parse(&expression) {
            Ok(expr) => expr,
            Err(error) => return vec![format!("{expression}: {error}")],
        };
        let mut found = Found::default();
        let Ok(_) = walk_expr(&mut found, &expr);
        let mut problems = Vec::new();
        for (name, labels) in &found.selectors {
            if !self.series.contains_key(name.as_str()) {
                problems.push(format!("no metric is called {name:?}"));
            }
            let unknown = labels.iter().filter(|label| !self.may_have(name, label));
            problems.extend(unknown.map(|label| format!("{name} has no label {label:?}")));
        }
        for (labels, names) in &found.groupings {
            let unknown = labels.iter().filter(|label| !names.iter().any(|name| self.may_have(name, label)));
            problems.extend(
                unknown.map(|label| format!("nothing grouped by {label:?} has that label: {names:?}")),
            );
        }
        problems
    }

    /// Whether a series has the label, as far as is known.
    fn may_have(&self, name: &str, label: &str) -> bool {
        let Some(family) = self.series.get(name) else { return true };
        let is_bucket = family.kind == FamilyKind::Histogram && label == "le";
        is_bucket || family.labels.contains(label) || OF_THE_TARGET.contains(&label)
    }
}

/// What an expression names.
#[derive(Default)]
struct Found {
    /// The series selected, each with the labels by which.
    selectors: Vec<(String, BTreeSet<String>)>,
    /// The labels that results are grouped by, each with the names of the series below.
    groupings: Vec<(Vec<String>, Vec<String>)>,
}

impl ExprVisitor for Found {
    type Error = Infallible;

    fn pre_visit(&mut self, expr: &Expr) -> Result<bool, Infallible> {
        let selector = match expr {
            Expr::VectorSelector(selector) => selector,
            Expr::MatrixSelector(matrix) => &matrix.vs,
            Expr::Aggregate(aggregate) => {
                if let Some(LabelModifier::Include(labels)) = &aggregate.modifier {
                    let mut below = Self::default();
                    let Ok(_) = walk_expr(&mut below, &aggregate.expr);
                    let names = below.selectors.into_iter().map(|(name, _)| name).collect();
                    self.groupings.push((labels.labels.clone(), names));
                }
                return Ok(true);
            }
            Expr::Unary(_)
            | Expr::Binary(_)
            | Expr::Paren(_)
            | Expr::Subquery(_)
            | Expr::NumberLiteral(_)
            | Expr::StringLiteral(_)
            | Expr::Call(_)
            | Expr::Extension(_) => return Ok(true),
        };
        let matchers =
            selector.matchers.matchers.iter().chain(selector.matchers.or_matchers.iter().flatten());
        let labels = matchers.map(|matcher| matcher.name.clone()).filter(|name| name != METRIC_NAME);
        self.selectors.push((selector.name.clone().unwrap_or_default(), labels.collect()));
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitoring::catalogue::families;

    #[test]
    fn an_unknown_metric_or_label_is_found_wherever_it_stands() {
        let families = families().unwrap();
        let known = Known::new(&families);
        for (expression, problem) in [
            ("sum(rate(workqueue_dept[5m]))", "workqueue_dept"),
            ("1 - (a_b / on (x) workqueue_depth)", "a_b"),
            ("absent(leader_election_master_status{lease=\"a\"} == 1)", "lease"),
            (
                "histogram_quantile(0.9, rate(workqueue_queue_duration_seconds[5m]))",
                "workqueue_queue_duration_seconds\"",
            ),
            ("sum by (x (y)", "sum by"),
            ("max by (queue) (workqueue_depth)", "queue"),
            ("{controller=\"a\"}", "\"\""),
        ] {
            let found = known.problems(expression);
            assert!(found.len() == 1 && found[0].contains(problem), "{expression}: {found:?}");
        }
        let good = "sum by (le) (rate(workqueue_queue_duration_seconds_bucket{name=~\"a\",le=\"1\",pod=\"p\"}[$__rate_interval]))";
        assert_eq!(known.problems(good), Vec::<String>::new());
    }

    /// The series and labels that the dashboard asks for which kubebuilder's grafana plugin gives to every
    /// project built on controller-runtime (controller-runtime-metrics.json).
    const STOCK_DASHBOARD: [&str; 9] = [
        r#"controller_runtime_active_workers{job="$job", namespace="$namespace"}"#,
        r#"sum by (instance, pod) (rate(controller_runtime_reconcile_total{job="$job", namespace="$namespace"}[5m]))"#,
        r#"sum by (instance, pod) (rate(controller_runtime_reconcile_errors_total{job="$job", namespace="$namespace"}[5m]))"#,
        r#"workqueue_depth{job="$job", namespace="$namespace"}"#,
        r#"sum by (instance, name, le) (rate(workqueue_queue_duration_seconds_bucket{job="$job", namespace="$namespace"}[5m]))"#,
        r#"sum by (instance, name) (rate(workqueue_adds_total{job="$job", namespace="$namespace"}[5m]))"#,
        r#"rate(workqueue_unfinished_work_seconds{job="$job", namespace="$namespace"}[5m])"#,
        r#"sum by (instance, name, le) (rate(workqueue_work_duration_seconds_bucket{job="$job", namespace="$namespace"}[5m]))"#,
        r#"sum by (instance, name) (rate(workqueue_retries_total{job="$job", namespace="$namespace"}[5m]))"#,
    ];

    #[test]
    fn the_stock_dashboard_of_controller_runtime_finds_all_its_series() {
        let families = families().unwrap();
        let known = Known::new(&families);
        for expression in STOCK_DASHBOARD {
            assert_eq!(known.problems(expression), Vec::<String>::new(), "{expression}");
        }
    }
}
