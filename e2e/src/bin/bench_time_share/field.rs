//! Two members of many pods on nodes that KWOK plays, each node full when one of them has the peak, and a manager with a
//! write budget.

use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use jiff::{SignedDuration, Timestamp};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use springtide_crds::time_share_group::{ReadyReason, TimeShareGroup, TimeShareGroupSpec, TrafficMode};
use springtide_e2e::batch::{GENERAL, POOL, pool};
use springtide_e2e::bench::large::{self, Managed};
use springtide_e2e::bench::progress::until_all;
use springtide_e2e::kwok::RESIZE_SECONDS;
use springtide_e2e::local_cluster::Builder;
use springtide_e2e::polling::until_seen;
use springtide_e2e::time_share::node_member::{NodeMember, group_of};
use springtide_e2e::time_share::node_stage::is_settled;
use springtide_e2e::upgrade::manager_configuration;
use springtide_time_share_group::sizes::Level;

use crate::pods::{PEAK, PodFeed, VALLEY};

/// Pods of each member on a node.
pub(crate) const PER_NODE: u32 = 10;
/// Name of the group.
pub(crate) const GROUP: &str = "share";
/// The members: who has the peak by default, and the other one.
pub(crate) const DEFAULT: &str = "pay";
pub(crate) const OTHER: &str = "promo";
/// How long a kubelet takes to put a resize in force, as KWOK plays it, in seconds.
const RESIZE: &str = "0.1";
/// Bound for anything: the longest is for all pods to be there.
const BOUND: Duration = Duration::from_secs(30 * 60);

/// Options of a control plane for so many pods of each member.
pub(crate) fn builder(pairs: u32) -> Builder {
    let nodes = pairs.div_ceil(PER_NODE) as usize;
    let full = i64::from(PER_NODE) * (PEAK + VALLEY);
    large::builder(pool(GENERAL, nodes, &format!("{full}m"), 110)).with_fsync()
}

/// The two members, and who has them take turns.
pub(crate) struct Field {
    /// What was seen of their pods.
    pub(crate) pods: Arc<PodFeed>,
    /// Pods of each member.
    pub(crate) pairs: usize,
    // Last, so that it ends last.
    pub(crate) managed: Managed,
}

impl Deref for Field {
    type Target = Managed;

    fn deref(&self) -> &Managed {
        &self.managed
    }
}

/// A Deployment of so many pods on the nodes, spread evenly, whose resizes take their time.
pub(crate) fn manifest(member: &NodeMember) -> Value {
    let mut manifest = member.manifest();
    manifest["spec"]["template"]["metadata"]["annotations"] = json!({RESIZE_SECONDS: RESIZE});
    manifest
}

/// A member of so many pods.
pub(crate) fn member(name: &str, pods: u32, mode: TrafficMode) -> NodeMember {
    let cpu = |amount: i64| format!("{amount}m");
    NodeMember::new(name, pods, &cpu(PEAK), &cpu(VALLEY)).mode(mode).pod(json!({
        "nodeSelector": {POOL: GENERAL},
        "terminationGracePeriodSeconds": 1,
        "topologySpreadConstraints": [{
            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"app": name}},
        }],
    }))
}

/// The group of both: the first one has the peak by default, and a switch takes as long as it takes.
pub(crate) fn group(members: &[NodeMember; 2]) -> Result<TimeShareGroupSpec> {
    let [first, second] = members;
    let mut spec = group_of(&[first, second])?;
    spec.schedule.default_member = Some(first.name.clone());
    spec.switch.deadline_seconds = 86_400;
    Ok(spec)
}

impl Field {
    /// A group of two Deployments without anything in the way: the one has the peak, and all pods are as they should be.
    /// `change` gets its spec.
    pub(crate) async fn start(
        builder: Builder,
        mode: TrafficMode,
        pairs: u32,
        writes_per_second: u32,
        change: impl FnOnce(&mut TimeShareGroupSpec),
    ) -> Result<Self> {
        let managed = Managed::start(builder, manager_configuration(), writes_per_second, "share").await?;
        let watched = Api::namespaced(managed.cluster.client("bench-watcher")?, &managed.namespace);
        let pods = Arc::new(PodFeed::start(watched).await?);
        let members = [DEFAULT, OTHER].map(|name| member(name, pairs, mode));
        let mut spec = group(&members)?;
        spec.switch.max_in_flight_units = 5000;
        change(&mut spec);
        let field = Self { pods, pairs: pairs as usize, managed };
        // Before its pods: those that are of no group get traffic.
        field.api().create(&PostParams::default(), &TimeShareGroup::new(GROUP, spec)).await?;
        for member in &members {
            field.create(manifest(member)).await?;
        }
        field.all(OTHER, Level::Valley, "at valley").await?;
        field.all(DEFAULT, Level::Peak, "at peak").await?;
        field.settled(DEFAULT, &[ReadyReason::Settled]).await?;
        Ok(field)
    }

