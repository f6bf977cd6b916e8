//! Helm, kustomize and the single file install the same.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use springtide_e2e::binaries::Binaries;
use springtide_e2e::helm::{Helm, checkout, objects};

use crate::{CHART, CRDS, NAMESPACE, RELEASE, Rendered, keyed, render};

/// What only Helm's own objects bear.
const OF_HELM: [&str; 3] = ["app.kubernetes.io/managed-by", "helm.sh/chart", "helm.sh/resource-policy"];

fn without_helm(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for label in OF_HELM {
                fields.remove(label);
            }
            fields.values_mut().for_each(without_helm);
        }
        Value::Array(items) => items.iter_mut().for_each(without_helm),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

async fn kustomize(folder: &str) -> Result<Rendered> {
    let kubectl = Binaries::locate()?.path("kubectl")?;
    let output = tokio::process::Command::new(kubectl)
        .args(["kustomize", folder])
        .current_dir(checkout(""))
        .output()
        .await
        .context("run kubectl")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    keyed(objects(&String::from_utf8(output.stdout)?)?)
}

fn same(what: &str, expected: &Rendered, found: &Rendered) -> Result<()> {
    let remedy = "run `make install-manifests`";
    for (key, object) in expected {
        let other = found.get(key).with_context(|| format!("{what} lacks {key}; {remedy}"))?;
        ensure!(object == other, "{what}: {key} is\n{other}\nnot\n{object}\n{remedy}");
    }
    let more: Vec<_> = found.keys().filter(|key| !expected.contains_key(*key)).collect();
    ensure!(more.is_empty(), "{what} has {more:?} beyond the chart; {remedy}");
    Ok(())
}

#[tokio::test]
async fn chart_overlay_and_single_file_are_the_same_objects() -> Result<()> {
    let helm = Helm::offline()?;
    let mut all = objects(&helm.run(&["template", "crds", CRDS]).await?)?;
    all.extend(objects(&helm.run(&["template", RELEASE, CHART, "--namespace", NAMESPACE]).await?)?);
    all.iter_mut().for_each(without_helm);
    let chart = keyed(all)?;
    let file = std::fs::read_to_string(checkout("config/install.yaml"))?;
    for (what, mut found) in [
        ("config/default", kustomize("config/default").await?),
        ("config/install.yaml", keyed(objects(&file)?)?),
    ] {
        // Helm makes the namespace by a flag.
        let namespace = found.remove(&format!("Namespace/{NAMESPACE}")).context("no namespace")?;
        ensure!(namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted");
        same(what, &chart, &found)?;
    }
    Ok(())
}

#[tokio::test]
async fn the_namespaced_base_is_the_chart_with_such_a_scope() -> Result<()> {
    let mut chart = render(&Helm::offline()?, "namespaced").await?;
    chart.values_mut().for_each(without_helm);
    same("config/namespaced", &chart, &kustomize("config/namespaced").await?)
}

#[tokio::test]
async fn the_other_bases_are_what_the_chart_makes_by_value() -> Result<()> {
    let helm = Helm::offline()?;
    let default = render(&helm, "default").await?;
    for (values, base) in [
        ("flow-control", "flow-control"),
        ("admission-policies", "admission-policies"),
        ("monitoring", "monitoring"),
        ("monitoring", "monitoring/kube-state-metrics"),
    ] {
        let mut expected = render(&helm, values).await?;
        expected.retain(|key, object| {
            // Dashboards are ConfigMaps whose way into Grafana is each cluster's own.
            without_helm(object);
            let of_states = key.ends_with("-kube-state-metrics");
            let is_of_base = if base.ends_with("/kube-state-metrics") {
                of_states
            } else {
                !key.starts_with("ConfigMap/")
            };
            !default.contains_key(key) && is_of_base
        });
        ensure!(!expected.is_empty(), "{base} adds nothing");
        same(base, &expected, &kustomize(&format!("config/{base}")).await?)?;
    }
    Ok(())
}
