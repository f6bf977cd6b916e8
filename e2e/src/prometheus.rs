//! What answers the queries of a manager as a Prometheus would.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::State;
use axum::routing::post;
use serde_json::{Value, json};
use springtide_crds::common::MetricGate;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::local_cluster::LocalCluster;

/// What queries are answered by, as a vector.
type Answer = Arc<Mutex<Value>>;

/// A server of instant queries, until it is dropped. It gives one answer to whatever is asked.
pub struct Prometheus {
    /// Where it is.
    pub address: String,
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
    ///
    /// # Errors
    /// There is no port for it.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("listen")?;
        let address = format!("http://{}", listener.local_addr()?);
        let answer = Answer::new(Mutex::new(json!([])));
        let routes = Router::new().route("/api/v1/query", post(query)).with_state(Arc::clone(&answer));
        let task = tokio::spawn(async move {
            // It ends with its handle.
            let _ = axum::serve(listener, routes).await;
        });
        Ok(Self { address, answer, task })
    }

    /// From now on it says this.
    pub fn says(&self, value: &str) {
        let vector = json!([{"metric": {}, "value": [0, value]}]);
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = vector;
    }

    /// The file of a configuration by which a manager of the cluster may ask it, and nobody else.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn configuration(&self, cluster: &LocalCluster) -> Result<PathBuf> {
        let configuration = json!({
            "apiVersion": "config.springtide.dev/v1alpha1", "kind": "ManagerConfiguration",
            "metricQueries": {"allowedAddresses": [self.address]},
        });
        let file = cluster.folder().join("metrics-configuration.yaml");
        std::fs::write(&file, configuration.to_string())
            .with_context(|| format!("write {}", file.display()))?;
        Ok(file)
    }
}

/// A metric of a name that is asked for at an address, and may be so much at most.
///
/// # Errors
/// Never for a name that the schema takes.
pub fn gate(name: &str, address: &str, failure_above: &str) -> Result<MetricGate> {
    let prometheus = json!({"address": address, "query": "sum(rate(errors_total[1m]))"});
    let gate = json!({
        "name": name, "prometheus": prometheus, "failureAbove": failure_above, "intervalSeconds": 5,
    });
    serde_json::from_value(gate).context("a metric")
}

async fn query(State(answer): State<Answer>, _: String) -> String {
    let vector = answer.lock().unwrap_or_else(PoisonError::into_inner).clone();
    json!({"status": "success", "data": {"resultType": "vector", "result": vector}}).to_string()
}
