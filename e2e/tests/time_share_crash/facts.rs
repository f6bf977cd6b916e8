//! What a run of a scenario comes to, in comparable form, and what may be in none.

use anyhow::Result;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::ListParams;
use springtide_crds::common::condition;
use springtide_crds::time_share_group::TimeShareGroup;
use springtide_e2e::crash::{Facts, World};
use springtide_e2e::time_share::pods::{Pods, is_turned_off, serves};
use springtide_e2e::time_share::sizes::SizedPod;
use springtide_e2e::time_share::stage::Stage;
use springtide_e2e::write_count::Verb;

use crate::scenarios::{OTHER, Sharing};

/// Fields of a status that differ between runs by nature: names that the API server has made, what is said in words, and how
/// long things take.
const BY_NATURE: [&str; 6] =
    ["message", "pod", "node", "observedGeneration", "workloadUid", "durationSeconds"];

/// All that are members at some time.
const MEMBERS: [&str; 3] = ["pay", "promo", OTHER];

/// A namespace, and what is played in it.
pub(crate) struct Namespace<'a> {
    pub(crate) stage: Stage<'a>,
    pub(crate) scenario: Sharing,
}

impl Namespace<'_> {
    /// Fields of a status that are no matter of comparison.
    fn left_out(&self) -> Vec<&'static str> {
        let mut left_out = BY_NATURE.to_vec();
        if self.scenario == Sharing::WindowByClock {
            // Whoever is away over the last seconds before a switch has not looked at it before.
            left_out.push("preflight");
        }
        left_out
    }

    async fn groups(&self) -> Result<Vec<TimeShareGroup>> {
        Ok(self.stage.test.api::<TimeShareGroup>().list(&ListParams::default()).await?.items)
    }
}

/// A pod without its name: its sizes, how often they were asked for, and its traffic.
fn shown(pods: &Pods, member: &str, pod: &SizedPod) -> String {
    format!(
        "{member} at {:?}, asked for {} sizes, serves {}, {} restarts, gives up {}",
        pods.level(member, pod),
        pod.asks.len(),
        serves(&pod.pod),
        pod.restarts(),
        is_given_up(&pod.pod),
    )
}

/// Whether a mark says that it was given up.
fn is_given_up(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "springtide.dev/time-share")
}

impl World for Namespace<'_> {
    fn namespace(&self) -> &str {
        &self.stage.test.namespace
    }

    fn resources(&self) -> [&'static str; 2] {
        ["timesharegroups", "pods"]
    }

    async fn observed(&self) -> Result<bool> {
        let at_rest = |group: &TimeShareGroup| {
            group.status.as_ref().is_some_and(|status| {
                Some(status.observed_generation) == group.metadata.generation
                    && condition(&status.conditions, "Reconciling").is_none()
            })
        };
        Ok(self.groups().await?.iter().all(at_rest))
    }

    async fn facts(&self) -> Result<Facts> {
        let mut facts = Facts::default();
        for group in self.groups().await? {
            let path = group.name_any();
            facts.add_document(&path, &serde_json::to_value(&group.spec)?, &[]);
            facts.add_document(&path, &serde_json::to_value(&group.status)?, &self.left_out());
            facts.add(format!("{path}.finalizers"), group.finalizers().join(","));
        }
        let pods = self.stage.test.pods.now();
        let of = |member: &'static str| {
            let own = pods.sizes.of(member);
            own.into_iter().map(|pod| shown(&pods, member, pod)).collect::<Vec<_>>()
        };
        let mut all = MEMBERS.map(of).concat();
        all.sort();
        for (number, pod) in all.into_iter().enumerate() {
            facts.add(format!("pod {number}"), pod);
        }
        Ok(facts)
    }

    async fn wrong(&self, _: usize) -> Result<Vec<String>> {
        let test = &self.stage.test;
        let mut wrong = test.groups.now().violations().to_vec();
        wrong.extend_from_slice(test.pods.now().violations());
        let ended = test.requests()?.writes().successful().of_resource("pods").of_verb(Verb::Delete);
        if !ended.is_empty() {
            wrong.push(format!("pods were ended:\n{ended}"));
        }
        let pods = test.pods.now();
        for member in MEMBERS {
            for pod in pods.sizes.of(member) {
                // By an HTTPRoute no pod is turned off.
                let is_large = pod.size.in_force.cpu > 1000
                    && pod.size.asked == pod.size.in_force
                    && self.scenario != Sharing::Routed;
                if is_large && !serves(&pod.pod) {
                    wrong.push(format!("{} is large, and serves nobody", pod.name()));
                }
                if self.scenario == Sharing::Deleted && is_turned_off(&pod.pod) {
                    wrong.push(format!("{} is left without traffic", pod.name()));
                }
            }
        }
        Ok(wrong)
    }

    async fn clear(&self) -> Result<()> {
        self.stage.test.clear().await
    }
}
