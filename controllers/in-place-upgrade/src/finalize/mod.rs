//! Bringing the workload's own controller to see that its pods are of its template.
//!
//! Each kind has its own way; all are pure functions from what is there to the next writes, so that a crash between two
//! of them is a step that is found undone.

pub mod deployment;
pub mod partition;

use crate::names::FIELD_MANAGER;
use crate::target::Target;
use crate::wish::Wish;
use serde_json::{Map, Value, json};
use springtide_crds::in_place_upgrade::{FieldOwnership, FinalizedReason, History, Inline, Lock, Persist};
use springtide_plumbing::key::{Resource, Uid};
use springtide_plumbing::plan::{Action, Part, Step, Write, WriteClass};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::workloads::pod::PodView;
use std::sync::Arc;

/// What is next.
#[derive(Clone, Debug, PartialEq)]
pub enum Finalize {
    /// Nothing: it is seen.
    Done {
        /// Reason of condition Finalized.
        reason: FinalizedReason,
    },
    /// The workload's controller has to act.
    Waiting {
        /// What is waited for, for people.
        message: String,
    },
    /// Writes, in order.
    Write {
        /// Stages of a plan.
        stages: Vec<Vec<Step>>,
        /// Reason of condition Finalized meanwhile.
        reason: FinalizedReason,
        /// What they do, for people.
        message: String,
    },
}

impl Finalize {
    /// What is done or waited for, for people; empty where nothing is.
    pub fn message(&self) -> &str {
        match self {
            Self::Done { .. } => "",
            Self::Waiting { message } | Self::Write { message, .. } => message,
        }
    }

    fn agreed() -> Self {
        Self::Done { reason: FinalizedReason::NativeControllerAgrees }
    }

    fn waiting(message: impl Into<String>) -> Self {
        Self::Waiting { message: message.into() }
    }

    fn write(stages: Vec<Vec<Step>>, message: impl Into<String>) -> Self {
        Self::Write { stages, reason: FinalizedReason::WaitingForHandshake, message: message.into() }
    }
}

/// What a run's end depends on beside workload and wish.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// UID of our object.
    pub uid: &'a Uid,
    /// `policy.lock`.
    pub lock: Lock,
    /// `policy.history`.
    pub history: History,
    /// `policy.fieldOwnership`.
    pub ownership: FieldOwnership,
    /// The patch of the spec, if the wish is by one.
    pub inline: Option<&'a Inline>,
    /// Partition of a StatefulSet as it was before the run.
    pub recorded_partition: Option<u32>,
    /// Pods of a StatefulSet that are of the wished revision and available, by ordinal.
    pub relabelled: &'a [u32],
    /// How many pods are left as they are, as they cannot be changed.
    pub left_out: u32,
}

/// What is next at the end of a run whose pods are all as they are wished.
pub fn finalize(target: &Target, wish: &Wish, terms: &Terms<'_>) -> Finalize {
    if wish.persist == Persist::PodsOnly {
        return Finalize::Done { reason: FinalizedReason::Unneeded };
    }
    match target {
        // Its template was never touched: it is still that of its pods' revision, or one that a person has to decide on.
        Target::Deployment { .. } if wish.is_rollback => target
            .one_active()
            .and_then(|active| deployment::ahead::settle(active, false))
            .unwrap_or_else(Finalize::agreed),
        Target::Deployment { deployment, replica_sets } => {
            deployment::finalize(target, deployment, replica_sets, wish, terms)
        }
        Target::ReplicaSet(set) => {
            // What becomes of a template that its owner wrote is not ours.
            if set.template.whole == wish.whole() || wish.is_rollback {
                return Finalize::Done { reason: FinalizedReason::Unneeded };
            }
            match persist(target, terms) {
                Some(write) => {
                    Finalize::write(vec![vec![write.into()]], "the template of the ReplicaSet is written")
                }
                None => Finalize::Done { reason: FinalizedReason::Unneeded },
            }
        }
        Target::StatefulSet { set, .. } => partition::finalize(set, wish, terms),
        Target::DaemonSet { set, .. } if wish.is_rollback => {
            if target.is_observed() {
                Finalize::agreed()
            } else {
                Finalize::waiting(format!(
                    "DaemonSet {} has not been looked at by its controller",
                    set.meta().key.name
                ))
            }
        }
        Target::DaemonSet { set, .. } => {
            if target.is_observed() && set.updated.saturating_add(terms.left_out) == set.desired {
                Finalize::agreed()
            } else {
                Finalize::waiting(format!(
                    "the DaemonSet's controller counts {} of {} pods as updated",
                    set.updated, set.desired
                ))
            }
        }
    }
}

