//! The CRDs as a real API server serves them: rules, defaults, bounds, columns.

// Helpers of tests fail the test, as tests do.
#![allow(clippy::unwrap_used)]

mod groups;

use std::path::PathBuf;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::runtime::wait::{await_condition, conditions};
use kube::{CustomResource, CustomResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use springtide_crds::batch_job::{BatchJob, BatchJobSpec, PodTemplate};
use springtide_crds::common::{ConditionWriter, Window, whole_seconds};
use springtide_crds::in_place_upgrade::{InPlaceUpgradeStatus, PodCounts, ReadyReason, StepStatus};
use springtide_crds::time_share_group::TimeShareGroup;
use springtide_e2e::local_cluster::LocalCluster;

/// Most bytes of a status; the executor refuses more.
const MAX_STATUS_BYTES: usize = 10_000;

/// A kind whose spec is one [`Window`], to test the shared type by itself.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, CustomResource)]
#[kube(group = "test.springtide.dev", version = "v1alpha1", kind = "WindowHolder", namespaced)]
struct WindowHolderSpec {
    #[serde(flatten)]
    window: Window,
}

/// Examples of the CEL rules of one kind; the fixtures explain the form.
#[derive(Deserialize)]
struct Examples {
    base: Value,
    rules: Vec<RuleExamples>,
}

#[derive(Deserialize)]
struct RuleExamples {
    message: String,
    old: Option<Value>,
    accept: Vec<Value>,
    reject: Vec<Value>,
}

fn examples(file: &str) -> Examples {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../crds/tests/fixtures/cel");
    serde_yaml::from_str(&std::fs::read_to_string(folder.join(file)).unwrap()).unwrap()
}

/// RFC 7386: what a merge patch makes of a value.
fn merged(base: &Value, patch: &Value) -> Value {
    let Some(changes) = patch.as_object() else { return patch.clone() };
    let mut result = base.as_object().cloned().unwrap_or_default();
    for (name, change) in changes {
        if change.is_null() {
            result.remove(name);
        } else {
            let value = merged(result.get(name).unwrap_or(&Value::Null), change);
            result.insert(name.clone(), value);
        }
    }
    Value::Object(result)
}

async fn cluster() -> &'static LocalCluster {
    let cluster = LocalCluster::shared().await.unwrap();
    cluster.install_crds().await.unwrap();
    cluster
}

async fn objects(cluster: &LocalCluster, base: &Value) -> Api<DynamicObject> {
    let (group, version) = base["apiVersion"].as_str().unwrap().split_once('/').unwrap();
    let kind = base["kind"].as_str().unwrap();
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    let namespace = cluster.create_namespace("validation").await.unwrap();
    Api::namespaced_with(cluster.client("test").unwrap(), &namespace, &resource)
}

/// What the server says to creating `new`, or to updating `old` to it.
async fn answer(api: &Api<DynamicObject>, old: Option<Value>, new: Value) -> Result<(), String> {
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    let new: DynamicObject = serde_json::from_value(new).unwrap();
    let Some(old) = old else {
        return api.create(&dry_run, &new).await.map(drop).map_err(|error| error.to_string());
    };
    // Each update has an object of its own: the old one must stay as it is.
    let mut stored: DynamicObject = serde_json::from_value(old).unwrap();
    stored.metadata.name = None;
    stored.metadata.generate_name = Some("old-".to_owned());
    let stored = api.create(&PostParams::default(), &stored).await.unwrap();
    let name = stored.metadata.name.clone().unwrap();
    let update = DynamicObject { metadata: stored.metadata, ..new };
    api.replace(&name, &dry_run, &update).await.map(drop).map_err(|error| error.to_string())
}

async fn server_agrees(cluster: &LocalCluster, file: &str) {
    let examples = examples(file);
    let api = objects(cluster, &examples.base).await;
    for rule in &examples.rules {
        let old = rule.old.as_ref().map(|patch| merged(&examples.base, patch));
        for patch in &rule.accept {
            let answer = answer(&api, old.clone(), merged(&examples.base, patch)).await;
            assert_eq!(answer, Ok(()), "{patch} is valid ({})", rule.message);
        }
        for patch in &rule.reject {
            let answer = answer(&api, old.clone(), merged(&examples.base, patch)).await;
            let Err(error) = answer else { panic!("{patch} should break {:?}", rule.message) };
            assert!(error.contains(&rule.message), "{patch} should break {:?}: {error}", rule.message);
        }
    }
}

