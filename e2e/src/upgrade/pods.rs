//! Every pod of a namespace with a native owner: whether it stays the same pod, and when it is out of traffic.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt;

use super::workload::CONTAINER;
use super::{GATE, PULLER_PREFIX, REVISION_LABEL};
use crate::oracle::feed::{Feed, Fold};

/// A watch on the pods of one namespace.
pub type PodFeed = Feed<Pods>;

/// What makes a pod the same pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// UID of the pod.
    pub uid: String,
    /// Its address.
    pub ip: String,
    /// Node it is bound to.
    pub node: String,
}

impl Identity {
    /// Of a pod; `None` before it has started.
    #[must_use]
    pub fn of(pod: &Pod) -> Option<Self> {
        let status = pod.status.as_ref()?;
        let node = pod.spec.as_ref()?.node_name.clone()?;
        Some(Self { uid: pod.uid()?, ip: status.pod_ip.clone()?, node })
    }
}

/// A pod as last seen, and what was seen of it before.
#[derive(Clone, Debug)]
pub struct Life {
    /// The pod.
    pub pod: Pod,
    /// Whether it is gone.
    pub gone: bool,
    /// Whether it was ready at some time.
    pub was_ready: bool,
    /// Whether it is out of traffic or not yet what its spec says, having been ready before.
    pub is_out: bool,
    /// How often it was taken out of traffic by its gate.
    pub drains: usize,
    /// Images of [`CONTAINER`] in its spec, in their order.
    pub images: Vec<String>,
}

impl Life {
    /// Name of the pod.
    #[must_use]
    pub fn name(&self) -> String {
        self.pod.name_any()
    }

    /// What makes it the same pod; `None` before it has started.
    #[must_use]
    pub fn identity(&self) -> Option<Identity> {
        Identity::of(&self.pod)
    }

    /// Present, and not being deleted.
    #[must_use]
    pub fn is_live(&self) -> bool {
        !self.gone && self.pod.metadata.deletion_timestamp.is_none()
    }

    /// Whether its condition Ready is True.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        is_true(&self.pod, "Ready")
    }

    /// Status of the container that is upgraded.
    #[must_use]
    pub fn container(&self) -> Option<&ContainerStatus> {
        status_of(&self.pod)
    }

    /// Runs this image, by its spec and by its status.
    #[must_use]
    pub fn runs(&self, image: &str) -> bool {
        let running = |container: &ContainerStatus| {
            container.image == image && container.state.as_ref().is_some_and(|state| state.running.is_some())
        };
        self.image() == Some(image) && self.container().is_some_and(running)
    }

    /// Image of [`CONTAINER`] in its spec.
    #[must_use]
    pub fn image(&self) -> Option<&str> {
        self.images.last().map(String::as_str)
    }

    /// Restarts of [`CONTAINER`].
    #[must_use]
    pub fn restarts(&self) -> i32 {
        self.container().map_or(0, |container| container.restart_count)
    }

    /// The revision that its label names.
    #[must_use]
    pub fn revision(&self) -> &str {
        self.pod.labels().get(REVISION_LABEL).map_or("", String::as_str)
    }
}

/// A change of the image of a pod's spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Name of the pod.
    pub pod: String,
    /// Its UID.
    pub uid: String,
    /// The version of the pod with the new image: larger than those of all objects that were written before.
    pub version: u64,
}

/// All pods seen so far, gone ones too, but for those by which images get to nodes.
#[derive(Debug, Default)]
pub struct Pods {
    lists: usize,
    lives: BTreeMap<String, Life>,
    most_out: BTreeMap<Option<String>, usize>,
    changes: Vec<Change>,
    violations: Vec<String>,
}

impl Pods {
    /// Pods of a workload that are there and are not being deleted, by name.
    #[must_use]
    pub fn of(&self, workload: &str) -> Vec<&Life> {
        let mut lives: Vec<_> =
            self.lives.values().filter(|life| life.is_live() && is_of(life, workload)).collect();
        lives.sort_by_key(|life| life.name());
        lives
    }

