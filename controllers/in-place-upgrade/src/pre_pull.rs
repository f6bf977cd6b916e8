//! Images are on a node before a container of it is stopped: the kubelet stops first, and pulls then.
//!
//! A pod per node pulls them, which does nothing else. It stays until the node's pods are changed, so that the kubelet
//! does not collect the images again. What goes wrong with it goes wrong before any container is touched.
//!
//! It has the images as volumes, or runs a program that does nothing in each of them. Which of the two a node can is not
//! asked but seen: a pod with volumes that comes to nothing is the proof that it cannot, and stays as long as one of the
//! other kind pulls beside it. So any process sees the same.

mod puller;

pub(crate) use puller::trouble as definite_pull_error;
pub use puller::{PULLER_LABEL, PULLER_PREFIX, Puller, Recipe, Way, manifest, name};

use crate::census::Member;
use crate::machine::PodState;
use crate::wish::Wish;
use jiff::{SignedDuration, Timestamp};
use springtide_crds::in_place_upgrade::{
    PrePull as PrePullSpec, PrePullCounts, PrePullMode, PrePullScope, PrePulledReason,
};
use springtide_plumbing::clock::after;
use springtide_plumbing::key::{Resource, Uid};
use springtide_plumbing::plan::{Action, Step, Write, WriteClass};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::workloads::content::Digest;
use springtide_plumbing::workloads::pod::PodView;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Where images are, and what is done to get them there.
#[derive(Clone, Debug, PartialEq)]
pub struct PrePull {
    /// Pullers that are made, and those that are no longer needed and go.
    pub steps: Vec<Step>,
    /// Nodes that need the images; absent when none does.
    pub counts: Option<PrePullCounts>,
    /// Reason of condition PrePulled.
    pub reason: PrePulledReason,
    /// For people.
    pub message: String,
    /// When to look again though nothing happens.
    pub wake: Option<Timestamp>,
    /// Nodes that have all images, as far as any is needed; `None` where pods wait for none.
    ready: Option<BTreeSet<Arc<str>>>,
}

/// What is known of nodes and pullers.
#[derive(Clone, Copy)]
pub struct PrePullInput<'a> {
    /// `prePull`.
    pub spec: &'a PrePullSpec,
    /// Whether nodes can be seen at all.
    pub sees_nodes: bool,
    /// The wish.
    pub goal: &'a Wish,
    /// The workload's pods, by name.
    pub members: &'a [Member],
    /// Images that each of them needs, in the same order.
    pub images: &'a [&'a [Arc<str>]],
    /// Whether a node lists all of these images.
    pub has_images: &'a dyn Fn(&str, &[Arc<str>]) -> bool,
    /// Whether a node's kubelet is new enough for image volumes.
    pub mounts_images: &'a dyn Fn(&str) -> bool,
    /// Our pullers.
    pub pullers: &'a [Arc<PodView>],
    /// Pods that the step may still start.
    pub room: usize,
    /// Who owns pullers, and from what they are made.
    pub recipe: &'a Recipe<'a>,
}

impl PrePull {
    /// Nothing is to be pulled, and nobody waits.
    pub fn unneeded(message: &str) -> Self {
        Self {
            steps: Vec::new(),
            counts: None,
            reason: PrePulledReason::NotNeeded,
            message: message.to_owned(),
            wake: None,
            ready: None,
        }
    }

    /// Whether a pod's node has the images that it needs.
    pub fn has_images(&self, member: &Member) -> bool {
        let Some(ready) = &self.ready else { return true };
        !member.judgement.verdict.restarts()
            || member.judgement.differences.images.is_empty()
            // It has no node: whichever it gets pulls anyway.
            || member.pod.node.as_ref().is_none_or(|node| ready.contains(node))
    }

    /// Whether images cannot be had: no person is needed for what only takes time.
    pub fn has_failed(&self) -> bool {
        match self.reason {
            PrePulledReason::ImageNotFound
            | PrePulledReason::PullDenied
            | PrePulledReason::TimedOut
            | PrePulledReason::PullerNotScheduled => true,
            PrePulledReason::NotObserved
            | PrePulledReason::AllNodes
            | PrePulledReason::NotNeeded
            | PrePulledReason::InProgress => false,
        }
    }
}

