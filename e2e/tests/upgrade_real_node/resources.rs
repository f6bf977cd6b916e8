//! Cpu and memory: what reaches live pods and the kernel, and what a node cannot carry out.

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{Container, Node};
use kube::api::Api;
use serde_json::{Value, json};
use springtide_crds::in_place_upgrade::{
    BlockedReason, InPlaceUpgrade, OnFailure, PrePullMode, RunResult, StalledReason,
};
use springtide_e2e::node::{NODE_NAME, NodeCluster, PodLimits, required_or_skipped};
use springtide_e2e::upgrade::cost::{RESIZED, ensure_each_pod_cost, writes_by_pod};
use springtide_e2e::upgrade::pods::{Life, is_true};
use springtide_e2e::upgrade::real_node::NodeBed;
use springtide_e2e::upgrade::traffic::{PROGRAM, server_reference};
use springtide_e2e::upgrade::workload::CONTAINER;
use springtide_e2e::upgrade::{Testbed, Workload, native};
use springtide_plumbing::quantity::parse_amount;

use super::{TURN, container_ids, ensure_lines, of_pods, shared, with_pod};

/// Writes of a pod whose resources change, and then its image.
const RESIZED_AND_GATED: &[&str] = &["pods/resize", "pods/status", "pods", "pods/status"];

/// A server whose pods have these resources.
fn sized(name: &str, replicas: u32, resources: &Value) -> Workload {
    with_pod(Workload::deployment(name, replicas).serving(), |pod| {
        pod["containers"][0]["resources"] = resources.clone();
    })
}

/// A change of the server's container.
fn of_server(fields: Value) -> Value {
    let mut container = json!({"name": CONTAINER});
    if let (Some(container), Value::Object(fields)) = (container.as_object_mut(), fields) {
        container.extend(fields);
    }
    of_pods(json!({"containers": [container]}))
}

/// The server of each pod, as the API server has it.
fn servers(test: &Testbed<'_>, workload: &Workload) -> Result<Vec<Container>> {
    let pods = test.pods.now();
    let server = |life: &Life| {
        life.pod.spec.as_ref()?.containers.iter().find(|container| container.name == CONTAINER).cloned()
    };
    pods.of(&workload.name).into_iter().map(|life| server(life).context("a server")).collect()
}

#[tokio::test]
async fn resources_of_the_template_reach_live_pods_and_the_kernel_with_and_without_an_image() -> Result<()> {
    let _turn = TURN.read().await;
    let Some(bed) = shared().await? else { return Ok(()) };
    let test = Testbed::new(bed.plane(), "resources").await?;
    let small = json!({
        "requests": {"cpu": "50m", "memory": "16Mi"}, "limits": {"cpu": "200m", "memory": "64Mi"},
    });
    let large = json!({
        "requests": {"cpu": "60m", "memory": "32Mi"}, "limits": {"cpu": "400m", "memory": "128Mi"},
    });
    let limits = |cpu_millis, mebibytes: u64| PodLimits {
        cpu_millis: Some(cpu_millis),
        memory_bytes: Some(mebibytes << 20),
    };
    let cases =
        [("alone", None, RESIZED, 0), ("with-image", Some(server_reference(2)), RESIZED_AND_GATED, 1)];
    let workloads = [sized("alone", 2, &small), sized("with-image", 2, &small)];
    let before = try_join_all(workloads.iter().map(|workload| test.start_paused(workload))).await?;
    for ((workload, before), (name, image, cost, restarts)) in workloads.iter().zip(&before).zip(&cases) {
        for pod in before.values() {
            ensure!(bed.cluster.limits_of_pod(&pod.uid)? == limits(200, 64), "{name}");
        }
        let mut wish = json!({"resources": large});
        if let Some(image) = image {
            wish["image"] = json!(image);
        }
        test.patch(workload, of_server(wish)).await?;
        let mark = test.mark()?;
        let mut spec = workload.one_by_one();
        spec.pre_pull.mode = PrePullMode::Auto;
        test.upgrade(name, spec).await?;
        test.succeeded(name, "").await?;
        native::agrees(&test, workload).await?;
        for (pod, identity) in before {
            let seen = bed.cluster.limits_of_pod(&identity.uid)?;
            ensure!(seen == limits(400, 128), "the kernel holds {pod} to {seen:?}");
        }
        {
            let pods = test.pods.now();
            pods.ensure_same(name, before)?;
            for life in pods.of(name) {
                let in_force = life.container().and_then(|container| container.resources.as_ref());
                let in_force = serde_json::to_value(in_force)?;
                ensure!(in_force["limits"] == large["limits"], "{}: {in_force}", life.name());
                ensure!(in_force["requests"] == large["requests"], "{}: {in_force}", life.name());
                ensure!(life.restarts() == *restarts, "{} was restarted", life.name());
            }
        }
        ensure_each_pod_cost(&test.requests_since(mark)?.successful(), 2, cost)?;
    }
    let [alone, with_image] = &workloads;
    ensure_lines(bed, &test, alone, &["v1"])?;
    ensure_lines(bed, &test, with_image, &["v1", "v2"])?;
    test.verify()?;
    test.clear().await
}

/// Whether a pod of an upgrade has failed for this reason.
fn has_failed(upgrade: &InPlaceUpgrade, reason: &str) -> bool {
    let failures = upgrade.status.iter().flat_map(|status| &status.failures);
    failures.into_iter().any(|failure| failure.reason == reason)
}

