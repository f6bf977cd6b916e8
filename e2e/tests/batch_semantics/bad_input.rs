//! What users get wrong: each ends in a condition that says so, after few writes.

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Namespace, ResourceQuota};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::await_condition;
use serde_json::{Value, json};
use springtide_crds::batch_job::{
    BatchJob, BatchJobSpec, CompletionMode, CompletionTracking, FailedReason, QueuedReason, Release,
    StalledReason,
};
use springtide_crds::common::condition;
use springtide_e2e::batch::{Task, Testbed, shared};
use springtide_e2e::manager::USER_AGENT;
use springtide_e2e::oracle::feed::PATIENCE;
use springtide_e2e::oracle::jobs;
use springtide_e2e::write_count::{Verb, WriteCount};

/// Tries of a class that is always refused: its pauses double from 1 to 60 s, so
/// within [`PATIENCE`] there is room for no more.
const TRIES: usize = 12;

/// What the manager wrote to the namespace, and pods it tried to make.
fn writes(test: &Testbed<'_>) -> Result<(WriteCount, usize)> {
    let own = test.requests()?.by_agent(USER_AGENT).writes();
    let creates = own.of_resource("pods").of_verb(Verb::Create).len();
    Ok((own, creates))
}

async fn merge<K>(api: &Api<K>, name: &str, change: Value) -> Result<()>
where
    K: kube::Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    api.patch(name, &PatchParams::default(), &Patch::Merge(change)).await?;
    Ok(())
}

#[tokio::test]
async fn a_template_that_the_server_refuses_fails_after_one_create() -> Result<()> {
    let test = Testbed::new(shared().await?, "invalid").await?;
    let cases = [
        ("pull", "imagePullPolicy", json!("Sometimes")),
        ("image", "image", json!("")),
        ("mount", "volumeMounts", json!([{"name": "missing", "mountPath": "/data"}])),
    ];
    for (name, field, value) in &cases {
        let template = Task::quick().template_with(|template| {
            template["spec"]["containers"][0][field] = value.clone();
        });
        test.submit(name, BatchJobSpec { completions: 5, parallelism: 5, ..BatchJobSpec::new(template) })
            .await?;
    }
    for (name, field, _) in &cases {
        let status = test.failed(name, FailedReason::InvalidTemplate).await?.status.context("status")?;
        let failed = condition(&status.conditions, "Failed").context("Failed")?;
        assert!(failed.message.contains(field), "{name}: {}", failed.message);
        assert_eq!((status.failed, status.active), (0, 0));
    }
    let (own, creates) = writes(&test)?;
    assert_eq!(creates, 3, "one create each:\n{own}");
    assert!(own.len() <= 3 * 3, "{own}");
    test.verify()
}

#[tokio::test]
async fn a_missing_priority_class_is_waited_for() -> Result<()> {
    let cluster = shared().await?;
    let test = Testbed::new(cluster, "priority-class").await?;
    let template = Task::quick()
        .template_with(|template| template["spec"]["priorityClassName"] = "springtide-test-late".into());
    test.submit("job", BatchJobSpec { completions: 20, parallelism: 20, ..BatchJobSpec::new(template) })
        .await?;
    let waiting = test.reason("job", QueuedReason::ClassBackoff).await?.status.context("status")?;
    let queued = condition(&waiting.conditions, "Queued").context("Queued")?;
    assert!(queued.message.contains("springtide-test-late"), "{}", queued.message);
    let classes: Api<PriorityClass> = Api::all(cluster.client("springtide-test")?);
    let class = serde_json::from_value(json!({"metadata": {"name": "springtide-test-late"}, "value": 7}))?;
    classes.create(&PostParams::default(), &class).await?;
    test.completed("job").await?;
    test.pods.now().exactly_one_run("job", 20)?;
    let (own, creates) = writes(&test)?;
    assert!(creates <= 20 + TRIES, "{own}");
    test.verify()
}

#[tokio::test]
async fn a_quota_makes_the_class_wait_until_it_is_raised() -> Result<()> {
    let test = Testbed::new(shared().await?, "quota").await?;
    let quotas: Api<ResourceQuota> = test.api();
    let quota =
        serde_json::from_value(json!({"metadata": {"name": "pods"}, "spec": {"hard": {"pods": "2"}}}))?;
    quotas.create(&PostParams::default(), &quota).await?;
    let in_force = |pods: &'static str| {
        move |quota: Option<&ResourceQuota>| {
            let hard = quota.and_then(|quota| quota.status.as_ref()?.hard.as_ref());
            hard.and_then(|hard| hard.get("pods")).is_some_and(|quantity| quantity.0 == pods)
        }
    };
    tokio::time::timeout(PATIENCE, await_condition(quotas.clone(), "pods", in_force("2"))).await??;
    let spec = BatchJobSpec {
        completions: 6,
        parallelism: 6,
        completion_mode: CompletionMode::Indexed,
        ..BatchJobSpec::new(Task::endless().template())
    };
    test.submit("job", spec).await?;
    test.running("job", 2).await?;
    let waiting = test.reason("job", QueuedReason::ClassBackoff).await?.status.context("status")?;
    let queued = condition(&waiting.conditions, "Queued").context("Queued")?;
    assert!(queued.message.contains("quota"), "{}", queued.message);
    merge(&quotas, "pods", json!({"spec": {"hard": {"pods": "10"}}})).await?;
    for life in test.running("job", 6).await? {
        test.end_pod(&life, 0).await?;
    }
    test.completed("job").await?;
    test.pods.now().exactly_one_run("job", 6)?;
    let (own, creates) = writes(&test)?;
    assert!(creates <= 6 + TRIES, "{own}");
    test.verify()
}

