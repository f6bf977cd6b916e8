//! How long the parts of a pod's way take, for metrics alone: no plan rests on them.
//!
//! They are read from what the API shows of a pod, at each look at its object, and count when a part was seen from its
//! begin to its end. A process that begins to lead in the midst of one says nothing of it.

use crate::machine::Evidence;
use jiff::{SignedDuration, Timestamp};
use springtide_crds::in_place_upgrade::TrafficMode;
use springtide_plumbing::done_rule::{DoneVerdict, Record};
use springtide_plumbing::key::Uid;
use springtide_plumbing::projection::Projection;
use springtide_plumbing::traffic::Traffic;
use springtide_plumbing::workloads::pod::{PodView, container_now};
use springtide_plumbing::workloads::trace::Trace;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// A part of a pod's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stretch {
    /// From the write that takes it out of traffic to the proof that it is out.
    Drain,
    /// A resize, until the kubelet has put it in force.
    Resize,
    /// From its patch until the changed containers run anew.
    Start,
    /// From there until it is ready and in traffic.
    Ready,
    /// Not ready, on our account.
    Down,
}

impl Stretch {
    /// All of them, for metrics that start at zero.
    pub const ALL: [Self; 5] = [Self::Drain, Self::Resize, Self::Start, Self::Ready, Self::Down];
}

/// What has come to its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// Parts of the ways of pods, and how long each took.
    pub stretches: Vec<(Stretch, SignedDuration)>,
    /// Containers that were replaced by a patch of ours.
    pub restarts: usize,
}

/// The pods of one object, while a run is open.
#[derive(Debug, Default)]
pub struct PodTimes(HashMap<Uid, Times>);

/// Where one pod is.
#[derive(Clone, Copy, Debug)]
struct Times {
    way: Way,
    /// Since when; `None` if that was not seen.
    way_since: Option<Timestamp>,
    resize: Hold,
    down: Hold,
}

/// Where a pod is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// It is not on it, or not any more.
    AtRest,
    /// It leaves traffic.
    Leaving,
    /// It is out of traffic, and not changed yet.
    Out,
    /// It is changed, and containers are still to run anew.
    Starting,
    /// They run, and it is not back.
    Returning,
}

impl Way {
    /// What is measured of it.
    fn stretch(self) -> Option<Stretch> {
        match self {
            Self::Leaving => Some(Stretch::Drain),
            Self::Starting => Some(Stretch::Start),
            Self::Returning => Some(Stretch::Ready),
            Self::AtRest | Self::Out => None,
        }
    }
}

/// Whether something holds, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    No,
    /// It did when it was first looked at.
    Unseen,
    Since(Timestamp),
}

impl Hold {
    fn first(holds: bool) -> Self {
        if holds { Self::Unseen } else { Self::No }
    }

    /// Takes in whether it holds; how long it did, when it has just ended.
    fn look(&mut self, holds: bool, now: Timestamp) -> Option<SignedDuration> {
        match (*self, holds) {
            (Self::No, true) => *self = Self::Since(now),
            (Self::Unseen, false) => *self = Self::No,
            (Self::Since(since), false) => {
                *self = Self::No;
                return Some(now.duration_since(since));
            }
            (Self::No, false) | (Self::Unseen | Self::Since(_), true) => {}
        }
        None
    }
}

impl PodTimes {
    /// Takes in the pods of an object as they are now, and says what has come to its end since the last look.
    pub fn look(
        &mut self,
        pods: &[Arc<PodView>],
        evidence: &HashMap<Uid, Evidence>,
        mode: TrafficMode,
        now: Timestamp,
    ) -> Passed {
        let known: HashSet<&Uid> = pods.iter().map(|pod| &pod.meta().uid).collect();
        self.0.retain(|uid, _| known.contains(uid));
        let (mut passed, unknown) = (Passed::default(), Evidence::default());
        for pod in pods {
            let uid = &pod.meta().uid;
            let evidence = evidence.get(uid).unwrap_or(&unknown);
            match self.0.get_mut(uid) {
                Some(times) => times.look(pod, evidence, mode, now, &mut passed),
                None => {
                    self.0.insert(uid.clone(), Times::first(pod, evidence, mode, now));
                }
            }
        }
        passed
    }

    /// No run is open: whatever happens to these pods is no doing of ours.
    pub fn clear(&mut self) {
        self.0 = HashMap::new();
    }
}

impl Times {
    fn first(pod: &PodView, evidence: &Evidence, mode: TrafficMode, now: Timestamp) -> Self {
        let way = way(pod, evidence, mode, Way::AtRest, now);
        Self {
            way,
            way_since: None,
            resize: Hold::first(evidence.resizing_since.is_some()),
            down: Hold::first(is_down(pod, way)),
        }
    }

