//! A run that goes by what a Prometheus says. The manager may ask that one alone.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::extract::State;
use axum::routing::post;
use serde_json::{Value, json};
use springtide_crds::common::MetricGate;
use springtide_crds::in_place_upgrade::{HealthyReason, HeldReason, RefusalReason, RunResult, StalledReason};
use springtide_e2e::manager::Manager;
use springtide_e2e::upgrade::{Testbed, Workload, cluster, image, native};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::approved_after;

/// What queries are answered by, as a vector.
type Answer = Arc<Mutex<Value>>;

/// A server of instant queries, until it is dropped.
struct Prometheus {
    address: String,
    answer: Answer,
    task: JoinHandle<()>,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Prometheus {
    /// One that knows no value.
    async fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("listen")?;
        let address = format!("http://{}", listener.local_addr()?);
        let answer = Answer::new(Mutex::new(json!([])));
        let routes = Router::new().route("/api/v1/query", post(query)).with_state(Arc::clone(&answer));
        let task = tokio::spawn(async move {
            // It ends with the test.
            let _ = axum::serve(listener, routes).await;
        });
        Ok(Self { address, answer, task })
    }

    /// From now on it says this.
    fn says(&self, value: &str) {
        let vector = json!([{"metric": {}, "value": [0, value]}]);
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = vector;
    }

    /// A metric that may be a half at most.
    fn gate(address: &str) -> Result<MetricGate> {
        let prometheus = json!({"address": address, "query": "sum(rate(errors_total[1m]))"});
        let gate = json!({
            "name": "errors", "prometheus": prometheus, "failureAbove": "0.5", "intervalSeconds": 5,
        });
        Ok(serde_json::from_value(gate)?)
    }
}

async fn query(State(answer): State<Answer>, _: String) -> String {
    let vector = answer.lock().unwrap_or_else(PoisonError::into_inner).clone();
    json!({"status": "success", "data": {"resultType": "vector", "result": vector}}).to_string()
}

#[tokio::test]
async fn a_metric_without_a_value_holds_a_run_and_one_beyond_its_bound_sends_it_back() -> Result<()> {
    let cluster = cluster().await?;
    let prometheus = Prometheus::start().await?;
    let configuration = json!({
        "apiVersion": "config.springtide.dev/v1alpha1", "kind": "ManagerConfiguration",
        "metricQueries": {"allowedAddresses": [prometheus.address]},
    });
    let file = cluster.folder().join("metrics-configuration.yaml");
    std::fs::write(&file, configuration.to_string()).context("write the configuration")?;
    let path = file.to_str().context("a path in UTF-8")?;
    let mut manager = Manager::start(&cluster, "manager", &["--config", path]).await?;
    manager.wait_ready().await?;
    let test = Testbed::new(&cluster, "metrics").await?;
    let web = Workload::deployment("web", 4);
    let before = test.start_paused(&web).await?;
    test.set_image(&web, &image(2)).await?;
    let mut spec = web.one_by_one();
    spec.strategy.steps = approved_after(1);
    spec.health.metrics = vec![Prometheus::gate(&prometheus.address)?];
    test.upgrade("web", spec).await?;
    let upgrade = test.told("web", HeldReason::NoMetricData).await?;
    let conditions = upgrade.status.map(|status| status.conditions).unwrap_or_default();
    let held = conditions.iter().find(|condition| condition.is(HeldReason::NoMetricData));
    ensure!(held.is_some_and(|held| held.message.contains("errors")), "{held:?}");
    native::is_idle(&test).await?;
    ensure!(test.pods.now().changes().is_empty(), "nobody knows how it goes");

    prometheus.says("0.25");
    test.told("web", HeldReason::ApprovalRequired).await?;
    test.running(&web, &image(2), 1).await?;
    prometheus.says("0.75");
    test.told("web", HealthyReason::MetricBreached).await?;
    let upgrade = test.told("web", StalledReason::RolledBack).await?;
    let run = upgrade.status.and_then(|status| status.last_run).context("the run")?;
    ensure!(run.result == RunResult::RolledBack);
    test.running(&web, &image(1), 4).await?;
    test.all_in_traffic(&web).await?;
    test.pods.now().ensure_same("web", &before)?;
    let changes = test.pods.now().changes().len();
    ensure!(changes == 2, "one was changed forth and back: {changes}");

    // Another one, whom nobody has allowed.
    let elsewhere = Prometheus::gate("http://127.0.0.1:9")?;
    test.edit("web", json!({"spec": {"attempt": 1, "health": {"metrics": [elsewhere]}}})).await?;
    let invalid = StalledReason::Refused(RefusalReason::InvalidSpec);
    let upgrade = test.told("web", invalid).await?;
    let conditions = upgrade.status.map(|status| status.conditions).unwrap_or_default();
    let stalled = conditions.iter().find(|condition| condition.is(invalid)).context("it is told")?;
    ensure!(stalled.message.contains("health.metrics[errors].prometheus.address"), "{}", stalled.message);
    test.verify()?;
    manager.stop()?;
    Ok(())
}
