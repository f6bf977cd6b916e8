//! A namespace of a cluster with a real node, with a group of servers there: what tests, bench and demo do with it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Node;
use kube::api::Api;
use serde_json::{Value, json};
use springtide_crds::common::condition;
use springtide_crds::reason::Reason;
use springtide_crds::time_share_group::{ReadyReason, TimeShareGroup, TimeShareGroupSpec};
use springtide_time_share_group::sizes::{Demand, Level};

use super::node_member::{NodeMember, group_of};
use super::sizes::{SizeFeed, SizedPod, Sizes, demand};
use super::testbed::Testbed;
use crate::node::program::BOX_IMAGE;
use crate::node::{NODE_NAME, NodeCluster};
use crate::upgrade::pods::Identity;

/// Name of the group.
pub const GROUP: &str = "share";
/// Name of the Deployment that takes what is not to be free.
const FILLER: &str = "filler";

/// The namespace, its oracles and its hands.
pub struct NodeStage<'a> {
    /// The cluster.
    pub cluster: &'a NodeCluster,
    /// The namespace, with what was seen of its group.
    pub test: Testbed<'a>,
    /// What was seen of all pods of the cluster.
    pub sizes: SizeFeed,
}

impl<'a> NodeStage<'a> {
    /// A namespace of its own.
    ///
    /// # Errors
    /// The API server refuses something.
    pub async fn new(cluster: &'a NodeCluster, prefix: &str) -> Result<Self> {
        let test = Testbed::new(cluster.control_plane(), prefix).await?;
        let sizes = SizeFeed::start(Api::all(test.client())).await?;
        Ok(Self { cluster, test, sizes })
    }

