//! StatefulSets and DaemonSets: labels of revisions, partitions, and pods that are made anew in mid-run.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use springtide_crds::common::IntOrPercent;
use springtide_crds::in_place_upgrade::{
    HeldReason, Ineligible, LockedReason, ReadyReason, StalledReason, TrafficMode,
};
use springtide_e2e::batch::pool;
use springtide_e2e::kwok::{IMAGE_OUTCOMES, ImageOutcome, NodeSpec, image_outcomes};
use springtide_e2e::oracle::feed::PATIENCE;
use springtide_e2e::polling::until_seen;
use springtide_e2e::upgrade::cost::{GATED, ensure_each_pod_cost, workload_writes};
use springtide_e2e::upgrade::workload::{LOCKED_PARTITION, inline};
use springtide_e2e::upgrade::{
    REVISION_LABEL, SERVING_LABEL, Signal, Testbed, Workload, image, native, shared,
};
use springtide_e2e::write_count::Verb;

use crate::{approval, approved_after};

fn partition(set: &Value) -> u64 {
    set["spec"]["updateStrategy"]["rollingUpdate"]["partition"].as_u64().unwrap_or_default()
}

/// Waits until the partition of a StatefulSet is this.
async fn has_partition(test: &Testbed<'_>, set: &Workload, wanted: u32) -> Result<()> {
    until_seen(PATIENCE, &format!("a partition of {wanted}"), async || {
        let found = partition(&native::object(test, set).await?);
        Ok(if found == u64::from(wanted) { Ok(()) } else { Err(found.to_string()) })
    })
    .await
}

#[tokio::test]
async fn a_partition_follows_the_pods_and_pods_made_anew_fall_on_their_side_of_it() -> Result<()> {
    let test = Testbed::new(shared().await?, "partition").await?;
    let db = Workload::stateful_set("db", 4);
    let before = test.start(&db).await?;
    test.set_image(&db, &image(2)).await?;
    let mark = test.mark()?;
    let mut spec = db.upgrade();
    spec.strategy.steps = approved_after(1);
    test.upgrade("db", spec).await?;
    test.told("db", HeldReason::ApprovalRequired).await?;
    ensure!(test.running(&db, &image(2), 1).await? == ["db-3"]);
    has_partition(&test, &db, 3).await?;
    let set = native::object(&test, &db).await?;
    ensure!(set["status"]["updatedReplicas"] == 1);
    let new = set["status"]["updateRevision"].as_str().context("a revision")?.to_owned();

    let below = test.recreated("db-0").await?;
    ensure!(below.runs(&image(1)) && below.revision() != new, "below the partition the old one: {below:?}");
    let above = test.recreated("db-3").await?;
    ensure!(above.runs(&image(2)) && above.revision() == new, "above the partition the new one: {above:?}");
    let before_rest = test.ready(&db, 4).await?;
    test.told("db", HeldReason::ApprovalRequired).await?;

    let hash = test.target_hash("db");
    test.edit("db", approval(&hash)).await?;
    test.succeeded("db", "").await?;
    let set = native::agrees(&test, &db).await?;
    ensure!(partition(&set) == u64::from(LOCKED_PARTITION), "what was recorded is there again");
    test.running(&db, &image(2), 4).await?;
    test.pods.now().ensure_same("db", &before_rest)?;
    ensure!((1..3).all(|ordinal| {
        let name = format!("db-{ordinal}");
        before.get(&name) == before_rest.get(&name)
    }));
    let order: Vec<String> = test.pods.now().changes().iter().map(|change| change.pod.clone()).collect();
    ensure!(order == ["db-3", "db-2", "db-1", "db-0"], "from the top: {order:?}");
    let ended = native::replacements(&test.requests_since(mark)?);
    let ended = ended.of_verb(Verb::Delete);
    let foreign = ended.filter(|request| request.name != "db-0" && request.name != "db-3");
    ensure!(foreign.is_empty(), "{foreign}");
    native::is_idle(&test).await?;
    test.verify()
}

