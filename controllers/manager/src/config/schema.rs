//! The schema of the configuration file, derived from its types.

use super::ManagerConfiguration;
use schemars::generate::SchemaSettings;
use serde_json::Value;
use std::sync::LazyLock;

/// The JSON Schema (draft 2020-12) of the configuration file, without references.
#[must_use]
pub fn schema() -> Value {
    static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
        let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
        settings.into_generator().into_root_schema_for::<ManagerConfiguration>().to_value()
    });
    SCHEMA.clone()
}

/// A configuration as JSON.
#[must_use]
pub fn json(configuration: &ManagerConfiguration) -> Value {
    // Structs of strings, numbers and lists cannot fail to be JSON.
    serde_json::to_value(configuration).unwrap_or(Value::Null)
}
