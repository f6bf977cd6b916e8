//! The pod that pulls images to one node.

use super::short;
use crate::projections::upgrade::IN_PLACE_UPGRADE;
use crate::wish::Wish;
use jiff::Timestamp;
use serde_json::{Value, json};
use springtide_crds::in_place_upgrade::PrePulledReason;
use springtide_plumbing::key::Uid;
use springtide_plumbing::projection::Projection;
use springtide_plumbing::workloads::content::Role;
use springtide_plumbing::workloads::pod::{ContainerState, PodPhase, PodView};
use springtide_plumbing::workloads::template::Template;
use std::sync::Arc;

/// What the names of pullers begin with.
pub const PULLER_PREFIX: &str = "ipu-pull-";
/// Label of pullers, so that people know what they are; its value is the object's name.
pub const PULLER_LABEL: &str = "springtide.dev/in-place-upgrade-puller";
/// The manager's program in its own image.
const PROGRAM: &str = "/bin/springtide";
/// Longest value of a label.
const LABEL_MAX_BYTES: usize = 63;

/// What pullers are made from.
#[derive(Clone, Copy, Debug)]
pub struct Recipe<'a> {
    /// Namespace of workload and object.
    pub namespace: &'a Arc<str>,
    /// Name of the object that owns them.
    pub owner: &'a str,
    /// Its UID.
    pub uid: &'a Uid,
    /// The workload's template: pull secrets and service account are its.
    pub template: &'a Template,
    /// The manager's own image.
    pub tools_image: &'a str,
}

/// How the images get to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// As volumes of a pod that does nothing.
    ImageVolume,
    /// As init containers of such a pod, in which a program of ours runs that does nothing.
    InitContainer,
}

impl Way {
    fn as_str(self) -> &'static str {
        match self {
            Self::ImageVolume => "volumes",
            Self::InitContainer => "init",
        }
    }
}

/// How far a puller is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Puller {
    /// Its node has the images.
    Pulled,
    /// It has the images as volumes, which there are not where it is.
    Unable {
        /// Why, for people.
        message: String,
    },
    /// It waits or pulls.
    Pulling {
        /// Whether it has its node.
        is_scheduled: bool,
        /// Since when it exists.
        since: Timestamp,
    },
    /// It cannot have them.
    Failed {
        /// Reason of condition PrePulled.
        reason: PrePulledReason,
        /// What its kubelet says.
        message: String,
    },
}

impl Puller {
    /// How far a puller is, as its status says.
    pub fn of(pod: &PodView) -> Self {
        let since = pod.meta().creation_time;
        let is_by_volumes = pod.containers.iter().all(|container| container.role == Role::Main);
        // An API server that is told not to know them, and a webhook that does not, take them away without a word. Such a
        // pod runs, and has pulled nothing.
        if is_by_volumes && !pod.has_image_volumes {
            let message = "the API server or a webhook takes image volumes out of pods".to_owned();
            return Self::Unable { message };
        }
        match pod.phase {
            // It runs for as long as it is there; one that has ended all the same had the images.
            PodPhase::Running | PodPhase::Succeeded => return Self::Pulled,
            PodPhase::Pending | PodPhase::Failed | PodPhase::Unknown => {}
        }
        let definite = pod.containers.iter().find_map(|container| {
            let ContainerState::Waiting { reason, message } = &container.status.as_ref()?.state else {
                return None;
            };
            if is_by_volumes && is_of_mounts(reason) {
                return Some(Self::Unable { message: format!("{reason}: {message}") });
            }
            let reason = trouble(reason, message)?;
            // Of one with volumes it is not the container's own image: the kubelet's words name it.
            let message = if is_by_volumes {
                message.to_string()
            } else {
                format!("image {}: {message}", container.image)
            };
            Some(Self::Failed { reason, message })
        });
        definite.unwrap_or(Self::Pulling { is_scheduled: pod.node.is_some(), since })
    }
}

/// Whether a container waits as it cannot be made though its images are there. A container of ours asks for nothing else
/// but volumes: its runtime mounts no images (containerd before 2.1, cri-dockerd), or its kubelet has no path for them.
fn is_of_mounts(reason: &str) -> bool {
    ["CreateContainerError", "CreateContainerConfigError", "RunContainerError"].contains(&reason)
}

