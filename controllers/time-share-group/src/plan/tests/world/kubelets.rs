//! Kubelets, which start pods and resize them, and the controller of endpoint slices.

use super::{World, condition};
use crate::allocator::kubelet::Kubelet;
use crate::fixtures::at;
use crate::names::TIME_SHARE_TRAFFIC;
use serde_json::{Value, json};
use std::collections::BTreeSet;

impl World {
    /// All others act once; whether any has done anything.
    pub(in crate::plan::tests) fn others_act(&mut self) -> bool {
        let mut acted = self.deployments_act();
        acted |= self.schedule();
        for name in self.nodes.keys().cloned().collect::<Vec<_>>() {
            let Some(mut kubelet) = self.nodes.remove(&name) else { continue };
            acted |= self.kubelet_acts(&name, &mut kubelet);
            self.nodes.insert(name, kubelet);
        }
        // The scheduler is quicker than anybody: it sees what kubelets have let go of before the next plan does.
        acted |= self.schedule();
        acted | self.slices_follow()
    }

    /// What was allocated a moment ago is in force by now, and specs are looked at.
    fn kubelet_acts(&mut self, node: &str, kubelet: &mut Kubelet) -> bool {
        let mut acted = false;
        let mine: Vec<String> = self
            .pods
            .iter()
            .filter(|(_, pod)| pod["spec"]["nodeName"] == node && pod["status"]["phase"] != "Failed")
            .map(|(name, _)| name.clone())
            .collect();
        let there: BTreeSet<&str> =
            mine.iter().filter_map(|name| self.pods[name]["metadata"]["uid"].as_str()).collect();
        let gone: Vec<String> =
            kubelet.pods().filter(|uid| !there.contains(uid)).map(str::to_owned).collect();
        for uid in gone {
            kubelet.remove(&uid);
            acted = true;
        }
        for uid in kubelet.under_way() {
            if !self.oddities.slow.contains(uid.trim_start_matches("uid-")) {
                acted |= kubelet.put_in_force(&uid);
            }
        }
        if self.oddities.deaf.contains(node) {
            kubelet.miss_news();
        }
        let now = at(self.now);
        // A watch brings each version, and not the last one alone: a nudge is two of them.
        let is_here = |pod: &Value| pod["spec"]["nodeName"] == node;
        let (own, others) = std::mem::take(&mut self.resized).into_iter().partition::<Vec<_>, _>(is_here);
        self.resized = others;
        for pod in own.iter().filter(|pod| mine.iter().any(|name| pod["metadata"]["name"] == **name)) {
            kubelet.look(pod, now);
        }
        let (stay, away): (Vec<&String>, Vec<&String>) =
            mine.iter().partition(|name| kubelet.look(&self.pods[*name], now));
        kubelet.look_again(now);
        let mut told: Vec<(String, Value)> = Vec::new();
        for name in away {
            let status = json!({"phase": "Failed", "reason": "OutOfcpu", "conditions": []});
            told.push((name.clone(), status));
        }
        for name in stay {
            let pod = &self.pods[name];
            let status = self.told_of(pod, kubelet);
            if status != pod["status"] {
                told.push((name.clone(), status));
            }
        }
        for (name, status) in told {
            acted = true;
            let version = self.next_version();
            let Some(pod) = self.pods.get_mut(&name) else { continue };
            pod["status"] = status;
            pod["metadata"]["resourceVersion"] = json!(version);
        }
        acted
    }

    /// The status that a kubelet gives a pod.
    fn told_of(&self, pod: &Value, kubelet: &Kubelet) -> Value {
        let now = at(self.now).to_string();
        let mut whole = pod.clone();
        if whole["status"]["containerStatuses"].is_null() {
            whole["status"] = started(pod, &now);
        }
        let mut status = kubelet.status(&whole);
        let is_up = !self.is_down(pod, &status);
        let gates = pod["spec"]["readinessGates"].as_array().into_iter().flatten();
        let mut gates = gates.filter_map(|gate| gate["conditionType"].as_str());
        let are_open =
            gates.all(|gate| condition(&status, gate).is_some_and(|found| found["status"] == "True"));
        set_condition(&mut status, "ContainersReady", is_up, &now);
        set_condition(&mut status, "Ready", is_up && are_open, &now);
        status
    }

    /// Whether its containers are not ready at the size that is in force.
    fn is_down(&self, pod: &Value, status: &Value) -> bool {
        let Some(deployment) = self.deployment_of(pod) else { return false };
        let in_force = &status["containerStatuses"][0]["resources"]["requests"]["cpu"];
        self.oddities.fragile.contains(&deployment.name) && *in_force != deployment.peak
    }

    /// Services list the pods that are ready, and those by the label only with it.
    fn slices_follow(&mut self) -> bool {
        if self.oddities.stale_slices {
            return false;
        }
        let listed = |pod: &&Value| {
            let Some(deployment) = self.deployment_of(pod) else { return false };
            let is_ready =
                condition(&pod["status"], "Ready").is_some_and(|condition| condition["status"] == "True");
            let is_selected = pod["metadata"]["labels"][TIME_SHARE_TRAFFIC.label] == "true";
            is_ready && (is_selected || !deployment.is_by_label)
        };
        let uid = |pod: &Value| pod["metadata"]["uid"].as_str().map(str::to_owned);
        let listed: BTreeSet<String> = self.pods.values().filter(listed).filter_map(uid).collect();
        let is_change = listed != self.listed;
        self.listed = listed;
        is_change
    }
}

/// The status of a pod that its kubelet has just started.
fn started(pod: &Value, now: &str) -> Value {
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let status = |container: &Value| {
        json!({
            "name": container["name"], "containerID": format!("containerd://{}", pod["metadata"]["uid"]),
            "imageID": "reg/app@sha256:1", "ready": true, "restartCount": 0,
            "state": {"running": {"startedAt": now}},
        })
    };
    json!({
        "phase": "Running", "qosClass": "Burstable", "conditions": pod["status"]["conditions"],
        "containerStatuses": containers.map(status).collect::<Vec<_>>(),
    })
}

fn set_condition(status: &mut Value, type_: &str, holds: bool, now: &str) {
    let word = if holds { "True" } else { "False" };
    let before = condition(status, type_).filter(|before| before["status"] == word);
    if before.is_some() {
        return;
    }
    let fresh = json!({"type": type_, "status": word, "lastTransitionTime": now});
    if let Some(conditions) = status["conditions"].as_array_mut() {
        conditions.retain(|condition| condition["type"] != type_);
        conditions.push(fresh);
    }
}
