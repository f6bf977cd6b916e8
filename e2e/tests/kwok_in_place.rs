//! KWOK answers changes of a running pod as a kubelet does. All tests share one cluster; each has a namespace.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail as a test does")]

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::runtime::wait::await_condition;
use serde_json::{Value, json};
use springtide_e2e::kwok::{
    IMAGE_OUTCOMES, ImageOutcome, NodeSpec, RESIZE_OUTCOME, RESTART_SECONDS, ResizeOutcome, Stages,
    image_outcomes,
};
use springtide_e2e::local_cluster::LocalCluster;
use tokio::sync::OnceCell;

static CLUSTER: OnceCell<LocalCluster> = OnceCell::const_new();
/// Bound for events that are certain to come; far above what they take.
const BOUND: Duration = Duration::from_secs(120);
/// Longer than any test takes: the delay is still running whenever one looks.
const NOT_SOON: &str = "3600";
const OLD: &str = "example.com/app:1";
const NEW: &str = "example.com/app:2";
const GATE: &str = "springtide.dev/test-ready";

/// A namespace with one pod, [`POD`].
struct Bed {
    pods: Api<Pod>,
}

const POD: &str = "web";

fn pod(annotations: &Value, gates: &[&str]) -> Pod {
    let gates: Vec<Value> = gates.iter().map(|gate| json!({"conditionType": gate})).collect();
    serde_json::from_value(json!({
        "metadata": {"name": POD, "annotations": annotations},
        "spec": {
            "readinessGates": gates,
            "initContainers": [
                {"name": "prepare", "image": "example.com/prepare:1"},
                {"name": "proxy", "image": "example.com/proxy:1", "restartPolicy": "Always"},
            ],
            "containers": [
                {"name": "app", "image": OLD,
                    "resizePolicy": [
                        {"resourceName": "cpu", "restartPolicy": "NotRequired"},
                        {"resourceName": "memory", "restartPolicy": "RestartContainer"},
                    ],
                    "resources": {
                        "requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "200m", "memory": "64Mi"},
                    }},
                {"name": "log", "image": "example.com/log:1"},
            ],
        },
    }))
    .unwrap()
}

fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == type_)
}

fn is_true(pod: &Pod, type_: &str) -> bool {
    condition(pod, type_).is_some_and(|condition| condition.status == "True")
}

fn container<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let lists = [&status.container_statuses, &status.init_container_statuses];
    lists.into_iter().flatten().flatten().find(|container| container.name == name)
}

fn app(pod: &Pod) -> ContainerStatus {
    container(pod, "app").unwrap().clone()
}

fn is_observed(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.observed_generation) == pod.metadata.generation
}

/// Why a container does not run.
fn waits_for(pod: &Pod) -> Option<String> {
    container(pod, "app")?.state.as_ref()?.waiting.as_ref()?.reason.clone()
}

fn runs(pod: &Pod, image: &str) -> bool {
    let container = container(pod, "app");
    container.is_some_and(|container| {
        container.image == image && container.state.as_ref().is_some_and(|state| state.running.is_some())
    })
}

impl Bed {
    /// Waits until the pod runs.
    async fn new(annotations: Value, gates: &[&str]) -> Result<(Self, Pod)> {
        let start = || LocalCluster::builder().kwok(NodeSpec::default()).stages(Stages::InPlace).start();
        let cluster = CLUSTER.get_or_try_init(start).await?;
        let namespace = cluster.create_namespace("in-place").await?;
        let bed = Self { pods: Api::namespaced(cluster.client("springtide-test")?, &namespace) };
        bed.pods.create(&PostParams::default(), &pod(&annotations, gates)).await?;
        let pod = bed.until("it runs", |pod| runs(pod, OLD)).await?;
        Ok((bed, pod))
    }

    async fn until(&self, what: &str, check: impl Fn(&Pod) -> bool) -> Result<Pod> {
        let condition = |pod: Option<&Pod>| pod.is_some_and(&check);
        let waited = tokio::time::timeout(BOUND, await_condition(self.pods.clone(), POD, condition)).await;
        match waited {
            Ok(found) => found?.context("the pod is gone"),
            Err(_) => {
                let status = self.pods.get(POD).await?.status;
                anyhow::bail!("{what}: not within {BOUND:?}: {}", serde_json::to_string(&status)?)
            }
        }
    }

    async fn patch(&self, change: Value) -> Result<Pod> {
        Ok(self.pods.patch(POD, &PatchParams::default(), &Patch::Strategic(change)).await?)
    }

    async fn set_image(&self, image: &str) -> Result<Pod> {
        self.patch(json!({"spec": {"containers": [{"name": "app", "image": image}]}})).await
    }

