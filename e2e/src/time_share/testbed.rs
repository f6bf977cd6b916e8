//! A namespace of one test, with its oracles, workloads and groups.

use std::ops::Deref;

use anyhow::{Context, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use springtide_crds::reason::Reason;
use springtide_crds::time_share_group::{ReadyReason, TimeShareGroup, TimeShareGroupSpec};

use super::groups::{GroupFeed, Groups, says};
use super::node_stage::is_settled;
use super::pods::{PodFeed, Pods};
use crate::local_cluster::LocalCluster;
use crate::oracle::feed::Fold;
use crate::upgrade;

/// For so long an override is in force: longer than any test.
const OVERRIDE: SignedDuration = SignedDuration::from_hours(24);

/// A namespace of its own, watched from before the first pod. It is one for upgrades as well.
pub struct Testbed<'a> {
    upgrades: upgrade::Testbed<'a>,
    /// What was seen of its groups.
    pub groups: GroupFeed,
    /// What was seen of its pods.
    pub pods: PodFeed,
}

impl<'a> Deref for Testbed<'a> {
    type Target = upgrade::Testbed<'a>;

    fn deref(&self) -> &Self::Target {
        &self.upgrades
    }
}

impl<'a> Testbed<'a> {
    /// Makes a namespace `<prefix>-<random>` and starts its oracles.
    ///
    /// # Errors
    /// The API server refuses something.
    pub async fn new(cluster: &'a LocalCluster, prefix: &str) -> Result<Self> {
        Self::watched(upgrade::Testbed::new(cluster, prefix).await?).await
    }

    /// A namespace that is there already, with oracles that see it from now on.
    ///
    /// # Errors
    /// The API server refuses something.
    pub async fn of(cluster: &'a LocalCluster, namespace: &str) -> Result<Self> {
        Self::watched(upgrade::Testbed::of(cluster, namespace).await?).await
    }

    async fn watched(upgrades: upgrade::Testbed<'a>) -> Result<Self> {
        Ok(Self {
            groups: GroupFeed::start(upgrades.api()).await?,
            pods: PodFeed::start(upgrades.api()).await?,
            upgrades,
        })
    }

