//! BatchJob, as its own controller reads it.

use super::job_status::{StoredCondition, StoredStatus};
use super::templates;
use crate::growth;
use crate::profiles::fitting::Fitting;
use crate::shape::Shape;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use sha2::{Digest, Sha256};
use springtide_crds::batch_job::{
    BatchJobSpec, BatchJobStatus, CompleteReason, MANAGED_BY, OnOom, PodTemplate,
};
use springtide_crds::batch_task_profile::ProfileMode;
use springtide_crds::common::{ConditionStatus, GROUP, VERSION};
use springtide_crds::reason::Reason;
use springtide_plumbing::key::{ObjectKey, Resource, ResourceVersion};
use springtide_plumbing::pool::Pool;
use springtide_plumbing::projection::{Meta, Projection};
use springtide_plumbing::text::shared_text;
use springtide_plumbing::warrant::Protection;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// `springtide.dev/v1alpha1` BatchJob.
pub const BATCH_JOB: Resource =
    Resource { group: GROUP, version: VERSION, kind: "BatchJob", plural: "batchjobs", namespaced: true };

/// Bytes of the template's SHA-256 that are kept: enough that no edit goes unnoticed by chance.
const TEMPLATE_HASH_BYTES: usize = 16;

/// One BatchJob.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Wire")]
pub struct JobView {
    meta: Meta<JobLabels>,
    /// The spec, but for its template, which is empty here: see [`JobView::template`]. Jobs whose specs are equal share
    /// one.
    pub spec: Arc<BatchJobSpec>,
    /// The pod template.
    pub template: Arc<Template>,
    /// The status as stored.
    pub status: StoredStatus,
}

/// The labels of a job that somebody reads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct JobLabels {
    /// Whether it is never deleted.
    #[serde(rename = "springtide.dev/delete-protection", default)]
    pub protection: Protection,
    /// All others.
    #[serde(flatten)]
    pub others: OtherLabels,
}

/// Labels that nothing is decided by, for the archive of finished jobs; in the form that takes the least memory: jobs
/// with equal ones share a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OtherLabels(Option<Arc<str>>);

impl OtherLabels {
    /// So many are kept, the first in alphabetical order.
    const MOST: usize = 16;

    #[cfg(test)]
    pub(crate) fn is_same_text(&self, other: &Self) -> bool {
        matches!((&self.0, &other.0), (Some(one), Some(other)) if Arc::ptr_eq(one, other))
    }

    /// Unpacks them.
    pub fn unpack(&self) -> serde_json::Map<String, serde_json::Value> {
        self.0.as_deref().and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default()
    }
}

impl<'de> Deserialize<'de> for OtherLabels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut labels = BTreeMap::<String, String>::deserialize(deserializer)?;
        if let Some(beyond) = labels.keys().nth(Self::MOST).cloned() {
            drop(labels.split_off(&beyond));
        }
        // A map of texts cannot fail to be JSON.
        let json = || shared_text(&serde_json::to_string(&labels).unwrap_or_default());
        Ok(Self((!labels.is_empty()).then(json)))
    }
}

/// A pod template in the form that takes the least memory: ten thousand jobs may wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    json: Box<str>,
    /// Hash of the whole template, fields included that no schema names.
    pub hash: Box<str>,
    /// What decides where its pods fit.
    pub shape: Arc<Shape>,
}

impl Template {
    /// The template in that form: one that is in use already, where there is an equal one.
    pub fn shared(template: &PodTemplate) -> Arc<Self> {
        let (json, hash) = packed(template);
        templates::shared(&hash, &json, || {
            let shape = Arc::new(Shape::of_template(template));
            Self { hash: hash.clone(), json: json.clone(), shape }
        })
    }

    /// Whether this is its JSON.
    pub(super) fn is(&self, json: &str) -> bool {
        *self.json == *json
    }

    /// Packs a template.
    pub fn new(template: &PodTemplate) -> Self {
        let (json, hash) = packed(template);
        Self { hash, json, shape: Arc::new(Shape::of_template(template)) }
    }

    /// The template of pods with the requests of their profile, which are larger by so many steps then.
    pub fn larger(&self, fitting: &Fitting, on_oom: Option<&OnOom>, steps: u32) -> PodTemplate {
        let mut template = self.unpack();
        if let Some(spec) = template.0.get_mut("spec").and_then(Value::as_object_mut) {
            fitting.apply(spec);
            if let Some(on_oom) = on_oom {
                growth::grow(spec, on_oom, steps);
            }
        }
        template
    }