#[tokio::test]
async fn a_rollback_raises_the_partition_before_it_touches_a_pod() -> Result<()> {
    let test = Testbed::new(shared().await?, "raised").await?;
    let db = Workload::stateful_set("db", 4);
    let before = test.start(&db).await?;
    let missing = image_outcomes(&[(&image(2), ImageOutcome::Missing)]);
    test.annotate("db-1", json!({IMAGE_OUTCOMES: missing})).await?;
    test.set_image(&db, &image(2)).await?;
    let mark = test.mark()?;
    let mut spec = db.upgrade();
    spec.strategy.steps = approved_after(2);
    spec.health.failure_threshold = IntOrPercent::Int(0);
    test.upgrade("db", spec).await?;
    test.told("db", HeldReason::ApprovalRequired).await?;
    has_partition(&test, &db, 2).await?;
    let hash = test.target_hash("db");
    test.edit("db", approval(&hash)).await?;
    test.told("db", ReadyReason::RolledBack).await?;
    test.told("db", StalledReason::RolledBack).await?;
    test.running(&db, &image(1), 4).await?;
    has_partition(&test, &db, LOCKED_PARTITION).await?;
    native::is_idle(&test).await?;
    test.pods.now().ensure_same("db", &before)?;
    let replaced = native::replacements(&test.requests_since(mark)?);
    ensure!(
        replaced.is_empty(),
        "the native controller must not see old pods above its partition:\n{replaced}"
    );
    let moved = workload_writes(&test.requests_since(mark)?).successful();
    ensure!(moved.of_resource("statefulsets").len() == 2, "lowered once, and raised once:\n{moved}");
    let set = native::object(&test, &db).await?;
    let old = set["status"]["currentRevision"].as_str().context("a revision")?.to_owned();
    ensure!(test.pods.now().of("db").iter().all(|life| life.revision() == old));
    ensure!(native::template_image(&set) == image(2), "the wish is the user's");
    test.verify()
}

#[tokio::test]
async fn ordinals_may_begin_anywhere_and_pods_may_be_managed_in_parallel() -> Result<()> {
    let test = Testbed::new(shared().await?, "ordinals").await?;
    let db = Workload::stateful_set("db", 3)
        .spec(json!({"ordinals": {"start": 5}, "podManagementPolicy": "Parallel"}));
    let before = test.start(&db).await?;
    ensure!(before.keys().eq(["db-5", "db-6", "db-7"]));
    test.set_image(&db, &image(2)).await?;
    let mark = test.mark()?;
    test.upgrade("db", db.upgrade()).await?;
    test.succeeded("db", "").await?;
    let set = native::agrees(&test, &db).await?;
    ensure!(partition(&set) == u64::from(LOCKED_PARTITION));
    test.running(&db, &image(2), 3).await?;
    test.pods.now().ensure_same("db", &before)?;
    let requests = test.requests_since(mark)?;
    ensure_each_pod_cost(&requests, 3, GATED)?;
    ensure!(native::replacements(&requests).is_empty());
    native::is_idle(&test).await?;
    test.verify()
}

#[tokio::test]
async fn a_partition_that_is_too_low_is_refused() -> Result<()> {
    let test = Testbed::new(shared().await?, "low").await?;
    let db = Workload::stateful_set("db", 2)
        .spec(json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}}));
    test.start(&db).await?;
    let mark = test.mark()?;
    let mut spec = db.upgrade();
    spec.source = inline(&image(2));
    test.upgrade("db", spec).await?;
    test.told("db", LockedReason::PartitionTooLow).await?;
    test.told("db", StalledReason::NotLocked).await?;
    ensure!(workload_writes(&test.requests_since(mark)?).is_empty());
    test.running(&db, &image(1), 2).await?;
    test.verify()
}

