//! The raw limit: the writes of an upgraded pod, sent by a generator without a controller to the same pods, one pod after
//! the other, each step when the one before has come into force.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use kube::Client;
use serde_json::{Value, json};
use springtide_e2e::bench::lives::{Lives, Window, sweep, until};
use springtide_e2e::bench::{STRATEGIC, patch};
use springtide_e2e::upgrade::workload::CONTAINER;
use springtide_e2e::upgrade::{GATE, RECORD, Signal, image};

use crate::field::Field;
use crate::pods::PodFeed;

/// Pods under way at once.
pub(crate) const IN_FLIGHT: [usize; 4] = [32, 128, 256, 512];
/// Before any pod counts, and in which they do.
const WINDOW: Window = Window { warm_up: Duration::from_secs(10), counted: Duration::from_secs(20) };
/// The first version of the image that it gives.
const FIRST: u32 = 100;
/// As long as the one that the manager writes.
const RECORD_BYTES: usize = 230;

/// Leads pods through their writes, with each number in flight. No manager may run: it would open gates.
pub(crate) async fn measure(field: &Field, signal: Signal) -> Result<Vec<Lives>> {
    let generator = Arc::new(Generator {
        client: field.client.clone(),
        feed: Arc::clone(&field.pods),
        pods: field.names().into_iter().map(|(uid, name)| (uid, field.path(&name))).collect(),
        signal,
    });
    let life = move |number| {
        let generator = Arc::clone(&generator);
        async move { generator.upgrade(number).await }
    };
    sweep(&IN_FLIGHT, WINDOW, "pods", life).await
}

struct Generator {
    client: Client,
    feed: Arc<PodFeed>,
    /// UID and path of each.
    pods: Vec<(String, String)>,
    signal: Signal,
}

impl Generator {
    /// Upgrades the pod that has its turn.
    async fn upgrade(&self, number: usize) -> Result<()> {
        let (uid, path) = self.pods.get(number % self.pods.len().max(1)).context("no pods")?;
        let image = image(FIRST + u32::try_from(number / self.pods.len())?);
        let status = format!("{path}/status");
        if self.signal == Signal::Gate {
            self.patch(&status, &gate(uid, "False")).await?;
            until(&self.feed, uid, |life| !life.is_ready).await?;
        }
        self.patch(path, &change(uid, &image)).await?;
        if self.signal == Signal::Gate {
            until(&self.feed, uid, |life| life.runs(&image)).await?;
            self.patch(&status, &gate(uid, "True")).await?;
        }
        until(&self.feed, uid, |life| life.serves.as_ref() == Some(&image)).await
    }

    async fn patch(&self, path: &str, body: &Value) -> Result<()> {
        patch(&self.client, path, body, STRATEGIC).await.with_context(|| format!("patch {path}"))
    }
}

fn gate(uid: &str, status: &str) -> Value {
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    json!({
        "metadata": {"uid": uid},
        "status": {"conditions": [
            {"type": GATE, "status": status, "message": "run=bench", "lastTransitionTime": now},
        ]},
    })
}

fn change(uid: &str, image: &str) -> Value {
    json!({
        "metadata": {"uid": uid, "annotations": {RECORD: "x".repeat(RECORD_BYTES)}},
        "spec": {"containers": [{"name": CONTAINER, "image": image}]},
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;

    #[test]
    fn its_patches_are_such_as_pods_take() {
        let closed: Pod = serde_json::from_value(gate("1", "False")).unwrap();
        let conditions = closed.status.unwrap().conditions.unwrap();
        assert_eq!((&*conditions[0].type_, &*conditions[0].status), (GATE, "False"));
        let changed: Pod = serde_json::from_value(change("1", "v2")).unwrap();
        assert_eq!(changed.spec.unwrap().containers[0].image.as_deref(), Some("v2"));
        assert_eq!(changed.metadata.annotations.unwrap()[RECORD].len(), RECORD_BYTES);
    }
}
