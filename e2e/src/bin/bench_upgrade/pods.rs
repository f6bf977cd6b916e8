//! What a watch has seen of pods that are upgraded: which image each serves, since when it is out, and how long that took.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt;
use springtide_e2e::bench::lives::Belled;
use springtide_e2e::oracle::feed::{Feed, Fold};
use springtide_e2e::upgrade::pods::{Identity, is_true};
use springtide_e2e::upgrade::workload::CONTAINER;
use tokio::sync::Notify;

/// A watch on the pods of a namespace.
pub(crate) type PodFeed = Feed<Pods>;

/// A change of the image of a pod.
#[derive(Clone, Debug)]
struct Change {
    since: Instant,
    /// The container that ran when it was made.
    replaced: String,
}

/// A pod as last seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Life {
    /// Its name.
    pub(crate) name: String,
    /// Whether its condition Ready is True.
    pub(crate) is_ready: bool,
    /// The image that it serves: it is ready, and a container of that image runs.
    pub(crate) serves: Option<String>,
    /// Image of its spec.
    image: String,
    container: String,
    change: Option<Change>,
    out_since: Option<Instant>,
    restarted_after: Option<f64>,
    identity: Option<Identity>,
    bell: Arc<Notify>,
}

impl Life {
    /// Whether a container of this image runs, ready or not.
    pub(crate) fn runs(&self, image: &str) -> bool {
        self.image == image && self.change.is_none()
    }

    /// Takes in the pod as it is now; gives how long it was out, if that is over.
    fn take(&mut self, pod: &Pod, now: Instant) -> Option<Outage> {
        let image = image_of(pod).unwrap_or_default();
        let container = running(pod).unwrap_or_default();
        if !self.image.is_empty() && self.image != image {
            self.change = Some(Change { since: now, replaced: self.container.clone() });
        }
        let is_another = |change: &mut Change| !container.is_empty() && container != change.replaced;
        if let Some(change) = self.change.take_if(is_another) {
            self.restarted_after = Some((now - change.since).as_secs_f64());
        }
        let was_ready = std::mem::replace(&mut self.is_ready, is_true(pod, "Ready"));
        if was_ready && !self.is_ready {
            self.out_since = Some(now);
        }
        let since = self.out_since.take_if(|_| self.is_ready);
        let outage = since.map(|since| Outage {
            seconds: (now - since).as_secs_f64(),
            restarted_after: self.restarted_after.take(),
        });
        self.name = pod.name_any();
        self.identity = Identity::of(pod);
        self.container = container;
        self.image = image;
        outage
    }
}

/// A time in which a pod was not ready, having been so before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Outage {
    /// From Ready False to Ready True, in seconds.
    pub(crate) seconds: f64,
    /// From the change of its image to the new container, in seconds, if that was in this time.
    pub(crate) restarted_after: Option<f64>,
}

/// All pods seen so far, gone ones left out.
#[derive(Debug, Default)]
pub(crate) struct Pods {
    lives: HashMap<String, Life>,
    /// When pods came to serve an image, by the image, in their order.
    served: HashMap<String, Vec<Instant>>,
    outages: Vec<Outage>,
    lists: usize,
}

impl Pods {
    /// The live pods, by UID.
    pub(crate) fn lives(&self) -> impl Iterator<Item = (&String, &Life)> {
        self.lives.iter()
    }

    /// What makes each live pod that has started the same pod, by its UID.
    pub(crate) fn identities(&self) -> HashMap<String, Identity> {
        let identity = |(uid, life): (&String, &Life)| Some((uid.clone(), life.identity.clone()?));
        self.lives.iter().filter_map(identity).collect()
    }

    /// When pods came to serve an image, in the order in which they did.
    pub(crate) fn served(&self, image: &str) -> &[Instant] {
        self.served.get(image).map_or(&[], Vec::as_slice)
    }

    /// Times in which pods were out that are over, in their order.
    pub(crate) fn outages(&self) -> &[Outage] {
        &self.outages
    }

    /// How often the watch had to begin anew: what was in between was not seen.
    pub(crate) fn gaps(&self) -> usize {
        self.lists.saturating_sub(1)
    }
}

impl Belled for Pods {
    type Thing = Life;

    fn thing(&self, uid: &str) -> Option<&Life> {
        self.lives.get(uid)
    }

