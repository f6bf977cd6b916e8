//! Pods of others that wait for room on the nodes of a group, and may get none of what a switch lets go of.

use anyhow::Result;
use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use serde_json::json;

use super::kubelets::Kubelets;
use super::pods::Pods;
use super::sizes::SizedPod;
use super::stage::Stage;
use crate::batch::POOL;

/// Value of their label `app`, and begin of their names.
pub const THIRD: &str = "third";

impl Stage<'_> {
    /// Has so many pods of others wait for room on the nodes of the stage, a core each.
    ///
    /// # Errors
    /// They are refused.
    pub async fn wait_for_room(&self, pods: usize) -> Result<()> {
        for number in 0..pods {
            self.test
                .create::<Pod>(json!({
                    "apiVersion": "v1", "kind": "Pod",
                    "metadata": {"name": format!("{THIRD}-{number}"), "labels": {"app": THIRD}},
                    "spec": {
                        "nodeSelector": {POOL: self.test.namespace}, "terminationGracePeriodSeconds": 1,
                        "containers": [{
                            "name": "main", "image": "example.com/task:1",
                            "resources": {"requests": {"cpu": "1"}},
                        }],
                    },
                }))
                .await?;
        }
        let are_there = |seen: &Pods| (seen.sizes.of(THIRD).len() == pods).then_some(());
        self.test.pods_until("pods of others are there", are_there).await
    }

    /// Names of those that have got room, those included that a kubelet has turned away, who was there too late.
    #[must_use]
    pub fn robbers(&self, kubelets: &Kubelets) -> Vec<String> {
        let pods = self.test.pods.now();
        let bound = pods.sizes.of(THIRD).into_iter().filter(|pod| pod.is_bound()).map(SizedPod::name);
        bound.chain(kubelets.turned_away(&self.test.namespace)).collect()
    }

    /// Deletes them.
    ///
    /// # Errors
    /// They stay.
    pub async fn let_others_go(&self) -> Result<()> {
        for name in self.names(THIRD) {
            self.test.api::<Pod>().delete(&name, &DeleteParams::default()).await?;
        }
        let none = |seen: &Pods| seen.sizes.of(THIRD).is_empty().then_some(());
        self.test.pods_until("pods of others are gone", none).await
    }
}