    /// What it is as a namespace for upgrades.
    #[must_use]
    pub fn of_upgrades(&self) -> &upgrade::Testbed<'a> {
        &self.upgrades
    }

    /// Creates a group.
    ///
    /// # Errors
    /// It is refused.
    pub async fn group(&self, name: &str, spec: TimeShareGroupSpec) -> Result<TimeShareGroup> {
        let created = self.api().create(&PostParams::default(), &TimeShareGroup::new(name, spec)).await;
        created.with_context(|| format!("create the group {name}"))
    }

    /// Merges `change` into a group, and waits until the oracle knows of that, so that nothing is taken for an answer that was
    /// said before.
    ///
    /// # Errors
    /// It is refused.
    pub async fn edit(&self, name: &str, change: Value) -> Result<TimeShareGroup> {
        let edited =
            self.api::<TimeShareGroup>().patch(name, &PatchParams::default(), &Patch::Merge(change)).await;
        let edited = edited.with_context(|| format!("edit the group {name}"))?;
        let is_seen = |groups: &Groups| {
            let seen = groups.get(name)?.metadata.generation;
            (seen >= edited.metadata.generation).then_some(())
        };
        self.groups.until(&format!("the edit of {name} is seen"), is_seen).await?;
        Ok(edited)
    }

    /// Gives the peak to a member, or to nobody, by hand, for longer than any test. Waits for nothing.
    ///
    /// # Errors
    /// It is refused.
    pub async fn override_to(&self, name: &str, member: Option<&str>) -> Result<TimeShareGroup> {
        self.override_until(name, member, Timestamp::now() + OVERRIDE).await
    }

    /// As [`Testbed::override_to`], until then.
    ///
    /// # Errors
    /// It is refused.
    pub async fn override_until(
        &self,
        name: &str,
        member: Option<&str>,
        until: Timestamp,
    ) -> Result<TimeShareGroup> {
        let until = until.strftime("%FT%TZ").to_string();
        let by_hand = json!({"member": member, "untilTime": until, "reason": "asked for by hand"});
        self.edit(name, json!({"spec": {"override": by_hand}})).await
    }

    /// Waits until a group is as `check` wants it.
    ///
    /// # Errors
    /// It does not become so.
    pub async fn until(
        &self,
        name: &str,
        what: &str,
        check: impl Fn(&TimeShareGroup) -> bool,
    ) -> Result<TimeShareGroup> {
        let what = format!("{name}: {what}");
        let found =
            self.groups.until(&what, |groups| groups.get(name).filter(|group| check(group)).cloned()).await;
        // Where a group stands is explained by where its pods do.
        found.with_context(|| format!("the pods:\n{}", self.pods.now().describe()))
    }

    /// Waits until a group says this of its present generation.
    ///
    /// # Errors
    /// It does not.
    pub async fn told<R: Reason>(&self, name: &str, reason: R) -> Result<TimeShareGroup> {
        let what = format!("{} {}", R::CONDITION, reason.as_str());
        self.until(name, &what, |group| says(group, &reason)).await
    }

    /// Waits until a group says that a member, or nobody, has the peak, and that nothing is left to do.
    ///
    /// # Errors
    /// It does not come to that.
    pub async fn settled(&self, name: &str, member: Option<&str>) -> Result<TimeShareGroup> {
        self.settled_as(name, member, &[ReadyReason::Settled]).await
    }

    /// As [`Testbed::settled`], where condition Ready may have one of these reasons.
    ///
    /// # Errors
    /// It does not come to that.
    pub async fn settled_as(
        &self,
        name: &str,
        member: Option<&str>,
        reasons: &[ReadyReason],
    ) -> Result<TimeShareGroup> {
        let what = format!("{member:?} has the peak");
        self.until(name, &what, |group| is_settled(group, member, reasons)).await
    }

    /// Changes the template of a member's Deployment so that new pods take the place of its pods. Waits for nothing.
    ///
    /// # Errors
    /// It is refused.
    pub async fn roll(&self, member: &str) -> Result<()> {
        let annotations = json!({"spec": {"template": {"metadata": {"annotations": {"rolled": "yes"}}}}});
        self.patch_deployment(member, annotations).await
    }

    /// Merges `change` strategically into a member's Deployment, as its user.
    ///
    /// # Errors
    /// It is refused.
    pub async fn patch_deployment(&self, member: &str, change: Value) -> Result<()> {
        let patched =
            self.api::<Deployment>().patch(member, &PatchParams::default(), &Patch::Strategic(change)).await;
        patched.map(drop).with_context(|| format!("patch the Deployment {member}"))
    }

    /// Waits until pods are as `check` wants them.
    ///
    /// # Errors
    /// They do not become so.
    pub async fn pods_until<T>(&self, what: &str, check: impl FnMut(&Pods) -> Option<T>) -> Result<T> {
        self.pods.until(what, check).await
    }

    /// Deletes a group, and waits until it is gone.
    ///
    /// # Errors
    /// It stays.
    pub async fn delete(&self, name: &str) -> Result<()> {
        self.api::<TimeShareGroup>().delete(name, &DeleteParams::default()).await?;
        let gone = |groups: &Groups| groups.get(name).is_none().then_some(());
        self.groups.until(&format!("{name} is gone"), gone).await
    }

    /// Deletes all groups, upgrades and workloads while a manager runs, and waits until they are gone with their pods.
    ///
    /// # Errors
    /// They stay.
    pub async fn clear(&self) -> Result<()> {
        self.pods.now().let_serve();
        self.api::<TimeShareGroup>()
            .delete_collection(&DeleteParams::default(), &ListParams::default())
            .await?;
        let none = |groups: &Groups| groups.is_empty().then_some(());
        self.groups.until("no group is left", none).await?;
        self.upgrades.clear().await
    }

    /// What must hold at the end of every test.
    ///
    /// # Errors
    /// An oracle has seen something that may never be.
    pub fn verify(&self) -> Result<()> {
        let mut wrong = self.groups.now().violations().to_vec();
        wrong.extend_from_slice(self.pods.now().violations());
        ensure!(wrong.is_empty(), "seen in {}:\n{}", self.namespace, wrong.join("\n"));
        self.upgrades.verify()
    }
}
