//! Each lint has a CRD that breaks it, made from the real one by one edit.

use std::collections::BTreeSet;

use serde_json::json;
use springtide_crds::MAX_PER_CLUSTER;
use springtide_crds::common::ConditionStatus;
use springtide_crds::reason::ReasonDoc;

use super::*;
use crate::check::allowed;
use crate::check::examples::RuleExamples;

/// The real BatchJob with a controller that uses every field.
fn subject() -> Subject {
    let root = crate::repository_root();
    let mut subject = Subject::read(&root, &springtide_crds::all().remove(0)).unwrap();
    let mut sources = String::new();
    subject.each_field(|node| {
        sources.push_str(&format!("job.{}, ", crate::check::sources::identifier(node.name)))
    });
    subject.sources = Sources(sources);
    subject
}

/// Edits the schema below the CRD's root schema.
fn set(subject: &mut Subject, pointer: &str, value: Value) {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    subject.root.pointer_mut(parent).unwrap()[name] = value;
}

const TIER: &str = "/properties/spec/properties/tier";
const PRIORITY: &str = "/properties/spec/properties/priority";
const SPEC_FIELDS: &str = "/properties/spec/properties";
const CONDITIONS: &str = "/properties/status/properties/conditions";

struct Broken {
    lint: &'static str,
    edit: fn(&mut Subject),
    finding: &'static str,
}

fn broken(lint: &'static str, edit: fn(&mut Subject), finding: &'static str) -> Broken {
    Broken { lint, edit, finding }
}

