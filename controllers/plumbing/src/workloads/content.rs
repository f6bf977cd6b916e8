//! What of a pod can be changed in place, without regard to how it is written: images, cpu and memory, labels and
//! annotations.

use crate::workloads::amounts::Amounts;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::sync::Arc;

/// Labels and annotations.
pub type Metadata = BTreeMap<Arc<str>, Arc<str>>;

/// Label by which a ReplicaSet tells its pods from those of others; it is in its template, but not in that of the
/// Deployment.
pub const POD_TEMPLATE_HASH: &str = "pod-template-hash";

/// What a container is to the life of its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// One of `containers`.
    Main,
    /// One of `initContainers` with `restartPolicy: Always`: it runs beside the others.
    Sidecar,
    /// One of `initContainers` that ends before the others start.
    Init,
}

impl Role {
    /// The list of the pod's spec that it stands in.
    pub fn list(self) -> &'static str {
        match self {
            Self::Main => "containers",
            Self::Sidecar | Self::Init => "initContainers",
        }
    }
}

/// What of one container can be changed in place.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ContainerContent {
    /// Its image, as it is written.
    pub image: Arc<str>,
    /// Cpu and memory. Those of plain init containers cannot be changed in place, and are none here.
    pub amounts: Amounts,
    /// What it is.
    pub role: Role,
    /// Labels and annotations of its pod that its environment is made of when it starts.
    pub environment: FieldKeys,
}

/// Keys of labels and annotations that a container reads by the downward API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FieldKeys {
    /// Keys of labels.
    pub labels: BTreeSet<Arc<str>>,
    /// Keys of annotations.
    pub annotations: BTreeSet<Arc<str>>,
}

/// What of a pod, or of a template, can be changed in place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Content {
    /// Containers by name, init containers included.
    pub containers: BTreeMap<Arc<str>, ContainerContent>,
    /// Labels.
    pub labels: Metadata,
    /// Annotations.
    pub annotations: Metadata,
}

/// The quality of service that the kubelet gives a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QosClass {
    /// Limits of cpu and memory in every container, and requests that are equal to them.
    Guaranteed,
    /// Something between.
    Burstable,
    /// Neither requests nor limits.
    BestEffort,
}

/// The first half of a SHA-256: enough that no edit goes unnoticed by chance.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 16]);

impl Digest {
    /// The digest of a text.
    pub fn of(text: &str) -> Self {
        let mut digest = [0; 16];
        digest.copy_from_slice(&Sha256::digest(text)[..16]);
        Self(digest)
    }

    /// The digest of this text, as it is shown.
    pub fn parse(text: &str) -> Option<Self> {
        let mut digest = [0; 16];
        hex::decode_to_slice(text, &mut digest).ok()?;
        Some(Self(digest))
    }

