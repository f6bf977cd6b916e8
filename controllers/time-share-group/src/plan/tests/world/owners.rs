//! The controllers of Deployments, and the scheduler.

use super::{World, view};
use crate::fixtures::{NAMESPACE, at};
use crate::names::TIME_SHARE_TRAFFIC;
use crate::sizes::Demand;
use serde_json::{Value, json};
use springtide_plumbing::workloads::amounts::Pair;
use springtide_plumbing::workloads::pod::PodView;
use std::collections::BTreeMap;

/// A Deployment, with the one ReplicaSet that has its pods.
#[derive(Clone, Debug)]
pub(in crate::plan::tests) struct Deployment {
    /// Its name, which is that of its member.
    pub(in crate::plan::tests) name: String,
    /// Pods that it is to have.
    pub(in crate::plan::tests) replicas: usize,
    /// From what it makes them: at valley size.
    pub(in crate::plan::tests) template: Value,
    /// What its first container requests at peak.
    pub(in crate::plan::tests) peak: Value,
    /// Whether its Service selects by the label.
    pub(in crate::plan::tests) is_by_label: bool,
}

impl Deployment {
    /// That of a member.
    pub(super) fn of(member: &Value, replicas: usize) -> Self {
        let name = member["targetRef"]["name"].as_str().unwrap().to_owned();
        let container = |own: &Value| json!({"name": own["name"], "image": "app:1", "resources": {"requests": own["valley"]}});
        let containers: Vec<Value> = member["containers"].as_array().unwrap().iter().map(container).collect();
        let mode = member["traffic"]["mode"].as_str().unwrap_or("None");
        let mut labels = json!({"app": name});
        let mut gates = json!([]);
        match mode {
            "ServiceLabel" => labels[TIME_SHARE_TRAFFIC.label] = json!("false"),
            "ReadinessGate" => gates = json!([{"conditionType": TIME_SHARE_TRAFFIC.gate}]),
            _ => {}
        }
        Self {
            template: json!({
                "metadata": {"labels": labels},
                "spec": {"readinessGates": gates, "containers": containers},
            }),
            peak: member["containers"][0]["peak"]["cpu"].clone(),
            is_by_label: mode == "ServiceLabel",
            name,
            replicas,
        }
    }

    /// UID of its ReplicaSet.
    fn owner(&self) -> String {
        format!("{}-rs", self.name)
    }
}

impl World {
    /// The Deployment that a pod is of.
    pub(super) fn deployment_of(&self, pod: &Value) -> Option<&Deployment> {
        let owner = pod["metadata"]["ownerReferences"][0]["uid"].as_str()?;
        self.deployments.get(owner.strip_suffix("-rs")?)
    }

    /// Names of a Deployment's pods that have not ended, the oldest first.
    pub(in crate::plan::tests) fn pods_of(&self, deployment: &str) -> Vec<String> {
        let is_own = |pod: &&Value| {
            let owner = self.deployment_of(pod);
            owner.is_some_and(|owner| owner.name == deployment) && pod["status"]["phase"] != "Failed"
        };
        let mut pods: Vec<&Value> = self.pods.values().filter(is_own).collect();
        pods.sort_by_key(|pod| {
            let meta = &pod["metadata"];
            (meta["creationTimestamp"].to_string(), meta["name"].to_string())
        });
        pods.iter().map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    }

    /// Deployments have as many pods as they are to have; of more the youngest go. What has failed goes too.
    pub(super) fn deployments_act(&mut self) -> bool {
        let mut acted = false;
        let failed: Vec<String> = self
            .pods
            .iter()
            .filter(|(_, pod)| pod["status"]["phase"] == "Failed")
            .map(|(name, _)| name.clone())
            .collect();
        for name in failed {
            self.pods.remove(&name);
            acted = true;
        }
        for deployment in self.deployments.values().cloned().collect::<Vec<_>>() {
            let mut own = self.pods_of(&deployment.name);
            while own.len() > deployment.replicas {
                self.pods.remove(&own.pop().unwrap());
                acted = true;
            }
            for _ in own.len()..deployment.replicas {
                self.births += 1;
                let name = format!("{}-{:04}", deployment.name, self.births);
                let pod = self.born(&name, &deployment);
                self.pods.insert(name, pod);
                acted = true;
            }
        }
        acted
    }