fn all_broken() -> Vec<Broken> {
    vec![
        broken("scope", |s| s.crd["spec"]["scope"] = json!("Cluster"), "cluster-scoped"),
        broken(
            "maximum",
            |s| s.crd["metadata"]["annotations"][MAX_PER_CLUSTER] = json!("10001"),
            "1..=10000",
        ),
        broken(
            "maximum",
            |s| s.crd["metadata"]["annotations"] = json!({}),
            "annotation springtide.dev/max-per-namespace",
        ),
        broken("maximum", |s| s.crd["spec"]["names"]["kind"] = json!("Other"), "no ceiling"),
        broken(
            "subresource",
            |s| s.crd["spec"]["versions"][0]["subresources"] = json!({}),
            "needs the status subresource",
        ),
        broken(
            "subresource",
            |s| s.crd["spec"]["conversion"] = json!({"strategy": "Webhook"}),
            "conversion must be None",
        ),
        broken("subresource", |s| s.root["required"] = json!([]), "spec must be required"),
        broken("subresource", |s| s.kind.reasons.clear(), "without conditions a status says nothing"),
        broken("polish", |s| s.crd["spec"]["names"]["shortNames"] = json!([]), "short name"),
        broken("polish", |s| s.crd["spec"]["names"]["categories"] = json!(["springtide", "all"]), "category"),
        broken(
            "polish",
            |s| {
                s.crd["spec"]["versions"][0]["additionalPrinterColumns"].as_array_mut().unwrap().truncate(4);
            },
            "printer columns and the age",
        ),
        broken("size", |s| s.crd["description"] = json!("x".repeat(200_000)), "at most 200000"),
        broken(
            "conditions",
            |s| set(s, &format!("{CONDITIONS}/x-kubernetes-list-type"), json!("atomic")),
            "list-map",
        ),
        broken(
            "conditions",
            |s| set(s, &format!("{CONDITIONS}/items/required"), json!(["type"])),
            "must carry observedGeneration",
        ),
        broken("conditions", |s| set(s, "/properties/status/default", json!({})), "both Pending"),
        broken(
            "conditions",
            |s| s.kind.reasons.retain(|row| row.condition != "Stalled"),
            "Stalled must be documented",
        ),
        broken("conditions", |s| s.kind.reasons.clear(), "a summary condition"),
        broken(
            "described",
            |s| set(s, &format!("{TIER}/description"), json!("")),
            "spec.tier: needs a description",
        ),
        broken("banned", |s| set(s, &format!("{PRIORITY}/type"), json!("number")), "floats"),
        broken("banned", |s| set(s, &format!("{TIER}/type"), json!("boolean")), "boolean"),
        broken(
            "banned",
            |s| set(s, &format!("{SPEC_FIELDS}/phase"), json!({"type": "string"})),
            "spec.phase: use conditions",
        ),
        broken(
            "banned",
            |s| set(s, &format!("{SPEC_FIELDS}/namespace"), json!({"type": "string"})),
            "references stay",
        ),
        broken(
            "banned",
            |s| set(s, &format!("{SPEC_FIELDS}/drainTimeout"), json!({"type": "string"})),
            "a duration is an integer",
        ),
        broken(
            "banned",
            |s| set(s, &format!("{SPEC_FIELDS}/retry/x-kubernetes-preserve-unknown-fields"), json!(true)),
            "spec.retry: an open schema",
        ),
        broken("names", |s| set(s, &format!("{TIER}/enum"), json!(["best-effort"])), "CamelCase"),
        broken("names", |s| set(s, &format!("{SPEC_FIELDS}/Other"), json!({"type": "string"})), "camelCase"),
        broken(
            "names",
            |s| {
                set(s, &format!("{SPEC_FIELDS}/finishedAt"), json!({"type": "string", "format": "date-time"}))
            },
            "ends in Time",
        ),
        broken(
            "names",
            |s| set(s, &format!("{SPEC_FIELDS}/grace"), json!({"type": "integer"})),
            "unit Seconds",
        ),
        broken("names", |s| set(s, &format!("{SPEC_FIELDS}/podCount"), json!({"type": "integer"})), "plural"),
        broken(
            "names",
            |s| {
                let reference = json!({"type": "object", "properties": {"kind": {}, "name": {}}});
                set(s, &format!("{SPEC_FIELDS}/target"), reference);
            },
            "ends in Ref",
        ),
        broken(
            "bounds",
            |s| set(s, &format!("{PRIORITY}/maximum"), Value::Null),
            "needs minimum and maximum",
        ),
        broken("bounds", |s| set(s, &format!("{TIER}/enum"), Value::Null), "spec.tier: needs maxLength"),
        broken("bounds", |s| set(s, &format!("{CONDITIONS}/maxItems"), Value::Null), "needs maxItems"),
        broken(
            "bounds",
            |s| {
                set(
                    s,
                    &format!("{SPEC_FIELDS}/template/properties/metadata/properties/labels/maxProperties"),
                    Value::Null,
                )
            },
            "needs maxProperties",
        ),
        broken(
            "status-size",
            |s| set(s, &format!("{CONDITIONS}/items/properties/message/maxLength"), json!(1024)),
            "lower a bound",
        ),
        broken(
            "lists",
            |s| set(s, &format!("{CONDITIONS}/x-kubernetes-list-type"), Value::Null),
            "map, set or atomic",
        ),
        broken(
            "lists",
            |s| set(s, &format!("{CONDITIONS}/x-kubernetes-list-map-keys"), json!([])),
            "needs its keys",
        ),
        broken(
            "lists",
            |s| set(s, &format!("{CONDITIONS}/items/required"), json!([])),
            "must be required or have a default",
        ),
        broken(
            "rules",
            |s| set(s, "/properties/spec/x-kubernetes-validations/0/message", json!("wrong")),
            "the message must name the field",
        ),
        broken(
            "rules",
            |s| set(s, "/properties/spec/x-kubernetes-validations/0/reason", Value::Null),
            "needs a reason",
        ),
        broken("rules", |s| drop(s.examples.rules.remove(0)), "needs one entry of examples"),
        broken("rules", |s| s.examples.rules[0].reject.clear(), "an accepted and a rejected"),
        broken("rules", |s| s.examples.rules[0].old = Some(json!({})), "`old` exactly when"),
        broken("rules", |s| s.examples.rules[0].message.push('!'), "which no rule says"),
        broken(
            "rules",
            |s| s.examples.rules.push(of_schema(json!([{}]), json!([{"spec": {"tier": "Standard"}}]))),
            "nothing refuses",
        ),
        broken(
            "rules",
            |s| {
                s.examples
                    .rules
                    .push(of_schema(json!([{"spec": {"tier": "A"}}]), json!([{"spec": {"tier": "B"}}])))
            },
            "the schema does not take",
        ),
        broken(
            "rules",
            |s| s.examples.rules.push(of_schema(json!([{}]), json!([]))),
            "an accepted and a rejected",
        ),
        broken("rules", |s| s.kind.immutable_fields = &["priority"], "no transition rule guards it"),
        broken("rules", |s| s.kind.immutable_fields = &["prioritee"], "does not exist"),
        broken(
            "rules",
            |s| s.kind.immutable_fields = &["podFailurePolicy.rules[].action"],
            "no transition rule guards it",
        ),
        broken("rules", |s| s.kind.rising_fields = &["priority"], "rising but no transition rule guards it"),
        broken(
            "wiring",
            |s| s.sources.0 = s.sources.0.replace(".stop_policy,", ""),
            "spec.stopPolicy: nothing",
        ),
        broken("wiring", |s| s.sources.0 = s.sources.0.replace(".granted,", ""), "status.granted: nothing"),
        broken("words", |s| s.kind.reasons.push(odd_reason("", "NoCapacity2")), "documentation"),
        broken("words", |s| s.kind.reasons.push(odd_reason("Odd.", "no_capacity")), "CamelCase"),
        broken("words", |s| s.kind.reasons.push(odd_reason("Odd.", "NoCapacity")), "twice"),
        broken("words", |s| s.kind.reasons.retain(|row| row.reason != "Pending"), "undocumented reason"),
    ]
}

