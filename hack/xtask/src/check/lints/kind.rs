//! Lints on the CRD around the schema.

use serde_json::Value;
use springtide_crds::{MAX_PER_CLUSTER, MAX_PER_NAMESPACE};

use super::{Problem, Subject};

/// The most a kind may declare, per namespace and per cluster: the load tests
/// run at these figures.
const CEILINGS: [(&str, u64, u64); 9] = [
    ("BatchJob", 1_500, 10_000),
    ("BatchQueue", 20, 500),
    ("BatchTaskProfile", 200, 2_000),
    ("InPlaceUpgrade", 500, 5_000),
    ("TimeShareGroup", 20, 200),
    ("ReferenceGrant", 100, 1_000),
    ("ElasticSite", 100, 1_000),
    ("SiteControlPlane", 100, 1_000),
    ("SiteReceipt", 500, 5_000),
];

/// Largest CRD: client-side apply stores it once more in an annotation, and
/// annotations stop at 256 KiB.
const MAX_CRD_BYTES: usize = 200_000;

fn problem(text: impl Into<String>) -> Vec<Problem> {
    vec![(String::new(), text.into())]
}

/// Every kind is namespaced.
pub(super) fn scope(subject: &Subject) -> Vec<Problem> {
    if subject.crd["spec"]["scope"] == "Namespaced" {
        return Vec::new();
    }
    problem("a cluster-scoped kind has no tenants and no quota; make it namespaced")
}

/// Every kind declares how many objects it is built for.
pub(super) fn maximum(subject: &Subject) -> Vec<Problem> {
    let kind = subject.crd["spec"]["names"]["kind"].as_str().unwrap_or_default();
    let Some((_, in_namespace, in_cluster)) = CEILINGS.iter().find(|(name, ..)| *name == kind) else {
        return problem("no ceiling is known for this kind; add one with a load test at that figure");
    };
    [(MAX_PER_NAMESPACE, in_namespace), (MAX_PER_CLUSTER, in_cluster)]
        .into_iter()
        .filter(|(annotation, ceiling)| {
            let declared = subject.crd["metadata"]["annotations"][annotation].as_str();
            let declared = declared.and_then(|text| text.parse::<u64>().ok());
            !declared.is_some_and(|declared| (1..=**ceiling).contains(&declared))
        })
        .flat_map(|(annotation, ceiling)| {
            problem(format!("annotation {annotation} must be within 1..={ceiling}"))
        })
        .collect()
}

/// One stored version with a required spec, and a status subresource where
/// there is a status; no conversion.
pub(super) fn subresource(subject: &Subject) -> Vec<Problem> {
    let mut problems = Vec::new();
    let versions = subject.crd["spec"]["versions"].as_array().cloned().unwrap_or_default();
    if versions.iter().filter(|version| version["storage"] == true).count() != 1 {
        problems.extend(problem("exactly one version must be the storage version"));
    }
    for version in &versions {
        match (version["subresources"]["status"].is_object(), subject.kind.has_status()) {
            (false, true) => problems.extend(problem("each version needs the status subresource")),
            (true, false) => {
                problems.extend(problem("without conditions a status says nothing; leave it out"))
            }
            (true, true) | (false, false) => {}
        }
    }
    let strategy = &subject.crd["spec"]["conversion"]["strategy"];
    if !strategy.is_null() && strategy != "None" {
        problems.extend(problem("conversion must be None: a webhook would be in the way of every read"));
    }
    let required = subject.root["required"].as_array();
    if !required.is_some_and(|names| names.iter().any(|name| name == "spec")) {
        problems.extend(problem("spec must be required"));
    }
    problems
}

/// Short name, category and printer columns: what nobody reports on has not much to show.
pub(super) fn polish(subject: &Subject) -> Vec<Problem> {
    let mut problems = Vec::new();
    let names = &subject.crd["spec"]["names"];
    if names["shortNames"].as_array().is_none_or(Vec::is_empty) {
        problems.extend(problem("a short name is missing"));
    }
    if names["categories"].as_array().is_none_or(|all| all.as_slice() != [Value::from("springtide")]) {
        problems.extend(problem("the only category must be springtide, never `all`"));
    }
    for version in subject.crd["spec"]["versions"].as_array().into_iter().flatten() {
        let columns = version["additionalPrinterColumns"].as_array().cloned().unwrap_or_default();
        let (age, others): (Vec<_>, Vec<_>) = columns.iter().partition(|column| column["type"] == "date");
        if (subject.kind.has_status() && others.len() < 4) || age.is_empty() {
            problems.extend(problem("at least 4 printer columns and the age are needed"));
        }
        for column in columns.iter().filter(|column| column["description"].is_null()) {
            problems.extend(problem(format!("printer column {} has no description", column["name"])));
        }
    }
    problems
}

/// The CRD fits into an annotation of itself.
pub(super) fn size(subject: &Subject) -> Vec<Problem> {
    let size = serde_json::to_string(&subject.crd).map_or(usize::MAX, |text| text.len());
    if size <= MAX_CRD_BYTES {
        return Vec::new();
    }
    problem(format!("{size} bytes, at most {MAX_CRD_BYTES}: declare less of embedded templates"))
}