/// What a waiting container says of its image: whether that does not exist, or may not be had. Both come as a pull error
/// with the registry's words in it, which are those of the
/// [distribution API](https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#error-codes) and of
/// containerd.
pub(crate) fn trouble(reason: &str, message: &str) -> Option<PrePulledReason> {
    match reason {
        "InvalidImageName" | "ErrImageNeverPull" => return Some(PrePulledReason::ImageNotFound),
        "ErrImagePull" | "ImagePullBackOff" => {}
        _ => return None,
    }
    let message = message.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if says(&["unauthorized", "denied", "forbidden", "authentication required", "no basic auth credentials"])
    {
        Some(PrePulledReason::PullDenied)
    } else if says(&[
        "not found",
        "manifest unknown",
        "name unknown",
        "no match for platform",
        "no matching manifest",
    ]) {
        Some(PrePulledReason::ImageNotFound)
    } else {
        // A registry that does not answer may do so later.
        None
    }
}

/// Name of the puller of these images on a node.
pub fn name(goal: &Wish, way: Way, images: &[Arc<str>], node: &str) -> Arc<str> {
    let wanted = short(&format!("{} {} {}", goal.hash, way.as_str(), images.join(" ")));
    format!("{PULLER_PREFIX}{wanted}-{}", short(node)).into()
}

/// The puller, under the restricted profile, without requests, with no token, and tolerating whatever its node bears.
pub fn manifest(recipe: &Recipe<'_>, way: Way, name: &str, node: &str, images: &[Arc<str>]) -> Value {
    let template = recipe.template.value();
    let spec = &template["spec"];
    let security = json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"]},
    });
    let mut pod_spec = json!({
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]},
        ]}}},
        "tolerations": [{"operator": "Exists"}],
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": 0,
        "restartPolicy": "Always",
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": 65_534, "runAsGroup": 65_534,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    });
    for field in ["imagePullSecrets", "serviceAccountName", "runtimeClassName"] {
        if !spec[field].is_null() {
            pod_spec[field] = spec[field].clone();
        }
    }
    let idle = |mounts: Value| {
        json!({
            "name": "idle", "image": recipe.tools_image, "command": [PROGRAM, "idle"],
            "securityContext": security, "volumeMounts": mounts,
        })
    };
    match way {
        Way::InitContainer => {
            let copy = json!({
                "name": "copy", "image": recipe.tools_image, "command": [PROGRAM, "copy-noop", "/noop"],
                "securityContext": security, "volumeMounts": [{"name": "noop", "mountPath": "/noop"}],
            });
            let pulls = images.iter().enumerate().map(|(place, image)| {
                json!({
                    "name": format!("pull-{place}"), "image": image, "imagePullPolicy": "IfNotPresent",
                    "command": ["/springtide-noop/noop"], "securityContext": security,
                    "volumeMounts": [{"name": "noop", "mountPath": "/springtide-noop", "readOnly": true}],
                })
            });
            pod_spec["initContainers"] = [copy].into_iter().chain(pulls).collect();
            pod_spec["volumes"] = json!([{"name": "noop", "emptyDir": {}}]);
            pod_spec["containers"] = json!([idle(json!([]))]);
        }
        Way::ImageVolume => {
            let volumes = images.iter().enumerate().map(|(place, image)| {
                json!({"name": format!("image-{place}"), "image": {"reference": image, "pullPolicy": "IfNotPresent"}})
            });
            let mounts = (0..images.len()).map(|place| {
                json!({"name": format!("image-{place}"), "mountPath": format!("/images/{place}"), "readOnly": true})
            });
            pod_spec["volumes"] = volumes.collect();
            pod_spec["containers"] = json!([idle(mounts.collect())]);
        }
    }
    let label: String = recipe.owner.chars().take(LABEL_MAX_BYTES).collect();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": recipe.namespace,
            "labels": {PULLER_LABEL: label.trim_end_matches(|c: char| !c.is_ascii_alphanumeric())},
            "ownerReferences": [{
                "apiVersion": IN_PLACE_UPGRADE.api_version(),
                "kind": IN_PLACE_UPGRADE.kind,
                "name": recipe.owner,
                "uid": recipe.uid,
                "controller": true,
            }],
        },
        "spec": pod_spec,
    })
}
