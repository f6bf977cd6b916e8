//! What kube-state-metrics shows of our kinds: its CustomResourceState configuration, derived from the CRDs.
//!
//! Of each kind: creation and generation; where it has a status, observed generation and every condition with its
//! reason; and the printer columns (a number or a time is a gauge, a word of a fixed list a label of the info metric).
//! Names are made as kube-state-metrics makes its own: the path of the field, in snake case. A label other than name
//! and namespace has a bounded set of values.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use springtide_crds::Kind;

use crate::check::Finding;
use crate::generate::yaml;
use crate::schema;

/// The file, from the repository's root: the chart puts it into a ConfigMap.
pub(super) const FILE: &str = "charts/springtide/files/kube-state-metrics/config.yaml";

/// Metadata that every object has, and no CRD describes.
const METADATA: [&str; 4] = ["creationTimestamp", "generation", "name", "namespace"];
/// Labels that tell objects apart: there are as many values as objects, as in all metrics of kube-state-metrics.
const IDENTITY: [&str; 2] = ["name", "namespace"];
/// Labels of a condition: its types, and the reasons that are documented.
const OF_CONDITIONS: [&str; 2] = ["type", "reason"];

/// The whole configuration. Of the format only what is used here.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Configuration {
    kind: String,
    spec: Spec,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    resources: Vec<Resource>,
}

/// The metrics of one kind.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Resource {
    group_version_kind: GroupVersionKind,
    metric_name_prefix: String,
    labels_from_path: Labels,
    metrics: Vec<Metric>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct GroupVersionKind {
    group: String,
    version: String,
    kind: String,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Metric {
    name: String,
    help: String,
    each: Each,
}

/// Label by label, where its value is.
type Labels = BTreeMap<String, Path>;
/// Names of fields, from the object's root or from where another path leads.
type Path = Vec<String>;

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, tag = "type")]
enum Each {
    /// A number, a time as Unix seconds, or a status of a condition as 1 or 0; one for each item of a list.
    Gauge { gauge: Gauge },
    /// Always 1, for its labels.
    Info { info: Info },
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct Gauge {
    path: Path,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    value_from: Path,
    #[serde(skip_serializing_if = "Labels::is_empty")]
    labels_from_path: Labels,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    nil_is_zero: bool,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Info {
    labels_from_path: Labels,
}

/// The file's text.
pub(super) fn text(kinds: &[Kind]) -> Result<String> {
    let resources = kinds.iter().map(resource).collect::<Result<_>>()?;
    let configuration =
        Configuration { kind: "CustomResourceStateMetrics".to_owned(), spec: Spec { resources } };
    let comment = "For --custom-resource-state-config-file of kube-state-metrics; docs/operate/observability.md says how.";
    yaml::document(&configuration, &[comment])
}

fn path(fields: &[&str]) -> Path {
    fields.iter().map(|field| (*field).to_owned()).collect()
}

fn gauge(name: &str, help: &str, gauge: Gauge) -> Metric {
    Metric { name: name.to_owned(), help: help.to_owned(), each: Each::Gauge { gauge } }
}

fn resource(kind: &Kind) -> Result<Resource> {
    let crd = serde_json::to_value(&kind.crd).context("CRD to JSON")?;
    let root = schema::root(&crd);
    let names = &kind.crd.spec.names;
    let versions = &kind.crd.spec.versions;
    let version = versions.iter().find(|version| version.storage).context("no version is stored")?;
    let at = |fields: &[&str]| Gauge { path: path(fields), ..Gauge::default() };
    let labels = |pairs: &[(&str, &[&str])]| -> Labels {
        pairs.iter().map(|(label, fields)| ((*label).to_owned(), path(fields))).collect()
    };
    let condition = Gauge {
        value_from: path(&["status"]),
        labels_from_path: labels(&[("type", &["type"]), ("reason", &["reason"])]),
        ..at(&["status", "conditions"])
    };
    let mut metrics = vec![
        gauge("created", "Unix time of the creation", at(&["metadata", "creationTimestamp"])),
        gauge("metadata_generation", "Generation of the spec", at(&["metadata", "generation"])),
    ];
    if kind.has_status() {
        metrics.push(gauge(
            "status_observed_generation",
            "Generation that the status was computed for",
            at(&["status", "observedGeneration"]),
        ));
        metrics.push(gauge(
            "status_condition",
            "Conditions with their reasons: 1 for True, else 0",
            condition,
        ));
    }
    let mut words = Labels::new();
    for column in version.additional_printer_columns.iter().flatten() {
        // The conditions have all of theirs above.
        let Some(fields) = simple(&column.json_path) else { continue };
        if fields[0] == "metadata" {
            continue;
        }
        let help = column.description.as_deref().unwrap_or_default().trim_end_matches('.');
        let name = fields.iter().map(|field| snake(field)).collect::<Vec<_>>().join("_");
        let field = at(&fields);
        match column.type_.as_str() {
            // A count that is left out is none.
            "integer" => metrics.push(gauge(&name, help, Gauge { nil_is_zero: true, ..field })),
            "date" => metrics.push(gauge(&name, help, field)),
            "string" if is_bounded(find(&root, &field.path)) => {
                let label = fields.last().map(|field| snake(field)).unwrap_or_default();
                words.insert(label, field.path);
            }
            // Words of any kind would be labels without bound.
            "string" | "boolean" => {}
            other => bail!("{}: printer column {} is {other}", names.kind, column.name),
        }
    }
    if !words.is_empty() {
        let help = "Words of the spec and of the status, as labels; always 1".to_owned();
        let each = Each::Info { info: Info { labels_from_path: words } };
        metrics.push(Metric { name: "info".to_owned(), help, each });
    }
    Ok(Resource {
        group_version_kind: GroupVersionKind {
            group: kind.crd.spec.group.clone(),
            version: version.name.clone(),
            kind: names.kind.clone(),
        },
        metric_name_prefix: format!("springtide_{}", names.kind.to_lowercase()),
        labels_from_path: labels(&[
            ("name", &["metadata", "name"]),
            ("namespace", &["metadata", "namespace"]),
        ]),
        metrics,
    })
}

/// The fields of a JSON path without filters.
fn simple(json_path: &str) -> Option<Vec<&str>> {
    let fields: Vec<&str> = json_path.strip_prefix('.')?.split('.').collect();
    let is_name = |field: &&str| field.bytes().all(|byte| byte.is_ascii_alphanumeric()) && !field.is_empty();
    fields.iter().all(is_name).then_some(fields)
}

fn snake(field: &str) -> String {
    let mut snake = String::new();
    for char in field.chars() {
        if char.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(char.to_ascii_lowercase());
    }
    snake
}

/// The schema of the field; of a list that of its items.
fn find<'a>(root: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(root, |schema, field| {
        let schema = if schema["items"].is_object() { &schema["items"] } else { schema };
        schema["properties"].get(field)
    })
}

