//! The objects of our own kinds, counted in their stores at scrape time.

use super::scrape::gauge;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Reason shown for a condition that is absent, or whose reason no documentation knows: the values of the
/// label stay bounded.
const UNKNOWN: &str = "Unknown";

/// A kind whose objects can be counted.
pub trait Population: Send + Sync {
    /// Counts them now.
    fn census(&self) -> Census;
}

/// How many objects of a kind there are, and where they stand.
#[derive(Clone, Debug)]
pub struct Census {
    kind: &'static str,
    by_reason: BTreeMap<&'static str, usize>,
    stalled: BTreeMap<&'static str, usize>,
    by_namespace: HashMap<Arc<str>, usize>,
    max_per_namespace: usize,
    max_per_cluster: usize,
    /// Objects beyond a declared maximum, which are not started.
    pub beyond_maximum: usize,
}

impl Census {
    /// No object yet. `reasons` and `stalled` are the documented reasons of the summary condition (Ready,
    /// or what a kind has in its place) and of `Stalled`; the maxima are those that the CRD declares.
    pub fn new(
        kind: &'static str,
        reasons: impl IntoIterator<Item = &'static str>,
        stalled: impl IntoIterator<Item = &'static str>,
        max_per_namespace: usize,
        max_per_cluster: usize,
    ) -> Self {
        let zeros = |reasons: &mut dyn Iterator<Item = &'static str>| {
            reasons.chain([UNKNOWN]).map(|reason| (reason, 0)).collect::<BTreeMap<_, _>>()
        };
        Self {
            kind,
            by_reason: zeros(&mut reasons.into_iter()),
            stalled: zeros(&mut stalled.into_iter()),
            by_namespace: HashMap::new(),
            max_per_namespace,
            max_per_cluster,
            beyond_maximum: 0,
        }
    }

    /// Counts an object by the reason of its summary condition and, where it has not ended and needs a
    /// person, by that of `Stalled`.
    pub fn add(&mut self, namespace: &Arc<str>, summary: Option<&str>, stalled: Option<&str>) {
        *self.by_namespace.entry(Arc::clone(namespace)).or_default() += 1;
        count_one(&mut self.by_reason, summary.unwrap_or(UNKNOWN));
        if let Some(reason) = stalled {
            count_one(&mut self.stalled, reason);
        }
    }

    /// Whether there are more objects than a maximum allows, in a namespace or in all.
    pub fn exceeds_a_maximum(&self) -> bool {
        self.fullest() > self.max_per_namespace || self.total() > self.max_per_cluster
    }

    fn fullest(&self) -> usize {
        self.by_namespace.values().copied().max().unwrap_or(0)
    }

    fn total(&self) -> usize {
        self.by_namespace.values().sum()
    }

    /// How far the maxima are used up, by scope.
    fn shares(&self) -> [(&'static str, f64); 2] {
        let share = |objects: usize, most: usize| objects as f64 / most.max(1) as f64;
        [
            ("namespace", share(self.fullest(), self.max_per_namespace)),
            ("cluster", share(self.total(), self.max_per_cluster)),
        ]
    }
}

fn count_one(counts: &mut BTreeMap<&'static str, usize>, reason: &str) {
    let known = if counts.contains_key(reason) { reason } else { UNKNOWN };
    if let Some(count) = counts.get_mut(known) {
        *count += 1;
    }
}

/// All kinds in one collector: a family must not be begun twice in one scrape.
#[derive(Clone, Default)]
pub(super) struct Populations(Arc<Mutex<Vec<Arc<dyn Population>>>>);

impl Populations {
    pub(super) fn add(&self, population: Arc<dyn Population>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(population);
    }
}

impl fmt::Debug for Populations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Populations").finish_non_exhaustive()
    }
}

#[derive(Debug, EncodeLabelSet)]
struct ReasonLabels {
    kind: &'static str,
    ready_reason: &'static str,
}

#[derive(Debug, EncodeLabelSet)]
struct StalledLabels {
    kind: &'static str,
    reason: &'static str,
}

