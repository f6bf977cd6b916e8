//! Flow control of the API server (API Priority and Fairness) for tests and benches: levels that refuse
//! what they have no seat for, and what belongs to them.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::flowcontrol::v1::PriorityLevelConfiguration;
use kube::api::Api;
use kube::config::KubeConfigOptions;
use serde_json::json;
use tokio::time::{Duration, Instant, sleep};

use crate::local_cluster::LocalCluster;
use crate::oracle::feed::PATIENCE;

/// Members of `system:masters` are under no flow control: who is to be under it needs a user of its own.
const GROUP: &str = "users-under-flow-control";

/// A level that lends no seat, borrows none and lets nobody queue, and the requests that belong to it.
#[derive(Debug, Clone, Copy)]
pub struct Level<'a> {
    /// Its name, and that of its schema.
    pub name: &'a str,
    /// Its part of all seats, of which the levels of a new cluster share 245.
    pub shares: u32,
    /// Users whose requests belong to it.
    pub users: &'a [&'a str],
    /// API group of the resources.
    pub group: &'a str,
    /// The resources, and sub-resources as `batchjobs/status`.
    pub resources: &'a [&'a str],
    /// The verbs.
    pub verbs: &'a [&'a str],
}

impl Level<'_> {
    /// Makes the level, and returns its UID, by which the server's answers name it.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn create(&self, cluster: &LocalCluster) -> Result<String> {
        let level = json!({
            "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "PriorityLevelConfiguration",
            "metadata": {"name": self.name},
            "spec": {"type": "Limited", "limited": {
                "nominalConcurrencyShares": self.shares, "lendablePercent": 0, "borrowingLimitPercent": 0,
                "limitResponse": {"type": "Reject"},
            }},
        });
        cluster.apply(&level.to_string()).await?;
        let rule = json!({"apiGroups": [self.group], "resources": self.resources, "verbs": self.verbs, "namespaces": ["*"]});
        cluster.apply(&schema(self.name, 500, self.name, self.users, &rule)).await?;
        let levels: Api<PriorityLevelConfiguration> = Api::all(cluster.client("springtide-test")?);
        levels.get(self.name).await?.metadata.uid.context("a level has a UID")
    }
}

/// Users with all rights that are under flow control, and the level of leaders for their leases: as the
/// chart has it for the manager. Returns their kubeconfigs.
///
/// # Errors
/// The API server refuses it.
pub async fn users(cluster: &LocalCluster, names: &[&str]) -> Result<Vec<std::path::PathBuf>> {
    let rights = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": GROUP},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": names.iter().map(|name| json!({
            "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name,
        })).collect::<Vec<_>>(),
    });
    cluster.apply(&rights.to_string()).await?;
    let leases = json!({"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["*"], "namespaces": ["*"]});
    cluster.apply(&schema("leases-of-users", 190, "leader-election", names, &leases)).await?;
    names.iter().map(|name| cluster.kubeconfig_for(name, GROUP)).collect()
}

fn schema(
    name: &str,
    precedence: u32,
    level: &str,
    users: &[&str],
    resource_rule: &serde_json::Value,
) -> String {
    let subjects = users.iter().map(|name| json!({"kind": "User", "user": {"name": name}}));
    json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema", "metadata": {"name": name},
        "spec": {
            "matchingPrecedence": precedence,
            "priorityLevelConfiguration": {"name": level},
            "rules": [{"subjects": subjects.collect::<Vec<_>>(), "resourceRules": [resource_rule]}],
        },
    })
    .to_string()
}

/// Waits until deletes of ConfigMaps by this user are under the level of this UID.
///
/// # Errors
/// They are not within [`PATIENCE`].
pub async fn in_force(kubeconfig: &Path, uid: &str) -> Result<()> {
    let kubeconfig = kube::config::Kubeconfig::read_from(kubeconfig)?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let client = kube::Client::try_from(config)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let request = http::Request::delete("/api/v1/namespaces/default/configmaps/none");
        let answer = client.send(request.body(kube::client::Body::from(Vec::new()))?).await?;
        if answer.headers().get("x-kubernetes-pf-prioritylevel-uid").is_some_and(|level| level == uid) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "the flow schemas are not in force");
        sleep(Duration::from_millis(100)).await;
    }
}
