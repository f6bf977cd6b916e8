//! What may never be, and what has to be at rest.

use super::{World, condition};
use crate::names::{SKIPPED, TIME_SHARE_TRAFFIC, TRANSITION};
use serde_json::Value;
use springtide_plumbing::workloads::amounts::Pair;

/// Where a pod stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::plan::tests) enum Stage {
    /// At peak size in force, and with traffic.
    Peak,
    /// At valley size in force, and without traffic.
    Valley,
    /// Anything else.
    Between,
}

impl World {
    /// Where a pod stands.
    pub(in crate::plan::tests) fn stage(&self, name: &str) -> Stage {
        let pod = &self.pods[name];
        let serves = serves(pod);
        let peak = self.deployment_of(pod).map(|deployment| cpu(&deployment.peak));
        let asked = cpu(&pod["spec"]["containers"][0]["resources"]["requests"]["cpu"]);
        let in_force = cpu(&pod["status"]["containerStatuses"][0]["resources"]["requests"]["cpu"]);
        let is_resizing = ["PodResizePending", "PodResizeInProgress"]
            .iter()
            .any(|type_| condition(&pod["status"], type_).is_some());
        if is_resizing || asked != in_force {
            Stage::Between
        } else if Some(asked) == peak && serves {
            Stage::Peak
        } else if Some(asked) != peak && !serves {
            Stage::Valley
        } else {
            Stage::Between
        }
    }

    /// How many pods of a Deployment stand so.
    pub(in crate::plan::tests) fn count(&self, deployment: &str, stage: Stage) -> usize {
        self.pods_of(deployment).iter().filter(|name| self.stage(name) == stage).count()
    }

    /// Pods of a Deployment that stand at peak and at valley, and all others.
    pub(in crate::plan::tests) fn stages(&self, deployment: &str) -> [usize; 3] {
        [Stage::Peak, Stage::Valley, Stage::Between].map(|stage| self.count(deployment, stage))
    }

    /// Pods of a Deployment that get traffic.
    pub(in crate::plan::tests) fn serving(&self, deployment: &str) -> usize {
        self.pods_of(deployment).iter().filter(|name| serves(&self.pods[*name])).count()
    }

    /// Writes on pods that were stored, by the name of the pod, as what was written and for how much.
    pub(in crate::plan::tests) fn writes_of(&self, pod: &str) -> Vec<(&str, Option<i64>)> {
        let own =
            self.written.iter().filter(|written| written.what.starts_with("Pod") && written.name == pod);
        own.map(|written| (written.what.as_str(), written.amount)).collect()
    }

    /// What holds at each moment: no node has given out more than it has, and nobody serves at less than the size that it
    /// should have for that.
    #[track_caller]
    pub(in crate::plan::tests) fn assert_sound(&self) {
        for (name, kubelet) in &self.nodes {
            let (claimed, allocated) = (kubelet.node().claimed(), kubelet.node().allocated());
            let fits = claimed.fits(self.allocatable) && allocated.fits(self.allocatable);
            assert!(
                fits,
                "{name} has given out {allocated:?}, and {claimed:?} is held, of {:?}",
                self.allocatable
            );
        }
        if self.is_let_go() {
            return;
        }
        for (name, pod) in self.pods.iter().filter(|(_, pod)| serves(pod)) {
            let Some(deployment) = self.deployment_of(pod) else { continue };
            if !deployment.is_by_label || !self.darkens(&deployment.name) {
                continue;
            }
            let asked = cpu(&pod["spec"]["containers"][0]["resources"]["requests"]["cpu"]);
            assert_eq!(asked, cpu(&deployment.peak), "{name} serves with less than its peak: {pod:#}");
        }
    }

    /// Whether the group has gone, or goes: then pods serve at whatever size.
    fn is_let_go(&self) -> bool {
        self.group.is_null() || !self.group["metadata"]["deletionTimestamp"].is_null()
    }

    /// Whether pods of a member get no traffic at all at valley size.
    fn darkens(&self, member: &str) -> bool {
        let mut members = self.group["spec"]["members"].as_array().into_iter().flatten();
        let traffic = members.find(|own| own["name"] == member).map(|own| &own["traffic"]["valley"]);
        traffic.is_some_and(|valley| valley.is_null() || valley == "Off")
    }

    /// At rest each unit is wholly on one side, and traffic goes with sizes: of the first pods of either member on a node,
    /// so many of each as are a block, the ones are at peak and the others at valley. All are at valley where nobody has
    /// given the peak up, and the unit was.
    #[track_caller]
    pub(in crate::plan::tests) fn assert_whole(&self, block: [usize; 2]) {
        for node in self.nodes.keys() {
            let on_it = |deployment: &str| -> Vec<String> {
                let names = self.pods_of(deployment).into_iter();
                names.filter(|name| self.pods[name]["spec"]["nodeName"] == *node).collect()
            };
            let (pay, promo) = (on_it("pay"), on_it("promo"));
            for (number, (pay, promo)) in pay.chunks(block[0]).zip(promo.chunks(block[1])).enumerate() {
                let stages = |pods: &[String]| pods.iter().map(|name| self.stage(name)).collect::<Vec<_>>();
                let are = |pods: &[String], stage| stages(pods).iter().all(|found| *found == stage);
                let are_small = [are(pay, Stage::Valley), are(promo, Stage::Valley)];
                let is_whole = match are_small {
                    [true, true] => pay.iter().chain(promo).any(|name| self.is_back_from_nobody(name)),
                    [false, true] => are(pay, Stage::Peak),
                    [true, false] => are(promo, Stage::Peak),
                    [false, false] => false,
                };
                let (pay, promo) = (stages(pay), stages(promo));
                assert!(
                    is_whole,
                    "block {number} of {node}: {pay:?} and {promo:?}: {:#}",
                    self.group["status"]
                );
            }
        }
    }

    /// Whether a pod's unit was given up in the last switch, which has led from nobody.
    fn is_back_from_nobody(&self, name: &str) -> bool {
        let transition = self.status().transition.filter(|transition| transition.from.is_none());
        let mark = condition(&self.pods[name]["status"], SKIPPED);
        let told = mark.and_then(|mark| mark["message"].as_str()?.split(':').next());
        transition.is_some_and(|transition| told == Some(&*format!("{TRANSITION}{}", transition.id)))
    }
}

/// Whether a pod gets traffic, by its gate where it lists ours, else by its label.
fn serves(pod: &Value) -> bool {
    let mut gates = pod["spec"]["readinessGates"].as_array().into_iter().flatten();
    if gates.any(|gate| gate["conditionType"] == TIME_SHARE_TRAFFIC.gate) {
        return condition(&pod["status"], TIME_SHARE_TRAFFIC.gate)
            .is_some_and(|gate| gate["status"] == "True");
    }
    pod["metadata"]["labels"][TIME_SHARE_TRAFFIC.label] == "true"
}

/// Thousandths of a core.
fn cpu(quantity: &Value) -> Option<i64> {
    Pair::read(&serde_json::json!({"cpu": quantity})).cpu
}
