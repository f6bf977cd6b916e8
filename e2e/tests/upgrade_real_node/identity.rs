//! Pods of every kind stay the same pods.

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use kube::ResourceExt;
use serde_json::json;
use springtide_crds::common::IntOrPercent;
use springtide_crds::in_place_upgrade::{PrePullMode, TargetKind};
use springtide_e2e::manager::USER_AGENT;
use springtide_e2e::upgrade::traffic::server_reference;
use springtide_e2e::upgrade::{Testbed, Workload, native};
use springtide_e2e::write_count::Verb;

use super::{TURN, ensure_lines, shared};

const TRANSIENT: &str = "transient";

#[tokio::test]
async fn pods_of_every_kind_keep_uid_address_node_and_volume() -> Result<()> {
    let _turn = TURN.read().await;
    let Some(bed) = shared().await? else { return Ok(()) };
    let test = Testbed::new(bed.plane(), "identity").await?;
    let kinds = [
        Workload::deployment("locked", 2),
        Workload::deployment(TRANSIENT, 2),
        Workload::replica_set("bare", 2),
        Workload::stateful_set("set", 2),
        Workload::stateful_set("on-delete", 2).on_delete(),
        Workload::daemon_set("agents", "", 1),
    ]
    .map(Workload::serving);
    let before = try_join_all(kinds.iter().map(|workload| test.start(workload))).await?;
    let deployments = ["locked", TRANSIENT];
    let mut active = Vec::new();
    for name in deployments {
        active.push(native::active(&test, name).await?.uid());
    }
    let mark = test.mark()?;
    for workload in &kinds {
        let mut spec = if workload.name == TRANSIENT {
            workload.transient(&server_reference(2))
        } else {
            if workload.kind == TargetKind::Deployment {
                test.patch(workload, json!({"spec": {"paused": true}})).await?;
            }
            test.set_image(workload, &server_reference(2)).await?;
            workload.upgrade()
        };
        spec.strategy.max_unavailable = IntOrPercent::Int(1);
        spec.pre_pull.mode = PrePullMode::Auto;
        test.upgrade(&workload.name, spec).await?;
    }
    for (workload, before) in kinds.iter().zip(&before) {
        test.succeeded(&workload.name, "").await?;
        native::agrees(&test, workload).await?;
        test.running(workload, &server_reference(2), workload.replicas as usize).await?;
        {
            let pods = test.pods.now();
            pods.ensure_same(&workload.name, before)?;
            ensure!(pods.of(&workload.name).iter().all(|life| life.restarts() == 1), "{}", workload.name);
        }
        ensure_lines(bed, &test, workload, &["v1", "v2"])?;
    }
    for (name, uid) in deployments.into_iter().zip(active) {
        let sets = native::replica_sets(&test, name).await?;
        ensure!(sets.len() == 2 && sets[0].uid() == uid, "another ReplicaSet has the pods of {name}");
        let images = (native::image_of(&sets[0])?, native::image_of(&sets[1])?);
        ensure!(images == (server_reference(2), server_reference(1)), "{name}: {images:?}");
        ensure!(native::offered_by_undo(&test, name).await? == server_reference(1));
    }
    let requests = test.requests_since(mark)?;
    let replaced = native::replacements(&requests);
    ensure!(replaced.is_empty(), "pods are replaced:\n{replaced}");
    let sets = requests.writes().successful().of_resource("replicasets").of_verb(Verb::Create);
    let of_others = sets.filter(|request| !request.user_agent.starts_with(USER_AGENT));
    ensure!(of_others.is_empty(), "a native controller makes ReplicaSets:\n{of_others}");
    native::is_idle(&test).await?;
    test.verify()?;
    test.clear().await
}
