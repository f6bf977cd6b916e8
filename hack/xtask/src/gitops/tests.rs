//! The status contract, and what kstatus, Argo CD and Flux make of it, on statuses that the planner
//! writes.

use std::fs;

use cel::{Context, Program};
use mlua::serde::ser::Options as SerializeOptions;
use mlua::{Lua, LuaOptions, LuaSerdeExt, StdLib};
use serde::Deserialize;
use serde_json::{Value, json};
use springtide_crds::Kind;
use springtide_crds::batch_job::MESSAGE_MAX_BYTES;

use super::staged::{Situation, Staged};
use super::{FOLDER, hold_of_users, staged};

/// What a row of the contract asks of the conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    /// Status True.
    True,
    /// Status False, or Unknown.
    NotTrue,
    /// The condition is not there.
    Absent,
    /// The row does not say.
    Any,
}

/// The contract: of each situation the summary condition, Reconciling and Stalled, the verdicts of kstatus
/// and of Argo CD.
///
/// Work that goes on beside what needs a person is still Working: tools that wait are told of the trouble
/// when nothing runs any more. A status that is not of the present generation, or of an object that is
/// being deleted, says where the object was: its conditions are not looked at.
fn contract(situation: Situation) -> (Holds, Holds, Holds, &'static str, &'static str) {
    use Holds::{Absent, Any, NotTrue, True};
    match situation {
        Situation::NotYetSeen => (NotTrue, True, Absent, "InProgress", "Progressing"),
        Situation::Working => (NotTrue, True, Any, "InProgress", "Progressing"),
        Situation::Converged => (True, Absent, Absent, "Current", "Healthy"),
        Situation::NeedsPerson => (NotTrue, Absent, True, "Failed", "Degraded"),
        Situation::Held => (NotTrue, True, Absent, "InProgress", "Suspended"),
        Situation::AwaitsPerson => (NotTrue, Absent, Absent, "InProgress", "Suspended"),
        Situation::Waiting => (NotTrue, Absent, Absent, "InProgress", "Progressing"),
        Situation::Closed => (True, Absent, Absent, "Current", "Suspended"),
        Situation::Deleting => (Any, Any, Any, "Terminating", "Progressing"),
    }
}

fn kinds() -> Vec<(Kind, Vec<Staged>)> {
    let kinds = springtide_crds::all().into_iter().filter(Kind::has_status);
    kinds.map(|kind| (kind.clone(), staged(&kind).unwrap())).collect()
}

fn conditions(object: &Value) -> &[Value] {
    object["status"]["conditions"].as_array().map_or(&[], Vec::as_slice)
}

fn condition<'a>(object: &'a Value, type_: &str) -> Option<&'a Value> {
    conditions(object).iter().find(|condition| condition["type"] == type_)
}

fn holds(object: &Value, type_: &str) -> Holds {
    match condition(object, type_) {
        None => Holds::Absent,
        Some(condition) if condition["status"] == "True" => Holds::True,
        Some(_) => Holds::NotTrue,
    }
}

/// The summary condition of the kind.
fn summary(kind: &Kind) -> &'static str {
    if kind.reasons.iter().any(|row| row.condition == "Ready") { "Ready" } else { "Complete" }
}

#[test]
fn every_situation_has_the_conditions_of_its_row() {
    for (kind, staged) in kinds() {
        for situation in [
            Situation::NotYetSeen,
            Situation::Working,
            Situation::Converged,
            Situation::NeedsPerson,
            Situation::Deleting,
        ] {
            let is_possible = situation != Situation::Held || hold_of_users(&kind).is_some();
            let is_staged = staged.iter().any(|object| object.situation == situation);
            assert_eq!(is_staged, is_possible, "{situation:?}");
        }
        let is_stopped = |object: &Staged| matches!(object.situation, Situation::Held | Situation::Closed);
        assert!(hold_of_users(&kind).is_none() || staged.iter().any(is_stopped), "none is stopped");
        for Staged { name, situation, object } in &staged {
            let (ready, reconciling, stalled, ..) = contract(*situation);
            for (type_, expected) in
                [(summary(&kind), ready), ("Reconciling", reconciling), ("Stalled", stalled)]
            {
                let found = holds(object, type_);
                assert!(expected == Holds::Any || found == expected, "{name}: {type_} is {found:?}");
            }
        }
    }
}

