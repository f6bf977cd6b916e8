//! The YAML in the docs is what the API server takes: each object of ours, and each part of a spec, fits the schema of
//! its kind. Rules in CEL the API server knows best: a test gives it the same objects (`e2e/tests/crd_validation/main.rs`).

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Value, json};
use springtide_crds::Kind;

use super::{Finding, fit};

/// Pages, or folders of them, below the root.
const PAGES: [&str; 2] = ["README.md", "docs"];

/// What an object of a kind may be.
struct Shape {
    /// As in `apiVersion`.
    api_version: String,
    kind: String,
    /// Of the whole object.
    root: Value,
}

/// One finding for each thing in a block of YAML that its kind does not have.
pub(super) fn findings(root: &Path, kinds: &[Kind]) -> Result<Vec<Finding>> {
    let shapes: Vec<Shape> = kinds.iter().flat_map(shapes).collect();
    let mut findings = Vec::new();
    for page in PAGES {
        for entry in walkdir::WalkDir::new(root.join(page)).sort_by_file_name() {
            let entry = entry.with_context(|| format!("walk {page}"))?;
            let path = entry.path();
            if path.extension().is_none_or(|extension| extension != "md") {
                continue;
            }
            let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
            let page = path.strip_prefix(root).unwrap_or(path).display();
            for (line, block) in blocks(&text) {
                findings.extend(judge(&block, &shapes).into_iter().map(|problem| Finding {
                    lint: "docs-yaml",
                    at: format!("{page} line {line}"),
                    problem,
                }));
            }
        }
    }
    Ok(findings)
}

fn shapes(kind: &Kind) -> Vec<Shape> {
    let spec = &kind.crd.spec;
    let served = spec.versions.iter().filter(|version| version.served);
    served
        .map(|version| Shape {
            api_version: format!("{}/{}", spec.group, version.name),
            kind: spec.names.kind.clone(),
            root: json!(version.schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref())),
        })
        .collect()
}

/// The blocks of YAML of a page, each with the number of the line that opens it.
fn blocks(page: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (number, line) in page.lines().enumerate() {
        match &mut open {
            None if line.trim_end() == "```yaml" => open = Some((number + 1, String::new())),
            None => {}
            Some(_) if line.trim_end() == "```" => blocks.extend(open.take()),
            Some((_, text)) => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    // One that nothing closes runs to the end of the page, for readers too.
    blocks.extend(open);
    blocks
}

/// What is wrong with a block. Objects of others are their own matter.
fn judge(block: &str, shapes: &[Shape]) -> Vec<String> {
    let mut problems = Vec::new();
    for document in serde_yaml::Deserializer::from_str(block) {
        match Value::deserialize(document) {
            Ok(document) => problems.extend(judge_document(&document, block, shapes)),
            Err(error) => {
                problems.push(format!("is not YAML: {error}"));
                break;
            }
        }
    }
    problems
}

fn judge_document(document: &Value, block: &str, shapes: &[Shape]) -> Vec<String> {
    let text = |field: &str| document[field].as_str().unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let of_group = |shape: &Shape| group(&shape.api_version) == group(api_version);
    if !api_version.is_empty() {
        return match shapes.iter().find(|shape| (&*shape.api_version, &*shape.kind) == (api_version, kind)) {
            Some(shape) => fit::object_problems(document, &shape.root),
            None if shapes.iter().any(of_group) => vec![format!("there is no {kind} in {api_version}")],
            None => Vec::new(),
        };
    }
    match part(document, block) {
        Some(part) => judge_part(part, shapes),
        None => Vec::new(),
    }
}

fn group(api_version: &str) -> &str {
    api_version.split('/').next().unwrap_or_default()
}

/// The part of a spec that a block without a kind shows: what is below its only field `spec`, or the whole of what is
/// indented as it would be there.
fn part<'a>(document: &'a Value, block: &str) -> Option<&'a Value> {
    let fields = document.as_object()?;
    if fields.len() == 1 && fields.contains_key("spec") {
        return fields.get("spec");
    }
    let first = block.lines().find(|line| !line.trim().is_empty())?;
    let indented = first.strip_prefix("  ").is_some_and(|rest| !rest.starts_with(' '));
    indented.then_some(document)
}

/// A part says not of which kind it is: it is judged as one of that which has most of its fields.
fn judge_part(part: &Value, shapes: &[Shape]) -> Vec<String> {
    let of_kind = |shape: &Shape| {
        let mut spec = shape.root["properties"]["spec"].clone();
        // The rest of the spec is not shown.
        spec["required"] = Value::Null;
        let declares = |name: &String| spec["properties"][name].is_object();
        let strange = part.as_object().into_iter().flatten().filter(|(name, _)| !declares(name)).count();
        let problems = fit::problems(part, &spec, "spec").into_iter();
        (strange, problems.map(|problem| format!("of a {}: {problem}", shape.kind)).collect::<Vec<_>>())
    };
    let judged = shapes.iter().map(of_kind).min_by_key(|(strange, problems)| (*strange, problems.len()));
    judged.map(|(_, problems)| problems).unwrap_or_default()
}

#[cfg(test)]
mod tests;