/// The field of the metadata that a path leads to.
fn of_metadata(path: &[String]) -> Option<&str> {
    match path {
        [metadata, field] if metadata == "metadata" => Some(field),
        _ => None,
    }
}

/// Whether a field has one of a few values.
fn is_bounded(schema: Option<&Value>) -> bool {
    schema.is_some_and(|schema| schema["enum"].is_array() || schema["type"] == "boolean")
}

/// Fields that no object of the kind has, labels without bound, and names that the manager's metrics bear.
pub(super) fn findings(kinds: &[Kind], text: &str, of_manager: &[&str]) -> Result<Vec<Finding>> {
    let configuration: Configuration = serde_yaml::from_str(text).with_context(|| format!("read {FILE}"))?;
    let mut findings = Vec::new();
    for resource in &configuration.spec.resources {
        let name = &resource.group_version_kind.kind;
        let kind = kinds.iter().find(|kind| kind.crd.spec.names.kind == *name);
        let kind = kind.with_context(|| format!("{FILE} has the kind {name}, which is none of ours"))?;
        let crd = serde_json::to_value(&kind.crd).context("CRD to JSON")?;
        let root = schema::root(&crd);
        for metric in &resource.metrics {
            let full = format!("{}_{}", resource.metric_name_prefix, metric.name);
            let problems = problems(&root, resource, metric);
            let taken = of_manager.contains(&full.as_str()).then(|| "is a metric of the manager".to_owned());
            findings.extend(problems.into_iter().chain(taken).map(|problem| Finding {
                lint: "kube-state-metrics",
                at: full.clone(),
                problem,
            }));
        }
    }
    for kind in kinds {
        let name = &kind.crd.spec.names.kind;
        if !configuration.spec.resources.iter().any(|resource| resource.group_version_kind.kind == *name) {
            let problem = "has no metrics of its kind".to_owned();
            findings.push(Finding { lint: "kube-state-metrics", at: name.clone(), problem });
        }
    }
    Ok(findings)
}

