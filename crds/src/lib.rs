//! The Kubernetes API types of Springtide, and nothing else.
//!
//! Each kind has a module with its spec, status and condition reasons;
//! [`common`] holds what they share. [`all`] lists the kinds.

pub mod batch_job;
pub mod batch_queue;
pub mod batch_task_profile;
pub mod common;
mod decimal;
mod drain;
pub mod in_place_upgrade;
mod int_or_percent;
mod metric_gate;
mod quantity;
pub mod reason;
pub mod reference_grant;
mod resource_amounts;
pub mod samples;
pub mod schema;
pub mod time_share_group;
mod url;
mod window;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

use reason::ReasonDoc;
use samples::Sample;

/// Annotation of a CRD: most objects of the kind in one namespace.
pub const MAX_PER_NAMESPACE: &str = "springtide.dev/max-per-namespace";
/// Annotation of a CRD: most objects of the kind in a cluster.
pub const MAX_PER_CLUSTER: &str = "springtide.dev/max-per-cluster";

/// One kind, as the generators and lints see it.
#[derive(Clone, Debug)]
pub struct Kind {
    /// The CustomResourceDefinition to install.
    pub crd: CustomResourceDefinition,
    /// Every condition with every reason its controller may set; none of a kind without a status.
    pub reasons: Vec<ReasonDoc>,
    /// Fields of the spec that cannot change after creation, by their path; `[]` stands for each item of a list.
    pub immutable_fields: &'static [&'static str],
    /// Numbers of the spec that may only rise, by their path.
    pub rising_fields: &'static [&'static str],
    /// Examples that the installation ships.
    pub samples: Vec<Sample>,
    /// Folder of what reads the spec, below `controllers/`: the kind's controller, or what several of them share.
    pub controller: &'static str,
    /// Who may write objects of the kind, unless the cluster's administrators decide otherwise.
    pub writers: Writers,
}

impl Kind {
    /// Whether a controller says in a status where an object stands. What is only looked up by others has none.
    #[must_use]
    pub fn has_status(&self) -> bool {
        !self.reasons.is_empty()
    }
}

/// Who may write objects of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writers {
    /// Whoever may write the workloads of a namespace.
    Users,
    /// Those who administer a namespace: an object decides over what others have there.
    Administrators,
    /// Those alone to whom an administrator of the cluster gives the right: an object takes what others have.
    ClusterAdministrators,
}

/// Declares how many objects of a kind there may be. Not by the derive, which
/// would also annotate each object it makes.
fn with_maxima(
    mut crd: CustomResourceDefinition,
    per_namespace: u32,
    per_cluster: u32,
) -> CustomResourceDefinition {
    let annotations = crd.metadata.annotations.get_or_insert_default();
    annotations.insert(MAX_PER_NAMESPACE.to_owned(), per_namespace.to_string());
    annotations.insert(MAX_PER_CLUSTER.to_owned(), per_cluster.to_string());
    crd
}

/// Says what a CRD belongs to, as the labels of everything else that is installed do.
fn labelled(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let labels = crd.metadata.labels.get_or_insert_default();
    for label in ["app.kubernetes.io/name", "app.kubernetes.io/part-of"] {
        labels.insert(label.to_owned(), "springtide".to_owned());
    }
    crd
}

/// Every kind of this version.
#[must_use]
pub fn all() -> Vec<Kind> {
    vec![
        Kind {
            crd: batch_job::crd(),
            reasons: batch_job::all_reasons(),
            immutable_fields: &batch_job::IMMUTABLE_FIELDS,
            rising_fields: &[],
            samples: samples::batch_jobs(),
            controller: "batch-job",
            writers: Writers::Users,
        },
        Kind {
            crd: batch_queue::crd(),
            reasons: batch_queue::all_reasons(),
            immutable_fields: &batch_queue::IMMUTABLE_FIELDS,
            rising_fields: &[],
            samples: samples::batch_queues(),
            controller: "batch-job",
            writers: Writers::ClusterAdministrators,
        },
        Kind {
            crd: batch_task_profile::crd(),
            reasons: batch_task_profile::all_reasons(),
            immutable_fields: &[],
            rising_fields: &[],
            samples: samples::batch_task_profiles(),
            controller: "batch-job",
            writers: Writers::Administrators,
        },
        Kind {
            crd: in_place_upgrade::crd(),
            reasons: in_place_upgrade::all_reasons(),
            immutable_fields: &in_place_upgrade::IMMUTABLE_FIELDS,
            rising_fields: &in_place_upgrade::RISING_FIELDS,
            samples: samples::in_place_upgrades(),
            controller: "in-place-upgrade",
            writers: Writers::Users,
        },
        Kind {
            crd: time_share_group::crd(),
            reasons: time_share_group::all_reasons(),
            immutable_fields: &time_share_group::IMMUTABLE_FIELDS,
            rising_fields: &[],
            samples: samples::time_share_groups(),
            controller: "time-share-group",
            writers: Writers::Administrators,
        },
        Kind {
            crd: reference_grant::crd(),
            reasons: Vec::new(),
            immutable_fields: &[],
            rising_fields: &[],
            samples: samples::reference_grants(),
            controller: "plumbing",
            writers: Writers::Administrators,
        },
    ]
}