#[tokio::test]
async fn every_rule_accepts_and_refuses_its_examples() {
    for kind in springtide_crds::all() {
        server_agrees(cluster().await, &format!("{}.yaml", kind.crd.spec.names.plural)).await;
    }
}

#[tokio::test]
async fn a_window_has_one_form_and_valid_times() {
    let cluster = LocalCluster::shared().await.unwrap();
    let crds: Api<CustomResourceDefinition> = Api::all(cluster.client("test").unwrap());
    let crd = WindowHolder::crd();
    let name = crd.metadata.name.clone().unwrap();
    crds.create(&PostParams::default(), &crd).await.unwrap();
    await_condition(crds, &name, conditions::is_crd_established()).await.unwrap();
    server_agrees(cluster, "windows.yaml").await;
}

#[tokio::test]
async fn the_server_finds_no_fault_with_the_schemas() {
    let cluster = cluster().await;
    let crds: Api<CustomResourceDefinition> = Api::all(cluster.client("test").unwrap());
    for kind in springtide_crds::all() {
        let stored = crds.get(kind.crd.metadata.name.as_deref().unwrap()).await.unwrap();
        // NonStructuralSchema and the like appear only when something is wrong.
        let conditions: Vec<(String, String)> = stored
            .status
            .and_then(|status| status.conditions)
            .unwrap_or_default()
            .into_iter()
            .map(|condition| (condition.type_, condition.status))
            .collect();
        assert!(
            conditions.iter().all(|(type_, status)| {
                ["NamesAccepted", "Established"].contains(&type_.as_str()) && status == "True"
            }),
            "{conditions:?}"
        );
    }
}

#[tokio::test]
async fn samples_are_accepted_and_a_fresh_job_has_a_status_that_nobody_wrote() {
    let cluster = cluster().await;
    let base = examples("batchjobs.yaml").base;
    let api = objects(cluster, &base).await;
    for sample in springtide_crds::all().iter().flat_map(|kind| &kind.samples) {
        let of_kind = objects(cluster, &sample.object).await;
        assert_eq!(answer(&of_kind, None, sample.object.clone()).await, Ok(()), "{}", sample.file);
    }

    let created = api.create(&PostParams::default(), &serde_json::from_value(base).unwrap()).await.unwrap();
    let stored = api.get("base").await.unwrap();
    assert_eq!(stored.metadata.resource_version, created.metadata.resource_version);
    let job: BatchJob = serde_json::from_value(json!(stored)).unwrap();
    let mut template: PodTemplate = job.spec.template.clone();
    assert_eq!(template.spec().unwrap()["restartPolicy"], "Never");
    template.0["spec"].as_object_mut().unwrap().remove("restartPolicy");
    assert_eq!(job.spec, BatchJobSpec { template: job.spec.template.clone(), ..BatchJobSpec::new(template) });
    let status = job.status.unwrap();
    let conditions: Vec<_> = status
        .conditions
        .iter()
        .map(|condition| (condition.type_.as_str(), condition.status.as_str(), condition.reason.as_str()))
        .collect();
    assert_eq!(conditions, [("Complete", "Unknown", "Pending"), ("Reconciling", "True", "Pending")]);
    assert_eq!(status.observed_generation, 0);
}

/// The objects of ours in the docs, each with its page.
fn objects_of_the_docs() -> Vec<(PathBuf, Value)> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut pages = vec![root.join("README.md")];
    let mut folders = vec![root.join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => {
                    pages.extend(Some(path).filter(|path| path.extension().is_some_and(|end| end == "md")))
                }
            }
        }
    }
    let mut objects = Vec::new();
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        let blocks = text.split("\n```yaml\n").skip(1).filter_map(|rest| rest.split("\n```").next());
        for document in blocks.flat_map(serde_yaml::Deserializer::from_str) {
            let object = Value::deserialize(document).unwrap();
            if object["apiVersion"].as_str().is_some_and(|version| version.starts_with("springtide.dev/")) {
                objects.push((page.clone(), object));
            }
        }
    }
    objects
}

