//! The compatibility gate: an object that the last release accepted must be
//! accepted, and mean the same, in the next one.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use springtide_crds::Kind;

use super::Finding;

/// The CRDs of the last release, one file each; empty until there is one.
const RELEASED: &str = "crds/released";

/// Keywords whose value may only grow, or go.
const UPPER: [&str; 4] = ["maximum", "maxLength", "maxItems", "maxProperties"];
/// Keywords whose value may only shrink, or go.
const LOWER: [&str; 4] = ["minimum", "minLength", "minItems", "minProperties"];
/// Keywords that may not change at all.
const FIXED: [&str; 5] =
    ["type", "format", "default", "x-kubernetes-list-type", "x-kubernetes-list-map-keys"];

/// What the current CRDs break of the released ones.
pub(super) fn findings(root: &Path, kinds: &[Kind]) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for entry in walkdir::WalkDir::new(root.join(RELEASED)).sort_by_file_name() {
        let entry = entry.with_context(|| format!("walk {RELEASED}"))?;
        if entry.path().extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let text =
            fs::read_to_string(entry.path()).with_context(|| format!("read {}", entry.path().display()))?;
        let old: Value =
            serde_yaml::from_str(&text).with_context(|| format!("parse {}", entry.path().display()))?;
        let name = old["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let new =
            kinds.iter().map(|kind| json!(kind.crd)).find(|crd| crd["metadata"]["name"] == name.as_str());
        let broken = new.map_or_else(|| vec!["the kind was removed".to_owned()], |new| compare(&old, &new));
        findings.extend(broken.into_iter().map(|problem| Finding {
            lint: "compatibility",
            at: name.clone(),
            problem: format!("{problem}; keep it, or say so in the upgrade notes and here"),
        }));
    }
    Ok(findings)
}

/// What `new` breaks of `old`, both whole CRDs.
fn compare(old: &Value, new: &Value) -> Vec<String> {
    let mut broken = Vec::new();
    let empty = Vec::new();
    let versions = |crd: &'_ Value| crd["spec"]["versions"].as_array().unwrap_or(&empty).clone();
    let new_versions = versions(new);
    for old_version in versions(old) {
        let name = &old_version["name"];
        let Some(new_version) = new_versions.iter().find(|version| version["name"] == *name) else {
            broken.push(format!("version {name} was removed"));
            continue;
        };
        for column in old_version["additionalPrinterColumns"].as_array().into_iter().flatten() {
            let columns = new_version["additionalPrinterColumns"].as_array();
            if !columns.is_some_and(|columns| columns.iter().any(|other| other["name"] == column["name"])) {
                broken.push(format!("printer column {} was removed", column["name"]));
            }
        }
        let schema = |version: &Value| version["schema"]["openAPIV3Schema"].clone();
        compare_schema("", &schema(&old_version), &schema(new_version), &mut broken);
    }
    broken
}

fn compare_schema(path: &str, old: &Value, new: &Value, broken: &mut Vec<String>) {
    let number = |schema: &Value, keyword: &str| schema[keyword].as_f64();
    for keyword in UPPER {
        if let Some(bound) = number(new, keyword)
            && number(old, keyword).is_none_or(|old| bound < old)
        {
            broken.push(format!("{path}: {keyword} was tightened to {bound}"));
        }
    }
    for keyword in LOWER {
        if let Some(bound) = number(new, keyword)
            && number(old, keyword).is_none_or(|old| bound > old)
        {
            broken.push(format!("{path}: {keyword} was tightened to {bound}"));
        }
    }
    for keyword in FIXED {
        if old[keyword] != new[keyword] {
            broken.push(format!("{path}: {keyword} changed from {} to {}", old[keyword], new[keyword]));
        }
    }
    if !new["pattern"].is_null() && old["pattern"] != new["pattern"] {
        broken.push(format!("{path}: pattern changed to {}", new["pattern"]));
    }
    compare_sets(path, old, new, broken);
    for (name, old_field) in old["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        match new["properties"].get(name) {
            Some(new_field) => compare_schema(&path, old_field, new_field, broken),
            None => broken.push(format!("{path}: the field was removed")),
        }
    }
    for (keyword, step) in [("items", "[]"), ("additionalProperties", ".*")] {
        if old[keyword].is_object() {
            compare_schema(&format!("{path}{step}"), &old[keyword], &new[keyword], broken);
        }
    }
}

