//! What is there at one moment, and how it is shown: a line whenever something has changed.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};
use springtide_crds::batch_queue::{BatchQueue, DrainWillMissReason, ReadyReason};
use springtide_crds::common::{ConditionStatus, Tier, condition};
use springtide_crds::reason::Reason;

use super::{NAMESPACE, QUEUE};

/// The label by which a pod's tier is known.
const TIER: &str = "springtide.dev/tier";

/// Pods of one tier that have not been asked to go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pods {
    /// UIDs of those that exist.
    pub(crate) all: BTreeSet<String>,
    /// How many of them are ending.
    pub(crate) ending: usize,
}

/// Queue and pods at one moment.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// When it was looked at.
    pub(crate) at: Timestamp,
    /// Reason of the queue's condition Ready.
    pub(crate) ready: String,
    /// Whether the queue foretells that it will miss the start.
    pub(crate) will_miss: bool,
    /// Pods of tier BestEffort.
    pub(crate) low: Pods,
    /// Pods of tier Standard.
    pub(crate) usual: Pods,
}

impl View {
    /// Looks.
    ///
    /// # Errors
    /// The API server does not answer.
    pub(crate) async fn of(client: &Client) -> Result<Self> {
        let queues: Api<BatchQueue> = Api::namespaced(client.clone(), NAMESPACE);
        let queue = queues.get(QUEUE).await.context("read the queue")?;
        let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
        let pods = pods.list(&ListParams::default()).await.context("list the pods")?;
        let conditions = queue.status.map(|status| status.conditions).unwrap_or_default();
        let ready = condition(&conditions, ReadyReason::CONDITION);
        let misses = condition(&conditions, DrainWillMissReason::CONDITION);
        let of_tier = |tier: Tier| {
            let wanted = format!("{tier:?}");
            let mut found = Pods::default();
            for pod in pods.items.iter().filter(|pod| pod.labels().get(TIER) == Some(&wanted)) {
                found.all.extend(pod.uid());
                found.ending += usize::from(pod.metadata.deletion_timestamp.is_some());
            }
            found
        };
        Ok(Self {
            at: Timestamp::now(),
            ready: ready.map(|ready| ready.reason.clone()).unwrap_or_default(),
            will_miss: misses.is_some_and(|misses| misses.status == ConditionStatus::True),
            low: of_tier(Tier::BestEffort),
            usual: of_tier(Tier::Standard),
        })
    }
}

/// What has been shown already.
#[derive(Default)]
pub(crate) struct Screen {
    last: Option<String>,
}

impl Screen {
    /// Before the first line.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Shows what is there, if it differs from what is shown.
    pub(crate) fn show(&mut self, view: &View, start: Timestamp, end: Timestamp) {
        let bar = |pods: &Pods| {
            let staying = pods.all.len() - pods.ending;
            format!("{}{}", "#".repeat(staying), "-".repeat(pods.ending))
        };
        let pods = format!(
            "{:<10} BestEffort {:>2} {:<16}  Standard {:>2} {:<16}",
            view.ready,
            view.low.all.len(),
            bar(&view.low),
            view.usual.all.len(),
            bar(&view.usual),
        );
        if self.last.as_ref() == Some(&pods) {
            return;
        }
        if self.last.is_none() {
            println!(
                "   (# a pod that stays, - one that is ending; seconds before the start, since it, since the end)"
            );
        }
        let seconds = |since: Timestamp| view.at.duration_since(since).as_secs();
        let when = if view.at < start {
            format!("start {:>4} s", seconds(start))
        } else if view.at < end {
            format!("start {:>+4} s", seconds(start))
        } else {
            format!("end   {:>+4} s", seconds(end))
        };
        println!("   {when}  {}", pods.trim_end());
        self.last = Some(pods);
    }
}