#[tokio::test]
async fn what_a_node_cannot_carry_out_is_said_with_its_reason_and_no_image_follows() -> Result<()> {
    let _turn = TURN.write().await;
    if !required_or_skipped().await? {
        return Ok(());
    }
    // A node that gives whole CPUs away resizes no Guaranteed pod.
    let bed = NodeBed::start(NodeCluster::builder().reserved_cpus("0".parse()?)).await?;
    let test = Testbed::new(bed.plane(), "refused").await?;
    let node = Api::<Node>::all(test.client()).get(NODE_NAME).await?;
    let allocatable = node.status.and_then(|status| status.allocatable).context("allocatable")?;
    let offered = allocatable.get("cpu").and_then(|cpu| parse_amount("cpu", &cpu.0)).context("cpu")?;
    let requests = |cpu: &str| json!({"requests": {"cpu": cpu, "memory": "16Mi"}});
    let guaranteed = |cpu: &str| {
        let both = json!({"cpu": cpu, "memory": "32Mi"});
        json!({"requests": both, "limits": both})
    };
    let memory =
        |limit: &str| json!({"requests": {"cpu": "50m", "memory": "16Mi"}, "limits": {"memory": limit}});
    let above = sized("above", 1, &requests("50m"));
    let infeasible = sized("infeasible", 1, &guaranteed("100m"));
    let deferred = sized("deferred", 1, &requests("100m"));
    let neighbour = sized("neighbour", 1, &requests("50m"));
    let hungry = with_pod(sized("hungry", 1, &memory("128Mi")), |pod| {
        let container = &mut pod["containers"][0];
        container["command"] = json!([PROGRAM, "hold", "64Mi", "100000"]);
        container["readinessProbe"] = Value::Null;
    });
    let workloads = [&above, &infeasible, &deferred, &hungry, &neighbour];
    let before = try_join_all(workloads.iter().map(|workload| test.start_paused(workload))).await?;
    let ids: Vec<_> = workloads.iter().map(|workload| container_ids(&test, workload)).collect();
    let mark = test.mark()?;
    // All that is free, and more than that is: less what others have asked for, it is not there.
    let wishes = [
        (&above, requests(&format!("{}m", offered + 1000)), OnFailure::Auto),
        (&infeasible, guaranteed("200m"), OnFailure::Hold),
        (&deferred, requests(&format!("{}m", offered - 50)), OnFailure::Auto),
        (&hungry, memory("32Mi"), OnFailure::Hold),
    ];
    for (workload, resources, on_failure) in wishes {
        let wish = json!({"image": server_reference(2), "resources": resources});
        test.patch(workload, of_server(wish)).await?;
        let mut spec = workload.one_by_one();
        spec.strategy.resize_timeout_seconds = 10;
        spec.rollback.on_failure = on_failure;
        test.upgrade(&workload.name, spec).await?;
    }
    test.pods_until("a resize waits for room", |pods| {
        pods.of("deferred").iter().any(|life| is_true(&life.pod, "PodResizePending")).then_some(())
    })
    .await?;
    // Whether it gets in before or after, it does not hang.
    test.patch(&neighbour, of_server(json!({"resources": requests("60m")}))).await?;
    let mut spec = neighbour.one_by_one();
    spec.strategy.resize_timeout_seconds = 10;
    test.upgrade("neighbour", spec).await?;

    test.told("above", StalledReason::PodsBlocked).await?;
    test.until("above", "it says why", |upgrade| {
        let reasons = upgrade.status.iter().flat_map(|status| &status.plan.reasons);
        reasons.into_iter().any(|blocked| blocked.reason == BlockedReason::ExceedsNodeAllocatable)
    })
    .await?;
    for (name, reason) in [("infeasible", "ResizeInfeasible"), ("hungry", "ResizeInProgress")] {
        test.until(name, reason, |upgrade| has_failed(upgrade, reason)).await?;
        test.told(name, StalledReason::HealthFailed).await?;
    }
    let upgrade = test.told("deferred", StalledReason::RolledBack).await?;
    let run = upgrade.status.and_then(|status| status.last_run).context("the run")?;
    ensure!(run.result == RunResult::RolledBack);
    test.until("neighbour", "its run has ended", |upgrade| {
        upgrade.status.as_ref().is_some_and(|status| status.last_run.is_some())
    })
    .await?;
    test.pods_until("nothing of it is left", |pods| {
        pods.of("deferred").iter().all(|life| !is_true(&life.pod, "PodResizePending")).then_some(())
    })
    .await?;
    for server in servers(&test, &deferred)? {
        let own = serde_json::to_value(server.resources)?;
        ensure!(own["requests"]["cpu"] == "100m", "{own}");
    }

    native::is_idle(&test).await?;
    for ((workload, before), ids) in workloads.iter().zip(&before).zip(&ids) {
        test.all_in_traffic(workload).await?;
        ensure!(container_ids(&test, workload) == *ids, "{} was restarted", workload.name);
        test.pods.now().ensure_same(&workload.name, before)?;
    }
    ensure!(test.pods.now().changes().is_empty(), "an image followed");
    let writes = writes_by_pod(&test.requests_since(mark)?);
    let of_above: Vec<_> = writes.keys().filter(|pod| pod.starts_with("above-")).collect();
    ensure!(of_above.is_empty(), "it could have been known before: {writes:?}");
    test.verify()?;
    drop(test);
    bed.stop()
}