#[tokio::test]
async fn a_set_of_type_on_delete_counts_its_changed_pods_and_makes_new_ones_alike() -> Result<()> {
    let test = Testbed::new(shared().await?, "on-delete").await?;
    let db = Workload::stateful_set("db", 3).on_delete();
    let before = test.start(&db).await?;
    test.set_image(&db, &image(2)).await?;
    let mark = test.mark()?;
    test.upgrade("db", db.upgrade()).await?;
    test.succeeded("db", "").await?;
    // Whether or not currentRevision has followed.
    let set = native::agrees(&test, &db).await?;
    test.pods.now().ensure_same("db", &before)?;
    let requests = test.requests_since(mark)?;
    ensure_each_pod_cost(&requests, 3, GATED)?;
    let new = set["status"]["updateRevision"].as_str().context("a revision")?.to_owned();
    native::is_idle(&test).await?;
    ensure!(
        test.pods.now().of("db").iter().all(|life| life.revision() == new),
        "nobody takes the labels back"
    );

    let evicted = test.recreated("db-1").await?;
    ensure!(evicted.runs(&image(2)) && evicted.revision() == new, "{evicted:?}");
    native::agrees(&test, &db).await?;
    test.told("db", ReadyReason::UpToDate).await?;
    test.verify()
}

#[tokio::test]
async fn a_daemon_set_counts_its_changed_pods_and_the_one_of_a_node_that_joins() -> Result<()> {
    let cluster = shared().await?;
    let test = Testbed::new(cluster, "daemons").await?;
    let kwok = cluster.kwok().context("KWOK")?;
    kwok.add_nodes(cluster, &pool("daemons", 3, "8", 110)).await?;
    let agent = Workload::daemon_set("agent", "daemons", 3);
    let before = test.start(&agent).await?;
    test.set_image(&agent, &image(2)).await?;
    let mark = test.mark()?;
    let mut spec = agent.upgrade();
    spec.strategy.steps = approved_after(1);
    test.upgrade("agent", spec).await?;
    test.told("agent", HeldReason::ApprovalRequired).await?;
    test.running(&agent, &image(2), 1).await?;

    // Its pod is born with the new template, and is nobody's work.
    let late = NodeSpec { name: "daemons-late".to_owned(), ..pool("daemons", 1, "8", 110) };
    kwok.add_nodes(cluster, &late).await?;
    test.running(&agent, &image(2), 2).await?;
    let hash = test.target_hash("agent");
    test.edit("agent", approval(&hash)).await?;
    test.succeeded("agent", "").await?;
    let set = native::agrees(&test, &agent).await?;
    ensure!(set["status"]["updatedNumberScheduled"] == 4);
    test.running(&agent, &image(2), 4).await?;
    let now = test.pods.now().identities("agent");
    ensure!(before.iter().all(|(name, pod)| now.get(name) == Some(pod)), "{before:?} became {now:?}");
    let ended = native::replacements(&test.requests_since(mark)?);
    ensure!(ended.of_verb(Verb::Delete).is_empty(), "{ended}");

    // The first revision again: it is not made twice, but numbered anew.
    test.set_image(&agent, &image(1)).await?;
    test.another_wish("agent", &hash).await?;
    let second = test.target_hash("agent");
    test.edit("agent", approval(&second)).await?;
    test.succeeded("agent", &hash).await?;
    native::agrees(&test, &agent).await?;
    let four = test.running(&agent, &image(1), 4).await?;
    test.pods.now().ensure_same("agent", &now)?;
    let pods = test.pods.now();
    let revisions = |name: &String| pods.named(name).and_then(|life| life.pod.metadata.labels.clone());
    let revisions: BTreeSet<_> =
        four.iter().filter_map(|name| revisions(name)?.get(REVISION_LABEL).cloned()).collect();
    ensure!(revisions.len() == 1, "{revisions:?}");
    drop(pods);
    test.verify()
}

