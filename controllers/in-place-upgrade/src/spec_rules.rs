//! What of a spec no schema can check.

use crate::message::quoting;
use springtide_crds::common::{IntOrPercent, bounded_text};
use springtide_crds::in_place_upgrade::{InPlaceUpgradeSpec, Inline, MESSAGE_MAX_BYTES};
use springtide_plumbing::quantity::parse_amount;
use springtide_plumbing::window::Schedule;
use springtide_plumbing::workloads::content::POD_TEMPLATE_HASH;
use springtide_plumbing::workloads::image_name::ImageName;
use springtide_plumbing::workloads::names::CONTROLLER_REVISION_HASH;
use std::collections::BTreeSet;

/// Of a longer problem the end is cut, so that something is left of the field's name.
const PROBLEM_MAX_BYTES: usize = MESSAGE_MAX_BYTES / 3 * 2;

/// Labels that the controllers of workloads give to pods, and know them by.
const OF_CONTROLLERS: [&str; 5] = [
    POD_TEMPLATE_HASH,
    CONTROLLER_REVISION_HASH,
    "pod-template-generation",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
];

/// A window in which no pod starts.
#[derive(Clone, Debug)]
pub struct Freeze {
    /// Its name.
    pub name: String,
    /// When it is open.
    pub schedule: Schedule,
}

/// What is wrong with a spec, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("spec.{field}: {problem}")]
pub struct InvalidSpec {
    /// The field, as a path below `spec`.
    pub field: String,
    /// What is wrong and what helps.
    pub problem: String,
}

impl InvalidSpec {
    fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }

    /// The same as the message of a condition: of a long one the field's name is cut first.
    pub fn message(&self) -> String {
        let problem = bounded_text(&self.problem, PROBLEM_MAX_BYTES);
        quoting("spec.", &self.field, &format!(": {problem}"))
    }
}

/// Checks a spec, and returns its windows. `refuses` says why an address may not be asked, if it may not.
///
/// # Errors
/// The first field that cannot be used.
pub fn check(
    spec: &InPlaceUpgradeSpec,
    refuses: impl Fn(&str) -> Option<String>,
) -> Result<Vec<Freeze>, InvalidSpec> {
    steps_rise(spec)?;
    if let Some(inline) = &spec.source.inline {
        inline_is_valid(inline)?;
    }
    for metric in &spec.health.metrics {
        if let Some(problem) = refuses(&metric.prometheus.address) {
            let field = format!("health.metrics[{}].prometheus.address", metric.name);
            return Err(InvalidSpec::new(field, problem));
        }
        let bounds = [("failureAbove", &metric.failure_above), ("failureBelow", &metric.failure_below)];
        for (name, bound) in bounds {
            if bound.as_ref().is_some_and(|bound| bound.value().is_none()) {
                let field = format!("health.metrics[{}].{name}", metric.name);
                return Err(InvalidSpec::new(field, "it is no decimal number: write it like \"0.01\""));
            }
        }
    }
    let windows = spec.freeze_windows.iter().map(|window| match Schedule::parse(&window.window) {
        Ok(schedule) => Ok(Freeze { name: window.name.clone(), schedule }),
        Err(error) => {
            Err(InvalidSpec::new(format!("freezeWindows[{}].window", window.name), error.to_string()))
        }
    });
    windows.collect()
}

/// Numbers and parts cannot be compared before the pods are counted: the planner takes the larger one then.
fn steps_rise(spec: &InPlaceUpgradeSpec) -> Result<(), InvalidSpec> {
    let (mut number, mut part) = (None, None);
    for (index, step) in spec.strategy.steps.iter().enumerate() {
        let (last, value) = match step.replicas {
            IntOrPercent::Int(value) => (&mut number, value),
            IntOrPercent::Percent(value) => (&mut part, value),
        };
        let field = || format!("strategy.steps[{index}].replicas");
        if value == 0 {
            return Err(InvalidSpec::new(field(), "it is zero, and a step changes at least one pod"));
        }
        if last.is_some_and(|last| last >= value) {
            return Err(InvalidSpec::new(
                field(),
                "steps are cumulative: make it larger than the one before, or take the step out",
            ));
        }
        *last = Some(value);
    }
    Ok(())
}

