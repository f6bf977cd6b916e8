//! The Grafana dashboards.

mod panels;
mod time_shares;
mod upgrades;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Value, json};

use super::expressions::Known;
use crate::check::Finding;
use crate::generate::MARK;

/// Where they are, from the repository's root.
const FOLDER: &str = "charts/springtide/files/dashboards";
/// Width of Grafana's grid.
const GRID: u32 = 24;
/// Height of a panel, in cells of the grid.
const HEIGHT: u32 = 8;

struct Dashboard {
    /// File name and `uid`.
    name: &'static str,
    title: &'static str,
    rows: &'static [Row],
}

struct Row {
    title: &'static str,
    panels: &'static [Panel],
}

struct Panel {
    title: &'static str,
    /// What a reader should know to judge it.
    description: &'static str,
    /// Unit, as Grafana calls it.
    unit: &'static str,
    /// Expressions, each with its legend.
    targets: &'static [(&'static str, &'static str)],
}

const DASHBOARDS: [Dashboard; 4] = [
    Dashboard { name: "springtide-suite", title: "Springtide / Suite", rows: panels::SUITE },
    Dashboard { name: "springtide-work", title: "Springtide / Work", rows: panels::WORK },
    Dashboard { name: "springtide-upgrades", title: "Springtide / Upgrades", rows: upgrades::UPGRADES },
    Dashboard {
        name: "springtide-time-sharing",
        title: "Springtide / Time sharing",
        rows: time_shares::TIME_SHARES,
    },
];

/// The files, by path from the repository's root.
pub(super) fn files() -> Result<BTreeMap<PathBuf, String>> {
    DASHBOARDS
        .iter()
        .map(|dashboard| {
            let text = serde_json::to_string_pretty(&json(dashboard))?;
            // JSON has no comments, and the first line is to say what the file is.
            let text = text.replacen('{', &format!("{{ \"description\": \"{MARK}; edits are lost.\","), 1);
            Ok((Path::new(FOLDER).join(format!("{}.json", dashboard.name)), text + "\n"))
        })
        .collect()
}

/// Expressions that select what does not exist.
pub(super) fn findings(known: &Known<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for dashboard in &DASHBOARDS {
        for panel in dashboard.rows.iter().flat_map(|row| row.panels) {
            for problem in panel.targets.iter().flat_map(|(expression, _)| known.problems(expression)) {
                let at = format!("{} {}", dashboard.name, panel.title);
                findings.push(Finding { lint: "dashboards", at, problem });
            }
        }
    }
    findings
}

fn json(dashboard: &Dashboard) -> Value {
    let (mut panels, mut y, mut id) = (Vec::new(), 0, 0);
    let mut next = || {
        id += 1;
        id
    };
    for row in dashboard.rows {
        panels.push(json!({
            "id": next(), "type": "row", "title": row.title, "collapsed": false, "panels": [],
            "gridPos": {"h": 1, "w": GRID, "x": 0, "y": y},
        }));
        y += 1;
        let columns = if row.panels.len() % 3 == 0 { 3 } else { 2 };
        let width = GRID / columns;
        let mut x = 0;
        for panel in row.panels {
            panels.push(panel_json(panel, next(), json!({"h": HEIGHT, "w": width, "x": x, "y": y})));
            x += width;
            if x == GRID {
                (x, y) = (0, y + HEIGHT);
            }
        }
        if x > 0 {
            y += HEIGHT;
        }
    }
    let query = "label_values(springtide_keys_in_backoff, job)";
    json!({
        "uid": dashboard.name,
        "title": dashboard.title,
        "tags": ["springtide"],
        "schemaVersion": 39,
        "editable": true,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "",
        "annotations": {"list": []},
        "templating": {"list": [
            {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
            {
                "name": "job", "label": "Job", "type": "query", "datasource": data_source(),
                "definition": query, "query": {"query": query, "refId": "jobs"},
                "refresh": 2, "includeAll": true, "multi": true, "sort": 1,
                "current": {"text": ["All"], "value": ["$__all"]},
            },
        ]},
        "panels": panels,
    })
}

/// The data source that the reader chooses.
fn data_source() -> Value {
    json!({"type": "prometheus", "uid": "${datasource}"})
}

fn panel_json(panel: &Panel, id: u32, place: Value) -> Value {
    let targets: Vec<Value> = panel
        .targets
        .iter()
        .zip('A'..)
        .map(|((expression, legend), letter)| {
            json!({
                "refId": letter.to_string(), "expr": expression, "legendFormat": legend,
                "datasource": data_source(), "range": true,
            })
        })
        .collect();
    json!({
        "id": id, "type": "timeseries", "title": panel.title, "description": panel.description,
        "gridPos": place, "datasource": data_source(), "targets": targets,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": true},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitoring::catalogue::families;

    #[test]
    fn each_dashboard_is_json_that_grafana_can_lay_out() {
        for (path, text) in files().unwrap() {
            let dashboard: Value = serde_json::from_str(&text).unwrap();
            assert!(text.lines().next().unwrap().contains(MARK), "{}", path.display());
            let panels = dashboard["panels"].as_array().unwrap();
            assert!(panels.len() > 8, "{}", path.display());
            let mut cells = std::collections::HashSet::new();
            let mut ids = std::collections::HashSet::new();
            for panel in panels {
                assert!(ids.insert(panel["id"].as_u64().unwrap()));
                let place = |field: &str| panel["gridPos"][field].as_u64().unwrap();
                for x in place("x")..place("x") + place("w") {
                    for y in place("y")..place("y") + place("h") {
                        assert!(x < GRID.into() && cells.insert((x, y)), "{} overlaps", panel["title"]);
                    }
                }
            }
        }
    }

    #[test]
    fn every_family_of_our_own_is_on_a_dashboard() {
        let shown: String = files().unwrap().into_values().collect();
        let families = families().unwrap();
        let hidden: Vec<_> = families
            .iter()
            .map(|family| family.name.as_str())
            .filter(|name| name.starts_with("springtide_") && !shown.contains(name))
            .collect();
        assert_eq!(hidden, NOT_SHOWN);
    }

    /// Families whose figures are in an alert, or too rarely of interest for a panel.
    const NOT_SHOWN: [&str; 8] = [
        "springtide_brake_engaged",
        "springtide_over_maximum",
        "springtide_stale_skips_total",
        "springtide_store_synced",
        "springtide_watch_events_total",
        "springtide_watch_rv_regressions_total",
        "springtide_watch_spec_changes_total",
        "springtide_watch_unreadable_total",
    ];
}