#[tokio::test]
async fn the_objects_of_the_docs_are_accepted() {
    let cluster = cluster().await;
    let found = objects_of_the_docs();
    assert!(found.iter().any(|(page, _)| page.ends_with("docs/batch-jobs.md")), "{found:?}");
    for (page, mut object) in found {
        // Namespaces of readers are not there.
        object["metadata"].as_object_mut().unwrap().remove("namespace");
        let of_kind = objects(cluster, &object).await;
        assert_eq!(answer(&of_kind, None, object.clone()).await, Ok(()), "{}: {object}", page.display());
    }
}

/// The longest value that a schema allows.
fn longest(schema: &Value) -> Value {
    let bound = |keyword: &str| schema[keyword].as_f64().map(|bound| bound as i64);
    if let Some(values) = schema["enum"].as_array() {
        return values.iter().max_by_key(|value| value.to_string().len()).cloned().unwrap();
    }
    // Of the two that are texts or numbers only quantities stand in a status.
    if schema["x-kubernetes-int-or-string"] == true {
        return json!("9".repeat(usize::try_from(bound("maxLength").unwrap()).unwrap()));
    }
    match schema["type"].as_str().unwrap() {
        "string" if schema["format"] == "date-time" => json!("2026-11-11T00:00:00Z"),
        "string" => json!("x".repeat(usize::try_from(bound("maxLength").unwrap()).unwrap())),
        "integer" => json!(bound("maximum").unwrap()),
        "array" => {
            // Keys of list-maps are unique: number what can be numbered.
            let items = (0..bound("maxItems").unwrap()).map(|i| {
                let mut item = longest(&schema["items"]);
                for key in schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten() {
                    let key = key.as_str().unwrap();
                    item[key] = match item[key].as_i64() {
                        Some(number) => json!(number - i),
                        None => json!(format!("{}{i:02}", &item[key].as_str().unwrap()[2..])),
                    };
                }
                item
            });
            items.collect()
        }
        "object" => {
            let mut fields = schema["properties"].as_object().unwrap().clone();
            // Of fields that exclude each other the shortest is left out.
            let excluded =
                schema["not"]["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            if let Some(name) = excluded.min_by_key(|name| longest(&fields[*name]).to_string().len()) {
                fields.remove(name);
            }
            fields.iter().map(|(name, field)| (name.clone(), longest(field))).collect()
        }
        other => panic!("unexpected type {other}"),
    }
}

/// Stores the longest status that the schema of a kind allows, which is small: what the server made of it.
async fn with_longest_status(file: &str, crd: &CustomResourceDefinition) -> (DynamicObject, Value) {
    let cluster = cluster().await;
    let base = examples(file).base;
    let api = objects(cluster, &base).await;
    api.create(&PostParams::default(), &serde_json::from_value(base).unwrap()).await.unwrap();
    let crd = json!(crd);
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"];
    let status = longest(schema);
    let size = status.to_string().len();
    assert!(size <= MAX_STATUS_BYTES, "{file}: {size}");

    let patch = Patch::Merge(json!({"status": status}));
    let stored = api.patch_status("base", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(stored.data["status"], status, "{file}");
    (stored, status)
}

#[tokio::test]
async fn the_longest_status_is_stored_and_small() {
    let (stored, status) = with_longest_status("batchjobs.yaml", &springtide_crds::batch_job::crd()).await;
    let job: BatchJob = serde_json::from_value(json!(stored)).unwrap();
    assert_eq!(json!(job.status), status);

    let crd = springtide_crds::time_share_group::crd();
    let (stored, status) = with_longest_status("timesharegroups.yaml", &crd).await;
    let group: TimeShareGroup = serde_json::from_value(json!(stored)).unwrap();
    assert_eq!(json!(group.status), status);
}

#[tokio::test]
async fn jobs_are_listed_by_tier_and_read_well() {
    let cluster = cluster().await;
    let base = examples("batchjobs.yaml").base;
    let api = objects(cluster, &base).await;
    for (name, tier) in [("low", "BestEffort"), ("high", "Guaranteed")] {
        let patch = json!({"metadata": {"name": name}, "spec": {"tier": tier}});
        let job = serde_json::from_value(merged(&base, &patch)).unwrap();
        api.create(&PostParams::default(), &job).await.unwrap();
    }
    let listed = api.list(&ListParams::default().fields("spec.tier=Guaranteed")).await.unwrap();
    let names: Vec<_> = listed.items.iter().filter_map(|job| job.metadata.name.as_deref()).collect();
    assert_eq!(names, ["high"]);

    let namespace = listed.items[0].metadata.namespace.clone().unwrap();
    let output = cluster.kubectl(&["get", "bj", "-n", &namespace]).await.unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    let head = ["NAME", "COMPLETE", "QUEUE", "TIER", "SUCCEEDED", "COMPLETIONS", "ACTIVE", "FAILED", "AGE"];
    assert_eq!(rows[0], head, "{table}");
    // It is in no queue yet, so that column is empty.
    assert_eq!(rows[1][..7], ["high", "Pending", "Guaranteed", "0", "1", "0", "0"], "{table}");
    let output = cluster.kubectl(&["get", "springtide", "-n", &namespace, "-o", "name"]).await.unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 2);

    let output = cluster.kubectl(&["explain", "bj.spec.pendingDeadlineSeconds"]).await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("From 5 to 3600.") && text.contains("Default: 30."), "{text}");
}

