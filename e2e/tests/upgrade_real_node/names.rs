//! Names of images: an upgrade ends whether or not the content is another one.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use serde_json::json;
use springtide_crds::common::IntOrPercent;
use springtide_crds::in_place_upgrade::{HeldReason, Hold, HoldType, PrePullMode, Step};
use springtide_e2e::upgrade::traffic::{ask, server, server_reference};
use springtide_e2e::upgrade::{Testbed, Workload, native};

use super::{TURN, container_ids, ensure_lines, shared, with_image, with_pod};

const NAMED: &str = "registry.example/named:v1";

/// The digest in an image ID, which may have a name before it.
fn digest(image_id: &str) -> &str {
    image_id.rsplit_once('@').map_or(image_id, |(_, digest)| digest)
}

/// Digests of the images that the server of each pod runs.
fn digests(test: &Testbed<'_>, workload: &Workload) -> BTreeSet<String> {
    let pods = test.pods.now();
    let lives = pods.of(&workload.name);
    lives.iter().filter_map(|life| Some(digest(&life.container()?.image_id).to_owned())).collect()
}

#[tokio::test]
async fn another_name_of_the_same_content_restarts_each_pod_once_and_the_run_ends() -> Result<()> {
    let _turn = TURN.read().await;
    let Some(bed) = shared().await? else { return Ok(()) };
    let test = Testbed::new(bed.plane(), "names").await?;
    let image = server(NAMED, "named")?;
    bed.registry.push(&image)?;
    let names = ["registry.example/named:same", "named:v1", "localhost/team/named:v1"];
    for name in names {
        bed.registry.tag(name, NAMED)?;
    }
    let pinned = format!("registry.example/named@{}", image.digest);
    let both = format!("{NAMED}@{}", image.digest);
    let cases = [
        ("tags", NAMED, names[0]),
        ("short", NAMED, names[1]),
        ("qualified", names[1], "docker.io/library/named:v1"),
        ("registries", names[2], NAMED),
        ("pinned", NAMED, &*pinned),
        ("unpinned", &*pinned, NAMED),
        ("both", NAMED, &*both),
    ];
    let workloads = cases.map(|(name, from, _)| {
        // What stays for its grace period and some seconds is the new container.
        with_pod(with_image(Workload::deployment(name, 1).serving(), from), |pod| {
            pod["terminationGracePeriodSeconds"] = json!(1);
        })
    });
    let before = try_join_all(workloads.iter().map(|workload| test.start_paused(workload))).await?;
    let mut ids = Vec::new();
    let mut contents = Vec::new();
    for (workload, (name, _, to)) in workloads.iter().zip(cases) {
        ids.push(container_ids(&test, workload));
        contents.push(digests(&test, workload));
        test.set_image(workload, to).await?;
        let mut spec = workload.upgrade();
        spec.pre_pull.mode = PrePullMode::Auto;
        test.upgrade(name, spec).await?;
    }
    for (number, workload) in workloads.iter().enumerate() {
        let name = &workload.name;
        test.succeeded(name, "").await.with_context(|| name.clone())?;
        native::agrees(&test, workload).await?;
        let now = container_ids(&test, workload);
        ensure!(now.keys().eq(ids[number].keys()) && now != ids[number], "{name} was not restarted: {now:?}");
        ensure!(digests(&test, workload) == contents[number], "{name} has other content");
        {
            let pods = test.pods.now();
            pods.ensure_same(name, &before[number])?;
            ensure!(pods.of(name).iter().all(|life| life.restarts() == 1 && life.drains == 1), "{name}");
        }
        ensure_lines(bed, &test, workload, &["named", "named"])?;
    }
    native::is_idle(&test).await?;
    test.verify()?;
    test.clear().await
}

#[tokio::test]
async fn a_tag_that_gets_other_content_in_mid_run_is_an_upgrade_that_ends() -> Result<()> {
    const MOVING: &str = "registry.example/moving:v1";
    let _turn = TURN.read().await;
    let Some(bed) = shared().await? else { return Ok(()) };
    let test = Testbed::new(bed.plane(), "retag").await?;
    bed.registry.push(&server(MOVING, "first")?)?;
    bed.registry.push(&server("registry.example/moved:v1", "second")?)?;
    let web = with_pod(Workload::deployment("web", 2).serving(), |pod| {
        pod["containers"][0]["imagePullPolicy"] = json!("Always");
    });
    let before = test.start_paused(&web).await?;
    test.set_image(&web, MOVING).await?;
    let mut spec = web.one_by_one();
    spec.pre_pull.mode = PrePullMode::Auto;
    let hold = Hold { type_: HoldType::Approval, duration_seconds: None };
    spec.strategy.steps = vec![
        Step { replicas: IntOrPercent::Int(1), hold: Some(hold) },
        Step { replicas: IntOrPercent::ALL, hold: None },
    ];
    test.upgrade("web", spec).await?;
    test.told("web", HeldReason::ApprovalRequired).await?;
    bed.registry.tag(MOVING, "registry.example/moved:v1")?;
    let approval = json!({"targetHash": test.target_hash("web"), "throughStep": 1});
    test.edit("web", json!({"spec": {"approval": approval}})).await?;
    test.succeeded("web", "").await?;
    native::agrees(&test, &web).await?;
    let mut answers = BTreeSet::new();
    for pod in before.values() {
        answers.insert(ask(&bed.cluster, &pod.ip, "/")?);
    }
    ensure!(answers == BTreeSet::from(["first".to_owned(), "second".to_owned()]), "{answers:?}");
    ensure!(digests(&test, &web).len() == 2);
    test.pods.now().ensure_same("web", &before)?;
    ensure!(test.pods.now().of("web").iter().all(|life| life.restarts() == 1));

    // Back to an image that the node has had all the time.
    let first = test.target_hash("web");
    test.set_image(&web, &server_reference(1)).await?;
    let hash = test.another_wish("web", &first).await?;
    test.edit("web", json!({"spec": {"approval": {"targetHash": hash, "throughStep": 1}}})).await?;
    test.succeeded("web", &first).await?;
    test.running(&web, &server_reference(1), 2).await?;
    test.pods.now().ensure_same("web", &before)?;
    test.verify()?;
    test.clear().await
}
