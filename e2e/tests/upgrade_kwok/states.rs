//! Whatever a pod is at, and whatever becomes of its upgrade then: it is not left out of traffic.

use std::fmt;

use anyhow::{Context, Result, ensure};
use futures::future::join_all;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::DeleteParams;
use serde_json::{Value, json};
use springtide_crds::common::IntOrPercent;
use springtide_crds::in_place_upgrade::{HeldReason, InPlaceUpgrade, ReadyReason, StalledReason};
use springtide_e2e::kwok::{
    IMAGE_OUTCOMES, ImageOutcome, RESIZE_OUTCOME, RESTART_SECONDS, ResizeOutcome, image_outcomes,
};
use springtide_e2e::upgrade::pods::{Life, is_false, is_true};
use springtide_e2e::upgrade::replacements::Replacements;
use springtide_e2e::upgrade::upgrades::Upgrades;
use springtide_e2e::upgrade::workload::CONTAINER;
use springtide_e2e::upgrade::{GATE, Testbed, Workload, image, shared};

use crate::{approval, approved_after};

/// Longer than a test waits.
const NEVER: &str = "3600";

/// What the second pod is at, and stays at; the first one is done, the third one has not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Out of traffic by its gate, and a Service has it still.
    Draining,
    /// It has the wish in its spec, and runs what it ran before.
    Patched,
    /// It runs what is wished, and does not become ready.
    Unready,
    /// Its node has no room for what is wished.
    Resizing,
    /// It waits for an approval.
    Held,
}

/// What becomes of the upgrade then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// The third pod fails.
    RollsBack,
    /// It is paused.
    Pauses,
    /// Something else is wished.
    IsSuperseded,
    /// What was there before is wished again.
    IsReverted,
    /// It is deleted.
    IsDeleted,
}

/// Somebody's balancer has a pod, ready or not, by a slice of this name.
pub(crate) async fn list(test: &Testbed<'_>, slice: &str, pod: &str) -> Result<()> {
    let uid = test.pods.now().named(pod).and_then(|life| life.pod.metadata.uid.clone());
    let target = json!({"kind": "Pod", "namespace": test.namespace, "name": pod, "uid": uid});
    test.create::<EndpointSlice>(json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": slice, "labels": {"kubernetes.io/service-name": "balancer"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": true}, "targetRef": target}],
    }))
    .await?;
    Ok(())
}

#[derive(Clone, Copy, Debug)]
struct Case {
    state: State,
    turn: Turn,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = format!("{:?}-{:?}", self.state, self.turn);
        f.write_str(&name.to_lowercase())
    }
}

impl Case {
    fn all() -> Vec<Self> {
        let states = [State::Draining, State::Patched, State::Unready, State::Resizing, State::Held];
        let turns = [Turn::RollsBack, Turn::Pauses, Turn::IsSuperseded, Turn::IsReverted, Turn::IsDeleted];
        let each = states.into_iter().flat_map(|state| turns.map(|turn| Self { state, turn }));
        each.filter(|case| case.is_one()).collect()
    }

    /// What never becomes ready has no rest in traffic, and where nothing has begun nothing can fail.
    fn is_one(&self) -> bool {
        let none = [(State::Unready, Turn::Pauses), (State::Held, Turn::RollsBack)];
        !none.contains(&(self.state, self.turn))
    }

    /// The pod of an ordinal: the last one begins.
    fn pod(&self, ordinal: u32) -> String {
        format!("{self}-{ordinal}")
    }

    /// The template with a version of the image, and more cpu with all but the first where that is of the case.
    fn wish(&self, version: u32) -> Value {
        let cpu =
            if self.state == State::Resizing && version > 1 { ["150m", "300m"] } else { ["100m", "200m"] };
        let resources = json!({"requests": {"cpu": cpu[0]}, "limits": {"cpu": cpu[1]}});
        let containers = json!([{"name": CONTAINER, "image": image(version), "resources": resources}]);
        json!({"spec": {"template": {"spec": {"containers": containers}}}})
    }

    /// Has the second pod stay at the state, and the third one be able to fail.
    async fn prepare(&self, test: &Testbed<'_>) -> Result<()> {
        let second = self.pod(1);
        match self.state {
            State::Draining => list(test, &self.to_string(), &second).await?,
            State::Patched => test.annotate(&second, json!({RESTART_SECONDS: NEVER})).await?,
            State::Unready => {
                let unready = image_outcomes(&[(&image(2), ImageOutcome::Unready)]);
                test.annotate(&second, json!({IMAGE_OUTCOMES: unready})).await?;
            }
            State::Resizing => {
                let deferred = ResizeOutcome::Deferred.name();
                test.annotate(&second, json!({RESIZE_OUTCOME: deferred})).await?;
            }
            State::Held => {}
        }
        if self.turn == Turn::RollsBack {
            let missing = image_outcomes(&[(&image(2), ImageOutcome::Missing)]);
            test.annotate(&self.pod(0), json!({IMAGE_OUTCOMES: missing, RESTART_SECONDS: NEVER})).await?;
        }
        Ok(())
    }

