//! VerticalPodAutoscaler of the [autoscaler project](https://github.com/kubernetes/autoscaler), as far as it says which cpu
//! and memory of live pods it decides. Few clusters have the kind.

use super::kinds::target_kind;
use crate::workloads::claims::{Claim, Share, Which};
use serde::Deserialize;
use springtide_crds::in_place_upgrade::TargetKind;
use crate::key::Resource;
use crate::projection::{Meta, NoLabels, Projection};
use std::sync::Arc;

/// `autoscaling.k8s.io/v1` VerticalPodAutoscaler.
pub const VERTICAL_POD_AUTOSCALER: Resource = Resource {
    group: "autoscaling.k8s.io",
    version: "v1",
    kind: "VerticalPodAutoscaler",
    plural: "verticalpodautoscalers",
    namespaced: true,
};

/// Name of the policy of all containers that have none of their own.
const ALL_OTHERS: &str = "*";

/// One VerticalPodAutoscaler.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Wire")]
pub struct VerticalPodAutoscalerView {
    meta: Meta,
    /// The workload of its namespace whose pods it sizes; `None` where it is of no kind whose pods we change.
    pub target: Option<(TargetKind, Arc<str>)>,
    /// Whether live pods get what it recommends, by a resize or in that they are made anew: it has a say in their size
    /// for as long as they live.
    pub resizes: bool,
    /// What it decides of each container, if it resizes.
    pub claim: Claim,
}

impl VerticalPodAutoscalerView {
    /// Whether it says the same as another version of it: it is written anew with each recommendation.
    pub fn says_the_same(&self, other: &Self) -> bool {
        (&self.target, self.resizes, &self.claim) == (&other.target, other.resizes, &other.claim)
    }
}

impl Projection for VerticalPodAutoscalerView {
    const RESOURCE: Resource = VERTICAL_POD_AUTOSCALER;
    type Labels = NoLabels;

    fn meta(&self) -> &Meta {
        &self.meta
    }

    fn bytes(&self) -> usize {
        let named: usize =
            self.claim.named.keys().map(|name| name.len() + size_of::<(Arc<str>, Share)>()).sum();
        let target = self.target.as_ref().map_or(0, |(_, name)| name.len());
        size_of::<Self>() + self.meta.text_bytes() + named + target
    }
}