/// What is to be pulled where.
pub fn pre_pull(input: &PrePullInput<'_>, now: Timestamp) -> PrePull {
    let removed = |keep: &BTreeSet<Arc<str>>| -> Vec<Step> {
        let old = input
            .pullers
            .iter()
            .filter(|puller| !puller.meta().is_deleting() && !keep.contains(&puller.meta().key.name));
        old.map(|puller| remove(puller)).collect()
    };
    let none = match input.spec.mode {
        PrePullMode::None => Some("spec.prePull.mode is None"),
        PrePullMode::Auto | PrePullMode::ImageVolume | PrePullMode::InitContainer if !input.sees_nodes => {
            Some("nodes are not visible to this installation")
        }
        PrePullMode::Auto | PrePullMode::ImageVolume | PrePullMode::InitContainer
            if input.recipe.tools_image.is_empty() =>
        {
            Some("the manager's configuration names no pullerImage")
        }
        PrePullMode::Auto | PrePullMode::ImageVolume | PrePullMode::InitContainer => None,
    };
    if let Some(message) = none {
        return PrePull { steps: removed(&BTreeSet::new()), ..PrePull::unneeded(message) };
    }
    let needed = needed(input);
    let mut found = PrePull::unneeded("no image changes");
    let mut ready = BTreeSet::new();
    let mut keep = BTreeSet::new();
    let mut counts = PrePullCounts::default();
    let mut trouble: Option<(PrePulledReason, String)> = None;
    let mut busy = 0_usize;
    let parallelism = usize::try_from(input.spec.parallelism).unwrap_or(usize::MAX);
    let mut to_make = Vec::new();
    for (node, need) in &needed {
        counts.nodes += 1;
        let Chosen { way, name, puller, evidence } = choose(input, node, &need.images);
        keep.extend(evidence);
        keep.insert(Arc::clone(&name));
        match puller {
            Some(Puller::Pulled) => {
                ready.insert(Arc::clone(node));
            }
            None if (input.has_images)(node, &need.images) => {
                ready.insert(Arc::clone(node));
            }
            None => to_make.push((node, need, way, name)),
            Some(Puller::Unable { message }) => {
                counts.failed += 1;
                let message = format!("node {node} mounts no images as volumes: {message}");
                trouble.get_or_insert((PrePulledReason::PullerNotScheduled, message));
            }
            Some(Puller::Failed { reason, message }) => {
                counts.failed += 1;
                trouble.get_or_insert_with(|| (reason, format!("node {node}: {message}")));
            }
            Some(Puller::Pulling { is_scheduled, since }) => {
                let end = after(since, SignedDuration::from_secs(input.spec.timeout_seconds.into()));
                if end > now {
                    busy += 1;
                    found.wake = Some(found.wake.map_or(end, |wake| wake.min(end)));
                    continue;
                }
                counts.failed += 1;
                let (reason, what) = if is_scheduled {
                    (PrePulledReason::TimedOut, "has not pulled within spec.prePull.timeoutSeconds")
                } else {
                    (PrePulledReason::PullerNotScheduled, "does not take the pod that pulls")
                };
                trouble.get_or_insert_with(|| (reason, format!("node {node} {what}")));
            }
        }
    }
    // Those of the next pods first: needed nodes come in the order of pods that would start.
    to_make.sort_by_key(|(node, need, ..)| (need.first, (*node).clone()));
    let room = parallelism.saturating_sub(busy);
    let made = to_make.iter().take(room).map(|(node, need, way, name)| {
        let manifest = manifest(input.recipe, *way, name, node, &need.images);
        let key = springtide_plumbing::key::ObjectKey::new(input.recipe.namespace.clone(), Arc::clone(name));
        let action = Action::Create { manifest };
        Step::from(Write { resource: Resource::POD, key, class: WriteClass::Spec, action })
    });
    found.steps.extend(made);
    found.steps.extend(removed(&keep));
    if needed.is_empty() {
        return found;
    }
    counts.ready = u32::try_from(ready.len()).unwrap_or(u32::MAX);
    (found.reason, found.message) = match trouble {
        Some(trouble) => trouble,
        None if counts.ready == counts.nodes => {
            (PrePulledReason::AllNodes, format!("{} nodes have the images", counts.nodes))
        }
        None => (
            PrePulledReason::InProgress,
            format!("{} of {} nodes have the images", counts.ready, counts.nodes),
        ),
    };
    found.counts = Some(counts);
    found.ready = Some(ready);
    found
}

