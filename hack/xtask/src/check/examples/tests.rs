//! The rules of the CRDs, evaluated on the examples and the samples as an API server does it.

use std::sync::Arc;

use cel::extractors::This;
use cel::{Context, Program};
use serde_json::Value;
use springtide_crds::samples::quickstarts;
use springtide_crds::schema::with_defaults;
use springtide_crds::{Kind, all};

use super::{Examples, read};
use crate::check::fit;
use crate::schema;

/// A text as rules have it.
type Text = Arc<String>;

/// A kind with its root schema and its examples.
fn kinds() -> Vec<(Kind, Value, Examples)> {
    let with_examples = |kind: Kind| {
        let examples = read(&crate::repository_root(), &kind).unwrap();
        let root = schema::root(&serde_json::json!(kind.crd));
        (kind, root, examples)
    };
    all().into_iter().map(with_examples).collect()
}

/// The messages of all rules that an object breaks as it is stored, with the one before it where it is an update.
fn broken(object: &Value, old: Option<&Value>, root: &Value) -> Vec<String> {
    let stored = |object: &Value| {
        let mut object = object.clone();
        with_defaults(&mut object, root);
        object
    };
    let mut broken = Vec::new();
    look(&stored(object), old.map(stored).as_ref(), root, &mut broken);
    broken
}

fn look(value: &Value, old: Option<&Value>, schema: &Value, broken: &mut Vec<String>) {
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        let text = rule["rule"].as_str().unwrap();
        // What is new is compared with nothing.
        if !text.contains("oldSelf") || old.is_some() {
            let holds = holds(text, value, old);
            broken.extend((!holds).then(|| rule["message"].as_str().unwrap().to_owned()));
        }
    }
    for (name, field) in value.as_object().into_iter().flatten() {
        let declared = &schema["properties"][name];
        let schema = if declared.is_object() { declared } else { &schema["additionalProperties"] };
        look(field, old.and_then(|old| old.get(name)), schema, broken);
    }
    let keys = schema["x-kubernetes-list-map-keys"].as_array();
    for item in value.as_array().into_iter().flatten() {
        let is_same = |other: &&Value| {
            keys.is_some_and(|keys| {
                keys.iter().all(|key| item[key.as_str().unwrap()] == other[key.as_str().unwrap()])
            })
        };
        let before = old.and_then(Value::as_array).and_then(|old| old.iter().find(is_same));
        look(item, before, &schema["items"], broken);
    }
}

fn holds(rule: &str, value: &Value, old: Option<&Value>) -> bool {
    let mut context = Context::default();
    // What the API server adds to the language, as far as rules here have use for it.
    context.add_function("quantity", |text: Text| amount(&text)).unwrap();
    context
        .add_function("compareTo", |This(this): This<f64>, other: f64| this.total_cmp(&other) as i64)
        .unwrap();
    context.add_function("isLessThan", |This(this): This<f64>, other: f64| this < other).unwrap();
    context
        .add_function("replace", |This(this): This<Text>, from: Text, to: Text| {
            this.replace(from.as_str(), to.as_str())
        })
        .unwrap();
    context
        .add_function("split", |This(this): This<Text>, at: Text| {
            Arc::new(this.split(at.as_str()).map(cel::Value::from).collect::<Vec<_>>())
        })
        .unwrap();
    context.add_variable_from_value("self", cel_value(value));
    if let Some(old) = old {
        context.add_variable_from_value("oldSelf", cel_value(old));
    }
    match Program::compile(rule).unwrap().execute(&context) {
        Ok(cel::Value::Bool(holds)) => holds,
        other => panic!("{rule}: {other:?} for {value}"),
    }
}

/// A quantity as far as the examples have them: a decimal number with a suffix.
fn amount(text: &str) -> f64 {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "" => 1.0,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "Ki" => 1024.0,
        "Mi" => 1024.0 * 1024.0,
        "Gi" => 1024.0 * 1024.0 * 1024.0,
        other => panic!("{other} of {text}"),
    };
    digits.parse::<f64>().unwrap() * factor
}

/// As the API server gives it to rules: each whole number is an int.
fn cel_value(value: &Value) -> cel::Value {
    match value {
        Value::Number(number) => {
            number.as_i64().map_or_else(|| number.as_f64().unwrap().into(), cel::Value::Int)
        }
        Value::Array(items) => items.iter().map(cel_value).collect::<Vec<_>>().into(),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, field)| (name.clone(), cel_value(field)));
            fields.collect::<std::collections::HashMap<_, _>>().into()
        }
        Value::Null => cel::Value::Null,
        Value::Bool(holds) => (*holds).into(),
        Value::String(text) => text.as_str().into(),
    }
}

#[test]
fn every_rule_accepts_and_refuses_its_examples() {
    for (kind, root, examples) in kinds() {
        let name = &kind.crd.spec.names.kind;
        for rule in &examples.rules {
            let message = &rule.message;
            let is_of_schema = message.starts_with("spec.") && message.contains(": ");
            let old = rule.old.as_ref().map(|patch| examples.with(patch));
            for patch in &rule.accept {
                let object = examples.with(patch);
                assert_eq!(fit::object_problems(&object, &root), Vec::<String>::new(), "{name}: {patch}");
                assert_eq!(broken(&object, old.as_ref(), &root), Vec::<String>::new(), "{name}: {patch}");
            }
            for patch in rule.reject.iter().filter(|_| !is_of_schema) {
                let found = broken(&examples.with(patch), old.as_ref(), &root);
                assert!(found.contains(message), "{name}: {patch} should break {message:?}: {found:?}");
            }
        }
    }
}

#[test]
fn every_sample_fits_its_schema_and_keeps_the_rules() {
    for (kind, root, _) in kinds() {
        for sample in &kind.samples {
            let object = &sample.object;
            assert_eq!(fit::object_problems(object, &root), Vec::<String>::new(), "{}", sample.file);
            assert_eq!(broken(object, None, &root), Vec::<String>::new(), "{}", sample.file);
        }
    }
    for start in quickstarts() {
        let object = start.objects.last().unwrap();
        let kinds = kinds();
        let (_, root, _) =
            kinds.iter().find(|(kind, ..)| object["kind"] == *kind.crd.spec.names.kind).unwrap();
        assert_eq!(fit::object_problems(object, root), Vec::<String>::new(), "{}", start.file);
        assert_eq!(broken(object, None, root), Vec::<String>::new(), "{}", start.file);
    }
}