#[derive(Deserialize)]
struct Wire {
    metadata: Meta,
    #[serde(default)]
    spec: WireSpec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireSpec {
    target_ref: Option<WireTarget>,
    update_policy: Option<WireUpdatePolicy>,
    resource_policy: Option<WireResourcePolicy>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireTarget {
    api_version: Option<Box<str>>,
    kind: Box<str>,
    name: Arc<str>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireUpdatePolicy {
    update_mode: Option<Box<str>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireResourcePolicy {
    container_policies: Option<Vec<WireContainerPolicy>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireContainerPolicy {
    container_name: Option<Arc<str>>,
    mode: Option<Box<str>>,
    controlled_resources: Option<Vec<Box<str>>>,
    controlled_values: Option<Box<str>>,
}

impl From<Wire> for VerticalPodAutoscalerView {
    fn from(wire: Wire) -> Self {
        let Wire { metadata, spec } = wire;
        let mode = spec.update_policy.and_then(|policy| policy.update_mode);
        let policies = spec.resource_policy.and_then(|policy| policy.container_policies).unwrap_or_default();
        Self {
            meta: metadata,
            target: spec.target_ref.and_then(target),
            resizes: resizes(mode.as_deref()),
            claim: claim(policies),
        }
    }
}

fn target(reference: WireTarget) -> Option<(TargetKind, Arc<str>)> {
    let group = reference.api_version.as_deref().and_then(|version| version.split_once('/'));
    // Others have a StatefulSet too. It may be left out, and then is the one that everybody means.
    let is_of_apps = group.is_none_or(|(group, _)| group == "apps");
    let kind = target_kind(&reference.kind).filter(|_| is_of_apps)?;
    Some((kind, reference.name))
}

/// Whether live pods get what is recommended. By the
/// [API](https://github.com/kubernetes/autoscaler/blob/master/vertical-pod-autoscaler/pkg/apis/autoscaling.k8s.io/v1/types.go)
/// these are `Recreate`, `Auto` and `InPlaceOrRecreate`, and so it is where nothing is said; of a mode that is newer than
/// this program nobody knows that it does not.
fn resizes(mode: Option<&str>) -> bool {
    match mode {
        // New pods alone, or none.
        Some("Off" | "Initial") => false,
        Some(_) | None => true,
    }
}

/// The policy of a container is that of its name, else that of all others, else that of none: both resources, requests
/// and limits.
fn claim(policies: Vec<WireContainerPolicy>) -> Claim {
    let both = Which { cpu: true, memory: true };
    let mut claim = Claim { others: Share { requests: both, limits: both }, ..Claim::default() };
    for policy in policies {
        let share = share(&policy);
        match policy.container_name {
            Some(name) if *name == *ALL_OTHERS => claim.others = share,
            Some(name) => {
                claim.named.insert(name, share);
            }
            // It is of nobody.
            None => {}
        }
    }
    claim
}

fn share(policy: &WireContainerPolicy) -> Share {
    if policy.mode.as_deref() == Some("Off") {
        return Share::default();
    }
    let controls = |resource: &str| match &policy.controlled_resources {
        Some(resources) => resources.iter().any(|controlled| **controlled == *resource),
        None => true,
    };
    let requests = Which { cpu: controls("cpu"), memory: controls("memory") };
    let limits = match policy.controlled_values.as_deref() {
        Some("RequestsOnly") => Which::default(),
        // They grow and shrink with the requests.
        Some(_) | None => requests,
    };
    Share { requests, limits }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workloads::content::Role;
    use crate::workloads::fixtures::autoscaler;
    use serde_json::{Value, json};

    const BOTH: Which = Which { cpu: true, memory: true };
    const CPU: Which = Which { cpu: true, memory: false };
    const NOTHING: Which = Which { cpu: false, memory: false };

    fn claimed(policies: Value, container: &str) -> Share {
        let view = autoscaler("vpa", json!({"spec": {"resourcePolicy": {"containerPolicies": policies}}}));
        view.claim.of(container, Role::Main)
    }

    #[test]
    fn only_modes_that_change_live_pods_resize_and_a_mode_that_nobody_knows_may() {
        let resizes = |policy: Value| autoscaler("vpa", json!({"spec": {"updatePolicy": policy}})).resizes;
        for mode in ["Auto", "Recreate", "InPlaceOrRecreate", "InPlace"] {
            assert!(resizes(json!({"updateMode": mode})), "{mode}");
        }
        assert!(resizes(json!({})) && resizes(Value::Null), "it is the default");
        for mode in ["Off", "Initial"] {
            assert!(!resizes(json!({"updateMode": mode})), "{mode}");
        }
    }

    #[test]
    fn a_container_has_the_policy_of_its_name_else_that_of_all_others_else_none() {
        let all = Share { requests: BOTH, limits: BOTH };
        assert_eq!(claimed(Value::Null, "app"), all);
        let policies = json!([
            {"containerName": "app", "controlledResources": ["cpu"]},
            {"containerName": "*", "mode": "Off"},
        ]);
        assert_eq!(claimed(policies.clone(), "app"), Share { requests: CPU, limits: CPU });
        assert_eq!(claimed(policies, "proxy"), Share::default());
        let of_another = json!([{"containerName": "proxy", "mode": "Off"}]);
        assert_eq!(claimed(of_another, "app"), all);
    }

    #[test]
    fn limits_that_it_leaves_alone_are_not_claimed() {
        let policies = json!([{"containerName": "app", "controlledValues": "RequestsOnly"}]);
        assert_eq!(claimed(policies, "app"), Share { requests: BOTH, limits: NOTHING });
        let policies = json!([{"containerName": "app", "controlledResources": []}]);
        assert_eq!(claimed(policies, "app"), Share::default());
    }

    #[test]
    fn its_target_is_a_workload_of_apps() {
        let target = |reference: Value| {
            let view = autoscaler("vpa", json!({"spec": {"targetRef": reference}}));
            view.target.clone().map(|(kind, name)| (kind, name.to_string()))
        };
        let web = Some((TargetKind::Deployment, "web".to_owned()));
        let reference =
            |version: &str, kind: &str| json!({"apiVersion": version, "kind": kind, "name": "web"});
        assert_eq!(target(reference("apps/v1", "Deployment")), web);
        assert_eq!(target(reference("argoproj.io/v1alpha1", "Rollout")), None);
        assert_eq!(target(reference("apps.kruise.io/v1beta1", "StatefulSet")), None);
        let without_version = json!({"apiVersion": null, "kind": "Deployment", "name": "web"});
        assert_eq!(target(without_version), web);
        assert_eq!(target(Value::Null), None);
    }

    #[test]
    fn a_recommendation_is_no_news() {
        let view = |over: Value| autoscaler("vpa", over);
        let recommended = view(json!({"status": {"recommendation": {"containerRecommendations": []}}}));
        assert!(view(json!({})).says_the_same(&recommended));
        let off = view(json!({"spec": {"updatePolicy": {"updateMode": "Off"}}}));
        assert!(!view(json!({})).says_the_same(&off));
    }
}
