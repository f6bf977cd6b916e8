//! Samples as people write them.

use serde_json::{Value, json};
use springtide_crds::Kind;
use springtide_crds::samples::Sample;

use crate::schema;

/// The sample without the fields that have their default anyway: an example
/// shows what matters.
pub(crate) fn without_defaults(kind: &Kind, sample: &Sample) -> Value {
    without_defaults_of(&schema::root(&json!(kind.crd)), sample)
}

/// The same by the root schema of the kind.
pub(crate) fn without_defaults_of(schema: &Value, sample: &Sample) -> Value {
    let mut object = sample.object.clone();
    prune(&mut object, schema);
    object
}

fn prune(value: &mut Value, schema: &Value) {
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
