//! The charts' generated files: the CRDs as templates, and schema, defaults and table of the values.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};
use springtide_crds::Kind;
use springtide_manager::config::ManagerConfiguration;
use springtide_manager::config::schema::{json as values, schema as configuration};

use super::{MARK, reference, yaml};
use crate::schema::Node;

/// The source of the values' schema.
const VALUES: &str = include_str!("values.yaml");

/// Keywords that say nothing to an installer.
const DROPPED: [&str; 2] = ["format", "required"];

/// All files, by path from the repository's root.
pub(super) fn files(kinds: &[Kind]) -> Result<BTreeMap<PathBuf, String>> {
    let mut files = BTreeMap::new();
    for kind in kinds {
        let path = format!("charts/springtide-crds/templates/{}.yaml", super::file_name(kind));
        files.insert(path.into(), crd(kind)?);
    }
    let schema = schema()?;
    let mut text = serde_json::to_string_pretty(&schema).context("schema to JSON")?;
    text.push('\n');
    files.insert("charts/springtide/values.schema.json".into(), text);
    let mut defaults = format!("# {MARK} from the schema beside it; edits are lost.\n");
    write_defaults(&mut defaults, &schema, 0)?;
    files.insert("charts/springtide/values.yaml".into(), defaults);
    files.insert("charts/springtide/README.md".into(), readme(&schema)?);
    Ok(files)
}

/// The CRD as a template: with Helm's keep annotation, when the value says so, the labels of Helm's objects, and those of
/// the values.
fn crd(kind: &Kind) -> Result<String> {
    let text = yaml::document(&kind.crd, &[])?;
    // What looks like a template's action in a description stays what it is.
    let text = text.replace("{{", "{{ \"{{\" }}");
    let keep =
        "  annotations:\n    {{- if .Values.keep }}\n    helm.sh/resource-policy: keep\n    {{- end }}\n";
    let helm = "  labels:\n    app.kubernetes.io/managed-by: {{ .Release.Service }}\n    helm.sh/chart: {{ printf \
                \"%s-%s\" .Chart.Name .Chart.Version | replace \"+\" \"_\" }}\n    {{- with .Values.commonLabels \
                }}\n    {{- toYaml . | nindent 4 }}\n    {{- end }}\n";
    let name = &kind.crd.spec.names.kind;
    let Some((before, after)) = text.split_once("  annotations:\n") else {
        bail!("the CRD of {name} has no annotations: it declares no maximum");
    };
    let Some((annotations, after)) = after.split_once("  labels:\n") else {
        bail!("the CRD of {name} has no labels");
    };
    Ok(format!("{before}{keep}{annotations}{helm}{after}"))
}

