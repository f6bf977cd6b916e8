//! Resizes that the API server or a node does not carry out: named ahead, and no donor shrinks for them; and specs that
//! cannot be served.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::DeleteParams;
use serde_json::{Value, json};
use springtide_crds::time_share_group::{
    GuardsPassingReason, HeldReason, OnPreflightFailure, PreflightFailure, PreflightPassedReason,
    ReadyReason, RefusalReason, StalledReason, StuckReason,
};
use springtide_e2e::kwok::{RESIZE_OUTCOME, ResizeOutcome};
use springtide_e2e::manager::USER_AGENT;
use springtide_e2e::time_share::kubelets::OLD;
use springtide_e2e::time_share::node_stage::GROUP;
use springtide_e2e::time_share::pods::Standing;
use springtide_e2e::time_share::shared;
use springtide_e2e::time_share::stage::{Setting, Stage};
use springtide_e2e::time_share::windows::far_window;

/// What preflight says of resizes that the API server does not take.
const REFUSED: PreflightPassedReason = PreflightPassedReason::Failed(PreflightFailure::DryRunRefused);

#[tokio::test]
async fn what_admission_refuses_was_named_ahead_and_its_donors_keep_their_size() -> Result<()> {
    let stage = Setting::new("denied", 4)
        .start(&shared().await?.cluster, |spec| spec.guards.failure_threshold_percent = 100)
        .await?;
    let fixed: BTreeSet<String> = stage.names("promo").into_iter().take(2).collect();
    for (number, pod) in fixed.iter().enumerate() {
        if number == 0 {
            stage.test.forbid_resizes(pod).await?;
        } else {
            stage.test.fix(pod).await?;
        }
    }
    // A switch is known, and more than an hour away.
    stage.edit(json!({"schedule": {"windows": [far_window("promo")]}})).await?;
    let group = stage.test.told(GROUP, REFUSED).await?;
    let preflight = group.status.and_then(|status| status.preflight).context("a preflight")?;
    let named: BTreeSet<String> = preflight.failures.iter().map(|row| row.pod.clone()).collect();
    ensure!(named == fixed && (preflight.units, preflight.passed) == (4, 2), "{preflight:?}");

    let mark = stage.test.mark()?;
    stage.give("promo").await?;
    stage.settled_with_skips("promo").await?;
    stage.whole().await?;
    for member in ["pay", "promo"] {
        stage.stand(member, Standing::split(2, 2)).await?;
    }
    let requests = stage.test.requests_since(mark)?.by_agent(USER_AGENT).writes().of_resource("pods/resize");
    let refused = requests.filter(|request| request.code >= 400 && request.code != 409);
    ensure!(refused.is_empty(), "refused though it was known:\n{refused}");
    // What is let through later is raised later.
    for pod in fixed {
        stage.test.release(&pod).await?;
    }
    stage.settled("promo").await?;
    stage.ensure_peak("promo").await?;
    stage.test.verify()
}

#[tokio::test]
async fn what_a_node_can_never_do_is_given_up_at_once_and_taken_back() -> Result<()> {
    let stage = Setting::new("infeasible", 3)
        .start(&shared().await?.cluster, |spec| spec.guards.failure_threshold_percent = 100)
        .await?;
    let pod = stage.names("promo").first().context("a pod")?.clone();
    let infeasible = ResizeOutcome::Infeasible.name();
    stage.test.annotate(&pod, json!({RESIZE_OUTCOME: infeasible})).await?;
    stage.give("promo").await?;
    let group = stage.settled_with_skips("promo").await?;
    let status = group.status.context("a status")?;
    let row = status.stuck.first().context("a row")?;
    ensure!((row.pod.as_str(), row.reason) == (pod.as_str(), StuckReason::Infeasible), "{row:?}");
    stage.whole().await?;
    stage.stand("pay", Standing::split(1, 2)).await?;
    stage.stand("promo", Standing::split(2, 1)).await?;
    stage.test.annotate(&pod, json!({RESIZE_OUTCOME: null})).await?;
    stage.give("pay").await?;
    stage.settled("pay").await?;
    stage.switch_to("promo").await?;
    stage.test.verify()
}

#[tokio::test]
async fn what_a_kubelet_does_not_bring_about_in_time_takes_the_switch_back_beyond_the_threshold() -> Result<()>
{
    let stage = Setting::new("progress", 3)
        .start(&shared().await?.cluster, |spec| {
            spec.switch.unit_deadline_seconds = 5;
            spec.switch.max_in_flight_units = 1;
        })
        .await?;
    stage.give("promo").await?;
    stage.at_peak("promo", 1).await?;
    for pod in stage.names("promo") {
        stage.test.annotate(&pod, json!({RESIZE_OUTCOME: ResizeOutcome::InProgress.name()})).await?;
    }
    stage.test.told(GROUP, ReadyReason::RollingBack).await?;
    for pod in stage.names("promo") {
        stage.test.annotate(&pod, json!({RESIZE_OUTCOME: null})).await?;
    }
    let group = stage.test.told(GROUP, StalledReason::RolledBack).await?;
    stage.test.told(GROUP, GuardsPassingReason::TooManyFailures).await?;
    stage.ensure_peak("pay").await?;
    let status = group.status.context("a status")?;
    ensure!(status.active_member.as_deref() == Some("pay"), "{status:?}");
    // It is tried again when somebody has looked.
    stage.edit(json!({"switch": {"unitDeadlineSeconds": 60}})).await?;
    stage.settled("promo").await?;
    stage.ensure_peak("promo").await?;
    stage.test.verify()
}

