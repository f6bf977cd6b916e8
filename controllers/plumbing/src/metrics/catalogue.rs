//! The families that a process shows, read from an exposition: what documentation, dashboards and alerts
//! are held to.

use super::{BudgetSource, GuardSource, LeaderSource, Metrics, StoreSource};
use crate::brake::Brake;
use crate::breaker::{Breaker, Limits};
use crate::budget::{BudgetConfig, WriteBudget};
use crate::clock::Clock;
use crate::guard::Mode;
use crate::lease::LeaseView;
use crate::queue::WorkQueue;
use crate::store::{Store, StoreView};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use tokio::sync::watch;

/// One family of metrics, under the name by which queries ask for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Family {
    /// The name; that of a histogram is without `_bucket`, `_sum` and `_count`.
    pub name: String,
    /// What it measures.
    pub kind: FamilyKind,
    /// Names of the labels of all its series; without `le`.
    pub labels: BTreeSet<String>,
    /// What it means.
    pub help: String,
}

/// What a family measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FamilyKind {
    /// Only grows, from zero.
    Counter,
    /// Goes up and down.
    Gauge,
    /// How often values fell into buckets.
    Histogram,
}

impl fmt::Display for FamilyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        })
    }
}

impl Family {
    /// The names of its series, which expressions select.
    pub fn series(&self) -> Vec<String> {
        match self.kind {
            FamilyKind::Counter | FamilyKind::Gauge => vec![self.name.clone()],
            FamilyKind::Histogram => {
                ["_bucket", "_sum", "_count"].map(|suffix| format!("{}{suffix}", self.name)).to_vec()
            }
        }
    }
}

/// The metrics of a process with these controllers and nothing to do, as the manager puts them together;
/// those of the controllers' own are still to be registered.
pub fn specimen(controllers: &[&'static str]) -> Metrics {
    let metrics = Metrics::new(controllers);
    for controller in controllers {
        metrics.add_queue(controller, WorkQueue::new(1));
    }
    let (leases, _writer) = Store::<LeaseView>::new(&[]);
    let views: Arc<[Arc<dyn StoreView>]> = Arc::new([Arc::new(leases)]);
    let budget = Arc::new(WriteBudget::new(BudgetConfig::default()));
    let (_elector, leading) = watch::channel(true);
    let guard = GuardSource {
        modes: controllers.iter().map(|controller| (*controller, Mode::Act)).collect(),
        brake: Brake::new(),
        breaker: Arc::new(Breaker::new(Limits::default(), Clock::system())),
    };
    let controllers = controllers.to_vec();
    metrics.register(|registry| {
        registry.register_collector(Box::new(StoreSource(views)));
        registry.register_collector(Box::new(guard));
        registry.register_collector(Box::new(BudgetSource { budget, controllers }));
        registry.register_collector(Box::new(LeaderSource { lease: "springtide".to_owned(), leading }));
    });
    drop(metrics.measure_requests("api:6443"));
    metrics
}

/// The families of `metrics`, by name. Those that begin without a series get one, so that their labels show.
///
/// # Errors
/// When the metrics cannot be encoded, which does not happen in practice.
pub fn families(metrics: &Metrics) -> Result<Vec<Family>, fmt::Error> {
    metrics.write("", "", "", "");
    Ok(parse(&metrics.encode()?))
}

/// Reads an exposition in the OpenMetrics text format.
pub fn parse(exposition: &str) -> Vec<Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let (mut help, mut current) = (String::new(), String::new());
    for line in exposition.lines() {
        if let Some(comment) = line.strip_prefix("# HELP ") {
            help = comment.split_once(' ').map_or("", |(_, text)| text.trim_end_matches('.')).to_owned();
        } else if let Some(comment) = line.strip_prefix("# TYPE ") {
            let Some((name, kind)) = comment.split_once(' ') else { continue };
            let (name, kind) = match kind {
                "counter" => (format!("{name}_total"), FamilyKind::Counter),
                "histogram" => (name.to_owned(), FamilyKind::Histogram),
                _ => (name.to_owned(), FamilyKind::Gauge),
            };
            let help = std::mem::take(&mut help);
            current.clone_from(&name);
            families.insert(name.clone(), Family { name, kind, labels: BTreeSet::new(), help });
        } else if let (Some(family), Some((_, rest))) = (families.get_mut(&current), line.split_once('{')) {
            // A value may hold a comma, but no label name is left of an equals sign then.
            let names = rest.split("=\"").filter_map(|part| part.rsplit([',', '{', '"']).next());
            let names = names.filter(|name| !name.is_empty() && *name != "le" && is_name(name));
            family.labels.extend(names.map(str::to_owned));
        }
    }
    families.into_values().collect()
}

fn is_name(text: &str) -> bool {
    text.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_')
}
