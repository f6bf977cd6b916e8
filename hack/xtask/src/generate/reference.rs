//! The reference page of a kind.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use springtide_crds::schema::constraints;
use springtide_crds::{Kind, MAX_PER_CLUSTER, MAX_PER_NAMESPACE};

use super::MARK;
use crate::schema::{self, Node};

/// The page as Markdown.
pub(super) fn page(kind: &Kind) -> Result<String> {
    let crd = json!(kind.crd);
    let root = schema::root(&crd);
    let mut page = String::new();
    let names = &kind.crd.spec.names;
    write!(
        page,
        "<!-- {MARK}; edits are lost. -->\n# {}\n\n{}\n\n",
        names.kind,
        root["description"].as_str().unwrap_or_default()
    )?;
    about(&mut page, kind, &crd)?;
    fields(&mut page, kind, &root, "spec")?;
    if kind.has_status() {
        fields(&mut page, kind, &root, "status")?;
    }
    rules(&mut page, &root)?;
    if kind.has_status() {
        reasons(&mut page, kind)?;
    }
    columns(&mut page, kind)?;
    examples(&mut page, kind)?;
    Ok(page)
}

fn about(page: &mut String, kind: &Kind, crd: &Value) -> Result<()> {
    let spec = &kind.crd.spec;
    let version = spec.versions.first().context("a CRD has a version")?;
    let annotation = |name: &str| crd["metadata"]["annotations"][name].as_str().unwrap_or("none").to_owned();
    let selectable: Vec<String> = version
        .selectable_fields
        .iter()
        .flatten()
        .map(|field| format!("`{}`", field.json_path.trim_start_matches('.')))
        .collect();
    writeln!(page, "| | |\n|---|---|")?;
    writeln!(page, "| API | `{}/{}`, {} |", spec.group, version.name, spec.scope.to_lowercase())?;
    writeln!(
        page,
        "| short names | `{}` |",
        spec.names.short_names.iter().flatten().cloned().collect::<Vec<_>>().join("`, `")
    )?;
    writeln!(
        page,
        "| categories | `{}` |",
        spec.names.categories.iter().flatten().cloned().collect::<Vec<_>>().join("`, `")
    )?;
    if !selectable.is_empty() {
        writeln!(page, "| field selectors | {} |", selectable.join(", "))?;
    }
    writeln!(page, "| most objects in a namespace | {} |", annotation(MAX_PER_NAMESPACE))?;
    writeln!(page, "| most objects in a cluster | {} |\n", annotation(MAX_PER_CLUSTER))?;
    Ok(())
}

fn fields(page: &mut String, kind: &Kind, root: &Value, part: &str) -> Result<()> {
    let top = &root["properties"][part];
    let in_spec = part == "spec";
    writeln!(page, "## {part}\n\n{}\n", top["description"].as_str().unwrap_or_default())?;
    let (head, line) = if in_spec { (" default | change |", "---|---|") } else { ("", "") };
    writeln!(page, "| field | type | bounds |{head} meaning |\n|---|---|---|{line}---|")?;
    let mut rows = Vec::new();
    schema::walk(part, top, &mut |node| {
        // Items that are objects are documented by their fields, others by the list.
        if node.path != part && (node.is_field() || !node.is_leaf()) {
            rows.push(field_row(kind, root, in_spec, node));
        }
    });
    for row in rows {
        writeln!(page, "{row}")?;
    }
    writeln!(page)?;
    Ok(())
}

fn field_row(kind: &Kind, root: &Value, in_spec: bool, node: Node<'_>) -> String {
    let path = node.path.trim_start_matches("spec.").trim_start_matches("status.");
    let immutable = kind.immutable_fields.iter().any(|field| {
        // A path inside the status may look like one of the spec.
        in_spec
            && (path == *field || path.strip_prefix(field).is_some_and(|rest| rest.starts_with(['.', '['])))
    });
    let rises = in_spec && kind.rising_fields.contains(&path);
    let text = node.schema["description"].as_str().unwrap_or_default();
    let declared = kind.immutable_fields.contains(&path) && in_spec;
    let meaning = text.strip_suffix(&constraints(node.schema, declared)).unwrap_or(text).trim();
    let mut row = format!("| `{path}` | {} | {} |", type_of(node), bounds(node));
    if in_spec {
        let default = match &node.schema["default"] {
            Value::Null if is_required(root, node.path) => "required".to_owned(),
            Value::Null => String::new(),
            Value::String(text) => format!("`{text}`"),
            Value::Object(_) | Value::Array(_) => "by field".to_owned(),
            scalar @ (Value::Bool(_) | Value::Number(_)) => format!("`{scalar}`"),
        };
        let changes = match (immutable, rises) {
            (true, _) => "no",
            (false, true) => "upwards",
            (false, false) => "yes",
        };
        row.push_str(&format!(" {default} | {changes} |"));
    }
    row.push_str(&format!(" {} |", escape(meaning)));
    row
}