    fn look(
        &mut self,
        pod: &PodView,
        evidence: &Evidence,
        mode: TrafficMode,
        now: Timestamp,
        passed: &mut Passed,
    ) {
        let way = way(pod, evidence, mode, self.way, now);
        if way != self.way {
            let stretch = self.way.stretch().zip(self.way_since);
            passed.stretches.extend(stretch.map(|(stretch, since)| (stretch, now.duration_since(since))));
            if self.way == Way::Starting && matches!(way, Way::Returning | Way::AtRest) {
                passed.restarts += changed(pod).map_or(0, |record| record.base.len());
            }
            (self.way, self.way_since) = (way, Some(now));
        }
        let resize = self.resize.look(evidence.resizing_since.is_some(), now);
        passed.stretches.extend(resize.map(|took| (Stretch::Resize, took)));
        let down = self.down.look(is_down(pod, way), now);
        passed.stretches.extend(down.map(|took| (Stretch::Down, took)));
    }
}

/// Where a pod is that was there before.
fn way(pod: &PodView, evidence: &Evidence, mode: TrafficMode, before: Way, now: Timestamp) -> Way {
    let lever = pod.signals.lever(mode).ok().flatten();
    let off = match lever.map(|lever| pod.signals.traffic(lever)) {
        Some(Traffic::Off { run: Some(run), .. }) => Some(run),
        Some(Traffic::Off { run: None, .. } | Traffic::On | Traffic::Unset) | None => None,
    };
    let record = changed(pod);
    match (&off, record) {
        // The run that has it out of traffic has not changed it yet.
        (Some(run), record) if record.is_none_or(|record| record.run != *run) => {
            if evidence.proved_since.is_some() { Way::Out } else { Way::Leaving }
        }
        (_, Some(record)) if !is_done(pod, record, evidence, now) => Way::Starting,
        (Some(_), _) => Way::Returning,
        (None, _) => match before {
            Way::Starting | Way::Returning if !is_serving(pod) => Way::Returning,
            Way::AtRest | Way::Leaving | Way::Out | Way::Starting | Way::Returning => Way::AtRest,
        },
    }
}

/// The patch of ours that restarts containers of a pod.
fn changed(pod: &PodView) -> Option<&Record> {
    match &pod.trace {
        Trace::Record(record) if !record.base.is_empty() => Some(record),
        Trace::Record(_) | Trace::None | Trace::Damaged => None,
    }
}

fn is_done(pod: &PodView, record: &Record, evidence: &Evidence, now: Timestamp) -> bool {
    let grace = SignedDuration::from_secs(pod.grace_seconds.into());
    pod.containers.iter().all(|container| {
        let seen = evidence.candidates.get(&container.name).copied();
        match record.judge(&container.name, &container_now(pod, container), grace, seen, now) {
            DoneVerdict::Done => true,
            DoneVerdict::NotYet { .. } => false,
        }
    })
}

/// Gates of others are not ours to wait for.
fn is_serving(pod: &PodView) -> bool {
    pod.are_containers_ready() && (pod.is_ready() || pod.traits.has_foreign_gates)
}