fn odd_reason(doc: &'static str, reason: &'static str) -> ReasonDoc {
    ReasonDoc { condition: "Queued", status: ConditionStatus::True, reason, doc }
}

/// Examples of what the schema itself takes and refuses.
fn of_schema(accept: Value, reject: Value) -> RuleExamples {
    let message = "spec.tier: Unsupported value";
    serde_json::from_value(json!({"message": message, "accept": accept, "reject": reject})).unwrap()
}

#[test]
fn what_the_schema_refuses_may_have_examples_too() {
    let mut subject = subject();
    let example = of_schema(json!([{"spec": {"tier": "Standard"}}]), json!([{"spec": {"tier": "Odd"}}]));
    subject.examples.rules.push(example);
    assert!(!findings(&subject).iter().any(|found| found.lint == "rules"));
}

#[test]
fn the_real_kind_breaks_nothing_but_what_is_allowed() {
    let left = allowed::apply(&allowed::read().unwrap(), findings(&subject()));
    // Whether each entry is of use is seen over all kinds alone.
    let left: Vec<_> = left.into_iter().filter(|finding| finding.lint != "allowed").collect();
    assert_eq!(left, []);
}

#[test]
fn each_broken_kind_is_found_by_its_lint() {
    for Broken { lint, edit, finding } in all_broken() {
        let mut subject = subject();
        edit(&mut subject);
        let findings = findings(&subject);
        let found = findings.iter().any(|found| found.lint == lint && found.to_string().contains(finding));
        assert!(found, "{lint} does not say {finding:?}: {findings:#?}");
    }
}

#[test]
fn every_lint_has_a_broken_kind() {
    let tested: BTreeSet<&str> = all_broken().iter().map(|broken| broken.lint).collect();
    let lints: BTreeSet<&str> = LINTS.iter().map(|(name, _)| *name).collect();
    assert_eq!(tested, lints);
}
