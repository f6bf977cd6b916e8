//! The objects and the configuration of Kueue, made from the files that its module carries: as kustomize would make
//! them, but reached on loopback.

use std::path::Path;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Node;
use serde::Deserialize;
use serde_json::{Value, json};
use springtide_plumbing::quantity::{parse_amount, quantity_text};

use super::Tuning;

/// The namespace that its manager is at home in.
pub(super) const NAMESPACE: &str = "kueue-system";
/// The Secret into which it writes the certificate of its webhooks.
pub(super) const SECRET: &str = "kueue-webhook-server-cert";
/// The ClusterQueue, its flavor, and the LocalQueue of each namespace.
pub(crate) const QUEUE: &str = "bench";
/// The Service by which the API server finds its webhooks.
const SERVICE: &str = "kueue-webhook-service";
/// What the module's files call that Service and the namespace, before kustomize names them.
const UNNAMED: (&str, &str) = ("webhook-service", "system");
/// What kustomize puts before names.
const PREFIX: &str = "kueue-";
const API_VERSION: &str = "kueue.x-k8s.io/v1beta2";
/// What its manager works on at once of each kind where it is tuned.
const TUNED_CONCURRENCY: u32 = 50;

/// Where its manager listens, on loopback.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    pub(super) health: u16,
    pub(super) metrics: u16,
    pub(super) webhooks: u16,
}

/// Namespace, Service, an empty Secret, and the CRDs, in this order, as one list.
pub(super) fn installation(module: &Path, ports: Ports) -> Result<Value> {
    let folder = module.join("config/components/crd");
    let text = read(&folder.join("kustomization.yaml"))?;
    let files: Kustomization = serde_yaml::from_str(&text).context("the list of CRDs")?;
    let mut patches = Vec::new();
    for patch in &files.patches {
        if let Patch::File { path } = patch {
            patches.push(parse(&read(&folder.join(path))?)?);
        }
    }
    let mut items = vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}),
        // Its webhooks are asked for by the name of a Service, as in any cluster; this one leads to loopback.
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": NAMESPACE, "name": SERVICE},
            "spec": {"type": "ExternalName", "externalName": "127.0.0.1"},
        }),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": NAMESPACE, "name": SECRET}}),
    ];
    for path in &files.resources {
        items.push(crd(&read(&folder.join(path))?, &patches, ports)?);
    }
    Ok(list(items))
}

/// Both configurations of its webhooks, as one list, and their paths.
pub(super) fn webhooks(module: &Path, ports: Ports) -> Result<(Value, Vec<String>)> {
    let folder = module.join("config/components/webhook");
    let files: Kustomization =
        serde_yaml::from_str(&read(&folder.join("kustomization.yaml"))?).context("the webhooks")?;
    let mut patches = Vec::new();
    for patch in &files.patches {
        if let Patch::Inline { patch } = patch {
            patches.push(parse(patch)?);
        }
    }
    let items = webhook_configurations(&read(&folder.join("manifests.yaml"))?, &patches, ports)?;
    let path = |item: &Value| {
        let plural = match item["kind"].as_str() {
            Some("MutatingWebhookConfiguration") => "mutatingwebhookconfigurations",
            Some("ValidatingWebhookConfiguration") => "validatingwebhookconfigurations",
            kind => bail!("a configuration of webhooks of kind {kind:?}"),
        };
        let name = item["metadata"]["name"].as_str().context("a configuration without name")?;
        Ok(format!("/apis/admissionregistration.k8s.io/v1/{plural}/{name}"))
    };
    let paths = items.iter().map(path).collect::<Result<_>>()?;
    Ok((list(items), paths))
}

/// One flavor, one ClusterQueue with as much quota as these nodes have room, and a LocalQueue in each namespace.
pub(super) fn queues(nodes: &[Node], namespaces: &[String]) -> Result<Value> {
    let mut quotas = Vec::new();
    for resource in COVERED {
        let mut sum = 0_i64;
        for node in nodes {
            let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
            let quantity = allocatable.and_then(|list| list.get(resource)).context("a node without room")?;
            let amount = parse_amount(resource, &quantity.0);
            sum = sum.saturating_add(amount.with_context(|| format!("{resource}: {}", quantity.0))?);
        }
        quotas.push(json!({"name": resource, "nominalQuota": quantity_text(resource, sum)}));
    }
    let mut items = vec![
        json!({"apiVersion": API_VERSION, "kind": "ResourceFlavor", "metadata": {"name": QUEUE}, "spec": {}}),
        json!({
            "apiVersion": API_VERSION, "kind": "ClusterQueue", "metadata": {"name": QUEUE},
            "spec": {
                "namespaceSelector": {},
                "resourceGroups": [{
                    "coveredResources": COVERED,
                    "flavors": [{"name": QUEUE, "resources": quotas}],
                }],
            },
        }),
    ];
    items.extend(namespaces.iter().map(|namespace| {
        json!({
            "apiVersion": API_VERSION, "kind": "LocalQueue",
            "metadata": {"namespace": namespace, "name": QUEUE},
            "spec": {"clusterQueue": QUEUE},
        })
    }));
    Ok(list(items))
}

