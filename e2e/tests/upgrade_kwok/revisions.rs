//! Revisions of StatefulSets and DaemonSets that say something else than pods do.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;
use springtide_crds::in_place_upgrade::HeldReason;
use springtide_e2e::batch::pool;
use springtide_e2e::oracle::feed::PATIENCE;
use springtide_e2e::polling::until_seen;
use springtide_e2e::upgrade::replacements::Replacements;
use springtide_e2e::upgrade::{REVISION_LABEL, Testbed, Workload, image, native, shared};

use crate::{approval, approved_after};

/// Between two looks of whoever keeps a status old.
const EVERY: Duration = Duration::from_millis(100);

/// Sets `currentRevision` of a StatefulSet back for ever, as where its controller leaves it old.
async fn keep_current(sets: Api<StatefulSet>, name: &str, revision: &str) -> Result<()> {
    let patch = Patch::Merge(json!({"status": {"currentRevision": revision}}));
    loop {
        let status = sets.get(name).await?.status.unwrap_or_default();
        if status.current_revision.as_deref() != Some(revision) {
            sets.patch_status(name, &PatchParams::default(), &patch).await?;
        }
        tokio::time::sleep(EVERY).await;
    }
}

#[tokio::test]
async fn a_current_revision_that_stays_old_keeps_no_upgrade_from_its_end() -> Result<()> {
    let test = Testbed::new(shared().await?, "current").await?;
    let db = Workload::stateful_set("db", 3).on_delete();
    let before = test.start(&db).await?;
    let oracle = Replacements::watch(&test).await?;
    let set = native::object(&test, &db).await?;
    let first = set["status"]["currentRevision"].as_str().context("a revision")?.to_owned();
    let upgraded = async {
        test.upgrade("db", db.one_by_one()).await?;
        let mut hash = String::new();
        for version in [2, 3] {
            test.set_image(&db, &image(version)).await?;
            let upgrade = test.succeeded("db", &hash).await?;
            hash = upgrade.status.context("a status")?.target_hash;
            native::agrees(&test, &db).await?;
            test.running(&db, &image(version), 3).await?;
        }
        anyhow::Ok(())
    };
    // Up to Kubernetes 1.36 (kubernetes#73492).
    tokio::select! {
        upgraded = upgraded => upgraded?,
        kept = keep_current(test.api(), "db", &first) => kept?,
    }
    test.pods.now().ensure_same("db", &before)?;
    ensure!(test.pods.now().of("db").iter().all(|life| (life.restarts(), life.drains) == (2, 2)));
    oracle.ensure_none()?;
    test.verify()
}

#[tokio::test]
async fn equal_revisions_that_a_daemon_set_makes_one_leave_no_pod_out() -> Result<()> {
    let cluster = shared().await?;
    let test = Testbed::new(cluster, "equal").await?;
    let kwok = cluster.kwok().context("KWOK")?;
    kwok.add_nodes(cluster, &pool("equal", 3, "8", 110)).await?;
    let agent = Workload::daemon_set("agent", "equal", 3);
    let before = test.start(&agent).await?;
    let oracle = Replacements::watch(&test).await?;
    test.set_image(&agent, &image(2)).await?;
    let mut spec = agent.upgrade();
    spec.strategy.steps = approved_after(1);
    test.upgrade("agent", spec).await?;
    test.told("agent", HeldReason::ApprovalRequired).await?;
    test.running(&agent, &image(2), 1).await?;

    // Another one of the same template, as two controllers at a time would leave it: the newer one is kept, and every pod
    // gets its label, changed or not.
    let revisions = test.api::<ControllerRevision>();
    let all = revisions.list(&ListParams::default().labels("app=agent")).await?.items;
    let newest = all.into_iter().max_by_key(|revision| revision.revision).context("a revision")?;
    let mut twin = newest.clone();
    twin.metadata.name = Some("agent-twin".to_owned());
    twin.metadata.resource_version = None;
    twin.metadata.uid = None;
    twin.metadata.managed_fields = None;
    twin.labels_mut().insert(REVISION_LABEL.to_owned(), "twin".to_owned());
    twin.revision = newest.revision.map(|revision| revision + 1);
    revisions.create(&PostParams::default(), &twin).await?;
    // It looks at its revisions when it looks at itself.
    test.patch(&agent, json!({"metadata": {"annotations": {"example.com/seen": "twin"}}})).await?;
    until_seen(PATIENCE, "one of the two is left, and all pods name it", async || {
        let left = revisions.get_opt(&newest.name_any()).await?.is_some();
        let named = test.pods.now().of("agent").iter().filter(|life| life.revision() == "twin").count();
        Ok(if !left && named == 3 { Ok(()) } else { Err(format!("{left}, {named}")) })
    })
    .await?;
    test.told("agent", HeldReason::ApprovalRequired).await?;
    ensure!(test.running(&agent, &image(1), 2).await?.len() == 2, "a label alone is no upgrade");

    let hash = test.target_hash("agent");
    test.edit("agent", approval(&hash)).await?;
    test.succeeded("agent", "").await?;
    native::agrees(&test, &agent).await?;
    test.running(&agent, &image(2), 3).await?;
    test.pods.now().ensure_same("agent", &before)?;
    ensure!(test.pods.now().of("agent").iter().all(|life| life.restarts() == 1));
    oracle.ensure_none()?;
    test.verify()
}
