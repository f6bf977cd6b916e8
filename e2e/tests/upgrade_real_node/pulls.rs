//! Images that cannot be had are found before a container is stopped.

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::admissionregistration::v1::{MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;
use springtide_crds::in_place_upgrade::{
    HeldReason, PrePullMode, PrePulledReason, ReadyReason, RunResult, StalledReason,
};
use springtide_e2e::node::registry::pull_secret;
use springtide_e2e::oracle::feed::PATIENCE;
use springtide_e2e::polling::until;
use springtide_e2e::upgrade::cost::writes_by_pod;
use springtide_e2e::upgrade::traffic::{server, server_reference};
use springtide_e2e::upgrade::workload::open_window;
use springtide_e2e::upgrade::{PULLER_PREFIX, Testbed, Workload, native};

use super::{TURN, container_ids, ensure_lines, shared, with_pod};

/// A registry whose images are for who shows a secret, and that secret.
const PRIVATE: &str = "private.example";
const SECRET: &str = "pull";
const USER: &str = "user";
const PASSWORD: &str = "right";

#[tokio::test]
async fn an_image_that_cannot_be_had_stops_no_container_and_is_taken_once_it_can() -> Result<()> {
    let _turn = TURN.read().await;
    let Some(bed) = shared().await? else { return Ok(()) };
    let test = Testbed::new(bed.plane(), "pulls").await?;
    bed.registry.push(&server("localhost/late:pushed", "late")?)?;
    bed.registry.tag_for_others("localhost/foreign:v2", "localhost/late:pushed")?;
    bed.registry.push(&server("private.example/app:v2", "private")?)?;
    bed.registry.guard("private.example/app", USER, PASSWORD);
    test.create::<Secret>(json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET},
        "type": "kubernetes.io/dockerconfigjson", "stringData": pull_secret(PRIVATE, USER, "wrong"),
    }))
    .await?;
    let (auto, init) = (PrePullMode::Auto, PrePullMode::InitContainer);
    let cases = [
        ("tag", "localhost/late:v2", auto, PrePulledReason::ImageNotFound),
        ("tag-by-init", "localhost/late:v3", init, PrePulledReason::ImageNotFound),
        ("architecture", "localhost/foreign:v2", auto, PrePulledReason::ImageNotFound),
        ("secret", "private.example/app:v2", auto, PrePulledReason::PullDenied),
    ];
    // As small as can be: no other pod could show it first.
    let workloads = cases.map(|(name, ..)| {
        with_pod(Workload::deployment(name, 1).serving(), |pod| {
            pod["imagePullSecrets"] = json!([{"name": SECRET}]);
        })
    });
    let before = try_join_all(workloads.iter().map(|workload| test.start_paused(workload))).await?;
    let ids: Vec<_> = workloads.iter().map(|workload| container_ids(&test, workload)).collect();
    let mark = test.mark()?;
    for (workload, (name, image, mode, _)) in workloads.iter().zip(&cases) {
        test.set_image(workload, image).await?;
        let mut spec = workload.upgrade();
        spec.pre_pull.mode = *mode;
        test.upgrade(name, spec).await?;
    }
    for (name, _, _, reason) in cases {
        let upgrade = test.told(name, reason).await?;
        let node = upgrade.status.as_ref().and_then(|status| status.pre_pull).context("nodes")?;
        ensure!((node.nodes, node.ready, node.failed) == (1, 0, 1), "{name}: {node:?}");
        test.told(name, StalledReason::PrePullFailed).await?;
        test.told(name, ReadyReason::Blocked).await?;
    }
    native::is_idle(&test).await?;
    for ((workload, ids), before) in workloads.iter().zip(&ids).zip(&before) {
        ensure!(container_ids(&test, workload) == *ids, "a container of {} was stopped", workload.name);
        let pods = test.pods.now();
        pods.ensure_same(&workload.name, before)?;
        ensure!(pods.of(&workload.name).iter().all(|life| life.is_ready() && life.drains == 0));
    }
    ensure!(test.pods.now().changes().is_empty());
    let writes = writes_by_pod(&test.requests_since(mark)?);
    ensure!(writes.is_empty(), "pods were written: {writes:?}");

    // Somebody pushes what is missing, and corrects the secret.
    for name in ["localhost/late:v2", "localhost/late:v3", "localhost/foreign:v2"] {
        bed.registry.tag(name, "localhost/late:pushed")?;
    }
    let right = Patch::Merge(json!({"stringData": pull_secret(PRIVATE, USER, PASSWORD)}));
    test.api::<Secret>().patch(SECRET, &PatchParams::default(), &right).await?;
    for ((workload, (name, image, ..)), before) in workloads.iter().zip(&cases).zip(&before) {
        test.succeeded(name, "").await?;
        native::agrees(&test, workload).await?;
        test.pods.now().ensure_same(name, before)?;
        let text = if image.starts_with(PRIVATE) { "private" } else { "late" };
        ensure_lines(bed, &test, workload, &["v1", text])?;
    }
    test.verify()?;
    test.clear().await
}

