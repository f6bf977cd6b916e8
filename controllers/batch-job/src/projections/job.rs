//! BatchJob, as its own controller reads it.

use super::templates;
use crate::growth;
use crate::shape::Shape;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use springtide_crds::batch_job::{
    BatchJobSpec, BatchJobStatus, CompleteReason, MANAGED_BY, OnOom, PodTemplate,
};
use springtide_crds::common::{Condition, ConditionStatus, GROUP, VERSION, condition};
use springtide_crds::reason::Reason;
use springtide_plumbing::key::Resource;
use springtide_plumbing::projection::{Meta, Projection};
use springtide_plumbing::warrant::Protection;
use std::sync::Arc;

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
    /// The spec, but for its template, which is empty here: see [`JobView::template`].
    pub spec: BatchJobSpec,
    /// The pod template.
    pub template: Arc<Template>,
    /// The status as stored.
    pub status: BatchJobStatus,
}

/// The labels of a job that somebody reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct JobLabels {
    /// Whether it is never deleted.
    #[serde(rename = "springtide.dev/delete-protection", default)]
    pub protection: Protection,
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

    /// The template of pods that are larger by so many steps; `None` where they are as it stands.
    pub fn grown(&self, on_oom: Option<&OnOom>, steps: u32) -> Option<PodTemplate> {
        let on_oom = on_oom.filter(|_| steps > 0)?;
        let mut template = self.unpack();
        if let Some(spec) = template.0.get_mut("spec").and_then(serde_json::Value::as_object_mut) {
            growth::grow(spec, on_oom, steps);
        }
        Some(template)
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
    pub fn condition(&self, type_: &str) -> Option<&Condition> {
        condition(&self.status.conditions, type_)
    }

    /// Whether the stored condition of a type is true.
    pub fn holds(&self, type_: &str) -> bool {
        self.condition(type_).is_some_and(|condition| condition.status == ConditionStatus::True)
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

    fn bytes(&self) -> usize {
        let condition = |condition: &Condition| {
            size_of::<Condition>() + condition.type_.len() + condition.reason.len() + condition.message.len()
        };
        let conditions: usize = self.status.conditions.iter().map(condition).sum();
        let indexes = self.status.indexes.as_ref();
        let indexes = indexes.map_or(0, |indexes| indexes.closed_bitmap.len() + indexes.retries.len());
        let template = size_of::<Template>() + self.template.json.len() + self.template.hash.len();
        size_of::<Self>() + self.meta.text_bytes() + template + conditions + indexes
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
            spec: wire.spec,
            template: Template::shared(&template),
            status: wire.status,
        }
    }
}