fn inline_is_valid(inline: &Inline) -> Result<(), InvalidSpec> {
    let mut names = BTreeSet::new();
    for container in &inline.containers {
        let field = format!("source.inline.containers[{}]", container.name);
        if !names.insert(&container.name) {
            return Err(InvalidSpec::new(field, "the container is named twice: keep one of them"));
        }
        if let Some(Err(error)) = container.image.as_deref().map(ImageName::parse) {
            return Err(InvalidSpec::new(format!("{field}.image"), error.to_string()));
        }
        let Some(resources) = &container.resources else { continue };
        for (list, amounts) in [("requests", &resources.requests), ("limits", &resources.limits)] {
            let Some(amounts) = amounts else { continue };
            for (name, amount) in [("cpu", &amounts.cpu), ("memory", &amounts.memory)] {
                if amount.as_ref().is_some_and(|amount| parse_amount(name, amount.as_str()).is_none()) {
                    let field = format!("{field}.resources.{list}.{name}");
                    return Err(InvalidSpec::new(
                        field,
                        "it is no quantity from 0 on: write it like \"500m\" or \"2Gi\"",
                    ));
                }
            }
        }
    }
    let Some(metadata) = &inline.metadata else { return Ok(()) };
    for (list, entries) in [("labels", &metadata.labels), ("annotations", &metadata.annotations)] {
        for (key, value) in entries {
            let field = || format!("source.inline.metadata.{list}[{key}]");
            if !is_qualified_name(key) {
                return Err(InvalidSpec::new(field(), "the key is no qualified name: [<DNS name>/]<name>"));
            }
            if key.split_once('/').is_some_and(|(prefix, _)| prefix == springtide_crds::common::GROUP) {
                return Err(InvalidSpec::new(
                    field(),
                    "keys of springtide.dev are the controllers' own: take it out",
                ));
            }
            if list == "labels" && OF_CONTROLLERS.contains(&key.as_str()) {
                return Err(InvalidSpec::new(
                    field(),
                    "the workload's own controller knows its pods by it: take it out",
                ));
            }
            if list == "labels" && !value.is_empty() && !is_name(value) {
                return Err(InvalidSpec::new(
                    field(),
                    "a label's value is at most 63 of letters, digits, `-`, `_` and `.`",
                ));
            }
        }
    }
    Ok(())
}

