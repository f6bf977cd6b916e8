//! Wishes that no live pod can be given, and resizes that nodes do not carry out: told with the reason, and no container is
//! touched.

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use springtide_crds::common::{IntOrPercent, whole_seconds};
use springtide_crds::in_place_upgrade::{
    BlockedReason, InPlaceUpgrade, InPlaceUpgradeSpec, Ineligible, Inline, InlineMetadata, OnFailure,
    Persist, RefusalReason, Restart, Source, SourceType, StalledReason, TrafficMode,
};
use springtide_e2e::batch::GENERAL;
use springtide_e2e::kwok::{RESIZE_OUTCOME, ResizeOutcome};
use springtide_e2e::oracle::feed::PATIENCE;
use springtide_e2e::polling::until_seen;
use springtide_e2e::upgrade::cost::{workload_writes, writes_by_pod};
use springtide_e2e::upgrade::pods::is_false;
use springtide_e2e::upgrade::replacements::Replacements;
use springtide_e2e::upgrade::workload::{CONTAINER, inline, with_pod};
use springtide_e2e::upgrade::{GATE, SERVING_LABEL, Signal, Testbed, Workload, image, native, shared};

/// An image that the cluster's policy denies.
const DENIED: &str = "denied.example.com/app:v1";

/// A wish, and why it cannot be.
struct Case {
    workload: Workload,
    /// What is patched in the template of the container.
    container: Value,
    spec: InPlaceUpgradeSpec,
    reason: BlockedReason,
}

impl Case {
    /// A paused Deployment whose template gets these fields of the container.
    fn new(name: &str, reason: BlockedReason, container: Value) -> Self {
        let workload = Workload::deployment(name, 2);
        Self { spec: workload.upgrade(), workload, container, reason }
    }

    /// The same with pods that are otherwise than usual.
    fn of_pods(mut self, change: impl FnOnce(&mut Value)) -> Self {
        self.workload = with_pod(self.workload, change);
        self
    }

    fn all() -> Vec<Self> {
        let resources =
            |requests: Value, limits: Value| json!({"resources": {"requests": requests, "limits": limits}});
        let more_cpu = || resources(json!({"cpu": "300m"}), json!({"cpu": "600m"}));
        let unsupported = |name: &str| Self::new(name, BlockedReason::ResizeUnsupported, more_cpu());
        let mut gate = Self::new("gate", BlockedReason::GateMissing, json!({"image": image(2)}));
        gate.workload = gate.workload.signal(Signal::None);
        gate.spec.traffic.mode = TrafficMode::ReadinessGate;
        let mut unknown = Self::new("unknown", BlockedReason::ContainerMissing, json!({}));
        unknown.spec.source = inline(&image(2));
        if let Some(inline) = &mut unknown.spec.source.inline
            && let Some(container) = inline.containers.first_mut()
        {
            container.name = "nobody".to_owned();
        }
        // Leaving pods out does not make sense of it.
        let mut ignored = Self::new("ignored", BlockedReason::ContainerMissing, json!({"image": image(2)}));
        ignored.spec.policy.ineligible = Ineligible::Ignore;
        ignored.spec.restart = Some(Restart {
            before_time: whole_seconds(Timestamp::now()),
            containers: vec!["nobody".to_owned()],
        });
        vec![
            Self::new(
                "field",
                BlockedReason::TemplateFieldNotInPlace,
                json!({"image": image(2), "env": [{"name": "LEVEL", "value": "debug"}]}),
            ),
            Self::new("removed", BlockedReason::ResourceRemoved, resources(json!({}), Value::Null)),
            Self::new(
                "above",
                BlockedReason::ExceedsNodeAllocatable,
                resources(json!({"cpu": "33"}), json!({"cpu": "34"})),
            ),
            Self::new("denied", BlockedReason::AdmissionDenied, json!({"image": DENIED})),
            Self::new(
                "class",
                BlockedReason::QosClassWouldChange,
                resources(json!({"cpu": "100m"}), json!({"cpu": "200m"})),
            )
            .of_pods(|pod| {
                let amounts = json!({"cpu": "100m", "memory": "64Mi"});
                for container in pod["containers"].as_array_mut().into_iter().flatten() {
                    container["resources"] = json!({"requests": amounts, "limits": amounts});
                }
            }),
            unsupported("windows").of_pods(|pod| pod["os"] = json!({"name": "windows"})),
            unsupported("devices").of_pods(|pod| {
                pod["resourceClaims"] = json!([{"name": "device", "resourceClaimName": "device"}]);
                // Nobody looks whether there is such a device, as no scheduler is asked.
                pod["nodeName"] = json!(format!("{GENERAL}-0"));
            }),
            gate,
            unknown,
            ignored,
        ]
    }
}