#[tokio::test]
async fn an_image_that_is_collected_after_its_pull_is_pulled_again() -> Result<()> {
    const IMAGE: &str = "localhost/collected:v2";
    let _turn = TURN.read().await;
    let Some(bed) = shared().await? else { return Ok(()) };
    let test = Testbed::new(bed.plane(), "collected").await?;
    bed.registry.push(&server(IMAGE, "collected")?)?;
    let web = Workload::deployment("web", 2).serving();
    let before = test.start_paused(&web).await?;
    test.set_image(&web, IMAGE).await?;
    let mut spec = web.one_by_one();
    spec.pre_pull.mode = PrePullMode::Auto;
    // Pulled, and not yet started.
    spec.freeze_windows = open_window()?;
    test.upgrade("web", spec).await?;
    test.told("web", PrePulledReason::AllNodes).await?;
    test.told("web", HeldReason::FreezeWindow).await?;
    let kept = pullers(&test).await?.len();
    ensure!(kept == 1, "{kept} pods keep the image in use");
    let asked = bed.registry.asked(IMAGE);
    bed.cluster.remove_image(IMAGE)?;
    test.edit("web", json!({"spec": {"freezeWindows": null}})).await?;
    test.succeeded("web", "").await?;
    native::agrees(&test, &web).await?;
    ensure!(bed.registry.asked(IMAGE) > asked, "the image was there all the time");
    test.pods.now().ensure_same("web", &before)?;
    ensure_lines(bed, &test, &web, &["v1", "collected"])?;
    ensure!(pullers(&test).await?.is_empty(), "a pod that pulled is left");
    test.verify()?;
    test.clear().await
}

/// The pods of a namespace by which images get to nodes, but those that go.
async fn pullers(test: &Testbed<'_>) -> Result<Vec<Pod>> {
    let pods = test.api::<Pod>().list(&ListParams::default()).await?;
    let is_puller =
        |pod: &Pod| pod.name_any().starts_with(PULLER_PREFIX) && pod.metadata.deletion_timestamp.is_none();
    Ok(pods.into_iter().filter(is_puller).collect())
}

/// Images of the init containers of a pod.
fn inits_of(pod: &Pod) -> Vec<&str> {
    let inits = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    inits.filter_map(|container| container.image.as_deref()).collect()
}

/// A policy by which pods of a namespace are stored without the volumes that are images: as by an API server that is told
/// not to know them, or by a webhook that does not.
struct Stripped {
    name: String,
    policies: Api<MutatingAdmissionPolicy>,
    bindings: Api<MutatingAdmissionPolicyBinding>,
}

impl Stripped {
    /// Puts it in force.
    async fn begin(test: &Testbed<'_>) -> Result<Self> {
        let name = format!("strip-{}", test.namespace);
        let policies: Api<MutatingAdmissionPolicy> = Api::all(test.client());
        let bindings: Api<MutatingAdmissionPolicyBinding> = Api::all(test.client());
        let remove = |path: &str| format!("JSONPatch{{op: \"remove\", path: \"{path}\"}}");
        let patch = format!("[{}, {}]", remove("/spec/volumes"), remove("/spec/containers/0/volumeMounts"));
        let policy = json!({
            "metadata": {"name": name},
            "spec": {
                "matchConstraints": {
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": test.namespace}},
                    "resourceRules": [
                        {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]},
                    ],
                },
                "matchConditions": [{
                    "name": "has-image-volumes",
                    "expression": "has(object.spec.volumes) && object.spec.volumes.exists(volume, has(volume.image))",
                }],
                "failurePolicy": "Fail",
                "reinvocationPolicy": "Never",
                "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": patch}}],
            },
        });
        policies.create(&PostParams::default(), &serde_json::from_value(policy)?).await?;
        let binding = json!({"metadata": {"name": name}, "spec": {"policyName": name}});
        bindings.create(&PostParams::default(), &serde_json::from_value(binding)?).await?;
        let probe: Pod = serde_json::from_value(json!({
            "metadata": {"name": "probe"},
            "spec": {
                "automountServiceAccountToken": false,
                "volumes": [{"name": "image", "image": {"reference": "localhost/probe:v1"}}],
                "containers": [{
                    "name": "main", "image": "localhost/probe:v1",
                    "volumeMounts": [{"name": "image", "mountPath": "/image"}],
                }],
            },
        }))?;
        let dry_run = PostParams { dry_run: true, ..PostParams::default() };
        // The server says nowhere that a policy is in force.
        until(PATIENCE, "image volumes are taken away", async || {
            let made = test.api::<Pod>().create(&dry_run, &probe).await?;
            let volumes = made.spec.and_then(|spec| spec.volumes).unwrap_or_default();
            Ok(volumes.iter().all(|volume| volume.image.is_none()).then_some(()))
        })
        .await?;
        Ok(Self { name, policies, bindings })
    }

    async fn end(self) -> Result<()> {
        self.bindings.delete(&self.name, &DeleteParams::default()).await?;
        self.policies.delete(&self.name, &DeleteParams::default()).await?;
        Ok(())
    }
}

