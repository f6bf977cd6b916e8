//! One manager works on a cluster: what a second release of the chart is told.

use std::process::Output;

use anyhow::{Result, ensure};
use springtide_e2e::helm::Helm;
use springtide_e2e::local_cluster::LocalCluster;

use crate::CHART;

/// An administrator of some namespaces and of nothing else.
const OWNER: &str = "owner";

#[tokio::test]
async fn who_owns_some_namespaces_installs_there_once() -> Result<()> {
    let cluster = LocalCluster::builder().start().await?;
    for namespace in ["team", "tide", "other", "apart"] {
        cluster
            .apply(&format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {namespace}}}}}"))
            .await?;
        let named = format!("--namespace={namespace}");
        let user = format!("--user={OWNER}");
        let bound = cluster
            .kubectl(&["create", "rolebinding", "owner", "--clusterrole=cluster-admin", &user, &named])
            .await?;
        ensure!(bound.status.success(), "{}", String::from_utf8_lossy(&bound.stderr));
    }
    let helm = Helm::on(&cluster)?;
    let install = async |release: &str, namespace: &str, scope: &str| {
        let scope = &format!("--set=scope.type=Namespaces,scope.namespaces={{{scope}}}");
        let user = format!("--kube-as-user={OWNER}");
        helm.try_run(&["install", release, CHART, "--namespace", namespace, scope, &user]).await
    };
    let first = install("one", "tide", "team").await?;
    ensure!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    let refused = |second: Output, place: &str, binding: &str| {
        let said = String::from_utf8_lossy(&second.stderr);
        let wanted = format!(
            "the namespace {place} has a Springtide already: the RoleBinding {binding} of the release one in the namespace \
             tide"
        );
        ensure!(!second.status.success() && said.contains(&wanted), "{said}");
        Ok(())
    };
    // Over the same namespace; from the same namespace, and so with the same Lease; over all namespaces.
    refused(install("two", "other", "team").await?, "team", "one-springtide-scope")?;
    refused(install("two", "tide", "apart").await?, "tide", "one-springtide")?;
    let wide = helm.try_run(&["install", "two", CHART, "--namespace", "wide", "--create-namespace"]).await?;
    refused(wide, "team", "one-springtide-scope")?;
    let other = install("two", "other", "apart").await?;
    ensure!(other.status.success(), "{}", String::from_utf8_lossy(&other.stderr));
    drop(helm);
    cluster.stop()
}

#[tokio::test]
async fn a_second_release_is_refused_and_the_first_is_not() -> Result<()> {
    let cluster = LocalCluster::builder().start().await?;
    let helm = Helm::on(&cluster)?;
    helm.run(&["install", "one", CHART, "--namespace", "one", "--create-namespace"]).await?;
    for (verb, release, namespace) in
        [("install", "two", "two"), ("install", "one", "two"), ("install", "two", "one")]
    {
        let named = format!("--set=fullnameOverride={release}-{namespace}");
        let output = helm
            .try_run(&[verb, release, CHART, "--namespace", namespace, "--create-namespace", &named])
            .await?;
        let said = String::from_utf8_lossy(&output.stderr);
        let wanted = "this cluster has a Springtide already: the ClusterRoleBinding one-springtide of the release one \
                      in the namespace one";
        ensure!(!output.status.success() && said.contains(wanted), "{release} in {namespace}: {said}");
    }
    // Its own binding is no second manager's, under another name neither.
    helm.run(&["upgrade", "one", CHART, "--namespace", "one", "--set=replicas=3"]).await?;
    helm.run(&["upgrade", "one", CHART, "--namespace", "one", "--set=fullnameOverride=tide"]).await?;
    helm.run(&["uninstall", "one", "--namespace", "one"]).await?;

    // What kustomize made counts as much.
    helm.shell("kubectl apply --server-side -k config/default").await?;
    let output = helm.try_run(&["install", "two", CHART, "--namespace", "two", "--create-namespace"]).await?;
    let said = String::from_utf8_lossy(&output.stderr);
    let wanted = "the ClusterRoleBinding springtide of another tool than Helm";
    ensure!(!output.status.success() && said.contains(wanted), "{said}");
    helm.shell("kubectl delete --ignore-not-found -k config/default").await?;
    helm.run(&["install", "two", CHART, "--namespace", "two", "--create-namespace"]).await?;
    drop(helm);
    cluster.stop()
}
