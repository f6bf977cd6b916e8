//! The load generator: creates of many jobs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt};
use kube::Client;
use kube::core::Request;
use serde_json::Value;
use springtide_e2e::bench::{patch, post};
use springtide_e2e::local_cluster::LocalCluster;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

use crate::manifests::{System, Task};

/// Jobs that are created at once.
const CREATES_IN_FLIGHT: usize = 64;
/// Bound of one request: far above any that makes sense.
const REQUEST: Duration = Duration::from_secs(60);

/// Creates jobs in namespaces, one after the other in turn.
#[derive(Clone)]
pub(crate) struct Generator {
    /// Its client.
    pub(crate) client: Client,
    namespaces: Arc<[String]>,
}

impl Generator {
    /// One with connections of its own.
    pub(crate) fn new(cluster: &LocalCluster, namespaces: &[String]) -> Result<Self> {
        Ok(Self { client: cluster.client("bench-generator")?, namespaces: namespaces.into() })
    }

    /// The namespace of an object by its number.
    pub(crate) fn namespace(&self, number: usize) -> &str {
        &self.namespaces[number % self.namespaces.len()]
    }

    /// Creates jobs `<prefix>0` and so on, as fast as the server takes them. Gives by namespace and name when each
    /// was sent.
    pub(crate) async fn create(
        &self,
        system: System,
        prefix: &str,
        jobs: usize,
        task: impl Fn(usize) -> Task,
    ) -> Result<HashMap<String, Instant>> {
        futures::stream::iter(0..jobs)
            .map(|number| self.create_one(system, format!("{prefix}{number}"), number, task(number)))
            .buffer_unordered(CREATES_IN_FLIGHT)
            .try_collect()
            .await
    }

    /// Creates jobs `<prefix>0` and so on, one every `pace`, however long the answers take: a stall of the server
    /// is not to hide what would have come in meanwhile. Gives by namespace and name when each was sent.
    pub(crate) async fn create_paced(
        &self,
        system: System,
        prefix: &str,
        jobs: usize,
        pace: Duration,
        task: &Task,
    ) -> Result<HashMap<String, Instant>> {
        let mut tick = interval(pace);
        let mut creates = JoinSet::new();
        for number in 0..jobs {
            tick.tick().await;
            let (this, task, name) = (self.clone(), task.clone(), format!("{prefix}{number}"));
            creates.spawn(async move { this.create_one(system, name, number, task).await });
        }
        let mut sent = HashMap::with_capacity(jobs);
        while let Some(created) = creates.join_next().await {
            sent.extend([created??]);
        }
        Ok(sent)
    }

    async fn create_one(
        &self,
        system: System,
        name: String,
        number: usize,
        task: Task,
    ) -> Result<(String, Instant)> {
        let namespace = self.namespace(number);
        let job = system.job(namespace, &name, &task);
        let sent = Instant::now();
        let created = timeout(REQUEST, post(&self.client, &system.jobs(namespace), &job)).await;
        created
            .with_context(|| format!("{name} is not created"))?
            .with_context(|| format!("create {name}"))?;
        Ok((format!("{namespace}/{name}"), sent))
    }

    /// Merges into the status of an object.
    pub(crate) async fn patch_status(&self, path: &str, status: &Value, content_type: &str) -> Result<()> {
        patch(&self.client, &format!("{path}/status"), status, content_type).await
    }

    /// Deletes an object.
    pub(crate) async fn delete(&self, collection: &str, name: &str) -> Result<()> {
        let request = Request::new(collection).delete(name, &Default::default())?;
        timeout(REQUEST, self.client.request::<Value>(request)).await??;
        Ok(())
    }
}