#[tokio::test]
async fn another_wish_in_mid_run_has_the_partition_raised_before_its_pods_are_made_anew() -> Result<()> {
    let test = Testbed::new(shared().await?, "superseded").await?;
    let db = Workload::stateful_set("db", 4);
    let before = test.start(&db).await?;
    test.set_image(&db, &image(2)).await?;
    let mut spec = db.upgrade();
    spec.strategy.steps = approved_after(3);
    test.upgrade("db", spec).await?;
    test.told("db", HeldReason::ApprovalRequired).await?;
    has_partition(&test, &db, 1).await?;
    let mark = test.mark()?;
    let hash = test.target_hash("db");
    test.set_image(&db, &image(3)).await?;
    let other = test.another_wish("db", &hash).await?;
    test.edit("db", approval(&other)).await?;
    test.succeeded("db", &hash).await?;
    native::agrees(&test, &db).await?;
    has_partition(&test, &db, LOCKED_PARTITION).await?;
    test.running(&db, &image(3), 4).await?;
    // Its controller is at the first one as soon as it sees the template; the others stay.
    let now = test.pods.now().identities("db");
    for name in ["db-0", "db-1", "db-2"] {
        ensure!(before.get(name) == now.get(name), "{name}: {before:?} became {now:?}");
    }
    let ended = native::replacements(&test.requests_since(mark)?).of_verb(Verb::Delete);
    let others = ended.filter(|request| request.name != "db-3");
    ensure!(others.is_empty(), "{others}");
    test.verify()
}

#[tokio::test]
async fn a_pod_that_is_left_out_leaves_the_lock_of_its_set_as_it_was() -> Result<()> {
    let test = Testbed::new(shared().await?, "left-out").await?;
    let db = Workload::stateful_set("db", 3).signal(Signal::Label);
    let before = test.start(&db).await?;
    let unlabelled = Patch::Merge(json!({"metadata": {"labels": {SERVING_LABEL: null}}}));
    test.api::<Pod>().patch("db-0", &PatchParams::default(), &unlabelled).await?;
    test.set_image(&db, &image(2)).await?;
    let mark = test.mark()?;
    let mut spec = db.upgrade();
    spec.policy.ineligible = Ineligible::Ignore;
    spec.traffic.mode = TrafficMode::ServiceLabel;
    test.upgrade("db", spec).await?;
    let upgrade = test.succeeded("db", "").await?;
    let pods = upgrade.status.context("a status")?.pods;
    ensure!((pods.updated_ready, pods.blocked) == (2, 1), "{pods:?}");
    ensure!(test.running(&db, &image(2), 2).await? == ["db-1", "db-2"]);
    has_partition(&test, &db, LOCKED_PARTITION).await?;

    // What comes in the place of one that is lost is of the revision from before, and is changed too.
    let lost = test.recreated("db-2").await?;
    ensure!(lost.images.first() == Some(&image(1)), "{:?}", lost.images);
    ensure!(test.running(&db, &image(2), 2).await? == ["db-1", "db-2"]);
    test.told("db", ReadyReason::UpToDate).await?;
    let hash = test.target_hash("db");
    test.set_image(&db, &image(3)).await?;
    test.succeeded("db", &hash).await?;
    ensure!(test.running(&db, &image(3), 2).await? == ["db-1", "db-2"]);
    has_partition(&test, &db, LOCKED_PARTITION).await?;
    native::is_idle(&test).await?;
    let now = test.pods.now().identities("db");
    for name in ["db-0", "db-1"] {
        ensure!(before.get(name) == now.get(name), "{name}: {before:?} became {now:?}");
    }
    let ended = native::replacements(&test.requests_since(mark)?).of_verb(Verb::Delete);
    let others = ended.filter(|request| request.name != "db-2");
    ensure!(others.is_empty(), "{others}");
    test.verify()
}
