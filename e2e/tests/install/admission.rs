//! The chart's bounds on BatchQueues on the real API server: who is refused, what they are told, and how they get out.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use springtide_crds::batch_queue::BatchQueue;
use springtide_e2e::helm::{Helm, objects};
use springtide_e2e::local_cluster::LocalCluster;
use springtide_e2e::polling::until_seen;

use crate::{CHART, NAMESPACE, RELEASE, keyed};

/// Bound on how long the API server takes to know of a policy, and to judge its expressions.
const PATIENCE: Duration = Duration::from_secs(60);
/// Somebody of the group that the file of values exempts, with all rights.
const EXEMPT: [&str; 3] = ["--as=operator", "--as-group=platform-admins", "--as-group=system:masters"];

/// At every bound of the file of values, and with a row of a resource that it does not name.
fn at_the_bounds() -> Value {
    json!({
        "quota": [
            {"resource": "cpu", "nominal": 100, "max": "200"},
            {"resource": "memory", "nominal": "400Gi", "max": "800Gi"},
            {"resource": "nvidia.com/gpu", "nominal": 0},
            {"resource": "example.com/fpga", "nominal": "1e6"},
        ],
        "weight": 10, "cohort": "shared", "maxTier": "Standard",
        "tiers": [{"name": "BestEffort", "priorityClassName": "batch-low"}, {"name": "Standard"}],
        "capacitySource": {"type": "NodeMetrics", "maxPendingPods": 20},
    })
}

/// One change of such a queue each, what it is told, and the value that bounds it.
fn beyond() -> Vec<(&'static str, Value, &'static str, &'static str)> {
    vec![
        (
            "/quota/2/resource",
            json!("example.com/tpu"),
            "must have a row of nvidia.com/gpu (nominal at most 0), as without one nothing but the nodes bounds the \
             queue: add it",
            "maxQuota",
        ),
        ("/quota/0/nominal", json!("100001m"), "nominal must be at most 100 of cpu: lower it", "maxQuota"),
        ("/quota/2/nominal", json!(1), "nominal must be at most 0 of nvidia.com/gpu: lower it", "maxQuota"),
        ("/quota/1/max", json!("801Gi"), "max must be at most 800Gi of memory: lower it", "maxQuota"),
        ("/weight", json!(11), "spec.weight must be at most 10: lower it", "maxWeight"),
        ("/cohort", json!("other"), "spec.cohort must be one of shared, research: change it", "cohorts"),
        ("/maxTier", json!("Guaranteed"), "spec.maxTier must be at most Standard: lower it", "maxTier"),
        (
            "/tiers/0/priorityClassName",
            json!("high"),
            "priorityClassName must be one of batch-low: change it",
            "priorityClasses",
        ),
        (
            "/capacitySource/type",
            json!("Static"),
            "spec.capacitySource.type must be one of NodeAllocatable, NodeMetrics: change it",
            "capacityTypes",
        ),
        (
            "/capacitySource/maxPendingPods",
            json!(21),
            "spec.capacitySource.maxPendingPods must be at most 20: lower it",
            "maxPendingPods",
        ),
    ]
}

fn queue(name: &str, spec: &Value) -> Result<BatchQueue> {
    let object = json!({
        "apiVersion": "springtide.dev/v1alpha1", "kind": "BatchQueue", "metadata": {"name": name}, "spec": spec,
    });
    serde_json::from_value(object).context("a BatchQueue")
}

/// What the server said, where it refused.
fn refusal<T>(answer: Result<T, kube::Error>) -> Result<Option<String>> {
    match answer {
        Ok(_) => Ok(None),
        Err(kube::Error::Api(status)) if status.code == 422 => Ok(Some(status.message)),
        Err(error) => Err(error.into()),
    }
}

