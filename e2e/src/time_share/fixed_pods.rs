//! Pods of a namespace whose resizes the API server refuses, as a policy of its users may want it.

use anyhow::Result;
use serde_json::{Value, json};

use super::node_member::CONTAINER;
use super::testbed::Testbed;
use crate::oracle::feed::PATIENCE;
use crate::polling::until_seen;

/// Annotation of such a pod.
const FIXED: &str = "example.com/fixed";
/// What is said of it.
const WORDS: &str = "the pod is fixed";

impl Testbed<'_> {
    /// From now on the API server refuses resizes of the namespace's pods that were fixed; `pod` is the first of them. Returns
    /// when it has compiled that: when a dry run is refused.
    ///
    /// # Errors
    /// It does not come to that.
    pub async fn forbid_resizes(&self, pod: &str) -> Result<()> {
        for object in policy(&self.namespace) {
            self.cluster.apply(&object.to_string()).await?;
        }
        self.fix(pod).await?;
        // Less than any size, so that nothing else is wrong with it.
        let resources = json!({"requests": {"cpu": "1m"}});
        let patch =
            json!({"spec": {"containers": [{"name": CONTAINER, "resources": resources}]}}).to_string();
        let args = ["patch", "pod", pod, "--subresource", "resize", "--dry-run=server", "-p", &patch];
        until_seen(PATIENCE, "the policy counts", async || {
            Ok(match self.kubectl(&args).await {
                Ok(_) => Err("a dry run goes through".to_owned()),
                Err(error) => {
                    Some(format!("{error:#}")).filter(|words| !words.contains(WORDS)).map_or(Ok(()), Err)
                }
            })
        })
        .await
    }

    /// Nobody may resize a pod any more.
    ///
    /// # Errors
    /// It is not there.
    pub async fn fix(&self, pod: &str) -> Result<()> {
        self.annotate(pod, json!({FIXED: "yes"})).await
    }

    /// Everybody may again.
    ///
    /// # Errors
    /// It is not there.
    pub async fn release(&self, pod: &str) -> Result<()> {
        self.annotate(pod, json!({FIXED: null})).await
    }
}

/// A policy and its binding to a namespace, of the namespace's name.
fn policy(namespace: &str) -> [Value; 2] {
    let meta = json!({"name": format!("fixed-{namespace}")});
    let rule = json!({
        "apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["pods/resize"],
    });
    let is_free = format!("!('{FIXED}' in object.metadata.?annotations.orValue({{}}))");
    let selector = json!({"matchLabels": {"kubernetes.io/metadata.name": namespace}});
    let version = "admissionregistration.k8s.io/v1";
    [
        json!({
            "apiVersion": version, "kind": "ValidatingAdmissionPolicy", "metadata": meta,
            "spec": {
                "matchConstraints": {"resourceRules": [rule]},
                "validations": [{"expression": is_free, "message": WORDS}],
            },
        }),
        json!({
            "apiVersion": version, "kind": "ValidatingAdmissionPolicyBinding", "metadata": meta,
            "spec": {
                "policyName": meta["name"], "validationActions": ["Deny"],
                "matchResources": {"namespaceSelector": selector},
            },
        }),
    ]
}
