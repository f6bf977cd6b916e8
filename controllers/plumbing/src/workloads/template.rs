//! Pod templates, as workloads and their revisions bear them. Those that are alike are kept once: a ReplicaSet and the
//! Deployment that made it, a StatefulSet and its revisions.

use crate::workloads::content::{Content, Digest, POD_TEMPLATE_HASH, Role, role};
use serde_json::Value;
use crate::pool::Pool;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// Of the process, as whoever decodes an object knows of nothing else.
static TEMPLATES: LazyLock<Mutex<Pool<Digest, Template>>> = LazyLock::new(Mutex::default);

/// A pod template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// The template without [`POD_TEMPLATE_HASH`], as compact JSON. Kept as text: a parsed tree takes several times
    /// as much, and it is seldom asked for.
    text: Box<str>,
    /// What can be changed in place.
    pub content: Content,
    /// All that cannot.
    pub rest: Digest,
    /// All of it: where it is equal, a native controller holds two templates for the same.
    pub whole: Digest,
}

impl Template {
    /// The template of this JSON.
    pub fn shared(template: &Value) -> Arc<Self> {
        let mut template = template.clone();
        let labels = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut);
        if let Some(labels) = labels {
            labels.remove(POD_TEMPLATE_HASH);
        }
        if let Some(fields) = template.as_object_mut() {
            // How a revision says that it replaces all.
            fields.remove("$patch");
        }
        let text = template.to_string();
        let mut pool = TEMPLATES.lock().unwrap_or_else(PoisonError::into_inner);
        // A digest stands for its text.
        pool.get(Digest::of(&text), |_| true, || Self::new(&template, text))
    }

    fn new(template: &Value, text: String) -> Self {
        Self {
            text: text.into_boxed_str(),
            content: Content::of_template(template),
            rest: Digest::of_json(&rest(template)),
            whole: Digest::of_json(template),
        }
    }

    /// The JSON that it was made of, without [`POD_TEMPLATE_HASH`].
    pub fn value(&self) -> Value {
        // It was JSON when it was kept.
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    /// Bytes of its text and content, about.
    pub fn bytes(&self) -> usize {
        2 * self.text.len()
    }
}

/// A template without what can be changed in place.
fn rest(template: &Value) -> Value {
    let mut rest = template.clone();
    if let Some(metadata) = rest.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("labels");
        metadata.remove("annotations");
    }
    for (list, is_init) in [("/spec/containers", false), ("/spec/initContainers", true)] {
        for container in rest.pointer_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let keeps_amounts = match role(container, is_init) {
                Role::Main | Role::Sidecar => false,
                Role::Init => true,
            };
            let Some(fields) = container.as_object_mut() else { continue };
            fields.remove("image");
            if keeps_amounts {
                continue;
            }
            for list in ["requests", "limits"] {
                let amounts = fields.get_mut("resources").and_then(|resources| resources.get_mut(list));
                if let Some(amounts) = amounts.and_then(Value::as_object_mut) {
                    amounts.remove("cpu");
                    amounts.remove("memory");
                }
            }
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn template(edit: impl FnOnce(&mut Value)) -> Arc<Template> {
        let mut template = json!({
            "metadata": {"labels": {"app": "web"}},
            "spec": {
                "initContainers": [{"name": "setup", "image": "setup:1", "resources": {"requests": {"cpu": "1"}}}],
                "containers": [{
                    "name": "app", "image": "app:1", "ports": [{"containerPort": 80}],
                    "resources": {"requests": {"cpu": "1", "nvidia.com/gpu": "1"}},
                }],
            },
        });
        edit(&mut template);
        Template::shared(&template)
    }

    #[test]
    fn the_rest_is_what_cannot_be_changed_in_place() {
        let base = template(|_| {});
        for (what, edited) in [
            ("image", template(|t| t["spec"]["containers"][0]["image"] = json!("app:2"))),
            ("init image", template(|t| t["spec"]["initContainers"][0]["image"] = json!("setup:2"))),
            ("cpu", template(|t| t["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("2"))),
            (
                "limit",
                template(|t| t["spec"]["containers"][0]["resources"]["limits"] = json!({"memory": "1Gi"})),
            ),
            ("label", template(|t| t["metadata"]["labels"]["new"] = json!("x"))),
            ("annotation", template(|t| t["metadata"]["annotations"] = json!({"a": "b"}))),
        ] {
            assert_eq!(edited.rest, base.rest, "{what}");
            assert_ne!(edited.whole, base.whole, "{what}");
        }
        for (what, edited) in [
            ("port", template(|t| t["spec"]["containers"][0]["ports"][0]["containerPort"] = json!(81))),
            (
                "gpu",
                template(|t| {
                    t["spec"]["containers"][0]["resources"]["requests"]["nvidia.com/gpu"] = json!("2")
                }),
            ),
            (
                "init cpu",
                template(|t| t["spec"]["initContainers"][0]["resources"]["requests"]["cpu"] = json!("2")),
            ),
            ("env", template(|t| t["spec"]["containers"][0]["env"] = json!([{"name": "A", "value": "b"}]))),
            (
                "new container",
                template(|t| {
                    let containers = t["spec"]["containers"].as_array_mut().unwrap();
                    containers.push(json!({"name": "b", "image": "b:1"}));
                }),
            ),
            ("volumes", template(|t| t["spec"]["volumes"] = json!([{"name": "v", "emptyDir": {}}]))),
        ] {
            assert_ne!(edited.rest, base.rest, "{what}");
        }
    }

    #[test]
    fn the_hash_label_of_a_replica_set_and_the_marks_of_a_revision_are_no_difference() {
        let base = template(|_| {});
        let of_replica_set = template(|t| t["metadata"]["labels"][POD_TEMPLATE_HASH] = json!("6d4c"));
        let of_revision = template(|t| {
            t["$patch"] = json!("replace");
            t["metadata"]["creationTimestamp"] = Value::Null;
        });
        assert!(Arc::ptr_eq(&base, &of_replica_set), "they are kept once");
        assert_eq!(base.whole, of_revision.whole);
        assert_eq!(of_replica_set.value()["metadata"]["labels"], json!({"app": "web"}));
    }

    #[test]
    fn what_is_no_template_is_an_empty_one() {
        for odd in [
            json!(null),
            json!("x"),
            json!({"spec": 1, "metadata": []}),
            json!({"spec": {"containers": [1]}}),
        ] {
            assert!(Template::shared(&odd).content.containers.is_empty(), "{odd}");
        }
    }
}
