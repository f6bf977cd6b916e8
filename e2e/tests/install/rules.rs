//! What holds for everything that the chart renders, whatever the values.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use springtide_manager::config::ManagerConfiguration;
use springtide_plumbing::watch::Scope;

use crate::{NAMESPACE, Rendered};

/// Kinds that a chart of ours may make; each further one is a decision.
const KINDS: [&str; 17] = [
    "ClusterRole",
    "ClusterRoleBinding",
    "ConfigMap",
    "Deployment",
    "FlowSchema",
    "NetworkPolicy",
    "PodDisruptionBudget",
    "PodMonitor",
    "PriorityLevelConfiguration",
    "PrometheusRule",
    "ResourceQuota",
    "Role",
    "RoleBinding",
    "Service",
    "ServiceMonitor",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
];

/// Breaks at the first rule that is broken.
pub(crate) fn check(rendered: &Rendered) -> Result<()> {
    for (key, object) in rendered {
        let kind = object["kind"].as_str().unwrap_or_default();
        ensure!(
            KINDS.contains(&kind) || kind == "ServiceAccount",
            "{key}: a kind that nobody has decided on"
        );
        let metadata = &object["metadata"];
        ensure!(metadata["annotations"]["helm.sh/hook"].is_null(), "{key} is a hook");
        ensure!(
            metadata["labels"]["app.kubernetes.io/instance"] == "springtide",
            "{key} has no instance label"
        );
        if kind.contains("Role") && !object["rules"].is_null() {
            bounded(object).with_context(|| key.clone())?;
        }
    }
    let name =
        rendered.keys().find_map(|key| key.strip_prefix("Deployment/")).context("there is no Deployment")?;
    let object = |kind: &str, suffix: &str| {
        let key = format!("{kind}/{name}{suffix}");
        rendered.get(&key).with_context(|| format!("{key} is missing"))
    };
    restricted(&object("Deployment", "")?["spec"]["template"]["spec"])?;
    for (kind, suffix, selector) in [
        ("Service", "-metrics", "/spec/selector"),
        ("PodDisruptionBudget", "", "/spec/selector/matchLabels"),
        ("NetworkPolicy", "", "/spec/podSelector/matchLabels"),
        ("Deployment", "", "/spec/selector/matchLabels"),
    ] {
        if let Ok(object) = object(kind, suffix) {
            let labels = object.pointer(selector).and_then(Value::as_object).context("a selector")?;
            let of_pods =
                &self::object(rendered, "Deployment", name)?["spec"]["template"]["metadata"]["labels"];
            ensure!(
                !labels.is_empty() && labels.iter().all(|(label, value)| &of_pods[label] == value),
                "{kind}"
            );
        }
    }
    let subject = json!([{"kind": "ServiceAccount", "name": name, "namespace": NAMESPACE}]);
    let bound = |kind: &str, name: &str| {
        let binding = self::object(rendered, &format!("{kind}Binding"), name)?;
        let role = name.rsplit('/').next().unwrap_or_default();
        ensure!(binding["roleRef"]["kind"] == kind && binding["roleRef"]["name"] == role, "{binding}");
        ensure!(binding["subjects"] == subject, "{binding}");
        let rules = &self::object(rendered, kind, name)?["rules"];
        ensure!(!rules.as_array().context("rules")?.is_empty(), "{name} has no rules");
        Ok(())
    };
    bound("Role", name)?;
    match configuration(rendered, name)?.scope.scope() {
        Scope::All => bound("ClusterRole", name),
        Scope::Namespaces(namespaces) => {
            for (key, object) in rendered {
                let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
                let known = namespace == NAMESPACE || namespaces.iter().any(|known| **known == *namespace);
                ensure!(known, "{key} is of the cluster, or of a namespace that is not in scope");
            }
            namespaces.iter().try_for_each(|namespace| bound("Role", &format!("{namespace}/{name}-scope")))
        }
    }
}

fn object<'a>(rendered: &'a Rendered, kind: &str, name: &str) -> Result<&'a Value> {
    rendered.get(&format!("{kind}/{name}")).with_context(|| format!("{kind}/{name} is missing"))
}

/// The configuration file, read by the manager's own parser.
pub(crate) fn configuration(rendered: &Rendered, name: &str) -> Result<ManagerConfiguration> {
    let map = object(rendered, "ConfigMap", &format!("{name}-config"))?;
    let text = map["data"]["config.yaml"].as_str().context("config.yaml")?;
    let read = ManagerConfiguration::parse(text).with_context(|| text.to_owned())?;
    read.check()?;
    Ok(read)
}

/// Pod Security `restricted`, and what goes beyond it here.
fn restricted(pod: &Value) -> Result<()> {
    let context = &pod["securityContext"];
    ensure!(context["runAsNonRoot"] == true && context["runAsUser"] == 65532);
    ensure!(context["seccompProfile"]["type"] == "RuntimeDefault");
    for key in ["hostNetwork", "hostPID", "hostIPC", "initContainers"] {
        ensure!(pod[key].is_null(), "{key}");
    }
    let containers = pod["containers"].as_array().context("containers")?;
    ensure!(containers.len() == 1, "one binary, one container");
    let context = &containers[0]["securityContext"];
    ensure!(context["allowPrivilegeEscalation"] == false && context["readOnlyRootFilesystem"] == true);
    ensure!(context["capabilities"] == json!({"drop": ["ALL"]}));
    ensure!(context["privileged"].is_null());
    let image = containers[0]["image"].as_str().context("image")?;
    let tagged =
        image.rsplit('/').next().is_some_and(|last| last.contains(':') && !last.ends_with(":latest"));
    ensure!(image.contains("@sha256:") || tagged, "{image} moves");
    for probe in ["livenessProbe", "readinessProbe"] {
        ensure!(containers[0][probe]["httpGet"]["port"] == "http", "{probe}");
    }
    let volumes = pod["volumes"].as_array().context("volumes")?;
    ensure!(volumes.iter().all(|volume| volume["configMap"].is_object()), "{volumes:?}");
    ensure!(containers[0]["resources"]["requests"].is_object(), "a container without requests");
    Ok(())
}

/// No right without an end, and none that gives rights.
fn bounded(role: &Value) -> Result<()> {
    for rule in role["rules"].as_array().context("rules")? {
        for key in ["apiGroups", "resources", "verbs"] {
            let words = rule[key].as_array().with_context(|| format!("{key} in {rule}"))?;
            ensure!(!words.is_empty() && !words.contains(&json!("*")), "{rule}");
        }
        for verb in ["escalate", "impersonate", "bind"] {
            ensure!(!rule["verbs"].as_array().context("verbs")?.contains(&json!(verb)), "{rule}");
        }
        ensure!(!rule["resources"].as_array().context("resources")?.contains(&json!("secrets")), "{rule}");
    }
    Ok(())
}
