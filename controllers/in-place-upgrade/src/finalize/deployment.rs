//! A Deployment: its one active ReplicaSet gets the Deployment's template, so that its controller finds its pods to be of
//! it. It does so on a paused Deployment alone, where a template that matches nothing makes no ReplicaSet.

pub(super) mod ahead;

use super::{Finalize, Terms, apply, inline_template};
use crate::target::Target;
use crate::wish::Wish;
use serde_json::{Value, json};
use springtide_crds::in_place_upgrade::{FinalizedReason, History, Inline, Lock};
use springtide_plumbing::key::ObjectKey;
use springtide_plumbing::plan::{Action, Step, Write, WriteClass};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::workloads::content::{Digest, POD_TEMPLATE_HASH};
use springtide_plumbing::workloads::earlier::EarlierTemplates;
use springtide_plumbing::workloads::kinds::{
    DEPLOYMENT, DeploymentView, REPLICA_SET, REVISION, ReplicaSetView,
};
use springtide_plumbing::workloads::names::PAUSED_BY_ANNOTATION;
use springtide_plumbing::workloads::template::Template;
use std::sync::Arc;

/// Digits of the digest in the name of a ReplicaSet that is made here.
const HASH_DIGITS: usize = 10;

/// What is next.
pub(super) fn finalize(
    target: &Target,
    deployment: &DeploymentView,
    replica_sets: &[Arc<ReplicaSetView>],
    wish: &Wish,
    terms: &Terms<'_>,
) -> Finalize {
    if target.has_lost_its_replica_sets() {
        return make_again(target, deployment, wish, terms);
    }
    let Some(active) = target.one_active() else {
        return Finalize::waiting(if target.active().is_empty() {
            "the Deployment's controller has not scaled a ReplicaSet up yet"
        } else {
            "more than one ReplicaSet of the Deployment has pods"
        });
    };
    let is_flipped = active.template.whole == wish.whole();
    if is_flipped {
        return agree(target, deployment, active, replica_sets, terms);
    }
    if !is_ready_for_flip(deployment, wish, terms) {
        return prepare(target, deployment, terms);
    }
    if !target.is_observed() {
        return Finalize::waiting(
            "the Deployment's controller has not seen the pause with the new template yet",
        );
    }
    let others = || replica_sets.iter().filter(|set| set.meta().uid != active.meta().uid);
    // Its controller takes the oldest ReplicaSet that matches for the new one: an older one that does changes places
    // with the active one first.
    let matching: Vec<_> = others().filter(|set| set.template.whole == wish.whole()).collect();
    let is_kept = others().any(|set| set.template.whole == active.template.whole);
    // Pods that stay as they are are known by what they were made from, where somebody keeps that.
    let leaves = terms.left_out > 0 && (is_kept || !matching.is_empty() || deployment.history_limit > 0);
    let noted = match (leaves, active.earlier.is_left()) {
        (true, _) => Some(active.earlier.opened(&active.template).settled(true)),
        // All are of one template again.
        (false, true) => Some(EarlierTemplates::default()),
        (false, false) => None,
    };
    let flip = flip(active, &wish.template, None, noted.as_ref());
    if !matching.is_empty() {
        let swaps = matching
            .iter()
            .map(|set| self::flip(set, &active.template, Some(active.revision), None))
            .collect();
        return Finalize::Write {
            stages: vec![swaps, vec![flip]],
            reason: FinalizedReason::OlderReplicaSetMatches,
            message: format!(
                "an older ReplicaSet equals the wish and changes places with {}",
                active.meta().key.name
            ),
        };
    }
    let keeps = match terms.history {
        History::Snapshot => deployment.history_limit > 0 && !is_kept,
        History::None => leaves && !is_kept,
    };
    let mut stages = Vec::new();
    if keeps {
        stages.push(vec![snapshot(deployment, active)]);
    }
    stages.push(vec![flip]);
    Finalize::write(
        stages,
        format!("ReplicaSet {} gets the template of the Deployment", active.meta().key.name),
    )
}