#[tokio::test]
async fn upgrades_are_selected_by_their_target_and_read_well() {
    let cluster = cluster().await;
    let base = examples("inplaceupgrades.yaml").base;
    let api = objects(cluster, &base).await;
    for (name, target) in [("web", "web"), ("other", "api")] {
        let patch = json!({"metadata": {"name": name}, "spec": {"targetRef": {"name": target}}});
        let upgrade = serde_json::from_value(merged(&base, &patch)).unwrap();
        api.create(&PostParams::default(), &upgrade).await.unwrap();
    }
    let by = "spec.targetRef.kind=Deployment,spec.targetRef.name=web";
    let listed = api.list(&ListParams::default().fields(by)).await.unwrap();
    let names: Vec<_> = listed.items.iter().filter_map(|upgrade| upgrade.metadata.name.as_deref()).collect();
    assert_eq!(names, ["web"]);

    let mut status = InPlaceUpgradeStatus {
        observed_generation: 1,
        target: "Deployment/web".to_owned(),
        pods: PodCounts { total: 300, updated: 1, ..PodCounts::default() },
        ..InPlaceUpgradeStatus::default()
    };
    let now = jiff::Timestamp::UNIX_EPOCH;
    let writer = ConditionWriter { observed_generation: 1, now, message_max_bytes: 160 };
    writer.set(&mut status.conditions, ReadyReason::Held, "step 1 is done");
    let start_time = whole_seconds(now);
    status.step = Some(StepStatus { index: 1, of: 3, pods: 1, start_time, hold_until_time: None });
    let patch = Patch::Merge(json!({"status": status}));
    api.patch_status("web", &PatchParams::default(), &patch).await.unwrap();
    let namespace = listed.items[0].metadata.namespace.clone().unwrap();
    let output = cluster.kubectl(&["get", "ipu", "web", "-n", &namespace]).await.unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NAME", "TARGET", "READY", "UPDATED", "TOTAL", "STEP", "BLOCKED", "AGE"], "{table}");
    assert_eq!(rows[1][..7], ["web", "Deployment/web", "Held", "1", "300", "1", "0"], "{table}");
}

#[tokio::test]
async fn a_number_or_part_is_held_to_the_bounds_of_either() {
    let cluster = cluster().await;
    let base = examples("inplaceupgrades.yaml").base;
    let api = objects(cluster, &base).await;
    let of = |value: &Value| merged(&base, &json!({"spec": {"strategy": {"maxUnavailable": value}}}));
    for value in [json!(0), json!(20_000), json!("0%"), json!("7%"), json!("100%")] {
        assert_eq!(answer(&api, None, of(&value)).await, Ok(()), "{value}");
    }
    for value in [json!(-1), json!(20_001), json!("101%"), json!("7"), json!("07%"), json!("-7%"), json!(1.5)]
    {
        let answer = answer(&api, None, of(&value)).await;
        assert!(answer.is_err_and(|error| error.contains("maxUnavailable")), "{value}");
    }
}
