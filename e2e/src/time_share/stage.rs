//! Two members on nodes of their own, which KWOK plays: what one of them needs at peak beside the other at valley is all
//! that a node has.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Service};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams};
use serde_json::{Value, json};
use springtide_crds::time_share_group::{
    ReadyReason, Schedule, TimeShareGroup, TimeShareGroupSpec, TrafficMode, ValleyTraffic,
};
use springtide_time_share_group::sizes::Level;

use super::LABEL;
use super::node_member::{NodeMember, group_of};
use super::node_stage::GROUP;
use super::pods::{Pods, Standing, serves};
use super::resizes::{of_pod, stored};
use super::sizes::demand;
use super::testbed::Testbed;
use crate::batch::{POOL, pool};
use crate::local_cluster::LocalCluster;
use crate::write_count::Mark;

/// What there is before a test begins.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Begin of the namespace's name.
    pub prefix: String,
    /// Nodes.
    pub nodes: u32,
    /// Members `pay`, who has the peak by default, and `promo`. How many pods they have is said by `pods`.
    pub members: [NodeMember; 2],
    /// Pods of each member on each node.
    pub pods: [u32; 2],
    /// So much more cpu on each node, in thousandths of a core.
    pub room: i64,
    /// What pods may do that find no place: `DoNotSchedule` or `ScheduleAnyway`.
    pub spread: &'static str,
    /// A node that is there already, and has room for all, in place of nodes of their own.
    pub host: Option<String>,
}

impl Setting {
    /// So many nodes with a pod of each member, which move four cores.
    #[must_use]
    pub fn new(prefix: &str, nodes: u32) -> Self {
        let member = |name: &str| NodeMember::new(name, 0, "4", "200m");
        Self {
            prefix: prefix.to_owned(),
            nodes,
            members: [member("pay"), member("promo")],
            pods: [1, 1],
            room: 0,
            spread: "DoNotSchedule",
            host: None,
        }
    }

    /// So many pods of each member on a node that is there already.
    #[must_use]
    pub fn on(prefix: &str, host: &str, pods: u32) -> Self {
        Self { host: Some(host.to_owned()), pods: [pods; 2], ..Self::new(prefix, 1) }
    }

    /// With so many pods of each member on each node.
    #[must_use]
    pub fn pods(self, pods: [u32; 2]) -> Self {
        Self { pods, ..self }
    }

    /// With so much more cpu on each node, in thousandths of a core.
    #[must_use]
    pub fn room(self, room: i64) -> Self {
        Self { room, ..self }
    }

    /// With these sizes of `pay` and `promo`, as peak and valley.
    #[must_use]
    pub fn sizes(mut self, sizes: [(&str, &str); 2]) -> Self {
        for (member, (peak, valley)) in self.members.iter_mut().zip(sizes) {
            (member.peak, member.valley) = (peak.to_owned(), valley.to_owned());
        }
        self
    }

    /// With members that are otherwise than usual.
    #[must_use]
    pub fn each(mut self, change: impl Fn(NodeMember) -> NodeMember) -> Self {
        self.members = self.members.map(change);
        self
    }

    /// Thousandths of a core that a node has.
    fn cpu(&self) -> i64 {
        let sums = self.members.iter().zip(self.pods).map(|(member, pods)| {
            let at = |level| member.requests(level).cpu * i64::from(pods);
            (at(Level::Peak), at(Level::Valley))
        });
        let sums: Vec<(i64, i64)> = sums.collect();
        let valleys: i64 = sums.iter().map(|(_, valley)| valley).sum();
        let most = sums.iter().map(|(peak, valley)| peak - valley).max().unwrap_or_default();
        valleys + most + self.room
    }