#[test]
fn every_condition_has_its_generation_a_documented_reason_and_a_short_message() {
    for (kind, staged) in kinds() {
        for Staged { name, situation, object } in &staged {
            let generation = &object["metadata"]["generation"];
            let observed = &object["status"]["observedGeneration"];
            // Who has nothing to do for an object that is being deleted leaves its status as it is.
            let is_seen = *situation != Situation::NotYetSeen;
            assert!(observed == generation || !is_seen || *situation == Situation::Deleting, "{name}");
            assert!(observed != generation || is_seen, "{name}");
            assert!(!conditions(object).is_empty(), "{name}");
            for condition in conditions(object) {
                let text = |field: &str| condition[field].as_str().unwrap_or_default();
                let row = kind
                    .reasons
                    .iter()
                    .find(|row| row.condition == text("type") && row.reason == text("reason"));
                let row = row.unwrap_or_else(|| panic!("{name}: {condition} is not documented"));
                assert_eq!(text("status"), row.status.as_str(), "{name}: {condition}");
                assert_eq!(&condition["observedGeneration"], observed, "{name}: {condition}");
                assert!(text("message").len() <= MESSAGE_MAX_BYTES, "{name}: {condition}");
                let abnormal = ["Reconciling", "Stalled"].contains(&text("type"));
                assert!(!abnormal || text("status") == "True", "{name}: absent when normal: {condition}");
            }
        }
    }
}

#[test]
fn kubectl_wait_ends_for_what_has_converged_and_for_nothing_else() {
    for (kind, staged) in kinds() {
        for Staged { name, situation, object } in &staged {
            // As `kubectl wait --for=condition` decides.
            let generation = object["metadata"]["generation"].as_i64();
            let met = condition(object, summary(&kind)).is_some_and(|condition| {
                condition["status"] == "True" && condition["observedGeneration"].as_i64() >= generation
            });
            assert_eq!(met, matches!(situation, Situation::Converged | Situation::Closed), "{name}");
        }
    }
}

/// The verdict of kstatus on a kind that it does not know, by the rules of
/// sigs.k8s.io/cli-utils/pkg/kstatus: deletion, then the generation, then the first of Reconciling and
/// Stalled that is true, in the order of the list; then whether Ready is true, if there is one; then current.
fn kstatus(object: &Value) -> &'static str {
    if object["metadata"]["deletionTimestamp"].is_string() {
        return "Terminating";
    }
    let observed = &object["status"]["observedGeneration"];
    if observed.is_number() && *observed != object["metadata"]["generation"] {
        return "InProgress";
    }
    let mut raised = conditions(object).iter().filter(|condition| condition["status"] == "True");
    raised
        .find_map(|condition| match condition["type"].as_str() {
            Some("Reconciling") => Some("InProgress"),
            Some("Stalled") => Some("Failed"),
            Some(_) | None => None,
        })
        .unwrap_or(match holds(object, "Ready") {
            Holds::NotTrue => "InProgress",
            Holds::True | Holds::Absent | Holds::Any => "Current",
        })
}

#[test]
fn kstatus_comes_to_the_verdict_of_the_row() {
    for (_, staged) in kinds() {
        for Staged { name, situation, object } in &staged {
            assert_eq!(kstatus(object), contract(*situation).3, "{name}");
        }
    }
}

#[derive(Debug, Deserialize, PartialEq, Eq)]
struct Health {
    status: String,
    message: String,
}

/// Runs a health check or an action as Argo CD does: Lua 5.1 with the basic functions and those on tables, the object
/// in the global `obj`, and the verdict returned.
fn argo_cd<T: serde::de::DeserializeOwned>(script: &str, object: &Value) -> T {
    let lua = Lua::new_with(StdLib::TABLE, LuaOptions::default()).unwrap();
    let nulls = SerializeOptions::new().serialize_none_to_null(false).serialize_unit_to_null(false);
    lua.globals().set("obj", lua.to_value_with(object, nulls).unwrap()).unwrap();
    let verdict: mlua::Value = lua.load(script).eval().unwrap();
    lua.from_value(verdict).unwrap()
}

/// A list of tests, in Argo CD's own format.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HealthTests {
    tests: Vec<HealthTest>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct HealthTest {
    health_status: Health,
    input_path: String,
}