    /// Waits until the second pod is at the state, and the first one done.
    async fn is_reached(&self, test: &Testbed<'_>, workload: &Workload) -> Result<()> {
        let is_there = |life: &Life| match self.state {
            State::Draining => is_false(&life.pod, GATE) && life.runs(&image(1)),
            State::Patched => life.image() == Some(&*image(2)) && !life.runs(&image(2)),
            State::Unready => life.runs(&image(2)) && !life.is_ready(),
            State::Resizing => is_true(&life.pod, "PodResizePending"),
            State::Held => life.runs(&image(1)) && life.is_ready(),
        };
        if self.state == State::Held {
            test.told(&workload.name, HeldReason::ApprovalRequired).await?;
        }
        let what = format!("{self}: the first pod is done, and the second one there");
        test.pods_until(&what, |pods| {
            let first = pods.named(&self.pod(2))?;
            let is_done = first.runs(&image(2)) && first.is_ready();
            (is_done && is_there(pods.named(&self.pod(1))?)).then_some(())
        })
        .await
    }

    /// Nothing keeps the second pod any more.
    async fn release(&self, test: &Testbed<'_>) -> Result<()> {
        let second = self.pod(1);
        match self.state {
            // It has its traffic back whatever others say, unless it is to go on.
            State::Draining if self.turn == Turn::IsSuperseded => {
                test.api::<EndpointSlice>().delete(&self.to_string(), &DeleteParams::default()).await?;
            }
            State::Patched => test.annotate(&second, json!({RESTART_SECONDS: null})).await?,
            State::Resizing => test.annotate(&second, json!({RESIZE_OUTCOME: null})).await?,
            State::Draining | State::Unready | State::Held => {}
        }
        Ok(())
    }

    async fn play(&self, test: &Testbed<'_>, workload: &Workload) -> Result<()> {
        let name = &workload.name;
        self.prepare(test).await?;
        test.patch(workload, self.wish(2)).await?;
        let mut spec = workload.upgrade();
        let most = if self.turn == Turn::RollsBack { 2 } else { 1 };
        spec.strategy.max_unavailable = IntOrPercent::Int(most);
        spec.health.failure_threshold = IntOrPercent::Int(0);
        spec.traffic.drain.timeout_seconds = 3600;
        if self.state == State::Held {
            spec.strategy.steps = approved_after(1);
        }
        test.upgrade(name, spec).await?;
        self.is_reached(test, workload).await?;

        let hash = test.target_hash(name);
        let end = match self.turn {
            Turn::RollsBack => {
                test.annotate(&self.pod(0), json!({RESTART_SECONDS: null})).await?;
                self.release(test).await?;
                test.told(name, StalledReason::RolledBack).await?;
                Some(1)
            }
            Turn::Pauses => {
                test.edit(name, json!({"spec": {"mode": "Paused"}})).await?;
                test.told(name, HeldReason::Paused).await?;
                self.release(test).await?;
                None
            }
            Turn::IsSuperseded | Turn::IsReverted => {
                let version = if self.turn == Turn::IsReverted { 1 } else { 3 };
                test.patch(workload, self.wish(version)).await?;
                let other = test.another_wish(name, &hash).await?;
                self.release(test).await?;
                if self.state == State::Held {
                    test.edit(name, approval(&other)).await?;
                }
                test.told(name, ReadyReason::UpToDate).await?;
                Some(version)
            }
            Turn::IsDeleted => {
                test.api::<InPlaceUpgrade>().delete(name, &DeleteParams::default()).await?;
                self.release(test).await?;
                let gone = |upgrades: &Upgrades| upgrades.get(name).is_none().then_some(());
                test.upgrades.until(&format!("{name} is gone"), gone).await?;
                None
            }
        };
        if let Some(version) = end {
            test.running(workload, &image(version), 3).await?;
        }
        if (self.state, self.turn) == (State::Unready, Turn::IsDeleted) {
            // It is not ready, and that alone keeps it from traffic.
            return test
                .pods_until("all gates are open", |pods| {
                    let all = pods.of(name);
                    (all.len() == 3 && all.iter().all(|life| is_true(&life.pod, GATE))).then_some(())
                })
                .await;
        }
        test.all_in_traffic(workload).await
    }
}

#[tokio::test]
async fn whatever_a_pod_is_at_when_its_upgrade_ends_otherwise_it_comes_back_into_traffic() -> Result<()> {
    let test = Testbed::new(shared().await?, "states").await?;
    let cases = Case::all();
    let workloads: Vec<Workload> =
        cases.iter().map(|case| Workload::stateful_set(&case.to_string(), 3).on_delete()).collect();
    let started = join_all(workloads.iter().map(|workload| test.start(workload))).await;
    let before = started.into_iter().collect::<Result<Vec<_>>>()?;
    test.pods.now().count_anew();
    let oracle = Replacements::watch(&test).await?;
    let plays = cases
        .iter()
        .zip(&workloads)
        .map(async |(case, workload)| case.play(&test, workload).await.with_context(|| format!("{case:?}")));
    let wrong: Vec<String> =
        join_all(plays).await.into_iter().filter_map(|played| Some(format!("{:#}", played.err()?))).collect();
    ensure!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    for (workload, before) in workloads.iter().zip(&before) {
        test.pods.now().ensure_same(&workload.name, before)?;
    }
    oracle.ensure_none()?;
    test.verify()
}
