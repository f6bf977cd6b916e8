//! What the spec of a queue means to the admission, and what is wrong with it.

use crate::admission::{CapacitySource, NodeShare, Ordering, QueueRules, QuotaRow, TierRules};
use crate::peaks::{Action, GroupProblem, TIERS};
use crate::pods::{INDEX_LABEL, JOB_LABEL};
use crate::projections::queue::QueueView;
use jiff::SignedDuration;
use serde_json::json;
use springtide_crds::batch_queue::peaks::TimeShareGroupPeak;
use springtide_crds::batch_queue::{
    self, CapacityType, Engine, Ordering as SpecOrdering, StalledReason, TierMapping,
};
use springtide_crds::common::{Quantity, Tier};
use springtide_plumbing::quantity::parse_amount;
use springtide_plumbing::resources::ResourceList;
use springtide_plumbing::window::calendar::PeakTimes;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The rules by which the admission serves a queue.
pub fn rules(queue: &QueueView) -> QueueRules {
    let spec = &queue.spec;
    match spec.engine {
        Engine::Builtin => {}
    }
    let row = |row: &batch_queue::QuotaRow| {
        let nominal = amount(&row.resource, &row.nominal);
        QuotaRow {
            resource: Arc::from(row.resource.as_str()),
            nominal,
            max: row.max.as_ref().map_or(nominal, |max| amount(&row.resource, max)),
        }
    };
    let counted_as = queue.tiers().iter().flat_map(|tier| &tier.resource_names);
    QueueRules {
        cohort: spec.cohort.as_deref().map(Arc::from),
        weight: spec.weight,
        quota: spec.quota.iter().map(row).collect(),
        source: source(&spec.capacity_source),
        load_nodes: selector(&spec.capacity_source),
        counted_as: counted_as.map(|(from, to)| (Arc::from(to.as_str()), Arc::from(from.as_str()))).collect(),
        stale_after: SignedDuration::from_secs(spec.capacity_source.stale_after_seconds.into()),
        ordering: match spec.ordering {
            SpecOrdering::PriorityFifo => Ordering::PriorityFifo,
            SpecOrdering::StrictFifo => Ordering::StrictFifo,
        },
        max_queued_jobs: spec.max_queued_jobs as usize,
        max_tier: spec.max_tier,
        stop: queue.stop(),
        tiers: queue.tiers().iter().filter_map(|tier| Some((tier.name, yielding(tier)?))).collect(),
        max_pending: spec.capacity_source.max_pending_pods as usize,
    }
}

/// For whom the pods of a tier end.
fn yielding(tier: &TierMapping) -> Option<TierRules> {
    let preemptible = tier.preemptible.as_ref()?;
    Some(TierRules {
        preemptible_by: preemptible.by.clone(),
        min_run: SignedDuration::from_secs(preemptible.min_run_seconds.into()),
    })
}

fn source(source: &batch_queue::CapacitySource) -> CapacitySource {
    let share = NodeShare {
        selector: selector(source),
        percent: u8::try_from(source.percent).unwrap_or(100),
        reserve: amounts(&source.reserve),
    };
    match source.type_ {
        CapacityType::NodeAllocatable => CapacitySource::NodeAllocatable(share),
        CapacityType::Static => CapacitySource::Static,
        CapacityType::ExtendedResource => CapacitySource::ExtendedResource(share),
        CapacityType::NodeMetrics => CapacitySource::NodeMetrics(share),
    }
}

fn selector(source: &batch_queue::CapacitySource) -> BTreeMap<Arc<str>, Arc<str>> {
    let labels = source.node_selector.iter().flat_map(|selector| &selector.match_labels);
    labels.map(|(name, value)| (Arc::from(name.as_str()), Arc::from(value.as_str()))).collect()
}

/// In the units of [`ResourceList`].
pub(super) fn amount(resource: &str, quantity: &Quantity) -> i64 {
    // The schema lets nothing else pass than what is a quantity.
    parse_amount(resource, quantity.as_str()).unwrap_or_default()
}

fn amounts(quantities: &BTreeMap<String, Quantity>) -> ResourceList {
    // A map of texts cannot fail to be one.
    serde_json::from_value(json!(quantities)).unwrap_or_default()
}

/// Something about a queue that needs a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What it is.
    pub reason: StalledReason,
    /// The only tier that it concerns; all of them where absent.
    pub tier: Option<Tier>,
    /// What is wrong and what helps, for people.
    pub message: String,
}

