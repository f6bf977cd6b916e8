//! What `springtide plan -f` says that a manifest leads to is what the manager then writes.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use springtide_crds::batch_job::{BatchJobSpec, JobProfile, QueuedReason};
use springtide_crds::batch_queue::{BatchQueue, BatchQueueSpec, GangScheduler};
use springtide_crds::batch_task_profile::{BatchTaskProfile, ProfileMode};
use springtide_e2e::batch::{Task, Testbed, cluster_with_pod_groups, profiles, queues, shared};
use springtide_e2e::manager::{Manager, USER_AGENT};
use springtide_e2e::oracle::feed::PATIENCE;
use springtide_e2e::write_count::{Request, Verb};

use crate::{
    ERROR, FINE, NOT_READY, STALLED, answer, asked, cpu, explained, half, manifest, profile, springtide,
    text, wide,
};

/// The plan of a manifest, by a command that ends with this code.
async fn plan_of(test: &Testbed<'_>, manifest: &str, code: i32) -> Result<Value> {
    answer(&test.cluster.kubeconfig_path(), &test.namespace, &["plan", "-f", "-"], manifest, code).await
}

/// Verb, resource and name of a write.
type Told = (String, String, String);

/// Every write of a plan in the namespace: other tests are at work beside it.
pub(crate) fn planned(test: &Testbed<'_>, plan: &Value) -> BTreeSet<Told> {
    let text = |write: &Value, field: &str| write[field].as_str().unwrap_or_default().to_owned();
    let writes = plan["writes"].as_array().into_iter().flatten();
    // The plural of each of our kinds, and of those of Kubernetes that we write.
    let resource = |write: &Value| format!("{}s", text(write, "kind").to_ascii_lowercase());
    writes
        .filter(|write| write["namespace"] == test.namespace.as_str())
        .map(|write| (text(write, "verb"), resource(write), text(write, "name")))
        .collect()
}

/// All writes in a namespace that managers have made, by the server's own log, but for what docs/cli.md says that no plan
/// has: statuses and Events. The Lease is elsewhere.
fn written(test: &Testbed<'_>) -> Result<Vec<Told>> {
    let writes = test.requests()?.writes().by_agent(USER_AGENT).successful();
    let writes =
        writes.filter(|write| !write.resource.ends_with("/status") && write.group != "events.k8s.io");
    let told = |write: &Request| (write.verb.name().to_owned(), write.resource.clone(), write.name.clone());
    Ok(writes.requests().iter().map(told).collect())
}

