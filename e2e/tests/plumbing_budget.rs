//! The write budget against the real flow control of an API server (API Priority and Fairness): a tenant
//! keeps all seats of the priority level that our writes of pods share, and the server refuses them.
//! Each manager has a user of its own that is no member of `system:masters`, which no flow control is for.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use k8s_openapi::api::flowcontrol::v1::PriorityLevelConfiguration;
use kube::api::Api;
use kube::config::KubeConfigOptions;
use springtide_crds::batch_job::{BatchJobSpec, CompleteReason, StopPolicy};
use springtide_e2e::batch::{GENERAL, Task, Testbed, pool};
use springtide_e2e::held_seats::HeldSeats;
use springtide_e2e::local_cluster::{Component, LocalCluster};
use springtide_e2e::manager::Manager;
use springtide_e2e::oracle::feed::PATIENCE;
use springtide_e2e::oracle::leadership::Terms;
use tokio::time::Instant;

const USERS: [&str; 2] = ["manager-a", "manager-b"];
const TENANT: &str = "tenant";
/// Jobs whose pods the server refuses for a while.
const JOBS: usize = 60;
/// Slots of an in-flight window at first: so many requests may be under way when the first 429 comes.
const WINDOW: usize = 16;

/// Writes of pods, and the tenant's of ConfigMaps, share a level of very few seats; statuses have another.
const FLOW_CONTROL: &str = r#"
apiVersion: flowcontrol.apiserver.k8s.io/v1
kind: PriorityLevelConfiguration
metadata: {name: few-seats}
spec:
  type: Limited
  limited: {nominalConcurrencyShares: 1, lendablePercent: 0, borrowingLimitPercent: 0, limitResponse: {type: Reject}}
---
apiVersion: flowcontrol.apiserver.k8s.io/v1
kind: PriorityLevelConfiguration
metadata: {name: statuses}
spec:
  type: Limited
  limited: {nominalConcurrencyShares: 30, limitResponse: {type: Reject}}
---
apiVersion: flowcontrol.apiserver.k8s.io/v1
kind: FlowSchema
metadata: {name: few-seats}
spec:
  matchingPrecedence: 500
  priorityLevelConfiguration: {name: few-seats}
  rules:
  - subjects:
    - {kind: User, user: {name: manager-a}}
    - {kind: User, user: {name: manager-b}}
    - {kind: User, user: {name: tenant}}
    resourceRules:
    - {apiGroups: [""], resources: [pods, configmaps], verbs: [create, delete, patch], namespaces: ["*"]}
---
apiVersion: flowcontrol.apiserver.k8s.io/v1
kind: FlowSchema
metadata: {name: statuses}
spec:
  matchingPrecedence: 500
  priorityLevelConfiguration: {name: statuses}
  rules:
  - subjects:
    - {kind: User, user: {name: manager-a}}
    - {kind: User, user: {name: manager-b}}
    resourceRules:
    - {apiGroups: [springtide.dev], resources: [batchjobs/status], verbs: [patch], namespaces: ["*"]}
---
apiVersion: flowcontrol.apiserver.k8s.io/v1
kind: FlowSchema
metadata: {name: manager-leases}
spec:
  matchingPrecedence: 190
  priorityLevelConfiguration: {name: leader-election}
  rules:
  - subjects:
    - {kind: User, user: {name: manager-a}}
    - {kind: User, user: {name: manager-b}}
    resourceRules:
    - {apiGroups: [coordination.k8s.io], resources: [leases], verbs: ["*"], namespaces: ["*"]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: users-of-the-test}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects:
- {apiGroup: rbac.authorization.k8s.io, kind: User, name: manager-a}
- {apiGroup: rbac.authorization.k8s.io, kind: User, name: manager-b}
- {apiGroup: rbac.authorization.k8s.io, kind: User, name: tenant}
"#;

/// As [`batch::cluster`], with no more seats in all than an API server has by default.
async fn cluster() -> Result<LocalCluster> {
    let few = ["--max-requests-inflight=400", "--max-mutating-requests-inflight=200"];
    let builder = LocalCluster::builder().kwok(pool(GENERAL, 10, "32", 110));
    let cluster = builder.extra_args(Component::ApiServer, few).start().await?;
    cluster.install_crds().await?;
    Ok(cluster)
}

async fn manager(cluster: &LocalCluster, user: &str) -> Result<Manager> {
    Manager::start_as(cluster, user, "springtide", &[]).await
}

/// UID of a level, as the server's answers name it.
async fn level(cluster: &LocalCluster, name: &str) -> Result<String> {
    let levels: Api<PriorityLevelConfiguration> = Api::all(cluster.client("springtide-test")?);
    levels.get(name).await?.metadata.uid.context("a level has a UID")
}

