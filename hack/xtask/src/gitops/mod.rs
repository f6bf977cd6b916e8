//! What GitOps tools need to judge our kinds: staged objects for the tests of their health checks, and
//! the health check of Argo CD in the form in which its configuration takes it.

mod profiles;
mod queues;
mod staged;
#[cfg(test)]
mod tests;
mod time_shares;
mod upgrades;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use springtide_crds::Kind;

use crate::generate::{MARK, samples, yaml};
use crate::schema;

/// Where the checks are, from the repository's root.
const FOLDER: &str = "config/gitops";

/// The actions of Argo CD, for each kind.
const ACTIONS: [&str; 2] = ["pause", "resume"];
/// The samples that the worked examples sync: tools call a job that fails broken, so these end well.
const WORK: [&str; 2] = ["batchjob-hello", "batchjob-indexed"];
/// The longest time to live that there is, 7 days: a job that went sooner would be made, and run, anew so often.
const WORK_TTL_SECONDS: u32 = 604_800;

/// The generated files, by path from the repository's root.
pub(crate) fn files(root: &Path, kinds: &[Kind]) -> Result<BTreeMap<PathBuf, String>> {
    let mut files = BTreeMap::new();
    let mut customizations = serde_json::Map::new();
    // Tools take what has no status for healthy once it is there.
    for kind in kinds.iter().filter(|kind| kind.has_status()) {
        let names = &kind.crd.spec.names;
        let folder = Path::new(FOLDER).join(names.kind.to_lowercase());
        let staged = staged(kind)?;
        if let Some(hold) = hold_of_users(kind) {
            for (name, done, value) in [("running", "paused", hold.on), ("suspended", "resumed", hold.off)] {
                let Some(staged) = staged.iter().find(|staged| staged.name == name) else { continue };
                let mut object = staged.object.clone();
                object["spec"][hold.field] = json!(value);
                let comment = format!("{name}.yaml, {done}.");
                let file = folder.join(format!("testdata/actions/{name}-{done}.yaml"));
                files.insert(file, yaml::document(&object, &[&comment])?);
            }
        }
        for staged in staged {
            let path = folder.join("testdata").join(format!("{}.yaml", staged.name));
            let comment = format!("{:?}, as the controller{} leaves it.", staged.situation, author(kind));
            files.insert(path, yaml::document(&staged.object, &[&comment])?);
        }
        let read = |file: &str| {
            let path = root.join(&folder).join(file);
            fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
        };
        let of_kind = format!("{}_{}", kind.crd.spec.group, names.kind);
        let health = health(kind)?;
        customizations.insert(format!("resource.customizations.health.{of_kind}"), json!(health));
        files.insert(folder.join("health.lua"), format!("-- {MARK}; edits are lost.\n{health}"));
        if hold_of_users(kind).is_none() {
            continue;
        }
        let definitions: Vec<Value> = ACTIONS
            .iter()
            .map(|name| {
                let lua = read(&format!("actions/{name}/action.lua"))?;
                Ok(json!({"name": name, "action.lua": lua}))
            })
            .collect::<Result<_>>()?;
        let actions = json!({"discovery.lua": read("actions/discovery.lua")?, "definitions": definitions});
        // A string of YAML within YAML, as Argo CD has it.
        let actions = serde_yaml::to_string(&actions).context("the actions to YAML")?;
        customizations.insert(format!("resource.customizations.actions.{of_kind}"), json!(actions));
    }
    for file in WORK {
        let find = |kind: &Kind| kind.samples.iter().find(|sample| sample.file == file).cloned();
        let found = kinds.iter().find_map(|kind| Some((kind, find(kind)?)));
        let Some((kind, sample)) = found else { bail!("there is no sample {file}") };
        let mut object = samples::without_defaults(kind, &sample.object);
        object["spec"]["ttlSecondsAfterFinished"] = json!(WORK_TTL_SECONDS);
        let image = "Replace the image: the demo alone puts this one on its node.";
        let text = yaml::document(&object, &[sample.doc, image])?;
        files.insert(Path::new(FOLDER).join(format!("work/{file}.yaml")), text);
    }
    let config = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "argocd-cm", "namespace": "argocd"},
        "data": customizations,
    });
    let how = "Apply by `kubectl apply --server-side --field-manager=springtide-health -f`: it adds these \
               keys to the ConfigMap of Argo CD and leaves its others alone.";
    let text = yaml::document(&config, &[how])?;
    files.insert(Path::new(FOLDER).join("argo-cd/health-checks.yaml"), text);
    Ok(files)
}

/// Who wrote the statuses of a kind's staged objects: the planner, or whoever wrote down what the controller is to do.
fn author(kind: &Kind) -> &'static str {
    if ["in-place-upgrade", "time-share-group"].contains(&kind.controller) { "" } else { "'s planner" }
}

/// The field of a spec by which users hold an object.
struct Hold {
    field: &'static str,
    /// Its value that holds.
    on: &'static str,
    /// Its value that lets go on.
    off: &'static str,
}

/// How users hold the objects of a kind, if they can: only then there are actions, and something is ever Suspended.
fn hold_of_users(kind: &Kind) -> Option<Hold> {
    let root = schema::root(&json!(kind.crd));
    [
        Hold { field: "stopPolicy", on: "Hold", off: "None" },
        Hold { field: "mode", on: "Paused", off: "Apply" },
        Hold { field: "mode", on: "Paused", off: "Active" },
    ]
    .into_iter()
    .find(|hold| {
        let values = root["properties"]["spec"]["properties"][hold.field]["enum"].as_array();
        values.is_some_and(|values| [hold.on, hold.off].iter().all(|value| values.contains(&json!(value))))
    })
}

/// The health check of Argo CD for a kind: what holds for all of them, then the verdict by its own conditions.
fn health(kind: &Kind) -> Result<String> {
    let name = &kind.crd.spec.names.kind;
    let verdict = match name.as_str() {
        "BatchJob" => include_str!("health/batchjob.lua"),
        "BatchQueue" => include_str!("health/batchqueue.lua"),
        "BatchTaskProfile" => include_str!("health/batchtaskprofile.lua"),
        "InPlaceUpgrade" => include_str!("health/inplaceupgrade.lua"),
        "TimeShareGroup" => include_str!("health/timesharegroup.lua"),
        other => bail!("{other} has no health check: add one in hack/xtask/src/gitops/health"),
    };
    let held = if hold_of_users(kind).is_some() { ", and Suspended beside them" } else { "" };
    let common = include_str!("health/common.lua");
    Ok(format!("-- Health of a {name} for Argo CD: the same verdicts as kstatus{held}.\n{common}\n{verdict}"))
}

/// The staged objects of a kind.
fn staged(kind: &Kind) -> Result<Vec<staged::Staged>> {
    match kind.crd.spec.names.kind.as_str() {
        "BatchJob" => staged::batch_jobs(kind),
        "BatchQueue" => queues::batch_queues(kind),
        "BatchTaskProfile" => profiles::staged(kind),
        "InPlaceUpgrade" => upgrades::staged(kind),
        "TimeShareGroup" => time_shares::staged(kind),
        other => anyhow::bail!("{other} has no staged objects: add them in hack/xtask/src/gitops/staged.rs"),
    }
}
