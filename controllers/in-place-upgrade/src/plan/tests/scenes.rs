//! What is seen when an object says something, for tests that look at what it says.

use super::world::World;
use crate::fixtures::{at, node, overlay};
use crate::observed::Observed;
use crate::plan::plan;
use serde_json::{Value, json};
use springtide_crds::in_place_upgrade::InPlaceUpgradeStatus;
use springtide_crds::reason::Reason;
use springtide_plumbing::dry_run::{Answer, Verdict};
use springtide_plumbing::error::Refusal;
use springtide_plumbing::plan::{Action, Plan};
use springtide_plumbing::workloads::pod::PodView;
use std::sync::Arc;

/// What is seen at a time.
#[derive(Debug)]
pub(super) struct Scene {
    pub(super) observed: Observed,
    pub(super) now: i64,
}

impl Scene {
    /// What is seen of a world now.
    pub(super) fn of(mut world: World) -> Self {
        Self { observed: world.observe(), now: world.now }
    }

    /// The same with something else seen.
    pub(super) fn with(mut self, change: impl FnOnce(&mut Observed)) -> Self {
        change(&mut self.observed);
        self
    }

    /// The same so many seconds later.
    pub(super) fn later(mut self, seconds: i64) -> Self {
        self.now += seconds;
        self
    }

    pub(super) fn plan(&self) -> Plan {
        plan(&self.observed, at(self.now))
    }
}

/// The status that a plan writes.
pub(super) fn status_of(plan: &Plan) -> Option<InPlaceUpgradeStatus> {
    let Action::Status { status, .. } = &plan.status.as_ref()?.action else { panic!("{plan:?}") };
    Some(serde_json::from_value(status.clone()).unwrap())
}

/// The message of a condition, where the plan says this reason.
pub(super) fn message_of<R: Reason>(plan: &Plan, reason: &R) -> Option<String> {
    let status = status_of(plan)?;
    let found = status.conditions.iter().find(|condition| condition.type_ == R::CONDITION)?;
    (found.reason == reason.as_str()).then(|| found.message.clone())
}

/// Lets everybody act until a plan says a reason: what is seen then.
#[track_caller]
pub(super) fn until<R: Reason>(mut world: World, reason: &R) -> Scene {
    for _ in 0..1000 {
        let observed = world.observe();
        let scene = Scene { observed, now: world.now };
        if message_of(&scene.plan(), reason).is_some() {
            return scene;
        }
        world.pass(usize::MAX);
        world.others_act();
        world.now += 1;
    }
    panic!("never {} {}: {:#}", R::CONDITION, reason.as_str(), world.upgrade["status"]);
}

/// An object whose run has just opened: no pod is touched yet.
pub(super) fn opened(spec: Value) -> World {
    let mut world = World::new(3, false, spec);
    world.run_until("Upgrading", |_| {});
    assert_eq!(world.images(), ["app:1"; 3]);
    world
}

/// A run under way, some of whose gated pods are out of traffic.
pub(super) fn draining(spec: Value) -> World {
    let mut world = World::new(4, true, spec);
    while world.out_of_traffic() == 0 {
        world.pass(usize::MAX);
        world.others_act();
        world.now += 1;
    }
    world
}

/// A run that has just opened where nodes are seen, none of which has the image.
pub(super) fn without_images() -> Observed {
    on_nodes(&["app:1"])
}

/// A run that has just opened where nodes are seen that have these images.
pub(super) fn on_nodes(images: &[&str]) -> Observed {
    let mut observed = opened(json!({"prePull": {"mode": "Auto"}})).observe();
    for name in ["node-web-00", "node-web-01", "node-web-02"] {
        observed.nodes.insert(name.into(), node(name, images, json!({})));
    }
    observed.tools_image = "springtide:1".into();
    observed
}

/// The same where the pods that pull are there, with their containers in this state.
pub(super) fn pulling(state: &Value, is_scheduled: bool) -> Observed {
    let mut observed = without_images();
    let planned = plan(&observed, at(0));
    let made = planned.stages.iter().flatten().flat_map(|step| step.writes());
    let pullers = made.map(|write| {
        let Action::Create { manifest } = &write.action else { panic!("{write:?}") };
        let mut puller = manifest.clone();
        let stored = json!({
            "metadata": {
                "name": write.key.name, "namespace": "ns", "uid": write.key.name, "resourceVersion": "9",
                "creationTimestamp": at(0).to_string(),
            },
            "status": {"phase": "Pending", "containerStatuses": [{
                "name": manifest["spec"]["containers"][0]["name"], "state": state,
                "containerID": "", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            }]},
        });
        overlay(&mut puller, stored);
        if is_scheduled {
            puller["spec"]["nodeName"] = json!("node-web-00");
        }
        Arc::new(serde_json::from_value::<PodView>(puller).unwrap())
    });
    observed.pullers = pullers.collect();
    observed
}

/// A refusal of the API server.
pub(super) fn refusal(message: &str) -> Verdict<()> {
    Verdict::Refused(Refusal {
        code: 403,
        reason: "Forbidden".to_owned(),
        message: message.to_owned(),
        fields: Vec::new(),
    })
}

/// Answers everything that is asked now, at this time; how many questions there were.
pub(super) fn answer(observed: &mut Observed, now: i64, verdict: impl Fn(&str) -> Verdict<()>) -> usize {
    let planned = plan(observed, at(now));
    let mut count = 0;
    for write in planned.stages.iter().flatten().flat_map(|step| step.writes()) {
        let Action::DryRun { question, .. } = &write.action else { continue };
        observed.answers.insert(question.clone(), Answer { at: at(now), verdict: verdict(question) });
        count += 1;
    }
    count
}
