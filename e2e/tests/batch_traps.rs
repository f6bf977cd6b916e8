//! What has gone wrong in other systems, on a real control plane with pods that KWOK plays: what one queue, one pod or
//! one policy means to all others. The table of such tests is in `docs/traps.md`.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail as a test does")]

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::admissionregistration::v1::{MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use springtide_crds::batch_job::{
    BatchJob, BatchJobSpec, CompletionMode, DegradedReason, QueuedReason, StalledReason,
};
use springtide_crds::batch_queue::{
    self, BatchQueue, BatchQueueSpec, CapacitySource, CapacityType, MAX_PER_NAMESPACE, Ordering, QuotaRow,
    ReadyReason,
};
use springtide_crds::common::{Quantity, Tier};
use springtide_e2e::batch::queues::{create, edit, queue, ready};
use springtide_e2e::batch::{POOL, Task, Testbed, next_second, pool, shared};
use springtide_e2e::manager::USER_AGENT;
use springtide_e2e::oracle::feed::PATIENCE;
use springtide_e2e::oracle::jobs;

/// A queue of so many cores, which counts its quota alone.
fn cores(nominal: &str, max: Option<&str>) -> BatchQueueSpec {
    let row =
        QuotaRow { resource: "cpu".to_owned(), nominal: Quantity::new(nominal), max: max.map(Quantity::new) };
    BatchQueueSpec {
        cohort: max.map(|_| "idle".to_owned()),
        quota: vec![row],
        capacity_source: CapacitySource { type_: CapacityType::Static, ..CapacitySource::default() },
        ..BatchQueueSpec::new()
    }
}

/// Tasks that do not end by themselves, in a queue.
fn tasks(count: u32, task: &Task, queue: &str) -> BatchJobSpec {
    BatchJobSpec {
        completions: count,
        parallelism: count,
        completion_mode: CompletionMode::Indexed,
        queue_name: Some(queue.to_owned()),
        ..BatchJobSpec::new(task.template())
    }
}

fn half_core() -> Task {
    Task { cpu: "500m".into(), ..Task::endless() }
}

async fn delete_all(test: &Testbed<'_>, jobs: &[&str]) -> Result<()> {
    for job in jobs {
        test.delete(job).await?;
        test.gone(job).await?;
        test.no_pods(job).await?;
    }
    test.verify()
}

/// YuniKorn has one configuration for all queues: a mistake in it stopped them all.
#[tokio::test]
async fn a_bad_queue_stops_itself_and_no_other() -> Result<()> {
    let test = Testbed::new(shared().await?, "bad-queue").await?;
    create(&test, "good", cores("1", None)).await?;
    // What the schema sees never comes to be.
    let low = json!({"spec": {"quota": [{"resource": "cpu", "nominal": "2", "max": "1"}]}});
    let refused = edit(&test, "good", low).await.err().context("max below nominal is refused")?;
    ensure!(format!("{refused:#}").contains("nominal"), "{refused:#}");
    // What it does not see stops the jobs of that tier alone.
    let mut bad = cores("4", None);
    bad.tiers = serde_json::from_value(json!([{"name": "BestEffort", "podLabels": {"-": "x"}}]))?;
    create(&test, "bad", bad).await?;
    ready(&test, "bad", ReadyReason::Stalled(batch_queue::StalledReason::InvalidTier)).await?;
    test.submit("stuck", tasks(1, &half_core(), "bad")).await?;
    let standard = BatchJobSpec { tier: Tier::Standard, ..tasks(1, &half_core(), "bad") };
    test.submit("standard", standard).await?;
    test.submit("well", tasks(2, &half_core(), "good")).await?;
    test.running("well", 2).await?;
    test.running("standard", 1).await?;
    let stuck = test.reason("stuck", StalledReason::TierNotAllowed).await?;
    ensure!(jobs::kstatus(&stuck) == jobs::Kstatus::Failed);
    ensure!(test.pods.now().of("stuck").is_empty());
    // A good one that is spoilt ends nothing.
    let before = test.running("well", 2).await?;
    edit(&test, "good", json!({"spec": {"tiers": [{"name": "BestEffort", "podLabels": {"-": "x"}}]}}))
        .await?;
    ready(&test, "good", ReadyReason::Stalled(batch_queue::StalledReason::InvalidTier)).await?;
    let after = test.running("well", 2).await?;
    ensure!(before.iter().zip(&after).all(|(before, after)| before.uid == after.uid), "{after:?}");
    for name in ["bad", "good"] {
        edit(&test, name, json!({"spec": {"tiers": null}})).await?;
        ready(&test, name, ReadyReason::Admitting).await?;
    }
    test.running("stuck", 1).await?;
    delete_all(&test, &["stuck", "standard", "well"]).await
}

#[tokio::test]
async fn the_newest_queue_beyond_the_maximum_starts_nothing_until_another_goes() -> Result<()> {
    let test = Testbed::new(shared().await?, "many-queues").await?;
    for number in 0..MAX_PER_NAMESPACE {
        create(&test, &format!("q{number}"), cores("1", None)).await?;
    }
    ready(&test, "q0", ReadyReason::Admitting).await?;
    next_second().await;
    create(&test, "newest", cores("1", None)).await?;
    ready(&test, "newest", ReadyReason::Stalled(batch_queue::StalledReason::LimitExceeded)).await?;
    test.submit("late", tasks(1, &half_core(), "newest")).await?;
    test.reason("late", QueuedReason::QueueStopped).await?;
    test.submit("early", tasks(1, &half_core(), "q0")).await?;
    test.running("early", 1).await?;
    ensure!(test.pods.now().of("late").is_empty());
    test.api::<BatchQueue>().delete("q7", &DeleteParams::default()).await?;
    test.running("late", 1).await?;
    ready(&test, "newest", ReadyReason::Admitting).await?;
    delete_all(&test, &["early", "late"]).await
}

#[tokio::test]
async fn what_is_larger_than_the_queue_waits_until_its_quota_is_raised() -> Result<()> {
    let test = Testbed::new(shared().await?, "too-large").await?;
    create(&test, "q", cores("1", None)).await?;
    let large = Task { cpu: "2".into(), ..Task::endless() };
    test.submit("large", tasks(1, &large, "q")).await?;
    let gang = BatchJobSpec { min_parallelism: 3, ..tasks(3, &half_core(), "q") };
    test.submit("gang", gang).await?;
    for name in ["large", "gang"] {
        let stalled = test.reason(name, StalledReason::NeverFits).await?;
        ensure!(jobs::kstatus(&stalled) == jobs::Kstatus::Failed, "{:?}", stalled.status);
        ensure!(jobs::has(&stalled, &QueuedReason::NeverFits), "{:?}", stalled.status);
    }
    // It is no obstacle to what fits.
    test.submit("small", tasks(2, &half_core(), "q")).await?;
    test.running("small", 2).await?;
    ensure!(test.pods.now().of("large").is_empty() && test.pods.now().of("gang").is_empty());
    edit(&test, "q", json!({"spec": {"quota": [{"resource": "cpu", "nominal": "5"}]}})).await?;
    test.running("large", 1).await?;
    test.running("gang", 3).await?;
    delete_all(&test, &["large", "gang", "small"]).await
}

#[tokio::test]
async fn in_a_strict_queue_nobody_passes_the_head() -> Result<()> {
    let test = Testbed::new(shared().await?, "strict").await?;
    create(&test, "q", BatchQueueSpec { ordering: Ordering::StrictFifo, ..cores("1", None) }).await?;
    test.submit("first", tasks(1, &half_core(), "q")).await?;
    let first = test.running("first", 1).await?;
    let wide = Task { cpu: "1".into(), ..Task::endless() };
    test.submit("head", tasks(1, &wide, "q")).await?;
    test.reason("head", QueuedReason::QuotaExceeded).await?;
    test.submit("after", tasks(1, &half_core(), "q")).await?;
    test.reason("after", QueuedReason::HeadBlocked).await?;
    ensure!(test.pods.now().of("after").is_empty(), "it would fit");
    test.end_pod(&first[0], 0).await?;
    let head = test.running("head", 1).await?;
    ensure!(test.pods.now().of("after").is_empty());
    test.end_pod(&head[0], 0).await?;
    test.running("after", 1).await?;
    delete_all(&test, &["first", "head", "after"]).await
}

/// kueue#6489 and others: what is lent comes back, and who gives it back has not failed.
#[tokio::test]
async fn a_lender_takes_back_what_it_lent_and_no_more() -> Result<()> {
    let test = Testbed::new(shared().await?, "lender").await?;
    create(&test, "lender", cores("1", Some("1"))).await?;
    create(&test, "borrower", cores("500m", Some("1500m"))).await?;
    test.submit("borrows", tasks(3, &half_core(), "borrower")).await?;
    let all = test.running("borrows", 3).await?;
    let borrowed = |amount: &'static str| {
        move |queue: &BatchQueue| {
            let status = queue.status.as_ref();
            status.is_some_and(|status| status.borrowed.get("cpu") == Some(&Quantity::new(amount)))
        }
    };
    queue(&test, "borrower", "that it borrows", borrowed("1")).await?;
    test.submit("own", tasks(1, &half_core(), "lender")).await?;
    let own = test.running("own", 1).await?;
    let left = test.running("borrows", 2).await?;
    ensure!(
        left.iter().all(|life| all.iter().any(|before| before.uid == life.uid)),
        "they went on: {left:?}"
    );
    let job = test.reason("borrows", DegradedReason::Reclaimed).await?;
    ensure!(job.status.context("a status")?.failed == 0);
    queue(&test, "borrower", "that it borrows less", borrowed("500m")).await?;
    test.end_pod(&own[0], 0).await?;
    test.running("borrows", 3).await?;
    let job = test.reason("borrows", DegradedReason::FullParallelism).await?;
    ensure!(job.status.context("a status")?.failed == 0);
    delete_all(&test, &["borrows", "own"]).await
}