#[tokio::test]
async fn pod_security_makes_the_class_wait_until_the_namespace_allows_it() -> Result<()> {
    let cluster = shared().await?;
    let test = Testbed::new(cluster, "restricted").await?;
    let namespaces: Api<Namespace> = Api::all(cluster.client("springtide-test")?);
    let enforce =
        |level: Value| json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": level}}});
    merge(&namespaces, &test.namespace, enforce("restricted".into())).await?;
    test.submit("job", BatchJobSpec::new(Task::quick().template())).await?;
    let waiting = test.reason("job", QueuedReason::ClassBackoff).await?.status.context("status")?;
    let queued = condition(&waiting.conditions, "Queued").context("Queued")?;
    assert!(queued.message.contains("PodSecurity"), "{}", queued.message);
    merge(&namespaces, &test.namespace, enforce(Value::Null)).await?;
    test.completed("job").await?;
    let (own, creates) = writes(&test)?;
    assert!(creates <= 1 + TRIES, "{own}");
    test.verify()
}

#[tokio::test]
async fn a_namespace_can_be_deleted_while_its_jobs_run() -> Result<()> {
    let cluster = shared().await?;
    let test = Testbed::new(cluster, "ending").await?;
    for (name, tracking) in
        [("strict", CompletionTracking::Strict), ("at-least-once", CompletionTracking::AtLeastOnce)]
    {
        let spec = BatchJobSpec {
            completions: 500,
            parallelism: 10,
            completion_mode: CompletionMode::Indexed,
            release: Release { completion_tracking: Some(tracking), ..Release::default() },
            ..BatchJobSpec::new(Task::quick().template())
        };
        test.submit(name, spec).await?;
        test.pods
            .until("a pod that ended", |pods| {
                pods.of(name).iter().find(|life| life.ended.is_some()).map(drop)
            })
            .await?;
    }
    let before = test.requests()?.by_agent(USER_AGENT);
    let namespaces: Api<Namespace> = Api::all(cluster.client("springtide-test")?);
    namespaces.delete(&test.namespace, &DeleteParams::default()).await?;
    let gone = await_condition(namespaces, &test.namespace, |found: Option<&Namespace>| found.is_none());
    tokio::time::timeout(PATIENCE, gone).await.context("the end of the namespace")??;
    let own = test.requests()?.by_agent(USER_AGENT);
    let refused = own.filter(|request| request.code / 100 == 4).len();
    let refused_before = before.filter(|request| request.code / 100 == 4).len();
    assert!(refused - refused_before <= 2 * TRIES, "{own}");
    test.verify()
}

#[tokio::test]
async fn a_template_edited_where_no_rule_sees_it_starts_no_more_pods() -> Result<()> {
    let test = Testbed::new(shared().await?, "edited").await?;
    let template = Task::endless().template_with(|template| {
        if let Value::Array(containers) = &mut template["spec"]["containers"] {
            containers.push(json!({"name": "side", "image": "example.com/side:1"}));
        }
    });
    let spec = BatchJobSpec {
        completions: 4,
        parallelism: 2,
        completion_mode: CompletionMode::Indexed,
        ..BatchJobSpec::new(template)
    };
    let stored = test.submit("job", spec).await?;
    let first = test.running("job", 2).await?;
    let with = |change: &dyn Fn(&mut Vec<Value>)| {
        let mut template = json!(stored.spec.template);
        if let Value::Array(containers) = &mut template["spec"]["containers"] {
            change(containers);
        }
        json!({"spec": {"template": template}})
    };
    let refused =
        test.edit("job", with(&|containers| containers[0]["image"] = "example.com/task:2".into())).await;
    let refused = format!("{:#}", refused.err().context("the rules see a changed field")?);
    assert!(refused.contains("template"), "{refused}");
    // Containers are a map by their names to the rules, but their order is that of the pod.
    let reordered = test.edit("job", with(&|containers| containers.reverse())).await?;
    assert!(reordered.metadata.generation > stored.metadata.generation);
    test.reason("job", StalledReason::TemplateChanged).await?;
    for life in &first {
        test.end_pod(life, 0).await?;
    }
    let counted = |job: &BatchJob| job.status.as_ref().is_some_and(|status| status.succeeded == 2);
    test.job("job", "both are counted", counted).await?;
    assert_eq!(test.pods.now().of("job").len(), 2, "no pod of another template");
    test.edit("job", with(&|_| {})).await?;
    for life in test.running("job", 2).await? {
        test.end_pod(&life, 0).await?;
    }
    let job = test.completed("job").await?;
    assert!(!jobs::has(&job, &StalledReason::TemplateChanged), "{:?}", job.status);
    test.verify()
}
