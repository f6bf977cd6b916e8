//! Those who act beside us: the kubelet, and the controllers of ReplicaSets, Deployments and StatefulSets.

use super::{World, condition, revision_json};
use crate::fixtures::at;
use serde_json::{Value, json};
use springtide_plumbing::workloads::content::Digest;
use springtide_plumbing::workloads::names::{CONTROLLER_REVISION_HASH, UPGRADE_TRAFFIC};
use springtide_plumbing::workloads::template::Template;

impl World {
    /// The kubelet and the Deployment's controller see what is there, and say so.
    pub(in crate::plan::tests) fn others_act(&mut self) {
        self.replica_set_controller();
        self.stateful_set_controller();
        let names: Vec<String> = self.pods.keys().cloned().collect();
        for name in names {
            self.kubelet(&name);
        }
        if self.stateful_set.is_none() {
            self.deployment_controller();
        }
    }

    /// ReplicaSets have as many pods as they are to have, and say how many that are.
    fn replica_set_controller(&mut self) {
        for name in self.replica_sets.keys().cloned().collect::<Vec<_>>() {
            let set = self.replica_sets[&name].clone();
            let wanted = set["spec"]["replicas"].as_u64().unwrap_or(0);
            while self.owned(&name) < wanted {
                self.births += 1;
                let pod = format!("{name}-new-{:03}", self.births);
                self.make_pod(&pod, "ReplicaSet", &name, &set["spec"]["template"]);
            }
            let generation = set["metadata"].get("generation").cloned().unwrap_or(json!(0));
            let status = json!({"replicas": self.owned(&name), "observedGeneration": generation});
            let version = self.next_version();
            let Some(set) = self.replica_sets.get_mut(&name).filter(|set| set["status"] != status) else {
                continue;
            };
            set["status"] = status;
            set["metadata"]["resourceVersion"] = json!(version);
        }
    }

    fn owned(&self, uid: &str) -> u64 {
        let owned = self.pods.values().filter(|pod| pod["metadata"]["ownerReferences"][0]["uid"] == *uid);
        u64::try_from(owned.count()).unwrap()
    }

    /// A StatefulSet makes its pods one by one, from the revision that their numbers are of; the last one from the partition
    /// on that is of another is deleted, when all others are ready.
    fn stateful_set_controller(&mut self) {
        let Some(set) = self.stateful_set.clone() else { return };
        let (spec, mut status) = (&set["spec"], set["status"].clone());
        let digest = |template: &Value| Template::shared(template).whole;
        let template = &spec["template"];
        let known = self
            .revisions
            .iter()
            .find(|(_, revision)| digest(&revision["data"]["spec"]["template"]) == digest(template))
            .map(|(name, _)| name.clone());
        let update = known.unwrap_or_else(|| {
            let number = self.revisions.len() + 1;
            let name = format!("db-{number}");
            self.revisions.insert(name.clone(), revision_json(&name, number, template));
            name
        });
        let current = status["currentRevision"].as_str().unwrap_or(&update).to_owned();
        let replicas = spec["replicas"].as_u64().unwrap();
        let partition = spec["updateStrategy"]["rollingUpdate"]["partition"].as_u64().unwrap();
        for ordinal in 0..replicas {
            let name = format!("db-{ordinal}");
            if !self.pods.contains_key(&name) {
                let revision = if ordinal < partition { &current } else { &update };
                let mut template = self.revisions[revision]["data"]["spec"]["template"].clone();
                template["metadata"]["labels"][CONTROLLER_REVISION_HASH] = json!(revision);
                self.make_pod(&name, "StatefulSet", "db", &template);
            }
        }
        let label = |pod: &Value| pod["metadata"]["labels"][CONTROLLER_REVISION_HASH].clone();
        let are_ready = self.pods.values().all(is_ready);
        let mut names = (partition..replicas).rev().map(|ordinal| format!("db-{ordinal}"));
        let outdated = names.find(|name| label(&self.pods[name]) != *update);
        if let Some(outdated) = outdated.filter(|_| are_ready) {
            self.deleted_by_others.push(outdated.clone());
            self.pods.remove(&outdated);
        }
        let updated = self.pods.values().filter(|pod| label(pod) == *update).count();
        let is_complete = u64::try_from(updated).unwrap() == replicas && are_ready;
        status["observedGeneration"] = set["metadata"]["generation"].clone();
        status["updateRevision"] = json!(update);
        status["currentRevision"] = json!(if is_complete { &update } else { &current });
        status["updatedReplicas"] = json!(updated);
        if let Some(set) = &mut self.stateful_set {
            set["status"] = status;
        }
    }