/// What the pods of the bench ask for, and their number.
const COVERED: [&str; 3] = ["cpu", "memory", "pods"];

/// The manager's configuration from the one that it is shipped with, given as YAML. Only what a process outside of
/// a cluster needs is different, and where it is tuned its rate and its concurrency.
pub(super) fn configuration(
    shipped: &str,
    ports: Ports,
    certificates: &Path,
    tuning: Tuning,
) -> Result<Value> {
    let mut config = parse(shipped)?;
    let loopback = |port: u16| format!("127.0.0.1:{port}");
    config["health"]["healthProbeBindAddress"] = loopback(ports.health).into();
    config["metrics"]["bindAddress"] = loopback(ports.metrics).into();
    config["webhook"] = json!({"host": "127.0.0.1", "port": ports.webhooks, "certDir": certificates});
    // Elsewhere it takes that of its pod.
    config["leaderElection"]["resourceNamespace"] = NAMESPACE.into();
    // It answers `kubectl get` of those who wait, and keeps its certificate in a folder of the root.
    config["featureGates"]["VisibilityOnDemand"] = false.into();
    match tuning {
        Tuning::Shipped => {}
        Tuning::Tuned => {
            config["clientConnection"]["qps"] = (-1).into();
            let concurrency = config["controller"]["groupKindConcurrency"].as_object_mut();
            for workers in concurrency.context("Kueue's configuration has no concurrency")?.values_mut() {
                *workers = TUNED_CONCURRENCY.into();
            }
        }
    }
    Ok(config)
}

/// The files that a kustomization names.
#[derive(Deserialize)]
struct Kustomization {
    resources: Vec<String>,
    patches: Vec<Patch>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Patch {
    File { path: String },
    Inline { patch: String },
}

/// A CRD with the conversion that one of the patches has for it.
fn crd(text: &str, patches: &[Value], ports: Ports) -> Result<Value> {
    let mut crd = parse(text)?;
    let name = crd["metadata"]["name"].clone();
    if let Some(patch) = patches.iter().find(|patch| patch["metadata"]["name"] == name) {
        let mut conversion = patch["spec"]["conversion"].clone();
        lead_to(&mut conversion["webhook"]["clientConfig"], ports)
            .with_context(|| format!("the conversion of {name}"))?;
        crd["spec"]["conversion"] = conversion;
    }
    Ok(crd)
}

/// Configurations of webhooks, with the selectors of namespaces that the patches have for some.
fn webhook_configurations(text: &str, patches: &[Value], ports: Ports) -> Result<Vec<Value>> {
    let mut items = Vec::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        let mut item = Value::deserialize(document).context("a configuration of webhooks")?;
        if item.is_null() {
            continue;
        }
        let patch = patches.iter().find(|patch| patch["kind"] == item["kind"]);
        let selectors = patch.and_then(|patch| patch["webhooks"].as_array());
        let name = item["metadata"]["name"].as_str().context("a configuration without name")?;
        item["metadata"]["name"] = format!("{PREFIX}{name}").into();
        for webhook in item["webhooks"].as_array_mut().context("a configuration without webhooks")? {
            let name = webhook["name"].clone();
            lead_to(&mut webhook["clientConfig"], ports).with_context(|| format!("the webhook {name}"))?;
            if let Some(patch) = selectors.into_iter().flatten().find(|patch| patch["name"] == name) {
                webhook["namespaceSelector"] = patch["namespaceSelector"].clone();
            }
        }
        items.push(item);
    }
    Ok(items)
}

/// Names the Service as kustomize does, and the port behind it.
fn lead_to(client: &mut Value, ports: Ports) -> Result<()> {
    let service = client["service"].as_object_mut().context("a webhook without Service")?;
    let is = |key: &str, name: &str| service.get(key).and_then(Value::as_str) == Some(name);
    if !is("name", UNNAMED.0) || !is("namespace", UNNAMED.1) {
        bail!("a webhook of another Service: {service:?}");
    }
    service.insert("name".to_owned(), SERVICE.into());
    service.insert("namespace".to_owned(), NAMESPACE.into());
    service.insert("port".to_owned(), ports.webhooks.into());
    Ok(())
}

fn list(items: Vec<Value>) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

fn parse(text: &str) -> Result<Value> {
    serde_yaml::from_str(text).context("a file of Kueue's module")
}

/// A file of the module.
pub(super) fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORTS: Ports = Ports { health: 1, metrics: 2, webhooks: 3 };

    const PATCH: &str = "
metadata: {name: workloads.kueue.x-k8s.io}
spec:
  conversion:
    strategy: Webhook
    webhook:
      clientConfig: {service: {namespace: system, name: webhook-service, path: /convert}}
      conversionReviewVersions: [v1]