/// What a queue finds around it.
pub struct Surroundings<'a> {
    /// Whether the manager may see nodes.
    pub sees_nodes: bool,
    /// Whether there is a PriorityClass of a name, as far as anybody knows.
    pub has_priority_class: &'a dyn Fn(&str) -> bool,
    /// The peaks of a TimeShareGroup that it follows.
    pub peaks_of_group: &'a dyn Fn(&TimeShareGroupPeak) -> Result<PeakTimes, GroupProblem>,
    /// The declared maximum that the queue is beyond, if it is.
    pub beyond_maximum: Option<usize>,
}

/// Everything about a queue that needs a person.
pub fn problems(queue: &QueueView, around: &Surroundings<'_>) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let Some(limit) = around.beyond_maximum {
        problems.push(Problem {
            reason: StalledReason::LimitExceeded,
            tier: None,
            message: format!(
                "more than {limit} BatchQueues exist; nothing starts here until older ones are gone"
            ),
        });
    }
    match queue.spec.capacity_source.type_ {
        CapacityType::NodeAllocatable | CapacityType::ExtendedResource | CapacityType::NodeMetrics
            if !around.sees_nodes =>
        {
            problems.push(Problem {
                reason: StalledReason::NodesNotVisible,
                tier: None,
                message:
                    "the manager may not see nodes (namespaced mode): set spec.capacitySource.type to Static"
                        .to_owned(),
            });
        }
        CapacityType::NodeAllocatable
        | CapacityType::ExtendedResource
        | CapacityType::NodeMetrics
        | CapacityType::Static => {}
    }
    if !around.sees_nodes && !queue.spec.load_triggers.is_empty() {
        let concerned = TIERS.into_iter().filter(|tier| {
            queue.peaks.triggers().iter().any(|trigger| trigger.action(*tier) != Action::None)
        });
        problems.extend(concerned.map(|tier| Problem {
            reason: StalledReason::NodesNotVisible,
            tier: Some(tier),
            message: format!(
                "the manager may not see nodes (namespaced mode), and spec.loadTriggers concern tier {tier:?}: remove them"
            ),
        }));
    }
    problems.extend(queue.peaks.problems_with(around.peaks_of_group).map(|problem| Problem {
        reason: problem.reason(),
        tier: None,
        message: problem.to_string(),
    }));
    for tier in queue.tiers() {
        if let Some(what) = tier_problem(tier, around) {
            problems.push(Problem {
                reason: StalledReason::InvalidTier,
                tier: Some(tier.name),
                message: format!("spec.tiers[{:?}].{what}", tier.name),
            });
        }
    }
    problems
}

/// Why the API server would refuse pods with this mapping, or somebody would mistake them.
fn tier_problem(tier: &TierMapping, around: &Surroundings<'_>) -> Option<String> {
    if let Some(class) = &tier.priority_class_name
        && !(around.has_priority_class)(class)
    {
        return Some(format!("priorityClassName: there is no PriorityClass {class}; create it"));
    }
    for (name, value) in &tier.pod_labels {
        if !is_qualified_name(name) {
            return Some(format!("podLabels: {name:?} is not the name of a label"));
        }
        if !value.is_empty() && !is_name(value) {
            return Some(format!("podLabels: {value:?} is not the value of a label"));
        }
        // The controller finds pods and their queue by those.
        let domain = JOB_LABEL.split_once('/').map(|(domain, _)| domain);
        if name == INDEX_LABEL || name.split_once('/').map(|(domain, _)| domain) == domain {
            return Some(format!("podLabels: {name} is set by the controller; remove it"));
        }
    }
    for (from, to) in &tier.resource_names {
        if !to.contains('/') {
            return Some(format!(
                "resourceNames: {to} in place of {from} is no extended resource, which has a domain"
            ));
        }
        if tier.resource_names.iter().any(|(other, name)| name == to && other != from) {
            return Some(format!("resourceNames: {to} stands for two resources"));
        }
    }
    None
}

/// A name with or without a domain, as Kubernetes has it for labels.
fn is_qualified_name(text: &str) -> bool {
    match text.split_once('/') {
        None => is_name(text),
        Some((domain, name)) => is_domain(domain) && is_name(name),
    }
}

fn is_domain(text: &str) -> bool {
    let is_label = |label: &str| {
        let is_end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        is_end(label.chars().next())
            && is_end(label.chars().next_back())
            && label.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

fn is_name(text: &str) -> bool {
    let is_end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && is_end(text.chars().next())
        && is_end(text.chars().next_back())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}