/// Sets of words: enum values may not go, required fields and rules not come.
fn compare_sets(path: &str, old: &Value, new: &Value, broken: &mut Vec<String>) {
    let rules = |schema: &Value| -> Vec<Value> {
        let rules = schema["x-kubernetes-validations"].as_array();
        rules.into_iter().flatten().map(|rule| rule["rule"].clone()).collect()
    };
    let list = |schema: &Value, keyword: &str| schema[keyword].as_array().cloned().unwrap_or_default();
    let only_in =
        |here: Vec<Value>, there: Vec<Value>| here.into_iter().filter(move |value| !there.contains(value));
    if !new["enum"].is_null() {
        if old["enum"].is_null() {
            broken.push(format!("{path}: an enum was added"));
        }
        for value in only_in(list(old, "enum"), list(new, "enum")) {
            broken.push(format!("{path}: enum value {value} was removed"));
        }
    }
    for name in only_in(list(new, "required"), list(old, "required")) {
        broken.push(format!("{path}: {name} became required"));
    }
    for rule in only_in(rules(new), rules(old)) {
        broken.push(format!("{path}: rule {rule} was added"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crd() -> Value {
        json!(springtide_crds::all().remove(0).crd)
    }

    /// Compares the CRD with itself after `edit` at a JSON pointer below the spec's schema.
    fn after(pointer: &str, edit: impl Fn(&mut Value)) -> Vec<String> {
        let mut new = crd();
        let base = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";
        edit(new.pointer_mut(&format!("{base}{pointer}")).unwrap());
        compare(&crd(), &new)
    }

    #[test]
    fn the_same_is_compatible_and_so_is_more() {
        assert_eq!(compare(&crd(), &crd()), Vec::<String>::new());
        let loosened = after("/properties/priority", |field| {
            field["maximum"] = json!(2000);
            field.as_object_mut().unwrap().remove("minimum");
        });
        assert_eq!(loosened, Vec::<String>::new());
        let added =
            after("/properties", |fields| fields["fresh"] = json!({"type": "string", "maxLength": 5}));
        assert_eq!(added, Vec::<String>::new());
    }

    #[test]
    fn each_break_is_named() {
        let cases = [
            (
                after("/properties", |all| drop(all.as_object_mut().unwrap().remove("retry"))),
                "retry: the field was removed",
            ),
            (
                after("/properties/priority", |field| field["maximum"] = json!(10)),
                "priority: maximum was tightened",
            ),
            (
                after("/properties/priority", |field| field["minimum"] = json!(0)),
                "priority: minimum was tightened",
            ),
            (after("/required", |names| *names = json!(["template", "tier"])), "\"tier\" became required"),
            (
                after("/properties/tier/enum", |values| *values = json!(["BestEffort"])),
                "\"Standard\" was removed",
            ),
            (
                after("/properties/parallelism", |field| field["default"] = json!(2)),
                "parallelism: default changed",
            ),
            (after("/properties/tier", |field| field["type"] = json!("integer")), "tier: type changed"),
            (
                after("/x-kubernetes-validations/0", |rule| rule["rule"] = json!("false")),
                "rule \"false\" was added",
            ),
            (
                after("/properties/podFailurePolicy/properties/rules", |list| {
                    list["x-kubernetes-list-type"] = json!("set")
                }),
                "rules: x-kubernetes-list-type changed",
            ),
        ];
        for (broken, expected) in cases {
            assert!(broken.iter().any(|text| text.contains(expected)), "{expected}: {broken:?}");
        }
    }

    #[test]
    fn a_removed_column_or_version_is_named() {
        let mut new = crd();
        new["spec"]["versions"][0]["additionalPrinterColumns"].as_array_mut().unwrap().remove(2);
        assert_eq!(compare(&crd(), &new), ["printer column \"Tier\" was removed"]);
        new["spec"]["versions"][0]["name"] = json!("v1");
        assert_eq!(compare(&crd(), &new), ["version \"v1alpha1\" was removed"]);
    }
}