";

    #[test]
    fn a_crd_has_its_conversion_on_loopback_and_another_has_none() {
        let patches = [parse(PATCH).unwrap()];
        let text = |name| format!("metadata: {{name: {name}}}\nspec: {{group: kueue.x-k8s.io}}");
        let converted = crd(&text("workloads.kueue.x-k8s.io"), &patches, PORTS).unwrap();
        let service = json!({"namespace": NAMESPACE, "name": SERVICE, "path": "/convert", "port": 3});
        assert_eq!(converted["spec"]["conversion"]["webhook"]["clientConfig"]["service"], service);
        assert_eq!(converted["spec"]["group"], "kueue.x-k8s.io");
        let plain = crd(&text("topologies.kueue.x-k8s.io"), &patches, PORTS).unwrap();
        assert!(plain["spec"].get("conversion").is_none());
    }

    #[test]
    fn webhooks_are_named_and_spare_the_namespaces_that_they_do_when_installed() {
        let text = "---\nkind: MutatingWebhookConfiguration\nmetadata: {name: mutating-webhook-configuration}\n\
                    webhooks:\n\
                    - {name: mpod.kb.io, clientConfig: {service: {name: webhook-service, namespace: system}}}\n\
                    - {name: mjob.kb.io, clientConfig: {service: {name: webhook-service, namespace: system}}}\n";
        let patch = "kind: MutatingWebhookConfiguration\nmetadata: {name: mutating-webhook-configuration}\n\
                     webhooks: [{name: mpod.kb.io, namespaceSelector: {matchLabels: {a: b}}}]";
        let items = webhook_configurations(text, &[parse(patch).unwrap()], PORTS).unwrap();
        assert_eq!(items.len(), 1);
        assert_eq!(items[0]["metadata"]["name"], "kueue-mutating-webhook-configuration");
        let webhooks = &items[0]["webhooks"];
        assert_eq!(webhooks[0]["namespaceSelector"], json!({"matchLabels": {"a": "b"}}));
        assert!(webhooks[1].get("namespaceSelector").is_none());
        assert_eq!(webhooks[1]["clientConfig"]["service"]["port"], 3);
        let other = text.replace("namespace: system", "namespace: elsewhere");
        let error = webhook_configurations(&other, &[], PORTS).unwrap_err();
        assert!(format!("{error:#}").contains("mpod.kb.io"), "{error:#}");
    }

    #[test]
    fn only_the_rate_and_the_concurrency_are_tuned() {
        let shipped = "kind: Configuration\nhealth: {healthProbeBindAddress: ':8081'}\n\
                       metrics: {bindAddress: ':8443'}\nwebhook: {port: 9443}\n\
                       leaderElection: {leaderElect: true}\nclientConnection: {qps: 50, burst: 100}\n\
                       controller: {groupKindConcurrency: {Job.batch: 5, Workload.kueue.x-k8s.io: 5}}\n\
                       integrations: {frameworks: [batch/job, pod]}\n";
        let made = |tuning| configuration(shipped, PORTS, Path::new("/certificates"), tuning).unwrap();
        let (shipped, mut tuned) = (made(Tuning::Shipped), made(Tuning::Tuned));
        assert_eq!(shipped["clientConnection"], json!({"qps": 50, "burst": 100}));
        assert_eq!(shipped["webhook"]["certDir"], "/certificates");
        assert_eq!(shipped["integrations"]["frameworks"], json!(["batch/job", "pod"]));
        assert_eq!(tuned["clientConnection"]["qps"], -1);
        let all_at_once = json!({"Job.batch": 50, "Workload.kueue.x-k8s.io": 50});
        assert_eq!(tuned["controller"]["groupKindConcurrency"], all_at_once);
        for changed in ["clientConnection", "controller"] {
            tuned[changed] = shipped[changed].clone();
        }
        assert_eq!(tuned, shipped);
    }

    #[test]
    fn the_quota_is_all_that_the_nodes_have() {
        let node: Node = serde_json::from_value(json!({
            "status": {"allocatable": {"cpu": "32", "memory": "128Gi", "pods": "110"}},
        }))
        .unwrap();
        let made = queues(&[node.clone(), node], &["a".to_owned(), "b".to_owned()]).unwrap();
        let quotas = &made["items"][1]["spec"]["resourceGroups"][0]["flavors"][0]["resources"];
        let quota = |index: usize| quotas[index]["nominalQuota"].clone();
        assert_eq!([quota(0), quota(1), quota(2)], ["64", "262144Mi", "220"]);
        let queues: Vec<_> = made["items"].as_array().unwrap().iter().skip(2).collect();
        assert_eq!(queues.len(), 2);
        assert_eq!(queues[1]["metadata"], json!({"namespace": "b", "name": QUEUE}));
        let bare: Node = serde_json::from_value(json!({"status": {}})).unwrap();
        super::queues(&[bare], &[]).unwrap_err();
    }
}