fn read(kind: &Kind, file: &str) -> String {
    let kind = kind.crd.spec.names.kind.to_lowercase();
    let path = crate::repository_root().join(FOLDER).join(kind).join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn argo_cd_comes_to_the_verdict_of_the_row() {
    for (kind, staged) in kinds() {
        let script = read(&kind, "health.lua");
        for Staged { name, situation, object } in &staged {
            let health: Health = argo_cd(&script, object);
            assert_eq!(health.status, contract(*situation).4, "{name}: {health:?}");
        }
        // An API server that knows no default of the status, and a client that dropped it.
        let mut bare = staged[0].object.clone();
        bare.as_object_mut().unwrap().remove("status");
        assert_eq!(argo_cd::<Health>(&script, &bare).status, "Progressing");
        bare["status"] = json!({});
        assert_eq!(argo_cd::<Health>(&script, &bare).status, "Progressing");
    }
}

#[test]
fn the_tests_of_the_health_check_pass_and_cover_every_staged_object() {
    for (kind, staged) in kinds() {
        let script = read(&kind, "health.lua");
        let HealthTests { tests } = serde_yaml::from_str(&read(&kind, "health_test.yaml")).unwrap();
        for test in &tests {
            let object: Value = serde_yaml::from_str(&read(&kind, &test.input_path)).unwrap();
            assert_eq!(argo_cd::<Health>(&script, &object), test.health_status, "{}", test.input_path);
        }
        let mut tested: Vec<&str> = tests.iter().map(|test| test.input_path.as_str()).collect();
        let mut files: Vec<String> =
            staged.iter().map(|staged| format!("testdata/{}.yaml", staged.name)).collect();
        tested.sort_unstable();
        files.sort_unstable();
        assert_eq!(tested, files);
        let verdicts: std::collections::BTreeSet<&str> =
            tests.iter().map(|test| test.health_status.status.as_str()).collect();
        let all = ["Degraded", "Healthy", "Progressing", "Suspended"];
        assert_eq!(Vec::from_iter(verdicts), all[..if hold_of_users(&kind).is_some() { 4 } else { 3 }]);
    }
}

/// Tests of the actions, in Argo CD's own format.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ActionTests {
    discovery_tests: Vec<DiscoveryTest>,
    action_tests: Vec<ActionTest>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DiscoveryTest {
    input_path: String,
    result: Vec<Offered>,
}

#[derive(Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
struct Offered {
    name: String,
    disabled: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ActionTest {
    action: String,
    input_path: String,
    expected_output_path: String,
}

/// What the configuration of Argo CD has for a kind.
#[derive(Deserialize)]
struct Actions {
    #[serde(rename = "discovery.lua")]
    discovery: String,
    definitions: Vec<Definition>,
}

#[derive(Deserialize)]
struct Definition {
    name: String,
    #[serde(rename = "action.lua")]
    action: String,
}

#[test]
fn the_tests_of_the_actions_pass_and_cover_every_staged_object() {
    #[derive(Deserialize)]
    struct Answer {
        disabled: bool,
    }
    let config = documents("argo-cd/health-checks.yaml").pop().unwrap();
    for (kind, staged) in kinds().into_iter().filter(|(kind, _)| hold_of_users(kind).is_some()) {
        let key =
            format!("resource.customizations.actions.{}_{}", kind.crd.spec.group, kind.crd.spec.names.kind);
        let actions: Actions = serde_yaml::from_str(config["data"][key].as_str().unwrap()).unwrap();
        let tests: ActionTests = serde_yaml::from_str(&read(&kind, "action_test.yaml")).unwrap();
        let object = |path: &str| -> Value { serde_yaml::from_str(&read(&kind, path)).unwrap() };
        for test in &tests.discovery_tests {
            let answers: std::collections::BTreeMap<String, Answer> =
                argo_cd(&actions.discovery, &object(&test.input_path));
            let offered: Vec<_> = answers
                .into_iter()
                .map(|(name, answer)| Offered { name, disabled: answer.disabled })
                .collect();
            assert_eq!(offered, test.result, "{}", test.input_path);
        }
        let mut discovered: Vec<_> =
            tests.discovery_tests.iter().map(|test| test.input_path.clone()).collect();
        let mut files: Vec<_> =
            staged.iter().map(|staged| format!("testdata/{}.yaml", staged.name)).collect();
        discovered.sort_unstable();
        files.sort_unstable();
        assert_eq!(discovered, files);
        let mut performed = Vec::new();
        for test in &tests.action_tests {
            let script =
                actions.definitions.iter().find(|definition| definition.name == test.action).unwrap();
            // Lua has no empty list beside the empty map: neither is compared.
            let mut done: Value = argo_cd(&script.action, &object(&test.input_path));
            let mut expected = object(&test.expected_output_path);
            without_empty(&mut done);
            without_empty(&mut expected);
            assert_eq!(done, expected, "{} of {}", test.action, test.input_path);
            performed.push(test.action.as_str());
        }
        assert_eq!(performed, super::ACTIONS);
    }
}

fn without_empty(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(without_empty);
            fields.retain(|_, field| {
                !field.as_object().is_some_and(serde_json::Map::is_empty)
                    && !field.as_array().is_some_and(Vec::is_empty)
                    && !field.is_null()
            });
        }
        Value::Array(items) => items.iter_mut().for_each(without_empty),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// One entry of `spec.healthCheckExprs` of a Flux Kustomization.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct HealthCheckExprs {
    api_version: String,
    kind: String,
    in_progress: String,
    failed: String,
    current: String,
}

/// The verdict of Flux (RFC 0009): the generation, then the expressions in this order.
fn flux(checks: &HealthCheckExprs, object: &Value) -> &'static str {
    if object["status"]["observedGeneration"] != object["metadata"]["generation"] {
        return "InProgress";
    }
    let mut context = Context::default();
    for (field, value) in object.as_object().unwrap() {
        context.add_variable(field.as_str(), value).unwrap();
    }
    let holds = |expression: &str| match Program::compile(expression).unwrap().execute(&context) {
        Ok(cel::Value::Bool(holds)) => holds,
        other => panic!("{expression}: {other:?}"),
    };
    [(&checks.in_progress, "InProgress"), (&checks.failed, "Failed"), (&checks.current, "Current")]
        .into_iter()
        .find(|(expression, _)| holds(expression))
        .map_or("InProgress", |(_, verdict)| verdict)
}

