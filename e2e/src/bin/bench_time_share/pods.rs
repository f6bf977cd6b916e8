//! What a watch has seen of pods that take turns: which size each has in force, whether it serves, and when that came.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use springtide_e2e::bench::lives::Belled;
use springtide_e2e::oracle::feed::{Feed, Fold};
use springtide_e2e::time_share::pods::serves;
use springtide_e2e::time_share::sizes::PodSize;
use springtide_e2e::upgrade::pods::is_true;
use springtide_time_share_group::sizes::Level;
use tokio::sync::Notify;

/// Thousandths of a core that a pod requests at peak, and at valley.
pub(crate) const PEAK: i64 = 1000;
pub(crate) const VALLEY: i64 = 100;

/// A watch on the pods of a namespace.
pub(crate) type PodFeed = Feed<Pods>;

/// A pod as last seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Life {
    /// Its name.
    pub(crate) name: String,
    /// Its member.
    pub(crate) member: String,
    /// The node that it is on.
    pub(crate) node: String,
    /// Thousandths of a core that are in force, where nothing else is asked for.
    pub(crate) in_force: Option<i64>,
    /// Whether it gets traffic, and is ready for it.
    pub(crate) is_serving: bool,
    /// Whether its condition Ready is True.
    pub(crate) is_ready: bool,
    bell: Arc<Notify>,
}

impl Life {
    /// Where it stands, if it has come to stand there: at peak with traffic, or at valley without.
    pub(crate) fn level(&self) -> Option<Level> {
        match (self.in_force, self.is_serving) {
            (Some(PEAK), true) => Some(Level::Peak),
            (Some(VALLEY), false) => Some(Level::Valley),
            (Some(_) | None, _) => None,
        }
    }
}

/// All pods seen so far, gone ones left out.
#[derive(Debug, Default)]
pub(crate) struct Pods {
    lives: HashMap<String, Life>,
    /// When pods came to a level, in their order.
    arrivals: HashMap<Level, Vec<Instant>>,
    changes: usize,
    lists: usize,
}

impl Pods {
    /// The live pods, by UID.
    pub(crate) fn lives(&self) -> impl Iterator<Item = (&String, &Life)> {
        self.lives.iter()
    }

    /// How many pods of a member stand there.
    pub(crate) fn at(&self, member: &str, level: Level) -> usize {
        self.lives.values().filter(|life| life.member == member && life.level() == Some(level)).count()
    }

    /// How many pods of a member are ready, and how many there are.
    pub(crate) fn ready(&self, member: &str) -> [usize; 2] {
        let own = || self.lives.values().filter(|life| life.member == member);
        [own().filter(|life| life.is_ready).count(), own().count()]
    }

    /// When pods came to a level since [`Pods::count_anew`], in the order in which they did.
    pub(crate) fn arrivals(&self, level: Level) -> &[Instant] {
        self.arrivals.get(&level).map_or(&[], Vec::as_slice)
    }

    /// How often a pod has changed since [`Pods::count_anew`], in whatever.
    pub(crate) fn changes(&self) -> usize {
        self.changes
    }

    /// Forgets the counts of the past.
    pub(crate) fn count_anew(&mut self) {
        self.arrivals.clear();
        self.changes = 0;
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
        let PodSize { asked, allocated: _, in_force } = PodSize::of(&pod);
        let life = self.lives.entry(uid).or_default();
        let before = life.level();
        life.name = pod.name_any();
        life.member = pod.labels().get("app").cloned().unwrap_or_default();
        life.node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        life.in_force = (phase == Some("Running") && asked.cpu == in_force.cpu).then_some(in_force.cpu);
        life.is_ready = is_true(&pod, "Ready");
        life.is_serving = serves(&pod) && life.is_ready;
        if let Some(level) = life.level().filter(|level| before != Some(*level)) {
            self.arrivals.entry(level).or_default().push(now);
        }
        self.changes += 1;
        life.bell.notify_waiters();
    }

    fn delete(&mut self, pod: &Pod) {
        self.changes += 1;
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use springtide_e2e::time_share::LABEL;

    fn pod(asked: i64, in_force: i64, label: &str) -> Pod {
        let [asked, in_force] = [asked, in_force].map(|cpu| json!({"requests": {"cpu": format!("{cpu}m")}}));
        serde_json::from_value(json!({
            "metadata": {"name": "pay-1", "uid": "1", "labels": {"app": "pay", LABEL: label}},
            "spec": {"nodeName": "node-0", "containers": [{"name": "app", "resources": asked}]},
            "status": {
                "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [{
                    "name": "app", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                    "resources": in_force,
                }],
            },
        }))
        .unwrap()
    }

    #[test]
    fn a_pod_has_come_when_size_and_traffic_are_both_there() {
        let mut pods = Pods::default();
        pods.relisted(&[]);
        pods.apply(pod(VALLEY, VALLEY, "false"));
        assert_eq!((pods.at("pay", Level::Valley), pods.at("pay", Level::Peak)), (1, 0));
        pods.count_anew();
        for (asked, in_force, label) in
            [(PEAK, VALLEY, "false"), (PEAK, PEAK, "false"), (PEAK, PEAK, "true"), (PEAK, PEAK, "true")]
        {
            pods.apply(pod(asked, in_force, label));
        }
        assert_eq!((pods.at("pay", Level::Valley), pods.at("pay", Level::Peak)), (0, 1));
        assert_eq!((pods.arrivals(Level::Peak).len(), pods.arrivals(Level::Valley).len()), (1, 0));
        assert_eq!((pods.changes(), pods.ready("pay")), (4, [1, 1]));
        pods.delete(&pod(PEAK, PEAK, "true"));
        assert_eq!((pods.lives().count(), pods.gaps()), (0, 0));
    }
}
