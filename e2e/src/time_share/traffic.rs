//! Clients behind Services of a group's members, that count the requests which switches cost them.

use anyhow::Result;
use serde_json::{Value, json};
use springtide_plumbing::workloads::names::TIME_SHARE_TRAFFIC;

use super::node_member::FRONT;
use super::testbed::Testbed;
use crate::node::load::{Load, Seen};
use crate::upgrade::traffic::served;

/// Pods that a Service of members selects, as long as they have their traffic.
#[must_use]
pub fn with_traffic(app: Option<&str>, by_label: bool) -> Value {
    let mut selector = match app {
        Some(app) => json!({"app": app}),
        // Those of all members.
        None => json!({FRONT: "yes"}),
    };
    if by_label {
        selector[TIME_SHARE_TRAFFIC.label] = json!("true");
    }
    selector
}

/// Requests to a Service.
pub struct Clients {
    load: Load,
}

impl Clients {
    /// Makes the Service of a name for what it selects, and sends `rate` requests a second when it has so many pods.
    ///
    /// # Errors
    /// The Service does not get them, or the clients do not start.
    pub async fn start(
        test: &Testbed<'_>,
        name: &str,
        selector: &Value,
        pods: usize,
        rate: u32,
    ) -> Result<Self> {
        let address = served(test, name, selector, pods).await?;
        let clients = format!("{name}-clients");
        Ok(Self { load: Load::start(test.client(), &test.namespace, &clients, &address, rate).await? })
    }

    /// Ends the clients, and gives what they have seen.
    ///
    /// # Errors
    /// They do not say.
    pub async fn end(self) -> Result<Seen> {
        self.load.end().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_selects_one_member_or_all_by_the_label_or_by_readiness_alone() {
        let label = TIME_SHARE_TRAFFIC.label;
        assert_eq!(with_traffic(Some("pay"), true), json!({"app": "pay", label: "true"}));
        assert_eq!(with_traffic(None, false), json!({FRONT: "yes"}));
    }
}