    /// The digest of a JSON tree, whatever the order of its fields; empty fields count as absent.
    pub fn of_json(value: &Value) -> Self {
        let mut text = String::new();
        canonical(value, &mut text);
        Self::of(&text)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FieldKeys {
    /// Reads `env` of a container. A volume of the downward API follows by itself, and whole maps cannot be read into a
    /// variable.
    fn of_container(container: &Value) -> Self {
        let mut keys = Self::default();
        for variable in container["env"].as_array().into_iter().flatten() {
            let Some(path) = variable["valueFrom"]["fieldRef"]["fieldPath"].as_str() else { continue };
            let Some((field, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) else {
                continue;
            };
            match field {
                "metadata.labels" => keys.labels.insert(key.into()),
                "metadata.annotations" => keys.annotations.insert(key.into()),
                _ => continue,
            };
        }
        keys
    }
}

impl Content {
    /// What can be changed in place of a pod template.
    pub fn of_template(template: &Value) -> Self {
        let mut containers = BTreeMap::new();
        for (list, is_init) in [("containers", false), ("initContainers", true)] {
            for container in template["spec"][list].as_array().into_iter().flatten() {
                let Some(name) = container["name"].as_str() else { continue };
                let role = role(container, is_init);
                let content = ContainerContent {
                    image: container["image"].as_str().unwrap_or_default().into(),
                    amounts: match role {
                        Role::Main | Role::Sidecar => Amounts::read(&container["resources"]),
                        Role::Init => Amounts::default(),
                    },
                    role,
                    environment: FieldKeys::of_container(container),
                };
                containers.insert(name.into(), content);
            }
        }
        let mut labels = metadata(&template["metadata"]["labels"]);
        labels.remove(POD_TEMPLATE_HASH);
        Self { containers, labels, annotations: metadata(&template["metadata"]["annotations"]) }
    }

    /// Container images that differ from those of `to`, by container name. What only one of the two has is left out.
    pub fn images_changed(&self, to: &Self) -> BTreeSet<Arc<str>> {
        self.common(to)
            .filter(|(_, from, to)| from.image != to.image)
            .map(|(name, _, _)| name.clone())
            .collect()
    }

    /// Containers whose cpu or memory differ from those of `to`.
    pub fn amounts_changed(&self, to: &Self) -> BTreeSet<Arc<str>> {
        self.common(to)
            .filter(|(_, from, to)| from.amounts != to.amounts)
            .map(|(name, _, _)| name.clone())
            .collect()
    }

    fn common<'a>(
        &'a self,
        to: &'a Self,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a ContainerContent, &'a ContainerContent)> {
        self.containers.iter().filter_map(|(name, from)| Some((name, from, to.containers.get(name)?)))
    }
}

/// The class that a pod with these containers has, by the rule of the
/// [kubelet](https://github.com/kubernetes/kubernetes/blob/v1.37.0/pkg/apis/core/v1/helper/qos/qos.go), init containers
/// included. A request that is not stated is that of its limit. Amounts of zero count as not stated.
pub fn qos_class<'a>(containers: impl IntoIterator<Item = &'a Amounts>) -> QosClass {
    let (mut is_guaranteed, mut is_best_effort) = (true, true);
    for amounts in containers {
        let stated = |amount: Option<i64>| amount.filter(|amount| *amount > 0);
        for (request, limit) in
            [(amounts.requests.cpu, amounts.limits.cpu), (amounts.requests.memory, amounts.limits.memory)]
        {
            let (request, limit) = (stated(request).or(stated(limit)), stated(limit));
            is_guaranteed &= limit.is_some() && request == limit;
            is_best_effort &= request.is_none();
        }
    }
    match (is_best_effort, is_guaranteed) {
        (true, _) => QosClass::BestEffort,
        (false, true) => QosClass::Guaranteed,
        (false, false) => QosClass::Burstable,
    }
}

/// What a container of a template or pod is.
pub fn role(container: &Value, is_init: bool) -> Role {
    match (is_init, container["restartPolicy"].as_str()) {
        (false, _) => Role::Main,
        (true, Some("Always")) => Role::Sidecar,
        (true, Some(_) | None) => Role::Init,
    }
}

/// A map of texts; what is no text is left out.
pub fn metadata(map: &Value) -> Metadata {
    let entries = map.as_object().into_iter().flatten();
    entries.filter_map(|(key, value)| Some((key.as_str().into(), value.as_str()?.into()))).collect()
}

/// The JSON of a tree with sorted fields, without those that hold nothing: `null`, `{}` and `[]` are how different
/// writers spell that a field is absent.
fn canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().filter(|(_, value)| !is_empty(value)).collect();
            fields.sort_by_key(|(name, _)| name.as_str());
            text.push('{');
            for (name, value) in fields {
                // A text is written to a text without fail.
                let _ = write!(text, "{}:", Value::String(name.clone()));
                canonical(value, text);
                text.push(',');
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for item in items {
                canonical(item, text);
                text.push(',');
            }
            text.push(']');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            let _ = write!(text, "{value}");
        }
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.values().all(is_empty),
        Value::Array(items) => items.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn json(text: &str) -> Value {
        serde_yaml::from_str(text).unwrap()
    }

    #[test]
    fn content_is_what_can_be_changed_in_place() {
        let content = Content::of_template(&json(
            "metadata: {labels: {app: web, pod-template-hash: abc}, annotations: {config: v1}}\n\
             spec:\n  \
               initContainers:\n  \
               - {name: setup, image: 'setup:1', resources: {requests: {cpu: '1'}}}\n  \
               - {name: proxy, image: 'proxy:1', restartPolicy: Always, resources: {requests: {cpu: 100m}}}\n  \
               containers:\n  \
               - {name: app, image: 'app:1', resources: {limits: {memory: 1Gi}}}\n",
        ));
        let of = |name: &str| &content.containers[name];
        assert_eq!(
            (of("setup").role, of("proxy").role, of("app").role),
            (Role::Init, Role::Sidecar, Role::Main)
        );
        assert!(of("setup").amounts.is_empty(), "a container that has ended is not resized");
        assert_eq!(of("proxy").amounts.requests.cpu, Some(100));
        assert_eq!(content.labels.keys().map(|key| &**key).collect::<Vec<_>>(), ["app"]);
        assert_eq!(&*content.annotations["config"], "v1");
    }