/// Waits until the tenant's requests are under this level.
async fn in_force(tenant: &std::path::Path, uid: &str) -> Result<()> {
    let kubeconfig = kube::config::Kubeconfig::read_from(tenant)?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let client = kube::Client::try_from(config)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let request = http::Request::delete("/api/v1/namespaces/default/configmaps/none");
        let answer = client.send(request.body(kube::client::Body::from(Vec::new()))?).await?;
        if answer.headers().get("x-kubernetes-pf-prioritylevel-uid").is_some_and(|level| level == uid) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "the flow schemas are not in force");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The in-flight window of a level, as the manager's metrics show it.
async fn window(manager: &Manager, uid: &str) -> Result<f64> {
    let metrics = manager.metrics().await?;
    let series = format!(r#"springtide_write_budget_inflight_limit{{priority_level="{uid}"}} "#);
    let value = metrics.lines().find_map(|line| line.strip_prefix(&series));
    value.with_context(|| format!("no window of {uid} in:\n{metrics}"))?.parse().context("a number")
}

/// When the server got each write of a pod that it refused with 429 since `from`, in order.
fn refused(cluster: &LocalCluster, from: Timestamp) -> Result<Vec<Timestamp>> {
    let of_pods = cluster.audit_log()?.all()?.by_user(USERS[0]).of_resource("pods").writes();
    let times = of_pods.requests().iter().filter(|request| request.code == 429);
    let mut times: Vec<_> = times.filter_map(|request| request.received).filter(|at| *at >= from).collect();
    times.sort_unstable();
    Ok(times)
}

/// How many came so shortly after the one before, and how many later. The shortest hold is a second from
/// the answer on, so what is closer was under way already.
fn close_and_apart(times: &[Timestamp]) -> (usize, usize) {
    let gaps = times.windows(2).map(|pair| pair[1].duration_since(pair[0]));
    let close = gaps.filter(|gap| gap.as_millis() < 999).count();
    (close, times.len().saturating_sub(1) - close)
}

#[tokio::test]
async fn a_level_without_seats_is_left_alone_no_work_is_lost_and_all_else_goes_on() -> Result<()> {
    let cluster = cluster().await?;
    cluster.apply(FLOW_CONTROL).await?;
    let (pods, statuses) = (level(&cluster, "few-seats").await?, level(&cluster, "statuses").await?);
    let tenant = cluster.kubeconfig_for(TENANT, "tenants")?;
    in_force(&tenant, &pods).await?;
    let leader = manager(&cluster, USERS[0]).await?;
    let test = Testbed::new(&cluster, "budget").await?;
    // The answers to these name the levels.
    test.submit_many("before", 5, &BatchJobSpec::new(Task::quick().template())).await?;
    for number in 0..5 {
        test.completed(&format!("before-{number}")).await?;
        test.no_pods(&format!("before-{number}")).await?;
    }
    // It would take a lease that is not renewed in time.
    let standby = manager(&cluster, USERS[1]).await?;

    let mut seats = HeldSeats::take_all(&tenant, "default").await?;
    let from = Timestamp::now();
    test.submit_many("refused", JOBS, &BatchJobSpec::new(Task::quick().template())).await?;
    let deadline = Instant::now() + PATIENCE;
    while close_and_apart(&refused(&cluster, from)?).1 < 4 {
        ensure!(Instant::now() < deadline, "refused: {:?}", refused(&cluster, from)?);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // Statuses are of another level.
    let held = BatchJobSpec { stop_policy: StopPolicy::Hold, ..BatchJobSpec::new(Task::quick().template()) };
    test.submit_many("held", 20, &held).await?;
    for number in 0..20 {
        test.reason(&format!("held-{number}"), CompleteReason::Suspended).await?;
    }
    seats.verify()?;
    assert_eq!(window(&leader, &pods).await?, 1.0);
    ensure!(window(&leader, &statuses).await? >= 16.0, "{}", leader.metrics().await?);
    ensure!(test.pods.now().all().all(|life| !life.name.starts_with("refused")), "a pod without a seat");
    drop(seats);

    for number in 0..JOBS {
        let name = format!("refused-{number}");
        test.completed(&name).await?;
        test.no_pods(&name).await?;
        test.pods.now().exactly_one_run(&name, 1)?;
    }
    // One request a hold, beside those that were under way when the first 429 came.
    let times = refused(&cluster, from)?;
    let (close, apart) = close_and_apart(&times);
    ensure!(close < WINDOW, "{close} requests during holds, {apart} after them: {times:#?}");
    eprintln!("{} refused: {close} beside the first, {apart} probes", times.len());
    let terms = Terms::of(&USERS, &cluster.audit_log()?.all()?);
    assert_eq!(terms.leaders, [USERS[0]], "the lease was renewed in time all along");
    ensure!(terms.without_lease.is_empty(), "written without the lease: {:#?}", terms.without_lease);
    leader.stop()?;
    standby.stop()?;
    test.verify()
}