pub(super) fn type_of(node: Node<'_>) -> String {
    let schema = node.schema;
    // Values that have descriptions of their own are alternatives of one each.
    let alternatives = schema["oneOf"].as_array().into_iter().flatten().map(|one| &one["const"]);
    let values: Vec<String> = schema["enum"]
        .as_array()
        .into_iter()
        .flatten()
        .chain(alternatives)
        .filter_map(Value::as_str)
        .map(|value| format!("`{value}`"))
        .collect();
    if !values.is_empty() {
        return values.join(", ");
    }
    match node.type_() {
        "array" => match schema["items"]["type"].as_str() {
            Some("object") | None => {
                format!("list ({})", schema["x-kubernetes-list-type"].as_str().unwrap_or("atomic"))
            }
            Some(item) => {
                format!("list of {item} ({})", schema["x-kubernetes-list-type"].as_str().unwrap_or("atomic"))
            }
        },
        "object" if schema["additionalProperties"].is_object() => "map of string".to_owned(),
        "string" if schema["format"] == "date-time" => "time (RFC 3339)".to_owned(),
        "integer" if node.name.contains("Seconds") => "integer (seconds)".to_owned(),
        // Of the two that are numbers or texts a quantity has no bound as a number.
        "" if schema["x-kubernetes-int-or-string"] == true && schema["maximum"].is_null() => {
            "quantity".to_owned()
        }
        "" if schema["x-kubernetes-int-or-string"] == true => "number or percentage".to_owned(),
        other => other.to_owned(),
    }
}

pub(super) fn bounds(node: Node<'_>) -> String {
    let schema = node.schema;
    let range = |low: &str, high: &str, unit: &str| -> Option<String> {
        let high = schema[high].as_f64()?;
        Some(match schema[low].as_f64() {
            Some(low) => format!("{low}..{high}{unit}"),
            None => format!("<= {high}{unit}"),
        })
    };
    let mut bounds: Vec<String> = [
        range("minimum", "maximum", ""),
        range("minLength", "maxLength", " characters"),
        range("minItems", "maxItems", " items"),
        range("minProperties", "maxProperties", " entries"),
    ]
    .into_iter()
    .flatten()
    .collect();
    if node.is_open() {
        bounds.push("open".to_owned());
    }
    bounds.join(", ")
}

/// Whether the schema around a field demands it.
fn is_required(root: &Value, path: &str) -> bool {
    let Some((parent, name)) = path.rsplit_once('.') else { return false };
    let mut required = false;
    schema::walk("", root, &mut |node| {
        required |= node.path == parent
            && node.schema["required"]
                .as_array()
                .is_some_and(|names| names.iter().any(|required| required == name));
    });
    required
}

fn rules(page: &mut String, root: &Value) -> Result<()> {
    writeln!(
        page,
        "## Rules between fields\n\nThe API server refuses an object that breaks one of these.\n"
    )?;
    writeln!(page, "| at | message | rule (CEL) |\n|---|---|---|")?;
    let mut rows = Vec::new();
    schema::walk("", root, &mut |node| {
        for rule in node.schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
            let text = |key: &str| escape(rule[key].as_str().unwrap_or_default());
            let at = format!("{}{}", node.path, rule["fieldPath"].as_str().unwrap_or_default());
            let at = if at.is_empty() { String::new() } else { format!("`{at}`") };
            rows.push(format!("| {at} | {} | `{}` |", text("message"), text("rule")));
        }
    });
    for row in rows {
        writeln!(page, "{row}")?;
    }
    writeln!(page)?;
    Ok(())
}

fn reasons(page: &mut String, kind: &Kind) -> Result<()> {
    writeln!(
        page,
        "## Conditions and reasons\n\n| condition | status | reason | meaning |\n|---|---|---|---|"
    )?;
    for row in &kind.reasons {
        writeln!(
            page,
            "| {} | {} | `{}` | {} |",
            row.condition,
            row.status.as_str(),
            row.reason,
            escape(row.doc)
        )?;
    }
    writeln!(page, "\n`Reconciling` and `Stalled` are absent when all is normal.\n")?;
    Ok(())
}

fn columns(page: &mut String, kind: &Kind) -> Result<()> {
    writeln!(page, "## Printer columns\n\n| column | from | meaning |\n|---|---|---|")?;
    for version in &kind.crd.spec.versions {
        for column in version.additional_printer_columns.iter().flatten() {
            let meaning = column.description.as_deref().unwrap_or_default();
            writeln!(page, "| {} | `{}` | {} |", column.name, escape(&column.json_path), escape(meaning))?;
        }
    }
    writeln!(page)?;
    Ok(())
}

fn examples(page: &mut String, kind: &Kind) -> Result<()> {
    writeln!(page, "## Examples\n")?;
    for sample in &kind.samples {
        let file = format!("{}.yaml", sample.file);
        writeln!(page, "- [{file}](../../config/samples/{file}): {}", sample.doc)?;
    }
    Ok(())
}

/// A cell of a Markdown table cannot hold a bare pipe.
pub(super) fn escape(text: &str) -> String {
    text.replace('|', "\\|")
}