    /// Makes namespace and nodes. There is nothing on them yet.
    ///
    /// # Errors
    /// Something is refused.
    pub async fn open<'a>(&self, cluster: &'a LocalCluster) -> Result<Stage<'a>> {
        let test = Testbed::new(cluster, &self.prefix).await?;
        let pool_name = test.namespace.clone();
        if self.host.is_none() {
            let nodes = pool(&pool_name, self.nodes as usize, &format!("{}m", self.cpu()), 110);
            cluster.kwok().context("KWOK")?.add_nodes(cluster, &nodes).await?;
        }
        let [pay, promo] = [0, 1].map(|number: usize| {
            let member = self.members[number].clone();
            let pod = match &self.host {
                Some(host) => on_host(host),
                None => on_pool(&member.name, &pool_name, self.spread),
            };
            NodeMember { replicas: self.pods[number] * self.nodes, ..member.pod(pod) }
        });
        test.pods.now().know(&[&pay, &promo]);
        Ok(Stage { test, pay, promo })
    }

    /// As [`Setting::open`], and waits until all pods are up at valley size. There is no group yet.
    ///
    /// # Errors
    /// Something does not start.
    pub async fn without_group<'a>(&self, cluster: &'a LocalCluster) -> Result<Stage<'a>> {
        let stage = self.open(cluster).await?;
        stage.start_members().await?;
        Ok(stage)
    }

    /// As [`Setting::without_group`], with a group whose spec `change` gets, and waits until `pay` has the peak.
    ///
    /// # Errors
    /// Something does not start, or `pay` does not get the peak.
    pub async fn start<'a>(
        &self,
        cluster: &'a LocalCluster,
        change: impl FnOnce(&mut TimeShareGroupSpec),
    ) -> Result<Stage<'a>> {
        let stage = self.without_group(cluster).await?;
        stage.create_group(change).await?;
        stage.settled("pay").await?;
        if stage.darkens() {
            stage.test.pods.now().forbid();
        }
        Ok(stage)
    }
}

/// What pods of a member need to be spread over the nodes of a pool. Those of another revision count for nothing, as they
/// are on their way out.
fn on_pool(member: &str, pool: &str, spread: &str) -> Value {
    json!({
        "nodeSelector": {POOL: pool},
        "terminationGracePeriodSeconds": 1,
        "topologySpreadConstraints": [{
            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": spread,
            "labelSelector": {"matchLabels": {"app": member}},
            "matchLabelKeys": ["pod-template-hash"],
        }],
    })
}

/// What pods need to be on one node.
fn on_host(host: &str) -> Value {
    json!({"nodeSelector": {"kubernetes.io/hostname": host}, "terminationGracePeriodSeconds": 1})
}

/// A namespace with two members.
pub struct Stage<'a> {
    /// The namespace.
    pub test: Testbed<'a>,
    /// Who has the peak by default.
    pub pay: NodeMember,
    /// The other one.
    pub promo: NodeMember,
}