    fn born(&mut self, name: &str, deployment: &Deployment) -> Value {
        let owner = deployment.owner();
        let template = &deployment.template;
        json!({
            "metadata": {
                "name": name, "namespace": NAMESPACE, "uid": format!("uid-{name}"), "generation": 1,
                "resourceVersion": self.next_version(), "creationTimestamp": at(self.now).to_string(),
                "labels": template["metadata"]["labels"],
                "ownerReferences": [{
                    "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": owner, "uid": owner, "controller": true,
                }],
            },
            "spec": template["spec"],
            "status": {"phase": "Pending", "conditions": []},
        })
    }

    /// A pod of somebody else that is to run on a node, once there is room for it.
    pub(in crate::plan::tests) fn add_third(&mut self, name: &str, node: &str, cpu: i64) {
        let resources = json!({"requests": {"cpu": format!("{cpu}m")}});
        let pod = json!({
            "metadata": {
                "name": name, "namespace": NAMESPACE, "uid": format!("uid-{name}"), "generation": 1,
                "resourceVersion": self.next_version(), "creationTimestamp": at(self.now).to_string(),
            },
            "spec": {"nodeSelector": {"node": node}, "containers": [{"name": "main", "resources": resources}]},
            "status": {"phase": "Pending", "conditions": []},
        });
        self.pods.insert(name.to_owned(), pod);
    }

    /// Pods get a node that has room for them, by what all pods there ask for, were allocated and have; each the one with the
    /// fewest of its own kind.
    pub(super) fn schedule(&mut self) -> bool {
        let waiting: Vec<String> = self
            .pods
            .iter()
            .filter(|(_, pod)| pod["spec"]["nodeName"].is_null())
            .map(|(name, _)| name.clone())
            .collect();
        if waiting.is_empty() {
            return false;
        }
        let mut held: BTreeMap<String, Demand> = BTreeMap::new();
        let mut own: BTreeMap<(String, String), usize> = BTreeMap::new();
        for pod in self.pods.values().filter(|pod| pod["status"]["phase"] != "Failed") {
            let Some(node) = pod["spec"]["nodeName"].as_str() else { continue };
            *held.entry(node.to_owned()).or_default() += Demand::from(view::<PodView>(pod).requests);
            *own.entry((node.to_owned(), kind(pod))).or_default() += 1;
        }
        let mut acted = false;
        for name in waiting {
            let pod = self.pods[&name].clone();
            let wanted = asked(&pod);
            let selected = pod["spec"]["nodeSelector"]["node"].as_str();
            let room = |node: &str| self.allocatable - held.get(node).copied().unwrap_or_default();
            let found = self
                .nodes
                .keys()
                .filter(|node| selected.is_none_or(|selected| selected == *node) && wanted.fits(room(node)))
                .min_by_key(|node| own.get(&((*node).clone(), kind(&pod))).copied().unwrap_or_default())
                .cloned();
            let Some(node) = found else { continue };
            *held.entry(node.clone()).or_default() += wanted;
            *own.entry((node.clone(), kind(&pod))).or_default() += 1;
            let version = self.next_version();
            let Some(pod) = self.pods.get_mut(&name) else { continue };
            pod["spec"]["nodeName"] = json!(node);
            pod["metadata"]["resourceVersion"] = json!(version);
            acted = true;
        }
        acted
    }
}

/// By what pods are spread.
fn kind(pod: &Value) -> String {
    pod["metadata"]["ownerReferences"][0]["uid"].as_str().unwrap_or_default().to_owned()
}

fn asked(pod: &Value) -> Demand {
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    containers.map(|container| Demand::from(Pair::read(&container["resources"]["requests"]))).sum()
}
