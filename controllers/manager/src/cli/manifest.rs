//! Manifests: what a file holds, and what the API server would make of it.

use super::read::{Cluster, DryRun};
use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use springtide_batch_job::projections::job::{BATCH_JOB, JobView};
use springtide_batch_job::projections::queue::{BATCH_QUEUE, QueueView};
use springtide_in_place_upgrade::projections::upgrade::{IN_PLACE_UPGRADE, UpgradeView};
use springtide_plumbing::key::{ObjectKey, Resource};
use springtide_time_share_group::projections::group::{GroupView, TIME_SHARE_GROUP};
use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

/// One object of the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Applied {
    pub(super) kind: String,
    pub(super) namespace: String,
    pub(super) name: String,
    /// Whether there is none of its name yet.
    pub(super) is_new: bool,
    /// Whether the API server has tried it: defaults are filled in, and all rules hold.
    pub(super) is_checked: bool,
    /// Why not; empty where it has.
    pub(super) unchecked_because: String,
}

/// What a manifest holds, as the API server would have it.
#[derive(Default)]
pub(super) struct Objects {
    /// All of them.
    pub(super) applied: Vec<Applied>,
    pub(super) jobs: Vec<Arc<JobView>>,
    pub(super) queues: Vec<Arc<QueueView>>,
    pub(super) upgrades: Vec<Arc<UpgradeView>>,
    pub(super) groups: Vec<Arc<GroupView>>,
}

/// How the API server is asked to try what a manifest holds. Nothing is stored.
pub(super) struct Trial<'a> {
    pub(super) cluster: &'a Cluster,
    /// The namespace of the command line, if it names one.
    pub(super) asked_namespace: Option<&'a str>,
    /// As whom it is applied.
    pub(super) field_manager: &'a str,
    pub(super) now: Timestamp,
}

impl Trial<'_> {
    /// Has the API server try each of these.
    ///
    /// # Errors
    /// One is of no kind that is planned for, the server refuses it, or cannot be asked.
    pub(super) async fn run(&self, manifests: Vec<Value>) -> Result<Objects> {
        let mut objects = Objects::default();
        for (number, manifest) in manifests.into_iter().enumerate() {
            self.take(&mut objects, manifest, number).await?;
        }
        Ok(objects)
    }

    /// The object as it would be stored: by the server's word, or, where the caller may not ask it, by the defaults of
    /// this program.
    async fn take(&self, objects: &mut Objects, mut manifest: Value, number: usize) -> Result<()> {
        let Self { cluster, asked_namespace, field_manager, now } = *self;
        let resource = resource_of(&manifest)?;
        let name = manifest["metadata"]["name"]
            .as_str()
            .with_context(|| format!("document {}: metadata.name is missing", number + 1))?
            .to_owned();
        let own = manifest["metadata"]["namespace"].as_str();
        match (own, asked_namespace) {
            (Some(own), Some(asked)) if own != asked => {
                bail!("{} {name} is in namespace {own}, and --namespace says {asked}", resource.kind)
            }
            (Some(_) | None, _) => {}
        }
        let namespace = own.unwrap_or(&cluster.namespace).to_owned();
        manifest["metadata"]["namespace"] = json!(namespace);
        let key = ObjectKey::new(namespace.as_str(), name.as_str());
        let present = cluster.get(resource, &key).await?;
        let is_new = present.is_none();
        let (object, unchecked_because) = match cluster
            .try_apply(resource, &key, field_manager, &manifest)
            .await?
        {
            DryRun::Accepted(object) => (object, String::new()),
            DryRun::Invalid(problem) => bail!("the API server refuses {} {name}: {problem}", resource.kind),
            DryRun::Forbidden(problem) => (merged(manifest, present, number, now), problem),
        };
        let applied = Applied {
            kind: resource.kind.to_owned(),
            namespace,
            name: name.clone(),
            is_new,
            is_checked: unchecked_because.is_empty(),
            unchecked_because,
        };
        let unreadable = || format!("{} {name} is not as its schema wants it", resource.kind);
        objects.applied.push(applied);
        if resource == BATCH_JOB {
            objects.jobs.push(Arc::new(serde_json::from_value(object).with_context(unreadable)?));
        } else if resource == BATCH_QUEUE {
            objects.queues.push(Arc::new(serde_json::from_value(object).with_context(unreadable)?));
        } else if resource == TIME_SHARE_GROUP {
            objects.groups.push(Arc::new(serde_json::from_value(object).with_context(unreadable)?));
        } else {
            objects.upgrades.push(Arc::new(serde_json::from_value(object).with_context(unreadable)?));
        }
        Ok(())
    }
}