    async fn annotate(&self, name: &str, value: Option<&str>) -> Result<Pod> {
        self.patch(json!({"metadata": {"annotations": {name: value}}})).await
    }

    async fn resize(&self, resources: Value) -> Result<Pod> {
        let change = json!({"spec": {"containers": [{"name": "app", "resources": resources}]}});
        Ok(self.pods.patch_resize(POD, &PatchParams::default(), &Patch::Strategic(change)).await?)
    }

    async fn set_gate(&self, status: &str) -> Result<Pod> {
        let change = json!({"status": {"conditions": [{"type": GATE, "status": status}]}});
        Ok(self.pods.patch_status(POD, &PatchParams::default(), &Patch::Strategic(change)).await?)
    }
}

/// The status of the app's container tells of these requests and limits of cpu.
fn has_cpu(pod: &Pod, requests: &str, limits: &str) -> bool {
    let Some(resources) = container(pod, "app").and_then(|container| container.resources.as_ref()) else {
        return false;
    };
    let cpu = |list: &Option<BTreeMap<String, Quantity>>| Some(list.as_ref()?.get("cpu")?.0.clone());
    cpu(&resources.requests).as_deref() == Some(requests) && cpu(&resources.limits).as_deref() == Some(limits)
}

#[tokio::test]
async fn a_changed_image_gets_a_new_container_in_the_same_pod() -> Result<()> {
    let (bed, before) = Bed::new(json!({}), &[]).await?;
    // Times of transitions count in whole seconds.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    bed.set_image(NEW).await?;
    let after = bed.until("the new container", |pod| runs(pod, NEW)).await?;
    ensure!(is_observed(&after) && after.metadata.generation > before.metadata.generation);
    ensure!(after.uid() == before.uid());
    let address = |pod: &Pod| pod.status.as_ref().and_then(|status| status.pod_ip.clone());
    ensure!(address(&after) == address(&before) && address(&after).is_some());
    let (old, new) = (app(&before), app(&after));
    ensure!(new.container_id != old.container_id && new.image_id != old.image_id);
    ensure!((old.restart_count, new.restart_count) == (0, 1) && new.ready);
    ensure!(new.resources == old.resources, "resources stay: {new:?}");
    let ended = new.last_state.context("a last state")?.terminated.context("the old container's end")?;
    ensure!(ended.container_id == old.container_id);
    for untouched in ["log", "prepare", "proxy"] {
        ensure!(
            container(&after, untouched) == container(&before, untouched),
            "{untouched} is not concerned"
        );
    }
    ensure!(is_true(&after, "Ready") && is_true(&after, "ContainersReady"));
    let since =
        |pod: &Pod| condition(pod, "ContainersReady").and_then(|ready| ready.last_transition_time.clone());
    ensure!(since(&after) > since(&before), "it was not ready in between");

    // Back to the old name, which is the old content.
    bed.set_image(OLD).await?;
    let back = bed.until("the old image", |pod| runs(pod, OLD)).await?;
    ensure!(app(&back).image_id == old.image_id && app(&back).container_id != old.container_id);
    ensure!(app(&back).restart_count == 2);
    Ok(())
}

#[tokio::test]
async fn a_sidecar_is_restarted_with_its_new_image_and_an_init_container_is_not_run_again() -> Result<()> {
    let (bed, before) = Bed::new(json!({}), &[]).await?;
    // In the order of the spec: a strategic merge takes the order of the patch.
    let change = json!([
        {"name": "prepare", "image": "example.com/prepare:2"}, {"name": "proxy", "image": "example.com/proxy:2"},
    ]);
    bed.patch(json!({"spec": {"initContainers": change}})).await?;
    let is_new =
        |pod: &Pod| container(pod, "proxy").is_some_and(|proxy| proxy.image == "example.com/proxy:2");
    let after = bed.until("the new sidecar", is_new).await?;
    ensure!(container(&after, "proxy").is_some_and(|proxy| proxy.restart_count == 1 && proxy.ready));
    for untouched in ["app", "log", "prepare"] {
        ensure!(
            container(&after, untouched) == container(&before, untouched),
            "{untouched} is not concerned"
        );
    }
    Ok(())
}

#[tokio::test]
async fn the_new_generation_is_told_while_the_old_container_still_runs() -> Result<()> {
    let (bed, before) = Bed::new(json!({RESTART_SECONDS: NOT_SOON}), &[]).await?;
    bed.set_image(NEW).await?;
    let told = bed
        .until("the new generation", |pod| {
            is_observed(pod) && pod.metadata.generation != before.metadata.generation
        })
        .await?;
    ensure!(app(&told) == app(&before) && is_true(&told, "Ready"));
    bed.annotate(RESTART_SECONDS, Some("0.1")).await?;
    bed.until("the new container", |pod| runs(pod, NEW)).await?;
    Ok(())
}

