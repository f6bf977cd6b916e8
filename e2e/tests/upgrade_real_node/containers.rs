//! Pods of several containers: grace, hooks, probes, sidecars, init containers, and what crashed before.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::{Value, json};
use springtide_crds::in_place_upgrade::PrePullMode;
use springtide_e2e::upgrade::pods::{Life, Pods, is_false};
use springtide_e2e::upgrade::real_node::{CRASHING, note};
use springtide_e2e::upgrade::traffic::{LINES, box_image, lines, server_reference};
use springtide_e2e::upgrade::workload::CONTAINER;
use springtide_e2e::upgrade::{GATE, Testbed, Workload, native};

use super::{
    TURN, container_ids, ensure_lines, of_pods, restarts_of, shared, statuses, with_image, with_pod,
};

/// Where the volume of a pod is.
fn scratch() -> Value {
    json!([{"name": "scratch", "mountPath": "/scratch"}])
}

/// Hooks that say which container starts and stops, and make its end take some seconds.
fn hooks(container: &str) -> Value {
    json!({
        "postStart": {"exec": {"command": note(&format!("{container} starts"), "0")}},
        "preStop": {"exec": {"command": note(&format!("{container} stops"), "4")}},
    })
}

/// The only pod of a workload.
fn only<'a>(pods: &'a Pods, workload: &str) -> Option<&'a Life> {
    match pods.of(workload).as_slice() {
        [life] => Some(*life),
        [] | [_, _, ..] => None,
    }
}

