//! Resizes that the API server or a node does not carry out: named ahead, and no donor shrinks for them; and specs that
//! cannot be served.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use springtide_crds::time_share_group::{
    GuardsPassingReason, HeldReason, OnPreflightFailure, PreflightPassedReason, ReadyReason, RefusalReason,
    StalledReason, StuckReason,
};
use springtide_e2e::kwok::{RESIZE_OUTCOME, ResizeOutcome};
use springtide_e2e::manager::USER_AGENT;
use springtide_e2e::oracle::feed::PATIENCE;
use springtide_e2e::polling::until;
use springtide_e2e::time_share::kubelets::OLD;
use springtide_e2e::time_share::node_stage::GROUP;
use springtide_e2e::time_share::pods::Standing;
use springtide_e2e::time_share::shared;
use springtide_e2e::time_share::stage::{Setting, Stage};

/// Annotation of the pods that a policy lets nobody resize.
const FIXED: &str = "example.com/fixed";

/// Has the API server refuse resizes of pods of the namespace with [`FIXED`], once it has compiled that: until a dry run is
/// refused.
async fn forbid(stage: &Stage<'_>) -> Result<()> {
    let name = format!("fixed-{}", stage.test.namespace);
    let meta = json!({"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": name}});
    let rule = json!({
        "apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["pods/resize"],
    });
    let mut policy = meta.clone();
    policy["kind"] = json!("ValidatingAdmissionPolicy");
    policy["spec"] = json!({
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": format!("!('{FIXED}' in object.metadata.?annotations.orValue({{}}))")}],
    });
    let namespace = json!({"matchLabels": {"kubernetes.io/metadata.name": stage.test.namespace}});
    let mut binding = meta;
    binding["kind"] = json!("ValidatingAdmissionPolicyBinding");
    binding["spec"] = json!({
        "policyName": name, "validationActions": ["Deny"], "matchResources": {"namespaceSelector": namespace},
    });
    for object in [policy, binding] {
        stage.test.cluster.apply(&object.to_string()).await?;
    }
    let pod = stage.names("promo").into_iter().next().context("a pod")?;
    stage.test.annotate(&pod, json!({FIXED: "yes"})).await?;
    let patch =
        json!({"spec": {"containers": [{"name": "app", "resources": {"requests": {"cpu": "150m"}}}]}});
    let patch = patch.to_string();
    let args = ["patch", "pod", &pod, "--subresource", "resize", "--dry-run=server", "-p", &patch];
    until(PATIENCE, "the policy counts", async || Ok(stage.test.kubectl(&args).await.is_err().then_some(())))
        .await
}

#[tokio::test]
async fn what_admission_refuses_was_named_ahead_and_its_donors_keep_their_size() -> Result<()> {
    let stage = Setting::new("denied", 4)
        .start(&shared().await?.cluster, |spec| spec.guards.failure_threshold_percent = 100)
        .await?;
    forbid(&stage).await?;
    let second = stage.names("promo").get(1).context("a pod")?.clone();
    stage.test.annotate(&second, json!({FIXED: "yes"})).await?;
    let fixed: BTreeSet<String> = stage.names("promo").into_iter().take(2).collect();
    // A switch is known, and an hour away.
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_mins(90);
    let [start, end] =
        [soon, soon + jiff::SignedDuration::from_hours(1)].map(|at| at.strftime("%H:%M").to_string());
    let window = json!({"name": "night", "member": "promo", "window": {"start": start, "end": end, "timeZone": "UTC"}});
    stage
        .edit(json!({"schedule": {"windows": [window]}, "guards": {"preflight": {"leadSeconds": 7200}}}))
        .await?;
    let group = stage.test.told(GROUP, PreflightPassedReason::DryRunRefused).await?;
    let preflight = group.status.and_then(|status| status.preflight).context("a preflight")?;
    let named: BTreeSet<String> = preflight.failures.iter().map(|row| row.pod.clone()).collect();
    ensure!(named == fixed && (preflight.units, preflight.passed) == (4, 2), "{preflight:?}");

    let mark = stage.test.mark()?;
    stage.give("promo").await?;
    stage.settled_with_skips("promo").await?;
    stage.ensure_whole()?;
    ensure!(stage.standing("pay").serving == 2, "{:?}", stage.standing("pay"));
    let requests = stage.test.requests_since(mark)?.by_agent(USER_AGENT).writes().of_resource("pods/resize");
    let refused = requests.filter(|request| request.code >= 400 && request.code != 409);
    ensure!(refused.is_empty(), "refused though it was known:\n{refused}");
    // What is let through later is raised later.
    for pod in fixed {
        stage.test.annotate(&pod, json!({FIXED: null})).await?;
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
    stage.ensure_whole()?;
    let standing = (stage.standing("pay"), stage.standing("promo"));
    ensure!((standing.0.serving, standing.1.serving) == (1, 2), "{standing:?}");
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
    stage.test.told(GROUP, PreflightPassedReason::DryRunRefused).await?;
    stage.test.told(GROUP, HeldReason::PreflightFailed).await?;
    ensure!(stage.standing("pay") == Standing::peak(2), "{:?}", stage.standing("pay"));
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
    ensure!(stage.standing("pay") == Standing::peak(1), "{:?}", stage.standing("pay"));

    let restarting = json!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]);
    let containers = json!([{"name": "app", "resizePolicy": restarting}]);
    let template = json!({"spec": {"template": {"spec": {"containers": containers}}}});
    let patch = Patch::Strategic(template);
    stage.test.api::<Deployment>().patch("promo", &PatchParams::default(), &patch).await?;
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
