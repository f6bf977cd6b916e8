//! Templates of members, and pods that are of no group.

use anyhow::Result;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use springtide_crds::time_share_group::CapacitySafeReason;
use springtide_e2e::time_share::node_stage::GROUP;
use springtide_e2e::time_share::pods::{Pods, Standing};
use springtide_e2e::time_share::stage::Setting;
use springtide_e2e::time_share::{GATE, LABEL, Testbed, shared};
use springtide_e2e::upgrade::pods::is_true;

#[tokio::test]
async fn a_gate_that_no_group_keeps_is_opened_and_a_label_too() -> Result<()> {
    let test = Testbed::new(&shared().await?.cluster, "alone").await?;
    let labels = json!({"app": "alone", LABEL: "false"});
    test.create::<Deployment>(json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "alone"},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": "alone"}},
            "template": {"metadata": {"labels": labels}, "spec": {
                "readinessGates": [{"conditionType": GATE}],
                "containers": [{"name": "app", "image": "example.com/app:v1"}],
            }},
        },
    }))
    .await?;
    let all_open = |pods: &Pods| {
        let own = pods.sizes.of("alone");
        let is_open = |pod: &Pod| {
            let label = pod.metadata.labels.as_ref().and_then(|labels| labels.get(LABEL));
            is_true(pod, GATE) && is_true(pod, "Ready") && label.is_some_and(|value| value == "true")
        };
        (own.len() == 2 && own.iter().all(|pod| is_open(&pod.pod))).then_some(())
    };
    test.pods_until("they are ready", all_open).await?;
    // Whoever closes one without a group.
    let name = test.pods.now().sizes.of("alone").first().map(|pod| pod.name()).unwrap_or_default();
    let label = Patch::Merge(json!({"metadata": {"labels": {LABEL: "false"}}}));
    test.api::<Pod>().patch(&name, &PatchParams::default(), &label).await?;
    let condition = json!({"type": GATE, "status": "False", "message": "run=7"});
    let closed = Patch::Strategic(json!({"status": {"conditions": [condition]}}));
    test.api::<Pod>().patch_status(&name, &PatchParams::default(), &closed).await?;
    test.pods_until("it is opened again", all_open).await?;
    Ok(())
}

#[tokio::test]
async fn a_template_that_is_not_at_valley_size_is_told_of_and_changes_no_running_pod() -> Result<()> {
    let stage = Setting::new("template", 2).room(2000).start(&shared().await?.cluster, |_| {}).await?;
    stage.switch_to("promo").await?;
    let before = stage.test.pods.now().sizes.identities("promo");
    // A paused Deployment makes no new pods for another template.
    let resources = json!({"requests": {"cpu": "500m"}, "limits": {"cpu": "500m"}});
    let containers = json!([{"name": "app", "resources": resources}]);
    let change = json!({"spec": {"paused": true, "template": {"spec": {"containers": containers}}}});
    stage.test.patch_deployment("promo", change).await?;
    stage.test.told(GROUP, CapacitySafeReason::TemplateNotAtValley).await?;
    stage.settled("promo").await?;
    stage.test.pods.now().sizes.ensure_same("promo", &before)?;
    stage.stand("promo", Standing::peak(2)).await?;
    stage.switch_to("pay").await?;
    stage.test.verify()
}
