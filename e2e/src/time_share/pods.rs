//! Every pod of a namespace: its sizes, its traffic, and what may never be of both.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use springtide_time_share_group::sizes::{Demand, Level};

use super::node_member::NodeMember;
use super::sizes::{PodSize, SizedPod, Sizes};
use super::{GATE, LABEL};
use crate::oracle::feed::{Feed, Fold};
use crate::upgrade::GATE as UPGRADE_GATE;
use crate::upgrade::pods::{is_false, is_true};

/// A watch on the pods of one namespace.
pub type PodFeed = Feed<Pods>;

/// The sizes of a member's pods.
#[derive(Clone, Copy, Debug)]
struct Known {
    peak: Demand,
    valley: Demand,
}

/// Where pods of a member stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// At peak size in force.
    pub at_peak: usize,
    /// At valley size in force.
    pub at_valley: usize,
    /// Neither.
    pub between: usize,
    /// With traffic.
    pub serving: usize,
}

impl Standing {
    /// So many pods, all at peak size and with traffic.
    #[must_use]
    pub fn peak(pods: usize) -> Self {
        Self::split(pods, 0)
    }

    /// So many pods, all at valley size and without traffic.
    #[must_use]
    pub fn valley(pods: usize) -> Self {
        Self::split(0, pods)
    }

    /// So many pods at peak size and with traffic, and so many at valley size and without.
    #[must_use]
    pub fn split(at_peak: usize, at_valley: usize) -> Self {
        Self { at_peak, at_valley, between: 0, serving: at_peak }
    }
}

/// All pods seen so far, gone ones too.
#[derive(Debug, Default)]
pub struct Pods {
    /// Their sizes.
    pub sizes: Sizes,
    members: BTreeMap<String, Known>,
    /// Whether nobody may serve with less than peak size.
    is_dark: bool,
    violations: Vec<String>,
}

impl Pods {
    /// From now on it is known where pods of these members stand.
    pub fn know(&mut self, members: &[&NodeMember]) {
        let known = |member: &&NodeMember| {
            let [peak, valley] = [Level::Peak, Level::Valley].map(|level| member.requests(level));
            (member.name.clone(), Known { peak, valley })
        };
        self.members.extend(members.iter().map(known));
    }

    /// From now on nobody may get traffic with less than its peak size. Pods of no group are let serve by the manager, so it
    /// is so as soon as there is one that has settled.
    pub fn forbid(&mut self) {
        self.is_dark = true;
    }

    /// From now on pods may serve at whatever size.
    pub fn let_serve(&mut self) {
        self.is_dark = false;
    }

    /// What may never be seen: a pod that gets traffic with less than its peak size, or is resized while it is upgraded.
    #[must_use]
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// Where the pods of a member stand.
    #[must_use]
    pub fn standing(&self, member: &str) -> Standing {
        let mut standing = Standing::default();
        for pod in self.sizes.of(member) {
            match self.level(member, pod) {
                Some(Level::Peak) => standing.at_peak += 1,
                Some(Level::Valley) => standing.at_valley += 1,
                None => standing.between += 1,
            }
            standing.serving += usize::from(serves(&pod.pod));
        }
        standing
    }

    /// The size that a member's pod has in force, if it is one of the member's and nothing is under way.
    #[must_use]
    pub fn level(&self, member: &str, pod: &SizedPod) -> Option<Level> {
        let known = self.members.get(member)?;
        let is = |size: Demand| pod.is_resized() && pod.size.asked == size;
        if is(known.peak) {
            Some(Level::Peak)
        } else if is(known.valley) {
            Some(Level::Valley)
        } else {
            None
        }
    }

    /// Names of a member's pods by the node that they are on.
    #[must_use]
    pub fn by_node(&self, member: &str) -> BTreeMap<String, Vec<String>> {
        let mut nodes: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pod in self.sizes.of(member) {
            let node = pod.pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
            nodes.entry(node).or_default().push(pod.name());
        }
        nodes
    }

    fn judge(&mut self, pod: &Pod) {
        let Some(known) = pod.labels().get("app").and_then(|app| self.members.get(app)) else { return };
        let Some(sized) = pod.uid().and_then(|uid| self.sizes.get(&uid)) else { return };
        if self.is_dark && serves(pod) && sized.is_live() && sized.size.asked.cpu < known.peak.cpu {
            let (name, size) = (pod.name_any(), sized.size);
            self.violations.push(format!("{name} has traffic with less than its peak size: {size:?}"));
        }
    }
}