    /// The newest pod of a name, gone or not.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Life> {
        let created = |life: &&Life| life.pod.metadata.creation_timestamp.clone().map(|time| time.0);
        self.lives.values().filter(|life| life.name() == name).max_by_key(|life| (!life.gone, created(life)))
    }

    /// What makes each live pod of a workload the same, by its name.
    #[must_use]
    pub fn identities(&self, workload: &str) -> BTreeMap<String, Identity> {
        let identity = |life: &&Life| Some((life.name(), life.identity()?));
        self.of(workload).iter().filter_map(identity).collect()
    }

    /// Most pods at one time, since [`Pods::count_anew`], that were out of traffic or not yet what their spec says,
    /// those left out that had not been ready before.
    #[must_use]
    pub fn most_out(&self) -> usize {
        self.most_out.get(&None).copied().unwrap_or_default()
    }

    /// As [`Pods::most_out`], of one node: the most of any.
    #[must_use]
    pub fn most_out_of_a_node(&self) -> usize {
        let of_nodes = self.most_out.iter().filter(|(node, _)| node.is_some());
        of_nodes.map(|(_, count)| *count).max().unwrap_or_default()
    }

    /// Changes of images in their order since [`Pods::count_anew`].
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Forgets the counts of the past.
    pub fn count_anew(&mut self) {
        self.most_out.clear();
        self.changes.clear();
        for life in self.lives.values_mut() {
            life.drains = 0;
        }
        self.count();
    }

    /// What may never be seen: a pod that moves, or a gated one that is changed in traffic.
    #[must_use]
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// # Errors
    /// The live pods of a workload are not the ones they were, or the watch may have missed something.
    pub fn ensure_same(&self, workload: &str, before: &BTreeMap<String, Identity>) -> Result<()> {
        ensure!(self.lists <= 1, "the oracle has missed events: it relisted {} times", self.lists - 1);
        let now = self.identities(workload);
        ensure!(now == *before, "pods of {workload} are not the same: {before:?} became {now:?}");
        Ok(())
    }

    fn count(&mut self) {
        let mut out: BTreeMap<Option<String>, usize> = BTreeMap::new();
        for life in self.lives.values().filter(|life| !life.gone && life.is_out) {
            let node = life.pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
            for key in [None, Some(node.unwrap_or_default())] {
                *out.entry(key).or_default() += 1;
            }
        }
        for (key, count) in out {
            let most = self.most_out.entry(key).or_default();
            *most = count.max(*most);
        }
    }

    /// What no pod may do from one version to the next.
    fn judge(&mut self, before: &Life, after: &Life) {
        // One that ends may lose its address first.
        if let (Some(old), Some(new)) = (before.identity(), after.identity())
            && old != new
        {
            self.violations.push(format!("{} moved: {old:?} became {new:?}", after.name()));
        }
        let in_traffic = is_gated(&before.pod) && is_true(&before.pod, GATE) && before.is_ready();
        if before.image() != after.image() && in_traffic {
            self.violations.push(format!("{} was changed in traffic: {:?}", after.name(), after.images));
        }
    }
}

impl Fold for Pods {
    type Object = Pod;

    fn apply(&mut self, pod: Pod) {
        let Some(uid) = pod.uid().filter(|_| !pod.name_any().starts_with(PULLER_PREFIX)) else { return };
        let before = self.lives.remove(&uid);
        let mut life = match &before {
            Some(before) => Life { pod, ..before.clone() },
            None => Life { pod, gone: false, was_ready: false, is_out: false, drains: 0, images: Vec::new() },
        };
        if let Some(image) = image_of(&life.pod).filter(|image| life.image() != Some(image.as_str())) {
            life.images.push(image);
        }
        life.was_ready |= life.is_ready();
        life.is_out = life.was_ready && is_out(&life.pod);
        if let Some(before) = &before {
            let closed = |pod: &Pod| is_gated(pod) && is_false(pod, GATE);
            life.drains += usize::from(closed(&life.pod) && !closed(&before.pod));
            if before.image() != life.image() {
                let version = version(&life.pod);
                self.changes.push(Change { pod: life.name(), uid: uid.clone(), version });
            }
            self.judge(before, &life);
        }
        self.lives.insert(uid, life);
        self.count();
    }

    fn delete(&mut self, pod: &Pod) {
        if let Some(life) = pod.uid().and_then(|uid| self.lives.get_mut(&uid)) {
            life.gone = true;
        }
    }

    fn relisted(&mut self, present: &[Pod]) {
        self.lists += 1;
        let present: BTreeSet<String> = present.iter().filter_map(ResourceExt::uid).collect();
        for (uid, life) in &mut self.lives {
            life.gone |= !present.contains(uid);
        }
    }

    fn describe(&self) -> String {
        let mut text = format!("{} lists; most out {:?}\n", self.lists, self.most_out);
        for life in self.lives.values().filter(|life| !life.gone).take(20) {
            let gate = is_true(&life.pod, GATE);
            text += &format!(
                "{}: images {:?}, ready {}, gate {gate}, {} restarts, {} drains, revision {:?}, runs {:?}\n",
                life.name(),
                life.images,
                life.is_ready(),
                life.restarts(),
                life.drains,
                life.revision(),
                life.container().map(|container| (&container.image, &container.state)),
            );
        }
        text
    }
}

/// By the label that [`Workload`](super::Workload) gives to pods.
fn is_of(life: &Life, workload: &str) -> bool {
    life.pod.labels().get("app").is_some_and(|name| name == workload)
}

/// The version of an object as a number: those of one cluster count in the order of its writes (KEP-5504).
pub(super) fn version(object: &impl ResourceExt) -> u64 {
    object.resource_version().and_then(|version| version.parse().ok()).unwrap_or_default()
}

/// Whether a condition of a pod is True.
#[must_use]
pub fn is_true(pod: &Pod, type_: &str) -> bool {
    has_status(pod, type_, "True")
}