#[derive(Debug, EncodeLabelSet)]
struct ScopeLabels {
    kind: &'static str,
    scope: &'static str,
}

#[derive(Debug, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

impl Collector for Populations {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let populations = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let all: Vec<_> = populations.iter().map(|population| population.census()).collect();
        let by_reason = all.iter().flat_map(|census| {
            let kind = census.kind;
            census
                .by_reason
                .iter()
                .map(move |(reason, count)| (ReasonLabels { kind, ready_reason: reason }, *count))
        });
        let help = "Objects by the reason of their condition Ready, or of that which a kind has in its place";
        gauge(&mut encoder, "springtide_objects", help, by_reason)?;
        let stalled = all.iter().flat_map(|census| {
            let kind = census.kind;
            census.stalled.iter().map(move |(reason, count)| (StalledLabels { kind, reason }, *count))
        });
        let help = "Objects that have not ended and need a person, by the reason of their condition Stalled";
        gauge(&mut encoder, "springtide_objects_stalled", help, stalled)?;
        let shares = all.iter().flat_map(|census| {
            census.shares().map(|(scope, share)| (ScopeLabels { kind: census.kind, scope }, share))
        });
        let help = "Objects as a share of the declared maximum: of the fullest namespace, and of the cluster";
        gauge(&mut encoder, "springtide_objects_maximum_ratio", help, shares)?;
        let beyond = all.iter().map(|census| (KindLabel { kind: census.kind }, census.beyond_maximum));
        let help = "Objects beyond a declared maximum, which are not started";
        gauge(&mut encoder, "springtide_over_maximum", help, beyond)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    struct Ships;

    impl Population for Ships {
        fn census(&self) -> Census {
            let mut census = Census::new("Ship", ["Sailing", "Sunk"], ["Aground"], 4, 100);
            let (north, south) = (Arc::from("north"), Arc::from("south"));
            census.add(&north, Some("Sailing"), None);
            census.add(&north, Some("Sailing"), Some("Aground"));
            census.add(&south, Some("Mutiny"), Some("Mutiny"));
            census.add(&south, None, None);
            census.add(&south, Some("Sailing"), None);
            assert!(!census.exceeds_a_maximum());
            census
        }
    }

    #[tokio::test]
    async fn objects_are_counted_by_known_reasons_and_against_the_maxima() {
        let metrics = Metrics::new(&[]);
        metrics.add_population(Arc::new(Ships));
        let text = metrics.encode().unwrap();
        for line in [
            r#"springtide_objects{kind="Ship",ready_reason="Sailing"} 3"#,
            r#"springtide_objects{kind="Ship",ready_reason="Sunk"} 0"#,
            r#"springtide_objects{kind="Ship",ready_reason="Unknown"} 2"#,
            r#"springtide_objects_stalled{kind="Ship",reason="Aground"} 1"#,
            r#"springtide_objects_stalled{kind="Ship",reason="Unknown"} 1"#,
            r#"springtide_objects_maximum_ratio{kind="Ship",scope="namespace"} 0.75"#,
            r#"springtide_objects_maximum_ratio{kind="Ship",scope="cluster"} 0.05"#,
            r#"springtide_over_maximum{kind="Ship"} 0"#,
        ] {
            assert!(text.contains(line), "{line} is missing in:\n{text}");
        }
        assert!(!text.contains("Mutiny"), "a reason that nobody documented became a label:\n{text}");
    }

    #[test]
    fn either_maximum_can_be_exceeded() {
        let mut census = Census::new("Ship", [], [], 1, 2);
        let namespaces: Vec<Arc<str>> = ["a", "b", "c"].map(Arc::from).to_vec();
        for namespace in &namespaces[..2] {
            census.add(namespace, None, None);
        }
        assert!(!census.exceeds_a_maximum());
        census.add(&namespaces[2], None, None);
        assert!(census.exceeds_a_maximum(), "the cluster's");
        let mut census = Census::new("Ship", [], [], 1, 100);
        census.add(&namespaces[0], None, None);
        census.add(&namespaces[0], None, None);
        assert!(census.exceeds_a_maximum(), "the namespace's");
    }
}