#[tokio::test]
async fn containers_that_take_their_time_to_stop_are_all_replaced_and_their_hooks_run() -> Result<()> {
    let _turn = TURN.read().await;
    let Some(bed) = shared().await? else { return Ok(()) };
    let test = Testbed::new(bed.plane(), "grace").await?;
    for version in ["v1", "v2"] {
        let image = box_image(&format!("localhost/sleeper:{version}"), &["sleep", "100000", version])?;
        bed.registry.push(&image)?;
    }
    let names = [CONTAINER, "second", "third"];
    let web = with_pod(Workload::deployment("web", 1).serving(), |pod| {
        pod["terminationGracePeriodSeconds"] = json!(30);
        pod["containers"][0]["startupProbe"] =
            json!({"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1, "failureThreshold": 60});
        let beside = |name| json!({"name": name, "image": "localhost/sleeper:v1", "volumeMounts": scratch()});
        if let Some(containers) = pod["containers"].as_array_mut() {
            containers.extend(names.into_iter().skip(1).map(beside));
        }
        for (place, name) in names.into_iter().enumerate() {
            pod["containers"][place]["lifecycle"] = hooks(name);
        }
    });
    let before = test.start_paused(&web).await?;
    let images = [server_reference(2), "localhost/sleeper:v2".to_owned(), "localhost/sleeper:v2".to_owned()];
    let wished: Vec<Value> =
        names.iter().zip(&images).map(|(name, image)| json!({"name": name, "image": image})).collect();
    test.patch(&web, of_pods(json!({"containers": wished}))).await?;
    let mut spec = web.one_by_one();
    spec.pre_pull.mode = PrePullMode::Auto;
    test.upgrade("web", spec).await?;
    // The kubelet says that it has seen the patch before it stops the first container.
    let is_out = test
        .pods_until("the patch is observed, and the old container runs", |pods| {
            let life = only(pods, "web")?;
            let status = life.pod.status.as_ref()?;
            let observed = status.observed_generation >= life.pod.metadata.generation;
            let running = life.container()?.state.as_ref()?.running.is_some();
            let is_old = life.container()?.image == server_reference(1);
            let is_patched = life.image() == Some(server_reference(2).as_str());
            (observed && is_patched && is_old && running).then(|| is_false(&life.pod, GATE))
        })
        .await?;
    ensure!(is_out, "that is not the end of it");
    test.succeeded("web", "").await?;
    native::agrees(&test, &web).await?;
    let ip = {
        let pods = test.pods.now();
        pods.ensure_same("web", &before)?;
        let life = only(&pods, "web").context("a pod")?;
        for name in names {
            ensure!(restarts_of(life, name) == Some(1), "{name}: {:?}", restarts_of(life, name));
        }
        ensure!(life.drains == 1 && statuses(life).iter().all(|status| status.started == Some(true)));
        life.identity().context("an address")?.ip
    };
    let kept = lines(&bed.cluster, &ip)?;
    let count = |line: &str| kept.iter().filter(|kept| *kept == line).count();
    for name in names {
        let (starts, stops) = (count(&format!("{name} starts")), count(&format!("{name} stops")));
        ensure!((starts, stops) == (2, 1), "{name} has started {starts} times and stopped {stops}: {kept:?}");
    }
    ensure!((count("v1"), count("v2")) == (1, 1), "{kept:?}");
    test.verify()?;
    test.clear().await
}

#[tokio::test]
async fn a_sidecar_is_replaced_alone_and_an_init_image_waits_for_the_next_restart() -> Result<()> {
    let _turn = TURN.read().await;
    let Some(bed) = shared().await? else { return Ok(()) };
    let test = Testbed::new(bed.plane(), "sidecar").await?;
    for version in ["v1", "v2"] {
        let image = |name: &str| format!("localhost/{name}:{version}");
        let said = format!("prepared by {version}");
        bed.registry.push(&box_image(&image("prepare"), &["note", LINES, &said])?)?;
        bed.registry.push(&box_image(&image("proxy"), &["http", "8090", version])?)?;
    }
    let web = with_pod(Workload::deployment("web", 1).serving(), |pod| {
        pod["initContainers"] = json!([
            {"name": "prepare", "image": "localhost/prepare:v1", "volumeMounts": scratch()},
            {
                "name": "proxy", "image": "localhost/proxy:v1", "restartPolicy": "Always",
                "startupProbe": {
                    "httpGet": {"path": "/", "port": 8090}, "periodSeconds": 1, "failureThreshold": 60,
                },
            },
        ]);
    });
    let before = test.start_paused(&web).await?;
    let wish = |name: &str, image: &str| of_pods(json!({"initContainers": [{"name": name, "image": image}]}));
    test.patch(&web, wish("proxy", "localhost/proxy:v2")).await?;
    let mut spec = web.one_by_one();
    spec.pre_pull.mode = PrePullMode::Auto;
    test.upgrade("web", spec).await?;
    test.succeeded("web", "").await?;
    native::agrees(&test, &web).await?;
    {
        let pods = test.pods.now();
        pods.ensure_same("web", &before)?;
        let life = only(&pods, "web").context("a pod")?;
        for (name, restarts) in [("prepare", 0), ("proxy", 1), (CONTAINER, 0)] {
            ensure!(restarts_of(life, name) == Some(restarts), "{name}: {:?}", restarts_of(life, name));
        }
        let proxy = statuses(life).into_iter().find(|status| status.name == "proxy").context("a proxy")?;
        ensure!(proxy.started == Some(true) && life.is_ready() && life.drains == 1);
    }
    ensure_lines(bed, &test, &web, &["prepared by v1", "v1"])?;

    let ids = container_ids(&test, &web);
    let first = test.target_hash("web");
    test.patch(&web, wish("prepare", "localhost/prepare:v2")).await?;
    test.succeeded("web", &first).await?;
    native::agrees(&test, &web).await?;
    test.until("web", "the image waits for a restart", |upgrade| {
        upgrade.status.as_ref().is_some_and(|status| status.pods.next_restart_only == 1)
    })
    .await?;
    ensure!(container_ids(&test, &web) == ids, "something was restarted");
    {
        let pods = test.pods.now();
        pods.ensure_same("web", &before)?;
        let life = only(&pods, "web").context("a pod")?;
        let init = life.pod.spec.as_ref().and_then(|spec| spec.init_containers.as_ref()).context("init")?;
        ensure!(init[0].image.as_deref() == Some("localhost/prepare:v2") && life.drains == 1);
    }
    test.verify()?;
    test.clear().await
}

/// What a pod's server waits for, in the kubelet's word.
fn waits_for(life: &Life) -> Option<&str> {
    life.container()?.state.as_ref()?.waiting.as_ref()?.reason.as_deref()
}

#[tokio::test]
async fn a_version_that_runs_takes_the_place_of_one_that_crashes_again_and_again() -> Result<()> {
    let _turn = TURN.read().await;
    let Some(bed) = shared().await? else { return Ok(()) };
    let test = Testbed::new(bed.plane(), "crashing").await?;
    let web = with_image(Workload::deployment("web", 2).serving(), CRASHING);
    test.create::<Deployment>(web.manifest()).await?;
    let before = test
        .pods_until("both pods are held back", |pods| {
            let held = |life: &&&Life| waits_for(life) == Some("CrashLoopBackOff") && life.restarts() > 0;
            let lives = pods.of("web");
            (lives.iter().filter(held).count() == 2).then(|| pods.identities("web"))
        })
        .await?;
    test.patch(&web, json!({"spec": {"paused": true}})).await?;
    test.set_image(&web, &server_reference(2)).await?;
    let mut spec = web.one_by_one();
    spec.pre_pull.mode = PrePullMode::Auto;
    test.upgrade("web", spec).await?;
    test.succeeded("web", "").await?;
    native::agrees(&test, &web).await?;
    test.running(&web, &server_reference(2), 2).await?;
    test.pods.now().ensure_same("web", &before)?;
    ensure_lines(bed, &test, &web, &["v2"])?;
    test.verify()?;
    test.clear().await
}