/// Makes a ReplicaSet of the wish for a Deployment that has none any more: one for its controller to scale up. It takes it
/// for the new one, and so leaves it where it is.
fn make_again(target: &Target, deployment: &DeploymentView, wish: &Wish, terms: &Terms<'_>) -> Finalize {
    if !is_ready_for_flip(deployment, wish, terms) {
        return prepare(target, deployment, terms);
    }
    // By an older template it would delete this one as well. As long as it counts pods, our store is behind.
    if !target.is_observed() || deployment.status_replicas > 0 {
        return Finalize::waiting("the Deployment's controller has not seen the new template yet");
    }
    let made = without_pods(deployment, &wish.template, deployment.revision.saturating_add(1));
    Finalize::write(
        vec![vec![made]],
        "a ReplicaSet of the wish is made: its controller has deleted the only one, as it keeps no history",
    )
}

/// Whether the Deployment has the wished template, and does not act by it.
fn is_ready_for_flip(deployment: &DeploymentView, wish: &Wish, terms: &Terms<'_>) -> bool {
    let is_ours = deployment.paused_by.as_deref() == Some(&*terms.uid.0);
    let is_paused = match terms.lock {
        Lock::Require => deployment.is_paused,
        Lock::Transient => deployment.is_paused && is_ours,
    };
    is_paused && deployment.template.whole == wish.whole()
}

/// Writes what the flip needs: an inline wish, and with it the pause of a transient lock, in one write.
fn prepare(target: &Target, deployment: &DeploymentView, terms: &Terms<'_>) -> Finalize {
    let Some(inline) = terms.inline else {
        // The lock was looked at before.
        return Finalize::waiting("the Deployment is not paused with the wished template");
    };
    let fields = wish_fields(deployment, inline, terms);
    let message = match fields["spec"].get("paused") {
        None => "the wish is written into the paused Deployment",
        Some(_) => "the wish is written into the Deployment, which is paused with the same write",
    };
    Finalize::write(vec![vec![apply(target, fields, terms, WriteClass::Spec).into()]], message)
}

/// The fields by which an inline wish comes into a Deployment; a pause of somebody else's is used, and stays.
pub(super) fn wish_fields(deployment: &DeploymentView, inline: &Inline, terms: &Terms<'_>) -> Value {
    let template = inline_template(inline);
    let is_foreign_pause = deployment.is_paused && deployment.paused_by.is_none();
    match terms.lock {
        Lock::Transient if !is_foreign_pause => json!({
            "metadata": {"annotations": {PAUSED_BY_ANNOTATION: terms.uid}},
            "spec": {"paused": true, "template": template},
        }),
        Lock::Transient | Lock::Require => json!({"spec": {"template": template}}),
    }
}

/// Everything is written; what is left is that its controller says so, and that our own pause ends.
fn agree(
    target: &Target,
    deployment: &DeploymentView,
    active: &ReplicaSetView,
    replica_sets: &[Arc<ReplicaSetView>],
    terms: &Terms<'_>,
) -> Finalize {
    let others = replica_sets.iter().filter(|set| set.meta().uid != active.meta().uid);
    let newest_other = others.map(|set| set.revision).max();
    // A status from before the flip may say the same by chance, and at no replicas it always does; the revision is raised
    // by its controller when it has found the ReplicaSet to be the new one.
    let is_raised = newest_other.is_none_or(|other| active.revision > other);
    let is_counted = deployment.updated_replicas == deployment.status_replicas
        && deployment.status_replicas == deployment.replicas;
    if !(target.is_observed() && is_counted && is_raised) {
        return Finalize::waiting(format!(
            "the Deployment's controller counts {} of {} pods as updated",
            deployment.updated_replicas, deployment.replicas
        ));
    }
    if let Some(settle) = ahead::settle(active, terms.left_out > 0) {
        return settle;
    }
    if deployment.paused_by.as_deref() == Some(&*terms.uid.0) {
        let template = terms.inline.map(inline_template);
        return Finalize::write(
            vec![vec![unpause(target, template, terms)]],
            "our pause of the Deployment ends",
        );
    }
    Finalize::agreed()
}

