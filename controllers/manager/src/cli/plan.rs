//! `springtide plan -f FILE`: what a manifest would lead to.

use super::plan_text::text;
use super::read::{Cluster, DryRun, Unread};
use super::{API_VERSION, ConnectionArgs, OutputArgs, RehearsalArgs, Verdict};
use anyhow::{Context, Result, bail};
use clap::Args;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use springtide_batch_job::projections::job::BATCH_JOB;
use springtide_batch_job::projections::profile::BATCH_TASK_PROFILE;
use springtide_batch_job::projections::queue::BATCH_QUEUE;
use springtide_batch_job::rehearsal::{Changes, Explanation, PlannedWrite, caused_by};
use springtide_plumbing::key::{ObjectKey, Resource};
use springtide_plumbing::projection::Projection;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;

/// Options of `springtide plan`.
#[derive(Args)]
pub(crate) struct PlanArgs {
    /// Manifest of BatchJobs, BatchQueues and BatchTaskProfiles (YAML or JSON, any number of documents); - reads standard
    /// input.
    #[arg(short, long, value_name = "FILE")]
    filename: PathBuf,
    /// As whom `kubectl apply --server-side` would write: what the manifest leaves out goes where it was this one's.
    #[arg(long, default_value = "kubectl")]
    field_manager: String,
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(flatten)]
    rehearsal: RehearsalArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// The kinds that are planned of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Job,
    Queue,
    Profile,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Job, Self::Queue, Self::Profile];

    fn resource(self) -> Resource {
        match self {
            Self::Job => BATCH_JOB,
            Self::Queue => BATCH_QUEUE,
            Self::Profile => BATCH_TASK_PROFILE,
        }
    }
}

/// What the command says.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Answer {
    pub(super) api_version: &'static str,
    pub(super) kind: &'static str,
    /// For when it was computed.
    pub(super) time: Timestamp,
    /// The objects of the manifest.
    pub(super) objects: Vec<Applied>,
    /// Writes of the manager that they lead to now, in their order; those of statuses and Events aside.
    pub(super) writes: Vec<PlannedWrite>,
    /// Writes that are due now, and would be no longer.
    pub(super) spared: Vec<PlannedWrite>,
    /// How the jobs of the manifest stand after these writes.
    pub(super) jobs: Vec<Explanation>,
    /// Whether there are more writes than were looked at.
    pub(super) is_cut: bool,
    /// Whether it is known what fits on the nodes; where not, the writes are the most that there could be at first.
    pub(super) sees_nodes: bool,
    /// What could not be read, and what that means.
    pub(super) not_seen: Vec<Unread>,
}

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

/// Reads, asks the server to try, computes, prints. Nothing is stored.
///
/// # Errors
/// The manifest is no such manifest, the server refuses it, or cannot be asked.
pub(crate) async fn run(args: PlanArgs) -> Result<Verdict> {
    let settings = args.rehearsal.settings()?;
    let manifests = documents(&read(&args.filename)?)?;
    let cluster = Cluster::connect(&args.connection, "plan").await?;
    let now = args.rehearsal.time();
    let mut objects = Vec::new();
    let mut changes = Changes::default();
    for (number, manifest) in manifests.into_iter().enumerate() {
        let kind = kind_of(&manifest)?;
        let (applied, object) = apply(&cluster, &args, kind, manifest, number, now).await?;
        take(&mut changes, kind, object)
            .with_context(|| format!("{} {} is not as its schema wants it", applied.kind, applied.name))?;
        objects.push(applied);
    }
    let seen = cluster.world(settings).await?;
    let sees_nodes = seen.world.nodes.is_some();
    let keys: Vec<ObjectKey> = changes.jobs.iter().map(|job| job.meta().key.clone()).collect();
    let difference = caused_by(&seen.world, changes, now);
    let jobs: Vec<Explanation> = keys.iter().filter_map(|key| difference.after.explain(key)).collect();
    let verdict = verdict(&jobs);
    let answer = Answer {
        api_version: API_VERSION,
        kind: "WritePlan",
        time: now,
        objects,
        writes: difference.writes,
        spared: difference.spared,
        jobs,
        is_cut: difference.is_cut,
        sees_nodes,
        not_seen: seen.unread,
    };
    print!("{}", args.output.render(&answer, || text(&answer))?);
    Ok(verdict)
}

fn verdict(jobs: &[Explanation]) -> Verdict {
    if jobs.iter().any(|job| job.stalled.is_some()) {
        Verdict::Stalled
    } else if jobs.iter().any(|job| job.waits.is_some()) {
        Verdict::NotReady
    } else {
        Verdict::Fine
    }
}

fn read(path: &PathBuf) -> Result<String> {
    let mut text = String::new();
    if path.as_os_str() == "-" {
        std::io::stdin().read_to_string(&mut text).context("read standard input")?;
    } else {
        text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    }
    Ok(text)
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

fn kind_of(manifest: &Value) -> Result<Kind> {
    let (version, kind) = (manifest["apiVersion"].as_str(), manifest["kind"].as_str());
    let is_it =
        |resource: Resource| version == Some(resource.api_version().as_str()) && kind == Some(resource.kind);
    Kind::ALL.into_iter().find(|kind| is_it(kind.resource())).with_context(|| {
        let kind = kind.unwrap_or("an object without kind");
        let version = version.unwrap_or("no apiVersion");
        format!("{kind} of {version} is neither BatchJob nor BatchQueue nor BatchTaskProfile")
    })
}

/// Takes an object in as one of those that change.
fn take(changes: &mut Changes, kind: Kind, object: Value) -> serde_json::Result<()> {
    match kind {
        Kind::Job => changes.jobs.push(Arc::new(serde_json::from_value(object)?)),
        Kind::Queue => changes.queues.push(Arc::new(serde_json::from_value(object)?)),
        Kind::Profile => changes.profiles.push(Arc::new(serde_json::from_value(object)?)),
    }
    Ok(())
}

/// The object as it would be stored: by the server's word, or, where the caller may not ask it, by the defaults of
/// this program.
async fn apply(
    cluster: &Cluster,
    args: &PlanArgs,
    kind: Kind,
    mut manifest: Value,
    number: usize,
    now: Timestamp,
) -> Result<(Applied, Value)> {
    let resource = kind.resource();
    let name = manifest["metadata"]["name"]
        .as_str()
        .with_context(|| format!("document {}: metadata.name is missing", number + 1))?
        .to_owned();
    let own = manifest["metadata"]["namespace"].as_str();
    match (own, &args.connection.namespace) {
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
    let (object, unchecked_because) =
        match cluster.try_apply(resource, &key, &args.field_manager, &manifest).await? {
            DryRun::Accepted(object) => (object, String::new()),
            DryRun::Invalid(problem) => bail!("the API server refuses {} {name}: {problem}", resource.kind),
            DryRun::Forbidden(problem) => (merged(manifest, present, number, now), problem),
        };
    let applied = Applied {
        kind: resource.kind.to_owned(),
        namespace,
        name,
        is_new,
        is_checked: unchecked_because.is_empty(),
        unchecked_because,
    };
    Ok((applied, object))
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
        assert!(found.iter().all(|object| kind_of(object).unwrap() == Kind::Job));
        for wrong in ["", "---\n", "{kind: List}", "a: [1"] {
            documents(wrong).unwrap_err();
        }
        let other = documents("{apiVersion: v1, kind: Pod}").unwrap();
        let error = kind_of(&other[0]).unwrap_err().to_string();
        assert_eq!(error, "Pod of v1 is neither BatchJob nor BatchQueue nor BatchTaskProfile");
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