#[tokio::test]
async fn where_image_volumes_are_taken_away_init_containers_pull_and_who_insists_is_told() -> Result<()> {
    const IMAGE: &str = "localhost/fallen-back:v2";
    let _turn = TURN.read().await;
    let Some(bed) = shared().await? else { return Ok(()) };
    let test = Testbed::new(bed.plane(), "stripped").await?;
    bed.registry.push(&server(IMAGE, "fallen-back")?)?;
    let stripped = Stripped::begin(&test).await?;
    let web = Workload::deployment("web", 2).serving();
    let strict = Workload::deployment("strict", 1).serving();
    let before = try_join_all([&web, &strict].map(|workload| test.start_paused(workload))).await?;
    let ids = container_ids(&test, &strict);
    test.set_image(&strict, IMAGE).await?;
    let mut spec = strict.upgrade();
    spec.pre_pull.mode = PrePullMode::ImageVolume;
    test.upgrade("strict", spec).await?;
    test.told("strict", PrePulledReason::PullerNotScheduled).await?;
    test.told("strict", StalledReason::PrePullFailed).await?;
    ensure!(bed.registry.asked(IMAGE) == 0, "what runs without its volumes has pulled nothing");
    ensure!(container_ids(&test, &strict) == ids, "a container was stopped");

    test.set_image(&web, IMAGE).await?;
    let mut spec = web.one_by_one();
    spec.pre_pull.mode = PrePullMode::Auto;
    // Pulled, and not yet started.
    spec.freeze_windows = open_window()?;
    test.upgrade("web", spec).await?;
    test.told("web", PrePulledReason::AllNodes).await?;
    ensure!(bed.registry.asked(IMAGE) > 0, "the image was there all the time");
    let mut made = pullers(&test).await?;
    made.retain(|pod| pod.owner_references().iter().any(|owner| owner.name == "web"));
    let by_init = made.iter().filter(|pod| inits_of(pod).contains(&IMAGE)).count();
    ensure!((made.len(), by_init) == (2, 1), "one shows that there are no volumes, one pulls: {made:?}");
    test.edit("web", json!({"spec": {"freezeWindows": null}})).await?;
    // Who does not insist any more is served as well.
    test.edit("strict", json!({"spec": {"prePull": {"mode": "InitContainer"}}})).await?;
    for (workload, before) in [&web, &strict].into_iter().zip(&before) {
        test.succeeded(&workload.name, "").await?;
        native::agrees(&test, workload).await?;
        test.pods.now().ensure_same(&workload.name, before)?;
        ensure_lines(bed, &test, workload, &["v1", "fallen-back"])?;
    }
    ensure!(pullers(&test).await?.is_empty(), "a pod that pulled is left");
    stripped.end().await?;
    test.verify()?;
    test.clear().await
}

#[tokio::test]
async fn without_a_pull_ahead_a_wrong_tag_costs_one_pod_a_restart_and_is_rolled_back() -> Result<()> {
    let _turn = TURN.read().await;
    let Some(bed) = shared().await? else { return Ok(()) };
    let test = Testbed::new(bed.plane(), "wrong").await?;
    let web = Workload::deployment("web", 3).serving();
    let before = test.start_paused(&web).await?;
    test.set_image(&web, "localhost/server:never").await?;
    test.upgrade("web", web.one_by_one()).await?;
    let upgrade = test.told("web", StalledReason::RolledBack).await?;
    let run = upgrade.status.and_then(|status| status.last_run).context("the run")?;
    ensure!(run.result == RunResult::RolledBack);
    test.running(&web, &server_reference(1), 3).await?;
    test.all_in_traffic(&web).await?;
    test.pods.now().ensure_same("web", &before)?;
    let changed = test.pods.now().of("web").iter().filter(|life| life.images.len() > 1).count();
    ensure!(changed == 1, "{changed} pods were changed");
    native::is_idle(&test).await?;
    test.verify()?;
    test.clear().await
}
