//! The schema and the reference page of the manager's configuration file.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use springtide_manager::config::schema::{json as values, schema as derived};
use springtide_manager::config::{ManagerConfiguration, is_live};

use super::MARK;
use super::reference::{bounds, escape, type_of};
use crate::schema::{self, Node};

/// File of the schema, beside the page.
pub(super) const SCHEMA: &str = "manager-configuration.schema.json";

/// The JSON Schema.
pub(super) fn schema() -> Result<String> {
    let mut schema = derived();
    schema["$comment"] = json!(format!("{MARK}; edits are lost."));
    tidy(&mut schema);
    let text = serde_json::to_string_pretty(&schema).context("schema to JSON")?;
    Ok(format!("{text}\n"))
}

/// The page as Markdown.
pub(super) fn page() -> Result<String> {
    let root = derived();
    let defaults = values(&ManagerConfiguration::default());
    let mut page = format!(
        "<!-- {MARK}; edits are lost. -->\n# ManagerConfiguration\n\n{}\n\n",
        root["description"].as_str().unwrap_or_default()
    );
    writeln!(
        page,
        "Options of the command line override the file. An unknown field, a wrong type or a value out of its bounds \
         is refused at the start, with the path of the field and what it may be. `{SCHEMA}` beside this page is \
         the same as a JSON Schema, for editors and for whatever writes the file.\n\n\
         Changes are counted in `springtide_config_reloads_total{{result}}`; \
         `springtide_config_last_reload_successful` is 0 while the file is not valid.\n"
    )?;
    writeln!(
        page,
        "## Fields\n\n| field | type | bounds | default | changes | meaning |\n|---|---|---|---|---|---|"
    )?;
    let mut rows = Vec::new();
    schema::walk("", &root, &mut |node| {
        if !node.path.is_empty() && node.is_field() {
            rows.push(row(&defaults, node));
        }
    });
    for row in rows {
        writeln!(page, "{row}")?;
    }
    let whole = serde_yaml::to_string(&ManagerConfiguration::default()).context("defaults to YAML")?;
    writeln!(page, "\n## All defaults\n\n```yaml\n{whole}```")?;
    Ok(page)
}

fn row(defaults: &Value, node: Node<'_>) -> String {
    let meaning = escape(&node.schema["description"].as_str().unwrap_or_default().replace('\n', " "));
    let (type_, bounds) = (type_of(node), bounds(node));
    if node.schema["properties"].is_object() {
        return format!("| `{}` | {type_} | {bounds} | | | {meaning} |", node.path);
    }
    let default = node.path.split('.').fold(defaults, |value, name| &value[name]);
    let default = match default {
        Value::Null => String::new(),
        Value::String(text) => format!("`{text}`"),
        scalar @ (Value::Bool(_) | Value::Number(_)) => format!("`{scalar}`"),
        Value::Array(_) | Value::Object(_) => "by field".to_owned(),
    };
    let changes = if is_live(node.path) { "live" } else { "restart" };
    format!("| `{}` | {type_} | {bounds} | {default} | {changes} | {meaning} |", node.path)
}

/// A line break in a doc comment is layout, not meaning.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::String(text)) = fields.get_mut("description") {
                *text =
                    text.split("\n\n").map(|part| part.replace('\n', " ")).collect::<Vec<_>>().join("\n\n");
            }
            fields.values_mut().for_each(tidy);
            fields.sort_keys();
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
