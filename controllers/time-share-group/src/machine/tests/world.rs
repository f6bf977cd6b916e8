//! Random groups on nodes whose kubelets admit as kubelets do, with writes that are lost from any place on, and a switch
//! that may be taken back at any time.

use super::aborts::{Abort, Setting};
use super::rig::{PAY, PROMO, marked, told};
use crate::allocator::{Allocator, Rank};
use crate::fixtures::{at, node, observed, overlay, pod, profile};
use crate::machine::*;
use crate::memory_safety::scopes;
use crate::observed::{Answer, Attempt, Evidence, MemberIndex, Nudges, Refused};
use crate::sizes::Demand;
use crate::traffic::goals;
use crate::units::{UnitKind, Units, units};
use jiff::SignedDuration;
use serde_json::{Value, json};
use springtide_plumbing::plan::{Action, Fields, Part, Patch, Write};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::workloads::content::QosClass;
use std::collections::BTreeMap;

/// What each pod requests at valley, in thousandths of a core; memory is none of anybody's.
pub(super) const SMALL: i64 = 200;

const RANK: Rank = Rank { priority: 0, qos: QosClass::Burstable };

/// One pod as the API server has it.
#[derive(Clone, Debug)]
pub(super) struct Pod {
    member: MemberIndex,
    node: String,
    pub(super) asked: i64,
    pub(super) serves: bool,
    /// The switch that has turned it off, and when.
    off: Option<(u32, Timestamp)>,
    mark: Option<(u32, Timestamp)>,
    version: u64,
    /// Since when its size is in force, else since when it is not.
    steady: (bool, Timestamp),
    refused: Option<Timestamp>,
    nudges: Nudges,
}

/// How many pods are large, and how many small.
type Sizes = (usize, usize);

pub(super) struct World {
    pub(super) pods: BTreeMap<String, Pod>,
    nodes: BTreeMap<String, Allocator>,
    allocatable: BTreeMap<String, Demand>,
    peaks: [i64; 2],
    spec: Value,
    heading: Heading,
    start: Timestamp,
    now: Timestamp,
    /// The API server refuses to let this pod grow, and says so when it is asked.
    barred: Option<String>,
}

fn size(cpu: i64) -> Demand {
    Demand { cpu, memory: 0 }
}

impl World {
    pub(super) fn new(setting: &Setting) -> Self {
        let now = at(0);
        let mut world = Self {
            pods: BTreeMap::new(),
            nodes: BTreeMap::new(),
            allocatable: BTreeMap::new(),
            peaks: setting.peaks,
            spec: json!({
                "switch": {"order": setting.order, "overlap": setting.overlap},
                "members": [
                    {"name": "pay", "traffic": {"drain": {"minSeconds": 1}}},
                    {"name": "promo", "traffic": {"drain": {"minSeconds": 1}}},
                ],
            }),
            heading: Heading { id: 7, from: Some(PROMO), to: Some(PAY), is_return: false },
            start: now,
            now,
            barred: None,
        };
        let mut numbers = [0; 2];
        for (place, (pay, promo)) in setting.nodes.iter().enumerate() {
            let name = format!("n{place}");
            let counts = [(PAY, *pay), (PROMO, *promo)];
            let all = |large: MemberIndex| {
                let of = |(member, count): (MemberIndex, usize)| {
                    let each = if member == large { setting.peaks[member.0] } else { SMALL };
                    each * i64::try_from(count).unwrap()
                };
                counts.into_iter().map(of).sum::<i64>()
            };
            let allocatable = size(all(PAY).max(all(PROMO)) + setting.spare);
            let mut allocator = Allocator::new(allocatable);
            for (member, count) in counts {
                for _ in 0..count {
                    numbers[member.0] += 1;
                    let prefix = if member == PAY { "pay" } else { "promo" };
                    let uid = format!("{prefix}-{}", numbers[member.0]);
                    let serves = member == PROMO;
                    let asked = if serves { setting.peaks[member.0] } else { SMALL };
                    allocator.offer(&uid, size(asked), RANK, now);
                    let made = Pod {
                        member,
                        node: name.clone(),
                        asked,
                        serves,
                        off: None,
                        mark: None,
                        version: 1,
                        steady: (true, at(-100)),
                        refused: None,
                        nudges: Nudges::default(),
                    };
                    world.pods.insert(uid, made);
                }
            }
            world.nodes.insert(name.clone(), allocator);
            world.allocatable.insert(name, allocatable);
        }
        if setting.bars {
            world.barred = world.pods.keys().find(|uid| uid.starts_with("pay")).cloned();
        }
        world
    }

