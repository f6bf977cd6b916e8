//! What is known of one InPlaceUpgrade: plain data, gathered by [`observe`](crate::observe), that a plan rests on.

use crate::departures::Departing;
use crate::health::Metric;
use crate::machine::Evidence;
use crate::projections::upgrade::UpgradeView;
use crate::target::Target;
use crate::time_share::TimeShare;
use jiff::Timestamp;
use springtide_plumbing::dry_run::Answers;
use springtide_plumbing::failing::Failing;
use springtide_plumbing::key::{ObjectKey, Uid};
use springtide_plumbing::workloads::claims::Claim;
use springtide_plumbing::workloads::node::NodeView;
use springtide_plumbing::workloads::pod::PodView;
use springtide_plumbing::workloads::vertical_pod_autoscaler::VerticalPodAutoscalerView;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Plain data about one object.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The object.
    pub upgrade: Arc<UpgradeView>,
    /// Its target; `None` while there is none of that name.
    pub target: Option<Target>,
    /// Since when there has been none, as far as was looked.
    pub target_missing_since: Option<Timestamp>,
    /// An older object with the same target.
    pub rival: Option<ObjectKey>,
    /// What maximum it is beyond, for people.
    pub excess: Option<String>,
    /// The VerticalPodAutoscaler that resizes the target's pods.
    pub autoscaler: Option<Arc<VerticalPodAutoscalerView>>,
    /// What the TimeShareGroup says that the target is a member of; see [`time_share`](crate::time_share).
    pub time_share: Option<TimeShare>,
    /// Live pods of the target, by name.
    pub pods: Vec<Arc<PodView>>,
    /// What else is known of them, by UID.
    pub evidence: HashMap<Uid, Evidence>,
    /// The nodes that they are on, by name; empty where nodes are not seen.
    pub nodes: HashMap<Arc<str>, Arc<NodeView>>,
    /// PodDisruptionBudgets that select one of them.
    pub budgets: Vec<BudgetRoom>,
    /// What passes of other objects have just decided.
    pub departing: Departing,
    /// The metrics of the spec.
    pub metrics: Vec<Metric>,
    /// Addresses of metrics that may not be asked, and why.
    pub refused_addresses: HashMap<String, String>,
    /// What the API server answered to dry runs.
    pub answers: Answers<()>,
    /// Pods that pull images for it.
    pub pullers: Vec<Arc<PodView>>,
    /// Since when nothing has moved, as far as was looked.
    pub still_since: Option<Timestamp>,
    /// Which field of the workload belongs to another manager, as an apply was told.
    pub field_conflict: Option<String>,
    /// When this process has written the status last.
    pub status_written: Option<Timestamp>,
    /// What its writes fail at.
    pub failing: Option<Failing>,
    /// The image of the pods that pull images.
    pub tools_image: Arc<str>,
}

/// A PodDisruptionBudget, as far as it is about these pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BudgetRoom {
    /// Its name.
    pub name: String,
    /// How many of its ready pods may be taken out of service beside those that are.
    pub room: usize,
    /// Those of the target's pods that it selects.
    pub pods: HashSet<Uid>,
}

impl Observed {
    /// An object of which nothing else is known.
    pub fn of(upgrade: Arc<UpgradeView>) -> Self {
        Self {
            upgrade,
            target: None,
            target_missing_since: None,
            rival: None,
            excess: None,
            autoscaler: None,
            time_share: None,
            pods: Vec::new(),
            evidence: HashMap::new(),
            nodes: HashMap::new(),
            budgets: Vec::new(),
            departing: Departing::default(),
            metrics: Vec::new(),
            refused_addresses: HashMap::new(),
            answers: Answers::new(),
            pullers: Vec::new(),
            still_since: None,
            field_conflict: None,
            status_written: None,
            failing: None,
            tools_image: Arc::default(),
        }
    }

    /// Cpu and memory of the target's pods that somebody else decides.
    pub fn claims(&self) -> Vec<Claim> {
        let of_group = self.time_share.as_ref().map(|share| share.claim.clone());
        let of_autoscaler = self.autoscaler.as_ref().map(|autoscaler| autoscaler.claim.clone());
        [of_group, of_autoscaler].into_iter().flatten().collect()
    }
}
