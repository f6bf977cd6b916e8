//! Metrics, dashboards, alerts and runbooks, held against each other.

mod alerts;
mod catalogue;
mod dashboards;
mod expressions;
mod kube_state_metrics;
mod reference;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use springtide_crds::Kind;

use crate::check::Finding;

/// The generated files, by path from the repository's root.
pub(crate) fn files(root: &Path, kinds: &[Kind]) -> Result<BTreeMap<PathBuf, String>> {
    let mut files = dashboards::files()?;
    files.insert(PathBuf::from(kube_state_metrics::FILE), kube_state_metrics::text(kinds)?);
    files.insert(PathBuf::from("docs/reference/metrics.md"), reference::metrics(&catalogue::families()?)?);
    files.insert(PathBuf::from("docs/reference/alerts.md"), reference::alerts(&alerts::rules(root)?)?);
    Ok(files)
}

/// What is wrong with the metrics themselves, and with what is built on them.
pub(crate) fn findings(root: &Path, kinds: &[Kind]) -> Result<Vec<Finding>> {
    let families = catalogue::families()?;
    let known = expressions::Known::new(&families);
    let rules = alerts::rules(root)?;
    let mut findings = catalogue::findings(&families);
    findings.extend(dashboards::findings(&known));
    findings.extend(alerts::findings(root, &rules, &known)?);
    let of_manager: Vec<&str> = families.iter().map(|family| family.name.as_str()).collect();
    let states = kube_state_metrics::text(kinds)?;
    findings.extend(kube_state_metrics::findings(kinds, &states, &of_manager)?);
    Ok(findings)
}