/// Whether a pod gets traffic, by the gate where it lists that, else by the label.
#[must_use]
pub fn serves(pod: &Pod) -> bool {
    let gates = pod.spec.as_ref().and_then(|spec| spec.readiness_gates.as_ref());
    if gates.into_iter().flatten().any(|gate| gate.condition_type == GATE) {
        return is_true(pod, GATE);
    }
    pod.labels().get(LABEL).is_some_and(|value| value == "true")
}

/// Whether somebody has taken a pod out of traffic: by the gate, or by the label.
#[must_use]
pub fn is_turned_off(pod: &Pod) -> bool {
    is_false(pod, GATE) || pod.labels().get(LABEL).is_some_and(|value| value != "true")
}

impl Fold for Pods {
    type Object = Pod;

    fn apply(&mut self, pod: Pod) {
        let known = pod.uid().and_then(|uid| self.sizes.get(&uid));
        let in_upgrade =
            known.filter(|known| is_false(&known.pod, UPGRADE_GATE)).map(|known| known.size.asked);
        if in_upgrade.is_some_and(|asked| asked != PodSize::of(&pod).asked) {
            self.violations.push(format!("{} was resized while it was upgraded", pod.name_any()));
        }
        self.sizes.apply(pod.clone());
        self.judge(&pod);
    }

    fn delete(&mut self, pod: &Pod) {
        self.sizes.delete(pod);
    }

    fn relisted(&mut self, present: &[Pod]) {
        self.sizes.relisted(present);
    }

    fn describe(&self) -> String {
        let standing = self.members.keys().map(|member| format!("{member}: {:?}\n", self.standing(member)));
        let mut text: String = standing.collect();
        text += &self.sizes.describe();
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(cpu: &str, label: &str) -> Pod {
        let requests = json!({"cpu": cpu, "memory": "16Mi"});
        serde_json::from_value(json!({
            "metadata": {
                "name": "pay-1", "uid": "1", "generation": 1, "resourceVersion": "1",
                "labels": {"app": "pay", LABEL: label},
            },
            "spec": {"nodeName": "node-0", "containers": [{"name": "app", "resources": {"requests": requests}}]},
            "status": {"phase": "Running", "observedGeneration": 1, "containerStatuses": [{
                "name": "app", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                "allocatedResources": requests, "resources": {"requests": requests},
            }]},
        }))
        .unwrap()
    }

    #[test]
    fn a_pod_stands_by_what_is_in_force_and_serves_by_its_label() {
        let mut pods = Pods::default();
        pods.know(&[&NodeMember::new("pay", 1, "4", "200m")]);
        pods.apply(pod("200m", "false"));
        assert_eq!(pods.standing("pay"), Standing::valley(1));
        pods.apply(pod("4", "true"));
        assert_eq!(pods.standing("pay"), Standing::peak(1));
        pods.apply(pod("1", "false"));
        assert_eq!(pods.standing("pay"), Standing { between: 1, ..Standing::default() });
        assert_eq!(pods.by_node("pay")["node-0"], ["pay-1"]);
        assert_eq!(pods.violations(), [""; 0]);
    }

    #[test]
    fn who_is_resized_while_it_is_upgraded_is_a_violation() {
        let mut pods = Pods::default();
        let mut upgraded = pod("200m", "false");
        let closed = json!([{"type": UPGRADE_GATE, "status": "False"}]);
        upgraded.status.as_mut().unwrap().conditions = serde_json::from_value(closed).unwrap();
        pods.apply(upgraded.clone());
        pods.apply(upgraded);
        assert!(pods.violations().is_empty());
        pods.apply(pod("4", "false"));
        assert_eq!(pods.violations().len(), 1);
    }

    #[test]
    fn who_serves_with_less_than_its_peak_is_a_violation_unless_that_is_let_be() {
        let mut pods = Pods::default();
        pods.know(&[&NodeMember::new("pay", 1, "4", "200m")]);
        pods.apply(pod("200m", "true"));
        pods.forbid();
        assert!(pods.violations().is_empty());
        pods.apply(pod("200m", "true"));
        assert_eq!(pods.violations().len(), 1);
        pods.let_serve();
        pods.apply(pod("200m", "true"));
        assert_eq!(pods.violations().len(), 1);
    }
}