/// The policy of the file of values in force for one namespace; its queues, and those of another namespace.
async fn bounded(cluster: &LocalCluster) -> Result<(Api<BatchQueue>, Api<BatchQueue>)> {
    cluster.install_crds().await?;
    let (inside, outside) =
        (cluster.create_namespace("inside").await?, cluster.create_namespace("outside").await?);
    let values = format!("--values={CHART}/ci/admission-policies-values.yaml");
    let here = format!(
        "--set-json=admissionPolicies.namespaceSelector.matchLabels={{\"kubernetes.io/metadata.name\":\"{inside}\"}}"
    );
    let args = ["template", RELEASE, CHART, "--namespace", NAMESPACE, &values, &here];
    let rendered = objects(&Helm::offline()?.run(&args).await?)?;
    let policies =
        rendered.iter().filter(|object| object["apiVersion"] == "admissionregistration.k8s.io/v1").cloned();
    let policies: Vec<Value> = policies.collect();
    ensure!(policies.len() == 2, "{policies:?}");
    cluster.apply(&json!({"apiVersion": "v1", "kind": "List", "items": policies}).to_string()).await?;
    let client = cluster.client("springtide-test")?;
    let (queues, others) = (Api::namespaced(client.clone(), &inside), Api::namespaced(client, &outside));
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    let large = queue("large", &json!({"weight": 1000}))?;
    until_seen(PATIENCE, "the policy is in force", async || {
        let said = refusal(queues.create(&dry_run, &large).await)?;
        Ok(said.map(drop).ok_or_else(|| "a queue beyond its bounds is taken".to_owned()))
    })
    .await?;
    Ok((queues, others))
}

#[tokio::test]
async fn a_queue_is_held_to_the_bounds_and_gets_out_from_beyond_them() -> Result<()> {
    let cluster = LocalCluster::builder().start().await?;
    let (queues, others) = bounded(&cluster).await?;
    well_typed(&cluster).await?;
    let create = PostParams::default();
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };

    let within = queues.create(&create, &queue("within", &at_the_bounds())?).await?;
    for (pointer, value, message, bound) in beyond() {
        let mut spec = at_the_bounds();
        *spec.pointer_mut(pointer).context(pointer)? = value;
        let told = format!(
            "{message}, or ask an administrator of the cluster to change admissionPolicies.queues.{bound}"
        );
        let mut changed = within.clone();
        changed.spec = queue("within", &spec)?.spec;
        for (what, answer) in [
            ("a new one", queues.create(&dry_run, &queue("new", &spec)?).await),
            ("an update", queues.replace("within", &dry_run, &changed).await),
        ] {
            let said = refusal(answer)?.with_context(|| format!("{what} is taken: {spec}"))?;
            ensure!(said.contains(&told), "{what}: {said}\nnot {told}");
        }
        others.create(&dry_run, &queue("elsewhere", &spec)?).await.context("where nothing is bounded")?;
    }

    // One from before there were bounds, beyond all of them: here of whom none holds.
    let large = json!({
        "quota": [{"resource": "cpu", "nominal": 500, "max": 600}, {"resource": "memory", "nominal": "1Ti"}],
        "weight": 100, "cohort": "other", "maxTier": "Guaranteed",
        "tiers": [{"name": "BestEffort", "priorityClassName": "high"}],
        "capacitySource": {"type": "Static", "maxPendingPods": 100},
    });
    let mut object = serde_json::to_value(queue("large", &large)?)?;
    ensure!(refusal(queues.create(&dry_run, &queue("large", &large)?).await)?.is_some());
    object["metadata"]["namespace"] = json!(within.metadata.namespace);
    let file = cluster.folder().join("large-queue.json");
    std::fs::write(&file, object.to_string())?;
    let args = [&["create", "-f", file.to_str().context("a path")?][..], &EXEMPT].concat();
    let created = cluster.kubectl(&args).await?;
    ensure!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));

    let patched = async |patch: &Value| {
        refusal(queues.patch("large", &PatchParams::default(), &Patch::Merge(patch)).await)
    };
    let quota = |cpu: u32, max: u32, memory: &str, gpu: Option<u32>| {
        let gpu = gpu.map(|gpu| json!({"resource": "nvidia.com/gpu", "nominal": gpu}));
        let rows = [
            json!({"resource": "cpu", "nominal": cpu, "max": max}),
            json!({"resource": "memory", "nominal": memory}),
        ];
        json!({"spec": {"quota": rows.into_iter().chain(gpu).collect::<Vec<_>>()}})
    };
    for nearer in [
        json!({"metadata": {"labels": {"team": "a"}}}),
        json!({"spec": {"ordering": "StrictFIFO"}}),
        json!({"spec": {"weight": 50}}),
        json!({"spec": {"maxTier": "Standard"}}),
        json!({"spec": {"capacitySource": {"maxPendingPods": 50}}}),
        quota(400, 600, "1Ti", None),
        // What was bounded by nothing.
        quota(400, 500, "1Ti", Some(8)),
    ] {
        let said = patched(&nearer).await?;
        ensure!(said.is_none(), "{nearer}: {said:?}");
    }
    let status = json!({"status": {"observedGeneration": 7}});
    queues.patch_status("large", &PatchParams::default(), &Patch::Merge(&status)).await?;
    for (farther, message) in [
        (json!({"spec": {"weight": 51}}), "spec.weight must be at most 10"),
        (json!({"spec": {"maxTier": "Guaranteed"}}), "spec.maxTier must be at most Standard"),
        (json!({"spec": {"cohort": "another"}}), "spec.cohort must be one of"),
        (json!({"spec": {"capacitySource": {"maxPendingPods": 51}}}), "maxPendingPods must be at most 20"),
        (
            json!({"spec": {"tiers": [{"name": "Standard", "priorityClassName": "high"}]}}),
            "priorityClassName must be one of batch-low",
        ),
        (quota(401, 500, "1Ti", Some(8)), "nominal must be at most 100 of cpu: lower it"),
        (quota(400, 501, "1Ti", Some(8)), "max must be at most 200 of cpu: lower it"),
        (quota(400, 500, "1025Gi", Some(9)), "at most 400Gi of memory, at most 0 of nvidia.com/gpu"),
        (quota(400, 500, "1Ti", None), "must have a row of nvidia.com/gpu"),
    ] {
        let said = patched(&farther).await?.with_context(|| format!("{farther} is taken"))?;
        ensure!(said.contains(message), "{farther}: {said}");
    }
    ensure!(patched(&json!({"spec": at_the_bounds()})).await?.is_none(), "it cannot come within the bounds");
    ensure!(patched(&json!({"spec": {"weight": 11}})).await?.is_some(), "it may leave them again");
    queues.delete("large", &DeleteParams::default()).await?;
    cluster.stop()
}