    fn bell(life: &Life) -> &Arc<Notify> {
        &life.bell
    }
}

impl Fold for Pods {
    type Object = Pod;

    fn apply(&mut self, pod: Pod) {
        let (Some(uid), now) = (pod.uid(), Instant::now()) else { return };
        let life = self.lives.entry(uid).or_default();
        self.outages.extend(life.take(&pod, now));
        let serves = (life.is_ready && life.change.is_none() && !life.container.is_empty())
            .then(|| life.image.clone());
        if let Some(image) = serves.as_ref().filter(|image| life.serves.as_ref() != Some(*image)) {
            self.served.entry(image.clone()).or_default().push(now);
        }
        life.serves = serves;
        life.bell.notify_waiters();
    }

    fn delete(&mut self, pod: &Pod) {
        if let Some(uid) = pod.uid() {
            self.lives.remove(&uid);
        }
    }

    fn relisted(&mut self, _: &[Pod]) {
        self.lists += 1;
    }

    fn describe(&self) -> String {
        let some = self.lives.values().take(10).map(|life| format!("{life:?}\n"));
        format!("{} pods, of them:\n{}", self.lives.len(), some.collect::<String>())
    }
}

fn image_of(pod: &Pod) -> Option<String> {
    let containers = &pod.spec.as_ref()?.containers;
    containers.iter().find(|container| container.name == CONTAINER)?.image.clone()
}

/// The identity of the container that is upgraded, if it runs.
fn running(pod: &Pod) -> Option<String> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    let status = statuses.iter().find(|status| status.name == CONTAINER);
    let runs = |status: &&ContainerStatus| status.state.as_ref().is_some_and(|state| state.running.is_some());
    status.filter(runs)?.container_id.clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(image: &str, container: Option<&str>, ready: &str) -> Pod {
        let state = if container.is_some() { json!({"running": {}}) } else { json!({"waiting": {}}) };
        serde_json::from_value(json!({
            "metadata": {"name": "web-1", "uid": "1"},
            "spec": {"nodeName": "node-0", "containers": [{"name": CONTAINER, "image": image}]},
            "status": {
                "podIP": "10.0.0.1",
                "conditions": [{"type": "Ready", "status": ready}],
                "containerStatuses": [{
                    "name": CONTAINER, "image": "sha256:of-some-name", "imageID": "", "ready": true,
                    "restartCount": 0, "containerID": container, "state": state,
                }],
            },
        }))
        .unwrap()
    }

    #[test]
    fn a_pod_serves_an_image_when_another_container_runs_than_before_and_it_is_ready() {
        let mut pods = Pods::default();
        let mut seen = |image: &str, container, ready| {
            pods.apply(pod(image, container, ready));
            let life = pods.thing("1").unwrap();
            (life.serves.clone(), life.runs(image))
        };
        let serves = |image: &str| Some(image.to_owned());
        assert_eq!(seen("v1", None, "False"), (None, true), "nothing has been changed");
        assert_eq!(seen("v1", Some("a"), "True"), (serves("v1"), true));
        // Ready still, with the old container.
        assert_eq!(seen("v2", Some("a"), "True"), (None, false));
        assert_eq!(seen("v2", None, "False"), (None, false));
        assert_eq!(seen("v2", Some("b"), "False"), (None, true));
        assert_eq!(seen("v2", Some("b"), "True"), (serves("v2"), true));
        assert_eq!((pods.served("v1").len(), pods.served("v2").len(), pods.served("v3").len()), (1, 1, 0));
        let outages = pods.outages();
        assert!(outages.len() == 1 && outages[0].restarted_after.is_some(), "{outages:?}");
        let identity = Identity { uid: "1".to_owned(), ip: "10.0.0.1".to_owned(), node: "node-0".to_owned() };
        assert_eq!(pods.identities(), HashMap::from([("1".to_owned(), identity)]));
        pods.delete(&pod("v2", Some("b"), "True"));
        assert_eq!(pods.lives().count(), 0);
    }

    #[test]
    fn a_pod_that_was_never_ready_is_not_out() {
        let mut pods = Pods::default();
        for (container, ready) in [(None, "False"), (Some("a"), "False"), (Some("a"), "True")] {
            pods.apply(pod("v1", container, ready));
        }
        assert!(pods.outages().is_empty());
    }
}
