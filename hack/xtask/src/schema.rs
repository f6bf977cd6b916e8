//! Reading the OpenAPI schema of a CRD.

use serde_json::Value;

/// The root schema of the stored version of a CRD; null when there is none.
pub(crate) fn root(crd: &Value) -> Value {
    let versions = crd["spec"]["versions"].as_array();
    versions
        .and_then(|versions| versions.iter().find(|version| version["storage"] == true))
        .map(|version| version["schema"]["openAPIV3Schema"].clone())
        .unwrap_or_default()
}

/// One schema inside another, with its place.
#[derive(Clone, Copy)]
pub(crate) struct Node<'a> {
    /// Path from the object's root: `spec.template.spec.containers[].name`;
    /// `[]` is an item of a list, `.*` a value of a map.
    pub(crate) path: &'a str,
    /// Last name of the path, without `[]` and `*`.
    pub(crate) name: &'a str,
    /// The schema.
    pub(crate) schema: &'a Value,
    /// Whether an enclosing schema is open, as pod templates are.
    pub(crate) in_open: bool,
}

impl Node<'_> {
    /// The schema's type, or the empty string.
    pub(crate) fn type_(&self) -> &str {
        self.schema["type"].as_str().unwrap_or_default()
    }

    /// Whether the path names a field, not an item of a list or map.
    pub(crate) fn is_field(&self) -> bool {
        !self.path.ends_with("[]") && !self.path.ends_with(".*")
    }

    /// Whether the schema keeps fields that it does not declare.
    pub(crate) fn is_open(&self) -> bool {
        self.schema["x-kubernetes-preserve-unknown-fields"] == true
    }

    /// Whether any schema lies below this one.
    pub(crate) fn is_leaf(&self) -> bool {
        ["properties", "items", "additionalProperties"].iter().all(|keyword| self.schema[*keyword].is_null())
    }
}

/// Visits a schema and every one below it, parents first, in name order.
pub(crate) fn walk(path: &str, schema: &Value, visit: &mut dyn FnMut(Node<'_>)) {
    walk_in(path, schema, false, visit);
}

fn walk_in(path: &str, schema: &Value, in_open: bool, visit: &mut dyn FnMut(Node<'_>)) {
    let name = path.trim_end_matches("[]").trim_end_matches(".*").rsplit('.').next().unwrap_or_default();
    let node = Node { path, name, schema, in_open };
    visit(node);
    let in_open = in_open || node.is_open();
    if let Some(properties) = schema["properties"].as_object() {
        for (name, inner) in properties {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            walk_in(&path, inner, in_open, visit);
        }
    }
    if schema["items"].is_object() {
        walk_in(&format!("{path}[]"), &schema["items"], in_open, visit);
    }
    if schema["additionalProperties"].is_object() {
        walk_in(&format!("{path}.*"), &schema["additionalProperties"], in_open, visit);
    }
}
