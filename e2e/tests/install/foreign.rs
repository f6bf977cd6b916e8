//! What is made for other projects, against the CRDs of those projects: monitors and rules, and the worked examples of
//! Argo CD and Flux.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use springtide_e2e::helm::{Helm, checkout, objects};
use springtide_e2e::local_cluster::LocalCluster;

use crate::charts::dry_run;
use crate::{CHART, NAMESPACE, RELEASE, render};

/// The groups of the kinds.
const GROUPS: [&str; 3] = ["monitoring.coreos.com/", "argoproj.io/", "toolkit.fluxcd.io/"];
/// Our files with objects of these kinds.
const EXAMPLES: [&str; 3] = [
    "config/gitops/argo-cd/applications.yaml",
    "config/gitops/flux/kustomizations.yaml",
    "config/gitops/flux/springtide/helm-releases.yaml",
];

fn is_foreign(object: &Value) -> bool {
    GROUPS.iter().any(|group| object["apiVersion"].as_str().is_some_and(|version| version.contains(group)))
}

fn read(path: &str) -> Result<Vec<Value>> {
    objects(&std::fs::read_to_string(checkout(path)).with_context(|| path.to_owned())?)
}

/// A Kustomization as the guide says it may judge our kinds: with the expressions of each.
fn judging(mut kustomization: Value) -> Result<Value> {
    let path = checkout("config/gitops/batchjob/flux-health-checks.yaml");
    let checks: Value = serde_yaml::from_str(&std::fs::read_to_string(path)?)?;
    kustomization["metadata"]["name"] = json!("judging");
    kustomization["spec"]["healthCheckExprs"] = checks;
    Ok(kustomization)
}

#[tokio::test]
async fn what_is_made_for_other_projects_has_the_fields_of_their_kinds() -> Result<()> {
    let cluster = LocalCluster::shared().await?;
    let helm = Helm::on(cluster)?;
    let crds = "e2e/tests/install/foreign";
    helm.shell(&format!(
        "kubectl apply --server-side -f {crds}; kubectl wait --for=condition=Established --timeout=60s -f {crds}"
    ))
    .await?;
    for namespace in [NAMESPACE, "argocd", "flux-system"] {
        cluster
            .apply(&format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {namespace}}}}}"))
            .await?;
    }
    let mut made = Vec::new();
    for values in ["monitoring", "pod-monitor"] {
        made.extend(render(&helm, values).await?.into_values().filter(is_foreign));
    }
    ensure!(made.len() == 4, "two monitors, and the rules twice: {}", made.len());
    // An object once in a list.
    dry_run(cluster, made.drain(..2).collect()).await.context("the chart")?;
    dry_run(cluster, made).await.context("the chart")?;
    for file in EXAMPLES {
        let examples = read(file)?;
        ensure!(!examples.is_empty() && examples.iter().all(is_foreign), "{file}");
        dry_run(cluster, examples).await.context(file)?;
    }
    // The chart takes the values of both tools.
    for (file, values) in [(EXAMPLES[0], "/spec/source/helm/valuesObject"), (EXAMPLES[2], "/spec/values")] {
        let release = read(file)?.swap_remove(1);
        let image = release.pointer(values).context(file)?["image"].to_string();
        let set = format!("--set-json=image={image}");
        let text = helm.run(&["template", RELEASE, CHART, "--namespace", NAMESPACE, &set]).await?;
        ensure!(text.contains("image: registry.example/springtide:"), "{file}: {text}");
    }
    let kustomization = read(EXAMPLES[1])?.pop().context("a Kustomization")?;
    dry_run(cluster, vec![judging(kustomization)?]).await.context("health checks")?;

    // So strict is it.
    let mut wrong = read(EXAMPLES[0])?.swap_remove(0);
    wrong["spec"]["sorce"] = json!({});
    let said = dry_run(cluster, vec![wrong]).await.unwrap_err().to_string();
    ensure!(said.contains("sorce"), "{said}");
    Ok(())
}
