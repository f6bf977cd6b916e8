//! An HTTPRoute of the members of a stage, each of which has a backend of its name.

use anyhow::Result;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use serde_json::{Value, json};
use springtide_crds::time_share_group::{HttpRoute, TimeShareGroupSpec, Traffic};

use super::stage::Stage;
use crate::oracle::feed::PATIENCE;
use crate::polling::until_seen;

/// Its name.
pub const ROUTE: &str = "front";

/// Weights of `pay` and `promo` while the one has the peak, or the other one.
pub const OF_PAY: [u32; 2] = [100, 5];
/// See [`OF_PAY`].
pub const OF_PROMO: [u32; 2] = [5, 100];

/// Has members get their traffic by the weights of the route.
pub fn by_route(spec: &mut TimeShareGroupSpec) {
    let [peak_weight, valley_weight] = OF_PAY;
    for member in &mut spec.members {
        let route =
            HttpRoute { name: ROUTE.to_owned(), backend: member.name.clone(), peak_weight, valley_weight };
        member.traffic = Traffic { http_route: Some(route), ..member.traffic.clone() };
    }
}

/// Backends of this weight, as a route has them.
fn rules(backends: &[(&str, u32)]) -> Value {
    let backend = |(name, weight): &(&str, u32)| json!({"name": name, "port": 80, "weight": weight});
    json!([{"backendRefs": backends.iter().map(backend).collect::<Vec<_>>()}])
}

impl Stage<'_> {
    /// Routes of the namespace.
    #[must_use]
    pub fn routes(&self) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "HTTPRoute");
        let resource = ApiResource::from_gvk_with_plural(&kind, "httproutes");
        Api::namespaced_with(self.test.client(), &self.test.namespace, &resource)
    }

    /// Makes the route, with a weight of 0 for both members.
    ///
    /// # Errors
    /// It is refused, also after a while.
    pub async fn create_route(&self) -> Result<()> {
        let route = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": ROUTE, "namespace": self.test.namespace},
            "spec": {"rules": rules(&[("pay", 0), ("promo", 0)])},
        });
        let manifest = route.to_string();
        // A kind that has just come is not served at once.
        until_seen(PATIENCE, "the route is taken", async || {
            Ok(self.test.cluster.apply(&manifest).await.map_err(|error| format!("{error:#}")))
        })
        .await
    }

    /// Changes its backends, as somebody else.
    ///
    /// # Errors
    /// It is refused.
    pub async fn change_route(&self, backends: &[(&str, u32)]) -> Result<()> {
        let patch = Patch::Merge(json!({"spec": {"rules": rules(backends)}}));
        self.routes().patch(ROUTE, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Waits until its backends have these weights.
    ///
    /// # Errors
    /// They do not get them.
    pub async fn weights(&self, wanted: [u32; 2]) -> Result<()> {
        until_seen(PATIENCE, &format!("the weights are {wanted:?}"), async || {
            let route = self.routes().get(ROUTE).await?;
            let backends = route.data["spec"]["rules"][0]["backendRefs"].as_array().cloned();
            let weights: Vec<Value> =
                backends.unwrap_or_default().iter().map(|backend| backend["weight"].clone()).collect();
            Ok(if weights == wanted.map(Value::from) { Ok(()) } else { Err(format!("{weights:?}")) })
        })
        .await
    }
}