/// koordinator#2360: pods that the scheduler does not place hold up their own queue.
#[tokio::test]
async fn pods_that_nobody_schedules_hold_up_no_other_queue() -> Result<()> {
    let cluster = shared().await?;
    let kwok = cluster.kwok().context("KWOK")?;
    kwok.add_nodes(cluster, &pool("pending", 1, "4", 110)).await?;
    let test = Testbed::new(cluster, "pending-queue").await?;
    for name in ["stuck", "well"] {
        create(&test, name, cores("2", None)).await?;
    }
    // Every pod of it wants a node of its own, which nobody can know beforehand.
    let apart = half_core().on("pending").template_with(|template| {
        template["metadata"]["labels"] = json!({"apart": "true"});
        template["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] =
            json!([{"topologyKey": POOL, "labelSelector": {"matchLabels": {"apart": "true"}}}]);
    });
    let stuck =
        BatchJobSpec { template: apart, pending_deadline_seconds: 5, ..tasks(4, &half_core(), "stuck") };
    test.submit("stuck", stuck).await?;
    test.running("stuck", 1).await?;
    // Some of them may have been taken back by now, and come again.
    test.pods.until("pods that wait", |pods| (pods.of("stuck").len() >= 4).then_some(())).await?;
    test.submit("well", tasks(4, &half_core().on("pending"), "well")).await?;
    test.running("well", 4).await?;
    // Nor does their being taken back, again and again.
    test.reason("stuck", QueuedReason::ClassBackoff).await?;
    for life in test.running("well", 4).await? {
        test.end_pod(&life, 0).await?;
    }
    test.completed("well").await?;
    let creates = test.requests()?.by_agent(USER_AGENT).writes().of_resource("pods");
    ensure!(creates.len() < 60, "no storm:\n{creates}");
    delete_all(&test, &["stuck"]).await
}

/// Some systems hold pods back by scheduling gates. A pod with one exists, and will not start before it goes.
#[tokio::test]
async fn a_gate_that_somebody_puts_into_pods_is_told_of_and_nothing_is_taken_back() -> Result<()> {
    let cluster = shared().await?;
    let test = Testbed::new(cluster, "gated").await?;
    let name = format!("gate-{}", test.namespace);
    let client = cluster.client("springtide-test")?;
    let policies: Api<MutatingAdmissionPolicy> = Api::all(client.clone());
    let bindings: Api<MutatingAdmissionPolicyBinding> = Api::all(client);
    let of_namespace = json!({"matchLabels": {"kubernetes.io/metadata.name": test.namespace}});
    let policy: MutatingAdmissionPolicy = serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {
            "matchConstraints": {
                "namespaceSelector": of_namespace,
                "resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
            },
            "failurePolicy": "Fail",
            "reinvocationPolicy": "Never",
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression":
                "[JSONPatch{op: \"add\", path: \"/spec/schedulingGates\", value: [Object.spec.schedulingGates{name: \"example.com/gate\"}]}]"}}],
        },
    }))?;
    policies.create(&PostParams::default(), &policy).await?;
    let binding: MutatingAdmissionPolicyBinding =
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"policyName": name}}))?;
    bindings.create(&PostParams::default(), &binding).await?;
    gated(&test).await?;
    let spec = BatchJobSpec { pending_deadline_seconds: 5, ..BatchJobSpec::new(Task::quick().template()) };
    test.submit("job", spec).await?;
    let stalled = test.reason("job", StalledReason::ForeignSchedulingGate).await?;
    ensure!(jobs::kstatus(&stalled) == jobs::Kstatus::Failed);
    // Longer than a pod may wait for a node: taken back, it would be held back again.
    tokio::time::sleep(Duration::from_secs(8)).await;
    ensure!(test.pods.now().of("job").len() == 1, "{:?}", test.pods.now().of("job"));
    let pod: Value = serde_json::to_value(test.api::<Pod>().get("job-0-0").await?)?;
    ensure!(pod["metadata"].get("deletionTimestamp").is_none(), "{pod}");
    // Before the gate opens: a pod that the scheduler then takes long to place is taken back, and the next one is to be
    // without a gate.
    bindings.delete(&name, &DeleteParams::default()).await?;
    policies.delete(&name, &DeleteParams::default()).await?;
    let open = Patch::Merge(json!({"spec": {"schedulingGates": null}}));
    test.api::<Pod>().patch("job-0-0", &PatchParams::default(), &open).await?;
    test.completed("job").await?;
    test.verify()
}

