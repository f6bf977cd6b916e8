//! What is measured of the learning itself. No label names an object.

use super::learned::Run;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Values of the label that says whether anything is known of the usage of a run.
const USAGE: [&str; 2] = ["known", "unknown"];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RunLabels {
    usage: &'static str,
}

/// What came of a look at the usage of pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// It answered.
    Served,
    /// There is none, or it may not be asked.
    NotServed,
    /// It did not answer.
    Failed,
}

impl Reading {
    const ALL: [Self; 3] = [Self::Served, Self::NotServed, Self::Failed];

    fn as_str(self) -> &'static str {
        match self {
            Self::Served => "served",
            Self::NotServed => "not_served",
            Self::Failed => "failed",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReadingLabels {
    result: &'static str,
}

/// The metrics, all at zero at first.
#[derive(Debug, Default)]
pub(crate) struct Measures {
    runs: Family<RunLabels, Counter>,
    oom_kills: Counter,
    mismatches: Counter,
    readings: Family<ReadingLabels, Counter>,
}

impl Measures {
    /// Makes them part of what is scraped.
    pub(crate) fn register(&self, registry: &mut Registry) {
        for usage in USAGE {
            drop(self.runs.get_or_create(&RunLabels { usage }));
        }
        for result in Reading::ALL.map(Reading::as_str) {
            drop(self.readings.get_or_create(&ReadingLabels { result }));
        }
        registry.register(
            "springtide_batch_profile_runs",
            "Runs of tasks that profiles learn from, by whether their usage is known",
            self.runs.clone(),
        );
        registry.register(
            "springtide_batch_profile_oom_kills",
            "Runs with a profile in which a container was killed for want of memory",
            self.oom_kills.clone(),
        );
        registry.register(
            "springtide_batch_profile_mismatches",
            "Runs whose containers are not those of their profile, which learns nothing from them",
            self.mismatches.clone(),
        );
        registry.register(
            "springtide_batch_profile_usage_readings",
            "Lists of metrics.k8s.io while pods with a profile run, by result",
            self.readings.clone(),
        );
    }

    /// A run ended that is to be learned from.
    pub(crate) fn ended(&self, run: &Run) {
        let is_known = run.containers.iter().any(|container| !container.usage.is_empty());
        let usage = USAGE[usize::from(!is_known)];
        self.runs.get_or_create(&RunLabels { usage }).inc();
        if run.containers.iter().any(|container| container.killed_at.is_some()) {
            self.oom_kills.inc();
        }
    }

    /// It was of another task than those before it.
    pub(crate) fn mismatched(&self) {
        self.mismatches.inc();
    }

    /// The usage of pods was asked for.
    pub(crate) fn read(&self, result: Reading) {
        self.readings.get_or_create(&ReadingLabels { result: result.as_str() }).inc();
    }
}
