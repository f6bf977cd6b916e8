//! The reference pages of metrics and alerts.

use std::fmt::Write as _;

use anyhow::Result;
use springtide_plumbing::metrics::catalogue::Family;

use super::alerts::{Rule, Severity};
use crate::generate::MARK;

/// The sections of the page of metrics: prefix, title, what stands above the table. The first prefix that
/// matches has the metric.
const SECTIONS: [(&str, &str, &str); 9] = [
    (
        "controller_runtime_",
        "Reconcile passes",
        "Names and labels are those of controller-runtime, so dashboards and alerts written for it work.",
    ),
    ("workqueue_", "Work queue", "Named as client-go names them."),
    ("rest_client_", "Requests to the API server", "Named as client-go names them."),
    ("leader_election_", "Leader election", ""),
    ("process_", "Process", "As every Prometheus client shows them."),
    ("springtide_batch_", "BatchJob", ""),
    ("springtide_ipu_", "InPlaceUpgrade", ""),
    ("springtide_tsg_", "TimeShareGroup", ""),
    ("springtide_", "Suite", ""),
];

/// The page of metrics.
pub(super) fn metrics(families: &[Family]) -> Result<String> {
    let mut page = format!(
        "<!-- {MARK}; edits are lost. -->\n# Metrics\n\n\
         The manager shows these at `/metrics`, in the OpenMetrics text format. All start at zero where their\n\
         labels are known beforehand. Of a histogram, the name is followed by `_bucket`, `_sum` and `_count`.\n"
    );
    for (prefix, title, text) in SECTIONS {
        writeln!(page, "\n## {title}\n")?;
        if !text.is_empty() {
            writeln!(page, "{text}\n")?;
        }
        writeln!(page, "| metric | type | labels | meaning |\n|---|---|---|---|")?;
        for family in families.iter().filter(|family| section(&family.name) == Some(prefix)) {
            let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
            writeln!(
                page,
                "| `{}` | {} | {} | {} |",
                family.name,
                family.kind,
                labels.join(", "),
                family.help.replace('|', "\\|")
            )?;
        }
    }
    if let Some(family) = families.iter().find(|family| section(&family.name).is_none()) {
        anyhow::bail!("{} has no section in hack/xtask/src/monitoring/reference.rs", family.name);
    }
    Ok(page)
}

fn section(name: &str) -> Option<&'static str> {
    SECTIONS.iter().map(|(prefix, _, _)| *prefix).find(|prefix| name.starts_with(prefix))
}

/// The page of alerts.
pub(super) fn alerts(rules: &[Rule]) -> Result<String> {
    let mut page = format!(
        "<!-- {MARK}; edits are lost. -->\n# Alerts\n\n\
         Of the rule file that the chart installs. A critical alert is for now, a warning for working hours.\n\n\
         | alert | severity | for | fires when |\n|---|---|---|---|\n"
    );
    for rule in rules {
        let severity = match rule.labels.severity {
            Severity::Critical => "**critical**",
            Severity::Warning => "warning",
        };
        writeln!(
            page,
            "| [{0}](../operate/runbooks/{0}.md) | {severity} | {1} | `{2}` |",
            rule.alert,
            rule.hold.as_deref().unwrap_or("at once"),
            rule.expr.trim().replace('|', "\\|")
        )?;
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitoring::catalogue::families;

    #[test]
    fn every_registered_metric_stands_once_in_the_reference() {
        let families = families().unwrap();
        let page = metrics(&families).unwrap();
        for family in &families {
            let row = format!("| `{}` | {} |", family.name, family.kind);
            assert_eq!(page.matches(&row).count(), 1, "{row}");
        }
    }
}