    /// Names of its containers, then of its init containers.
    pub fn containers(&self) -> Vec<Arc<str>> {
        let template = self.unpack();
        let lists =
            template.spec().into_iter().flat_map(|spec| [spec.get("containers"), spec.get("initContainers")]);
        let containers = lists.flatten().filter_map(Value::as_array).flatten();
        containers.filter_map(|container| container.get("name")?.as_str()).map(Arc::from).collect()
    }

    /// Unpacks it.
    pub fn unpack(&self) -> PodTemplate {
        serde_json::from_str(&self.json).unwrap_or_default()
    }
}

/// The JSON of a template, and its hash.
fn packed(template: &PodTemplate) -> (Box<str>, Box<str>) {
    // A map of JSON values cannot fail to be JSON.
    let json = serde_json::to_string(template).unwrap_or_default().into_boxed_str();
    let digest = Sha256::digest(json.as_bytes());
    (json, hex::encode(&digest[..TEMPLATE_HASH_BYTES]).into_boxed_str())
}

impl JobView {
    /// Whether it is for this controller to run: of a job of somebody else's it reads nothing, writes nothing and counts
    /// nothing. What a job says of it never changes.
    pub fn is_ours(&self) -> bool {
        self.spec.managed_by.as_deref().is_none_or(|manager| manager == MANAGED_BY)
    }

    /// Whether the outcome of the whole job stands in the stored status.
    pub fn is_finished(&self) -> bool {
        self.completed() || self.holds("Failed")
    }

    /// Whether condition Complete is true.
    pub fn completed(&self) -> bool {
        self.holds(CompleteReason::CONDITION)
    }

    /// The stored condition of a type.
    pub fn condition(&self, type_: &str) -> Option<&StoredCondition> {
        self.status.condition(type_)
    }

    /// Whether the stored condition of a type is true.
    pub fn holds(&self, type_: &str) -> bool {
        self.condition(type_).is_some_and(|condition| condition.status == ConditionStatus::True)
    }

    /// The key of the profile that learns of this job; `None` where none shall.
    pub fn profile_key(&self) -> Option<ObjectKey> {
        let profile = self.spec.profile.as_ref()?;
        let name = profile.key.as_deref().filter(|_| profile.mode != Some(ProfileMode::Off))?;
        Some(ObjectKey { namespace: Arc::clone(&self.meta.key.namespace), name: name.into() })
    }

    /// The job with another status, in another version of it: for who performs writes in memory alone.
    pub(crate) fn with_status(&self, status: BatchJobStatus, version: ResourceVersion) -> Self {
        let meta = Meta { resource_version: version, ..self.meta.clone() };
        Self { meta, status: status.into(), ..self.clone() }
    }

    /// Whether the job has one task only, whose status needs no indexes.
    pub fn is_single(&self) -> bool {
        self.spec.completions == 1
    }
}

impl Projection for JobView {
    const RESOURCE: Resource = BATCH_JOB;
    type Labels = JobLabels;

    fn meta(&self) -> &Meta<JobLabels> {
        &self.meta
    }

    fn share_identity(&mut self, old: &Self) {
        self.meta.share_identity(&old.meta);
    }

    fn bytes(&self) -> usize {
        let template = size_of::<Template>() + self.template.json.len() + self.template.hash.len();
        let labels = self.meta.labels.others.0.as_deref().map_or(0, str::len);
        let spec = size_of::<BatchJobSpec>();
        size_of::<Self>() + self.meta.text_bytes() + labels + template + spec + self.status.bytes()
    }
}

#[derive(Deserialize)]
struct Wire {
    metadata: Meta<JobLabels>,
    spec: BatchJobSpec,
    #[serde(default)]
    status: BatchJobStatus,
}

impl From<Wire> for JobView {
    fn from(mut wire: Wire) -> Self {
        let template = std::mem::take(&mut wire.spec.template);
        Self {
            meta: wire.metadata,
            spec: shared_spec(wire.spec),
            template: Template::shared(&template),
            status: wire.status.into(),
        }
    }
}

/// Of the process, as whoever decodes an object knows of nothing else.
static SPECS: LazyLock<Mutex<Pool<u64, BatchJobSpec>>> = LazyLock::new(Mutex::default);

/// This spec, or one in use that equals it.
fn shared_spec(spec: BatchJobSpec) -> Arc<BatchJobSpec> {
    // A struct of strings, numbers and lists cannot fail to be JSON.
    let json = serde_json::to_vec(&spec).unwrap_or_default();
    SPECS.lock().unwrap_or_else(PoisonError::into_inner).equal(&json, spec)
}