/// What would become of the objects of a manifest, in words.
pub(super) fn text(text: &mut String, objects: &[Applied]) {
    for object in objects {
        let Applied { kind, namespace, name, is_new, is_checked, unchecked_because } = object;
        let what = if *is_new { "created" } else { "changed" };
        let checked = if *is_checked {
            "the API server has tried it and accepts it".to_owned()
        } else {
            format!("NOT checked by the API server, its rules may refuse it: {unchecked_because}")
        };
        let _ = writeln!(text, "{kind} {namespace}/{name} would be {what}; {checked}");
    }
}

/// The documents of a file, or of standard input where it is `-`.
///
/// # Errors
/// It cannot be read, or holds no objects.
pub(super) fn read(path: &Path) -> Result<Vec<Value>> {
    let mut text = String::new();
    if path.as_os_str() == "-" {
        std::io::stdin().read_to_string(&mut text).context("read standard input")?;
    } else {
        text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    }
    documents(&text)
}

/// The documents of a file; those of a List count one by one.
fn documents(text: &str) -> Result<Vec<Value>> {
    let mut documents = Vec::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        let value = Value::deserialize(document).context("the manifest is neither YAML nor JSON")?;
        if value["kind"] == "List" {
            let items = value["items"].as_array().context("a List without items")?;
            documents.extend(items.iter().cloned());
        } else if !value.is_null() {
            documents.push(value);
        }
    }
    if documents.is_empty() {
        bail!("the manifest has no objects");
    }
    Ok(documents)
}

fn resource_of(manifest: &Value) -> Result<Resource> {
    let (version, kind) = (manifest["apiVersion"].as_str(), manifest["kind"].as_str());
    [BATCH_JOB, BATCH_QUEUE, IN_PLACE_UPGRADE, TIME_SHARE_GROUP]
        .into_iter()
        .find(|resource| version == Some(resource.api_version().as_str()) && kind == Some(resource.kind))
        .with_context(|| {
            let kind = kind.unwrap_or("an object without kind");
            let version = version.unwrap_or("no apiVersion");
            format!("{kind} of {version} is neither BatchJob, BatchQueue, InPlaceUpgrade nor TimeShareGroup")
        })
}

/// What the server would make of a manifest, as far as that can be guessed: the identity and status of what is there,
/// and the spec of the manifest.
fn merged(mut manifest: Value, present: Option<Value>, number: usize, now: Timestamp) -> Value {
    match present {
        Some(mut present) => {
            let is_edited = present["spec"] != manifest["spec"];
            present["spec"] = manifest["spec"].take();
            if is_edited {
                let generation = present["metadata"]["generation"].as_i64().unwrap_or(0);
                present["metadata"]["generation"] = json!(generation + 1);
            }
            present
        }
        None => {
            manifest["metadata"]["uid"] = json!(format!("planned-{number}"));
            manifest["metadata"]["resourceVersion"] = json!("0");
            manifest["metadata"]["generation"] = json!(1);
            manifest["metadata"]["creationTimestamp"] = json!(now);
            manifest
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: &str = "{apiVersion: springtide.dev/v1alpha1, kind: BatchJob, metadata: {name: a}, spec: {}}";

    #[test]
    fn a_manifest_has_any_number_of_documents_and_lists() {
        let text = format!("---\n{JOB}\n---\n---\n{{kind: List, items: [{JOB}, {JOB}]}}\n");
        let found = documents(&text).unwrap();
        assert_eq!(found.len(), 3);
        assert!(found.iter().all(|object| resource_of(object).unwrap() == BATCH_JOB));
        for wrong in ["", "---\n", "{kind: List}", "a: [1"] {
            documents(wrong).unwrap_err();
        }
        let other = documents("{apiVersion: v1, kind: Pod}").unwrap();
        let error = resource_of(&other[0]).unwrap_err().to_string();
        assert_eq!(error, "Pod of v1 is neither BatchJob, BatchQueue, InPlaceUpgrade nor TimeShareGroup");
    }

    #[test]
    fn without_the_server_the_spec_is_that_of_the_manifest_and_the_rest_as_it_was() {
        let manifest = json!({"metadata": {"name": "a"}, "spec": {"priority": 1}});
        let present = json!({
            "metadata": {"name": "a", "uid": "u", "generation": 3}, "spec": {}, "status": {"active": 2},
        });
        let edited = merged(manifest.clone(), Some(present), 0, Timestamp::UNIX_EPOCH);
        assert_eq!(edited["metadata"], json!({"name": "a", "uid": "u", "generation": 4}));
        assert_eq!((&edited["spec"], &edited["status"]), (&manifest["spec"], &json!({"active": 2})));
        let new = merged(manifest, None, 7, Timestamp::UNIX_EPOCH);
        assert_eq!(new["metadata"]["uid"], "planned-7");
    }
}