/// Whether a condition of a pod is False.
#[must_use]
pub fn is_false(pod: &Pod, type_: &str) -> bool {
    has_status(pod, type_, "False")
}

fn has_status(pod: &Pod, type_: &str, status: &str) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == type_ && condition.status == status)
}

fn is_gated(pod: &Pod) -> bool {
    let gates = pod.spec.as_ref().and_then(|spec| spec.readiness_gates.as_ref());
    gates.into_iter().flatten().any(|gate| gate.condition_type == GATE)
}

fn image_of(pod: &Pod) -> Option<String> {
    let containers = &pod.spec.as_ref()?.containers;
    containers.iter().find(|container| container.name == CONTAINER)?.image.clone()
}

fn status_of(pod: &Pod) -> Option<&ContainerStatus> {
    let containers = pod.status.as_ref()?.container_statuses.as_ref()?;
    containers.iter().find(|container| container.name == CONTAINER)
}

/// Not ready, about to be, or still running what its spec does not say any more.
fn is_out(pod: &Pod) -> bool {
    let is_old = status_of(pod).is_some_and(|status| Some(&status.image) != image_of(pod).as_ref());
    !is_true(pod, "Ready") || (is_gated(pod) && !is_true(pod, GATE)) || is_old
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A gated pod by its image in spec and status, and its gate and readiness.
    fn pod(uid: &str, images: [&str; 2], gate: &str, ready: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": format!("web-{uid}"), "uid": uid, "labels": {"app": "web"}},
            "spec": {
                "nodeName": "node", "readinessGates": [{"conditionType": GATE}],
                "containers": [{"name": CONTAINER, "image": images[0]}],
            },
            "status": {
                "podIP": format!("10.0.0.{uid}"),
                "conditions": [{"type": GATE, "status": gate}, {"type": "Ready", "status": ready}],
                "containerStatuses": [{
                    "name": CONTAINER, "image": images[1], "imageID": "", "ready": true, "restartCount": 0,
                    "state": {"running": {}},
                }],
            },
        }))
        .unwrap()
    }

    fn seen(versions: impl IntoIterator<Item = Pod>) -> Pods {
        let mut pods = Pods::default();
        pods.relisted(&[]);
        versions.into_iter().for_each(|pod| pods.apply(pod));
        pods
    }

    const V1: [&str; 2] = ["v1", "v1"];
    const CHANGED: [&str; 2] = ["v2", "v1"];
    const V2: [&str; 2] = ["v2", "v2"];

    #[test]
    fn a_pod_is_out_from_its_gate_to_its_readiness() {
        let mut pods = seen([
            pod("1", V1, "True", "False"),
            pod("1", V1, "True", "True"),
            pod("2", V1, "True", "True"),
            pod("1", V1, "False", "True"),
            pod("1", CHANGED, "False", "False"),
        ]);
        assert_eq!((pods.most_out(), pods.most_out_of_a_node()), (1, 1), "one that starts is not out");
        pods.apply(pod("2", V1, "False", "True"));
        assert_eq!(pods.most_out(), 2);
        pods.apply(pod("1", V2, "False", "False"));
        pods.apply(pod("1", V2, "True", "True"));
        assert_eq!(pods.of("web")[0].drains, 1);
        assert!(pods.of("web")[0].runs("v2") && !pods.of("web")[1].runs("v2"));
        assert_eq!(pods.changes().iter().map(|change| &change.pod).collect::<Vec<_>>(), ["web-1"]);
        assert_eq!(pods.violations(), [""; 0]);
        pods.count_anew();
        assert_eq!((pods.most_out(), pods.of("web")[0].drains), (1, 0));
        assert!(pods.changes().is_empty());
    }

    #[test]
    fn a_change_in_traffic_and_a_move_are_violations() {
        let pods = seen([pod("1", V1, "True", "True"), pod("1", CHANGED, "True", "True")]);
        assert!(pods.violations()[0].contains("changed in traffic"), "{:?}", pods.violations());
        let mut moved = pod("1", V1, "True", "True");
        moved.status.as_mut().unwrap().pod_ip = Some("10.0.0.9".to_owned());
        let pods = seen([pod("1", V1, "True", "True"), moved]);
        assert!(pods.violations()[0].contains("moved"), "{:?}", pods.violations());
    }

    #[test]
    fn another_pod_of_a_name_is_not_the_same() {
        let mut pods = seen([pod("1", V1, "True", "True")]);
        let before = pods.identities("web");
        pods.ensure_same("web", &before).unwrap();
        let mut other = pod("2", V1, "True", "True");
        other.metadata.name = Some("web-1".to_owned());
        pods.delete(&pod("1", V1, "True", "True"));
        pods.apply(other);
        pods.ensure_same("web", &before).unwrap_err();
        assert_eq!(pods.named("web-1").and_then(|life| life.pod.uid()).as_deref(), Some("2"));
    }
}
