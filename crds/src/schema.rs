//! Turns a derived CRD into the one that is installed.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceValidation, JSONSchemaProps,
};
use kube::core::{Reason, Rule};
use serde_json::{Map, Value, json};

const RULES: &str = "x-kubernetes-validations";

/// Applies `edit` to the root schema of each version, then makes all schemas
/// strict: no null, only number formats that the API server knows. The spec's
/// descriptions end with [`constraints`], because `kubectl explain` shows none
/// of them.
pub(crate) fn finish(
    mut crd: CustomResourceDefinition,
    immutable_fields: &[&str],
    edit: impl Fn(&mut Value),
) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        let mut root = json!(version.schema.take().and_then(|schema| schema.open_api_v3_schema));
        edit(&mut root);
        tighten(&mut root);
        describe(&mut root["properties"]["spec"], "", immutable_fields);
        version.schema = Some(CustomResourceValidation { open_api_v3_schema: Some(parse(root)) });
    }
    crd
}

/// Appends CEL rules to a schema.
pub(crate) fn add_rules(schema: &mut Value, rules: Vec<Rule>) {
    if !schema[RULES].is_array() {
        schema[RULES] = json!([]);
    }
    if let Some(all) = schema[RULES].as_array_mut() {
        all.extend(rules.into_iter().map(|rule| json!(rule)));
    }
}

/// Makes fields of a spec immutable: one transition rule each, presence
/// included. A field is named by its path from the spec; the objects on the
/// way need a default. Of `list[].field` each item of a list-map keeps the
/// field for as long as it has its key.
pub(crate) fn add_immutability(spec: &mut Value, fields: &[&str], remedy: &str) {
    for path in fields {
        let (list, path) = path.split_once("[].").map_or((None, *path), |(list, field)| (Some(list), field));
        let mut object = &mut *spec;
        if let Some(list) = list {
            for name in list.split('.') {
                object = &mut object["properties"][name];
            }
            object = &mut object["items"];
        }
        let required = is_required(object, path);
        let field = path.split('.').fold(&*object, |schema, name| &schema["properties"][name]);
        let always_present = required || !field["default"].is_null();
        let rule = if always_present {
            format!("self.{path} == oldSelf.{path}")
        } else {
            format!(
                "has(self.{path}) == has(oldSelf.{path}) && (!has(self.{path}) || self.{path} == oldSelf.{path})"
            )
        };
        add_rules(
            object,
            vec![
                Rule::new(rule)
                    .message(format!("{path} is immutable; {remedy}").as_str())
                    .reason(Reason::FieldValueForbidden)
                    .field_path(format!(".{path}")),
            ],
        );
    }
}

/// Makes numbers of a spec rise alone: one transition rule each. Each needs a default.
pub(crate) fn add_rising(spec: &mut Value, fields: &[&str], remedy: &str) {
    for path in fields {
        add_rules(
            spec,
            vec![
                Rule::new(format!("self.{path} >= oldSelf.{path}"))
                    .message(format!("{path} may only rise; {remedy}").as_str())
                    .reason(Reason::FieldValueInvalid)
                    .field_path(format!(".{path}")),
            ],
        );
    }
}

fn is_required(spec: &Value, path: &str) -> bool {
    spec["required"].as_array().is_some_and(|required| required.iter().any(|name| name == path))
}

/// Fills in the defaults of a schema, as the API server does: also in objects that are defaults themselves.
pub fn with_defaults(value: &mut Value, schema: &Value) {
    for item in value.as_array_mut().into_iter().flatten() {
        with_defaults(item, &schema["items"]);
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        if value.get(name).is_none() && !field["default"].is_null() {
            value[name] = field["default"].clone();
        }
        if let Some(inner) = value.get_mut(name) {
            with_defaults(inner, field);
        }
    }
}

/// A schema of our own making that does not parse is a defect no caller can
/// handle; it shows in the first test that asks for the CRD.
#[allow(clippy::expect_used)]
fn parse(root: Value) -> JSONSchemaProps {
    serde_json::from_value(root).expect("the schema is a JSONSchemaProps")
}

fn tighten(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else {
        return;
    };
    // Null would be a third state beside absent and set: CEL's has() is true for it.
    object.remove("nullable");
    known_format(object);
    // A line break in a doc comment is layout, not meaning.
    if let Some(text) = object.get("description").and_then(Value::as_str) {
        let text = text.replace('\n', " ");
        object.insert("description".to_owned(), json!(text));
    }
    for (_, inner) in inner_schemas(schema) {
        tighten(inner);
    }
}

/// The schemas directly below this one, with the step of the path to them.
fn inner_schemas(schema: &mut Value) -> Vec<(String, &mut Value)> {
    let Some(object) = schema.as_object_mut() else {
        return Vec::new();
    };
    let mut inner = Vec::new();
    for (keyword, schema) in object.iter_mut() {
        match (keyword.as_str(), schema) {
            ("properties", Value::Object(properties)) => {
                inner.extend(properties.iter_mut().map(|(name, schema)| (format!(".{name}"), schema)));
            }
            ("items", items) => inner.push(("[]".to_owned(), items)),
            ("additionalProperties", values) => inner.push((".*".to_owned(), values)),
            _ => {}
        }
    }
    inner
}

/// The API server warns about formats it does not know, such as `uint32`.
fn known_format(schema: &mut Map<String, Value>) {
    if schema.get("type").and_then(Value::as_str) != Some("integer") {
        return;
    }
    let fits =
        schema.get("maximum").and_then(Value::as_f64).is_some_and(|maximum| maximum <= f64::from(i32::MAX));
    schema.insert("format".to_owned(), json!(if fits { "int32" } else { "int64" }));
}

/// What a field's schema allows beyond its type, as the sentences that end its
/// description: immutability, bounds of numbers, a scalar default.
#[must_use]
pub fn constraints(schema: &Value, immutable: bool) -> String {
    let mut sentences = Vec::new();
    if immutable {
        sentences.push("Immutable.".to_owned());
    }
    if let (Some(minimum), Some(maximum)) = (schema["minimum"].as_f64(), schema["maximum"].as_f64()) {
        // Bounds of a whole number type say nothing.
        if maximum < f64::from(i32::MAX) {
            sentences.push(format!("From {minimum} to {maximum}."));
        }
    }
    match &schema["default"] {
        Value::Null | Value::Object(_) | Value::Array(_) => {}
        Value::String(text) => sentences.push(format!("Default: {text}.")),
        scalar @ (Value::Bool(_) | Value::Number(_)) => sentences.push(format!("Default: {scalar}.")),
    }
    sentences.join(" ")
}

fn describe(schema: &mut Value, path: &str, immutable_fields: &[&str]) {
    let immutable = immutable_fields.iter().any(|field| path.strip_prefix('.') == Some(*field));
    let text = schema["description"].as_str().unwrap_or_default();
    let text = format!("{text} {}", constraints(schema, immutable));
    schema["description"] = json!(text.trim());
    for (step, inner) in inner_schemas(schema) {
        describe(inner, &format!("{path}{step}"), immutable_fields);
    }
}