fn problems(root: &Value, resource: &Resource, metric: &Metric) -> Vec<String> {
    let mut problems = Vec::new();
    let exists = |path: &[String]| match of_metadata(path) {
        Some(field) => METADATA.contains(&field),
        None => !path.is_empty() && find(root, path).is_some(),
    };
    let joined = |base: &[String], path: &[String]| [base, path].concat();
    let (base, labels, value): (&[String], _, Option<Path>) = match &metric.each {
        Each::Gauge { gauge } => {
            (&gauge.path, &gauge.labels_from_path, Some(joined(&gauge.path, &gauge.value_from)))
        }
        Each::Info { info } => (&[], &info.labels_from_path, None),
    };
    if let Some(value) = value.filter(|value| !exists(value)) {
        problems.push(format!("no object has the field {}", value.join(".")));
    }
    let common = resource.labels_from_path.iter().map(|(label, path)| (label, path.clone()));
    for (label, path) in common.chain(labels.iter().map(|(label, path)| (label, joined(base, path)))) {
        if !exists(&path) {
            problems.push(format!("label {label}: no object has the field {}", path.join(".")));
        }
        let is_identity =
            of_metadata(&path).is_some_and(|field| field == label.as_str() && IDENTITY.contains(&field));
        let is_condition = base.last().is_some_and(|field| field == "conditions")
            && OF_CONDITIONS.iter().any(|field| path.last().is_some_and(|last| last == field));
        if !is_identity && !is_condition && !is_bounded(find(root, &path)) {
            problems.push(format!("label {label} has no bounded set of values"));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        let found = findings(&springtide_crds::all(), text, &["springtide_batchjob_created"]).unwrap();
        found.into_iter().map(|finding| format!("{}: {}", finding.at, finding.problem)).collect()
    }

    /// The generated text with one thing changed.
    fn with(from: &str, to: &str) -> String {
        let text = text(&springtide_crds::all()).unwrap();
        assert!(text.contains(from), "{from} is not in\n{text}");
        text.replace(from, to)
    }

    #[test]
    fn a_field_that_is_not_there_and_a_label_without_bound_are_found() {
        let taken = "springtide_batchjob_created: is a metric of the manager";
        assert_eq!(found(&with("succeeded", "succeeded")), [taken], "of the rest nothing");
        for (from, to, problem) in [
            (
                "- active\n",
                "- actives\n",
                "springtide_batchjob_status_active: no object has the field status.actives",
            ),
            (
                "- observedGeneration\n",
                "- generation\n",
                "springtide_batchjob_status_observed_generation: no object has the field status.generation",
            ),
            (
                "- tier\n",
                "- tiers\n",
                "springtide_batchjob_info: label tier: no object has the field spec.tiers",
            ),
            (
                "- reason\n",
                "- message\n",
                "springtide_batchjob_status_condition: label reason has no bounded set of values",
            ),
            (
                "- spec\n            - tier\n",
                "- metadata\n            - name\n",
                "springtide_batchjob_info: label tier has no bounded set of values",
            ),
            (
                "- creationTimestamp\n",
                "- deletionTimestamp\n",
                "springtide_batchjob_created: no object has the field metadata.deletionTimestamp",
            ),
        ] {
            let found = found(&with(from, to));
            assert!(found.iter().any(|found| found == problem), "{to}: {found:?}");
        }
        let none = "kind: CustomResourceStateMetrics\nspec: {resources: []}";
        let kinds = springtide_crds::all();
        let missing: Vec<_> = kinds
            .iter()
            .map(|kind| format!("{}: has no metrics of its kind", kind.crd.spec.names.kind))
            .collect();
        assert_eq!(found(none), missing);
    }

    #[test]
    fn what_kube_state_metrics_does_not_know_is_no_configuration() {
        let text = with("labelsFromPath", "labelFromPath");
        assert!(findings(&springtide_crds::all(), &text, &[]).is_err());
    }

    #[test]
    fn of_each_kind_there_are_its_conditions_and_its_columns() {
        let kinds = springtide_crds::all();
        let text = text(&kinds).unwrap();
        let configuration: Configuration = serde_yaml::from_str(&text).unwrap();
        assert_eq!(configuration.kind, "CustomResourceStateMetrics");
        let job = &configuration.spec.resources[0];
        assert_eq!(job.metric_name_prefix, "springtide_batchjob");
        let names: Vec<&str> = job.metrics.iter().map(|metric| metric.name.as_str()).collect();
        let expected = [
            "created",
            "metadata_generation",
            "status_observed_generation",
            "status_condition",
            "status_succeeded",
            "spec_completions",
            "status_active",
            "status_failed",
            "info",
        ];
        assert_eq!(names, expected);
        let Each::Info { info } = &job.metrics[8].each else { panic!("{:?}", job.metrics[8]) };
        assert_eq!(info.labels_from_path, Labels::from([("tier".to_owned(), path(&["spec", "tier"]))]));
        // A job that has not started has no counts yet, and they are none.
        for metric in &job.metrics[4..8] {
            let Each::Gauge { gauge } = &metric.each else { panic!("{metric:?}") };
            assert!(gauge.nil_is_zero, "{metric:?}");
        }
    }

    #[test]
    fn only_paths_without_filters_are_fields() {
        assert_eq!(simple(".status.succeeded"), Some(vec!["status", "succeeded"]));
        assert_eq!(simple(".status.conditions[?(@.type==\"Complete\")].reason"), None);
        assert_eq!(snake("observedGeneration"), "observed_generation");
    }

    #[test]
    fn the_page_names_each_kind_with_its_metrics_and_among_the_rights() {
        let page = crate::repository_root().join("docs/operate/observability.md");
        let page = std::fs::read_to_string(page).unwrap();
        let names: Vec<_> = springtide_crds::all().into_iter().map(|kind| kind.crd.spec.names).collect();
        for name in &names {
            let prefix = format!("`springtide_{}_created`", name.kind.to_lowercase());
            assert!(page.contains(&prefix), "no {prefix}");
        }
        let plurals: Vec<_> = names.iter().map(|name| name.plural.as_str()).collect();
        let rights = format!("resources: [{}], verbs: [list, watch]", plurals.join(", "));
        assert!(page.contains(&rights), "no {rights}");
    }
}
