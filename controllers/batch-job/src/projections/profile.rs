//! BatchTaskProfile, as its own controller and that of BatchJob read it.

use crate::profiles::learned::{Bound, Learnable, Rule, SAMPLES_NEEDED};
use serde::Deserialize;
use springtide_crds::batch_task_profile::{BatchTaskProfileSpec, BatchTaskProfileStatus};
use springtide_crds::common::{Condition, GROUP, Quantity, VERSION, condition};
use springtide_plumbing::key::Resource;
use springtide_plumbing::projection::{Meta, NoLabels, Projection};
use springtide_plumbing::quantity::parse_amount;
use std::sync::Arc;

/// `springtide.dev/v1alpha1` BatchTaskProfile.
pub const BATCH_TASK_PROFILE: Resource = Resource {
    group: GROUP,
    version: VERSION,
    kind: "BatchTaskProfile",
    plural: "batchtaskprofiles",
    namespaced: true,
};

/// One BatchTaskProfile.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Wire")]
pub struct ProfileView {
    meta: Meta,
    /// The spec.
    pub spec: BatchTaskProfileSpec,
    /// The status as stored.
    pub status: BatchTaskProfileStatus,
    /// What the status recommends.
    pub recommended: Arc<[Recommended]>,
}

/// What is recommended for one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recommended {
    /// Its name.
    pub container: Arc<str>,
    /// Thousandths of a core.
    pub cpu: Option<i64>,
    /// Bytes.
    pub memory: Option<i64>,
}

impl Recommended {
    /// The amount of a resource.
    pub fn amount(&self, resource: Learnable) -> Option<i64> {
        match resource {
            Learnable::Cpu => self.cpu,
            Learnable::Memory => self.memory,
        }
    }
}

impl ProfileView {
    /// The stored condition of a type.
    pub fn condition(&self, type_: &str) -> Option<&Condition> {
        condition(&self.status.conditions, type_)
    }

    /// Within so many seconds 95 of 100 runs end; `None` below [`SAMPLES_NEEDED`].
    pub fn p95_seconds(&self) -> Option<u32> {
        let run_time = self.status.run_time.as_ref().filter(|_| self.status.samples >= SAMPLES_NEEDED)?;
        Some(run_time.p95_seconds)
    }

    /// How recommendations follow from what is learned. A bound that is no quantity, or of a resource that is not
    /// learned, is none: the schema refuses both.
    pub fn rule(&self) -> Rule {
        let spec = &self.spec;
        let bounds = spec.bounds.iter().filter_map(|bound| {
            let amount = |quantity: &Option<Quantity>| {
                quantity.as_ref().and_then(|quantity| parse_amount(&bound.resource, quantity.as_str()))
            };
            Some(Bound {
                container: bound.container.as_str().into(),
                resource: Learnable::of(&bound.resource)?,
                min: amount(&bound.min),
                max: amount(&bound.max),
            })
        });
        Rule {
            percentile: spec.percentile,
            margin_percent: spec.margin_percent,
            half_life_seconds: spec.half_life_seconds,
            bounds: bounds.collect(),
        }
    }
}

impl Projection for ProfileView {
    const RESOURCE: Resource = BATCH_TASK_PROFILE;
    type Labels = NoLabels;

    fn meta(&self) -> &Meta {
        &self.meta
    }

    fn bytes(&self) -> usize {
        let status = &self.status;
        let condition = |condition: &Condition| {
            size_of::<Condition>() + condition.type_.len() + condition.reason.len() + condition.message.len()
        };
        let conditions: usize = status.conditions.iter().map(condition).sum();
        let containers: usize = status
            .containers
            .iter()
            .map(|row| size_of_val(row) + size_of::<Recommended>() + 3 * row.name.len() + row.histogram.len())
            .sum();
        let run_time = status.run_time.as_ref().map_or(0, |run_time| run_time.histogram.len());
        let bounds: usize =
            self.spec.bounds.iter().map(|bound| size_of_val(bound) + bound.container.len()).sum();
        size_of::<Self>() + self.meta.text_bytes() + conditions + containers + run_time + bounds
    }
}

#[derive(Deserialize)]
struct Wire {
    metadata: Meta,
    spec: BatchTaskProfileSpec,
    #[serde(default)]
    status: BatchTaskProfileStatus,
}

impl From<Wire> for ProfileView {
    fn from(wire: Wire) -> Self {
        let recommended = wire.status.containers.iter().map(|row| Recommended {
            container: row.name.as_str().into(),
            cpu: row.recommended.cpu.as_ref().and_then(|cpu| parse_amount("cpu", cpu)),
            memory: row.recommended.memory.as_ref().and_then(|memory| parse_amount("memory", memory)),
        });
        Self { recommended: recommended.collect(), meta: wire.metadata, spec: wire.spec, status: wire.status }
    }
}