fn has_reason(upgrade: &InPlaceUpgrade, reason: BlockedReason) -> bool {
    let reasons = upgrade.status.iter().flat_map(|status| &status.plan.reasons);
    reasons.into_iter().any(|blocked| (blocked.reason, blocked.count) == (reason, 2))
}

/// Has the API server refuse [`DENIED`] on pods of the namespace, once it has compiled that.
async fn deny(test: &Testbed<'_>, pod: &str) -> Result<()> {
    let name = format!("images-{}", test.namespace);
    let meta = json!({"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": name}});
    let rule = json!({
        "apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["pods"],
    });
    let mut policy = meta.clone();
    policy["kind"] = json!("ValidatingAdmissionPolicy");
    policy["spec"] = json!({
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [{
            "expression": "!object.spec.containers.exists(c, c.image.startsWith('denied.example.com/'))",
        }],
    });
    let namespace = json!({"matchLabels": {"kubernetes.io/metadata.name": test.namespace}});
    let mut binding = meta;
    binding["kind"] = json!("ValidatingAdmissionPolicyBinding");
    binding["spec"] = json!({
        "policyName": name, "validationActions": ["Deny"], "matchResources": {"namespaceSelector": namespace},
    });
    for object in [policy, binding] {
        test.cluster.apply(&object.to_string()).await?;
    }
    let pods: Api<Pod> = test.api();
    let containers = json!([{"name": CONTAINER, "image": DENIED}]);
    let change = Patch::Strategic(json!({"spec": {"containers": containers}}));
    let params = PatchParams { dry_run: true, ..PatchParams::default() };
    until_seen(PATIENCE, "the image is denied", async || {
        Ok(match pods.patch(pod, &params, &change).await {
            Ok(_) => Err("it is not".to_owned()),
            Err(_) => Ok(()),
        })
    })
    .await
}

#[tokio::test]
async fn a_wish_that_no_live_pod_can_be_given_is_told_with_its_reason_and_nothing_is_written() -> Result<()> {
    let test = Testbed::new(shared().await?, "blocked").await?;
    let cases = Case::all();
    let mut before = Vec::new();
    for case in &cases {
        before.push(test.start_paused(&case.workload).await?);
    }
    let denied = test.pods.now().of("denied").first().map(|life| life.name());
    deny(&test, &denied.context("a pod")?).await?;
    let oracle = Replacements::watch(&test).await?;
    let mark = test.mark()?;
    for Case { workload, container, spec, .. } in &cases {
        let mut container = container.clone();
        container["name"] = json!(CONTAINER);
        let template = json!({"spec": {"containers": [container]}});
        test.patch(workload, json!({"spec": {"template": template}})).await?;
        test.upgrade(&workload.name, spec.clone()).await?;
    }
    for Case { workload, reason, .. } in &cases {
        let name = &workload.name;
        let upgrade = test.until(name, reason.as_str(), |upgrade| has_reason(upgrade, *reason)).await?;
        let blocked = upgrade.status.context("a status")?.pods.blocked;
        ensure!(blocked == 2, "{name}: {blocked} pods are blocked");
        test.told(name, StalledReason::PodsBlocked).await?;
    }
    native::is_idle(&test).await?;
    let requests = test.requests_since(mark)?;
    let (pods, workloads) = (writes_by_pod(&requests), workload_writes(&requests));
    ensure!(pods.is_empty() && workloads.is_empty(), "{pods:?}\n{workloads}");
    for (case, before) in cases.iter().zip(&before) {
        test.pods.now().ensure_same(&case.workload.name, before)?;
        ensure!(test.pods.now().of(&case.workload.name).iter().all(|life| life.restarts() == 0));
    }
    oracle.ensure_none()?;
    test.verify()
}