    fn kubelet(&mut self, name: &str) {
        let version = self.next_version();
        let now = at(self.now).to_string();
        let Some(pod) = self.pods.get_mut(name) else { return };
        let before = pod["status"].clone();
        let image = pod["spec"]["containers"][0]["image"].clone();
        let runs = before.pointer("/containerStatuses/0/state/running").is_some();
        let is_new = !runs || before["running"] != image;
        // What runs needs no registry any more.
        let is_bad = is_new && self.bad_images.iter().any(|bad| image == **bad);
        let mut status = json!({
            "phase": "Running", "running": image, "qosClass": "BestEffort",
            "observedGeneration": pod["metadata"]["generation"],
        });
        status["containerStatuses"] = if is_bad {
            json!([{"name": "app", "containerID": "", "imageID": "", "restartCount": 0,
                    "state": {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}}])
        } else if is_new {
            json!([{"name": "app", "containerID": format!("containerd://{version}"),
                    "imageID": image_id(image.as_str().unwrap()),
                    "ready": true, "restartCount": 0, "resources": {}, "state": {"running": {"startedAt": now}}}])
        } else {
            before["containerStatuses"].clone()
        };
        let ours = condition(&before, UPGRADE_TRAFFIC.gate).cloned();
        let has_gate = pod["spec"]["readinessGates"].as_array().is_some_and(|gates| !gates.is_empty());
        let is_open = ours.as_ref().is_some_and(|gate| gate["status"] == "True");
        let mut conditions = Vec::new();
        for (type_, holds) in [("ContainersReady", !is_bad), ("Ready", !is_bad && (is_open || !has_gate))] {
            let word = if holds { "True" } else { "False" };
            let old = condition(&before, type_)
                .filter(|old| old["status"] == word && !(is_new && holds && type_ == "ContainersReady"));
            let since = old.map_or_else(|| json!(now), |old| old["lastTransitionTime"].clone());
            conditions.push(json!({"type": type_, "status": word, "lastTransitionTime": since}));
        }
        conditions.extend(ours);
        status["conditions"] = Value::Array(conditions);
        if status != before {
            pod["status"] = status;
            pod["metadata"]["resourceVersion"] = json!(version);
        }
    }

    /// Of a paused Deployment the oldest ReplicaSets without pods go beyond its `revisionHistoryLimit`, the `new` one left
    /// out.
    fn clean_up(&mut self, new: Option<&str>) {
        let spec = &self.deployment["spec"];
        let Some(limit) = spec["revisionHistoryLimit"].as_u64().filter(|_| spec["paused"] == true) else {
            return;
        };
        let mut old: Vec<String> =
            self.replica_sets.keys().filter(|name| Some(name.as_str()) != new).cloned().collect();
        old.sort_by_key(|name| revision(&self.replica_sets[name]));
        let beyond = old.len().saturating_sub(usize::try_from(limit).unwrap());
        for name in old.into_iter().take(beyond) {
            let set = &self.replica_sets[&name];
            if set["spec"]["replicas"] == 0 && set["status"]["replicas"] == 0 {
                self.replica_sets.remove(&name);
            }
        }
    }

    fn deployment_controller(&mut self) {
        let digest = |value: &Value| Template::shared(value).whole;
        let wished = digest(&self.deployment["spec"]["template"]);
        let mut sets: Vec<&Value> = self.replica_sets.values().collect();
        sets.sort_by_key(|set| set["metadata"]["creationTimestamp"].as_str().unwrap_or_default().to_owned());
        let new = sets.iter().find(|set| digest(&set["spec"]["template"]) == wished);
        let new = new.map(|set| set["metadata"]["name"].as_str().unwrap().to_owned());
        assert!(
            self.deployment["spec"]["paused"] == true || new.is_some(),
            "the Deployment's controller would make a ReplicaSet"
        );
        self.clean_up(new.as_deref());
        let mut updated = json!(0);
        if let Some(new) = new {
            let most = self
                .replica_sets
                .iter()
                .filter(|(name, _)| **name != new)
                .map(|(_, set)| revision(set))
                .max();
            let version = self.next_version();
            let set = self.replica_sets.get_mut(&new).unwrap();
            if let Some(most) = most.filter(|most| revision(set) <= *most) {
                set["metadata"]["annotations"]["deployment.kubernetes.io/revision"] =
                    json!((most + 1).to_string());
                set["metadata"]["resourceVersion"] = json!(version);
            }
            updated = set["spec"]["replicas"].clone();
        }
        let replicas = self.deployment["spec"]["replicas"].clone();
        let generation = self.deployment["metadata"]["generation"].clone();
        self.deployment["status"] =
            json!({"observedGeneration": generation, "replicas": replicas, "updatedReplicas": updated});
    }
}

/// The number that says of which revision a ReplicaSet is.
fn revision(set: &Value) -> i64 {
    let text = set["metadata"]["annotations"]["deployment.kubernetes.io/revision"].as_str();
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn is_ready(pod: &Value) -> bool {
    condition(&pod["status"], "Ready").is_some_and(|ready| ready["status"] == "True")
}

/// The image under the name that the runtime knows it by: the same for all names of one image.
fn image_id(image: &str) -> String {
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, digest.to_owned()),
        None => (image, format!("sha256:{0}{0}", Digest::of(image))),
    };
    let repository = name.split(':').next().unwrap();
    format!("docker.io/library/{repository}@{digest}")
}