/// What the manager has written since, as soon as it is what was planned; for as long as tests are patient.
async fn comes_true(test: &Testbed<'_>, plan: &Value, before: usize) -> Result<()> {
    let expected = planned(test, plan);
    let wait = async {
        loop {
            let made: BTreeSet<_> = written(test)?.into_iter().skip(before).collect();
            ensure!(made.is_subset(&expected), "written {made:?}, planned {expected:?}");
            if made == expected {
                return Ok(());
            }
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.with_context(|| format!("planned {expected:?}"))?
}

/// Waits until so many pods of a job run, and no object of another one is left.
async fn settled(test: &Testbed<'_>, job: &str, count: usize) -> Result<()> {
    test.pods
        .until(&format!("{count} pods of {job} and no others"), |pods| {
            let left: Vec<_> = pods.of(job).into_iter().filter(|life| life.gone.is_none()).collect();
            (left.len() == count && left.iter().all(|life| life.is_running())).then_some(())
        })
        .await
}

/// One task that leaves its requests to this profile.
fn recurring(key: &str, queue: Option<&str>) -> BatchJobSpec {
    let template = Task::endless().template_with(|template| {
        template["spec"]["containers"][0]["resources"] = json!({});
    });
    let profile = Some(JobProfile { key: Some(key.to_owned()), mode: Some(ProfileMode::Initial) });
    BatchJobSpec { profile, queue_name: queue.map(str::to_owned), ..BatchJobSpec::new(template) }
}

#[tokio::test]
async fn what_was_planned_is_what_the_manager_then_writes() -> Result<()> {
    let cluster = shared().await?;
    let test = Testbed::new(cluster, "plan").await?;
    queues::open(&test, "reports", cpu("1")).await?;
    // Four pods, of which the quota lets two start.
    let spec = wide(4, Some("reports"), &half());
    let new = plan_of(&test, &manifest("BatchJob", "job", &spec), NOT_READY).await?;
    ensure!(new["objects"][0]["isNew"] == true && new["objects"][0]["isChecked"] == true, "{new}");
    ensure!(planned(&test, &new).len() == 2 && new["jobs"][0]["waits"]["reason"] == "QuotaExceeded", "{new}");
    ensure!(test.listed().await?.is_empty(), "a plan stores nothing");
    test.submit("job", spec).await?;
    comes_true(&test, &new, 0).await?;
    settled(&test, "job", 2).await?;
    test.reason("job", QueuedReason::QuotaExceeded).await?;

    // The queue, changed three times: what is planned, then what is done.
    for (nominal, pods) in [("500m", 1), ("2", 4), ("1500m", 3)] {
        let before = written(&test)?.len();
        let changed =
            manifest("BatchQueue", "reports", &json!({"quota": [{"resource": "cpu", "nominal": nominal}]}));
        let change = plan_of(&test, &changed, FINE).await?;
        ensure!(
            change["objects"][0]["isNew"] == false && !planned(&test, &change).is_empty(),
            "{nominal}: {change}"
        );
        let patch = json!({"spec": {"quota": [{"resource": "cpu", "nominal": nominal}]}});
        test.api::<BatchQueue>().patch("reports", &PatchParams::default(), &Patch::Merge(patch)).await?;
        comes_true(&test, &change, before).await.with_context(|| format!("nominal {nominal}"))?;
        settled(&test, "job", pods).await?;
    }
    // What the server refuses is no plan.
    let wrong =
        manifest("BatchJob", "wrong", &json!({"parallelism": 1, "minParallelism": 2, "template": {}}));
    let refused =
        springtide(&cluster.kubeconfig_path(), &test.namespace, &["plan", "-f", "-"], &wrong).await?;
    ensure!(refused.status.code() == Some(ERROR), "{refused:?}");
    ensure!(String::from_utf8_lossy(&refused.stderr).contains("refuses BatchJob wrong"), "{refused:?}");
    let asked = asked(cluster, "plan")?;
    ensure!(!asked.of_verb(Verb::Patch).is_empty() && asked.writes().is_empty(), "dry runs alone: {asked}");
    test.delete("job").await?;
    test.gone("job").await?;
    test.verify()
}

#[tokio::test]
async fn the_first_job_with_a_key_is_planned_with_its_profile() -> Result<()> {
    let test = Testbed::new(shared().await?, "plan-first-use").await?;
    let spec = recurring("daily", None);
    let new = plan_of(&test, &manifest("BatchJob", "first", &spec), FINE).await?;
    let kinds: Vec<_> = new["writes"].as_array().into_iter().flatten().map(|write| &write["kind"]).collect();
    ensure!(kinds == ["BatchTaskProfile", "Pod"], "{new}");
    ensure!(new["writes"][1]["requests"] == Value::Null, "nothing is requested: {new}");
    test.submit("first", spec).await?;
    comes_true(&test, &new, 0).await?;
    settled(&test, "first", 1).await?;
    let explained = explained(&test, "first", FINE).await?;
    let says = "profile daily has 0 runs and recommends nothing yet";
    ensure!(explained["profile"][0]["reason"] == "ProfileSetsNothing", "{explained}");
    ensure!(explained["profile"][0]["message"] == says, "{explained}");
    test.delete("first").await?;
    test.gone("first").await?;
    test.verify()
}

#[tokio::test]
async fn what_a_profile_gives_is_explained_and_its_change_is_planned_by_the_pods_that_follow() -> Result<()> {
    let test = Testbed::new(shared().await?, "plan-profile").await?;
    // Less than what is learned, and more than what will be given of it.
    queues::open(&test, "small", cpu("50m")).await?;
    let learned = profile::learned(&test).await?.cpu.context("of cpu")?;
    test.submit("late", recurring(profile::NAME, Some("small"))).await?;
    test.reason("late", QueuedReason::NeverFits).await?;
    let late = explained(&test, "late", STALLED).await?;
    let of = |answer: &Value, number: usize| {
        answer["profile"][number]["message"].as_str().unwrap_or_default().to_owned()
    };
    let request = format!(
        "container main requests cpu {learned}, the template requests none: percentile 95 of 20 runs of profile etl and 15 %"
    );
    ensure!(of(&late, 0) == request, "{late}");
    ensure!(
        late["profile"][0]["reason"] == "ProfileRequest" && of(&late, 2).contains("95 of 100 runs"),
        "{late}"
    );
    let words = text(&test, &["explain", "bj/late"]).await?;
    ensure!(words.contains(&format!("\nProfile   container main requests cpu {learned}, ")), "{words}");

    let spec = json!({"bounds": [{"container": "main", "resource": "cpu", "max": "40m"}]});
    let before = written(&test)?.len();
    let change = plan_of(&test, &manifest("BatchTaskProfile", profile::NAME, &spec), FINE).await?;
    ensure!(change["objects"][0]["isNew"] == false && change["objects"][0]["isChecked"] == true, "{change}");
    ensure!(change["writes"][0]["requests"]["cpu"] == "40m", "{change}");
    let profiles = test.api::<BatchTaskProfile>();
    let edited =
        profiles.patch(profile::NAME, &PatchParams::default(), &Patch::Merge(json!({"spec": spec}))).await?;
    // The manager draws its conclusions within a minute.
    profiles::profile(&test, profile::NAME, "of the new spec", |profile| {
        profile.status.as_ref().map(|status| status.observed_generation) == edited.metadata.generation
    })
    .await?;
    comes_true(&test, &change, before).await?;
    settled(&test, "late", 1).await?;
    let pod = serde_json::to_value(test.api::<Pod>().get("late-0-0").await?)?;
    let requests = &pod["spec"]["containers"][0]["resources"]["requests"];
    ensure!(*requests == change["writes"][0]["requests"], "{requests}, planned {change}");
    let runs = explained(&test, "late", FINE).await?;
    ensure!(of(&runs, 0).ends_with(", held at max of spec.bounds"), "{runs}");
    test.delete("late").await?;
    test.gone("late").await?;
    test.verify()
}

#[tokio::test]
async fn a_gang_is_planned_with_its_group() -> Result<()> {
    let cluster = cluster_with_pod_groups().await?;
    let mut manager = Manager::start(&cluster, "manager", &[]).await?;
    manager.wait_ready().await?;
    let test = Testbed::new(&cluster, "plan-gang").await?;
    let asks = |nominal: &str| BatchQueueSpec { gang_scheduler: GangScheduler::PodGroup, ..cpu(nominal) };
    queues::open(&test, "gangs", asks("2")).await?;
    let spec = BatchJobSpec { min_parallelism: 4, ..wide(6, Some("gangs"), &half()) };
    let new = plan_of(&test, &manifest("BatchJob", "gang", &spec), NOT_READY).await?;
    test.submit("gang", spec).await?;
    settled(&test, "gang", 4).await?;
    // A group has a part of its job's UID in its name, and a job that is only planned has not the one it will get.
    let but_for_its_name = |writes: BTreeSet<Told>| -> BTreeSet<Told> {
        let anonymous = |(verb, resource, name): Told| match resource.as_str() {
            "podgroups" => (verb, resource, String::new()),
            _ => (verb, resource, name),
        };
        writes.into_iter().map(anonymous).collect()
    };
    let made = written(&test)?;
    let expected = but_for_its_name(planned(&test, &new));
    ensure!(expected.len() == 5 && new["writes"].as_array().is_some_and(|all| all.len() == 5), "{new}");
    ensure!(
        made.len() == 5 && but_for_its_name(made.iter().cloned().collect()) == expected,
        "{made:?}, not {new}"
    );
    // It is there: what comes later of the gang is planned without another one.
    let change = plan_of(&test, &manifest("BatchQueue", "gangs", &asks("3")), FINE).await?;
    ensure!(planned(&test, &change).iter().all(|(_, resource, _)| resource == "pods"), "{change}");
    queues::edit(&test, "gangs", json!({"spec": asks("3")})).await?;
    comes_true(&test, &change, made.len()).await?;
    settled(&test, "gang", 6).await?;
    test.delete("gang").await?;
    test.gone("gang").await?;
    manager.stop()?;
    test.verify()
}
