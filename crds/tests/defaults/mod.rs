//! The defaults of a schema, as the API server fills them in.

use serde_json::Value;

/// Fills in the schema's defaults, as the API server does.
pub(crate) fn with_defaults(value: &mut Value, schema: &Value) {
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
