//! Gangs by PodGroup, on a control plane that serves `scheduling.k8s.io/v1beta1` and on one that does not.

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::scheduling::v1beta1::PodGroup;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use springtide_crds::batch_job::{BatchJobSpec, CompletionMode};
use springtide_crds::batch_queue::{BatchQueueSpec, GangScheduler, GangSchedulingReason};
use springtide_e2e::batch::queues::{create, told};
use springtide_e2e::batch::{Task, Testbed, cluster_with_pod_groups, shared};
use springtide_e2e::rights;

fn gang(size: u32) -> BatchJobSpec {
    BatchJobSpec {
        completions: size,
        parallelism: size,
        min_parallelism: size,
        completion_mode: CompletionMode::Indexed,
        queue_name: Some("q".to_owned()),
        ..BatchJobSpec::new(Task::endless().template())
    }
}

async fn ask_for_groups(test: &Testbed<'_>) -> Result<()> {
    create(test, "q", BatchQueueSpec { gang_scheduler: GangScheduler::PodGroup, ..BatchQueueSpec::new() })
        .await
}

async fn groups_of_pods(test: &Testbed<'_>) -> Result<Vec<Option<String>>> {
    let pods: Api<Pod> = test.api();
    let pods = pods.list(&ListParams::default()).await?;
    Ok(pods.items.into_iter().map(|pod| pod.spec?.scheduling_group?.pod_group_name).collect())
}

#[tokio::test]
async fn a_gang_is_placed_by_its_group_which_goes_with_its_job() -> Result<()> {
    let cluster = cluster_with_pod_groups().await?;
    let manager = rights::manager(&cluster, "manager").await?;
    let test = Testbed::new(&cluster, "groups").await?;
    ask_for_groups(&test).await?;
    test.submit("gang", gang(4)).await?;
    let running = test.running("gang", 4).await?;
    let groups: Api<PodGroup> = test.api();
    let listed = groups.list(&ListParams::default()).await?;
    let [group] = &listed.items[..] else { bail!("one group is to be there: {:?}", listed.items) };
    let policy = &group.spec.scheduling_policy;
    ensure!(policy.gang.as_ref().is_some_and(|gang| gang.min_count == 4), "{group:?}");
    ensure!(group.owner_references().iter().any(|owner| owner.name == "gang"), "{group:?}");
    let name = group.name_any();
    let of_pods = groups_of_pods(&test).await?;
    ensure!(of_pods.iter().all(|of_pod| of_pod.as_ref() == Some(&name)), "{of_pods:?}");
    told(&test, "q", GangSchedulingReason::PodGroup).await?;
    for life in &running {
        test.end_pod(life, 0).await?;
    }
    test.completed("gang").await?;
    test.delete("gang").await?;
    test.gone("gang").await?;
    let gone =
        kube::runtime::wait::await_condition(groups, &name, |found: Option<&PodGroup>| found.is_none());
    tokio::time::timeout(springtide_e2e::oracle::feed::PATIENCE, gone).await.context("the group stays")??;
    manager.stop()?;
    rights::nothing_forbidden(&cluster)?;
    test.verify()
}

#[tokio::test]
async fn where_no_groups_are_served_a_gang_starts_by_the_count_and_the_queue_says_so() -> Result<()> {
    let test = Testbed::new(shared().await?, "no-groups").await?;
    ask_for_groups(&test).await?;
    test.submit("gang", gang(3)).await?;
    let running = test.running("gang", 3).await?;
    told(&test, "q", GangSchedulingReason::NotServed).await?;
    ensure!(groups_of_pods(&test).await?.iter().all(Option::is_none));
    for life in &running {
        test.end_pod(life, 0).await?;
    }
    test.completed("gang").await?;
    let writes = test.requests()?.writes().of_resource("podgroups");
    ensure!(writes.len() <= 1, "it is not asked for again and again:\n{writes}");
    test.verify()
}