/// By which pod a node gets its images.
struct Chosen {
    way: Way,
    name: Arc<str>,
    /// How far it is; absent where it is yet to be made.
    puller: Option<Puller>,
    /// Name of the pod that shows that the node has no image volumes, where one does.
    evidence: Option<Arc<str>>,
}

fn choose(input: &PrePullInput<'_>, node: &str, images: &[Arc<str>]) -> Chosen {
    let of = |way: Way| {
        let name = name(input.goal, way, images, node);
        let puller = input.pullers.iter().find(|puller| puller.meta().key.name == name);
        let puller = puller.map(|puller| Puller::of(puller));
        Chosen { way, name, puller, evidence: None }
    };
    let is_unable = |puller: &Puller| matches!(puller, Puller::Unable { .. });
    match input.spec.mode {
        PrePullMode::InitContainer => of(Way::InitContainer),
        PrePullMode::ImageVolume | PrePullMode::None => of(Way::ImageVolume),
        PrePullMode::Auto => {
            let (by_volumes, by_init) = (of(Way::ImageVolume), of(Way::InitContainer));
            if by_volumes.puller.as_ref().is_some_and(is_unable) {
                return Chosen { evidence: Some(by_volumes.name), ..by_init };
            }
            // What was begun in one way is not begun anew in the other.
            if by_init.puller.is_some() {
                return by_init;
            }
            // Nodes of a cluster are mostly alike: what one of them cannot do the next one is not asked for.
            let is_any_unable = || input.pullers.iter().any(|puller| is_unable(&Puller::of(puller)));
            if by_volumes.puller.is_some() || ((input.mounts_images)(node) && !is_any_unable()) {
                by_volumes
            } else {
                by_init
            }
        }
    }
}

/// The images that a node needs, and how soon.
struct Need {
    images: Vec<Arc<str>>,
    /// Place of the first pod on it that would start.
    first: usize,
}

/// Nodes of the scope, and what they need: of the next step the pods that it has room for, and those under way.
fn needed(input: &PrePullInput<'_>) -> BTreeMap<Arc<str>, Need> {
    let mut needed: BTreeMap<Arc<str>, Need> = BTreeMap::new();
    let room = match input.spec.scope {
        PrePullScope::NextStep => input.room,
        PrePullScope::All => usize::MAX,
    };
    let mut waiting = 0;
    for (place, (member, images)) in input.members.iter().zip(input.images).enumerate() {
        let Some(node) = &member.pod.node else { continue };
        if images.is_empty() {
            continue;
        }
        let is_waiting = match member.state() {
            PodState::Old | PodState::NotDrained { .. } => true,
            PodState::Resizing | PodState::Draining { .. } | PodState::Drained => false,
            PodState::Patched
            | PodState::Started
            | PodState::Updated
            | PodState::Unavailable
            | PodState::Renewed
            | PodState::Failed(_)
            | PodState::Ineligible => continue,
        };
        if is_waiting {
            waiting += 1;
            if waiting > room {
                continue;
            }
        }
        let need =
            needed.entry(Arc::clone(node)).or_insert_with(|| Need { images: Vec::new(), first: place });
        need.images.extend(images.iter().cloned());
        need.images.sort();
        need.images.dedup();
    }
    needed
}

fn remove(puller: &PodView) -> Step {
    let meta = puller.meta();
    let action = Action::Delete {
        uid: Uid::clone(&meta.uid),
        resource_version: None,
        // It does nothing that would have to end.
        grace_seconds: Some(0),
    };
    Write { resource: Resource::POD, key: meta.key.clone(), class: WriteClass::Low, action }.into()
}

/// Which images each member needs, by what it differs in.
pub fn images_of(goal: &Wish, members: &[Member]) -> Vec<Vec<Arc<str>>> {
    let containers = &goal.template.content.containers;
    let of = |member: &Member| {
        // Where one goes that is made anew nobody knows.
        let stays = member.judgement.verdict.changes_in_place();
        let names = member.judgement.differences.images.iter().filter(|_| stays);
        names.filter_map(|name| containers.get(name)).map(|content| content.image.clone()).collect()
    };
    members.iter().map(of).collect()
}

/// A short name for something long.
fn short(text: &str) -> String {
    Digest::of(text).to_string().chars().take(10).collect()
}

#[cfg(test)]
mod tests;