impl Stage<'_> {
    /// Creates Services and workloads of both members, and waits until all pods are up at valley size.
    ///
    /// # Errors
    /// Something does not start.
    pub async fn start_members(&self) -> Result<()> {
        for member in [&self.pay, &self.promo] {
            self.serve(member).await?;
            self.test.create::<Deployment>(member.manifest()).await?;
        }
        for member in [&self.pay, &self.promo] {
            self.all_at(member, Level::Valley).await?;
        }
        Ok(())
    }

    /// Makes the Service of a member's pods, as far as they have traffic.
    async fn serve(&self, member: &NodeMember) -> Result<()> {
        let mut selector = json!({"app": member.name});
        if member.mode == TrafficMode::ServiceLabel {
            selector[LABEL] = json!("true");
        }
        self.test
            .create::<Service>(json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": member.name},
                "spec": {"selector": selector, "ports": [{"port": 80}]},
            }))
            .await?;
        Ok(())
    }

    /// Whether nobody gets traffic at valley size.
    fn darkens(&self) -> bool {
        [&self.pay, &self.promo].iter().all(|member| {
            let has_lever = match member.mode {
                TrafficMode::ServiceLabel | TrafficMode::ReadinessGate => true,
                TrafficMode::None | TrafficMode::HttpRoute => false,
            };
            has_lever && member.valley_traffic == ValleyTraffic::Off
        })
    }

    /// Creates the group, whose spec `change` gets: `pay` has the peak by default.
    ///
    /// # Errors
    /// It is refused.
    pub async fn create_group(&self, change: impl FnOnce(&mut TimeShareGroupSpec)) -> Result<TimeShareGroup> {
        let mut spec = group_of(&[&self.pay, &self.promo])?;
        spec.schedule = Schedule { default_member: Some("pay".to_owned()), ..Schedule::default() };
        change(&mut spec);
        self.test.group(GROUP, spec).await
    }

    /// The member of a name.
    #[must_use]
    pub fn member(&self, name: &str) -> &NodeMember {
        if name == self.pay.name { &self.pay } else { &self.promo }
    }

    /// Waits until all pods of a member are up with this size in force.
    ///
    /// # Errors
    /// They are not.
    pub async fn all_at(&self, member: &NodeMember, level: Level) -> Result<()> {
        let what = format!("all pods of {} at {}", member.name, level.as_str());
        let all = |pods: &Pods| {
            let own = pods.sizes.of(&member.name);
            let is = own.iter().all(|pod| pods.level(&member.name, pod) == Some(level) && pod.is_up());
            (own.len() == member.replicas as usize && is).then_some(())
        };
        self.test.pods_until(&what, all).await
    }

    /// Waits until a member has the peak, and nothing is left to do.
    ///
    /// # Errors
    /// It does not come to that.
    pub async fn settled(&self, member: &str) -> Result<TimeShareGroup> {
        self.test.settled(GROUP, Some(member)).await
    }

    /// As [`Stage::settled`], where units may have been given up.
    ///
    /// # Errors
    /// It does not come to that.
    pub async fn settled_with_skips(&self, member: &str) -> Result<TimeShareGroup> {
        self.test.settled_as(GROUP, Some(member), &[ReadyReason::SettledWithSkips]).await
    }

    /// Gives the peak to a member by hand, and waits for nothing.
    ///
    /// # Errors
    /// It is refused.
    pub async fn give(&self, member: &str) -> Result<()> {
        self.test.override_to(GROUP, Some(member)).await.map(drop)
    }

    /// Gives the peak to a member by hand, and waits until it has it and all pods are as they should be.
    ///
    /// # Errors
    /// It does not come to that.
    pub async fn switch_to(&self, member: &str) -> Result<TimeShareGroup> {
        self.give(member).await?;
        let group = self.settled(member).await?;
        self.ensure_peak(member).await?;
        Ok(group)
    }

    /// Merges a change into the spec of the group.
    ///
    /// # Errors
    /// It is refused.
    pub async fn edit(&self, spec: Value) -> Result<()> {
        self.test.edit(GROUP, json!({"spec": spec})).await.map(drop)
    }

    /// Where the pods of a member stand.
    #[must_use]
    pub fn standing(&self, member: &str) -> Standing {
        self.test.pods.now().standing(member)
    }

    /// Waits until all pods of a member have the peak, and those of the other one have not, as the oracle sees them.
    ///
    /// # Errors
    /// It is not so.
    pub async fn ensure_peak(&self, member: &str) -> Result<()> {
        let other = if member == self.pay.name { &self.promo } else { &self.pay };
        let all = [
            (member.to_owned(), Standing::peak(self.member(member).replicas as usize)),
            (other.name.clone(), Standing::valley(other.replicas as usize)),
        ];
        let is = |pods: &Pods| all.iter().all(|(name, wanted)| pods.standing(name) == *wanted).then_some(());
        self.test.pods_until(&format!("{member} has the peak"), is).await
    }

    /// Waits until so many pods of a member have the peak.
    ///
    /// # Errors
    /// They do not.
    pub async fn at_peak(&self, member: &str, pods: usize) -> Result<()> {
        let what = format!("{pods} pods of {member} have the peak");
        let is = |seen: &Pods| {
            let standing = seen.standing(member);
            (standing.at_peak >= pods && standing.serving >= pods).then_some(())
        };
        self.test.pods_until(&what, is).await
    }

    /// Changes the replicas of a member.
    ///
    /// # Errors
    /// It is refused.
    pub async fn scale(&self, member: &str, replicas: u32) -> Result<()> {
        self.test.patch_deployment(member, json!({"spec": {"replicas": replicas}})).await
    }

    /// Names of a member's pods, in order.
    #[must_use]
    pub fn names(&self, member: &str) -> Vec<String> {
        self.test.pods.now().sizes.of(member).iter().map(|pod| pod.name()).collect()
    }

    /// Waits until each node is wholly of one member: its pods there are all at peak with traffic, and those of the other one
    /// all at valley without.
    ///
    /// # Errors
    /// It does not come to that.
    pub async fn whole(&self) -> Result<()> {
        let is_of = |pods: &Pods, member: &str, names: &[String], level: Level| {
            names.iter().all(|name| {
                pods.sizes.named(name).is_some_and(|pod| {
                    pods.level(member, pod) == Some(level) && serves(&pod.pod) == (level == Level::Peak)
                })
            })
        };
        let are_whole = |pods: &Pods| {
            let promo = pods.by_node("promo");
            let none = Vec::new();
            let is_whole = pods.by_node("pay").iter().all(|(node, own)| {
                let others = promo.get(node).unwrap_or(&none);
                [(Level::Peak, Level::Valley), (Level::Valley, Level::Peak)]
                    .into_iter()
                    .any(|(pay, promo)| is_of(pods, "pay", own, pay) && is_of(pods, "promo", others, promo))
            });
            is_whole.then_some(())
        };
        self.test.pods_until("each node is of one member", are_whole).await
    }

    /// Waits until all pods serve at valley size, as those of no group do once somebody has turned them on.
    ///
    /// # Errors
    /// They do not.
    pub async fn off_duty(&self) -> Result<()> {
        for member in [&self.pay, &self.promo] {
            let pods = member.replicas as usize;
            self.stand(&member.name, Standing { serving: pods, ..Standing::valley(pods) }).await?;
        }
        Ok(())
    }

    /// Waits until the pods of a member stand so, as the oracle sees them.
    ///
    /// # Errors
    /// They do not come to that.
    pub async fn stand(&self, member: &str, wanted: Standing) -> Result<()> {
        let is = |pods: &Pods| (pods.standing(member) == wanted).then_some(());
        self.test.pods_until(&format!("{member}: {wanted:?}"), is).await
    }

    fn nodes(&self) -> (Api<Node>, ListParams) {
        let own = ListParams::default().labels(&format!("{POOL}={}", self.test.namespace));
        (Api::all(self.test.client()), own)
    }

    /// Nodes of the stage whose pods have had more than the node has, by what their statuses said at a time, a line each.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn overcommitted(&self) -> Result<Vec<String>> {
        let (nodes, own) = self.nodes();
        let nodes = nodes.list(&own).await?.items;
        let pods = self.test.pods.now();
        let too_much = |node: &Node| {
            let has = demand(node.status.as_ref()?.allocatable.as_ref()?);
            let most = pods.sizes.most_allocated(&node.name_any());
            (!most.fits(has)).then(|| format!("{}: {most:?} were allocated of {has:?}", node.name_any()))
        };
        Ok(nodes.iter().filter_map(too_much).collect())
    }

    /// # Errors
    /// As [`Stage::overcommitted`], or there is one.
    pub async fn ensure_never_overcommitted(&self) -> Result<()> {
        let overcommitted = self.overcommitted().await?;
        ensure!(overcommitted.is_empty(), "{}", overcommitted.join("\n"));
        Ok(())
    }

    /// Removes all that is there, the nodes too.
    ///
    /// # Errors
    /// Something stays.
    pub async fn clear(&self) -> Result<()> {
        self.test.clear().await?;
        let (nodes, own) = self.nodes();
        nodes.delete_collection(&DeleteParams::default(), &own).await?;
        Ok(())
    }

    /// # Errors
    /// A pod of either member was written more often than `most` since then, or not at all.
    pub fn ensure_each_pod_cost(&self, since: Mark, most: usize) -> Result<()> {
        let writes = stored(&self.test.requests_since(since)?);
        for name in [self.names("pay"), self.names("promo")].concat() {
            let own = of_pod(&writes, &name);
            ensure!((1..=most).contains(&own.len()), "{name}: {own:?}");
        }
        Ok(())
    }
}