#[tokio::test]
async fn a_resize_that_its_node_does_not_carry_out_fails_the_pod_and_its_image_stays() -> Result<()> {
    let test = Testbed::new(shared().await?, "unresized").await?;
    let cases = [
        (ResizeOutcome::Infeasible, "ResizeInfeasible"),
        (ResizeOutcome::Deferred, "ResizeDeferred"),
        (ResizeOutcome::InProgress, "ResizeInProgress"),
    ];
    let workloads =
        cases.map(|(outcome, _)| Workload::stateful_set(&outcome.name().to_lowercase(), 2).on_delete());
    let mut before = Vec::new();
    for workload in &workloads {
        before.push(test.start(workload).await?);
    }
    let oracle = Replacements::watch(&test).await?;
    for (workload, (outcome, _)) in workloads.iter().zip(cases) {
        test.annotate(&format!("{}-1", workload.name), json!({RESIZE_OUTCOME: outcome.name()})).await?;
        let resources = json!({"requests": {"cpu": "150m"}, "limits": {"cpu": "300m"}});
        let containers = json!([{"name": CONTAINER, "image": image(2), "resources": resources}]);
        test.patch(workload, json!({"spec": {"template": {"spec": {"containers": containers}}}})).await?;
        let mut spec = workload.one_by_one();
        spec.strategy.resize_timeout_seconds = 10;
        spec.health.failure_threshold = IntOrPercent::Int(0);
        spec.rollback.on_failure = OnFailure::Hold;
        test.upgrade(&workload.name, spec).await?;
    }
    for (workload, (_, reason)) in workloads.iter().zip(cases) {
        let name = &workload.name;
        let upgrade = test.told(name, StalledReason::HealthFailed).await?;
        let failures = upgrade.status.context("a status")?.failures;
        let told = failures.iter().any(|found| found.pod == format!("{name}-1") && found.reason == reason);
        ensure!(told, "{name}: {failures:?}");
    }
    native::is_idle(&test).await?;
    for (workload, before) in workloads.iter().zip(&before) {
        let pods = test.pods.now();
        pods.ensure_same(&workload.name, before)?;
        let failed = pods.named(&format!("{}-1", workload.name)).context("the pod")?;
        ensure!(failed.image() == Some(&*image(1)) && failed.restarts() == 0, "{:?}", failed.images);
        ensure!(failed.drains == 0 && !is_false(&failed.pod, GATE), "it was never to leave traffic");
    }
    oracle.ensure_none()?;
    test.verify()
}

#[tokio::test]
async fn labels_by_which_a_workload_knows_its_pods_are_not_changed_under_it() -> Result<()> {
    let test = Testbed::new(shared().await?, "selected").await?;
    let hotfix = Workload::deployment("hotfix", 2);
    let selects = json!({"matchLabels": {"app": "label", SERVING_LABEL: "true"}});
    let label = Workload::deployment("label", 2).signal(Signal::Label).spec(json!({"selector": selects}));
    let mut before = Vec::new();
    for workload in [&hotfix, &label] {
        before.push(test.start_paused(workload).await?);
    }
    let oracle = Replacements::watch(&test).await?;
    let mark = test.mark()?;
    let mut renames = hotfix.upgrade();
    let labels = [("app".to_owned(), "another".to_owned())].into();
    renames.source = Source {
        type_: SourceType::Inline,
        inline: Some(Inline {
            persist: Persist::PodsOnly,
            metadata: Some(InlineMetadata { labels, ..InlineMetadata::default() }),
            ..Inline::default()
        }),
    };
    test.upgrade("hotfix", renames).await?;
    test.set_image(&label, &image(2)).await?;
    test.upgrade("label", label.upgrade()).await?;
    for workload in [&hotfix, &label] {
        test.told(&workload.name, StalledReason::Refused(RefusalReason::InvalidSpec)).await?;
    }
    native::is_idle(&test).await?;
    let requests = test.requests_since(mark)?;
    let (pods, workloads) = (writes_by_pod(&requests), workload_writes(&requests));
    ensure!(pods.is_empty() && workloads.is_empty(), "{pods:?}\n{workloads}");
    for (workload, before) in [&hotfix, &label].into_iter().zip(&before) {
        test.pods.now().ensure_same(&workload.name, before)?;
    }
    oracle.ensure_none()?;
    test.verify()
}
