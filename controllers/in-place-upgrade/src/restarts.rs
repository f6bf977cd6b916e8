//! Restarts in place: the image of a container gets another of its names, which the kubelet takes for a change.
//!
//! Three things ask for one: `spec.restart`, `kubectl rollout restart` of a workload that is locked, and a label or
//! annotation that a container's environment is made of, as that is read when it starts. A pod bears in its record for which restart it has been restarted, and which of its images
//! stand there under another name than in the wish; else no name would be taken for another.

use crate::differences::Differences;
use crate::wish::Wish;
use jiff::Timestamp;
use springtide_plumbing::projection::Projection;
use springtide_plumbing::workloads::content::Role;
use springtide_plumbing::workloads::image_name::ImageName;
use springtide_plumbing::workloads::pod::{ContainerState, ContainerView, PodView};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Annotation that `kubectl rollout restart` sets in a template, with the time as its value.
const KUBECTL_RESTART: &str = "kubectl.kubernetes.io/restartedAt";

/// The restart that a pod has yet to have, by the instant before which it was created; `None` if none.
pub fn due(pod: &PodView, wish: &Wish) -> Option<Timestamp> {
    let before = wish.restart.as_ref()?.before_time.0;
    let has_been = pod.trace.restarted().is_some_and(|restarted| restarted >= before);
    (pod.meta().creation_time < before && !has_been).then_some(before)
}

/// Adds to what a pod differs in the containers that are to be restarted, and their images' other names.
pub fn add(pod: &PodView, wish: &Wish, found: &mut Differences) {
    found.restart = due(pod, wish);
    let mut asked = BTreeSet::new();
    if found.restart.is_some() {
        asked.extend(named(pod, wish, found));
    }
    asked.extend(read_at_start(wish, found));
    asked.extend(restarted_by_kubectl(wish, found));
    if wish.is_rollback {
        found.flips.extend(not_started(pod, wish));
    }
    for name in asked {
        if found.images.contains(&name) || found.flips.contains_key(&name) {
            continue;
        }
        let wished = wish.template.content.containers.get(&name).map(|content| &content.image);
        let (Some(own), Some(wished)) = (pod.container(&name), wished) else { continue };
        let Some(image_id) = running(own) else { continue };
        let flipped = if own.image == *wished {
            let image = ImageName::parse(&own.image).ok();
            image.and_then(|image| image.flip(image.digest_in(image_id))).map(Arc::from)
        } else {
            // Under a name that somebody else has given it nobody knows what it would be.
            pod.trace.is_renamed(&name, wished, &own.image).then(|| Arc::clone(wished))
        };
        match flipped {
            Some(image) => drop(found.flips.insert(name, image)),
            None => found.is_digest_unknown = true,
        }
    }
}

/// The containers that `spec.restart` is about: those that it names, else all that run.
fn named(pod: &PodView, wish: &Wish, found: &mut Differences) -> Vec<Arc<str>> {
    let runs = |name: &str| pod.container(name).is_some_and(|own| is_of_main(own.role));
    let containers = &wish.template.content.containers;
    let names = wish.restart.iter().flat_map(|restart| &restart.containers).map(|name| Arc::from(&**name));
    let names: Vec<Arc<str>> = names.collect();
    if names.is_empty() {
        return containers.keys().filter(|name| runs(name)).cloned().collect();
    }
    let (known, unknown): (Vec<_>, Vec<_>) =
        names.into_iter().partition(|name| containers.contains_key(name) && runs(name));
    found.missing.extend(unknown);
    known
}

/// The containers that do not start under the name that a restart has given their image: they get back the one that they
/// had. All others are restarted, whatever became of the run.
fn not_started(pod: &PodView, wish: &Wish) -> Vec<(Arc<str>, Arc<str>)> {
    let waits = |own: &ContainerView| {
        own.status.as_ref().is_some_and(|status| match status.state {
            ContainerState::Waiting { .. } => true,
            ContainerState::Running { .. } | ContainerState::Terminated(_) => false,
        })
    };
    let renamed = pod.trace.record().into_iter().flat_map(|record| &record.renamed);
    let names = renamed.filter_map(|name| {
        let (own, content) = (pod.container(name)?, wish.template.content.containers.get(name)?);
        let is_renamed = pod.trace.is_renamed(name, &content.image, &own.image);
        (is_renamed && waits(own)).then(|| (Arc::clone(name), Arc::clone(&content.image)))
    });
    names.collect()
}

/// The containers whose environment is made of a label or annotation that changes.
fn read_at_start(wish: &Wish, found: &Differences) -> Vec<Arc<str>> {
    if !found.has_metadata() {
        return Vec::new();
    }
    let reads = wish.template.content.containers.iter().filter(|(_, content)| {
        let keys = &content.environment;
        let changes_label =
            |key: &Arc<str>| found.labels.contains_key(key) || found.labels_removed.contains(key);
        let changes_annotation =
            |key: &Arc<str>| found.annotations.contains_key(key) || found.annotations_removed.contains(key);
        is_of_main(content.role)
            && (keys.labels.iter().any(changes_label) || keys.annotations.iter().any(changes_annotation))
    });
    reads.map(|(name, _)| Arc::clone(name)).collect()
}

/// All containers, where the template's annotation by which `kubectl rollout restart` has pods made anew is a new one: who
/// asks for that is told by the workload's own controller that it is done. A rollback has nothing to restart.
fn restarted_by_kubectl(wish: &Wish, found: &Differences) -> Vec<Arc<str>> {
    if wish.is_rollback || !found.annotations.contains_key(KUBECTL_RESTART) {
        return Vec::new();
    }
    let containers = wish.template.content.containers.iter();
    containers.filter(|(_, content)| is_of_main(content.role)).map(|(name, _)| Arc::clone(name)).collect()
}

/// Whether a container runs for as long as its pod: others are not run again.
pub(crate) fn is_of_main(role: Role) -> bool {
    match role {
        Role::Main | Role::Sidecar => true,
        Role::Init => false,
    }
}

/// `imageID` of a container that has been started; one that has not starts anew anyway.
fn running(own: &ContainerView) -> Option<&str> {
    own.status.as_ref().filter(|status| !status.container_id.is_empty()).map(|status| &*status.image_id)
}

#[cfg(test)]
mod tests;