    /// What the node has for pods.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn allocatable(&self) -> Result<Demand> {
        let node = Api::<Node>::all(self.test.client()).get(NODE_NAME).await?;
        let allocatable = node.status.and_then(|status| status.allocatable).context("allocatable")?;
        Ok(demand(&allocatable))
    }

    /// Creates the workload of a member, and waits until its pods are up at valley size. Gives what makes them the same.
    ///
    /// # Errors
    /// It is refused, or its pods do not come up.
    pub async fn start(&self, member: &NodeMember) -> Result<BTreeMap<String, Identity>> {
        self.test.create::<Deployment>(member.manifest()).await?;
        self.all(member, Level::Valley).await?;
        Ok(self.sizes.now().identities(&member.name))
    }

    /// Waits until all pods of a member are up, with this size in force.
    ///
    /// # Errors
    /// It does not come to that.
    pub async fn all(&self, member: &NodeMember, level: Level) -> Result<()> {
        let what = format!("all pods of {} at {}", member.name, level.as_str());
        let all = |sizes: &Sizes| {
            let pods = sizes.of(&member.name);
            let are_there = pods.len() == member.replicas as usize;
            (are_there && pods.iter().all(|pod| is_at(pod, member, level) && pod.is_up())).then_some(())
        };
        self.sizes.until(&what, all).await
    }

    /// Takes all cpu of the node that nobody has asked for, but for so many thousandths of a core.
    ///
    /// # Errors
    /// There is less, or the pod that takes it does not come to run.
    pub async fn fill(&self, left: i64) -> Result<()> {
        let taken = self.asked().cpu;
        let rest = self.allocatable().await?.cpu - taken - left;
        ensure!(rest > 0, "{taken} thousandths of a core are asked for, so that {left} are not left");
        let labels = json!({"app": FILLER});
        self.test
            .create::<Deployment>(json!({
                "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": FILLER},
                "spec": {
                    "replicas": 1, "selector": {"matchLabels": labels},
                    "template": {"metadata": {"labels": labels}, "spec": {
                        "terminationGracePeriodSeconds": 0,
                        "containers": [{
                            "name": "main", "image": BOX_IMAGE, "args": ["pause"],
                            "resources": {"requests": {"cpu": format!("{rest}m")}},
                        }],
                    }},
                },
            }))
            .await?;
        let runs = |sizes: &Sizes| sizes.of(FILLER).iter().any(|pod| pod.is_up()).then_some(());
        self.sizes.until("the node is full", runs).await
    }

    /// What all pods of the node ask for that have not ended.
    #[must_use]
    pub fn asked(&self) -> Demand {
        self.sizes.now().asked(NODE_NAME)
    }

    /// Creates the group of these members, who are all at valley size, and nobody has the peak; `change` gets its spec.
    /// Waits until it is served.
    ///
    /// # Errors
    /// It is refused, or not served.
    pub async fn group(
        &self,
        members: &[&NodeMember],
        change: impl FnOnce(&mut TimeShareGroupSpec),
    ) -> Result<TimeShareGroup> {
        let mut spec = group_of(members)?;
        change(&mut spec);
        self.test.group(GROUP, spec).await?;
        self.settled(None).await
    }

    /// Asks for a switch to a member, or to nobody.
    ///
    /// # Errors
    /// It is refused.
    pub async fn ask_for(&self, member: Option<&str>) -> Result<()> {
        self.test.override_to(GROUP, member).await.map(drop)
    }

    /// Merges a change into the group.
    ///
    /// # Errors
    /// It is refused.
    pub async fn edit(&self, change: Value) -> Result<()> {
        self.test.edit(GROUP, change).await.map(drop)
    }

    /// Asks for a switch, and waits for its end.
    ///
    /// # Errors
    /// It does not end with everything done.
    pub async fn switch_to(&self, member: Option<&str>) -> Result<TimeShareGroup> {
        self.ask_for(member).await?;
        self.settled(member).await
    }

    /// As [`NodeStage::switch_to`], where some units cannot be done.
    ///
    /// # Errors
    /// It does not end, or with everything done.
    pub async fn switch_to_what_can_be(&self, member: Option<&str>) -> Result<TimeShareGroup> {
        self.ask_for(member).await?;
        self.settled_with_skips(member).await
    }

    /// Waits until the group says that a member, or nobody, has the peak, and that nothing is left to do.
    ///
    /// # Errors
    /// It does not come to that.
    pub async fn settled(&self, member: Option<&str>) -> Result<TimeShareGroup> {
        self.test.settled(GROUP, member).await
    }

    /// As [`NodeStage::settled`], where units could not be done or were given up.
    ///
    /// # Errors
    /// It does not come to that.
    pub async fn settled_with_skips(&self, member: Option<&str>) -> Result<TimeShareGroup> {
        self.test.settled_as(GROUP, member, &[ReadyReason::SettledWithSkips]).await
    }

    /// As [`NodeStage::settled`], whatever became of its units.
    ///
    /// # Errors
    /// It does not come to that.
    pub async fn ended(&self, member: Option<&str>) -> Result<TimeShareGroup> {
        self.test.settled_as(GROUP, member, &[ReadyReason::Settled, ReadyReason::SettledWithSkips]).await
    }

    /// # Errors
    /// A pod of the member has not this size, by its spec, its kubelet and the kernel.
    pub fn ensure_at(&self, member: &NodeMember, level: Level) -> Result<()> {
        let sizes = self.sizes.now();
        let pods = sizes.of(&member.name);
        ensure!(pods.len() == member.replicas as usize, "{} pods of {}", pods.len(), member.name);
        for pod in pods {
            ensure!(is_at(pod, member, level), "not at {}:\n{pod:?}", level.as_str());
            let uid = pod.pod.metadata.uid.as_deref().context("a UID")?;
            let held = self.cluster.limits_of_pod(uid)?;
            let limits = member.limits(level);
            ensure!(held == limits, "the kernel holds {} to {held:?}, not to {limits:?}", pod.name());
        }
        Ok(())
    }

    /// # Errors
    /// More was allocated at some time than the node has.
    pub async fn ensure_never_overcommitted(&self) -> Result<()> {
        let has = self.allocatable().await?;
        let most = self.sizes.now().most_allocated(NODE_NAME);
        ensure!(most.cpu <= has.cpu && most.memory <= has.memory, "{most:?} were allocated of {has:?}");
        Ok(())
    }
}

/// Whether a pod of a member has this size in force.
#[must_use]
pub fn is_at(pod: &SizedPod, member: &NodeMember, level: Level) -> bool {
    pod.is_resized() && pod.size.asked == member.requests(level)
}

/// Whether a group says of its present spec that a member, or nobody, has the peak, and one of these of it.
#[must_use]
pub fn is_settled(group: &TimeShareGroup, member: Option<&str>, reasons: &[ReadyReason]) -> bool {
    let Some(status) = &group.status else { return false };
    let ready = condition(&status.conditions, ReadyReason::CONDITION);
    let is_told = ready.is_some_and(|ready| reasons.iter().any(|reason| ready.reason == reason.as_str()));
    let is_over = status.transition.as_ref().is_none_or(|last| last.completion_time.is_some());
    is_told
        && is_over
        && Some(status.observed_generation) == group.metadata.generation
        && status.active_member.as_deref() == member
        && status.desired_member.as_deref() == member
}