/// What the checker of the API server's types has to say of the expressions.
async fn well_typed(cluster: &LocalCluster) -> Result<()> {
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(cluster.client("springtide-test")?);
    let name = format!("{RELEASE}-queue-bounds");
    let judged = until_seen(PATIENCE, "the types of the policy are checked", async || {
        let policy = policies.get(&name).await?;
        let status = policy.status.unwrap_or_default();
        let is_current = status.observed_generation == policy.metadata.generation;
        Ok(if is_current { Ok(status) } else { Err(format!("{status:?}")) })
    })
    .await?;
    let warnings = judged.type_checking.and_then(|checked| checked.expression_warnings).unwrap_or_default();
    ensure!(warnings.is_empty(), "{warnings:#?}");
    Ok(())
}

#[tokio::test]
async fn a_release_of_some_namespaces_bounds_queues_there_alone() -> Result<()> {
    let values = format!("--values={CHART}/ci/admission-policies-values.yaml");
    let scope = "--set=scope.type=Namespaces,scope.namespaces={team-a,team-b}";
    let args = ["template", RELEASE, CHART, "--namespace", NAMESPACE, &values, scope];
    let rendered = keyed(objects(&Helm::offline()?.run(&args).await?)?)?;
    let binding = &rendered["ValidatingAdmissionPolicyBinding/springtide-queue-bounds"];
    let expected = json!([
        {"key": "example.com/platform", "operator": "DoesNotExist"},
        {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["team-a", "team-b"]},
    ]);
    let selected = &binding["spec"]["matchResources"]["namespaceSelector"];
    ensure!(selected["matchExpressions"] == expected, "{selected}");
    Ok(())
}