    #[test]
    fn the_environment_names_the_labels_and_annotations_that_it_is_made_of() {
        let variable =
            |path: &str| serde_json::json!({"name": "V", "valueFrom": {"fieldRef": {"fieldPath": path}}});
        let paths = [
            "metadata.annotations['config']",
            "metadata.labels['team.example/name']",
            "metadata.name",
            "metadata.annotations",
            "status.podIP",
            "metadata.other['x']",
        ];
        let env: Vec<Value> =
            paths.map(variable).into_iter().chain([serde_json::json!({"name": "A", "value": "b"})]).collect();
        let container = serde_json::json!({"name": "app", "image": "app:1", "env": env});
        let template = serde_json::json!({"spec": {"containers": [container]}});
        let content = Content::of_template(&template);
        let FieldKeys { labels, annotations } = &content.containers["app"].environment;
        assert_eq!(labels.iter().map(AsRef::as_ref).collect::<Vec<&str>>(), ["team.example/name"]);
        assert_eq!(annotations.iter().map(AsRef::as_ref).collect::<Vec<&str>>(), ["config"]);
    }

    #[test]
    fn digests_of_what_writers_spell_differently_are_equal() {
        let digest = |text: &str| Digest::of_json(&json(text));
        assert_eq!(
            digest("{a: 1, b: {c: null, d: {}}, e: []}"),
            digest("{a: 1}"),
            "a revision has `creationTimestamp: null` where a ReplicaSet has nothing"
        );
        assert_ne!(digest("{a: 1}"), digest("{a: '1'}"));
        assert_ne!(digest("{a: [1, 2]}"), digest("{a: [2, 1]}"));
        assert_ne!(digest("{a: ''}"), digest("{}"), "an empty text is one");
        assert_ne!(digest("{a: [{}]}"), digest("{a: []}"), "a rule without conditions is a rule");
        let shown = digest("{a: 1}").to_string();
        assert_eq!(Digest::parse(&shown), Some(digest("{a: 1}")));
        assert!(["", "0", &shown[2..]].iter().all(|text| Digest::parse(text).is_none()));
    }

    #[test]
    fn the_class_of_service_is_that_of_the_kubelet() {
        let class = |texts: &[&str]| {
            let amounts: Vec<_> = texts.iter().map(|text| Amounts::read(&json(text))).collect();
            qos_class(&amounts)
        };
        let guaranteed = "{requests: {cpu: '1', memory: 1Gi}, limits: {cpu: '1', memory: 1Gi}}";
        assert_eq!(class(&["{}"]), QosClass::BestEffort);
        assert_eq!(class(&["{requests: {cpu: 0}}"]), QosClass::BestEffort);
        assert_eq!(class(&[guaranteed]), QosClass::Guaranteed);
        assert_eq!(class(&["{limits: {cpu: '1', memory: 1Gi}}"]), QosClass::Guaranteed, "requests follow");
        assert_eq!(class(&[guaranteed, "{}"]), QosClass::Burstable);
        assert_eq!(
            class(&["{requests: {cpu: '1', memory: 1Gi}, limits: {cpu: '2', memory: 1Gi}}"]),
            QosClass::Burstable
        );
        assert_eq!(class(&["{limits: {memory: 1Gi}}"]), QosClass::Burstable);
    }

    proptest! {
        #[test]
        fn a_digest_does_not_depend_on_the_order_of_fields(keys in proptest::collection::btree_set("[a-z]{1,4}", 0..8)) {
            let entries: Vec<(String, Value)> = keys.into_iter().map(|key| (key.clone(), Value::String(key))).collect();
            let forward = Value::Object(entries.iter().cloned().collect());
            let backward = Value::Object(entries.into_iter().rev().collect());
            prop_assert_eq!(Digest::of_json(&forward), Digest::of_json(&backward));
        }
    }
}
