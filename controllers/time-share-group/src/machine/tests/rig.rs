//! One switch from `promo` to `pay`, number 7, begun at `at(0)`, and what the machine makes of its units.

use crate::fixtures::{at, fill, observed, overlaid, profiles};
use crate::machine::*;
use crate::memory_safety::scopes;
use crate::observed::{Answer, Evidence, MemberIndex, RefusedBy};
use crate::sizes::Demand;
use crate::traffic::goals;
use crate::units::{Units, units};
use serde_json::{Value, json};
use springtide_plumbing::plan::{Action, Fields, Part, Patch, Write};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::workloads::pod::PodView;
use std::sync::Arc;

pub(super) const PAY: MemberIndex = MemberIndex(0);
pub(super) const PROMO: MemberIndex = MemberIndex(1);

pub(super) struct Rig {
    pub(super) observed: Observed,
    pub(super) profiles: Vec<Profile>,
    pub(super) heading: Heading,
    pub(super) rules: Rules,
    pub(super) now: Timestamp,
}

/// Out of traffic by the switch of this number since then.
pub(super) fn off(run: u32, since: i64) -> Value {
    let note = format!("run={run},since={}", at(since));
    json!({"metadata": {
        "labels": {"springtide.dev/traffic-serving": "false"},
        "annotations": {"springtide.dev/traffic-drain": note},
    }})
}

pub(super) fn condition(type_: &str, status: &str, reason: &str, since: i64) -> Value {
    json!({"status": {"conditions": [{
        "type": type_, "status": status, "reason": reason, "message": format!("words on {reason}"),
        "lastTransitionTime": at(since).to_string(),
    }]}})
}

pub(super) fn unready(since: i64) -> Value {
    condition("ContainersReady", "False", "", since)
}

pub(super) fn marked(reason: &str, run: u32, since: i64) -> Value {
    let mark = json!({"status": {"conditions": [{"type": "springtide.dev/time-share", "message": format!("transition={run}: words")}]}});
    overlaid(condition("springtide.dev/time-share", "False", reason, since), mark)
}

impl Rig {
    /// Pods of `promo`, which shrink, and of `pay`, which grow, with changes laid over the spec. The API server would have
    /// all of `pay` grow; the node has room for that.
    pub(super) fn with(spec: Value, promo: Vec<Arc<PodView>>, pay: Vec<Arc<PodView>>) -> Self {
        let mut observed = observed(spec, &[("promo", promo), ("pay", pay)]);
        for known in observed.members.iter_mut().flat_map(|member| &mut member.pods) {
            known.evidence.asked.peak = Some(Answer { at: at(-60), refused: None });
        }
        let heading = Heading { id: 7, from: Some(PROMO), to: Some(PAY), is_return: false };
        let rules = Rules::of(&observed.group.spec, &heading, true);
        let profiles = profiles(&observed);
        Self { observed, profiles, heading, rules, now: at(10) }
    }

    /// One pod of each on a node without any more room.
    pub(super) fn pair(promo: Value, pay: Value) -> Self {
        Self::pair_of(json!({}), promo, pay)
    }

    pub(super) fn pair_of(spec: Value, promo: Value, pay: Value) -> Self {
        use crate::fixtures::pod;
        let mut rig = Self::with(spec, vec![pod("promo-1", "n1", promo)], vec![pod("pay-1", "n1", pay)]);
        rig.fill(Demand::ZERO);
        rig
    }

    pub(super) fn fill(&mut self, free: Demand) {
        fill(&mut self.observed, free);
    }

    pub(super) fn at(mut self, second: i64) -> Self {
        self.now = at(second);
        self
    }

    pub(super) fn evidence(&mut self, member: MemberIndex) -> &mut Evidence {
        &mut self.observed.members[member.0].pods[0].evidence
    }

    /// All that is to be told of those in the units, by the machine's own court.
    pub(super) fn judge<R>(&self, of: impl FnOnce(&Court<'_>, &Units, &Room) -> R) -> R {
        let units = units(&self.observed, &self.heading, &self.profiles);
        let room = Room::of(&self.observed);
        let scopes = scopes(&self.observed, &self.profiles, &units, &room, self.now);
        let traffic = goals(&self.observed);
        let court = Court {
            observed: &self.observed,
            profiles: &self.profiles,
            scopes: &scopes,
            traffic: &traffic,
            heading: &self.heading,
            rules: &self.rules,
            start: at(0),
            asked_from: Timestamp::MIN,
            now: self.now,
        };
        of(&court, &units, &room)
    }

    pub(super) fn stand_on(&self, side: Side) -> Stand {
        self.judge(|court, units, room| stand(&units.units[0], side, court, room))
    }

    pub(super) fn stand(&self) -> Stand {
        self.stand_on(Side::To)
    }

    pub(super) fn state(&self) -> UnitState {
        self.stand().state
    }

    pub(super) fn moves_on(&self, side: Side, leave: Leave) -> Option<Moves> {
        self.judge(|court, units, room| {
            let unit = &units.units[0];
            let stand = stand(unit, side, court, room);
            let mut waiting = Waiting::of(court, []);
            next(unit, side, &stand, leave, court, &mut room.clone(), &mut waiting)
        })
    }

    pub(super) fn moves(&self, leave: Leave) -> Option<Moves> {
        self.moves_on(Side::To, leave)
    }

    /// What is written, in words, when all is left to the unit.
    pub(super) fn written(&self) -> Vec<String> {
        written(self.moves(Leave::Start).as_ref())
    }

    pub(super) fn written_on(&self, side: Side, leave: Leave) -> Vec<String> {
        written(self.moves_on(side, leave).as_ref())
    }

    pub(super) fn name(&self, pod: PodIndex) -> &str {
        &self.observed.pod(pod).unwrap().pod.meta().key.name
    }

    /// What the API server has said to the first pod of `pay` when it was asked to grow.
    pub(super) fn answer(&mut self, refused: Option<RefusedBy>, second: i64) {
        let refused = refused.map(|by| (by, Box::from("no")));
        self.evidence(PAY).asked.peak = Some(Answer { at: at(second), refused });
    }
}

/// The steps of moves in words; the writes of a chain are joined by an arrow.
pub(super) fn written(moves: Option<&Moves>) -> Vec<String> {
    let steps = moves.into_iter().flat_map(|moves| &moves.steps);
    steps.map(|step| step.writes().iter().map(told).collect::<Vec<_>>().join(" -> ")).collect()
}

pub(super) fn told(write: &Write) -> String {
    let name = &write.key.name;
    let Action::Patch { part, patch: Patch::Strategic(Fields { uid, fields, .. }) } = &write.action else {
        panic!("{write:?}")
    };
    assert_eq!(uid.0, *name, "each write is for one pod");
    match part {
        Part::Resize => {
            let requests = &fields["spec"]["containers"][0]["resources"]["requests"];
            format!("{name}={}", requests["cpu"].as_str().unwrap())
        }
        Part::Main => {
            match fields["metadata"]["labels"]["springtide.dev/traffic-serving"].as_str().unwrap() {
                "true" => format!("{name} on"),
                "false" => format!("{name} off"),
                other => panic!("{other}"),
            }
        }
        Part::Status => {
            let condition = &fields["status"]["conditions"][0];
            match condition["type"].as_str().unwrap() {
                "springtide.dev/time-share" => {
                    format!("{name} given up: {}", condition["reason"].as_str().unwrap())
                }
                "springtide.dev/traffic" => format!("{name} gate {}", condition["status"].as_str().unwrap()),
                other => panic!("{other}"),
            }
        }
        Part::Scale => panic!("{write:?}"),
    }
}