    /// Gives the other member a window of two hours that begins `ahead` from now or up to a minute earlier, as windows
    /// begin at full minutes, and has its preflight begin `lead` seconds before that.
    pub(crate) async fn foresee(&self, ahead: SignedDuration, lead: u32) -> Result<()> {
        let start = Timestamp::from_second((Timestamp::now() + ahead).as_second() / 60 * 60)?;
        let time = |at: Timestamp| at.strftime("%H:%M").to_string();
        let end = start + SignedDuration::from_hours(2);
        let windows = json!([{
            "name": "other", "member": OTHER, "leadSeconds": 0,
            "window": {"start": time(start), "end": time(end), "timeZone": "UTC"},
        }]);
        let change = json!({"spec": {
            "schedule": {"windows": windows}, "guards": {"preflight": {"leadSeconds": lead}},
        }});
        self.edit(change).await
    }

    async fn edit(&self, change: Value) -> Result<()> {
        let groups: Api<TimeShareGroup> = self.api();
        groups
            .patch(GROUP, &PatchParams::default(), &Patch::Merge(change))
            .await
            .map(drop)
            .context("edit the group")
    }

    /// Waits until it is known of each unit of the next switch whether it would come through; gives how many would, of how
    /// many.
    pub(crate) async fn preflight(&self) -> Result<[u32; 2]> {
        self.seen("the preflight is complete", |group| {
            let preflight = group.status.as_ref()?.preflight.as_ref()?;
            preflight.completion_time.as_ref()?;
            (preflight.member.as_deref() == Some(OTHER)).then_some([preflight.passed, preflight.units])
        })
        .await
    }

    /// Asks for a switch by hand; gives when that was.
    pub(crate) async fn ask_for(&self, member: &str) -> Result<Instant> {
        let until = (Timestamp::now() + SignedDuration::from_hours(24)).strftime("%FT%TZ").to_string();
        let by_hand = json!({"member": member, "untilTime": until, "reason": "asked for by hand"});
        let began = Instant::now();
        self.edit(json!({"spec": {"override": by_hand}})).await?;
        Ok(began)
    }

    /// Waits until all pods of a member stand there.
    pub(crate) async fn all(&self, member: &str, level: Level, what: &str) -> Result<()> {
        until_all(what, self.pairs, BOUND, || self.pods.now().at(member, level)).await
    }

    /// Waits until the group says that a member has the peak, and one of these of it.
    pub(crate) async fn settled(&self, member: &str, reasons: &[ReadyReason]) -> Result<TimeShareGroup> {
        let what = format!("{member} has the peak");
        self.seen(&what, |group| is_settled(group, Some(member), reasons).then(|| group.clone())).await
    }

    async fn seen<T>(&self, what: &str, look: impl Fn(&TimeShareGroup) -> Option<T>) -> Result<T> {
        let groups: Api<TimeShareGroup> = self.api();
        until_seen(BOUND, what, async || {
            let group = groups.get(GROUP).await?;
            Ok(look(&group).ok_or_else(|| format!("{:?}", group.status)))
        })
        .await
    }

    /// Pairs of pods that take turns, one of either member on the same node: UID and name of each.
    pub(crate) fn pairs(&self) -> Vec<[(String, String); 2]> {
        let pods = self.pods.now();
        let of = |member: &str| {
            let mut own: Vec<_> = pods.lives().filter(|(_, life)| life.member == member).collect();
            own.sort_by_key(|(_, life)| (life.node.clone(), life.name.clone()));
            own.into_iter()
                .map(|(uid, life)| (life.node.clone(), (uid.clone(), life.name.clone())))
                .collect::<Vec<_>>()
        };
        let both = of(DEFAULT).into_iter().zip(of(OTHER));
        both.filter(|(one, other)| one.0 == other.0).map(|(one, other)| [one.1, other.1]).collect()
    }

    /// Ends it all in order.
    pub(crate) fn stop(self) -> Result<()> {
        let Self { pods, managed, .. } = self;
        drop(pods);
        managed.stop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::Deployment;

    #[test]
    fn pods_are_on_the_nodes_and_their_resizes_take_a_while() {
        let manifest = manifest(&member("pay", 3, TrafficMode::ServiceLabel));
        let deployment: Deployment = serde_json::from_value(manifest).unwrap();
        let template = deployment.spec.template;
        assert_eq!(template.metadata.unwrap().annotations.unwrap()[RESIZE_SECONDS], RESIZE);
        let pod = template.spec.unwrap();
        assert_eq!(pod.node_selector.unwrap()[POOL], GENERAL);
        assert_eq!(pod.topology_spread_constraints.unwrap()[0].max_skew, 1);
        assert_eq!(pod.containers[0].resources.as_ref().unwrap().requests.as_ref().unwrap()["cpu"].0, "100m");
    }
}