/// What is to be done for pods that are made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// One is to be made anew that would not yet come as it is wished.
    Pods,
    /// None is.
    None,
    /// Nothing new is to begin, whatever pods need.
    Rest,
}

/// What is next to do to the workload before pods are made anew, so that they come as they are wished; `None` when
/// nothing is. A partition is lowered pod by pod instead ([`partition::lower_past`]).
pub fn ahead(
    target: &Target,
    goal: &Wish,
    terms: &Terms<'_>,
    pods: &[Arc<PodView>],
    need: Need,
) -> Option<Finalize> {
    match target {
        Target::Deployment { deployment, replica_sets } => {
            deployment::ahead::ahead(target, deployment, replica_sets, goal, terms, pods, need)
        }
        Target::ReplicaSet(_) => {
            let write = (need == Need::Pods).then(|| persist(target, terms)).flatten()?;
            let message = "the template of the ReplicaSet is written, so that pods are made anew by it";
            Some(Finalize::write(vec![vec![write.into()]], message))
        }
        // Their templates are written first anyway.
        Target::StatefulSet { .. } | Target::DaemonSet { .. } => None,
    }
}

/// The write of an inline wish into the workload's template, by server-side apply; `None` where no inline wish is.
pub fn persist(target: &Target, terms: &Terms<'_>) -> Option<Write> {
    let inline = terms.inline?;
    let fields = match target {
        Target::Deployment { deployment, .. } => deployment::wish_fields(deployment, inline, terms),
        Target::ReplicaSet(_) | Target::StatefulSet { .. } | Target::DaemonSet { .. } => {
            json!({"spec": {"template": inline_template(inline)}})
        }
    };
    Some(apply(target, fields, terms, WriteClass::Spec))
}

/// An apply of these fields to the workload itself.
fn apply(target: &Target, fields: Value, terms: &Terms<'_>, class: WriteClass) -> Write {
    let force = match terms.ownership {
        FieldOwnership::Refuse => false,
        FieldOwnership::Force => true,
    };
    let uid = target.uid().clone();
    let manager = FIELD_MANAGER;
    let action = Action::Apply { part: Part::Main, manager, uid, resource_version: None, fields, force };
    Write { resource: resource(target), key: target.key().clone(), class, action }
}

fn resource(target: &Target) -> Resource {
    use springtide_plumbing::workloads::kinds::{DAEMON_SET, DEPLOYMENT, REPLICA_SET, STATEFUL_SET};
    match target {
        Target::Deployment { .. } => DEPLOYMENT,
        Target::ReplicaSet(_) => REPLICA_SET,
        Target::StatefulSet { .. } => STATEFUL_SET,
        Target::DaemonSet { .. } => DAEMON_SET,
    }
}

/// An inline wish as the fields of a template that it is about, and no others: what is applied is owned.
fn inline_template(inline: &Inline) -> Value {
    let mut template = Map::new();
    if let Some(metadata) = &inline.metadata {
        let mut fields = Map::new();
        for (name, entries) in [("labels", &metadata.labels), ("annotations", &metadata.annotations)] {
            if !entries.is_empty() {
                fields.insert(name.to_owned(), json!(entries));
            }
        }
        template.insert("metadata".to_owned(), Value::Object(fields));
    }
    if !inline.containers.is_empty() {
        let containers: Vec<Value> = inline
            .containers
            .iter()
            .map(|container| {
                let mut fields = Map::from_iter([("name".to_owned(), json!(container.name))]);
                if let Some(image) = &container.image {
                    fields.insert("image".to_owned(), json!(image));
                }
                if let Some(resources) = &container.resources {
                    fields.insert("resources".to_owned(), json!(resources));
                }
                Value::Object(fields)
            })
            .collect();
        template.insert("spec".to_owned(), json!({"containers": containers}));
    }
    Value::Object(template)
}
