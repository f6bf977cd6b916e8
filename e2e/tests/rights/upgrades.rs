//! Upgrades in place that need each right of their controller.

use anyhow::Result;
use serde_json::json;
use springtide_crds::in_place_upgrade::{FieldOwnership, Ineligible};
use springtide_e2e::batch::GENERAL;
use springtide_e2e::upgrade::workload::{CONTAINER, inline};
use springtide_e2e::upgrade::{Testbed, Workload, image};

/// All that an InPlaceUpgrade writes: pods, their gates and their sizes, templates, a pause, a partition, the ReplicaSet that
/// keeps an old template, and evictions.
pub(crate) async fn every_way(test: &Testbed<'_>) -> Result<()> {
    let web = Workload::deployment("web", 2);
    test.start(&web).await?;
    test.upgrade("web", web.transient(&image(2))).await?;

    let db = Workload::stateful_set("db", 2);
    test.start(&db).await?;
    let resources = json!({"requests": {"cpu": "150m"}, "limits": {"cpu": "300m"}});
    let sized = json!({"name": CONTAINER, "image": image(2), "resources": resources});
    test.patch(&db, json!({"spec": {"template": {"spec": {"containers": [sized]}}}})).await?;
    test.upgrade("db", db.upgrade()).await?;

    let agent = Workload::daemon_set("agent", GENERAL, 2);
    test.start(&agent).await?;
    let mut spec = agent.upgrade();
    spec.source = inline(&image(2));
    spec.policy.field_ownership = FieldOwnership::Force;
    test.upgrade("agent", spec).await?;

    let log = Workload::stateful_set("log", 1).on_delete();
    test.start(&log).await?;
    let environment = json!([{"name": "LEVEL", "value": "debug"}]);
    let other = json!({"name": CONTAINER, "image": image(2), "env": environment});
    test.patch(&log, json!({"spec": {"template": {"spec": {"containers": [other]}}}})).await?;
    let mut spec = log.upgrade();
    spec.policy.ineligible = Ineligible::Recreate;
    test.upgrade("log", spec).await?;

    for workload in [&web, &db, &agent, &log] {
        test.succeeded(&workload.name, "").await?;
        test.running(workload, &image(2), workload.replicas as usize).await?;
    }
    Ok(())
}