#[tokio::test]
async fn an_image_that_is_not_there_leaves_no_container_until_another_is_asked_for() -> Result<()> {
    let outcomes = image_outcomes(&[(NEW, ImageOutcome::Missing)]);
    let (bed, before) = Bed::new(json!({IMAGE_OUTCOMES: outcomes}), &[]).await?;
    bed.set_image(NEW).await?;
    let waits = |pod: &Pod| waits_for(pod).as_deref() == Some("ImagePullBackOff");
    let waiting = bed.until("it is not ready", |pod| waits(pod) && !is_true(pod, "Ready")).await?;
    ensure!(!is_true(&waiting, "ContainersReady"));
    ensure!(
        condition(&waiting, "Ready").and_then(|ready| ready.reason.as_deref()) == Some("ContainersNotReady")
    );
    let (old, gone) = (app(&before), app(&waiting));
    ensure!((&gone.container_id, &gone.image_id) == (&old.container_id, &old.image_id), "there is no other");
    ensure!(
        gone.restart_count == 0
            && !gone.ready
            && gone.last_state.is_some_and(|last| last.terminated.is_some())
    );

    bed.set_image(OLD).await?;
    let back = bed.until("it runs again", |pod| runs(pod, OLD) && is_true(pod, "Ready")).await?;
    ensure!(app(&back).container_id != old.container_id && app(&back).image_id == old.image_id);
    // Somebody pushes it.
    bed.set_image(NEW).await?;
    bed.until("it waits again", waits).await?;
    bed.annotate(IMAGE_OUTCOMES, None).await?;
    bed.until("the image is found", |pod| runs(pod, NEW) && is_true(pod, "Ready")).await?;
    Ok(())
}

#[tokio::test]
async fn a_container_that_crashes_is_started_again_and_again() -> Result<()> {
    let outcomes = image_outcomes(&[(NEW, ImageOutcome::Crashes)]);
    let (bed, before) = Bed::new(json!({IMAGE_OUTCOMES: outcomes}), &[]).await?;
    bed.set_image(NEW).await?;
    let waits = |pod: &Pod| waits_for(pod).as_deref() == Some("CrashLoopBackOff");
    let crashed = bed.until("it is not ready", |pod| waits(pod) && !is_true(pod, "Ready")).await?;
    let (old, new) = (app(&before), app(&crashed));
    ensure!(new.image == NEW && new.container_id != old.container_id && new.image_id != old.image_id);
    let ended = new.last_state.context("a last state")?.terminated.context("an end")?;
    ensure!(ended.exit_code == 1 && ended.container_id == new.container_id);
    let again =
        |pod: &Pod| container(pod, "app").is_some_and(|app| app.restart_count > new.restart_count + 1);
    bed.until("two more restarts", again).await?;
    bed.set_image(OLD).await?;
    bed.until("it recovers", |pod| runs(pod, OLD) && is_true(pod, "Ready")).await?;
    Ok(())
}

#[tokio::test]
async fn another_name_of_the_same_content_keeps_the_image_id() -> Result<()> {
    let outcomes = image_outcomes(&[(NEW, ImageOutcome::SameContent)]);
    let (bed, before) = Bed::new(json!({IMAGE_OUTCOMES: outcomes}), &[]).await?;
    bed.set_image(NEW).await?;
    let after = bed.until("the new container", |pod| runs(pod, NEW)).await?;
    let (old, new) = (app(&before), app(&after));
    ensure!(new.image_id == old.image_id && new.container_id != old.container_id && new.ready);
    Ok(())
}

#[tokio::test]
async fn a_container_may_run_and_never_be_ready() -> Result<()> {
    let outcomes = image_outcomes(&[(NEW, ImageOutcome::Unready)]);
    let (bed, _) = Bed::new(json!({IMAGE_OUTCOMES: outcomes}), &[]).await?;
    bed.set_image(NEW).await?;
    let after = bed.until("it runs unready", |pod| runs(pod, NEW) && !is_true(pod, "Ready")).await?;
    ensure!(app(&after).started == Some(true) && !app(&after).ready && !is_true(&after, "ContainersReady"));
    Ok(())
}