/// Waits until the policy is in force, which the server says nowhere.
async fn gated(test: &Testbed<'_>) -> Result<()> {
    let probe: Pod = serde_json::from_value(json!({
        "metadata": {"name": "probe"},
        "spec": {"containers": [{"name": "main", "image": "example.com/probe:1"}]},
    }))?;
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    let in_force = async {
        loop {
            let made = test.api::<Pod>().create(&dry_run, &probe).await?;
            if made.spec.is_some_and(|spec| spec.scheduling_gates.is_some_and(|gates| !gates.is_empty())) {
                return anyhow::Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, in_force).await.context("the policy has no effect")?
}

/// kueue#8095 in small: what waits is written once, whatever happens beside it. With more jobs and for an hour, in the
/// simulation of the controller.
#[tokio::test]
async fn jobs_that_wait_are_written_once_whatever_happens_beside_them() -> Result<()> {
    const WAITING: usize = 40;
    let test = Testbed::new(shared().await?, "waiting").await?;
    create(&test, "q", cores("500m", None)).await?;
    let busy = BatchJobSpec { parallelism: 2, priority: 10, ..tasks(1000, &half_core(), "q") };
    test.submit("busy", busy).await?;
    let mut running = test.running("busy", 1).await?;
    test.submit_many("waits", WAITING, &tasks(1, &half_core(), "q")).await?;
    // The only slot changes hands until all have told that they wait.
    let told = |job: &BatchJob| jobs::has(job, &QueuedReason::QuotaExceeded);
    for number in 0..WAITING {
        let name = format!("waits-{number}");
        while !test.jobs.now().get(&name).is_some_and(told) {
            test.end_pod(&running[0], 0).await?;
            running = test.running("busy", 1).await?;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
    for _ in 0..10 {
        test.end_pod(&running[0], 0).await?;
        running = test.running("busy", 1).await?;
    }
    let writes = test.requests()?.by_agent(USER_AGENT).writes();
    for number in 0..WAITING {
        let name = format!("waits-{number}");
        let of_job = writes.filter(|request| request.name == name);
        ensure!(of_job.len() <= 1, "{name}:\n{of_job}");
        ensure!(test.pods.now().of(&name).is_empty(), "{name} has started");
    }
    test.verify()
}
