//! Values against the manager's configuration: what the one takes the other takes, and new pods come for what needs
//! them alone.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use springtide_e2e::helm::{Helm, checkout, objects};
use springtide_manager::config::{ManagerConfiguration, is_live};

use crate::table::CONTRADICTIONS;
use crate::{CHART, NAMESPACE, RELEASE, Rendered, keyed, rules};

/// The values that come to be the configuration file.
const SECTIONS: [&str; 5] = ["breaker", "controllers", "leaderElection", "logging", "writeBudget"];

/// What the chart renders with one value changed; what helm said where it refuses.
async fn with(helm: &Helm, path: &str, value: &Value) -> Result<Result<Rendered, String>> {
    let set = format!("--set-json={path}={value}");
    let output = helm.try_run(&["template", RELEASE, CHART, "--namespace", NAMESPACE, &set]).await?;
    if !output.status.success() {
        return Ok(Err(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    Ok(Ok(keyed(objects(&String::from_utf8(output.stdout)?)?)?))
}

/// The configuration file that says this and nothing else, as the manager judges it.
fn judged(text: &str) -> Result<(), String> {
    let text = format!("apiVersion: config.springtide.dev/v1alpha1\nkind: ManagerConfiguration\n{text}");
    let read = ManagerConfiguration::parse(&text).and_then(|read| read.check());
    read.map_err(|error| error.to_string())
}

/// Path and schema of each value that has none below it.
fn leaves(path: &str, schema: &Value, found: &mut Vec<(String, Value)>) {
    match schema["properties"].as_object() {
        Some(fields) => {
            fields.iter().for_each(|(name, field)| leaves(&format!("{path}.{name}"), field, found))
        }
        None => found.push((path.to_owned(), schema.clone())),
    }
}

fn configured() -> Result<Vec<(String, Value)>> {
    let text = std::fs::read_to_string(checkout(CHART).join("values.schema.json"))?;
    let schema: Value = serde_json::from_str(&text)?;
    let mut found = Vec::new();
    for section in SECTIONS {
        leaves(section, &schema["properties"][section], &mut found);
    }
    ensure!(found.len() > 20, "{found:?}");
    Ok(found)
}

/// Other values of a field than its default, the likelier ones first.
fn others(schema: &Value) -> Vec<Value> {
    let default = &schema["default"];
    let listed = schema["oneOf"].as_array().into_iter().flatten().map(|case| case["const"].clone());
    let near = |step: f64| default.as_f64().map(|default| default + step);
    let numbers = [near(1.0), near(-1.0)].into_iter().flatten();
    // The command line of helm and the manager tell integers from other numbers.
    let numbers = numbers.map(|number| json!(number as i64));
    let rest = match default {
        Value::Bool(default) => vec![json!(!default)],
        Value::String(_) if schema["oneOf"].is_null() => vec![json!("debug")],
        // All lists are of address ranges.
        Value::Array(_) => vec![json!(["192.0.2.0/24"])],
        Value::String(_) | Value::Number(_) | Value::Null | Value::Object(_) => Vec::new(),
    };
    listed.chain(numbers).chain(rest).filter(|value| value != default).collect()
}

/// The only controller cannot be disabled.
const FIXED: [&str; 1] = ["controllers.batchJob.enabled"];

#[tokio::test]
async fn new_pods_come_for_what_the_manager_does_not_read_anew_and_for_nothing_else() -> Result<()> {
    let helm = Helm::offline()?;
    let pods = |rendered: &Rendered| -> Result<Value> {
        let deployment = rendered.get("Deployment/springtide").context("no Deployment")?;
        Ok(deployment["spec"]["template"].clone())
    };
    let rendered = with(&helm, "replicas", &json!(3)).await?.map_err(anyhow::Error::msg)?;
    let default = pods(&rendered)?;
    for (path, schema) in configured()? {
        let mut changed = None;
        for other in others(&schema) {
            if let Ok(rendered) = with(&helm, &path, &other).await? {
                changed = Some((pods(&rendered)? != default, other));
                break;
            }
        }
        let Some((restarts, other)) = changed else {
            ensure!(FIXED.contains(&&*path), "no other value of {path} is taken");
            continue;
        };
        ensure!(restarts != is_live(&path), "{path}={other}: new pods {restarts}, live {}", is_live(&path));
    }
    Ok(())
}

#[tokio::test]
async fn the_chart_takes_and_refuses_what_the_manager_takes_and_refuses() -> Result<()> {
    let helm = Helm::offline()?;
    let mut refused = 0;
    for (path, schema) in configured()? {
        for bound in [&schema["minimum"], &schema["maximum"]] {
            let Some(number) = bound.as_f64() else { continue };
            // Within, and beyond.
            let step = if bound == &schema["minimum"] { -1.0 } else { 1.0 };
            let beyond = if number.fract() == 0.0 { json!((number + step) as i64) } else { json!(0) };
            for value in [bound.clone(), beyond] {
                let chart = with(&helm, &path, &value).await?;
                // What the values do not say has its default, so that the file does not lack it either.
                let mut manager = judged(&nested(&path, &value, &schema)?);
                if let Ok(rendered) = &chart {
                    manager = manager
                        .and(rules::configuration(rendered, RELEASE).map(drop).map_err(|e| format!("{e:#}")));
                }
                ensure!(
                    chart.is_ok() == manager.is_ok(),
                    "{path}={value}: {:?} but {manager:?}",
                    chart.err()
                );
                refused += u32::from(chart.is_err());
            }
        }
    }
    ensure!(refused > 20, "{refused}");
    Ok(())
}

/// The configuration file with one field; a bucket or a cap has to have both of its own.
fn nested(path: &str, value: &Value, schema: &Value) -> Result<String> {
    let mut names: Vec<&str> = path.split('.').collect();
    let last = names.pop().context("a path")?;
    let mut object = json!({ last: value });
    let beside: &[(&str, u32)] = match last {
        "rate" | "burst" => &[("rate", 1), ("burst", 1)],
        "floor" | "percent" => &[("floor", 1), ("percent", 1)],
        _ => &[],
    };
    for (name, other) in beside.iter().filter(|(name, _)| *name != last) {
        object[*name] = json!(other);
    }
    ensure!(!schema["default"].is_null(), "{path} has no default");
    for name in names.iter().rev() {
        object = json!({ *name: object });
    }
    Ok(serde_yaml::to_string(&object)?)
}

#[tokio::test]
async fn what_does_not_go_together_is_refused_before_a_pod_starts_in_the_words_of_the_manager() -> Result<()>
{
    let helm = Helm::offline()?;
    for (set, text) in CONTRADICTIONS {
        let words = judged(text).err().with_context(|| format!("the manager takes {text}"))?;
        let output = helm.try_run(&["template", RELEASE, CHART, "--namespace", NAMESPACE, set]).await?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success() && said.contains(&words), "{set}: {said}, not {words}");
    }
    Ok(())
}