#[tokio::test]
async fn changed_resources_come_into_force_without_a_restart_where_the_policy_lets_them() -> Result<()> {
    let (bed, before) = Bed::new(json!({}), &[]).await?;
    bed.resize(json!({"requests": {"cpu": "150m"}, "limits": {"cpu": "1000m"}})).await?;
    let after = bed.until("the new cpu", |pod| has_cpu(pod, "150m", "1")).await?;
    let (old, new) = (app(&before), app(&after));
    ensure!(new.container_id == old.container_id && new.restart_count == 0 && is_observed(&after));
    let requests = new.resources.as_ref().and_then(|resources| resources.requests.clone());
    ensure!(new.allocated_resources == requests && requests.is_some());
    ensure!(is_true(&after, "Ready") && condition(&after, "PodResizePending").is_none());

    bed.resize(json!({"requests": {"memory": "128Mi"}, "limits": {"memory": "128Mi"}})).await?;
    let restarted = bed
        .until("the restart", |pod| container(pod, "app").is_some_and(|app| app.restart_count == 1))
        .await?;
    ensure!(app(&restarted).container_id != old.container_id && app(&restarted).image_id == old.image_id);
    Ok(())
}

#[tokio::test]
async fn a_resize_that_waits_says_why_and_comes_when_it_can() -> Result<()> {
    for outcome in [ResizeOutcome::Deferred, ResizeOutcome::Infeasible, ResizeOutcome::InProgress] {
        let (bed, before) = Bed::new(json!({RESIZE_OUTCOME: outcome.name()}), &[]).await?;
        bed.resize(json!({"limits": {"cpu": "2"}})).await?;
        let type_ = match outcome {
            ResizeOutcome::Deferred | ResizeOutcome::Infeasible => "PodResizePending",
            ResizeOutcome::InProgress => "PodResizeInProgress",
        };
        let waits = bed.until("it waits", |pod| is_true(pod, type_)).await?;
        let told = condition(&waits, type_).context("the condition")?;
        ensure!(told.observed_generation == waits.metadata.generation);
        if type_ == "PodResizePending" {
            ensure!(told.reason.as_deref() == Some(outcome.name()));
        }
        ensure!(app(&waits) == app(&before) && is_observed(&waits) && is_true(&waits, "Ready"));

        bed.annotate(RESIZE_OUTCOME, None).await?;
        let after = bed.until("it comes", |pod| has_cpu(pod, "100m", "2")).await?;
        ensure!(condition(&after, type_).is_none(), "nothing waits any more");

        // What is given up is not told any more.
        bed.annotate(RESIZE_OUTCOME, Some(outcome.name())).await?;
        bed.resize(json!({"limits": {"cpu": "3"}})).await?;
        bed.until("it waits again", |pod| is_true(pod, type_)).await?;
        bed.resize(json!({"limits": {"cpu": "2"}})).await?;
        let back =
            bed.until("it is given up", |pod| condition(pod, type_).is_none() && is_observed(pod)).await?;
        ensure!(has_cpu(&back, "100m", "2") && app(&back).restart_count == 0);
    }
    Ok(())
}

#[tokio::test]
async fn other_changes_of_a_spec_are_told_and_touch_no_container() -> Result<()> {
    let (bed, before) = Bed::new(json!({}), &[]).await?;
    let tolerations = json!([{"key": "springtide.dev/test", "operator": "Exists"}]);
    let changed = bed.patch(json!({"spec": {"tolerations": tolerations}})).await?;
    ensure!(changed.metadata.generation > before.metadata.generation);
    let after = bed
        .until("the new generation", |pod| {
            is_observed(pod) && pod.metadata.generation == changed.metadata.generation
        })
        .await?;
    ensure!(app(&after) == app(&before));
    let labelled = bed.patch(json!({"metadata": {"labels": {"track": "canary"}}})).await?;
    ensure!(labelled.metadata.generation == changed.metadata.generation, "labels are not of the spec");
    Ok(())
}

#[tokio::test]
async fn a_gated_pod_is_ready_while_its_gates_are_true() -> Result<()> {
    let (bed, _) = Bed::new(json!({}), &[GATE]).await?;
    let closed = |pod: &Pod| {
        let ready = condition(pod, "Ready");
        ready.is_some_and(|ready| {
            ready.status == "False" && ready.reason.as_deref() == Some("ReadinessGatesNotReady")
        })
    };
    let begun = bed.until("nobody has set its gate", closed).await?;
    ensure!(is_true(&begun, "ContainersReady"));
    for _ in 0..3 {
        bed.set_gate("True").await?;
        bed.until("it is ready", |pod| is_true(pod, "Ready")).await?;
        bed.set_gate("False").await?;
        let after = bed.until("it is not ready", closed).await?;
        ensure!(is_true(&after, "ContainersReady"));
    }
    // Images of pods out of traffic, which come back with them.
    bed.set_image(NEW).await?;
    let after = bed.until("the new container", |pod| runs(pod, NEW)).await?;
    ensure!(is_true(&after, "ContainersReady") && !is_true(&after, "Ready"));
    bed.set_gate("True").await?;
    bed.until("it is ready", |pod| is_true(pod, "Ready")).await?;
    Ok(())
}
