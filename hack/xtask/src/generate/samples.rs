//! Samples as people write them.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use springtide_crds::Kind;
use springtide_crds::samples::Quickstart;

use super::yaml;
use crate::schema;

/// The sample without the fields that have their default anyway: an example
/// shows what matters.
pub(crate) fn without_defaults(kind: &Kind, object: &Value) -> Value {
    let mut object = object.clone();
    prune(&mut object, &schema::root(&json!(kind.crd)));
    object
}

/// The text of a file of several objects.
pub(super) fn quickstart(kinds: &[Kind], start: &Quickstart) -> Result<String> {
    let shown = |object: &Value| match kinds.iter().find(|kind| object["kind"] == *kind.crd.spec.names.kind) {
        Some(kind) => without_defaults(kind, object),
        None => object.clone(),
    };
    let (first, others) = start.objects.split_first().context("a quickstart has objects")?;
    let mut text = yaml::document(&shown(first), start.doc)?;
    for object in others {
        text += &yaml::further_document(&shown(object))?;
    }
    Ok(text)
}

fn prune(value: &mut Value, schema: &Value) {
    if let Some(items) = value.as_array_mut() {
        items.iter_mut().for_each(|item| prune(item, &schema["items"]));
    }
    let Some(fields) = value.as_object_mut() else { return };
    for (name, field) in fields.iter_mut() {
        prune(field, &schema["properties"][name]);
    }
    fields.retain(|name, field| {
        let default = &schema["properties"][name]["default"];
        // An object whose fields all have their defaults is now empty.
        let emptied = default.is_object() && field.as_object().is_some_and(serde_json::Map::is_empty);
        default.is_null() || !(emptied || field == default)
    });
}