fn is_down(pod: &PodView, way: Way) -> bool {
    match way {
        Way::AtRest => false,
        Way::Leaving | Way::Out | Way::Starting | Way::Returning => !is_serving(pod),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{at, overlay, pod};
    use serde_json::{Value, json};
    use springtide_plumbing::workloads::names::{RECORD_ANNOTATION, UPGRADE_TRAFFIC};

    const RUN: &str = "7c9f21ab04de";

    /// A pod in traffic by its gate, or out of it by the run.
    fn gated(is_on: bool, is_ready: bool, over: Value) -> Arc<PodView> {
        let word = |holds: bool| if holds { "True" } else { "False" };
        let message = if is_on { String::new() } else { format!("run={RUN}") };
        let mut whole = json!({
            "spec": {"readinessGates": [{"conditionType": UPGRADE_TRAFFIC.gate}]},
            "status": {"conditions": [
                {"type": "ContainersReady", "status": "True"},
                {"type": "Ready", "status": word(is_ready)},
                {"type": UPGRADE_TRAFFIC.gate, "status": word(is_on), "message": message},
            ]},
        });
        overlay(&mut whole, over);
        pod("web-1", whole)
    }

    /// Changed by the run, in a generation that its kubelet has seen or not, with this container.
    fn changed_to(observed: i64, container: &str, image: &str) -> Value {
        let base =
            json!({"app": springtide_plumbing::done_rule::Base::of("containerd://1", "reg/app@sha256:1")});
        let record = json!({"run": RUN, "at": at(0).to_string(), "g": 1, "base": base}).to_string();
        json!({
            "metadata": {"generation": 2, "annotations": {RECORD_ANNOTATION: record}},
            "status": {"observedGeneration": observed, "containerStatuses": [{
                "name": "app", "containerID": container, "imageID": image, "restartCount": 1,
                "state": {"running": {"startedAt": at(1).to_string()}},
            }]},
        })
    }

    fn look(times: &mut PodTimes, pod: &Arc<PodView>, is_proved: bool, now: i64) -> Passed {
        let evidence = Evidence { proved_since: is_proved.then(|| at(now)), ..Evidence::default() };
        let evidence = HashMap::from([(pod.meta().uid.clone(), evidence)]);
        times.look(std::slice::from_ref(pod), &evidence, TrafficMode::Auto, at(now))
    }

    fn took(stretch: Stretch, seconds: i64) -> (Stretch, SignedDuration) {
        (stretch, SignedDuration::from_secs(seconds))
    }

    #[test]
    fn each_part_of_a_gated_pods_way_is_measured_when_it_ends() {
        let mut times = PodTimes::default();
        let old = || changed_to(1, "containerd://1", "reg/app@sha256:1");
        let new = || changed_to(2, "containerd://2", "reg/app@sha256:2");
        let nothing = Passed::default();
        assert_eq!(look(&mut times, &gated(true, true, json!({})), false, 0), nothing);
        assert_eq!(look(&mut times, &gated(false, true, json!({})), false, 1), nothing);
        assert_eq!(look(&mut times, &gated(false, false, json!({})), false, 2), nothing);
        let drained = look(&mut times, &gated(false, false, json!({})), true, 6);
        assert_eq!(drained.stretches, [took(Stretch::Drain, 5)]);
        assert_eq!(
            look(&mut times, &gated(false, false, old()), false, 11),
            nothing,
            "the wait before its patch"
        );
        let started = look(&mut times, &gated(false, false, new()), false, 14);
        assert_eq!((started.stretches, started.restarts), (vec![took(Stretch::Start, 3)], 1));
        assert_eq!(look(&mut times, &gated(true, false, new()), false, 15), nothing);
        let back = look(&mut times, &gated(true, true, new()), false, 16);
        assert_eq!(back.stretches, [took(Stretch::Ready, 2), took(Stretch::Down, 14)]);
        assert_eq!(look(&mut times, &gated(true, true, new()), false, 20), nothing);
    }

    #[test]
    fn what_was_not_seen_to_begin_is_not_measured() {
        let mut times = PodTimes::default();
        assert_eq!(look(&mut times, &gated(false, false, json!({})), false, 0), Passed::default());
        assert_eq!(look(&mut times, &gated(false, false, json!({})), true, 9), Passed::default());
        times.clear();
        let running = || pod("web-1", changed_to(2, "containerd://2", "reg/app@sha256:2"));
        assert_eq!(look(&mut times, &running(), false, 20), Passed::default());
        let mut unready = changed_to(2, "containerd://2", "reg/app@sha256:2");
        unready["status"]["conditions"] = json!([{"type": "ContainersReady", "status": "False"}]);
        let unready = pod("web-1", unready);
        assert_eq!(look(&mut times, &unready, false, 30), Passed::default());
        let back = look(&mut times, &running(), false, 40);
        assert_eq!(back, Passed::default(), "it was changed long ago: its readiness is its own");
    }

    #[test]
    fn a_resize_is_measured_while_it_is_open() {
        let mut times = PodTimes::default();
        let pod = pod("web-1", json!({}));
        let mut look = |is_open: bool, now: i64| {
            let evidence = Evidence { resizing_since: is_open.then(|| at(now)), ..Evidence::default() };
            let evidence = HashMap::from([(pod.meta().uid.clone(), evidence)]);
            times.look(std::slice::from_ref(&pod), &evidence, TrafficMode::Auto, at(now)).stretches
        };
        assert_eq!([look(false, 0), look(true, 1), look(true, 2)], [vec![], vec![], vec![]]);
        assert_eq!(look(false, 4), [took(Stretch::Resize, 3)]);
    }

    #[test]
    fn a_pod_without_a_gate_is_measured_from_its_patch_on() {
        let mut times = PodTimes::default();
        look(&mut times, &pod("web-1", json!({})), false, 0);
        let patched = pod("web-1", changed_to(1, "containerd://1", "reg/app@sha256:1"));
        assert_eq!(look(&mut times, &patched, false, 1), Passed::default());
        let mut started = changed_to(2, "containerd://2", "reg/app@sha256:2");
        started["status"]["conditions"] = json!([{"type": "ContainersReady", "status": "False"}]);
        let started = look(&mut times, &pod("web-1", started), false, 3);
        assert_eq!((started.stretches, started.restarts), (vec![took(Stretch::Start, 2)], 1));
        let ready = pod("web-1", changed_to(2, "containerd://2", "reg/app@sha256:2"));
        let ready = look(&mut times, &ready, false, 8);
        assert_eq!(ready.stretches, [took(Stretch::Ready, 5), took(Stretch::Down, 5)]);
    }
}