    fn observed(&self) -> Observed {
        let of = |wanted: MemberIndex| {
            let own = self.pods.iter().filter(|(_, pod)| pod.member == wanted);
            own.map(|(uid, own)| pod(uid, &own.node, self.shown(uid, own))).collect::<Vec<_>>()
        };
        let mut observed = observed(self.spec.clone(), &[("pay", of(PAY)), ("promo", of(PROMO))]);
        for (name, allocatable) in &self.allocatable {
            observed.nodes.insert(name.as_str().into(), node(*allocatable));
        }
        for known in observed.members.iter_mut().flat_map(|member| &mut member.pods) {
            let uid: &str = &known.pod.meta().uid.0;
            known.evidence = self.evidence(uid, &self.pods[uid]);
        }
        observed
    }

    fn shown(&self, uid: &str, own: &Pod) -> Value {
        let held = self.nodes[&own.node].pod(uid).unwrap();
        let list = |cpu: i64| json!({"cpu": format!("{cpu}m"), "memory": "0"});
        let mut over = json!({
            "metadata": {
                "resourceVersion": own.version.to_string(),
                "labels": {"springtide.dev/traffic-serving": own.serves.to_string()},
            },
            "spec": {"containers": [{"name": "app", "resources": {"requests": list(own.asked)}}]},
            "status": {"containerStatuses": [{
                "name": "app", "resources": {"requests": list(held.in_force.cpu)},
                "allocatedResources": list(held.allocated.cpu),
            }]},
        });
        if let Some((run, since)) = own.off {
            let note = format!("run={run},since={since}");
            overlay(&mut over, json!({"metadata": {"annotations": {"springtide.dev/traffic-drain": note}}}));
        }
        if let Some(crate::allocator::Pending::Deferred { since }) = held.pending {
            overlay(&mut over, crate::fixtures::pending("Deferred", since));
        }
        if let Some((run, since)) = own.mark {
            overlay(&mut over, marked("Deferred", run, since.as_second() - at(0).as_second()));
        }
        over
    }

    fn evidence(&self, uid: &str, own: &Pod) -> Evidence {
        let (is_steady, since) = own.steady;
        let is_barred = self.barred.as_deref() == Some(uid);
        let refusal = || (RefusedBy::Admission, Box::from("no"));
        let answer = Answer { at: self.now, refused: is_barred.then(refusal) };
        let refused = |at: Timestamp| Refused {
            what: Attempt::Resize(Level::Peak),
            why: RefusedBy::Admission,
            message: "no".into(),
            at,
            retry_at: at + SignedDuration::from_secs(600),
        };
        let mut evidence = Evidence {
            proved_since: own.off.map(|(_, since)| since),
            open_since: (!is_steady).then_some(since),
            warm_since: is_steady.then_some(since),
            refused: own.refused.map(refused),
            nudges: own.nudges,
            ..Evidence::default()
        };
        evidence.asked.peak = Some(answer);
        evidence
    }

