//! What is measured of the queries themselves. No label names an address or an object.

use super::Reading;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::time::Duration;

/// From a Prometheus next door to the deadline of an answer, which is 5 s.
const QUERY_SECONDS: [f64; 9] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
/// Values of the label that says what an answer was.
const RESULTS: [&str; 3] = ["value", "no_data", "error"];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

/// The metrics, all at zero at first.
#[derive(Debug)]
pub(super) struct Measures {
    queries: Family<ResultLabels, Counter>,
    seconds: Histogram,
}

impl Default for Measures {
    fn default() -> Self {
        Self { queries: Family::default(), seconds: Histogram::new(QUERY_SECONDS) }
    }
}

impl Measures {
    /// Makes them part of what is scraped.
    pub(super) fn register(&self, registry: &mut Registry) {
        for result in RESULTS {
            drop(self.queries.get_or_create(&ResultLabels { result }));
        }
        registry.register(
            "springtide_metric_queries",
            "Queries of a Prometheus for the metrics of objects, by what came of them",
            self.queries.clone(),
        );
        registry.register(
            "springtide_metric_query_seconds",
            "Time from a query of a Prometheus to its answer, or to the end of the wait for it",
            self.seconds.clone(),
        );
    }

    /// A query has been answered, or given up.
    pub(super) fn answered(&self, reading: &Reading, took: Duration) {
        let [value, no_data, error] = RESULTS;
        let result = match reading {
            Reading::Value(_) => value,
            Reading::NoData => no_data,
            Reading::Error(_) => error,
        };
        self.queries.get_or_create(&ResultLabels { result }).inc();
        self.seconds.observe(took.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text::encode;

    #[test]
    fn answers_are_counted_by_what_they_say() {
        let (measures, mut registry) = (Measures::default(), Registry::default());
        measures.register(&mut registry);
        let shows = |line: &str| {
            let mut text = String::new();
            encode(&mut text, &registry).unwrap();
            text.lines().any(|found| found == line)
        };
        for result in RESULTS {
            assert!(shows(&format!("springtide_metric_queries_total{{result=\"{result}\"}} 0")), "{result}");
        }
        assert!(shows("springtide_metric_query_seconds_count 0"));
        measures.answered(&Reading::Value(0.0), Duration::from_millis(1500));
        measures.answered(&Reading::Error("no answer".into()), Duration::from_secs(5));
        measures.answered(&Reading::NoData, Duration::ZERO);
        for line in [
            "springtide_metric_queries_total{result=\"value\"} 1",
            "springtide_metric_queries_total{result=\"error\"} 1",
            "springtide_metric_queries_total{result=\"no_data\"} 1",
            "springtide_metric_query_seconds_sum 6.5",
        ] {
            assert!(shows(line), "{line}");
        }
    }
}