/// Ends a pause of ours: what is applied no more is removed, what is applied still stays ours.
fn unpause(target: &Target, template: Option<Value>, terms: &Terms<'_>) -> Step {
    let fields = template.map_or_else(|| json!({}), |template| json!({"spec": {"template": template}}));
    let mut write = apply(target, fields, terms, WriteClass::Protective);
    if let Action::Apply { force, .. } = &mut write.action {
        // It takes nothing that is not held already.
        *force = true;
    }
    write.into()
}

/// Gives a ReplicaSet a template, with the label by which it finds its own pods, and a revision and what its pods were made
/// from where these are named.
fn flip(
    set: &ReplicaSetView,
    template: &Template,
    revision: Option<i64>,
    earlier: Option<&EarlierTemplates>,
) -> Step {
    let mut value = template.value();
    if let Some(hash) = &set.meta().labels.pod_template_hash
        && let Some(labels) = labels(&mut value)
    {
        labels.insert(POD_TEMPLATE_HASH.to_owned(), json!(hash));
    }
    let meta = set.meta();
    let mut operations = vec![
        json!({"op": "test", "path": "/metadata/uid", "value": meta.uid}),
        json!({"op": "test", "path": "/metadata/resourceVersion", "value": meta.resource_version.to_string()}),
        json!({"op": "replace", "path": "/spec/template", "value": value}),
    ];
    if let Some(revision) = revision {
        let path = format!("/metadata/annotations/{}", REVISION.replace('/', "~1"));
        operations.push(json!({"op": "add", "path": path, "value": revision.to_string()}));
    }
    if let Some(earlier) = earlier {
        operations.push(ahead::note(earlier));
    }
    let action = Action::json_patch(Value::Array(operations));
    Write { resource: REPLICA_SET, key: meta.key.clone(), class: WriteClass::Spec, action }.into()
}

/// The template's labels, made where there are none.
fn labels(template: &mut Value) -> Option<&mut serde_json::Map<String, Value>> {
    let metadata = template.as_object_mut()?.entry("metadata").or_insert_with(|| json!({}));
    metadata.as_object_mut()?.entry("labels").or_insert_with(|| json!({})).as_object_mut()
}

/// A ReplicaSet without pods that keeps the old template for `kubectl rollout undo`, as the Deployment's controller
/// would have left one.
fn snapshot(deployment: &DeploymentView, active: &ReplicaSetView) -> Step {
    without_pods(deployment, &active.template, active.revision)
}

/// A ReplicaSet of the Deployment without pods. Its name follows from the template, so that it is made once.
fn without_pods(deployment: &DeploymentView, template: &Template, revision: i64) -> Step {
    let meta = deployment.meta();
    let digest = Digest::of(&format!("{} {}", meta.uid, template.whole)).to_string();
    let hash = &digest[..HASH_DIGITS];
    let name = format!("{}-{hash}", meta.key.name);
    let mut template = template.value();
    if let Some(labels) = labels(&mut template) {
        labels.insert(POD_TEMPLATE_HASH.to_owned(), json!(hash));
    }
    let mut selector = deployment.selector.clone();
    if let Some(fields) = selector.as_object_mut()
        && let Some(labels) = fields.entry("matchLabels").or_insert_with(|| json!({})).as_object_mut()
    {
        labels.insert(POD_TEMPLATE_HASH.to_owned(), json!(hash));
    }
    let manifest = json!({
        "apiVersion": REPLICA_SET.api_version(),
        "kind": REPLICA_SET.kind,
        "metadata": {
            "name": name,
            "namespace": meta.key.namespace,
            "labels": template["metadata"]["labels"],
            "annotations": {REVISION: revision.to_string()},
            "ownerReferences": [{
                "apiVersion": DEPLOYMENT.api_version(),
                "kind": DEPLOYMENT.kind,
                "name": meta.key.name,
                "uid": meta.uid,
                // Nothing waits for it, so that it takes no right on the Deployment's finalizers to make it.
                "controller": true,
            }],
        },
        "spec": {
            "replicas": 0,
            "minReadySeconds": deployment.min_ready_seconds,
            "selector": selector,
            "template": template,
        },
    });
    let key = ObjectKey::new(meta.key.namespace.clone(), name);
    Write { resource: REPLICA_SET, key, class: WriteClass::Spec, action: Action::Create { manifest } }.into()
}

#[cfg(test)]
mod tests;