#[test]
fn flux_comes_to_the_verdict_of_kstatus() {
    for (kind, staged) in kinds() {
        let checks: Vec<HealthCheckExprs> =
            serde_yaml::from_str(&read(&kind, "flux-health-checks.yaml")).unwrap();
        assert_eq!(checks.len(), 1);
        let spec = &kind.crd.spec;
        assert_eq!(checks[0].api_version, format!("{}/{}", spec.group, spec.versions[0].name));
        assert_eq!(checks[0].kind, spec.names.kind);
        for Staged { name, situation, object } in &staged {
            let expected = match contract(*situation).3 {
                // Flux looks at no deletion, and waits for what is being deleted in another way.
                "Terminating" => "InProgress",
                verdict => verdict,
            };
            assert_eq!(flux(&checks[0], object), expected, "{name}");
        }
    }
}

fn documents(file: &str) -> Vec<Value> {
    let path = crate::repository_root().join(FOLDER).join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_yaml::Deserializer::from_str(&text).map(|document| Value::deserialize(document).unwrap()).collect()
}

#[test]
fn the_worked_examples_order_crds_chart_and_samples() {
    let applications = documents("argo-cd/applications.yaml");
    let waves: Vec<(i64, &str)> = applications
        .iter()
        .map(|application| {
            let wave = &application["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"];
            let path = application["spec"]["source"]["path"].as_str().unwrap();
            (wave.as_str().unwrap().parse().unwrap(), path)
        })
        .collect();
    assert_eq!(waves, [(0, "charts/springtide-crds"), (1, "charts/springtide"), (2, "config/gitops/work")]);

    let releases = documents("flux/springtide/helm-releases.yaml");
    let chart = |release: &Value| release["spec"]["chart"]["spec"]["chart"].as_str().unwrap().to_owned();
    assert_eq!(chart(&releases[0]), "charts/springtide-crds");
    assert_eq!(releases[0]["spec"]["dependsOn"], Value::Null);
    assert_eq!(chart(&releases[1]), "charts/springtide");
    assert_eq!(releases[1]["spec"]["dependsOn"], json!([{"name": releases[0]["metadata"]["name"]}]));
    let flux = documents("flux/kustomizations.yaml");
    assert_eq!(flux[1]["spec"]["path"], "./config/gitops/flux/springtide");
    assert_eq!(flux[1]["spec"]["wait"], true);
    assert_eq!(flux[2]["spec"]["path"], "./config/gitops/work");
    assert_eq!(flux[2]["spec"]["dependsOn"], json!([{"name": flux[1]["metadata"]["name"]}]));
    let image = &releases[1]["spec"]["values"]["image"]["repository"];
    assert_eq!(&applications[1]["spec"]["source"]["helm"]["valuesObject"]["image"]["repository"], image);
    for object in flux.iter().chain(&applications) {
        let spec = &object["spec"];
        let revision = spec["ref"]["tag"].as_str().or(spec["source"]["targetRevision"].as_str());
        assert!(revision.is_none_or(|tag| tag == concat!("v", env!("CARGO_PKG_VERSION"))), "{object}");
    }
}

#[test]
fn the_work_of_the_examples_ends_well_and_not_anew_each_day() {
    let samples: Vec<_> = springtide_crds::all().into_iter().flat_map(|kind| kind.samples).collect();
    for file in super::WORK {
        let work = documents(&format!("work/{file}.yaml")).pop().unwrap();
        let sample = samples.iter().find(|sample| sample.file == file).unwrap();
        // The same work as the demo's, which judges how it ends on a real node.
        let template = &sample.object["spec"]["template"];
        assert_eq!(&work["spec"]["template"], template);
        assert!(sample.doc.contains("Ends Complete"), "{}", sample.doc);
        assert_eq!(template["spec"]["containers"][0]["args"][0], "sleep", "exits with 0");
        let seconds = work["spec"]["ttlSecondsAfterFinished"].as_u64().unwrap();
        let kustomization = &documents("flux/kustomizations.yaml")[2];
        assert_eq!(kustomization["spec"]["interval"], "24h");
        assert!(seconds > 24 * 3600, "{seconds}");
    }
}