    fn judge<R>(&self, of: impl FnOnce(&Court<'_>, &Units, &Room) -> R) -> R {
        let observed = self.observed();
        let profiles =
            vec![profile(size(self.peaks[0]), size(SMALL)), profile(size(self.peaks[1]), size(SMALL))];
        let units = units(&observed, &self.heading, &profiles);
        let room = Room::of(&observed);
        let (scopes, traffic) = (scopes(&observed, &profiles, &units, &room, self.now), goals(&observed));
        let rules = Rules::of(&observed.group.spec, &self.heading, true);
        let court = Court {
            observed: &observed,
            profiles: &profiles,
            scopes: &scopes,
            traffic: &traffic,
            heading: &self.heading,
            rules: &rules,
            start: self.start,
            asked_from: Timestamp::MIN,
            now: self.now,
        };
        of(&court, &units, &room)
    }

    /// The steps of one pass, those of units that have begun first, as the planner has it.
    pub(super) fn plan(&self) -> Vec<Step> {
        self.judge(|court, units, room| {
            let sides: Vec<Side> = units.units.iter().map(|unit| side(unit, true, court)).collect();
            let of = |(unit, side): (&Unit, &Side)| stand(unit, *side, court, room);
            let stands: Vec<Stand> = units.units.iter().zip(&sides).map(of).collect();
            let receivers = units.units.iter().zip(&sides).filter(|(_, side)| **side == Side::To);
            let (mut room, mut waiting) = (room.clone(), Waiting::of(court, receivers.map(|(unit, _)| unit)));
            let mut steps = Vec::new();
            for begun in [true, false] {
                let all = units.units.iter().zip(&sides).zip(&stands);
                for ((unit, side), stand) in all.filter(|(_, stand)| stand.begun == begun) {
                    let moves = next(unit, *side, stand, Leave::Start, court, &mut room, &mut waiting);
                    steps.extend(moves.into_iter().flat_map(|moves| moves.steps));
                }
            }
            self.check(court, units, &steps);
            steps
        })
    }

    /// What holds of every plan.
    fn check(&self, court: &Court<'_>, units: &Units, steps: &[Step]) {
        for step in steps {
            let resized: Vec<(&str, i64)> = step.writes().iter().filter_map(cpu_of).collect();
            for (uid, cpu) in &resized {
                let pod = &self.pods[*uid];
                let unit = units.units.iter().find(|unit| {
                    unit.pods().any(|index| &*court.observed.pod(index).unwrap().pod.meta().uid.0 == *uid)
                });
                let is_donor = pod.member == self.heading.from.unwrap() && *cpu == SMALL;
                if is_donor && mark(unit.unwrap(), court).is_none() {
                    let mut receivers = unit
                        .unwrap()
                        .to
                        .iter()
                        .map(|index| &*court.observed.pod(*index).unwrap().pod.meta().uid.0);
                    assert!(
                        receivers
                            .all(|uid| self.barred.as_deref() != Some(uid) || self.pods[uid].asked > SMALL),
                        "{uid} shrinks for one that is refused"
                    );
                }
            }
            let is_nudge = resized.len() == 2 && resized[0].0 == resized[1].0;
            let grows: Vec<bool> = resized.iter().map(|(uid, cpu)| *cpu > self.pods[*uid].asked).collect();
            let is_sorted = match self.spec["switch"]["order"].as_str().unwrap() {
                "Pipelined" => grows.is_sorted(),
                "ClaimFirst" => grows.is_sorted_by(|one, next| one >= next),
                _ => grows.iter().all(|grow| *grow == grows[0]),
            };
            assert!(is_sorted || is_nudge, "{resized:?}");
        }
    }

    /// One write arrives; what was decided on an older version does not.
    fn apply(&mut self, write: &Write) -> bool {
        let uid: &str = &write.key.name;
        let pod = self.pods.get_mut(uid).unwrap();
        let Action::Patch { part, patch: Patch::Strategic(Fields { resource_version, fields, .. }) } =
            &write.action
        else {
            panic!("{write:?}")
        };
        if resource_version.is_some_and(|version| version.0 != u128::from(pod.version)) {
            return false;
        }
        match part {
            Part::Resize => {
                let (_, cpu) = cpu_of(write).unwrap();
                if cpu > pod.asked && self.barred.as_deref() == Some(uid) && cpu > SMALL {
                    pod.refused = Some(self.now);
                    return false;
                }
                if resource_version.is_none() {
                    pod.nudges = Nudges { count: pod.nudges.count + 1, last: Some(self.now) };
                }
                pod.asked = cpu;
                self.nodes.get_mut(&pod.node).unwrap().offer(uid, size(cpu), RANK, self.now);
            }
            Part::Main => {
                pod.serves = fields["metadata"]["labels"]["springtide.dev/traffic-serving"] == "true";
                pod.off = (!pod.serves).then_some((self.heading.id, self.now));
            }
            Part::Status => pod.mark = Some((self.heading.id, self.now)),
            Part::Scale => panic!("{write:?}"),
        }
        pod.version += 1;
        self.settle();
        true
    }

    fn settle(&mut self) {
        for (uid, pod) in &mut self.pods {
            let held = self.nodes[&pod.node].pod(uid).unwrap();
            let is_steady = held.pending.is_none() && held.in_force.cpu == pod.asked;
            if is_steady != pod.steady.0 {
                pod.steady = (is_steady, self.now);
                pod.version += 1;
            }
        }
    }

    /// Kubelets put into force what they have admitted.
    fn actuate(&mut self) {
        for (name, allocator) in &mut self.nodes {
            for uid in self.pods.keys() {
                allocator.actuate(uid);
            }
            allocator.retry(self.now);
            assert!(allocator.claimed().fits(self.allocatable[name]), "{name} is beyond what it has");
        }
        self.settle();
    }

    /// Kubelets miss that there is room.
    fn doze(&mut self) {
        for allocator in self.nodes.values_mut() {
            allocator.miss_news();
        }
    }

    /// Writes arrive one after the other, so many of them; a chain ends where one does not. What has arrived, in words.
    pub(super) fn deliver(&mut self, steps: &[Step], mut count: usize) -> Vec<String> {
        let mut arrived = Vec::new();
        for step in steps {
            for write in step.writes() {
                if count == 0 {
                    return arrived;
                }
                count -= 1;
                if !self.apply(write) {
                    break;
                }
                arrived.push(told(write));
            }
        }
        arrived
    }

    pub(super) fn pass(&mut self, writes: usize, gets_on: bool) -> Vec<String> {
        let steps = self.plan();
        let arrived = self.deliver(&steps, writes);
        if gets_on {
            self.actuate();
        } else {
            self.doze();
        }
        arrived
    }

    pub(super) fn wait(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    pub(super) fn abort(&mut self, abort: Abort) {
        match abort {
            Abort::Never => {}
            Abort::Marks(which) => {
                let leads: Vec<String> = self.judge(|court, units, _| {
                    let chosen =
                        units.units.iter().enumerate().filter(|(rank, _)| which >> (rank % 8) & 1 == 1);
                    let name = |unit: &Unit| {
                        court.observed.pod(unit.lead().unwrap()).unwrap().pod.meta().uid.0.to_string()
                    };
                    chosen.map(|(_, unit)| name(unit)).collect()
                });
                for uid in leads {
                    self.pods.get_mut(&uid).unwrap().mark = Some((self.heading.id, self.now));
                }
            }
            Abort::Return => {
                let Heading { id, from, to, .. } = self.heading;
                self.heading = Heading { id: id + 1, from: to, to: from, is_return: true };
                self.start = self.now;
            }
        }
    }

    /// Goes on until nothing is written any more and nothing is under way.
    pub(super) fn rest(&mut self) {
        let mut quiet = 0;
        for _ in 0..200 {
            let is_quiet = self.pass(usize::MAX, true).is_empty();
            quiet = if is_quiet { quiet + 1 } else { 0 };
            self.wait(if is_quiet { 10 } else { 1 });
            if quiet > 8 {
                return;
            }
        }
        panic!("it does not come to rest: {:#?}", self.plan());
    }

    /// What a unit has come to: how many of its pods are large and how many are small, of those that shrink and grow.
    pub(super) fn sides(&self) -> Vec<(UnitKind, UnitState, [Sizes; 2])> {
        self.judge(|court, units, room| {
            let count = |pods: &[PodIndex]| {
                let asked = |index: &PodIndex| {
                    self.pods[&*court.observed.pod(*index).unwrap().pod.meta().uid.0].asked
                };
                let large = pods.iter().filter(|index| asked(index) > SMALL).count();
                (large, pods.len() - large)
            };
            let of = |unit: &Unit| {
                let state = stand(unit, side(unit, true, court), court, room).state;
                (unit.kind, state, [count(&unit.from), count(&unit.to)])
            };
            units.units.iter().map(of).collect()
        })
    }
}

/// Pod and cpu of a resize, in thousandths.
fn cpu_of(write: &Write) -> Option<(&str, i64)> {
    let Action::Patch { part: Part::Resize, patch: Patch::Strategic(Fields { fields, .. }) } = &write.action
    else {
        return None;
    };
    let text = fields["spec"]["containers"][0]["resources"]["requests"]["cpu"].as_str().unwrap();
    let cpu = text
        .strip_suffix('m')
        .map_or_else(|| text.parse::<i64>().unwrap() * 1000, |milli| milli.parse().unwrap());
    Some((&write.key.name, cpu))
}