/// A key of labels and annotations, as apimachinery's `IsQualifiedName` has it.
fn is_qualified_name(key: &str) -> bool {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let is_label = |label: &str| {
        let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty() && label.bytes().all(is_inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    prefix.is_none_or(|prefix| prefix.len() <= 253 && prefix.split('.').all(is_label)) && is_name(name)
}

fn is_name(name: &str) -> bool {
    let is_end = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    bytes.len() <= 63
        && is_end(bytes.first())
        && is_end(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn problem(over: Value) -> Option<String> {
        let mut spec = json!({"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}});
        crate::fixtures::overlay(&mut spec, over);
        let refuses = |address: &str| (!address.contains("allowed")).then(|| "not on the list".to_owned());
        check(&serde_json::from_value(spec).unwrap(), refuses).err().map(|error| error.to_string())
    }

    fn inline(inline: Value) -> Value {
        json!({"source": {"type": "Inline", "inline": inline}})
    }

    #[test]
    fn a_spec_of_all_fields_passes() {
        let spec = json!({
            "strategy": {"steps": [{"replicas": 1}, {"replicas": "10%"}, {"replicas": 50}, {"replicas": "100%"}]},
            "source": {"type": "Inline", "inline": {
                "containers": [{"name": "app", "image": "reg.example/app:v2", "resources": {"requests": {"cpu": "500m"}}}],
                "metadata": {"labels": {"example.com/tier": "a.b", "empty": ""}, "annotations": {"a": "any thing"}},
            }},
            "health": {"metrics": [
                {"name": "errors", "prometheus": {"address": "http://allowed", "query": "x"}, "failureAbove": "0.1"},
            ]},
            "freezeWindows": [{"name": "day", "window": {"start": "08:00", "end": "20:00", "timeZone": "Asia/Shanghai"}}],
        });
        assert_eq!(problem(spec), None);
    }

    #[test]
    fn what_no_schema_can_check_is_refused_and_the_field_is_named() {
        let steps = |steps: Value| json!({"strategy": {"steps": steps}});
        let window = |window: Value| json!({"freezeWindows": [{"name": "w", "window": window}]});
        let metric = |over: Value| {
            let mut metric = json!({"name": "m", "prometheus": {"address": "http://allowed", "query": "x"}});
            crate::fixtures::overlay(&mut metric, over);
            json!({"health": {"metrics": [metric]}})
        };
        for (spec, field) in [
            (
                steps(json!([{"replicas": "50%"}, {"replicas": "50%"}, {"replicas": "100%"}])),
                "strategy.steps[1].replicas",
            ),
            (
                steps(json!([{"replicas": 5}, {"replicas": "50%"}, {"replicas": 4}])),
                "strategy.steps[2].replicas",
            ),
            (steps(json!([{"replicas": 0}, {"replicas": "100%"}])), "strategy.steps[0].replicas"),
            (
                inline(json!({"containers": [{"name": "app", "image": "App:1"}]})),
                "source.inline.containers[app].image",
            ),
            (
                inline(json!({"containers": [{"name": "app", "resources": {"limits": {"cpu": "-1"}}}]})),
                "source.inline.containers[app].resources.limits.cpu",
            ),
            (inline(json!({"metadata": {"labels": {"a": "b c"}}})), "source.inline.metadata.labels[a]"),
            (
                inline(json!({"metadata": {"annotations": {"-a": "b"}}})),
                "source.inline.metadata.annotations[-a]",
            ),
            (
                inline(json!({"metadata": {"labels": {"springtide.dev/upgrade-serving": "false"}}})),
                "source.inline.metadata.labels[springtide.dev/upgrade-serving]",
            ),
            (
                inline(json!({"metadata": {"labels": {"pod-template-hash": "x"}}})),
                "source.inline.metadata.labels[pod-template-hash]",
            ),
            (
                window(json!({"start": "08:00", "end": "20:00", "timeZone": "Mars/Base"})),
                "freezeWindows[w].window",
            ),
            (
                metric(json!({"prometheus": {"address": "http://other"}})),
                "health.metrics[m].prometheus.address",
            ),
            (metric(json!({"failureBelow": "many"})), "health.metrics[m].failureBelow"),
            (metric(json!({"failureAbove": "1%"})), "health.metrics[m].failureAbove"),
            (
                inline(
                    json!({"containers": [{"name": "app", "image": "a:1"}, {"name": "app", "image": "a:2"}]}),
                ),
                "source.inline.containers[app]",
            ),
            (
                inline(
                    json!({"containers": [{"name": "app", "resources": {"requests": {"memory": "1Zi"}}}]}),
                ),
                "source.inline.containers[app].resources.requests.memory",
            ),
            (inline(json!({"metadata": {"labels": {"a/b/c": "d"}}})), "source.inline.metadata.labels[a/b/c]"),
            (window(json!({"start": "24:00", "end": "20:00", "timeZone": "UTC"})), "freezeWindows[w].window"),
            (
                window(json!({"cron": "0 0 31 2 *", "durationSeconds": 60, "timeZone": "UTC"})),
                "freezeWindows[w].window",
            ),
        ] {
            let found = problem(spec).unwrap_or_default();
            assert!(found.starts_with(&format!("spec.{field}: ")), "{field}: {found:?}");
        }
    }

    #[test]
    fn a_message_says_what_is_wrong_and_what_helps_however_long_the_name_of_the_field_is() {
        let long = format!("example.com/{}", "x".repeat(300));
        let spec = inline(json!({"metadata": {"labels": {long: "v"}}}));
        let mut whole = json!({"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}});
        crate::fixtures::overlay(&mut whole, spec);
        let invalid = check(&serde_json::from_value(whole).unwrap(), |_| None).unwrap_err();
        let message = invalid.message();
        assert!(message.starts_with("spec.source.inline.metadata.labels[example.com/"), "{message}");
        assert!(message.ends_with("the key is no qualified name: [<DNS name>/]<name>"), "{message}");
        assert!(message.len() <= MESSAGE_MAX_BYTES, "{message}");
        let wordy = InvalidSpec::new("freezeWindows[w].window", "cron ".repeat(200));
        assert!(wordy.message().starts_with("spec.freezeWindows[w].window: cron"), "{}", wordy.message());
    }
}
