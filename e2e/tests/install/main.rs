//! Charts, kustomize overlays and the single file: what they render, and that it really installs.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail as a test does")]

mod admission;
mod charts;
mod configured;
mod flow_schemas;
mod foreign;
mod overlays;
mod real;
mod rules;
mod second;
mod table;

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::Value;
use springtide_e2e::helm::{Helm, checkout, objects};

/// Where the suite is installed.
const NAMESPACE: &str = "springtide-system";
const RELEASE: &str = "springtide";
const CHART: &str = "charts/springtide";
const CRDS: &str = "charts/springtide-crds";

/// Rendered objects by `Kind/name`, with the namespace before the name where it is not the release's.
type Rendered = BTreeMap<String, Value>;

/// The names of the chart's files of values for tests.
fn value_files() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(checkout(CHART).join("ci"))? {
        let name = entry?.file_name().into_string().unwrap();
        names.push(name.strip_suffix("-values.yaml").context("a file that is no values file")?.to_owned());
    }
    names.sort();
    Ok(names)
}

async fn render(helm: &Helm, values: &str) -> Result<Rendered> {
    let file = format!("--values={CHART}/ci/{values}-values.yaml");
    let text = helm.run(&["template", RELEASE, CHART, "--namespace", NAMESPACE, &file]).await?;
    keyed(objects(&text)?)
}

fn keyed(objects: Vec<Value>) -> Result<Rendered> {
    let mut rendered = Rendered::new();
    for object in objects {
        let key = key(&object);
        anyhow::ensure!(rendered.insert(key.clone(), object).is_none(), "{key} is rendered twice");
    }
    Ok(rendered)
}

fn key(object: &Value) -> String {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (kind, namespace, name) = (text("/kind"), text("/metadata/namespace"), text("/metadata/name"));
    match namespace {
        "" | NAMESPACE => format!("{kind}/{name}"),
        namespace => format!("{kind}/{namespace}/{name}"),
    }
}
