//! A member in another namespace, which counts only as long as that namespace says so.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::DeleteParams;
use serde_json::{Value, json};
use springtide_crds::reference_grant::ReferenceGrant;
use springtide_crds::time_share_group::{
    ReadyReason, RefusalReason, StalledReason, TimeShareGroupSpec, TransitionResult,
};
use springtide_e2e::time_share::node_stage::GROUP;
use springtide_e2e::time_share::pods::{Pods, Standing};
use springtide_e2e::time_share::resizes::stored;
use springtide_e2e::time_share::stage::{Setting, Stage};
use springtide_e2e::time_share::{Testbed, shared};

/// Pods of each member.
const PODS: usize = 4;
const NOT_GRANTED: StalledReason = StalledReason::Refused(RefusalReason::MemberNotGranted);

/// Lets groups of the stage's namespace name the workload `promo` of the other one.
async fn grant(stage: &Stage<'_>, other: &Testbed<'_>) -> Result<()> {
    let manifest = json!({
        "apiVersion": "springtide.dev/v1alpha1", "kind": "ReferenceGrant", "metadata": {"name": "shared"},
        "spec": {
            "from": [{"kind": "TimeShareGroup", "namespace": stage.test.namespace}],
            "to": [{"kind": "Deployment", "name": "promo"}],
        },
    });
    other.create::<ReferenceGrant>(manifest).await.map(drop)
}

/// Waits until the pods of `promo` stand so.
async fn stand(other: &Testbed<'_>, wanted: Standing) -> Result<()> {
    let is = |pods: &Pods| (pods.standing("promo") == wanted).then_some(());
    other.pods_until(&format!("promo: {wanted:?}"), is).await
}

#[tokio::test]
async fn a_member_of_another_namespace_takes_its_turn_as_long_as_a_grant_lets_it() -> Result<()> {
    let cluster = &shared().await?.cluster;
    // With room for both, as the one that is let go keeps what it has.
    let stage = Setting::new("grantee", u32::try_from(PODS)?).room(3800).open(cluster).await?;
    let other = Testbed::new(cluster, "grantor").await?;
    other.pods.now().know(&[&stage.promo]);
    let lent = |spec: &mut TimeShareGroupSpec| {
        spec.switch.max_in_flight_units = 1;
        let promo = spec.members.iter_mut().find(|member| member.name == "promo");
        if let Some(promo) = promo {
            promo.target_ref.namespace = Some(other.namespace.clone());
        }
    };
    stage.test.create::<Deployment>(stage.pay.manifest()).await?;
    other.create::<Deployment>(stage.promo.manifest()).await?;
    // Without a grant its pods are of no group.
    stand(&other, Standing { serving: PODS, ..Standing::valley(PODS) }).await?;
    let mark = stage.test.mark()?;
    stage.create_group(lent).await?;
    let group = stage.test.told(GROUP, NOT_GRANTED).await?;
    let conditions = group.status.context("a status")?.conditions;
    ensure!(conditions.iter().any(|found| found.message.contains(&other.namespace)), "{conditions:?}");
    stage.test.told(GROUP, ReadyReason::Refused).await?;
    let resizes = |namespace: &str| -> Result<Vec<(String, String)>> {
        let requests = cluster.audit_log()?.since(mark)?.in_namespace(namespace);
        Ok(stored(&requests).into_iter().filter(|(resource, _)| resource == "pods/resize").collect())
    };
    ensure!(resizes(&stage.test.namespace)?.is_empty() && resizes(&other.namespace)?.is_empty());

    grant(&stage, &other).await?;
    stage.settled("pay").await?;
    stage.stand("pay", Standing::peak(PODS)).await?;
    stand(&other, Standing::valley(PODS)).await?;
    for (to, sizes) in [
        ("promo", [Standing::valley(PODS), Standing::peak(PODS)]),
        ("pay", [Standing::peak(PODS), Standing::valley(PODS)]),
    ] {
        stage.give(to).await?;
        stage.settled(to).await?;
        stage.stand("pay", sizes[0]).await?;
        stand(&other, sizes[1]).await?;
    }

    // The grant goes in mid-switch: pay has all back, and whatever promo has got stays, in traffic.
    stage.give("promo").await?;
    let one = |pods: &Pods| (pods.standing("promo").at_peak >= 1).then_some(());
    other.pods_until("a pod of promo has the peak", one).await?;
    other.api::<ReferenceGrant>().delete("shared", &DeleteParams::default()).await?;
    let group = stage.test.told(GROUP, NOT_GRANTED).await?;
    stage.stand("pay", Standing::peak(PODS)).await?;
    let all_serve = |pods: &Pods| {
        let standing = pods.standing("promo");
        (standing.serving == PODS && standing.between == 0).then_some(standing)
    };
    let left = other.pods_until("all of promo serve", all_serve).await?;
    ensure!(left.at_peak >= 1, "sizes stay: {left:?}");
    let status = group.status.context("a status")?;
    ensure!(status.active_member.as_deref() == Some("pay"), "{status:?}");
    let results: Vec<Value> = status.last_transitions.iter().map(|last| json!(last.result)).collect();
    ensure!(results.contains(&json!(TransitionResult::RolledBack)), "{results:?}");

    // With another one it goes on where it was.
    stage.give("pay").await?;
    grant(&stage, &other).await?;
    stage.settled("pay").await?;
    stand(&other, Standing::valley(PODS)).await?;
    stage.stand("pay", Standing::peak(PODS)).await?;
    stage.test.verify()?;
    other.verify()
}