#[tokio::test]
async fn pods_of_kubelets_that_know_no_resizes_are_named_and_nobody_shrinks_for_them() -> Result<()> {
    let stage = Setting::new("old", 2)
        .start(&shared().await?.cluster, |spec| {
            spec.guards.failure_threshold_percent = 100;
            spec.guards.preflight.on_failure = OnPreflightFailure::Hold;
        })
        .await?;
    for pod in stage.names("promo") {
        stage.test.annotate(&pod, json!({OLD: "yes"})).await?;
    }
    stage
        .test
        .pods_until("their status says nothing", |pods| {
            let statuses = pods.sizes.of("promo").into_iter().flat_map(|pod| {
                pod.pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten())
            });
            statuses.into_iter().all(|status| status.resources.is_none()).then_some(())
        })
        .await?;
    stage.give("promo").await?;
    stage.test.told(GROUP, REFUSED).await?;
    stage.test.told(GROUP, HeldReason::PreflightFailed).await?;
    stage.stand("pay", Standing::peak(2)).await?;
    stage.test.verify()
}

/// What a member is that cannot be served, and the words that name it.
async fn refused(stage: &Stage<'_>, name: &str, spec: Value, words: &str) -> Result<()> {
    stage.test.edit(name, json!({"spec": spec})).await?;
    let group = stage.test.told(name, StalledReason::Refused(RefusalReason::InvalidSpec)).await?;
    let conditions = group.status.context("a status")?.conditions;
    let stalled = conditions.iter().find(|found| found.type_ == "Stalled").context("Stalled")?;
    ensure!(stalled.message.contains(words), "{}", stalled.message);
    Ok(())
}

#[tokio::test]
async fn a_spec_that_would_change_the_class_of_pods_or_restart_them_is_refused_by_its_field() -> Result<()> {
    let stage = Setting::new("invalid", 1).start(&shared().await?.cluster, |_| {}).await?;
    let of_pay = |container: Value| {
        let mut pay = json!(stage.test.groups.now().get(GROUP).map(|group| &group.spec.members[0]));
        pay["containers"] = json!([container]);
        let promo = json!(stage.test.groups.now().get(GROUP).map(|group| &group.spec.members[1]));
        json!({"members": [pay, promo]})
    };
    let size = |cpu: &str| json!({"cpu": cpu});
    // The template's limit is that of valley.
    let kept = json!({"name": "app", "peak": size("4"), "valley": size("200m"), "limits": "Keep"});
    refused(&stage, GROUP, of_pay(kept), "containers[app].peak.cpu").await?;
    let unknown = json!({"name": "nobody", "peak": size("4"), "valley": size("200m")});
    refused(&stage, GROUP, of_pay(unknown), "nobody").await?;
    let well = json!({"name": "app", "peak": size("4"), "valley": size("200m")});
    stage.edit(of_pay(well.clone())).await?;
    stage.settled("pay").await?;
    stage.stand("pay", Standing::peak(1)).await?;

    let restarting = json!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]);
    let containers = json!([{"name": "app", "resizePolicy": restarting}]);
    let template = json!({"spec": {"template": {"spec": {"containers": containers}}}});
    stage.test.patch_deployment("promo", template).await?;
    let group = stage.test.told(GROUP, StalledReason::Refused(RefusalReason::InvalidSpec)).await?;
    let message = group.status.context("a status")?.conditions;
    ensure!(message.iter().any(|found| found.message.contains("resizePolicy")), "{message:?}");
    Ok(())
}

#[tokio::test]
async fn a_workload_that_is_missing_is_awaited_and_then_told_and_one_of_another_group_is_left_to_it()
-> Result<()> {
    let stage = Setting::new("members", 1).start(&shared().await?.cluster, |_| {}).await?;
    let mut second = stage.test.groups.now().get(GROUP).context("the group")?.spec.clone();
    stage.test.group("second", second.clone()).await?;
    stage.test.told("second", StalledReason::Refused(RefusalReason::MemberTaken)).await?;
    for member in &mut second.members {
        member.target_ref.name = format!("{}-missing", member.target_ref.name);
    }
    stage.test.group("third", second).await?;
    stage.test.told("third", StalledReason::Refused(RefusalReason::MemberNotFound)).await?;
    stage.switch_to("promo").await?;
    for name in ["second", "third"] {
        stage.test.delete(name).await?;
    }
    stage.test.api::<Deployment>().delete("promo", &DeleteParams::default()).await?;
    stage.test.told(GROUP, StalledReason::Refused(RefusalReason::MemberNotFound)).await?;
    stage.test.verify()
}