/// The whole schema of the values.
fn schema() -> Result<Value> {
    let source: Value = serde_yaml::from_str(VALUES).context("the values' source")?;
    let mut root = json!({"properties": source});
    root["properties"]["global"] =
        json!({"type": "object", "description": "Of the parent chart, where there is one; not used."});
    resolve(&mut root)?;
    root["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    root["$comment"] = json!(format!("{MARK}; edits are lost."));
    yaml::tidy(&mut root);
    Ok(root)
}

/// Takes in what stands in the configuration's schema, and closes every object that lists its fields.
fn resolve(schema: &mut Value) -> Result<()> {
    if let Some(path) = schema["$config"].as_str() {
        let (mut taken, mut defaults) = (configuration(), values(&ManagerConfiguration::default()));
        for name in path.split('.') {
            taken = taken["properties"][name].take();
            defaults = defaults[name].take();
        }
        if taken.is_null() {
            bail!("the manager's configuration has no {path}");
        }
        for field in schema["without"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let removed = taken["properties"].as_object_mut().and_then(|fields| fields.remove(field));
            removed.with_context(|| format!("the manager's configuration has no {path}.{field}"))?;
        }
        set_defaults(&mut taken, &defaults);
        *schema = taken;
    }
    let Some(keywords) = schema.as_object_mut() else { return Ok(()) };
    if let Some(fields) = keywords.get_mut("properties").and_then(Value::as_object_mut) {
        fields.values_mut().try_for_each(resolve)?;
        // Each has a default, so only a null takes one away, and what comes of that no template looks at.
        let names: Vec<&String> = fields.keys().filter(|name| *name != "global").collect();
        let required = json!(names);
        keywords.insert("required".into(), required);
        keywords.insert("type".into(), json!("object"));
        keywords.insert("additionalProperties".into(), json!(false));
    }
    Ok(())
}

/// A schema that was derived has its defaults at its objects; here each field has its own.
fn set_defaults(schema: &mut Value, defaults: &Value) {
    let Some(keywords) = schema.as_object_mut() else { return };
    for dropped in DROPPED {
        keywords.remove(dropped);
    }
    match keywords.get_mut("properties").and_then(Value::as_object_mut) {
        Some(fields) => {
            for (name, field) in fields {
                set_defaults(field, &defaults[name]);
            }
            keywords.remove("default");
        }
        None => {
            keywords.insert("default".into(), defaults.clone());
        }
    }
}

/// `values.yaml`: every default below its description.
fn write_defaults(text: &mut String, schema: &Value, depth: usize) -> Result<()> {
    let indent = "  ".repeat(depth);
    for (name, field) in fields(schema) {
        if depth == 0 {
            text.push('\n');
        }
        writeln!(text, "{indent}# {}", description(field))?;
        if field["properties"].is_object() {
            writeln!(text, "{indent}{name}:")?;
            write_defaults(text, field, depth + 1)?;
            continue;
        }
        let block = serde_yaml::to_string(&json!({ name: field["default"] })).context("a default to YAML")?;
        for line in block.lines() {
            writeln!(text, "{indent}{line}")?;
        }
    }
    Ok(())
}

/// The fields that have a default, those of the parent chart left out.
fn fields(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    let fields: Option<&Map<String, Value>> = schema["properties"].as_object();
    let is_set = |field: &Value| field["properties"].is_object() || !field["default"].is_null();
    fields.into_iter().flatten().filter(move |(_, field)| is_set(field))
}

/// Derived descriptions have line breaks where the source has them.
fn description(schema: &Value) -> String {
    schema["description"].as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

fn readme(schema: &Value) -> Result<String> {
    let mut page = format!(
        "<!-- {MARK}; edits are lost. -->\n# Chart springtide\n\n\
         The manager of the Springtide suite with its rights, configuration, disruption budget and network policy. \
         The kinds are in the chart `springtide-crds`, which goes first. How to install, upgrade and roll back: \
         `docs/install.md`.\n\n## Values\n\nAn unknown key fails the installation. A change of what the manager \
         reads anew (`writeBudget`, `logging.level`) starts no new pods.\n\n\
         | value | type | bounds | default | meaning |\n|---|---|---|---|---|\n"
    );
    write_rows(&mut page, schema, "")?;
    Ok(page)
}

fn write_rows(page: &mut String, schema: &Value, prefix: &str) -> Result<()> {
    for (name, field) in fields(schema) {
        let path = format!("{prefix}{name}");
        if field["properties"].is_object() {
            write_rows(page, field, &format!("{path}."))?;
            continue;
        }
        let node = Node { path: &path, name, schema: field, in_open: false };
        let default = serde_json::to_string(&field["default"]).context("a default to JSON")?;
        writeln!(
            page,
            "| `{path}` | {} | {} | `{default}` | {} |",
            value_type(node),
            reference::bounds(node),
            reference::escape(&description(field))
        )?;
    }
    Ok(())
}

/// Lists and maps of values are plain ones, not those of an API.
fn value_type(node: Node<'_>) -> String {
    match node.type_() {
        "array" => "list".to_owned(),
        "object" => "map".to_owned(),
        _ => reference::type_of(node),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_described_bounded_and_has_a_default() {
        fn look(schema: &Value, prefix: &str) {
            for (name, field) in schema["properties"].as_object().into_iter().flatten() {
                let path = format!("{prefix}{name}");
                assert!(!description(field).is_empty(), "{path} has no description");
                if field["properties"].is_object() {
                    assert_eq!(field["additionalProperties"], false, "{path} is open");
                    look(field, &format!("{path}."));
                } else if name != "global" {
                    assert!(!field["default"].is_null(), "{path} has no default");
                    // An enum with a description for each value is a `oneOf`.
                    let listed = field["enum"].is_array() || field["oneOf"].is_array();
                    let bounded = listed || !field["type"].is_null();
                    assert!(bounded, "{path} may be anything");
                }
            }
        }
        look(&schema().unwrap(), "");
    }

    #[test]
    fn what_the_configuration_file_has_is_taken_with_its_bounds() {
        let schema = schema().unwrap();
        let workers = &schema["properties"]["controllers"]["properties"]["batchJob"]["properties"]["workers"];
        assert_eq!((&workers["minimum"], &workers["maximum"]), (&json!(1), &json!(256)));
        let election = &schema["properties"]["leaderElection"]["properties"];
        assert!(election["namespace"].is_null() && election["leaseDurationSeconds"]["default"] == 30);
        assert!(resolve(&mut json!({"$config": "nothing.there"})).is_err());
        assert!(resolve(&mut json!({"$config": "logging", "without": ["nothing"]})).is_err());
    }

    /// A bound at the kind's own is none, and the template makes no rule of it.
    #[test]
    fn the_bounds_of_queues_are_those_of_the_kind_at_most() {
        let schema = schema().unwrap();
        let policies = &schema["properties"]["admissionPolicies"]["properties"];
        let values = &policies["queues"]["properties"];
        let root = crate::schema::root(&json!(springtide_crds::batch_queue::crd()));
        let spec = &root["properties"]["spec"]["properties"];
        let capacity = &spec["capacitySource"]["properties"];
        let path = crate::repository_root().join("charts/springtide/templates/admission-policies.yaml");
        let template = std::fs::read_to_string(path).unwrap();
        for (name, field, variable) in [
            ("maxWeight", &spec["weight"], "weight"),
            ("maxPendingPods", &capacity["maxPendingPods"], "pods"),
        ] {
            for bound in ["minimum", "maximum"] {
                assert_eq!(values[name][bound].as_f64(), field[bound].as_f64(), "{bound} of {name}");
            }
            assert_eq!(values[name]["default"], values[name]["maximum"], "{name}");
            assert!(template.contains(&format!("if lt ${variable} {} ", values[name]["maximum"])), "{name}");
        }
        assert_eq!(values["maxTier"]["enum"], spec["maxTier"]["enum"]);
        assert_eq!(values["maxTier"]["default"], "Guaranteed");
        assert_eq!(values["capacityTypes"]["items"]["enum"], capacity["type"]["enum"]);
        let row = &spec["quota"]["items"]["properties"];
        let quota = &values["maxQuota"];
        assert_eq!(quota["maxProperties"].as_f64(), spec["quota"]["maxItems"].as_f64());
        let of_resource = &quota["patternProperties"][row["resource"]["pattern"].as_str().unwrap()];
        assert!(of_resource.is_object(), "{quota}");
        for field in ["nominal", "max"] {
            let amount = &of_resource["properties"][field];
            assert_eq!(amount["pattern"], row[field]["pattern"], "{field}");
        }
        assert_eq!(values["cohorts"]["items"]["pattern"], spec["cohort"]["pattern"]);
        let class = &spec["tiers"]["items"]["properties"]["priorityClassName"];
        assert_eq!(values["priorityClasses"]["items"]["pattern"], class["pattern"]);
    }

    #[test]
    fn the_charts_have_the_version_of_the_code() {
        for chart in ["springtide", "springtide-crds"] {
            let path = crate::repository_root().join("charts").join(chart).join("Chart.yaml");
            let chart: Value = serde_yaml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
            for key in ["version", "appVersion"] {
                assert_eq!(chart[key], env!("CARGO_PKG_VERSION"), "{}", chart["name"]);
            }
        }
    }
}
