//! The raw limit: the writes of a unit, sent by a generator without a controller to the same pods, one unit after the
//! other, each step when the one before has come into force.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use kube::Client;
use serde_json::{Value, json};
use springtide_crds::time_share_group::TrafficMode;
use springtide_e2e::bench::lives::{Lives, Window, sweep, until};
use springtide_e2e::bench::{STRATEGIC, patch};
use springtide_e2e::time_share::node_member::CONTAINER;
use springtide_e2e::time_share::{GATE, LABEL};

use crate::field::Field;
use crate::pods::{PEAK, PodFeed, VALLEY};

/// Units under way at once.
pub(crate) const IN_FLIGHT: [usize; 4] = [16, 64, 128, 256];
/// Before any unit counts, and in which they do.
const WINDOW: Window = Window { warm_up: Duration::from_secs(10), counted: Duration::from_secs(20) };

/// Leads units through their writes, with each number in flight. No manager may run. The other member has the peak before
/// it.
pub(crate) async fn measure(field: &Field, mode: TrafficMode) -> Result<Vec<Lives>> {
    let path = |(uid, name): (String, String)| (uid, field.path(&name));
    let generator = Arc::new(Generator {
        client: field.client.clone(),
        feed: Arc::clone(&field.pods),
        units: field.pairs().into_iter().map(|[one, other]| [path(other), path(one)]).collect(),
        mode,
    });
    let life = move |number| {
        let generator = Arc::clone(&generator);
        async move { generator.switch(number).await }
    };
    sweep(&IN_FLIGHT, WINDOW, "units", life).await
}

struct Generator {
    client: Client,
    feed: Arc<PodFeed>,
    /// UID and path of both pods of each unit, the one first that has the peak before all.
    units: Vec<[(String, String); 2]>,
    mode: TrafficMode,
}

impl Generator {
    /// Switches the unit that has its turn to the other side.
    async fn switch(&self, number: usize) -> Result<()> {
        let count = self.units.len().max(1);
        let [first, second] = self.units.get(number % count).context("no units")?;
        let is_back = number / count % 2 == 1;
        let (donor, receiver) = if is_back { (second, first) } else { (first, second) };
        self.turn(donor, false).await?;
        self.resize(donor, VALLEY).await?;
        self.resize(receiver, PEAK).await?;
        until(&self.feed, &donor.0, |life| life.in_force == Some(VALLEY)).await?;
        until(&self.feed, &receiver.0, |life| life.in_force == Some(PEAK)).await?;
        self.turn(receiver, true).await?;
        until(&self.feed, &receiver.0, |life| life.is_serving).await
    }

    /// Gives a pod its traffic, or takes it away.
    async fn turn(&self, (uid, path): &(String, String), on: bool) -> Result<()> {
        match self.mode {
            TrafficMode::ServiceLabel => {
                let value = if on { "true" } else { "false" };
                let change = json!({"metadata": {"uid": uid, "labels": {LABEL: value}}});
                self.patch(path, &change).await
            }
            TrafficMode::ReadinessGate => self.patch(&format!("{path}/status"), &gate(uid, on)).await,
            TrafficMode::None | TrafficMode::HttpRoute => Ok(()),
        }
    }

    async fn resize(&self, (uid, path): &(String, String), cpu: i64) -> Result<()> {
        let cpu = format!("{cpu}m");
        let resources = json!({"requests": {"cpu": cpu}, "limits": {"cpu": cpu}});
        let change = json!({
            "metadata": {"uid": uid}, "spec": {"containers": [{"name": CONTAINER, "resources": resources}]},
        });
        self.patch(&format!("{path}/resize"), &change).await
    }

    async fn patch(&self, path: &str, body: &Value) -> Result<()> {
        patch(&self.client, path, body, STRATEGIC).await.with_context(|| format!("patch {path}"))
    }
}

fn gate(uid: &str, on: bool) -> Value {
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let status = if on { "True" } else { "False" };
    json!({
        "metadata": {"uid": uid},
        "status": {"conditions": [
            {"type": GATE, "status": status, "message": "run=bench", "lastTransitionTime": now},
        ]},
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;

    #[test]
    fn its_patches_are_such_as_pods_take() {
        let closed: Pod = serde_json::from_value(gate("1", false)).unwrap();
        let conditions = closed.status.unwrap().conditions.unwrap();
        assert_eq!((&*conditions[0].type_, &*conditions[0].status), (GATE, "False"));
    }
}
